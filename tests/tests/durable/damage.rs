//! Files that are damaged, missing or in use: what a checkpoint covers goes on, everything else is refused by name, and nothing comes
//! up with less than was acknowledged.

use std::fs;
use std::path::{Path, PathBuf};

use master::store::{self, Opened, Options, StoreError};
use shared::name::JournalIndex;

use crate::fleet::Master;

fn options() -> Options {
    Options { segment_bytes: 64 * 1024, ..Options::default() }
}

fn open(data: &Path) -> Result<Opened, StoreError> {
    store::open(data, options())
}

/// A store with `steps` steps behind it; gives the encoded state.
fn grow(data: &Path, seed: u64, steps: usize, checkpoint_every: usize) -> Vec<u8> {
    let mut master = Master::new(open(data).unwrap(), seed);
    for step in 1..=steps {
        master.step();
        if checkpoint_every > 0 && step % checkpoint_every == 0 {
            master.checkpoint();
        }
    }
    master.published().encode()
}

fn files(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
    files.sort();
    files
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_second_master_is_refused_and_the_first_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let mut first = Master::new(open(directory.path()).unwrap(), 1);
    let refused = open(directory.path()).unwrap_err();
    assert!(matches!(refused, StoreError::InUse { .. }), "{refused}");
    assert!(refused.to_string().contains("--data"), "{refused}");
    assert!(!first.step().is_empty());
    drop(first);
    open(directory.path()).unwrap();
}

#[test]
fn a_damaged_checkpoint_falls_back_to_the_older_one() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let state = grow(data, 2, 100, 40);
    let checkpoints = files(&data.join("checkpoint"), ".ckpt");
    assert_eq!(checkpoints.len(), 2);
    flip(&checkpoints[1], 200);
    let opened = open(data).unwrap();
    assert!(opened.status.encode() == state);
    assert_eq!(opened.recovery.damaged_checkpoints.len(), 1);
    assert!(opened.recovery.checkpoint.0 > 0);
    drop(opened);
    // And when the older one is damaged as well, the journal is still whole.
    flip(&checkpoints[0], 200);
    let opened = open(data).unwrap();
    assert!(opened.status.encode() == state);
    assert_eq!(opened.recovery.checkpoint, JournalIndex(0));
}

#[test]
fn damage_in_the_journal_is_refused_unless_a_checkpoint_covers_it() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let state = grow(data, 3, 600, 0);
    let segments = files(&data.join("journal"), ".seg");
    assert!(segments.len() >= 3, "{} segments are no middle", segments.len());
    let middle = &segments[segments.len() / 2];
    let good = fs::read(middle).unwrap();
    flip(middle, good.len() / 2);
    let refused = open(data).unwrap_err().to_string();
    let name = middle.file_name().unwrap().to_string_lossy().into_owned();
    assert!(refused.contains(&name) && refused.contains("at byte") && refused.contains("restore"), "{refused}");
    // A whole segment gone is damage as well.
    fs::remove_file(middle).unwrap();
    let refused = open(data).unwrap_err().to_string();
    assert!(refused.contains("restore"), "{refused}");

    fs::write(middle, &good).unwrap();
    let master = Master::new(open(data).unwrap(), 3);
    master.checkpoint();
    drop(master);
    flip(middle, good.len() / 2);
    let opened = open(data).unwrap();
    assert!(opened.status.encode() == state);
    // A reader of the past is told.
    let mut reader = opened.store.reader(JournalIndex(1)).unwrap();
    let mut damages = 0;
    while let Some(read) = reader.next().unwrap() {
        damages += usize::from(matches!(read, store::Read::Damage(_)));
    }
    assert_eq!(damages, 1);
}

#[test]
fn a_journal_that_ends_before_its_checkpoint_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    grow(data, 4, 400, 200);
    for segment in files(&data.join("journal"), ".seg").iter().skip(1) {
        fs::remove_file(segment).unwrap();
    }
    let refused = open(data).unwrap_err();
    assert!(matches!(refused, StoreError::Behind { .. }), "{refused}");
    assert!(refused.to_string().contains("restore"), "{refused}");
}

#[test]
fn an_empty_journal_under_a_founded_store_is_refused_until_a_new_installation_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    grow(data, 5, 50, 0);
    let again = store::open(data, Options { new_installation: true, ..options() }).unwrap_err();
    assert!(matches!(again, StoreError::NotEmpty { .. }), "{again}");

    fs::remove_dir_all(data.join("journal")).unwrap();
    for _ in 0..2 {
        let refused = open(data).unwrap_err();
        assert!(matches!(refused, StoreError::Empty { .. }), "{refused}");
        let message = refused.to_string();
        assert!(message.contains("restore") && message.contains("--new-installation"), "{message}");
    }
    let opened = store::open(data, Options { new_installation: true, ..options() }).unwrap();
    assert_eq!(opened.status.head, JournalIndex(0));
    assert!(data.join("before-new-installation-1/revisions").is_dir());
    drop(opened);
    // Nothing was committed yet: the next start is that of a new store, not of a lost one.
    grow(data, 6, 5, 0);
    assert!(open(data).unwrap().status.head.0 > 0);
}

#[test]
fn a_missing_revision_stops_the_start_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    grow(data, 7, 30, 0);
    let revisions = files(&data.join("revisions"), ".cbor.zst");
    for revision in &revisions {
        fs::remove_file(revision).unwrap();
    }
    let refused = open(data).unwrap_err();
    assert!(matches!(refused, StoreError::RevisionMissing { .. }), "{refused}");
    assert!(refused.to_string().contains("revisions/"), "{refused}");
}

#[test]
fn a_torn_tail_is_cut_and_the_rest_stands() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let state = grow(data, 8, 60, 0);
    let newest = files(&data.join("journal"), ".seg").pop().unwrap();
    let mut bytes = fs::read(&newest).unwrap();
    bytes.extend_from_slice(&[0x5a; 777]);
    fs::write(&newest, bytes).unwrap();
    let opened = open(data).unwrap();
    assert_eq!(opened.recovery.torn_bytes, 777);
    assert!(opened.status.encode() == state);
}
