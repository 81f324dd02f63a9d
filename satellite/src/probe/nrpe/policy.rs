//! How an NRPE endpoint is spoken to: plain, TLS with whoever answers, or TLS with a peer that must prove who it is; and what is
//! offered to it in which order. Decides the cipher lists. Pure: knows no file's content, no OpenSSL and no memory of endpoints.
//!
//! The surprise: OpenSSL accepts an anonymous server although verification was asked for, because there is no certificate that
//! could be wrong. So nothing that is to be verified is ever offered an anonymous suite, whatever list was written down.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

/// Elliptic curves, anonymous or with a certificate: no finite-field Diffie-Hellman, which costs ten times as much. OpenSSL counts
/// suites without encryption among the curves, not among everything; nobody who asks for TLS means those.
const FAST: &str = "ECDHE:AECDH:!eNULL:@SECLEVEL=0";
/// Everything, for daemons that know only ADH.
const ALL: &str = "ALL:@SECLEVEL=0";
/// Finite-field anonymous Diffie-Hellman and nothing else, as check_nrpe's `-d 2` has it.
const ADH: &str = "ADH@SECLEVEL=0";
/// What a peer that is verified is offered if nobody says otherwise.
const VERIFIED: &str = "DEFAULT";
/// What no list can bring back where the peer is verified: suites without a certificate, and without encryption.
const NEVER_VERIFIED: &str = ":!aNULL:!eNULL";
/// OpenSSL's security level where the peer is verified: keys of 112 bits, as Debian's default has it.
const VERIFIED_LEVEL: u32 = 2;
/// The least a written list may lower it to (`@SECLEVEL=1`): 80 bits, RSA of 1024.
const LEAST_VERIFIED_LEVEL: u32 = 1;

/// What names an endpoint. Two ways to speak to one daemon are two endpoints: they must not share a ticket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Host name or address as configured.
    pub address: String,
    /// TCP port.
    pub port: u16,
    /// How it is spoken to.
    pub security: Security,
}

/// `host:port`, with brackets around an IPv6 address.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.address.contains(':') {
            write!(f, "[{}]:{}", self.address, self.port)
        } else {
            write!(f, "{}:{}", self.address, self.port)
        }
    }
}

/// The transport of an endpoint. Never weakened: what fails here fails.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Security {
    /// Bare packets on TCP.
    Plain,
    /// TLS.
    Tls(Arc<TlsPolicy>),
}

impl Security {
    /// TLS as check_nrpe has it without options: anonymous or with a certificate, whose nobody asks.
    #[must_use]
    pub fn anonymous() -> Self {
        Self::Tls(Arc::new(TlsPolicy::default()))
    }

    /// The TLS of it, if there is any.
    #[must_use]
    pub fn tls(&self) -> Option<&TlsPolicy> {
        match self {
            Self::Plain => None,
            Self::Tls(policy) => Some(policy),
        }
    }

    /// Whether a connection is made only with a peer that has proven who it is.
    #[must_use]
    pub fn verifies(&self) -> bool {
        self.tls().is_some_and(|policy| matches!(policy.peer, Peer::Verified { .. }))
    }
}

/// What is asked of TLS. The default asks for encryption only.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct TlsPolicy {
    /// Whom we speak to.
    pub peer: Peer,
    /// Who we are, for daemons with `ssl_client_certs`; `None`: nobody.
    pub identity: Option<Identity>,
    /// OpenSSL's cipher list for TLS up to 1.2 instead of ours; anonymous suites are taken out where the peer is verified.
    pub ciphers: Option<String>,
    /// Oldest protocol; `None`: TLS 1.0, or 1.2 where the peer is verified.
    pub oldest: Option<Protocol>,
    /// Newest protocol; `None`: whatever there is.
    pub newest: Option<Protocol>,
    /// Whether finite-field anonymous Diffie-Hellman is offered; means nothing where the peer is verified.
    pub adh: Adh,
}

/// Whom a TLS connection is made with.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Peer {
    /// Whoever answers, with a certificate or without.
    #[default]
    Unverified,
    /// A peer that proves who it is. With pins alone the key is the proof: neither chain, name nor dates are looked at. With
    /// neither file nor pins the chain must end at an authority that the system trusts.
    Verified {
        /// File of the certificates (PEM) that are trusted, and nothing else.
        ca: Option<PathBuf>,
        /// The name that the certificate must bear.
        name: NameRule,
        /// SHA-256 of the SubjectPublicKeyInfo (RFC 7469) of certificates, one of which the peer must have.
        pins: Vec<[u8; 32]>,
    },
}

