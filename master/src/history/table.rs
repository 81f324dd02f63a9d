//! The tables of history, and what one row of the journal adds to them. Everything a row adds goes into the transaction that also
//! moves the reflected index. Knows neither threads nor queries.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use serde_json::{Value, json};
use shared::check::Exit;
use shared::delivery::{BatchHeader, BatchItem, decode_header};
use shared::name::{CheckId, JournalIndex, ObjectName, Slot, Timeline};
use shared::result::CheckResult;
use shared::state::StateType;
use shared::time::Timestamp;

use crate::entry::{Effect, Entry, Row, Verdict};

use super::event::Kind;
use super::transition::{Changing, late_change, supersede};

/// Version of the tables; a file of another one is made anew from the journal.
const SCHEMA: i64 = 2;
/// The events of one row are numbered: results by their place in the batch, then gaps, transitions, the rest. Ids rise with the
/// journal.
pub(super) const IDS_PER_ROW: i64 = 4096;
const GAP_IDS: i64 = 1024;
pub(super) const TRANSITION_IDS: i64 = 2048;
const EVENT_IDS: i64 = 3072;
/// Pages are cached up to this many KiB.
const CACHE_KIB: i64 = 16 * 1024;

/// Tables and columns as they lie on disk. `time` is when it happened, in the master's time as well as it is known and never later than
/// `at`, when it became durable here; `scheduled` and `started` are by the satellite's own clock. All are milliseconds, UTC.
const TABLES: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE objects (id INTEGER PRIMARY KEY, host TEXT NOT NULL, service TEXT);
CREATE INDEX objects_name ON objects (host, service);
CREATE TABLE results (
    id INTEGER PRIMARY KEY, object INTEGER NOT NULL, time INTEGER NOT NULL, at INTEGER NOT NULL,
    scheduled INTEGER NOT NULL, started INTEGER NOT NULL, duration_us INTEGER NOT NULL,
    exit TEXT, exit_status INTEGER, exit_error TEXT,
    state TEXT NOT NULL, state_type TEXT NOT NULL, attempt INTEGER NOT NULL, max_attempts INTEGER NOT NULL,
    output TEXT NOT NULL, long_output TEXT NOT NULL, perfdata TEXT NOT NULL,
    authenticated INTEGER, passive INTEGER NOT NULL, late INTEGER NOT NULL,
    slot TEXT NOT NULL, run BLOB NOT NULL, sequence INTEGER NOT NULL, check_grant INTEGER NOT NULL, offset_ms INTEGER);
CREATE INDEX results_object ON results (object, time);
CREATE INDEX results_time ON results (time);
CREATE TABLE transitions (
    id INTEGER PRIMARY KEY, object INTEGER NOT NULL, time INTEGER NOT NULL, at INTEGER NOT NULL,
    from_state TEXT NOT NULL, from_type TEXT NOT NULL, state TEXT NOT NULL, state_type TEXT NOT NULL,
    attempt INTEGER NOT NULL, max_attempts INTEGER NOT NULL, hard INTEGER NOT NULL, late INTEGER NOT NULL,
    output TEXT NOT NULL, slot TEXT NOT NULL, snapshot INTEGER NOT NULL, not_before INTEGER);
CREATE INDEX transitions_object ON transitions (object, time);
CREATE INDEX transitions_time ON transitions (time);
CREATE TABLE gaps (
    id INTEGER PRIMARY KEY, time INTEGER NOT NULL, at INTEGER NOT NULL, slot TEXT NOT NULL, run BLOB NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, reason TEXT NOT NULL, explained INTEGER NOT NULL,
    lost_from INTEGER, lost_to INTEGER);
CREATE INDEX gaps_time ON gaps (time);
CREATE TABLE events (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, object INTEGER, time INTEGER NOT NULL, at INTEGER NOT NULL,
    slot TEXT, detail TEXT NOT NULL);
CREATE INDEX events_kind ON events (kind, time);
CREATE INDEX events_object ON events (object, time);
CREATE INDEX events_time ON events (time);
";

