//! The master's TLS and QUIC configuration: TLS 1.3 only, a client certificate demanded and checked by rustls' stock verifier,
//! no session ever kept, every QUIC window and limit named. Decides nothing at run time. The surprise: rustls asks the session
//! store even when it gives no tickets, so a store that keeps nothing is where an attempt to resume is seen.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use quinn::congestion::BbrConfig;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{IdleTimeout, MtuDiscoveryConfig, ServerConfig, TransportConfig, ValidationTokenConfig, VarInt};
use rustls::RootCertStore;
use rustls::server::{StoresServerSessions, WebPkiClientVerifier};
use shared::frame::LINK_PROTOCOL;

use crate::trust::{MasterLeaf, Trust};

/// A satellite not heard for this long is gone. QUIC counts anew when something is sent after the last thing heard, at the latest
/// a [`KEEP_ALIVE`] later: the two together stay below 15 s, so that a peer that vanished is noticed before its slot is stale.
pub const IDLE: Duration = Duration::from_secs(10);
/// A quiet connection is kept open by a packet this often; two may be lost before [`IDLE`], and NAT tables forget UDP after 30 s.
pub const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// Until a round trip is measured it is taken for this long (RFC 9002, 6.2.2).
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
/// Streams with two directions a satellite may open: control.
pub const BIDIRECTIONAL_STREAMS: u32 = 1;
/// Streams with one direction a satellite may open: live and backlog.
pub const ONE_WAY_STREAMS: u32 = 2;
/// Received and not yet read, per stream; then the satellite waits. Room for four of the largest frames.
pub const STREAM_WINDOW: u32 = 1024 * 1024;
/// Received and not yet read, per connection; then the satellite waits.
pub const CONNECTION_WINDOW: u32 = 3 * 1024 * 1024;
/// Sent and not yet acknowledged by QUIC, per connection; then the control stream waits.
pub const SEND_WINDOW: u64 = 4 * 1024 * 1024;
/// Handshake bytes held out of order; more closes the connection.
pub const HANDSHAKE_BYTES: usize = 16 * 1024;
/// Attempts not yet looked at; further ones are refused.
pub const INCOMING_MAX: usize = 4_096;
/// Bytes held for one attempt not yet looked at; further ones are dropped and sent again by the peer.
pub const INCOMING_BYTES: u64 = 16 * 1024;
/// The same for all attempts together.
pub const INCOMING_BYTES_ALL: u64 = 8 * 1024 * 1024;
/// A retry token proves an address for this long.
pub const RETRY_TOKEN_LIFE: Duration = Duration::from_secs(15);

/// Keeps no session, and tells when one was offered.
pub(super) struct NoSessions<F> {
    pub(super) offered: F,
}

impl<F> std::fmt::Debug for NoSessions<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NoSessions")
    }
}

impl<F: Fn() + Send + Sync> StoresServerSessions for NoSessions<F> {
    fn put(&self, _: Vec<u8>, _: Vec<u8>) -> bool {
        false
    }

    fn get(&self, _: &[u8]) -> Option<Vec<u8>> {
        (self.offered)();
        None
    }

    fn take(&self, _: &[u8]) -> Option<Vec<u8>> {
        (self.offered)();
        None
    }

    fn can_cache(&self) -> bool {
        false
    }
}

/// The endpoint's configuration for this leaf and the CAs accepted now.
pub(super) fn server_config(
    trust: &Trust,
    leaf: MasterLeaf,
    sessions: Arc<dyn StoresServerSessions>,
) -> Result<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(trust.ca().clone()).context("the CA is no trust anchor")?;
    // The others come from files that anybody may have put there: a bad one must not stop the good ones.
    let (_, unusable) = roots.add_parsable_certificates(trust.accepted().into_iter().skip(1));
    if unusable > 0 {
        tracing::warn!(unusable, "accepted CAs that are no trust anchors are left out");
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .context("cannot make the certificate verifier")?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("TLS 1.3 is not there")?
        .with_client_cert_verifier(verifier)
        .with_single_cert(leaf.chain, leaf.key)
        .context("the master's certificate cannot be used")?;
    tls.alpn_protocols = vec![LINK_PROTOCOL.to_vec()];
    tls.session_storage = sessions;
    tls.send_tls13_tickets = 0;
    tls.max_tls13_tickets = 0;
    tls.max_early_data_size = 0;
    tls.send_half_rtt_data = false;

    let quic = QuicServerConfig::try_from(tls).context("QUIC's first cipher suite is not there")?;
    let mut config = ServerConfig::with_crypto(Arc::new(quic));
    let mut no_tokens = ValidationTokenConfig::default();
    no_tokens.sent(0);
    config
        .transport_config(Arc::new(transport()?))
        .migration(true)
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(INCOMING_BYTES_ALL)
        .retry_token_lifetime(RETRY_TOKEN_LIFE)
        .validation_token_config(no_tokens);
    Ok(config)
}

fn transport() -> Result<TransportConfig> {
    let mut sizes = MtuDiscoveryConfig::default();
    sizes.interval(MTU_LOOKED_FOR).upper_bound(MTU_MAX).black_hole_cooldown(MTU_AFTER_BLACK_HOLE);
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(BIDIRECTIONAL_STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(ONE_WAY_STREAMS))
        .max_idle_timeout(Some(IdleTimeout::try_from(IDLE).context("the idle timeout is too long for QUIC")?))
        .keep_alive_interval(Some(KEEP_ALIVE))
        // The satellites' default too, and chosen by measurement: docs/decisions/0009-congestion-controller.md.
        .congestion_controller_factory(Arc::new(BbrConfig::default()))
        .initial_rtt(INITIAL_ROUND_TRIP)
        .initial_mtu(MTU_MIN)
        .min_mtu(MTU_MIN)
        .mtu_discovery_config(Some(sizes))
        // The peer acknowledges every second packet at once: what is lost is known one round trip later, and the frames are few.
        .ack_frequency_config(None)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(SEND_WINDOW)
        .crypto_buffer_size(HANDSHAKE_BYTES)
        .datagram_receive_buffer_size(None)
        .datagram_send_buffer_size(0);
    Ok(transport)
}
