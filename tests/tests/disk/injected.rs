//! The kernel made to refuse: `strace --inject` at the calls with which the satellite's spool and the master's journal touch the disk, at
//! the first of each kind and at a later one that is drawn, and at each file that an earlier process left. No crash, no loss, and no file
//! is written again that failed once.
//!
//! `PERIGEE_CALLS=all` takes every kind of call and place, with EIO and with ENOSPC; without it only writing and syncing. strace counts the
//! calls of each thread. What refuses a master's very start may end it: it says why, and whoever watches it starts it again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
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

/// Errors that are injected.
const ERRORS: [&str; 2] = ["EIO", "ENOSPC"];

/// Where a call is refused.
#[derive(Debug, Clone)]
enum Place {
    Anywhere,
    /// On this path.
    Named(String),
    /// On the newest segment that the process before left.
    Segment,
    /// On the directory that segment is in.
    Log,
    /// On the directory above that.
    Process,
}

/// One refusal.
#[derive(Debug, Clone)]
struct Case {
    call: &'static str,
    when: usize,
    place: Place,
    error: &'static str,
}

/// The newest segment below a directory.
fn newest_segment(directory: &Path) -> Option<PathBuf> {
    let mut open = vec![directory.to_owned()];
    let mut newest = None;
    while let Some(directory) = open.pop() {
        // What a living process removes meanwhile is gone.
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let (path, Ok(metadata)) = (entry.path(), entry.metadata()) else { continue };
            if metadata.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "seg") {
                newest = newest.max(metadata.modified().ok().map(|modified| (modified, path)));
            }
        }
    }
    newest.map(|(_, path)| path)
}

impl Case {
    /// The path it is bound to, now that no process runs on `data`.
    fn path(&self, data: &Path) -> Option<PathBuf> {
        let above = |levels| newest_segment(data)?.ancestors().nth(levels).map(Path::to_owned);
        match &self.place {
            Place::Anywhere => None,
            Place::Named(path) => Some(PathBuf::from(path)),
            Place::Segment => above(0),
            Place::Log => above(1),
            Place::Process => above(2),
        }
    }
}

