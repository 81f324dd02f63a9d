//! What is told of the own states after a reconnect: which, under which keys, with which words, and the marker behind them.

use std::time::Duration;

use shared::assignment::{AssignedCheck, Carried};
use shared::check::State;
use shared::delivery::Key;
use shared::message::{AssignmentBegin, ToMaster, ToSatellite};
use shared::name::{CheckId, Generation, Grant};
use shared::snapshot::StateTold;
use shared::state::StateType;

use super::minutes;
use super::world::{World, check};
use crate::command::{Adopted, KeptStates};

/// The master tells what the slot owns.
fn assign(world: &mut World, whole: bool, checks: &[AssignedCheck]) {
    let generation = Generation(1);
    world.hear(ToSatellite::AssignmentBegin(AssignmentBegin { generation, whole }));
    for check in checks {
        world.hear(ToSatellite::AssignmentUpsert(Box::new(check.clone())));
    }
    world.hear(ToSatellite::AssignmentEnd(generation));
}

/// The states told since the last look, and the markers behind them.
fn told(world: &mut World) -> (Vec<StateTold>, usize) {
    let (mut states, mut markers) = (Vec::new(), 0);
    for said in world.said.drain(..) {
        match said {
            ToMaster::State(told) => {
                assert_eq!(markers, 0, "a state behind its marker");
                states.push(*told);
            }
            ToMaster::StatesEnd(generation) => {
                assert_eq!(generation, Generation(1));
                markers += 1;
            }
            _ => {}
        }
    }
    (states, markers)
}

#[test]
fn what_became_hard_during_a_cut_is_told_with_its_words_and_a_marker_follows() {
    let mut world = World::assigned(&[check(1), check(2)]);
    world.run_for(minutes(4), |id| if id.0 == 1 { State::Critical } else { State::Ok });
    let (one, two) = (world.state(1), world.state(2));
    assert_eq!(one.state.state_type, StateType::Hard);
    world.connect(true, &[]);
    assert_eq!(told(&mut world).0, [], "not before it knows what it owns");
    // The master knows the second one's state.
    assign(&mut world, true, &[check(1), AssignedCheck { carried: Some(two), ..check(2) }]);
    let (states, markers) = told(&mut world);
    assert_eq!(markers, 1);
    assert_eq!(states.len(), 1);
    assert_eq!((states[0].check, states[0].key, states[0].state), (CheckId(1), one.key, one.state));
    let said = states[0].said.as_ref().unwrap();
    assert_eq!((said.output.as_str(), said.ended() >= one.state.since), ("said", true));
}

#[test]
fn a_state_made_under_an_older_grant_is_the_first_of_the_living_one() {
    let mut world = World::assigned(&[check(1)]);
    world.run_for(minutes(4), |_| State::Critical);
    let own = world.state(1);
    let older = Carried { key: Key { sequence: shared::name::Sequence(1), ..own.key }, ..own };
    world.connect(true, &[]);
    assign(&mut world, true, &[AssignedCheck { grant: Grant(9), carried: Some(older), ..check(1) }]);
    let (states, _) = told(&mut world);
    assert_eq!((states[0].key, states[0].state), (Key { grant: Grant(9), ..Key::default() }, own.state));
    // What is made now stands above it.
    world.run_for(minutes(1), |_| State::Critical);
    assert!(world.state(1).key > states[0].key);
}

#[test]
fn whoever_does_not_hold_the_slot_tells_nothing() {
    let mut world = World::assigned(&[check(1)]);
    world.run_for(minutes(4), |_| State::Critical);
    world.connect(false, &[]);
    assign(&mut world, true, &[check(1)]);
    assert_eq!(told(&mut world), (Vec::new(), 0));
    world.brain.handle_disconnected(world.now);
    world.connect(true, &[]);
    assign(&mut world, true, &[check(1)]);
    assert_eq!(told(&mut world).0.len(), 1);
}

