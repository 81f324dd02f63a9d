//! One segment file: its name, its header of 64 bytes, and what is known of it while the log is open.
//! Pure but for the atomics through which the writer tells readers how far the file may be read.
//! The surprise: segments are ordered by their mark, not by their name. After a failed write an index may be used
//! again, so that a younger segment can begin at or below the first index of an older, void one.

use crate::record::{u32_at, u64_at};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes before the first record. The same in every format version, so that any version can refuse any other by name.
pub(crate) const HEADER: usize = 64;
/// The segment format this version writes and reads.
pub(crate) const VERSION: u16 = 1;
/// First bytes of every segment; the high bit and the line ends show text-mode mangling, as in PNG.
pub(crate) const MAGIC: [u8; 8] = *b"\x89SEGLOG\n";

/// What stands at the beginning of a segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) version: u16,
    /// The predecessor was given up after a failure: it may hold records beyond `prior`.
    pub(crate) after_failure: bool,
    pub(crate) tag: [u8; 4],
    /// Index of the record for which the segment was made.
    pub(crate) first: u64,
    /// The last index published before this segment; what older segments hold beyond it is void.
    pub(crate) prior: u64,
    /// High half: number of the segment in this log. Low half: random, so that no payload can look like a record.
    pub(crate) mark: u64,
    /// Which log it belongs to; see `Options::owner`.
    pub(crate) owner: u64,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[0..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&self.version.to_le_bytes());
        out[10] = u8::from(self.after_failure);
        out[12..16].copy_from_slice(&self.tag);
        out[16..24].copy_from_slice(&self.first.to_le_bytes());
        out[24..32].copy_from_slice(&self.prior.to_le_bytes());
        out[32..40].copy_from_slice(&self.mark.to_le_bytes());
        out[40..48].copy_from_slice(&self.owner.to_le_bytes());
        let crc = crc32c::crc32c(&out[..60]);
        out[60..64].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The header, if magic and checksum hold. Version and tag are for the caller to judge.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Header> {
        let bytes = bytes.first_chunk::<HEADER>()?;
        if bytes[..8] != MAGIC || crc32c::crc32c(&bytes[..60]) != u32_at(bytes, 60) {
            return None;
        }
        Some(Header {
            version: u16::from_le_bytes([bytes[8], bytes[9]]),
            after_failure: bytes[10] != 0,
            tag: [bytes[12], bytes[13], bytes[14], bytes[15]],
            first: u64_at(bytes, 16),
            prior: u64_at(bytes, 24),
            mark: u64_at(bytes, 32),
            owner: u64_at(bytes, 40),
        })
    }
}

/// `00000000000000000101-00000003deadbeef.seg`: first index in decimal, mark in hexadecimal.
pub(crate) fn file_name(first: u64, mark: u64) -> String {
    format!("{first:020}-{mark:016x}.seg")
}

/// The mark of a segment: its number, and 32 bits of chance; where the log has an owner, the upper half of these are the owner's, so
/// that what has lost its head is still known to be another log's.
pub(crate) fn mark(serial: u32, chance: u64, owner: u64) -> u64 {
    let chance = chance & u64::from(u32::MAX);
    let low = if owner == 0 { chance } else { chance & 0xffff | (owner & 0xffff) << 16 };
    u64::from(serial) << 32 | low
}

/// Whether a segment with this mark can be this owner's.
pub(crate) fn may_own(mark: u64, owner: u64) -> bool {
    owner == 0 || mark >> 16 & 0xffff == owner & 0xffff
}

/// First index and mark out of a file name; `None` if the name is not exactly one [`file_name`] makes.
pub(crate) fn parse_name(name: &str) -> Option<(u64, u64)> {
    let (first, mark) = name.strip_suffix(".seg")?.split_once('-')?;
    let parsed = (first.parse().ok()?, u64::from_str_radix(mark, 16).ok()?);
    (file_name(parsed.0, parsed.1) == name).then_some(parsed)
}

/// A segment of an open log, shared between the writer and readers.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) name: String,
    pub(crate) prior: u64,
    pub(crate) mark: u64,
    /// The header is damaged: mark and bounds come from the name or the first record.
    pub(crate) headless: bool,
    /// Readers may read up to here; always the end of a record. Rises with each sync.
    length: AtomicU64,
    /// Size of the file, void and torn bytes included.
    size: AtomicU64,
    /// Records beyond this index are void: the successor's `prior`; `u64::MAX` while there is no successor.
    limit: AtomicU64,
}

impl Segment {
    pub(crate) fn new(path: PathBuf, name: String, prior: u64, mark: u64, headless: bool, length: u64) -> Self {
        Segment {
            path,
            name,
            prior,
            mark,
            headless,
            length: AtomicU64::new(length),
            size: AtomicU64::new(length),
            limit: AtomicU64::new(u64::MAX),
        }
    }

    pub(crate) fn length(&self) -> u64 {
        self.length.load(Ordering::Acquire)
    }

    pub(crate) fn set_length(&self, length: u64) {
        self.size.store(length, Ordering::Release);
        self.length.store(length, Ordering::Release);
    }

    pub(crate) fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    pub(crate) fn set_size(&self, size: u64) {
        self.size.store(size, Ordering::Release);
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Acquire)
    }

    pub(crate) fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Ordering::Release);
    }

    /// Number of the segment in its log.
    pub(crate) fn serial(&self) -> u32 {
        (self.mark >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_and_no_flipped_bit_does() {
        let header = Header {
            version: VERSION,
            after_failure: true,
            tag: *b"test",
            first: 101,
            prior: 100,
            mark: 0x3_dead_beef,
            owner: 0x0102_0304_0506_0708,
        };
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes), Some(header));
        for bit in 0..HEADER * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&flipped), None, "bit {bit}");
        }
    }

    #[test]
    fn only_exact_names_are_segments() {
        let name = file_name(101, 0x3_dead_beef);
        assert_eq!(name, "00000000000000000101-00000003deadbeef.seg");
        assert_eq!(parse_name(&name), Some((101, 0x3_dead_beef)));
        for wrong in
            ["101-00000003deadbeef.seg", "00000000000000000101-00000003DEADBEEF.seg", "a-b.seg", "lock", ".seg"]
        {
            assert_eq!(parse_name(wrong), None, "{wrong}");
        }
    }
}
