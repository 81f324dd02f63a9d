//! How long to wait before the next attempt to reach the master: doubling from 1 s to 60 s, with full jitter so that a thousand
//! satellites do not come back at once. Pure: chance comes in as a number. The surprise: full jitter may mean almost no wait.

use std::time::Duration;

/// Longest wait after the first failure.
pub const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// Longest wait after many failures, and after the master gave this connection's place to newer ones.
pub const BACKOFF_MAX: Duration = Duration::from_secs(60);

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
    fn chance_takes_any_part_of_the_wait() {
        assert_eq!(wait(BACKOFF_MAX, 0.0), Duration::ZERO);
        assert_eq!(wait(BACKOFF_MAX, 0.5), Duration::from_secs(30));
        assert_eq!(wait(BACKOFF_MAX, 1.0), BACKOFF_MAX);
        for odd in [-1.0, 2.0, f64::NAN, f64::INFINITY] {
            assert!(wait(BACKOFF_MAX, odd) <= BACKOFF_MAX);
        }
    }
}
