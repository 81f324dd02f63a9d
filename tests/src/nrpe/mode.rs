//! The modes in which NRPE daemons are found, as settings of Debian's daemon and as the options with which `check_nrpe` is given to
//! such a host. Knows nothing of Perigee: what we make of a mode is for the tests to say.
//!
//! The surprise: certificates do not switch anonymous suites off. A daemon with a certificate and otherwise stock settings still
//! talks to whoever offers ADH.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::setup::{Setup, Transport};
use crate::pki::Pki;

/// How a daemon is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Bare packets.
    Plain,
    /// As installed: anonymous suites, no certificate.
    Anonymous,
    /// Finite-field Diffie-Hellman only (`ssl_use_adh=2`).
    AdhForced,
    /// Anonymous elliptic curves only.
    AecdhOnly,
    /// TLS 1.0 and ADH: the nearest to a 2.x daemon that Debian's can be.
    OldProtocol,
    /// A certificate, and no ADH.
    Certificate,
    /// A certificate beside the stock anonymous suites.
    CertificateOrAnonymous,
    /// Asks for a client certificate and does without.
    OptionalClient,
    /// Insists on a client certificate.
    RequiredClient,
    /// A certificate and a cipher list without any anonymous suite.
    NoAnonymous,
    /// Our address is not in `allowed_hosts`.
    NotAllowed,
    /// Stock backlog: five connections may wait.
    TinyBacklog,
    /// `dont_blame_nrpe=1`, which Debian's build cannot honour.
    Arguments,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Plain,
        Self::Anonymous,
        Self::AdhForced,
        Self::AecdhOnly,
        Self::OldProtocol,
        Self::Certificate,
        Self::CertificateOrAnonymous,
        Self::OptionalClient,
        Self::RequiredClient,
        Self::NoAnonymous,
        Self::NotAllowed,
        Self::TinyBacklog,
        Self::Arguments,
    ];

    /// Whether the daemon has a certificate to show.
    #[must_use]
    pub const fn has_certificate(self) -> bool {
        matches!(
            self,
            Self::Certificate
                | Self::CertificateOrAnonymous
                | Self::OptionalClient
                | Self::RequiredClient
                | Self::NoAnonymous
        )
    }

    /// Whether a connection needs TLS.
    #[must_use]
    pub const fn transport(self) -> Transport {
        match self {
            Self::Plain => Transport::Plain,
            _ => Transport::Anonymous,
        }
    }

    /// A daemon in this mode; `settings` come last.
    #[must_use]
    pub fn setup(self, address: SocketAddr, keys: &Keys, commands: &[(&str, &str)], settings: &str) -> Setup {
        let mut setup = Setup::new(address, self.transport(), commands, "");
        setup.settings = format!("{}{settings}", self.settings(keys));
        match self {
            Self::NotAllowed => "127.0.0.9".clone_into(&mut setup.allowed_hosts),
            Self::TinyBacklog => setup.backlog = None,
            _ => {}
        }
        setup
    }

    fn settings(self, keys: &Keys) -> String {
        let clients = |number: u8| format!("{}ssl_client_certs={number}\n", keys.settings());
        match self {
            Self::Plain | Self::Anonymous | Self::NotAllowed | Self::TinyBacklog => String::new(),
            Self::AdhForced => "ssl_use_adh=2\n".to_owned(),
            Self::AecdhOnly => "ssl_cipher_list=AECDH:@SECLEVEL=0\n".to_owned(),
            Self::OldProtocol => "ssl_use_adh=2\nssl_version=TLSv1\n".to_owned(),
            Self::Certificate => format!("{}ssl_use_adh=0\nssl_version=TLSv1.2+\n", clients(0)),
            Self::CertificateOrAnonymous => clients(0),
            Self::OptionalClient => format!("{}ssl_use_adh=0\nssl_version=TLSv1.2+\n", clients(1)),
            Self::RequiredClient => format!("{}ssl_use_adh=0\nssl_version=TLSv1.2+\n", clients(2)),
            Self::NoAnonymous => {
                format!("{}ssl_use_adh=0\nssl_version=TLSv1.2+\nssl_cipher_list=ECDHE+AESGCM\n", clients(0))
            }
            Self::Arguments => "dont_blame_nrpe=1\n".to_owned(),
        }
    }

    /// The options with which `check_nrpe` would be given to such a host, besides `-n` for a plain one: trust and identity
    /// where there are certificates.
    #[must_use]
    pub fn options(self, keys: &Keys) -> Vec<String> {
        let mut options = Vec::new();
        let mut add = |option: &str, path: &PathBuf| options.extend([option.to_owned(), path.display().to_string()]);
        if self.has_certificate() {
            add("-A", &keys.ca);
        }
        if matches!(self, Self::OptionalClient | Self::RequiredClient) {
            add("-C", &keys.client_certificate);
            add("-K", &keys.client_key);
        }
        options
    }
}

/// Where the certificates of a test lie: absolute paths of PEM files.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Whom both sides believe.
    pub ca: PathBuf,
    /// The daemon's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The satellite's certificate.
    pub client_certificate: PathBuf,
    /// Its key.
    pub client_key: PathBuf,
}

impl From<&Pki> for Keys {
    fn from(pki: &Pki) -> Self {
        Self {
            ca: pki.authority.certificate.clone(),
            certificate: pki.server.certificate.clone(),
            key: pki.server.key.clone(),
            client_certificate: pki.client.certificate.clone(),
            client_key: pki.client.key.clone(),
        }
    }
}

impl Keys {
    /// The daemon's side of them as lines of its configuration.
    #[must_use]
    pub fn settings(&self) -> String {
        format!(
            "ssl_cacert_file={}\nssl_cert_file={}\nssl_privatekey_file={}\n",
            self.ca.display(),
            self.certificate.display(),
            self.key.display()
        )
    }
}
