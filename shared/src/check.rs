//! What to ask (`Check`) and what came back from a probe (`Outcome`). A failed check is a result, never an error.
//! Knows how exit codes become states; not when a state is hard (`state`), nor how a result travels (`result`).

pub mod network;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use minicbor::{Decode, Encode};
use serde::Serialize;

use crate::perfdata::Metric;
use crate::time::Timestamp;
pub use network::{CertificateCheck, DnsCheck, HttpCheck, SshCheck, TcpCheck};

/// The state of a host or service. Text forms are the field's, in capitals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize)]
#[cbor(index_only)]
#[serde(rename_all = "UPPERCASE")]
pub enum State {
    /// Never checked.
    #[n(0)]
    Pending,
    /// Service: exit 0.
    #[n(1)]
    Ok,
    /// Service: exit 1.
    #[n(2)]
    Warning,
    /// Service: exit 2.
    #[n(3)]
    Critical,
    /// Service: exit 3, anything out of range, and what could not be asked.
    #[n(4)]
    Unknown,
    /// Host: exit 0 or 1.
    #[n(5)]
    Up,
    /// Host: anything else.
    #[n(6)]
    Down,
}

impl State {
    /// A plugin's exit code read as a service state; out of range is UNKNOWN (Icinga's rule).
    #[must_use]
    pub const fn of_exit(status: i32) -> Self {
        match status {
            0 => Self::Ok,
            1 => Self::Warning,
            2 => Self::Critical,
            _ => Self::Unknown,
        }
    }

    /// The same observation read as a host's: OK and WARNING are UP, the rest is DOWN (Icinga's rule).
    #[must_use]
    pub const fn as_host(self) -> Self {
        match self {
            Self::Ok | Self::Warning | Self::Up => Self::Up,
            Self::Pending => Self::Pending,
            Self::Critical | Self::Unknown | Self::Down => Self::Down,
        }
    }

    /// Whether somebody may have to act.
    #[must_use]
    pub const fn is_problem(self) -> bool {
        matches!(self, Self::Warning | Self::Critical | Self::Unknown | Self::Down)
    }

    /// The number that Nagios and Icinga give this state: services 0–3, hosts 0–1. PENDING has none of its own and counts as 0, as in Livestatus.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Pending | Self::Ok | Self::Up => 0,
            Self::Warning | Self::Down => 1,
            Self::Critical => 2,
            Self::Unknown => 3,
        }
    }

    /// The field's word, in capitals.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
            Self::Up => "UP",
            Self::Down => "DOWN",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a satellite asks of the monitored world. Variants are added, never renumbered: one that an older satellite does not know
