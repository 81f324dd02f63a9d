//! After a restore: numbers go on above those of the lost timeline, and what is left of it is history or named as lost.

use shared::delivery::reason;

use super::*;
use crate::coordinator::timeline::{AHEAD_CHECKS_MAX, AHEAD_ROWS_MAX, restored};

pub(super) const NEW: Timeline = Timeline(43);

pub(super) fn hello(instance: u8, grant: u64, generation: u64, check: u32) -> Hello {
    Hello {
        protocol: message::PROTOCOL,
        software: "0".into(),
        instance: InstanceId([instance; 16]),
        fenced: false,
        timeline: Some(Timeline(42)),
        grant: Grant(grant),
        generation: Generation(generation),
        check: CheckId(check),
        runs: Vec::new(),
        clock: AT,
        tells_states: true,
        credit: true,
    }
}

/// A bench that goes on from a backup of another one, and that backup's head.
pub(super) fn back_to(bench: &Bench, backup: &Status) -> Bench {
    let row = restored(backup, NEW, AT).unwrap();
    let mut status = backup.clone();
    status.fold(&row, &[], None);
    let kept = bench.journal.iter().filter(|row| row.index <= backup.head).cloned();
    Bench::resuming(status, kept.chain([row]).collect())
}

pub(super) fn connect(bench: &mut Bench, id: u64, hello: Hello) {
    bench.coordinator.handle_connected(ConnectionId(id), slot("eu", 1), "192.0.2.1:1".into(), seconds(2));
    bench.control(id, &[ToMaster::Hello(Box::new(hello))], seconds(2));
    bench.settle();
}

#[test]
fn a_hello_of_another_timeline_lifts_the_numbers_and_renews_the_grants() {
    let (mut bench, catalog, mut teller) = with_one_slot();
    let (check, grant) = owned(&bench, "host1!load");
    bench.batch(1, teller.tell(&[(check, grant, State::Ok)]));
    bench.settle();
    let backup = bench.coordinator.published().as_ref().clone();
    let mut back = back_to(&bench, &backup);
    assert_eq!(back.coordinator.published().head.0, backup.head.0 + 1);

    connect(&mut back, 1, hello(1, 900, 7, 30));
    let status = Arc::clone(back.coordinator.published());
    let welcome = back.welcome(1).unwrap();
    assert_eq!((welcome.timeline, welcome.first_check), (NEW, backup.next_check));
    assert!(welcome.holder, "it had the slot when the backup was made");
    let (_, renewed) = owned(&back, "host1!load");
    assert_eq!(renewed, Grant(901), "above every index that it has seen");
    assert_eq!(back.upserts(1), 4);
    assert_eq!(status.next_check, CheckId(31));
    let later = super::catalog(3, 80);
    back.activate(&later);
    assert_eq!(back.answers, [Activation::Activated(Generation(8))]);
    assert!(back.object("host3").id >= CheckId(31), "an id of the lost timeline is never given again");
    back.assert_replays(&[&catalog, &later]);

    // The next one has seen nothing newer: its grants are renewed all the same, and no index is left out.
    let head = back.coordinator.published().head.0;
    back.coordinator.handle_disconnected(ConnectionId(1));
    connect(&mut back, 2, hello(1, 20, 2, 4));
    assert_eq!(owned(&back, "host1!load").1, Grant(head + 1));
    // And a process that knows the present timeline changes nothing.
    let head = back.coordinator.published().head;
    back.coordinator.handle_disconnected(ConnectionId(2));
    connect(&mut back, 3, Hello { timeline: Some(NEW), ..hello(1, 5000, 2, 4) });
    assert_eq!(back.coordinator.published().head, head);
}

#[test]
fn what_is_left_of_another_timeline_is_history_or_named_as_lost() {
    let (mut bench, catalog, mut teller) = with_one_slot();
    let (check, grant) = owned(&bench, "host1!load");
    bench.batch(1, teller.tell(&[(check, grant, State::Ok)]));
    bench.settle();
    let backup = bench.coordinator.published().as_ref().clone();
    let mut back = back_to(&bench, &backup);
    connect(&mut back, 1, hello(1, 900, 1, 6));

    // A known check under a grant nobody here ever gave, two checks that may be others by now, a known one again.
    let lost = CheckId(backup.next_check.0);
    let old = [
        (check, Grant(850), State::Critical),
        (lost, Grant(850), State::Critical),
        (CheckId(lost.0 + 1), Grant(850), State::Ok),
        (check, Grant(850), State::Critical),
    ];
    teller.next = 5;
    back.batch(1, teller.tell_of(Timeline(42), &old));
    back.settle();
    let row = back.journal.last().unwrap();
    let effects: Vec<Effect> = row.outcomes.verdicts.iter().map(|verdict| verdict.effect).collect();
    assert_eq!(effects, [Effect::Late, Effect::Lost, Effect::Lost, Effect::Late]);
    let gaps: Vec<_> = row.outcomes.gaps.iter().map(|gap| (gap.record.first.0, gap.record.last.0)).collect();
    assert_eq!(gaps, [(2, 4), (6, 7)], "what did not come, and what cannot be told");
    assert!(row.outcomes.gaps.iter().all(|gap| gap.explained && gap.record.reason == reason::LOST_BY_RESTORE));
    assert_eq!(back.acknowledged(), [(1, 8)]);
    assert_eq!(back.object("host1!load").state.state, State::Ok, "no state comes from another timeline");

    // A key of the present timeline beats it, whatever the run.
    let (_, renewed) = owned(&back, "host1!load");
    back.batch(1, teller.tell_of(NEW, &[(check, renewed, State::Warning)]));
    back.settle();
    assert_eq!(back.object("host1!load").state.state, State::Warning);
    assert_eq!(back.coordinator.published().gaps().len(), 2);
    back.assert_replays(&[&catalog]);
}

