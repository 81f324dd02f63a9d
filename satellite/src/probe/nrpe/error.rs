//! Why an NRPE daemon could not be asked: one class per cause, each with a stable name, a sentence for people, and the sentence
//! that check_nrpe would have printed. Decides nothing about states; what to do about it is in `hint`. Pure.
//!
//! The surprise: most of what a daemon has against us or a request reaches us as a connection closed without a word. Three classes
//! share that: we are refused, the request is, or nobody can tell.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::packet::{NotAnAnswer, RequestTooLong};

/// The command that a daemon answers itself, with its version.
pub const VERSION_COMMAND: &str = shared::check::NRPE_VERSION_COMMAND;
/// The alert of TLS 1.3 for a client without a certificate (RFC 8446 §6.2).
pub const CERTIFICATE_REQUIRED: u8 = 116;

/// What was being waited for when the time was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// One of the few connections that a host, or the whole satellite, may have at once.
    Queue,
    /// The address of a name.
    Dns,
    /// The TCP connection.
    Connect,
    /// The TLS handshake.
    Tls,
    /// The kernel taking the request.
    Send,
    /// The daemon's answer; the command may be running still.
    Answer,
    /// The rest of an answer that has begun.
    Rest,
}

impl Phase {
    const fn kind(self) -> &'static str {
        match self {
            Self::Queue => "queue-timeout",
            Self::Dns => "dns-timeout",
            Self::Connect => "connect-timeout",
            Self::Tls => "tls-timeout",
            Self::Send => "send-timeout",
            Self::Answer | Self::Rest => "answer-timeout",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queue => "waited for a free connection",
            Self::Dns => "no answer from the name service",
            Self::Connect => "no TCP connection",
            Self::Tls => "the TLS handshake did not end",
            Self::Send => "the request could not be sent",
            Self::Answer => "no answer from the daemon",
            Self::Rest => "the daemon's answer did not end",
        })
    }
}

/// The cause. Names given by [`Class::kind`] are stable: notifications and dashboards may rely on them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Class {
    /// The name has no address.
    Dns(String),
    /// Nobody listens on the port.
    Refused,
    /// The network knows no way.
    Unreachable(String),
    /// Any other failure of `connect`, ours included (no file descriptors, no free port).
    Connect(String),
    /// The source address that was asked for is not ours to take.
    Bind(String),
    /// The daemon ended the handshake, or later the session, with this TLS alert.
    Alert {
        /// Number of the alert (RFC 5246, 8446).
        number: u8,
        /// Its name.
        name: String,
    },
    /// The daemon's Diffie-Hellman group is one that no TLS library of today accepts (2.x daemons: 512 bits).
    DhTooSmall,
    /// What came back is not TLS.
    NotTls(String),
    /// The daemon wants a client certificate: there was none, or not one that it accepts.
    ClientCertificate {
        /// Number and name of the alert that said so; `None`: the daemon asked for one and then closed, and its alert was lost.
        alert: Option<(u8, String)>,
        /// Whether we had one to show.
        shown: bool,
    },
    /// A file that the endpoint's policy names cannot be used; nothing was sent.
    TlsFiles(String),
    /// The peer's certificate leads to no authority that is trusted here, or is not fit to.
    Untrusted(String),
    /// The dates of the peer's certificate, or of one above it.
    Expired(String),
    /// The peer's certificate is somebody else's: it does not bear this name.
    WrongName(String),
    /// The peer's certificate has a key that is not pinned; this is its SHA-256.
    WrongPin(String),
    /// Closed or reset during the handshake.
    ClosedInHandshake,
    /// Closed or reset before a byte of any answer, by an endpoint that has never answered this process, and without fault of
    /// the request.
    RefusedHere {
        /// Whether that was during the TLS handshake.
        in_handshake: bool,
    },
    /// Closed or reset after the request, by a daemon that at the same time answers another: it dislikes this one.
    RequestRefused,
    /// Any other failure of TLS.
    Tls(String),
    /// Closed or reset after the request, before any byte of an answer.
    ClosedBeforeAnswer,
    /// Broken off in the middle of the answer.
    BrokenOff(String),
    /// Bytes came, but no answer.
    Protocol(NotAnAnswer),
    /// The peer sent more than one check may cost.
    TooMuch(usize),
    /// The request fits no packet; nothing was sent.
    Request(RequestTooLong),
    /// The deadline came first.
    Timeout {
        /// What was being waited for.
        phase: Phase,
        /// The whole time the check had.
        after: Duration,
    },
}

