//! Processes of one slot on one volume, up to two at a time: they come, go without a word, look for what others left and take it over.
//! Decides nothing but who is there; what both disks say of it must be the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use satellite::command::ReadId;
use satellite::spool::Spool;
use seglog::Medium;
use shared::assignment::Carried;
use shared::name::CheckId;
use shared::snapshot::Said;

use super::*;

/// A process on both disks.
pub(super) struct Process {
    pub(super) real: Option<Spool>,
    pub(super) seat: Option<Seat>,
    pub(super) open: (RunId, RunCounter),
    /// Of the open run: last sequence given to a batch, and what could not be appended.
    pub(super) made: u64,
    pub(super) waiting: Vec<SpooledBatch>,
    /// Runs held.
    pub(super) runs: BTreeSet<RunId>,
    /// How many adoptions it has been told of.
    pub(super) adoptions: u64,
}

impl Process {
    pub(super) fn new() -> Self {
        Self {
            real: None,
            seat: None,
            open: (RunId([0; 16]), RunCounter::default()),
            made: 0,
            waiting: Vec::new(),
            runs: BTreeSet::new(),
            adoptions: 0,
        }
    }
}

impl Pair {
    /// A process begins on both: it must find the same.
    pub(super) fn enter(&mut self) {
        let identity = self.identity();
        let medium: Arc<dyn Medium> = self.weak.clone();
        let (real, found) = Spool::open_on(&self.data, &identity, &LIMITS, medium).unwrap();
        let (seat, modelled) = self.model.enter(&identity, found.open.run);
        assert_eq!(in_order(&found.earlier), in_order(&modelled.earlier), "what earlier processes left");
        assert_eq!(found.open, modelled.open);
        assert_eq!((&found.kept, known(&found.states)), (&modelled.kept, known(&modelled.states)));
        assert_eq!((found.neighbour, modelled.neighbour), (self.other.is_some(), self.other.is_some()), "a lock");
        self.me.adoptions = found.states.adoptions;
        self.me.runs = found.earlier.iter().map(|found| found.run).chain([found.open.run]).collect();
        self.me.open = (found.open.run, found.open.counter);
        (self.me.made, self.me.waiting) = (0, Vec::new());
        (self.me.real, self.me.seat) = (Some(real), Some(seat));
        for run in self.me.runs.clone() {
            self.both(Command::Read { read: ReadId(1), run, from: Sequence(1), bytes_max: 1 << 20, batches_max: 4096 });
        }
        self.thin_out();
    }

    /// The oldest runs beyond what a process holds open are delivered.
    pub(super) fn thin_out(&mut self) {
        let Some(Answer::Measured { extents }) = self.both(Command::Measure) else { panic!("not measured") };
        assert_eq!(extents.len(), self.me.runs.len());
        let surplus = self.me.runs.len().saturating_sub(RUNS_MAX);
        let old: Vec<RunId> = self.me.runs.iter().copied().filter(|run| *run != self.me.open.0).take(surplus).collect();
        for run in old {
            self.both(Command::CloseRun(run));
            self.me.runs.remove(&run);
        }
    }

    /// Both hold as many bytes. How much is free only the real one knows: others write to its file system.
    pub(super) fn weigh(&self) {
        let modelled = self.model.room(self.me.seat.as_ref().unwrap());
        let real = self.me.real.as_ref().unwrap().room();
        assert_eq!(real.held, modelled.held, "bytes held");
        assert!(real.size > 0 && real.free <= real.size, "{real:?}");
    }

    /// Another process of the slot comes on the same volume; or one of two ends, and what it had is nobody's until somebody looks.
    pub(super) fn come_or_go(&mut self) -> &'static str {
        if let Some(other) = self.other.take() {
            self.end();
            self.me = other;
            return "one of two goes";
        }
        self.other = Some(std::mem::replace(&mut self.me, Process::new()));
        self.enter();
        "a second process comes"
    }

    /// The process ends without a word.
    pub(super) fn end(&mut self) {
        drop(self.me.real.take());
        let seat = self.me.seat.take().unwrap();
        self.model.leave(&seat, false, &mut self.chance);
    }

    /// The process looks through the volume: nobody alive loses anything to it, and what an ended one left is its own.
    pub(super) fn survey(&mut self) -> &'static str {
        let real = self.me.real.as_mut().unwrap().execute(Order::Survey);
        let seat = self.me.seat.as_mut().unwrap();
        let modelled = self.model.execute(seat, Order::Survey, false, RunId([0; 16]));
        let (
            Some(Answer::Neighbours { alive, adopted }),
            Some(Answer::Neighbours { alive: modelled_alive, adopted: modelled }),
        ) = (real, modelled)
        else {
            panic!("not surveyed")
        };
        assert_eq!((alive, modelled_alive), (self.other.is_some(), self.other.is_some()), "a lock");
        let taken = |adopted: &Adopted| (in_order(&adopted.runs), known(&adopted.states));
        assert_eq!(adopted.as_ref().map(taken), modelled.as_ref().map(taken), "what was adopted");
        self.weigh();
        let Some(adopted) = adopted else { return "a survey that finds nothing" };
        self.me.adoptions = adopted.states.adoptions;
        for run in adopted.runs.iter().map(|found| found.run) {
            self.me.runs.insert(run);
            self.both(Command::Read { read: ReadId(1), run, from: Sequence(1), bytes_max: 1 << 20, batches_max: 4096 });
        }
        self.thin_out();
        "an adoption"
    }

    /// The other process ends, and this one takes over what it had: before the machine's power goes there is one.
    pub(super) fn be_alone(&mut self) {
        if let Some(other) = self.other.take() {
            let me = std::mem::replace(&mut self.me, other);
            self.end();
            self.me = me;
            let what = self.survey();
            self.count(what);
        }
    }
}

/// Runs by their age: the order in which they are found is the directory's.
fn in_order(found: &[FoundRun]) -> Vec<FoundRun> {
    let mut found = found.to_vec();
    found.sort_by_key(|found| (found.counter, found.run));
    found
}

/// What is known of states.
fn known(states: &KeptStates) -> (BTreeMap<CheckId, Carried>, BTreeMap<CheckId, Said>, u64) {
    (states.states.clone(), states.said.clone(), states.adoptions)
}
