//! How long to wait before the next attempt to reach the master: doubling from 1 s to 60 s, with full jitter so that a thousand
//! satellites do not come back at once. Pure: chance comes in as a number.
//! The surprise: a road that is only cut is knocked at every few seconds for as long as it takes, for state has to be right ten
//! seconds after it has healed, and what is known of a road outlives a process: its volume tells. A road that never carried an answer
//! is more likely a closed firewall, and sees a burst of packets a minute.

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
    /// Nothing comes back, and nothing is known to have come back ever.
    Silent,
    /// Nothing comes back now, but this slot has had a link: this process, or one before it on the same volume.
    Cut,
}

impl Road {
    /// By the last attempt and by what was before it: `silent` if nothing came back at all, `linked_before` if there was a link ever.
    #[must_use]
    pub fn of(silent: bool, linked_before: bool) -> Self {
        match (silent, linked_before) {
            (false, _) => Self::Answering,
            (true, false) => Self::Silent,
            (true, true) => Self::Cut,
        }
    }
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
    fn a_road_that_once_carried_a_link_is_cut_and_not_silent() {
        assert_eq!(Road::of(true, true), Road::Cut);
        assert_eq!(Road::of(true, false), Road::Silent);
        assert_eq!([Road::of(false, true), Road::of(false, false)], [Road::Answering; 2]);
    }

    /// When packets leave, in milliseconds, if nothing ever answers: each attempt sends at once and again after 1, 3 and 7 s (RFC 9002,
    /// 6.2.1: the first wait doubles each time), and ends after 10 s.
    fn knocks(road: Road, attempts: u32, chance: impl Fn(u32) -> f64) -> Vec<u64> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap();
        let (mut at, mut sent) = (0, Vec::new());
        for attempt in 1..=attempts {
            sent.extend([0, 1_000, 3_000, 7_000].map(|after| at + after));
            at += millis(crate::link::CONNECT_DEADLINE) + millis(pause(road, attempt, chance(attempt)));
        }
        sent
    }

    fn widest(sent: &[u64]) -> u64 {
        sent.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap()
    }

    /// Ten seconds after a heal the state is right: half of them are left to the handshake and to the states.
    #[test]
    fn no_five_seconds_pass_without_a_packet_on_a_cut_road_from_the_first_attempt_on() {
        for chance in [0.0, 0.5, 1.0] {
            assert!(widest(&knocks(Road::Cut, 100, |_| chance)) <= 5_000, "{chance}");
        }
        assert!(widest(&knocks(Road::Silent, 100, |_| 0.0)) > 50_000, "a firewall is spared");
    }

    /// Evenly spread and the same each time (splitmix64).
    fn part(number: u64) -> f64 {
        let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        f64::from(u32::try_from(mixed >> 32).unwrap()) / f64::from(u32::MAX)
    }

    /// After a `kill -9` of the master, which tells all at once, the first wait spreads a crowd over one second: a quarter of it in a
    /// quarter of that. The storm of claim 20 is that. A crowd that knocks is not to come closer together when its road heals, a minute
    /// after the cut or at any later time.
    #[test]
    fn a_crowd_that_was_cut_off_at_one_moment_comes_back_no_closer_together_than_after_a_kill() {
        const QUARTER: u64 = 250;
        let crowd: Vec<Vec<u64>> = (0..1_000_u64)
            .map(|satellite| knocks(Road::Cut, 60, |attempt| part(satellite * 64 + u64::from(attempt))))
            .collect();
        for healed in (60_000_u64..600_000).step_by(250) {
            let mut quarters = [0; 21];
            for sent in &crowd {
                let first = sent[sent.partition_point(|at| *at < healed)] - healed;
                quarters[usize::try_from(first / QUARTER).unwrap()] += 1;
            }
            let most = quarters.iter().max().unwrap();
            assert!(*most <= 250, "{most} of a thousand within a quarter of a second, healed after {healed} ms");
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
