//! Small files that are whole or not there: written beside, synced, renamed into place, and read back only if their checksum
//! holds. Decides when a file is believed; knows nothing of what it says.
//!
//! ```text
//! file = tag [u8; 4] | format version u8 | CRC-32 of tag, version and content u32, big-endian | content
//! ```

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

/// A longer file is refused unread: no file of ours comes near it (100,000 checks are about 30 MB).
pub const BYTES_MAX: u64 = 256 * 1024 * 1024;
const HEAD_BYTES: usize = 9;

/// Why a file is not believed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The file is not there.
    #[error("there is none")]
    Missing,
    /// Not what was written.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    /// Written by a later version of this program.
    #[error("it has format {0}, which is newer than this program reads; update this satellite")]
    Newer(u8),
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Puts a file in place of the one of that name; durable when this returns.
///
/// # Errors
/// When the system refuses; the file of that name is then the earlier one or this one, whole in either case.
pub fn write(path: &Path, tag: [u8; 4], version: u8, content: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    let mut head = Vec::with_capacity(HEAD_BYTES);
    head.extend_from_slice(&tag);
    head.push(version);
    head.extend_from_slice(&checksum(tag, version, content).to_be_bytes());
    file.write_all(&head)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    sync_directory_of(path)
}

fn checksum(tag: [u8; 4], version: u8, content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&tag);
    hasher.update(&[version]);
    hasher.update(content);
    hasher.finalize()
}

/// Makes the names in the directory of `path` durable.
///
/// # Errors
/// When the system refuses.
pub fn sync_directory_of(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// The content of a file, if it is as it was written.
///
/// # Errors
/// [`SealError`] says why the file is not believed.
pub fn read(path: &Path, tag: [u8; 4], version: u8) -> Result<Vec<u8>, SealError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(SealError::Missing),
        Err(error) => return Err(error.into()),
    };
    let mut bytes = Vec::new();
    if file.take(BYTES_MAX + 1).read_to_end(&mut bytes)? as u64 > BYTES_MAX {
        return Err(SealError::Damaged("it is too long"));
    }
    let (head, content) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or(SealError::Damaged("it is too short"))?;
    let [a, b, c, d, found, crc @ ..] = *head;
    if [a, b, c, d] != tag {
        return Err(SealError::Damaged("it is of another kind"));
    }
    // First, so that a damaged version is not taken for a later one.
    if u32::from_be_bytes(crc) != checksum(tag, found, content) {
        return Err(SealError::Damaged("its checksum does not hold"));
    }
    if found > version {
        return Err(SealError::Newer(found));
    }
    Ok(content.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_damaged_byte_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        assert!(matches!(read(&path, *b"TEST", 1), Err(SealError::Missing)));
        write(&path, *b"TEST", 1, b"first").unwrap();
        write(&path, *b"TEST", 1, b"second").unwrap();
        assert_eq!(read(&path, *b"TEST", 1).unwrap(), b"second");
        assert!(matches!(read(&path, *b"ELSE", 1), Err(SealError::Damaged(_))));
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x81;
            fs::write(&path, &damaged).unwrap();
            assert!(read(&path, *b"TEST", 1).is_err(), "byte {at}");
            fs::write(&path, &whole[..at]).unwrap();
            assert!(read(&path, *b"TEST", 1).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_file_of_a_later_version_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write(&path, *b"TEST", 2, b"from the future").unwrap();
        assert!(matches!(read(&path, *b"TEST", 1), Err(SealError::Newer(2))));
        assert_eq!(read(&path, *b"TEST", 3).unwrap(), b"from the future");
    }
}
