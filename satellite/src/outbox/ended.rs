//! Runs that were delivered and deleted, remembered by name: a master that was put back to a time before it had them is told what it
//! lacks. Decides which are remembered, and to whom they are offered; how a gap is sent is `loss`.
//! The surprise: nobody knows what a restored store still holds, so all of a run is offered, and the master takes what it lacks.

use std::collections::BTreeMap;
use std::time::Duration;

use shared::defect::Defect;
use shared::name::{RunId, Sequence, Timeline};
use shared::time::Monotonic;

use super::run::{Noted, Place, Run};
use super::{Outbox, Sending};
use crate::command::{Ended, Remembered};

/// Ended runs remembered; beyond, the oldest are forgotten, and a restore does not name them.
pub const RUNS_REMEMBERED_MAX: usize = 1024;
/// They are forgotten after this, by the master's time: no longer does a master know the names of runs that are drained.
pub const REMEMBER: Duration = Duration::from_secs(31 * 24 * 3600);

/// What is known of runs that are deleted.
#[derive(Debug, Default)]
pub struct Memory {
    ended: BTreeMap<Place, Remembered>,
    /// Of the last welcome.
    timeline: Option<Timeline>,
}

impl Outbox {
    /// Takes in what was remembered by this volume's processes. Of a run that is held here it tells when its results ended.
    pub(crate) fn remember(&mut self, known: &BTreeMap<RunId, Remembered>) {
        for (id, known) in known {
            let place = (known.counter, *id);
            if let Some(run) = self.runs.get_mut(&place).filter(|run| !run.gone) {
                [known.from, known.to].into_iter().flatten().for_each(|at| run.span.add(at));
            } else if known.ended.is_some() {
                self.memory.ended.entry(place).and_modify(|ended| ended.join(known)).or_insert(*known);
            }
        }
        self.forget_oldest();
        if self.sending != Sending::No {
            self.offer();
        }
    }

    /// The master that welcomes is of this timeline. To be told before [`Outbox::handle_welcome`].
    pub fn begin_timeline(&mut self, timeline: Timeline) {
        if self.memory.timeline.replace(timeline) != Some(timeline) {
            // What was noted of the runs that are still here was noted for another, and their grace begins anew: this one may have them
            // from somebody else, since a moment ago.
            for run in self.runs.values_mut() {
                run.noted = Noted::No;
                run.delivered.fall(Sequence(0));
                run.trimmed = Sequence(0);
            }
        }
        self.offer();
    }

    /// Runs that ended under another timeline are to be named.
    fn offer(&mut self) {
        let Some(timeline) = self.memory.timeline else { return };
        if self.defects.has(Defect::EndedRunsForgotten) {
            return;
        }
        for (place, known) in &self.memory.ended {
            if known.ended.is_some_and(|ended| ended.timeline != timeline) {
                self.runs.entry(*place).or_insert_with(|| Run::gone(place.1, known));
            }
        }
    }

    fn known(&self, now: Monotonic, (counter, _): Place, run: &Run) -> Remembered {
        let timeline = self.memory.timeline.unwrap_or_default();
        let at = self.bounds.time(now);
        let ended = run.has_ended().then_some(Ended { timeline, at });
        Remembered { counter, last: run.made, from: run.span.from, to: run.span.to, ended }
    }

    /// A run is deleted, and remembered.
    pub(super) fn bury(&mut self, now: Monotonic, place: Place, run: &Run) {
        let known = self.known(now, place, run);
        self.memory.ended.insert(place, known);
        self.forget_oldest();
    }

    fn forget_oldest(&mut self) {
        while self.memory.ended.len() > RUNS_REMEMBERED_MAX {
            self.memory.ended.pop_first();
        }
    }

    /// What is to go to disk with the states: the runs that there are, and those that there were.
    pub fn memory(&mut self, now: Monotonic) -> BTreeMap<RunId, Remembered> {
        if let Some(time) = self.bounds.time(now) {
            let old = time.minus(REMEMBER);
            self.memory.ended.retain(|_, known| {
                // Whose time nobody knew ends now.
                known.ended.as_mut().is_some_and(|ended| *ended.at.get_or_insert(time) > old)
            });
        }
        // What these states do not say is not on disk once they are, whatever earlier ones said: a welcome opens a closed run again.
        for run in self.runs.values_mut() {
            run.noted = match run.noted {
                _ if !run.has_ended() => Noted::No,
                Noted::Durable => Noted::Durable,
                Noted::No | Noted::Writing => Noted::Writing,
            };
        }
        let mut known: BTreeMap<RunId, Remembered> =
            self.memory.ended.iter().map(|(place, known)| (place.1, *known)).collect();
        let held = self.runs.iter().filter(|(_, run)| !run.gone && run.made > Sequence(0));
        known.extend(held.map(|(place, run)| (place.1, self.known(now, *place, run))));
        known
    }

    /// Whether a run has ended and nothing on disk says so, nor is being written: it cannot be deleted.
    #[must_use]
    pub fn is_forgetful(&self) -> bool {
        self.runs.values().any(|run| !run.gone && run.noted == Noted::No && run.has_ended())
    }
}
