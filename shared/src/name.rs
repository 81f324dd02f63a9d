//! The names and numbers by which master and satellite mean the same thing. A name is valid once built; numbers have a type each,
//! so that a grant is never taken for a generation. Knows no rule about what the named things do.

use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Encode};
use serde::Serialize;

/// Longest host or service name, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest region or installation name, in bytes (it becomes part of a DNS name and of a URI).
pub const LABEL_BYTES_MAX: usize = 63;

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("a {0} must not be empty")]
    Empty(&'static str),
    /// More bytes than the bound.
    #[error("the {what} “{start}…” has {bytes} bytes; at most {max} are allowed")]
    Long { what: &'static str, start: String, bytes: usize, max: usize },
    /// A character the name must not have.
    #[error("the {what} “{text}” must not contain {character:?}")]
    Character { what: &'static str, text: String, character: char },
    /// White space at an end, which nobody can see in a list.
    #[error("the {what} “{text}” must not begin or end with white space")]
    Space { what: &'static str, text: String },
    /// Not a slot number.
    #[error("“{0}” is no slot number: slots count from 1")]
    Slot(String),
}

fn object_part(what: &'static str, text: &str) -> Result<String, NameError> {
    if text.is_empty() {
        return Err(NameError::Empty(what));
    }
    if text.len() > NAME_BYTES_MAX {
        let start = text.chars().take(24).collect();
        return Err(NameError::Long { what, start, bytes: text.len(), max: NAME_BYTES_MAX });
    }
    // `!` divides host from service wherever an object is named in one word, as in Icinga.
    if let Some(character) = text.chars().find(|c| c.is_control() || *c == '!') {
        return Err(NameError::Character { what, text: text.escape_debug().to_string(), character });
    }
    if text.trim() != text {
        return Err(NameError::Space { what, text: text.to_owned() });
    }
    Ok(text.to_owned())
}

fn label(what: &'static str, text: &str) -> Result<String, NameError> {
    if text.is_empty() {
        return Err(NameError::Empty(what));
    }
    if text.len() > LABEL_BYTES_MAX {
        let start = text.chars().take(24).collect();
        return Err(NameError::Long { what, start, bytes: text.len(), max: LABEL_BYTES_MAX });
    }
    match text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
        Some(character) => Err(NameError::Character { what, text: text.escape_debug().to_string(), character }),
        None => Ok(text.to_owned()),
    }
}

macro_rules! text_name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Serialize)]
        #[cbor(transparent)]
        #[serde(transparent)]
        pub struct $name(#[n(0)] String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                $check($what, text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        // Decoded by hand: bytes from network or disk become a name only by the same check as everywhere.
        impl<'b, C> Decode<'b, C> for $name {
            fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                d.str()?.parse().map_err(minicbor::decode::Error::custom)
            }
        }
    };
}

text_name!(
    /// A monitored host's name.
    HostName, "host name", object_part
);
text_name!(
    /// A monitored service's name on its host.
    ServiceName, "service name", object_part
);
text_name!(
    /// A region: lower-case letters, digits, hyphen.
    RegionName, "region name", label
);
text_name!(
    /// The installation this master, its CA and all its satellites belong to: lower-case letters, digits, hyphen.
    InstallationId, "installation id", label
);

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode, Serialize)]
        #[cbor(transparent)]
        #[serde(transparent)]
        pub struct $name(#[n(0)] pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number!(
    /// Given once per installation to an object's name, never reused.
    CheckId, u32
);
number!(
    /// The journal index of the entry that gave a check to its holder.
    Grant, u64
);
number!(
    /// +1 per activation of a revision, rollbacks included.
    Generation, u64
);
number!(
    /// Orders the runs of one slot's volume; drawn under a lock of that volume. 0 belongs to the master's own results.
    RunCounter, u64
);
number!(
    /// Dense within a run, from 1. 0 means “none yet”.
    Sequence, u64
);
number!(
    /// Position of an entry in the master's journal, from 1. Rises, and may jump.
    JournalIndex, u64
);
number!(
    /// Which leader wrote; always 1 while there is one master.
    Term, u64
);
number!(
    /// 64 random bits drawn when a store is made or restored from backup.
    Timeline, u64
);

