//! What goes wrong in a world, when its turn comes; and how all of it ends. Decides how hard and how long, by chance.

use std::time::Duration;

use shared::name::InstanceId;

use super::network::{IDLE, Passage, Road, Roads, Way};
use super::outlet::Mood;
use super::plan::Fault;
use super::volume::Volume;
use super::world::{Event, World, nanos};

/// A link that flaps is cut so often: more often than a satellite opens runs.
const FLAPS: u32 = 80;
/// And is looked at this often where nothing is written.
const FLAP_LOOK: Duration = Duration::from_secs(5);
/// The deny list acts on open connections within this.
const DENIED_WITHIN: Duration = Duration::from_secs(5);

/// A clock that is so far off by its drift alone has drifted, in milliseconds.
const DRIFTED_MS: i64 = 20;

/// When the power fails that does not fail at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// While a batch is being written.
    Writing,
    /// Right behind a sync.
    Synced,
}

impl World {
    pub(super) fn fault(&mut self) {
        if self.calm {
            return;
        }
        let mean = self.plan.fault_every;
        let next = self.chance.time(mean / 4, mean * 7 / 4);
        self.after(next, Event::Fault);
        let Some(fault) = self.plan.fault(&mut self.chance) else { return };
        self.strike(fault);
    }

    /// Lets it happen now.
    pub(super) fn strike(&mut self, fault: Fault) {
        if self.calm {
            return;
        }
        self.line(|| format!("FAULT {fault:?}"));
        if self.befall(fault).is_some() {
            self.hit(fault);
        }
    }

    /// Until a backup is put back no batch gets through: what owners do meanwhile for operators is told to another store than asked.
    pub(super) fn hold_back(&mut self, lasting: Duration) {
        let until = self.now + nanos(lasting);
        for volume in 0..self.volumes.len() {
            let up = &mut self.roads.entry(volume).or_default().up;
            up.stuck_until = up.stuck_until.max(until);
        }
        for _ in 0..4 {
            self.command();
        }
        if self.plan.faults.contains(&Fault::SlotDrained) {
            self.after(lasting / 3, Event::Befall(Fault::SlotDrained));
        }
    }

    /// Something went wrong that was right before.
    pub(super) fn hit(&mut self, fault: Fault) {
        *self.faults.entry(fault).or_default() += 1;
    }

    fn some_site(&mut self) -> Option<InstanceId> {
        let ids: Vec<InstanceId> = self.sites.keys().copied().collect();
        self.chance.pick(&ids).copied()
    }

    fn seconds(&mut self, first: u64, last: u64) -> Duration {
        self.chance.time(Duration::from_secs(first), Duration::from_secs(last))
    }

