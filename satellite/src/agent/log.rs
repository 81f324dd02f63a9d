//! Where the agent's log goes: standard error, or the `log_file` of its configuration, which is opened anew when that is read
//! again, so that a rotated file is let go. Decides nothing about what is logged.
//!
//! The surprise: a log file that cannot be opened is no reason to stop; lines go to standard error then, and say so.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

/// The log; clones write to the same place.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Mutex<Option<File>>>);

impl Log {
    /// Writes to this file from now on, or to standard error.
    ///
    /// # Errors
    /// The file cannot be opened; lines go to standard error.
    pub fn open(&self, file: Option<&Path>) -> io::Result<()> {
        let opened = file.map(|file| OpenOptions::new().create(true).append(true).open(file)).transpose();
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match opened {
            Ok(file) => {
                *current = file;
                Ok(())
            }
            Err(error) => {
                *current = None;
                Err(error)
            }
        }
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(file) => file.write(bytes),
            None => io::stderr().write(bytes),
        }
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
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_file_that_was_moved_away_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let (file, old) = (directory.path().join("log"), directory.path().join("log.1"));
        let mut log = Log::default();
        log.open(Some(&file)).unwrap();
        log.write_all(b"one\n").unwrap();
        std::fs::rename(&file, &old).unwrap();
        log.clone().write_all(b"two\n").unwrap();
        log.open(Some(&file)).unwrap();
        log.write_all(b"three\n").unwrap();
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "three\n");
        assert!(log.open(Some(&directory.path().join("no/log"))).is_err());
    }
}
