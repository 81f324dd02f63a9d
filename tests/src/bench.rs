//! Measures what a unit of work costs, ours and a peer's in turns, and writes `target/bench/report.json`. Decides how rounds are
//! interleaved, how CPU is counted, and whether a row keeps its promise. What is measured is a file of its own below: it prepares
//! a [`Contest`], and [`BENCHES`] names it.
//!
//! CPU is that of this process and of the children it has waited for, from `/proc/self/stat`; the kernel rounds it to 10 ms, so a
//! row should cost some tenths of a second in all. The surprise: a daemon started for a contest must outlive it, because its own
//! CPU is counted here the moment it is waited for.
#![expect(clippy::disallowed_methods, reason = "a shell room: it measures real time")]

pub mod agent;
pub mod ingest;
pub mod nrpe;
pub mod nrpe_certificate;
pub mod nrpe_parallel;
pub mod report;
pub mod scene;
pub mod seglog;
pub mod wire;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::usage::{processor, resident};

/// All contests. Who adds a row adds a file and a line here.
pub const BENCHES: &[Bench] = &[
    nrpe::BENCH,
    nrpe_certificate::BENCH,
    nrpe_parallel::BENCH,
    agent::BENCH,
    ingest::BENCH,
    wire::BENCH,
    seglog::BENCH,
];

/// Rounds that count, after one that only warms up.
pub const ROUNDS: u32 = 5;

/// A contest by its rows.
#[derive(Debug, Clone, Copy)]
pub struct Bench {
    /// The rows it reports.
    pub rows: &'static [&'static str],
    /// Sets the scene.
    pub prepare: fn() -> Result<Prepared>,
}

/// A scene that is set, or the part it lacks.
pub enum Prepared {
    /// It can begin.
    Ready(Contest),
    /// A part is not installed.
    Missing {
        /// What.
        what: String,
        /// The Debian package that brings it.
        package: String,
    },
}

/// What is measured against each other.
pub struct Contest {
    /// What is counted: `check`, `result`, `record`.
    pub unit: &'static str,
    /// In the order of each round.
    pub contestants: Vec<Contestant>,
}

/// One way to do the work.
pub struct Contestant {
    /// Name of the row.
    pub row: &'static str,
    /// False for a peer that has no row of its own.
    pub reported: bool,
    /// The contestant it is compared with.
    pub peer: Option<&'static str>,
    /// How many times less CPU than the peer it must take.
    pub at_least: Option<f64>,
    /// Does a round of work, checks every outcome, and says how many units it was.
    pub run: Box<dyn FnMut() -> Result<Done>>,
}

/// A round of work that was done, every outcome as it should be.
#[derive(Debug, Clone, Default)]
pub struct Done {
    /// Units of work.
    pub units: u64,
    /// The CPU that counts, where it is not all of this process's and its children's.
    pub cpu: Option<Duration>,
    /// Further figures of this row, by name; the last round's are reported.
    pub figures: Vec<(&'static str, f64)>,
}

impl Done {
    /// So many units and nothing else.
    #[must_use]
    pub const fn units(units: u64) -> Self {
        Self { units, cpu: None, figures: Vec::new() }
    }
}

/// A line of the report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its name.
    pub row: String,
    /// What is counted.
    pub unit: String,
    /// How many units were done in the rounds that count.
    pub n: u64,
    /// CPU of client and children, in microseconds per unit.
    pub cpu_us_per_unit: f64,
    /// Units per second of real time, on this machine with whatever else it did.
    pub rate: f64,
    /// The row or program it is compared with.
    pub peer: Option<String>,
    /// CPU of the peer per unit, in units of our own.
    pub ratio: Option<f64>,
    /// Memory of this process after the last round, in KiB.
    pub rss_kib: u64,
    /// What was measured.
    pub commit: String,
    /// Further figures.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub figures: serde_json::Map<String, serde_json::Value>,
}

