//! Every way a directory can be spoiled by a disk, a copy or a hand: each intact record is still delivered, once and in
//! order, the damage is named exactly, and the log can be written again afterwards.

use super::layout::{HEADER, Image, RECORD, Verdict, image, record_crc, records, restore, verdict};
use super::{TAG, directory, fill, indexes, open, payload, small};
use seglog::{Damage, Error, Item, Log, Options};
use std::fs;
use std::path::Path;

/// A log of five short segments, four records each but the newest with three.
fn made(dir: &Path) -> Image {
    let (mut log, _) = open(dir, small(64 + 4 * 49));
    fill(&mut log, 10..=28);
    drop(log);
    let image = image(dir);
    assert_eq!(image.len(), 5);
    image
}

fn items(log: &Log) -> Vec<Item> {
    let mut reader = log.read(0).unwrap();
    std::iter::from_fn(|| reader.next().unwrap()).collect()
}

/// Opens the spoiled directory, compares with the verdict, writes on, and compares again after reopening.
fn judge(dir: &Path, before: &Image, after: &Image, what: &str) {
    restore(dir, after);
    let expected = verdict(before, after);
    let (mut log, recovery) = open(dir, small(4096));
    let found = Verdict { items: items(&log), torn: recovery.torn_bytes };
    assert_eq!(found, expected, "{what}");

    let mut kept: Vec<_> = expected.items.into_iter().filter(|item| !open_ended(item)).collect();
    let next = log.published() + 100;
    log.append(next, b"after the damage").unwrap();
    log.sync().unwrap();
    drop(log);
    let (log, recovery) = open(dir, small(4096));
    assert_eq!(recovery.torn_bytes, 0, "{what}: cut once");
    assert_eq!(recovery.published, next);
    kept.push(Item::Record { index: next, payload: b"after the damage".to_vec() });
    let reread: Vec<_> = items(&log).into_iter().filter(|item| !jumped(item, next)).collect();
    assert_eq!(reread, kept, "{what}: after writing on");
}

fn open_ended(item: &Item) -> bool {
    matches!(item, Item::Damage(Damage { before: None, .. }))
}

fn jumped(item: &Item, next: u64) -> bool {
    matches!(item, Item::Damage(Damage { before, .. }) if *before == Some(next))
}

#[test]
fn an_intact_log_has_no_damage() {
    let dir = directory();
    let before = made(dir.path());
    judge(dir.path(), &before, &before, "nothing changed");
}

#[test]
fn every_flipped_bit_costs_one_record_or_one_header() {
    let dir = directory();
    let before = made(dir.path());
    for (name, bytes) in &before {
        for bit in 0..bytes.len() * 8 {
            let mut after = before.clone();
            after.get_mut(name).unwrap()[bit / 8] ^= 1 << (bit % 8);
            judge(dir.path(), &before, &after, &format!("{name} bit {bit}"));
        }
    }
}

#[test]
fn every_cut_of_every_segment_is_named() {
    let dir = directory();
    let before = made(dir.path());
    for (name, bytes) in &before {
        for length in 0..bytes.len() {
            let mut after = before.clone();
            after.get_mut(name).unwrap().truncate(length);
            judge(dir.path(), &before, &after, &format!("{name} cut to {length}"));
        }
    }
}

#[test]
fn every_missing_segment_is_named_except_at_the_ends() {
    let dir = directory();
    let before = made(dir.path());
    let names: Vec<_> = before.keys().collect();
    for name in &names[1..] {
        let mut after = before.clone();
        after.remove(*name);
        judge(dir.path(), &before, &after, &format!("{name} removed"));
    }
    let mut after = before.clone();
    after.remove(names[0]);
    restore(dir.path(), &after);
    let (log, recovery) = open(dir.path(), small(4096));
    assert_eq!(recovery.first, 14, "a missing beginning looks like a trimmed one");
    assert!(matches!(log.read(13), Err(Error::Trimmed { first: 14 })));
}

