//! Regions, slots and gaps as the interface shows them: what the configuration expects beside what is there. Reads one view; decides
//! nothing about the fleet. The surprise: a slot that is expected and never spoke is shown too, with nothing but its name.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::Value;
use shared::delivery::reason;
use shared::name::{Generation, InstanceId, JournalIndex, RegionName, RunId, Sequence, Slot, SlotNumber};
use shared::time::Timestamp;

use crate::api::Api;
use crate::api::error::ApiError;
use crate::api::list::{Fields, candidates, lines};
use crate::api::object::value;
use crate::api::parameter::{OF_LISTS, Parameters};
use crate::coordinator::clock::ClockState;
use crate::coordinator::{SlotLink, View};
use crate::entry::{IncidentKind, WriterGap};
use crate::status::attention::StepSeen;
use crate::status::{GapSeen, WriterGapSeen};

/// One slot, expected or seen. Counts of its own are from its last sign of life and `None` before the first.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ShownSlot {
    pub(crate) region: RegionName,
    pub(crate) slot: SlotNumber,
    /// The configuration asks for it.
    pub(crate) expected: bool,
    /// The process that has it is connected.
    pub(crate) connected: bool,
    /// It may own checks.
    pub(crate) present: bool,
    /// Who has taken it out of service, if an operator has.
    pub(crate) drained: Option<String>,
    /// Since when it is lost, if it is.
    pub(crate) lost: Option<Timestamp>,
    /// Silent for longer than its lease, or back and not settled yet.
    pub(crate) stale: bool,
    /// Since it was last silent for so long it has told all its newest states.
    settled: bool,
    remote: Option<String>,
    instance: Option<InstanceId>,
    software: Option<String>,
    since: Option<Timestamp>,
    pub(crate) silent_seconds: Option<u64>,
    applied_generation: Option<Generation>,
    pub(crate) checks: usize,
    pub(crate) hosts: usize,
    pub(crate) undelivered: Option<u64>,
    pub(crate) spool_bytes: Option<u64>,
    /// Of these, what was delivered and stays for its grace.
    pub(crate) kept_bytes: Option<u64>,
    /// Age of its newest durable result while it has undelivered ones, else 0.
    pub(crate) lag_seconds: Option<u64>,
    pub(crate) late: Option<u64>,
    /// The spool cannot be written: results are in its memory only.
    pub(crate) memory_only: Option<bool>,
    /// The spool holds all it may: the oldest results go.
    pub(crate) spool_full: Option<bool>,
    /// Results given up since the process began; gaps name them.
    pub(crate) given_up: Option<u64>,
    pub(crate) clock_offset_ms: Option<i64>,
    /// `OK`, `WARNING` or `CRITICAL`, by how far its clock is off.
    pub(crate) clock: Option<&'static str>,
    /// How far its due times still are from the master's time.
    clock_slew_ms: Option<i64>,
    /// The newest step of its clock.
    clock_step: Option<ShownStep>,
    pub(crate) results: u64,
    pub(crate) refused: u64,
    pub(crate) last_result: Option<Timestamp>,
    /// Further processes connected for the same slot.
    others: usize,
    /// Commands that it has not answered.
    pub(crate) commands_waiting: usize,
}

/// A clock that was set.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct ShownStep {
    at: Timestamp,
    by_ms: i64,
    index: JournalIndex,
}

impl ShownStep {
    pub(crate) fn of(seen: &StepSeen) -> Self {
        Self { at: seen.at, by_ms: seen.by_ms, index: seen.index }
    }
}

