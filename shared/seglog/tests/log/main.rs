//! The log as its callers use it, on a real file system: reading, damage, a full disk, a killed writer.
#![cfg(test)]

mod crash;
mod damage;
mod full_disk;
mod fuzz;
mod layout;
mod reading;

use seglog::{Item, Log, Options, Recovery};
use std::path::Path;
use tempfile::TempDir;

const TAG: [u8; 4] = *b"test";

fn small(segment_bytes: u64) -> Options {
    Options { segment_bytes, ..Options::new(TAG) }
}

fn payload(index: u64) -> Vec<u8> {
    format!("record {index}").into_bytes()
}

fn fill(log: &mut Log, indexes: impl IntoIterator<Item = u64>) {
    for index in indexes {
        log.append(index, &payload(index)).unwrap();
        assert_eq!(log.sync().unwrap(), index);
    }
}

fn indexes(log: &Log, from: u64) -> Vec<u64> {
    let mut reader = log.read(from).unwrap();
    let mut seen = Vec::new();
    while let Some(item) = reader.next().unwrap() {
        match item {
            Item::Record { index, payload: bytes } => {
                assert_eq!(bytes, payload(index));
                seen.push(index);
            }
            Item::Damage(damage) => panic!("{damage:?}"),
        }
    }
    seen
}

fn open(dir: &Path, options: Options) -> (Log, Recovery) {
    Log::open(dir, options).unwrap()
}

/// In memory where the system has that, because these tests open tens of thousands of logs.
fn directory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}
