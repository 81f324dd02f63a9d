//! Commands to the owners of checks, with the real programs and Debian's NRPE daemon: a check that would run in an hour runs at once,
//! a result from outside becomes state and history, a reset forgets; a command to a silent slot outlives the master and is done once.
//! The daemon's command counts how often it was run: that is the judge.
#![expect(clippy::unwrap_used, reason = "a test that has nothing better to do when its stage cannot be set")]

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::fleet::Fleet;
use tests::http::Client;
use tests::nrpe::{self, RealNrpe, Transport};

/// No single thing takes longer.
const PATIENCE: Duration = Duration::from_secs(90);

struct Scene {
    // Ends before its directory does.
    fleet: Fleet,
    daemon: RealNrpe,
    _directory: TempDir,
}

impl Scene {
    /// One host with one service, asked once an hour, by one slot; its first result is there.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let daemon = RealNrpe::start(Transport::Anonymous, &[], "").unwrap();
        let mut scene = Self { fleet: Self::fleet(&directory, daemon.address.port()), daemon, _directory: directory };
        let script = scene.script();
        fs::write(&script, "echo run >> \"$1\"\necho \"fine, run $(wc -l < \"$1\")|runs=$(wc -l < \"$1\")\"\n")
            .unwrap();
        let line = format!("/bin/sh {} {}", script.display(), scene.runs_file().display());
        scene.daemon.reload(&[("count", &line)]).unwrap();
        scene.fleet.start().unwrap();
        scene.until("first result", |scene, api| Ok(scene.runs() == 1 && state(api)? == "OK"));
        scene
    }

    fn fleet(directory: &TempDir, port: u16) -> Fleet {
        let file = directory.path().join("perigee.yaml");
        let text = format!(
            "regions: {{ eu: {{ slots: 1 }} }}\n\
             hosts:\n  alpha: {{ region: eu, address: 127.0.0.1, check_interval: 1h, check: {{ tcp: {port} }}, \
             nrpe: {{ port: {port}, service: false }} }}\n\
             services:\n  count: {{ hosts: [alpha], check_interval: 1h, retry_interval: 1h, max_check_attempts: 3, \
             check: {{ nrpe: count }} }}\n"
        );
        fs::write(&file, text).unwrap();
        Fleet::new(directory.path(), &file, &[("eu", 1)]).unwrap()
    }

    fn script(&self) -> PathBuf {
        self.daemon.directory().join("count.sh")
    }

    fn runs_file(&self) -> PathBuf {
        self.daemon.directory().join("runs")
    }

    /// How often the daemon ran the command.
    fn runs(&self) -> usize {
        fs::read_to_string(self.runs_file()).map_or(0, |text| text.lines().count())
    }

    fn until(&self, what: &str, mut holds: impl FnMut(&Self, &Client) -> anyhow::Result<bool>) {
        self.fleet.until(what, PATIENCE, |api| holds(self, api)).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.fleet.master.run(arguments, true).unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code(), said)
    }

    fn token(&self, role: &str) -> Client {
        let (code, said) = self.run(&["token", "create", "--role", role, "--name", "ann"]);
        assert_eq!(code, Some(0), "{said}");
        Client { token: said.lines().next().map(str::to_owned), ..self.fleet.master.api() }
    }
}

fn service(api: &Client) -> anyhow::Result<Value> {
    api.get("services/alpha/count")
}

/// Commands that the slot has not answered.
fn waiting(api: &Client) -> anyhow::Result<Option<u64>> {
    Ok(api.items("slots", "")?.first().and_then(|slot| slot["commands_waiting"].as_u64()))
}

fn state(api: &Client) -> anyhow::Result<String> {
    Ok(service(api)?["state"].as_str().unwrap_or_default().to_owned())
}

fn results(api: &Client) -> Vec<Value> {
    api.items("events", "kind=result&host=alpha&service=count&sort=index").unwrap()
}

