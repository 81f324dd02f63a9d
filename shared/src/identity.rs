//! Who is at the other end of the link: reads the identity out of a certificate, strictly, and makes the session types that every
//! handler of a peer's words takes. Knows no socket and no CA: the caller's stock verifier has checked chain and times before.
//! The surprise: a name that cannot be read refuses the whole certificate, even when a good URI stands beside it.

use std::fmt;
use std::str::FromStr;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::name::{InstallationId, RegionName, SlotNumber};
use crate::refusal::Refusal;
use crate::time::Timestamp;

const SCHEME: &str = "perigee://";

/// Who a certificate speaks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// One slot of a region: a satellite.
    Slot {
        /// Whose it is.
        installation: InstallationId,
        /// The region it runs in.
        region: RegionName,
        /// Which of the region's slots it is.
        slot: SlotNumber,
    },
    /// The master.
    Master {
        /// Whose it is.
        installation: InstallationId,
    },
}

impl Identity {
    /// The installation it belongs to.
    #[must_use]
    pub fn installation(&self) -> &InstallationId {
        match self {
            Identity::Slot { installation, .. } | Identity::Master { installation } => installation,
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Slot { installation, region, slot } => {
                write!(f, "{SCHEME}{installation}/region/{region}/slot/{slot}")
            }
            Identity::Master { installation } => write!(f, "{SCHEME}{installation}/master"),
        }
    }
}

/// The text is no identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no identity: expected perigee://<installation>/region/<region>/slot/<n> or perigee://<installation>/master")]
pub struct NoIdentity;

impl FromStr for Identity {
    type Err = NoIdentity;

    fn from_str(uri: &str) -> Result<Self, NoIdentity> {
        let parts: Vec<&str> = uri.strip_prefix(SCHEME).ok_or(NoIdentity)?.split('/').collect();
        let installation = |text: &str| text.parse().map_err(|_| NoIdentity);
        match parts.as_slice() {
            [first, "master"] => Ok(Identity::Master { installation: installation(first)? }),
            [first, "region", region, "slot", slot] => Ok(Identity::Slot {
                installation: installation(first)?,
                region: region.parse().map_err(|_| NoIdentity)?,
                slot: slot.parse().map_err(|_| NoIdentity)?,
            }),
            _ => Err(NoIdentity),
        }
    }
}

/// The one DNS name of a master's certificate: what a satellite asks the stock verifier for, wherever the master lives. It is
/// never looked up: `.invalid` has no addresses (RFC 6761).
#[must_use]
pub fn master_dns_name(installation: &InstallationId) -> String {
    format!("master.{installation}.perigee.invalid")
}

/// Whether a private key of this file mode is open to too many: readable by everybody, or writable by more than its owner.
/// Read access for the group is left to the operator.
#[must_use]
pub const fn key_is_exposed(mode: u32) -> bool {
    mode & 0o027 != 0
}

/// What a leaf certificate says about its owner, read but not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Who it speaks for.
    pub identity: Identity,
    /// Its serial number, lower-case hexadecimal.
    pub serial: String,
    /// First second of its life.
    pub not_before: Timestamp,
    /// Last second of its life.
    pub not_after: Timestamp,
}

impl Leaf {
    /// Reads a slot's certificate.
    ///
    /// # Errors
    /// The [`Refusal`] that names the first rule it breaks.
    pub fn of_slot(der: &[u8]) -> Result<Leaf, Refusal> {
        let (leaf, names) = read(der, Role::Client)?;
        match leaf.identity {
            Identity::Slot { .. } if names.dns.is_empty() => Ok(leaf),
            Identity::Slot { .. } => Err(Refusal::UnexpectedName),
            Identity::Master { .. } => Err(Refusal::BadUri),
        }
    }

    /// Reads a master's certificate.
    ///
    /// # Errors
    /// The [`Refusal`] that names the first rule it breaks.
    pub fn of_master(der: &[u8]) -> Result<Leaf, Refusal> {
        let (leaf, names) = read(der, Role::Server)?;
        match &leaf.identity {
            Identity::Master { installation } if names.dns == [master_dns_name(installation)] => Ok(leaf),
            Identity::Master { .. } => Err(Refusal::UnexpectedName),
            Identity::Slot { .. } => Err(Refusal::BadUri),
        }
    }
}

