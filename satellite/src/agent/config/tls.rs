//! The TLS keys of `nrpe.cfg`: protocol versions, anonymous Diffie-Hellman, ciphers, certificates. Pure: what they mean for the
//! library is decided here as far as words go, and done in `agent::tls`.
//!
//! The surprise is nrpe's `ssl_use_adh=0`: it switches off anonymous finite-field Diffie-Hellman and leaves the anonymous
//! elliptic-curve suites on. It is kept, since a host must not change its ways by a new agent, and warned of.

use std::path::PathBuf;
use std::time::Duration;

use super::Weight;
use super::value::{Wrong, bits, number};

/// Names of the keys of this room.
pub const NAMES: [&str; 9] = [
    "ssl_version",
    "ssl_use_adh",
    "ssl_cipher_list",
    "ssl_cacert_file",
    "ssl_cert_file",
    "ssl_privatekey_file",
    "ssl_client_certs",
    "ssl_logging",
    "ssl_shutdown_timeout",
];

/// The longest that a client is waited for at the end, in seconds; what is longer counts as this.
const MAX_SHUTDOWN: i64 = 3600;
/// nrpe's ciphers: everything with a key, anonymous suites included, whatever the system's own rules say.
const CIPHERS: &str = "ALL:!MD5:@STRENGTH:@SECLEVEL=0";

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// SSL 3.0; most OpenSSLs have forgotten it.
    Ssl3,
    /// TLS 1.0.
    Tls1,
    /// TLS 1.1.
    Tls11,
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3, which needs a certificate.
    Tls13,
}

/// `ssl_use_adh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anonymous {
    /// 0: no ADH; AECDH stays.
    WithoutAdh,
    /// 1: what the cipher list says.
    Allowed,
    /// 2: ADH and nothing else below TLS 1.3.
    Forced,
}

/// `ssl_client_certs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificates {
    /// 0: not asked for.
    Ignored,
    /// 1: asked for; none is fine, a foreign one is not.
    Asked,
    /// 2: nobody without one.
    Required,
}

/// What is logged of handshakes, `ssl_logging`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Logging(u32);

impl Logging {
    const fn has(self, bit: u32) -> bool {
        self.0 & bit != 0
    }

    /// The settings, at the start.
    #[must_use]
    pub const fn startup(self) -> bool {
        self.has(1)
    }

    /// The address of every client.
    #[must_use]
    pub const fn address(self) -> bool {
        self.has(2)
    }

    /// Protocol version or cipher of every connection.
    #[must_use]
    pub const fn protocol(self) -> bool {
        self.has(4 | 8)
    }

    /// Whose certificate a client shows.
    #[must_use]
    pub const fn certificate(self) -> bool {
        self.has(16 | 32)
    }
}

/// The TLS settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// The oldest version spoken.
    pub oldest: Protocol,
    /// The newest; what the library has if none.
    pub newest: Option<Protocol>,
    /// Anonymous Diffie-Hellman.
    pub anonymous: Anonymous,
    ciphers: String,
    /// CA that client certificates must come from.
    pub ca: Option<PathBuf>,
    /// Our certificate with its chain, PEM.
    pub certificate: Option<PathBuf>,
    /// Its key, PEM.
    pub key: Option<PathBuf>,
    /// Client certificates.
    pub clients: ClientCertificates,
    /// What is logged.
    pub logging: Logging,
    /// How long a client may take to say that it has had its answer.
    pub shutdown_timeout: Duration,
}

impl Default for TlsSettings {
    fn default() -> Self {
        Self {
            oldest: Protocol::Tls1,
            newest: None,
            anonymous: Anonymous::Allowed,
            ciphers: CIPHERS.to_owned(),
            ca: None,
            certificate: None,
            key: None,
            clients: ClientCertificates::Ignored,
            logging: Logging::default(),
            shutdown_timeout: Duration::from_secs(15),
        }
    }
}

impl TlsSettings {
    /// Takes one of [`NAMES`]; none if the key is another room's.
    pub fn set(&mut self, key: &str, value: &str) -> Option<Result<Option<String>, Wrong>> {
        NAMES.contains(&key).then(|| self.take(key, value))
    }

