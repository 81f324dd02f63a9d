//! A metrics store that goes away under a running master for as long as the test lasts: first refusing, then hanging. Meanwhile the
//! master takes results in as it did beside the store: same memory, same time, same work; and afterwards real carbon has every point of
//! the journal, in the disturbed stretches as in the undisturbed one.
//! `PERIGEE_STORE_DOWN_POINTS` (a second) and `PERIGEE_STORE_DOWN_SECONDS` make the long form, which also waits until the master's caches
//! are full, so that the slope of its memory means something.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test that lets real time pass and has nothing better to do when its stage cannot be set"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;
use tests::carbon::{Carbon, Series, Setup};
use tests::fakes::{Fakes, daemon};
use tests::figure::figure;
use tests::fleet::Fleet;
use tests::slope::{LOOKS_MIN, slope};
use tests::wait::{until, until_every};

const PATIENCE: Duration = Duration::from_secs(60);
/// Catching up with an outage: the writer's longest wait, and the time carbon takes for files it has never seen.
const CATCH_UP: Duration = Duration::from_secs(300);
const SERVICES: usize = 10;
/// Values of one answer, its number included.
const VALUES: usize = 10;
const TARGET: &str = "icinga2.*.services.*.nrpe.perfdata.*.value";
/// Memory differs by so much without reason: allocators, caches of SQLite.
const MEMORY_SLACK_KIB: u64 = 24 * 1024;
/// The long form waits so long at most until the master's caches are full (SQLite's, and the rows kept for slow readers of events): until
/// memory has grown by less than this in the time of `LOOKS_MIN` looks.
const WARM: Duration = Duration::from_secs(240);
const WARM_KIB: u64 = 512;
/// Memory is looked at so often.
const LOOK: Duration = Duration::from_secs(1);
/// A line for the store: `icinga2.h00.services.s1.nrpe.perfdata.m1.value 1.5 1700000000`.
const LINE_BYTES: u64 = 62;
/// Memory is flat if it grows by less than this part of what would pile up if points were kept for the store.
const FLAT: f64 = 1.0 / 8.0;

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

/// What the master's process costs so far.
#[derive(Debug, Clone, Copy)]
struct Cost {
    cpu_ms: u64,
    memory_kib: u64,
}

fn cost(pid: u32) -> Cost {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // Behind the name in parentheses; the kernel counts in hundredths of a second.
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let memory_kib = resident.trim().trim_end_matches(" kB").parse().unwrap();
    Cost { cpu_ms: ticks * 10, memory_kib }
}

/// A stretch of time, with the store in one condition.
#[derive(Debug)]
struct Stretch {
    store: Store,
    /// In milliseconds since 1970.
    from: i64,
    to: i64,
    results: usize,
    cpu_us_a_result: f64,
    /// Most resident memory, and its slope over the second half of the time; none in a short form.
    memory_kib: u64,
    slope_kib_s: Option<f64>,
    /// What the store was owed in the end, in bytes of the journal, and what waited for it in memory at most.
    owed_bytes: u64,
    buffer_bytes: u64,
}

