//! A batch or states from a slot → what is new, what it does to state, and what is refused. Judges only: reads the state, changes
//! nothing (`status` folds). Two guards: the run's position for log effect, the key for state effect. Knows no connection.

use std::collections::{BTreeMap, BTreeSet};

use shared::check::State;
use shared::defect::Defect;
use shared::delivery::{self, Admission, BatchError, BatchHeader, BatchItem, GapRecord, Key, reason};
use shared::message::RunPosition;
use shared::name::{CheckId, JournalIndex, RunCounter, Sequence, Slot};
use shared::result::CheckResult;
use shared::snapshot::StateTold;
use shared::state::CheckState;
use shared::time::Timestamp;

use crate::entry::{Change, Effect, Gap, Moved, Outcomes, Verdict};
use crate::status::{Object, Status};

/// What to do with a batch.
#[derive(Debug)]
pub enum Reception {
    /// All of it is known: acknowledge.
    Known(RunPosition),
    /// Journal it with these outcomes, then acknowledge.
    New(Box<Judged>),
    /// It cannot be understood at all; the link that brought it must close. Nothing is acknowledged.
    Refused(BatchError),
}

/// A batch and its outcomes.
#[derive(Debug)]
pub struct Judged {
    /// To be recorded.
    pub outcomes: Outcomes,
    /// The items, decoded once.
    pub items: Vec<BatchItem>,
    /// The acknowledgement that follows the commit.
    pub position: RunPosition,
}

/// Judges a batch that `slot` brought.
#[must_use]
pub fn judge(status: &Status, slot: &Slot, bytes: &[u8]) -> Reception {
    let (header, body) = match delivery::decode_header(bytes) {
        Ok(parts) => parts,
        Err(error) => {
            assert!(!status.defects.has(Defect::OddFramePanics), "{error}");
            return Reception::Refused(error);
        }
    };
    let run = status.slots().get(slot).and_then(|state| state.runs.get(&header.run));
    let mut known = run.map_or(Sequence(0), |run| run.position);
    if status.defects.has(Defect::DrainedIsDeaf) && run.is_some_and(|run| run.drained.is_some()) {
        return Reception::Known(RunPosition { run: header.run, position: header.last });
    }
    if status.defects.has(Defect::PositionIgnored) {
        known = Sequence(header.first.0.saturating_sub(1));
    }
    let (after, missing) = match delivery::admit(known, header.first, header.last) {
        Admission::Known => return Reception::Known(RunPosition { run: header.run, position: known }),
        Admission::New { after, missing } => (after, missing),
    };

    let mut outcomes = Outcomes {
        moved: Some(Moved { run: header.run, counter: header.counter, position: header.last }),
        ..Outcomes::default()
    };
    let mut gap = |first, last, why: &str, explained| {
        outcomes.gaps.push(Gap {
            slot: slot.clone(),
            run: header.run,
            record: GapRecord { first, last, reason: why.to_owned(), from: None, to: None },
            explained,
        });
    };
    if let Some((first, last)) = missing.filter(|_| !status.defects.has(Defect::GapForgotten)) {
        // What another timeline held of it is gone with that timeline.
        let restored = header.timeline != status.timeline;
        gap(first, last, if restored { reason::LOST_BY_RESTORE } else { reason::MISSING }, restored);
    }
    let items = match delivery::decode_items(&header, body) {
        Ok(items) => items,
        Err(error) => {
            // Refusing it would bring it back for ever. Its sequences are spent; that something is lost is said aloud.
            gap(Sequence(header.first.0.max(after.0 + 1)), header.last, &format!("unreadable: {error}"), false);
            Vec::new()
        }
    };
    judge_items(status, slot, &header, after, &items, &mut outcomes);
    Reception::New(Box::new(Judged {
        outcomes,
        items,
        position: RunPosition { run: header.run, position: header.last },
    }))
}

