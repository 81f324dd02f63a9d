//! The bytes of batches that this master may hold: one pool, half of it for live, from which every satellite gets credit before it
//! sends. Decides who gets how much next and who breaks the rule; knows no batch. The surprise: what counts against the pool is
//! credit given, not bytes received, so that it holds even when everybody sends all they may at the same moment.
//!
//! Live: a satellite begins with a little, so that a result need not wait a round trip; its window doubles whenever it runs dry and
//! shrinks when it gives back. Backlog: only what is asked for. Both are handed out a turn at a time, slot after slot. What is given
//! comes back when a batch has left memory: committed, refused, known, or lost with a failed commit.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};
use std::time::Duration;

use shared::frame::Lane;
use shared::message::FRAME_BYTES_MAX;
use shared::name::Slot;
use shared::time::Monotonic;

use crate::fleet::ConnectionId;

/// Bytes of batches received and not committed, and of credit given and not used, all together. At the bound satellites wait and
/// keep their results.
pub const POOL_BYTES: u64 = 256 * 1024 * 1024;
/// Credit of the live lane that a connection begins with: some ten results.
pub const LIVE_FIRST_BYTES: u64 = 4 * 1024;
/// Most credit of the live lane one connection holds; satellites themselves hold no more at hand.
pub const LIVE_WINDOW_BYTES: u64 = 2 * 1024 * 1024;
/// The same of the backlog lane.
pub const BACKLOG_WINDOW_BYTES: u64 = 1024 * 1024;
/// Given at one turn. Not less than the largest frame, or that frame would wait for ever.
pub const TURN_BYTES: u64 = FRAME_BYTES_MAX as u64;
/// Connections that the beginning of the live lane is kept free for. Beyond it they begin when others have given back.
pub const CONNECTIONS: u64 = 16 * 1024;
/// Who uses nothing of its credit for this long, while others wait for it, is cut off.
pub const UNUSED_AFTER: Duration = Duration::from_secs(60);

/// The sizes of a pool, in bytes but for `connections`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// See [`POOL_BYTES`]; half of it is for live.
    pub pool: u64,
    /// See [`LIVE_FIRST_BYTES`].
    pub live_first: u64,
    /// See [`LIVE_WINDOW_BYTES`].
    pub live_window: u64,
    /// See [`BACKLOG_WINDOW_BYTES`].
    pub backlog_window: u64,
    /// See [`TURN_BYTES`].
    pub turn: u64,
    /// See [`CONNECTIONS`].
    pub connections: u64,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            pool: POOL_BYTES,
            live_first: LIVE_FIRST_BYTES,
            live_window: LIVE_WINDOW_BYTES,
            backlog_window: BACKLOG_WINDOW_BYTES,
            turn: TURN_BYTES,
            connections: CONNECTIONS,
        }
    }
}

/// A peer has sent, or given back, more than it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes on the {lane:?} lane with credit for {credit}")]
pub struct Overdrawn {
    lane: Lane,
    bytes: u64,
    credit: u64,
}

/// Bytes received that are still in memory; to be given back with [`Pool::free`] when they no longer are.
#[derive(Debug)]
#[must_use]
pub struct Charge {
    lane: Lane,
    bytes: u64,
    credited: bool,
}

/// What one lane's half of the pool holds, in bytes but for `waiting`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LaneFigures {
    /// Its size.
    pub size: u64,
    /// Given and not yet used.
    pub given: u64,
    /// Received and not yet committed.
    pub received: u64,
    /// Most that was given and received together, since start.
    pub peak: u64,
    /// Slots that wait for credit.
    pub waiting: u64,
}

/// Both halves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Live.
    pub live: LaneFigures,
    /// Backlog.
    pub backlog: LaneFigures,
}

/// One connection's account of one lane. Bytes since its beginning; `returned <= received <= given`.
#[derive(Debug, Default)]
struct Window {
    given: u64,
    received: u64,
    returned: u64,
    wanted: u64,
    /// Live: how far ahead credit is given without being asked for.
    ahead: u64,
    /// When credit was last used, or first given after none was left.
    used: Monotonic,
}

