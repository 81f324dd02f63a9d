//! The real satellite as a process, with a master that this test plays: killed at random moments, started without its master, told
//! to end, given the wrong certificate. What it says was durable must arrive, once; the master's end of the link is the real one.
#![expect(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test that plays a master in real time")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use master::link::{CloseReason, LinkEvent, Links, Settings, listen};
use master::trust::Trust;
use shared::assignment::{AssignedCheck, Policy};
use shared::check::{Check, State, TcpCheck};
use shared::delivery::{Admission, BatchItem, admit, decode_header, decode_items};
use shared::frame::Lane;
use shared::message::{self, AssignmentBegin, ClockReply, HeldRun, Hello, RunPosition, ToMaster, ToSatellite, Welcome};
use shared::name::{CheckId, Generation, Grant, RunId, Sequence, Term, Timeline};
use shared::time::Timestamp;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// No single thing takes longer.
const PATIENCE: Duration = Duration::from_secs(30);
const CHECKS: u32 = 20;

fn binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(|deps| deps.parent()).unwrap().join("perigee-satellite");
    assert!(path.exists(), "{} is missing: make build", path.display());
    path
}

/// What is monitored: a port that counts who comes.
async fn open_port() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    (port, count)
}

fn check(id: u32, port: u16) -> AssignedCheck {
    AssignedCheck {
        id: CheckId(id),
        object: format!("host{id}!port").parse().unwrap(),
        check: Some(Check::Tcp(TcpCheck::port("127.0.0.1", port))),
        policy: Policy { check_interval_ms: 200, retry_interval_ms: 100, timeout_ms: 2000, max_attempts: 3 },
        grant: Grant(5),
        carried: None,
    }
}

/// The directories of one slot, and the installation that certified it.
struct Site {
    dir: TempDir,
    trust: Arc<Trust>,
}

