//! Cuts and what comes after them: how soon a peer that vanished is noticed, and how soon everything that is shown is right again.

use std::collections::BTreeSet;
use std::time::Duration;

use tests::figure::figure;
use tests::ledger::{Said, Verdict};
use tests::load::Load;
use tests::relay::{Profile, Relay};
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
    assert!(verdict.is_clean(), "{verdict:#?}");
    figure(CLAIM, &format!("a peer that vanished is noticed, {}", told.join("; ")));
}

/// What came of one heal.
struct Healed {
    waited: u64,
    linked: Duration,
    right: Duration,
    by_themselves: usize,
}

/// A cut until so many results wait and every rare check has another state; then a good road, and how soon all is right.
fn heal(scene: &Scene, relay: &Relay, backlog: u64, heal: usize) -> Healed {
    let waiting = || scene.position(Said::Durable).saturating_sub(scene.position(Said::Acknowledged));
    assert!(until_every(LOOK, GATHERS, || waiting() < DRAINED), "{} results still wait", waiting());
    relay.both(cut());
    let ledger = || tests::process::text(&scene.audit.ledger);
    let hosts: BTreeSet<&String> = scene.audit.commands.keys().map(|(host, _)| host).collect();
    let before = ledger().len();
    let (number, _) = STATES[heal % STATES.len()];
    for host in &hosts {
        scene.fakes.say(host, "slow", &format!("{number} said in cut {heal}")).unwrap();
    }
    scene.fakes.say("h01", "c0", "2 broken").unwrap();
    assert!(until_every(LOOK, GATHERS, || waiting() >= backlog / 2), "{} results wait", waiting());
    // What was broken on the way and is not at the end must not be seen to be.
    scene.fakes.say("h01", "c0", "0 repaired").unwrap();
    let rare = |text: &str| -> BTreeSet<String> {
        let wanted = number.to_string();
        let now = given(text).filter(|((_, command), state)| *command == "slow" && *state == wanted);
        now.map(|((host, _), _)| host.to_owned()).collect()
    };
    let all_said = || rare(&ledger()[before..]).len() == hosts.len();
    assert!(until_every(LOOK, GATHERS, || waiting() >= backlog && all_said()), "{} results wait", waiting());
    let api = scene.fleet.master.api();
    let links = || api.items("slots", "").map_or(0, |slots| tests::fleet::connected(&slots));
    assert!(until(2 * NOTICED, || links() == 0), "the cut is not noticed");

    let (waited, said_before) = (waiting(), ledger());
    assert!(wrong(scene, &said_before).len() >= hosts.len(), "what became so in a cut is shown before it has healed");
    relay.both(Profile::default());
    let healed = relay.now();
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
    Healed { waited, linked: linked.unwrap_or(after), right: after, by_themselves: hosts.len() - answered.len() }
}

fn told(verdict: &Verdict, heals: &[Healed]) -> String {
    let each: Vec<String> = heals
        .iter()
        .map(|healed| {
            let Healed { waited, linked, right, by_themselves } = healed;
            format!("{waited} waited, linked {linked:.1?} and right {right:.1?} after, {by_themselves} rare checks by themselves")
        })
        .collect();
    let (answers, checks) = (verdict.answers, AN_HOURS_LOAD.hosts * (AN_HOURS_LOAD.services + 1));
    format!(
        "{} heals, all {checks} states compared: {}; {answers} answers, 0 lost, 0 twice",
        heals.len(),
        each.join("; ")
    )
}

/// The hour is made in minutes: many results a second instead of a long cut. What it leaves on the satellite is the same.
#[test]
fn every_state_is_right_ten_seconds_after_a_cut_whatever_the_backlog() {
    let backlog = number("PERIGEE_BACKLOG", if all() { AN_HOUR } else { A_FEW });
    let heals = usize::try_from(number("PERIGEE_HEALS", if all() { 3 } else { 1 })).unwrap();
    let (mut scene, relay) = Scene::relayed(AN_HOURS_LOAD, number("PERIGEE_SEED", 1), &[]);
    scene.start();
    let settled = || wrong(&scene, &tests::process::text(&scene.audit.ledger)).is_empty();
    assert!(until_every(LOOK, 3 * RARELY, settled), "not every check was asked once");
    let mut all_of_them = Vec::new();
    for number in 0..heals {
        let healed = heal(&scene, &relay, backlog, number);
        eprintln!("heal {number}: {} waited, linked {:.1?}, right {:.1?}", healed.waited, healed.linked, healed.right);
        all_of_them.push(healed);
    }
    let (verdict, _) = scene.audit.verdict(&scene.fleet, ARRIVES).unwrap();
    assert!(verdict.is_clean(), "{verdict:#?}");
    let text = told(&verdict, &all_of_them);
    for healed in &all_of_them {
        assert!(healed.right <= RIGHT && healed.by_themselves >= BY_THEMSELVES, "{text}");
    }
    figure(CLAIM, &text);
}
