//! The volume on real files: processes that are killed (dropped without a word) and started again, damaged files, foreign
//! directories, and two processes side by side.

mod gaps;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use shared::assignment::{Assignment, Carried};
use shared::check::{Exit, State};
use shared::delivery::{BatchBuilder, BatchHeader, BatchItem, Key, decode_header, decode_items};
use shared::name::{CheckId, Generation, Grant, InstanceId, JournalIndex, SlotNumber};
use shared::result::CheckResult;
use shared::state::CheckState;
use shared::time::Timestamp;

use super::*;
use crate::command::{FoundRun, Seen, SpooledBatch};

const TIMELINE: Timeline = Timeline(7);

fn identity(slot: u32) -> Identity {
    Identity {
        installation: "acme".parse().unwrap(),
        slot: shared::name::Slot { region: "eu".parse().unwrap(), number: SlotNumber::new(slot).unwrap() },
        instance: InstanceId(rand::random()),
        software: "0.1.0".into(),
    }
}

fn open(data: &Path) -> (Spool, Beginning) {
    Spool::open(data, &identity(1), &Limits::DEFAULT).unwrap()
}

fn open_small(data: &Path) -> (Spool, Beginning) {
    let limits = Limits { bytes: 8 * 64 * 1024, ..Limits::DEFAULT };
    Spool::open(data, &identity(1), &limits).unwrap()
}

fn state(state: State) -> CheckState {
    CheckState { state, ..CheckState::pending(3) }
}

/// A batch of results of one check.
fn batch(run: &FoundRun, first: u64, last: u64, observed: State, output: &str) -> SpooledBatch {
    let mut builder = BatchBuilder::default();
    for _ in first..=last {
        builder.push(&CheckResult {
            check: CheckId(1),
            grant: Grant(5),
            scheduled: Timestamp::from_millis(1),
            started: Timestamp::from_millis(2),
            duration_us: 3,
            exit: Some(Exit::Ran(0)),
            passive: false,
            output: output.to_owned(),
            long_output: String::new(),
            perfdata: String::new(),
            metrics: Vec::new(),
            authenticated: None,
            after: state(observed),
            command: None,
            offset_ms: None,
        });
    }
    let header = BatchHeader {
        timeline: TIMELINE,
        generation: Generation(1),
        run: run.run,
        counter: run.counter,
        first: Sequence(first),
        last: Sequence(last),
    };
    SpooledBatch { first: Sequence(first), last: Sequence(last), bytes: Bytes::from(builder.finish(&header)) }
}

fn append(spool: &mut Spool, run: &FoundRun, batches: Vec<SpooledBatch>) {
    let last = batches.last().unwrap().last;
    let answer = spool.execute(Order::Do(Command::Append { run: run.run, batches }));
    assert!(matches!(answer, Some(Answer::Appended { up_to, .. }) if up_to == last), "{answer:?}");
}

fn read(spool: &mut Spool, run: RunId, from: u64) -> ReadBatches {
    let order = Command::Read { read: ReadId(1), run, from: Sequence(from), bytes_max: 1 << 20, batches_max: 1000 };
    match spool.execute(Order::Do(order)) {
        Some(Answer::Read { found, .. }) => found,
        other => panic!("{other:?}"),
    }
}

fn kept(generation: u64) -> Kept {
    let identity = identity(1);
    Kept {
        installation: identity.installation,
        slot: identity.slot,
        timeline: TIMELINE,
        seen: Seen { generation: Generation(generation), ..Seen::default() },
        assignment: Assignment { generation: Generation(generation), ..Assignment::default() },
    }
}

fn keep_states(spool: &mut Spool, states: KeptStates) {
    let answer = spool.execute(Order::Do(Command::KeepStates(Box::new(states))));
    assert!(matches!(answer, Some(Answer::StatesKept)));
}

/// The one segment file of a run.
fn segment(spool: &Spool, run: RunId) -> PathBuf {
    let dir = spool.own.runs[&run].path();
    let mut files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.find(|path| path.extension().is_some_and(|e| e == "seg")).unwrap()
}