#[test]
fn a_torn_tail_is_cut_at_every_byte_whatever_stands_in_it() {
    let dir = directory();
    let before = made(dir.path());
    let (name, bytes) = before.last_key_value().unwrap();
    let (_, begin, end) = *records(bytes).last().unwrap();
    for length in begin..=end {
        for filler in [0, 0xff, bytes[begin]] {
            for more in [0, 1, 39, 40, 4096] {
                let mut after = before.clone();
                let tail = after.get_mut(name).unwrap();
                tail.truncate(length);
                tail.resize(length + more, filler);
                if tail.get(..end) == Some(&bytes[..]) {
                    // The last record stands; what is behind it is the torn tail.
                    restore(dir.path(), &after);
                    let (log, recovery) = open(dir.path(), small(4096));
                    assert_eq!((recovery.torn_bytes, log.published()), ((tail_length(&after) - end) as u64, 28));
                    assert_eq!(indexes(&log, 0), (10..=28).collect::<Vec<_>>());
                    continue;
                }
                judge(dir.path(), &before, &after, &format!("cut to {length}, {more} bytes of {filler}"));
            }
        }
    }
}

fn tail_length(image: &Image) -> usize {
    image.last_key_value().unwrap().1.len()
}

#[test]
fn zeroed_pages_cost_what_they_cover() {
    let dir = directory();
    let (mut log, _) = open(dir.path(), small(32 * 1024));
    for index in 1..=250 {
        log.append(index, &vec![index as u8 | 1; 300]).unwrap();
        log.sync().unwrap();
    }
    drop(log);
    let before = image(dir.path());
    assert_eq!(before.len(), 3);
    for (name, bytes) in &before {
        for page in 0..bytes.len().div_ceil(512) {
            for pages in [1, 8] {
                let mut after = before.clone();
                let spoiled = after.get_mut(name).unwrap();
                let end = ((page + pages) * 512).min(bytes.len());
                spoiled[page * 512..end].fill(0);
                judge(dir.path(), &before, &after, &format!("{name}: {pages} pages of zeros from {page}"));
            }
        }
    }
}

#[test]
fn a_segment_of_garbage_is_one_damage() {
    let dir = directory();
    let before = made(dir.path());
    for name in before.keys() {
        for filler in [0, 0xff] {
            let mut after = before.clone();
            after.get_mut(name).unwrap().fill(filler);
            judge(dir.path(), &before, &after, &format!("{name} filled with {filler}"));
        }
        // Every word in the other byte order.
        let mut after = before.clone();
        for word in after.get_mut(name).unwrap().chunks_exact_mut(8) {
            word.reverse();
        }
        judge(dir.path(), &before, &after, &format!("{name} with every word reversed"));
    }
}

#[test]
fn swapped_and_renamed_segments_are_put_in_order_by_their_headers() {
    let dir = directory();
    let before = made(dir.path());
    let names: Vec<_> = before.keys().cloned().collect();
    for one in 0..names.len() {
        for other in 0..one {
            let mut after = before.clone();
            after.insert(names[one].clone(), before[&names[other]].clone());
            after.insert(names[other].clone(), before[&names[one]].clone());
            restore(dir.path(), &after);
            let (log, recovery) = open(dir.path(), small(4096));
            assert!(recovery.damages.is_empty() && recovery.ignored.is_empty(), "{recovery:?}");
            assert_eq!(indexes(&log, 0), (10..=28).collect::<Vec<_>>(), "{one} and {other}");
        }
    }
    let mut after = before.clone();
    let moved = after.remove(&names[2]).unwrap();
    after.insert("moved by hand.seg".to_owned(), moved);
    restore(dir.path(), &after);
    assert_eq!(indexes(&open(dir.path(), small(4096)).0, 0), (10..=28).collect::<Vec<_>>());
}

#[test]
fn a_second_copy_of_a_segment_is_named_and_left_alone() {
    let dir = directory();
    let before = made(dir.path());
    for (name, bytes) in &before {
        for copy in ["00000000000000000001-0000000000000001.seg", "99999.seg", "copy.seg", "old copy"] {
            let mut after = before.clone();
            after.insert(copy.to_owned(), bytes.clone());
            restore(dir.path(), &after);
            let (mut log, recovery) = open(dir.path(), small(4096));
            assert_eq!(recovery.ignored, [copy], "copy of {name}");
            assert_eq!(indexes(&log, 0), (10..=28).collect::<Vec<_>>());
            log.trim(u64::MAX).unwrap();
            assert_eq!(fs::read(dir.path().join(copy)).unwrap(), *bytes);
        }
    }
}

#[test]
fn the_better_copy_of_a_segment_is_read() {
    let dir = directory();
    let before = made(dir.path());
    let (name, bytes) = before.iter().nth(1).unwrap();
    let mut after = before.clone();
    after.get_mut(name).unwrap()[20] ^= 1;
    after.insert("copy.seg".to_owned(), bytes.clone());
    restore(dir.path(), &after);
    let (log, recovery) = open(dir.path(), small(4096));
    assert_eq!(&recovery.ignored, std::slice::from_ref(name));
    assert_eq!(indexes(&log, 0), (10..=28).collect::<Vec<_>>());
}

