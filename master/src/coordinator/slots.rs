//! What is found about slots becomes rows, and so does what operators order about them. Only a slot's in and out move hosts. A lost slot
//! is one incident whatever it owns, and so is a master cut off from most of its slots; neither changes the state of any check.

use shared::name::Slot;
use shared::time::{Monotonic, Timestamp};

use super::watch::{Finding, Held};
use super::{Consequence, Coordinator, RequestId};
use crate::entry::{Entry, Incident, IncidentKind, Moves, Outcomes, Presence};

/// What an operator orders about slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// This slot owns nothing from now on, where another of its region can take it over.
    Drain(Slot),
    /// This slot may own checks again, once it is stable.
    Undrain(Slot),
    /// No host is moved until `Resume`.
    Hold,
    /// Hosts are moved again, whoever held them back: an operator, or the master that took itself for cut off.
    Resume,
}

/// How an order ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obeyed {
    /// It is done and durable.
    Done {
        /// Checks that other slots own now.
        moved: u64,
        /// Checks that stay where they are because nobody can take them over.
        kept: u64,
    },
    /// It was so already.
    Unchanged,
    /// The configuration asks for no such slot, and none ever spoke.
    Unknown,
    /// The journal could not be written; nothing has changed.
    NotCommitted,
}

impl Coordinator {
    pub(super) fn look_at_presence(&mut self, now: Monotonic, at: Timestamp) {
        let attention = self.working.attention();
        let held = Held { cut_off: attention.cut_off(), by_operator: attention.held.is_some() };
        let known = self.known(now);
        let findings = self.watch.look(now, held, &known);
        for (place, finding) in findings.iter().enumerate() {
            match finding {
                Finding::CutOff(slots) => {
                    let checks = slots.iter().map(|slot| self.owned(slot)).sum();
                    tracing::warn!(
                        silent = slots.len(),
                        checks,
                        "most slots fell silent together: this master takes itself for cut off, and no host is moved until half of them are connected or `perigee-master moves resume` says so"
                    );
                    let slots = u64::try_from(slots.len()).unwrap_or(u64::MAX);
                    self.open(IncidentKind::CutOff, None, slots, checks, 0, at);
                }
                Finding::Reunited => self.close(IncidentKind::CutOff, None, "connected", None, at),
                Finding::Lost(slot) => {
                    let checks = self.owned(slot);
                    let goes = findings.get(place + 1..).is_some_and(|rest| rest.contains(&Finding::Out(slot.clone())));
                    if goes {
                        self.change_presence(slot, false, "silent", at);
                    }
                    let moved = checks.saturating_sub(self.owned(slot));
                    if moved == checks && !self.expects(slot) {
                        // Nobody asks for it, and others do what it did: it is gone, not lost.
                        tracing::info!(%slot, moved, "a slot that is no longer asked for is gone");
                        continue;
                    }
                    tracing::warn!(%slot, checks, moved, "slot is lost: nothing is heard of it any more");
                    self.open(IncidentKind::SlotLost, Some(slot), 1, checks, moved, at);
                }
                Finding::Out(slot) => {
                    // With its loss, it went a moment ago.
                    if self.working.slots().get(slot).is_some_and(|state| state.present) {
                        tracing::warn!(%slot, "slot is silent: its hosts move to the others of its region");
                        self.change_presence(slot, false, "silent", at);
                    }
                }
                Finding::In(slot) => {
                    tracing::info!(%slot, "slot is stable again: it owns hosts again");
                    self.change_presence(slot, true, "stable", at);
                }
                Finding::Back(slot, reason) => self.close(IncidentKind::SlotLost, Some(slot), reason, None, at),
            }
        }
    }

    fn open(&mut self, kind: IncidentKind, slot: Option<&Slot>, slots: u64, checks: u64, moved: u64, at: Timestamp) {
        let reason = "silent".to_owned();
        let incident = Incident {
            kind,
            slot: slot.cloned(),
            open: true,
            reason,
            slots,
            checks,
            moved,
            author: None,
            opened: None,
        };
        self.add(Entry::Incident(incident), Outcomes::default(), &[], None, at);
    }

    fn close(&mut self, kind: IncidentKind, slot: Option<&Slot>, reason: &str, author: Option<&str>, at: Timestamp) {
        let Some(open) = self.working.attention().incident(kind, slot) else { return };
        let incident = Incident {
            open: false,
            reason: reason.to_owned(),
            author: author.map(str::to_owned),
            opened: Some(open.index),
            ..open.incident.clone()
        };
        tracing::info!(kind = kind.as_str(), ?slot, reason, "an incident has ended");
        self.add(Entry::Incident(incident), Outcomes::default(), &[], None, at);
    }

    /// A slot's in or out by the master's own finding.
    pub(super) fn change_presence(&mut self, slot: &Slot, present: bool, reason: &str, at: Timestamp) {
        let reason = reason.to_owned();
        let presence = Presence { slot: slot.clone(), present, reason, drain: None, author: None };
        self.add_with_grants(Entry::Presence(presence), Outcomes::default(), None, None, at);
    }

    /// An operator orders something; it is answered once it is durable.
    pub fn handle_order(&mut self, request: RequestId, order: &Order, author: &str, now: Monotonic, at: Timestamp) {
        if self.blocked_until.is_some_and(|until| now < until) {
            return self.follow(Consequence::Obey(request, Obeyed::NotCommitted));
        }
        let obeyed = match order {
            Order::Drain(slot) => self.drain_slot(slot, true, author, at),
            Order::Undrain(slot) => self.drain_slot(slot, false, author, at),
            Order::Hold => self.hold_moves(true, author, now, at),
            Order::Resume => self.hold_moves(false, author, now, at),
        };
        self.dirty = true;
        self.follow(Consequence::Obey(request, obeyed));
    }

    fn drain_slot(&mut self, slot: &Slot, drain: bool, author: &str, at: Timestamp) -> Obeyed {
        let drained = self.working.attention().drained.contains_key(slot);
        if !self.expects(slot) && !drained && !self.working.slots().contains_key(slot) {
            return Obeyed::Unknown;
        }
        if drained == drain {
            return Obeyed::Unchanged;
        }
        let before = self.owned(slot);
        let reason = if drain { "drained" } else { "undrained" };
        let presence = Presence {
            slot: slot.clone(),
            present: false,
            reason: reason.to_owned(),
            drain: Some(drain),
            author: Some(author.to_owned()),
        };
        tracing::info!(%slot, author, reason, "an operator changes what a slot may own");
        self.add_with_grants(Entry::Presence(presence), Outcomes::default(), None, None, at);
        let kept = self.owned(slot);
        Obeyed::Done { moved: before.saturating_sub(kept), kept }
    }

    fn hold_moves(&mut self, hold: bool, author: &str, now: Monotonic, at: Timestamp) -> Obeyed {
        let attention = self.working.attention();
        let cut_off = attention.cut_off();
        if attention.held.is_some() == hold && (hold || !cut_off) {
            return Obeyed::Unchanged;
        }
        tracing::info!(author, hold, "an operator says whether hosts are moved");
        let moves = Moves { held: hold, author: author.to_owned() };
        self.add(Entry::Moves(moves), Outcomes::default(), &[], None, at);
        if !hold {
            self.close(IncidentKind::CutOff, None, "resumed", Some(author), at);
            self.watch.begin_anew(now);
        }
        Obeyed::Done { moved: 0, kept: 0 }
    }
}
