//! The pool on inputs made by hand and by chance: never beyond its size, nobody left out, nothing lost on the way back.

use proptest::prelude::*;

use super::*;
use shared::name::SlotNumber;

const SMALL: Sizes =
    Sizes { pool: 2000, live_first: 10, live_window: 400, backlog_window: 300, turn: 100, connections: 20 };

fn slot(number: u32) -> Slot {
    Slot { region: "eu".parse().unwrap(), number: SlotNumber::new(number).unwrap() }
}

fn id(number: u64) -> ConnectionId {
    ConnectionId(number)
}

fn seconds(seconds: u64) -> Monotonic {
    Monotonic(seconds * 1_000_000_000)
}

fn grown(pool: &mut Pool) -> Vec<(u64, Lane, u64)> {
    std::iter::from_fn(|| pool.poll_grown()).map(|(id, lane, up_to)| (id.0, lane, up_to)).collect()
}

fn receive(pool: &mut Pool, number: u64, lane: Lane, bytes: u64) -> Charge {
    pool.receive(id(number), lane, bytes).unwrap()
}

#[test]
fn a_connection_begins_with_live_credit_and_without_backlog_credit() {
    let mut pool = Pool::new(SMALL);
    assert_eq!(pool.open(id(1), slot(1), true), Some(10));
    assert_eq!(grown(&mut pool), [], "it is told with the welcome");
    let charge = receive(&mut pool, 1, Lane::Live, 10);
    assert_eq!(pool.receive(id(1), Lane::Live, 1).unwrap_err(), Overdrawn { lane: Lane::Live, bytes: 1, credit: 0 });
    assert!(pool.receive(id(1), Lane::Backlog, 1).is_err());
    assert!(pool.receive(id(2), Lane::Live, 1).is_err(), "nobody knows it");
    pool.free(id(1), charge);
    assert_eq!(grown(&mut pool), [(1, Lane::Live, 20)], "what was committed comes back");
    assert_eq!(pool.figures().live.given + pool.figures().live.received, 10);
}

#[test]
fn little_use_makes_no_words() {
    let mut pool = Pool::new(SMALL);
    pool.open(id(1), slot(1), true);
    for _ in 0..2 {
        let charge = receive(&mut pool, 1, Lane::Live, 2);
        pool.free(id(1), charge);
        assert_eq!(grown(&mut pool), [], "more than half is left");
    }
    let charge = receive(&mut pool, 1, Lane::Live, 2);
    pool.free(id(1), charge);
    assert_eq!(
        grown(&mut pool),
        [(1, Lane::Live, 14)],
        "as far as its bytes were committed when it came to less than half"
    );
}

#[test]
fn who_runs_dry_gets_more_ahead_and_gives_it_back() {
    let mut pool = Pool::new(SMALL);
    pool.open(id(1), slot(1), true);
    pool.want(id(1), Lane::Live, 15);
    assert_eq!(grown(&mut pool), [(1, Lane::Live, 20)], "twice as far ahead");
    pool.want(id(1), Lane::Live, 90);
    assert_eq!(grown(&mut pool), [(1, Lane::Live, 90)]);
    pool.want(id(1), Lane::Live, 50);
    assert_eq!(grown(&mut pool), [], "said again");
    pool.give_up(id(1), Lane::Live, 80).unwrap();
    assert_eq!(pool.figures().live.given, 10);
    assert!(pool.give_up(id(1), Lane::Live, 11).is_err(), "more than it holds");
    let charge = receive(&mut pool, 1, Lane::Live, 10);
    pool.free(id(1), charge);
    assert_eq!(grown(&mut pool), [(1, Lane::Live, 100)], "as at the beginning");
}

#[test]
fn backlog_goes_round_the_slots_and_no_slot_has_two_turns_in_a_round() {
    let mut pool = Pool::new(Sizes { pool: 600, ..SMALL });
    for number in 1..=4 {
        pool.open(id(u64::from(number)), slot(number), true);
    }
    pool.open(id(5), slot(1), true);
    for number in [1, 2, 3, 4, 5] {
        pool.want(id(number), Lane::Backlog, 250);
    }
    // The first was alone and had all it asked for; what is left is less than a turn.
    assert_eq!(pool.figures().backlog.given, 250);
    let mut given = BTreeMap::from([(1, 0), (2, 0), (3, 0), (4, 0), (5, 0)]);
    let mut turns = Vec::new();
    for _ in 0..20 {
        for (number, lane, up_to) in grown(&mut pool) {
            let bytes = up_to - given.insert(number, up_to).unwrap();
            turns.push(number);
            let charge = receive(&mut pool, number, lane, bytes);
            pool.free(id(number), charge);
        }
    }
    assert_eq!(given.values().collect::<Vec<_>>(), [&250; 5], "everybody has had what was asked for");
    let first = |slot: &[u64]| turns.iter().position(|number| slot.contains(number)).unwrap();
    assert!([first(&[2]), first(&[3]), first(&[4])].iter().all(|turn| *turn < 6), "{turns:?}");
}

