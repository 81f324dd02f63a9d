//! What the agent has done since its start, counted, and how often it may say so: a flood of refusals must not fill the disk that
//! the log is on. Knows nothing of why.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Refusals that are logged in one second; further ones are counted only.
pub const LOGGED_PER_SECOND: u64 = 20;

/// One kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A connection was taken.
    Accepted,
    /// A request was answered, with whatever state.
    Answered,
    /// A command ran until its time was over.
    TimedOut,
    /// Somebody who is not in `allowed_hosts`.
    NotAllowed,
    /// A source that had too many connections, or made them too often.
    Turned,
    /// A TLS handshake failed.
    Handshake,
    /// What came was no packet, or not in time.
    Packet,
    /// A request with arguments or characters that are not allowed.
    Request,
    /// The answer could not be delivered.
    Undelivered,
}

const NAMES: [(Event, &str); 9] = [
    (Event::Accepted, "accepted"),
    (Event::Answered, "answered"),
    (Event::TimedOut, "timed out"),
    (Event::NotAllowed, "not allowed"),
    (Event::Turned, "over a bound"),
    (Event::Handshake, "handshake failed"),
    (Event::Packet, "no query"),
    (Event::Request, "request refused"),
    (Event::Undelivered, "not delivered"),
];

/// The counts.
#[derive(Debug, Default)]
pub struct Counters {
    counts: [AtomicU64; NAMES.len()],
    second: AtomicU64,
    logged: AtomicU64,
}

impl Counters {
    /// Counts an event.
    pub fn count(&self, event: Event) {
        self.counts[event as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often it was.
    #[must_use]
    pub fn of(&self, event: Event) -> u64 {
        self.counts[event as usize].load(Ordering::Relaxed)
    }

    /// Whether another line about a refusal may be logged, `now` since any fixed moment.
    pub fn may_log(&self, now: Duration) -> bool {
        let second = now.as_secs();
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.logged.store(0, Ordering::Relaxed);
        }
        self.logged.fetch_add(1, Ordering::Relaxed) < LOGGED_PER_SECOND
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (event, name)) in NAMES.iter().enumerate() {
            let between = if number == 0 { "" } else { ", " };
            write!(f, "{between}{} {name}", self.of(*event))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_has_a_count_of_its_own() {
        let counters = Counters::default();
        for (number, (event, _)) in NAMES.iter().enumerate() {
            for _ in 0..=number {
                counters.count(*event);
            }
        }
        let counts: Vec<_> = NAMES.iter().map(|(event, _)| counters.of(*event)).collect();
        assert_eq!(counts, (1..=NAMES.len() as u64).collect::<Vec<_>>());
        assert!(counters.to_string().starts_with("1 accepted, 2 answered, "), "{counters}");
    }

    #[test]
    fn a_flood_is_logged_for_a_while_each_second() {
        let counters = Counters::default();
        for second in 5..7 {
            let logged = (0..1000).filter(|_| counters.may_log(Duration::from_secs(second))).count();
            assert_eq!(logged as u64, LOGGED_PER_SECOND);
        }
    }
}