#[derive(Debug)]
struct Member {
    slot: Slot,
    /// Keeps to credit. One that does not (version before credits) is bounded by QUIC's windows and by the link's frames.
    credited: bool,
    live: Window,
    backlog: Window,
}

impl Member {
    fn window(&mut self, lane: Lane) -> &mut Window {
        if lane == Lane::Live { &mut self.live } else { &mut self.backlog }
    }
}

/// One lane's half.
#[derive(Debug, Default)]
struct Half {
    size: u64,
    /// Given and not yet returned. Never more than `size`.
    held: u64,
    /// Of those, received.
    received: u64,
    /// Received from peers without credit.
    uncredited: u64,
    peak: u64,
    waiting: BTreeMap<Slot, VecDeque<ConnectionId>>,
    /// The slot that had its turn last.
    last: Option<Slot>,
}

impl Half {
    fn free(&self) -> u64 {
        self.size.saturating_sub(self.held).saturating_sub(self.uncredited)
    }

    fn wait(&mut self, slot: &Slot, id: ConnectionId) {
        let queue = self.waiting.entry(slot.clone()).or_default();
        if !queue.contains(&id) {
            queue.push_back(id);
        }
    }

    fn forget(&mut self, slot: &Slot, id: ConnectionId) {
        if let Some(queue) = self.waiting.get_mut(slot) {
            queue.retain(|other| *other != id);
            if queue.is_empty() {
                self.waiting.remove(slot);
            }
        }
    }

    /// Whose turn it is: the slot behind the one that had the last.
    fn next(&self) -> Option<(Slot, ConnectionId)> {
        let after = self.last.as_ref().and_then(|last| self.waiting.range((Excluded(last), Unbounded)).next());
        let (slot, queue) = after.or_else(|| self.waiting.iter().next())?;
        Some((slot.clone(), *queue.front()?))
    }

    fn figures(&self) -> LaneFigures {
        LaneFigures {
            size: self.size,
            given: self.held.saturating_sub(self.received),
            received: self.received.saturating_add(self.uncredited),
            peak: self.peak,
            waiting: u64::try_from(self.waiting.len()).unwrap_or(u64::MAX),
        }
    }
}

/// All credit there is. See the head of this room.
#[derive(Debug)]
pub struct Pool {
    sizes: Sizes,
    live: Half,
    backlog: Half,
    members: BTreeMap<ConnectionId, Member>,
    /// Whose credit has grown and who must be told.
    grown: BTreeSet<(ConnectionId, Lane)>,
    /// The newest time given in; seconds are enough.
    now: Monotonic,
}

impl Default for Pool {
    fn default() -> Self {
        Self::new(Sizes::default())
    }
}

impl Pool {
    /// A pool of these sizes.
    #[must_use]
    pub fn new(sizes: Sizes) -> Self {
        let live = sizes.pool / 2;
        Self {
            sizes,
            live: Half { size: live, ..Half::default() },
            backlog: Half { size: sizes.pool - live, ..Half::default() },
            members: BTreeMap::new(),
            grown: BTreeSet::new(),
            now: Monotonic::default(),
        }
    }

    /// Time has passed. Gives the connections that hold more than they began with, use nothing of it, and make others wait.
    #[must_use]
    pub fn handle_time(&mut self, now: Monotonic) -> Vec<ConnectionId> {
        self.now = now;
        let idle = |half: &Half, window: &Window, begins: u64, member: &Member, id: &ConnectionId| {
            let queued = half.waiting.get(&member.slot).is_some_and(|queue| queue.contains(id));
            let unused = window.given.saturating_sub(window.received) > begins;
            !half.waiting.is_empty() && !queued && unused && now.since(window.used) >= UNUSED_AFTER
        };
        let members = self.members.iter().filter(|(id, member)| {
            idle(&self.live, &member.live, self.sizes.live_first, member, id)
                || idle(&self.backlog, &member.backlog, 0, member, id)
        });
        members.map(|(id, _)| *id).collect()
    }

    fn half(&mut self, lane: Lane) -> &mut Half {
        if lane == Lane::Live { &mut self.live } else { &mut self.backlog }
    }

