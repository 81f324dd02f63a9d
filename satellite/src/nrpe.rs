//! What both ends of NRPE share: the versions of its packets, their checksum, and limits. Pure; the client's side of the packets is
//! `probe::nrpe::packet`, the daemon's `agent::packet`.
//!
//! The surprise: the checksum covers bytes that are not sent (three zeros behind version 3) and bytes that mean nothing (two of C's
//! padding in version 2), and leaves out two that are sent (the alignment of versions 3 and 4, taken for zeros).

use std::fmt;

use crc32fast::Hasher;

/// The longest text a packet may announce (nrpe's own limit). More is refused unread.
pub const MAX_TEXT: usize = 65_536;
/// The longest request text of version 2: 1024 bytes with the NUL.
pub const MAX_REQUEST_V2: usize = 1023;
/// The longest request text of versions 3 and 4, as check_nrpe and the daemon's command line have it.
pub const MAX_REQUEST: usize = 2047;
/// Bytes that version 3 counts into its checksum behind the text.
pub const V3_TRAILER: [u8; 3] = [0; 3];

/// The type of a packet that asks.
pub const TYPE_QUERY: u16 = 1;
/// The type of a packet that answers.
pub const TYPE_RESPONSE: u16 = 2;
/// Bytes of a packet of version 2, whole.
pub const V2_SIZE: usize = 1036;
/// Bytes before the text of version 2, and what all versions begin with.
pub const V2_HEADER: usize = 10;
/// Bytes before the text of versions 3 and 4.
pub const V3_HEADER: usize = 16;

/// A version of the packet format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// Spoken by every daemon; cuts output at 1023 bytes.
    V2,
    /// Spoken by 3.x daemons only.
    V3,
    /// Spoken by 4.x daemons.
    V4,
}

impl Version {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::V2 => 2,
            Self::V3 => 3,
            Self::V4 => 4,
        }
    }

    /// The version of this number, if there is one.
    #[must_use]
    pub const fn of_number(number: u16) -> Option<Self> {
        match number {
            2 => Some(Self::V2),
            3 => Some(Self::V3),
            4 => Some(Self::V4),
            _ => None,
        }
    }

    /// How many bytes of request text this version can carry.
    #[must_use]
    pub const fn max_request(self) -> usize {
        match self {
            Self::V2 => MAX_REQUEST_V2,
            Self::V3 | Self::V4 => MAX_REQUEST,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.number())
    }
}

/// The checksum of a packet whose checksum field is zero.
#[must_use]
pub fn checksum(packet: &[u8]) -> u32 {
    crc32fast::hash(packet)
}

/// Whether the checksum at offset 4 is that of the packet with that field, and the alignment of versions 3 and 4, as zeros, and of
/// the bytes that are `counted` behind it.
#[must_use]
pub fn checksum_fits(packet: &[u8], counted: &[u8]) -> bool {
    let Some(stated) = packet.get(4..8).and_then(|field| field.try_into().ok()).map(u32::from_be_bytes) else {
        return false;
    };
    let mut hasher = Hasher::new();
    hasher.update(&packet[..4]);
    hasher.update(&[0; 4]);
    if u16_at(packet, 0) == Some(Version::V2.number()) {
        hasher.update(&packet[8..]);
    } else {
        hasher.update(&packet[8..10]);
        hasher.update(&[0; 2]);
        hasher.update(&packet[12..]);
    }
    hasher.update(counted);
    hasher.finalize() == stated
}

/// A text ends at the first NUL, or where its bytes do.
#[must_use]
pub fn up_to_nul(text: &[u8]) -> &[u8] {
    text.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// Two bytes as a number, if they are there.
#[must_use]
pub fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..offset + 2).and_then(|field| field.try_into().ok()).map(u16::from_be_bytes)
}
