//! The satellite's brain: assignment, outcomes, messages and time in, orders out. Decides what is checked when, what state a result
//! makes, what is told to the master, and whether this process may check at all. Knows no clock, disk, socket or chance.
//! The surprise: nothing has happened until its answer came back as an input; see [`Command`].

mod commands;
mod condition;
pub mod daemons;
mod heartbeat;
pub mod roster;
pub mod snapshot;
mod volume;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use shared::assignment::{AssignedCheck, Assignment, Carried, Difference};
use shared::check::{Exit, Outcome, State};
use shared::defect::{Defect, Defects};
use shared::delivery::Key;
use shared::frame::Lane;
use shared::message::{self, AssignmentBegin, Hello, PROTOCOL, ToMaster, ToSatellite, Welcome};
use shared::name::{CheckId, Generation, RunId, Sequence, Timeline};
use shared::result::CheckResult;
use shared::snapshot::Said;
use shared::state::Confirmation;
use shared::step::StepWatch;
use shared::time::{Monotonic, Timestamp};

use crate::clock::{MasterClock, Now};
use crate::command::{Adopted, Beginning, Command, Identity, Kept, KeptStates, ProbeId, Room, Seen};
use crate::outbox::Outbox;
pub use condition::Status;
use roster::{Ended, Roster};
use snapshot::Telling;

/// A sign of life this often; the master's lease of 15 s outlasts two that are lost.
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(5);
/// Changed states go to disk this often; only what they contain is trimmed.
pub const STATES_EVERY: Duration = Duration::from_secs(10);
/// After a failed attempt to keep something the next one comes this much later.
pub const KEEP_RETRY_AFTER: Duration = Duration::from_secs(1);
/// Items of one series of assignment messages; a longer series is not applied.
pub const SERIES_ITEMS_MAX: usize = 200_000;

#[derive(Debug)]
struct Connection {
    hello_at: Monotonic,
    welcome: Option<(Timeline, CheckId)>,
    /// What both sides speak; the oldest protocol until the welcome says more.
    protocol: u8,
    heartbeat_due: Option<Monotonic>,
    pings: VecDeque<(Timestamp, Monotonic)>,
    series: Option<Series>,
    telling: Telling,
}

#[derive(Debug)]
struct Series {
    begin: AssignmentBegin,
    difference: Difference,
}

/// The brain.
#[derive(Debug)]
pub struct Scheduler {
    identity: Identity,
    clock: MasterClock,
    steps: StepWatch,
    roster: Roster,
    outbox: Outbox,
    seen: Seen,
    connection: Option<Connection>,
    /// The master has made this process the holder of the slot.
    holder: bool,
    fenced: bool,
    neighbour: bool,
    stopping: bool,
    /// The assignment must still go to disk, not before this.
    keep_due: Option<Monotonic>,
    keeping: Option<Generation>,
    /// Generation to be confirmed to the master once it is on disk.
    to_confirm: Option<Generation>,
    states_changed: bool,
    states_due: Monotonic,
    states_keeping: Option<BTreeMap<RunId, Sequence>>,
    adoptions: u64,
    results: u64,
    /// Answers that became no result, because their question was gone.
    void: u64,
    room: Room,
    /// Commands of operators that wait for their turn.
    waiting: commands::Waiting,
    /// Checks whose state is told to the master though it knows it, because it does not know that a command was applied.
    owed: BTreeSet<CheckId>,
    commands: VecDeque<Command>,
    defects: Defects,
}

impl Scheduler {
    /// With what was found on the volume.
    #[must_use]
    pub fn new(identity: Identity, beginning: Beginning, now: Now) -> Self {
        let Beginning { open, earlier, kept, states, neighbour } = beginning;
        let clock = MasterClock::new(now);
        let timeline = kept.as_ref().map_or(states.timeline, |kept| kept.timeline);
        let (adoptions, remembered) = (states.adoptions, states.runs.clone());
        let known = if states.timeline == timeline { states } else { KeptStates::default() };
        let mut roster = Roster::new(timeline, known);
        let mut outbox = Outbox::new(&open, &earlier);
        outbox.remember(&remembered);
        let mut seen = Seen::default();
        if let Some(kept) = kept {
            seen = kept.seen;
            outbox.set_origin(now.monotonic, timeline, kept.assignment.generation);
            roster.assign(clock.axis(now.monotonic), timeline, CheckId(0), kept.assignment);
        }
        let mut scheduler = Self {
            identity,
            clock,
            steps: StepWatch::default(),
            roster,
            outbox,
            seen,
            connection: None,
            holder: false,
            fenced: false,
            neighbour,
            stopping: false,
            keep_due: None,
            keeping: None,
            to_confirm: None,
            states_changed: true,
            states_due: now.monotonic,
            states_keeping: None,
            adoptions,
            results: 0,
            void: 0,
            room: Room::default(),
            waiting: commands::Waiting::new(),
            owed: BTreeSet::new(),
            commands: VecDeque::new(),
            defects: Defects::default(),
        };
        scheduler.update_running(now.monotonic);
        scheduler.advance(now);
        scheduler
    }

