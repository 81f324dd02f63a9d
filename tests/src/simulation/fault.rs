//! What goes wrong in a world, when its turn comes; and how all of it ends. Decides how hard and how long, by chance.

use std::time::Duration;

use shared::name::InstanceId;

use super::network::{IDLE, Way};
use super::plan::Fault;
use super::world::{Event, World, nanos};

impl World {
    pub(super) fn fault(&mut self) {
        if self.calm {
            return;
        }
        let mean = self.plan.fault_every;
        let next = self.chance.time(mean / 4, mean * 7 / 4);
        self.after(next, Event::Fault);
        let Some(fault) = self.plan.fault(&mut self.chance) else { return };
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
                let disk = self.volumes.get_mut(volume)?;
                disk.full = !disk.full;
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
            Fault::Reconfigured => {
                self.estate.change(&mut self.chance);
                self.activate();
            }
        }
        Some(())
    }

    /// A clock that is set wrong by seconds, or by hours, or right again.
    fn step(&mut self) -> i64 {
        let sign = if self.chance.one_in(2) { 1 } else { -1 };
        match self.chance.below(3) {
            0 => 0,
            1 => sign * i64::try_from(self.chance.between(1, 90_000)).unwrap_or(0),
            _ => sign * i64::try_from(self.chance.between(1, 12)).unwrap_or(0) * 3_600_000,
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

    /// Everything that is broken is whole from here on, and nothing changes any more.
    pub(super) fn calm(&mut self) {
        self.calm = true;
        self.volumes.iter_mut().for_each(|volume| volume.full = false);
        for roads in self.roads.values_mut() {
            *roads = super::network::Roads::default();
        }
        self.sites.values_mut().for_each(|site| site.paused_until = site.paused_until.min(self.now));
        (self.store_slow_until, self.volume_slow_until) = (0, 0);
        (self.commit_fails, self.order_fails) = (false, false);
        let open: Vec<(InstanceId, u64)> = self.links.iter().map(|(number, link)| (link.instance, *number)).collect();
        open.into_iter().for_each(|(id, link)| self.look_later(id, link));
    }
}
