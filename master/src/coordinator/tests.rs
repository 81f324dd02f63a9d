//! The brain as a protocol transcript: what goes in, what comes out, and never before it is durable.

mod bygone;
mod commands;
mod holders;
mod slots;
mod states;
mod stranded;
mod timeline;

use std::collections::BTreeMap;
use std::sync::Arc;

use shared::assignment::Policy;
use shared::check::{Check, Exit, State, TcpCheck};
use shared::delivery::{BatchBuilder, BatchHeader};
use shared::message::{Heartbeat, HeldRun};
use shared::name::{Generation, Grant, HostName, InstanceId, ObjectName, RegionName, RunCounter, Sequence, SlotNumber};
use shared::result::CheckResult;
use shared::state::{CheckState, Confirmation};

use shared::message::{Hello, Welcome};

use super::*;
use crate::config::{CheckDefinition, Host, Region, Vars};
use crate::entry::{self, Effect, Row};
use crate::fleet::LEASE;

const AT: Timestamp = Timestamp::from_millis(1_790_000_000_000);

fn seconds(seconds: u64) -> Monotonic {
    Monotonic(seconds * 1_000_000_000)
}

fn slot(region: &str, number: u32) -> Slot {
    Slot { region: region.parse().unwrap(), number: SlotNumber::new(number).unwrap() }
}

fn definition(port: u16) -> CheckDefinition {
    CheckDefinition {
        check: Check::Tcp(TcpCheck::port("127.0.0.1", port)),
        policy: Policy { check_interval_ms: 60_000, retry_interval_ms: 15_000, timeout_ms: 10_000, max_attempts: 3 },
        command_name: "tcp".into(),
        region: "eu".parse().unwrap(),
    }
}

/// A catalog of one region with `hosts` hosts and one service on each.
fn catalog(hosts: u32, port: u16) -> Arc<Catalog> {
    let region: RegionName = "eu".parse().unwrap();
    let mut host_map = BTreeMap::new();
    let mut objects = BTreeMap::new();
    for number in 1..=hosts {
        let host: HostName = format!("host{number}").parse().unwrap();
        host_map.insert(
            host.clone(),
            Host {
                region: region.clone(),
                address: "127.0.0.1".into(),
                groups: Default::default(),
                vars: Vars::default(),
            },
        );
        objects.insert(ObjectName::host(host.clone()), definition(port));
        objects.insert(ObjectName::service(host, "load".parse().unwrap()), definition(port));
    }
    let regions = BTreeMap::from([(region, Region { slots: 3, join: Vec::new(), failover_after_ms: 60_000 })]);
    Arc::new(Catalog::new(regions, host_map, objects, Vec::new()))
}

/// A coordinator with its commands drained, and everything that became durable.
struct Bench {
    coordinator: Coordinator,
    /// What the disk holds.
    journal: Vec<Row>,
    sent: Vec<(ConnectionId, ToSatellite)>,
    closed: Vec<(ConnectionId, Cut)>,
    answers: Vec<Activation>,
    obeyed: Vec<Obeyed>,
    noted: Vec<bool>,
    commanded: Vec<Commanding>,
    waiting: Option<Vec<u8>>,
}

impl Bench {
    fn new() -> Self {
        Self::resuming(Status::new(), Vec::new())
    }

    /// Goes on from a state, and the journal that adds up to it.
    fn resuming(status: Status, journal: Vec<Row>) -> Self {
        let identity = Identity { installation: "test".parse().unwrap(), software: "0".into() };
        let coordinator = Coordinator::new(identity, status, Timeline(42), seconds(0), AT);
        let mut bench = Self {
            coordinator,
            journal,
            sent: Vec::new(),
            closed: Vec::new(),
            answers: Vec::new(),
            obeyed: Vec::new(),
            noted: Vec::new(),
            commanded: Vec::new(),
            waiting: None,
        };
        bench.settle();
        bench
    }

