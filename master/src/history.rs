//! History as a projection of the journal in SQLite: a thread that takes published rows in, and answers about what happened. Decides
//! nothing; the file can be deleted and is made again as far back as the journal goes. The surprise: what its transactions hold is
//! not yet safe against power loss; trimming is told of an index only after a sync.
#![expect(clippy::disallowed_methods, reason = "how often to sync is measured by the clock: a shell room")]

mod event;
mod query;
mod retention;
mod table;
mod transition;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags};
use shared::name::{CheckId, JournalIndex, ObjectName, Timeline};
use shared::time::Timestamp;
use tokio::sync::watch;

use crate::entry::{Entry, Row};
use crate::status::Status;
use crate::store::{Projection, Read, RowReader, Store, StoreError};

pub use event::{Detail, Event, GapDetail, Kind, ResultDetail, TransitionDetail};
pub use query::{Cursor, LIMIT, LIMIT_MAX, Order, Page, Query, QueryError, TOTAL_MAX};
pub use retention::{EVENTS_AGE_MAX, Kept, RESULTS_AGE_MAX, RESULTS_MAX};

/// Name of the file in the data directory.
pub const FILE: &str = "history.sqlite";
/// Groups waiting for the thread. One more is dropped: the thread reads it from the journal.
const WAITING: usize = 64;
/// Results of one transaction at most, but for the rest of a group.
const RESULTS_PER_TRANSACTION: i64 = 20_000;
/// Rows read from the journal before they are written together.
const ROWS_GATHERED: usize = 256;
/// Old events removed between two transactions, in steps of this many.
const REMOVED_PER_STEP: i64 = 2_000;
/// How often history is synced while rows come; trimming waits for it.
const SYNC_EVERY: Duration = Duration::from_secs(10);
/// How long a quiet history waits before it syncs and forgets, and a failing one before it tries again.
const PAUSE: Duration = Duration::from_secs(2);
/// Connections for readers kept open; more readers at once open more and close them.
const READERS_KEPT: usize = 4;
/// A reader waits this long for a lock before it gives up. In write-ahead mode there is next to nothing to wait for.
const BUSY: Duration = Duration::from_secs(5);
/// A record that the disk refuses is tried this often before what cannot be read counts as damage.
const READ_ATTEMPTS: u32 = 5;

