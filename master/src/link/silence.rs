//! Satellites that are heard and do not hear: a road that is cut towards them still brings what they send. They are known by what
//! they do not acknowledge, and closed, so that their slot is shown as not connected in time. The surprise: one look goes over all
//! connections, since a timer for each costs more than the looks.

use std::collections::BTreeMap;
use std::sync::Arc;

use shared::unanswered::{LOOK_EVERY, Unanswered};

use super::{CloseReason, ConnectionId, Link};

impl Link {
    /// Closes who acknowledges nothing any more, until the link stops.
    pub(super) async fn watch_answers(self: Arc<Self>) {
        let mut seen: BTreeMap<ConnectionId, Unanswered> = BTreeMap::new();
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while self.tick(&mut ticks).await {
            // Counters are read without the registry: each asks for its connection's own lock.
            let open: Vec<(ConnectionId, quinn::Connection)> = {
                let registry = self.registry();
                let open = registry.open.iter().filter(|(_, entry)| entry.closed.is_none());
                open.map(|(connection, entry)| (*connection, entry.connection.clone())).collect()
            };
            let mut still = BTreeMap::new();
            for (id, connection) in open {
                let mut peer = seen.remove(&id).unwrap_or_default();
                let counts = connection.stats();
                let sent = counts.frame_tx.stream.saturating_add(counts.frame_tx.ping);
                if peer.look(sent, counts.path.rtt) {
                    self.close(id, CloseReason::Unanswered);
                } else {
                    still.insert(id, peer);
                }
            }
            seen = still;
        }
    }
}
