//! The master's store as the simulation has it: records of the journal, checkpoints of the state, and the ways in which a disk forgets
//! or damages them. Decides what a crash leaves and what trimming may take. Starts as `master::store` does: from the newest checkpoint
//! that can be read, by folding the rows behind it and nothing else; a row that is needed and cannot be read keeps it from starting, but
//! for a last record: nothing tells a damaged one from a write that was never finished, so it is cut off.
//!
//! The surprise: what was trimmed is still here, for the witness alone: the state is also added up from the first row on, and must be
//! the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use master::config::Catalog;
use master::coordinator::timeline;
use master::entry::{self, Entry, Row};
use master::status::Status;
use master::store::CHECKPOINTS_KEPT;
use shared::defect::Defects;
use shared::name::{JournalIndex, Timeline};
use shared::time::Timestamp;

use super::chance::Chance;

/// One group commit.
#[derive(Debug, Clone)]
struct Record {
    bytes: Vec<u8>,
    last: JournalIndex,
    /// A bit of it is wrong.
    damaged: bool,
}

impl Record {
    fn of(bytes: Vec<u8>) -> Self {
        let last = entry::decode(&bytes).unwrap_or_default().last().map(|row| row.index).unwrap_or_default();
        Self { bytes, last, damaged: false }
    }
}

/// The state at one index.
#[derive(Debug, Clone)]
struct Checkpoint {
    head: JournalIndex,
    state: Vec<u8>,
    damaged: bool,
}

/// What a backup holds.
#[derive(Debug, Clone)]
struct Backup {
    records: usize,
    trimmed: usize,
    checkpoints: Vec<Checkpoint>,
    cursor: JournalIndex,
}

/// What may lie in a journal, and what is needed of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Journal {
    /// Bytes of its records.
    pub(super) held: u64,
    /// How many of them a start would need that falls back to the older checkpoint.
    pub(super) needed: u64,
}

/// What a flipped bit hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hit {
    /// The newest checkpoint: the one before it is still there.
    Checkpoint,
    /// A record that a checkpoint contains and nobody else waits for.
    Covered,
    /// A record that the next start needs.
    Needed,
}

/// The journal and the revisions beside it.
#[derive(Debug, Default)]
pub(super) struct Store {
    records: Vec<Record>,
    /// So many of the oldest records were trimmed.
    trimmed: usize,
    /// Oldest first.
    checkpoints: Vec<Checkpoint>,
    /// Written and not synced.
    begun: Option<Vec<u8>>,
    revisions: BTreeMap<String, Arc<Catalog>>,
    backup: Option<Backup>,
}

impl Store {
    /// Makes a catalog durable, before an entry names it.
    pub(super) fn keep_revision(&mut self, catalog: &Arc<Catalog>) {
        self.revisions.insert(catalog.digest.to_string(), Arc::clone(catalog));
    }

    /// A commit begins.
    pub(super) fn begin(&mut self, record: Vec<u8>) {
        self.begun = Some(record);
    }

    /// The commit that was begun is durable: its rows.
    pub(super) fn commit(&mut self) -> Vec<Row> {
        let Some(record) = self.begun.take() else { return Vec::new() };
        let rows = entry::decode(&record).unwrap_or_default();
        self.records.push(Record::of(record));
        rows
    }

    /// The commit that was begun failed; it will never be seen.
    pub(super) fn fail(&mut self) {
        self.begun = None;
    }

    /// The process has gone. `reached`: what was begun had reached the disk all the same, so its rows are there. Otherwise its torn
    /// beginning is cut off.
    pub(super) fn leave(&mut self, reached: bool) -> Vec<Row> {
        if reached {
            return self.commit();
        }
        self.begun = None;
        Vec::new()
    }

    /// A planted defect: the last commit was never there.
    pub(super) fn forget(&mut self) {
        self.records.pop();
        let head = self.head();
        self.checkpoints.retain(|checkpoint| checkpoint.head <= head);
    }

    fn head(&self) -> JournalIndex {
        self.records.last().map(|record| record.last).unwrap_or_default()
    }

    fn kept(&self) -> &[Record] {
        self.records.get(self.trimmed..).unwrap_or_default()
    }

