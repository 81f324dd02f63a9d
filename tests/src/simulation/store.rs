//! The master's store as the simulation has it: records of the journal in memory, with the ways in which a disk forgets. Decides what
//! a crash leaves. Replays as `master::store` does: by folding rows and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use master::config::Catalog;
use master::coordinator::timeline;
use master::entry::{self, Entry, Row};
use master::status::Status;
use shared::defect::Defects;
use shared::name::{JournalIndex, Timeline};
use shared::time::Timestamp;

/// The journal and the revisions beside it.
#[derive(Debug, Default)]
pub(super) struct Store {
    records: Vec<Vec<u8>>,
    /// Written and not synced.
    begun: Option<Vec<u8>>,
    revisions: BTreeMap<String, Arc<Catalog>>,
    /// Records that the last backup has.
    backup: Option<usize>,
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
        self.records.push(record);
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
    }

    /// The rows behind `after`, in order; all of them behind 0.
    #[must_use]
    pub(super) fn rows(&self, after: JournalIndex) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        // Whoever reads has read most of it: from the newest record back.
        for record in self.records.iter().rev() {
            let decoded = entry::decode(record).unwrap_or_default();
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
    pub(super) fn back_up(&mut self) {
        self.backup = Some(self.records.len()).filter(|records| *records > 0).or(self.backup);
    }

    /// Puts the last backup back as `perigee-master restore` does: all of its rows, and one that begins a new timeline. `None` if
    /// there is no backup.
    pub(super) fn restore(&mut self, timeline: Timeline, at: Timestamp) -> Option<Vec<Row>> {
        self.records.truncate(self.backup?);
        let row = timeline::restored(&self.replay(Defects::default()), timeline, at)?;
        self.records.push(entry::encode(&[row]));
        Some(self.records.iter().flat_map(|record| entry::decode(record).unwrap_or_default()).collect())
    }

    /// Whether there is a backup.
    #[must_use]
    pub(super) fn has_backup(&self) -> bool {
        self.backup.is_some()
    }

    /// The state that all of it adds up to.
    #[must_use]
    pub(super) fn replay(&self, defects: Defects) -> Status {
        let mut status = Status::new().with_defects(defects);
        for row in self.records.iter().flat_map(|record| entry::decode(record).unwrap_or_default()) {
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
