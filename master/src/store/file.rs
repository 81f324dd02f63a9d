//! Small files that are either the old or the new one after a crash: written beside, made durable, renamed, the directory made
//! durable. Knows nothing of what is in them. The surprise: a leftover `.tmp` is nobody's; the next writer of the name takes it.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::StoreError;

/// Makes the closure that gives an I/O error its place.
pub(super) fn io(path: &Path, op: &'static str) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_path_buf();
    move |source| StoreError::Io { op, path, source }
}

/// Whether there is something of this name. What the disk refuses to tell is no answer: taken for "no" it would let a store begin anew.
pub(super) fn exists(path: &Path) -> Result<bool, StoreError> {
    path.try_exists().map_err(io(path, "look for"))
}

/// Makes a directory for its owner only, and its name durable.
pub(super) fn make_directory(path: &Path) -> Result<(), StoreError> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io(path, "create directory"))?;
    sync_directory(parent(path))
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(io(path, "sync directory"))
}

/// So much of a large file is made durable at once: a commit of the journal on the same disk waits behind no more.
const SYNC_EVERY: usize = 1024 * 1024;

/// Replaces `path` by `bytes`; durable when it returns.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let beside = beside(path);
    let mut file = File::create(&beside).map_err(io(&beside, "create"))?;
    for part in bytes.chunks(SYNC_EVERY) {
        file.write_all(part).and_then(|()| file.sync_data()).map_err(io(&beside, "write"))?;
    }
    file.sync_all().map_err(io(&beside, "write"))?;
    drop(file);
    fs::rename(&beside, path).map_err(io(path, "replace"))?;
    sync_directory(parent(path))
}

/// The file's bytes; `None` if there is none.
///
/// # Errors
/// When it cannot be read or has more than `max` bytes.
pub(super) fn read(path: &Path, max: u64) -> Result<Option<Vec<u8>>, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(refused) => return Err(io(path, "open")(refused)),
    };
    let mut bytes = Vec::new();
    file.take(max.saturating_add(1)).read_to_end(&mut bytes).map_err(io(path, "read"))?;
    if bytes.len() as u64 > max {
        return Err(StoreError::Damaged { path: path.to_path_buf(), why: format!("it has more than {max} bytes") });
    }
    Ok(Some(bytes))
}

/// Gives a damaged file another name, so that it is kept for a look and never read again. Says in the log where it is.
pub(super) fn put_aside(path: &Path) {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".damaged");
    match fs::rename(path, &aside).map_err(io(path, "put aside")).and_then(|()| sync_directory(parent(path))) {
        Ok(()) => {
            tracing::warn!(file = %path.display(), aside = %PathBuf::from(aside).display(), "a damaged file was put aside")
        }
        Err(error) => tracing::warn!(%error, "a damaged file could not be put aside"),
    }
}

/// Names of the files in a directory, ascending; none if there is no directory.
pub(super) fn names(path: &Path) -> Result<Vec<String>, StoreError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(refused) => return Err(io(path, "list")(refused)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.map_err(io(path, "list"))?.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    PathBuf::from(name)
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
