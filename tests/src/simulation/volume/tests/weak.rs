//! A real disk that refuses when it is told to, and knows what of each file is durable. Decides nothing else: what it is asked for it
//! does on files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use seglog::{Disk, Medium};

/// How the next append fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nothing can be written.
    Write,
    /// All is written, and the sync fails.
    Sync,
    /// Nothing can be read.
    Read,
}

#[derive(Debug, Default)]
pub(super) struct Condition {
    pub(super) failure: Option<Failure>,
    /// Length of each file that is durable.
    pub(super) durable: BTreeMap<PathBuf, u64>,
}

/// A disk that refuses when it is told to, and knows what a power loss would leave.
#[derive(Debug, Default)]
pub(super) struct Weak(Mutex<Condition>);

impl Weak {
    pub(super) fn state(&self) -> MutexGuard<'_, Condition> {
        self.0.lock().unwrap()
    }

    pub(super) fn fail(&self, failure: Failure) {
        self.state().failure = Some(failure);
    }

    fn fails(&self, failure: Failure) -> bool {
        let mut state = self.state();
        let fails = state.failure == Some(failure);
        if fails {
            state.failure = None;
        }
        fails
    }
}

fn refused() -> io::Error {
    io::Error::other("injected")
}

impl Medium for Weak {
    fn create(&self, path: &Path) -> io::Result<File> {
        // A full disk has no room for another file.
        if self.fails(Failure::Write) {
            return Err(refused());
        }
        Disk.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        Disk.open(path)
    }

    fn open_to_read(&self, path: &Path) -> io::Result<File> {
        Disk.open_to_read(path)
    }

    fn read(&self, file: &File, path: &Path, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        if self.fails(Failure::Read) {
            return Err(refused());
        }
        Disk.read(file, path, at, buffer)
    }

    fn write(&self, file: &File, path: &Path, at: u64, bytes: &[u8]) -> io::Result<()> {
        if self.fails(Failure::Write) {
            return Err(refused());
        }
        Disk.write(file, path, at, bytes)
    }

    fn truncate(&self, file: &File, path: &Path, length: u64) -> io::Result<()> {
        Disk.truncate(file, path, length)
    }

    fn sync(&self, file: &File, path: &Path) -> io::Result<()> {
        let length = file.metadata()?.len();
        if length > 64 && self.fails(Failure::Sync) {
            return Err(refused());
        }
        self.state().durable.insert(path.to_owned(), length);
        Disk.sync(file, path)
    }

    fn sync_directory(&self, dir: &Path) -> io::Result<()> {
        Disk.sync_directory(dir)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        Disk.unlink(path)
    }
}
