//! Events of history as people and programs see them: their kinds, their fields, and how rows of the tables become them. Field names
//! are the API's. Knows no filter (`query`). The surprise: an event's id never changes and sorts as the journal does, but its time
//! may lie before that of events recorded earlier.

use std::str::FromStr;

use rusqlite::{Connection, Row};
use serde::Serialize;
use serde_json::{Map, Value};
use shared::delivery::reason;
use shared::name::{JournalIndex, RunId};
use shared::time::Timestamp;

use super::query::QueryError;
use super::table::IDS_PER_ROW;

/// Kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A result.
    Result,
    /// A state or state type changed.
    Transition,
    /// Results that will never come.
    Gap,
    /// A process took a slot.
    Claim,
    /// A process lost its slot to another.
    Fence,
    /// A slot is no longer asked to own anything, or is again.
    Presence,
    /// A revision became the running one.
    Activation,
    /// Checks changed hands.
    Grant,
    /// A result was refused.
    Refused,
    /// A run is delivered to its end.
    Drained,
    /// The store was made.
    Genesis,
    /// Rows of the journal could not be read into history.
    Damage,
    /// A problem of the fleet began or ended.
    Incident,
    /// An operator held back the moves of hosts, or let them go on.
    Moves,
    /// A wall clock was set.
    Clock,
    /// The store was put back from a backup.
    Restored,
    /// Numbers go on above those of another timeline.
    Continued,
    /// A writer was overrun.
    Overrun,
    /// Somebody asked something of the owner of a check.
    Command,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 19] = [
        Kind::Result,
        Kind::Transition,
        Kind::Gap,
        Kind::Claim,
        Kind::Fence,
        Kind::Presence,
        Kind::Activation,
        Kind::Grant,
        Kind::Refused,
        Kind::Drained,
        Kind::Genesis,
        Kind::Damage,
        Kind::Incident,
        Kind::Moves,
        Kind::Clock,
        Kind::Restored,
        Kind::Continued,
        Kind::Overrun,
        Kind::Command,
    ];

    /// Its stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Result => "result",
            Kind::Transition => "transition",
            Kind::Gap => "gap",
            Kind::Claim => "claim",
            Kind::Fence => "fence",
            Kind::Presence => "presence",
            Kind::Activation => "activation",
            Kind::Grant => "grant",
            Kind::Refused => "refused",
            Kind::Drained => "drained",
            Kind::Genesis => "genesis",
            Kind::Damage => "damage",
            Kind::Incident => "incident",
            Kind::Moves => "moves",
            Kind::Clock => "clock",
            Kind::Restored => "restored",
            Kind::Continued => "continued",
            Kind::Overrun => "overrun",
            Kind::Command => "command",
        }
    }
}

impl FromStr for Kind {
    type Err = QueryError;
    fn from_str(text: &str) -> Result<Self, QueryError> {
        let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == text);
        kind.ok_or_else(|| QueryError::Kind(text.chars().take(40).collect::<String>().escape_debug().to_string()))
    }
}

/// One event.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// `timeline-index-number`: unique for ever.
    pub id: String,
    /// Index of the journal's row.
    pub index: JournalIndex,
    /// What kind.
    pub kind: Kind,
    /// When it happened, in the master's time as well as it is known.
    pub time: Timestamp,
    /// When it became durable here.
    pub recorded: Timestamp,
    /// The host it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The service it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The slot it is about or came from, as `region/number`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<String>,
    /// What there is to say about its kind.
    #[serde(flatten)]
    pub detail: Detail,
}

/// What there is to say about one kind of event.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Detail {
    /// Of [`Kind::Result`].
    Result(Box<ResultDetail>),
    /// Of [`Kind::Transition`].
    Transition(TransitionDetail),
    /// Of [`Kind::Gap`].
    Gap(GapDetail),
    /// Of the others, by name.
    Other(Map<String, Value>),
}

