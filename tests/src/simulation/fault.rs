//! What goes wrong in a world, when its turn comes; and how all of it ends. Decides how hard and how long, by chance.

use std::time::Duration;

use shared::name::InstanceId;

use super::network::{IDLE, Way};
use super::outlet::Mood;
use super::plan::Fault;
use super::world::{Event, World, nanos};

/// A link that flaps is cut so often: more often than a satellite opens runs.
const FLAPS: u32 = 80;
/// The deny list acts on open connections within this.
const DENIED_WITHIN: Duration = Duration::from_secs(5);

impl World {
    pub(super) fn fault(&mut self) {
        if self.calm {
            return;
        }
        let mean = self.plan.fault_every;
        let next = self.chance.time(mean / 4, mean * 7 / 4);
        self.after(next, Event::Fault);
        let Some(fault) = self.plan.fault(&mut self.chance) else { return };
        self.line(|| format!("FAULT {fault:?}"));
        if self.befall(fault).is_some() {
            *self.faults.entry(fault).or_default() += 1;
        }
    }

    fn some_site(&mut self) -> Option<InstanceId> {
        let ids: Vec<InstanceId> = self.sites.keys().copied().collect();
        self.chance.pick(&ids).copied()
    }

    fn seconds(&mut self, first: u64, last: u64) -> Duration {
        self.chance.time(Duration::from_secs(first), Duration::from_secs(last))
    }

