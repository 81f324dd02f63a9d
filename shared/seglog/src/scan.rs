//! Walks the records of one segment and finds the way back after damage. Knows offsets and indexes, not segments' order.
//! A candidate is believed by its mark, its header checksum, its place in the order and its payload checksum, in this
//! turn, so that no length is trusted and nothing is allocated before the header is proven.
//! The surprise: resynchronisation looks for the segment's random mark, which no payload can know; and as a header's
//! checksum covers its place, true headers never overlap, so that all their payloads together cost linear time.

use crate::medium::Medium;
use crate::record::{self, Header};
use crate::{Damage, Error};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes fetched at once; a longer record is fetched whole, and the room given back afterwards.
const CHUNK: u64 = 256 * 1024;
/// Granule in which an unreadable stretch is passed over.
const PAGE: u64 = 4096;
/// A stretch of a segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

impl Stretch {
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The stretch as damage between two good records.
    pub(crate) fn damage(&self, segment: &str, after: u64, before: Option<u64>) -> Damage {
        Damage { segment: segment.to_owned(), offset: self.offset, bytes: self.bytes, after, before }
    }
}

/// What the scan came upon.
#[derive(Debug)]
pub(crate) enum Step {
    /// A good record; `lost` is the damage between it and the record before.
    Record { header: Header, payload: Vec<u8>, lost: Stretch },
    /// A record below the one asked for; its payload was not looked at.
    Passed { index: u64 },
    /// The end, or the first void record; `lost` is the damage before it.
    End { lost: Stretch },
}

/// A position in a segment file.
#[derive(Debug)]
pub(crate) struct Scan {
    window: Window,
    mark: u64,
    position: u64,
    last: u64,
    highest: u64,
}

impl Scan {
    /// Begins at `position`; `last` is the index that every record here must exceed.
    pub(crate) fn new(
        medium: Arc<dyn Medium>,
        file: File,
        path: PathBuf,
        mark: u64,
        position: u64,
        last: u64,
        patient: bool,
    ) -> Self {
        let window = Window { medium, file, path, buffer: Vec::new(), start: 0, patient, unreadable: false };
        Scan { window, mark, position, last, highest: 0 }
    }

    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Highest index of a proven header, be its payload damaged or void.
    pub(crate) fn highest(&self) -> u64 {
        self.highest
    }

    /// Whether a part of the file could not be read and was taken for zeros.
    pub(crate) fn met_unreadable(&self) -> bool {
        self.window.unreadable
    }

    /// From now on an unreadable page is damage, not an error.
    pub(crate) fn be_patient(&mut self) {
        self.window.patient = true;
    }

    /// The next record below `end` with an index up to `limit`. Payloads of indexes below `from` are passed over.
    pub(crate) fn next(&mut self, end: u64, limit: u64, from: u64) -> Result<Step, Error> {
        let begin = self.position;
        // An error leaves the position where it was, so that the caller can ask again.
        let mut at = begin;
        while at < end {
            let lost = Stretch { offset: begin, bytes: at - begin };
            if let Some(header) = self.header(at, end)? {
                self.highest = self.highest.max(header.index);
                if header.index > limit {
                    self.position = end;
                    return Ok(Step::End { lost });
                }
                if header.index < from {
                    self.last = header.index;
                    self.position = at + header.record_bytes();
                    return Ok(Step::Passed { index: header.index });
                }
                if let Some(payload) = self.payload(at, &header, end)? {
                    self.last = header.index;
                    self.position = at + header.record_bytes();
                    return Ok(Step::Record { header, payload, lost });
                }
            }
            at = self.hunt(at + 1, end)?;
        }
        self.position = end.max(begin);
        Ok(Step::End { lost: Stretch { offset: begin, bytes: self.position - begin } })
    }

