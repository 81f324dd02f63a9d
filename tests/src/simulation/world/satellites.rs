//! The satellites of a world: begin, probe, write, end. Carries what their brains say to disks, daemons and links.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use satellite::command::{Command, Identity as Process, Limits, ProbeId, SpooledBatch};
use satellite::outbox::grace::RUNS_KEPT_MAX;
use satellite::scheduler::Scheduler;
use satellite::spool;
use shared::check::{Exit, Outcome};
use shared::delivery::{RUNS_UNDELIVERED_MAX, reason};
use shared::name::{InstanceId, RunId, Slot};
use shared::state::StateType;
use shared::time::{Monotonic, Timestamp};

use super::headquarters::{MANY, first_word};
use super::{Event, INSTALLATION, SURVEY, World, nanos};
use crate::simulation::defect::Hand;
use crate::simulation::fault::Moment;
use crate::simulation::network::{IDLE, Way};
use crate::simulation::plan::Fault;
use crate::simulation::secret;
use crate::simulation::site::Site;
use crate::simulation::trace::short;
use crate::simulation::witness::{SOON, Taken, Weighing};

impl World {
    pub(in crate::simulation) fn start(&mut self, slot: Slot, volume: usize, extra: bool) {
        let instance = InstanceId(self.chance.name());
        let identity = Process {
            installation: self.estate.installation(INSTALLATION),
            slot: slot.clone(),
            instance,
            software: "1".to_owned(),
        };
        let run = if self.has(Hand::RunReused) { RunId([7; 16]) } else { RunId(self.chance.name()) };
        let old = self.chance.one_in(6);
        let clock = self.clocks.get(volume).copied().unwrap_or_default();
        let Some(disk) = self.volumes.get_mut(volume) else { return };
        let (seat, beginning) = disk.enter(&identity, run);
        if old {
            self.witness.reach("a satellite of the version before");
        }
        self.witness.opened(run, instance);
        let bitten = disk.bitten(&seat);
        bitten.into_iter().for_each(|(run, last)| self.witness.shortened(volume, run, last));
        for found in &beginning.earlier {
            self.witness.found(volume, &slot, found.run, found.last.0);
            self.witness.reach("an earlier process's run is delivered");
        }
        if beginning.kept.is_some() {
            self.witness.reach("a start from disk");
        }
        if beginning.neighbour {
            self.witness.reach("a neighbour on the volume");
        }
        let runs: Vec<String> =
            beginning.earlier.iter().map(|found| format!(", {} {}..={}", found.run, found.first, found.last)).collect();
        let now = satellite::clock::Now { monotonic: Monotonic(self.now), wall: clock.at(self.now) };
        let (kept, states) = (beginning.kept.clone(), beginning.states.clone());
        let scheduler = Scheduler::new(identity, beginning, now)
            .with_limits(self.plan.limits)
            .with_window(self.plan.window)
            .with_defects(self.defects());
        self.witness.found_states(instance, kept.as_ref(), &states, scheduler.states());
        self.line(|| format!("{slot} {} starts on volume {volume}{}", short(instance), runs.concat()));
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
                told: BTreeMap::new(),
                unacknowledged: BTreeMap::new(),
                wake: None,
                paused_until: 0,
                failures: 0,
                served: false,
                // The version before forgot it with each process.
                linked_before: kept.is_some() && !old,
                ends_by: None,
                refused: None,
                given_up: 0,
                extra,
                old,
            },
        );
        if extra {
            let stays = self.chance.time(Duration::from_secs(20), Duration::from_secs(400));
            self.after(stays, Event::Depart(instance));
        }
        self.after(SURVEY, Event::Survey(instance));
        self.after(Duration::from_millis(1), Event::Dial(instance));
        self.drain(instance);
    }

    /// Does what a satellite's brain says.
    pub(in crate::simulation) fn drain(&mut self, id: InstanceId) {
        while let Some(command) = self.sites.get_mut(&id).and_then(Site::poll) {
            match command {
                Command::Probe { probe, check } => {
                    let took = if self.calm || !self.chance.one_in(20) {
                        self.chance.time(Duration::from_millis(2), Duration::from_millis(400))
                    } else {
                        check.policy.timeout()
                    };
                    if check.carried.is_some_and(|carried| carried.state.state_type == StateType::Soft) {
                        self.witness.reach("a carried state is soft");
                    }
                    if self.links_of(id).is_empty() {
                        self.witness.reach("a check runs without the master");
                    }
                    self.trace.decided(self.now, whose(id), &check.id.0.to_be_bytes());
                    if let Some(site) = self.sites.get_mut(&id) {
                        site.probes.insert(probe, *check);
                    }
                    self.after(took, Event::Probed(id, probe));
                }
                Command::Send { lane, payload } => self.send_up(id, lane, payload),
                order => {
                    self.trace.decided(self.now, whose(id), &all_of(&order));
                    self.line(|| format!("{} orders {}", short(id), told_order(&order)));
                    self.written(id, &order);
                    self.delete(id, &order);
                    if let Some(site) = self.sites.get_mut(&id) {
                        site.orders.push_back(spool::Order::Do(order));
                    }
                }
            }
        }
        self.work(id);
        let Some(site) = self.sites.get_mut(&id) else { return };
        let under_way = site.orders.iter().map(appended).sum();
        let told = site.scheduler.in_memory();
        self.witness.remembers(id, told.bytes, under_way, told.gaps, self.plan.limits.memory);
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

    /// What goes to the disk is looked at: no secrets in it (I15), no run beyond the bound of runs (I9).
    fn written(&mut self, id: InstanceId, order: &Command) {
        let tells = match order {
            Command::Append { batches, .. } => {
                self.witness.spools(batches);
                if batches.iter().any(|batch| batch.last.0 - batch.first.0 + 1 >= as_u64(MANY)) {
                    self.witness.reach("a batch of many results");
                }
                batches.iter().any(|batch| secret::batch_tells(&batch.bytes))
            }
            Command::KeepStates(states) => secret::tells(&minicbor::to_vec(states).unwrap_or_default()),
            _ => false,
        };
        if tells {
            self.witness.violated("I15", format!("what a check was asked with is spooled by {id}"));
        }
        if let (Command::OpenRun, Some(site)) = (order, self.sites.get(&id)) {
            let its = self.volumes.get(site.volume).map(|volume| volume.runs(&site.seat)).unwrap_or_default();
            let undelivered = self.witness.undelivered_runs(site.volume, &its, &site.told);
            if undelivered + 1 == RUNS_UNDELIVERED_MAX {
                self.witness.reach("the sixty-fourth run");
            }
            if undelivered >= RUNS_UNDELIVERED_MAX {
                self.witness.violated("I9", format!("{id} opens a run beside {undelivered} undelivered ones"));
            }
        }
    }

    pub(in crate::simulation) fn delete(&mut self, id: InstanceId, order: &Command) {
        let Some(site) = self.sites.get(&id) else { return };
        match order {
            Command::Trim { run, up_to } => {
                let grace = self.grace(site);
                self.witness.deleted(site.volume, id, &site.slot, *run, Some(up_to.0), grace);
            }
            Command::CloseRun(run) => {
                let grace = self.grace(site);
                self.witness.deleted(site.volume, id, &site.slot, *run, None, grace);
            }
            Command::GiveUp { run, first, up_to, .. } => {
                self.witness.given_up(site.volume, &site.slot, *run, first.0, up_to.0);
            }
            _ => {}
        }
    }

    /// How long what this process has delivered must stay; `None` where something else may end its time: too many bytes or runs, others
    /// that fill the volume, a disk that takes nothing, or results too old to be kept.
    fn grace(&self, site: &Site) -> Option<Duration> {
        let volume = self.volumes.get(site.volume)?;
        let pressed = volume.room(&site.seat).held > volume.limits.kept_bytes()
            || self.witness.is_crowded(site.instance)
            || volume.runs(&site.seat).len() > RUNS_KEPT_MAX
            || volume.limits.age < Limits::DEFAULT.age
            || site.refused.is_some_and(|refused| refused + nanos(volume.limits.grace) >= self.now);
        (!pressed).then_some(volume.limits.grace)
    }

    /// Gives the disk its next order, if it is idle.
    pub(in crate::simulation) fn work(&mut self, id: InstanceId) {
        let slow = self.now < self.volume_slow_until;
        let Some(site) = self.sites.get_mut(&id) else { return };
        if site.disk_busy {
            return;
        }
        let Some(order) = site.orders.front() else { return };
        let appends = matches!(order, spool::Order::Do(Command::Append { .. }));
        if let Some(volume) = self.volumes.get_mut(site.volume) {
            volume.begin(&site.seat, order);
        }
        site.disk_busy = true;
        let took = if slow { (100, 4000) } else { (1, 12) };
        let took = self.chance.time(Duration::from_millis(took.0), Duration::from_millis(took.1));
        if appends && self.power_fails.take_if(|moment| *moment == Moment::Writing).is_some() {
            self.after(took / 2, Event::PowerFails(id));
        }
        self.after(took, Event::Disk(id));
    }

    pub(in crate::simulation) fn disk(&mut self, id: InstanceId) {
        let fresh = RunId(self.chance.name());
        let Some(site) = self.sites.get_mut(&id) else { return };
        let now = site.now(self.now);
        site.disk_busy = false;
        let Some(order) = site.orders.pop_front() else { return };
        let Some(volume) = self.volumes.get_mut(site.volume) else { return };
        let said = self.trace.is_read().then(|| told_order_of(&order));
        let reads = matches!(order, spool::Order::Do(Command::Read { .. }));
        let ages = matches!(&order, spool::Order::Do(Command::GiveUp { reason: reason::SPOOL_AGE, .. }));
        let fails = matches!(order, spool::Order::Do(_)) && std::mem::take(&mut self.order_fails);
        if fails {
            *self.faults.entry(Fault::OrderFailed).or_default() += 1;
        }
        let fails = fails || (reads && self.now < self.volume_unreadable_until);
        let before = volume.begins(&site.seat);
        let answer = volume.execute(&mut site.seat, order, fails, fresh);
        let after = volume.begins(&site.seat);
        for (run, first) in before {
            let now_first = after.get(&run).copied();
            if now_first.is_none_or(|now_first| now_first > first) {
                let up_to = now_first.map(|now_first| now_first - 1);
                self.witness.vanished(site.volume, &site.slot, run, up_to);
            }
        }
        let synced = matches!(answer, Some(spool::Answer::Appended { .. }));
        if let Some(answer) = answer {
            match &answer {
                spool::Answer::Opened { run, .. } => {
                    self.witness.opened(*run, id);
                    self.witness.reach("a run is opened at a reconnect");
                }
                spool::Answer::Appended { run, up_to } => self.witness.durable(site.volume, &site.slot, *run, up_to.0),
                spool::Answer::AppendFailed => self.witness.reach("results are in memory only"),
                spool::Answer::ReadFailed { .. } => self.witness.reach("a read fails"),
                spool::Answer::OpenFailed => self.witness.reach("no run could be opened"),
                spool::Answer::KeepFailed => self.witness.reach("the assignment was not kept"),
                spool::Answer::StatesFailed => self.witness.reach("the states were not kept"),
                spool::Answer::Trimmed { .. } => self.witness.reach("a run is trimmed"),
                spool::Answer::GivenUp { lost, .. } if *lost > 0 && ages => {
                    self.witness.reach("results lay in the spool for too long and were given up");
                }
                spool::Answer::GivenUp { lost, .. } if *lost > 0 => {
                    self.witness.reach("the spool is full and forced something out");
                }
                spool::Answer::Neighbours { adopted: Some(adopted), .. } => {
                    for (run, last) in volume.bitten(&site.seat) {
                        self.witness.shortened(site.volume, run, last);
                    }
                    for found in &adopted.runs {
                        self.witness.found(site.volume, &site.slot, found.run, found.last.0);
                    }
                    self.witness.reach("a directory is adopted by a living process");
                }
                _ => {}
            }
            let told = said.map(|said| format!("{} disk: {said} -> {}", short(id), told_answer(&answer)));
            let room = volume.room(&site.seat);
            site.scheduler.handle_room(now, room);
            let failed = matches!(answer, spool::Answer::AppendFailed);
            if failed {
                site.refused = Some(self.now);
            }
            let adopts = matches!(answer, spool::Answer::Neighbours { adopted: Some(_), .. });
            site.answered(now, answer);
            if adopts {
                self.witness.knows(id, site.timeline(), site.scheduler.states());
            }
            if failed && site.scheduler.status(now).given_up > site.given_up {
                self.witness.reach("memory is full and forced something out");
            }
            let offset = site.scheduler.status(now).offset_ms;
            let time = offset.map(|offset| Timestamp::from_millis(now.wall.as_millis().saturating_add(offset)));
            // Whoever stood still has not looked meanwhile.
            let looks = site.paused_until == 0 || self.now >= site.paused_until + nanos(SOON);
            let healthy = looks && !fails && !volume.refuses() && self.now >= self.volume_slow_until;
            let found = Weighing { weight: volume.weigh(&site.seat, &site.told), room, time, healthy };
            self.witness.weighed(id, &found, &volume.limits);
            if let Some(told) = told {
                self.line(|| told);
            }
        }
        if synced && self.power_fails.take_if(|moment| *moment == Moment::Synced).is_some() {
            self.witness.reach("the power fails right behind a sync");
            return self.fail_power(id);
        }
        self.drain(id);
        if synced && let Some(volume) = self.sites.get(&id).map(|site| site.volume) {
            self.cut_behind(volume);
        }
    }

    /// The power fails at the worst moment.
    pub(in crate::simulation) fn fail_power(&mut self, id: InstanceId) {
        let Some(volume) = self.sites.get(&id).map(|site| site.volume) else { return };
        self.hit(Fault::SatellitePowerLost);
        self.lose_power(volume);
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
        let before = site.scheduler.status(now);
        let ended = outcome.started.plus(outcome.duration).as_millis().saturating_add(before.offset_ms.unwrap_or(0));
        let known = |site: &Site| site.scheduler.states().get(&check.id).copied();
        let mut taken = Taken { check: &check, before: known(site), after: None, results: 0 };
        site.scheduler.handle_outcome(now, probe, outcome);
        let after = site.scheduler.status(now);
        let number = self.answers;
        if after.results > before.results {
            (taken.after, taken.results) = (known(site), after.results - before.results);
            self.witness.answered(id, number, self.now);
            self.witness.folds(id, &taken, state, Timestamp::from_millis(ended), number);
        } else {
            self.witness.reach("an answer is good for nothing");
        }
        if after.fenced && after.results > before.results {
            self.witness.reach("an answer comes after the fence");
        }
        self.line(|| format!("{} asked {}: {state}, answer {number}", short(id), check.object));
        self.drain(id);
    }

    /// A process ends. `power`: with its machine; `farewell`: it says so to the master.
    pub(in crate::simulation) fn leave(&mut self, id: InstanceId, power: bool, farewell: bool) {
        let Some(site) = self.sites.remove(&id) else { return };
        self.line(|| format!("{} {} ends, power lost: {power}, as told: {farewell}", site.slot, short(id)));
        let left = site.scheduler.status(site.now(self.now)).undelivered;
        if farewell && site.scheduler.is_settled() && left == 0 {
            self.witness.reach("a process ends with everything delivered");
        }
        if let Some(volume) = self.volumes.get_mut(site.volume) {
            let left = volume.leave(&site.seat, power, &mut self.chance);
            if left.lost {
                self.witness.reach("what was written is lost with the power");
            }
            if left.torn {
                self.witness.reach("a batch is torn in the middle of its record");
            }
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

/// Bytes of the batches of an order.
fn appended(order: &spool::Order) -> usize {
    match order {
        spool::Order::Do(Command::Append { batches, .. }) => batches.iter().map(|batch| batch.bytes.len()).sum(),
        _ => 0,
    }
}

fn as_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// A process in the digest.
pub(in crate::simulation) fn whose(id: InstanceId) -> u64 {
    id.0.first_chunk::<8>().copied().map_or(0, u64::from_be_bytes)
}

/// An order in the digest, with everything that goes to disk.
fn all_of(order: &Command) -> Vec<u8> {
    match order {
        Command::Append { run, batches } => {
            let mut all = b"append".to_vec();
            all.extend(run.0);
            for SpooledBatch { first, last, bytes } in batches {
                all.extend(first.0.to_be_bytes());
                all.extend(last.0.to_be_bytes());
                all.extend(as_u64(bytes.len()).to_be_bytes());
                all.extend_from_slice(bytes);
            }
            all
        }
        Command::Keep(kept) => [b"keep".as_slice(), minicbor::to_vec(kept).unwrap_or_default().as_slice()].concat(),
        Command::KeepStates(states) => {
            [b"states".as_slice(), minicbor::to_vec(states).unwrap_or_default().as_slice()].concat()
        }
        other => format!("{other:?}").into_bytes(),
    }
}

/// An order in a few words.
fn told_order(order: &Command) -> String {
    match order {
        Command::Append { run, batches } => {
            let spans: Vec<String> = batches.iter().map(|batch| format!("{}..={}", batch.first, batch.last)).collect();
            format!("append to {run}: {}", spans.join(", "))
        }
        Command::Keep(kept) => format!("keep assignment {}", kept.assignment.generation),
        Command::KeepStates(states) => format!("keep {} states", states.states.len()),
        other => format!("{other:?}"),
    }
}

fn told_order_of(order: &spool::Order) -> String {
    match order {
        spool::Order::Do(command) => told_order(command),
        spool::Order::Survey => "survey".to_owned(),
        spool::Order::Tell(_) => "tell".to_owned(),
    }
}

fn told_answer(answer: &spool::Answer) -> String {
    match answer {
        spool::Answer::Read { found, .. } => format!("{} batches through {}", found.batches.len(), found.through),
        spool::Answer::Neighbours { alive, adopted } => {
            let runs = adopted.as_ref().map_or(0, |adopted| adopted.runs.len());
            format!("neighbour alive: {alive}, {runs} runs adopted")
        }
        other => first_word(&format!("{other:?}")),
    }
}
