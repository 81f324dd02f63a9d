//! Defects planted into the hands of a world, to see that the witness notices: a check that never fails proves nothing. Each says
//! which invariant must catch it. The brains stay as they are.

/// A planted defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Defect {
    /// The master's shell tells of a commit before it is durable.
    ToldBeforeCommit,
    /// A failed commit is called done.
    FailureIgnored,
    /// A commit that was called done is not there after a restart.
    CommitForgotten,
    /// A satellite's disk calls durable what a power loss still takes.
    SyncSkipped,
    /// A new process takes up the run of the one before under its old name.
    RunReused,
    /// A satellite deletes a run as soon as it has been sent.
    DeletedEarly,
    /// A start from disk does not know that another process lives on the volume, and takes its spool.
    LockIgnored,
}

impl Defect {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::ToldBeforeCommit,
        Self::FailureIgnored,
        Self::CommitForgotten,
        Self::SyncSkipped,
        Self::RunReused,
        Self::DeletedEarly,
        Self::LockIgnored,
    ];

    /// The invariants that must catch it, one of them at least.
    #[must_use]
    pub fn caught_by(self) -> &'static [&'static str] {
        match self {
            Self::ToldBeforeCommit | Self::FailureIgnored => &["I1"],
            Self::CommitForgotten => &["I14"],
            Self::SyncSkipped => &["I10"],
            Self::RunReused => &["I3"],
            Self::DeletedEarly => &["I12"],
            Self::LockIgnored => &["I3", "I10", "I12"],
        }
    }
}