/// Why history cannot answer or go on.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// SQLite refuses.
    #[error("history in {}: {source}", path.display())]
    Sqlite { path: PathBuf, source: rusqlite::Error },
    /// The operating system refuses.
    #[error("cannot {op} {}: {source}", path.display())]
    Io { op: &'static str, path: PathBuf, source: io::Error },
    /// The journal cannot be read.
    #[error("history cannot catch up: {0}")]
    Store(#[from] StoreError),
}

/// The writing side of history. Dropping it lets the thread finish what is published.
#[derive(Debug)]
pub struct History {
    rows: Option<SyncSender<Arc<Vec<Row>>>>,
    reader: HistoryReader,
    thread: Option<JoinHandle<()>>,
}

impl History {
    /// Opens history in `data`, and begins to catch up with the journal. `status` is the state at the journal's head.
    ///
    /// # Errors
    /// When the file can be neither used nor made anew.
    pub fn open(data: &Path, store: Store, status: &Status) -> Result<History, HistoryError> {
        Self::open_keeping(data, store, status, Kept::default())
    }

    /// As [`History::open`], with bounds of one's own.
    ///
    /// # Errors
    /// As there.
    pub fn open_keeping(data: &Path, store: Store, status: &Status, kept: Kept) -> Result<History, HistoryError> {
        let path = data.join(FILE);
        let names = status.objects().map(|object| (object.id, object.name.clone())).collect();
        let known = Known { timeline: status.timeline, names };
        let (connection, reflected) = open(&path, &known, *store.published().borrow())?;
        let (rows, receiver) = sync_channel(WAITING);
        let (shown, reflected_receiver) = watch::channel(reflected);
        let made = Arc::new(AtomicU64::new(1));
        let damaged = Arc::<AtomicU64>::default();
        let projector = Projector {
            path: path.clone(),
            made: Arc::clone(&made),
            damaged: Arc::clone(&damaged),
            known,
            store,
            connection,
            kept,
            reflected,
            shown,
            newest: status.at,
            added: 0,
            synced: Instant::now(),
            failing: false,
        };
        let thread = thread::Builder::new().name("history".to_owned()).spawn(move || projector.run(&receiver));
        let thread =
            thread.map_err(|source| HistoryError::Io { op: "start the thread of", path: path.clone(), source })?;
        let reader = HistoryReader {
            shared: Arc::new(Shared {
                path,
                reflected: reflected_receiver,
                made,
                damaged,
                connections: Mutex::default(),
            }),
        };
        Ok(History { rows: Some(rows), reader, thread: Some(thread) })
    }

    /// Takes rows that were just published. Never waits: what does not fit is read from the journal later.
    pub fn feed(&self, rows: &Arc<Vec<Row>>) {
        match self.rows.as_ref().map(|sender| sender.try_send(Arc::clone(rows))) {
            Some(Ok(()) | Err(TrySendError::Full(_))) => {}
            Some(Err(TrySendError::Disconnected(_))) | None => {
                tracing::error!("history's thread has ended; restart the master");
            }
        }
    }

    /// A reader, for any thread.
    #[must_use]
    pub fn reader(&self) -> HistoryReader {
        self.reader.clone()
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.rows = None;
        // The last connection closed tidies up, and one for reading cannot.
        self.reader.connections().clear();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("history's thread has panicked");
        }
    }
}

/// Answers questions about history; cheap to clone.
#[derive(Debug, Clone)]
pub struct HistoryReader {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    reflected: watch::Receiver<JournalIndex>,
    /// Counts how often the file was made anew: a connection to an older one answers from the past.
    made: Arc<AtomicU64>,
    /// The file `made` counts that a reader has found to be damaged.
    damaged: Arc<AtomicU64>,
    connections: Mutex<Vec<(u64, Connection)>>,
}

impl HistoryReader {
    /// Index of the last row that answers reflect, to read and to wait on.
    #[must_use]
    pub fn reflected(&self) -> watch::Receiver<JournalIndex> {
        self.shared.reflected.clone()
    }

    /// Answers a question. Blocks for as long as SQLite reads: not for an asynchronous task.
    ///
    /// # Errors
    /// When SQLite cannot read its file.
    pub fn query(&self, query: &Query) -> Result<Page, HistoryError> {
        let failed = |source| HistoryError::Sqlite { path: self.shared.path.clone(), source };
        let made = self.shared.made.load(Ordering::Acquire);
        let pooled = self.connections().pop().filter(|(of, _)| *of == made);
        let connection = match pooled {
            Some((_, connection)) => connection,
            None => self.connect().map_err(failed)?,
        };
        // A connection that failed is not kept: its file may have been made anew.
        let page = query::ask(&connection, query).map_err(|error| {
            if is_damage(&error) {
                self.shared.damaged.store(made, Ordering::Release);
            }
            failed(error)
        })?;
        let mut connections = self.connections();
        if connections.len() < READERS_KEPT {
            connections.push((made, connection));
        }
        Ok(page)
    }

    /// Writes a copy of the file as it is at one moment, compacted. `to` must not be there yet. Blocks for as long as that takes; what
    /// is written meanwhile waits beside the file.
    ///
    /// # Errors
    /// When SQLite cannot read its file or write the copy.
    pub fn copy(&self, to: &Path) -> Result<(), HistoryError> {
        let failed = |source| HistoryError::Sqlite { path: to.to_path_buf(), source };
        let connection = self.connect().map_err(failed)?;
        connection.execute("VACUUM INTO ?1", [to.to_string_lossy()]).map(drop).map_err(failed)
    }

