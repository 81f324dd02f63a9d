//! Two processes for one slot, again and again: on a volume of its own, on a copy of the other's volume made while that one writes,
//! and on the very same volume. The newer one has the slot, the other one runs nothing more and delivers what it has; and when the
//! holder is killed while the fenced one still waits, that one gets the slot back after the lease.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use tests::audit::Audit;
use tests::figure::figure;
use tests::fleet::{Fleet, Satellite};
use tests::ledger::{self, Said};
use tests::load::Load;
use tests::violation;
use tests::wait::until;

use crate::grants::Ownership;
use crate::overlaps::{self, Processes};
use crate::scene::{ARRIVES, PATIENCE, let_run, number, started};

/// What the satellite's log says when its slot is another's.
const FENCED: &str = "fenced: another process has this slot now";
/// A check may begin in the moment in which its satellite hears that it is fenced.
const AT_ONCE: i64 = 1_000;

/// A hundred results a second.
const LOAD: Load = Load { hosts: 10, services: 10, interval: Duration::from_secs(1), slow: None };

#[derive(Debug, Clone, Copy)]
enum Volume {
    Own,
    Copied,
    Same,
}

const VOLUMES: [Volume; 3] = [Volume::Own, Volume::Copied, Volume::Same];
/// Every so many claims the holder is killed instead of the fenced one. Their volume is the same, or the holder's last results
/// would lie where nobody delivers them.
const BACK_EVERY: u64 = 6;

/// A copy as a snapshot of a volume makes it: files come and go meanwhile.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).into_iter().flatten().flatten() {
        let target = to.join(entry.file_name());
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => copy(&entry.path(), &target),
            // A file that is gone by now is not in the copy.
            Ok(kind) if kind.is_file() => drop(fs::copy(entry.path(), target)),
            _ => {}
        }
    }
}

/// The process's name, as it says at its start.
fn instance(satellite: &Satellite) -> Option<String> {
    let log = satellite.log();
    let line = log.lines().rfind(|line| line.contains("satellite starts"))?;
    line.split(' ').find_map(|word| word.strip_prefix("instance=")).map(str::to_owned)
}

/// Who has the slot, by the API.
fn holder(fleet: &Fleet) -> Option<String> {
    let slots = fleet.master.api().items("slots", "").ok()?;
    slots.first()?.get("instance")?.as_str().map(str::to_owned)
}

fn is_drained(satellite: &Satellite) -> bool {
    let positions = ledger::positions(&satellite.log());
    positions.durable.iter().all(|(run, durable)| positions.acknowledged.get(run).is_some_and(|known| known >= durable))
}

/// Milliseconds since 1970 of the newest line with these words.
pub(crate) fn told_at(satellite: &Satellite, words: &str) -> Option<i64> {
    let log = satellite.log();
    let line = log.lines().rfind(|line| line.contains(words))?;
    line.split(' ').find_map(|word| word.parse::<jiff::Timestamp>().ok()).map(jiff::Timestamp::as_millisecond)
}

/// Results that a process began after it was fenced for good.
fn begun_after(satellite: &Satellite, fenced: i64, results: &[Value]) -> Vec<String> {
    let own: Vec<String> = satellite
        .log()
        .lines()
        .filter_map(ledger::position)
        .filter_map(|(said, run, _)| (said == Said::Durable).then_some(run))
        .collect();
    let begun = results.iter().filter(|result| {
        let started = result["started"].as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok()).unwrap();
        own.iter().any(|run| result["run"] == **run) && started.as_millisecond() > fenced + AT_ONCE
    });
    begun.map(Value::to_string).collect()
}

