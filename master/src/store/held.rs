//! The files of a running store, opened so that a copy of them is one moment's: nothing that is trimmed or replaced meanwhile can
//! pull them away. Decides which files a store is; copies nothing. The surprise: order is all there is to it, first the checkpoint,
//! then the journal, then what rows name, for each of these is durable before the one that needs it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use shared::name::JournalIndex;

use super::{Store, StoreError, checkpoint, file};

/// Files that go away while they are looked for are looked for again this often: trimming and checkpoints take minutes between two.
const ATTEMPTS: u32 = 10;

/// One file, open for reading.
#[derive(Debug)]
pub struct Held {
    /// Its path below the data directory, with `/`.
    pub name: String,
    /// The file.
    pub file: File,
    /// How much of it belongs to the copy.
    pub bytes: u64,
}

impl Store {
    /// Opens everything a copy of the store needs, as it is at one moment: newest checkpoint, journal, revisions, cursors.
    ///
    /// # Errors
    /// When a file cannot be opened, or they change faster than they can be.
    pub fn hold(&self) -> Result<Vec<Held>, StoreError> {
        let data = self.inner.cursors.parent().unwrap_or(Path::new(".")).to_path_buf();
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.hold_once(&data) {
                Err(StoreError::Io { source, .. })
                    if source.kind() == io::ErrorKind::NotFound && attempts < ATTEMPTS => {}
                outcome => return outcome,
            }
        }
    }

    fn hold_once(&self, data: &Path) -> Result<Vec<Held>, StoreError> {
        let mut held = Vec::new();
        let newest = self.inner.checkpoints.borrow().last().copied();
        if let Some(index) = newest {
            held.push(open(data, &checkpoint::path(&data.join("checkpoint"), index), None)?);
        }
        for (path, bytes) in self.inner.bounds.files() {
            held.push(open(data, &path, Some(bytes))?);
        }
        let covered = newest.unwrap_or(JournalIndex(0));
        if self.first().0 > covered.0.saturating_add(1) {
            // Trimmed behind a younger checkpoint since: look again.
            let source = io::Error::from(io::ErrorKind::NotFound);
            return Err(StoreError::Io { op: "hold", path: data.join("journal"), source });
        }
        for folder in ["revisions", "cursors"] {
            for name in file::names(&data.join(folder))? {
                if !name.ends_with(".tmp") {
                    held.push(open(data, &data.join(folder).join(name), None)?);
                }
            }
        }
        Ok(held)
    }
}

fn open(data: &Path, path: &PathBuf, bytes: Option<u64>) -> Result<Held, StoreError> {
    let file = File::open(path).map_err(file::io(path, "open"))?;
    let bytes = match bytes {
        Some(bytes) => bytes,
        None => file.metadata().map_err(file::io(path, "examine"))?.len(),
    };
    let name = path.strip_prefix(data).unwrap_or(path).to_string_lossy().into_owned();
    Ok(Held { name, file, bytes })
}
