//! What a world is like: its size, its pace, and which faults befall it how often; all drawn from the seed. Decides nothing later.

use std::time::Duration;

use master::coordinator::credit::Sizes;
use master::store::JOURNAL_BYTES_MAX;
use satellite::command::Limits;
use satellite::outbox::WINDOW_BATCHES;

use super::chance::Chance;

/// About as many events a world may have; the true bound ([`super::world::EVENTS_MAX`]) leaves room for what faults add.
const EVENTS: u64 = 14_000;
/// What an hour of backlog takes.
const HOUR: Duration = Duration::from_secs(3660);
/// A long cut begins within this, and this is left behind it.
pub(super) const CUT_BY: Duration = Duration::from_secs(120);
const BEHIND_CUT: Duration = Duration::from_secs(240);

/// A kind of fault, or of what an operator does meanwhile ([`Fault::is_action`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// A satellite's process is killed; its machine lives on.
    SatelliteKilled,
    /// A satellite's machine loses power, at any time or right behind a sync.
    SatellitePowerLost,
    /// A satellite is told to end; in half of the cases its successor does not wait for that.
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
    /// Packets are lost: their stream waits until they were sent again.
    PacketsLost,
    /// Packets come twice, each copy in its own time.
    PacketsDoubled,
    /// Packets are held back, and later ones overtake them.
    PacketsReordered,
    /// A satellite gives a link up that the master still hears: what is on its way there arrives beside what the next link brings.
    LinkLingers,
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
    /// A region is cut off for many minutes, or for more than an hour.
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
    /// A bit flips in a checkpoint or in the journal of the master.
    StoreDamaged,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Self; 45] = [
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
        Self::PacketsLost,
        Self::PacketsDoubled,
        Self::PacketsReordered,
        Self::LinkLingers,
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
        Self::StoreDamaged,
    ];

    /// An operator does it, and nothing is broken by it.
    #[must_use]
    pub fn is_action(self) -> bool {
        matches!(self, Self::Commanded | Self::Reconfigured | Self::SlotDrained | Self::MovesHeld)
    }

    /// How often compared with the others; 0 for what is not drawn again and again.
    fn weight(self) -> u64 {
        match self {
            Self::Commanded
            | Self::LinkReset
            | Self::SatelliteKilled
            | Self::UpCut
            | Self::DownCut
            | Self::OrderFailed => 4,
            Self::MasterKilled | Self::SatellitePowerLost | Self::SatelliteEnded | Self::CommitFailed => 3,
            Self::LongCut | Self::ClockDrifting => 0,
            Self::Impostor | Self::VolumeLost | Self::VolumeCloned | Self::VolumeShared | Self::SlotClaimed => 1,
            _ => 2,
        }
    }
}

/// What a world is like.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Regions.
    pub(super) regions: u64,
    /// Satellites of all regions together.
    pub(super) satellites: u64,
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
    /// How fast each machine's clock runs, the master's too, is drawn up to this, in parts per million.
    pub(super) drift_ppm: u64,
    /// A region is cut off for so long.
    pub(super) long_cut: Option<Duration>,
    /// Batches of one lane that may be unacknowledged: the real bound, or one that a few results fill.
    pub(super) window: usize,
    /// What a spool may use.
    pub(super) limits: Limits,
    /// Bytes of a satellite's volume, others' included; 0: nobody knows.
    pub(super) volume_size: u64,
    /// How often the master's state is kept as a checkpoint.
    pub(super) checkpoint_every: Duration,
    /// Bytes at which the journal waits for no metrics writer.
    pub(super) journal_bytes: u64,
    /// The master's byte pool: the real one, or one so small that satellites wait for their turns.
    pub(super) pool: Sizes,
}

/// Shorter than this it is a cut as others.
const LONG_CUT_MIN: Duration = Duration::from_secs(260);

