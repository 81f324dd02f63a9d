//! Entries of every kind, with outcomes such as a judge would record beside them. Drawn from the seed and from the state they are folded
//! into; whether a coordinator would have made just these is not the question, but that both stores give them back and add them up alike.

use std::collections::{BTreeMap, BTreeSet};

use master::config::{CheckDefinition, Host, Region, Vars};
use master::entry::{
    Activate, Asked, Batch, Change, Claim, ClockStep, Continued, Drained, Gap, GivenUp, Granted, Incident,
    IncidentKind, Moved, Moves, Named, Presence, Restored, Snapshot, WriterGap,
};
use master::entry::{Effect, Outcomes, Verdict};
use shared::assignment::Policy;
use shared::check::{Check, Exit, State, TcpCheck};
use shared::command::{Passive, What};
use shared::delivery::{BatchBuilder, BatchHeader, BatchItem, GapRecord, Key, decode_header};
use shared::message::{self, ToMaster};
use shared::name::{CheckId, Generation, Grant, InstanceId, ObjectName, RunCounter, RunId, Sequence, Slot, SlotNumber};
use shared::result::CheckResult;
use shared::snapshot::{Said, StateTold};
use shared::state::{CheckState, Confirmation, StateType};

use super::*;

/// Kinds of entries that come again and again; a store has its first row once.
pub(super) const KINDS: u64 = 13;

/// A configuration of so many hosts.
pub(super) fn catalog(hosts: u64) -> Arc<Catalog> {
    let region: shared::name::RegionName = "eu".parse().unwrap();
    let names: Vec<ObjectName> = (1..=hosts).map(|host| format!("h{host}").parse().unwrap()).collect();
    let policy = Policy { check_interval_ms: 60_000, retry_interval_ms: 15_000, timeout_ms: 10_000, max_attempts: 3 };
    let host = Host {
        region: region.clone(),
        address: "192.0.2.1".to_owned(),
        groups: Default::default(),
        vars: Vars::default(),
    };
    let definition = CheckDefinition {
        check: Check::Tcp(TcpCheck::port("192.0.2.1", 1)),
        policy,
        command_name: "tcp".to_owned(),
        region: region.clone(),
    };
    let regions = BTreeMap::from([(region, Region { slots: 2, join: Vec::new(), failover_after_ms: 60_000 })]);
    let hosts = names.iter().map(|name| (name.host.clone(), host.clone())).collect();
    let objects = names.into_iter().map(|name| (name, definition.clone())).collect();
    Arc::new(Catalog::new(regions, hosts, objects, Vec::new()))
}

fn slot(chance: &mut Chance) -> Slot {
    let number = SlotNumber::new(u32::try_from(chance.between(1, 9)).unwrap()).unwrap();
    Slot { region: "eu".parse().unwrap(), number }
}

fn instance(chance: &mut Chance) -> InstanceId {
    InstanceId([u8::try_from(chance.below(5)).unwrap(); 16])
}

fn run(chance: &mut Chance) -> RunId {
    RunId([u8::try_from(chance.below(9)).unwrap(); 16])
}

/// A check that is known, or one that nobody knows.
fn check(chance: &mut Chance, status: &Status) -> CheckId {
    let known: Vec<CheckId> = status.objects().map(|object| object.id).collect();
    if chance.one_in(8) { CheckId(999) } else { chance.pick(&known).copied().unwrap_or(CheckId(1)) }
}

fn result(chance: &mut Chance, status: &Status) -> CheckResult {
    let state = *chance.pick(&[State::Ok, State::Warning, State::Critical, State::Unknown]).unwrap();
    let check = check(chance, status);
    let before = status.object(check).map_or(CheckState::pending(3), |object| object.state);
    CheckResult {
        check,
        grant: Grant(chance.between(1, status.head.0 + 1)),
        scheduled: status.at,
        started: status.at,
        duration_us: chance.below(1_000_000),
        exit: Some(Exit::Ran(0)),
        passive: chance.one_in(4),
        output: "x".repeat(usize::try_from(chance.below(200)).unwrap()),
        long_output: String::new(),
        perfdata: String::new(),
        metrics: Vec::new(),
        authenticated: None,
        after: before.apply(state, Confirmation { max_attempts: 3 }, status.at).0,
        command: chance.one_in(4).then(|| JournalIndex(chance.between(1, status.head.0 + 1))),
        offset_ms: None,
    }
}

