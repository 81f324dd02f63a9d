//! What is known of every slot at this moment, and what readers see of it. Decides nothing: `watch` finds what it means, `slots` makes
//! rows of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use shared::name::Slot;
use shared::time::Monotonic;

use super::connection::Connection;
use super::view::{SlotLink, View};
use super::watch::Known;
use super::{Coordinator, Cut};
use crate::entry::IncidentKind;
use crate::fleet::{ConnectionId, LEASE, STABLE_AFTER};

impl Coordinator {
    /// The link of the process that has the slot.
    pub(super) fn holder_link(&self, slot: &Slot) -> Option<&Connection> {
        let holder = self.holder(slot)?;
        // A process may reconnect before its old link is known to be dead: the younger one counts.
        let mut voices = self.voices.get(slot)?.iter().rev().filter_map(|id| self.connections.get(id));
        voices.find(|link| link.instance() == Some(holder))
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
            let voices = self.voices.get(slot).map_or(0, BTreeSet::len);
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
                takes_commands: link.is_none_or(Connection::knows_commands),
            };
            (slot.clone(), shown)
        });
        View {
            status: Arc::clone(&self.published),
            links: links.collect(),
            held_off: self.published.attention().moves_held(),
            read_only: self.unwritable,
            credit: self.pool.figures(),
            refused: self.refused.clone(),
            future: self.future,
        }
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

    /// Every slot that ever had a holder, as it is now.
    pub(super) fn known(&self, now: Monotonic) -> Vec<Known> {
        let attention = self.working.attention();
        let held = self.working.slots().iter().filter(|(_, state)| state.holder.is_some());
        let known = held.map(|(slot, state)| {
            let link = self.holder_link(slot);
            let region = self.working.catalog.as_ref().and_then(|catalog| catalog.regions.get(&slot.region));
            let limit = region.map_or(crate::config::defaults::FAILOVER_AFTER, crate::config::Region::failover_after);
            Known {
                slot: slot.clone(),
                present: state.present,
                drained: attention.drained.contains_key(slot),
                needed: self.expects(slot) || link.is_some() || self.owned(slot) > 0,
                connected: link.is_some(),
                stable: link.is_some_and(|link| now.since(link.since) >= STABLE_AFTER),
                heard: self.heard.get(slot).copied().unwrap_or_default(),
                limit,
                lost: attention.incident(IncidentKind::SlotLost, Some(slot)).is_some(),
            }
        });
        known.collect()
    }

    /// Whether the running configuration asks for a slot.
    pub(super) fn expects(&self, slot: &Slot) -> bool {
        let region = self.working.catalog.as_ref().and_then(|catalog| catalog.regions.get(&slot.region));
        region.is_some_and(|region| slot.number.get() <= region.slots)
    }

    /// How many checks a slot owns.
    pub(super) fn owned(&self, slot: &Slot) -> u64 {
        u64::try_from(self.working.owned(slot).len()).unwrap_or(u64::MAX)
    }
}
