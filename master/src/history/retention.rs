//! What history forgets, and when: results after a week or above a number, everything else after a good year. Removes in small steps,
//! so that neither new rows nor readers wait. Knows no clock: the present is the time of the newest row.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Params, TransactionBehavior, params};
use shared::time::Timestamp;

use super::table::{number, set_number, signed};

/// Results are kept this long.
pub const RESULTS_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Results kept at most, about 2 GiB; beyond it the oldest go before their time.
pub const RESULTS_MAX: u64 = 5_000_000;
/// Transitions, gaps and other events are kept this long.
pub const EVENTS_AGE_MAX: Duration = Duration::from_secs(400 * 24 * 3600);

/// Bounds of what is kept.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// See [`RESULTS_MAX`].
    pub results: u64,
    /// See [`RESULTS_AGE_MAX`].
    pub results_age: Duration,
    /// See [`EVENTS_AGE_MAX`].
    pub events_age: Duration,
}

impl Default for Kept {
    fn default() -> Self {
        Self { results: RESULTS_MAX, results_age: RESULTS_AGE_MAX, events_age: EVENTS_AGE_MAX }
    }
}

/// Removes up to `step` results, and as much of each other table, that are beyond their bounds. True when there may be more.
pub(super) fn remove_old(connection: &mut Connection, now: Timestamp, kept: Kept, step: i64) -> rusqlite::Result<bool> {
    let count = number(connection, "results")?;
    let surplus = count.saturating_sub(signed(kept.results)).clamp(0, step);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut results = 0;
    if surplus > 0 {
        // Ids rise with the journal as `at` does: the oldest are the lowest.
        results += remove(
            &transaction,
            "DELETE FROM results WHERE id IN (SELECT id FROM results ORDER BY id LIMIT ?1)",
            params![surplus],
        )?;
    }
    results += remove_aged(&transaction, "results", now.minus(kept.results_age), step - results)?;
    set_number(&transaction, "results", count.saturating_sub(results))?;
    let mut more = results >= step;
    for table in ["transitions", "gaps", "events"] {
        more |= remove_aged(&transaction, table, now.minus(kept.events_age), step)? >= step;
    }
    transaction.commit()?;
    Ok(more)
}

/// Removes up to `step` of what was recorded before a time. Costs one look at the oldest when there is nothing to do.
fn remove_aged(connection: &Connection, table: &str, before: Timestamp, step: i64) -> rusqlite::Result<i64> {
    let oldest = format!("SELECT at FROM {table} ORDER BY id LIMIT 1");
    let oldest: Option<i64> = connection.prepare_cached(&oldest)?.query_row([], |row| row.get(0)).optional()?;
    if step <= 0 || oldest.is_none_or(|at| at >= before.as_millis()) {
        return Ok(0);
    }
    let statement = format!(
        "DELETE FROM {table} WHERE id IN (SELECT id FROM (SELECT id, at FROM {table} ORDER BY id LIMIT ?1) WHERE at < ?2)"
    );
    remove(connection, &statement, params![step, before.as_millis()])
}

fn remove(connection: &Connection, statement: &str, values: impl Params) -> rusqlite::Result<i64> {
    let removed = connection.prepare_cached(statement)?.execute(values)?;
    Ok(i64::try_from(removed).unwrap_or(i64::MAX))
}
