//! A medium for tests: every operation can be made to fail, a write can tear, and a crash forgets what was not synced.
//! It keeps beside each file what the platter would hold. A failed sync drops the dirty bytes as Linux does: they stay
//! visible to reads, but a later successful sync does not save them.

use crate::medium::{Disk, Medium};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

/// Operations that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    Create,
    Open,
    Write,
    Truncate,
    Sync,
    SyncDirectory,
    Unlink,
}

#[derive(Debug, Default)]
struct Platter {
    bytes: Vec<u8>,
    dirty: Vec<Range<usize>>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<PathBuf, Platter>,
    /// Names that survive a crash.
    durable: BTreeSet<PathBuf>,
    /// Files whose write or sync failed, which nobody may write again.
    broken: BTreeSet<PathBuf>,
    operations: u64,
    fail: BTreeMap<u64, usize>,
    fail_next: BTreeMap<Operation, usize>,
    unreadable: BTreeMap<PathBuf, Range<u64>>,
}

#[derive(Debug, Default)]
pub(crate) struct Faulty {
    state: Mutex<State>,
}

impl Faulty {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Lets the operation with this number (from 0) fail; a write tears after `torn` bytes.
    pub(crate) fn fail(&self, number: u64, torn: usize) {
        self.state().fail.insert(number, torn);
    }

    /// Lets the next operation of a kind fail; a write tears after `torn` bytes.
    pub(crate) fn fail_next(&self, operation: Operation, torn: usize) {
        self.state().fail_next.insert(operation, torn);
    }

    pub(crate) fn heal(&self) {
        let mut state = self.state();
        state.fail.clear();
        state.fail_next.clear();
        state.unreadable.clear();
    }

    /// Operations so far that could have failed.
    pub(crate) fn operations(&self) -> u64 {
        self.state().operations
    }

    pub(crate) fn make_unreadable(&self, path: &Path, stretch: Range<u64>) {
        self.state().unreadable.insert(path.to_path_buf(), stretch);
    }

    /// A process ended and another will open the files: it cannot know which of them are broken.
    pub(crate) fn restart(&self) {
        self.state().broken.clear();
    }

    /// Power loss: of each file remains what was synced and whatever part of the rest `luck` (called for each choice) saves.
    pub(crate) fn crash(&self, mut luck: impl FnMut() -> u64) {
        let mut state = self.state();
        let state = &mut *state;
        for (path, platter) in &mut state.files {
            let seen = fs::read(path).ok();
            let survives = if state.durable.contains(path) {
                // The removal of a name is as uncertain as its creation.
                seen.is_some() || luck().is_multiple_of(2)
            } else {
                seen.is_some() && luck().is_multiple_of(2)
            };
            if !survives {
                let _ = fs::remove_file(path);
                continue;
            }
            if let Some(seen) = seen {
                for range in std::mem::take(&mut platter.dirty) {
                    let kept = range.start..range.start + luck() as usize % (range.len() + 1);
                    save(&mut platter.bytes, &seen, kept);
                }
            }
            fs::write(path, &platter.bytes).unwrap();
        }
        state.files.retain(|path, _| path.exists());
        state.durable = state.files.keys().cloned().collect();
        state.broken.clear();
    }

    /// Counts an operation; `Some(torn)` if it is to fail.
    fn step(&self, operation: Operation) -> Option<usize> {
        let mut state = self.state();
        let number = state.operations;
        state.operations += 1;
        state.fail.remove(&number).or_else(|| state.fail_next.remove(&operation))
    }

    fn refuse_broken(&self, path: &Path) {
        assert!(!self.state().broken.contains(path), "{} was written again after a failure", path.display());
    }
}

fn save(bytes: &mut Vec<u8>, seen: &[u8], range: Range<usize>) {
    let range = range.start.min(seen.len())..range.end.min(seen.len());
    if bytes.len() < range.end {
        bytes.resize(range.end, 0);
    }
    bytes[range.clone()].copy_from_slice(&seen[range]);
}

fn refused() -> io::Error {
    io::Error::other("injected")
}

impl Medium for Faulty {
    fn create(&self, path: &Path) -> io::Result<File> {
        if self.step(Operation::Create).is_some() {
            return Err(refused());
        }
        let file = Disk.create(path)?;
        self.state().files.insert(path.to_path_buf(), Platter::default());
        Ok(file)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        if self.step(Operation::Open).is_some() {
            return Err(refused());
        }
        Disk.open(path)
    }

    fn open_to_read(&self, path: &Path) -> io::Result<File> {
        Disk.open_to_read(path)
    }

    fn read(&self, file: &File, path: &Path, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(bad) = self.state().unreadable.get(path)
            && at < bad.end
            && bad.start < at + buffer.len() as u64
        {
            return Err(refused());
        }
        Disk.read(file, path, at, buffer)
    }

    fn write(&self, file: &File, path: &Path, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.refuse_broken(path);
        let torn = self.step(Operation::Write);
        let length = torn.unwrap_or(bytes.len()).min(bytes.len());
        Disk.write(file, path, at, &bytes[..length])?;
        let mut state = self.state();
        let begin = at as usize;
        state.files.entry(path.to_path_buf()).or_default().dirty.push(begin..begin + length);
        if torn.is_some() {
            state.broken.insert(path.to_path_buf());
            return Err(refused());
        }
        Ok(())
    }

    fn truncate(&self, file: &File, path: &Path, length: u64) -> io::Result<()> {
        self.refuse_broken(path);
        if self.step(Operation::Truncate).is_some() {
            return Err(refused());
        }
        Disk.truncate(file, path, length)?;
        // A cut is journalled by the file system; it is not what these tests are after.
        if let Some(platter) = self.state().files.get_mut(path) {
            platter.bytes.truncate(length as usize);
            platter.dirty.retain(|range| range.end <= length as usize);
        }
        Ok(())
    }

    fn sync(&self, file: &File, path: &Path) -> io::Result<()> {
        self.refuse_broken(path);
        let fails = self.step(Operation::Sync);
        file.sync_data()?;
        let seen = fs::read(path)?;
        let mut state = self.state();
        let platter = state.files.entry(path.to_path_buf()).or_default();
        let dirty = std::mem::take(&mut platter.dirty);
        if let Some(torn) = fails {
            // Some of it may have got there.
            for range in dirty {
                save(&mut platter.bytes, &seen, range.start..range.end.min(range.start + torn));
            }
            state.broken.insert(path.to_path_buf());
            return Err(refused());
        }
        for range in dirty {
            save(&mut platter.bytes, &seen, range);
        }
        Ok(())
    }

    fn sync_directory(&self, dir: &Path) -> io::Result<()> {
        if self.step(Operation::SyncDirectory).is_some() {
            return Err(refused());
        }
        let mut state = self.state();
        state.files.retain(|path, _| path.exists());
        state.durable = state.files.keys().filter(|path| path.parent() == Some(dir)).cloned().collect();
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        if self.step(Operation::Unlink).is_some() {
            return Err(refused());
        }
        Disk.unlink(path)
    }
}
