//! What the kernel saw of a master and a satellite at work: every batch was on the satellite's disk before it was called durable and
//! before the master wrote it, and on the master's disk before the satellite saw it acknowledged.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use master::store::{self, Options, Read};
use shared::name::JournalIndex;
use tests::fakes::{Fakes, daemon};
use tests::figure::figure;
use tests::fleet::Fleet;
use tests::ledger::{Said, position};
use tests::missing::missing;
use tests::syscalls::{
    Call, Commit, Told, before_its_commit, calls, commits, told, told_before_its_commit, told_too_early,
};

const STRACE: &str = "/usr/bin/strace";
const PATIENCE: Duration = Duration::from_secs(60);
/// Results to look at.
const RESULTS: u64 = 150;

fn through(trace: &Path) -> Vec<String> {
    let calls = "trace=pwrite64,write,writev,fdatasync,fsync,sendmsg,sendmmsg,sendto";
    let words = [STRACE, "-f", "-ttt", "-T", "-y", "-s", "300", "-e", calls, "-o"];
    words.into_iter().map(str::to_owned).chain([trace.to_string_lossy().into_owned()]).collect()
}

fn read(trace: &PathBuf) -> Vec<Call> {
    calls(&String::from_utf8_lossy(&fs::read(trace).unwrap()))
}

/// What is said of one run: the position, and when.
struct Word {
    run: String,
    position: u64,
    told: Told,
}

fn words(calls: &[Call], kind: Said) -> Vec<Word> {
    let lines = told(calls, kind.mark());
    let words = lines.into_iter().filter_map(|told| {
        let (_, run, position) = position(&told.text)?;
        Some(Word { run, position, told })
    });
    words.collect()
}

#[test]
fn nothing_is_called_durable_or_acknowledged_before_its_fdatasync() {
    if !Path::new(STRACE).exists() {
        return missing(STRACE, "strace");
    }
    let directory = tempfile::tempdir().unwrap();
    let fakes = Fakes::start(directory.path(), &[daemon("h", "plain", &[("*", 0, "OK|a=1")])]).unwrap();
    let address = fakes.addresses["h"];
    let config = directory.path().join("site.yaml");
    let services: String =
        (0..20).map(|n| format!("  s{n}: {{ hosts: [h], use: [fast], check: {{ nrpe: c{n} }} }}\n")).collect();
    let text = format!(
        "regions: {{ eu: {{ slots: 1 }} }}\ntemplates: {{ fast: {{ check_interval: 500ms, retry_interval: 500ms }} }}\n\
         hosts:\n  h: {{ region: eu, address: {}, nrpe: {{ tls: plain, port: {}, service: false }} }}\nservices:\n{services}",
        address.ip(),
        address.port()
    );
    fs::write(&config, text).unwrap();
    let mut fleet = Fleet::new(directory.path(), &config, &[("eu", 1)]).unwrap();
    let traces = [directory.path().join("master.trace"), directory.path().join("satellite.trace")];
    fleet.master.through = through(&traces[0]);
    fleet.satellite("eu/1").unwrap().through = through(&traces[1]);
    fleet.start().unwrap();
    fleet
        .until("enough results", PATIENCE, |api| {
            let slots = api.items("slots", "")?;
            Ok(slots.first().and_then(|slot| slot["results"].as_u64()).unwrap_or(0) >= RESULTS)
        })
        .unwrap();
    fleet.terminate().unwrap();

    let (master, satellite) = (read(&traces[0]), read(&traces[1]));
    let durable = words(&satellite, Said::Durable);
    let acknowledged = words(&satellite, Said::Acknowledged);
    let acknowledging = words(&master, Said::Acknowledging);
    let counts = [durable.len(), acknowledged.len(), acknowledging.len()];
    assert!(counts.iter().all(|count| *count > 10), "{counts:?} words");
    let run = durable[0].run.clone();
    assert!(durable.iter().all(|word| word.run == run), "one process without a cut has one run");

    // The satellite: write, sync, word, in this order, every time.
    let spooled = commits(&satellite, |path| path.contains(&run));
    let early = told_too_early(&spooled, &told(&satellite, Said::Durable.mark()));
    assert!(early.is_empty(), "{early:#?}");

    // The master: a record of the journal a commit, and the positions that it made durable.
    let journaled = commits(&master, |path| path.contains("/journal/"));
    let records = positions_of_records(&fleet.master.data, &run);
    assert_eq!(records.len(), journaled.len(), "one write a record");
    let record_of = |position: u64| records.iter().position(|durable| *durable >= position);
    let mut leaving: Vec<(Told, Option<usize>)> =
        acknowledging.iter().map(|word| (word.told.clone(), record_of(word.position))).collect();
    let early = told_before_its_commit(&journaled, &leaving);
    assert!(early.is_empty(), "{early:#?}");
    let claims: Vec<(f64, Option<usize>, String)> = acknowledged
        .iter()
        .map(|word| (word.told.at, record_of(word.position), format!("{} acknowledged", word.position)))
        .collect();
    let early = before_its_commit(&journaled, &claims);
    assert!(early.is_empty(), "{early:#?}");

    // One acknowledgement of this very trace, moved between its write and its fdatasync, is found.
    let planted = leaving.len() / 2;
    leaving[planted].0.line = journaled[leaving[planted].1.unwrap()].write.last_line;
    assert_eq!(told_before_its_commit(&journaled, &leaving).len(), 1, "a planted acknowledgement was not found");

    // And what the master wrote had been on the satellite's disk before.
    let spooled_as = |position: u64| durable.iter().position(|word| word.position >= position);
    let written: Vec<(f64, Option<usize>, String)> = moves(&records)
        .map(|(number, position)| {
            (journaled[number].write.began, spooled_as(position), format!("{position} journaled"))
        })
        .collect();
    let early = before_its_commit(&spooled, &written);
    assert!(early.is_empty(), "{early:#?}");
    let syncs = |commits: &[Commit]| commits.iter().filter(|commit| commit.sync.is_some()).count();
    figure(
        4,
        &format!(
            "strace: {} spool and {} journal commits, {} words of durability and {} acknowledgements, all after their fdatasync",
            syncs(&spooled),
            syncs(&journaled),
            durable.len(),
            acknowledging.len()
        ),
    );
}

/// Records that moved the position, with where it then was.
fn moves(records: &[u64]) -> impl Iterator<Item = (usize, u64)> + '_ {
    let before = std::iter::once(0).chain(records.iter().copied());
    records.iter().copied().enumerate().zip(before).filter(|((_, now), before)| now > before).map(|(now, _)| now)
}

/// For each record of the journal, up to where the run was durable with it.
fn positions_of_records(data: &Path, run: &str) -> Vec<u64> {
    let opened = store::open(data, Options::default()).unwrap();
    let mut reader = opened.store.reader(JournalIndex(0)).unwrap();
    let mut position = 0;
    let mut positions = Vec::new();
    while let Some(read) = reader.next().unwrap() {
        let Read::Rows(rows) = read else { panic!("the journal is damaged: {read:?}") };
        let moved = rows.iter().filter_map(|row| row.outcomes.moved).filter(|moved| moved.run.to_string() == run);
        position = moved.map(|moved| moved.position.0).fold(position, u64::max);
        positions.push(position);
    }
    positions
}
