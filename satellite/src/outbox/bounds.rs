//! How much the spool may hold: bytes, age, and what it leaves of the volume to others. Decides when to look, and which pieces of
//! which runs are given up, oldest first; the newest piece of the open run never is. Knows no disk: it is told sizes and orders deeds.
//! What was delivered and stays for its grace goes before anything else does.
//! The surprise: below the floor of free space the spool no longer grows, but it does not shrink either: whoever fills the disk
//! cannot make it forget.

use std::collections::BTreeMap;
use std::time::Duration;

use shared::defect::{Defect, Defects};
use shared::delivery::reason;
use shared::name::{RunId, Sequence};
use shared::time::{Monotonic, Timestamp};

use super::Outbox;
use super::gathering::RETRY_AFTER;
use super::run::{Place, Run};
use crate::command::{Command, Extent, Limits, Piece, Room};

/// So much of the volume is left to others, or the share below where that is less.
pub const FREE_FLOOR: u64 = 256 * 1024 * 1024;
/// One part of so many of the volume is left to others.
pub const FREE_SHARE: u64 = 20;
/// Ages are looked at this often, or eight times within the age if that is more often.
pub const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Giving up begins at so many eighths of the bytes: while it is decided and done two appends of an eighth each may still come.
const FULL_EIGHTHS: u64 = 6;

/// The bounds and what is known about the volume.
#[derive(Debug, Default)]
pub struct Bounds {
    limits: Limits,
    room: Room,
    /// The master's time, once it is known: no age is judged by a clock that nobody has compared.
    time: Option<(Monotonic, Timestamp)>,
    /// Free space fell below the floor when so much was held; lifted when twice the floor is free.
    ceiling: Option<u64>,
    /// Sizes were asked for.
    measuring: bool,
    /// Deeds that were ordered and not answered.
    giving: usize,
    retry: Option<Monotonic>,
    look: Option<Monotonic>,
    /// Given up, and nobody can have it any more.
    given_up: u64,
    /// First and last sequence of what was given up of a run and has not been told as a gap. What the master acknowledges of it all the
    /// same was on its way when it was deleted, or had come by an earlier process: no loss.
    untold: BTreeMap<RunId, (Sequence, Sequence)>,
    /// Bytes that only the grace keeps, and bytes held, when they were looked at last.
    kept: u64,
    looked_at: u64,
    defects: Defects,
}

/// What of a run is to be given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Choice {
    run: RunId,
    first: Sequence,
    up_to: Sequence,
    reason: &'static str,
}

impl Bounds {
    pub(super) fn set_defects(&mut self, defects: Defects) {
        self.defects = defects;
    }

    fn floor(&self) -> u64 {
        FREE_FLOOR.min(self.room.size / FREE_SHARE)
    }

    /// Bytes at which the oldest go.
    fn target(&self) -> u64 {
        if self.defects.has(Defect::BytesUnbounded) {
            return u64::MAX;
        }
        let full = self.limits.bytes / 8 * FULL_EIGHTHS;
        self.ceiling.map_or(full, |ceiling| full.min(ceiling))
    }

    fn is_over(&self) -> bool {
        self.room.held > self.target()
    }

    fn handle_room(&mut self, room: Room) {
        self.room = room;
        if self.defects.has(Defect::FloorIgnored) {
            return;
        }
        // A volume whose size nobody knows has no floor.
        if room.size == 0 || room.free >= self.floor().saturating_mul(2) {
            self.ceiling = None;
        } else if room.free < self.floor() {
            self.ceiling.get_or_insert(room.held);
        }
    }

    fn look_every(&self) -> Duration {
        LOOK_EVERY.min(self.limits.age / 8).max(Duration::from_secs(1))
    }

    fn tell_time(&mut self, now: Monotonic, time: Timestamp) {
        if self.time.replace((now, time)).is_none() {
            self.look = Some(now);
        }
    }

    /// Something may go that could not when it was looked at last.
    pub(super) fn hasten(&mut self, now: Monotonic) {
        if self.look.is_some() {
            self.look = Some(now);
        }
    }

    fn poll_timeout(&self) -> Option<Monotonic> {
        if self.measuring || self.giving > 0 {
            return None;
        }
        let due = if self.is_over() { self.retry.or(self.look) } else { self.look };
        due.map(|due| self.retry.map_or(due, |retry| due.max(retry)))
    }

    fn poll(&mut self, now: Monotonic, keeps: bool) -> Option<Command> {
        if self.measuring || self.giving > 0 || self.retry.is_some_and(|retry| retry > now) {
            return None;
        }
        self.retry = None;
        // What is delivered fast is looked at before its time has come.
        let grown = keeps && self.room.held > self.looked_at.saturating_add(self.limits.kept_bytes() / 2);
        let looks = grown || self.look.is_some_and(|look| look <= now);
        if looks && self.time.is_some() {
            self.look = Some(now.plus(self.look_every()));
        }
        self.measuring = looks || self.is_over();
        self.measuring.then_some(Command::Measure)
    }

