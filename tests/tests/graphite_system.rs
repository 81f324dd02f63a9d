//! A whole system with a real Graphite behind it: what `render` gives back equals what the journal holds (read as history through
//! the API), every series, every second, every value; also after carbon was away for a minute, after it was killed with points in
//! memory, and after the master was started again. Names are those that a real Icinga 2 wrote for the same names and the same text.
//! The surprise: the expected series are built here from the texts alone; nothing of the product parses or names them.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test that lets real time pass and has nothing better to do when its stage cannot be set"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::carbon::{Carbon, Series, Setup, differences};
use tests::fakes::{Fakes, daemon};
use tests::figure::figure;
use tests::fleet::Fleet;
use tests::http::Client;
use tests::wait::until;

/// No single thing takes longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long carbon is away.
const OUTAGE: Duration = Duration::from_secs(60);
/// Of the seconds of the outage, how many of a hundred must have a point: checks run every second and never pile up.
const SECONDS_OF_A_HUNDRED: usize = 80;
/// What a real Icinga 2 wrote for one result: names, text, lines.
const GOLDEN: &str = include_str!("../testdata/icinga2-perfdata-golden.txt");
const GOLDEN_HOST: &str = "web-01.example.com/a b";
const GOLDEN_SERVICE: &str = r"disk C:\ a=b,c";
const GOLDEN_COMMAND: &str = "pd cmd.x";
/// How Icinga 2 named the service's series, and the host's where the same command checks the host.
const GOLDEN_PREFIX: &str = "icinga2.web-01_example_com_a_b.services.disk_C:__a=b,c.pd_cmd_x.perfdata.";
const GOLDEN_HOST_PREFIX: &str = "icinga2.web-01_example_com_a_b.host.pd_cmd_x.perfdata.";
/// The number behind the golden text: below the last prefix written with `::`, as Icinga 2 has it for all that follow.
const GOLDEN_NUMBER: &str = "a.b.serial.value";
/// All names that Perigee can have written: hosts and services, labels of one to four nodes.
const ALL: [&str; 9] = [
    "icinga2.*.services.*.*.perfdata.*.*",
    "icinga2.*.services.*.*.perfdata.*.*.*",
    "icinga2.*.services.*.*.perfdata.*.*.*.*",
    "icinga2.*.services.*.*.perfdata.*.*.*.*.*",
    "icinga2.*.host.*.perfdata.*.*",
    "icinga2.*.host.*.perfdata.*.*.*",
    "icinga2.*.host.*.perfdata.*.*.*.*",
    "icinga2.*.services.*.*.metadata.*",
    "icinga2.*.host.*.metadata.*",
];

/// The text that Icinga 2 was given.
fn golden_text() -> &'static str {
    GOLDEN.lines().find(|line| line.starts_with("OK - text |")).unwrap()
}

/// What Icinga 2 wrote of the text, by name behind the prefix; where a name comes twice the later value stays.
fn golden_lines() -> BTreeMap<&'static str, f64> {
    let lines = GOLDEN.lines().filter_map(|line| line.strip_prefix(GOLDEN_PREFIX));
    lines
        .map(|line| {
            let mut words = line.split(' ');
            (words.next().unwrap(), words.next().unwrap().parse().unwrap())
        })
        .collect()
}

/// A service whose texts take turns: what its daemon says, and what Graphite must be told of each text.
struct Service {
    host: &'static str,
    name: &'static str,
    /// Command of the daemon, and what Graphite is told is its command.
    command: &'static str,
    prefix: &'static str,
    /// Texts with the series they make, without the number that each answer gets.
    texts: Vec<(&'static str, Vec<(&'static str, f64)>)>,
}

