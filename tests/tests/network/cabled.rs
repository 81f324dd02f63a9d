//! Profiles that are the kernel's work: loss, rate, packet size, cuts of one way and of both, on a cable between two network
//! namespaces.

use std::time::Duration;

use tests::load::Load;
use tests::missing::missing;
use tests::network::{Machine, Way, cables_need, is_own};

use crate::scene::{Course, Scene, all, report};

type Damage = fn(&Machine) -> anyhow::Result<()>;

fn lose(machine: &Machine, thousandths: u32) -> anyhow::Result<()> {
    machine.lose(Way::Up, thousandths)?;
    machine.lose(Way::Down, thousandths)
}

const ONE_WAY: (&str, Damage) = ("nothing goes up", |machine| machine.cut(Way::Up));
const ALL: [(&str, Damage); 10] = [
    ("1 % loss", |machine| lose(machine, 10)),
    ("10 % loss", |machine| lose(machine, 100)),
    ("30 % loss", |machine| lose(machine, 300)),
    ("256 kbit/s", |machine| machine.slow_down(256)),
    ("MTU 1280", |machine| machine.narrow(1280)),
    ("black hole above 1200", |machine| {
        machine.swallow_above(Way::Up, 1200)?;
        machine.swallow_above(Way::Down, 1200)
    }),
    ("black hole above 1400", |machine| {
        machine.swallow_above(Way::Up, 1400)?;
        machine.swallow_above(Way::Down, 1400)
    }),
    ONE_WAY,
    ("nothing comes down", |machine| machine.cut(Way::Down)),
    ("UDP blocked", |machine| {
        machine.cut(Way::Up)?;
        machine.cut(Way::Down)
    }),
];

fn run(name: &str, damage: Damage) -> Course {
    let time = if all() { Duration::from_secs(30) } else { Duration::from_secs(14) };
    let (mut scene, machine) = Scene::cabled(Load::TWO_HUNDRED);
    scene.start();
    scene.course(name, time, || damage(&machine).unwrap(), |_| {}, || machine.mend().unwrap())
}

#[test]
fn no_result_is_lost_or_doubled_over_a_cable_of_the_kernel() {
    if let Some((tool, package)) = cables_need() {
        return missing(tool, package);
    }
    if !is_own("cabled::no_result_is_lost_or_doubled_over_a_cable_of_the_kernel") {
        return;
    }
    let profiles = if all() { ALL.to_vec() } else { vec![ONE_WAY] };
    let mut courses = Vec::new();
    for (name, damage) in profiles {
        let course = run(name, damage);
        eprintln!("{}", course.told(name));
        if name.starts_with("black hole") || name.starts_with("MTU") {
            assert_eq!(course.links, 0, "{name}: a packet size that does not pass costs no link");
        }
        courses.push((name.to_owned(), course));
    }
    report("of the kernel", &courses);
}