impl Class {
    /// The stable name of the class.
    #[must_use]
    pub fn kind(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Dns(_) => "dns",
            Self::Refused => "connect-refused",
            Self::Unreachable(_) => "connect-unreachable",
            Self::Connect(_) => "connect-failed",
            Self::Bind(_) => "bind-failed",
            Self::Alert { number, .. } => return Cow::Owned(format!("tls-alert-{number}")),
            Self::DhTooSmall => "tls-dh-too-small",
            Self::NotTls(_) => "tls-not-tls",
            Self::ClientCertificate { .. } => "tls-client-certificate",
            Self::TlsFiles(_) => "tls-files",
            Self::Untrusted(_) => "tls-not-trusted",
            Self::Expired(_) => "tls-expired",
            Self::WrongName(_) => "tls-wrong-name",
            Self::WrongPin(_) => "tls-wrong-pin",
            Self::ClosedInHandshake => "tls-closed",
            Self::RefusedHere { .. } => "refused-here",
            Self::RequestRefused => "request-refused",
            Self::Tls(_) => "tls-failed",
            Self::ClosedBeforeAnswer => "eof-before-response",
            Self::BrokenOff(_) => "eof-in-response",
            Self::Protocol(NotAnAnswer::Foreign { .. } | NotAnAnswer::Kind { .. }) => "protocol-foreign",
            Self::Protocol(NotAnAnswer::Length(_) | NotAnAnswer::TooLong) => "protocol-length",
            Self::Protocol(NotAnAnswer::Checksum(_)) => "protocol-checksum",
            Self::Protocol(NotAnAnswer::Truncated { .. }) => "protocol-truncated",
            Self::TooMuch(_) => "too-much-data",
            Self::Request(_) => "request-too-long",
            Self::Timeout { phase, .. } => phase.kind(),
        })
    }
}

/// A failed attempt to ask a daemon: the class, and between whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What happened.
    pub class: Class,
    /// The daemon as configured, `host:port`.
    pub endpoint: String,
    /// The address tried last, where it came to that.
    pub peer: Option<SocketAddr>,
    /// The address we came from, where it came to that: what `allowed_hosts` must hold.
    pub source: Option<IpAddr>,
}

