//! Cuts and what comes after them: how soon a peer that vanished is noticed, and how soon everything that is shown is right again,
//! also when the satellite was killed and started meanwhile. `PERIGEE_CUT_SECONDS` makes a cut last so long, with a load of everyday:
//! the hour that is otherwise made in minutes takes an hour then.

use std::collections::BTreeSet;
use std::time::Duration;

use satellite::link::backoff::{BACKOFF_MAX, longest};
use tests::figure::figure;
use tests::ledger::{Said, Verdict};
use tests::load::Load;
use tests::relay::{Profile, Relay};
use tests::violation;
use tests::wait::{until, until_every};

use crate::scene::{CLAIM, LOOK, PATIENCE, Scene, all, number};
use crate::states::{STATES, given, wrong};

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
/// A backlog this small is as good as none.
const DRAINED: u64 = 1_000;
/// Checks that are asked so rarely that the next result of nearly all of them is no help: their states have to come by themselves.
const RARELY: Duration = Duration::from_secs(40);
/// Five hundred results a second, and a rare check of each host.
const AN_HOURS_LOAD: Load = Load { hosts: 140, services: 7, interval: Duration::from_secs(2), slow: Some(RARELY) };
/// As many checks, once a minute each: what makes 60,000 results in an hour.
const EVERYDAY: Load = Load {
    hosts: AN_HOURS_LOAD.hosts,
    services: AN_HOURS_LOAD.services,
    interval: Duration::from_secs(60),
    slow: Some(Duration::from_secs(60)),
};
/// Answers on their way to the satellite's disk when it is killed, at most, at five hundred a second.
const IN_FLIGHT: usize = 50;
/// So many rare checks at least are right without a new answer.
const BY_THEMSELVES: usize = 100;

/// Nothing passes.
fn cut() -> Profile {
    Profile { cut: true, ..Profile::default() }
}

/// How soon satellite and master notice that nothing comes from each other any more.
fn noticed(scene: &mut Scene, relay: &Relay, up: Profile, down: Profile) -> (Duration, Duration) {
    let ended = |scene: &Scene| scene.said("no link to the master: ");
    let (before, from) = (ended(scene), relay.now());
    relay.set(up, down);
    let (mut by_satellite, mut by_master) = (None, None);
    let api = scene.fleet.master.api();
    until(3 * NOTICED, || {
        let now = relay.now() - from;
        if ended(scene) > before {
            by_satellite = by_satellite.or(Some(now));
        }
        if api.items("slots", "").is_ok_and(|slots| tests::fleet::connected(&slots) == 0) {
            by_master = by_master.or(Some(now));
        }
        by_satellite.is_some() && by_master.is_some()
    });
    relay.both(Profile::default());
    scene.fleet.until_connected(PATIENCE).unwrap();
    let never = 3 * NOTICED;
    (by_satellite.unwrap_or(never), by_master.unwrap_or(never))
}

#[test]
fn a_peer_that_vanished_is_noticed_on_both_sides_within_fifteen_seconds_whichever_way_is_cut() {
    let (mut scene, relay) = Scene::relayed(Load::TWO_HUNDRED, 1, &[]);
    scene.start();
    let open = Profile::default();
    let mut told = Vec::new();
    for (name, up, down) in [("both ways", cut(), cut()), ("up", cut(), open), ("down", open, cut())] {
        let (satellite, master) = noticed(&mut scene, &relay, up, down);
        told.push(format!("cut {name}: by the satellite after {satellite:.1?}, by the master after {master:.1?}"));
        assert!(satellite <= NOTICED && master <= NOTICED, "{}\n{}", told.join("; "), scene.fleet.last_words());
    }
    let (verdict, _) = scene.audit.verdict(&scene.fleet, ARRIVES).unwrap();
    violation::unless(verdict.is_clean(), || format!("{verdict:#?}"));
    figure(CLAIM, &format!("a peer that vanished is noticed, {}", told.join("; ")));
}

