//! What a process is doing at this moment, for its operator. Reads the brain, changes nothing.

use std::collections::BTreeMap;

use serde::Serialize;
use shared::assignment::Carried;
use shared::name::{CheckId, Generation, InstanceId, Timeline};

use super::Scheduler;
use crate::clock::Now;
use crate::outbox::InMemory;

/// What this process is doing, for its operator.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    pub region: String,
    pub slot: u32,
    pub instance: InstanceId,
    pub software: String,
    pub connected: bool,
    pub holder: bool,
    pub fenced: bool,
    pub running: bool,
    pub generation: Generation,
    pub checks: usize,
    pub in_flight: usize,
    pub late: u64,
    pub results: u64,
    /// Answers since it began that became no result: their check was asked something else by then, or is unknown to a restored master.
    pub void: u64,
    pub runs: usize,
    pub undelivered: u64,
    pub spool_bytes: u64,
    /// Of these, what was delivered and stays for its grace.
    pub kept_bytes: u64,
    pub memory_only: bool,
    pub spool_full: bool,
    pub given_up: u64,
    pub offset_ms: Option<i64>,
    pub slew_ms: i64,
    /// Times its wall clock was set since it began.
    pub clock_steps: u64,
}

impl Scheduler {
    /// For people.
    #[must_use]
    pub fn status(&self, now: Now) -> Status {
        let connected = self.connection.as_ref().is_some_and(|connection| connection.welcome.is_some());
        Status {
            region: self.identity.slot.region.to_string(),
            slot: self.identity.slot.number.get(),
            instance: self.identity.instance,
            software: self.identity.software.clone(),
            connected,
            holder: self.holder,
            fenced: self.fenced,
            running: self.may_run(),
            generation: self.roster.assignment().generation,
            checks: self.roster.assignment().checks.len(),
            in_flight: self.roster.in_flight(),
            late: self.roster.late(),
            results: self.results,
            void: self.void,
            runs: self.outbox.run_count(),
            undelivered: self.outbox.undelivered(),
            spool_bytes: self.room.held,
            kept_bytes: self.outbox.kept_bytes(),
            memory_only: self.outbox.memory_only(),
            spool_full: self.outbox.is_full(),
            given_up: self.outbox.given_up(),
            offset_ms: self.clock.offset_ms(now),
            slew_ms: self.clock.slew_ms(now.monotonic),
            clock_steps: self.steps.steps().last().map_or(0, |step| step.number),
        }
    }

    /// Timeline of the checks owned, and of the keys of their states.
    #[must_use]
    pub fn timeline(&self) -> Option<Timeline> {
        self.roster.timeline()
    }

    /// What waits in memory for the volume.
    #[must_use]
    pub fn in_memory(&self) -> InMemory {
        self.outbox.in_memory()
    }

    /// Newest state of each check.
    #[must_use]
    pub fn states(&self) -> &BTreeMap<CheckId, Carried> {
        self.roster.states()
    }
}