    /// The same with other windows than [`crate::outbox::WINDOW_BATCHES`]: such as a few results fill.
    #[must_use]
    pub fn with_window(mut self, batches: usize) -> Self {
        self.outbox.set_window(batches);
        self
    }

    /// The same with defects planted (see [`shared::defect`]); for the simulator alone.
    #[must_use]
    pub fn with_defects(mut self, defects: Defects) -> Self {
        self.defects = defects;
        self.outbox.set_defects(defects);
        self
    }

    fn may_run(&self) -> bool {
        !self.stopping && !self.fenced && (self.holder || !self.neighbour)
    }

    fn update_running(&mut self, now: Monotonic) {
        self.roster.set_running(self.clock.axis(now), self.may_run());
    }

    /// Replaces what this slot checks.
    pub fn handle_assignment(
        &mut self,
        now: Now,
        timeline: Timeline,
        first_check: CheckId,
        mut assignment: Assignment,
    ) {
        if self.defects.has(Defect::CarriedIgnored) {
            assignment.checks.values_mut().for_each(|check| check.carried = None);
        }
        self.seen.generation = self.seen.generation.max(assignment.generation);
        for check in assignment.checks.values() {
            self.seen.grant = self.seen.grant.max(check.grant);
            self.seen.check = self.seen.check.max(check.id);
        }
        self.outbox.set_origin(now.monotonic, timeline, assignment.generation);
        // What is on disk already need not go there again; the states that came with it are kept with the others.
        let old = self.roster.assignment();
        let known = self.roster.timeline() == Some(timeline)
            && old.generation == assignment.generation
            && old.difference(&assignment).is_empty();
        if known && self.keep_due.is_none() && self.keeping.is_none() {
            self.say(&[ToMaster::Applied(assignment.generation)]);
        } else {
            self.to_confirm = Some(assignment.generation);
            self.keep_due = Some(now.monotonic);
        }
        self.forget_commands(timeline, &assignment);
        self.roster.assign(self.clock.axis(now.monotonic), timeline, first_check, assignment);
        self.states_changed = true;
        self.advance(now);
    }

    /// An execution has ended.
    pub fn handle_outcome(&mut self, now: Now, probe: ProbeId, outcome: Outcome) {
        self.end_probe(now, probe, outcome);
        self.advance(now);
    }

    fn end_probe(&mut self, now: Now, probe: ProbeId, outcome: Outcome) {
        let Some(Ended { flight, check, before, current }) = self.roster.end(probe) else {
            self.void += 1;
            tracing::debug!(target: "perigee::void", probe = probe.0, "what an execution brought is no result: its question is gone");
            return;
        };
        let observed = if check.object.is_host() { outcome.state.as_host() } else { outcome.state };
        let confirmation = Confirmation { max_attempts: check.policy.max_attempts };
        // Times noted before the own clock was set stay as they were noted; what corrects them is the offset they were noted under.
        let set = self.clock_set_since(now, &outcome);
        let scheduled = now.wall.minus(now.monotonic.since(flight.due)).as_millis().saturating_sub(set);
        let mut result = CheckResult {
            check: flight.check,
            grant: flight.grant,
            scheduled: Timestamp::from_millis(scheduled),
            started: outcome.started,
            duration_us: u64::try_from(outcome.duration.as_micros()).unwrap_or(u64::MAX),
            exit: Some(outcome.exit),
            passive: false,
            output: outcome.output,
            long_output: outcome.long_output,
            perfdata: outcome.perfdata,
            metrics: outcome.metrics,
            authenticated: outcome.authenticated,
            after: before,
            // What is an observation and nothing more answers nobody: whoever owns the check now is asked too.
            command: flight.command.filter(|_| current),
            offset_ms: self.clock.offset_ms(now).map(|offset| offset.saturating_add(set)),
        };
        if self.defects.has(Defect::QuestionTold) {
            result.long_output = format!("{:?}", check.check);
        }
        result.after = before.apply(observed, confirmation, result.ended()).0;
        let (counter, sequence) = self.outbox.next_place();
        let key = Key { grant: flight.grant, counter, sequence };
        self.outbox.push(now.monotonic, &result);
        self.results += 1;
        if current {
            let place = self.clock.axis(now.monotonic);
            self.roster.settle(place, flight.check, Carried { state: result.after, key }, Said::of(&result));
            if let Some(exit) = &result.exit {
                self.roster.hear(place, &check, exit);
            }
            self.states_changed = true;
            if let Some(index) = flight.command {
                self.roster.apply_command(flight.check, index);
                self.answered(flight.check, index);
                self.go_on(now, flight.check);
            }
        }
    }

