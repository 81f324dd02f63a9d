//! Whole fleets around the two real brains, one thread, one virtual clock, one seed (docs/DESIGN.md, section 13). What runs here is
//! `master::coordinator` and `satellite::scheduler` as the programs have them; disks, network, clocks and daemons are models.
//! Decides nothing about what is right: that is the witness's.
//!
//! The surprise: a world is a function of its seed alone, so a violation comes again with one command.

mod before;
pub mod chance;
pub mod defect;
mod estate;
mod fault;
pub mod landmark;
mod network;
mod outlet;
mod plan;
mod purse;
mod secret;
mod site;
mod store;
mod sum;
mod trace;
mod vigil;
mod volume;
mod witness;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;

use defect::Planted;
pub use plan::Fault;
pub use sum::{MEDIANS, Sum};
use trace::Trace;
pub use witness::Violation;
use world::World;

/// One seed in so many is run twice, and both runs must be equal.
pub const TWICE: u64 = 100;

/// What a world came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// Events handled.
    pub events: u64,
    /// Faults and what operators did, by kind.
    pub faults: BTreeMap<Fault, u64>,
    /// Packets hit, by what befell them. Of these a time of bad packets is one fault, and none if it hit none.
    pub packets: BTreeMap<Fault, u64>,
    /// Answers that had their effect.
    pub results: u64,
    /// Rows of the journal.
    pub rows: u64,
    /// What must not have been.
    pub violations: Vec<Violation>,
    /// Interesting states reached.
    pub reached: BTreeSet<&'static str>,
    /// SHA-256, in hexadecimal, over every decision of both brains (records, frames, orders, in their order) and the last state shown.
    pub digest: String,
    /// It was run a second time.
    pub twice: bool,
}

impl Report {
    /// Faults: what operators do breaks nothing and is none.
    #[must_use]
    pub fn broken(&self) -> u64 {
        self.faults.iter().filter(|(fault, _)| !fault.is_action()).map(|(_, count)| count).sum()
    }
}

/// Runs the world of a seed to its end, with a defect planted or without.
#[must_use]
pub fn run(seed: u64, planted: Option<Planted>) -> Report {
    watch(seed, planted, Trace::default()).0
}

/// The same, with a line for everything that happens.
#[must_use]
pub fn run_readable(seed: u64, planted: Option<Planted>) -> (Report, Vec<String>) {
    let (report, trace) = watch(seed, planted, Trace::readable());
    (report, trace.into_lines())
}

fn watch(seed: u64, planted: Option<Planted>, trace: Trace) -> (Report, Trace) {
    let log = secret::Log::default();
    let mut world = World::new(seed, planted, trace);
    log.of(|| world.run());
    if let Some(master) = &world.master {
        let state = master.coordinator.published().encode();
        world.trace.decided(world.now, 0, &state);
    }
    if log.tells() {
        world.witness.violated("I15", "what a check was asked with stands in a log".to_owned());
    }
    let report = Report {
        seed,
        events: world.witness.step,
        faults: world.faults.clone(),
        packets: world.packets.clone(),
        results: world.witness.results(),
        rows: world.witness.head().0,
        violations: world.witness.violations().to_vec(),
        reached: world.witness.reached().clone(),
        digest: world.trace.digest(),
        twice: false,
    };
    (report, world.trace)
}

/// As [`run`], and for one seed in [`TWICE`] a second time: what differs is a violation of its own.
fn run_and_compare(seed: u64) -> Report {
    let mut report = run(seed, None);
    if seed.is_multiple_of(TWICE) {
        let again = run(seed, None);
        if again != report {
            let what = format!("two runs differ: digests {} and {}", report.digest, again.digest);
            report.violations.push(Violation { invariant: "seed", step: 0, what });
        }
        report.twice = true;
    }
    report
}

/// Runs the worlds of these seeds on all cores, and hands each report on as it comes.
pub fn run_all(seeds: Range<u64>, mut heard: impl FnMut(Report)) {
    let next = AtomicU64::new(seeds.start);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let (reports, told) = sync_channel(threads);
        for _ in 0..threads {
            let (reports, next) = (reports.clone(), &next);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || reports.send(run_and_compare(seed)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(reports);
        told.into_iter().for_each(&mut heard);
    });
}

/// How many orders a model and what it stands for are given, and the seed that both comparisons draw them from: one for all of them,
/// from the commit, so that every commit sees other orders and each of them the same again. `PERIGEE_OPERATIONS` and `PERIGEE_SEED` say
/// otherwise.
#[cfg(test)]
fn asked() -> (u64, u64) {
    const OPERATIONS: u64 = 10_000;
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
    };
    let of_the_commit = || {
        let head = std::process::Command::new("git").args(["rev-parse", "--short=8", "HEAD"]).output();
        let head = head.map(|head| String::from_utf8_lossy(&head.stdout).trim().to_owned()).unwrap_or_default();
        u64::from_str_radix(&head, 16).unwrap_or_else(|_| {
            assert!(std::env::var_os("CI").is_none(), "git does not say which commit this is: {head:?}");
            rand::random_range(1..1_000_000_000)
        })
    };
    (number("PERIGEE_OPERATIONS").unwrap_or(OPERATIONS), number("PERIGEE_SEED").unwrap_or_else(of_the_commit))
}

/// How a planted defect was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The defect.
    pub planted: Planted,
    /// Worlds that were needed, and what the check of its invariant said; `None` if it was not found.
    pub by: Option<(u64, Violation)>,
}

/// Plants each defect into the worlds of so many seeds from the `first` on, on all cores, until the check of its invariant notices.
#[must_use]
pub fn find_defects(first: u64, worlds: u64) -> Vec<Found> {
    let all = Planted::all();
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let find = |planted: Planted| {
        let by = (1..=worlds).find_map(|number| {
            let violations = run(first.saturating_add(number - 1), Some(planted)).violations;
            let said = violations.into_iter().find(|violation| violation.invariant == planted.invariant());
            said.map(|said| (number, said))
        });
        Found { planted, by }
    };
    let mut found: Vec<(usize, Found)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut mine = Vec::new();
                    loop {
                        let at = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap_or(usize::MAX);
                        let Some(planted) = all.get(at) else { return mine };
                        mine.push((at, find(*planted)));
                    }
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    });
    found.sort_by_key(|(at, _)| *at);
    found.into_iter().map(|(_, found)| found).collect()
}
