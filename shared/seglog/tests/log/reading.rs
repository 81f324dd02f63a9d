//! The log as a caller sees it when nothing is broken: order, publication, rolling, trimming, readers in other threads.

use super::{TAG, fill, indexes, open, payload, small};
use seglog::{Error, Item, Log, Options, Recovery};

#[test]
fn an_empty_log_has_nothing_and_begins_at_one() {
    let dir = super::directory();
    let (mut log, recovery) = open(dir.path(), Options::new(TAG));
    assert_eq!(recovery, Recovery { first: 1, ..Recovery::default() });
    assert_eq!((log.published(), log.first(), log.bytes(), log.segments()), (0, 1, 0, 0));
    assert_eq!(log.sync().unwrap(), 0);
    assert_eq!(log.trim(u64::MAX).unwrap(), 0);
    assert!(indexes(&log, 0).is_empty());
    assert!(indexes(&log, 7).is_empty());
}

#[test]
fn what_is_appended_is_seen_only_after_sync() {
    let dir = super::directory();
    let (mut log, _) = open(dir.path(), Options::new(TAG));
    let mut reader = log.read(1).unwrap();
    log.append(1, b"record 1").unwrap();
    log.append(5, b"record 5").unwrap();
    assert_eq!(log.published(), 0);
    assert_eq!(reader.next().unwrap(), None);
    assert_eq!(log.sync().unwrap(), 5);
    assert_eq!(reader.next().unwrap(), Some(Item::Record { index: 1, payload: payload(1) }));
    assert_eq!(reader.next().unwrap(), Some(Item::Record { index: 5, payload: payload(5) }));
    assert_eq!(reader.next().unwrap(), None);
    log.append(6, b"record 6").unwrap();
    drop(log);
    assert_eq!(reader.next().unwrap(), None, "a reader outlives its log");
    let (log, recovery) = open(dir.path(), Options::new(TAG));
    assert_eq!((recovery.published, recovery.torn_bytes, recovery.highest_seen), (5, 0, 5));
    assert_eq!(indexes(&log, 0), [1, 5]);
    assert_eq!(indexes(&log, 2), [5]);
}

#[test]
fn an_index_must_rise() {
    let dir = super::directory();
    let (mut log, _) = open(dir.path(), Options::new(TAG));
    assert!(matches!(log.append(0, b""), Err(Error::Order { index: 0, after: 0 })));
    log.append(7, &payload(7)).unwrap();
    assert!(matches!(log.append(7, b""), Err(Error::Order { index: 7, after: 7 })));
    log.sync().unwrap();
    drop(log);
    let (mut log, _) = open(dir.path(), Options::new(TAG));
    assert!(matches!(log.append(6, b""), Err(Error::Order { index: 6, after: 7 })));
    fill(&mut log, [u64::MAX]);
    assert_eq!(indexes(&log, 0), [7, u64::MAX]);
}

#[test]
fn a_full_segment_is_followed_by_another_and_all_survives_reopening() {
    let dir = super::directory();
    let (mut log, _) = open(dir.path(), small(256));
    for upto in 1..=60 {
        fill(&mut log, [upto]);
        if upto % 7 == 0 {
            drop(log);
            log = open(dir.path(), small(256)).0;
        }
        assert_eq!(indexes(&log, 0), (1..=upto).collect::<Vec<_>>());
    }
    assert!(log.segments() >= 15, "{}", log.segments());
    for file in std::fs::read_dir(dir.path()).unwrap() {
        assert!(file.unwrap().metadata().unwrap().len() <= 256);
    }
    for from in 1..=62 {
        assert_eq!(indexes(&log, from), (from..=60).collect::<Vec<_>>());
    }
}