#[test]
fn a_turn_waits_for_its_bytes_and_nobody_overtakes() {
    let mut pool = Pool::new(Sizes { pool: 300, ..SMALL });
    for number in 1..=3 {
        pool.open(id(u64::from(number)), slot(number), true);
    }
    pool.want(id(1), Lane::Backlog, 90);
    pool.want(id(2), Lane::Backlog, 100);
    pool.want(id(3), Lane::Backlog, 10);
    assert_eq!(grown(&mut pool), [(1, Lane::Backlog, 90)], "60 are left, and the second needs 100");
    assert_eq!(pool.figures().backlog.waiting, 2);
    pool.close(id(1));
    assert_eq!(grown(&mut pool), [(2, Lane::Backlog, 100), (3, Lane::Backlog, 10)]);
}

#[test]
fn live_keeps_a_beginning_for_those_to_come() {
    let mut pool = Pool::new(Sizes { pool: 800, ..SMALL });
    pool.open(id(1), slot(1), true);
    pool.want(id(1), Lane::Live, 400);
    // 400 for live, of which 19 connections may want 10 each.
    assert!(pool.figures().live.given <= 210, "{:?}", pool.figures());
    for number in 2..=20 {
        assert_eq!(pool.open(id(u64::from(number)), slot(number), true), Some(10));
    }
    assert!(pool.figures().live.given <= 400);
}

#[test]
fn what_a_lost_connection_sent_counts_until_it_is_committed() {
    let mut pool = Pool::new(SMALL);
    pool.open(id(1), slot(1), true);
    pool.want(id(1), Lane::Backlog, 100);
    let charge = receive(&mut pool, 1, Lane::Backlog, 40);
    pool.close(id(1));
    let left = pool.figures().backlog;
    assert_eq!((left.given, left.received), (0, 40));
    pool.free(id(1), charge);
    assert_eq!(pool.figures().backlog.received, 0);
}

#[test]
fn credit_that_nobody_uses_is_noticed_when_others_wait() {
    let mut pool = Pool::new(Sizes { pool: 600, ..SMALL });
    for number in 1..=3 {
        pool.open(id(u64::from(number)), slot(number), true);
    }
    pool.want(id(1), Lane::Backlog, u64::MAX);
    assert_eq!(pool.figures().backlog.given, 300, "its window");
    assert_eq!(pool.handle_time(seconds(500)), [], "nobody waits");
    pool.want(id(2), Lane::Backlog, 50);
    assert_eq!(pool.handle_time(seconds(501)), [id(1)]);
    pool.close(id(1));
    assert_eq!(grown(&mut pool), [(2, Lane::Backlog, 50)]);
    assert_eq!(pool.handle_time(seconds(502)), []);
}

#[test]
fn one_that_knows_no_credit_takes_from_what_others_get() {
    let mut pool = Pool::new(Sizes { pool: 600, ..SMALL });
    assert_eq!(pool.open(id(1), slot(1), false), None);
    pool.open(id(2), slot(2), true);
    let charge = receive(&mut pool, 1, Lane::Backlog, 250);
    pool.want(id(2), Lane::Backlog, 100);
    assert_eq!(grown(&mut pool), [], "50 are left");
    pool.free(id(1), charge);
    assert_eq!(grown(&mut pool), [(2, Lane::Backlog, 100)]);
}

/// What a peer or the disk does next.
#[derive(Debug, Clone)]
enum Act {
    Open(u64),
    Close(u64),
    Want(u64, bool, u64),
    Send(u64, bool, u64),
    GiveUp(u64, bool, u64),
    Free(usize),
}

fn act() -> impl Strategy<Value = Act> {
    let who = 1..8_u64;
    prop_oneof![
        1 => who.clone().prop_map(Act::Open),
        1 => who.clone().prop_map(Act::Close),
        4 => (who.clone(), any::<bool>(), 0..600_u64).prop_map(|(who, live, more)| Act::Want(who, live, more)),
        6 => (who.clone(), any::<bool>(), 1..150_u64).prop_map(|(who, live, bytes)| Act::Send(who, live, bytes)),
        1 => (who, any::<bool>(), 1..150_u64).prop_map(|(who, live, bytes)| Act::GiveUp(who, live, bytes)),
        5 => (0..64_usize).prop_map(Act::Free),
    ]
}

