//! What the files say, as written: typed, each value with its place, nothing resolved and no default filled in.

use std::collections::BTreeMap;
use std::time::Duration;

use shared::check::{NrpeTls, Pin, State};

use super::diagnostic::{At, Place};

/// Objects of a section in the order written, by name. A name may still stand there twice.
pub type Named<T> = Vec<(At<String>, T)>;

/// All objects of all files, as written.
#[derive(Debug, Default)]
pub struct Raw {
    /// `regions`
    pub regions: Named<RawRegion>,
    /// `templates`
    pub templates: Named<Settings>,
    /// `hosts`; the names may be ranges.
    pub hosts: Named<Settings>,
    /// `services`; the names may hold `{{ … }}`.
    pub services: Named<RawService>,
    /// `commands`
    pub commands: Named<RawProbe>,
    /// `writers`
    pub graphite: Vec<(At<String>, RawGraphite)>,
    /// Files of which a part could not be read, and the lines where that began: a name that is defined in one of them may be
    /// missing.
    pub broken: Vec<(usize, u32)>,
}

/// `regions.NAME`
#[derive(Debug, Default)]
pub struct RawRegion {
    /// Slots expected.
    pub slots: Option<At<u64>>,
    /// Ids of join secrets.
    pub join: Vec<At<String>>,
    /// Silence before hosts move.
    pub failover_after: Option<At<Duration>>,
}

/// What hosts, services and templates may set. `None` and empty: not said here.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Templates, the later overriding the earlier.
    pub uses: Vec<At<String>>,
    /// Region of a host.
    pub region: Option<At<String>>,
    /// Address of a host.
    pub address: Option<At<String>>,
    /// How to speak to its NRPE daemon.
    pub nrpe: RawEndpoint,
    /// Groups of a host.
    pub groups: Vec<At<String>>,
    /// Free-form data of a host.
    pub vars: BTreeMap<String, serde_json::Value>,
    /// What to check.
    pub check: Option<At<RawCheck>>,
    /// A check was written, but it was a mistake, which has been named.
    pub check_is_wrong: bool,
    /// Interval while good or hard.
    pub check_interval: Option<At<Duration>>,
    /// Interval while soft.
    pub retry_interval: Option<At<Duration>>,
    /// Problems in a row that make a state hard.
    pub max_check_attempts: Option<At<u64>>,
    /// Deadline of one execution.
    pub timeout: Option<At<Duration>>,
    /// State when the daemon could not be asked.
    pub on_transport_error: Option<At<State>>,
}

/// `nrpe: { … }` of a host.
#[derive(Debug, Clone, Default)]
pub struct RawEndpoint {
    /// Transport.
    pub tls: Option<At<NrpeTls>>,
    /// TCP port.
    pub port: Option<At<u64>>,
    /// Only packet version to use.
    pub version: Option<At<u64>>,
    /// File of the certificates that are trusted.
    pub ca: Option<At<String>>,
    /// File of the client certificate.
    pub certificate: Option<At<String>>,
    /// File of its key.
    pub key: Option<At<String>>,
    /// The name that the daemon's certificate must bear, or `any`.
    pub name: Option<At<String>>,
    /// Keys one of which the daemon must have.
    pub pins: Option<At<Vec<Pin>>>,
    /// Cipher list.
    pub ciphers: Option<At<String>>,
    /// Whether the host has the service `nrpe` without being told to.
    pub service: Option<At<bool>>,
}

impl RawEndpoint {
    /// What means something only where the daemon proves itself with a certificate: key of the files, and where it stands.
    pub fn trust(&self) -> Vec<(&'static str, Place)> {
        fn at<T>(key: &'static str, value: &Option<At<T>>) -> Option<(&'static str, Place)> {
            value.as_ref().map(|value| (key, value.place))
        }
        let texts = [
            at("ca", &self.ca),
            at("certificate", &self.certificate),
            at("key", &self.key),
            at("name", &self.name),
            at("pins", &self.pins),
            at("ciphers", &self.ciphers),
        ];
        texts.into_iter().flatten().collect()
    }

