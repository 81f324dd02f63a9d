//! The satellite's end of the link: reaches the master again and again, makes sure it is ours, and carries frames both ways.
//! Decides when to try again; knows nothing of what frames say. The surprise: in TLS 1.3 the master checks our certificate only
//! after we hold the handshake for done, so `Connected` may be followed at once by a `Disconnected` that says we are refused.
#![expect(clippy::disallowed_methods, reason = "a shell room: it waits, and certificates end by the wall clock")]

pub mod backoff;
pub mod tls;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use bytes::{Bytes, BytesMut};
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream, VarInt};
use rustls_pki_types::CertificateDer;
use shared::frame::{
    CLOSE_FAULT, CLOSE_NOT_COMMITTED, CLOSE_REFUSED, CLOSE_STOPPED, CLOSE_UNANSWERED, CLOSE_VACANT, frame_head,
    split_frame,
};
pub use shared::frame::{LINK_PORT, Lane};
use shared::identity::{MasterSession, master_dns_name};
use shared::refusal::{Refusal, Refusals};
use shared::time::{Monotonic, Timestamp};
use shared::unanswered::{LOOK_EVERY, LOOKS, Unanswered};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A name not resolved by then counts as not found.
pub const RESOLVE_DEADLINE: Duration = Duration::from_secs(10);
/// A handshake not done by then is given up.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Addresses of one name that are tried; further ones are left out.
pub const ADDRESSES_MAX: usize = 16;
/// Frames waiting for one lane; one more is [`SendError::Full`] and stays with the sender.
pub const LANE_QUEUE_FRAMES: usize = 512;
/// How often the end of the master's certificate is looked for.
const END_EVERY: Duration = Duration::from_secs(1);
/// How long a stop waits for the master to take notice.
const STOP_DEADLINE: Duration = Duration::from_secs(1);
/// Bytes taken off the control stream at once.
const READ_BYTES: usize = 64 * 1024;
/// Frames written at once.
const WRITE_FRAMES: usize = 16;

/// What the link needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `host:port` of the master, the first that answers is taken. A name may have several addresses.
    pub masters: Vec<String>,
    /// Holds `slot.crt`, `slot.key` and `ca.crt`, read anew at each attempt.
    pub certificates: PathBuf,
    /// How QUIC finds out how much the road carries.
    pub congestion: tls::Congestion,
    /// This slot is known to have had a link: while nothing comes back, the road counts as cut and not as closed.
    pub linked_before: bool,
}

/// What happens on the link.
#[derive(Debug)]
pub enum LinkEvent {
    /// The master proved who it is.
    Connected {
        /// Its address.
        remote: SocketAddr,
        /// Ours, as far as the system tells.
        local: SocketAddr,
        /// Sends on this connection and no other.
        link: LinkHandle,
        /// Who it is.
        session: MasterSession,
    },
    /// One whole frame of the control stream.
    Frame(Bytes),
    /// No connection; also told after each failed round of attempts.
    Disconnected {
        /// Why, for people.
        reason: String,
        /// The rule that was broken, by the master or, where the master says so, by us.
        refusal: Option<Refusal>,
        /// When the next round begins.
        retry_in: Duration,
    },
}

/// Why a frame is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The lane has no room: keep the frame and wait with [`LinkHandle::room`].
    #[error("the lane has no room")]
    Full,
    /// This connection is over: what was not acknowledged goes on the next one.
    #[error("the connection is over")]
    Closed,
    /// No frame may have this length.
    #[error(transparent)]
    Frame(#[from] shared::frame::FrameError),
}

/// Sends frames on one connection.
#[derive(Debug, Clone)]
pub struct LinkHandle {
    lanes: [mpsc::Sender<[Bytes; 2]>; 3],
}

impl LinkHandle {
    fn lane(&self, lane: Lane) -> &mpsc::Sender<[Bytes; 2]> {
        let [control, live, backlog] = &self.lanes;
        match lane {
            Lane::Control => control,
            Lane::Live => live,
            Lane::Backlog => backlog,
        }
    }

    /// Queues a frame.
    ///
    /// # Errors
    /// [`SendError`]: the frame was not taken.
    pub fn send(&self, lane: Lane, frame: Bytes) -> Result<(), SendError> {
        let head = Bytes::copy_from_slice(&frame_head(&frame)?);
        self.lane(lane).try_send([head, frame]).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SendError::Full,
            mpsc::error::TrySendError::Closed(_) => SendError::Closed,
        })
    }

    /// Waits until the lane has room for one more frame.
    ///
    /// # Errors
    /// [`SendError::Closed`] when the connection is over.
    pub async fn room(&self, lane: Lane) -> Result<(), SendError> {
        self.lane(lane).reserve().await.map(drop).map_err(|_| SendError::Closed)
    }
}