/// What the file says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Meta {
    /// Index of the last row in it.
    pub(super) reflected: JournalIndex,
    /// Timeline of the journal it was made from.
    pub(super) timeline: Timeline,
}

/// Opens the file for writing, making the tables when there are none. `None`: its tables are of another version.
pub(super) fn open(path: &Path) -> rusqlite::Result<Option<Connection>> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // A power loss may take the last transactions; the journal still has their rows (see `make_durable`).
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.set_prepared_statement_cache_capacity(32);
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match version {
        SCHEMA => {}
        0 => {
            connection.execute_batch(&format!("BEGIN IMMEDIATE; {TABLES} PRAGMA user_version = {SCHEMA}; COMMIT;"))?;
        }
        _ => return Ok(None),
    }
    Ok(Some(connection))
}

/// What the file says about itself.
pub(super) fn meta(connection: &Connection) -> rusqlite::Result<Meta> {
    Ok(Meta {
        reflected: JournalIndex(number(connection, "reflected")?.cast_unsigned()),
        timeline: Timeline(number(connection, "timeline")?.cast_unsigned()),
    })
}

/// A number of the file; 0 if it was never set.
pub(super) fn number(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    let mut statement = connection.prepare_cached("SELECT value FROM meta WHERE name = ?1")?;
    Ok(statement.query_row([name], |row| row.get(0)).optional()?.unwrap_or(0))
}

/// Sets a number of the file.
pub(super) fn set_number(connection: &Connection, name: &str, value: i64) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)")?;
    statement.execute(params![name, value]).map(drop)
}

/// What is known without the journal: the timeline, and names of checks whose naming rows may be trimmed.
pub(super) fn prepare(
    connection: &mut Connection,
    timeline: Timeline,
    names: &[(CheckId, ObjectName)],
) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    set_number(&transaction, "timeline", timeline.0.cast_signed())?;
    for (id, name) in names {
        name_object(&transaction, *id, name)?;
    }
    transaction.commit()
}

fn name_object(connection: &Connection, id: CheckId, name: &ObjectName) -> rusqlite::Result<()> {
    let mut statement =
        connection.prepare_cached("INSERT OR IGNORE INTO objects (id, host, service) VALUES (?1, ?2, ?3)")?;
    let service = name.service.as_ref().map(|service| service.as_str());
    statement.execute(params![id.0, name.host.as_str(), service]).map(drop)
}

/// Whether everything committed so far is safe against power loss: copies the write-ahead log into the file, which syncs both.
pub(super) fn make_durable(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        let (busy, log, copied): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(busy == 0 && log == copied)
    })
}

/// One transaction of applied rows.
pub(super) struct Writing<'a> {
    transaction: Transaction<'a>,
    results: i64,
}

/// Where an item of a batch came from.
#[derive(Clone, Copy)]
struct Origin<'a> {
    row: &'a Row,
    slot: &'a Slot,
    header: &'a BatchHeader,
}

impl<'a> Writing<'a> {
    /// Begins a transaction.
    pub(super) fn begin(connection: &'a mut Connection) -> rusqlite::Result<Self> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        Ok(Self { transaction, results: 0 })
    }

    /// Results added so far.
    pub(super) fn results(&self) -> i64 {
        self.results
    }

