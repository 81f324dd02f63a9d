//! States that owners tell when they are back: from whom they are taken, and when a slot counts as settled because its marker came.
//! State only: no position moves here, nothing is acknowledged as a result. The surprise: a frame of which nothing is newer makes no
//! row, and none answers a command, so saying the same again costs the journal nothing.

use shared::defect::Defect;
use shared::message::ToMaster;
use shared::name::Slot;
use shared::snapshot::{STATES_MAX, StateTold};
use shared::time::{Monotonic, Timestamp};

use super::connection::Connection;
use super::{Consequence, Coordinator, Cut};
use crate::entry::{Effect, Entry, Moved, Outcomes, Snapshot};
use crate::fleet::ConnectionId;
use crate::ingest;

/// Why states are not taken, as `/metrics` names it: who told them does not hold the slot, or was not told yet what it owns.
pub(super) const NOT_HOLDER: &str = "state-of-no-holder";

impl Coordinator {
    /// Whether this link is that of its slot's holder, and was told what it owns.
    fn decides(&self, id: ConnectionId) -> Option<Slot> {
        let connection = self.connections.get(&id)?;
        let holds = connection.told.is_some() && connection.instance() == self.holder(&connection.slot);
        holds.then(|| connection.slot.clone())
    }

    /// Judges the states among the messages of a control payload, if there are any.
    pub(super) fn handle_states(
        &mut self,
        id: ConnectionId,
        payload: &[u8],
        messages: &[ToMaster],
        now: Monotonic,
        at: Timestamp,
    ) {
        let states: Vec<&StateTold> = messages
            .iter()
            .filter_map(|message| match message {
                ToMaster::State(told) => Some(told.as_ref()),
                _ => None,
            })
            .collect();
        if states.is_empty() {
            return;
        }
        if states.len() > STATES_MAX {
            return self.cut(id, Cut::Protocol(format!("{} states in one frame", states.len())));
        }
        if self.blocked_until.is_some_and(|until| now < until) {
            return self.cut(id, Cut::NotCommitted);
        }
        if let Some(slot) = self.decides(id) {
            let verdicts = ingest::judge_states(&self.working, &slot, states.iter().copied());
            // What is known already may name a command that nobody has answered.
            let news = verdicts.iter().zip(&states).any(|(verdict, told)| {
                verdict.effect == Effect::Current || self.working.answers(&slot, verdict.effect, told).is_some()
            });
            let mut outcomes = Outcomes { verdicts, ..Outcomes::default() };
            if self.has(Defect::SnapshotMovesPosition) {
                outcomes.moved = self.moved_by(&slot, &states);
            }
            self.count_refused(&slot, &outcomes);
            if news {
                self.add(Entry::Snapshot(Snapshot { slot, bytes: payload.to_vec() }), outcomes, &[], None, at);
            }
        } else {
            let count = u64::try_from(states.len()).unwrap_or(u64::MAX);
            tracing::warn!(connection = %id, count, "states of a process that does not hold its slot are not taken");
            *self.refused.entry(NOT_HOLDER).or_default() += count;
        }
        self.follow(Consequence::StatesHeard(id));
    }

    /// What no snapshot may do: the position that its last state would stand for.
    fn moved_by(&self, slot: &Slot, states: &[&StateTold]) -> Option<Moved> {
        let runs = &self.working.slots().get(slot)?.runs;
        let moved = |told: &&StateTold| {
            let run = runs.iter().find(|(_, run)| run.counter == told.key.counter);
            run.map(|(run, known)| Moved { run: *run, counter: known.counter, position: told.key.sequence })
        };
        states.iter().rev().find_map(moved)
    }

    /// Whether its process has said hello on a newer link: what still comes on this one says nothing of what it knows by now.
    fn is_left(&self, id: ConnectionId) -> bool {
        let instance = self.connections.get(&id).and_then(Connection::instance);
        instance.and_then(|instance| self.newest.get(&instance)).is_none_or(|newest| *newest > id)
    }

    /// Everything a holder had to say was said before this.
    pub(super) fn handle_states_end(&mut self, id: ConnectionId) {
        if self.decides(id).is_some() && !self.is_left(id) {
            self.follow(Consequence::Settle(id));
        }
    }

    /// A satellite of the version before tells no states: what it has is what it delivers.
    pub(super) fn handle_applied(&mut self, id: ConnectionId) {
        let tells =
            self.connections.get(&id).and_then(|link| link.hello.as_ref()).is_none_or(|hello| hello.tells_states);
        if !tells {
            self.handle_states_end(id);
        }
    }

    /// What was told before the marker is durable.
    pub(super) fn settle(&mut self, id: ConnectionId) {
        if let Some(slot) = self.decides(id).filter(|_| !self.is_left(id)) {
            self.settled.insert(slot);
            self.dirty = true;
        }
    }
}
