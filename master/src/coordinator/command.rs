//! Commands of operators on their way to whoever owns the check: journaled, told once they are durable, told again to each owner that
//! comes and now and then, until a result or a state of the owner names them. Decides who may be asked and how much may wait. The
//! surprise: one is taken though nobody owns its check yet; it waits for the first owner.

use std::time::Duration;

use shared::command::{COMMANDS_WAITING_MAX, What};
use shared::message::ToSatellite;
use shared::name::{CheckId, JournalIndex, Slot};
use shared::time::{Monotonic, Timestamp};

use super::connection::Connection;
use super::{Command, Consequence, Coordinator, RequestId};
use crate::entry::{Asked, Entry, Outcomes};
use crate::fleet::ConnectionId;
use crate::status::command::COMMANDS_REMEMBERED_MAX;

/// Commands that may wait for all owners together; one more is refused. What is answered and remembered has the other half of the room.
pub const COMMANDS_IN_ALL_MAX: usize = COMMANDS_REMEMBERED_MAX / 2;
/// Text of results from outside that may wait in all, in bytes; a command beyond it is refused.
pub const COMMANDS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What waits for an owner that is connected is told again so often: a result that was lost on its way is found missing by that.
pub const TELL_AGAIN_EVERY: Duration = Duration::from_secs(30);

/// Whom a command that was taken has reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Its owner is connected and was told.
    Owner(Slot),
    /// Its owner is silent: it waits until it is back, or another owns the check.
    Silent(Slot),
    /// Its owner's version knows no commands: it waits until a newer one owns the check.
    Old {
        /// Whose.
        slot: Slot,
        /// Which version.
        software: String,
    },
    /// Nobody owns the check yet.
    Nobody,
}

/// How a command was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Commanding {
    /// It is durable, under this index.
    Taken {
        /// Its name.
        index: JournalIndex,
        /// Whom it has reached.
        told: Told,
    },
    /// No such check is configured.
    Unknown,
    /// So many wait for its owner already; `None`: for checks that nobody owns.
    TooMany(Option<Slot>),
    /// So much waits for all owners together.
    TooMuch,
    /// The journal could not be written; nothing was asked.
    NotCommitted,
}

impl Coordinator {
    /// Somebody asks something of a check's owner.
    pub fn handle_command(
        &mut self,
        request: RequestId,
        check: CheckId,
        what: What,
        author: &str,
        now: Monotonic,
        at: Timestamp,
    ) {
        if let Some(commanding) = self.refuses(check, &what, now) {
            return self.commands.push_back(Command::Commanded { request, commanding });
        }
        let asked = Asked { check, what, author: author.to_owned() };
        self.add(Entry::Asked(asked), Outcomes::default(), &[], None, at);
        self.follow(Consequence::Commanded(request, self.working.head, check));
    }

    fn refuses(&self, check: CheckId, what: &What, now: Monotonic) -> Option<Commanding> {
        if self.blocked_until.is_some_and(|until| now < until) {
            return Some(Commanding::NotCommitted);
        }
        let Some(object) = self.working.object(check).filter(|object| object.configured) else {
            return Some(Commanding::Unknown);
        };
        let owner = object.owner.as_ref().map(|owner| &owner.slot);
        if self.working.waiting_count(owner) >= COMMANDS_WAITING_MAX {
            return Some(Commanding::TooMany(owner.cloned()));
        }
        let (count, bytes) = self.working.waiting_in_all();
        (count >= COMMANDS_IN_ALL_MAX || bytes + what.bytes() > COMMANDS_BYTES_MAX).then_some(Commanding::TooMuch)
    }

    /// The command is durable: its owner may know it, and whoever asked.
    pub(super) fn tell_command(&mut self, request: RequestId, index: JournalIndex, check: CheckId) {
        let owner = self.published.object(check).and_then(|object| object.owner.as_ref());
        let told = match owner.map(|owner| owner.slot.clone()) {
            None => Told::Nobody,
            Some(slot) => self.tell_owner(slot, index),
        };
        self.commands.push_back(Command::Commanded { request, commanding: Commanding::Taken { index, told } });
    }

    /// The command did not become durable.
    pub(super) fn lose_command(&mut self, request: RequestId) {
        self.commands.push_back(Command::Commanded { request, commanding: Commanding::NotCommitted });
    }

    fn tell_owner(&mut self, slot: Slot, index: JournalIndex) -> Told {
        let Some(id) = self.owner_link(&slot) else { return Told::Silent(slot) };
        if !self.knows_commands(id) {
            let hello = self.connections.get(&id).and_then(|link| link.hello.as_ref());
            return Told::Old { slot, software: hello.map_or_else(String::new, |hello| hello.software.clone()) };
        }
        if let Some(command) = self.published.errand(index).and_then(|errand| errand.told(index)) {
            self.say(id, &[ToSatellite::Command(Box::new(command))]);
        }
        Told::Owner(slot)
    }

    /// The link of the process that holds the slot, if it was told what it owns.
    fn owner_link(&self, slot: &Slot) -> Option<ConnectionId> {
        let holder = self.holder(slot)?;
        let voices = self.voices.get(slot)?.iter().rev();
        let mut links = voices.filter_map(|id| Some((*id, self.connections.get(id)?)));
        links.find(|(_, link)| link.instance() == Some(holder) && link.told.is_some()).map(|(id, _)| id)
    }

    fn knows_commands(&self, id: ConnectionId) -> bool {
        self.connections.get(&id).is_some_and(Connection::knows_commands)
    }

    /// Tells a holder everything that waits for it, after it was told what it owns.
    pub(super) fn tell_commands(&mut self, id: ConnectionId) {
        let Some(link) = self.connections.get(&id).filter(|link| link.told.is_some()) else { return };
        if !self.knows_commands(id) {
            return;
        }
        let waiting = self.published.waiting_for(Some(&link.slot)).filter_map(|(index, errand)| errand.told(index));
        let waiting: Vec<ToSatellite> = waiting.map(|command| ToSatellite::Command(Box::new(command))).collect();
        if !waiting.is_empty() {
            self.say(id, &waiting);
        }
    }

    /// Time has passed: what owners were told and have not answered is told again.
    pub(super) fn tell_commands_again(&mut self, now: Monotonic) {
        if now < self.tell_again_due {
            return;
        }
        self.tell_again_due = now.plus(TELL_AGAIN_EVERY);
        let links = self.published.waited_for().filter_map(|slot| self.owner_link(slot));
        for id in links.collect::<Vec<_>>() {
            self.tell_commands(id);
        }
    }
}
