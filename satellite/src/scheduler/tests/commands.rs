//! Commands to checks that are owned: applied once, in order, and named by what they make.

use shared::assignment::AssignedCheck;
use shared::check::State;
use shared::command::{Commanded, Passive, What};
use shared::message::{AssignmentBegin, ToMaster, ToSatellite};
use shared::name::{CheckId, Generation, Grant, JournalIndex, Timeline};
use shared::result::CheckResult;
use shared::state::StateType;
use shared::time::Timestamp;

use super::minutes;
use super::world::{START, World, assignment, check, results};

fn owning(checks: &[AssignedCheck]) -> World {
    let mut world = World::assigned(checks);
    world.connect(true, &[]);
    let generation = Generation(1);
    world.hear(ToSatellite::AssignmentBegin(AssignmentBegin { generation, whole: true }));
    for check in checks {
        world.hear(ToSatellite::AssignmentUpsert(Box::new(check.clone())));
    }
    world.hear(ToSatellite::AssignmentEnd(generation));
    world
}

fn command(world: &mut World, index: u64, what: What) {
    let at = Timestamp::from_millis(START + 5000);
    let command = Commanded { index: JournalIndex(index), check: CheckId(1), at, what };
    world.hear(ToSatellite::Command(Box::new(command)));
}

fn passive(state: State) -> What {
    What::Passive(Passive { state, text: "from outside|a=1\nmore".into() })
}

fn told(world: &mut World) -> Vec<CheckResult> {
    world.sent.drain(..).flat_map(|(_, bytes)| results(&bytes)).map(|(_, result)| result).collect()
}

#[test]
fn a_result_from_outside_keeps_its_time_and_is_taken_once() {
    let mut world = owning(&[check(1)]);
    world.run_for(minutes(2), |_| State::Ok);
    told(&mut world);
    for _ in 0..3 {
        command(&mut world, 70, passive(State::Critical));
    }
    world.run_for(std::time::Duration::from_secs(1), |_| State::Critical);
    let told: Vec<CheckResult> = told(&mut world).into_iter().filter(|result| result.command.is_some()).collect();
    assert_eq!(told.len(), 1);
    let result = &told[0];
    assert_eq!((result.command, result.passive), (Some(JournalIndex(70)), true));
    assert_eq!(result.ended(), Timestamp::from_millis(START + 5000));
    assert_eq!(
        (result.output.as_str(), result.long_output.as_str(), result.metrics.len()),
        ("from outside", "more", 1)
    );
    assert_eq!(
        (result.after.state, result.after.state_type, result.after.attempt),
        (State::Critical, StateType::Soft, 1)
    );
}

#[test]
fn a_restart_remembers_what_was_applied() {
    let mut world = owning(&[check(1)]);
    command(&mut world, 70, passive(State::Critical));
    world.run_for(minutes(1), |_| State::Critical);
    let mut again = World::on(world.disk, world.now, false);
    again.connect(true, &[]);
    let generation = Generation(1);
    again.hear(ToSatellite::AssignmentBegin(AssignmentBegin { generation, whole: true }));
    again.hear(ToSatellite::AssignmentUpsert(Box::new(check(1))));
    again.hear(ToSatellite::AssignmentEnd(generation));
    let before = again.state(1);
    command(&mut again, 70, passive(State::Critical));
    assert_eq!(again.state(1), before);
    command(&mut again, 71, passive(State::Ok));
    assert_eq!(again.state(1).state.state, State::Ok);
}

#[test]
fn a_forced_check_runs_at_once_and_what_follows_waits_for_it() {
    let mut world = owning(&[check(1)]);
    world.run_for(minutes(2), |_| State::Critical);
    told(&mut world);
    world.started.clear();
    command(&mut world, 70, What::CheckNow);
    command(&mut world, 70, What::CheckNow);
    command(&mut world, 71, What::Reset);
    world.brain.handle_timeout(world.now);
    world.settle();
    assert_eq!(world.started.len(), 1, "at once, and once");
    assert_eq!(world.state(1).state.state, State::Critical, "the reset waits for the check");
    world.answer(State::Critical);
    let state = world.state(1).state;
    assert_eq!((state.state, state.state_type, state.flapping), (State::Ok, StateType::Hard, 0));
    world.run_for(std::time::Duration::from_secs(1), |_| State::Ok);
    let commands: Vec<Option<JournalIndex>> = told(&mut world).iter().map(|result| result.command).collect();
    assert_eq!(commands[..2], [Some(JournalIndex(70)), Some(JournalIndex(71))]);
}

