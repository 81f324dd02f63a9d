//! `perigee-satellite discover nrpe` as an operator has it: real daemons in their modes, daemons of our own for 2.x, 3.x and
//! NSClient++, a host that refuses, one that says nothing, one that speaks something else, closed ports. What it proposes is taken by
//! the master as it is, and every service that it found runs.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test that tells the time and has nothing better to do when its stage cannot be set"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::fakes::{Fakes, daemon};
use tests::fleet::{Fleet, program};
use tests::nrpe::mode::{Keys, Mode};
use tests::nrpe::{RealNrpe, Transport, free_port, installed};
use tests::pki::Pki;
use tests::process::Process;
use tests::wait::until;

/// No single thing takes longer; a check's first turn may come a minute after the configuration.
const PATIENCE: Duration = Duration::from_secs(150);
/// Two of the commands that are looked for by default, and one that never is.
const COMMANDS: &[(&str, &str)] = &[
    ("check_load", "/bin/echo 'OK - load|load1=1;2;3'"),
    ("check_users", "/bin/sh -c 'echo WARNING - many users; exit 1'"),
    ("backup", "/bin/echo OK"),
];
const MODES: [Mode; 9] = [
    Mode::Plain,
    Mode::Anonymous,
    Mode::AdhForced,
    Mode::AecdhOnly,
    Mode::OldProtocol,
    Mode::Certificate,
    Mode::OptionalClient,
    Mode::RequiredClient,
    Mode::NoAnonymous,
];

fn discover(arguments: &[String]) -> Output {
    let mut command = Command::new(program("perigee-satellite").unwrap());
    command.args(["discover", "nrpe", "--rate", "500"]).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn words(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(|&argument| argument.to_owned()).collect()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn check_config(path: &Path) -> Output {
    Command::new(program("perigee-master").unwrap()).arg("check-config").arg(path).output().unwrap()
}

/// A port that nobody listens on.
fn closed() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port(Ipv4Addr::LOCALHOST).unwrap()))
}

/// A peer that takes connections into its backlog and says nothing.
fn silent() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// A peer that answers everything with an HTTP error.
fn web_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // A client that is gone already has seen enough.
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    address
}

struct Scene {
    pki: Pki,
    real: Vec<(Mode, RealNrpe)>,
    stranger: RealNrpe,
    fakes: Fakes,
    silent: TcpListener,
    web: SocketAddr,
    closed: SocketAddr,
    directory: tempfile::TempDir,
}

impl Scene {
    fn set() -> Self {
        let pki = Pki::new().unwrap();
        let real = MODES.map(|mode| (mode, RealNrpe::in_mode(mode, &Keys::from(&pki), COMMANDS, "").unwrap()));
        let stranger = RealNrpe::in_mode(Mode::NotAllowed, &Keys::from(&pki), COMMANDS, "").unwrap();
        let directory = tempfile::tempdir().unwrap();
        let load = [("check_load", 2, "CRITICAL - load|load1=9;2;3")];
        let fake = |host, transport, more: Value| {
            let mut daemon = daemon(host, transport, &load);
            daemon.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            daemon
        };
        let fakes = [
            fake("two", "plain", json!({ "versions": [2] })),
            fake("two-adh", "adh", json!({ "versions": [2] })),
            fake("three", "anonymous", json!({ "versions": [2, 3] })),
            fake("windows", "plain", json!({ "versions": [2], "nsclient_payload": 1024 })),
        ];
        let fakes = Fakes::start(directory.path(), &fakes).unwrap();
        let real = real.into_iter().collect();
        Self { pki, real, stranger, fakes, silent: silent(), web: web_server(), closed: closed(), directory }
    }

    fn targets(&self) -> Vec<String> {
        let real = self.real.iter().map(|(_, daemon)| daemon.address);
        let fakes = self.fakes.addresses.values().copied();
        let others = [self.stranger.address, self.silent.local_addr().unwrap(), self.web, self.closed];
        real.chain(fakes).chain(others).map(|address| address.to_string()).collect()
    }

    fn arguments(&self, more: &[&str]) -> Vec<String> {
        let mut arguments = self.targets();
        arguments.extend(words(&["--timeout", "5", "--region", "eu", "--certificate"]));
        arguments.push(self.pki.client.certificate.display().to_string());
        arguments.extend(["--key".to_owned(), self.pki.client.key.display().to_string()]);
        arguments.extend(words(more));
        arguments
    }
}

#[test]
fn everybody_is_told_apart_and_what_is_proposed_runs() {
    if !installed() {
        return;
    }
    let scene = Scene::set();
    findings(&scene);
    proposal(&scene);
}

