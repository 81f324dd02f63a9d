//! No session is ever resumed and no early data ever read: neither a ticket of the master's own, for it gives none, nor one that
//! another server with the same certificate has given. That a handshake is full shows in the client's verifier: it is asked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use master::link::{Lane, LinkEvent};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, ServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
    WebPkiServerVerifier,
};
use rustls::server::{ServerSessionMemoryCache, StoresServerSessions, WebPkiClientVerifier};
use rustls::{DigitallySignedStruct, NamedGroup, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use satellite::link::tls::Congestion;
use satellite::link::{LinkEvent as SatelliteEvent, Settings, run};
use shared::frame::{LINK_PROTOCOL, frame_head};
use shared::identity::master_dns_name;
use shared::refusal::{Refusal, Refusals};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::forge::Forge;
use crate::listen::{LOOPBACK, Log, Master, client, client_config, counted_alone, in_time, roots, until};

/// The stock verifier, counting how often it is asked.
#[derive(Debug)]
struct Asked {
    stock: Arc<WebPkiServerVerifier>,
    times: AtomicUsize,
}

impl ServerCertVerifier for Asked {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.times.fetch_add(1, Ordering::SeqCst);
        self.stock.verify_server_cert(leaf, others, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.stock.verify_tls12_signature(message, leaf, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.stock.verify_tls13_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.stock.supported_verify_schemes()
    }
}

/// rustls' own session cache, counting tickets got and offered.
#[derive(Debug)]
struct Tickets {
    cache: ClientSessionMemoryCache,
    got: AtomicUsize,
    offered: AtomicUsize,
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, name: ServerName<'static>, group: NamedGroup) {
        self.cache.set_kx_hint(name, group);
    }

    fn kx_hint(&self, name: &ServerName<'_>) -> Option<NamedGroup> {
        self.cache.kx_hint(name)
    }

    fn set_tls12_session(&self, name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.cache.set_tls12_session(name, value);
    }

    fn tls12_session(&self, name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.cache.tls12_session(name)
    }

    fn remove_tls12_session(&self, name: &ServerName<'static>) {
        self.cache.remove_tls12_session(name);
    }

    fn insert_tls13_ticket(&self, name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.got.fetch_add(1, Ordering::SeqCst);
        self.cache.insert_tls13_ticket(name, value);
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let ticket = self.cache.take_tls13_ticket(name);
        self.offered.fetch_add(usize::from(ticket.is_some()), Ordering::SeqCst);
        ticket
    }
}

/// A satellite that would resume, and send early data, wherever it is let.
struct Eager {
    tls: rustls::ClientConfig,
    asked: Arc<Asked>,
    tickets: Arc<Tickets>,
    client: Endpoint,
    name: String,
}

impl Eager {
    fn of(forge: &Forge) -> Eager {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let stock =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots(forge)), provider.clone()).build().unwrap();
        let asked = Arc::new(Asked { stock, times: AtomicUsize::new(0) });
        let cache = ClientSessionMemoryCache::new(8);
        let tickets = Arc::new(Tickets { cache, got: AtomicUsize::new(0), offered: AtomicUsize::new(0) });
        let (chain, key) = forge.sign(&forge.slot());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(asked.clone())
            .with_client_auth_cert(chain, key)
            .unwrap();
        tls.alpn_protocols = vec![LINK_PROTOCOL.to_vec()];
        tls.resumption = Resumption::store(tickets.clone());
        tls.enable_early_data = true;
        Eager { tls, asked, tickets, client: client(), name: master_dns_name(forge.trust.installation()) }
    }

    fn connecting(&self, address: SocketAddr) -> quinn::Connecting {
        self.client.connect_with(client_config(self.tls.clone()), address, &self.name).unwrap()
    }

    async fn connect(&self, address: SocketAddr) -> Connection {
        in_time("a handshake", self.connecting(address)).await.unwrap()
    }

    fn asked(&self) -> usize {
        self.asked.times.load(Ordering::SeqCst)
    }

    fn got(&self) -> usize {
        self.tickets.got.load(Ordering::SeqCst)
    }

    fn offered(&self) -> usize {
        self.tickets.offered.load(Ordering::SeqCst)
    }
}

/// rustls' own server cache, counting what is kept and asked for.
#[derive(Debug)]
struct Sessions {
    cache: Arc<ServerSessionMemoryCache>,
    kept: AtomicUsize,
    asked_for: AtomicUsize,
}

impl StoresServerSessions for Sessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.kept.fetch_add(1, Ordering::SeqCst);
        self.cache.put(key, value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.asked_for.fetch_add(1, Ordering::SeqCst);
        self.cache.get(key)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.asked_for.fetch_add(1, Ordering::SeqCst);
        self.cache.take(key)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

/// A server with the master's own certificate that gives tickets and takes early data. Its connections live in the channel.
fn generous(forge: &Forge) -> (mpsc::Receiver<Connection>, SocketAddr, Arc<Sessions>) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(forge)), provider.clone()).build().unwrap();
    let leaf = forge.trust.master_leaf().unwrap();
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(leaf.chain, leaf.key)
        .unwrap();
    let cache = ServerSessionMemoryCache::new(64);
    let sessions = Arc::new(Sessions { cache, kept: AtomicUsize::new(0), asked_for: AtomicUsize::new(0) });
    tls.session_storage = sessions.clone();
    tls.alpn_protocols = vec![LINK_PROTOCOL.to_vec()];
    tls.max_early_data_size = u32::MAX;
    let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    let endpoint = Endpoint::server(config, LOOPBACK.parse().unwrap()).unwrap();
    let address = endpoint.local_addr().unwrap();
    let (accepted, connections) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            accepted.send(incoming.await.unwrap()).await.unwrap();
        }
    });
    (connections, address, sessions)
}

