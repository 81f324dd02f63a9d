//! The brain on inputs made by hand, step by step. Time is a number.

mod clocks;
mod commands;
mod daemons;
mod faults;
mod states;
mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use shared::assignment::{AssignedCheck, Carried, Policy};
use shared::check::{Check, State, TcpCheck};
use shared::delivery::Key;
use shared::message::{AssignmentBegin, ClockReply, ToMaster, ToSatellite};
use shared::name::{CheckId, Generation, Grant, RunCounter, Sequence, Timeline};
use shared::state::{CheckState, Confirmation, StateType};
use shared::time::{Monotonic, Timestamp};

use super::HEARTBEAT_EVERY;
use crate::command::{Adopted, Command};
use crate::outbox::gathering::LINGER;
use crate::scheduler::roster::IN_FLIGHT_MAX;
use world::{Disk, START, TIMELINE, World, assignment, check, results, welcome};

fn minutes(n: u64) -> Duration {
    Duration::from_secs(60 * n)
}

#[test]
fn every_check_runs_once_an_interval_and_in_order_of_its_place() {
    let checks: Vec<AssignedCheck> = (1..=50).map(check).collect();
    let mut world = World::assigned(&checks);
    world.run_for(minutes(1), |_| State::Ok);
    let first: BTreeSet<CheckId> = world.started.iter().map(|(_, id)| *id).collect();
    assert_eq!(first.len(), 50, "each within the first 30 s");
    world.started.clear();
    world.run_for(minutes(10), |_| State::Ok);
    assert_eq!(world.started.len(), 500);
    for round in world.started.windows(50) {
        assert_eq!(round.iter().map(|(_, id)| id).collect::<BTreeSet<_>>().len(), 50);
    }
    assert!(world.started.is_sorted_by_key(|(at, _)| *at));
}

#[test]
fn soft_problems_are_asked_again_at_the_retry_interval() {
    let mut world = World::assigned(&[check(1)]);
    world.run_for(minutes(2), |_| State::Ok);
    world.started.clear();
    world.run_for(minutes(4), |_| State::Critical);
    let gaps: Vec<u64> = world.started.windows(2).map(|two| two[1].0.since(two[0].0).as_secs()).collect();
    assert_eq!(&gaps[..2], [15, 15], "attempts 1, 2, 3");
    assert!((30..=60).contains(&gaps[2]), "the way back to the check's own place: {gaps:?}");
    assert_eq!(world.state(1).state.state_type, StateType::Hard);
}

#[test]
fn a_carried_state_goes_on_at_its_attempt() {
    let confirmation = Confirmation { max_attempts: 3 };
    let (soft, _) = CheckState::pending(3).apply(State::Critical, confirmation, Timestamp::from_millis(START));
    let key = Key { grant: Grant(3), counter: RunCounter(9), sequence: Sequence(40) };
    let carried = AssignedCheck { carried: Some(Carried { state: soft, key }), ..check(1) };
    let mut world = World::assigned(&[carried]);
    assert!(world.probes.is_empty());
    world.run_for(Duration::from_secs(16), |_| State::Critical);
    let after = world.state(1);
    assert_eq!((after.state.attempt, after.state.state_type), (2, StateType::Soft));
    assert!(after.key > key, "a newer grant beats every counter");
}

#[test]
fn the_greater_key_decides_where_to_go_on_and_the_carried_one_when_they_are_equal() {
    let state = |state| CheckState { state, ..CheckState::pending(3) };
    let key = |sequence| Key { grant: Grant(5), counter: RunCounter(1), sequence: Sequence(sequence) };
    for (carried, expected) in [(4, State::Ok), (5, State::Critical), (6, State::Critical)] {
        let mut disk = Disk::default();
        disk.states.states.insert(CheckId(1), Carried { state: state(State::Ok), key: key(5) });
        let mut world = World::on(disk, World::new().now, false);
        let carried = Some(Carried { state: state(State::Critical), key: key(carried) });
        let checks = [AssignedCheck { carried, ..check(1) }];
        world.brain.handle_assignment(world.now, TIMELINE, CheckId(0), assignment(1, &checks));
        assert_eq!(world.state(1).state.state, expected);
    }
}

