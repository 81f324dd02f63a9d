//! The checks this slot owns: which is due, which is running, and each one's newest state. Decides when a check starts and what it
//! goes on from. Knows no run, no link and no clock: places on the master's axis come in. The surprise: a run that was missed is
//! skipped, never made up for, and a check whose question or grant changed disowns the execution that is still running.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shared::assignment::{AssignedCheck, Assignment, Carried};
use shared::check::Exit;
use shared::name::{CheckId, Grant, JournalIndex, Timeline};
use shared::schedule::{first_due, next_due};
use shared::snapshot::Said;
use shared::state::CheckState;
use shared::time::{Monotonic, Timestamp};

use crate::clock::MasterClock;
use crate::command::{KeptStates, ProbeId};
use crate::scheduler::daemons::{Daemons, asks_daemon};

/// Checks that run at the same time; further ones start late and are counted.
pub const IN_FLIGHT_MAX: usize = 1024;
/// Checks that are another's by now, of which the highest command applied is remembered; beyond, the oldest commands are forgotten. One
/// that is told again after that is applied again, and its second result has no effect on history.
const APPLIED_ELSEWHERE_MAX: usize = 1024;
/// A start later than this after its due time counts as late.
pub const LATE_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Duty {
    due: Timestamp,
    flight: Option<ProbeId>,
    /// The next execution answers this command.
    forced: Option<JournalIndex>,
}

/// A check that is being executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flight {
    /// Which.
    pub check: CheckId,
    /// Under which grant it was started.
    pub grant: Grant,
    /// When it was due.
    pub due: Monotonic,
    /// The command that it answers.
    pub command: Option<JournalIndex>,
}

/// What an execution will be good for when it ends.
#[derive(Debug)]
enum Flying {
    /// The check's next state.
    Due(Flight),
    /// The check has left this slot, or came back under another grant, with the state it had: history under the grant it was started
    /// under. Somebody was asked, and what they answer is not thrown away.
    Departed(Flight, Box<AssignedCheck>, CheckState),
    /// Nothing: the question is another by now. It still takes a place.
    Void,
}

/// An execution that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Which.
    pub flight: Flight,
    /// The check as it was asked.
    pub check: AssignedCheck,
    /// Its state before.
    pub before: CheckState,
    /// Whether it makes the check's next state; otherwise it is an observation and nothing more.
    pub current: bool,
}

/// Everything this slot has to check.
#[derive(Debug, Default)]
pub struct Roster {
    assignment: Assignment,
    timeline: Option<Timeline>,
    duties: BTreeMap<CheckId, Duty>,
    /// Places of all duties that wait for their time.
    queue: BTreeSet<(Timestamp, CheckId)>,
    flights: BTreeMap<ProbeId, Flying>,
    states: BTreeMap<CheckId, Carried>,
    /// What people read of the states that were made on this volume.
    said: BTreeMap<CheckId, Said>,
    /// The highest command to each check that was applied.
    applied: BTreeMap<CheckId, JournalIndex>,
    daemons: Daemons,
    running: bool,
    probes: u64,
    late: u64,
}

impl Roster {
    /// States that the volume remembers, of this timeline; they count for checks yet to be assigned.
    #[must_use]
    pub fn new(timeline: Timeline, kept: KeptStates) -> Self {
        Self {
            timeline: Some(timeline),
            states: kept.states,
            said: kept.said,
            applied: kept.applied,
            ..Self::default()
        }
    }

    /// The checks owned.
    #[must_use]
    pub fn assignment(&self) -> &Assignment {
        &self.assignment
    }

    /// Timeline of the checks owned.
    #[must_use]
    pub fn timeline(&self) -> Option<Timeline> {
        self.timeline
    }

    /// Newest state of each check.
    #[must_use]
    pub fn states(&self) -> &BTreeMap<CheckId, Carried> {
        &self.states
    }

    /// What people read of a state that was made on this volume.
    #[must_use]
    pub fn said(&self, id: CheckId) -> Option<&Said> {
        self.said.get(&id)
    }

    /// The highest command to a check that was applied.
    #[must_use]
    pub fn applied(&self, id: CheckId) -> Option<JournalIndex> {
        self.applied.get(&id).copied()
    }

    /// All of them, by check.
    #[must_use]
    pub fn all_applied(&self) -> &BTreeMap<CheckId, JournalIndex> {
        &self.applied
    }

    /// All of it, by check.
    #[must_use]
    pub fn all_said(&self) -> &BTreeMap<CheckId, Said> {
        &self.said
    }

