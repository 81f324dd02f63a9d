//! What the brain says of itself to the master: signs of life, and that its machine's clock was set. Also what a clock that was set
//! means for results on their way. Decides nothing about checks.

use std::time::Duration;

use shared::check::Outcome;
use shared::message::{ClockStep, Heartbeat, ToMaster};
use shared::step::Step;
use shared::time::Timestamp;

use super::{HEARTBEAT_EVERY, Scheduler};
use crate::clock::Now;

/// Heartbeats whose answers may still come; the oldest is forgotten beyond.
const PINGS_MAX: usize = 4;
/// The protocol that has [`ToMaster::ClockStep`].
const STEPS_SINCE: u8 = 2;

impl Scheduler {
    pub(super) fn beat(&mut self, now: Now) {
        let Some(connection) = &mut self.connection else { return };
        if connection.heartbeat_due.is_none_or(|due| due > now.monotonic) {
            return;
        }
        connection.heartbeat_due = Some(now.monotonic.plus(HEARTBEAT_EVERY));
        if connection.pings.len() == PINGS_MAX {
            connection.pings.pop_front();
        }
        connection.pings.push_back((now.wall, now.monotonic));
        let heartbeat = Heartbeat {
            clock: now.wall,
            undelivered: self.outbox.undelivered(),
            spool_bytes: self.room.held,
            checks: u64::try_from(self.roster.assignment().checks.len()).unwrap_or(u64::MAX),
            late: self.roster.late(),
            results: self.results,
            memory_only: self.outbox.memory_only(),
            spool_full: self.outbox.is_full(),
            given_up: self.outbox.given_up(),
            kept_bytes: Some(self.outbox.kept_bytes()),
            offset_ms: self.clock.offset_ms(now),
            slew_ms: Some(self.clock.slew_ms(now.monotonic)),
        };
        self.say(&[ToMaster::Heartbeat(heartbeat)]);
        self.outbox.return_surplus();
    }

    /// Compares the two clocks of this process. A step moves no check; it is told, and from here on results carry another offset.
    pub(super) fn look_at_clock(&mut self, now: Now) {
        let Some(step) = self.steps.look(now.monotonic, now.wall) else { return };
        tracing::warn!(by_ms = step.by_ms, "this machine's wall clock was set; checks go on by the master's time");
        if self.connection.as_ref().is_some_and(|connection| connection.welcome.is_some()) {
            self.tell(now, &[step]);
        }
    }

    /// Tells every step that is remembered: the master knows by their numbers which are new to it.
    pub(super) fn tell_steps(&mut self, now: Now) {
        let steps: Vec<Step> = self.steps.steps().copied().collect();
        self.tell(now, &steps);
    }

    fn tell(&mut self, now: Now, steps: &[Step]) {
        if self.connection.as_ref().is_none_or(|connection| connection.protocol < STEPS_SINCE) {
            return;
        }
        let master = self.clock.offset_ms(now).unwrap_or(0).saturating_add(now.wall.as_millis());
        let told = steps.iter().map(|step| {
            let at = Timestamp::from_millis(master).minus(now.monotonic.since(step.noticed));
            ToMaster::ClockStep(ClockStep { number: step.number, by_ms: step.by_ms, at })
        });
        self.say(&told.collect::<Vec<_>>());
    }

    /// How much the own clock was set since an execution noted its beginning, in milliseconds; mostly 0.
    pub(super) fn clock_set_since(&mut self, now: Now, outcome: &Outcome) -> i64 {
        self.look_at_clock(now);
        let passed: Duration = outcome.duration;
        self.steps.set_since_beginning(now.monotonic, now.wall, passed, outcome.started.plus(passed))
    }
}
