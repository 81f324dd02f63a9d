//! Commands of operators: durable before they are told, told to whoever owns the check, answered once, and of one result in history.

use shared::command::{COMMANDS_WAITING_MAX, Passive, TEXT_BYTES_MAX, What};
use shared::delivery::{BatchItem, decode_header, decode_items};
use shared::snapshot::StateTold;

use super::*;
use crate::coordinator::{COMMANDS_BYTES_MAX, COMMANDS_IN_ALL_MAX, TELL_AGAIN_EVERY};
use crate::entry::Asked;

fn command(bench: &mut Bench, check: CheckId, what: What) {
    bench.coordinator.handle_command(RequestId(7), check, what, "ann", seconds(1), AT);
}

/// The index of a command that was just taken.
pub(super) fn given(bench: &mut Bench, check: CheckId, what: What) -> JournalIndex {
    command(bench, check, what);
    bench.settle();
    match bench.commanded.last() {
        Some(Commanding::Taken { index, .. }) => *index,
        other => panic!("{other:?}"),
    }
}

fn told(bench: &Bench, to: u64) -> Vec<JournalIndex> {
    let told = bench.sent.iter().filter_map(|(id, message)| match message {
        ToSatellite::Command(command) if id.0 == to => Some(command.index),
        _ => None,
    });
    told.collect()
}

pub(super) fn waiting(bench: &Bench) -> Vec<JournalIndex> {
    let status = bench.coordinator.published();
    status.errands().filter(|(_, errand)| errand.what.is_some()).map(|(index, _)| index).collect()
}

/// A batch of one result that names a command.
fn answer(run: u8, sequence: u64, check: CheckId, grant: Grant, index: JournalIndex) -> Vec<u8> {
    answer_of(Timeline(42), run, sequence, check, grant, index)
}

pub(super) fn answer_of(
    timeline: Timeline,
    run: u8,
    sequence: u64,
    check: CheckId,
    grant: Grant,
    index: JournalIndex,
) -> Vec<u8> {
    let mut teller = Teller { run, next: sequence };
    let mut builder = BatchBuilder::default();
    let plain = teller.tell_of(timeline, &[(check, grant, State::Critical)]);
    let (header, body) = decode_header(&plain).unwrap();
    for item in decode_items(&header, body).unwrap() {
        let BatchItem::Result(_, mut result) = item else { panic!("a result") };
        result.command = Some(index);
        builder.push(&result);
    }
    builder.finish(&header)
}

pub(super) fn effects(bench: &Bench) -> Vec<Effect> {
    bench.journal.iter().flat_map(|row| &row.outcomes.verdicts).map(|verdict| verdict.effect).collect()
}

#[test]
fn a_command_is_told_when_it_is_durable_and_again_until_it_is_answered() {
    let (mut bench, catalog, _) = with_one_slot();
    let (check, grant) = owned(&bench, "host1!load");
    command(&mut bench, check, What::CheckNow);
    bench.drain();
    assert!(told(&bench, 1).is_empty() && bench.commanded.is_empty(), "not before it is durable");
    bench.settle();
    let index = bench.journal.last().unwrap().index;
    assert_eq!(told(&bench, 1), [index]);
    assert_eq!(bench.commanded, [Commanding::Taken { index, told: Told::Owner(slot("eu", 1)) }]);
    bench.coordinator.handle_disconnected(ConnectionId(1));
    bench.connect(2, slot("eu", 1), 1, Vec::new(), seconds(3));
    bench.settle();
    assert_eq!(told(&bench, 2), [index]);
    bench.batch(2, answer(1, 1, check, grant, index));
    bench.settle();
    assert!(waiting(&bench).is_empty());
    bench.coordinator.handle_disconnected(ConnectionId(2));
    bench.connect(3, slot("eu", 1), 1, Vec::new(), seconds(5));
    bench.settle();
    assert!(told(&bench, 3).is_empty());
    bench.assert_replays(&[&catalog]);
}

