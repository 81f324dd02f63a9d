//! TLS to servers other than NRPE daemons, by rustls: a certificate is verified, or taken as it is and what is wrong with it
//! kept. Knows which CA certificates the system or a file has; knows nothing of what is said on the connection.
//!
//! The surprise: a certificate that stands in the check's own `ca` file is believed by itself, whoever signed it. That is how
//! self-signed ones are pinned, and webpki would refuse a CA's certificate in a server's place. Name and dates must still be right.
#![expect(
    clippy::disallowed_methods,
    reason = "a shell room: it waits for handshakes, and reads trust again after a while"
)]

use std::collections::HashMap;
use std::io::Read as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use shared::check::network::Tls;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificate::validity::{Validity, problem_of, written};
use super::found::shown;

/// CA certificates are read again after this time, so that a new file counts without a restart.
pub const TRUST_AGE: Duration = Duration::from_secs(300);
/// CA files remembered; when one more comes, all are forgotten and read again.
pub const CA_FILES: usize = 64;
/// Largest CA file that is read; a larger one is a fault.
pub const CA_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Why there is no session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The certificate is not believed.
    #[error("the certificate is not trusted: {problem}")]
    Untrusted {
        /// What is wrong with it.
        problem: String,
        /// The certificate (DER).
        certificate: Vec<u8>,
    },
    /// There is no CA certificate to verify with.
    #[error("no CA certificate to verify with: {0}")]
    NoCa(String),
    /// The name cannot be one of a certificate.
    #[error("“{0}” is no name or address that a certificate can be for")]
    Name(String),
    /// The peer speaks no TLS, another TLS, or hung up.
    #[error("TLS handshake failed: {0}")]
    Handshake(String),
    /// The handshake did not end in time.
    #[error("no end of the TLS handshake")]
    Timeout,
}

impl Fault {
    /// The stable name of the class.
    #[must_use]
    pub const fn class(&self) -> &'static str {
        match self {
            Self::Untrusted { .. } => "tls-certificate",
            Self::NoCa(_) => "tls-ca",
            Self::Name(_) => "tls-name",
            Self::Handshake(_) => "tls-handshake",
            Self::Timeout => "tls-timeout",
        }
    }
}

/// A TLS connection and what its server showed.
#[derive(Debug)]
pub struct Session<S> {
    /// The connection.
    pub stream: TlsStream<S>,
    /// The server's certificate (DER).
    pub certificate: Vec<u8>,
    /// What is wrong with it; `None`: it was verified.
    pub problem: Option<String>,
}

/// By the name of a CA file, or none for the system's: when it was read, and what it gave.
type Known = HashMap<Option<String>, (Instant, Arc<Anchors>)>;

/// Which CA certificates there are, read when they are needed and kept for a while.
#[derive(Debug)]
pub struct Trust {
    provider: Arc<CryptoProvider>,
    known: Mutex<Known>,
}

/// What certificates are verified by.
#[derive(Debug)]
struct Anchors {
    /// By its roots; or why there are none.
    verifier: Result<Arc<WebPkiServerVerifier>, String>,
    /// Certificates of a check's own file, believed by themselves.
    pinned: Vec<CertificateDer<'static>>,
}

impl Default for Trust {
    fn default() -> Self {
        Self { provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()), known: Mutex::default() }
    }
}

