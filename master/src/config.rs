//! Configuration: files become a `Catalog`, the one thing the rest of the master knows of them.
//!
//! `load` reads (the only step that touches a disk), `compile` turns what was read into a catalog or names everything that is
//! wrong with it. A catalog is a value: it is stored as a revision and read back without the files it came from.
//! The surprise: a catalog holds no defaults and no templates; every object in it is complete.

pub mod check;
pub mod compile;
pub mod diagnostic;
pub mod expression;
pub mod glob;
pub mod parse;
pub mod range;
pub mod raw;
pub mod report;
pub mod source;
pub mod template;
pub mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use minicbor::{Decode, Encode};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use shared::assignment::Policy;
use shared::check::Check;
use shared::name::{HostName, ObjectName, RegionName};

pub use compile::compile;
pub use diagnostic::{Diagnostic, Severity};
pub use report::{EXIT_WRONG, check_config};
pub use source::{SourceError, Sources, load};

/// The values that hold where neither an object nor a template says otherwise.
pub mod defaults {
    use std::time::Duration;

    /// Icinga's default is five minutes, Nagios' too; one minute is what people set.
    pub const CHECK_INTERVAL: Duration = Duration::from_secs(60);
    /// While a problem is soft.
    pub const RETRY_INTERVAL: Duration = Duration::from_secs(15);
    /// Problems in a row that make a state hard (Icinga's default).
    pub const MAX_CHECK_ATTEMPTS: u32 = 3;
    /// One deadline for a whole execution (`check_nrpe`'s default).
    pub const TIMEOUT: Duration = Duration::from_secs(10);
    /// The port of an NRPE daemon.
    pub const NRPE_PORT: u16 = 5666;
    /// How long a slot may be silent before its hosts move.
    pub const FAILOVER_AFTER: Duration = Duration::from_secs(60);
    /// The port of carbon's plain-text protocol.
    pub const GRAPHITE_PORT: u16 = 2003;
    /// The prefix Icinga 2 uses, so that dashboards made for it go on working.
    pub const GRAPHITE_PREFIX: &str = "icinga2";
}

/// SHA-256 of a catalog's content: names what it says, not how it was written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct CatalogDigest(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 32]);

impl fmt::Display for CatalogDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CatalogDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for CatalogDigest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Everything a configuration says, complete and checked. Its stored form is a format: fields are added, never renumbered.
#[derive(Debug, Clone, PartialEq, Default, Encode, Decode)]
pub struct Catalog {
    /// The regions.
    #[n(0)]
    pub regions: BTreeMap<RegionName, Region>,
    /// The hosts.
    #[n(1)]
    pub hosts: BTreeMap<HostName, Host>,
    /// What is checked: every host and every service.
    #[n(2)]
    pub objects: BTreeMap<ObjectName, CheckDefinition>,
    /// Where performance data go.
    #[n(3)]
    pub writers: Vec<Writer>,
    /// Names the content of the fields above.
    #[n(4)]
    pub digest: CatalogDigest,
}

/// Why stored bytes are no catalog.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// Not in this format, or a value in it is not allowed.
    #[error("the stored catalog cannot be read: {0}")]
    Format(#[from] minicbor::decode::Error),
    /// Readable, but not what was written.
    #[error("the stored catalog is damaged: its digest is {found}, its content has {expected}")]
    Digest { found: CatalogDigest, expected: CatalogDigest },
}

impl Catalog {
    /// A catalog of these parts, with its digest.
    #[must_use]
    pub fn new(
        regions: BTreeMap<RegionName, Region>,
        hosts: BTreeMap<HostName, Host>,
        objects: BTreeMap<ObjectName, CheckDefinition>,
        writers: Vec<Writer>,
    ) -> Self {
        let mut catalog = Self { regions, hosts, objects, writers, digest: CatalogDigest::default() };
        catalog.digest = catalog.content_digest();
        catalog
    }

    /// The stored form. The same content gives the same bytes: maps are ordered and numbers have one spelling.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads the stored form back.
    ///
    /// # Errors
    /// When the bytes are no catalog, or not the one whose digest they hold.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CatalogError> {
        let catalog: Self = minicbor::decode(bytes)?;
        let expected = catalog.content_digest();
        if catalog.digest != expected {
            return Err(CatalogError::Digest { found: catalog.digest, expected });
        }
        Ok(catalog)
    }

    fn content_digest(&self) -> CatalogDigest {
        let bytes = encode((&self.regions, &self.hosts, &self.objects, &self.writers));
        CatalogDigest(Sha256::digest(bytes).into())
    }
}

fn encode<T: Encode<()>>(value: T) -> Vec<u8> {
    // Writing into memory cannot fail, and no value of a catalog refuses to be encoded (its JSON has text keys only).
    minicbor::to_vec(value).unwrap_or_default()
}

/// A region and the slots that are expected in it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Region {
    /// Slots expected; fewer is a problem, more is fine.
    #[n(0)]
    pub slots: u32,
    /// Ids of the join secrets that may admit a satellite to this region.
    #[n(1)]
    pub join: Vec<String>,
    /// How long a slot may be silent before its hosts move, in milliseconds.
    #[n(2)]
    pub failover_after_ms: u64,
}

impl Region {
    /// How long a slot may be silent before its hosts move.
    #[must_use]
    pub fn failover_after(&self) -> Duration {
        Duration::from_millis(self.failover_after_ms)
    }
}

/// A monitored host; how it is checked stands in [`Catalog::objects`] under its own name.
#[derive(Debug, Clone, PartialEq, Encode, Decode, Serialize)]
pub struct Host {
    /// The region whose slots check it.
    #[n(0)]
    pub region: RegionName,
    /// Name or address to connect to.
    #[n(1)]
    pub address: String,
    /// Groups it belongs to.
    #[n(2)]
    pub groups: BTreeSet<String>,
    /// Free-form data.
    #[n(3)]
    pub vars: Vars,
}

/// Free-form data of a host.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(transparent)]
pub struct Vars(pub BTreeMap<String, serde_json::Value>);

// Stored as one JSON text: free-form data have no numbered fields.
impl<C> Encode<C> for Vars {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        let text = serde_json::to_string(&self.0).map_err(minicbor::encode::Error::message)?;
        e.str(&text)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Vars {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        serde_json::from_str(d.str()?).map(Self).map_err(minicbor::decode::Error::custom)
    }
}

/// How one host or service is checked.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CheckDefinition {
    /// What to ask.
    #[n(0)]
    pub check: Check,
    /// How often and how many times.
    #[n(1)]
    pub policy: Policy,
    /// What time-series stores call the check: `nrpe`, `tcp` or the name of a command.
    #[n(2)]
    pub command_name: String,
    /// The region whose slots run it.
    #[n(3)]
    pub region: RegionName,
}

/// A place performance data are sent to.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Writer {
    /// Carbon's plain-text protocol.
    #[n(0)]
    Graphite(#[n(0)] GraphiteWriter),
}

/// How to write to Graphite, in Icinga 2's terms.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct GraphiteWriter {
    /// `host:port` of carbon's plain-text listener.
    #[n(0)]
    pub address: String,
    /// First part of every metric's name; may itself hold dots.
    #[n(1)]
    pub prefix: String,
    /// Whether warn, crit, min and max are sent beside the value.
    #[n(2)]
    pub thresholds: bool,
    /// Whether state, attempts and execution time are sent as metrics.
    #[n(3)]
    pub metadata: bool,
}

#[cfg(test)]
mod tests;
