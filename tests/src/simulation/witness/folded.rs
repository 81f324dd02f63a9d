//! What every state must have been made of (docs/DESIGN.md, section 4): each answer folded by `shared::state` upon what its process had to
//! go on from, and all of it compared: attempt, since, hard since and flapping as well. Part of the witness's account; that a process
//! goes on from the right state is judged here, and that the master shows it.
//!
//! The surprise: what an undisturbed run would show is only known answer by answer. Where a crash took answers, or a check moved, the
//! next one goes on from the greatest key that its process was told or found, and from nothing else.

use std::collections::BTreeMap;

use master::entry::Effect;
use satellite::command::{Kept, KeptStates, SpooledBatch};
use shared::assignment::{AssignedCheck, Carried};
use shared::check::State;
use shared::command::{Commanded, What};
use shared::delivery::{BatchItem, Key, decode_header, decode_items};
use shared::name::{CheckId, Grant, InstanceId, JournalIndex, Sequence, Slot, Timeline};
use shared::result::CheckResult;
use shared::snapshot::StateTold;
use shared::state::{CheckState, Confirmation, StateType};
use shared::time::Timestamp;

use super::{Witness, serial};

/// What one process goes on from.
#[derive(Debug, Default)]
struct Known {
    timeline: Option<Timeline>,
    states: BTreeMap<CheckId, Carried>,
    /// Commands that it was told and has not applied, as far as one can see.
    waiting: BTreeMap<JournalIndex, Commanded>,
}

/// The account.
#[derive(Debug, Default)]
pub(super) struct Folded {
    knows: BTreeMap<InstanceId, Known>,
    /// By check, timeline and key. Two processes on copies of one volume may give one key twice.
    made: BTreeMap<(CheckId, Timeline, Key), Vec<CheckState>>,
    /// By number: answers that were observations to who took them. Who has only these goes on from them all the same.
    seen: BTreeMap<u64, Seen>,
    /// The key that each grant carried when it was told first: nobody who runs under it may know less.
    carried: BTreeMap<(CheckId, Grant), Option<Key>>,
    /// Each check as its owner was told of it last.
    checks: BTreeMap<CheckId, AssignedCheck>,
}

/// An answer that made no state of its process: the check had moved, or more was known already.
#[derive(Debug, Clone, Copy)]
struct Seen {
    check: CheckId,
    observed: State,
    confirmation: Confirmation,
    at: Timestamp,
}

/// An answer, or what came from outside, at the process that takes it.
#[derive(Debug)]
pub(in crate::simulation) struct Taken<'check> {
    /// As it is asked.
    pub(in crate::simulation) check: &'check AssignedCheck,
    /// What its process knew of the check before.
    pub(in crate::simulation) before: Option<Carried>,
    /// And afterwards.
    pub(in crate::simulation) after: Option<Carried>,
    /// Results that it made meanwhile.
    pub(in crate::simulation) results: u64,
}

fn observed(check: &AssignedCheck, state: State) -> State {
    if check.object.is_host() { state.as_host() } else { state }
}

fn confirmation(check: &AssignedCheck) -> Confirmation {
    Confirmation { max_attempts: check.policy.max_attempts }
}

/// What a command makes of a state; `None`: nothing, a daemon must be asked.
fn ordered(check: &AssignedCheck, before: CheckState, command: &Commanded) -> Option<CheckState> {
    match &command.what {
        What::CheckNow => None,
        What::Passive(passive) => Some(before.apply(observed(check, passive.state), confirmation(check), command.at).0),
        What::Reset => {
            let good = observed(check, State::Ok);
            Some(CheckState {
                state: good,
                state_type: StateType::Hard,
                attempt: 1,
                max_attempts: check.policy.max_attempts,
                since: if before.state == good { before.since } else { command.at },
                hard_since: if before.hard == good { before.hard_since } else { command.at },
                hard: good,
                flapping: 0,
            })
        }
    }
}

