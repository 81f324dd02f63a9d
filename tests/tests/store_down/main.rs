//! A metrics store that goes away under a running master for as long as the test lasts: first refusing, then hanging. Meanwhile the
//! master takes results in as it did beside the store before and between: same memory, same time, same work; and afterwards real carbon
//! has every point that the daemons' ledger says was measured, in the disturbed stretches as in the undisturbed ones.
//! `PERIGEE_STORE_DOWN_POINTS` (a second) and `PERIGEE_STORE_DOWN_SECONDS` make the long form, which also waits until the master's caches
//! are full, so that the slope of its memory means something.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test that lets real time pass and has nothing better to do when its stage cannot be set"
)]

mod series;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tests::carbon::{Carbon, Setup};
use tests::fakes::{Fakes, daemon};
use tests::figure::figure;
use tests::fleet::Fleet;
use tests::ledger::{Answer, answers};
use tests::samples::{page, samples};
use tests::slope::{LOOKS_MIN, slope};
use tests::usage::{processor, resident};
use tests::wait::{until, until_every};

use crate::series::{VALUES, differences, seconds, texts};

const PATIENCE: Duration = Duration::from_secs(60);
/// Catching up with an outage: the writer's longest wait, and the time carbon takes for files it has never seen.
const CATCH_UP: Duration = Duration::from_secs(300);
const SERVICES: usize = 10;
const TARGET: &str = "icinga2.*.services.*.nrpe.perfdata.*.value";
/// Memory differs by so much without reason: allocators, caches of SQLite.
const MEMORY_SLACK_KIB: u64 = 24 * 1024;
/// The long form waits so long at most until the master's caches are full (SQLite's, and the rows kept for slow readers of events): until
/// memory has grown by less than this in the time of `LOOKS_MIN` looks.
const WARM: Duration = Duration::from_secs(240);
const WARM_KIB: u64 = 512;
/// Memory is looked at so often.
const LOOK: Duration = Duration::from_secs(1);
/// A line for the store: `icinga2.h00.services.s1.nrpe.perfdata.m1.value 1.125 1700000000`.
const LINE_BYTES: u64 = 64;
/// Memory is flat if it grows by less than this part of what would pile up if points were kept for the store.
const FLAT: f64 = 1.0 / 8.0;
/// A stretch is looked at in so many parts; what is compared is the part in the middle, so that one stall of the machine decides nothing.
const PARTS: u32 = 5;
/// Ingest is unaffected: as many results, in about the same time, for about the same work.
const PACE: f64 = 0.98;
const LATER: f64 = 1.5;
const LATER_MS: f64 = 20.0;
const WORK: f64 = 1.2;
/// The kernel counts processor time in hundredths of a second: so much may be missed at either end of a part.
const TICK_US: f64 = 10_000.0;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Store {
    There,
    Refusing,
    Hanging,
}

/// Takes connections and never reads.
struct Hanging {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<usize>>,
}

impl Hanging {
    fn start(address: &str) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut held = Vec::new();
            while !stopped.load(Ordering::Acquire) {
                match listener.accept() {
                    Ok((stream, _)) => held.push(stream),
                    Err(_) => std::thread::sleep(Duration::from_millis(20)),
                }
            }
            held.len()
        });
        Self { stop, thread: Some(thread) }
    }

    /// Ends it; says how many connections it held.
    fn end(mut self) -> usize {
        self.stop.store(true, Ordering::Release);
        self.thread.take().unwrap().join().unwrap()
    }
}

/// A stretch of time, with the store in one condition.
#[derive(Debug)]
struct Stretch {
    store: Store,
    /// In milliseconds since 1970.
    from: i64,
    to: i64,
    parts: Vec<Part>,
    /// Most resident memory, and its slope over the second half of the time; none in a short form.
    memory_kib: u64,
    slope_kib_s: Option<f64>,
    /// What the store was owed in the end, in bytes of the journal, and what waited for it in memory at most.
    owed_bytes: u64,
    buffer_bytes: u64,
}

