//! `make sim`: worlds by their seeds, on all cores. Says what was violated and how to see it again; ends with one line of JSON.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use serde_json::json;
use tests::simulation::{Report, Sum, run, run_all};

/// Fewer worlds need not have reached every interesting state.
const MANY: u64 = 300;

/// Runs simulated fleets: the brains of master and satellites as they are, with disks, network and clocks that fail by seed.
///
/// Exit 0: nothing was violated, and (from 300 worlds on) every kind of fault and every interesting state occurred. Exit 1: something
/// was or did not; each violation is printed with its seed and the command that shows it again.
#[derive(Debug, Parser)]
#[command(name = "perigee-sim")]
struct Flags {
    /// How many worlds.
    #[arg(long, env = "SEEDS", default_value_t = 300)]
    seeds: u64,
    /// The first one's seed; the others follow it.
    #[arg(long, env = "SEED_FROM", default_value_t = 1)]
    seed_from: u64,
    /// One world only, and all that is known of it.
    #[arg(long, env = "SEED")]
    seed: Option<u64>,
}

fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn complain(report: &Report) {
    for violation in &report.violations {
        let (seed, step) = (report.seed, violation.step);
        tell(&format!(
            "{} violated, seed {seed}, step {step}: {}  (make sim SEED={seed})",
            violation.invariant, violation.what
        ));
    }
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let mut sum = Sum::default();
    if let Some(seed) = flags.seed {
        let report = run(seed, None);
        tell(&format!("{report:#?}"));
        sum.add(report);
    } else {
        let every = (flags.seeds / 10).max(1);
        run_all(flags.seed_from..flags.seed_from.saturating_add(flags.seeds), |report| {
            complain(&report);
            sum.add(report);
            if sum.worlds % every == 0 {
                tell(&format!("{} of {} worlds, {} violated", sum.worlds, flags.seeds, sum.violated.len()));
            }
        });
    }
    let unreached = if sum.worlds >= MANY { sum.unreached() } else { Vec::new() };
    let failed = sum.violated.len();
    let faults: u64 = sum.faults.values().sum();
    let (median_faults, median_results) = sum.medians();
    let last = json!({
        "passed": sum.worlds - u64::try_from(failed).unwrap_or(0),
        "failed": failed,
        "skipped": 0,
        "seeds": sum.worlds,
        "faults": faults,
        "results": sum.results,
        "violations": sum.violated.iter().map(|report| report.violations.len()).sum::<usize>(),
        "unreached": unreached,
        "median_faults": median_faults,
        "median_results": median_results,
    });
    let _ = writeln!(std::io::stdout(), "{last}");
    if failed == 0 && unreached.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
