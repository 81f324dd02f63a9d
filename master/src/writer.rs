//! Feeds one metrics store from the journal, over a TCP connection that may hang, break or lie, and never holds up anything else.
//!
//! The journal is the only buffer: a durable cursor trails behind what was sent, and after every new connection the writer
//! goes back to it and sends again; the store keeps the last value of a path and second, so twice is once. Knows nothing of
//! checks; what to send comes as points. The surprise: it reads from a store that never speaks, because that is how the end
//! of a connection shows before the next write is lost in it.
#![expect(clippy::disallowed_methods, reason = "a shell: it waits, and reads the monotonic clock")]

pub mod graphite;
pub mod trail;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use shared::name::JournalIndex;
use shared::perfdata::Metric;
use shared::time::{Monotonic, Timestamp};
use shared::wall;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::store::CursorFile;

use graphite::{Metadata, Options};
use trail::Trail;

/// How long a record is not trusted to the store after it was sent: carbon forgets what it held in memory when killed.
pub const TRAIL: Duration = Duration::from_secs(120);
/// Bytes sent that the store's machine has not acknowledged for so long, or that the store does not read, end the connection.
/// Shorter than [`TRAIL`], so that no record counts as kept while its bytes may still be on their way.
pub const PEER_TIMEOUT: Duration = Duration::from_secs(90);
/// Lines formatted ahead of the socket. Above it no further point is formatted, and no further record is asked for.
pub const BUFFER_LIMIT: usize = 256 * 1024;
/// A connection attempt, name lookup included, may take so long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// First wait after a failed connection; doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(250);
/// Longest wait between two attempts. Attempts never end.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A connection that lasted so long was a good one: the next wait starts from the least again.
const GOOD_CONNECTION: Duration = Duration::from_secs(10);
/// Idle time after which the kernel asks whether the peer is still there, and the time between further questions.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Gaps that wait for their record in the journal. Beyond it the last of them is widened, and names what was sent in between as well.
const GAPS_UNRECORDED_MAX: usize = 64;
/// The cursor is saved and the figures are refreshed so often.
const TICK: Duration = Duration::from_secs(1);

/// One result as a store gets it.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Name of the object's series (`graphite::Naming::object_prefix`), kept by the source per object.
    pub prefix: Arc<str>,
    /// The metrics of the result.
    pub metrics: Vec<Metric>,
    /// End of the execution; the source sees to it that it is not in the future.
    pub at: Timestamp,
    /// Written only where the options ask for it.
    pub metadata: Option<Metadata>,
}

/// All points of one journal record.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The record's place.
    pub index: JournalIndex,
    /// When it was committed.
    pub committed: Timestamp,
    /// What it holds for stores; may be empty.
    pub points: Vec<Point>,
}

/// What a source answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Fetched {
    /// The next record the journal holds. Indexes may jump.
    Record(Record),
    /// Records after the asked index were trimmed before they were read; the journal begins here.
    Overrun {
        /// Oldest index that can still be read.
        first: JournalIndex,
    },
    /// Records after the asked index are in the journal and can never be read.
    Unreadable {
        /// The last of them.
        last: JournalIndex,
    },
}

/// The journal as a writer sees it.
pub trait PointSource: Send {
    /// The first record with an index above `after`; waits until there is one.
    ///
    /// The future may be dropped at any time and asked for again: the place is the caller's. Only committed records are
    /// given. After an error the same question is asked again, so what can never be
    /// read is told as [`Fetched::Unreadable`], not as an error.
    fn next(&mut self, after: JournalIndex) -> impl Future<Output = anyhow::Result<Fetched>> + Send;

    /// The newest committed index.
    fn head(&self) -> JournalIndex;
}

/// What a writer is told at its start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Names it in logs and figures.
    pub name: String,
    /// `host:port` of the store's plaintext port; the name is looked up again for each connection.
    pub address: String,
    /// Which lines a result gets.
    pub options: Options,
    /// See [`TRAIL`].
    pub trail: Duration,
    /// See [`PEER_TIMEOUT`]; shorter than the trail.
    pub peer_timeout: Duration,
}

impl Settings {
    /// A Graphite writer with the usual options.
    #[must_use]
    pub fn graphite(name: &str, address: &str) -> Self {
        Self {
            name: name.to_owned(),
            address: address.to_owned(),
            options: Options::default(),
            trail: TRAIL,
            peer_timeout: PEER_TIMEOUT,
        }
    }
}

