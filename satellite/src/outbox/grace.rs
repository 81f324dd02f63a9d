//! What was delivered and stays on the volume for a while: a master that is put back from a backup, or loses commits, is sent it
//! again. Decides when it goes: after its time, when it is too much, or at once when the spool needs the room. Knows no disk.
//! The surprise: nothing goes for its age while no master is there to say that it still holds it, so what was acknowledged shortly
//! before a loss outlasts the repair, however long that takes.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use shared::defect::Defect;
use shared::name::{RunId, Sequence};
use shared::time::Monotonic;

use super::run::{Noted, Place, Run};
use super::{Outbox, Sending};
use crate::command::{Command, Extent};

/// Runs all of which is delivered that stay for their grace; beyond, the oldest go. Each costs two open files, and a link that breaks
/// again and again leaves many.
pub const RUNS_KEPT_MAX: usize = 64;
/// One part of so many of the grace is as exact as its end is kept; so many moments are remembered of each run.
const STEPS: u32 = 16;

/// Up to here everything was delivered from then on.
#[derive(Debug, Clone, Copy)]
struct Mark {
    begun: Monotonic,
    since: Monotonic,
    up_to: Sequence,
}

/// Since when how much of a run is delivered: acknowledged, and in the states on disk.
#[derive(Debug, Default)]
pub struct Delivered {
    marks: VecDeque<Mark>,
}

impl Delivered {
    /// Everything up to here is delivered now.
    fn note(&mut self, now: Monotonic, up_to: Sequence, grace: Duration) {
        match self.marks.back_mut() {
            Some(last) if last.up_to >= up_to => {}
            Some(last) if now.since(last.begun) < grace / STEPS => (last.since, last.up_to) = (now, up_to),
            _ => self.marks.push_back(Mark { begun: now, since: now, up_to }),
        }
    }

    /// No more than this is delivered, whatever was noted.
    pub fn fall(&mut self, position: Sequence) {
        while self.marks.back().is_some_and(|last| last.up_to > position) {
            self.marks.pop_back();
        }
    }

    fn up_to(&self) -> Option<Sequence> {
        self.marks.back().map(|last| last.up_to)
    }

    /// Takes what is delivered for as long as `grace`.
    fn take_due(&mut self, now: Monotonic, grace: Duration) -> Option<Sequence> {
        let due = self.marks.iter().take_while(|mark| mark.since.plus(grace) <= now).count();
        self.marks.drain(..due).next_back().map(|mark| mark.up_to)
    }

    /// Forgets what goes before its time.
    fn take(&mut self, up_to: Sequence) {
        self.marks.retain(|mark| mark.up_to > up_to);
    }
}

impl Outbox {
    /// The states on disk contain each run up to here, and remember which have ended.
    pub fn handle_covered(&mut self, now: Monotonic, covered: &BTreeMap<RunId, Sequence>) {
        let mut ended = false;
        for ((_, id), run) in &mut self.runs {
            if let Some(up_to) = covered.get(id) {
                run.covered = run.covered.max(*up_to);
            }
            if run.noted == Noted::Writing {
                run.noted = Noted::Durable;
                ended = true;
            }
        }
        if ended {
            // It may have been too old, or too much, for long.
            self.bounds.hasten(now);
        }
        self.release(now);
    }

    /// What trimming has left.
    pub fn handle_trimmed(&mut self, run: RunId, first: Sequence) {
        if let Some(run) = self.place_of(run).and_then(|place| self.runs.get_mut(&place)) {
            run.first = run.first.max(first);
        }
    }

    /// When the next of what is delivered has been so for long enough.
    pub(super) fn grace_timeout(&self) -> Option<Monotonic> {
        let grace = self.bounds.grace();
        let marks = self.runs.values().filter_map(|run| run.delivered.marks.front());
        marks.map(|mark| mark.since.plus(grace)).min().filter(|_| self.sending != Sending::No)
    }

    /// Notes what is delivered, and lets go of what has been so for long enough or for which there is no place.
    pub(super) fn release(&mut self, now: Monotonic) {
        let (early, hasty) = (self.defects.has(Defect::TrimmedEarly), self.defects.has(Defect::GraceIgnored));
        let grace = if hasty { Duration::ZERO } else { self.bounds.grace() };
        let confirmed = self.sending != Sending::No;
        let mut trims = Vec::new();
        for (place, run) in self.runs.iter_mut().filter(|(_, run)| !run.gone) {
            let up_to = run.covered.min(run.position);
            if up_to > run.trimmed {
                run.delivered.note(now, up_to, grace);
            }
            let due = match (early, confirmed) {
                (true, _) => Some(run.covered),
                (false, true) => run.delivered.take_due(now, grace),
                (false, false) => None,
            };
            trims.extend(due.filter(|up_to| *up_to > run.trimmed).map(|up_to| (*place, up_to)));
        }
        for (place, up_to) in trims {
            self.trim(place, up_to);
        }
        let delivered = |run: &Run| run.has_ended() && run.covered >= run.made && !run.gone;
        let kept: Vec<Place> = self.runs.iter().filter(|(_, run)| delivered(run)).map(|(place, _)| *place).collect();
        for place in kept.iter().take(kept.len().saturating_sub(RUNS_KEPT_MAX)) {
            self.spend(*place);
        }
        self.close_delivered(now);
    }

