//! One world: a master, its satellites, their disks and the network between, on one thread and one virtual clock. Carries orders and
//! frames between the two real brains as the shells do; everything that may go wrong is drawn from the seed (`fault`), everything
//! that must hold is judged by the witness. Knows no invariant.

mod headquarters;
mod satellites;
mod wires;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use master::coordinator::Coordinator;
use master::fleet::ConnectionId;
use satellite::command::ProbeId;
use shared::check::State;
use shared::delivery::Key;
use shared::frame::Lane;
use shared::name::{CheckId, InstanceId, ObjectName, Slot, SlotNumber};
use shared::state::StateType;
use shared::time::Timestamp;

use super::chance::Chance;
use super::defect::Defect;
use super::estate::Estate;
use super::network::{Link, Roads, Way};
use super::plan::{Fault, Plan};
use super::site::{Site, WallClock};
use super::store::Store;
use super::volume::Volume;
use super::witness::Witness;

/// A world that goes on for longer is stuck.
pub(super) const EVENTS_MAX: u64 = 200_000;
/// After the last fault everything must be right within this.
pub(super) const QUIET: Duration = Duration::from_secs(600);
/// What the volume's other directories hold is looked at this often, as by the real process.
const SURVEY: Duration = satellite::run::SURVEY_EVERY;
/// An attempt to connect that nobody answers.
const CONNECT: Duration = Duration::from_secs(5);
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
    /// One side is told, or finds, that the link is gone: the master's end for `Up`.
    Gone(u64, Way),
    /// What a process knows is remembered, and compared with what the master shows a little later.
    Look(InstanceId, u64),
    Compare(InstanceId, u64, BTreeMap<CheckId, Key>),
    MasterStart,
    MasterWake(u64),
    Committed(u64),
    Fault,
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
    /// How fast each machine's clock runs, by volume.
    pub(super) clocks: Vec<WallClock>,
    pub(super) sites: BTreeMap<InstanceId, Site>,
    pub(super) roads: BTreeMap<usize, Roads>,
    pub(super) links: BTreeMap<u64, Link>,
    pub(super) estate: Estate,
    pub(super) witness: Witness,
    pub(super) faults: BTreeMap<Fault, u64>,
    pub(super) store_slow_until: u64,
    pub(super) commit_fails: bool,
    pub(super) volume_slow_until: u64,
    pub(super) order_fails: bool,
    pub(super) calm: bool,
    requests: u64,
    answers: u64,
    stuck: bool,
    pub(super) defect: Option<Defect>,
}

impl World {
    /// The world of a seed.
    #[must_use]
    pub(super) fn new(seed: u64, defect: Option<Defect>) -> Self {
        let mut chance = Chance::new(seed);
        let plan = Plan::draw(&mut chance);
        let mut world = Self {
            estate: Estate::found(&plan, &mut chance),
            chance,
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
            witness: Witness::default(),
            faults: BTreeMap::new(),
            store_slow_until: 0,
            commit_fails: false,
            volume_slow_until: 0,
            order_fails: false,
            calm: false,
            requests: 0,
            answers: 0,
            stuck: false,
            defect,
        };
        // No start order: everybody comes when they come.
        for slot in world.estate.slots() {
            let volume = world.new_volume(world.empty_volume());
            let at = world.chance.time(Duration::ZERO, Duration::from_secs(20));
            world.after(at, Event::Start { slot, volume, extra: false });
        }
        let at = world.chance.time(Duration::ZERO, Duration::from_secs(20));
        world.after(at, Event::MasterStart);
        let first = world.plan.fault_every;
        world.after(first, Event::Fault);
        let faulty = world.plan.faulty;
        world.after(faulty, Event::Calm);
        world
    }

    /// Lets it go on until everything has long been quiet.
    pub(super) fn run(&mut self) {
        let end = nanos(self.plan.faulty + QUIET);
        while let Some(((at, _), event)) = self.events.pop_first() {
            if at > end {
                break;
            }
            self.now = at;
            self.witness.step += 1;
            if self.witness.step > EVENTS_MAX {
                self.stuck = true;
                break;
            }
            self.happen(event);
        }
        self.judge();
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
        let most = self.plan.drift_ppm;
        let drift = i64::try_from(self.chance.below(2 * most + 1)).unwrap_or(0) - i64::try_from(most).unwrap_or(0);
        self.clocks.push(WallClock { offset_ms: 0, drift_ppm: drift });
        self.volumes.len() - 1
    }

    /// A disk with nothing on it.
    pub(super) fn empty_volume(&self) -> Volume {
        let mut volume = Volume::default();
        volume.sync_skipped = self.has(Defect::SyncSkipped);
        volume.locks_ignored = self.has(Defect::LockIgnored);
        volume
    }

    fn has(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    fn wall(&self) -> Timestamp {
        self.master_clock.at(self.now)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Start { slot, volume, extra } => self.start(slot, volume, extra),
            Event::MasterStart => self.start_master(),
            Event::MasterWake(epoch) => self.wake_master(epoch),
            Event::Committed(epoch) => self.committed(epoch),
            Event::Arrive(link, way, lane) => self.arrive(link, way, lane),
            Event::Silence(link, way) => self.silence(link, way),
            Event::Gone(link, end) => self.gone(link, end),
            Event::Fault => self.fault(),
            Event::Calm => self.calm(),
            Event::Operator => self.activate(),
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

    fn judge(&mut self) {
        if self.stuck {
            return self.witness.violated("I10", format!("still busy after {EVENTS_MAX} events"));
        }
        let Some(master) = &self.master else {
            return self.witness.violated("I10", "the master is not back".to_owned());
        };
        let status = master.coordinator.published().clone();
        let volumes = self.sites.values().map(|site| site.volume).collect();
        self.witness.settled(&status, &volumes);
        let replayed = self.store.replay();
        self.witness.replayed(&replayed, Some(&status));
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