#[test]
fn an_owner_that_stays_and_says_nothing_of_it_is_told_again() {
    let (mut bench, _, _) = with_one_slot();
    let (check, _) = owned(&bench, "host1!load");
    let index = given(&mut bench, check, What::CheckNow);
    let later = seconds(2).plus(TELL_AGAIN_EVERY);
    bench.coordinator.handle_timeout(later, AT);
    bench.settle();
    assert_eq!(told(&bench, 1), [index, index]);
    bench.coordinator.handle_timeout(later.plus(std::time::Duration::from_secs(2)), AT);
    bench.settle();
    assert_eq!(told(&bench, 1).len(), 2, "not at every look");
}

#[test]
fn a_second_result_is_state_and_nothing_else() {
    let (mut bench, catalog, _) = with_one_slot();
    let (check, grant) = owned(&bench, "host1!load");
    let index = given(&mut bench, check, What::CheckNow);
    for sequence in 1..=2 {
        bench.batch(1, answer(1, sequence, check, grant, index));
        bench.settle();
    }
    assert_eq!(effects(&bench), [Effect::Current, Effect::RepeatedCurrent]);
    assert_eq!(bench.object("host1!load").key.sequence, Sequence(2));
    assert_eq!(bench.coordinator.published().slots()[&slot("eu", 1)].results, 1);
    bench.assert_replays(&[&catalog]);
}

#[test]
fn results_of_two_commands_count_once_each_in_whatever_order_they_come() {
    let (mut bench, catalog, _) = with_one_slot();
    let (check, grant) = owned(&bench, "host1!load");
    let first = given(&mut bench, check, What::CheckNow);
    let second = given(&mut bench, check, What::CheckNow);
    bench.batch(1, answer(2, 1, check, grant, second));
    bench.settle();
    assert!(waiting(&bench).is_empty(), "whoever applied the second had applied the first");
    bench.batch(1, answer(1, 1, check, grant, first));
    bench.settle();
    bench.batch(1, answer(1, 2, check, grant, first));
    bench.settle();
    assert_eq!(effects(&bench), [Effect::Current, Effect::Late, Effect::Repeated]);
    bench.assert_replays(&[&catalog]);
}

#[test]
fn commands_wait_for_a_silent_owner_up_to_their_bound() {
    let (mut bench, catalog, _) = with_one_slot();
    let (check, _) = owned(&bench, "host1!load");
    bench.coordinator.handle_disconnected(ConnectionId(1));
    for _ in 0..=COMMANDS_WAITING_MAX {
        command(&mut bench, check, What::Reset);
        bench.settle();
    }
    let silent = Told::Silent(slot("eu", 1));
    let taken = |commanding: &&Commanding| matches!(commanding, Commanding::Taken { told, .. } if *told == silent);
    assert_eq!(bench.commanded.iter().filter(taken).count(), COMMANDS_WAITING_MAX);
    assert_eq!(bench.commanded.last(), Some(&Commanding::TooMany(Some(slot("eu", 1)))));
    command(&mut bench, CheckId(999), What::Reset);
    bench.settle();
    assert_eq!(bench.commanded.last(), Some(&Commanding::Unknown));
    bench.connect(2, slot("eu", 1), 1, Vec::new(), seconds(3));
    bench.settle();
    assert_eq!(told(&bench, 2).len(), COMMANDS_WAITING_MAX);
    bench.assert_replays(&[&catalog]);
}

