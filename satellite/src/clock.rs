//! The master's time as this satellite knows it: samples in, a slewed wall axis out, on which due times lie (design, section 6).
//! Knows no clock: own wall time and monotonic time come in together as [`Now`]. The surprise: there are two answers. The *axis*
//! moves steadily, at most a tenth faster or slower than real time, so that no check is skipped or run twice; the *offset* that
//! results carry is the newest truth and may jump with a clock.

use std::collections::VecDeque;
use std::time::Duration;

use shared::time::{Monotonic, Timestamp};

/// Samples of which the one with the shortest round trip counts. Older ones are forgotten.
pub const SAMPLES: usize = 8;
/// Two samples may differ by this much beyond what their round trips allow, in nanoseconds: clocks that run 1,000 ppm apart do so in
/// the time eight heartbeats take. More is a step of one of them, and what was measured before it is worth nothing.
const DRIFT_NANOS: i128 = 100 * NANOS_PER_MILLI;
/// The axis is corrected by one part in this many: an hour takes ten, and a check interval is never more than a tenth off.
const SLEW_PARTS: i128 = 10;
const NANOS_PER_MILLI: i128 = 1_000_000;

/// One moment, by both clocks of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For deadlines.
    pub monotonic: Monotonic,
    /// For records: this machine's wall clock, which may jump.
    pub wall: Timestamp,
}

/// One measured distance between the master's wall clock and our monotonic one.
#[derive(Debug, Clone, Copy)]
struct Sample {
    round_trip: Duration,
    /// Master's wall time minus our monotonic time, in nanoseconds.
    offset: i128,
}

impl Sample {
    /// Whether both may be true of clocks that were not set in between: each is off by half its round trip at most.
    fn agrees(&self, other: &Self) -> bool {
        let halves = i128::try_from((self.round_trip + other.round_trip).as_nanos() / 2).unwrap_or(i128::MAX);
        (self.offset - other.offset).abs() <= halves.saturating_add(DRIFT_NANOS)
    }
}

/// What is known of the master's clock.
#[derive(Debug)]
pub struct MasterClock {
    samples: VecDeque<Sample>,
    /// Axis minus monotonic at `since`, and where it is going, in nanoseconds.
    offset: i128,
    target: i128,
    since: Monotonic,
    /// Nothing was timed by this axis yet, so it may still be set rather than slewed.
    unused: bool,
}

fn nanos(at: Monotonic) -> i128 {
    i128::from(at.0)
}

fn wall_nanos(at: Timestamp) -> i128 {
    i128::from(at.as_millis()) * NANOS_PER_MILLI
}

fn to_timestamp(nanos: i128) -> Timestamp {
    let millis = nanos.div_euclid(NANOS_PER_MILLI);
    Timestamp::from_millis(i64::try_from(millis).unwrap_or(if millis < 0 { i64::MIN } else { i64::MAX }))
}

impl MasterClock {
    /// Without a master the own wall clock is the axis.
    #[must_use]
    pub fn new(now: Now) -> Self {
        let offset = wall_nanos(now.wall) - nanos(now.monotonic);
        Self { samples: VecDeque::new(), offset, target: offset, since: now.monotonic, unused: true }
    }

    /// Takes one exchange in: asked at `asked`, answered now, and the master's wall clock said `master` in between. True if the axis
    /// was set by it rather than slewed: places on it mean another moment now.
    pub fn handle_exchange(&mut self, asked: Monotonic, now: Monotonic, master: Timestamp) -> bool {
        let round_trip = now.since(asked);
        let middle = nanos(asked) + i128::try_from(round_trip.as_nanos() / 2).unwrap_or(0);
        let sample = Sample { round_trip, offset: wall_nanos(master) - middle };
        self.samples.retain(|known| known.agrees(&sample));
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
        let best = self.samples.iter().min_by_key(|sample| sample.round_trip).map(|best| best.offset);
        best.is_some_and(|best| self.aim(now, best))
    }

