//! What is given up, on volumes made by hand and on thousands drawn by chance: never more than must go, never the newest piece.

use proptest::prelude::*;
use shared::name::RunCounter;

use super::*;
use crate::command::FoundRun;

const KIB: u64 = 1024;

fn at(seconds: u64) -> Monotonic {
    Monotonic(seconds * 1_000_000_000)
}

fn run(n: u8) -> RunId {
    RunId([n; 16])
}

fn found(n: u8, last: u64) -> FoundRun {
    FoundRun { run: run(n), counter: RunCounter(u64::from(n)), first: Sequence(1), last: Sequence(last) }
}

/// Pieces of ten results and 100 KiB each, begun a minute apart.
fn pieces(first: u64, count: u64) -> Vec<Piece> {
    let piece = |n: u64| Piece {
        last: Sequence((n - first + 1) * 10),
        bytes: 100 * KIB,
        begun: Some(Timestamp::from_millis(i64::try_from(n * 60_000).unwrap())),
    };
    (first..first + count).map(piece).collect()
}

fn outbox(bytes: u64, age: u64) -> Outbox {
    let limits = Limits { bytes, age: Duration::from_secs(age), ..Limits::DEFAULT };
    let mut outbox = Outbox::new(&found(9, 30), &[found(3, 40)]).with_limits(limits);
    let made = outbox.made();
    outbox.handle_covered(at(0), &made);
    while outbox.poll_command().is_some() {}
    outbox
}

/// Runs 3 and 9 (open) as the volume has them: seven pieces.
fn volume() -> Vec<Extent> {
    vec![Extent { run: run(3), pieces: pieces(0, 4) }, Extent { run: run(9), pieces: pieces(4, 3) }]
}

fn orders(outbox: &mut Outbox) -> Vec<Command> {
    std::iter::from_fn(|| outbox.poll_command()).collect()
}

fn given_up(outbox: &mut Outbox) -> Vec<(u8, u64, u64, &'static str)> {
    let orders = orders(outbox).into_iter().filter_map(|order| match order {
        Command::GiveUp { run, first, up_to, reason } => Some((run.0[0], first.0, up_to.0, reason)),
        _ => None,
    });
    orders.collect()
}

fn room(held: u64, free: u64, size: u64) -> Room {
    Room { held: held * KIB, free: free * KIB, size: size * KIB }
}

#[test]
fn the_oldest_go_and_no_more_than_must() {
    let mut outbox = outbox(800 * KIB, 86_400);
    outbox.handle_room(at(1), room(600, 1 << 30, 1 << 30));
    assert_eq!(orders(&mut outbox), [], "six eighths are not too much");
    outbox.handle_room(at(2), room(700, 1 << 30, 1 << 30));
    assert_eq!(orders(&mut outbox), [Command::Measure]);
    outbox.handle_room(at(3), room(700, 1 << 30, 1 << 30));
    assert_eq!(orders(&mut outbox), [], "asked once");
    outbox.handle_measured(at(3), &volume());
    assert_eq!(given_up(&mut outbox), [(3, 1, 10, "spool-full")]);
    outbox.handle_room(at(4), room(600, 1 << 30, 1 << 30));
    outbox.handle_given_up(at(4), run(3), Sequence(10), 10);
    assert_eq!((orders(&mut outbox), outbox.given_up()), (vec![], 10));
}

#[test]
fn what_the_master_has_is_no_loss() {
    let mut outbox = outbox(160 * KIB, 86_400);
    let position = shared::message::RunPosition { run: run(3), position: Sequence(14) };
    outbox.handle_welcome(at(0), &[position]);
    outbox.handle_open_failed(at(0));
    orders(&mut outbox);
    outbox.handle_room(at(1), room(700, 1 << 30, 1 << 30));
    orders(&mut outbox);
    outbox.handle_measured(at(1), &volume());
    // The open run's newest piece stays although even that is too much.
    assert_eq!(given_up(&mut outbox), [(3, 15, 40, "spool-full"), (9, 1, 20, "spool-full")]);
}

#[test]
fn what_the_states_on_disk_do_not_contain_stays() {
    let limits = Limits { bytes: 100 * KIB, ..Limits::DEFAULT };
    let mut outbox = Outbox::new(&found(9, 30), &[found(3, 40)]).with_limits(limits);
    outbox.handle_covered(at(0), &BTreeMap::from([(run(3), Sequence(25))]));
    orders(&mut outbox);
    outbox.handle_room(at(1), room(700, 1 << 30, 1 << 30));
    orders(&mut outbox);
    outbox.handle_measured(at(1), &volume());
    assert_eq!(given_up(&mut outbox), [(3, 1, 20, "spool-full")]);
}