/// From the end of a check until its result is durable, in milliseconds, of the results that became so in a stretch.
fn delays(journal: &[Value], stretch: &Stretch) -> (i64, i64) {
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

/// What Graphite must hold by the journal: built from the texts alone.
fn expected(results: &[Value]) -> Result<Series> {
    let mut series = Series::new();
    for result in results.iter().filter(|result| result["service"].is_string()) {
        let second = millis(&result["time"])?.min(millis(&result["recorded"])?).div_euclid(1000);
        let (host, service) =
            (result["host"].as_str().context("host")?, result["service"].as_str().context("service")?);
        for value in result["perfdata"].as_str().context("perfdata")?.split(' ') {
            let (label, value) = value.split_once('=').with_context(|| format!("{result}"))?;
            let name = format!("icinga2.{host}.services.{service}.nrpe.perfdata.{label}.value");
            series.entry(name).or_default().insert(second, value.parse()?);
        }
    }
    Ok(series)
}

/// The different values of each series in the whole seconds of a stretch. An answer's own number is different every time.
fn different_values(series: &Series, stretch: &Stretch) -> BTreeMap<String, BTreeSet<String>> {
    let seconds = stretch.from.div_euclid(1000) + 1..stretch.to.div_euclid(1000);
    let texts = |name: &String, points: &BTreeMap<i64, f64>| {
        let within = points.iter().filter(|(second, _)| seconds.contains(second));
        let of = within
            .map(|(_, value)| if name.ends_with(".serial.value") { "a number".to_owned() } else { value.to_string() });
        (name.clone(), of.collect())
    };
    series.iter().map(|(name, points)| texts(name, points)).collect()
}

fn metric(metrics: &str, name: &str) -> u64 {
    let value = metrics.lines().filter(|line| line.starts_with(name)).find_map(|line| line.rsplit_once(' '));
    value.and_then(|(_, value)| value.parse::<f64>().ok()).map_or(0, |value| value as u64)
}

/// Graphite, daemons and a fleet that runs.
struct Scene {
    carbon: Carbon,
    fleet: Fleet,
    _fakes: Fakes,
    _directory: tempfile::TempDir,
}

impl Scene {
    fn new(hosts: usize) -> Option<Self> {
        // One second a point, and far more of them than the test lasts.
        let setup = Setup { retentions: "1s:30m".to_owned(), ..Setup::default() };
        let carbon = Carbon::start_with(&setup).unwrap()?;
        let directory = tempfile::tempdir().unwrap();
        let values: Vec<String> = (1..VALUES).map(|n| format!("m{n}={n}.5")).collect();
        let names: Vec<(String, String)> =
            (0..SERVICES).map(|n| (format!("c{n}"), format!("OK|{}", values.join(" ")))).collect();
        let commands: Vec<(&str, i16, &str)> =
            names.iter().map(|(name, text)| (name.as_str(), 0, text.as_str())).collect();
        let daemons: Vec<Value> = (0..hosts).map(|host| daemon(&format!("h{host:02}"), "plain", &commands)).collect();
        let fakes = Fakes::start(directory.path(), &daemons).unwrap();
        let config = directory.path().join("site.yaml");
        fs::write(&config, configuration(&fakes, &carbon.line_address())).unwrap();
        let mut fleet = Fleet::new(directory.path(), &config, &[("eu", 1), ("eu", 2)]).unwrap();
        fleet.start().unwrap();
        fleet.until_connected(PATIENCE).unwrap();
        let scene = Self { carbon, fleet, _fakes: fakes, _directory: directory };
        // Each check once, so that what is measured is the same in every stretch.
        let begun = until(PATIENCE, || scene.results() >= 2 * hosts * SERVICES);
        assert!(begun, "no results\n{}", scene.fleet.last_words());
        Some(scene)
    }

    fn results(&self) -> usize {
        let slots = self.fleet.master.api().items("slots", "").unwrap_or_default();
        slots.iter().filter_map(|slot| slot["results"].as_u64()).sum::<u64>() as usize
    }

    fn cost(&self) -> Cost {
        cost(self.fleet.master.pid().unwrap())
    }

    fn metrics(&self) -> String {
        self.fleet.master.api().text("/api/v1/metrics").unwrap()
    }

    /// Until the master's caches are full.
    fn warm(&self) -> Duration {
        let began = Instant::now();
        let mut looks = Vec::new();
        let full = until_every(LOOK, WARM, || {
            looks.push(self.cost().memory_kib);
            let before = looks.len().checked_sub(LOOKS_MIN).map(|before| looks[before]);
            before.is_some_and(|before| looks.last().is_some_and(|now| *now <= before + WARM_KIB))
        });
        assert!(full, "the master's memory grows beside a store that is there: {looks:?} KiB");
        began.elapsed()
    }

    fn stretch(&self, store: Store, lasts: Duration) -> Stretch {
        let (from, before, counted) = (jiff::Timestamp::now().as_millisecond(), self.cost(), self.results());
        let began = Instant::now();
        let mut looks = vec![(Duration::ZERO, before.memory_kib)];
        until_every(LOOK, lasts, || {
            looks.push((began.elapsed(), self.cost().memory_kib));
            began.elapsed() >= lasts
        });
        let (after, results) = (self.cost(), self.results() - counted);
        let to = jiff::Timestamp::now().as_millisecond();
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
            results,
            cpu_us_a_result: (after.cpu_ms - before.cpu_ms) as f64 * 1000.0 / results.max(1) as f64,
            memory_kib: looks.iter().map(|(_, kib)| *kib).max().unwrap_or_default(),
            slope_kib_s: slope(&looks),
            owed_bytes: metric(&metrics, "perigee_writer_lag_bytes"),
            buffer_bytes: metric(&metrics, "perigee_writer_buffer_bytes"),
        }
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
    let there = scene.stretch(Store::There, lasts);
    eprintln!("{there:?}");
    scene.carbon.stop().unwrap();
    let refusing = scene.stretch(Store::Refusing, lasts);
    eprintln!("{refusing:?}");
    let after_refusing = scene.caught_up();
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
    let series = expected(&journal).unwrap();
    scene.carbon.render_until_equal(TARGET, &series, CATCH_UP).unwrap();
    scene.fleet.terminate().unwrap();

    let told = |stretch: &Stretch| {
        let (p50, p99) = delays(&journal, stretch);
        let slope = stretch.slope_kib_s.map_or(String::new(), |slope| format!(" {slope:+.1} KiB/s"));
        format!(
            "{} results, {:.0} µs of CPU each, {p50}/{p99} ms, {} MiB{slope}",
            stretch.results,
            stretch.cpu_us_a_result,
            stretch.memory_kib / 1024
        )
    };
    let mut text = format!(
        "{points} points/s, {} s each with results, p50/p99 from a check's end until it is durable, and memory: beside the store {}",
        lasts.as_secs(),
        told(&there)
    );
    let values = different_values(&series, &there);
    let pile = (points * LINE_BYTES) as f64 / 1024.0;
    for (away, caught_up) in [(&refusing, after_refusing), (&hung, after_hanging)] {
        let store = away.store;
        // It took in at the same pace, and what Graphite has of that time differs in nothing.
        let pace = |stretch: &Stretch| stretch.results as f64 / (stretch.to - stretch.from) as f64;
        assert!(pace(away) >= pace(&there) * 0.9, "{store:?}: {away:?}, beside the store {there:?}");
        assert!(different_values(&series, away) == values, "{store:?}: other series than in the undisturbed time");
        let most = there.memory_kib + MEMORY_SLACK_KIB;
        assert!(away.memory_kib <= most, "{store:?}: {} KiB, at most {most}", away.memory_kib);
        let slope = away.slope_kib_s;
        assert!(slope.is_none_or(|slope| slope <= pile * FLAT), "{store:?}: {slope:?} KiB/s, {pile} would pile up");
        // What is not sent is not formatted either: only the machine's own noise may cost more.
        let most = there.cpu_us_a_result * 1.5 + 200.0;
        assert!(away.cpu_us_a_result <= most, "{store:?}: {} µs a result, at most {most}", away.cpu_us_a_result);
        let ((_, p99), (_, undisturbed)) = (delays(&journal, away), delays(&journal, &there));
        let late = undisturbed * 2 + 250;
        assert!(p99 <= late, "{store:?}: p99 {p99} ms, at most {late}");
        let _ = write!(
            text,
            "; {store:?} {} ({} KiB buffered, {} KiB owed by the journal, caught up in {:.0} s)",
            told(away),
            away.buffer_bytes / 1024,
            away.owed_bytes / 1024,
            caught_up.as_secs_f64()
        );
    }
    let held: usize = series.values().map(BTreeMap::len).sum();
    let _ = write!(
        text,
        "; then {} series with {held} points equal to the journal's, those of each outage with the values of the undisturbed time; \
         memory may slope by {:.0} KiB/s where {pile:.0} would pile up",
        series.len(),
        pile * FLAT
    );
    figure(19, &text);
}

#[test]
fn the_texts_become_the_series_that_icinga_would_name() {
    let result = serde_json::json!({
        "host": "h00", "service": "s1", "perfdata": "m1=1.5 serial=7",
        "time": "2026-11-21T10:00:00.900Z", "recorded": "2026-11-21T10:00:01.100Z",
    });
    let series = expected(&[result]).unwrap();
    let second = "2026-11-21T10:00:00Z".parse::<jiff::Timestamp>().unwrap().as_second();
    assert_eq!(series["icinga2.h00.services.s1.nrpe.perfdata.m1.value"][&second], 1.5);
    assert_eq!(series["icinga2.h00.services.s1.nrpe.perfdata.serial.value"][&second], 7.0);
}
