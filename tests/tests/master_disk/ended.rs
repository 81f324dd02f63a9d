//! What satellites had delivered and what of it they had deleted when the master's store was lost: the ledger equals history and gaps,
//! to the last result, with a grace and without one.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use tests::figure::figure;
use tests::ledger::account::account;
use tests::ledger::{Evidence, Verdict, judge};
use tests::violation;
use tests::wait::until;

use crate::scene::{PATIENCE, Scene};

const HOSTS: usize = 4;

/// Names of the runs on a satellite's volume.
fn runs(data: &Path) -> BTreeSet<String> {
    let mut runs = BTreeSet::new();
    for process in fs::read_dir(data.join("spool")).into_iter().flatten().flatten() {
        for entry in fs::read_dir(process.path()).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            runs.extend(name.split_once('-').filter(|(counter, _)| counter.len() == 20).map(|(_, run)| run.to_owned()));
        }
    }
    runs
}

/// What a loss and a restore cost.
struct Lost {
    verdict: Verdict,
    evidence: Evidence,
    /// Results in gaps.
    named: u64,
    /// Runs of the first processes.
    first: BTreeSet<String>,
}

/// A backup is made, every satellite restarts and delivers what its first process left, and the store is lost. `deleted`: by then what
/// was delivered is gone from the volumes. What the ledger says of the restored store, and the runs of the first processes.
fn lose_the_store(grace: &str, deleted: bool) -> Lost {
    let directory = tempfile::tempdir().unwrap();
    let mut scene = Scene::new(directory.path(), directory.path(), HOSTS, HOSTS);
    for satellite in scene.fleet.satellites.values_mut() {
        satellite.more = ["--spool-grace", grace].map(str::to_owned).to_vec();
    }
    scene.fleet.start().unwrap();
    scene.fleet.until_connected(PATIENCE).unwrap();
    scene.until_answered(60);
    let backup = directory.path().join("backup").to_string_lossy().into_owned();
    let made = scene.fleet.master.run(&["backup", "--with-keys", "--to", &backup], true).unwrap();
    assert!(made.status.success(), "{made:?}");
    scene.until_answered(60);

    let volumes: Vec<_> = scene.fleet.satellites.values().map(|satellite| satellite.data.clone()).collect();
    let first: BTreeSet<String> = volumes.iter().flat_map(|data| runs(data)).collect();
    assert!(first.len() >= volumes.len(), "{first:?}");
    for satellite in scene.fleet.satellites.values_mut() {
        satellite.terminate().unwrap();
    }
    scene.fleet.start_satellites().unwrap();
    scene.fleet.until_connected(PATIENCE).unwrap();
    scene.until_answered(60);
    if deleted {
        let gone = until(PATIENCE, || volumes.iter().all(|data| runs(data).is_disjoint(&first)));
        assert!(gone, "{first:?} are still there\n{}", scene.fleet.last_words());
    }
    scene.fleet.master.kill().unwrap();
    let restored = scene.fleet.master.run(&["restore", "--from", &backup], true).unwrap();
    assert!(restored.status.success(), "{restored:?}");
    scene.until_answered(30);
    scene.fleet.master.start().unwrap();
    scene.fleet.until_connected(PATIENCE).unwrap();
    scene.until_answered(60);

    // Every result is a numbered answer: by the sequences of runs as many are named as are missing by the answers' numbers, and no
    // place of a run is both, or neither.
    let mut judged = None;
    let complete = until(PATIENCE, || {
        let evidence = scene.audit.evidence(&scene.fleet).unwrap();
        let (verdict, account) = (judge(&evidence), account(&evidence));
        let settled = account.as_ref().is_ok_and(|account| account.open == 0);
        let complete = settled && verdict.duplicates.is_empty() && verdict.impossible.is_empty();
        judged = Some((verdict, evidence, account));
        complete
    });
    let (verdict, evidence, account) = judged.unwrap();
    let never = verdict.duplicates.is_empty() && verdict.impossible.is_empty();
    violation::unless(never, || format!("{verdict:#?}"));
    assert!(complete, "{account:?}, {verdict:#?}\n{}", scene.fleet.last_words());
    let account = account.unwrap();
    assert_eq!(account.unnumbered, [] as [String; 0], "a check without an answer");
    violation::unless(account.missing == account.named + evidence.void, || format!("{account:?}, {verdict:#?}"));
    assert_eq!(verdict.lost.len() as u64, account.missing, "{verdict:#?}");
    for gap in scene.fleet.master.api().items("gaps", "").unwrap() {
        assert!(gap["reason"] == "lost-by-restore" && gap["explained"] == true, "{gap}");
        assert!(gap["from"].is_string() && gap["to"].is_string(), "{gap}");
    }
    scene.fleet.terminate().unwrap();
    Lost { verdict, evidence, named: account.named, first }
}

#[test]
fn what_was_delivered_within_the_grace_comes_again_after_a_restart() {
    let Lost { verdict, evidence, .. } = lose_the_store("15m", false);
    assert!(verdict.lost.is_empty() && evidence.named.is_empty(), "{:?} {:?}", verdict.lost, evidence.named);
    figure(
        18,
        &format!(
            "D6: satellites restarted between backup and loss: {} answers, {} applied once, 0 lost, 0 gaps",
            verdict.answers, verdict.applied
        ),
    );
}

#[test]
fn what_was_delivered_and_deleted_is_named() {
    let Lost { verdict, evidence, named, first } = lose_the_store("0s", true);
    // Others may have been deleted as well: a reconnect begins a run.
    let told = first.iter().filter(|run| evidence.named.iter().any(|gap| gap.run == **run)).count();
    assert!(told > 0 && !verdict.lost.is_empty(), "{first:?} {:#?}", evidence.named);
    figure(
        18,
        &format!(
            "D6: the same without a grace, what was delivered deleted before the loss: {} answers, {} applied once, {} lost, all in {} \
             gaps with {named} results",
            verdict.answers,
            verdict.applied,
            verdict.lost.len(),
            evidence.named.len()
        ),
    );
}
