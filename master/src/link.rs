//! The master's end of the link: a QUIC endpoint that lets only slots of this installation in, turns their streams into frames, and
//! takes frames for them. Decides who may connect and how much one peer may hold; knows nothing of what frames say.
//! The surprise: a third connection of one identity is let in and the one silent for longest goes, because after a hard kill the
//! dead connections are still open here for up to 15 s.
#![expect(clippy::disallowed_methods, reason = "a shell room: deadlines and certificate ends are met here")]

mod connection;
pub mod tls;
mod silence;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use aws_lc_rs::hmac;
use bytes::Bytes;
use quinn::{Endpoint, EndpointConfig, Incoming, TokioRuntime, VarInt};
use quinn_proto::HashedConnectionIdGenerator;
use rustls::server::StoresServerSessions;
pub use shared::frame::Lane;
use shared::frame::{
    CLOSE_FAULT, CLOSE_NOT_COMMITTED, CLOSE_REFUSED, CLOSE_STOPPED, CLOSE_UNANSWERED, CLOSE_VACANT, frame_head,
};
use shared::identity::{Identity, SlotSession};
use shared::refusal::{Refusal, Refusals};
use shared::time::{Monotonic, Timestamp};
use socket2::SockRef;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use waiting::{HANDSHAKES_MAX, WAITING_DEADLINE, WAITING_MAX};
use waiting::{Turn, Waiting};

pub use crate::fleet::ConnectionId;
use crate::trust::Trust;

/// From this many open handshakes on, a peer must prove its address first (QUIC retry).
pub const HANDSHAKES_BEFORE_RETRY: usize = 100;
/// Open connections; further attempts are refused and come again.
pub const CONNECTIONS_MAX: usize = 16_384;
/// Connections of one identity: the old process and the new one during a take-over. One more takes the place of the one silent for
/// longest.
pub const CONNECTIONS_PER_IDENTITY: usize = 2;
/// A handshake not done by then is given up.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// A connection whose control stream is not open by then is closed.
pub const CONTROL_DEADLINE: Duration = Duration::from_secs(10);
/// Events the master's loop has not taken yet; then reading waits, and with it, by QUIC flow control, the satellites.
pub const EVENTS_MAX: usize = 1_024;
/// Bytes of control and live frames alive in the master at once; then reading these lanes waits. Half of the pool for frames.
pub const LIVE_BYTES: usize = 128 * 1024 * 1024;
/// Bytes of backlog frames alive in the master at once; then reading backlog waits, one frame a satellite in turn.
pub const BACKLOG_BYTES: usize = 128 * 1024 * 1024;
/// Frames waiting for one control stream; one more closes that connection.
pub const CONTROL_QUEUE_FRAMES: usize = 4_096;
/// Bytes waiting for one control stream; more closes that connection.
pub const CONTROL_QUEUE_BYTES: usize = 16 * 1024 * 1024;
/// Asked of the system for datagrams that have come and are not read yet: some thousand satellites that say hello at once. What does
/// not fit is lost and sent again by QUIC. The system gives no more than its own bound (`net.core.rmem_max`).
pub const SOCKET_BYTES: usize = 8 * 1024 * 1024;
/// Links of a master that is no more are reset at most so often. Each reset is smaller than the packet it answers; after a restart
/// all satellites are to know within seconds, and are told in about the order in which handshakes can be done.
pub const RESET_EVERY: Duration = Duration::from_millis(1);
/// How often certificate ends are looked for.
const ENDS_EVERY: Duration = Duration::from_secs(1);
/// How often the master's leaf and the list of accepted CAs are looked at.
const RENEW_EVERY: Duration = Duration::from_secs(600);
/// How long a stop waits for the peers to take notice.
const STOP_DEADLINE: Duration = Duration::from_secs(1);

/// What happens on the link. For one connection: `Connected`, then its frames, then `Disconnected`.
#[derive(Debug)]
pub enum LinkEvent {
    /// A slot proved who it is and opened its control stream.
    Connected {
        /// The new connection.
        connection: ConnectionId,
        /// Who it is.
        session: SlotSession,
        /// Where it comes from; may change later (QUIC migration).
        remote: SocketAddr,
    },
    /// One whole frame. Its bytes count against the pool until the last of them is dropped.
    Frame {
        /// Where it came in.
        connection: ConnectionId,
        /// On which lane.
        lane: Lane,
        /// Its payload.
        bytes: Bytes,
        /// When the last byte of it had come.
        arrived: Instant,
    },
    /// The connection is over; no frame of it follows.
    Disconnected {
        /// The connection that was.
        connection: ConnectionId,
        /// Why, for people.
        reason: String,
    },
}

