//! Batches, runs and windows on inputs made by hand: what is appended, sent, read back and trimmed, and in which order.

use std::time::Duration;

use bytes::Bytes;
use shared::check::{Exit, State};
use shared::delivery::{BatchBuilder, BatchHeader, BatchItem, GapRecord, decode_header, decode_items, reason};
use shared::name::{CheckId, Grant};
use shared::result::CheckResult;
use shared::state::CheckState;
use shared::time::Timestamp;

use super::gathering::LINGER;
use super::*;
use crate::command::{Extent, Limits, Piece, Room, SpooledBatch};

const WAITING_BYTES_MAX: usize = Limits::DEFAULT.memory;
/// What is delivered goes at once.
const NO_GRACE: Limits = Limits { grace: Duration::ZERO, ..Limits::DEFAULT };

fn result(output: &str) -> CheckResult {
    CheckResult {
        check: CheckId(1),
        grant: Grant(5),
        scheduled: Timestamp::from_millis(1),
        started: Timestamp::from_millis(2),
        duration_us: 3,
        exit: Some(Exit::Ran(0)),
        passive: false,
        output: output.to_owned(),
        long_output: String::new(),
        perfdata: String::new(),
        metrics: Vec::new(),
        authenticated: None,
        after: CheckState { state: State::Ok, ..CheckState::pending(3) },
        command: None,
        offset_ms: None,
    }
}

fn at(millis: u64) -> Monotonic {
    Monotonic(millis * 1_000_000)
}

fn run(n: u8) -> RunId {
    RunId([n; 16])
}

fn found(n: u8, last: u64) -> FoundRun {
    FoundRun { run: run(n), counter: RunCounter(u64::from(n)), first: Sequence(1), last: Sequence(last) }
}

fn outbox() -> Outbox {
    Outbox::new(&found(9, 0), &[])
}

fn orders(outbox: &mut Outbox) -> Vec<Command> {
    std::iter::from_fn(|| outbox.poll_command()).collect()
}

/// The batches of the one append among the orders.
fn appended(outbox: &mut Outbox) -> Vec<SpooledBatch> {
    let mut all = orders(outbox).into_iter().filter_map(|order| match order {
        Command::Append { batches, .. } => Some(batches),
        _ => None,
    });
    let first = all.next().unwrap_or_default();
    assert!(all.next().is_none(), "one append at a time");
    first
}

fn sent(outbox: &mut Outbox) -> Vec<(Lane, u64, u64)> {
    let sends = orders(outbox).into_iter().filter_map(|order| match order {
        Command::Send { lane, payload } if lane != Lane::Control => {
            let (header, _) = decode_header(&payload).unwrap();
            Some((lane, header.first.0, header.last.0))
        }
        _ => None,
    });
    sends.collect()
}

fn position(n: u8, position: u64) -> RunPosition {
    RunPosition { run: run(n), position: Sequence(position) }
}

/// A batch of a run as the spool would give it back.
fn batch(n: u8, first: u64, last: u64) -> Bytes {
    let mut builder = BatchBuilder::default();
    for _ in first..=last {
        builder.push(&result("spooled"));
    }
    Bytes::from(builder.finish(&BatchHeader {
        timeline: Timeline(1),
        generation: Generation(1),
        run: run(n),
        counter: RunCounter(u64::from(n)),
        first: Sequence(first),
        last: Sequence(last),
    }))
}

fn read_of(orders: &[Command]) -> Option<(ReadId, RunId, u64)> {
    orders.iter().find_map(|order| match order {
        Command::Read { read, run, from, .. } => Some((*read, *run, from.0)),
        _ => None,
    })
}

#[test]
fn a_batch_closes_a_linger_after_its_first_result() {
    let mut outbox = outbox();
    outbox.push(at(0), &result("a"));
    outbox.push(at(6), &result("b"));
    assert_eq!(outbox.poll_timeout(), Some(at(10)));
    outbox.handle_timeout(at(9));
    assert_eq!(appended(&mut outbox), []);
    outbox.handle_timeout(at(10));
    let batches = appended(&mut outbox);
    assert_eq!((batches.len(), batches[0].first, batches[0].last), (1, Sequence(1), Sequence(2)));
}