#[test]
fn foreign_files_are_named_and_left_alone() {
    let dir = directory();
    let mut after = made(dir.path());
    let foreign = ["README", "core.1234", "garbage.seg", "lost+found.tmp"];
    for name in foreign {
        after.insert(name.to_owned(), b"not a segment".to_vec());
    }
    restore(dir.path(), &after);
    fs::create_dir(dir.path().join("00000000000000000001-0000000000000001.seg")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("00000000000000000002-0000000000000002.seg")).unwrap();
    let (mut log, recovery) = open(dir.path(), small(4096));
    let mut named: Vec<_> = foreign.into_iter().map(str::to_owned).collect();
    named.push("00000000000000000001-0000000000000001.seg".to_owned());
    named.push("00000000000000000002-0000000000000002.seg".to_owned());
    named.sort();
    assert_eq!(recovery.ignored, named);
    assert_eq!(indexes(&log, 0), (10..=28).collect::<Vec<_>>());
    fill(&mut log, [29]);
    log.trim(29).unwrap();
    for name in named {
        assert!(dir.path().join(&name).symlink_metadata().is_ok(), "{name}");
    }
}

/// Rewrites the header of a segment so that its checksum holds.
fn reheader(bytes: &mut [u8], change: impl FnOnce(&mut [u8])) {
    change(&mut bytes[..60]);
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
}