    /// The master's time is known from elsewhere: at `now` it is `master`. Replaces all samples. True as with an exchange.
    pub fn handle_clock(&mut self, now: Monotonic, master: Timestamp) -> bool {
        self.samples.clear();
        let offset = wall_nanos(master) - nanos(now);
        self.samples.push_back(Sample { round_trip: Duration::ZERO, offset });
        self.aim(now, offset)
    }

    /// A master's clock is not to be compared with another's: a new connection measures anew.
    pub fn forget_samples(&mut self) {
        self.samples.clear();
    }

    fn aim(&mut self, now: Monotonic, target: i128) -> bool {
        let before = self.offset_at(now);
        self.offset = if self.unused { target } else { before };
        self.target = target;
        self.since = now;
        self.offset != before
    }

    fn offset_at(&self, now: Monotonic) -> i128 {
        let most = (nanos(now) - nanos(self.since)).max(0) / SLEW_PARTS;
        self.offset + (self.target - self.offset).clamp(-most, most)
    }

    /// The place of `now` on the axis.
    #[must_use]
    pub fn axis(&self, now: Monotonic) -> Timestamp {
        to_timestamp(nanos(now) + self.offset_at(now))
    }

    /// From here on a check has been timed by the axis: changes are slewed.
    pub fn in_use(&mut self) {
        self.unused = false;
    }

    /// The first moment at which the axis has reached `place`; a moment that has passed is given as it was.
    #[must_use]
    pub fn moment(&self, place: Timestamp) -> Monotonic {
        let start = nanos(self.since) + self.offset;
        let ahead = wall_nanos(place) - start;
        let change = self.target - self.offset;
        let slewing = change.abs() * SLEW_PARTS;
        let elapsed = if ahead <= 0 {
            ahead
        } else if ahead >= slewing + change {
            ahead - change
        } else {
            // Rounded up, so that the axis has really arrived when a deadline made of this fires.
            let parts = SLEW_PARTS + change.signum();
            (ahead * SLEW_PARTS + parts - 1).div_euclid(parts)
        };
        Monotonic(u64::try_from((nanos(self.since) + elapsed).max(0)).unwrap_or(u64::MAX))
    }

    /// How far the axis still has to go, in milliseconds; 0 when it has arrived.
    #[must_use]
    pub fn slew_ms(&self, now: Monotonic) -> i64 {
        i64::try_from((self.target - self.offset_at(now)) / NANOS_PER_MILLI).unwrap_or(i64::MAX)
    }

