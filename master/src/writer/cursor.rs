//! A writer's durable place in the journal: a small file, replaced by rename.
//!
//! Knows neither journal nor store; it keeps a number for whoever trusts it. The surprise: a file that cannot be read as
//! a cursor is an error and never "from the start", for that would silently send a day again or hide a damaged disk.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use shared::name::JournalIndex;

/// First word of the file, with the version of its format.
const FORMAT: &str = "perigee-cursor-1";
/// More bytes than any cursor has; a longer file is none.
const FILE_LIMIT: usize = 64;

/// The file of one cursor. One writer at a time owns it.
#[derive(Debug)]
pub struct CursorFile {
    path: PathBuf,
}

impl CursorFile {
    /// The cursor kept at `path`, whose directory must exist; the file need not.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The index last saved; none if nothing ever was.
    ///
    /// # Errors
    /// The file cannot be read, or is not a cursor.
    pub fn load(&self) -> anyhow::Result<Option<JournalIndex>> {
        let text = match std::fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("reading the cursor {}", self.path.display())),
        };
        let parsed = std::str::from_utf8(&text)
            .ok()
            .filter(|text| text.len() <= FILE_LIMIT)
            .and_then(|text| text.strip_suffix('\n')?.strip_prefix(FORMAT)?.strip_prefix(' ')?.parse().ok());
        match parsed {
            Some(index) => Ok(Some(JournalIndex(index))),
            None => {
                bail!("{} is not a cursor; delete it to send again all that the journal keeps", self.path.display())
            }
        }
    }

    /// Saves the index; when this returns it survives a loss of power.
    ///
    /// # Errors
    /// The file cannot be written or renamed; the index saved before then still stands.
    pub fn save(&self, index: JournalIndex) -> anyhow::Result<()> {
        self.replace(index).with_context(|| format!("saving the cursor {}", self.path.display()))
    }

    fn replace(&self, index: JournalIndex) -> std::io::Result<()> {
        let fresh = self.path.with_extension("fresh");
        let mut file = std::fs::File::create(&fresh)?;
        file.write_all(format!("{FORMAT} {index}\n").as_bytes())?;
        file.sync_all()?;
        drop(file);
        std::fs::rename(&fresh, &self.path)?;
        let directory = self.path.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::File::open(directory)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_index_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("graphite.cursor");
        let cursor = CursorFile::new(&path);
        assert_eq!(cursor.load().unwrap(), None);
        for index in [7, u64::MAX, 3] {
            cursor.save(JournalIndex(index)).unwrap();
            assert_eq!(CursorFile::new(&path).load().unwrap(), Some(JournalIndex(index)));
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing lies about");
    }

    #[test]
    fn what_is_no_cursor_is_an_error_that_names_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("graphite.cursor");
        for text in
            [&b""[..], b"7\n", b"perigee-cursor-1 7", b"perigee-cursor-1 -7\n", b"perigee-cursor-2 7\n", b"\xff\n"]
        {
            std::fs::write(&path, text).unwrap();
            let error = CursorFile::new(&path).load().unwrap_err().to_string();
            assert!(error.contains("graphite.cursor"), "{error}");
        }
    }

    #[test]
    fn a_cursor_that_cannot_be_saved_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let cursor = CursorFile::new(directory.path().join("missing/graphite.cursor"));
        assert!(cursor.save(JournalIndex(1)).unwrap_err().to_string().contains("missing/graphite.cursor"));
    }
}
