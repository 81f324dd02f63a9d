//! Soft and hard: old state + observation → new state + what changed. Pure; run by the owner of a check alone, everyone else
//! folds what the owner decided. Icinga 2's rules with our differences F1 (PENDING is a state of its own: the first problem is
//! attempt 1) and F4 (a host's flapping counts UP/DOWN). Knows nothing of notification.

use minicbor::{Decode, Encode};
use serde::Serialize;

use crate::check::State;
use crate::time::Timestamp;

/// Results that the flapping ring remembers (Icinga's and Nagios' number).
pub const FLAPPING_RESULTS: u32 = 20;

/// Whether a state is still being confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize)]
#[cbor(index_only)]
#[serde(rename_all = "UPPERCASE")]
pub enum StateType {
    /// Seen fewer than `max_attempts` times in a row.
    #[n(0)]
    Soft,
    /// Confirmed.
    #[n(1)]
    Hard,
}

/// The state of one check, as its owner decided it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct CheckState {
    /// Newest observation.
    #[n(0)]
    pub state: State,
    /// Soft or hard.
    #[n(1)]
    pub state_type: StateType,
    /// Attempt as Icinga stores it: counts while soft, 1 while hard.
    #[n(2)]
    pub attempt: u32,
    /// The `max_check_attempts` this was decided with.
    #[n(3)]
    pub max_attempts: u32,
    /// When `state` last changed.
    #[n(4)]
    pub since: Timestamp,
    /// When the hard state last changed.
    #[n(5)]
    pub hard_since: Timestamp,
    /// The last hard state.
    #[n(6)]
    pub hard: State,
    /// The last [`FLAPPING_RESULTS`] results, newest in bit 0: 1 where a result differed from the one before.
    #[n(7)]
    pub flapping: u32,
}

/// How a check is confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirmation {
    /// Problems in a row that make a state hard; at least 1.
    pub max_attempts: u32,
}

/// What one result did to a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// The observation differs from the one before.
    pub state_change: bool,
    /// A state became hard, or one hard state followed another.
    pub hard_change: bool,
    /// From a problem (soft or hard) back to good; PENDING → good is none (F5).
    pub recovery: bool,
}

impl CheckState {
    /// A check that has no result yet.
    #[must_use]
    pub const fn pending(max_attempts: u32) -> Self {
        Self {
            state: State::Pending,
            state_type: StateType::Soft,
            attempt: 0,
            max_attempts,
            since: Timestamp::EPOCH,
            hard_since: Timestamp::EPOCH,
            hard: State::Pending,
            flapping: 0,
        }
    }

    /// Takes one observation in. `at` is the end of its execution. A host's observation must be UP or DOWN.
    #[must_use]
    pub fn apply(self, observed: State, confirmation: Confirmation, at: Timestamp) -> (Self, Transition) {
        let max_attempts = confirmation.max_attempts.max(1);
        let problem = observed.is_problem();
        let (state_type, attempt) = if !problem {
            (StateType::Hard, 1)
        } else {
            let attempt = match (self.state.is_problem(), self.state_type) {
                (true, StateType::Hard) => None,
                (true, StateType::Soft) => Some(self.attempt.saturating_add(1)),
                (false, _) => Some(1),
            };
            match attempt {
                // What is hard stays hard, whatever kind of problem follows.
                None => (StateType::Hard, 1),
                Some(attempt) if attempt >= max_attempts => (StateType::Hard, 1),
                Some(attempt) => (StateType::Soft, attempt),
            }
        };
        let state_change = observed != self.state;
        let hard_change = state_type == StateType::Hard && observed != self.hard;
        let first = self.state == State::Pending;
        let next = Self {
            state: observed,
            state_type,
            attempt,
            max_attempts,
            since: if state_change { at } else { self.since },
            hard_since: if hard_change { at } else { self.hard_since },
            hard: if state_type == StateType::Hard { observed } else { self.hard },
            flapping: ((self.flapping << 1) | u32::from(state_change && !first)) & ((1 << FLAPPING_RESULTS) - 1),
        };
        (next, Transition { state_change, hard_change, recovery: self.state.is_problem() && !problem })
    }

    /// The attempt as operators know it: `max_attempts` while a problem is hard (3/3), never 0.
    #[must_use]
    pub fn shown_attempt(&self) -> u32 {
        if self.state_type == StateType::Hard && self.state.is_problem() {
            self.max_attempts
        } else {
            self.attempt.max(1)
        }
    }