    /// Whether anything stands there.
    pub fn says_something(&self) -> bool {
        let numbers = self.port.is_some() || self.version.is_some();
        self.tls.is_some() || numbers || self.service.is_some() || !self.trust().is_empty()
    }
}

/// `services.NAME`
#[derive(Debug, Default)]
pub struct RawService {
    /// Name patterns of hosts; `None`: all, if `where` says which.
    pub hosts: Option<Vec<At<String>>>,
    /// Expression over a host.
    pub condition: Option<At<String>>,
    /// Variables and the lists they go through.
    pub each: Vec<(At<String>, At<String>)>,
    /// What says for which hosts it is was written, but was a mistake, which has been named.
    pub hosts_are_wrong: bool,
    /// The rest.
    pub settings: Settings,
}

/// What a `check` says.
#[derive(Debug, Clone)]
pub enum RawCheck {
    /// A probe of this program.
    Probe(RawProbe),
    /// A command of the `commands` section and its arguments.
    Command {
        /// Name of the command.
        name: At<String>,
        /// Values for `{{ args.… }}` in it.
        args: Vec<(At<String>, At<serde_json::Value>)>,
    },
}

/// What a satellite can do.
#[derive(Debug, Clone)]
pub enum RawProbe {
    /// Ask an NRPE daemon.
    Nrpe {
        /// The daemon's name for the command.
        command: At<String>,
        /// Its arguments.
        args: Vec<At<String>>,
    },
    /// Run a plugin.
    Plugin {
        /// Program and arguments.
        argv: Vec<At<String>>,
        /// Variables of its environment.
        environment: Vec<(At<String>, At<String>)>,
    },
    /// Send ICMP echo requests.
    Icmp(RawIcmp),
    /// Speak to a server: tcp, http, certificate, dns, ssh.
    Network(RawNetwork),
}

/// Which network probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkKind {
    /// A TCP port.
    Tcp,
    /// A page.
    Http,
    /// A TLS certificate.
    Certificate,
    /// A DNS name.
    Dns,
    /// An SSH server.
    Ssh,
}

impl NetworkKind {
    /// The word of the files.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Certificate => "certificate",
            Self::Dns => "dns",
            Self::Ssh => "ssh",
        }
    }
}

/// A network probe's keys as written; all texts, because each may hold `{{ … }}`.
#[derive(Debug, Clone)]
pub struct RawNetwork {
    /// Which.
    pub kind: NetworkKind,
    /// Where its name stands.
    pub place: Place,
    /// Its values in the order written; a key with a list stands here several times.
    pub fields: Vec<RawField>,
}

/// One value of a network probe.
#[derive(Debug, Clone)]
pub struct RawField {
    /// Its key.
    pub key: &'static str,
    /// A name below the key: a header's, or which days of a certificate.
    pub name: Option<String>,
    /// The text.
    pub value: At<String>,
}

/// `icmp: { … }`
#[derive(Debug, Clone, Default)]
pub struct RawIcmp {
    /// Requests of one check.
    pub packets: Option<At<u64>>,
    /// From here WARNING.
    pub warning: RawIcmpLevel,
    /// From here CRITICAL.
    pub critical: RawIcmpLevel,
}

/// `icmp.warning` and `icmp.critical`
#[derive(Debug, Clone, Default)]
pub struct RawIcmpLevel {
    /// Mean round trip.
    pub rta: Option<At<Duration>>,
    /// Lost requests in percent.
    pub loss: Option<At<u64>>,
}

/// `writers.graphite`
#[derive(Debug, Default)]
pub struct RawGraphite {
    /// `host:port`
    pub address: Option<At<String>>,
    /// First part of the names.
    pub prefix: Option<At<String>>,
    /// Send warn, crit, min, max.
    pub thresholds: Option<At<bool>>,
    /// Send state and times.
    pub metadata: Option<At<bool>>,
}