#[test]
fn while_a_commit_runs_the_next_batch_gathers() {
    let mut outbox = outbox();
    outbox.push(at(0), &result("a"));
    outbox.handle_timeout(at(10));
    assert_eq!(appended(&mut outbox).len(), 1);
    for n in 0..1000 {
        outbox.push(at(20 + n), &result("b"));
    }
    outbox.handle_timeout(at(2000));
    assert_eq!(appended(&mut outbox), [], "one commit at a time");
    assert_eq!(outbox.poll_timeout(), None);
    outbox.handle_appended(at(2000), run(9), Sequence(1));
    let batches = appended(&mut outbox);
    assert!(batches.len() >= 2, "full ones and the one that was gathering, in one commit");
    assert_eq!((batches[0].first, batches[batches.len() - 1].last), (Sequence(2), Sequence(1001)));
}

#[test]
fn a_change_of_generation_closes_the_batch() {
    let mut outbox = outbox();
    outbox.set_origin(at(0), Timeline(1), Generation(1));
    outbox.push(at(0), &result("a"));
    outbox.set_origin(at(1), Timeline(1), Generation(2));
    outbox.push(at(2), &result("b"));
    outbox.handle_timeout(at(20));
    let first = appended(&mut outbox);
    outbox.handle_appended(at(20), run(9), Sequence(1));
    let second = appended(&mut outbox);
    let generations = [&first[0], &second[0]].map(|batch| decode_header(&batch.bytes).unwrap().0.generation);
    assert_eq!(generations, [Generation(1), Generation(2)]);
}

#[test]
fn nothing_is_sent_before_it_is_durable() {
    let mut outbox = outbox();
    outbox.handle_welcome(at(0), &[]);
    outbox.push(at(0), &result("a"));
    outbox.handle_timeout(at(10));
    assert_eq!(sent(&mut outbox), []);
    outbox.handle_append_failed(at(11));
    assert_eq!(sent(&mut outbox), []);
    outbox.handle_timeout(at(1011));
    assert_eq!(sent(&mut outbox), []);
    outbox.handle_appended(at(1012), run(9), Sequence(1));
    assert_eq!(sent(&mut outbox), [(Lane::Live, 1, 1)]);
}

#[test]
fn a_reconnect_with_a_backlog_opens_a_run_and_live_goes_first() {
    let mut outbox = outbox();
    outbox.push(at(0), &result("old"));
    outbox.handle_timeout(at(10));
    outbox.handle_appended(at(11), run(9), Sequence(1));
    orders(&mut outbox);
    outbox.introduce();
    outbox.handle_welcome(at(20), &[]);
    assert_eq!(orders(&mut outbox), [Command::OpenRun], "nothing is sent meanwhile");
    outbox.handle_opened(at(21), run(10), RunCounter(10));
    let all = orders(&mut outbox);
    let (read, of, from) = read_of(&all).unwrap();
    assert_eq!((of, from), (run(9), 1));
    let told = all.iter().any(|order| matches!(order, Command::Send { lane: Lane::Control, .. }));
    assert!(told, "the master learns that the old run is complete");
    // A live result made now does not wait for the reading of the backlog.
    outbox.push(at(22), &result("new"));
    outbox.handle_timeout(at(32));
    outbox.handle_appended(at(33), run(10), Sequence(1));
    assert_eq!(sent(&mut outbox), [(Lane::Live, 1, 1)]);
    let found = ReadBatches { batches: vec![batch(9, 1, 1)], through: Sequence(1), ..ReadBatches::default() };
    outbox.handle_read(at(34), read, &found);
    assert_eq!(sent(&mut outbox), [(Lane::Backlog, 1, 1)]);
}

#[test]
fn a_reconnect_without_a_backlog_goes_on_in_the_same_run() {
    let mut outbox = outbox();
    outbox.push(at(0), &result("a"));
    outbox.handle_timeout(at(10));
    outbox.handle_appended(at(11), run(9), Sequence(1));
    outbox.introduce();
    outbox.handle_welcome(at(20), &[position(9, 1)]);
    assert!(!orders(&mut outbox).contains(&Command::OpenRun));
    assert_eq!(outbox.next_place(), (RunCounter(9), Sequence(2)));
}

