//! After a restore: how a timeline begins, and how its numbers stay above those of the one that is lost. Satellites know how far that
//! one had come; each hello of another timeline lifts this store above it and renews what its slot owns. Decides; knows no backup.
//! The surprise: a hello is believed within bounds only, because one satellite must not be able to use up the numbers of all.

use shared::message::Hello;
use shared::name::{CheckId, Generation, JournalIndex, Slot, Timeline};
use shared::time::Timestamp;

use super::Coordinator;
use crate::entry::{Continued, Entry, GivenUp, Outcomes, Restored, Row};
use crate::status::Status;

/// A lost timeline was ahead of this one's beginning by this many rows at most: a thousand a second for thirty years. A hello beyond
/// it is a breach of the protocol.
pub const AHEAD_ROWS_MAX: u64 = 1 << 40;
/// The same for generations.
pub const AHEAD_GENERATIONS_MAX: u64 = 1 << 32;
/// The same for check ids. Ids left out still take eight bytes of memory each.
pub const AHEAD_CHECKS_MAX: u32 = 1 << 20;

/// The highest numbers that a satellite has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    index: JournalIndex,
    generation: Generation,
    check: CheckId,
}

impl Seen {
    pub(super) fn of(hello: &Hello) -> Self {
        Self { index: JournalIndex(hello.grant.0), generation: hello.generation, check: hello.check }
    }
}

/// The timeline of a hello, if it is not the store's.
pub(super) fn of_another(status: &Status, hello: &Hello) -> Option<Timeline> {
    hello.timeline.filter(|known| *known != status.timeline)
}

/// The first row of a new timeline, behind the last one of a backup. `timeline` must be 64 fresh random bits.
///
/// `None` if the backup is of a store that never had a first row.
#[must_use]
pub fn restored(backup: &Status, timeline: Timeline, at: Timestamp) -> Option<Row> {
    let waiting = backup.errands().filter(|(_, errand)| errand.what.is_some());
    let restored = Restored {
        installation: backup.installation.clone()?,
        timeline,
        first_check: backup.next_check,
        from: backup.timeline,
        head: backup.head,
        head_at: backup.at,
        given_up: waiting.map(|(command, errand)| GivenUp { command, check: errand.check }).collect(),
    };
    Some(Row {
        index: JournalIndex(backup.head.0.saturating_add(1)),
        term: backup.term,
        at: at.max(backup.at),
        entry: Entry::Restored(restored),
        outcomes: Outcomes::default(),
    })
}

impl Coordinator {
    /// A satellite of another timeline says hello: numbers go on above what it has seen, and all grants of its slot are renewed if it
    /// `holds` the slot already (who takes it is given new ones anyway).
    ///
    /// An error is what the satellite broke the protocol with.
    pub(super) fn go_on_above(
        &mut self,
        slot: &Slot,
        timeline: Timeline,
        seen: Seen,
        holds: bool,
        at: Timestamp,
    ) -> Result<(), String> {
        let status = &self.working;
        let lineage = status.lineage();
        let began = lineage.restored.as_ref().map_or(lineage.began, |restored| restored.head);
        if seen.index.0 > began.0.saturating_add(AHEAD_ROWS_MAX)
            || seen.generation.0 > status.generation.0.saturating_add(AHEAD_GENERATIONS_MAX)
            || seen.check.0 > status.first_check.0.saturating_add(AHEAD_CHECKS_MAX)
        {
            return Err(format!("a hello of timeline {:016x} with numbers that no store can have given", timeline.0));
        }
        let ahead = seen.index > status.head
            || seen.generation > status.generation.max(lineage.seen)
            || seen.check >= status.next_check;
        if !ahead && !holds {
            return Ok(());
        }
        tracing::info!(%slot, timeline = format!("{:016x}", timeline.0), index = %seen.index, "a satellite of another timeline: its grants are renewed");
        let continued = Continued {
            slot: slot.clone(),
            timeline,
            after: status.head,
            above: seen.index,
            generation: seen.generation,
            check: seen.check,
        };
        self.add_with_grants(Entry::Continued(continued), Outcomes::default(), None, holds.then_some(slot), at);
        Ok(())
    }
}
