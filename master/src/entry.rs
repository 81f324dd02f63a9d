//! The rows of the journal: what happened (`Entry`) and what was made of it (`Outcomes`). Everything that changes durable state is
//! an entry; outcomes are recorded beside it, so that replay folds and never judges again. This is a disk format: fields and
//! variants are added with new numbers, never changed.
//!
//! ```text
//! record = format u8 | item list (see shared::item), one item of kind 1 per row      one record per group commit
//! ```

mod fleet;
mod timeline;

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use shared::check::State;
use shared::command::What;
use shared::delivery::{self, BatchItem, GapRecord};
use shared::item::{self, Items};
use shared::message::{self, ToMaster};
use shared::name::{
    CheckId, Generation, Grant, InstallationId, InstanceId, JournalIndex, ObjectName, RunCounter, RunId, Sequence,
    Slot, Term, Timeline,
};
use shared::snapshot::StateTold;
use shared::state::StateType;
use shared::time::Timestamp;

pub use fleet::{ClockStep, Incident, IncidentKind, Moves, Presence};
pub use timeline::{Continued, GivenUp, JOURNAL_AGE, JOURNAL_BYTES, JOURNAL_DAMAGED, Restored, WriterGap};

/// Version of the record format.
pub const RECORD_FORMAT: u8 = 1;
/// A group commit is closed when its rows have reached this many bytes; the next rows go into the next record.
pub const RECORD_BYTES: usize = 2 * 1024 * 1024;

const ITEM_ROW: u16 = 1;

/// One row: an entry with its place, its time, and its outcomes.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Row {
    /// Place in the journal.
    #[n(0)]
    pub index: JournalIndex,
    /// Which leader wrote it.
    #[n(1)]
    pub term: Term,
    /// Master's time; never decreases along the journal.
    #[n(2)]
    pub at: Timestamp,
    /// What happened.
    #[n(3)]
    pub entry: Entry,
    /// What was made of it.
    #[n(4)]
    pub outcomes: Outcomes,
}

