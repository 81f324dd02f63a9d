//! A small volume that is really full: a tmpfs in a mount namespace of its own. Checking goes on in memory, the flag is to be seen within
//! ten seconds, memory is bounded, and with room again exactly what was given up is named: by the sequences of runs and by the numbers of
//! the daemon's answers, which know nothing of each other.
#![expect(clippy::disallowed_methods, reason = "looks at memory beside real time")]

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tests::figure::figure;
use tests::missing::missing;
use tests::slope::slope;
use tests::usage::resident;
use tests::violation;
use tests::wait::until;

use crate::scene::{PATIENCE, scene};

const CHILD: &str = "PERIGEE_TEST_FULL_VOLUME";
const NAME: &str = "full::a_full_volume_costs_exactly_what_its_gap_names";

/// Checks of the host, and how often each asks.
const SERVICES: usize = 40;
const EVERY: Duration = Duration::from_millis(250);
/// About what a result holds.
const BYTES: usize = 900;
/// Memory varies by so much without reason: allocators, buffers of the link.
const SLACK: u64 = 8 << 20;
/// Memory is bounded if it grows by less than this part of what would pile up if nothing was given up.
const FLAT: f64 = 1.0 / 8.0;

/// How long the volume stays full once memory is at its bound; `PERIGEE_FULL_SECONDS` for the long form.
fn stays_full() -> Duration {
    let seconds = std::env::var("PERIGEE_FULL_SECONDS").ok().map(|text| text.parse().unwrap());
    Duration::from_secs(seconds.unwrap_or(0))
}

/// Writes until nothing more fits.
fn fill(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    for size in [1 << 16, 1 << 12, 256, 1] {
        while file.write_all(&vec![7; size]).is_ok() {}
    }
}

fn story(directory: &Path) {
    let mut scene = scene(directory, SERVICES, EVERY, BYTES);
    scene.fleet.start().unwrap();
    scene.fleet.until_connected(PATIENCE).unwrap();
    scene.until_answers(400);
    let satellite = scene.fleet.satellite("eu/1").unwrap();
    let (volume, process) = (satellite.data.clone(), satellite.pid().unwrap());

    fill(&volume.join("ballast"));
    let flagged = scene.until_slot("in memory only", |slot| slot["memory_only"] == true);
    assert!(flagged <= Duration::from_secs(10), "the flag came after {flagged:?}");
    scene.until_answers(400);
    scene.until_slot("over the bound of memory", |slot| slot["given_up"].as_u64() > Some(0));
    let (began, mut looks) = (Instant::now(), Vec::new());
    until(stays_full(), || {
        scene.until_answers(400);
        assert_eq!(scene.slot()["memory_only"], true);
        looks.push((began.elapsed(), resident(process).unwrap()));
        false
    });
    let (first, most) = (looks[0].1, looks.iter().map(|(_, bytes)| *bytes).max().unwrap());
    assert!(most <= first + SLACK, "memory grows while the volume is full: {looks:?}");
    let pile = (SERVICES * BYTES) as f64 / EVERY.as_secs_f64();
    let slope = slope(&looks);
    assert!(slope.is_none_or(|slope| slope <= pile * FLAT), "{slope:?} bytes/s where {pile} would pile up: {looks:?}");

    fs::remove_file(volume.join("ballast")).unwrap();
    scene.until_slot("on disk again", |slot| slot["memory_only"] == false);
    // What was in memory comes, with the gap before it.
    assert!(until(PATIENCE, || !scene.fleet.master.api().items("gaps", "").unwrap().is_empty()), "no gap");
    scene.until_answers(200);
    let (evidence, account) = scene.settled();
    let lost = account.named;
    assert!(lost > 0);
    violation::unless(account.missing == lost, || format!("{lost} results are named, others are missing: {account:?}"));
    scene.until_slot("its own count of what it gave up", |slot| slot["given_up"].as_u64() == Some(lost));
    for gap in scene.fleet.master.api().items("gaps", "").unwrap() {
        assert_eq!((gap["reason"].as_str(), gap["explained"].as_bool()), (Some("spool-full"), Some(true)), "{gap}");
        let times = (gap["from"].as_str(), gap["to"].as_str());
        assert!(times.0.is_some() && times.0 <= times.1, "{gap}");
    }
    let shown = scene.fleet.master.run(&["gaps"], true).unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    eprintln!("{shown}");
    assert!(shown.contains("spool-full") && shown.contains(&format!("{lost} results lost")), "{shown}");
    figure(
        18,
        &format!(
            "D1: a volume of 64 MiB full for {} s and more: flag after {flagged:.1?}; of {} answers {} had their effect, {} are missing and {lost} \
             named in {} gaps, no sequence neither or both; memory {} MiB at most{}",
            stays_full().as_secs(),
            evidence.answers.len(),
            evidence.effects.len(),
            account.missing,
            evidence.named.len(),
            most >> 20,
            slope.map_or(String::new(), |slope| format!(
                ", {:+.2} KiB/s where {:.0} would pile up",
                slope / 1024.0,
                pile / 1024.0
            ))
        ),
    );
    scene.fleet.terminate().unwrap();
}