/// How so many of these commands may have made states one upon the other that end at `wanted`, and the index of the last of them. They
/// are applied in their order, and none is passed over but by an answer of a daemon: which were applied when is not always seen, for
/// others may end at the same state. Each way is given, that of the oldest first.
fn explained(
    check: &AssignedCheck,
    before: CheckState,
    commands: &[Commanded],
    count: u64,
    wanted: CheckState,
) -> Vec<(Vec<CheckState>, JournalIndex)> {
    let Ok(count) = usize::try_from(count) else { return Vec::new() };
    if count == 0 {
        return if before == wanted { vec![(Vec::new(), JournalIndex(0))] } else { Vec::new() };
    }
    let made = |together: &[Commanded]| {
        let mut states = Vec::new();
        let mut state = before;
        for command in together {
            state = ordered(check, state, command)?;
            states.push(state);
        }
        (state == wanted).then_some((states, together.last()?.index))
    };
    commands.windows(count).filter_map(made).collect()
}

impl Folded {
    fn is_made(&self, timeline: Timeline, check: CheckId, carried: &Carried) -> bool {
        self.made.get(&(check, timeline, carried.key)).is_some_and(|states| states.contains(&carried.state))
    }

    /// Every state that was made of a check.
    fn of(&self, check: CheckId) -> impl Iterator<Item = &CheckState> {
        let first = (check, Timeline(0), Key::default());
        self.made.range(first..).take_while(move |((other, ..), _)| *other == check).flat_map(|(_, states)| states)
    }

    /// What was seen goes on from a state that the check had at some time.
    fn is_seen(&self, result: &CheckResult) -> bool {
        let Some(seen) = serial(result).and_then(|number| self.seen.get(&number)) else { return false };
        let pending = CheckState::pending(seen.confirmation.max_attempts);
        let goes_on = |before: &CheckState| before.apply(seen.observed, seen.confirmation, seen.at).0 == result.after;
        seen.check == result.check && self.of(seen.check).chain([&pending]).any(goes_on)
    }

    fn make(&mut self, timeline: Timeline, check: CheckId, carried: Carried) {
        let states = self.made.entry((check, timeline, carried.key)).or_default();
        if !states.contains(&carried.state) {
            states.push(carried.state);
        }
    }
}

impl Witness {
    /// A process begins with what its volume has, or hears of another assignment, or adopts what another has left: it knows this from
    /// now on. Nothing but a state that somebody has made, and of each check the greatest.
    pub(in crate::simulation) fn knows(
        &mut self,
        id: InstanceId,
        timeline: Option<Timeline>,
        states: &BTreeMap<CheckId, Carried>,
    ) {
        let before = self.folded.knows.remove(&id).unwrap_or_default();
        let same = before.timeline == timeline;
        let mut wrong = Vec::new();
        for (check, now) in states {
            let was = before.states.get(check);
            // What was known under another timeline keeps its state and loses its place.
            let kept = was.is_some_and(|was| {
                was.state == now.state && (was.key == now.key || (!same && now.key == Key::default()))
            });
            if kept {
                continue;
            }
            if let Some(was) = was.filter(|was| same && now.key < was.key) {
                wrong.push(format!("{id} goes back from {was:?} to {now:?} of check {check}"));
            }
            let comparable = timeline == Some(self.timeline) && now.key != Key::default();
            if comparable && !self.folded.is_made(self.timeline, *check, now) {
                wrong.push(format!("{id} takes {now:?} for the state of check {check}, which nobody made"));
            }
        }
        let waiting = if same { before.waiting } else { BTreeMap::new() };
        self.folded.knows.insert(id, Known { timeline, states: states.clone(), waiting });
        for what in wrong {
            self.violated("I4", what);
        }
    }

    /// What a volume has for a new process: of each check the greatest of its states, its spools and the grants on it.
    pub(in crate::simulation) fn found_states(
        &mut self,
        id: InstanceId,
        kept: Option<&Kept>,
        states: &KeptStates,
        begins_with: &BTreeMap<CheckId, Carried>,
    ) {
        let timeline = kept.map_or(states.timeline, |kept| kept.timeline);
        let mut expected = if states.timeline == timeline { states.states.clone() } else { BTreeMap::new() };
        for check in kept.iter().flat_map(|kept| kept.assignment.checks.values()) {
            // Equal counters of different runs: what the grant carried wins.
            if let Some(carried) = check.carried
                && expected.get(&check.id).is_none_or(|own| own.key <= carried.key)
            {
                expected.insert(check.id, carried);
            }
        }
        if *begins_with != expected {
            self.violated("I4", format!("{id} begins with {begins_with:?}, its volume has {expected:?}"));
        }
        self.knows(id, Some(timeline), &expected);
    }