#[test]
fn with_too_many_undelivered_runs_the_last_one_goes_on() {
    let earlier: Vec<FoundRun> =
        (100..100 + u8::try_from(RUNS_UNDELIVERED_MAX).unwrap()).map(|n| found(n, 5)).collect();
    let mut outbox = Outbox::new(&found(250, 3), &earlier);
    outbox.handle_welcome(at(0), &[]);
    let all = orders(&mut outbox);
    assert!(!all.contains(&Command::OpenRun));
    assert_eq!(read_of(&all).map(|(_, of, from)| (of, from)), Some((run(250), 1)), "its backlog goes on the live lane");
}

#[test]
fn older_runs_are_delivered_oldest_first() {
    let mut outbox = Outbox::new(&found(9, 0), &[found(7, 4), found(3, 2)]);
    outbox.handle_welcome(at(0), &[position(7, 1)]);
    let (read, of, from) = read_of(&orders(&mut outbox)).unwrap();
    assert_eq!((of, from), (run(3), 1));
    let all = ReadBatches { batches: vec![batch(3, 1, 2)], through: Sequence(2), ..ReadBatches::default() };
    outbox.handle_read(at(1), read, &all);
    let (_, of, from) = read_of(&orders(&mut outbox)).unwrap();
    assert_eq!((of, from), (run(7), 2), "from above the master's position");
}

#[test]
fn a_reconnect_sends_everything_above_the_masters_position_again() {
    let mut outbox = Outbox::new(&found(9, 0), &[found(3, 6)]);
    outbox.handle_welcome(at(0), &[]);
    let (read, ..) = read_of(&orders(&mut outbox)).unwrap();
    let all =
        ReadBatches { batches: vec![batch(3, 1, 2), batch(3, 3, 6)], through: Sequence(6), ..ReadBatches::default() };
    outbox.handle_read(at(1), read, &all);
    assert_eq!(sent(&mut outbox), [(Lane::Backlog, 1, 2), (Lane::Backlog, 3, 6)]);
    outbox.handle_disconnected();
    outbox.handle_welcome(at(2), &[position(3, 2)]);
    assert_eq!(read_of(&orders(&mut outbox)).map(|(_, of, from)| (of, from)), Some((run(3), 3)));
    // An answer to what was asked before the cut is no answer.
    outbox.handle_read(at(3), read, &all);
    assert_eq!(sent(&mut outbox), []);
}

#[test]
fn only_what_is_acknowledged_and_in_the_states_on_disk_is_trimmed() {
    let mut outbox = outbox().with_limits(NO_GRACE);
    outbox.handle_welcome(at(0), &[]);
    for n in 0..3 {
        outbox.push(at(20 * n), &result("a"));
        outbox.handle_timeout(at(20 * n + 10));
        outbox.handle_appended(at(20 * n + 11), run(9), Sequence(n + 1));
    }
    let made = outbox.made();
    orders(&mut outbox);
    outbox.handle_ack(at(100), position(9, 2));
    assert_eq!(orders(&mut outbox), [], "the states on disk do not contain it");
    outbox.handle_covered(at(0), &made);
    assert_eq!(orders(&mut outbox), [Command::Trim { run: run(9), up_to: Sequence(2) }]);
    outbox.handle_ack(at(101), position(9, 3));
    outbox.handle_covered(at(0), &made);
    assert_eq!(orders(&mut outbox), [Command::Trim { run: run(9), up_to: Sequence(3) }]);
    assert_eq!(outbox.undelivered(), 0);
}

#[test]
fn an_older_run_goes_when_the_master_has_closed_it() {
    let mut outbox = Outbox::new(&found(9, 0), &[found(3, 2), found(4, 0)]).with_limits(NO_GRACE);
    outbox.handle_covered(at(0), &outbox.made());
    assert_eq!(orders(&mut outbox), [Command::CloseRun(run(4))], "an empty one at once");
    outbox.introduce();
    outbox.handle_welcome(at(0), &[position(3, 2)]);
    outbox.handle_covered(at(0), &outbox.made());
    assert!(!orders(&mut outbox).contains(&Command::CloseRun(run(3))));
    outbox.handle_close(at(1), run(3));
    outbox.memory(at(1));
    outbox.handle_covered(at(1), &BTreeMap::new());
    assert!(orders(&mut outbox).contains(&Command::CloseRun(run(3))));
    outbox.handle_close(at(2), run(9));
    assert_eq!(outbox.run_count(), 1, "the open one stays");
}

