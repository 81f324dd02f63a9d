//! Options as a query of the NRPE client: whom to ask, how to speak to it, what to send. No I/O.
//!
//! The surprise: `-A` without more believes any certificate of the authority, whatever name it bears, as check_nrpe does; but
//! unlike check_nrpe it never takes a daemon that shows no certificate at all.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Family, Options};
use crate::probe::dial::{self, Route};
use crate::probe::nrpe::packet::Version;
use crate::probe::nrpe::policy::{Endpoint, Identity, NameRule, Peer, Security, TlsPolicy};
use crate::probe::nrpe::{Query, VERSION_COMMAND};

/// The port of NRPE daemons.
pub const PORT: u16 = 5666;
/// Seconds for everything, if nobody says otherwise.
const SECONDS: u32 = 10;
/// The value of `--verify-name` that stands for the host as it is asked.
const AS_ASKED: &str = "-";

impl Options {
    /// The daemon's port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(PORT)
    }

    /// The time for name service, connection, TLS, every further attempt and the answer together.
    #[must_use]
    pub fn limit(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(SECONDS).into())
    }

    /// The text of the request: `command!argument!argument`.
    #[must_use]
    pub fn request(&self) -> Vec<u8> {
        let mut text = self.command.clone().unwrap_or_else(|| VERSION_COMMAND.as_bytes().to_vec());
        for argument in &self.arguments {
            text.push(b'!');
            text.extend_from_slice(argument);
        }
        text
    }

    /// How the daemon is spoken to.
    #[must_use]
    pub fn security(&self) -> Security {
        if self.plain {
            return Security::Plain;
        }
        let name = match self.name.as_deref() {
            None => NameRule::Any,
            Some(AS_ASKED) => NameRule::Address,
            Some(name) => NameRule::Exactly(name.to_owned()),
        };
        let peer = if self.ca.is_none() && self.name.is_none() && self.pins.is_empty() {
            Peer::Unverified
        } else {
            Peer::Verified { ca: self.ca.clone(), name, pins: self.pins.clone() }
        };
        let identity = self.certificate.clone().zip(self.key.clone());
        Security::Tls(Arc::new(TlsPolicy {
            peer,
            identity: identity.map(|(certificate, key)| Identity { certificate, key }),
            ciphers: self.ciphers.clone(),
            oldest: self.protocol.map(|(protocol, _)| protocol),
            newest: self.protocol.filter(|(_, newer)| !newer).map(|(protocol, _)| protocol),
            adh: self.adh.unwrap_or_default(),
        }))
    }

    /// The whole query; `source` is the address that `-b` means.
    #[must_use]
    pub fn query(&self, source: Option<IpAddr>) -> Query {
        let endpoint =
            Endpoint { address: self.host.clone().unwrap_or_default(), port: self.port(), security: self.security() };
        let family = self.family.map(|family| match family {
            Family::V4 => dial::Family::V4,
            Family::V6 => dial::Family::V6,
        });
        Query {
            versions: match self.version {
                Some(Version::V2) => Some(vec![Version::V2]),
                Some(Version::V3) => Some(vec![Version::V3, Version::V2]),
                _ => None,
            },
            payload: self.payload,
            route: Route { family, source },
            ..Query::new(endpoint, self.request())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::nrpe::policy::{Adh, Protocol};

    fn options(line: &str) -> Options {
        let words: Vec<Vec<u8>> = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        crate::check_nrpe::options::parse("check_nrpe", &words).unwrap().checked().unwrap()
    }

    fn policy(line: &str) -> TlsPolicy {
        options(line).security().tls().unwrap().clone()
    }

    #[test]
    fn a_bare_command_line_asks_for_the_version_of_whoever_answers() {
        let query = options("-H h").query(None);
        assert_eq!((query.endpoint.to_string().as_str(), query.text.as_slice()), ("h:5666", &b"_NRPE_CHECK"[..]));
        assert_eq!((query.versions, query.payload, query.route), (None, None, Route::default()));
        assert_eq!(policy("-H h"), TlsPolicy::default());
        assert_eq!(options("-H h").limit(), Duration::from_secs(10));
    }

    #[test]
    fn arguments_follow_the_command() {
        assert_eq!(options("-H h -c x!y -a 1 -w").request(), b"x!y!1!-w");
        assert_eq!(options("-H h -a 1").request(), b"_NRPE_CHECK!1");
    }

    #[test]
    fn an_authority_verifies_and_names_are_verified_when_asked_for() {
        let peer = |line: &str| policy(line).peer;
        let verified = |name| Peer::Verified { ca: Some("ca".into()), name, pins: Vec::new() };
        assert_eq!(peer("-H h -A ca"), verified(NameRule::Any));
        assert_eq!(peer("-H h -A ca --verify-name -"), verified(NameRule::Address));
        assert_eq!(peer("-H h -A ca --verify-name web"), verified(NameRule::Exactly("web".to_owned())));
        let pin = "0f".repeat(32);
        let pinned = Peer::Verified { ca: None, name: NameRule::Any, pins: vec![[0x0f; 32]] };
        assert_eq!(peer(&format!("-H h --pin {pin}")), pinned);
        assert_eq!(options("-H h -A ca -n").security(), Security::Plain);
    }

    #[test]
    fn versions_protocols_and_files_are_what_was_said() {
        assert_eq!(options("-H h -2 -P 2048").query(None).payload, Some(2048));
        assert_eq!(options("-H h -3").query(None).versions, Some(vec![Version::V3, Version::V2]));
        let only = policy("-H h -S TLSv1.1 -d 0");
        assert_eq!((only.oldest, only.newest, only.adh), (Some(Protocol::Tls1_1), Some(Protocol::Tls1_1), Adh::Never));
        let newer = policy("-H h -S TLSv1.2+ -C c -K k");
        assert_eq!((newer.oldest, newer.newest), (Some(Protocol::Tls1_2), None));
        assert_eq!(newer.identity, Some(Identity { certificate: "c".into(), key: "k".into() }));
        let source = Some("::1".parse().unwrap());
        assert_eq!(options("-H h -6").query(source).route, Route { family: Some(dial::Family::V6), source });
    }
}