/// Which name a peer's certificate must bear.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum NameRule {
    /// The address it is asked under: a DNS name, or an IP address among the certificate's addresses.
    #[default]
    Address,
    /// This name or IP address.
    Exactly(String),
    /// Any: whoever has a certificate of the authority is believed, as check_nrpe's `-A` does.
    Any,
}

/// A client certificate on disk.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Certificate and chain, PEM, the own one first.
    pub certificate: PathBuf,
    /// Its private key, PEM, without a passphrase.
    pub key: PathBuf,
}

/// Whether finite-field anonymous Diffie-Hellman is offered: check_nrpe's `-d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Adh {
    /// Not (`-d 0`); anonymous elliptic curves are offered all the same, as check_nrpe does.
    Never,
    /// Among others (`-d 1`).
    #[default]
    Allowed,
    /// Nothing else (`-d 2`).
    Only,
}

/// A version of SSL or TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// SSL 3; libraries of today do not have it.
    Ssl3,
    /// TLS 1.0.
    Tls1,
    /// TLS 1.1.
    Tls1_1,
    /// TLS 1.2.
    Tls1_2,
    /// TLS 1.3.
    Tls1_3,
}

/// A word that names no protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no protocol: SSLv3, TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3")]
pub struct UnknownProtocol(pub String);

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    /// The words of check_nrpe and nrpe.cfg.
    fn from_str(word: &str) -> Result<Self, UnknownProtocol> {
        match word {
            "SSLv3" => Ok(Self::Ssl3),
            "TLSv1" => Ok(Self::Tls1),
            "TLSv1.1" => Ok(Self::Tls1_1),
            "TLSv1.2" => Ok(Self::Tls1_2),
            "TLSv1.3" => Ok(Self::Tls1_3),
            _ => Err(UnknownProtocol(word.to_owned())),
        }
    }
}

/// Which cipher list is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suites {
    /// Elliptic curves only: a tenth of the cost of anonymous DH, and all that most daemons need.
    Fast,
    /// Everything that the policy allows: for daemons that answered the first with an alert.
    All,
}

/// What one handshake offers. Two policies with the same offer and files may share everything but tickets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Offer {
    /// OpenSSL's cipher list for TLS up to 1.2.
    pub ciphers: String,
    /// OpenSSL's security level; `None`: what the library is set to, unless the list itself says so.
    pub level: Option<u32>,
    /// Oldest protocol.
    pub oldest: Protocol,
    /// Newest protocol; `None`: whatever there is.
    pub newest: Option<Protocol>,
    /// Whether the peer must have a certificate.
    pub verified: bool,
}

impl TlsPolicy {
    /// The list to begin with.
    #[must_use]
    pub fn first(&self) -> Suites {
        let fast = self.peer == Peer::Unverified
            && self.ciphers.is_none()
            && self.adh != Adh::Only
            && self.oldest.is_none_or(|oldest| oldest <= Protocol::Tls1_2)
            && self.newest.is_none_or(|newest| newest >= Protocol::Tls1);
        if fast { Suites::Fast } else { Suites::All }
    }

    /// What a handshake with these suites offers.
    #[must_use]
    pub fn offer(&self, suites: Suites) -> Offer {
        if let Peer::Verified { .. } = self.peer {
            let list = self.ciphers.as_deref().unwrap_or(VERIFIED);
            return Offer {
                ciphers: format!("{list}{NEVER_VERIFIED}"),
                level: verified_level(list),
                oldest: self.oldest.unwrap_or(Protocol::Tls1_2),
                newest: self.newest,
                verified: true,
            };
        }
        let (list, level) = match (&self.ciphers, suites) {
            _ if self.adh == Adh::Only => (ADH, Some(0)),
            (Some(list), _) => (list.as_str(), None),
            (None, Suites::Fast) => (FAST, Some(0)),
            (None, Suites::All) => (ALL, Some(0)),
        };
        // TLS 1.3 costs more than 1.2 with a ticket, and a daemon's tickets come as packets of their own.
        let cap = (suites == Suites::Fast).then_some(Protocol::Tls1_2);
        Offer {
            ciphers: if self.adh == Adh::Never { format!("{list}:!ADH") } else { list.to_owned() },
            level,
            oldest: self.oldest.unwrap_or(Protocol::Tls1),
            newest: match (self.newest, cap) {
                (Some(newest), Some(cap)) => Some(newest.min(cap)),
                (newest, cap) => newest.or(cap),
            },
            verified: false,
        }
    }
}

