//! What the log promises when the disk fails, each failure at each place, and a random history of everything against
//! a list in memory.

use crate::faults::{Faulty, Operation};
use crate::{Error, Item, Log, Options, Recovery};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

fn directory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn options() -> Options {
    Options { segment_bytes: 400, ..Options::new(*b"test") }
}

fn open(dir: &Path, medium: &Arc<Faulty>) -> (Log, Recovery) {
    Log::open_on(dir, options(), Arc::clone(medium) as _).unwrap()
}

type Records = Vec<(u64, Vec<u8>)>;

/// All records held; any damage fails the test.
fn contents(log: &Log) -> Records {
    let mut reader = log.read(0).unwrap();
    let mut records = Vec::new();
    while let Some(item) = reader.next().unwrap() {
        match item {
            Item::Record { index, payload } => records.push((index, payload)),
            Item::Damage(damage) => panic!("{damage:?}"),
        }
    }
    records
}

fn appended(log: &mut Log, index: u64, payload: &[u8]) {
    log.append(index, payload).unwrap();
    assert_eq!(log.sync().unwrap(), index);
}

#[test]
fn after_a_failed_sync_the_group_is_void_and_the_next_segment_says_so() {
    for operation in [Operation::Write, Operation::Sync] {
        let (dir, medium) = (directory(), Arc::new(Faulty::default()));
        let (mut log, _) = open(dir.path(), &medium);
        appended(&mut log, 1, b"one");
        let mut reader = log.read(1).unwrap();
        medium.fail_next(operation, 1000);
        log.append(2, b"lost two").unwrap();
        log.append(3, b"lost three").unwrap();
        let refused = log.sync().unwrap_err();
        assert!(matches!(refused, Error::Io { .. }) && refused.to_string().contains(".seg: injected"), "{refused}");
        assert_eq!((log.published(), log.segments()), (1, 1));
        assert_eq!(log.sync().unwrap(), 1, "nothing is left to sync");

        appended(&mut log, 2, b"two");
        appended(&mut log, 9, b"nine");
        assert_eq!(log.segments(), 2);
        let expected: Records = vec![(1, b"one".to_vec()), (2, b"two".to_vec()), (9, b"nine".to_vec())];
        assert_eq!(contents(&log), expected);
        for (index, payload) in expected.clone() {
            assert_eq!(reader.next().unwrap(), Some(Item::Record { index, payload }));
        }
        drop(log);
        for _ in 0..3 {
            medium.restart();
            let (log, recovery) = open(dir.path(), &medium);
            assert_eq!((recovery.void_records, recovery.published, recovery.highest_seen), (2, 9, 9));
            assert!(recovery.damages.is_empty() && recovery.ignored.is_empty());
            assert_eq!(contents(&log), expected, "{operation:?}");
        }
    }
}

#[test]
fn void_records_do_not_come_back_when_the_header_that_voids_them_is_damaged() {
    let (dir, medium) = (directory(), Arc::new(Faulty::default()));
    let (mut log, _) = open(dir.path(), &medium);
    appended(&mut log, 1, b"one");
    medium.fail_next(Operation::Sync, 1000);
    log.append(2, b"lost two").unwrap();
    log.append(3, b"lost three").unwrap();
    log.sync().unwrap_err();
    appended(&mut log, 100, b"hundred");
    let path = log.bounds().segments()[1].path.clone();
    drop(log);
    medium.restart();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[24] ^= 0xff;
    std::fs::write(&path, bytes).unwrap();
    let (log, recovery) = open(dir.path(), &medium);
    assert_eq!((recovery.void_records, recovery.damages.len()), (2, 1));
    let mut reader = log.read(0).unwrap();
    assert_eq!(reader.next().unwrap(), Some(Item::Record { index: 1, payload: b"one".to_vec() }));
    assert!(matches!(reader.next().unwrap(), Some(Item::Damage(damage))
        if (damage.after, damage.before, damage.offset, damage.bytes) == (1, Some(100), 0, 64)));
    assert_eq!(reader.next().unwrap(), Some(Item::Record { index: 100, payload: b"hundred".to_vec() }));
    assert_eq!(reader.next().unwrap(), None);
}

