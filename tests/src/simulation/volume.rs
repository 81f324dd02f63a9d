//! A satellite's volume as the simulation has it: what `satellite::spool` keeps on disk, in memory, with the ways in which a disk
//! forgets. Decides what a crash leaves; takes the same orders and gives the same answers as the real one.
//!
//! The surprise: only what was synced counts as durable, but a killed process leaves more than that: what it had written stays in
//! the machine's memory. Only a power loss takes it.

mod file;
mod weight;

use std::collections::{BTreeMap, BTreeSet};

use satellite::command::{
    Adopted, Beginning, Command, Extent, FoundRun, Identity, Kept, KeptStates, Limits, SpooledBatch,
};
use satellite::spool::{Answer, Order};
use shared::name::{InstanceId, RunCounter, RunId, Sequence, Timeline};

use super::chance::Chance;
pub(super) use file::Part;
use file::{RunFile, SECTOR};
pub(super) use weight::Weight;

/// One process's directory.
#[derive(Debug, Clone, Default)]
struct Directory {
    /// Somebody alive has its lock.
    locked: bool,
    runs: BTreeMap<RunId, RunFile>,
    states: Option<KeptStates>,
}

/// A slot's volume.
#[derive(Debug, Clone, Default)]
pub(super) struct Volume {
    counter: RunCounter,
    kept: Option<Kept>,
    directories: BTreeMap<InstanceId, Directory>,
    /// What the spool may use.
    pub(super) limits: Limits,
    /// Nothing can be written at present.
    pub(super) full: bool,
    /// Its size; 0 where nobody knows.
    pub(super) size: u64,
    /// Bytes that others have on it.
    taken: u64,
    /// A planted defect: nothing is synced.
    pub(super) sync_skipped: bool,
    /// A planted defect: what has been written is deleted at once.
    pub(super) deleted_early: bool,
    /// A planted defect: locks keep nobody out.
    pub(super) locks_ignored: bool,
}

/// What a process that ended left on its disk.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Left {
    /// Something that was written is gone.
    pub(super) lost: bool,
    /// A batch was torn in the middle of its record.
    pub(super) torn: bool,
}

/// What one process has of a volume.
#[derive(Debug)]
pub(super) struct Seat {
    own: InstanceId,
    adopted: Vec<(u64, InstanceId)>,
    adoptions: u64,
    timeline: Option<Timeline>,
}

impl Directory {
    fn fold(&self, timeline: Option<Timeline>, known: &mut KeptStates) {
        let kept = self.states.clone().unwrap_or_default();
        let timeline = timeline.or((!kept.states.is_empty()).then_some(kept.timeline));
        if let Some(timeline) = timeline {
            known.timeline = timeline;
        }
        if timeline == Some(kept.timeline) {
            known.take_all(&kept);
        }
        known.take_runs(&kept.runs);
        for (run, file) in &self.runs {
            file.fold(kept.covered.get(run).copied().unwrap_or_default(), timeline, known);
        }
    }
}

impl Volume {
    /// Opens it for a new process. The caller gives the random names.
    pub(super) fn enter(&mut self, identity: &Identity, run: RunId) -> (Seat, Beginning) {
        self.directories.insert(identity.instance, Directory { locked: true, ..Directory::default() });
        let timeline = self.kept.as_ref().map(|kept| kept.timeline);
        let mut seat = Seat { own: identity.instance, adopted: Vec::new(), adoptions: 0, timeline };
        let (neighbour, adopted) = self.survey(&mut seat);
        let Adopted { runs: earlier, states } = adopted.unwrap_or_default();
        let open = self.open_run(&seat, run);
        let beginning = Beginning { open, earlier, kept: self.kept.clone(), states, neighbour };
        (seat, beginning)
    }

    fn survey(&mut self, seat: &mut Seat) -> (bool, Option<Adopted>) {
        let ours: BTreeSet<InstanceId> = seat.adopted.iter().map(|(_, id)| *id).chain([seat.own]).collect();
        let alive = self.directories.iter().any(|(id, directory)| directory.locked && !ours.contains(id));
        let mut free: Vec<(Option<RunCounter>, InstanceId)> = self
            .directories
            .iter()
            .filter(|(id, directory)| !directory.locked || (self.locks_ignored && !ours.contains(id)))
            .map(|(id, directory)| (directory.runs.values().map(|file| file.counter).min(), *id))
            .collect();
        free.sort();
        let mut runs = Vec::new();
        let mut states = KeptStates::default();
        for (_, id) in &free {
            let Some(directory) = self.directories.get_mut(id) else { continue };
            directory.locked = true;
            directory.runs.values_mut().for_each(RunFile::recover);
            directory.fold(seat.timeline, &mut states);
            runs.extend(directory.runs.iter().map(|(run, file)| file.found(*run)));
            seat.adopted.push((seat.adoptions + 1, *id));
        }
        seat.adoptions += u64::from(!free.is_empty());
        states.adoptions = seat.adoptions;
        let there = |run: &RunId| self.directories.values().any(|directory| directory.runs.contains_key(run));
        states.revive(there);
        (alive, (!free.is_empty()).then_some(Adopted { runs, states }))
    }

