//! What an owner says of its own newest states when it is back: each with its key and the few words people read, in frames of the
//! control stream, and a marker behind the last. State only: it moves no position, makes no points, and answers nothing that was
//! made before. Knows not which states are worth saying (the satellite's `scheduler`) nor what becomes of them (the master's
//! `ingest`).

use std::time::Duration;

use minicbor::{Decode, Encode};

use crate::check::Exit;
use crate::delivery::Key;
use crate::name::{CheckId, JournalIndex};
use crate::result::CheckResult;
use crate::state::CheckState;
use crate::time::Timestamp;

/// States of one frame at most; a frame with more is refused. Not more than results of a batch, so that a row of the journal has
/// room for what either makes.
pub const STATES_MAX: usize = crate::delivery::BATCH_RESULTS_MAX;
/// A frame is closed when its texts have about this many bytes; with the rest of 512 states it stays below a control frame's bound.
pub const STATES_BYTES: usize = 48 * 1024;
/// Frames on their way that the master has not answered; the next one waits. Well below what the control lane queues.
pub const FRAMES_UNHEARD_MAX: u32 = 8;
/// The text told with a state is cut to this many bytes; the whole text comes with the result itself.
pub const OUTPUT_BYTES_MAX: usize = 1024;

/// What people read of the result that made a state.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Said {
    /// When it was due.
    #[n(0)]
    pub scheduled: Timestamp,
    /// When execution began, by the satellite's own clock.
    #[n(1)]
    pub started: Timestamp,
    /// How long it took, in microseconds.
    #[n(2)]
    pub duration_us: u64,
    /// How it ended; `None`: in a way this program does not know yet.
    #[n(3)]
    pub exit: Option<Exit>,
    /// Submitted from outside rather than run.
    #[n(4)]
    pub passive: bool,
    /// First line of text, at most [`OUTPUT_BYTES_MAX`] bytes of it.
    #[n(5)]
    pub output: String,
    /// Whether the peer proved who it is.
    #[n(6)]
    pub authenticated: Option<bool>,
    /// What to add to `started` to have the master's time, in milliseconds.
    #[n(7)]
    pub offset_ms: Option<i64>,
}

impl Said {
    /// Of a result.
    #[must_use]
    pub fn of(result: &CheckResult) -> Self {
        let mut end = result.output.len().min(OUTPUT_BYTES_MAX);
        while !result.output.is_char_boundary(end) {
            end -= 1;
        }
        Self {
            scheduled: result.scheduled,
            started: result.started,
            duration_us: result.duration_us,
            exit: result.exit.clone(),
            passive: result.passive,
            output: result.output.get(..end).unwrap_or_default().to_owned(),
            authenticated: result.authenticated,
            offset_ms: result.offset_ms,
        }
    }

    /// When execution ended, in the master's time as well as it is known: as [`CheckResult::ended`] of the same result.
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

/// One state as its owner tells it.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct StateTold {
    /// Which check.
    #[n(0)]
    pub check: CheckId,
    /// Under which grant, and where among all that is known of the check: the key of the result that made it, or (living grant, 0, 0)
    /// where that result was made under an older grant.
    #[n(1)]
    pub key: Key,
    /// The state.
    #[n(2)]
    pub state: CheckState,
    /// What people read of it; `None` if the satellite does not know any more.
    #[n(3)]
    pub said: Option<Said>,
    /// The highest command to this check (a journal index) that its owner has applied.
    #[n(4)]
    pub command: Option<JournalIndex>,
}

impl StateTold {
    /// When the state was observed, in the master's time as well as it is known.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.said.as_ref().map_or(self.state.since, Said::ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::State;
    use crate::name::{Grant, RunCounter, Sequence};
    use crate::state::Confirmation;

    fn result(output: String) -> CheckResult {
        let at = Timestamp::from_millis(1_790_000_000_000);
        CheckResult {
            check: CheckId(4),
            grant: Grant(7),
            scheduled: at,
            started: at,
            duration_us: 2_500_000,
            exit: Some(Exit::Ran(2)),
            passive: false,
            output,
            long_output: "more".into(),
            perfdata: String::new(),
            metrics: Vec::new(),
            authenticated: None,
            after: CheckState::pending(3).apply(State::Critical, Confirmation { max_attempts: 3 }, at).0,
            command: None,
            offset_ms: Some(-7),
        }
    }

    #[test]
    fn what_is_said_of_a_result_ends_when_it_ended() {
        let result = result("CRITICAL - down".into());
        let said = Said::of(&result);
        assert_eq!((said.ended(), said.output.as_str()), (result.ended(), "CRITICAL - down"));
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let said = Said::of(&result("ä".repeat(OUTPUT_BYTES_MAX)));
        assert_eq!(said.output, "ä".repeat(OUTPUT_BYTES_MAX / 2));
        let said = Said::of(&result(format!("x{}", "ä".repeat(OUTPUT_BYTES_MAX))));
        assert_eq!(said.output.len(), OUTPUT_BYTES_MAX - 1);
    }

    #[test]
    fn states_read_back() {
        let result = result("text".into());
        let key = Key { grant: Grant(7), counter: RunCounter(1), sequence: Sequence(9) };
        let told = StateTold {
            check: result.check,
            key,
            state: result.after,
            said: Some(Said::of(&result)),
            command: Some(JournalIndex(3)),
        };
        let bytes = minicbor::to_vec(&told).unwrap();
        assert_eq!(minicbor::decode::<StateTold>(&bytes).unwrap(), told);
        assert_eq!(told.at(), result.ended());
        assert_eq!(StateTold { said: None, ..told.clone() }.at(), told.state.since);
    }
}
