//! Which slot had which check from when until when, by the journal, held against who was asked when, by the daemons: an answer must
//! have been asked for by the slot that had the check then. A slot that cannot hear of its loss is not blamed, and what it asks is
//! counted apart. Besides: the slots' ins and outs and the incidents, in the journal's own order.
//! The surprise: it looks at slots only. Which process of a slot asked is the matter of `overlaps` and of `grants`.

use std::collections::BTreeMap;
use std::path::Path;

use master::entry::{Entry, Row};
use master::store::{self, Options, Read};
use shared::name::{CheckId, JournalIndex, Slot};
use tests::ledger::{Answer, Effect, Evidence};

use crate::overlaps::FENCED_WITHIN;

/// A check by host and service; the service is empty for the host's own.
pub(super) type Check = (String, String);

/// No end so far.
const OPEN: u64 = u64::MAX;

/// A slot has a check, in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tenure {
    slot: String,
    from: u64,
    until: u64,
}

/// A check goes from a slot to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Move {
    /// When (ms since 1970).
    pub(super) at: u64,
    pub(super) check: Check,
    pub(super) from: String,
    pub(super) to: String,
}

/// Something that the journal tells of slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    /// When (ms since 1970).
    pub(super) at: u64,
    pub(super) what: String,
}

/// A slot cannot hear of its loss in this time (ms since 1970).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Deaf {
    pub(super) slot: String,
    pub(super) from: u64,
    pub(super) until: u64,
}

/// What a journal tells.
#[derive(Debug, Default)]
pub(super) struct Chronicle {
    tenures: BTreeMap<Check, Vec<Tenure>>,
    /// Slots in and out: `eu/2 out silent`.
    pub(super) presences: Vec<Told>,
    /// Incidents: `slot-lost eu/2 begins silent`.
    pub(super) incidents: Vec<Told>,
}

/// Who was asked by whom.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// When each check was answered to each slot, ascending.
    times: BTreeMap<Check, BTreeMap<String, Vec<u64>>>,
    /// Answers of which the slot is known.
    pub(super) answers: usize,
    /// Answers to a slot that could not hear of its loss.
    pub(super) apart: usize,
    /// What must not be.
    pub(super) broken: Vec<String>,
}

impl Chronicle {
    /// Of the journal in a data directory that no process uses.
    pub(super) fn read(data: &Path) -> Self {
        let opened = store::open(data, Options::default()).unwrap();
        let named = opened.status.objects().map(|object| {
            let service = object.name.service.as_ref().map_or("", |service| service.as_str());
            (object.id, (object.name.host.as_str().to_owned(), service.to_owned()))
        });
        let names: BTreeMap<CheckId, Check> = named.collect();
        let mut reader = opened.store.reader(JournalIndex(0)).unwrap();
        let mut chronicle = Self::default();
        while let Some(read) = reader.next().unwrap() {
            let Read::Rows(rows) = read else { panic!("the journal is damaged: {read:?}") };
            rows.iter().for_each(|row| chronicle.fold(row, &names));
        }
        chronicle
    }

    fn fold(&mut self, row: &Row, names: &BTreeMap<CheckId, Check>) {
        let at = u64::try_from(row.at.as_millis()).unwrap();
        for id in &row.outcomes.removed {
            self.give(&names[id], None, at);
        }
        for granted in &row.outcomes.granted {
            let slot = granted.slot.as_ref().map(Slot::to_string);
            for id in &granted.checks {
                self.give(&names[id], slot.as_deref(), at);
            }
        }
        match &row.entry {
            Entry::Presence(presence) => {
                let way = if presence.present { "in" } else { "out" };
                let what = format!("{} {way} {}", presence.slot, presence.reason);
                self.presences.push(Told { at, what });
            }
            Entry::Incident(incident) => {
                let slot = incident.slot.as_ref().map_or_else(|| "master".to_owned(), Slot::to_string);
                let way = if incident.open { "begins" } else { "ends" };
                let what = format!("{} {slot} {way} {}", incident.kind.as_str(), incident.reason);
                self.incidents.push(Told { at, what });
            }
            _ => {}
        }
    }

