//! How long to wait before the next attempt to reach the master: doubling from 1 s to 60 s, with full jitter so that a thousand
//! satellites do not come back at once. Pure: chance comes in as a number.
//! The surprise: a road that is only cut is knocked at every few seconds for as long as it takes, for state has to be right ten
//! seconds after it has healed; a road that never carried an answer is more likely a closed firewall, and sees a packet a minute.

use std::time::Duration;

/// Longest wait after the first failure.
pub const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// Longest wait after many failures, and after the master gave this connection's place to newer ones.
pub const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// On a road that is cut the wait is between the half of this and this. An attempt sends at 0, 1, 3 and 7 s and ends after 10 s,
/// so no more than 5 s pass between two packets.
pub const KNOCK: Duration = Duration::from_secs(2);
/// On a road that never carried anything the wait is at least this in the end: with the 10 s of the attempt itself one burst of
/// packets a minute, and no more than a minute between the last packet of one and the first of the next.
pub const SILENT_MIN: Duration = Duration::from_secs(50);
/// And at most so much longer.
pub const SILENT_SPREAD: Duration = Duration::from_secs(5);

/// What the last attempt says of the road to the master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Road {
    /// The master has answered, only not with a link: it is to be spared.
    Answering,
    /// Nothing has ever come back since this process started.
    Silent,
    /// Nothing comes back now, but this process has had a link.
    Cut,
}

/// How long to wait after so many failures in a row; `chance` as in [`wait`].
#[must_use]
pub fn pause(road: Road, failures: u32, chance: f64) -> Duration {
    let longest = longest(failures);
    match road {
        Road::Cut if longest >= KNOCK => KNOCK / 2 + wait(KNOCK / 2, chance),
        Road::Silent if longest >= BACKOFF_MAX => SILENT_MIN + wait(SILENT_SPREAD, chance),
        Road::Answering | Road::Silent | Road::Cut => wait(longest, chance),
    }
}

/// Longest wait after so many failures in a row.
#[must_use]
pub fn longest(failures: u32) -> Duration {
    let doubled = 2u32.saturating_pow(failures.saturating_sub(1));
    BACKOFF_FIRST.saturating_mul(doubled).min(BACKOFF_MAX)
}

/// The wait itself: `chance` of `longest`, with `chance` between 0 and 1 (anything else counts as the nearer of the two).
#[must_use]
pub fn wait(longest: Duration, chance: f64) -> Duration {
    let chance = if chance.is_nan() { 1.0 } else { chance.clamp(0.0, 1.0) };
    longest.mul_f64(chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute() {
        let seconds: Vec<u64> = (0..10).map(|failures| longest(failures).as_secs()).collect();
        assert_eq!(seconds, [1, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(longest(u32::MAX), BACKOFF_MAX);
    }

    #[test]
    fn a_cut_road_is_knocked_at_for_as_long_as_it_takes() {
        assert_eq!(pause(Road::Cut, 1, 0.0), Duration::ZERO);
        for failures in [2, 7, 1_000, u32::MAX] {
            assert_eq!(pause(Road::Cut, failures, 0.0), Duration::from_secs(1));
            assert_eq!(pause(Road::Cut, failures, 1.0), KNOCK);
        }
    }

    #[test]
    fn a_road_that_never_answered_sees_one_attempt_a_minute_and_one_that_answers_is_spared() {
        for failures in [7, 8, u32::MAX] {
            assert_eq!(pause(Road::Silent, failures, 0.0), SILENT_MIN);
            assert_eq!(pause(Road::Silent, failures, 1.0), SILENT_MIN + SILENT_SPREAD);
            assert_eq!(pause(Road::Answering, failures, 0.0), Duration::ZERO);
            assert_eq!(pause(Road::Answering, failures, 1.0), BACKOFF_MAX);
        }
        assert_eq!(pause(Road::Silent, 3, 1.0), pause(Road::Answering, 3, 1.0));
    }

    #[test]
    fn chance_takes_any_part_of_the_wait() {
        assert_eq!(wait(BACKOFF_MAX, 0.0), Duration::ZERO);
        assert_eq!(wait(BACKOFF_MAX, 0.5), Duration::from_secs(30));
        assert_eq!(wait(BACKOFF_MAX, 1.0), BACKOFF_MAX);
        for odd in [-1.0, 2.0, f64::NAN, f64::INFINITY] {
            assert!(wait(BACKOFF_MAX, odd) <= BACKOFF_MAX);
        }
    }
}