/// Something that changes durable state.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum Entry {
    /// The store was made.
    #[n(0)]
    Genesis(#[n(0)] Genesis),
    /// A revision becomes the running one. Its catalog lies in the store under its digest.
    #[n(1)]
    Activate(#[n(0)] Activate),
    /// A process takes a slot.
    #[n(2)]
    Claim(#[n(0)] Claim),
    /// A slot is no longer asked to own anything, or is again.
    #[n(3)]
    Presence(#[n(0)] Presence),
    /// Results as they came.
    #[n(4)]
    Batch(#[n(0)] Batch),
    /// A run is drained and its satellite holds nothing of it any more.
    #[n(5)]
    Drained(#[n(0)] Drained),
    /// Newest states that an owner told when it was back, as they came.
    #[n(6)]
    Snapshot(#[n(0)] Snapshot),
    /// The store was put back from a backup.
    #[n(7)]
    Restored(#[n(0)] Restored),
    /// A satellite of another timeline has seen higher numbers: this store goes on above them.
    #[n(8)]
    Continued(#[n(0)] Continued),
    /// A writer was overrun.
    #[n(9)]
    WriterGap(#[n(0)] WriterGap),
    /// A problem of the fleet begins or ends.
    #[n(10)]
    Incident(#[n(0)] Incident),
    /// An operator holds back the moves of hosts, or lets them go on.
    #[n(11)]
    Moves(#[n(0)] Moves),
    /// A wall clock was set.
    #[n(12)]
    ClockStep(#[n(0)] ClockStep),
    /// Somebody asks something of the owner of a check. The row's index names the command.
    #[n(13)]
    Asked(#[n(0)] Asked),
}

/// See [`Entry::Genesis`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Genesis {
    /// Whose store.
    #[n(0)]
    pub installation: InstallationId,
    /// Which timeline.
    #[n(1)]
    pub timeline: Timeline,
    /// First check id this timeline gives.
    #[n(2)]
    pub first_check: CheckId,
}

/// See [`Entry::Activate`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Activate {
    /// The generation it becomes.
    #[n(0)]
    pub generation: Generation,
    /// Name of the catalog by content: SHA-256 in lower-case hexadecimal.
    #[n(1)]
    pub digest: String,
    /// Who asked: `start`, `apply` or `signal`.
    #[n(2)]
    pub author: String,
}

/// See [`Entry::Claim`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Claim {
    /// The slot.
    #[n(0)]
    pub slot: Slot,
    /// The process.
    #[n(1)]
    pub instance: InstanceId,
    /// Its address as the master sees it.
    #[n(2)]
    pub remote: String,
    /// Its version.
    #[n(3)]
    pub software: String,
}

/// See [`Entry::Batch`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Batch {
    /// The slot that brought it, by its certificate.
    #[n(0)]
    pub slot: Slot,
    /// The batch as received (see `shared::delivery`).
    #[cbor(n(1), with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
}

/// See [`Entry::Drained`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Drained {
    /// The slot whose run it was.
    #[n(0)]
    pub slot: Slot,
    /// The run.
    #[n(1)]
    pub run: RunId,
}

/// See [`Entry::Snapshot`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Snapshot {
    /// The slot that told them, by its certificate.
    #[n(0)]
    pub slot: Slot,
    /// The control frame as received (see `shared::message`); items of it that are no states mean nothing here.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
}

/// See [`Entry::Asked`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Asked {
    /// Of which check.
    #[n(0)]
    pub check: CheckId,
    /// What.
    #[n(1)]
    pub what: What,
    /// Who asked.
    #[n(2)]
    pub author: String,
}

/// What was made of an entry. Empty parts are left empty; a row has the parts that its entry can have.
#[derive(Debug, Clone, PartialEq, Default, Encode, Decode)]
pub struct Outcomes {
    /// Ids given to names that had none.
    #[n(0)]
    pub named: Vec<Named>,
    /// Checks that are configured no longer.
    #[n(1)]
    pub removed: Vec<CheckId>,
    /// Ownership that changes: to which slot (`None`: nobody), which checks. The grant is the row's index.
    #[n(2)]
    pub granted: Vec<Granted>,
    /// The process that lost the slot.
    #[n(3)]
    pub fenced: Option<InstanceId>,
    /// The run whose position moves.
    #[n(4)]
    pub moved: Option<Moved>,
    /// Per item of a batch or state of a snapshot, in order.
    #[n(5)]
    pub verdicts: Vec<Verdict>,
    /// Results known to be lost.
    #[n(6)]
    pub gaps: Vec<Gap>,
}

/// A name gets its number.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Named {
    /// The number.
    #[n(0)]
    pub id: CheckId,
    /// The name.
    #[n(1)]
    pub object: ObjectName,
}

/// Checks that change hands.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Granted {
    /// Their owner from here on.
    #[n(0)]
    pub slot: Option<Slot>,
    /// The checks, ascending.
    #[n(1)]
    pub checks: Vec<CheckId>,
}

/// A run's position moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Moved {
    /// The run.
    #[n(0)]
    pub run: RunId,
    /// Its counter.
    #[n(1)]
    pub counter: RunCounter,
    /// Durable up to and including this.
    #[n(2)]
    pub position: Sequence,
}

/// What one item of a batch did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Verdict {
    /// The effect it had.
    #[n(0)]
    pub effect: Effect,
    /// The change it made to the check's state, if any.
    #[n(1)]
    pub change: Option<Change>,
}

/// The effect of one item of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Effect {
    /// It had its effect before.
    #[n(0)]
    Known,
    /// It is the newest known about its check.
    #[n(1)]
    Current,
    /// History and metrics only: something newer is known, or its grant has ended.
    #[n(2)]
    Late,
    /// A gap record.
    #[n(3)]
    Gap,
    /// Refused: no such check.
    #[n(4)]
    RefusedUnknown,
    /// Refused: this slot never owned the check.
    #[n(5)]
    RefusedForeign,
    /// Refused: it cannot be read, or says what cannot be.
    #[n(6)]
    RefusedMalformed,
    /// History and metrics only, and no transition even there: its grant has ended and the check belongs to another slot now, or to
    /// nobody. It is what that slot saw.
    #[n(7)]
    Observed,
    /// Of another timeline, about a check whose number may mean another object by now: named as a gap.
    #[n(8)]
    Lost,
    /// A second result of one command: the newest known about its check, and its change is noted; but it is
    /// no result of history or metrics.
    #[n(9)]
    RepeatedCurrent,
    /// A second result of one command, and something newer is known or its grant has ended: nothing.
    #[n(10)]
    Repeated,
}

impl Effect {
    /// Whether the result went into history and metrics.
    #[must_use]
    pub fn is_logged(self) -> bool {
        matches!(self, Effect::Current | Effect::Late | Effect::Observed)
    }

    /// Whether the result is the newest known about its check.
    #[must_use]
    pub fn is_current(self) -> bool {
        matches!(self, Effect::Current | Effect::RepeatedCurrent)
    }

    /// Stable name of the refusal, for logs and metrics.
    #[must_use]
    pub fn refusal(self) -> Option<&'static str> {
        match self {
            Effect::RefusedUnknown => Some("unknown-check"),
            Effect::RefusedForeign => Some("foreign-check"),
            Effect::RefusedMalformed => Some("malformed"),
            Effect::Known
            | Effect::Current
            | Effect::Late
            | Effect::Gap
            | Effect::Observed
            | Effect::Lost
            | Effect::RepeatedCurrent
            | Effect::Repeated => None,
        }
    }
}