    /// `None` if there was nobody whom it could befall.
    fn befall(&mut self, fault: Fault) -> Option<()> {
        let now = self.now;
        match fault {
            Fault::SatelliteKilled => {
                let id = self.some_site()?;
                self.leave(id, false, false);
            }
            Fault::SatellitePowerLost => {
                let id = self.some_site()?;
                // With the machine go all who work on its volume.
                let volume = self.sites.get(&id)?.volume;
                let all: Vec<InstanceId> =
                    self.sites.values().filter(|site| site.volume == volume).map(|site| site.instance).collect();
                all.into_iter().for_each(|id| self.leave(id, true, false));
            }
            Fault::SatelliteEnded => {
                let id = self.some_site()?;
                let by = now + nanos(Duration::from_millis(3500));
                let site = self.sites.get_mut(&id)?;
                site.ends_by = Some(by);
                let time = site.now(now);
                site.scheduler.handle_shutdown(time);
                self.at(now, Event::Wake(id));
            }
            Fault::SatellitePaused => {
                let id = self.some_site()?;
                let pause = self.seconds(1, 40);
                let site = self.sites.get_mut(&id)?;
                site.paused_until = site.paused_until.max(now + nanos(pause));
                if pause > IDLE {
                    self.witness.reach("a satellite stands still for longer than its lease");
                    for link in self.links_of(id) {
                        self.after(IDLE, Event::Gone(link, Way::Up));
                        self.at(now + nanos(pause), Event::Gone(link, Way::Down));
                    }
                }
            }
            Fault::MasterKilled => {
                self.master.as_ref()?;
                self.kill_master();
            }
            Fault::CommitFailed => {
                self.master.as_ref()?;
                self.commit_fails = true;
            }
            Fault::StoreSlow => self.store_slow_until = now + nanos(self.seconds(5, 30)),
            Fault::VolumeFull => {
                let id = self.some_site()?;
                let volume = self.sites.get(&id)?.volume;
                self.volumes.get_mut(volume)?.full = true;
                let again = self.seconds(5, 100);
                self.after(again, Event::VolumeFreed(volume));
            }
            Fault::VolumeSlow => self.volume_slow_until = now + nanos(self.seconds(5, 30)),
            Fault::OrderFailed => self.order_fails = true,
            Fault::BitFlipped => {
                let id = self.some_site()?;
                let volume = self.sites.get(&id)?.volume;
                self.volumes.get_mut(volume)?.damage(&mut self.chance)?;
            }
            Fault::VolumeLost => {
                let id = self.some_site()?;
                let volume = self.sites.get(&id)?.volume;
                let all: Vec<InstanceId> =
                    self.sites.values().filter(|site| site.volume == volume).map(|site| site.instance).collect();
                all.into_iter().for_each(|id| self.leave(id, true, false));
                *self.volumes.get_mut(volume)? = self.empty_volume();
                self.witness.lost(volume);
                self.witness.reach("a satellite comes back without its volume");
            }
            Fault::LinkReset => {
                let id = self.some_site()?;
                let link = self.links_of(id).pop()?;
                self.after(self.plan.delay, Event::Gone(link, Way::Up));
                self.after(Duration::ZERO, Event::Gone(link, Way::Down));
            }
            Fault::UpCut | Fault::DownCut => {
                let id = self.some_site()?;
                let until = now + nanos(self.seconds(2, 120));
                let way = if fault == Fault::UpCut { Way::Up } else { Way::Down };
                self.cut(id, way, until);
            }
            Fault::RegionCut => {
                let id = self.some_site()?;
                let region = self.sites.get(&id)?.slot.region.clone();
                let until = now + nanos(self.seconds(5, 240));
                let all: Vec<InstanceId> =
                    self.sites.values().filter(|site| site.slot.region == region).map(|site| site.instance).collect();
                for id in all {
                    self.cut(id, Way::Up, until);
                    self.cut(id, Way::Down, until);
                }
            }
            Fault::LinkBad => {
                let id = self.some_site()?;
                let until = now + nanos(self.seconds(5, 90));
                let roads = self.roads.entry(self.sites.get(&id)?.volume).or_default();
                roads.up.bad_until = roads.up.bad_until.max(until);
                roads.down.bad_until = roads.down.bad_until.max(until);
            }
            Fault::ClockStepped => {
                let step = self.step();
                let id = self.some_site()?;
                let site = self.sites.get_mut(&id)?;
                site.clock.offset_ms = step;
                self.clocks.get_mut(site.volume)?.offset_ms = step;
            }
            Fault::MasterClockStepped => self.master_clock.offset_ms = self.step(),
            Fault::SlotClaimed => self.claim(false)?,
            Fault::VolumeShared => self.claim(true)?,
            Fault::VolumeCloned => {
                let id = self.some_site()?;
                let site = self.sites.get(&id)?;
                let (slot, copy) = (site.slot.clone(), self.volumes.get(site.volume)?.copied());
                let volume = self.new_volume(copy);
                self.after(Duration::from_secs(1), Event::Start { slot, volume, extra: true });
            }
            Fault::LinkClogged => {
                let id = self.some_site()?;
                let until = now + nanos(self.seconds(10, 120));
                let road = &mut self.roads.entry(self.sites.get(&id)?.volume).or_default().up;
                road.clogged_until = road.clogged_until.max(until);
            }
            Fault::LinkFlaps => {
                let id = self.some_site()?;
                let volume = self.sites.get(&id)?.volume;
                self.after(Duration::from_secs(1), Event::Flap(volume, FLAPS, 0));
            }
            Fault::Denied => {
                let id = self.some_site()?;
                let until = now + nanos(self.seconds(5, 90));
                let slot = self.sites.get(&id)?.slot.clone();
                let links = self.links.iter().filter(|(_, link)| link.slot == slot && link.master_open);
                for link in links.map(|(link, _)| *link).collect::<Vec<_>>() {
                    let within = self.chance.time(Duration::ZERO, DENIED_WITHIN);
                    self.after(within, Event::Gone(link, Way::Up));
                    self.after(within + self.plan.delay, Event::Gone(link, Way::Down));
                }
                self.denied.insert(slot, until);
            }
            Fault::Impostor => self.impostor()?,
            Fault::MasterPaused => {
                self.master.as_ref()?;
                let pause = self.seconds(1, 40);
                self.master_paused_until = self.master_paused_until.max(now + nanos(pause));
                if pause > IDLE {
                    self.witness.reach("the master stands still for longer than links do");
                    for link in self.links.keys().copied().collect::<Vec<_>>() {
                        self.after(IDLE, Event::Gone(link, Way::Down));
                        self.at(now + nanos(pause), Event::Gone(link, Way::Up));
                    }
                }
            }
            Fault::StoreFull => {
                self.master.as_ref()?;
                self.store_full_until = now + nanos(self.seconds(3, 40));
            }
            Fault::VolumeUnreadable => self.volume_unreadable_until = now + nanos(self.seconds(3, 60)),
            Fault::MetricsKilled => {
                if self.outlet.kill() > 0 {
                    self.witness.reach("a metrics store forgets what it was given");
                }
            }
            Fault::MetricsSlow => self.sulk(Mood::Slow),
            Fault::MetricsHanging => self.sulk(Mood::Hanging),
            Fault::MetricsRefusing => self.sulk(Mood::Refusing),
            // Neither is drawn: each has its time.
            Fault::LongCut | Fault::ClockDrifting => return None,
            Fault::Restored => self.restore_master()?,
            Fault::Reconfigured => {
                self.estate.change(&mut self.chance);
                self.activate();
            }
            Fault::SlotDrained => {
                let id = self.some_site()?;
                let slot = self.sites.get(&id)?.slot.clone();
                if !self.drained.remove(&slot) {
                    self.drained.insert(slot);
                }
                self.order();
            }
            Fault::MovesHeld => {
                self.holding = !self.holding;
                self.order();
                if !self.holding {
                    self.resume();
                }
            }
            Fault::Commanded => self.command()?,
            Fault::MasterCutOff => {
                let until = now + nanos(self.seconds(10, 240));
                for id in self.sites.keys().copied().collect::<Vec<_>>() {
                    self.cut(id, Way::Up, until);
                    self.cut(id, Way::Down, until);
                }
            }
        }
        Some(())
    }

    fn sulk(&mut self, mood: Mood) {
        let until = self.now + nanos(self.seconds(5, 240));
        self.outlet.behave(mood, until);
    }