#[test]
fn an_acknowledgement_of_what_was_never_durable_is_not_believed() {
    let mut outbox = outbox();
    outbox.handle_welcome(at(0), &[]);
    outbox.handle_ack(at(1), position(9, 1000));
    outbox.push(at(2), &result("a"));
    outbox.handle_timeout(at(12));
    outbox.handle_appended(at(13), run(9), Sequence(1));
    assert_eq!(sent(&mut outbox), [(Lane::Live, 1, 1)]);
}

#[test]
fn the_window_bounds_what_is_unacknowledged_and_reading_fills_it_again() {
    let mut outbox = outbox();
    outbox.handle_welcome(at(0), &[]);
    let batches = u64::try_from(WINDOW_BATCHES).unwrap() + 10;
    let mut all = 0;
    for n in 1..=batches {
        outbox.push(at(20 * n), &result("a"));
        outbox.handle_timeout(at(20 * n + 10));
        outbox.handle_appended(at(20 * n + 11), run(9), Sequence(n));
        all += sent(&mut outbox).len();
    }
    assert_eq!(all, WINDOW_BATCHES);
    let later = 20 * batches + 1000;
    outbox.handle_ack(at(later), position(9, 20));
    let (read, _, from) = read_of(&orders(&mut outbox)).unwrap();
    assert_eq!(from, u64::try_from(WINDOW_BATCHES).unwrap() + 1);
    let found = ReadBatches {
        batches: (from..=batches).map(|n| batch(9, n, n)).collect(),
        through: Sequence(batches),
        ..ReadBatches::default()
    };
    outbox.handle_read(at(later + 1), read, &found);
    assert_eq!(sent(&mut outbox).len(), 10);
}

#[test]
fn what_the_spool_lost_takes_its_place_in_the_window() {
    let batches = u64::try_from(WINDOW_BATCHES).unwrap();
    let mut outbox = Outbox::new(&found(9, 0), &[found(1, 2 * batches + 5)]);
    outbox.handle_welcome(at(0), &[]);
    let (read, _, _) = read_of(&orders(&mut outbox)).unwrap();
    // Every other sequence can be read, and one more behind the last room.
    let readable = (1..=batches).map(|n| batch(1, 2 * n, 2 * n)).collect();
    let through = Sequence(2 * batches + 5);
    outbox.handle_read(
        at(1),
        read,
        &ReadBatches { batches: readable, through, trimmed_below: Sequence(0), ..ReadBatches::default() },
    );
    let first = sent(&mut outbox);
    assert_eq!(first.len(), WINDOW_BATCHES);
    outbox.handle_ack(at(2), position(1, batches));
    let (read, _, from) = read_of(&orders(&mut outbox)).unwrap();
    assert_eq!(from, batches + 1, "the rest is read once more");
    outbox.handle_read(
        at(3),
        read,
        &ReadBatches { batches: Vec::new(), through, trimmed_below: Sequence(0), ..ReadBatches::default() },
    );
    assert_eq!(sent(&mut outbox), [(Lane::Backlog, batches + 1, 2 * batches + 5)]);
}

#[test]
fn what_the_spool_lost_is_sent_as_a_gap() {
    let mut outbox = Outbox::new(&found(9, 0), &[found(3, 12)]);
    outbox.handle_welcome(at(0), &[]);
    let (read, ..) = read_of(&orders(&mut outbox)).unwrap();
    // 3..=5 and 9..=12 are unreadable.
    let found =
        ReadBatches { batches: vec![batch(3, 1, 2), batch(3, 6, 8)], through: Sequence(12), ..ReadBatches::default() };
    outbox.handle_read(at(1), read, &found);
    let payloads: Vec<Bytes> = orders(&mut outbox)
        .into_iter()
        .filter_map(|order| match order {
            Command::Send { lane: Lane::Backlog, payload } => Some(payload),
            _ => None,
        })
        .collect();
    let gaps: Vec<GapRecord> = payloads
        .iter()
        .flat_map(|payload| {
            let (header, body) = decode_header(payload).unwrap();
            decode_items(&header, body).unwrap()
        })
        .filter_map(|item| match item {
            BatchItem::Gap(gap) => Some(gap),
            _ => None,
        })
        .collect();
    assert_eq!(payloads.len(), 4);
    let seen: Vec<_> = gaps.iter().map(|gap| (gap.first.0, gap.last.0, gap.reason.as_str())).collect();
    assert_eq!(seen, [(3, 5, "spool-damaged"), (9, 12, "spool-damaged")]);
}