    /// See [`Command::Keep`].
    pub fn handle_kept(&mut self, now: Now) {
        if let Some(generation) = self.keeping.take()
            && self.to_confirm == Some(generation)
            && self.keep_due.is_none()
        {
            self.to_confirm = None;
            self.say(&[ToMaster::Applied(generation)]);
        }
        self.advance(now);
    }

    /// See [`Command::Keep`]. The assignment runs; it is confirmed when a later attempt succeeds.
    pub fn handle_keep_failed(&mut self, now: Now) {
        self.keeping = None;
        self.keep_due.get_or_insert(now.monotonic.plus(KEEP_RETRY_AFTER));
        self.advance(now);
    }

    /// See [`Command::KeepStates`].
    pub fn handle_states_kept(&mut self, now: Now) {
        if let Some(covered) = self.states_keeping.take() {
            self.outbox.handle_covered(now.monotonic, &covered);
        }
        self.advance(now);
    }

    /// See [`Command::KeepStates`].
    pub fn handle_states_failed(&mut self, now: Now) {
        self.states_keeping = None;
        self.states_changed = true;
        self.states_due = now.monotonic.plus(KEEP_RETRY_AFTER);
        self.advance(now);
    }

    /// What the volume's other directories hold: runs and states of processes that have ended, and whether one still lives.
    pub fn handle_neighbours(&mut self, now: Now, alive: bool, adopted: Option<Adopted>) {
        self.neighbour = alive;
        if let Some(Adopted { runs, states }) = adopted {
            self.adoptions = states.adoptions;
            self.outbox.handle_adopted(now.monotonic, &runs, &states.runs);
            let greater = self.roster.merge(&states);
            self.states_changed = true;
            // Before the first series of a connection all states are still to be looked at.
            if self.connection.as_ref().is_some_and(|connection| connection.telling.has_begun()) {
                self.ask_for_states(greater);
            }
        }
        self.update_running(now.monotonic);
        self.advance(now);
    }

    /// The master is there and is who it should be.
    pub fn handle_connected(&mut self, now: Now) {
        self.outbox.handle_disconnected();
        self.owed.clear();
        self.connection = Some(Connection {
            hello_at: now.monotonic,
            welcome: None,
            protocol: message::PROTOCOL_OLDEST,
            heartbeat_due: None,
            pings: VecDeque::new(),
            series: None,
            telling: Telling::default(),
        });
        let runs = self.outbox.introduce();
        let owns = self.roster.assignment().generation > Generation(0);
        self.say(&[ToMaster::Hello(Box::new(Hello {
            protocol: PROTOCOL,
            software: self.identity.software.clone(),
            instance: self.identity.instance,
            fenced: self.fenced,
            timeline: self.roster.timeline().filter(|_| owns),
            grant: self.seen.grant,
            generation: self.seen.generation,
            check: self.seen.check,
            runs,
            clock: now.wall,
            tells_states: true,
            credit: true,
        }))]);
        self.advance(now);
    }

    /// The connection is gone. Checking goes on.
    pub fn handle_disconnected(&mut self, now: Now) {
        self.connection = None;
        self.outbox.handle_disconnected();
        self.advance(now);
    }