/// How a road is cut.
#[derive(Debug, Clone, Copy)]
struct Cut {
    /// Until so many results wait.
    backlog: u64,
    /// And for so long at least.
    lasts: Duration,
    /// The satellite is killed and started again in its midst.
    restarted: bool,
}

/// What came of one heal.
struct Healed {
    lasted: Duration,
    waited: u64,
    linked: Duration,
    right: Duration,
    by_themselves: usize,
}

/// Results on the satellite that the master has not confirmed.
fn waiting(scene: &Scene) -> u64 {
    scene.position(Said::Durable).saturating_sub(scene.position(Said::Acknowledged))
}

/// Kills the satellite and starts it again. Waits until it has failed so often that a road of which it knows nothing would be left
/// alone for a minute.
fn restart(scene: &mut Scene) {
    let failed = |scene: &Scene| scene.said("no link to the master: ");
    let link = scene.fleet.master.link;
    let satellite = scene.fleet.satellite("eu/1").unwrap();
    scene.audit.kill(satellite).unwrap();
    satellite.start(link).unwrap();
    let before = failed(scene);
    let often = (1..100).find(|failures| longest(*failures) >= BACKOFF_MAX).unwrap();
    let enough = before + usize::try_from(often).unwrap();
    assert!(until_every(LOOK, GATHERS, || failed(scene) >= enough), "{} of {enough} attempts", failed(scene));
}

/// A cut until enough results wait and every rare check has another state; then a good road, and how soon all is right.
fn heal(scene: &mut Scene, relay: &Relay, how: Cut, heal: usize) -> Healed {
    let Cut { backlog, lasts, restarted } = how;
    assert!(until_every(LOOK, GATHERS, || waiting(scene) < DRAINED), "{} results still wait", waiting(scene));
    relay.both(cut());
    let began = relay.now();
    let path = scene.audit.ledger.clone();
    let ledger = || tests::process::text(&path);
    let hosts: BTreeSet<String> = scene.audit.commands.keys().map(|(host, _)| host.clone()).collect();
    let before = ledger().len();
    let (number, _) = STATES[heal % STATES.len()];
    for host in &hosts {
        scene.fakes.say(host, "slow", &format!("{number} said in cut {heal}")).unwrap();
    }
    scene.fakes.say("h01", "c0", "2 broken").unwrap();
    // A look reads all that was said so far: in an hour seldom enough.
    let (look, patience) = (LOOK.max(lasts / 600), GATHERS + lasts);
    assert!(until_every(look, patience, || waiting(scene) >= backlog / 2), "{} results wait", waiting(scene));
    // What was broken on the way and is not at the end must not be seen to be.
    scene.fakes.say("h01", "c0", "0 repaired").unwrap();
    if restarted {
        restart(scene);
    }
    let rare = |text: &str| -> BTreeSet<String> {
        let wanted = number.to_string();
        let now = given(text).filter(|((_, command), state)| *command == "slow" && *state == wanted);
        now.map(|((host, _), _)| host.to_owned()).collect()
    };
    let all_said = || rare(&ledger()[before..]).len() == hosts.len();
    let enough = || relay.now() - began >= lasts && waiting(scene) >= backlog && all_said();
    assert!(until_every(look, patience, enough), "{} results wait", waiting(scene));
    let api = scene.fleet.master.api();
    let links = || api.items("slots", "").map_or(0, |slots| tests::fleet::connected(&slots));
    assert!(until(2 * NOTICED, || links() == 0), "the cut is not noticed");

    let (waited, said_before) = (waiting(scene), ledger());
    assert!(wrong(scene, &said_before).len() >= hosts.len(), "what became so in a cut is shown before it has healed");
    relay.both(Profile::default());
    let healed = relay.now();
    let lasted = healed - began;
    let (mut linked, mut left, mut said) = (None, Vec::new(), String::new());
    let right = until_every(LOOK, PATIENCE, || {
        if linked.is_none() && links() == 1 {
            linked = Some(relay.now() - healed);
        }
        said = ledger();
        left = wrong(scene, &said);
        left.is_empty()
    });
    let after = relay.now() - healed;
    assert!(right, "{} states are not right {after:?} after the cut: {left:#?}", left.len());
    let answered = rare(&said[said_before.len()..]);
    Healed {
        lasted,
        waited,
        linked: linked.unwrap_or(after),
        right: after,
        by_themselves: hosts.len() - answered.len(),
    }
}