    fn open_run(&mut self, seat: &Seat, run: RunId) -> FoundRun {
        let shown = self.directories.values().flat_map(|directory| directory.runs.values()).map(|file| file.counter);
        self.counter = RunCounter(shown.max().unwrap_or_default().max(self.counter).0.saturating_add(1));
        let file = RunFile::new(self.counter, self.limits.segment_bytes());
        let found = file.found(run);
        if let Some(own) = self.directories.get_mut(&seat.own) {
            own.runs.insert(run, file);
        }
        found
    }

    fn run(&mut self, seat: &Seat, run: RunId) -> Option<&mut RunFile> {
        let place = Self::places(seat)
            .find(|id| self.directories.get(id).is_some_and(|directory| directory.runs.contains_key(&run)))?;
        self.directories.get_mut(&place)?.runs.get_mut(&run)
    }

    /// The processes' runs that this one has.
    fn places(seat: &Seat) -> impl Iterator<Item = InstanceId> {
        seat.adopted.iter().map(|(_, id)| *id).chain([seat.own])
    }

    /// What an order has done before its end: written and not durable, or named lost and not yet deleted.
    pub(super) fn begin(&mut self, seat: &Seat, order: &Order) {
        if self.refuses() {
            return;
        }
        match order {
            Order::Do(Command::Append { run, batches }) => {
                if let Some(file) = self.run(seat, *run) {
                    file.write(batches);
                }
            }
            Order::Do(Command::GiveUp { run, first, up_to, reason }) => {
                if let Some(file) = self.run(seat, *run) {
                    file.name_lost(*first, *up_to, reason);
                }
            }
            _ => {}
        }
    }

    /// Where each run of this process begins.
    pub(super) fn begins(&self, seat: &Seat) -> BTreeMap<RunId, u64> {
        let held = Self::places(seat).filter_map(|id| self.directories.get(&id)).flat_map(|d| &d.runs);
        held.map(|(run, file)| (*run, file.first())).collect()
    }

    /// Does an order and answers as the real one does. `fails`: the disk refuses.
    pub(super) fn execute(&mut self, seat: &mut Seat, order: Order, fails: bool, fresh: RunId) -> Option<Answer> {
        let refused = fails || self.refuses();
        match order {
            Order::Survey => {
                let (alive, adopted) = self.survey(seat);
                Some(Answer::Neighbours { alive, adopted })
            }
            Order::Tell(_) => None,
            Order::Do(command) => match command {
                Command::OpenRun if refused => Some(Answer::OpenFailed),
                Command::OpenRun => {
                    let found = self.open_run(seat, fresh);
                    Some(Answer::Opened { run: found.run, counter: found.counter })
                }
                Command::Append { run, batches } => Some(self.append(seat, run, &batches, refused)),
                Command::Read { read, .. } if fails => Some(Answer::ReadFailed { read }),
                Command::Read { read, run, from, bytes_max, batches_max } => {
                    let found = self.run(seat, run).map(|file| file.read(from, bytes_max, batches_max));
                    Some(found.map_or(Answer::ReadFailed { read }, |found| Answer::Read { read, found }))
                }
                Command::Trim { run, up_to } => {
                    let file = self.run(seat, run)?;
                    file.trim(up_to.0).then(|| Answer::Trimmed { run, first: Sequence(file.first()) })
                }
                Command::Measure => {
                    let directories = Self::places(seat).filter_map(|id| self.directories.get(&id));
                    let extents = directories.flat_map(|directory| &directory.runs);
                    let extents = extents.map(|(run, file)| Extent { run: *run, pieces: file.pieces() }).collect();
                    Some(Answer::Measured { extents })
                }
                Command::GiveUp { .. } if refused => Some(Answer::GiveUpFailed),
                Command::GiveUp { run, first, up_to, reason } => {
                    let Some(file) = self.run(seat, run) else { return Some(Answer::GiveUpFailed) };
                    file.name_lost(first, up_to, reason);
                    Some(Answer::GivenUp { run, up_to, lost: file.delete(up_to) })
                }
                Command::CloseRun(run) => {
                    for directory in self.directories.values_mut() {
                        directory.runs.remove(&run);
                    }
                    None
                }
                Command::Keep(_) if refused => Some(Answer::KeepFailed),
                Command::Keep(kept) => {
                    seat.timeline = Some(kept.timeline);
                    self.kept = Some(*kept);
                    Some(Answer::Kept)
                }
                Command::KeepStates(_) if refused => Some(Answer::StatesFailed),
                Command::KeepStates(states) => {
                    self.keep_states(seat, &states);
                    Some(Answer::StatesKept)
                }
                Command::Probe { .. } | Command::Send { .. } => None,
            },
        }
    }