    /// Does what the coordinator says, short of ending a commit.
    fn drain(&mut self) {
        while let Some(command) = self.coordinator.poll_command(seconds(0)) {
            match command {
                Command::Commit { record, .. } => {
                    assert!(self.waiting.is_none(), "one commit at a time");
                    self.waiting = Some(record);
                }
                Command::Send { connection, payload } => {
                    self.sent
                        .extend(message::decode(&payload).unwrap().into_iter().map(|message| (connection, message)));
                }
                Command::Close { connection, cut } => self.closed.push((connection, cut)),
                Command::Answer { activation, .. } => self.answers.push(activation),
                Command::Obeyed { obeyed, .. } => self.obeyed.push(obeyed),
                Command::Noted { durable, .. } => self.noted.push(durable),
                Command::Commanded { commanding, .. } => self.commanded.push(commanding),
                Command::Published(rows) => {
                    assert!(rows.iter().all(|row| self.journal.contains(row)), "published before durable")
                }
                Command::Show(view) => {
                    assert!(
                        view.status.head <= self.journal.last().map_or(JournalIndex(0), |row| row.index),
                        "shown before durable"
                    );
                }
            }
        }
    }

    /// Ends the commit that runs.
    fn commit(&mut self) {
        self.drain();
        if let Some(record) = self.waiting.take() {
            self.journal.extend(entry::decode(&record).unwrap());
            self.coordinator.handle_committed(AT);
        }
        self.drain();
    }

    fn settle(&mut self) {
        self.drain();
        while self.waiting.is_some() {
            self.commit();
        }
    }

    fn connect(&mut self, id: u64, slot: Slot, instance: u8, runs: Vec<HeldRun>, now: Monotonic) {
        self.coordinator.handle_connected(ConnectionId(id), slot, "192.0.2.1:1".into(), now);
        let hello = Hello {
            protocol: message::PROTOCOL,
            software: "0".into(),
            instance: InstanceId([instance; 16]),
            fenced: false,
            timeline: None,
            grant: Grant(0),
            generation: Generation(0),
            check: CheckId(0),
            runs,
            clock: AT,
            tells_states: true,
            credit: true,
        };
        self.control(id, &[ToMaster::Hello(Box::new(hello))], now);
    }

    fn control(&mut self, id: u64, messages: &[ToMaster], now: Monotonic) {
        for payload in message::encode(messages) {
            self.coordinator.handle_control(ConnectionId(id), &payload, now, AT);
        }
    }

    fn batch(&mut self, id: u64, bytes: Vec<u8>) {
        self.coordinator.handle_batch(ConnectionId(id), Lane::Live, bytes, seconds(1), AT);
    }

    fn activate(&mut self, catalog: &Arc<Catalog>) {
        self.coordinator.handle_activation(RequestId(1), catalog, "test", AT);
        self.settle();
    }

    fn acknowledged(&self) -> Vec<(u64, u64)> {
        let ack = |(id, message): &(ConnectionId, ToSatellite)| match message {
            ToSatellite::Ack(position) => Some((id.0, position.position.0)),
            _ => None,
        };
        self.sent.iter().filter_map(ack).collect()
    }

    fn welcome(&self, id: u64) -> Option<&Welcome> {
        self.sent.iter().rev().find_map(|(to, message)| match message {
            ToSatellite::Welcome(welcome) if to.0 == id => Some(welcome.as_ref()),
            _ => None,
        })
    }

    fn upserts(&self, id: u64) -> usize {
        self.sent
            .iter()
            .filter(|(to, message)| to.0 == id && matches!(message, ToSatellite::AssignmentUpsert(_)))
            .count()
    }

    fn object(&self, name: &str) -> &crate::status::Object {
        let status = self.coordinator.published();
        status.object(status.id(&name.parse().unwrap()).unwrap()).unwrap()
    }

    /// Everything durable, folded anew, gives the same bytes.
    fn assert_replays(&self, catalogs: &[&Arc<Catalog>]) {
        let mut status = Status::new();
        for row in &self.journal {
            let named = if let Entry::Activate(activate) = &row.entry {
                catalogs.iter().find(|catalog| catalog.digest.to_string() == activate.digest).copied()
            } else {
                None
            };
            status.fold(row, &row.items(), named);
        }
        assert_eq!(status.encode(), self.coordinator.published().encode());
        let decoded = Status::decode(&status.encode()).unwrap();
        assert_eq!(decoded.encode(), status.encode());
        let kept = waiting_as_kept(self.coordinator.published());
        assert_eq!((&waiting_as_kept(&status), &waiting_as_kept(&decoded)), (&kept, &kept));
    }
}

