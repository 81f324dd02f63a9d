//! The master of a world: up, down, up again. Carries what its brain says to the store and the links; what it tells the satellites is
//! shown to the witness first.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use master::coordinator::{
    Activation, Command as Order, Coordinator, Cut, Identity, NoteId, Obeyed, Order as Ordered, RequestId,
};
use master::entry::{Entry, Row};
use shared::frame::Lane;
use shared::message::{self, ToSatellite};
use shared::name::{JournalIndex, Slot, Timeline};
use shared::time::Monotonic;

use super::{Event, INSTALLATION, METRICS, Master, World, nanos};
use crate::simulation::defect::{Hand, Planted};
use crate::simulation::network::{IDLE, Way};
use crate::simulation::plan::Fault;
use crate::simulation::secret;

/// Rows of one commit, results of one batch: that many are many.
pub(in crate::simulation) const MANY: usize = 8;

impl World {
    pub(in crate::simulation) fn start_master(&mut self) {
        if self.master.is_some() {
            return;
        }
        let Some(status) = self.store.replay(self.defects()) else {
            // A row that nothing else contains cannot be read: it refuses to start, and the operator does what it says.
            self.line(|| "the master refuses to start: its journal is damaged".to_owned());
            self.witness.reach("a damaged journal is put back from a backup");
            if self.restore_master().is_none() {
                self.witness.violated("I14", "the journal is lost, and there is no backup".to_owned());
            }
            return self.after(Duration::from_secs(30), Event::MasterStart);
        };
        let (fell_back, covered) = self.store.put_aside();
        if fell_back {
            self.witness.reach("a start falls back to the older checkpoint");
        }
        if covered {
            self.witness.reach("a record is damaged that a checkpoint contains");
        }
        self.epoch += 1;
        self.witness.replayed(&status, None);
        self.witness.replayed(&self.store.replay_whole(self.defects()), Some(&status));
        self.witness.begun();
        self.witness.starts();
        if self.has(Hand::ReplayEmits) {
            let rows = self.store.rows(JournalIndex(0));
            self.hand_out(&rows);
        }
        self.line(|| format!("the master starts at {}", status.head));
        let identity = Identity { installation: self.estate.installation(INSTALLATION), software: "1".to_owned() };
        let timeline = Timeline(self.chance.draw());
        let coordinator = Coordinator::new(identity, status, timeline, Monotonic(self.now), self.wall());
        let coordinator = coordinator.with_pool(self.plan.pool);
        self.master =
            Some(Master { coordinator, epoch: self.epoch, links: BTreeMap::new(), wake: None, committing: false });
        if self.epoch > 1 {
            self.witness.reach("the master comes back");
        }
        // What was written while there was no master.
        self.activate();
        self.order();
        // Links of the one before are told at once that they are none: it kept its key for stateless resets.
        let old: Vec<u64> =
            self.links.iter().filter(|(_, link)| link.epoch < self.epoch).map(|(link, _)| *link).collect();
        for link in old {
            self.after(Duration::from_secs(1), Event::Gone(link, Way::Down));
        }
        self.drain_master();
    }

    /// Rows go to whoever acts on them: event stream, writers, and whoever notifies.
    fn hand_out(&mut self, rows: &[Row]) {
        if let Some(last) = rows.last() {
            self.witness.shown(last.index);
        }
        self.witness.published(rows);
    }

    /// The operator's configuration is to run.
    pub(in crate::simulation) fn activate(&mut self) {
        if self.master_pauses() {
            return self.operate_again(self.master_paused_until);
        }
        let catalog = self.estate.catalog(&self.plan);
        self.store.keep_revision(&catalog);
        self.requests += 1;
        let (request, at) = (RequestId(self.requests), self.wall());
        if let Some(master) = &mut self.master {
            master.coordinator.handle_activation(request, &catalog, "operator", at);
            self.line(|| format!("the operator asks for {}", catalog.digest));
            self.drain_master();
        }
    }

