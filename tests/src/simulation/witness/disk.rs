//! The witness on satellites' disks: what may be deleted and when, how much may lie there, and that what was deleted is not forgotten.

use std::collections::BTreeSet;
use std::time::Duration;

use shared::name::{InstanceId, RunId, Slot};

use super::Witness;

impl Witness {
    /// A satellite gives results up, whose gap is durable before they are deleted: nothing that it deletes may be without a name.
    pub(in crate::simulation) fn given_up(&mut self, volume: usize, slot: &Slot, run: RunId, first: u64, up_to: u64) {
        let place = (slot.clone(), run);
        let held = self.positions.get(&place).max(self.promised.get(&place)).copied().unwrap_or_default();
        let named = self.named.entry((volume, run)).or_default();
        if first > held.max(*named) + 1 {
            let what =
                format!("{slot} deletes {run} up to {first}, named is {named}, the master holds it up to {held}");
            self.violated("I12", what);
        } else {
            *named = up_to.max(*named);
        }
        self.frees(volume, run, up_to);
    }

    fn frees(&mut self, volume: usize, run: RunId, up_to: u64) {
        let freed = self.freed.entry((volume, run)).or_default();
        *freed = up_to.max(*freed);
    }

    /// A run on a disk begins later than before, behind `up_to`, or is not there any more: whoever took it away, it was ordered, or
    /// the master holds it.
    pub(in crate::simulation) fn vanished(&mut self, volume: usize, slot: &Slot, run: RunId, up_to: Option<u64>) {
        let up_to = up_to.unwrap_or_else(|| self.made(volume, run));
        let freed = self.freed.get(&(volume, run)).copied().unwrap_or_default();
        let held = self.positions.get(&(slot.clone(), run)).copied().unwrap_or_default();
        if up_to > freed.max(held) {
            let what = format!("{run} of {slot} vanishes up to {up_to}, ordered was {freed}, the master holds {held}");
            self.violated("I12", what);
        }
    }

    /// A run whose end was damaged ends there now: nobody can tell what came behind.
    pub(in crate::simulation) fn shortened(&mut self, volume: usize, run: RunId, last: u64) {
        if let Some((_, made)) = self.durable.get_mut(&(volume, run)) {
            *made = last;
        }
        self.reach("the end of a run is damaged");
    }

    /// A satellite deletes a run up to here, or all of it: nothing that the master does not hold, and nothing that it does not hold for as
    /// long as `grace`, if there is one.
    pub(in crate::simulation) fn deleted(
        &mut self,
        volume: usize,
        by: InstanceId,
        slot: &Slot,
        run: RunId,
        up_to: Option<u64>,
        grace: Option<Duration>,
    ) {
        let whole = up_to.is_none();
        if whole {
            self.forgotten.insert((volume, run));
        }
        let up_to = up_to.unwrap_or_else(|| self.made(volume, run));
        // What went before, for whatever reason, has had its time.
        let freed = self.freed.get(&(volume, run)).copied().unwrap_or_default();
        let grace = grace.filter(|_| up_to > freed);
        self.frees(volume, run, if whole { u64::MAX } else { up_to });
        let place = (slot.clone(), run);
        let mut held = self.positions.get(&place).copied().unwrap_or_default();
        if self.welcomed.get(&by) != Some(&self.timeline) {
            held = held.max(self.promised.get(&place).copied().unwrap_or_default());
        }
        if let Some(grace) = grace.filter(|_| self.welcomed.get(&by) == Some(&self.timeline)) {
            let since = self.since.get(&place).and_then(|since| since.iter().find(|(_, held)| *held >= up_to));
            if let Some(held) = since.map(|(since, _)| Duration::from_nanos(self.now.saturating_sub(*since)))
                && held < grace
            {
                let what = format!("{slot} deletes {run} up to {up_to}, delivered for {held:?} of {grace:?}");
                self.violated("I12", what);
            }
        }
        if whole && let Some(last) = self.durable.remove(&(volume, run)) {
            self.buried.insert((volume, run), last);
        }
        let named = self.named.get(&(volume, run)).copied().unwrap_or_default();
        if up_to > held.max(named) {
            self.violated("I12", format!("{slot} deletes {run} up to {up_to}, the master holds it up to {held}"));
        }
    }

    /// Long after the last fault: what these volumes have deleted, the store has, or it has a name for it.
    pub(super) fn settled_disks(&mut self, volumes: &BTreeSet<usize>) {
        for ((volume, run), (slot, made)) in std::mem::take(&mut self.buried) {
            let held = self.positions.get(&(slot.clone(), run)).copied().unwrap_or_default();
            if volumes.contains(&volume) && held < made {
                let what = format!("{slot} {run}: {made} were delivered and deleted, {held} are here or named");
                self.violated("I2", what);
            }
        }
    }
}