/// A state before and after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Change {
    /// State before.
    #[n(0)]
    pub from: State,
    /// State type before.
    #[n(1)]
    pub from_type: StateType,
    /// State after.
    #[n(2)]
    pub to: State,
    /// State type after.
    #[n(3)]
    pub to_type: StateType,
    /// Whether the hard state changed.
    #[n(4)]
    pub hard: bool,
    /// It is the newest known of its check, and people may be told of it. What is not current is history and nothing else, for ever.
    #[n(5)]
    #[cbor(default)]
    pub current: bool,
    /// It was told by a snapshot and came about at some time after this, when the last result known before had ended;
    /// `None` for a change that a result brought, or where no result was known.
    #[n(6)]
    pub not_before: Option<Timestamp>,
}

/// Results of a run that will never come.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Gap {
    /// Whose results.
    #[n(0)]
    pub slot: Slot,
    /// The run.
    #[n(1)]
    pub run: RunId,
    /// Which sequences, why, from when to when.
    #[n(2)]
    pub record: GapRecord,
    /// Whether the satellite itself named it; otherwise sequences were simply missing, and somebody should look.
    #[n(3)]
    pub explained: bool,
}

/// Why bytes are no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Empty, or of a format this program does not read.
    #[error("journal record of format {0:?}; this program reads {RECORD_FORMAT}")]
    Format(Option<u8>),
    /// The list breaks off.
    #[error("journal record: {0}")]
    Broken(#[from] item::Broken),
    /// A row does not decode.
    #[error("journal row: {0}")]
    Row(String),
}

/// Rows as one record.
#[must_use]
pub fn encode(rows: &[Row]) -> Vec<u8> {
    let mut record = vec![RECORD_FORMAT];
    rows.iter().for_each(|row| item::push(&mut record, ITEM_ROW, row));
    record
}

/// The rows of one record.
///
/// # Errors
/// When the record is of another format, breaks off, or a row does not decode: a journal with an unknown entry must not be
/// half folded, so nothing is skipped here.
pub fn decode(record: &[u8]) -> Result<Vec<Row>, RecordError> {
    let Some((&RECORD_FORMAT, list)) = record.split_first() else {
        return Err(RecordError::Format(record.first().copied()));
    };
    Items::new(list)
        .map(|item| {
            let (kind, bytes) = item?;
            if kind != ITEM_ROW {
                return Err(RecordError::Row(format!("item of unknown kind {kind}")));
            }
            minicbor::decode(bytes).map_err(|error| RecordError::Row(error.to_string()))
        })
        .collect()
}

