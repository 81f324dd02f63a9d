//! The rounds. `PERIGEE_ROUNDS` says how many, `PERIGEE_SEED` which; both are printed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tests::figure::figure;
use tests::ledger::{Evidence, judge};
use tests::load::Load;
use tests::violation;

use crate::grants::Ownership;
use crate::overlaps::{self, Processes};
use crate::replay;
use crate::scene::{ARRIVES, CLAIMS, PATIENCE, let_run, number, started};

/// 250 results a second.
const LOAD: Load = Load { hosts: 25, services: 10, interval: Duration::from_secs(1), slow: None };
/// Answers that one `kill -9` may cost. Of 125 a second those are not durable that lie in a batch for 10 ms at most, wait for one
/// append (a write and an fdatasync, in which the next batch grows), or are on their way from the daemon: 160 ms of them in all, for
/// a busy disk. What was durable may not be missing at all.
pub(crate) const LOST_BY_A_KILL: usize = 20;

#[test]
fn kills_under_load_lose_nothing_and_double_nothing() {
    let rounds = number("PERIGEE_ROUNDS", 20);
    let seed = number("PERIGEE_SEED", rand::random_range(1..1_000_000_000));
    eprintln!("{rounds} rounds, PERIGEE_SEED={seed}");
    let mut draw = StdRng::seed_from_u64(seed);

    let directory = tempfile::tempdir().unwrap();
    let (mut fleet, _fakes, mut audit) = started(directory.path(), LOAD, 2);

    for round in 0..rounds {
        let_run(&mut draw, 200..2000);
        if round % 2 == 0 {
            let slot = format!("eu/{}", draw.random_range(1..=2));
            audit.kill(fleet.satellite(&slot).unwrap()).unwrap();
            if draw.random_bool(0.2) {
                // A good end among the bad ones: of whichever still runs.
                let other = fleet.satellites.values_mut().find_map(|one| one.runs().then(|| one.slot()));
                fleet.satellite(&other.unwrap()).unwrap().terminate().unwrap();
            }
            let_run(&mut draw, 0..500);
            fleet.start_satellites().unwrap();
        } else if round == rounds / 2 / 2 * 2 + 1 {
            // One good end in the middle leaves a checkpoint, so that the last start replays from one.
            fleet.master.terminate().unwrap();
            fleet.master.start().unwrap();
            fleet.until_connected(PATIENCE).unwrap();
            fleet.master.kill().unwrap();
            fleet.master.start().unwrap();
        } else {
            fleet.master.kill().unwrap();
            let_run(&mut draw, 0..500);
            fleet.master.start().unwrap();
        }
        fleet.until_connected(PATIENCE).unwrap();
    }

    let (verdict, evidence) = audit.verdict(&fleet, ARRIVES).unwrap();
    eprintln!("{} answers, {} applied, {} in flight", verdict.answers, verdict.applied, verdict.in_flight);
    violation::unless(verdict.is_clean(), || format!("seed {seed}: {verdict:#?}\n{}", fleet.last_words()));
    assert!(verdict.answers > 1000, "no load: {} answers", verdict.answers);
    let worst = verdict.in_flight_by_kill.values().copied().max().unwrap_or(0);
    assert!(
        worst <= LOST_BY_A_KILL,
        "seed {seed}: {worst} answers were not durable when a satellite was killed: {:?}",
        verdict.in_flight_by_kill
    );
    // Nothing was given up: no volume was full, no run too old.
    assert!(evidence.named.is_empty(), "seed {seed}: {:#?}", evidence.named);
    let overlaps = overlaps::find(&evidence, &Processes::of(&fleet));
    violation::unless(overlaps.broken.is_empty(), || format!("seed {seed}: {overlaps:#?}"));
    assert!(overlaps.answers > 1000, "seed {seed}: {overlaps:#?}");

    assert_the_judge_is_awake(&evidence);

    let replayed = replay::assert_the_journal_gives_back_what_was_shown(&mut fleet);
    let ownership = Ownership::read(&fleet.master.data);
    ownership.assert_one_living_grant_each();
    for claim in CLAIMS {
        figure(
            claim,
            &format!(
                "{rounds} rounds, seed {seed}: {} answers, {} applied once, {} in flight when a satellite was killed (at most {worst} \
                 in one of {} kills), 0 lost, 0 twice, 0 gaps; {replayed} rows replayed to equal bytes; {} grants, never two living of \
                 one check; {} times another process asked a check, never two at once",
                verdict.answers,
                verdict.applied,
                verdict.in_flight,
                audit.kills.len(),
                ownership.grants,
                overlaps.handed_over
            ),
        );
    }
}

/// One result taken out of this very history is a loss, one that is there twice is a duplicate, and nothing else is said.
fn assert_the_judge_is_awake(evidence: &Evidence) {
    // One that may have been in flight at a kill is missed in its run, not by its name: another is taken out then.
    let numbered = evidence.effects.iter().enumerate().filter(|(_, effect)| effect.serial.is_some());
    let taken = numbered.take(200).find_map(|(place, _)| {
        let mut without = evidence.clone();
        let taken = without.effects.remove(place);
        let verdict = judge(&without);
        assert!(verdict.duplicates.is_empty() && !verdict.lost.is_empty(), "{taken:?} was taken out: {verdict:#?}");
        let named = format!("{} c{}: serial {}", taken.host, &taken.service[1..], taken.serial.unwrap());
        verdict.lost.iter().any(|lost| lost.starts_with(&named)).then_some(taken)
    });
    assert!(taken.is_some(), "none of two hundred that were taken out is missed by its name");
    let taken = taken.unwrap();
    let mut twice = evidence.clone();
    twice.effects.push(taken);
    let verdict = judge(&twice);
    assert!(verdict.lost.is_empty() && !verdict.duplicates.is_empty(), "one result is there twice: {verdict:#?}");
}
