//! One connection of the link from first packet to last: handshake, identity, streams, frames, farewell. Decides which rule a peer
//! broke; holds nothing for it but three frames under way and the frames waiting for it. The surprise: the three lanes are read in
//! one task, so a lane that waits for room holds up no other lane and the end of one is the end of all.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use quinn::{Connection, ConnectionError, Incoming, RecvStream, SendStream, VarInt};
use rustls_pki_types::CertificateDer;
use shared::frame::{CLOSE_REFUSED, FrameError, split_frame};
use shared::identity::SlotSession;
use shared::refusal::Refusal;
use shared::text::is_obeyed;
use shared::unanswered::{LOOK_EVERY, LOOKS};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{
    CONNECTIONS_PER_IDENTITY, CONTROL_DEADLINE, CONTROL_QUEUE_FRAMES, CloseReason, ConnectionId, Entry,
    HANDSHAKE_DEADLINE, Lane, Link, LinkEvent,
};

/// Bytes taken off a stream at once.
const READ_BYTES: usize = 64 * 1024;
/// A peer's reason for closing is cut here.
const REASON_CHARS: usize = 200;
/// Frames written at once.
const WRITE_FRAMES: usize = 16;

/// Why a connection's work ended.
enum End {
    /// The peer broke a rule; not yet closed.
    Refused(Refusal, String),
    /// Closed by whichever side.
    Closed(ConnectionError),
    /// The master's loop takes no more events.
    Unheard,
}

/// An open handshake, counted while it lives.
pub(super) struct Handshake(Arc<Link>);

impl Handshake {
    pub(super) fn begin(link: Arc<Link>) -> Self {
        link.handshakes.fetch_add(1, Ordering::Relaxed);
        Self(link)
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.0.handshakes.fetch_sub(1, Ordering::Relaxed);
        self.0.through.notify_one();
    }
}

/// What the tasks of one connection share.
struct Peer {
    id: ConnectionId,
    heard: Arc<AtomicU64>,
    waiting: Arc<AtomicUsize>,
    queue: mpsc::Receiver<[Bytes; 2]>,
}

pub(super) async fn serve(link: Arc<Link>, handshake: Handshake, incoming: Incoming) {
    let remote = incoming.remote_address();
    let shaken = shake_hands(&link, incoming).await;
    drop(handshake);
    let Some((connection, session)) = shaken else { return };
    let peer = register(&link, &connection, session.clone());
    let id = peer.id;
    let (end, greeted) = converse(&link, &connection, session, peer).await;
    if let End::Refused(refusal, detail) = &end {
        if !detail.is_empty() {
            tracing::debug!(connection = %id, %remote, detail, "{refusal}");
        }
        link.close(id, CloseReason::Refused(*refusal));
    }
    let entry = link.registry().remove(id);
    let reason = match (entry.and_then(|entry| entry.closed), end) {
        (Some(CloseReason::Refused(refusal)), _) | (_, End::Refused(refusal, _)) => format!("refused: {refusal}"),
        (Some(CloseReason::NotCommitted), _) => "closed because a commit failed".to_owned(),
        (Some(CloseReason::Vacant), _) => "closed because its slot is free again".to_owned(),
        (Some(CloseReason::Unanswered), _) => {
            format!("nothing was acknowledged for {:?}", LOOK_EVERY * u32::from(LOOKS))
        }
        (Some(CloseReason::Fault), _) => "closed because of a fault in the master".to_owned(),
        (Some(CloseReason::Stopped), _) => "closed because the master stops".to_owned(),
        (None, End::Closed(error)) => plain(&error),
        (None, End::Unheard) => "the master takes no more events".to_owned(),
    };
    connection.close(VarInt::from_u32(CLOSE_REFUSED), b"");
    if greeted && link.events.send(LinkEvent::Disconnected { connection: id, reason }).await.is_err() {
        tracing::debug!(connection = %id, "a connection ended while the master stops");
    }
}