proptest! {
    /// Whatever peers do, honest or not, in whatever order: what is in memory and what may still come never exceed the half, and when
    /// everything has left memory nothing of it is missing.
    #[test]
    fn the_bound_holds_at_every_step_and_nothing_is_lost(acts in prop::collection::vec(act(), 1..400)) {
        let mut pool = Pool::new(SMALL);
        let mut memory: Vec<(u64, Charge)> = Vec::new();
        let mut told: BTreeMap<(u64, Lane), u64> = BTreeMap::new();
        let mut spent: BTreeMap<(u64, Lane), u64> = BTreeMap::new();
        let lane = |live| if live { Lane::Live } else { Lane::Backlog };
        let mut next = 0;
        // Connections are never named twice.
        let mut names: BTreeMap<u64, u64> = BTreeMap::new();
        for act in acts {
            match act {
                Act::Open(who) if !names.contains_key(&who) => {
                    next += 1;
                    names.insert(who, next);
                    let first = pool.open(id(next), slot(u32::try_from(who).unwrap() / 2 + 1), true).unwrap();
                    told.insert((next, Lane::Live), first);
                }
                Act::Close(who) => {
                    if let Some(name) = names.remove(&who) {
                        pool.close(id(name));
                        told.retain(|(other, _), _| *other != name);
                    }
                }
                Act::Want(who, live, more) => if let Some(name) = names.get(&who) {
                    let sent = spent.get(&(*name, lane(live))).copied().unwrap_or(0);
                    pool.want(id(*name), lane(live), sent + more);
                },
                Act::Send(who, live, bytes) => if let Some(name) = names.get(&who) {
                    let (place, up_to) = ((*name, lane(live)), told.get(&(*name, lane(live))).copied().unwrap_or(0));
                    let sent = spent.entry(place).or_default();
                    match pool.receive(id(*name), lane(live), bytes) {
                        Ok(charge) => {
                            *sent += bytes;
                            memory.push((*name, charge));
                        }
                        Err(_) => prop_assert!(*sent + bytes > up_to, "refused within the credit that was told"),
                    }
                },
                Act::GiveUp(who, live, bytes) => if let Some(name) = names.get(&who) {
                    let (place, up_to) = ((*name, lane(live)), told.get(&(*name, lane(live))).copied().unwrap_or(0));
                    let sent = spent.entry(place).or_default();
                    if *sent + bytes <= up_to {
                        prop_assert!(pool.give_up(id(*name), lane(live), bytes).is_ok());
                        *sent += bytes;
                    }
                },
                Act::Free(at) if !memory.is_empty() => {
                    let (name, charge) = memory.swap_remove(at % memory.len());
                    pool.free(id(name), charge);
                }
                Act::Open(_) | Act::Free(_) => {}
            }
            while let Some((name, lane, up_to)) = pool.poll_grown() {
                prop_assert!(told.insert((name.0, lane), up_to).is_none_or(|before| before < up_to));
            }
            for (lane, figures) in [(Lane::Live, pool.figures().live), (Lane::Backlog, pool.figures().backlog)] {
                prop_assert!(figures.given + figures.received <= figures.size);
                let in_memory: u64 = memory.iter().filter(|(_, charge)| charge.lane == lane).map(|(_, c)| c.bytes).sum();
                prop_assert_eq!(figures.received, in_memory);
                let to_come: u64 = told
                    .iter()
                    .filter(|((_, of), _)| *of == lane)
                    .map(|(place, up_to)| up_to - spent.get(place).copied().unwrap_or(0))
                    .sum();
                prop_assert_eq!(figures.given, to_come, "what satellites may send is what the pool has given");
            }
        }
        for (name, charge) in memory {
            pool.free(id(name), charge);
        }
        for name in names.into_values() {
            pool.close(id(name));
        }
        let figures = pool.figures();
        prop_assert_eq!((figures.live.given, figures.live.received, figures.live.waiting), (0, 0, 0));
        prop_assert_eq!((figures.backlog.given, figures.backlog.received, figures.backlog.waiting), (0, 0, 0));
    }

    /// Whoever wants, gets, as long as the others use what they have: no turn is lost between sends, ends and returns.
    #[test]
    fn everybody_who_wants_is_served(wants in prop::collection::vec((1..40_u64, any::<bool>(), 1..2000_u64), 1..60)) {
        let mut pool = Pool::new(SMALL);
        for number in 1..40 {
            pool.open(id(number), slot(u32::try_from(number).unwrap()), true);
        }
        let mut missing: BTreeMap<(u64, Lane), u64> = BTreeMap::new();
        for (who, live, up_to) in wants {
            let lane = if live { Lane::Live } else { Lane::Backlog };
            pool.want(id(who), lane, up_to);
            let most = missing.entry((who, lane)).or_default();
            *most = up_to.max(*most);
        }
        let mut sent: BTreeMap<(u64, Lane), u64> = BTreeMap::new();
        for number in 1..40 {
            sent.insert((number, Lane::Live), 0);
        }
        // Everybody sends all it may, and it is committed.
        let mut told: BTreeMap<(u64, Lane), u64> = (1..40).map(|number| ((number, Lane::Live), 10)).collect();
        for _ in 0..2000 {
            for (number, lane, up_to) in grown(&mut pool) {
                told.insert((number, lane), up_to);
            }
            let mut moved = false;
            for ((number, lane), up_to) in &told {
                let sent = sent.entry((*number, *lane)).or_default();
                let wanted = missing.get(&(*number, *lane)).copied().unwrap_or(0);
                let bytes = wanted.min(*up_to).saturating_sub(*sent);
                if bytes > 0 {
                    moved = true;
                    *sent += bytes;
                    let charge = receive(&mut pool, *number, *lane, bytes);
                    pool.free(id(*number), charge);
                }
            }
            if !moved {
                break;
            }
        }
        for (place, wanted) in missing {
            prop_assert_eq!(sent.get(&place).copied().unwrap_or(0), wanted, "{:?}", place);
        }
    }
}
