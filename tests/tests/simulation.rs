//! Fleets of both programs' brains in simulated worlds: nothing lost, nothing twice, state right again, whatever goes wrong.

use tests::simulation::defect::Defect;
use tests::simulation::{Sum, run, run_all};

/// Worlds of one run; `make sim` runs as many as one likes.
const WORLDS: u64 = 300;
/// A planted defect is found within so many.
const WORLDS_TO_FIND: u64 = 300;

/// Drawn from the commit, so that every commit sees other worlds and each of them the same again.
fn first_seed() -> u64 {
    let head = std::process::Command::new("git").args(["rev-parse", "--short=8", "HEAD"]).output();
    let head = head.map(|head| String::from_utf8_lossy(&head.stdout).trim().to_owned()).unwrap_or_default();
    u64::from_str_radix(&head, 16).unwrap_or(1)
}

#[test]
fn nothing_is_lost_or_done_twice_in_any_world() {
    let first = first_seed();
    let mut sum = Sum::default();
    run_all(first..first + WORLDS, |report| sum.add(report));
    let seen: Vec<String> =
        sum.violated.iter().map(|report| format!("make sim SEED={}: {:?}", report.seed, report.violations)).collect();
    assert!(seen.is_empty(), "{} worlds from {first} on:\n{}", sum.violated.len(), seen.join("\n"));
    assert_eq!(sum.unreached(), Vec::<String>::new(), "{WORLDS} worlds from {first} on are too tame");
    let (faults, results) = sum.medians();
    assert!(faults >= 50 && results >= 150, "the median world has {faults} faults and {results} results");
}

#[test]
fn a_world_is_a_function_of_its_seed() {
    for seed in first_seed()..first_seed() + 3 {
        assert_eq!(run(seed, None), run(seed, None));
    }
}

#[test]
fn every_planted_defect_is_found_by_the_invariant_that_must() {
    for defect in Defect::ALL {
        let found = (1..=WORLDS_TO_FIND).find(|seed| {
            let violations = run(*seed, Some(defect)).violations;
            violations.iter().any(|violation| defect.caught_by().contains(&violation.invariant))
        });
        assert!(found.is_some(), "{defect:?} is not found within {WORLDS_TO_FIND} worlds");
    }
}