    /// `None` if there was nobody whom it could befall, if it was so already, or if it waits for its moment.
    fn befall(&mut self, fault: Fault) -> Option<()> {
        let now = self.now;
        match fault {
            Fault::SatelliteKilled => {
                let id = self.some_site()?;
                self.leave(id, false, false);
            }
            Fault::SatellitePowerLost => {
                let moment = match self.chance.below(3) {
                    0 => Some(Moment::Writing),
                    1 => Some(Moment::Synced),
                    _ => None,
                };
                if moment.is_some() {
                    self.power_fails = moment;
                    return None;
                }
                let id = self.some_site()?;
                let volume = self.sites.get(&id)?.volume;
                self.lose_power(volume);
            }
            Fault::SatelliteEnded => self.end()?,
            Fault::SatellitePaused => {
                let id = self.some_site()?;
                let pause = self.seconds(1, 40);
                let site = self.sites.get_mut(&id)?;
                lasts(now, &mut site.paused_until, pause)?;
                if pause > IDLE {
                    self.witness.reach("a satellite stands still for longer than its lease");
                    for link in self.links_of(id) {
                        self.after(IDLE, Event::Gone(link, Way::Up));
                        self.at(now + nanos(pause), Event::Lapsed(link, Way::Down));
                    }
                }
            }
            Fault::MasterKilled => {
                self.master.as_ref()?;
                self.kill_master();
            }
            Fault::CommitFailed => {
                self.commit_fails = true;
                return None;
            }
            Fault::StoreSlow => {
                let lasting = self.seconds(5, 30);
                lasts(now, &mut self.store_slow_until, lasting)?;
            }
            Fault::VolumeFull => {
                let id = self.some_site()?;
                let volume = self.sites.get(&id)?.volume;
                let others = self.chance.one_in(2);
                if !self.volumes.get_mut(volume)?.fill(others) {
                    return None;
                }
                let again = self.seconds(5, 100);
                self.after(again, Event::VolumeFreed(volume));
            }
            Fault::VolumeSlow => {
                let lasting = self.seconds(5, 30);
                lasts(now, &mut self.volume_slow_until, lasting)?;
            }
            Fault::OrderFailed => {
                self.order_fails = true;
                return None;
            }
            Fault::BitFlipped => {
                let id = self.some_site()?;
                let volume = self.sites.get(&id)?.volume;
                self.volumes.get_mut(volume)?.damage(&mut self.chance)?;
            }
            Fault::VolumeLost => {
                let id = self.some_site()?;
                let volume = self.sites.get(&id)?.volume;
                self.lose_power(volume);
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
                self.cut(id, way, until)?;
            }
            Fault::RegionCut => {
                let id = self.some_site()?;
                let region = self.sites.get(&id)?.slot.region.clone();
                let lasting = self.seconds(5, 240);
                let in_it = self.sites.values().filter(|site| site.slot.region == region);
                let all: Vec<InstanceId> = in_it.map(|site| site.instance).collect();
                self.cut_off(&all, lasting)?;
            }
            Fault::PacketsLost | Fault::PacketsDoubled | Fault::PacketsReordered => {
                self.worsen(fault);
                return None;
            }
            Fault::LinkLingers => self.linger()?,
            Fault::ClockStepped => {
                let step = self.step();
                let id = self.some_site()?;
                let site = self.sites.get_mut(&id)?;
                let before = std::mem::replace(&mut site.clock.offset_ms, step);
                self.clocks.get_mut(site.volume)?.offset_ms = step;
                return (before != step).then_some(());
            }
            Fault::MasterClockStepped => {
                let step = self.step();
                let before = std::mem::replace(&mut self.master_clock.offset_ms, step);
                return (before != step).then_some(());
            }
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
                let lasting = self.seconds(10, 120);
                let road = &mut self.roads.entry(self.sites.get(&id)?.volume).or_default().up;
                lasts(now, &mut road.clogged_until, lasting)?;
            }
            Fault::LinkFlaps => {
                let id = self.some_site()?;
                let volume = self.sites.get(&id)?.volume;
                if self.flapping.contains_key(&volume) {
                    return None;
                }
                self.flapping.insert(volume, (FLAPS, 0));
                self.flap(volume);
            }
            Fault::Denied => {
                let id = self.some_site()?;
                let lasting = self.seconds(5, 90);
                let slot = self.sites.get(&id)?.slot.clone();
                lasts(now, self.denied.entry(slot.clone()).or_default(), lasting)?;
                let links = self.links.iter().filter(|(_, link)| link.slot == slot && link.master_open);
                for link in links.map(|(link, _)| *link).collect::<Vec<_>>() {
                    let within = self.chance.time(Duration::ZERO, DENIED_WITHIN);
                    self.after(within, Event::Gone(link, Way::Up));
                    self.after(within + self.plan.delay, Event::Gone(link, Way::Down));
                }
            }
            Fault::Impostor => self.impostor()?,
            Fault::MasterPaused => {
                self.master.as_ref()?;
                let pause = self.seconds(1, 40);
                lasts(now, &mut self.master_paused_until, pause)?;
                if pause > IDLE {
                    self.witness.reach("the master stands still for longer than links do");
                    for link in self.links.keys().copied().collect::<Vec<_>>() {
                        self.after(IDLE, Event::Lapsed(link, Way::Down));
                        self.at(now + nanos(pause), Event::Gone(link, Way::Up));
                    }
                }
            }
            Fault::StoreFull => {
                self.master.as_ref()?;
                let lasting = self.seconds(3, 40);
                lasts(now, &mut self.store_full_until, lasting)?;
            }
            Fault::VolumeUnreadable => {
                let lasting = self.seconds(3, 60);
                lasts(now, &mut self.volume_unreadable_until, lasting)?;
            }
            Fault::StoreDamaged => {
                let hit = self.store.damage(self.outlet.cursor(), &mut self.chance)?;
                self.line(|| format!("a bit flips in the master's store: {hit:?}"));
            }
            Fault::MetricsKilled => {
                if self.outlet.kill() == 0 {
                    return None;
                }
                self.witness.reach("a metrics store forgets what it was given");
            }
            Fault::MetricsSlow => self.sulk(Mood::Slow)?,
            Fault::MetricsHanging => self.sulk(Mood::Hanging)?,
            Fault::MetricsRefusing => self.sulk(Mood::Refusing)?,
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
                let lasting = self.seconds(10, 240);
                let all: Vec<InstanceId> = self.sites.keys().copied().collect();
                self.cut_off(&all, lasting)?;
            }
        }
        Some(())
    }

    fn sulk(&mut self, mood: Mood) -> Option<()> {
        let until = self.now + nanos(self.seconds(5, 240));
        self.outlet.behave(self.now, mood, until).then_some(())
    }

    /// The machine of a volume loses power: with it go all who work there.
    pub(super) fn lose_power(&mut self, volume: usize) {
        let on_it = self.sites.values().filter(|site| site.volume == volume);
        let all: Vec<InstanceId> = on_it.map(|site| site.instance).collect();
        all.into_iter().for_each(|id| self.leave(id, true, false));
    }

    /// A process is told to end. Half of them are replaced as by a rolling update: the next one is there before this one has gone.
    fn end(&mut self) -> Option<()> {
        let id = self.some_site()?;
        let replaced = self.chance.one_in(2);
        let at = self.chance.time(Duration::ZERO, Duration::from_secs(2));
        let by = self.now + nanos(Duration::from_millis(3500));
        let site = self.sites.get_mut(&id).filter(|site| site.ends_by.is_none())?;
        site.ends_by = Some(by);
        let time = site.now(self.now);
        site.scheduler.handle_shutdown(time);
        site.wake = Some(self.now);
        let (slot, volume) = (site.slot.clone(), site.volume);
        if replaced && !std::mem::replace(&mut site.extra, true) {
            self.after(at, Event::Start { slot, volume, extra: false });
        }
        self.at(self.now, Event::Wake(id));
        Some(())
    }

    /// Both ways of somebody are bad for packets for some time. It is a fault once it has hit one.
    fn worsen(&mut self, fault: Fault) -> Option<()> {
        let (id, now) = (self.some_site()?, self.now);
        let lasting = self.seconds(5, 90);
        let volume = self.sites.get(&id)?.volume;
        let Roads { up, down } = self.roads.entry(volume).or_default();
        both(lasts(now, bad_until(up, fault), lasting), lasts(now, bad_until(down, fault), lasting))?;
        self.unfelt.insert((volume, fault));
        Some(())
    }

    /// Packets of a frame were hit on a volume's road. A time of bad packets counts as one fault however many it hits, and not at all if
    /// it hits none; the packets are counted apart.
    pub(super) fn packets_hit(&mut self, volume: usize, passage: &Passage) {
        let hit = [
            (Fault::PacketsLost, passage.lost),
            (Fault::PacketsDoubled, passage.doubled),
            (Fault::PacketsReordered, passage.held),
        ];
        for (fault, count) in hit.into_iter().filter(|(_, count)| *count > 0) {
            *self.packets.entry(fault).or_default() += count;
            if self.unfelt.remove(&(volume, fault)) {
                self.hit(fault);
            }
        }
    }

    /// A satellite gives its link up, and the master does not hear of it: what the satellite sent in its last seconds is still on its
    /// way, and comes when the next link may be there already.
    fn linger(&mut self) -> Option<()> {
        let id = self.some_site()?;
        let link = self.links_of(id).pop()?;
        let (sends, lingers) = (self.seconds(1, 4), self.seconds(1, 5));
        let volume = self.sites.get(&id)?.volume;
        let up = &mut self.roads.entry(volume).or_default().up;
        if up.is_cut(self.now) || up.lingers.is_some_and(|(until, _)| self.now < until) {
            return None;
        }
        up.lingers = Some((self.now + nanos(sends), self.now + nanos(sends + lingers)));
        self.after(sends, Event::Gone(link, Way::Down));
        self.after(sends + lingers + Duration::from_secs(1), Event::Lapsed(link, Way::Up));
        Some(())
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

    /// `None` if it is cut already.
    fn cut(&mut self, id: InstanceId, way: Way, until: u64) -> Option<()> {
        let volume = self.sites.get(&id)?.volume;
        let was_whole = self.roads.entry(volume).or_default().of(way).cut(self.now, until);
        for link in self.links_of(id) {
            self.after(IDLE + Duration::from_millis(1), Event::Silence(link, way));
        }
        was_whole.then_some(())
    }

    /// Cuts several off both ways. `None` if all of them were.
    fn cut_off(&mut self, all: &[InstanceId], lasting: Duration) -> Option<()> {
        let until = self.now + nanos(lasting);
        let mut hit = None;
        for id in all {
            hit = hit.or(both(self.cut(*id, Way::Up, until), self.cut(*id, Way::Down, until)));
        }
        hit
    }

    /// The link of a volume flaps on: no batch gets through it, and it is looked at even where nothing is written.
    pub(super) fn flap(&mut self, volume: usize) {
        if self.calm || self.flapping.get(&volume).is_none_or(|(left, _)| *left == 0) {
            self.flapping.remove(&volume);
            return;
        }
        self.roads.entry(volume).or_default().up.stuck_until = self.now + nanos(FLAP_LOOK * 2);
        self.cut_behind(volume);
        self.after(FLAP_LOOK, Event::Flap(volume));
    }

    /// Cuts a link that flaps as soon as there is something undelivered behind it that was not there the time before.
    pub(super) fn cut_behind(&mut self, volume: usize) {
        let Some((left, undelivered)) = self.flapping.get(&volume).copied().filter(|(left, _)| *left > 0) else {
            return;
        };
        let site = self.sites.values().find(|site| site.volume == volume);
        let status = site.map(|site| (site.instance, site.scheduler.status(site.now(self.now))));
        let Some((id, status)) = status.filter(|(_, status)| status.connected && !status.fenced) else { return };
        let link = self.links_of(id).pop().filter(|_| status.undelivered > undelivered);
        if let Some(link) = link {
            self.witness.reach("a link flaps");
            self.after(Duration::ZERO, Event::Gone(link, Way::Up));
            self.after(Duration::ZERO, Event::Gone(link, Way::Down));
            self.flapping.insert(volume, (left - 1, status.undelivered));
        } else {
            self.flapping.insert(volume, (left, undelivered.min(status.undelivered)));
        }
    }

    /// A region is cut off for so long that what waits behind the cut is much, or much too old.
    pub(super) fn long_cut(&mut self) {
        let Some(lasts) = self.plan.long_cut.filter(|_| !self.calm) else { return };
        let Some(region) = self.some_site().and_then(|id| Some(self.sites.get(&id)?.slot.region.clone())) else {
            return self.after(Duration::from_secs(1), Event::LongCut);
        };
        self.line(|| format!("FAULT LongCut of {region} for {lasts:?}"));
        let in_it = self.sites.values().filter(|site| site.slot.region == region);
        let all: Vec<InstanceId> = in_it.map(|site| site.instance).collect();
        // Whoever comes to one of its machines later is cut off with it.
        self.cut_off(&all, lasts);
        self.hit(Fault::LongCut);
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
        if self.master_clock.drifted_ms(self.now).abs() >= DRIFTED_MS {
            self.witness.reach("the master's clock has drifted");
        }
        self.volumes.iter_mut().for_each(Volume::empty_out);
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
        (self.commit_fails, self.order_fails, self.power_fails) = (false, false, None);
        let open: Vec<(InstanceId, u64)> = self.links.iter().map(|(number, link)| (link.instance, *number)).collect();
        open.into_iter().for_each(|(id, link)| self.look_later(id, link));
        self.drained.clear();
        self.holding = false;
        self.order();
        // An order on its way to disk is not seen yet: the operator looks again.
        self.after(Duration::from_secs(30), Event::Operator);
    }
}

/// Makes something so for that long; `None`, and nothing is changed, if it is so already.
fn lasts(now: u64, until: &mut u64, lasting: Duration) -> Option<()> {
    if now < *until {
        return None;
    }
    *until = now + nanos(lasting);
    Some(())
}

/// Until when a road does this to packets.
fn bad_until(road: &mut Road, fault: Fault) -> &mut u64 {
    match fault {
        Fault::PacketsLost => &mut road.lossy_until,
        Fault::PacketsDoubled => &mut road.doubling_until,
        _ => &mut road.reordering_until,
    }
}

/// Either of two that both were tried.
fn both(one: Option<()>, other: Option<()>) -> Option<()> {
    one.or(other)
}
