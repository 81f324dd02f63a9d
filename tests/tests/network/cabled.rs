//! Profiles that are the kernel's work: loss, rate, packet size, cuts of one way and of both, on a cable between two network
//! namespaces. Each is asked by the kernel's own counters whether it did its work.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use rand::distr::Alphanumeric;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tests::load::Load;
use tests::missing::missing;
use tests::network::{Machine, Way, cables_need, is_own};

use crate::scene::{Course, Scene, all, report};

/// What is done to a cable, and what the kernel says came of it: 0 if nothing did.
struct Damage {
    name: &'static str,
    done: fn(&Machine) -> Result<()>,
    seen: fn(&Machine) -> Result<u64>,
}

/// A packet of the kernel's with the heads of IP and UDP is by so much longer than its payload.
const HEADS: u16 = 28;
const NARROW: u16 = 1280;
/// Characters of a long answer.
const LINE: usize = 1_400;

fn lose(machine: &Machine, thousandths: u32) -> Result<()> {
    machine.lose(Way::Up, thousandths)?;
    machine.lose(Way::Down, thousandths)
}

fn swallow(machine: &Machine, above: u16) -> Result<()> {
    machine.swallow_above(Way::Up, above)?;
    machine.swallow_above(Way::Down, above)
}

/// What is lost both ways is lost on both.
fn dropped_on_both(machine: &Machine) -> Result<u64> {
    Ok(machine.dropped(Way::Up)?.min(machine.dropped(Way::Down)?))
}

/// Who has more to say meets the bound.
fn dropped_on_one(machine: &Machine) -> Result<u64> {
    Ok(machine.dropped(Way::Up)?.max(machine.dropped(Way::Down)?))
}

fn above_narrow(machine: &Machine) -> Result<u64> {
    Ok(machine.passed(Way::Up)? + machine.passed(Way::Down)?)
}

const ONE_WAY: usize = 8;
const ALL: [Damage; 11] = [
    Damage { name: "1 % loss", done: |machine| lose(machine, 10), seen: dropped_on_both },
    Damage { name: "10 % loss", done: |machine| lose(machine, 100), seen: dropped_on_both },
    Damage { name: "30 % loss", done: |machine| lose(machine, 300), seen: dropped_on_both },
    // Two hundred small results a second fit, paced as they are: nothing waits.
    Damage {
        name: "256 kbit/s",
        done: |machine| machine.slow_down(256),
        seen: |machine| Ok(machine.slowed(Way::Up)?.0),
    },
    // They do not fit here until many share a packet.
    Damage { name: "64 kbit/s", done: |machine| machine.slow_down(64), seen: |machine| Ok(machine.slowed(Way::Up)?.1) },
    Damage { name: "MTU 1280", done: |machine| machine.narrow(NARROW), seen: above_narrow },
    Damage { name: "black hole above 1200", done: |machine| swallow(machine, 1200), seen: dropped_on_one },
    Damage { name: "black hole above 1400", done: |machine| swallow(machine, 1400), seen: dropped_on_one },
    Damage { name: "nothing goes up", done: |machine| machine.cut(Way::Up), seen: |machine| machine.dropped(Way::Up) },
    Damage {
        name: "nothing comes down",
        done: |machine| machine.cut(Way::Down),
        seen: |machine| machine.dropped(Way::Down),
    },
    Damage {
        name: "UDP blocked",
        done: |machine| {
            machine.cut(Way::Up)?;
            machine.cut(Way::Down)
        },
        seen: dropped_on_both,
    },
];

/// Whether the damage is to large packets. Two hundred results a second with a line each go in small ones.
fn is_of_size(name: &str) -> bool {
    name.starts_with("black hole") || name.starts_with("MTU")
}

/// From now on the daemons answer with texts that fill packets, however they are compressed.
fn make_talkative(scene: &Scene) {
    let mut draw = StdRng::seed_from_u64(1);
    let hosts: BTreeSet<&String> = scene.audit.commands.keys().map(|(host, _)| host).collect();
    for host in hosts {
        let text: String = (0..LINE).map(|_| char::from(draw.sample(Alphanumeric))).collect();
        scene.fakes.say(host, "*", &format!("0 {text}|value=1")).unwrap();
    }
}

fn run(damage: &Damage) -> (Course, u64, u64) {
    let name = damage.name;
    let time = if all() { Duration::from_secs(30) } else { Duration::from_secs(14) };
    let (mut scene, machine) = Scene::cabled(Load::TWO_HUNDRED);
    for way in [Way::Up, Way::Down] {
        machine.watch_above(way, NARROW - HEADS).unwrap();
    }
    if is_of_size(name) {
        make_talkative(&scene);
    }
    scene.start();
    let (mut large, mut seen) = (0, 0);
    let bad = || {
        large = above_narrow(&machine).unwrap();
        // Counted packets pass at once; no rule behind would see them.
        machine.mend().unwrap();
        (damage.done)(&machine).unwrap();
        if name.starts_with("MTU") {
            for way in [Way::Up, Way::Down] {
                machine.watch_above(way, NARROW - HEADS).unwrap();
            }
        }
    };
    let good = || {
        seen = (damage.seen)(&machine).unwrap();
        machine.mend().unwrap();
    };
    let course = scene.course(name, time, bad, |_| {}, good);
    assert!(large > 0, "{name}: no packet was ever larger than {NARROW} bytes on a good cable");
    if name.starts_with("MTU") {
        // A cable that carries less takes nothing larger: the kernel says no to whoever sends it.
        assert_eq!(seen, 0, "{name}: packets above {NARROW} bytes still pass");
    } else {
        assert!(seen > 0, "{name}: the kernel did nothing to any packet");
    }
    (course, seen, large)
}

#[test]
fn no_result_is_lost_or_doubled_over_a_cable_of_the_kernel() {
    if let Some((tool, package)) = cables_need() {
        return missing(tool, package);
    }
    if !is_own("cabled::no_result_is_lost_or_doubled_over_a_cable_of_the_kernel") {
        return;
    }
    let profiles = if all() { &ALL[..] } else { &ALL[ONE_WAY..=ONE_WAY] };
    let mut courses = Vec::new();
    for damage in profiles {
        let name = damage.name;
        let (course, seen, large) = run(damage);
        eprintln!("{} (the kernel's count: {seen}; larger than {NARROW} bytes before: {large})", course.told(name));
        if is_of_size(name) {
            assert_eq!(course.links, 0, "{name}: a packet size that does not pass costs no link");
        }
        courses.push((name.to_owned(), course));
    }
    report("of the kernel", &courses);
}
