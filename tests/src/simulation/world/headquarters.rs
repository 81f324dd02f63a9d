//! The master of a world: up, down, up again. Carries what its brain says to the store and the links; what it tells the satellites is
//! shown to the witness first.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use master::coordinator::{Activation, Command as Order, Coordinator, Cut, Identity, RequestId};
use shared::frame::Lane;
use shared::message::{self, ToSatellite};
use shared::name::Timeline;
use shared::time::Monotonic;

use super::{Event, INSTALLATION, Master, World, nanos};
use crate::simulation::defect::Defect;
use crate::simulation::network::{IDLE, Way};

impl World {
    pub(in crate::simulation) fn start_master(&mut self) {
        if self.master.is_some() {
            return;
        }
        self.epoch += 1;
        let status = self.store.replay();
        self.witness.replayed(&status, None);
        self.witness.begun();
        let identity = Identity { installation: self.estate.installation(INSTALLATION), software: "1".to_owned() };
        let timeline = Timeline(self.chance.draw());
        let coordinator = Coordinator::new(identity, status, timeline, Monotonic(self.now), self.wall());
        self.master =
            Some(Master { coordinator, epoch: self.epoch, links: BTreeMap::new(), wake: None, committing: false });
        if self.epoch > 1 {
            self.witness.reach("the master comes back");
        }
        // What was written while there was no master.
        self.activate();
        // Links of the one before are told at once that they are none: it kept its key for stateless resets.
        let old: Vec<u64> =
            self.links.iter().filter(|(_, link)| link.epoch < self.epoch).map(|(link, _)| *link).collect();
        for link in old {
            self.after(Duration::from_secs(1), Event::Gone(link, Way::Down));
        }
        self.drain_master();
    }

    /// The operator's configuration is to run.
    pub(in crate::simulation) fn activate(&mut self) {
        let catalog = self.estate.catalog(&self.plan);
        self.store.keep_revision(&catalog);
        self.requests += 1;
        let (request, at) = (RequestId(self.requests), self.wall());
        if let Some(master) = &mut self.master {
            master.coordinator.handle_activation(request, &catalog, "operator", at);
            self.drain_master();
        }
    }

    pub(in crate::simulation) fn kill_master(&mut self) {
        let Some(master) = self.master.take() else { return };
        let reached = self.chance.one_in(2);
        let rows = self.store.leave(reached);
        self.witness.committed(&rows);
        if self.has(Defect::CommitForgotten) {
            self.store.forget();
        }
        let published = master.coordinator.published();
        let replayed = self.store.replay();
        self.witness.replayed(&replayed, Some(published));
        for (number, link) in &mut self.links {
            if link.epoch == master.epoch && std::mem::take(&mut link.master_open) {
                self.order += 1;
                self.events.insert((self.now + nanos(IDLE), self.order), Event::Gone(*number, Way::Down));
            }
        }
        let back = self.chance.time(Duration::from_millis(500), Duration::from_secs(40));
        self.after(back, Event::MasterStart);
    }

    pub(in crate::simulation) fn wake_master(&mut self, epoch: u64) {
        let at = self.wall();
        let Some(master) = self.master.as_mut().filter(|master| master.epoch == epoch) else { return };
        master.wake = None;
        master.coordinator.handle_timeout(Monotonic(self.now), at);
        self.drain_master();
    }

    pub(in crate::simulation) fn committed(&mut self, epoch: u64) {
        let at = self.wall();
        let Some(master) = self.master.as_mut().filter(|master| master.epoch == epoch) else { return };
        master.committing = false;
        if std::mem::take(&mut self.commit_fails) {
            self.store.fail();
            self.witness.reach("a commit failed");
            if self.defect == Some(Defect::FailureIgnored) {
                master.coordinator.handle_committed(at);
            } else {
                master.coordinator.handle_commit_failed(Monotonic(self.now));
            }
        } else {
            let rows = self.store.commit();
            self.witness.committed(&rows);
            master.coordinator.handle_committed(at);
        }
        self.drain_master();
    }

    pub(in crate::simulation) fn drain_master(&mut self) {
        loop {
            let now = Monotonic(self.now);
            let Some(master) = &mut self.master else { return };
            let Some(order) = master.coordinator.poll_command(now) else { break };
            match order {
                Order::Commit { record, .. } => {
                    master.committing = true;
                    let epoch = master.epoch;
                    self.store.begin(record);
                    let took = if self.now < self.store_slow_until { (300, 6000) } else { (1, 15) };
                    let took = self.chance.time(Duration::from_millis(took.0), Duration::from_millis(took.1));
                    self.after(took, Event::Committed(epoch));
                    if self.has(Defect::ToldBeforeCommit) {
                        let at = self.wall();
                        if let Some(master) = &mut self.master {
                            master.coordinator.handle_committed(at);
                        }
                    }
                }
                Order::Published(rows) => {
                    if let Some(last) = rows.last() {
                        self.witness.shown(last.index);
                    }
                }
                Order::Show(view) => {
                    self.witness.shown(view.status.head);
                    if view.held_off {
                        self.witness.reach("the master holds itself cut off");
                    }
                    if view.links.values().any(|link| link.stale) {
                        self.witness.reach("a slot is stale");
                    }
                    for (slot, link) in &view.links {
                        self.witness.settles(slot, link.settled, &view.status);
                    }
                }
                Order::Send { connection, payload } => {
                    if let Some(number) = master.links.get(&connection).copied() {
                        self.heed(number, &payload);
                        self.send(number, Way::Down, Lane::Control, Bytes::from(payload));
                    }
                }
                Order::Close { connection, cut } => {
                    if cut == Cut::Vacant {
                        self.witness.reach("a process is sent for");
                    }
                    if let Some(number) = master.links.get(&connection).copied() {
                        self.after(Duration::from_millis(1), Event::Gone(number, Way::Up));
                        let told = self.plan.delay * 2;
                        self.after(told, Event::Gone(number, Way::Down));
                    }
                }
                Order::Answer { activation: Activation::NotCommitted, .. } => {
                    self.after(Duration::from_secs(5), Event::Operator);
                }
                Order::Answer { .. } => {}
            }
        }
        let Some(master) = &mut self.master else { return };
        let deadline = master.coordinator.poll_timeout().0.max(self.now);
        if master.wake.is_none_or(|wake| deadline < wake) {
            master.wake = Some(deadline);
            let epoch = master.epoch;
            self.at(deadline, Event::MasterWake(epoch));
        }
    }

    /// What the master says is judged as it leaves.
    pub(in crate::simulation) fn heed(&mut self, number: u64, payload: &[u8]) {
        let Some((slot, id)) = self.links.get(&number).map(|link| (link.slot.clone(), link.instance)) else { return };
        for message in message::decode::<ToSatellite>(payload).unwrap_or_default() {
            match message {
                ToSatellite::Ack(ack) => self.witness.acknowledged(&slot, ack.run, ack.position.0),
                ToSatellite::Welcome(welcome) => {
                    for at in &welcome.positions {
                        self.witness.acknowledged(&slot, at.run, at.position.0);
                    }
                }
                ToSatellite::CloseRun(run) => {
                    if let Some(site) = self.sites.get(&id) {
                        self.witness.closed(site.volume, &slot, run);
                    }
                }
                _ => {}
            }
        }
    }
}
