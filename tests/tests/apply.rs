//! Configuration on its way into a running system, with the real programs: mistakes are all named and change nothing; a good
//! revision, by `apply` or by signal, brings what is new, ends what is gone, asks anew what has changed, and leaves the rest on its
//! grid and with its owner; a master that is started again goes on with the running revision, whatever the files say by then.
//! What is asked and what is not any more, the daemons say; when, the history says.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test that tells the time and has nothing better to do when its stage cannot be set"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tempfile::TempDir;
use tests::daemon::ledger;
use tests::fakes::{Fakes, daemon};
use tests::figure::figure;
use tests::fleet::{Fleet, program};
use tests::http::Client;
use tests::process::text;

/// No single thing takes longer.
const PATIENCE: Duration = Duration::from_secs(60);
const INTERVAL_MS: i64 = 2000;
/// How far two places on one grid may seem apart: records are made with clocks that are compared over a busy wire.
const CLOCK_ERROR_MS: i64 = 100;
/// A changed check is asked within its interval; the rest is what a busy machine may take, in milliseconds.
const ASKED_ANEW_WITHIN_MS: u64 = 2000 + 3000;
/// Checks of host alpha that nobody ever changes, the host itself besides.
const KEPT: [&str; 4] = ["kept1", "kept2", "kept3", "kept4"];

/// What must be said of `testdata/mistakes`: file, line, column, and words of message and hint.
const MISTAKES: [(&str, u64, u64, &str, &str); 14] = [
    ("hosts.yaml", 4, 16, "`slots` must be a whole number", "as in slots: 1"),
    ("hosts.yaml", 6, 30, "`check_interval` must be a duration with its unit", "30s"),
    ("hosts.yaml", 7, 18, "there is no template `generick`", "did you mean `generic`?"),
    ("hosts.yaml", 9, 3, "the brackets of “web[1-3” do not match", "web[01-40].example.net"),
    ("hosts.yaml", 10, 34, "there is no region `ue`", "did you mean `eu`?"),
    ("hosts.yaml", 11, 51, "anonymus", "did you mean `anonymous`?"),
    ("hosts.yaml", 12, 3, "the key `db2` is written twice", "line 11"),
    ("hosts.yaml", 13, 3, "the host says no region", "one of eu, us"),
    ("services.yaml", 2, 18, "is not valid CEL", "an expression looks like"),
    ("services.yaml", 3, 3, "`for` makes several services", "disk {{ disk }}"),
    ("services.yaml", 4, 28, "`chekc`", "did you mean `check`?"),
    ("services.yaml", 5, 46, "there is no command `mysql`", "commands"),
    ("services.yaml", 6, 72, "must not contain `!`", "no way to quote it"),
    ("services.yaml", 7, 3, "which hosts it is for", "hosts"),
];

fn mistakes() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/mistakes")
}

fn check_config(path: &Path, json: bool) -> Output {
    let mut command = Command::new(program("perigee-master").unwrap());
    command.arg("check-config").arg(path);
    if json {
        command.arg("--json");
    }
    command.output().unwrap()
}

/// Both outputs of a program as one text.
fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn every_mistake_is_named_with_its_place_and_a_hint() {
    let output = check_config(&mistakes(), false);
    let shown = said(&output);
    assert_eq!(output.status.code(), Some(2), "{shown}");
    let blocks: Vec<&str> = shown.split("\n\n").collect();
    for (file, line, column, message, hint) in MISTAKES {
        let place = format!("{file}:{line}:{column}");
        let block = blocks.iter().find(|block| block.lines().any(|line| line.trim_start() == format!("--> {place}")));
        let block = block.unwrap_or_else(|| panic!("nothing is said of {place}\n{shown}"));
        assert!(block.starts_with("error: ") && block.contains(message), "{place}: {message}?\n{block}");
        let (_, given) = block.split_once("hint: ").unwrap_or_else(|| panic!("{place} has no hint\n{block}"));
        assert!(given.contains(hint), "{place}: {hint}?\n{block}");
    }

    let output = check_config(&mistakes(), true);
    assert_eq!(output.status.code(), Some(2));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&answer["ok"], &answer["errors"]), (&Value::Bool(false), &Value::from(MISTAKES.len())), "{answer:#}");
    let diagnostics = answer["diagnostics"].as_array().unwrap();
    let of_json: BTreeSet<(&str, u64, u64)> = diagnostics
        .iter()
        .filter(|said| said["severity"] == "error")
        .map(|said| {
            assert!(said["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{said:#}");
            (said["file"].as_str().unwrap(), said["line"].as_u64().unwrap(), said["column"].as_u64().unwrap())
        })
        .collect();
    let expected: BTreeSet<(&str, u64, u64)> =
        MISTAKES.iter().map(|(file, line, column, ..)| (*file, *line, *column)).collect();
    assert_eq!(of_json, expected, "the same places, and no others");
    figure(6, &format!("{} kinds of mistakes, each with place and hint, exit 2", MISTAKES.len()));
}