fn batch(chance: &mut Chance, status: &Status) -> Batch {
    let (slot, run) = (slot(chance), run(chance));
    let position = status.slots().get(&slot).and_then(|slot| slot.runs.get(&run)).map_or(0, |run| run.position.0);
    let mut builder = BatchBuilder::default();
    let mut last = position;
    for _ in 0..chance.between(1, 4) {
        if chance.one_in(6) {
            let (from, to) = (Some(status.at), None);
            let gap = GapRecord {
                first: Sequence(last + 1),
                last: Sequence(last + 3),
                reason: "spool-full".to_owned(),
                from,
                to,
            };
            builder.push_gap(&gap);
            last += 3;
        } else {
            builder.push(&result(chance, status));
            last += 1;
        }
    }
    let header = BatchHeader {
        timeline: status.timeline,
        generation: Generation(1),
        run,
        counter: RunCounter(u64::from(run.0[0]) + 1),
        first: Sequence(position + 1),
        last: Sequence(last),
    };
    Batch { slot, bytes: builder.finish(&header) }
}

fn snapshot(chance: &mut Chance, status: &Status) -> Snapshot {
    let told: Vec<ToMaster> = (0..chance.between(1, 3))
        .map(|_| {
            let result = result(chance, status);
            ToMaster::State(Box::new(StateTold {
                check: result.check,
                key: Key { grant: Grant(status.head.0 + 1), counter: RunCounter(1), sequence: Sequence(1) },
                state: result.after,
                said: chance.one_in(2).then(|| Said::of(&result)),
                command: result.command,
            }))
        })
        .collect();
    Snapshot { slot: slot(chance), bytes: message::encode(&told).pop().unwrap() }
}

fn incident(chance: &mut Chance) -> Incident {
    let lost = chance.one_in(2);
    let open = chance.one_in(2);
    Incident {
        kind: if lost { IncidentKind::SlotLost } else { IncidentKind::CutOff },
        slot: lost.then(|| slot(chance)),
        open,
        reason: if open { "silent" } else { "heard" }.to_owned(),
        slots: 1,
        checks: chance.below(9),
        moved: 0,
        author: None,
        opened: None,
    }
}

fn continued(chance: &mut Chance, status: &Status) -> Continued {
    Continued {
        slot: slot(chance),
        timeline: Timeline(chance.below(3)),
        after: status.head,
        above: JournalIndex(status.head.0 + chance.below(4)),
        generation: Generation(status.generation.0 + chance.below(3)),
        check: CheckId(status.next_check.0.saturating_sub(1)),
    }
}

/// The next entry of a store in this state. `made` tells it from all others; `revisions` are the catalogs that are durable.
pub(super) fn entry(chance: &mut Chance, status: &Status, made: u64, revisions: &[Arc<Catalog>]) -> Entry {
    match chance.below(KINDS) {
        0 => match chance.pick(revisions) {
            Some(catalog) => Entry::Activate(Activate {
                generation: Generation(status.generation.0 + 1),
                digest: catalog.digest.to_string(),
                author: format!("a{made}"),
            }),
            None => Entry::Moves(Moves { held: true, author: format!("a{made}") }),
        },
        1 => Entry::Claim(Claim {
            slot: slot(chance),
            instance: instance(chance),
            remote: format!("192.0.2.1:{made}"),
            software: "1".to_owned(),
        }),
        2 => Entry::Presence(Presence {
            slot: slot(chance),
            present: chance.one_in(2),
            reason: format!("r{made}"),
            drain: chance.one_in(4).then(|| chance.one_in(2)),
            author: None,
        }),
        3 => Entry::Batch(batch(chance, status)),
        4 => Entry::Drained(Drained { slot: slot(chance), run: run(chance) }),
        5 => Entry::Snapshot(snapshot(chance, status)),
        // A store is put back seldom: what is of the timelines before is history then.
        6 if chance.one_in(50) => Entry::Restored(Restored {
            installation: "model".parse().unwrap(),
            timeline: Timeline(made),
            first_check: status.next_check,
            from: status.timeline,
            head: status.head,
            head_at: status.at,
            given_up: vec![GivenUp { command: JournalIndex(made), check: check(chance, status) }],
        }),
        6 | 7 => Entry::Continued(continued(chance, status)),
        8 => {
            let padding = usize::try_from(chance.below(600)).unwrap();
            Entry::WriterGap(WriterGap {
                writer: format!("w{}{}", made % 20, "x".repeat(padding)),
                lane: "metrics".to_owned(),
                first: JournalIndex(1),
                last: JournalIndex(made),
                reason: "journal-bytes".to_owned(),
            })
        }
        9 => Entry::Incident(incident(chance)),
        10 => Entry::Moves(Moves { held: chance.one_in(2), author: format!("a{made}") }),
        11 => Entry::ClockStep(ClockStep {
            slot: chance.one_in(2).then(|| slot(chance)),
            instance: None,
            number: made,
            by_ms: 3_600_000,
            at: status.at,
        }),
        _ => {
            let what = match chance.below(3) {
                0 => What::Reset,
                1 => What::Passive(Passive { state: State::Warning, text: format!("t{made}") }),
                _ => What::CheckNow,
            };
            Entry::Asked(Asked { check: check(chance, status), what, author: format!("a{made}") })
        }
    }
}

