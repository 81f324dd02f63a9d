//! Certificates as no honest master would make them, signed by the honest master's CA.

use std::path::PathBuf;
use std::sync::Arc;

use master::trust::Trust;
use rcgen::{
    CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, SanType,
    SerialNumber,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use shared::identity::master_dns_name;
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

/// A chain and its key.
pub(crate) type Shown = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// One installation whose CA key the test holds.
pub(crate) struct Forge {
    pub(crate) trust: Arc<Trust>,
    issuer: Issuer<'static, KeyPair>,
    directory: TempDir,
}

/// Subject alternative names, RFC 5280 section 4.2.1.6.
const SUBJECT_ALT_NAME: [u64; 4] = [2, 5, 29, 17];

impl Forge {
    pub(crate) fn new() -> Forge {
        let directory = TempDir::new().unwrap();
        let trust = Arc::new(Trust::open(directory.path(), None).unwrap());
        let read = |name: &str| std::fs::read_to_string(directory.path().join("trust").join(name)).unwrap();
        let key = KeyPair::from_pem(&read("ca.key")).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&read("ca.crt"), key).unwrap();
        Forge { trust, issuer, directory }
    }

    /// Another CA that claims to be the same installation, down to every name.
    pub(crate) fn impostor(&self) -> Forge {
        let other = Forge::new();
        std::fs::write(other.directory.path().join("installation"), self.trust.installation().as_str()).unwrap();
        Forge { trust: Arc::new(Trust::open(other.directory.path(), None).unwrap()), ..other }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The certificate directory of slot 1 in `eu`, as `perigee-master certificate` writes it.
    pub(crate) fn slot_directory(&self) -> PathBuf {
        let out = self.path("slot");
        self.trust.issue_slot(&"eu".parse().unwrap(), "1".parse().unwrap(), 30, &out).unwrap();
        out
    }

    pub(crate) fn slot_uri(&self) -> String {
        format!("perigee://{}/region/eu/slot/1", self.trust.installation())
    }

    pub(crate) fn master_uri(&self) -> String {
        format!("perigee://{}/master", self.trust.installation())
    }

    /// What the master would sign for slot 1 in `eu`.
    pub(crate) fn slot(&self) -> CertificateParams {
        let mut params = leaf(ExtendedKeyUsagePurpose::ClientAuth);
        params.subject_alt_names = vec![uri(&self.slot_uri())];
        params
    }

    /// What the master would sign for itself.
    pub(crate) fn master(&self) -> CertificateParams {
        let mut params = leaf(ExtendedKeyUsagePurpose::ServerAuth);
        params.subject_alt_names = vec![uri(&self.master_uri()), dns(&master_dns_name(self.trust.installation()))];
        params
    }

    /// Certificate and key as files hold them.
    pub(crate) fn sign_pem(&self, params: &CertificateParams) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    pub(crate) fn sign(&self, params: &CertificateParams) -> Shown {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        (vec![certificate.der().clone()], key.into())
    }
}

fn leaf(usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = CertificateParams::default();
    lives(&mut params, Duration::days(-1), Duration::days(7));
    params.serial_number = Some(SerialNumber::from_slice(&[0x51; 16]));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params
}

/// Sets begin and end, from now.
pub(crate) fn lives(params: &mut CertificateParams, from: Duration, to: Duration) {
    params.not_before = OffsetDateTime::now_utc() + from;
    params.not_after = OffsetDateTime::now_utc() + to;
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

pub(crate) fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

/// Puts a list of names byte by byte: (tag number, content), each at most 127 bytes.
pub(crate) fn raw_names(params: &mut CertificateParams, names: &[(u8, &[u8])]) {
    let mut list = Vec::new();
    for (tag, content) in names {
        list.extend([0x80 | tag, u8::try_from(content.len()).unwrap()]);
        list.extend_from_slice(content);
    }
    let length = u8::try_from(list.len()).unwrap();
    let mut sequence = if length < 128 { vec![0x30, length] } else { vec![0x30, 0x81, length] };
    sequence.extend(list);
    params.subject_alt_names.clear();
    params.custom_extensions = vec![CustomExtension::from_oid_content(&SUBJECT_ALT_NAME, sequence)];
}
