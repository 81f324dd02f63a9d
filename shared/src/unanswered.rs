//! Whether a peer of the link still answers. A road that is cut one way still brings what the peer sends, so that a peer which hears
//! nothing of us is not seen by its silence: it is seen by what it leaves unacknowledged. Both ends ask the same way. Knows no clock
//! and no QUIC: what it has to go by comes in. The surprise: looks are counted, not time, so that a process that stood still holds
//! it against nobody.

use std::time::Duration;

/// How often either end looks.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A peer that acknowledged nothing in so many looks after something was sent is gone. A satellite says something every five seconds,
/// which the master answers at once: either end notices within 15 s of a cut, also of a road on which nothing else goes.
pub const LOOKS: u8 = 8;

/// What was seen of one connection.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unanswered {
    round_trip: Duration,
    sent: u64,
    /// Looks since something was sent that nothing was acknowledged after.
    looks: Option<u8>,
}

impl Unanswered {
    /// How much was sent so far that asks for an acknowledgement, and the round trip as it is reckoned now: each acknowledgement of
    /// something new moves it. Acknowledgements cannot be counted: every packet says again what it said before. True if the peer does
    /// not answer any more.
    pub fn look(&mut self, sent: u64, round_trip: Duration) -> bool {
        if round_trip != self.round_trip {
            *self = Self { round_trip, sent, looks: None };
        } else if let Some(looks) = &mut self.looks {
            *looks = looks.saturating_add(1);
        } else if sent != self.sent {
            self.looks = Some(0);
        }
        self.looks.is_some_and(|looks| looks >= LOOKS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIP: Duration = Duration::from_millis(20);

    #[test]
    fn only_what_was_sent_can_be_unanswered() {
        let mut peer = Unanswered::default();
        assert!((0..100).all(|_| !peer.look(5, TRIP)), "nothing was sent since");
        assert!((0..LOOKS).all(|look| !peer.look(6 + u64::from(look), TRIP)));
        assert!(peer.look(20, TRIP));
    }

    #[test]
    fn one_acknowledgement_is_an_answer() {
        let mut peer = Unanswered::default();
        let trip = |look: u64| TRIP + Duration::from_nanos(look / u64::from(LOOKS));
        assert!((0..1000).all(|look| !peer.look(10 * look, trip(look))));
        assert!((1000..1020).any(|look| peer.look(10 * look, trip(999))));
    }
}
