//! The model of a disk held against the real one: the same seeded orders to `satellite::spool` on files that fail, tear at sectors
//! and lose power, and to the model. Every answer and what is there afterwards must be equal, to the byte. One volume and one sequence:
//! processes come and go on it, up to two at a time, each with its lock; what one leaves another takes over. The model fails as it does
//! in worlds: by a disk that is full, or by an order that began and was refused.
//!
//! `PERIGEE_OPERATIONS` says how many orders, `PERIGEE_SEED` which; both are printed.

mod processes;
mod weak;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use satellite::command::{Piece, ReadId, Seen};
use shared::assignment::{AssignedCheck, Assignment, Carried, Policy};
use shared::check::{Exit, State};
use shared::delivery::{BatchBuilder, BatchHeader};
use shared::name::{CheckId, Generation, Grant, JournalIndex};
use shared::result::CheckResult;
use shared::state::CheckState;
use shared::time::Timestamp;

use super::*;
use processes::Process;
use weak::{Failure, Weak};

const LIMITS: Limits = Limits { bytes: 8 * 2048, ..Limits::DEFAULT };
/// So many orders reach everything that there is to be seen.
const MANY: u64 = 5_000;
const SEEN: [&str; 21] = [
    "append",
    "a second process comes",
    "one of two goes",
    "an adoption",
    "a restart beside a neighbour",
    "a survey that finds nothing",
    "an append on a full disk",
    "a failed append",
    "a power loss",
    "torn",
    "a kill",
    "read",
    "a failed read",
    "keep",
    "keep states",
    "trim",
    "give up",
    "open",
    "damage",
    "close",
    "restart",
];
/// As the real process, which holds no more runs open than so many.
const RUNS_MAX: usize = 24;

fn result(chance: &mut Chance, at: u64, output: String) -> CheckResult {
    CheckResult {
        check: CheckId(u32::try_from(chance.between(1, 5)).unwrap()),
        grant: Grant(5),
        scheduled: Timestamp::from_millis(1),
        started: Timestamp::from_millis(i64::try_from(at).unwrap()),
        duration_us: 0,
        exit: Some(Exit::Ran(0)),
        passive: false,
        output,
        long_output: String::new(),
        perfdata: String::new(),
        metrics: Vec::new(),
        authenticated: None,
        after: CheckState { state: State::Ok, ..CheckState::pending(3) },
        command: chance.one_in(6).then_some(JournalIndex(at)),
        offset_ms: None,
    }
}

fn batch(
    chance: &mut Chance,
    timeline: Timeline,
    run: RunId,
    counter: RunCounter,
    after: u64,
    now: u64,
) -> SpooledBatch {
    let count = chance.between(1, 3);
    let mut builder = BatchBuilder::default();
    for n in 0..count {
        // What cannot be compressed, so that lengths differ.
        let output: String = (0..chance.log_between(1, 240)).map(|_| char::from(b'0' + byte(chance) % 64)).collect();
        builder.push(&result(chance, now + n, output));
    }
    let (first, last) = (Sequence(after + 1), Sequence(after + count));
    let header = BatchHeader { timeline, generation: Generation(1), run, counter, first, last };
    SpooledBatch { first, last, bytes: Bytes::from(builder.finish(&header)) }
}

fn byte(chance: &mut Chance) -> u8 {
    u8::try_from(chance.below(256)).unwrap()
}

/// Both disks under one sequence of orders.
struct Pair {
    data: PathBuf,
    weak: Arc<Weak>,
    model: Volume,
    chance: Chance,
    /// The process whose turn it is.
    me: Process,
    /// Another one of the same slot on the same volume.
    other: Option<Process>,
    now: u64,
    /// Timeline of what is made.
    timeline: Timeline,
    done: BTreeMap<&'static str, u64>,
}

impl Pair {
    fn new(data: &Path, seed: u64) -> Self {
        let mut pair = Self {
            data: data.to_owned(),
            weak: Arc::default(),
            model: Volume { limits: LIMITS, ..Volume::default() },
            chance: Chance::new(seed),
            me: Process::new(),
            other: None,
            now: 1_790_000_000_000,
            timeline: Timeline(7),
            done: BTreeMap::new(),
        };
        pair.enter();
        pair
    }

