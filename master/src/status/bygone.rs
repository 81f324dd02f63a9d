//! Commands of timelines that a restore has ended. Nobody is told of them any more; what of them was applied before still comes, and of
//! one command history has one result. Folds; decides nothing. The surprise: what the backup does not name any more was answered and
//! logged before it was made, what came after the backup is known by its results alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use minicbor::{Decode, Encode};
use shared::name::{CheckId, JournalIndex, Timeline};
use shared::time::Timestamp;

use super::command::COMMANDS_REMEMBERED_MAX;
use super::{REMEMBER, Status};

/// Timelines that this store continues. Beyond it the oldest is forgotten, and a second result of one of its commands is logged.
const ANCESTORS_MAX: usize = 256;

/// A command of a timeline that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct Bygone {
    #[n(0)]
    check: CheckId,
    /// When it was given, or its result came into history: the journal's time, since no satellite's clock decides what is remembered.
    #[n(1)]
    at: Timestamp,
    /// A result of it stands in history.
    #[n(2)]
    logged: bool,
}

/// An index of a timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
struct Place {
    #[n(0)]
    timeline: Timeline,
    #[n(1)]
    index: JournalIndex,
}

/// A timeline that a restore has ended, up to the row that the backup ends with.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct Ancestor {
    #[n(0)]
    timeline: Timeline,
    #[n(1)]
    head: JournalIndex,
}

/// What is remembered of them, [`COMMANDS_REMEMBERED_MAX`] at most: beyond it the oldest sixteenth is forgotten. Of what is forgotten,
/// a further result is logged where the command came after the backup, and no result where it came before.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub(super) struct BygoneCommands {
    #[n(0)]
    commands: BTreeMap<Place, Bygone>,
    #[n(1)]
    ancestors: Vec<Ancestor>,
}

impl BygoneCommands {
    fn remember(&mut self, place: Place, bygone: Bygone) {
        if self.commands.len() >= COMMANDS_REMEMBERED_MAX && !self.commands.contains_key(&place) {
            self.forget_oldest();
        }
        self.commands.insert(place, bygone);
    }

    /// Timelines are drawn by chance: age alone tells which commands are the oldest. Many go at once, for they must be looked for.
    fn forget_oldest(&mut self) {
        let mut oldest: Vec<(Timestamp, Place)> =
            self.commands.iter().map(|(place, known)| (known.at, *place)).collect();
        oldest.sort_unstable();
        for (_, place) in oldest.into_iter().take(COMMANDS_REMEMBERED_MAX / 16) {
            self.commands.remove(&place);
        }
    }
}

impl Status {
    /// Whether history has a result of this command of another timeline already.
    #[must_use]
    pub fn is_repeated_of(&self, timeline: Timeline, check: CheckId, index: JournalIndex) -> bool {
        let place = Place { timeline, index };
        match self.bygone.commands.get(&place) {
            Some(known) => known.logged || known.check != check,
            // The backup had nothing more to wait for.
            None => {
                self.bygone.ancestors.iter().any(|ancestor| ancestor.timeline == timeline && index <= ancestor.head)
            }
        }
    }

    /// A result that names this command of another timeline stands in history now.
    pub(super) fn fold_bygone(&mut self, timeline: Timeline, check: CheckId, index: JournalIndex, at: Timestamp) {
        Arc::make_mut(&mut self.bygone).remember(Place { timeline, index }, Bygone { check, at, logged: true });
    }

    /// The timeline `from` ends with its row `head`: nobody is told its commands any more. Who was told may have done what the backup
    /// calls undone, and a result of yesterday is no state of today: whoever wants it asks again.
    pub(super) fn leave_commands(&mut self, from: Timeline, head: JournalIndex, now: Timestamp) {
        let left = std::mem::take(&mut self.commands);
        self.count_waiting();
        let bygone = Arc::make_mut(&mut self.bygone);
        bygone.commands.retain(|_, known| now.since(known.at) < REMEMBER);
        for (index, errand) in left.iter() {
            let known = Bygone { check: errand.check, at: errand.at, logged: errand.logged };
            bygone.remember(Place { timeline: from, index: *index }, known);
        }
        let surplus = (bygone.ancestors.len() + 1).saturating_sub(ANCESTORS_MAX);
        bygone.ancestors.drain(..surplus);
        bygone.ancestors.push(Ancestor { timeline: from, head });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_bound_the_oldest_are_forgotten_whatever_their_timeline_is_called() {
        let at = |n: u64| Timestamp::from_millis(1_790_000_000_000 + i64::try_from(n).unwrap());
        let bound = u64::try_from(COMMANDS_REMEMBERED_MAX).unwrap();
        // The later timeline has the lower number, as half of them do.
        let place = |n: u64| Place { timeline: Timeline(if n < bound / 2 { 900 } else { 7 }), index: JournalIndex(n) };
        let mut bygone = BygoneCommands::default();
        for n in 0..bound + 100 {
            bygone.remember(place(n), Bygone { check: CheckId(1), at: at(n), logged: true });
            assert!(bygone.commands.len() <= COMMANDS_REMEMBERED_MAX);
        }
        let forgotten: Vec<u64> = (0..bound + 100).filter(|n| !bygone.commands.contains_key(&place(*n))).collect();
        assert_eq!(forgotten, (0..bound / 16).collect::<Vec<_>>());
    }
}
