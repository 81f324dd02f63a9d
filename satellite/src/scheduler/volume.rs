//! What the volume answers about runs, appending, reading and its bounds, on its way to the outbox. Decides only that the master hears at once when
//! results are no longer durable, and when they are again: an operator must not wait for the next sign of life.

use shared::name::{RunCounter, RunId, Sequence};

use super::Scheduler;
use crate::clock::Now;
use crate::command::{Extent, Limits, ReadBatches, ReadId, Room};
use crate::outbox::Outbox;

impl Scheduler {
    /// The same with other bounds of the spool than [`Limits::DEFAULT`].
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.outbox = self.outbox.with_limits(limits);
        self
    }

    /// Lets the outbox hear something, and the master if that changed what is durable.
    fn tell_outbox(&mut self, now: Now, tell: impl FnOnce(&mut Outbox)) {
        let before = self.outbox.memory_only();
        tell(&mut self.outbox);
        if before != self.outbox.memory_only()
            && let Some(due) = self.connection.as_mut().and_then(|connection| connection.heartbeat_due.as_mut())
        {
            *due = now.monotonic;
        }
        self.advance(now);
    }

    /// See [`crate::command::Command::Append`].
    pub fn handle_appended(&mut self, now: Now, run: RunId, up_to: Sequence) {
        self.tell_outbox(now, |outbox| outbox.handle_appended(now.monotonic, run, up_to));
    }

    /// See [`crate::command::Command::Append`].
    pub fn handle_append_failed(&mut self, now: Now) {
        self.tell_outbox(now, |outbox| outbox.handle_append_failed(now.monotonic));
    }

    /// See [`crate::command::Command::OpenRun`].
    pub fn handle_opened(&mut self, now: Now, run: RunId, counter: RunCounter) {
        self.outbox.handle_opened(now.monotonic, run, counter);
        self.advance(now);
    }

    /// See [`crate::command::Command::OpenRun`].
    pub fn handle_open_failed(&mut self, now: Now) {
        self.outbox.handle_open_failed(now.monotonic);
        self.advance(now);
    }

    /// See [`crate::command::Command::Read`].
    pub fn handle_read(&mut self, now: Now, read: ReadId, found: &ReadBatches) {
        self.outbox.handle_read(now.monotonic, read, found);
        self.advance(now);
    }

    /// See [`crate::command::Command::Read`].
    pub fn handle_read_failed(&mut self, now: Now, read: ReadId) {
        self.outbox.handle_read_failed(now.monotonic, read);
        self.advance(now);
    }

    /// What trimming has left of a run.
    pub fn handle_trimmed(&mut self, run: RunId, first: Sequence) {
        self.outbox.handle_trimmed(run, first);
    }

    /// The volume has so much room.
    pub fn handle_room(&mut self, now: Now, room: Room) {
        self.room = room;
        if let Some(offset) = self.clock.offset_ms(now) {
            let millis = now.wall.as_millis().saturating_add(offset);
            self.outbox.handle_time(now.monotonic, shared::time::Timestamp::from_millis(millis));
        }
        self.outbox.handle_room(now.monotonic, room);
        self.advance(now);
    }

    /// See [`crate::command::Command::Measure`].
    pub fn handle_measured(&mut self, now: Now, extents: &[Extent]) {
        self.outbox.handle_measured(now.monotonic, extents);
        self.advance(now);
    }

    /// See [`crate::command::Command::GiveUp`].
    pub fn handle_given_up(&mut self, now: Now, run: RunId, up_to: Sequence, lost: u64) {
        self.outbox.handle_given_up(now.monotonic, run, up_to, lost);
        self.advance(now);
    }

    /// See [`crate::command::Command::GiveUp`].
    pub fn handle_give_up_failed(&mut self, now: Now) {
        self.outbox.handle_give_up_failed(now.monotonic);
        self.advance(now);
    }
}
