//! Results on their way out: into batches, onto the volume, to the master, and off the volume once acknowledged. Decides when a
//! batch closes, which run it belongs to and what is sent on which lane. Knows no disk and no link.
//! The surprise: what is not sent at once is forgotten and read back from the volume, so a slow or absent master costs no memory
//! but the two windows.

pub mod bounds;
pub mod credit;
pub mod ended;
pub mod gap;
pub mod gathering;
pub mod grace;
mod loss;
pub mod run;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use shared::defect::{Defect, Defects};
use shared::delivery::{RUNS_UNDELIVERED_MAX, decode_header};
use shared::frame::Lane;
use shared::message::{self, HeldRun, LaneBytes, RunPosition, ToMaster};
use shared::name::{Generation, RunCounter, RunId, Sequence, Timeline};
use shared::result::CheckResult;
use shared::time::Monotonic;

use crate::command::{Command, FoundRun, ReadBatches, ReadId, Remembered};
use bounds::Bounds;
use credit::{Allowance, AtHand};
use ended::Memory;
use gap::Span;
use gathering::{Gathering, RETRY_AFTER};
use run::{Place, Run};

/// Bytes of the live lane at hand or unacknowledged; at the bound sending waits for an acknowledgement. The master's credit is a
/// second bound, mostly a lower one.
pub const LIVE_WINDOW_BYTES: usize = 2 * 1024 * 1024;
/// The same for the backlog lane.
pub const BACKLOG_WINDOW_BYTES: usize = 1024 * 1024;
/// Unacknowledged batches of one lane. Below the frames a lane of the link can queue, so that the link always has room. A batch may
/// be a single result, a hundred of them come a second, and on a bad road a word and its acknowledgement take several seconds.
pub const WINDOW_BATCHES: usize = 500;
/// Runs named in Hello, the oldest and the open one; further ones are delivered without being named first.
pub const HELLO_RUNS_MAX: usize = 2048;

#[derive(Debug)]
struct Reading {
    read: ReadId,
    place: Place,
}

/// How far sending has come on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    /// No connection, or the master has not told its positions.
    No,
    /// A new run is being opened; what was made before becomes backlog.
    Opening,
    Yes,
}

/// Closed batches that are not on the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InMemory {
    /// Their bytes.
    pub bytes: usize,
    /// How many of them only say that results are gone.
    pub gaps: usize,
}

/// All the results this process has to deliver.
#[derive(Debug)]
pub struct Outbox {
    runs: BTreeMap<Place, Run>,
    open: Place,
    gathering: Gathering,
    sending: Sending,
    /// A run was asked for and not yet given: a second one is never asked for meanwhile.
    opening: bool,
    live: Allowance,
    backlog: Allowance,
    live_read: Option<Reading>,
    backlog_read: Option<Reading>,
    read_retry: Option<Monotonic>,
    reads: u64,
    bounds: Bounds,
    memory: Memory,
    /// See [`WINDOW_BATCHES`].
    window_batches: usize,
    commands: VecDeque<Command>,
    defects: Defects,
}

impl Outbox {
    /// With the run opened for this process and those that earlier processes left.
    #[must_use]
    pub fn new(open: &FoundRun, earlier: &[FoundRun]) -> Self {
        let mut outbox = Self {
            runs: BTreeMap::new(),
            open: (open.counter, open.run),
            gathering: Gathering::new((open.counter, open.run), open.last),
            sending: Sending::No,
            opening: false,
            live: Allowance::default(),
            backlog: Allowance::default(),
            live_read: None,
            backlog_read: None,
            read_retry: None,
            reads: 0,
            bounds: Bounds::default(),
            memory: Memory::default(),
            window_batches: WINDOW_BATCHES,
            commands: VecDeque::new(),
            defects: Defects::default(),
        };
        outbox.runs.insert(outbox.open, Run::new(open));
        outbox.adopt(earlier);
        outbox
    }

    /// With another window than [`WINDOW_BATCHES`]: one that a few results fill.
    pub(crate) fn set_window(&mut self, batches: usize) {
        self.window_batches = batches;
    }