#[test]
fn what_was_acknowledged_and_trimmed_is_named_to_a_master_that_does_not_have_it() {
    let mut outbox = Outbox::new(&found(9, 0), &[found(3, 12)]);
    outbox.handle_welcome(at(0), &[position(3, 2)]);
    let (read, ..) = read_of(&orders(&mut outbox)).unwrap();
    let found = ReadBatches {
        batches: vec![batch(3, 9, 12)],
        through: Sequence(12),
        trimmed_below: Sequence(9),
        ..ReadBatches::default()
    };
    outbox.handle_read(at(1), read, &found);
    let sent: Vec<Bytes> = orders(&mut outbox)
        .into_iter()
        .filter_map(|order| match order {
            Command::Send { lane: Lane::Backlog, payload } => Some(payload),
            _ => None,
        })
        .collect();
    let (header, body) = decode_header(&sent[0]).unwrap();
    let items = decode_items(&header, body).unwrap();
    assert!(
        matches!(&items[..], [BatchItem::Gap(gap)] if gap.first.0 == 3 && gap.last.0 == 8 && gap.reason == reason::LOST_BY_RESTORE)
    );
    assert_eq!(decode_header(&sent[1]).unwrap().0.first, Sequence(9));
}

#[test]
fn a_volume_that_cannot_be_written_costs_no_result_until_memory_is_full() {
    let mut outbox = outbox();
    let mut noise = 7_u64;
    let mut text = || {
        (0..4000)
            .map(|_| {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                char::from(b'!' + u8::try_from((noise >> 33) % 90).unwrap())
            })
            .collect::<String>()
    };
    outbox.push(at(0), &result("first"));
    outbox.handle_timeout(at(10));
    assert_eq!(appended(&mut outbox).len(), 1);
    outbox.handle_append_failed(at(10));
    assert!(outbox.memory_only());
    let mut made = 1;
    while outbox.gathering.waiting_bytes() < WAITING_BYTES_MAX / 2 {
        outbox.push(at(20), &result(&text()));
        made += 1;
    }
    assert_eq!(outbox.gathering.gaps_waiting(), 0, "half full: nothing is given up");
    for _ in 0..made * 2 {
        outbox.push(at(20), &result(&text()));
        made += 1;
    }
    assert!(outbox.gathering.waiting_bytes() <= WAITING_BYTES_MAX);
    assert_eq!(outbox.poll_timeout(), Some(at(10).plus(RETRY_AFTER)));
    let mut now = at(10).plus(RETRY_AFTER);
    outbox.handle_timeout(now);
    let (mut next, mut gaps, mut kept) = (1, 0, 0);
    loop {
        let batches = appended(&mut outbox);
        let Some(last) = batches.last().map(|batch| batch.last) else { break };
        for spooled in &batches {
            assert_eq!(spooled.first.0, next, "dense");
            next = spooled.last.0 + 1;
            let (header, body) = decode_header(&spooled.bytes).unwrap();
            for item in decode_items(&header, body).unwrap() {
                match item {
                    BatchItem::Gap(gap) => {
                        assert_eq!(gap.reason, "spool-full");
                        gaps += 1;
                    }
                    _ => kept += 1,
                }
            }
        }
        now = now.plus(Duration::from_millis(20));
        outbox.handle_appended(now, run(9), last);
        outbox.handle_timeout(now.plus(LINGER));
    }
    assert!(!outbox.memory_only() && outbox.is_durable());
    assert_eq!(next, made + 1);
    assert_eq!(gaps, 1, "one record for all that was given up");
    assert!(kept > made / 4, "{kept} of {made}");
}

/// An adopted run of 12 results whose first eight are told to be given up while a reading of all is on its way.
fn given_up_meanwhile(position_before: u64) -> (Outbox, ReadId) {
    let limits = Limits { bytes: 600, ..Limits::DEFAULT };
    let mut outbox = Outbox::new(&found(9, 0), &[found(3, 12)]).with_limits(limits);
    outbox.handle_covered(at(0), &BTreeMap::from([(run(3), Sequence(12))]));
    outbox.handle_welcome(at(0), &[position(3, position_before)]);
    let (read, ..) = read_of(&orders(&mut outbox)).unwrap();
    outbox.handle_room(at(1), Room { held: 800, free: 1 << 40, size: 1 << 40 });
    let piece = |last| Piece { last: Sequence(last), bytes: 400, begun: None };
    outbox.handle_measured(at(1), &[Extent { run: run(3), pieces: vec![piece(8), piece(12)] }]);
    let first = Sequence(position_before + 1);
    let order = Command::GiveUp { run: run(3), first, up_to: Sequence(8), reason: reason::SPOOL_FULL };
    assert!(orders(&mut outbox).contains(&order));
    (outbox, read)
}

