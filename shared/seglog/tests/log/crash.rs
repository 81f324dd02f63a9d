//! A writer process killed without warning: all it said to be published is there, and nothing is damaged.

use super::{directory, open, small};
use seglog::{Error, Item, Log, Options};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const DIRECTORY: &str = "SEGLOG_TEST_WRITE_UNTIL_KILLED";
const KILLS: u64 = 25;

fn payload(index: u64) -> Vec<u8> {
    let length = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54;
    vec![index as u8; length as usize]
}

fn options() -> Options {
    small(16 * 1024)
}

/// Appends groups of one to seven records, says each published index, trims now and then; ends only when killed.
fn write_until_killed(dir: &Path) {
    let (mut log, _) = Log::open(dir, options()).unwrap();
    let mut out = std::io::stdout().lock();
    let mut index = log.published();
    loop {
        let before = index;
        for _ in 0..index % 7 + 1 {
            index += 1;
            log.append(index, &payload(index)).unwrap();
        }
        let published = log.sync().unwrap();
        writeln!(out, "published {published}").unwrap();
        if published / 50 > before / 50 {
            log.trim(published.saturating_sub(300)).unwrap();
        }
    }
}

#[test]
fn what_a_killed_writer_said_to_be_published_is_there() {
    if let Some(dir) = std::env::var_os(DIRECTORY) {
        return write_until_killed(&PathBuf::from(dir));
    }
    let dir = directory();
    let mut highest = 0;
    for kill in 1..=KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::what_a_killed_writer_said_to_be_published_is_there", "--nocapture"])
            .env(DIRECTORY, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        let mut published = 0;
        let mut heard = 0;
        // The kill falls at another place of the writer's cycle each time, as the two processes are not in step.
        while heard < kill * 13 {
            line.clear();
            assert_ne!(said.read_line(&mut line).unwrap(), 0, "the writer ended by itself");
            if let Some(index) = line.trim().strip_prefix("published ") {
                published = index.parse().unwrap();
                heard += 1;
            }
        }
        assert!(matches!(Log::open(dir.path(), options()), Err(Error::Locked { .. })));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in said.lines() {
            if let Some(index) = line.unwrap().strip_prefix("published ") {
                // The last line may have been cut by the kill; a shorter number is a smaller promise.
                published = published.max(index.parse().unwrap_or(0));
            }
        }

        let (log, recovery) = open(dir.path(), options());
        assert!(recovery.published >= published && published > highest, "{recovery:?}, said {published}");
        assert!(recovery.damages.is_empty() && recovery.void_records == 0 && recovery.ignored.is_empty());
        let mut reader = log.read(0).unwrap();
        let mut expected = log.first();
        assert!(expected == 1 || expected + 300 > published.saturating_sub(300));
        while let Some(item) = reader.next().unwrap() {
            assert_eq!(item, Item::Record { index: expected, payload: payload(expected) });
            expected += 1;
        }
        assert_eq!(expected, recovery.published + 1);
        highest = recovery.published;
    }
}
