//! What passes between the brain and one satellite: its hello, what it is told to own, and the closing of runs that are complete.
//! Nothing is told that is not durable.

use shared::assignment::Assignment;
use shared::defect::Defect;
use shared::message::{self, AssignmentBegin, Hello, RunPosition, ToSatellite, Welcome};
use shared::name::RunId;
use shared::time::{Monotonic, Timestamp};

use super::connection::Connection;
use super::group::Reassigned;
use super::timeline::{self, Seen};
use super::{Consequence, Coordinator, Cut};
use crate::entry::{Claim, Drained, Entry, Outcomes};
use crate::fleet::{self, ConnectionId, LEASE};

impl Coordinator {
    pub(super) fn handle_hello(&mut self, id: ConnectionId, hello: Hello, now: Monotonic, at: Timestamp) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.hello.is_some() {
            return self.cut(id, Cut::Protocol("a second hello".to_owned()));
        }
        if message::common(hello.protocol).is_none() {
            let spoken = (message::PROTOCOL_OLDEST, message::PROTOCOL);
            let why = format!("protocol {}; this master speaks {} to {}", hello.protocol, spoken.0, spoken.1);
            return self.cut(id, Cut::Protocol(why));
        }
        let (slot, instance) = (connection.slot.clone(), hello.instance);
        let (foreign, seen) = (timeline::of_another(&self.working, &hello), Seen::of(&hello));
        let entry =
            Claim { slot: slot.clone(), instance, remote: connection.remote.clone(), software: hello.software.clone() };
        let runs = hello.runs.clone();
        runs.iter().for_each(|held| connection.hold(*held));
        connection.hello = Some(hello);
        self.newest.entry(instance).and_modify(|newest| *newest = id.max(*newest)).or_insert(id);
        let alive = self.heard.get(&slot).is_some_and(|heard| now.since(*heard) < LEASE);
        let claim = fleet::claim(&self.working, &slot, instance, alive);
        if let Some(other) = foreign
            && let Err(why) = self.go_on_above(&slot, other, seen, claim == fleet::Claim::Holds, at)
        {
            return self.cut(id, Cut::Protocol(why));
        }
        match claim {
            fleet::Claim::Holds | fleet::Claim::Fenced => {}
            fleet::Claim::Takes(fenced) => {
                self.heard.insert(slot.clone(), now);
                self.settled.remove(&slot);
                let outcomes = Outcomes { fenced, ..Outcomes::default() };
                // Whoever has a slot for the first time may own checks at once; one that was out proves itself stable first.
                let first = self.working.slots().get(&slot).is_none_or(|state| state.holder.is_none());
                let fences = !self.has(Defect::NoFence);
                self.add_with_grants(Entry::Claim(entry), outcomes, None, Some(&slot).filter(|_| fences), at);
                if first && !self.working.attention().drained.contains_key(&slot) {
                    self.change_presence(&slot, true, "joined", at);
                }
                let voices = self.voices.get(&slot).into_iter().flatten();
                let instance = |id: &ConnectionId| self.connections.get(id).and_then(Connection::instance);
                let losers = voices.filter(|id| fences && fenced.is_some() && instance(id) == fenced);
                for other in losers.copied().collect::<Vec<_>>() {
                    self.follow(Consequence::Fence(slot.clone(), other));
                }
            }
        }
        self.follow(Consequence::Greet(id));
        for held in runs {
            self.drain(id, held.run, at);
        }
    }

    pub(super) fn greet(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(&id) else { return };
        let Some(hello) = &connection.hello else { return };
        let state = self.published.slots().get(&connection.slot);
        let holder =
            state.and_then(|state| state.holder.as_ref()).is_some_and(|holder| holder.instance == hello.instance);
        let positions = hello.runs.iter().filter_map(|held| {
            let run = state?.runs.get(&held.run)?;
            Some(RunPosition { run: held.run, position: run.position })
        });
        let credit = self.pool.open(id, connection.slot.clone(), hello.credit);
        let welcome = Welcome {
            protocol: message::common(hello.protocol).unwrap_or(message::PROTOCOL_OLDEST),
            software: self.identity.software.clone(),
            installation: self.identity.installation.clone(),
            term: self.published.term,
            timeline: self.published.timeline,
            first_check: self.published.first_check,
            holder,
            positions: positions.collect(),
            clock: self.at,
            credit,
        };
        self.say(id, &[ToSatellite::Welcome(Box::new(welcome))]);
        if holder {
            self.push_assignment(id, true);
        }
        self.dirty = true;
    }

    /// Tells those whose assignment a group has changed. Of the others nothing differs, and they may be thousands.
    pub(super) fn push_assignments(&mut self, reassigned: &Reassigned) {
        let mut links: Vec<ConnectionId> = match reassigned {
            Reassigned::Slots(slots) => {
                slots.iter().filter_map(|slot| self.voices.get(slot)).flatten().copied().collect()
            }
            Reassigned::All => self.connections.keys().copied().collect(),
        };
        links.retain(|id| self.connections.get(id).is_some_and(|link| link.told.is_some()));
        links.sort_unstable();
        for id in links {
            self.push_assignment(id, false);
        }
    }

    /// Tells a holder what it owns: all of it once, then what changed.
    pub(super) fn push_assignment(&mut self, id: ConnectionId, whole: bool) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let next = match &self.published.catalog {
            Some(catalog) => fleet::assignment(&self.published, catalog, &connection.slot),
            None => Assignment::default(),
        };
        let known = connection.told.take().unwrap_or_default();
        let known = if whole { Assignment::default() } else { known };
        let difference = known.difference(&next);
        let generation = next.generation;
        let unchanged = !whole && difference.is_empty() && known.generation == generation;
        connection.told = Some(next);
        if unchanged {
            return;
        }
        let mut messages = vec![ToSatellite::AssignmentBegin(AssignmentBegin { generation, whole })];
        messages.extend(difference.removals.into_iter().map(ToSatellite::AssignmentRemove));
        messages.extend(difference.upserts.into_iter().map(|check| ToSatellite::AssignmentUpsert(Box::new(check))));
        messages.push(ToSatellite::AssignmentEnd(generation));
        self.say(id, &messages);
        self.tell_commands(id);
    }

    /// Closes a run that its satellite adds nothing to, once everything of it is here.
    pub(super) fn drain(&mut self, id: ConnectionId, run: RunId, at: Timestamp) {
        let Some(connection) = self.connections.get(&id) else { return };
        let Some(held) = connection.held.get(&run).filter(|held| !held.open) else { return };
        let slot = connection.slot.clone();
        let known = self.working.slots().get(&slot).and_then(|state| state.runs.get(&run));
        let complete = known.map_or(held.last.0 == 0, |known| known.position >= held.last);
        if !complete && !self.has(Defect::ClosedEarly) {
            return;
        }
        if known.is_some_and(|known| known.drained.is_none()) {
            self.add(Entry::Drained(Drained { slot, run }), Outcomes::default(), &[], None, at);
        }
        self.follow(Consequence::CloseRun(id, run));
    }
}