    /// Nothing up to here stays. What was told before is told again: the segment that was the newest then has stayed.
    fn trim(&mut self, place: Place, up_to: Sequence) {
        if let Some(run) = self.runs.get_mut(&place) {
            run.trimmed = up_to.max(run.trimmed);
            run.delivered.take(up_to);
            self.commands.push_back(Command::Trim { run: place.1, up_to });
        }
    }

    /// Nothing of a run that has ended stays, if its end is remembered: whoever finds it later finds it needed again, or not.
    pub(super) fn spend(&mut self, place: Place) {
        if let Some(run) = self.runs.get_mut(&place).filter(|run| run.noted == Noted::Durable) {
            run.trimmed = run.made;
            run.delivered.take(run.made);
        }
    }

    /// All that is delivered goes now.
    pub(super) fn let_go(&mut self, now: Monotonic) {
        let all: Vec<(Place, Sequence)> =
            self.runs.iter().filter_map(|(place, run)| Some((*place, run.delivered.up_to()?))).collect();
        for (place, up_to) in all {
            self.trim(place, up_to);
        }
        self.close_delivered(now);
    }

    /// Whether anything on the volume is there for its grace only.
    pub(super) fn keeps_any(&self) -> bool {
        self.runs.values().any(|run| !run.delivered.marks.is_empty())
    }

    /// Lets the oldest pieces of what is delivered go, of which `excess` bytes or more are too much, and all beyond `most`. Returns what
    /// is left of the volume then, and how many bytes of that are delivered.
    pub(super) fn thin_out(&mut self, extents: &[Extent], mut excess: u64, most: u64) -> (Vec<Extent>, u64) {
        let mut left: BTreeMap<RunId, Extent> = extents.iter().map(|extent| (extent.run, extent.clone())).collect();
        // Oldest first: a run, how many of its pieces are delivered, and whether that is all of it.
        let mut pieces = Vec::new();
        for (place, run) in &self.runs {
            let Some(extent) = left.get(&place.1) else { continue };
            let up_to = run.delivered.up_to().unwrap_or_default().max(run.trimmed);
            let whole = *place != self.open && run.is_over() && run.noted == Noted::Durable && up_to >= run.made;
            // Trimming leaves the newest.
            let free = if whole { extent.pieces.len() } else { extent.pieces.len().saturating_sub(1) };
            let delivered = extent.pieces.iter().take(free).take_while(|piece| piece.last <= up_to);
            pieces.push((*place, delivered.copied().collect::<Vec<_>>(), whole));
        }
        let mut kept =
            pieces.iter().flat_map(|(_, pieces, _)| pieces).fold(0_u64, |sum, piece| sum.saturating_add(piece.bytes));
        excess = excess.max(kept.saturating_sub(most)).min(kept);
        for (place, pieces, whole) in pieces {
            let mut count = 0_usize;
            for piece in &pieces {
                if excess == 0 {
                    break;
                }
                excess = excess.saturating_sub(piece.bytes);
                kept = kept.saturating_sub(piece.bytes);
                count += 1;
            }
            let Some(last) = count.checked_sub(1).and_then(|at| pieces.get(at)) else { continue };
            let extent = left.get_mut(&place.1);
            let rest = extent.map_or(0, |extent| {
                extent.pieces.drain(..count);
                extent.pieces.len()
            });
            if whole && rest == 0 {
                self.spend(place);
            } else {
                self.trim(place, last.last);
            }
        }
        left.retain(|_, extent| !extent.pieces.is_empty());
        (left.into_values().collect(), kept)
    }

    /// Older runs of which nothing is needed any more go: the master has closed them and their grace is over, or they never held
    /// anything. One that held something goes after its end is remembered on disk.
    fn close_delivered(&mut self, now: Monotonic) {
        let open = self.open;
        let reading = [&self.live_read, &self.backlog_read].map(|read| read.as_ref().map(|read| read.place));
        let needless = |(place, run): (&Place, &Run)| {
            let empty = run.made == Sequence(0);
            let spent = empty || run.gone || (run.noted == Noted::Durable && run.trimmed >= run.made);
            (*place != open && !reading.contains(&Some(*place)) && run.is_over() && spent).then_some(*place)
        };
        let needless: Vec<Place> = self.runs.iter().filter_map(needless).collect();
        for place in needless {
            let Some(run) = self.runs.remove(&place) else { continue };
            if run.made > Sequence(0) {
                self.bury(now, place, &run);
            }
            if !run.gone {
                self.commands.push_back(Command::CloseRun(place.1));
            }
        }
    }
}

#[cfg(test)]
mod tests;