    /// States of an earlier process: greater keys count. Gives the checks whose state is another now.
    pub fn merge(&mut self, other: &KeptStates) -> Vec<CheckId> {
        if self.timeline.is_some_and(|own| own != other.timeline) {
            return Vec::new();
        }
        let greater =
            |(id, other): &(&CheckId, &Carried)| self.states.get(id).is_none_or(|known| other.key > known.key);
        let greater: Vec<CheckId> = other.states.iter().filter(greater).map(|(id, _)| *id).collect();
        let (states, said) = (std::mem::take(&mut self.states), std::mem::take(&mut self.said));
        let applied = std::mem::take(&mut self.applied);
        let mut known = KeptStates { states, said, applied, ..KeptStates::default() };
        known.take_all(other);
        (self.states, self.said, self.applied) = (known.states, known.said, known.applied);
        greater
    }

    /// Takes a whole new assignment. Untouched checks keep phase, state and what is running.
    ///
    /// `first_check` is the first id given since the master's store was made or restored.
    pub fn assign(&mut self, now: Timestamp, timeline: Timeline, first_check: CheckId, assignment: Assignment) {
        if self.timeline != Some(timeline) {
            // Grants and keys of another timeline mean nothing here; ids from the first new one on may mean other objects.
            self.states.retain(|id, _| *id < first_check);
            self.said.retain(|id, _| *id < first_check);
            // Indexes of another timeline name other commands.
            self.applied.clear();
            self.duties.values_mut().for_each(|duty| duty.forced = None);
            self.states.values_mut().for_each(|known| known.key = Default::default());
            self.timeline = Some(timeline);
            self.assignment.checks.retain(|id, _| *id < first_check);
            // Whoever has such an id now is new here; what is executed under it must not hold its place.
            let others: Vec<CheckId> = self.duties.range(first_check..).map(|(id, _)| *id).collect();
            others.into_iter().for_each(|id| self.drop_duty(id));
            self.carry_over(&assignment);
        }
        let old = std::mem::replace(&mut self.assignment, assignment);
        let gone: Vec<CheckId> =
            self.duties.keys().filter(|id| !self.assignment.checks.contains_key(id)).copied().collect();
        for id in gone {
            self.depart(id, old.checks.get(&id));
            self.states.remove(&id);
            self.said.remove(&id);
            self.drop_duty(id);
        }
        self.forget_applied();
        self.daemons.assign(&self.assignment.checks);
        let ids: Vec<CheckId> = self.assignment.checks.keys().copied().collect();
        for id in ids {
            self.take(now, id, old.checks.get(&id));
        }
    }

    /// A check that has gone may come back while the master still waits for the answer of a command to it.
    fn forget_applied(&mut self) {
        let elsewhere = self.applied.iter().filter(|(id, _)| !self.assignment.checks.contains_key(id));
        let mut elsewhere: Vec<(JournalIndex, CheckId)> = elsewhere.map(|(id, index)| (*index, *id)).collect();
        let surplus = elsewhere.len().saturating_sub(APPLIED_ELSEWHERE_MAX);
        elsewhere.sort_unstable();
        for (_, id) in elsewhere.into_iter().take(surplus) {
            self.applied.remove(&id);
        }
    }

    /// What is executed goes on under the grants of another timeline where the question is the same: somebody was asked, and what they
    /// answer is not thrown away. Everything else that flies is good for nothing there.
    fn carry_over(&mut self, next: &Assignment) {
        for (id, check) in &mut self.assignment.checks {
            if let Some(next) = next.checks.get(id).filter(|next| next.check == check.check) {
                check.grant = next.grant;
            }
        }
        for flying in self.flights.values_mut() {
            let Flying::Due(flight) = flying else {
                *flying = Flying::Void;
                continue;
            };
            let own = self.assignment.checks.get(&flight.check);
            match own.filter(|own| next.checks.get(&flight.check).is_some_and(|next| next.check == own.check)) {
                Some(own) => (flight.grant, flight.command) = (own.grant, None),
                None => *flying = Flying::Void,
            }
        }
    }

