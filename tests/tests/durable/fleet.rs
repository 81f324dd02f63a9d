//! A coordinator with satellites made up by dice: claims, fences, presence, activations, batches of every kind. Each step is a group
//! commit or nothing; the caller makes it durable. The same seed and state give the same rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use master::config::{Catalog, CheckDefinition, Host, Region, Vars};
use master::coordinator::{Command, Coordinator, Identity, RequestId};
use master::entry::Row;
use master::fleet::ConnectionId;
use master::status::Status;
use master::store::{Commit, Done, Opened, Store};
use shared::assignment::Policy;
use shared::check::{Check, Exit, State, TcpCheck};
use shared::delivery::{BatchBuilder, BatchHeader, GapRecord};
use shared::frame::Lane as Way;
use shared::message::{self, HeldRun, Hello, ToMaster};
use shared::name::{
    CheckId, Generation, Grant, HostName, InstanceId, JournalIndex, ObjectName, RegionName, RunCounter, RunId,
    Sequence, Slot, SlotNumber, Timeline,
};
use shared::result::CheckResult;
use shared::state::Confirmation;
use shared::time::{Monotonic, Timestamp};
use tokio::sync::mpsc::UnboundedReceiver;

const START: i64 = 1_790_000_000_000;

/// Dice that fall the same way for the same seed.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// 0 to `sides` − 1.
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }

    fn bytes(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes.fill_with(|| self.roll(256) as u8);
        bytes
    }
}

/// One satellite's link with the runs it delivers.
struct Lane {
    connection: ConnectionId,
    slot: Slot,
    /// Live, then backlog: run, counter, next sequence.
    runs: [(RunId, u64, u64); 2],
    last_batch: Vec<u8>,
}

/// A coordinator and what is connected to it.
pub(crate) struct Fleet {
    pub(crate) coordinator: Coordinator,
    dice: Dice,
    seconds: u64,
    next_connection: u64,
    lanes: Vec<Lane>,
    hosts: u64,
}

pub(crate) fn catalog(hosts: u64) -> Arc<Catalog> {
    let region: RegionName = "eu".parse().unwrap();
    let definition = || CheckDefinition {
        check: Check::Tcp(TcpCheck::port("127.0.0.1", 5666)),
        policy: Policy { check_interval_ms: 60_000, retry_interval_ms: 15_000, timeout_ms: 10_000, max_attempts: 3 },
        command_name: "tcp".into(),
        region: region.clone(),
    };
    let mut host_map = BTreeMap::new();
    let mut objects = BTreeMap::new();
    for number in 1..=hosts {
        let host: HostName = format!("host{number}").parse().unwrap();
        let groups = Default::default();
        let entry = Host { region: region.clone(), address: "127.0.0.1".into(), groups, vars: Vars::default() };
        host_map.insert(host.clone(), entry);
        objects.insert(ObjectName::host(host.clone()), definition());
        for service in ["load", "disk /"] {
            objects.insert(ObjectName::service(host.clone(), service.parse().unwrap()), definition());
        }
    }
    let regions = BTreeMap::from([(region.clone(), Region { slots: 2, join: Vec::new(), failover_after_ms: 60_000 })]);
    Arc::new(Catalog::new(regions, host_map, objects, Vec::new()))
}

impl Fleet {
    pub(crate) fn new(status: Status, seed: u64) -> Self {
        let identity = Identity { installation: "test".parse().unwrap(), software: "0".into() };
        // Time goes on where the journal is.
        let seconds = 10 + u64::try_from(status.at.as_millis().saturating_sub(START).max(0)).unwrap() / 1000;
        let hosts = status.catalog.as_ref().map_or(4, |catalog| catalog.hosts.len() as u64);
        let at = Timestamp::from_millis(START);
        let coordinator = Coordinator::new(identity, status, Timeline(42), Monotonic(0), at);
        Self { coordinator, dice: Dice::new(seed), seconds, next_connection: 1, lanes: Vec::new(), hosts }
    }

    pub(crate) fn at(&self) -> Timestamp {
        Timestamp::from_millis(START + i64::try_from(self.seconds).unwrap() * 1000)
    }

    fn now(&self) -> Monotonic {
        Monotonic(self.seconds * 1_000_000_000)
    }

    /// Lets something happen. New catalogs are kept in `store` first.
    pub(crate) fn step(&mut self, store: &Store) {
        self.seconds += 1;
        let (now, at) = (self.now(), self.at());
        if self.coordinator.published().catalog.is_none() || self.dice.roll(40) == 0 {
            self.hosts = 3 + self.dice.roll(6);
            self.activate(store, &catalog(self.hosts));
        } else if self.lanes.len() < 2 {
            self.connect(self.lanes.len() as u32 + 1);
        } else if self.dice.roll(50) == 0 {
            // Another process comes for a slot that is alive: the old one is fenced.
            let number = self.dice.roll(2) as u32 + 1;
            self.lanes.retain(|lane| lane.slot.number.get() != number);
            self.connect(number);
        } else if self.dice.roll(30) == 0 {
            self.drain();
        } else {
            self.batch();
        }
        self.coordinator.handle_timeout(now, at);
    }

