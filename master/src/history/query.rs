//! Questions to history and their answers: a filter becomes SQL over its tables. Reads only. The surprise: the default order is by
//! the time something happened, so late results stand where they belong; only the order by record never changes under somebody who
//! pages through it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params_from_iter};
use serde::Serialize;
use shared::name::JournalIndex;
use shared::time::Timestamp;

use super::event::{self, Event, Kind, Source};
use super::table;

/// Events of one answer at most; a greater limit is this one.
pub const LIMIT_MAX: usize = 1000;
/// Events of one answer when nobody says.
pub const LIMIT: usize = 100;
/// A total is counted up to this number.
pub const TOTAL_MAX: u64 = 100_000;

/// Why a question cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// No kind is called so.
    #[error("there is no kind of event called “{0}”; there are {names}", names = Kind::ALL.map(Kind::as_str).join(", "))]
    Kind(String),
    /// No answer gave this cursor.
    #[error("“{0}” is no cursor: give the `next` of an earlier answer")]
    Cursor(String),
}

/// In which order events come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// By the time they happened, newest first.
    #[default]
    NewestFirst,
    /// By the time they happened, oldest first.
    OldestFirst,
    /// As they were recorded: paging meets each event once, whatever is added meanwhile.
    Recorded,
}

/// Where the next answer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    time: i64,
    id: i64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.time, self.id)
    }
}

impl FromStr for Cursor {
    type Err = QueryError;
    fn from_str(text: &str) -> Result<Self, QueryError> {
        let parsed = text.split_once('.').and_then(|(time, id)| Some((time.parse().ok()?, id.parse().ok()?)));
        let wrong = || QueryError::Cursor(text.chars().take(40).collect::<String>().escape_debug().to_string());
        parsed.map(|(time, id)| Cursor { time, id }).ok_or_else(wrong)
    }
}

impl Serialize for Cursor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What to look for. What is left out does not narrow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Kinds of events; empty: all.
    pub kinds: BTreeSet<Kind>,
    /// Events of this host and its services.
    pub host: Option<String>,
    /// Events of this service; with a host, of this one there. The empty name means hosts themselves.
    pub service: Option<String>,
    /// Not before.
    pub from: Option<Timestamp>,
    /// Before this.
    pub to: Option<Timestamp>,
    /// In which order.
    pub order: Order,
    /// Where an earlier answer ended.
    pub cursor: Option<Cursor>,
    /// Events at most; see [`LIMIT_MAX`].
    pub limit: usize,
}

