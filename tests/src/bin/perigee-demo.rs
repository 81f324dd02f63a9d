//! `make demo`: a whole installation on this machine, from one command to a page that shows it. Tells every step with its time, ends
//! with Ctrl-C, and leaves nothing behind. With `--smoke` it looks at what it has made, judges the outside ledger, and ends by itself
//! with one line of JSON.
#![expect(clippy::disallowed_methods, reason = "a program that tells how long its steps took")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use serde_json::{Map, Value, json};
use tests::demo::Stage;
use tests::http::Client;
use tests::sink::Sink;
use tokio::signal::unix::{SignalKind, signal};

/// No step takes longer; most take a second.
const STEP: Duration = Duration::from_secs(60);
/// The flapping service changes every six seconds.
const CHANGE: Duration = Duration::from_secs(30);
/// What is on its way when the ledger is judged arrives by then.
const ARRIVES: Duration = Duration::from_secs(10);
/// How often it looks whether everything still runs.
const WATCH: Duration = Duration::from_millis(500);

/// Perigee on this machine: a master, two regions with two satellites each, NRPE daemons, one host down, one service flapping.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// End after everything was seen to work; one line of JSON on standard output says what was seen.
    #[arg(long)]
    smoke: bool,
    /// Directory with the configuration.
    #[arg(long, value_name = "DIR")]
    config: Option<PathBuf>,
    /// Write performance data to this carbon, as HOST:PORT.
    #[arg(long, value_name = "HOST:PORT")]
    graphite: Option<String>,
}

/// Steps on standard error, each with the seconds since the start.
struct Progress {
    began: Instant,
    stop: Arc<AtomicBool>,
}

impl Progress {
    fn say(&self, mark: &str, text: &str) {
        let seconds = self.began.elapsed().as_secs_f64();
        // Without a terminal there is nobody to tell.
        let _ = writeln!(std::io::stderr(), "{mark} {seconds:5.1} s  {text}");
    }

    fn done(&self, text: &str) {
        self.say("✓", text);
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Fails when Ctrl-C was pressed, so that a step ends early.
    fn go_on(&self) -> Result<()> {
        ensure!(!self.is_stopped(), "stopped before it was up");
        Ok(())
    }

    fn until(&self, stage: &mut Stage, what: &str, holds: impl Fn(&Client) -> Result<bool>) -> Result<()> {
        let mut stopped = Ok(());
        let reached = stage.fleet.until(what, STEP, |api| {
            stopped = self.go_on();
            Ok(stopped.is_err() || holds(api)?)
        });
        stopped?;
        reached
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let stop = Arc::new(AtomicBool::new(false));
    let progress = Progress { began: Instant::now(), stop: Arc::clone(&stop) };
    match listen(stop).and_then(|()| run(&arguments, &progress)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress.say("✗", &format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Ctrl-C, SIGTERM and a closed terminal set `stop`; everything that waits looks at it.
fn listen(stop: Arc<AtomicBool>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate, mut hangup) = runtime.block_on(async {
        let of = |kind| signal(kind).context("signals cannot be caught");
        anyhow::Ok((of(SignalKind::interrupt())?, of(SignalKind::terminate())?, of(SignalKind::hangup())?))
    })?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
                stop.store(true, Ordering::Relaxed);
            }
        });
    })?;
    Ok(())
}

fn run(arguments: &Arguments, progress: &Progress) -> Result<()> {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/demo");
    let config = arguments.config.clone().unwrap_or(example);
    let sink = (arguments.smoke && arguments.graphite.is_none()).then(Sink::start).transpose()?;
    let graphite = sink.as_ref().map(|sink| sink.address.to_string()).or_else(|| arguments.graphite.clone());
    let mut stage = Stage::set(&config, graphite.as_deref())?;
    let came_up = come_up(&mut stage, progress);
    let seen = match came_up {
        Ok(()) if arguments.smoke => smoke(&mut stage, progress, sink.as_ref()),
        Ok(()) => show(&mut stage, progress).map(|()| None),
        Err(error) => Err(error),
    };
    if seen.is_err() && !progress.is_stopped() {
        progress.say("✗", &stage.fleet.last_words());
    }
    let ended = stage.end();
    if ended.is_ok() {
        progress.done("everything has ended, nothing is left behind");
    }
    let seen = seen?;
    ended?;
    if let Some(seen) = seen {
        writeln!(std::io::stdout(), "{}", seen.report)?;
        ensure!(seen.good, "this is not what the demo should show");
    }
    Ok(())
}

