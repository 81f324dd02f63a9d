//! One result on its way to the master: what the probe saw, under which grant, and the state its owner made of it.
//! Its place (run and sequence) stands in the batch that holds it (`delivery`).

use std::time::Duration;

use minicbor::{Decode, Encode};

use crate::check::Exit;
use crate::name::{CheckId, Grant, JournalIndex};
use crate::perfdata::Metric;
use crate::state::CheckState;
use crate::time::Timestamp;

/// One result as spooled, sent and journaled.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct CheckResult {
    /// Which check.
    #[n(0)]
    pub check: CheckId,
    /// Under which grant it was run.
    #[n(1)]
    pub grant: Grant,
    /// When it was due, by the clock that `started` was read from.
    #[n(2)]
    pub scheduled: Timestamp,
    /// When execution began, by the satellite's own clock.
    #[n(3)]
    pub started: Timestamp,
    /// How long it took, in microseconds.
    #[n(4)]
    pub duration_us: u64,
    /// How it ended; `None`: in a way this program does not know yet.
    #[n(5)]
    pub exit: Option<Exit>,
    /// Submitted from outside rather than run.
    #[n(6)]
    pub passive: bool,
    /// First line of text.
    #[n(7)]
    pub output: String,
    /// Further lines; empty if none.
    #[n(8)]
    pub long_output: String,
    /// Performance data as written; empty if none.
    #[n(9)]
    pub perfdata: String,
    /// The same, parsed once.
    #[n(10)]
    pub metrics: Vec<Metric>,
    /// Whether the peer proved who it is; `None` where the question has no meaning.
    #[n(11)]
    pub authenticated: Option<bool>,
    /// The state after this result, decided by the owner.
    #[n(12)]
    pub after: CheckState,
    /// The command (a journal index) that this result answers.
    #[n(13)]
    pub command: Option<JournalIndex>,
    /// What to add to `started` and `scheduled` to have the master's time, in milliseconds, as measured by the satellite.
    #[n(14)]
    pub offset_ms: Option<i64>,
}

impl CheckResult {
    /// When execution ended, in the master's time as well as it is known.
    #[must_use]
    pub fn ended(&self) -> Timestamp {
        self.corrected(self.started.plus(Duration::from_micros(self.duration_us)))
    }

    /// One of its raw times in the master's time, as well as it is known.
    #[must_use]
    pub fn corrected(&self, raw: Timestamp) -> Timestamp {
        Timestamp::from_millis(raw.as_millis().saturating_add(self.offset_ms.unwrap_or(0)))
    }
}
