//! What was delivered, on volumes made by hand: how long it stays, what makes it go before its time, and what a master hears of it that
//! was put back to a time before it had it.

use std::time::Duration;

use shared::delivery::{BatchItem, GapRecord, decode_header, decode_items};
use shared::frame::Lane;
use shared::message::RunPosition;
use shared::name::{RunCounter, Timeline};
use shared::time::Timestamp;

use super::*;
use crate::command::{FoundRun, Limits, Piece, Remembered, Room};
use crate::outbox::ended::{REMEMBER, RUNS_REMEMBERED_MAX};

const GRACE: u64 = 900;
const FIRST: Timeline = Timeline(1);
const SECOND: Timeline = Timeline(2);

fn at(seconds: u64) -> Monotonic {
    Monotonic(seconds * 1_000_000_000)
}

fn run(n: u8) -> RunId {
    RunId([n; 16])
}

fn found(n: u8, last: u64) -> FoundRun {
    FoundRun { run: run(n), counter: RunCounter(u64::from(n)), first: Sequence(1), last: Sequence(last) }
}

fn position(n: u8, position: u64) -> RunPosition {
    RunPosition { run: run(n), position: Sequence(position) }
}

fn orders(outbox: &mut Outbox) -> Vec<Command> {
    std::iter::from_fn(|| outbox.poll_command()).collect()
}

/// The runs deleted and trimmed among the orders.
fn gone(outbox: &mut Outbox) -> Vec<(u8, Option<u64>)> {
    let orders = orders(outbox).into_iter().filter_map(|order| match order {
        Command::CloseRun(run) => Some((run.0[0], None)),
        Command::Trim { run, up_to } => Some((run.0[0], Some(up_to.0))),
        _ => None,
    });
    orders.collect()
}

/// The gaps told, each with its run.
fn named(outbox: &mut Outbox) -> Vec<(u8, GapRecord)> {
    let mut gaps = Vec::new();
    for order in orders(outbox) {
        let Command::Send { lane: Lane::Backlog, payload } = order else { continue };
        let (header, body) = decode_header(&payload).unwrap();
        for item in decode_items(&header, body).unwrap() {
            let BatchItem::Gap(gap) = item else { continue };
            gaps.push((header.run.0[0], gap));
        }
    }
    gaps
}

fn welcome(outbox: &mut Outbox, now: Monotonic, timeline: Timeline, positions: &[RunPosition]) {
    outbox.handle_disconnected();
    outbox.introduce();
    outbox.begin_timeline(timeline);
    outbox.handle_welcome(now, positions);
}

fn keep_states(outbox: &mut Outbox, now: Monotonic) -> BTreeMap<RunId, Remembered> {
    let (made, memory) = (outbox.made(), outbox.memory(now));
    outbox.handle_covered(now, &made);
    memory
}

/// Runs of two results each that the master has closed at 10 s, and the open run.
fn delivered(runs: std::ops::RangeInclusive<u8>) -> Outbox {
    let earlier: Vec<FoundRun> = runs.clone().map(|n| found(n, 2)).collect();
    let mut outbox = Outbox::new(&found(250, 0), &earlier);
    let positions: Vec<RunPosition> = runs.clone().map(|n| position(n, 2)).collect();
    welcome(&mut outbox, at(10), FIRST, &positions);
    runs.for_each(|n| outbox.handle_close(at(10), run(n)));
    outbox
}

#[test]
fn what_is_delivered_goes_when_its_grace_is_over_and_its_end_is_remembered() {
    let mut outbox = delivered(3..=3);
    assert!(outbox.is_forgetful());
    let memory = keep_states(&mut outbox, at(20));
    assert!(!outbox.is_forgetful() && memory[&run(3)].ended.is_some_and(|ended| ended.timeline == FIRST));
    assert_eq!((gone(&mut outbox), outbox.undelivered(), outbox.run_count()), (vec![], 0, 2));
    assert_eq!(outbox.poll_timeout(), Some(at(20 + GRACE)));
    outbox.handle_timeout(at(19 + GRACE));
    assert_eq!(gone(&mut outbox), []);
    outbox.handle_timeout(at(20 + GRACE));
    assert_eq!(gone(&mut outbox), [(3, Some(2)), (3, None)]);
    assert_eq!((outbox.run_count(), outbox.poll_timeout()), (1, None));
}

