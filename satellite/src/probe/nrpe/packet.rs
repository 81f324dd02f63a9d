//! NRPE packets: a request in, its bytes out; the bytes of an answer in, its text out. Versions 2, 3 and 4, and the several
//! version 2 packets in which NSClient++ and Opsview's daemons send long output. Pure: knows no socket, TLS or version choice.
//!
//! An answer has no length prefix and comes from a stranger: [`decode`] looks at whatever has arrived, says whether more is
//! needed, and refuses a length before anybody allocates it. The surprise: a version 2 packet carries two bytes of C struct
//! padding that count, and a version 3 packet counts three zero bytes at its end that need not be sent.

pub use crate::nrpe::{MAX_REQUEST, MAX_REQUEST_V2, MAX_TEXT, Version};
use crate::nrpe::{
    TYPE_QUERY, TYPE_RESPONSE, V2_HEADER, V2_SIZE, V3_HEADER, V3_TRAILER, checksum, checksum_fits, u16_at, up_to_nul,
};

/// What a whole answer may take, packets and padding together; an answer that wants more is refused. Room for one
/// [`MAX_TEXT`] packet or a hundred version 2 packets.
pub const MAX_ANSWER: usize = 120 * 1024;
/// Every request is padded to this size: a 2.x daemon waits for so many bytes before it looks at any.
pub const MIN_REQUEST: usize = 1036;

/// A version 2 packet with more to follow (NSClient++ and the Opsview patch; nrpe never sends it).
const TYPE_RESPONSE_WITH_MORE: u16 = 3;

/// Header and padding around the text of a version 2 packet, whatever NSClient++'s `payload length` says.
const V2_FRAME: usize = 12;

/// Whether the three bytes that version 3 counts at its end are also sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trailer {
    /// Over TLS, as check_nrpe does.
    Sent,
    /// Over plain TCP: the daemon never reads them, so sending them turns its close into a reset.
    Counted,
}

/// A request text that fits no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request has {length} bytes, NRPE {version} carries at most {}", version.max_request())]
pub struct RequestTooLong {
    /// Its length in bytes.
    pub length: usize,
    /// The version it was meant for.
    pub version: Version,
}

/// The bytes of a query. They must be sent in one write: the daemon reads them with one read.
///
/// # Errors
/// The text is longer than the version can carry; it is never cut.
pub fn encode_query(version: Version, text: &[u8], trailer: Trailer) -> Result<Vec<u8>, RequestTooLong> {
    if text.len() > version.max_request() {
        return Err(RequestTooLong { length: text.len(), version });
    }
    Ok(encode(version, TYPE_QUERY, 0, text, trailer))
}

/// The bytes of a version 2 query whose text field has `payload` bytes instead of 1024, as NSClient++'s `payload length` may say.
///
/// # Errors
/// The text does not fit with its NUL; it is never cut.
pub fn encode_query_sized(text: &[u8], payload: usize) -> Result<Vec<u8>, RequestTooLong> {
    if text.len() >= payload {
        return Err(RequestTooLong { length: text.len(), version: Version::V2 });
    }
    let mut packet = encode(Version::V2, TYPE_QUERY, 0, text, Trailer::Sent);
    packet.resize(V2_FRAME + payload, 0);
    packet[4..8].fill(0);
    let crc = crc32fast::hash(&packet);
    packet[4..8].copy_from_slice(&crc.to_be_bytes());
    Ok(packet)
}

