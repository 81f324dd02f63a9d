//! The defect switch: named ways in which a brain can be made to break one promise of the design, so that the simulator can show
//! that it would notice. Both brains carry a [`Defects`] as a plain field; each defect is asked for at the one place it concerns.
//! Knows no brain. The surprise: it is compiled into the shipped programs on purpose (what is proven is what runs); they never set
//! it, and a test of the tree keeps it so (docs/decisions/0008-defect-switch.md).

/// A promise that is broken on purpose. Beside each: the invariant of docs/DESIGN.md, section 13, whose check must notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Defect {
    /// Master, I1: an acknowledgement does not wait for its commit.
    AcknowledgedEarly,
    /// Master, I1: a batch of a drained run is acknowledged unread even beyond the run's position.
    DrainedIsDeaf,
    /// Master, I1: a run is closed before all of it is here.
    ClosedEarly,
    /// Master, I2: sequences missing before a batch make no gap.
    GapForgotten,
    /// Master, I2: a snapshot moves the position of the run whose states it tells.
    SnapshotMovesPosition,
    /// Satellite, I2: batches that can no longer be read are passed over without a gap record.
    DamageUntold,
    /// Satellite, I2: runs that were deleted are named to nobody whose store was put back to a time before it had them.
    EndedRunsForgotten,
    /// Satellite, I2: after a failed append the sequences of what waits are given once more.
    SequenceReused,
    /// Master, I3: the run's position is ignored, and a batch has its effect each time it comes.
    PositionIgnored,
    /// Satellite, I3: a command that is told again is applied again.
    CommandTwice,
    /// Master, I3: which commands of a lost timeline have their result in history is forgotten.
    BygoneForgotten,
    /// Master, I4: an older key replaces a newer one.
    LateKeyApplies,
    /// Master, I4: a result under an ended grant still decides the state.
    EndedGrantApplies,
    /// Satellite, I4: due times follow this machine's own wall clock wherever it steps.
    WallClockDeadlines,
    /// Satellite, I4: a new owner begins anew instead of going on from the state that its grant carries.
    CarriedIgnored,
    /// Master, I5: a process that loses its slot is neither fenced nor loses its grants.
    NoFence,
    /// Master, I6: who takes a slot is written under an older term.
    TermFalls,
    /// Master, I6: the journal's time follows the wall clock back.
    TimeFalls,
    /// Master, I7: committed rows are handed out to be acted on a second time.
    PublishedTwice,
    /// Master, I7: rows committed while others waited are never handed out.
    PublishedNever,
    /// Master, I8: a late result makes a change of state, as if somebody were to hear of it.
    LateChanges,
    /// Master, I9: credit that was given is forgotten with every batch, and given once more.
    CreditTwice,
    /// Satellite, I9: the windows of the lanes bound nothing.
    WindowIgnored,
    /// Satellite, I9: every reconnect opens another run, however many are undelivered.
    RunsUnbounded,
    /// Satellite, I9: the spool grows beyond its bytes.
    BytesUnbounded,
    /// Satellite, I9: the spool keeps what is older than its age.
    AgeIgnored,
    /// Satellite, I9: the spool goes on growing where others have filled the volume.
    FloorIgnored,
    /// Satellite, I9: what cannot be written is kept in memory without a bound.
    MemoryUnbounded,
    /// Satellite, I10: older runs are never sent.
    BacklogUnsent,
    /// Master, I11: a result for a check that the slot never owned is taken.
    ForeignAccepted,
    /// Satellite, I12: what the states contain is deleted, acknowledged or not.
    TrimmedEarly,
    /// Satellite, I12: what was delivered goes at once, whatever its grace.
    GraceIgnored,
    /// Master, I13: a frame that is no batch ends the process.
    OddFramePanics,
    /// Master, I14: after a failed commit the working copy is kept.
    WorkingKept,
    /// Satellite, I15: a result tells how its check was asked, values of its environment included.
    QuestionTold,
    /// Master, I16: who lost a check is told to go on with it.
    EndedGrantTold,
}

impl Defect {
    /// All of them.
    pub const ALL: [Self; 36] = [
        Self::AcknowledgedEarly,
        Self::DrainedIsDeaf,
        Self::ClosedEarly,
        Self::GapForgotten,
        Self::DamageUntold,
        Self::EndedRunsForgotten,
        Self::SequenceReused,
        Self::SnapshotMovesPosition,
        Self::PositionIgnored,
        Self::CommandTwice,
        Self::BygoneForgotten,
        Self::LateKeyApplies,
        Self::EndedGrantApplies,
        Self::WallClockDeadlines,
        Self::CarriedIgnored,
        Self::NoFence,
        Self::TermFalls,
        Self::TimeFalls,
        Self::PublishedTwice,
        Self::PublishedNever,
        Self::LateChanges,
        Self::CreditTwice,
        Self::WindowIgnored,
        Self::RunsUnbounded,
        Self::BytesUnbounded,
        Self::AgeIgnored,
        Self::FloorIgnored,
        Self::MemoryUnbounded,
        Self::BacklogUnsent,
        Self::ForeignAccepted,
        Self::TrimmedEarly,
        Self::GraceIgnored,
        Self::OddFramePanics,
        Self::WorkingKept,
        Self::QuestionTold,
        Self::EndedGrantTold,
    ];
}

/// The defects that are planted; none by default. A bit each, so that asking costs next to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Defects(u64);

impl Defects {
    /// One defect.
    #[must_use]
    pub const fn of(defect: Defect) -> Self {
        Self(Self::bit(defect))
    }

    /// Whether it is planted.
    #[must_use]
    pub const fn has(self, defect: Defect) -> bool {
        self.0 & Self::bit(defect) != 0
    }

    const fn bit(defect: Defect) -> u64 {
        1 << defect as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_planted_unless_it_is() {
        assert!(!Defects::default().has(Defect::AcknowledgedEarly));
        let one = Defects::of(Defect::EndedGrantTold);
        assert!(one.has(Defect::EndedGrantTold) && !one.has(Defect::QuestionTold));
    }
}
