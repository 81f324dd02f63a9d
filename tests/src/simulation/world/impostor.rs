//! Somebody with a slot's certificate who is no satellite: takes the slot, then says what no satellite says — results for checks that
//! are another's or nobody's, sequences with holes, batches twice and overlapping, bodies and frames of nonsense — and goes. The real
//! process is fenced meanwhile, and has to have its slot back.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use master::fleet::ConnectionId;
use shared::check::{Exit, State};
use shared::delivery::{BatchBuilder, BatchHeader, GapRecord};
use shared::frame::Lane;
use shared::message::{self, HeldRun, Hello, PROTOCOL, ToMaster};
use shared::name::{CheckId, Generation, Grant, InstanceId, RunCounter, RunId, Sequence, Slot, Timeline};
use shared::result::CheckResult;
use shared::state::CheckState;
use shared::time::Monotonic;

use super::Event;
use super::World;
use crate::simulation::network::{Link, Way};

/// A run that is made up as it is sent.
#[derive(Debug)]
struct Forgery {
    timeline: Timeline,
    run: RunId,
    counter: RunCounter,
    next: u64,
}

impl Forgery {
    fn header(&self, first: u64, last: u64) -> BatchHeader {
        BatchHeader {
            timeline: self.timeline,
            generation: Generation(1),
            run: self.run,
            counter: self.counter,
            first: Sequence(first),
            last: Sequence(last),
        }
    }
}

impl World {
    /// `None` if there is no master to speak to.
    pub(in crate::simulation) fn impostor(&mut self) -> Option<()> {
        if self.master_pauses() {
            return None;
        }
        let slots = self.estate.slots();
        let slot = self.chance.pick(&slots)?.clone();
        let (instance, run) = (InstanceId(self.chance.name()), RunId(self.chance.name()));
        let link = self.intrude(slot.clone(), instance)?;
        self.witness.forges(instance, run);
        let counter = RunCounter(self.chance.between(1, 400));
        let held = HeldRun { run, counter, first: Sequence(1), last: Sequence(0), open: true };
        let hello = ToMaster::Hello(Box::new(Hello {
            protocol: PROTOCOL,
            software: "0".to_owned(),
            instance,
            fenced: false,
            timeline: None,
            grant: Grant(0),
            generation: Generation(0),
            check: CheckId(0),
            runs: vec![held],
            clock: self.wall(),
            credit: self.chance.one_in(2),
            tells_states: self.chance.one_in(2),
        }));
        // It has heard of the timeline, or not.
        let known = self.master.as_ref().map(|master| master.coordinator.published().timeline);
        let timeline = known.filter(|_| !self.chance.one_in(4)).unwrap_or_default();
        let mut forgery = Forgery { timeline, run, counter, next: 1 };
        // One in four does not even say hello.
        if !self.chance.one_in(4) {
            message::encode(&[hello]).into_iter().for_each(|payload| self.forge(link, Lane::Control, payload));
        }
        // One in four does not wait until its hello can have been heard, and is cut off for that alone.
        let waits = if self.chance.one_in(4) { Duration::ZERO } else { self.plan.delay * 3 };
        for _ in 0..self.chance.between(3, 9) {
            let payload = self.forged(&slot, &mut forgery);
            let lane = if self.chance.one_in(2) { Lane::Live } else { Lane::Backlog };
            self.after(waits, Event::Forged(link, lane, payload));
        }
        if self.chance.one_in(2) {
            let nonsense = self.nonsense();
            let lane = if self.chance.one_in(2) { Lane::Control } else { Lane::Live };
            self.after(waits, Event::Forged(link, lane, nonsense));
        }
        let stays = self.chance.time(Duration::from_secs(1), Duration::from_secs(20));
        self.after(stays, Event::Gone(link, Way::Up));
        Some(())
    }

    fn intrude(&mut self, slot: Slot, instance: InstanceId) -> Option<u64> {
        let now = Monotonic(self.now);
        let master = self.master.as_mut()?;
        self.connections += 1;
        let connection = ConnectionId(self.connections);
        master.links.insert(connection, self.connections);
        master.coordinator.handle_connected(connection, slot.clone(), "192.0.2.66:1".to_owned(), now);
        let link = Link {
            instance,
            slot,
            epoch: master.epoch,
            connection,
            satellite_open: false,
            master_open: true,
            knew: None,
            sent: 0,
            lanes: BTreeMap::new(),
        };
        self.links.insert(self.connections, link);
        Some(self.connections)
    }

    pub(in crate::simulation) fn forge(&mut self, link: u64, lane: Lane, payload: Vec<u8>) {
        self.send(link, Way::Up, lane, Bytes::from(payload));
    }

    fn nonsense(&mut self) -> Vec<u8> {
        let length = self.chance.log_between(1, 200);
        (0..length).map(|_| self.chance.draw().to_be_bytes().first().copied().unwrap_or(0)).collect()
    }

    /// A check that somebody else owns, or one that nobody knows.
    fn foreign(&mut self, slot: &Slot) -> (CheckId, Grant) {
        let unknown = (CheckId(u32::MAX), Grant(1));
        let Some(master) = &self.master else { return unknown };
        let others: Vec<(CheckId, Grant)> = master
            .coordinator
            .published()
            .objects()
            .filter_map(|object| object.owner.as_ref().map(|owner| (object.id, owner)))
            .filter(|(_, owner)| owner.slot != *slot)
            .map(|(id, owner)| (id, owner.grant))
            .collect();
        self.chance.pick(&others).copied().unwrap_or(unknown)
    }

    fn forged(&mut self, slot: &Slot, forgery: &mut Forgery) -> Vec<u8> {
        let mut builder = BatchBuilder::default();
        let kind = self.chance.below(6);
        if kind == 0 {
            // A hole before it that nobody explains.
            forgery.next += self.chance.between(1, 5);
        }
        // What was sent before, once more, with more behind it.
        let again = if kind == 1 { forgery.next.saturating_sub(2).max(1) } else { forgery.next };
        let count = self.chance.between(1, 3).max(forgery.next - again + 1);
        let last = again + count - 1;
        let header = forgery.header(again, last);
        forgery.next = last + 1;
        if kind == 2 {
            let mut batch = builder.finish(&header);
            batch.extend(self.nonsense());
            return batch;
        }
        if kind == 3 {
            let gap =
                GapRecord { first: header.first, last: header.last, reason: "forged".to_owned(), from: None, to: None };
            builder.push_gap(&gap);
            return builder.finish(&header);
        }
        for _ in 0..count {
            let (check, grant) = if kind == 4 { (CheckId(u32::MAX), Grant(1)) } else { self.foreign(slot) };
            self.answers += 1;
            let result = CheckResult {
                check,
                grant,
                scheduled: self.wall(),
                started: self.wall(),
                duration_us: 1,
                exit: Some(Exit::Ran(0)),
                passive: false,
                output: format!("serial={}", self.answers),
                long_output: String::new(),
                perfdata: String::new(),
                metrics: Vec::new(),
                authenticated: None,
                after: CheckState { state: State::Ok, ..CheckState::pending(1) },
                command: None,
                offset_ms: None,
            };
            builder.push(&result);
        }
        builder.finish(&header)
    }
}