/// One satellite, or two, can be cut off for more than an hour: the other hours of more of them would be all heartbeats.
fn long_cut(satellites: u64, chance: &mut Chance) -> Duration {
    if satellites <= 2 && !chance.one_in(4) {
        return chance.time(HOUR, HOUR + Duration::from_secs(240));
    }
    Duration::from_secs(chance.log_between(LONG_CUT_MIN.as_secs(), 1800))
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
        let satellites = chance.log_between(1, 8);
        let regions = chance.between(1, satellites.min(2));
        let faults: Vec<Fault> = Fault::ALL.into_iter().filter(|_| chance.one_in(2)).collect();
        let on = |fault| faults.contains(&fault);
        let mut plan = Self {
            regions,
            satellites,
            hosts: chance.log_between(2, 20 / regions),
            services: chance.between(1, 4),
            interval: chance.time(seconds(15), seconds(60)),
            retry: chance.time(seconds(4), seconds(12)),
            max_attempts: u32::try_from(chance.between(1, 4)).unwrap_or(1),
            failover_after: chance.time(seconds(20), seconds(90)),
            delay: Duration::from_millis(chance.log_between(1, 400)),
            fault_every: Duration::ZERO,
            faulty: chance.time(seconds(400), seconds(900)),
            drift_ppm: if on(Fault::ClockDrifting) { chance.log_between(1, 500) } else { 0 },
            pool: if chance.one_in(2) { small_pool(chance) } else { Sizes::default() },
            long_cut: on(Fault::LongCut).then(|| long_cut(satellites, chance)),
            window: if chance.one_in(2) { small_window(chance) } else { WINDOW_BATCHES },
            limits: Self::limits(chance),
            faults,
            volume_size: 0,
            checkpoint_every: seconds(chance.log_between(20, 400)),
            journal_bytes: if chance.one_in(2) { chance.log_between(4 * 1024, 256 * 1024) } else { JOURNAL_BYTES_MAX },
        };
        if plan.long_cut.is_some_and(|lasts| lasts >= HOUR) {
            // An hour of results is many, however seldom they come.
            (plan.hosts, plan.services) = (plan.hosts.min(3), 1);
            plan.interval = plan.interval.max(seconds(60)) + seconds(30);
        }
        if plan.limits.bytes < Limits::DEFAULT.bytes && chance.one_in(2) {
            // The twentieth that is left to others is a share of a spool that some results fill.
            plan.volume_size = plan.limits.bytes * chance.log_between(4, 40);
        }
        plan.shrink();
        plan.fault_every = plan.faulty / u32::try_from(chance.log_between(60, 300)).unwrap_or(1);
        plan
    }

    /// Until it fits. Never fewer satellites: few and many must be as likely as they were drawn.
    fn shrink(&mut self) {
        const STEP: Duration = Duration::from_secs(20);
        const LONGEST: Duration = Duration::from_secs(90);
        let shortest =
            |long_cut: Option<Duration>| long_cut.map_or(Duration::from_secs(300), |lasts| CUT_BY + lasts + BEHIND_CUT);
        self.faulty = self.faulty.max(shortest(self.long_cut));
        while self.events() > EVENTS {
            let room = self.long_cut.filter(|lasts| *lasts >= LONG_CUT_MIN + STEP);
            if self.faulty >= shortest(self.long_cut) + STEP {
                self.faulty -= STEP;
            } else if let Some(lasts) = room.filter(|lasts| *lasts < HOUR || self.interval >= LONGEST) {
                self.long_cut = Some(lasts - STEP);
            } else if self.interval < LONGEST {
                self.interval += Duration::from_secs(5);
            } else if self.hosts > 1 {
                self.hosts -= 1;
            } else if self.services > 1 {
                self.services -= 1;
            } else {
                return;
            }
        }
    }

    /// About how many events a world of this kind has: heartbeats and housekeeping of each process, and each check on its way.
    fn events(&self) -> u64 {
        self.events_within(self.faulty + super::world::QUIET)
    }

    /// A world that has had so many events gets no more faults, so that it comes to its end within [`super::world::EVENTS_MAX`].
    pub(super) fn busy(&self) -> u64 {
        const LEAST: u64 = 4000;
        // What waits everywhere is delivered when nothing is in its way any more.
        const BACKLOG: u64 = 2000;
        let quiet = self.events_within(super::world::QUIET);
        super::world::EVENTS_MAX.saturating_sub(2 * quiet + BACKLOG).max(LEAST)
    }

    fn events_within(&self, time: Duration) -> u64 {
        const MASTER: u64 = 80;
        const PROCESS: u64 = 95;
        // Asked, spooled, sent, committed, acknowledged; where credit is scarce, also wanted, told and given back.
        let each = if self.pool.pool < Sizes::default().pool { 1350 } else { 950 };
        let seconds = time.as_secs();
        let checks = self.regions * self.hosts * (2 + self.services) / 2;
        let a_second = MASTER + PROCESS * self.satellites + each * checks / self.interval.as_secs().max(1);
        seconds * a_second / 100
    }

    /// Small enough in half of the worlds that a partition fills them.
    fn limits(chance: &mut Chance) -> Limits {
        let mut limits = Limits::DEFAULT;
        if chance.one_in(2) {
            limits.bytes = chance.log_between(4 * 1024, 64 * 1024);
            limits.memory = usize::try_from(chance.log_between(512, 16 * 1024)).unwrap_or(512);
        }
        // Mostly shorter than a world lasts, so that what was delivered does go.
        limits.grace = Duration::from_secs(chance.log_between(5, 900));
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

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: u64 = 4000;

    fn plans() -> impl Iterator<Item = Plan> {
        (0..MANY).map(|seed| Plan::draw(&mut Chance::new(seed)))
    }

    #[test]
    fn every_kind_of_fault_is_on_in_half_of_the_worlds() {
        for fault in Fault::ALL {
            let on = plans().filter(|plan| plan.faults.contains(&fault)).count() as u64;
            assert!((MANY * 46 / 100..=MANY * 54 / 100).contains(&on), "{fault:?} is on in {on} of {MANY}");
        }
        for plan in plans() {
            assert_eq!(plan.long_cut.is_some(), plan.faults.contains(&Fault::LongCut));
            assert_eq!(plan.drift_ppm > 0, plan.faults.contains(&Fault::ClockDrifting));
        }
    }

    #[test]
    fn few_and_many_satellites_are_equally_likely_by_their_exponent() {
        // Each takes the part of ln 9 that lies between its logarithm and that of the next number.
        for count in 1..=8_u64 {
            let (low, high) = ((count as f64).ln(), ((count + 1) as f64).ln());
            let expected = (high - low) / 9_f64.ln() * MANY as f64;
            let drawn = plans().filter(|plan| plan.satellites == count).count() as f64;
            assert!((drawn - expected).abs() < expected.sqrt() * 4.0, "{drawn} worlds of {count}, expected {expected}");
        }
    }

    #[test]
    fn some_worlds_are_cut_off_for_an_hour() {
        let hours = plans().filter(|plan| plan.long_cut.is_some_and(|lasts| lasts >= HOUR)).count() as u64;
        assert!(hours * 30 >= MANY, "{hours}");
        for plan in plans().filter(|plan| plan.long_cut.is_some()) {
            let lasts = plan.long_cut.unwrap_or_default();
            assert!(lasts >= LONG_CUT_MIN && plan.faulty >= CUT_BY + lasts, "{plan:?}");
        }
    }
}
