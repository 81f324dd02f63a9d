//! `make sim` and `make sim-defects`: worlds by their seeds, on all cores. Says what was violated and how to see it again; ends with
//! one line of JSON.
#![expect(clippy::disallowed_methods, reason = "says how long it took")]

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Parser;
use serde_json::json;
use tests::figure::figure;
use tests::simulation::landmark::LANDMARKS;
use tests::simulation::{Fault, Found, Report, Sum, find_defects, run_all, run_readable};

/// Fewer worlds need not have reached every interesting state: what they did not is named all the same.
const MANY: u64 = 2000;
/// Claims of `docs/proof.md`.
const CLAIM_WORLDS: u8 = 14;
const CLAIM_DEFECTS: u8 = 15;
/// Where the table of planted defects stands in a document.
const TABLE: (&str, &str) = ("<!-- planted defects -->", "<!-- end of planted defects -->");

/// Runs simulated fleets: the brains of master and satellites as they are, with disks, network, stores and clocks that fail by seed.
///
/// Exit 0: nothing was violated, and (from 2000 worlds on) every kind of fault and every interesting state occurred and the median
/// world was lively; what fewer worlds left unreached is named and no failure. Exit 1: something was or did not; each violation is
/// printed with its seed, its step, and the command that shows it again. Exit 2: wrong use.
#[derive(Debug, Parser)]
#[command(name = "perigee-sim", max_term_width = 100)]
struct Flags {
    /// How many worlds; with --defects, how many at most for each defect.
    #[arg(long, env = "SEEDS", default_value_t = 300)]
    seeds: u64,
    /// The first one's seed; the others follow it.
    #[arg(long, env = "SEED_FROM", default_value_t = 1)]
    seed_from: u64,
    /// One world only, with a line for everything that happens in it.
    #[arg(long, env = "SEED", conflicts_with = "defects")]
    seed: Option<u64>,
    /// Plants each defect in turn and says how many worlds it took to be found by the check of its invariant.
    #[arg(long)]
    defects: bool,
    /// Fails if it takes longer than so many seconds.
    #[arg(long)]
    within: Option<u64>,
    /// Reports its figures for the row of its claim in docs/proof.md.
    #[arg(long)]
    claim: bool,
    /// Writes the table of planted defects into this document, between its two marks.
    #[arg(long, requires = "defects")]
    table: Option<PathBuf>,
    /// Says of every interesting state and every kind of fault how often it occurred.
    #[arg(long)]
    counts: bool,
}

fn tell(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
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
    if flags.seed.is_none() {
        // A panic of a brain is a violation and told as one; where it was, the replay of its seed says.
        std::panic::set_hook(Box::new(|_| {}));
    }
    let ended = if let Some(seed) = flags.seed {
        Ok(replay(seed))
    } else if flags.defects {
        defects(&flags)
    } else {
        Ok(worlds(&flags))
    };
    ended.unwrap_or_else(|error| {
        tell(&format!("perigee-sim: {error:#}"));
        ExitCode::from(2)
    })
}

fn last_line(line: &serde_json::Value) {
    let _ = writeln!(io::stdout(), "{line}");
}