    /// A grant goes to its owner with the state to go on from.
    pub(super) fn carries(&mut self, slot: &Slot, check: &AssignedCheck) {
        self.folded.checks.insert(check.id, check.clone());
        let carried = check.carried.map(|carried| carried.key);
        self.folded.carried.entry((check.id, check.grant)).or_insert(carried);
        let Some(carried) = &check.carried else { return };
        if !self.folded.is_made(self.timeline, check.id, carried) {
            self.violated(
                "I4",
                format!("{slot} is given {carried:?} for the state of {}, which nobody made", check.object),
            );
        }
    }

    /// A daemon's answer has become the next state of a check, and perhaps commands that waited for it the ones after.
    pub(in crate::simulation) fn folds(
        &mut self,
        id: InstanceId,
        taken: &Taken<'_>,
        state: State,
        at: Timestamp,
        number: u64,
    ) {
        let check = taken.check;
        let first = taken.before.map_or_else(|| CheckState::pending(check.policy.max_attempts), |known| known.state);
        let Some(after) = taken.after.filter(|after| Some(after.key) != taken.before.map(|before| before.key)) else {
            let (observed, confirmation) = (observed(check, state), confirmation(check));
            self.folded.seen.insert(number, Seen { check: check.id, observed, confirmation, at });
            return;
        };
        self.goes_on(id, taken);
        let next = first.apply(observed(check, state), confirmation(check), at).0;
        let waiting = self.folded.knows.get(&id).map(|known| &known.waiting);
        let waiting: Vec<Commanded> =
            waiting.into_iter().flat_map(BTreeMap::values).filter(|waits| waits.check == check.id).cloned().collect();
        let ways = explained(check, next, &waiting, taken.results - 1, after.state);
        if ways.is_empty() {
            let what = format!("{id} makes {after:?} of answer {number} to {}, {next:?} would be right", check.object);
            self.violated("I4", what);
        }
        self.applied(id, check.id, ways.first().map_or(JournalIndex(0), |(_, last)| *last));
        for (later, _) in ways {
            self.follow(id, check.id, after, std::iter::once(next).chain(later).collect());
        }
    }

    /// A command became the next state of a check as soon as it was told; or it waits for its turn.
    pub(in crate::simulation) fn obeys(
        &mut self,
        id: InstanceId,
        command: &Commanded,
        before: Option<Carried>,
        after: Option<Carried>,
        results: u64,
    ) {
        let Some(after) = after.filter(|after| Some(after.key) != before.map(|before| before.key)) else {
            if let Some(known) = self.folded.knows.get_mut(&id) {
                known.waiting.insert(command.index, command.clone());
            }
            return;
        };
        let Some(check) = self.folded.checks.get(&command.check) else { return };
        let check = &AssignedCheck { grant: after.key.grant, ..check.clone() };
        let taken = &Taken { check, before, after: Some(after), results };
        self.goes_on(id, taken);
        let first = taken.before.map_or_else(|| CheckState::pending(check.policy.max_attempts), |known| known.state);
        let ways = explained(check, first, std::slice::from_ref(command), taken.results, after.state);
        if ways.is_empty() {
            let what = format!("{id} makes {after:?} of {} after {first:?} and {command:?}", check.object);
            self.violated("I4", what);
        }
        for (states, last) in ways {
            self.applied(id, check.id, last);
            self.follow(id, check.id, after, states);
        }
    }

    /// Batches go to a disk: what was only seen has a place in them, and whoever finds it there may go on from it.
    pub(in crate::simulation) fn spools(&mut self, batches: &[SpooledBatch]) {
        let batches = if self.folded.seen.is_empty() { &[] } else { batches };
        for batch in batches {
            let Ok((header, body)) = decode_header(&batch.bytes) else { continue };
            for item in decode_items(&header, body).unwrap_or_default() {
                if let BatchItem::Result(sequence, result) = item
                    && self.folded.is_seen(&result)
                {
                    let key = Key { grant: result.grant, counter: header.counter, sequence };
                    self.folded.make(header.timeline, result.check, Carried { state: result.after, key });
                }
            }
        }
    }