#[test]
fn a_restart_tells_what_the_process_before_it_knew_with_its_words() {
    for kept in [true, false] {
        let mut world = World::assigned(&[check(1)]);
        world.run_for(minutes(4), |_| State::Critical);
        let own = world.state(1);
        let mut disk = world.disk;
        if !kept {
            // The spool alone has to say it.
            disk.states = KeptStates { timeline: disk.states.timeline, ..KeptStates::default() };
        }
        let mut again = World::on(disk, world.now, false);
        again.connect(true, &[]);
        assign(&mut again, true, &[check(1)]);
        let (states, markers) = told(&mut again);
        assert_eq!((states.len(), markers), (1, 1));
        assert_eq!((states[0].key, states[0].state), (own.key, own.state));
        assert_eq!(states[0].said.as_ref().unwrap().output, "said");
    }
}

#[test]
fn what_a_neighbour_leaves_behind_is_told_when_it_is_found() {
    let mut world = World::assigned(&[check(1), check(2)]);
    world.connect(true, &[]);
    assign(&mut world, true, &[check(1), check(2)]);
    world.run_for(minutes(2), |_| State::Ok);
    told(&mut world);
    let own = world.state(1);
    let newer = Key { sequence: shared::name::Sequence(own.key.sequence.0 + 90), ..own.key };
    let mut states = KeptStates { timeline: super::world::TIMELINE, ..KeptStates::default() };
    states.take(CheckId(1), Carried { key: newer, ..own }, None);
    states.take(CheckId(2), Carried { key: Key::default(), ..own }, None);
    world.brain.handle_neighbours(world.now, false, Some(Adopted { runs: Vec::new(), states }));
    world.settle();
    let (states, markers) = told(&mut world);
    assert_eq!(markers, 1);
    assert_eq!(states.iter().map(|told| (told.check, told.key)).collect::<Vec<_>>(), [(CheckId(1), newer)]);
    assert_eq!(states[0].said, None, "the words of another state are not its own");
}

#[test]
fn what_is_asked_under_an_older_grant_is_no_newer_than_an_adopted_state() {
    let mut world = World::assigned(&[check(1)]);
    world.run_for(minutes(2), |_| State::Ok);
    let own = world.state(1);
    let newer = Carried { key: Key { grant: Grant(own.key.grant.0 + 1), ..Key::default() }, ..own };
    let mut states = KeptStates { timeline: super::world::TIMELINE, ..KeptStates::default() };
    states.take(CheckId(1), newer, None);
    world.brain.handle_neighbours(world.now, false, Some(Adopted { runs: Vec::new(), states }));
    world.started.clear();
    world.run_for(minutes(2), |_| State::Critical);
    assert!(!world.started.is_empty());
    assert_eq!(world.state(1), newer);
}

#[test]
fn a_check_that_comes_later_is_told_alone() {
    let mut world = World::assigned(&[check(1), check(2)]);
    world.run_for(minutes(4), |_| State::Critical);
    world.connect(true, &[]);
    assign(&mut world, true, &[check(1), check(2)]);
    assert_eq!(told(&mut world).0.len(), 2);
    let own = world.state(2);
    let carried = Some(Carried { key: Key::default(), ..own });
    assign(&mut world, false, &[AssignedCheck { grant: Grant(9), carried, ..check(2) }]);
    let (states, markers) = told(&mut world);
    assert_eq!((states.len(), states[0].check, states[0].key.grant, markers), (1, CheckId(2), Grant(9), 1));
}

#[test]
fn states_wait_for_the_master_and_go_on_when_it_has_heard() {
    let checks: Vec<AssignedCheck> = (1..=6000).map(check).collect();
    let mut world = World::assigned(&checks);
    world.run_for(Duration::from_secs(90), |_| State::Critical);
    world.connect(true, &[]);
    assign(&mut world, true, &checks);
    let (first, markers) = told(&mut world);
    assert!(first.len() < 6000 && markers == 0, "{}", first.len());
    let mut all = first.len();
    for _ in 0..100 {
        world.hear(ToSatellite::StatesHeard);
        let (more, markers) = told(&mut world);
        all += more.len();
        if markers == 1 {
            break;
        }
    }
    assert_eq!(all, 6000);
}