#[test]
fn a_disk_that_fails_for_long_gathers_no_files_and_costs_no_index() {
    let (dir, medium) = (directory(), Arc::new(Faulty::default()));
    let (mut log, _) = open(dir.path(), &medium);
    appended(&mut log, 1, b"one");
    for attempt in 0..200 {
        let operation = [Operation::Write, Operation::Sync, Operation::Create, Operation::SyncDirectory][attempt % 4];
        medium.fail_next(operation, attempt % 90);
        log.append(2, b"two").unwrap();
        log.sync().unwrap_err();
        assert!(log.segments() <= 3);
        assert_eq!(contents(&log), [(1, b"one".to_vec())]);
        medium.heal();
    }
    appended(&mut log, 2, b"two");
    assert!(log.segments() <= 3);
    drop(log);
    medium.restart();
    let (log, _) = open(dir.path(), &medium);
    assert_eq!(contents(&log), [(1, b"one".to_vec()), (2, b"two".to_vec())]);
}

/// A fixed history with rolls and trims; each refused step is repeated. Returns what must be held, from `log.first()` on.
fn history(log: &mut Log) -> Records {
    let mut model = Records::new();
    for group in 0..12_u64 {
        let records: Records = (1..=3).map(|n| (group * 10 + n, format!("{group} {n}").into_bytes())).collect();
        for attempt in 0.. {
            // A retry says something else under the same indexes, to tell a void record from its successor.
            let records: Records =
                records.iter().map(|(index, payload)| (*index, [payload.as_slice(), &[attempt; 5]].concat())).collect();
            let appended = records.iter().try_for_each(|(index, payload)| log.append(*index, payload));
            if appended.and_then(|()| log.sync()).is_ok() {
                model.extend(records);
                break;
            }
            assert_eq!(log.published(), model.last().map_or(0, |(index, _)| *index));
            assert!(attempt < 20);
        }
        if group % 4 == 3 {
            while log.trim(group * 5).is_err() {}
        }
    }
    model.retain(|(index, _)| *index >= log.first());
    model
}

#[test]
fn each_operation_may_fail_or_tear_and_no_published_record_is_lost() {
    let (dir, medium) = (directory(), Arc::new(Faulty::default()));
    let (mut log, _) = open(dir.path(), &medium);
    history(&mut log);
    drop(log);
    let operations = medium.operations();
    assert!(operations > 40);
    for number in 0..operations {
        for burst in [1, 2, 7] {
            for torn in [0, 1, 63, 64, 100, 10_000] {
                let (dir, medium) = (directory(), Arc::new(Faulty::default()));
                let (mut log, _) = open(dir.path(), &medium);
                (number..number + burst).for_each(|number| medium.fail(number, torn));
                let model = history(&mut log);
                assert_eq!(contents(&log), model, "operation {number}, {burst} times, torn at {torn}");
                drop(log);
                medium.heal();
                medium.restart();
                let (log, recovery) = open(dir.path(), &medium);
                assert_eq!(contents(&log), model, "reopened: operation {number}, {burst} times, torn at {torn}");
                assert!(recovery.damages.is_empty() && recovery.ignored.is_empty(), "{recovery:?}");
                drop(log);
                let mut seed = number;
                medium.crash(|| pseudo_random(&mut seed));
                let (log, recovery) = open(dir.path(), &medium);
                // A trimmed segment may be back, a published record may not be missing.
                let held = contents(&log);
                assert_eq!(held[held.len() - model.len()..], model, "after a crash: operation {number}");
                assert!(recovery.damages.is_empty(), "{recovery:?}");
            }
        }
    }
}

/// SplitMix64.
fn pseudo_random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *seed;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[test]
fn what_the_page_cache_shows_after_a_failed_sync_is_durable_before_it_counts() {
    let (dir, medium) = (directory(), Arc::new(Faulty::default()));
    let (mut log, _) = open(dir.path(), &medium);
    appended(&mut log, 1, b"one");
    medium.fail_next(Operation::Sync, 0);
    log.append(2, b"two").unwrap();
    log.sync().unwrap_err();
    drop(log);
    medium.restart();
    // The bytes are visible but not on the platter. The next process finds them whole, and may send them.
    let (log, recovery) = open(dir.path(), &medium);
    assert_eq!(recovery.published, 2);
    drop(log);
    medium.crash(|| 1);
    let (log, recovery) = open(dir.path(), &medium);
    assert_eq!(recovery.published, 2);
    assert_eq!(contents(&log), [(1, b"one".to_vec()), (2, b"two".to_vec())]);
}

