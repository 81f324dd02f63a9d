//! Listens, and takes connections within bounds: in all, by source, by second. Knows no packets.
//!
//! The surprise: when all places are taken, nobody is turned away; further clients wait in the kernel's queue until a place is free.
//! Only a source that takes more than its share is closed.
#![expect(clippy::disallowed_methods, reason = "a shell room: it waits after a failed accept")]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::sync::{Semaphore, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Live;
use super::config::Settings;
use super::connection::{Shared, serve};
use super::counters::Event;
use super::gate::Gate;

/// Connections in all; further ones wait in the kernel's queue. A third of the 1024 file descriptors that a process usually has,
/// since a command takes two more.
pub const CONNECTIONS: usize = 320;
/// Addresses that are listened on; further ones of a name are left alone.
const MAX_LISTENERS: usize = 16;
/// How long to wait when the system has no file descriptor for a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Takes connections.
#[derive(Debug)]
pub struct Server {
    live: watch::Receiver<Arc<Live>>,
    /// What connections share.
    pub shared: Arc<Shared>,
    gate: Arc<Mutex<Gate>>,
    places: Arc<Semaphore>,
    /// The connections that are open.
    pub open: TaskTracker,
}

impl Server {
    /// A server that follows this configuration.
    #[must_use]
    pub fn new(live: watch::Receiver<Arc<Live>>) -> Self {
        Self {
            live,
            shared: Arc::default(),
            gate: Arc::default(),
            places: Arc::new(Semaphore::new(CONNECTIONS)),
            open: TaskTracker::new(),
        }
    }

    /// Takes connections of this listener until `stop`.
    pub async fn accept(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        let _ = stop.run_until_cancelled(self.take_all(listener)).await;
    }

    async fn take_all(&self, listener: TcpListener) {
        loop {
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
            let (tcp, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) if is_the_clients(&error) => continue,
                Err(error) => {
                    tracing::error!(%error, "no connection can be taken");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            let now = self.shared.uptime();
            if let Err(turned) = self.gate.lock().unwrap_or_else(PoisonError::into_inner).enter(peer.ip(), now) {
                self.shared.refused(Event::Turned, peer, &turned);
                reset(&tcp);
                continue;
            }
            let entered = Entered { gate: Arc::clone(&self.gate), peer: peer.ip() };
            let (live, shared) = (Arc::clone(&self.live.borrow()), Arc::clone(&self.shared));
            self.open.spawn(async move {
                serve(tcp, peer, &live, &shared, false).await;
                drop((entered, place));
            });
        }
    }
}

/// The client was gone before it was taken.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

/// Closing is then a reset: nothing of a source that takes too much stays behind in the kernel.
fn reset(tcp: &TcpStream) {
    let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
}

/// A connection that the gate counts, until it is dropped.
struct Entered {
    gate: Arc<Mutex<Gate>>,
    peer: IpAddr,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner).leave(self.peer);
    }
}

/// Listens on what the configuration says: one name or address, or every address of both families.
///
/// # Errors
/// Nothing can be listened on; with several addresses one is enough.
pub async fn listen(settings: &Settings) -> Result<Vec<TcpListener>> {
    let addresses: Vec<SocketAddr> = match &settings.address {
        None => vec![(IpAddr::from([0; 4]), settings.port).into(), (IpAddr::from([0; 16]), settings.port).into()],
        // To nrpe it is a name like any other, and to the C library that of this machine.
        Some(name) if name == "*" => {
            tracing::warn!(
                "server_address=* is this machine only, as with nrpe; without server_address it is all addresses"
            );
            vec![(Ipv4Addr::LOCALHOST, settings.port).into(), (Ipv6Addr::LOCALHOST, settings.port).into()]
        }
        Some(name) => {
            let found = lookup_host((name.as_str(), settings.port)).await;
            found.with_context(|| format!("server_address={name} has no address"))?.take(MAX_LISTENERS).collect()
        }
    };
    let mut listeners = Vec::new();
    let mut failed = Vec::new();
    for address in addresses {
        match listen_on(address, settings.backlog) {
            Ok(listener) => {
                tracing::info!(%address, "listening");
                listeners.push(listener);
            }
            Err(error) => failed.push(format!("{address}: {error}")),
        }
    }
    if listeners.is_empty() {
        bail!("cannot listen on {} (server_address, server_port)", failed.join(", "));
    }
    for why in failed {
        tracing::warn!(why, "not listening");
    }
    Ok(listeners)
}

fn listen_on(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    TcpListener::from_std(socket.into())
}
