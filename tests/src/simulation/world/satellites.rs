//! The satellites of a world: begin, probe, write, end. Carries what their brains say to disks, daemons and links.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use satellite::command::{Command, Identity as Process, ProbeId};
use satellite::scheduler::Scheduler;
use satellite::spool;
use shared::check::{Exit, Outcome};
use shared::name::{InstanceId, RunId, Slot};
use shared::time::Monotonic;

use super::{Event, INSTALLATION, SURVEY, World};
use crate::simulation::defect::Defect;
use crate::simulation::network::{IDLE, Way};
use crate::simulation::site::Site;

impl World {
    pub(in crate::simulation) fn start(&mut self, slot: Slot, volume: usize, extra: bool) {
        let instance = InstanceId(self.chance.name());
        let identity = Process {
            installation: self.estate.installation(INSTALLATION),
            slot: slot.clone(),
            instance,
            software: "1".to_owned(),
        };
        let run = if self.has(Defect::RunReused) { RunId([7; 16]) } else { RunId(self.chance.name()) };
        let clock = self.clocks.get(volume).copied().unwrap_or_default();
        let Some(disk) = self.volumes.get_mut(volume) else { return };
        let (seat, beginning) = disk.enter(&identity, run);
        self.witness.opened(run, instance);
        for found in &beginning.earlier {
            self.witness.durable(volume, &slot, found.run, found.last.0);
            self.witness.reach("an earlier process's run is delivered");
        }
        if beginning.kept.is_some() {
            self.witness.reach("a start from disk");
        }
        if beginning.neighbour {
            self.witness.reach("a neighbour on the volume");
        }
        let now = satellite::clock::Now { monotonic: Monotonic(self.now), wall: clock.at(self.now) };
        let scheduler = Scheduler::new(identity, beginning, now);
        self.sites.insert(
            instance,
            Site {
                slot,
                volume,
                instance,
                scheduler,
                seat,
                clock,
                orders: VecDeque::new(),
                disk_busy: false,
                probes: BTreeMap::new(),
                wake: None,
                paused_until: 0,
                failures: 0,
                ends_by: None,
                extra,
            },
        );
        self.after(SURVEY, Event::Survey(instance));
        self.after(Duration::from_millis(1), Event::Dial(instance));
        self.drain(instance);
    }

    /// Does what a satellite's brain says.
    pub(in crate::simulation) fn drain(&mut self, id: InstanceId) {
        while let Some(command) = self.sites.get_mut(&id).and_then(Site::poll) {
            match command {
                Command::Probe { probe, check } => {
                    let took = if self.calm || !self.chance.one_in(50) {
                        self.chance.time(Duration::from_millis(2), Duration::from_millis(400))
                    } else {
                        check.policy.timeout()
                    };
                    if let Some(site) = self.sites.get_mut(&id) {
                        site.probes.insert(probe, *check);
                    }
                    self.after(took, Event::Probed(id, probe));
                }
                Command::Send { lane, payload } => self.send_up(id, lane, payload),
                order => {
                    self.delete(id, &order);
                    if let Some(site) = self.sites.get_mut(&id) {
                        site.orders.push_back(spool::Order::Do(order));
                    }
                }
            }
        }
        self.work(id);
        let Some(site) = self.sites.get_mut(&id) else { return };
        if site.ends_by.is_some_and(|by| by <= self.now || site.scheduler.is_settled()) {
            return self.leave(id, false, true);
        }
        let deadline = [site.scheduler.poll_timeout().map(|at| at.0), site.ends_by].into_iter().flatten().min();
        if let Some(deadline) = deadline.map(|at| at.max(self.now))
            && site.wake.is_none_or(|wake| deadline < wake || wake < self.now)
        {
            site.wake = Some(deadline);
            self.at(deadline, Event::Wake(id));
        }
    }

    pub(in crate::simulation) fn delete(&mut self, id: InstanceId, order: &Command) {
        let Some(site) = self.sites.get(&id) else { return };
        match order {
            Command::Trim { run, up_to } => self.witness.deleted(site.volume, &site.slot, *run, Some(up_to.0)),
            Command::CloseRun(run) => self.witness.deleted(site.volume, &site.slot, *run, None),
            _ => {}
        }
    }