fn findings(scene: &Scene) {
    let output = discover(&scene.arguments(&["--json"]));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let by_port: BTreeMap<u64, &Value> =
        told["findings"].as_array().unwrap().iter().map(|found| (found["port"].as_u64().unwrap(), found)).collect();
    let at = |address: SocketAddr| by_port[&u64::from(address.port())];
    let commands = |found: &Value| found["commands"].as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    for (mode, daemon) in &scene.real {
        let found = at(daemon.address);
        let expected = match mode {
            Mode::Plain => "plain",
            mode if mode.has_certificate() => "certificate",
            _ => "anonymous",
        };
        assert_eq!((&found["found"], &found["mode"]), (&json!("nrpe"), &json!(expected)), "{mode:?}: {found:#}");
        assert!(found["says"].as_str().unwrap().starts_with("NRPE v4."), "{mode:?}: {found:#}");
        assert_eq!(found["client_certificate"], json!(*mode == Mode::RequiredClient), "{mode:?}");
        assert_eq!(commands(found), "check_load check_users", "{mode:?}: what was not looked for is not found");
        assert_eq!(found["commands"]["check_users"]["state"], "WARNING", "{mode:?}");
        assert_eq!(found["unclear"], json!({}), "{mode:?}");
        if mode.has_certificate() {
            let certificate = &found["tls"]["certificate"];
            assert_eq!((&certificate["issuer"], &certificate["subject"]), (&json!("ca"), &json!("server")), "{mode:?}");
            assert!(certificate["names"].as_array().unwrap().contains(&json!("nrpe.example.net")), "{mode:?}");
            assert!((363..=365).contains(&certificate["days"].as_i64().unwrap()), "{mode:?}: {certificate}");
        }
    }
    for (host, says, mode) in [
        ("two", "NRPE v2.15", "plain"),
        ("two-adh", "NRPE v2.15", "anonymous"),
        ("three", "NRPE v3.2.1", "anonymous"),
        ("windows", "NRPE v2.15", "plain"),
    ] {
        let found = at(scene.fakes.addresses[host]);
        assert_eq!((&found["says"], &found["mode"]), (&json!(says), &json!(mode)), "{host}: {found:#}");
        assert_eq!(commands(found), "check_load", "{host}");
    }
    let stranger = at(scene.stranger.address);
    assert_eq!((&stranger["found"], &stranger["source"]), (&json!("refused"), &json!("127.0.0.1")), "{stranger:#}");
    assert_eq!(at(scene.silent.local_addr().unwrap())["found"], "not-nrpe");
    assert_eq!(at(scene.web)["found"], "not-nrpe");
    assert_eq!(at(scene.closed)["found"], "nobody");
    let counts = json!({ "asked": 17, "nrpe": 13, "refused": 1, "wants_certificate": 0, "not_nrpe": 2, "nobody": 1 });
    assert_eq!(told["counts"], counts);
}

/// The printed configuration: good as it is, good as a part of another one, and run by a real installation.
fn proposal(scene: &Scene) {
    let output = discover(&scene.arguments(&[]));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("allow 127.0.0.1"), "{text}");
    let config = scene.directory.path().join("found.yaml");
    fs::write(&config, &output.stdout).unwrap();
    let checked = check_config(&config);
    assert_eq!(checked.status.code(), Some(0), "{}\n{text}", said(&checked));
    assert!(said(&checked).contains("good, 0 warnings"), "{}", said(&checked));

    let part = discover(&scene.arguments(&["--part"]));
    let whole = scene.directory.path().join("whole");
    fs::create_dir(&whole).unwrap();
    fs::write(whole.join("found.yaml"), &part.stdout).unwrap();
    fs::write(whole.join("regions.yaml"), "regions: { eu: { slots: 1 }, us: { slots: 1 } }\n").unwrap();
    let checked = check_config(&whole);
    assert_eq!(checked.status.code(), Some(0), "{}", said(&checked));

    let mut fleet = Fleet::new(scene.directory.path(), &config, &[("eu", 1)]).unwrap();
    fleet.start().unwrap();
    let expected: BTreeSet<(String, String, String)> = scene
        .real
        .iter()
        .flat_map(|(_, daemon)| [(daemon.address, "load", "OK"), (daemon.address, "users", "WARNING")])
        .chain(scene.fakes.addresses.values().map(|&address| (address, "load", "CRITICAL")))
        .map(|(address, service, state)| {
            (format!("127.0.0.1-{}", address.port()), service.to_owned(), state.to_owned())
        })
        .collect();
    let mut last = BTreeSet::new();
    let all = fleet.until("checked", PATIENCE, |api| {
        let services = api.items("services", "")?;
        let word = |service: &Value, key: &str| service[key].as_str().unwrap_or_default().to_owned();
        let of = |service: &Value| (word(service, "host"), word(service, "service"), word(service, "state"));
        // Every host has a service for its daemon besides.
        last = services.iter().map(of).filter(|(_, service, _)| service != "nrpe").collect();
        Ok(last == expected)
    });
    assert!(all.is_ok(), "{:#?}\n{:#}", last.symmetric_difference(&expected), all.unwrap_err());
    fleet.terminate().unwrap();
}