async fn say_hello(connection: &Connection) -> quinn::SendStream {
    let (mut control, _) = connection.open_bi().await.unwrap();
    control.write_all(&frame_head(b"hello").unwrap()).await.unwrap();
    control.write_all(b"hello").await.unwrap();
    control
}

async fn greeted(master: &mut Master) {
    let LinkEvent::Connected { session, .. } = master.next().await else { panic!("not connected") };
    assert_eq!(session.slot().get(), 1);
    assert!(matches!(master.next().await, LinkEvent::Frame { lane: Lane::Control, bytes, .. } if bytes == "hello"));
}

/// The tests below would prove nothing if this client never resumed where it may.
#[tokio::test]
async fn the_eager_client_does_resume_where_it_is_let() {
    let forge = Forge::new();
    let eager = Eager::of(&forge);
    let (_connections, address, _) = generous(&forge);
    let first = eager.connect(address).await;
    until("a ticket", || eager.got() > 0).await;
    first.close(0u32.into(), b"");
    let Ok((_second, accepted)) = eager.connecting(address).into_0rtt() else { panic!("no early data tried") };
    assert!(in_time("the answer to early data", accepted).await);
    assert_eq!((eager.offered(), eager.asked()), (1, 1), "resumed: the verifier was asked once for two handshakes");
}

#[tokio::test]
async fn the_master_gives_no_ticket_and_every_handshake_is_full() {
    let forge = Forge::new();
    let eager = Eager::of(&forge);
    let mut master = Master::of(&forge).await;
    let mut kept = Vec::new();
    for round in 1..=2 {
        let connection = eager.connect(master.address).await;
        kept.push(say_hello(&connection).await);
        greeted(&mut master).await;
        assert_eq!((eager.got(), eager.offered(), eager.asked()), (0, 0, round));
        assert!(eager.connecting(master.address).into_0rtt().is_err(), "no ticket, no early data");
    }
    assert_eq!(master.links.refusals().total(Refusal::ResumedSession), 0);
}

#[tokio::test]
async fn a_session_offered_for_resumption_is_refused_and_a_full_handshake_demanded() {
    let (log, forge) = (Log::start(), Forge::new());
    let mut eager = Eager::of(&forge);
    eager.tls.enable_early_data = false;
    let (_connections, address, _) = generous(&forge);
    let _first = eager.connect(address).await;
    until("a ticket", || eager.got() > 0).await;
    let mut master = Master::of(&forge).await;
    let connection = eager.connect(master.address).await;
    assert_eq!((eager.offered(), eager.asked()), (1, 2), "offered, and the certificate checked anew");
    counted_alone(master.links.refusals(), Refusal::ResumedSession).await;
    assert_eq!(log.lines_of(Refusal::ResumedSession), 1);
    let _control = say_hello(&connection).await;
    greeted(&mut master).await;
}

#[tokio::test]
async fn early_data_is_refused_and_never_read() {
    let (log, forge) = (Log::start(), Forge::new());
    let eager = Eager::of(&forge);
    let (_connections, address, _) = generous(&forge);
    let _first = eager.connect(address).await;
    until("a ticket", || eager.got() > 0).await;
    let mut master = Master::of(&forge).await;
    let Ok((connection, accepted)) = eager.connecting(master.address).into_0rtt() else {
        panic!("no early data tried")
    };
    let (mut early, _) = connection.open_bi().await.unwrap();
    early.write_all(&frame_head(b"early").unwrap()).await.unwrap();
    early.write_all(b"early").await.unwrap();
    assert!(!in_time("the answer to early data", accepted).await, "early data was accepted");
    assert_eq!((eager.offered(), eager.asked()), (1, 2), "offered, and the certificate checked anew");
    counted_alone(master.links.refusals(), Refusal::ResumedSession).await;
    assert_eq!(log.lines_of(Refusal::ResumedSession), 1);
    let _control = say_hello(&connection).await;
    greeted(&mut master).await;
    assert!(master.events.try_recv().is_err(), "the early frame came after all");
}

#[tokio::test]
async fn the_satellite_never_offers_a_session() {
    let forge = Forge::new();
    let (mut connections, address, sessions) = generous(&forge);
    let (events, mut told) = mpsc::channel(8);
    let stop = CancellationToken::new();
    let settings = Settings {
        masters: vec![address.to_string()],
        certificates: forge.slot_directory(),
        congestion: Congestion::default(),
        linked_before: false,
    };
    let task = tokio::spawn(run(settings, events, Refusals::default().into(), stop.clone()));
    for _ in 0..2 {
        let connection = in_time("a handshake", connections.recv()).await.unwrap();
        until("a ticket given", || sessions.kept.load(Ordering::SeqCst) > 0).await;
        while !matches!(in_time("a link", told.recv()).await, Some(SatelliteEvent::Connected { .. })) {}
        connection.close(0u32.into(), b"again");
    }
    assert_eq!(sessions.asked_for.load(Ordering::SeqCst), 0);
    stop.cancel();
    in_time("the satellite's stop", task).await.unwrap();
}