/// The handshake and who the peer is; what fails is refused here.
async fn shake_hands(link: &Link, incoming: Incoming) -> Option<(Connection, SlotSession)> {
    let remote = incoming.remote_address();
    let shaken = async { incoming.accept()?.await };
    let connection = match tokio::time::timeout(HANDSHAKE_DEADLINE, shaken).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            let refusal = match &error {
                ConnectionError::TransportError(error) => Refusal::of_handshake(error.code.into(), &error.reason),
                _ => Refusal::Handshake,
            };
            link.refuse(refusal, remote, None, &plain(&error));
            return None;
        }
        Err(_) => {
            link.refuse(Refusal::Handshake, remote, None, "not done in time");
            return None;
        }
    };
    let chain = connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    let chain = chain.map(|chain| *chain).unwrap_or_default();
    match SlotSession::from_verified(&chain, link.trust.installation()) {
        Ok(session) => Some((connection, session)),
        Err(refusal) => {
            link.refuse(refusal, remote, None, "");
            connection.close(VarInt::from_u32(CLOSE_REFUSED), refusal.kind().as_bytes());
            None
        }
    }
}

/// An error as text for log and people: part of it may be the peer's own words.
fn plain(error: &ConnectionError) -> String {
    let text = error.to_string();
    text.chars().take(REASON_CHARS).map(|c| if is_obeyed(c) { '\u{fffd}' } else { c }).collect()
}

fn register(link: &Link, connection: &Connection, session: SlotSession) -> Peer {
    let (control, queue) = mpsc::channel(CONTROL_QUEUE_FRAMES);
    let (heard, waiting) = (Arc::new(AtomicU64::new(link.now().0)), Arc::new(AtomicUsize::new(0)));
    let (id, superseded) = {
        let mut registry = link.registry();
        let same = registry.same.get(&session.leaf().identity).into_iter().flatten();
        let same = same.filter_map(|id| Some((id, registry.open.get(id)?))).filter(|(_, entry)| entry.closed.is_none());
        let mut same: Vec<(u64, ConnectionId)> =
            same.map(|(id, entry)| (entry.heard.load(Ordering::Relaxed), *id)).collect();
        same.sort_unstable();
        same.truncate((same.len() + 1).saturating_sub(CONNECTIONS_PER_IDENTITY));
        let entry = Entry {
            session,
            remote: connection.remote_address(),
            connection: connection.clone(),
            control,
            waiting: waiting.clone(),
            heard: heard.clone(),
            closed: None,
        };
        (registry.insert(entry), same)
    };
    for (_, silent) in superseded {
        link.close(silent, CloseReason::Refused(Refusal::Superseded));
    }
    Peer { id, heard, waiting, queue }
}

/// Everything between handshake and farewell; the flag says whether `Connected` was told.
async fn converse(link: &Link, connection: &Connection, session: SlotSession, peer: Peer) -> (End, bool) {
    let Peer { id, heard, waiting, queue } = peer;
    let (writing, reading) = match tokio::time::timeout(CONTROL_DEADLINE, connection.accept_bi()).await {
        Ok(Ok(streams)) => streams,
        Ok(Err(error)) => return (End::Closed(error), false),
        Err(_) => return (End::Refused(Refusal::NoControlStream, String::new()), false),
    };
    let connected = LinkEvent::Connected { connection: id, session, remote: connection.remote_address() };
    if link.events.send(connected).await.is_err() {
        return (End::Unheard, false);
    }
    let read = |stream, lane, buffer| read_frames(link, connection, id, &heard, stream, lane, buffer);
    let control = read(reading, Lane::Control, BytesMut::new());
    let one_way = async {
        let mut lanes = BTreeSet::new();
        let (first, lane, buffer) = accept_lane(connection, &mut lanes).await?;
        let second = async {
            let (second, lane, buffer) = accept_lane(connection, &mut lanes).await?;
            read(second, lane, buffer).await
        };
        both(read(first, lane, buffer), second).await
    };
    let write = write_frames(connection, writing, queue, &waiting);
    let closed = async { Err::<(), End>(End::Closed(connection.closed().await)) };
    let end = tokio::select! {
        end = control => end,
        end = one_way => end,
        end = write => end,
        end = closed => end,
    };
    (end.err().unwrap_or(End::Refused(Refusal::BadStream, "a lane ended".to_owned())), true)
}

