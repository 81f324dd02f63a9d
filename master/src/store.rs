//! The only way to durable state: append rows, read them from an index on, checkpoints, revisions, cursors. Opening it replays the
//! journal behind the newest checkpoint. Judges nothing and folds by `status` alone. The surprise: an empty journal is refused
//! where one must have been; a store that comes up empty would forget everything acknowledged.
//!
//! ```text
//! lock | founded | journal/*.seg | checkpoint/<index>.ckpt | revisions/<digest>.cbor.zst | cursors/<name>
//! ```
#![expect(clippy::disallowed_methods, reason = "the age of a revision is wall-clock time: a shell room")]

mod checkpoint;
mod cursor;
mod error;
mod file;
mod held;
mod journal;
mod keeper;
mod restoring;
mod revisions;
mod tidying;

use std::collections::VecDeque;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use seglog::{Bounds, Damage};
use shared::name::JournalIndex;
use shared::time::Timestamp;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;

use crate::config::Catalog;
use crate::entry::{JOURNAL_AGE, JOURNAL_BYTES};
use crate::status::Status;

pub use checkpoint::CHECKPOINTS_KEPT;
pub use cursor::CursorFile;
pub use error::StoreError;
pub use held::Held;
pub use journal::{Read, RowReader};
pub use restoring::{MANIFEST, Restoring, finish as finish_restoring};
pub use revisions::REVISIONS_KEPT;
pub use tidying::{Beside, Tidying};

use journal::{Job, Writer};
use keeper::Keeper;
use revisions::Revisions;

/// A checkpoint is due when this much was written since the last one: replay at start stays within seconds.
pub const CHECKPOINT_BYTES: u64 = 64 * 1024 * 1024;
/// A checkpoint is due when the last one is this old and anything was written.
pub const CHECKPOINT_EVERY: Duration = Duration::from_secs(600);
/// This much of the journal stays even if nobody needs it: what event streams resume from and what a writer repeats after its peer
/// lost what it had taken.
pub const JOURNAL_RING_BYTES: u64 = 256 * 1024 * 1024;
/// Beyond this the journal no longer waits for cursors: a writer that is overrun notices ([`StoreError::Trimmed`]) and makes a gap.
/// Checkpoint and history are waited for without bound; when the disk is full then, commits fail and nothing is accepted.
pub const JOURNAL_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// Rows older than this no longer wait for cursors.
pub const JOURNAL_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// How often the journal's head is noted for [`JOURNAL_AGE_MAX`].
const AGE_STEP: Duration = Duration::from_secs(600);
/// Jobs waiting for the writing thread: one commit by protocol, and one trim. One more is refused as [`StoreError::Busy`].
const JOBS: usize = 2;
/// A checkpoint asked for while one is written is left out; the next one is due soon.
const CHECKPOINT_JOBS: usize = 1;
/// Marks a directory in which a store has been founded: its journal must not be empty any more.
const FOUNDED: &str = "founded";

/// How to open a store.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Begin anew where a store has been and is lost (`--new-installation`).
    pub new_installation: bool,
    /// Open what a backup was just put into ([`Restoring`]); refused for any other directory.
    pub restoring: bool,
    /// Longest segment of the journal.
    pub segment_bytes: u64,
    /// See [`JOURNAL_RING_BYTES`].
    pub ring_bytes: u64,
    /// See [`JOURNAL_BYTES_MAX`].
    pub most_bytes: u64,
    /// See [`JOURNAL_AGE_MAX`].
    pub most_age: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            new_installation: false,
            restoring: false,
            segment_bytes: seglog::MAX_SEGMENT_BYTES,
            ring_bytes: JOURNAL_RING_BYTES,
            most_bytes: JOURNAL_BYTES_MAX,
            most_age: JOURNAL_AGE_MAX,
        }
    }
}

/// An opened store.
#[derive(Debug)]
pub struct Opened {
    /// The handle.
    pub store: Store,
    /// The state: checkpoint and replay, with the running catalog. New and empty when the store is.
    pub status: Status,
    /// How each commit ended, in order. Ends when the writing thread does.
    pub done: UnboundedReceiver<Done>,
    /// What was found.
    pub recovery: Recovery,
}

