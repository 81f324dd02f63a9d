//! The newest state of every host and service, of every slot and run: what entries have added up to. `fold` takes a row's outcomes
//! in and reads nothing else, so replay gives the same bytes. Decides nothing (`ingest` and `fleet` judge); knows no disk.
//!
//! Objects lie behind `Arc` in chunks of [`CHUNK`], copied on write: a clone of the whole is cheap, and a published view stays as
//! it was while the working copy goes on.

pub mod attention;
mod bygone;
pub mod command;
mod frozen;
mod lineage;
mod owned;
mod result;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use minicbor::{Decode, Encode};
use shared::check::{Exit, State};
use shared::defect::Defects;
use shared::delivery::{BatchItem, Key};
use shared::name::{
    CheckId, Generation, Grant, InstallationId, InstanceId, JournalIndex, ObjectName, RunCounter, RunId, Sequence,
    Slot, Term, Timeline,
};
use shared::perfdata::Metric;
use shared::state::CheckState;
use shared::time::Timestamp;

use crate::config::Catalog;
use crate::entry::{Entry, Gap, Row};
use attention::Attention;
use bygone::BygoneCommands;
use command::Errand;
use owned::Owned;
use waiting::Waiting;

pub use lineage::{Lineage, Restoration, WriterGapSeen};

/// Objects per chunk: the unit of copying on write.
pub const CHUNK: usize = 1024;
/// Ended grants remembered per check. Beyond it the oldest is forgotten, and results under it are refused as foreign.
pub const ENDED_GRANTS_MAX: usize = 256;
/// Ended grants, closed runs and former holders are remembered this long: longer than any spool may hold results under them.
pub const REMEMBER: Duration = Duration::from_secs(31 * 24 * 3600);
/// Gaps kept for the page; older ones stay in history.
pub const GAPS_SHOWN: usize = 1000;

/// Who runs a check.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Ownership {
    /// Under which grant.
    #[n(0)]
    pub grant: Grant,
    /// Which slot.
    #[n(1)]
    pub slot: Slot,
}

/// A grant that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Ended {
    /// The grant.
    #[n(0)]
    pub grant: Grant,
    /// Who had it.
    #[n(1)]
    pub slot: Slot,
    /// When it ended.
    #[n(2)]
    pub at: Timestamp,
}

/// The newest result of a check, for people.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct LastResult {
    /// In the master's time: when it was due.
    #[n(0)]
    pub scheduled: Timestamp,
    /// By the satellite's own clock: when it began.
    #[n(1)]
    pub started: Timestamp,
    /// How long it took, in microseconds.
    #[n(2)]
    pub duration_us: u64,
    /// How it ended.
    #[n(3)]
    pub exit: Option<Exit>,
    /// Submitted from outside.
    #[n(4)]
    pub passive: bool,
    /// First line.
    #[n(5)]
    pub output: String,
    /// Further lines.
    #[n(6)]
    pub long_output: String,
    /// Performance data as written.
    #[n(7)]
    pub perfdata: String,
    /// The same, parsed.
    #[n(8)]
    pub metrics: Vec<Metric>,
    /// Whether the peer proved who it is.
    #[n(9)]
    pub authenticated: Option<bool>,
    /// Which slot ran it.
    #[n(10)]
    pub slot: Slot,
    /// In the master's time: when it ended.
    #[n(11)]
    pub ended: Timestamp,
}

/// One host or service.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Object {
    /// Its number.
    #[n(0)]
    pub id: CheckId,
    /// Its name.
    #[n(1)]
    pub name: ObjectName,
    /// Name of its check command, as metric stores know it.
    #[n(2)]
    pub command: String,
    /// Whether it is configured; one that is no longer keeps its number and its past.
    #[n(3)]
    pub configured: bool,
    /// State with the greatest key.
    #[n(4)]
    pub state: CheckState,
    /// That key.
    #[n(5)]
    pub key: Key,
    /// The result that made it.
    #[n(6)]
    pub last: Option<LastResult>,
    /// Who runs it.
    #[n(7)]
    pub owner: Option<Ownership>,
    /// Grants that have ended, oldest first.
    #[n(8)]
    pub ended: Vec<Ended>,
    /// When each state was last seen, by [`State`]'s order.
    #[n(9)]
    pub seen: BTreeMap<State, Timestamp>,
    /// Index of the last row that changed anything of this object.
    #[n(10)]
    pub version: JournalIndex,
}

