//! Which slots are heard, which may own checks, and what readers see of both. Only a slot's in and out move hosts; a master cut off
//! from most of its slots moves nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use shared::name::Slot;
use shared::time::{Monotonic, Timestamp};

use super::connection::Connection;
use super::view::{SlotLink, View};
use super::{Coordinator, Cut};
use crate::entry::{Entry, Outcomes, Presence};
use crate::fleet::{ConnectionId, LEASE, STABLE_AFTER};

impl Coordinator {
    /// The link of the process that has the slot.
    pub(super) fn holder_link(&self, slot: &Slot) -> Option<&Connection> {
        let holder = self.holder(slot)?;
        // A process may reconnect before its old link is known to be dead: the younger one counts.
        self.connections.values().rev().find(|link| link.slot == *slot && link.instance() == Some(holder))
    }

    pub(super) fn silence(&self, slot: &Slot, now: Monotonic) -> Duration {
        self.heard.get(slot).map_or(Duration::ZERO, |heard| now.since(*heard))
    }

    /// What readers see at this moment.
    #[must_use]
    pub fn view(&self, now: Monotonic) -> View {
        let links = self.published.slots().keys().map(|slot| {
            let link = self.holder_link(slot);
            let silent = self.silence(slot, now);
            let voices = self.connections.values().filter(|other| other.slot == *slot).count();
            let shown = SlotLink {
                connected: link.is_some(),
                remote: link.map(|link| link.remote.clone()),
                silent,
                stale: silent >= LEASE,
                settled: silent < LEASE && self.settled.contains(slot),
                applied: link.and_then(|link| link.applied),
                heartbeat: link.and_then(|link| link.heartbeat.clone()),
                offset_ms: link.map_or(0, |link| link.offset_ms),
                others: voices.saturating_sub(usize::from(link.is_some())),
            };
            (slot.clone(), shown)
        });
        View {
            status: Arc::clone(&self.published),
            links: links.collect(),
            held_off: self.held_off,
            read_only: self.unwritable,
            refused: self.refused.clone(),
        }
    }

    pub(super) fn change_presence(&mut self, slot: &Slot, present: bool, reason: &str, at: Timestamp) {
        let presence = Presence { slot: slot.clone(), present, reason: reason.to_owned() };
        self.add_with_grants(Entry::Presence(presence), Outcomes::default(), None, None, at);
    }

    /// A process that was fenced claims its slot with its next hello, and nothing else makes it say one: where the holder's lease has
    /// run out, the youngest of those that wait is sent for it.
    pub(super) fn call_waiting(&mut self, now: Monotonic) {
        let vacant = |slot: &Slot| self.holder_link(slot).is_none() && self.silence(slot, now) >= LEASE;
        let mut waiting: BTreeMap<&Slot, ConnectionId> = BTreeMap::new();
        for (id, link) in self.connections.iter().filter(|(_, link)| link.hello.is_some() && vacant(&link.slot)) {
            waiting.insert(&link.slot, *id);
        }
        for id in waiting.into_values().collect::<Vec<_>>() {
            tracing::info!(connection = %id, "the holder of its slot is silent: the process that was fenced may claim it");
            self.cut(id, Cut::Vacant);
        }
    }

    pub(super) fn look_at_presence(&mut self, now: Monotonic, at: Timestamp) {
        let mut lost = Vec::new();
        let mut back = Vec::new();
        let mut silent = 0;
        let present: BTreeSet<Slot> =
            self.working.slots().iter().filter(|(_, state)| state.present).map(|(slot, _)| slot.clone()).collect();
        for (slot, state) in self.working.slots() {
            let link = self.holder_link(slot);
            let silence = self.silence(slot, now);
            if state.present && silence >= LEASE {
                silent += 1;
                let limit = self.working.catalog.as_ref().and_then(|catalog| catalog.regions.get(&slot.region));
                let limit =
                    limit.map_or(crate::config::defaults::FAILOVER_AFTER, crate::config::Region::failover_after);
                // Without another slot in the region nothing would move: ownership stays, and the slot is current at once when it returns.
                let others = present.iter().any(|other| other.region == slot.region && other != slot);
                if silence >= limit && others {
                    lost.push(slot.clone());
                }
            } else if !state.present
                && link.is_some_and(|link| now.since(link.since) >= STABLE_AFTER && silence < LEASE)
            {
                back.push(slot.clone());
            }
        }
        // More than half silent at once: it is this master that is cut off, and moving hosts would move them to nobody.
        let cut_off = silent * 2 > present.len();
        if cut_off != self.held_off {
            self.held_off = cut_off;
            if cut_off {
                tracing::warn!(
                    silent,
                    slots = present.len(),
                    "more than half of the slots are silent: no host is moved"
                );
            }
        }
        if !cut_off {
            for slot in lost {
                tracing::warn!(%slot, "slot is silent: its hosts move to the others of its region");
                self.change_presence(&slot, false, "silent", at);
            }
        }
        for slot in back {
            tracing::info!(%slot, "slot is stable again: it owns hosts again");
            self.change_presence(&slot, true, "stable", at);
        }
    }
}
