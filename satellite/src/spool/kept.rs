//! The assignment on disk: what a start without the master goes on from. Decides which of the two kept generations is believed;
//! knows nothing of what checks mean. The surprise: an unreadable assignment is never taken for an empty one without saying so.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use shared::name::{InstallationId, Slot};

use crate::command::Kept;
use crate::spool::sealed::{self, SealError};

const TAG: [u8; 4] = *b"PGAS";
const FORMAT: u8 = 1;

/// The directory that holds the assignment.
#[derive(Debug, Clone)]
pub struct Assignments {
    dir: PathBuf,
}

impl Assignments {
    /// Under `data`.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(data: &Path) -> Result<Self> {
        let dir = data.join("assignment");
        match fs::create_dir(&dir) {
            // What stands there is a directory, or says so when it is used: asked, the disk might refuse the answer.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("cannot create the directory {}", dir.display()));
            }
            _ => {}
        }
        sealed::sync_directory_of(&dir).with_context(|| format!("cannot sync {}", data.display()))?;
        Ok(Self { dir })
    }

    /// Puts an assignment on disk; the one before it stays as `previous`.
    ///
    /// # Errors
    /// When it cannot be made durable; what was there before is then still there.
    pub fn keep(&self, kept: &Kept) -> Result<()> {
        let (current, previous) = (self.dir.join("current"), self.dir.join("previous"));
        let content = minicbor::to_vec(kept).context("the assignment cannot be encoded")?;
        // Only a believed one is worth keeping; a link leaves `current` in its place meanwhile.
        if sealed::read(&current, TAG, FORMAT).is_ok() {
            let beside = self.dir.join("previous.new");
            let _ = fs::remove_file(&beside);
            fs::hard_link(&current, &beside)
                .and_then(|()| fs::rename(&beside, &previous))
                .with_context(|| format!("cannot keep {}", previous.display()))?;
        }
        sealed::write(&current, TAG, FORMAT, &content)
            .with_context(|| format!("cannot write {}", current.display()))?;
        // The first of all has nothing before it: a second copy, so that damage to one never means to start without checks.
        if !previous.exists() {
            sealed::write(&previous, TAG, FORMAT, &content)
                .with_context(|| format!("cannot write {}", previous.display()))?;
        }
        Ok(())
    }

    /// The newest assignment of this slot that can be believed.
    ///
    /// # Errors
    /// When the system refuses to read, which says nothing about the file; starting without checks would be wrong.
    pub fn load(&self, installation: &InstallationId, slot: &Slot) -> Result<Option<Kept>> {
        let mut told = false;
        for name in ["current", "previous"] {
            let path = self.dir.join(name);
            let why = match sealed::read(&path, TAG, FORMAT) {
                Ok(bytes) => match minicbor::decode::<Kept>(&bytes) {
                    Ok(kept) if &kept.installation == installation && &kept.slot == slot => {
                        if told {
                            let generation = kept.assignment.generation;
                            tracing::error!(path = %path.display(), %generation, "started from an earlier assignment");
                        }
                        return Ok(Some(kept));
                    }
                    Ok(kept) => format!("it belongs to slot {} of {}", kept.slot, kept.installation),
                    Err(error) => format!("it does not decode: {error}"),
                },
                Err(SealError::Missing) if !told => continue,
                Err(SealError::Io(error)) if error.kind() != io::ErrorKind::InvalidData => {
                    return Err(error).with_context(|| format!("cannot read {}", path.display()));
                }
                Err(error) => error.to_string(),
            };
            tracing::error!(path = %path.display(), "this assignment is not used: {why}");
            told = true;
        }
        if told {
            tracing::error!("no assignment on disk can be used: nothing is checked until the master sends one");
        }
        Ok(None)
    }
}