/// What opening a store found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Index of the checkpoint it started from; 0 = none.
    pub checkpoint: JournalIndex,
    /// Rows replayed behind it.
    pub replayed: u64,
    /// Checkpoints that could not be read, and why.
    pub damaged_checkpoints: Vec<String>,
    /// Damage of the journal that the checkpoint covers.
    pub damages: Vec<Damage>,
    /// Bytes of an unfinished commit, cut off.
    pub torn_bytes: u64,
}

/// One group commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The rows, as `entry::encode` gives them.
    pub record: Vec<u8>,
    /// Index of its last row.
    pub last: JournalIndex,
}

/// How a commit ended.
#[derive(Debug)]
pub enum Done {
    /// It is durable.
    Committed {
        /// Index of its last row.
        last: JournalIndex,
    },
    /// It is not durable and never will be; its indexes are free again. The next one begins a new segment.
    Failed {
        /// Index of its last row.
        last: JournalIndex,
        /// Why.
        error: StoreError,
    },
}

/// Projections that trimming never passes. They tell how far they are durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Projection {
    /// `history`.
    History,
}

/// What may be removed.
#[derive(Debug, Clone, Copy)]
struct Trim {
    /// Checkpoints and projections need nothing up to here.
    reached: JournalIndex,
    /// Cursors need nothing up to here.
    wanted: JournalIndex,
    ring_bytes: u64,
    most_bytes: u64,
    /// Age alone keeps cursors from being waited for.
    aged: bool,
}

/// Handle of the store; cheap to clone. The last one dropped waits for the threads and frees the lock.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: Options,
    bounds: Arc<Bounds>,
    published: watch::Receiver<JournalIndex>,
    revisions: Revisions,
    /// Directory of the cursors.
    cursors: PathBuf,
    /// Indexes of the checkpoints kept, ascending.
    checkpoints: watch::Receiver<Vec<JournalIndex>>,
    progress: Arc<Progress>,
    /// How far history is durable.
    history: AtomicU64,
    /// Heads of the journal with the time they were seen at, oldest first, [`AGE_STEP`] apart.
    ages: Mutex<VecDeque<(Timestamp, JournalIndex)>>,
    threads: Mutex<Threads>,
    /// Held for as long as the store lives.
    _lock: File,
}

/// What handle and writing thread know of each other's work.
#[derive(Debug, Default)]
struct Progress {
    /// Bytes written by this process.
    written: AtomicU64,
    /// How many of them the last checkpoint covers.
    covered: AtomicU64,
    /// A trim waits or runs.
    trimming: AtomicBool,
    /// The longest that writing one commit and making it durable took, in microseconds.
    slowest_us: AtomicU64,
    /// The last removal of rows that a cursor still wanted was for their age, not for the journal's size.
    for_age: AtomicBool,
    tidying: tidying::Counts,
}

#[derive(Debug, Default)]
struct Threads {
    jobs: Option<SyncSender<Job>>,
    checkpoints: Option<SyncSender<Arc<Status>>>,
    running: Vec<JoinHandle<()>>,
}