/// What the volume says once the first eight are gone.
fn left(position_before: u64) -> ReadBatches {
    let gap = GapRecord {
        first: Sequence(position_before + 1),
        last: Sequence(8),
        reason: reason::SPOOL_FULL.to_owned(),
        from: None,
        to: None,
    };
    ReadBatches { batches: vec![batch(3, 9, 12)], through: Sequence(12), trimmed_below: Sequence(9), lost: vec![gap] }
}

#[test]
fn what_was_deleted_on_its_way_and_arrived_is_not_given_up() {
    let (mut outbox, read) = given_up_meanwhile(0);
    let all = ReadBatches { batches: vec![batch(3, 1, 6), batch(3, 7, 12)], through: Sequence(12), ..left(0) };
    outbox.handle_read(at(2), read, &ReadBatches { trimmed_below: Sequence(0), lost: Vec::new(), ..all });
    assert_eq!(sent(&mut outbox), [(Lane::Backlog, 1, 6), (Lane::Backlog, 7, 12)]);
    outbox.handle_given_up(at(3), run(3), Sequence(8), 8);
    assert_eq!(outbox.given_up(), 0, "it may arrive");
    outbox.handle_ack(at(4), position(3, 6));
    assert_eq!(outbox.given_up(), 0);
    // The link breaks before the second batch is there: seven and eight are gone, and named on the next.
    outbox.handle_disconnected();
    assert_eq!(outbox.given_up(), 2);
    outbox.handle_welcome(at(5), &[position(3, 6)]);
    let (read, ..) = read_of(&orders(&mut outbox)).unwrap();
    outbox.handle_read(at(6), read, &left(0));
    assert_eq!(sent(&mut outbox), [(Lane::Backlog, 7, 8), (Lane::Backlog, 9, 12)]);
    outbox.handle_ack(at(7), position(3, 12));
    outbox.handle_close(at(8), run(3));
    assert_eq!(outbox.given_up(), 2, "what the gap names");
}

#[test]
fn what_arrived_before_it_was_deleted_is_not_given_up() {
    let (mut outbox, _) = given_up_meanwhile(0);
    outbox.handle_ack(at(2), position(3, 12));
    outbox.handle_given_up(at(3), run(3), Sequence(8), 8);
    assert_eq!(outbox.given_up(), 0);
    // Or the master closes the run, or tells on the next connection that it has it.
    let (mut outbox, _) = given_up_meanwhile(0);
    outbox.handle_given_up(at(2), run(3), Sequence(8), 8);
    assert_eq!(outbox.given_up(), 8, "nothing of it was sent");
    outbox.handle_close(at(3), run(3));
    assert_eq!(outbox.given_up(), 0);
    let (mut outbox, _) = given_up_meanwhile(0);
    outbox.handle_disconnected();
    outbox.handle_given_up(at(2), run(3), Sequence(8), 8);
    outbox.handle_welcome(at(3), &[position(3, 5)]);
    assert_eq!(outbox.given_up(), 3);
}

#[test]
fn what_is_given_up_is_what_its_gap_names_however_often_it_is_told() {
    let (mut outbox, read) = given_up_meanwhile(2);
    outbox.handle_given_up(at(2), run(3), Sequence(8), 6);
    assert_eq!(outbox.given_up(), 6);
    outbox.handle_read(at(3), read, &left(2));
    assert_eq!(sent(&mut outbox), [(Lane::Backlog, 3, 8), (Lane::Backlog, 9, 12)]);
    assert_eq!(outbox.given_up(), 6);
    outbox.handle_disconnected();
    outbox.handle_welcome(at(4), &[position(3, 2)]);
    let (read, ..) = read_of(&orders(&mut outbox)).unwrap();
    outbox.handle_read(at(5), read, &left(2));
    outbox.handle_ack(at(6), position(3, 12));
    assert_eq!(outbox.given_up(), 6);
}
