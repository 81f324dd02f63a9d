//! Rows in `seglog`: the thread that writes them, the reader that gives them back, and the replay that adds them up. One record is
//! one group commit under the index of its last row. Does not know what a row means (`status` folds). The surprise: damage is
//! harmless when the rows around it follow one another; only then nothing can be missing between them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;

use seglog::{Bounds, Damage, Item, Log, Recovery};
use shared::name::JournalIndex;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

use crate::entry::{self, Entry, Row};
use crate::status::Status;

use super::revisions::Revisions;
use super::{Commit, Done, Progress, StoreError, Trim, file};

/// What kind of log the journal is.
const TAG: [u8; 4] = *b"PGJ1";
/// Longest record. Rows are grouped up to [`entry::RECORD_BYTES`], but one row (the activation of a catalog with all its names) may
/// be longer; one beyond this cannot be committed, and the activation is refused.
const RECORD_BYTES_MAX: u32 = 48 * 1024 * 1024;

/// Opens the log of the journal. `segment_bytes` is 64 MiB but in tests.
pub(super) fn open(directory: &Path, segment_bytes: u64) -> Result<(Log, Recovery), StoreError> {
    let options = seglog::Options { segment_bytes, record_bytes: RECORD_BYTES_MAX, ..seglog::Options::new(TAG) };
    Ok(Log::open(directory, options)?)
}

/// What a reader of the journal comes upon.
#[derive(Debug, Clone, PartialEq)]
pub enum Read {
    /// Rows that were committed together, those before the first index asked for left out.
    Rows(Vec<Row>),
    /// Something that was published cannot be read any more. Reading goes on behind it.
    Damage(Damage),
}

/// Reads published rows in order, in any thread, while the journal is written. Does not wait.
#[derive(Debug)]
pub struct RowReader {
    reader: seglog::Reader,
    from: JournalIndex,
}

impl RowReader {
    pub(super) fn open(bounds: &Arc<Bounds>, from: JournalIndex) -> Result<Self, StoreError> {
        Ok(Self { reader: bounds.reader(from.0)?, from })
    }

    /// The next rows or damage; `None` when all that is published has been read: ask again when more is.
    ///
    /// # Errors
    /// [`StoreError::Trimmed`] when the journal was trimmed past this reader; [`StoreError::Record`] for an intact record that this
    /// program cannot read, behind which reading goes on; what the disk refuses can be tried again.
    #[expect(
        clippy::should_implement_trait,
        reason = "not an iterator: None is not the end, and errors can be retried"
    )]
    pub fn next(&mut self) -> Result<Option<Read>, StoreError> {
        loop {
            let (index, payload) = match self.reader.next()? {
                None => return Ok(None),
                Some(Item::Damage(damage)) => return Ok(Some(Read::Damage(damage))),
                Some(Item::Record { index, payload }) => (JournalIndex(index), payload),
            };
            let mut rows = rows_of(index, &payload)?;
            rows.retain(|row| row.index >= self.from);
            if !rows.is_empty() {
                return Ok(Some(Read::Rows(rows)));
            }
        }
    }

    /// From now on what the disk refuses to read is damage instead of an error: for a caller whose repeated attempts failed.
    pub fn pass_over_unreadable(&mut self) {
        self.reader.pass_over_unreadable();
    }
}

/// The rows of a record, which must rise up to the record's own index.
fn rows_of(index: JournalIndex, payload: &[u8]) -> Result<Vec<Row>, StoreError> {
    let wrong = |why: String| StoreError::Record { index, why };
    let rows = entry::decode(payload).map_err(|error| wrong(error.to_string()))?;
    let rising = rows.iter().zip(rows.iter().skip(1)).all(|(row, next)| row.index < next.index);
    if rows.last().map(|row| row.index) != Some(index) || !rising {
        return Err(wrong("the indexes of its rows do not rise up to its own".to_owned()));
    }
    Ok(rows)
}

/// Folds all rows behind `status` into it.
pub(super) fn replay(
    log: &Log,
    recovery: &Recovery,
    mut status: Status,
    revisions: &Revisions,
) -> Result<(Status, u64), StoreError> {
    let published = JournalIndex(log.published());
    let covered = status.head;
    if covered > published {
        return Err(StoreError::Behind { journal: published, expected: covered });
    }
    // Readers are not told of damage at the very end: how many records were there, nobody knows.
    if let Some(damage) = recovery.damages.iter().find(|damage| damage.before.is_none() && damage.after >= published.0)
    {
        return Err(StoreError::Lost { damage: damage.clone() });
    }
    if !status.digest.is_empty() {
        status.catalog = Some(revisions.load(&status.digest)?);
    }
    let mut reader = match RowReader::open(&log.bounds(), JournalIndex(covered.0.saturating_add(1))) {
        Err(StoreError::Trimmed { first }) => return Err(StoreError::Beginning { first, covered }),
        opened => opened?,
    };
    let mut suspected: Option<Damage> = None;
    let mut replayed = 0_u64;
    while let Some(read) = reader.next()? {
        match read {
            Read::Damage(damage) if damage.before.is_some_and(|before| before <= covered.0) => {}
            Read::Damage(damage) => suspected = Some(damage),
            Read::Rows(rows) => {
                let follows = rows.first().is_some_and(|row| row.follows(status.head));
                if let Some(damage) = suspected.take().filter(|_| !follows) {
                    return Err(StoreError::Lost { damage });
                }
                for row in &rows {
                    fold(&mut status, row, revisions)?;
                    replayed += 1;
                }
            }
        }
    }
    match suspected {
        Some(damage) if status.head < published => Err(StoreError::Lost { damage }),
        _ if status.head < published => Err(StoreError::Behind { journal: status.head, expected: published }),
        _ => Ok((status, replayed)),
    }
}

