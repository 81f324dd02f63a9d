//! A satellite's volume as the simulation has it: what `satellite::spool` keeps on disk, in memory, with the ways in which a disk
//! forgets. Decides what a crash leaves; takes the same orders and gives the same answers as the real one.
//!
//! The surprise: only what was synced counts as durable, but a killed process leaves more than that: what it had written stays in
//! the machine's memory. Only a power loss takes it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use satellite::command::{Adopted, Beginning, Command, FoundRun, Identity, Kept, KeptStates, ReadBatches};
use satellite::spool::{Answer, Order};
use shared::delivery::{BatchItem, decode_header, decode_items};
use shared::name::{InstanceId, RunCounter, RunId, Sequence, Timeline};

use super::chance::Chance;

/// Records of a run that share a segment: trimming takes whole ones.
const SEGMENT_RECORDS: usize = 4;

/// One batch on disk.
#[derive(Debug, Clone)]
struct Record {
    last: u64,
    bytes: Bytes,
    synced: bool,
    damaged: bool,
}

/// One run on disk.
#[derive(Debug, Clone)]
struct RunFile {
    counter: RunCounter,
    records: VecDeque<Record>,
    /// Last sequence that the writer calls durable.
    published: u64,
    /// Everything below was trimmed.
    first: u64,
}

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
    /// Nothing can be written at present.
    pub(super) full: bool,
    /// A planted defect: nothing is synced.
    pub(super) sync_skipped: bool,
    /// A planted defect: locks keep nobody out.
    pub(super) locks_ignored: bool,
}

/// What one process has of a volume.
#[derive(Debug)]
pub(super) struct Seat {
    own: InstanceId,
    adopted: Vec<(u64, InstanceId)>,
    adoptions: u64,
    timeline: Option<Timeline>,
}

impl RunFile {
    fn found(&self, run: RunId) -> FoundRun {
        FoundRun { run, counter: self.counter, first: Sequence(self.first), last: Sequence(self.published) }
    }

    /// As `seglog` opens it after its writer has gone: what is whole is there, a torn end is not.
    fn recover(&mut self) {
        self.published = self.records.back().map_or(self.published, |record| record.last);
        self.records.iter_mut().for_each(|record| record.synced = true);
    }

