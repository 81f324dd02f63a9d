//! Whole fleets around the two real brains, one thread, one virtual clock, one seed (docs/DESIGN.md, section 13). What runs here is
//! `master::coordinator` and `satellite::scheduler` as the programs have them; disks, network, clocks and daemons are models.
//! Decides nothing about what is right: that is the witness's.
//!
//! The surprise: a world is a function of its seed alone, so a violation comes again with one command.

pub mod chance;
pub mod defect;
mod estate;
mod fault;
mod network;
mod plan;
mod site;
mod store;
mod volume;
mod witness;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;

use defect::Defect;
pub use plan::Fault;
pub use witness::Violation;
use world::World;

/// What a world came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// Events handled.
    pub events: u64,
    /// Faults, by kind.
    pub faults: BTreeMap<Fault, u64>,
    /// Answers that had their effect.
    pub results: u64,
    /// Rows of the journal.
    pub rows: u64,
    /// What must not have been.
    pub violations: Vec<Violation>,
    /// Interesting states reached.
    pub reached: BTreeSet<&'static str>,
}

/// Interesting states that a few hundred worlds must reach, else they are too tame.
pub const INTERESTING: [&str; 32] = [
    "a claim is refused",
    "a commit failed",
    "a directory is adopted by a living process",
    "a drained run went on",
    "a gap that the satellite named",
    "a late result",
    "a late result is the one whose state was told",
    "a minute after the heal every state is right",
    "a neighbour on the volume",
    "a process has its slot back",
    "a process is fenced",
    "a process is sent for",
    "a run is drained",
    "a run is opened at a reconnect",
    "a run is trimmed",
    "a satellite comes back without its volume",
    "a slot changes hands",
    "a slot has told its newest states",
    "a slot is out",
    "a slot is stable again",
    "a slot is stale",
    "a slot may own checks",
    "a slot tells what it saw of a check that has moved",
    "a snapshot brings a hard problem",
    "a snapshot brings a state",
    "a snapshot brings a state made under an older grant",
    "a start from disk",
    "an earlier process's run is delivered",
    "backlog",
    "results are in memory only",
    "the master comes back",
    "the master holds itself cut off",
];

/// Runs the world of a seed to its end, with a defect planted or without.
#[must_use]
pub fn run(seed: u64, defect: Option<Defect>) -> Report {
    let mut world = World::new(seed, defect);
    world.run();
    Report {
        seed,
        events: world.witness.step,
        faults: world.faults.clone(),
        results: world.witness.results(),
        rows: world.witness.head().0,
        violations: world.witness.violations().to_vec(),
        reached: world.witness.reached().clone(),
    }
}

/// Runs the worlds of these seeds on all cores, and hands each report on as it comes.
pub fn run_all(seeds: std::ops::Range<u64>, mut heard: impl FnMut(Report)) {
    let next = AtomicU64::new(seeds.start);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let (reports, told) = sync_channel(threads);
        for _ in 0..threads {
            let (reports, next) = (reports.clone(), &next);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || reports.send(run(seed, None)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(reports);
        told.into_iter().for_each(&mut heard);
    });
}

/// What many worlds came to.
#[derive(Debug, Clone, Default)]
pub struct Sum {
    /// How many.
    pub worlds: u64,
    /// Faults of each kind.
    pub faults: BTreeMap<Fault, u64>,
    /// Answers that had their effect.
    pub results: u64,
    /// Worlds in which something must not have been.
    pub violated: Vec<Report>,
    /// Faults and results of each world, for their medians.
    sizes: (Vec<u64>, Vec<u64>),
    reached: BTreeSet<&'static str>,
}

impl Sum {
    /// Adds one.
    pub fn add(&mut self, report: Report) {
        self.worlds += 1;
        self.results += report.results;
        for (fault, count) in &report.faults {
            *self.faults.entry(*fault).or_default() += count;
        }
        self.sizes.0.push(report.faults.values().sum());
        self.sizes.1.push(report.results);
        self.reached.extend(&report.reached);
        if !report.violations.is_empty() {
            self.violated.push(report);
        }
    }

    /// Faults and results of the world in the middle.
    #[must_use]
    pub fn medians(&self) -> (u64, u64) {
        let median = |sizes: &[u64]| {
            let mut sizes = sizes.to_vec();
            sizes.sort_unstable();
            sizes.get(sizes.len() / 2).copied().unwrap_or(0)
        };
        (median(&self.sizes.0), median(&self.sizes.1))
    }

    /// Interesting states and kinds of faults that never were.
    #[must_use]
    pub fn unreached(&self) -> Vec<String> {
        let states = INTERESTING.iter().filter(|state| !self.reached.contains(*state)).map(|state| (*state).to_owned());
        let faults =
            Fault::ALL.iter().filter(|fault| !self.faults.contains_key(fault)).map(|fault| format!("{fault:?}"));
        states.chain(faults).collect()
    }
}