fn judge_items(
    status: &Status,
    slot: &Slot,
    header: &BatchHeader,
    after: Sequence,
    items: &[BatchItem],
    outcomes: &mut Outcomes,
) {
    let foreign = header.timeline != status.timeline;
    // Two results of one check in one batch: the second is judged against the first.
    let mut newest: BTreeMap<CheckId, (Key, CheckState)> = BTreeMap::new();
    let mut answered: BTreeSet<JournalIndex> = BTreeSet::new();
    for item in items {
        let verdict = match item {
            // What of it had come before it was given up is no loss.
            BatchItem::Gap(record) => match record.above(after) {
                None => Verdict { effect: Effect::Known, change: None },
                Some(record) => {
                    outcomes.gaps.push(Gap { slot: slot.clone(), run: header.run, record, explained: true });
                    Verdict { effect: Effect::Gap, change: None }
                }
            },
            BatchItem::Unreadable(sequence) | BatchItem::Result(sequence, _) if *sequence <= after => {
                Verdict { effect: Effect::Known, change: None }
            }
            BatchItem::Unreadable(_) => Verdict { effect: Effect::RefusedMalformed, change: None },
            BatchItem::Result(sequence, result) if foreign => {
                let twice = result.command.is_some_and(|command| answered.contains(&command));
                let effect = judge_foreign(status, slot, result, header, twice);
                answered.extend(result.command.filter(|_| effect.is_logged()));
                if effect == Effect::Lost {
                    name_lost(slot, header, *sequence, result, &mut outcomes.gaps);
                }
                Verdict { effect, change: None }
            }
            BatchItem::Result(sequence, result) => {
                let key = Key { grant: result.grant, counter: header.counter, sequence: *sequence };
                let twice = result.command.is_some_and(|command| answered.contains(&command));
                let verdict = judge_result(status, slot, key, result, newest.get(&result.check), twice);
                answered.extend(result.command.filter(|_| verdict.effect.is_logged()));
                if verdict.effect.is_current() {
                    newest.insert(result.check, (key, result.after));
                }
                verdict
            }
        };
        outcomes.verdicts.push(verdict);
    }
}

/// A result of another timeline. Ids from the first one of this timeline on may mean another object; below it, what a slot of the
/// check's region has seen is history and metrics. Its grant means nothing here, so it never makes a state: a key of the present
/// timeline beats any other.
fn judge_foreign(status: &Status, slot: &Slot, result: &CheckResult, header: &BatchHeader, twice: bool) -> Effect {
    if result.check >= status.first_check {
        return Effect::Lost;
    }
    let Some(object) = status.object(result.check) else { return Effect::RefusedUnknown };
    // Who owned it in the other timeline is lost with it; of which region it is, is not.
    let configured = status.catalog.as_ref().and_then(|catalog| catalog.objects.get(&object.name));
    let configured = configured.map(|definition| &definition.region);
    let owners = object.owner.iter().map(|owner| &owner.slot).chain(object.ended.iter().map(|ended| &ended.slot));
    let mut regions = configured.into_iter().chain(owners.map(|slot| &slot.region)).peekable();
    if regions.peek().is_some() && !regions.any(|region| *region == slot.region) {
        return Effect::RefusedForeign;
    }
    if !plausible(object, result, header.counter) {
        return Effect::RefusedMalformed;
    }
    let repeated = |command| {
        let known = twice || status.is_repeated_of(header.timeline, result.check, command);
        known && !status.defects.has(Defect::BygoneForgotten)
    };
    if result.command.is_some_and(repeated) { Effect::Repeated } else { Effect::Late }
}

/// Adds one lost result to the gaps: to the last one, if it ends right before.
fn name_lost(slot: &Slot, header: &BatchHeader, at: Sequence, result: &CheckResult, gaps: &mut Vec<Gap>) {
    let time = result.started;
    if let Some(last) = gaps.last_mut()
        && last.record.reason == reason::LOST_BY_RESTORE
        && last.record.last.0.saturating_add(1) == at.0
        && last.record.from.is_some()
    {
        last.record.last = at;
        last.record.from = last.record.from.map(|from| from.min(time));
        last.record.to = last.record.to.map(|to| to.max(time));
        return;
    }
    let record =
        GapRecord { first: at, last: at, reason: reason::LOST_BY_RESTORE.to_owned(), from: Some(time), to: Some(time) };
    gaps.push(Gap { slot: slot.clone(), run: header.run, record, explained: true });
}

