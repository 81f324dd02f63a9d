//! One result that came under the present timeline: who may have made it, that it has its effect once, and whether it may decide a state.

use master::entry::Effect;
use shared::delivery::Key;
use shared::name::{RunId, Slot};
use shared::result::CheckResult;
use shared::state::StateType;

use super::{Witness, serial};

impl Witness {
    pub(super) fn result(&mut self, slot: &Slot, run: RunId, key: Key, result: &CheckResult, effect: Effect) {
        let owner = self.owners.get(&result.check);
        let living = owner.and_then(|owner| owner.living.as_ref());
        let owns = living.is_some_and(|(grant, owner)| *grant == key.grant && owner == slot);
        let owned = owns || owner.is_some_and(|owner| owner.past.get(&key.grant) == Some(slot));
        let number = serial(result);
        if number.is_none() && !self.is_reset(result) {
            return self.violated("I3", format!("a result that nobody answered: {}", result.output));
        }
        let repeated = matches!(effect, Effect::Repeated | Effect::RepeatedCurrent);
        if !effect.is_logged() && !repeated {
            self.reach("a result is refused");
            if owned && !self.forged.contains(&run) {
                self.violated("I1", format!("{slot} owned check {} and is refused: {effect:?}", result.check));
            }
            return;
        }
        if !owned {
            self.violated("I11", format!("{slot} never owned check {} under {}", result.check, key.grant));
        }
        if !self.forged.contains(&run) {
            self.is_as_made(slot, key, result, effect);
        }
        self.names_command(self.timeline, slot, run, key, result, effect);
        if let Some(number) = number.filter(|_| effect.is_logged()) {
            self.effect(number, slot, run, key);
        }
        const LEASE: u64 = 15_000_000_000;
        let given = number.and_then(|number| self.given.get(&number));
        let age = given.map_or(0, |given| self.now.saturating_sub(*given));
        if age > 240 * LEASE {
            self.reach("a result comes an hour late");
        }
        if age > LEASE && result.after.state_type == StateType::Hard && result.after.hard_since == result.ended() {
            self.reach("a state became hard out of the master's sight");
        }
        match effect {
            Effect::Observed => return self.reach("a slot tells what it saw of a check that has moved"),
            Effect::Repeated => return,
            Effect::Current | Effect::RepeatedCurrent => {}
            _ => {
                if self.told.get(&result.check) == Some(&result.ended()) {
                    self.reach("a late result is the one whose state was told");
                }
                return self.reach("a late result");
            }
        }
        if !owns {
            self.violated("I4", format!("{slot} decides check {} under the ended {}", result.check, key.grant));
        }
        if self.makers.get(&run) != self.holders.get(slot) {
            self.violated("I5", format!("run {run} decides for {slot}, whose holder is another process"));
        }
        let known = self.newest.insert(result.check, (key, result.after));
        if known.is_some_and(|(known, _)| known >= key) {
            self.violated("I4", format!("check {} goes back from {known:?} to {key:?}", result.check));
        }
    }

    pub(super) fn effect(&mut self, number: u64, slot: &Slot, run: RunId, key: Key) {
        if let Some(other) = self.effects.insert(number, (slot.clone(), run, key.sequence.0)) {
            self.violated(
                "I3",
                format!("answer {number} of {slot} {run} {} had its effect at {other:?}", key.sequence),
            );
        }
    }
}
