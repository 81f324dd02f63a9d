//! Clocks that are set by an hour, forward and back, on either side, while a backlog waits: by an offset that the shipped programs
//! read (`shared::wall`), so that one of them alone is off. The outside ledger is clean, its answers go on coming at the checks' own
//! pace, each step stands in history once, and results of a satellite that is off bear the times at which the daemons answered.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use shared::wall::OFFSET_FILE;
use tests::figure::figure;
use tests::fleet::Fleet;
use tests::ledger::{Answer, Evidence};
use tests::load::Load;
use tests::relay::{Profile, Relay};
use tests::violation;
use tests::wait::until;

use crate::grants::Ownership;
use crate::scene::{ARRIVES, PATIENCE, laid_out, number, undelivered};

const AN_HOUR: i64 = 3_600_000;
/// A hundred results a second.
const LOAD: Load = Load { hosts: 10, services: 10, interval: Duration::from_secs(1), slow: None };
/// Results that wait when a clock is set, and as many more before the road is good again: some seconds on either side of the step.
const BACKLOG: u64 = 400;
/// What a step may differ from the hour by (ms): until a program looks at its clocks.
const STEP_SLACK: i64 = 1_500;
/// A result's time and its daemon's may differ by so much (ms), on a busy machine too; a step is 720 times that.
const TIME_SLACK: u64 = 5_000;
/// No check waits for longer (ms): ten times its interval, for a busy machine. One whose due time follows the clock waits an hour.
const SILENCE: u64 = 10_000;
/// The axis of due times is at most a tenth faster than real time.
const FASTEST_MS: u64 = 900;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Satellite,
    Master,
}

/// The file that puts a program's clock off.
struct Offset {
    file: PathBuf,
    millis: i64,
}

impl Offset {
    /// A clock that is right so far, and how a program is started to have it.
    fn new(directory: &Path, name: &str) -> (Self, Vec<String>) {
        let file = directory.join(format!("{name}.offset"));
        let variable = format!("{OFFSET_FILE}={}", file.display());
        (Self { file, millis: 0 }, vec!["env".to_owned(), variable])
    }

    fn step(&mut self, by: i64) {
        self.millis += by;
        // Written beside its place, so that no program reads the half of it.
        let half = self.file.with_extension("half");
        fs::write(&half, self.millis.to_string()).unwrap();
        fs::rename(&half, &self.file).unwrap();
    }
}

fn waiting(fleet: &Fleet) -> u64 {
    undelivered(&fleet.satellites["eu/1"].log())
}

/// A cut, in the midst of which a clock is set; and everything delivered again.
fn step_with_a_backlog(fleet: &mut Fleet, relay: &Relay, offset: &mut Offset, side: Side, by: i64) {
    relay.both(Profile { cut: true, ..Profile::default() });
    assert!(until(PATIENCE, || waiting(fleet) >= BACKLOG), "{} results wait", waiting(fleet));
    offset.step(by);
    let silent = || waiting(fleet) < 2 * BACKLOG;
    assert!(
        until(PATIENCE, || !silent()),
        "{side:?} by {by} ms: {} results wait\n{}",
        waiting(fleet),
        fleet.last_words()
    );
    relay.both(Profile::default());
    let whose = match side {
        Side::Satellite => "satellite",
        Side::Master => "master",
    };
    let is_it = |event: &Value| {
        event["whose"] == whose && event["by_ms"].as_i64().is_some_and(|told| (told - by).abs() <= STEP_SLACK)
    };
    fleet
        .until("told in history that a clock was set", ARRIVES, |api| {
            Ok(api.events("clock")?.last().is_some_and(is_it))
        })
        .unwrap();
    fleet.until_connected(PATIENCE).unwrap();
    fleet
        .until("current", ARRIVES, |api| Ok(api.items("services", "")?.iter().all(|shown| shown["stale"] == false)))
        .unwrap();
    // What is shown never waits for the backlog; the next cut does.
    assert!(until(ARRIVES, || waiting(fleet) < BACKLOG / 4), "{} results wait", waiting(fleet));
}

/// Answers of each check, in their order.
fn answers_by_check(evidence: &Evidence) -> BTreeMap<(&str, &str), Vec<&Answer>> {
    let mut by_check: BTreeMap<(&str, &str), Vec<&Answer>> = BTreeMap::new();
    for answer in &evidence.answers {
        by_check.entry((&answer.host, &answer.command)).or_default().push(answer);
    }
    by_check
}

/// The longest time between two answers to one check (ms), and checks that were asked more or less often than their interval says.
fn pace(evidence: &Evidence, interval: u64) -> (u64, Vec<String>) {
    let mut longest = 0;
    let mut odd = Vec::new();
    for (check, answers) in answers_by_check(evidence) {
        let (Some(first), Some(last)) = (answers.first(), answers.last()) else { continue };
        longest = answers.windows(2).map(|pair| pair[1].at.saturating_sub(pair[0].at)).fold(longest, u64::max);
        let (span, count) = (last.at - first.at, u64::try_from(answers.len()).unwrap());
        let (most, least) = (span * 1000 / (interval * FASTEST_MS) + 3, span / (2 * interval));
        if !(least..=most).contains(&count) {
            odd.push(format!("{check:?}: {count} answers in {span} ms"));
        }
    }
    (longest, odd)
}