    /// A clock that is set wrong by seconds, or by hours, or right again.
    fn step(&mut self) -> i64 {
        let sign = if self.chance.one_in(2) { 1 } else { -1 };
        match self.chance.below(3) {
            0 => 0,
            1 => sign * i64::try_from(self.chance.between(1, 90_000)).unwrap_or(0),
            _ => {
                self.witness.reach("a clock is hours wrong");
                sign * i64::try_from(self.chance.between(1, 12)).unwrap_or(0) * 3_600_000
            }
        }
    }

    /// A second process for a slot, on the volume of the first or on one of its own.
    fn claim(&mut self, on_the_same: bool) -> Option<()> {
        let id = self.some_site()?;
        let site = self.sites.get(&id)?;
        let (slot, shared) = (site.slot.clone(), site.volume);
        let volume = if on_the_same { shared } else { self.new_volume(self.empty_volume()) };
        let at = self.seconds(1, 5);
        self.after(at, Event::Start { slot, volume, extra: true });
        Some(())
    }

    fn cut(&mut self, id: InstanceId, way: Way, until: u64) {
        let Some(volume) = self.sites.get(&id).map(|site| site.volume) else { return };
        self.roads.entry(volume).or_default().of(way).cut(self.now, until);
        for link in self.links_of(id) {
            self.after(IDLE + Duration::from_millis(1), Event::Silence(link, way));
        }
    }

    /// Cuts a link as soon as there is something undelivered behind it that was not there the time before.
    pub(super) fn flap(&mut self, volume: usize, left: u32, undelivered: u64) {
        if self.calm || left == 0 {
            return;
        }
        let again = Duration::from_secs(1);
        let until = self.now + nanos(Duration::from_secs(3));
        self.roads.entry(volume).or_default().up.stuck_until = until;
        let site = self.sites.values().find(|site| site.volume == volume);
        let status = site.map(|site| (site.instance, site.scheduler.status(site.now(self.now))));
        let Some((id, status)) = status.filter(|(_, status)| status.connected && !status.fenced) else {
            return self.after(again, Event::Flap(volume, left, undelivered));
        };
        if status.undelivered > undelivered
            && let Some(link) = self.links_of(id).pop()
        {
            self.witness.reach("a link flaps");
            self.after(Duration::ZERO, Event::Gone(link, Way::Up));
            self.after(Duration::ZERO, Event::Gone(link, Way::Down));
            return self.after(again, Event::Flap(volume, left - 1, status.undelivered));
        }
        self.after(again, Event::Flap(volume, left, undelivered.min(status.undelivered)));
    }

    /// A region is cut off for so long that an hour of results waits behind the cut.
    pub(super) fn long_cut(&mut self) {
        let Some(lasts) = self.plan.long_cut.filter(|_| !self.calm) else { return };
        self.line(|| "FAULT LongCut".to_owned());
        *self.faults.entry(Fault::LongCut).or_default() += 1;
        let until = self.now + nanos(lasts);
        for volume in 0..self.volumes.len() {
            let now = self.now;
            let roads = self.roads.entry(volume).or_default();
            roads.up.cut(now, until);
            roads.down.cut(now, until);
        }
        for link in self.links.keys().copied().collect::<Vec<_>>() {
            for way in [Way::Up, Way::Down] {
                self.after(IDLE + Duration::from_millis(1), Event::Silence(link, way));
            }
        }
    }

    /// Whether the master turns this process away.
    pub(super) fn is_denied(&self, id: InstanceId) -> bool {
        let slot = self.sites.get(&id).map(|site| &site.slot);
        slot.and_then(|slot| self.denied.get(slot)).is_some_and(|until| self.now < *until)
    }

    /// Everything that is broken is whole from here on, and nothing changes any more.
    pub(super) fn calm(&mut self) {
        self.line(|| "from here on nothing goes wrong any more".to_owned());
        self.calm = true;
        self.volumes.iter_mut().for_each(|volume| volume.full = false);
        for roads in self.roads.values_mut() {
            *roads = super::network::Roads::default();
        }
        self.hurry();
        self.sites.values_mut().for_each(|site| site.paused_until = site.paused_until.min(self.now));
        (self.store_slow_until, self.volume_slow_until) = (0, 0);
        (self.store_full_until, self.volume_unreadable_until) = (0, 0);
        self.master_paused_until = self.master_paused_until.min(self.now);
        self.denied.clear();
        self.outlet.calm();
        (self.commit_fails, self.order_fails) = (false, false);
        let open: Vec<(InstanceId, u64)> = self.links.iter().map(|(number, link)| (link.instance, *number)).collect();
        open.into_iter().for_each(|(id, link)| self.look_later(id, link));
        self.drained.clear();
        self.holding = false;
        self.order();
        // An order on its way to disk is not seen yet: the operator looks again.
        self.after(Duration::from_secs(30), Event::Operator);
    }
}
