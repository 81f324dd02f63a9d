//! What a world is like: its size, its pace, and which faults befall it how often; all drawn from the seed. Decides nothing later.

use std::time::Duration;

use master::coordinator::credit::Sizes;
use satellite::command::Limits;
use satellite::outbox::WINDOW_BATCHES;

use super::chance::Chance;

/// About as many events a world may have; the true bound ([`super::world::EVENTS_MAX`]) leaves room for what faults add.
const EVENTS: u64 = 10_000;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// A satellite's process is killed; its machine lives on.
    SatelliteKilled,
    /// A satellite's machine loses power.
    SatellitePowerLost,
    /// A satellite is told to end.
    SatelliteEnded,
    /// A satellite stands still for some time.
    SatellitePaused,
    /// The master's process is killed, before or after what it was writing reached the disk.
    MasterKilled,
    /// A commit of the master fails.
    CommitFailed,
    /// The master's disk is slow.
    StoreSlow,
    /// A satellite's disk takes nothing.
    VolumeFull,
    /// A satellite's disk is slow.
    VolumeSlow,
    /// One order of a satellite fails on the disk.
    OrderFailed,
    /// A bit flips in a durable batch.
    BitFlipped,
    /// A satellite comes back without its volume.
    VolumeLost,
    /// A link is cut at once, as by a reset.
    LinkReset,
    /// Nothing gets through from satellite to master.
    UpCut,
    /// Nothing gets through from master to satellite.
    DownCut,
    /// A region is cut off both ways.
    RegionCut,
    /// Packets are lost, delayed, and overtake each other.
    LinkBad,
    /// A satellite's wall clock steps.
    ClockStepped,
    /// The master's wall clock steps.
    MasterClockStepped,
    /// A second process claims a slot, on a volume of its own.
    SlotClaimed,
    /// A second process claims a slot, on the same volume.
    VolumeShared,
    /// A second process claims a slot, on a copy of the volume.
    VolumeCloned,
    /// The operator changes the configuration.
    Reconfigured,
    /// The operator drains a slot, or gives it back.
    SlotDrained,
    /// The operator holds back the moves of hosts, or lets them go on.
    MovesHeld,
    /// The operator asks something of the owner of a check.
    Commanded,
    /// Nothing gets through between the master and anybody.
    MasterCutOff,
    /// A link carries what is small at once, and batches after up to a minute.
    LinkClogged,
    /// A link is cut again and again, as soon as something undelivered is behind it.
    LinkFlaps,
    /// A region is cut off for more than an hour.
    LongCut,
    /// A slot's certificate is on the deny list for some time.
    Denied,
    /// Somebody with a slot's certificate says what no satellite says.
    Impostor,
    /// The master stands still for some time.
    MasterPaused,
    /// The master's disk refuses every commit for some time.
    StoreFull,
    /// A satellite's disk gives nothing back for some time.
    VolumeUnreadable,
    /// A metrics store is killed, and comes back without what it had not written.
    MetricsKilled,
    /// A metrics store takes little at a time.
    MetricsSlow,
    /// A metrics store reads nothing.
    MetricsHanging,
    /// A metrics store refuses connections.
    MetricsRefusing,
    /// A machine's clock runs fast or slow, from the beginning.
    ClockDrifting,
    /// The master's store is lost and put back from an old backup.
    Restored,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Self; 41] = [
        Self::SatelliteKilled,
        Self::SatellitePowerLost,
        Self::SatelliteEnded,
        Self::SatellitePaused,
        Self::MasterKilled,
        Self::CommitFailed,
        Self::StoreSlow,
        Self::VolumeFull,
        Self::VolumeSlow,
        Self::OrderFailed,
        Self::BitFlipped,
        Self::VolumeLost,
        Self::LinkReset,
        Self::UpCut,
        Self::DownCut,
        Self::RegionCut,
        Self::LinkBad,
        Self::ClockStepped,
        Self::MasterClockStepped,
        Self::SlotClaimed,
        Self::VolumeShared,
        Self::VolumeCloned,
        Self::Reconfigured,
        Self::SlotDrained,
        Self::MovesHeld,
        Self::Commanded,
        Self::MasterCutOff,
        Self::LinkClogged,
        Self::LinkFlaps,
        Self::LongCut,
        Self::Denied,
        Self::Impostor,
        Self::MasterPaused,
        Self::StoreFull,
        Self::VolumeUnreadable,
        Self::MetricsKilled,
        Self::MetricsSlow,
        Self::MetricsHanging,
        Self::MetricsRefusing,
        Self::ClockDrifting,
        Self::Restored,
    ];

    /// How often compared with the others; 0 for what is not drawn again and again.
    fn weight(self) -> u64 {
        match self {
            Self::Commanded
            | Self::LinkReset
            | Self::SatelliteKilled
            | Self::UpCut
            | Self::DownCut
            | Self::OrderFailed => 4,
            Self::MasterKilled | Self::SatellitePowerLost | Self::CommitFailed | Self::LinkBad => 3,
            Self::LongCut | Self::ClockDrifting => 0,
            Self::LinkFlaps
            | Self::Impostor
            | Self::VolumeLost
            | Self::VolumeCloned
            | Self::VolumeShared
            | Self::SlotClaimed
            | Self::Restored => 1,
            _ => 2,
        }
    }
}

