//! Group commit: rows are folded into the working copy at once and gather until the commit before them has ended. A group on its way
//! to disk takes nothing more, and what follows from its rows waits with it.

use std::collections::BTreeSet;
use std::sync::Arc;

use shared::defect::Defect;
use shared::delivery::BatchItem;
use shared::name::{CheckId, JournalIndex, Slot, Term};
use shared::time::{Monotonic, Timestamp};

use super::{Command, Consequence, Coordinator};
use crate::config::Catalog;
use crate::entry::{self, Entry, Genesis, Outcomes, Row};
use crate::fleet::{self, Placement};
use crate::status::Status;

/// Rows that become durable together.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) rows: Vec<Row>,
    pub(super) bytes: usize,
    /// When the oldest batch in it arrived.
    pub(super) since: Option<Monotonic>,
    pub(super) consequences: Vec<Consequence>,
    /// Who must be told anew what it owns.
    pub(super) reassigned: Reassigned,
    /// The state after the last row; set when the group goes to disk.
    pub(super) status: Option<Status>,
}

/// Whose assignment rows have changed.
#[derive(Debug)]
pub(super) enum Reassigned {
    /// Ownership of theirs came or went.
    Slots(BTreeSet<Slot>),
    /// The catalog is another.
    All,
}

impl Default for Reassigned {
    fn default() -> Self {
        Self::Slots(BTreeSet::new())
    }
}

impl Reassigned {
    /// Takes a row in. `before` is the state that it is not folded into yet.
    fn note(&mut self, row: &Row, before: &Status) {
        if matches!(row.entry, Entry::Activate(_)) {
            *self = Self::All;
        }
        let Self::Slots(slots) = self else { return };
        for granted in &row.outcomes.granted {
            slots.extend(granted.slot.clone());
            for id in &granted.checks {
                let owner = before.object(*id).and_then(|object| object.owner.as_ref()).map(|owner| &owner.slot);
                if let Some(slot) = owner.filter(|slot| !slots.contains(*slot)) {
                    slots.insert(slot.clone());
                }
            }
        }
    }
}

impl Coordinator {
    /// The first row of a store.
    pub(super) fn found(&mut self, at: Timestamp) {
        let installation = self.identity.installation.clone();
        let genesis = Genesis { installation, timeline: self.fresh_timeline, first_check: CheckId(1) };
        self.add(Entry::Genesis(genesis), Outcomes::default(), &[], None, at);
    }

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
        if let Some(group) = self.groups.back_mut() {
            group.reassigned.note(&row, &self.working);
        }
        self.working.fold(&row, items, catalog);
        if let Some(group) = self.groups.back_mut() {
            group.bytes += bytes;
            group.rows.push(row);
        }
    }

    /// Adds a row whose entry may change ownership. What ownership follows is judged on the state that the entry leads to: of the slot
    /// alone that it is about, where everything else is known to be as it should be.
    pub(super) fn add_with_grants(
        &mut self,
        entry: Entry,
        mut outcomes: Outcomes,
        catalog: Option<&Arc<Catalog>>,
        renew: Option<&Slot>,
        at: Timestamp,
    ) {
        let changes = match (&self.placement, &entry) {
            (Some(_), Entry::Claim(_) | Entry::Continued(_)) => {
                renew.map(|slot| fleet::renewed(&self.working, slot)).unwrap_or_default()
            }
            (Some(placement), Entry::Presence(presence)) => {
                placement.moved(&self.working, &presence.slot, presence.present)
            }
            (Some(_) | None, _) => return self.add_with_all_grants(entry, outcomes, catalog, renew, at),
        };
        outcomes.granted = entry::group_grants(changes);
        self.add(entry, outcomes, &[], catalog, at);
    }

    /// The same by a look at all checks: what a new catalog needs, and the first that may change ownership since nobody knows whether
    /// it is as it should be.
    fn add_with_all_grants(
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
        self.placement = Placement::new(&self.working);
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
        Entry::Asked(asked) => asked.what.bytes(),
        _ => 0,
    };
    ROUGHLY_A_ROW + grants + named + body
}
