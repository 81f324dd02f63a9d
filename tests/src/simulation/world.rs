//! One world: a master, its satellites, their disks and the network between, on one thread and one virtual clock. Carries orders and
//! frames between the two real brains as the shells do; everything that may go wrong is drawn from the seed (`fault`), everything
//! that must hold is judged by the witness. Knows no invariant.

mod errand;
mod headquarters;
mod impostor;
mod satellites;
mod wires;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use master::coordinator::Coordinator;
use master::entry::{Entry, Row};
use master::fleet::ConnectionId;
use satellite::command::ProbeId;
use shared::check::State;
use shared::defect::Defects;
use shared::delivery::Key;
use shared::frame::Lane;
use shared::name::{CheckId, InstanceId, JournalIndex, ObjectName, RunId, Slot, SlotNumber};
use shared::state::StateType;
use shared::time::Timestamp;

use super::chance::Chance;
use super::defect::{Hand, Planted};
use super::estate::Estate;
use super::fault::Moment;
use super::network::{Link, Roads, Way};
use super::outlet::Outlet;
use super::plan::{CUT_BY, Fault, Plan};
use super::purse::Purse;
use super::secret;
use super::site::{Site, WallClock};
use super::store::Store;
use super::trace::Trace;
use super::volume::Volume;
use super::witness::Witness;

/// A world that goes on for longer is stuck.
pub(super) const EVENTS_MAX: u64 = 20_000;
/// After the last fault everything must be right within this.
pub(super) const QUIET: Duration = Duration::from_secs(600);
/// What the volume's other directories hold is looked at this often, as by the real process.
const SURVEY: Duration = satellite::run::SURVEY_EVERY;
/// How often the metrics writer is looked at.
const METRICS: Duration = Duration::from_secs(10);
/// An attempt to connect that nobody answers.
const CONNECT: Duration = satellite::link::CONNECT_DEADLINE;
const INSTALLATION: &str = "simulated";

pub(super) const fn nanos(time: Duration) -> u64 {
    time.as_secs() * 1_000_000_000 + time.subsec_nanos() as u64
}

/// Something that will happen.
#[derive(Debug)]
pub(super) enum Event {
    /// A process begins on a volume.
    Start {
        slot: Slot,
        volume: usize,
        extra: bool,
    },
    /// A second process for a slot goes again.
    Depart(InstanceId),
    Wake(InstanceId),
    /// The disk has done the order in front.
    Disk(InstanceId),
    Probed(InstanceId, ProbeId),
    Survey(InstanceId),
    Dial(InstanceId),
    Opened(InstanceId, u64),
    /// The frame in front of a lane arrives.
    Arrive(u64, Way, Lane),
    /// One side has perhaps heard nothing for too long; `Way` is the one on which nothing came.
    Silence(u64, Way),
    /// Somebody who is no satellite says something.
    Forged(u64, Lane, Vec<u8>),
    /// One side is told that the link is gone, or gives it up: the master's end for `Up`.
    Gone(u64, Way),
    /// One side has heard nothing for too long.
    Lapsed(u64, Way),
    /// What a process knows is remembered, and compared with what the master shows a little later.
    Look(InstanceId, u64),
    Compare(InstanceId, u64, BTreeMap<CheckId, Key>),
    MasterStart,
    MasterWake(u64),
    Committed(u64),
    Fault,
    /// The machine of a process loses power.
    PowerFails(InstanceId),
    /// There is room on a volume again.
    VolumeFreed(usize),
    /// The link of a volume's process is looked at: it flaps.
    Flap(usize),
    /// The master's store is backed up.
    BackUp,
    /// Something goes wrong that belongs to what went wrong before.
    Befall(Fault),
    /// A region is cut off for long.
    LongCut,
    /// The metrics writer goes on.
    Outlet,
    /// The operator makes sure that what was written runs.
    Operator,
    /// From here on nothing goes wrong any more.
    Calm,
}

#[derive(Debug)]
pub(super) struct Master {
    pub(super) coordinator: Coordinator,
    pub(super) epoch: u64,
    pub(super) links: BTreeMap<ConnectionId, u64>,
    wake: Option<u64>,
    pub(super) committing: bool,
}