/// Rewrites the header of a record so that its checksum holds.
fn rerecord(bytes: &mut [u8], at: usize, change: impl FnOnce(&mut [u8])) {
    change(&mut bytes[at..at + 36]);
    let crc = record_crc(bytes, at);
    bytes[at + 36..at + 40].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn another_kind_and_a_newer_version_are_refused_by_name_and_left_untouched() {
    let dir = directory();
    let before = made(dir.path());
    let refused = Log::open(dir.path(), Options::new(*b"else")).unwrap_err().to_string();
    assert!(refused.contains("kind \"test\"") && refused.contains(before.first_key_value().unwrap().0), "{refused}");
    assert_eq!(image(dir.path()), before);

    for name in before.keys() {
        let mut after = before.clone();
        reheader(after.get_mut(name).unwrap(), |header| header[8] = 2);
        restore(dir.path(), &after);
        let refused = Log::open(dir.path(), Options::new(TAG)).unwrap_err();
        assert!(
            matches!(&refused, Error::Foreign { path, found, .. }
            if path.ends_with(name) && found.contains("version 2")),
            "{refused}"
        );
        assert_eq!(image(dir.path()), after);
    }

    let (name, bytes) = before.last_key_value().unwrap();
    let mut after = before.clone();
    let (_, at, _) = records(bytes)[1];
    rerecord(after.get_mut(name).unwrap(), at, |header| header[32] = 2);
    restore(dir.path(), &after);
    let refused = Log::open(dir.path(), Options::new(TAG)).unwrap_err();
    assert!(matches!(&refused, Error::Foreign { found, .. } if found.contains("record 27 of format version 2")));
    assert_eq!(image(dir.path()), after);
}

#[test]
fn a_segment_of_another_log_of_the_same_kind_is_refused() {
    let dir = directory();
    let mut before = made(dir.path());
    let other = directory();
    let (mut log, _) = open(other.path(), small(64 + 4 * 49));
    fill(&mut log, 1000..=1030);
    drop(log);
    let (name, bytes) = image(other.path()).into_iter().nth(1).unwrap();
    before.insert(name, bytes);
    restore(dir.path(), &before);
    let refused = Log::open(dir.path(), small(4096)).unwrap_err();
    assert!(refused.to_string().contains("copied from another log"), "{refused}");
    assert_eq!(image(dir.path()), before);
}

#[test]
fn no_length_is_believed() {
    let dir = directory();
    let before = made(dir.path());
    for (name, bytes) in &before {
        for (_, at, _) in records(bytes) {
            for length in [0, 1, 8, 10, 0x7fff_ffff, 0x8000_0000, u32::MAX, u32::MAX - 40] {
                let mut after = before.clone();
                rerecord(after.get_mut(name).unwrap(), at, |header| {
                    header[24..28].copy_from_slice(&length.to_le_bytes());
                });
                judge(dir.path(), &before, &after, &format!("{name} at {at}: length {length}"));
            }
        }
    }
}

#[test]
fn a_record_out_of_order_or_out_of_its_segment_is_damage() {
    let dir = directory();
    let before = made(dir.path());
    let names: Vec<_> = before.keys().collect();
    let (_, second, third) = records(&before[names[1]])[1];
    // The same record twice, and a record of another segment at the right place.
    for source in [before[names[1]][HEADER..second].to_vec(), before[names[2]][second..third].to_vec()] {
        let mut after = before.clone();
        after.get_mut(names[1]).unwrap()[second..second + source.len()].copy_from_slice(&source);
        judge(dir.path(), &before, &after, "a record that does not belong there");
    }
    // An index that does not rise, under a true checksum.
    for index in [0, 1, 13, 14_u64] {
        let mut after = before.clone();
        rerecord(after.get_mut(names[1]).unwrap(), second, |header| {
            header[8..16].copy_from_slice(&index.to_le_bytes())
        });
        judge(dir.path(), &before, &after, &format!("index {index} again"));
    }
}

#[test]
fn the_record_behind_the_damage_is_found_wherever_a_fetch_ends() {
    const FETCH: usize = 256 * 1024;
    for length in FETCH - 60..FETCH + 20 {
        let dir = directory();
        let (mut log, _) = open(dir.path(), Options::new(TAG));
        log.append(1, &vec![7; length]).unwrap();
        log.append(2, &payload(2)).unwrap();
        log.sync().unwrap();
        let (name, mut bytes) = image(dir.path()).pop_first().unwrap();
        bytes[200] ^= 1;
        fs::write(dir.path().join(name), bytes).unwrap();
        let found = items(&log);
        assert!(
            matches!(&found[..], [Item::Damage(damage), Item::Record { index: 2, .. }]
            if damage.bytes == (RECORD + length) as u64),
            "{length}"
        );
    }
}

#[test]
fn a_payload_that_looks_like_records_is_never_taken_for_one() {
    let dir = directory();
    let mut whole = Vec::new();
    for bytes in made(dir.path()).values() {
        whole.extend_from_slice(bytes);
    }
    let other = directory();
    let (mut log, _) = open(other.path(), small(8192));
    for index in 1..=3 {
        log.append(index, &whole).unwrap();
        log.sync().unwrap();
    }
    drop(log);
    let before = image(other.path());
    let (name, bytes) = before.first_key_value().unwrap();
    let (_, begin, end) = records(bytes)[1];
    for at in [begin, begin + 24, begin + RECORD, end - 1] {
        let mut after = before.clone();
        after.get_mut(name).unwrap()[at] ^= 0x10;
        judge(other.path(), &before, &after, &format!("outer record spoiled at {at}"));
    }
}

#[test]
fn a_reader_that_begins_behind_the_damage_is_not_told_of_it() {
    let dir = directory();
    let before = made(dir.path());
    let mut after = before.clone();
    let name = before.keys().nth(1).unwrap();
    let (index, at, _) = records(&before[name])[1];
    after.get_mut(name).unwrap()[at] ^= 1;
    restore(dir.path(), &after);
    let (log, _) = open(dir.path(), small(4096));
    for from in index + 1..=29 {
        assert_eq!(indexes(&log, from), (from..=28).collect::<Vec<_>>());
    }
    for from in 10..=index {
        let mut reader = log.read(from).unwrap();
        let told = std::iter::from_fn(|| reader.next().unwrap()).filter(|item| matches!(item, Item::Damage(_))).count();
        assert_eq!(told, 1, "from {from}");
    }
}

#[test]
fn damage_done_behind_the_back_of_an_open_log_is_named() {
    let dir = directory();
    let (mut log, _) = open(dir.path(), small(4096));
    fill(&mut log, 1..=10);
    let (name, mut bytes) = image(dir.path()).pop_first().unwrap();
    let (_, at, end) = records(&bytes)[9];
    bytes[at] ^= 1;
    fs::write(dir.path().join(&name), &bytes).unwrap();
    let mut reader = log.read(10).unwrap();
    let (offset, length) = (at as u64, (end - at) as u64);
    let damage = Damage { segment: name, offset, bytes: length, after: 9, before: None };
    assert_eq!(reader.next().unwrap(), Some(Item::Damage(damage)));
    assert_eq!(reader.next().unwrap(), None);
    fill(&mut log, [11]);
    assert_eq!(reader.next().unwrap(), Some(Item::Record { index: 11, payload: payload(11) }));
}