/// A process that has or had a slot.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Holder {
    /// The process.
    #[n(0)]
    pub instance: InstanceId,
    /// Since which row.
    #[n(1)]
    pub since: JournalIndex,
    /// Since when.
    #[n(2)]
    pub at: Timestamp,
    /// Its address when it took the slot.
    #[n(3)]
    pub remote: String,
    /// Its version.
    #[n(4)]
    pub software: String,
}

/// One run of results.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Run {
    /// Its place among the runs of the slot.
    #[n(0)]
    pub counter: RunCounter,
    /// Durable up to and including this.
    #[n(1)]
    pub position: Sequence,
    /// Drained: a batch of it is acknowledged unread.
    #[n(2)]
    pub drained: Option<Timestamp>,
    /// When its first batch came.
    #[n(3)]
    pub since: Timestamp,
    /// When its last batch came; `None` where an older version wrote it.
    #[n(4)]
    pub last: Option<Timestamp>,
}

/// One slot.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct SlotState {
    /// Whether it may own checks.
    #[n(0)]
    pub present: bool,
    /// The process that has it.
    #[n(1)]
    pub holder: Option<Holder>,
    /// Processes that had it, with the time they lost it.
    #[n(2)]
    pub former: BTreeMap<InstanceId, Timestamp>,
    /// Its runs.
    #[n(3)]
    pub runs: BTreeMap<RunId, Run>,
    /// Results accepted from it, ever.
    #[n(4)]
    pub results: u64,
    /// Results refused from it, ever.
    #[n(5)]
    pub refused: u64,
    /// When its last result was made durable.
    #[n(6)]
    pub last_result: Option<Timestamp>,
}

/// A gap with the row that named it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct GapSeen {
    /// Index of the row.
    #[n(0)]
    pub index: JournalIndex,
    /// When.
    #[n(1)]
    pub at: Timestamp,
    /// Which.
    #[n(2)]
    pub gap: Gap,
}

/// The whole durable state.
#[derive(Debug, Clone)]
pub struct Status {
    /// Index of the last row folded.
    pub head: JournalIndex,
    /// Time of the last row folded.
    pub at: Timestamp,
    /// Which leader wrote it.
    pub term: Term,
    /// Whose store.
    pub installation: Option<InstallationId>,
    /// Which timeline.
    pub timeline: Timeline,
    /// First check id of this timeline.
    pub first_check: CheckId,
    /// Next check id to give.
    pub next_check: CheckId,
    /// Running generation.
    pub generation: Generation,
    /// Digest of the running catalog; empty before the first.
    pub digest: String,
    /// The running catalog, named by `digest`.
    pub catalog: Option<Arc<Catalog>>,
    /// Promises to be broken; none but in the simulator. No part of the state.
    pub defects: Defects,
    chunks: Vec<Arc<Vec<Option<Arc<Object>>>>>,
    names: Arc<BTreeMap<ObjectName, CheckId>>,
    owned: Owned,
    slots: BTreeMap<Slot, Arc<SlotState>>,
    gaps: Arc<Vec<GapSeen>>,
    attention: Arc<Attention>,
    lineage: Arc<Lineage>,
    /// Commands of which something is still to come.
    commands: Arc<BTreeMap<JournalIndex, Arc<Errand>>>,
    waiting: Waiting,
    /// The same of timelines that have ended.
    bygone: Arc<BygoneCommands>,
}

impl Default for Status {
    fn default() -> Self {
        Self::new()
    }
}

