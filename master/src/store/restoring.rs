//! A data directory that a backup is being put into: locked, marked as unfinished until the first row of the new timeline is durable,
//! and what was there before put aside. Knows no backup. The surprise: without the mark a restore that was cut off would come up as
//! the old timeline and give its numbers a second time.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::{StoreError, file, lock, move_aside};

/// Marks a directory into which a backup is being put.
pub(super) const RESTORING: &str = "restoring";
/// What a backup is known by; a directory that has it is no data directory.
pub const MANIFEST: &str = "backup.json";
/// What a store is made of, and what is made from it.
const PARTS: [&str; 8] = [
    "journal",
    "checkpoint",
    "revisions",
    "cursors",
    "history.sqlite",
    "history.sqlite-wal",
    "history.sqlite-shm",
    super::FOUNDED,
];

/// A directory that is ready for the files of a backup.
#[derive(Debug)]
pub struct Restoring {
    data: PathBuf,
    /// Where the store that was there before lies now.
    pub aside: Option<PathBuf>,
    _lock: File,
}

impl Restoring {
    /// Takes the lock, marks the directory, and puts aside what was there.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when a master works there; what the operating system refuses.
    pub fn begin(data: &Path) -> Result<Self, StoreError> {
        file::make_directory(data)?;
        let lock = lock(data)?;
        let mark = data.join(RESTORING);
        let aside = if file::exists(&mark)? {
            // Half of a copy: the original is where it was taken from.
            for part in PARTS {
                remove(&data.join(part))?;
            }
            None
        } else {
            file::replace(&mark, b"")?;
            move_aside(data, "before-restore", &PARTS)?
        };
        file::sync_directory(data)?;
        Ok(Self { data: data.to_path_buf(), aside, _lock: lock })
    }

    /// The files are there and durable: gives the directory free for [`super::open`] with [`super::Options::restoring`].
    ///
    /// # Errors
    /// When the directory cannot be made durable.
    pub fn filled(self) -> Result<(), StoreError> {
        file::replace(&self.data.join(super::FOUNDED), b"")
    }
}

/// The new timeline has begun: the directory is one like any other.
///
/// # Errors
/// When the mark cannot be taken off; the restore can be run again then.
pub fn finish(data: &Path) -> Result<(), StoreError> {
    remove(&data.join(RESTORING))?;
    file::sync_directory(data)
}

fn remove(path: &Path) -> Result<(), StoreError> {
    let outcome = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match outcome {
        Err(refused) if refused.kind() != std::io::ErrorKind::NotFound => Err(file::io(path, "remove")(refused)),
        _ => Ok(()),
    }
}

/// Refuses a directory that is no data directory, or not one yet.
pub(super) fn refuse(data: &Path, restoring: bool) -> Result<(), StoreError> {
    if file::exists(&data.join(MANIFEST))? {
        return Err(StoreError::Backup { data: data.to_path_buf() });
    }
    if file::exists(&data.join(RESTORING))? != restoring {
        return Err(StoreError::Unfinished { data: data.to_path_buf() });
    }
    Ok(())
}