/// The most that a result's time differs from the daemon's by (ms), and of how many results.
fn farthest(evidence: &Evidence, results: &[Value]) -> (u64, usize) {
    let answers: BTreeMap<(&str, &str, u64), u64> =
        evidence.answers.iter().map(|answer| ((&*answer.host, &*answer.command, answer.serial), answer.at)).collect();
    let mut off = Vec::new();
    for result in results {
        let (host, service) = (result["host"].as_str().unwrap(), result["service"].as_str().unwrap_or_default());
        let Some(command) = evidence.commands.get(&(host.to_owned(), service.to_owned())) else { continue };
        let words = result["perfdata"].as_str().unwrap_or_default().split(' ');
        let serial = words.filter_map(|word| word.strip_prefix("serial=")?.parse::<u64>().ok()).next();
        let answered = serial.and_then(|serial| answers.get(&(host, command.as_str(), serial)));
        if let Some(answered) = answered {
            let time: jiff::Timestamp = result["time"].as_str().unwrap().parse().unwrap();
            off.push(u64::try_from(time.as_millisecond()).unwrap().abs_diff(*answered));
        }
    }
    (off.iter().copied().max().unwrap_or(0), off.len())
}

#[test]
fn clocks_set_by_an_hour_on_either_side_move_no_check_and_lose_nothing() {
    let rounds = number("PERIGEE_STEPS", 1);
    let directory = tempfile::tempdir().unwrap();
    let (mut fleet, _fakes, audit) = laid_out(directory.path(), LOAD, 1);
    let relay = Relay::start(fleet.master.link, 1).unwrap();
    let (mut masters, through) = Offset::new(directory.path(), "master");
    fleet.master.through = through;
    let (mut satellites, through) = Offset::new(directory.path(), "satellite");
    let satellite = fleet.satellite("eu/1").unwrap();
    satellite.through = through;
    satellite.road = Some(relay.address);
    fleet.start().unwrap();
    fleet.until_connected(PATIENCE).unwrap();

    // First while the master's clock is right: what history says of times is judged by the daemons' clock.
    for _ in 0..rounds {
        for by in [AN_HOUR, -2 * AN_HOUR, AN_HOUR] {
            step_with_a_backlog(&mut fleet, &relay, &mut satellites, Side::Satellite, by);
        }
    }
    let (verdict, evidence) = audit.verdict(&fleet, ARRIVES).unwrap();
    violation::unless(verdict.is_clean(), || format!("{verdict:#?}\n{}", fleet.last_words()));
    let (off, compared) = farthest(&evidence, &fleet.master.api().events("result").unwrap());
    assert!(compared > 1000 && off <= TIME_SLACK, "of {compared} results one is {off} ms from the daemon's time");

    for _ in 0..rounds {
        for by in [AN_HOUR, -2 * AN_HOUR, AN_HOUR] {
            step_with_a_backlog(&mut fleet, &relay, &mut masters, Side::Master, by);
        }
    }
    let (verdict, evidence) = audit.verdict(&fleet, ARRIVES).unwrap();
    violation::unless(verdict.is_clean() && evidence.named.is_empty(), || format!("{verdict:#?} {:?}", evidence.named));
    let (longest, odd) = pace(&evidence, u64::try_from(LOAD.interval.as_millis()).unwrap());
    assert!(odd.is_empty() && longest <= SILENCE, "longest time between two answers {longest} ms; {odd:#?}");
    let told = fleet.master.api().events("clock").unwrap();
    assert_eq!(told.len(), usize::try_from(6 * rounds).unwrap(), "each step once: {told:#?}");
    // No time in the journal decreases, whatever the master's clock did.
    let recorded: Vec<Value> =
        fleet.master.api().events("result").unwrap().iter().map(|event| event["recorded"].clone()).collect();
    let recorded: Vec<jiff::Timestamp> = recorded.iter().map(|at| at.as_str().unwrap().parse().unwrap()).collect();
    assert!(recorded.is_sorted(), "a row is older than the one before");
    fleet.terminate().unwrap();
    Ownership::read(&fleet.master.data).assert_one_living_grant_each();
    figure(
        16,
        &format!(
            "clocks set by an hour and two, {} times a side, {BACKLOG} results and more waiting: {} answers, 0 lost, 0 twice, no gap, \
             at most {longest} ms between two answers to one check, times of {compared} results at most {off} ms from the daemons'",
            3 * rounds,
            verdict.answers
        ),
    );
}

#[test]
fn a_check_whose_due_times_follow_a_clock_is_found() {
    let answer = |serial: u64, at| Answer { at, host: "h".to_owned(), command: "c".to_owned(), serial };
    let evidence = |times: &[u64]| Evidence {
        answers: (1_u64..).zip(times).map(|(serial, at)| answer(serial, *at)).collect(),
        ..Evidence::default()
    };
    let steady: Vec<u64> = (0..100).map(|n| n * 1000).collect();
    assert_eq!(pace(&evidence(&steady), 1000), (1000, Vec::new()));
    let silent: Vec<u64> = steady.iter().map(|at| if *at > 50_000 { at + 3_600_000 } else { *at }).collect();
    let (longest, odd) = pace(&evidence(&silent), 1000);
    assert!(longest > SILENCE && odd.len() == 1, "{longest} {odd:?}");
    let hurried: Vec<u64> = (0..200).map(|n| n * 500).collect();
    assert_eq!(pace(&evidence(&hurried), 1000).1.len(), 1);
}