/// Groups ownership changes by their new owner, as [`Outcomes::granted`] wants them.
#[must_use]
pub fn group_grants(changes: impl IntoIterator<Item = (CheckId, Option<Slot>)>) -> Vec<Granted> {
    let mut by_slot: BTreeMap<Option<Slot>, Vec<CheckId>> = BTreeMap::new();
    for (check, slot) in changes {
        by_slot.entry(slot).or_default().push(check);
    }
    by_slot
        .into_iter()
        .map(|(slot, mut checks)| {
            checks.sort_unstable();
            Granted { slot, checks }
        })
        .collect()
}

impl Row {
    /// The items of this row's batch, in order; none if it has no batch or one that cannot be read.
    ///
    /// Live operation and replay both fold what this gives, so an unreadable batch is the same nothing to both.
    #[must_use]
    pub fn items(&self) -> Vec<BatchItem> {
        match &self.entry {
            Entry::Batch(batch) => delivery::decode_header(&batch.bytes)
                .and_then(|(header, body)| delivery::decode_items(&header, body))
                .unwrap_or_default(),
            Entry::Genesis(_)
            | Entry::Activate(_)
            | Entry::Claim(_)
            | Entry::Presence(_)
            | Entry::Drained(_)
            | Entry::Snapshot(_)
            | Entry::Restored(_)
            | Entry::Continued(_)
            | Entry::WriterGap(_)
            | Entry::Incident(_)
            | Entry::Moves(_)
            | Entry::ClockStep(_)
            | Entry::Asked(_) => Vec::new(),
        }
    }

    /// Whether nothing can lie between `head` and this row.
    #[must_use]
    pub fn follows(&self, head: JournalIndex) -> bool {
        match &self.entry {
            Entry::Continued(continued) => continued.after == head && continued.index() == self.index,
            _ => self.index.0 == head.0.saturating_add(1),
        }
    }

    /// The states of this row's snapshot, in order; none if it has no snapshot or one that cannot be read.
    #[must_use]
    pub fn states(&self) -> Vec<StateTold> {
        let Entry::Snapshot(snapshot) = &self.entry else { return Vec::new() };
        let messages = message::decode::<ToMaster>(&snapshot.bytes).unwrap_or_default();
        let states = messages.into_iter().filter_map(|message| match message {
            ToMaster::State(told) => Some(*told),
            _ => None,
        });
        states.collect()
    }

    /// The grant that this row's ownership changes make.
    #[must_use]
    pub fn grant(&self) -> Grant {
        Grant(self.index.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(index: u64) -> Row {
        Row {
            index: JournalIndex(index),
            term: Term(1),
            at: Timestamp::from_millis(1_790_000_000_000),
            entry: Entry::Batch(Batch {
                slot: Slot { region: "eu".parse().unwrap(), number: "1".parse().unwrap() },
                bytes: vec![1, 2, 3],
            }),
            outcomes: Outcomes {
                moved: Some(Moved { run: RunId([7; 16]), counter: RunCounter(1), position: Sequence(9) }),
                verdicts: vec![Verdict { effect: Effect::Late, change: None }],
                ..Outcomes::default()
            },
        }
    }

    #[test]
    fn records_read_back() {
        let rows = vec![row(4), row(5)];
        assert_eq!(decode(&encode(&rows)).unwrap(), rows);
    }

    #[test]
    fn damaged_records_are_errors_never_panics() {
        let record = encode(&[row(4)]);
        for at in 0..record.len() {
            assert!(at == 1 || decode(&record[..at]).is_err(), "cut at {at}");
            let mut damaged = record.clone();
            damaged[at] ^= 0x10;
            let _ = decode(&damaged);
        }
        assert_eq!(decode(&[9]), Err(RecordError::Format(Some(9))));
    }
}
