//! What the satellite shows and whom it believes: reads its certificate directory and makes the TLS and QUIC configuration from it.
//! Decides nothing at run time; knows no address. The surprise: the installation, and with it the name asked of the master's
//! certificate, is read from the satellite's own certificate.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, IdleTimeout, TransportConfig, VarInt};
use rustls::RootCertStore;
use rustls::client::Resumption;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use shared::frame::LINK_PROTOCOL;
use shared::identity::{Leaf, key_is_exposed};

/// A master not heard for this long is gone.
pub const IDLE: Duration = Duration::from_secs(15);
/// A quiet connection is kept open by a packet this often; two may be lost before [`IDLE`].
pub const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Received and not yet read; then the master waits. The control stream is the only one, so stream and connection have the same.
pub const RECEIVE_WINDOW: u32 = 4 * 1024 * 1024;
/// Sent and not yet acknowledged by QUIC; then the lanes wait.
pub const SEND_WINDOW: u64 = 4 * 1024 * 1024;
/// Handshake bytes held out of order; more closes the connection.
pub const HANDSHAKE_BYTES: usize = 16 * 1024;
/// Largest certificate or key file that is read; a larger one is an error.
pub const PEM_BYTES_MAX: u64 = 256 * 1024;

/// Everything one attempt to connect needs.
pub(super) struct Credentials {
    /// Who this satellite is.
    pub(super) leaf: Leaf,
    /// The QUIC configuration that shows it.
    pub(super) config: ClientConfig,
}

/// Reads `slot.crt`, `slot.key` and `ca.crt`.
pub(super) fn read(directory: &Path) -> Result<Credentials> {
    let shown = directory.join("slot.crt");
    let chain = read_certificates(&shown)?;
    let key = read_key(&directory.join("slot.key"))?;
    let first = chain.first().with_context(|| format!("{} holds no certificate", shown.display()))?;
    let leaf = Leaf::of_slot(first).with_context(|| format!("{} is no certificate for a slot", shown.display()))?;
    let mut roots = RootCertStore::empty();
    let accepted = directory.join("ca.crt");
    for ca in read_certificates(&accepted)? {
        roots.add(ca).with_context(|| format!("{} holds a certificate that is no CA", accepted.display()))?;
    }
    ensure!(!roots.is_empty(), "{} holds no CA certificate", accepted.display());

    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("TLS 1.3 is not there")?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .with_context(|| format!("the certificate and key in {} cannot be used", directory.display()))?;
    tls.alpn_protocols = vec![LINK_PROTOCOL.to_vec()];
    tls.resumption = Resumption::disabled();
    tls.enable_early_data = false;

    let quic = QuicClientConfig::try_from(tls).context("QUIC's first cipher suite is not there")?;
    let mut config = ClientConfig::new(Arc::new(quic));
    config.transport_config(Arc::new(transport()?));
    Ok(Credentials { leaf, config })
}

/// Who the certificate in `slot.crt` speaks for; `Ok(None)` while there is none.
///
/// # Errors
/// When there is a file and it is no slot's certificate.
pub fn identity(directory: &Path) -> Result<Option<Leaf>> {
    let shown = directory.join("slot.crt");
    if !shown.try_exists().with_context(|| format!("cannot look for {}", shown.display()))? {
        return Ok(None);
    }
    let chain = read_certificates(&shown)?;
    let first = chain.first().with_context(|| format!("{} holds no certificate", shown.display()))?;
    let leaf = Leaf::of_slot(first).with_context(|| format!("{} is no certificate for a slot", shown.display()))?;
    Ok(Some(leaf))
}

fn transport() -> Result<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_idle_timeout(Some(IdleTimeout::try_from(IDLE).context("the idle timeout is too long for QUIC")?))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .stream_receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .send_window(SEND_WINDOW)
        .crypto_buffer_size(HANDSHAKE_BYTES)
        .datagram_receive_buffer_size(None)
        .datagram_send_buffer_size(0);
    Ok(transport)
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(&read_bounded(path)?)
        .collect::<Result<_, _>>()
        .with_context(|| format!("{} holds no PEM certificates", path.display()))
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    let bytes = read_bounded(path)?;
    let mode = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.mode();
    ensure!(
        !key_is_exposed(mode),
        "the private key {path} is open to others (mode {mode:04o}): run `chmod 600 {path}` (for a Docker secret set `mode: \
         0400`), and have a new certificate made, for whoever could read it can speak for this slot",
        path = path.display(),
        mode = mode & 0o7777
    );
    PrivateKeyDer::from_pem_slice(&bytes)
        .with_context(|| format!("{} holds no private key that can be used", path.display()))
}

fn read_bounded(path: &Path) -> Result<Vec<u8>> {
    let hint = || {
        format!(
            "cannot read {}: `perigee-master certificate` makes the certificate directory of a slot",
            path.display()
        )
    };
    let size = fs::metadata(path).with_context(hint)?.len();
    ensure!(size <= PEM_BYTES_MAX, "{} has {size} bytes; at most {PEM_BYTES_MAX} are read", path.display());
    fs::read(path).with_context(hint)
}
