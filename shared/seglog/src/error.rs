//! What can go wrong with a log, as far as a caller can branch on it. Every message names what, where and what to do.
//! Damage inside a file is no error: it is data ([`Damage`](crate::Damage)), because reading goes on behind it.

use std::io;
use std::path::{Path, PathBuf};

/// Why an operation on a log was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused an operation. After this error from `append` or `sync` every record that was
    /// not published is dropped from the log; append it again.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried, as a verb.
        op: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// Another process, or another `Log` of this process, holds the directory.
    #[error("the log in {} is in use by another process; stop that process or use another directory", dir.display())]
    Locked {
        /// The directory of the log.
        dir: PathBuf,
    },
    /// A segment is intact but not ours: another kind of log, or written by a newer version. It was left untouched.
    #[error("{} is not ours to use: found {found}; {hint}", path.display())]
    Foreign {
        /// The segment.
        path: PathBuf,
        /// What it says it is.
        found: String,
        /// What to do.
        hint: &'static str,
    },
    /// The index does not rise (0 is no index). Nothing was appended; the log goes on.
    #[error("record index {index} does not follow {after}; indexes must rise")]
    Order {
        /// The refused index.
        index: u64,
        /// The highest index appended so far.
        after: u64,
    },
    /// The payload is longer than a record may be. Nothing was appended; the log goes on.
    #[error("a record of {bytes} bytes is over this log's limit of {limit} bytes; split it or raise record_bytes")]
    TooLarge {
        /// Length of the refused payload.
        bytes: u64,
        /// Longest payload this log takes.
        limit: u64,
    },
    /// The records asked for were trimmed away; begin again at `first`.
    #[error("records before {first} were trimmed; begin reading at {first}")]
    Trimmed {
        /// Lowest index that may still be held.
        first: u64,
    },
    /// An option is outside its bounds.
    #[error("option {option} is {given}, allowed is {least} to {most}")]
    Options {
        /// Name of the field of `Options`.
        option: &'static str,
        /// The value given.
        given: u64,
        /// Lowest allowed value.
        least: u64,
        /// Highest allowed value.
        most: u64,
    },
    /// 2³² segments were made in this directory, or a forged one says so.
    #[error("the log in {} has used up its segment numbers; start a new log in another directory", dir.display())]
    Exhausted {
        /// The directory of the log.
        dir: PathBuf,
    },
}

impl Error {
    /// Makes the closure that turns an `io::Error` into [`Error::Io`] with its place.
    pub(crate) fn io(path: &Path, op: &'static str) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::Io { path, op, source }
    }
}
