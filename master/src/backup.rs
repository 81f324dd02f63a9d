//! Backup and restore of an installation: a running store into a directory that stands for one moment, and such a directory into a
//! data directory that begins a new timeline. Copies and checks; what a new timeline is stands in `coordinator::timeline`. The
//! surprise: a backup without its manifest is none, and the manifest is written last.
//!
//! ```text
//! backup.json | checkpoint/* | journal/*.seg | revisions/* | cursors/* | history.sqlite | installation | tokens.json | trust/*
//! ```

mod copying;
mod restore;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use shared::wall;

use crate::history::{self, HistoryReader};
use crate::store::{MANIFEST, Store};

pub use restore::{LeftCommand, Outcome, restore};

/// Version of the layout.
const FORMAT: u32 = 1;
/// Small files beside the store that belong to an installation. The CA's certificates are public; what is secret comes with
/// [`Wanted::keys`] only.
const PUBLIC: [&str; 3] = ["installation", "tokens.json", "trust/ca.crt"];
/// Whoever has these can speak for every slot.
const SECRET: [&str; 2] = ["trust/ca.key", "trust/reset.key"];
/// Further CAs that are accepted, while one is rotated.
const CAS: &str = "trust/ca";
/// Longest manifest that is read, in bytes: a hundred thousand files.
const MANIFEST_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// What a backup is to have besides the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// The CA's key and the link's reset secret.
    pub keys: bool,
    /// The history file; without it history is made anew from the journal, which goes back some hours or days.
    pub history: bool,
}

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`] of whoever wrote it.
    pub format: u32,
    /// The program's version, for people.
    pub software: String,
    /// When it was made, RFC 3339.
    pub made: String,
    /// Row of the journal that was durable when it was begun; there may be a few more.
    pub index: u64,
    /// Its files.
    pub files: Vec<Listed>,
}

/// One file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Path below the directory.
    pub name: String,
    /// Length.
    pub bytes: u64,
    /// CRC32C of its content.
    pub crc32c: u32,
}

impl Manifest {
    /// All files together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Reads the manifest of a backup.
    ///
    /// # Errors
    /// When the directory is none, or one of a later version.
    pub fn read(from: &Path) -> Result<Self> {
        let path = from.join(MANIFEST);
        let text = copying::read_small(&path, MANIFEST_BYTES_MAX).with_context(|| {
            format!("{} is no complete backup: it has no {MANIFEST} that can be read", from.display())
        })?;
        let manifest: Self = serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))?;
        ensure!(
            manifest.format <= FORMAT,
            "{} has format {}, this program reads up to {FORMAT}: restore it with the version that made it ({})",
            from.display(),
            manifest.format,
            manifest.software
        );
        for file in &manifest.files {
            let plain = file.name.split('/').all(|part| !matches!(part, "" | "." | ".."));
            ensure!(plain, "{} names a file outside of it: {:?}", path.display(), file.name);
        }
        Ok(manifest)
    }
}

/// How far a backup is; one at a time.
#[derive(Debug, Default)]
pub struct Progress {
    running: AtomicBool,
    copied: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    /// Bytes copied and bytes there are to copy, while a backup runs. The second grows while history is being compacted.
    #[must_use]
    pub fn of_running(&self) -> Option<(u64, u64)> {
        let running = self.running.load(Ordering::Acquire);
        running.then(|| (self.copied.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed)))
    }
}

/// What a backup is made from.
#[derive(Debug, Clone)]
pub struct Source {
    /// The running store.
    pub store: Store,
    /// What happened.
    pub history: HistoryReader,
    /// The data directory.
    pub data: PathBuf,
}

/// Makes a backup of a running installation in `to`, which must be empty or not there, on this machine. Blocks for as long as copying
/// takes and holds up nothing. What was begun is removed when it cannot be ended.
///
/// # Errors
/// Another backup runs, the directory is in use, or something cannot be read or written.
pub fn take(source: &Source, to: &Path, wanted: Wanted, progress: &Progress) -> Result<Manifest> {
    ensure!(to.is_absolute(), "{} is no absolute path: the master does not know from where it was typed", to.display());
    ensure!(!to.starts_with(&source.data), "{} is inside of the data directory", to.display());
    ensure!(!progress.running.swap(true, Ordering::AcqRel), "a backup is being made already");
    progress.copied.store(0, Ordering::Relaxed);
    progress.total.store(0, Ordering::Relaxed);
    let outcome = copying::make_empty(to).and_then(|made| {
        let outcome = fill(source, to, wanted, progress);
        if outcome.is_err() {
            // What is half of a backup is worth nothing; what was there before (an empty directory) stays.
            for part in made.parts() {
                let _ = if part.is_dir() { fs::remove_dir_all(&part) } else { fs::remove_file(&part) };
            }
        }
        outcome
    });
    progress.running.store(false, Ordering::Release);
    outcome
}

fn fill(source: &Source, to: &Path, wanted: Wanted, progress: &Progress) -> Result<Manifest> {
    let mut files = Vec::new();
    // First of all: what it reflects must be in the journal that is copied behind it.
    if wanted.history {
        let path = to.join(history::FILE);
        source.history.copy(&path).context("copying the history")?;
        files.push(copying::seal(&path, history::FILE)?);
    }
    let index = source.store.published().borrow().0;
    let mut held = source.store.hold().context("opening the files of the store")?;
    for name in PUBLIC.into_iter().chain(SECRET.into_iter().filter(|_| wanted.keys)) {
        held.extend(copying::beside(&source.data, name)?);
    }
    for name in copying::names(&source.data.join(CAS))? {
        held.extend(copying::beside(&source.data, &format!("{CAS}/{name}"))?);
    }
    let done: u64 = files.iter().map(|file| file.bytes).sum();
    progress.total.store(held.iter().map(|held| held.bytes).sum::<u64>().saturating_add(done), Ordering::Relaxed);
    progress.copied.store(done, Ordering::Relaxed);
    for held in held {
        files.push(copying::copy(held, to, &progress.copied)?);
    }
    let manifest = Manifest {
        format: FORMAT,
        software: env!("CARGO_PKG_VERSION").to_owned(),
        made: wall::now().to_string(),
        index,
        files,
    };
    copying::sync_tree(to)?;
    let text = serde_json::to_vec_pretty(&manifest).context("the manifest")?;
    copying::write(&to.join(MANIFEST), &text)?;
    copying::sync_tree(to)?;
    tracing::info!(to = %to.display(), index, bytes = manifest.bytes(), "a backup was made");
    Ok(manifest)
}