impl Fault {
    /// The stable name of the class.
    #[must_use]
    pub fn kind(&self) -> Cow<'static, str> {
        self.class.kind()
    }

    /// The sentence of check_nrpe 4.1 for the same case, for people who search for it. `state` is the word of the state that
    /// the check takes.
    #[must_use]
    pub fn legacy(&self, state: &str) -> String {
        let (host, port) = self.endpoint.rsplit_once(':').unwrap_or((&self.endpoint, "5666"));
        let address = self.peer.map_or_else(|| host.to_owned(), |peer| peer.ip().to_string());
        match &self.class {
            Class::Dns(reason) => format!("Could not resolve hostname {host}: {reason}"),
            Class::Refused => format!("connect to address {address} port {port}: Connection refused"),
            Class::Unreachable(reason) | Class::Connect(reason) | Class::Bind(reason) => {
                format!("connect to address {address} port {port}: {reason}")
            }
            Class::Alert { .. }
            | Class::DhTooSmall
            | Class::NotTls(_)
            | Class::Tls(_)
            | Class::Untrusted(_)
            | Class::Expired(_)
            | Class::WrongName(_)
            | Class::WrongPin(_) => {
                format!("CHECK_NRPE: (ssl_err != 5) Error - Could not complete SSL handshake with {address}: 1")
            }
            // In TLS 1.3 the daemon's no comes after the handshake, where check_nrpe waits for the answer.
            Class::ClientCertificate { alert: None | Some((CERTIFICATE_REQUIRED, _)), .. } => {
                "CHECK_NRPE: Receive header underflow - only 0 bytes received (4 expected).".to_owned()
            }
            Class::ClientCertificate { .. } => {
                format!("CHECK_NRPE: (ssl_err != 5) Error - Could not complete SSL handshake with {address}: 1")
            }
            Class::TlsFiles(_) => "Error: could not use certificate/key file".to_owned(),
            Class::ClosedInHandshake | Class::RefusedHere { in_handshake: true } => {
                format!("CHECK_NRPE: Error - Could not connect to {address}: Connection reset by peer")
            }
            Class::ClosedBeforeAnswer | Class::RequestRefused | Class::RefusedHere { in_handshake: false } => {
                "CHECK_NRPE: Receive header underflow - only 0 bytes received (4 expected).".to_owned()
            }
            // It reads the ten common bytes first.
            Class::Protocol(NotAnAnswer::Truncated { have: ..10, .. }) => {
                "CHECK_NRPE: Receive header underflow - only 0 bytes received (4 expected).".to_owned()
            }
            Class::BrokenOff(_) | Class::Protocol(NotAnAnswer::Truncated { .. }) => {
                "CHECK_NRPE: Receive underflow - only 0 bytes received (4 expected).".to_owned()
            }
            Class::Protocol(NotAnAnswer::Checksum(_)) => "CHECK_NRPE: Response packet had invalid CRC32.".to_owned(),
            Class::Protocol(NotAnAnswer::Foreign { .. }) => {
                "CHECK_NRPE: Invalid packet version received from server.".to_owned()
            }
            Class::Protocol(NotAnAnswer::Kind { .. }) => {
                "CHECK_NRPE: Invalid packet type received from server.".to_owned()
            }
            Class::Protocol(NotAnAnswer::Length(_) | NotAnAnswer::TooLong) | Class::TooMuch(_) => {
                "CHECK_NRPE: Response packet had invalid buffer size.".to_owned()
            }
            Class::Request(_) => "CHECK_NRPE: Error sending query to host.".to_owned(),
            Class::Timeout { after, .. } => {
                format!("CHECK_NRPE STATE {state}: Socket timeout after {} seconds.", after.as_secs())
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { class, endpoint, peer, .. } = self;
        write!(f, "NRPE {endpoint}")?;
        if let Some(peer) = peer
            && peer.to_string() != *endpoint
        {
            write!(f, " ({})", peer.ip())?;
        }
        f.write_str(": ")?;
        match class {
            Class::Dns(reason) => write!(f, "the name cannot be resolved: {reason}"),
            Class::Refused => f.write_str("connection refused"),
            Class::Unreachable(reason) | Class::Connect(reason) => write!(f, "cannot connect: {reason}"),
            Class::Bind(reason) => write!(f, "cannot come from the source address that was asked for: {reason}"),
            Class::Alert { number, name } => write!(f, "the daemon broke TLS off with alert {number} ({name})"),
            Class::DhTooSmall => {
                f.write_str("the daemon's Diffie-Hellman group is too small for any TLS library of today")
            }
            Class::NotTls(reason) => write!(f, "the peer does not speak TLS: {reason}"),
            Class::ClientCertificate { alert, shown } => {
                let shown =
                    if *shown { "does not accept our client certificate" } else { "wants a client certificate" };
                match alert {
                    Some((number, name)) => write!(f, "the daemon {shown}: alert {number} ({name})"),
                    None => write!(f, "the daemon {shown}: it asked for one and then closed the connection"),
                }
            }
            Class::TlsFiles(reason) => write!(f, "a TLS file cannot be used: {reason}"),
            Class::Untrusted(reason) => write!(f, "the daemon's certificate is not trusted: {reason}"),
            Class::Expired(reason) => write!(f, "the daemon's certificate is out of date: {reason}"),
            Class::WrongName(name) => write!(f, "the daemon's certificate is not for {name}"),
            Class::WrongPin(seen) => write!(f, "the key of the daemon's certificate is not a pinned one: {seen}"),
            Class::ClosedInHandshake => f.write_str("the daemon closed the connection during the TLS handshake"),
            Class::RefusedHere { in_handshake } => {
                let when = if *in_handshake { "during the TLS handshake" } else { "without an answer" };
                write!(
                    f,
                    "refused here: the daemon closed the connection {when}, and has never answered this satellite"
                )
            }
            Class::RequestRefused => {
                write!(f, "the daemon refuses this request: it closed the connection, but answers {VERSION_COMMAND}")
            }
            Class::Tls(reason) => write!(f, "TLS failed: {reason}"),
            Class::ClosedBeforeAnswer => f.write_str("the daemon closed the connection without an answer"),
            Class::BrokenOff(reason) => write!(f, "the connection broke off in the middle of the answer: {reason}"),
            Class::Protocol(why) => write!(f, "{why}"),
            Class::TooMuch(limit) => write!(f, "the peer sent more than {limit} bytes"),
            Class::Request(why) => write!(f, "{why}"),
            Class::Timeout { phase: Phase::Queue, after } => {
                write!(f, "{} all of its {:.3} s", Phase::Queue, after.as_secs_f64())
            }
            Class::Timeout { phase, after } => write!(f, "{phase} within {:.3} s", after.as_secs_f64()),
        }
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::probe::nrpe::packet::Version;

    /// A fault of this class, of a daemon that was reached.
    pub(in crate::probe::nrpe) fn fault(class: Class) -> Fault {
        Fault {
            class,
            endpoint: "web01:5666".to_owned(),
            peer: Some("192.0.2.1:5666".parse().unwrap()),
            source: Some("192.0.2.9".parse().unwrap()),
        }
    }

    #[test]
    fn the_sentence_names_the_daemon_as_configured_and_the_address_tried() {
        assert_eq!(fault(Class::Refused).to_string(), "NRPE web01:5666 (192.0.2.1): connection refused");
        let waited = fault(Class::Timeout { phase: Phase::Queue, after: Duration::from_secs(10) });
        assert_eq!(waited.to_string(), "NRPE web01:5666 (192.0.2.1): waited for a free connection all of its 10.000 s");
    }

    #[test]
    fn check_nrpes_own_words_are_at_hand() {
        let timeout = fault(Class::Timeout { phase: Phase::Answer, after: Duration::from_secs(10) });
        assert_eq!(timeout.legacy("CRITICAL"), "CHECK_NRPE STATE CRITICAL: Socket timeout after 10 seconds.");
        assert_eq!(
            fault(Class::Refused).legacy("CRITICAL"),
            "connect to address 192.0.2.1 port 5666: Connection refused"
        );
    }

    #[test]
    fn what_a_certificate_lacks_has_its_own_name_and_check_nrpes_one_sentence() {
        let text = || "x".to_owned();
        for (class, kind) in [
            (Class::Untrusted(text()), "tls-not-trusted"),
            (Class::Expired(text()), "tls-expired"),
            (Class::WrongName(text()), "tls-wrong-name"),
            (Class::WrongPin(text()), "tls-wrong-pin"),
            (Class::ClientCertificate { alert: Some((40, text())), shown: false }, "tls-client-certificate"),
        ] {
            let fault = fault(class);
            assert_eq!(fault.kind(), kind);
            assert!(fault.legacy("CRITICAL").ends_with("Could not complete SSL handshake with 192.0.2.1: 1"), "{kind}");
        }
    }

    #[test]
    fn a_certificate_asked_for_before_a_close_is_told_from_an_alert() {
        let closed = fault(Class::ClientCertificate { alert: None, shown: true });
        assert_eq!(closed.kind(), "tls-client-certificate");
        assert!(closed.to_string().contains("it asked for one and then closed"), "{closed}");
        assert!(closed.legacy("CRITICAL").contains("only 0 bytes received"), "check_nrpe waits for the answer by then");
    }

    #[test]
    fn a_packet_of_another_type_is_called_so() {
        let kind = NotAnAnswer::Kind { version: Version::V4, kind: 1, first: String::new() };
        let fault = fault(Class::Protocol(kind));
        assert_eq!(fault.kind(), "protocol-foreign");
        assert_eq!(fault.legacy("CRITICAL"), "CHECK_NRPE: Invalid packet type received from server.");
    }

    #[test]
    fn every_alert_has_its_own_name() {
        let alert = fault(Class::Alert { number: 40, name: "handshake failure".to_owned() });
        assert_eq!(alert.kind(), "tls-alert-40");
    }
}