#[test]
fn a_newest_segment_that_cannot_be_cut_or_confirmed_is_read_and_followed() {
    for operation in [Operation::Open, Operation::Truncate, Operation::Write, Operation::Sync] {
        let (dir, medium) = (directory(), Arc::new(Faulty::default()));
        let (mut log, _) = open(dir.path(), &medium);
        appended(&mut log, 1, b"one");
        let path = log.bounds().segments()[0].path.clone();
        drop(log);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], &whole[64..90]].concat()).unwrap();
        medium.restart();
        medium.fail_next(operation, 3);
        let (mut log, recovery) = open(dir.path(), &medium);
        assert!(recovery.distrusted.as_deref().is_some_and(|why| why.contains("injected")), "{operation:?}");
        assert_eq!((recovery.published, recovery.torn_bytes), (1, 26));
        appended(&mut log, 2, b"two");
        assert_eq!(log.segments(), 2);
        drop(log);
        medium.restart();
        let (log, recovery) = open(dir.path(), &medium);
        assert_eq!((recovery.torn_bytes, recovery.distrusted), (0, None));
        assert_eq!(contents(&log), [(1, b"one".to_vec()), (2, b"two".to_vec())]);
    }
}

#[test]
fn an_unreadable_page_is_an_error_until_the_reader_passes_over_it() {
    let (dir, medium) = (directory(), Arc::new(Faulty::default()));
    let options = Options::new(*b"test");
    let (mut log, _) = Log::open_on(dir.path(), options, Arc::clone(&medium) as _).unwrap();
    for index in 1..=100 {
        appended(&mut log, index, &[index as u8; 960]);
    }
    let path = log.bounds().segments()[0].path.clone();
    // Records of 1000 bytes from 64 on: this page touches 20 to 25.
    medium.make_unreadable(&path, 20_480..24_576);
    let mut reader = log.read(1).unwrap();
    for _ in 0..3 {
        let refused = reader.next().unwrap_err();
        assert!(matches!(&refused, Error::Io { op: "read", .. }), "{refused}");
    }
    reader.pass_over_unreadable();
    let mut items = Vec::new();
    while let Some(item) = reader.next().unwrap() {
        items.push(item);
    }
    assert_eq!(items.len(), 20 + 1 + 75);
    let Item::Damage(damage) = &items[20] else { panic!("{:?}", items[20]) };
    assert_eq!((damage.after, damage.before, damage.offset, damage.bytes), (20, Some(26), 20_064, 5_000));

    // Recovery passes over it at once, and never writes to that file again.
    drop(log);
    let before = std::fs::read(&path).unwrap();
    let (mut log, recovery) = Log::open_on(dir.path(), options, Arc::clone(&medium) as _).unwrap();
    assert_eq!((recovery.published, recovery.damages.len()), (100, 1));
    appended(&mut log, 101, b"next");
    assert_eq!(log.segments(), 2);
    assert_eq!(std::fs::read(&path).unwrap(), before);
    // What was only unreadable for a while is back.
    medium.heal();
    assert_eq!(contents(&log).len(), 101);
}

/// One step of a random history.
#[derive(Debug, Clone)]
enum Step {
    Append { jump: u64, length: usize },
    Sync,
    Trim { back: u64 },
    Fail { operation: Operation, torn: usize },
    Reopen,
    Crash { seed: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let operation = prop_oneof![
        Just(Operation::Create),
        Just(Operation::Write),
        Just(Operation::Sync),
        Just(Operation::SyncDirectory),
        Just(Operation::Unlink),
    ];
    prop_oneof![
        12 => (prop_oneof![4 => Just(1), 1 => 1..20_u64], 0..120_usize)
            .prop_map(|(jump, length)| Step::Append { jump, length }),
        8 => Just(Step::Sync),
        2 => (0..30_u64).prop_map(|back| Step::Trim { back }),
        2 => (operation, 0..200_usize).prop_map(|(operation, torn)| Step::Fail { operation, torn }),
        1 => Just(Step::Reopen),
        2 => any::<u64>().prop_map(|seed| Step::Crash { seed }),
    ]
}

/// The list in memory.
#[derive(Debug, Default)]
struct Model {
    published: Records,
    pending: Records,
    /// Refused groups that no successor has voided yet: each may come back after a restart, from its first record on.
    doubtful: Vec<Records>,
    trimmed: u64,
    count: u64,
}

impl Model {
    fn last(&self) -> u64 {
        self.published.last().map_or(self.trimmed, |(index, _)| *index)
    }