    fn fold(&self, covered: Sequence, timeline: Option<Timeline>, known: &mut KeptStates) {
        for record in self.records.iter().filter(|record| !record.damaged && record.last > covered.0) {
            let Ok((header, body)) = decode_header(&record.bytes) else { continue };
            if timeline.is_some_and(|timeline| timeline != header.timeline) {
                continue;
            }
            for item in decode_items(&header, body).unwrap_or_default() {
                if let BatchItem::Result(sequence, result) = item {
                    known.take_result(header.counter, sequence, &result);
                }
            }
            known.timeline = header.timeline;
        }
    }
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
        (alive, (!free.is_empty()).then_some(Adopted { runs, states }))
    }

    fn open_run(&mut self, seat: &Seat, run: RunId) -> FoundRun {
        let shown = self.directories.values().flat_map(|directory| directory.runs.values()).map(|file| file.counter);
        self.counter = RunCounter(shown.max().unwrap_or_default().max(self.counter).0.saturating_add(1));
        let file = RunFile { counter: self.counter, records: VecDeque::new(), published: 0, first: 1 };
        let found = file.found(run);
        if let Some(own) = self.directories.get_mut(&seat.own) {
            own.runs.insert(run, file);
        }
        found
    }

    fn run(&mut self, seat: &Seat, run: RunId) -> Option<&mut RunFile> {
        let place = seat
            .adopted
            .iter()
            .map(|(_, id)| *id)
            .chain([seat.own])
            .find(|id| self.directories.get(id).is_some_and(|directory| directory.runs.contains_key(&run)))?;
        self.directories.get_mut(&place)?.runs.get_mut(&run)
    }

    /// What an order has done before its sync: written, not durable.
    pub(super) fn begin(&mut self, seat: &Seat, order: &Order) {
        let Order::Do(Command::Append { run, batches }) = order else { return };
        if self.full {
            return;
        }
        let Some(file) = self.run(seat, *run) else { return };
        for batch in batches {
            if file.records.back().is_none_or(|record| record.last < batch.last.0) && batch.last.0 > file.published {
                let (last, bytes) = (batch.last.0, batch.bytes.clone());
                file.records.push_back(Record { last, bytes, synced: false, damaged: false });
            }
        }
    }

    /// Does an order and answers as the real one does. `fails`: the disk refuses.
    pub(super) fn execute(&mut self, seat: &mut Seat, order: Order, fails: bool, fresh: RunId) -> Option<Answer> {
        let refused = fails || self.full;
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
                Command::Append { run, .. } => Some(self.sync(seat, run, refused)),
                Command::Read { read, .. } if fails => Some(Answer::ReadFailed { read }),
                Command::Read { read, run, from, bytes_max, batches_max } => {
                    let found = self.read(seat, run, from, bytes_max, batches_max);
                    Some(found.map_or(Answer::ReadFailed { read }, |found| Answer::Read { read, found }))
                }
                Command::Trim { run, up_to } => {
                    let file = self.run(seat, run)?;
                    let before = file.first;
                    while file.records.len() > SEGMENT_RECORDS
                        && file.records.get(SEGMENT_RECORDS - 1).is_some_and(|record| record.last <= up_to.0)
                    {
                        let gone = file.records.drain(..SEGMENT_RECORDS).last();
                        file.first = gone.map_or(file.first, |record| record.last + 1);
                    }
                    (file.first > before).then_some(Answer::Trimmed { run, first: Sequence(file.first) })
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

    fn sync(&mut self, seat: &Seat, run: RunId, refused: bool) -> Answer {
        let skipped = self.sync_skipped;
        let Some(file) = self.run(seat, run) else { return Answer::AppendFailed };
        if refused {
            // After a failed sync what lies beyond the published end is void: the next segment says so.
            file.records.retain(|record| record.synced);
            return Answer::AppendFailed;
        }
        if skipped {
            file.published = file.records.back().map_or(file.published, |record| record.last);
        } else {
            file.recover();
        }
        Answer::Appended { run, up_to: Sequence(file.published) }
    }

    fn read(
        &mut self,
        seat: &Seat,
        run: RunId,
        from: Sequence,
        bytes_max: usize,
        batches_max: usize,
    ) -> Option<ReadBatches> {
        let file = self.run(seat, run)?;
        let mut found = ReadBatches::default();
        if from.0 < file.first {
            found.trimmed_below = Sequence(file.first);
        }
        let from = from.0.max(file.first);
        let mut bytes = 0;
        found.through = Sequence(from.saturating_sub(1));
        for record in file.records.iter().filter(|record| record.last >= from && record.last <= file.published) {
            if bytes >= bytes_max || found.batches.len() >= batches_max {
                return Some(found);
            }
            if record.damaged {
                continue;
            }
            found.through = Sequence(record.last);
            bytes += record.bytes.len();
            found.batches.push(record.bytes.clone());
        }
        found.through = found.through.max(Sequence(file.published));
        Some(found)
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
    ///
    /// Gives the number of batches that were written and are gone.
    pub(super) fn leave(&mut self, seat: &Seat, power: bool, chance: &mut Chance) -> usize {
        let mut lost = 0;
        for id in seat.adopted.iter().map(|(_, id)| *id).chain([seat.own]) {
            let Some(directory) = self.directories.get_mut(&id) else { continue };
            directory.locked = false;
            for file in directory.runs.values_mut() {
                let synced = file.records.iter().take_while(|record| record.synced).count();
                let written = file.records.len() - synced;
                // A prefix of what was written may have reached the disk; the record behind it is torn and cut off.
                let kept = if power { chance.below(u64::try_from(written + 1).unwrap_or(1)) } else { u64::MAX };
                let kept = usize::try_from(kept).unwrap_or(usize::MAX).min(written);
                lost += written - kept;
                file.records.truncate(synced + kept);
            }
        }
        lost
    }

    /// Flips a bit in one record that is durable; says which sequences cannot be read any more.
    pub(super) fn damage(&mut self, chance: &mut Chance) -> Option<(RunId, u64, u64)> {
        let places: Vec<(InstanceId, RunId, usize)> = self
            .directories
            .iter()
            .flat_map(|(id, directory)| directory.runs.iter().map(move |(run, file)| (*id, *run, file)))
            .flat_map(|(id, run, file)| {
                let readable = file.records.iter().enumerate().filter(|(_, record)| record.synced && !record.damaged);
                readable.map(move |(at, _)| (id, run, at))
            })
            .collect();
        let (id, run, at) = *chance.pick(&places)?;
        let file = self.directories.get_mut(&id)?.runs.get_mut(&run)?;
        let first = at.checked_sub(1).and_then(|at| file.records.get(at)).map_or(file.first, |before| before.last + 1);
        let record = file.records.get_mut(at)?;
        record.damaged = true;
        Some((run, first, record.last))
    }

    /// A copy, as a snapshot of the machine's disk: what was synced, and no locks.
    #[must_use]
    pub(super) fn copied(&self) -> Self {
        let mut copy = self.clone();
        for directory in copy.directories.values_mut() {
            directory.locked = false;
            directory.runs.values_mut().for_each(|file| file.records.retain(|record| record.synced));
        }
        copy
    }
}
