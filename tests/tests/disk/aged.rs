//! What lies in a spool for too long: without its master a satellite keeps results for as long as `PERIGEE_SPOOL_AGE` says, by the
//! master's time, and gives up no younger ones; what went is named, by the sequences of runs and by the numbers of the daemon's answers.
#![expect(clippy::disallowed_methods, reason = "an age is measured in real time")]

use std::process::Command;
use std::time::{Duration, Instant};

use tests::violation;
use tests::wait::until;

use crate::scene::{PATIENCE, scene};

/// The least that may be asked for, and what is asked for.
const AGE: Duration = Duration::from_secs(60);
/// A segment is as old as the beginning of the next one, and some twenty seconds long here; ages are looked at eight times within one.
const LATER: Duration = Duration::from_secs(120);

#[test]
fn results_older_than_the_spools_age_are_given_up_and_named() {
    let directory = tempfile::tempdir().unwrap();
    let mut scene = scene(directory.path(), 40, Duration::from_secs(1), 900);
    // Small segments, for what is given up goes in steps of one; the bytes are not reached in this time.
    let set = ["env", "PERIGEE_SPOOL_BYTES=4MiB", "PERIGEE_SPOOL_AGE=1m"];
    scene.fleet.satellite("eu/1").unwrap().through = set.map(str::to_owned).to_vec();
    scene.fleet.start().unwrap();
    scene.fleet.until_connected(PATIENCE).unwrap();
    scene.until_answers(100);
    scene.fleet.master.kill().unwrap();
    let alone = Instant::now();
    let volume = scene.fleet.satellite("eu/1").unwrap().data.clone();
    let given_up = || {
        let status = Command::new(tests::fleet::program("perigee-satellite").unwrap())
            .args(["status", "--json", "--data"])
            .arg(&volume)
            .output()
            .unwrap();
        let line = String::from_utf8(status.stdout).unwrap();
        let told: serde_json::Value = serde_json::from_str(line.lines().next().unwrap_or("{}")).unwrap_or_default();
        told["given_up"].as_u64().unwrap_or(0)
    };
    assert!(until(AGE + LATER, || given_up() > 0), "nothing was given up\n{}", scene.fleet.last_words());
    let after = alone.elapsed();
    assert!(after >= AGE, "results of {after:?} at most were given up");
    scene.fleet.master.start().unwrap();
    scene.fleet.until_connected(PATIENCE).unwrap();
    let (_, account) = scene.settled();
    assert!(account.named > 0);
    violation::unless(account.missing == account.named, || {
        format!("answers are missing, others are named: {account:?}")
    });
    let gaps = scene.fleet.master.api().items("gaps", "").unwrap();
    assert!(gaps.iter().all(|gap| gap["reason"] == "spool-age" && gap["from"].is_string()), "{gaps:?}");
    scene.fleet.terminate().unwrap();
}