fn encode(version: Version, kind: u16, code: u16, text: &[u8], trailer: Trailer) -> Vec<u8> {
    let mut packet = Vec::with_capacity(MIN_REQUEST.max(V3_HEADER + text.len() + 1));
    packet.extend_from_slice(&version.number().to_be_bytes());
    packet.extend_from_slice(&kind.to_be_bytes());
    packet.extend_from_slice(&[0; 4]);
    packet.extend_from_slice(&code.to_be_bytes());
    if version != Version::V2 {
        // A 2.x daemon that is asked in a later version must see 1036 bytes too, to refuse at once instead of waiting.
        let trailing = if version == Version::V3 { V3_TRAILER.len() } else { 0 };
        let sent = if trailer == Trailer::Sent { trailing } else { 0 };
        let length = (text.len() + 1).max(MIN_REQUEST - V3_HEADER - sent);
        packet.extend_from_slice(&[0; 2]);
        packet.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        packet.extend_from_slice(text);
        packet.resize(V3_HEADER + length + trailing, 0);
    } else {
        packet.extend_from_slice(text);
        packet.resize(V2_SIZE.max(V2_FRAME + text.len()), 0);
    }
    let crc = checksum(&packet);
    packet[4..8].copy_from_slice(&crc.to_be_bytes());
    if version == Version::V3 && trailer == Trailer::Counted {
        packet.truncate(packet.len() - V3_TRAILER.len());
    }
    packet
}

/// An answer that passed every check of form. Its content is still a stranger's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Version of the packet it came in.
    pub version: Version,
    /// Result code as sent; 0–3 from nrpe, anything from others.
    pub code: i16,
    /// The plugin's text, up to the first NUL of each packet.
    pub text: Vec<u8>,
}

/// Why bytes are no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAnAnswer {
    /// The first bytes are those of another protocol.
    #[error("{what} (first bytes: {first})")]
    Foreign {
        /// What is wrong with them.
        what: String,
        /// The first bytes, readable.
        first: String,
    },
    /// An NRPE packet, but no answer.
    #[error("an NRPE {version} packet of type {kind} where an answer (type 2) was expected (first bytes: {first})")]
    Kind {
        /// Its version.
        version: Version,
        /// Its type.
        kind: u16,
        /// The first bytes, readable.
        first: String,
    },
    /// A length that no daemon means.
    #[error("the packet announces {0} bytes of text, at most {MAX_TEXT} are allowed")]
    Length(i32),
    /// Several packets that together go beyond [`MAX_ANSWER`].
    #[error("the answer is longer than {MAX_ANSWER} bytes")]
    TooLong,
    /// The checksum does not fit the bytes.
    #[error("the packet's checksum is wrong: {0} bytes arrived damaged, or the packet is cut short")]
    Checksum(usize),
    /// The peer closed in the middle.
    #[error("the connection ended after {have} bytes of a packet of {need}")]
    Truncated {
        /// Bytes that arrived.
        have: usize,
        /// Bytes the packet needs, as far as its header tells.
        need: usize,
    },
}

/// What [`decode`] makes of the bytes so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Read on.
    More,
    /// The answer is complete; whatever follows is not looked at.
    Complete(Answer),
}

/// Reads an answer from everything received so far. `ended` says that nothing more will come.
///
/// # Errors
/// The bytes are not, and with more bytes will not become, an answer.
pub fn decode(received: &[u8], ended: bool) -> Result<Progress, NotAnAnswer> {
    let mut text = Vec::new();
    let mut rest = received;
    loop {
        let Some(kind) = header(rest, ended)? else { return Ok(Progress::More) };
        // Packets before this one have taken their part.
        let room = MAX_ANSWER.saturating_sub(received.len() - rest.len());
        let packet = match kind.version {
            Version::V2 => v2(rest, kind.more, room, ended)?,
            Version::V3 | Version::V4 => v3(rest, kind.version, room, ended)?,
        };
        let Some(packet) = packet else { return Ok(Progress::More) };
        text.extend_from_slice(packet.text);
        if !kind.more {
            return Ok(Progress::Complete(Answer { version: kind.version, code: packet.code, text }));
        }
        rest = &rest[packet.size..];
        if received.len() - rest.len() + V2_SIZE > MAX_ANSWER {
            return Err(NotAnAnswer::TooLong);
        }
    }
}

struct Kind {
    version: Version,
    more: bool,
}