    fn take(&mut self, now: Timestamp, id: CheckId, old: Option<&AssignedCheck>) {
        let regranted = old
            .zip(self.assignment.checks.get(&id))
            .is_some_and(|(old, new)| old.grant != new.grant && old.check == new.check);
        if regranted {
            self.depart(id, old);
        }
        let Some(check) = self.assignment.checks.get(&id) else { return };
        let is_new_here = old.is_none() && !self.states.contains_key(&id);
        if let Some(carried) = &check.carried
            && self.states.get(&id).is_none_or(|own| own.key <= carried.key)
        {
            self.states.insert(id, *carried);
            self.said.remove(&id);
        }
        let known = self.states.get(&id);
        let state = known.map_or_else(|| CheckState::pending(check.policy.max_attempts), |known| known.state);
        let interval = check.policy.interval(&state);
        let regular = if known.is_some() { next_due(id, interval, now) } else { first_due(id, interval, now) };
        let (due, disown) = match (old, self.duties.get(&id)) {
            (Some(old), Some(duty)) => {
                let soon = duty.due.max(now);
                let asked = old.check == check.check;
                let due = match (asked, old.policy == check.policy) {
                    (true, true) => duty.due,
                    (true, false) => regular,
                    (false, _) => first_due(id, interval, now).min(soon).min(regular),
                };
                (due, !asked || old.grant != check.grant)
            }
            // The daemon of a host that is new here is asked for itself before anything else is due.
            _ if is_new_here && asks_daemon(check) => (now.minus(Duration::from_millis(1)), false),
            _ => (regular, false),
        };
        if disown {
            self.disown(id);
        }
        self.place(id, due);
    }

    /// What is executed of this check is not its next state any more; it stays an observation under the old grant.
    fn depart(&mut self, id: CheckId, asked: Option<&AssignedCheck>) {
        let Some(asked) = asked else { return };
        if let Some(duty) = self.duties.get_mut(&id) {
            duty.forced = None;
        }
        let known = self.states.get(&id);
        let before = known.map_or_else(|| CheckState::pending(asked.policy.max_attempts), |known| known.state);
        if let Some(probe) = self.duties.get_mut(&id).and_then(|duty| duty.flight.take())
            && let Some(flying) = self.flights.get_mut(&probe)
            && let Flying::Due(flight) = flying
        {
            *flying = Flying::Departed(*flight, Box::new(asked.clone()), before);
        }
    }

    /// Whoever still executes this check does it for nothing.
    fn disown(&mut self, id: CheckId) {
        if let Some(probe) = self.duties.get_mut(&id).and_then(|duty| duty.flight.take())
            && let Some(flying) = self.flights.get_mut(&probe)
        {
            *flying = Flying::Void;
        }
    }

    fn drop_duty(&mut self, id: CheckId) {
        self.disown(id);
        if let Some(duty) = self.duties.remove(&id) {
            self.queue.remove(&(duty.due, id));
        }
    }

    fn place(&mut self, id: CheckId, due: Timestamp) {
        let duty = self.duties.entry(id).or_insert(Duty { due, flight: None, forced: None });
        self.queue.remove(&(duty.due, id));
        duty.due = due;
        if duty.flight.is_none() {
            self.queue.insert((due, id));
        }
    }

    /// Starts or stops starting checks. What was missed meanwhile is skipped.
    pub fn set_running(&mut self, now: Timestamp, running: bool) {
        if running && !self.running {
            let missed = self.queue.iter().take_while(|(due, _)| *due <= now).map(|(_, id)| *id);
            let missed: Vec<CheckId> = missed.filter(|id| !self.is_first_question(*id)).collect();
            for id in missed {
                self.place_next(id, now);
            }
        }
        self.running = running;
    }

    /// A daemon that was never asked for itself: that is not missed but still to come.
    fn is_first_question(&self, id: CheckId) -> bool {
        !self.states.contains_key(&id) && self.assignment.checks.get(&id).is_some_and(asks_daemon)
    }

    /// What is running are observations and nothing more: the slot was lost.
    pub fn depart_all(&mut self, now: Timestamp) {
        let flying: Vec<CheckId> =
            self.duties.iter().filter(|(_, duty)| duty.flight.is_some()).map(|(id, _)| *id).collect();
        self.duties.values_mut().for_each(|duty| duty.forced = None);
        for id in flying {
            let asked = self.assignment.checks.get(&id).cloned();
            self.depart(id, asked.as_ref());
            self.place_next(id, now);
        }
    }

    /// The axis was set: everything that waits is placed as if it had just been assigned.
    pub fn replan(&mut self, now: Timestamp) {
        let waiting: Vec<CheckId> =
            self.duties.iter().filter(|(_, duty)| duty.flight.is_none()).map(|(id, _)| *id).collect();
        for id in waiting {
            if self.duties.get(&id).is_some_and(|duty| duty.forced.is_some()) {
                self.place(id, now);
            } else if self.is_first_question(id) {
                self.place(id, now.minus(Duration::from_millis(1)));
            } else if self.states.contains_key(&id) {
                self.place_next(id, now);
            } else if let Some(check) = self.assignment.checks.get(&id) {
                let interval = Duration::from_millis(check.policy.check_interval_ms);
                self.place(id, first_due(id, interval, now));
            }
        }
    }

