//! Performance data on its whole way: a daemon's answer, a satellite, the journal, real carbon. What render gives back is what the
//! journal holds, series by series and second by second, also after carbon was down for a minute and killed once; and its names are
//! the ones that a real Icinga 2 wrote.
//!
//! `PERIGEE_OUTAGE_S` is how long carbon is down; 60 where `CI=true`, else 10.
#![expect(clippy::unwrap_used, reason = "a test that cannot set its stage has nothing better to do")]

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use serde_json::Value;
use tests::carbon::{Carbon, Series};
use tests::fakes::{Fakes, daemon};
use tests::figure::figure;
use tests::fleet::Fleet;
use tests::wait::until;

const PATIENCE: Duration = Duration::from_secs(90);
/// Golden names and values: what Icinga 2 wrote for one line of a plugin.
const GOLDEN: &str = include_str!("../testdata/icinga2-perfdata-golden.txt");
/// What Icinga 2 rounded to six digits and Perigee does not.
const MORE_EXACT: [(&str, f64); 2] = [("tiny.value", 1e-7), ("third.value", 0.333_333_333_333_333)];
const LOAD: &str = "OK - load|load1=0.31;5;10;0;100 'in use'=2.5;;;1";

fn golden_output() -> &'static str {
    GOLDEN.lines().find(|line| line.starts_with("OK - text |")).unwrap()
}

/// The golden lines of a service, with the names of ours in place of the oracle's. Of a name that is there twice the later stays.
fn golden(prefix: &str) -> BTreeMap<String, f64> {
    let mut lines = BTreeMap::new();
    for line in GOLDEN.lines().filter(|line| line.contains(".services.") && line.contains(".perfdata.")) {
        let words: Vec<&str> = line.split(' ').collect();
        let (_, name) = words[0].split_once(".perfdata.").unwrap();
        let exact = MORE_EXACT.iter().find(|(ending, _)| name.ends_with(ending));
        let value = exact.map_or_else(|| words[1].parse().unwrap(), |(_, exact)| *exact);
        lines.insert(format!("{prefix}.perfdata.{name}"), value);
    }
    lines
}

