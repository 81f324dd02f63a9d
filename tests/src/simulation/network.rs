//! Links and the ways they go: packets are lost, doubled and overtake each other, and QUIC makes streams of them. Within a stream a
//! frame comes late or not at all, never out of order, never twice (docs/decisions/0013-what-streams-rule-out.md): of a packet that
//! comes twice the first copy counts, so all that a brain can feel of it is when. Frames of two lanes, or of two links, come in any
//! order. Decides when a frame arrives and how many of its packets were hit; knows not what it says.
//!
//! The surprise: the transport does deliver twice, but from one link to the next, and that is the programs' own doing.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use master::fleet::ConnectionId;
use shared::delivery::Key;
use shared::frame::Lane;
use shared::name::{CheckId, InstanceId, Slot, Timeline};

use super::chance::Chance;

/// A side that has heard nothing for so long gives the link up: both programs' own bound.
pub(super) const IDLE: Duration = satellite::link::tls::IDLE;

/// Bytes of a frame that one packet carries.
const PACKET_BYTES: usize = 1200;
/// A packet that is held back comes up to so much later.
const HELD: u64 = 2_000_000_000;

/// How long a batch may be under way on a clogged link.
const CLOGGED: Duration = Duration::from_secs(60);

/// From where to where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// From satellite to master.
    Up,
    /// From master to satellite.
    Down,
}

/// How a way is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Road {
    /// Nothing gets through until then.
    pub(super) cut_until: u64,
    /// Since when, if it is cut.
    pub(super) cut_since: u64,
    /// Packets are lost until then.
    pub(super) lossy_until: u64,
    /// Packets come twice until then.
    pub(super) doubling_until: u64,
    /// Packets are held back, and overtaken, until then.
    pub(super) reordering_until: u64,
    /// What is sent until the first arrives at the second.
    pub(super) lingers: Option<(u64, u64)>,
    /// Batches are under way for up to [`CLOGGED`] until then.
    pub(super) clogged_until: u64,
    /// No batch gets through in time until then.
    pub(super) stuck_until: u64,
}

impl Road {
    /// Whether nothing gets through.
    #[must_use]
    pub(super) fn is_cut(&self, now: u64) -> bool {
        now < self.cut_until
    }

    /// Cuts it, or cuts it for longer. Whether it was whole.
    pub(super) fn cut(&mut self, now: u64, until: u64) -> bool {
        let was_whole = !self.is_cut(now);
        if was_whole {
            self.cut_since = now;
        }
        self.cut_until = self.cut_until.max(until);
        was_whole
    }
}

/// Both ways of one machine.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Roads {
    /// To the master.
    pub(super) up: Road,
    /// From it.
    pub(super) down: Road,
}

impl Roads {
    /// One of them.
    pub(super) fn of(&mut self, way: Way) -> &mut Road {
        match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        }
    }
}

/// A frame under way.
#[derive(Debug)]
pub(super) struct Frame {
    /// When it arrives.
    pub(super) arrival: u64,
    /// How many frames were sent on the link before it.
    pub(super) number: u64,
    /// One of its packets was lost and had to be sent again.
    pub(super) lost: bool,
    /// What it is.
    pub(super) payload: Bytes,
}

/// A link between a process and a master.
#[derive(Debug)]
pub(super) struct Link {
    /// Whose.
    pub(super) instance: InstanceId,
    /// Its slot.
    pub(super) slot: Slot,
    /// Which of the masters that there have been.
    pub(super) epoch: u64,
    /// What the master calls it.
    pub(super) connection: ConnectionId,
    /// The satellite's end is open.
    pub(super) satellite_open: bool,
    /// The master's end is open.
    pub(super) master_open: bool,
    /// What its process knew when it was opened, and of which timeline, until the master hears of the link.
    pub(super) knew: Option<(Option<Timeline>, BTreeMap<CheckId, Key>)>,
    /// Frames sent so far.
    pub(super) sent: u64,
    /// Frames under way, by way and lane, in order.
    pub(super) lanes: BTreeMap<(Way, Lane), VecDeque<Frame>>,
}

impl Link {
    /// A batch of the other lane was sent before this frame, and is still under way.
    #[must_use]
    pub(super) fn is_overtaking(&self, lane: Lane, number: u64) -> bool {
        let other = match lane {
            Lane::Control => return false,
            Lane::Live => Lane::Backlog,
            Lane::Backlog => Lane::Live,
        };
        let front = self.lanes.get(&(Way::Up, other)).and_then(VecDeque::front);
        front.is_some_and(|frame| frame.number < number)
    }
}

/// The passage of a frame that is sent now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Passage {
    /// How long until all of it is there.
    pub(super) takes: u64,
    /// Its packets that were lost, and sent again.
    pub(super) lost: u64,
    /// Its packets that came twice.
    pub(super) doubled: u64,
    /// Those of them whose second copy came before the first, which then counts for nothing.
    pub(super) hastened: u64,
    /// Its packets that were held back, so that later ones could overtake them.
    pub(super) held: u64,
}

