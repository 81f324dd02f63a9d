//! The file that says which process the agent is. Written while the process may still be root, and removed at its end if it may.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

/// A pid file of ours; dropped, it is removed.
#[derive(Debug)]
pub struct PidFile(PathBuf);

impl PidFile {
    /// Writes it.
    ///
    /// # Errors
    /// It names a process that lives and is another, or cannot be written.
    pub fn write(path: &Path) -> Result<Self> {
        let own = std::process::id();
        if let Ok(text) = fs::read_to_string(path)
            && let Ok(other) = text.trim().parse::<u32>()
        {
            let lives = other != own && Path::new(&format!("/proc/{other}")).exists();
            ensure!(
                !lives,
                "pid_file {} names process {other}, which is running; is there another daemon?",
                path.display()
            );
            // Written anew rather than over: the old file may be somebody else's.
            let _ = fs::remove_file(path);
        }
        fs::write(path, format!("{own}\n"))
            .with_context(|| format!("pid_file {} cannot be written", path.display()))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // The directory is often root's, and we are not any more; a number without a process is no hindrance at the next start.
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::debug!(%error, "the pid file stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_a_living_process_is_respected_and_one_of_a_dead_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        fs::write(&path, "1\n").unwrap();
        assert!(PidFile::write(&path).unwrap_err().to_string().contains("names process 1, which is running"));
        fs::write(&path, "4194305\n").unwrap();
        let file = PidFile::write(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(file);
        assert!(!path.exists());
        assert!(PidFile::write(&directory.path().join("no/pid")).is_err());
    }
}
