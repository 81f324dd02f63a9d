//! One direction of a bad road: what becomes of a datagram, and when it arrives. The time comes in, chance is the seed's.
//! Knows no socket. The surprise: a road that holds back one datagram of four and lets the others pass reorders, and so does jitter,
//! because nothing here keeps an order; the rate alone does.

use std::time::Duration;

use crate::simulation::chance::Chance;

/// Bytes that wait for a slow road at most; what comes then is lost, as in a modem's buffer.
const QUEUE_BYTES: u64 = 64 * 1024;
/// So much later does a datagram come that is held back or is a copy.
const HELD: Duration = Duration::from_millis(40);

/// How bad a direction is. Chances are parts of 1; nothing set is a good road.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Profile {
    /// From one end to the other.
    pub delay: Duration,
    /// Up to so much more, drawn for each datagram.
    pub jitter: Duration,
    /// Lost one by one.
    pub loss: f64,
    /// Lost in bursts.
    pub burst: Option<Burst>,
    /// Held back, so that later ones overtake.
    pub reorder: f64,
    /// Delivered twice.
    pub duplicate: f64,
    /// Delivered with one bit turned over.
    pub corrupt: f64,
    /// Bytes a second; more waits, and too much is lost.
    pub rate: Option<u64>,
    /// Datagrams with more payload vanish without a word.
    pub largest: Option<usize>,
    /// Nothing passes.
    pub cut: bool,
}

/// A road that is good for a while and then loses everything for a while (Gilbert).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Burst {
    /// Chance, per datagram, that a good road becomes a bad one.
    pub begins: f64,
    /// Chance, per datagram, that a bad one becomes good again.
    pub ends: f64,
}

/// What a direction did so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Datagrams that came.
    pub came: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Lost because the road was cut.
    pub cut: u64,
    /// Lost because they were too large.
    pub too_large: u64,
    /// Lost because too much waited already.
    pub overrun: u64,
    /// Held back.
    pub held: u64,
    /// Delivered twice.
    pub doubled: u64,
    /// Delivered damaged.
    pub damaged: u64,
}

/// A direction.
#[derive(Debug, Clone)]
pub struct Road {
    chance: Chance,
    bad: bool,
    free_at: Duration,
    /// What it did.
    pub counts: Counts,
}