    /// Adds what one row says. Rows must come in order.
    pub(super) fn apply(&mut self, row: &Row) -> rusqlite::Result<()> {
        let mut events = Events { transaction: &self.transaction, row, next: EVENT_IDS };
        match &row.entry {
            Entry::Genesis(genesis) => {
                set_number(&self.transaction, "timeline", genesis.timeline.0.cast_signed())?;
                let detail =
                    json!({ "installation": genesis.installation, "timeline": timeline_text(genesis.timeline) });
                events.add(Kind::Genesis, None, None, &detail)?;
            }
            Entry::Activate(activate) => {
                for named in &row.outcomes.named {
                    name_object(&self.transaction, named.id, &named.object)?;
                }
                let detail = json!({
                    "generation": activate.generation, "digest": activate.digest, "author": activate.author,
                    "added": row.outcomes.named.len(), "removed": row.outcomes.removed.len(),
                });
                events.add(Kind::Activation, None, None, &detail)?;
            }
            Entry::Claim(claim) => {
                let detail = json!({ "instance": claim.instance, "remote": claim.remote, "software": claim.software });
                events.add(Kind::Claim, None, Some(&claim.slot), &detail)?;
                if let Some(fenced) = row.outcomes.fenced {
                    let detail = json!({ "instance": fenced, "by": claim.instance });
                    events.add(Kind::Fence, None, Some(&claim.slot), &detail)?;
                }
            }
            Entry::Presence(presence) => {
                let detail = json!({
                    "present": presence.present, "reason": presence.reason, "drain": presence.drain, "author": presence.author,
                });
                events.add(Kind::Presence, None, Some(&presence.slot), &detail)?;
            }
            Entry::Batch(batch) => {
                // One whose header does not decode was refused before it came into the journal.
                if let Ok((header, _)) = decode_header(&batch.bytes) {
                    let origin = Origin { row, slot: &batch.slot, header: &header };
                    for (place, (verdict, item)) in (0_i64..).zip(row.outcomes.verdicts.iter().zip(row.items())) {
                        if let Some(reason) = verdict.effect.refusal() {
                            events.refuse(origin, reason, &item)?;
                        } else if let BatchItem::Result(sequence, result) = &item
                            && (verdict.effect.is_logged() || verdict.effect.is_current())
                        {
                            log(&self.transaction, origin, place, sequence.0, result, verdict)?;
                            self.results += i64::from(verdict.effect.is_logged());
                        }
                    }
                }
            }
            Entry::Snapshot(snapshot) => {
                for (place, (verdict, told)) in (0_i64..).zip(row.outcomes.verdicts.iter().zip(row.states())) {
                    if let Some(reason) = verdict.effect.refusal() {
                        let detail = json!({ "reason": reason, "check": told.check, "snapshot": true });
                        events.add(Kind::Refused, Some(told.check), Some(&snapshot.slot), &detail)?;
                    } else if let (Effect::Current, Some(change)) = (verdict.effect, &verdict.change) {
                        let transition = Changing::of_state(row, &snapshot.slot, place, &told, change);
                        transition.add(&self.transaction)?;
                    }
                }
            }
            Entry::Asked(asked) => {
                let detail = json!({ "author": asked.author, "what": asked.what.as_str(), "command": row.index });
                events.add(Kind::Command, Some(asked.check), None, &detail)?;
            }
            Entry::Drained(drained) => {
                events.add(Kind::Drained, None, Some(&drained.slot), &json!({ "run": drained.run }))?;
            }
            Entry::Incident(incident) => {
                let detail = json!({
                    "incident": incident.kind.as_str(), "open": incident.open, "reason": incident.reason,
                    "slots": incident.slots, "checks": incident.checks, "moved": incident.moved,
                    "author": incident.author, "opened": incident.opened,
                });
                events.add(Kind::Incident, None, incident.slot.as_ref(), &detail)?;
            }
            Entry::Moves(moves) => {
                events.add(Kind::Moves, None, None, &json!({ "held": moves.held, "author": moves.author }))?;
            }
            Entry::ClockStep(step) => {
                let whose = if step.slot.is_some() { "satellite" } else { "master" };
                let detail = json!({
                    "whose": whose, "by_ms": step.by_ms, "noticed": step.at, "number": step.number,
                    "instance": step.instance,
                });
                events.add(Kind::Clock, None, step.slot.as_ref(), &detail)?;
            }
            Entry::Restored(restored) => {
                set_number(&self.transaction, "timeline", restored.timeline.0.cast_signed())?;
                let detail = json!({
                    "timeline": timeline_text(restored.timeline), "from": timeline_text(restored.from),
                    "head": restored.head, "head_at": restored.head_at, "first_check": restored.first_check,
                    "given_up": restored.given_up.len(),
                });
                events.add(Kind::Restored, None, None, &detail)?;
                for given_up in &restored.given_up {
                    let detail = json!({ "command": given_up.command, "given_up": "restore" });
                    events.add(Kind::Command, Some(given_up.check), None, &detail)?;
                }
            }
            Entry::Continued(continued) => {
                let detail = json!({
                    "timeline": timeline_text(continued.timeline), "after": continued.after, "above": continued.above,
                    "generation": continued.generation, "check": continued.check,
                });
                events.add(Kind::Continued, None, Some(&continued.slot), &detail)?;
            }
            Entry::WriterGap(gap) => {
                let detail = json!({
                    "writer": gap.writer, "lane": gap.lane, "first": gap.first, "last": gap.last, "reason": gap.reason,
                });
                events.add(Kind::Overrun, None, None, &detail)?;
            }
        }
        if !row.outcomes.granted.is_empty() {
            let granted = row.outcomes.granted.iter();
            let granted: Vec<_> =
                granted.map(|granted| json!({ "slot": granted.slot, "checks": granted.checks.len() })).collect();
            events.add(Kind::Grant, None, None, &json!({ "grant": row.grant(), "granted": granted }))?;
        }
        add_gaps(&self.transaction, row)?;
        set_number(&self.transaction, "reflected", signed(row.index.0))
    }