fn services() -> Vec<Service> {
    vec![
        Service {
            host: "alpha.example.net",
            name: "load",
            command: "load",
            prefix: "icinga2.alpha_example_net.services.load.nrpe",
            texts: vec![
                (
                    "OK - 0.25|load1=0.25;5;10;0",
                    vec![("load1.value", 0.25), ("load1.warn", 5.0), ("load1.crit", 10.0), ("load1.min", 0.0)],
                ),
                (
                    "OK - 7.5|load1=7.5;5;10;0",
                    vec![("load1.value", 7.5), ("load1.warn", 5.0), ("load1.crit", 10.0), ("load1.min", 0.0)],
                ),
            ],
        },
        Service {
            host: "alpha.example.net",
            name: "disk /var/lib v1.0",
            command: "disk",
            prefix: "icinga2.alpha_example_net.services.disk__var_lib_v1_0.nrpe",
            texts: vec![
                (
                    "OK|'/var/lib in use'=12MB;;;0;100 a.b=-3",
                    vec![
                        ("_var_lib_in_use.value", 12e6),
                        ("_var_lib_in_use.min", 0.0),
                        ("_var_lib_in_use.max", 100e6),
                        ("a.b.value", -3.0),
                    ],
                ),
                (
                    "OK|'/var/lib in use'=13.5MB;;;0;100 a.b=4",
                    vec![
                        ("_var_lib_in_use.value", 13.5e6),
                        ("_var_lib_in_use.min", 0.0),
                        ("_var_lib_in_use.max", 100e6),
                        ("a.b.value", 4.0),
                    ],
                ),
            ],
        },
        Service {
            host: "alpha.example.net",
            name: "users",
            command: "users",
            prefix: "icinga2.alpha_example_net.services.users.nrpe",
            texts: vec![
                ("USERS OK|users=3", vec![("users.value", 3.0)]),
                ("USERS BAD|users=90", vec![("users.value", 90.0)]),
            ],
        },
        Service {
            host: "beta",
            name: "without",
            command: "without",
            prefix: "icinga2.beta.services.without.nrpe",
            texts: vec![("OK - only its number", vec![])],
        },
        Service {
            host: "beta",
            name: "load",
            command: "load",
            prefix: "icinga2.beta.services.load.nrpe",
            texts: vec![("OK|load1=1 load5=0.5", vec![("load1.value", 1.0), ("load5.value", 0.5)])],
        },
    ]
}

/// One daemon for each host; the one with Icinga's golden names answers with Icinga's golden text.
fn daemons(directory: &Path) -> Fakes {
    let mut described = vec![daemon("golden", "plain", &[("golden", 1, golden_text())])];
    for host in ["alpha.example.net", "beta"] {
        let mut description = daemon(host, "anonymous", &[]);
        for service in services().iter().filter(|service| service.host == host) {
            let of = service.texts.iter().enumerate().map(|(turn, (text, _))| json!({ "state": turn, "text": text }));
            description["commands"][service.command] = json!({ "of": of.collect::<Vec<_>>() });
        }
        described.push(description);
    }
    Fakes::start(directory, &described).unwrap()
}

fn configuration(fakes: &Fakes, carbon: &str) -> String {
    let mut text = format!(
        "regions: {{ eu: {{ slots: 2 }} }}\n\
         writers: {{ graphite: {{ address: \"{carbon}\", thresholds: true }} }}\n\
         templates: {{ fast: {{ check_interval: 1s, retry_interval: 1s, timeout: 5s }} }}\n\
         commands: {{ '{GOLDEN_COMMAND}': {{ nrpe: golden }} }}\nhosts:\n"
    );
    for (daemon, address) in &fakes.addresses {
        let (host, tls, check) = match daemon.as_str() {
            "golden" => (GOLDEN_HOST, "plain", format!(", check: {{ command: '{GOLDEN_COMMAND}' }}")),
            own => (own, "anonymous", format!(", check: {{ tcp: {} }}", address.port())),
        };
        let nrpe = format!("nrpe: {{ tls: {tls}, port: {}, service: false }}", address.port());
        writeln!(text, "  '{host}': {{ use: [fast], address: 127.0.0.1, {nrpe}{check} }}").unwrap();
    }
    text.push_str("services:\n");
    let golden = [(GOLDEN_HOST, GOLDEN_SERVICE, format!("command: '{GOLDEN_COMMAND}'"))];
    let own = services().into_iter().map(|service| (service.host, service.name, format!("nrpe: {}", service.command)));
    let mut by_name: BTreeMap<(&str, String), Vec<&str>> = BTreeMap::new();
    for (host, name, check) in own.chain(golden) {
        by_name.entry((name, check)).or_default().push(host);
    }
    for ((name, check), hosts) in by_name {
        let hosts = hosts.iter().map(|host| format!("'{host}'")).collect::<Vec<_>>().join(", ");
        writeln!(text, "  '{name}': {{ hosts: [{hosts}], use: [fast], check: {{ {check} }} }}").unwrap();
    }
    text
}