    /// What the next state is made upon is what the process had to know.
    fn goes_on(&mut self, id: InstanceId, taken: &Taken<'_>) {
        let check = taken.check;
        let known = self.folded.knows.get(&id);
        let expected = known.and_then(|known| known.states.get(&check.id)).copied();
        let ours = known.is_some_and(|known| known.timeline == Some(self.timeline));
        if taken.before != expected {
            let what =
                format!("{id} goes on from {:?} with {}, it has to know {expected:?}", taken.before, check.object);
            self.violated("I4", what);
        }
        let least = self.folded.carried.get(&(check.id, check.grant)).filter(|_| ours).copied().flatten();
        if least.is_some_and(|least| taken.before.is_none_or(|before| before.key < least)) {
            let what = format!(
                "{id} goes on from {:?} with {}, grant {} carried {least:?}",
                taken.before, check.object, check.grant
            );
            self.violated("I4", what);
        }
    }

    /// Commands to a check up to here wait no more.
    fn applied(&mut self, id: InstanceId, check: CheckId, last: JournalIndex) {
        if let Some(known) = self.folded.knows.get_mut(&id) {
            known.waiting.retain(|index, command| *index > last || command.check != check);
        }
    }

    /// These states were made one upon the other; the last of them is what the process knows now.
    fn follow(&mut self, id: InstanceId, check: CheckId, last: Carried, states: Vec<CheckState>) {
        let Some(known) = self.folded.knows.get_mut(&id) else { return };
        known.states.insert(check, last);
        let Some(timeline) = known.timeline else { return };
        for (behind, state) in (0..).zip(states.into_iter().rev()) {
            let sequence = Sequence(last.key.sequence.0.saturating_sub(behind));
            self.folded.make(timeline, check, Carried { state, key: Key { sequence, ..last.key } });
        }
    }

    /// A result came: it says what its answer made, and nothing else.
    pub(super) fn is_as_made(&mut self, slot: &Slot, key: Key, result: &CheckResult, effect: Effect) {
        let carried = Carried { state: result.after, key };
        let made = self.folded.made.contains_key(&(result.check, self.timeline, key));
        let right = self.folded.is_made(self.timeline, result.check, &carried);
        let decides = matches!(effect, Effect::Current | Effect::RepeatedCurrent);
        if (made || decides) && !right && !self.folded.is_seen(result) {
            let what = format!("{slot} tells {carried:?} of check {}, which nobody made", result.check);
            self.violated("I4", what);
        }
        if decides {
            self.folded.make(self.timeline, result.check, carried);
        }
    }

    /// A state was told, and decides: it is one that was made, if perhaps under an older grant or timeline.
    pub(super) fn is_told_as_made(&mut self, slot: &Slot, told: &StateTold) {
        let carried = Carried { state: told.state, key: told.key };
        let right = if told.key.counter.0 == 0 {
            self.folded.of(told.check).any(|state| *state == told.state)
        } else {
            self.folded.is_made(self.timeline, told.check, &carried)
        };
        if !right {
            self.violated("I4", format!("{slot} tells {carried:?} of check {}, which nobody made", told.check));
        }
        self.folded.make(self.timeline, told.check, carried);
    }

    /// A new timeline: what the master knows keeps its place, and whoever joins learns what grants carry anew.
    pub(super) fn begins_timeline(&mut self) {
        let newest: Vec<(CheckId, Carried)> =
            self.newest.iter().map(|(id, (key, state))| (*id, Carried { key: *key, state: *state })).collect();
        for (check, carried) in newest {
            self.folded.make(self.timeline, check, carried);
        }
        self.folded.carried.clear();
    }