/// One claim: a second process beside the living one. Gives the one that lives on, and who was fenced when, for good.
fn claim(
    fleet: &mut Fleet,
    audit: &mut Audit,
    draw: &mut StdRng,
    living: &str,
    round: u64,
) -> (String, Option<(String, i64)>) {
    let volume = VOLUMES[usize::try_from(round % 3).unwrap()];
    let name = format!("eu/1 claim {round}");
    let first = &fleet.satellites[living];
    let mut second = first.claimant(&fleet.directory, &format!("claim-{round}")).unwrap();
    match volume {
        Volume::Own => {}
        Volume::Copied => copy(&first.data, &second.data),
        Volume::Same => second.data.clone_from(&first.data),
    }
    let fences = first.log().matches(FENCED).count();
    second.start(fleet.master.link).unwrap();
    fleet.satellites.insert(name.clone(), second);
    let taken = until(PATIENCE, || {
        let newer = instance(&fleet.satellites[&name]);
        newer.is_some() && newer == holder(fleet) && fleet.satellites[living].log().matches(FENCED).count() > fences
    });
    assert!(taken, "claim {round} ({volume:?}): the newer process does not get the slot\n{}", fleet.last_words());
    let_run(draw, 300..2500);

    if round % BACK_EVERY == BACK_EVERY - 1 {
        let welcomes = fleet.satellites[living].log().matches("holder=true").count();
        audit.kill(fleet.satellite(&name).unwrap()).unwrap();
        let back = until(PATIENCE, || {
            fleet.satellites[living].log().matches("holder=true").count() > welcomes
                && instance(&fleet.satellites[living]) == holder(fleet)
        });
        assert!(back, "claim {round}: the fenced process does not get the free slot\n{}", fleet.last_words());
        return (living.to_owned(), None);
    }
    if !matches!(volume, Volume::Same) {
        // Nobody else delivers what lies on its volume. On the same volume the holder does.
        let drained = until(PATIENCE, || is_drained(&fleet.satellites[living]));
        assert!(drained, "claim {round}: the fenced process does not deliver\n{}", fleet.last_words());
    }
    let fenced = told_at(&fleet.satellites[living], FENCED).unwrap();
    if draw.random_bool(0.5) {
        audit.kill(fleet.satellite(living).unwrap()).unwrap();
    } else {
        fleet.satellite(living).unwrap().terminate().unwrap();
    }
    (name, Some((living.to_owned(), fenced)))
}

#[test]
fn two_processes_of_one_slot_never_own_a_check_both() {
    let claims = number("PERIGEE_CLAIMS", 6);
    let seed = number("PERIGEE_SEED", rand::random_range(1..1_000_000_000));
    eprintln!("{claims} claims, PERIGEE_SEED={seed}");
    let mut draw = StdRng::seed_from_u64(seed);
    let directory = tempfile::tempdir().unwrap();
    let (mut fleet, _fakes, mut audit) = started(directory.path(), LOAD, 1);
    let mut living = "eu/1".to_owned();
    let mut fenced = Vec::new();
    for round in 0..claims {
        let_run(&mut draw, 500..2000);
        let (lives, over) = claim(&mut fleet, &mut audit, &mut draw, &living, round);
        living = lives;
        fenced.extend(over);
    }

    let (verdict, evidence) = audit.verdict(&fleet, ARRIVES).unwrap();
    violation::unless(verdict.is_clean(), || format!("seed {seed}: {verdict:#?}\n{}", fleet.last_words()));
    let results = fleet.master.api().events("result").unwrap();
    for (name, at) in &fenced {
        let begun = begun_after(&fleet.satellites[name], *at, &results);
        assert!(begun.is_empty(), "seed {seed}: {name} was fenced and went on: {begun:#?}");
    }
    let overlaps = overlaps::find(&evidence, &Processes::of(&fleet));
    violation::unless(overlaps.broken.is_empty(), || format!("seed {seed}: {overlaps:#?}"));
    let handed_over = usize::try_from(claims).unwrap() * LOAD.hosts * LOAD.services / 2;
    assert!(overlaps.handed_over > handed_over, "seed {seed}: too few checks went to another process: {overlaps:?}");
    let awake = begun_after(&fleet.satellites[&living], 0, &results);
    assert!(awake.len() > 10, "the results of a process are not found: {}", awake.len());
    fleet.terminate().unwrap();
    let ownership = Ownership::read(&fleet.master.data);
    ownership.assert_one_living_grant_each();
    assert!(ownership.fences >= usize::try_from(claims).unwrap(), "{} fences", ownership.fences);
    figure(
        16,
        &format!(
            "{claims} double claims (own, copied and same volume), seed {seed}: {} answers, {} applied once, 0 lost, 0 twice, {} gaps; \
             journal: {} fences, {} grants, {} current results all under the one living grant, {} observations under ended ones; {} times another process asked a check, \
             the older one {} ms longer at most",
            verdict.answers,
            verdict.applied,
            evidence.named.len(),
            ownership.fences,
            ownership.grants,
            ownership.current,
            ownership.observed,
            overlaps.handed_over,
            overlaps.longest
        ),
    );
}