#[test]
fn a_run_whose_end_is_not_remembered_is_not_deleted() {
    let mut outbox = delivered(3..=3);
    let made = outbox.made();
    outbox.handle_covered(at(20), &made);
    outbox.handle_timeout(at(20 + GRACE));
    assert_eq!(gone(&mut outbox), [(3, Some(2))], "its segments but the newest may go");
    keep_states(&mut outbox, at(2000));
    assert_eq!(gone(&mut outbox), [(3, None)]);
}

#[test]
fn an_end_that_the_last_states_do_not_say_is_written_again_before_the_run_goes() {
    let mut outbox = delivered(3..=3);
    keep_states(&mut outbox, at(20));
    welcome(&mut outbox, at(30), FIRST, &[position(3, 2)]);
    assert!(keep_states(&mut outbox, at(31))[&run(3)].ended.is_none(), "the master may want something of it again");
    outbox.handle_close(at(32), run(3));
    outbox.handle_timeout(at(20 + GRACE));
    assert_eq!(gone(&mut outbox), [(3, Some(2))]);
    assert!(keep_states(&mut outbox, at(2000))[&run(3)].ended.is_some());
    assert_eq!(gone(&mut outbox), [(3, None)]);
}

#[test]
fn nothing_goes_for_its_age_while_no_master_is_there() {
    let mut outbox = delivered(3..=3);
    keep_states(&mut outbox, at(20));
    outbox.handle_disconnected();
    outbox.handle_timeout(at(10 * GRACE));
    assert_eq!((gone(&mut outbox), outbox.poll_timeout()), (vec![], None));
    welcome(&mut outbox, at(10 * GRACE), FIRST, &[position(3, 2)]);
    outbox.handle_close(at(10 * GRACE), run(3));
    assert_eq!(gone(&mut outbox), [(3, Some(2)), (3, None)], "it is confirmed, and its time is long over");
}

#[test]
fn a_master_that_lost_it_is_sent_it_again_and_its_grace_begins_anew() {
    let mut outbox = delivered(3..=3);
    keep_states(&mut outbox, at(20));
    orders(&mut outbox);
    welcome(&mut outbox, at(100), SECOND, &[position(3, 1)]);
    let asked = orders(&mut outbox).into_iter().find_map(|order| match order {
        Command::Read { read, run, from, .. } => Some((read, run, from)),
        _ => None,
    });
    let (read, of, from) = asked.unwrap();
    assert_eq!((of, from), (run(3), Sequence(2)));
    outbox.handle_read_failed(at(101), read);
    assert_eq!(outbox.undelivered(), 1);
    outbox.handle_ack(at(200), position(3, 2));
    outbox.handle_close(at(200), run(3));
    assert!(outbox.is_forgetful(), "it ended under another timeline than the one that is noted");
    keep_states(&mut outbox, at(210));
    outbox.handle_timeout(at(20 + GRACE));
    assert_eq!(gone(&mut outbox), []);
    outbox.handle_timeout(at(210 + GRACE));
    assert_eq!(gone(&mut outbox), [(3, Some(2)), (3, None)]);
}

#[test]
fn of_many_runs_the_newest_stay() {
    let count = u8::try_from(RUNS_KEPT_MAX).unwrap() + 2;
    let mut outbox = delivered(1..=count);
    keep_states(&mut outbox, at(20));
    assert_eq!(gone(&mut outbox), [(1, None), (2, None)]);
}