#[test]
fn what_an_operator_asks_of_a_check_is_done_once_by_its_owner() {
    if !nrpe::installed() {
        return;
    }
    let mut scene = Scene::new();
    let body = json!({ "host": "alpha", "service": "count" });

    // A check at once: by the API, of whoever may operate.
    let (status, answer) = scene.token("read").post("actions/check-now", &body).unwrap();
    assert_eq!(status, 403, "{answer}");
    let (status, answer) = scene.token("operate").post("actions/check-now", &body).unwrap();
    assert_eq!((status, &answer["result"], &answer["slot"]), (200, &json!("told"), &json!("eu/1")), "{answer}");
    scene.until("forced", |scene, api| Ok(scene.runs() == 2 && service(api)?["output"] == "fine, run 2"));

    // The same as it is typed.
    let (code, said) = scene.run(&["check", "alpha!count"]);
    assert_eq!((code, said.as_str()), (Some(0), "alpha!count: slot eu/1 was told\n"));
    scene.until("forced again", |_, api| Ok(service(api)?["output"] == "fine, run 3"));
    let (code, said) = scene.run(&["check", "alpha!cuont"]);
    assert!(code == Some(2) && said.contains("alpha!cuont is not configured"), "{said}");

    // A result from outside is state and history, with performance data; and no execution.
    let (code, said) = scene.run(&["result", "alpha!count", "CRITICAL", "switched off|runs=0"]);
    assert_eq!((code, said.as_str()), (Some(0), "alpha!count: slot eu/1 was told\n"));
    scene.until("a problem", |_, api| Ok(state(api)? == "CRITICAL"));
    let shown = service(&scene.fleet.master.api()).unwrap();
    let expected = json!(["switched off", "SOFT", 1, true]);
    assert_eq!(json!([shown["output"], shown["state_type"], shown["attempt"], shown["passive"]]), expected, "{shown}");

    // A reset forgets.
    let (code, said) = scene.run(&["reset", "--filter", "service=count", "--json"]);
    let answer: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &answer["total"]), (Some(0), &json!(1)), "{said}");
    scene.until("reset", |_, api| Ok(state(api)? == "OK"));
    assert_eq!(service(&scene.fleet.master.api()).unwrap()["state_type"], "HARD");
    assert_eq!(scene.runs(), 3, "neither was an execution");

    // While the slot is silent a command waits, over a restart of the master too.
    scene.fleet.satellite("eu/1").unwrap().kill().unwrap();
    scene.until("silent", |_, api| Ok(api.items("slots", "")?.iter().all(|slot| slot["connected"] == false)));
    let (code, said) = scene.run(&["check", "alpha!count"]);
    assert!(code == Some(1) && said.contains("slot eu/1 is silent: the command waits"), "{said}");
    scene.fleet.master.kill().unwrap();
    scene.fleet.master.start().unwrap();
    scene.until("it waits", |_, api| Ok(waiting(api)? == Some(1)));
    scene.fleet.start_satellites().unwrap();
    scene.until("done", |_, api| Ok(service(api)?["output"] == "fine, run 4" && waiting(api)? == Some(0)));
    assert_eq!(scene.runs(), 4, "once");

    let api = scene.fleet.master.api();
    let outputs: Vec<Value> = results(&api).iter().map(|result| json!([result["output"], result["passive"]])).collect();
    let expected = [
        json!(["fine, run 1", false]),
        json!(["fine, run 2", false]),
        json!(["fine, run 3", false]),
        json!(["switched off", true]),
        json!(["the state was reset", true]),
        json!(["fine, run 4", false]),
    ];
    assert_eq!(outputs, expected, "one result of each");
    let commands = api.events("command").unwrap();
    let given: Vec<&Value> = commands.iter().map(|event| &event["what"]).collect();
    assert_eq!(given, ["check-now", "check-now", "passive-result", "reset", "check-now"], "{commands:#?}");
    let transitions = api.items("events", "kind=transition&host=alpha&service=count&sort=index").unwrap();
    assert!(
        transitions.iter().any(|change| change["to"] == "CRITICAL" || change["state"] == "CRITICAL"),
        "{transitions:#?}"
    );
    scene.fleet.terminate().unwrap();
}
