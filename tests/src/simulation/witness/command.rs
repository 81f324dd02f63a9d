//! What must hold of commands (docs/DESIGN.md, section 4): told when durable and to nobody but the owner, applied once by whoever is told,
//! and of all results that name one only the first stands in history. Part of the witness's account.

use std::collections::{BTreeMap, BTreeSet};

use master::entry::{Asked, Effect, Row};
use shared::command::{Commanded, What};
use shared::delivery::Key;
use shared::name::{CheckId, InstanceId, JournalIndex, RunId, Sequence, Slot, Timeline};
use shared::result::CheckResult;
use shared::snapshot::StateTold;

use super::Witness;

/// A command as its row has it.
#[derive(Debug)]
struct Given {
    check: CheckId,
    reset: bool,
    owner: Option<Slot>,
    answered: bool,
}

/// The name of a command: a timeline's, for another one gives the same index to another.
pub(super) type Named = (Timeline, JournalIndex);

/// The account of commands.
#[derive(Debug, Default)]
pub(super) struct Commands {
    /// Of every timeline that ever was.
    given: BTreeMap<Named, Given>,
    logged: BTreeSet<Named>,
    /// By process and command: its result.
    applied: BTreeMap<(InstanceId, Named), (RunId, Sequence)>,
}

impl Commands {
    /// The journal is another one: what came of commands is seen again in its rows.
    pub(super) fn begin_anew(&mut self) {
        self.logged.clear();
        self.applied.clear();
    }
}

impl Witness {
    pub(super) fn asked(&mut self, row: &Row, asked: &Asked) {
        let owner = self.owners.get(&asked.check).and_then(|owner| owner.living.as_ref());
        let owner = owner.map(|(_, slot)| slot.clone());
        let given = Given { check: asked.check, reset: asked.what == What::Reset, owner, answered: false };
        self.commands.given.insert((self.timeline, row.index), given);
        self.reach("a command is given");
    }

    /// A result from outside was submitted under this number.
    pub(in crate::simulation) fn submitted(&mut self, number: u64) {
        self.given.insert(number, self.now);
    }

    /// The master tells a slot a command.
    pub(in crate::simulation) fn commanded(&mut self, slot: &Slot, command: &Commanded) {
        if !self.commands.given.contains_key(&(self.timeline, command.index)) {
            self.violated("I1", format!("command {} is told to {slot}, and it is not durable", command.index));
        }
        let living = self.owners.get(&command.check).and_then(|owner| owner.living.as_ref());
        if living.is_none_or(|(_, owner)| owner != slot) {
            let what = format!("{slot} is told command {}, living is {living:?}", command.index);
            self.violated("I16", what);
        }
    }

    /// What a reset makes has no number of its own.
    pub(super) fn is_reset(&self, result: &CheckResult) -> bool {
        let given = result.command.and_then(|index| self.commands.given.get(&(self.timeline, index)));
        given.is_some_and(|given| given.reset && given.check == result.check)
    }

    /// A state was told that names a command.
    pub(super) fn answered_by_state(&mut self, slot: &Slot, told: &StateTold) {
        let living = self.owners.get(&told.check).and_then(|owner| owner.living.as_ref());
        let owns = living.is_some_and(|(_, owner)| owner == slot);
        let Some(index) = told.command.filter(|_| owns) else { return };
        let Some(given) = self.commands.given.get_mut(&(self.timeline, index)) else { return };
        if given.check == told.check && !std::mem::replace(&mut given.answered, true) {
            self.reach("a told state answers a command before its result");
        }
    }

    /// A result of this timeline came that names a command, if it does.
    pub(super) fn names_command(
        &mut self,
        timeline: Timeline,
        slot: &Slot,
        run: RunId,
        key: Key,
        result: &CheckResult,
        effect: Effect,
    ) {
        let Some(index) = result.command.filter(|_| !self.forged.contains(&run)) else { return };
        let named = (timeline, index);
        let Some(given) = self.commands.given.get_mut(&named).filter(|given| given.check == result.check) else {
            return self
                .violated("I3", format!("{slot} answers command {index} to {}, which nobody gave", result.check));
        };
        given.answered = true;
        if given.owner.as_ref().is_some_and(|owner| owner != slot) {
            self.reach("the next owner of a check does what the former one was told");
        }
        let place = (run, key.sequence);
        if let Some(by) = self.makers.get(&run).copied()
            && let Some(before) = self.commands.applied.insert((by, named), place)
        {
            self.violated("I3", format!("{by} applied command {index} twice: {before:?} and {place:?}"));
        }
        if effect.is_logged() {
            if !self.commands.logged.insert(named) {
                self.violated("I3", format!("{slot} {run} {}: command {index} has a second result", key.sequence));
            }
        } else if self.commands.logged.contains(&named) {
            self.reach(if timeline == self.timeline {
                "a second result of a command is not logged"
            } else {
                "a second result of a lost timeline's command is not logged"
            });
        } else {
            self.violated("I1", format!("{slot} {run} {}: the first result of command {index} is lost", key.sequence));
        }
    }
}