/// Why the master closes a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The master stops.
    Stopped,
    /// A commit failed: the satellite is to send again.
    NotCommitted,
    /// The slot this process was fenced from is free: it is to claim it.
    Vacant,
    /// The master went wrong with this connection.
    Fault,
    /// The peer acknowledges nothing any more.
    Unanswered,
    /// The peer broke a rule: counted and logged under its kind.
    Refused(Refusal),
}

/// What the link needs to be opened.
pub struct Settings {
    /// Where to listen, UDP.
    pub address: SocketAddr,
    /// Whose certificates are shown and accepted.
    pub trust: Arc<Trust>,
}

/// The open link. All of it ends when the last clone is dropped.
#[derive(Clone)]
pub struct Links {
    link: Arc<Link>,
    _stop: Arc<DropGuard>,
}

struct Link {
    endpoint: Endpoint,
    trust: Arc<Trust>,
    refusals: Arc<Refusals>,
    began: Instant,
    registry: Mutex<Registry>,
    handshakes: AtomicUsize,
    /// A handshake is over.
    through: Notify,
    events: mpsc::Sender<LinkEvent>,
    live_bytes: Arc<Semaphore>,
    backlog_bytes: Arc<Semaphore>,
    stop: CancellationToken,
}

#[derive(Default)]
struct Registry {
    last: u64,
    open: BTreeMap<ConnectionId, Entry>,
    /// The same by identity.
    same: BTreeMap<Identity, BTreeSet<ConnectionId>>,
}

impl Registry {
    fn insert(&mut self, entry: Entry) -> ConnectionId {
        self.last += 1;
        let id = ConnectionId(self.last);
        self.same.entry(entry.session.leaf().identity.clone()).or_default().insert(id);
        self.open.insert(id, entry);
        id
    }

    fn remove(&mut self, id: ConnectionId) -> Option<Entry> {
        let entry = self.open.remove(&id)?;
        let identity = &entry.session.leaf().identity;
        if let Some(same) = self.same.get_mut(identity) {
            same.remove(&id);
            if same.is_empty() {
                self.same.remove(identity);
            }
        }
        Some(entry)
    }
}

struct Entry {
    session: SlotSession,
    remote: SocketAddr,
    connection: quinn::Connection,
    /// Length field and payload of each frame.
    control: mpsc::Sender<[Bytes; 2]>,
    waiting: Arc<AtomicUsize>,
    /// Nanoseconds on the link's own clock.
    heard: Arc<AtomicU64>,
    closed: Option<CloseReason>,
}

/// Opens the link.
///
/// # Errors
/// The address cannot be bound, or the certificates cannot be used.
pub async fn listen(settings: Settings) -> Result<(Links, mpsc::Receiver<LinkEvent>, SocketAddr)> {
    let Settings { address, trust } = settings;
    let (began, refusals) = (Instant::now(), Arc::new(Refusals::default()));
    let sessions: Arc<dyn StoresServerSessions> = Arc::new(tls::NoSessions {
        offered: {
            let refusals = refusals.clone();
            move || {
                if let Some(total) = refusals.count(Refusal::ResumedSession, monotonic(began)) {
                    tracing::warn!(refusal = Refusal::ResumedSession.kind(), total, "{}", Refusal::ResumedSession);
                }
            }
        },
    });
    let leaf = trust.master_leaf()?;
    let renew_at = leaf.renew_at;
    let config = tls::server_config(&trust, leaf, sessions.clone())?;
    let socket = UdpSocket::bind(address).with_context(|| format!("cannot listen on UDP {address} for satellites"))?;
    let asked = SockRef::from(&socket);
    // Smaller buffers work as well, with more packets sent twice under load.
    if let Err(error) = asked.set_recv_buffer_size(SOCKET_BYTES).and_then(|()| asked.set_send_buffer_size(SOCKET_BYTES))
    {
        tracing::warn!(%error, "the link's socket keeps the system's buffers");
    }
    let secret = trust.reset_secret()?;
    let mut endpoint_config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &secret.reset)));
    let ids = secret.ids;
    endpoint_config.min_reset_interval(RESET_EVERY);
    endpoint_config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    let endpoint = Endpoint::new(endpoint_config, Some(config), socket, Arc::new(TokioRuntime))
        .with_context(|| format!("cannot run QUIC on {address}"))?;
    let local = endpoint.local_addr().context("the link's socket has no address")?;
    let (events, receiver) = mpsc::channel(EVENTS_MAX);
    let stop = CancellationToken::new();
    let link = Arc::new(Link {
        endpoint,
        trust,
        refusals,
        began,
        registry: Mutex::default(),
        handshakes: AtomicUsize::new(0),
        through: Notify::new(),
        events,
        live_bytes: Arc::new(Semaphore::new(LIVE_BYTES)),
        backlog_bytes: Arc::new(Semaphore::new(BACKLOG_BYTES)),
        stop: stop.clone(),
    });
    tokio::spawn(link.clone().accept());
    tokio::spawn(link.clone().watch_ends());
    tokio::spawn(link.clone().watch_answers());
    tokio::spawn(link.clone().renew(sessions, renew_at));
    tracing::info!(address = %local, "listening for satellites");
    Ok((Links { link, _stop: Arc::new(stop.drop_guard()) }, receiver, local))
}