    fn append(&mut self, seat: &Seat, run: RunId, batches: &[SpooledBatch], refused: bool) -> Answer {
        let (skipped, deleted) = (self.sync_skipped, self.deleted_early);
        let Some(file) = self.run(seat, run) else { return Answer::AppendFailed };
        if refused {
            file.fail();
            return Answer::AppendFailed;
        }
        file.append(batches);
        let up_to = if skipped { file.pretend() } else { file.sync() };
        if deleted {
            file.trim(up_to.0);
        }
        Answer::Appended { run, up_to }
    }

    fn keep_states(&mut self, seat: &mut Seat, states: &KeptStates) {
        if let Some(own) = self.directories.get_mut(&seat.own) {
            own.states = Some(states.clone());
        }
        let directories = &mut self.directories;
        seat.adopted.retain(|(adoption, id)| {
            let done = *adoption <= states.adoptions && directories.get(id).is_none_or(|d| d.runs.is_empty());
            if done {
                directories.remove(id);
            }
            !done
        });
    }

    /// The process has gone and its locks with it. `power`: and the machine's memory as well.
    pub(super) fn leave(&mut self, seat: &Seat, power: bool, chance: &mut Chance) -> Left {
        let mut left = Left::default();
        for id in Self::places(seat) {
            let Some(directory) = self.directories.get_mut(&id) else { continue };
            directory.locked = false;
            for file in directory.runs.values_mut().filter(|_| power) {
                if let Some((begin, end)) = file.unsynced() {
                    // Whole sectors of what was written may have reached the disk, in order.
                    let cut = chance.between(begin, end);
                    let cut = if cut == end { end } else { begin.max(cut / SECTOR * SECTOR) };
                    left.lost |= cut < end;
                    left.torn |= file.lose_power(cut);
                }
            }
        }
        left
    }

    /// Flips a bit in one record that is durable.
    pub(super) fn damage(&mut self, chance: &mut Chance) -> Option<()> {
        let mut files: Vec<&mut RunFile> =
            self.directories.values_mut().flat_map(|directory| directory.runs.values_mut()).collect();
        let all: u64 = files.iter().map(|file| file.intact() as u64).sum();
        let mut number = chance.below(all.checked_sub(1)? + 1);
        // A head is a small part of a record.
        let part = if chance.one_in(8) { Part::Head } else { Part::Body };
        for file in &mut files {
            let intact = file.intact() as u64;
            if number < intact {
                file.damage(usize::try_from(number).ok()?, part);
                return Some(());
            }
            number -= intact;
        }
        None
    }

    /// Runs that a process has to deliver: a living neighbour delivers its own.
    pub(super) fn runs(&self, seat: &Seat) -> BTreeSet<RunId> {
        let directories = Self::places(seat).filter_map(|id| self.directories.get(&id));
        directories.flat_map(|directory| directory.runs.keys().copied()).collect()
    }

    /// Runs whose end was damaged, and where they end now.
    pub(super) fn bitten(&self, seat: &Seat) -> Vec<(RunId, u64)> {
        let runs = Self::places(seat).filter_map(|id| self.directories.get(&id)).flat_map(|directory| &directory.runs);
        let bitten = runs.filter(|(_, file)| file.bitten && file.ends_in_doubt());
        bitten.map(|(run, file)| (*run, file.found(*run).last.0)).collect()
    }

    /// A copy, as a snapshot of the machine's disk: what was synced, and no locks.
    #[must_use]
    pub(super) fn copied(&self) -> Self {
        let mut copy = self.clone();
        for directory in copy.directories.values_mut() {
            directory.locked = false;
            directory.runs.values_mut().for_each(RunFile::forget_unsynced);
        }
        copy
    }
}

#[cfg(test)]
mod tests;
