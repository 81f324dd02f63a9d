//! Which checks each slot owns: what the objects say, the other way round, kept as they change, because a slot's own are asked for far
//! more often than all are known. Derived: no part of a checkpoint. Copied on write, slot by slot.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use shared::name::{CheckId, Slot};

use super::Status;

#[derive(Debug, Clone, Default)]
pub(super) struct Owned(Arc<BTreeMap<Slot, Arc<BTreeSet<CheckId>>>>);

impl Owned {
    pub(super) fn give(&mut self, slot: &Slot, check: CheckId) {
        let owned = Arc::make_mut(&mut self.0);
        match owned.get_mut(slot) {
            Some(checks) => drop(Arc::make_mut(checks).insert(check)),
            None => drop(owned.insert(slot.clone(), Arc::new(BTreeSet::from([check])))),
        }
    }

    pub(super) fn take(&mut self, slot: &Slot, check: CheckId) {
        let owned = Arc::make_mut(&mut self.0);
        let Some(checks) = owned.get_mut(slot) else { return };
        Arc::make_mut(checks).remove(&check);
        if checks.is_empty() {
            owned.remove(slot);
        }
    }
}

impl Status {
    /// The checks that a slot owns, ascending.
    pub fn owned(&self, slot: &Slot) -> impl ExactSizeIterator<Item = CheckId> + '_ {
        static NONE: BTreeSet<CheckId> = BTreeSet::new();
        self.owned.0.get(slot).map_or(&NONE, |checks| checks.as_ref()).iter().copied()
    }
}