/// Why a round of attempts or a connection ended.
struct End {
    reason: String,
    refusal: Option<Refusal>,
    /// The master is not to be hurried.
    patient: bool,
    /// The master had sent a frame: the next failure is a first one.
    served: bool,
    /// Nothing came back at all, or the master's name could not be asked for.
    silent: bool,
}

impl End {
    fn plain(reason: String) -> End {
        End { reason, refusal: None, patient: false, served: false, silent: false }
    }

    fn silent(reason: String) -> End {
        End { silent: true, ..End::plain(reason) }
    }

    fn refused(refusal: Refusal, detail: &str) -> End {
        let reason = if detail.is_empty() { refusal.to_string() } else { format!("{refusal} ({detail})") };
        End { refusal: Some(refusal), ..End::plain(reason) }
    }
}

/// Keeps the link until `stop`, then says farewell. `refusals` counts every master that was turned away.
pub async fn run(
    settings: Settings,
    events: mpsc::Sender<LinkEvent>,
    refusals: Arc<Refusals>,
    stop: CancellationToken,
) {
    let (mut failures, mut linked_before, began) = (0u32, settings.linked_before, Instant::now());
    while !stop.is_cancelled() {
        let end = attempt(&settings, &events, &stop).await;
        if stop.is_cancelled() || events.is_closed() {
            break;
        }
        failures = if end.served { 1 } else { failures.saturating_add(1) };
        linked_before |= end.served;
        let road = backoff::Road::of(end.silent, linked_before);
        let chance = rand::random();
        let retry_in = match end.patient {
            true => backoff::wait(backoff::BACKOFF_MAX, chance),
            false => backoff::pause(road, failures, chance),
        };
        let now = Monotonic(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
        match end.refusal.map(|refusal| (refusal, refusals.count(refusal, now))) {
            Some((refusal, Some(total))) => {
                tracing::warn!(refusal = refusal.kind(), total, ?retry_in, "no link to the master: {}", end.reason);
            }
            Some((_, None)) => {}
            None => tracing::warn!(?retry_in, failures, "no link to the master: {}", end.reason),
        }
        let event = LinkEvent::Disconnected { reason: end.reason, refusal: end.refusal, retry_in };
        if events.send(event).await.is_err() {
            break;
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(retry_in) => {}
        }
    }
}

/// One round of attempts; when one succeeds, until that connection ends.
async fn attempt(settings: &Settings, events: &mpsc::Sender<LinkEvent>, stop: &CancellationToken) -> End {
    let reached = tokio::select! {
        () = stop.cancelled() => return End::plain("stopped".to_owned()),
        reached = reach(settings) => reached,
    };
    let (endpoint, connection, session) = match reached {
        Ok(reached) => reached,
        Err(end) => return end,
    };
    let end = converse(&connection, session, &endpoint, events, stop).await;
    connection.close(VarInt::from_u32(CLOSE_STOPPED), b"stopped");
    if tokio::time::timeout(STOP_DEADLINE, endpoint.wait_idle()).await.is_err() {
        tracing::debug!("the master did not take notice of the end in time");
    }
    end
}

/// Tries every address of every master in turn until one takes us.
async fn reach(settings: &Settings) -> Result<(Endpoint, Connection, MasterSession), End> {
    // Files are small and local; still not read on the threads that probe.
    let directory = settings.certificates.clone();
    let congestion = settings.congestion;
    let credentials = match tokio::task::spawn_blocking(move || tls::read(&directory, congestion)).await {
        Ok(Ok(credentials)) => credentials,
        Ok(Err(error)) => return Err(End::plain(format!("{error:#}"))),
        Err(error) => return Err(End::plain(format!("the certificates were not read: {error}"))),
    };
    let (mut reasons, mut refusal, mut silent) = (Vec::new(), None, true);
    for master in &settings.masters {
        let addresses = match resolve(master).await {
            Ok(addresses) => addresses,
            Err(error) => {
                reasons.push(format!("{error:#}"));
                continue;
            }
        };
        for address in addresses {
            match connect(&credentials, master, address).await {
                Ok(reached) => return Ok(reached),
                Err(end) => {
                    refusal = refusal.or(end.refusal);
                    silent &= end.silent;
                    reasons.push(format!("{master} ({address}): {}", end.reason));
                }
            }
        }
    }
    if settings.masters.is_empty() {
        reasons.push("no master is named".to_owned());
    }
    Err(End { refusal, silent, ..End::plain(reasons.join("; ")) })
}

async fn resolve(master: &str) -> Result<Vec<SocketAddr>> {
    let found = tokio::time::timeout(RESOLVE_DEADLINE, tokio::net::lookup_host(master))
        .await
        .with_context(|| format!("the name in {master} is not resolved within {RESOLVE_DEADLINE:?}"))?
        .with_context(|| format!("{master} cannot be resolved (expected host:port)"))?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found {
        if !addresses.contains(&address) && addresses.len() < ADDRESSES_MAX {
            addresses.push(address);
        }
    }
    anyhow::ensure!(!addresses.is_empty(), "{master} has no address");
    Ok(addresses)
}

/// A fresh socket for each attempt: after a change of network the old one may lead nowhere.
async fn connect(
    credentials: &tls::Credentials,
    master: &str,
    address: SocketAddr,
) -> Result<(Endpoint, Connection, MasterSession), End> {
    let any = match address {
        SocketAddr::V4(_) => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        SocketAddr::V6(_) => SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
    };
    let ours = credentials.leaf.identity.installation();
    let endpoint = Endpoint::client(any).map_err(|error| End::plain(format!("no UDP socket: {error}")))?;
    let connecting = endpoint
        .connect_with(credentials.config.clone(), address, &master_dns_name(ours))
        .map_err(|error| End::plain(format!("cannot connect: {error}")))?;
    let silent = || {
        let port = address.port();
        End::silent(format!(
            "UDP port {port} to {master} gets no answer: is it closed by a firewall, or is no master there?"
        ))
    };
    let connection = match tokio::time::timeout(CONNECT_DEADLINE, connecting).await {
        Err(_) | Ok(Err(ConnectionError::TimedOut)) => return Err(silent()),
        Ok(Err(ConnectionError::TransportError(error))) => {
            return Err(End::refused(Refusal::of_handshake(error.code.into(), &error.reason), &error.reason));
        }
        Ok(Err(error)) => return Err(told(&error)),
        Ok(Ok(connection)) => connection,
    };
    let chain = connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    let chain = chain.map(|chain| *chain).unwrap_or_default();
    match MasterSession::from_verified(&chain, ours) {
        Ok(session) => Ok((endpoint, connection, session)),
        Err(refusal) => {
            connection.close(VarInt::from_u32(CLOSE_REFUSED), refusal.kind().as_bytes());
            Err(End::refused(refusal, ""))
        }
    }
}

/// What an end that the master brought about says.
fn told(error: &ConnectionError) -> End {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            let text = String::from_utf8_lossy(&close.reason);
            match u32::try_from(close.error_code.into_inner()) {
                Ok(CLOSE_REFUSED) => match Refusal::of_kind(&text) {
                    Some(refusal) => End {
                        patient: refusal == Refusal::Superseded,
                        ..End {
                            reason: format!("the master refused this satellite: {refusal}"),
                            ..End::refused(refusal, "")
                        }
                    },
                    None => End::plain("the master refused this satellite".to_owned()),
                },
                Ok(CLOSE_STOPPED) => End::plain("the master stops".to_owned()),
                Ok(CLOSE_NOT_COMMITTED) => End::plain("the master could not commit".to_owned()),
                Ok(CLOSE_VACANT) => End::plain("the master asks for this slot to be claimed again".to_owned()),
                Ok(CLOSE_UNANSWERED) => {
                    End::plain("the master got no answer from this satellite: is a road cut one way?".to_owned())
                }
                Ok(CLOSE_FAULT) => End::plain("the master reports a fault of its own".to_owned()),
                _ => End::plain(format!("the master closed the link: {}", text.escape_debug())),
            }
        }
        ConnectionError::ConnectionClosed(close) => {
            let text = String::from_utf8_lossy(&close.reason);
            let refusal = Refusal::of_handshake(close.error_code.into(), &text);
            End {
                reason: format!("the master refused this satellite: {refusal} ({})", text.escape_debug()),
                refusal: Some(refusal),
                ..End::plain(String::new())
            }
        }
        ConnectionError::TimedOut => End::silent(format!("the master was not heard for {:?}", tls::IDLE)),
        error => End::plain(error.to_string()),
    }
}

