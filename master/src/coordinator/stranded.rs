//! Runs that nobody has any more: not complete, and no volume lists them. Somebody's disk is gone with what was not delivered. Decides
//! when to give one up and name it; knows nothing of how many results it had. The surprise: a slot of which nothing is heard counts as
//! having none of its runs, for who scales a region down never hears of them again; should the run come back after all, it goes on.

use std::collections::BTreeSet;
use std::time::Duration;

use shared::delivery::{GapRecord, reason};
use shared::name::{RunId, Sequence, Slot};
use shared::time::{Monotonic, Timestamp};

use super::Coordinator;
use crate::entry::{Drained, Entry, Gap, Outcomes};

/// Nothing of a run has come for so long, and nobody lists it: it is given up. Four times as long as a spool keeps what is undelivered
/// unless it is told to, and a grant of its results is remembered a day longer.
pub(super) const STRANDED_AFTER: Duration = Duration::from_secs(30 * 24 * 3600);
/// Looked for so often; first so long after the start, when everybody has had the time to say hello.
pub(super) const STRANDED_TICK: Duration = Duration::from_secs(3600);

impl Coordinator {
    /// Time has passed: open runs that nobody lists any more are named, and are complete as far as anybody knows.
    pub(super) fn give_up_stranded(&mut self, now: Monotonic, at: Timestamp) {
        if now < self.stranded_due {
            return;
        }
        self.stranded_due = now.plus(STRANDED_TICK);
        let listed: BTreeSet<RunId> =
            self.connections.values().flat_map(|connection| connection.held.keys().copied()).collect();
        let mut stranded: Vec<(Slot, RunId, Sequence, Timestamp)> = Vec::new();
        for (slot, state) in self.working.slots() {
            for (id, run) in &state.runs {
                let last = run.last.unwrap_or(run.since);
                let silent = run.drained.is_none() && at.since(last) >= STRANDED_AFTER;
                if silent && !listed.contains(id) {
                    stranded.push((slot.clone(), *id, run.position, last));
                }
            }
        }
        for (slot, run, position, last) in stranded {
            tracing::error!(%slot, %run, position = position.0, %last, "a run has not ended and no volume lists it any more: what was left of it is lost");
            let first = Sequence(position.0.saturating_add(1));
            let record =
                GapRecord { first, last: first, reason: reason::STRANDED.to_owned(), from: Some(last), to: None };
            let gap = Gap { slot: slot.clone(), run, record, explained: true };
            let outcomes = Outcomes { gaps: vec![gap], ..Outcomes::default() };
            self.add(Entry::Drained(Drained { slot, run }), outcomes, &[], None, at);
        }
    }
}
