//! `perigee-bench [ROW…]`: measures, writes `target/bench/report.json`, and ends with one line of JSON. Exit 1 when a row failed or
//! broke its promise, 2 for a row that does not exist.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use tests::bench::{Bench, Prepared, ROUNDS, Row, chosen, commit, report, report_path};
use tests::figure::figure;
use tracing_subscriber::EnvFilter;

/// The rows in which a claim of `docs/proof.md` rests.
const CLAIMS: [(u8, &[&str]); 2] = [
    (
        8,
        &[
            "nrpe-plain",
            "nrpe-anon-full",
            "nrpe-anon-resumed",
            "check_nrpe-forked",
            "ingest",
            "wire-bytes",
            "seglog-append",
        ],
    ),
    (12, &["nrpe-cert-full", "nrpe-cert-resumed", "nrpe-64-parallel", "agent-answer"]),
];

/// Measures Perigee against its peers.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Rows to measure, with the peers they need; all if none is named.
    #[arg(value_name = "ROW")]
    rows: Vec<String>,
}

fn main() -> Result<ExitCode> {
    // What the programs under measurement say at their own levels would cost what is measured.
    let filter = EnvFilter::new("warn,tests=info,perigee_bench=info");
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).with_env_filter(filter).init();
    let benches = match chosen(&Arguments::parse().rows) {
        Ok(benches) => benches,
        Err(error) => {
            writeln!(std::io::stderr(), "perigee-bench: {error}")?;
            return Ok(ExitCode::from(2));
        }
    };
    let commit = commit();
    let (mut rows, mut failed, mut skipped) = (Vec::new(), 0, 0);
    for bench in benches {
        match hold(&bench, &commit) {
            Ok(Some((measured, broken))) => {
                for promise in &broken {
                    tracing::error!("{promise}");
                }
                failed += broken.len();
                rows.extend(measured);
            }
            Ok(None) => skipped += bench.rows.len(),
            Err(error) => {
                tracing::error!(rows = ?bench.rows, "{error:#}");
                failed += bench.rows.len();
            }
        }
    }
    let path = report_path();
    report::merge(&path, &rows)?;
    for (claim, of_claim) in CLAIMS {
        let rows: Vec<&Row> = rows.iter().filter(|row| of_claim.contains(&row.row.as_str())).collect();
        if !rows.is_empty() {
            figure(claim, &summary(&rows));
        }
    }
    let passed = rows.len().saturating_sub(failed);
    let report = path.display().to_string();
    let line =
        serde_json::json!({ "passed": passed, "failed": failed, "skipped": skipped, "report": report, "rows": rows });
    writeln!(std::io::stdout(), "{line}")?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Rows in a few words, for the table of proofs.
fn summary(rows: &[&Row]) -> String {
    let rows = rows.iter().map(|row| {
        let against = match (&row.peer, row.ratio) {
            (Some(peer), Some(ratio)) => format!(" ({ratio:.1} × less than {peer})"),
            _ => String::new(),
        };
        format!("{} {:.1} µs of CPU a {}{against}", row.row, row.cpu_us_per_unit, row.unit)
    });
    rows.collect::<Vec<_>>().join("; ")
}

/// One contest; none if a part of it is not installed.
fn hold(bench: &Bench, commit: &str) -> Result<Option<(Vec<Row>, Vec<String>)>> {
    match (bench.prepare)()? {
        Prepared::Ready(contest) => contest.hold(ROUNDS, commit).map(Some),
        Prepared::Missing { what, package } if std::env::var("CI").as_deref() == Ok("true") => {
            anyhow::bail!("{what} is missing, install {package} (CI=true: a missing part is a failure)")
        }
        Prepared::Missing { what, package } => {
            tracing::warn!("SKIPPED: {what} is missing, install {package} (make deps): {:?}", bench.rows);
            Ok(None)
        }
    }
}