/// What the configuration says at one time.
#[derive(Debug, Clone)]
struct Site<'s> {
    ports: &'s BTreeMap<&'static str, u16>,
    hosts: Vec<&'static str>,
    /// Command behind the service `asked` of alpha.
    asked: &'static str,
    extra: bool,
}

impl Site<'_> {
    fn text(&self) -> String {
        let mut text = "regions: { eu: { slots: 2 } }\n\
            templates: { even: { check_interval: 2s, retry_interval: 2s, max_check_attempts: 3, timeout: 5s } }\n\
            hosts:\n"
            .to_owned();
        for host in &self.hosts {
            let port = self.ports[host];
            writeln!(
                text,
                "  {host}: {{ use: [even], address: 127.0.0.1, nrpe: {{ tls: plain, port: {port}, service: false }} }}"
            )
            .unwrap();
        }
        text.push_str("services:\n  watch: { where: 'true', use: [even], check: { nrpe: watch } }\n");
        let own = KEPT.iter().map(|kept| (*kept, *kept)).chain([("asked", self.asked)]);
        for (service, command) in own.chain(self.extra.then_some(("extra", "extra"))) {
            writeln!(text, "  {service}: {{ hosts: [alpha], use: [even], check: {{ nrpe: {command} }} }}").unwrap();
        }
        text
    }

    /// The same with a mistake in its last line.
    fn broken(&self) -> String {
        format!("{}  broken: {{ hosts: [alpha], chekc: {{ nrpe: watch }} }}\n", self.text())
    }
}

struct Scene {
    // Ends before its directory does.
    fleet: Fleet,
    fakes: Fakes,
    ports: BTreeMap<&'static str, u16>,
    file: PathBuf,
    _directory: TempDir,
}