/// Records that no store will get, because the journal was trimmed before the writer came to them, or is damaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// The writer's name.
    pub writer: String,
    /// First index lost.
    pub first: JournalIndex,
    /// Last index lost.
    pub last: JournalIndex,
    /// They are there and cannot be read; otherwise they were trimmed, and whoever did it knows why.
    pub unreadable: bool,
}

/// A gap on its way into the journal. Until it is there the writer's cursor on disk stays in front of it, so that a crash finds it again.
#[derive(Debug)]
pub struct Overrun {
    /// Which records.
    pub gap: Gap,
    /// Told when the journal has it. Dropped untold it is reported again.
    pub recorded: oneshot::Sender<()>,
}

/// Figures of a writer since its start.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Status {
    /// Is there a connection?
    pub connected: bool,
    /// Last record handed to the connection in full.
    pub position: JournalIndex,
    /// Records up to here count as kept by the store.
    pub cursor: JournalIndex,
    /// Newest record of the journal.
    pub head: JournalIndex,
    /// Age in milliseconds of what is sent now; 0 when nothing waits.
    pub lag_ms: u64,
    /// Lines handed to connections, those sent again included.
    pub lines_sent: u64,
    /// Results handed to connections, those sent again included.
    pub points_sent: u64,
    /// Values no store could take.
    pub values_dropped: u64,
    /// Connections made.
    pub connections: u64,
    /// Connections lost or refused.
    pub failures: u64,
    /// Times records were trimmed, or found unreadable, before the writer had sent them.
    pub gaps: u64,
    /// Most bytes that ever waited for the socket.
    pub buffered_max: usize,
    /// The last failure in words; empty if there was none.
    pub last_failure: String,
}

/// Feeds the store until `shutdown`.
///
/// A gap goes to `gaps`, to become a journal entry. `status` is refreshed every second and at each change of the connection.
///
/// # Errors
/// Only when the cursor cannot be read at the start. Everything later is waited out.
pub async fn run(
    settings: Settings,
    source: impl PointSource,
    cursor: CursorFile,
    gaps: mpsc::Sender<Overrun>,
    status: watch::Sender<Status>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let name = settings.name.clone();
    let saved = cursor.load().with_context(|| format!("starting the writer {name}"))?;
    let head = source.head();
    if let Some(beyond) = saved.filter(|saved| *saved > head) {
        // The journal was put back to an earlier time: what it holds may not have been sent under these indexes.
        warn!(writer = name, cursor = %beyond, %head, "the cursor lies beyond the journal, sending all that it keeps");
    }
    let saved = saved.filter(|saved| *saved <= head);
    let first_time = saved.is_none();
    let saved = saved.unwrap_or_default();
    let figures = Status { cursor: saved, position: saved, ..Status::default() };
    let trail = Trail::new(settings.trail);
    let origin = Instant::now();
    let mut writer = Writer {
        settings,
        source,
        cursor: Arc::new(cursor),
        gaps,
        unrecorded: Vec::new(),
        left_out: JournalIndex(0),
        status,
        figures,
        trail,
        origin,
        newest: None,
        saved,
        first_time,
    };
    shutdown.run_until_cancelled(writer.feed()).await;
    writer.publish();
    Ok(())
}

struct Writer<S> {
    settings: Settings,
    source: S,
    cursor: Arc<CursorFile>,
    gaps: mpsc::Sender<Overrun>,
    /// Gaps that the journal does not have yet, [`GAPS_UNRECORDED_MAX`] at most.
    unrecorded: Vec<Unrecorded>,
    /// What could not be read up to here has its gap: every new connection may come upon it again.
    left_out: JournalIndex,
    status: watch::Sender<Status>,
    figures: Status,
    trail: Trail,
    origin: Instant,
    /// When the record at the position was committed.
    newest: Option<Timestamp>,
    /// The cursor as it is on disk.
    saved: JournalIndex,
    /// There was no cursor to go on from.
    first_time: bool,
}

/// A gap whose record is waited for.
struct Unrecorded {
    gap: Gap,
    /// The journal's answer; none while it could not be asked.
    asked: Option<oneshot::Receiver<()>>,
}

/// A record on its way out: formatted piece by piece, so that one great record takes no more memory than many small ones.
struct Outgoing {
    index: JournalIndex,
    points: std::vec::IntoIter<Point>,
}

