//! Writes checkpoints as the store is asked to, and removes the revisions that no replay can ask for any more. When one is due, and
//! what may be trimmed behind it, the store says. A checkpoint that cannot be written is said and tried again with the next state:
//! nothing is lost by it, replay grows.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use seglog::Bounds;
use shared::name::JournalIndex;
use tokio::sync::watch;

use super::revisions::Revisions;
use super::{CHECKPOINTS_KEPT, Read, RowReader, StoreError, checkpoint, tidying};
use crate::entry::Entry;
use crate::status::Status;

/// Writes checkpoints in a thread of its own: encoding a large state takes seconds.
pub(super) struct Keeper {
    pub directory: PathBuf,
    pub revisions: Revisions,
    pub bounds: Arc<Bounds>,
    /// Indexes of the checkpoints kept, ascending.
    pub kept: watch::Sender<Vec<JournalIndex>>,
}

impl Keeper {
    /// Until the store is dropped.
    pub(super) fn run(self, states: &Receiver<Arc<Status>>, tidying: &tidying::Counts) {
        while let Ok(status) = states.recv() {
            if self.kept.borrow().last().is_some_and(|newest| *newest >= status.head) {
                continue;
            }
            match tidying.checkpoint(|| checkpoint::write(&self.directory, &status)) {
                Ok(kept) => {
                    tracing::debug!(head = %status.head, "checkpoint written");
                    self.kept.send_replace(kept);
                }
                Err(error) => tracing::error!(%error, "no checkpoint could be written; replay grows until one can"),
            }
            match self.revisions.sweep(|| self.referenced(&status)) {
                Ok(0) => {}
                Ok(removed) => tracing::info!(removed, "old revisions removed"),
                Err(error) => tracing::warn!(%error, "old revisions could not be removed"),
            }
        }
    }

    /// Digests that a replay from any checkpoint kept may ask for.
    fn referenced(&self, status: &Status) -> Result<BTreeSet<String>, StoreError> {
        let kept = self.kept.borrow().clone();
        let mut digests = BTreeSet::from([status.digest.clone()]);
        for index in &kept {
            digests.insert(checkpoint::read(&checkpoint::path(&self.directory, *index), *index)?.digest);
        }
        let from = if kept.len() < CHECKPOINTS_KEPT { 0 } else { kept.first().map_or(0, |oldest| oldest.0 + 1) };
        let mut reader = RowReader::open(&self.bounds, JournalIndex(from))?;
        while let Some(read) = reader.next()? {
            if let Read::Rows(rows) = read {
                digests.extend(rows.into_iter().filter_map(|row| match row.entry {
                    Entry::Activate(activate) => Some(activate.digest),
                    _ => None,
                }));
            }
        }
        Ok(digests)
    }
}