    fn connections(&self) -> MutexGuard<'_, Vec<(u64, Connection)>> {
        self.shared.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.shared.path, flags)?;
        connection.busy_timeout(BUSY)?;
        connection.set_prepared_statement_cache_capacity(32);
        Ok(connection)
    }
}

/// Makes the copy of history that came with a backup one of the restored store: its journal ends at `head`, where `timeline` begins.
/// A copy that cannot be used is removed, and history is made from the journal as far as that goes; `false` then.
///
/// # Errors
/// When a useless copy cannot be removed.
pub fn adopt(data: &Path, timeline: Timeline, head: JournalIndex) -> Result<bool, HistoryError> {
    let path = data.join(FILE);
    if !path.exists() {
        return Ok(false);
    }
    let adopted = (|| -> rusqlite::Result<bool> {
        let Some(connection) = table::open(&path)? else { return Ok(false) };
        if table::meta(&connection)?.reflected > head {
            return Ok(false);
        }
        table::set_number(&connection, "timeline", timeline.0.cast_signed())?;
        table::make_durable(&connection)
    })();
    if let Ok(true) = adopted {
        return Ok(true);
    }
    tracing::warn!(?adopted, "the history of the backup cannot be used; it is made anew from the journal");
    put_aside(&path)?;
    Ok(false)
}

/// What history is told of the journal besides its rows: the naming rows of old checks may be trimmed.
struct Known {
    timeline: Timeline,
    names: Vec<(CheckId, ObjectName)>,
}

/// Opens the file, or makes it anew when it is not of this journal, not of this version, or damaged.
fn open(path: &Path, known: &Known, published: JournalIndex) -> Result<(Connection, JournalIndex), HistoryError> {
    let failed = |source| HistoryError::Sqlite { path: path.to_path_buf(), source };
    let why = match examine(path, known, published) {
        Ok(Ok(opened)) => return Ok(opened),
        Ok(Err(why)) => why,
        Err(error) if is_damage(&error) => error.to_string(),
        Err(error) => return Err(failed(error)),
    };
    tracing::warn!(file = %path.display(), why, "history is made anew from the journal; the old file is put aside");
    put_aside(path)?;
    examine(path, known, published).map_err(failed)?.map_err(|why| HistoryError::Io {
        op: "make anew",
        path: path.to_path_buf(),
        source: io::Error::other(why),
    })
}

/// Opens the file if it is one of this journal; otherwise says why not.
fn examine(
    path: &Path,
    known: &Known,
    published: JournalIndex,
) -> rusqlite::Result<Result<(Connection, JournalIndex), String>> {
    let Some(mut connection) = table::open(path)? else {
        return Ok(Err("its tables are of another version".to_owned()));
    };
    let meta = table::meta(&connection)?;
    let foreign = meta.reflected.0 > 0 && meta.timeline != known.timeline;
    if foreign || meta.reflected > published {
        let timeline = table::timeline_text(meta.timeline);
        return Ok(Err(format!(
            "it reflects index {} of timeline {timeline}, which this journal does not have",
            meta.reflected
        )));
    }
    table::prepare(&mut connection, known.timeline, &known.names)?;
    Ok(Ok((connection, meta.reflected)))
}

/// Whether the file itself is at fault, and not the disk or the moment.
fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Renames the file; the one put aside before is overwritten. The files beside it belong to its content, which is given up.
fn put_aside(path: &Path) -> Result<(), HistoryError> {
    let beside = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let done = |op, path: &Path, outcome: io::Result<()>| match outcome {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(HistoryError::Io { op, path: path.to_path_buf(), source })
        }
        _ => Ok(()),
    };
    for suffix in ["-wal", "-shm"] {
        done("remove", &beside(suffix), fs::remove_file(beside(suffix)))?;
    }
    done("put aside", path, fs::rename(path, beside(".old")))
}

