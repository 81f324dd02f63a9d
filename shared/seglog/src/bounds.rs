//! What the writer shares with readers in other threads: how far the log is published, where it begins, which segments
//! it has. Two atomics for the frequent questions; a lock only for the list, which changes when a segment does.

use crate::medium::Medium;
use crate::segment::Segment;
use crate::{Error, Reader};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Shared view of a log; cheap to ask, outlives the [`Log`](crate::Log).
#[derive(Debug)]
pub struct Bounds {
    published: AtomicU64,
    first: AtomicU64,
    segments: Mutex<Vec<Arc<Segment>>>,
    pub(crate) medium: Arc<dyn Medium>,
}

impl Bounds {
    pub(crate) fn new(published: u64, segments: Vec<Arc<Segment>>, medium: Arc<dyn Medium>) -> Self {
        let first = segments.first().map_or(1, |oldest| oldest.prior.saturating_add(1));
        Bounds { published: published.into(), first: first.into(), segments: Mutex::new(segments), medium }
    }

    /// The last durable index; 0 = none. What is published stays published.
    pub fn published(&self) -> u64 {
        self.published.load(Ordering::Acquire)
    }

    /// The lowest index that may still be held; everything below was trimmed. 1 for a log never trimmed.
    pub fn first(&self) -> u64 {
        self.first.load(Ordering::Acquire)
    }

    /// The files of the segments at this moment, oldest first, with how much of each is durable: what a copy is made of. Bytes are only
    /// ever added behind that; whoever opens a file keeps it, trimmed or not.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        self.segments().iter().map(|segment| (segment.path.clone(), segment.length())).collect()
    }

    /// Bytes of the segments that may hold records above `index`.
    pub fn bytes_above(&self, index: u64) -> u64 {
        let segments = self.segments();
        let above = segments.iter().filter(|segment| segment.limit() > index);
        above.fold(0, |sum, segment| sum.saturating_add(segment.size()))
    }

    /// A reader that begins at `from`, as [`Reader::open`].
    pub fn reader(self: &Arc<Self>, from: u64) -> Result<Reader, Error> {
        Reader::open(self, from)
    }

    pub(crate) fn publish(&self, index: u64) {
        self.published.store(index, Ordering::Release);
    }

    /// The list stays usable after a panic elsewhere: every change to it is a single push or drain.
    pub(crate) fn segments(&self) -> MutexGuard<'_, Vec<Arc<Segment>>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The oldest segment younger than the one with this mark. Readers that are caught up ask each time.
    pub(crate) fn after(&self, mark: u64) -> Option<Arc<Segment>> {
        let segments = self.segments();
        let place = segments.partition_point(|segment| segment.mark <= mark);
        segments.get(place).cloned()
    }

    /// Adds the new current segment; the one before it is frozen by this.
    pub(crate) fn push(&self, segment: Arc<Segment>) {
        let mut segments = self.segments();
        match segments.last() {
            Some(before) => before.set_limit(segment.prior),
            None => self.first.store(segment.prior.saturating_add(1), Ordering::Release),
        }
        segments.push(segment);
    }

    /// Takes the oldest segment off the locked list.
    pub(crate) fn remove_oldest(&self, segments: &mut Vec<Arc<Segment>>) {
        if !segments.is_empty() {
            segments.remove(0);
        }
        let first = segments.first().map_or(self.published(), |oldest| oldest.prior).saturating_add(1);
        self.first.store(first, Ordering::Release);
    }
}
