//! What the network probes ask: a TCP port, a page, a certificate, a name, an SSH server. Names and numbers only, all valid when
//! a satellite gets them: the configuration has checked them. Knows nothing of how they are asked.
//!
//! Response times are judged by ranges in seconds, as the Monitoring Plugins' `-w` and `-c`.

use minicbor::{Decode, Encode};
use serde::Serialize;

use crate::check::State;
use crate::range::Range;

/// Most redirects that a check can follow (check_http's own bound).
pub const REDIRECTS_MAX: u8 = 15;

/// When a response time is too long; a side that is not given never alerts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Limits {
    /// Seconds outside of which the state is WARNING.
    #[n(0)]
    pub warning: Option<Range>,
    /// Seconds outside of which the state is CRITICAL.
    #[n(1)]
    pub critical: Option<Range>,
}

impl Limits {
    /// The state of a response that took this many seconds.
    #[must_use]
    pub fn judge(&self, seconds: f64) -> State {
        let alerts = |range: Option<Range>| range.is_some_and(|range| range.alerts(seconds));
        match (alerts(self.critical), alerts(self.warning)) {
            (true, _) => State::Critical,
            (false, true) => State::Warning,
            (false, false) => State::Ok,
        }
    }
}

/// How a TLS server is believed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Tls {
    /// Name the certificate must be for, sent as server name (SNI, RFC 6066 §3); `None`: the name or address connected to.
    #[n(0)]
    pub name: Option<String>,
    /// False: any certificate is taken, and what is wrong with it only told.
    #[n(1)]
    pub verify: bool,
    /// File on the satellite with the CA certificates (PEM) to believe; `None`: those of its system.
    #[n(2)]
    pub ca: Option<String>,
}

/// How many days a certificate must still be valid; with this many whole days left, or fewer, the state is the alert's (the rule
/// of check_http's `-C`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct CertificateDays {
    /// Days for WARNING.
    #[n(0)]
    pub warning: Option<u32>,
    /// Days for CRITICAL.
    #[n(1)]
    pub critical: Option<u32>,
}

/// Whether a TCP port accepts a connection, and says what it should.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct TcpCheck {
    /// Host name or address.
    #[n(0)]
    pub address: String,
    /// TCP port.
    #[n(1)]
    pub port: u16,
    /// What is said on the connection; `None`: it is opened and closed.
    #[n(2)]
    pub talk: Option<Talk>,
    /// Bounds of the response time.
    #[n(3)]
    pub limits: Option<Limits>,
}

impl TcpCheck {
    /// The check of a port that shall accept connections, and no more.
    #[must_use]
    pub fn port(address: impl Into<String>, port: u16) -> Self {
        Self { address: address.into(), port, talk: None, limits: None }
    }
}

/// What is said on a TCP connection.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Talk {
    /// TLS, from the first byte.
    #[n(0)]
    pub tls: Option<Tls>,
    /// Sent first.
    #[n(1)]
    pub send: Option<String>,
    /// Texts of which one must come; none: nothing is waited for.
    #[n(2)]
    pub expect: Vec<String>,
    /// State when something else comes.
    #[n(3)]
    pub mismatch: State,
}

/// Status codes of HTTP that are good, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct StatusRange {
    /// First.
    #[n(0)]
    pub first: u16,
    /// Last.
    #[n(1)]
    pub last: u16,
}

/// A page of a web server.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct HttpCheck {
    /// Host name or address to connect to.
    #[n(0)]
    pub address: String,
    /// TCP port.
    #[n(1)]
    pub port: u16,
    /// HTTPS; `None`: plain HTTP.
    #[n(2)]
    pub tls: Option<Tls>,
    /// Host header, without a port; also the TLS name unless that has its own.
    #[n(3)]
    pub host: String,
    /// Path and query, beginning with `/`.
    #[n(4)]
    pub path: String,
    /// Method, in capitals.
    #[n(5)]
    pub method: String,
    /// Headers besides `Host`, `User-Agent`, `Connection`.
    #[n(6)]
    pub headers: Vec<(String, String)>,
    /// Body to send.
    #[n(7)]
    pub body: Option<String>,
    /// Status codes that are good; none given: check_http's rule (below 400 OK, below 500 WARNING, else CRITICAL).
    #[n(8)]
    pub status: Vec<StatusRange>,
    /// Texts that must all be in the body.
    #[n(9)]
    pub contains: Vec<String>,
    /// Texts none of which may be in the body.
    #[n(10)]
    pub lacks: Vec<String>,
    /// Redirects that are followed.
    #[n(11)]
    pub follow: u8,
    /// Bounds of the response time, all redirects together.
    #[n(12)]
    pub limits: Limits,
    /// How long the certificate must still be valid; `None`: not judged.
    #[n(13)]
    pub certificate: Option<CertificateDays>,
}

/// The certificate of a TLS server.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct CertificateCheck {
    /// Host name or address.
    #[n(0)]
    pub address: String,
    /// TCP port.
    #[n(1)]
    pub port: u16,
    /// How it is believed.
    #[n(2)]
    pub tls: Tls,
    /// How long it must still be valid.
    #[n(3)]
    pub days: CertificateDays,
}

