//! One run on disk: its records, and what of it is gone by name. Decides when a gap is durable (before what it names is deleted) and
//! how a run ends whose end cannot be read; knows nothing of other runs or of delivery.
//!
//! The surprise: the gaps of a run are a small file beside its segments, because a record cannot take the place of records that
//! others follow. It is believed before the segments: what it names is deleted at the next opening if a crash prevented it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use minicbor::{Decode, Encode};
use seglog::{Item, Log, Medium, Options, Reader};
use shared::delivery::{BatchHeader, BatchItem, GapRecord, decode_header, decode_items, decode_wanted, reason};
use shared::name::{JournalIndex, RunCounter, RunId, Sequence, Timeline};
use shared::time::Timestamp;

use crate::command::{FoundRun, KeptStates, Piece, ReadBatches, SpooledBatch};
use crate::spool::sealed::{self, SealError};

/// Kind of log a run is.
const RUN_TAG: [u8; 4] = *b"run1";
/// Kind of file its gaps are.
const LOST_TAG: [u8; 4] = *b"PGLO";
/// Name of that file.
const LOST: &str = "lost";
/// Version of it.
const FORMAT: u8 = 1;
/// Gaps named apart; a further one is added to the last of them, under that one's name.
const LOST_MAX: usize = 64;
/// Without a file of states those of checks are taken from so much of a run's newest results: a start must not take long. What is older
/// is the state of a check that has hardly run, and the master has one too.
const FOLD_BYTES: u64 = 256 * 1024 * 1024;
/// After so many failed readings in a row, what the disk refuses to give counts as damaged.
const READS_FAILED_MAX: u32 = 3;

/// What the file says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
struct Lost {
    /// In order, without overlap.
    #[n(0)]
    gaps: Vec<GapRecord>,
}

impl Lost {
    fn last(&self) -> Sequence {
        self.gaps.last().map(|gap| gap.last).unwrap_or_default()
    }

    /// Adds what follows; one record with the one before it if they touch and have one reason.
    fn add(&mut self, gap: GapRecord) {
        let full = self.gaps.len() >= LOST_MAX;
        match self.gaps.last_mut() {
            Some(last) if full || (last.reason == gap.reason && last.last.0.saturating_add(1) == gap.first.0) => {
                last.last = last.last.max(gap.last);
                last.from = [last.from, gap.from].into_iter().flatten().min();
                last.to = last.to.max(gap.to);
            }
            _ => self.gaps.push(gap),
        }
    }
}

/// One run on disk.
#[derive(Debug)]
pub struct RunLog {
    counter: RunCounter,
    path: PathBuf,
    /// Records: batches by their last sequence.
    log: Log,
    lost: Lost,
    /// Behind the last record something stood that cannot be read.
    end: Option<GapRecord>,
    /// When the first result of a segment ended, by the index before it.
    begun: BTreeMap<u64, Option<Timestamp>>,
    /// The place from which the next reading goes on.
    reader: Option<(Sequence, Reader)>,
    failures: u32,
}

/// How a run is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// Its process is gone: nothing is added to it, and an end that cannot be read is told as a gap.
    pub ended: bool,
    /// What the system refuses to read of its gaps counts as damaged.
    pub patient: bool,
}

/// When the results of a batch ended, earliest and latest.
fn span(batch: &[u8]) -> Option<(Timestamp, Timestamp)> {
    let (header, body) = decode_header(batch).ok()?;
    let items = decode_items(&header, body).ok()?;
    let times = items.iter().filter_map(|item| match item {
        BatchItem::Result(_, result) => Some((result.ended(), result.ended())),
        BatchItem::Gap(gap) => gap.from.zip(gap.to),
        BatchItem::Unreadable(_) => None,
    });
    times.reduce(|(from, to), (first, last)| (from.min(first), to.max(last)))
}

