//! Rows of the journal as server-sent events: what a row has to say to somebody who watches, and the bytes of it. Pure. Knows no
//! client. The surprise: only the last event of a row carries the id, so that a client cut in the middle of a row gets the whole row
//! again rather than half of it never.

use serde::Serialize;
use serde_json::{Value, json};
use shared::check::State;
use shared::delivery::BatchItem;
use shared::name::{JournalIndex, ObjectName, Slot};
use shared::state::StateType;

use crate::api::fleet::ShownGap;
use crate::api::object::Shown;
use crate::coordinator::View;
use crate::entry::{Effect, Entry, Incident, Row};

/// A state before a change.
#[derive(Debug, Serialize)]
struct From {
    state: State,
    state_type: StateType,
}

/// A change with the object it left.
#[derive(Debug, Serialize)]
struct Changed<'a> {
    #[serde(flatten)]
    object: Shown<'a>,
    from: From,
    hard: bool,
}

/// One event. JSON has no line feeds of its own, so one `data:` line holds it.
fn event(name: &str, data: &Value) -> String {
    format!("event: {name}\ndata: {data}\n")
}

/// Everything a row has to say; empty if nothing. `all`: results that changed nothing too.
pub(super) fn of_row(view: &View, row: &Row, all: bool) -> String {
    let events: Vec<String> = match &row.entry {
        Entry::Batch(_) => of_batch(view, row, all),
        Entry::Snapshot(_) => of_snapshot(view, row),
        Entry::Asked(asked) => {
            let name = view.status.object(asked.check).map(|object| &object.name);
            let data = json!({
                "index": row.index,
                "at": row.at,
                "host": name.map(|name| &name.host),
                "service": name.and_then(|name| name.service.as_ref()),
                "what": asked.what.as_str(),
                "author": asked.author,
            });
            vec![event("command", &data)]
        }
        Entry::Claim(claim) => {
            let mut data = of_slot(row, &claim.slot, "claim");
            add(
                &mut data,
                json!({ "instance": claim.instance, "remote": claim.remote, "software": claim.software, "fenced": row.outcomes.fenced }),
            );
            vec![event("slot", &data)]
        }
        Entry::Presence(presence) => {
            let mut data = of_slot(row, &presence.slot, "presence");
            let more = json!({ "present": presence.present, "reason": presence.reason, "drain": presence.drain, "author": presence.author });
            add(&mut data, more);
            vec![event("slot", &data)]
        }
        Entry::Incident(incident) => vec![event("incident", &of_incident(row, incident))],
        Entry::Moves(moves) => {
            let data = json!({ "index": row.index, "at": row.at, "held": moves.held, "author": moves.author });
            vec![event("moves", &data)]
        }
        Entry::ClockStep(step) => {
            let (region, slot) = step.slot.as_ref().map(|slot| (&slot.region, slot.number)).unzip();
            let data = json!({ "index": row.index, "at": row.at, "region": region, "slot": slot, "by_ms": step.by_ms, "noticed": step.at });
            vec![event("clock", &data)]
        }
        Entry::Activate(activate) => {
            let name = |object: &ObjectName| json!({ "host": object.host, "service": object.service });
            let removed = row.outcomes.removed.iter().filter_map(|id| view.status.object(*id));
            let data = json!({
                "index": row.index,
                "at": row.at,
                "generation": activate.generation,
                "digest": activate.digest,
                "author": activate.author,
                "added": row.outcomes.named.len(),
                "removed": removed.map(|object| name(&object.name)).collect::<Vec<_>>(),
            });
            vec![event("activation", &data)]
        }
        Entry::WriterGap(gap) => {
            let gaps = [ShownGap::of_writer(row.index, row.at, gap)];
            vec![event("gap", &json!({ "index": row.index, "at": row.at, "gaps": gaps }))]
        }
        Entry::Genesis(_) | Entry::Drained(_) | Entry::Restored(_) | Entry::Continued(_) => Vec::new(),
    };
    let Some((last, before)) = events.split_last() else { return String::new() };
    let mut text: String = before.iter().map(|event| format!("{event}\n")).collect();
    text.push_str(&format!("id: {}\n{last}\n", row.index));
    text
}