struct Packet<'a> {
    code: i16,
    text: &'a [u8],
    size: usize,
}

/// The version and type of a packet, once its ten common bytes are there. Bytes that cannot begin a packet are refused as soon
/// as the first two have come: a peer of another protocol may never send more.
fn header(bytes: &[u8], ended: bool) -> Result<Option<Kind>, NotAnAnswer> {
    let (Some(version), Some(kind)) = (u16_at(bytes, 0), u16_at(bytes, 2)) else {
        return match u16_at(bytes, 0) {
            Some(number) if Version::of_number(number).is_none() => Err(foreign(number, bytes)),
            _ if ended => Err(NotAnAnswer::Truncated { have: bytes.len(), need: V2_HEADER }),
            _ => Ok(None),
        };
    };
    let Some(version_known) = Version::of_number(version) else { return Err(foreign(version, bytes)) };
    let more = match (version_known, kind) {
        (_, TYPE_RESPONSE) => false,
        (Version::V2, TYPE_RESPONSE_WITH_MORE) => true,
        (version, kind) => return Err(NotAnAnswer::Kind { version, kind, first: readable(bytes) }),
    };
    if bytes.len() < V2_HEADER {
        return if ended { Err(NotAnAnswer::Truncated { have: bytes.len(), need: V2_HEADER }) } else { Ok(None) };
    }
    Ok(Some(Kind { version: version_known, more }))
}

fn foreign(version: u16, bytes: &[u8]) -> NotAnAnswer {
    let what = if bytes.starts_with(b"HTTP") {
        "not NRPE: an HTTP server answered".to_owned()
    } else if matches!(bytes, [0x14..=0x17, 0x03, ..]) {
        "not a plain NRPE packet: the peer speaks TLS".to_owned()
    } else {
        format!("not NRPE: a packet of version {version}, only 2, 3 and 4 exist")
    };
    NotAnAnswer::Foreign { what, first: readable(bytes) }
}

/// A version 2 packet has no length. It is nrpe's 1036 bytes if their checksum fits; otherwise NSClient++ with another `payload
/// length` may have sent it, and everything up to here (or to the end of the stream) is tried as one packet. `room` is what the
/// answer may still take.
fn v2(bytes: &[u8], more: bool, room: usize, ended: bool) -> Result<Option<Packet<'_>>, NotAnAnswer> {
    if let Some(standard) = bytes.get(..V2_SIZE)
        && v2_fits(standard)
    {
        return Ok(Some(v2_packet(standard)));
    }
    // Only the last packet of an answer can be measured by its end. Whole kilobytes are what people configure, and trying no
    // other length before the end keeps a peer that sends single bytes from making every one of them cost a checksum.
    let payload = bytes.len().saturating_sub(V2_FRAME);
    if bytes.len() > room {
        return Err(NotAnAnswer::TooLong);
    }
    if !more && payload > 0 && (ended || payload.is_multiple_of(1024)) && v2_fits(bytes) {
        return Ok(Some(v2_packet(bytes)));
    }
    match (ended, bytes.len() < V2_SIZE) {
        (true, true) => Err(NotAnAnswer::Truncated { have: bytes.len(), need: V2_SIZE }),
        (true, false) => Err(NotAnAnswer::Checksum(bytes.len())),
        (false, _) if more && bytes.len() >= V2_SIZE => Err(NotAnAnswer::Checksum(V2_SIZE)),
        (false, _) if bytes.len() == room => Err(NotAnAnswer::TooLong),
        (false, _) => Ok(None),
    }
}

fn v2_fits(packet: &[u8]) -> bool {
    checksum_fits(packet, &[])
}

fn v2_packet(packet: &[u8]) -> Packet<'_> {
    let payload = &packet[V2_HEADER..packet.len() - (V2_FRAME - V2_HEADER)];
    Packet { code: code_of(packet), text: up_to_nul(payload), size: packet.len() }
}