/// One world.
#[derive(Debug)]
pub(super) struct World {
    pub(super) chance: Chance,
    pub(super) plan: Plan,
    pub(super) now: u64,
    events: BTreeMap<(u64, u64), Event>,
    order: u64,
    pub(super) store: Store,
    pub(super) master: Option<Master>,
    pub(super) master_clock: WallClock,
    pub(super) epoch: u64,
    connections: u64,
    pub(super) volumes: Vec<Volume>,
    /// The clock of each satellite's machine, by volume.
    pub(super) clocks: Vec<WallClock>,
    pub(super) sites: BTreeMap<InstanceId, Site>,
    pub(super) roads: BTreeMap<usize, Roads>,
    pub(super) links: BTreeMap<u64, Link>,
    pub(super) estate: Estate,
    pub(super) outlet: Outlet,
    pub(super) witness: Witness,
    pub(super) purse: Purse,
    pub(super) faults: BTreeMap<Fault, u64>,
    /// Packets that were lost, came twice or were held back.
    pub(super) packets: BTreeMap<Fault, u64>,
    /// Volumes whose roads are bad for packets and have hit none yet.
    pub(super) unfelt: BTreeSet<(usize, Fault)>,
    pub(super) store_slow_until: u64,
    pub(super) commit_fails: bool,
    pub(super) store_full_until: u64,
    checkpoint_due: u64,
    failed_in_a_row: u32,
    pub(super) master_paused_until: u64,
    pub(super) denied: BTreeMap<Slot, u64>,
    pub(super) volume_slow_until: u64,
    pub(super) volume_unreadable_until: u64,
    pub(super) order_fails: bool,
    /// The power of whoever is there next fails.
    pub(super) power_fails: Option<Moment>,
    /// Volumes whose link flaps: how often still, and what was undelivered the time before.
    pub(super) flapping: BTreeMap<usize, (u32, u64)>,
    /// Of each run, how far batches of it ever came, and on which link last.
    pub(super) heard: BTreeMap<RunId, (u64, u64)>,
    /// The newest link on which batches of a process came.
    pub(super) newest_heard: BTreeMap<InstanceId, u64>,
    pub(super) calm: bool,
    /// Slots that the operator wants drained.
    pub(super) drained: BTreeSet<Slot>,
    /// The operator wants no host moved.
    pub(super) holding: bool,
    /// The operator will come back to what was not done.
    pub(super) operator_waits: bool,
    requests: u64,
    answers: u64,
    stuck: bool,
    pub(super) planted: Option<Planted>,
    pub(super) trace: Trace,
}

impl World {
    /// The world of a seed.
    #[must_use]
    pub(super) fn new(seed: u64, planted: Option<Planted>, trace: Trace) -> Self {
        let mut chance = Chance::new(seed);
        let plan = Plan::draw(&mut chance);
        let mut world = Self {
            estate: Estate::found(&plan, &mut chance),
            chance,
            purse: Purse::new(plan.pool),
            plan,
            now: 0,
            events: BTreeMap::new(),
            order: 0,
            store: Store::default(),
            master: None,
            master_clock: WallClock::default(),
            epoch: 0,
            connections: 0,
            volumes: Vec::new(),
            clocks: Vec::new(),
            sites: BTreeMap::new(),
            roads: BTreeMap::new(),
            links: BTreeMap::new(),
            outlet: Outlet::default(),
            witness: Witness::default(),
            faults: BTreeMap::new(),
            packets: BTreeMap::new(),
            unfelt: BTreeSet::new(),
            store_slow_until: 0,
            commit_fails: false,
            store_full_until: 0,
            checkpoint_due: 0,
            failed_in_a_row: 0,
            master_paused_until: 0,
            denied: BTreeMap::new(),
            volume_slow_until: 0,
            volume_unreadable_until: 0,
            order_fails: false,
            power_fails: None,
            flapping: BTreeMap::new(),
            heard: BTreeMap::new(),
            newest_heard: BTreeMap::new(),
            calm: false,
            drained: BTreeSet::new(),
            holding: false,
            operator_waits: false,
            requests: 0,
            answers: 0,
            stuck: false,
            planted,
            trace,
        };
        // No start order: everybody comes when they come.
        for slot in world.estate.slots() {
            let volume = world.new_volume(world.empty_volume());
            let at = world.chance.time(Duration::ZERO, Duration::from_secs(20));
            world.after(at, Event::Start { slot, volume, extra: false });
        }
        let at = world.chance.time(Duration::ZERO, Duration::from_secs(20));
        world.after(at, Event::MasterStart);
        world.outlet.cursor_ahead = world.has(Hand::CursorAhead);
        world.after(METRICS, Event::Outlet);
        let first = world.plan.fault_every;
        world.after(first, Event::Fault);
        if world.plan.long_cut.is_some() {
            let at = world.chance.time(Duration::from_secs(60), CUT_BY);
            world.after(at, Event::LongCut);
        }
        if world.plan.drift_ppm > 0 {
            world.master_clock.drift_ppm = world.drift();
        }
        // One fault of the world, however many machines it has.
        if world.clocks.iter().chain([&world.master_clock]).any(|clock| clock.drift_ppm != 0) {
            world.hit(Fault::ClockDrifting);
        }
        let faulty = world.plan.faulty;
        world.after(faulty, Event::Calm);
        world
    }

