//! Files from one place to another: bounded memory, a checksum on the way, durable when it returns. Knows no store. The surprise:
//! everything is written for the owner alone, for a journal tells as much of an installation as its configuration does.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};

use super::Listed;
use crate::store::Held;

/// Bytes on their way at a time.
const CHUNK: usize = 1024 * 1024;

/// A directory that was empty when the backup began.
pub(super) struct Made {
    path: PathBuf,
}

impl Made {
    /// What there is to remove when the backup cannot be ended.
    pub(super) fn parts(&self) -> Vec<PathBuf> {
        let parts = fs::read_dir(&self.path).into_iter().flatten();
        parts.filter_map(|part| part.ok().map(|part| part.path())).collect()
    }
}

/// Makes a directory for its owner alone, or takes one that is empty.
pub(super) fn make_empty(path: &Path) -> Result<Made> {
    make_directory(path)?;
    let mut there = fs::read_dir(path).with_context(|| format!("cannot look into {}", path.display()))?;
    ensure!(there.next().is_none(), "{} is not empty: a backup is made in a directory of its own", path.display());
    Ok(Made { path: path.to_path_buf() })
}

/// Makes a directory and those above it.
pub(super) fn make_directory(path: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("cannot make the directory {}", path.display()))
}

/// Names in a directory, ascending; none if it is not there.
pub(super) fn names(path: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(refused) => return Err(refused).with_context(|| format!("cannot look into {}", path.display())),
    };
    let names: io::Result<Vec<String>> =
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect();
    let mut names = names.with_context(|| format!("cannot look into {}", path.display()))?;
    names.sort_unstable();
    Ok(names)
}

/// A small file of the data directory, if it is there.
pub(super) fn beside(data: &Path, name: &str) -> Result<Option<Held>> {
    let path = data.join(name);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(refused) => return Err(refused).with_context(|| format!("cannot open {}", path.display())),
    };
    let examined = file.metadata().with_context(|| format!("cannot examine {}", path.display()))?;
    if !examined.is_file() {
        return Ok(None);
    }
    Ok(Some(Held { name: name.to_owned(), file, bytes: examined.len() }))
}

/// Copies a file to its name below `to`.
pub(super) fn copy(held: Held, to: &Path, copied: &AtomicU64) -> Result<Listed> {
    let Held { name, file, bytes } = held;
    let path = to.join(&name);
    if let Some(folder) = path.parent() {
        make_directory(folder)?;
    }
    // Under its name there is the whole of it or nothing.
    let part = to.join(format!("{name}.part"));
    let mut out = create(&part)?;
    let mut from = file.take(bytes);
    let mut chunk = vec![0; CHUNK];
    let (mut crc32c, mut left) = (0, bytes);
    loop {
        let read = match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => read,
            Err(again) if again.kind() == io::ErrorKind::Interrupted => continue,
            Err(refused) => return Err(refused).with_context(|| format!("cannot read {name}")),
        };
        let piece = chunk.get(..read).unwrap_or_default();
        out.write_all(piece).with_context(|| format!("cannot write {}", path.display()))?;
        crc32c = crc32c::crc32c_append(crc32c, piece);
        left = left.saturating_sub(piece.len() as u64);
        copied.fetch_add(piece.len() as u64, Ordering::Relaxed);
    }
    ensure!(left == 0, "{name} is shorter than it was a moment ago: {left} bytes are missing");
    out.sync_all()
        .and_then(|()| fs::rename(&part, &path))
        .with_context(|| format!("cannot make {} durable", path.display()))?;
    Ok(Listed { name, bytes, crc32c })
}

/// Makes a file that another hand wrote durable, and lists it.
pub(super) fn seal(path: &Path, name: &str) -> Result<Listed> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    file.sync_all().with_context(|| format!("cannot make {} durable", path.display()))?;
    let (bytes, crc32c) = sum(file).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Listed { name: name.to_owned(), bytes, crc32c })
}

/// Length and checksum of a file.
pub(super) fn sum(mut file: File) -> io::Result<(u64, u32)> {
    let mut chunk = vec![0; CHUNK];
    let (mut bytes, mut crc32c) = (0, 0);
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok((bytes, crc32c)),
            Ok(read) => {
                crc32c = crc32c::crc32c_append(crc32c, chunk.get(..read).unwrap_or_default());
                bytes += read as u64;
            }
            Err(again) if again.kind() == io::ErrorKind::Interrupted => {}
            Err(refused) => return Err(refused),
        }
    }
}

fn create(path: &Path) -> Result<File> {
    let created = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    created.with_context(|| format!("cannot create {}", path.display()))
}

/// Writes a small file, durable.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = create(path)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).with_context(|| format!("cannot write {}", path.display()))
}

/// A small file's bytes.
pub(super) fn read_small(path: &Path, max: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    file.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    ensure!(bytes.len() as u64 <= max, "it has more than {max} bytes");
    Ok(bytes)
}

/// Makes the names in a directory and those below it durable, and its own name.
pub(super) fn sync_tree(path: &Path) -> Result<()> {
    for name in names(path)? {
        let below = path.join(name);
        if below.is_dir() {
            sync_tree(&below)?;
        }
    }
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    for folder in [Some(path), above].into_iter().flatten() {
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.with_context(|| format!("cannot make the names in {} durable", folder.display()))?;
    }
    Ok(())
}
