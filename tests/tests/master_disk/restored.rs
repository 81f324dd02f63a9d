//! Yesterday's backup put back under a running fleet: no storm, every gap has a name, states are right, no id is given a second time.
//! The day in between is one of the programs' clocks: all of them are set forward by it after the backup.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use master::store::{self, Options};
use serde_json::Value;
use shared::name::CheckId;
use tests::figure::figure;
use tests::ledger::account::account;
use tests::ledger::judge;
use tests::violation;
use tests::wait::until;

use crate::scene::{PATIENCE, SERVICES, Scene, commands_of, configuration, host_name};

/// Configured when the backup is made, and after it.
const HOSTS: usize = 8;
const LATER: usize = 2;
/// All clocks are set forward by so much after the backup, in milliseconds.
const A_DAY: i64 = 86_400_000;
/// What is found to be a step may differ from it by this: until a program looks at its clocks.
const STEP_SLACK: i64 = 1_500;
/// Current state is right within a minute after the reconnect.
const RIGHT_WITHIN: Duration = Duration::from_secs(60);

fn said(output: &std::process::Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The one clock of all programs of a fleet, those of the command line among them.
struct Clock(PathBuf);

impl Clock {
    /// The machine's, so far.
    fn of(scene: &mut Scene, directory: &Path) -> Self {
        let file = directory.join("clock.offset");
        scene.fleet.master.clock = Some(file.clone());
        for satellite in scene.fleet.satellites.values_mut() {
            satellite.clock = Some(file.clone());
        }
        Self(file)
    }

    /// Sets it by so much off the machine's.
    fn set(&self, millis: i64) {
        // Written beside its place, so that no program reads the half of it.
        let half = self.0.with_extension("half");
        fs::write(&half, millis.to_string()).unwrap();
        fs::rename(&half, &self.0).unwrap();
    }
}

/// A time of the API.
fn time(of: &Value) -> jiff::Timestamp {
    of.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{of} is no time"))
}

fn states(services: &[Value]) -> BTreeSet<(String, String, String)> {
    let text = |service: &Value, name: &str| service[name].as_str().unwrap_or_default().to_owned();
    services.iter().map(|service| (text(service, "host"), text(service, "service"), text(service, "state"))).collect()
}

#[test]
fn a_fleet_goes_on_after_yesterdays_backup_was_restored() {
    let directory = tempfile::tempdir().unwrap();
    let mut scene = Scene::new(directory.path(), directory.path(), HOSTS + LATER, HOSTS);
    let clock = Clock::of(&mut scene, directory.path());
    scene.fleet.start().unwrap();
    scene.fleet.until_connected(PATIENCE).unwrap();
    scene.fakes.say("h00", "c0", "2 broken since before the backup").unwrap();
    scene.until_answered(150);

    let backup = directory.path().join("backup");
    let to = backup.to_string_lossy().into_owned();
    let made = scene.fleet.master.run(&["backup", "--with-keys", "--to", &to], true).unwrap();
    assert!(made.status.success(), "{}", said(&made));
    eprintln!("{}", said(&made));
    let again = scene.fleet.master.run(&["backup", "--to", &to], true).unwrap();
    assert_eq!(again.status.code(), Some(2), "{}", said(&again));
    assert!(said(&again).contains("is not empty"), "{}", said(&again));

    // A day goes by and on: states change, checks get numbers that the backup does not know, the configuration changes.
    scene.until_answered(50);
    clock.set(A_DAY);
    let is_it = |event: &Value| {
        event["whose"] == "master" && event["by_ms"].as_i64().is_some_and(|by| (by - A_DAY).abs() <= STEP_SLACK)
    };
    scene.fleet.until("a day later", PATIENCE, |api| Ok(api.events("clock")?.iter().any(is_it))).unwrap();
    scene.until_answered(100);
    let all: Vec<String> = (0..HOSTS + LATER).map(host_name).collect();
    fs::write(&scene.config, configuration(&scene.fakes, &all)).unwrap();
    let applied = scene.fleet.master.run(&["apply"], true).unwrap();
    assert!(applied.status.success(), "{}", said(&applied));
    scene.fakes.say("h01", "c1", "2 broken since after the backup").unwrap();
    scene.fakes.say("h00", "c0", "0 whole since after the backup").unwrap();
    scene.until_answered(200);
    let lost = scene.fleet.master.api().get("status").unwrap();
    scene.fleet.master.kill().unwrap();
    let lost_data = scene.fleet.master.data.clone();
    let next_lost = {
        let opened = store::open(&lost_data, Options::default()).unwrap();
        opened.status.next_check
    };

    let restored = scene.fleet.master.run(&["restore", "--from", &to], true).unwrap();
    assert!(restored.status.success(), "{}", said(&restored));
    eprintln!("{}", said(&restored));
    scene.until_answered(50);
    scene.fleet.master.start().unwrap();
    let started = Instant::now();
    scene.fleet.until_connected(PATIENCE).unwrap();
    let applied = scene.fleet.master.run(&["apply"], true).unwrap();
    assert!(applied.status.success(), "{}", said(&applied));
    let mut expected = BTreeSet::new();
    for (host, service) in commands_of(0..HOSTS + LATER).into_keys().filter(|(_, service)| !service.is_empty()) {
        let state = if host == "h01" && service == "s1" { "CRITICAL" } else { "OK" };
        expected.insert((host, service, state.to_owned()));
    }
    let right = scene.fleet.until("right", RIGHT_WITHIN, |api| Ok(states(&api.items("services", "")?) == expected));
    right.unwrap();
    let right_after = started.elapsed();
    scene.until_answered(150);

    // The ledger: what the lost store had taken in and the satellites still have is there once more, and once only.
    // What nobody can tell the object of any more is named, and nothing else is missing: every result is a numbered answer, so by the
    // sequences of runs as many are named as are missing by the answers' numbers. What was being asked when the satellite heard of the
    // restored store, of a check that this does not know, never became a result: the satellite says how often.
    scene.audit.commands = commands_of(0..HOSTS + LATER);
    let later: Vec<String> = (HOSTS..HOSTS + LATER).map(host_name).collect();
    let mut judged = None;
    let clean = until(PATIENCE, || {
        let evidence = scene.audit.evidence(&scene.fleet).unwrap();
        let verdict = judge(&evidence);
        let only_later = verdict.lost.iter().all(|lost| later.iter().any(|host| lost.starts_with(host)));
        let account = account(&evidence);
        let settled = account.as_ref().is_ok_and(|account| account.open == 0);
        let clean = only_later && settled && verdict.duplicates.is_empty() && verdict.impossible.is_empty();
        judged = Some((verdict, evidence, account));
        clean
    });
    let (verdict, evidence, account) = judged.unwrap();
    let never = verdict.duplicates.is_empty() && verdict.impossible.is_empty();
    violation::unless(never, || format!("{verdict:#?}"));
    assert!(clean, "{account:?}, {verdict:#?}\n{}", scene.fleet.last_words());
    assert!(!verdict.lost.is_empty(), "the checks that the backup does not know were asked before");
    let account = account.unwrap();
    assert_eq!(account.unnumbered, [] as [String; 0], "a check without an answer");
    let named = account.named;
    let void = evidence.void;
    assert_eq!(
        account.missing,
        named + void,
        "{named} results are named, {void} answers never became one: {verdict:#?}"
    );
    assert_eq!(verdict.lost.len() as u64, named + void, "{verdict:#?}");
    let api = scene.fleet.master.api();
    let gaps = api.items("gaps", "").unwrap();
    assert!(!gaps.is_empty(), "the results of the checks that the backup does not know are named");
    for gap in &gaps {
        assert!(gap["reason"] == "lost-by-restore" && gap["explained"] == true, "{gap}");
        assert!(gap["from"].is_string() && gap["to"].is_string(), "{gap}");
    }
    assert_eq!(named, gaps.iter().filter_map(|gap| gap["lost"].as_u64()).sum::<u64>());

    // The backup is yesterday's, and nothing that is shown is.
    let restored = api.get("status").unwrap()["restored"].clone();
    let apart = time(&restored["at"]).as_millisecond() - time(&restored["head_at"]).as_millisecond();
    assert!(apart >= A_DAY, "{apart} ms between the backup's last row and its restore: {restored}");
    let since_restore =
        |service: &Value| time(&service["last_check"]).as_millisecond() - time(&restored["at"]).as_millisecond();
    let of_today = |service: &Value| (0..A_DAY).contains(&since_restore(service));
    scene
        .fleet
        .until("showing today's results only", RIGHT_WITHIN, |api| Ok(api.items("services", "")?.iter().all(of_today)))
        .unwrap();

    // No storm: of what did not change since there is no transition; each of the others has its few.
    let status = api.get("status").unwrap();
    assert_ne!(status["timeline"], lost["timeline"]);
    let at = status["restored"]["at"].as_str().unwrap().to_owned();
    let transitions = api.events("transition").unwrap();
    let current =
        transitions.iter().filter(|event| event["late"] != true && event["recorded"].as_str() > Some(at.as_str()));
    let mut moved = 0;
    for event in current {
        let (host, service) = (event["host"].as_str().unwrap(), event["service"].as_str().unwrap_or_default());
        // A host that was never asked before the backup was is asked for the first time once more.
        let first = service.is_empty() && event["from_state"] == "PENDING";
        let changed = first || [("h00", "s0"), ("h01", "s1")].contains(&(host, service));
        let later = (HOSTS..HOSTS + LATER).any(|number| host_name(number) == host);
        assert!(changed || later, "a storm: {event}");
        moved += 1;
    }
    assert!(moved <= 2 + HOSTS + LATER * (SERVICES + 1), "{moved} transitions");

    // Numbers go on above those of the lost timeline.
    assert!(status["index"].as_u64() > lost["index"].as_u64(), "{status} {lost}");
    assert!(status["generation"].as_u64() > lost["generation"].as_u64());
    let words = scene.fleet.master.run(&["status"], true).unwrap();
    assert!(said(&words).contains("restored "), "{}", said(&words));
    eprintln!("{}{}", said(&words), said(&scene.fleet.master.run(&["gaps"], true).unwrap()));
    scene.fleet.terminate().unwrap();
    let opened = store::open(&lost_data, Options::default()).unwrap();
    for number in HOSTS..HOSTS + LATER {
        let id = opened.status.id(&host_name(number).parse().unwrap()).unwrap();
        assert!(id >= next_lost && id > CheckId(0), "{id} was given before: {next_lost} was next");
    }
    figure(
        18,
        &format!(
            "D6: a backup made {} h before, by the clocks of all programs, restored under a running fleet: {} answers, {} applied \
             once, 0 twice, {} missing: {named} are the results that {} gaps name, all lost-by-restore, {void} never became a result; states right {} ms after the start; {moved} transitions, none of what had not changed",
            apart / 3_600_000,
            verdict.answers,
            verdict.applied,
            verdict.lost.len(),
            evidence.named.len(),
            right_after.as_millis()
        ),
    );
}
