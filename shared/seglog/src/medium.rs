//! The few file operations a log makes, behind a trait, so that tests can make each of them fail, tear or be forgotten.
//! Production knows one medium, [`Disk`]. A medium decides nothing.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// File operations whose failure the log must survive.
pub trait Medium: Debug + Send + Sync {
    /// Creates a file that must not exist yet, open for reading and writing.
    fn create(&self, path: &Path) -> io::Result<File>;
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<File>;
    /// Opens an existing file for reading.
    fn open_to_read(&self, path: &Path) -> io::Result<File>;
    /// Reads up to `buffer.len()` bytes; fewer only at the end of the file.
    fn read(&self, file: &File, path: &Path, at: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `bytes` at `at`.
    fn write(&self, file: &File, path: &Path, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the file to `length`.
    fn truncate(&self, file: &File, path: &Path, length: u64) -> io::Result<()>;
    /// Makes what was written durable (`fdatasync`, which covers the length).
    fn sync(&self, file: &File, path: &Path) -> io::Result<()>;
    /// Makes the creation and removal of names in `dir` durable.
    fn sync_directory(&self, dir: &Path) -> io::Result<()>;
    /// Removes a name.
    fn unlink(&self, path: &Path) -> io::Result<()>;
}

/// The real thing.
#[derive(Debug)]
pub struct Disk;

impl Medium for Disk {
    fn create(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).open(path)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(path)
    }

    fn open_to_read(&self, path: &Path) -> io::Result<File> {
        File::open(path)
    }

    fn read(&self, file: &File, _: &Path, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, at.saturating_add(filled as u64)) {
                Ok(0) => break,
                Ok(got) => filled += got,
                Err(refused) if refused.kind() == io::ErrorKind::Interrupted => {}
                Err(refused) => return Err(refused),
            }
        }
        Ok(filled)
    }

    fn write(&self, file: &File, _: &Path, at: u64, bytes: &[u8]) -> io::Result<()> {
        file.write_all_at(bytes, at)
    }

    fn truncate(&self, file: &File, _: &Path, length: u64) -> io::Result<()> {
        file.set_len(length)
    }

    fn sync(&self, file: &File, _: &Path) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_directory(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}
