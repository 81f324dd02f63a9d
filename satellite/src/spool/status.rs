//! What a running satellite tells an operator on the same volume: a small file in its directory, and the lock that shows it lives.
//! Decides nothing but who is alive. The surprise: there is no socket; a file whose owner holds no lock any more tells nothing.

use std::fs::{self, File, TryLockError};
use std::path::Path;

use anyhow::{Context, Result};

/// Name of the file.
const NAME: &str = "status.json";

/// Replaces what the process of `directory` tells. Not synced: it means nothing after a power loss.
///
/// # Errors
/// When the file cannot be written.
pub fn tell(directory: &Path, status: &[u8]) -> Result<()> {
    let (path, beside) = (directory.join(NAME), directory.join("status.new"));
    fs::write(&beside, status).with_context(|| format!("cannot write {}", beside.display()))?;
    fs::rename(&beside, &path).with_context(|| format!("cannot replace {}", path.display()))
}

/// What a process told that is gone: whoever takes its directory holds its lock, and must not speak for it.
pub fn forget(directory: &Path) {
    // If it cannot be removed, an operator sees a dead process beside the living one, and nothing else is wrong.
    let _ = fs::remove_file(directory.join(NAME));
}

/// What every living process of the volume tells.
///
/// # Errors
/// When the volume cannot be read.
pub fn ask(data: &Path) -> Result<Vec<serde_json::Value>> {
    let root = data.join("spool");
    let mut told = Vec::new();
    let entries = match fs::read_dir(&root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(told),
        Err(error) => return Err(error).with_context(|| format!("cannot list {}", root.display())),
    };
    for entry in entries {
        let directory = entry.with_context(|| format!("cannot list {}", root.display()))?.path();
        let Ok(lock) = File::open(directory.join("lock")) else { continue };
        // Shared, so that two who ask do not take each other for a satellite.
        if matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock))
            && let Ok(bytes) = fs::read(directory.join(NAME))
            && let Ok(status) = serde_json::from_slice(&bytes)
        {
            told.push(status);
        }
    }
    Ok(told)
}
