//! I15 in a world: the checks' arguments and environments hold a word that must never leave the question. Looks for it in what goes
//! to disks, to the master, to readers and into logs; the assignment itself, told to the owner alone, is where it belongs.
//!
//! The surprise: batches are compressed, so they are opened before they are searched.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use shared::delivery::{BATCH_INFLATED_MAX, decode_header};
use tracing_subscriber::fmt::MakeWriter;

/// The word. Begins with a byte that is rare in our formats, so that looking for it is quick.
pub(super) const CANARY: &str = "~canary-1f7c~";

/// Whether the word stands in these bytes.
pub(super) fn tells(bytes: &[u8]) -> bool {
    let word = CANARY.as_bytes();
    let mut rest = bytes;
    while let Some(at) = word.first().and_then(|first| rest.iter().position(|byte| byte == first)) {
        let found = rest.get(at..).unwrap_or_default();
        if found.starts_with(word) {
            return true;
        }
        rest = found.get(1..).unwrap_or_default();
    }
    false
}

/// Whether the word stands in a batch.
pub(super) fn batch_tells(batch: &[u8]) -> bool {
    let list = decode_header(batch).ok().and_then(|(_, body)| zstd::bulk::decompress(body, BATCH_INFLATED_MAX).ok());
    tells(&list.unwrap_or_default())
}

/// What both brains log while a world goes on.
#[derive(Debug, Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Whether the word was logged, and how much was.
    pub(super) fn tells(&self) -> bool {
        tells(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs something with this as its log.
    pub(super) fn of<T>(&self, what: impl FnOnce() -> T) -> T {
        let subscriber =
            tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_writer(self.clone()).finish();
        tracing::subscriber::with_default(subscriber, what)
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_is_found_wherever_it_stands() {
        assert!(tells(format!("~~x{CANARY}").as_bytes()) && tells(CANARY.as_bytes()));
        assert!(!tells(b"~canary-1f7c") && !tells(b""));
        let log = Log::default();
        log.of(|| tracing::info!(argument = CANARY, "told"));
        assert!(log.tells());
    }
}