/// What a world is like.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Regions.
    pub(super) regions: u64,
    /// Slots of each region.
    pub(super) slots: u64,
    /// Hosts of each region.
    pub(super) hosts: u64,
    /// Services of each host, at most.
    pub(super) services: u64,
    /// How often a check runs.
    pub(super) interval: Duration,
    /// And while its state is soft.
    pub(super) retry: Duration,
    /// Problems in a row that make a state hard.
    pub(super) max_attempts: u32,
    /// Silence after which a slot's hosts move.
    pub(super) failover_after: Duration,
    /// One way through the network.
    pub(super) delay: Duration,
    /// How long faults go on.
    pub(super) faulty: Duration,
    /// Time between two faults, on average.
    pub(super) fault_every: Duration,
    /// Kinds of faults that are on.
    pub(super) faults: Vec<Fault>,
    /// How fast each satellite's clock runs is drawn up to this, in parts per million.
    pub(super) drift_ppm: u64,
    /// A region is cut off for so long.
    pub(super) long_cut: Option<Duration>,
    /// Batches of one lane that may be unacknowledged: the real bound, or one that a few results fill.
    pub(super) window: usize,
    /// What a spool may use.
    pub(super) limits: Limits,
    /// The master's byte pool: the real one, or one so small that satellites wait for their turns.
    pub(super) pool: Sizes,
}

fn small_window(chance: &mut Chance) -> usize {
    usize::try_from(chance.log_between(2, 32)).unwrap_or(WINDOW_BATCHES)
}

/// A pool that a few satellites exhaust. A turn is not less than the largest batch that a world makes.
fn small_pool(chance: &mut Chance) -> Sizes {
    let live_first = chance.log_between(64, 512);
    let turn = chance.log_between(4 * 1024, 64 * 1024);
    let connections = 12;
    let half = turn * chance.log_between(1, 4) + connections * live_first;
    let window = turn * chance.log_between(1, 8);
    Sizes { pool: 2 * half, live_first, live_window: window, backlog_window: window, turn, connections }
}