    /// Lets it go on until everything has long been quiet.
    pub(super) fn run(&mut self) {
        let (mut end, busy) = (nanos(self.plan.faulty + QUIET), self.plan.busy());
        while let Some(((at, _), event)) = self.events.pop_first() {
            if at > end {
                break;
            }
            if self.is_void(&event, at) {
                continue;
            }
            self.now = at;
            self.witness.now = at;
            self.witness.step += 1;
            if self.witness.step > EVENTS_MAX {
                self.stuck = true;
                break;
            }
            let before = self.witness.violations().len();
            // A frame or a record that ends a brain ends everything behind it: a decoder never panics (I13).
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.happen(event))) {
                let said = panic.downcast_ref::<String>().map(String::as_str);
                let said = said.or(panic.downcast_ref::<&str>().copied()).unwrap_or("without a word").to_owned();
                return self.witness.violated("I13", format!("a panic: {said}"));
            }
            self.tell_violations(before);
            if self.witness.step > busy && !self.calm {
                self.calm();
                end = self.now + nanos(QUIET);
            }
        }
        let before = self.witness.violations().len();
        self.judge();
        self.tell_violations(before);
    }

    /// What was to happen to somebody who has gone does not happen, nor does a deadline that another has replaced.
    fn is_void(&self, event: &Event, at: u64) -> bool {
        match event {
            Event::Wake(id) => self.sites.get(id).is_none_or(|site| site.wake.is_none_or(|wake| wake > at)),
            Event::Disk(id)
            | Event::Probed(id, _)
            | Event::Survey(id)
            | Event::Dial(id)
            | Event::Opened(id, _)
            | Event::PowerFails(id)
            | Event::Depart(id) => !self.sites.contains_key(id),
            Event::Arrive(link, ..)
            | Event::Forged(link, ..)
            | Event::Silence(link, _)
            | Event::Gone(link, _)
            | Event::Lapsed(link, _) => !self.links.contains_key(link),
            Event::MasterWake(epoch) => {
                let of = |master: &Master| master.epoch == *epoch && master.wake.is_some_and(|wake| wake <= at);
                !self.master.as_ref().is_some_and(of)
            }
            Event::Committed(epoch) => self.master.as_ref().is_none_or(|master| master.epoch != *epoch),
            _ => false,
        }
    }

    fn tell_violations(&mut self, before: usize) {
        let (now, step) = (self.now, self.witness.step);
        for violation in self.witness.violations().iter().skip(before) {
            self.trace.line(now, step, || format!("VIOLATED {}: {}", violation.invariant, violation.what));
        }
    }

    /// A line for whoever reads along.
    pub(super) fn line(&mut self, text: impl FnOnce() -> String) {
        self.trace.line(self.now, self.witness.step, text);
    }

    pub(super) fn after(&mut self, time: Duration, event: Event) {
        self.at(self.now.saturating_add(nanos(time)), event);
    }

    pub(super) fn at(&mut self, at: u64, event: Event) {
        self.order += 1;
        self.events.insert((at.max(self.now), self.order), event);
    }

    pub(super) fn new_volume(&mut self, volume: Volume) -> usize {
        self.volumes.push(volume);
        let drift_ppm = self.drift();
        self.clocks.push(WallClock { offset_ms: 0, drift_ppm });
        self.volumes.len() - 1
    }

    /// How fast a machine's clock runs.
    fn drift(&mut self) -> i64 {
        let most = self.plan.drift_ppm;
        i64::try_from(self.chance.below(2 * most + 1)).unwrap_or(0) - i64::try_from(most).unwrap_or(0)
    }

    /// A disk with nothing on it.
    pub(super) fn empty_volume(&self) -> Volume {
        let mut volume = Volume::default();
        volume.limits = self.plan.limits;
        volume.size = self.plan.volume_size;
        volume.sync_skipped = self.has(Hand::SyncSkipped);
        volume.deleted_early = self.has(Hand::DeletedEarly);
        volume.locks_ignored = self.has(Hand::LockIgnored);
        volume
    }

    fn has(&self, hand: Hand) -> bool {
        self.planted == Some(Planted::Hand(hand))
    }

    /// Defects of the brains.
    fn defects(&self) -> Defects {
        self.planted.map(Planted::in_brains).unwrap_or_default()
    }

    fn wall(&self) -> Timestamp {
        self.master_clock.at(self.now)
    }

    /// The master's process is stopped, not ended.
    pub(super) fn master_pauses(&self) -> bool {
        self.now < self.master_paused_until && self.master.is_some()
    }

    fn happen(&mut self, event: Event) {
        if self.master_pauses()
            && matches!(
                event,
                Event::MasterWake(_)
                    | Event::Committed(_)
                    | Event::Arrive(_, Way::Up, _)
                    | Event::Gone(_, Way::Up)
                    | Event::Lapsed(_, Way::Up)
                    | Event::Silence(_, Way::Up)
                    | Event::Operator
            )
        {
            let until = self.master_paused_until;
            return self.at(until, event);
        }
        match event {
            Event::Start { slot, volume, extra } => self.start(slot, volume, extra),
            Event::MasterStart => self.start_master(),
            Event::MasterWake(epoch) => self.wake_master(epoch),
            Event::Committed(epoch) => self.committed(epoch),
            Event::Arrive(link, way, lane) => self.arrive(link, way, lane),
            Event::Forged(link, lane, payload) => self.forge(link, lane, payload),
            Event::Silence(link, way) => self.silence(link, way),
            Event::Gone(link, end) => self.gone(link, end, false),
            Event::Lapsed(link, end) => self.gone(link, end, true),
            Event::Fault => self.fault(),
            Event::PowerFails(id) => self.fail_power(id),
            Event::VolumeFreed(volume) => {
                if let Some(volume) = self.volumes.get_mut(volume) {
                    volume.empty_out();
                }
            }
            Event::Depart(id) => self.leave(id, false, false),
            Event::Flap(volume) => self.flap(volume),
            Event::BackUp => self.store.back_up(self.outlet.cursor()),
            Event::Befall(fault) => self.strike(fault),
            Event::LongCut => self.long_cut(),
            Event::Outlet => self.write_metrics(),
            Event::Calm if self.calm => {}
            Event::Calm => self.calm(),
            Event::Operator => {
                self.operator_waits = false;
                self.activate();
                self.order();
            }
            Event::Look(id, link) => self.look(id, link),
            Event::Compare(id, link, keys) => self.compare(id, link, &keys),
            Event::Wake(id)
            | Event::Disk(id)
            | Event::Probed(id, _)
            | Event::Survey(id)
            | Event::Dial(id)
            | Event::Opened(id, _) => {
                let Some(site) = self.sites.get(&id) else { return };
                if site.paused_until > self.now {
                    let until = site.paused_until;
                    return self.at(until, event);
                }
                match event {
                    Event::Wake(_) => self.wake(id),
                    Event::Disk(_) => self.disk(id),
                    Event::Probed(_, probe) => self.probed(id, probe),
                    Event::Survey(_) => self.survey(id),
                    Event::Dial(_) => self.dial(id),
                    Event::Opened(_, epoch) => self.opened(id, epoch),
                    _ => {}
                }
            }
        }
    }

    /// Answers in rows that were trimmed before the metrics writer had sent them, and that the journal names.
    fn overrun(&self) -> BTreeSet<u64> {
        let rows = self.store.all_rows();
        let gaps: Vec<(JournalIndex, JournalIndex)> = rows
            .iter()
            .filter_map(|row| if let Entry::WriterGap(gap) = &row.entry { Some((gap.first, gap.last)) } else { None })
            .collect();
        let named = |row: &&Row| gaps.iter().any(|(first, last)| (*first..=*last).contains(&row.index));
        rows.iter().filter(named).flat_map(Outlet::points).collect()
    }

    fn judge(&mut self) {
        if self.stuck {
            return self.witness.violated("I10", format!("still busy after {EVENTS_MAX} events"));
        }
        let Some(master) = &self.master else {
            return self.witness.violated("I10", "the master is not back".to_owned());
        };
        let status = master.coordinator.published().clone();
        let living = self.sites.values().map(|site| (site.volume, site.instance)).collect();
        self.witness.settled(&status, &living);
        self.judge_commands(&status);
        let begins = self.store.replay(self.defects());
        for replayed in begins.into_iter().chain([self.store.replay_whole(self.defects())]) {
            self.witness.replayed(&replayed, Some(&status));
        }
        let overrun = self.overrun();
        let due = self.witness.due_at_stores().into_iter();
        let missing = due.filter(|number| !self.outlet.has(*number) && !overrun.contains(number)).count();
        if missing > 0 {
            self.witness.violated("I10", format!("{missing} results never came to the metrics store"));
        }
        if secret::tells(&status.encode()) {
            self.witness.violated("I15", "what a check was asked with stands in the state".to_owned());
        }
        let mut lagging: Vec<String> = Vec::new();
        for site in self.sites.values() {
            let told = site.scheduler.status(site.now(self.now));
            // What was made in the last seconds may still be on its way.
            let most = u64::try_from(told.checks).unwrap_or(u64::MAX).saturating_add(8);
            if told.undelivered > most || !told.connected || told.memory_only {
                lagging.push(format!("{} {}: {told:?}", site.slot, site.instance));
            }
        }
        for what in lagging {
            self.witness.violated("I10", what);
        }
        let living: BTreeSet<&str> = self.sites.values().map(|site| site.slot.region.as_str()).collect();
        let mut wrong = Vec::new();
        for (name, region) in self.estate.configured() {
            let Some(object) = status.id(&name).and_then(|id: CheckId| status.object(id)) else {
                wrong.push(format!("{name} is configured and unknown"));
                continue;
            };
            let expected = self.estate.last(&name);
            let expected = if name.is_host() { expected.as_host() } else { expected };
            let right = object.state.state == expected && object.state.state_type == StateType::Hard;
            if living.contains(region.as_str()) && !right {
                wrong.push(format!(
                    "{name} is {expected}, shown is {:?} under {:?} of {:?}",
                    object.state, object.key, object.owner
                ));
            }
        }
        for what in wrong {
            self.witness.violated("I4", what);
        }
    }
}

/// A slot of a world.
#[must_use]
pub(super) fn slot(region: &str, number: u32) -> Option<Slot> {
    Some(Slot { region: region.parse().ok()?, number: SlotNumber::new(number)? })
}

/// States a daemon may answer with.
pub(super) const STATES: [State; 4] = [State::Ok, State::Warning, State::Critical, State::Unknown];

/// An object's name, if it is one.
#[must_use]
pub(super) fn object(name: &str) -> Option<ObjectName> {
    name.parse().ok()
}