impl Status {
    /// The state before the first row.
    #[must_use]
    pub fn new() -> Self {
        Self {
            head: JournalIndex(0),
            at: Timestamp::EPOCH,
            term: Term(1),
            installation: None,
            timeline: Timeline(0),
            first_check: CheckId(1),
            next_check: CheckId(1),
            generation: Generation(0),
            digest: String::new(),
            catalog: None,
            defects: Defects::default(),
            chunks: Vec::new(),
            names: Arc::default(),
            owned: Owned::default(),
            slots: BTreeMap::new(),
            gaps: Arc::default(),
            attention: Arc::default(),
            lineage: Arc::default(),
            commands: Arc::default(),
            waiting: Waiting::default(),
            bygone: Arc::default(),
        }
    }

    /// The same with defects planted (see [`shared::defect`]); for the simulator alone.
    #[must_use]
    pub fn with_defects(mut self, defects: Defects) -> Self {
        self.defects = defects;
        self
    }

    /// The object with this number.
    #[must_use]
    pub fn object(&self, id: CheckId) -> Option<&Arc<Object>> {
        let place = usize::try_from(id.0).ok()?;
        self.chunks.get(place / CHUNK)?.get(place % CHUNK)?.as_ref()
    }

    /// The number of this name.
    #[must_use]
    pub fn id(&self, name: &ObjectName) -> Option<CheckId> {
        self.names.get(name).copied()
    }