/// A result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ResultDetail {
    /// State after it.
    pub state: String,
    /// SOFT or HARD.
    pub state_type: String,
    /// As operators count it.
    pub attempt: u32,
    /// Problems in a row that make a state hard.
    pub max_attempts: u32,
    /// First line.
    pub output: String,
    /// Further lines.
    pub long_output: String,
    /// Performance data as written.
    pub perfdata: String,
    /// When it was due, by the satellite's clock.
    pub scheduled: Timestamp,
    /// When it began, by the satellite's clock.
    pub started: Timestamp,
    /// What was added to the satellite's clock for the event's time, in milliseconds; `None`: it had not been measured.
    pub offset_ms: Option<i64>,
    /// How long it took.
    pub duration_us: u64,
    /// `ran`, `timed_out`, `signal`, `error`.
    pub exit: Option<String>,
    /// Raw status of what ran, or the signal.
    pub exit_status: Option<i32>,
    /// Class of the error.
    pub exit_error: Option<String>,
    /// Whether the peer proved who it is.
    pub authenticated: Option<bool>,
    /// Submitted from outside.
    pub passive: bool,
    /// Something newer was known already: history and metrics only.
    pub late: bool,
    /// Run of the satellite.
    pub run: RunId,
    /// Place in the run.
    pub sequence: u64,
    /// Under which grant.
    pub grant: u64,
}

/// A change of state.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TransitionDetail {
    /// State before.
    pub from_state: String,
    /// SOFT or HARD before.
    pub from_state_type: String,
    /// State after.
    pub state: String,
    /// SOFT or HARD after.
    pub state_type: String,
    /// As operators count it.
    pub attempt: u32,
    /// Problems in a row that make a state hard.
    pub max_attempts: u32,
    /// Whether the hard state changed.
    pub hard: bool,
    /// It became known when something newer was known already.
    pub late: bool,
    /// An owner told it when it was back: it came about at some moment up to `time`. The true moment replaces it when its result comes.
    pub snapshot: bool,
    /// Of one that a snapshot told: it came about after this, when the last result known before had ended.
    pub not_before: Option<Timestamp>,
    /// First line of the result that made it.
    pub output: String,
}

/// Results that will never come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GapDetail {
    /// Run of the satellite.
    pub run: RunId,
    /// First lost sequence.
    pub first: u64,
    /// Last lost sequence.
    pub last: u64,
    /// Whether more may be lost behind the last one, nobody knows how many.
    pub open_ended: bool,
    /// Stable name of the reason.
    pub reason: String,
    /// What the reason means, for people; none where its name says all.
    pub meaning: Option<&'static str>,
    /// Whether the satellite itself named it.
    pub explained: bool,
    /// Earliest time of a lost result.
    pub from: Option<Timestamp>,
    /// Latest time of a lost result.
    pub to: Option<Timestamp>,
}

/// The table an event lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Results,
    Transitions,
    Gaps,
    Events,
}

impl Source {
    pub(super) const ALL: [Source; 4] = [Source::Results, Source::Transitions, Source::Gaps, Source::Events];

    pub(super) fn of(kind: Kind) -> Self {
        match kind {
            Kind::Result => Source::Results,
            Kind::Transition => Source::Transitions,
            Kind::Gap => Source::Gaps,
            Kind::Claim
            | Kind::Fence
            | Kind::Presence
            | Kind::Activation
            | Kind::Grant
            | Kind::Refused
            | Kind::Drained
            | Kind::Genesis
            | Kind::Damage
            | Kind::Incident
            | Kind::Moves
            | Kind::Clock
            | Kind::Restored
            | Kind::Continued
            | Kind::Overrun
            | Kind::Command => Source::Events,
        }
    }

    /// The table's name.
    pub(super) fn table(self) -> &'static str {
        match self {
            Source::Results => "results",
            Source::Transitions => "transitions",
            Source::Gaps => "gaps",
            Source::Events => "events",
        }
    }

    fn select(self) -> &'static str {
        match self {
            Source::Results => {
                "SELECT time, at, host, service, slot, state, state_type, attempt, max_attempts, output, long_output, perfdata,
                 scheduled, started, duration_us, exit, exit_status, exit_error, authenticated, passive, late, run, sequence,
                 check_grant, offset_ms FROM results LEFT JOIN objects ON objects.id = object WHERE results.id = ?1"
            }
            Source::Transitions => {
                "SELECT time, at, host, service, slot, from_state, from_type, state, state_type, attempt, max_attempts, hard, late,
                 output, snapshot, not_before FROM transitions LEFT JOIN objects ON objects.id = object WHERE transitions.id = ?1"
            }
            Source::Gaps => {
                "SELECT time, at, NULL, NULL, slot, run, first, last, reason, explained, lost_from, lost_to FROM gaps WHERE id = ?1"
            }
            Source::Events => {
                "SELECT time, at, host, service, slot, kind, detail FROM events LEFT JOIN objects ON objects.id = object
                 WHERE events.id = ?1"
            }
        }
    }
}

