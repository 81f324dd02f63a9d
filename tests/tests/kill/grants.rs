//! Who owned which check, read from the journal alone: rows are told what they were when they were written, and nothing is taken from
//! the program's own state. A result may only be current under the newest grant of its check, by the slot that has it.

use std::collections::BTreeMap;
use std::path::Path;
use tests::violation;

use master::entry::{Claim, Effect, Entry, Granted, Outcomes, Row};
use master::store::{self, Options, Read};
use shared::delivery::BatchItem;
use shared::name::{CheckId, Grant, InstanceId, JournalIndex, Slot, SlotNumber};

/// What a journal says of ownership.
#[derive(Debug, Default)]
pub(crate) struct Ownership {
    /// Every grant that nothing has ended; more than one of a check must not be.
    living: BTreeMap<CheckId, BTreeMap<Grant, Slot>>,
    holders: BTreeMap<Slot, InstanceId>,
    /// Grants given.
    pub(crate) grants: usize,
    /// Slots that went from one process to another.
    pub(crate) fences: usize,
    /// Results that were current.
    pub(crate) current: usize,
    /// Results that came under a grant that had ended.
    pub(crate) observed: usize,
    /// What must not be.
    pub(crate) broken: Vec<String>,
}

impl Ownership {
    /// Of the journal in a data directory that no process uses.
    pub(crate) fn read(data: &Path) -> Self {
        let opened = store::open(data, Options::default()).unwrap();
        let mut reader = opened.store.reader(JournalIndex(0)).unwrap();
        let mut ownership = Self::default();
        while let Some(read) = reader.next().unwrap() {
            let Read::Rows(rows) = read else { panic!("the journal is damaged: {read:?}") };
            rows.iter().for_each(|row| ownership.fold(row));
        }
        ownership
    }

    fn fold(&mut self, row: &Row) {
        let at = row.index;
        if let Entry::Claim(claim) = &row.entry {
            let before = self.holders.insert(claim.slot.clone(), claim.instance);
            if before.is_some_and(|before| before != claim.instance) && row.outcomes.fenced != before {
                self.broken.push(format!("row {at}: {} goes to another, and {before:?} is not fenced", claim.slot));
            }
        }
        // The grants of a slot end with its holder: those that are not given anew here would be the fenced process's for ever.
        if let (Entry::Claim(claim), Some(_)) = (&row.entry, row.outcomes.fenced) {
            self.fences += 1;
            let renewed = |check: &CheckId| row.outcomes.granted.iter().any(|granted| granted.checks.contains(check));
            let is_his = |grants: &BTreeMap<Grant, Slot>| grants.values().any(|slot| *slot == claim.slot);
            let left = self.living.iter().filter(|(check, grants)| is_his(grants) && !renewed(check)).count();
            if left > 0 {
                self.broken.push(format!("row {at}: {left} grants of {} outlive its holder", claim.slot));
            }
            for grants in self.living.values_mut() {
                grants.retain(|_, slot| *slot != claim.slot);
            }
        }
        // Only these rows take a check from a slot that keeps its holder; a grant beside another ends nothing.
        if matches!(row.entry, Entry::Activate(_) | Entry::Presence(_)) {
            for check in row.outcomes.granted.iter().flat_map(|granted| &granted.checks) {
                self.living.remove(check);
            }
        }
        for check in &row.outcomes.removed {
            self.living.remove(check);
        }
        let mut given: BTreeMap<CheckId, Option<Slot>> = BTreeMap::new();
        for granted in &row.outcomes.granted {
            for check in &granted.checks {
                if given.insert(*check, granted.slot.clone()).is_some() {
                    self.broken.push(format!("row {at}: {check} is given to two"));
                }
            }
        }
        for (check, slot) in given {
            self.grants += 1;
            let Some(slot) = slot else {
                self.living.remove(&check);
                continue;
            };
            let grants = self.living.entry(check).or_default();
            grants.insert(row.grant(), slot);
            if grants.len() > 1 {
                self.broken.push(format!("row {at}: {check} has living grants {grants:?}"));
            }
        }
        self.fold_results(row);
        self.fold_states(row);
    }

    /// States that a holder told of itself are judged as results are.
    fn fold_states(&mut self, row: &Row) {
        let Entry::Snapshot(snapshot) = &row.entry else { return };
        for (told, verdict) in row.states().iter().zip(&row.outcomes.verdicts) {
            let living = self.living.get(&told.check);
            let is_owner = is_the_one(living, told.key.grant, &snapshot.slot);
            if verdict.effect == Effect::Current && !is_owner {
                self.broken.push(format!("row {}: {} tells {told:?}, living is {living:?}", row.index, snapshot.slot));
            }
        }
    }