    pub(crate) fn set_defects(&mut self, defects: Defects) {
        self.defects = defects;
        self.gathering.set_defects(defects);
        self.bounds.set_defects(defects);
    }

    fn adopt(&mut self, found: &[FoundRun]) {
        for found in found {
            self.runs.entry((found.counter, found.run)).or_insert_with(|| Run::new(found));
        }
    }

    /// Earlier processes' runs were found on the volume, and what they remembered of runs.
    pub fn handle_adopted(&mut self, now: Monotonic, found: &[FoundRun], known: &BTreeMap<RunId, Remembered>) {
        self.adopt(found);
        self.remember(known);
        self.advance(now);
    }

    /// Results from here on were made under this. A batch never mixes two.
    pub fn set_origin(&mut self, now: Monotonic, timeline: Timeline, generation: Generation) {
        self.gathering.set_origin(timeline, generation);
        self.advance(now);
    }

    /// Where the next result will stand.
    #[must_use]
    pub fn next_place(&self) -> (RunCounter, Sequence) {
        let made = self.runs.get(&self.open).map_or(0, |run| run.made.0);
        (self.open.0, Sequence(made.saturating_add(1)))
    }

    /// Takes a result; it has the place that [`Outbox::next_place`] told.
    pub fn push(&mut self, now: Monotonic, result: &CheckResult) {
        let (_, sequence) = self.next_place();
        if let Some(run) = self.runs.get_mut(&self.open) {
            run.made = sequence;
            run.span.add(result.ended());
        }
        self.gathering.push(now, result);
        self.advance(now);
    }

