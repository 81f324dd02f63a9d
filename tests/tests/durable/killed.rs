//! kill −9 at a random moment, again and again: nothing published is lost, and the replayed state is byte-equal to the live one, from
//! the newest checkpoint and from the first row. The child is this test program, started once more.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use master::config::Catalog;
use master::entry::{self, Entry};
use master::status::Status;
use master::store::{self, Options};
use shared::name::JournalIndex;

use crate::fleet::{Dice, Master};

const CHILD: &str = "PERIGEE_TEST_KILLED_STORE";
const NAME: &str = "killed::after_kill_9_nothing_published_is_lost_and_the_state_is_byte_equal";
const ROUNDS: u64 = 12;

fn options() -> Options {
    Options { segment_bytes: 128 * 1024, ..Options::default() }
}

fn digest(status: &Status) -> String {
    let bytes = status.encode();
    format!("{:08x}-{}", crc32fast::hash(&bytes), bytes.len())
}

/// The child: says what state each record will lead to before it is written, and that it is published afterwards.
fn live(data: &Path, seed: u64) -> ! {
    let mut stdout = std::io::stdout();
    let opened = store::open(data, options()).unwrap();
    let mut shadow = opened.status.clone();
    let mut catalogs: BTreeMap<String, Arc<Catalog>> = BTreeMap::new();
    let mut master = Master::new(opened, seed);
    for round in 0_u64.. {
        master.fleet.step(&master.store.clone());
        let published = master.settle(|master, commit| {
            for row in entry::decode(&commit.record).unwrap() {
                let catalog = match &row.entry {
                    Entry::Activate(activate) => {
                        let digest = activate.digest.clone();
                        Some(catalogs.entry(digest).or_insert_with_key(|digest| master.store.revision(digest).unwrap()))
                    }
                    _ => None,
                };
                shadow.fold(&row, &row.items(), catalog.as_deref());
            }
            writeln!(stdout, "asked {} {}", commit.last, digest(&shadow)).unwrap();
        });
        for rows in published {
            let status = master.published();
            assert_eq!(digest(&status), digest(&shadow));
            writeln!(stdout, "published {}", rows.last().unwrap().index).unwrap();
        }
        stdout.flush().unwrap();
        if round % 40 == 39 {
            master.store.checkpoint(master.published());
        }
    }
    unreachable!("the parent kills this process")
}

/// What the child said.
#[derive(Default)]
struct Heard {
    asked: BTreeMap<u64, String>,
    published: u64,
}

fn run_and_kill(data: &Path, seed: u64, moment: Duration) -> Heard {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(CHILD, data)
        .env(format!("{CHILD}_SEED"), seed.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut heard = Heard::default();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut take = |heard: &mut Heard| -> bool {
        let Some(Ok(line)) = lines.next() else { return false };
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["asked", index, state] => drop(heard.asked.insert(index.parse().unwrap(), state.to_owned())),
            ["published", index] => heard.published = index.parse().unwrap(),
            _ => {}
        }
        true
    };
    // The moment counts from the first word: before it there is nothing to lose.
    while heard.asked.is_empty() {
        assert!(take(&mut heard), "the child ended before its first commit");
    }
    let killer = std::thread::spawn(move || {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let _ = receiver.recv_timeout(moment);
        drop(sender);
        child.kill().unwrap();
        child.wait().unwrap()
    });
    while take(&mut heard) {}
    assert!(!killer.join().unwrap().success());
    heard
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn after_kill_9_nothing_published_is_lost_and_the_state_is_byte_equal() {
    if let Some(data) = std::env::var_os(CHILD) {
        let seed = std::env::var(format!("{CHILD}_SEED")).unwrap().parse().unwrap();
        live(Path::new(&data), seed);
    }
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut dice = Dice::new(7);
    let mut published = 0;
    let mut from_checkpoint = 0;
    for round in 1..=ROUNDS {
        let heard = run_and_kill(&data, round, Duration::from_millis(20 + dice.roll(400)));
        published = heard.published.max(published);

        let whole = directory.path().join(format!("whole-{round}"));
        copy(&data, &whole);
        fs::remove_dir_all(whole.join("checkpoint")).unwrap();
        let replayed = store::open(&whole, options()).unwrap();
        assert_eq!(replayed.recovery.checkpoint, JournalIndex(0));
        assert_eq!(replayed.recovery.replayed, replayed.status.head.0);

        let opened = store::open(&data, options()).unwrap();
        assert!(
            opened.status.head.0 >= published,
            "round {round}: {} was published, {} is there",
            published,
            opened.status.head
        );
        if let Some(expected) = heard.asked.get(&opened.status.head.0) {
            assert_eq!(&digest(&opened.status), expected, "round {round}, index {}", opened.status.head);
        } else {
            // Killed before the first commit of this round was durable.
            assert_eq!(heard.published, 0, "round {round}: the state at {} was never announced", opened.status.head);
        }
        assert!(opened.status.encode() == replayed.status.encode(), "round {round}: checkpoint and journal disagree");
        assert!(opened.recovery.damages.is_empty() && opened.recovery.damaged_checkpoints.is_empty());
        from_checkpoint += u64::from(opened.recovery.checkpoint.0 > 0);
        drop(replayed);
        fs::remove_dir_all(&whole).unwrap();
    }
    assert!(from_checkpoint > ROUNDS / 3, "only {from_checkpoint} starts were from a checkpoint");
    assert!(published > 100 * ROUNDS / 4, "the children did next to nothing: {published} rows");
}
