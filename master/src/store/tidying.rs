//! How far the store's own work beside commits has come: checkpoints written, segments of the journal removed. Two readings taken
//! around a commit say whether it was made durable beside such work. Decides nothing; knows no file and no clock.
//! The surprise: a checkpoint counts twice, at its begin and at its end, so one that both readings lie in is seen, too.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Store;

/// What the store's threads count as they go.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Begins and ends of checkpoints: odd while one is being written.
    checkpoints: AtomicU64,
    /// Segments removed.
    removed: AtomicU64,
}

impl Counts {
    /// Writes a checkpoint, counted; one at a time.
    pub(super) fn checkpoint<T>(&self, write: impl FnOnce() -> T) -> T {
        self.checkpoints.fetch_add(1, Ordering::AcqRel);
        let written = write();
        self.checkpoints.fetch_add(1, Ordering::AcqRel);
        written
    }

    /// A segment was removed.
    pub(super) fn removed(&self) {
        self.removed.fetch_add(1, Ordering::AcqRel);
    }

    fn read(&self) -> Tidying {
        Tidying { checkpoints: self.checkpoints.load(Ordering::Acquire), removed: self.removed.load(Ordering::Acquire) }
    }
}

/// One reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tidying {
    checkpoints: u64,
    removed: u64,
}

/// What went on between two readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Beside {
    /// A checkpoint was being written, at one of them or between.
    pub checkpoint: bool,
    /// A segment of the journal was removed between.
    pub trim: bool,
}

impl Tidying {
    /// What went on from an earlier reading to this one.
    #[must_use]
    pub fn since(self, earlier: Tidying) -> Beside {
        Beside {
            checkpoint: self.checkpoints != earlier.checkpoints || self.checkpoints % 2 == 1,
            trim: self.removed != earlier.removed,
        }
    }
}

impl Store {
    /// How far its work beside commits has come.
    #[must_use]
    pub fn tidying(&self) -> Tidying {
        self.inner.progress.tidying.read()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beside_a_checkpoint_is_seen_however_they_overlap() {
        let counts = Counts::default();
        let before = counts.read();
        let (begun, still) = counts.checkpoint(|| (counts.read(), counts.read()));
        let after = counts.read();
        for (from, to) in [(before, begun), (begun, still), (still, after), (before, after)] {
            assert_eq!(to.since(from), Beside { checkpoint: true, trim: false }, "{from:?} {to:?}");
        }
        assert_eq!(before.since(before), Beside::default());
        assert_eq!(after.since(after), Beside::default());
    }

    #[test]
    fn what_waits_while_a_segment_is_removed_is_seen() {
        let counts = Counts::default();
        let before = counts.read();
        counts.removed();
        let after = counts.read();
        assert_eq!(after.since(before), Beside { checkpoint: false, trim: true });
        assert_eq!(counts.read().since(after), Beside::default());
    }
}
