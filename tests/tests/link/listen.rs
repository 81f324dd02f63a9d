//! What every test here needs: a listening master, a raw QUIC peer without manners, the log as text, and waits with a deadline.
#![expect(clippy::disallowed_methods, reason = "polls with a deadline")]

use std::cell::RefCell;
use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Once};
use std::time::Duration;

use master::link::{LinkEvent, Links, Settings, listen};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint};
use rustls::RootCertStore;
use shared::frame::LINK_PROTOCOL;
use shared::identity::master_dns_name;
use shared::refusal::{Refusal, Refusals};
use tokio::sync::mpsc;

use crate::forge::{Forge, Shown};

/// No test waits longer for one thing. Beyond the 10 s deadlines of the link itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const LOOPBACK: &str = "127.0.0.1:0";

/// A master's link on loopback.
pub(crate) struct Master {
    pub(crate) links: Links,
    pub(crate) events: mpsc::Receiver<LinkEvent>,
    pub(crate) address: SocketAddr,
}

impl Master {
    pub(crate) async fn of(forge: &Forge) -> Master {
        Master::at(forge, LOOPBACK.parse().unwrap()).await
    }

    /// On an address that an earlier master may be about to give free.
    pub(crate) async fn at(forge: &Forge, address: SocketAddr) -> Master {
        let listening = in_time("a free port", async {
            loop {
                match listen(Settings { address, trust: forge.trust.clone() }).await {
                    Ok(listening) => break listening,
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        });
        let (links, events, address) = listening.await;
        Master { links, events, address }
    }

    pub(crate) async fn next(&mut self) -> LinkEvent {
        in_time("an event of the master's link", self.events.recv()).await.unwrap()
    }
}

/// Waits for a future, at most [`PATIENCE`].
pub(crate) async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not come within {PATIENCE:?}"),
    }
}

/// Waits until a condition holds, at most [`PATIENCE`].
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    in_time(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Exactly this was counted, once, and nothing else.
pub(crate) async fn counted_alone(refusals: &Refusals, expected: Refusal) {
    until(expected.kind(), || refusals.totals().values().sum::<u64>() > 0).await;
    let met: Vec<_> = refusals.totals().into_iter().filter(|(_, total)| *total > 0).collect();
    assert_eq!(met, [(expected.kind(), 1)]);
}

/// The log of this test's thread: a test runs on one thread, and so does everything it starts here.
pub(crate) struct Log;

thread_local! {
    static LINES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Log {
    pub(crate) fn start() -> Log {
        // One subscriber for the whole program: with one a thread, tracing may take a line for unwanted while another thread
        // makes its own.
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            tracing_subscriber::fmt().with_ansi(false).with_max_level(tracing::Level::INFO).with_writer(|| Sink).init();
        });
        LINES.with_borrow_mut(Vec::clear);
        Log
    }

    /// How many lines name this refusal.
    pub(crate) fn lines_of(&self, refusal: Refusal) -> usize {
        let text = LINES.with_borrow(|lines| String::from_utf8(lines.clone()).unwrap());
        let mark = format!("refusal=\"{}\"", refusal.kind());
        text.lines().filter(|line| line.contains(&mark) && line.contains("WARN")).count()
    }
}

struct Sink;

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LINES.with_borrow_mut(|lines| lines.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub(crate) fn roots(forge: &Forge) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(forge.trust.ca().clone()).unwrap();
    roots
}

/// TLS of a raw satellite, to be made worse by the test.
pub(crate) fn client_tls(forge: &Forge, shown: Option<Shown>) -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots(forge));
    let mut tls = match shown {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![LINK_PROTOCOL.to_vec()];
    tls
}

pub(crate) fn client_config(tls: rustls::ClientConfig) -> ClientConfig {
    ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
}

/// A raw satellite's endpoint; the connection lives only as long as it.
pub(crate) fn client() -> Endpoint {
    Endpoint::client(LOOPBACK.parse().unwrap()).unwrap()
}

pub(crate) async fn dial(
    client: &Endpoint,
    forge: &Forge,
    address: SocketAddr,
    tls: rustls::ClientConfig,
) -> Result<Connection, ConnectionError> {
    let name = master_dns_name(forge.trust.installation());
    in_time("a handshake", client.connect_with(client_config(tls), address, &name).unwrap()).await
}

/// A raw satellite with a good certificate.
pub(crate) async fn good_peer(client: &Endpoint, forge: &Forge, master: &Master) -> Connection {
    dial(client, forge, master.address, client_tls(forge, Some(forge.sign(&forge.slot())))).await.unwrap()
}

/// How the master ended the connection, as the peer sees it. In TLS 1.3 the client may hold a handshake for done that the server
/// has yet to refuse.
pub(crate) async fn ended(dialled: Result<Connection, ConnectionError>) -> ConnectionError {
    match dialled {
        Ok(connection) => in_time("the end of the connection", connection.closed()).await,
        Err(error) => error,
    }
}
