//! The volume: runs on disk, states, the assignment, and what earlier processes left. Does what the brain orders and answers; decides
//! only how. Its own thread does all of it, one order after the other, so that nothing else ever waits for a disk.
//! The surprise: one append is one write and one sync however many batches it holds; while it runs, the next ones gather.

pub mod held;
pub mod kept;
pub mod sealed;
pub mod status;
pub mod volume;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use seglog::{Disk, Medium};
use shared::name::{InstanceId, RunCounter, RunId, Sequence, Timeline};
use tokio::sync::mpsc;

use crate::command::{
    Adopted, Beginning, Command, Extent, FoundRun, Identity, Kept, KeptStates, Limits, ReadBatches, ReadId, Room,
};
use held::RunLog;
use kept::Assignments;
use sealed::SealError;
use volume::{Holding, Volume};

/// Runs of earlier processes held open; directories beyond wait until some are delivered. Each costs two open files.
pub const ADOPTED_RUNS_MAX: usize = 128;
/// Orders on their way to the thread; the loop keeps further ones.
pub const ORDERS_MAX: usize = 64;
/// Answers on their way back; the thread waits.
pub const ANSWERS_MAX: usize = 64;

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
    Measured { extents: Vec<Extent> },
    GivenUp { run: RunId, up_to: Sequence, lost: u64 },
    GiveUpFailed,
    Kept,
    KeepFailed,
    StatesKept,
    StatesFailed,
    Neighbours { alive: bool, adopted: Option<Adopted> },
}

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
}

impl Spool {
    /// Opens the volume for a new process: its own directory and run, earlier processes' runs, the greatest state of each check.
    ///
    /// # Errors
    /// When the volume cannot be read or written. What is merely damaged is named, and left or made a gap.
    pub fn open(data: &Path, identity: &Identity, limits: &Limits) -> Result<(Spool, Beginning)> {
        Self::open_on(data, identity, limits, Arc::new(Disk))
    }

    /// The same with its runs on another medium than the disk.
    ///
    /// # Errors
    /// As [`Spool::open`].
    pub fn open_on(
        data: &Path,
        identity: &Identity,
        limits: &Limits,
        medium: Arc<dyn Medium>,
    ) -> Result<(Spool, Beginning)> {
        let owner = (&identity.installation, &identity.slot);
        let volume = Volume::open(data, owner, limits.segment_bytes(), medium)?;
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
        holdings.flat_map(|holding| holding.runs.values()).fold(0, |sum, held| sum.saturating_add(held.bytes()))
    }

    /// How much room there is. Where the system does not tell, nothing is known of the volume.
    #[must_use]
    pub fn room(&self) -> Room {
        let (free, size) = self.volume.room().unwrap_or_else(|error| {
            tracing::warn!("the volume's free space is not known: {error:#}");
            (0, 0)
        });
        Room { held: self.bytes(), free, size }
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
        for (adoption, holding) in self.adopted.iter_mut().filter(|(_, holding)| !holding.left.is_empty()) {
            let found = self.volume.open_runs(holding)?;
            if !found.is_empty() {
                tracing::info!(path = %holding.path.display(), runs = found.len(), "runs that could not be opened are delivered now");
                holding.fold_states(self.timeline, &mut states);
                runs.extend(found);
                *adoption = self.adoptions + 1;
                any = true;
            }
        }
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
        // Whoever died between noting the end of a run and deleting it, and whoever waits for room, has it still.
        states.revive(|run| survey.runs.contains(run));
        Ok((alive, any.then_some(Adopted { runs, states })))
    }

    fn open_run(&mut self) -> Result<FoundRun> {
        let ours: Vec<&Path> = vec![];
        let shown = self.volume.survey(&ours)?.counter;
        let counter = self.volume.draw(shown)?;
        self.own.open_run(RunId(rand::random()), counter, &self.volume)
    }

    fn run(&mut self, run: RunId) -> Result<&mut RunLog> {
        let held = self.holding(run).and_then(|holding| holding.runs.get_mut(&run));
        held.with_context(|| format!("run {run} is not on this volume"))
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
            Command::Append { run, batches } => Some(match self.run(run).and_then(|held| held.append(&batches)) {
                Ok(up_to) => Answer::Appended { run, up_to },
                Err(error) => {
                    tracing::error!("results are in memory only: {error:#}");
                    Answer::AppendFailed
                }
            }),
            Command::Read { read, run, from, bytes_max, batches_max } => {
                Some(match self.run(run).and_then(|held| held.read(from, bytes_max, batches_max)) {
                    Ok(found) => Answer::Read { read, found },
                    Err(error) => {
                        tracing::error!(%run, "the spool cannot be read: {error:#}");
                        Answer::ReadFailed { read }
                    }
                })
            }
            Command::Trim { run, up_to } => {
                let held = self.holding(run)?.runs.get_mut(&run)?;
                match held.trim(up_to) {
                    Ok(false) => None,
                    Ok(true) => Some(Answer::Trimmed { run, first: held.first() }),
                    Err(error) => {
                        tracing::error!("what was delivered is still on the volume: {error:#}");
                        None
                    }
                }
            }
            Command::Measure => {
                let adopted = self.adopted.iter_mut().map(|(_, holding)| holding);
                let extents = adopted.chain([&mut self.own]).flat_map(Holding::extents).collect();
                Some(Answer::Measured { extents })
            }
            Command::GiveUp { run, first, up_to, reason } => {
                Some(match self.run(run).and_then(|held| held.give_up(first, up_to, reason)) {
                    Ok(lost) => Answer::GivenUp { run, up_to, lost },
                    Err(error) => {
                        tracing::error!(%run, "the oldest results stay although the spool is full: {error:#}");
                        Answer::GiveUpFailed
                    }
                })
            }
            Command::CloseRun(run) => {
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
                holding.runs.is_empty() && holding.left.is_empty() && *adoption <= states.adoptions
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
    /// Answers, each with the room there is after it.
    pub answers: mpsc::Receiver<(Answer, Room)>,
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
                let _ = done.blocking_send((answer, spool.room()));
            }
        }
    });
    Desk { orders, answers, thread }
}

/// Whether what kept the volume from being opened may pass by itself: it is full, or its disk fails for the moment.
#[must_use]
pub fn may_pass(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let own = match (cause.downcast_ref(), cause.downcast_ref()) {
            (Some(seglog::Error::Io { source, .. }), _) | (_, Some(SealError::Io(source))) => Some(source),
            _ => cause.downcast_ref::<io::Error>(),
        };
        own.is_some_and(|error| {
            let passing = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::ReadOnlyFilesystem];
            passing.contains(&error.kind()) || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
        })
    })
}

/// A name for a new process.
#[must_use]
pub fn new_instance() -> InstanceId {
    InstanceId(rand::random())
}

#[cfg(test)]
mod tests;