    /// The master's time, if it is known.
    pub(super) fn time(&self, now: Monotonic) -> Option<Timestamp> {
        self.time.map(|(at, time)| time.plus(now.since(at)))
    }

    /// How long what was delivered stays.
    pub(super) fn grace(&self) -> Duration {
        self.limits.grace
    }

    /// What must go. A piece goes only if the states on disk contain it. `followed`: when what follows each run began.
    fn choose(
        &self,
        now: Monotonic,
        extents: &[Extent],
        followed: &BTreeMap<RunId, Timestamp>,
        runs: &BTreeMap<Place, Run>,
        open: Place,
    ) -> Vec<Choice> {
        let extents: BTreeMap<RunId, &Extent> = extents.iter().map(|extent| (extent.run, extent)).collect();
        let time = self.time(now).filter(|_| !self.defects.has(Defect::AgeIgnored));
        let expired = time.map(|time| time.minus(self.limits.age));
        let mut surplus = {
            let held: u64 = extents.values().flat_map(|extent| &extent.pieces).map(|piece| piece.bytes).sum();
            held.saturating_sub(self.target())
        };
        let mut choices = Vec::new();
        let ordered: Vec<(&Place, &Run, &[Piece])> = runs
            .iter()
            .filter_map(|(place, run)| Some((place, run, extents.get(&place.1)?.pieces.as_slice())))
            .collect();
        for (place, run, pieces) in &ordered {
            // The newest piece of a run that is delivered and not closed tells the next process that there is something to close.
            let stays = **place == open || (run.position >= run.made && !run.closed);
            let free = if stays { pieces.len().saturating_sub(1) } else { pieces.len() };
            let may_go = pieces.iter().take(free).take_while(|piece| piece.last <= run.covered).count();
            let next_run = followed.get(&place.1).copied();
            // A piece is as old as the beginning of what follows it.
            let ended = |at: usize| match pieces.get(at + 1) {
                Some(next) => next.begun,
                None => next_run.max(pieces.get(at).and_then(|piece| piece.begun)),
            };
            let is_old = |at: usize| ended(at).zip(expired).is_some_and(|(ended, expired)| ended < expired);
            let old = (0..may_go).rev().find(|at| is_old(*at)).map_or(0, |at| at + 1);
            let mut after = run.position;
            let mut choose = |up_to: Option<&Piece>, reason| {
                if let Some(piece) = up_to {
                    let first = Sequence(after.0.saturating_add(1));
                    choices.push(Choice { run: place.1, first, up_to: piece.last, reason });
                    after = after.max(piece.last);
                }
            };
            choose(old.checked_sub(1).and_then(|at| pieces.get(at)), reason::SPOOL_AGE);
            surplus = pieces.iter().take(old).fold(surplus, |surplus, piece| surplus.saturating_sub(piece.bytes));
            let mut full = None;
            for piece in pieces.iter().take(may_go).skip(old) {
                if surplus == 0 {
                    break;
                }
                surplus = surplus.saturating_sub(piece.bytes);
                full = Some(piece);
            }
            choose(full, reason::SPOOL_FULL);
        }
        choices
    }
}

