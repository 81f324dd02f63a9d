//! Group commit: rows are folded into the working copy at once and gather until the commit before them has ended. A group on its way
//! to disk takes nothing more, and what follows from its rows waits with it.

use std::sync::Arc;

use shared::defect::Defect;
use shared::delivery::BatchItem;
use shared::name::{JournalIndex, Slot, Term};
use shared::time::{Monotonic, Timestamp};

use super::{Command, Consequence, Coordinator};
use crate::config::Catalog;
use crate::entry::{self, Entry, Outcomes, Row};
use crate::fleet;
use crate::status::Status;

/// Rows that become durable together.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) rows: Vec<Row>,
    pub(super) bytes: usize,
    /// When the oldest batch in it arrived.
    pub(super) since: Option<Monotonic>,
    pub(super) consequences: Vec<Consequence>,
    /// Ownership or a catalog changed: owners must be told.
    pub(super) reassigns: bool,
    /// The state after the last row; set when the group goes to disk.
    pub(super) status: Option<Status>,
}

impl Coordinator {
    /// Folds a row into the working copy and puts it into the open group.
    pub(super) fn add(
        &mut self,
        entry: Entry,
        outcomes: Outcomes,
        items: &[BatchItem],
        catalog: Option<&Arc<Catalog>>,
        at: Timestamp,
    ) {
        let falls = self.has(Defect::TermFalls) && matches!(entry, Entry::Claim(_));
        let older = falls.then(|| Term(self.working.term.0.saturating_sub(1)));
        // Where the commit of the first row failed, the next one begins with it again.
        if self.working.installation.is_none() && !matches!(entry, Entry::Genesis(_)) {
            self.found(at);
        }
        // Only a store that goes on above a lost one leaves indexes out.
        let index = match &entry {
            Entry::Continued(continued) => continued.index(),
            _ => JournalIndex(self.working.head.0 + 1),
        };
        let row = Row {
            index,
            term: older.unwrap_or(self.working.term),
            at: if self.has(Defect::TimeFalls) { at } else { at.max(self.working.at) },
            entry,
            outcomes,
        };
        let bytes = row_bytes(&row);
        // The group on its way to disk takes nothing more; a full one is left for the next commit.
        let sealed = usize::from(self.committing);
        if self.groups.len() <= sealed || self.groups.back().is_some_and(|group| group.bytes >= entry::RECORD_BYTES) {
            if let Some(full) = self.groups.back_mut()
                && full.status.is_none()
            {
                full.status = Some(self.working.clone());
            }
            self.groups.push_back(Group::default());
        }
        self.working.fold(&row, items, catalog);
        if let Some(group) = self.groups.back_mut() {
            group.reassigns |= !row.outcomes.granted.is_empty() || matches!(row.entry, Entry::Activate(_));
            group.bytes += bytes;
            group.rows.push(row);
        }
    }

    /// Adds a row whose entry may change ownership. What ownership follows is judged on the state that the entry leads to.
    pub(super) fn add_with_grants(
        &mut self,
        entry: Entry,
        mut outcomes: Outcomes,
        catalog: Option<&Arc<Catalog>>,
        renew: Option<&Slot>,
        at: Timestamp,
    ) {
        let mut after = self.working.clone();
        let probe =
            Row { index: JournalIndex(after.head.0 + 1), term: after.term, at, entry, outcomes: outcomes.clone() };
        after.fold(&probe, &[], catalog);
        if let Some(catalog) = after.catalog.clone() {
            outcomes.granted = entry::group_grants(fleet::ownership(&after, &catalog, renew));
        }
        self.add(probe.entry, outcomes, &[], catalog, at);
    }

    /// Lets something happen once everything known to the working copy is durable; at once if it is.
    pub(super) fn follow(&mut self, consequence: Consequence) {
        let early = self.has(Defect::AcknowledgedEarly) && matches!(consequence, Consequence::Acknowledge(..));
        match self.groups.back_mut().filter(|_| !early) {
            Some(group) => group.consequences.push(consequence),
            None => self.act(consequence),
        }
    }

    pub(super) fn begin_commit(&mut self) -> Option<Command> {
        if self.committing {
            return None;
        }
        let working = &self.working;
        let group = self.groups.front_mut()?;
        group.status.get_or_insert_with(|| working.clone());
        self.committing = true;
        let last = group.rows.last()?.index;
        Some(Command::Commit { record: entry::encode(&group.rows), last, since: group.since })
    }
}

fn row_bytes(row: &Row) -> usize {
    const ROUGHLY_A_ROW: usize = 256;
    let grants: usize = row.outcomes.granted.iter().map(|granted| granted.checks.len() * 5).sum();
    let named: usize = row.outcomes.named.iter().map(|named| 16 + named.object.host.as_str().len()).sum();
    let body = match &row.entry {
        Entry::Batch(batch) => batch.bytes.len(),
        Entry::Snapshot(snapshot) => snapshot.bytes.len(),
        _ => 0,
    };
    ROUGHLY_A_ROW + grants + named + body
}
