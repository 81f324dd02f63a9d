//! The whole state at one journal index, in one file that is whole or not there. Decides which of two or more to start from: the
//! newest that can be read. Knows no journal. The surprise: one that cannot be read is put aside at once, so that it never counts
//! as the older one that trimming relies on.
//!
//! ```text
//! file = "PGCK" | version u8 | 0 u8 ×3 | index u64 | bytes of the state u64 | crc32c of all before and the body u32 | body (zstd)
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use shared::name::JournalIndex;

use crate::status::Status;

use super::{StoreError, file};

/// Checkpoints kept: the one to start from and the one to fall back to. Trimming never passes the older.
pub const CHECKPOINTS_KEPT: usize = 2;

const MAGIC: &[u8; 4] = b"PGCK";
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 28;
/// A state is inflated up to this size: some ten million objects.
const STATE_BYTES_MAX: u64 = 16 << 30;
/// Fast; a state is mostly text, which halves at any level.
const ZSTD_LEVEL: i32 = 1;
const SUFFIX: &str = ".ckpt";

/// The checkpoint a store starts from.
#[derive(Debug)]
pub(super) struct Found {
    /// The state; empty if there is no checkpoint.
    pub(super) status: Status,
    /// Indexes of the checkpoints kept, ascending; the last one is the state's.
    pub(super) kept: Vec<JournalIndex>,
    /// Why newer ones were passed over.
    pub(super) damaged: Vec<String>,
}

/// Finds the newest checkpoint that can be read.
pub(super) fn newest(directory: &Path) -> Result<Found, StoreError> {
    let mut kept = list(directory)?;
    let mut damaged = Vec::new();
    while let Some(&index) = kept.last() {
        let path = path(directory, index);
        match read(&path, index) {
            Ok(status) => return Ok(Found { status, kept, damaged }),
            Err(error @ StoreError::Damaged { .. }) => {
                tracing::error!(%error, "falling back to the checkpoint before it");
                damaged.push(error.to_string());
                file::put_aside(&path);
                kept.pop();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Found { status: Status::new(), kept, damaged })
}

/// Writes a checkpoint and removes those that are too many. Returns the indexes kept, ascending.
pub(super) fn write(directory: &Path, status: &Status) -> Result<Vec<JournalIndex>, StoreError> {
    let path = path(directory, status.head);
    file::replace(&path, &encode(status).map_err(file::io(&path, "compress"))?)?;
    let mut kept = list(directory)?;
    let surplus = kept.len().saturating_sub(CHECKPOINTS_KEPT);
    for index in kept.drain(..surplus) {
        let old = self::path(directory, index);
        fs::remove_file(&old).map_err(file::io(&old, "remove"))?;
    }
    Ok(kept)
}

/// Reads one checkpoint.
pub(super) fn read(path: &Path, index: JournalIndex) -> Result<Status, StoreError> {
    let damaged = |why: String| StoreError::Damaged { path: path.to_path_buf(), why };
    let bytes = file::read(path, STATE_BYTES_MAX)?.ok_or_else(|| damaged("it is gone".to_owned()))?;
    let status = decode(&bytes).map_err(damaged)?;
    if status.head != index {
        return Err(damaged(format!("it holds the state at {}", status.head)));
    }
    Ok(status)
}

/// Path of the checkpoint of an index.
pub(super) fn path(directory: &Path, index: JournalIndex) -> PathBuf {
    directory.join(format!("{:020}{SUFFIX}", index.0))
}

fn list(directory: &Path) -> Result<Vec<JournalIndex>, StoreError> {
    let names = file::names(directory)?;
    let mut indexes: Vec<_> = names
        .iter()
        .filter_map(|name| {
            name.strip_suffix(SUFFIX).filter(|digits| digits.len() == 20)?.parse().ok().map(JournalIndex)
        })
        .collect();
    indexes.sort_unstable();
    Ok(indexes)
}

fn encode(status: &Status) -> std::io::Result<Vec<u8>> {
    let state = status.encode();
    let body = zstd::bulk::compress(&state, ZSTD_LEVEL)?;
    let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&[VERSION, 0, 0, 0]);
    bytes.extend_from_slice(&status.head.0.to_be_bytes());
    bytes.extend_from_slice(&(state.len() as u64).to_be_bytes());
    let sum = crc32c::crc32c_append(crc32c::crc32c(&bytes), &body);
    bytes.extend_from_slice(&sum.to_be_bytes());
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Result<Status, String> {
    let short = || "it is too short".to_owned();
    let (head, body) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or_else(short)?;
    let (fields, sum) = head.split_last_chunk::<4>().ok_or_else(short)?;
    let (prefix, numbers) = fields.split_first_chunk::<8>().ok_or_else(short)?;
    let (index, length) = numbers.split_first_chunk::<8>().ok_or_else(short)?;
    if !prefix.starts_with(MAGIC) {
        return Err("it is no checkpoint".to_owned());
    }
    if crc32c::crc32c_append(crc32c::crc32c(fields), body) != u32::from_be_bytes(*sum) {
        return Err("its checksum is wrong".to_owned());
    }
    if prefix.get(4) != Some(&VERSION) {
        return Err(format!("it has format {:?}, this program reads {VERSION}", prefix.get(4)));
    }
    let length = length.try_into().map(u64::from_be_bytes).map_err(|_| short())?;
    let length = usize::try_from(length.min(STATE_BYTES_MAX)).map_err(|error| error.to_string())?;
    let state = zstd::bulk::decompress(body, length).map_err(|error| error.to_string())?;
    let status = Status::decode(&state).map_err(|error| error.to_string())?;
    if status.head != JournalIndex(u64::from_be_bytes(*index)) {
        return Err("its head and its state name different indexes".to_owned());
    }
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(head: u64) -> Status {
        let mut status = Status::new();
        status.head = JournalIndex(head);
        status
    }

    #[test]
    fn the_newest_two_are_kept_and_the_newest_is_read() {
        let dir = tempfile::tempdir().unwrap();
        for head in [3, 12, 100] {
            write(dir.path(), &status(head)).unwrap();
        }
        let found = newest(dir.path()).unwrap();
        assert_eq!(found.kept, [JournalIndex(12), JournalIndex(100)]);
        assert_eq!(found.status.encode(), status(100).encode());
    }

    #[test]
    fn any_damage_falls_back_to_the_older_one() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &status(1)).unwrap();
        write(dir.path(), &status(2)).unwrap();
        let newer = path(dir.path(), JournalIndex(2));
        let good = fs::read(&newer).unwrap();
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 0x40;
            assert!(decode(&bytes).is_err(), "byte {at}");
            assert!(decode(&good[..at]).is_err(), "cut at {at}");
        }
        fs::write(&newer, &good[..good.len() - 1]).unwrap();
        let found = newest(dir.path()).unwrap();
        assert_eq!((found.status.head, found.damaged.len()), (JournalIndex(1), 1));
        // The damaged one is out of the way: the next one written leaves the good older one in place.
        assert_eq!(write(dir.path(), &status(3)).unwrap(), [JournalIndex(1), JournalIndex(3)]);
    }

    #[test]
    fn a_checkpoint_under_a_foreign_name_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &status(7)).unwrap();
        fs::rename(path(dir.path(), JournalIndex(7)), path(dir.path(), JournalIndex(9))).unwrap();
        assert_eq!(newest(dir.path()).unwrap().damaged.len(), 1);
    }
}