    /// Keeps the state of the last row as a checkpoint, and those before it up to as many as the program keeps.
    pub(super) fn checkpoint(&mut self, published: &Status) {
        if self.checkpoints.last().is_some_and(|newest| newest.head >= published.head) || published.head > self.head() {
            return;
        }
        self.checkpoints.push(Checkpoint { head: published.head, state: published.encode(), damaged: false });
        let surplus = self.checkpoints.len().saturating_sub(CHECKPOINTS_KEPT);
        self.checkpoints.drain(..surplus);
    }

    /// Up to where a start needs nothing, even from the older checkpoint.
    fn reached(&self) -> JournalIndex {
        match self.checkpoints.first() {
            Some(older) if self.checkpoints.len() >= CHECKPOINTS_KEPT => older.head,
            _ => JournalIndex(0),
        }
    }

    /// Removes the oldest records: those that neither a start nor the writer at `cursor` needs, but for half of `most` bytes; and beyond
    /// `most` those that only the writer needs.
    pub(super) fn trim(&mut self, cursor: JournalIndex, most: u64) {
        let reached = self.reached();
        let mut held = self.journal().held;
        while let Some(oldest) = self.records.get(self.trimmed) {
            let bound = if oldest.last > cursor { most } else { most / 2 };
            if oldest.last > reached || held <= bound {
                return;
            }
            held -= oldest.bytes.len() as u64;
            self.trimmed += 1;
        }
    }

    /// What lies there.
    #[must_use]
    pub(super) fn journal(&self) -> Journal {
        let reached = self.reached();
        let bytes = |record: &Record| record.bytes.len() as u64;
        let needed = self.kept().iter().filter(|record| record.last > reached).map(bytes).sum();
        Journal { held: self.kept().iter().map(bytes).sum(), needed }
    }

    /// The last row that was trimmed away from whoever has come as far as `sent`; `None` if nothing was.
    #[must_use]
    pub(super) fn overran(&self, sent: JournalIndex) -> Option<JournalIndex> {
        self.gone().filter(|gone| *gone > sent)
    }

    /// Flips a bit. What only a backup can mend is hit only if there is one. The last record is left alone: a start would cut off what was
    /// acknowledged, and nobody could know. `cursor`: up to there no writer reads any more.
    pub(super) fn damage(&mut self, cursor: JournalIndex, chance: &mut Chance) -> Option<Hit> {
        if self.checkpoints.iter().any(|checkpoint| checkpoint.damaged) || self.is_lost() {
            return None;
        }
        let covered = self.reached().min(cursor);
        let newest = self.checkpoints.last().map(|checkpoint| checkpoint.head).unwrap_or_default();
        let kind = chance.below(3);
        if kind == 0 {
            let full = self.checkpoints.len() >= CHECKPOINTS_KEPT;
            self.checkpoints.last_mut().filter(|_| full)?.damaged = true;
            return Some(Hit::Checkpoint);
        }
        let hit = if kind == 1 { Hit::Covered } else { Hit::Needed };
        if hit == Hit::Needed && self.backup.is_none() {
            return None;
        }
        let last = self.records.len().saturating_sub(1);
        let kept = self.records.get_mut(self.trimmed..last)?.iter_mut();
        let mut all: Vec<&mut Record> = kept
            .filter(|record| if hit == Hit::Covered { record.last <= covered } else { record.last > newest })
            .collect();
        let number = usize::try_from(chance.below(u64::try_from(all.len()).ok()?.max(1))).ok()?;
        all.get_mut(number)?.damaged = true;
        Some(hit)
    }

    fn newest(&self) -> Option<&Checkpoint> {
        self.checkpoints.iter().rev().find(|checkpoint| !checkpoint.damaged)
    }

    /// The records that a start finds: those behind the last one that can be read are cut off.
    fn found(&self) -> &[Record] {
        let kept = self.kept();
        let whole = kept.iter().rposition(|record| !record.damaged).map_or(0, |last| last + 1);
        kept.get(..whole).unwrap_or_default()
    }

    /// The last row that was trimmed.
    fn gone(&self) -> Option<JournalIndex> {
        Some(self.records.get(self.trimmed.checked_sub(1)?)?.last)
    }

    /// The last row that a start finds.
    fn end(&self) -> JournalIndex {
        self.found().last().map(|record| record.last).or(self.gone()).unwrap_or_default()
    }

