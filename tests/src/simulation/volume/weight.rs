//! How much a process has on a volume, how much of that may not go at present, and how old the oldest of the rest is. What may go is
//! said by docs/DESIGN.md, section 5: whole segments that the states on disk contain, and never the newest of the open run, nor of one
//! that is delivered and not closed.

use std::collections::BTreeMap;

use satellite::command::{Piece, Room};
use satellite::outbox::bounds::{FREE_FLOOR, FREE_SHARE};
use shared::name::{RunCounter, RunId, Sequence};
use shared::time::Timestamp;

use super::{Directory, Seat, Volume};

/// Of one process's runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::simulation) struct Weight {
    /// Bytes of all runs.
    pub(in crate::simulation) held: u64,
    /// How many of them may not go now.
    pub(in crate::simulation) pinned: u64,
    /// When the oldest segment that may go ended: when what follows it began, in the master's time as well as it was known; and its run.
    pub(in crate::simulation) oldest: Option<(Timestamp, RunId)>,
}

impl Volume {
    fn used(&self) -> u64 {
        self.directories.values().flat_map(|directory| directory.runs.values()).map(super::RunFile::bytes).sum()
    }

    /// It takes nothing any more; or where its size is known, `others` fill it until less is free than is left to them. Whether it was not
    /// so before.
    pub(in crate::simulation) fn fill(&mut self, others: bool) -> bool {
        if self.full || self.taken > 0 {
            return false;
        }
        if others && self.size > 0 {
            let left = FREE_FLOOR.min(self.size / FREE_SHARE);
            self.taken = self.size.saturating_sub(self.used() + left * 3 / 4);
        } else {
            self.full = true;
        }
        true
    }

    /// There is room again.
    pub(in crate::simulation) fn empty_out(&mut self) {
        (self.full, self.taken) = (false, 0);
    }

    /// Nothing can be written at present.
    pub(in crate::simulation) fn refuses(&self) -> bool {
        self.full || (self.size > 0 && self.taken + self.used() >= self.size)
    }

    /// How much room there is for this process.
    pub(in crate::simulation) fn room(&self, seat: &Seat) -> Room {
        let held =
            Self::places(seat).filter_map(|id| self.directories.get(&id)).flat_map(|directory| directory.runs.values());
        let held = held.map(super::RunFile::bytes).sum();
        Room { held, free: self.size.saturating_sub(self.taken + self.used()), size: self.size }
    }

    /// What a process has, and what of it may go. `told`: up to where the master has told it to have each run; `u64::MAX` of one that it
    /// closed.
    pub(in crate::simulation) fn weigh(&self, seat: &Seat, told: &BTreeMap<RunId, u64>) -> Weight {
        let own = self.directories.get(&seat.own);
        let states = own.and_then(|own| own.states.as_ref());
        let open = own.and_then(|own| own.runs.iter().map(|(run, file)| (file.counter, *run)).max());
        let directories = Self::places(seat).filter_map(|id| self.directories.get(&id));
        let mut runs: Vec<(RunCounter, RunId, Vec<Piece>)> = directories.flat_map(Directory::in_pieces).collect();
        runs.sort_by_key(|(counter, run, _)| (*counter, *run));
        let mut weight = Weight::default();
        for (number, (counter, run, pieces)) in runs.iter().enumerate() {
            let covered = states.and_then(|states| states.covered.get(run)).copied().unwrap_or(Sequence(0));
            let told = told.get(run).copied().unwrap_or_default();
            let made = pieces.last().map_or(0, |newest| newest.last.0);
            let stays = Some((*counter, *run)) == open || (told >= made && told != u64::MAX);
            let free = if stays { pieces.len().saturating_sub(1) } else { pieces.len() };
            let may_go = pieces.iter().take(free).take_while(|piece| piece.last <= covered).count();
            let next_run = runs.get(number + 1).and_then(|(.., pieces)| pieces.first()).and_then(|piece| piece.begun);
            for (at, piece) in pieces.iter().enumerate() {
                weight.held += piece.bytes;
                if at >= may_go {
                    weight.pinned += piece.bytes;
                    continue;
                }
                let ended = pieces.get(at + 1).map_or_else(|| next_run.max(piece.begun), |next| next.begun);
                weight.oldest = [weight.oldest, ended.map(|ended| (ended, *run))].into_iter().flatten().min();
            }
        }
        weight
    }
}

impl Directory {
    fn in_pieces(&self) -> impl Iterator<Item = (RunCounter, RunId, Vec<Piece>)> {
        self.runs.iter().map(|(run, file)| (file.counter, *run, file.pieces()))
    }
}
