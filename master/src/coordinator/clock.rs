//! Clocks: how far one may be off before somebody is told, the master's own that was set, and what satellites tell of theirs. No clock
//! ever changes the order of anything: keys do that, and `at` never decreases along the journal.

use shared::delivery::BatchItem;
use shared::message;
use shared::time::{Monotonic, Timestamp};

use super::Coordinator;
use crate::entry::{ClockStep, Entry, Outcomes};
use crate::fleet::ConnectionId;

/// A clock that is off by this much is a warning, in milliseconds.
pub const CLOCK_WARNING_MS: i64 = 1_000;
/// And by this much critical, in milliseconds.
pub const CLOCK_CRITICAL_MS: i64 = 30_000;

/// How a slot's clock is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClockState {
    /// Near enough.
    Ok,
    /// Off by [`CLOCK_WARNING_MS`] or more: times are corrected, but somebody should look.
    Warning,
    /// Off by [`CLOCK_CRITICAL_MS`] or more.
    Critical,
}

impl ClockState {
    /// Of a clock that is off by so much.
    #[must_use]
    pub fn of(offset_ms: i64) -> Self {
        match offset_ms.saturating_abs() {
            CLOCK_CRITICAL_MS.. => Self::Critical,
            CLOCK_WARNING_MS.. => Self::Warning,
            _ => Self::Ok,
        }
    }

    /// Its stable name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
        }
    }
}

/// How many results of a batch that has come now ended later than it came by [`CLOCK_WARNING_MS`] or more. Wherever they are stored
/// their time is that of their row instead.
pub(super) fn from_the_future(items: &[BatchItem], at: Timestamp) -> u64 {
    let ahead = |item: &&BatchItem| match item {
        BatchItem::Result(_, result) => result.ended().as_millis().saturating_sub(at.as_millis()) >= CLOCK_WARNING_MS,
        _ => false,
    };
    u64::try_from(items.iter().filter(ahead).count()).unwrap_or(u64::MAX)
}

impl Coordinator {
    /// Compares this process's two clocks; a step is journaled.
    pub(super) fn look_at_own_clock(&mut self, now: Monotonic, at: Timestamp) {
        let Some(step) = self.own_clock.look(now, at) else { return };
        tracing::warn!(
            by_ms = step.by_ms,
            "the master's wall clock was set; due times follow slowly, and no time in the journal decreases"
        );
        let step = ClockStep { slot: None, instance: None, number: step.number, by_ms: step.by_ms, at };
        self.add(Entry::ClockStep(step), Outcomes::default(), &[], None, at);
    }

    /// A satellite tells that its clock was set. It tells again with each welcome: only what is new becomes a row.
    pub(super) fn handle_clock_step(&mut self, id: ConnectionId, step: message::ClockStep, at: Timestamp) {
        let Some(connection) = self.connections.get(&id) else { return };
        let (slot, instance) = (connection.slot.clone(), connection.instance());
        if instance.is_none() || instance != self.holder(&slot) {
            return;
        }
        let known = self.working.attention().steps.get(&slot).filter(|seen| seen.instance == instance);
        if known.is_some_and(|seen| seen.number >= step.number) {
            return;
        }
        tracing::warn!(%slot, by_ms = step.by_ms, "the clock of a satellite's machine was set");
        let step = ClockStep { slot: Some(slot), instance, number: step.number, by_ms: step.by_ms, at: step.at };
        self.add(Entry::ClockStep(step), Outcomes::default(), &[], None, at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_warns_and_thirty_are_critical() {
        let table = [
            (0, "OK"),
            (999, "OK"),
            (-999, "OK"),
            (1_000, "WARNING"),
            (-1_000, "WARNING"),
            (29_999, "WARNING"),
            (-30_000, "CRITICAL"),
            (i64::MAX, "CRITICAL"),
            (i64::MIN, "CRITICAL"),
        ];
        for (offset, state) in table {
            assert_eq!(ClockState::of(offset).as_str(), state, "{offset}");
        }
    }
}