impl Links {
    /// Queues a frame on the control stream of a connection; a connection already gone takes it silently, its `Disconnected` tells.
    /// A full queue closes the connection ([`Refusal::SlowReader`]).
    pub fn send(&self, connection: ConnectionId, frame: Bytes) {
        let length = frame.len();
        let head = match frame_head(&frame) {
            Ok(head) => Bytes::copy_from_slice(&head),
            Err(error) => {
                // What made it breaks the bound all messages are made within.
                tracing::error!(%connection, %error, "the master made a frame that must not be sent");
                return self.close(connection, CloseReason::Fault);
            }
        };
        let full = {
            let registry = self.link.registry();
            let Some(entry) = registry.open.get(&connection) else {
                return;
            };
            let waiting = entry.waiting.fetch_add(length, Ordering::Relaxed).saturating_add(length);
            waiting > CONTROL_QUEUE_BYTES
                || matches!(entry.control.try_send([head, frame]), Err(mpsc::error::TrySendError::Full(_)))
        };
        if full {
            self.close(connection, CloseReason::Refused(Refusal::SlowReader));
        }
    }

    /// Closes a connection; its `Disconnected` follows.
    pub fn close(&self, connection: ConnectionId, reason: CloseReason) {
        self.link.close(connection, reason);
    }

    /// Closes every connection; their `Disconnected`s follow.
    pub fn close_all(&self, reason: CloseReason) {
        let open: Vec<ConnectionId> = self.link.registry().open.keys().copied().collect();
        for connection in open {
            self.link.close(connection, reason);
        }
    }

    /// The counters of everything refused.
    #[must_use]
    pub fn refusals(&self) -> &Refusals {
        &self.link.refusals
    }

    /// How many connections are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.link.registry().open.len()
    }

    /// How many handshakes are under way.
    #[must_use]
    pub fn handshakes(&self) -> usize {
        self.link.handshakes()
    }

    /// Stops listening, closes all connections and waits a moment for the peers to take notice.
    pub async fn stop(&self) {
        self.close_all(CloseReason::Stopped);
        self.link.stop.cancel();
        self.link.endpoint.close(VarInt::from_u32(CLOSE_STOPPED), b"stopped");
        if tokio::time::timeout(STOP_DEADLINE, self.link.endpoint.wait_idle()).await.is_err() {
            tracing::debug!("some satellites did not take notice of the stop in time");
        }
    }
}

impl Link {
    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Monotonic {
        monotonic(self.began)
    }

    /// Counts a refusal and logs it unless its kind was logged just now.
    fn refuse(&self, refusal: Refusal, remote: SocketAddr, identity: Option<&SlotSession>, detail: &str) {
        if let Some(total) = self.refusals.count(refusal, self.now()) {
            let identity = identity.map(|session| session.leaf().identity.to_string());
            tracing::warn!(refusal = refusal.kind(), %remote, identity, total, detail, "refused: {refusal}");
        }
    }

