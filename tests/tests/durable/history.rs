//! History against the journal it reflects: nothing missing, nothing twice, whatever happens to its file, its thread or the journal.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use master::entry::{Activate, Batch, Change, Effect, Entry, Genesis, Named, Outcomes, Row, Snapshot, Verdict};
use master::history::{Detail, Event, FILE, History, HistoryReader, Kept, Kind, Order, Query};
use master::store::{self, Commit, Options, Projection, Read, Store};
use shared::check::{Exit, State};
use shared::delivery::{BatchBuilder, BatchHeader, Key};
use shared::message::{self, ToMaster};
use shared::name::{
    CheckId, Generation, Grant, JournalIndex, RunCounter, RunId, Sequence, Slot, SlotNumber, Term, Timeline,
};
use shared::result::CheckResult;
use shared::snapshot::{Said, StateTold};
use shared::state::{CheckState, Confirmation};
use shared::time::Timestamp;
use tests::wait::until;

use crate::fleet::{Master, catalog};

const PATIENCE: Duration = Duration::from_secs(30);

fn options() -> Options {
    Options { segment_bytes: 64 * 1024, ring_bytes: 64 * 1024, ..Options::default() }
}

fn reflects(history: &History, index: JournalIndex) {
    let reflected = history.reader().reflected();
    assert!(until(PATIENCE, || *reflected.borrow() >= index), "history stands at {}, not {index}", *reflected.borrow());
}

/// All events that a query gives, page by page.
fn all(reader: &HistoryReader, query: Query) -> Vec<Event> {
    try_all(reader, query).unwrap()
}

fn try_all(reader: &HistoryReader, mut query: Query) -> Result<Vec<Event>, String> {
    let mut events = Vec::new();
    loop {
        let page = reader.query(&query).map_err(|error| error.to_string())?;
        events.extend(page.items);
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => return Ok(events),
        }
    }
}

fn shown_as(events: &[Event]) -> String {
    serde_json::to_string(events).unwrap()
}

fn recorded(kinds: &[Kind]) -> Query {
    Query { kinds: kinds.iter().copied().collect(), order: Order::Recorded, limit: 997, ..Query::default() }
}

/// Run, sequence and check of every result that the journal says is logged; and how many changes it says.
fn journaled(store: &Store) -> (Vec<(RunId, u64, String)>, usize, usize) {
    let mut reader = store.reader(store.first()).unwrap();
    let (mut results, mut changes, mut gaps) = (Vec::new(), 0, 0);
    while let Some(read) = reader.next().unwrap() {
        let Read::Rows(rows) = read else { panic!("{read:?}") };
        for row in rows {
            let Entry::Batch(batch) = &row.entry else { continue };
            let (header, _) = shared::delivery::decode_header(&batch.bytes).unwrap();
            gaps += row.outcomes.gaps.len();
            for (verdict, item) in row.outcomes.verdicts.iter().zip(row.items()) {
                changes += usize::from(verdict.change.is_some());
                if let shared::delivery::BatchItem::Result(sequence, result) = item
                    && verdict.effect.is_logged()
                {
                    results.push((header.run, sequence.0, result.perfdata));
                }
            }
        }
    }
    (results, changes, gaps)
}