/// The security level for a list of a verified peer; `None` where the list itself sets a higher one.
fn verified_level(list: &str) -> Option<u32> {
    let written = list.rsplit_once("@SECLEVEL=").and_then(|(_, rest)| rest.chars().next()?.to_digit(10));
    match written {
        None => Some(VERIFIED_LEVEL),
        Some(level) if level > VERIFIED_LEVEL => None,
        Some(level) => Some(level.max(LEAST_VERIFIED_LEVEL)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verified() -> TlsPolicy {
        let peer = Peer::Verified { ca: None, name: NameRule::Address, pins: Vec::new() };
        TlsPolicy { peer, ..TlsPolicy::default() }
    }

    #[test]
    fn nothing_that_is_verified_is_offered_an_anonymous_suite() {
        for list in [None, Some("ALL"), Some("ADH:@SECLEVEL=0"), Some("AECDH")] {
            for adh in [Adh::Never, Adh::Allowed, Adh::Only] {
                let policy = TlsPolicy { ciphers: list.map(str::to_owned), adh, ..verified() };
                for suites in [Suites::Fast, Suites::All] {
                    let offer = policy.offer(suites);
                    assert!(offer.ciphers.ends_with(":!aNULL:!eNULL") && offer.verified, "{offer:?}");
                    assert!(offer.level >= Some(1) && offer.oldest == Protocol::Tls1_2, "{offer:?}");
                }
                assert_eq!(policy.first(), Suites::All, "there is no second, weaker list");
            }
        }
    }

    #[test]
    fn a_written_level_may_rise_and_falls_to_one_at_most() {
        let level = |list: &str| TlsPolicy { ciphers: Some(list.to_owned()), ..verified() }.offer(Suites::All).level;
        assert_eq!(level("HIGH"), Some(2));
        assert_eq!(level("HIGH:@SECLEVEL=0"), Some(1));
        assert_eq!(level("HIGH:@SECLEVEL=1"), Some(1));
        assert_eq!(level("HIGH:@SECLEVEL=3"), None, "the list says it itself");
    }

    #[test]
    fn anonymous_peers_are_offered_curves_first_and_then_everything() {
        let policy = TlsPolicy::default();
        assert_eq!(policy.first(), Suites::Fast);
        let (fast, all) = (policy.offer(Suites::Fast), policy.offer(Suites::All));
        assert_eq!((fast.ciphers.as_str(), fast.newest), ("ECDHE:AECDH:!eNULL:@SECLEVEL=0", Some(Protocol::Tls1_2)));
        assert_eq!((all.ciphers.as_str(), all.newest, all.oldest), ("ALL:@SECLEVEL=0", None, Protocol::Tls1));
    }

    #[test]
    fn options_of_check_nrpe_become_offers() {
        let with = |policy: TlsPolicy| policy.offer(policy.first());
        let never = with(TlsPolicy { adh: Adh::Never, ..TlsPolicy::default() });
        assert_eq!(never.ciphers, "ECDHE:AECDH:!eNULL:@SECLEVEL=0:!ADH");
        let only = with(TlsPolicy { adh: Adh::Only, ..TlsPolicy::default() });
        assert_eq!((only.ciphers.as_str(), only.newest), ("ADH@SECLEVEL=0", None));
        let list = with(TlsPolicy { ciphers: Some("AES256".to_owned()), ..TlsPolicy::default() });
        assert_eq!((list.ciphers.as_str(), list.level), ("AES256", None));
        let range = |oldest, newest| {
            let offer = with(TlsPolicy { oldest, newest, ..TlsPolicy::default() });
            (offer.oldest, offer.newest)
        };
        use Protocol::{Tls1, Tls1_1, Tls1_2, Tls1_3};
        assert_eq!(range(Some(Tls1_1), Some(Tls1_1)), (Tls1_1, Some(Tls1_1)));
        assert_eq!(range(Some(Tls1_2), None), (Tls1_2, Some(Tls1_2)), "first of two");
        assert_eq!(range(Some(Tls1_3), None), (Tls1_3, None));
        assert_eq!(range(None, None), (Tls1, Some(Tls1_2)));
    }

    #[test]
    fn protocols_have_the_words_of_check_nrpe() {
        assert_eq!("TLSv1.1".parse(), Ok(Protocol::Tls1_1));
        assert!("TLSv1.1+".parse::<Protocol>().unwrap_err().to_string().contains("TLSv1.3"));
    }

    #[test]
    fn endpoints_that_differ_in_trust_are_two() {
        let endpoint = |security| Endpoint { address: "::1".to_owned(), port: 5666, security };
        let (anonymous, strict) = (endpoint(Security::anonymous()), endpoint(Security::Tls(Arc::new(verified()))));
        assert_ne!(anonymous, strict);
        assert_eq!(anonymous, endpoint(Security::anonymous()));
        assert_eq!(anonymous.to_string(), "[::1]:5666");
        assert!(strict.security.verifies() && !anonymous.security.verifies() && !Security::Plain.verifies());
    }
}
