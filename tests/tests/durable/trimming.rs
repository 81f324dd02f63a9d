//! What is removed, and what it waits for: checkpoints and projections always, cursors within bounds, a ring in any case.

use std::fs;
use std::path::Path;
use std::time::Duration;

use master::store::{self, JOURNAL_AGE_MAX, Options, Projection, REVISIONS_KEPT, StoreError};
use shared::name::JournalIndex;
use shared::time::Timestamp;
use tests::wait::until;

use crate::fleet::{Master, catalog};

const SEGMENT: u64 = 32 * 1024;
const PATIENCE: Duration = Duration::from_secs(20);

/// A ring of two segments, and cursors waited for up to eight.
fn options() -> Options {
    Options { segment_bytes: SEGMENT, ring_bytes: 2 * SEGMENT, most_bytes: 8 * SEGMENT, ..Options::default() }
}

fn grow(master: &mut Master, segments: usize, data: &Path) {
    let from = count(data);
    while count(data) < from + segments {
        master.step();
    }
}

fn count(data: &Path) -> usize {
    let names = fs::read_dir(data.join("journal")).unwrap();
    names.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|ending| ending == "seg")).count()
}

/// Trims, and waits until the job is done.
fn trim(master: &mut Master, now: Timestamp) -> JournalIndex {
    master.store.trim(now);
    assert!(until(PATIENCE, || !master.store.is_trimming()), "the trim does not end");
    while master.step().is_empty() {}
    master.store.first()
}

#[test]
fn trimming_waits_for_checkpoints_history_and_cursors() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let mut master = Master::new(store::open(data, options()).unwrap(), 21);
    let now = master.fleet.at();
    grow(&mut master, 4, data);
    assert_eq!(trim(&mut master, now), JournalIndex(1), "no checkpoint yet");

    let older = master.checkpoint();
    master.store.reached(Projection::History, older);
    assert_eq!(
        trim(&mut master, now),
        JournalIndex(1),
        "without a second checkpoint the journal is what to fall back to"
    );

    grow(&mut master, 4, data);
    let newer = master.checkpoint();
    assert!(newer > older);
    master.store.reached(Projection::History, JournalIndex(5));
    assert_eq!(trim(&mut master, now), JournalIndex(1), "history stands at 5");

    master.store.reached(Projection::History, newer);
    let cursor = master.store.cursor("graphite-a").unwrap();
    cursor.save(JournalIndex(3)).unwrap();
    assert_eq!(trim(&mut master, now), JournalIndex(1), "a cursor stands at 3");

    cursor.save(newer).unwrap();
    let first = trim(&mut master, now);
    assert!(first > JournalIndex(1) && first <= JournalIndex(older.0 + 1), "{first}, older checkpoint {older}");
    let refused = master.store.reader(JournalIndex(1)).unwrap_err();
    assert!(matches!(refused, StoreError::Trimmed { first: named } if named == first), "{refused}");

    // What is left is enough for the older checkpoint.
    let state = master.published().encode();
    drop(master);
    let newest = data.join(format!("checkpoint/{:020}.ckpt", newer.0));
    fs::write(newest, "damaged").unwrap();
    let opened = store::open(data, options()).unwrap();
    assert_eq!(opened.recovery.checkpoint, older);
    assert!(opened.status.encode() == state);
}

#[test]
fn a_cursor_that_stands_still_is_overrun_by_size_and_by_age_only() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let mut master = Master::new(store::open(data, options()).unwrap(), 22);
    let now = master.fleet.at();
    master.store.cursor("graphite-a").unwrap().save(JournalIndex(3)).unwrap();
    let advance = |master: &mut Master| {
        for _ in 0..2 {
            let head = master.checkpoint();
            master.store.reached(Projection::History, head);
            master.step();
        }
        let head = master.checkpoint();
        master.store.reached(Projection::History, head);
    };
    grow(&mut master, 6, data);
    advance(&mut master);
    assert_eq!(trim(&mut master, now), JournalIndex(1), "within both bounds");

    grow(&mut master, 8, data);
    advance(&mut master);
    let first = trim(&mut master, now);
    assert!(first > JournalIndex(3), "beyond the size: {first}");
    assert!((8..=10).contains(&count(data)), "{} segments are left", count(data));

    // The head is noted now, and old a day later.
    let noted = now.plus(Duration::from_secs(3600));
    assert_eq!(trim(&mut master, noted), first);
    master.store.trim(noted.plus(JOURNAL_AGE_MAX));
    assert!(until(PATIENCE, || count(data) <= 4), "a day later {} segments are left", count(data));
    assert!(count(data) >= 2, "the ring stays");
}

#[test]
fn old_revisions_go_and_those_a_replay_may_ask_for_stay() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let mut master = Master::new(store::open(data, options()).unwrap(), 23);
    let stored = || fs::read_dir(data.join("revisions")).unwrap().count();
    let activate = |master: &mut Master, hosts: u64| {
        let catalog = catalog(hosts);
        let store = master.store.clone();
        master.fleet.activate(&store, &catalog);
        assert!(!master.settle(|_, _| {}).is_empty());
    };
    (1..=30).for_each(|hosts| activate(&mut master, hosts));
    let older = master.checkpoint();
    (31..=80).for_each(|hosts| activate(&mut master, hosts));
    assert_eq!(stored(), 80);
    master.checkpoint();
    // The last 50, and the one of the older checkpoint.
    assert!(until(PATIENCE, || stored() == REVISIONS_KEPT + 1), "{} revisions are kept", stored());
    let state = master.published().encode();
    drop(master);
    let newest = fs::read_dir(data.join("checkpoint")).unwrap().map(|entry| entry.unwrap().path()).max().unwrap();
    fs::write(newest, "damaged").unwrap();
    let opened = store::open(data, options()).unwrap();
    assert_eq!(opened.recovery.checkpoint, older);
    assert!(opened.status.encode() == state);
}
