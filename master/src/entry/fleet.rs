//! Rows about the fleet rather than about checks: slots in and out, what went wrong with them and ended, clocks that were set, moves
//! that an operator held back. A disk format, as all of `entry`.

use minicbor::{Decode, Encode};
use shared::name::{InstanceId, JournalIndex, Slot};
use shared::time::Timestamp;

/// See [`super::Entry::Presence`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Presence {
    /// The slot.
    #[n(0)]
    pub slot: Slot,
    /// Whether it may own checks from here on.
    #[n(1)]
    pub present: bool,
    /// Stable name of the reason: `joined`, `silent`, `stable`, `drained`, `undrained`.
    #[n(2)]
    pub reason: String,
    /// An operator takes the slot out of service, or gives it back; `None`: nobody asked.
    #[n(3)]
    pub drain: Option<bool>,
    /// Which operator.
    #[n(4)]
    pub author: Option<String>,
}

/// What can go wrong with the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum IncidentKind {
    /// Nothing is heard of a slot any more.
    #[n(0)]
    SlotLost,
    /// Nothing is heard of most slots at once: it is the master that is cut off.
    #[n(1)]
    CutOff,
}

impl IncidentKind {
    /// Its stable name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SlotLost => "slot-lost",
            Self::CutOff => "cut-off",
        }
    }
}

/// See [`super::Entry::Incident`]. One problem, whatever number of checks it makes stale: it changes no state of any of them.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Incident {
    /// What went wrong.
    #[n(0)]
    pub kind: IncidentKind,
    /// With which slot; `None`: with the fleet as a whole.
    #[n(1)]
    pub slot: Option<Slot>,
    /// Whether it begins here, or ends.
    #[n(2)]
    pub open: bool,
    /// Stable name of the reason: `silent` as it begins; `heard`, `drained`, `not-needed`, `connected`, `resumed` as it ends.
    #[n(3)]
    pub reason: String,
    /// Slots that it covers.
    #[n(4)]
    pub slots: u64,
    /// Checks that those slots owned when it began.
    #[n(5)]
    pub checks: u64,
    /// How many of them went to other slots at once.
    #[n(6)]
    pub moved: u64,
    /// Which operator ended it; `None`: nobody had to.
    #[n(7)]
    pub author: Option<String>,
    /// The row that began it, as it ends.
    #[n(8)]
    pub opened: Option<JournalIndex>,
}

/// See [`super::Entry::Moves`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Moves {
    /// Whether no host is moved from here on.
    #[n(0)]
    pub held: bool,
    /// Which operator said so.
    #[n(1)]
    pub author: String,
}

/// See [`super::Entry::ClockStep`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ClockStep {
    /// Whose clock: a slot's machine; `None`: the master's own.
    #[n(0)]
    pub slot: Option<Slot>,
    /// The process that noticed, where it is a satellite.
    #[n(1)]
    pub instance: Option<InstanceId>,
    /// Counts the steps that this process noticed, from 1.
    #[n(2)]
    pub number: u64,
    /// By how much it was set, in milliseconds; forward is positive.
    #[n(3)]
    pub by_ms: i64,
    /// When it was noticed: in the master's time for a satellite's clock; what the master's own clock showed afterwards.
    #[n(4)]
    pub at: Timestamp,
}