#[test]
fn a_killed_process_leaves_its_run_to_the_next() {
    let data = tempfile::tempdir().unwrap();
    let (mut spool, beginning) = open(data.path());
    let run = beginning.open;
    let batches = vec![batch(&run, 1, 3, State::Ok, "a"), batch(&run, 4, 4, State::Critical, "b")];
    append(&mut spool, &run, batches.clone());
    drop(spool);
    let (mut spool, beginning) = open(data.path());
    assert_eq!(beginning.earlier, [FoundRun { last: Sequence(4), ..run }]);
    assert_ne!(beginning.open.run, run.run);
    let found = read(&mut spool, run.run, 1);
    assert_eq!(found.batches, batches.iter().map(|batch| batch.bytes.clone()).collect::<Vec<_>>());
    assert_eq!(found.through, Sequence(4));
    let found = read(&mut spool, run.run, 4);
    assert_eq!(found.batches, [batches[1].bytes.clone()], "the batch that holds the sequence");
}

#[test]
fn a_start_has_the_greatest_state_of_file_and_spools() {
    let data = tempfile::tempdir().unwrap();
    let (mut spool, beginning) = open(data.path());
    let run = beginning.open;
    append(&mut spool, &run, vec![batch(&run, 1, 1, State::Ok, "a")]);
    let key = |sequence| Key { grant: Grant(5), counter: run.counter, sequence: Sequence(sequence) };
    let only_kept = Carried { state: state(State::Warning), key: key(9) };
    keep_states(
        &mut spool,
        KeptStates {
            timeline: TIMELINE,
            states: BTreeMap::from([
                (CheckId(1), Carried { state: state(State::Ok), key: key(1) }),
                (CheckId(2), only_kept),
            ]),
            covered: BTreeMap::from([(run.run, Sequence(1))]),
            ..KeptStates::default()
        },
    );
    append(&mut spool, &run, vec![batch(&run, 2, 3, State::Critical, "b")]);
    drop(spool);
    let (_, beginning) = open(data.path());
    assert_eq!(beginning.states.timeline, TIMELINE);
    assert_eq!(beginning.states.states[&CheckId(1)], Carried { state: state(State::Critical), key: key(3) });
    assert_eq!(beginning.states.states[&CheckId(2)], only_kept);
}

#[test]
fn a_run_counter_is_never_drawn_twice() {
    let data = tempfile::tempdir().unwrap();
    let mut counters = Vec::new();
    for round in 0..8 {
        let (mut spool, beginning) = open(data.path());
        counters.push(beginning.open.counter);
        let run = beginning.open;
        append(&mut spool, &run, vec![batch(&run, 1, 1, State::Ok, "a")]);
        let Some(Answer::Opened { counter, .. }) = spool.execute(Order::Do(Command::OpenRun)) else { panic!("no run") };
        counters.push(counter);
        drop(spool);
        let file = data.path().join("spool/counter");
        match round {
            2 => fs::remove_file(&file).unwrap(),
            4 => fs::write(&file, b"not a counter").unwrap(),
            _ => {}
        }
    }
    assert!(counters.windows(2).all(|two| two[0] < two[1]), "{counters:?}");
}

#[test]
fn a_damaged_assignment_falls_back_to_the_one_before() {
    let data = tempfile::tempdir().unwrap();
    let (mut spool, beginning) = open(data.path());
    assert_eq!(beginning.kept, None);
    for generation in 1..=3 {
        let answer = spool.execute(Order::Do(Command::Keep(Box::new(kept(generation)))));
        assert!(matches!(answer, Some(Answer::Kept)));
    }
    let current = data.path().join("assignment/current");
    let whole = fs::read(&current).unwrap();
    assert_eq!(open(data.path()).1.kept, Some(kept(3)));
    for damage in [&whole[..whole.len() - 1], b"", &[&whole[..20], b"\x00", &whole[21..]].concat()] {
        fs::write(&current, damage).unwrap();
        assert_eq!(open(data.path()).1.kept, Some(kept(2)));
    }
    // A damaged one never takes the place of the good one before it.
    let answer = spool.execute(Order::Do(Command::Keep(Box::new(kept(4)))));
    assert!(matches!(answer, Some(Answer::Kept)));
    fs::write(&current, b"").unwrap();
    assert_eq!(open(data.path()).1.kept, Some(kept(2)));
    fs::remove_file(&current).unwrap();
    assert_eq!(open(data.path()).1.kept, Some(kept(2)), "killed between two renames");
    fs::write(data.path().join("assignment/previous"), b"").unwrap();
    assert_eq!(open(data.path()).1.kept, None);
}

