//! The event stream: server-sent events out of the journal, live and from any index the journal still has. Decides when a client is
//! too slow or asks for what is gone, and says so as `resync`. The surprise: live rows and stored rows meet without hole or
//! repetition because a client is put on the list of listeners first and the journal is read afterwards.

mod message;
mod outlet;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use shared::name::{JournalIndex, Slot};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{MissedTickBehavior, interval};

use crate::api::Api;
use crate::api::error::ApiError;
use crate::api::guard::Caller;
use crate::api::parameter::{Known, Parameters};
use crate::coordinator::View;
use crate::entry::Row;
use crate::store::{Read, RowReader, StoreError};

use outlet::Outlet;

/// Event streams at once; one more is answered with 503.
pub(crate) const STREAMS_MAX: usize = 128;
/// Bytes that may wait for one client. A live client beyond it is told `resync` and cut; one that catches up is waited for.
pub(crate) const WAITING_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A client that catches up and takes nothing for this long is cut.
const CATCH_UP_STALL_MAX: Duration = Duration::from_secs(30);
/// A line at least this often, so that both ends notice a dead connection.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How often a stream looks whether its token still holds and which links have changed.
const TICK: Duration = Duration::from_secs(1);
/// What a stream may be asked for.
const PARAMETERS: [&str; 2] = ["since", "results"];

