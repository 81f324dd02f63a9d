//! One way to ask a daemon, in our words and in `check_nrpe`'s options.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use shared::check::{Check, NrpeCheck, NrpeName, NrpeTls, NrpeTrust, State};
use tests::fleet::program;
use tests::nrpe::mode::{Keys, Mode};
use tests::nrpe::{CHECK_NRPE, Said, Transport};
use tests::pki::{Issued, Pki};

/// How often `check_nrpe` is asked again after a signal has ended it.
const TRIES: usize = 20;

/// Whom to ask and how.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    name: String,
    host: String,
    port: u16,
    tls: NrpeTls,
    trust: Option<NrpeTrust>,
    version: Option<u8>,
    on_error: State,
    /// The same for `check_nrpe`.
    pub(crate) options: Vec<String>,
    /// Whether an answer comes from a peer that has proven who it is.
    pub(crate) proven: bool,
    /// Whether the text must be the same too: where `check_nrpe` tries a second version it prints its errors in front.
    pub(crate) verbatim: bool,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.options.join(" "))
    }
}

impl Way {
    fn new(name: &str, address: SocketAddr, tls: NrpeTls) -> Self {
        Self {
            name: name.to_owned(),
            host: address.ip().to_string(),
            port: address.port(),
            tls,
            trust: None,
            version: None,
            on_error: State::Critical,
            options: if tls == NrpeTls::Plain { vec!["-n".to_owned()] } else { Vec::new() },
            proven: false,
            verbatim: true,
        }
    }

    /// Bare packets.
    pub(crate) fn plain(name: &str, address: SocketAddr) -> Self {
        Self::new(name, address, NrpeTls::Plain)
    }

    /// TLS with whoever answers.
    pub(crate) fn anonymous(name: &str, address: SocketAddr) -> Self {
        Self::new(name, address, NrpeTls::Anonymous)
    }

    /// TLS with a peer that the authority has signed, showing a certificate of ours if there is one.
    pub(crate) fn verified(name: &str, address: SocketAddr, pki: &Pki, client: Option<&Issued>) -> Self {
        Self::believing(name, address, &pki.authority.certificate, client)
    }

    /// The same, believing an authority that has not signed it.
    pub(crate) fn foreign(name: &str, address: SocketAddr, pki: &Pki) -> Self {
        Self::believing(name, address, &pki.foreign_authority.certificate, None)
    }

    fn believing(name: &str, address: SocketAddr, ca: &Path, client: Option<&Issued>) -> Self {
        let mut way = Self::new(name, address, NrpeTls::Certificate);
        way.proven = true;
        let mut file = |option: &str, path: &Path| {
            let path = path.display().to_string();
            way.options.extend([option.to_owned(), path.clone()]);
            path
        };
        way.trust = Some(NrpeTrust {
            ca: Some(file("-A", ca)),
            certificate: client.map(|client| file("-C", &client.certificate)),
            key: client.map(|client| file("-K", &client.key)),
            name: NrpeName::Address,
            pins: Vec::new(),
            ciphers: None,
        });
        way
    }

    /// The way that suits a mode.
    pub(crate) fn of(mode: Mode, address: SocketAddr, pki: &Pki) -> Self {
        let name = format!("{mode:?}");
        let way = match mode {
            mode if mode.has_certificate() => {
                let shown = matches!(mode, Mode::OptionalClient | Mode::RequiredClient).then_some(&pki.client);
                Self::verified(&name, address, pki, shown)
            }
            mode if mode.transport() == Transport::Plain => Self::plain(&name, address),
            _ => Self::anonymous(&name, address),
        };
        let told: Vec<&String> = way.options.iter().filter(|option| *option != "-n").collect();
        assert_eq!(
            told,
            mode.options(&Keys::from(pki)).iter().collect::<Vec<_>>(),
            "{mode:?}: both clients are told the same"
        );
        way
    }

    /// The same in this packet version only.
    pub(crate) fn version(mut self, version: u8) -> Self {
        self.version = Some(version);
        self.options.push(format!("-{version}"));
        self
    }

    /// The same with other options for `check_nrpe`.
    pub(crate) fn options(mut self, options: &[&str]) -> Self {
        self.options.extend(options.iter().map(|&option| option.to_owned()));
        self
    }

    /// The same with UNKNOWN where the daemon cannot be asked (`-u`).
    pub(crate) fn unknown_on_error(mut self) -> Self {
        self.on_error = State::Unknown;
        self.options.push("-u".to_owned());
        self
    }

    /// The same, where `check_nrpe` prints more than the answer.
    pub(crate) fn noisy(mut self) -> Self {
        self.verbatim = false;
        self
    }

    /// The same with a name instead of the address.
    pub(crate) fn host(mut self, host: &str) -> Self {
        host.clone_into(&mut self.host);
        self
    }

    /// As a check of ours.
    pub(crate) fn check(&self, request: &str) -> Check {
        Check::Nrpe(NrpeCheck {
            address: self.host.clone(),
            port: self.port,
            tls: self.tls,
            command: request.to_owned(),
            args: Vec::new(),
            version: self.version,
            on_transport_error: self.on_error,
            trust: self.trust.clone(),
        })
    }

    /// What `check_nrpe` makes of it.
    pub(crate) fn theirs(&self, request: &str, limit: Duration) -> Said {
        // Where the daemon resets the connection early, writing to it may end check_nrpe by a signal: then it has said nothing.
        let mut tries = (0..TRIES).map(|_| self.said(Command::new(CHECK_NRPE), request, limit));
        tries.find(|said| said.status >= 0).expect("check_nrpe ends by a signal whenever it is asked")
    }

    /// What our program in its place makes of it.
    pub(crate) fn instead(&self, request: &str, limit: Duration) -> Said {
        let mut client = Command::new(program("perigee-satellite").unwrap());
        client.arg("check-nrpe");
        self.said(client, request, limit)
    }

    fn said(&self, mut client: Command, request: &str, limit: Duration) -> Said {
        client.args(["-H", &self.host, "-p", &self.port.to_string(), "-t", &limit.as_secs().to_string()]);
        let output = client.args(&self.options).args(["-c", request]).output().unwrap();
        Said {
            status: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