/// What Graphite must hold, by the journal's results in the order of the journal: of two in one second the later stays.
fn expected(results: &[Value]) -> Result<Series> {
    let services = services();
    let golden = golden_lines();
    let mut series = Series::new();
    for result in results {
        let text = |name: &str| result[name].as_str().unwrap_or_default();
        let second = seconds(text("time"))?.min(seconds(text("recorded"))?);
        let mut add = |name: String, value: f64| {
            series.entry(name).or_default().insert(second, value);
        };
        let (host, service) = (text("host"), result["service"].as_str());
        if service.is_none() && host != GOLDEN_HOST {
            let prefix = format!("icinga2.{}.host.tcp", host.replace('.', "_"));
            for (name, value) in response_time(text("perfdata")).with_context(|| format!("what is {result}?"))? {
                add(format!("{prefix}.perfdata.time.{name}"), value);
            }
            continue;
        }
        let whole = format!("{}|{}", text("output"), text("perfdata"));
        let numbered = whole.rsplit_once("serial=").with_context(|| format!("no number in {result}"))?;
        let (said, serial) = (numbered.0.trim_end_matches([' ', '|']), numbered.1.parse()?);
        if host == GOLDEN_HOST {
            // White space around the bar belongs to neither side.
            ensure!(said == golden_text().replace(" | ", "|"), "nobody said {result}");
            let prefix = if service.is_some() { GOLDEN_PREFIX } else { GOLDEN_HOST_PREFIX };
            golden.iter().for_each(|(name, value)| add(format!("{prefix}{name}"), *value));
            add(format!("{prefix}{GOLDEN_NUMBER}"), serial);
            continue;
        }
        let known = services.iter().find(|known| known.host == host && Some(known.name) == service);
        let known = known.with_context(|| format!("who is {result}?"))?;
        let turn = known.texts.iter().find(|(text, _)| *text == said);
        let (_, values) = turn.with_context(|| format!("nobody said {result}"))?;
        values.iter().for_each(|(name, value)| add(format!("{}.perfdata.{name}", known.prefix), *value));
        add(format!("{}.perfdata.serial.value", known.prefix), serial);
    }
    Ok(series)
}