/// The slots a region's configuration asks for, and every slot that ever spoke, in order.
pub(crate) fn slots_of(view: &View, now: Timestamp) -> Vec<ShownSlot> {
    let status = &view.status;
    let mut named: BTreeMap<Slot, bool> = status.slots().keys().map(|slot| (slot.clone(), false)).collect();
    for (region, definition) in status.catalog.iter().flat_map(|catalog| &catalog.regions) {
        for number in (1..=definition.slots).filter_map(SlotNumber::new) {
            named.insert(Slot { region: region.clone(), number }, true);
        }
    }
    let attention = status.attention();
    let shown = named.iter().map(|(slot, expected)| {
        let state = status.slots().get(slot);
        let link = view.links.get(slot);
        let holder = state.and_then(|state| state.holder.as_ref());
        let heartbeat = link.and_then(|link| link.heartbeat.as_ref());
        let offset = link.filter(|_| heartbeat.is_some()).map(|link| link.offset_ms);
        let last_result = state.and_then(|state| state.last_result);
        let lag =
            |undelivered| if undelivered == 0 { 0 } else { last_result.map_or(0, |last| now.since(last).as_secs()) };
        ShownSlot {
            region: slot.region.clone(),
            slot: slot.number,
            expected: *expected,
            connected: link.is_some_and(|link| link.connected),
            present: state.is_some_and(|state| state.present),
            drained: attention.drained.get(slot).map(|ordered| ordered.author.clone()),
            lost: attention.incident(IncidentKind::SlotLost, Some(slot)).map(|open| open.since),
            stale: link.is_none_or(SlotLink::is_stale),
            settled: link.is_some_and(|link| link.settled),
            remote: link.and_then(|link| link.remote.clone()),
            instance: holder.map(|holder| holder.instance),
            software: holder.map(|holder| holder.software.clone()),
            since: holder.map(|holder| holder.at),
            silent_seconds: link.map(|link| link.silent.as_secs()),
            applied_generation: link.and_then(|link| link.applied),
            checks: status.owned(slot).len(),
            hosts: status.owned_hosts(slot),
            undelivered: heartbeat.map(|heartbeat| heartbeat.undelivered),
            spool_bytes: heartbeat.map(|heartbeat| heartbeat.spool_bytes),
            kept_bytes: heartbeat.and_then(|heartbeat| heartbeat.kept_bytes),
            lag_seconds: heartbeat.map(|heartbeat| lag(heartbeat.undelivered)),
            late: heartbeat.map(|heartbeat| heartbeat.late),
            memory_only: heartbeat.map(|heartbeat| heartbeat.memory_only),
            spool_full: heartbeat.map(|heartbeat| heartbeat.spool_full),
            given_up: heartbeat.map(|heartbeat| heartbeat.given_up),
            clock_offset_ms: offset,
            clock: offset.map(|offset| ClockState::of(offset).as_str()),
            clock_slew_ms: heartbeat.and_then(|heartbeat| heartbeat.slew_ms),
            clock_step: attention.steps.get(slot).map(ShownStep::of),
            results: state.map_or(0, |state| state.results),
            refused: state.map_or(0, |state| state.refused),
            last_result,
            others: link.map_or(0, |link| link.others),
            commands_waiting: status.waiting_count(Some(slot)),
        }
    });
    shown.collect()
}

struct SlotFields;

impl Fields for SlotFields {
    const NAMES: &'static [&'static str] = &[
        "region",
        "slot",
        "expected",
        "connected",
        "present",
        "drained",
        "lost",
        "stale",
        "settled",
        "remote",
        "instance",
        "software",
        "since",
        "applied_generation",
        "checks",
        "hosts",
        "undelivered",
        "spool_bytes",
        "kept_bytes",
        "lag_seconds",
        "late",
        "memory_only",
        "spool_full",
        "given_up",
        "clock_offset_ms",
        "clock",
        "clock_slew_ms",
        "results",
        "refused",
        "last_result",
        "silent_seconds",
        "others",
        "commands_waiting",
    ];
    const WORDS: &'static [&'static str] = &["region", "remote", "software"];
    const KEY: &'static [&'static str] = &["region", "slot"];
}

/// `GET /slots`
pub(crate) async fn slots(State(api): State<Arc<Api>>, parameters: Parameters) -> Result<Json<Value>, ApiError> {
    let known = parameters.known(&OF_LISTS)?;
    let view = api.view();
    let slots: Result<Vec<Value>, ApiError> = slots_of(&view, api.now()).iter().map(value).collect();
    lines::<SlotFields>(slots?, &known, "region", &view)
}

#[derive(Debug, Default, Serialize)]
struct ShownRegion {
    region: String,
    slots_expected: usize,
    slots_connected: usize,
    slots_missing: usize,
    slots_seen: usize,
    hosts: usize,
    services: usize,
    problems: usize,
    undelivered: u64,
    results: u64,
    failover_after_seconds: u64,
}

struct RegionFields;

impl Fields for RegionFields {
    const NAMES: &'static [&'static str] = &[
        "region",
        "slots_expected",
        "slots_connected",
        "slots_missing",
        "slots_seen",
        "hosts",
        "services",
        "problems",
        "undelivered",
        "results",
        "failover_after_seconds",
    ];
    const WORDS: &'static [&'static str] = &["region"];
    const KEY: &'static [&'static str] = &["region"];
}