#[test]
fn a_state_of_another_timeline_yields_to_any_carried_one() {
    let mut disk = Disk::default();
    let old = Carried {
        state: CheckState { state: State::Ok, ..CheckState::pending(3) },
        key: Key { grant: Grant(900), counter: RunCounter(9), sequence: Sequence(9) },
    };
    disk.states.states.extend([(CheckId(1), old), (CheckId(2), old)]);
    let mut world = World::on(disk, World::new().now, false);
    let new = Carried { key: Key::default(), ..old };
    let checks = [AssignedCheck { carried: Some(new), ..check(1) }, check(2)];
    world.brain.handle_assignment(world.now, Timeline(78), CheckId(2), assignment(1, &checks));
    assert_eq!(world.state(1).key, Key::default());
    assert!(!world.brain.roster.states().contains_key(&CheckId(2)), "a new id of the new timeline");
}

#[test]
fn a_stepped_clock_neither_repeats_nor_skips_a_run() {
    for step in [-3_600_000_i64, 3_600_000] {
        let mut world = World::assigned(&[check(1), check(2)]);
        world.connect(true, &[]);
        world.run_for(minutes(5), |_| State::Ok);
        world.started.clear();
        let master = Timestamp::from_millis(world.now.wall.as_millis() + step);
        world.brain.handle_clock(world.now, master);
        world.run_for(minutes(60 * 12), |_| State::Ok);
        for id in [1, 2] {
            let at: Vec<Monotonic> = world.started.iter().filter(|(_, c)| c.0 == id).map(|(at, _)| *at).collect();
            for two in at.windows(2) {
                let gap = two[1].since(two[0]).as_millis();
                assert!((54_000..=67_000).contains(&gap), "{step}: {gap}");
            }
            let expected = 720 + step / 60_000;
            assert!((i64::try_from(at.len()).unwrap() - expected).abs() <= 2, "{step}: {}", at.len());
        }
        assert_eq!(world.brain.roster.late(), 0);
    }
}

#[test]
fn results_carry_the_measured_offset_and_no_step_of_the_own_clock_moves_a_run() {
    let mut world = World::assigned(&[check(1)]);
    world.brain.handle_connected(world.now);
    world.settle();
    let early = Timestamp::from_millis(world.now.wall.as_millis() - 7000);
    world.hear(ToSatellite::Welcome(Box::new(welcome(early, true, &[]))));
    world.run_for(minutes(1), |_| State::Ok);
    let (_, live) = world.sent.pop_front().unwrap();
    assert_eq!(results(&live)[0].1.offset_ms, Some(-7000));
    // The own clock jumps a day ahead; the master's has not moved.
    world.now.wall = world.now.wall.plus(minutes(24 * 60));
    world.sent.clear();
    world.started.clear();
    world.run_for(minutes(3), |_| State::Ok);
    assert_eq!(world.started.len(), 3);
    let (_, live) = world.sent.pop_front().unwrap();
    let result = &results(&live)[0].1;
    assert_eq!(result.offset_ms, Some(-7000 - 86_400_000));
    assert!(result.scheduled <= result.started && result.started.since(result.scheduled).as_millis() <= 1);
}

#[test]
fn heartbeats_measure_the_offset_by_their_answers() {
    let mut world = World::assigned(&[check(1)]);
    world.connect(true, &[]);
    let heartbeat = world.said.drain(..).find_map(|said| match said {
        ToMaster::Heartbeat(heartbeat) => Some(heartbeat),
        _ => None,
    });
    let sent = heartbeat.expect("the first follows the welcome").clock;
    world.pass(Duration::from_millis(40));
    let master = Timestamp::from_millis(sent.as_millis() + 20 + 90);
    world.hear(ToSatellite::ClockReply(ClockReply { sent, master }));
    // The welcome's round trip was shorter: it still counts.
    assert_eq!(world.brain.status(world.now).offset_ms, Some(0));
    world.run_for(HEARTBEAT_EVERY * 3, |_| State::Ok);
    assert_eq!(world.said.iter().filter(|said| matches!(said, ToMaster::Heartbeat(_))).count(), 3);
}

#[test]
fn a_host_is_up_or_down() {
    let host = AssignedCheck { object: "web".parse().unwrap(), ..check(1) };
    let mut world = World::assigned(&[host]);
    world.run_for(minutes(1), |_| State::Warning);
    assert_eq!(world.state(1).state.state, State::Up);
    world.run_for(minutes(1), |_| State::Unknown);
    assert_eq!(world.state(1).state.state, State::Down);
}

