//! A satellite's prober among two hundred hosts, half of them hostile in every way of the table: the others must not notice, every
//! exchange ends in time, and memory and descriptors come back. A program of its own, because descriptors are counted.
//!
//! The rule, since the machine is never quiet: rounds of two phases take turns, one with a hundred more good hosts beside the
//! hundred that are measured, one with a hundred hostile ones in their place; everything else is the same. Latency runs from the
//! moment a check is due to its outcome. The median of the hostile phases' p99 may be 1.2 times that of the good phases', or
//! [`FLOOR`] more where that is less than a timer can tell. While that does not hold, more rounds are made, up to [`ROUNDS_MAX`].
#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene has failed")]
#![expect(clippy::disallowed_methods, reason = "latency can only be shown on the clock")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use satellite::probe::Prober;
use serde_json::{Value, json};
use shared::check::{Check, Exit, NrpeCheck, NrpeTls, Outcome, State};
use tests::daemon::hostile::{ANSWERED, kinds};
use tests::daemon::{Daemon, Spec, Transport};
use tests::fakes::Fakes;
use tests::figure::figure;
use tests::usage;
use tests::wait::until;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Hosts that are measured, and as many beside them.
const HALF: usize = 100;
/// Every check is due once in this time.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long a phase goes on.
const PHASE: Duration = Duration::from_secs(4);
/// What a check may take: short, so that a phase sees every kind run into it.
const TIMEOUT: Duration = Duration::from_secs(2);
/// What an exchange may take beyond its timeout.
const GRACE: Duration = Duration::from_secs(1);
/// Rounds in any case, and at most.
const ROUNDS: usize = 5;
const ROUNDS_MAX: usize = 15;
/// By this much p99 may always rise: two ticks of the runtime's timer.
const FLOOR: Duration = Duration::from_millis(2);
/// Memory may grow by so much, at its peak.
const MEMORY: u64 = 64 * 1024 * 1024;
/// How long the daemons may take to see that their clients are gone.
const CLOSED_WITHIN: Duration = Duration::from_secs(20);

/// A host and how its checks may end.
struct Host {
    name: String,
    check: Check,
    ends: &'static [&'static str],
    flying: AtomicBool,
}

impl Host {
    fn new(name: String, address: SocketAddr, tls: bool, ends: &'static [&'static str]) -> Arc<Self> {
        let check = Check::Nrpe(NrpeCheck {
            address: address.ip().to_string(),
            port: address.port(),
            tls: if tls { NrpeTls::Anonymous } else { NrpeTls::Plain },
            command: "load".to_owned(),
            args: Vec::new(),
            version: None,
            on_transport_error: State::Unknown,
            trust: None,
        });
        Arc::new(Self { name, check, ends, flying: Default::default() })
    }
}

/// What one check came to.
struct Probed {
    measured: bool,
    took: Duration,
    complaint: Option<String>,
}

/// Latencies of the measured checks, sorted, and how many checks there were in all.
struct Phase {
    latencies: Vec<Duration>,
    checks: usize,
}

impl Phase {
    fn p99(&self) -> Duration {
        self.latencies[self.latencies.len() * 99 / 100]
    }
}

fn end(outcome: &Outcome) -> &str {
    match &outcome.exit {
        Exit::Ran(_) => ANSWERED,
        Exit::TimedOut => "answer-timeout",
        Exit::Error(kind) => kind,
        Exit::Signal(_) => "signal",
    }
}

async fn probe(prober: Arc<Prober>, host: Arc<Host>, measured: bool, due: Instant) -> Probed {
    let outcome = prober.probe(&host.name, &host.check, TIMEOUT).await;
    let took = due.elapsed();
    host.flying.store(false, Ordering::Relaxed);
    let ended = end(&outcome);
    let good = host.ends.contains(&ended) && took <= TIMEOUT + GRACE && (!measured || outcome.state == State::Ok);
    let complaint = (!good).then(|| format!("{}: {ended} after {took:?}: {}", host.name, outcome.output));
    Probed { measured, took, complaint }
}

/// One phase: every check of every host is due once an interval, evenly spread, measured hosts and others in turn. One that is
/// still running when it is due again is left out, as a satellite does. Ends when the last check has ended.
async fn phase(prober: &Arc<Prober>, measured: &[Arc<Host>], beside: &[Arc<Host>]) -> Phase {
    let hosts: Vec<(&Arc<Host>, bool)> =
        measured.iter().zip(beside).flat_map(|(one, other)| [(one, true), (other, false)]).collect();
    let step = INTERVAL / u32::try_from(hosts.len()).unwrap();
    let began = Instant::now();
    let mut probes = JoinSet::new();
    let mut due = began;
    for number in 0.. {
        if due >= began + PHASE {
            break;
        }
        sleep_until(due).await;
        let (host, measured) = hosts[number % hosts.len()];
        if !host.flying.swap(true, Ordering::Relaxed) {
            probes.spawn(probe(Arc::clone(prober), Arc::clone(host), measured, due));
        }
        due += step;
    }
    let mut phase = Phase { latencies: Vec::new(), checks: 0 };
    let mut complaints = Vec::new();
    while let Some(probed) = probes.join_next().await {
        let Probed { measured, took, complaint } = probed.unwrap();
        phase.checks += 1;
        complaints.extend(complaint);
        if measured {
            phase.latencies.push(took);
        }
    }
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
    phase.latencies.sort_unstable();
    phase
}

