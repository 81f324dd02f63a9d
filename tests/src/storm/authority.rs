//! Certificates of as many slots as are wanted, signed with the key of the master under test: its data directory is at hand.
//! The surprise: all of them share one key pair, which nobody checks and which saves the making of thousands.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, IdleTimeout, TransportConfig, VarInt};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber};
use rustls::RootCertStore;
use rustls::client::Resumption;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use satellite::link::tls::{HANDSHAKE_BYTES, IDLE, KEEP_ALIVE, RECEIVE_WINDOW, SEND_WINDOW};
use shared::frame::LINK_PROTOCOL;
use shared::identity::{Identity, master_dns_name};
use shared::name::{InstallationId, Slot};
use time::{Duration, OffsetDateTime};

/// The CA of an installation, with its key.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    key: KeyPair,
    roots: Arc<RootCertStore>,
    transport: Arc<TransportConfig>,
    installation: InstallationId,
}

impl Authority {
    /// Of the master that has started in this data directory.
    ///
    /// # Errors
    /// No master has, or its files cannot be read.
    pub(super) fn open(data: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = data.join("trust").join(name);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let (certificate, key) = (read("ca.crt")?, KeyPair::from_pem(&read("ca.key")?)?);
        let mut roots = RootCertStore::empty();
        for ca in rustls_pki_types::pem::PemObject::pem_slice_iter(certificate.as_bytes()) {
            let ca: CertificateDer<'static> = ca?;
            roots.add(ca)?;
        }
        Ok(Self {
            issuer: Issuer::from_ca_cert_pem(&certificate, key)?,
            key: KeyPair::generate()?,
            roots: Arc::new(roots),
            transport: Arc::new(transport()?),
            installation: master::trust::installation(data)?.context("no master has started here")?,
        })
    }

    /// The name asked of the master's certificate.
    #[must_use]
    pub(super) fn master_name(&self) -> String {
        master_dns_name(&self.installation)
    }

    /// What a satellite of this slot connects with.
    ///
    /// # Errors
    /// The certificate cannot be made.
    pub(super) fn config(&self, slot: &Slot) -> Result<ClientConfig> {
        let identity =
            Identity::Slot { installation: self.installation.clone(), region: slot.region.clone(), slot: slot.number };
        let mut params = CertificateParams::default();
        let now = OffsetDateTime::now_utc();
        (params.not_before, params.not_after) = (now - Duration::days(1), now + Duration::days(1));
        params.serial_number = Some(SerialNumber::from_slice(&rand::random::<[u8; 16]>().map(|byte| byte & 0x7f)));
        params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&self.key, &self.issuer)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(Arc::clone(&self.roots))
            .with_client_auth_cert(
                vec![certificate.der().clone()],
                PrivatePkcs8KeyDer::from(self.key.serialize_der()).into(),
            )?;
        tls.alpn_protocols = vec![LINK_PROTOCOL.to_vec()];
        tls.resumption = Resumption::disabled();
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        config.transport_config(Arc::clone(&self.transport));
        Ok(config)
    }
}

/// As a satellite's own.
fn transport() -> Result<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_idle_timeout(Some(IdleTimeout::try_from(IDLE)?))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .stream_receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .send_window(SEND_WINDOW)
        .crypto_buffer_size(HANDSHAKE_BYTES)
        .datagram_receive_buffer_size(None)
        .datagram_send_buffer_size(0);
    Ok(transport)
}