/// What render must give, made from the journal's results as the API tells them, by rules written down here once more.
fn expected(results: &[Value], golden: &BTreeMap<String, f64>, golden_prefix: &str) -> Series {
    let mut series = Series::new();
    for result in results {
        let time = |name: &str| result[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        let second = time("time").min(time("recorded")).as_second();
        let serial: f64 =
            result["perfdata"].as_str().unwrap_or_default().split("serial=").nth(1).unwrap_or("0").parse().unwrap();
        let mut point = |name: String, value: f64| {
            series.entry(name).or_default().insert(second, value);
        };
        match result["service"].as_str() {
            Some("disk C:\\ a=b,c") => {
                golden.iter().for_each(|(name, value)| point(name.clone(), *value));
                // The number comes behind a label that opened two levels.
                point(format!("{golden_prefix}.perfdata.a.b.serial.value"), serial);
            }
            Some("load") => {
                let prefix = "icinga2.db1_example_com.services.load.nrpe.perfdata";
                for (name, value) in [
                    ("load1.value", 0.31),
                    ("load1.warn", 5.0),
                    ("load1.crit", 10.0),
                    ("load1.min", 0.0),
                    ("load1.max", 100.0),
                    ("in_use.value", 2.5),
                    ("in_use.min", 1.0),
                    ("serial.value", serial),
                ] {
                    point(format!("{prefix}.{name}"), value);
                }
            }
            _ => {}
        }
    }
    series
}

/// Compares with render, whose patterns know the depth of a name.
fn compare(carbon: &Carbon, expected: &Series) -> usize {
    let depth = |name: &str| name.split('.').count();
    let mut depths: Vec<usize> = expected.keys().map(|name| depth(name)).collect();
    depths.sort_unstable();
    depths.dedup();
    for wanted in depths {
        let part: Series = expected
            .iter()
            .filter(|(name, _)| depth(name) == wanted)
            .map(|(name, points)| (name.clone(), points.clone()))
            .collect();
        let pattern = format!("icinga2.*.services.{}", vec!["*"; wanted - 3].join("."));
        carbon.render_until_equal(&pattern, &part, PATIENCE).unwrap();
    }
    expected.values().map(BTreeMap::len).sum()
}

#[test]
fn points_of_the_whole_system_equal_the_journals_also_after_an_outage_and_a_kill() {
    let Some(mut carbon) = Carbon::start().unwrap() else { return };
    let outage = match std::env::var("PERIGEE_OUTAGE_S") {
        Ok(seconds) => seconds.parse().unwrap(),
        Err(_) if std::env::var("CI").as_deref() == Ok("true") => 60,
        Err(_) => 10,
    };
    let directory = tempfile::tempdir().unwrap();
    let daemons = [
        daemon("web-01.example.com", "anonymous", &[("pd", 1, golden_output())]),
        daemon("db1.example.com", "plain", &[("load", 0, LOAD)]),
    ];
    let fakes = Fakes::start(directory.path(), &daemons).unwrap();
    let host = |name: &str, tls: &str| {
        let address = fakes.addresses[name];
        format!(
            "  {name}: {{ region: eu, address: {}, nrpe: {{ tls: {tls}, port: {} }} }}\n",
            address.ip(),
            address.port()
        )
    };
    let config = directory.path().join("site.yaml");
    let text = format!(
        "regions: {{ eu: {{ slots: 1 }} }}\ntemplates: {{ fast: {{ check_interval: 1s, retry_interval: 1s }} }}\n\
         hosts:\n{}{}services:\n  'disk C:\\ a=b,c': {{ hosts: [web-01.example.com], use: [fast], check: {{ command: pd cmd.x }} }}\n  \
         load: {{ hosts: [db1.example.com], use: [fast], check: {{ nrpe: load }} }}\ncommands:\n  pd cmd.x: {{ nrpe: pd }}\n\
         writers: {{ graphite: {{ address: \"{}\", thresholds: true }} }}\n",
        host("web-01.example.com", "anonymous"),
        host("db1.example.com", "plain"),
        carbon.line_address(),
    );
    fs::write(&config, text).unwrap();
    let mut fleet = Fleet::new(directory.path(), &config, &[("eu", 1)]).unwrap();
    fleet.start().unwrap();
    let until_results = |fleet: &Fleet, more: usize| {
        let before = fleet.master.api().events("result").unwrap().len();
        let what = format!("{more} results more than {before}");
        fleet.until(&what, PATIENCE, |api| Ok(api.events("result")?.len() >= before + more)).unwrap();
    };
    let golden_prefix = "icinga2.web-01_example_com.services.disk_C:__a=b,c.pd_cmd_x";
    let golden = golden(golden_prefix);
    assert_eq!(golden.len(), 37, "one of 38 lines has a name twice");

    until_results(&fleet, 10);
    carbon.stop().unwrap();
    // The outage itself is what is tested; nothing is waited for.
    until(Duration::from_secs(outage), || false);
    carbon.restart().unwrap();
    until_results(&fleet, 10);
    carbon.kill();
    carbon.restart().unwrap();
    until_results(&fleet, 10);
    // No more results: what is compared no longer changes.
    fleet.satellite("eu/1").unwrap().terminate().unwrap();
    let results = fleet.master.api().events("result").unwrap();
    let expected = expected(&results, &golden, golden_prefix);
    let seconds = expected.values().map(BTreeMap::len).max().unwrap();
    assert!(u64::try_from(seconds).unwrap() > outage, "{seconds} seconds of points after an outage of {outage}");
    let points = compare(&carbon, &expected);
    figure(
        3,
        &format!(
            "{points} points of {} series equal the journal's after {outage} s without carbon and a kill of it",
            expected.len()
        ),
    );
    fleet.master.terminate().unwrap();
}