fn median(phases: &[Phase]) -> Duration {
    let mut all: Vec<Duration> = phases.iter().map(Phase::p99).collect();
    all.sort_unstable();
    all[all.len() / 2]
}

fn holds(good: &[Phase], hostile: &[Phase]) -> bool {
    let normal = median(good);
    median(hostile) <= (normal * 6 / 5).max(normal + FLOOR)
}

/// A size of this process in bytes.
fn memory(name: &str) -> u64 {
    usage::memory(std::process::id(), name).unwrap()
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// A loopback address of its own for each host, because a host has few connections.
fn listen(set: u8, number: usize) -> SocketAddr {
    SocketAddr::from(([127, 67, set, u8::try_from(number + 1).unwrap()], 0))
}

/// Good hosts, on the running runtime.
async fn good(set: u8) -> (Vec<Daemon>, Vec<Arc<Host>>) {
    let (mut daemons, mut hosts) = (Vec::new(), Vec::new());
    for number in 0..HALF {
        let name = format!("good{set}-{number}");
        let mut spec = Spec::new(&name, Transport::Anonymous).answering("load", 0, "OK - load 0.1|load1=0.1;5;10;0");
        spec.listen = listen(set, number);
        let daemon = Daemon::start(spec, None, None).await.unwrap();
        hosts.push(Host::new(name, daemon.address, true, &[ANSWERED]));
        daemons.push(daemon);
    }
    (daemons, hosts)
}

/// Hostile hosts, every kind in its turn, as a process of their own.
fn hostile(directory: &Path) -> (Fakes, Vec<Arc<Host>>) {
    let kinds = kinds();
    let name = |number: usize| format!("{} ({number})", kinds[number % kinds.len()].name);
    let specs: Vec<Value> = (0..HALF)
        .map(|number| {
            let kind = &kinds[number % kinds.len()];
            json!({ "host": name(number), "kind": kind.name, "listen": listen(2, number) })
        })
        .collect();
    let fakes = Fakes::start_hostile(directory, &specs).unwrap();
    let hosts = (0..HALF).map(|number| {
        let kind = &kinds[number % kinds.len()];
        Host::new(name(number), fakes.addresses[&name(number)], kind.tls, kind.ends)
    });
    let hosts = hosts.collect();
    (fakes, hosts)
}

#[test]
fn half_of_the_hosts_being_hostile_costs_the_others_nothing() {
    assert!(kinds().len() <= HALF, "every kind has its turn");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(cores).enable_all().build().unwrap();
    let (outside, satellite) = (runtime(), runtime());
    let (daemons, measured) = outside.block_on(good(0));
    let (more, beside) = outside.block_on(good(1));
    let directory = tempfile::tempdir().unwrap();
    let (fakes, hostile) = hostile(directory.path());
    let prober = Arc::new(Prober::new().unwrap());
    let descriptors_before = descriptors();
    // The first time everything is learned: versions, tickets, who is a stranger.
    satellite.block_on(phase(&prober, &measured, &beside));
    let memory_before = memory("VmRSS");
    satellite.block_on(phase(&prober, &measured, &hostile));

    let (mut good, mut bad) = (Vec::new(), Vec::new());
    while good.len() < ROUNDS || (!holds(&good, &bad) && good.len() < ROUNDS_MAX) {
        // Taking turns at being first, so that no trend counts for one of them.
        for first in [good.len() % 2 == 0, good.len() % 2 != 0] {
            let others = if first { &beside } else { &hostile };
            let phase = satellite.block_on(phase(&prober, &measured, others));
            if first { good.push(phase) } else { bad.push(phase) }
        }
    }
    let (normal, among) = (median(&good), median(&bad));
    let came_back = until(CLOSED_WITHIN, || descriptors() <= descriptors_before);
    let descriptors_after = descriptors();
    let (peak, memory_after) = (memory("VmHWM"), memory("VmRSS"));
    let checks: usize = good.iter().chain(&bad).map(|phase| phase.checks).sum();
    let mebibytes = |after: u64| after.saturating_sub(memory_before) / (1024 * 1024);
    let said = format!(
        "{HALF} good hosts p99 {normal:.2?} among good ones, {among:.2?} among {HALF} hostile ones of {} kinds (medians of {} \
         rounds, {checks} checks); memory +{} MiB at its peak, +{} MiB after, {descriptors_before} descriptors before, \
         {descriptors_after} after",
        kinds().len(),
        good.len(),
        mebibytes(peak),
        mebibytes(memory_after),
    );
    assert!(holds(&good, &bad), "{said}");
    assert!(peak <= memory_before + MEMORY, "{said}");
    assert!(came_back, "{said}");
    figure(11, &said);
    drop((daemons, more, fakes));
}
