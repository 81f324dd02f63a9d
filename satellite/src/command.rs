//! What the brain asks of the shells, and the plain values that go to and fro with it. Decides nothing.
//! The surprise: an order is done when its answer has come back as an input, never when it was given.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use minicbor::{Decode, Encode};
use shared::assignment::{AssignedCheck, Assignment, Carried};
use shared::delivery::{GapRecord, Key};
use shared::frame::Lane;
use shared::name::{
    CheckId, Generation, Grant, InstallationId, InstanceId, JournalIndex, RunCounter, RunId, Sequence, Slot, Timeline,
};
use shared::result::CheckResult;
use shared::snapshot::Said;
use shared::time::Timestamp;

/// One execution of one check, within this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeId(pub u64);

/// One reading of a run, within this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// An order. Named beside each: the input that answers it, if any does.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Execute a check within its policy's timeout: `handle_outcome`.
    Probe { probe: ProbeId, check: Box<AssignedCheck> },
    /// Draw a counter and open a run of that number: `handle_opened` or `handle_open_failed`.
    OpenRun,
    /// Append to a run, all with one sync: `handle_appended` or `handle_append_failed`.
    Append { run: RunId, batches: Vec<SpooledBatch> },
    /// Read batches that hold `from` or more, until one of the bounds is reached: `handle_read` or `handle_read_failed`.
    Read { read: ReadId, run: RunId, from: Sequence, bytes_max: usize, batches_max: usize },
    /// Nothing up to here is needed any more; whole segments go.
    Trim { run: RunId, up_to: Sequence },
    /// Nothing of this run is needed any more.
    CloseRun(RunId),
    /// Say what lies where: `handle_measured`.
    Measure,
    /// Name these results of a run a gap, durably, and then delete everything of it up to the gap's end: `handle_given_up` or
    /// `handle_give_up_failed`.
    GiveUp { run: RunId, first: Sequence, up_to: Sequence, reason: &'static str },
    /// Put a frame on a lane of the present connection.
    Send { lane: Lane, payload: Bytes },
    /// Put the assignment on disk: `handle_kept` or `handle_keep_failed`.
    Keep(Box<Kept>),
    /// Put the states on disk: `handle_states_kept` or `handle_states_failed`.
    KeepStates(Box<KeptStates>),
}

/// One batch on its way to the spool: its record has the index `last`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpooledBatch {
    /// First sequence.
    pub first: Sequence,
    /// Last sequence, inclusive.
    pub last: Sequence,
    /// As it is spooled, sent and journaled.
    pub bytes: Bytes,
}

/// What a reading brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadBatches {
    /// Whole batches in order. What cannot be read any more is missing between them.
    pub batches: Vec<Bytes>,
    /// Everything the run has up to and including this was read; where no batch brought it, it is lost.
    pub through: Sequence,
    /// Everything below was trimmed before and is no loss, unless `lost` names it.
    pub trimmed_below: Sequence,
    /// What of the run is known to be lost from the first sequence asked for on, in order.
    pub lost: Vec<GapRecord>,
}

/// What a spool may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes on the volume; beyond, the oldest results are given up.
    pub bytes: u64,
    /// Results that lie longer are given up.
    pub age: Duration,
    /// Bytes in memory while the volume cannot be written; beyond, the oldest results are given up.
    pub memory: usize,
    /// What was delivered stays for so long: a master that is put back from a backup, or loses commits, is sent it again.
    pub grace: Duration,
}

impl Limits {
    /// 1 GiB is two to three weeks of 1,000 checks a minute. A quarter of an hour is what a store that is replicated while nobody waits
    /// for it may lack after its worst moment, and what backups that are taken that often leave uncovered.
    pub const DEFAULT: Limits = Limits {
        bytes: 1 << 30,
        age: Duration::from_secs(7 * 24 * 3600),
        memory: 64 * 1024 * 1024,
        grace: Duration::from_secs(15 * 60),
    };
    /// Bytes that what was delivered may take at most, however short its time has been: hours of 1,000 checks a minute.
    pub const KEPT_BYTES: u64 = 64 * 1024 * 1024;
    /// Bytes of a segment: what is given up goes in steps of it.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        (self.bytes / 8).clamp(1024, 8 * 1024 * 1024)
    }

    /// Bytes that what was delivered may take: never more than an eighth of the bound, so that it does not press by itself.
    #[must_use]
    pub fn kept_bytes(&self) -> u64 {
        Self::KEPT_BYTES.min(self.bytes / 8)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// How much room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Room {
    /// Bytes of all runs held.
    pub held: u64,
    /// Bytes that others and we may still write to the volume.
    pub free: u64,
    /// Bytes of the whole volume; 0 where nobody knows.
    pub size: u64,
}

/// A run on the volume in the pieces in which it can be given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// The run.
    pub run: RunId,
    /// Oldest first.
    pub pieces: Vec<Piece>,
}

/// One segment of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Its last sequence.
    pub last: Sequence,
    /// Its size.
    pub bytes: u64,
    /// When the first of its results ended, in the master's time as well as it was known; `None` if it cannot be read.
    pub begun: Option<Timestamp>,
}

/// A run as the volume has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundRun {
    /// The run.
    pub run: RunId,
    /// Its place among the runs of the slot.
    pub counter: RunCounter,
    /// First sequence still held.
    pub first: Sequence,
    /// Last durable sequence, 0 if none.
    pub last: Sequence,
}

/// The highest numbers this slot's volume has ever seen: a restored master goes on above them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct Seen {
    /// Highest grant.
    #[n(0)]
    pub grant: Grant,
    /// Highest generation.
    #[n(1)]
    pub generation: Generation,
    /// Highest check id.
    #[n(2)]
    pub check: CheckId,
}