    fn place_next(&mut self, id: CheckId, now: Timestamp) {
        let Some(check) = self.assignment.checks.get(&id) else { return };
        if self.duties.get(&id).is_some_and(|duty| duty.forced.is_some()) {
            return self.place(id, now);
        }
        let interval = match self.states.get(&id) {
            Some(known) => check.policy.interval(&known.state),
            None => Duration::from_millis(check.policy.check_interval_ms),
        };
        self.place(id, next_due(id, interval, now));
    }

    /// When the next check is due, on the axis; `None` while none may start.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        let free = self.running && self.flights.len() < IN_FLIGHT_MAX;
        self.queue.first().filter(|_| free).map(|(due, _)| *due)
    }

    /// Starts the next check that is due.
    pub fn start_next(&mut self, now: Monotonic, clock: &MasterClock) -> Option<(ProbeId, AssignedCheck)> {
        let place = clock.axis(now);
        let due = self.next_due().filter(|due| *due <= place)?;
        let (_, id) = self.queue.pop_first()?;
        let check = self.assignment.checks.get(&id)?.clone();
        self.probes += 1;
        let probe = ProbeId(self.probes);
        self.late += u64::from(place.since(due) > LATE_AFTER);
        let command = self.duties.get_mut(&id).and_then(|duty| duty.forced.take());
        let flight = Flight { check: id, grant: check.grant, due: clock.moment(due), command };
        self.flights.insert(probe, Flying::Due(flight));
        if let Some(duty) = self.duties.get_mut(&id) {
            duty.flight = Some(probe);
        }
        Some((probe, check))
    }

    /// An execution has ended; `None` if it is good for nothing any more.
    pub fn end(&mut self, probe: ProbeId) -> Option<Ended> {
        match self.flights.remove(&probe)? {
            Flying::Void => None,
            Flying::Departed(flight, check, before) => Some(Ended { flight, check: *check, before, current: false }),
            Flying::Due(flight) => {
                let check = self.assignment.checks.get(&flight.check)?.clone();
                let known = self.states.get(&flight.check);
                let before = known.map_or_else(|| CheckState::pending(check.policy.max_attempts), |known| known.state);
                Some(Ended { flight, check, before, current: true })
            }
        }
    }

    /// The state after a current execution that [`Roster::end`] gave; the check gets its next place.
    ///
    /// Where more is known already, from a process of this slot that had a newer grant, the execution stays an observation.
    pub fn settle(&mut self, now: Timestamp, id: CheckId, after: Carried, said: Said) {
        if self.states.get(&id).is_none_or(|known| known.key < after.key) {
            self.states.insert(id, after);
            self.said.insert(id, said);
        }
        if let Some(duty) = self.duties.get_mut(&id) {
            duty.flight = None;
        }
        self.place_next(id, now);
    }

    /// The state after a result that no execution brought; what is running, if anything is, goes on from it.
    pub fn observe(&mut self, now: Timestamp, id: CheckId, after: Carried, said: Said, command: JournalIndex) {
        if self.states.get(&id).is_none_or(|known| known.key < after.key) {
            self.states.insert(id, after);
            self.said.insert(id, said);
        }
        self.apply_command(id, command);
        if self.duties.get(&id).is_some_and(|duty| duty.flight.is_none() && duty.forced.is_none()) {
            self.place_next(id, now);
        }
    }

    /// This command, and all before it, are applied.
    pub fn apply_command(&mut self, id: CheckId, command: JournalIndex) {
        let known = self.applied.entry(id).or_default();
        *known = command.max(*known);
    }

    /// The check is run as soon as it can be, at once or when what is running has ended, and answers this command and all before it.
    pub fn force(&mut self, now: Timestamp, id: CheckId, command: JournalIndex) {
        let Some(duty) = self.duties.get_mut(&id) else { return };
        let flying = duty.flight.and_then(|probe| self.flights.get(&probe));
        if matches!(flying, Some(Flying::Due(flight)) if flight.command.is_some_and(|asked| asked >= command)) {
            return;
        }
        duty.forced = Some(command.max(duty.forced.unwrap_or_default()));
        if duty.flight.is_none() && duty.due > now {
            self.place(id, now);
        }
    }

    /// What the outcome of a check says about its daemon: if it does not fit, the daemon is asked for itself before its time.
    pub fn hear(&mut self, now: Timestamp, check: &AssignedCheck, exit: &Exit) {
        let Some(question) = &check.check else { return };
        for (id, at) in self.daemons.doubted(now, question, exit, &self.states) {
            if self.duties.get(&id).is_some_and(|duty| duty.flight.is_none() && at < duty.due) {
                self.place(id, at);
                self.daemons.forwarded(id, at);
            }
        }
    }

    /// Executions that have not ended.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Checks that started late, since start.
    #[must_use]
    pub fn late(&self) -> u64 {
        self.late
    }
}