    /// What to add to own wall times to have the master's, in milliseconds; `None` until it was measured.
    #[must_use]
    pub fn offset_ms(&self, now: Now) -> Option<i64> {
        let best = self.samples.iter().min_by_key(|sample| sample.round_trip)?;
        let master = to_timestamp(nanos(now.monotonic) + best.offset);
        Some(master.as_millis().saturating_sub(now.wall.as_millis()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 1_790_000_000_000;

    fn at(millis: u64) -> Monotonic {
        Monotonic(millis * 1_000_000)
    }

    fn now(millis: u64) -> Now {
        Now { monotonic: at(millis), wall: Timestamp::from_millis(START + i64::try_from(millis).unwrap()) }
    }

    #[test]
    fn without_a_master_the_own_clock_is_the_axis() {
        let clock = MasterClock::new(now(500));
        assert_eq!(clock.axis(at(1500)), Timestamp::from_millis(START + 1500));
        assert_eq!(clock.moment(Timestamp::from_millis(START + 1500)), at(1500));
        assert_eq!(clock.offset_ms(now(1500)), None);
    }

    #[test]
    fn the_shortest_round_trip_counts() {
        let mut clock = MasterClock::new(now(0));
        clock.handle_exchange(at(0), at(10), Timestamp::from_millis(START + 105));
        clock.handle_exchange(at(1000), at(3000), Timestamp::from_millis(START + 2900));
        assert_eq!(clock.offset_ms(now(3000)), Some(100));
        for n in 0..SAMPLES as u64 {
            clock.handle_exchange(at(4000 + n), at(4000 + n + 400), Timestamp::from_millis(START + 4000 + 400));
        }
        assert_ne!(clock.offset_ms(now(5000)), Some(100), "the old sample was forgotten");
    }

    #[test]
    fn a_step_of_the_own_clock_moves_the_offset_and_not_the_axis() {
        let mut clock = MasterClock::new(now(0));
        clock.handle_clock(at(0), Timestamp::from_millis(START));
        let stepped = Now { monotonic: at(1000), wall: Timestamp::from_millis(START + 1000 - 3_600_000) };
        assert_eq!(clock.offset_ms(stepped), Some(3_600_000));
        assert_eq!(clock.axis(at(1000)), Timestamp::from_millis(START + 1000));
    }

    #[test]
    fn a_step_of_the_masters_clock_is_believed_at_once_and_a_slow_answer_is_not() {
        // (round trip of the second sample, what its clock showed more than the first, what counts)
        let table = [
            (5, 0, 0),
            (5, 3_600_000, 3_600_000),
            (5, -3_600_000, -3_600_000),
            (5, 700, 700),
            (5, 50, 0),
            (2000, 900, 0),
            (2000, 1_200, 1_200),
        ];
        for (round_trip, more, counts) in table {
            let mut clock = MasterClock::new(now(0));
            clock.handle_exchange(at(0), at(4), Timestamp::from_millis(START + 2));
            let middle = 10_000 + round_trip / 2;
            let master = Timestamp::from_millis(START + i64::try_from(middle).unwrap() + more);
            clock.handle_exchange(at(10_000), at(10_000 + round_trip), master);
            let offset = clock.offset_ms(now(10_000 + round_trip)).unwrap();
            assert!((offset - counts).abs() <= 1, "{round_trip} {more}: {offset}");
        }
    }

    #[test]
    fn a_slew_in_progress_is_told_until_it_has_arrived() {
        let mut clock = MasterClock::new(now(0));
        clock.in_use();
        assert_eq!(clock.slew_ms(at(500)), 0);
        clock.handle_clock(at(1000), Timestamp::from_millis(START + 1000 - 60_000));
        let left: Vec<i64> = [1000, 301_000, 601_000, 700_000].map(|millis| clock.slew_ms(at(millis))).to_vec();
        assert_eq!(left, [-60_000, -30_000, 0, 0]);
    }

    #[test]
    fn the_axis_always_rises_and_arrives() {
        for step in [-3_600_000_i64, -7, 7, 3_600_000] {
            let mut clock = MasterClock::new(now(0));
            clock.in_use();
            clock.handle_clock(at(1000), Timestamp::from_millis(START + 1000 + step));
            let mut before = clock.axis(at(1000));
            assert_eq!(before, Timestamp::from_millis(START + 1000), "no jump");
            for millis in (2000..40_000_000).step_by(10_000) {
                let axis = clock.axis(at(millis));
                let passed = axis.since(before).as_millis();
                assert!(axis > before && passed <= 11_000, "{step}: {passed}");
                before = axis;
            }
            assert_eq!(clock.axis(at(40_000_000)), Timestamp::from_millis(START + 40_000_000 + step));
        }
    }

    #[test]
    fn a_deadline_made_of_a_place_is_never_early() {
        for step in [-3_600_000_i64, -1, 0, 1, 3_600_000] {
            let mut clock = MasterClock::new(now(0));
            clock.in_use();
            clock.handle_clock(at(1000), Timestamp::from_millis(START + 1000 + step));
            for ahead in [1, 2, 3, 7, 999, 60_001, 7_777_777, 35_999_999, 50_000_000] {
                let place = Timestamp::from_millis(START + 1000 + ahead);
                let moment = clock.moment(place);
                assert!(clock.axis(moment) >= place, "{step} {ahead}");
                assert!(clock.axis(Monotonic(moment.0 - 2_000_000)) < place, "{step} {ahead}: not late either");
            }
        }
    }
}