/// A part of a stretch.
#[derive(Debug)]
struct Part {
    from: i64,
    to: i64,
    results: usize,
    cpu_us_a_result: f64,
}

/// The one in the middle.
fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or_default()
}

/// What stretches of one kind say of ingest.
#[derive(Debug)]
struct Ingest {
    results_a_second: f64,
    cpu_us_a_result: f64,
    /// What a tick at either end of a part may make of that.
    unsure_us: f64,
    p50_ms: f64,
    p99_ms: f64,
}

impl Ingest {
    fn of(journal: &[Value], stretches: &[&Stretch]) -> Self {
        let parts = || stretches.iter().flat_map(|stretch| &stretch.parts);
        let delays: Vec<(i64, i64)> = parts().map(|part| delays(journal, part)).collect();
        // By their own times: what is late is told by the delays.
        let ended = |stretch: &Stretch| {
            let within =
                |result: &&Value| millis(&result["time"]).is_ok_and(|at| (stretch.from..stretch.to).contains(&at));
            journal.iter().filter(within).count() as f64
        };
        let results: f64 = stretches.iter().map(|stretch| ended(stretch)).sum();
        let lasted: f64 = stretches.iter().map(|stretch| (stretch.to - stretch.from) as f64).sum();
        Self {
            results_a_second: results * 1000.0 / lasted,
            cpu_us_a_result: median(parts().map(|part| part.cpu_us_a_result).collect()),
            unsure_us: median(parts().map(|part| 2.0 * TICK_US / part.results.max(1) as f64).collect()),
            p50_ms: median(delays.iter().map(|(p50, _)| *p50 as f64).collect()),
            p99_ms: median(delays.iter().map(|(_, p99)| *p99 as f64).collect()),
        }
    }

    /// In what it is worse than beside the store.
    fn worse(&self, there: &Self) -> Vec<String> {
        let bounds = [
            ("results a second, below", -self.results_a_second, -there.results_a_second * PACE),
            (
                "µs of CPU a result, above",
                self.cpu_us_a_result,
                there.cpu_us_a_result * WORK + self.unsure_us + there.unsure_us,
            ),
            ("ms at p99, above", self.p99_ms, there.p99_ms * LATER + LATER_MS),
        ];
        let worse = bounds.into_iter().filter(|(_, found, most)| found > most);
        worse.map(|(what, found, most)| format!("{:.1} {what} {:.1}", found.abs(), most.abs())).collect()
    }
}

/// From the end of a check until its result is durable, in milliseconds, of the results that became so in a part.
fn delays(journal: &[Value], stretch: &Part) -> (i64, i64) {
    let within = |result: &Value| {
        let (time, recorded) = (millis(&result["time"]).ok()?, millis(&result["recorded"]).ok()?);
        (stretch.from..stretch.to).contains(&recorded).then_some(recorded - time)
    };
    let mut delays: Vec<i64> = journal.iter().filter_map(within).collect();
    delays.sort_unstable();
    let delay = |part: usize| delays.get(delays.len() * part / 100).copied().unwrap_or_default();
    (delay(50), delay(99))
}

fn configuration(fakes: &Fakes, carbon: &str) -> String {
    let mut text = format!(
        "regions:\n  eu: {{ slots: 2, failover_after: 10m }}\nwriters: {{ graphite: {{ address: \"{carbon}\" }} }}\n\
         templates:\n  fast: {{ check_interval: 1s, retry_interval: 1s, timeout: 10s }}\nhosts:\n"
    );
    for (host, address) in &fakes.addresses {
        let _ = writeln!(
            text,
            "  {host}: {{ region: eu, address: {}, nrpe: {{ tls: plain, port: {}, service: false }}, check_interval: 1m }}",
            address.ip(),
            address.port()
        );
    }
    text.push_str("services:\n");
    for service in 0..SERVICES {
        let _ = writeln!(text, "  s{service}: {{ hosts: [\"*\"], use: [fast], check: {{ nrpe: c{service} }} }}");
    }
    text
}