    /// As an operator's `apply` does: what cannot be kept is not activated.
    pub(crate) fn activate(&mut self, store: &Store, catalog: &Arc<Catalog>) {
        if store.keep_revision(catalog).is_ok() {
            let at = self.at();
            self.coordinator.handle_activation(RequestId(self.seconds), catalog, "apply", at);
        }
    }

    /// A satellite that has delivered its backlog says so.
    fn drain(&mut self) {
        let (now, at) = (self.now(), self.at());
        let place = self.dice.roll(self.lanes.len() as u64) as usize;
        let fresh = RunId(self.dice.bytes());
        let lane = &mut self.lanes[place];
        let (run, counter, next) = lane.runs[1];
        lane.runs[1] = (fresh, counter, 1);
        lane.last_batch.clear();
        let (counter, last) = (RunCounter(counter), Sequence(next - 1));
        let held = HeldRun { run, counter, first: Sequence(next), last, open: false };
        for payload in message::encode(&[ToMaster::Held(held)]) {
            self.coordinator.handle_control(lane.connection, &payload, now, at);
        }
    }

    fn connect(&mut self, number: u32) {
        let (now, at) = (self.now(), self.at());
        let connection = ConnectionId(self.next_connection);
        self.next_connection += 1;
        let slot = Slot { region: "eu".parse().unwrap(), number: SlotNumber::new(number).unwrap() };
        let counter = self.seconds * 2;
        let runs = [(RunId(self.dice.bytes()), counter + 1, 1), (RunId(self.dice.bytes()), counter, 1)];
        self.coordinator.handle_connected(connection, slot.clone(), "192.0.2.1:7443".into(), now);
        let held = runs.map(|(run, counter, _)| HeldRun {
            run,
            counter: RunCounter(counter),
            first: Sequence(1),
            last: Sequence(u64::MAX),
            open: true,
        });
        let hello = Hello {
            protocol: message::PROTOCOL,
            software: "0.1".into(),
            instance: InstanceId(self.dice.bytes()),
            fenced: false,
            timeline: None,
            grant: Grant(0),
            generation: Generation(0),
            check: CheckId(0),
            runs: held.to_vec(),
            clock: at,
            tells_states: true,
            credit: false,
        };
        for payload in message::encode(&[ToMaster::Hello(Box::new(hello))]) {
            self.coordinator.handle_control(connection, &payload, now, at);
        }
        self.lanes.push(Lane { connection, slot, runs, last_batch: Vec::new() });
    }

    fn batch(&mut self) {
        let (now, at) = (self.now(), self.at());
        let status = Arc::clone(self.coordinator.published());
        let place = self.dice.roll(self.lanes.len() as u64) as usize;
        let lane = &mut self.lanes[place];
        if self.dice.roll(10) == 0 && !lane.last_batch.is_empty() {
            // Its acknowledgement was lost: it comes once more.
            let bytes = lane.last_batch.clone();
            return self.coordinator.handle_batch(lane.connection, Way::Live, bytes, now, at);
        }
        let backlog = self.dice.roll(5) == 0;
        let (run, counter, next) = &mut lane.runs[usize::from(backlog)];
        if self.dice.roll(20) == 0 {
            // Something between two batches is lost, and nobody says so.
            *next += 3;
        }
        let first = *next;
        let owned: Vec<_> = status
            .objects()
            .filter(|object| object.owner.as_ref().is_some_and(|owner| owner.slot == lane.slot))
            .cloned()
            .collect();
        let mut builder = BatchBuilder::default();
        for _ in 0..=self.dice.roll(8) {
            let grant = Grant(self.dice.roll(400));
            let object = (!owned.is_empty()).then(|| &owned[self.dice.roll(owned.len() as u64) as usize]);
            match (self.dice.roll(25), object) {
                (0, _) => {
                    let gap = GapRecord {
                        first: Sequence(*next),
                        last: Sequence(*next + 9),
                        reason: "spool-full".into(),
                        from: Some(at.minus(std::time::Duration::from_secs(60))),
                        to: Some(at),
                    };
                    builder.push_gap(&gap);
                    *next += 10;
                }
                (1, _) | (_, None) => {
                    builder.push(&result(
                        CheckId(self.dice.roll(40) as u32),
                        grant,
                        &status,
                        &mut self.dice,
                        at,
                        *next,
                    ));
                    *next += 1;
                }
                (_, Some(object)) => {
                    let grant = object.owner.as_ref().map_or(grant, |owner| owner.grant);
                    builder.push(&result(object.id, grant, &status, &mut self.dice, at, *next));
                    *next += 1;
                }
            }
        }
        let header = BatchHeader {
            timeline: status.timeline,
            generation: status.generation,
            run: *run,
            counter: RunCounter(*counter),
            first: Sequence(first),
            last: Sequence(*next - 1),
        };
        lane.last_batch = builder.finish(&header);
        self.coordinator.handle_batch(lane.connection, Way::Live, lane.last_batch.clone(), now, at);
    }