    /// The earliest moment at which [`Outbox::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Monotonic> {
        let deadlines = [self.gathering.poll_timeout(), self.read_retry, self.bounds_timeout(), self.grace_timeout()];
        deadlines.into_iter().flatten().min()
    }

    /// A deadline has come.
    pub fn handle_timeout(&mut self, now: Monotonic) {
        self.advance(now);
    }

    /// From here on nothing lingers: the process is about to end.
    pub fn flush(&mut self, now: Monotonic) {
        self.gathering.flush();
        self.advance(now);
    }

    /// Everything up to here is durable.
    pub fn handle_appended(&mut self, now: Monotonic, run: RunId, up_to: Sequence) {
        for (place, batch) in self.gathering.appended(run, up_to) {
            if let Some(run) = self.runs.get_mut(&place) {
                run.durable = run.durable.max(batch.last);
            }
            // Live results go out of memory; whoever cannot keep up reads them back.
            let next = self.runs.get(&place).is_some_and(|run| run.sent.0.saturating_add(1) == batch.first.0);
            if place == self.open
                && next
                && self.sending == Sending::Yes
                && self.live_read.is_none()
                && self.has_room(Lane::Live)
            {
                self.send(Lane::Live, place, batch.last, batch.bytes);
            }
        }
        self.advance(now);
    }

    /// Nothing of the last append is on the volume; it is tried again.
    pub fn handle_append_failed(&mut self, now: Monotonic) {
        self.gathering.append_failed(now);
        // It may be for want of room: what is not needed must not be in the way of what is.
        self.let_go(now);
    }

    /// What the master's welcome says of credit: batches may be sent within it, and what it gives later. `None`: it gives none, and
    /// the windows are the only bound. To be told before [`Outbox::handle_welcome`].
    pub fn begin_credit(&mut self, live: Option<u64>) {
        self.live.begin(live);
        self.backlog.begin(live.map(|_| 0));
    }

    /// The master gives credit on a lane.
    pub fn handle_credit(&mut self, now: Monotonic, credit: LaneBytes) {
        match credit.lane {
            Lane::Live => self.live.give(credit.bytes),
            Lane::Backlog => self.backlog.give(credit.bytes),
            Lane::Control => return,
        }
        self.advance(now);
    }

    /// Gives back the credit that is not used. To be called with each heartbeat.
    pub fn return_surplus(&mut self) {
        if self.sending != Sending::Yes {
            return;
        }
        let lags = |lane: Lane, outbox: &Self| {
            let mut runs = outbox.runs.iter().filter(|(place, _)| (**place == outbox.open) == (lane == Lane::Live));
            runs.any(|(_, run)| run.lags())
        };
        for lane in [Lane::Live, Lane::Backlog] {
            let busy = lags(lane, self);
            if let Some(bytes) = self.allowance(lane).surplus(busy) {
                self.say(&[ToMaster::Returned(LaneBytes { lane, bytes })]);
            }
        }
    }

    fn allowance(&mut self, lane: Lane) -> &mut Allowance {
        if lane == Lane::Live { &mut self.live } else { &mut self.backlog }
    }

    /// Sends what is at hand and has credit, and asks for more if that is not all.
    fn pump(&mut self, lane: Lane) {
        let Self { live, backlog, runs, commands, .. } = self;
        let allowance = if lane == Lane::Live { live } else { backlog };
        // Acknowledged or closed meanwhile: another process has delivered it.
        let needless = |batch: &AtHand| runs.get(&batch.place).is_none_or(|run| run.position >= batch.last);
        while let Some(batch) = allowance.pop(needless) {
            commands.push_back(Command::Send { lane, payload: batch.payload });
        }
        if let Some(bytes) = allowance.want() {
            self.say(&[ToMaster::Wanted(LaneBytes { lane, bytes })]);
        }
    }

    fn say(&mut self, messages: &[ToMaster]) {
        let payloads = message::encode(messages).into_iter().map(Bytes::from);
        self.commands.extend(payloads.map(|payload| Command::Send { lane: Lane::Control, payload }));
    }

    /// The master told where it stands: sending begins, after a new run has been opened if this one has a backlog.
    pub fn handle_welcome(&mut self, now: Monotonic, positions: &[RunPosition]) {
        let positions: BTreeMap<RunId, Sequence> = positions.iter().map(|at| (at.run, at.position)).collect();
        for ((_, id), run) in &mut self.runs {
            run.welcome(positions.get(id).copied().unwrap_or_default());
        }
        let undelivered = self.runs.values().filter(|run| run.undelivered() > 0).count();
        let open_lags = self.runs.get(&self.open).is_some_and(|run| run.undelivered() > 0);
        self.sending = if self.opening {
            Sending::Opening
        } else if open_lags && (undelivered < RUNS_UNDELIVERED_MAX || self.defects.has(Defect::RunsUnbounded)) {
            self.opening = true;
            self.commands.push_back(Command::OpenRun);
            Sending::Opening
        } else {
            Sending::Yes
        };
        self.advance(now);
    }

    /// A run was opened: the one before it becomes backlog.
    pub fn handle_opened(&mut self, now: Monotonic, run: RunId, counter: RunCounter) {
        self.open = (counter, run);
        self.gathering.set_run(self.open);
        let found = FoundRun { run, counter, first: Sequence(1), last: Sequence(0) };
        self.runs.insert(self.open, Run::new(&found));
        self.opened(now);
    }

    /// No run could be opened: the present one goes on.
    pub fn handle_open_failed(&mut self, now: Monotonic) {
        self.opened(now);
    }

    fn opened(&mut self, now: Monotonic) {
        self.opening = false;
        if self.sending == Sending::Opening {
            self.sending = Sending::Yes;
        }
        self.advance(now);
    }

    /// The connection is gone: what was not acknowledged is sent again on the next one.
    pub fn handle_disconnected(&mut self) {
        self.sending = Sending::No;
        self.begin_credit(None);
        self.live_read = None;
        self.backlog_read = None;
        self.read_retry = None;
        for run in self.runs.values_mut() {
            run.rewind();
        }
    }

    fn place_of(&self, run: RunId) -> Option<Place> {
        self.runs.keys().find(|(_, id)| *id == run).copied()
    }

    /// Durable on the master's side. Unknown runs are those closed before.
    pub fn handle_ack(&mut self, now: Monotonic, ack: RunPosition) {
        let Some(run) = self.place_of(ack.run).and_then(|place| self.runs.get_mut(&place)) else { return };
        run.acknowledge(ack.position);
        self.advance(now);
    }

    /// The master needs nothing more of a run. The open one goes on all the same.
    pub fn handle_close(&mut self, now: Monotonic, run: RunId) {
        if let Some(place) = self.place_of(run).filter(|place| *place != self.open)
            && let Some(run) = self.runs.get_mut(&place)
        {
            run.acknowledge(run.durable);
            run.closed = true;
            self.advance(now);
        }
    }

    /// Up to where the states now contain each run.
    #[must_use]
    pub fn made(&self) -> BTreeMap<RunId, Sequence> {
        self.runs.iter().map(|((_, id), run)| (*id, run.made)).collect()
    }

    /// Bytes and batches that may still be taken to hand before an acknowledgement.
    fn room(&self, lane: Lane) -> (usize, usize) {
        if self.defects.has(Defect::WindowIgnored) {
            return (usize::MAX, usize::MAX);
        }
        let live = lane == Lane::Live;
        let (mut bytes, mut batches) = (0_usize, 0_usize);
        for (_, run) in self.runs.iter().filter(|(place, _)| (**place == self.open) == live) {
            bytes = run.in_flight.iter().fold(bytes, |sum, (_, bytes)| sum.saturating_add(*bytes));
            batches += run.in_flight.len();
        }
        let most = if live { LIVE_WINDOW_BYTES } else { BACKLOG_WINDOW_BYTES };
        (most.saturating_sub(bytes), self.window_batches.saturating_sub(batches))
    }

    fn has_room(&self, lane: Lane) -> bool {
        let (bytes, batches) = self.room(lane);
        bytes > 0 && batches > 0
    }

    fn send(&mut self, lane: Lane, place: Place, last: Sequence, payload: Bytes) {
        if let Some(run) = self.runs.get_mut(&place) {
            run.sent = last;
            run.in_flight.push_back((last, payload.len()));
            self.allowance(lane).push(AtHand { place, last, payload });
        }
    }

    /// Batches were read back. An answer to a question of an earlier connection is none.
    pub fn handle_read(&mut self, now: Monotonic, read: ReadId, found: &ReadBatches) {
        let Some((lane, place)) = self.take_read(read) else { return };
        if !self.send_given_up(lane, place, found) {
            self.advance(now);
            return;
        }
        let mut before: Option<&Bytes> = None;
        let ended = |batch: Option<&Bytes>| batch.and_then(|batch| gap::span(batch).to);
        for bytes in &found.batches {
            let Ok((header, _)) = decode_header(bytes) else { continue };
            let sent = self.runs.get(&place).map(|run| run.sent).unwrap_or_default();
            if header.run != place.1 || header.last <= sent {
                continue;
            }
            // What is lost before it takes its place in the window as well.
            if header.first.0 > sent.0.saturating_add(1) {
                let around = Span { from: ended(before), to: gap::span(bytes).from };
                self.send_lost(lane, place, Sequence(header.first.0.saturating_sub(1)), &found.lost, around);
            }
            if !self.has_room(lane) {
                self.advance(now);
                return;
            }
            self.send(lane, place, header.last, bytes.clone());
            before = Some(bytes);
        }
        if self.runs.get(&place).is_some_and(|run| found.through > run.sent) {
            let around = Span { from: ended(before), to: None };
            self.send_lost(lane, place, found.through, &found.lost, around);
        }
        self.advance(now);
    }

    /// The volume could not be read; asked again later.
    pub fn handle_read_failed(&mut self, now: Monotonic, read: ReadId) {
        if self.take_read(read).is_some() {
            self.read_retry = Some(now.plus(RETRY_AFTER));
        }
    }

    fn take_read(&mut self, read: ReadId) -> Option<(Lane, Place)> {
        for (lane, slot) in [(Lane::Live, &mut self.live_read), (Lane::Backlog, &mut self.backlog_read)] {
            if slot.as_ref().is_some_and(|reading| reading.read == read) {
                return slot.take().map(|reading| (lane, reading.place));
            }
        }
        None
    }

    fn ask(&mut self, lane: Lane, place: Place) -> Option<Reading> {
        let (bytes_max, batches_max) = self.room(lane);
        let from = Sequence(
            self.runs
                .get(&place)
                .filter(|run| run.lags() && bytes_max > 0 && batches_max > 0)?
                .sent
                .0
                .saturating_add(1),
        );
        self.reads += 1;
        let read = ReadId(self.reads);
        self.commands.push_back(Command::Read { read, run: place.1, from, bytes_max, batches_max });
        Some(Reading { read, place })
    }

    /// Says which runs are complete: only those the master closes once it has them.
    fn tell_complete(&mut self) {
        let mut said = Vec::new();
        for (place, run) in &mut self.runs {
            if *place != self.open && !run.told && run.is_complete() {
                run.told = true;
                said.push(ToMaster::Held(run.held(*place, false)));
            }
        }
        self.say(&said);
    }

    fn advance(&mut self, now: Monotonic) {
        self.commands.extend(self.gathering.next_append(now));
        self.settle_given_up();
        self.keep_bounds(now);
        self.release(now);
        if self.sending != Sending::No {
            self.send_gone();
            // Once for all that came to hand: one question for credit, not one a batch.
            self.pump(Lane::Live);
            self.pump(Lane::Backlog);
            self.tell_complete();
        }
        if self.read_retry.is_some_and(|retry| retry > now) || self.sending != Sending::Yes {
            return;
        }
        self.read_retry = None;
        if self.live_read.is_none() {
            self.live_read = self.ask(Lane::Live, self.open);
        }
        // Backlog takes what live leaves.
        let live_lags = self.runs.get(&self.open).is_some_and(Run::lags);
        if self.backlog_read.is_none() && !live_lags && !self.defects.has(Defect::BacklogUnsent) {
            let oldest = self.runs.iter().find(|(place, run)| **place != self.open && !run.gone && run.lags());
            self.backlog_read = oldest.map(|(place, _)| *place).and_then(|place| self.ask(Lane::Backlog, place));
        }
    }

    /// The next order.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// The runs for Hello, the first words of a new connection.
    pub fn introduce(&mut self) -> Vec<HeldRun> {
        let open = self.open;
        let older = self.runs.iter_mut().filter(|(place, _)| **place != open).take(HELLO_RUNS_MAX - 1);
        let mut held: Vec<HeldRun> = older
            .map(|(place, run)| {
                run.told = run.is_complete();
                run.held(*place, !run.told)
            })
            .collect();
        held.extend(self.runs.get(&open).map(|run| run.held(open, true)));
        held
    }

    /// Results on the volume that the master has not acknowledged.
    #[must_use]
    pub fn undelivered(&self) -> u64 {
        self.runs.values().fold(0, |sum, run| sum.saturating_add(run.undelivered()))
    }

    /// Runs held, the open one included.
    #[must_use]
    pub fn run_count(&self) -> usize {
        self.runs.values().filter(|run| !run.gone).count()
    }

    /// Whether the volume cannot be written and results are in memory only.
    #[must_use]
    pub fn memory_only(&self) -> bool {
        self.gathering.memory_only()
    }

    /// What waits in memory for the volume.
    #[must_use]
    pub fn in_memory(&self) -> InMemory {
        InMemory { bytes: self.gathering.waiting_bytes(), gaps: self.gathering.gaps_waiting() }
    }

    /// Whether everything made is on the volume.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.gathering.is_empty()
    }

    /// Whether the master has acknowledged all of the open run.
    #[must_use]
    pub fn is_live_delivered(&self) -> bool {
        self.is_durable() && self.runs.get(&self.open).is_none_or(|run| run.undelivered() == 0)
    }
}

#[cfg(test)]
mod tests;