/// A bench of two slots that own a host each, `number` commands of which wait for the silent eu/1, and a check of eu/2.
fn with_waiting(number: usize, what: &What) -> (Bench, CheckId, CheckId) {
    let mut bench = Bench::new();
    bench.activate(&catalog(8, 80));
    for id in 1..=2 {
        bench.connect(id, slot("eu", u32::try_from(id).unwrap()), u8::try_from(id).unwrap(), Vec::new(), seconds(1));
        bench.settle();
    }
    let mut status = bench.coordinator.published().as_ref().clone();
    let is_service = |id: &CheckId| status.object(*id).is_some_and(|object| !object.name.is_host());
    let first_of = |number| status.owned(&slot("eu", number)).find(is_service).unwrap();
    let (check, other) = (first_of(1), first_of(2));
    let mut last = None;
    for _ in 0..number {
        let asked = Asked { check, what: what.clone(), author: "ann".to_owned() };
        let row = Row {
            index: JournalIndex(status.head.0 + 1),
            term: status.term,
            at: AT,
            entry: Entry::Asked(asked),
            outcomes: Outcomes::default(),
        };
        status.fold(&row, &[], None);
        last = Some(row);
    }
    (Bench::resuming(status, last.into_iter().collect()), check, other)
}

#[test]
fn commands_wait_for_all_owners_together_up_to_their_bound() {
    let (mut bench, check, other) = with_waiting(COMMANDS_IN_ALL_MAX - 1, &What::Reset);
    given(&mut bench, other, What::CheckNow);
    assert_eq!(bench.coordinator.published().waiting_in_all(), (8_192, 0));
    command(&mut bench, other, What::CheckNow);
    bench.settle();
    assert_eq!(bench.commanded.last(), Some(&Commanding::TooMuch));
    command(&mut bench, check, What::CheckNow);
    bench.settle();
    assert_eq!(bench.commanded.last(), Some(&Commanding::TooMany(Some(slot("eu", 1)))), "its owner has most of them");
    // One answer names the last of them, and all before it are answered with it.
    let (newest, _) = bench.coordinator.published().waiting_for(Some(&slot("eu", 1))).last().unwrap();
    bench.connect(1, slot("eu", 1), 1, Vec::new(), seconds(2));
    bench.settle();
    let grant = bench.coordinator.published().object(check).unwrap().owner.as_ref().unwrap().grant;
    bench.batch(1, answer(1, 1, check, grant, newest));
    bench.settle();
    assert_eq!(bench.coordinator.published().waiting_in_all(), (1, 0));
    given(&mut bench, other, What::CheckNow);
}

#[test]
fn texts_wait_for_all_owners_together_up_to_their_bound() {
    let passive = |bytes: usize| What::Passive(Passive { state: State::Ok, text: "x".repeat(bytes) });
    let (mut bench, _, other) = with_waiting(COMMANDS_BYTES_MAX / TEXT_BYTES_MAX - 1, &passive(TEXT_BYTES_MAX));
    given(&mut bench, other, passive(TEXT_BYTES_MAX - 1));
    command(&mut bench, other, passive(2));
    bench.settle();
    assert_eq!(bench.commanded.last(), Some(&Commanding::TooMuch), "a byte too much");
    given(&mut bench, other, passive(1));
    assert_eq!(bench.coordinator.published().waiting_in_all(), (4_097, 64 * 1024 * 1024));
    command(&mut bench, other, passive(1));
    bench.settle();
    assert_eq!(bench.commanded.last(), Some(&Commanding::TooMuch));
    given(&mut bench, other, What::CheckNow);
}

#[test]
fn what_waits_counts_for_whoever_owns_the_check_now() {
    let (mut bench, catalog, _) = with_one_slot();
    bench.connect(2, slot("eu", 2), 2, Vec::new(), seconds(1));
    bench.settle();
    let checks: Vec<CheckId> = bench.coordinator.published().objects().map(|object| object.id).collect();
    let indexes: Vec<JournalIndex> = checks.iter().map(|check| given(&mut bench, *check, What::Reset)).collect();
    let of = |bench: &Bench, number| bench.coordinator.published().waiting_count(Some(&slot("eu", number)));
    let owns = |number| bench.coordinator.published().owned(&slot("eu", number)).len();
    assert_eq!((of(&bench, 1), of(&bench, 2)), (owns(1), owns(2)));
    bench.assert_replays(&[&catalog]);
    bench.coordinator.handle_order(RequestId(8), &Order::Drain(slot("eu", 1)), "ann", seconds(2), AT);
    bench.settle();
    assert_eq!((of(&bench, 1), of(&bench, 2)), (0, 4));
    let status = bench.coordinator.published();
    assert!(status.waiting_for(Some(&slot("eu", 2))).map(|(index, _)| index).eq(indexes), "oldest first");
    bench.assert_replays(&[&catalog]);
}

