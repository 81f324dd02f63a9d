//! The brain on inputs made by hand, and with a disk, a prober and a master of a few lines each that break off at random. Time is a
//! number. Whatever goes out on a lane is checked against what is durable at that moment, in every test.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use shared::assignment::{AssignedCheck, Assignment, Carried, Policy};
use shared::check::{Check, Exit, Outcome, State, TcpCheck};
use shared::delivery::{Admission, BatchItem, Key, admit, decode_header, decode_items};
use shared::frame::Lane;
use shared::message::{self, AssignmentBegin, ClockReply, HeldRun, Hello, RunPosition, ToMaster, ToSatellite, Welcome};
use shared::name::{
    CheckId, Generation, Grant, InstanceId, RunCounter, RunId, Sequence, Slot, SlotNumber, Term, Timeline,
};
use shared::result::CheckResult;
use shared::state::{CheckState, Confirmation, StateType};
use shared::time::{Monotonic, Timestamp};

use super::{HEARTBEAT_EVERY, Scheduler};
use crate::clock::Now;
use crate::command::{
    Adopted, Beginning, Command, FoundRun, Identity, Kept, KeptStates, ProbeId, ReadBatches, SpooledBatch,
};
use crate::outbox::LINGER;
use crate::scheduler::roster::IN_FLIGHT_MAX;

const START: i64 = 1_790_000_000_000;
const TIMELINE: Timeline = Timeline(77);

fn check(id: u32) -> AssignedCheck {
    AssignedCheck {
        id: CheckId(id),
        object: format!("host{id}!port").parse().unwrap(),
        check: Some(Check::Tcp(TcpCheck { address: "127.0.0.1".into(), port: 80 })),
        policy: Policy { check_interval_ms: 60_000, retry_interval_ms: 15_000, timeout_ms: 10_000, max_attempts: 3 },
        grant: Grant(5),
        carried: None,
    }
}

fn assignment(generation: u64, checks: &[AssignedCheck]) -> Assignment {
    Assignment { generation: Generation(generation), checks: checks.iter().map(|c| (c.id, c.clone())).collect() }
}

fn outcome(now: Now, state: State) -> Outcome {
    Outcome::text(now.wall, Duration::from_millis(3), Exit::Ran(i32::from(state.number())), state, "said".into())
}

fn identity() -> Identity {
    Identity {
        installation: "acme".parse().unwrap(),
        slot: Slot { region: "eu".parse().unwrap(), number: SlotNumber::new(1).unwrap() },
        instance: InstanceId([7; 16]),
        software: "0.1.0".into(),
    }
}

/// One run in a disk of memory.
#[derive(Debug, Default, Clone)]
struct DiskRun {
    counter: RunCounter,
    batches: Vec<SpooledBatch>,
    last: Sequence,
}

/// A volume that obeys, or not, when it is told to.
#[derive(Debug, Default)]
struct Disk {
    runs: BTreeMap<RunId, DiskRun>,
    counter: u64,
    kept: Option<Kept>,
    states: KeptStates,
    appends: usize,
}

impl Disk {
    fn open(&mut self) -> FoundRun {
        self.counter += 1;
        let mut run = RunId([0xee; 16]);
        run.0[..8].copy_from_slice(&self.counter.to_be_bytes());
        let counter = RunCounter(self.counter);
        self.runs.insert(run, DiskRun { counter, ..DiskRun::default() });
        FoundRun { run, counter, first: Sequence(1), last: Sequence(0) }
    }

    fn found(&self) -> Vec<FoundRun> {
        let found = |(run, held): (&RunId, &DiskRun)| FoundRun {
            run: *run,
            counter: held.counter,
            first: held.batches.first().map_or(Sequence(held.last.0 + 1), |batch| batch.first),
            last: held.last,
        };
        self.runs.iter().map(found).collect()
    }

