//! Where the present timeline began, what was restored, how far others have counted, and what writers were overrun by. Folds rows
//! about the store itself; knows no object. The surprise: the generation that runs may be lower than one that satellites have seen;
//! the next one is above both.

use std::sync::Arc;

use minicbor::{Decode, Encode};
use shared::name::{Generation, JournalIndex, Timeline};
use shared::time::Timestamp;

use super::{GAPS_SHOWN, Status};
use crate::entry::{Continued, Restored, Row, WriterGap};

/// The last restore.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Restoration {
    /// The row that says so.
    #[n(0)]
    pub index: JournalIndex,
    /// When it was restored.
    #[n(1)]
    pub at: Timestamp,
    /// Timeline of the backup.
    #[n(2)]
    pub from: Timeline,
    /// Last row of the backup.
    #[n(3)]
    pub head: JournalIndex,
    /// When that row was written.
    #[n(4)]
    pub head_at: Timestamp,
}

/// A writer's gap with the row that named it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct WriterGapSeen {
    /// Index of the row.
    #[n(0)]
    pub index: JournalIndex,
    /// When.
    #[n(1)]
    pub at: Timestamp,
    /// Which.
    #[n(2)]
    pub gap: WriterGap,
}

/// What the store knows about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Lineage {
    /// The row with which the present timeline began.
    #[n(0)]
    pub began: JournalIndex,
    /// The last restore; `None` where the store was never restored.
    #[n(1)]
    pub restored: Option<Restoration>,
    /// Highest generation that a satellite of another timeline has seen.
    #[n(2)]
    pub seen: Generation,
    /// The newest gaps of writers, [`GAPS_SHOWN`] at most, oldest first.
    #[n(3)]
    pub writer_gaps: Vec<WriterGapSeen>,
    /// Gaps of writers, ever.
    #[n(4)]
    pub writer_gaps_total: u64,
}

impl Lineage {
    /// Whether this very gap is named already, among the newest.
    #[must_use]
    pub fn names(&self, gap: &WriterGap) -> bool {
        self.writer_gaps.iter().any(|seen| seen.gap == *gap)
    }
}

impl Status {
    /// What the store knows about itself.
    #[must_use]
    pub fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// The generation that the next activation gets.
    #[must_use]
    pub fn next_generation(&self) -> Generation {
        Generation(self.generation.max(self.lineage.seen).0.saturating_add(1))
    }

    pub(super) fn fold_restored(&mut self, row: &Row, restored: &Restored) {
        self.installation = Some(restored.installation.clone());
        self.timeline = restored.timeline;
        self.first_check = restored.first_check;
        self.next_check = self.next_check.max(restored.first_check);
        self.leave_commands(restored.from, restored.head, row.at);
        let lineage = Arc::make_mut(&mut self.lineage);
        lineage.began = row.index;
        lineage.restored = Some(Restoration {
            index: row.index,
            at: row.at,
            from: restored.from,
            head: restored.head,
            head_at: restored.head_at,
        });
    }

    pub(super) fn fold_continued(&mut self, continued: &Continued) {
        self.next_check.0 = self.next_check.0.max(continued.check.0.saturating_add(1));
        let lineage = Arc::make_mut(&mut self.lineage);
        lineage.seen = lineage.seen.max(continued.generation);
    }

    pub(super) fn fold_writer_gap(&mut self, row: &Row, gap: &WriterGap) {
        let lineage = Arc::make_mut(&mut self.lineage);
        lineage.writer_gaps_total += 1;
        lineage.writer_gaps.push(WriterGapSeen { index: row.index, at: row.at, gap: gap.clone() });
        let surplus = lineage.writer_gaps.len().saturating_sub(GAPS_SHOWN);
        lineage.writer_gaps.drain(..surplus);
    }
}
