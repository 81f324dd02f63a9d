//! The assignment on disk, damaged: a start without the master goes on from the last good one and never from nothing. `PERIGEE_SEED`
//! says where it is hit.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tests::figure::figure;
use tests::fleet::program;
use tests::wait::until;

use crate::damaged::number;
use crate::scene::{PATIENCE, scene};

/// Damaged starts of the real program; every byte is damaged in the satellite's own tests.
const STARTS: usize = 6;

/// Checks that the living satellite of a volume has, and the generation they are of.
fn told(data: &Path) -> Option<(u64, u64)> {
    let output =
        Command::new(program("perigee-satellite").unwrap()).args(["status", "--json", "--data"]).arg(data).output();
    let told: serde_json::Value = serde_json::from_slice(&output.unwrap().stdout).ok()?;
    let told = if told.is_array() { told.get(0)?.clone() } else { told };
    Some((told["checks"].as_u64()?, told["generation"].as_u64()?))
}

#[test]
fn a_damaged_assignment_never_starts_empty() {
    let seed = number("PERIGEE_SEED", rand::random_range(1..1_000_000_000));
    eprintln!("PERIGEE_SEED={seed}");
    let mut draw = StdRng::seed_from_u64(seed);
    let directory = tempfile::tempdir().unwrap();
    let mut scene = scene(directory.path(), 7, Duration::from_millis(500), 10);
    scene.fleet.start().unwrap();
    let data = scene.fleet.satellite("eu/1").unwrap().data.clone();
    let current = data.join("assignment/current");
    assert!(
        until(PATIENCE, || told(&data).is_some_and(|(checks, _)| checks == 8) && current.exists()),
        "no assignment"
    );
    scene.until_answers(20);
    let whole = fs::read(&current).unwrap();
    let link = scene.fleet.master.link;
    scene.fleet.master.terminate().unwrap();
    scene.fleet.satellite("eu/1").unwrap().terminate().unwrap();
    // It has had one assignment only: even so there are two copies of it.
    for start in 0..STARTS {
        let mut damaged = whole.clone();
        match start % 3 {
            0 => damaged[draw.random_range(0..whole.len())] ^= 1 << draw.random_range(0..8),
            1 => damaged.truncate(draw.random_range(0..whole.len())),
            _ => damaged[..].fill(0),
        }
        fs::write(&current, damaged).unwrap();
        let satellite = scene.fleet.satellite("eu/1").unwrap();
        satellite.start(link).unwrap();
        assert!(until(PATIENCE, || told(&data).is_some()), "it does not start\n{}", satellite.log());
        assert_eq!(told(&data).map(|(checks, _)| checks), Some(8), "start {start}, seed {seed}\n{}", satellite.log());
        scene.until_answers(8);
        scene.fleet.satellite("eu/1").unwrap().kill().unwrap();
    }
    figure(
        18,
        &format!("D5: {STARTS} starts from a damaged assignment without a master, seed {seed}: never without checks"),
    );
}
