//! The bytes of one record: a header of 40 bytes with its own checksum, then the payload. Pure; knows no file.
//! The surprise: a record carries the index that was published when it was appended. That is how recovery knows which
//! records were surely durable, and how the void limit of an older segment survives a damaged segment header.

/// Bytes before the payload.
pub(crate) const HEADER: usize = 40;
/// The record format this version writes and reads.
pub(crate) const VERSION: u8 = 1;

/// What stands before a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) mark: u64,
    pub(crate) index: u64,
    /// The last index that was durable when this record was appended.
    pub(crate) published: u64,
    pub(crate) length: u32,
    pub(crate) payload_crc: u32,
    pub(crate) version: u8,
}

impl Header {
    /// The header of a payload; the mark is set when the segment is known ([`seal`]).
    pub(crate) fn of(index: u64, published: u64, payload: &[u8], length: u32) -> Self {
        Header { mark: 0, index, published, length, payload_crc: crc32c::crc32c(payload), version: VERSION }
    }

    /// The header as it stands at `offset` of its file.
    pub(crate) fn encode(&self, offset: u64) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[0..8].copy_from_slice(&self.mark.to_le_bytes());
        out[8..16].copy_from_slice(&self.index.to_le_bytes());
        out[16..24].copy_from_slice(&self.published.to_le_bytes());
        out[24..28].copy_from_slice(&self.length.to_le_bytes());
        out[28..32].copy_from_slice(&self.payload_crc.to_le_bytes());
        out[32] = self.version;
        let crc = checksum(&out, offset);
        out[36..40].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The header at the start of `bytes`, if it is whole and its checksum holds for this offset in the file. Says nothing
    /// about the payload.
    pub(crate) fn decode(bytes: &[u8], offset: u64) -> Option<Header> {
        let bytes = bytes.first_chunk::<HEADER>()?;
        if checksum(bytes, offset) != u32_at(bytes, 36) {
            return None;
        }
        Some(Header {
            mark: u64_at(bytes, 0),
            index: u64_at(bytes, 8),
            published: u64_at(bytes, 16),
            length: u32_at(bytes, 24),
            payload_crc: u32_at(bytes, 28),
            version: bytes[32],
        })
    }

    /// Bytes of the whole record.
    pub(crate) fn record_bytes(&self) -> u64 {
        HEADER as u64 + u64::from(self.length)
    }

    pub(crate) fn fits(&self, payload: &[u8]) -> bool {
        crc32c::crc32c(payload) == self.payload_crc
    }
}

/// Sets the mark of the record whose header begins `record`, and its header checksum for `offset`.
pub(crate) fn seal(record: &mut [u8], mark: u64, offset: u64) {
    if let Some(header) = record.first_chunk_mut::<HEADER>() {
        header[0..8].copy_from_slice(&mark.to_le_bytes());
        let crc = checksum(header, offset);
        header[36..40].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Covers the place as well as the bytes: a record that was copied elsewhere in its file is none.
fn checksum(header: &[u8; HEADER], offset: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[..36]), &offset.to_le_bytes())
}

/// Little-endian word at a fixed offset of a fixed array; `at` is a constant of the layout.
pub(crate) fn u64_at<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// Little-endian word at a fixed offset of a fixed array; `at` is a constant of the layout.
pub(crate) fn u32_at<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_header_comes_back_at_its_place_and_no_flipped_bit_does() {
        let header = Header::of(7, 5, b"payload", 7);
        let mut bytes = header.encode(0).to_vec();
        seal(&mut bytes, 0x0000_0001_dead_beef, 64);
        let back = Header::decode(&bytes, 64).unwrap();
        assert_eq!(back, Header { mark: 0x0000_0001_dead_beef, ..header });
        assert!(back.fits(b"payload") && !back.fits(b"paylord"));
        for bit in 0..HEADER * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&flipped, 64), None, "bit {bit}");
        }
        assert_eq!(Header::decode(&bytes, 65), None);
        assert_eq!(Header::decode(&bytes[..HEADER - 1], 64), None);
    }
}
