//! Rows about the store itself: where a timeline begins after a restore, how far satellites know of one that is lost, and what a
//! writer was overrun by. Disk format, as the room above. The surprise: [`Continued`] is the one entry whose index may jump, for
//! the numbers up to there were given by a store that is no more.

use minicbor::{Decode, Encode};
use shared::name::{CheckId, Generation, InstallationId, JournalIndex, Slot, Timeline};
use shared::time::Timestamp;

/// The store was put back from a backup: a new timeline begins here.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Restored {
    /// Whose store.
    #[n(0)]
    pub installation: InstallationId,
    /// The new timeline.
    #[n(1)]
    pub timeline: Timeline,
    /// First check id the new timeline gives: the next one of the backup.
    #[n(2)]
    pub first_check: CheckId,
    /// Timeline of the backup.
    #[n(3)]
    pub from: Timeline,
    /// Last row of the backup.
    #[n(4)]
    pub head: JournalIndex,
    /// When that row was written: what came after it is lost here.
    #[n(5)]
    pub head_at: Timestamp,
    /// Commands that waited for their answer in the backup, 8,192 at most: nobody is told of them any more.
    #[n(6)]
    #[cbor(default)]
    pub given_up: Vec<GivenUp>,
}

/// A command that a restore has ended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct GivenUp {
    /// Its name in the timeline of the backup.
    #[n(0)]
    pub command: JournalIndex,
    /// Of which check.
    #[n(1)]
    pub check: CheckId,
}

/// A satellite of another timeline has seen higher numbers than this store gave: it goes on above them.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Continued {
    /// Whose hello said so.
    #[n(0)]
    pub slot: Slot,
    /// The timeline it knows.
    #[n(1)]
    pub timeline: Timeline,
    /// Last row before this one. Between the two there are none.
    #[n(2)]
    pub after: JournalIndex,
    /// Highest index it has seen; this row's is above it.
    #[n(3)]
    pub above: JournalIndex,
    /// Highest generation it has seen.
    #[n(4)]
    pub generation: Generation,
    /// Highest check id it has seen.
    #[n(5)]
    pub check: CheckId,
}

impl Continued {
    /// The index of the row of this entry.
    #[must_use]
    pub fn index(&self) -> JournalIndex {
        JournalIndex(self.after.max(self.above).0.saturating_add(1))
    }
}

/// Reason of a [`WriterGap`]: the journal had reached its bytes.
pub const JOURNAL_BYTES: &str = "journal-bytes";
/// Reason of a [`WriterGap`]: the rows had reached the journal's age.
pub const JOURNAL_AGE: &str = "journal-age";
/// Reason of a [`WriterGap`]: the rows are there, and can never be read.
pub const JOURNAL_DAMAGED: &str = "journal-damaged";

/// Rows that a writer will never send, because they were removed before it came to them, or cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct WriterGap {
    /// The writer's name.
    #[n(0)]
    pub writer: String,
    /// Which of its cursors: `metrics`.
    #[n(1)]
    pub lane: String,
    /// First index lost to it.
    #[n(2)]
    pub first: JournalIndex,
    /// Last index lost to it.
    #[n(3)]
    pub last: JournalIndex,
    /// Stable name of the reason: [`JOURNAL_BYTES`], [`JOURNAL_AGE`], [`JOURNAL_DAMAGED`].
    #[n(4)]
    pub reason: String,
}

impl WriterGap {
    /// What happened, for people, in a sentence without a full stop; `None` for a reason of a later version.
    #[must_use]
    pub fn meaning(&self) -> Option<&'static str> {
        match self.reason.as_str() {
            JOURNAL_BYTES => Some("the writer was so far behind that the journal had reached --journal-bytes"),
            JOURNAL_AGE => Some("the writer was so far behind that the rows had reached --journal-age"),
            JOURNAL_DAMAGED => Some("the journal is damaged there, and the rows can never be read"),
            _ => None,
        }
    }
}
