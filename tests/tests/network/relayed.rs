//! Profiles that are the relay's work: everything with a delay, and what changes datagrams or their order.

use std::time::Duration;

use tests::load::Load;
use tests::relay::{Burst, Profile, Way};

use crate::scene::{Course, Scene, all, number, report};

/// What is promised at 10 % loss and 300 ms round trip: from the end of a check until its state is shown.
const PROMISED: Duration = Duration::from_secs(5);
/// At so many results a second: what is measured of two hundred at least, of answers given and, over a longer time, of results that
/// arrived meanwhile.
const AT_LEAST: f64 = 0.95 * 200.0;
/// How often a NAT forgets.
const REBINDS_EVERY: Duration = Duration::from_secs(30);
/// A flapping road changes this often.
const FLAPS_EVERY: Duration = Duration::from_secs(5);

/// What is done while the road is bad.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Act {
    Hold,
    Rebind(Duration),
    Flap,
}

struct Case {
    name: String,
    up: Profile,
    down: Profile,
    act: Act,
    time: Duration,
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn lossy(loss: f64, round_trip: u64) -> Profile {
    Profile { loss, delay: millis(round_trip / 2), ..Profile::default() }
}

fn case(name: &str, profile: Profile) -> Case {
    let time = if all() { Duration::from_secs(30) } else { Duration::from_secs(12) };
    Case { name: name.to_owned(), up: profile, down: profile, act: Act::Hold, time }
}

fn cases() -> Vec<Case> {
    let near = Profile { delay: millis(10), ..Profile::default() };
    let ten = case("10 % loss, 300 ms", lossy(0.1, 300));
    let rebound = Case {
        act: Act::Rebind(if all() { REBINDS_EVERY } else { FLAPS_EVERY }),
        time: if all() { Duration::from_secs(95) } else { Duration::from_secs(12) },
        ..case("rebinding", near)
    };
    if !all() {
        return vec![ten, rebound];
    }
    let losses = [0.01, 0.1, 0.3].into_iter().flat_map(|loss| [20, 300, 800].map(|trip| (loss, trip)));
    let losses = losses.map(|(loss, trip)| case(&format!("{:.0} % loss, {trip} ms", loss * 100.0), lossy(loss, trip)));
    let others = [
        case("jitter 100 ms", Profile { jitter: millis(100), ..near }),
        case("reorder 25 %", Profile { reorder: 0.25, ..near }),
        case("duplicate 25 %", Profile { duplicate: 0.25, ..near }),
        case("corrupt 1 %", Profile { corrupt: 0.01, ..near }),
        case("bursts of loss", Profile { burst: Some(Burst { begins: 0.01, ends: 0.1 }), ..near }),
        case("256 kbit/s, 300 ms", Profile { rate: Some(32_000), ..lossy(0.0, 300) }),
        case(
            "all of it",
            Profile { jitter: millis(50), reorder: 0.1, duplicate: 0.1, corrupt: 0.01, ..lossy(0.05, 100) },
        ),
        Case { down: near, ..case("800 ms on the way up only", Profile { delay: millis(800), ..near }) },
        Case { act: Act::Flap, ..case("flapping", Profile { cut: true, ..near }) },
        rebound,
    ];
    losses.chain(others).collect()
}

fn run(case: &Case, seed: u64) -> Course {
    let (mut scene, relay) = Scene::relayed(Load::TWO_HUNDRED, seed, &[]);
    scene.start();
    let before = relay.counts(Way::Up);
    let mut turns = 1;
    let meanwhile = |passed: Duration| match case.act {
        Act::Hold => {}
        Act::Rebind(every) if passed >= every * turns => {
            turns += 1;
            relay.rebind();
        }
        Act::Flap if passed >= FLAPS_EVERY * turns => {
            turns += 1;
            if turns % 2 == 1 { relay.set(case.up, case.down) } else { relay.both(Profile::default()) }
        }
        Act::Rebind(_) | Act::Flap => {}
    };
    let bad = || relay.set(case.up, case.down);
    let course = scene.course(&case.name, case.time, bad, meanwhile, || relay.both(Profile::default()));
    let after = relay.counts(Way::Up);
    assert!(after.came > before.came + 100, "{}: nothing passed the relay", case.name);
    let chances = [
        (case.up.loss, after.lost - before.lost),
        (case.up.reorder, after.held - before.held),
        (case.up.duplicate, after.doubled - before.doubled),
        (case.up.corrupt, after.damaged - before.damaged),
    ];
    for (chance, times) in chances {
        assert!(chance == 0.0 || times > 0, "{}: the relay did not do its work: {after:?}", case.name);
    }
    assert!(case.act != Act::Flap || turns > 2, "the road did not flap");
    if let Act::Rebind(_) = case.act {
        assert!(turns > 2, "nothing was rebound");
        assert_eq!(course.links, 0, "a NAT that forgets costs no link");
    }
    course
}

#[test]
fn no_result_is_lost_or_doubled_over_relayed_roads() {
    let seed = number("PERIGEE_SEED", rand::random_range(1..1_000_000_000));
    eprintln!("PERIGEE_SEED={seed}");
    let mut courses = Vec::new();
    for case in cases() {
        let course = run(&case, seed);
        eprintln!("{}", course.told(&case.name));
        if case.name == "10 % loss, 300 ms" {
            let p99 = course.lags.percentile(99);
            assert!(course.offered >= AT_LEAST, "only {:.1} answers a second", course.offered);
            // In a short time those count that are on their way in the end.
            assert!(!all() || course.goodput >= AT_LEAST, "only {:.1} results a second arrived", course.goodput);
            assert!(p99 <= PROMISED, "p99 {p99:?} from the end of a check until its state is shown");
        }
        courses.push((case.name, course));
    }
    report("of a relay", &courses);
}
