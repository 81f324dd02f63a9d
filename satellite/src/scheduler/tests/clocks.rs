//! Clocks that are set, on either side or both, connected or not: what runs, what is told, and which times results carry.

use shared::check::Exit;
use shared::message::ClockStep;
use shared::step::STEP_MS;

use super::world::outcome;
use super::*;
use crate::clock::Now;

const HOUR: i64 = 3_600_000;
const CHECKS: u32 = 5;

/// A world whose master answers heartbeats by a clock of its own.
struct Pair {
    world: World,
    /// What the master's clock shows beyond the true time, in milliseconds.
    master: i64,
    connected: bool,
    steps: Vec<ClockStep>,
    heartbeats: Vec<shared::message::Heartbeat>,
    seen: BTreeSet<(RunCounter, Sequence)>,
}

impl Pair {
    fn new() -> Self {
        let checks: Vec<AssignedCheck> = (1..=CHECKS).map(check).collect();
        let mut world = World::assigned(&checks);
        world.connect(true, &[]);
        Self { world, master: 0, connected: true, steps: Vec::new(), heartbeats: Vec::new(), seen: BTreeSet::new() }
    }

    fn master_time(&self) -> Timestamp {
        let passed = i64::try_from(self.world.now.monotonic.0 / 1_000_000).unwrap();
        Timestamp::from_millis(START + passed + self.master)
    }

    fn set_own(&mut self, by: i64) {
        self.world.now.wall = Timestamp::from_millis(self.world.now.wall.as_millis() + by);
    }

    fn cut(&mut self) {
        self.connected = false;
        self.world.brain.handle_disconnected(self.world.now);
        self.world.settle();
    }

    fn reconnect(&mut self) {
        self.connected = true;
        self.world.brain.handle_connected(self.world.now);
        self.world.settle();
        let clock = self.master_time();
        self.world.hear(ToSatellite::Welcome(Box::new(welcome(clock, true, &[]))));
    }

    /// Goes on second by second. Gives how far from the master's time the results ended by their own account, in milliseconds.
    fn live(&mut self, seconds: u64) -> Vec<i64> {
        let mut off = Vec::new();
        for _ in 0..seconds {
            self.world.pass(Duration::from_secs(1));
            self.world.brain.handle_timeout(self.world.now);
            self.world.settle();
            self.world.answer(State::Ok);
            for said in self.world.said.drain(..).collect::<Vec<_>>() {
                match said {
                    ToMaster::Heartbeat(heartbeat) => {
                        let reply = ClockReply { sent: heartbeat.clock, master: self.master_time() };
                        self.heartbeats.push(heartbeat);
                        self.world.hear(ToSatellite::ClockReply(reply));
                    }
                    ToMaster::ClockStep(step) => self.steps.push(step),
                    _ => {}
                }
            }
            self.world.pass(LINGER);
            self.world.brain.handle_timeout(self.world.now);
            self.world.settle();
            let now = self.master_time();
            for held in self.world.disk.runs.values() {
                for batch in held.batches.iter().rev().take_while(|batch| batch.last == held.last) {
                    let ended =
                        results(&batch.bytes).into_iter().filter(|(at, _)| self.seen.insert((held.counter, *at)));
                    off.extend(ended.map(|(_, result)| result.ended().as_millis() - now.as_millis()));
                }
            }
            self.world.now.monotonic = Monotonic(self.world.now.monotonic.0 - 10_000_000);
            self.world.now.wall = self.world.now.wall.minus(LINGER);
        }
        off
    }

    fn axis(&self) -> i64 {
        self.world.brain.clock.axis(self.world.now.monotonic).as_millis()
    }
}