    /// The operator comes back to what was not done, once for all of it.
    fn operate_again(&mut self, at: u64) {
        if !std::mem::replace(&mut self.operator_waits, true) {
            self.at(at, Event::Operator);
        }
    }

    /// What the operator wants of slots and moves, and the master does not do yet.
    pub(in crate::simulation) fn order(&mut self) {
        let Some(master) = &self.master else { return };
        let attention = master.coordinator.published().attention();
        let known: BTreeSet<&Slot> = attention.drained.keys().collect();
        let mut orders: Vec<Ordered> = Vec::new();
        orders.extend(self.drained.iter().filter(|slot| !known.contains(slot)).cloned().map(Ordered::Drain));
        orders.extend(known.into_iter().filter(|slot| !self.drained.contains(slot)).cloned().map(Ordered::Undrain));
        match (self.holding, attention.held.is_some()) {
            (true, false) => orders.push(Ordered::Hold),
            (false, true) => orders.push(Ordered::Resume),
            _ => {}
        }
        orders.iter().for_each(|order| self.give(order));
    }

    /// The operator says that the master is not cut off, whatever it thinks.
    pub(in crate::simulation) fn resume(&mut self) {
        self.give(&Ordered::Resume);
    }

    fn give(&mut self, order: &Ordered) {
        self.requests += 1;
        let (request, at) = (RequestId(self.requests), self.wall());
        let now = Monotonic(self.now);
        if let Some(master) = &mut self.master {
            master.coordinator.handle_order(request, order, "operator", now, at);
            self.drain_master();
        }
    }

    pub(in crate::simulation) fn kill_master(&mut self) {
        let Some(master) = self.master.take() else { return };
        self.master_paused_until = 0;
        self.outlet.begin_again();
        let reached = self.chance.one_in(2);
        let rows = self.store.leave(reached);
        if !rows.is_empty() {
            self.witness.reach("a commit outlived its master");
        }
        self.note(&rows);
        self.purse.ended();
        if self.has(Hand::CommitForgotten) {
            self.store.forget();
        }
        let published = master.coordinator.published();
        let begins = self.store.replay(self.defects());
        for replayed in begins.into_iter().chain([self.store.replay_whole(self.defects())]) {
            self.witness.replayed(&replayed, Some(published));
        }
        for (number, link) in &mut self.links {
            if link.epoch == master.epoch && std::mem::take(&mut link.master_open) {
                self.order += 1;
                self.events.insert((self.now + nanos(IDLE), self.order), Event::Lapsed(*number, Way::Down));
            }
        }
        let back = self.chance.time(Duration::from_millis(500), Duration::from_secs(40));
        self.after(back, Event::MasterStart);
    }

    /// The master's store is put back from an old backup; the first time one is taken. `None` if nothing was put back.
    pub(in crate::simulation) fn restore_master(&mut self) -> Option<()> {
        if !self.store.has_backup() {
            self.after(Duration::from_secs(1), Event::BackUp);
            let soon = self.chance.time(Duration::from_secs(15), Duration::from_secs(60));
            if self.plan.faults.contains(&Fault::Commanded) && self.chance.one_in(2) {
                self.hold_back(soon);
            }
            self.after(soon, Event::Befall(Fault::Restored));
            return None;
        }
        self.kill_master();
        let timeline = Timeline(self.chance.draw());
        let (rows, cursor) = self.store.restore(timeline, self.wall())?;
        self.outlet.rewind(cursor);
        self.witness.restored(&rows);
        self.line(|| "the master's store is put back from a backup".to_owned());
        if self.chance.one_in(2) {
            self.store.back_up(self.outlet.cursor());
        }
        Some(())
    }