#[test]
fn a_check_of_an_unknown_kind_says_that_this_satellite_is_too_old() {
    let mut world = World::assigned(&[AssignedCheck { check: None, ..check(1) }]);
    world.connect(true, &[]);
    world.run_for(minutes(1), |_| panic!("nothing to probe"));
    let (_, live) = world.sent.pop_front().unwrap();
    let (_, result) = &results(&live)[0];
    assert_eq!(result.after.state, State::Unknown);
    assert!(result.output.contains("update it") && result.output.contains("0.1.0"), "{}", result.output);
}

#[test]
fn a_removed_check_is_forgotten_but_what_it_was_asked_last_is_told_under_its_old_grant() {
    let mut world = World::assigned(&[check(1), check(2)]);
    world.pass(Duration::from_secs(30));
    world.brain.handle_timeout(world.now);
    world.settle();
    assert_eq!(world.probes.len(), 2);
    world.brain.handle_assignment(world.now, TIMELINE, CheckId(0), assignment(2, &[check(2)]));
    world.answer(State::Ok);
    world.run_for(LINGER * 2, |_| State::Ok);
    assert_eq!(world.brain.roster.states().keys().collect::<Vec<_>>(), [&CheckId(2)]);
    assert_eq!(world.disk.runs[&world.open_run()].last, Sequence(2));
}

#[test]
fn what_was_asked_under_an_ended_grant_is_told_under_it_and_makes_no_state() {
    let mut world = World::assigned(&[check(1)]);
    world.connect(true, &[]);
    world.pass(Duration::from_secs(30));
    world.brain.handle_timeout(world.now);
    world.settle();
    assert_eq!(world.probes.len(), 1);
    let regranted = AssignedCheck { grant: Grant(check(1).grant.0 + 1), ..check(1) };
    world.brain.handle_assignment(world.now, TIMELINE, CheckId(0), assignment(2, &[regranted]));
    world.answer(State::Critical);
    world.run_for(LINGER * 2, |_| State::Ok);
    let told: Vec<_> = world.sent.iter().flat_map(|(_, live)| results(live)).map(|(_, result)| result).collect();
    assert_eq!((told[0].grant, told[0].after.state), (check(1).grant, State::Critical));
    // The new grant asks for itself, and goes on from what is known under it.
    assert_eq!((told[1].grant.0, told[1].after.state), (check(1).grant.0 + 1, State::Ok));
    assert_eq!(world.state(1).state.state, State::Ok);
    assert_eq!(world.state(1).key.grant, told[1].grant);
}

#[test]
fn what_is_executed_while_the_timeline_changes_counts_in_the_new_one_where_the_check_is_the_same() {
    for (first_check, counts) in [(2, true), (1, false)] {
        let mut world = World::assigned(&[check(1)]);
        world.pass(Duration::from_secs(30));
        world.brain.handle_timeout(world.now);
        world.settle();
        assert_eq!(world.probes.len(), 1);
        let regranted = AssignedCheck { grant: Grant(900), ..check(1) };
        world.brain.handle_assignment(world.now, Timeline(78), CheckId(first_check), assignment(2, &[regranted]));
        world.answer(State::Critical);
        let known = world.brain.roster.states().get(&CheckId(1));
        assert_eq!(
            known.map(|known| (known.state.state, known.key.grant)),
            counts.then_some((State::Critical, Grant(900)))
        );
        assert_eq!(world.brain.status(world.now).void, u64::from(!counts));
        // Either way it is asked again in its turn.
        world.run_for(minutes(2), |_| State::Ok);
        assert_eq!(world.state(1).state.state, State::Ok);
    }
}

#[test]
fn a_changed_check_keeps_its_state_and_is_asked_soon() {
    let slow = |port| {
        let check_interval_ms = 3_600_000;
        let policy = Policy { check_interval_ms, ..check(1).policy };
        let question = Check::Tcp(TcpCheck::port("127.0.0.1", port));
        AssignedCheck { check: Some(question), policy, ..check(1) }
    };
    let mut world = World::assigned(&[slow(80)]);
    world.run_for(minutes(60), |_| State::Critical);
    let before = world.state(1);
    assert_eq!(before.state.state, State::Critical);
    world.started.clear();
    world.brain.handle_assignment(world.now, TIMELINE, CheckId(0), assignment(2, &[slow(81)]));
    assert_eq!(world.state(1), before);
    world.run_for(Duration::from_secs(30), |_| State::Critical);
    assert!(!world.started.is_empty());
}