/// Opens the store in `data`, making what is not there yet.
///
/// # Errors
/// [`StoreError::InUse`] when another master works there; an error that names the place and the way out when anything that was
/// acknowledged cannot be read; never a store with less in it.
pub fn open(data: &Path, options: Options) -> Result<Opened, StoreError> {
    file::make_directory(data)?;
    let lock = lock(data)?;
    restoring::refuse(data, options.restoring)?;
    let founded = data.join(FOUNDED);
    let checkpoints = data.join("checkpoint");

    let expected = file::exists(&founded)? || !file::names(&checkpoints)?.is_empty();
    let (log, recovered) = open_journal(data, &options, expected)?;
    for damage in &recovered.damages {
        tracing::error!(?damage, "the journal is damaged");
    }
    file::make_directory(&checkpoints)?;
    let revisions = Revisions::open(&data.join("revisions"))?;
    let cursors = data.join("cursors");
    file::make_directory(&cursors)?;
    let found = checkpoint::newest(&checkpoints)?;
    let checkpoint = found.status.head;
    let (status, replayed) = journal::replay(&log, &recovered, found.status, &revisions)?;
    tracing::info!(head = %status.head, %checkpoint, replayed, "the store is open");
    let recovery = Recovery {
        checkpoint,
        replayed,
        damaged_checkpoints: found.damaged,
        damages: recovered.damages,
        torn_bytes: recovered.torn_bytes,
    };

    // Asked once more: what was left of another store may have been put aside, and its mark with it.
    let unmarked = (!file::exists(&founded)?).then_some(founded);
    let bounds = log.bounds();
    let progress = Arc::new(Progress::default());
    let (done_sender, done) = unbounded_channel();
    let (published_sender, published) = watch::channel(JournalIndex(log.published()));
    let (kept_sender, kept) = watch::channel(found.kept);
    let (jobs, jobs_receiver) = sync_channel(JOBS);
    let (states, states_receiver) = sync_channel(CHECKPOINT_JOBS);
    let counted = Arc::clone(&progress);
    let writer = Writer {
        log,
        done: done_sender,
        published: published_sender,
        progress: Arc::clone(&progress),
        founded: unmarked,
    };
    let keeper =
        Keeper { directory: checkpoints, revisions: revisions.clone(), bounds: Arc::clone(&bounds), kept: kept_sender };
    let running = vec![
        spawn("journal", data, move || writer.run(&jobs_receiver))?,
        spawn("checkpoint", data, move || keeper.run(&states_receiver, &counted.tidying))?,
    ];
    let inner = Inner {
        options,
        bounds,
        published,
        revisions,
        cursors,
        checkpoints: kept,
        progress,
        history: AtomicU64::new(0),
        ages: Mutex::default(),
        threads: Mutex::new(Threads { jobs: Some(jobs), checkpoints: Some(states), running }),
        _lock: lock,
    };
    Ok(Opened { store: Store { inner: Arc::new(inner) }, status, done, recovery })
}

impl Store {
    /// Asks for a commit; how it ended comes from [`Opened::done`]. One at a time.
    ///
    /// # Errors
    /// When several wait already, or the writing thread is gone. Nothing will come for this commit then.
    pub fn append(&self, commit: Commit) -> Result<(), StoreError> {
        self.ask(Job::Append(commit))
    }

    fn ask(&self, job: Job) -> Result<(), StoreError> {
        let threads = self.inner.threads();
        let jobs = threads.jobs.as_ref().ok_or(StoreError::Stopped)?;
        jobs.try_send(job).map_err(|refused| match refused {
            TrySendError::Full(_) => StoreError::Busy,
            TrySendError::Disconnected(_) => StoreError::Stopped,
        })
    }

    /// Reads rows from an index on, which may lie in the future.
    ///
    /// # Errors
    /// [`StoreError::Trimmed`] names the first row there is.
    pub fn reader(&self, from: JournalIndex) -> Result<RowReader, StoreError> {
        RowReader::open(&self.inner.bounds, from)
    }

    /// Index of the last durable row, to read and to wait on.
    #[must_use]
    pub fn published(&self) -> watch::Receiver<JournalIndex> {
        self.inner.published.clone()
    }

    /// Index of the first row that may still be there.
    #[must_use]
    pub fn first(&self) -> JournalIndex {
        JournalIndex(self.inner.bounds.first())
    }

    /// Bytes of the segments that hold rows above an index.
    #[must_use]
    pub fn bytes_behind(&self, index: JournalIndex) -> u64 {
        self.inner.bounds.bytes_above(index.0)
    }

    /// The bound at which cursors are no longer waited for.
    #[must_use]
    pub fn bytes_max(&self) -> u64 {
        self.inner.options.most_bytes
    }

