//! A brain with a disk and probes of a few lines each, that obey at once or when they are told to. Whatever the brain sends on a lane
//! is checked against what is durable at that moment.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use shared::assignment::{AssignedCheck, Assignment, Carried, Policy};
use shared::check::{Check, Exit, Outcome, State, TcpCheck};
use shared::delivery::{BatchItem, decode_header, decode_items};
use shared::frame::Lane;
use shared::message::{self, Hello, RunPosition, ToMaster, ToSatellite, Welcome};
use shared::name::{
    CheckId, Generation, Grant, InstanceId, RunCounter, RunId, Sequence, Slot, SlotNumber, Term, Timeline,
};
use shared::result::CheckResult;
use shared::time::{Monotonic, Timestamp};

use crate::clock::Now;
use crate::command::{Beginning, Command, FoundRun, Identity, Kept, KeptStates, ProbeId, ReadBatches, SpooledBatch};
use crate::scheduler::Scheduler;

pub(super) const START: i64 = 1_790_000_000_000;
pub(super) const TIMELINE: Timeline = Timeline(77);

pub(super) fn check(id: u32) -> AssignedCheck {
    AssignedCheck {
        id: CheckId(id),
        object: format!("host{id}!port").parse().unwrap(),
        check: Some(Check::Tcp(TcpCheck::port("127.0.0.1", 80))),
        policy: Policy { check_interval_ms: 60_000, retry_interval_ms: 15_000, timeout_ms: 10_000, max_attempts: 3 },
        grant: Grant(5),
        carried: None,
    }
}

pub(super) fn assignment(generation: u64, checks: &[AssignedCheck]) -> Assignment {
    Assignment { generation: Generation(generation), checks: checks.iter().map(|c| (c.id, c.clone())).collect() }
}

pub(super) fn outcome(now: Now, state: State) -> Outcome {
    Outcome::text(now.wall, Duration::from_millis(3), Exit::Ran(i32::from(state.number())), state, "said".into())
}

pub(super) fn identity() -> Identity {
    Identity {
        installation: "acme".parse().unwrap(),
        slot: Slot { region: "eu".parse().unwrap(), number: SlotNumber::new(1).unwrap() },
        instance: InstanceId([7; 16]),
        software: "0.1.0".into(),
    }
}

/// One run in a disk of memory.
#[derive(Debug, Default, Clone)]
pub(super) struct DiskRun {
    pub(super) counter: RunCounter,
    pub(super) batches: Vec<SpooledBatch>,
    pub(super) last: Sequence,
}

/// A volume that obeys, or not, when it is told to.
#[derive(Debug, Default)]
pub(super) struct Disk {
    pub(super) runs: BTreeMap<RunId, DiskRun>,
    pub(super) counter: u64,
    pub(super) kept: Option<Kept>,
    pub(super) states: KeptStates,
    pub(super) appends: usize,
}

impl Disk {
    pub(super) fn open(&mut self) -> FoundRun {
        self.counter += 1;
        let mut run = RunId([0xee; 16]);
        run.0[..8].copy_from_slice(&self.counter.to_be_bytes());
        let counter = RunCounter(self.counter);
        self.runs.insert(run, DiskRun { counter, ..DiskRun::default() });
        FoundRun { run, counter, first: Sequence(1), last: Sequence(0) }
    }

    pub(super) fn found(&self) -> Vec<FoundRun> {
        let found = |(run, held): (&RunId, &DiskRun)| FoundRun {
            run: *run,
            counter: held.counter,
            first: held.batches.first().map_or(Sequence(held.last.0 + 1), |batch| batch.first),
            last: held.last,
        };
        self.runs.iter().map(found).collect()
    }

    pub(super) fn read(&self, run: RunId, from: Sequence, bytes_max: usize, batches_max: usize) -> ReadBatches {
        let held = &self.runs[&run];
        let mut found = ReadBatches { through: held.last, ..ReadBatches::default() };
        let mut bytes = 0;
        for batch in held.batches.iter().filter(|batch| batch.last >= from) {
            if bytes >= bytes_max || found.batches.len() >= batches_max {
                found.through = found.batches.last().map_or(from, |last| decode_header(last).unwrap().0.last);
                break;
            }
            bytes += batch.bytes.len();
            found.batches.push(batch.bytes.clone());
        }
        found
    }