    /// A satellite is welcomed. Gives the credit of the live lane it begins with, none to one that does not keep to credit.
    pub fn open(&mut self, id: ConnectionId, slot: Slot, credited: bool) -> Option<u64> {
        let window = || Window { used: self.now, ..Window::default() };
        let live = Window { ahead: self.sizes.live_first, ..window() };
        self.members.insert(id, Member { slot, credited, live, backlog: window() });
        if !credited {
            return None;
        }
        self.refill(id);
        self.serve(Lane::Live);
        // It is told with the welcome.
        self.grown.remove(&(id, Lane::Live));
        Some(self.members.get(&id).map_or(0, |member| member.live.given))
    }

    /// A link is gone. What was received on it stays until it is freed.
    pub fn close(&mut self, id: ConnectionId) {
        let Some(member) = self.members.remove(&id) else { return };
        for (lane, window) in [(Lane::Live, &member.live), (Lane::Backlog, &member.backlog)] {
            self.grown.remove(&(id, lane));
            let half = self.half(lane);
            half.forget(&member.slot, id);
            if member.credited {
                half.held = half.held.saturating_sub(window.given.saturating_sub(window.received));
            }
        }
        self.serve(Lane::Live);
        self.serve(Lane::Backlog);
    }

    /// A batch has come.
    ///
    /// # Errors
    /// [`Overdrawn`]: nothing of it is counted, and its link must close.
    pub fn receive(&mut self, id: ConnectionId, lane: Lane, bytes: u64) -> Result<Charge, Overdrawn> {
        let now = self.now;
        let Some(member) = self.members.get_mut(&id) else { return Err(Overdrawn { lane, bytes, credit: 0 }) };
        let credited = member.credited;
        if credited {
            spend(member.window(lane), lane, bytes, now)?;
            self.half(lane).received += bytes;
        } else {
            let half = self.half(lane);
            half.uncredited = half.uncredited.saturating_add(bytes);
        }
        if lane == Lane::Live {
            self.refill(id);
        }
        Ok(Charge { lane, bytes, credited })
    }

    /// What was received is no longer in memory.
    pub fn free(&mut self, id: ConnectionId, charge: Charge) {
        let Charge { lane, bytes, credited } = charge;
        let half = self.half(lane);
        if credited {
            half.received = half.received.saturating_sub(bytes);
            self.give_back(id, lane, bytes);
        } else {
            half.uncredited = half.uncredited.saturating_sub(bytes);
        }
        self.serve(lane);
    }

    /// Forgets what is given, so that it is given once more: only for [`shared::defect::Defect::CreditTwice`].
    pub(super) fn forget(&mut self, lane: Lane) {
        self.half(lane).held = 0;
    }

    fn give_back(&mut self, id: ConnectionId, lane: Lane, bytes: u64) {
        let half = self.half(lane);
        half.held = half.held.saturating_sub(bytes);
        if let Some(member) = self.members.get_mut(&id) {
            let window = member.window(lane);
            window.returned = window.returned.saturating_add(bytes);
            let waits = window.wanted > window.given;
            let slot = member.slot.clone();
            if lane == Lane::Live {
                self.refill(id);
            }
            if waits {
                self.half(lane).wait(&slot, id);
            }
        }
    }

    /// A satellite has batches at hand up to here.
    pub fn want(&mut self, id: ConnectionId, lane: Lane, up_to: u64) {
        let window_bytes = self.sizes.live_window;
        let Some(member) = self.members.get_mut(&id).filter(|member| member.credited && lane != Lane::Control) else {
            return;
        };
        let slot = member.slot.clone();
        let window = member.window(lane);
        if up_to <= window.wanted.max(window.given) {
            return;
        }
        window.wanted = up_to;
        if lane == Lane::Live {
            // It ran dry: from here on credit goes further ahead of it.
            window.ahead = window.ahead.saturating_mul(2).min(window_bytes);
        }
        self.half(lane).wait(&slot, id);
        self.serve(lane);
    }

