//! What to ask (`Check`) and what came back from a probe (`Outcome`). A failed check is a result, never an error.
//! Knows how exit codes become states; not when a state is hard (`state`), nor how a result travels (`result`).

use std::fmt;
use std::time::Duration;

use minicbor::{Decode, Encode};
use serde::Serialize;

use crate::perfdata::Metric;
use crate::time::Timestamp;

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
    /// Whether a TCP port accepts a connection.
    #[n(1)]
    Tcp(#[n(0)] TcpCheck),
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
}

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
}

/// Whether a TCP port accepts a connection.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct TcpCheck {
    /// Host name or address.
    #[n(0)]
    pub address: String,
    /// TCP port.
    #[n(1)]
    pub port: u16,
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
}
