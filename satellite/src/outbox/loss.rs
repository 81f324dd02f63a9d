//! What of a run is no longer on the volume, said in its place: given up and named, damaged, or acknowledged to a master that was
//! restored since, be it the beginning of a run or all of one that was deleted. Decides only which sequences and which reason; knows no disk.

use shared::defect::Defect;
use shared::delivery::{GapRecord, reason};
use shared::frame::Lane;
use shared::name::Sequence;

use super::gap::{self, Span};
use super::run::Place;
use super::{Outbox, Sending};
use crate::command::ReadBatches;

impl Outbox {
    /// What lies below the first record on the volume: given up, and told so, or acknowledged before. Whether there was room for it.
    pub(super) fn send_given_up(&mut self, lane: Lane, place: Place, found: &ReadBatches) -> bool {
        let below = Sequence(found.trimmed_below.0.saturating_sub(1));
        for gap in found.lost.iter().filter(|gap| gap.last <= below) {
            if !self.send_unheld(lane, place, Sequence(gap.first.0.saturating_sub(1))) {
                return false;
            }
            self.send_lost(lane, place, gap.last, &found.lost, Span::default());
            if self.runs.get(&place).is_some_and(|run| run.sent < gap.last) {
                return false;
            }
        }
        if let Some(run) = self.runs.get_mut(&place) {
            run.first = run.first.max(found.trimmed_below);
        }
        self.send_unheld(lane, place, below)
    }

    /// What was trimmed unnamed was acknowledged: a master that does not have it was restored from an older backup. Whether there was
    /// room to say so.
    fn send_unheld(&mut self, lane: Lane, place: Place, last: Sequence) -> bool {
        let Some(run) = self.runs.get(&place) else { return true };
        let (sent, last) = (run.sent, last.min(run.durable));
        if last <= sent {
            return true;
        }
        if !self.has_room(lane) {
            return false;
        }
        let first = Sequence(sent.0.saturating_add(1));
        // Results before and behind are there, or are told by their own times: only an end of the run says when it was.
        let from = run.span.from.filter(|_| sent == Sequence(0));
        let to = run.span.to.filter(|_| run.gone && last == run.durable);
        let gap = GapRecord { first, last, reason: reason::LOST_BY_RESTORE.to_owned(), from, to };
        let payload = self.gathering.gap(place, &gap);
        self.send(lane, place, last, payload);
        true
    }

    /// Names runs that were deleted and that the master does not have any more, oldest first, as far as there is room.
    pub(super) fn send_gone(&mut self) {
        if self.sending != Sending::Yes {
            return;
        }
        let gone = self.runs.iter().filter(|(_, run)| run.gone && run.lags());
        let gone: Vec<(Place, Sequence)> = gone.map(|(place, run)| (*place, run.durable)).collect();
        for (place, last) in gone {
            if !self.send_unheld(Lane::Backlog, place, last) {
                return;
            }
        }
    }

    /// Says that everything above what was sent, up to `last`, can no longer be read; the next reading says it if there is no room.
    pub(super) fn send_lost(&mut self, lane: Lane, place: Place, last: Sequence, lost: &[GapRecord], around: Span) {
        let Some(run) = self.runs.get(&place) else { return };
        let last = last.min(run.durable);
        if self.defects.has(Defect::DamageUntold) {
            self.runs.entry(place).and_modify(|run| run.sent = run.sent.max(last));
            return;
        }
        for gap in gap::divide(run.sent, last, lost, around) {
            if !self.has_room(lane) {
                return;
            }
            let payload = self.gathering.gap(place, &gap);
            self.tell_given_up(place.1, gap.last);
            self.send(lane, place, gap.last, payload);
        }
    }
}