impl Scene {
    /// Alpha and beta are monitored, by two slots; gamma is there too, and nobody asks it.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let hosts = ["alpha", "beta", "gamma"];
        let daemons = hosts.map(|host| daemon(host, "plain", &[("*", 0, "fine"), (KEPT[0], 1, "busy")]));
        let fakes = Fakes::start(directory.path(), &daemons).unwrap();
        let ports = hosts.into_iter().map(|host| (host, fakes.addresses[host].port())).collect();
        let file = directory.path().join("perigee.yaml");
        fs::write(&file, Site { ports: &ports, hosts: vec!["alpha", "beta"], asked: "before", extra: false }.text())
            .unwrap();
        let mut fleet = Fleet::new(directory.path(), &file, &[("eu", 1), ("eu", 2)]).unwrap();
        fleet.start().unwrap();
        let scene = Self { fleet, fakes, ports, file, _directory: directory };
        let settled = |api: &Client| {
            let slots = api.items("slots", "")?;
            let checked = [api.items("hosts", "")?, api.items("services", "")?].concat();
            Ok(slots.len() == 2
                && slots.iter().all(|slot| slot["connected"] == true && slot["present"] == true)
                && checked.len() == 2 + 2 + KEPT.len() + 1
                && checked.iter().all(|object| {
                    object["state"] != "PENDING" && object["state_type"] == "HARD" && object["stale"] == false
                }))
        };
        scene.fleet.until("settled", PATIENCE, settled).unwrap();
        scene
    }

    fn write(&self, text: &str) {
        let beside = self.file.with_extension("new");
        fs::write(&beside, text).unwrap();
        fs::rename(&beside, &self.file).unwrap();
    }

    fn status(&self) -> Value {
        self.fleet.master.api().get("status").unwrap()
    }

    fn generation(&self) -> u64 {
        self.status()["generation"].as_u64().unwrap()
    }

    /// What runs: number and content.
    fn running(&self) -> (Value, Value) {
        let status = self.status();
        (status["generation"].clone(), status["digest"].clone())
    }

    fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.fleet.master.run(arguments, true).unwrap();
        (output.status.code(), said(&output))
    }

    fn differs(&self, differs: bool) {
        let told = |api: &Client| Ok(api.get("status")?["source_differs"] == differs);
        self.fleet.until("told whether the files differ", PATIENCE, told).unwrap();
    }

    /// Waits until this generation runs, and both slots have it.
    fn until_everywhere(&self, generation: u64) {
        let applied = |api: &Client| {
            let slots = api.items("slots", "")?;
            Ok(slots.iter().all(|slot| slot["applied_generation"].as_u64() >= Some(generation)))
        };
        self.fleet.until("everywhere", PATIENCE, applied).unwrap();
        assert_eq!(self.generation(), generation);
    }

    /// Waits until an object of the API has had a result after this moment, and gives its state.
    fn until_checked(&self, path: &str, after: u64) -> String {
        let mut state = String::new();
        let checked = |api: &Client| {
            let object = api.get(path)?;
            state = object["state"].as_str().unwrap_or_default().to_owned();
            let checked = object["last_check"].as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok());
            Ok(checked.is_some_and(|at| u64::try_from(at.as_millisecond()).is_ok_and(|at| at > after)))
        };
        self.fleet.until(&format!("{path} checked"), PATIENCE, checked).unwrap();
        state
    }

    /// Waits until a check that nobody touches has been asked so often again: time, as the system itself counts it.
    fn let_pass(&self, asked: usize) {
        let enough = self.asked("alpha", KEPT[0]) + asked;
        self.fleet.until("asked on and on", PATIENCE, |_| Ok(self.asked("alpha", KEPT[0]) >= enough)).unwrap();
    }

    /// How many answers a host's daemon has given to a command.
    fn asked(&self, host: &str, command: &str) -> usize {
        let answers = ledger::read(&self.fakes.ledger).unwrap();
        answers.iter().filter(|answer| answer.host == host && answer.command == command).count()
    }

    /// How many results of a host, its services included, the history knows.
    fn results(&self, host: &str) -> usize {
        self.fleet.master.api().items("events", &format!("kind=result&host={host}&sort=index")).unwrap().len()
    }

    /// What a problem that nobody touches has come to: since when, how often confirmed.
    fn problem(&self) -> [Value; 5] {
        let service = self.fleet.master.api().get(&format!("services/alpha/{}", KEPT[0])).unwrap();
        ["state", "state_type", "attempt", "last_change", "last_hard_change"].map(|field| service[field].clone())
    }

    /// Every result of alpha's untouched checks since then, by service; the host itself has no name.
    fn untouched(&self, since: i64) -> BTreeMap<String, Vec<Value>> {
        let mut by_service: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for result in self.fleet.master.api().items("events", "kind=result&host=alpha&sort=time").unwrap() {
            let service = result["service"].as_str().unwrap_or_default().to_owned();
            let kept = service.is_empty() || service == "watch" || KEPT.contains(&service.as_str());
            if kept && scheduled(&result) > since {
                by_service.entry(service).or_default().push(result);
            }
        }
        assert_eq!(by_service.len(), KEPT.len() + 2);
        by_service
    }

    /// Every untouched check of alpha stands on one grid, in order and without a long pause, and under one grant; says the
    /// greatest distance from the grid, in milliseconds, and how many results it looked at.
    fn keeps_grid_and_grant(&self, since: i64, pause_ms: i64) -> (i64, usize) {
        let (mut farthest, mut count) = (0, 0);
        for (service, results) in self.untouched(since) {
            let times: Vec<i64> = results.iter().map(scheduled).collect();
            let place = times[0].rem_euclid(INTERVAL_MS);
            for time in &times {
                let apart = (time - place).rem_euclid(INTERVAL_MS);
                let apart = apart.min(INTERVAL_MS - apart);
                assert!(apart <= CLOCK_ERROR_MS, "{service:?} is {apart} ms off its grid: {times:?}");
                farthest = farthest.max(apart);
            }
            for pair in times.windows(2) {
                let between = pair[1] - pair[0];
                assert!(
                    between >= INTERVAL_MS - CLOCK_ERROR_MS,
                    "{service:?} was asked twice for one place: {times:?}"
                );
                assert!(between <= pause_ms, "{service:?} was not asked for {between} ms: {times:?}");
            }
            let grants: BTreeSet<u64> = results.iter().filter_map(|result| result["grant"].as_u64()).collect();
            assert_eq!(grants.len(), 1, "{service:?} changed hands: {grants:?}");
            count += times.len();
        }
        (farthest, count)
    }
}

/// Now, in milliseconds since 1970, as the ledger has it.
fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn scheduled(result: &Value) -> i64 {
    let at: jiff::Timestamp = result["scheduled"].as_str().unwrap().parse().unwrap();
    at.as_millisecond()
}