impl Default for Query {
    fn default() -> Self {
        Self {
            kinds: BTreeSet::new(),
            host: None,
            service: None,
            from: None,
            to: None,
            order: Order::default(),
            cursor: None,
            limit: LIMIT,
        }
    }
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Page {
    /// The events.
    pub items: Vec<Event>,
    /// Events that the filter matches, counted up to [`TOTAL_MAX`].
    pub total: u64,
    /// There are more than counted.
    pub total_exceeded: bool,
    /// Where the next answer begins; `None`: this was the last one.
    pub next: Option<Cursor>,
    /// Index of the last row that history knows.
    pub reflected: JournalIndex,
}

/// Answers a question.
pub(super) fn ask(connection: &Connection, query: &Query) -> rusqlite::Result<Page> {
    // One snapshot for all statements.
    let reading = connection.unchecked_transaction()?;
    let limit = query.limit.clamp(1, LIMIT_MAX);
    let mut keys = keys(&reading, query, limit + 1)?;
    let more = keys.len() > limit;
    keys.truncate(limit);
    let meta = table::meta(&reading)?;
    let timeline = table::timeline_text(meta.timeline);
    let items =
        keys.iter().map(|key| event::read(&reading, key.source, key.id, &timeline)).collect::<Result<_, _>>()?;
    let next = keys.last().filter(|_| more).map(|key| Cursor { time: key.time, id: key.id });
    let total = total(&reading, query)?;
    Ok(Page { items, total: total.min(TOTAL_MAX), total_exceeded: total > TOTAL_MAX, next, reflected: meta.reflected })
}

/// Where an event lies, and its place in the order.
struct Place {
    time: i64,
    id: i64,
    source: Source,
}

/// The tables that can hold an answer.
fn sources(query: &Query) -> impl Iterator<Item = Source> {
    let about_object = query.host.is_some() || query.service.is_some();
    Source::ALL.into_iter().filter(move |source| {
        // A gap is about a slot, never about one object.
        let possible = !about_object || *source != Source::Gaps;
        possible && (query.kinds.is_empty() || query.kinds.iter().any(|kind| Source::of(*kind) == *source))
    })
}

/// The condition over one table, with its values.
fn condition(query: &Query, source: Source, cursor: Option<Cursor>) -> (String, Vec<Sql>) {
    let mut conditions = Vec::new();
    let mut values = Vec::new();
    let mut narrow = |condition: &str, more: Vec<Sql>| {
        conditions.push(condition.to_owned());
        values.extend(more);
    };
    let text = |text: &String| Sql::Text(text.clone());
    match (&query.host, query.service.as_ref()) {
        (None, None) => {}
        (Some(host), None) => narrow("object IN (SELECT id FROM objects WHERE host = ?)", vec![text(host)]),
        (Some(host), Some(service)) if service.is_empty() => {
            narrow("object IN (SELECT id FROM objects WHERE host = ? AND service IS NULL)", vec![text(host)]);
        }
        (Some(host), Some(service)) => {
            narrow("object IN (SELECT id FROM objects WHERE host = ? AND service = ?)", vec![text(host), text(service)])
        }
        (None, Some(service)) if service.is_empty() => {
            narrow("object IN (SELECT id FROM objects WHERE service IS NULL)", Vec::new());
        }
        (None, Some(service)) => {
            narrow("object IN (SELECT id FROM objects WHERE service = ?)", vec![text(service)]);
        }
    }
    if source == Source::Events && !query.kinds.is_empty() {
        let marks = vec!["?"; query.kinds.len()].join(", ");
        let kinds = query.kinds.iter().map(|kind| Sql::Text(kind.as_str().to_owned()));
        narrow(&format!("kind IN ({marks})"), kinds.collect());
    }
    if let Some(from) = query.from {
        narrow("time >= ?", vec![Sql::Integer(from.as_millis())]);
    }
    if let Some(to) = query.to {
        narrow("time < ?", vec![Sql::Integer(to.as_millis())]);
    }
    if let Some(Cursor { time, id }) = cursor {
        match query.order {
            Order::NewestFirst => narrow("(time, id) < (?, ?)", vec![Sql::Integer(time), Sql::Integer(id)]),
            Order::OldestFirst => narrow("(time, id) > (?, ?)", vec![Sql::Integer(time), Sql::Integer(id)]),
            Order::Recorded => narrow("id > ?", vec![Sql::Integer(id)]),
        }
    }
    if conditions.is_empty() {
        return (String::new(), values);
    }
    (format!("WHERE {}", conditions.join(" AND ")), values)
}

/// The places of one answer, in order.
fn keys(connection: &Connection, query: &Query, limit: usize) -> rusqlite::Result<Vec<Place>> {
    let order = match query.order {
        Order::NewestFirst => "time DESC, id DESC",
        Order::OldestFirst => "time, id",
        Order::Recorded => "id",
    };
    let mut parts = Vec::new();
    let mut values = Vec::new();
    for (number, source) in Source::ALL.into_iter().enumerate() {
        if !sources(query).any(|wanted| wanted == source) {
            continue;
        }
        let (condition, more) = condition(query, source, query.cursor);
        let table = source.table();
        parts.push(format!(
            "SELECT * FROM (SELECT time, id, {number} AS source FROM {table} {condition} ORDER BY {order} LIMIT {limit})"
        ));
        values.extend(more);
    }
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    let statement =
        format!("SELECT time, id, source FROM ({}) ORDER BY {order} LIMIT {limit}", parts.join(" UNION ALL "));
    let mut statement = connection.prepare_cached(&statement)?;
    let places = statement.query_map(params_from_iter(values), |row| {
        let number: i64 = row.get(2)?;
        let source = usize::try_from(number).ok().and_then(|number| Source::ALL.get(number)).copied();
        let source = source.ok_or(rusqlite::Error::IntegralValueOutOfRange(2, number))?;
        Ok(Place { time: row.get(0)?, id: row.get(1)?, source })
    })?;
    places.collect()
}

/// Events that the filter matches, counted up to one more than [`TOTAL_MAX`].
fn total(connection: &Connection, query: &Query) -> rusqlite::Result<u64> {
    let mut total = 0_u64;
    for source in sources(query) {
        let (condition, values) = condition(query, source, None);
        let left = (TOTAL_MAX + 1).saturating_sub(total);
        let table = source.table();
        let statement = format!("SELECT count(*) FROM (SELECT 1 FROM {table} {condition} LIMIT {left})");
        let count: i64 = connection.prepare(&statement)?.query_row(params_from_iter(values), |row| row.get(0))?;
        total = total.saturating_add(count.cast_unsigned());
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_read_back() {
        let cursor = Cursor { time: -5, id: 4096 * 12 + 7 };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for wrong in ["", "1", "1.", ".1", "1.2.3", "a.b", "1.99999999999999999999"] {
            assert!(wrong.parse::<Cursor>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_unknown_kind_is_answered_with_those_there_are() {
        let error = "results".parse::<Kind>().unwrap_err().to_string();
        assert!(error.contains("“results”") && error.contains("result, transition, gap"), "{error}");
        for kind in Kind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
    }
}