fn of_incident(row: &Row, incident: &Incident) -> Value {
    let (region, slot) = incident.slot.as_ref().map(|slot| (&slot.region, slot.number)).unzip();
    json!({
        "index": row.index, "at": row.at, "incident": incident.kind.as_str(), "region": region, "slot": slot,
        "open": incident.open, "reason": incident.reason, "slots": incident.slots, "checks": incident.checks,
        "moved": incident.moved, "author": incident.author, "opened": incident.opened,
    })
}

fn of_slot(row: &Row, slot: &Slot, what: &str) -> Value {
    json!({ "index": row.index, "at": row.at, "region": slot.region, "slot": slot.number, "what": what })
}

fn add(data: &mut Value, more: Value) {
    if let (Value::Object(data), Value::Object(more)) = (data, more) {
        data.extend(more);
    }
}

fn of_batch(view: &View, row: &Row, all: bool) -> Vec<String> {
    let items = row.items();
    let mut changes = Vec::new();
    let mut results = Vec::new();
    for (verdict, item) in row.outcomes.verdicts.iter().zip(&items) {
        let (true, BatchItem::Result(_, result)) = (verdict.effect.is_current(), item) else { continue };
        let Some(object) = view.status.object(result.check) else { continue };
        let shown = Shown::after(view, object, result, row.index);
        match verdict.change {
            Some(change) => {
                let from = From { state: change.from, state_type: change.from_type };
                changes.push(Changed { object: shown, from, hard: change.hard });
            }
            None if all => results.push(shown),
            None => {}
        }
    }
    let mut events = Vec::new();
    if !row.outcomes.gaps.is_empty() {
        let gaps: Vec<_> = row.outcomes.gaps.iter().map(|gap| ShownGap::of(row.index, row.at, gap)).collect();
        events.push(event("gap", &json!({ "index": row.index, "at": row.at, "gaps": gaps })));
    }
    if !results.is_empty() {
        events.push(event("results", &json!({ "index": row.index, "at": row.at, "results": results })));
    }
    if !changes.is_empty() {
        events.push(event("change", &json!({ "index": row.index, "at": row.at, "changes": changes })));
    }
    events
}

/// What states told by an owner that is back have changed; a client cannot know when between the two times it came about.
fn of_snapshot(view: &View, row: &Row) -> Vec<String> {
    let states = row.states();
    let told = row.outcomes.verdicts.iter().zip(&states);
    let changes: Vec<Changed> = told
        .filter_map(|(verdict, told)| {
            let change = verdict.change.filter(|_| verdict.effect == Effect::Current)?;
            let object = Shown::told(view, view.status.object(told.check)?, told, row.index);
            Some(Changed { object, from: From { state: change.from, state_type: change.from_type }, hard: change.hard })
        })
        .collect();
    if changes.is_empty() {
        return Vec::new();
    }
    vec![event("change", &json!({ "index": row.index, "at": row.at, "snapshot": true, "changes": changes }))]
}

/// A sign of life that also moves the client's place: an event without data is never dispatched, but its id is kept.
pub(super) fn position(index: JournalIndex) -> String {
    format!(": heartbeat\nid: {index}\n\n")
}

/// The client must read everything anew; the stream goes on behind `index`.
pub(super) fn resync(index: JournalIndex, reason: &str) -> String {
    format!("id: {index}\n{}\n", event("resync", &json!({ "index": index, "reason": reason })))
}

/// A slot's link has come or gone.
pub(super) fn link(slot: &Slot, connected: bool, stale: bool) -> String {
    let data = json!({ "region": slot.region, "slot": slot.number, "connected": connected, "stale": stale });
    format!("{}\n", event("link", &data))
}