impl Plan {
    /// Draws one. Sizes are drawn evenly by their exponent; a world that would not fit into [`EVENTS`] is shortened, then thinned out.
    #[must_use]
    pub(super) fn draw(chance: &mut Chance) -> Self {
        let seconds = Duration::from_secs;
        let regions = chance.between(1, 2);
        let faulty = chance.time(seconds(400), seconds(900));
        let mut plan = Self {
            regions,
            slots: chance.log_between(1, 8 / regions),
            hosts: chance.log_between(2, 20 / regions),
            services: chance.between(1, 4),
            interval: chance.time(seconds(15), seconds(60)),
            retry: chance.time(seconds(4), seconds(12)),
            max_attempts: u32::try_from(chance.between(1, 4)).unwrap_or(1),
            failover_after: chance.time(seconds(20), seconds(90)),
            delay: Duration::from_millis(chance.log_between(1, 400)),
            fault_every: Duration::ZERO,
            faulty,
            faults: Fault::ALL.into_iter().filter(|fault| fault.weight() > 0 && chance.one_in(2)).collect(),
            drift_ppm: if chance.one_in(2) { chance.log_between(1, 500) } else { 0 },
            pool: if chance.one_in(2) { small_pool(chance) } else { Sizes::default() },
            long_cut: None,
            window: if chance.one_in(2) { small_window(chance) } else { WINDOW_BATCHES },
            limits: Self::limits(chance),
        };
        if chance.one_in(12) {
            // An hour and more of backlog; one satellite, so that the other hours are not all heartbeats.
            (plan.regions, plan.slots, plan.hosts, plan.services) = (1, 1, plan.hosts.min(3), 1);
            plan.interval = plan.interval.max(seconds(60)) + seconds(30);
            // Which sends that hour again and again.
            plan.faults.retain(|fault| *fault != Fault::LinkFlaps);
            plan.long_cut = Some(chance.time(seconds(3660), seconds(3900)));
            plan.faulty = seconds(4300);
            // And is there to be sent.
            plan.limits = Limits::DEFAULT;
        }
        if plan.long_cut.is_none() && chance.one_in(24) {
            // One link that breaks behind every few results, until no more runs may be opened.
            (plan.regions, plan.slots, plan.hosts, plan.services) = (1, 1, plan.hosts.clamp(2, 3), 3);
            (plan.interval, plan.retry, plan.faulty) = (seconds(15), seconds(12), seconds(600));
            plan.faults = vec![Fault::LinkFlaps];
            plan.limits = Limits::DEFAULT;
        }
        while plan.events() > EVENTS && plan.long_cut.is_none() {
            if plan.faulty > seconds(300) {
                plan.faulty = plan.faulty.saturating_sub(seconds(20));
            } else if plan.interval < seconds(90) {
                plan.interval += seconds(5);
            } else {
                plan.hosts = (plan.hosts - 1).max(1);
                plan.slots = (plan.slots - 1).max(1);
            }
        }
        plan.fault_every = plan.faulty / u32::try_from(chance.log_between(40, 240)).unwrap_or(1);
        plan
    }

    /// About how many events a world of this kind has: heartbeats and housekeeping of each process, and each check on its way.
    fn events(&self) -> u64 {
        self.events_within(self.faulty + super::world::QUIET)
    }

    /// A world that has had so many events gets no more faults, so that it comes to its end within [`super::world::EVENTS_MAX`].
    pub(super) fn busy(&self) -> u64 {
        const LEAST: u64 = 4000;
        let quiet = self.events_within(super::world::QUIET);
        super::world::EVENTS_MAX.saturating_sub(2 * quiet).max(LEAST)
    }

    fn events_within(&self, time: Duration) -> u64 {
        const MASTER: u64 = 130;
        const PROCESS: u64 = 165;
        // Asked, spooled, sent, committed, acknowledged; where credit is scarce, also wanted, told and given back.
        let each = if self.pool.pool < Sizes::default().pool { 1300 } else { 850 };
        let seconds = time.as_secs();
        let checks = self.regions * self.hosts * (2 + self.services) / 2;
        let a_second = MASTER + PROCESS * self.regions * self.slots + each * checks / self.interval.as_secs().max(1);
        seconds * a_second / 100
    }

    /// Small enough in half of the worlds that a partition fills them.
    fn limits(chance: &mut Chance) -> Limits {
        let mut limits = Limits::DEFAULT;
        if chance.one_in(2) {
            limits.bytes = chance.log_between(4 * 1024, 64 * 1024);
            limits.memory = usize::try_from(chance.log_between(512, 16 * 1024)).unwrap_or(512);
        }
        if chance.one_in(4) {
            limits.age = chance.time(Duration::from_secs(40), Duration::from_secs(400));
        }
        limits
    }

    /// One of the kinds that are on.
    pub(super) fn fault(&self, chance: &mut Chance) -> Option<Fault> {
        let total: u64 = self.faults.iter().map(|fault| fault.weight()).sum();
        let mut drawn = chance.below(total);
        self.faults.iter().copied().find(|fault| {
            let hit = drawn < fault.weight();
            drawn = drawn.saturating_sub(fault.weight());
            hit
        })
    }
}