    fn identity(&mut self) -> Identity {
        Identity {
            installation: "acme".parse().unwrap(),
            slot: shared::name::Slot { region: "eu".parse().unwrap(), number: "1".parse().unwrap() },
            instance: InstanceId(self.chance.name()),
            software: "1".to_owned(),
        }
    }

    /// One order to both; the answers must be equal.
    fn both(&mut self, command: Command) -> Option<Answer> {
        let real = self.me.real.as_mut().unwrap().execute(Order::Do(command.clone()));
        let fresh = match &real {
            Some(Answer::Opened { run, .. }) => *run,
            _ => RunId([0; 16]),
        };
        let modelled = self.model.execute(self.me.seat.as_mut().unwrap(), Order::Do(command.clone()), false, fresh);
        assert_eq!(shown(&real), shown(&modelled), "{command:?}");
        self.weigh();
        real
    }

    fn count(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }

    fn append(&mut self, failure: Option<Failure>) -> Command {
        for _ in 0..self.chance.between(1, 4) {
            let batch = batch(&mut self.chance, self.timeline, self.me.open.0, self.me.open.1, self.me.made, self.now);
            self.me.made = batch.last.0;
            self.now += 1000;
            self.me.waiting.push(batch);
        }
        let mut batches = self.me.waiting.clone();
        if let Some(failure) = failure {
            self.weak.fail(failure);
            // One write: what is durable of several is another question.
            let mut bytes = 0;
            batches.retain(|batch| {
                bytes += 40 + batch.bytes.len();
                bytes <= 1900
            });
        }
        Command::Append { run: self.me.open.0, batches }
    }

    /// The process goes, and another comes. `power`: the machine went with it, and only a part of what was on its way is there.
    fn restart(&mut self, power: bool) {
        if power {
            self.lose_power();
        }
        self.end();
        self.weak.state().failure = None;
        self.enter();
    }

    fn lose_power(&mut self) {
        drop(self.me.real.take());
        let file = self.model.run(self.me.seat.as_ref().unwrap(), self.me.open.0).unwrap();
        let Some((begin, end)) = file.unsynced() else { return };
        let cut = self.chance.between(begin, end);
        let cut = if cut == end { end } else { begin.max(cut / SECTOR * SECTOR) };
        if file.lose_power(cut) {
            *self.done.entry("torn").or_default() += 1;
        }
        let segments = self.segments(self.me.open.0);
        let newest = segments.last().unwrap();
        assert!(self.weak.state().durable[newest] <= begin && fs::metadata(newest).unwrap().len() == end, "the layout");
        File::options().write(true).open(newest).unwrap().set_len(cut).unwrap();
    }

