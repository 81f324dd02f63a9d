//! Which commands wait for which owner, and how much they are in all: what the errands and the owners of their checks say, the other
//! way round, kept as either changes, because every new command asks for it. Derived: no part of a checkpoint. Copied on write, owner
//! by owner.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use shared::command::What;
use shared::name::{CheckId, JournalIndex, Slot};

use super::Status;
use super::command::Errand;

/// One owner's, check by check; oldest first within a check.
type Share = BTreeSet<(CheckId, JournalIndex)>;

#[derive(Debug, Clone, Default)]
pub(super) struct Waiting {
    /// `None`: of checks that nobody owns.
    shares: Arc<BTreeMap<Option<Slot>, Arc<Share>>>,
    count: usize,
    bytes: usize,
}

/// Everything of one check.
fn of_check(share: &Share, check: CheckId) -> impl Iterator<Item = (CheckId, JournalIndex)> {
    share.range((check, JournalIndex(0))..=(check, JournalIndex(u64::MAX))).copied()
}

impl Waiting {
    fn share(&self, owner: Option<&Slot>) -> Option<&Share> {
        // The key is owned: slots are few, their names short.
        self.shares.get(&owner.cloned()).map(AsRef::as_ref)
    }

    pub(super) fn add(&mut self, owner: Option<&Slot>, check: CheckId, index: JournalIndex, what: &What) {
        let shares = Arc::make_mut(&mut self.shares);
        if Arc::make_mut(shares.entry(owner.cloned()).or_default()).insert((check, index)) {
            self.count += 1;
            self.bytes += what.bytes();
        }
    }

    pub(super) fn remove(&mut self, owner: Option<&Slot>, check: CheckId, index: JournalIndex, what: &What) {
        let shares = Arc::make_mut(&mut self.shares);
        let owner = owner.cloned();
        let Some(share) = shares.get_mut(&owner).map(Arc::make_mut) else { return };
        if share.remove(&(check, index)) {
            self.count = self.count.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(what.bytes());
        }
        if share.is_empty() {
            shares.remove(&owner);
        }
    }

    /// A check has another owner: what waits for it waits for that one.
    pub(super) fn pass(&mut self, check: CheckId, old: Option<&Slot>, new: Option<&Slot>) {
        if old == new || self.count == 0 {
            return;
        }
        let moved: Vec<_> = self.share(old).into_iter().flat_map(|share| of_check(share, check)).collect();
        if moved.is_empty() {
            return;
        }
        let shares = Arc::make_mut(&mut self.shares);
        let old = old.cloned();
        if let Some(share) = shares.get_mut(&old).map(Arc::make_mut) {
            for command in &moved {
                share.remove(command);
            }
            if share.is_empty() {
                shares.remove(&old);
            }
        }
        Arc::make_mut(shares.entry(new.cloned()).or_default()).extend(moved);
    }
}

impl Status {
    fn owner_of(&self, check: CheckId) -> Option<&Slot> {
        self.object(check).and_then(|object| object.owner.as_ref()).map(|owner| &owner.slot)
    }

    /// Commands that wait for whoever owns their check, oldest first; `None`: for a slot that will own it.
    pub fn waiting_for(&self, slot: Option<&Slot>) -> impl Iterator<Item = (JournalIndex, &Errand)> {
        let share = self.waiting.share(slot).into_iter().flatten();
        let indexes: BTreeSet<JournalIndex> = share.map(|(_, index)| *index).collect();
        indexes.into_iter().filter_map(|index| Some((index, self.errand(index)?)))
    }

    /// How many these are.
    #[must_use]
    pub fn waiting_count(&self, slot: Option<&Slot>) -> usize {
        self.waiting.share(slot).map_or(0, BTreeSet::len)
    }

    /// Slots for which commands wait.
    pub fn waited_for(&self) -> impl Iterator<Item = &Slot> {
        self.waiting.shares.keys().flatten()
    }

    /// How many commands wait in all, and the bytes of text in them.
    #[must_use]
    pub fn waiting_in_all(&self) -> (usize, usize) {
        (self.waiting.count, self.waiting.bytes)
    }

    /// Commands to this check, up to this one, that wait for their answer.
    pub(super) fn awaited(&self, check: CheckId, index: JournalIndex) -> impl Iterator<Item = JournalIndex> {
        let share = self.waiting.share(self.owner_of(check)).into_iter();
        share.flat_map(move |share| of_check(share, check)).map(|(_, other)| other).filter(move |other| *other <= index)
    }

    /// This command waits from now on.
    pub(super) fn begin_to_wait(&mut self, index: JournalIndex) {
        let Some(errand) = self.commands.get(&index).map(Arc::clone) else { return };
        let owner = self.owner_of(errand.check).cloned();
        if let Some(what) = &errand.what {
            self.waiting.add(owner.as_ref(), errand.check, index, what);
        }
    }

    /// This command, as it was remembered, waits no more.
    pub(super) fn end_to_wait(&mut self, index: JournalIndex, errand: &Errand) {
        let owner = self.owner_of(errand.check).cloned();
        if let Some(what) = &errand.what {
            self.waiting.remove(owner.as_ref(), errand.check, index, what);
        }
    }

    /// Looks through all that is remembered: after it was read back, or became another as a whole.
    pub(super) fn count_waiting(&mut self) {
        self.waiting = Waiting::default();
        for index in self.commands.keys().copied().collect::<Vec<_>>() {
            self.begin_to_wait(index);
        }
    }
}
