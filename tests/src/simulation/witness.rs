//! What must hold while a world goes on (docs/DESIGN.md, section 13): the invariants, judged from outside. Keeps its own account of
//! answers, durable batches and journal rows, and shares no rule with the programs: what they decide is only compared.
//!
//! I7 is judged of what a commit hands out to be acted on, once and in order: whoever notifies will stand there. I9, I13 and I15 are
//! judged where frames and orders pass (`world`).

mod bounds;
mod command;
mod disk;
mod folded;
mod restored;
mod result;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use master::entry::{Batch, Effect, Entry, Row, Snapshot, Verdict};
use master::status::Status;
use shared::assignment::AssignedCheck;
use shared::delivery::{BatchItem, Key, decode_header, decode_items, reason};
use shared::name::{CheckId, Grant, InstanceId, JournalIndex, RunId, Slot, Term, Timeline};
use shared::result::CheckResult;
use shared::state::CheckState;
use shared::time::Timestamp;

use super::vigil::Vigil;
use bounds::AllBounded;
pub(super) use bounds::{SOON, Weighing};
use command::Commands;
use folded::Folded;
pub(super) use folded::Taken;

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which invariant: `I1` to `I16`.
    pub invariant: &'static str,
    /// Events handled before it showed.
    pub step: u64,
    /// What was seen.
    pub what: String,
}

#[derive(Debug, Default)]
struct Ownership {
    living: Option<(Grant, Slot)>,
    past: BTreeMap<Grant, Slot>,
}

/// The account.
#[derive(Debug, Default)]
pub(super) struct Witness {
    /// Events handled so far, and virtual time in nanoseconds; the world keeps both.
    pub(super) step: u64,
    pub(super) now: u64,
    violations: Vec<Violation>,
    reached: BTreeSet<&'static str>,
    // What the journal has, by its durable rows.
    head: JournalIndex,
    term: Term,
    at: Timestamp,
    positions: BTreeMap<(Slot, RunId), u64>,
    owners: BTreeMap<CheckId, Ownership>,
    holders: BTreeMap<Slot, InstanceId>,
    newest: BTreeMap<CheckId, (Key, CheckState)>,
    /// Serial of an answer → where it had its effect.
    effects: BTreeMap<u64, (Slot, RunId, u64)>,
    /// Runs that the master has closed.
    drained: BTreeSet<RunId>,
    /// When the state that a snapshot told last was observed.
    told: BTreeMap<CheckId, Timestamp>,
    /// What each process knew when its newest link was opened of which the master has heard; and which that is.
    knew: BTreeMap<InstanceId, (u64, BTreeMap<CheckId, Key>)>,
    /// Slots that count as settled.
    settled: BTreeSet<Slot>,
    /// Durable rows that were not handed out yet.
    unpublished: VecDeque<JournalIndex>,
    /// How far each run ever came at the master.
    came: BTreeMap<RunId, u64>,
    pub(super) vigil: Vigil,
    timeline: Timeline,
    /// First check id that the timeline gives.
    first_check: CheckId,
    commands: Commands,
    /// Since when the master holds how much of each run: its time and the position, in order.
    since: BTreeMap<(Slot, RunId), Vec<(u64, u64)>>,
    folded: Folded,
    bounded: AllBounded,
    /// What stores that are no more held of each run: it was acknowledged and may be deleted by whoever has not heard of the restore.
    promised: BTreeMap<(Slot, RunId), u64>,
    // What the satellites have.
    /// The timeline of the last welcome that each process has heard.
    welcomed: BTreeMap<InstanceId, Timeline>,
    makers: BTreeMap<RunId, InstanceId>,
    /// When each process was given an answer that it took; and when each answer was given.
    answers: BTreeMap<InstanceId, Vec<u64>>,
    given: BTreeMap<u64, u64>,
    /// Runs of somebody who is no satellite: nobody vouches for what is in them.
    forged: BTreeSet<RunId>,
    /// By volume and run: what its process called durable, and whose it is.
    durable: BTreeMap<(usize, RunId), (Slot, u64)>,
    /// Runs that were deleted whole, how much was in them and whose they were: a store that is put back must hear of them.
    buried: BTreeMap<(usize, RunId), (Slot, u64)>,
    /// Runs that were deleted there.
    forgotten: BTreeSet<(usize, RunId)>,
    /// By volume and run: what was named lost there.
    named: BTreeMap<(usize, RunId), u64>,
    /// By volume and run: up to where a process has ordered to delete.
    freed: BTreeMap<(usize, RunId), u64>,
}