impl Trust {
    /// Makes a TLS connection of `stream`, to a server of this name, before `deadline`.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn open<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        name: &str,
        tls: &Tls,
        deadline: Instant,
    ) -> Result<Session<S>, Fault> {
        let server = ServerName::try_from(name.to_owned()).map_err(|_| Fault::Name(shown(name)))?;
        let anchors = timeout_at(deadline, self.anchors(tls.ca.as_deref())).await.map_err(|_| Fault::Timeout)?;
        if let (true, Err(reason)) = (tls.verify, &anchors.verifier) {
            return Err(Fault::NoCa(reason.clone()));
        }
        let seen: Arc<Mutex<Option<Seen>>> = Arc::default();
        let witness =
            Witness { anchors, provider: Arc::clone(&self.provider), verify: tls.verify, seen: Arc::clone(&seen) };
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Fault::Handshake(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(witness))
            .with_no_client_auth();
        // Each check shall see the certificate, which a resumed session does not show.
        config.resumption = Resumption::disabled();
        let handshake = TlsConnector::from(Arc::new(config)).connect(server, stream);
        let ended = timeout_at(deadline, handshake).await.map_err(|_| Fault::Timeout)?;
        let seen = seen.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (ended, seen) {
            (Ok(stream), Some(seen)) => Ok(Session { stream, certificate: seen.certificate, problem: seen.problem }),
            (Ok(_), None) => Err(Fault::Handshake("the server showed no certificate".to_owned())),
            (Err(_), Some(Seen { certificate, problem: Some(problem) })) if tls.verify => {
                Err(Fault::Untrusted { problem, certificate })
            }
            (Err(error), _) => Err(Fault::Handshake(shown(&error.to_string()))),
        }
    }

    async fn anchors(&self, ca: Option<&str>) -> Arc<Anchors> {
        let key = ca.map(str::to_owned);
        if let Some((read, anchors)) = self.known().get(&key)
            && read.elapsed() < TRUST_AGE
        {
            return Arc::clone(anchors);
        }
        let (file, provider) = (key.clone(), Arc::clone(&self.provider));
        let read = tokio::task::spawn_blocking(move || Anchors::read(file.as_deref(), provider)).await;
        let anchors = Arc::new(read.unwrap_or_else(|error| Anchors {
            verifier: Err(format!("reading them failed: {error}")),
            pinned: Vec::new(),
        }));
        let mut known = self.known();
        if known.len() >= CA_FILES {
            known.clear();
        }
        // Nothing was found: the next check shall look again.
        if anchors.verifier.is_ok() {
            known.insert(key, (Instant::now(), Arc::clone(&anchors)));
        }
        anchors
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Anchors {
    fn read(ca: Option<&str>, provider: Arc<CryptoProvider>) -> Self {
        let (certificates, pinned, nothing) = match ca {
            Some(path) => match read_file(path) {
                Ok(certificates) => (certificates.clone(), certificates, format!("{path} holds none")),
                Err(reason) => return Self { verifier: Err(reason), pinned: Vec::new() },
            },
            None => {
                let found = rustls_native_certs::load_native_certs();
                let why = found.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
                let nothing = format!(
                    "the satellite's system has none{why}; install them (Debian: ca-certificates) or name a file with `ca`"
                );
                (found.certs, Vec::new(), nothing)
            }
        };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates);
        let verifier = if roots.is_empty() {
            Err(nothing)
        } else {
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| error.to_string())
        };
        Self { verifier, pinned }
    }

    fn judge(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), String> {
        if self.pinned.iter().any(|pinned| pinned == certificate) {
            return pinned_is_valid(certificate, name, now);
        }
        let verifier =
            self.verifier.as_ref().map_err(|reason| format!("no CA certificate to verify with: {reason}"))?;
        let verified = verifier.verify_server_cert(certificate, intermediates, name, &[], now);
        verified.map(|_| ()).map_err(|error| problem_of(&error))
    }
}

/// A pinned certificate needs no issuer, but the right name and dates.
fn pinned_is_valid(certificate: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> Result<(), String> {
    let problem = |error: CertificateError| problem_of(&Error::InvalidCertificate(error));
    let parsed = ParsedCertificate::try_from(certificate).map_err(|error| problem_of(&error))?;
    verify_server_name(&parsed, name).map_err(|error| problem_of(&error))?;
    let validity = Validity::read(certificate).ok_or_else(|| problem(CertificateError::BadEncoding))?;
    let moment = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if moment > validity.until.as_seconds() {
        Err(format!("it expired on {}", written(validity.until)))
    } else if moment < validity.from.as_seconds() {
        Err(format!("it is not valid before {}", written(validity.from)))
    } else {
        Ok(())
    }
}

fn read_file(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| format!("{path}: {error}"))?;
    file.take(CA_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| format!("{path}: {error}"))?;
    if bytes.len() as u64 > CA_BYTES_MAX {
        return Err(format!("{path} is larger than {CA_BYTES_MAX} bytes"));
    }
    CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("{path} holds no PEM certificates: {error}"))
}

/// What was seen of a certificate during a handshake.
#[derive(Debug)]
struct Seen {
    certificate: Vec<u8>,
    problem: Option<String>,
}

/// Verifies, and keeps what it saw for whoever made the handshake.
#[derive(Debug)]
struct Witness {
    anchors: Arc<Anchors>,
    provider: Arc<CryptoProvider>,
    verify: bool,
    seen: Arc<Mutex<Option<Seen>>>,
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let problem = self.anchors.judge(end_entity, intermediates, server_name, now).err();
        let refused = self.verify && problem.is_some();
        let seen = Seen { certificate: end_entity.to_vec(), problem };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
        if refused {
            return Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
