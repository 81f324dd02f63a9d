//! The kernel made to refuse: `strace --inject` at the calls with which the satellite's spool and the master's journal touch the disk, at
//! the first of each kind and at a later one that is drawn. No crash, no loss, and no file is written again that failed once.
//!
//! `PERIGEE_CALLS=all` takes every kind of call; without it only writing and syncing. strace counts the calls of each thread.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tests::figure::figure;
use tests::missing::missing;
use tests::syscalls::calls;
use tests::wait::until;

use crate::scene::{PATIENCE, Scene, scene};

const STRACE: &str = "/usr/bin/strace";
/// Answers that must be given after each injection.
const ANSWERS: usize = 60;
/// What a program makes only in the thread that writes.
const OF_THE_WRITER: [&str; 8] =
    ["pwrite64", "fdatasync", "fsync", "ftruncate", "mkdir", "rename", "unlink", "unlinkat"];

/// One refusal.
#[derive(Debug, Clone)]
struct Case {
    call: &'static str,
    when: usize,
    /// Only on this path.
    path: Option<String>,
    error: &'static str,
}

fn strace(trace: &Path, case: Option<&Case>) -> Vec<String> {
    let mut words: Vec<String> = [STRACE, "-f", "-ttt", "-T", "-y", "-s", "64", "-o"].map(str::to_owned).to_vec();
    words.push(trace.to_string_lossy().into_owned());
    let seen = case.map_or_else(|| OF_THE_WRITER.join(","), |case| format!("pwrite64,fdatasync,{}", case.call));
    words.extend(["-e".to_owned(), format!("trace={seen}")]);
    if let Some(Case { call, when, path, error }) = case {
        words.extend(["-e".to_owned(), format!("inject={call}:error={error}:when={when}")]);
        words.extend(path.iter().flat_map(|path| ["-P".to_owned(), path.clone()]));
    }
    words
}

/// How many calls of each kind the busiest thread made below a directory.
fn counted(trace: &Path, directory: &Path) -> BTreeMap<&'static str, usize> {
    let text = String::from_utf8_lossy(&fs::read(trace).unwrap()).into_owned();
    let directory = directory.to_string_lossy().into_owned();
    let mut counts: BTreeMap<(String, &'static str), usize> = BTreeMap::new();
    for line in text.lines().filter(|line| line.contains(&directory)) {
        let thread = line.split_whitespace().next().unwrap_or_default();
        if let Some(call) = OF_THE_WRITER.into_iter().find(|call| line.contains(&format!(" {call}("))) {
            *counts.entry((thread.to_owned(), call)).or_default() += 1;
        }
    }
    let mut most = BTreeMap::new();
    for ((_, call), count) in counts {
        let known = most.entry(call).or_insert(0);
        *known = count.max(*known);
    }
    most
}

/// Files of a log that were written after a write or sync of theirs had failed.
fn trusted_again(trace: &Path) -> Vec<String> {
    let calls = calls(&String::from_utf8_lossy(&fs::read(trace).unwrap()));
    let on_log = calls
        .iter()
        .filter(|call| call.path().ends_with(".seg") && ["pwrite64", "fdatasync"].contains(&call.name.as_str()));
    let mut failed: Vec<&str> = Vec::new();
    let mut again = Vec::new();
    for call in on_log {
        if call.name == "pwrite64" && failed.contains(&call.path()) {
            again.push(call.path().to_owned());
        }
        if call.returned.is_none_or(|returned| returned < 0) {
            failed.push(call.path());
        }
    }
    again
}

fn cases(counts: &BTreeMap<&'static str, usize>, known: &[(&'static str, String)], draw: &mut StdRng) -> Vec<Case> {
    let all = std::env::var("PERIGEE_CALLS").is_ok_and(|calls| calls == "all");
    let mut cases = Vec::new();
    let mut errors = ["EIO", "ENOSPC"].into_iter().cycle();
    for (call, count) in counts {
        if all || ["pwrite64", "fdatasync"].contains(call) {
            let mut add = |when| cases.push(Case { call, when, path: None, error: errors.next().unwrap_or("EIO") });
            add(1);
            if *count > 2 {
                add(draw.random_range(2..*count));
            }
        }
    }
    for (call, path) in known.iter().filter(|_| all) {
        cases.push(Case { call, when: 1, path: Some(path.clone()), error: "EIO" });
    }
    cases
}

fn injected(trace: &Path) -> bool {
    String::from_utf8_lossy(&fs::read(trace).unwrap_or_default()).contains("(INJECTED)")
}

fn ready(name: &str, services: usize) -> Option<(tempfile::TempDir, Scene, StdRng)> {
    if !Path::new(STRACE).exists() {
        missing(STRACE, "strace");
        return None;
    }
    let seed: u64 = std::env::var("PERIGEE_SEED")
        .ok()
        .map_or_else(|| rand::random_range(1..1_000_000_000), |seed| seed.parse().unwrap());
    eprintln!("{name}: PERIGEE_SEED={seed}");
    let directory = tempfile::tempdir().unwrap();
    let mut scene = scene(directory.path(), services, Duration::from_millis(500), 60);
    scene.fleet.start().unwrap();
    scene.fleet.until_connected(PATIENCE).unwrap();
    Some((directory, scene, StdRng::seed_from_u64(seed)))
}