    /// The header at `at`, if it is proven to be one of this segment, in order and within `end`.
    fn header(&mut self, at: u64, end: u64) -> Result<Option<Header>, Error> {
        let room = end - at;
        let bytes = self.window.bytes(at, room.min(record::HEADER as u64), end)?;
        let Some(header) = Header::decode(bytes, at) else { return Ok(None) };
        if header.mark != self.mark || header.index <= self.last {
            return Ok(None);
        }
        if header.record_bytes() > room {
            // A torn record: it tells how far it would have gone.
            self.highest = self.highest.max(header.index);
            return Ok(None);
        }
        if header.version != record::VERSION {
            return Err(Error::Foreign {
                path: self.window.path.clone(),
                found: format!("record {} of format version {}", header.index, header.version),
                hint: "start the newer version that wrote it",
            });
        }
        Ok(Some(header))
    }

    fn payload(&mut self, at: u64, header: &Header, end: u64) -> Result<Option<Vec<u8>>, Error> {
        let record = self.window.bytes(at, header.record_bytes(), end)?;
        Ok(record.get(record::HEADER..).filter(|payload| header.fits(payload)).map(<[u8]>::to_vec))
    }

    /// The next offset from `at` where the mark stands and a header has room, or `end`.
    fn hunt(&mut self, mut at: u64, end: u64) -> Result<u64, Error> {
        let mark = self.mark.to_le_bytes();
        while end.saturating_sub(at) >= record::HEADER as u64 {
            let bytes = self.window.rest(at, record::HEADER as u64, end)?;
            if let Some(found) = bytes.windows(mark.len()).position(|word| word == mark) {
                return Ok(at + found as u64);
            }
            if bytes.len() < record::HEADER {
                break;
            }
            // The mark may straddle two fetches.
            at += bytes.len() as u64 - (mark.len() as u64 - 1);
        }
        Ok(end)
    }
}

/// A buffered view of a file, fetched in chunks.
#[derive(Debug)]
struct Window {
    medium: Arc<dyn Medium>,
    file: File,
    path: PathBuf,
    buffer: Vec<u8>,
    start: u64,
    patient: bool,
    unreadable: bool,
}

impl Window {
    /// The `length` bytes at `at`, fewer only if the file is shorter.
    fn bytes(&mut self, at: u64, length: u64, end: u64) -> Result<&[u8], Error> {
        let rest = self.rest(at, length, end)?;
        Ok(rest.get(..length as usize).unwrap_or(rest))
    }

    /// What is buffered from `at` on, at least `length` bytes unless the file is shorter. Fetches ahead, but never beyond
    /// `end`: what is behind it is still being written.
    fn rest(&mut self, at: u64, length: u64, end: u64) -> Result<&[u8], Error> {
        let held = self.start..self.start + self.buffer.len() as u64;
        if at < held.start || at + length > held.end {
            self.fetch(at, length.max(CHUNK.min(end.saturating_sub(at))))?;
        }
        Ok(self.buffer.get((at - self.start) as usize..).unwrap_or_default())
    }

    fn fetch(&mut self, at: u64, length: u64) -> Result<(), Error> {
        self.start = at;
        self.buffer.clear();
        if length <= CHUNK {
            self.buffer.shrink_to(CHUNK as usize);
        }
        self.buffer.resize(length as usize, 0);
        match self.medium.read(&self.file, &self.path, at, &mut self.buffer) {
            Ok(got) => self.buffer.truncate(got),
            Err(refused) if !self.patient => {
                self.buffer.clear();
                return Err(Error::io(&self.path, "read")(refused));
            }
            Err(_) => self.fetch_pages(at),
        }
        Ok(())
    }

    /// Fetches page by page; what cannot be read stays zero and so fails its checksum.
    fn fetch_pages(&mut self, at: u64) {
        self.buffer.fill(0);
        let mut at = at;
        let mut rest = self.buffer.as_mut_slice();
        while !rest.is_empty() {
            let length = (PAGE - at % PAGE).min(rest.len() as u64);
            let (page, behind) = rest.split_at_mut(length as usize);
            if self.medium.read(&self.file, &self.path, at, page).is_err() {
                page.fill(0);
                self.unreadable = true;
            }
            at += length;
            rest = behind;
        }
    }
}
