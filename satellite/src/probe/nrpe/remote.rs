//! Answers in which the daemon speaks for itself, because it could not run the command or get its output. They are results like any
//! other, with the daemon's text and code; here they get a stable name and are told apart from a plugin's words. Pure.
//!
//! The surprise: the code says nothing. A 2.x daemon calls an unknown command CRITICAL, a later one UNKNOWN, and a plugin may say
//! either.

use super::packet::Answer;

/// What a daemon says for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remote {
    /// Its configuration has no such command.
    NotDefined,
    /// The plugin printed nothing, or could not be started.
    NoOutput,
    /// The plugin took longer than the daemon's `command_timeout`.
    TimedOut,
}

impl Remote {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::NotDefined, Self::NoOutput, Self::TimedOut];

    /// What the daemon says in this answer, if it is not a plugin that speaks.
    #[must_use]
    pub fn of(answer: &Answer) -> Option<Self> {
        let text = answer.text.as_slice();
        if text.starts_with(b"NRPE: Command '") && text.ends_with(b"' not defined")
            || text.starts_with(b"Unknown command(s): ")
        {
            Some(Self::NotDefined)
        } else if text.starts_with(b"NRPE: Unable to read output") {
            Some(Self::NoOutput)
        } else if text.starts_with(b"NRPE: Command timed out after ") {
            Some(Self::TimedOut)
        } else {
            None
        }
    }

    /// Its stable name.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::NotDefined => "nrpe-command-not-defined",
            Self::NoOutput => "nrpe-no-output",
            Self::TimedOut => "nrpe-command-timeout",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::nrpe::packet::Version;

    #[test]
    fn the_daemons_own_words_are_told_from_a_plugins() {
        let of = |code, text: &str| Remote::of(&Answer { version: Version::V4, code, text: text.into() });
        assert_eq!(of(3, "NRPE: Command 'x' not defined"), Some(Remote::NotDefined));
        assert_eq!(of(2, "NRPE: Command 'it's' not defined"), Some(Remote::NotDefined), "2.x");
        assert_eq!(of(3, "Unknown command(s): x"), Some(Remote::NotDefined), "NSClient++");
        assert_eq!(of(3, "NRPE: Unable to read output"), Some(Remote::NoOutput));
        assert_eq!(of(3, "NRPE: Command timed out after 60 seconds"), Some(Remote::TimedOut));
        for plugin in ["", "OK", "NRPE v4.1.0", "CRITICAL: NRPE: Unable to read output", "NRPE: Command 'x' is fine"] {
            assert_eq!(of(0, plugin), None, "{plugin}");
        }
    }
}
