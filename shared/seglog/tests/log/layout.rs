//! A second reading of the format, straight from its specification: where each record of an intact directory lies, and
//! what a reader must say after bytes of it were changed. Shares no code with the crate but the checksum.

use seglog::{Damage, Item};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

pub(crate) const HEADER: usize = 64;
pub(crate) const RECORD: usize = 40;

/// File name to content.
pub(crate) type Image = BTreeMap<String, Vec<u8>>;

/// The segments of a directory.
pub(crate) fn image(dir: &Path) -> Image {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .filter(|entry| entry.file_name() != "lock")
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect()
}

/// Makes the directory hold exactly `image`.
pub(crate) fn restore(dir: &Path, image: &Image) {
    for entry in fs::read_dir(dir).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    for (name, bytes) in image {
        fs::write(dir.join(name), bytes).unwrap();
    }
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn length(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// The checksum of the record header at `at`: its bytes, then its place.
pub(crate) fn record_crc(bytes: &[u8], at: usize) -> u32 {
    crc32c::crc32c(&[&bytes[at..at + 36], &(at as u64).to_le_bytes()].concat())
}

/// Index, first byte and end of each record of an intact segment.
pub(crate) fn records(bytes: &[u8]) -> Vec<(u64, usize, usize)> {
    assert_eq!(bytes[..8], *b"\x89SEGLOG\n");
    assert_eq!(crc32c::crc32c(&bytes[..60]).to_le_bytes(), bytes[60..64]);
    let mut found = Vec::new();
    let mut at = HEADER;
    while at < bytes.len() {
        assert_eq!(bytes[at..at + 8], bytes[32..40], "the mark");
        assert_eq!(record_crc(bytes, at).to_le_bytes(), bytes[at + 36..at + 40]);
        let end = at + RECORD + length(bytes, at + 24);
        assert_eq!(crc32c::crc32c(&bytes[at + RECORD..end]).to_le_bytes(), bytes[at + 28..at + 32]);
        found.push((number(bytes, at + 8), at, end));
        at = end;
    }
    found
}

/// What must be found after `before` was changed to `after` in place (bytes changed, files cut, files removed).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) items: Vec<Item>,
    pub(crate) torn: u64,
}

/// The verdict on a log with dense indexes whose segments were all written without failure.
pub(crate) fn verdict(before: &Image, after: &Image) -> Verdict {
    let mut items = Vec::new();
    let mut torn = 0;
    let mut last = 0;
    let mut open: Option<Damage> = None;
    let newest = before
        .keys()
        .rev()
        .find(|name| {
            after.get(*name).is_some_and(|now| {
                now.len() > HEADER || now[..] == before[*name][..now.len().min(HEADER)] && now.len() == HEADER
            })
        })
        .cloned();
    let mut place: Option<(String, u64)> = None;
    for (name, was) in before {
        let Some(now) = after.get(name) else { continue };
        if newest.as_ref().is_none_or(|newest| name > newest) {
            torn += now.len() as u64;
            continue;
        }
        let headless = now.get(..HEADER) != was.get(..HEADER);
        let mut lost = Vec::new();
        let mut good = Vec::new();
        if headless {
            lost.push((0, now.len().min(HEADER)));
        }
        let mut end = now.len().min(HEADER);
        let (first, begin, stop) = records(was)[0];
        if last == 0 && headless && now.get(begin..stop) != was.get(begin..stop) {
            // Only the name still says where the log begins; before its first segment, number 1, there was nothing.
            last = if number(was, 32) >> 32 == 1 { 0 } else { first - 1 };
        }
        for (index, begin, stop) in records(was) {
            if now.get(begin..stop) == Some(&was[begin..stop]) {
                good.push((index, begin, stop));
            }
        }
        // A segment whose predecessor lost its end, or is missing, shows it by what it says came before.
        if let Some((segment, offset)) = place.take().filter(|_| last < first - 1 && open.is_none()) {
            open = Some(Damage { segment, offset, bytes: 0, after: last, before: None });
        }
        for (index, begin, stop) in &good {
            if *begin > end {
                lost.push((end, begin - end));
            }
            for (offset, bytes) in lost.drain(..) {
                add(&mut open, name, offset, bytes, last);
            }
            if let Some(damage) = open.take() {
                items.push(Item::Damage(Damage { before: Some(*index), ..damage }));
            }
            items.push(Item::Record { index: *index, payload: was[begin + RECORD..*stop].to_vec() });
            last = *index;
            end = *stop;
        }
        let is_newest = newest.as_ref() == Some(name);
        if is_newest && headless && good.is_empty() {
            add(&mut open, name, 0, now.len(), last);
        } else if is_newest {
            torn += (now.len() - end) as u64;
        } else {
            if end < now.len() {
                lost.push((end, now.len() - end));
            }
            for (offset, bytes) in lost {
                add(&mut open, name, offset, bytes, last);
            }
        }
        place = Some((name.clone(), now.len() as u64));
    }
    items.extend(open.map(Item::Damage));
    Verdict { items, torn }
}

fn add(open: &mut Option<Damage>, name: &str, offset: usize, bytes: usize, after: u64) {
    match open {
        Some(damage) => damage.bytes += bytes as u64,
        None if bytes > 0 => {
            let segment = name.to_owned();
            *open = Some(Damage { segment, offset: offset as u64, bytes: bytes as u64, after, before: None });
        }
        None => {}
    }
}
