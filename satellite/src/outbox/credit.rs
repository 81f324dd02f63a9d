//! What may be sent of one lane: batches at hand, and how much of them the master has given credit for. Decides what goes out now,
//! how much credit to ask for, and which to give back. Knows no run's place and no link. The surprise: bytes are counted from the
//! beginning of the connection on both sides, so that a message that says the same twice changes nothing.

use std::collections::VecDeque;

use bytes::Bytes;
use shared::name::Sequence;

use super::run::Place;

/// A batch that was read or made and waits for credit.
#[derive(Debug)]
pub struct AtHand {
    /// Its run.
    pub place: Place,
    /// Its last sequence.
    pub last: Sequence,
    /// As it is sent.
    pub payload: Bytes,
}

/// One lane's credit and the batches that wait for it. Bounded by the lane's window: what is at hand counts as in flight.
#[derive(Debug, Default)]
pub struct Allowance {
    /// Credit that a connection begins with; `None` from a master that gives none.
    first: Option<u64>,
    /// May be sent up to here.
    given: u64,
    /// Sent or given back.
    spent: u64,
    /// Asked for.
    wanted: u64,
    /// `spent` when what was too much was last looked for.
    seen: u64,
    at_hand: VecDeque<AtHand>,
}

fn length(payload: &Bytes) -> u64 {
    u64::try_from(payload.len()).unwrap_or(u64::MAX)
}

impl Allowance {
    /// A connection begins with this credit.
    pub fn begin(&mut self, first: Option<u64>) {
        *self = Self { first, given: first.unwrap_or(0), ..Self::default() };
    }

    /// The master has given credit up to here.
    pub fn give(&mut self, up_to: u64) {
        self.given = self.given.max(up_to);
    }

    /// Takes a batch that is to be sent after those taken before.
    pub fn push(&mut self, batch: AtHand) {
        self.at_hand.push_back(batch);
    }

    /// The next batch that may go out now. Those that `needless` names are left out and cost nothing.
    pub fn pop(&mut self, needless: impl Fn(&AtHand) -> bool) -> Option<AtHand> {
        while self.at_hand.front().is_some_and(&needless) {
            self.at_hand.pop_front();
        }
        let next = self.spent.saturating_add(length(&self.at_hand.front()?.payload));
        if self.first.is_some() && next > self.given {
            return None;
        }
        self.spent = next;
        self.at_hand.pop_front()
    }

    /// What to ask for, if more is at hand than was asked for before.
    pub fn want(&mut self) -> Option<u64> {
        self.first?;
        let waiting = self.at_hand.iter().fold(0_u64, |sum, batch| sum.saturating_add(length(&batch.payload)));
        let end = self.spent.saturating_add(waiting);
        (end > self.given && end > self.wanted).then(|| {
            self.wanted = end;
            end
        })
    }

    /// Credit that is not needed and that others may have: beyond twice of what was used since the last look, and beyond what a
    /// connection begins with. `busy` tells that more is about to be sent.
    pub fn surplus(&mut self, busy: bool) -> Option<u64> {
        let first = self.first?;
        let used = self.spent.saturating_sub(std::mem::replace(&mut self.seen, self.spent));
        let keep = used.saturating_mul(2).max(first);
        let surplus = self.given.saturating_sub(self.spent).saturating_sub(keep);
        if busy || !self.at_hand.is_empty() || surplus == 0 {
            return None;
        }
        self.spent = self.spent.saturating_add(surplus);
        Some(surplus)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::name::{RunCounter, RunId};

    fn batch(last: u64, bytes: usize) -> AtHand {
        AtHand { place: (RunCounter(1), RunId([1; 16])), last: Sequence(last), payload: Bytes::from(vec![0; bytes]) }
    }

    fn all(allowance: &mut Allowance) -> Vec<u64> {
        std::iter::from_fn(|| allowance.pop(|_| false)).map(|batch| batch.last.0).collect()
    }

    #[test]
    fn nothing_goes_out_beyond_the_credit_and_all_in_order() {
        let mut allowance = Allowance::default();
        allowance.begin(Some(100));
        for last in 1..=4 {
            allowance.push(batch(last, 60));
        }
        assert_eq!(all(&mut allowance), [1], "the second would be 120 bytes");
        assert_eq!(allowance.want(), Some(240));
        assert_eq!(allowance.want(), None, "asked once");
        allowance.give(180);
        assert_eq!(all(&mut allowance), [2, 3]);
        allowance.give(150);
        assert!(all(&mut allowance).is_empty(), "credit never shrinks nor counts twice");
        allowance.push(batch(5, 10));
        assert_eq!(allowance.want(), Some(250), "more is at hand than before");
        allowance.give(250);
        assert_eq!(all(&mut allowance), [4, 5]);
    }

    #[test]
    fn a_master_that_gives_no_credit_is_sent_everything() {
        let mut allowance = Allowance::default();
        allowance.begin(None);
        allowance.push(batch(1, 1_000_000));
        assert_eq!((all(&mut allowance), allowance.want(), allowance.surplus(false)), (vec![1], None, None));
    }

    #[test]
    fn what_is_no_longer_needed_costs_nothing() {
        let mut allowance = Allowance::default();
        allowance.begin(Some(100));
        allowance.push(batch(1, 90));
        allowance.push(batch(2, 90));
        assert_eq!(allowance.pop(|batch| batch.last.0 == 1).map(|batch| batch.last.0), Some(2));
        assert_eq!(allowance.want(), None);
    }

    #[test]
    fn credit_that_is_not_used_is_given_back_once_down_to_the_first() {
        let mut allowance = Allowance::default();
        allowance.begin(Some(100));
        allowance.give(5000);
        allowance.push(batch(1, 1000));
        assert_eq!(all(&mut allowance), [1]);
        assert_eq!(allowance.surplus(true), None, "more is to come");
        assert_eq!(allowance.surplus(false), Some(3900), "nothing was used since the look before");
        assert_eq!(allowance.surplus(false), None);
        allowance.push(batch(2, 101));
        assert!(all(&mut allowance).is_empty(), "what was given back is gone");
        assert_eq!(allowance.want(), Some(5001));
    }
}