fn come_up(stage: &mut Stage, progress: &Progress) -> Result<()> {
    stage.start_daemons()?;
    let (real, fakes, port) = (stage.real, stage.fakes, stage.port);
    let debian = if real == 0 {
        "none of Debian's (nagios-nrpe-server is not installed)".to_owned()
    } else {
        format!("{real} of Debian's")
    };
    progress.done(&format!("NRPE daemons listen on port {port}: {debian}, {fakes} of the tests' own"));
    progress.go_on()?;
    stage.fleet.master.start()?;
    progress.done(&format!("the master runs, its link port is {}/udp", stage.fleet.master.link));
    progress.go_on()?;
    stage.fleet.certify()?;
    stage.fleet.start_satellites()?;
    let slots = stage.fleet.satellites.len();
    progress.done(&format!("{slots} satellites have their certificates and are started"));
    progress
        .until(stage, "all slots connected", |api| Ok(tests::fleet::connected(&api.items("slots", "")?) == slots))?;
    progress.done("all of them are connected");
    progress.until(stage, "a result of every check", |api| Ok(pending(api)? == 0))?;
    let states = by_state(&stage.fleet.master.api())?;
    progress.done(&format!("every check has a result: {}", in_words(&states)));
    Ok(())
}

/// The normal demo: stands until told to stop.
fn show(stage: &mut Stage, progress: &Progress) -> Result<()> {
    progress.done(&format!("look at http://{}/ (Ctrl-C ends everything)", stage.fleet.master.web));
    let mut missing = Vec::new();
    while !progress.is_stopped() {
        thread::sleep(WATCH);
        let now = stage.missing();
        for name in now.iter().filter(|name| !missing.contains(*name)) {
            progress
                .say("!", &format!("{name} has ended by itself; its log is in {}", stage.fleet.directory.display()));
        }
        missing = now;
    }
    progress.say(" ", "stopping");
    Ok(())
}

/// What a smoke run saw.
struct Seen {
    report: Value,
    good: bool,
}

fn smoke(stage: &mut Stage, progress: &Progress, sink: Option<&Sink>) -> Result<Option<Seen>> {
    let api = stage.fleet.master.api();
    let mut described = None;
    api.stream("", None)?.until(CHANGE, |message| {
        described = changed(&message.data);
        described.is_some()
    })?;
    progress.done(&format!("a state has changed: {}", described.unwrap_or_default()));
    let missing = stage.missing();
    ensure!(missing.is_empty(), "ended by themselves: {}", missing.join(", "));
    let (verdict, evidence) = stage.audit.verdict(&stage.fleet, ARRIVES)?;
    for line in verdict.lost.iter().chain(&verdict.duplicates).chain(&verdict.impossible) {
        progress.say("✗", line);
    }
    let answers = format!("{} of {} numbered answers have their effect, once", verdict.applied, verdict.answers);
    progress.done(&answers);
    let points = match sink {
        Some(sink) => {
            let written = tests::wait::until(ARRIVES, || sink.count() > 0);
            ensure!(
                written && sink.nonsense() == 0,
                "{} points, {} lines that are none",
                sink.count(),
                sink.nonsense()
            );
            progress.done(&format!("{} points were written to a store of our own", sink.count()));
            sink.count()
        }
        None => 0,
    };
    let status = api.get("status")?;
    let slots = api.items("slots", "")?;
    let states = by_state(&api)?;
    let hosts = api.items("hosts", "")?.len();
    let services = api.items("services", "")?.len();
    let good = verdict.is_clean() && verdict.answers > 0 && states.get("DOWN").is_some_and(|down| *down == 1);
    let report = json!({
        "regions": status["regions"],
        "slots": tests::fleet::connected(&slots),
        "hosts": hosts,
        "services": services,
        "results": evidence.effects.len(),
        "by_state": states,
        "points": points,
        "lost": verdict.lost.len(),
        "duplicates": verdict.duplicates.len(),
        "daemons": { "debian": stage.real, "agent": 0, "fake": stage.fakes },
    });
    Ok(Some(Seen { report, good }))
}

/// How many objects have no result yet.
fn pending(api: &Client) -> Result<u64> {
    let objects = [api.items("hosts", "")?, api.items("services", "")?].concat();
    if objects.is_empty() {
        bail!("nothing is configured");
    }
    let without = objects.iter().filter(|object| object["last_check"].is_null() || object["state"] == "PENDING");
    Ok(u64::try_from(without.count())?)
}

/// Hosts and services by state.
fn by_state(api: &Client) -> Result<Map<String, Value>> {
    let mut states = Map::new();
    for object in [api.items("hosts", "")?, api.items("services", "")?].concat() {
        let state = object["state"].as_str().context("an object without state")?;
        let count = states.get(state).and_then(Value::as_u64).unwrap_or(0);
        states.insert(state.to_owned(), json!(count + 1));
    }
    Ok(states)
}

fn in_words(states: &Map<String, Value>) -> String {
    states.iter().map(|(state, count)| format!("{count} {state}")).collect::<Vec<_>>().join(", ")
}

/// What changed, in words, if a stream's message says that something is OK that was not, or the other way round.
fn changed(message: &Value) -> Option<String> {
    message["changes"].as_array()?.iter().find_map(|change| {
        let (from, to) = (change["from"]["state"].as_str()?, change["state"].as_str()?);
        let service = change["service"].as_str().map(|service| format!("!{service}")).unwrap_or_default();
        let known = from != to && from != "PENDING";
        known.then(|| format!("{}{service} from {from} to {to}", change["host"].as_str().unwrap_or_default()))
    })
}
