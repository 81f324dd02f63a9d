//! Chance for the simulation: every number of a world is a function of its seed. Knows nothing of worlds.
//! The surprise: no library's generator, because a seed that found something must find it again after every update.

use std::time::Duration;

/// A stream of numbers (SplitMix64).
#[derive(Debug, Clone)]
pub struct Chance {
    state: u64,
}

impl Chance {
    /// The numbers of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 if there is none.
    pub fn below(&mut self, end: u64) -> u64 {
        self.draw().checked_rem(end).unwrap_or(0)
    }

    /// A number of `first..=last`.
    pub fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last.saturating_sub(first).saturating_add(1))
    }

    /// True once in `times`.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// From 0 up to 1, 1 excluded.
    pub fn part(&mut self) -> f64 {
        let top = u32::try_from(self.draw() >> 32).unwrap_or(0);
        f64::from(top) / (f64::from(u32::MAX) + 1.0)
    }

    /// A number of `first..=last`, small ones as likely as large ones: the exponent is what is drawn evenly. `first` is at least 1.
    pub fn log_between(&mut self, first: u64, last: u64) -> u64 {
        let (low, high) = (as_f64(first.max(1)).ln(), as_f64(last.saturating_add(1)).ln());
        let drawn = (low + self.part() * (high - low)).exp().floor();
        // Worlds are small; what does not fit into u32 is none of them.
        let drawn = (0..=32).rev().fold(0_u64, |sum, bit| {
            let with = sum + (1 << bit);
            if as_f64(with) <= drawn { with } else { sum }
        });
        drawn.clamp(first, last)
    }

    /// A time between two.
    pub fn time(&mut self, first: Duration, last: Duration) -> Duration {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.between(nanos(first), nanos(last)))
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        let count = u64::try_from(of.len()).unwrap_or(0);
        of.get(usize::try_from(self.below(count)).unwrap_or(0))
    }

    /// Sixteen bytes, for the random names of a world.
    pub fn name(&mut self) -> [u8; 16] {
        let (high, low) = (u128::from(self.draw()), u128::from(self.draw()));
        ((high << 64) | low).to_be_bytes()
    }
}

fn as_f64(number: u64) -> f64 {
    u32::try_from(number).map_or(f64::from(u32::MAX), f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_for_ever() {
        let mut chance = Chance::new(1);
        let drawn = [chance.draw(), chance.draw()];
        assert_eq!(drawn, [0x910a_2dec_8902_5cc1, 0xbeeb_8da1_658e_ec67]);
    }

    #[test]
    fn numbers_stay_within_their_bounds() {
        let mut chance = Chance::new(7);
        let (mut low, mut high) = (0, 0);
        for _ in 0..2000 {
            let drawn = chance.log_between(1, 64);
            assert!((1..=64).contains(&drawn));
            low += u64::from(drawn <= 8);
            high += u64::from(drawn > 8);
            assert!((3..=5).contains(&chance.between(3, 5)));
            assert!((0.0..1.0).contains(&chance.part()));
        }
        assert!(low > 800 && high > 800, "as many small as large: {low} {high}");
        assert_eq!((chance.below(0), chance.pick::<u8>(&[])), (0, None));
    }
}