#[derive(Clone, Copy)]
enum Role {
    Client,
    Server,
}

struct Names {
    dns: Vec<String>,
}

fn read(der: &[u8], role: Role) -> Result<(Leaf, Names), Refusal> {
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| Refusal::BadCertificate)?;
    if !rest.is_empty() {
        return Err(Refusal::BadCertificate);
    }
    check_role(&certificate, role)?;
    let (uri, names) = read_names(&certificate)?;
    let identity = uri.parse().map_err(|NoIdentity| Refusal::BadUri)?;
    let validity = certificate.validity();
    let moment = |seconds: i64| Timestamp::from_millis(seconds.saturating_mul(1000));
    let leaf = Leaf {
        identity,
        serial: certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
        not_before: moment(validity.not_before.timestamp()),
        not_after: moment(validity.not_after.timestamp()),
    };
    Ok((leaf, names))
}

/// The stock verifier takes a certificate without extended key usage for either role; here the usage must be stated, and be one.
fn check_role(certificate: &X509Certificate<'_>, role: Role) -> Result<(), Refusal> {
    let usage = certificate.extended_key_usage().map_err(|_| Refusal::BadCertificate)?.ok_or(Refusal::WrongRole)?.value;
    let fits = match role {
        Role::Client => usage.client_auth && !usage.server_auth,
        Role::Server => usage.server_auth && !usage.client_auth,
    };
    if fits && !usage.any { Ok(()) } else { Err(Refusal::WrongRole) }
}

fn read_names(certificate: &X509Certificate<'_>) -> Result<(String, Names), Refusal> {
    let list = certificate.subject_alternative_name().map_err(|_| Refusal::UnreadableNames)?.ok_or(Refusal::NoUri)?;
    let (mut uris, mut names, mut others) = (Vec::new(), Names { dns: Vec::new() }, 0usize);
    for name in &list.value.general_names {
        match name {
            // RFC 5280 has IA5String here: ASCII. Anything else may look like a name without being it.
            GeneralName::URI(text) | GeneralName::DNSName(text) if !text.is_ascii() => {
                return Err(Refusal::UnreadableNames);
            }
            GeneralName::URI(text) => uris.push(*text),
            GeneralName::DNSName(text) => names.dns.push((*text).to_owned()),
            GeneralName::Invalid(..) | GeneralName::X400Address(_) | GeneralName::EDIPartyName(_) => {
                return Err(Refusal::UnreadableNames);
            }
            _ => others += 1,
        }
    }
    match uris.as_slice() {
        [] => Err(Refusal::NoUri),
        [_] if others > 0 => Err(Refusal::UnexpectedName),
        [uri] => Ok(((*uri).to_owned(), names)),
        _ => Err(Refusal::SeveralUris),
    }
}

/// A connection whose peer proved to be a slot of our installation. Only a certificate makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotSession {
    region: RegionName,
    slot: SlotNumber,
    leaf: Leaf,
}

impl SlotSession {
    /// From the chain that the stock verifier has accepted in the handshake, leaf first.
    ///
    /// # Errors
    /// The [`Refusal`] that names the first rule the leaf breaks.
    pub fn from_verified<C: AsRef<[u8]>>(chain: &[C], ours: &InstallationId) -> Result<SlotSession, Refusal> {
        let leaf = Leaf::of_slot(chain.first().ok_or(Refusal::NoCertificate)?.as_ref())?;
        match leaf.identity.clone() {
            Identity::Slot { installation, region, slot } if installation == *ours => {
                Ok(SlotSession { region, slot, leaf })
            }
            Identity::Slot { .. } => Err(Refusal::ForeignInstallation),
            Identity::Master { .. } => Err(Refusal::BadUri),
        }
    }

    /// The region the peer speaks for.
    #[must_use]
    pub fn region(&self) -> &RegionName {
        &self.region
    }

    /// The slot the peer speaks for.
    #[must_use]
    pub fn slot(&self) -> SlotNumber {
        self.slot
    }

    /// The certificate it showed.
    #[must_use]
    pub fn leaf(&self) -> &Leaf {
        &self.leaf
    }
}