    pub(in crate::simulation) fn wake_master(&mut self, epoch: u64) {
        let at = self.wall();
        let Some(master) = self.master.as_mut().filter(|master| master.epoch == epoch) else { return };
        // One that was set later and came earlier has taken this one's place.
        if master.wake.is_some_and(|wake| wake <= self.now) {
            master.wake = None;
        }
        master.coordinator.handle_timeout(Monotonic(self.now), at);
        self.drain_master();
    }

    pub(in crate::simulation) fn committed(&mut self, epoch: u64) {
        let at = self.wall();
        let Some(master) = self.master.as_mut().filter(|master| master.epoch == epoch) else { return };
        master.committing = false;
        let fails = std::mem::take(&mut self.commit_fails);
        if fails {
            *self.faults.entry(Fault::CommitFailed).or_default() += 1;
        }
        if fails || self.now < self.store_full_until {
            self.store.fail();
            self.witness.reach("a commit failed");
            self.failed_in_a_row += 1;
            if self.failed_in_a_row > 2 {
                self.witness.reach("commits fail in a row");
            }
            self.purse.dropped();
            if self.planted == Some(Planted::Hand(Hand::FailureIgnored)) {
                master.coordinator.handle_committed(at);
            } else {
                master.coordinator.handle_commit_failed(Monotonic(self.now));
            }
        } else {
            let rows = self.store.commit();
            self.failed_in_a_row = 0;
            self.note(&rows);
            if rows.len() >= MANY {
                self.witness.reach("a group of many rows");
            }
            if rows.last().is_some_and(|row| row.at > at) {
                self.witness.reach("the master's time stands still");
            }
            if let Some(master) = &mut self.master {
                master.coordinator.handle_committed(at);
            }
        }
        self.drain_master();
    }