fn millis(time: &Value) -> Result<i64> {
    let time: jiff::Timestamp = time.as_str().context("a time")?.parse()?;
    Ok(time.as_millisecond())
}

/// The one writer's figure, or the journal's.
fn metric(metrics: &str, name: &str) -> u64 {
    match samples(metrics, name)[..] {
        [value] => value as u64,
        ref found => panic!("{name}: {found:?}\n{metrics}"),
    }
}

/// Graphite, daemons and a fleet that runs.
struct Scene {
    carbon: Carbon,
    fleet: Fleet,
    fakes: Fakes,
    _directory: tempfile::TempDir,
}

impl Scene {
    fn new(hosts: usize) -> Option<Self> {
        // One second a point, and far more of them than the test lasts.
        let setup = Setup { retentions: "1s:30m".to_owned(), ..Setup::default() };
        let carbon = Carbon::start_with(&setup).unwrap()?;
        let directory = tempfile::tempdir().unwrap();
        let of: Vec<Value> = texts().into_iter().map(|text| json!({ "state": 0, "text": text })).collect();
        let commands: BTreeMap<String, Value> = (0..SERVICES).map(|n| (format!("c{n}"), json!({ "of": of }))).collect();
        let daemons: Vec<Value> = (0..hosts)
            .map(|host| {
                let mut daemon = daemon(&format!("h{host:02}"), "plain", &[]);
                daemon["commands"] = json!(commands);
                daemon
            })
            .collect();
        let fakes = Fakes::start(directory.path(), &daemons).unwrap();
        let config = directory.path().join("site.yaml");
        fs::write(&config, configuration(&fakes, &carbon.line_address())).unwrap();
        let mut fleet = Fleet::new(directory.path(), &config, &[("eu", 1), ("eu", 2)]).unwrap();
        fleet.start().unwrap();
        fleet.until_connected(PATIENCE).unwrap();
        let scene = Self { carbon, fleet, fakes, _directory: directory };
        // Each check once, so that what is measured is the same in every stretch.
        let begun = until(PATIENCE, || scene.results() >= 2 * hosts * SERVICES);
        assert!(begun, "no results\n{}", scene.fleet.last_words());
        Some(scene)
    }

    fn results(&self) -> usize {
        let slots = self.fleet.master.api().items("slots", "").unwrap_or_default();
        slots.iter().filter_map(|slot| slot["results"].as_u64()).sum::<u64>() as usize
    }

    fn memory_kib(&self) -> u64 {
        resident(self.fleet.master.pid().unwrap()).unwrap() / 1024
    }

    /// Processor time of the master so far.
    fn cpu(&self) -> Duration {
        processor(self.fleet.master.pid().unwrap()).unwrap().own
    }

    fn metrics(&self) -> String {
        page(&self.fleet.master.api()).unwrap()
    }

    /// Until the master's caches are full.
    fn warm(&self) -> Duration {
        let began = Instant::now();
        let mut looks = Vec::new();
        let full = until_every(LOOK, WARM, || {
            looks.push(self.memory_kib());
            let before = looks.len().checked_sub(LOOKS_MIN).map(|before| looks[before]);
            before.is_some_and(|before| looks.last().is_some_and(|now| *now <= before + WARM_KIB))
        });
        assert!(full, "the master's memory grows beside a store that is there: {looks:?} KiB");
        began.elapsed()
    }

