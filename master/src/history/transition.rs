//! Transitions as history has them: those that the journal's outcomes name, those that late results bring, and the one that a
//! snapshot could only place between two times. Knows neither rows of the journal nor threads. The surprise: a late result brings its
//! transition only here, by comparison with the result before it in time, and where it tells what a snapshot could only say
//! roughly, the snapshot's goes.

use rusqlite::{Connection, OptionalExtension, params};
use shared::name::{CheckId, Slot};
use shared::result::CheckResult;
use shared::snapshot::StateTold;
use shared::state::{CheckState, StateType};
use shared::time::Timestamp;

use super::table::{TRANSITION_IDS, event_id, type_text};
use crate::entry::{Change, Row};

/// A transition on its way into its table.
pub(super) struct Changing<'a> {
    /// Its event's id.
    pub(super) id: i64,
    /// Whose.
    pub(super) object: CheckId,
    /// When it came about, at the latest.
    pub(super) time: Timestamp,
    /// When it became durable here.
    pub(super) at: Timestamp,
    /// State and state type before.
    pub(super) from: (String, String),
    /// What it led to.
    pub(super) after: &'a CheckState,
    /// Whether the hard state changed.
    pub(super) hard: bool,
    /// Something newer was known already.
    pub(super) late: bool,
    /// First line of the result that made it.
    pub(super) output: &'a str,
    /// Where it was seen.
    pub(super) slot: &'a Slot,
    /// A snapshot told it: it came about after this time, if one is known.
    pub(super) told: Option<Option<Timestamp>>,
}

impl<'a> Changing<'a> {
    /// What the state at `place` of a snapshot changed.
    pub(super) fn of_state(row: &Row, slot: &'a Slot, place: i64, told: &'a StateTold, change: &Change) -> Self {
        Self {
            id: event_id(row.index, TRANSITION_IDS + place),
            object: told.check,
            time: told.at(),
            at: row.at,
            from: (change.from.as_str().to_owned(), type_text(change.from_type).to_owned()),
            after: &told.state,
            hard: change.hard,
            late: false,
            output: told.said.as_ref().map_or("", |said| &said.output),
            slot,
            told: Some(change.not_before),
        }
    }

    /// Puts it into its table.
    pub(super) fn add(self, connection: &Connection) -> rusqlite::Result<()> {
        let mut statement = connection.prepare_cached(
            "INSERT INTO transitions (id, object, time, at, from_state, from_type, state, state_type, attempt, max_attempts, hard,
             late, output, slot, snapshot, not_before)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
        )?;
        let (from, from_type) = self.from;
        statement
            .execute(params![
                self.id,
                self.object.0,
                self.time.as_millis(),
                self.at.as_millis(),
                from,
                from_type,
                self.after.state.as_str(),
                type_text(self.after.state_type),
                self.after.shown_attempt(),
                self.after.max_attempts,
                self.hard,
                self.late,
                self.output,
                self.slot.to_string(),
                self.told.is_some(),
                self.told.flatten().map(Timestamp::as_millis),
            ])
            .map(drop)
    }
}

/// What a late result changed in its own time; `None` where nothing is known of the time before it.
pub(super) fn late_change(
    connection: &Connection,
    result: &CheckResult,
) -> rusqlite::Result<Option<(String, String, bool)>> {
    let mut statement = connection.prepare_cached(
        "SELECT state, state_type FROM results WHERE object = ?1 AND time <= ?2 ORDER BY time DESC, id DESC LIMIT 1",
    )?;
    let time = result.ended().as_millis();
    let mut before: Option<(String, String)> =
        statement.query_row(params![result.check.0, time], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    if before.is_none() {
        // The first result of all, or the one before it is forgotten: the snapshot knows from what state it set out.
        let mut statement = connection.prepare_cached(
            "SELECT from_state, from_type FROM transitions WHERE object = ?1 AND snapshot = 1 AND time >= ?2
             AND coalesce(not_before, ?2) <= ?2 ORDER BY time, id LIMIT 1",
        )?;
        before = statement.query_row(params![result.check.0, time], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    }
    let after = &result.after;
    Ok(before.and_then(|(state, state_type)| {
        let same_state = state == after.state.as_str();
        // A soft problem that recovers leaves the hard state as it was, and the time of its change before that of the state's.
        let hard = after.state_type == StateType::Hard && (same_state || after.hard_since >= after.since);
        (!same_state || state_type != type_text(after.state_type)).then_some((state, state_type, hard))
    }))
}

/// Removes what a snapshot could only place between two times, once a late result tells it: the result whose state the snapshot told
/// is here, or one that changed (`changed`) to the state that the snapshot told.
pub(super) fn supersede(connection: &Connection, result: &CheckResult, changed: bool) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "DELETE FROM transitions WHERE object = ?1 AND snapshot = 1 AND time >= ?2 AND coalesce(not_before, ?2) <= ?2
         AND (time = ?2 OR (?3 AND state = ?4 AND state_type = ?5))",
    )?;
    let (time, after) = (result.ended().as_millis(), &result.after);
    statement
        .execute(params![result.check.0, time, changed, after.state.as_str(), type_text(after.state_type)])
        .map(drop)
}
