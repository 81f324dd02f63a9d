//! NRPE packets as a daemon has them: a query in, an answer out, versions 2, 3 and 4 (the client's side of the same format is
//! `probe::nrpe::packet`, what both share is `nrpe`). Pure: knows no socket and no command.
//!
//! A query comes from a stranger, and what a daemon has not read when it closes decides whether the client sees an end or a
//! reset. So [`needed`] asks for bytes in nrpe's own steps, 10, 16 and the rest, and refuses a length before anybody allocates it.

use crate::nrpe::{
    MAX_TEXT, TYPE_QUERY, TYPE_RESPONSE, V2_HEADER, V2_SIZE, V3_HEADER, V3_TRAILER, Version, checksum, checksum_fits,
    u16_at, up_to_nul,
};

/// What nrpe passes on of a plugin's output in versions 3 and 4: a pipe's 64 KiB in pieces of 2047 bytes.
pub const MAX_OUTPUT: usize = 65_504;
/// What fits into an answer of version 2, whose text ends with a NUL within 1024 bytes.
pub const MAX_OUTPUT_V2: usize = 1023;

const V2_TEXT: usize = 1024;

/// Why bytes are no query; each of them ends in silence, as with nrpe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAQuery {
    /// A version that does not exist, or another protocol.
    #[error("a packet of version {0}, only 2, 3 and 4 exist (another protocol, or TLS where none is spoken?)")]
    Version(u16),
    /// A length that no client means.
    #[error("the packet announces {0} bytes of text, 1 to {MAX_TEXT} are allowed")]
    Length(i32),
    /// The checksum does not fit.
    #[error("the packet's checksum is wrong")]
    Checksum,
    /// An answer, or something else that is no question.
    #[error("a packet of type {0} where a query (type 1) was expected")]
    Type(u16),
    /// The packet is not all there; only for a caller that did not ask [`needed`].
    #[error("{have} bytes of a packet of {need}")]
    Truncated {
        /// Bytes that are there.
        have: usize,
        /// Bytes it needs.
        need: usize,
    },
}

/// A query that passed every check of form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The version it came in, which is also that of the answer.
    pub version: Version,
    /// Its text up to the first NUL.
    pub text: Vec<u8>,
}

/// How many bytes must have arrived before more can be said; what has arrived if the packet is complete.
///
/// # Errors
/// The bytes do not begin a query. They are not looked at beyond version and length.
pub fn needed(received: &[u8]) -> Result<usize, NotAQuery> {
    let (Some(version), true) = (u16_at(received, 0), received.len() >= V2_HEADER) else { return Ok(V2_HEADER) };
    match Version::of_number(version) {
        None => Err(NotAQuery::Version(version)),
        Some(Version::V2) => Ok(V2_SIZE),
        Some(Version::V3 | Version::V4) => match i32_at(received, 12) {
            None => Ok(V3_HEADER),
            Some(length) => match usize::try_from(length) {
                Ok(text @ 1..=MAX_TEXT) => Ok(V3_HEADER + text),
                _ => Err(NotAQuery::Length(length)),
            },
        },
    }
}

/// Reads a query; bytes behind it are not looked at.
///
/// # Errors
/// It is none.
pub fn decode_query(received: &[u8]) -> Result<Query, NotAQuery> {
    let need = needed(received)?;
    let truncated = NotAQuery::Truncated { have: received.len(), need };
    let packet = received.get(..need).ok_or(truncated)?;
    let number = u16_at(packet, 0).ok_or(truncated)?;
    let version = Version::of_number(number).ok_or(NotAQuery::Version(number))?;
    let trailer: &[u8] = if version == Version::V3 { &V3_TRAILER } else { &[] };
    if !checksum_fits(packet, trailer) {
        return Err(NotAQuery::Checksum);
    }
    let kind = u16_at(packet, 2).ok_or(truncated)?;
    if kind != TYPE_QUERY {
        return Err(NotAQuery::Type(kind));
    }
    let text = match version {
        Version::V2 => &packet[V2_HEADER..V2_HEADER + V2_TEXT - 1],
        Version::V3 | Version::V4 => &packet[V3_HEADER..],
    };
    Ok(Query { version, text: up_to_nul(text).to_vec() })
}