#[test]
fn an_untouched_check_keeps_its_place_and_what_is_running() {
    let mut world = World::assigned(&[check(1)]);
    world.pass(Duration::from_secs(30));
    world.brain.handle_timeout(world.now);
    world.settle();
    assert_eq!(world.probes.len(), 1);
    world.brain.handle_assignment(world.now, TIMELINE, CheckId(0), assignment(2, &[check(1), check(2)]));
    world.answer(State::Ok);
    assert_eq!(world.state(1).state.state, State::Ok);
}

#[test]
fn a_check_in_flight_is_not_started_again() {
    let mut world = World::assigned(&[check(1)]);
    world.run_for(minutes(1), |_| State::Ok);
    world.started.clear();
    // Nobody answers for three intervals.
    for _ in 0..180 {
        world.pass(Duration::from_secs(1));
        world.brain.handle_timeout(world.now);
        world.settle();
    }
    assert_eq!(world.started.len(), 1);
    world.answer(State::Ok);
    assert!(world.probes.is_empty(), "missed runs are not made up for");
}

#[test]
fn too_many_checks_at_once_start_late_and_are_counted() {
    let ids = u32::try_from(IN_FLIGHT_MAX).unwrap() + 76;
    let checks: Vec<AssignedCheck> = (1..=ids).map(check).collect();
    let mut world = World::assigned(&checks);
    world.pass(Duration::from_secs(40));
    world.brain.handle_timeout(world.now);
    world.settle();
    assert_eq!(world.probes.len(), IN_FLIGHT_MAX);
    assert_eq!(world.brain.poll_timeout().filter(|at| *at <= world.now.monotonic), None, "no busy waiting");
    world.answer(State::Ok);
    assert_eq!(world.probes.len(), 76);
    assert!(world.brain.roster.late() >= 76);
}

#[test]
fn without_a_master_a_restart_goes_on_from_disk() {
    let mut world = World::assigned(&[check(1)]);
    world.run_for(minutes(2), |_| State::Critical);
    let before = world.state(1);
    let mut again = World::on(world.disk, world.now, false);
    assert_eq!(again.state(1), before);
    again.run_for(minutes(2), |_| State::Critical);
    assert!(again.state(1).key > before.key);
    assert_eq!(again.state(1).state.since, before.state.since);
}

#[test]
fn a_clock_that_is_wrong_by_hours_puts_no_check_off_when_the_master_tells_the_time() {
    for hours in [-7_i64, 7] {
        let mut world = World::assigned(&[check(1), check(2)]);
        world.run_for(minutes(2), |_| State::Ok);
        // Places were planned by the own clock, and nothing has run yet.
        let mut again = World::on(world.disk, world.now, false);
        let master = Timestamp::from_millis(again.now.wall.as_millis() + hours * 3_600_000);
        again.brain.handle_clock(again.now, master);
        again.run_for(minutes(10), |_| State::Ok);
        let runs = again.started.len();
        assert!((19..=21).contains(&runs), "{hours} hours: {runs} runs of two checks in ten minutes");
    }
}

#[test]
fn a_second_process_waits_until_it_holds_the_slot_or_is_alone() {
    let disk = World::assigned(&[check(1)]).disk;
    let mut world = World::on(disk, World::new().now, true);
    world.run_for(minutes(5), |_| State::Ok);
    assert_eq!(world.started, []);
    world.brain.handle_neighbours(world.now, false, Some(Adopted::default()));
    world.run_for(minutes(2), |_| State::Ok);
    assert_eq!(world.started.len(), 2);

    let disk = World::assigned(&[check(1)]).disk;
    let mut world = World::on(disk, World::new().now, true);
    world.connect(true, &[]);
    world.run_for(minutes(2), |_| State::Ok);
    assert!(world.started.len() >= 2);
}

#[test]
fn a_fenced_process_delivers_and_checks_nothing_until_it_is_holder_again() {
    let mut world = World::assigned(&[check(1)]);
    world.connect(true, &[]);
    world.run_for(minutes(2), |_| State::Ok);
    let made = world.disk.runs[&world.open_run()].last;
    world.hear(ToSatellite::Fence);
    world.started.clear();
    world.run_for(minutes(5), |_| State::Ok);
    assert_eq!(world.started, []);
    world.brain.handle_disconnected(world.now);
    world.sent.clear();
    let hello = world.connect(false, &[]);
    assert!(hello.fenced);
    world.run_for(minutes(5), |_| State::Ok);
    assert_eq!(world.started, []);
    let delivered: usize = world.sent.iter().map(|(_, bytes)| results(bytes).len()).sum();
    assert_eq!(u64::try_from(delivered).unwrap(), made.0, "what was made before is delivered");
    world.brain.handle_disconnected(world.now);
    world.connect(true, &[]);
    world.run_for(minutes(2), |_| State::Ok);
    assert!(!world.started.is_empty());
}