impl Outbox {
    /// The same with other bounds than [`Limits::DEFAULT`].
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.gathering.set_limits(&limits);
        self.bounds.limits = limits;
        self
    }

    /// The volume has so much room.
    pub fn handle_room(&mut self, now: Monotonic, room: Room) {
        self.bounds.handle_room(room);
        self.advance(now);
    }

    /// The master's time is this.
    pub fn handle_time(&mut self, now: Monotonic, time: Timestamp) {
        self.bounds.tell_time(now, time);
        self.advance(now);
    }

    /// The pieces of all runs: what must go is ordered to go.
    pub fn handle_measured(&mut self, now: Monotonic, extents: &[Extent]) {
        self.bounds.measuring = false;
        let held =
            extents.iter().flat_map(|extent| &extent.pieces).fold(0_u64, |sum, piece| sum.saturating_add(piece.bytes));
        let (target, most) = (self.bounds.target(), self.bounds.limits.kept_bytes());
        let followed = self.followed(extents);
        let (extents, kept) = self.thin_out(extents, held.saturating_sub(target), most);
        (self.bounds.kept, self.bounds.looked_at) = (kept, held);
        let mut choices = self.bounds.choose(now, &extents, &followed, &self.runs, self.open);
        choices.retain(|choice| !self.is_spent(choice));
        self.bounds.giving = choices.len();
        if choices.is_empty() {
            // Nothing may go at present: not even asked for a while.
            self.bounds.retry = Some(now.plus(RETRY_AFTER));
        }
        self.commands.extend(choices.into_iter().map(|Choice { run, first, up_to, reason }| Command::GiveUp {
            run,
            first,
            up_to,
            reason,
        }));
        self.advance(now);
    }

    /// When what lies on the volume behind each run began, before anything of it goes.
    fn followed(&self, extents: &[Extent]) -> BTreeMap<RunId, Timestamp> {
        let extents: BTreeMap<RunId, &Extent> = extents.iter().map(|extent| (extent.run, extent)).collect();
        let held: Vec<&Extent> = self.runs.keys().filter_map(|(_, run)| extents.get(run).copied()).collect();
        let begun = |extent: &Extent| extent.pieces.first().and_then(|piece| piece.begun);
        let pairs = held.iter().zip(held.iter().skip(1));
        pairs.filter_map(|(extent, next)| Some((extent.run, begun(next)?))).collect()
    }

    /// Whether all of a run may go that was delivered, and is too old by now to be sent to anybody.
    fn is_spent(&mut self, choice: &Choice) -> bool {
        let Some(place) = self.place_of(choice.run) else { return false };
        let spent = |run: &Run| run.is_over() && choice.first > choice.up_to && choice.up_to >= run.made;
        let spent = self.runs.get(&place).is_some_and(spent);
        if spent {
            self.spend(place);
        }
        spent
    }

    /// So many results were named a gap and deleted.
    pub fn handle_given_up(&mut self, now: Monotonic, run: RunId, up_to: Sequence, lost: u64) {
        self.bounds.giving = self.bounds.giving.saturating_sub(1);
        if lost > 0 {
            // What is given up of a run follows what was given up before, or what the master had by then.
            let first = Sequence(up_to.0.saturating_sub(lost - 1));
            self.bounds.untold.entry(run).and_modify(|(_, last)| *last = up_to).or_insert((first, up_to));
        }
        if let Some(place) = self.place_of(run)
            && let Some(run) = self.runs.get_mut(&place)
        {
            run.trimmed = run.trimmed.max(up_to.min(run.position));
        }
        self.advance(now);
    }

    /// Nothing was deleted: the gap could not be made durable, or the system refused.
    pub fn handle_give_up_failed(&mut self, now: Monotonic) {
        self.bounds.giving = self.bounds.giving.saturating_sub(1);
        self.bounds.retry = Some(now.plus(RETRY_AFTER));
        self.advance(now);
    }

    /// When [`Outbox::handle_timeout`] has to look at the bounds.
    pub(super) fn bounds_timeout(&self) -> Option<Monotonic> {
        self.bounds.poll_timeout()
    }

    /// Looks whether the bounds hold, if it is time.
    pub(super) fn keep_bounds(&mut self, now: Monotonic) {
        let keeps = self.keeps_any();
        self.commands.extend(self.bounds.poll(now, keeps));
    }

    /// Of what was given up the master may have some already.
    pub(super) fn settle_given_up(&mut self) {
        if self.bounds.untold.is_empty() {
            return;
        }
        let runs: BTreeMap<RunId, Sequence> = self.runs.iter().map(|((_, id), run)| (*id, run.position)).collect();
        self.bounds.untold.retain(|run, (first, last)| {
            // A run that is no longer here was closed: the master has all of it.
            let Some(position) = runs.get(run) else { return false };
            *first = Sequence(first.0.max(position.0.saturating_add(1)));
            first <= last
        });
    }

    /// Up to here a run's gaps are told: that much of it nobody can have any more.
    pub(super) fn tell_given_up(&mut self, run: RunId, up_to: Sequence) {
        let Some((first, last)) = self.bounds.untold.get_mut(&run) else { return };
        let next = Sequence(up_to.min(*last).0.saturating_add(1));
        self.bounds.given_up = self.bounds.given_up.saturating_add(next.0.saturating_sub(first.0));
        *first = next.max(*first);
        if *first > *last {
            self.bounds.untold.remove(&run);
        }
    }

    /// Results given up since the start, on the volume and in memory. Of what is on its way to the master it is not known yet.
    #[must_use]
    pub fn given_up(&self) -> u64 {
        let sure = |(run, (first, last)): (&RunId, &(Sequence, Sequence))| {
            let sent = self.place_of(*run).and_then(|place| self.runs.get(&place)).map_or(*last, |run| run.sent);
            last.0.saturating_add(1).saturating_sub(first.0.max(sent.0.saturating_add(1)))
        };
        let untold = self.bounds.untold.iter().map(sure).fold(0, u64::saturating_add);
        self.bounds.given_up.saturating_add(untold).saturating_add(self.gathering.given_up())
    }

    /// Whether something must go for something new to stay.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.bounds.room.held.saturating_sub(self.bounds.kept) > self.bounds.target()
    }

    /// Bytes that stay for their grace only, when they were looked at last.
    #[must_use]
    pub fn kept_bytes(&self) -> u64 {
        self.bounds.kept
    }
}

#[cfg(test)]
mod tests;