/// The bytes of an answer. Text beyond what the version carries is cut off, as nrpe does; it has no other way to say more.
#[must_use]
pub fn encode_answer(version: Version, code: u16, text: &[u8]) -> Vec<u8> {
    let text = up_to_nul(text);
    let mut packet = Vec::with_capacity(V2_SIZE.max(V3_HEADER + text.len() + V3_TRAILER.len()));
    packet.extend_from_slice(&version.number().to_be_bytes());
    packet.extend_from_slice(&TYPE_RESPONSE.to_be_bytes());
    packet.extend_from_slice(&[0; 4]);
    packet.extend_from_slice(&code.to_be_bytes());
    match version {
        Version::V2 => {
            packet.extend_from_slice(&text[..text.len().min(MAX_OUTPUT_V2)]);
            packet.resize(V2_SIZE, 0);
        }
        Version::V3 | Version::V4 => {
            let text = &text[..text.len().min(MAX_OUTPUT)];
            // Version 4 counts the NUL, version 3 does not; and version 3 sends the three bytes that only its checksum needs.
            let counted = text.len() + usize::from(version == Version::V4);
            packet.extend_from_slice(&[0; 2]);
            packet.extend_from_slice(&u32::try_from(counted).unwrap_or(u32::MAX).to_be_bytes());
            packet.extend_from_slice(text);
            match version {
                Version::V3 => packet.extend_from_slice(&V3_TRAILER),
                _ => packet.push(0),
            }
        }
    }
    let sum = checksum(&packet);
    packet[4..8].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// What nrpe makes of a plugin's output: it passes it through in pieces of 2047 bytes and takes each as a C string, so a NUL cuts
/// the rest of its piece and no more; for version 2 the first piece is all. Then one line feed at the end goes. None if there was
/// nothing to pass on.
#[must_use]
pub fn as_passed_on(output: &[u8], version: Version) -> Option<Vec<u8>> {
    const PIECE: usize = 2047;
    let most = if version == Version::V2 { PIECE } else { MAX_OUTPUT };
    let cut = &output[..output.len().min(most)];
    let mut text: Vec<u8> = cut.chunks(PIECE).flat_map(up_to_nul).copied().collect();
    if text.is_empty() {
        return None;
    }
    if text.last() == Some(&b'\n') {
        text.pop();
    }
    Some(text)
}

fn i32_at(bytes: &[u8], offset: usize) -> Option<i32> {
    bytes.get(offset..offset + 4).and_then(|field| field.try_into().ok()).map(i32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::probe::nrpe::packet::{Progress, Trailer, decode, encode_query};

    const VERSIONS: [Version; 3] = [Version::V2, Version::V3, Version::V4];

    fn query(version: Version, text: &str) -> Vec<u8> {
        encode_query(version, text.as_bytes(), Trailer::Counted).unwrap()
    }

    #[test]
    fn queries_of_our_client_are_understood() {
        for version in VERSIONS {
            for trailer in [Trailer::Sent, Trailer::Counted] {
                let bytes = encode_query(version, b"check_load!1!2", trailer).unwrap();
                let expected = Query { version, text: b"check_load!1!2".to_vec() };
                assert_eq!(decode_query(&bytes), Ok(expected), "{version} {trailer:?}");
            }
        }
    }

    #[test]
    fn a_query_is_read_in_the_steps_of_nrpe() {
        assert_eq!(needed(&[]), Ok(10));
        assert_eq!(needed(&query(Version::V2, "a")[..10]), Ok(1036));
        for version in [Version::V3, Version::V4] {
            let bytes = query(version, "a");
            assert_eq!((needed(&bytes[..9]), needed(&bytes[..10]), needed(&bytes[..15])), (Ok(10), Ok(16), Ok(16)));
            assert_eq!(needed(&bytes[..16]), Ok(bytes.len()));
        }
    }

    #[test]
    fn answers_are_those_of_the_reference_daemons() {
        let hex = |text: &str| -> Vec<u8> {
            text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
        };
        let mut v4 = hex("00 04 00 02 0d aa d2 45 00 00 00 00 00 00 00 0c");
        v4.extend_from_slice(b"NRPE v4.1.0\0");
        assert_eq!(encode_answer(Version::V4, 0, b"NRPE v4.1.0"), v4);
        let mut v3 = hex("00 03 00 02 f9 80 0d 98 00 00 00 00 00 00 00 0b");
        v3.extend_from_slice(b"NRPE v3.2.1\0\0\0");
        assert_eq!(encode_answer(Version::V3, 0, b"NRPE v3.2.1"), v3);
    }

    #[test]
    fn what_is_no_query_is_refused_by_name() {
        let with = |at: usize, bytes: &[u8]| {
            let mut packet = query(Version::V4, "check");
            packet[at..at + bytes.len()].copy_from_slice(bytes);
            packet
        };
        assert_eq!(decode_query(&with(0, &[0, 9])), Err(NotAQuery::Version(9)));
        assert_eq!(decode_query(b"GET / HTTP/1.0\r\n\r\n"), Err(NotAQuery::Version(0x4745)));
        for length in [0, -1, i32::MAX, 65_537] {
            assert_eq!(needed(&with(12, &length.to_be_bytes())), Err(NotAQuery::Length(length)));
        }
        assert_eq!(decode_query(&with(20, b"X")), Err(NotAQuery::Checksum));
        assert_eq!(decode_query(&encode_answer(Version::V2, 0, b"a")), Err(NotAQuery::Type(2)));
        let whole = query(Version::V4, "check");
        let truncated = NotAQuery::Truncated { have: 1000, need: whole.len() };
        assert_eq!(decode_query(&whole[..1000]), Err(truncated));
    }

    #[test]
    fn alignment_does_not_count_in_versions_3_and_4() {
        let mut packet = query(Version::V4, "check");
        packet[10..12].copy_from_slice(&[7, 7]);
        assert!(decode_query(&packet).is_ok());
    }

    #[test]
    fn output_is_cut_as_nrpe_cuts_it() {
        assert_eq!(as_passed_on(b"OK\n\n", Version::V4).unwrap(), b"OK\n");
        assert_eq!(as_passed_on(b"before\0after\n", Version::V4).unwrap(), b"before");
        assert_eq!(as_passed_on(b"\n", Version::V4).unwrap(), b"");
        assert_eq!((as_passed_on(b"", Version::V4), as_passed_on(b"\0after", Version::V4)), (None, None));
        let mut blocks = vec![b'A'; 2000];
        blocks.extend_from_slice(b"\0BBB");
        blocks.extend(vec![b'C'; 3000]);
        blocks.extend_from_slice(b"end\n");
        // Of the first 2047 bytes 2000 are left, of the rest nothing is lost but the line feed.
        assert_eq!(as_passed_on(&blocks, Version::V4).unwrap().len(), 2000 + (blocks.len() - 2047) - 1);
        assert_eq!(as_passed_on(&vec![b'D'; 70_000], Version::V4).unwrap().len(), MAX_OUTPUT);
        // In version 2 the first piece is all there is, however little of it a NUL leaves.
        assert_eq!(as_passed_on(&[b"a\0".as_slice(), &[b'b'; 3000]].concat(), Version::V2).unwrap(), b"a");
        assert_eq!(encode_answer(Version::V2, 0, &vec![b'D'; 70_000]).len(), 1036);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_fail(bytes in prop::collection::vec(any::<u8>(), 0..1100)) {
            if let Ok(query) = decode_query(&bytes) {
                prop_assert!(query.text.len() <= bytes.len());
            }
        }

        #[test]
        fn every_answer_is_read_by_our_client(
            version in prop::sample::select(VERSIONS.to_vec()),
            code in 0_u16..4,
            text in prop::collection::vec(1_u8.., 0..3000),
        ) {
            let bytes = encode_answer(version, code, &text);
            let Ok(Progress::Complete(answer)) = decode(&bytes, true) else { panic!("not an answer") };
            let limit = if version == Version::V2 { MAX_OUTPUT_V2 } else { MAX_OUTPUT };
            prop_assert_eq!(&answer.text, &text[..text.len().min(limit)]);
            prop_assert_eq!(answer.code, i16::try_from(code).unwrap());
        }
    }
}
