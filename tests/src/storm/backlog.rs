//! Backlog to be offered: one run of batches, full of results of a check that the slot owns, in words that do not compress well.

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use shared::assignment::AssignedCheck;
use shared::check::{Exit, State};
use shared::delivery::{BatchBuilder, BatchHeader};
use shared::frame::Lane;
use shared::message::{HeldRun, LaneBytes, ToMaster};
use shared::name::{CheckId, Generation, Grant, RunCounter, RunId, Sequence, Timeline};
use shared::result::CheckResult;
use shared::state::CheckState;
use shared::time::Timestamp;

/// Random letters of each result; two results of every three bytes stay when compressed.
const LETTERS: usize = 3000;

/// What a slot owns, as far as a result needs it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owned {
    check: CheckId,
    grant: Grant,
    host: bool,
}

impl Owned {
    pub(super) fn of(check: &AssignedCheck) -> Self {
        Self { check: check.id, grant: check.grant, host: check.object.is_host() }
    }
}

/// A run of batches that the master does not have.
#[derive(Debug)]
pub(super) struct Backlog {
    pub(super) run: RunId,
    /// Last sequence and bytes.
    pub(super) batches: Vec<(Sequence, Bytes)>,
}

impl Backlog {
    /// So many full batches.
    pub(super) fn new(owned: Owned, timeline: Timeline, generation: Generation, batches: usize) -> Self {
        let mut draw = StdRng::from_seed(rand::random());
        let run = RunId(draw.random());
        let mut made = Vec::with_capacity(batches);
        let mut last = 0;
        for _ in 0..batches {
            let first = last + 1;
            let mut builder = BatchBuilder::default();
            while !builder.is_full() {
                last += 1;
                builder.push(&result(owned, last, &mut draw));
            }
            let (first, last) = (Sequence(first), Sequence(last));
            let header = BatchHeader { timeline, generation, run, counter: RunCounter(1), first, last };
            made.push((last, Bytes::from(builder.finish(&header))));
        }
        Self { run, batches: made }
    }

    pub(super) fn last(&self) -> Sequence {
        self.batches.last().map_or(Sequence(0), |(last, _)| *last)
    }

    /// As hello names it.
    pub(super) fn held(&self) -> HeldRun {
        HeldRun { run: self.run, counter: RunCounter(1), first: Sequence(1), last: self.last(), open: false }
    }

    /// The batches above a position.
    pub(super) fn above(&self, position: Sequence) -> Vec<Bytes> {
        self.batches.iter().filter(|(last, _)| *last > position).map(|(_, bytes)| bytes.clone()).collect()
    }
}

/// Asks for credit for all of these.
pub(super) fn wanted(batches: &[Bytes]) -> ToMaster {
    let bytes = batches.iter().map(|batch| u64::try_from(batch.len()).unwrap_or(u64::MAX)).sum();
    ToMaster::Wanted(LaneBytes { lane: Lane::Backlog, bytes })
}

fn result(owned: Owned, number: u64, draw: &mut StdRng) -> CheckResult {
    let at = Timestamp::from_millis(jiff::Timestamp::now().as_millisecond());
    let state = if owned.host { State::Up } else { State::Ok };
    CheckResult {
        check: owned.check,
        grant: owned.grant,
        scheduled: at,
        started: at,
        duration_us: 1000,
        exit: Some(Exit::Ran(0)),
        passive: false,
        output: format!("backlog {number}"),
        long_output: (0..LETTERS).map(|_| char::from(draw.random_range(b'!'..=b'~'))).collect(),
        perfdata: String::new(),
        metrics: Vec::new(),
        authenticated: None,
        after: CheckState { state, ..CheckState::pending(1) },
        command: None,
        offset_ms: None,
    }
}
