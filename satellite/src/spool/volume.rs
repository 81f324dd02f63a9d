//! The directories of a slot's volume: one per process, each with its lock, its owner's name, its runs and its states. Decides whose
//! a directory is and draws run counters; knows nothing of delivery. The surprise: a directory whose lock is free belongs to nobody
//! alive, so whoever gets the lock first has it, and the volume's own lock only guards the moment in which a new one appears.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use seglog::Medium;
use shared::name::{InstallationId, InstanceId, RunCounter, RunId, Sequence, Slot, Timeline};

use crate::command::{Extent, FoundRun, KeptStates};
use crate::spool::held::{Opening, RunLog};
use crate::spool::sealed::{self, SealError};
use crate::spool::status;

const STATES_TAG: [u8; 4] = *b"PGST";
const COUNTER_TAG: [u8; 4] = *b"PGCT";
/// After so many attempts to open a run what the disk refuses to give counts as damaged: better its gaps without their names than none of it.
const OPENINGS_FAILED_MAX: u32 = 3;
/// Version of both files.
const FORMAT: u8 = 1;

/// One process's directory, locked by us.
#[derive(Debug)]
pub struct Holding {
    /// Where.
    pub path: PathBuf,
    /// Runs in it.
    pub runs: BTreeMap<RunId, RunLog>,
    /// Runs in it that could not be opened: they must not be removed, and are tried again. How often they were.
    pub left: BTreeMap<RunId, u32>,
    _lock: File,
}

impl Holding {
    /// The runs as the brain wants them.
    #[must_use]
    pub fn found(&self) -> Vec<FoundRun> {
        self.runs.iter().map(|(run, held)| held.found(*run)).collect()
    }
}

/// What looking through the volume brought.
#[derive(Debug, Default)]
pub struct Survey {
    /// Directories that nobody alive has, by the time of their runs, oldest first.
    pub free: Vec<PathBuf>,
    /// A process of our slot is alive.
    pub alive: bool,
    /// Directories that are another's: left alone.
    pub foreign: Vec<(PathBuf, String)>,
    /// Highest run counter that any name shows.
    pub counter: RunCounter,
    /// Runs of all directories, whoever has them.
    pub runs: BTreeSet<RunId>,
}

/// The spool part of a slot's volume.
#[derive(Debug)]
pub struct Volume {
    root: PathBuf,
    owner: String,
    segment_bytes: u64,
    medium: Arc<dyn Medium>,
}

/// Makes a directory and those above it, durably.
fn create_directory(path: &Path) -> Result<()> {
    let missing: Vec<&Path> =
        path.ancestors().take_while(|level| !level.as_os_str().is_empty() && !level.exists()).collect();
    for level in missing.into_iter().rev() {
        match fs::create_dir(level) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("cannot create the directory {}", level.display()));
            }
            _ => sealed::sync_directory_of(level).with_context(|| format!("cannot sync beside {}", level.display()))?,
        }
    }
    Ok(())
}

fn open_lock(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .with_context(|| format!("cannot open the lock file {}", path.display()))
}