/// The number in an answer's text.
pub(super) fn serial(result: &CheckResult) -> Option<u64> {
    result.output.strip_prefix("serial=")?.parse().ok()
}

impl Witness {
    /// Notes a violation. One world's first few say enough, and the first of each invariant.
    pub(super) fn violated(&mut self, invariant: &'static str, what: String) {
        const SHOWN: usize = 8;
        let first = self.violations.iter().all(|violation| violation.invariant != invariant);
        if self.violations.len() < SHOWN || first {
            self.violations.push(Violation { invariant, step: self.step, what });
        }
    }

    /// What must not have been.
    #[must_use]
    pub(super) fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Answers that had their effect so long ago that a metrics store must have them.
    pub(super) fn due_at_stores(&self) -> Vec<u64> {
        const BY: u64 = 300_000_000_000;
        let given = |number: &u64| self.given.get(number).is_some_and(|given| given + BY <= self.now);
        self.effects.keys().copied().filter(given).collect()
    }

    /// Notes that an interesting state was reached.
    pub(super) fn reach(&mut self, state: &'static str) {
        self.reached.insert(state);
    }

    /// The process that has a slot, by the journal's rows.
    #[must_use]
    pub(super) fn holder(&self, slot: &Slot) -> Option<InstanceId> {
        self.holders.get(slot).copied()
    }

    /// Whether a slot owns checks, by the journal's rows.
    #[must_use]
    pub(super) fn owns_any(&self, slot: &Slot) -> bool {
        self.owners.values().any(|owner| owner.living.as_ref().is_some_and(|(_, by)| by == slot))
    }

