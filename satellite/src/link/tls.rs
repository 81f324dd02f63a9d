//! What the satellite shows and whom it believes: reads its certificate directory and makes the TLS and QUIC configuration from it.
//! Decides nothing at run time; knows no address. The surprise: the installation, and with it the name asked of the master's
//! certificate, is read from the satellite's own certificate.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use quinn::congestion::{BbrConfig, ControllerFactory, CubicConfig, NewRenoConfig};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use rustls::RootCertStore;
use rustls::client::Resumption;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use shared::frame::LINK_PROTOCOL;
use shared::identity::{Leaf, key_is_exposed};

/// A master not heard for this long is gone. QUIC counts anew when something is sent after the last thing heard, at the latest a
/// [`KEEP_ALIVE`] later: the two together stay below 15 s, so that a peer that vanished is noticed before its slot counts as stale.
pub const IDLE: Duration = Duration::from_secs(10);
/// A quiet connection is kept open by a packet this often; two may be lost before [`IDLE`], and NAT tables forget UDP after 30 s.
pub const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// Until a round trip is measured it is taken for this long (RFC 9002, 6.2.2), so a first packet without answer is sent again
/// after 1, 3 and 7 s. Less would send twice to everybody behind a satellite in orbit.
pub const INITIAL_ROUND_TRIP: Duration = Duration::from_millis(333);
/// Bytes of UDP payload that a road carries that QUIC works on at all (RFC 9000, 14.1): where all begins, and falls back to when
/// larger packets vanish.
pub const MTU_MIN: u16 = 1200;
/// The most that is looked for: an Ethernet frame under IPv6.
pub const MTU_MAX: u16 = 1452;
/// How often a larger size is looked for; roads change rarely.
pub const MTU_LOOKED_FOR: Duration = Duration::from_secs(600);
/// After larger packets vanished none are tried for this long.
pub const MTU_AFTER_BLACK_HOLE: Duration = Duration::from_secs(60);
/// Received and not yet read; then the master waits. The control stream is the only one, so stream and connection have the same.
pub const RECEIVE_WINDOW: u32 = 4 * 1024 * 1024;
/// Sent and not yet acknowledged by QUIC; then the lanes wait.
pub const SEND_WINDOW: u64 = 4 * 1024 * 1024;
/// Handshake bytes held out of order; more closes the connection.
pub const HANDSHAKE_BYTES: usize = 16 * 1024;
/// Largest certificate or key file that is read; a larger one is an error.
pub const PEM_BYTES_MAX: u64 = 256 * 1024;

/// How QUIC finds out how much a road carries. What was measured of them is in docs/decisions/0009-congestion-controller.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Congestion {
    /// By losses, as TCP did (RFC 9002).
    NewReno,
    /// By losses, growing back faster (RFC 9438).
    Cubic,
    /// By the rate that arrives and the shortest round trip: a lossy road is not taken for a full one.
    #[default]
    Bbr,
}

impl Congestion {
    fn factory(self) -> Arc<dyn ControllerFactory + Send + Sync> {
        match self {
            Congestion::NewReno => Arc::new(NewRenoConfig::default()),
            Congestion::Cubic => Arc::new(CubicConfig::default()),
            Congestion::Bbr => Arc::new(BbrConfig::default()),
        }
    }
}

/// Everything one attempt to connect needs.
pub(super) struct Credentials {
    /// Who this satellite is.
    pub(super) leaf: Leaf,
    /// The QUIC configuration that shows it.
    pub(super) config: ClientConfig,
}

/// Reads `slot.crt`, `slot.key` and `ca.crt`.
pub(super) fn read(directory: &Path, congestion: Congestion) -> Result<Credentials> {
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
    config.transport_config(Arc::new(transport(congestion)?));
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

fn transport(congestion: Congestion) -> Result<TransportConfig> {
    let mut sizes = MtuDiscoveryConfig::default();
    sizes.interval(MTU_LOOKED_FOR).upper_bound(MTU_MAX).black_hole_cooldown(MTU_AFTER_BLACK_HOLE);
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_idle_timeout(Some(IdleTimeout::try_from(IDLE).context("the idle timeout is too long for QUIC")?))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .congestion_controller_factory(congestion.factory())
        .initial_rtt(INITIAL_ROUND_TRIP)
        .initial_mtu(MTU_MIN)
        .min_mtu(MTU_MIN)
        .mtu_discovery_config(Some(sizes))
        // The peer acknowledges every second packet at once: what is lost is known one round trip later, and the frames are few.
        .ack_frequency_config(None)
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