fn regions_of(view: &View, now: Timestamp) -> Vec<ShownRegion> {
    let mut regions: BTreeMap<RegionName, ShownRegion> = BTreeMap::new();
    for (name, definition) in view.status.catalog.iter().flat_map(|catalog| &catalog.regions) {
        let shown = regions.entry(name.clone()).or_default();
        shown.failover_after_seconds = definition.failover_after_ms / 1000;
    }
    for slot in slots_of(view, now) {
        let shown = regions.entry(slot.region).or_default();
        shown.slots_expected += usize::from(slot.expected);
        shown.slots_connected += usize::from(slot.connected);
        shown.slots_missing += usize::from(slot.expected && !slot.connected);
        shown.slots_seen += usize::from(slot.last_result.is_some() || slot.silent_seconds.is_some());
        shown.undelivered += slot.undelivered.unwrap_or(0);
        shown.results += slot.results;
    }
    for candidate in candidates(view) {
        let Some(region) = crate::api::object::region(view, &candidate.object.name) else { continue };
        let shown = regions.entry(region.clone()).or_default();
        *(if candidate.object.name.is_host() { &mut shown.hosts } else { &mut shown.services }) += 1;
        shown.problems += usize::from(candidate.object.state.state.is_problem());
    }
    let named = regions.into_iter().map(|(name, shown)| ShownRegion { region: name.to_string(), ..shown });
    named.collect()
}

/// `GET /regions`
pub(crate) async fn regions(State(api): State<Arc<Api>>, parameters: Parameters) -> Result<Json<Value>, ApiError> {
    let known = parameters.known(&OF_LISTS)?;
    let view = api.view();
    let regions: Result<Vec<Value>, ApiError> = regions_of(&view, api.now()).iter().map(value).collect();
    lines::<RegionFields>(regions?, &known, "region", &view)
}

/// Results that will never come, or rows that a writer will never send.
#[derive(Debug, Serialize)]
pub(crate) struct ShownGap<'a> {
    index: JournalIndex,
    at: Timestamp,
    region: Option<&'a RegionName>,
    slot: Option<SlotNumber>,
    run: Option<RunId>,
    /// Whose gap it is, if it is a writer's: `first` and `last` are rows of the journal then.
    writer: Option<&'a str>,
    first: Sequence,
    last: Sequence,
    /// How many results; of a writer's gap nobody knows.
    lost: Option<u64>,
    /// Whether `lost` is the least, and nobody knows how many more.
    open_ended: bool,
    reason: &'a str,
    /// What the reason means, for people; none where its name says all.
    meaning: Option<&'static str>,
    explained: bool,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
}

impl<'a> ShownGap<'a> {
    pub(crate) fn of(index: JournalIndex, at: Timestamp, gap: &'a crate::entry::Gap) -> Self {
        let record = &gap.record;
        Self {
            index,
            at,
            region: Some(&gap.slot.region),
            slot: Some(gap.slot.number),
            run: Some(gap.run),
            writer: None,
            first: record.first,
            last: record.last,
            lost: Some(record.last.0.saturating_sub(record.first.0).saturating_add(1)),
            open_ended: record.lost().is_none(),
            reason: &record.reason,
            meaning: reason::meaning(&record.reason),
            explained: gap.explained,
            from: record.from,
            to: record.to,
        }
    }

    pub(crate) fn of_writer(index: JournalIndex, at: Timestamp, gap: &'a WriterGap) -> Self {
        Self {
            index,
            at,
            region: None,
            slot: None,
            run: None,
            writer: Some(&gap.writer),
            first: Sequence(gap.first.0),
            last: Sequence(gap.last.0),
            lost: None,
            open_ended: false,
            reason: &gap.reason,
            meaning: gap.meaning(),
            explained: true,
            from: None,
            to: None,
        }
    }
}

struct GapFields;

impl Fields for GapFields {
    const NAMES: &'static [&'static str] = &[
        "index",
        "at",
        "region",
        "slot",
        "run",
        "writer",
        "first",
        "last",
        "lost",
        "open_ended",
        "reason",
        "meaning",
        "explained",
        "from",
        "to",
    ];
    const WORDS: &'static [&'static str] = &["region", "writer", "reason"];
    const KEY: &'static [&'static str] = &["index", "run", "first"];
}

/// `GET /gaps`: the newest first. Those beyond the newest thousand are under events.
pub(crate) async fn gaps(State(api): State<Arc<Api>>, parameters: Parameters) -> Result<Json<Value>, ApiError> {
    let known = parameters.known(&OF_LISTS)?;
    let view = api.view();
    let gaps = view.status.gaps().iter().map(|GapSeen { index, at, gap }| value(&ShownGap::of(*index, *at, gap)));
    let writers = view.status.lineage().writer_gaps.iter();
    let writers = writers.map(|WriterGapSeen { index, at, gap }| value(&ShownGap::of_writer(*index, *at, gap)));
    let gaps: Result<Vec<Value>, ApiError> = gaps.chain(writers).collect();
    lines::<GapFields>(gaps?, &known, "-index", &view)
}