/// `Ok(None)`: another process has it.
fn try_lock(path: &Path) -> Result<Option<File>> {
    let file = open_lock(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

fn run_name(text: &str) -> Option<(RunCounter, RunId)> {
    let (counter, run) = text.split_once('-')?;
    Some((RunCounter(counter.parse().ok()?), run.parse().ok()?))
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", dir.display()))?;
        names.extend(entry.file_name().to_str().map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

impl Volume {
    /// Under `data`, for this slot.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(
        data: &Path,
        (installation, slot): (&InstallationId, &Slot),
        segment_bytes: u64,
        medium: Arc<dyn Medium>,
    ) -> Result<Self> {
        let root = data.join("spool");
        create_directory(&root)?;
        Ok(Self { root, owner: format!("{installation}/{}/{}", slot.region, slot.number), segment_bytes, medium })
    }

    /// How much others and we may still write to it, and its size.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn room(&self) -> Result<(u64, u64)> {
        let told =
            rustix::fs::statvfs(&self.root).with_context(|| format!("cannot ask about {}", self.root.display()))?;
        Ok((told.f_bavail.saturating_mul(told.f_frsize), told.f_blocks.saturating_mul(told.f_frsize)))
    }

    /// Held while a directory appears or is looked at, for moments only.
    fn lock(&self) -> Result<File> {
        let path = self.root.join("lock");
        let file = open_lock(&path)?;
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(file)
    }

    /// Makes this process's own directory.
    ///
    /// # Errors
    /// When the volume cannot be written.
    pub fn enter(&self, instance: InstanceId) -> Result<Holding> {
        let guard = self.lock()?;
        let path = self.root.join(instance.to_string());
        create_directory(&path)?;
        let lock = try_lock(&path.join("lock"))?
            .with_context(|| format!("{} belongs to a running process", path.display()))?;
        let owner = path.join("owner");
        fs::write(&owner, &self.owner).with_context(|| format!("cannot write {}", owner.display()))?;
        File::open(&owner)
            .and_then(|file| file.sync_all())
            .with_context(|| format!("cannot sync {}", owner.display()))?;
        sealed::sync_directory_of(&owner).with_context(|| format!("cannot sync {}", path.display()))?;
        drop(guard);
        Ok(Holding { path, runs: BTreeMap::new(), left: BTreeMap::new(), _lock: lock })
    }

    /// Looks at every directory but those in `ours`.
    ///
    /// # Errors
    /// When the volume cannot be read.
    pub fn survey(&self, ours: &[&Path]) -> Result<Survey> {
        let _guard = self.lock()?;
        let mut survey = Survey::default();
        let mut free = Vec::new();
        for name in names(&self.root)? {
            let path = self.root.join(&name);
            if name.parse::<InstanceId>().is_err() || !path.is_dir() {
                continue;
            }
            let named: Vec<(RunCounter, RunId)> = names(&path)?.iter().filter_map(|name| run_name(name)).collect();
            survey.runs.extend(named.iter().map(|(_, run)| *run));
            let runs: Vec<RunCounter> = named.into_iter().map(|(counter, _)| counter).collect();
            survey.counter = survey.counter.max(runs.iter().max().copied().unwrap_or_default());
            if ours.contains(&path.as_path()) {
                continue;
            }
            let owner = fs::read_to_string(path.join("owner")).unwrap_or_default();
            if owner != self.owner && !(owner.is_empty() && runs.is_empty()) {
                survey.foreign.push((path, owner));
            } else if try_lock(&path.join("lock"))?.is_some() {
                free.push((runs.iter().min().copied(), path));
            } else {
                survey.alive = true;
            }
        }
        free.sort();
        survey.free = free.into_iter().map(|(_, path)| path).collect();
        Ok(survey)
    }

    /// Takes a directory over; `None` if somebody else was faster.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn adopt(&self, path: PathBuf) -> Result<Option<Holding>> {
        let Some(lock) = try_lock(&path.join("lock"))? else { return Ok(None) };
        status::forget(&path);
        let mut holding = Holding { path, runs: BTreeMap::new(), left: BTreeMap::new(), _lock: lock };
        self.open_runs(&mut holding)?;
        Ok(Some(holding))
    }

    /// Opens the runs of a directory that are not open; gives those that are now. What the disk refused for a moment is no loss for as long
    /// as this process lives.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn open_runs(&self, holding: &mut Holding) -> Result<Vec<FoundRun>> {
        let mut found = Vec::new();
        for name in names(&holding.path)? {
            let Some((counter, run)) = run_name(&name) else { continue };
            if holding.runs.contains_key(&run) {
                continue;
            }
            let path = holding.path.join(&name);
            let tries = holding.left.get(&run).copied().unwrap_or(0);
            let how = Opening { ended: true, patient: tries >= OPENINGS_FAILED_MAX };
            match RunLog::open(path.clone(), (counter, run), self.segment_bytes, how, &self.medium) {
                Ok(held) => {
                    found.push(held.found(run));
                    holding.left.remove(&run);
                    holding.runs.insert(run, held);
                }
                Err(error) => {
                    if holding.left.insert(run, tries.saturating_add(1)).is_none() {
                        tracing::error!(path = %path.display(), "a run is left where it is and tried again: {error:#}");
                    }
                }
            }
        }
        Ok(found)
    }

    /// Draws the next run counter; it is used up even if no run comes of it.
    ///
    /// # Errors
    /// When it cannot be made durable.
    pub fn draw(&self, shown: RunCounter) -> Result<RunCounter> {
        let _guard = self.lock()?;
        let path = self.root.join("counter");
        let kept = match sealed::read(&path, COUNTER_TAG, FORMAT) {
            Ok(bytes) => minicbor::decode::<RunCounter>(&bytes).unwrap_or_default(),
            Err(SealError::Missing) => RunCounter(0),
            Err(SealError::Damaged(why)) => {
                tracing::error!(path = %path.display(), "the run counter is drawn from the names of the runs: {why}");
                RunCounter(0)
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let next = RunCounter(kept.max(shown).0.saturating_add(1));
        let content = minicbor::to_vec(next).unwrap_or_default();
        sealed::write(&path, COUNTER_TAG, FORMAT, &content)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(next)
    }
}

impl Holding {
    /// Opens a new run in this directory.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open_run(&mut self, run: RunId, counter: RunCounter, volume: &Volume) -> Result<FoundRun> {
        let path = self.path.join(format!("{:020}-{run}", counter.0));
        let how = Opening { ended: false, patient: false };
        let held = RunLog::open(path, (counter, run), volume.segment_bytes, how, &volume.medium)?;
        self.runs.insert(run, held);
        Ok(FoundRun { run, counter, first: Sequence(1), last: Sequence(0) })
    }

    /// What lies where.
    pub fn extents(&mut self) -> Vec<Extent> {
        self.runs.iter_mut().map(|(run, held)| Extent { run: *run, pieces: held.pieces() }).collect()
    }

    /// Removes a run and everything in it.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn remove_run(&mut self, run: RunId) -> Result<()> {
        if let Some(held) = self.runs.remove(&run) {
            let path = held.path().to_owned();
            drop(held);
            fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        Ok(())
    }

    /// Removes the whole directory and lets its lock go.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn remove(self) -> Result<()> {
        fs::remove_dir_all(&self.path).with_context(|| format!("cannot remove {}", self.path.display()))
    }

    /// Puts the states in this directory.
    ///
    /// # Errors
    /// When they cannot be made durable.
    pub fn keep_states(&self, states: &KeptStates) -> Result<()> {
        let path = self.path.join("states");
        let content = minicbor::to_vec(states).context("the states cannot be encoded")?;
        sealed::write(&path, STATES_TAG, FORMAT, &content).with_context(|| format!("cannot write {}", path.display()))
    }

    /// The states in this directory, and what its runs add to them, added to `known`.
    pub fn fold_states(&self, timeline: Option<Timeline>, known: &mut KeptStates) {
        let path = self.path.join("states");
        let kept = match sealed::read(&path, STATES_TAG, FORMAT) {
            Ok(bytes) => minicbor::decode::<KeptStates>(&bytes).unwrap_or_else(|error| {
                tracing::error!(path = %path.display(), "states are taken from the spool alone: {error}");
                KeptStates::default()
            }),
            Err(SealError::Missing) => KeptStates::default(),
            Err(error) => {
                tracing::error!(path = %path.display(), "states are taken from the spool alone: {error}");
                KeptStates::default()
            }
        };
        let timeline = timeline.or((!kept.states.is_empty()).then_some(kept.timeline));
        if let Some(timeline) = timeline {
            known.timeline = timeline;
        }
        if timeline == Some(kept.timeline) {
            known.take_all(&kept);
        }
        known.take_runs(&kept.runs);
        for (run, held) in &self.runs {
            let covered = kept.covered.get(run).copied().unwrap_or_default();
            if let Err(error) = held.fold(covered, timeline, known) {
                tracing::warn!(path = %held.path().display(), "states may be older than this run: {error}");
            }
        }
    }
}