/// Types of DNS records that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(index_only)]
#[serde(rename_all = "UPPERCASE")]
pub enum RecordType {
    /// IPv4 address.
    #[n(0)]
    A,
    /// IPv6 address.
    #[n(1)]
    Aaaa,
    /// Mail exchanger: `10 mail.example.net`.
    #[n(2)]
    Mx,
    /// Name server.
    #[n(3)]
    Ns,
    /// Text.
    #[n(4)]
    Txt,
    /// Alias.
    #[n(5)]
    Cname,
    /// Start of authority, its seven fields.
    #[n(6)]
    Soa,
    /// Name of an address.
    #[n(7)]
    Ptr,
    /// Service: `priority weight port target`.
    #[n(8)]
    Srv,
}

impl RecordType {
    /// All of them.
    pub const ALL: [Self; 9] =
        [Self::A, Self::Aaaa, Self::Mx, Self::Ns, Self::Txt, Self::Cname, Self::Soa, Self::Ptr, Self::Srv];

    /// As zone files write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Mx => "MX",
            Self::Ns => "NS",
            Self::Txt => "TXT",
            Self::Cname => "CNAME",
            Self::Soa => "SOA",
            Self::Ptr => "PTR",
            Self::Srv => "SRV",
        }
    }
}

/// How answers and expected values must agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(index_only)]
#[serde(rename_all = "lowercase")]
pub enum Agreement {
    /// Every expected value is among the answers.
    #[n(0)]
    All,
    /// At least one expected value is among the answers.
    #[n(1)]
    Any,
    /// The answers are the expected values and no other.
    #[n(2)]
    Exact,
}

/// A name of the domain name system.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct DnsCheck {
    /// The whole name, never completed by a search list; for `PTR` also an address.
    #[n(0)]
    pub name: String,
    /// Type of the records.
    #[n(1)]
    pub kind: RecordType,
    /// Name server, by name or address; `None`: the satellite's own ones, one after the other.
    #[n(2)]
    pub server: Option<String>,
    /// Its port; `None`: 53, or what the satellite's own say.
    #[n(3)]
    pub port: Option<u16>,
    /// Expected values; none: any answer is good.
    #[n(4)]
    pub expect: Vec<String>,
    /// How they must agree.
    #[n(5)]
    pub agreement: Agreement,
    /// Bounds of the response time.
    #[n(6)]
    pub limits: Limits,
}

/// The identification of an SSH server.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct SshCheck {
    /// Host name or address.
    #[n(0)]
    pub address: String,
    /// TCP port.
    #[n(1)]
    pub port: u16,
    /// Software version expected, whole, as in `OpenSSH_9.2p1 Debian-2`.
    #[n(2)]
    pub version: Option<String>,
    /// Protocol version expected, as in `2.0`.
    #[n(3)]
    pub protocol: Option<String>,
    /// Bounds of the response time.
    #[n(4)]
    pub limits: Limits,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Check;

    #[test]
    fn a_port_of_the_first_wire_form_is_still_read() {
        #[derive(Encode)]
        struct First {
            #[n(0)]
            address: String,
            #[n(1)]
            port: u16,
        }
        let bytes = minicbor::to_vec(First { address: "web".into(), port: 80 }).unwrap();
        assert_eq!(minicbor::decode::<TcpCheck>(&bytes).unwrap(), TcpCheck::port("web", 80));
    }

    #[test]
    fn network_checks_come_back_from_the_wire_as_they_went() {
        let limits = Limits { warning: "0.5".parse().ok(), critical: "@~:-1".parse().ok() };
        let tls = Tls { name: Some("www".into()), verify: false, ca: None };
        let days = CertificateDays { warning: Some(30), critical: None };
        let checks = [
            Check::Http(Box::new(HttpCheck {
                address: "a".into(),
                port: 443,
                tls: Some(tls.clone()),
                host: "b".into(),
                path: "/".into(),
                method: "GET".into(),
                headers: vec![("a".into(), "b".into())],
                body: None,
                status: vec![StatusRange { first: 200, last: 299 }],
                contains: vec!["x".into()],
                lacks: vec![],
                follow: 3,
                limits,
                certificate: Some(days),
            })),
            Check::Dns(DnsCheck {
                name: "a_b.example".into(),
                kind: RecordType::Srv,
                server: None,
                port: Some(53),
                expect: vec!["c".into()],
                agreement: Agreement::Exact,
                limits,
            }),
            Check::Ssh(SshCheck { address: "a".into(), port: 22, version: None, protocol: Some("2.0".into()), limits }),
            Check::Certificate(CertificateCheck { address: "a".into(), port: 993, tls: tls.clone(), days }),
            Check::Tcp(TcpCheck {
                talk: Some(Talk { tls: Some(tls), send: None, expect: vec!["+OK".into()], mismatch: State::Warning }),
                limits: Some(limits),
                ..TcpCheck::port("a", 110)
            }),
        ];
        for check in checks {
            let bytes = minicbor::to_vec(&check).unwrap();
            assert_eq!(minicbor::decode::<Check>(&bytes).unwrap(), check);
        }
    }

    #[test]
    fn critical_stands_over_warning() {
        let limits = Limits { warning: "1".parse().ok(), critical: "2".parse().ok() };
        assert_eq!([0.5, 1.5, 2.5].map(|took| limits.judge(took)), [State::Ok, State::Warning, State::Critical]);
        assert_eq!(Limits::default().judge(1e9), State::Ok);
    }
}
