//! The checks that are built in, run as a plugin, beside Debian's plugins of the same name: for the same thresholds the same state
//! (exit code), and performance data with the same labels, units and, within a stated tolerance, numbers.
//!
//! The surprise: the machine goes on living between two looks at it. Where a figure moves, thresholds lie far from it, and a
//! comparison is made again, a few times, before it counts as failed.
#![expect(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests that run programs and date files")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use shared::perfdata::{Metric, Threshold, parse, split_output};
use tests::missing::missing;

/// How often a comparison of moving figures is made before it counts as failed.
const TRIES: usize = 10;

/// What a plugin said.
#[derive(Debug)]
struct Said {
    status: Option<i32>,
    text: String,
    metrics: BTreeMap<String, Metric>,
}

fn run(program: &Path, words: &[&str]) -> Said {
    let output = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        // A comma for a decimal point is no number in performance data.
        .env("LC_ALL", "C")
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let parsed = parse(&split_output(&text).perfdata);
    assert_eq!(parsed.dropped, 0, "{text}");
    let metrics = parsed.metrics.into_iter().map(|metric| (metric.label.clone(), metric)).collect();
    Said { status: output.status.code(), text, metrics }
}

/// Where this test program was built, the satellite is built too.
fn satellite() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("perigee-satellite");
    assert!(path.is_file(), "{} is not there: make build", path.display());
    path
}

fn ours(words: &[&str]) -> Said {
    run(&satellite(), &[&["check"], words].concat())
}

/// Debian's plugin, if it is installed.
fn plugin(name: &str) -> Option<PathBuf> {
    let path = Path::new("/usr/lib/nagios/plugins").join(name);
    if path.exists() {
        return Some(path);
    }
    missing(&path.display().to_string(), "monitoring-plugins-basic");
    None
}

/// How far two numbers may be apart: by a share of the greater one, or by so much.
#[derive(Debug, Clone, Copy)]
struct Tolerance {
    share: f64,
    amount: f64,
}

impl Tolerance {
    fn holds(self, one: f64, other: f64) -> bool {
        (one - other).abs() <= self.amount.max(self.share * one.abs().max(other.abs()))
    }
}

fn thresholds(metric: &Metric) -> [Option<(f64, f64, bool)>; 2] {
    [metric.warn, metric.crit].map(|threshold| {
        threshold.map(|threshold| match threshold {
            Threshold::Number(number) => (0.0, number, false),
            Threshold::Range(range) => (range.start(), range.end(), range.inside()),
        })
    })
}

/// Why two answers differ, if they do. Theirs may have labels of file systems that we leave out, where `all` is false.
fn difference(ours: &Said, theirs: &Said, tolerance: Tolerance, all: bool) -> Option<String> {
    let say = |what: &str| {
        Some(format!("{what}\n  ours: {:?} {}\ntheirs: {:?} {}", ours.status, ours.text, theirs.status, theirs.text))
    };
    if ours.status != theirs.status {
        return say("other states");
    }
    let near =
        |one: f64, other: f64| one == other || (one.is_finite() && other.is_finite() && tolerance.holds(one, other));
    for (label, metric) in &theirs.metrics {
        let Some(mine) = ours.metrics.get(label) else {
            if all {
                return say(&format!("no {label}"));
            }
            continue;
        };
        if mine.unit != metric.unit || !near(mine.value, metric.value) {
            return say(&format!("another {label}"));
        }
        for (mine, theirs) in thresholds(mine).into_iter().zip(thresholds(metric)) {
            let same = match (mine, theirs) {
                (None, None) => true,
                // check_disk takes more than there is from what there is, below zero and round again; ours stays at zero.
                (Some(mine), Some(theirs)) if theirs.1.is_finite() && theirs.1 > 1e18 => mine.1 == 0.0,
                (Some(mine), Some(theirs)) => near(mine.0, theirs.0) && near(mine.1, theirs.1) && mine.2 == theirs.2,
                // Without a threshold check_file_age and check_disk show 0.
                (None, Some((start, end, _))) => start == 0.0 && end == 0.0,
                (Some(_), None) => false,
            };
            if !same {
                return say(&format!("other thresholds at {label}"));
            }
        }
        if let (Some(mine), Some(theirs)) = (mine.max, metric.max)
            && !near(mine, theirs)
        {
            return say(&format!("another maximum at {label}"));
        }
    }
    None
}