fn granted(chance: &mut Chance, known: &BTreeSet<CheckId>) -> Vec<Granted> {
    let checks: Vec<CheckId> = known.iter().copied().filter(|_| chance.one_in(2)).collect();
    let slot = (!chance.one_in(4)).then(|| slot(chance));
    if checks.is_empty() { Vec::new() } else { vec![Granted { slot, checks }] }
}

fn change(chance: &mut Chance) -> Option<Change> {
    chance.one_in(2).then(|| Change {
        from: State::Ok,
        from_type: StateType::Hard,
        to: State::Critical,
        to_type: StateType::Soft,
        hard: chance.one_in(2),
        current: true,
        not_before: None,
    })
}

/// Outcomes that this entry can have.
pub(super) fn outcomes(chance: &mut Chance, status: &Status, row: &Row, catalog: Option<&Arc<Catalog>>) -> Outcomes {
    let mut outcomes = Outcomes::default();
    let mut known: BTreeSet<CheckId> = status.objects().map(|object| object.id).collect();
    match &row.entry {
        Entry::Activate(_) => {
            let names = catalog.iter().flat_map(|catalog| catalog.objects.keys());
            let fresh = names.filter(|name| status.id(name).is_none());
            let ids = (status.next_check.0..).map(CheckId);
            outcomes.named = ids.zip(fresh).map(|(id, object)| Named { id, object: object.clone() }).collect();
            outcomes.removed = known.iter().copied().filter(|_| chance.one_in(9)).collect();
            known.extend(outcomes.named.iter().map(|named| named.id));
            outcomes.granted = granted(chance, &known);
        }
        Entry::Claim(_) => {
            outcomes.fenced = chance.one_in(2).then(|| instance(chance));
            outcomes.granted = granted(chance, &known);
        }
        Entry::Presence(_) | Entry::Continued(_) => outcomes.granted = granted(chance, &known),
        Entry::Batch(batch) => {
            let (header, _) = decode_header(&batch.bytes).unwrap();
            outcomes.moved = Some(Moved { run: header.run, counter: header.counter, position: header.last });
            for item in row.items() {
                let effects = [Effect::Current, Effect::Late, Effect::Observed, Effect::RefusedForeign];
                let effect = match &item {
                    BatchItem::Gap(gap) => {
                        let (slot, record) = (batch.slot.clone(), gap.clone());
                        outcomes.gaps.push(Gap { slot, run: header.run, record, explained: true });
                        Effect::Gap
                    }
                    BatchItem::Unreadable(_) => Effect::RefusedMalformed,
                    BatchItem::Result(..) => *chance.pick(&effects).unwrap(),
                };
                outcomes.verdicts.push(Verdict { effect, change: change(chance).filter(|_| effect.is_current()) });
            }
        }
        Entry::Snapshot(_) => {
            let verdict = |_| Verdict { effect: Effect::Current, change: change(chance) };
            outcomes.verdicts = row.states().iter().map(verdict).collect();
        }
        _ => {}
    }
    outcomes
}
