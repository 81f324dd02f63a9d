//! `make demo` as a person has it: it shows what it promises, Ctrl-C ends it, and nothing of it is left behind.
#![expect(clippy::unwrap_used, reason = "a test that cannot set its stage has nothing better to do")]

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::fleet::program;
use tests::http::Client;
use tests::process::Process;
use tests::wait::until;

const PATIENCE: Duration = Duration::from_secs(90);
/// From Ctrl-C to the end of the last process.
const ENDED_WITHIN: Duration = Duration::from_secs(30);

/// Every process below this one, as `pid` and its start time: a number alone may be used again.
fn below(pid: u32) -> BTreeSet<(u32, u64)> {
    let mut found = BTreeSet::new();
    let processes: Vec<(u32, u32, u64)> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid: u32| stat(pid).map(|(parent, started)| (pid, parent, started)))
        .collect();
    let mut parents = BTreeSet::from([pid]);
    loop {
        let children = processes.iter().filter(|(_, parent, _)| parents.contains(parent));
        let more: BTreeSet<(u32, u64)> = children.map(|(pid, _, started)| (*pid, *started)).collect();
        let before = found.len();
        parents.extend(more.iter().map(|(pid, _)| *pid));
        found.extend(more);
        if found.len() == before {
            return found;
        }
    }
}

/// Parent and start time of a process that has not ended.
fn stat(pid: u32) -> Option<(u32, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything.
    let words: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    if words.first() == Some(&"Z") {
        return None;
    }
    Some((words.get(1)?.parse().ok()?, words.get(19)?.parse().ok()?))
}

/// The demo writes below this directory, so that what it leaves can be seen.
fn demo(directory: &std::path::Path, arguments: &[&str]) -> Process {
    let mut command = Command::new(program("perigee-demo").unwrap());
    command.args(arguments).env("TMPDIR", directory);
    Process::start("perigee-demo", &mut command, &directory.join("demo.log")).unwrap()
}

// One test: two demos at once would want the same ports.
#[test]
fn the_demo_shows_what_it_promises_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let mut smoke = demo(directory.path(), &["--smoke"]);
    assert!(until(PATIENCE, || smoke.ended().is_some()), "{}", smoke.last_words());
    let log = smoke.log();
    assert!(smoke.ended().unwrap().success(), "{log}");
    let report: Value = serde_json::from_str(log.lines().find(|line| line.starts_with('{')).unwrap()).unwrap();
    let number = |name: &str| report[name].as_u64().unwrap();
    assert_eq!((number("regions"), number("slots")), (2, 4));
    assert!(number("hosts") >= 6 && number("services") >= 20 && number("points") > 0, "{report}");
    assert_eq!((number("lost"), number("duplicates")), (0, 0));
    assert_eq!(report["by_state"]["DOWN"], 1);
    assert_eq!(report["daemons"]["agent"], 0);
    assert!(report["daemons"]["fake"].as_u64() >= Some(1));
    fs::remove_file(directory.path().join("demo.log")).unwrap();

    let mut shown = demo(directory.path(), &[]);
    assert!(until(PATIENCE, || shown.log().contains("look at ") || shown.ended().is_some()), "{}", shown.last_words());
    let log = shown.log();
    let address = log.split("look at http://").nth(1).and_then(|rest| rest.split('/').next()).unwrap();
    let page = Client::new(address.parse().unwrap()).text("/").unwrap();
    assert!(page.contains("<html"), "{page}");
    let children = below(shown.pid());
    assert!(children.len() >= 6, "master, four satellites and daemons: {children:?}");
    shown.signal("INT").unwrap();
    assert!(until(ENDED_WITHIN, || shown.ended().is_some()), "{}", shown.last_words());
    assert!(shown.ended().unwrap().success(), "{}", shown.last_words());
    let left = || children.iter().filter(|(pid, started)| stat(*pid).is_some_and(|(_, now)| now == *started)).count();
    assert!(until(ENDED_WITHIN, || left() == 0), "{} processes are left", left());
    let files: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files, ["demo.log"], "files are left");
}