/// The same words to both, until they agree; returns what they agreed on, as exit code.
fn agree(plugin: &Path, name: &str, words: &[&str], theirs: &[&str], tolerance: Tolerance, all: bool) -> i32 {
    let mut last = String::new();
    for _ in 0..TRIES {
        let own = ours(&[&[name], words].concat());
        let other = run(plugin, theirs);
        match difference(&own, &other, tolerance, all) {
            None => return own.status.unwrap(),
            Some(why) => last = why,
        }
    }
    panic!("{name} {words:?}: {last}");
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// Compares line by line, and wants every one of `states` to occur: a table of OKs proves nothing.
fn table(name: &str, plugin_name: &str, lines: &[&str], tolerance: Tolerance, all: bool, states: &[i32]) {
    let Some(plugin) = plugin(plugin_name) else { return };
    let mut seen: Vec<i32> =
        lines.iter().map(|line| agree(&plugin, name, &words(line), &words(line), tolerance, all)).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, states, "states that occurred");
}

/// The load moves with the tests themselves: thresholds are far above or below, figures may be half a point apart.
#[test]
fn load_is_check_loads() {
    let lines = [
        "-w 900,800,700 -c 990,890,790",
        "-w 900 -c 990",
        "-w 0,0,0 -c 990,890,790",
        "-w 0 -c 0",
        "-r -w 900,800,700 -c 990,890,790",
        "-r -w 0.00001,0,0 -c 900",
    ];
    // After an hour of nothing a load of 0.00 is above no threshold; a test run is no such hour.
    table("load", "check_load", &lines, Tolerance { share: 0.1, amount: 0.5 }, true, &[0, 1, 2]);
}

#[test]
fn load_refuses_what_check_load_refuses() {
    let Some(plugin) = plugin("check_load") else { return };
    for line in ["-w x -c y", "-w 5 -c 4", "--no-such-option", "-w 1,2,3 -c 2,3,1"] {
        let (own, other) = (ours(&[&["load"][..], &words(line)].concat()), run(&plugin, &words(line)));
        assert_eq!((own.status, other.status), (Some(3), Some(3)), "{line}: {own:?} {other:?}");
    }
}

/// Sizes may differ by the megabytes that are written meanwhile, and by the fraction of a MiB that check_disk cuts off.
#[test]
fn disk_is_check_disks() {
    let lines = [
        "-w 0% -c 0% -p /",
        "-w 100% -c 0% -p /",
        "-w 100% -c 100% -p /",
        "-w 1 -c 0 -p / -u MB",
        "-w 999999999 -c 1 -p /",
        "-w 1 -c 999999999 -p /",
        "-w 0% -c 0% -p /tmp -p /",
        "-w 0% -c 0% -p /no/such/place",
        "-w 0% -c 0% -p / -X no-such-type -l",
        "-w 0% -c 0% -W 100% -p /",
        "-w 0% -c 0% -K 100% -p /",
        "-w 0% -c 0% -e -p /",
    ];
    // `-u` is a unit there and no option with a value here: MiB are the default of both.
    let Some(plugin) = plugin("check_disk") else { return };
    let tolerance = Tolerance { share: 0.02, amount: 64e6 };
    let mut seen = Vec::new();
    for line in lines {
        let own = line.replace(" -u MB", "");
        seen.push(agree(&plugin, "disk", &words(&own), &words(line), tolerance, false));
    }
    assert!([0, 1, 2].iter().all(|state| seen.contains(state)), "{seen:?}");
    // Of all file systems: theirs has devtmpfs and the tmpfs of control groups too, which hold no data.
    let own = ours(&["disk", "-w", "0%", "-c", "0%"]);
    let other = run(&plugin, &["-w", "0%", "-c", "0%"]);
    assert_eq!(difference(&own, &other, tolerance, false), None);
    for label in own.metrics.keys() {
        assert!(other.metrics.contains_key(label), "check_disk does not know {label}: {}", other.text);
    }
    assert!(own.metrics.contains_key("/"), "{}", own.text);
}

