//! A wall clock that was set: found by comparing it with the monotonic clock of the same process. Both programs ask the same way.
//! Knows no clock: the two times come in together. The surprise: a machine that slept is a step too, because monotonic time stands
//! still meanwhile; for everything that is timed it is one.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::{Monotonic, Timestamp};

/// Less than this between two looks is drift or slewing (chrony slews by at most a twelfth), no step, in milliseconds.
pub const STEP_MS: i64 = 500;
/// Steps remembered; the oldest is forgotten beyond.
pub const STEPS_MAX: usize = 16;

/// A step that was noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Counted from 1 since the process began.
    pub number: u64,
    /// By how much the clock was set, in milliseconds; forward is positive.
    pub by_ms: i64,
    /// When it was noticed.
    pub noticed: Monotonic,
}

/// Looks at a wall clock.
#[derive(Debug, Default)]
pub struct StepWatch {
    last: Option<(Monotonic, Timestamp)>,
    count: u64,
    steps: VecDeque<Step>,
}

impl StepWatch {
    /// Both clocks at one moment: the step since the look before, if there was one.
    pub fn look(&mut self, now: Monotonic, wall: Timestamp) -> Option<Step> {
        let (before, shown) = self.last.replace((now, wall))?;
        let passed = i64::try_from(now.since(before).as_millis()).unwrap_or(i64::MAX);
        let by_ms = wall.as_millis().saturating_sub(shown.as_millis()).saturating_sub(passed);
        if by_ms.saturating_abs() < STEP_MS {
            return None;
        }
        self.count += 1;
        let step = Step { number: self.count, by_ms, noticed: now };
        if self.steps.len() == STEPS_MAX {
            self.steps.pop_front();
        }
        self.steps.push_back(step);
        Some(step)
    }

    /// What is remembered, oldest first.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter()
    }

    /// How much the clock was set since something began that took `passed` and is told of at `now`. `told`: the wall time at which it
    /// ended by what it noted itself. Zero if it noted its times by the clock as it is now.
    #[must_use]
    pub fn set_since_beginning(&self, now: Monotonic, wall: Timestamp, passed: Duration, told: Timestamp) -> i64 {
        // A look may come a moment after what it finds.
        const SLACK: Duration = Duration::from_secs(10);
        let recent = self.steps.iter().filter(|step| now.since(step.noticed) <= passed + SLACK);
        let off = wall.as_millis().saturating_sub(told.as_millis());
        // Newest first: the sum of the last n steps is what the clock was set by since n steps ago.
        let mut sum = 0_i64;
        let mut best = (off.saturating_abs(), 0);
        for step in recent.rev() {
            sum = sum.saturating_add(step.by_ms);
            best = best.min((off.saturating_sub(sum).saturating_abs(), sum));
        }
        best.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 1_790_000_000_000;

    fn at(millis: u64) -> Monotonic {
        Monotonic(millis * 1_000_000)
    }

    fn wall(millis: i64) -> Timestamp {
        Timestamp::from_millis(START + millis)
    }

    #[test]
    fn a_clock_is_set_when_it_goes_on_by_another_amount_than_time_does() {
        // (milliseconds passed, milliseconds shown, noticed)
        let table = [
            (1000, 1000, None),
            (5000, 4600, None),
            (5000, 5499, None),
            (5000, 5500, Some(500)),
            (5000, 4500, Some(-500)),
            (1, 3_600_001, Some(3_600_000)),
            (1000, -3_599_000, Some(-3_600_000)),
            (1000, -START, Some(-START - 1000)),
        ];
        for (passed, shown, noticed) in table {
            let mut watch = StepWatch::default();
            assert_eq!(watch.look(at(10), wall(0)), None, "the first look compares with nothing");
            let step = watch.look(at(10 + passed), wall(shown));
            assert_eq!(step.map(|step| (step.number, step.by_ms)), noticed.map(|by| (1, by)), "{passed} {shown}");
            assert_eq!(watch.look(at(10 + passed), wall(shown)), None, "once");
        }
    }

    #[test]
    fn a_slow_drift_is_never_a_step_and_old_steps_are_forgotten() {
        let mut watch = StepWatch::default();
        for look in 0..100_000_u64 {
            let drifted = i64::try_from(look * 5000 + look * 400).unwrap();
            assert_eq!(watch.look(at(look * 5000), wall(drifted)), None);
        }
        for look in 0..40_u64 {
            let set = if look % 2 == 0 { 60_000 } else { 0 };
            watch.look(at(1_000_000_000 + look), wall(1_000_000_000 + set));
        }
        assert_eq!(watch.steps().count(), STEPS_MAX);
        assert_eq!(watch.steps().last().unwrap().number, 40);
    }

    #[test]
    fn what_began_before_a_step_is_told_by_the_clock_before_it() {
        for by in [3_600_000, -3_600_000, 700] {
            let mut watch = StepWatch::default();
            watch.look(at(0), wall(0));
            watch.look(at(5000), wall(5000 + by));
            let passed = Duration::from_millis(4000);
            let now = at(6000);
            let shown = wall(6000 + by);
            // Noted its beginning before the step, and after it.
            assert_eq!(watch.set_since_beginning(now, shown, passed, wall(6000)), by);
            assert_eq!(watch.set_since_beginning(now, shown, passed, wall(6000 + by)), 0);
            // Long afterwards nothing that comes in can have begun before.
            assert_eq!(watch.set_since_beginning(at(60_000), wall(60_000 + by), passed, wall(60_000)), 0);
        }
    }
}