fn told(verdict: &Verdict, load: Load, heals: &[Healed]) -> String {
    let each: Vec<String> = heals
        .iter()
        .map(|healed| {
            let Healed { lasted, waited, linked, right, by_themselves } = healed;
            format!(
                "{waited} waited after {lasted:.0?}, linked {linked:.1?} and right {right:.1?} after the heal, {by_themselves} rare checks \
                 by themselves"
            )
        })
        .collect();
    let (answers, checks) = (verdict.answers, load.hosts * (load.services + 1));
    format!(
        "{} heals, all {checks} states compared: {}; {answers} answers, 0 lost, 0 twice",
        heals.len(),
        each.join("; ")
    )
}

/// Starts all of it and waits until every check has been asked once.
fn settled(load: Load) -> (Scene, Relay) {
    let (mut scene, relay) = Scene::relayed(load, number("PERIGEE_SEED", 1), &[]);
    scene.start();
    let within = 3 * load.slow.unwrap_or(load.interval);
    let settled = || wrong(&scene, &tests::process::text(&scene.audit.ledger)).is_empty();
    assert!(until_every(LOOK, within, settled), "not every check was asked once");
    (scene, relay)
}

/// Judges the ledger and each heal.
fn judged(scene: &Scene, load: Load, heals: &[Healed]) -> (Verdict, String) {
    let (verdict, _) = scene.audit.verdict(&scene.fleet, ARRIVES).unwrap();
    violation::unless(verdict.is_clean(), || format!("{verdict:#?}"));
    let text = told(&verdict, load, heals);
    for healed in heals {
        assert!(healed.right <= RIGHT && healed.by_themselves >= BY_THEMSELVES, "{text}");
    }
    (verdict, text)
}

/// The hour is made in minutes: many results a second instead of a long cut. What it leaves on the satellite is the same.
#[test]
fn every_state_is_right_ten_seconds_after_a_cut_whatever_the_backlog() {
    let lasts = Duration::from_secs(number("PERIGEE_CUT_SECONDS", 0));
    let (load, heals) = if lasts.is_zero() { (AN_HOURS_LOAD, if all() { 3 } else { 1 }) } else { (EVERYDAY, 1) };
    let heals = usize::try_from(number("PERIGEE_HEALS", heals)).unwrap();
    let backlog = number("PERIGEE_BACKLOG", if all() { AN_HOUR } else { A_FEW });
    let (mut scene, relay) = settled(load);
    let mut all_of_them = Vec::new();
    for number in 0..heals {
        let healed = heal(&mut scene, &relay, Cut { backlog, lasts, restarted: false }, number);
        eprintln!("heal {number}: {} waited, linked {:.1?}, right {:.1?}", healed.waited, healed.linked, healed.right);
        all_of_them.push(healed);
    }
    let (_, text) = judged(&scene, load, &all_of_them);
    figure(CLAIM, &text);
}

/// What is known of a road is on the volume: a satellite that was killed while its master could not be reached, and failed until one
/// that knows nothing of its road would be waiting for a minute, is there as soon as one that lived through the cut.
#[test]
fn a_satellite_restarted_in_a_cut_is_linked_and_every_state_right_ten_seconds_after_it() {
    let backlog = number("PERIGEE_BACKLOG", if all() { AN_HOUR } else { A_FEW });
    let (mut scene, relay) = settled(AN_HOURS_LOAD);
    let healed = heal(&mut scene, &relay, Cut { backlog, lasts: Duration::ZERO, restarted: true }, 0);
    let (verdict, text) = judged(&scene, AN_HOURS_LOAD, &[healed]);
    assert!(verdict.in_flight <= IN_FLIGHT, "{} in flight: {text}", verdict.in_flight);
    figure(CLAIM, &format!("killed and started again in the cut: {text}, {} in flight at the kill", verdict.in_flight));
}
