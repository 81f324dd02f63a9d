//! What must hold after the master's store was put back from a backup: the account of the journal begins anew with the backup's rows,
//! what the lost store had promised may be gone, and what was seen under another timeline is history or named, never a state.

use master::entry::{Effect, Row};
use shared::delivery::Key;
use shared::name::{InstanceId, RunId, Slot, Timeline};
use shared::result::CheckResult;

use super::{Witness, serial};
use crate::simulation::vigil::Vigil;

impl Witness {
    /// A process has heard a welcome.
    pub(in crate::simulation) fn welcomed(&mut self, by: InstanceId, timeline: Timeline) {
        self.welcomed.insert(by, timeline);
    }

    /// The store was put back from a backup: these are all its rows. The account of the journal begins anew with them.
    pub(in crate::simulation) fn restored(&mut self, rows: &[Row]) {
        for (place, held) in std::mem::take(&mut self.positions) {
            let promised = self.promised.entry(place).or_default();
            *promised = held.max(*promised);
        }
        (self.head, self.term, self.at) = Default::default();
        self.owners.clear();
        self.holders.clear();
        self.newest.clear();
        self.told.clear();
        self.knew.clear();
        self.settled.clear();
        self.effects.clear();
        self.commands.begin_anew();
        self.drained.clear();
        self.vigil = Vigil::default();
        let since = std::mem::take(&mut self.since);
        self.committed(rows);
        // What the backup has, it has had since it came.
        for (place, mut since) in since {
            let held = self.positions.get(&place).copied().unwrap_or_default();
            since.retain(|(_, position)| *position <= held);
            self.since.insert(place, since);
        }
        self.reach("restore of an old backup");
    }

    /// A result of another timeline: history where its check is known to be the same one, a gap with a name where it is not; never a
    /// state.
    pub(super) fn foreign(
        &mut self,
        timeline: Timeline,
        slot: &Slot,
        run: RunId,
        key: Key,
        result: &CheckResult,
        effect: Effect,
    ) {
        if self.forged.contains(&run) {
            return;
        }
        let known = result.check < self.first_check;
        let repeated = effect == Effect::Repeated && result.command.is_some();
        let expected = match known {
            true if repeated => Effect::Repeated,
            true => Effect::Late,
            false => Effect::Lost,
        };
        if effect != expected {
            let invariant = if effect == Effect::Current { "I4" } else { "I1" };
            self.violated(invariant, format!("{slot}: check {} of another timeline is {effect:?}", result.check));
        }
        self.reach(if known {
            "a result of another timeline below the first check id"
        } else {
            "a result of another timeline at or above the first check id"
        });
        if known {
            self.names_command(timeline, slot, run, key, result, effect);
        }
        if effect.is_logged()
            && let Some(number) = serial(result)
        {
            self.effect(number, slot, run, key);
        }
    }
}