/// Which commands wait for whom, and how much they are in all, as the state keeps it beside them.
fn waiting_as_kept(status: &Status) -> ((usize, usize), BTreeMap<Option<Slot>, Vec<JournalIndex>>) {
    let owners = status.waited_for().cloned().map(Some).chain([None]);
    let of = |owner: Option<Slot>| {
        let waiting: Vec<_> = status.waiting_for(owner.as_ref()).map(|(index, _)| index).collect();
        assert_eq!(status.waiting_count(owner.as_ref()), waiting.len());
        (owner, waiting)
    };
    (status.waiting_in_all(), owners.map(of).collect())
}

/// A run that adds results and knows its own grants.
struct Teller {
    run: u8,
    next: u64,
}

impl Teller {
    fn tell(&mut self, results: &[(CheckId, Grant, State)]) -> Vec<u8> {
        self.tell_of(Timeline(42), results)
    }

    fn tell_of(&mut self, timeline: Timeline, results: &[(CheckId, Grant, State)]) -> Vec<u8> {
        let mut builder = BatchBuilder::default();
        for (check, grant, state) in results {
            let (after, _) = CheckState::pending(1).apply(*state, Confirmation { max_attempts: 1 }, AT);
            builder.push(&CheckResult {
                check: *check,
                grant: *grant,
                scheduled: AT,
                started: AT,
                duration_us: 1000,
                exit: Some(Exit::Ran(0)),
                passive: false,
                output: format!("{state}"),
                long_output: String::new(),
                perfdata: String::new(),
                metrics: Vec::new(),
                authenticated: None,
                after,
                command: None,
                offset_ms: None,
            });
        }
        let first = self.next;
        self.next += u64::try_from(results.len()).unwrap();
        builder.finish(&BatchHeader {
            timeline,
            generation: Generation(1),
            run: RunId([self.run; 16]),
            counter: RunCounter(u64::from(self.run)),
            first: Sequence(first),
            last: Sequence(self.next - 1),
        })
    }
}

/// A bench whose slot eu/1 owns two hosts.
fn with_one_slot() -> (Bench, Arc<Catalog>, Teller) {
    let mut bench = Bench::new();
    let catalog = catalog(2, 80);
    bench.activate(&catalog);
    bench.connect(1, slot("eu", 1), 1, Vec::new(), seconds(1));
    bench.settle();
    (bench, catalog, Teller { run: 1, next: 1 })
}

fn owned(bench: &Bench, name: &str) -> (CheckId, Grant) {
    let object = bench.object(name);
    (object.id, object.owner.as_ref().unwrap().grant)
}

#[test]
fn nothing_is_said_before_the_claim_is_durable() {
    let mut bench = Bench::new();
    bench.activate(&catalog(2, 80));
    bench.connect(1, slot("eu", 1), 1, Vec::new(), seconds(1));
    bench.drain();
    assert!(bench.sent.is_empty());
    bench.settle();
    assert!(bench.welcome(1).unwrap().holder);
    assert_eq!(bench.upserts(1), 4);
}

#[test]
fn results_are_acknowledged_only_after_their_commit() {
    let (mut bench, catalog, mut teller) = with_one_slot();
    let (check, grant) = owned(&bench, "host1!load");
    bench.batch(1, teller.tell(&[(check, grant, State::Critical)]));
    bench.drain();
    assert_eq!(bench.acknowledged(), []);
    assert_eq!(bench.object("host1!load").state.state, State::Pending);
    bench.commit();
    assert_eq!(bench.acknowledged(), [(1, 1)]);
    assert_eq!(bench.object("host1!load").state.state, State::Critical);
    bench.assert_replays(&[&catalog]);
}

#[test]
fn a_batch_sent_twice_has_its_effect_once() {
    let (mut bench, catalog, mut teller) = with_one_slot();
    let (check, grant) = owned(&bench, "host1!load");
    let batch = teller.tell(&[(check, grant, State::Critical)]);
    bench.batch(1, batch.clone());
    bench.drain();
    // Again while the first is still on its way to disk: known, but not acknowledged before it is durable.
    bench.batch(1, batch.clone());
    bench.drain();
    assert_eq!(bench.acknowledged(), []);
    bench.settle();
    bench.batch(1, batch);
    bench.settle();
    assert_eq!(bench.acknowledged(), [(1, 1), (1, 1)]);
    assert_eq!(bench.coordinator.published().slots()[&slot("eu", 1)].results, 1);
    bench.assert_replays(&[&catalog]);
}

