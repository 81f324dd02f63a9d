//! What readers see: the published state and the links as they are. Immutable; a new one replaces it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use shared::message::Heartbeat;
use shared::name::{Generation, Slot};

use super::credit::Figures;
use crate::status::{Object, Status};

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
    /// Since it was last silent for so long, or since this master began, it has told all its newest states.
    pub settled: bool,
    /// Generation it said it runs.
    pub applied: Option<Generation>,
    /// Its last sign of life.
    pub heartbeat: Option<Heartbeat>,
    /// The master's clock minus its own, in milliseconds: as it measured it, or as seen from here, one way's delay included.
    pub offset_ms: i64,
    /// Further processes connected for the same slot.
    pub others: usize,
    /// Its version has commands; so it is taken to be while nobody is connected.
    pub takes_commands: bool,
}

/// What readers see.
#[derive(Debug, Clone)]
pub struct View {
    /// Everything durable, as published.
    pub status: Arc<Status>,
    /// Every slot that ever spoke.
    pub links: BTreeMap<Slot, SlotLink>,
    /// No host is moved: the master takes itself for cut off, or an operator said so.
    pub held_off: bool,
    /// Whether rows cannot be committed at present.
    pub read_only: bool,
    /// How full the byte pool is.
    pub credit: Figures,
    /// Results refused since this process started, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Results since this process started that by their satellite's clock ended after they came.
    pub future: u64,
}

impl SlotLink {
    /// What the slot owns may be out of date: it is silent, or is back and has not told its newest states yet.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.stale || !self.settled
    }
}

impl View {
    /// Whether what is shown of an object may be out of date: nobody owns it, its owner is stale, or it came from another slot and
    /// its new owner has said nothing of it yet.
    #[must_use]
    pub fn is_stale(&self, object: &Object) -> bool {
        self.stale_reason(object).is_some()
    }

    /// Why it may be, by name: `nobody`, `silent`, `unsettled`.
    #[must_use]
    pub fn stale_reason(&self, object: &Object) -> Option<&'static str> {
        let Some(owner) = &object.owner else { return Some("nobody") };
        let moved = object.ended.last().is_some_and(|ended| ended.slot != owner.slot);
        let unheard = moved && object.last.is_some() && object.key.grant < owner.grant;
        match self.links.get(&owner.slot) {
            Some(link) if !link.stale => (unheard || !link.settled).then_some("unsettled"),
            _ => Some("silent"),
        }
    }
}