async fn both<T>(a: impl Future<Output = Result<(), T>>, b: impl Future<Output = Result<(), T>>) -> Result<(), T> {
    tokio::try_join!(a, b).map(|_| ())
}

/// The next stream of one direction, its lane, and what was read beyond the lane byte.
async fn accept_lane(connection: &Connection, lanes: &mut BTreeSet<Lane>) -> Result<(RecvStream, Lane, BytesMut), End> {
    let mut stream = connection.accept_uni().await.map_err(End::Closed)?;
    let mut byte = [0];
    if stream.read_exact(&mut byte).await.is_err() {
        return Err(broken(connection, "a stream ended before its lane byte"));
    }
    let [byte] = byte;
    match Lane::of_byte(byte) {
        Some(lane) if lanes.insert(lane) => Ok((stream, lane, BytesMut::new())),
        Some(lane) => Err(End::Refused(Refusal::BadStream, format!("two streams for lane {lane:?}"))),
        None => Err(End::Refused(Refusal::BadStream, format!("no lane {byte}"))),
    }
}

/// A stream that fails because the connection is over is no fault of the peer.
fn broken(connection: &Connection, detail: &str) -> End {
    match connection.close_reason() {
        Some(error) => End::Closed(error),
        None => End::Refused(Refusal::BadStream, detail.to_owned()),
    }
}

async fn read_frames(
    link: &Link,
    connection: &Connection,
    id: ConnectionId,
    heard: &AtomicU64,
    mut stream: RecvStream,
    lane: Lane,
    mut buffer: BytesMut,
) -> Result<(), End> {
    let pool = match lane {
        Lane::Control | Lane::Live => &link.live_bytes,
        Lane::Backlog => &link.backlog_bytes,
    };
    loop {
        while let Some(frame) = split_frame(&mut buffer).map_err(refused)? {
            let arrived = Instant::now();
            heard.store(link.now().0, Ordering::Relaxed);
            let bytes = pooled(pool, frame).await?;
            let event = LinkEvent::Frame { connection: id, lane, bytes, arrived };
            link.events.send(event).await.map_err(|_| End::Unheard)?;
        }
        match stream.read_chunk(READ_BYTES, true).await {
            Ok(Some(chunk)) => buffer.extend_from_slice(&chunk.bytes),
            Ok(None) => return Err(broken(connection, "a lane ended")),
            Err(_) => return Err(broken(connection, "a lane was reset")),
        }
    }
}

fn refused(error: FrameError) -> End {
    let refusal = match error {
        FrameError::Long(_) => Refusal::FrameTooLong,
        FrameError::Empty => Refusal::FrameEmpty,
    };
    End::Refused(refusal, error.to_string())
}

/// A frame that gives its bytes back to the pool when the last handle to it is dropped.
struct Pooled {
    frame: Bytes,
    _held: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        &self.frame
    }
}

async fn pooled(pool: &Arc<Semaphore>, frame: Bytes) -> Result<Bytes, End> {
    // A frame is never longer than FRAME_BYTES_MAX, far below both the pool and u32.
    let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    let held = pool.clone().acquire_many_owned(length).await.map_err(|_| End::Unheard)?;
    Ok(Bytes::from_owner(Pooled { frame, _held: held }))
}

async fn write_frames(
    connection: &Connection,
    mut stream: SendStream,
    mut queue: mpsc::Receiver<[Bytes; 2]>,
    waiting: &AtomicUsize,
) -> Result<(), End> {
    let mut frames = Vec::with_capacity(WRITE_FRAMES);
    loop {
        if queue.recv_many(&mut frames, WRITE_FRAMES).await == 0 {
            // The registry has let go of the connection: its end is on the way.
            return Err(End::Closed(connection.closed().await));
        }
        let mut chunks = Vec::with_capacity(2 * frames.len());
        let mut length = 0usize;
        for [head, frame] in frames.drain(..) {
            length = length.saturating_add(frame.len());
            chunks.extend([head, frame]);
        }
        if stream.write_all_chunks(&mut chunks).await.is_err() {
            return Err(broken(connection, "the control stream was stopped"));
        }
        waiting.fetch_sub(length, Ordering::Relaxed);
    }
}
