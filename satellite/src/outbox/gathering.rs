//! From results to batches on the volume: decides when a batch closes, what one append holds, and what is given up when volume and
//! memory are full. Knows nothing of sending. The surprise: a batch waits while a commit runs, so the busier the disk, the larger
//! the batches.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use shared::defect::{Defect, Defects};
use shared::delivery::{BatchBuilder, BatchHeader, GapRecord, reason};
use shared::name::{Generation, RunId, Sequence, Timeline};
use shared::result::CheckResult;
use shared::time::Monotonic;

use super::gap::Span;
use super::run::Place;
use crate::command::{Command, Limits, SpooledBatch};

/// A batch waits this long after its first result for more.
pub const LINGER: Duration = Duration::from_millis(10);
/// After a failed append or read the next attempt comes this much later.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);
/// One append holds about this much at most, or an eighth of the spool's bound less a batch; the rest goes with the next one.
pub const APPEND_BYTES: usize = 4 * 1024 * 1024;
/// What the last batch of an append may add to that.
const BATCH_SLACK: usize = 128 * 1024;

/// A closed batch that is not on the volume yet.
#[derive(Debug)]
struct Waiting {
    place: Place,
    gap: bool,
    span: Span,
    batch: SpooledBatch,
}

/// Results that are not durable yet.
#[derive(Debug)]
pub struct Gathering {
    timeline: Timeline,
    generation: Generation,
    place: Place,
    builder: BatchBuilder,
    /// Sequences of the batch being gathered: above the first, up to the last.
    after: Sequence,
    last: Sequence,
    span: Span,
    since: Option<Monotonic>,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    /// Batches that could not be appended are held up to so many bytes; beyond, the oldest become a gap record.
    waiting_bytes_max: usize,
    append_bytes: usize,
    given_up: u64,
    /// So many of the first in `waiting` are being appended.
    appending: usize,
    retry: Option<Monotonic>,
    flushing: bool,
    memory_only: bool,
    defects: Defects,
}

impl Gathering {
    /// For a run that ends, so far, at `last`.
    #[must_use]
    pub fn new(place: Place, last: Sequence) -> Self {
        Self {
            timeline: Timeline::default(),
            generation: Generation::default(),
            place,
            builder: BatchBuilder::default(),
            after: last,
            last,
            span: Span::default(),
            since: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            waiting_bytes_max: Limits::DEFAULT.memory,
            append_bytes: APPEND_BYTES,
            given_up: 0,
            appending: 0,
            retry: None,
            flushing: false,
            memory_only: false,
            defects: Defects::default(),
        }
    }

    pub(super) fn set_defects(&mut self, defects: Defects) {
        self.defects = defects;
    }

    /// Sets the bounds of memory, and of an append by those of the volume.
    pub fn set_limits(&mut self, limits: &Limits) {
        let eighth = usize::try_from(limits.segment_bytes()).unwrap_or(APPEND_BYTES);
        self.waiting_bytes_max = limits.memory;
        self.append_bytes = eighth.saturating_sub(BATCH_SLACK).clamp(1, APPEND_BYTES);
    }

    /// Results from here on were made under this. A batch never mixes two.
    pub fn set_origin(&mut self, timeline: Timeline, generation: Generation) {
        if (timeline, generation) != (self.timeline, self.generation) {
            self.close();
            (self.timeline, self.generation) = (timeline, generation);
        }
    }

    /// Results from here on belong to a new run.
    pub fn set_run(&mut self, place: Place) {
        self.close();
        self.place = place;
        (self.after, self.last) = (Sequence(0), Sequence(0));
    }

    /// Takes a result, which gets the next sequence.
    pub fn push(&mut self, now: Monotonic, result: &CheckResult) {
        self.last = Sequence(self.last.0.saturating_add(1));
        self.span.add(result.ended());
        self.builder.push(result);
        self.since.get_or_insert(now);
        if self.builder.is_full() {
            self.close();
        }
    }

    fn header(&self, place: Place, first: Sequence, last: Sequence) -> BatchHeader {
        let (counter, run) = place;
        BatchHeader { timeline: self.timeline, generation: self.generation, run, counter, first, last }
    }

    /// A batch that says only that results are gone.
    #[must_use]
    pub fn gap(&self, place: Place, gap: &GapRecord) -> Bytes {
        let mut builder = BatchBuilder::default();
        builder.push_gap(gap);
        Bytes::from(builder.finish(&self.header(place, gap.first, gap.last)))
    }

    fn close(&mut self) {
        self.since = None;
        if self.builder.is_empty() {
            return;
        }
        let (first, last) = (Sequence(self.after.0.saturating_add(1)), self.last);
        let header = self.header(self.place, first, last);
        let bytes = Bytes::from(self.builder.finish(&header));
        self.after = last;
        self.waiting_bytes = self.waiting_bytes.saturating_add(bytes.len());
        let batch = SpooledBatch { first, last, bytes };
        self.waiting.push_back(Waiting { place: self.place, gap: false, span: std::mem::take(&mut self.span), batch });
        while self.waiting_bytes > self.waiting_bytes_max
            && !self.defects.has(Defect::MemoryUnbounded)
            && self.give_up_oldest()
        {}
    }

