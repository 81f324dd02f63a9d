//! The volume: runs on disk, states, the assignment, and what earlier processes left. Does what the brain orders and answers; decides
//! only how. Its own thread does all of it, one order after the other, so that nothing else ever waits for a disk.
//! The surprise: one append is one write and one sync however many batches it holds; while it runs, the next ones gather.

pub mod kept;
pub mod sealed;
pub mod status;
pub mod volume;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bytes::Bytes;
use seglog::{Item, Reader};
use shared::name::{InstanceId, RunCounter, RunId, Sequence, Timeline};
use tokio::sync::mpsc;

use crate::command::{
    Adopted, Beginning, Command, FoundRun, Identity, Kept, KeptStates, ReadBatches, ReadId, SpooledBatch,
};
use kept::Assignments;
use volume::{Holding, Volume};

/// Runs of earlier processes held open; directories beyond wait until some are delivered. Each costs two open files.
pub const ADOPTED_RUNS_MAX: usize = 128;
/// Orders on their way to the thread; the loop keeps further ones.
pub const ORDERS_MAX: usize = 64;
/// Answers on their way back; the thread waits.
pub const ANSWERS_MAX: usize = 64;
/// After so many failed readings of a run in a row, what the disk refuses to give counts as damaged.
const READS_FAILED_MAX: u32 = 3;

/// An order to the thread.
#[derive(Debug)]
pub enum Order {
    /// One of the brain's.
    Do(Command),
    /// Look for directories that nobody alive has.
    Survey,
    /// Put this into the process's directory, for whoever asks what it does.
    Tell(Vec<u8>),
}

/// What the thread has done.
#[derive(Debug)]
pub enum Answer {
    Opened { run: RunId, counter: RunCounter },
    OpenFailed,
    Appended { run: RunId, up_to: Sequence },
    AppendFailed,
    Read { read: ReadId, found: ReadBatches },
    ReadFailed { read: ReadId },
    Trimmed { run: RunId, first: Sequence },
    Kept,
    KeepFailed,
    StatesKept,
    StatesFailed,
    Neighbours { alive: bool, adopted: Option<Adopted> },
}

/// Places in runs from which the next reading goes on.
type Readers = BTreeMap<RunId, (Sequence, Reader)>;

/// The volume, opened by one process.
#[derive(Debug)]
pub struct Spool {
    volume: Volume,
    assignments: Assignments,
    own: Holding,
    adopted: Vec<(u64, Holding)>,
    adoptions: u64,
    timeline: Option<Timeline>,
    named: Vec<PathBuf>,
    readers: Readers,
    read_failures: BTreeMap<RunId, u32>,
}

impl Spool {
    /// Opens the volume for a new process: its own directory and run, earlier processes' runs, the greatest state of each check.
    ///
    /// # Errors
    /// When the volume cannot be read or written. What is merely damaged is named, and left or made a gap.
    pub fn open(data: &Path, identity: &Identity) -> Result<(Spool, Beginning)> {
        let volume = Volume::open(data, &identity.installation, &identity.slot)?;
        let assignments = Assignments::open(data)?;
        let kept = assignments.load(&identity.installation, &identity.slot)?;
        let own = volume.enter(identity.instance)?;
        let mut spool = Spool {
            volume,
            assignments,
            own,
            adopted: Vec::new(),
            adoptions: 0,
            timeline: kept.as_ref().map(|kept| kept.timeline),
            named: Vec::new(),
            readers: Readers::new(),
            read_failures: BTreeMap::new(),
        };
        let (neighbour, adopted) = spool.survey(true)?;
        let Adopted { runs: earlier, states } = adopted.unwrap_or_default();
        let open = spool.open_run()?;
        Ok((spool, Beginning { open, earlier, kept, states, neighbour }))
    }