#[test]
fn results_for_a_check_never_owned_are_refused_and_counted_and_cost_the_others_nothing() {
    let mut bench = Bench::new();
    let catalog = catalog(6, 80);
    bench.activate(&catalog);
    bench.connect(1, slot("eu", 1), 1, Vec::new(), seconds(1));
    bench.settle();
    bench.connect(2, slot("eu", 2), 2, Vec::new(), seconds(1));
    bench.settle();
    let object = |bench: &Bench, number: u32| {
        let status = bench.coordinator.published();
        let mut services = status.objects().filter(|object| !object.name.is_host());
        let object = services.find(|object| object.owner.as_ref().unwrap().slot == slot("eu", number)).unwrap();
        (object.id, object.owner.as_ref().unwrap().grant, object.name.clone())
    };
    let (own, own_grant, _) = object(&bench, 1);
    // The other slot never owned a check of the first one under that grant, nor a check that does not exist.
    let (foreign, foreign_grant, name) = object(&bench, 2);
    let mut teller = Teller { run: 1, next: 1 };
    let results = [
        (foreign, foreign_grant, State::Critical),
        (CheckId(999), own_grant, State::Critical),
        (own, own_grant, State::Warning),
        (own, own_grant, State::Up),
    ];
    bench.batch(1, teller.tell(&results));
    bench.settle();
    let effects: Vec<Effect> =
        bench.journal.last().unwrap().outcomes.verdicts.iter().map(|verdict| verdict.effect).collect();
    assert_eq!(effects, [Effect::RefusedForeign, Effect::RefusedUnknown, Effect::Current, Effect::RefusedMalformed]);
    assert_eq!(bench.object(&name.to_string()).state.state, State::Pending);
    assert_eq!(bench.acknowledged(), [(1, 4)], "refused results occupy their sequences");
    let view = bench.coordinator.view(seconds(1));
    assert_eq!(view.refused, BTreeMap::from([("foreign-check", 1), ("unknown-check", 1), ("malformed", 1)]));
    assert_eq!(view.status.slots()[&slot("eu", 1)].refused, 3);
    bench.assert_replays(&[&catalog]);
}

#[test]
fn a_failed_commit_leaves_nothing_behind_and_satellites_send_again() {
    let (mut bench, catalog, mut teller) = with_one_slot();
    let (check, grant) = owned(&bench, "host1!load");
    let before = bench.coordinator.published().encode();
    let batch = teller.tell(&[(check, grant, State::Critical)]);
    bench.batch(1, batch.clone());
    bench.drain();
    bench.waiting = None;
    bench.coordinator.handle_commit_failed(seconds(2));
    bench.drain();
    assert_eq!(bench.acknowledged(), []);
    assert_eq!(bench.closed, [(ConnectionId(1), Cut::NotCommitted)]);
    assert_eq!(bench.coordinator.published().encode(), before);
    bench.connect(2, slot("eu", 1), 1, Vec::new(), seconds(4));
    bench.settle();
    bench.coordinator.handle_batch(ConnectionId(2), Lane::Live, batch, seconds(5), AT);
    bench.settle();
    assert_eq!(bench.acknowledged(), [(2, 1)]);
    bench.assert_replays(&[&catalog]);
}

