//! What a network probe found: how it ended, its state, its text with performance data. The words and units are those of the
//! Monitoring Plugins, so that dashboards and people know them. Knows no socket and no clock.
//!
//! The surprise: whatever a peer sent goes through [`shown`] before it is part of a text: a `|` in it would begin performance
//! data, and a terminal would obey its control characters.

use std::time::Duration;

use shared::check::network::Limits;
use shared::check::{Exit, State};
use shared::range::Range;
use shared::text::is_obeyed;

use super::dial::{Cause, NotReached};

/// Longest piece of what a peer said that is shown in a first line, in characters; the rest is cut off and an ellipsis put there.
pub const SHOWN_CHARS: usize = 256;

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// How it ended.
    pub exit: Exit,
    /// The observation as a service state.
    pub state: State,
    /// Text with performance data.
    pub text: String,
    /// Whether the peer proved who it is; `None` where the question has no meaning.
    pub authenticated: Option<bool>,
}

impl Found {
    /// The peer could be asked, and this is what its answer means.
    #[must_use]
    pub fn ran(state: State, text: String) -> Self {
        Self { exit: Exit::Ran(state.number().into()), state, text, authenticated: None }
    }

    /// The peer could not be asked: the stable name of the class, and why.
    #[must_use]
    pub fn failed(class: &str, state: State, text: String) -> Self {
        Self { exit: Exit::Error(class.to_owned()), state, text, authenticated: None }
    }

    /// It did not end in time.
    #[must_use]
    pub fn late(text: String) -> Self {
        Self { exit: Exit::TimedOut, state: State::Critical, text, authenticated: None }
    }

    /// There was no connection to `address` (CRITICAL, as all Monitoring Plugins have it); `kind` begins the text.
    #[must_use]
    pub fn unreached(kind: &str, address: &str, port: u16, missed: &NotReached, after: Duration) -> Self {
        let seconds = after.as_secs_f64();
        let tried = missed.peer.map(|peer| peer.ip().to_string()).filter(|ip| ip != address);
        let tried = tried.map_or_else(String::new, |ip| format!(" ({ip})"));
        let text = |why: &str| format!("{kind} CRITICAL - {address}{tried} port {port}: {why}");
        let failed = |class: &str, why: &str| Self::failed(class, State::Critical, text(why));
        match &missed.cause {
            Cause::Dns(reason) => failed("dns", &format!("the name cannot be resolved: {reason}")),
            Cause::DnsTimeout => Self::late(text(&format!("no answer from the name service within {seconds:.3} s"))),
            Cause::Refused => failed("connect-refused", "connection refused"),
            Cause::Unreachable(reason) => failed("connect-unreachable", reason),
            Cause::Failed(reason) => failed("connect-failed", reason),
            Cause::Timeout => Self::late(text(&format!("no connection within {seconds:.3} s"))),
        }
    }

    /// The same with what is known of the peer.
    #[must_use]
    pub fn proven(mut self, authenticated: Option<bool>) -> Self {
        self.authenticated = authenticated;
        self
    }
}

/// The worse of two service states of a plugin, as check_tcp has it: CRITICAL before UNKNOWN before WARNING before OK. (Built-in
/// checks of the agent have the other order of the Monitoring Plugins, in which UNKNOWN is less than WARNING.)
#[must_use]
pub fn worse(one: State, other: State) -> State {
    let rank = |state: State| match state {
        State::Critical | State::Down => 3,
        State::Unknown => 2,
        State::Warning => 1,
        State::Ok | State::Up | State::Pending => 0,
    };
    if rank(other) > rank(one) { other } else { one }
}

/// `time=0.012000s;0.500000;1.000000;0.000000;10.000000`: response time, thresholds, least and most, as the Monitoring Plugins
/// write it.
#[must_use]
pub fn time_item(took: Duration, limits: &Limits, most: Duration) -> String {
    let (warning, critical) = (bound(limits.warning), bound(limits.critical));
    format!("time={:.6}s;{warning};{critical};0.000000;{:.6}", took.as_secs_f64(), most.as_secs_f64())
}

