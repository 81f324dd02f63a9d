//! Builds OpenSSL contexts from what a policy offers and from the files it names, and knows when a file has changed. Reads and
//! stats on the caller's thread: a few small local files.
//!
//! The surprise: keys and certificates are parsed here and not by OpenSSL's own file functions, which would ask a terminal for
//! the passphrase of an encrypted key and wait.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use openssl::error::ErrorStack;
use openssl::pkey::PKey;
use openssl::ssl::{
    SslConnector, SslConnectorBuilder, SslContext, SslContextBuilder, SslMethod, SslMode, SslOptions, SslVerifyMode,
    SslVersion,
};
use openssl::x509::X509;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::verify::X509VerifyFlags;

use crate::probe::nrpe::error::Class;
use crate::probe::nrpe::policy::{Identity, Offer, Peer, Protocol, TlsPolicy};

/// `SSL_OP_IGNORE_UNEXPECTED_EOF`, by number: the name exists only where OpenSSL is 3.0 or newer, and older ones ignore the bit.
const IGNORE_UNEXPECTED_EOF: SslOptions = SslOptions::from_bits_retain(0x80);
/// `SSL_OP_LEGACY_SERVER_CONNECT`, by number: the `openssl` crate has no name for it.
const LEGACY_SERVER_CONNECT: SslOptions = SslOptions::from_bits_retain(0x4);
/// Sessions kept by each context; beyond it OpenSSL drops the oldest, and those daemons see one full handshake more.
const MAX_SESSIONS: i32 = 20_000;
/// A file of certificates or a key beyond this is refused: the largest bundle of authorities has a quarter of it.
const MAX_FILE: u64 = 1024 * 1024;

/// The files of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Files {
    authorities: Authorities,
    identity: Option<Identity>,
}

/// Whose signature counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Authorities {
    /// Nobody's: nothing is verified, or pins are.
    None,
    /// Those of this file.
    File(PathBuf),
    /// Those the system trusts.
    System,
}

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

/// The files as they were when they were last read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stamps(Vec<Stamp>);

impl Files {
    /// The files that a policy names.
    pub(super) fn of(policy: &TlsPolicy) -> Self {
        let authorities = match &policy.peer {
            Peer::Verified { ca: Some(ca), .. } => Authorities::File(ca.clone()),
            Peer::Verified { pins, .. } if pins.is_empty() => Authorities::System,
            Peer::Verified { .. } | Peer::Unverified => Authorities::None,
        };
        Self { authorities, identity: policy.identity.clone() }
    }

    /// How the files are now.
    ///
    /// # Errors
    /// One of them cannot be looked at; which, and why.
    pub(super) fn stamps(&self) -> Result<Stamps, Class> {
        let identity = self.identity.iter().flat_map(|identity| [&identity.certificate, &identity.key]);
        let ca = match &self.authorities {
            Authorities::File(ca) => Some(ca),
            Authorities::None | Authorities::System => None,
        };
        ca.into_iter().chain(identity).map(|path| stamp(path)).collect::<Result<_, _>>().map(Stamps)
    }

    /// A connector that offers this, trusts and shows what the files hold; it keeps sessions.
    ///
    /// # Errors
    /// A file cannot be used ([`Class::TlsFiles`]), or OpenSSL cannot do what is offered ([`Class::Tls`]).
    pub(super) fn connector(&self, offer: &Offer) -> Result<SslConnectorBuilder, Class> {
        let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(|error| lacking(offer, &error))?;
        self.furnish(&mut builder, offer)?;
        Ok(builder)
    }

    /// A context for single connections. A connector's builder reads OpenSSL's own list of authorities, needed or not, which
    /// takes longer than a check; this one does not.
    ///
    /// # Errors
    /// As with [`Files::connector`].
    pub(super) fn context(&self, offer: &Offer) -> Result<SslContext, Class> {
        let mut builder = SslContext::builder(SslMethod::tls_client()).map_err(|error| lacking(offer, &error))?;
        // What a connector sets as well.
        builder.set_options(SslOptions::ALL | SslOptions::NO_COMPRESSION | SslOptions::NO_SSLV2 | SslOptions::NO_SSLV3);
        builder.clear_options(SslOptions::DONT_INSERT_EMPTY_FRAGMENTS);
        builder.set_mode(SslMode::AUTO_RETRY | SslMode::ACCEPT_MOVING_WRITE_BUFFER | SslMode::ENABLE_PARTIAL_WRITE);
        self.furnish(&mut builder, offer)?;
        Ok(builder.build())
    }

