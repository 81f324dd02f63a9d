//! Cuts and what comes after them: how soon a peer that vanished is noticed, and how soon what is shown is right again.

use std::time::Duration;

use tests::figure::figure;
use tests::ledger::Said;
use tests::load::Load;
use tests::relay::Profile;
use tests::wait::until;

use crate::scene::{CLAIM, PATIENCE, Scene, number};

/// A peer that vanished is noticed within this.
const NOTICED: Duration = Duration::from_secs(15);
/// What is shown is right so long after a cut has healed, whatever waits on the satellite.
const RIGHT: Duration = Duration::from_secs(10);
/// Results of an hour of a thousand checks, one a minute.
const AN_HOUR: u64 = 60_000;
/// What stands in for them where time is short.
const A_FEW: u64 = 4_000;
/// A satellite tells of its positions so often that this is enough, whatever the machine.
const GATHERS: Duration = Duration::from_secs(900);
/// The whole backlog is there after so long.
const ARRIVES: Duration = Duration::from_secs(300);

/// A check that is asked so rarely that its next result is no help.
const RARELY: Duration = Duration::from_secs(40);

/// Nothing passes.
fn cut() -> Profile {
    Profile { cut: true, ..Profile::default() }
}

fn rare_answers(scene: &Scene) -> usize {
    tests::process::text(&scene.audit.ledger).lines().filter(|line| line.contains(" h00 slow ")).count()
}

#[test]
fn a_peer_that_vanished_is_noticed_on_both_sides_within_fifteen_seconds() {
    let (mut scene, relay) = Scene::relayed(Load::TWO_HUNDRED, 1, &[]);
    scene.start();
    let (before, from) = (scene.said("was not heard for"), relay.now());
    relay.both(cut());
    let (mut by_satellite, mut by_master) = (None, None);
    let api = scene.fleet.master.api();
    until(2 * NOTICED, || {
        let now = relay.now() - from;
        if scene.said("was not heard for") > before {
            by_satellite = by_satellite.or(Some(now));
        }
        if api.items("slots", "").is_ok_and(|slots| tests::fleet::connected(&slots) == 0) {
            by_master = by_master.or(Some(now));
        }
        by_satellite.is_some() && by_master.is_some()
    });
    let (satellite, master) = (by_satellite.unwrap(), by_master.unwrap());
    assert!(satellite <= NOTICED && master <= NOTICED, "satellite {satellite:?}, master {master:?}");
    relay.both(Profile::default());
    scene.fleet.until_connected(PATIENCE).unwrap();
    let (verdict, _) = scene.audit.verdict(&scene.fleet, ARRIVES).unwrap();
    assert!(verdict.is_clean(), "{verdict:#?}");
    figure(
        CLAIM,
        &format!(
            "a peer that vanished is noticed by the satellite after {satellite:.1?}, by the master after {master:.1?}"
        ),
    );
}

/// The hour is made in minutes: many results a second instead of a long cut. What it leaves on the satellite is the same.
#[test]
fn state_is_right_ten_seconds_after_a_cut_whatever_the_backlog() {
    let backlog = number("PERIGEE_BACKLOG", if crate::scene::all() { AN_HOUR } else { A_FEW });
    let slow = Some(RARELY);
    let load = Load { hosts: 50, services: 20, interval: Duration::from_secs(2), slow };
    let (mut scene, relay) = Scene::relayed(load, 1, &[]);
    scene.start();
    relay.both(cut());
    scene.fakes.say("h00", "slow", "2 broken").unwrap();
    scene.fakes.say("h01", "c0", "2 broken").unwrap();
    let waiting = |scene: &Scene| scene.position(Said::Durable).saturating_sub(scene.position(Said::Acknowledged));
    assert!(until(GATHERS, || waiting(&scene) >= backlog / 2), "{} results wait", waiting(&scene));
    // What was broken on the way and is not at the end must not be seen to be.
    scene.fakes.say("h01", "c0", "0 repaired").unwrap();
    assert!(until(GATHERS, || waiting(&scene) >= backlog), "{} results wait", waiting(&scene));
    let api = scene.fleet.master.api();
    let links = || api.items("slots", "").map_or(0, |slots| tests::fleet::connected(&slots));
    assert!(until(2 * NOTICED, || links() == 0), "the cut is not noticed");
    // The rare check has just run: no live result of it will come in time, its state has to come by itself.
    let before = rare_answers(&scene);
    assert!(until(2 * RARELY, || rare_answers(&scene) > before), "the rare check is not asked any more");
    let waited = waiting(&scene);

    relay.both(Profile::default());
    let healed = relay.now();
    let shown = |host: &str, service: &str, wanted: &str| {
        let is = |(name, state, kind): &(String, String, String)| name == service && state == wanted && kind == "HARD";
        scene.states(host).iter().any(is)
    };
    let mut connected = None;
    let right = until(PATIENCE, || {
        if connected.is_none() && links() == 1 {
            connected = Some(relay.now() - healed);
        }
        shown("h00", "slow", "CRITICAL") && shown("h01", "s0", "OK")
    });
    let after = relay.now() - healed;
    assert!(right, "state is not right {after:?} after the cut\n{}", scene.fleet.last_words());
    let (verdict, _) = scene.audit.verdict(&scene.fleet, ARRIVES).unwrap();
    let all_there = relay.now() - healed;
    assert!(verdict.is_clean(), "{verdict:#?}");
    assert!(after <= RIGHT, "state was right {after:?} after the cut, linked after {connected:?}");
    figure(
        CLAIM,
        &format!(
            "{waited} results waited at the end of a cut: linked {:.1?} and state right {after:.1?} after it, all there and judged \
             after {all_there:.0?}, 0 lost, 0 twice",
            connected.unwrap_or_default()
        ),
    );
}