    /// How much this check flaps, in percent: Icinga's weights, from 0.8 for the oldest of the ring to 1.18 for the newest.
    #[must_use]
    pub fn flapping_percent(&self) -> f64 {
        let weight = |age: u32| 0.8 + 0.02 * f64::from(FLAPPING_RESULTS - 1 - age);
        let sum: f64 = (0..FLAPPING_RESULTS).filter(|age| self.flapping >> age & 1 == 1).map(weight).sum();
        sum * 100.0 / f64::from(FLAPPING_RESULTS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use State::{Critical, Down, Ok, Unknown, Up, Warning};

    /// Runs observations and writes each state as Icinga's tables do: type, attempt, `!` for a hard change, `R` for a recovery.
    fn run(max_attempts: u32, start: CheckState, observed: &[State]) -> String {
        let mut state = start;
        let mut line = Vec::new();
        for (second, &seen) in observed.iter().enumerate() {
            let at = Timestamp::from_millis(1000 * i64::try_from(second + 1).unwrap());
            let (next, transition) = state.apply(seen, Confirmation { max_attempts }, at);
            state = next;
            let kind = if state.state_type == StateType::Hard { "H" } else { "S" };
            let hard = if transition.hard_change { "!" } else { "" };
            let recovery = if transition.recovery { "R" } else { "" };
            line.push(format!("{kind}{}{hard}{recovery}", state.attempt));
        }
        line.join(" ")
    }

    fn good(max_attempts: u32, state: State) -> CheckState {
        CheckState::pending(max_attempts).apply(state, Confirmation { max_attempts }, Timestamp::EPOCH).0
    }

    #[test]
    fn icingas_vectors_hold() {
        let table: &[(u32, CheckState, &[State], &str)] = &[
            (3, good(3, Ok), &[Critical, Critical, Critical, Critical, Ok], "S1 S2 H1! H1 H1!R"),
            (3, good(3, Ok), &[Critical, Ok], "S1 H1R"),
            (3, good(3, Ok), &[Warning, Critical, Critical, Warning, Ok], "S1 S2 H1! H1! H1!R"),
            (1, good(1, Ok), &[Critical, Warning, Ok], "H1! H1! H1!R"),
            (3, good(3, Up), &[Down, Down, Down, Down, Up, Up], "S1 S2 H1! H1 H1!R H1"),
            (3, good(3, Ok), &[Unknown, Ok, Unknown, Unknown, Unknown], "S1 H1R S1 S2 H1!"),
        ];
        for (max, start, observed, expected) in table {
            assert_eq!(&run(*max, *start, observed), expected, "max {max}: {observed:?}");
        }
    }

    #[test]
    fn first_problem_after_pending_is_attempt_one() {
        assert_eq!(run(3, CheckState::pending(3), &[Critical, Critical, Critical]), "S1 S2 H1!");
        assert_eq!(run(1, CheckState::pending(1), &[Critical]), "H1!");
    }

    #[test]
    fn first_good_result_is_no_recovery() {
        assert_eq!(run(3, CheckState::pending(3), &[Ok]), "H1!");
    }

    #[test]
    fn lowering_the_bound_acts_at_the_next_result() {
        let (soft, _) = good(5, Ok).apply(Critical, Confirmation { max_attempts: 5 }, Timestamp::from_millis(1));
        assert_eq!(run(2, soft, &[Critical]), "H1!");
    }

    #[test]
    fn hard_problems_show_their_full_count() {
        let (hard, _) = good(1, Ok).apply(Critical, Confirmation { max_attempts: 1 }, Timestamp::EPOCH);
        assert_eq!(hard.shown_attempt(), 1);
        let mut state = good(3, Ok);
        for _ in 0..3 {
            state = state.apply(Critical, Confirmation { max_attempts: 3 }, Timestamp::EPOCH).0;
        }
        assert_eq!((state.attempt, state.shown_attempt()), (1, 3));
    }

    #[test]
    fn flapping_rises_as_in_icingas_table() {
        let mut state = good(3, Ok);
        let mut shown = Vec::new();
        for n in 0..20 {
            let observed = if n % 2 == 0 { Critical } else { Ok };
            state = state.apply(observed, Confirmation { max_attempts: 3 }, Timestamp::EPOCH).0;
            shown.push(format!("{:.1}", state.flapping_percent()));
        }
        assert_eq!(&shown[..7], ["5.9", "11.7", "17.4", "23.0", "28.5", "33.9", "39.2"]);
        assert_eq!((shown[11].as_str(), shown[19].as_str()), ("64.2", "99.0"));
    }
}