#[test]
fn a_command_that_cannot_be_committed_was_never_given() {
    let (mut bench, _, _) = with_one_slot();
    let (check, _) = owned(&bench, "host1!load");
    command(&mut bench, check, What::CheckNow);
    bench.drain();
    bench.waiting = None;
    bench.coordinator.handle_commit_failed(seconds(1));
    bench.drain();
    command(&mut bench, check, What::CheckNow);
    bench.drain();
    assert_eq!(bench.commanded, [Commanding::NotCommitted, Commanding::NotCommitted]);
    assert!(waiting(&bench).is_empty());
}

#[test]
fn a_told_state_that_names_a_command_answers_it_and_its_result_still_counts() {
    let (mut bench, catalog, mut teller) = with_one_slot();
    let (check, grant) = owned(&bench, "host1!load");
    let index = given(&mut bench, check, What::CheckNow);
    bench.batch(1, teller.tell(&[(check, grant, State::Ok)]));
    bench.settle();
    let before = bench.object("host1!load").clone();
    let told = StateTold { check, key: before.key, state: before.state, said: None, command: Some(index) };
    bench.control(1, &[ToMaster::State(Box::new(told.clone()))], seconds(2));
    bench.settle();
    assert!(waiting(&bench).is_empty());
    let rows = bench.journal.len();
    bench.control(1, &[ToMaster::State(Box::new(told))], seconds(2));
    bench.settle();
    assert_eq!(bench.journal.len(), rows, "said again it makes no row");
    assert_eq!(bench.object("host1!load").last, before.last, "what is known of the state is kept");
    bench.batch(1, answer(2, 1, check, grant, index));
    bench.settle();
    assert_eq!(effects(&bench).last(), Some(&Effect::Current));
    bench.assert_replays(&[&catalog]);
}

#[test]
fn the_next_owner_is_told_and_what_the_former_one_saw_answers_nothing() {
    let (mut bench, catalog, _) = with_one_slot();
    bench.connect(2, slot("eu", 2), 2, Vec::new(), seconds(1));
    bench.settle();
    let (check, grant, owner) = bench
        .coordinator
        .published()
        .objects()
        .filter(|object| !object.name.is_host())
        .find_map(|object| object.owner.as_ref().map(|owner| (object.id, owner.grant, owner.slot.clone())))
        .unwrap();
    let (of_owner, of_other) = if owner == slot("eu", 1) { (1, 2) } else { (2, 1) };
    let index = given(&mut bench, check, What::Passive(Passive { state: State::Critical, text: "x".into() }));
    assert_eq!(told(&bench, of_owner), [index]);
    bench.coordinator.handle_order(RequestId(8), &Order::Drain(owner), "ann", seconds(2), AT);
    bench.settle();
    let now = bench.coordinator.published().object(check).unwrap().owner.clone().unwrap();
    assert_eq!(told(&bench, of_other), [index], "the next owner is told with its assignment");
    bench.batch(of_owner, answer(1, 1, check, grant, index));
    bench.settle();
    assert_eq!((effects(&bench), waiting(&bench)), (vec![Effect::Observed], vec![index]));
    bench.batch(of_other, answer(2, 1, check, now.grant, index));
    bench.settle();
    assert_eq!(effects(&bench), [Effect::Observed, Effect::RepeatedCurrent], "one command, one result in history");
    assert!(waiting(&bench).is_empty());
    assert_eq!(bench.coordinator.published().object(check).unwrap().key.grant, now.grant);
    bench.assert_replays(&[&catalog]);
}

