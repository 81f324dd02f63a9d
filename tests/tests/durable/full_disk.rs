//! A disk that is really full: a small tmpfs in a mount namespace of its own. Commits fail by name and nothing published is lost; with
//! room again the store goes on in a new segment.

use std::fs;
use std::path::Path;
use std::process::Command;

use master::store::{self, Options};
use tests::missing::missing;

use crate::fleet::Master;

const CHILD: &str = "PERIGEE_TEST_FULL_STORE";
const NAME: &str = "full_disk::a_full_disk_costs_nothing_published_and_room_heals_it";

fn fill(directory: &Path) {
    let data = directory.join("data");
    let options = Options { segment_bytes: 64 * 1024, ..Options::default() };
    let ballast = directory.join("ballast");
    fs::write(&ballast, vec![7; 600 * 1024]).unwrap();
    let mut master = Master::new(store::open(&data, options).unwrap(), 11);
    let mut steps = 0;
    while master.failed.is_empty() {
        master.step();
        steps += 1;
        assert!(steps < 20_000, "the disk never fills");
    }
    assert!(master.failed[0].contains("No space left"), "{}", master.failed[0]);
    let published = master.published();
    assert_eq!(*master.store.published().borrow(), published.head);
    // Still full: refused again.
    let failures = master.failed.len();
    for _ in 0..20 {
        master.step();
    }
    assert!(master.failed.len() > failures);

    fs::remove_file(&ballast).unwrap();
    let failures = master.failed.len();
    for _ in 0..50 {
        master.step();
    }
    assert_eq!(master.failed.len(), failures, "{:?}", master.failed.last());
    let healed = master.published();
    assert!(healed.head > published.head);
    drop(master);
    let opened = store::open(&data, options).unwrap();
    assert!(opened.status.encode() == healed.encode());
}

#[test]
fn a_full_disk_costs_nothing_published_and_room_heals_it() {
    if let Some(directory) = std::env::var_os(CHILD) {
        return fill(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    let namespace = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--map-root-user", "sh", "-c", script, "sh"]).arg(directory.path());
        command
    };
    const MOUNT: &str = "mount -t tmpfs -o size=1200k tmpfs \"$1\"";
    if !namespace(MOUNT).output().is_ok_and(|output| output.status.success()) {
        return missing("permission to mount a tmpfs in a namespace of its own (unshare)", "util-linux");
    }
    let output = namespace(&format!("{MOUNT} && exec \"$2\" --exact {NAME} --nocapture"))
        .arg(std::env::current_exe().unwrap())
        .env(CHILD, directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}
