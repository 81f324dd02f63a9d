//! A metrics store that is away for as long as the test lasts: refusing, or hanging. Meanwhile the master takes results in as it does
//! beside a store that is there: same memory, same time, same work; and afterwards real carbon has every point of the journal.
//! `PERIGEE_STORE_DOWN_POINTS` (a second) and `PERIGEE_STORE_DOWN_SECONDS` make the long form.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test that lets real time pass and has nothing better to do when its stage cannot be set"
)]

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
use tests::wait::until;

const PATIENCE: Duration = Duration::from_secs(60);
/// Catching up with an outage: the writer's longest wait, and the time carbon takes for files it has never seen.
const CATCH_UP: Duration = Duration::from_secs(300);
const SERVICES: usize = 10;
/// Values of one answer, its number included.
const VALUES: usize = 10;
const TARGET: &str = "icinga2.*.services.*.nrpe.perfdata.*.value";
/// Memory of two masters that did the same differs by so much without reason: allocators, page caches of SQLite.
const MEMORY_SLACK_KIB: u64 = 24 * 1024;

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

/// What one run came to.
#[derive(Debug)]
struct Outcome {
    results: usize,
    series: usize,
    points: usize,
    cpu_us_a_result: f64,
    /// From the end of a check until its result is durable, in milliseconds.
    p50: i64,
    p99: i64,
    memory_kib: u64,
    grown_kib: u64,
    buffer_bytes: u64,
    catch_up: Duration,
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

fn metric(metrics: &str, name: &str) -> u64 {
    let value = metrics.lines().filter(|line| line.starts_with(name)).find_map(|line| line.rsplit_once(' '));
    value.and_then(|(_, value)| value.parse::<f64>().ok()).map_or(0, |value| value as u64)
}

fn run(store: Store, hosts: usize, lasts: Duration) -> Option<Outcome> {
    // One second a point, and far more of them than the test lasts.
    let setup = Setup { retentions: "1s:20m".to_owned(), ..Setup::default() };
    let mut carbon = Carbon::start_with(&setup).unwrap()?;
    let directory = tempfile::tempdir().unwrap();
    let values: Vec<String> = (1..VALUES).map(|n| format!("m{n}={n}.5")).collect();
    let names: Vec<(String, String)> =
        (0..SERVICES).map(|n| (format!("c{n}"), format!("OK|{}", values.join(" ")))).collect();
    let commands: Vec<(&str, i16, &str)> = names.iter().map(|(name, text)| (name.as_str(), 0, text.as_str())).collect();
    let daemons: Vec<Value> = (0..hosts).map(|host| daemon(&format!("h{host:02}"), "plain", &commands)).collect();
    let fakes = Fakes::start(directory.path(), &daemons).unwrap();
    let mut hanging = None;
    if store != Store::There {
        carbon.stop().unwrap();
    }
    if store == Store::Hanging {
        hanging = Some(Hanging::start(&carbon.line_address()));
    }
    let config = directory.path().join("site.yaml");
    fs::write(&config, configuration(&fakes, &carbon.line_address())).unwrap();
    let mut fleet = Fleet::new(directory.path(), &config, &[("eu", 1), ("eu", 2)]).unwrap();
    fleet.start().unwrap();
    fleet.until_connected(PATIENCE).unwrap();
    let results = |fleet: &Fleet| -> usize {
        let slots = fleet.master.api().items("slots", "").unwrap_or_default();
        slots.iter().filter_map(|slot| slot["results"].as_u64()).sum::<u64>() as usize
    };
    // Each check once, so that what is measured is the same in every run.
    assert!(until(PATIENCE, || results(&fleet) >= 2 * hosts * SERVICES), "no results\n{}", fleet.last_words());

    let pid = fleet.master.pid().unwrap();
    let (from, before, counted) = (jiff::Timestamp::now().as_millisecond(), cost(pid), results(&fleet));
    let began = Instant::now();
    let mut most = before.memory_kib;
    until(lasts, || {
        most = most.max(cost(pid).memory_kib);
        began.elapsed() >= lasts
    });
    let (after, made) = (cost(pid), results(&fleet) - counted);
    let to = jiff::Timestamp::now().as_millisecond();
    let metrics = fleet.master.api().text("/api/v1/metrics").unwrap();
    // What a store that hangs has taken into the kernel's buffers was handed over, and is not trusted to it.
    let lag = metric(&metrics, "perigee_writer_lag_rows");
    let lags = lag > 0 && metric(&metrics, "perigee_writer_lag_bytes") > 0;
    let unsure = metric(&metrics, "perigee_writer_cursor_index") < metric(&metrics, "perigee_journal_published_index");
    assert!(lags || store != Store::Refusing, "{store:?}: nothing lags\n{metrics}");
    assert!(unsure, "{store:?}: the cursor is at the head\n{metrics}");
    let buffer_bytes = metric(&metrics, "perigee_writer_buffer_bytes");

    if let Some(hanging) = hanging {
        assert!(hanging.end() > 0, "nobody came to the store that hangs");
    }
    let returned = Instant::now();
    if store != Store::There {
        carbon.restart().unwrap();
    }
    // Nothing new is measured from here on, so that both sides stand still to be compared.
    for satellite in fleet.satellites.values_mut() {
        satellite.terminate().unwrap();
    }
    let journal = fleet.master.api().events("result").unwrap();
    let series = expected(&journal).unwrap();
    carbon.render_until_equal(TARGET, &series, CATCH_UP).unwrap();
    let catch_up = returned.elapsed();
    let mut delays: Vec<i64> = journal
        .iter()
        .filter_map(|result| {
            let (time, recorded) = (millis(&result["time"]).ok()?, millis(&result["recorded"]).ok()?);
            (from..to).contains(&recorded).then_some(recorded - time)
        })
        .collect();
    delays.sort_unstable();
    let delay = |part: usize| delays.get(delays.len() * part / 100).copied().unwrap_or_default();
    fleet.terminate().unwrap();
    Some(Outcome {
        results: made,
        series: series.len(),
        points: series.values().map(std::collections::BTreeMap::len).sum(),
        cpu_us_a_result: (after.cpu_ms - before.cpu_ms) as f64 * 1000.0 / made.max(1) as f64,
        p50: delay(50),
        p99: delay(99),
        memory_kib: most,
        grown_kib: after.memory_kib.saturating_sub(before.memory_kib),
        buffer_bytes,
        catch_up,
    })
}

#[test]
fn a_store_that_is_away_costs_ingest_nothing_and_has_everything_afterwards() {
    let points = number("PERIGEE_STORE_DOWN_POINTS", 500);
    let lasts = Duration::from_secs(number("PERIGEE_STORE_DOWN_SECONDS", 2));
    let hosts = usize::try_from(points).unwrap() / (SERVICES * VALUES);
    let Some(there) = run(Store::There, hosts, lasts) else { return };
    eprintln!("{there:?}");
    let mut told = format!(
        "{points} points/s for {} s: {:.0} µs of CPU a result, p50/p99 {}/{} ms, {} MiB beside a store that is there",
        lasts.as_secs(),
        there.cpu_us_a_result,
        there.p50,
        there.p99,
        there.memory_kib / 1024
    );
    for store in [Store::Refusing, Store::Hanging] {
        let away = run(store, hosts, lasts).unwrap();
        eprintln!("{store:?} {away:?}");
        assert_eq!(away.series, there.series, "{store:?}");
        // Both ran for the same time at the same pace.
        assert!(
            away.results * 10 >= there.results * 8,
            "{store:?}: {} results, {} beside a store",
            away.results,
            there.results
        );
        assert!(
            away.memory_kib <= there.memory_kib + MEMORY_SLACK_KIB,
            "{store:?}: {} KiB, {} KiB beside a store that is there",
            away.memory_kib,
            there.memory_kib
        );
        // What is not sent is not formatted either: only the machine's own noise may cost more.
        let most = there.cpu_us_a_result * 1.5 + 200.0;
        assert!(away.cpu_us_a_result <= most, "{store:?}: {} µs a result, at most {most}", away.cpu_us_a_result);
        let late = there.p99 * 2 + 250;
        assert!(away.p99 <= late, "{store:?}: p99 {} ms, at most {late}", away.p99);
        let _ = write!(
            told,
            "; {store:?}: {:.0} µs, {}/{} ms, {} MiB (+{} MiB in the time), {} KiB buffered, then {} series with {} points equal to the \
             journal {:.1} s after its return",
            away.cpu_us_a_result,
            away.p50,
            away.p99,
            away.memory_kib / 1024,
            away.grown_kib / 1024,
            away.buffer_bytes / 1024,
            away.series,
            away.points,
            away.catch_up.as_secs_f64()
        );
    }
    figure(19, &told);
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