    /// Interesting states reached.
    #[must_use]
    pub(super) fn reached(&self) -> &BTreeSet<&'static str> {
        &self.reached
    }

    /// Answers that had their effect.
    #[must_use]
    pub(super) fn results(&self) -> u64 {
        u64::try_from(self.effects.len()).unwrap_or(u64::MAX)
    }

    /// Last durable row.
    #[must_use]
    pub(super) fn head(&self) -> JournalIndex {
        self.head
    }

    // ---- satellites --------------------------------------------------------------------------------------------------------------

    /// A process opened a run.
    pub(super) fn opened(&mut self, run: RunId, by: InstanceId) {
        if self.makers.insert(run, by).is_some() {
            self.violated("I3", format!("run {run} was opened twice"));
        }
    }

    /// A satellite calls this durable on its volume.
    pub(super) fn durable(&mut self, volume: usize, slot: &Slot, run: RunId, up_to: u64) {
        let known = self.durable.entry((volume, run)).or_insert_with(|| (slot.clone(), 0));
        known.1 = up_to.max(known.1);
    }

    /// A process finds a run that an earlier one left: all of it that was called durable, but for an end that is damaged
    /// ([`Witness::shortened`]).
    pub(super) fn found(&mut self, volume: usize, slot: &Slot, run: RunId, last: u64) {
        let made = self.made(volume, run);
        if last < made {
            self.violated("I10", format!("{slot} {run} was durable up to {made}, found again is it up to {last}"));
        }
        self.durable(volume, slot, run, last);
    }

    /// A volume is gone with everything on it: what only lay there may be lost, and nothing else.
    pub(super) fn lost(&mut self, volume: usize) {
        self.durable.retain(|(other, _), _| *other != volume);
        self.buried.retain(|(other, _), _| *other != volume);
    }

    fn made(&self, volume: usize, run: RunId) -> u64 {
        self.durable.get(&(volume, run)).map_or(0, |(_, made)| *made)
    }

    /// A process took an answer: it has a place in one of its runs.
    pub(super) fn answered(&mut self, by: InstanceId, number: u64, now: u64) {
        self.given.insert(number, now);
        self.answers.entry(by).or_default().push(now);
    }

    /// Somebody who is no satellite makes a run.
    pub(super) fn forges(&mut self, by: InstanceId, run: RunId) {
        self.makers.insert(run, by);
        self.forged.insert(run);
    }

    /// Runs of a process, these of its volume, of which more is durable than it was told to be at the master.
    pub(super) fn undelivered_runs(&self, volume: usize, its: &BTreeSet<RunId>, told: &BTreeMap<RunId, u64>) -> usize {
        let behind = |run: &RunId, made: u64| told.get(run).copied().unwrap_or(0) < made;
        let held = self.durable.iter().filter(|(place, _)| place.0 == volume && !self.forgotten.contains(place));
        held.filter(|((_, run), (_, made))| its.contains(run) && behind(run, *made)).count()
    }

    // ---- the master --------------------------------------------------------------------------------------------------------------

    /// The master tells a satellite that it holds this.
    pub(super) fn acknowledged(&mut self, slot: &Slot, run: RunId, position: u64) {
        let place = (slot.clone(), run);
        let held = self.positions.get(&place).copied().unwrap_or_default();
        if position > held {
            self.violated("I1", format!("{position} of {slot} {run} is acknowledged, durable is {held}"));
        }
    }

    /// The master tells the satellite on a volume to forget a run.
    pub(super) fn closed(&mut self, volume: usize, slot: &Slot, run: RunId) {
        let made = self.made(volume, run);
        let held = self.positions.get(&(slot.clone(), run)).copied().unwrap_or_default();
        if made > held {
            self.violated("I1", format!("{run} of {slot} is closed, durable are {made}, the master holds {held}"));
        }
    }

    /// The master shows or publishes a state.
    pub(super) fn shown(&mut self, head: JournalIndex) {
        if head > self.head {
            self.violated("I1", format!("row {head} is shown, durable is {}", self.head));
        }
    }

    /// The master tells a slot to run a check.
    pub(super) fn assigned(&mut self, slot: &Slot, check: &AssignedCheck) {
        let living = self.owners.get(&check.id).and_then(|owner| owner.living.as_ref());
        if living.is_none_or(|(grant, owner)| *grant != check.grant || owner != slot) {
            let what = format!("{slot} is told to run {} under {}, living is {living:?}", check.id, check.grant);
            self.violated("I16", what);
        }
        self.carries(slot, check);
    }

    /// A master starts: what was committed and not handed out, its readers find in the journal.
    pub(super) fn starts(&mut self) {
        self.unpublished.clear();
    }

    /// The master hands rows out to be acted on: each durable row once, in order.
    pub(super) fn published(&mut self, rows: &[Row]) {
        for row in rows {
            match self.unpublished.pop_front() {
                Some(index) if index == row.index => {}
                Some(index) => {
                    self.violated("I7", format!("row {} is handed out where {index} is next", row.index));
                    self.unpublished.push_front(index);
                }
                None => {
                    self.violated("I7", format!("row {} is handed out, and it was before or is not durable", row.index))
                }
            }
        }
    }

    /// These rows are durable.
    pub(super) fn committed(&mut self, rows: &[Row]) {
        for row in rows {
            self.unpublished.push_back(row.index);
            let after = match &row.entry {
                Entry::Continued(continued) if continued.above >= self.head => continued.above,
                _ => self.head,
            };
            if row.index.0 != after.0 + 1 {
                self.violated("I4", format!("row {} follows {}", row.index, self.head));
            }
            if row.term < self.term || row.at < self.at {
                self.violated("I6", format!("row {}: term {} at {}", row.index, row.term, row.at));
            }
            (self.head, self.term, self.at) = (row.index, row.term, row.at);
            match &row.entry {
                Entry::Batch(batch) => self.batch(row, batch),
                Entry::Claim(claim) => {
                    let before = self.holders.insert(claim.slot.clone(), claim.instance);
                    if before.is_some() {
                        self.reach("a slot changes hands");
                    }
                }
                Entry::Drained(drained) => {
                    self.reach("a run is drained");
                    if !self.drained.insert(drained.run) {
                        self.reach("a drained run went on");
                    }
                }
                Entry::Snapshot(snapshot) => self.snapshot(row, snapshot),
                Entry::Genesis(genesis) => (self.timeline, self.first_check) = (genesis.timeline, genesis.first_check),
                Entry::Restored(restored) => {
                    (self.timeline, self.first_check) = (restored.timeline, restored.first_check);
                    self.begins_timeline();
                }
                Entry::Continued(_) => self.reach("numbers go on above a lost timeline's"),
                Entry::Asked(asked) => self.asked(row, asked),
                _ => {}
            }
            self.watch_over(row);
            self.grants(row);
        }
    }

    fn grants(&mut self, row: &Row) {
        for granted in &row.outcomes.granted {
            for id in &granted.checks {
                let owner = self.owners.entry(*id).or_default();
                let moved = owner.living.is_some();
                if let Some((grant, slot)) = owner.living.take() {
                    owner.past.insert(grant, slot);
                }
                let fresh = owner.past.keys().next_back().is_none_or(|last| *last < row.grant());
                owner.living = granted.slot.clone().map(|slot| (row.grant(), slot));
                if moved {
                    self.reach("a check is taken from its owner");
                }
                if !fresh {
                    self.violated("I16", format!("grant {} of check {id} is not new", row.grant()));
                }
            }
        }
    }

    fn batch(&mut self, row: &Row, batch: &Batch) {
        let Ok((header, body)) = decode_header(&batch.bytes) else {
            return self.violated("I13", format!("row {} holds no batch", row.index));
        };
        let place = (batch.slot.clone(), header.run);
        let before = self.positions.get(&place).copied().unwrap_or_default();
        if row.outcomes.moved.map(|moved| moved.position) != Some(header.last) || header.last.0 <= before {
            self.violated("I3", format!("row {}: position {before} and a batch up to {}", row.index, header.last));
        }
        let promised = self.promised.get(&place).copied().unwrap_or_default();
        self.since.entry(place.clone()).or_default().push((self.now, header.last.0));
        self.positions.insert(place, header.last.0);
        let came = self.came.entry(header.run).or_default();
        *came = header.last.0.max(*came);
        // Every sequence above the old position once: a result, one that could not be read, or a gap with a name.
        let mut covered: Vec<(u64, u64)> = Vec::new();
        for gap in row.outcomes.gaps.iter().filter(|gap| !gap.explained) {
            covered.push((gap.record.first.0, gap.record.last.0));
            self.reach("a gap nobody explained");
            if !self.forged.contains(&header.run) {
                self.violated("I2", format!("row {}: {:?} is missing, and nobody said why", row.index, gap.record));
            }
        }
        let foreign = header.timeline != self.timeline;
        let lost = row.outcomes.gaps.iter().filter(|gap| gap.explained && gap.record.reason == reason::LOST_BY_RESTORE);
        for gap in lost.filter(|gap| foreign && gap.record.last < header.first) {
            covered.push((gap.record.first.0, gap.record.last.0));
        }
        let items = decode_items(&header, body).unwrap_or_default();
        for (item, verdict) in items.iter().zip(&row.outcomes.verdicts) {
            self.current(row, verdict);
            if verdict.effect == Effect::Known {
                self.reach("a batch that is known in part");
                continue;
            }
            match item {
                BatchItem::Gap(gap) => {
                    covered.push((gap.first.0.max(before + 1), gap.last.0));
                    self.reach("a gap that the satellite named");
                    if gap.reason == reason::LOST_BY_RESTORE && self.buried.keys().any(|(_, run)| *run == header.run) {
                        self.reach("an ended run is named after a restore");
                    }
                }
                BatchItem::Unreadable(sequence) => covered.push((sequence.0, sequence.0)),
                BatchItem::Result(sequence, result) => {
                    covered.push((sequence.0, sequence.0));
                    if sequence.0 <= promised {
                        self.reach("an acknowledged result came again after a restore");
                    }
                    let key = Key { grant: result.grant, counter: header.counter, sequence: *sequence };
                    if foreign {
                        self.foreign(header.timeline, &batch.slot, header.run, key, result, verdict.effect);
                    } else {
                        self.result(&batch.slot, header.run, key, result, verdict.effect);
                    }
                }
            }
        }
        covered.sort_unstable();
        let mut next = before + 1;
        for (first, last) in covered {
            if first > next {
                self.violated(
                    "I2",
                    format!("row {}: {next} to {} of {} are neither", row.index, first - 1, header.run),
                );
            } else if first < next {
                self.violated("I3", format!("row {}: {first} of {} a second time", row.index, header.run));
            }
            next = next.max(last + 1);
        }
        if next != header.last.0 + 1 {
            self.violated("I2", format!("row {}: {next} to {} of {} are neither", row.index, header.last, header.run));
        }
    }

    /// Nobody is told of what is not the newest.
    fn current(&mut self, row: &Row, verdict: &Verdict) {
        if verdict.change.is_some_and(|change| !verdict.effect.is_current() || !change.current) {
            self.violated("I8", format!("row {}: {verdict:?} changes a state", row.index));
        }
    }

    /// States only: nothing is moved, lost or counted by them.
    fn snapshot(&mut self, row: &Row, snapshot: &Snapshot) {
        let states = row.states();
        if row.outcomes.moved.is_some() || !row.outcomes.gaps.is_empty() || states.len() != row.outcomes.verdicts.len()
        {
            self.violated(
                "I2",
                format!("row {}: a snapshot of {} did more than tell states", row.index, snapshot.slot),
            );
        }
        for (told, verdict) in states.iter().zip(&row.outcomes.verdicts) {
            self.current(row, verdict);
            self.answered_by_state(&snapshot.slot, told);
            if verdict.effect != Effect::Current {
                continue;
            }
            let living = self.owners.get(&told.check).and_then(|owner| owner.living.as_ref());
            if living.is_none_or(|(grant, owner)| *grant != told.key.grant || *owner != snapshot.slot) {
                self.violated("I5", format!("{} tells check {} as {:?}", snapshot.slot, told.check, told.key));
            }
            self.is_told_as_made(&snapshot.slot, told);
            let known = self.newest.insert(told.check, (told.key, told.state));
            if known.is_some_and(|(known, _)| known >= told.key) {
                self.violated("I4", format!("check {} goes back from {known:?} to {:?}", told.check, told.key));
            }
            self.told.insert(told.check, told.at());
            self.reach(if told.key.counter.0 == 0 {
                "a snapshot brings a state made under an older grant"
            } else {
                "a snapshot brings a state"
            });
            if verdict.change.is_some_and(|change| change.hard && change.to.is_problem()) {
                self.reach("a snapshot brings a hard problem");
            }
        }
    }

    /// The master hears of a link of a process, which knew this when it was opened. What it knows of another timeline beats nothing here.
    pub(super) fn linked(
        &mut self,
        id: InstanceId,
        link: u64,
        timeline: Option<Timeline>,
        states: BTreeMap<CheckId, Key>,
    ) {
        let states = if timeline == Some(self.timeline) { states } else { BTreeMap::new() };
        // What a link says that was left for another comes too late to say what its process knows.
        if self.knew.get(&id).is_none_or(|(newest, _)| *newest < link) {
            self.knew.insert(id, (link, states));
        }
    }

    /// A master has begun: it knows of nobody what they know.
    pub(super) fn begun(&mut self) {
        self.settled.clear();
    }

    /// The master shows whether a slot has told its newest states: if so it knows all that its holder knew when the link was opened.
    pub(super) fn settles(&mut self, slot: &Slot, settled: bool, status: &Status) {
        if !settled {
            self.settled.remove(slot);
            return;
        }
        if !self.settled.insert(slot.clone()) {
            return;
        }
        self.reach("a slot has told its newest states");
        let Some((_, knew)) = self.holders.get(slot).and_then(|holder| self.knew.get(holder)).cloned() else { return };
        // What moved here since the process took the slot is settled by its first result, whatever marker was on its way.
        let since = status.slots().get(slot).and_then(|state| state.holder.as_ref()).map_or(0, |holder| holder.since.0);
        for (id, own) in knew {
            let Some(object) = status.object(id) else { continue };
            let owner = object.owner.as_ref().filter(|owner| owner.slot == *slot && owner.grant.0 <= since);
            let owns = owner.is_some_and(|owner| owner.grant >= own.grant);
            if owns && object.key < own {
                self.violated(
                    "I10",
                    format!("{slot} has told all, knew {own:?} of check {id}, shown is {:?}", object.key),
                );
            }
        }
    }

    /// A minute after the last fault, or after the link was made: this was known to the holder of `slot` for a while.
    pub(super) fn known_for_long(
        &mut self,
        slot: &Slot,
        id: InstanceId,
        states: &BTreeMap<CheckId, Key>,
        status: &Status,
    ) {
        let holder = status.slots().get(slot).and_then(|state| state.holder.as_ref());
        if holder.is_none_or(|holder| holder.instance != id) {
            return;
        }
        for (check, own) in states {
            let Some(object) = status.object(*check) else { continue };
            let owns = object.owner.as_ref().is_some_and(|owner| owner.slot == *slot && owner.grant >= own.grant);
            if owns && object.key < *own {
                let shown = object.key;
                self.violated(
                    "I10",
                    format!("a minute after the heal {slot} knows {own:?} of check {check}, shown is {shown:?}"),
                );
            }
        }
        self.reach("a minute after the heal every state is right");
    }

    /// A master has come up with what its journal adds up to; `before` is what the one before it had published last.
    pub(super) fn replayed(&mut self, replayed: &Status, before: Option<&Status>) {
        if replayed.head != self.head {
            self.violated("I14", format!("replay ends at {}, durable is {}", replayed.head, self.head));
        }
        if before.is_some_and(|before| before.head == replayed.head && before.encode() != replayed.encode()) {
            self.violated("I14", format!("the state at {} is another after its replay", replayed.head));
        }
    }

    /// Long after the last fault nothing is on its way any more. `living`: the processes there are, each with its volume.
    pub(super) fn settled(&mut self, status: &Status, living: &BTreeSet<(usize, InstanceId)>) {
        for open in status.attention().incidents() {
            self.violated("I10", format!("this has not ended: {open:?}"));
        }
        // What a living process made in the last seconds may be on its way; those that have ended make nothing more.
        const ON_ITS_WAY: u64 = 16;
        const UNDER_WAY: u64 = 60_000_000_000;
        let volumes: BTreeSet<usize> = living.iter().map(|(volume, _)| *volume).collect();
        // Every answer that a living process took has a sequence of its own, and all of them came: as results or as gaps.
        for (_, id) in living {
            let taken =
                self.answers.get(id).map_or(&[][..], Vec::as_slice).iter().filter(|at| **at + UNDER_WAY <= self.now);
            let taken = u64::try_from(taken.count()).unwrap_or(u64::MAX);
            let runs = self.makers.iter().filter(|(_, maker)| *maker == id);
            let came: u64 = runs.map(|(run, _)| self.came.get(run).copied().unwrap_or_default()).sum();
            if came < taken {
                self.violated("I2", format!("{id} took {taken} answers, of which {came} sequences came"));
            }
        }
        let durable = std::mem::take(&mut self.durable);
        for ((_, run), (slot, made)) in durable.iter().filter(|((volume, _), _)| volumes.contains(volume)) {
            let held = self.positions.get(&(slot.clone(), *run)).copied().unwrap_or_default();
            let maker = self.makers.get(run);
            let goes_on = living.iter().any(|(_, id)| maker == Some(id));
            let on_its_way = if goes_on { ON_ITS_WAY } else { 0 };
            if held + on_its_way < *made {
                self.violated("I10", format!("{slot} {run}: {held} of {made} results came"));
            }
        }
        self.settled_disks(&volumes);
        for (id, (key, state)) in std::mem::take(&mut self.newest) {
            let object = status.object(id);
            if object.is_none_or(|object| object.key != key || object.state != state) {
                self.violated("I4", format!("check {id}: the journal's newest is {key:?}, shown is {object:?}"));
            }
            if let Some(object) = object {
                self.adds_up(id, object.key, object.state);
            }
        }
    }
}