#[test]
fn inodes_are_check_disks() {
    let Some(plugin) = plugin("check_disk") else { return };
    let tolerance = Tolerance { share: 0.02, amount: 5000.0 };
    let mut seen = Vec::new();
    for (own, other) in [
        ("-w 0% -c 0% -p /", "-w 0 -c 0 -W 0% -K 0% -P -p /"),
        ("-w 100% -c 0% -p /", "-w 0 -c 0 -W 100% -K 0% -P -p /"),
        ("-w 0% -c 100% -p /", "-w 0 -c 0 -W 0% -K 100% -P -p /"),
    ] {
        seen.push(agree(&plugin, "inodes", &words(own), &words(other), tolerance, false));
    }
    // A file system without inodes has no state to compare.
    assert!(seen == [0, 1, 2] || seen == [0, 0, 0], "{seen:?}");
}

/// Free swap may move by some pages. Where there is none, ours says OK unless told; check_swap is told the same.
#[test]
fn swap_is_check_swaps() {
    let Some(plugin) = plugin("check_swap") else { return };
    let tolerance = Tolerance { share: 0.02, amount: 64e6 };
    for line in [
        "-w 100% -c 0% -n ok",
        "-w 100% -c 0% -n warning",
        "-w 2% -c 1% -n critical",
        "-w 100% -c 99% -n critical",
        "-w 2 -c 1 -n unknown",
    ] {
        agree(&plugin, "swap", &words(line), &words(line), tolerance, true);
    }
}

/// A process to be found; gone when it is dropped.
struct Sleeper(Child);

impl Drop for Sleeper {
    fn drop(&mut self) {
        // It may have ended by itself; there is nobody to be told.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn procs_are_check_procs() {
    let _sleeper = Sleeper(Command::new("/bin/sleep").arg("613.25").spawn().expect("sleep"));
    let lines = [
        "-w 100000 -c 200000",
        "-w 0 -c 200000",
        "-w 0 -c 0",
        "-c 100000:",
        "-w 1: -c 1: -C sleep",
        "-w 1:1 -c 1: -a 613.25",
        "-c 1:1 -a 613.25 -C sleep -s S",
        "-w 1: -C no-such-program",
        "-c 0 -s Z -a no-such-argument",
        "-w 1: -p 1 -u 0",
        "-w 100000 -u root",
        "-k -w 100000",
        "-m VSZ -w 0 -a 613.25",
        "-m RSS -c 0 -a 613.25",
        "-m ELAPSED -w 100000000 -a 613.25",
        "-m CPU -c 100000",
    ];
    table("procs", "check_procs", &lines, Tolerance { share: 0.2, amount: 20.0 }, true, &[0, 1, 2]);
}

#[test]
fn users_are_check_users() {
    // Without anybody logged in, above nothing is nobody; and a range that 0 is outside of is CRITICAL.
    let lines = ["-w 1000 -c 2000"];
    table("users", "check_users", &lines, Tolerance { share: 0.0, amount: 1.0 }, true, &[0]);
}

/// Ages may be some seconds apart.
#[test]
fn file_age_is_check_file_ages() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a file");
    fs::write(&path, vec![b'x'; 1000]).unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(5000);
    fs::File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
    let Some(plugin) = plugin("check_file_age") else { return };
    let (path, gone) = (path.to_str().unwrap(), directory.path().join("gone"));
    let gone = gone.to_str().unwrap();
    let mut seen = Vec::new();
    for (line, file) in [
        ("", path),
        ("-w 10000 -c 20000", path),
        ("-w 1000 -c 20000", path),
        ("-w 1000 -c 2000", path),
        ("-w 10000 -c 20000 -W 2000", path),
        ("-w 10000 -c 20000 -W 2000 -C 1500", path),
        ("-w 10000 -c 20000 -W 1000 -C 1000", path),
        ("-w 10000 -c 20000 -i", path),
        ("", gone),
        ("-i", gone),
    ] {
        let given = [&words(line)[..], &["-f", file]].concat();
        seen.push(agree(&plugin, "file-age", &given, &given, Tolerance { share: 0.0, amount: 30.0 }, true));
    }
    assert_eq!(seen, [2, 0, 1, 2, 1, 2, 0, 0, 2, 0]);
}

