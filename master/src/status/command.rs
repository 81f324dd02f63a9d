//! Commands that wait for their answer, and what is still to come of those that were answered. Folds; decides nothing. The surprise: an
//! owner may tell a state that names a command long before its result comes, so an answered command is remembered until its result
//! stands in history; a result of a command that is not remembered is a second one.

use std::sync::Arc;

use minicbor::{Decode, Encode};
use shared::check::State;
use shared::command::{Commanded, Passive, What};
use shared::name::{CheckId, JournalIndex, ObjectName};
use shared::time::Timestamp;

use super::{REMEMBER, Status};
use crate::entry::{Asked, Row};

/// Commands remembered in all, told and untold. Beyond it the oldest answered one is forgotten: a result of it that should still come
/// has no effect on history.
pub const COMMANDS_REMEMBERED_MAX: usize = 16 * 1024;

/// A command and what is still to come of it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Errand {
    /// Of which check.
    #[n(0)]
    pub check: CheckId,
    /// When it was given.
    #[n(1)]
    pub at: Timestamp,
    /// Who gave it.
    #[n(2)]
    pub author: String,
    /// What its owner is told; `None` once it was answered, or nobody runs the check any more.
    #[n(3)]
    pub what: Option<What>,
    /// A result of it stands in history. One that comes from another owner changes the state and nothing else.
    #[n(4)]
    pub logged: bool,
}

/// The state of a result from outside, as the object has it: hosts are up or down.
#[must_use]
pub fn state_of(name: &ObjectName, passive: &Passive) -> State {
    match passive.state {
        State::Ok if name.is_host() => State::Up,
        _ if name.is_host() => State::Down,
        state => state,
    }
}

impl Errand {
    /// As its owner is told, under its index; `None` if it need not be told any more.
    #[must_use]
    pub fn told(&self, index: JournalIndex) -> Option<Commanded> {
        Some(Commanded { index, check: self.check, at: self.at, what: self.what.clone()? })
    }
}

impl Status {
    /// Commands of which something is still to come, by index.
    pub fn errands(&self) -> impl Iterator<Item = (JournalIndex, &Errand)> {
        self.commands.iter().map(|(index, errand)| (*index, errand.as_ref()))
    }

    /// The command of this index, if something is still to come of it.
    #[must_use]
    pub fn errand(&self, index: JournalIndex) -> Option<&Errand> {
        self.commands.get(&index).map(AsRef::as_ref)
    }

    /// Whether a command to this check, up to this one, waits for its answer.
    #[must_use]
    pub fn awaits(&self, check: CheckId, index: JournalIndex) -> bool {
        self.awaited(check, index).next().is_some()
    }

    /// Whether history has a result of this command already.
    #[must_use]
    pub fn is_repeated(&self, check: CheckId, index: JournalIndex) -> bool {
        // What is older than the timeline names a command of another one.
        index > self.lineage.began
            && self.commands.get(&index).is_none_or(|errand| errand.logged || errand.check != check)
    }

    pub(super) fn fold_asked(&mut self, row: &Row, asked: &Asked) {
        // The oldest stand first; one beyond a clock that was set back goes a little later.
        while let Some((index, errand)) = self.commands.first_key_value()
            && row.at.since(errand.at) >= REMEMBER
        {
            let index = *index;
            self.forget(index);
        }
        while self.commands.len() >= COMMANDS_REMEMBERED_MAX {
            let answered = self.commands.iter().find(|(_, errand)| errand.what.is_none());
            let oldest = answered.or_else(|| self.commands.first_key_value()).map(|(index, _)| *index);
            let Some(index) = oldest else { break };
            self.forget(index);
        }
        let Asked { check, what, author } = asked.clone();
        let errand = Errand { check, at: row.at, author, what: Some(what), logged: false };
        Arc::make_mut(&mut self.commands).insert(row.index, Arc::new(errand));
        self.begin_to_wait(row.index);
    }

    fn forget(&mut self, index: JournalIndex) {
        if let Some(errand) = Arc::make_mut(&mut self.commands).remove(&index) {
            self.end_to_wait(index, &errand);
        }
    }

    /// A result that names this command stands in history now.
    pub(super) fn fold_logged(&mut self, check: CheckId, index: JournalIndex) {
        let Some(errand) = self.commands.get(&index).filter(|errand| errand.check == check && !errand.logged) else {
            return;
        };
        let answered = errand.what.is_none();
        let commands = Arc::make_mut(&mut self.commands);
        if answered {
            commands.remove(&index);
        } else if let Some(errand) = commands.get_mut(&index) {
            Arc::make_mut(errand).logged = true;
        }
    }

    /// Who owns the check has named this command: it and all before it are answered.
    pub(super) fn fold_answered(&mut self, check: CheckId, index: JournalIndex) {
        for index in self.awaited(check, index).collect::<Vec<_>>() {
            self.answer(index);
        }
    }

    /// Nobody is told of these any more.
    pub(super) fn put_aside(&mut self, which: impl Fn(JournalIndex, &Errand) -> bool) {
        let waiting = self.errands().filter(|(index, errand)| errand.what.is_some() && which(*index, errand));
        for index in waiting.map(|(index, _)| index).collect::<Vec<_>>() {
            self.answer(index);
        }
    }

    /// Nobody is told of this any more; with its result in history nothing is left of it.
    fn answer(&mut self, index: JournalIndex) {
        let Some(errand) = self.commands.get(&index).map(Arc::clone) else { return };
        self.end_to_wait(index, &errand);
        let commands = Arc::make_mut(&mut self.commands);
        if errand.logged {
            commands.remove(&index);
        } else if let Some(errand) = commands.get_mut(&index) {
            Arc::make_mut(errand).what = None;
        }
    }
}
