//! Ten thousand spoiled directories, several wounds each: nothing panics, every intact record is delivered once and in
//! order, every lost one lies in a named gap. And the promise on time: a spoiled log of 1 GiB is open within 10 s.
#![expect(clippy::disallowed_methods, reason = "measures how long opening takes")]

use super::layout::{HEADER, Image, RECORD, image, records, restore};
use super::{directory, fill, open, small};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use seglog::{Item, Options};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// One wound: where (as fractions of what is there) and what.
#[derive(Debug, Clone)]
enum Wound {
    Flip { segment: usize, at: usize, mask: u8 },
    Fill { segment: usize, at: usize, length: usize, filler: u8 },
    Noise { segment: usize, at: usize, bytes: Vec<u8> },
    Copy { segment: usize, from: usize, to: usize, length: usize },
    Cut { segment: usize, length: usize },
    Insert { segment: usize, at: usize, bytes: Vec<u8> },
    Remove { segment: usize },
}

fn wound() -> impl Strategy<Value = Wound> {
    let place = (0..8_usize, 0..1000_usize);
    prop_oneof![
        4 => (place.clone(), 1..=255_u8).prop_map(|((segment, at), mask)| Wound::Flip { segment, at, mask }),
        2 => (place.clone(), 1..300_usize, prop_oneof![Just(0), Just(0xff), any::<u8>()])
            .prop_map(|((segment, at), length, filler)| Wound::Fill { segment, at, length, filler }),
        2 => (place.clone(), prop::collection::vec(any::<u8>(), 1..100))
            .prop_map(|((segment, at), bytes)| Wound::Noise { segment, at, bytes }),
        2 => (place.clone(), 0..1000_usize, 1..300_usize)
            .prop_map(|((segment, from), to, length)| Wound::Copy { segment, from, to, length }),
        2 => place.clone().prop_map(|(segment, length)| Wound::Cut { segment, length }),
        1 => (place, prop::collection::vec(any::<u8>(), 1..100))
            .prop_map(|((segment, at), bytes)| Wound::Insert { segment, at, bytes }),
        1 => (0..8_usize).prop_map(|segment| Wound::Remove { segment }),
    ]
}

fn inflict(image: &mut Image, wound: &Wound) {
    let (Wound::Flip { segment, .. }
    | Wound::Fill { segment, .. }
    | Wound::Noise { segment, .. }
    | Wound::Copy { segment, .. }
    | Wound::Cut { segment, .. }
    | Wound::Insert { segment, .. }
    | Wound::Remove { segment }) = wound;
    let Some(name) = image.keys().nth(*segment % image.len().max(1)).cloned() else { return };
    let bytes = image.get_mut(&name).unwrap();
    let place = |at: usize| at * bytes.len() / 1000;
    match wound {
        Wound::Flip { at, mask, .. } => {
            let at = place(*at);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= mask;
            }
        }
        Wound::Fill { at, length, filler, .. } => {
            let begin = place(*at);
            let end = (begin + length).min(bytes.len());
            bytes[begin..end].fill(*filler);
        }
        Wound::Noise { at, bytes: noise, .. } => {
            let begin = place(*at);
            let length = noise.len().min(bytes.len() - begin);
            bytes[begin..begin + length].copy_from_slice(&noise[..length]);
        }
        Wound::Copy { from, to, length, .. } => {
            let (from, to) = (place(*from), place(*to));
            let length = (*length).min(bytes.len() - from.max(to));
            bytes.copy_within(from..from + length, to);
        }
        Wound::Cut { length, .. } => {
            let length = place(*length);
            bytes.truncate(length);
        }
        Wound::Insert { at, bytes: more, .. } => {
            let at = place(*at);
            bytes.splice(at..at, more.iter().copied());
        }
        Wound::Remove { .. } => {
            image.remove(&name);
        }
    }
}

/// Records that stand at the place where they were written, unchanged.
fn untouched(before: &Image, after: &Image) -> BTreeSet<u64> {
    before
        .iter()
        .flat_map(|(name, was)| {
            let now = after.get(name).map(Vec::as_slice).unwrap_or_default();
            let stands = |begin: usize, end: usize| now.get(begin..end) == Some(&was[begin..end]);
            records(was).into_iter().filter(move |(_, begin, end)| stands(*begin, *end)).map(|(index, _, _)| index)
        })
        .collect()
}

