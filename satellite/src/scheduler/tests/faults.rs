//! The brain against a master, a disk and a prober that break off at random: a seed is a whole run of cuts, kills and refusals.
//! Whatever was durable at any moment must have its effect exactly once, in order.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use shared::assignment::{AssignedCheck, Policy};
use shared::check::State;
use shared::delivery::{Admission, admit, decode_header, decode_items};
use shared::frame::Lane;
use shared::message::{ClockReply, HeldRun, RunPosition, ToMaster, ToSatellite};
use shared::name::{RunId, Sequence};

use super::world::{World, check, outcome, welcome};
use crate::command::{Command, Limits};

/// A master of a few lines: positions per run, some of them committed, acknowledged only then.
#[derive(Debug, Default)]
struct Master {
    committed: BTreeMap<RunId, Sequence>,
    received: BTreeMap<RunId, Sequence>,
    effects: BTreeMap<RunId, Vec<u64>>,
    held: BTreeMap<RunId, HeldRun>,
    acknowledged: BTreeMap<RunId, Sequence>,
}

impl Master {
    fn receive(&mut self, bytes: &Bytes) {
        let (header, body) = decode_header(bytes).unwrap();
        decode_items(&header, body).unwrap();
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
    /// A disk that takes its time: orders outlive connections.
    slow: bool,
    crashes: u64,
    cuts: u64,
}

/// What is delivered goes while the test lasts.
fn hasty(world: World) -> World {
    let limits = Limits { grace: Duration::from_secs(5), ..Limits::DEFAULT };
    World { brain: world.brain.with_limits(limits), ..world }
}

impl Faults {
    fn new(seed: u64) -> Self {
        let checks: Vec<AssignedCheck> = (1..=40)
            .map(|id| {
                let policy = Policy { check_interval_ms: 700, retry_interval_ms: 300, ..check(id).policy };
                AssignedCheck { policy, ..check(id) }
            })
            .collect();
        let mut world = hasty(World::assigned(&checks));
        world.obedient = false;
        Self {
            chance: Chance(seed),
            world,
            master: Master::default(),
            connected: false,
            to_satellite: VecDeque::new(),
            durable: BTreeMap::new(),
            slow: false,
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
        self.world = World { obedient: false, ..hasty(World::on(disk, self.world.now, false)) };
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
                ToMaster::Applied(_)
                | ToMaster::State(_)
                | ToMaster::StatesEnd(_)
                | ToMaster::Wanted(_)
                | ToMaster::ClockStep(_)
                | ToMaster::Returned(_) => {}
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
        self.slow = faults && self.slow != (self.chance.next(60) == 0);
        if self.slow && self.chance.next(20) > 0 {
            return;
        }
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
            850..940 => {
                if let Some(message) = self.to_satellite.pop_front() {
                    // An acknowledgement may come twice.
                    if matches!(message, ToSatellite::Ack(_)) && self.chance.next(10) == 0 {
                        self.to_satellite.push_front(message.clone());
                    }
                    self.world.brain.handle_message(self.world.now, message);
                }
            }
            940..980 if !self.connected => self.connect(),
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
