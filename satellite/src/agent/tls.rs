//! TLS as the agent offers it: nrpe's anonymous Diffie-Hellman where there is no certificate, and what `nrpe.cfg` says of versions,
//! ciphers and certificates. The second room that knows OpenSSL; its contexts serve nobody else. Knows no packets.
//!
//! The surprise: nrpe has no session id context, so clients that showed a certificate and come back with their ticket are refused
//! with an internal error. Here there is one, and tickets work with and without certificates.

use std::path::Path;
use std::pin::Pin;

use hyper_openssl::SslStream;
use hyper_util::rt::TokioIo;
use openssl::bn::BigNum;
use openssl::dh::Dh;
use openssl::error::ErrorStack;
use openssl::ssl::{
    ErrorCode, Ssl, SslContext, SslContextBuilder, SslFiletype, SslMethod, SslOptions, SslRef, SslSessionCacheMode,
    SslVerifyMode, SslVersion,
};
use openssl::x509::{X509NameRef, X509VerifyResult};
use tokio::net::TcpStream;

use super::config::tls::{ClientCertificates, Protocol, TlsSettings};

/// `SSL_OP_IGNORE_UNEXPECTED_EOF`, by number: the name exists only where OpenSSL is 3.0 or newer, and older ones ignore the bit.
const IGNORE_UNEXPECTED_EOF: SslOptions = SslOptions::from_bits_retain(0x80);

/// A connection inside TLS.
pub type Secure = TokioIo<SslStream<TokioIo<TcpStream>>>;

/// Settings that OpenSSL does not take: what, and its own words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
pub struct Unusable {
    what: String,
    why: String,
}

/// What a handshake agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// Protocol version, for example `TLSv1.2`.
    pub protocol: &'static str,
    /// Cipher suite by OpenSSL's name.
    pub cipher: String,
    /// Whether a ticket was honoured.
    pub resumed: bool,
    /// The client's certificate, if it showed one: subject and issuer.
    pub client: Option<String>,
}

/// The context of one configuration. Its ticket keys live as long as it does.
pub struct Tls(SslContext);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Reads certificates and makes a context.
    ///
    /// # Errors
    /// A file cannot be read or does not fit, or a list of ciphers means nothing.
    pub fn new(settings: &TlsSettings) -> Result<Self, Unusable> {
        let mut context = SslContext::builder(SslMethod::tls_server()).map_err(|error| unusable("OpenSSL", &error))?;
        basics(&mut context, settings).map_err(|error| unusable("OpenSSL", &error))?;
        if let (Some(certificate), Some(key)) = (&settings.certificate, &settings.key) {
            readable("ssl_cert_file", certificate)?;
            readable("ssl_privatekey_file", key)?;
            let file = |name: &str, path: &Path| format!("{name} {}", path.display());
            context
                .set_certificate_chain_file(certificate)
                .map_err(|error| unusable(&file("ssl_cert_file", certificate), &error))?;
            context
                .set_private_key_file(key, SslFiletype::PEM)
                .and_then(|()| context.check_private_key())
                .map_err(|error| unusable(&file("ssl_privatekey_file", key), &error))?;
        }
        let mode = match settings.clients {
            ClientCertificates::Ignored => SslVerifyMode::NONE,
            ClientCertificates::Asked => SslVerifyMode::PEER,
            ClientCertificates::Required => SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT,
        };
        context.set_verify(mode);
        // Also while no client is asked for a certificate: what completes the chain of our own is in that file, as with nrpe.
        if let Some(ca) = &settings.ca {
            readable("ssl_cacert_file", ca)?;
            context.set_ca_file(ca).map_err(|error| unusable(&format!("ssl_cacert_file {}", ca.display()), &error))?;
        }
        let ciphers = settings.cipher_list();
        context.set_cipher_list(&ciphers).map_err(|error| unusable(&format!("the cipher list {ciphers:?}"), &error))?;
        Ok(Self(context.build()))
    }

    /// Shakes hands. No deadline of its own; dropping the future breaks off.
    ///
    /// # Errors
    /// What went wrong, in words; the connection is closed as OpenSSL left it.
    pub async fn accept(&self, tcp: TcpStream) -> Result<(Secure, Agreed), String> {
        let ssl = Ssl::new(&self.0).map_err(|error| error.to_string())?;
        let mut stream = SslStream::new(ssl, TokioIo::new(tcp)).map_err(|error| error.to_string())?;
        Pin::new(&mut stream).accept().await.map_err(|error| words(&error))?;
        let agreed = agreed(stream.ssl());
        Ok((TokioIo::new(stream), agreed))
    }
}

