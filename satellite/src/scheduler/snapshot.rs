//! What this process says of its own newest states once it knows what it owns: which states, under which keys, in which frames, and
//! the marker behind the last. Decides nothing about results: they go their own way, and a state said here moves no position.
//! The surprise: a state is looked up when its frame is made, not when it was asked for, so that a slow link gets the newest.

use std::collections::BTreeSet;

use bytes::Bytes;
use shared::assignment::AssignedCheck;
use shared::check::State;
use shared::delivery::Key;
use shared::frame::Lane;
use shared::message::{self, ToMaster};
use shared::name::{CheckId, Generation};
use shared::snapshot::{FRAMES_UNHEARD_MAX, STATES_BYTES, STATES_MAX, StateTold};

use super::Scheduler;
use super::roster::Roster;
use crate::command::Command;

/// The key a state is told under: its own if it was made under the living grant, else the least one of that grant.
fn key_under(check: &AssignedCheck, own: Key) -> Key {
    if own.grant == check.grant { own } else { Key { grant: check.grant, ..Key::default() } }
}

/// What is to be said of a check that is owned; `None` if the master knows it: the state came from there, or it has a greater one.
///
/// What the grant carries is what the master holds now, so a state that is greater is one whose result is not delivered. One that is
/// `owed` is told all the same: the master asks for a command that was applied, and a state names the last of them.
#[must_use]
pub fn told(roster: &Roster, id: CheckId, owed: bool) -> Option<StateTold> {
    let check = roster.assignment().checks.get(&id)?;
    let own = roster.states().get(&id)?;
    let news = owed || check.carried.is_none_or(|carried| own.key > carried.key);
    (news && own.state.state != State::Pending).then(|| StateTold {
        check: id,
        key: key_under(check, own.key),
        state: own.state,
        said: roster.said(id).cloned(),
        command: roster.applied(id),
    })
}

/// States on their way to the master of one connection.
#[derive(Debug, Default)]
pub struct Telling {
    /// Still to be looked at.
    left: BTreeSet<CheckId>,
    /// The marker is still to be said, for this generation.
    marker: Option<Generation>,
    begun: bool,
    unheard: u32,
}

impl Telling {
    /// A series of assignment items was applied: these checks are looked at, and a marker follows them.
    pub fn ask(&mut self, generation: Generation, checks: impl IntoIterator<Item = CheckId>) {
        self.left.extend(checks);
        self.marker = Some(generation);
        self.begun = true;
    }

    /// Whether a series was applied on this connection.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// The master has dealt with a frame.
    pub fn heard(&mut self) {
        self.unheard = self.unheard.saturating_sub(1);
    }

    /// Frames that were sent: they count until they are heard.
    pub fn sent(&mut self, frames: usize) {
        self.unheard = self.unheard.saturating_add(u32::try_from(frames).unwrap_or(u32::MAX));
    }

    /// What the next frame holds; `None` if there is nothing to say, or too much is unheard. `told` looks a check up.
    pub fn next(&mut self, told: impl Fn(CheckId) -> Option<StateTold>) -> Option<(Vec<ToMaster>, bool)> {
        if self.unheard >= FRAMES_UNHEARD_MAX {
            return None;
        }
        let (mut messages, mut bytes) = (Vec::new(), 0_usize);
        while messages.len() < STATES_MAX && bytes < STATES_BYTES {
            let Some(id) = self.left.pop_first() else { break };
            if let Some(state) = told(id) {
                bytes = bytes.saturating_add(state.said.as_ref().map_or(0, |said| said.output.len()));
                messages.push(ToMaster::State(Box::new(state)));
            }
        }
        let states = !messages.is_empty();
        if self.left.is_empty()
            && let Some(generation) = self.marker.take()
        {
            messages.push(ToMaster::StatesEnd(generation));
        }
        (!messages.is_empty()).then_some((messages, states))
    }
}

impl Scheduler {
    /// These checks are looked at, and a marker follows them. Whoever does not hold the slot decides nothing and says nothing.
    pub(super) fn ask_for_states(&mut self, checks: Vec<CheckId>) {
        let generation = self.roster.assignment().generation;
        if let Some(connection) = self.connection.as_mut().filter(|_| self.holder) {
            connection.telling.ask(generation, checks);
        }
        self.tell_states();
    }

    /// Sends what may be sent now.
    pub(super) fn tell_states(&mut self) {
        while let Some(connection) = self.connection.as_mut().filter(|_| self.holder)
            && let Some((messages, states)) =
                connection.telling.next(|id| told(&self.roster, id, self.owed.contains(&id)))
        {
            let payloads = message::encode(&messages);
            connection.telling.sent(if states { payloads.len() } else { 0 });
            let payloads = payloads.into_iter().map(Bytes::from);
            self.commands.extend(payloads.map(|payload| Command::Send { lane: Lane::Control, payload }));
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::name::{Grant, RunCounter, Sequence};
    use shared::snapshot::{OUTPUT_BYTES_MAX, Said};
    use shared::state::CheckState;
    use shared::time::Timestamp;

    use super::*;

    fn long(check: CheckId) -> Option<StateTold> {
        let at = Timestamp::from_millis(1_790_000_000_000);
        Some(StateTold {
            check,
            key: Key { grant: Grant(u64::MAX), counter: RunCounter(u64::MAX), sequence: Sequence(u64::MAX) },
            state: CheckState { state: State::Critical, since: at, hard_since: at, ..CheckState::pending(u32::MAX) },
            said: Some(Said {
                scheduled: at,
                started: at,
                duration_us: u64::MAX,
                exit: Some(shared::check::Exit::Error("check-kind-unknown".into())),
                passive: false,
                output: "x".repeat(if check.0.is_multiple_of(2) { OUTPUT_BYTES_MAX } else { 20 }),
                authenticated: Some(false),
                offset_ms: Some(i64::MIN),
            }),
            command: None,
        })
    }

    #[test]
    fn a_frame_is_one_payload_and_holds_no_more_than_a_row_has_room_for() {
        let mut telling = Telling::default();
        telling.ask(Generation(3), (0..3000).map(CheckId));
        let (mut said, mut frames) = (Vec::new(), 0);
        while let Some((messages, states)) = telling.next(long) {
            let payloads = message::encode(&messages);
            assert_eq!(payloads.len(), 1);
            assert!(messages.len() <= STATES_MAX + 1 && states);
            telling.sent(payloads.len());
            telling.heard();
            said.extend(messages);
            frames += 1;
        }
        assert!(frames > 5);
        assert_eq!(said.pop(), Some(ToMaster::StatesEnd(Generation(3))));
        assert_eq!(said.len(), 3000);
    }

    #[test]
    fn states_wait_while_too_many_frames_are_unheard() {
        let mut telling = Telling::default();
        telling.ask(Generation(1), (0..100_000).map(CheckId));
        let mut frames = 0;
        while let Some((messages, _)) = telling.next(long) {
            telling.sent(message::encode(&messages).len());
            frames += 1;
        }
        assert_eq!(frames, FRAMES_UNHEARD_MAX);
        telling.heard();
        assert!(telling.next(long).is_some());
    }

    #[test]
    fn with_nothing_to_say_there_is_a_marker_all_the_same_and_only_one() {
        let mut telling = Telling::default();
        telling.ask(Generation(9), (0..70_000).map(CheckId));
        assert_eq!(telling.next(|_| None), Some((vec![ToMaster::StatesEnd(Generation(9))], false)));
        assert_eq!(telling.next(|_| None), None);
    }
}