impl RunLog {
    /// Opens or makes the run in `path`.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn open(
        path: PathBuf,
        (counter, run): (RunCounter, RunId),
        segment_bytes: u64,
        how: Opening,
        medium: &Arc<dyn Medium>,
    ) -> Result<Self> {
        let mut owner = [0; 8];
        owner.copy_from_slice(&run.0[..8]);
        let options =
            Options { segment_bytes, owner: u64::from_le_bytes(owner), frozen: how.ended, ..Options::new(RUN_TAG) };
        let (log, recovery) = Log::open_on(&path, options, Arc::clone(medium))?;
        for damage in &recovery.damages {
            tracing::warn!(path = %path.display(), ?damage, "part of a run cannot be read; it becomes a gap");
        }
        for name in recovery.ignored.iter().filter(|name| *name != LOST) {
            tracing::warn!(path = %path.display(), name, "this is no part of the run and is left alone");
        }
        let lost = match sealed::read(&path.join(LOST), LOST_TAG, FORMAT) {
            Ok(bytes) => minicbor::decode::<Lost>(&bytes).unwrap_or_default(),
            Err(SealError::Missing) => Lost::default(),
            // Says nothing about the file: without these names results would be gone without one.
            Err(SealError::Io(error)) if !how.patient => {
                return Err(error).with_context(|| format!("cannot read {}", path.join(LOST).display()));
            }
            Err(error) => {
                tracing::error!(path = %path.display(), "the names of this run's gaps are lost: {error}");
                Lost::default()
            }
        };
        let end = (how.ended && recovery.end_in_doubt && recovery.published >= lost.last().0).then(|| {
            let first = recovery.published.saturating_add(1);
            tracing::warn!(path = %path.display(), first, "the end of a run cannot be read; it becomes a gap");
            GapRecord {
                first: Sequence(first),
                last: Sequence(recovery.highest_seen.max(first)),
                reason: reason::SPOOL_END.to_owned(),
                from: None,
                to: None,
            }
        });
        let mut held = Self { counter, path, log, lost, end, begun: BTreeMap::new(), reader: None, failures: 0 };
        if let Err(error) = held.delete_lost() {
            tracing::error!(path = %held.path.display(), "what was given up is still on the volume: {error:#}");
        }
        Ok(held)
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// As the brain wants it.
    #[must_use]
    pub fn found(&self, run: RunId) -> FoundRun {
        FoundRun { run, counter: self.counter, first: Sequence(self.log.first()), last: self.last() }
    }

    /// First sequence that may still be on the volume.
    #[must_use]
    pub fn first(&self) -> Sequence {
        Sequence(self.log.first())
    }

    /// Last sequence that is durable or known to be lost.
    #[must_use]
    pub fn last(&self) -> Sequence {
        let end = self.end.as_ref().map(|end| end.last).unwrap_or_default();
        Sequence(self.log.published()).max(self.lost.last()).max(end)
    }

    /// Bytes on disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.log.bytes()
    }

    /// Appends and makes durable; up to where everything is.
    ///
    /// # Errors
    /// When the system refuses; nothing of it counts then.
    pub fn append(&mut self, batches: &[SpooledBatch]) -> Result<Sequence> {
        for batch in batches {
            // A repeated append after a failure may find a part of itself.
            if batch.last.0 > self.log.published() {
                self.log.append(batch.last.0, &batch.bytes)?;
            }
        }
        Ok(Sequence(self.log.sync()?))
    }

    /// Deletes whole segments of which nothing above `up_to` is in; whether there were any.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn trim(&mut self, up_to: Sequence) -> Result<bool> {
        Ok(self.log.trim(up_to.0)? > 0)
    }

    /// Batches that hold `from` or more, until one of the bounds is reached.
    ///
    /// # Errors
    /// When the system refuses, for the first few times.
    pub fn read(&mut self, from: Sequence, bytes_max: usize, batches_max: usize) -> Result<ReadBatches> {
        let mut found = ReadBatches::default();
        let first = self.first();
        if from < first {
            found.trimmed_below = first;
        }
        found.lost = self.lost.gaps.iter().chain(&self.end).filter(|gap| gap.last >= from).cloned().collect();
        let from = from.max(first);
        let opened = self.log.read(from.0)?;
        let mut reader = match self.reader.take() {
            Some((at, reader)) if at == from => reader,
            _ => opened,
        };
        if self.failures >= READS_FAILED_MAX {
            reader.pass_over_unreadable();
        }
        let mut bytes = 0;
        found.through = Sequence(from.0.saturating_sub(1));
        loop {
            if bytes >= bytes_max || found.batches.len() >= batches_max {
                break;
            }
            match reader.next() {
                Ok(Some(Item::Record { index, payload })) => {
                    found.through = Sequence(index);
                    bytes += payload.len();
                    found.batches.push(Bytes::from(payload));
                }
                Ok(Some(Item::Damage(damage))) => {
                    tracing::error!(path = %self.path.display(), ?damage, "part of a run cannot be read; it becomes a gap");
                }
                Ok(None) => {
                    found.through = found.through.max(self.last());
                    break;
                }
                Err(error) => {
                    self.failures = self.failures.saturating_add(1);
                    return Err(error.into());
                }
            }
        }
        self.failures = 0;
        self.reader = Some((Sequence(found.through.0.saturating_add(1)), reader));
        Ok(found)
    }

    /// Its segments as they can be given up.
    pub fn pieces(&mut self) -> Vec<Piece> {
        let extents = self.log.extents();
        self.begun.retain(|after, _| extents.iter().any(|extent| extent.after == *after));
        let newest = extents.len();
        let mut pieces = Vec::new();
        for (number, extent) in (1..).zip(extents) {
            let log = &self.log;
            let first = || {
                let mut reader = log.read(extent.after.saturating_add(1)).ok()?;
                loop {
                    match reader.next().ok()?? {
                        Item::Record { index, payload } => {
                            return span(&payload).filter(|_| index <= extent.last).map(|(from, _)| from);
                        }
                        Item::Damage(_) => {}
                    }
                }
            };
            let known = self.begun.get(&extent.after).copied();
            let begun = known.unwrap_or_else(first);
            // The newest may be empty as yet.
            if number < newest || begun.is_some() {
                self.begun.insert(extent.after, begun);
            }
            let last = if number == newest { self.last() } else { Sequence(extent.last) };
            pieces.push(Piece { last, bytes: extent.bytes, begun });
        }
        pieces
    }

    /// Names `first..=up_to` a gap, durably, and then deletes everything up to there. Returns how many results that are.
    ///
    /// # Errors
    /// When the gap cannot be made durable: then nothing is deleted.
    pub fn give_up(&mut self, first: Sequence, up_to: Sequence, reason: &str) -> Result<u64> {
        let up_to = up_to.min(self.last());
        let acknowledged = Sequence(first.0.saturating_sub(1));
        // What is named already, and what was trimmed because the master had it, is not lost by this.
        let first = first.max(Sequence(self.lost.last().0.saturating_add(1))).max(self.first());
        let mut count = 0;
        if first <= up_to {
            let mut lost = self.lost.clone();
            // A gap that the master has is needed no more.
            lost.gaps.retain(|gap| gap.last > acknowledged);
            let records = Sequence(up_to.0.min(self.log.published()));
            if first <= records {
                let (from, to) = self.times(first, records);
                lost.add(GapRecord { first, last: records, reason: reason.to_owned(), from, to });
                count = records.0 - first.0 + 1;
            }
            // With the last record goes what tells that there was more.
            lost.gaps.extend(self.end.clone().filter(|end| end.last <= up_to));
            let content = minicbor::to_vec(&lost).context("the gaps cannot be encoded")?;
            let path = self.path.join(LOST);
            sealed::write(&path, LOST_TAG, FORMAT, &content)
                .with_context(|| format!("cannot write {}", path.display()))?;
            self.lost = lost;
            tracing::warn!(path = %self.path.display(), %first, %up_to, reason, "results are given up");
        }
        self.log.trim(up_to.0)?;
        self.delete_lost()?;
        Ok(count)
    }

    /// When the first result above `first` ended, and the last one up to `last`, as far as they can be read.
    fn times(&self, first: Sequence, last: Sequence) -> (Option<Timestamp>, Option<Timestamp>) {
        let batch = |from: Sequence| {
            let mut reader = self.log.read(from.0).ok()?;
            while let Some(item) = reader.next().ok()? {
                if let Item::Record { payload, .. } = item {
                    return span(&payload);
                }
            }
            None
        };
        let from = batch(first.max(self.first())).map(|(from, _)| from);
        let to = batch(last.max(self.first())).map(|(_, to)| to);
        (from, to.filter(|to| from.is_none_or(|from| from <= *to)))
    }

    /// Deletes what is named lost and still there. An end that cannot be read and has no name yet is not deleted: what lies in its
    /// segment is all that tells of it.
    fn delete_lost(&mut self) -> Result<()> {
        let lost = self.lost.last();
        if lost.0 > 0 && lost < self.last() {
            self.log.trim(lost.0)?;
        } else if lost.0 > 0 && self.log.segments() > 0 {
            self.reader = None;
            self.end = None;
            self.log.erase()?;
        }
        Ok(())
    }

    /// Adds the states of what is above `covered` to `known`, and the commands applied there, unless they are of another timeline. Newest
    /// first: a check's newest result is decoded, and of the others those that answer a command; nearly all are only passed, so that a
    /// start stays short however much lies on the volume.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn fold(
        &self,
        covered: Sequence,
        timeline: Option<Timeline>,
        known: &mut KeptStates,
    ) -> Result<(), seglog::Error> {
        let mut bytes = 0_u64;
        let mut told = false;
        for extent in self.log.extents().into_iter().rev() {
            bytes = bytes.saturating_add(extent.bytes);
            if bytes > FOLD_BYTES || extent.last <= covered.0 {
                break;
            }
            let from = covered.0.max(extent.after).saturating_add(1).max(self.log.first());
            let mut reader = self.log.read(from)?;
            let mut payloads = Vec::new();
            while let Some(item) = reader.next()? {
                match item {
                    Item::Record { index, .. } if index > extent.last => break,
                    Item::Record { payload, .. } => payloads.push(payload),
                    Item::Damage(_) => {}
                }
            }
            for payload in payloads.iter().rev() {
                let of_this = |header: &BatchHeader| timeline.is_none_or(|of| of == header.timeline);
                let Some((header, body)) = decode_header(payload).ok().filter(|(header, _)| of_this(header)) else {
                    continue;
                };
                if !told {
                    known.timeline = header.timeline;
                    told = true;
                }
                fold_batch(&header, body, known);
            }
        }
        Ok(())
    }
}

/// Adds the states of one batch to `known`, and the commands it answers: one that was applied stays applied, however much newer what is
/// known of its check is. An index of another timeline names another command.
fn fold_batch(header: &BatchHeader, body: &[u8], known: &mut KeptStates) {
    let same = header.timeline == known.timeline;
    let wanted = |check, key, command: Option<JournalIndex>| {
        known.states.get(&check).is_none_or(|known| key > known.key)
            || (same && command.is_some_and(|index| known.applied.get(&check).is_none_or(|applied| index > *applied)))
    };
    let Ok(results) = decode_wanted(header, body, wanted) else { return };
    for (sequence, mut result) in results {
        result.command = result.command.filter(|_| same);
        known.take_result(header.counter, sequence, &result);
    }
}