/// What a start without the master goes on from.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Kept {
    /// Whose assignment it is.
    #[n(0)]
    pub installation: InstallationId,
    /// Which slot's.
    #[n(1)]
    pub slot: Slot,
    /// Timeline of the store that made it.
    #[n(2)]
    pub timeline: Timeline,
    /// Highest numbers seen.
    #[n(3)]
    pub seen: Seen,
    /// The checks.
    #[n(4)]
    pub assignment: Assignment,
}

/// How a run ended: delivered and closed under a timeline, at a time of its master.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Ended {
    /// Of the master that had all of it.
    #[n(0)]
    pub timeline: Timeline,
    /// By the master's time; `None` where nobody knew it yet.
    #[n(1)]
    pub at: Option<Timestamp>,
}

/// What is known of a run without looking into it, and still when it is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Remembered {
    /// Its place among the runs of the slot.
    #[n(0)]
    pub counter: RunCounter,
    /// Its last sequence.
    #[n(1)]
    pub last: Sequence,
    /// Earliest end of a result, if known.
    #[n(2)]
    pub from: Option<Timestamp>,
    /// Latest end of a result, if known.
    #[n(3)]
    pub to: Option<Timestamp>,
    /// `None`: there is still something of it to be delivered, or it was not closed.
    #[n(4)]
    pub ended: Option<Ended>,
}

impl Remembered {
    /// The same run as somebody else remembers it.
    pub fn join(&mut self, other: &Remembered) {
        self.last = self.last.max(other.last);
        self.from = [self.from, other.from].into_iter().flatten().min();
        self.to = self.to.max(other.to);
        if other.ended.map(|ended| ended.at) > self.ended.map(|ended| ended.at) {
            self.ended = other.ended;
        }
    }
}

/// Each check's newest state, as the process knew it.
#[derive(Debug, Clone, PartialEq, Default, Encode, Decode)]
pub struct KeptStates {
    /// Timeline the keys belong to.
    #[n(0)]
    pub timeline: Timeline,
    /// By check.
    #[n(1)]
    pub states: BTreeMap<CheckId, Carried>,
    /// Up to where each run is contained in `states`.
    #[n(2)]
    pub covered: BTreeMap<RunId, Sequence>,
    /// How many adoptions of earlier processes' directories `states` contains; means nothing on disk.
    #[cbor(skip)]
    pub adoptions: u64,
    /// What people read of each state that was made here.
    #[n(3)]
    #[cbor(default)]
    pub said: BTreeMap<CheckId, Said>,
    /// The highest command to each check that was applied here.
    #[n(4)]
    #[cbor(default)]
    pub applied: BTreeMap<CheckId, JournalIndex>,
    /// Runs there are and were, up to a bound: what was deleted can be named to a master that does not have it any more.
    #[n(5)]
    #[cbor(default)]
    pub runs: BTreeMap<RunId, Remembered>,
}

impl KeptStates {
    /// Takes a state in if its key is greater than the one known.
    pub fn take(&mut self, id: CheckId, carried: Carried, said: Option<&Said>) {
        if self.states.get(&id).is_some_and(|known| carried.key <= known.key) {
            return;
        }
        self.states.insert(id, carried);
        match said {
            Some(said) => self.said.insert(id, said.clone()),
            None => self.said.remove(&id),
        };
    }

    /// Takes in what a result made, if nothing newer is known.
    pub fn take_result(&mut self, counter: RunCounter, sequence: Sequence, result: &CheckResult) {
        let key = Key { grant: result.grant, counter, sequence };
        self.take(result.check, Carried { state: result.after, key }, Some(&Said::of(result)));
        if let Some(index) = result.command {
            self.take_applied(result.check, index);
        }
    }

    /// Takes in all that other states contain, where it is greater.
    pub fn take_all(&mut self, other: &KeptStates) {
        for (id, carried) in &other.states {
            self.take(*id, *carried, other.said.get(id));
        }
        other.applied.iter().for_each(|(id, index)| self.take_applied(*id, *index));
    }

    /// Takes in what other states remember of runs; it depends on no timeline.
    pub fn take_runs(&mut self, others: &BTreeMap<RunId, Remembered>) {
        for (run, other) in others {
            self.runs.entry(*run).and_modify(|known| known.join(other)).or_insert(*other);
        }
    }

    /// A run that lies on the volume has not ended, whatever was noted before it was to be deleted.
    pub fn revive(&mut self, is_there: impl Fn(&RunId) -> bool) {
        self.runs.iter_mut().filter(|(run, _)| is_there(run)).for_each(|(_, known)| known.ended = None);
    }

    fn take_applied(&mut self, id: CheckId, index: JournalIndex) {
        let known = self.applied.entry(id).or_default();
        *known = index.max(*known);
    }
}

/// What ended processes left in directories of the volume.
#[derive(Debug, Default)]
pub struct Adopted {
    /// Their runs.
    pub runs: Vec<FoundRun>,
    /// Their states.
    pub states: KeptStates,
}

/// Who this process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Of which installation.
    pub installation: InstallationId,
    /// Which slot.
    pub slot: Slot,
    /// This process.
    pub instance: InstanceId,
    /// Its version.
    pub software: String,
}

/// What a process begins with.
#[derive(Debug)]
pub struct Beginning {
    /// The run opened for it.
    pub open: FoundRun,
    /// Runs that earlier processes left.
    pub earlier: Vec<FoundRun>,
    /// The assignment on disk.
    pub kept: Option<Kept>,
    /// The states on disk, with what earlier spools add to them.
    pub states: KeptStates,
    /// Another process of this slot is alive on this volume.
    pub neighbour: bool,
}