async fn converse(
    connection: &Connection,
    session: MasterSession,
    endpoint: &Endpoint,
    events: &mpsc::Sender<LinkEvent>,
    stop: &CancellationToken,
) -> End {
    let mut served = false;
    let end = match open_streams(connection).await {
        Ok((reading, control, live, backlog)) => {
            let (control_frames, control_queue) = mpsc::channel(LANE_QUEUE_FRAMES);
            let (live_frames, live_queue) = mpsc::channel(LANE_QUEUE_FRAMES);
            let (backlog_frames, backlog_queue) = mpsc::channel(LANE_QUEUE_FRAMES);
            let link = LinkHandle { lanes: [control_frames, live_frames, backlog_frames] };
            let not_after = session.leaf().not_after;
            let remote = connection.remote_address();
            let local = local_address(connection, endpoint);
            tracing::info!(%remote, %local, "linked to the master");
            if events.send(LinkEvent::Connected { remote, local, link, session }).await.is_err() {
                return End::plain("nobody listens to the link".to_owned());
            }
            tokio::select! {
                () = stop.cancelled() => End::plain("stopped".to_owned()),
                end = read_frames(connection, reading, events, &mut served) => end,
                end = write_frames(connection, control, control_queue) => end,
                end = write_frames(connection, live, live_queue) => end,
                end = write_frames(connection, backlog, backlog_queue) => end,
                end = certificate_end(not_after) => end,
                end = unanswered(connection) => end,
                error = connection.closed() => told(&error),
            }
        }
        Err(error) => told(&error),
    };
    if let (Some(refusal), None) = (end.refusal, connection.close_reason()) {
        connection.close(VarInt::from_u32(CLOSE_REFUSED), refusal.kind().as_bytes());
    }
    End { served, ..end }
}

