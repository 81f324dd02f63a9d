//! One run as the outbox sees it: how far it was made, is durable, was sent, acknowledged, covered and trimmed. Keeps the numbers
//! in order; decides nothing about when. One that is gone lies on no volume any more: only its name is to be delivered.

use std::collections::VecDeque;

use shared::message::HeldRun;
use shared::name::{RunCounter, RunId, Sequence};

use super::gap::Span;
use super::grace::Delivered;
use crate::command::{FoundRun, Remembered};

/// Runs in the order they were made; two with one counter come from a cloned volume.
pub type Place = (RunCounter, RunId);

/// Whether the states on disk say that a run has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// They do not.
    No,
    /// Those that are being written will.
    Writing,
    /// They do: it may be deleted.
    Durable,
}

/// How far a run has come.
#[derive(Debug)]
pub struct Run {
    /// First sequence that may still be on the volume.
    pub first: Sequence,
    /// Last sequence given to a result.
    pub made: Sequence,
    /// Last sequence on the volume.
    pub durable: Sequence,
    /// Acknowledged by the master.
    pub position: Sequence,
    /// Sent on this connection.
    pub sent: Sequence,
    /// Contained in the states on disk.
    pub covered: Sequence,
    /// Told to be trimmed.
    pub trimmed: Sequence,
    /// On this connection the master knows that the run is complete.
    pub told: bool,
    /// The master has closed it.
    pub closed: bool,
    /// Sent and not acknowledged: last sequence and bytes of each batch.
    pub in_flight: VecDeque<(Sequence, usize)>,
    /// Since when what of it is delivered, as far as it was not told to be trimmed.
    pub delivered: Delivered,
    /// When its results ended, as far as that is known.
    pub span: Span,
    /// Whether its end is remembered.
    pub noted: Noted,
    /// It was deleted, and the master was put back to a time before it had it.
    pub gone: bool,
}

impl Run {
    /// As it was found or opened; what the master has of it is not known.
    #[must_use]
    pub fn new(found: &FoundRun) -> Self {
        Self {
            first: found.first,
            made: found.last,
            durable: found.last,
            position: Sequence(0),
            sent: Sequence(0),
            covered: Sequence(0),
            trimmed: Sequence(0),
            told: false,
            closed: false,
            in_flight: VecDeque::new(),
            delivered: Delivered::default(),
            span: Span::default(),
            noted: Noted::No,
            gone: false,
        }
    }

    /// One of which nothing is left but what is remembered.
    #[must_use]
    pub fn gone(run: RunId, known: &Remembered) -> Self {
        let first = Sequence(known.last.0.saturating_add(1));
        let found = FoundRun { run, counter: known.counter, first, last: known.last };
        let span = Span { from: known.from, to: known.to };
        Self { covered: known.last, span, gone: true, ..Self::new(&found) }
    }

    /// Results on the volume that the master has not acknowledged.
    #[must_use]
    pub fn undelivered(&self) -> u64 {
        if self.gone { 0 } else { self.durable.0.saturating_sub(self.position.0) }
    }

    /// Everything that was made is on the volume.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.durable == self.made
    }

    /// Something durable was not sent on this connection.
    #[must_use]
    pub fn lags(&self) -> bool {
        self.sent < self.durable
    }

    /// Nothing of it is needed any more: the master has closed it, or it never held anything, and the states on disk contain it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        (self.closed || self.made == Sequence(0)) && self.position >= self.made && self.covered >= self.made
    }

    /// It held something, and the master has closed it because it has it all.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.closed && self.made > Sequence(0) && self.position >= self.made
    }

    /// What the master tells of it at a welcome. What was delivered to a master that has less of it was not delivered to this one.
    pub fn welcome(&mut self, position: Sequence) {
        self.position = position.min(self.durable);
        self.sent = self.position;
        self.closed = false;
        self.delivered.fall(self.position);
        self.trimmed = self.trimmed.min(self.position);
    }

    /// As the master hears of it.
    #[must_use]
    pub fn held(&self, (counter, run): Place, open: bool) -> HeldRun {
        HeldRun { run, counter, first: self.first, last: self.durable, open }
    }

    /// A connection begins or ends: what is not acknowledged counts as not sent.
    pub fn rewind(&mut self) {
        self.sent = self.position;
        self.told = false;
        self.in_flight.clear();
    }

    /// The master has everything up to here. It cannot have what was never durable; believing it would lose what comes next.
    pub fn acknowledge(&mut self, position: Sequence) {
        self.position = self.position.max(position.min(self.durable));
        self.sent = self.sent.max(self.position);
        while self.in_flight.front().is_some_and(|(last, _)| *last <= self.position) {
            self.in_flight.pop_front();
        }
    }
}