#[test]
fn an_assignment_of_another_slot_is_not_used() {
    let data = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(data.path());
    spool.execute(Order::Do(Command::Keep(Box::new(kept(1)))));
    drop(spool);
    assert_eq!(Spool::open(data.path(), &identity(2), &Limits::DEFAULT).unwrap().1.kept, None);
}

#[test]
fn a_second_process_sees_the_first_and_takes_over_when_it_is_gone() {
    let data = tempfile::tempdir().unwrap();
    let (mut first, beginning) = open(data.path());
    let run = beginning.open;
    let (mut second, beginning) = open(data.path());
    assert!(beginning.neighbour);
    assert_eq!(beginning.earlier, []);
    append(&mut first, &run, vec![batch(&run, 1, 2, State::Critical, "a")]);
    let answer = second.execute(Order::Survey);
    assert!(matches!(answer, Some(Answer::Neighbours { alive: true, adopted: None })), "{answer:?}");
    drop(first);
    let Some(Answer::Neighbours { alive: false, adopted: Some(adopted) }) = second.execute(Order::Survey) else {
        panic!("not adopted")
    };
    assert_eq!(adopted.runs, [FoundRun { last: Sequence(2), ..run }]);
    assert_eq!(adopted.states.states[&CheckId(1)].state.state, State::Critical);
    assert_eq!(read(&mut second, run.run, 1).batches.len(), 1);
}

#[test]
fn a_spool_of_another_slot_is_left_where_it_is() {
    let data = tempfile::tempdir().unwrap();
    let (mut spool, beginning) = open(data.path());
    append(&mut spool, &beginning.open, vec![batch(&beginning.open, 1, 1, State::Ok, "a")]);
    let directory = spool.directory().to_path_buf();
    drop(spool);
    let (mut other, found) = Spool::open(data.path(), &identity(2), &Limits::DEFAULT).unwrap();
    assert_eq!(found.earlier, []);
    assert!(!found.neighbour && found.open.counter > beginning.open.counter);
    keep_states(&mut other, KeptStates { adoptions: 9, ..KeptStates::default() });
    assert!(directory.join("owner").exists());
    assert_eq!(open(data.path()).1.earlier.len(), 1, "its own slot finds it");
}

#[test]
fn an_earlier_directory_goes_when_its_runs_are_closed_and_its_states_are_ours() {
    let data = tempfile::tempdir().unwrap();
    let (mut spool, beginning) = open(data.path());
    append(&mut spool, &beginning.open, vec![batch(&beginning.open, 1, 1, State::Ok, "a")]);
    let (directory, run) = (spool.directory().to_path_buf(), beginning.open.run);
    drop(spool);
    let (mut spool, beginning) = open(data.path());
    assert_eq!(beginning.states.adoptions, 1);
    keep_states(&mut spool, KeptStates { adoptions: 1, ..KeptStates::default() });
    assert!(directory.exists(), "its run is not delivered");
    spool.execute(Order::Do(Command::CloseRun(run)));
    assert!(directory.exists(), "its states may be newer");
    keep_states(&mut spool, KeptStates { adoptions: 0, ..KeptStates::default() });
    assert!(directory.exists(), "these states do not contain its own");
    keep_states(&mut spool, KeptStates { adoptions: 1, ..KeptStates::default() });
    assert!(!directory.exists());
}

#[test]
fn trimming_frees_whole_segments_and_tells_where_the_run_begins() {
    let data = tempfile::tempdir().unwrap();
    let (mut spool, beginning) = open(data.path());
    let run = beginning.open;
    let noise: Vec<u8> = (0..60_000).map(|_| b'0' + rand::random::<u8>() % 64).collect();
    let text = String::from_utf8(noise).unwrap();
    for sequence in 1..=400 {
        append(&mut spool, &run, vec![batch(&run, sequence, sequence, State::Ok, &text)]);
    }
    let before = spool.bytes();
    let trim =
        |spool: &mut Spool, up_to| spool.execute(Order::Do(Command::Trim { run: run.run, up_to: Sequence(up_to) }));
    assert!(trim(&mut spool, 2).is_none(), "no whole segment");
    let Some(Answer::Trimmed { first, .. }) = trim(&mut spool, 399) else { panic!("not trimmed") };
    assert!(first > Sequence(1) && spool.bytes() < before);
    let found = read(&mut spool, run.run, 1);
    assert_eq!(found.trimmed_below, first);
    assert!(!found.batches.is_empty());
}

