//! A small volume that is really full: a tmpfs in a mount namespace of its own. Checking goes on in memory, the flag is to be seen within
//! ten seconds, memory is bounded, and with room again exactly what was given up is named.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tests::figure::figure;
use tests::missing::missing;
use tests::wait::until;

use crate::scene::{PATIENCE, missing_serials, named, scene};

const CHILD: &str = "PERIGEE_TEST_FULL_VOLUME";
const NAME: &str = "full::a_full_volume_costs_exactly_what_its_gap_names";

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
    let mut scene = scene(directory, 40, Duration::from_millis(250), 900);
    scene.fleet.start().unwrap();
    scene.fleet.until_connected(PATIENCE).unwrap();
    scene.until_answers(400);
    let volume = scene.fleet.satellite("eu/1").unwrap().data.clone();

    fill(&volume.join("ballast"));
    let flagged = scene.until_slot("in memory only", |slot| slot["memory_only"] == true);
    assert!(flagged <= Duration::from_secs(10), "the flag came after {flagged:?}");
    scene.until_answers(400);
    scene.until_slot("over the bound of memory", |slot| slot["given_up"].as_u64() > Some(0));
    let mut rounds = 0;
    until(stays_full(), || {
        scene.until_answers(400);
        assert_eq!(scene.slot()["memory_only"], true);
        rounds += 1;
        false
    });
    assert!(rounds > 0);

    fs::remove_file(volume.join("ballast")).unwrap();
    scene.until_slot("on disk again", |slot| slot["memory_only"] == false);
    // What was in memory comes, with the gap before it.
    assert!(until(PATIENCE, || !scene.fleet.master.api().items("gaps", "").unwrap().is_empty()), "no gap");
    scene.until_answers(200);
    let evidence = scene.settled();
    let named = named(&evidence);
    let lost: usize = named.values().map(std::collections::BTreeSet::len).sum();
    assert!(lost > 0);
    for effect in &evidence.effects {
        assert!(
            named.get(&effect.run).is_none_or(|gap| !gap.contains(&effect.sequence)),
            "{effect:?} is there and named lost"
        );
    }
    // A result need not be a daemon's answer: the host has a check of its own, and a busy machine asks in vain now and then.
    let missing = missing_serials(&evidence);
    let unanswered = evidence.effects.iter().filter(|effect| effect.serial.is_none()).count();
    assert!(
        (missing..=missing + unanswered + 2).contains(&lost),
        "{missing} answers are missing, {lost} results named"
    );
    assert_eq!(scene.slot()["given_up"].as_u64(), Some(lost as u64));
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
            "D1: a volume full for {} s and more: flag after {flagged:.1?}, {} answers given, {lost} given up by memory's bound and named, \
             none else missing",
            stays_full().as_secs(),
            scene.answers()
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
    const MOUNT: &str = "mount -t tmpfs -o size=24m tmpfs \"$1\"";
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
    let evidence = scene.settled();
    let lost: usize = named(&evidence).values().map(std::collections::BTreeSet::len).sum();
    assert!(lost > 0);
    assert_eq!(missing_serials(&evidence), lost, "answers that are missing, and results that are named");
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