impl Site {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let trust = Arc::new(Trust::open(&dir.path().join("master"), None).unwrap());
        Self { dir, trust }
    }

    fn certify(&self) {
        let out = self.dir.path().join("identity");
        self.trust.issue_slot(&"eu".parse().unwrap(), "1".parse().unwrap(), 30, &out).unwrap();
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn satellite(&self, master: SocketAddr, slot: &str) -> Satellite {
        self.satellite_with(master, slot, &[])
    }

    fn satellite_with(&self, master: SocketAddr, slot: &str, more: &[&str]) -> Satellite {
        let log = self.dir.path().join("log");
        let append = File::options().create(true).append(true).open(&log).unwrap();
        let child = Command::new(binary())
            .args(["run", "--region", "eu", "--slot", slot, "--log", "info,perigee::ack=debug,perigee::durable=debug"])
            .args(["--master", &master.to_string()])
            .arg("--data")
            .arg(self.data())
            .arg("--identity")
            .arg(self.dir.path().join("identity"))
            .args(more)
            .stderr(append)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Satellite { child, log }
    }

    /// Runs of all processes that lie on the volume.
    fn runs(&self) -> usize {
        let processes = std::fs::read_dir(self.data().join("spool")).unwrap().map(|entry| entry.unwrap().path());
        let runs = processes.filter(|path| path.is_dir()).flat_map(|path| std::fs::read_dir(path).unwrap());
        runs.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count()
    }

    fn status(&self) -> (Option<i32>, String) {
        let output = Command::new(binary()).args(["status", "--json", "--data"]).arg(self.data()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }
}

/// The process under test; never outlives the test.
struct Satellite {
    child: Child,
    log: PathBuf,
}

impl Satellite {
    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn terminate(&self) {
        let told =
            Command::new("sh").args(["-c", "kill -s TERM \"$0\"", &self.child.id().to_string()]).status().unwrap();
        assert!(told.success());
    }

    async fn ended(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "it does not end: {}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Satellite {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of one target as run and position.
fn positions(log: &str, target: &str) -> Vec<(RunId, u64)> {
    let lines = log.lines().filter(|line| line.contains(target));
    lines
        .filter_map(|line| {
            let field = |name: &str| line.split(name).nth(1)?.split_whitespace().next();
            Some((field("run=")?.parse().ok()?, field("position=")?.parse().ok()?))
        })
        .collect()
}

/// The master as this test plays it, behind the real link.
struct Master {
    links: Links,
    events: mpsc::Receiver<LinkEvent>,
    address: SocketAddr,
    assignment: Vec<AssignedCheck>,
    positions: BTreeMap<RunId, Sequence>,
    effects: BTreeMap<RunId, Vec<u64>>,
    held: BTreeMap<RunId, HeldRun>,
    hellos: Vec<Hello>,
    states: BTreeMap<CheckId, State>,
    lanes: BTreeMap<Lane, usize>,
    applied: Option<Generation>,
    connected: bool,
}

impl Master {
    async fn at(site: &Site, address: SocketAddr, assignment: Vec<AssignedCheck>) -> Self {
        let began = Instant::now();
        let (links, events, address) = loop {
            match listen(Settings { address, trust: site.trust.clone() }).await {
                Ok(listening) => break listening,
                Err(error) => assert!(began.elapsed() < PATIENCE, "{error:#}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        Self {
            links,
            events,
            address,
            assignment,
            positions: BTreeMap::new(),
            effects: BTreeMap::new(),
            held: BTreeMap::new(),
            hellos: Vec::new(),
            states: BTreeMap::new(),
            lanes: BTreeMap::new(),
            applied: None,
            connected: false,
        }
    }

    fn results(&self) -> usize {
        self.effects.values().map(Vec::len).sum()
    }

    /// Serves until something holds.
    async fn until(&mut self, what: &str, satellite: &Satellite, holds: impl Fn(&Master) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !holds(self) {
            match tokio::time::timeout_at(deadline, self.events.recv()).await {
                Ok(Some(event)) => self.handle(event),
                Ok(None) => panic!("the link is gone"),
                Err(_) => panic!("{what} did not come; the satellite's log:\n{}", satellite.log()),
            }
        }
    }

    /// Serves for a while, whatever comes.
    async fn serve(&mut self, duration: Duration) {
        let deadline = tokio::time::Instant::now() + duration;
        while let Ok(Some(event)) = tokio::time::timeout_at(deadline, self.events.recv()).await {
            self.handle(event);
        }
    }

    fn handle(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Connected { .. } => self.connected = true,
            LinkEvent::Disconnected { .. } => {
                self.connected = false;
                self.held.clear();
            }
            LinkEvent::Frame { connection, lane: Lane::Control, bytes, .. } => {
                let mut answers = Vec::new();
                for said in message::decode::<ToMaster>(&bytes).unwrap() {
                    self.hear(said, &mut answers);
                }
                self.drain(&mut answers);
                for payload in message::encode(&answers) {
                    self.links.send(connection, Bytes::from(payload));
                }
            }
            LinkEvent::Frame { connection, lane, bytes, .. } => {
                *self.lanes.entry(lane).or_default() += 1;
                let mut answers = vec![ToSatellite::Ack(self.receive(&bytes))];
                self.drain(&mut answers);
                for payload in message::encode(&answers) {
                    self.links.send(connection, Bytes::from(payload));
                }
            }
        }
    }

    fn hear(&mut self, said: ToMaster, answers: &mut Vec<ToSatellite>) {
        let clock = jiff::Timestamp::now().as_millisecond();
        match said {
            ToMaster::Hello(hello) => {
                self.held = hello.runs.iter().map(|held| (held.run, *held)).collect();
                answers.push(ToSatellite::Welcome(Box::new(Welcome {
                    protocol: message::PROTOCOL,
                    software: "test".into(),
                    installation: "acme".parse().unwrap(),
                    term: Term(1),
                    timeline: Timeline(7),
                    first_check: CheckId(0),
                    holder: true,
                    positions: self
                        .positions
                        .iter()
                        .map(|(run, at)| RunPosition { run: *run, position: *at })
                        .collect(),
                    clock: Timestamp::from_millis(clock),
                    credit: None,
                })));
                if hello.generation < Generation(3) {
                    answers
                        .push(ToSatellite::AssignmentBegin(AssignmentBegin { generation: Generation(3), whole: true }));
                    let upserts = self.assignment.iter().cloned().map(Box::new);
                    answers.extend(upserts.map(ToSatellite::AssignmentUpsert));
                    answers.push(ToSatellite::AssignmentEnd(Generation(3)));
                }
                self.hellos.push(*hello);
            }
            ToMaster::Heartbeat(heartbeat) => answers.push(ToSatellite::ClockReply(ClockReply {
                sent: heartbeat.clock,
                master: Timestamp::from_millis(clock),
            })),
            ToMaster::Applied(generation) => self.applied = Some(generation),
            ToMaster::State(_) | ToMaster::StatesEnd(_) | ToMaster::Wanted(_) | ToMaster::Returned(_) => {}
            ToMaster::Held(held) => {
                self.held.insert(held.run, held);
            }
            _ => {}
        }
    }

    fn receive(&mut self, bytes: &Bytes) -> RunPosition {
        let (header, body) = decode_header(bytes).unwrap();
        for item in decode_items(&header, body).unwrap() {
            match item {
                BatchItem::Result(_, result) => {
                    self.states.insert(result.check, result.after.state);
                }
                other => panic!("no such item was made: {other:?}"),
            }
        }
        let position = self.positions.entry(header.run).or_default();
        if let Admission::New { after, missing } = admit(*position, header.first, header.last) {
            assert_eq!(missing, None, "a hole before {header:?}");
            self.effects.entry(header.run).or_default().extend(after.0 + 1..=header.last.0);
            *position = header.last;
        }
        RunPosition { run: header.run, position: *position }
    }

    /// Complete runs are closed.
    fn drain(&mut self, answers: &mut Vec<ToSatellite>) {
        let positions = &self.positions;
        self.held.retain(|run, held| {
            let done = !held.open && positions.get(run).copied().unwrap_or_default() >= held.last;
            if done {
                answers.push(ToSatellite::CloseRun(*run));
            }
            !done
        });
    }
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_satellite_delivers_all_that_was_durable_once() {
    let site = Site::new();
    site.certify();
    let (port, _) = open_port().await;
    let assignment: Vec<AssignedCheck> = (1..=CHECKS).map(|id| check(id, port)).collect();
    let mut master = Master::at(&site, loopback(), assignment).await;
    let address = master.address;
    let mut satellite = site.satellite(address, "1");
    for round in 0..8_u64 {
        let before = master.results();
        let enough = usize::try_from(20 + round * 37).unwrap();
        master.until("results", &satellite, |master| master.results() > before + enough).await;
        if round % 3 == 1 {
            // A cut: what is made meanwhile is a backlog of the same process.
            master.links.close_all(CloseReason::Fault);
            let hellos = master.hellos.len();
            master.until("the way back", &satellite, |master| master.hellos.len() > hellos).await;
        } else {
            satellite.kill();
            satellite = site.satellite(address, "1");
        }
    }
    let before = master.results();
    master.until("results", &satellite, |master| master.results() > before + 20).await;
    satellite.terminate();
    master.until("the end", &satellite, |master| !master.connected).await;
    assert_eq!(satellite.ended().await.code(), Some(0));
    let mut durable: BTreeMap<RunId, u64> = BTreeMap::new();
    for (run, position) in positions(&satellite.log(), "perigee::durable") {
        assert!(durable.insert(run, position).is_none_or(|before| before < position), "positions rise");
    }
    assert!(durable.len() >= 6, "a run a process: {durable:?}");
    // What was durable but not acknowledged at the end lies on the volume: the next process brings it.
    satellite = site.satellite_with(address, "1", &["--spool-grace", "1s"]);
    let complete = |master: &Master| {
        let arrived = |run, last: &u64| master.effects.get(run).is_some_and(|effects| effects.last() >= Some(last));
        durable.iter().all(|(run, last)| arrived(run, last))
    };
    master.until("what the last process left", &satellite, complete).await;
    // All of it is delivered: it has stayed for its grace, and goes when that is over.
    assert!(master.hellos.last().unwrap().runs.len() >= 6, "{:?}", master.hellos.last());
    master.until("an empty volume", &satellite, |_| site.runs() <= 1).await;
    satellite.terminate();
    satellite.ended().await;
    for (run, last) in &durable {
        let effects = master.effects.get(run).cloned().unwrap_or_default();
        assert_eq!(
            effects,
            (1..=effects.len()).map(|n| u64::try_from(n).unwrap()).collect::<Vec<_>>(),
            "once, in order"
        );
        assert!(
            u64::try_from(effects.len()).unwrap() >= *last,
            "{run}: durable to {last}, arrived to {}",
            effects.len()
        );
    }
    for (run, position) in positions(&satellite.log(), "perigee::ack") {
        assert!(master.positions[&run].0 >= position, "nobody acknowledged that");
    }
    assert!(master.lanes[&Lane::Live] > 0 && master.lanes[&Lane::Backlog] > 0, "{:?}", master.lanes);
    assert!(master.states.values().all(|state| *state == State::Ok));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_master_it_starts_from_disk_and_delivers_later() {
    let site = Site::new();
    site.certify();
    let (port, asked) = open_port().await;
    let mut master = Master::at(&site, loopback(), vec![check(1, port), check(2, port)]).await;
    let address = master.address;
    let satellite = site.satellite(address, "1");
    master.until("the assignment", &satellite, |master| master.applied == Some(Generation(3))).await;
    master.links.stop().await;
    drop(master);
    satellite.kill();

    let satellite = site.satellite(address, "1");
    let before = asked.load(Ordering::Relaxed);
    let began = Instant::now();
    while asked.load(Ordering::Relaxed) < before + 20 {
        assert!(began.elapsed() < PATIENCE, "it does not check: {}", satellite.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let made = |satellite: &Satellite| {
        let durable: BTreeMap<RunId, u64> = positions(&satellite.log(), "perigee::durable").into_iter().collect();
        durable.values().sum::<u64>()
    };
    let made = usize::try_from(made(&satellite)).unwrap();
    assert!(made > 10);

    let mut master = Master::at(&site, address, Vec::new()).await;
    master.until("the backlog", &satellite, |master| master.results() >= made).await;
    assert_eq!(master.hellos[0].generation, Generation(3));
    assert_eq!(master.hellos[0].timeline, Some(Timeline(7)));
    assert!(master.lanes[&Lane::Backlog] > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_its_status_and_ends_within_five_seconds() {
    let site = Site::new();
    let (port, _) = open_port().await;
    let mut master = Master::at(&site, loopback(), vec![check(1, port)]).await;
    assert_eq!(site.status().0, Some(3), "nothing runs there");
    // Started before it has a certificate: it says what it waits for.
    let mut satellite = site.satellite(master.address, "1");
    let began = Instant::now();
    while !satellite.log().contains("slot.crt") {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    site.certify();
    master.until("results", &satellite, |master| master.results() > 3).await;
    let began = Instant::now();
    loop {
        let (code, told) = site.status();
        if code == Some(0) && told.contains("\"checks\":1") && told.contains("\"connected\":true") {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{code:?} {told}");
        master.serve(Duration::from_millis(50)).await;
    }
    let told: serde_json::Value = serde_json::from_str(&site.status().1).unwrap();
    assert!(told["nrpe"]["tickets"]["offered"].is_u64() && told["nrpe"]["handshakes"]["full"].is_u64(), "{told}");
    let lines = Command::new(binary()).args(["status", "--data"]).arg(site.data()).output().unwrap();
    let lines = String::from_utf8(lines.stdout).unwrap();
    assert!(lines.lines().any(|line| line.split_whitespace().eq(["nrpe.tickets.barred", "0"])), "{lines}");
    satellite.terminate();
    let began = Instant::now();
    master.until("the end", &satellite, |master| !master.connected).await;
    assert_eq!(satellite.ended().await.code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(site.status().0, Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_slot_is_wrong_use() {
    let site = Site::new();
    site.certify();
    let mut satellite = site.satellite("127.0.0.1:9".parse().unwrap(), "2");
    assert_eq!(satellite.ended().await.code(), Some(2));
    let log = satellite.log();
    assert!(log.contains("slot 1") && log.contains("slot 2") && log.contains("PERIGEE_SLOT"), "{log}");
}