#[test]
fn an_interrupted_discovery_tells_what_it_has_found() {
    if !installed() {
        return;
    }
    let daemon = RealNrpe::start(Transport::Anonymous, COMMANDS, "").unwrap();
    // As process 1 of a container it would never hear a SIGTERM that it does not wait for.
    for signal in ["INT", "TERM"] {
        interrupted(daemon.address, signal);
    }
}

fn interrupted(daemon: SocketAddr, signal: &str) {
    let silent = silent();
    silent.set_nonblocking(true).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(program("perigee-satellite").unwrap());
    command.args(["discover", "nrpe", "--rate", "500", "--parallel", "1", "--timeout", "300", "--commands", "backup"]);
    command.args([daemon.to_string(), silent.local_addr().unwrap().to_string(), closed().to_string()]);
    let mut asking = Process::start("discover", &mut command, &directory.path().join("log")).unwrap();
    // One at a time: who is asked second is asked after the first is known.
    assert!(until(PATIENCE, || silent.accept().is_ok()), "{}", asking.last_words());
    asking.signal(signal).unwrap();
    assert!(until(PATIENCE, || asking.ended().is_some()), "{}", asking.last_words());
    let log = asking.log();
    assert_eq!(asking.ended().and_then(|status| status.code()), Some(0), "{log}");
    assert!(log.contains("1 target asked, 1 NRPE daemon, 2 not asked to the end"), "{log}");
    assert!(log.contains("check: { nrpe: backup }"), "{log}");
}

#[test]
fn connections_come_no_faster_than_told() {
    let targets: Vec<String> = (0..5).map(|_| closed().to_string()).collect();
    let began = Instant::now();
    let mut command = Command::new(program("perigee-satellite").unwrap());
    let output = command.args(["discover", "nrpe", "--rate", "2"]).args(&targets).output().unwrap();
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(output.status.code(), Some(1), "nobody was found: {}", said(&output));
    assert!(said(&output).contains("There is nothing to propose"), "{}", said(&output));
}

#[test]
fn lists_and_wrong_use() {
    let directory = tempfile::tempdir().unwrap();
    let list = directory.path().join("hosts.txt");
    let (one, two) = (closed(), closed());
    fs::write(&list, format!("# ours\n{one} {two}\n")).unwrap();
    let output = discover(&[format!("@{}", list.display()), "--exclude".to_owned(), two.to_string()]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("1 target asked, 0 NRPE daemons, 1 without an answer"), "{}", said(&output));
    fs::write(&list, "web01\n10.0.0.999\n").unwrap();
    for (arguments, words) in [
        (vec![format!("@{}", list.display())], "hosts.txt:2: “10.0.0.999” is no address"),
        (words(&["10.0.0.0/8"]), "more than 65536 targets"),
        (words(&["@/nonexistent"]), "cannot be read"),
        (words(&["web01", "--commands", "check_disk!/"]), "arguments are not asked for"),
        (words(&["web01", "--rate", "0"]), "--rate"),
        (words(&["web01", "--key", "x"]), "--certificate"),
        (words(&["-"]), "nobody is left"),
        (words(&[]), "TARGET"),
    ] {
        let output = discover(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(words), "{arguments:?}: {}", said(&output));
    }
}

/// `docs/nrpe.md` tried word for word: the commands of its section, with a daemon that is there in place of the page's hosts.
#[test]
fn the_commands_of_the_page_work() {
    if !installed() {
        return;
    }
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/nrpe.md")).unwrap();
    let (_, section) = page.split_once("\n## Discovery\n").unwrap();
    let section = section.split_once("\n## ").map_or(section, |(section, _)| section);
    let (_, block) = section.split_once("```text\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let commands: Vec<&str> = block.lines().collect();
    assert!(commands.len() >= 3, "{commands:?}");
    let daemon = RealNrpe::start(Transport::Anonymous, COMMANDS, "").unwrap();
    let address = daemon.address.to_string();
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("hosts.txt"), format!("{address} # found by hand\n")).unwrap();
    let programs = program("perigee-satellite").unwrap().parent().unwrap().display().to_string();
    for shown in commands {
        let run = shown.replace("10.0.0.0/24", &address).replace("--exclude 10.0.0.1", "--exclude 127.0.0.9");
        let run = run.replace("web[01-40].example.net", &format!("localhost:{}", daemon.address.port()));
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &run]).current_dir(directory.path()).env("PATH", format!("{programs}:/usr/bin:/bin"));
        let output = shell.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{shown}: {}", said(&output));
    }
}
