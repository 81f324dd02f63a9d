//! A consumer's durable place in the journal: a small file, replaced by rename. Trimming waits for all of them within its bounds.
//!
//! Knows nothing of the journal; it keeps a number for whoever trusts it. The surprise: a file that cannot be read as
//! a cursor is an error and never "from the start", for that would silently send a day again or hide a damaged disk.

use std::path::{Path, PathBuf};

use shared::name::JournalIndex;

use super::{StoreError, file};

/// First word of the file, with the version of its format.
const FORMAT: &str = "perigee-cursor-1";
/// More bytes than any cursor has; a longer file is none.
const FILE_LIMIT: u64 = 64;
/// Longest name of a cursor, in bytes.
const NAME_MAX: usize = 100;
/// What a write that was cut off leaves; never a cursor.
const LEFTOVER: &str = ".tmp";

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

    /// The cursor called `name` in a directory.
    pub(super) fn named(directory: &Path, name: &str) -> Result<Self, StoreError> {
        check_name(name)?;
        Ok(Self::new(directory.join(name)))
    }

    /// The index last saved; none if nothing ever was.
    ///
    /// # Errors
    /// The file cannot be read, or is not a cursor.
    pub fn load(&self) -> Result<Option<JournalIndex>, StoreError> {
        let wrong = || StoreError::Damaged {
            path: self.path.clone(),
            why: "it is not a cursor; delete it to send again all that the journal keeps".to_owned(),
        };
        let Some(bytes) = file::read(&self.path, FILE_LIMIT)? else { return Ok(None) };
        let text = std::str::from_utf8(&bytes).map_err(|_| wrong())?;
        let index = text.strip_suffix('\n').and_then(|text| text.strip_prefix(FORMAT)?.strip_prefix(' ')?.parse().ok());
        index.map(|index| Some(JournalIndex(index))).ok_or_else(wrong)
    }

    /// Saves the index; when this returns it survives a loss of power. It may go back: what a peer has lost is sent again.
    ///
    /// # Errors
    /// The file cannot be written or renamed; the index saved before then still stands.
    pub fn save(&self, index: JournalIndex) -> Result<(), StoreError> {
        file::replace(&self.path, format!("{FORMAT} {index}\n").as_bytes())
    }
}

/// The cursor that stands furthest back, for trimming: one that cannot be read counts as 0, for its consumer may still want all.
pub(super) fn lowest(directory: &Path) -> Result<Option<JournalIndex>, StoreError> {
    let names = file::names(directory)?;
    let cursors = names.iter().filter(|name| !name.ends_with(LEFTOVER));
    Ok(cursors.map(|name| CursorFile::new(directory.join(name)).load().ok().flatten().unwrap_or_default()).min())
}

/// A cursor's name is a file name that needs no quoting anywhere.
fn check_name(name: &str) -> Result<(), StoreError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let fits = !name.is_empty() && name.len() <= NAME_MAX && !name.starts_with('.') && name.chars().all(allowed);
    if fits && !name.ends_with(LEFTOVER) {
        Ok(())
    } else {
        Err(StoreError::CursorName(name.escape_debug().to_string()))
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

    #[test]
    fn trimming_waits_for_the_cursor_furthest_back() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(lowest(directory.path()).unwrap(), None);
        // Names that differ behind the last dot alone must not share a file while they are written.
        let [one, other] = ["graphite-127.0.0.1_2003", "graphite-127.0.0.1_2004"]
            .map(|name| CursorFile::named(directory.path(), name).unwrap());
        one.save(JournalIndex(12)).unwrap();
        other.save(JournalIndex(9)).unwrap();
        std::fs::write(directory.path().join("graphite.tmp"), "perigee-curs").unwrap();
        assert_eq!(lowest(directory.path()).unwrap(), Some(JournalIndex(9)));
        std::fs::write(directory.path().join("influx"), "no cursor").unwrap();
        assert_eq!(lowest(directory.path()).unwrap(), Some(JournalIndex(0)));
    }

    #[test]
    fn names_cannot_leave_the_directory() {
        for name in ["", ".", "..", "a/b", "../lock", "a b", "a.tmp", &"a".repeat(NAME_MAX + 1)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
