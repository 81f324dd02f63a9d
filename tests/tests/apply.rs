//! A changed configuration on its way into a running installation: mistakes are named and change nothing, what is new is checked, what
//! is gone is not, and what did not change keeps its state and its place in time.
#![expect(clippy::unwrap_used, reason = "a test that cannot set its stage has nothing better to do")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use serde_json::Value;
use tests::daemon::ledger;
use tests::fakes::{Fakes, daemon};
use tests::figure::figure;
use tests::fleet::Fleet;
use tests::wait::until;

const PATIENCE: Duration = Duration::from_secs(60);
const INTERVAL_MS: i64 = 1000;
/// The satellite measures the master's clock over the link, so that its due times move by what the link takes.
const CLOCK_MS: i64 = 50;

fn mistakes() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../master/testdata/config/ten-kinds")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Everything a command said, wherever it said it.
fn said(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

/// The configuration with these hosts; all of them have two services.
fn configuration(fakes: &Fakes, hosts: &[&str]) -> String {
    let mut text = format!(
        "regions: {{ eu: {{ slots: 1 }} }}\ntemplates: {{ fast: {{ check_interval: {INTERVAL_MS}ms, retry_interval: {INTERVAL_MS}ms }} }}\n\
         hosts:\n"
    );
    for host in hosts {
        let (ip, port) = (fakes.addresses[*host].ip(), fakes.addresses[*host].port());
        let _ = writeln!(text, "  {host}: {{ region: eu, address: {ip}, nrpe: {{ tls: plain, port: {port} }} }}");
    }
    text.push_str("services:\n");
    for service in ["load", "disk"] {
        let _ = writeln!(text, "  {service}: {{ hosts: [\"*\"], use: [fast], check: {{ nrpe: {service} }} }}");
    }
    text
}

struct Scene {
    fleet: Fleet,
    fakes: Fakes,
    config: PathBuf,
    _directory: tempfile::TempDir,
}

impl Scene {
    fn set() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let daemons: Vec<Value> = ["a", "b", "c"]
            .iter()
            .map(|host| daemon(host, "plain", &[("load", 1, "WARNING - high|load=9"), ("disk", 0, "OK - room")]))
            .collect();
        let fakes = Fakes::start(directory.path(), &daemons).unwrap();
        let config = directory.path().join("config");
        fs::create_dir(&config).unwrap();
        fs::write(config.join("site.yaml"), configuration(&fakes, &["a", "b"])).unwrap();
        let mut fleet = Fleet::new(directory.path(), &config, &[("eu", 1)]).unwrap();
        fleet.start().unwrap();
        let mut scene = Self { fleet, fakes, config, _directory: directory };
        scene.until_checked("a", 4);
        scene.until_checked("b", 4);
        scene
    }

    fn write(&self, text: &str) {
        fs::write(self.config.join("site.yaml"), text).unwrap();
    }

    fn apply(&self) -> Output {
        self.fleet.master.run(&["apply"], true).unwrap()
    }

    fn get(&self, path: &str) -> Value {
        self.fleet.master.api().get(path).unwrap()
    }

    fn generation(&self) -> u64 {
        self.get("status")["generation"].as_u64().unwrap()
    }

    /// Waits until the satellite has taken this generation in.
    fn until_applied(&self, generation: u64) {
        let applied = |slot: &Value| slot["applied_generation"].as_u64() >= Some(generation);
        self.fleet.until("applied", PATIENCE, |api| Ok(api.items("slots", "")?.iter().all(applied))).unwrap();
    }

    /// Waits until every service of the host was asked so many times from now on.
    fn until_checked(&mut self, host: &str, times: usize) {
        let counts = |fakes: &Fakes| {
            let answers = ledger::read(&fakes.ledger).unwrap_or_default();
            ["load", "disk"]
                .map(|command| answers.iter().filter(|answer| answer.host == host && answer.command == command).count())
        };
        let before = counts(&self.fakes);
        let checked = until(PATIENCE, || {
            let now = counts(&self.fakes);
            now.iter().zip(before).all(|(now, before)| *now >= before + times)
        });
        assert!(checked, "{host} is not checked: {:?}\n{}", counts(&self.fakes), self.fleet.last_words());
    }

    fn answers_of(&self, host: &str) -> usize {
        ledger::read(&self.fakes.ledger).unwrap().iter().filter(|answer| answer.host == host).count()
    }

    /// Places in the interval at which each service of a host was due, the first of each left out: new checks begin at once.
    fn phases(&self, host: &str) -> BTreeMap<String, Vec<i64>> {
        let mut phases: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for event in self.fleet.master.api().events("result").unwrap() {
            let Some(service) = event["service"].as_str().filter(|_| event["host"] == host) else { continue };
            let scheduled: jiff::Timestamp = event["scheduled"].as_str().unwrap().parse().unwrap();
            if !seen.insert(service.to_owned()) {
                let phase = scheduled.as_millisecond().rem_euclid(INTERVAL_MS);
                phases.entry(service.to_owned()).or_default().push(phase);
            }
        }
        phases
    }

    /// Every result of the host's services was due at one place in the interval, the same since the beginning.
    fn assert_on_the_grid(&self, host: &str) {
        let phases = self.phases(host);
        assert_eq!(phases.len(), 2, "{phases:?}");
        for (service, phases) in &phases {
            let apart = |phase: i64| {
                let apart = (phase - phases[0]).rem_euclid(INTERVAL_MS);
                apart.min(INTERVAL_MS - apart)
            };
            assert!(
                phases.iter().all(|phase| apart(*phase) <= CLOCK_MS),
                "{host}!{service} has left the grid: {phases:?}"
            );
        }
    }
}

