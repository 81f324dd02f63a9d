//! A disk that is really full: a tmpfs of 300 KiB in a mount namespace of its own. The log says so, keeps what it
//! published, and goes on as soon as there is room.

use super::{directory, open, small};
use seglog::{Error, Item, Log};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::Command;

const DIRECTORY: &str = "SEGLOG_TEST_FULL_DISK";
const NAME: &str = "full_disk::a_full_disk_costs_nothing_published_and_room_heals_it";

fn held(log: &Log) -> Vec<u64> {
    let mut reader = log.read(0).unwrap();
    let mut held = Vec::new();
    while let Some(item) = reader.next().unwrap() {
        let Item::Record { index, payload } = item else { panic!("{item:?}") };
        assert_eq!(payload, vec![index as u8; 5000]);
        held.push(index);
    }
    held
}

fn fill_the_disk(dir: &Path) {
    let dir = dir.join("log");
    let (mut log, _) = open(&dir, small(64 * 1024));
    let mut index = 0;
    for round in 0..5 {
        let refused = loop {
            index += 1;
            log.append(index, &vec![index as u8; 5000]).unwrap();
            if let Err(refused) = log.sync() {
                break refused;
            }
            assert!(index < 1000, "the disk never fills");
        };
        let message = refused.to_string();
        assert!(matches!(&refused, Error::Io { source, .. } if source.kind() == ErrorKind::StorageFull), "{message}");
        assert!(message.contains(dir.to_str().unwrap()) && message.contains("No space left"), "{message}");
        index -= 1;
        assert_eq!(log.published(), index);
        assert_eq!(held(&log), (log.first()..=index).collect::<Vec<_>>());
        // Still full: refused again, and nothing of it stays.
        log.append(index + 1, b"never").unwrap();
        log.append(index + 2, &[0; 60_000]).unwrap();
        log.sync().unwrap_err();
        assert!(log.trim(index - 20).unwrap() > 0);
        if round % 2 == 0 {
            drop(log);
            let (reopened, recovery) = open(&dir, small(64 * 1024));
            log = reopened;
            assert!(recovery.damages.is_empty() && recovery.published == index, "{recovery:?}");
            assert_eq!(held(&log), (log.first()..=index).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_full_disk_costs_nothing_published_and_room_heals_it() {
    if let Some(dir) = std::env::var_os(DIRECTORY) {
        return fill_the_disk(Path::new(&dir));
    }
    let dir = directory();
    let namespace = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--map-root-user", "sh", "-c", script, "sh"]).arg(dir.path());
        command
    };
    const MOUNT: &str = "mount -t tmpfs -o size=300k tmpfs \"$1\"";
    if !namespace(MOUNT).output().is_ok_and(|output| output.status.success()) {
        return skip("permission to mount a tmpfs in a namespace (unshare) is missing");
    }
    let output = namespace(&format!("{MOUNT} && exec \"$2\" --exact {NAME} --nocapture"))
        .arg(std::env::current_exe().unwrap())
        .env(DIRECTORY, dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

/// Loud for a user, a failure where CI=true.
fn skip(why: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{why} (CI=true: a missing part is a failure)");
    let note = format!("SKIPPED: {why}");
    // Past the capture of the test harness.
    let _ = writeln!(std::io::stderr(), "{note} [seglog::{NAME}]");
    if let Some(path) = std::env::var_os("PERIGEE_SKIPPED")
        && let Ok(mut list) = std::fs::OpenOptions::new().create(true).append(true).open(path)
    {
        let _ = list.write_all(format!("seglog::{NAME}\t{note}\n").as_bytes());
    }
}