    /// These rows are durable.
    fn note(&mut self, rows: &[Row]) {
        self.witness.committed(rows);
        for row in rows {
            if let (Entry::Batch(batch), Some(moved)) = (&row.entry, row.outcomes.moved) {
                self.purse.committed(&batch.slot, moved.run, moved.position);
            }
        }
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
                    self.trace.decided(self.now, 0, &record);
                    if secret::tells(&record) {
                        self.witness.violated("I15", "what a check was asked with stands in the journal".to_owned());
                    }
                    self.line(|| format!("the master commits {}", told_rows(&record)));
                    self.store.begin(record);
                    let took = if self.now < self.store_slow_until { (300, 6000) } else { (1, 15) };
                    let took = self.chance.time(Duration::from_millis(took.0), Duration::from_millis(took.1));
                    self.after(took, Event::Committed(epoch));
                    if self.has(Hand::ToldBeforeCommit) {
                        let at = self.wall();
                        if let Some(master) = &mut self.master {
                            master.coordinator.handle_committed(at);
                        }
                    }
                }
                Order::Published(rows) => self.hand_out(&rows),
                Order::Show(view) => {
                    self.witness.shown(view.status.head);
                    if view.status.attention().cut_off() {
                        self.witness.reach("the master holds itself cut off");
                    }
                    if view.links.values().any(|link| link.stale) {
                        self.witness.reach("a slot is stale");
                    }
                    for (slot, link) in view.links.iter() {
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
                    match &cut {
                        Cut::Vacant => self.witness.reach("a process is sent for"),
                        Cut::NotCommitted => self.witness.reach("a link is closed for a failed commit"),
                        Cut::Protocol(_) => self.witness.reach("nonsense closes a link"),
                        Cut::Overdrawn(_) | Cut::Hoarding => {}
                    }
                    let number = master.links.get(&connection).copied();
                    self.line(|| format!("the master closes link {}: {cut:?}", connection.0));
                    if let Some(number) = number {
                        self.purse.closed(number, cut != Cut::Vacant);
                        self.after(Duration::from_millis(1), Event::Gone(number, Way::Up));
                        let told = self.plan.delay * 2;
                        self.after(told, Event::Gone(number, Way::Down));
                    }
                }
                Order::Answer { activation: Activation::NotCommitted, .. } => {
                    self.witness.reach("an activation was not committed");
                    self.operate_again(self.now + nanos(Duration::from_secs(5)));
                }
                Order::Answer { .. } => {}
                Order::Noted { note, durable } => {
                    if self.outlet.noted(self.now, note.0, durable) {
                        self.witness.reach("a writer was overrun");
                        self.feed_metrics();
                    }
                }
                // The operator looks whether it is so, and says it again if not.
                Order::Obeyed { obeyed: Obeyed::NotCommitted, .. } => {
                    self.operate_again(self.now + nanos(Duration::from_secs(5)));
                }
                Order::Obeyed { .. } => {}
                Order::Commanded { commanding, .. } => self.told(&commanding),
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

    /// The metrics writer of a living master goes on where it was.
    pub(in crate::simulation) fn write_metrics(&mut self) {
        self.after(METRICS, Event::Outlet);
        if self.master.is_none() || self.master_pauses() {
            return;
        }
        self.keep_store();
        if let Some(gone) = self.store.overran(self.outlet.sent()) {
            self.requests += 1;
            let (note, at) = (self.requests, self.wall());
            if let (Some(gap), Some(master)) = (self.outlet.overrun(note, gone), &mut self.master) {
                master.coordinator.handle_writer_gap(NoteId(note), gap, at);
                self.drain_master();
            }
        }
        if !self.outlet.waits() {
            self.feed_metrics();
        }
    }

    /// The metrics writer sends what follows what it has sent.
    fn feed_metrics(&mut self) {
        let rows = self.store.rows(self.outlet.sent());
        if rows.len() >= MANY {
            self.witness.reach("a metrics store is behind");
        }
        self.outlet.advance(self.now, &rows);
    }

    /// Checkpoints when they are due, and what they make needless goes: as the program's loop has it done.
    fn keep_store(&mut self) {
        let Some(master) = &self.master else { return };
        let writes = self.now >= self.store_full_until;
        if writes && self.now >= self.checkpoint_due {
            self.checkpoint_due = self.now + nanos(self.plan.checkpoint_every);
            self.store.checkpoint(master.coordinator.published());
        }
        if !self.has(Hand::JournalUntrimmed) {
            self.store.trim(self.outlet.cursor(), self.plan.journal_bytes);
        }
        let journal = self.store.journal();
        self.witness.journal(journal.held, journal.needed, self.plan.journal_bytes);
    }

    /// What the master says is judged as it leaves.
    pub(in crate::simulation) fn heed(&mut self, number: u64, payload: &[u8]) {
        let Some((slot, id)) = self.links.get(&number).map(|link| (link.slot.clone(), link.instance)) else { return };
        for message in message::decode::<ToSatellite>(payload).unwrap_or_default() {
            if let Err(overspent) = self.purse.heed(number, &message) {
                self.witness.violated("I9", overspent);
            }
            match message {
                ToSatellite::Ack(ack) => self.witness.acknowledged(&slot, ack.run, ack.position.0),
                ToSatellite::Welcome(welcome) => {
                    for at in &welcome.positions {
                        self.witness.acknowledged(&slot, at.run, at.position.0);
                    }
                }
                ToSatellite::AssignmentUpsert(check) => self.witness.assigned(&slot, &check),
                ToSatellite::Command(command) => self.witness.commanded(&slot, &command),
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

/// The rows of a record in a few words.
fn told_rows(record: &[u8]) -> String {
    let rows = master::entry::decode(record).unwrap_or_default();
    let kind = |row: &master::entry::Row| format!("{} {}", row.index, first_word(&format!("{:?}", row.entry)));
    rows.iter().map(kind).collect::<Vec<_>>().join(", ")
}

/// The name of a variant, out of its text for programmers.
pub(in crate::simulation) fn first_word(text: &str) -> String {
    text.chars().take_while(|letter| letter.is_alphanumeric()).collect()
}