    fn read(&self, run: RunId, from: Sequence, bytes_max: usize, batches_max: usize) -> ReadBatches {
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
    fn fold(&self) -> KeptStates {
        let mut states = KeptStates { adoptions: 1, timeline: TIMELINE, ..self.states.clone() };
        for held in self.runs.values() {
            for batch in &held.batches {
                for (sequence, result) in results(&batch.bytes) {
                    let key = Key { grant: result.grant, counter: held.counter, sequence };
                    let carried = Carried { state: result.after, key };
                    let known = states.states.entry(result.check).or_insert(carried);
                    if key > known.key {
                        *known = carried;
                    }
                }
            }
        }
        states
    }
}

fn results(bytes: &[u8]) -> Vec<(Sequence, CheckResult)> {
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
struct World {
    now: Now,
    brain: Scheduler,
    disk: Disk,
    /// Orders to the disk that it has not done.
    orders: VecDeque<Command>,
    probes: Vec<(ProbeId, AssignedCheck)>,
    started: Vec<(Monotonic, CheckId)>,
    sent: VecDeque<(Lane, Bytes)>,
    said: VecDeque<ToMaster>,
    /// Whether the disk does what it is told at once.
    obedient: bool,
}

impl World {
    fn new() -> Self {
        Self::on(Disk::default(), Now { monotonic: Monotonic(0), wall: Timestamp::from_millis(START) }, false)
    }

    fn on(mut disk: Disk, now: Now, neighbour: bool) -> Self {
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

    fn assigned(checks: &[AssignedCheck]) -> Self {
        let mut world = Self::new();
        world.brain.handle_assignment(world.now, TIMELINE, CheckId(0), assignment(1, checks));
        world.settle();
        world
    }

    fn pass(&mut self, duration: Duration) {
        self.now.monotonic = self.now.monotonic.plus(duration);
        self.now.wall = self.now.wall.plus(duration);
    }

    /// Carries orders out until there are none.
    fn settle(&mut self) {
        loop {
            while let Some(command) = self.brain.poll_command() {
                self.carry(command);
            }
            if !self.obedient || !self.obey() {
                return;
            }
        }
    }

    fn carry(&mut self, command: Command) {
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
    fn obey(&mut self) -> bool {
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
            Command::Probe { .. } | Command::Send { .. } => unreachable!("not for the disk"),
        }
        true
    }

    fn answer(&mut self, state: State) {
        for (probe, _) in std::mem::take(&mut self.probes) {
            self.brain.handle_outcome(self.now, probe, outcome(self.now, state));
        }
        self.settle();
    }

    /// Lets time pass from deadline to deadline; `state` of a check is what its probe finds.
    fn run_for(&mut self, duration: Duration, state: impl Fn(CheckId) -> State) {
        let end = self.now.monotonic.plus(duration);
        loop {
            self.settle();
            for (probe, check) in std::mem::take(&mut self.probes) {
                self.brain.handle_outcome(self.now, probe, outcome(self.now, state(check.id)));
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

    fn connect(&mut self, holder: bool, positions: &[RunPosition]) -> Hello {
        self.brain.handle_connected(self.now);
        self.settle();
        let hello = self.said.drain(..).find_map(|said| match said {
            ToMaster::Hello(hello) => Some(*hello),
            _ => None,
        });
        self.hear(ToSatellite::Welcome(Box::new(welcome(self.now.wall, holder, positions))));
        hello.expect("hello is the first word")
    }

    fn hear(&mut self, message: ToSatellite) {
        self.brain.handle_message(self.now, message);
        self.settle();
    }

    fn open_run(&self) -> RunId {
        self.disk.runs.iter().max_by_key(|(_, held)| held.counter).map(|(run, _)| *run).unwrap()
    }

    fn state(&self, id: u32) -> Carried {
        self.brain.roster.states()[&CheckId(id)]
    }
}

fn welcome(clock: Timestamp, holder: bool, positions: &[RunPosition]) -> Welcome {
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
    }
}

fn minutes(n: u64) -> Duration {
    Duration::from_secs(60 * n)
}

#[test]
fn every_check_runs_once_an_interval_and_in_order_of_its_place() {
    let checks: Vec<AssignedCheck> = (1..=50).map(check).collect();
    let mut world = World::assigned(&checks);
    world.run_for(minutes(1), |_| State::Ok);
    let first: BTreeSet<CheckId> = world.started.iter().map(|(_, id)| *id).collect();
    assert_eq!(first.len(), 50, "each within the first 30 s");
    world.started.clear();
    world.run_for(minutes(10), |_| State::Ok);
    assert_eq!(world.started.len(), 500);
    for round in world.started.windows(50) {
        assert_eq!(round.iter().map(|(_, id)| id).collect::<BTreeSet<_>>().len(), 50);
    }
    assert!(world.started.is_sorted_by_key(|(at, _)| *at));
}

#[test]
fn soft_problems_are_asked_again_at_the_retry_interval() {
    let mut world = World::assigned(&[check(1)]);
    world.run_for(minutes(2), |_| State::Ok);
    world.started.clear();
    world.run_for(minutes(4), |_| State::Critical);
    let gaps: Vec<u64> = world.started.windows(2).map(|two| two[1].0.since(two[0].0).as_secs()).collect();
    assert_eq!(&gaps[..2], [15, 15], "attempts 1, 2, 3");
    assert!((30..=60).contains(&gaps[2]), "the way back to the check's own place: {gaps:?}");
    assert_eq!(world.state(1).state.state_type, StateType::Hard);
}

#[test]
fn a_carried_state_goes_on_at_its_attempt() {
    let confirmation = Confirmation { max_attempts: 3 };
    let (soft, _) = CheckState::pending(3).apply(State::Critical, confirmation, Timestamp::from_millis(START));
    let key = Key { grant: Grant(3), counter: RunCounter(9), sequence: Sequence(40) };
    let carried = AssignedCheck { carried: Some(Carried { state: soft, key }), ..check(1) };
    let mut world = World::assigned(&[carried]);
    assert!(world.probes.is_empty());
    world.run_for(Duration::from_secs(16), |_| State::Critical);
    let after = world.state(1);
    assert_eq!((after.state.attempt, after.state.state_type), (2, StateType::Soft));
    assert!(after.key > key, "a newer grant beats every counter");
}

#[test]
fn the_greater_key_decides_where_to_go_on_and_the_carried_one_when_they_are_equal() {
    let state = |state| CheckState { state, ..CheckState::pending(3) };
    let key = |sequence| Key { grant: Grant(5), counter: RunCounter(1), sequence: Sequence(sequence) };
    for (carried, expected) in [(4, State::Ok), (5, State::Critical), (6, State::Critical)] {
        let mut disk = Disk::default();
        disk.states.states.insert(CheckId(1), Carried { state: state(State::Ok), key: key(5) });
        let mut world = World::on(disk, World::new().now, false);
        let carried = Some(Carried { state: state(State::Critical), key: key(carried) });
        let checks = [AssignedCheck { carried, ..check(1) }];
        world.brain.handle_assignment(world.now, TIMELINE, CheckId(0), assignment(1, &checks));
        assert_eq!(world.state(1).state.state, expected);
    }
}

#[test]
fn a_state_of_another_timeline_yields_to_any_carried_one() {
    let mut disk = Disk::default();
    let old = Carried {
        state: CheckState { state: State::Ok, ..CheckState::pending(3) },
        key: Key { grant: Grant(900), counter: RunCounter(9), sequence: Sequence(9) },
    };
    disk.states.states.extend([(CheckId(1), old), (CheckId(2), old)]);
    let mut world = World::on(disk, World::new().now, false);
    let new = Carried { key: Key::default(), ..old };
    let checks = [AssignedCheck { carried: Some(new), ..check(1) }, check(2)];
    world.brain.handle_assignment(world.now, Timeline(78), CheckId(2), assignment(1, &checks));
    assert_eq!(world.state(1).key, Key::default());
    assert!(!world.brain.roster.states().contains_key(&CheckId(2)), "a new id of the new timeline");
}

#[test]
fn a_stepped_clock_neither_repeats_nor_skips_a_run() {
    for step in [-3_600_000_i64, 3_600_000] {
        let mut world = World::assigned(&[check(1), check(2)]);
        world.connect(true, &[]);
        world.run_for(minutes(5), |_| State::Ok);
        world.started.clear();
        let master = Timestamp::from_millis(world.now.wall.as_millis() + step);
        world.brain.handle_clock(world.now, master);
        world.run_for(minutes(60 * 12), |_| State::Ok);
        for id in [1, 2] {
            let at: Vec<Monotonic> = world.started.iter().filter(|(_, c)| c.0 == id).map(|(at, _)| *at).collect();
            for two in at.windows(2) {
                let gap = two[1].since(two[0]).as_millis();
                assert!((54_000..=67_000).contains(&gap), "{step}: {gap}");
            }
            let expected = 720 + step / 60_000;
            assert!((i64::try_from(at.len()).unwrap() - expected).abs() <= 2, "{step}: {}", at.len());
        }
        assert_eq!(world.brain.roster.late(), 0);
    }
}

#[test]
fn results_carry_the_measured_offset_and_no_step_of_the_own_clock_moves_a_run() {
    let mut world = World::assigned(&[check(1)]);
    world.brain.handle_connected(world.now);
    world.settle();
    let early = Timestamp::from_millis(world.now.wall.as_millis() - 7000);
    world.hear(ToSatellite::Welcome(Box::new(welcome(early, true, &[]))));
    world.run_for(minutes(1), |_| State::Ok);
    let (_, live) = world.sent.pop_front().unwrap();
    assert_eq!(results(&live)[0].1.offset_ms, Some(-7000));
    // The own clock jumps a day ahead; the master's has not moved.
    world.now.wall = world.now.wall.plus(minutes(24 * 60));
    world.sent.clear();
    world.started.clear();
    world.run_for(minutes(3), |_| State::Ok);
    assert_eq!(world.started.len(), 3);
    let (_, live) = world.sent.pop_front().unwrap();
    let result = &results(&live)[0].1;
    assert_eq!(result.offset_ms, Some(-7000 - 86_400_000));
    assert!(result.scheduled <= result.started && result.started.since(result.scheduled).as_millis() <= 1);
}

#[test]
fn heartbeats_measure_the_offset_by_their_answers() {
    let mut world = World::assigned(&[check(1)]);
    world.connect(true, &[]);
    let heartbeat = world.said.drain(..).find_map(|said| match said {
        ToMaster::Heartbeat(heartbeat) => Some(heartbeat),
        _ => None,
    });
    let sent = heartbeat.expect("the first follows the welcome").clock;
    world.pass(Duration::from_millis(40));
    let master = Timestamp::from_millis(sent.as_millis() + 20 + 1500);
    world.hear(ToSatellite::ClockReply(ClockReply { sent, master }));
    // The welcome's round trip was shorter: it still counts.
    assert_eq!(world.brain.status(world.now).offset_ms, Some(0));
    world.run_for(HEARTBEAT_EVERY * 3, |_| State::Ok);
    assert_eq!(world.said.iter().filter(|said| matches!(said, ToMaster::Heartbeat(_))).count(), 3);
}

#[test]
fn a_host_is_up_or_down() {
    let host = AssignedCheck { object: "web".parse().unwrap(), ..check(1) };
    let mut world = World::assigned(&[host]);
    world.run_for(minutes(1), |_| State::Warning);
    assert_eq!(world.state(1).state.state, State::Up);
    world.run_for(minutes(1), |_| State::Unknown);
    assert_eq!(world.state(1).state.state, State::Down);
}

#[test]
fn a_check_of_an_unknown_kind_says_that_this_satellite_is_too_old() {
    let mut world = World::assigned(&[AssignedCheck { check: None, ..check(1) }]);
    world.connect(true, &[]);
    world.run_for(minutes(1), |_| panic!("nothing to probe"));
    let (_, live) = world.sent.pop_front().unwrap();
    let (_, result) = &results(&live)[0];
    assert_eq!(result.after.state, State::Unknown);
    assert!(result.output.contains("update it") && result.output.contains("0.1.0"), "{}", result.output);
}

#[test]
fn a_removed_check_is_forgotten_and_its_running_probe_with_it() {
    let mut world = World::assigned(&[check(1), check(2)]);
    world.pass(Duration::from_secs(30));
    world.brain.handle_timeout(world.now);
    world.settle();
    assert_eq!(world.probes.len(), 2);
    world.brain.handle_assignment(world.now, TIMELINE, CheckId(0), assignment(2, &[check(2)]));
    world.answer(State::Ok);
    world.run_for(LINGER * 2, |_| State::Ok);
    assert_eq!(world.brain.roster.states().keys().collect::<Vec<_>>(), [&CheckId(2)]);
    assert_eq!(world.disk.runs[&world.open_run()].last, Sequence(1));
}

#[test]
fn a_changed_check_keeps_its_state_and_is_asked_soon() {
    let slow = |port| {
        let check_interval_ms = 3_600_000;
        let policy = Policy { check_interval_ms, ..check(1).policy };
        let question = Check::Tcp(TcpCheck { address: "127.0.0.1".into(), port });
        AssignedCheck { check: Some(question), policy, ..check(1) }
    };
    let mut world = World::assigned(&[slow(80)]);
    world.run_for(minutes(60), |_| State::Critical);
    let before = world.state(1);
    assert_eq!(before.state.state, State::Critical);
    world.started.clear();
    world.brain.handle_assignment(world.now, TIMELINE, CheckId(0), assignment(2, &[slow(81)]));
    assert_eq!(world.state(1), before);
    world.run_for(Duration::from_secs(30), |_| State::Critical);
    assert!(!world.started.is_empty());
}

#[test]
fn an_untouched_check_keeps_its_place_and_what_is_running() {
    let mut world = World::assigned(&[check(1)]);
    world.pass(Duration::from_secs(30));
    world.brain.handle_timeout(world.now);
    world.settle();
    assert_eq!(world.probes.len(), 1);
    world.brain.handle_assignment(world.now, TIMELINE, CheckId(0), assignment(2, &[check(1), check(2)]));
    world.answer(State::Ok);
    assert_eq!(world.state(1).state.state, State::Ok);
}

#[test]
fn a_check_in_flight_is_not_started_again() {
    let mut world = World::assigned(&[check(1)]);
    world.run_for(minutes(1), |_| State::Ok);
    world.started.clear();
    // Nobody answers for three intervals.
    for _ in 0..180 {
        world.pass(Duration::from_secs(1));
        world.brain.handle_timeout(world.now);
        world.settle();
    }
    assert_eq!(world.started.len(), 1);
    world.answer(State::Ok);
    assert!(world.probes.is_empty(), "missed runs are not made up for");
}

#[test]
fn too_many_checks_at_once_start_late_and_are_counted() {
    let ids = u32::try_from(IN_FLIGHT_MAX).unwrap() + 76;
    let checks: Vec<AssignedCheck> = (1..=ids).map(check).collect();
    let mut world = World::assigned(&checks);
    world.pass(Duration::from_secs(40));
    world.brain.handle_timeout(world.now);
    world.settle();
    assert_eq!(world.probes.len(), IN_FLIGHT_MAX);
    assert_eq!(world.brain.poll_timeout().filter(|at| *at <= world.now.monotonic), None, "no busy waiting");
    world.answer(State::Ok);
    assert_eq!(world.probes.len(), 76);
    assert!(world.brain.roster.late() >= 76);
}

#[test]
fn without_a_master_a_restart_goes_on_from_disk() {
    let mut world = World::assigned(&[check(1)]);
    world.run_for(minutes(2), |_| State::Critical);
    let before = world.state(1);
    let mut again = World::on(world.disk, world.now, false);
    assert_eq!(again.state(1), before);
    again.run_for(minutes(2), |_| State::Critical);
    assert!(again.state(1).key > before.key);
    assert_eq!(again.state(1).state.since, before.state.since);
}

#[test]
fn a_second_process_waits_until_it_holds_the_slot_or_is_alone() {
    let disk = World::assigned(&[check(1)]).disk;
    let mut world = World::on(disk, World::new().now, true);
    world.run_for(minutes(5), |_| State::Ok);
    assert_eq!(world.started, []);
    world.brain.handle_neighbours(world.now, false, Some(Adopted::default()));
    world.run_for(minutes(2), |_| State::Ok);
    assert_eq!(world.started.len(), 2);

    let disk = World::assigned(&[check(1)]).disk;
    let mut world = World::on(disk, World::new().now, true);
    world.connect(true, &[]);
    world.run_for(minutes(2), |_| State::Ok);
    assert!(world.started.len() >= 2);
}

#[test]
fn a_fenced_process_delivers_and_checks_nothing_until_it_is_holder_again() {
    let mut world = World::assigned(&[check(1)]);
    world.connect(true, &[]);
    world.run_for(minutes(2), |_| State::Ok);
    let made = world.disk.runs[&world.open_run()].last;
    world.hear(ToSatellite::Fence);
    world.started.clear();
    world.run_for(minutes(5), |_| State::Ok);
    assert_eq!(world.started, []);
    world.brain.handle_disconnected(world.now);
    world.sent.clear();
    let hello = world.connect(false, &[]);
    assert!(hello.fenced);
    world.run_for(minutes(5), |_| State::Ok);
    assert_eq!(world.started, []);
    let delivered: usize = world.sent.iter().map(|(_, bytes)| results(bytes).len()).sum();
    assert_eq!(u64::try_from(delivered).unwrap(), made.0, "what was made before is delivered");
    world.brain.handle_disconnected(world.now);
    world.connect(true, &[]);
    world.run_for(minutes(2), |_| State::Ok);
    assert!(!world.started.is_empty());
}

#[test]
fn an_outcome_after_the_fence_is_nobodys() {
    let mut world = World::assigned(&[check(1)]);
    world.connect(true, &[]);
    world.pass(Duration::from_secs(30));
    world.brain.handle_timeout(world.now);
    world.settle();
    assert_eq!(world.probes.len(), 1);
    world.hear(ToSatellite::Fence);
    world.answer(State::Ok);
    world.run_for(minutes(1), |_| State::Ok);
    assert_eq!(world.disk.runs[&world.open_run()].last, Sequence(0));
}

#[test]
fn an_assignment_is_confirmed_when_it_is_on_disk() {
    let mut world = World::new();
    world.connect(true, &[]);
    world.obedient = false;
    world.said.clear();
    world.hear(ToSatellite::AssignmentBegin(AssignmentBegin { generation: Generation(4), whole: true }));
    world.hear(ToSatellite::AssignmentUpsert(Box::new(check(1))));
    world.hear(ToSatellite::AssignmentUpsert(Box::new(check(2))));
    assert_eq!(world.brain.status(world.now).checks, 0, "a series counts as one");
    world.hear(ToSatellite::AssignmentEnd(Generation(4)));
    assert_eq!(world.brain.status(world.now).checks, 2);
    assert!(!world.said.contains(&ToMaster::Applied(Generation(4))));
    world.obedient = true;
    world.settle();
    assert!(world.said.contains(&ToMaster::Applied(Generation(4))));
    world.hear(ToSatellite::AssignmentBegin(AssignmentBegin { generation: Generation(5), whole: false }));
    world.hear(ToSatellite::AssignmentRemove(CheckId(1)));
    world.hear(ToSatellite::AssignmentEnd(Generation(5)));
    assert_eq!(world.disk.kept.as_ref().unwrap().assignment.checks.keys().collect::<Vec<_>>(), [&CheckId(2)]);
    assert!(world.said.contains(&ToMaster::Applied(Generation(5))));
}

#[test]
fn an_assignment_that_cannot_be_kept_runs_and_is_kept_later() {
    let mut world = World::new();
    world.connect(true, &[]);
    world.obedient = false;
    world.brain.handle_assignment(world.now, TIMELINE, CheckId(0), assignment(4, &[check(1)]));
    world.settle();
    world.orders.retain(|order| !matches!(order, Command::Keep(_)));
    world.brain.handle_keep_failed(world.now);
    world.obedient = true;
    assert!(!world.said.contains(&ToMaster::Applied(Generation(4))));
    world.run_for(Duration::from_secs(2), |_| State::Ok);
    assert!(world.said.contains(&ToMaster::Applied(Generation(4))));
}

#[test]
fn an_ending_process_brings_everything_to_disk() {
    let mut world = World::assigned(&[check(1), check(2)]);
    world.pass(Duration::from_secs(30));
    world.brain.handle_timeout(world.now);
    world.settle();
    assert_eq!(world.probes.len(), 2);
    world.brain.handle_shutdown(world.now);
    assert!(!world.brain.is_settled());
    world.answer(State::Ok);
    assert!(world.brain.is_settled());
    assert_eq!(world.disk.runs[&world.open_run()].last, Sequence(2));
    assert_eq!(world.disk.states.states.len(), 2);
    world.run_for(minutes(5), |_| panic!("nothing starts any more"));
}

/// A master of a few lines: positions per run, some of them committed, acknowledged only then.
#[derive(Debug, Default)]
struct Master {
    committed: BTreeMap<RunId, Sequence>,
    received: BTreeMap<RunId, Sequence>,
    effects: BTreeMap<RunId, Vec<u64>>,
    held: BTreeMap<RunId, HeldRun>,
    /// Runs named as existing by a batch or a greeting.
    known: BTreeSet<RunId>,
    acknowledged: BTreeMap<RunId, Sequence>,
}

impl Master {
    fn receive(&mut self, bytes: &Bytes) {
        let (header, body) = decode_header(bytes).unwrap();
        decode_items(&header, body).unwrap();
        self.known.insert(header.run);
        let position = self.received.entry(header.run).or_default();
        match admit(*position, header.first, header.last) {
            Admission::Known => {}
            Admission::New { after, missing } => {
                assert_eq!(missing, None, "a hole nobody made: {header:?} after {after}");
                self.effects.entry(header.run).or_default().extend(after.0 + 1..=header.last.0);
                *position = header.last;
            }
        }
    }

    fn commit(&mut self) -> Vec<RunPosition> {
        let moved = self.received.iter().filter(|(run, at)| self.committed.get(run) != Some(at));
        let moved: Vec<RunPosition> = moved.map(|(run, at)| RunPosition { run: *run, position: *at }).collect();
        self.committed = self.received.clone();
        for at in &moved {
            let before = self.acknowledged.insert(at.run, at.position);
            assert!(before.is_none_or(|before| before < at.position), "positions only rise");
        }
        moved
    }

    /// Killed before the commit: what was received since is gone.
    fn crash(&mut self) {
        for (run, effects) in &mut self.effects {
            let committed = self.committed.get(run).copied().unwrap_or_default();
            effects.retain(|sequence| *sequence <= committed.0);
        }
        self.received = self.committed.clone();
    }

    fn complete(&self) -> Vec<RunId> {
        let done = |held: &&HeldRun| {
            !held.open && self.committed.get(&held.run).map_or(held.last.0 == 0, |at| *at >= held.last)
        };
        self.held.values().filter(done).map(|held| held.run).collect()
    }
}

/// A small generator of chance (SplitMix64): a seed is a whole run.
struct Chance(u64);

impl Chance {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}

struct Faults {
    chance: Chance,
    world: World,
    master: Master,
    connected: bool,
    to_satellite: VecDeque<ToSatellite>,
    /// Durable at any moment, by run: all of it must arrive.
    durable: BTreeMap<RunId, Sequence>,
    crashes: u64,
    cuts: u64,
}

impl Faults {
    fn new(seed: u64) -> Self {
        let checks: Vec<AssignedCheck> = (1..=40)
            .map(|id| {
                let policy = Policy { check_interval_ms: 700, retry_interval_ms: 300, ..check(id).policy };
                AssignedCheck { policy, ..check(id) }
            })
            .collect();
        let mut world = World::assigned(&checks);
        world.obedient = false;
        Self {
            chance: Chance(seed),
            world,
            master: Master::default(),
            connected: false,
            to_satellite: VecDeque::new(),
            durable: BTreeMap::new(),
            crashes: 0,
            cuts: 0,
        }
    }

    fn cut(&mut self) {
        self.connected = false;
        self.to_satellite.clear();
        self.world.sent.clear();
        self.world.said.clear();
        self.master.held.clear();
        self.world.brain.handle_disconnected(self.world.now);
        self.world.settle();
        self.cuts += 1;
    }

    fn connect(&mut self) {
        self.connected = true;
        self.world.brain.handle_connected(self.world.now);
        self.world.settle();
    }

    fn kill(&mut self) {
        if self.connected {
            self.cut();
        }
        let disk = std::mem::take(&mut self.world.disk);
        self.world = World { obedient: false, ..World::on(disk, self.world.now, false) };
        self.world.settle();
        self.crashes += 1;
    }

    /// The master hears one message.
    fn hear(&mut self) {
        if let Some(said) = self.world.said.pop_front() {
            match said {
                ToMaster::Hello(hello) => {
                    for held in hello.runs {
                        self.master.held.insert(held.run, held);
                        self.master.known.insert(held.run);
                    }
                    let positions: Vec<RunPosition> = self
                        .master
                        .committed
                        .iter()
                        .map(|(run, at)| RunPosition { run: *run, position: *at })
                        .collect();
                    let answer = welcome(self.world.now.wall, true, &positions);
                    self.to_satellite.push_back(ToSatellite::Welcome(Box::new(answer)));
                }
                ToMaster::Held(held) => {
                    self.master.held.insert(held.run, held);
                }
                ToMaster::Heartbeat(heartbeat) => {
                    let reply = ClockReply { sent: heartbeat.clock, master: self.world.now.wall };
                    self.to_satellite.push_back(ToSatellite::ClockReply(reply));
                }
                ToMaster::Applied(_) => {}
            }
        }
        // Lanes are streams of their own: either may be ahead.
        let lane = if self.chance.next(2) == 0 { Lane::Live } else { Lane::Backlog };
        if let Some(at) = self.world.sent.iter().position(|(of, _)| *of == lane)
            && let Some((_, bytes)) = self.world.sent.remove(at)
        {
            self.master.receive(&bytes);
        }
    }

    fn commit(&mut self) {
        let acks = self.master.commit();
        if self.connected {
            self.to_satellite.extend(acks.into_iter().map(ToSatellite::Ack));
            for run in self.master.complete() {
                self.master.held.remove(&run);
                self.to_satellite.push_back(ToSatellite::CloseRun(run));
            }
        }
    }

    fn answer_one(&mut self) {
        let count = u64::try_from(self.world.probes.len()).unwrap();
        if count > 0 {
            let at = usize::try_from(self.chance.next(count)).unwrap();
            let (probe, _) = self.world.probes.swap_remove(at);
            let state = [State::Ok, State::Critical][usize::try_from(self.chance.next(2)).unwrap()];
            self.world.brain.handle_outcome(self.world.now, probe, outcome(self.world.now, state));
        }
    }

    fn disk(&mut self, faults: bool) {
        let fails = faults && self.chance.next(20) == 0;
        match self.world.orders.front() {
            Some(Command::Append { .. }) if fails => {
                self.world.orders.pop_front();
                self.world.brain.handle_append_failed(self.world.now);
            }
            Some(Command::OpenRun) if fails => {
                self.world.orders.pop_front();
                self.world.brain.handle_open_failed(self.world.now);
            }
            Some(Command::Read { read, .. }) if fails => {
                let read = *read;
                self.world.orders.pop_front();
                self.world.brain.handle_read_failed(self.world.now, read);
            }
            Some(Command::CloseRun(run)) => {
                let last = self.world.disk.runs[run].last;
                let acknowledged = self.master.acknowledged.get(run).copied().unwrap_or_default();
                assert!(acknowledged >= last, "removed before it was acknowledged");
                self.world.obey();
            }
            Some(Command::Trim { run, up_to }) => {
                assert!(self.master.acknowledged.get(run).is_some_and(|at| at >= up_to), "trimmed too much");
                self.world.obey();
            }
            _ => {
                self.world.obey();
            }
        }
        for (run, held) in &self.world.disk.runs {
            let durable = self.durable.entry(*run).or_default();
            *durable = (*durable).max(held.last);
        }
    }

    fn step(&mut self, faults: bool) {
        match self.chance.next(if faults { 1000 } else { 980 }) {
            0..250 => {
                let millis = self.chance.next(20);
                self.world.pass(Duration::from_millis(millis));
                self.world.brain.handle_timeout(self.world.now);
            }
            250..450 => self.answer_one(),
            450..650 => self.disk(faults),
            650..800 => self.hear(),
            800..850 => self.commit(),
            850..970 => {
                if let Some(message) = self.to_satellite.pop_front() {
                    // An acknowledgement may come twice.
                    if matches!(message, ToSatellite::Ack(_)) && self.chance.next(10) == 0 {
                        self.to_satellite.push_front(message.clone());
                    }
                    self.world.brain.handle_message(self.world.now, message);
                }
            }
            970..980 if !self.connected => self.connect(),
            980..990 if self.connected => self.cut(),
            990..994 => {
                self.master.crash();
                if self.connected {
                    self.cut();
                }
            }
            994..996 => self.kill(),
            _ => {}
        }
        self.world.settle();
    }
}

#[test]
fn whatever_breaks_off_every_durable_result_arrives_once() {
    let (mut crashes, mut cuts, mut arrived, mut backlog) = (0, 0, 0, 0);
    for seed in 0..60 {
        let mut faults = Faults::new(seed);
        for _ in 0..4000 {
            faults.step(true);
        }
        faults.world.brain.handle_shutdown(faults.world.now);
        for _ in 0..60_000 {
            faults.step(false);
        }
        for (run, last) in &faults.durable {
            let effects = faults.master.effects.get(run).cloned().unwrap_or_default();
            let expected: Vec<u64> = (1..=last.0).collect();
            assert_eq!(effects, expected, "seed {seed}: run {run}");
            arrived += effects.len();
        }
        let left: Vec<&RunId> = faults.world.disk.runs.keys().collect();
        assert_eq!(left.len(), 1, "seed {seed}: delivered runs are removed, all but the open one");
        crashes += faults.crashes;
        cuts += faults.cuts;
        backlog += faults.durable.len();
    }
    assert!(crashes > 200 && cuts > 1000 && arrived > 20_000 && backlog > 500, "{crashes} {cuts} {arrived} {backlog}");
}