    /// Takes a value, and returns what there is to remark about it.
    fn take(&mut self, key: &str, value: &str) -> Result<Option<String>, Wrong> {
        let mut remark = None;
        let mut choice = |highest: i64| -> Result<i64, Wrong> {
            let (number, said) = number(key, value, 0..=i64::MAX)?;
            remark = said;
            if number > highest {
                return Err((Weight::Mistake, format!("{key}: {number} is none of 0 to {highest}")));
            }
            Ok(number)
        };
        match key {
            "ssl_version" => {
                let (name, newer) = value.strip_suffix('+').map_or((value, false), |name| (name, true));
                let version = match name {
                    "SSLv3" => Protocol::Ssl3,
                    "TLSv1" => Protocol::Tls1,
                    "TLSv1.1" => Protocol::Tls11,
                    "TLSv1.2" => Protocol::Tls12,
                    "TLSv1.3" => Protocol::Tls13,
                    "SSLv2" => {
                        return Err((
                            Weight::Mistake,
                            format!(
                                "ssl_version: {value}: no library knows SSLv2 any more; TLSv1+ is everything there is"
                            ),
                        ));
                    }
                    _ => {
                        return Err((
                            Weight::Mistake,
                            format!(
                                "ssl_version: {value:?}; it is SSLv3, TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3, with + for \"or newer\""
                            ),
                        ));
                    }
                };
                (self.oldest, self.newest) = (version, (!newer).then_some(version));
            }
            "ssl_use_adh" => {
                self.anonymous = match choice(2)? {
                    0 => Anonymous::WithoutAdh,
                    1 => Anonymous::Allowed,
                    _ => Anonymous::Forced,
                };
            }
            "ssl_cipher_list" => self.ciphers = value.to_owned(),
            "ssl_cacert_file" => self.ca = Some(PathBuf::from(value)),
            "ssl_cert_file" => self.certificate = Some(PathBuf::from(value)),
            "ssl_privatekey_file" => self.key = Some(PathBuf::from(value)),
            "ssl_client_certs" => {
                self.clients = match choice(2)? {
                    0 => ClientCertificates::Ignored,
                    1 => ClientCertificates::Asked,
                    _ => ClientCertificates::Required,
                };
            }
            "ssl_logging" => {
                let (wanted, said) = bits(key, value);
                (self.logging, remark) = (Logging(wanted), said);
            }
            _ => {
                let (seconds, said) = number(key, value, 1..=MAX_SHUTDOWN)?;
                (self.shutdown_timeout, remark) = (Duration::from_secs(seconds.unsigned_abs()), said);
            }
        }
        Ok(remark)
    }

    /// The cipher list in OpenSSL's words.
    #[must_use]
    pub fn cipher_list(&self) -> String {
        match self.anonymous {
            Anonymous::WithoutAdh => format!("{}:!ADH", self.ciphers),
            Anonymous::Allowed => self.ciphers.clone(),
            Anonymous::Forced => "ADH:@SECLEVEL=0".to_owned(),
        }
    }

    /// What does not go together: the key to blame, how bad it is, and why. nrpe starts with the same of them as we do.
    #[must_use]
    pub fn contradictions(&self) -> Vec<(&'static str, Weight, String)> {
        let mut found = Vec::new();
        let mut say = |key, weight, text: &str| found.push((key, weight, text.to_owned()));
        match (&self.certificate, &self.key) {
            (Some(_), None) => say("ssl_cert_file", Weight::Mistake, "ssl_cert_file without ssl_privatekey_file"),
            (None, Some(_)) => {
                say("ssl_privatekey_file", Weight::Warning, "ssl_privatekey_file has no effect without ssl_cert_file")
            }
            _ => {}
        }
        match self.clients {
            ClientCertificates::Required if self.ca.is_none() => say(
                "ssl_client_certs",
                Weight::Mistake,
                "ssl_client_certs=2 without ssl_cacert_file: nothing tells a good certificate from a bad one",
            ),
            ClientCertificates::Asked if self.ca.is_none() => say(
                "ssl_client_certs",
                Weight::Warning,
                "ssl_client_certs=1 without ssl_cacert_file: whoever shows a certificate is refused",
            ),
            _ => {}
        }
        if self.clients != ClientCertificates::Ignored && self.certificate.is_none() {
            say(
                "ssl_client_certs",
                Weight::Warning,
                "ssl_client_certs without ssl_cert_file: anonymous suites cannot ask for a certificate, so no handshake will succeed",
            );
        }
        let ciphers = self.ciphers.to_ascii_uppercase();
        if self.anonymous == Anonymous::WithoutAdh && !["!ANULL", "!AECDH"].iter().any(|no| ciphers.contains(no)) {
            say(
                "ssl_use_adh",
                Weight::Warning,
                "ssl_use_adh=0 leaves anonymous elliptic-curve suites on, as in nrpe; :!aNULL in ssl_cipher_list switches them off",
            );
        }
        if self.oldest == Protocol::Tls13 && self.certificate.is_none() {
            say(
                "ssl_version",
                Weight::Warning,
                "TLS 1.3 needs a certificate (ssl_cert_file); no handshake will succeed",
            );
        }
        found
    }
}