#[test]
fn memory_and_uptime_are_the_kernels() {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap();
    let total: f64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    let said = ours(&["memory", "-w", "0%", "-c", "100%"]);
    assert_eq!((said.status, said.metrics["used"].max), (Some(1), Some(total * 1024.0)), "{}", said.text);
    assert_eq!(said.metrics["used"].value + said.metrics["available"].value, total * 1024.0);
    assert_eq!(ours(&["memory", "-a", "-c", "100%"]).status, Some(2));

    let seconds = || -> f64 { fs::read_to_string("/proc/uptime").unwrap().split(' ').next().unwrap().parse().unwrap() };
    let (before, said, after) = (seconds().floor(), ours(&["uptime", "-c", "1000w"]), seconds());
    let value = said.metrics["uptime"].value;
    assert!(before <= value && value <= after, "{before} {value} {after}");
    assert_eq!((said.status, said.metrics["uptime"].unit.as_str()), (Some(2), "s"));
}

/// Whether they can say anything depends on the machine; that they say it as plugins do does not.
#[test]
fn systemd_and_container_answer_on_every_machine() {
    for words in [&["systemd"][..], &["systemd", "dbus"], &["container"], &["container", "no-such-container-here"]] {
        let said = ours(words);
        let headline = words[0].to_uppercase();
        assert!(said.text.starts_with(&headline) && matches!(said.status, Some(0..=3)), "{said:?}");
    }
}

#[test]
fn the_command_teaches_and_refuses() {
    let list = ours(&["--list"]);
    assert_eq!(list.status, Some(0));
    for name in
        ["load", "memory", "swap", "disk", "inodes", "procs", "uptime", "users", "file-age", "systemd", "container"]
    {
        assert!(list.text.lines().any(|line| line.starts_with(&format!("{name} "))), "{name}: {}", list.text);
        let page = ours(&[name, "--help"]);
        assert!(page.status == Some(3) && page.text.contains(&format!("Usage: {name} [options]")), "{page:?}");
    }
    let none = ours(&["no-such-check"]);
    assert!(none.status == Some(3) && none.text.contains("there is no built-in check `no-such-check`"), "{none:?}");
    let odd = ours(&["load", "-w", "1;id"]);
    assert!(odd.status == Some(3) && odd.text.starts_with("LOAD UNKNOWN - --warning: `1;id`"), "{odd:?}");
}

/// The reference has the page of every built-in word for word: who changes an option changes it there.
#[test]
fn the_reference_has_every_page() {
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/agent-checks.md");
    let reference = fs::read_to_string(reference).unwrap();
    let list = ours(&["--list"]).text;
    assert!(
        reference.contains(list.trim_end()),
        "the list of docs/agent-checks.md is not that of `check --list`:\n{list}"
    );
    for name in list.lines().filter_map(|line| line.split_whitespace().next()) {
        if !matches!(name, "help" | "version") {
            let page = ours(&["help", name]).text;
            assert!(reference.contains(page.trim_end()), "docs/agent-checks.md does not have this page:\n{page}");
        }
    }
}

/// Nagios takes exit code 2 for CRITICAL, and reads standard output.
#[test]
fn wrong_words_before_the_check_are_unknown_too() {
    for words in [&[][..], &["--timeout", "0", "load"], &["--timeout"]] {
        let said = ours(words);
        assert_eq!(said.status, Some(3), "{words:?}: {said:?}");
        assert!(said.text.starts_with("UNKNOWN - ") && said.text.contains("--help"), "{words:?}: {said:?}");
    }
    let help = ours(&["--help"]);
    assert_eq!(help.status, Some(0), "{help:?}");
    assert!(help.text.contains("perigee-satellite check load"), "{help:?}");
}

/// A table of comparisons proves nothing if the comparison never fails.
#[test]
fn a_difference_is_seen() {
    let said = |status, perfdata: &str| Said {
        status: Some(status),
        text: perfdata.to_owned(),
        metrics: parse(perfdata).metrics.into_iter().map(|metric| (metric.label.clone(), metric)).collect(),
    };
    let tolerance = Tolerance { share: 0.0, amount: 1.0 };
    let ours = said(0, "a=5B;10;20;0;100");
    assert_eq!(difference(&ours, &said(0, "a=6B;10;20;0;100"), tolerance, true), None);
    for other in [
        said(1, "a=5B;10;20;0;100"),
        said(0, "a=8B;10;20;0;100"),
        said(0, "a=5;10;20;0;100"),
        said(0, "a=5B;15;20;0;100"),
        said(0, "a=5B;@10;20;0;100"),
        said(0, "a=5B;10;20;0;200"),
        said(0, "b=5B;10;20;0;100"),
    ] {
        assert!(difference(&ours, &other, tolerance, true).is_some(), "{other:?}");
    }
}