#[test]
fn an_activation_tells_owners_only_what_changed() {
    let (mut bench, first, _) = with_one_slot();
    let grant = owned(&bench, "host1!load").1;
    bench.sent.clear();
    let mut changed = catalog(3, 80).as_ref().clone();
    changed.objects.insert("host2!load".parse().unwrap(), definition(81));
    changed.objects.remove(&"host2".parse::<ObjectName>().unwrap());
    let second = Arc::new(Catalog::new(changed.regions, changed.hosts, changed.objects, Vec::new()));
    bench.activate(&second);
    let said: Vec<String> = bench
        .sent
        .iter()
        .map(|(_, message)| match message {
            ToSatellite::AssignmentBegin(begin) => format!("begin {} {}", begin.generation, begin.whole),
            ToSatellite::AssignmentUpsert(check) => format!("upsert {}", check.object),
            ToSatellite::AssignmentRemove(id) => format!("remove {id}"),
            ToSatellite::AssignmentEnd(generation) => format!("end {generation}"),
            other => format!("{other:?}"),
        })
        .collect();
    let removed = bench.object("host2").id;
    let expected = [
        "begin 2 false".into(),
        format!("remove {removed}"),
        "upsert host2!load".into(),
        "upsert host3".into(),
        "upsert host3!load".into(),
        "end 2".into(),
    ];
    assert_eq!(said, expected);
    assert_eq!(owned(&bench, "host1!load").1, grant, "a grant survives a change that leaves the ownership alone");
    assert!(!bench.object("host2").configured);
    assert_eq!(bench.answers, [Activation::Activated(Generation(1)), Activation::Activated(Generation(2))]);
    bench.activate(&second);
    assert_eq!(bench.answers.last(), Some(&Activation::Unchanged(Generation(2))));
    bench.assert_replays(&[&first, &second]);
}

#[test]
fn an_activation_that_cannot_be_committed_leaves_the_old_generation() {
    let (mut bench, _, _) = with_one_slot();
    bench.coordinator.handle_activation(RequestId(9), &catalog(5, 80), "test", AT);
    bench.drain();
    bench.waiting = None;
    bench.coordinator.handle_commit_failed(seconds(2));
    bench.drain();
    assert_eq!(bench.answers.last(), Some(&Activation::NotCommitted));
    assert_eq!(bench.coordinator.published().generation, Generation(1));
}

#[test]
fn a_silent_slot_gives_its_hosts_to_the_others_and_gets_them_back_when_stable() {
    let mut bench = Bench::new();
    let catalog = catalog(20, 80);
    bench.activate(&catalog);
    for number in 1..=3 {
        bench.connect(u64::from(number), slot("eu", number), u8::try_from(number).unwrap(), Vec::new(), seconds(0));
        bench.settle();
    }
    let share = |bench: &Bench, number: u32| {
        let of = |object: &&Arc<crate::status::Object>| object.owner.as_ref().unwrap().slot == slot("eu", number);
        bench.coordinator.published().objects().filter(of).count()
    };
    let shares = [share(&bench, 1), share(&bench, 2), share(&bench, 3)];
    assert!(shares.iter().all(|share| *share > 0) && shares.iter().sum::<usize>() == 40, "{shares:?}");
    bench.coordinator.handle_disconnected(ConnectionId(3));
    let live = |bench: &mut Bench, second: u64| {
        for id in 1..=2 {
            bench.control(id, &[ToMaster::Heartbeat(Heartbeat::default())], seconds(second));
        }
        bench.coordinator.handle_timeout(seconds(second), AT);
        bench.settle();
    };
    (1..60).for_each(|second| live(&mut bench, second));
    assert_eq!(share(&bench, 3), shares[2]);
    live(&mut bench, 60);
    assert_eq!(share(&bench, 3), 0);
    bench.connect(4, slot("eu", 3), 3, Vec::new(), seconds(61));
    bench.settle();
    for second in 61..=181 {
        bench.control(4, &[ToMaster::Heartbeat(Heartbeat::default())], seconds(second));
        assert_eq!(share(&bench, 3), 0, "second {second}");
        live(&mut bench, second);
    }
    assert_eq!([share(&bench, 1), share(&bench, 2), share(&bench, 3)], shares);
    bench.assert_replays(&[&catalog]);
}

#[test]
fn a_master_cut_off_from_most_slots_moves_nothing() {
    let mut bench = Bench::new();
    let catalog = catalog(20, 80);
    bench.activate(&catalog);
    for number in 1..=3 {
        bench.connect(u64::from(number), slot("eu", number), u8::try_from(number).unwrap(), Vec::new(), seconds(0));
        bench.settle();
    }
    let before = bench.journal.len();
    for second in 1..200 {
        bench.control(1, &[ToMaster::Heartbeat(Heartbeat::default())], seconds(second));
        bench.coordinator.handle_timeout(seconds(second), AT.plus(Duration::from_secs(second)));
        bench.settle();
    }
    let rows = &bench.journal[before..];
    assert!(matches!(rows, [Row { entry: Entry::Incident(cut), .. }] if cut.open && cut.slots == 2), "{rows:?}");
    assert!(bench.coordinator.view(seconds(200)).held_off);
}