    fn stretch(&self, store: Store, lasts: Duration) -> Stretch {
        let from = jiff::Timestamp::now().as_millisecond();
        let (mut to, mut looks, mut parts) = (from, Vec::new(), Vec::new());
        let started = Instant::now();
        for _ in 0..PARTS {
            let (before, counted, began, since) = (self.cpu(), self.results(), Instant::now(), to);
            until_every(LOOK.min(lasts / PARTS), lasts / PARTS, || {
                looks.push((started.elapsed(), self.memory_kib()));
                began.elapsed() >= lasts / PARTS
            });
            let (cpu, new) = (self.cpu() - before, self.results() - counted);
            to = jiff::Timestamp::now().as_millisecond();
            let cpu_us_a_result = cpu.as_micros() as f64 / new.max(1) as f64;
            parts.push(Part { from: since, to, results: new, cpu_us_a_result });
        }
        let metrics = self.metrics();
        // What a store that hangs has taken into the kernel's buffers was handed over, and is not trusted to it.
        let lags = metric(&metrics, "perigee_writer_lag_rows") > 0 && metric(&metrics, "perigee_writer_lag_bytes") > 0;
        let unsure =
            metric(&metrics, "perigee_writer_cursor_index") < metric(&metrics, "perigee_journal_published_index");
        assert!(lags || store != Store::Refusing, "{store:?}: nothing lags\n{metrics}");
        assert!(unsure, "{store:?}: the cursor is at the head\n{metrics}");
        Stretch {
            store,
            from,
            to,
            parts,
            memory_kib: looks.iter().map(|(_, kib)| *kib).max().unwrap_or_default(),
            slope_kib_s: slope(&looks),
            owed_bytes: metric(&metrics, "perigee_writer_lag_bytes"),
            buffer_bytes: metric(&metrics, "perigee_writer_buffer_bytes"),
        }
    }

    /// Waits until carbon holds exactly what was measured; says how many series and points that is.
    fn held(&self, measured: &[Answer]) -> (usize, usize) {
        let (from, to) = seconds(measured).unwrap();
        let mut last = String::new();
        let mut held = (0, 0);
        // An error may pass: graphite-web can come upon a file that carbon has only begun.
        let equal = until_every(LOOK, CATCH_UP, || match self.carbon.render(TARGET, from, to) {
            Ok(found) => {
                held = (found.len(), found.values().map(BTreeMap::len).sum());
                let (count, wrong) = differences(&found, measured);
                last = format!("{count} differences: {wrong:#?}");
                count == 0
            }
            Err(error) => {
                last = format!("{error:#}");
                false
            }
        });
        assert!(equal, "the store does not hold what was measured: {last}");
        held
    }

    /// Carbon is back; how long until the writer is at the journal's head.
    fn caught_up(&mut self) -> Duration {
        let returned = Instant::now();
        self.carbon.restart().unwrap();
        let caught_up = until(CATCH_UP, || {
            let metrics = self.metrics();
            // Rows are committed all the time: a few are always on their way.
            let behind = (metric(&metrics, "perigee_writer_lag_rows"), metric(&metrics, "perigee_writer_lag_seconds"));
            metric(&metrics, "perigee_writer_connected") == 1 && behind.0 <= 100 && behind.1 <= 1
        });
        assert!(caught_up, "it does not catch up\n{}", self.metrics());
        returned.elapsed()
    }
}