fn v3(bytes: &[u8], version: Version, room: usize, ended: bool) -> Result<Option<Packet<'_>>, NotAnAnswer> {
    let Some(length) = bytes.get(12..V3_HEADER).and_then(|field| field.try_into().ok()).map(i32::from_be_bytes) else {
        return if ended { Err(NotAnAnswer::Truncated { have: bytes.len(), need: V3_HEADER }) } else { Ok(None) };
    };
    let text = usize::try_from(length).ok().filter(|&text| text <= MAX_TEXT).ok_or(NotAnAnswer::Length(length))?;
    let size = V3_HEADER + text;
    if size > room {
        return Err(NotAnAnswer::TooLong);
    }
    let Some(packet) = bytes.get(..size) else {
        return if ended { Err(NotAnAnswer::Truncated { have: bytes.len(), need: size }) } else { Ok(None) };
    };
    let counted: &[u8] = if version == Version::V3 { &V3_TRAILER } else { &[] };
    if !checksum_fits(packet, counted) {
        return Err(NotAnAnswer::Checksum(size));
    }
    Ok(Some(Packet { code: code_of(packet), text: up_to_nul(&packet[V3_HEADER..]), size }))
}

fn code_of(packet: &[u8]) -> i16 {
    packet.get(8..10).and_then(|field| field.try_into().ok()).map_or(-1, i16::from_be_bytes)
}

