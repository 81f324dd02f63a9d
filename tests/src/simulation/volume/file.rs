//! One run on a model of a disk: segments of records as `seglog` lays them out, what a failed sync leaves behind, what is torn, and
//! the gaps beside them. Decides what is there after a kill and after a power loss; knows no other run.
//!
//! The surprise: after a failed sync the bytes are still to be seen. They count again if the process ends before it has made the
//! next segment, which says that they are void.

use std::collections::VecDeque;

use bytes::Bytes;
use satellite::command::{FoundRun, KeptStates, Piece, ReadBatches, SpooledBatch};
use satellite::outbox::gap::span;
use shared::delivery::{BatchItem, GapRecord, decode_header, decode_items, reason};
use shared::name::{RunCounter, RunId, Sequence, Timeline};

/// Bytes before the first record of a segment.
const SEGMENT_HEAD: u64 = 64;
/// Bytes before a record's payload.
const RECORD_HEAD: u64 = 40;
/// A power loss leaves whole sectors of what was written last.
pub(in crate::simulation) const SECTOR: u64 = 512;
/// Gaps named apart; a further one is added to the last.
const LOST_MAX: usize = 64;

/// Which part of a record has a wrong bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::simulation) enum Part {
    /// Its head: nobody knows any more that it is a record.
    Head,
    /// Its payload: it is known up to where it went.
    Body,
}

/// One batch on disk.
#[derive(Debug, Clone)]
struct Record {
    last: u64,
    bytes: Bytes,
    /// Where it begins in its file.
    at: u64,
    synced: bool,
    damaged: Option<Part>,
}

impl Record {
    fn end(&self) -> u64 {
        self.at + RECORD_HEAD + self.bytes.len() as u64
    }
}

/// One segment.
#[derive(Debug, Clone)]
struct Segment {
    /// Last sequence published before it was made.
    prior: u64,
    records: VecDeque<Record>,
    /// The head of a torn record at its end that can still be read says so much; 0 if none can.
    torn: Option<u64>,
    /// Highest sequence of what is void in it: still to be read, and counted when the run's end is in doubt.
    void: u64,
    /// Bytes of its file: what is void or torn still lies there.
    size: u64,
}

impl Segment {
    fn end(&self) -> u64 {
        self.records.back().map_or(SEGMENT_HEAD, Record::end)
    }
}

/// One run on disk.
#[derive(Debug, Clone)]
pub(super) struct RunFile {
    pub(super) counter: RunCounter,
    segments: VecDeque<Segment>,
    /// Last sequence that the writer calls durable.
    published: u64,
    /// Everything below was deleted.
    first: u64,
    /// The newest segment was given up after a failure: its records that are not synced may come back.
    given_up: bool,
    lost: Vec<GapRecord>,
    /// The end cannot be read.
    end: Option<GapRecord>,
    segment_bytes: u64,
    /// Results named lost whose deletion has not been answered yet.
    named: u64,
    /// A durable record was damaged.
    pub(super) bitten: bool,
}

impl RunFile {
    pub(super) fn new(counter: RunCounter, segment_bytes: u64) -> Self {
        Self {
            counter,
            segments: VecDeque::new(),
            published: 0,
            first: 1,
            given_up: false,
            lost: Vec::new(),
            end: None,
            segment_bytes,
            named: 0,
            bitten: false,
        }
    }

    fn lost_last(&self) -> u64 {
        self.lost.last().map_or(0, |gap| gap.last.0)
    }

    fn last(&self) -> u64 {
        let end = self.end.as_ref().map_or(0, |end| end.last.0);
        self.published.max(self.lost_last()).max(end)
    }

    pub(super) fn found(&self, run: RunId) -> FoundRun {
        FoundRun { run, counter: self.counter, first: Sequence(self.first), last: Sequence(self.last()) }
    }

    /// Whether the end was torn or damaged and told as a gap.
    pub(super) fn ends_in_doubt(&self) -> bool {
        self.end.is_some() || self.lost.iter().any(|gap| gap.lost().is_none())
    }

