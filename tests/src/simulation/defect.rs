//! Defects planted into a world, to see that the witness notices: a check that never fails proves nothing. Some are in the brains
//! (`shared::defect`), some in the hands around them. Says which invariant's check must catch each; plants nothing itself.

use shared::defect::{Defect, Defects};

/// A defect of the hands: what a shell or a disk may do wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hand {
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
    /// A satellite deletes a run as soon as it has been written.
    DeletedEarly,
    /// A start from disk does not know that another process lives on the volume, and takes its spool.
    LockIgnored,
    /// A start from disk hands everything in the journal out once more, as if it had just happened.
    ReplayEmits,
    /// A metrics writer calls kept what it has only sent.
    CursorAhead,
    /// The master's shell never has the journal trimmed.
    JournalUntrimmed,
}

/// A planted defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Planted {
    /// In a brain.
    Brain(Defect),
    /// In the hands.
    Hand(Hand),
}

impl Hand {
    const ALL: [Self; 10] = [
        Self::ToldBeforeCommit,
        Self::FailureIgnored,
        Self::CommitForgotten,
        Self::SyncSkipped,
        Self::RunReused,
        Self::DeletedEarly,
        Self::LockIgnored,
        Self::ReplayEmits,
        Self::CursorAhead,
        Self::JournalUntrimmed,
    ];
}

impl Planted {
    /// All of them, by the invariant that must catch them.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let brains = Defect::ALL.into_iter().map(Self::Brain);
        let mut all: Vec<Self> = brains.chain(Hand::ALL.into_iter().map(Self::Hand)).collect();
        all.sort_by_key(|planted| planted.invariant().trim_start_matches('I').parse::<u8>().unwrap_or(0));
        all
    }

    /// What a brain has of it.
    #[must_use]
    pub fn in_brains(self) -> Defects {
        match self {
            Self::Brain(defect) => Defects::of(defect),
            Self::Hand(_) => Defects::default(),
        }
    }

    /// The invariant whose check must catch it; that others do as well proves nothing of this one.
    #[must_use]
    pub fn invariant(self) -> &'static str {
        match self {
            Self::Hand(hand) => match hand {
                Hand::ToldBeforeCommit | Hand::FailureIgnored => "I1",
                Hand::RunReused => "I3",
                Hand::ReplayEmits => "I7",
                Hand::JournalUntrimmed => "I9",
                Hand::SyncSkipped | Hand::CursorAhead => "I10",
                Hand::DeletedEarly | Hand::LockIgnored => "I12",
                Hand::CommitForgotten => "I14",
            },
            Self::Brain(defect) => match defect {
                Defect::AcknowledgedEarly | Defect::DrainedIsDeaf | Defect::ClosedEarly => "I1",
                Defect::GapForgotten
                | Defect::DamageUntold
                | Defect::EndedRunsForgotten
                | Defect::SequenceReused
                | Defect::SnapshotMovesPosition => "I2",
                Defect::PositionIgnored | Defect::CommandTwice | Defect::BygoneForgotten => "I3",
                Defect::LateKeyApplies
                | Defect::EndedGrantApplies
                | Defect::WallClockDeadlines
                | Defect::CarriedIgnored => "I4",
                Defect::NoFence => "I5",
                Defect::TermFalls | Defect::TimeFalls => "I6",
                Defect::PublishedTwice | Defect::PublishedNever => "I7",
                Defect::LateChanges => "I8",
                Defect::CreditTwice
                | Defect::WindowIgnored
                | Defect::RunsUnbounded
                | Defect::BytesUnbounded
                | Defect::AgeIgnored
                | Defect::FloorIgnored
                | Defect::MemoryUnbounded => "I9",
                Defect::BacklogUnsent => "I10",
                Defect::ForeignAccepted => "I11",
                Defect::TrimmedEarly | Defect::GraceIgnored => "I12",
                Defect::OddFramePanics => "I13",
                Defect::WorkingKept => "I14",
                Defect::QuestionTold => "I15",
                Defect::EndedGrantTold => "I16",
            },
        }
    }

    /// What it is called and where it is.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Brain(defect) => format!("{defect:?}"),
            Self::Hand(hand) => format!("{hand:?} (hands)"),
        }
    }
}