fn basics(context: &mut SslContextBuilder, settings: &TlsSettings) -> Result<(), ErrorStack> {
    context.set_min_proto_version(Some(version(settings.oldest)))?;
    context.set_max_proto_version(settings.newest.map(version))?;
    context.set_options(SslOptions::ALL | SslOptions::SINGLE_DH_USE | SslOptions::CIPHER_SERVER_PREFERENCE);
    // A client that asks for a new handshake in the middle only costs us time; nrpe's clients never do.
    context.set_options(SslOptions::NO_RENEGOTIATION | IGNORE_UNEXPECTED_EOF);
    context.set_session_id_context(b"perigee-agent")?;
    // A ticket holds all there is to remember; a cache would only grow.
    context.set_session_cache_mode(SslSessionCacheMode::OFF);
    // The 2048-bit group of RFC 3526. OpenSSL knows it by name and takes short exponents, at a fifteenth of the cost of nrpe's own.
    let (prime, generator) = (BigNum::get_rfc3526_prime_2048()?, BigNum::from_u32(2)?);
    context.set_tmp_dh(&*Dh::from_pqg(prime, None, generator)?)
}

const fn version(protocol: Protocol) -> SslVersion {
    match protocol {
        Protocol::Ssl3 => SslVersion::SSL3,
        Protocol::Tls1 => SslVersion::TLS1,
        Protocol::Tls11 => SslVersion::TLS1_1,
        Protocol::Tls12 => SslVersion::TLS1_2,
        Protocol::Tls13 => SslVersion::TLS1_3,
    }
}

fn agreed(ssl: &SslRef) -> Agreed {
    let client = ssl.peer_certificate().map(|certificate| {
        let valid = if ssl.verify_result() == X509VerifyResult::OK { "" } else { ", not trusted" };
        format!("{} (issuer {}{valid})", name(certificate.subject_name()), name(certificate.issuer_name()))
    });
    Agreed {
        protocol: ssl.version_str(),
        cipher: ssl.current_cipher().map_or("?", |cipher| cipher.name()).to_owned(),
        resumed: ssl.session_reused(),
        client,
    }
}

fn name(name: &X509NameRef) -> String {
    let part = |entry: &openssl::x509::X509NameEntryRef| {
        let key = entry.object().nid().short_name().unwrap_or("?").to_owned();
        format!("/{key}={}", String::from_utf8_lossy(entry.data().as_slice()))
    };
    name.entries().map(part).collect()
}

/// OpenSSL says `No such file` in words that name its own sources.
fn readable(key: &str, file: &Path) -> Result<(), Unusable> {
    std::fs::File::open(file)
        .map(|_| ())
        .map_err(|error| Unusable { what: format!("{key} {}", file.display()), why: error.to_string() })
}

fn unusable(what: &str, error: &ErrorStack) -> Unusable {
    let why = error.errors().iter().find_map(openssl::error::Error::reason).unwrap_or("unknown reason");
    Unusable { what: what.to_owned(), why: why.to_owned() }
}

fn words(error: &openssl::ssl::Error) -> String {
    if let Some(io) = error.io_error() {
        return format!("the client is gone: {io}");
    }
    if matches!(error.code(), ErrorCode::ZERO_RETURN | ErrorCode::SYSCALL) {
        return "the client closed".to_owned();
    }
    let reason = error.ssl_error().and_then(|stack| stack.errors().iter().find_map(openssl::error::Error::reason));
    reason.unwrap_or("unknown reason").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::config::{Draft, statements};

    fn tls(text: &str) -> Result<Tls, String> {
        let (found, _) = statements("nrpe.cfg", text.as_bytes());
        let mut draft = Draft::default();
        for statement in &found {
            draft.take(statement);
        }
        Tls::new(&draft.finish().unwrap().0.tls).map_err(|error| error.to_string())
    }

    #[test]
    fn what_openssl_does_not_take_is_named_by_its_key() {
        assert!(tls("").is_ok());
        assert!(tls("ssl_use_adh=2\n").is_ok());
        let error = tls("ssl_cipher_list=NO_SUCH_CIPHER\n").unwrap_err();
        assert!(error.contains("NO_SUCH_CIPHER") && error.contains("no cipher match"), "{error}");
        let error = tls("ssl_cert_file=/missing.crt\nssl_privatekey_file=/missing.key\n").unwrap_err();
        assert!(error.starts_with("ssl_cert_file /missing.crt: No such file"), "{error}");
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("no.crt");
        std::fs::write(&file, "no certificate\n").unwrap();
        let error = tls(&format!("ssl_cert_file={0}\nssl_privatekey_file={0}\n", file.display())).unwrap_err();
        assert!(error.contains("no.crt: ") && error.contains("no start line"), "{error}");
    }
}