    /// The states as a start finds them: the file, and the spools over it.
    pub(super) fn fold(&self) -> KeptStates {
        let mut states = KeptStates { adoptions: 1, timeline: TIMELINE, ..self.states.clone() };
        for held in self.runs.values() {
            for batch in &held.batches {
                for (sequence, result) in results(&batch.bytes) {
                    states.take_result(held.counter, sequence, &result);
                }
            }
        }
        states
    }
}

pub(super) fn results(bytes: &[u8]) -> Vec<(Sequence, CheckResult)> {
    let (header, body) = decode_header(bytes).unwrap();
    let items = decode_items(&header, body).unwrap();
    items
        .into_iter()
        .filter_map(|item| match item {
            BatchItem::Result(sequence, result) => Some((sequence, *result)),
            _ => None,
        })
        .collect()
}

/// A brain with shells that do what the test says.
pub(super) struct World {
    pub(super) now: Now,
    pub(super) brain: Scheduler,
    pub(super) disk: Disk,
    /// Orders to the disk that it has not done.
    pub(super) orders: VecDeque<Command>,
    pub(super) probes: Vec<(ProbeId, AssignedCheck)>,
    pub(super) started: Vec<(Monotonic, CheckId)>,
    pub(super) sent: VecDeque<(Lane, Bytes)>,
    pub(super) said: VecDeque<ToMaster>,
    /// Whether the disk does what it is told at once.
    pub(super) obedient: bool,
}

impl World {
    pub(super) fn new() -> Self {
        Self::on(Disk::default(), Now { monotonic: Monotonic(0), wall: Timestamp::from_millis(START) }, false)
    }

    pub(super) fn on(mut disk: Disk, now: Now, neighbour: bool) -> Self {
        let earlier = disk.found();
        let states = disk.fold();
        let beginning = Beginning { open: disk.open(), earlier, kept: disk.kept.clone(), states, neighbour };
        let brain = Scheduler::new(identity(), beginning, now);
        Self {
            now,
            brain,
            disk,
            orders: VecDeque::new(),
            probes: Vec::new(),
            started: Vec::new(),
            sent: VecDeque::new(),
            said: VecDeque::new(),
            obedient: true,
        }
    }

    pub(super) fn assigned(checks: &[AssignedCheck]) -> Self {
        let mut world = Self::new();
        world.brain.handle_assignment(world.now, TIMELINE, CheckId(0), assignment(1, checks));
        world.settle();
        world
    }

    pub(super) fn pass(&mut self, duration: Duration) {
        self.now.monotonic = self.now.monotonic.plus(duration);
        self.now.wall = self.now.wall.plus(duration);
    }

    /// Carries orders out until there are none.
    pub(super) fn settle(&mut self) {
        loop {
            while let Some(command) = self.brain.poll_command() {
                self.carry(command);
            }
            if !self.obedient || !self.obey() {
                return;
            }
        }
    }

    pub(super) fn carry(&mut self, command: Command) {
        match command {
            Command::Probe { probe, check } => {
                self.started.push((self.now.monotonic, check.id));
                self.probes.push((probe, *check));
            }
            Command::Send { lane: Lane::Control, payload } => {
                self.said.extend(message::decode::<ToMaster>(&payload).unwrap());
            }
            Command::Send { lane, payload } => {
                let (header, _) = decode_header(&payload).unwrap();
                let held = self.disk.runs.get(&header.run).expect("sent from a run that is on the disk");
                assert!(header.last <= held.last, "sent before it was durable: {header:?}");
                self.sent.push_back((lane, payload));
            }
            order => self.orders.push_back(order),
        }
    }

