//! What readers see: the published state and the links as they are. Immutable; a new one replaces it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use shared::message::Heartbeat;
use shared::name::{Generation, Slot};

use crate::status::Status;

/// A slot's link, now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotLink {
    /// Whether the process that has the slot is connected.
    pub connected: bool,
    /// Where from, if connected.
    pub remote: Option<String>,
    /// How long the process that has the slot has said nothing.
    pub silent: Duration,
    /// Silent for longer than its lease: what it owns is stale.
    pub stale: bool,
    /// Generation it said it runs.
    pub applied: Option<Generation>,
    /// Its last sign of life.
    pub heartbeat: Option<Heartbeat>,
    /// The master's clock minus its own, in milliseconds, one way's delay included.
    pub offset_ms: i64,
    /// Further processes connected for the same slot.
    pub others: usize,
}

/// What readers see.
#[derive(Debug, Clone)]
pub struct View {
    /// Everything durable, as published.
    pub status: Arc<Status>,
    /// Every slot that ever spoke.
    pub links: BTreeMap<Slot, SlotLink>,
    /// More than half of the slots are silent: no host is moved.
    pub held_off: bool,
    /// Whether rows cannot be committed at present.
    pub read_only: bool,
    /// Results refused since this process started, by reason.
    pub refused: BTreeMap<&'static str, u64>,
}