impl Road {
    /// A road whose chances are those of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { chance: Chance::new(seed), bad: false, free_at: Duration::ZERO, counts: Counts::default() }
    }

    /// When the datagram arrives: not at all, once, or twice. May change it.
    pub fn pass(&mut self, profile: &Profile, now: Duration, datagram: &mut [u8]) -> Vec<Duration> {
        let bytes = u64::try_from(datagram.len()).unwrap_or(u64::MAX);
        self.counts.came += 1;
        self.counts.bytes += bytes;
        if profile.cut {
            self.counts.cut += 1;
            return Vec::new();
        }
        if profile.largest.is_some_and(|largest| datagram.len() > largest) {
            self.counts.too_large += 1;
            return Vec::new();
        }
        if let Some(burst) = profile.burst {
            let turns = if self.bad { burst.ends } else { burst.begins };
            self.bad ^= self.happens(turns);
        }
        if (profile.burst.is_some() && self.bad) || self.happens(profile.loss) {
            self.counts.lost += 1;
            return Vec::new();
        }
        let Some(leaves) = self.leaves(profile, now, bytes) else {
            self.counts.overrun += 1;
            return Vec::new();
        };
        if self.happens(profile.corrupt) {
            self.counts.damaged += 1;
            let bit = self.chance.below(bytes.saturating_mul(8));
            if let Some(byte) = usize::try_from(bit / 8).ok().and_then(|at| datagram.get_mut(at)) {
                *byte ^= 1 << (bit % 8);
            }
        }
        let mut arrives = leaves + profile.delay + self.chance.time(Duration::ZERO, profile.jitter);
        if self.happens(profile.reorder) {
            self.counts.held += 1;
            arrives += HELD;
        }
        if self.happens(profile.duplicate) {
            self.counts.doubled += 1;
            return vec![arrives, arrives + HELD];
        }
        vec![arrives]
    }

    /// When the last byte has left over a slow road; `None` when too many wait.
    fn leaves(&mut self, profile: &Profile, now: Duration, bytes: u64) -> Option<Duration> {
        let Some(rate) = profile.rate.filter(|rate| *rate > 0) else { return Some(now) };
        let takes = |bytes: u64| Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate);
        let begins = self.free_at.max(now);
        if begins - now > takes(QUEUE_BYTES) {
            return None;
        }
        self.free_at = begins + takes(bytes);
        Some(self.free_at)
    }

    fn happens(&mut self, part: f64) -> bool {
        // Drawn in any case: a changed profile leaves the other chances as they were.
        self.chance.part() < part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(profile: &Profile, count: u64) -> (Vec<(u64, Duration)>, Counts) {
        let mut road = Road::new(42);
        let mut arrivals = Vec::new();
        for number in 0..count {
            let now = Duration::from_millis(number);
            arrivals.extend(road.pass(profile, now, &mut [0; 1000]).into_iter().map(|at| (number, at)));
        }
        (arrivals, road.counts)
    }

    fn share(part: u64, of: u64) -> f64 {
        f64::from(u32::try_from(part).unwrap()) / f64::from(u32::try_from(of).unwrap())
    }

    #[test]
    fn a_good_road_delivers_at_once_and_in_order() {
        let (arrived, counts) = arrivals(&Profile::default(), 100);
        assert!(arrived.iter().all(|(number, at)| *at == Duration::from_millis(*number)));
        assert_eq!((arrived.len(), counts.came, counts.bytes), (100, 100, 100_000));
    }

    #[test]
    fn a_seed_decides_alike_for_ever() {
        let bad = Profile { loss: 0.3, jitter: Duration::from_millis(100), duplicate: 0.25, ..Profile::default() };
        assert_eq!(arrivals(&bad, 1000), arrivals(&bad, 1000));
    }

    #[test]
    fn chances_come_as_often_as_they_should() {
        let (_, counts) = arrivals(&Profile { loss: 0.1, ..Profile::default() }, 20_000);
        assert!((0.09..0.11).contains(&share(counts.lost, 20_000)), "{counts:?}");
        let (arrived, counts) =
            arrivals(&Profile { duplicate: 0.25, reorder: 0.25, corrupt: 0.01, ..Profile::default() }, 20_000);
        for (part, wanted) in [(counts.doubled, 0.25), (counts.held, 0.25), (counts.damaged, 0.01)] {
            assert!((share(part, 20_000) - wanted).abs() < 0.01, "{counts:?}");
        }
        assert_eq!(u64::try_from(arrived.len()).unwrap(), 20_000 + counts.doubled);
        let overtaken = arrived.windows(2).filter(|pair| pair[1].1 < pair[0].1).count();
        assert!(overtaken > 1000, "{overtaken}");
    }

    #[test]
    fn bursts_lose_neighbours() {
        let burst = Some(Burst { begins: 0.02, ends: 0.2 });
        let (arrived, counts) = arrivals(&Profile { burst, ..Profile::default() }, 20_000);
        assert!((0.06..0.13).contains(&share(counts.lost, 20_000)), "{counts:?}");
        let holes = arrived.windows(2).filter(|pair| pair[1].0 > pair[0].0 + 1).count();
        assert!(share(counts.lost, u64::try_from(holes).unwrap()) > 3.0, "{holes} holes, {counts:?}");
    }

    #[test]
    fn a_slow_road_spreads_what_comes_and_loses_what_is_too_much() {
        // A thousand bytes a millisecond come, a hundred leave.
        let (arrived, counts) = arrivals(&Profile { rate: Some(100_000), ..Profile::default() }, 1000);
        assert!(arrived.windows(2).all(|pair| pair[1].1 - pair[0].1 >= Duration::from_millis(10)));
        assert_eq!(counts.overrun + u64::try_from(arrived.len()).unwrap(), 1000);
        assert!(counts.overrun > 800, "{counts:?}");
    }

    #[test]
    fn what_is_too_large_vanishes_and_a_cut_road_takes_all() {
        let (arrived, counts) = arrivals(&Profile { largest: Some(999), ..Profile::default() }, 10);
        assert_eq!((arrived.len(), counts.too_large), (0, 10));
        let (arrived, _) = arrivals(&Profile { largest: Some(1000), ..Profile::default() }, 10);
        assert_eq!(arrived.len(), 10);
        let (arrived, counts) = arrivals(&Profile { cut: true, ..Profile::default() }, 10);
        assert_eq!((arrived.len(), counts.cut), (0, 10));
    }

    #[test]
    fn damage_turns_over_one_bit() {
        let mut road = Road::new(7);
        let mut datagram = [0_u8; 100];
        road.pass(&Profile { corrupt: 1.0, ..Profile::default() }, Duration::ZERO, &mut datagram);
        assert_eq!(datagram.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
    }
}