    /// Stable name of the bound that last cost a cursor its rows.
    #[must_use]
    pub fn overran_by(&self) -> &'static str {
        if self.inner.progress.for_age.load(Ordering::Acquire) { JOURNAL_AGE } else { JOURNAL_BYTES }
    }

    /// Makes a catalog durable under its digest, before an entry names it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep_revision(&self, catalog: &Catalog) -> Result<(), StoreError> {
        self.inner.revisions.keep(catalog, SystemTime::now())
    }

    /// The catalog with this digest.
    ///
    /// # Errors
    /// When it is not there or damaged.
    pub fn revision(&self, digest: &str) -> Result<Arc<Catalog>, StoreError> {
        self.inner.revisions.load(digest)
    }

    /// The durable position of a consumer of the journal.
    ///
    /// # Errors
    /// When the name is not that of a file.
    pub fn cursor(&self, name: &str) -> Result<CursorFile, StoreError> {
        CursorFile::named(&self.inner.cursors, name)
    }

    /// Whether a checkpoint is due, when the last one was asked for `since` ago: see [`CHECKPOINT_BYTES`] and [`CHECKPOINT_EVERY`].
    #[must_use]
    pub fn checkpoint_due(&self, since: Duration) -> bool {
        let progress = &self.inner.progress;
        let written = progress.written.load(Ordering::Relaxed).saturating_sub(progress.covered.load(Ordering::Relaxed));
        written >= CHECKPOINT_BYTES || (since >= CHECKPOINT_EVERY && written > 0)
    }

    /// Writes a checkpoint of a published state in the background. Left out while one is being written.
    pub fn checkpoint(&self, status: Arc<Status>) {
        let head = status.head;
        if head > *self.inner.published.borrow() {
            tracing::error!(%head, "a state that is not published was offered as a checkpoint; it is left out");
            return;
        }
        let written = self.inner.progress.written.load(Ordering::Relaxed);
        match self.inner.threads().checkpoints.as_ref().map(|states| states.try_send(status)) {
            Some(Ok(())) => self.inner.progress.covered.store(written, Ordering::Relaxed),
            Some(Err(TrySendError::Full(_))) => tracing::debug!(%head, "a checkpoint is being written already"),
            Some(Err(TrySendError::Disconnected(_))) | None => {
                tracing::error!("the checkpoint thread has ended; restart the master");
            }
        }
    }

    /// Indexes of the checkpoints kept, ascending, to read and to wait on.
    #[must_use]
    pub fn checkpoints(&self) -> watch::Receiver<Vec<JournalIndex>> {
        self.inner.checkpoints.clone()
    }

    /// A projection is durable up to an index. Until each has said so once, nothing is trimmed.
    pub fn reached(&self, projection: Projection, index: JournalIndex) {
        match projection {
            Projection::History => self.inner.history.store(index.0, Ordering::Release),
        }
    }

    /// The longest that the disk took for one commit since start. What commits waited beyond it is this program's doing.
    #[must_use]
    pub fn slowest_write(&self) -> Duration {
        Duration::from_micros(self.inner.progress.slowest_us.load(Ordering::Relaxed))
    }

    /// Whether segments are still being removed: one at a time, and commits go first.
    #[must_use]
    pub fn is_trimming(&self) -> bool {
        self.inner.progress.trimming.load(Ordering::Acquire)
    }

    /// Removes old segments in the background: never what the older checkpoint or a projection needs, nor the last
    /// [`JOURNAL_RING_BYTES`]; for cursors it waits within [`JOURNAL_BYTES_MAX`] and [`JOURNAL_AGE_MAX`]. To be called every few
    /// seconds.
    pub fn trim(&self, now: Timestamp) {
        let inner = &self.inner;
        // Without an older checkpoint to fall back to, the whole journal is.
        let kept = inner.checkpoints.borrow().clone();
        let fallback =
            if kept.len() < CHECKPOINTS_KEPT { JournalIndex(0) } else { kept.first().copied().unwrap_or_default() };
        let history = JournalIndex(inner.history.load(Ordering::Acquire));
        let reached = fallback.min(history);
        let aged = inner.aged(now);
        let lowest = cursor::lowest(&inner.cursors).unwrap_or_else(|error| {
            tracing::warn!(%error, "the cursors cannot be read; the journal is kept for them");
            Some(JournalIndex(0))
        });
        let wanted = lowest.map_or(reached, |lowest| lowest.max(aged));
        let trim = Trim {
            reached,
            wanted,
            ring_bytes: inner.options.ring_bytes,
            most_bytes: inner.options.most_bytes,
            aged: lowest.is_some_and(|lowest| lowest < aged),
        };
        // One at a time, lest a slow disk gathers trims that leave a commit no room. What is left out is asked for again soon.
        if !inner.progress.trimming.swap(true, Ordering::AcqRel) && self.ask(Job::Trim(trim)).is_err() {
            inner.progress.trimming.store(false, Ordering::Release);
        }
    }
}