    /// Notes that the rows behind `after` and before `before` could not be read.
    pub(super) fn note_damage(
        &mut self,
        after: JournalIndex,
        before: JournalIndex,
        at: Timestamp,
        why: &str,
    ) -> rusqlite::Result<()> {
        let detail = json!({ "after": after, "before": before, "reason": why });
        let mut statement = self
            .transaction
            .prepare_cached("INSERT OR REPLACE INTO events (id, kind, time, at, detail) VALUES (?1, ?2, ?3, ?3, ?4)")?;
        // Past every event of the row before the hole.
        let id = event_id(after, IDS_PER_ROW - 1);
        statement.execute(params![id, Kind::Damage.as_str(), at.as_millis(), detail.to_string()])?;
        set_number(&self.transaction, "reflected", signed(before.0.saturating_sub(1)))
    }

    /// Ends the transaction: all of it is there, or nothing.
    pub(super) fn commit(self) -> rusqlite::Result<()> {
        let count = number(&self.transaction, "results")?.saturating_add(self.results);
        set_number(&self.transaction, "results", count)?;
        self.transaction.commit()
    }
}

/// The events of one row that have no table of their own.
struct Events<'a> {
    transaction: &'a Transaction<'a>,
    row: &'a Row,
    next: i64,
}

impl Events<'_> {
    fn add(
        &mut self,
        kind: Kind,
        object: Option<CheckId>,
        slot: Option<&Slot>,
        detail: &Value,
    ) -> rusqlite::Result<()> {
        let id = event_id(self.row.index, self.next);
        self.next += 1;
        let mut statement = self.transaction.prepare_cached(
            "INSERT INTO events (id, kind, object, time, at, slot, detail) VALUES (?1, ?2, ?3, ?4, ?4, ?5, ?6)",
        )?;
        let (object, slot) = (object.map(|check| check.0), slot.map(Slot::to_string));
        statement
            .execute(params![id, kind.as_str(), object, self.row.at.as_millis(), slot, detail.to_string()])
            .map(drop)
    }

    fn refuse(&mut self, origin: Origin<'_>, reason: &str, item: &BatchItem) -> rusqlite::Result<()> {
        let (check, sequence) = match item {
            BatchItem::Result(sequence, result) => (Some(result.check), *sequence),
            BatchItem::Unreadable(sequence) => (None, *sequence),
            BatchItem::Gap(gap) => (None, gap.first),
        };
        let detail = json!({ "reason": reason, "check": check, "run": origin.header.run, "sequence": sequence });
        self.add(Kind::Refused, check, Some(origin.slot), &detail)
    }
}

/// When a result ended: never after it became known, whatever a satellite's clock says.
fn ended(row: &Row, result: &CheckResult) -> Timestamp {
    result.ended().min(row.at)
}