#[test]
fn a_store_that_is_away_costs_ingest_nothing_and_has_everything_afterwards() {
    let points = number("PERIGEE_STORE_DOWN_POINTS", 500);
    let lasts = Duration::from_secs(number("PERIGEE_STORE_DOWN_SECONDS", 5));
    let hosts = usize::try_from(points).unwrap() / (SERVICES * VALUES);
    let Some(mut scene) = Scene::new(hosts) else { return };
    let long = lasts >= LOOK * u32::try_from(LOOKS_MIN).unwrap();
    if long {
        eprintln!("warm after {:.0?}", scene.warm());
    }
    let mut there = vec![scene.stretch(Store::There, lasts)];
    eprintln!("{:?}", there[0]);
    scene.carbon.stop().unwrap();
    let refusing = scene.stretch(Store::Refusing, lasts);
    eprintln!("{refusing:?}");
    let after_refusing = scene.caught_up();
    there.push(scene.stretch(Store::There, lasts));
    eprintln!("{:?}", there[1]);
    scene.carbon.stop().unwrap();
    let hanging = Hanging::start(&scene.carbon.line_address());
    let hung = scene.stretch(Store::Hanging, lasts);
    eprintln!("{hung:?}");
    assert!(hanging.end() > 0, "nobody came to the store that hangs");
    let after_hanging = scene.caught_up();

    // Nothing new is measured from here on, so that both sides stand still to be compared.
    for satellite in scene.fleet.satellites.values_mut() {
        satellite.terminate().unwrap();
    }
    let journal = scene.fleet.master.api().events("result").unwrap();
    let measured = answers(&tests::process::text(&scene.fakes.ledger)).unwrap();
    let (series, held) = scene.held(&measured);
    scene.fleet.terminate().unwrap();

    let undisturbed = Ingest::of(&journal, &there.iter().collect::<Vec<_>>());
    let memory_kib = there.iter().map(|stretch| stretch.memory_kib).max().unwrap_or_default();
    let mut text = format!(
        "{points} points/s, {} s each with results, p50/p99 from a check's end until it is durable, and memory: beside the store, twice, {}",
        lasts.as_secs(),
        told(&undisturbed, &there[1])
    );
    let pile = (points * LINE_BYTES) as f64 / 1024.0;
    for (away, caught_up) in [(&refusing, after_refusing), (&hung, after_hanging)] {
        let (store, ingest) = (away.store, Ingest::of(&journal, &[away]));
        let worse = ingest.worse(&undisturbed);
        assert!(worse.is_empty(), "{store:?}: {worse:?}; {ingest:?}, beside the store {undisturbed:?}");
        let most = memory_kib + MEMORY_SLACK_KIB;
        assert!(away.memory_kib <= most, "{store:?}: {} KiB, at most {most}", away.memory_kib);
        let slope = away.slope_kib_s;
        assert!(slope.is_none_or(|slope| slope <= pile * FLAT), "{store:?}: {slope:?} KiB/s, {pile} would pile up");
        let _ = write!(
            text,
            "; {store:?} {} ({} KiB buffered, {} KiB owed by the journal, caught up in {:.0} s)",
            told(&ingest, away),
            away.buffer_bytes / 1024,
            away.owed_bytes / 1024,
            caught_up.as_secs_f64()
        );
    }
    let _ = write!(
        text,
        "; then {series} series with {held} points equal to what the daemons' ledger of {} answers says, value by value; memory may \
         slope by {:.0} KiB/s where {pile:.0} would pile up",
        measured.len(),
        pile * FLAT
    );
    figure(19, &text);
}

fn told(ingest: &Ingest, stretch: &Stretch) -> String {
    let slope = stretch.slope_kib_s.map_or(String::new(), |slope| format!(" {slope:+.1} KiB/s"));
    let Ingest { results_a_second, cpu_us_a_result, p50_ms, p99_ms, .. } = ingest;
    let memory = stretch.memory_kib / 1024;
    format!(
        "{results_a_second:.1} results/s, {cpu_us_a_result:.0} µs of CPU each, {p50_ms:.0}/{p99_ms:.0} ms, {memory} MiB{slope}"
    )
}

#[test]
fn ingest_that_is_worse_is_found() {
    let ingest = |results_a_second, cpu_us_a_result, p99_ms| Ingest {
        results_a_second,
        cpu_us_a_result,
        unsure_us: 1.0,
        p50_ms: 5.0,
        p99_ms,
    };
    let there = ingest(500.0, 100.0, 20.0);
    assert_eq!(ingest(491.0, 121.0, 49.0).worse(&there), Vec::<String>::new());
    assert_eq!(ingest(489.0, 123.0, 51.0).worse(&there).len(), 3);
    assert_eq!(median(vec![9.0, 1.0, 1000.0, 3.0, 5.0]), 5.0);
}