/// How one packet fares.
#[derive(Debug, Clone, Copy)]
struct Packet {
    takes: u64,
    lost: bool,
    held: bool,
}

/// How a frame of so many bytes fares that is sent now: it is there when the last of its packets is.
pub(super) fn passage(
    road: &Road,
    lane: Lane,
    bytes: usize,
    now: u64,
    delay: Duration,
    chance: &mut Chance,
) -> Passage {
    let mut passage = Passage::default();
    for _ in 0..bytes.div_ceil(PACKET_BYTES).max(1) {
        let Packet { mut takes, lost, held } = packet(road, now, delay, chance);
        if now < road.doubling_until {
            let copy = packet(road, now, delay, chance);
            passage.doubled += 1;
            passage.hastened += u64::from(copy.takes < takes);
            takes = takes.min(copy.takes);
        }
        passage.lost += u64::from(lost);
        passage.held += u64::from(held);
        passage.takes = passage.takes.max(takes);
    }
    if let Some((_, arrives)) = road.lingers.filter(|(until, _)| now < *until) {
        passage.takes += arrives.saturating_sub(now);
    }
    let clogged = u64::try_from(CLOGGED.as_nanos()).unwrap_or(u64::MAX);
    if now < road.stuck_until && lane != Lane::Control {
        passage.takes += clogged;
    }
    if now < road.clogged_until && lane != Lane::Control {
        passage.takes += chance.below(clogged);
    }
    passage
}

/// How long a packet takes, and what befalls it.
fn packet(road: &Road, now: u64, delay: Duration, chance: &mut Chance) -> Packet {
    let delay = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
    let mut takes = delay + chance.below(delay / 4 + 1);
    let mut lost = false;
    // A lost packet is missed, and sent again, after a round trip or two.
    while now < road.lossy_until && chance.one_in(3) {
        takes += 3 * delay + 25_000_000;
        lost = true;
    }
    let held = now < road.reordering_until && chance.one_in(3);
    if held {
        takes += chance.below(HELD);
    }
    Packet { takes, lost, held }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn many(road: &Road, bytes: usize) -> Vec<Passage> {
        let mut chance = Chance::new(1);
        (0..200).map(|_| passage(road, Lane::Live, bytes, 0, Duration::from_millis(10), &mut chance)).collect()
    }

    #[test]
    fn what_packets_suffer_frames_feel_as_delay() {
        let longest = |road: &Road| many(road, 100).iter().map(|passage| passage.takes).max().unwrap();
        let whole = Road::default();
        assert!(longest(&whole) <= 12_500_000);
        let lossy = Road { lossy_until: 1, ..whole };
        assert!(longest(&lossy) >= 55_000_000 && many(&lossy, 100).iter().any(|passage| passage.lost > 0));
        let reordering = Road { reordering_until: 1, ..whole };
        assert!(longest(&reordering) > 500_000_000);
        let doubling = Road { doubling_until: 1, ..whole };
        assert!(longest(&doubling) <= 12_500_000, "a copy hurries nothing and delays nothing");
        assert!(many(&doubling, 100).iter().any(|passage| passage.hastened > 0));
        let of_many = many(&lossy, 40 * PACKET_BYTES).iter().filter(|passage| passage.lost > 0).count();
        assert_eq!(of_many, 200, "one of forty is lost nearly always");
    }

    #[test]
    fn packets_that_are_hit_are_counted_one_by_one() {
        let whole = Road::default();
        let sum = |road: &Road| {
            many(road, 9 * PACKET_BYTES).iter().fold((0, 0, 0), |(lost, doubled, held), passage| {
                (lost + passage.lost, doubled + passage.doubled, held + passage.held)
            })
        };
        assert_eq!(sum(&whole), (0, 0, 0));
        assert_eq!(sum(&Road { doubling_until: 1, ..whole }), (0, 1800, 0), "every packet comes twice");
        // One in three of 1800: 600, give or take 20 at each standard deviation.
        let (lost, doubled, held) = sum(&Road { lossy_until: 1, ..whole });
        assert!((480..720).contains(&lost) && (doubled, held) == (0, 0), "{lost} {doubled} {held}");
        let (lost, doubled, held) = sum(&Road { reordering_until: 1, ..whole });
        assert!((480..720).contains(&held) && (lost, doubled) == (0, 0), "{lost} {doubled} {held}");
    }

    #[test]
    fn what_lingers_arrives_together_and_later() {
        let road = Road { lingers: Some((5, 3_000_000_000)), ..Road::default() };
        assert!(many(&road, 10).iter().all(|passage| passage.takes > 3_000_000_000));
        let mut chance = Chance::new(1);
        let after = passage(&road, Lane::Live, 10, 5, Duration::from_millis(10), &mut chance);
        assert!(after.takes < 20_000_000, "the next link's frames do not wait for them");
    }
}