fn strace(trace: &Path, case: Option<(&Case, &Path)>) -> Vec<String> {
    let mut words: Vec<String> = [STRACE, "-f", "-ttt", "-T", "-y", "-s", "64", "-o"].map(str::to_owned).to_vec();
    words.push(trace.to_string_lossy().into_owned());
    let seen = case.map_or_else(|| OF_THE_WRITER.join(","), |(case, _)| format!("pwrite64,fdatasync,{}", case.call));
    words.extend(["-e".to_owned(), format!("trace={seen}")]);
    if let Some((case, data)) = case {
        let Case { call, when, error, .. } = case;
        words.extend(["-e".to_owned(), format!("inject={call}:error={error}:when={when}")]);
        let path = case.path(data);
        words.extend(path.iter().flat_map(|path| ["-P".to_owned(), path.to_string_lossy().into_owned()]));
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

fn all() -> bool {
    std::env::var("PERIGEE_CALLS").is_ok_and(|calls| calls == "all")
}

/// Each kind of call that was counted, at its first and at a later one.
fn counted_cases(counts: &BTreeMap<&'static str, usize>, place: &Place, draw: &mut StdRng) -> Vec<Case> {
    let mut cases = Vec::new();
    for (number, (call, count)) in counts.iter().enumerate() {
        if all() || ["pwrite64", "fdatasync"].contains(call) {
            let later = (*count > 2).then(|| draw.random_range(2..*count));
            for (of, when) in [Some(1), later].into_iter().flatten().enumerate() {
                let errors = if all() { &ERRORS[..] } else { &ERRORS[(number + of) % 2..][..1] };
                cases.extend(errors.iter().map(|error| Case { call, when, place: place.clone(), error }));
            }
        }
    }
    cases
}

/// The first call of this kind at each of these places.
fn placed_cases(places: Vec<(&'static str, Place)>) -> Vec<Case> {
    let places = places.into_iter().filter(|_| all());
    places.map(|(call, place)| Case { call, when: 1, place, error: "EIO" }).collect()
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
    let restart = |scene: &mut Scene, through: &dyn Fn() -> Vec<String>| {
        let satellite = scene.fleet.satellites.get_mut("eu/1").unwrap();
        scene.audit.kill(satellite).unwrap();
        satellite.through = through();
        satellite.start(link).unwrap();
    };
    // What it does when nothing fails.
    restart(&mut scene, &|| strace(&trace, None));
    scene.until_answers(ANSWERS);
    let counts = counted(&trace, &data);
    let at = |name: &str| Place::Named(data.join(name).to_string_lossy().into_owned());
    let mut cases = counted_cases(&counts, &Place::Anywhere, &mut draw);
    cases.extend(placed_cases(vec![
        ("openat", at("spool/counter.new")),
        ("write", at("spool/counter.new")),
        ("fsync", at("spool/counter.new")),
        ("rename", at("spool/counter.new")),
        ("read", at("spool/counter")),
        ("openat", at("spool/lock")),
        ("flock", at("spool/lock")),
        ("getdents64", at("spool")),
        ("openat", at("assignment/current")),
        ("read", at("assignment/current")),
        ("getdents64", Place::Process),
        ("getdents64", Place::Log),
        ("openat", Place::Segment),
        ("pread64", Place::Segment),
        ("unlinkat", Place::Log),
    ]));
    let mut hit = Vec::new();
    for case in &cases {
        fs::remove_file(&trace).unwrap();
        restart(&mut scene, &|| strace(&trace, Some((case, &data))));
        scene.until_answers(ANSWERS);
        let satellite = scene.fleet.satellite("eu/1").unwrap();
        assert!(satellite.runs(), "{case:?}: it has ended\n{}", satellite.log());
        if until(Duration::from_secs(2), || injected(&trace)) {
            hit.push(case);
        }
        assert_eq!(trusted_again(&trace), [""; 0], "{case:?}");
    }
    let missed: Vec<&Case> = cases.iter().filter(|case| !hit.iter().any(|hit| std::ptr::eq(*hit, *case))).collect();
    eprintln!("not reached: {missed:?}");
    let hit = hit.len();
    restart(&mut scene, &Vec::new);
    let (verdict, _) = scene.audit.verdict(&scene.fleet, PATIENCE).unwrap();
    assert!(verdict.is_clean(), "{verdict:#?}\n{cases:#?}");
    assert!(hit * 4 >= cases.len() * 3, "{hit} of {} refusals happened: {cases:#?}", cases.len());
    figure(
        18,
        &format!(
            "D2: {hit} refusals of a spool's disk, at the first and a later call of {} kinds and at each file it finds, EIO and ENOSPC: {} \
             answers, 0 lost, 0 twice, no end of the program, no file trusted after its failure",
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
    let restart = |scene: &mut Scene, through: &dyn Fn() -> Vec<String>| {
        scene.fleet.master.kill().unwrap();
        scene.fleet.master.through = through();
        scene.fleet.master.start()
    };
    restart(&mut scene, &|| strace(&trace, None)).unwrap();
    scene.fleet.until_connected(PATIENCE).unwrap();
    scene.until_answers(ANSWERS);
    let mut counts = counted(&trace, &journal);
    // Of the directory alone.
    counts.remove("fsync");
    // On the journal's own files, for other threads write to other files under the same numbers.
    let mut cases = counted_cases(&counts, &Place::Segment, &mut draw);
    cases.extend(placed_cases(vec![
        ("openat", Place::Segment),
        ("pread64", Place::Segment),
        ("getdents64", Place::Log),
        ("fsync", Place::Log),
        ("openat", Place::Named(journal.join("lock").to_string_lossy().into_owned())),
    ]));
    let (mut hit, mut refused) = (0, 0);
    for case in &cases {
        fs::remove_file(&trace).unwrap();
        if restart(&mut scene, &|| strace(&trace, Some((case, &journal)))).is_err() {
            let words = scene.fleet.master.last_words();
            assert!(injected(&trace) && words.contains("os error"), "{case:?}: it does not start: {words}");
            refused += 1;
            restart(&mut scene, &Vec::new).unwrap();
            scene.fleet.until_connected(PATIENCE).unwrap();
            continue;
        }
        scene.fleet.until_connected(PATIENCE).unwrap();
        scene.until_answers(ANSWERS);
        if until(Duration::from_secs(5), || injected(&trace)) {
            hit += 1;
        } else {
            eprintln!("not reached: {case:?}");
        }
        assert!(scene.fleet.master.runs(), "{case:?}: it has ended\n{}", scene.fleet.master.last_words());
        assert_eq!(trusted_again(&trace), [""; 0], "{case:?}");
    }
    restart(&mut scene, &Vec::new).unwrap();
    scene.fleet.until_connected(PATIENCE).unwrap();
    let (verdict, _) = scene.audit.verdict(&scene.fleet, PATIENCE).unwrap();
    assert!(verdict.is_clean(), "{verdict:#?}\n{cases:#?}");
    assert!(hit * 3 >= cases.len(), "{hit} of {} refusals happened in a running master: {cases:#?}", cases.len());
    figure(
        18,
        &format!(
            "D2: {hit} refusals of a journal's disk under a running master, {refused} at its start, which ended with the reason: {} answers, \
             0 lost, 0 twice, no file trusted after its failure",
            verdict.answers
        ),
    );
    scene.fleet.terminate().unwrap();
}