fn judge_result(
    status: &Status,
    slot: &Slot,
    key: Key,
    result: &CheckResult,
    newest: Option<&(Key, CheckState)>,
    twice: bool,
) -> Verdict {
    let unchanged = |effect| Verdict { effect, change: None };
    let Some(object) = status.object(result.check) else { return unchanged(Effect::RefusedUnknown) };
    let owns = object.owner.as_ref().is_some_and(|owner| owner.slot == *slot && owner.grant == key.grant);
    let owned = owns || object.ended.iter().any(|ended| ended.slot == *slot && ended.grant == key.grant);
    if !owned && !status.defects.has(Defect::ForeignAccepted) {
        return unchanged(Effect::RefusedForeign);
    }
    if !plausible(object, result, key.counter) {
        return unchanged(Effect::RefusedMalformed);
    }
    let (known, before) = newest.map_or((object.key, object.state), |(key, state)| (*key, *state));
    let ended = !owns && !status.defects.has(Defect::EndedGrantApplies);
    let older = key <= known && !status.defects.has(Defect::LateKeyApplies);
    let late = ended || older;
    let elsewhere = object.owner.as_ref().is_none_or(|owner| owner.slot != *slot);
    // Whoever owned the check before may have answered too: of one command history has one result.
    let repeated = result.command.is_some_and(|command| twice || status.is_repeated(result.check, command));
    let effect = match (late, repeated, elsewhere) {
        (true, true, _) => Effect::Repeated,
        (true, false, true) => Effect::Observed,
        (true, false, false) => Effect::Late,
        (false, true, _) => Effect::RepeatedCurrent,
        (false, false, _) => Effect::Current,
    };
    if late && !status.defects.has(Defect::LateChanges) {
        return unchanged(effect);
    }
    Verdict { effect, change: change(before, result.after, None) }
}

/// The change from one state to the next that is known, if people would call it one.
fn change(before: CheckState, after: CheckState, not_before: Option<Timestamp>) -> Option<Change> {
    let changed = before.state != after.state || before.state_type != after.state_type;
    changed.then_some(Change {
        from: before.state,
        from_type: before.state_type,
        to: after.state,
        to_type: after.state_type,
        hard: before.hard != after.hard,
        current: true,
        not_before,
    })
}

/// Judges states that the holder of `slot` told: only who owns a check under the living grant decides, and only what is newer counts.
#[must_use]
pub fn judge_states<'a>(status: &Status, slot: &Slot, states: impl IntoIterator<Item = &'a StateTold>) -> Vec<Verdict> {
    let mut newest: BTreeMap<CheckId, (Key, CheckState)> = BTreeMap::new();
    let judged = states.into_iter().map(|told| {
        let verdict = judge_state(status, slot, told, newest.get(&told.check));
        if verdict.effect == Effect::Current {
            newest.insert(told.check, (told.key, told.state));
        }
        verdict
    });
    judged.collect()
}

fn judge_state(status: &Status, slot: &Slot, told: &StateTold, newest: Option<&(Key, CheckState)>) -> Verdict {
    let unchanged = |effect| Verdict { effect, change: None };
    let Some(object) = status.object(told.check) else { return unchanged(Effect::RefusedUnknown) };
    let owns = object.owner.as_ref().is_some_and(|owner| owner.slot == *slot && owner.grant == told.key.grant);
    let owned = object.ended.iter().any(|ended| ended.slot == *slot && ended.grant == told.key.grant);
    if !owns {
        // The grant may have ended while the state was on its way: its results are history then, and it is nothing.
        return unchanged(if owned { Effect::Late } else { Effect::RefusedForeign });
    }
    // A state made before the grant stands first under it; all others have the place of their result.
    let first = told.key.counter.0 == 0 && told.key.sequence.0 == 0;
    if !(first || told.key.counter.0 > 0) || !is_possible(object, told.state) {
        return unchanged(Effect::RefusedMalformed);
    }
    let (known, before) = newest.map_or((object.key, object.state), |(key, state)| (*key, *state));
    if told.key <= known {
        return unchanged(Effect::Late);
    }
    let not_before = object.last.as_ref().map(|last| last.ended);
    Verdict { effect: Effect::Current, change: change(before, told.state, not_before) }
}

/// Whether an owner can have said this: counter 0 is the master's.
fn plausible(object: &Object, result: &CheckResult, counter: RunCounter) -> bool {
    counter.0 > 0 && is_possible(object, result.after)
}

/// Whether an owner can have decided this: a host is UP or DOWN, a service is not, and nobody decides PENDING.
fn is_possible(object: &Object, state: CheckState) -> bool {
    let host = matches!(state.state, State::Up | State::Down);
    state.state != State::Pending && host == object.name.is_host() && state.max_attempts > 0
}