/// `GET /stream`
pub(crate) async fn stream(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let known = parameters.known(&PARAMETERS)?;
    let since = since(&known, &headers)?;
    let all = match known.text("results") {
        None => false,
        Some("all") => true,
        Some(_) => return Err(ApiError::parameter("results", "write results=all, or leave it out")),
    };
    let place = Arc::clone(&api.streams).try_acquire_owned();
    let place = place.map_err(|_| ApiError::unavailable(format!("{STREAMS_MAX} streams are open already")))?;
    let (outlet, mut inlet) = outlet::pair(WAITING_BYTES_MAX);
    let session = Session {
        rows: api.inputs.rows.subscribe(),
        links: BTreeMap::new(),
        next: JournalIndex(0),
        api,
        caller,
        all,
        outlet,
        _place: place,
    };
    tokio::spawn(session.run(since));
    let body = stream::poll_fn(move |step| inlet.poll(step).map(|bytes| bytes.map(Ok::<_, Infallible>)));
    Ok(([(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")], Body::from_stream(body)).into_response())
}

/// The index a client has seen last; browsers send it as a header when they come back.
fn since(known: &Known, headers: &HeaderMap) -> Result<Option<JournalIndex>, ApiError> {
    let header = headers.get("last-event-id").map(|id| id.to_str().unwrap_or("?")).filter(|id| !id.is_empty());
    let (name, text) = match (header, known.text("since")) {
        (Some(id), _) => ("Last-Event-ID", id),
        (None, Some(since)) => ("since", since),
        (None, None) => return Ok(None),
    };
    let index =
        text.parse().map_err(|_| ApiError::parameter(name, "an event's id is a number: an index of the journal"))?;
    Ok(Some(JournalIndex(index)))
}

/// Why a stream ends.
enum End {
    /// The client is gone, the token is revoked, or the master stops.
    Quiet,
    /// The client does not read.
    Slow,
}

/// One client.
struct Session {
    api: Arc<Api>,
    caller: Caller,
    rows: Receiver<Arc<Vec<Row>>>,
    /// What was last said of each link.
    links: BTreeMap<Slot, (bool, bool)>,
    all: bool,
    /// The next row to send.
    next: JournalIndex,
    outlet: Outlet,
    _place: OwnedSemaphorePermit,
}

impl Session {
    async fn run(mut self, since: Option<JournalIndex>) {
        if let Err(End::Slow) = self.serve(since).await {
            self.api.counts.streams_cut.fetch_add(1, Ordering::Relaxed);
            tracing::info!(client = self.caller.author, "an event stream is cut: its client does not read");
            self.outlet.push(
                message::resync(self.sent(), "this client reads too slowly: read the lists again and come back").into(),
            );
        }
    }

    async fn serve(&mut self, since: Option<JournalIndex>) -> Result<(), End> {
        let head = self.head();
        self.links = links(&self.api.view());
        match since {
            Some(since) if since > head => {
                self.resync(head, "this index has not been given yet: the journal was restored or is another")
            }
            Some(since) => self.next = JournalIndex(since.0.saturating_add(1)),
            None => self.next = JournalIndex(head.0.saturating_add(1)),
        }
        self.outlet.push(message::position(self.sent()).into());
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.catch_up().await?;
            self.live(&mut tick).await?;
        }
    }

    /// The last row that the client has, or needs not have.
    fn sent(&self) -> JournalIndex {
        JournalIndex(self.next.0.saturating_sub(1))
    }

    fn head(&self) -> JournalIndex {
        *self.api.inputs.store.published().borrow()
    }

    /// Tells the client to start afresh, and goes on behind `index`.
    fn resync(&mut self, index: JournalIndex, why: &str) {
        self.next = JournalIndex(index.0.saturating_add(1));
        self.outlet.push(message::resync(index, why).into());
    }

    /// Sends what is published already, from the journal.
    async fn catch_up(&mut self) -> Result<(), End> {
        if self.next > self.head() {
            return Ok(());
        }
        let mut reader = match self.api.inputs.store.reader(self.next) {
            Ok(reader) => reader,
            Err(error) => return self.lost(&error),
        };
        loop {
            let (read, back) = read(reader).await.ok_or(End::Quiet)?;
            reader = back;
            match read {
                Ok(None) => return Ok(()),
                Ok(Some(Read::Rows(rows))) => {
                    for row in &rows {
                        self.wait_for_room().await?;
                        let text = self.text_of(row).await?;
                        self.outlet.push(text.into());
                        self.step_behind(row);
                    }
                }
                Ok(Some(Read::Damage(damage))) => {
                    tracing::error!(?damage, "an event stream meets damage in the journal");
                    self.outlet.push(
                        message::resync(self.sent(), "rows of the journal cannot be read: read the lists again").into(),
                    );
                }
                Err(error) => return self.lost(&error),
            }
        }
    }

    /// What cannot be read from the journal cannot be sent: the client is told, and goes on live.
    fn lost(&mut self, error: &StoreError) -> Result<(), End> {
        let why = match error {
            StoreError::Trimmed { first } => {
                format!("the journal begins at {first}: read the lists again")
            }
            other => {
                tracing::error!(error = %other, "an event stream cannot read the journal");
                "the journal cannot be read at this place: read the lists again".to_owned()
            }
        };
        self.resync(self.head(), &why);
        Ok(())
    }

    async fn wait_for_room(&self) -> Result<(), End> {
        tokio::select! {
            () = self.api.shutdown.cancelled() => Err(End::Quiet),
            () = self.outlet.closed() => Err(End::Quiet),
            room = tokio::time::timeout(CATCH_UP_STALL_MAX, self.outlet.room()) => room.map_err(|_| End::Slow),
        }
    }

    /// Sends rows as they come; returns when rows were missed and must be read from the journal.
    async fn live(&mut self, tick: &mut tokio::time::Interval) -> Result<(), End> {
        let mut silent = Duration::ZERO;
        loop {
            tokio::select! {
                () = self.api.shutdown.cancelled() => return Err(End::Quiet),
                () = self.outlet.closed() => return Err(End::Quiet),
                received = self.rows.recv() => match received {
                    Ok(rows) => {
                        for row in rows.iter().filter(|row| row.index >= self.next).collect::<Vec<_>>() {
                            let text = self.text_of(row).await?;
                            if !self.outlet.offer(text.into()) {
                                return Err(End::Slow);
                            }
                            self.step_behind(row);
                        }
                    }
                    Err(RecvError::Lagged(_)) => return Ok(()),
                    Err(RecvError::Closed) => return Err(End::Quiet),
                },
                _ = tick.tick() => {
                    if self.caller.token.as_ref().is_some_and(|id| !self.api.tokens.holds(id)) {
                        return Err(End::Quiet);
                    }
                    silent += TICK;
                    let mut text = self.changed_links();
                    if silent >= HEARTBEAT {
                        silent = Duration::ZERO;
                        text.push_str(&message::position(self.sent()));
                    }
                    if !self.outlet.offer(text.into()) {
                        return Err(End::Slow);
                    }
                }
            }
        }
    }

    fn step_behind(&mut self, row: &Row) {
        self.next = JournalIndex(row.index.0.saturating_add(1));
    }

    /// What a row has to say. Waits for the view that knows the row: names and owners come from there.
    async fn text_of(&self, row: &Row) -> Result<String, End> {
        let mut view = self.api.inputs.view.clone();
        let known = tokio::select! {
            () = self.api.shutdown.cancelled() => return Err(End::Quiet),
            known = view.wait_for(|view| view.status.head >= row.index) => known,
        };
        let view = Arc::clone(&*known.map_err(|_| End::Quiet)?);
        Ok(message::of_row(&view, row, self.all))
    }

    /// Links come and go without a row: they are told as they are seen, without an id.
    fn changed_links(&mut self) -> String {
        let now = links(&self.api.view());
        let changed = now.iter().filter(|(slot, link)| self.links.get(*slot) != Some(*link));
        let text = changed.map(|(slot, (connected, stale))| message::link(slot, *connected, *stale)).collect();
        self.links = now;
        text
    }
}

fn links(view: &View) -> BTreeMap<Slot, (bool, bool)> {
    view.links.iter().map(|(slot, link)| (slot.clone(), (link.connected, link.is_stale()))).collect()
}

type Stored = Result<Option<Read>, StoreError>;

/// Reads off the runtime's threads; `None` when the runtime stops.
async fn read(mut reader: RowReader) -> Option<(Stored, RowReader)> {
    let read = tokio::task::spawn_blocking(move || {
        let read = reader.next();
        (read, reader)
    });
    read.await.ok()
}