    /// The disk does the oldest order.
    pub(super) fn obey(&mut self) -> bool {
        let Some(order) = self.orders.pop_front() else { return false };
        let now = self.now;
        match order {
            Command::OpenRun => {
                let found = self.disk.open();
                self.brain.handle_opened(now, found.run, found.counter);
            }
            Command::Append { run, batches } => {
                self.disk.appends += 1;
                let held = self.disk.runs.get_mut(&run).unwrap();
                for batch in batches {
                    assert_eq!(batch.first.0, held.last.0 + 1, "sequences on disk are dense");
                    held.last = batch.last;
                    held.batches.push(batch);
                }
                let last = held.last;
                self.brain.handle_appended(now, run, last);
            }
            Command::Read { read, run, from, bytes_max, batches_max } => {
                let found = self.disk.read(run, from, bytes_max, batches_max);
                self.brain.handle_read(now, read, &found);
            }
            Command::Trim { run, up_to } => {
                self.disk.runs.get_mut(&run).unwrap().batches.retain(|batch| batch.last > up_to);
            }
            Command::CloseRun(run) => assert!(self.disk.runs.remove(&run).is_some()),
            Command::Keep(kept) => {
                self.disk.kept = Some(*kept);
                self.brain.handle_kept(now);
            }
            Command::KeepStates(states) => {
                self.disk.states = *states;
                self.brain.handle_states_kept(now);
            }
            Command::Measure | Command::GiveUp { .. } => unreachable!("this disk has room for everything"),
            Command::Probe { .. } | Command::Send { .. } => unreachable!("not for the disk"),
        }
        true
    }

    pub(super) fn answer(&mut self, state: State) {
        for (probe, _) in std::mem::take(&mut self.probes) {
            self.brain.handle_outcome(self.now, probe, outcome(self.now, state));
        }
        self.settle();
    }

    /// Lets time pass from deadline to deadline; `state` of a check is what its probe finds.
    pub(super) fn run_for(&mut self, duration: Duration, state: impl Fn(CheckId) -> State) {
        self.run_with(duration, |now, check| outcome(now, state(check.id)));
    }

    /// The same with whole outcomes.
    pub(super) fn run_with(&mut self, duration: Duration, found: impl Fn(Now, &AssignedCheck) -> Outcome) {
        let end = self.now.monotonic.plus(duration);
        loop {
            self.settle();
            for (probe, check) in std::mem::take(&mut self.probes) {
                self.brain.handle_outcome(self.now, probe, found(self.now, &check));
            }
            self.settle();
            match self.brain.poll_timeout().filter(|at| *at <= end) {
                Some(at) => self.pass(at.since(self.now.monotonic)),
                None => break,
            }
            self.brain.handle_timeout(self.now);
        }
        self.pass(end.since(self.now.monotonic));
    }

    pub(super) fn connect(&mut self, holder: bool, positions: &[RunPosition]) -> Hello {
        self.brain.handle_connected(self.now);
        self.settle();
        let hello = self.said.drain(..).find_map(|said| match said {
            ToMaster::Hello(hello) => Some(*hello),
            _ => None,
        });
        self.hear(ToSatellite::Welcome(Box::new(welcome(self.now.wall, holder, positions))));
        hello.expect("hello is the first word")
    }

    pub(super) fn hear(&mut self, message: ToSatellite) {
        self.brain.handle_message(self.now, message);
        self.settle();
    }

    pub(super) fn open_run(&self) -> RunId {
        self.disk.runs.iter().max_by_key(|(_, held)| held.counter).map(|(run, _)| *run).unwrap()
    }

    pub(super) fn state(&self, id: u32) -> Carried {
        self.brain.roster.states()[&CheckId(id)]
    }
}

pub(super) fn welcome(clock: Timestamp, holder: bool, positions: &[RunPosition]) -> Welcome {
    Welcome {
        protocol: message::PROTOCOL,
        software: "0.1.0".into(),
        installation: "acme".parse().unwrap(),
        term: Term(1),
        timeline: TIMELINE,
        first_check: CheckId(0),
        holder,
        positions: positions.to_vec(),
        clock,
        credit: None,
    }
}