#[test]
fn a_check_that_is_running_is_run_again_for_a_command_that_came_meanwhile() {
    let mut world = owning(&[check(1)]);
    world.pass(std::time::Duration::from_secs(31));
    world.brain.handle_timeout(world.now);
    world.settle();
    assert_eq!(world.probes.len(), 1);
    command(&mut world, 70, What::CheckNow);
    world.answer(State::Ok);
    assert_eq!(world.probes.len(), 1, "the next one begins when this one has ended");
    world.answer(State::Ok);
    world.run_for(std::time::Duration::from_secs(1), |_| State::Ok);
    let commands: Vec<Option<JournalIndex>> = told(&mut world).iter().map(|result| result.command).collect();
    assert_eq!(commands, [None, Some(JournalIndex(70))]);
}

#[test]
fn one_execution_answers_all_that_wait_for_one() {
    let mut world = owning(&[check(1)]);
    world.pass(std::time::Duration::from_secs(31));
    world.brain.handle_timeout(world.now);
    world.settle();
    for index in [70, 71, 72] {
        command(&mut world, index, What::CheckNow);
    }
    world.answer(State::Ok);
    world.answer(State::Ok);
    assert!(world.probes.is_empty(), "two executions for three commands");
    world.run_for(std::time::Duration::from_secs(1), |_| State::Ok);
    let commands: Vec<Option<JournalIndex>> = told(&mut world).iter().map(|result| result.command).collect();
    assert_eq!(commands, [None, Some(JournalIndex(72))]);
}

#[test]
fn a_command_that_was_applied_and_is_told_again_is_answered_by_the_state() {
    let mut world = owning(&[check(1)]);
    command(&mut world, 70, passive(State::Critical));
    world.run_for(std::time::Duration::from_secs(1), |_| State::Critical);
    world.said.clear();
    command(&mut world, 70, passive(State::Critical));
    let state = world.said.iter().find_map(|said| match said {
        ToMaster::State(told) => Some((told.check, told.command)),
        _ => None,
    });
    assert_eq!(state, Some((CheckId(1), Some(JournalIndex(70)))));
    assert_eq!(told(&mut world).iter().filter(|result| result.command.is_some()).count(), 1);
}

#[test]
fn a_check_that_goes_and_comes_back_is_not_commanded_twice() {
    let mut world = owning(&[check(1), check(2)]);
    command(&mut world, 70, passive(State::Critical));
    let timeline = super::world::TIMELINE;
    world.brain.handle_assignment(world.now, timeline, CheckId(0), assignment(2, &[check(2)]));
    world.settle();
    let back = AssignedCheck { grant: Grant(9), ..check(1) };
    world.brain.handle_assignment(world.now, timeline, CheckId(0), assignment(3, &[back, check(2)]));
    world.settle();
    command(&mut world, 70, passive(State::Critical));
    world.run_for(std::time::Duration::from_secs(1), |_| State::Ok);
    assert_eq!(told(&mut world).iter().filter(|result| result.command.is_some()).count(), 1);
}

#[test]
fn in_another_timeline_the_same_index_is_another_command() {
    let mut world = owning(&[check(1)]);
    command(&mut world, 70, passive(State::Critical));
    world.brain.handle_assignment(world.now, Timeline(78), CheckId(90), assignment(1, &[check(1)]));
    world.settle();
    command(&mut world, 70, passive(State::Ok));
    assert_eq!(world.state(1).state.state, State::Ok);
}

#[test]
fn whoever_does_not_own_the_check_does_nothing() {
    let mut world = owning(&[check(2)]);
    command(&mut world, 70, passive(State::Critical));
    assert!(!world.brain.states().contains_key(&CheckId(1)));
    world.hear(ToSatellite::Fence);
    let command = Commanded {
        index: JournalIndex(71),
        check: CheckId(2),
        at: Timestamp::from_millis(START),
        what: passive(State::Critical),
    };
    world.hear(ToSatellite::Command(Box::new(command)));
    assert!(!world.brain.states().contains_key(&CheckId(2)));
}