    /// A slot has a check from here on, or nobody has. A grant made anew for the same slot changes nothing here.
    fn give(&mut self, check: &Check, slot: Option<&str>, at: u64) {
        let tenures = self.tenures.entry(check.clone()).or_default();
        if let Some(last) = tenures.last_mut().filter(|last| last.until == OPEN) {
            if slot == Some(last.slot.as_str()) {
                return;
            }
            last.until = at;
        }
        if let Some(slot) = slot {
            tenures.push(Tenure { slot: slot.to_owned(), from: at, until: OPEN });
        }
    }

    /// Every move since a moment, in order of time.
    pub(super) fn moves(&self, since: u64) -> Vec<Move> {
        let mut moves = Vec::new();
        for (check, tenures) in &self.tenures {
            for pair in tenures.windows(2).filter(|pair| pair[1].from >= since) {
                let (from, to) = (pair[0].slot.clone(), pair[1].slot.clone());
                moves.push(Move { at: pair[1].from, check: check.clone(), from, to });
            }
        }
        moves.sort_by_key(|moved| moved.at);
        moves
    }

    /// Holds the answers against it.
    pub(super) fn judge(&self, evidence: &Evidence, deaf: &[Deaf]) -> Asked {
        let times = times(evidence);
        let mut asked = Asked::default();
        for (check, by_slot) in &times {
            for (slot, answered) in by_slot {
                for at in answered {
                    asked.answers += 1;
                    let hears_nothing =
                        |deaf: &Deaf| deaf.slot == *slot && (deaf.from..=deaf.until + FENCED_WITHIN).contains(at);
                    if self.allows(check, slot, *at, by_slot) {
                        continue;
                    }
                    if deaf.iter().any(hears_nothing) {
                        asked.apart += 1;
                        continue;
                    }
                    let tenures = self.tenures.get(check);
                    asked.broken.push(format!("{check:?} was answered to {slot} at {at}, had by {tenures:?}"));
                }
            }
        }
        asked.times = times;
        asked
    }

    /// Whether a slot may have asked a check at this moment: since it had it nobody who had it later began more than
    /// [`FENCED_WITHIN`] ago.
    fn allows(&self, check: &Check, slot: &str, at: u64, by_slot: &BTreeMap<String, Vec<u64>>) -> bool {
        let Some(tenures) = self.tenures.get(check) else { return false };
        tenures.iter().enumerate().any(|(place, tenure)| {
            let begins = |next: &Tenure| first_from(by_slot.get(&next.slot)?, next.from);
            // One that had it for a moment may never have asked: then whoever had it after that one counts.
            let heirs = tenures[place + 1..].iter().filter(|next| next.slot != tenure.slot);
            let limit = heirs.filter_map(begins).min().map_or(OPEN, |begun| begun + FENCED_WITHIN);
            tenure.slot == slot && (tenure.from..=limit).contains(&at)
        })
    }
}

impl Asked {
    /// When the last of these moves was followed by an answer to the new owner, of services; hosts' own checks are not numbered.
    pub(super) fn begun(&self, moves: &[&Move]) -> u64 {
        let first = |moved: &&Move| {
            let times = self.times.get(&moved.check).and_then(|by_slot| by_slot.get(&moved.to));
            let first = times.and_then(|times| first_from(times, moved.at));
            first.unwrap_or_else(|| panic!("its new owner never asks: {moved:?}"))
        };
        let services = moves.iter().filter(|moved| !moved.check.1.is_empty());
        services.map(first).max().unwrap()
    }
}

/// When each check was answered to each slot, ascending.
fn times(evidence: &Evidence) -> BTreeMap<Check, BTreeMap<String, Vec<u64>>> {
    let given: BTreeMap<(&str, &str, u64), u64> =
        evidence.answers.iter().map(|answer| ((&*answer.host, &*answer.command, answer.serial), answer.at)).collect();
    let mut times: BTreeMap<Check, BTreeMap<String, Vec<u64>>> = BTreeMap::new();
    for effect in &evidence.effects {
        let check = (effect.host.clone(), effect.service.clone());
        let Some((command, serial)) = evidence.commands.get(&check).zip(effect.serial) else { continue };
        let Some(at) = given.get(&(effect.host.as_str(), command.as_str(), serial)) else { continue };
        times.entry(check).or_default().entry(effect.slot.clone()).or_default().push(*at);
    }
    for by_slot in times.values_mut() {
        by_slot.values_mut().for_each(|times| times.sort_unstable());
    }
    times
}

