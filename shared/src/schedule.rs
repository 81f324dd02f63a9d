//! Which check is due when: a fixed place on the master's wall axis, so that nothing drifts, restarts pile nothing up, and a
//! check that moves to another slot keeps its phase. Knows no clock; the next due time is a function of the last run.

use std::hash::Hasher;
use std::time::Duration;

use siphasher::sip::SipHasher13;

use crate::name::CheckId;
use crate::time::Timestamp;

/// A check without any result, or with a changed question, runs within this or its interval, whichever is shorter.
pub const FIRST_RUN_WITHIN: Duration = Duration::from_secs(30);

/// The check's stable hash. Part of the contract: satellites of different versions must place a check alike.
fn place(check: CheckId) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(0x7065_7269_6765_6500, 0x7363_6865_6475_6c65);
    hasher.write(&check.0.to_be_bytes());
    hasher.finish()
}

fn millis(interval: Duration) -> i64 {
    i64::try_from(interval.as_millis()).unwrap_or(i64::MAX).max(1)
}

/// The check's offset within its interval, in milliseconds.
///
/// One hash serves every interval: where the retry interval divides the check interval, the two grids coincide and the first
/// retry comes exactly one retry interval after the problem.
fn phase(check: CheckId, interval: i64) -> i64 {
    i64::try_from(place(check) % interval.unsigned_abs()).unwrap_or(0)
}

/// The smallest `phase + k × interval` that lies above `last`, in the master's time.
#[must_use]
pub fn next_due(check: CheckId, interval: Duration, last: Timestamp) -> Timestamp {
    let interval = millis(interval);
    let phase = phase(check, interval);
    let steps = last.as_millis().saturating_sub(phase).div_euclid(interval).saturating_add(1);
    Timestamp::from_millis(phase.saturating_add(steps.saturating_mul(interval)))
}

/// When a check without any result runs first: spread over min(interval, [`FIRST_RUN_WITHIN`]) from `now`.
#[must_use]
pub fn first_due(check: CheckId, interval: Duration, now: Timestamp) -> Timestamp {
    let within = millis(interval.min(FIRST_RUN_WITHIN));
    now.plus(Duration::from_millis(phase(check, within).unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_of_the_grid_comes_once_and_in_order() {
        for id in 0..200 {
            let check = CheckId(id);
            let interval = Duration::from_secs(60);
            let mut last = Timestamp::from_millis(1_790_000_000_000 + i64::from(id) * 977);
            for _ in 0..5 {
                let due = next_due(check, interval, last);
                assert!(due > last && due.since(last) <= interval);
                assert_eq!(next_due(check, interval, due).since(due), interval);
                last = due;
            }
        }
    }

    #[test]
    fn a_late_run_does_not_move_the_grid() {
        let check = CheckId(7);
        let due = next_due(check, Duration::from_secs(60), Timestamp::from_millis(1_790_000_000_000));
        let late = due.plus(Duration::from_millis(1234));
        assert_eq!(next_due(check, Duration::from_secs(60), late), due.plus(Duration::from_secs(60)));
    }

    #[test]
    fn the_first_retry_is_one_retry_interval_away() {
        let check = CheckId(99);
        let due = next_due(check, Duration::from_secs(60), Timestamp::from_millis(1_790_000_000_000));
        assert_eq!(next_due(check, Duration::from_secs(15), due), due.plus(Duration::from_secs(15)));
    }

    #[test]
    fn checks_spread_over_the_interval() {
        let interval = Duration::from_secs(60);
        let start = Timestamp::from_millis(1_790_000_000_000);
        let mut buckets = [0_u32; 60];
        for id in 0..6000 {
            let at = next_due(CheckId(id), interval, start).since(start).as_millis();
            buckets[usize::try_from((at - 1) / 1000).unwrap()] += 1;
        }
        assert!(buckets.iter().all(|&n| (50..=160).contains(&n)), "{buckets:?}");
    }

    #[test]
    fn new_checks_run_soon() {
        let now = Timestamp::from_millis(5);
        for id in 0..500 {
            assert!(first_due(CheckId(id), Duration::from_secs(3600), now).since(now) < FIRST_RUN_WITHIN);
            assert!(first_due(CheckId(id), Duration::from_secs(2), now).since(now) < Duration::from_secs(2));
        }
    }

    #[test]
    fn times_before_the_epoch_are_placed_too() {
        let due = next_due(CheckId(1), Duration::from_secs(60), Timestamp::from_millis(-120_000));
        assert!(due > Timestamp::from_millis(-120_000) && due <= Timestamp::from_millis(-60_000));
    }
}