#[test]
fn a_spool_whose_disk_refuses_any_call_loses_nothing() {
    let Some((directory, mut scene, mut draw)) = ready("spool", 20) else { return };
    let data = scene.fleet.satellite("eu/1").unwrap().data.clone();
    let link = scene.fleet.master.link;
    let trace = directory.path().join("satellite.trace");
    let restart = |scene: &mut Scene, through: Vec<String>| {
        let satellite = scene.fleet.satellites.get_mut("eu/1").unwrap();
        scene.audit.kill(satellite).unwrap();
        satellite.through = through;
        satellite.start(link).unwrap();
    };
    // What it does when nothing fails.
    restart(&mut scene, strace(&trace, None));
    scene.until_answers(ANSWERS);
    let counts = counted(&trace, &data);
    let at = |name: &str| data.join(name).to_string_lossy().into_owned();
    let known = [
        ("openat", at("spool/counter.new")),
        ("write", at("spool/counter.new")),
        ("fsync", at("spool/counter.new")),
        ("rename", at("spool/counter.new")),
        ("openat", at("spool/lock")),
        ("openat", at("assignment/current")),
    ];
    let cases = cases(&counts, &known, &mut draw);
    let mut hit = 0;
    for case in &cases {
        fs::remove_file(&trace).unwrap();
        restart(&mut scene, strace(&trace, Some(case)));
        scene.until_answers(ANSWERS);
        let satellite = scene.fleet.satellite("eu/1").unwrap();
        assert!(satellite.runs(), "{case:?}: it has ended\n{}", satellite.log());
        hit += usize::from(until(Duration::from_secs(2), || injected(&trace)));
        assert_eq!(trusted_again(&trace), [""; 0], "{case:?}");
    }
    restart(&mut scene, Vec::new());
    let (verdict, _) = scene.audit.verdict(&scene.fleet, PATIENCE).unwrap();
    assert!(verdict.is_clean(), "{verdict:#?}\n{cases:#?}");
    assert!(hit * 4 >= cases.len() * 3, "{hit} of {} refusals happened: {cases:#?}", cases.len());
    figure(
        18,
        &format!(
            "{hit} refusals at {} kinds of calls of a spool: {} answers, 0 lost, no file trusted after its failure",
            counts.len(),
            verdict.answers
        ),
    );
    scene.fleet.terminate().unwrap();
}

#[test]
fn a_journal_whose_disk_refuses_any_call_loses_nothing() {
    let Some((directory, mut scene, mut draw)) = ready("journal", 20) else { return };
    let trace = directory.path().join("master.trace");
    let journal = scene.fleet.master.data.join("journal");
    let restart = |scene: &mut Scene, through: Vec<String>| {
        scene.fleet.master.kill().unwrap();
        scene.fleet.master.through = through;
        scene.fleet.master.start()
    };
    restart(&mut scene, strace(&trace, None)).unwrap();
    scene.fleet.until_connected(PATIENCE).unwrap();
    scene.until_answers(ANSWERS);
    let counts = counted(&trace, &journal);
    // What of the journal is called while the master comes up may end it: an operator hears why, and a supervisor starts it again.
    let cases: Vec<Case> = cases(&counts, &[], &mut draw).into_iter().filter(|case| case.when > 1).collect();
    assert!(!cases.is_empty(), "{counts:?}");
    let mut hit = 0;
    for case in &cases {
        fs::remove_file(&trace).unwrap();
        // A call of the same number may be one of the start's: then it ends, and whoever watches it starts it again.
        if restart(&mut scene, strace(&trace, Some(case))).is_err() {
            restart(&mut scene, Vec::new()).unwrap();
            continue;
        }
        scene.fleet.until_connected(PATIENCE).unwrap();
        scene.until_answers(ANSWERS);
        hit += usize::from(until(Duration::from_secs(5), || injected(&trace)));
        assert!(scene.fleet.master.runs(), "{case:?}: it has ended\n{}", scene.fleet.master.last_words());
        assert_eq!(trusted_again(&trace), [""; 0], "{case:?}");
    }
    restart(&mut scene, Vec::new()).unwrap();
    scene.fleet.until_connected(PATIENCE).unwrap();
    let (verdict, _) = scene.audit.verdict(&scene.fleet, PATIENCE).unwrap();
    assert!(verdict.is_clean(), "{verdict:#?}\n{cases:#?}");
    assert!(hit > 0, "{cases:#?}");
    figure(
        18,
        &format!(
            "{hit} refusals at {} kinds of calls of a journal: {} answers, 0 lost, no file trusted after its failure",
            counts.len(),
            verdict.answers
        ),
    );
    scene.fleet.terminate().unwrap();
}