/// The first of these times that is not before a moment.
fn first_from(times: &[u64], from: u64) -> Option<u64> {
    times.iter().copied().find(|at| *at >= from)
}

/// A check that goes from A to B at 3 s and back at 6 s, and who asked it when.
fn judged(asked: &[(&str, u64)], deaf: &[Deaf]) -> (Chronicle, Asked) {
    let check = ("h".to_owned(), "s".to_owned());
    let mut chronicle = Chronicle::default();
    for (slot, at) in [("eu/1", 1_000), ("eu/2", 3_000), ("eu/2", 4_000), ("eu/1", 6_000)] {
        chronicle.give(&check, Some(slot), at);
    }
    let mut evidence = Evidence::default();
    evidence.commands.insert(check, "c".to_owned());
    for (serial, (slot, at)) in (1_u64..).zip(asked) {
        let (host, service, command) = ("h".to_owned(), "s".to_owned(), "c".to_owned());
        evidence.answers.push(Answer { at: *at, host: host.clone(), command, serial });
        let (slot, run) = ((*slot).to_owned(), "11".to_owned());
        evidence.effects.push(Effect { host, service, serial: Some(serial), slot, run, sequence: serial });
    }
    let asked = chronicle.judge(&evidence, deaf);
    (chronicle, asked)
}

#[test]
fn a_check_that_two_slots_ask_is_found() {
    let handed_over = [("eu/1", 1_500), ("eu/2", 3_400), ("eu/1", 4_300), ("eu/2", 5_900), ("eu/1", 6_100)];
    let (chronicle, asked) = judged(&handed_over, &[]);
    assert!(asked.broken.is_empty() && asked.answers == 5, "{asked:?}");
    let moves = chronicle.moves(2_000);
    let told: Vec<_> = moves.iter().map(|moved| (moved.at, moved.from.as_str(), moved.to.as_str())).collect();
    assert_eq!(told, [(3_000, "eu/1", "eu/2"), (6_000, "eu/2", "eu/1")], "a grant made anew is no move");
    assert_eq!(chronicle.moves(3_001).len(), 1);
    assert_eq!(asked.begun(&[&moves[0]]), 3_400);
    assert_eq!(asked.begun(&[&moves[0], &moves[1]]), 6_100);

    let broken = |asked: &[(&str, u64)]| judged(asked, &[]).1.broken.len();
    assert_eq!(broken(&[("eu/2", 3_400), ("eu/1", 4_500)]), 1, "the old owner goes on beside the new one");
    assert_eq!(broken(&[("eu/1", 1_500), ("eu/2", 2_900)]), 1, "the new owner begins before it is one");
    assert_eq!(broken(&[("eu/1", 1_500), ("eu/3", 2_000)]), 1, "a slot that never had it");
    assert_eq!(broken(&[("eu/1", 6_200), ("eu/2", 7_300)]), 1, "it is given back and asked all the same");
}

#[test]
fn a_slot_that_hears_nothing_is_counted_apart() {
    let asked = [("eu/1", 1_500), ("eu/2", 3_400), ("eu/1", 4_500), ("eu/1", 5_400)];
    let deaf = |slot: &str, until| [Deaf { slot: slot.to_owned(), from: 2_000, until }];
    let apart = |deaf: &[Deaf]| {
        let asked = judged(&asked, deaf).1;
        (asked.apart, asked.broken.len())
    };
    assert_eq!(apart(&deaf("eu/1", 4_400)), (2, 0));
    assert_eq!(apart(&deaf("eu/1", 4_000)), (1, 1), "it heard, and went on");
    assert_eq!(apart(&deaf("eu/2", 9_000)), (0, 2), "another one is deaf");
}