fn fold(status: &mut Status, row: &Row, revisions: &Revisions) -> Result<(), StoreError> {
    let catalog = match &row.entry {
        Entry::Activate(activate) => Some(revisions.load(&activate.digest)?),
        _ => None,
    };
    status.fold(row, &row.items(), catalog.as_ref());
    Ok(())
}

/// What the writing thread is asked to do.
#[derive(Debug)]
pub(super) enum Job {
    /// Make a record durable.
    Append(Commit),
    /// Remove old segments.
    Trim(Trim),
}

/// The writing side: owns the log, and lives in a thread of its own, because fdatasync takes as long as it takes.
pub(super) struct Writer {
    pub(super) log: Log,
    pub(super) done: UnboundedSender<Done>,
    pub(super) published: watch::Sender<JournalIndex>,
    pub(super) progress: Arc<Progress>,
    /// The mark to make when the first row of a new store is durable.
    pub(super) founded: Option<PathBuf>,
}

impl Writer {
    /// Works until nobody can ask any more.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        let mut trim: Option<Trim> = None;
        loop {
            let job = match trim {
                None => jobs.recv().ok(),
                Some(asked) => match jobs.try_recv() {
                    Ok(job) => Some(job),
                    Err(TryRecvError::Disconnected) => None,
                    // A commit never waits for more than the removal of one segment.
                    Err(TryRecvError::Empty) => {
                        if !self.trim(asked) {
                            trim = None;
                            self.progress.trimming.store(false, Ordering::Release);
                        }
                        continue;
                    }
                },
            };
            match job {
                None => break,
                Some(Job::Append(commit)) => self.append(&commit),
                Some(Job::Trim(asked)) => trim = Some(asked),
            }
        }
    }

    fn append(&mut self, commit: &Commit) {
        let last = commit.last;
        let began = Instant::now();
        let committed = self.log.append(last.0, &commit.record).and_then(|()| self.log.sync());
        let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.progress.slowest_us.fetch_max(took, Ordering::Relaxed);
        if let Err(error) = committed {
            tracing::error!(%error, %last, "the journal cannot be written; nothing is accepted until it can");
            // Nobody waits for it when the process is about to end.
            let _ = self.done.send(Done::Failed { last, error: error.into() });
            return;
        }
        if let Some(mark) = &self.founded {
            match file::replace(mark, b"") {
                Ok(()) => self.founded = None,
                // The journal is no longer empty, which says the same; the next commit tries again.
                Err(error) => tracing::warn!(%error, "the mark of a founded store could not be written"),
            }
        }
        self.progress.written.fetch_add(commit.record.len() as u64, Ordering::Relaxed);
        self.published.send_replace(last);
        let _ = self.done.send(Done::Committed { last });
    }

    /// Removes the oldest segment that may go; whether there may be more.
    fn trim(&mut self, trim: Trim) -> bool {
        let wanted = self.log.trim_oldest(trim.reached.min(trim.wanted).0, trim.ring_bytes);
        let removed = match wanted {
            Ok(None) => {
                self.log.trim_oldest(trim.reached.0, trim.most_bytes).map(|forced| forced.map(|bytes| (bytes, true)))
            }
            Ok(Some(bytes)) => Ok(Some((bytes, false))),
            Err(error) => Err(error),
        };
        let first = self.log.first();
        if matches!(removed, Ok(Some(_))) {
            self.progress.tidying.removed();
        }
        match removed {
            Ok(None) => return false,
            Ok(Some((bytes, false))) => {
                if trim.aged {
                    self.progress.for_age.store(true, Ordering::Release);
                }
                tracing::debug!(bytes, first, "trimmed the journal");
            }
            Ok(Some((bytes, true))) => {
                self.progress.for_age.store(false, Ordering::Release);
                tracing::warn!(
                    bytes,
                    first,
                    "the journal is at its bound: rows were removed that a writer has not sent yet"
                );
            }
            Err(error) => {
                tracing::warn!(%error, "the journal could not be trimmed");
                return false;
            }
        }
        true
    }
}