    /// A row that a start needs cannot be read, or is not there any more: it would refuse, and name the way out. It also does where the
    /// checkpoint says that there was more than the journal has.
    #[must_use]
    pub(super) fn is_lost(&self) -> bool {
        let from = self.newest().map(|checkpoint| checkpoint.head).unwrap_or_default();
        let gone = self.gone().is_some_and(|gone| gone > from);
        gone || self.end() < from || self.found().iter().any(|record| record.damaged && record.last > from)
    }

    /// What was damaged is put aside, and a last record that was is cut off. Says whether a checkpoint was damaged, and whether a record is
    /// that none needs.
    pub(super) fn put_aside(&mut self) -> (bool, bool) {
        let before = self.checkpoints.len();
        self.checkpoints.retain(|checkpoint| !checkpoint.damaged);
        let found = self.trimmed + self.found().len();
        self.records.truncate(found);
        (self.checkpoints.len() < before, self.kept().iter().any(|record| record.damaged))
    }

    /// All rows there ever were, for the witness.
    #[must_use]
    pub(super) fn all_rows(&self) -> Vec<Row> {
        self.records.iter().flat_map(|record| entry::decode(&record.bytes).unwrap_or_default()).collect()
    }

    /// The rows behind `after` that were not trimmed, in order; all of them behind 0.
    #[must_use]
    pub(super) fn rows(&self, after: JournalIndex) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        // Whoever reads has read most of it: from the newest record back.
        for record in self.kept().iter().rev() {
            let decoded = entry::decode(&record.bytes).unwrap_or_default();
            let more = decoded.first().is_some_and(|row| row.index > after);
            rows.extend(decoded.into_iter().rev().filter(|row| row.index > after));
            if !more {
                break;
            }
        }
        rows.reverse();
        rows
    }

    /// Takes a backup of what is durable, if there is anything.
    ///
    /// The writer's `cursor` is part of it.
    pub(super) fn back_up(&mut self, cursor: JournalIndex) {
        if self.records.is_empty() || self.is_lost() {
            return;
        }
        let newest = self.newest().cloned();
        let (records, trimmed) = (self.records.len(), self.trimmed);
        self.backup = Some(Backup { records, trimmed, checkpoints: newest.into_iter().collect(), cursor });
    }

    /// Puts the last backup back as `perigee-master restore` does: its checkpoint and rows, and one that begins a new timeline. Gives all
    /// rows there ever were on that way, and the writer's cursor. `None` if there is no backup.
    pub(super) fn restore(&mut self, timeline: Timeline, at: Timestamp) -> Option<(Vec<Row>, JournalIndex)> {
        let backup = self.backup.clone()?;
        self.records.truncate(backup.records);
        self.records.iter_mut().for_each(|record| record.damaged = false);
        (self.trimmed, self.checkpoints) = (backup.trimmed, backup.checkpoints);
        let row = timeline::restored(&self.replay(Defects::default())?, timeline, at)?;
        self.records.push(Record::of(entry::encode(&[row])));
        Some((self.all_rows(), backup.cursor))
    }

    /// Whether there is a backup.
    #[must_use]
    pub(super) fn has_backup(&self) -> bool {
        self.backup.is_some()
    }

    /// The state that a start comes to: the newest checkpoint that can be read, and the rows behind it. `None`: it would refuse.
    #[must_use]
    pub(super) fn replay(&self, defects: Defects) -> Option<Status> {
        if self.is_lost() {
            return None;
        }
        let mut status = match self.newest() {
            Some(checkpoint) => Status::decode(&checkpoint.state).ok()?,
            None => Status::new(),
        }
        .with_defects(defects);
        status.catalog = self.revisions.get(&status.digest).cloned();
        let (mut rows, end) = (self.rows(status.head), self.end());
        rows.retain(|row| row.index <= end);
        Some(self.fold(status, rows))
    }

    /// The state that all of it adds up to, from the first row on: what was trimmed is still known here.
    #[must_use]
    pub(super) fn replay_whole(&self, defects: Defects) -> Status {
        self.fold(Status::new().with_defects(defects), self.all_rows())
    }

    fn fold(&self, mut status: Status, rows: Vec<Row>) -> Status {
        for row in rows {
            let catalog = match &row.entry {
                Entry::Activate(activate) => self.revisions.get(&activate.digest),
                _ => None,
            };
            status.fold(&row, &row.items(), catalog);
        }
        status
    }
}

#[cfg(test)]
mod tests;