#[test]
fn every_kind_of_mistake_is_named_with_place_and_hint() {
    let scene_free = Fleet::new(tempfile::tempdir().unwrap().path(), &mistakes(), &[]).unwrap();
    let path = mistakes();
    let output = scene_free.master.run(&["check-config", path.to_str().unwrap()], false).unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let text = said(&output);
    let errors: Vec<&str> = text.split("\nerror: ").collect();
    assert!(errors.len() > 10, "{text}");
    for error in errors.iter().skip(usize::from(!text.starts_with("error: "))) {
        let error = error.split("\nwarning: ").next().unwrap_or_default();
        assert!(error.contains("--> hosts.yaml:") || error.contains("--> services.yaml:"), "no place: {error}");
        assert!(error.contains("= hint: "), "no hint: {error}");
    }
    let json = scene_free.master.run(&["check-config", "--json", path.to_str().unwrap()], false).unwrap();
    let report: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((json.status.code(), &report["ok"]), (Some(2), &Value::Bool(false)));
    let kinds: BTreeSet<&str> =
        report["diagnostics"].as_array().unwrap().iter().filter_map(|found| found["message"].as_str()).collect();
    assert!(kinds.len() >= 10, "{kinds:?}");
    figure(6, &format!("{} mistakes in two files, each with place and hint, exit 2", report["errors"]));
}

#[test]
fn a_bad_revision_leaves_everything_as_it_is_and_a_good_one_changes_what_it_says() {
    let mut scene = Scene::set();
    let first = scene.generation();
    let load = scene.get("services/a/load");
    scene.assert_on_the_grid("a");

    // Mistakes: named, exit 2, nothing changes.
    let good = configuration(&scene.fakes, &["a", "b"]);
    scene.write(&good.replace("region: eu", "region: ue"));
    let refused = scene.apply();
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    let named = said(&refused);
    assert!(
        named.contains("site.yaml:4:") && named.contains("there is no region `ue`") && named.contains("hint"),
        "{named}"
    );
    assert_eq!(scene.generation(), first);
    assert_eq!(scene.get("status")["source_differs"], Value::Bool(true));
    scene.until_checked("b", 2);

    // A host comes, another goes.
    scene.write(&configuration(&scene.fakes, &["a", "c"]));
    let applied = scene.apply();
    assert_eq!(applied.status.code(), Some(0), "{}", said(&applied));
    let second = scene.generation();
    assert_eq!(second, first + 1);
    scene.until_applied(second);
    let gone = scene.answers_of("b");
    scene.until_checked("c", 3);
    scene.until_checked("a", 3);
    // A question that was asked at the moment of the change may still be answered.
    assert!(scene.answers_of("b") <= gone + 2, "b is still checked: {} answers, {gone} then", scene.answers_of("b"));
    let status = scene.fleet.master.api().ask("GET", "/api/v1/hosts/b").unwrap().0;
    assert_eq!(status, 404, "b is still shown");
    assert_eq!(scene.get("services/c/load")["state"], "WARNING");

    // What did not change went on as if nothing had been.
    let after = scene.get("services/a/load");
    assert_eq!(after["last_change"], load["last_change"], "the state of a service that did not change began anew");
    scene.assert_on_the_grid("a");

    // The same by signal.
    scene.write(&configuration(&scene.fakes, &["a", "b", "c"]));
    scene.fleet.master.signal("HUP").unwrap();
    let third = second + 1;
    scene.fleet.until("the third generation", PATIENCE, |api| Ok(api.get("status")?["generation"] == third)).unwrap();
    scene.until_checked("b", 2);
    scene.assert_on_the_grid("a");

    // And applying the same again changes nothing.
    let again = scene.apply();
    assert_eq!((again.status.code(), scene.generation()), (Some(0), third), "{}", said(&again));
    scene.fleet.terminate().unwrap();
    figure(
        6,
        "apply and SIGHUP change a running system, untouched checks keep state and phase; a bad revision changes nothing",
    );
}
