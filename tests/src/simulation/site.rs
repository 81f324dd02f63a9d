//! One satellite process of a world: its brain, its seat at a volume, what its disk and its probes still have to do. Carries the
//! brain's orders and answers as `satellite::run` does; decides nothing.

use std::collections::{BTreeMap, VecDeque};

use satellite::clock::Now;
use satellite::command::{Command, ProbeId};
use satellite::scheduler::Scheduler;
use satellite::spool::{Answer, Order};
use shared::assignment::AssignedCheck;
use shared::delivery::Key;
use shared::frame::Lane;
use shared::name::{CheckId, InstanceId, RunId, Slot, Timeline};
use shared::time::{Monotonic, Timestamp};

use super::volume::Seat;

/// When every world begins, by a clock that is right.
pub(super) const BEGIN_MS: i64 = 1_790_000_000_000;

/// A wall clock that is wrong.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct WallClock {
    /// Set wrong by so much.
    pub(super) offset_ms: i64,
    /// Runs fast by so much; negative: slow.
    pub(super) drift_ppm: i64,
}

impl WallClock {
    /// What it shows. `now` is in nanoseconds since the world began.
    #[must_use]
    pub(super) fn at(&self, now: u64) -> Timestamp {
        let millis = i64::try_from(now / 1_000_000).unwrap_or(i64::MAX);
        Timestamp::from_millis(BEGIN_MS + millis + self.drifted_ms(now) + self.offset_ms)
    }

    /// How far it has drifted since the world began.
    #[must_use]
    pub(super) fn drifted_ms(&self, now: u64) -> i64 {
        i64::try_from(now / 1_000_000).unwrap_or(i64::MAX) * self.drift_ppm / 1_000_000
    }
}

/// A living process.
#[derive(Debug)]
pub(super) struct Site {
    /// Which slot its certificate names.
    pub(super) slot: Slot,
    /// Which volume it works on.
    pub(super) volume: usize,
    /// Its name.
    pub(super) instance: InstanceId,
    /// Its brain.
    pub(super) scheduler: Scheduler,
    /// What it has of the volume.
    pub(super) seat: Seat,
    /// Its machine's clock.
    pub(super) clock: WallClock,
    /// Orders for the disk; the front one is being done if `disk_busy`.
    pub(super) orders: VecDeque<Order>,
    /// The disk works.
    pub(super) disk_busy: bool,
    /// Executions under way.
    pub(super) probes: BTreeMap<ProbeId, AssignedCheck>,
    /// What it was told of the master's positions on the last link; `u64::MAX` of a run that the master closed.
    pub(super) told: BTreeMap<RunId, u64>,
    /// Last sequences of batches sent on the present link, by lane, that it was not told to be there.
    pub(super) unacknowledged: BTreeMap<Lane, Vec<(RunId, u64)>>,
    /// Deadline that is waited for.
    pub(super) wake: Option<u64>,
    /// It stands still until then.
    pub(super) paused_until: u64,
    /// Failed attempts to reach the master in a row.
    pub(super) failures: u32,
    /// The master has sent a frame on the present link.
    pub(super) served: bool,
    /// And on some link since the process began, or to one before it on its volume.
    pub(super) linked_before: bool,
    /// Told to end; done by then whatever is left.
    pub(super) ends_by: Option<u64>,
    /// When its disk refused results last.
    pub(super) refused: Option<u64>,
    /// Results given up on its volume.
    pub(super) given_up: u64,
    /// Nobody starts it again.
    pub(super) extra: bool,
    /// Of the version before: it knows the first protocol and nothing since.
    pub(super) old: bool,
}

impl Site {
    /// Both clocks of the process.
    #[must_use]
    pub(super) fn now(&self, now: u64) -> Now {
        Now { monotonic: Monotonic(now), wall: self.clock.at(now) }
    }

    /// An answer of the disk on its way to the brain.
    pub(super) fn answered(&mut self, now: Now, answer: Answer) {
        let scheduler = &mut self.scheduler;
        match answer {
            Answer::Opened { run, counter } => scheduler.handle_opened(now, run, counter),
            Answer::OpenFailed => scheduler.handle_open_failed(now),
            Answer::Appended { run, up_to } => scheduler.handle_appended(now, run, up_to),
            Answer::AppendFailed => scheduler.handle_append_failed(now),
            Answer::Read { read, found } => scheduler.handle_read(now, read, &found),
            Answer::ReadFailed { read } => scheduler.handle_read_failed(now, read),
            Answer::Trimmed { run, first } => scheduler.handle_trimmed(run, first),
            Answer::Measured { extents } => scheduler.handle_measured(now, &extents),
            Answer::GivenUp { run, up_to, lost } => {
                self.given_up += lost;
                scheduler.handle_given_up(now, run, up_to, lost);
            }
            Answer::GiveUpFailed => scheduler.handle_give_up_failed(now),
            Answer::Kept => scheduler.handle_kept(now),
            Answer::KeepFailed => scheduler.handle_keep_failed(now),
            Answer::StatesKept => scheduler.handle_states_kept(now),
            Answer::StatesFailed => scheduler.handle_states_failed(now),
            Answer::Neighbours { alive, adopted } => scheduler.handle_neighbours(now, alive, adopted),
        }
    }

    /// The next order of the brain.
    pub(super) fn poll(&mut self) -> Option<Command> {
        self.scheduler.poll_command()
    }

    /// The timeline of those keys.
    #[must_use]
    pub(super) fn timeline(&self) -> Option<Timeline> {
        self.scheduler.timeline()
    }

    /// The key of each state its brain knows.
    #[must_use]
    pub(super) fn keys(&self) -> BTreeMap<CheckId, Key> {
        self.scheduler.states().iter().map(|(id, known)| (*id, known.key)).collect()
    }
}