#[test]
fn a_damaged_record_is_missing_and_all_others_are_read() {
    let data = tempfile::tempdir().unwrap();
    let (mut spool, beginning) = open(data.path());
    let run = beginning.open;
    let batches: Vec<SpooledBatch> = (0..3).map(|n| batch(&run, 2 * n + 1, 2 * n + 2, State::Ok, "text")).collect();
    append(&mut spool, &run, batches.clone());
    let path = segment(&spool, run.run);
    drop(spool);
    let mut bytes = fs::read(&path).unwrap();
    let middle = &batches[1].bytes;
    let at = bytes.windows(middle.len()).position(|window| window == middle.as_ref()).unwrap();
    bytes[at + 30] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (mut spool, _) = open(data.path());
    let found = read(&mut spool, run.run, 1);
    assert_eq!(found.batches, [batches[0].bytes.clone(), batches[2].bytes.clone()]);
    assert_eq!(found.through, Sequence(6));
}

#[test]
fn a_segment_of_another_run_is_left_alone() {
    let data = tempfile::tempdir().unwrap();
    let (mut spool, beginning) = open(data.path());
    let run = beginning.open;
    append(&mut spool, &run, vec![batch(&run, 1, 2, State::Ok, "a")]);
    let dir = spool.own.runs[&run.run].path().to_owned();
    drop(spool);
    let (mut spool, beginning) = open(data.path());
    let other = beginning.open;
    append(&mut spool, &other, vec![batch(&other, 1, 9, State::Ok, "b")]);
    let foreign = segment(&spool, other.run);
    let there = dir.join(foreign.file_name().unwrap());
    fs::copy(&foreign, &there).unwrap();
    drop(spool);
    let (mut spool, beginning) = open(data.path());
    assert!(beginning.earlier.contains(&FoundRun { last: Sequence(2), ..run }), "{:?}", beginning.earlier);
    assert_eq!(read(&mut spool, run.run, 1).batches.len(), 1);
    assert!(there.exists());
}

#[test]
fn an_append_that_fails_can_be_made_again() {
    let data = tempfile::tempdir().unwrap();
    let (mut spool, beginning) = open(data.path());
    let run = beginning.open;
    let path = spool.own.runs[&run.run].path().to_owned();
    let aside = data.path().join("aside");
    fs::rename(&path, &aside).unwrap();
    let batches = vec![batch(&run, 1, 2, State::Ok, "a")];
    let answer = spool.execute(Order::Do(Command::Append { run: run.run, batches: batches.clone() }));
    assert!(matches!(answer, Some(Answer::AppendFailed)), "{answer:?}");
    fs::rename(&aside, &path).unwrap();
    append(&mut spool, &run, batches);
    assert_eq!(read(&mut spool, run.run, 1).batches.len(), 1);
}

#[test]
fn only_living_processes_tell_their_status() {
    let data = tempfile::tempdir().unwrap();
    assert!(status::ask(data.path()).unwrap().is_empty());
    let (mut spool, _) = open(data.path());
    spool.execute(Order::Tell(b"{\"checks\":3}".to_vec()));
    let told = status::ask(data.path()).unwrap();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["checks"], 3);
    drop(spool);
    assert!(status::ask(data.path()).unwrap().is_empty());
    let (mut spool, _) = open(data.path());
    assert!(status::ask(data.path()).unwrap().is_empty(), "who took the directory speaks for a dead process");
    spool.execute(Order::Tell(b"{\"checks\":4}".to_vec()));
    assert_eq!(status::ask(data.path()).unwrap().len(), 1);
}

/// A batch of one result, with something of it changed.
fn changed(
    run: &FoundRun,
    sequence: u64,
    text: &str,
    change: impl Fn(&mut BatchHeader, &mut CheckResult),
) -> SpooledBatch {
    let whole = batch(run, sequence, sequence, State::Ok, text);
    let (mut header, body) = decode_header(&whole.bytes).unwrap();
    let Some(BatchItem::Result(_, mut result)) = decode_items(&header, body).unwrap().pop() else {
        panic!("no result")
    };
    change(&mut header, &mut result);
    let mut builder = BatchBuilder::default();
    builder.push(&result);
    SpooledBatch { bytes: Bytes::from(builder.finish(&header)), ..whole }
}

