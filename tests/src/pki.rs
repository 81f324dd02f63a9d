//! Certificates as a test of NRPE over TLS needs them: an authority, a daemon, a client, what has expired, and what somebody else
//! signed. Files on disk, readable by everybody: the daemon under test runs as another user.
//!
//! The surprise: dates come from the clock, not from rcgen's default of 1975 to 4096, because "expired" is one of the cases.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PublicKeyData as _,
};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

/// A certificate and its key as files.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// The certificate, DER.
    pub der: Vec<u8>,
    /// Its SubjectPublicKeyInfo, DER: what a pin is the SHA-256 of.
    pub public_key: Vec<u8>,
}

/// An authority and the directory of its files.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: PathBuf,
    /// Its own certificate, PEM.
    pub certificate: PathBuf,
}

/// All that the tests use, in a directory that goes with it.
#[derive(Debug)]
pub struct Pki {
    /// Signs everything but `foreign`.
    pub authority: Authority,
    /// A daemon's: `localhost`, `nrpe.example.net`, 127.0.0.1 and ::1.
    pub server: Issued,
    /// A daemon's of the same names, with another key.
    pub other_server: Issued,
    /// A daemon's for `elsewhere.example.net` alone.
    pub elsewhere: Issued,
    /// A daemon's of the same names that expired yesterday.
    pub expired: Issued,
    /// A client's.
    pub client: Issued,
    /// An authority that nobody here trusts.
    pub foreign_authority: Authority,
    /// A client's, signed by that one.
    pub foreign_client: Issued,
    /// A daemon's of the same names, signed by that one.
    pub foreign_server: Issued,
    directory: TempDir,
}

/// The names of the daemon's certificates.
pub const SERVER_NAMES: &[&str] = &["localhost", "nrpe.example.net", "127.0.0.1", "::1"];

impl Pki {
    /// Makes keys and certificates; takes some milliseconds.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        let authority = Authority::new(directory.path(), "ca")?;
        let foreign_authority = Authority::new(directory.path(), "foreign-ca")?;
        let (server, client) = (ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth);
        let year = (-1, 365);
        Ok(Self {
            server: authority.issue("server", SERVER_NAMES, &server, year)?,
            other_server: authority.issue("other-server", SERVER_NAMES, &server, year)?,
            elsewhere: authority.issue("elsewhere", &["elsewhere.example.net"], &server, year)?,
            expired: authority.issue("expired", SERVER_NAMES, &server, (-30, -1))?,
            client: authority.issue("client", &[], &client, year)?,
            foreign_client: foreign_authority.issue("foreign-client", &[], &client, year)?,
            foreign_server: foreign_authority.issue("foreign-server", SERVER_NAMES, &server, year)?,
            authority,
            foreign_authority,
            directory,
        })
    }

    /// Where the files are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Authority {
    /// An authority whose certificate is `NAME.pem` in `directory`.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn new(directory: &Path, name: &str) -> Result<Self> {
        let mut params = params(name, &[], (-1, 3650))?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let certificate = directory.join(format!("{name}.pem"));
        write(&certificate, &issuer.pem())?;
        Ok(Self { issuer, directory: directory.to_owned(), certificate })
    }

    /// An authority that this one has signed; its certificate is `NAME.pem`.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn intermediate(&self, name: &str) -> Result<Self> {
        let mut params = params(name, &[], (-1, 3650))?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = true;
        let issuer = CertifiedIssuer::signed_by(params, KeyPair::generate()?, &self.issuer)?;
        let certificate = self.directory.join(format!("{name}.pem"));
        write(&certificate, &issuer.pem())?;
        Ok(Self { issuer, directory: self.directory.clone(), certificate })
    }

    /// A certificate `NAME.pem` with a new key `NAME.key`, for these DNS names and addresses, valid from and until so many days
    /// from now.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn issue(
        &self,
        name: &str,
        names: &[&str],
        purpose: &ExtendedKeyUsagePurpose,
        days: (i64, i64),
    ) -> Result<Issued> {
        let mut params = params(name, names, days)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose.clone()];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let made = params.signed_by(&key, &self.issuer)?;
        let files = (self.directory.join(format!("{name}.pem")), self.directory.join(format!("{name}.key")));
        write(&files.0, &made.pem())?;
        write(&files.1, &key.serialize_pem())?;
        Ok(Issued {
            certificate: files.0,
            key: files.1,
            der: made.der().to_vec(),
            public_key: key.subject_public_key_info(),
        })
    }
}

fn params(name: &str, names: &[&str], days: (i64, i64)) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())?;
    params.distinguished_name.push(DnType::CommonName, name);
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now + Duration::days(days.0), now + Duration::days(days.1));
    Ok(params)
}

fn write(path: &Path, pem: &str) -> Result<()> {
    fs::write(path, pem).with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_is_what_openssl_believes() {
        use openssl::stack::Stack;
        use openssl::x509::store::X509StoreBuilder;
        use openssl::x509::{X509, X509StoreContext};

        let pki = Pki::new().unwrap();
        let verifies = |issued: &Issued, authority: &Authority| {
            let mut store = X509StoreBuilder::new().unwrap();
            store.add_cert(X509::from_pem(&fs::read(&authority.certificate).unwrap()).unwrap()).unwrap();
            let leaf = X509::from_pem(&fs::read(&issued.certificate).unwrap()).unwrap();
            let mut context = X509StoreContext::new().unwrap();
            context.init(&store.build(), &leaf, &Stack::new().unwrap(), |context| context.verify_cert()).unwrap()
        };
        assert!(verifies(&pki.server, &pki.authority) && verifies(&pki.client, &pki.authority));
        assert!(!verifies(&pki.expired, &pki.authority), "expired");
        assert!(!verifies(&pki.foreign_server, &pki.authority), "foreign");
        assert!(verifies(&pki.foreign_server, &pki.foreign_authority));
        let leaf = X509::from_der(&pki.server.der).unwrap();
        assert_eq!(leaf.public_key().unwrap().public_key_to_der().unwrap(), pki.server.public_key);
    }
}
