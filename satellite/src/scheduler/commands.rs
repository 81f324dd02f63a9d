//! Commands to the checks owned here: each is applied once and in the order of its index, and what it made names it. Decides when a
//! command is answered; a forced check is answered by an execution that began after it, and one execution answers all that wait for one.
//! The surprise: a command that is lost with the process is told again by the master, so nothing of what waits here is kept on disk,
//! only the highest index applied.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use shared::assignment::{AssignedCheck, Assignment, Carried};
use shared::check::{Exit, Outcome, State};
use shared::command::{COMMANDS_WAITING_MAX, Commanded, Passive, What};
use shared::defect::Defect;
use shared::delivery::Key;
use shared::name::{CheckId, JournalIndex, Timeline};
use shared::perfdata;
use shared::result::CheckResult;
use shared::snapshot::Said;
use shared::state::{CheckState, Confirmation, StateType};
use shared::time::Timestamp;

use super::Scheduler;
use crate::clock::Now;

/// Commands that wait for their turn, by check; of each check the first one is under way.
pub(super) type Waiting = BTreeMap<CheckId, VecDeque<Commanded>>;

/// Whether what waits for a check still means the same to whoever owns it now.
fn is_untouched(old: Option<&AssignedCheck>, new: Option<&AssignedCheck>) -> bool {
    old.zip(new).is_some_and(|(old, new)| old.grant == new.grant && old.check == new.check && old.policy == new.policy)
}

/// What a check is when nothing is wrong.
fn good(check: &AssignedCheck) -> State {
    if check.object.is_host() { State::Up } else { State::Ok }
}

/// The state after it was told to forget.
fn forgotten(check: &AssignedCheck, before: CheckState, at: Timestamp) -> CheckState {
    let good = good(check);
    CheckState {
        state: good,
        state_type: StateType::Hard,
        attempt: 1,
        max_attempts: check.policy.max_attempts,
        since: if before.state == good { before.since } else { at },
        hard_since: if before.hard == good { before.hard_since } else { at },
        hard: good,
        flapping: 0,
    }
}

fn outcome_of(passive: &Passive, at: Timestamp) -> Outcome {
    let text = perfdata::split_output(&passive.text);
    let metrics = perfdata::parse(&text.perfdata).metrics;
    let exit = Exit::Ran(i32::from(passive.state.number()));
    Outcome {
        long_output: text.long_output,
        perfdata: text.perfdata,
        metrics,
        ..Outcome::text(at, Duration::ZERO, exit, passive.state, text.output)
    }
}

impl Scheduler {
    /// The master told a command. One that waits already is not taken again; one that was applied is answered by the check's state, which
    /// names it: its result is on its way, or was lost on it.
    pub(super) fn handle_command(&mut self, now: Now, command: Commanded) {
        let id = command.check;
        if !self.holder || !self.roster.assignment().checks.contains_key(&id) {
            tracing::debug!(command = %command.index, check = %id, "a command to a check of somebody else");
            return;
        }
        let twice = self.defects.has(Defect::CommandTwice);
        if !twice && self.roster.applied(id).is_some_and(|applied| command.index <= applied) {
            self.owed.insert(id);
            return self.ask_for_states(vec![id]);
        }
        let full = self.waiting.values().map(VecDeque::len).sum::<usize>() >= COMMANDS_WAITING_MAX;
        let waiting = self.waiting.entry(id).or_default();
        if waiting.back().is_none_or(|last| command.index > last.index) {
            if full {
                tracing::warn!(command = %command.index, check = %id, "too many commands wait: this one must be told again");
            } else {
                waiting.push_back(command);
            }
        }
        self.go_on(now, id);
    }

    /// Answers the commands of a check up to the first one that an execution must answer.
    pub(super) fn go_on(&mut self, now: Now, id: CheckId) {
        while let Some(command) = self.waiting.get(&id).and_then(VecDeque::front).cloned() {
            let Some(check) = self.roster.assignment().checks.get(&id).cloned() else { break };
            match &command.what {
                What::CheckNow => {
                    let asked = self.waiting.get(&id).into_iter().flatten();
                    let last = asked.take_while(|other| other.what == What::CheckNow).last();
                    let last = last.map_or(command.index, |last| last.index);
                    return self.roster.force(self.clock.axis(now.monotonic), id, last);
                }
                What::Passive(passive) => {
                    let outcome = outcome_of(passive, command.at);
                    self.answer(now, &check, &command, outcome, None);
                }
                What::Reset => {
                    let good = good(&check);
                    let exit = Exit::Ran(i32::from(good.number()));
                    let text = "the state was reset".to_owned();
                    let outcome = Outcome::text(command.at, Duration::ZERO, exit, good, text);
                    let known = self.roster.states().get(&id);
                    let before = known.map_or_else(|| CheckState::pending(1), |known| known.state);
                    self.answer(now, &check, &command, outcome, Some(forgotten(&check, before, command.at)));
                }
            }
            self.answered(id, command.index);
        }
        self.waiting.retain(|_, waiting| !waiting.is_empty());
    }

    /// A result names this command: it need not wait any more.
    pub(super) fn answered(&mut self, id: CheckId, index: JournalIndex) {
        if let Some(waiting) = self.waiting.get_mut(&id) {
            waiting.retain(|waiting| waiting.index > index);
        }
    }

    /// Makes a result out of what was said from outside.
    fn answer(
        &mut self,
        now: Now,
        check: &AssignedCheck,
        command: &Commanded,
        outcome: Outcome,
        after: Option<CheckState>,
    ) {
        let known = self.roster.states().get(&check.id);
        let before = known.map_or_else(|| CheckState::pending(check.policy.max_attempts), |known| known.state);
        let observed = if check.object.is_host() { outcome.state.as_host() } else { outcome.state };
        let confirmation = Confirmation { max_attempts: check.policy.max_attempts };
        let result = CheckResult {
            check: check.id,
            grant: check.grant,
            scheduled: command.at,
            started: command.at,
            duration_us: 0,
            exit: Some(outcome.exit),
            passive: true,
            output: outcome.output,
            long_output: outcome.long_output,
            perfdata: outcome.perfdata,
            metrics: outcome.metrics,
            authenticated: None,
            after: after.unwrap_or_else(|| before.apply(observed, confirmation, command.at).0),
            command: Some(command.index),
            // The time was the master's from the beginning.
            offset_ms: Some(0),
        };
        let (counter, sequence) = self.outbox.next_place();
        let key = Key { grant: check.grant, counter, sequence };
        self.outbox.push(now.monotonic, &result);
        self.results += 1;
        let place = self.clock.axis(now.monotonic);
        let carried = Carried { state: result.after, key };
        self.roster.observe(place, check.id, carried, Said::of(&result), command.index);
        self.states_changed = true;
    }

    /// Another assignment is to run: what waits for a check that is not the same in it is told again by the master, and indexes of
    /// another timeline name other commands.
    pub(super) fn forget_commands(&mut self, timeline: Timeline, next: &Assignment) {
        if self.roster.timeline() != Some(timeline) {
            self.waiting.clear();
            self.owed.clear();
            return;
        }
        let old = self.roster.assignment();
        self.waiting.retain(|id, _| is_untouched(old.checks.get(id), next.checks.get(id)));
    }
}
