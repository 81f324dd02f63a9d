//! What the brain has the hands around it do, and how whoever asked something is answered. Decides nothing. The surprise: a commit is
//! one thing at a time, everything else may be done in any number, in this order.

use std::sync::Arc;

use shared::name::{Generation, JournalIndex};
use shared::time::Monotonic;

use super::credit::Overdrawn;
use super::{Commanding, Obeyed, View};
use crate::entry::Row;
use crate::fleet::ConnectionId;

/// Names an activation to whoever asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Names a note to whoever asked for it. Counted apart from [`RequestId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NoteId(pub u64);

/// How an activation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Activation {
    /// It runs, as this generation.
    Activated(Generation),
    /// The running one has the same content.
    Unchanged(Generation),
    /// The journal could not be written; the old one runs on.
    NotCommitted,
}

/// Why the coordinator wants a link closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cut {
    /// Its bytes made no sense.
    Protocol(String),
    /// What it sent could not be made durable; it shall send again.
    NotCommitted,
    /// It was fenced, and whoever has its slot is silent: it shall say hello again.
    Vacant,
    /// It sent, or gave back, more than it had credit for.
    Overdrawn(Overdrawn),
    /// It held credit that it did not use, and others waited for it.
    Hoarding,
}

/// What the shells shall do.
#[derive(Debug)]
pub enum Command {
    /// Write this record and tell `handle_committed` or `handle_commit_failed`. One at a time. `since` is when the oldest batch in it
    /// arrived.
    Commit { record: Vec<u8>, last: JournalIndex, since: Option<Monotonic> },
    /// These rows are durable: projections, streams and writers may have them.
    Published(Arc<Vec<Row>>),
    /// What readers see from now on.
    Show(Arc<View>),
    /// Send a control payload.
    Send { connection: ConnectionId, payload: Vec<u8> },
    /// Close a link.
    Close { connection: ConnectionId, cut: Cut },
    /// Answer whoever asked for an activation.
    Answer { request: RequestId, activation: Activation },
    /// Answer whoever gave an order about slots.
    Obeyed { request: RequestId, obeyed: Obeyed },
    /// Tell whoever asked for a note whether the journal has it.
    Noted { note: NoteId, durable: bool },
    /// Answer whoever gave a command.
    Commanded { request: RequestId, commanding: Commanding },
}
