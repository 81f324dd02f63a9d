//! Which checks each slot owns: what the objects say, the other way round, kept as they change, because a slot's own are asked for far
//! more often than all are known. Derived: no part of a checkpoint. Copied on write, slot by slot.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use shared::name::{CheckId, Slot};

use super::Status;

#[derive(Debug, Clone, Default)]
pub(super) struct Owned(Arc<BTreeMap<Slot, Arc<Share>>>);

/// What one slot owns.
#[derive(Debug, Clone, Default)]
struct Share {
    checks: BTreeSet<CheckId>,
    /// How many of the checks are hosts' own.
    hosts: usize,
}

impl Owned {
    pub(super) fn give(&mut self, slot: &Slot, check: CheckId, of_host: bool) {
        let owned = Arc::make_mut(&mut self.0);
        if !owned.contains_key(slot) {
            owned.insert(slot.clone(), Arc::default());
        }
        let Some(share) = owned.get_mut(slot).map(Arc::make_mut) else { return };
        let new = share.checks.insert(check);
        share.hosts += usize::from(new && of_host);
    }

    pub(super) fn take(&mut self, slot: &Slot, check: CheckId, of_host: bool) {
        let owned = Arc::make_mut(&mut self.0);
        let Some(share) = owned.get_mut(slot).map(Arc::make_mut) else { return };
        let known = share.checks.remove(&check);
        share.hosts = share.hosts.saturating_sub(usize::from(known && of_host));
        if share.checks.is_empty() {
            owned.remove(slot);
        }
    }
}

impl Status {
    /// The checks that a slot owns, ascending.
    pub fn owned(&self, slot: &Slot) -> impl ExactSizeIterator<Item = CheckId> + '_ {
        static NONE: BTreeSet<CheckId> = BTreeSet::new();
        self.owned.0.get(slot).map_or(&NONE, |share| &share.checks).iter().copied()
    }

    /// How many hosts a slot owns the own check of.
    #[must_use]
    pub fn owned_hosts(&self, slot: &Slot) -> usize {
        self.owned.0.get(slot).map_or(0, |share| share.hosts)
    }
}
