//! How far behind the last record sent the durable cursor must stay: a store without acknowledgements may forget what it
//! was just given, so a record counts as kept only a while after it was sent.
//!
//! Knows neither the journal nor the socket; time is given in. The surprise: after a lost connection nothing sent on it
//! counts any more, so the trail starts anew and the cursor waits.

use std::collections::VecDeque;
use std::time::Duration;

use shared::name::JournalIndex;
use shared::time::Monotonic;

/// A mark covers at most this part of the trail's length, so there are never more than this many marks and one.
const MARKS: u32 = 100;

#[derive(Debug)]
struct Mark {
    first: Monotonic,
    last: Monotonic,
    index: JournalIndex,
}

/// What was sent when, coarsely.
#[derive(Debug)]
pub struct Trail {
    length: Duration,
    marks: VecDeque<Mark>,
}

impl Trail {
    /// A trail in which a record counts as kept after `length`.
    #[must_use]
    pub fn new(length: Duration) -> Self {
        Self { length, marks: VecDeque::new() }
    }

    /// All records up to `index` were handed over by `now`.
    pub fn sent(&mut self, now: Monotonic, index: JournalIndex) {
        match self.marks.back_mut() {
            Some(mark) if now.since(mark.first) < self.length / MARKS => {
                mark.last = now;
                mark.index = index;
            }
            _ => self.marks.push_back(Mark { first: now, last: now, index }),
        }
    }

    /// The greatest index that counts as kept at `now`; each is told once.
    pub fn kept(&mut self, now: Monotonic) -> Option<JournalIndex> {
        let mut kept = None;
        while self.marks.front().is_some_and(|mark| now.since(mark.last) >= self.length) {
            kept = self.marks.pop_front().map(|mark| mark.index);
        }
        kept
    }

    /// The connection is gone: nothing sent on it counts.
    pub fn forget(&mut self) {
        self.marks.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(120);

    fn at(millis: u64) -> Monotonic {
        Monotonic(millis * 1_000_000)
    }

    #[test]
    fn a_record_counts_once_the_trail_has_passed() {
        let mut trail = Trail::new(LENGTH);
        trail.sent(at(0), JournalIndex(7));
        trail.sent(at(5_000), JournalIndex(9));
        assert_eq!(trail.kept(at(119_999)), None);
        assert_eq!(trail.kept(at(120_000)), Some(JournalIndex(7)));
        assert_eq!(trail.kept(at(124_999)), None);
        assert_eq!(trail.kept(at(200_000)), Some(JournalIndex(9)));
        assert_eq!(trail.kept(at(300_000)), None);
    }

    #[test]
    fn after_a_lost_connection_nothing_sent_on_it_counts() {
        let mut trail = Trail::new(LENGTH);
        trail.sent(at(0), JournalIndex(7));
        trail.forget();
        trail.sent(at(60_000), JournalIndex(3));
        assert_eq!(trail.kept(at(179_999)), None);
        assert_eq!(trail.kept(at(180_000)), Some(JournalIndex(3)));
    }

    #[test]
    fn a_steady_stream_is_followed_closely_and_in_bounded_memory() {
        let mut trail = Trail::new(LENGTH);
        let mut kept = 0;
        for index in 1..=300_000u64 {
            let now = index * 3;
            trail.sent(at(now), JournalIndex(index));
            if let Some(JournalIndex(newest)) = trail.kept(at(now)) {
                assert!(newest > kept && newest * 3 + 120_000 <= now, "{newest} counted too early at {now}");
                kept = newest;
            }
            assert!(trail.marks.len() <= MARKS as usize + 1);
        }
        let behind = (300_000 - kept) * 3;
        assert!(behind <= 120_000 + 2 * 1_200, "{behind} ms behind");
    }
}