fn pieces(count: u64, bytes: u64) -> Vec<Piece> {
    (1..=count).map(|n| Piece { last: Sequence(n), bytes, begun: None }).collect()
}

#[test]
fn what_is_delivered_goes_before_anything_else_is_given_up() {
    let limits = Limits { bytes: 800, ..Limits::DEFAULT };
    let mut outbox = Outbox::new(&found(9, 0), &[found(3, 4), found(5, 2)]).with_limits(limits);
    welcome(&mut outbox, at(10), FIRST, &[position(3, 1), position(5, 2)]);
    outbox.handle_close(at(10), run(5));
    keep_states(&mut outbox, at(20));
    let volume = [Extent { run: run(3), pieces: pieces(4, 200) }, Extent { run: run(5), pieces: pieces(2, 50) }];
    outbox.handle_room(at(30), Room { held: 900, free: 0, size: 0 });
    orders(&mut outbox);
    outbox.handle_measured(at(30), &volume);
    // 600 may lie there: of what is delivered the oldest 200, and all that is too much of the rest.
    assert_eq!(gone(&mut outbox), [(3, Some(1)), (5, None)]);
    let rest = Extent { run: run(3), pieces: pieces(4, 300).split_off(1) };
    outbox.handle_measured(at(31), &[rest]);
    let given_up = orders(&mut outbox).into_iter().find(|order| matches!(order, Command::GiveUp { .. }));
    let expected = Command::GiveUp { run: run(3), first: Sequence(2), up_to: Sequence(2), reason: "spool-full" };
    assert_eq!(given_up, Some(expected), "what was delivered is not given up");
}

#[test]
fn kept_bytes_are_bounded_and_told_and_are_no_reason_to_call_the_spool_full() {
    let mut outbox = Outbox::new(&found(9, 0), &[found(3, 2), found(5, 2)]);
    welcome(&mut outbox, at(10), FIRST, &[position(3, 2), position(5, 2)]);
    [3, 5].into_iter().for_each(|n| outbox.handle_close(at(10), run(n)));
    keep_states(&mut outbox, at(20));
    orders(&mut outbox);
    let mib = 1024 * 1024;
    outbox.handle_room(at(30), Room { held: 80 * mib, free: 0, size: 0 });
    assert_eq!(orders(&mut outbox), [Command::Measure], "much was delivered since the last look");
    let run_of = |n: u8| Extent { run: run(n), pieces: pieces(2, 20 * mib) };
    outbox.handle_measured(at(30), &[run_of(3), run_of(5)]);
    assert_eq!(gone(&mut outbox), [(3, Some(1))]);
    assert_eq!(outbox.kept_bytes(), 60 * mib);
    assert!(!outbox.is_full());
}

#[test]
fn a_volume_that_takes_nothing_gets_the_room_of_what_is_delivered() {
    let mut outbox = delivered(3..=4);
    keep_states(&mut outbox, at(20));
    orders(&mut outbox);
    outbox.handle_append_failed(at(30));
    assert_eq!(gone(&mut outbox), [(3, Some(2)), (4, Some(2)), (3, None), (4, None)]);
}