    /// A satellite gives back credit that it will not use.
    ///
    /// # Errors
    /// [`Overdrawn`]: it has not as much; its link must close.
    pub fn give_up(&mut self, id: ConnectionId, lane: Lane, bytes: u64) -> Result<(), Overdrawn> {
        let (now, first) = (self.now, self.sizes.live_first);
        let member = self.members.get_mut(&id).filter(|member| member.credited && lane != Lane::Control);
        let Some(member) = member else { return Err(Overdrawn { lane, bytes, credit: 0 }) };
        let window = member.window(lane);
        spend(window, lane, bytes, now)?;
        window.ahead = window.given.saturating_sub(window.received).max(first);
        self.give_back(id, lane, bytes);
        self.serve(lane);
        Ok(())
    }

    /// Live credit goes ahead of what is sent: the first bytes at once, more in turn. Left alone while half of it is there.
    fn refill(&mut self, id: ConnectionId) {
        let first = self.sizes.live_first;
        let Some(member) = self.members.get_mut(&id).filter(|member| member.credited) else { return };
        let window = &mut member.live;
        if window.given.saturating_sub(window.received) > window.ahead / 2 {
            return;
        }
        let missing = window.returned.saturating_add(first).saturating_sub(window.given);
        if missing > 0 && missing <= self.live.free() {
            window.given += missing;
            self.live.held += missing;
            self.live.peak = self.live.peak.max(self.live.held);
            self.grown.insert((id, Lane::Live));
        }
        if window.given < window.returned.saturating_add(window.ahead) {
            self.live.wait(&member.slot, id);
        }
    }

    /// Bytes of the live half kept for connections that are still to come.
    fn kept(&self, lane: Lane) -> u64 {
        let there = u64::try_from(self.members.len()).unwrap_or(u64::MAX);
        let to_come = self.sizes.connections.saturating_sub(there);
        if lane == Lane::Live { to_come.saturating_mul(self.sizes.live_first) } else { 0 }
    }

    /// Hands out turns while there is enough for the next one. Nobody overtakes: a large frame waits no longer than its turn.
    fn serve(&mut self, lane: Lane) {
        let (now, kept, turn) = (self.now, self.kept(lane), self.sizes.turn);
        let most = if lane == Lane::Live { self.sizes.live_window } else { self.sizes.backlog_window };
        while let Some((slot, id)) = self.half(lane).next() {
            let free = self.half(lane).free();
            let Some(member) = self.members.get_mut(&id) else {
                self.half(lane).forget(&slot, id);
                continue;
            };
            let window = member.window(lane);
            let ahead = if lane == Lane::Live { window.returned.saturating_add(window.ahead) } else { 0 };
            let target = window.wanted.min(window.returned.saturating_add(most)).max(ahead);
            let bytes = target.saturating_sub(window.given).min(turn);
            if bytes > 0 {
                // A connection's beginning is what was kept for it.
                let beginning = lane == Lane::Live && window.given == 0;
                if bytes.saturating_add(if beginning { 0 } else { kept }) > free {
                    return;
                }
                if window.given == window.received {
                    window.used = now;
                }
                window.given += bytes;
                let more = window.given < target;
                let half = self.half(lane);
                half.held += bytes;
                half.peak = half.peak.max(half.held);
                half.last = Some(slot.clone());
                half.forget(&slot, id);
                if more {
                    half.wait(&slot, id);
                }
                self.grown.insert((id, lane));
            } else {
                // Its window is full: it comes again when a batch of it has left memory.
                self.half(lane).forget(&slot, id);
            }
        }
    }

    /// The next connection to be told of its credit: up to which byte of the lane.
    pub fn poll_grown(&mut self) -> Option<(ConnectionId, Lane, u64)> {
        while let Some((id, lane)) = self.grown.pop_first() {
            if let Some(member) = self.members.get_mut(&id) {
                return Some((id, lane, member.window(lane).given));
            }
        }
        None
    }

    /// How full it is.
    #[must_use]
    pub fn figures(&self) -> Figures {
        Figures { live: self.live.figures(), backlog: self.backlog.figures() }
    }
}

fn spend(window: &mut Window, lane: Lane, bytes: u64, now: Monotonic) -> Result<(), Overdrawn> {
    let credit = window.given.saturating_sub(window.received);
    if bytes > credit {
        return Err(Overdrawn { lane, bytes, credit });
    }
    window.received += bytes;
    window.used = now;
    Ok(())
}

#[cfg(test)]
mod tests;
