//! What a world tells of itself: a digest over every decision of both brains, by which two runs of a seed are compared, and, if
//! somebody wants to read it, a line for everything that happens. Knows nothing of right and wrong.
//!
//! The surprise: it is SHA-256 over all bytes in their order, so that two runs with one digest said the same, byte for byte.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};
use shared::name::InstanceId;

/// The account of one world.
#[derive(Debug, Default)]
pub(super) struct Trace {
    told: Sha256,
    lines: Option<Vec<String>>,
}

/// Virtual time as people read it.
pub(super) fn clock(nanos: u64) -> String {
    let millis = nanos / 1_000_000;
    format!("{:02}:{:02}.{:03}", millis / 60_000, millis / 1000 % 60, millis % 1000)
}

/// A process's name, as short as it can be told apart.
pub(super) fn short(id: InstanceId) -> String {
    id.0.iter().take(2).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl Trace {
    /// One that keeps lines.
    pub(super) fn readable() -> Self {
        Self { told: Sha256::new(), lines: Some(Vec::new()) }
    }

    /// Whether somebody reads.
    pub(super) fn is_read(&self) -> bool {
        self.lines.is_some()
    }

    /// Takes a decision into the digest: when, whose, and its bytes, with their number, so that no two accounts run together to one.
    pub(super) fn decided(&mut self, now: u64, whose: u64, bytes: &[u8]) {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        for number in [now, whose, length] {
            self.told.update(number.to_be_bytes());
        }
        self.told.update(bytes);
    }

    /// A line, made only if somebody reads.
    pub(super) fn line(&mut self, now: u64, step: u64, text: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{} #{step} {}", clock(now), text()));
        }
    }

    /// The digest so far, in 64 hexadecimal digits.
    #[must_use]
    pub(super) fn digest(&self) -> String {
        self.told.clone().finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// The lines.
    pub(super) fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(decisions: &[(u64, u64, &[u8])]) -> String {
        let mut trace = Trace::default();
        decisions.iter().for_each(|(now, whose, bytes)| trace.decided(*now, *whose, bytes));
        trace.digest()
    }

    #[test]
    fn every_byte_and_its_place_count() {
        let told = digest(&[(1, 2, b"ab"), (1, 2, b"c")]);
        assert_eq!(told.len(), 64);
        assert_eq!(told, digest(&[(1, 2, b"ab"), (1, 2, b"c")]));
        let others = [
            digest(&[(1, 2, b"a"), (1, 2, b"bc")]),
            digest(&[(1, 2, b"c"), (1, 2, b"ab")]),
            digest(&[(1, 2, b"ab"), (1, 3, b"c")]),
            digest(&[(1, 2, b"ab"), (2, 2, b"c")]),
            digest(&[(1, 2, b"ab"), (1, 2, b"d")]),
            digest(&[(1, 2, b"ab")]),
        ];
        assert!(others.iter().all(|other| *other != told), "{told}: {others:?}");
    }

    #[test]
    fn reading_along_changes_no_digest() {
        let mut trace = Trace::readable();
        trace.decided(1, 2, b"ab");
        trace.line(1, 1, || "somebody decided".to_owned());
        assert_eq!(trace.digest(), digest(&[(1, 2, b"ab")]));
    }
}