#[test]
fn a_running_system_takes_what_is_good_and_nothing_else() {
    let mut scene = Scene::new();
    let ports = scene.ports.clone();
    let first = Site { ports: &ports, hosts: vec!["alpha", "beta"], asked: "before", extra: false };
    let since = i64::try_from(now()).unwrap();
    let (running, generation, problem) = (scene.running(), scene.generation(), scene.problem());
    assert_eq!(problem[0], "WARNING");
    scene.let_pass(2);

    // A bad revision is refused in words, and nothing of it runs.
    scene.write(&first.broken());
    let place = format!("perigee.yaml:{}:29", first.broken().lines().count());
    let (code, told) = scene.run(&["apply"]);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains(&place) && told.contains("`chekc`") && told.contains("did you mean `check`?"), "{told}");
    scene.differs(true);
    let refused = || text(&scene.fleet.master.log).matches("the configuration has mistakes").count();
    let before = refused();
    scene.fleet.master.signal("HUP").unwrap();
    scene.fleet.until("refused by signal", PATIENCE, |_| Ok(refused() > before)).unwrap();
    assert_eq!(scene.running(), running);

    // A good one by `apply`: beta goes, gamma comes, and `asked` is another question.
    let second = Site { hosts: vec!["alpha", "gamma"], asked: "after", ..first.clone() };
    scene.write(&second.text());
    let (applied, asked_before) = (now(), scene.asked("alpha", "after"));
    assert_eq!(asked_before, 0);
    let (code, told) = scene.run(&["apply"]);
    assert_eq!(code, Some(0), "{told}");
    scene.until_everywhere(generation + 1);
    scene.differs(false);
    assert_eq!(scene.until_checked("services/gamma/watch", applied), "OK");
    assert_eq!(scene.until_checked("hosts/gamma", applied), "UP");
    scene.fleet.until("asked anew", PATIENCE, |_| Ok(scene.asked("alpha", "after") > 0)).unwrap();
    let anew =
        ledger::read(&scene.fakes.ledger).unwrap().into_iter().find(|answer| answer.command == "after").unwrap().at
            - applied;
    assert!(anew <= ASKED_ANEW_WITHIN_MS, "a changed check waited {anew} ms");
    // What was under way when the slots learned of it has ended by then.
    scene.let_pass(1);
    let ended = || (scene.asked("beta", "watch"), scene.results("beta"), scene.asked("alpha", "before"));
    let gone = ended();
    scene.let_pass(3);
    assert_eq!(ended(), gone, "what is not configured is not asked any more");
    assert!(scene.asked("alpha", "after") >= 2);
    assert_eq!(scene.fleet.master.api().ask("GET", "/api/v1/hosts/beta").unwrap().0, 404);

    // Another by signal: beta is back, and alpha has one service more.
    let third = Site { hosts: vec!["alpha", "beta", "gamma"], asked: "after", extra: true, ..first.clone() };
    scene.write(&third.text());
    let signalled = now();
    scene.fleet.master.signal("HUP").unwrap();
    let taken = |api: &Client| Ok(api.get("status")?["generation"].as_u64() == Some(generation + 2));
    scene.fleet.until("taken in by signal", PATIENCE, taken).unwrap();
    scene.until_everywhere(generation + 2);
    assert_eq!(scene.until_checked("services/alpha/extra", signalled), "OK");
    assert_eq!(scene.until_checked("services/beta/watch", signalled), "OK");
    scene.let_pass(2);
    let (farthest, count) = scene.keeps_grid_and_grant(since, 3 * INTERVAL_MS);
    assert_eq!(scene.problem(), problem, "an untouched check keeps its state");

    resumes_what_runs(&mut scene, &third);
    // Checks went on while there was no master; that the pause is short is not promised for a machine that starts programs.
    scene.keeps_grid_and_grant(since, 10 * INTERVAL_MS);
    assert_eq!(scene.problem(), problem, "and keeps it over restarts");
    scene.fleet.terminate().unwrap();
    figure(
        6,
        &format!(
            "apply and SIGHUP on a running system: {count} results of untouched checks within {farthest} ms of their grid and under \
             one grant, a changed check asked anew after {anew} ms; after two restarts with other files the same revision runs"
        ),
    );
}

/// A master that is started again runs what ran, though the files say something else, or nothing that is valid.
fn resumes_what_runs(scene: &mut Scene, third: &Site<'_>) {
    let running = scene.running();
    let fourth = Site { hosts: vec!["alpha", "beta"], ..third.clone() };
    scene.write(&fourth.text());
    scene.fleet.master.terminate().unwrap();
    let started = now();
    scene.fleet.master.start().unwrap();
    assert_eq!(scene.running(), running);
    scene.differs(true);
    let (code, told) = scene.run(&["status"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("differ"), "{told}");
    let (code, told) = scene.run(&["status", "--json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, &told["source_differs"]), (Some(0), &Value::Bool(true)));
    assert_eq!(scene.until_checked("services/gamma/watch", started), "OK");

    scene.write(&third.broken());
    scene.fleet.master.kill().unwrap();
    let started = now();
    scene.fleet.master.start().unwrap();
    assert_eq!(scene.running(), running);
    scene.differs(true);
    assert_eq!(scene.until_checked("services/gamma/watch", started), "OK");

    scene.write(&third.text());
    let (code, told) = scene.run(&["apply"]);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(scene.running(), running, "what runs already is no new generation");
    scene.differs(false);
}