fn bound(range: Option<Range>) -> String {
    match range {
        None => String::new(),
        Some(range) if range.start() == 0.0 && range.end().is_finite() && !range.inside() => {
            format!("{:.6}", range.end())
        }
        Some(range) => range.to_string(),
    }
}

/// What a peer said, for one line of text: white space is one blank, what would be obeyed and `|` are left out, and it has an end.
#[must_use]
pub fn shown(text: &str) -> String {
    let mut line = String::new();
    let mut chars = 0;
    for word in text.split(|char: char| char.is_whitespace() || char == '\0') {
        let word: String = word.chars().filter(|&char| !is_obeyed(char) && char != '|').collect();
        if word.is_empty() {
            continue;
        }
        let gap = if line.is_empty() { "" } else { " " };
        for char in gap.chars().chain(word.chars()) {
            if chars == SHOWN_CHARS {
                line.push('…');
                return line;
            }
            line.push(char);
            chars += 1;
        }
    }
    line
}

/// [`shown`] of bytes; what is no UTF-8 is replaced.
#[must_use]
pub fn shown_bytes(bytes: &[u8]) -> String {
    // Four bytes a character at most; what lies behind them is not looked at.
    let seen = bytes.get(..bytes.len().min(SHOWN_CHARS * 8)).unwrap_or(bytes);
    shown(&String::from_utf8_lossy(seen))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_said_is_one_harmless_line() {
        assert_eq!(shown("a\r\n  b\t\u{1b}[31mc\0d | e|f\n"), "a b [31mc d ef");
        assert_eq!(shown("OK \u{202e}LACITIRC\u{202c}\u{2028}x\u{200f}"), "OK LACITIRC x");
        assert_eq!(shown(""), "");
        assert_eq!(shown_bytes(b"caf\xe9"), "caf\u{fffd}");
        let long = shown(&"x".repeat(10_000));
        assert_eq!((long.chars().count(), long.ends_with('…')), (SHOWN_CHARS + 1, true));
        assert_eq!(shown(&"y".repeat(SHOWN_CHARS)).chars().count(), SHOWN_CHARS);
    }

    #[test]
    fn a_response_time_is_written_as_the_plugins_do() {
        let limits = Limits { warning: "0.5".parse().ok(), critical: "@1:2".parse().ok() };
        let (took, most) = (Duration::from_millis(12), Duration::from_secs(10));
        assert_eq!(time_item(took, &limits, most), "time=0.012000s;0.500000;@1:2;0.000000;10.000000");
        assert_eq!(time_item(took, &Limits::default(), most), "time=0.012000s;;;0.000000;10.000000");
    }

    #[test]
    fn a_port_that_cannot_be_reached_says_which_and_why() {
        let missed = NotReached { cause: Cause::Refused, peer: Some("127.0.0.1:22".parse().unwrap()), unbound: false };
        let found = Found::unreached("SSH", "localhost", 22, &missed, Duration::ZERO);
        assert_eq!(found.text, "SSH CRITICAL - localhost (127.0.0.1) port 22: connection refused");
        assert_eq!(found.exit, Exit::Error("connect-refused".into()));
        let missed = NotReached { cause: Cause::Timeout, peer: None, unbound: false };
        let found = Found::unreached("HTTP", "a", 80, &missed, Duration::from_secs(3));
        assert_eq!(
            (found.exit, found.text.as_str()),
            (Exit::TimedOut, "HTTP CRITICAL - a port 80: no connection within 3.000 s")
        );
    }

    #[test]
    fn the_worse_state_counts() {
        assert_eq!(worse(State::Warning, State::Ok), State::Warning);
        assert_eq!(worse(State::Warning, State::Critical), State::Critical);
        assert_eq!(worse(State::Unknown, State::Critical), State::Critical);
    }
}
