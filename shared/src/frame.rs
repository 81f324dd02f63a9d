//! How messages are cut out of the ordered byte streams of the link: a length, then that many bytes. Decides only where a frame
//! ends and which stream is which lane; knows nothing of what a frame says and nothing of QUIC. The surprise: nothing is set
//! aside for an announced length, so a peer that announces much and sends little costs nothing.

use bytes::{Buf, Bytes, BytesMut};
use minicbor::{Decode, Encode};

/// The link's protocol name in the TLS handshake (ALPN, RFC 7301).
pub const LINK_PROTOCOL: &[u8] = b"perigee/1";

/// Largest payload of a frame, in bytes; a longer one closes the link.
pub const FRAME_BYTES_MAX: usize = 256 * 1024;

/// UDP port of the link.
pub const LINK_PORT: u16 = 7443;

/// Bytes of the length field: u32, big-endian.
pub const LENGTH_BYTES: usize = 4;

/// The link was closed on purpose: the program stops.
pub const CLOSE_STOPPED: u32 = 1;
/// The master could not commit: the satellite connects again and sends again what was not acknowledged.
pub const CLOSE_NOT_COMMITTED: u32 = 2;
/// The master went wrong with this connection; connecting again may help.
pub const CLOSE_FAULT: u32 = 4;
/// The slot that this process was fenced from is free: it connects again and claims it.
pub const CLOSE_VACANT: u32 = 5;
/// The peer acknowledges nothing any more; it hardly hears of it, since a road is cut.
pub const CLOSE_UNANSWERED: u32 = 6;
/// The peer was refused; the close reason is the [`crate::refusal::Refusal::kind`].
pub const CLOSE_REFUSED: u32 = 3;

/// What a stream of the link is for. In messages the number is [`Lane::byte`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Lane {
    /// The one stream with two directions: greetings, grants, acknowledgements, clock. The first served.
    #[n(0)]
    Control,
    /// Results as they are made, snapshot included.
    #[n(1)]
    Live,
    /// Results of earlier runs, in the gaps live leaves.
    #[n(2)]
    Backlog,
}

impl Lane {
    /// The lanes, by falling urgency.
    pub const ALL: [Lane; 3] = [Lane::Control, Lane::Live, Lane::Backlog];

    /// The first byte of a stream of one direction; the control stream has none.
    #[must_use]
    pub const fn byte(self) -> u8 {
        match self {
            Lane::Control => 0,
            Lane::Live => 1,
            Lane::Backlog => 2,
        }
    }

    /// Which lane a stream of one direction says it is. `None`: no such lane, and control is none either.
    #[must_use]
    pub const fn of_byte(byte: u8) -> Option<Lane> {
        match byte {
            1 => Some(Lane::Live),
            2 => Some(Lane::Backlog),
            _ => None,
        }
    }

    /// QUIC stream priority: higher goes first.
    #[must_use]
    pub const fn priority(self) -> i32 {
        match self {
            Lane::Control => 2,
            Lane::Live => 1,
            Lane::Backlog => 0,
        }
    }
}

/// Why bytes are no frame. The stream cannot be read on after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// More than [`FRAME_BYTES_MAX`].
    #[error("a frame of {0} bytes; at most {FRAME_BYTES_MAX} are allowed")]
    Long(usize),
    /// No message is empty.
    #[error("a frame of 0 bytes")]
    Empty,
}

/// The length field for a payload.
///
/// # Errors
/// [`FrameError`] if no frame may have this length.
pub fn frame_head(payload: &[u8]) -> Result<[u8; LENGTH_BYTES], FrameError> {
    let length = payload.len();
    if length == 0 {
        return Err(FrameError::Empty);
    }
    match u32::try_from(length) {
        Ok(field) if length <= FRAME_BYTES_MAX => Ok(field.to_be_bytes()),
        _ => Err(FrameError::Long(length)),
    }
}

/// Takes the first whole frame's payload off `buffer`; `None` while it is not whole.
///
/// # Errors
/// [`FrameError`] as soon as the length field is there and no frame may have it.
pub fn split_frame(buffer: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
    let Some(field) = buffer.first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_be_bytes(*field)).unwrap_or(usize::MAX);
    if length == 0 {
        return Err(FrameError::Empty);
    }
    if length > FRAME_BYTES_MAX {
        return Err(FrameError::Long(length));
    }
    if buffer.len() < LENGTH_BYTES + length {
        return Ok(None);
    }
    buffer.advance(LENGTH_BYTES);
    Ok(Some(buffer.split_to(length).freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_the_stream_is_cut(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 0..20),
            cuts in prop::collection::vec(1usize..300, 1..50),
        ) {
            let mut stream = Vec::new();
            for payload in &payloads {
                stream.extend_from_slice(&frame_head(payload).unwrap());
                stream.extend_from_slice(payload);
            }
            let (mut buffer, mut out, mut rest) = (BytesMut::new(), Vec::new(), stream.as_slice());
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                buffer.extend_from_slice(now);
                rest = later;
                while let Some(frame) = split_frame(&mut buffer).unwrap() {
                    out.push(frame.to_vec());
                }
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(out, payloads);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn any_bytes_are_frames_a_refusal_or_too_few(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut buffer = BytesMut::from(bytes.as_slice());
            while let Ok(Some(frame)) = split_frame(&mut buffer) {
                prop_assert!(!frame.is_empty() && frame.len() <= FRAME_BYTES_MAX);
            }
        }
    }

    #[test]
    fn the_bound_is_the_last_length_that_passes() {
        let mut largest = BytesMut::from(&frame_head(&vec![7; FRAME_BYTES_MAX]).unwrap()[..]);
        assert_eq!(split_frame(&mut largest), Ok(None), "not whole yet");
        assert_eq!(frame_head(&vec![7; FRAME_BYTES_MAX + 1]), Err(FrameError::Long(FRAME_BYTES_MAX + 1)));
        let mut beyond = BytesMut::from(&u32::try_from(FRAME_BYTES_MAX + 1).unwrap().to_be_bytes()[..]);
        assert_eq!(split_frame(&mut beyond), Err(FrameError::Long(FRAME_BYTES_MAX + 1)));
        assert_eq!(split_frame(&mut BytesMut::from(&[0; 4][..])), Err(FrameError::Empty));
    }

    #[test]
    fn control_has_no_lane_byte() {
        assert_eq!(Lane::of_byte(Lane::Control.byte()), None);
        assert_eq!(Lane::of_byte(Lane::Live.byte()), Some(Lane::Live));
        assert_eq!(Lane::of_byte(Lane::Backlog.byte()), Some(Lane::Backlog));
        assert_eq!(Lane::of_byte(3), None);
    }
}