    /// The master said something. Without a connection it said nothing.
    pub fn handle_message(&mut self, now: Now, message: ToSatellite) {
        let Some(connection) = &mut self.connection else { return };
        match message {
            ToSatellite::Welcome(welcome) => self.handle_welcome(now, &welcome),
            ToSatellite::AssignmentBegin(begin) => {
                connection.series = Some(Series { begin, difference: Difference::default() });
            }
            ToSatellite::AssignmentUpsert(check) => connection.upsert(*check),
            ToSatellite::AssignmentRemove(id) => connection.remove(id),
            ToSatellite::AssignmentEnd(generation) => self.handle_series_end(now, generation),
            ToSatellite::Ack(position) => self.outbox.handle_ack(now.monotonic, position),
            ToSatellite::Fence => self.fence(now),
            ToSatellite::ClockReply(reply) => {
                let at = connection.pings.iter().position(|(sent, _)| *sent == reply.sent);
                if let Some((_, asked)) = at.and_then(|at| connection.pings.remove(at)) {
                    let set = self.clock.handle_exchange(asked, now.monotonic, reply.master);
                    self.replan(now.monotonic, set);
                }
            }
            ToSatellite::CloseRun(run) => self.outbox.handle_close(now.monotonic, run),
            ToSatellite::StatesHeard => connection.telling.heard(),
            ToSatellite::Credit(credit) => self.outbox.handle_credit(now.monotonic, credit),
            ToSatellite::Command(command) => self.handle_command(now, *command),
        }
        self.advance(now);
    }

    fn handle_welcome(&mut self, now: Now, welcome: &Welcome) {
        let Some(connection) = &mut self.connection else { return };
        connection.welcome = Some((welcome.timeline, welcome.first_check));
        connection.heartbeat_due = Some(now.monotonic);
        connection.protocol = message::common(welcome.protocol).unwrap_or(message::PROTOCOL_OLDEST);
        self.clock.forget_samples();
        let set = self.clock.handle_exchange(connection.hello_at, now.monotonic, welcome.clock);
        self.replan(now.monotonic, set);
        if welcome.holder {
            self.holder = true;
            self.fenced = false;
            self.update_running(now.monotonic);
        } else {
            self.fence(now);
        }
        self.tell_steps(now);
        self.outbox.begin_credit(welcome.credit);
        self.outbox.begin_timeline(welcome.timeline);
        self.outbox.handle_welcome(now.monotonic, &welcome.positions);
    }

    /// The slot is another's. Its checks are no longer ours to run; what was made before is still delivered.
    fn fence(&mut self, now: Now) {
        self.fenced = true;
        self.holder = false;
        self.update_running(now.monotonic);
        self.waiting.clear();
        self.owed.clear();
        self.roster.depart_all(self.clock.axis(now.monotonic));
    }

    fn handle_series_end(&mut self, now: Now, generation: Generation) {
        let Some(connection) = &mut self.connection else { return };
        let (Some(series), Some((timeline, first_check))) = (connection.series.take(), connection.welcome) else {
            return;
        };
        let items = series.difference.upserts.len() + series.difference.removals.len();
        if series.begin.generation != generation || items >= SERIES_ITEMS_MAX {
            tracing::error!(%generation, items, "an assignment was not applied: its end does not fit its beginning");
            return;
        }
        let mut assignment = if series.begin.whole { Assignment::default() } else { self.roster.assignment().clone() };
        let asked: Vec<CheckId> = series.difference.upserts.iter().map(|check| check.id).collect();
        assignment.apply(series.difference, generation);
        self.handle_assignment(now, timeline, first_check, assignment);
        self.ask_for_states(asked);
    }

    /// The master's time is known: `master` is now. Due times follow slowly (see [`crate::clock`]).
    pub fn handle_clock(&mut self, now: Now, master: Timestamp) {
        let set = self.clock.handle_clock(now.monotonic, master);
        self.replan(now.monotonic, set);
        self.advance(now);
    }

    /// Before the first check the axis may be set, by hours where this machine's clock is wrong: what was planned by it is planned anew.
    fn replan(&mut self, now: Monotonic, set: bool) {
        if set {
            self.roster.replan(self.clock.axis(now));
        }
    }

    /// The process is to end: nothing new starts, what is running and waiting comes to its end.
    pub fn handle_shutdown(&mut self, now: Now) {
        self.stopping = true;
        self.update_running(now.monotonic);
        self.outbox.flush(now.monotonic);
        self.advance(now);
    }