async fn open_streams(
    connection: &Connection,
) -> Result<(RecvStream, SendStream, SendStream, SendStream), ConnectionError> {
    let (control, reading) = connection.open_bi().await?;
    prefer(&control, Lane::Control);
    let mut one_way = Vec::with_capacity(2);
    for lane in [Lane::Live, Lane::Backlog] {
        let mut stream = connection.open_uni().await?;
        prefer(&stream, lane);
        if stream.write_all(&[lane.byte()]).await.is_err() {
            return Err(connection.close_reason().unwrap_or(ConnectionError::Reset));
        }
        one_way.push(stream);
    }
    match (one_way.pop(), one_way.pop()) {
        (Some(backlog), Some(live)) => Ok((reading, control, live, backlog)),
        _ => Err(ConnectionError::Reset),
    }
}

fn prefer(stream: &SendStream, lane: Lane) {
    if stream.set_priority(lane.priority()).is_err() {
        tracing::debug!(?lane, "a stream ended before it was used");
    }
}

fn local_address(connection: &Connection, endpoint: &Endpoint) -> SocketAddr {
    let bound = endpoint.local_addr().unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));
    connection.local_ip().map_or(bound, |ip| SocketAddr::new(ip, bound.port()))
}

async fn read_frames(
    connection: &Connection,
    mut stream: RecvStream,
    events: &mpsc::Sender<LinkEvent>,
    served: &mut bool,
) -> End {
    let mut buffer = BytesMut::new();
    loop {
        loop {
            match split_frame(&mut buffer) {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    *served = true;
                    if events.send(LinkEvent::Frame(frame)).await.is_err() {
                        return End::plain("nobody listens to the link".to_owned());
                    }
                }
                Err(error) => {
                    let refusal = match error {
                        shared::frame::FrameError::Long(_) => Refusal::FrameTooLong,
                        shared::frame::FrameError::Empty => Refusal::FrameEmpty,
                    };
                    return End::refused(refusal, &error.to_string());
                }
            }
        }
        match stream.read_chunk(READ_BYTES, true).await {
            Ok(Some(chunk)) => buffer.extend_from_slice(&chunk.bytes),
            Ok(None) | Err(_) => return broken(connection, "the master ended the control stream"),
        }
    }
}

async fn write_frames(connection: &Connection, mut stream: SendStream, mut queue: mpsc::Receiver<[Bytes; 2]>) -> End {
    let mut frames = Vec::with_capacity(WRITE_FRAMES);
    loop {
        if queue.recv_many(&mut frames, WRITE_FRAMES).await == 0 {
            // Every handle is gone: this lane has nothing more to say, the others may.
            return told(&connection.closed().await);
        }
        let mut chunks: Vec<Bytes> = frames.drain(..).flatten().collect();
        if stream.write_all_chunks(&mut chunks).await.is_err() {
            return broken(connection, "the master stopped a lane");
        }
    }
}

/// A stream that fails because the connection is over is no fault of the master.
fn broken(connection: &Connection, detail: &str) -> End {
    match connection.close_reason() {
        Some(error) => told(&error),
        None => End::refused(Refusal::BadStream, detail),
    }
}

/// Ends when the master acknowledges nothing any more: what it sends may still come, over a road that is cut one way.
async fn unanswered(connection: &Connection) -> End {
    let mut master = Unanswered::default();
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let counts = connection.stats();
        if master.look(counts.frame_tx.stream.saturating_add(counts.frame_tx.ping), counts.path.rtt) {
            connection.close(VarInt::from_u32(CLOSE_UNANSWERED), b"nothing is acknowledged");
            return End::silent(format!("the master acknowledged nothing for {:?}", LOOK_EVERY * u32::from(LOOKS)));
        }
    }
}

/// A certificate is checked only in the handshake; the connection would outlive it.
async fn certificate_end(not_after: Timestamp) -> End {
    let mut ticks = tokio::time::interval(END_EVERY);
    loop {
        ticks.tick().await;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if not_after <= Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)) {
            return End::refused(Refusal::CertificateEnded, "the master's");
        }
    }
}
