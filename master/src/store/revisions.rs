//! Compiled catalogs as they were activated, each under its digest, durable before any entry names it. Does not know which one
//! runs. The surprise: the file is checked by content twice, because a catalog that differs from what was activated would make
//! replay give another state.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::config::Catalog;

use super::{StoreError, file};

/// Revisions kept for rollback and for a look, newest first; one that the journal may still replay is kept beyond.
pub const REVISIONS_KEPT: usize = 50;
/// Unneeded revisions are looked for when this many more than [`REVISIONS_KEPT`] have gathered.
const REVISIONS_SLACK: usize = 14;
/// A stored revision is read up to this size, and inflated up to four times of it.
const REVISION_BYTES_MAX: u64 = 256 * 1024 * 1024;
const ZSTD_LEVEL: i32 = 3;
const SUFFIX: &str = ".cbor.zst";

/// The directory of revisions.
#[derive(Debug, Clone)]
pub(super) struct Revisions {
    directory: PathBuf,
}

impl Revisions {
    pub(super) fn open(directory: &Path) -> Result<Self, StoreError> {
        file::make_directory(directory)?;
        Ok(Self { directory: directory.to_path_buf() })
    }

    /// Stores a catalog; durable when it returns. One that is there and whole counts as used now.
    pub(super) fn keep(&self, catalog: &Catalog, now: SystemTime) -> Result<(), StoreError> {
        let digest = catalog.digest.to_string();
        let path = self.path(&digest)?;
        if self.load(&digest).is_ok() {
            let touched = File::options().append(true).open(&path).and_then(|file| file.set_modified(now));
            return touched.map_err(file::io(&path, "mark as used"));
        }
        let bytes = zstd::bulk::compress(&catalog.to_bytes(), ZSTD_LEVEL).map_err(file::io(&path, "compress"))?;
        file::replace(&path, &bytes)
    }

    pub(super) fn load(&self, digest: &str) -> Result<Arc<Catalog>, StoreError> {
        let path = self.path(digest)?;
        let damaged = |why: String| StoreError::Damaged { path: path.clone(), why };
        let bytes = file::read(&path, REVISION_BYTES_MAX)?
            .ok_or_else(|| StoreError::RevisionMissing { digest: digest.to_owned(), path: path.clone() })?;
        let mut stored = Vec::new();
        zstd::stream::read::Decoder::with_buffer(bytes.as_slice())
            .and_then(|decoder| decoder.take(4 * REVISION_BYTES_MAX).read_to_end(&mut stored))
            .map_err(|error| damaged(error.to_string()))?;
        let catalog = Catalog::from_bytes(&stored).map_err(|error| damaged(error.to_string()))?;
        if catalog.digest.to_string() != digest {
            return Err(damaged(format!("it holds the revision {}", catalog.digest)));
        }
        Ok(Arc::new(catalog))
    }

    /// Removes what is beyond [`REVISIONS_KEPT`], oldest use first, except what `referenced` gives. It is asked only when there
    /// is something to remove.
    pub(super) fn sweep(
        &self,
        referenced: impl FnOnce() -> Result<BTreeSet<String>, StoreError>,
    ) -> Result<usize, StoreError> {
        let mut stored: Vec<(SystemTime, String)> = Vec::new();
        for name in file::names(&self.directory)? {
            let Some(digest) = name.strip_suffix(SUFFIX) else { continue };
            let path = self.directory.join(&name);
            let used =
                fs::metadata(&path).and_then(|metadata| metadata.modified()).map_err(file::io(&path, "examine"))?;
            stored.push((used, digest.to_owned()));
        }
        if stored.len() <= REVISIONS_KEPT + REVISIONS_SLACK {
            return Ok(0);
        }
        stored.sort_unstable();
        stored.truncate(stored.len() - REVISIONS_KEPT);
        let referenced = referenced()?;
        let mut removed = 0;
        for (_, digest) in stored.iter().filter(|(_, digest)| !referenced.contains(digest)) {
            let path = self.path(digest)?;
            fs::remove_file(&path).map_err(file::io(&path, "remove"))?;
            removed += 1;
        }
        Ok(removed)
    }

    fn path(&self, digest: &str) -> Result<PathBuf, StoreError> {
        if digest.len() != 64 || !digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(StoreError::Digest(digest.escape_debug().to_string()));
        }
        Ok(self.directory.join(format!("{digest}{SUFFIX}")))
    }
}
