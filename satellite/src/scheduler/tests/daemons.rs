//! Daemons that are asked for themselves: first of all, and whenever another check says that something has changed.

use std::time::Duration;

use shared::assignment::{AssignedCheck, Carried, Policy};
use shared::check::{Check, Exit, NRPE_VERSION_COMMAND, NrpeCheck, NrpeTls, Outcome, State};
use shared::delivery::Key;
use shared::name::CheckId;
use shared::state::CheckState;
use shared::time::Monotonic;

use super::minutes;
use super::world::{TIMELINE, World, assignment, check, outcome};
use crate::clock::Now;
use crate::scheduler::daemons::FORWARD_EVERY;

/// The daemon's own check, every ten minutes.
const OWN: CheckId = CheckId(1);

/// A check of host `a` (or `b`), as often as it is said.
fn nrpe(id: u32, host: &str, command: &str, every: Duration) -> AssignedCheck {
    let question = Check::Nrpe(NrpeCheck {
        address: host.to_owned(),
        port: 5666,
        tls: NrpeTls::Anonymous,
        command: command.to_owned(),
        args: Vec::new(),
        version: None,
        on_transport_error: State::Critical,
        trust: None,
    });
    let check_interval_ms = u64::try_from(every.as_millis()).unwrap();
    let policy = Policy { check_interval_ms, retry_interval_ms: check_interval_ms, ..check(id).policy };
    let object = format!("{host}!s{id}").parse().unwrap();
    AssignedCheck { check: Some(question), policy, object, ..check(id) }
}

fn host() -> Vec<AssignedCheck> {
    vec![
        nrpe(1, "a", NRPE_VERSION_COMMAND, minutes(10)),
        nrpe(2, "a", "check_load", minutes(1)),
        nrpe(3, "a", "check_disk", minutes(1)),
        nrpe(4, "b", NRPE_VERSION_COMMAND, minutes(10)),
        nrpe(5, "b", "check_load", minutes(1)),
    ]
}

fn failed(now: Now, exit: Exit) -> Outcome {
    Outcome { exit, ..outcome(now, State::Critical) }
}

fn refused(now: Now) -> Outcome {
    failed(now, Exit::Error("connect-refused".to_owned()))
}

/// When a check was started, since the last look.
fn starts(world: &mut World, id: CheckId) -> Vec<Monotonic> {
    let starts = world.started.iter().filter(|(_, started)| *started == id).map(|(at, _)| *at).collect();
    world.started.clear();
    starts
}

fn on_a(check: &AssignedCheck) -> bool {
    check.id.0 <= 3
}

#[test]
fn a_new_host_is_asked_for_itself_before_anything_else() {
    let mut world = World::assigned(&host());
    world.run_for(minutes(1), |_| State::Ok);
    let order: Vec<CheckId> = world.started.iter().map(|(_, id)| *id).collect();
    assert_eq!(order[..2], [CheckId(1), CheckId(4)]);
    assert!(world.started[..2].iter().all(|(at, _)| at.0 == 0), "at once");
    // A host that comes later is new too, and one that was here is not.
    world.started.clear();
    let mut more = host();
    more.push(nrpe(6, "c", NRPE_VERSION_COMMAND, minutes(10)));
    world.brain.handle_assignment(world.now, TIMELINE, CheckId(0), assignment(2, &more));
    world.settle();
    assert_eq!(world.started.iter().map(|(_, id)| *id).collect::<Vec<_>>(), [CheckId(6)]);
}

#[test]
fn a_host_from_another_slot_is_asked_for_itself_first_and_one_known_here_is_not() {
    let state = CheckState { state: State::Ok, ..CheckState::pending(3) };
    let carried: Vec<AssignedCheck> = host()
        .into_iter()
        .map(|check| AssignedCheck { carried: Some(Carried { state, key: Key::default() }), ..check })
        .collect();
    let mut world = World::assigned(&carried);
    assert_eq!(world.started.iter().map(|(_, id)| *id).collect::<Vec<_>>(), [CheckId(1), CheckId(4)]);
    world.answer(State::Ok);
    world.run_for(minutes(2), |_| State::Ok);
    let mut again = World::on(world.disk, world.now, false);
    again.settle();
    assert_eq!(again.started, [], "a restart is not a new host");
}

