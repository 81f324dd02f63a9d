//! What of the fleet wants somebody's attention, as rows have added up to it: incidents that are open, slots that are drained, clocks
//! that were set, moves that are held back. Folds as all of `status` does and decides nothing.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use shared::name::{InstanceId, JournalIndex, Slot};
use shared::time::Timestamp;

use crate::entry::{Entry, Incident, IncidentKind, Row};

/// An incident that has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct OpenIncident {
    /// The row that began it.
    #[n(0)]
    pub index: JournalIndex,
    /// When.
    #[n(1)]
    pub since: Timestamp,
    /// What it is.
    #[n(2)]
    pub incident: Incident,
}

/// Something an operator ordered and has not taken back.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Ordered {
    /// The row.
    #[n(0)]
    pub index: JournalIndex,
    /// When.
    #[n(1)]
    pub at: Timestamp,
    /// Who.
    #[n(2)]
    pub author: String,
}

/// The newest step of one clock.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct StepSeen {
    /// The row.
    #[n(0)]
    pub index: JournalIndex,
    /// When it became known here.
    #[n(1)]
    pub at: Timestamp,
    /// The process that noticed it; `None`: this one or one before it.
    #[n(2)]
    pub instance: Option<InstanceId>,
    /// Its number among those of that process.
    #[n(3)]
    pub number: u64,
    /// By how much the clock was set, in milliseconds.
    #[n(4)]
    pub by_ms: i64,
}

/// See the head of this room.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Attention {
    #[n(0)]
    open: Vec<OpenIncident>,
    /// Moves are held back by an operator.
    #[n(1)]
    pub held: Option<Ordered>,
    /// Slots taken out of service by an operator.
    #[n(2)]
    pub drained: BTreeMap<Slot, Ordered>,
    /// The newest step of each slot's clock.
    #[n(3)]
    pub steps: BTreeMap<Slot, StepSeen>,
    /// The newest step of the master's clock.
    #[n(4)]
    pub own_step: Option<StepSeen>,
}

impl Attention {
    /// Incidents that have not ended, oldest first. At most one a slot, and one of the fleet.
    #[must_use]
    pub fn incidents(&self) -> &[OpenIncident] {
        &self.open
    }

    /// The open incident of a kind.
    #[must_use]
    pub fn incident(&self, kind: IncidentKind, slot: Option<&Slot>) -> Option<&OpenIncident> {
        self.open.iter().find(|open| open.incident.kind == kind && open.incident.slot.as_ref() == slot)
    }

    /// Whether the master takes itself for cut off.
    #[must_use]
    pub fn cut_off(&self) -> bool {
        self.incident(IncidentKind::CutOff, None).is_some()
    }

    /// Whether no host is moved, for whatever reason.
    #[must_use]
    pub fn moves_held(&self) -> bool {
        self.held.is_some() || self.cut_off()
    }

    /// Takes one row in; rows about other things leave it as it is.
    pub(super) fn fold(&mut self, row: &Row) {
        match &row.entry {
            Entry::Incident(incident) => {
                let same =
                    |open: &OpenIncident| open.incident.kind == incident.kind && open.incident.slot == incident.slot;
                self.open.retain(|open| !same(open));
                if incident.open {
                    self.open.push(OpenIncident { index: row.index, since: row.at, incident: incident.clone() });
                }
            }
            Entry::Moves(moves) => {
                let ordered = Ordered { index: row.index, at: row.at, author: moves.author.clone() };
                self.held = moves.held.then_some(ordered);
            }
            Entry::Presence(presence) => match presence.drain {
                Some(true) => {
                    let author = presence.author.clone().unwrap_or_default();
                    self.drained.insert(presence.slot.clone(), Ordered { index: row.index, at: row.at, author });
                }
                Some(false) => drop(self.drained.remove(&presence.slot)),
                None => {}
            },
            Entry::ClockStep(step) => {
                let seen = StepSeen {
                    index: row.index,
                    at: row.at,
                    instance: step.instance,
                    number: step.number,
                    by_ms: step.by_ms,
                };
                match &step.slot {
                    Some(slot) => drop(self.steps.insert(slot.clone(), seen)),
                    None => self.own_step = Some(seen),
                }
            }
            _ => {}
        }
    }
}