    /// The next commit that is wanted, and rows that were published meanwhile.
    pub(crate) fn poll(&mut self) -> (Option<Commit>, Vec<Arc<Vec<Row>>>) {
        let mut published = Vec::new();
        while let Some(command) = self.coordinator.poll_command(self.now()) {
            match command {
                Command::Commit { record, last, .. } => return (Some(Commit { record, last }), published),
                Command::Published(rows) => published.push(rows),
                Command::Show(_)
                | Command::Send { .. }
                | Command::Close { .. }
                | Command::Answer { .. }
                | Command::Obeyed { .. }
                | Command::Noted { .. }
                | Command::Commanded { .. } => {}
            }
        }
        (None, published)
    }
}

fn result(check: CheckId, grant: Grant, status: &Status, dice: &mut Dice, at: Timestamp, sequence: u64) -> CheckResult {
    let host = status.object(check).is_some_and(|object| object.name.is_host());
    let observed = match (dice.roll(4), host) {
        (0, true) => State::Down,
        (_, true) => State::Up,
        (0, false) => State::Critical,
        (1, false) => State::Warning,
        (_, false) => State::Ok,
    };
    let before = status.object(check).map_or(shared::state::CheckState::pending(3), |object| object.state);
    CheckResult {
        check,
        grant,
        scheduled: at,
        started: at,
        duration_us: 1500 + dice.roll(1000),
        exit: Some(Exit::Ran(i32::from(observed.number()))),
        passive: false,
        output: format!("{observed} - {}", "x".repeat(dice.roll(200) as usize)),
        long_output: String::new(),
        perfdata: format!("serial={sequence}"),
        metrics: Vec::new(),
        authenticated: Some(false),
        after: before.apply(observed, Confirmation { max_attempts: 3 }, at).0,
        command: None,
        offset_ms: None,
    }
}

/// A fleet on a store: the master in small.
pub(crate) struct Master {
    pub(crate) fleet: Fleet,
    pub(crate) store: Store,
    pub(crate) done: UnboundedReceiver<Done>,
    /// Commits that were refused by the disk.
    pub(crate) failed: Vec<String>,
}

impl Master {
    pub(crate) fn new(opened: Opened, seed: u64) -> Self {
        let Opened { store, status, done, .. } = opened;
        Self { fleet: Fleet::new(status, seed), store, done, failed: Vec::new() }
    }

    /// One step, its commits, and the rows they published.
    pub(crate) fn step(&mut self) -> Vec<Arc<Vec<Row>>> {
        self.fleet.step(&self.store);
        self.settle(|_, _| {})
    }

    /// Commits what there is to commit; `before` sees each commit before it is asked for.
    pub(crate) fn settle(&mut self, mut before: impl FnMut(&Self, &Commit)) -> Vec<Arc<Vec<Row>>> {
        let mut published = Vec::new();
        loop {
            let (commit, rows) = self.fleet.poll();
            published.extend(rows);
            let Some(commit) = commit else { return published };
            before(self, &commit);
            let asked = commit.last;
            self.store.append(commit).unwrap();
            match self.done.blocking_recv().expect("the writing thread ended") {
                Done::Committed { last } => {
                    assert_eq!(last, asked);
                    assert!(*self.store.published().borrow() >= last);
                    self.fleet.coordinator.handle_committed(self.fleet.at());
                }
                Done::Failed { last, error } => {
                    assert_eq!(last, asked);
                    self.failed.push(error.to_string());
                    self.fleet.lanes.clear();
                    self.fleet.coordinator.handle_commit_failed(self.fleet.now());
                }
            }
        }
    }

    /// The state as published.
    pub(crate) fn published(&self) -> Arc<Status> {
        Arc::clone(self.fleet.coordinator.published())
    }

    /// Writes a checkpoint and waits for it.
    pub(crate) fn checkpoint(&self) -> JournalIndex {
        let status = self.published();
        let head = status.head;
        self.store.checkpoint(status);
        let kept = self.store.checkpoints();
        let written = tests::wait::until(std::time::Duration::from_secs(20), || kept.borrow().last() == Some(&head));
        assert!(written, "no checkpoint at {head}");
        head
    }
}