#[test]
fn a_question_that_could_not_be_asked_yet_is_not_missed() {
    let mut world = World::new();
    world.brain.handle_neighbours(world.now, true, None);
    world.brain.handle_assignment(world.now, TIMELINE, CheckId(0), assignment(1, &host()));
    world.run_for(minutes(2), |_| State::Ok);
    assert_eq!(world.started, []);
    world.brain.handle_neighbours(world.now, false, None);
    world.settle();
    assert_eq!(world.started.iter().map(|(_, id)| *id).collect::<Vec<_>>(), [CheckId(1), CheckId(4)]);
}

#[test]
fn the_first_check_that_cannot_reach_a_daemon_has_it_asked_at_once() {
    for exit in [Exit::Error("connect-refused".to_owned()), Exit::Error("tls-timeout".to_owned()), Exit::TimedOut] {
        let mut world = World::assigned(&host());
        world.run_for(minutes(2), |_| State::Ok);
        world.started.clear();
        world.run_with(
            minutes(1),
            |now, check| {
                if on_a(check) { failed(now, exit.clone()) } else { outcome(now, State::Ok) }
            },
        );
        let sibling = world.started.iter().find(|(_, id)| id.0 == 2 || id.0 == 3).unwrap().0;
        assert!(world.started.iter().all(|(_, id)| id.0 != 4), "another daemon is not doubted: {:?}", world.started);
        assert_eq!(starts(&mut world, OWN)[..1], [sibling], "{exit:?}");
        assert_eq!(world.state(1).state.state, State::Critical);
    }
}

#[test]
fn a_daemon_known_to_be_down_is_asked_again_by_its_own_interval_alone_until_a_check_reaches_it() {
    let mut world = World::assigned(&host());
    world.run_with(minutes(2), |now, check| if on_a(check) { refused(now) } else { outcome(now, State::Ok) });
    assert_eq!(world.state(1).state.state, State::Critical);
    world.started.clear();
    world.run_with(minutes(5), |now, check| if on_a(check) { refused(now) } else { outcome(now, State::Ok) });
    assert!(starts(&mut world, OWN).len() <= 1, "failures that fit what is known bring nothing forward");
    world.run_for(minutes(1), |_| State::Ok);
    let reached = world.started.iter().find(|(_, id)| on_a(&check(id.0))).unwrap().0;
    let own = starts(&mut world, OWN);
    assert!(own.contains(&reached), "{own:?} after {reached:?}");
    assert_eq!(world.state(1).state.state, State::Ok);
}

#[test]
fn a_command_that_says_critical_or_is_refused_casts_no_doubt_on_its_daemon() {
    for exit in [Exit::Ran(2), Exit::Error("request-refused".to_owned()), Exit::Error("queue-timeout".to_owned())] {
        let mut world = World::assigned(&host());
        world.run_for(minutes(2), |_| State::Ok);
        world.started.clear();
        world.run_with(
            minutes(3),
            |now, check| {
                if check.id == OWN { outcome(now, State::Ok) } else { failed(now, exit.clone()) }
            },
        );
        assert_eq!(starts(&mut world, OWN), [], "{exit:?}");
    }
}

#[test]
fn a_daemon_in_doubt_all_the_time_is_asked_once_in_a_while() {
    let mut checks = vec![nrpe(1, "a", NRPE_VERSION_COMMAND, minutes(10))];
    checks.extend((2..40).map(|id| nrpe(id, "a", "check_load", Duration::from_secs(5))));
    let mut world = World::assigned(&checks);
    world.run_for(minutes(2), |_| State::Ok);
    world.started.clear();
    // The daemon itself answers; its commands do not.
    world.run_with(minutes(5), |now, check| if check.id == OWN { outcome(now, State::Ok) } else { refused(now) });
    let own = starts(&mut world, OWN);
    assert!((18..=21).contains(&own.len()), "{}", own.len());
    assert!(own.windows(2).all(|two| two[1].since(two[0]) >= FORWARD_EVERY), "{own:?}");
}