    /// Gives the disk its next order, if it is idle.
    pub(in crate::simulation) fn work(&mut self, id: InstanceId) {
        let slow = self.now < self.volume_slow_until;
        let Some(site) = self.sites.get_mut(&id) else { return };
        if site.disk_busy {
            return;
        }
        let Some(order) = site.orders.front() else { return };
        if let Some(volume) = self.volumes.get_mut(site.volume) {
            volume.begin(&site.seat, order);
        }
        site.disk_busy = true;
        let took = if slow { (100, 4000) } else { (1, 12) };
        let took = self.chance.time(Duration::from_millis(took.0), Duration::from_millis(took.1));
        self.after(took, Event::Disk(id));
    }

    pub(in crate::simulation) fn disk(&mut self, id: InstanceId) {
        let fresh = RunId(self.chance.name());
        let Some(site) = self.sites.get_mut(&id) else { return };
        let now = site.now(self.now);
        site.disk_busy = false;
        let Some(order) = site.orders.pop_front() else { return };
        let Some(volume) = self.volumes.get_mut(site.volume) else { return };
        let fails = matches!(order, spool::Order::Do(_)) && std::mem::take(&mut self.order_fails);
        if let Some(answer) = volume.execute(&mut site.seat, order, fails, fresh) {
            match &answer {
                spool::Answer::Opened { run, .. } => {
                    self.witness.opened(*run, id);
                    self.witness.reach("a run is opened at a reconnect");
                }
                spool::Answer::Appended { run, up_to } => self.witness.durable(site.volume, &site.slot, *run, up_to.0),
                spool::Answer::AppendFailed => self.witness.reach("results are in memory only"),
                spool::Answer::Trimmed { .. } => self.witness.reach("a run is trimmed"),
                spool::Answer::Neighbours { adopted: Some(adopted), .. } => {
                    for found in &adopted.runs {
                        self.witness.durable(site.volume, &site.slot, found.run, found.last.0);
                    }
                    self.witness.reach("a directory is adopted by a living process");
                }
                _ => {}
            }
            if let spool::Answer::Appended { run, up_to } = answer
                && self.defect == Some(Defect::DeletedEarly)
            {
                let trim = Command::Trim { run, up_to };
                self.witness.deleted(site.volume, &site.slot, run, Some(up_to.0));
                volume.execute(&mut site.seat, spool::Order::Do(trim), false, fresh);
            }
            site.answered(now, answer);
        }
        self.drain(id);
    }

    pub(in crate::simulation) fn wake(&mut self, id: InstanceId) {
        let Some(site) = self.sites.get_mut(&id) else { return };
        if site.wake.is_some_and(|wake| wake <= self.now) {
            site.wake = None;
        }
        let now = site.now(self.now);
        site.scheduler.handle_timeout(now);
        self.drain(id);
    }

    pub(in crate::simulation) fn survey(&mut self, id: InstanceId) {
        if let Some(site) = self.sites.get_mut(&id) {
            site.orders.push_back(spool::Order::Survey);
        }
        self.after(SURVEY, Event::Survey(id));
        self.work(id);
    }

    /// A daemon answers.
    pub(in crate::simulation) fn probed(&mut self, id: InstanceId, probe: ProbeId) {
        let Some(site) = self.sites.get_mut(&id) else { return };
        let Some(check) = site.probes.remove(&probe) else { return };
        self.answers += 1;
        let state = self.estate.answer(&check.object, self.calm, &mut self.chance);
        let now = site.now(self.now);
        let exit = Exit::Ran(i32::from(state.number()));
        let output = format!("serial={}", self.answers);
        let outcome = Outcome::text(now.wall, Duration::from_millis(3), exit, state, output);
        site.scheduler.handle_outcome(now, probe, outcome);
        self.drain(id);
    }

    /// A process ends. `power`: with its machine; `farewell`: it says so to the master.
    pub(in crate::simulation) fn leave(&mut self, id: InstanceId, power: bool, farewell: bool) {
        let Some(site) = self.sites.remove(&id) else { return };
        if let Some(volume) = self.volumes.get_mut(site.volume) {
            volume.leave(&site.seat, power, &mut self.chance);
        }
        let told = if farewell { self.plan.delay * 2 } else { IDLE };
        for link in self.links_of(id) {
            if let Some(link) = self.links.get_mut(&link) {
                link.satellite_open = false;
            }
            self.after(told, Event::Gone(link, Way::Up));
        }
        if !site.extra {
            let back = self.chance.time(Duration::from_secs(1), Duration::from_secs(40));
            self.after(back, Event::Start { slot: site.slot, volume: site.volume, extra: false });
        }
    }
}