#[test]
fn a_satellite_of_the_version_before_is_never_sent_a_command_and_whoever_asks_is_told_why() {
    let (mut bench, _, _) = with_one_slot();
    let (check, _) = owned(&bench, "host1!load");
    bench.coordinator.handle_disconnected(ConnectionId(1));
    bench.coordinator.handle_connected(ConnectionId(2), slot("eu", 1), "192.0.2.1:1".into(), seconds(2));
    let hello = Hello {
        protocol: 1,
        software: "0.1.0".into(),
        instance: InstanceId([1; 16]),
        fenced: false,
        timeline: None,
        grant: Grant(0),
        generation: Generation(0),
        check: CheckId(0),
        runs: Vec::new(),
        clock: AT,
        tells_states: false,
        credit: false,
    };
    bench.control(2, &[ToMaster::Hello(Box::new(hello))], seconds(2));
    bench.settle();
    command(&mut bench, check, What::CheckNow);
    bench.settle();
    bench.coordinator.handle_timeout(seconds(2).plus(TELL_AGAIN_EVERY), AT);
    bench.settle();
    let old = Told::Old { slot: slot("eu", 1), software: "0.1.0".to_owned() };
    assert!(matches!(bench.commanded.last(), Some(Commanding::Taken { told, .. }) if *told == old));
    assert!(told(&bench, 2).is_empty());
}

#[test]
fn a_command_to_a_check_that_nobody_owns_waits_for_the_first_owner() {
    let mut bench = Bench::new();
    bench.activate(&catalog(1, 80));
    let check = bench.object("host1!load").id;
    let index = given(&mut bench, check, What::CheckNow);
    assert_eq!(bench.commanded, [Commanding::Taken { index, told: Told::Nobody }]);
    bench.connect(1, slot("eu", 1), 1, Vec::new(), seconds(2));
    bench.settle();
    assert_eq!(told(&bench, 1), [index]);
}

#[test]
fn nobody_is_told_of_a_command_to_a_check_that_was_removed() {
    let (mut bench, _, _) = with_one_slot();
    let (check, grant) = owned(&bench, "host2!load");
    let index = given(&mut bench, check, What::CheckNow);
    bench.activate(&catalog(1, 80));
    assert!(waiting(&bench).is_empty());
    command(&mut bench, check, What::CheckNow);
    bench.settle();
    assert_eq!(bench.commanded.last(), Some(&Commanding::Unknown));
    bench.batch(1, answer(1, 1, check, grant, index));
    bench.settle();
    assert_eq!(effects(&bench), [Effect::Observed], "what was answered before it went is history all the same");
}

#[test]
fn a_master_that_is_started_again_tells_what_waits_and_one_that_is_restored_does_not() {
    let (mut bench, _, _) = with_one_slot();
    let (check, _) = owned(&bench, "host1!load");
    let index = given(&mut bench, check, What::CheckNow);
    let status = bench.coordinator.published().as_ref().clone();
    let decoded = Status::decode(&status.encode()).unwrap();
    assert_eq!(decoded.errands().map(|(index, _)| index).collect::<Vec<_>>(), [index]);

    let mut again = Bench::resuming(status.clone(), bench.journal.clone());
    again.connect(5, slot("eu", 1), 1, Vec::new(), seconds(1));
    again.settle();
    assert_eq!(told(&again, 5), [index]);

    let row = crate::coordinator::timeline::restored(&status, Timeline(43), AT).unwrap();
    let mut restored = status;
    restored.fold(&row, &[], None);
    let mut back = Bench::resuming(restored, bench.journal.iter().cloned().chain([row]).collect());
    back.connect(5, slot("eu", 1), 1, Vec::new(), seconds(1));
    back.settle();
    assert!(told(&back, 5).is_empty() && waiting(&back).is_empty(), "whoever wants it asks again");
}