    fn fold_results(&mut self, row: &Row) {
        let Entry::Batch(batch) = &row.entry else { return };
        let items = row.items();
        for (item, verdict) in items.iter().zip(&row.outcomes.verdicts) {
            let BatchItem::Result(sequence, result) = item else { continue };
            let living = self.living.get(&result.check);
            let is_owner = is_the_one(living, result.grant, &batch.slot);
            match verdict.effect {
                Effect::Current if is_owner => self.current += 1,
                Effect::Current => self.broken.push(format!(
                    "row {}: result {sequence} of {} under grant {} of {} is current, living is {living:?}",
                    row.index, result.check, result.grant, batch.slot
                )),
                Effect::Late | Effect::Observed if !is_owner => self.observed += 1,
                Effect::Observed => self.broken.push(format!(
                    "row {}: result {sequence} of {} is an observation, though {} owns it",
                    row.index, result.check, batch.slot
                )),
                _ => {}
            }
        }
    }

    /// That nothing is broken, and that there was something to break.
    pub(crate) fn assert_one_living_grant_each(&self) {
        violation::unless(self.broken.is_empty(), || format!("{:#?}", self.broken));
        assert!(self.grants > 0 && self.current > 100, "{} grants, {} current results", self.grants, self.current);
    }
}

/// Whether this grant of this slot is the check's only living one.
fn is_the_one(living: Option<&BTreeMap<Grant, Slot>>, grant: Grant, slot: &Slot) -> bool {
    living.is_some_and(|grants| grants.len() == 1 && grants.get(&grant) == Some(slot))
}

fn row(index: u64, entry: Entry, outcomes: Outcomes) -> Row {
    let (term, at) = (shared::name::Term(1), shared::time::Timestamp::from_millis(0));
    Row { index: JournalIndex(index), term, at, entry, outcomes }
}

fn claim(slot: &Slot, instance: u8) -> Entry {
    let (slot, instance) = (slot.clone(), InstanceId([instance; 16]));
    Entry::Claim(Claim { slot, instance, remote: String::new(), software: String::new() })
}

fn granted(slot: &Slot, fenced: Option<u8>) -> Outcomes {
    let granted = vec![Granted { slot: Some(slot.clone()), checks: vec![CheckId(1)] }];
    Outcomes { granted, fenced: fenced.map(|instance| InstanceId([instance; 16])), ..Outcomes::default() }
}

#[test]
fn two_living_grants_of_one_check_are_found() {
    let slot = |number| Slot { region: "eu".parse().unwrap(), number: SlotNumber::new(number).unwrap() };
    let mut ownership = Ownership::default();
    ownership.fold(&row(1, claim(&slot(1), 1), granted(&slot(1), None)));
    ownership.fold(&row(2, claim(&slot(1), 2), granted(&slot(1), Some(1))));
    assert!(ownership.broken.is_empty(), "the holder was fenced: {:?}", ownership.broken);
    ownership.fold(&row(3, claim(&slot(2), 3), granted(&slot(2), None)));
    assert_eq!(ownership.broken.len(), 1, "two slots own one check: {:?}", ownership.broken);
    assert!(!is_the_one(ownership.living.get(&CheckId(1)), Grant(3), &slot(2)));
}

#[test]
fn a_current_result_of_a_fenced_process_is_found() {
    let slot = Slot { region: "eu".parse().unwrap(), number: SlotNumber::new(1).unwrap() };
    let mut ownership = Ownership::default();
    ownership.living.insert(CheckId(1), BTreeMap::from([(Grant(5), slot.clone())]));
    ownership.holders.insert(slot.clone(), InstanceId([1; 16]));
    ownership.fold(&row(9, claim(&slot, 2), Outcomes::default()));
    assert_eq!(ownership.broken.len(), 1, "a holder is replaced and not fenced: {:?}", ownership.broken);
    let fenced = Outcomes { fenced: Some(InstanceId([2; 16])), ..Outcomes::default() };
    ownership.fold(&row(9, claim(&slot, 2), fenced));
    assert_eq!(ownership.broken.len(), 2, "a grant outlives its holder: {:?}", ownership.broken);
}