    /// Turns the oldest batch that is not just being appended into a gap record, or adds the next one to such a record. A record whose
    /// successor belongs to another run stays as it is; of those there are no more than runs.
    fn give_up_oldest(&mut self) -> bool {
        let can = |at: &usize| {
            let next = self.waiting.get(at + 1);
            self.waiting.get(*at).is_some_and(|one| !one.gap || next.is_some_and(|next| next.place == one.place))
        };
        let Some(at) = (self.appending..self.waiting.len()).find(can) else { return false };
        let Some(oldest) = self.waiting.get(at) else { return false };
        let (place, first, mut last, mut span) = (oldest.place, oldest.batch.first, oldest.batch.last, oldest.span);
        let mut lost = if oldest.gap { 0 } else { count(&oldest.batch) };
        if oldest.gap
            && let Some(next) = self.waiting.remove(at + 1)
        {
            self.waiting_bytes = self.waiting_bytes.saturating_sub(next.batch.bytes.len());
            last = next.batch.last;
            span.join(next.span);
            lost = if next.gap { 0 } else { count(&next.batch) };
        }
        self.given_up = self.given_up.saturating_add(lost);
        let reason = reason::SPOOL_FULL.to_owned();
        let bytes = self.gap(place, &GapRecord { first, last, reason, from: span.from, to: span.to });
        if let Some(oldest) = self.waiting.get_mut(at) {
            self.waiting_bytes =
                self.waiting_bytes.saturating_sub(oldest.batch.bytes.len()).saturating_add(bytes.len());
            *oldest = Waiting { place, gap: true, span, batch: SpooledBatch { first, last, bytes } };
        }
        true
    }

    /// Results given up since the start.
    #[must_use]
    pub fn given_up(&self) -> u64 {
        self.given_up
    }

    /// When [`Gathering::next_append`] has something to give.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Monotonic> {
        match (self.appending, self.retry) {
            (0, Some(retry)) => Some(retry),
            (0, None) => self.since.map(|since| since.plus(LINGER)),
            _ => None,
        }
    }

    /// From here on nothing lingers.
    pub fn flush(&mut self) {
        self.flushing = true;
    }

    /// The next append, if it is time. One at a time; while it runs the next batch gathers.
    pub fn next_append(&mut self, now: Monotonic) -> Option<Command> {
        if self.appending > 0 || self.retry.is_some_and(|retry| retry > now) {
            return None;
        }
        if self.since.is_some_and(|since| self.flushing || since.plus(LINGER) <= now) {
            self.close();
        }
        let place = self.waiting.front()?.place;
        let mut bytes = 0;
        let fits = |waiting: &&Waiting| {
            let fits = waiting.place == place && bytes < self.append_bytes;
            bytes += waiting.batch.bytes.len();
            fits
        };
        let batches: Vec<SpooledBatch> =
            self.waiting.iter().take_while(fits).map(|waiting| waiting.batch.clone()).collect();
        self.appending = batches.len();
        Some(Command::Append { run: place.1, batches })
    }

    /// Everything of the run up to here is durable: these batches of it were waiting.
    pub fn appended(&mut self, run: RunId, up_to: Sequence) -> Vec<(Place, SpooledBatch)> {
        self.appending = 0;
        self.retry = None;
        self.memory_only = false;
        let durable = |waiting: &Waiting| waiting.place.1 == run && waiting.batch.last <= up_to;
        let count = self.waiting.iter().take_while(|waiting| durable(waiting)).count();
        let batches: Vec<(Place, SpooledBatch)> =
            self.waiting.drain(..count).map(|waiting| (waiting.place, waiting.batch)).collect();
        let bytes: usize = batches.iter().map(|(_, batch)| batch.bytes.len()).sum();
        self.waiting_bytes = self.waiting_bytes.saturating_sub(bytes);
        batches
    }

    /// Nothing of the append is on the volume; it is tried again.
    pub fn append_failed(&mut self, now: Monotonic) {
        self.appending = 0;
        self.retry = Some(now.plus(RETRY_AFTER));
        self.memory_only = true;
        if self.defects.has(Defect::SequenceReused) {
            self.close();
            let waiting = self.waiting.iter().find(|waiting| waiting.place == self.place);
            self.last = waiting.map_or(self.last, |waiting| Sequence(waiting.batch.first.0.saturating_sub(1)));
            self.after = self.last;
        }
    }

    /// Whether the volume cannot be written.
    #[must_use]
    pub fn memory_only(&self) -> bool {
        self.memory_only
    }

    /// Whether nothing is left to be made durable.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.builder.is_empty() && self.waiting.is_empty()
    }

    /// Bytes of closed batches that are not durable.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// How many of those are gap records.
    #[must_use]
    pub fn gaps_waiting(&self) -> usize {
        self.waiting.iter().filter(|waiting| waiting.gap).count()
    }
}

fn count(batch: &SpooledBatch) -> u64 {
    batch.last.0.saturating_sub(batch.first.0).saturating_add(1)
}
