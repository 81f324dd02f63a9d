//! What a world tells of itself: a digest over every decision of both brains, by which two runs of a seed are compared, and, if
//! somebody wants to read it, a line for everything that happens. Knows nothing of right and wrong.

use std::fmt::Write as _;

use shared::name::InstanceId;

/// The account of one world.
#[derive(Debug, Default)]
pub(super) struct Trace {
    digest: u64,
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
        Self { digest: 0, lines: Some(Vec::new()) }
    }

    /// Whether somebody reads.
    pub(super) fn is_read(&self) -> bool {
        self.lines.is_some()
    }

    /// Takes a decision into the digest: when, whose, and its bytes.
    pub(super) fn decided(&mut self, now: u64, whose: u64, bytes: &[u8]) {
        let mixed = u64::from(crc32fast::hash(bytes)) ^ whose.rotate_left(32) ^ now;
        self.digest = (self.digest.rotate_left(7) ^ mixed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    /// A line, made only if somebody reads.
    pub(super) fn line(&mut self, now: u64, step: u64, text: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{} #{step} {}", clock(now), text()));
        }
    }

    /// The digest so far.
    #[must_use]
    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    /// The lines.
    pub(super) fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}