fn readable(bytes: &[u8]) -> String {
    const SHOWN: usize = 16;
    let shown = &bytes[..bytes.len().min(SHOWN)];
    format!("{:02x?} \"{}\"", shown, shown.escape_ascii())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn response(version: Version, kind: u16, code: i16, text: &[u8]) -> Vec<u8> {
        encode(version, kind, u16::from_be_bytes(code.to_be_bytes()), text, Trailer::Counted)
    }

    fn complete(bytes: &[u8], ended: bool) -> Answer {
        match decode(bytes, ended).unwrap() {
            Progress::Complete(answer) => answer,
            Progress::More => panic!("the decoder wants more than {} bytes", bytes.len()),
        }
    }

    fn hex(text: &str) -> Vec<u8> {
        text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
    }

    #[test]
    fn a_sized_query_has_the_size_asked_for_and_is_never_cut() {
        for payload in [512, 1024, 2048, 8192] {
            let packet = encode_query_sized(b"check_load", payload).unwrap();
            assert_eq!(packet.len(), payload + 12);
            assert!(checksum_fits(&packet, &[]));
        }
        assert_eq!(encode_query_sized(b"_NRPE_CHECK", 1024), encode_query(Version::V2, b"_NRPE_CHECK", Trailer::Sent));
        assert!(encode_query_sized(&[b'x'; 511], 512).is_ok());
        assert!(encode_query_sized(&[b'x'; 512], 512).is_err());
    }

    #[test]
    fn queries_are_those_of_the_reference_client() {
        let vectors = [
            (Version::V2, "_NRPE_CHECK", "00 02 00 01 d4 67 3f 00 00 00 5f 4e"),
            (Version::V3, "_NRPE_CHECK", "00 03 00 01 10 e7 5a e5 00 00 00 00 00 00 03 f9 5f 4e"),
            (Version::V4, "_NRPE_CHECK", "00 04 00 01 5b d5 18 54 00 00 00 00 00 00 03 fc 5f 4e"),
            (Version::V3, "check_users!1!2", "00 03 00 01 03 cf d6 7f 00 00 00 00 00 00 03 f9"),
            (Version::V4, "check_users!1!2", "00 04 00 01 48 fd 94 ce 00 00 00 00 00 00 03 fc"),
        ];
        for (version, text, first) in vectors {
            let query = encode_query(version, text.as_bytes(), Trailer::Sent).unwrap();
            assert_eq!(query.len(), MIN_REQUEST, "{version} {text}");
            assert!(query.starts_with(&hex(first)), "{version} {text}: {:02x?}", &query[..18]);
        }
    }

    #[test]
    fn a_plain_v3_query_counts_its_trailer_without_sending_it_and_is_long_enough_without() {
        let sent = encode_query(Version::V3, &[b'x'; 1500], Trailer::Sent).unwrap();
        let counted = encode_query(Version::V3, &[b'x'; 1500], Trailer::Counted).unwrap();
        assert_eq!(counted, sent[..sent.len() - 3]);
        assert_eq!(encode_query(Version::V3, b"x", Trailer::Counted).unwrap().len(), MIN_REQUEST);
    }

    #[test]
    fn answers_of_real_daemons_are_read() {
        let v4 = hex("00 04 00 02 0d aa d2 45 00 00 00 00 00 00 00 0c 4e 52 50 45 20 76 34 2e 31 2e 30 00");
        assert_eq!(complete(&v4, false), Answer { version: Version::V4, code: 0, text: b"NRPE v4.1.0".to_vec() });
        let v3 = hex("00 03 00 02 f9 80 0d 98 00 00 00 00 00 00 00 0b 4e 52 50 45 20 76 33 2e 32 2e 31");
        assert_eq!(complete(&v3, false), Answer { version: Version::V3, code: 0, text: b"NRPE v3.2.1".to_vec() });
        let with_trailer = [v3.as_slice(), &[0, 0, 0]].concat();
        assert_eq!(complete(&with_trailer, false).text, b"NRPE v3.2.1");
    }

    #[test]
    fn random_padding_of_a_v2_answer_is_part_of_its_checksum() {
        let mut packet = response(Version::V2, TYPE_RESPONSE, 2, b"bad");
        packet[1034..].copy_from_slice(&[0xab, 0xcd]);
        packet[4..8].fill(0);
        let crc = crc32fast::hash(&packet);
        packet[4..8].copy_from_slice(&crc.to_be_bytes());
        let answer = complete(&packet, false);
        assert_eq!((answer.code, answer.text.as_slice()), (2, b"bad".as_slice()));
    }

    #[test]
    fn nsclient_payloads_of_other_lengths_are_measured_by_their_end() {
        for payload in [100, 4096, 60_000] {
            let mut packet = response(Version::V2, TYPE_RESPONSE, 1, b"windows");
            packet.resize(12 + payload, 0);
            packet[4..8].fill(0);
            let crc = crc32fast::hash(&packet);
            packet[4..8].copy_from_slice(&crc.to_be_bytes());
            assert_eq!(complete(&packet, true).text, b"windows", "payload {payload}");
        }
    }

    #[test]
    fn several_v2_packets_are_one_text() {
        let first = response(Version::V2, TYPE_RESPONSE_WITH_MORE, 0, b"one ");
        let last = response(Version::V2, TYPE_RESPONSE, 2, b"two");
        assert_eq!(decode(&first, false).unwrap(), Progress::More);
        let answer = complete(&[first.clone(), last].concat(), false);
        assert_eq!((answer.code, answer.text.as_slice()), (2, b"one two".as_slice()));
        assert_eq!(decode(&first.repeat(200), false), Err(NotAnAnswer::TooLong));
    }

    #[test]
    fn no_way_of_packing_makes_an_answer_longer_than_it_may_be() {
        let part = response(Version::V2, TYPE_RESPONSE_WITH_MORE, 0, b"part");
        let behind = response(Version::V4, TYPE_RESPONSE, 0, &[b'x'; MAX_TEXT - 1]);
        assert_eq!(decode(&[part.repeat(100), behind].concat(), true), Err(NotAnAnswer::TooLong));
        let mut measured = response(Version::V2, TYPE_RESPONSE, 0, b"x");
        measured.resize(V2_FRAME + MAX_ANSWER + 1024, 0);
        measured[4..8].fill(0);
        let crc = crc32fast::hash(&measured);
        measured[4..8].copy_from_slice(&crc.to_be_bytes());
        for ended in [false, true] {
            assert_eq!(decode(&measured, ended), Err(NotAnAnswer::TooLong));
        }
    }

    #[test]
    fn a_length_is_refused_before_it_is_believed() {
        for length in [i32::MAX, -1, 65_537] {
            let mut packet = response(Version::V4, TYPE_RESPONSE, 0, b"x");
            packet[12..16].copy_from_slice(&length.to_be_bytes());
            assert_eq!(decode(&packet, false), Err(NotAnAnswer::Length(length)));
        }
    }

    #[test]
    fn every_early_end_and_every_flipped_bit_is_an_error() {
        for version in [Version::V2, Version::V3, Version::V4] {
            let packet = response(version, TYPE_RESPONSE, 0, b"fine|a=1");
            let size = if version == Version::V2 {
                packet.len()
            } else {
                V3_HEADER + usize::from(packet[15]) + 256 * usize::from(packet[14])
            };
            for cut in 0..size {
                assert!(decode(&packet[..cut], true).is_err(), "{version} cut at {cut}");
                assert_eq!(decode(&packet[..cut], false), Ok(Progress::More), "{version} so far {cut}");
            }
            for bit in 0..size * 8 {
                let mut damaged = packet.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                // The alignment bytes of v3 and v4 carry nothing and count as zeros.
                let carries_nothing = version != Version::V2 && (10..12).contains(&(bit / 8));
                assert_eq!(decode(&damaged, true).is_err(), !carries_nothing, "{version} bit {bit}");
            }
        }
    }

    #[test]
    fn another_protocol_is_named() {
        let http = decode(b"HTTP/1.1 400 Bad Request\r\n", false).unwrap_err().to_string();
        assert!(http.contains("HTTP server"), "{http}");
        let tls = decode(&[0x15, 0x03, 0x01, 0, 2, 2, 40], false).unwrap_err().to_string();
        assert!(tls.contains("speaks TLS"), "{tls}");
        let query = encode_query(Version::V4, b"x", Trailer::Sent).unwrap();
        assert!(decode(&query, false).unwrap_err().to_string().contains("type 1"));
        assert!(decode(&[0, 9, 0, 2], false).unwrap_err().to_string().contains("version 9"));
    }

    #[test]
    fn a_request_is_refused_rather_than_cut() {
        assert!(encode_query(Version::V2, &[b'a'; MAX_REQUEST_V2], Trailer::Sent).is_ok());
        assert!(encode_query(Version::V2, &[b'a'; MAX_REQUEST_V2 + 1], Trailer::Sent).is_err());
        let long = encode_query(Version::V4, &[b'a'; MAX_REQUEST], Trailer::Sent).unwrap();
        assert_eq!(long.len(), V3_HEADER + MAX_REQUEST + 1);
        assert!(encode_query(Version::V3, &[b'a'; MAX_REQUEST + 1], Trailer::Sent).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3000), ended: bool) {
            let _ = decode(&bytes, ended);
        }

        #[test]
        fn no_bytes_behind_a_true_header_make_the_decoder_panic(
            version in 2u16..5, kind in 1u16..4, rest in proptest::collection::vec(any::<u8>(), 0..3000), ended: bool,
        ) {
            let bytes = [&version.to_be_bytes()[..], &kind.to_be_bytes(), &rest].concat();
            let _ = decode(&bytes, ended);
        }

        #[test]
        fn what_was_sent_is_what_is_read(
            version in prop_oneof![Just(Version::V2), Just(Version::V3), Just(Version::V4)],
            code: i16,
            text in proptest::collection::vec(1u8.., 0..1023),
            junk in proptest::collection::vec(any::<u8>(), 0..50),
        ) {
            let packet = response(version, TYPE_RESPONSE, code, &text);
            let answer = complete(&[packet, junk].concat(), false);
            prop_assert_eq!(answer, Answer { version, code, text });
        }
    }
}