/// reaches it as `None` and is answered with UNKNOWN and a text that says so.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Check {
    /// A command of an NRPE daemon.
    #[n(0)]
    Nrpe(#[n(0)] NrpeCheck),
    /// Whether a TCP port accepts a connection, and says what it should.
    #[n(1)]
    Tcp(#[n(0)] TcpCheck),
    /// A plugin, run by the satellite itself.
    #[n(2)]
    Plugin(#[n(0)] PluginCheck),
    /// Whether and how fast a host answers echo requests.
    #[n(3)]
    Icmp(#[n(0)] IcmpCheck),
    /// A page of a web server.
    #[n(4)]
    Http(#[n(0)] Box<HttpCheck>),
    /// A name of the domain name system.
    #[n(5)]
    Dns(#[n(0)] DnsCheck),
    /// The identification of an SSH server.
    #[n(6)]
    Ssh(#[n(0)] SshCheck),
    /// The certificate of a TLS server.
    #[n(7)]
    Certificate(#[n(0)] CertificateCheck),
}

/// How to speak to an NRPE daemon. Never weakened silently: the mode is the operator's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize)]
#[cbor(index_only)]
#[serde(rename_all = "lowercase")]
pub enum NrpeTls {
    /// Bare packets on TCP.
    #[n(0)]
    Plain,
    /// Anonymous Diffie-Hellman: encrypted, not authenticated. The original's default.
    #[n(1)]
    Anonymous,
    /// A daemon that proves who it is with a certificate; see [`NrpeTrust`].
    #[n(2)]
    Certificate,
}

/// Whom to believe, and who to be, where the transport is [`NrpeTls::Certificate`]. Files are the satellite's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize)]
pub struct NrpeTrust {
    /// File of the certificates (PEM) that are trusted; `None`: the system's, or none if there are pins.
    #[n(0)]
    pub ca: Option<String>,
    /// File of the client certificate with its chain (PEM).
    #[n(1)]
    pub certificate: Option<String>,
    /// File of its private key (PEM).
    #[n(2)]
    pub key: Option<String>,
    /// The name that the daemon's certificate must bear.
    #[n(3)]
    pub name: NrpeName,
    /// The keys one of which the daemon must have; none: any.
    #[n(4)]
    pub pins: Vec<Pin>,
    /// OpenSSL's cipher list for TLS 1.2 instead of the default.
    #[n(5)]
    pub ciphers: Option<String>,
}

/// The name that a daemon's certificate must bear.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NrpeName {
    /// The address it is asked under.
    #[default]
    #[n(0)]
    Address,
    /// This name or IP address.
    #[n(1)]
    Exactly(#[n(0)] String),
    /// Any: whoever has a certificate of the authority is believed.
    #[n(2)]
    Any,
}

/// SHA-256 of a certificate's SubjectPublicKeyInfo (RFC 7469 §2.4). Written as 64 hexadecimal digits, with or without colons.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Pin(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 32]);

/// A text that is no pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a pin is the SHA-256 of a public key, 64 hexadecimal digits")]
pub struct NoPin;

impl std::str::FromStr for Pin {
    type Err = NoPin;

    fn from_str(text: &str) -> Result<Self, NoPin> {
        let digits: Vec<u32> = text.chars().filter(|&char| char != ':').map_while(|char| char.to_digit(16)).collect();
        if digits.len() != 64 || text.chars().filter(|&char| char != ':').count() != 64 {
            return Err(NoPin);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = u8::try_from(pair[0] * 16 + pair[1]).map_err(|_| NoPin)?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Pin {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The command that every NRPE daemon answers itself, with its version.
pub const NRPE_VERSION_COMMAND: &str = "_NRPE_CHECK";

/// A command of an NRPE daemon.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct NrpeCheck {
    /// Host name or address.
    #[n(0)]
    pub address: String,
    /// TCP port, 5666 by custom.
    #[n(1)]
    pub port: u16,
    /// Transport.
    #[n(2)]
    pub tls: NrpeTls,
    /// Name of the command as the daemon's configuration has it.
    #[n(3)]
    pub command: String,
    /// Arguments; joined with `!`, which no argument can contain.
    #[n(4)]
    pub args: Vec<String>,
    /// The only packet version to use (2, 3 or 4); `None`: find out and remember.
    #[n(5)]
    pub version: Option<u8>,
    /// State when the daemon could not be asked.
    #[n(6)]
    pub on_transport_error: State,
    /// Whom to believe, with [`NrpeTls::Certificate`]; `None` there: whom the system trusts, under the address asked.
    #[n(7)]
    pub trust: Option<NrpeTrust>,
}

impl NrpeCheck {
    /// Whether the daemon is asked for itself: what the service `nrpe` of a host does.
    #[must_use]
    pub fn asks_daemon(&self) -> bool {
        self.command.is_empty() || (self.command == NRPE_VERSION_COMMAND && self.args.is_empty())
    }
}

/// A plugin, run by the satellite itself, never through a shell.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct PluginCheck {
    /// Program and arguments, each one word. A program without `/` is looked for in the satellite's plugin directories.
    #[n(0)]
    pub argv: Vec<String>,
    /// Variables of its environment beside the few that every plugin gets.
    #[n(1)]
    pub environment: BTreeMap<String, String>,
}

/// Whether and how fast a host answers ICMP echo requests (v4 or v6, as its address is).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct IcmpCheck {
    /// Host name or address.
    #[n(0)]
    pub address: String,
    /// Requests of one check.
    #[n(1)]
    pub packets: u16,
    /// From here WARNING.
    #[n(2)]
    pub warning: IcmpLevel,
    /// From here CRITICAL.
    #[n(3)]
    pub critical: IcmpLevel,
    /// TCP port to knock at where the satellite may not send ICMP: set in the check that a host has by default, which must not
    /// depend on a setting of the satellite's machine.
    #[n(4)]
    pub otherwise_tcp: Option<u16>,
}

/// Round trip or loss at which an echo is no longer as good: either of them suffices, as in Monitoring Plugins' `check_icmp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct IcmpLevel {
    /// Mean round trip time in microseconds.
    #[n(0)]
    pub rta_us: u64,
    /// Requests without an answer, in percent.
    #[n(1)]
    pub loss_percent: u8,
}

/// How an execution ended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "detail")]
pub enum Exit {
    /// It ran and gave this raw status.
    #[n(0)]
    Ran(#[n(0)] i32),
    /// It did not end in time.
    #[n(1)]
    TimedOut,
    /// A signal ended it.
    #[n(2)]
    Signal(#[n(0)] i32),
    /// It could not be asked; the stable name of the error class, for example `connect-refused`.
    #[n(3)]
    Error(#[n(0)] String),
}

/// What a probe brought home, before it has a place in a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// When execution began, by the prober's wall clock.
    pub started: Timestamp,
    /// How long it took.
    pub duration: Duration,
    /// How it ended.
    pub exit: Exit,
    /// The observation as a service state; a host's is derived by [`State::as_host`].
    pub state: State,
    /// First line of text.
    pub output: String,
    /// Further lines.
    pub long_output: String,
    /// Performance data as the plugin wrote it.
    pub perfdata: String,
    /// The same, parsed once.
    pub metrics: Vec<Metric>,
    /// Whether the peer proved who it is; `None` where the question has no meaning.
    pub authenticated: Option<bool>,
}

impl Outcome {
    /// An outcome that is text alone, without performance data.
    #[must_use]
    pub fn text(started: Timestamp, duration: Duration, exit: Exit, state: State, output: String) -> Self {
        Self {
            started,
            duration,
            exit,
            state,
            output,
            long_output: String::new(),
            perfdata: String::new(),
            metrics: Vec::new(),
            authenticated: None,
        }
    }
    /// Adds a line of ours to the long output.
    pub fn remark(&mut self, line: &str) {
        if !self.long_output.is_empty() {
            self.long_output.push('\n');
        }
        self.long_output.push_str(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What travels and lies on disk is the same for ever, and reads back.
    fn is_written_as(check: &Check, golden: &str) {
        let bytes = minicbor::to_vec(check).unwrap();
        let written: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(written, golden);
        assert_eq!(&minicbor::decode::<Check>(&bytes).unwrap(), check);
    }

    #[test]
    fn kinds_of_checks_keep_their_numbers_and_fields() {
        is_written_as(&Check::Tcp(TcpCheck::port("a", 80)), "8201818261611850");
        let environment = [("B".to_owned(), "c".to_owned())].into();
        is_written_as(
            &Check::Plugin(PluginCheck { argv: vec!["a".into(), String::new()], environment }),
            "8202818282616160a161426163",
        );
        let icmp = IcmpCheck {
            address: "a".into(),
            packets: 5,
            warning: IcmpLevel { rta_us: 1, loss_percent: 2 },
            critical: IcmpLevel { rta_us: 3, loss_percent: 4 },
            otherwise_tcp: Some(5666),
        };
        is_written_as(&Check::Icmp(icmp), "82038185616105820102820304191622");
    }

    #[test]
    fn a_remark_is_a_line_of_its_own() {
        let mut outcome = Outcome::text(Timestamp::from_millis(0), Duration::ZERO, Exit::Ran(0), State::Ok, "a".into());
        outcome.remark("b");
        outcome.remark("c");
        assert_eq!((outcome.output.as_str(), outcome.long_output.as_str()), ("a", "b\nc"));
    }

    #[test]
    fn a_pin_is_64_hexadecimal_digits_and_nothing_else() {
        let text = "00ff".repeat(16);
        let pin: Pin = text.parse().unwrap();
        assert_eq!((pin.to_string(), pin.0[1]), (text.clone(), 0xff));
        let with_colons = "00:FF:".repeat(16);
        assert_eq!(with_colons.trim_end_matches(':').parse(), Ok(pin));
        for wrong in ["", "00ff", &text[1..], &format!("{text}0"), &text.replace('f', "g"), &format!("sha256//{text}")]
        {
            assert_eq!(wrong.parse::<Pin>(), Err(NoPin), "{wrong}");
        }
        let bytes = minicbor::to_vec(pin).unwrap();
        assert_eq!((bytes.len(), minicbor::decode::<Pin>(&bytes).unwrap()), (34, pin));
    }

    #[test]
    fn an_nrpe_check_of_before_certificates_is_understood() {
        #[derive(Encode)]
        struct Before {
            #[n(0)]
            address: &'static str,
            #[n(1)]
            port: u16,
            #[n(2)]
            tls: NrpeTls,
            #[n(3)]
            command: &'static str,
            #[n(4)]
            args: Vec<String>,
            #[n(5)]
            version: Option<u8>,
            #[n(6)]
            on_transport_error: State,
        }
        let before = Before {
            address: "web",
            port: 5666,
            tls: NrpeTls::Anonymous,
            command: "load",
            args: Vec::new(),
            version: None,
            on_transport_error: State::Unknown,
        };
        let now: NrpeCheck = minicbor::decode(&minicbor::to_vec(before).unwrap()).unwrap();
        assert_eq!((now.address.as_str(), now.trust), ("web", None));
    }
}
