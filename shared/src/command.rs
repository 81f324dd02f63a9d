//! What an operator asks of the owner of a check: a result from outside, a check at once, a state to be forgotten. Named by the
//! journal index of its entry, so that an owner applies it once however often it is told. Knows not who may ask (the master's API)
//! nor what becomes of it (the satellite's scheduler).

use minicbor::{Decode, Encode};

use crate::check::State;
use crate::name::{CheckId, JournalIndex};
use crate::time::Timestamp;

/// Text of a result from outside, in bytes; a longer one is refused where it is submitted.
pub const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Commands that may wait for one slot. One more is refused by the master, and whoever asks is told so; a satellite leaves out what
/// comes beyond, and is told of it again later.
pub const COMMANDS_WAITING_MAX: usize = 256;
/// The protocol that has commands; a satellite that speaks an older one is never sent any.
pub const COMMANDS_SINCE: u8 = 2;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum What {
    /// Run the check now, whatever its place.
    #[n(0)]
    CheckNow,
    /// Take this as its result.
    #[n(1)]
    Passive(#[n(0)] Passive),
    /// Forget what was: the state is good, hard and has never flapped.
    #[n(2)]
    Reset,
}

impl What {
    /// Its stable name.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            What::CheckNow => "check-now",
            What::Passive(_) => "passive-result",
            What::Reset => "reset",
        }
    }

    /// The bytes of text in it.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        match self {
            What::Passive(passive) => passive.text.len(),
            What::CheckNow | What::Reset => 0,
        }
    }
}

/// A result from outside.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Passive {
    /// The observation, as a service's state; a host's is derived from it as from a plugin's.
    #[n(0)]
    pub state: State,
    /// What a plugin would print: first line, further lines, performance data behind a bar.
    #[n(1)]
    pub text: String,
}

/// A command on its way to whoever owns the check.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Commanded {
    /// The journal index of its entry: its name, and its place among all commands.
    #[n(0)]
    pub index: JournalIndex,
    /// Which check.
    #[n(1)]
    pub check: CheckId,
    /// When it was asked, in the master's time; a result from outside keeps it.
    #[n(2)]
    pub at: Timestamp,
    /// What.
    #[n(3)]
    pub what: What,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_read_back() {
        let passive = What::Passive(Passive { state: State::Critical, text: "CRITICAL - from outside|a=1".into() });
        for what in [What::CheckNow, passive, What::Reset] {
            let command = Commanded {
                index: JournalIndex(7),
                check: CheckId(3),
                at: Timestamp::from_millis(1_790_000_000_000),
                what,
            };
            let bytes = minicbor::to_vec(&command).unwrap();
            assert_eq!(minicbor::decode::<Commanded>(&bytes).unwrap(), command);
        }
    }
}