#[derive(Debug, Clone, Default)]
struct Sum {
    units: u64,
    cpu: Duration,
    wall: Duration,
    rss_kib: u64,
    figures: Vec<(&'static str, f64)>,
}

impl Sum {
    fn cpu_us_per_unit(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.units.max(1) as f64
    }
}

impl Contest {
    /// Runs all rounds, and then says what each row costs; the second list names broken promises.
    ///
    /// # Errors
    /// A contestant failed: its work, or one of its outcomes, was not as it should be.
    pub fn hold(mut self, rounds: u32, commit: &str) -> Result<(Vec<Row>, Vec<String>)> {
        let mut sums = vec![Sum::default(); self.contestants.len()];
        for round in 0..=rounds {
            for (contestant, sum) in self.contestants.iter_mut().zip(&mut sums) {
                let (cpu, began) = (used()?, Instant::now());
                let done = (contestant.run)().with_context(|| format!("{} in round {round}", contestant.row))?;
                let (wall, cpu) = (began.elapsed(), done.cpu.unwrap_or(used()?.saturating_sub(cpu)));
                ensure!(done.units > 0, "{} did nothing", contestant.row);
                let cost = cpu.as_secs_f64() * 1e6 / done.units as f64;
                tracing::info!(row = contestant.row, round, units = done.units, cpu_us_per_unit = cost, "measured");
                if round > 0 {
                    sum.units += done.units;
                    sum.cpu += cpu;
                    sum.wall += wall;
                }
                sum.rss_kib = resident(std::process::id())? / 1024;
                sum.figures = done.figures;
            }
        }
        let mut rows = Vec::new();
        let mut broken = Vec::new();
        for (contestant, sum) in self.contestants.iter().zip(&sums) {
            let peer = contestant.peer.map(|peer| {
                let at = self.contestants.iter().position(|other| other.row == peer);
                at.map(|at| &sums[at]).with_context(|| format!("{}: no contestant {peer}", contestant.row))
            });
            let own = sum.cpu_us_per_unit();
            let ratio = peer.transpose()?.map(|peer| peer.cpu_us_per_unit() / own.max(f64::MIN_POSITIVE));
            if let (Some(ratio), Some(at_least)) = (ratio, contestant.at_least)
                && ratio < at_least
            {
                broken.push(format!("{}: {ratio:.1} times less CPU than its peer, not {at_least}", contestant.row));
            }
            if contestant.reported {
                rows.push(Row {
                    row: contestant.row.to_owned(),
                    unit: self.unit.to_owned(),
                    n: sum.units,
                    cpu_us_per_unit: own,
                    rate: sum.units as f64 / sum.wall.as_secs_f64().max(f64::MIN_POSITIVE),
                    peer: contestant.peer.map(str::to_owned),
                    ratio,
                    rss_kib: sum.rss_kib,
                    commit: commit.to_owned(),
                    figures: sum.figures.iter().map(|&(name, value)| (name.to_owned(), value.into())).collect(),
                });
            }
        }
        Ok((rows, broken))
    }
}

/// User and system time of this process and of the children it has waited for.
fn used() -> Result<Duration> {
    Ok(processor(std::process::id())?.sum())
}

/// What is being measured: the commit, marked if the tree has changed since.
#[must_use]
pub fn commit() -> String {
    let git = |arguments: &[&str]| {
        let ended = Command::new("git").args(arguments).output().ok().filter(|ended| ended.status.success());
        ended.map(|ended| String::from_utf8_lossy(&ended.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else { return "unknown".to_owned() };
    // The table of proofs is what a proof rewrites: it makes no other program.
    let changed = git(&["status", "--porcelain", "--untracked-files=no", "--", ":/", ":!/docs/proof.md"]);
    if changed.is_none_or(|changed| changed.is_empty()) { commit } else { format!("{commit}-dirty") }
}

/// Where the report belongs: `bench/report.json` in the target directory.
#[must_use]
pub fn report_path() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    target.join("bench/report.json")
}

/// The contests that report these rows; all for none.
///
/// # Errors
/// A row that does not exist, with the list of those that do.
pub fn chosen(rows: &[String]) -> Result<Vec<Bench>> {
    let known: Vec<&str> = BENCHES.iter().flat_map(|bench| bench.rows).copied().collect();
    if let Some(unknown) = rows.iter().find(|row| !known.contains(&row.as_str())) {
        bail!("there is no row {unknown:?}; the rows are {}", known.join(" "));
    }
    let wanted = |bench: &&Bench| rows.is_empty() || bench.rows.iter().any(|row| rows.iter().any(|asked| asked == row));
    Ok(BENCHES.iter().filter(wanted).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn burning(row: &'static str, millis: u64, peer: Option<&'static str>, at_least: Option<f64>) -> Contestant {
        let run = Box::new(move || {
            let until = used()? + Duration::from_millis(millis);
            let mut spins = 0_u64;
            while used()? < until {
                spins += 1;
            }
            Ok(Done { units: 10, figures: vec![("spins", spins as f64)], ..Done::default() })
        });
        Contestant { row, reported: true, peer, at_least, run }
    }

    #[test]
    fn cost_and_ratio_are_those_of_the_work_and_broken_promises_are_named() {
        let contestants = vec![
            burning("cheap", 50, Some("dear"), Some(1.5)),
            burning("dear", 150, None, None),
            burning("boaster", 150, Some("dear"), Some(5.0)),
        ];
        let (rows, broken) = Contest { unit: "spin", contestants }.hold(2, "abc").unwrap();
        assert_eq!(rows.len(), 3);
        assert_eq!((rows[0].n, rows[0].commit.as_str()), (20, "abc"));
        assert!((4_000.0..12_000.0).contains(&rows[0].cpu_us_per_unit), "{rows:?}");
        assert!((1.5..6.0).contains(&rows[0].ratio.unwrap()), "{rows:?}");
        assert!(rows[0].figures["spins"].as_f64().unwrap() > 0.0);
        assert_eq!(broken.len(), 1, "{broken:?}");
        assert!(broken[0].starts_with("boaster: "), "{broken:?}");
    }

    #[test]
    fn a_contestant_that_fails_fails_the_contest_by_name() {
        let failing = Contestant {
            row: "broken",
            reported: true,
            peer: None,
            at_least: None,
            run: Box::new(|| bail!("an outcome was not as it should be")),
        };
        let error = Contest { unit: "x", contestants: vec![failing] }.hold(1, "abc").map(|_| ()).unwrap_err();
        assert!(format!("{error:#}").contains("broken in round 0: an outcome"), "{error:#}");
    }

    #[test]
    fn an_unknown_row_is_refused_with_those_that_exist() {
        let error = chosen(&["nrpe-plane".to_owned()]).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("nrpe-plane") && error.contains("nrpe-plain"), "{error}");
        assert_eq!(chosen(&[]).unwrap().len(), BENCHES.len());
    }
}