    /// The segment files of a run, oldest first.
    fn segments(&self, run: RunId) -> Vec<PathBuf> {
        let directories = fs::read_dir(self.data.join("spool")).unwrap().map(|entry| entry.unwrap().path());
        let runs = directories.filter(|path| path.is_dir()).flat_map(|path| fs::read_dir(path).unwrap());
        let named =
            runs.map(|entry| entry.unwrap().path()).find(|path| path.to_string_lossy().ends_with(&run.to_string()));
        let files = fs::read_dir(named.unwrap()).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|e| e == "seg")).collect();
        files.sort_by_key(|path| path.file_name().unwrap().to_string_lossy()[21..37].to_owned());
        files
    }

    /// A bit flips in a record, at rest.
    fn damage(&mut self) {
        drop(self.me.real.take());
        let seat = self.me.seat.take().unwrap();
        self.model.leave(&seat, false, &mut self.chance);
        let runs: Vec<RunId> = self.me.runs.iter().copied().collect();
        let run = *self.chance.pick(&runs).unwrap();
        let file = self.model.run(&seat, run).unwrap();
        let intact = file.intact();
        if intact > 0 {
            let number = usize::try_from(self.chance.below(intact as u64)).unwrap();
            let part = if self.chance.one_in(2) { Part::Head } else { Part::Body };
            let (segment, at, length) = file.place(number);
            file.damage(number, part);
            let files = self.segments(run);
            assert_eq!(files.len(), self.model.run(&seat, run).unwrap().segment_count(), "segments");
            let within = match part {
                Part::Head => self.chance.below(36),
                Part::Body => 40 + self.chance.below(length),
            };
            let file = File::options().read(true).write(true).open(&files[segment]).unwrap();
            let mut bytes = [0];
            file.read_exact_at(&mut bytes, at + within).unwrap();
            file.write_all_at(&[bytes[0] ^ (1 << self.chance.below(8))], at + within).unwrap();
        }
        self.enter();
    }

    fn read(&mut self) {
        let runs: Vec<RunId> = self.me.runs.iter().copied().collect();
        let run = *self.chance.pick(&runs).unwrap();
        let from = Sequence(self.chance.between(1, 200));
        let (bytes_max, batches_max) = (usize::try_from(self.chance.log_between(1, 8192)).unwrap(), 40);
        let mut from = from;
        // As the outbox does: on and on.
        for _ in 0..self.chance.between(1, 4) {
            let read = Command::Read { read: ReadId(1), run, from, bytes_max, batches_max };
            let Some(Answer::Read { found, .. }) = self.both(read) else { panic!("not read") };
            from = Sequence(found.through.0 + 1);
        }
    }

    /// What worlds do with an order before its end.
    fn begin(&mut self, command: &Command) {
        self.model.begin(self.me.seat.as_ref().unwrap(), &Order::Do(command.clone()));
    }

    /// An order that the real disk refuses, and the model because it is full or because it is told to.
    fn refused(&mut self, command: Command, fails: bool) {
        let real = self.me.real.as_mut().unwrap().execute(Order::Do(command.clone()));
        let modelled = self.model.execute(self.me.seat.as_mut().unwrap(), Order::Do(command), fails, RunId([0; 16]));
        assert_eq!(shown(&real), shown(&modelled));
        self.weigh();
        assert!(matches!(real, Some(Answer::AppendFailed | Answer::ReadFailed { .. })), "{real:?}");
    }

    fn read_badly(&mut self) {
        let runs: Vec<RunId> = self.me.runs.iter().copied().collect();
        let run = *self.chance.pick(&runs).unwrap();
        let read = Command::Read { read: ReadId(1), run, from: Sequence(1), bytes_max: 1 << 20, batches_max: 40 };
        self.weak.fail(Failure::Read);
        let real = self.me.real.as_mut().unwrap().execute(Order::Do(read.clone()));
        // Where there is nothing to be read, nothing fails.
        let fails = self.weak.state().failure.take().is_none();
        let modelled = self.model.execute(self.me.seat.as_mut().unwrap(), Order::Do(read), fails, RunId([0; 16]));
        assert_eq!(shown(&real), shown(&modelled));
    }

    /// The assignment, now and then of another timeline: what was made under the one before says nothing of states then.
    fn keep(&mut self) {
        if self.chance.one_in(4) {
            self.timeline = Timeline(self.chance.between(7, 8));
        }
        let identity = self.identity();
        let check = AssignedCheck {
            id: CheckId(1),
            object: "h1".parse().unwrap(),
            check: None,
            policy: Policy { check_interval_ms: self.now, retry_interval_ms: 1, timeout_ms: 1, max_attempts: 3 },
            grant: Grant(5),
            carried: None,
        };
        let assignment = Assignment { generation: Generation(self.now), checks: BTreeMap::from([(check.id, check)]) };
        self.both(Command::Keep(Box::new(Kept {
            installation: identity.installation,
            slot: identity.slot,
            timeline: self.timeline,
            seen: Seen { grant: Grant(self.now), ..Seen::default() },
            assignment,
        })));
    }

    /// States as a process would know them, covering each run up to somewhere.
    fn keep_states(&mut self) {
        let mut states = KeptStates { timeline: self.timeline, adoptions: self.me.adoptions, ..KeptStates::default() };
        let (counter, made) = (self.me.open.1, Sequence(self.me.made));
        let newest = result(&mut self.chance, self.now, "newest".to_owned());
        states.take_result(counter, made, &newest);
        let carried = Carried { state: newest.after, key: shared::delivery::Key::default() };
        states.take(CheckId(9), carried, None);
        let runs: Vec<RunId> = self.me.runs.iter().copied().collect();
        states.covered = runs.into_iter().map(|run| (run, Sequence(self.chance.below(60)))).collect();
        self.both(Command::KeepStates(Box::new(states)));
    }

    fn give_up(&mut self) {
        let Some(Answer::Measured { extents }) = self.both(Command::Measure) else { panic!("not measured") };
        let open = self.me.open.0;
        let old: Vec<(RunId, Sequence)> = extents
            .iter()
            .flat_map(|extent| {
                let newest = if extent.run == open { 1 } else { 0 };
                let pieces = extent.pieces.len().saturating_sub(newest);
                extent.pieces.iter().take(pieces).map(|piece| (extent.run, piece.last))
            })
            .collect();
        if let Some((run, up_to)) = self.chance.pick(&old).copied() {
            let first = Sequence(self.chance.between(1, up_to.0.max(1)));
            let reason = if self.chance.one_in(2) { "spool-full" } else { "spool-age" };
            self.both(Command::GiveUp { run, first, up_to, reason });
        }
    }

    fn step(&mut self) {
        if let Some(other) = &mut self.other
            && self.chance.one_in(2)
        {
            std::mem::swap(&mut self.me, other);
        }
        let drawn = self.chance.below(100);
        let what = match drawn {
            0..36 => {
                let append = self.append(None);
                self.both(append);
                self.me.waiting.clear();
                "append"
            }
            36..38 => self.come_or_go(),
            38..40 => self.survey(),
            40..46 => {
                let failure = if self.chance.one_in(2) { Failure::Write } else { Failure::Sync };
                let append = self.append(Some(failure));
                self.model.full = failure == Failure::Write;
                self.begin(&append);
                self.refused(append, failure == Failure::Sync);
                (self.model.full, self.weak.state().failure) = (false, None);
                if failure == Failure::Write { "an append on a full disk" } else { "a failed append" }
            }
            46..52 => {
                // The process goes while it appends: what it wrote is there, or what of it the power loss has left.
                let power = self.chance.one_in(2);
                if power {
                    self.be_alone();
                }
                let append = self.append(Some(Failure::Sync));
                self.me.real.as_mut().unwrap().execute(Order::Do(append.clone()));
                self.begin(&append);
                self.restart(power);
                if power { "a power loss" } else { "a kill" }
            }
            52..66 => {
                self.read();
                "read"
            }
            66..68 => {
                self.read_badly();
                "a failed read"
            }
            68..70 => {
                self.keep();
                "keep"
            }
            70..74 => {
                self.keep_states();
                "keep states"
            }
            74..80 => {
                let runs: Vec<RunId> = self.me.runs.iter().copied().collect();
                let run = *self.chance.pick(&runs).unwrap();
                let up_to = Sequence(self.chance.between(0, 150));
                self.both(Command::Trim { run, up_to });
                "trim"
            }
            80..88 => {
                self.give_up();
                "give up"
            }
            88..91 => {
                self.me.waiting.clear();
                if let Some(Answer::Opened { run, counter }) = self.both(Command::OpenRun) {
                    self.me.runs.insert(run);
                    (self.me.open, self.me.made) = ((run, counter), 0);
                }
                "open"
            }
            91..96 => {
                self.damage();
                "damage"
            }
            96..98 => {
                let old: Vec<RunId> = self.me.runs.iter().copied().filter(|run| *run != self.me.open.0).collect();
                if let Some(run) = self.chance.pick(&old).copied() {
                    self.both(Command::CloseRun(run));
                    self.me.runs.remove(&run);
                }
                "close"
            }
            _ => {
                self.restart(false);
                if self.other.is_some() { "a restart beside a neighbour" } else { "restart" }
            }
        };
        self.count(what);
    }
}

/// An answer as it is compared: which run is named first means nothing.
fn shown(answer: &Option<Answer>) -> String {
    match answer {
        Some(Answer::Measured { extents }) => {
            let extents: BTreeMap<RunId, &Vec<Piece>> =
                extents.iter().map(|extent| (extent.run, &extent.pieces)).collect();
            format!("{extents:?}")
        }
        other => format!("{other:?}"),
    }
}

#[test]
fn the_model_of_a_disk_answers_as_the_real_one() {
    let (operations, seed) = crate::simulation::asked();
    eprintln!("{operations} operations, PERIGEE_SEED={seed}");
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let mut pair = Pair::new(directory.path(), seed);
    (0..operations).for_each(|_| pair.step());
    pair.restart(false);
    let unseen: Vec<&str> = SEEN.into_iter().filter(|what| !pair.done.contains_key(what)).collect();
    assert!(operations < MANY || unseen.is_empty(), "never {unseen:?}: {:?}", pair.done);
    crate::figure::figure(
        18,
        &format!("{operations} orders to the model of a disk and to the real one, seed {seed}: every answer equal"),
    );
}