#[test]
fn a_full_volume_costs_exactly_what_its_gap_names() {
    if let Some(directory) = std::env::var_os(CHILD) {
        return story(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("eu-1")).unwrap();
    let namespace = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--map-root-user", "sh", "-c", script, "sh"]).arg(directory.path().join("eu-1"));
        command
    };
    const MOUNT: &str = "mount -t tmpfs -o size=64m tmpfs \"$1\"";
    if !namespace(MOUNT).output().is_ok_and(|output| output.status.success()) {
        return missing("permission to mount a tmpfs in a namespace of its own (unshare)", "util-linux");
    }
    let output = namespace(&format!("{MOUNT} && exec \"$2\" --exact {NAME} --nocapture"))
        .arg(std::env::current_exe().unwrap())
        .env(CHILD, directory.path())
        .env("PERIGEE_SPOOL_MEMORY", "1MiB")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn a_bounded_spool_gives_up_its_oldest_and_names_them() {
    let directory = tempfile::tempdir().unwrap();
    let mut scene = scene(directory.path(), 60, Duration::from_millis(200), 900);
    // As an operator sets it, through the environment of the satellite.
    scene.fleet.satellite("eu/1").unwrap().through = ["env", "PERIGEE_SPOOL_BYTES=4MiB"].map(str::to_owned).to_vec();
    scene.fleet.start().unwrap();
    scene.fleet.until_connected(PATIENCE).unwrap();
    scene.until_answers(200);
    scene.fleet.master.kill().unwrap();
    let volume = scene.fleet.satellite("eu/1").unwrap().data.clone();
    let most = || {
        let status = Command::new(tests::fleet::program("perigee-satellite").unwrap())
            .args(["status", "--json", "--data"])
            .arg(&volume)
            .output()
            .unwrap();
        let line = String::from_utf8(status.stdout).unwrap();
        let told: serde_json::Value = serde_json::from_str(line.lines().next().unwrap_or("{}")).unwrap_or_default();
        (told["spool_bytes"].as_u64().unwrap_or(0), told["given_up"].as_u64().unwrap_or(0))
    };
    let mut held = 0;
    let forced = until(PATIENCE, || {
        let (bytes, given_up) = most();
        held = held.max(bytes);
        given_up > 0
    });
    assert!(forced, "nothing was given up at {held} bytes\n{}", scene.fleet.last_words());
    assert!(held <= 4 << 20, "{held} bytes");
    scene.fleet.master.start().unwrap();
    scene.fleet.until_connected(PATIENCE).unwrap();
    let (_, account) = scene.settled();
    let lost = account.named;
    assert!(lost > 0);
    violation::unless(account.missing == lost, || format!("{lost} results are named, others are missing: {account:?}"));
    let gaps = scene.fleet.master.api().items("gaps", "").unwrap();
    assert!(gaps.iter().all(|gap| gap["reason"] == "spool-full" && gap["from"].is_string()), "{gaps:?}");
    figure(
        18,
        &format!(
            "D1: a spool of 4 MiB without its master: {held} bytes at most, {lost} results given up and named, none else missing"
        ),
    );
    scene.fleet.terminate().unwrap();
}
