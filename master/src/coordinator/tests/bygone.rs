//! Commands of a timeline that a restore has ended: nobody is told of them, and of each one history has one result.

use shared::command::What;
use shared::delivery::{BatchItem, decode_header, decode_items};

use super::commands::{answer_of, effects, given, waiting};
use super::timeline::{NEW, back_to, connect, hello};
use super::*;

const OLD: Timeline = Timeline(42);

/// What is judged of answers to the same command from runs of the old timeline, behind a restore of `backup`.
fn judged(bench: &Bench, backup: &Status, check: CheckId, answers: &[(u8, JournalIndex)]) -> Vec<Effect> {
    let mut back = back_to(bench, backup);
    connect(&mut back, 1, hello(1, 900, 1, 6));
    let before = effects(&back).len();
    for (run, index) in answers {
        back.batch(1, answer_of(OLD, *run, 1, check, Grant(850), *index));
        back.settle();
        // As the next master finds it.
        let status = Status::decode(&back.coordinator.published().encode()).unwrap();
        assert_eq!(status.encode(), back.coordinator.published().encode());
    }
    effects(&back).split_off(before)
}

#[test]
fn what_two_owners_did_after_the_backup_stands_in_history_once() {
    let (mut bench, _, _) = with_one_slot();
    let (check, _) = owned(&bench, "host1!load");
    let backup = bench.coordinator.published().as_ref().clone();
    let index = given(&mut bench, check, What::CheckNow);
    let next = given(&mut bench, check, What::CheckNow);
    let effects = judged(&bench, &backup, check, &[(7, index), (8, index), (9, next)]);
    assert_eq!(effects, [Effect::Late, Effect::Repeated, Effect::Late]);
}

#[test]
fn what_waited_in_the_backup_is_logged_when_it_comes_and_once() {
    let (mut bench, _, _) = with_one_slot();
    let (check, _) = owned(&bench, "host1!load");
    let index = given(&mut bench, check, What::CheckNow);
    let backup = bench.coordinator.published().as_ref().clone();
    let effects = judged(&bench, &backup, check, &[(7, index), (8, index)]);
    assert_eq!(effects, [Effect::Late, Effect::Repeated]);
}

#[test]
fn what_the_backup_has_a_result_of_gets_no_second_one() {
    let (mut bench, _, _) = with_one_slot();
    let (check, grant) = owned(&bench, "host1!load");
    let index = given(&mut bench, check, What::CheckNow);
    bench.batch(1, answer_of(OLD, 1, 1, check, grant, index));
    bench.settle();
    let backup = bench.coordinator.published().as_ref().clone();
    let lost = given(&mut bench, check, What::CheckNow);
    let effects = judged(&bench, &backup, check, &[(8, index), (9, lost)]);
    assert_eq!(effects, [Effect::Repeated, Effect::Late]);
}

#[test]
fn no_satellites_clock_decides_what_is_remembered() {
    let (mut bench, _, _) = with_one_slot();
    let (check, _) = owned(&bench, "host1!load");
    let backup = bench.coordinator.published().as_ref().clone();
    let index = given(&mut bench, check, What::CheckNow);
    let mut back = back_to(&bench, &backup);
    connect(&mut back, 1, hello(1, 900, 1, 6));
    // From a machine that is years behind.
    let answer = answer_of(OLD, 7, 1, check, Grant(850), index);
    let (header, body) = decode_header(&answer).unwrap();
    let mut builder = BatchBuilder::default();
    for item in decode_items(&header, body).unwrap() {
        let BatchItem::Result(_, mut result) = item else { panic!("a result") };
        result.started = Timestamp::from_millis(946_684_800_000);
        builder.push(&result);
    }
    back.batch(1, builder.finish(&header));
    back.settle();
    assert_eq!(effects(&back).last(), Some(&Effect::Late));
    // Restored once more, on the same day, and another owner's answer to the same command comes.
    let later = back.coordinator.published().as_ref().clone();
    let row = crate::coordinator::timeline::restored(&later, Timeline(44), AT).unwrap();
    let mut status = later.clone();
    status.fold(&row, &[], None);
    let mut again = Bench::resuming(status, back.journal.iter().cloned().chain([row]).collect());
    connect(&mut again, 1, hello(1, 900, 1, 6));
    again.batch(1, answer_of(OLD, 8, 1, check, Grant(850), index));
    again.settle();
    assert_eq!(effects(&again).last(), Some(&Effect::Repeated), "history has its result");
}

#[test]
fn the_same_index_of_two_timelines_names_two_commands() {
    let (bench, catalog, _) = with_one_slot();
    let (check, _) = owned(&bench, "host1!load");
    let backup = bench.coordinator.published().as_ref().clone();
    let mut back = back_to(&bench, &backup);
    connect(&mut back, 1, hello(1, 3, 1, 4));
    let (_, grant) = owned(&back, "host1!load");
    let index = given(&mut back, check, What::CheckNow);
    back.batch(1, answer_of(OLD, 7, 1, check, Grant(3), index));
    back.settle();
    assert_eq!(waiting(&back), [index], "that was another command");
    back.batch(1, answer_of(NEW, 8, 1, check, grant, index));
    back.settle();
    assert!(waiting(&back).is_empty());
    assert_eq!(effects(&back), [Effect::Late, Effect::Current]);
    back.assert_replays(&[&catalog]);
}

#[test]
fn a_restore_names_the_commands_it_ends() {
    let (mut bench, _, _) = with_one_slot();
    let (check, _) = owned(&bench, "host1!load");
    let index = given(&mut bench, check, What::CheckNow);
    let row = crate::coordinator::timeline::restored(bench.coordinator.published(), NEW, AT).unwrap();
    let Entry::Restored(restored) = row.entry else { panic!("{:?}", row.entry) };
    assert_eq!(restored.given_up, [crate::entry::GivenUp { command: index, check }]);
}