#[test]
fn an_ended_run_is_named_once_to_a_master_of_another_timeline() {
    let mut outbox = delivered(3..=3);
    outbox.handle_time(at(15), Timestamp::from_millis(50_000));
    keep_states(&mut outbox, at(20));
    outbox.handle_timeout(at(20 + GRACE));
    assert_eq!(outbox.run_count(), 1);
    orders(&mut outbox);
    welcome(&mut outbox, at(2000), FIRST, &[]);
    assert_eq!(named(&mut outbox), [], "the master that had it");
    welcome(&mut outbox, at(2001), SECOND, &[]);
    let told = named(&mut outbox);
    let [(3, gap)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((gap.first.0, gap.last.0, gap.reason.as_str()), (1, 2, "lost-by-restore"));
    assert_eq!((outbox.run_count(), outbox.undelivered()), (1, 0), "nothing of it is held");
    // Not acknowledged: named again on the next connection.
    welcome(&mut outbox, at(2002), SECOND, &[]);
    assert_eq!(named(&mut outbox).len(), 1);
    outbox.handle_ack(at(2003), position(3, 2));
    outbox.handle_close(at(2003), run(3));
    assert_eq!(gone(&mut outbox), [], "there is nothing to delete");
    welcome(&mut outbox, at(2004), SECOND, &[]);
    assert_eq!(named(&mut outbox), []);
    welcome(&mut outbox, at(2005), Timeline(3), &[]);
    assert_eq!(named(&mut outbox).len(), 1, "put back once more");
}

#[test]
fn a_later_process_names_what_an_earlier_one_has_delivered_and_deleted() {
    let time = Timestamp::from_millis;
    let known = |n: u8, ended| {
        let (from, to) = (Some(time(5)), Some(time(9)));
        Remembered { counter: RunCounter(n.into()), last: Sequence(7), from, to, ended }
    };
    let ended = crate::command::Ended { timeline: FIRST, at: Some(time(10)) };
    let mut outbox = Outbox::new(&found(9, 0), &[found(4, 1)]);
    welcome(&mut outbox, at(1), SECOND, &[position(4, 1)]);
    let left = [(3, Some(ended)), (4, Some(ended)), (5, None)];
    let left = left.into_iter().map(|(n, ended)| (run(n), known(n, ended))).collect();
    outbox.handle_adopted(at(2), &[], &left);
    let told = named(&mut outbox);
    let [(3, gap)] = &told[..] else { panic!("one is held, and one has not ended: {told:?}") };
    assert_eq!((gap.first, gap.last, gap.from, gap.to), (Sequence(1), Sequence(7), Some(time(5)), Some(time(9))));
}

#[test]
fn memory_of_runs_is_bounded_in_number_and_time() {
    let mut outbox = Outbox::new(&found(9, 0), &[]);
    let known = |n: u16| {
        let mut id = RunId([0; 16]);
        id.0[..2].copy_from_slice(&n.to_be_bytes());
        let at = Some(Timestamp::from_millis(i64::from(n) * 1000));
        let ended = Some(crate::command::Ended { timeline: FIRST, at });
        let counter = RunCounter(u64::from(n) + 1);
        (id, Remembered { counter, last: Sequence(1), from: None, to: None, ended })
    };
    let most = u16::try_from(RUNS_REMEMBERED_MAX).unwrap();
    outbox.handle_adopted(at(0), &[], &(0..most + 10).map(known).collect());
    assert!(outbox.memory(at(0)).keys().copied().eq((10..most + 10).map(|n| known(n).0)), "the newest");
    let later = Timestamp::from_millis(1_000_000).plus(REMEMBER);
    outbox.handle_time(at(1), later);
    assert!(outbox.memory(at(1)).keys().copied().eq((1001..most + 10).map(|n| known(n).0)));
}

#[test]
fn moments_are_merged_so_that_few_are_remembered_and_none_is_too_early() {
    let mut delivered = Delivered::default();
    for second in 0..900 {
        delivered.note(at(second), Sequence(second + 1), Duration::from_secs(GRACE));
    }
    assert!(delivered.marks.len() <= 17, "{}", delivered.marks.len());
    for now in 0..2000 {
        if let Some(up_to) = delivered.take_due(at(now), Duration::from_secs(GRACE)) {
            assert!(up_to.0 - 1 + GRACE <= now, "{up_to} was delivered at {} and goes at {now}", up_to.0 - 1);
        }
    }
    assert!(delivered.marks.is_empty());
}

#[test]
fn an_end_whose_time_nobody_knew_counts_from_when_somebody_does() {
    let mut outbox = delivered(3..=3);
    assert!(keep_states(&mut outbox, at(20))[&run(3)].ended.is_some_and(|ended| ended.at.is_none()));
    outbox.handle_timeout(at(20 + GRACE));
    let late = Timestamp::from_millis(0).plus(2 * REMEMBER);
    outbox.handle_time(at(2000), late);
    assert_eq!(outbox.memory(at(2000))[&run(3)].ended.and_then(|ended| ended.at), Some(late));
    outbox.handle_time(at(2001), late.plus(REMEMBER));
    assert!(outbox.memory(at(2001)).is_empty());
}

#[test]
fn a_segment_that_was_the_newest_when_it_was_told_to_go_goes_later() {
    let limits = Limits { bytes: 8000, ..Limits::DEFAULT };
    let mut outbox = Outbox::new(&found(250, 0), &[found(3, 2)]).with_limits(limits);
    keep_states(&mut outbox, at(1));
    welcome(&mut outbox, at(2), FIRST, &[position(3, 2)]);
    outbox.handle_append_failed(at(3));
    assert_eq!(gone(&mut outbox), [(3, Some(2))]);
    let piece = |bytes| Piece { last: Sequence(2), bytes, begun: None };
    outbox.handle_measured(at(4), &[crate::command::Extent { run: run(3), pieces: vec![piece(7000), piece(64)] }]);
    assert_eq!(gone(&mut outbox), [(3, Some(2))]);
}

#[test]
fn what_is_too_old_goes_as_soon_as_its_end_is_remembered() {
    let limits = Limits { age: Duration::from_secs(120), ..Limits::DEFAULT };
    let mut outbox = Outbox::new(&found(250, 0), &[found(3, 2)]).with_limits(limits);
    keep_states(&mut outbox, at(1));
    welcome(&mut outbox, at(2), FIRST, &[position(3, 2)]);
    outbox.handle_close(at(3), run(3));
    outbox.handle_time(at(4), Timestamp::from_millis(1_000_000));
    assert!(orders(&mut outbox).contains(&Command::Measure));
    let begun = Some(Timestamp::from_millis(0));
    let extents = [crate::command::Extent { run: run(3), pieces: vec![Piece { last: Sequence(2), bytes: 64, begun }] }];
    outbox.handle_measured(at(4), &extents);
    assert_eq!(orders(&mut outbox), [], "its end stands nowhere");
    keep_states(&mut outbox, at(6));
    outbox.handle_timeout(at(7));
    assert_eq!(orders(&mut outbox), [Command::Measure]);
    outbox.handle_measured(at(7), &extents);
    assert_eq!(gone(&mut outbox), [(3, None)]);
}

#[test]
fn what_goes_for_want_of_room_makes_nothing_before_it_younger() {
    let limits = Limits { bytes: 8000, age: Duration::from_secs(120), ..Limits::DEFAULT };
    let mut outbox = Outbox::new(&found(250, 0), &[found(3, 2), found(4, 2)]).with_limits(limits);
    keep_states(&mut outbox, at(1));
    welcome(&mut outbox, at(2), FIRST, &[position(3, 0), position(4, 2)]);
    outbox.handle_close(at(3), run(4));
    keep_states(&mut outbox, at(4));
    let time = |seconds: i64| Timestamp::from_millis(seconds * 1000);
    outbox.handle_time(at(5), time(361));
    orders(&mut outbox);
    let extent = |n: u8, last, bytes, begun: i64| crate::command::Extent {
        run: run(n),
        pieces: vec![Piece { last: Sequence(last), bytes, begun: Some(time(begun)) }],
    };
    // The first ended when the second began; the third began a moment ago.
    outbox.handle_measured(at(5), &[extent(3, 2, 100, 0), extent(4, 2, 2000, 200), extent(250, 0, 0, 350)]);
    let orders = orders(&mut outbox);
    assert!(orders.contains(&Command::CloseRun(run(4))), "{orders:?}");
    let aged =
        |order: &Command| matches!(order, Command::GiveUp { run: old, reason: "spool-age", .. } if *old == run(3));
    assert!(orders.iter().any(aged), "{orders:?}");
}