/// A batch of one result.
fn single(run: &FoundRun, sequence: u64, check: u32, grant: u64, text: &str) -> SpooledBatch {
    changed(run, sequence, text, |_, result| (result.check, result.grant) = (CheckId(check), Grant(grant)))
}

#[test]
fn a_command_is_known_to_be_applied_however_old_the_result_that_answers_it() {
    let answer = |run: &FoundRun, sequence, index| {
        changed(run, sequence, "forced", |_, result| result.command = Some(JournalIndex(index)))
    };
    let data = tempfile::tempdir().unwrap();
    let (mut spool, beginning) = open(data.path());
    let run = beginning.open;
    let key = |sequence| Key { grant: Grant(5), counter: run.counter, sequence: Sequence(sequence) };
    keep_states(
        &mut spool,
        KeptStates {
            timeline: TIMELINE,
            states: BTreeMap::from([(CheckId(2), Carried { state: state(State::Ok), key: key(1) })]),
            covered: BTreeMap::from([(run.run, Sequence(1))]),
            ..KeptStates::default()
        },
    );
    // Since the states were kept: two commands, and newer results of the check, one of them in the same batch.
    append(&mut spool, &run, vec![single(&run, 1, 2, 5, "kept"), answer(&run, 2, 70), answer(&run, 3, 80)]);
    append(&mut spool, &run, vec![batch(&run, 4, 6, State::Critical, "newer")]);
    drop(spool);
    let (_spool, beginning) = open(data.path());
    assert_eq!(beginning.states.states[&CheckId(1)], Carried { state: state(State::Critical), key: key(6) });
    assert_eq!(beginning.states.applied, BTreeMap::from([(CheckId(1), JournalIndex(80))]));
}

#[test]
fn a_command_of_another_timeline_is_not_taken_for_one_of_this() {
    let data = tempfile::tempdir().unwrap();
    let (mut spool, beginning) = open(data.path());
    let run = beginning.open;
    let old = changed(&run, 1, "forced", |header, result| {
        (header.timeline, result.command) = (Timeline(TIMELINE.0 + 1), Some(JournalIndex(900)));
    });
    let new = changed(&run, 2, "forced", |_, result| result.command = Some(JournalIndex(70)));
    append(&mut spool, &run, vec![old, new, batch(&run, 3, 3, State::Ok, "newer")]);
    drop(spool);
    let (_spool, beginning) = open(data.path());
    assert_eq!(beginning.states.timeline, TIMELINE);
    assert_eq!(beginning.states.applied, BTreeMap::from([(CheckId(1), JournalIndex(70))]));
}

#[test]
fn without_a_file_of_states_each_check_goes_on_from_its_greatest_key_that_is_left() {
    let data = tempfile::tempdir().unwrap();
    let mut greatest: BTreeMap<CheckId, Key> = BTreeMap::new();
    for _ in 0..2 {
        let (mut spool, beginning) = open_small(data.path());
        let run = beginning.open;
        let mut batches = Vec::new();
        for sequence in 1..=60 {
            // Grants may fall within a run: a slot that was cut off tells late what it did under an older one.
            let (check, grant) = (rand::random_range(1..=7), rand::random_range(3..=6));
            let noise: String = (0..4096).map(|_| char::from(b'0' + rand::random::<u8>() % 64)).collect();
            batches.push((single(&run, sequence, check, grant, &noise), CheckId(check), Grant(grant)));
        }
        for (batch, ..) in &batches {
            append(&mut spool, &run, vec![batch.clone()]);
        }
        let segments = fs::read_dir(segment(&spool, run.run).parent().unwrap()).unwrap();
        let segments: Vec<PathBuf> =
            segments.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some()).collect();
        assert!(segments.len() > 2, "{segments:?}");
        drop(spool);
        for (batch, check, grant) in &batches {
            // Every fifth is damaged; the last is not, for nobody could tell it from one that was never finished.
            if batch.first.0 % 5 == 0 && batch.first.0 < 60 {
                for path in &segments {
                    let mut bytes = fs::read(path).unwrap();
                    let found = bytes.windows(batch.bytes.len()).position(|window| window == batch.bytes.as_ref());
                    if let Some(at) = found {
                        bytes[at + 99] ^= 4;
                        fs::write(path, bytes).unwrap();
                    }
                }
                continue;
            }
            let key = Key { grant: *grant, counter: run.counter, sequence: batch.first };
            greatest.entry(*check).and_modify(|known| *known = key.max(*known)).or_insert(key);
        }
    }
    let (_, beginning) = open_small(data.path());
    let told: BTreeMap<CheckId, Key> = beginning.states.states.iter().map(|(check, told)| (*check, told.key)).collect();
    assert_eq!(told, greatest);
    assert_eq!(beginning.states.timeline, TIMELINE);
    assert!(told.keys().all(|check| beginning.states.said.contains_key(check)), "with what people read of it");
}

