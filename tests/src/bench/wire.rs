//! What a result weighs on the wire, and what it costs to put it there: full batches as they are spooled and sent, compressed. The
//! peer says the same in JSON, one object a result, compressed alike.

use anyhow::{Result, ensure};
use serde_json::json;
use shared::delivery::{BATCH_RESULTS_MAX, decode_header, decode_items};
use shared::name::{CheckId, Grant};

use super::scene::{batches, result};
use super::{Bench, Contest, Contestant, Done, Prepared};

/// The rows of this contest.
pub const BENCH: Bench = Bench { rows: &["wire-bytes", "json-zstd"], prepare };

/// Batches a round.
const BATCHES: u64 = 40;
/// The level batches are compressed with.
const ZSTD_LEVEL: i32 = 1;

fn done(bytes: usize) -> Result<Done> {
    let units = BATCHES * u64::try_from(BATCH_RESULTS_MAX)?;
    Ok(Done { units, figures: vec![("bytes_per_result", bytes as f64 / units as f64)], ..Done::default() })
}

fn ours() -> Result<Done> {
    let batches = batches(0, BATCHES, Grant(7));
    for batch in &batches {
        let (header, body) = decode_header(batch)?;
        ensure!(decode_items(&header, body)?.len() == BATCH_RESULTS_MAX, "a batch is not whole");
    }
    done(batches.iter().map(Vec::len).sum())
}

fn json() -> Result<Done> {
    let mut bytes = 0;
    for batch in 0..BATCHES {
        let size = u64::try_from(BATCH_RESULTS_MAX)?;
        let objects: Vec<_> = (batch * size..(batch + 1) * size)
            .map(|n| {
                let result = result(n, CheckId(u32::try_from(n % 10_000).unwrap_or(0) + 1), Grant(7));
                json!({
                    "check": result.check, "grant": result.grant, "scheduled": result.scheduled.as_millis(),
                    "started": result.started.as_millis(), "duration_us": result.duration_us, "exit": result.exit,
                    "state": result.after.state, "state_type": result.after.state_type, "attempt": result.after.attempt,
                    "max_attempts": result.after.max_attempts, "since": result.after.since.as_millis(),
                    "output": result.output, "perfdata": result.perfdata, "metrics": result.metrics,
                    "authenticated": result.authenticated, "offset_ms": result.offset_ms,
                })
            })
            .collect();
        let text = serde_json::to_vec(&objects)?;
        let packed = zstd::bulk::compress(&text, ZSTD_LEVEL)?;
        let unpacked: serde_json::Value = serde_json::from_slice(&zstd::bulk::decompress(&packed, text.len())?)?;
        ensure!(unpacked.as_array().map(Vec::len) == Some(BATCH_RESULTS_MAX), "a batch is not whole");
        bytes += packed.len();
    }
    done(bytes)
}

fn prepare() -> Result<Prepared> {
    let contestants = vec![
        Contestant { row: "wire-bytes", reported: true, peer: Some("json-zstd"), at_least: None, run: Box::new(ours) },
        Contestant { row: "json-zstd", reported: true, peer: None, at_least: None, run: Box::new(json) },
    ];
    Ok(Prepared::Ready(Contest { unit: "result", contestants }))
}
