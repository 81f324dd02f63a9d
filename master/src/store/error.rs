//! Why the store refuses. Every message names what is wrong, where, and the way out; one that would lose what was acknowledged names
//! `restore`. Callers branch on a few (`Trimmed`, `InUse`, `Busy`); the rest is for people.

use std::io;
use std::path::PathBuf;

use seglog::Damage;
use shared::name::JournalIndex;

/// Why the store refuses.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("cannot {op} {}: {source}", path.display())]
    Io { op: &'static str, path: PathBuf, source: io::Error },
    /// Another master has the directory.
    #[error("another master works in {}; stop it, or give this one a data directory of its own (--data)", data.display())]
    InUse { data: PathBuf },
    /// The journal is empty although rows were acknowledged.
    #[error(
        "the journal in {} is empty, but a store has been founded there and what it held is gone: restore it from a backup \
         (perigee-master restore), or begin anew without its past (--new-installation)",
        data.display()
    )]
    Empty { data: PathBuf },
    /// The directory is a backup.
    #[error("{} is a backup and no data directory: perigee-master restore --from {} --data DIR", data.display(), data.display())]
    Backup { data: PathBuf },
    /// A restore was cut off, or is asked for where none was begun.
    #[error("a restore into {} was begun and not ended: run perigee-master restore once more", data.display())]
    Unfinished { data: PathBuf },
    /// `--new-installation` where there is a store.
    #[error("{} holds a store already: leave out --new-installation, or move the directory away", data.display())]
    NotEmpty { data: PathBuf },
    /// Published rows cannot be read, and no checkpoint covers them.
    #[error(
        "rows of the journal after index {} are lost: segment {} is damaged at byte {} ({} bytes), and no checkpoint reaches \
         beyond it; restore the store from a backup (perigee-master restore)",
        damage.after, damage.segment, damage.offset, damage.bytes
    )]
    Lost { damage: Damage },
    /// The journal ends before something that was made from it.
    #[error(
        "the journal ends at index {journal}, but there was a row {expected}: its newest segments are missing or cut; restore \
         the store from a backup (perigee-master restore)"
    )]
    Behind { journal: JournalIndex, expected: JournalIndex },
    /// The journal begins behind what the checkpoints cover.
    #[error(
        "the journal begins at index {first}, but the newest readable checkpoint ends at {covered}: a checkpoint is missing or \
         damaged; restore the store from a backup (perigee-master restore)"
    )]
    Beginning { first: JournalIndex, covered: JournalIndex },
    /// What was asked for is no longer in the journal.
    #[error("the journal begins at index {first}; what was before is trimmed")]
    Trimmed { first: JournalIndex },
    /// An intact record that this program cannot read.
    #[error("record {index} of the journal cannot be read: {why}; a newer version may have written it")]
    Record { index: JournalIndex, why: String },
    /// The journal's log refuses.
    #[error("journal: {0}")]
    Log(seglog::Error),
    /// A file of ours is not what it was.
    #[error("{} is damaged: {why}", path.display())]
    Damaged { path: PathBuf, why: String },
    /// A revision that the journal names is not there.
    #[error(
        "the revision {digest} is missing: {} is not there; restore it from a backup (perigee-master restore)",
        path.display()
    )]
    RevisionMissing { digest: String, path: PathBuf },
    /// Not the name of a revision.
    #[error("“{0}” is no digest of a revision: 64 lower-case hexadecimal digits")]
    Digest(String),
    /// Not the name of a cursor.
    #[error("“{0}” is no name of a cursor: up to 100 of A–Z, a–z, 0–9, '-', '_', '.', not beginning with '.'")]
    CursorName(String),
    /// Too much is asked for at once.
    #[error("the store is busy: wait for the commit before")]
    Busy,
    /// The writing thread is gone.
    #[error("the store's writing thread has ended; restart the master")]
    Stopped,
}

impl From<seglog::Error> for StoreError {
    fn from(error: seglog::Error) -> Self {
        match error {
            seglog::Error::Trimmed { first } => Self::Trimmed { first: JournalIndex(first) },
            other => Self::Log(other),
        }
    }
}
