//! Processes that stand still for longer than a lease and then go on as if nothing had been: a satellite, the master, and a satellite
//! whose slot was given to another meanwhile.

use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tests::figure::figure;
use tests::load::Load;
use tests::violation;
use tests::wait::until;

use crate::claims::told_at;
use crate::grants::Ownership;
use crate::overlaps::{self, Processes};
use crate::scene::{ARRIVES, PATIENCE, let_run, number, started};

/// Longer than the lease of 15 s, in milliseconds.
const LONGER: std::ops::Range<u64> = 16_000..21_000;
const LOAD: Load = Load { hosts: 10, services: 10, interval: Duration::from_secs(1), slow: None };
/// What a satellite's log says when it comes back and its slot is another's.
const NOT_HOLDER: &str = "holder=false";
/// Master and satellite know of a cut at the latest after this, and go on.
const KNOWN_WITHIN: Duration = Duration::from_secs(60);

fn links(log: &str) -> usize {
    log.matches("linked to the master").count()
}

#[test]
fn whoever_stood_still_for_longer_than_a_lease_goes_on_and_nothing_is_lost() {
    let stops = number("PERIGEE_STOPS", 1);
    let seed = number("PERIGEE_SEED", rand::random_range(1..1_000_000_000));
    eprintln!("{stops} stops a side, PERIGEE_SEED={seed}");
    let mut draw = StdRng::seed_from_u64(seed);
    let directory = tempfile::tempdir().unwrap();
    let (mut fleet, _fakes, audit) = started(directory.path(), LOAD, 1);
    for stop in 0..stops {
        let_run(&mut draw, 500..2000);
        for master in [stop % 2 == 0, stop % 2 != 0] {
            let before = links(&fleet.satellites["eu/1"].log());
            let signal = |fleet: &tests::fleet::Fleet, name: &str| {
                if master { fleet.master.signal(name) } else { fleet.satellites["eu/1"].signal(name) }
            };
            signal(&fleet, "STOP").unwrap();
            let_run(&mut draw, LONGER);
            signal(&fleet, "CONT").unwrap();
            let again = until(KNOWN_WITHIN, || links(&fleet.satellites["eu/1"].log()) > before);
            assert!(again, "seed {seed}: no new link after the standstill\n{}", fleet.last_words());
            fleet.until_connected(PATIENCE).unwrap();
        }
    }
    let (verdict, evidence) = audit.verdict(&fleet, ARRIVES).unwrap();
    violation::unless(verdict.is_clean(), || format!("seed {seed}: {verdict:#?}\n{}", fleet.last_words()));
    let overlaps = overlaps::find(&evidence, &Processes::of(&fleet));
    violation::unless(overlaps.broken.is_empty(), || format!("seed {seed}: {overlaps:#?}"));
    fleet.terminate().unwrap();
    Ownership::read(&fleet.master.data).assert_one_living_grant_each();
    let (answers, applied) = (verdict.answers, verdict.applied);
    figure(
        16,
        &format!(
            "SIGSTOP beyond the lease, {stops} times a side: {answers} answers, {applied} applied once, 0 lost, 0 twice"
        ),
    );
}

#[test]
fn a_satellite_that_stood_still_while_its_slot_was_taken_comes_back_fenced() {
    let stops = number("PERIGEE_STOPS", 1);
    let seed = number("PERIGEE_SEED", rand::random_range(1..1_000_000_000));
    eprintln!("{stops} stops, PERIGEE_SEED={seed}");
    let mut draw = StdRng::seed_from_u64(seed);
    let directory = tempfile::tempdir().unwrap();
    let (mut fleet, _fakes, audit) = started(directory.path(), LOAD, 1);
    let mut living = "eu/1".to_owned();
    let mut deaf = Vec::new();
    for stop in 0..stops {
        let_run(&mut draw, 500..2000);
        fleet.satellites[&living].signal("STOP").unwrap();
        let_run(&mut draw, LONGER);
        let name = format!("eu/1 instead {stop}");
        let mut second = fleet.satellites[&living].claimant(&fleet.directory, &format!("instead-{stop}")).unwrap();
        second.start(fleet.master.link).unwrap();
        fleet.satellites.insert(name.clone(), second);
        let welcomed = until(PATIENCE, || fleet.satellites[&name].log().contains("holder=true"));
        assert!(welcomed, "seed {seed}: a free slot is not given\n{}", fleet.last_words());
        let_run(&mut draw, 0..3000);
        fleet.satellites[&living].signal("CONT").unwrap();
        let fenced = until(PATIENCE, || fleet.satellites[&living].log().contains(NOT_HOLDER));
        assert!(fenced, "seed {seed}: who stood still is not told\n{}", fleet.last_words());
        let told = told_at(&fleet.satellites[&living], NOT_HOLDER).unwrap();
        deaf.push((living.clone(), u64::try_from(told).unwrap()));
        let drained = until(PATIENCE, || {
            let said = tests::ledger::positions(&fleet.satellites[&living].log());
            said.durable.iter().all(|(run, position)| said.acknowledged.get(run).is_some_and(|known| known >= position))
        });
        assert!(drained, "seed {seed}: who stood still does not deliver\n{}", fleet.last_words());
        fleet.satellite(&living).unwrap().terminate().unwrap();
        living = name;
    }
    let (verdict, evidence) = audit.verdict(&fleet, ARRIVES).unwrap();
    violation::unless(verdict.is_clean(), || format!("seed {seed}: {verdict:#?}\n{}", fleet.last_words()));
    let mut processes = Processes::of(&fleet);
    deaf.iter().for_each(|(name, told)| processes.was_deaf(name, *told));
    let overlaps = overlaps::find(&evidence, &processes);
    violation::unless(overlaps.broken.is_empty(), || format!("seed {seed}: {overlaps:#?}"));
    assert!(overlaps.handed_over > 0, "seed {seed}: {overlaps:#?}");
    fleet.terminate().unwrap();
    let ownership = Ownership::read(&fleet.master.data);
    ownership.assert_one_living_grant_each();
    assert!(ownership.fences >= usize::try_from(stops).unwrap(), "{} fences", ownership.fences);
    let answers = verdict.answers;
    figure(
        16,
        &format!(
            "SIGSTOP while another takes the slot, {stops} times: {answers} answers, 0 lost, 0 twice, one living grant each"
        ),
    );
}