#[test]
fn a_run_that_the_disk_refuses_to_open_is_delivered_when_it_no_longer_does() {
    let data = tempfile::tempdir().unwrap();
    let (mut spool, beginning) = open(data.path());
    let run = beginning.open;
    append(&mut spool, &run, vec![batch(&run, 1, 2, State::Critical, "a")]);
    let directory = spool.directory().to_owned();
    // A name that cannot be read as what it is: the system refuses, as it does with a bad sector.
    let lost = segment(&spool, run.run).with_file_name("lost");
    fs::create_dir(&lost).unwrap();
    drop(spool);
    let (mut spool, beginning) = open(data.path());
    assert_eq!(beginning.earlier, [], "it is not taken for a run without gaps");
    assert!(beginning.states.states.is_empty());
    assert!(matches!(spool.execute(Order::Survey), Some(Answer::Neighbours { adopted: None, .. })));
    keep_states(&mut spool, KeptStates { adoptions: 1, ..KeptStates::default() });
    assert!(directory.exists(), "something is left in it");
    fs::remove_dir(&lost).unwrap();
    let Some(Answer::Neighbours { adopted: Some(adopted), .. }) = spool.execute(Order::Survey) else { panic!("none") };
    assert_eq!(adopted.runs.iter().map(|found| (found.run, found.last)).collect::<Vec<_>>(), [(run.run, Sequence(2))]);
    assert_eq!(adopted.states.states[&CheckId(1)].state.state, State::Critical);
    assert_eq!(adopted.states.adoptions, 2);
    assert_eq!(read(&mut spool, run.run, 1).batches.len(), 1);
    assert!(matches!(spool.execute(Order::Survey), Some(Answer::Neighbours { adopted: None, .. })), "once");
    spool.execute(Order::Do(Command::CloseRun(run.run)));
    keep_states(&mut spool, KeptStates { adoptions: 1, ..KeptStates::default() });
    assert!(directory.exists(), "these states do not contain its own");
    keep_states(&mut spool, KeptStates { adoptions: 2, ..KeptStates::default() });
    assert!(!directory.exists());
}

#[test]
fn a_run_whose_gaps_can_never_be_read_is_delivered_without_their_names() {
    let data = tempfile::tempdir().unwrap();
    let (mut spool, beginning) = open(data.path());
    append(&mut spool, &beginning.open, vec![batch(&beginning.open, 1, 2, State::Ok, "a")]);
    fs::create_dir(segment(&spool, beginning.open.run).with_file_name("lost")).unwrap();
    drop(spool);
    let (mut spool, _) = open(data.path());
    let adopted = (0..5).find_map(|_| match spool.execute(Order::Survey) {
        Some(Answer::Neighbours { adopted, .. }) => adopted,
        _ => None,
    });
    assert_eq!(adopted.unwrap().runs.len(), 1);
    assert_eq!(read(&mut spool, beginning.open.run, 1).batches.len(), 1);
}

#[test]
fn what_a_disk_refuses_for_the_moment_may_pass_wherever_it_was_met() {
    let refused = || io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error());
    let sealed = anyhow::Error::from(SealError::Io(refused())).context("cannot read the counter");
    let plain = anyhow::Error::from(refused()).context("cannot list");
    assert!(may_pass(&sealed) && may_pass(&plain));
    assert!(!may_pass(&anyhow::Error::from(SealError::Newer(9)).context("cannot read the counter")));
}