fn ended(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One world, told.
fn replay(seed: u64) -> ExitCode {
    let (report, lines) = run_readable(seed, None);
    let mut out = io::stderr().lock();
    for line in lines {
        let _ = writeln!(out, "{line}");
    }
    drop(out);
    complain(&report);
    let faults = report.broken();
    let good = report.violations.is_empty();
    let mut sum = Sum::default();
    sum.add(report.clone());
    last_line(&json!({
        "passed": u8::from(good),
        "failed": u8::from(!good),
        "skipped": 0,
        "seeds": 1,
        "seed": seed,
        "events": report.events,
        "rows": report.rows,
        "faults": faults,
        "results": report.results,
        "violations": report.violations.len(),
        "unreached": sum.unreached(),
        "digest": report.digest,
    }));
    ended(good)
}

fn worlds(flags: &Flags) -> ExitCode {
    let began = Instant::now();
    let mut sum = Sum::default();
    let every = (flags.seeds / 10).max(1);
    run_all(flags.seed_from..flags.seed_from.saturating_add(flags.seeds), |report| {
        complain(&report);
        sum.add(report);
        if sum.worlds.is_multiple_of(every) {
            tell(&format!("{} of {} worlds, {} violated", sum.worlds, flags.seeds, sum.violated.len()));
        }
    });
    let seconds = began.elapsed().as_secs();
    if flags.counts {
        for (state, meaning) in LANDMARKS {
            tell(&format!("{:>6}  {state}: {meaning}", sum.reached.get(state).copied().unwrap_or(0)));
        }
        for fault in Fault::ALL {
            tell(&format!("{:>6}  {fault:?}", sum.faults.get(&fault).copied().unwrap_or(0)));
        }
        for (fault, packets) in &sum.packets {
            tell(&format!("{packets:>6}  packets: {fault:?}"));
        }
    }
    let many = sum.worlds >= MANY;
    let unreached = sum.unreached();
    let whole = !many || unreached.is_empty();
    let failed = sum.violated.len();
    let faults: u64 = sum.faults.iter().filter(|(fault, _)| !fault.is_action()).map(|(_, count)| count).sum();
    let (median_faults, median_results) = sum.medians();
    let lively = !many || sum.is_lively();
    let in_time = flags.within.is_none_or(|within| seconds <= within);
    if !in_time {
        tell(&format!("it took {seconds} s"));
    }
    if flags.claim {
        let text = format!(
            "{} worlds from seed {} in {seconds} s: {faults} faults, {} results, {failed} violated, {} of {} interesting states, median world {median_faults} faults and {median_results} results, {} run twice and equal",
            sum.worlds,
            flags.seed_from,
            sum.results,
            LANDMARKS.iter().filter(|(name, _)| sum.reached.contains_key(name)).count(),
            LANDMARKS.len(),
            sum.twice,
        );
        figure(CLAIM_WORLDS, &text);
    }
    last_line(&json!({
        "passed": sum.worlds - u64::try_from(failed).unwrap_or(0),
        "failed": failed,
        "skipped": 0,
        "seeds": sum.worlds,
        "twice": sum.twice,
        "faults": faults,
        "packets": sum.packets.values().sum::<u64>(),
        "results": sum.results,
        "violations": sum.violated.iter().map(|report| report.violations.len()).sum::<usize>(),
        "unreached": unreached,
        "median_faults": median_faults,
        "median_results": median_results,
        "events_max": sum.events_max,
        "seconds": seconds,
    }));
    ended(failed == 0 && whole && lively && in_time)
}

fn defects(flags: &Flags) -> Result<ExitCode> {
    let found = find_defects(flags.seed_from, flags.seeds);
    let table = table(&found);
    let _ = write!(io::stdout(), "{table}");
    if let Some(path) = &flags.table {
        write_table(path, &table)?;
    }
    let missed: Vec<String> =
        found.iter().filter(|found| found.by.is_none()).map(|found| found.planted.name()).collect();
    let mut needed: Vec<u64> = found.iter().filter_map(|found| found.by.as_ref()).map(|(seeds, _)| *seeds).collect();
    needed.sort_unstable();
    let median = needed.get(needed.len() / 2).copied().unwrap_or(0);
    let most = needed.last().copied().unwrap_or(0);
    if flags.claim {
        let text = format!(
            "{} planted defects, {} found by the check of the invariant each breaks: median {median} worlds, at most {most} of {}",
            found.len(),
            needed.len(),
            flags.seeds
        );
        figure(CLAIM_DEFECTS, &text);
    }
    last_line(&json!({
        "passed": needed.len(),
        "failed": missed.len(),
        "skipped": 0,
        "seeds_median": median,
        "seeds_max": most,
        "missed": missed,
    }));
    Ok(ended(missed.is_empty()))
}

/// The table as it stands in documents.
fn table(found: &[Found]) -> String {
    let mut table = "| defect | invariant | worlds | what its check said first |\n|---|---|---|---|\n".to_owned();
    for Found { planted, by } in found {
        let (worlds, said) = match by {
            Some((seed, violation)) => (seed.to_string(), shortened(&violation.what)),
            None => ("not found".to_owned(), String::new()),
        };
        table += &format!("| {} | {} | {worlds} | {said} |\n", planted.name(), planted.invariant());
    }
    table
}

/// One cell of a table.
fn shortened(text: &str) -> String {
    const LENGTH: usize = 120;
    let mut cell: String = text.replace(['|', '\n'], " ").chars().take(LENGTH).collect();
    if cell.len() < text.len() {
        cell.push('…');
    }
    cell
}

fn write_table(path: &Path, table: &str) -> Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let (before, rest) = text.split_once(TABLE.0).context("the mark before the table is missing")?;
    let (_, after) = rest.split_once(TABLE.1).context("the mark behind the table is missing")?;
    let (first, last) = TABLE;
    std::fs::write(path, format!("{before}{first}\n\n{table}\n{last}{after}"))?;
    Ok(())
}
