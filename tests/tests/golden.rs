//! Bytes of every version, committed and read for ever: control items, spooled batches, records of the journal. What stands in
//! `tests/testdata/golden` was once on a wire or a disk. Lines are only added.
//!
//! ```text
//! VERSION NAME same|read HEX     same: written today byte for byte      read: written otherwise today, and still read as it was meant
//! ```
#![expect(clippy::unwrap_used, reason = "a test whose samples cannot be made has failed")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use master::entry::{
    Activate, Asked, Batch, Change, Claim, ClockStep as StepRow, Continued, Drained, Effect, Entry, Gap, Genesis,
    GivenUp, Granted, Incident, IncidentKind, Moved, Moves, Named, Outcomes, Presence, Restored, Row, Snapshot,
    Verdict, WriterGap,
};
use shared::assignment::{AssignedCheck, Carried, Policy};
use shared::check::{Check, Exit, State, TcpCheck};
use shared::command::{Commanded, Passive, What};
use shared::delivery::{self, BatchBuilder, BatchHeader, BatchItem, GapRecord, Key};
use shared::frame::Lane;
use shared::message::{
    self, AssignmentBegin, ClockReply, ClockStep, Heartbeat, HeldRun, Hello, LaneBytes, RunPosition, ToMaster,
    ToSatellite, Welcome,
};
use shared::name::{
    CheckId, Generation, Grant, InstanceId, JournalIndex, RunCounter, RunId, Sequence, Slot, SlotNumber, Term, Timeline,
};
use shared::perfdata::parse;
use shared::result::CheckResult;
use shared::snapshot::{Said, StateTold};
use shared::state::{CheckState, Confirmation, StateType};
use shared::time::Timestamp;

const AT: Timestamp = Timestamp::from_millis(1_790_000_000_123);
const RUN: RunId = RunId([0x2a; 16]);
const INSTANCE: InstanceId = InstanceId([0x17; 16]);

/// A line of a file: version and name, whether it is written so today, bytes.
type Lines = BTreeMap<(u8, String), (bool, Vec<u8>)>;