    /// Long after the last fault: what is shown of a check is what its answers add up to.
    pub(super) fn adds_up(&mut self, check: CheckId, key: Key, state: CheckState) {
        if !self.folded.is_made(self.timeline, check, &Carried { state, key }) {
            self.violated(
                "I4",
                format!("check {check} is shown as {state:?} under {key:?}, its answers add up to another"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::assignment::Policy;

    fn check() -> AssignedCheck {
        AssignedCheck {
            id: CheckId(1),
            object: "h1!s1".parse().unwrap(),
            check: None,
            policy: Policy { check_interval_ms: 1, retry_interval_ms: 1, timeout_ms: 1, max_attempts: 3 },
            grant: Grant(5),
            carried: None,
        }
    }

    fn key(sequence: u64) -> Key {
        Key { grant: Grant(5), counter: shared::name::RunCounter(1), sequence: Sequence(sequence) }
    }

    fn taken(check: &AssignedCheck, before: Option<Carried>, after: Carried) -> Taken<'_> {
        Taken { check, before, after: Some(after), results: 1 }
    }

    /// One answer that is right, and a second one after which `change` is shown.
    fn second_answer(change: impl Fn(&mut CheckState)) -> usize {
        let (check, by) = (check(), InstanceId([1; 16]));
        let mut witness = Witness::default();
        witness.found_states(by, None, &KeptStates::default(), &BTreeMap::new());
        let mut before: Option<Carried> = None;
        for (sequence, state) in [(1, State::Ok), (2, State::Critical)] {
            let at = Timestamp::from_millis(1000 * i64::try_from(sequence).unwrap());
            let start = before.map_or_else(|| CheckState::pending(3), |known| known.state);
            let mut after = start.apply(state, Confirmation { max_attempts: 3 }, at).0;
            if sequence == 2 {
                change(&mut after);
            }
            let after = Carried { state: after, key: key(sequence) };
            witness.folds(by, &taken(&check, before, after), state, at, sequence);
            before = Some(after);
        }
        witness.violations().len()
    }

    #[test]
    fn every_field_of_a_state_is_compared() {
        assert_eq!(second_answer(|_| {}), 0);
        let fields: [fn(&mut CheckState); 7] = [
            |state| state.state = State::Warning,
            |state| state.state_type = StateType::Hard,
            |state| state.attempt += 1,
            |state| state.since = Timestamp::EPOCH,
            |state| state.hard_since = Timestamp::from_millis(7),
            |state| state.hard = State::Critical,
            |state| state.flapping ^= 2,
        ];
        for (number, field) in fields.into_iter().enumerate() {
            assert_eq!(second_answer(field), 1, "field {number}");
        }
    }

    #[test]
    fn who_forgets_what_its_grant_carried_is_noticed() {
        let mut witness = Witness::default();
        let by = InstanceId([1; 16]);
        let at = Timestamp::from_millis(1000);
        let state = CheckState::pending(3).apply(State::Critical, Confirmation { max_attempts: 3 }, at).0;
        let carried = Carried { state, key: key(9) };
        witness.folded.make(Timeline(0), CheckId(1), carried);
        let check = AssignedCheck { grant: Grant(6), carried: Some(carried), ..check() };
        witness.carries(&Slot { region: "r1".parse().unwrap(), number: "1".parse().unwrap() }, &check);
        witness.found_states(by, None, &KeptStates::default(), &BTreeMap::new());
        let next = Key { grant: Grant(6), counter: shared::name::RunCounter(2), sequence: Sequence(1) };
        let after = Carried { state, key: next };
        witness.folds(by, &taken(&check, None, after), State::Critical, at, 1);
        assert_eq!(witness.violations().len(), 1, "{:?}", witness.violations());
    }

    #[test]
    fn commands_that_waited_are_folded_behind_the_answer_they_waited_for() {
        let (check, at) = (check(), Timestamp::from_millis(1000));
        let command = |index, what| Commanded { index: JournalIndex(index), check: check.id, at, what };
        let reset = command(8, What::Reset);
        let waiting = [command(7, What::CheckNow), reset.clone()];
        let before = CheckState::pending(3).apply(State::Critical, Confirmation { max_attempts: 1 }, at).0;
        let wanted = ordered(&check, before, &reset).unwrap();
        assert_eq!(explained(&check, before, &waiting, 1, wanted), [(vec![wanted], reset.index)]);
        assert_eq!(explained(&check, before, &waiting, 1, before), []);
        assert_eq!(explained(&check, before, &waiting, 0, before), [(Vec::new(), JournalIndex(0))]);
    }

    #[test]
    fn commands_that_end_at_one_state_by_two_ways_are_given_both() {
        let (check, at) = (check(), Timestamp::from_millis(1000));
        let command = |index, what| Commanded { index: JournalIndex(index), check: check.id, at, what };
        let waiting = [7, 8].map(|index| command(index, What::Reset));
        let before = CheckState::pending(3).apply(State::Critical, Confirmation { max_attempts: 1 }, at).0;
        let reset = ordered(&check, before, &waiting[0]).unwrap();
        let ways = explained(&check, before, &waiting, 1, reset);
        assert_eq!(ways, [(vec![reset], JournalIndex(7)), (vec![reset], JournalIndex(8))]);
    }
}
