//! Links and the ways they go, as the simulation has them: what QUIC makes of loss, delay and cuts. A frame comes late or not at all,
//! never out of order within its lane, never twice; a side that hears nothing for so long closes without a word to the other.
//! Decides when a frame arrives; knows not what it says.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use master::fleet::ConnectionId;
use shared::frame::Lane;
use shared::name::{InstanceId, Slot};

use super::chance::Chance;

/// A side that has heard nothing for so long gives the link up: both programs' own bound.
pub(super) const IDLE: Duration = satellite::link::tls::IDLE;

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
    /// Packets are lost and late until then.
    pub(super) bad_until: u64,
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

    /// Cuts it, or cuts it for longer.
    pub(super) fn cut(&mut self, now: u64, until: u64) {
        if !self.is_cut(now) {
            self.cut_since = now;
        }
        self.cut_until = self.cut_until.max(until);
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
    /// Frames under way, by way and lane, in order, each with its arrival.
    pub(super) lanes: BTreeMap<(Way, Lane), VecDeque<(u64, Bytes)>>,
}

/// How long a frame is under way that is sent now.
pub(super) fn transit(road: &Road, lane: Lane, now: u64, delay: Duration, chance: &mut Chance) -> u64 {
    let delay = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
    let mut transit = delay + chance.below(delay / 4 + 1);
    if now < road.bad_until {
        // Lost packets are sent again after a round trip or two.
        while chance.one_in(3) {
            transit += 3 * delay + 25_000_000;
        }
        transit += chance.below(2 * delay + 1);
    }
    if now < road.stuck_until && lane != Lane::Control {
        transit += u64::try_from(CLOGGED.as_nanos()).unwrap_or(u64::MAX);
    }
    if now < road.clogged_until && lane != Lane::Control {
        transit += chance.below(u64::try_from(CLOGGED.as_nanos()).unwrap_or(u64::MAX));
    }
    transit
}