fn lines(text: &str) -> Lines {
    let meant = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    meant
        .map(|line| {
            let parts: Vec<&str> = line.split(' ').collect();
            let [version, name, how, hex] = parts[..] else { panic!("not a golden line: {line}") };
            assert!(matches!(how, "same" | "read"), "{line}");
            let bytes =
                hex.as_bytes().chunks(2).map(|two| u8::from_str_radix(str::from_utf8(two).unwrap(), 16).unwrap());
            ((version.parse().unwrap(), name.to_owned()), (how == "same", bytes.collect()))
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Compares a file with what is written today. `samples`: version, name, bytes.
fn compare(file: &str, known: &Lines, samples: &[(u8, &str, Vec<u8>)]) {
    let mut wrong = String::new();
    for (version, name, bytes) in samples {
        match known.get(&(*version, (*name).to_owned())) {
            Some((true, golden)) if golden != bytes => {
                let _ = writeln!(
                    wrong,
                    "{version} {name} is written otherwise than it was:\n  {}\n  {}",
                    hex(golden),
                    hex(bytes)
                );
            }
            Some(_) => {}
            None => {
                let _ = writeln!(wrong, "{version} {name} same {}", hex(bytes));
            }
        }
    }
    assert!(wrong.is_empty(), "tests/testdata/golden/{file} lacks, or differs in:\n{wrong}");
}

fn slot() -> Slot {
    Slot { region: "eu".parse().unwrap(), number: SlotNumber::new(2).unwrap() }
}

fn state(after: State) -> CheckState {
    CheckState::pending(3).apply(after, Confirmation { max_attempts: 3 }, AT).0
}

fn held() -> HeldRun {
    HeldRun { run: RUN, counter: RunCounter(7), first: Sequence(3), last: Sequence(90), open: true }
}

fn key() -> Key {
    Key { grant: Grant(41), counter: RunCounter(7), sequence: Sequence(88) }
}

fn to_master() -> Vec<(u8, &'static str, ToMaster)> {
    let hello = Hello {
        protocol: 1,
        software: "0.1.0".into(),
        instance: INSTANCE,
        fenced: false,
        timeline: Some(Timeline(5)),
        grant: Grant(41),
        generation: Generation(4),
        check: CheckId(300),
        runs: vec![held()],
        clock: AT,
        tells_states: false,
        credit: false,
    };
    let said = Said::of(&result(Some(-1_500)));
    let told = StateTold {
        check: CheckId(300),
        key: key(),
        state: state(State::Critical),
        said: Some(said),
        command: Some(JournalIndex(77)),
    };
    let heartbeat = Heartbeat {
        clock: AT,
        undelivered: 12,
        spool_bytes: 70_000,
        checks: 300,
        late: 1,
        results: 9_000,
        memory_only: false,
        ..Heartbeat::default()
    };
    let measured = Heartbeat {
        offset_ms: Some(-1_500),
        slew_ms: Some(60_000),
        spool_full: true,
        given_up: 9,
        ..heartbeat.clone()
    };
    vec![
        (1, "hello", ToMaster::Hello(Box::new(hello.clone()))),
        (1, "heartbeat", ToMaster::Heartbeat(heartbeat)),
        (1, "applied", ToMaster::Applied(Generation(4))),
        (1, "held", ToMaster::Held(held())),
        (2, "hello", ToMaster::Hello(Box::new(Hello { protocol: 2, tells_states: true, credit: true, ..hello }))),
        (2, "heartbeat", ToMaster::Heartbeat(measured.clone())),
        (2, "heartbeat-kept", ToMaster::Heartbeat(Heartbeat { kept_bytes: Some(65_536), ..measured })),
        (2, "state", ToMaster::State(Box::new(told))),
        (2, "states-end", ToMaster::StatesEnd(Generation(4))),
        (2, "wanted", ToMaster::Wanted(LaneBytes { lane: Lane::Backlog, bytes: 70_000 })),
        (2, "returned", ToMaster::Returned(LaneBytes { lane: Lane::Live, bytes: 9 })),
        (2, "clock-step", ToMaster::ClockStep(ClockStep { number: 2, by_ms: -3_600_000, at: AT })),
    ]
}

fn passive() -> What {
    What::Passive(Passive { state: State::Critical, text: "CRITICAL – from outside|a=1".into() })
}

fn command(what: What) -> ToSatellite {
    ToSatellite::Command(Box::new(Commanded { index: JournalIndex(77), check: CheckId(300), at: AT, what }))
}

fn to_satellite() -> Vec<(u8, &'static str, ToSatellite)> {
    let welcome = Welcome {
        protocol: 1,
        software: "0.1.0".into(),
        installation: "acme".parse().unwrap(),
        term: Term(1),
        timeline: Timeline(5),
        first_check: CheckId(1),
        holder: true,
        positions: vec![RunPosition { run: RUN, position: Sequence(88) }],
        clock: AT,
        credit: None,
    };
    let check = AssignedCheck {
        id: CheckId(300),
        object: "web01!port".parse().unwrap(),
        check: Some(Check::Tcp(TcpCheck::port("192.0.2.1", 443))),
        policy: Policy { check_interval_ms: 60_000, retry_interval_ms: 15_000, timeout_ms: 10_000, max_attempts: 3 },
        grant: Grant(41),
        carried: Some(Carried { state: state(State::Critical), key: key() }),
    };
    vec![
        (1, "welcome", ToSatellite::Welcome(Box::new(welcome.clone()))),
        (2, "welcome", ToSatellite::Welcome(Box::new(Welcome { protocol: 2, credit: Some(65_536), ..welcome }))),
        (2, "credit", ToSatellite::Credit(LaneBytes { lane: Lane::Live, bytes: 131_072 })),
        (
            1,
            "assignment-begin",
            ToSatellite::AssignmentBegin(AssignmentBegin { generation: Generation(4), whole: true }),
        ),
        (1, "assignment-upsert", ToSatellite::AssignmentUpsert(Box::new(check))),
        (1, "assignment-remove", ToSatellite::AssignmentRemove(CheckId(299))),
        (1, "assignment-end", ToSatellite::AssignmentEnd(Generation(4))),
        (1, "ack", ToSatellite::Ack(RunPosition { run: RUN, position: Sequence(88) })),
        (1, "fence", ToSatellite::Fence),
        (
            1,
            "clock-reply",
            ToSatellite::ClockReply(ClockReply { sent: AT, master: AT.plus(Duration::from_millis(40)) }),
        ),
        (1, "close-run", ToSatellite::CloseRun(RUN)),
        (2, "states-heard", ToSatellite::StatesHeard),
        (2, "command-check-now", command(What::CheckNow)),
        (2, "command-passive", command(passive())),
        (2, "command-reset", command(What::Reset)),
    ]
}

#[test]
fn control_frames_of_every_version_are_read_and_written_as_they_were() {
    let known = lines(include_str!("../testdata/golden/control.txt"));
    let up = to_master();
    let down = to_satellite();
    let mut samples: Vec<(u8, &str, Vec<u8>)> = Vec::new();
    samples.extend(
        up.iter().map(|(version, name, said)| (*version, *name, message::encode(std::slice::from_ref(said)).remove(0))),
    );
    samples.extend(
        down.iter()
            .map(|(version, name, said)| (*version, *name, message::encode(std::slice::from_ref(said)).remove(0))),
    );
    compare("control.txt", &known, &samples);
    assert_eq!(known.len(), samples.len(), "a line without a sample proves nothing");
    for (version, name, said) in &up {
        let (_, bytes) = &known[&(*version, (*name).to_owned())];
        assert_eq!(message::decode::<ToMaster>(bytes).unwrap(), std::slice::from_ref(said), "{version} {name}");
    }
    for (version, name, said) in &down {
        let (_, bytes) = &known[&(*version, (*name).to_owned())];
        assert_eq!(message::decode::<ToSatellite>(bytes).unwrap(), std::slice::from_ref(said), "{version} {name}");
    }
}

fn result(offset_ms: Option<i64>) -> CheckResult {
    let perfdata = "time=0.012s;1;2;0 'disk /'=42%;80;90";
    CheckResult {
        check: CheckId(300),
        grant: Grant(41),
        scheduled: AT,
        started: AT.plus(Duration::from_millis(3)),
        duration_us: 12_345,
        exit: Some(Exit::Ran(2)),
        passive: false,
        output: "CRITICAL – port 443 is closed".into(),
        long_output: "a second line".into(),
        perfdata: perfdata.into(),
        metrics: parse(perfdata).metrics,
        authenticated: Some(false),
        after: state(State::Critical),
        command: Some(JournalIndex(77)),
        offset_ms,
    }
}

fn header() -> BatchHeader {
    BatchHeader {
        timeline: Timeline(5),
        generation: Generation(4),
        run: RUN,
        counter: RunCounter(7),
        first: Sequence(89),
        last: Sequence(95),
    }
}

fn batch() -> (Vec<u8>, Vec<BatchItem>) {
    let gap = GapRecord {
        first: Sequence(90),
        last: Sequence(94),
        reason: "spool-full".into(),
        from: Some(AT),
        to: Some(AT.plus(Duration::from_secs(60))),
    };
    let mut builder = BatchBuilder::default();
    builder.push(&result(None));
    builder.push_gap(&gap);
    builder.push(&result(Some(-1_500)));
    let items = vec![
        BatchItem::Result(Sequence(89), Box::new(result(None))),
        BatchItem::Gap(gap),
        BatchItem::Result(Sequence(95), Box::new(result(Some(-1_500)))),
    ];
    (builder.finish(&header()), items)
}

#[test]
fn spooled_batches_of_every_version_are_read_as_they_were_meant() {
    let known = lines(include_str!("../testdata/golden/batch.txt"));
    let (bytes, items) = batch();
    compare("batch.txt", &known, &[(1, "results-and-a-gap", bytes)]);
    for ((version, name), (_, bytes)) in &known {
        let (read, body) = delivery::decode_header(bytes).unwrap();
        assert_eq!(read, header(), "{version} {name}");
        assert_eq!(delivery::decode_items(&read, body).unwrap(), items, "{version} {name}");
    }
}

fn rows() -> Vec<(u8, &'static str, Row)> {
    let row = |entry, outcomes| Row { index: JournalIndex(77), term: Term(1), at: AT, entry, outcomes };
    let plain = |entry| row(entry, Outcomes::default());
    let joined = Presence { slot: slot(), present: true, reason: "joined".into(), drain: None, author: None };
    let drained = Presence {
        present: false,
        reason: "drained".into(),
        drain: Some(true),
        author: Some("ann".into()),
        ..joined.clone()
    };
    let incident = Incident {
        kind: IncidentKind::SlotLost,
        slot: Some(slot()),
        open: true,
        reason: "silent".into(),
        slots: 1,
        checks: 40,
        moved: 40,
        author: None,
        opened: None,
    };
    let cut = Incident {
        kind: IncidentKind::CutOff,
        slot: None,
        open: false,
        reason: "resumed".into(),
        author: Some("ann".into()),
        opened: Some(JournalIndex(70)),
        ..incident.clone()
    };
    let step = StepRow { slot: Some(slot()), instance: Some(INSTANCE), number: 2, by_ms: -90_000, at: AT };
    let asked = Asked { check: CheckId(300), what: passive(), author: "ann".into() };
    let verdicts = [Effect::RepeatedCurrent, Effect::Repeated].map(|effect| Verdict { effect, change: None }).to_vec();
    let repeated = Outcomes { verdicts, ..Outcomes::default() };
    let named = Outcomes {
        named: vec![Named { id: CheckId(300), object: "web01!port".parse().unwrap() }],
        removed: vec![CheckId(299)],
        granted: vec![Granted { slot: Some(slot()), checks: vec![CheckId(300)] }],
        ..Outcomes::default()
    };
    let claim = Claim { slot: slot(), instance: INSTANCE, remote: "192.0.2.7:40001".into(), software: "0.1.0".into() };
    let restored = Restored {
        installation: "acme".parse().unwrap(),
        timeline: Timeline(6),
        first_check: CheckId(301),
        from: Timeline(5),
        head: JournalIndex(88),
        head_at: AT,
        given_up: vec![GivenUp { command: JournalIndex(87), check: CheckId(299) }],
    };
    let continued = Continued {
        slot: slot(),
        timeline: Timeline(5),
        after: JournalIndex(88),
        above: JournalIndex(95),
        generation: Generation(5),
        check: CheckId(310),
    };
    let overrun = WriterGap {
        writer: "carbon".into(),
        lane: "metrics".into(),
        first: JournalIndex(60),
        last: JournalIndex(80),
        reason: "journal-bytes".into(),
    };
    vec![
        (1, "restored", plain(Entry::Restored(Restored { given_up: Vec::new(), ..restored.clone() }))),
        (1, "restored-naming-commands", plain(Entry::Restored(restored))),
        (1, "continued", plain(Entry::Continued(continued))),
        (1, "writer-gap", plain(Entry::WriterGap(overrun))),
        (
            1,
            "genesis",
            plain(Entry::Genesis(Genesis {
                installation: "acme".parse().unwrap(),
                timeline: Timeline(5),
                first_check: CheckId(1),
            })),
        ),
        (
            1,
            "activate",
            row(
                Entry::Activate(Activate { generation: Generation(4), digest: "ab".repeat(32), author: "ann".into() }),
                named,
            ),
        ),
        (1, "claim", row(Entry::Claim(claim), Outcomes { fenced: Some(InstanceId([9; 16])), ..Outcomes::default() })),
        (1, "presence", plain(Entry::Presence(joined))),
        (1, "batch", row(Entry::Batch(Batch { slot: slot(), bytes: vec![1, 2, 3] }), judged(false))),
        (1, "drained", plain(Entry::Drained(Drained { slot: slot(), run: RUN }))),
        (2, "batch", row(Entry::Batch(Batch { slot: slot(), bytes: vec![1, 2, 3] }), judged(true))),
        (2, "snapshot", row(Entry::Snapshot(Snapshot { slot: slot(), bytes: vec![1, 2, 3] }), judged(true))),
        (2, "presence", plain(Entry::Presence(drained))),
        (2, "incident", plain(Entry::Incident(incident))),
        (2, "incident-end", plain(Entry::Incident(cut))),
        (2, "moves", plain(Entry::Moves(Moves { held: true, author: "ann".into() }))),
        (2, "clock-step", plain(Entry::ClockStep(step.clone()))),
        (2, "asked", plain(Entry::Asked(asked))),
        (2, "batch-repeated", row(Entry::Batch(Batch { slot: slot(), bytes: vec![1, 2, 3] }), repeated)),
        (2, "clock-step-own", plain(Entry::ClockStep(StepRow { slot: None, instance: None, ..step }))),
    ]
}

/// The outcomes of a batch, with everything they can hold; `told`: since protocol 2.
fn judged(told: bool) -> Outcomes {
    let change = Change {
        from: State::Ok,
        from_type: StateType::Hard,
        to: State::Critical,
        to_type: StateType::Soft,
        hard: false,
        current: told,
        not_before: told.then_some(AT),
    };
    let verdict = |effect, change| Verdict { effect, change };
    let record = GapRecord { first: Sequence(1), last: Sequence(4), reason: "missing".into(), from: None, to: None };
    let mut verdicts = vec![
        verdict(Effect::Known, None),
        verdict(Effect::Current, Some(change)),
        verdict(Effect::Late, None),
        verdict(Effect::Gap, None),
        verdict(Effect::RefusedUnknown, None),
        verdict(Effect::RefusedForeign, None),
        verdict(Effect::RefusedMalformed, None),
    ];
    verdicts.extend(told.then(|| verdict(Effect::Observed, None)));
    Outcomes {
        moved: Some(Moved { run: RUN, counter: RunCounter(7), position: Sequence(95) }),
        verdicts,
        gaps: vec![Gap { slot: slot(), run: RUN, record, explained: false }],
        ..Outcomes::default()
    }
}

#[test]
fn records_of_the_journal_of_every_version_are_read_and_written_as_they_were() {
    let known = lines(include_str!("../testdata/golden/journal.txt"));
    let rows = rows();
    let samples: Vec<(u8, &str, Vec<u8>)> = rows
        .iter()
        .map(|(version, name, row)| (*version, *name, master::entry::encode(std::slice::from_ref(row))))
        .collect();
    compare("journal.txt", &known, &samples);
    assert_eq!(known.len(), samples.len(), "a line without a sample proves nothing");
    for (version, name, row) in &rows {
        let (_, bytes) = &known[&(*version, (*name).to_owned())];
        assert_eq!(master::entry::decode(bytes).unwrap(), std::slice::from_ref(row), "{version} {name}");
    }
}

#[test]
fn a_frame_with_an_item_nobody_knows_yet_is_read_without_it() {
    let known = lines(include_str!("../testdata/golden/control.txt"));
    let mut frame = known[&(1, "heartbeat".to_owned())].1.clone();
    shared::item::push(&mut frame, 9_999, &"from the future");
    let held = &known[&(1, "held".to_owned())].1;
    frame.extend_from_slice(&held[1..]);
    let read = message::decode::<ToMaster>(&frame).unwrap();
    assert!(matches!(&read[..], [ToMaster::Heartbeat(_), ToMaster::Held(_)]), "{read:?}");
}