    /// This process's own directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.own.path
    }

    /// Bytes of all runs held.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let holdings = self.adopted.iter().map(|(_, holding)| holding).chain([&self.own]);
        holdings.flat_map(|holding| holding.runs.values()).fold(0, |sum, held| sum.saturating_add(held.log.bytes()))
    }

    /// Looks through the volume. `all`: states of every free directory count, even of those whose runs must wait for room.
    fn survey(&mut self, all: bool) -> Result<(bool, Option<Adopted>)> {
        let ours: Vec<&Path> =
            self.adopted.iter().map(|(_, holding)| holding.path.as_path()).chain([self.own.path.as_path()]).collect();
        let survey = self.volume.survey(&ours)?;
        for (path, owner) in survey.foreign {
            if !self.named.contains(&path) {
                tracing::warn!(path = %path.display(), owner, "a spool that is not this slot's is left where it is");
                self.named.push(path);
            }
        }
        let mut runs = Vec::new();
        let mut states = KeptStates::default();
        let mut held: usize = self.adopted.iter().map(|(_, holding)| holding.runs.len()).sum();
        let mut alive = survey.alive;
        let mut any = false;
        for path in survey.free {
            if held >= ADOPTED_RUNS_MAX && !all {
                break;
            }
            let Some(holding) = self.volume.adopt(path)? else {
                alive = true;
                continue;
            };
            any = true;
            holding.fold_states(self.timeline, &mut states);
            if held < ADOPTED_RUNS_MAX {
                held += holding.runs.len();
                runs.extend(holding.found());
                tracing::info!(path = %holding.path.display(), runs = holding.runs.len(), "an earlier process's spool is delivered from here");
                self.adopted.push((self.adoptions + 1, holding));
            }
        }
        self.adoptions += u64::from(any);
        states.adoptions = self.adoptions;
        Ok((alive, any.then_some(Adopted { runs, states })))
    }

    fn open_run(&mut self) -> Result<FoundRun> {
        let ours: Vec<&Path> = vec![];
        let shown = self.volume.survey(&ours)?.counter;
        let counter = self.volume.draw(shown)?;
        self.own.open_run(RunId(rand::random()), counter)
    }

    fn holding(&mut self, run: RunId) -> Option<&mut Holding> {
        let mut holdings = self.adopted.iter_mut().map(|(_, holding)| holding).chain([&mut self.own]);
        holdings.find(|holding| holding.runs.contains_key(&run))
    }

    /// Does one order. Orders to other rooms have no answer here.
    pub fn execute(&mut self, order: Order) -> Option<Answer> {
        match order {
            Order::Survey => match self.survey(false) {
                Ok((alive, adopted)) => Some(Answer::Neighbours { alive, adopted }),
                Err(error) => {
                    tracing::error!("the volume cannot be looked through: {error:#}");
                    None
                }
            },
            Order::Do(command) => self.obey(command),
            Order::Tell(status) => {
                if let Err(error) = status::tell(&self.own.path, &status) {
                    tracing::warn!("the status is not told: {error:#}");
                }
                None
            }
        }
    }

    fn obey(&mut self, command: Command) -> Option<Answer> {
        match command {
            Command::OpenRun => Some(match self.open_run() {
                Ok(found) => Answer::Opened { run: found.run, counter: found.counter },
                Err(error) => {
                    tracing::error!("no new run: {error:#}; the present one goes on");
                    Answer::OpenFailed
                }
            }),
            Command::Append { run, batches } => Some(match self.append(run, &batches) {
                Ok(up_to) => Answer::Appended { run, up_to },
                Err(error) => {
                    tracing::error!("results are in memory only: {error:#}");
                    Answer::AppendFailed
                }
            }),
            Command::Read { read, run, from, bytes_max, batches_max } => {
                Some(match self.read(run, from, bytes_max, batches_max) {
                    Ok(found) => Answer::Read { read, found },
                    Err(error) => {
                        tracing::error!(%run, "the spool cannot be read: {error:#}");
                        Answer::ReadFailed { read }
                    }
                })
            }
            Command::Trim { run, up_to } => {
                let held = self.holding(run)?.runs.get_mut(&run)?;
                match held.log.trim(up_to.0) {
                    Ok(0) => None,
                    Ok(_) => Some(Answer::Trimmed { run, first: Sequence(held.log.first()) }),
                    Err(error) => {
                        tracing::error!("what was delivered is still on the volume: {error}");
                        None
                    }
                }
            }
            Command::CloseRun(run) => {
                self.readers.remove(&run);
                if let Some(Err(error)) = self.holding(run).map(|holding| holding.remove_run(run)) {
                    tracing::error!("a delivered run is still on the volume: {error:#}");
                }
                None
            }
            Command::Keep(kept) => Some(self.keep(&kept)),
            Command::KeepStates(states) => Some(self.keep_states(&states)),
            Command::Probe { .. } | Command::Send { .. } => None,
        }
    }

    fn append(&mut self, run: RunId, batches: &[SpooledBatch]) -> Result<Sequence> {
        let held = self.holding(run).and_then(|holding| holding.runs.get_mut(&run));
        let log = &mut held.with_context(|| format!("run {run} is not on this volume"))?.log;
        for batch in batches {
            // A repeated append after a failure may find a part of itself.
            if batch.last.0 > log.published() {
                log.append(batch.last.0, &batch.bytes)?;
            }
        }
        Ok(Sequence(log.sync()?))
    }

    fn read(&mut self, run: RunId, from: Sequence, bytes_max: usize, batches_max: usize) -> Result<ReadBatches> {
        let failures = self.read_failures.get(&run).copied().unwrap_or(0);
        let mut found = ReadBatches::default();
        let held = self.holding(run).and_then(|holding| holding.runs.get(&run));
        let log = &held.with_context(|| format!("run {run} is not on this volume"))?.log;
        let first = Sequence(log.first());
        if from < first {
            found.trimmed_below = first;
        }
        let from = from.max(first);
        let opened = log.read(from.0)?;
        let published = Sequence(log.published());
        let mut reader = match self.readers.remove(&run) {
            Some((at, reader)) if at == from => reader,
            _ => opened,
        };
        if failures >= READS_FAILED_MAX {
            reader.pass_over_unreadable();
        }
        let mut bytes = 0;
        found.through = Sequence(from.0.saturating_sub(1));
        loop {
            if bytes >= bytes_max || found.batches.len() >= batches_max {
                break;
            }
            match reader.next() {
                Ok(Some(Item::Record { index, payload })) => {
                    found.through = Sequence(index);
                    bytes += payload.len();
                    found.batches.push(Bytes::from(payload));
                }
                Ok(Some(Item::Damage(damage))) => {
                    tracing::error!(%run, ?damage, "part of a run cannot be read; it becomes a gap");
                }
                Ok(None) => {
                    found.through = found.through.max(published);
                    break;
                }
                Err(error) => {
                    self.read_failures.insert(run, failures.saturating_add(1));
                    return Err(error.into());
                }
            }
        }
        self.read_failures.remove(&run);
        self.readers.insert(run, (Sequence(found.through.0.saturating_add(1)), reader));
        Ok(found)
    }

    fn keep(&mut self, kept: &Kept) -> Answer {
        match self.assignments.keep(kept) {
            Ok(()) => {
                self.timeline = Some(kept.timeline);
                Answer::Kept
            }
            Err(error) => {
                tracing::error!("the assignment runs, but a restart would begin with an earlier one: {error:#}");
                Answer::KeepFailed
            }
        }
    }

    fn keep_states(&mut self, states: &KeptStates) -> Answer {
        if let Err(error) = self.own.keep_states(states) {
            tracing::error!("states are in memory only: {error:#}");
            return Answer::StatesFailed;
        }
        // Everything such a directory knew is delivered and in our own states now.
        let (done, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.adopted).into_iter().partition(|(adoption, holding)| {
                holding.runs.is_empty() && !holding.incomplete && *adoption <= states.adoptions
            });
        self.adopted = kept;
        for (_, holding) in done {
            if let Err(error) = holding.remove() {
                tracing::error!("an empty directory is still on the volume: {error:#}");
            }
        }
        Answer::StatesKept
    }
}

/// The thread's two ends: orders go in, answers come back. It ends when the sender of orders is dropped.
#[derive(Debug)]
pub struct Desk {
    /// Orders.
    pub orders: mpsc::Sender<Order>,
    /// Answers, each with the bytes of the spool after it.
    pub answers: mpsc::Receiver<(Answer, u64)>,
    /// Done when everything ordered is.
    pub thread: tokio::task::JoinHandle<()>,
}

/// Gives the volume its thread.
#[must_use]
pub fn start(mut spool: Spool) -> Desk {
    let (orders, mut todo) = mpsc::channel(ORDERS_MAX);
    let (done, answers) = mpsc::channel(ANSWERS_MAX);
    let thread = tokio::task::spawn_blocking(move || {
        while let Some(order) = todo.blocking_recv() {
            if let Some(answer) = spool.execute(order) {
                // Without a listener the work still has to be done.
                let _ = done.blocking_send((answer, spool.bytes()));
            }
        }
    });
    Desk { orders, answers, thread }
}

/// A name for a new process.
#[must_use]
pub fn new_instance() -> InstanceId {
    InstanceId(rand::random())
}

#[cfg(test)]
mod tests;