    /// All objects by name, those configured no longer among them.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.names.values().filter_map(|id| self.object(*id))
    }

    /// All slots that ever spoke.
    #[must_use]
    pub fn slots(&self) -> &BTreeMap<Slot, Arc<SlotState>> {
        &self.slots
    }

    /// The newest gaps, oldest first.
    #[must_use]
    pub fn gaps(&self) -> &[GapSeen] {
        &self.gaps
    }

    /// What of the fleet wants attention.
    #[must_use]
    pub fn attention(&self) -> &Attention {
        &self.attention
    }

    fn object_mut(&mut self, id: CheckId) -> Option<&mut Object> {
        let place = usize::try_from(id.0).ok()?;
        let chunk = Arc::make_mut(self.chunks.get_mut(place / CHUNK)?);
        chunk.get_mut(place % CHUNK)?.as_mut().map(Arc::make_mut)
    }

    fn insert(&mut self, object: Arc<Object>) {
        let Ok(place) = usize::try_from(object.id.0) else { return };
        while self.chunks.len() <= place / CHUNK {
            self.chunks.push(Arc::new(vec![None; CHUNK]));
        }
        if let Some(cell) =
            self.chunks.get_mut(place / CHUNK).and_then(|chunk| Arc::make_mut(chunk).get_mut(place % CHUNK))
        {
            Arc::make_mut(&mut self.names).insert(object.name.clone(), object.id);
            if let Some(owner) = &object.owner {
                self.owned.give(&owner.slot, object.id, object.name.is_host());
            }
            *cell = Some(object);
        }
    }

    fn slot_mut(&mut self, slot: &Slot) -> &mut SlotState {
        Arc::make_mut(self.slots.entry(slot.clone()).or_default())
    }

    /// Takes one row in. `items` are the decoded items of its batch, `catalog` the one its activation names.
    ///
    /// A row at or below `head` is left out, so that folding may begin anywhere at or before what is known.
    pub fn fold(&mut self, row: &Row, items: &[BatchItem], catalog: Option<&Arc<Catalog>>) {
        if row.index <= self.head {
            return;
        }
        self.head = row.index;
        self.at = row.at;
        self.term = row.term;
        match &row.entry {
            Entry::Genesis(genesis) => {
                self.installation = Some(genesis.installation.clone());
                self.timeline = genesis.timeline;
                self.first_check = genesis.first_check;
                self.next_check = self.next_check.max(genesis.first_check);
                Arc::make_mut(&mut self.lineage).began = row.index;
            }
            Entry::Activate(activate) => {
                self.generation = activate.generation;
                self.digest.clone_from(&activate.digest);
                self.catalog = catalog.cloned();
                self.fold_names(row);
            }
            Entry::Claim(claim) => {
                let holder = Holder {
                    instance: claim.instance,
                    since: row.index,
                    at: row.at,
                    remote: claim.remote.clone(),
                    software: claim.software.clone(),
                };
                let slot = self.slot_mut(&claim.slot);
                slot.former.retain(|_, lost| row.at.since(*lost) < REMEMBER);
                slot.former.remove(&claim.instance);
                if let Some(fenced) = row.outcomes.fenced {
                    slot.former.insert(fenced, row.at);
                }
                slot.holder = Some(holder);
            }
            Entry::Presence(presence) => self.slot_mut(&presence.slot).present = presence.present,
            Entry::Batch(batch) => self.fold_batch(row, &batch.slot, items),
            Entry::Snapshot(snapshot) => self.fold_snapshot(row, &snapshot.slot),
            Entry::Asked(asked) => self.fold_asked(row, asked),
            Entry::Drained(drained) => {
                self.fold_gaps(row);
                let slot = self.slot_mut(&drained.slot);
                if let Some(run) = slot.runs.get_mut(&drained.run) {
                    run.drained = Some(row.at);
                }
                slot.runs.retain(|_, run| run.drained.is_none_or(|at| row.at.since(at) < REMEMBER));
            }
            Entry::Incident(_) | Entry::Moves(_) | Entry::ClockStep(_) => {}
            Entry::Restored(restored) => {
                self.fold_restored(row, restored);
                self.count_waiting();
            }
            Entry::Continued(continued) => self.fold_continued(continued),
            Entry::WriterGap(gap) => self.fold_writer_gap(row, gap),
        }
        if !matches!(row.entry, Entry::Batch(_)) {
            Arc::make_mut(&mut self.attention).fold(row);
        }
        self.fold_grants(row);
    }

    fn fold_names(&mut self, row: &Row) {
        for named in &row.outcomes.named {
            self.next_check = self.next_check.max(CheckId(named.id.0.saturating_add(1)));
            self.insert(Arc::new(Object {
                id: named.id,
                name: named.object.clone(),
                command: String::new(),
                configured: true,
                state: CheckState::pending(1),
                key: Key::default(),
                last: None,
                owner: None,
                ended: Vec::new(),
                seen: BTreeMap::new(),
                version: row.index,
            }));
        }
        if !row.outcomes.removed.is_empty() && !self.commands.is_empty() {
            let removed: BTreeSet<CheckId> = row.outcomes.removed.iter().copied().collect();
            self.put_aside(|_, errand| removed.contains(&errand.check));
        }
        for id in &row.outcomes.removed {
            if let Some(object) = self.object_mut(*id) {
                object.configured = false;
                object.version = row.index;
            }
        }
        let Some(catalog) = self.catalog.clone() else { return };
        for (name, definition) in &catalog.objects {
            let Some(id) = self.id(name) else { continue };
            let changed =
                self.object(id).is_some_and(|object| !object.configured || object.command != definition.command_name);
            if changed && let Some(object) = self.object_mut(id) {
                object.configured = true;
                object.command.clone_from(&definition.command_name);
                object.version = row.index;
            }
        }
    }

    fn fold_grants(&mut self, row: &Row) {
        for granted in &row.outcomes.granted {
            for id in &granted.checks {
                let Some(object) = self.object_mut(*id) else { continue };
                let old = object.owner.take();
                if let Some(old) = &old {
                    object.ended.retain(|ended| row.at.since(ended.at) < REMEMBER);
                    if object.ended.len() >= ENDED_GRANTS_MAX {
                        object.ended.remove(0);
                    }
                    object.ended.push(Ended { grant: old.grant, slot: old.slot.clone(), at: row.at });
                }
                object.owner = granted.slot.clone().map(|slot| Ownership { grant: row.grant(), slot });
                object.version = row.index;
                let (old, of_host) = (old.map(|old| old.slot), object.name.is_host());
                if let Some(old) = &old {
                    self.owned.take(old, *id, of_host);
                }
                if let Some(slot) = &granted.slot {
                    self.owned.give(slot, *id, of_host);
                }
                self.waiting.pass(*id, old.as_ref(), granted.slot.as_ref());
            }
        }
    }
}