    pub(super) fn first(&self) -> u64 {
        self.first
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.size).sum()
    }

    /// As it is opened after its writer has gone: what is whole is there, an end that is not whole is a gap of unknown length.
    pub(super) fn recover(&mut self) {
        let void = self.segments.iter().map(|segment| segment.void).max().unwrap_or(0);
        let Some(newest) = self.segments.back_mut() else {
            self.published = 0;
            self.first = 1;
            return;
        };
        newest.records.iter_mut().for_each(|record| record.synced = true);
        let good = newest.records.iter().rposition(|record| record.damaged.is_none()).map_or(0, |at| at + 1);
        let heads = newest.records.iter().skip(good).filter(|record| record.damaged == Some(Part::Body));
        let highest = heads.map(|record| record.last).max().max(newest.torn);
        let doubt = good < newest.records.len() || newest.torn.is_some();
        self.published = newest.records.get(good.wrapping_sub(1)).map_or(newest.prior, |record| record.last);
        self.first = self.segments.front().map_or(1, |oldest| oldest.prior + 1);
        self.given_up = true;
        let first = self.published + 1;
        self.end = (doubt && self.published >= self.lost_last()).then(|| GapRecord {
            first: Sequence(first),
            last: Sequence(highest.unwrap_or(0).max(void).max(first)),
            reason: reason::SPOOL_END.to_owned(),
            from: None,
            to: None,
        });
        self.delete_lost();
    }

    /// Puts batches in the file, not yet durable. What cannot be in one write with the others is durable before those follow.
    pub(super) fn write(&mut self, batches: &[SpooledBatch]) {
        let room = self.segment_bytes - SEGMENT_HEAD;
        let mut group: Vec<&SpooledBatch> = Vec::new();
        let mut bytes = 0;
        let published = self.published;
        for batch in batches.iter().filter(|batch| batch.last.0 > published) {
            let record = RECORD_HEAD + batch.bytes.len() as u64;
            if !group.is_empty() && bytes + record > room {
                self.write_group(&group, bytes);
                self.sync();
                group.clear();
                bytes = 0;
            }
            bytes += record;
            group.push(batch);
        }
        if !group.is_empty() {
            self.write_group(&group, bytes);
        }
    }

    fn write_group(&mut self, group: &[&SpooledBatch], bytes: u64) {
        let fits = |newest: &&mut Segment| newest.end() + bytes <= self.segment_bytes;
        if self.given_up || self.segments.back_mut().filter(fits).is_none() {
            self.roll();
        }
        let Some(newest) = self.segments.back_mut() else { return };
        for batch in group {
            let (at, last, bytes) = (newest.end(), batch.last.0, batch.bytes.clone());
            newest.records.push_back(Record { last, bytes, at, synced: false, damaged: None });
        }
        newest.size = newest.end();
    }

    /// Begins a segment: what the one before holds beyond what is published is void from here on.
    fn roll(&mut self) {
        if let Some(before) = self.segments.back_mut() {
            let published = self.published;
            let counts = |record: &Record| record.synced || record.last <= published;
            let void = before.records.iter().filter(|record| !counts(record));
            before.void = void.map(|record| record.last).max().unwrap_or(0);
            before.records.retain(counts);
        }
        if self.given_up && self.segments.back().is_some_and(|before| self.published <= before.prior) {
            self.segments.pop_back();
        }
        self.given_up = false;
        if self.segments.is_empty() {
            self.first = self.published + 1;
        }
        self.segments.push_back(Segment {
            prior: self.published,
            records: VecDeque::new(),
            torn: None,
            void: 0,
            size: SEGMENT_HEAD,
        });
    }

    /// What was written is durable.
    pub(super) fn sync(&mut self) -> Sequence {
        if let Some(newest) = self.segments.back_mut().filter(|_| !self.given_up) {
            newest.records.iter_mut().for_each(|record| record.synced = true);
            self.published = newest.records.back().map_or(self.published, |record| record.last);
        }
        Sequence(self.published)
    }

    /// What was written is called durable and is not: a planted defect.
    pub(super) fn pretend(&mut self) -> Sequence {
        let newest = self.segments.back().and_then(|newest| newest.records.back());
        self.published = newest.map_or(self.published, |record| record.last);
        Sequence(self.published)
    }

    /// Writing or syncing has failed: the file is left, with what it shows.
    pub(super) fn fail(&mut self) {
        self.given_up = !self.segments.is_empty();
    }

    /// Writes what was not written yet, and makes it durable.
    pub(super) fn append(&mut self, batches: &[SpooledBatch]) {
        let written = self.segments.back().and_then(|newest| newest.records.back()).map_or(0, |record| record.last);
        if self.given_up || batches.last().is_some_and(|last| last.last.0 > written) {
            self.write(batches);
        }
    }

    pub(super) fn trim(&mut self, up_to: u64) -> bool {
        self.trim_segments(up_to)
    }

    fn trim_segments(&mut self, up_to: u64) -> bool {
        let before = self.segments.len();
        while self.segments.get(1).is_some_and(|next| next.prior <= up_to) {
            self.segments.pop_front();
        }
        self.first = self.segments.front().map_or(self.first, |oldest| oldest.prior + 1);
        self.segments.len() < before
    }

    pub(super) fn read(&self, from: Sequence, bytes_max: usize, batches_max: usize) -> ReadBatches {
        let mut found = ReadBatches::default();
        if from.0 < self.first {
            found.trimmed_below = Sequence(self.first);
        }
        found.lost = self.lost.iter().chain(&self.end).filter(|gap| gap.last >= from).cloned().collect();
        let from = from.0.max(self.first);
        let mut bytes = 0;
        found.through = Sequence(from.saturating_sub(1));
        let records = self.segments.iter().flat_map(|segment| &segment.records);
        for record in records.filter(|record| record.last >= from && record.last <= self.published) {
            if bytes >= bytes_max || found.batches.len() >= batches_max {
                return found;
            }
            if record.damaged.is_some() {
                continue;
            }
            found.through = Sequence(record.last);
            bytes += record.bytes.len();
            found.batches.push(record.bytes.clone());
        }
        if bytes < bytes_max && found.batches.len() < batches_max {
            found.through = found.through.max(Sequence(self.last()));
        }
        found
    }

    pub(super) fn pieces(&self) -> Vec<Piece> {
        let ends = self.segments.iter().skip(1).map(|next| next.prior).chain([self.last()]);
        let piece = |(segment, last): (&Segment, u64)| {
            let first = segment.records.iter().find(|record| record.damaged.is_none() && record.last <= self.published);
            let begun = first.and_then(|record| span(&record.bytes).from);
            Piece { last: Sequence(last), bytes: segment.size, begun }
        };
        self.segments.iter().zip(ends).map(piece).collect()
    }

    /// Names a gap.
    pub(super) fn name_lost(&mut self, first: Sequence, up_to: Sequence, reason: &str) {
        let up_to = up_to.0.min(self.last());
        let acknowledged = first.0.saturating_sub(1);
        let first = first.0.max(self.lost_last() + 1).max(self.first);
        if first <= up_to {
            self.lost.retain(|gap| gap.last.0 > acknowledged);
        }
        let records = up_to.min(self.published);
        if first <= records {
            let from = self.batch_at(first).and_then(|batch| span(batch).from);
            let to = self.batch_at(records).and_then(|batch| span(batch).to);
            let to = to.filter(|to| from.is_none_or(|from| from <= *to));
            self.add_lost(GapRecord {
                first: Sequence(first),
                last: Sequence(records),
                reason: reason.to_owned(),
                from,
                to,
            });
            self.named += records - first + 1;
        }
        if first <= up_to {
            self.lost.extend(self.end.clone().filter(|end| end.last.0 <= up_to));
        }
    }

    fn batch_at(&self, sequence: u64) -> Option<&Bytes> {
        let records = self.segments.iter().flat_map(|segment| &segment.records);
        let readable = |record: &&Record| record.damaged.is_none() && record.last <= self.published;
        records.filter(readable).find(|record| record.last >= sequence).map(|record| &record.bytes)
    }

    fn add_lost(&mut self, gap: GapRecord) {
        let full = self.lost.len() >= LOST_MAX;
        match self.lost.last_mut() {
            Some(last) if full || (last.reason == gap.reason && last.last.0 + 1 == gap.first.0) => {
                last.last = last.last.max(gap.last);
                last.from = [last.from, gap.from].into_iter().flatten().min();
                last.to = last.to.max(gap.to);
            }
            _ => self.lost.push(gap),
        }
    }

    /// Deletes up to here, and what is named lost. Says how many results that are.
    pub(super) fn delete(&mut self, up_to: Sequence) -> u64 {
        self.trim_segments(up_to.0);
        self.delete_lost();
        std::mem::take(&mut self.named)
    }

    fn delete_lost(&mut self) {
        let last = self.lost_last();
        if last > 0 && last < self.last() {
            self.trim_segments(last);
        } else if last > 0 && !self.segments.is_empty() {
            self.segments.clear();
            self.first = self.published + 1;
            (self.given_up, self.end) = (false, None);
        }
    }

    pub(super) fn fold(&self, covered: Sequence, timeline: Option<Timeline>, known: &mut KeptStates) {
        let records = self.segments.iter().flat_map(|segment| &segment.records);
        for record in records.filter(|record| record.damaged.is_none() && record.last > covered.0) {
            let Ok((header, body)) = decode_header(&record.bytes) else { continue };
            if timeline.is_some_and(|timeline| timeline != header.timeline) {
                continue;
            }
            for item in decode_items(&header, body).unwrap_or_default() {
                if let BatchItem::Result(sequence, result) = item {
                    known.take_result(header.counter, sequence, &result);
                }
            }
            known.timeline = header.timeline;
        }
    }

    /// Bytes that were written and are not durable: where they begin in their file, and where they end.
    pub(super) fn unsynced(&self) -> Option<(u64, u64)> {
        let newest = self.segments.back()?;
        let first = newest.records.iter().find(|record| !record.synced)?;
        Some((first.at, newest.end()))
    }

    /// A power loss: of what was not durable the disk has what lies before `cut` in the file. Says whether a record was torn.
    pub(super) fn lose_power(&mut self, cut: u64) -> bool {
        let Some(newest) = self.segments.back_mut() else { return false };
        let Some(at) = newest.records.iter().position(|record| !record.synced && record.end() > cut) else {
            return false;
        };
        let torn = newest.records.get(at).filter(|record| record.at < cut);
        newest.torn = torn.map(|record| if cut >= record.at + RECORD_HEAD { record.last } else { 0 });
        newest.records.truncate(at);
        newest.size = cut;
        newest.torn.is_some()
    }

    /// How many records could still be damaged.
    pub(super) fn intact(&self) -> usize {
        self.segments.iter().flat_map(|segment| &segment.records).filter(|r| r.synced && r.damaged.is_none()).count()
    }

    /// Damages the intact record with this number.
    pub(super) fn damage(&mut self, number: usize, part: Part) {
        let records = self.segments.iter_mut().flat_map(|segment| &mut segment.records);
        if let Some(record) = records.filter(|record| record.synced && record.damaged.is_none()).nth(number) {
            record.damaged = Some(part);
            self.bitten = true;
        }
    }

    /// Only what was synced.
    pub(super) fn forget_unsynced(&mut self) {
        for segment in &mut self.segments {
            let whole = segment.records.len();
            segment.records.retain(|record| record.synced);
            if segment.records.len() < whole {
                segment.size = segment.end();
            }
        }
    }
}

/// What only the comparison with the real disk asks for.
#[cfg(test)]
impl RunFile {
    /// Where the intact record with this number is: number of the segment, offset, length of the payload.
    pub(super) fn place(&self, number: usize) -> (usize, u64, u64) {
        let records =
            self.segments.iter().enumerate().flat_map(|(at, segment)| segment.records.iter().map(move |r| (at, r)));
        let mut intact = records.filter(|(_, record)| record.synced && record.damaged.is_none());
        intact.nth(number).map(|(at, record)| (at, record.at, record.bytes.len() as u64)).unwrap_or_default()
    }

    /// How many segments there are.
    pub(super) fn segment_count(&self) -> usize {
        self.segments.len()
    }
}