#[test]
fn an_outcome_after_the_fence_is_an_observation_and_no_state() {
    let mut world = World::assigned(&[check(1)]);
    world.connect(true, &[]);
    world.pass(Duration::from_secs(30));
    world.brain.handle_timeout(world.now);
    world.settle();
    assert_eq!(world.probes.len(), 1);
    world.hear(ToSatellite::Fence);
    world.answer(State::Ok);
    world.run_for(minutes(1), |_| State::Ok);
    assert_eq!(world.disk.runs[&world.open_run()].last, Sequence(1));
    assert!(world.brain.roster.states().is_empty());
}

#[test]
fn an_assignment_is_confirmed_when_it_is_on_disk() {
    let mut world = World::new();
    world.connect(true, &[]);
    world.obedient = false;
    world.said.clear();
    world.hear(ToSatellite::AssignmentBegin(AssignmentBegin { generation: Generation(4), whole: true }));
    world.hear(ToSatellite::AssignmentUpsert(Box::new(check(1))));
    world.hear(ToSatellite::AssignmentUpsert(Box::new(check(2))));
    assert_eq!(world.brain.status(world.now).checks, 0, "a series counts as one");
    world.hear(ToSatellite::AssignmentEnd(Generation(4)));
    assert_eq!(world.brain.status(world.now).checks, 2);
    assert!(!world.said.contains(&ToMaster::Applied(Generation(4))));
    world.obedient = true;
    world.settle();
    assert!(world.said.contains(&ToMaster::Applied(Generation(4))));
    world.hear(ToSatellite::AssignmentBegin(AssignmentBegin { generation: Generation(5), whole: false }));
    world.hear(ToSatellite::AssignmentRemove(CheckId(1)));
    world.hear(ToSatellite::AssignmentEnd(Generation(5)));
    assert_eq!(world.disk.kept.as_ref().unwrap().assignment.checks.keys().collect::<Vec<_>>(), [&CheckId(2)]);
    assert!(world.said.contains(&ToMaster::Applied(Generation(5))));
}

#[test]
fn an_assignment_that_is_on_disk_already_is_confirmed_at_once() {
    let mut world = World::assigned(&[check(1)]);
    world.connect(true, &[]);
    world.obedient = false;
    world.brain.handle_assignment(world.now, TIMELINE, CheckId(0), assignment(1, &[check(1)]));
    world.settle();
    assert!(world.said.contains(&ToMaster::Applied(Generation(1))));
    assert!(!world.orders.iter().any(|order| matches!(order, Command::Keep(_))));
    // The same checks of another timeline are another assignment.
    world.said.clear();
    world.brain.handle_assignment(world.now, Timeline(78), CheckId(9), assignment(1, &[check(1)]));
    world.settle();
    assert!(world.orders.iter().any(|order| matches!(order, Command::Keep(_))));
    assert!(!world.said.contains(&ToMaster::Applied(Generation(1))));
}

#[test]
fn an_assignment_that_cannot_be_kept_runs_and_is_kept_later() {
    let mut world = World::new();
    world.connect(true, &[]);
    world.obedient = false;
    world.brain.handle_assignment(world.now, TIMELINE, CheckId(0), assignment(4, &[check(1)]));
    world.settle();
    world.orders.retain(|order| !matches!(order, Command::Keep(_)));
    world.brain.handle_keep_failed(world.now);
    world.obedient = true;
    assert!(!world.said.contains(&ToMaster::Applied(Generation(4))));
    world.run_for(Duration::from_secs(2), |_| State::Ok);
    assert!(world.said.contains(&ToMaster::Applied(Generation(4))));
}

#[test]
fn an_ending_process_brings_everything_to_disk() {
    let mut world = World::assigned(&[check(1), check(2)]);
    world.pass(Duration::from_secs(30));
    world.brain.handle_timeout(world.now);
    world.settle();
    assert_eq!(world.probes.len(), 2);
    world.brain.handle_shutdown(world.now);
    assert!(!world.brain.is_settled());
    world.answer(State::Ok);
    assert!(world.brain.is_settled());
    assert_eq!(world.disk.runs[&world.open_run()].last, Sequence(2));
    assert_eq!(world.disk.states.states.len(), 2);
    world.run_for(minutes(5), |_| panic!("nothing starts any more"));
}