    fn close(&self, connection: ConnectionId, reason: CloseReason) {
        let refused = {
            let mut registry = self.registry();
            let Some(entry) = registry.open.get_mut(&connection) else {
                return;
            };
            if entry.closed.is_some() {
                return;
            }
            entry.closed = Some(reason);
            let (code, text) = match reason {
                CloseReason::Stopped => (CLOSE_STOPPED, "stopped"),
                CloseReason::NotCommitted => (CLOSE_NOT_COMMITTED, "not committed"),
                CloseReason::Vacant => (CLOSE_VACANT, "slot vacant"),
                CloseReason::Unanswered => (CLOSE_UNANSWERED, "nothing is acknowledged"),
                CloseReason::Fault => (CLOSE_FAULT, "fault in the master"),
                CloseReason::Refused(refusal) => (CLOSE_REFUSED, refusal.kind()),
            };
            entry.connection.close(VarInt::from_u32(code), text.as_bytes());
            match reason {
                CloseReason::Refused(refusal) => Some((refusal, entry.remote, entry.session.clone())),
                CloseReason::Stopped
                | CloseReason::NotCommitted
                | CloseReason::Vacant
                | CloseReason::Unanswered
                | CloseReason::Fault => None,
            }
        };
        if let Some((refusal, remote, session)) = refused {
            self.refuse(refusal, remote, Some(&session), "");
        }
    }

    async fn accept(self: Arc<Self>) {
        let mut waiting = Waiting::new();
        loop {
            self.admit(&mut waiting);
            let incoming = tokio::select! {
                () = self.stop.cancelled() => break,
                () = self.through.notified(), if !waiting.is_empty() => continue,
                incoming = self.endpoint.accept() => incoming,
            };
            let Some(incoming) = incoming else { break };
            if self.registry().open.len() >= CONNECTIONS_MAX {
                self.turn_away(incoming);
            } else if self.handshakes() >= HANDSHAKES_BEFORE_RETRY && !incoming.remote_address_validated() {
                // An address not yet proven may always be asked to prove itself.
                drop(incoming.retry());
            } else if let Err(incoming) = waiting.push(incoming, self.now()) {
                self.turn_away(incoming);
            }
        }
        self.endpoint.close(VarInt::from_u32(CLOSE_STOPPED), b"stopped");
    }

    fn turn_away(&self, incoming: Incoming) {
        self.refuse(Refusal::Busy, incoming.remote_address(), None, "");
        incoming.refuse();
    }

    fn admit(self: &Arc<Self>, waiting: &mut Waiting<Incoming>) {
        while let Some(turn) = waiting.next(self.handshakes(), self.now()) {
            match turn {
                Turn::Begin(incoming) => {
                    let handshake = connection::Handshake::begin(self.clone());
                    tokio::spawn(connection::serve(self.clone(), handshake, incoming));
                }
                Turn::Late(incoming) => {
                    self.refuse(Refusal::Busy, incoming.remote_address(), None, "waited in vain");
                    incoming.ignore();
                }
            }
        }
    }

    fn handshakes(&self) -> usize {
        self.handshakes.load(Ordering::Relaxed)
    }

    /// A certificate is checked only in the handshake; the connection would outlive it.
    async fn watch_ends(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(ENDS_EVERY);
        while self.tick(&mut ticks).await {
            let now = wall_clock();
            let ended: Vec<ConnectionId> = {
                let registry = self.registry();
                let ended = registry.open.iter().filter(|(_, entry)| entry.session.leaf().not_after <= now);
                ended.map(|(connection, _)| *connection).collect()
            };
            for connection in ended {
                self.close(connection, CloseReason::Refused(Refusal::CertificateEnded));
            }
        }
    }

    /// New handshakes see a new leaf in time, and the CAs accepted by then.
    async fn renew(self: Arc<Self>, sessions: Arc<dyn StoresServerSessions>, mut renew_at: Timestamp) {
        let mut ticks = tokio::time::interval(RENEW_EVERY);
        let mut accepted = self.trust.accepted();
        while self.tick(&mut ticks).await {
            let accepted_now = self.trust.accepted();
            if wall_clock() < renew_at && accepted_now == accepted {
                continue;
            }
            let renewed = self.trust.master_leaf().and_then(|leaf| {
                let next = leaf.renew_at;
                Ok((tls::server_config(&self.trust, leaf, sessions.clone())?, next))
            });
            match renewed {
                Ok((config, next)) => {
                    (accepted, renew_at) = (accepted_now, next);
                    self.endpoint.set_server_config(Some(config));
                    tracing::info!(cas = accepted.len(), %renew_at, "the master's certificate is renewed");
                }
                Err(error) => {
                    tracing::error!(
                        error = format!("{error:#}"),
                        "the master's certificate cannot be renewed; trying again"
                    );
                }
            }
        }
    }

    /// `false` when the link stops.
    async fn tick(&self, ticks: &mut tokio::time::Interval) -> bool {
        tokio::select! {
            () = self.stop.cancelled() => false,
            _ = ticks.tick() => true,
        }
    }
}

fn monotonic(began: Instant) -> Monotonic {
    Monotonic(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