/// The thread's side.
struct Projector {
    path: PathBuf,
    made: Arc<AtomicU64>,
    damaged: Arc<AtomicU64>,
    known: Known,
    store: Store,
    connection: Connection,
    kept: Kept,
    /// Index of the last row in the file.
    reflected: JournalIndex,
    shown: watch::Sender<JournalIndex>,
    /// Time of the newest row.
    newest: Timestamp,
    /// Results added since old ones were removed.
    added: i64,
    synced: Instant,
    failing: bool,
}

impl Projector {
    fn run(mut self, rows: &Receiver<Arc<Vec<Row>>>) {
        let mut waiting = Vec::new();
        loop {
            self.attempt(&waiting);
            waiting.clear();
            match rows.recv_timeout(PAUSE) {
                Ok(group) => {
                    waiting.push(group);
                    waiting.extend(rows.try_iter().take(WAITING));
                }
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(error) = self.forget(0) {
                        tracing::warn!(%error, "history could not forget what is old");
                    }
                    self.sync();
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.attempt(&[]);
                    self.sync();
                    return;
                }
            }
        }
    }

    /// Takes in what waits, then what else is published; what fails is tried again from the journal.
    fn attempt(&mut self, waiting: &[Arc<Vec<Row>>]) {
        if self.damaged.load(Ordering::Acquire) == self.made.load(Ordering::Acquire) {
            let found = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            let source = rusqlite::Error::SqliteFailure(found, Some("a reader found damage".to_owned()));
            self.reopen(&HistoryError::Sqlite { path: self.path.clone(), source });
        }
        let outcome = self.take(waiting).and_then(|()| self.catch_up()).and_then(|()| self.forget(REMOVED_PER_STEP));
        match outcome {
            Ok(()) if self.failing => {
                self.failing = false;
                tracing::info!(reflected = %self.reflected, "history goes on");
            }
            Ok(()) => {}
            Err(error) => {
                if !self.failing {
                    tracing::error!(%error, "history cannot be written; the journal keeps what it misses");
                }
                self.failing = true;
                self.reopen(&error);
            }
        }
        if self.synced.elapsed() >= SYNC_EVERY {
            self.sync();
        }
    }

    /// A damaged file is made anew at once; otherwise a new connection forgets whatever the old one was in the middle of.
    fn reopen(&mut self, error: &HistoryError) {
        let opened = match error {
            HistoryError::Sqlite { source, .. } if is_damage(source) => put_aside(&self.path),
            _ => Ok(()),
        };
        match opened.and_then(|()| open(&self.path, &self.known, *self.store.published().borrow())) {
            Ok((connection, reflected)) => {
                self.made.fetch_add(1, Ordering::Release);
                self.connection = connection;
                self.reflected = reflected;
            }
            Err(error) => tracing::debug!(%error, "history cannot be opened yet"),
        }
    }

    fn take(&mut self, waiting: &[Arc<Vec<Row>>]) -> Result<(), HistoryError> {
        let reflected = self.reflected;
        let rows = waiting.iter().flat_map(|group| group.iter()).filter(|row| row.index > reflected);
        // Where rows do not follow one another, groups were dropped while this thread was busy. The journal has them.
        let following = rows.zip(reflected.0.saturating_add(1)..).take_while(|(row, next)| row.index.0 == *next);
        self.write(following.map(|(row, _)| row))
    }

    /// Writes rows, in as many transactions as they need.
    fn write<'a>(&mut self, rows: impl IntoIterator<Item = &'a Row>) -> Result<(), HistoryError> {
        let failed = |source| HistoryError::Sqlite { path: self.path.clone(), source };
        let mut rows = rows.into_iter().peekable();
        while rows.peek().is_some() {
            let mut writing = table::Writing::begin(&mut self.connection).map_err(failed)?;
            let mut last: Option<&Row> = None;
            while writing.results() < RESULTS_PER_TRANSACTION
                && let Some(row) = rows.next()
            {
                writing.apply(row).map_err(failed)?;
                match &row.entry {
                    Entry::Genesis(genesis) => self.known.timeline = genesis.timeline,
                    Entry::Restored(restored) => self.known.timeline = restored.timeline,
                    _ => {}
                }
                last = Some(row);
            }
            self.added += writing.results();
            writing.commit().map_err(failed)?;
            if let Some(last) = last {
                self.newest = self.newest.max(last.at);
                self.reflected = last.index;
                self.shown.send_replace(last.index);
            }
        }
        Ok(())
    }

    /// Reads from the journal whatever is published and not here.
    fn catch_up(&mut self) -> Result<(), HistoryError> {
        if *self.store.published().borrow() <= self.reflected {
            return Ok(());
        }
        let next = JournalIndex(self.reflected.0.saturating_add(1));
        let mut reader = match self.store.reader(next) {
            Err(StoreError::Trimmed { first }) => {
                self.skip(first, "the journal was trimmed")?;
                self.store.reader(first)?
            }
            opened => opened?,
        };
        let mut hole: Option<String> = None;
        let mut gathered: Vec<Row> = Vec::new();
        while let Some(read) = read(&mut reader)? {
            match read {
                Read::Damage(damage) => hole = Some(format!("{damage:?}")),
                Read::Rows(rows) => {
                    if let Some(why) = hole.take() {
                        self.write(&gathered)?;
                        gathered.clear();
                        let first = rows.first().map_or(next, |row| row.index);
                        // Rows that follow one another have lost nothing between them.
                        if first.0 > self.reflected.0.saturating_add(1) {
                            self.skip(first, &why)?;
                        }
                    }
                    gathered.extend(rows);
                }
            }
            if gathered.len() >= ROWS_GATHERED {
                self.write(&gathered)?;
                gathered.clear();
            }
        }
        self.write(&gathered)
    }

    /// Notes that rows before `first` are not to be had, and goes on with it.
    fn skip(&mut self, first: JournalIndex, why: &str) -> Result<(), HistoryError> {
        tracing::error!(after = %self.reflected, before = %first, why, "history has a hole");
        let failed = |source| HistoryError::Sqlite { path: self.path.clone(), source };
        let mut writing = table::Writing::begin(&mut self.connection).map_err(failed)?;
        writing.note_damage(self.reflected, first, self.newest, why).map_err(failed)?;
        writing.commit().map_err(failed)?;
        self.reflected = JournalIndex(first.0.saturating_sub(1));
        self.shown.send_replace(self.reflected);
        Ok(())
    }

    /// Removes what is old, once this many results were added since the last time.
    fn forget(&mut self, added: i64) -> Result<(), HistoryError> {
        if self.added < added {
            return Ok(());
        }
        self.added = 0;
        let failed = |source| HistoryError::Sqlite { path: self.path.clone(), source };
        // Each step is a transaction of its own; as many as rows can have come in one go.
        for _ in 0..=(RESULTS_PER_TRANSACTION / REMOVED_PER_STEP) {
            if !retention::remove_old(&mut self.connection, self.newest, self.kept, REMOVED_PER_STEP).map_err(failed)? {
                break;
            }
        }
        Ok(())
    }

    /// Makes all of it durable, and lets the journal be trimmed up to there.
    fn sync(&mut self) {
        self.synced = Instant::now();
        match table::make_durable(&self.connection) {
            Ok(true) => self.store.reached(Projection::History, self.reflected),
            // A reader holds an old snapshot; the next time will do.
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "history could not be synced"),
        }
    }
}

/// The next of the journal; what the disk refuses again and again is damage.
fn read(reader: &mut RowReader) -> Result<Option<Read>, StoreError> {
    let mut attempts = 0;
    loop {
        match reader.next() {
            Err(StoreError::Log(error)) if attempts < READ_ATTEMPTS => {
                tracing::warn!(%error, "the journal cannot be read; trying again");
                attempts += 1;
                if attempts == READ_ATTEMPTS {
                    reader.pass_over_unreadable();
                }
            }
            outcome => return outcome,
        }
    }
}
