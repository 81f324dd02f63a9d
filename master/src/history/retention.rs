//! What history forgets, and when: results after a week or above a number, everything else after a good year. Removes in small steps,
//! so that neither new rows nor readers wait. Knows no clock: the present is the time of the newest row.

use std::time::Duration;

use rusqlite::{Connection, Params, TransactionBehavior, params};
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
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let count = number(&transaction, "results")?;
    let surplus = count.saturating_sub(signed(kept.results)).clamp(0, step);
    // Ids rise with the journal as `at` does: the oldest are the lowest.
    let by_count = remove(
        &transaction,
        "DELETE FROM results WHERE id IN (SELECT id FROM results ORDER BY id LIMIT ?1)",
        params![surplus],
    )?;
    let by_age = remove(
        &transaction,
        "DELETE FROM results WHERE id IN (SELECT id FROM (SELECT id, at FROM results ORDER BY id LIMIT ?1) WHERE at < ?2)",
        params![step - by_count, now.minus(kept.results_age).as_millis()],
    )?;
    let results = by_count + by_age;
    if results > 0 {
        set_number(&transaction, "results", count.saturating_sub(results))?;
    }
    let mut more = results >= step;
    for table in ["transitions", "gaps", "events"] {
        let statement = format!(
            "DELETE FROM {table} WHERE id IN (SELECT id FROM (SELECT id, at FROM {table} ORDER BY id LIMIT ?1) WHERE at < ?2)"
        );
        more |= remove(&transaction, &statement, params![step, now.minus(kept.events_age).as_millis()])? >= step;
    }
    transaction.commit()?;
    Ok(more)
}

fn remove(connection: &Connection, statement: &str, values: impl Params) -> rusqlite::Result<i64> {
    let removed = connection.prepare_cached(statement)?.execute(values)?;
    Ok(i64::try_from(removed).unwrap_or(i64::MAX))
}