#[test]
fn trimming_removes_whole_segments_and_says_where_the_log_begins() {
    let dir = super::directory();
    let (mut log, _) = open(dir.path(), small(256));
    fill(&mut log, 1..=40);
    let (bytes, segments) = (log.bytes(), log.segments());
    let mut inside = log.read(1).unwrap();
    assert!(matches!(inside.next(), Ok(Some(Item::Record { index: 1, .. }))));

    let freed = log.trim(20).unwrap();
    assert!(freed > 0 && log.bytes() == bytes - freed && log.segments() < segments);
    let first = log.first();
    assert!((18..=21).contains(&first), "{first}");
    assert_eq!(indexes(&log, 0), (first..=40).collect::<Vec<_>>());
    assert_eq!(indexes(&log, first), (first..=40).collect::<Vec<_>>());
    for from in 1..first {
        assert!(matches!(log.read(from), Err(Error::Trimmed { first: named }) if named == first));
    }
    assert_eq!(log.trim(20).unwrap(), 0);

    // A reader inside a removed segment finishes it and is then told.
    let mut last = 1;
    let named = loop {
        match inside.next() {
            Ok(Some(Item::Record { index, .. })) => {
                assert_eq!(index, last + 1);
                last = index;
            }
            Err(Error::Trimmed { first }) => break first,
            other => panic!("{other:?}"),
        }
    };
    assert!(named == first && last < first);

    drop(log);
    let (mut log, recovery) = open(dir.path(), small(256));
    assert_eq!((recovery.first, recovery.published), (first, 40));
    assert_eq!(indexes(&log, 0), (first..=40).collect::<Vec<_>>());
    log.trim(u64::MAX).unwrap();
    assert_eq!((log.segments(), log.published()), (1, 40), "the current segment stays");
}

#[test]
fn a_group_is_never_split_and_a_huge_one_is_synced_in_parts() {
    let dir = super::directory();
    let (mut log, _) = open(dir.path(), small(512));
    fill(&mut log, 1..=6);
    let before = log.segments();
    for index in 7..=10 {
        log.append(index, &payload(index)).unwrap();
    }
    assert_eq!(log.published(), 6);
    log.sync().unwrap();
    assert_eq!(log.segments(), before + 1, "the group went into the next segment as one");
    for index in 11..=99 {
        log.append(index, &payload(index)).unwrap();
    }
    assert!(log.published() >= 80, "more than a segment was appended without sync");
    assert_eq!(log.sync().unwrap(), 99);
    assert_eq!(indexes(&log, 0), (1..=99).collect::<Vec<_>>());
}

#[test]
fn a_record_over_the_limit_is_refused_and_one_at_the_limit_is_not() {
    let dir = super::directory();
    let (mut log, _) = open(dir.path(), small(1000));
    let most = 1000 - 104;
    assert!(matches!(log.append(1, &vec![0; most + 1]), Err(Error::TooLarge { bytes: 897, limit: 896 })));
    log.append(1, &vec![1; most]).unwrap();
    log.append(2, &vec![2; most]).unwrap();
    log.append(3, b"").unwrap();
    log.sync().unwrap();
    let mut reader = log.read(0).unwrap();
    for (index, length) in [(1, most), (2, most), (3, 0)] {
        assert_eq!(reader.next().unwrap(), Some(Item::Record { index, payload: vec![index as u8; length] }));
    }
    for segment_bytes in [0, 127, (64 << 20) + 1] {
        let refused = Log::open(&dir.path().join("other"), small(segment_bytes));
        assert!(matches!(refused, Err(Error::Options { option: "segment_bytes", .. })));
    }
}

#[test]
fn a_second_writer_is_refused_by_the_name_of_the_directory() {
    let dir = super::directory();
    let path = dir.path().join("deep/er");
    let (log, _) = open(&path, Options::new(TAG));
    let refused = Log::open(&path, Options::new(TAG)).unwrap_err();
    assert!(matches!(&refused, Error::Locked { dir } if *dir == path));
    assert!(refused.to_string().contains(path.to_str().unwrap()));
    drop(log);
    open(&path, Options::new(TAG));
}

#[test]
fn a_reader_in_another_thread_sees_every_record_once_while_the_log_is_written_and_trimmed() {
    const LAST: u64 = 20_000;
    let dir = super::directory();
    let (mut log, _) = open(dir.path(), small(16 * 1024));
    let bounds = log.bounds();
    let read = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let progress = std::sync::Arc::clone(&read);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut reader = bounds.reader(1).unwrap();
            let mut expected = 1;
            while expected <= LAST {
                match reader.next().unwrap() {
                    Some(Item::Record { index, payload: bytes }) => {
                        assert_eq!(index, expected);
                        assert_eq!(bytes, payload(index));
                        progress.store(index, std::sync::atomic::Ordering::Release);
                        expected += 1;
                    }
                    Some(Item::Damage(damage)) => panic!("{damage:?}"),
                    None => std::thread::yield_now(),
                }
            }
        });
        for index in 1..=LAST {
            log.append(index, &payload(index)).unwrap();
            if index % 64 == 0 || index == LAST {
                log.sync().unwrap();
                log.trim(read.load(std::sync::atomic::Ordering::Acquire)).unwrap();
            }
        }
    });
    assert_eq!(read.load(std::sync::atomic::Ordering::Acquire), LAST);
}