#[test]
fn ten_thousand_spoiled_logs_deliver_every_intact_record() {
    let dir = directory();
    let (mut log, _) = open(dir.path(), small(700));
    for index in 1..=50 {
        log.append(index, &vec![index as u8; (index as usize * 37) % 90]).unwrap();
        if index % 3 != 0 {
            log.sync().unwrap();
        }
    }
    log.sync().unwrap();
    drop(log);
    let before = image(dir.path());
    let mut runner = TestRunner::new(Config { cases: 10_000, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&prop::collection::vec(wound(), 1..6), |wounds| {
        let mut after = before.clone();
        for wound in &wounds {
            inflict(&mut after, wound);
        }
        restore(dir.path(), &after);
        let (mut log, recovery) = open(dir.path(), small(700));
        let mut reader = log.read(0).unwrap();
        let mut delivered = BTreeSet::new();
        let (mut last, mut gaps) = (recovery.first - 1, Vec::new());
        while let Some(item) = reader.next().unwrap() {
            match item {
                Item::Record { index, payload } => {
                    prop_assert!(index > last, "{index} after {last}");
                    prop_assert_eq!(payload, vec![index as u8; (index as usize * 37) % 90]);
                    delivered.insert(index);
                    last = index;
                }
                Item::Damage(damage) => {
                    prop_assert!(damage.after >= last && damage.before.is_none_or(|before| before > damage.after));
                    gaps.push((damage.after, damage.before.unwrap_or(u64::MAX)));
                }
            }
        }
        let missing: Vec<_> = untouched(&before, &after).difference(&delivered).copied().collect();
        prop_assert!(missing.is_empty(), "intact but not delivered: {missing:?}");
        for index in recovery.first..=recovery.published {
            let explained = gaps.iter().any(|(after, before)| (after + 1..*before).contains(&index));
            prop_assert!(delivered.contains(&index) || explained, "{index} is lost without a word");
        }
        let next = recovery.published.max(recovery.highest_seen) + 1;
        fill(&mut log, [next]);
        prop_assert_eq!(log.published(), next);
        Ok(())
    });
    if let Err(failed) = outcome {
        panic!("{failed}");
    }
}

#[test]
fn a_spoiled_log_of_one_gibibyte_is_open_and_read_within_ten_seconds() {
    const RECORD_BYTES: usize = 60_000;
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path(), Options::new(*b"test"));
    let mut payload: Vec<u8> = (0..RECORD_BYTES).map(|at| ((at * at) >> 3) as u8).collect();
    let mut index = 0;
    while log.bytes() < 1 << 30 {
        index += 1;
        payload[0] = index as u8;
        log.append(index, &payload).unwrap();
        if index % 128 == 0 {
            log.sync().unwrap();
        }
    }
    log.sync().unwrap();
    drop(log);

    let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    names.sort();
    let record = (RECORD + RECORD_BYTES) as u64;
    for (place, path) in names.iter().enumerate() {
        let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        let length = file.metadata().unwrap().len();
        match place % 4 {
            // Half of it zero.
            0 => file.write_all_at(&vec![0; (length / 2) as usize], length / 4).unwrap(),
            // The header and a byte of every record.
            1 => {
                file.write_all_at(&[0; 20], 0).unwrap();
                for at in (HEADER as u64..length).step_by(record as usize) {
                    file.write_all_at(&[!0], at + 50).unwrap();
                }
            }
            // Stuffed with copies of a true header: every place looks like a record at first.
            2 => {
                let mut header = [0; RECORD];
                file.read_exact_at(&mut header, HEADER as u64 + record).unwrap();
                let stuffing: Vec<u8> =
                    header.iter().copied().cycle().take((length - record) as usize - HEADER).collect();
                file.write_all_at(&stuffing, HEADER as u64 + record).unwrap();
            }
            _ => {}
        }
    }

    let begun = Instant::now();
    let (log, recovery) = open(dir.path(), Options::new(*b"test"));
    let opened = begun.elapsed();
    let mut reader = log.read(0).unwrap();
    let (mut good, mut damages) = (0, 0);
    while let Some(item) = reader.next().unwrap() {
        match item {
            Item::Record { .. } => good += 1,
            Item::Damage(_) => damages += 1,
        }
    }
    let read = begun.elapsed();
    println!(
        "open {opened:?}, open and read {read:?}, {good} records, {damages} damages, {} torn",
        recovery.torn_bytes
    );
    assert!(good > index / 4 && damages >= 8, "{good} of {index}, {damages} damages");
    assert!(read < Duration::from_secs(10), "{read:?}");
}