    /// What an error or success of the log means; `taken` are the records it had.
    fn settle(&mut self, log: &Log) {
        let split = self.pending.partition_point(|(index, _)| *index <= log.published());
        let rest = self.pending.split_off(split);
        if !self.pending.is_empty() {
            self.doubtful.clear();
        }
        self.published.append(&mut self.pending);
        self.pending = rest;
    }

    fn refuse(&mut self, log: &Log) {
        self.settle(log);
        let refused = std::mem::take(&mut self.pending);
        self.doubtful.push(refused);
    }

    /// After a restart the log holds what was published, and at most the beginning of one group in doubt.
    fn accept(&mut self, held: Records) -> Result<(), TestCaseError> {
        let from = held.first().map_or(u64::MAX, |(index, _)| *index);
        let known: Records = self.published.iter().filter(|(index, _)| *index > self.trimmed).cloned().collect();
        let old: Records = self.published.iter().filter(|(index, _)| *index >= from).cloned().collect();
        prop_assert!(old.len() >= known.len(), "published records are gone");
        prop_assert!(held.starts_with(&old), "published records changed: {held:?} for {old:?}");
        let extra = &held[old.len()..];
        self.doubtful.push(std::mem::take(&mut self.pending));
        prop_assert!(
            extra.is_empty() || self.doubtful.iter().any(|group| group.starts_with(extra)),
            "records from nowhere: {extra:?}, in doubt were {:?}",
            self.doubtful
        );
        self.published.extend_from_slice(extra);
        // Whatever did not come back now may still lie in a file without successor.
        self.doubtful.retain(|group| extra.is_empty() && !group.is_empty());
        Ok(())
    }
}

#[test]
fn any_history_of_failures_and_crashes_keeps_what_was_published_and_invents_nothing() {
    let mut runner = TestRunner::new(Config { cases: 3000, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&prop::collection::vec(step(), 1..120), |steps| {
        let (dir, medium) = (directory(), Arc::new(Faulty::default()));
        let mut log = open(dir.path(), &medium).0;
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Append { jump, length } => {
                    let index = model.pending.last().map_or(model.last(), |(index, _)| *index) + jump;
                    model.count += 1;
                    let mut payload = model.count.to_le_bytes().to_vec();
                    payload.resize(8 + length, 7);
                    if log.append(index, &payload).is_ok() {
                        model.settle(&log);
                        model.pending.push((index, payload));
                    } else {
                        model.refuse(&log);
                    }
                }
                Step::Sync => match log.sync() {
                    Ok(published) => {
                        model.settle(&log);
                        prop_assert!(model.pending.is_empty() && published == log.published());
                    }
                    Err(_) => model.refuse(&log),
                },
                Step::Trim { back } => {
                    let up_to = log.published().saturating_sub(back);
                    let _ = log.trim(up_to);
                    prop_assert!(log.first() <= up_to.max(model.trimmed) + 1);
                    model.trimmed = log.first() - 1;
                }
                Step::Fail { operation, torn } => medium.fail_next(operation, torn),
                Step::Reopen | Step::Crash { .. } => {
                    drop(log);
                    medium.heal();
                    match step {
                        Step::Crash { mut seed } => medium.crash(|| pseudo_random(&mut seed)),
                        _ => medium.restart(),
                    }
                    let (opened, recovery) = open(dir.path(), &medium);
                    log = opened;
                    prop_assert!(recovery.damages.is_empty() && recovery.ignored.is_empty(), "{recovery:?}");
                    model.trimmed = model.trimmed.min(log.first() - 1);
                    model.accept(contents(&log))?;
                }
            }
            prop_assert_eq!(log.published(), model.last());
            let held: Records = model.published.iter().filter(|(index, _)| *index >= log.first()).cloned().collect();
            prop_assert_eq!(contents(&log), held);
        }
        Ok(())
    });
    if let Err(failed) = outcome {
        panic!("{failed}");
    }
}