impl Inner {
    fn threads(&self) -> MutexGuard<'_, Threads> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the head of the journal, and gives the one of [`JOURNAL_AGE_MAX`] ago; 0 if this process is younger.
    fn aged(&self, now: Timestamp) -> JournalIndex {
        let head = *self.published.borrow();
        let mut ages = self.ages.lock().unwrap_or_else(PoisonError::into_inner);
        if ages.back().is_none_or(|(at, _)| now.since(*at) >= AGE_STEP) {
            ages.push_back((now, head));
        }
        while ages.get(1).is_some_and(|(at, _)| now.since(*at) >= self.options.most_age) {
            ages.pop_front();
        }
        ages.front()
            .filter(|(at, _)| now.since(*at) >= self.options.most_age)
            .map_or(JournalIndex(0), |(_, index)| *index)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let threads = std::mem::take(self.threads.get_mut().unwrap_or_else(PoisonError::into_inner));
        drop((threads.jobs, threads.checkpoints));
        for thread in threads.running {
            if thread.join().is_err() {
                tracing::error!("a thread of the store has panicked");
            }
        }
    }
}

/// Opens the journal; `expected` tells that it must not be empty.
fn open_journal(data: &Path, options: &Options, expected: bool) -> Result<(seglog::Log, seglog::Recovery), StoreError> {
    let directory = data.join("journal");
    let (log, recovered) = journal::open(&directory, options.segment_bytes)?;
    let empty = log.published() == 0 && recovered.damages.is_empty();
    match (empty, expected, options.new_installation) {
        (true, true, false) => Err(StoreError::Empty { data: data.to_path_buf() }),
        (false, _, true) => Err(StoreError::NotEmpty { data: data.to_path_buf() }),
        (true, true, true) => {
            drop(log);
            let aside = move_aside(
                data,
                "before-new-installation",
                &["journal", "checkpoint", "revisions", "cursors", FOUNDED],
            )?;
            tracing::warn!(?aside, "a new installation; what was left of the one before is kept there");
            journal::open(&directory, options.segment_bytes)
        }
        (true, false, _) | (false, _, false) => Ok((log, recovered)),
    }
}

/// Moves what is left of a store into a directory of its own, so that nothing of it is taken for the next one's. Gives that directory;
/// `None` if there was nothing to move.
fn move_aside(data: &Path, label: &str, parts: &[&str]) -> Result<Option<PathBuf>, StoreError> {
    let mut left = Vec::new();
    for name in parts {
        if file::exists(&data.join(name))? {
            left.push(*name);
        }
    }
    if left.is_empty() {
        return Ok(None);
    }
    let aside = (1_u32..)
        .map(|number| data.join(format!("{label}-{number}")))
        .find(|path| !path.exists())
        .unwrap_or_else(|| data.join(label));
    file::make_directory(&aside)?;
    // The mark of a founded store goes last: a crash in between comes here again.
    for name in left {
        let from = data.join(name);
        std::fs::rename(&from, aside.join(name)).map_err(file::io(&from, "put aside"))?;
    }
    file::sync_directory(&aside)?;
    file::sync_directory(data)?;
    Ok(Some(aside))
}

fn lock(data: &Path) -> Result<File, StoreError> {
    let path = data.join("lock");
    let lock =
        OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(file::io(&path, "open"))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { data: data.to_path_buf() }),
        Err(TryLockError::Error(refused)) => Err(file::io(&path, "lock")(refused)),
    }
}

fn spawn(name: &str, data: &Path, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    thread::Builder::new().name(name.to_owned()).spawn(work).map_err(file::io(data, "start a thread for"))
}