#[test]
fn a_run_that_is_complete_is_closed_and_its_batches_are_acknowledged_unread() {
    let (mut bench, catalog, mut teller) = with_one_slot();
    let (check, grant) = owned(&bench, "host1!load");
    let batch = teller.tell(&[(check, grant, State::Critical)]);
    bench.batch(1, batch.clone());
    bench.settle();
    let held =
        HeldRun { run: RunId([1; 16]), counter: RunCounter(1), first: Sequence(1), last: Sequence(1), open: false };
    bench.control(1, &[ToMaster::Held(held)], seconds(1));
    bench.settle();
    assert!(bench.sent.contains(&(ConnectionId(1), ToSatellite::CloseRun(RunId([1; 16])))));
    let rows = bench.journal.len();
    bench.batch(1, batch);
    bench.settle();
    assert_eq!((bench.journal.len(), bench.acknowledged().len()), (rows, 2));
    // Whoever said that it was complete worked on a copy of the volume. Where the run was made it went on.
    bench.connect(2, slot("eu", 1), 1, vec![HeldRun { last: Sequence(2), open: true, ..held }], seconds(2));
    bench.settle();
    assert_eq!(bench.welcome(2).unwrap().positions, [RunPosition { run: held.run, position: Sequence(1) }]);
    bench.batch(2, teller.tell(&[(check, grant, State::Ok)]));
    bench.settle();
    assert_eq!(bench.object("host1!load").state.state, State::Ok);
    assert_eq!(bench.coordinator.published().slots()[&slot("eu", 1)].runs[&held.run].drained, None);
    bench.assert_replays(&[&catalog]);
}

#[test]
fn sequences_that_never_came_are_a_gap_and_no_stall() {
    let (mut bench, catalog, mut teller) = with_one_slot();
    let (check, grant) = owned(&bench, "host1!load");
    teller.next = 5;
    bench.batch(1, teller.tell(&[(check, grant, State::Critical)]));
    bench.settle();
    let gaps = bench.coordinator.published().gaps().to_vec();
    assert_eq!(gaps.len(), 1);
    assert_eq!(
        (gaps[0].gap.record.first, gaps[0].gap.record.last, gaps[0].gap.explained),
        (Sequence(1), Sequence(4), false)
    );
    assert_eq!(bench.acknowledged(), [(1, 5)]);
    bench.assert_replays(&[&catalog]);
}

#[test]
fn bytes_that_make_no_sense_close_that_link_alone() {
    let (mut bench, _, _) = with_one_slot();
    bench.connect(2, slot("eu", 2), 2, Vec::new(), seconds(1));
    bench.settle();
    bench.coordinator.handle_control(ConnectionId(2), &[77], seconds(1), AT);
    bench.batch(1, vec![1, 2, 3]);
    bench.drain();
    assert!(bench.closed.iter().all(|(_, cut)| matches!(cut, Cut::Protocol(_))));
    assert_eq!(bench.closed.len(), 2);
}

#[test]
fn a_store_whose_first_commit_failed_begins_with_its_first_row_again() {
    let identity = Identity { installation: "test".parse().unwrap(), software: "0".into() };
    let mut coordinator = Coordinator::new(identity, Status::new(), Timeline(42), seconds(0), AT);
    let record = |coordinator: &mut Coordinator| loop {
        if let Some(Command::Commit { record, .. }) = coordinator.poll_command(seconds(2)) {
            break entry::decode(&record).unwrap();
        }
    };
    let first = record(&mut coordinator);
    coordinator.handle_commit_failed(seconds(0));
    coordinator.handle_activation(RequestId(1), &catalog(1, 80), "test", AT);
    let again = record(&mut coordinator);
    assert_eq!(again[0].entry, first[0].entry);
    assert!(matches!(again[0].entry, Entry::Genesis(_)) && matches!(again[1].entry, Entry::Activate(_)));
}