#[test]
fn a_slot_of_another_region_has_no_history_of_a_check_whatever_timeline_it_names() {
    let (bench, _, _) = with_one_slot();
    let backup = bench.coordinator.published().as_ref().clone();
    let mut back = back_to(&bench, &backup);
    let (check, _) = owned(&back, "host1!load");
    back.coordinator.handle_connected(ConnectionId(9), slot("us", 1), "192.0.2.9:1".into(), seconds(2));
    back.control(9, &[ToMaster::Hello(Box::new(hello(9, 10, 1, 4)))], seconds(2));
    back.settle();
    back.batch(9, Teller { run: 9, next: 1 }.tell_of(Timeline(42), &[(check, Grant(8), State::Critical)]));
    back.settle();
    assert_eq!(back.journal.last().unwrap().outcomes.verdicts[0].effect, Effect::RefusedForeign);
}

#[test]
fn numbers_that_no_store_can_have_given_close_the_link() {
    let (bench, _, _) = with_one_slot();
    let backup = bench.coordinator.published().as_ref().clone();
    for (grant, generation, check) in
        [(AHEAD_ROWS_MAX + 1000, 1, 4), (u64::MAX, 1, 4), (10, u64::MAX, 4), (10, 1, AHEAD_CHECKS_MAX + 1000)]
    {
        let mut back = back_to(&bench, &backup);
        let before = back.coordinator.published().encode();
        connect(&mut back, 1, hello(1, grant, generation, check));
        assert!(matches!(&back.closed[..], [(ConnectionId(1), Cut::Protocol(why))] if why.contains("numbers")));
        assert!(back.coordinator.published().encode() == before);
    }
}

#[test]
fn a_writers_gap_is_told_durable_when_it_is_and_asked_for_again_when_it_is_not() {
    let mut bench = Bench::new();
    let gap = |last| crate::entry::WriterGap {
        writer: "graphite".into(),
        lane: "metrics".into(),
        first: JournalIndex(1),
        last: JournalIndex(last),
        reason: "journal-bytes".into(),
    };
    bench.coordinator.handle_writer_gap(NoteId(1), gap(7), AT);
    bench.drain();
    assert!(bench.noted.is_empty(), "not before it is on disk");
    bench.coordinator.handle_commit_failed(seconds(1));
    bench.waiting = None;
    bench.settle();
    assert_eq!(bench.noted, [false]);
    assert!(bench.coordinator.published().lineage().writer_gaps.is_empty());
    bench.coordinator.handle_writer_gap(NoteId(2), gap(9), AT);
    bench.settle();
    assert_eq!(bench.noted, [false, true]);
    let seen = &bench.coordinator.published().lineage().writer_gaps;
    assert_eq!(seen.iter().map(|seen| seen.gap.last.0).collect::<Vec<_>>(), [9]);
    assert_eq!(bench.coordinator.published().lineage().writer_gaps_total, 1);
    let lineage = bench.coordinator.published().lineage();
    assert_eq!([7, 9].map(|last| lineage.names(&gap(last))), [false, true], "told again, it is no second one");
    bench.assert_replays(&[]);
}

#[test]
fn readers_are_told_that_nothing_can_be_written_until_something_is() {
    let (mut bench, _, _) = with_one_slot();
    bench.coordinator.handle_writer_gap(
        NoteId(1),
        crate::entry::WriterGap {
            writer: "graphite".into(),
            lane: "metrics".into(),
            first: JournalIndex(1),
            last: JournalIndex(2),
            reason: "journal-age".into(),
        },
        AT,
    );
    bench.drain();
    bench.coordinator.handle_commit_failed(seconds(1));
    bench.waiting = None;
    bench.drain();
    assert!(bench.coordinator.view(seconds(1)).read_only);
    bench.coordinator.handle_timeout(seconds(9), AT);
    bench.drain();
    assert!(bench.coordinator.view(seconds(9)).read_only, "the pause is over, the disk may be as it was");
    bench.connect(2, slot("eu", 2), 2, Vec::new(), seconds(9));
    bench.settle();
    assert!(!bench.coordinator.view(seconds(9)).read_only);
}