/// A connection whose peer proved to be the master of our installation. Only a certificate makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterSession {
    leaf: Leaf,
}

impl MasterSession {
    /// From the chain that the stock verifier has accepted in the handshake, leaf first.
    ///
    /// # Errors
    /// The [`Refusal`] that names the first rule the leaf breaks.
    pub fn from_verified<C: AsRef<[u8]>>(chain: &[C], ours: &InstallationId) -> Result<MasterSession, Refusal> {
        let leaf = Leaf::of_master(chain.first().ok_or(Refusal::NoCertificate)?.as_ref())?;
        if leaf.identity.installation() == ours {
            Ok(MasterSession { leaf })
        } else {
            Err(Refusal::ForeignInstallation)
        }
    }

    /// The certificate it showed.
    #[must_use]
    pub fn leaf(&self) -> &Leaf {
        &self.leaf
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_identity_has_one_spelling() {
        for uri in [
            "perigee://k3x9/region/eu/slot/1",
            "perigee://k3x9/region/eu-west-2/slot/4294967295",
            "perigee://k3x9/master",
        ] {
            assert_eq!(uri.parse::<Identity>().unwrap().to_string(), uri);
        }
    }

    #[test]
    fn other_spellings_are_no_identities() {
        for uri in [
            "",
            "perigee://",
            "perigee:///master",
            "perigee://k3x9",
            "perigee://k3x9/",
            "perigee://k3x9/master/",
            "perigee://k3x9/master?x",
            "perigee://k3x9/master#x",
            "perigee://K3X9/master",
            "PERIGEE://k3x9/master",
            "spiffe://k3x9/master",
            " perigee://k3x9/master",
            "perigee://k3x9/Master",
            "perigee://user@k3x9/master",
            "perigee://k3x9:7443/master",
            "perigee://k3x9/region/eu/slot/01",
            "perigee://k3x9/region/eu/slot/0",
            "perigee://k3x9/region/eu/slot/+1",
            "perigee://k3x9/region/eu/slot/-1",
            "perigee://k3x9/region/eu/slot/",
            "perigee://k3x9/region/eu/slot/4294967296",
            "perigee://k3x9/region/eu/slot/١",
            "perigee://k3x9/region/eu/slot/1/",
            "perigee://k3x9/region/eu/slot/1/slot/2",
            "perigee://k3x9/region//slot/1",
            "perigee://k3x9/region/e%75/slot/1",
            "perigee://k3x9/region/e_u/slot/1",
            "perigee://k3x9/region/éu/slot/1",
            "perigee://k3x9/region/../slot/1",
            "perigee://k3x9/zone/eu/slot/1",
        ] {
            assert_eq!(uri.parse::<Identity>(), Err(NoIdentity), "{uri}");
        }
    }

    proptest! {
        #[test]
        fn whatever_parses_is_written_the_same(uri in "perigee://[a-z0-9%A-Z-]{0,4}/(master|region/[a-z0-9./-]{0,6}/slot/[0-9+]{0,4})") {
            if let Ok(identity) = uri.parse::<Identity>() {
                prop_assert_eq!(identity.to_string(), uri);
            }
        }

        #[test]
        fn arbitrary_bytes_are_refused_as_certificates(der in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(Leaf::of_slot(&der), Err(Refusal::BadCertificate));
            prop_assert_eq!(Leaf::of_master(&der), Err(Refusal::BadCertificate));
        }
    }

    #[test]
    fn no_chain_is_no_certificate() {
        let ours: InstallationId = "k3x9".parse().unwrap();
        assert_eq!(SlotSession::from_verified::<Vec<u8>>(&[], &ours), Err(Refusal::NoCertificate));
        assert_eq!(MasterSession::from_verified::<Vec<u8>>(&[], &ours), Err(Refusal::NoCertificate));
    }

    #[test]
    fn a_key_others_can_read_is_exposed() {
        for (mode, exposed) in [
            (0o600, false),
            (0o400, false),
            (0o440, false),
            (0o640, false),
            (0o644, true),
            (0o660, true),
            (0o604, true),
        ] {
            assert_eq!(key_is_exposed(0o100_000 | mode), exposed, "{mode:o}");
        }
    }
}
