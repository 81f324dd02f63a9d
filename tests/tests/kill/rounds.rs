//! The rounds. `PERIGEE_ROUNDS` says how many, `PERIGEE_SEED` which; both are printed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use tests::audit::Audit;
use tests::fakes::{Fakes, daemon};
use tests::figure::figure;
use tests::fleet::Fleet;
use tests::ledger::{Evidence, judge};
use tests::wait::until;

use crate::replay;

const HOSTS: usize = 25;
const SERVICES: usize = 10;
/// One check of every service in this time: 250 a second.
const INTERVAL_MS: u64 = 1000;
const PATIENCE: Duration = Duration::from_secs(60);
/// The last results are on their way for so long at most, also on a busy machine.
const ARRIVES: Duration = Duration::from_secs(60);

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

fn configuration(fakes: &Fakes) -> String {
    let mut text = String::from("regions:\n  eu: { slots: 2, failover_after: 10m }\n");
    let _ = writeln!(
        text,
        "templates:\n  fast: {{ check_interval: {INTERVAL_MS}ms, retry_interval: {INTERVAL_MS}ms, timeout: 10s }}"
    );
    text.push_str("hosts:\n");
    for (host, address) in &fakes.addresses {
        let (ip, port) = (address.ip(), address.port());
        let _ = writeln!(
            text,
            "  {host}: {{ region: eu, address: {ip}, nrpe: {{ tls: plain, port: {port}, service: false }}, check_interval: 10s }}"
        );
    }
    text.push_str("services:\n");
    for service in 0..SERVICES {
        let _ = writeln!(text, "  s{service}: {{ hosts: [\"*\"], use: [fast], check: {{ nrpe: c{service} }} }}");
    }
    text
}

/// Waits for a moment that was drawn: the moment is the input of this test, not a synchronisation.
fn let_run(draw: &mut StdRng, millis: std::ops::Range<u64>) {
    let moment = Duration::from_millis(draw.random_range(millis));
    until(moment, || false);
}

#[test]
fn twenty_kills_under_load_lose_nothing_and_double_nothing() {
    let rounds = number("PERIGEE_ROUNDS", 20);
    let seed = number("PERIGEE_SEED", rand::random_range(1..1_000_000_000));
    eprintln!("{rounds} rounds, PERIGEE_SEED={seed}");
    let mut draw = StdRng::seed_from_u64(seed);

    let directory = tempfile::tempdir().unwrap();
    let names: Vec<(String, String)> =
        (0..SERVICES).map(|n| (format!("c{n}"), format!("OK - {n}|value={n};5;8"))).collect();
    let commands: Vec<(&str, i16, &str)> = names.iter().map(|(name, text)| (name.as_str(), 0, text.as_str())).collect();
    let daemons: Vec<Value> = (0..HOSTS).map(|host| daemon(&format!("h{host:02}"), "plain", &commands)).collect();
    let fakes = Fakes::start(directory.path(), &daemons).unwrap();
    let config = directory.path().join("site.yaml");
    fs::write(&config, configuration(&fakes)).unwrap();
    let mut fleet = Fleet::new(directory.path(), &config, &[("eu", 1), ("eu", 2)]).unwrap();
    let mut audit = Audit { ledger: fakes.ledger.clone(), ..Audit::default() };
    audit.commands = commands_by_service();
    fleet.start().unwrap();
    fleet.until_connected(PATIENCE).unwrap();

    for round in 0..rounds {
        let_run(&mut draw, 200..2000);
        if round % 2 == 0 {
            let slot = format!("eu/{}", draw.random_range(1..=2));
            audit.kill(fleet.satellite(&slot).unwrap()).unwrap();
            let_run(&mut draw, 0..500);
            fleet.start_satellites().unwrap();
        } else if round == rounds / 2 / 2 * 2 + 1 {
            // One good end in the middle leaves a checkpoint, so that the last start replays from one.
            fleet.master.terminate().unwrap();
            fleet.master.start().unwrap();
            fleet.until_connected(PATIENCE).unwrap();
            fleet.master.kill().unwrap();
            fleet.master.start().unwrap();
        } else {
            fleet.master.kill().unwrap();
            let_run(&mut draw, 0..500);
            fleet.master.start().unwrap();
        }
        fleet.until_connected(PATIENCE).unwrap();
    }

    let (verdict, evidence) = audit.verdict(&fleet, ARRIVES).unwrap();
    eprintln!("{} answers, {} applied, {} in flight", verdict.answers, verdict.applied, verdict.in_flight);
    assert!(verdict.is_clean(), "seed {seed}: {verdict:#?}\n{}", fleet.last_words());
    assert!(verdict.answers > 1000, "no load: {} answers", verdict.answers);
    let per_kill = verdict.in_flight / audit.kills.len().max(1);
    assert!(per_kill <= HOSTS * SERVICES, "{} answers were not durable when a satellite was killed", verdict.in_flight);

    assert_the_judge_is_awake(&evidence);

    let replayed = replay::assert_the_journal_gives_back_what_was_shown(&mut fleet);
    let gaps = evidence.named.len();
    figure(
        4,
        &format!(
            "{rounds} rounds, seed {seed}: {} answers, {} applied once, {} in flight when a satellite was killed, 0 lost, 0 twice, \
             {gaps} gaps; {replayed} rows replayed to equal bytes",
            verdict.answers, verdict.applied, verdict.in_flight
        ),
    );
}

/// One result taken out of this very history is a loss, one that is there twice is a duplicate, and nothing else is said.
fn assert_the_judge_is_awake(evidence: &Evidence) {
    let numbered = evidence.effects.iter().position(|effect| effect.serial.is_some()).unwrap();
    let mut without = evidence.clone();
    let taken = without.effects.remove(numbered);
    let verdict = judge(&without);
    assert!(verdict.duplicates.is_empty() && !verdict.lost.is_empty(), "{taken:?} was taken out: {verdict:#?}");
    let named = format!("{} c{}: serial {}", taken.host, &taken.service[1..], taken.serial.unwrap());
    assert!(verdict.lost.iter().any(|lost| lost.starts_with(&named)), "{named} was taken out: {verdict:#?}");
    let mut twice = evidence.clone();
    twice.effects.push(taken);
    let verdict = judge(&twice);
    assert!(verdict.lost.is_empty() && !verdict.duplicates.is_empty(), "one result is there twice: {verdict:#?}");
}

fn commands_by_service() -> BTreeMap<(String, String), String> {
    let hosts = (0..HOSTS).map(|host| format!("h{host:02}"));
    hosts.flat_map(|host| (0..SERVICES).map(move |n| ((host.clone(), format!("s{n}")), format!("c{n}")))).collect()
}