    /// After [`Scheduler::handle_shutdown`]: whether there is nothing left to wait for.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let sending = self.connection.as_ref().is_some_and(|connection| connection.welcome.is_some());
        self.roster.in_flight() == 0
            && self.outbox.is_durable()
            && !self.states_changed
            && self.states_keeping.is_none()
            && (!sending || self.outbox.is_live_delivered())
    }

    /// A deadline has come; early or needless calls do no harm.
    pub fn handle_timeout(&mut self, now: Now) {
        self.outbox.handle_timeout(now.monotonic);
        self.advance(now);
    }

    /// The earliest moment at which [`Scheduler::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Monotonic> {
        let due = self.roster.next_due().map(|due| self.clock.moment(due));
        let keep = self.keep_due.filter(|_| self.keeping.is_none());
        let changed = self.states_changed || self.outbox.is_forgetful();
        let states = Some(self.states_due).filter(|_| changed && self.states_keeping.is_none());
        let heartbeat = self.connection.as_ref().and_then(|connection| connection.heartbeat_due);
        [due, keep, states, heartbeat, self.outbox.poll_timeout()].into_iter().flatten().min()
    }

    /// The next order.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front().or_else(|| self.outbox.poll_command())
    }

    fn say(&mut self, messages: &[ToMaster]) {
        if self.connection.is_some() {
            let payloads = message::encode(messages).into_iter().map(Bytes::from);
            self.commands.extend(payloads.map(|payload| Command::Send { lane: Lane::Control, payload }));
        }
    }

    fn advance(&mut self, now: Now) {
        if self.defects.has(Defect::WallClockDeadlines) {
            self.clock = MasterClock::new(now);
        }
        self.look_at_clock(now);
        self.start_due(now);
        self.keep(now);
        self.beat(now);
        self.tell_states();
    }

    fn start_due(&mut self, now: Now) {
        while let Some((probe, check)) = self.roster.start_next(now.monotonic, &self.clock) {
            self.clock.in_use();
            if check.check.is_some() {
                self.commands.push_back(Command::Probe { probe, check: Box::new(check) });
            } else {
                let text = format!(
                    "this satellite (version {}) does not know this kind of check; update it",
                    self.identity.software
                );
                let exit = Exit::Error("check-kind-unknown".to_owned());
                let outcome = Outcome::text(now.wall, Duration::ZERO, exit, State::Unknown, text);
                self.end_probe(now, probe, outcome);
            }
        }
    }

    fn keep(&mut self, now: Now) {
        if self.keeping.is_none()
            && self.keep_due.is_some_and(|due| due <= now.monotonic)
            && let Some(timeline) = self.roster.timeline()
        {
            self.keep_due = None;
            let assignment = self.roster.assignment().clone();
            self.keeping = Some(assignment.generation);
            self.commands.push_back(Command::Keep(Box::new(Kept {
                installation: self.identity.installation.clone(),
                slot: self.identity.slot.clone(),
                timeline,
                seen: self.seen,
                assignment,
            })));
        }
        let last = self.stopping && self.roster.in_flight() == 0 && self.outbox.is_durable();
        let due = self.states_due <= now.monotonic || last;
        let changed = self.states_changed || self.outbox.is_forgetful();
        if changed && self.states_keeping.is_none() && due {
            self.states_changed = false;
            self.states_due = now.monotonic.plus(STATES_EVERY);
            let covered = self.outbox.made();
            self.states_keeping = Some(covered.clone());
            self.commands.push_back(Command::KeepStates(Box::new(KeptStates {
                timeline: self.roster.timeline().unwrap_or_default(),
                states: self.roster.states().clone(),
                covered,
                adoptions: self.adoptions,
                said: self.roster.all_said().clone(),
                applied: self.roster.all_applied().clone(),
                runs: self.outbox.memory(now.monotonic),
            })));
        }
    }
}

impl Connection {
    fn upsert(&mut self, check: AssignedCheck) {
        if let Some(series) = self.series.as_mut().filter(|series| series.difference.upserts.len() < SERIES_ITEMS_MAX) {
            series.difference.upserts.push(check);
        }
    }

    fn remove(&mut self, id: CheckId) {
        if let Some(series) = self.series.as_mut().filter(|series| series.difference.removals.len() < SERIES_ITEMS_MAX)
        {
            series.difference.removals.push(id);
        }
    }
}

#[cfg(test)]
mod tests;
