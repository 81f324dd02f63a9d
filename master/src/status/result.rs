//! How results and told states become the newest known of their objects, and what a batch adds to its slot and run. Folds what was
//! judged; decides nothing. The surprise: a told state has neither performance data nor further lines; they come with its result.

use std::sync::Arc;

use shared::delivery::{self, BatchItem, Key};
use shared::name::{JournalIndex, RunCounter, Sequence, Slot};
use shared::result::CheckResult;
use shared::snapshot::StateTold;

use super::{GAPS_SHOWN, GapSeen, LastResult, Object, Run, Status};
use crate::entry::{Effect, Entry, Row};

impl Status {
    pub(super) fn fold_batch(&mut self, row: &Row, slot: &Slot, items: &[BatchItem]) {
        let mut accepted = 0;
        let mut refused = 0;
        for (verdict, item) in row.outcomes.verdicts.iter().zip(items) {
            accepted += u64::from(verdict.effect.is_logged());
            refused += u64::from(verdict.effect.refusal().is_some());
            let BatchItem::Result(sequence, result) = item else { continue };
            self.fold_command(row, slot, result, verdict.effect);
            if verdict.effect.is_current() {
                let counter = row.outcomes.moved.map_or(RunCounter(0), |moved| moved.counter);
                let key = Key { grant: result.grant, counter, sequence: *sequence };
                if let Some(object) = self.object_mut(result.check) {
                    fold_result(object, result, key, slot, row);
                }
            }
        }
        self.fold_gaps(row);
        let state = self.slot_mut(slot);
        state.results += accepted;
        state.refused += refused;
        if accepted > 0 {
            state.last_result = Some(row.at);
        }
        self.fold_moved(row, slot);
    }

    pub(super) fn fold_gaps(&mut self, row: &Row) {
        if row.outcomes.gaps.is_empty() {
            return;
        }
        let gaps = Arc::make_mut(&mut self.gaps);
        gaps.extend(row.outcomes.gaps.iter().map(|gap| GapSeen { index: row.index, at: row.at, gap: gap.clone() }));
        let surplus = gaps.len().saturating_sub(GAPS_SHOWN);
        gaps.drain(..surplus);
    }

    /// What a result says of the command that it names. Only who owns the check answers: what a former owner saw is history, and the
    /// next one is asked all the same.
    fn fold_command(&mut self, row: &Row, slot: &Slot, result: &CheckResult, effect: Effect) {
        let Some(index) = result.command.filter(|_| effect.refusal().is_none() && effect != Effect::Known) else {
            return;
        };
        let Entry::Batch(batch) = &row.entry else { return };
        let Ok((header, _)) = delivery::decode_header(&batch.bytes) else { return };
        if header.timeline != self.timeline {
            // An index of another timeline names another command.
            if effect.is_logged() {
                self.fold_bygone(header.timeline, result.check, index, row.at);
            }
            return;
        }
        if effect.is_logged() {
            self.fold_logged(result.check, index);
        }
        let owner = self.object(result.check).and_then(|object| object.owner.as_ref());
        if owner.is_some_and(|owner| owner.slot == *slot) {
            self.fold_answered(result.check, index);
        }
    }

    /// The command that a told state answers, if one waits: told by whoever owns the check.
    #[must_use]
    pub fn answers(&self, slot: &Slot, effect: Effect, told: &StateTold) -> Option<JournalIndex> {
        let index = told.command.filter(|_| effect.refusal().is_none())?;
        let owner = self.object(told.check)?.owner.as_ref()?;
        (owner.slot == *slot && owner.grant == told.key.grant && self.awaits(told.check, index)).then_some(index)
    }

    fn fold_moved(&mut self, row: &Row, slot: &Slot) {
        let state = self.slot_mut(slot);
        if let Some(moved) = row.outcomes.moved {
            let run = state.runs.entry(moved.run).or_insert(Run {
                counter: moved.counter,
                position: Sequence(0),
                drained: None,
                since: row.at,
                last: None,
            });
            run.last = Some(row.at);
            run.position = run.position.max(moved.position);
            // Who said that it was complete had a copy of it: on another volume it went on.
            run.drained = None;
        }
    }

    /// States only: nothing counts as a result, and no snapshot is judged to move a position.
    pub(super) fn fold_snapshot(&mut self, row: &Row, slot: &Slot) {
        let mut refused = 0;
        for (verdict, told) in row.outcomes.verdicts.iter().zip(row.states()) {
            refused += u64::from(verdict.effect.refusal().is_some());
            if let Some(index) = self.answers(slot, verdict.effect, &told) {
                self.fold_answered(told.check, index);
            }
            if verdict.effect == Effect::Current
                && let Some(object) = self.object_mut(told.check)
            {
                fold_state(object, told, slot, row);
            }
        }
        self.slot_mut(slot).refused += refused;
        self.fold_moved(row, slot);
    }
}

fn fold_state(object: &mut Object, told: StateTold, slot: &Slot, row: &Row) {
    let at = told.at().min(row.at);
    // A state that came with the grant, told for the command it names: what is known of it is more than its owner knows.
    if told.said.is_none() && object.state == told.state && object.last.is_some() {
        object.key = told.key;
        object.version = row.index;
        return;
    }
    object.state = told.state;
    object.key = told.key;
    object.seen.insert(told.state.state, at);
    let mut last = LastResult {
        scheduled: at,
        started: at,
        duration_us: 0,
        exit: None,
        passive: false,
        output: String::new(),
        long_output: String::new(),
        perfdata: String::new(),
        metrics: Vec::new(),
        authenticated: None,
        slot: slot.clone(),
        ended: at,
    };
    if let Some(said) = told.said {
        last = LastResult {
            scheduled: said.corrected(said.scheduled).min(at),
            started: said.started,
            duration_us: said.duration_us,
            exit: said.exit,
            passive: said.passive,
            output: said.output,
            authenticated: said.authenticated,
            ..last
        };
    }
    object.last = Some(last);
    object.version = row.index;
}

fn fold_result(object: &mut Object, result: &CheckResult, key: Key, slot: &Slot, row: &Row) {
    // Nothing ends after it is known: a clock that is ahead is not believed.
    let ended = result.ended().min(row.at);
    object.state = result.after;
    object.key = key;
    object.seen.insert(result.after.state, ended);
    object.last = Some(LastResult {
        scheduled: result.corrected(result.scheduled).min(ended),
        started: result.started,
        duration_us: result.duration_us,
        exit: result.exit.clone(),
        passive: result.passive,
        output: result.output.clone(),
        long_output: result.long_output.clone(),
        perfdata: result.perfdata.clone(),
        metrics: result.metrics.clone(),
        authenticated: result.authenticated,
        slot: slot.clone(),
        ended,
    });
    object.version = row.index;
}
