//! What many worlds came to: counts, medians, what was violated, and what never occurred.

use std::collections::{BTreeMap, BTreeSet};

use super::Report;
use super::landmark::LANDMARKS;
use super::plan::Fault;

/// The median world of many has at least so many faults and results.
pub const MEDIANS: (u64, u64) = (50, 200);

/// What many worlds came to.
#[derive(Debug, Clone, Default)]
pub struct Sum {
    /// How many.
    pub worlds: u64,
    /// Of which run twice.
    pub twice: u64,
    /// Events of the longest.
    pub events_max: u64,
    /// Faults of each kind.
    pub faults: BTreeMap<Fault, u64>,
    /// Packets hit, by what befell them.
    pub packets: BTreeMap<Fault, u64>,
    /// Answers that had their effect.
    pub results: u64,
    /// Worlds in which something must not have been.
    pub violated: Vec<Report>,
    /// In how many worlds each interesting state was reached.
    pub reached: BTreeMap<&'static str, u64>,
    /// Faults, without what operators do, and results of each world, for their medians.
    sizes: (Vec<u64>, Vec<u64>),
}

impl Sum {
    /// Adds one.
    pub fn add(&mut self, report: Report) {
        self.worlds += 1;
        self.twice += u64::from(report.twice);
        self.events_max = self.events_max.max(report.events);
        self.results += report.results;
        for (fault, count) in &report.faults {
            *self.faults.entry(*fault).or_default() += count;
        }
        for (fault, count) in &report.packets {
            *self.packets.entry(*fault).or_default() += count;
        }
        self.sizes.0.push(report.broken());
        self.sizes.1.push(report.results);
        for state in &report.reached {
            *self.reached.entry(state).or_default() += 1;
        }
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

    /// Whether the median world has as many faults and results as it must.
    #[must_use]
    pub fn is_lively(&self) -> bool {
        let (faults, results) = self.medians();
        faults >= MEDIANS.0 && results >= MEDIANS.1
    }

    /// Interesting states and kinds of faults that never were; and what was reached and stands in no table.
    #[must_use]
    pub fn unreached(&self) -> Vec<String> {
        let named: BTreeSet<&str> = LANDMARKS.iter().map(|(name, _)| *name).collect();
        let states = LANDMARKS.iter().filter(|(name, _)| !self.reached.contains_key(name));
        let states = states.map(|(name, _)| (*name).to_owned());
        let faults =
            Fault::ALL.iter().filter(|fault| !self.faults.contains_key(fault)).map(|fault| format!("{fault:?}"));
        let nameless = self.reached.keys().filter(|name| !named.contains(*name));
        let nameless = nameless.map(|name| format!("not in the table: {name}"));
        states.chain(faults).chain(nameless).collect()
    }
}
