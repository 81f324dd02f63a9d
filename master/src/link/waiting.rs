//! Attempts to connect that wait for their turn: after a restart thousands come at once, and whoever is refused stays away for longer
//! than its turn would have taken. First come, first served. Knows neither sockets nor clocks. The surprise: one that waited too long is
//! passed over, since its satellite has given up and a handshake with nobody costs as much as any.

use std::collections::VecDeque;
use std::time::Duration;

use shared::time::Monotonic;

/// Open handshakes; further attempts wait for their turn.
pub const HANDSHAKES_MAX: usize = 1_024;
/// Attempts that wait for their turn; further ones are refused and come again.
pub const WAITING_MAX: usize = 3_072;
/// An attempt that has waited so long is passed over: its satellite gives up after 10 s.
pub const WAITING_DEADLINE: Duration = Duration::from_secs(8);

/// Whose turn it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn<T> {
    /// Its handshake may begin.
    Begin(T),
    /// It has waited in vain.
    Late(T),
}

/// Those that wait, oldest first.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    queue: VecDeque<(Monotonic, T)>,
}

impl<T> Waiting<T> {
    pub(super) fn new() -> Self {
        Self { queue: VecDeque::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// One more waits; given back where there is no room.
    pub(super) fn push(&mut self, attempt: T, now: Monotonic) -> Result<(), T> {
        if self.queue.len() >= WAITING_MAX {
            return Err(attempt);
        }
        self.queue.push_back((now, attempt));
        Ok(())
    }

    /// The next, if so many open handshakes leave room for one.
    pub(super) fn next(&mut self, open: usize, now: Monotonic) -> Option<Turn<T>> {
        if open >= HANDSHAKES_MAX {
            return None;
        }
        let (since, attempt) = self.queue.pop_front()?;
        let late = now.since(since) >= WAITING_DEADLINE;
        Some(if late { Turn::Late(attempt) } else { Turn::Begin(attempt) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Monotonic {
        Monotonic(seconds * 1_000_000_000)
    }

    #[test]
    fn turns_come_in_order_and_only_while_there_is_room() {
        let mut waiting = Waiting::new();
        for attempt in 1..=3 {
            waiting.push(attempt, seconds(0)).unwrap();
        }
        assert_eq!(waiting.next(HANDSHAKES_MAX, seconds(1)), None);
        assert_eq!(waiting.next(HANDSHAKES_MAX - 1, seconds(1)), Some(Turn::Begin(1)));
        assert_eq!(waiting.next(0, seconds(7)), Some(Turn::Begin(2)));
        assert_eq!(waiting.next(0, seconds(8)), Some(Turn::Late(3)));
        assert!(waiting.is_empty() && waiting.next(0, seconds(8)).is_none());
    }

    #[test]
    fn whoever_finds_no_room_to_wait_is_given_back() {
        let mut waiting = Waiting::new();
        assert!((0..WAITING_MAX).all(|attempt| waiting.push(attempt, seconds(0)).is_ok()));
        assert_eq!(waiting.push(WAITING_MAX, seconds(0)), Err(WAITING_MAX));
        waiting.next(0, seconds(9));
        assert_eq!(waiting.push(WAITING_MAX, seconds(9)), Ok(()));
    }
}