/// Reads one event.
pub(super) fn read(connection: &Connection, source: Source, id: i64, timeline: &str) -> rusqlite::Result<Event> {
    connection.prepare_cached(source.select())?.query_row([id], |row| {
        let (kind, detail) = match source {
            Source::Results => (Kind::Result, result(row)?),
            Source::Transitions => (Kind::Transition, transition(row)?),
            Source::Gaps => (Kind::Gap, gap(row)?),
            Source::Events => other(row)?,
        };
        let index = id.div_euclid(IDS_PER_ROW);
        Ok(Event {
            id: format!("{timeline}-{index}-{}", id.rem_euclid(IDS_PER_ROW)),
            index: JournalIndex(index.cast_unsigned()),
            kind,
            time: time(row, 0)?,
            recorded: time(row, 1)?,
            host: row.get(2)?,
            service: row.get(3)?,
            slot: row.get(4)?,
            detail,
        })
    })
}

fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    row.get(column).map(Timestamp::from_millis)
}

fn natural(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get(column).map(i64::cast_unsigned)
}

fn result(row: &Row<'_>) -> rusqlite::Result<Detail> {
    Ok(Detail::Result(Box::new(ResultDetail {
        state: row.get(5)?,
        state_type: row.get(6)?,
        attempt: row.get(7)?,
        max_attempts: row.get(8)?,
        output: row.get(9)?,
        long_output: row.get(10)?,
        perfdata: row.get(11)?,
        scheduled: time(row, 12)?,
        started: time(row, 13)?,
        offset_ms: row.get(24)?,
        duration_us: natural(row, 14)?,
        exit: row.get(15)?,
        exit_status: row.get(16)?,
        exit_error: row.get(17)?,
        authenticated: row.get(18)?,
        passive: row.get(19)?,
        late: row.get(20)?,
        run: RunId(row.get(21)?),
        sequence: natural(row, 22)?,
        grant: natural(row, 23)?,
    })))
}

fn transition(row: &Row<'_>) -> rusqlite::Result<Detail> {
    Ok(Detail::Transition(TransitionDetail {
        from_state: row.get(5)?,
        from_state_type: row.get(6)?,
        state: row.get(7)?,
        state_type: row.get(8)?,
        attempt: row.get(9)?,
        max_attempts: row.get(10)?,
        hard: row.get(11)?,
        late: row.get(12)?,
        output: row.get(13)?,
        snapshot: row.get(14)?,
        not_before: row.get::<_, Option<i64>>(15)?.map(Timestamp::from_millis),
    }))
}

fn gap(row: &Row<'_>) -> rusqlite::Result<Detail> {
    let reason: String = row.get(8)?;
    Ok(Detail::Gap(GapDetail {
        run: RunId(row.get(5)?),
        first: natural(row, 6)?,
        last: natural(row, 7)?,
        open_ended: reason::is_open_ended(&reason),
        meaning: reason::meaning(&reason),
        reason,
        explained: row.get(9)?,
        from: row.get::<_, Option<i64>>(10)?.map(Timestamp::from_millis),
        to: row.get::<_, Option<i64>>(11)?.map(Timestamp::from_millis),
    }))
}

fn other(row: &Row<'_>) -> rusqlite::Result<(Kind, Detail)> {
    let kind: String = row.get(5)?;
    let detail: String = row.get(6)?;
    let wrong = |column, error: Box<dyn std::error::Error + Send + Sync>| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error)
    };
    let kind = kind.parse().map_err(|error: QueryError| wrong(5, error.into()))?;
    let detail = serde_json::from_str(&detail).map_err(|error| wrong(6, error.into()))?;
    Ok((kind, Detail::Other(detail)))
}
