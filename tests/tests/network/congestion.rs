//! The three congestion controllers of QUIC on the roads where they differ. What the satellite's default is must be the best of
//! them, by the longest of its p99 lags: chosen by measurement, and measured again whenever this runs.

use std::time::Duration;

use satellite::link::tls::Congestion;
use tests::figure::figure;
use tests::load::Load;
use tests::relay::{Profile, Way};

use crate::scene::{CLAIM, Scene, all};

const CONTROLLERS: [(Congestion, &str); 3] =
    [(Congestion::NewReno, "new-reno"), (Congestion::Cubic, "cubic"), (Congestion::Bbr, "bbr")];
/// Lags that differ by less are the machine's.
const ALIKE: Duration = Duration::from_secs(1);

fn roads() -> Vec<(&'static str, Profile)> {
    let far = Profile { delay: Duration::from_millis(150), ..Profile::default() };
    let mut roads = vec![("30 % loss, 300 ms", Profile { loss: 0.3, ..far })];
    if all() {
        roads.push(("10 % loss, 300 ms", Profile { loss: 0.1, ..far }));
        roads.push(("256 kbit/s, 300 ms", Profile { rate: Some(32_000), ..far }));
    }
    roads
}

#[test]
fn the_default_controller_is_the_one_that_lags_least() {
    let time = if all() { Duration::from_secs(40) } else { Duration::from_secs(10) };
    let mut worst = [Duration::ZERO; 3];
    let mut table = Vec::new();
    for (road, profile) in roads() {
        for (at, (controller, name)) in CONTROLLERS.into_iter().enumerate() {
            if !all() && controller == Congestion::NewReno {
                continue;
            }
            let (mut scene, relay) = Scene::relayed(Load::TWO_HUNDRED, 1, &["--congestion", name]);
            scene.start();
            let before = relay.counts(Way::Up);
            let mut after = before;
            let good = || {
                after = relay.counts(Way::Up);
                relay.both(Profile::default());
            };
            let course = scene.course(road, time, || relay.both(profile), |_| {}, good);
            let p99 = course.lags.percentile(99);
            worst[at] = worst[at].max(p99);
            let seconds = time.as_secs_f64();
            let kilobytes = f64::from(u32::try_from(after.bytes - before.bytes).unwrap()) / 1000.0 / seconds;
            let each = kilobytes * 1000.0 / course.goodput.max(0.01);
            eprintln!(
                "{} | {kilobytes:.1} kB/s sent, {each:.0} bytes a result",
                course.told(&format!("{road}, {name}"))
            );
            table
                .push(format!("{road} {name} p99 {p99:.1?}, {:.0} a second, {each:.0} bytes a result", course.goodput));
        }
    }
    eprintln!("{}", table.join("\n"));
    let chosen = CONTROLLERS.iter().position(|(controller, _)| *controller == Congestion::default()).unwrap();
    let least = worst.iter().filter(|worst| !worst.is_zero()).min().unwrap();
    assert!(worst[chosen] <= *least + ALIKE, "chosen {:?}, longest p99 by controller {worst:?}", CONTROLLERS[chosen]);
    figure(CLAIM, &table.join("; "));
}