impl<S: PointSource> Writer<S> {
    async fn feed(&mut self) {
        let mut backoff = BACKOFF_MIN;
        loop {
            let started = Instant::now();
            let failure = match self.connect().await {
                Ok(stream) => {
                    self.figures.connections += 1;
                    self.figures.connected = true;
                    info!(writer = self.settings.name, address = self.settings.address, cursor = %self.figures.cursor, "connected");
                    self.publish();
                    let failure = self.send_all(stream).await;
                    self.figures.connected = false;
                    failure
                }
                Err(failure) => failure,
            };
            self.figures.failures += 1;
            self.figures.last_failure = format!("{failure:#}");
            // Once a spell of failures, not once an attempt.
            if backoff == BACKOFF_MIN {
                warn!(
                    writer = self.settings.name,
                    address = self.settings.address,
                    failure = self.figures.last_failure,
                    "not connected, trying again"
                );
            }
            self.trail.forget();
            self.figures.position = self.figures.cursor;
            self.publish();
            if started.elapsed() >= GOOD_CONNECTION {
                backoff = BACKOFF_MIN;
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn connect(&self) -> anyhow::Result<TcpStream> {
        let address = &self.settings.address;
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
            .await
            .with_context(|| format!("{address} did not answer within {CONNECT_TIMEOUT:?}"))?
            .with_context(|| format!("connecting to {address}"))?;
        let socket = SockRef::from(&stream);
        // Records are written whole; waiting for more would only add delay.
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_user_timeout(Some(self.settings.peer_timeout))?;
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))?;
        Ok(stream)
    }

    /// Sends from the cursor on, until the connection fails; says why it did.
    async fn send_all(&mut self, mut stream: TcpStream) -> anyhow::Error {
        let (mut incoming, mut outlet) = stream.split();
        let mut heard = [0; 256];
        let mut buffer: Vec<u8> = Vec::new();
        let mut written = 0;
        let mut outgoing: Option<Outgoing> = None;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The source failed and is left alone until then.
        let mut source_rests: Option<Instant> = None;
        loop {
            if written == buffer.len() {
                buffer.clear();
                written = 0;
                if let Some(record) = &mut outgoing {
                    self.format(record, &mut buffer);
                    if buffer.is_empty() {
                        self.figures.position = record.index;
                        self.trail.sent(self.monotonic(), record.index);
                        outgoing = None;
                    }
                }
            }
            let fetching = buffer.is_empty() && outgoing.is_none() && source_rests.is_none();
            tokio::select! {
                biased;
                read = incoming.read(&mut heard) => match read {
                    Ok(0) => return anyhow::anyhow!("{} closed the connection", self.settings.address),
                    Ok(_) => {}
                    Err(error) => return anyhow::Error::new(error).context("the connection broke"),
                },
                _ = tick.tick() => {
                    source_rests = source_rests.filter(|until| Instant::now() < *until);
                    self.advance().await;
                    self.publish();
                }
                result = outlet.write(&buffer[written..]), if !buffer.is_empty() => match result {
                    Ok(0) => return anyhow::anyhow!("{} takes no more bytes", self.settings.address),
                    Ok(bytes) => written += bytes,
                    Err(error) => return anyhow::Error::new(error).context("the connection broke"),
                },
                fetched = self.source.next(self.figures.position), if fetching => match fetched {
                    Ok(Fetched::Record(record)) => {
                        self.newest = Some(record.committed);
                        outgoing = Some(Outgoing { index: record.index, points: record.points.into_iter() });
                    }
                    Ok(Fetched::Overrun { first }) => self.skip_to(first),
                    Ok(Fetched::Unreadable { last }) => self.leave_out(last),
                    Err(error) => {
                        warn!(writer = self.settings.name, error = format!("{error:#}"), "the journal cannot be read, trying again");
                        source_rests = Some(Instant::now() + BACKOFF_MAX);
                    }
                },
            }
        }
    }

    /// Formats points of the record until the buffer is full or the record is at its end.
    fn format(&mut self, record: &mut Outgoing, buffer: &mut Vec<u8>) {
        while buffer.len() < BUFFER_LIMIT
            && let Some(point) = record.points.next()
        {
            let options = self.settings.options;
            let written =
                graphite::lines(buffer, &point.prefix, &point.metrics, point.at, options, point.metadata.as_ref());
            self.figures.lines_sent += written.lines;
            self.figures.values_dropped += written.dropped;
            self.figures.points_sent += 1;
        }
        self.figures.buffered_max = self.figures.buffered_max.max(buffer.len());
    }

    /// The journal no longer holds what comes next: that is a gap, and the writer goes on behind it.
    fn skip_to(&mut self, first: JournalIndex) {
        let gap = Gap {
            writer: self.settings.name.clone(),
            first: JournalIndex(self.figures.position.0.saturating_add(1)),
            last: JournalIndex(first.0.saturating_sub(1)),
            unreadable: false,
        };
        if gap.last < gap.first {
            return;
        }
        self.figures.position = gap.last;
        self.figures.cursor = self.figures.cursor.max(gap.last);
        // What was trimmed before this writer ever ran is not lost to it.
        if std::mem::take(&mut self.first_time) && self.newest.is_none() {
            return;
        }
        warn!(
            writer = gap.writer,
            first = %gap.first,
            last = %gap.last,
            "the journal was trimmed before these records were sent"
        );
        self.note(gap);
    }

    /// What comes next can never be read: that is a gap as well. What was sent before it may still have to be sent again, so that the
    /// cursor passes it as it passes a record.
    fn leave_out(&mut self, last: JournalIndex) {
        let first = JournalIndex(self.figures.position.0.saturating_add(1));
        if last < first {
            return;
        }
        self.figures.position = last;
        self.trail.sent(self.monotonic(), last);
        if last > self.left_out {
            self.left_out = last;
            let writer = self.settings.name.clone();
            warn!(writer, %first, %last, "the journal cannot be read here: these records are not sent");
            self.note(Gap { writer, first, last, unreadable: true });
        }
    }

    /// A gap is to be recorded. Two that were trimmed and are not recorded yet are asked for as a whole.
    fn note(&mut self, gap: Gap) {
        self.figures.gaps += 1;
        let full = self.unrecorded.len() >= GAPS_UNRECORDED_MAX;
        match self.unrecorded.last_mut() {
            Some(before) if full || !(before.gap.unreadable || gap.unreadable) => {
                before.gap.first = before.gap.first.min(gap.first);
                before.gap.last = before.gap.last.max(gap.last);
                before.asked = None;
            }
            _ => self.unrecorded.push(Unrecorded { gap, asked: None }),
        }
        self.report();
    }

    /// Asks for gaps to be recorded, where it must be asked for.
    fn report(&mut self) {
        let gaps = &self.gaps;
        self.unrecorded.retain_mut(|unrecorded| {
            match unrecorded.asked.as_mut().map(oneshot::Receiver::try_recv) {
                Some(Ok(())) => return false,
                Some(Err(oneshot::error::TryRecvError::Empty)) => {}
                Some(Err(oneshot::error::TryRecvError::Closed)) | None => {
                    let (recorded, asked) = oneshot::channel();
                    // A full queue is asked again with the next tick.
                    let sent = gaps.try_send(Overrun { gap: unrecorded.gap.clone(), recorded });
                    unrecorded.asked = sent.is_ok().then_some(asked);
                }
            }
            true
        });
    }

    /// Lets the cursor follow what counts as kept.
    async fn advance(&mut self) {
        if let Some(index) = self.trail.kept(self.monotonic()) {
            self.figures.cursor = self.figures.cursor.max(index);
        }
        self.report();
        let index = self.figures.cursor;
        if index == self.saved || !self.unrecorded.is_empty() {
            return;
        }
        let cursor = Arc::clone(&self.cursor);
        // Off the runtime's threads: a sync may take long.
        match tokio::task::spawn_blocking(move || cursor.save(index)).await {
            Ok(Ok(())) => self.saved = index,
            Ok(Err(error)) => warn!(
                writer = self.settings.name,
                error = format!("{error:#}"),
                "more will be sent again after a restart"
            ),
            Err(error) => warn!(writer = self.settings.name, %error, "saving the cursor ended early"),
        }
    }

    fn publish(&mut self) {
        self.figures.head = self.source.head();
        self.figures.lag_ms = match self.newest {
            Some(committed) if self.figures.position < self.figures.head => {
                u64::try_from(wall::now().since(committed).as_millis()).unwrap_or(u64::MAX)
            }
            _ => 0,
        };
        self.status.send_replace(self.figures.clone());
    }

    fn monotonic(&self) -> Monotonic {
        Monotonic(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}