#[test]
fn history_holds_each_logged_result_once_and_every_change() {
    let directory = tempfile::tempdir().unwrap();
    let mut master = Master::new(store::open(directory.path(), options()).unwrap(), 31);
    let history = History::open(directory.path(), master.store.clone(), &master.published()).unwrap();
    for _ in 0..600 {
        for rows in master.step() {
            history.feed(&rows);
        }
    }
    reflects(&history, master.published().head);
    let reader = history.reader();
    let (results, changes, gaps) = journaled(&master.store);
    assert!(results.len() > 500 && changes > 50 && gaps > 10, "{} {changes} {gaps}", results.len());
    let events = all(&reader, recorded(&[Kind::Result]));
    let shown: Vec<_> = events
        .iter()
        .map(|event| match &event.detail {
            Detail::Result(result) => (result.run, result.sequence, result.perfdata.clone()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(shown == results, "{} results shown, {} journaled", shown.len(), results.len());
    assert!(events.iter().all(|event| event.host.is_some() && event.slot.is_some()));
    let ids: BTreeSet<_> = all(&reader, recorded(&[])).into_iter().map(|event| event.id).collect();
    assert_eq!(ids.len(), all(&reader, recorded(&[])).len(), "ids are unique over all kinds");
    let transitions = all(&reader, recorded(&[Kind::Transition]));
    let current =
        transitions.iter().filter(|event| matches!(&event.detail, Detail::Transition(it) if !it.late)).count();
    assert_eq!(current, changes);
    assert!(transitions.len() > current, "no late transition was seen");
    assert_eq!(all(&reader, recorded(&[Kind::Gap])).len(), gaps);
    for kind in [
        Kind::Claim,
        Kind::Fence,
        Kind::Presence,
        Kind::Activation,
        Kind::Grant,
        Kind::Refused,
        Kind::Genesis,
        Kind::Drained,
    ] {
        let found = all(&reader, recorded(&[kind]));
        assert!(!found.is_empty() && found.iter().all(|event| event.kind == kind), "{kind:?}");
    }
}

#[test]
fn history_that_was_deleted_damaged_or_foreign_is_the_same_again() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let mut master = Master::new(store::open(data, options()).unwrap(), 32);
    let history = History::open(data, master.store.clone(), &master.published()).unwrap();
    for step in 0..300 {
        for rows in master.step() {
            // Some never reach the thread: it reads them from the journal.
            if step % 7 != 0 {
                history.feed(&rows);
            }
        }
    }
    let expected: std::cell::RefCell<Option<String>> = std::cell::RefCell::default();
    let again = |what: &str, prepare: &dyn Fn(&Path)| {
        let file = data.join(FILE);
        prepare(&file);
        let history = History::open(data, master.store.clone(), &master.published()).unwrap();
        let mut shown = String::new();
        // Damage that only a reader comes upon is an error once; then the file is made anew.
        let same = until(PATIENCE, || {
            reflects(&history, master.published().head);
            shown = try_all(&history.reader(), recorded(&[])).map_or_else(|error| error, |events| shown_as(&events));
            expected.borrow().as_ref().is_none_or(|expected| *expected == shown)
        });
        assert!(same && shown.len() > 10_000, "{what}: {shown:.1000}");
        expected.replace(Some(shown));
    };
    reflects(&history, master.published().head);
    drop(history);
    again("as it was", &|_| {});
    again("deleted", &|file| {
        for ending in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{ending}", file.display()));
        }
    });
    again("damaged at its head", &|file| {
        let mut bytes = fs::read(file).unwrap();
        let end = bytes.len().min(8192);
        bytes[..end].fill(0xa5);
        fs::write(file, bytes).unwrap();
    });
    again("damaged in its middle", &|file| {
        let mut bytes = fs::read(file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..].fill(0xa5);
        fs::write(file, bytes).unwrap();
    });
    let foreign = tempfile::tempdir().unwrap();
    let mut other = Master::new(store::open(foreign.path(), options()).unwrap(), 99);
    let history = History::open(foreign.path(), other.store.clone(), &other.published()).unwrap();
    for _ in 0..900 {
        other.step().iter().for_each(|rows| history.feed(rows));
    }
    reflects(&history, other.published().head);
    drop(history);
    again("of a journal that is further", &|file| {
        let _ = fs::copy(foreign.path().join(FILE), file).unwrap();
    });
}

#[test]
fn filters_orders_and_pages_agree() {
    let directory = tempfile::tempdir().unwrap();
    let mut master = Master::new(store::open(directory.path(), options()).unwrap(), 33);
    let history = History::open(directory.path(), master.store.clone(), &master.published()).unwrap();
    for _ in 0..300 {
        master.step().iter().for_each(|rows| history.feed(rows));
    }
    reflects(&history, master.published().head);
    let reader = history.reader();
    let whole = all(&reader, recorded(&[]));
    let times: Vec<_> = whole.iter().map(|event| event.time).collect();
    let (from, to) = (times[times.len() / 3], times[times.len() / 2]);
    type Fits<'a> = &'a dyn Fn(&Event) -> bool;
    let host = || Some("host1".to_owned());
    let queries: [(Query, Fits<'_>); 7] = [
        (Query::default(), &|_| true),
        (Query { host: host(), ..Query::default() }, &|event| event.host.as_deref() == Some("host1")),
        (Query { host: host(), service: Some("disk /".into()), ..Query::default() }, &|event| {
            event.host.as_deref() == Some("host1") && event.service.as_deref() == Some("disk /")
        }),
        (Query { host: host(), service: Some(String::new()), ..Query::default() }, &|event| {
            event.host.as_deref() == Some("host1") && event.service.is_none()
        }),
        (Query { from: Some(from), to: Some(to), ..Query::default() }, &|event| event.time >= from && event.time < to),
        (recorded(&[Kind::Transition, Kind::Fence]), &|event| matches!(event.kind, Kind::Transition | Kind::Fence)),
        (Query { kinds: [Kind::Gap].into(), host: host(), ..Query::default() }, &|_| false),
    ];
    for (query, fits) in &queries {
        let expected: BTreeSet<_> = whole.iter().filter(|event| fits(event)).map(|event| event.id.clone()).collect();
        for order in [Order::NewestFirst, Order::OldestFirst, Order::Recorded] {
            let found = all(&reader, Query { order, limit: 7, ..query.clone() });
            let ids: BTreeSet<_> = found.iter().map(|event| event.id.clone()).collect();
            assert_eq!(ids.len(), found.len(), "{query:?}: nothing twice");
            assert!(ids == expected, "{query:?} {order:?}: {} found, {} expected", ids.len(), expected.len());
            let sorted = match order {
                Order::NewestFirst => found.is_sorted_by(|a, b| a.time >= b.time),
                Order::OldestFirst => found.is_sorted_by(|a, b| a.time <= b.time),
                Order::Recorded => found.is_sorted_by(|a, b| a.index <= b.index),
            };
            assert!(sorted, "{order:?}");
        }
        let page = reader.query(&Query { limit: 1, ..query.clone() }).unwrap();
        assert_eq!((page.total, page.total_exceeded), (expected.len() as u64, false), "{query:?}");
    }
}

#[test]
fn results_beyond_number_and_age_are_forgotten_oldest_first() {
    let directory = tempfile::tempdir().unwrap();
    let mut master = Master::new(store::open(directory.path(), options()).unwrap(), 34);
    let kept = Kept { results: 200, results_age: Duration::from_secs(3600), events_age: Duration::from_secs(150) };
    let history = History::open_keeping(directory.path(), master.store.clone(), &master.published(), kept).unwrap();
    for _ in 0..400 {
        master.step().iter().for_each(|rows| history.feed(rows));
    }
    reflects(&history, master.published().head);
    let reader = history.reader();
    let count = |kind| reader.query(&Query { kinds: [kind].into(), ..Query::default() }).unwrap().total;
    let (results, _, _) = journaled(&master.store);
    assert!(until(PATIENCE, || count(Kind::Result) == 200), "{} results are kept", count(Kind::Result));
    let shown = all(&reader, recorded(&[Kind::Result]));
    let newest = &results[results.len() - 200..];
    assert!(shown.iter().zip(newest).all(|(event, (run, sequence, _))| {
        matches!(&event.detail, Detail::Result(result) if result.run == *run && result.sequence == *sequence)
    }));
    // A step is a second: 150 of 400 are left.
    let oldest = || {
        all(&reader, recorded(&[])).iter().filter(|event| event.kind != Kind::Result).map(|event| event.recorded).min()
    };
    let limit = master.fleet.at().minus(Duration::from_secs(160));
    assert!(until(PATIENCE, || oldest() > Some(limit)), "{:?}", oldest());
    assert_eq!(count(Kind::Genesis), 0);
}

#[test]
fn a_journal_trimmed_under_a_deleted_history_leaves_a_named_hole() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let mut master = Master::new(store::open(data, options()).unwrap(), 35);
    for _ in 0..3 {
        for _ in 0..400 {
            master.step();
        }
        let head = master.checkpoint();
        // As if history had been there and is deleted now.
        master.store.reached(Projection::History, head);
        master.store.trim(master.fleet.at());
        assert!(until(PATIENCE, || !master.store.is_trimming()), "the trim does not end");
        while master.step().is_empty() {}
    }
    let first = master.store.first();
    assert!(first > JournalIndex(1), "nothing was trimmed");
    let history = History::open(data, master.store.clone(), &master.published()).unwrap();
    reflects(&history, master.published().head);
    let reader = history.reader();
    let holes = all(&reader, recorded(&[Kind::Damage]));
    assert_eq!(holes.len(), 1);
    let Detail::Other(detail) = &holes[0].detail else { panic!("{holes:?}") };
    assert_eq!((detail["after"].as_u64(), detail["before"].as_u64()), (Some(0), Some(first.0)), "{detail:?}");
    let results = all(&reader, recorded(&[Kind::Result]));
    assert_eq!(results.len(), journaled(&master.store).0.len());
    assert!(results.iter().all(|event| event.host.is_some()), "names are known although their rows are gone");
}

/// One result at a second, with the state after it.
fn result_at(second: i64, before: CheckState, state: State) -> CheckResult {
    let at = Timestamp::from_millis(1_790_000_000_000 + second * 1000);
    CheckResult {
        check: CheckId(1),
        grant: Grant(2),
        scheduled: at,
        started: at,
        duration_us: 0,
        exit: Some(Exit::Ran(i32::from(state.number()))),
        passive: false,
        output: format!("{state} at {second}"),
        long_output: String::new(),
        perfdata: String::new(),
        metrics: Vec::new(),
        authenticated: None,
        after: before.apply(state, Confirmation { max_attempts: 1 }, at).0,
        command: None,
        offset_ms: None,
    }
}

/// When these rows became durable.
const RECORDED: Timestamp = Timestamp::from_millis(1_790_000_200_000);

fn the_slot() -> Slot {
    Slot { region: "eu".parse().unwrap(), number: SlotNumber::new(1).unwrap() }
}

fn batch_of(counter: u64, results: &[CheckResult]) -> Entry {
    let mut builder = BatchBuilder::default();
    results.iter().for_each(|result| builder.push(result));
    let header = BatchHeader {
        timeline: Timeline(42),
        generation: Generation(1),
        run: RunId([counter as u8; 16]),
        counter: RunCounter(counter),
        first: Sequence(1),
        last: Sequence(results.len() as u64),
    };
    Entry::Batch(Batch { slot: the_slot(), bytes: builder.finish(&header) })
}

fn verdicts(effect: Effect, count: usize) -> Outcomes {
    Outcomes { verdicts: vec![Verdict { effect, change: None }; count], ..Outcomes::default() }
}

/// History's transitions after each of these rows, which follow those that make a store and name check 1.
fn transitions_of(entries: Vec<(Entry, Outcomes)>) -> Vec<Vec<String>> {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = store::open(directory.path(), options()).unwrap();
    let store = opened.store.clone();
    let history = History::open(directory.path(), store.clone(), &opened.status).unwrap();
    let catalog = catalog(1);
    store.keep_revision(&catalog).unwrap();
    let named = catalog.objects.keys().take(1).map(|object| Named { id: CheckId(1), object: object.clone() }).collect();
    let genesis = Genesis { installation: "test".parse().unwrap(), timeline: Timeline(42), first_check: CheckId(1) };
    let digest = catalog.digest.to_string();
    let activate = Activate { generation: Generation(1), digest, author: "test".into() };
    let first = [
        (Entry::Genesis(genesis), Outcomes::default()),
        (Entry::Activate(activate), Outcomes { named, ..Outcomes::default() }),
    ];
    let mut shown = Vec::new();
    for (index, (entry, outcomes)) in (1..).zip(first.into_iter().chain(entries)) {
        let row = Row { index: JournalIndex(index), term: Term(1), at: RECORDED, entry, outcomes };
        let commit = Commit { record: master::entry::encode(std::slice::from_ref(&row)), last: row.index };
        store.append(commit).unwrap();
        assert!(matches!(opened.done.blocking_recv(), Some(store::Done::Committed { .. })));
        reflects(&history, row.index);
        let query = Query { kinds: [Kind::Transition].into(), order: Order::OldestFirst, ..Query::default() };
        shown.push(all(&history.reader(), query).iter().map(transition_text).collect());
    }
    shown.split_off(2)
}

fn transition_text(event: &Event) -> String {
    let second = |at: Timestamp| at.as_seconds() - 1_790_000_000;
    let Detail::Transition(it) = &event.detail else { panic!("{event:?}") };
    assert_eq!(event.recorded, RECORDED);
    let late = if it.late { " late" } else { "" };
    let hard = if it.hard { " hard" } else { "" };
    let between = match (it.snapshot, it.not_before) {
        (false, None) => String::new(),
        (true, Some(after)) => format!(" told, after {}", second(after)),
        (true, None) => " told".to_owned(),
        other => panic!("{other:?}"),
    };
    format!("{} {}→{}{late}{hard}{between}: {}", second(event.time), it.from_state, it.state, it.output)
}

#[test]
fn late_results_bring_their_transitions_at_their_true_times() {
    let good = result_at(10, CheckState::pending(1), State::Ok);
    let down = result_at(20, good.after, State::Critical);
    let back = result_at(30, down.after, State::Ok);
    let now = result_at(100, back.after, State::Ok);
    let shown = transitions_of(vec![
        (batch_of(2, &[now]), verdicts(Effect::Current, 1)),
        (batch_of(1, &[good, down, back]), verdicts(Effect::Late, 3)),
    ]);
    assert_eq!(shown[1], ["20 OK→CRITICAL late hard: CRITICAL at 20", "30 CRITICAL→OK late hard: OK at 30"]);
}

#[test]
fn what_a_slot_saw_of_a_check_that_has_moved_is_a_result_and_no_transition() {
    let good = result_at(10, CheckState::pending(1), State::Ok);
    let down = result_at(20, good.after, State::Critical);
    let shown = transitions_of(vec![
        (batch_of(2, &[good]), verdicts(Effect::Current, 1)),
        (batch_of(1, &[down]), verdicts(Effect::Observed, 1)),
    ]);
    assert_eq!(shown[1], [""; 0]);
}

/// A frame that tells the state after a result, and what was made of it.
fn told(result: &CheckResult, before: &CheckResult) -> (Entry, Outcomes) {
    let key = Key { grant: Grant(2), counter: RunCounter(1), sequence: Sequence(9) };
    let said = Some(Said::of(result));
    let state = StateTold { check: CheckId(1), key, state: result.after, said, command: None };
    let bytes = message::encode(&[ToMaster::State(Box::new(state))]).remove(0);
    let change = Change {
        from: before.after.state,
        from_type: before.after.state_type,
        to: result.after.state,
        to_type: result.after.state_type,
        hard: true,
        current: true,
        not_before: Some(before.ended()),
    };
    let verdicts = vec![Verdict { effect: Effect::Current, change: Some(change) }];
    (Entry::Snapshot(Snapshot { slot: the_slot(), bytes }), Outcomes { verdicts, ..Outcomes::default() })
}

#[test]
fn what_a_snapshot_told_gives_way_to_the_moment_it_came_about() {
    let good = result_at(10, CheckState::pending(1), State::Ok);
    let still = result_at(20, good.after, State::Ok);
    let down = result_at(30, still.after, State::Critical);
    let newest = result_at(40, down.after, State::Critical);
    let after = result_at(50, newest.after, State::Critical);
    let shown = transitions_of(vec![
        (batch_of(1, std::slice::from_ref(&good)), verdicts(Effect::Current, 1)),
        told(&newest, &good),
        (batch_of(2, &[after]), verdicts(Effect::Current, 1)),
        (batch_of(3, &[still]), verdicts(Effect::Late, 1)),
        (batch_of(4, &[down]), verdicts(Effect::Late, 1)),
        (batch_of(5, &[newest]), verdicts(Effect::Late, 1)),
    ]);
    let between = "40 OK→CRITICAL hard told, after 10: CRITICAL at 40".to_owned();
    let truly = "30 OK→CRITICAL late hard: CRITICAL at 30".to_owned();
    assert_eq!(shown[1..4], [vec![between.clone()], vec![between.clone()], vec![between]]);
    assert_eq!(shown[4..], [vec![truly.clone()], vec![truly]]);
}

#[test]
fn what_a_snapshot_told_of_a_change_and_back_goes_with_its_own_result() {
    let bad = result_at(10, CheckState::pending(1), State::Warning);
    let worse = result_at(20, bad.after, State::Critical);
    let newest = result_at(30, worse.after, State::Ok);
    let shown = transitions_of(vec![
        // The result of second 10 is forgotten: only the snapshot knows what was before.
        told(&newest, &bad),
        (batch_of(3, &[worse]), verdicts(Effect::Late, 1)),
        (batch_of(4, &[newest]), verdicts(Effect::Late, 1)),
    ]);
    let between = "30 WARNING→OK hard told, after 10: OK at 30";
    assert_eq!(shown[0], [between]);
    assert_eq!(shown[1], ["20 WARNING→CRITICAL late hard: CRITICAL at 20", between]);
    assert_eq!(shown[2], ["20 WARNING→CRITICAL late hard: CRITICAL at 20", "30 CRITICAL→OK late hard: OK at 30"]);
}