#[test]
fn an_hours_step_of_either_clock_misses_no_run_and_adds_none() {
    // (own clock, master's clock, cut off meanwhile)
    let table = [
        (HOUR, 0, false),
        (-HOUR, 0, false),
        (0, HOUR, false),
        (0, -HOUR, false),
        (HOUR, HOUR, false),
        (-HOUR, HOUR, false),
        (HOUR, -HOUR, false),
        (HOUR, 0, true),
        (-HOUR, 0, true),
        (0, HOUR, true),
        (0, -HOUR, true),
        (-HOUR, HOUR, true),
    ];
    for (own, master, cut) in table {
        let at = format!("own {own}, master {master}, cut {cut}");
        let mut pair = Pair::new();
        pair.live(300);
        if cut {
            pair.cut();
            pair.live(120);
        }
        pair.world.started.clear();
        let begun = pair.axis();
        pair.set_own(own);
        pair.master += master;
        pair.live(1200);
        if cut {
            pair.reconnect();
        }
        pair.live(1200);
        let places = (pair.axis() - begun) / 60_000;
        for id in 1..=CHECKS {
            let runs: Vec<Monotonic> =
                pair.world.started.iter().filter(|(_, of)| of.0 == id).map(|(at, _)| *at).collect();
            let number = i64::try_from(runs.len()).unwrap();
            assert!((number - places).abs() <= 1, "{at}: check {id} ran {number} times for {places} places");
            for two in runs.windows(2) {
                let gap = two[1].since(two[0]).as_secs();
                assert!((53..=67).contains(&gap), "{at}: {gap} s between two runs of check {id}");
            }
        }
        let told: Vec<(u64, i64)> = pair.steps.iter().map(|step| (step.number, step.by_ms)).collect();
        let expected: Vec<(u64, i64)> = if own == 0 { Vec::new() } else { vec![(1, own)] };
        assert_eq!(told, expected, "{at}: told once, at once or at the next welcome");
    }
}

#[test]
fn times_of_results_are_the_masters_whatever_is_set() {
    for (own, master) in [
        (HOUR, 0),
        (-HOUR, 0),
        (0, HOUR),
        (0, -HOUR),
        (HOUR, -HOUR),
        (-40 * 365 * 24 * HOUR, 0),
        (74 * 365 * 24 * HOUR, 0),
    ] {
        let mut pair = Pair::new();
        pair.live(120);
        pair.set_own(own);
        pair.master += master;
        // The master's step is told by the next heartbeat's answer, the own one is seen at once.
        let blind = if master == 0 { 0 } else { HEARTBEAT_EVERY.as_secs() + 1 };
        pair.live(blind);
        let off = pair.live(300);
        assert!(off.len() >= 20 && off.iter().all(|off| off.abs() <= 1_000), "own {own}, master {master}: {off:?}");
        let last = pair.heartbeats.last().unwrap();
        assert_eq!(last.offset_ms, Some(master - own), "the offset is told");
        let slewing = last.slew_ms.unwrap();
        assert!(slewing.signum() == master.signum() && slewing.abs() <= HOUR, "{slewing}");
    }
}

#[test]
fn a_probe_that_runs_while_the_clock_is_set_ends_at_its_true_time() {
    for by in [HOUR, -HOUR, STEP_MS] {
        let mut pair = Pair::new();
        pair.live(120);
        while pair.world.probes.is_empty() {
            pair.world.pass(Duration::from_millis(500));
            pair.world.brain.handle_timeout(pair.world.now);
            pair.world.settle();
        }
        let begun: Now = pair.world.now;
        pair.world.pass(Duration::from_secs(2));
        pair.set_own(by);
        pair.world.pass(Duration::from_secs(1));
        let now = pair.world.now;
        for (probe, _) in std::mem::take(&mut pair.world.probes) {
            let three = Duration::from_secs(3);
            let noted = outcome(begun, State::Ok);
            let outcome = shared::check::Outcome { duration: three, exit: Exit::Ran(0), ..noted };
            pair.world.brain.handle_outcome(now, probe, outcome);
        }
        pair.world.settle();
        let off = pair.live(1);
        assert!(!off.is_empty() && off.iter().all(|off| off.abs() <= 1_100), "{by}: {off:?}");
    }
}

#[test]
fn a_step_made_while_cut_off_is_told_at_the_welcome_with_its_true_time() {
    let mut pair = Pair::new();
    pair.live(60);
    pair.cut();
    pair.live(60);
    let at = pair.master_time();
    pair.set_own(-HOUR);
    pair.live(600);
    assert_eq!(pair.steps, []);
    pair.reconnect();
    pair.live(2);
    let [step] = &pair.steps[..] else { panic!("{:?}", pair.steps) };
    assert_eq!((step.number, step.by_ms), (1, -HOUR));
    assert!((step.at.as_millis() - at.as_millis()).abs() <= 2_000, "{} {at}", step.at);
    // And again with each welcome: the master knows it by its number.
    pair.cut();
    pair.reconnect();
    pair.live(2);
    assert_eq!((pair.steps.len(), pair.steps[1].number), (2, 1));
}