#[test]
fn the_old_go_by_the_masters_time_only() {
    let mut outbox = outbox(1 << 30, 120);
    let time = |seconds: i64| Timestamp::from_millis(seconds * 1000);
    outbox.handle_timeout(at(1));
    assert_eq!(orders(&mut outbox), [], "nobody knows what time it is");
    // The fourth piece ended when the fifth began, at 240 s.
    outbox.handle_time(at(2), time(361));
    assert_eq!(orders(&mut outbox), [Command::Measure]);
    outbox.handle_measured(at(2), &volume());
    assert_eq!(given_up(&mut outbox), [(3, 1, 40, "spool-age")]);
    outbox.handle_given_up(at(2), run(3), Sequence(40), 40);
    assert_eq!(outbox.poll_timeout(), Some(at(17)));
    outbox.handle_timeout(at(17));
    assert_eq!(orders(&mut outbox), [Command::Measure]);
}

#[test]
fn age_and_bytes_are_told_apart() {
    let mut outbox = outbox(600 * KIB, 120);
    outbox.handle_time(at(2), Timestamp::from_millis(241_000));
    orders(&mut outbox);
    outbox.handle_measured(at(2), &volume());
    assert_eq!(given_up(&mut outbox), [(3, 1, 20, "spool-age"), (3, 21, 30, "spool-full")]);
}

#[test]
fn below_the_floor_of_free_space_the_spool_does_not_grow() {
    let mut outbox = outbox(1 << 30, 86_400);
    outbox.handle_room(at(1), room(700, 52, 1024));
    assert_eq!(orders(&mut outbox), [], "a twentieth of a small volume");
    outbox.handle_room(at(2), room(700, 51, 1024));
    assert_eq!(orders(&mut outbox), [], "it does not shrink");
    outbox.handle_room(at(3), room(710, 0, 1024));
    assert_eq!(orders(&mut outbox), [Command::Measure]);
    let mut grown = volume();
    grown[1].pieces[2].bytes += 10 * KIB;
    outbox.handle_measured(at(3), &grown);
    assert_eq!(given_up(&mut outbox), [(3, 1, 10, "spool-full")]);
    outbox.handle_room(at(4), room(610, 103, 1024));
    outbox.handle_given_up(at(4), run(3), Sequence(10), 10);
    outbox.handle_room(at(5), room(800, 90, 1024));
    assert_eq!(orders(&mut outbox), [], "there was room again");
}

#[test]
fn what_cannot_be_given_up_now_is_not_asked_for_without_pause() {
    let mut outbox = outbox(100 * KIB, 86_400);
    outbox.handle_room(at(1), room(700, 1 << 30, 1 << 30));
    orders(&mut outbox);
    outbox.handle_measured(at(1), &[]);
    assert_eq!(orders(&mut outbox), []);
    assert_eq!(outbox.poll_timeout(), Some(at(2)));
    outbox.handle_timeout(at(2));
    assert_eq!(orders(&mut outbox), [Command::Measure]);
    outbox.handle_measured(at(2), &volume());
    let ordered = given_up(&mut outbox).len();
    assert!(ordered > 0);
    for _ in 0..ordered {
        outbox.handle_give_up_failed(at(3));
    }
    assert_eq!(outbox.poll_timeout(), Some(at(4)));
}

proptest! {
    #[test]
    fn what_is_left_fits_or_nothing_more_may_go(
        sizes in prop::collection::vec(prop::collection::vec(1..200_u64, 0..6), 1..8),
        bytes in 8..600_u64,
        covered in 0..80_u64,
    ) {
        let extents: Vec<Extent> = sizes
            .iter()
            .zip(1..)
            .map(|(sizes, n)| Extent {
                run: run(n),
                pieces: sizes
                    .iter()
                    .zip(1..)
                    .map(|(bytes, at)| Piece { last: Sequence(at * 10), bytes: *bytes, begun: None })
                    .collect(),
            })
            .collect();
        let all: Vec<FoundRun> = extents
            .iter()
            .map(|extent| found(extent.run.0[0], extent.pieces.last().map_or(0, |piece| piece.last.0)))
            .collect();
        let (open, earlier) = all.split_last().unwrap();
        let mut outbox = Outbox::new(open, earlier).with_limits(Limits { bytes: bytes * 8 / 6 + 8, ..Limits::DEFAULT });
        outbox.handle_covered(at(0), &all.iter().map(|found| (found.run, Sequence(covered))).collect());
        outbox.bounds.room.held = u64::MAX;
        orders(&mut outbox);
        let target = outbox.bounds.target();
        outbox.handle_measured(at(1), &extents);
        let gone: BTreeMap<u8, u64> = given_up(&mut outbox).into_iter().map(|(n, _, up_to, _)| (n, up_to)).collect();
        let (mut left, mut smallest_gone, mut could) = (0, u64::MAX, false);
        for extent in &extents {
            let up_to = gone.get(&extent.run.0[0]).copied().unwrap_or(0);
            for (number, piece) in extent.pieces.iter().enumerate() {
                let newest = extent.run == open.run && number + 1 == extent.pieces.len();
                if piece.last.0 <= up_to {
                    prop_assert!(!newest && piece.last.0 <= covered);
                    smallest_gone = smallest_gone.min(piece.bytes);
                } else {
                    left += piece.bytes;
                    could |= !newest && piece.last.0 <= covered;
                }
            }
        }
        prop_assert!(left <= target || !could, "{left} of {target} left, and more could go");
        // The newest of what went was needed.
        prop_assert!(gone.is_empty() || left + 200 > target);
    }
}