/// What a host check by TCP measures, `time=SECONDSs;;;LEAST;GREATEST`, as Graphite is told it.
fn response_time(perfdata: &str) -> Option<[(&'static str, f64); 3]> {
    let mut parts = perfdata.strip_prefix("time=")?.split(';');
    let mut part = |number: usize| parts.nth(number)?.trim_end_matches('s').parse().ok();
    Some([("value", part(0)?), ("min", part(2)?), ("max", part(0)?)])
}

fn seconds(time: &str) -> Result<i64> {
    let time: jiff::Timestamp = time.parse().with_context(|| format!("{time:?} is no time"))?;
    Ok(time.as_second())
}

/// Everything that Graphite holds. Icinga 2 wrote six digits, so its series are compared in six.
fn found(carbon: &Carbon, from: i64, until: i64) -> Result<Series> {
    let mut all = Series::new();
    for target in ALL {
        all.extend(carbon.render(target, from, until)?);
    }
    for (name, points) in &mut all {
        if name.starts_with(GOLDEN_PREFIX) || name.starts_with(GOLDEN_HOST_PREFIX) {
            points.values_mut().for_each(|value| *value = (*value * 1e6).round() / 1e6);
        }
    }
    Ok(all)
}

/// What has been compared and found equal.
#[derive(Debug, Clone, Copy)]
struct Equal {
    series: usize,
    points: usize,
    results: usize,
}

/// Waits until Graphite holds what the journal holds, neither more nor less, up to the newest second that both can have.
fn until_equal(fleet: &Fleet, carbon: &Carbon, from: i64, when: &str) -> Equal {
    let api = fleet.master.api();
    let mut last = String::new();
    let mut equal = None;
    until(PATIENCE, || {
        match compare(&api, carbon, from) {
            Ok(Ok(same)) => equal = Some(same),
            Ok(Err(different)) => last = different,
            Err(error) => last = format!("{error:#}"),
        }
        equal.is_some()
    });
    equal.unwrap_or_else(|| panic!("{when}: Graphite is not the journal: {last}\n{}", fleet.last_words()))
}

fn compare(api: &Client, carbon: &Carbon, from: i64) -> Result<std::result::Result<Equal, String>> {
    // The newest seconds may still grow, on either side: they are left out, and their turn comes with the next comparison.
    const GROWING: i64 = 2;
    let results = api.events("result")?;
    let mut journal = expected(&results)?;
    let newest = journal.values().filter_map(|points| points.keys().last()).max().copied();
    let until = newest.context("no results yet")? - GROWING;
    journal.values_mut().for_each(|points| points.retain(|second, _| *second <= until));
    journal.retain(|_, points| !points.is_empty());
    let graphite = found(carbon, from, until)?;
    if graphite != journal {
        return Ok(Err(differences(&graphite, &journal)));
    }
    let points = journal.values().map(BTreeMap::len).sum();
    Ok(Ok(Equal { series: journal.len(), points, results: results.len() }))
}

/// Every service has a point in nearly every second of these.
fn checked_throughout(api: &Client, from: i64, until: i64) -> Result<()> {
    let series = expected(&api.events("result")?)?;
    let seconds = usize::try_from(until - from)?;
    let numbers: Vec<_> = series.iter().filter(|(name, _)| name.ends_with(".serial.value")).collect();
    // The host and the service with Icinga's names count too.
    ensure!(numbers.len() == services().len() + 2, "not every service has results: {:?}", series.keys());
    for (name, points) in numbers {
        let there = points.range(from..until).count();
        ensure!(there * 100 >= seconds * SECONDS_OF_A_HUNDRED, "{name}: {there} points in {seconds} s");
    }
    Ok(())
}

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

fn start(directory: &Path, fakes: &Fakes, carbon: &Carbon) -> Fleet {
    let config = directory.join("perigee.yaml");
    fs::write(&config, configuration(fakes, &carbon.line_address())).unwrap();
    let mut fleet = Fleet::new(directory, &config, &[("eu", 1), ("eu", 2)]).unwrap();
    fleet.start().unwrap();
    fleet
}

#[test]
fn render_gives_the_journals_points_through_an_outage_a_kill_and_a_restart() {
    // Few files a second, so that a kill finds points in memory.
    let setup = Setup { updates_per_second: Some(20), ..Setup::default() };
    let Some(mut carbon) = Carbon::start_with(&setup).unwrap() else { return };
    let directory = tempfile::tempdir().unwrap();
    let fakes = daemons(directory.path());
    let began = now();
    let mut fleet = start(directory.path(), &fakes, &carbon);
    let api = fleet.master.api();
    let each = |count: usize| move |api: &Client| Ok(api.events("result")?.len() >= count);
    fleet.until("checked a few times", PATIENCE, each(5 * services().len())).unwrap();
    until_equal(&fleet, &carbon, began, "at first");

    let away = Instant::now();
    let left = now();
    carbon.stop().unwrap();
    // The time itself is what is tried, so it must pass; that checks go on meanwhile is looked at afterwards.
    until(OUTAGE, || away.elapsed() >= OUTAGE);
    let returned = now();
    carbon.restart().unwrap();
    let after_outage = until_equal(&fleet, &carbon, began, "after a minute without carbon");
    checked_throughout(&api, left, returned).unwrap();

    let in_memory = killed_with_points_in_memory(&mut carbon, began);
    until_equal(&fleet, &carbon, began, "after carbon was killed");

    fleet.master.terminate().unwrap();
    fleet.master.start().unwrap();
    let results = api.events("result").unwrap().len();
    fleet.until("checked again", PATIENCE, each(results + 5 * services().len())).unwrap();
    let last = until_equal(&fleet, &carbon, began, "after the master was started again");
    assert!(last.points > after_outage.points);

    golden_names_are_found(&carbon, began);
    fleet.terminate().unwrap();
    figure(
        3,
        &format!(
            "{} results, {} series, {} points equal in journal and render; carbon {} s away, then killed with {in_memory} points only \
             in memory, then the master restarted; {} names as Icinga 2 wrote them",
            last.results,
            last.series,
            last.points,
            returned - left,
            golden_lines().len()
        ),
    );
}

/// SIGKILL at a moment when carbon holds points that no file has; says how many points the kill took.
fn killed_with_points_in_memory(carbon: &mut Carbon, from: i64) -> usize {
    let count = |carbon: &Carbon, until: i64| -> usize {
        found(carbon, from, until).unwrap().values().map(BTreeMap::len).sum()
    };
    let until_second = now();
    let before = count(carbon, until_second);
    carbon.kill();
    // Only files are left to be read.
    let after = count(carbon, until_second);
    assert!(after < before, "the kill took nothing away: {before} points before, {after} in files");
    carbon.restart().unwrap();
    before - after
}

/// Of the host with Icinga 2's names there is every series that Icinga 2 wrote, and beside the number of the answer no other.
fn golden_names_are_found(carbon: &Carbon, from: i64) {
    let all = found(carbon, from, now()).unwrap();
    let names: BTreeSet<String> = all.into_keys().filter(|name| name.starts_with("icinga2.web-01")).collect();
    let icingas: Vec<&str> = golden_lines().into_keys().chain([GOLDEN_NUMBER]).collect();
    assert_eq!(icingas.len(), 38);
    let both = [GOLDEN_PREFIX, GOLDEN_HOST_PREFIX];
    let expected = both.iter().flat_map(|prefix| icingas.iter().map(move |name| format!("{prefix}{name}"))).collect();
    assert_eq!(names, expected);
    // The file has the host's names too, as far as it goes.
    let of_host = |line: &&str| line.starts_with(GOLDEN_HOST_PREFIX);
    let named = GOLDEN.lines().filter(of_host).filter_map(|line| line.split(' ').next());
    let missing: Vec<&str> = named.clone().filter(|name| !names.contains(*name)).collect();
    assert!(named.count() > 0 && missing.is_empty(), "{missing:?}");
}
