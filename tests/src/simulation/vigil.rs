//! What must hold of slots, incidents and moves, judged from the journal's rows alone: every incident opens once and ends once, hosts go
//! only to slots that are in and of the same region, and nothing moves while moves are held. Part of the witness's account.

use std::collections::{BTreeMap, BTreeSet};

use master::entry::{Entry, Incident, IncidentKind, Presence, Row};
use shared::name::{InstanceId, Slot};

use super::witness::Witness;

/// What the rows so far say about the fleet.
#[derive(Debug, Default)]
pub(super) struct Vigil {
    present: BTreeSet<Slot>,
    drained: BTreeSet<Slot>,
    open: BTreeSet<(IncidentKind, Option<Slot>)>,
    /// Of each slot that is lost: who held it, and whether its hosts went to others.
    lost: BTreeMap<Slot, (Option<InstanceId>, bool)>,
    held: bool,
}

impl Vigil {
    fn moves_held(&self) -> bool {
        self.held || self.open.contains(&(IncidentKind::CutOff, None))
    }
}

impl Witness {
    /// Looks at one durable row; owners are still those before it.
    pub(super) fn watch_over(&mut self, row: &Row) {
        match &row.entry {
            Entry::Presence(presence) => self.presence(row, presence),
            Entry::Incident(incident) => self.incident(row, incident),
            Entry::Moves(moves) => {
                self.vigil.held = moves.held;
                self.reach(if moves.held { "an operator holds the moves" } else { "an operator resumes the moves" });
            }
            Entry::ClockStep(step) => {
                let of_satellite = step.slot.is_some();
                self.reach(if of_satellite {
                    "a clock step of a satellite is recorded"
                } else {
                    "a clock step of the master is recorded"
                });
            }
            _ => {}
        }
    }

    fn presence(&mut self, row: &Row, presence: &Presence) {
        let slot = &presence.slot;
        self.reach(if presence.present { "a slot may own checks" } else { "a slot is out" });
        match presence.reason.as_str() {
            "stable" => self.reach("a slot is stable again"),
            "drained" => self.reach("a slot is drained"),
            _ => {}
        }
        if matches!(presence.reason.as_str(), "silent" | "stable") && self.vigil.moves_held() {
            self.violated("I16", format!("row {}: {slot} goes in or out while moves are held", row.index));
        }
        match presence.drain {
            Some(true) => drop(self.vigil.drained.insert(slot.clone())),
            Some(false) => drop(self.vigil.drained.remove(slot)),
            None => {}
        }
        if presence.present {
            if self.vigil.drained.contains(slot) {
                self.violated("I16", format!("row {}: {slot} is drained and may own checks", row.index));
            }
            self.vigil.present.insert(slot.clone());
        } else {
            self.vigil.present.remove(slot);
        }
        for granted in &row.outcomes.granted {
            let fits =
                granted.slot.as_ref().is_some_and(|to| to.region == slot.region && self.vigil.present.contains(to));
            if !fits {
                self.violated(
                    "I16",
                    format!(
                        "row {}: {} checks go to {:?}, which is not in",
                        row.index,
                        granted.checks.len(),
                        granted.slot
                    ),
                );
            }
        }
        if presence.drain == Some(true) && self.owns_any(slot) && row.outcomes.granted.is_empty() {
            self.reach("a slot is drained and keeps what nobody can take over");
        }
    }

    fn incident(&mut self, row: &Row, incident: &Incident) {
        let what = (incident.kind, incident.slot.clone());
        let held = incident.slot.as_ref().and_then(|slot| self.holder(slot));
        let paired = if incident.open { self.vigil.open.insert(what) } else { self.vigil.open.remove(&what) };
        if !paired {
            let end = if incident.open { "begins" } else { "ends" };
            self.violated("I7", format!("row {}: {:?} of {:?} {end} twice", row.index, incident.kind, incident.slot));
        }
        match (&incident.slot, incident.open) {
            (Some(slot), true) => drop(self.vigil.lost.insert(slot.clone(), (held, incident.moved > 0))),
            (Some(slot), false) => {
                let before = self.vigil.lost.remove(slot);
                if incident.reason == "heard" {
                    self.reach("a slot is lost and back as one incident");
                    if before.is_some_and(|(by, moved)| moved && by == held) {
                        self.reach("a slot whose hosts moved heals without a new claim");
                    }
                }
            }
            (None, false) if incident.reason == "resumed" => self.reach("an operator ends a cut"),
            (None, _) => {}
        }
    }
}