    fn furnish(&self, builder: &mut SslContextBuilder, offer: &Offer) -> Result<(), Class> {
        offering(builder, offer).map_err(|error| lacking(offer, &error))?;
        match &self.authorities {
            Authorities::None => {}
            Authorities::File(ca) => {
                trusting(builder, certificates(ca)?).map_err(|error| unusable(ca, first(&error)))?;
            }
            Authorities::System => {
                trusting(builder, of_the_system()?).map_err(|error| Class::TlsFiles(first(&error)))?;
            }
        }
        if let Some(Identity { certificate, key: key_path }) = &self.identity {
            let mut chain = certificates(certificate)?.into_iter();
            let key = PKey::private_key_from_pem_callback(&read(key_path)?, |_| Ok(0)).map_err(|error| {
                unusable(key_path, format!("no private key (PEM, without a passphrase) in it: {}", first(&error)))
            })?;
            if let Some(own) = chain.next() {
                builder.set_certificate(&own).map_err(|error| unusable(certificate, first(&error)))?;
            }
            for issuer in chain {
                builder.add_extra_chain_cert(issuer).map_err(|error| unusable(certificate, first(&error)))?;
            }
            builder.set_private_key(&key).and_then(|()| builder.check_private_key()).map_err(|error| {
                unusable(key_path, format!("it is not the key of {}: {}", certificate.display(), first(&error)))
            })?;
        }
        Ok(())
    }
}

fn lacking(offer: &Offer, error: &ErrorStack) -> Class {
    let ciphers = &offer.ciphers;
    Class::Tls(format!("OpenSSL cannot offer the ciphers {ciphers} in this range of protocols: {}", first(error)))
}

fn offering(builder: &mut SslContextBuilder, offer: &Offer) -> Result<(), ErrorStack> {
    // Before the list, which may say it otherwise, and after it, where it may not.
    if let Some(level) = offer.level {
        builder.set_security_level(level);
    }
    builder.set_cipher_list(&offer.ciphers)?;
    if let Some(level) = offer.level.filter(|_| offer.verified) {
        builder.set_security_level(level);
    }
    builder.set_min_proto_version(Some(version(offer.oldest)))?;
    builder.set_max_proto_version(offer.newest.map(version))?;
    // Whom to believe is said for each connection (`judge`).
    builder.set_verify(if offer.verified { SslVerifyMode::PEER } else { SslVerifyMode::NONE });
    builder.set_session_cache_size(MAX_SESSIONS);
    // One system call for all records that are there, not two for each: a peer may send thousands of a few bytes.
    builder.set_read_ahead(true);
    // We never renegotiate, and not because a peer asks for it either.
    builder.set_options(SslOptions::NO_RENEGOTIATION);
    // Daemons close without close_notify. Nothing depends on it: an answer knows its own length and checksum.
    builder.set_options(IGNORE_UNEXPECTED_EOF);
    if !offer.verified {
        // Daemons on the OpenSSL of 2009 and before know no safe renegotiation. We never renegotiate.
        builder.set_options(LEGACY_SERVER_CONNECT);
    }
    Ok(())
}

/// Trusts these certificates and no other, also where they are no authorities: who names a certificate means it.
fn trusting(builder: &mut SslContextBuilder, certificates: Vec<X509>) -> Result<(), ErrorStack> {
    let mut store = X509StoreBuilder::new()?;
    store.set_flags(X509VerifyFlags::PARTIAL_CHAIN)?;
    for certificate in certificates {
        store.add_cert(certificate)?;
    }
    builder.set_cert_store(store.build());
    Ok(())
}

fn version(protocol: Protocol) -> SslVersion {
    match protocol {
        Protocol::Ssl3 => SslVersion::SSL3,
        Protocol::Tls1 => SslVersion::TLS1,
        Protocol::Tls1_1 => SslVersion::TLS1_1,
        Protocol::Tls1_2 => SslVersion::TLS1_2,
        Protocol::Tls1_3 => SslVersion::TLS1_3,
    }
}

fn stamp(path: &Path) -> Result<Stamp, Class> {
    let found = fs::metadata(path).map_err(|error| unusable(path, error.to_string()))?;
    Ok(Stamp {
        device: found.dev(),
        inode: found.ino(),
        length: found.len(),
        changed: (found.mtime(), found.mtime_nsec()),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, Class> {
    let found = fs::metadata(path).map_err(|error| unusable(path, error.to_string()))?;
    if !found.is_file() || found.len() > MAX_FILE {
        return Err(unusable(path, format!("not a file of at most {MAX_FILE} bytes")));
    }
    fs::read(path).map_err(|error| unusable(path, error.to_string()))
}

fn certificates(path: &Path) -> Result<Vec<X509>, Class> {
    let found = X509::stack_from_pem(&read(path)?).map_err(|error| unusable(path, first(&error)))?;
    if found.is_empty() { Err(unusable(path, "no certificate (PEM) in it".to_owned())) } else { Ok(found) }
}

/// What the system trusts. Not by OpenSSL's own paths: one that was built with the program knows those of the machine that built it.
fn of_the_system() -> Result<Vec<X509>, Class> {
    let loaded = rustls_native_certs::load_native_certs();
    // One that OpenSSL cannot read is one less.
    let found: Vec<X509> = loaded.certs.iter().filter_map(|certificate| X509::from_der(certificate).ok()).collect();
    if found.is_empty() {
        let why = loaded.errors.first().map_or_else(|| "there are none".to_owned(), ToString::to_string);
        return Err(Class::TlsFiles(format!("the certificates that the system trusts: {why}")));
    }
    Ok(found)
}

fn unusable(path: &Path, why: String) -> Class {
    Class::TlsFiles(format!("{}: {why}", path.display()))
}

fn first(error: &ErrorStack) -> String {
    error.errors().iter().find_map(openssl::error::Error::reason).unwrap_or("unknown reason").to_owned()
}