macro_rules! random_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        #[cbor(transparent)]
        pub struct $name(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                let wrong = || NameError::Space { what: stringify!($name), text: text.escape_debug().to_string() };
                if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err(wrong());
                }
                let mut bytes = [0; 16];
                for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
                    let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
                    *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
                }
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

random_name!(
    /// A run: one stretch of results with a dense sequence. 128 random bits, so a cloned volume cannot reuse it.
    RunId
);
random_name!(
    /// A satellite process: 128 random bits drawn at its start.
    InstanceId
);

/// The number of a slot within its region, from 1: the task slot of the swarm service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Serialize)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct SlotNumber(#[n(0)] u32);

impl SlotNumber {
    /// `None` for 0: slots count from 1.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl FromStr for SlotNumber {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::Slot(text.escape_debug().to_string());
        // One spelling for one number: no sign, no leading zero.
        if text.starts_with('0') || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        text.parse().ok().and_then(Self::new).ok_or_else(wrong)
    }
}

impl fmt::Display for SlotNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl<'b, C> Decode<'b, C> for SlotNumber {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Self::new(d.u32()?).ok_or_else(|| minicbor::decode::Error::message("slots count from 1"))
    }
}

/// A slot of a region, written `eu/2`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Slot {
    /// The region.
    #[n(0)]
    pub region: RegionName,
    /// The slot within it.
    #[n(1)]
    pub number: SlotNumber,
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.region, self.number)
    }
}

impl Serialize for Slot {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What is checked: a host, or a service of it. Written `host` or `host!service`; ordered by host, the host itself first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct ObjectName {
    /// The host.
    #[n(0)]
    pub host: HostName,
    /// The service; `None` means the host itself.
    #[n(1)]
    pub service: Option<ServiceName>,
}

impl ObjectName {
    /// The host itself.
    #[must_use]
    pub fn host(host: HostName) -> Self {
        Self { host, service: None }
    }

    /// A service of a host.
    #[must_use]
    pub fn service(host: HostName, service: ServiceName) -> Self {
        Self { host, service: Some(service) }
    }

    /// Whether this is a host rather than a service.
    #[must_use]
    pub fn is_host(&self) -> bool {
        self.service.is_none()
    }
}

impl FromStr for ObjectName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once('!') {
            None => Ok(Self::host(text.parse()?)),
            Some((host, service)) => Ok(Self::service(host.parse()?, service.parse()?)),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.service {
            None => fmt::Display::fmt(&self.host, f),
            Some(service) => write!(f, "{}!{service}", self.host),
        }
    }
}

impl Serialize for ObjectName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_what_nagios_sites_write() {
        for text in ["web-01.example.com/a b", "disk C:\\ a=b,c", "Größe"] {
            assert_eq!(text.parse::<ServiceName>().unwrap().as_str(), text);
        }
        for text in ["", " a", "a\nb", "a!b", &"x".repeat(256)] {
            assert!(text.parse::<ServiceName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn slots_have_one_spelling() {
        assert_eq!("12".parse::<SlotNumber>().unwrap().get(), 12);
        for text in ["0", "01", "+1", "", "1 ", "4294967296"] {
            assert!(text.parse::<SlotNumber>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn random_names_read_back() {
        let run = RunId([0xab; 16]);
        assert_eq!(run.to_string().parse::<RunId>().unwrap(), run);
        assert!("+b".repeat(16).parse::<RunId>().is_err());
    }

    #[test]
    fn an_invalid_name_on_the_wire_is_an_error() {
        let bytes = minicbor::to_vec("EU").unwrap();
        assert!(minicbor::decode::<RegionName>(&bytes).is_err());
        assert!(minicbor::decode::<SlotNumber>(&[0]).is_err());
    }
}
