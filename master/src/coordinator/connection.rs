//! What the coordinator knows of one link: whose it is, what was said on it, what was told. Volatile; nothing of it is journaled.

use std::collections::BTreeMap;

use shared::assignment::Assignment;
use shared::command::COMMANDS_SINCE;
use shared::message::{self, Heartbeat, HeldRun, Hello};
use shared::name::{Generation, InstanceId, RunId, Slot};
use shared::time::Monotonic;

/// Runs remembered per link. A satellite holds [`shared::delivery::RUNS_UNDELIVERED_MAX`] per process; beyond this bound its oldest
/// are simply not closed before it says hello again.
const HELD_MAX: usize = 4096;

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) slot: Slot,
    pub(super) remote: String,
    pub(super) since: Monotonic,
    pub(super) hello: Option<Hello>,
    pub(super) held: BTreeMap<RunId, HeldRun>,
    pub(super) heartbeat: Option<Heartbeat>,
    pub(super) offset_ms: i64,
    pub(super) applied: Option<Generation>,
    /// What its process was told to own; `None` while it holds nothing.
    pub(super) told: Option<Assignment>,
}

impl Connection {
    pub(super) fn new(slot: Slot, remote: String, now: Monotonic) -> Self {
        Self {
            slot,
            remote,
            since: now,
            hello: None,
            held: BTreeMap::new(),
            heartbeat: None,
            offset_ms: 0,
            applied: None,
            told: None,
        }
    }

    pub(super) fn instance(&self) -> Option<InstanceId> {
        self.hello.as_ref().map(|hello| hello.instance)
    }

    /// Whether the satellite's version has commands.
    pub(super) fn knows_commands(&self) -> bool {
        let protocol = self.hello.as_ref().and_then(|hello| message::common(hello.protocol));
        protocol.is_some_and(|protocol| protocol >= COMMANDS_SINCE)
    }

    pub(super) fn hold(&mut self, held: HeldRun) {
        if self.held.len() < HELD_MAX || self.held.contains_key(&held.run) {
            self.held.insert(held.run, held);
        }
    }
}
