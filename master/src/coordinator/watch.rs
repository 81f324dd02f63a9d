//! Who of the fleet is lost, back, out, and in again; and when the master must take itself for cut off instead (docs/DESIGN.md,
//! section 8). Given what is known of every slot at one moment, tells what is to be journaled. Knows no journal and no connection.
//! The surprise: whether the master *is* cut off is told to it, because a finding that could not be committed has not happened.

use std::collections::BTreeMap;
use std::time::Duration;

use shared::name::Slot;
use shared::time::Monotonic;

use crate::fleet::LEASE;

/// Slots that fall silent within this time fall silent together.
pub(super) const TOGETHER: Duration = Duration::from_secs(30);

/// What is known of one slot at one moment.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) slot: Slot,
    /// It may own checks.
    pub(super) present: bool,
    /// An operator has taken it out of service.
    pub(super) drained: bool,
    /// The configuration asks for it, or it owns checks: somebody would miss it.
    pub(super) needed: bool,
    /// Its holder is connected.
    pub(super) connected: bool,
    /// For long enough to be trusted with checks again.
    pub(super) stable: bool,
    /// When it was last heard; readiness of the master if not since.
    pub(super) heard: Monotonic,
    /// Silence after which it is lost.
    pub(super) limit: Duration,
    /// It is lost already.
    pub(super) lost: bool,
}

/// What keeps hosts where they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Held {
    /// The master takes itself for cut off.
    pub(super) cut_off: bool,
    /// An operator said so.
    pub(super) by_operator: bool,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// These fell silent together, and they are most.
    CutOff(Vec<Slot>),
    /// Enough are connected again.
    Reunited,
    /// It may own checks no longer.
    Out(Slot),
    /// It may own checks again.
    In(Slot),
    /// Nothing is heard of it any more. Comes before its `Out`.
    Lost(Slot),
    /// It is heard again, or nobody misses it any more; the reason by name.
    Back(Slot, &'static str),
}

#[derive(Debug, Clone, Copy)]
struct Fall {
    heard: Monotonic,
    /// The master was cut off when it fell, and is no longer: it counts for no further cut.
    forgiven: bool,
}

/// What is remembered from one look to the next. Volatile: a master that starts hears everybody anew.
#[derive(Debug)]
pub(super) struct Watch {
    falls: BTreeMap<Slot, Fall>,
    /// No silence counts from before this.
    from: Monotonic,
}

impl Watch {
    pub(super) fn new(now: Monotonic) -> Self {
        Self { falls: BTreeMap::new(), from: now }
    }

    /// From here on every silence that lasts counts anew, and none of those that last counts for a further cut.
    pub(super) fn begin_anew(&mut self, now: Monotonic) {
        self.from = now;
        self.falls.values_mut().for_each(|fall| fall.forgiven = true);
    }

    /// What is to be journaled now, in this order.
    pub(super) fn look(&mut self, now: Monotonic, held: Held, fleet: &[Known]) -> Vec<Finding> {
        let mut found = Vec::new();
        let mut cut_off = held.cut_off;
        let alive = |known: &Known| known.connected && now.since(known.heard) < LEASE;
        self.note_falls(now, fleet);
        if cut_off {
            let counted: Vec<&Known> = fleet.iter().filter(|known| known.counts()).collect();
            let there = counted.iter().filter(|known| alive(known)).count();
            if there * 2 >= counted.len() {
                found.push(Finding::Reunited);
                self.begin_anew(now);
                cut_off = false;
            }
        } else if let Some(together) = self.fallen_together(fleet) {
            found.push(Finding::CutOff(together));
            cut_off = true;
        }
        let may_move = !cut_off && !held.by_operator;
        for known in fleet {
            let slot = || known.slot.clone();
            let silent = !alive(known) && now.since(known.heard.max(self.from)) >= known.limit;
            let back = match known {
                Known { drained: true, .. } => Some("drained"),
                Known { needed: false, .. } => Some("not-needed"),
                known => alive(known).then_some("heard"),
            };
            match back {
                Some(reason) if known.lost => found.push(Finding::Back(slot(), reason)),
                None if !known.lost && silent && !cut_off => found.push(Finding::Lost(slot())),
                _ => {}
            }
            // Where nobody lives who could take its hosts over it keeps them, and is current at once when it returns.
            let heir = |other: &Known| {
                other.slot.region == known.slot.region && other.slot != known.slot && other.present && alive(other)
            };
            if may_move && known.present && silent && fleet.iter().any(heir) {
                found.push(Finding::Out(slot()));
            } else if may_move && !known.present && !known.drained && known.stable && alive(known) {
                found.push(Finding::In(slot()));
            }
        }
        found
    }

    fn note_falls(&mut self, now: Monotonic, fleet: &[Known]) {
        let silent: BTreeMap<&Slot, Monotonic> = fleet
            .iter()
            // One that was lost before fell long ago, whatever a new master's clock says.
            .filter(|known| known.counts() && !known.lost && now.since(known.heard) >= LEASE)
            .map(|known| (&known.slot, known.heard))
            .collect();
        self.falls.retain(|slot, fall| silent.get(slot) == Some(&fall.heard));
        for (slot, heard) in silent {
            self.falls.entry(slot.clone()).or_insert(Fall { heard, forgiven: false });
        }
    }

    /// The slots that fell silent within [`TOGETHER`], if they are more than half. One alone is that slot's own trouble: where there is
    /// no other, nothing could move anyway.
    fn fallen_together(&self, fleet: &[Known]) -> Option<Vec<Slot>> {
        let total = fleet.iter().filter(|known| known.counts()).count();
        let fresh: Vec<(&Slot, &Fall)> = self.falls.iter().filter(|(_, fall)| !fall.forgiven).collect();
        fresh.iter().find_map(|(_, first)| {
            let with = |fall: &Fall| fall.heard >= first.heard && fall.heard.since(first.heard) <= TOGETHER;
            let together: Vec<Slot> =
                fresh.iter().filter(|(_, fall)| with(fall)).map(|(slot, _)| (*slot).clone()).collect();
            (together.len() >= 2 && together.len() * 2 > total).then_some(together)
        })
    }
}

impl Known {
    /// Whether it is one of those whose majority decides.
    fn counts(&self) -> bool {
        !self.drained && self.needed
    }
}

#[cfg(test)]
mod tests;