/// Adds a result and the transition it made; of a second result of one command the transition alone.
fn log(
    transaction: &Transaction<'_>,
    origin: Origin<'_>,
    place: i64,
    sequence: u64,
    result: &CheckResult,
    verdict: &Verdict,
) -> rusqlite::Result<()> {
    let late = !verdict.effect.is_current();
    let told_late = verdict.effect == Effect::Late;
    let before = match verdict.change {
        Some(change) => Some((change.from.as_str().to_owned(), type_text(change.from_type).to_owned(), change.hard)),
        None if told_late => late_change(transaction, result)?,
        None => None,
    };
    if told_late {
        supersede(transaction, result, before.is_some())?;
    }
    if verdict.effect.is_logged() {
        add_result(transaction, origin, place, sequence, result, late)?;
    }
    let Some((from, from_type, hard)) = before else { return Ok(()) };
    Changing {
        id: event_id(origin.row.index, TRANSITION_IDS + place),
        object: result.check,
        time: ended(origin.row, result),
        at: origin.row.at,
        from: (from, from_type),
        after: &result.after,
        hard,
        late,
        output: &result.output,
        slot: origin.slot,
        told: None,
    }
    .add(transaction)
}

fn add_result(
    transaction: &Transaction<'_>,
    origin: Origin<'_>,
    place: i64,
    sequence: u64,
    result: &CheckResult,
    late: bool,
) -> rusqlite::Result<()> {
    let (exit, status, error) = match &result.exit {
        Some(Exit::Ran(status)) => (Some("ran"), Some(*status), None),
        Some(Exit::TimedOut) => (Some("timed_out"), None, None),
        Some(Exit::Signal(signal)) => (Some("signal"), Some(*signal), None),
        Some(Exit::Error(class)) => (Some("error"), None, Some(class.as_str())),
        None => (None, None, None),
    };
    let mut statement = transaction.prepare_cached(
        "INSERT INTO results (id, object, time, at, scheduled, started, duration_us, exit, exit_status, exit_error, state, state_type,
         attempt, max_attempts, output, long_output, perfdata, authenticated, passive, late, slot, run, sequence, check_grant,
         offset_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25)",
    )?;
    statement
        .execute(params![
            event_id(origin.row.index, place),
            result.check.0,
            ended(origin.row, result).as_millis(),
            origin.row.at.as_millis(),
            result.scheduled.as_millis(),
            result.started.as_millis(),
            signed(result.duration_us),
            exit,
            status,
            error,
            result.after.state.as_str(),
            type_text(result.after.state_type),
            result.after.shown_attempt(),
            result.after.max_attempts,
            result.output,
            result.long_output,
            result.perfdata,
            result.authenticated,
            result.passive,
            late,
            origin.slot.to_string(),
            origin.header.run.0,
            signed(sequence),
            signed(result.grant.0),
            result.offset_ms,
        ])
        .map(drop)
}

fn add_gaps(transaction: &Transaction<'_>, row: &Row) -> rusqlite::Result<()> {
    for (place, gap) in (GAP_IDS..TRANSITION_IDS).zip(&row.outcomes.gaps) {
        let mut statement = transaction.prepare_cached(
            "INSERT INTO gaps (id, time, at, slot, run, first, last, reason, explained, lost_from, lost_to)
             VALUES (?1, ?2, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?;
        statement.execute(params![
            event_id(row.index, place),
            row.at.as_millis(),
            gap.slot.to_string(),
            gap.run.0,
            signed(gap.record.first.0),
            signed(gap.record.last.0),
            gap.record.reason,
            gap.explained,
            gap.record.from.map(Timestamp::as_millis),
            gap.record.to.map(Timestamp::as_millis),
        ])?;
    }
    Ok(())
}

pub(super) fn event_id(index: JournalIndex, number: i64) -> i64 {
    signed(index.0).saturating_mul(IDS_PER_ROW).saturating_add(number)
}

/// A timeline as event ids show it.
pub(super) fn timeline_text(timeline: Timeline) -> String {
    format!("{:016x}", timeline.0)
}

pub(super) fn type_text(state_type: StateType) -> &'static str {
    match state_type {
        StateType::Soft => "SOFT",
        StateType::Hard => "HARD",
    }
}

/// SQLite's integers are signed; no count of ours comes near the bound.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
