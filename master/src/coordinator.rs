//! The master's brain: joins `fleet`, `ingest` and `status`. Frames, activations and time come in; commits, messages and published
//! views come out. Order is apply → commit → publish: nothing is acknowledged, told or shown before its rows are on disk. Knows no
//! socket, disk or clock.
//!
//! Rows gather in a group while the previous group's commit runs. A group that cannot be committed is dropped with everything after
//! it: the working copy goes back to the last published state, and satellites are cut off so that they send again.

pub mod clock;
mod command;
mod connection;
pub mod credit;
mod group;
mod presence;
mod satellite;
mod slots;
mod snapshot;
mod stranded;
pub mod timeline;
#[cfg(test)]
mod tests;
mod view;
mod watch;
mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use shared::defect::Defect;
use shared::frame::Lane;
use shared::message::{self, ClockReply, LaneBytes, RunPosition, ToMaster, ToSatellite};
use shared::name::{CheckId, InstallationId, InstanceId, JournalIndex, RunId, Slot, Timeline};
use shared::step::StepWatch;
use shared::time::{Monotonic, Timestamp};

use crate::config::Catalog;
use crate::entry::{Activate, Batch, Entry, Named, Outcomes, WriterGap};
use crate::fleet::{ConnectionId, LEASE, Placement};
use crate::ingest::{self, Reception};
use crate::status::Status;

use connection::Connection;
use credit::{Charge, Pool, Sizes};
use group::Group;
use watch::Watch;

pub use command::{COMMANDS_BYTES_MAX, COMMANDS_IN_ALL_MAX, Commanding, TELL_AGAIN_EVERY, Told};
pub use slots::{Obeyed, Order};
pub use view::{SlotLink, View};
pub use work::{Activation, Command, Cut, NoteId, RequestId};

/// Rows waiting for their commit, in bytes. Beyond it no frame is taken ([`Coordinator::is_saturated`]): QUIC's windows fill up
/// and satellites keep their results.
pub const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// After a failed commit nothing is accepted for this long, then a new segment is tried.
pub const RETRY_COMMIT_AFTER: Duration = Duration::from_secs(1);
/// How often slots are looked at for silence and return.
pub const PRESENCE_TICK: Duration = Duration::from_secs(1);

/// What readers see is made anew so often at most, for each slot there is: it costs the more the more slots there are, and every sign
/// of life changes it. A hundred slots: 2 ms, ten thousand: 200 ms.
pub const SHOW_EVERY_PER_SLOT: Duration = Duration::from_micros(20);

/// What follows a commit.
#[derive(Debug)]
enum Consequence {
    Acknowledge(ConnectionId, RunPosition),
    /// A batch is no longer in memory.
    Free(ConnectionId, Charge),
    Greet(ConnectionId),
    Fence(Slot, ConnectionId),
    CloseRun(ConnectionId, RunId),
    Answer(RequestId, Activation),
    StatesHeard(ConnectionId),
    Settle(ConnectionId),
    Obey(RequestId, Obeyed),
    Noted(NoteId),
    Commanded(RequestId, JournalIndex, CheckId),
}

/// Who this master is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its installation.
    pub installation: InstallationId,
    /// Its version, for satellites.
    pub software: String,
}

/// The master's brain. See the head of this room.
#[derive(Debug)]
pub struct Coordinator {
    identity: Identity,
    working: Status,
    published: Arc<Status>,
    /// Groups not yet on disk; the front one is being committed if `committing`.
    groups: VecDeque<Group>,
    committing: bool,
    blocked_until: Option<Monotonic>,
    /// The last commit failed: readers are told so until one succeeds.
    unwritable: bool,
    connections: BTreeMap<ConnectionId, Connection>,
    /// The same by slot.
    voices: BTreeMap<Slot, BTreeSet<ConnectionId>>,
    /// The newest link on which each process has said hello, also if that has gone and an older one has not.
    newest: BTreeMap<InstanceId, ConnectionId>,
    pool: Pool,
    /// Of a store that has none yet.
    fresh_timeline: Timeline,
    /// When each slot's holder was last heard; at start all known holders count as heard at readiness.
    heard: BTreeMap<Slot, Monotonic>,
    /// Slots whose holder has told its newest states since it was last silent for a lease, or since this master began.
    settled: BTreeSet<Slot>,
    next_tick: Monotonic,
    tell_again_due: Monotonic,
    stranded_due: Monotonic,
    watch: Watch,
    own_clock: StepWatch,
    /// Results refused since start, by reason.
    refused: BTreeMap<&'static str, u64>,
    /// Results since start that ended after they came, by their satellite's clock.
    future: u64,
    /// Readers see something that is no longer so.
    dirty: bool,
    show_due: Monotonic,
    /// Made when the working copy's ownership was last judged as a whole; nothing but slots has changed it since.
    placement: Option<Placement>,
    /// The newest wall time given in.
    at: Timestamp,
    commands: VecDeque<Command>,
}

impl Coordinator {
    /// Goes on from a state. A state without a store yet is given its first row: `timeline` must be 64 fresh random bits.
    #[must_use]
    pub fn new(identity: Identity, status: Status, timeline: Timeline, now: Monotonic, at: Timestamp) -> Self {
        let heard = status.slots().keys().map(|slot| (slot.clone(), now)).collect();
        let mut coordinator = Self {
            identity,
            published: Arc::new(status.clone()),
            working: status,
            groups: VecDeque::new(),
            committing: false,
            blocked_until: None,
            unwritable: false,
            connections: BTreeMap::new(),
            voices: BTreeMap::new(),
            newest: BTreeMap::new(),
            pool: Pool::default(),
            fresh_timeline: timeline,
            heard,
            settled: BTreeSet::new(),
            next_tick: now.plus(PRESENCE_TICK),
            tell_again_due: now,
            stranded_due: now.plus(stranded::STRANDED_TICK),
            watch: Watch::new(now),
            own_clock: StepWatch::default(),
            refused: BTreeMap::new(),
            future: 0,
            dirty: true,
            show_due: now,
            placement: None,
            at,
            commands: VecDeque::new(),
        };
        if coordinator.working.installation.is_none() {
            coordinator.found(at);
        }
        coordinator
    }

    /// The same with another byte pool, before the first connection.
    #[must_use]
    pub fn with_pool(mut self, sizes: Sizes) -> Self {
        self.pool = Pool::new(sizes);
        self
    }

    /// The state as last published.
    #[must_use]
    pub fn published(&self) -> &Arc<Status> {
        &self.published
    }

    fn has(&self, defect: Defect) -> bool {
        self.working.defects.has(defect)
    }

    /// Whether frames must wait because too much waits for its commit already.
    #[must_use]
    pub fn is_saturated(&self) -> bool {
        self.groups.iter().map(|group| group.bytes).sum::<usize>() >= WAITING_BYTES_MAX
    }

    // ---- input -------------------------------------------------------------------------------------------------------------------

    /// A verified satellite has connected; it has not said hello yet.
    pub fn handle_connected(&mut self, id: ConnectionId, slot: Slot, remote: String, now: Monotonic) {
        self.voices.entry(slot.clone()).or_default().insert(id);
        self.connections.insert(id, Connection::new(slot, remote, now));
        self.dirty = true;
    }

    /// A link is gone.
    pub fn handle_disconnected(&mut self, id: ConnectionId) {
        self.dirty |= self.forget(id).is_some();
    }

    fn forget(&mut self, id: ConnectionId) -> Option<Connection> {
        self.pool.close(id);
        let connection = self.connections.remove(&id)?;
        if let Some(voices) = self.voices.get_mut(&connection.slot) {
            voices.remove(&id);
            if voices.is_empty() {
                self.voices.remove(&connection.slot);
            }
        }
        if let Some(instance) = connection.instance() {
            let mut others = self.voices.get(&connection.slot).into_iter().flatten();
            let same =
                |other: &ConnectionId| self.connections.get(other).and_then(Connection::instance) == Some(instance);
            if !others.any(same) {
                self.newest.remove(&instance);
            }
        }
        Some(connection)
    }

    /// A control payload has come.
    pub fn handle_control(&mut self, id: ConnectionId, payload: &[u8], now: Monotonic, at: Timestamp) {
        if !self.hear(id, now, at) {
            return;
        }
        let messages = match message::decode::<ToMaster>(payload) {
            Ok(messages) => messages,
            Err(error) => return self.cut(id, Cut::Protocol(error.to_string())),
        };
        self.handle_states(id, payload, &messages, now, at);
        for message in messages {
            match message {
                ToMaster::Hello(hello) => self.handle_hello(id, *hello, now, at),
                ToMaster::Heartbeat(heartbeat) => {
                    self.say(id, &[ToSatellite::ClockReply(ClockReply { sent: heartbeat.clock, master: at })]);
                    if let Some(connection) = self.connections.get_mut(&id) {
                        // What it measured itself knows of the round trip; what is seen from here contains one way's delay.
                        let seen = at.as_millis().saturating_sub(heartbeat.clock.as_millis());
                        connection.offset_ms = heartbeat.offset_ms.unwrap_or(seen);
                        connection.heartbeat = Some(heartbeat);
                    }
                    self.dirty = true;
                }
                ToMaster::Applied(generation) => {
                    if let Some(connection) = self.connections.get_mut(&id) {
                        connection.applied = Some(generation);
                    }
                    self.handle_applied(id);
                    self.dirty = true;
                }
                // All states of a frame are one row of the journal, judged above.
                ToMaster::State(_) => {}
                ToMaster::StatesEnd(_) => self.handle_states_end(id),
                ToMaster::Held(held) => {
                    if let Some(connection) = self.connections.get_mut(&id) {
                        connection.hold(held);
                    }
                    self.drain(id, held.run, at);
                }
                ToMaster::ClockStep(step) => self.handle_clock_step(id, step, at),
                ToMaster::Wanted(LaneBytes { lane, bytes }) => self.pool.want(id, lane, bytes),
                ToMaster::Returned(LaneBytes { lane, bytes }) => {
                    if let Err(overdrawn) = self.pool.give_up(id, lane, bytes) {
                        return self.cut(id, Cut::Overdrawn(overdrawn));
                    }
                }
            }
        }
    }

    /// A batch has come, live or backlog.
    pub fn handle_batch(&mut self, id: ConnectionId, lane: Lane, bytes: Vec<u8>, now: Monotonic, at: Timestamp) {
        self.hear(id, now, at);
        let Some(connection) = self.connections.get(&id) else { return };
        if connection.hello.is_none() {
            return self.cut(id, Cut::Protocol("a batch before hello".to_owned()));
        }
        let slot = connection.slot.clone();
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let charge = match self.pool.receive(id, lane, length) {
            Ok(charge) => charge,
            Err(overdrawn) => return self.cut(id, Cut::Overdrawn(overdrawn)),
        };
        if self.has(Defect::CreditTwice) {
            self.pool.forget(lane);
        }
        if self.blocked_until.is_some_and(|until| now < until) {
            self.pool.free(id, charge);
            return self.cut(id, Cut::NotCommitted);
        }
        match ingest::judge(&self.working, &slot, &bytes) {
            Reception::Refused(error) => {
                self.pool.free(id, charge);
                self.cut(id, Cut::Protocol(error.to_string()));
            }
            // What is known to the working copy may still be on its way to disk: the acknowledgement waits with it.
            Reception::Known(position) => {
                self.pool.free(id, charge);
                self.follow(Consequence::Acknowledge(id, position));
            }
            Reception::New(judged) => {
                self.count_refused(&slot, &judged.outcomes);
                self.future += clock::from_the_future(&judged.items, at);
                let run = judged.position.run;
                let entry = Entry::Batch(Batch { slot, bytes });
                self.add(entry, judged.outcomes, &judged.items, None, at);
                if let Some(group) = self.groups.back_mut() {
                    group.since.get_or_insert(now);
                }
                self.follow(Consequence::Acknowledge(id, judged.position));
                self.follow(Consequence::Free(id, charge));
                self.drain(id, run, at);
            }
        }
    }

    /// Refused results are journaled like all others; here they are raised and counted.
    fn count_refused(&mut self, slot: &Slot, outcomes: &Outcomes) {
        let mut refused: BTreeMap<&'static str, u64> = BTreeMap::new();
        for reason in outcomes.verdicts.iter().filter_map(|verdict| verdict.effect.refusal()) {
            *refused.entry(reason).or_default() += 1;
        }
        for (reason, count) in refused {
            tracing::warn!(%slot, reason, count, "results refused");
            *self.refused.entry(reason).or_default() += count;
        }
        for gap in outcomes.gaps.iter().filter(|gap| !gap.explained) {
            tracing::error!(%slot, run = %gap.run, first = %gap.record.first, last = %gap.record.last, reason = gap.record.reason, "results are missing and nobody said why");
        }
    }

    /// A compiled catalog that the store already holds shall run.
    pub fn handle_activation(&mut self, request: RequestId, catalog: &Arc<Catalog>, author: &str, at: Timestamp) {
        let digest = catalog.digest.to_string();
        if self.working.catalog.is_some() && self.working.digest == digest {
            return self.follow(Consequence::Answer(request, Activation::Unchanged(self.working.generation)));
        }
        let generation = self.working.next_generation();
        let unnamed = catalog.objects.keys().filter(|name| self.working.id(name).is_none());
        let named = (self.working.next_check.0..)
            .zip(unnamed)
            .map(|(id, object)| Named { id: CheckId(id), object: object.clone() })
            .collect();
        let removed = self
            .working
            .objects()
            .filter(|object| object.configured && !catalog.objects.contains_key(&object.name))
            .map(|object| object.id)
            .collect();
        let activate = Activate { generation, digest, author: author.to_owned() };
        let outcomes = Outcomes { named, removed, ..Outcomes::default() };
        self.add_with_grants(Entry::Activate(activate), outcomes, Some(catalog), None, at);
        self.follow(Consequence::Answer(request, Activation::Activated(generation)));
    }

    /// A writer will never send some rows: that goes into the journal, and whoever asks is told when it is there.
    pub fn handle_writer_gap(&mut self, note: NoteId, gap: WriterGap, at: Timestamp) {
        tracing::error!(writer = gap.writer, lane = gap.lane, first = %gap.first, last = %gap.last, reason = gap.reason, "this writer will never send these rows");
        self.add(Entry::WriterGap(gap), Outcomes::default(), &[], None, at);
        self.follow(Consequence::Noted(note));
    }

    /// The record asked for last is durable.
    pub fn handle_committed(&mut self, at: Timestamp) {
        self.at = at;
        if !std::mem::take(&mut self.committing) {
            return;
        }
        let Some(group) = self.groups.pop_front() else { return };
        if let Some(status) = group.status {
            self.published = Arc::new(status);
        }
        self.blocked_until = None;
        self.unwritable = false;
        self.dirty = true;
        let rows = Arc::new(group.rows);
        if self.has(Defect::PublishedTwice) {
            self.commands.push_back(Command::Published(Arc::clone(&rows)));
        }
        if !self.has(Defect::PublishedNever) || self.groups.is_empty() {
            self.commands.push_back(Command::Published(rows));
        }
        // One acknowledgement a run and link: positions are cumulative.
        let mut positions: BTreeMap<(ConnectionId, RunId), RunPosition> = BTreeMap::new();
        for consequence in group.consequences {
            if let Consequence::Acknowledge(id, position) = consequence {
                positions.insert((id, position.run), position);
            } else {
                self.act(consequence);
            }
        }
        for ((id, _), position) in positions {
            self.act(Consequence::Acknowledge(id, position));
        }
        self.push_assignments(&group.reassigned);
    }

    /// The record asked for last could not be made durable.
    pub fn handle_commit_failed(&mut self, now: Monotonic) {
        self.committing = false;
        if !self.has(Defect::WorkingKept) {
            self.working = self.published.as_ref().clone();
        }
        self.placement = None;
        for consequence in std::mem::take(&mut self.groups).into_iter().flat_map(|group| group.consequences) {
            match consequence {
                Consequence::Answer(request, _) => {
                    self.commands.push_back(Command::Answer { request, activation: Activation::NotCommitted });
                }
                Consequence::Obey(request, _) => {
                    self.commands.push_back(Command::Obeyed { request, obeyed: Obeyed::NotCommitted });
                }
                Consequence::Noted(note) => self.commands.push_back(Command::Noted { note, durable: false }),
                Consequence::Commanded(request, ..) => self.lose_command(request),
                Consequence::Free(id, charge) => self.pool.free(id, charge),
                Consequence::Acknowledge(..)
                | Consequence::Greet(_)
                | Consequence::Fence(..)
                | Consequence::CloseRun(..)
                | Consequence::StatesHeard(_)
                | Consequence::Settle(_) => {}
            }
        }
        for id in self.connections.keys().copied().collect::<Vec<_>>() {
            self.cut(id, Cut::NotCommitted);
        }
        self.blocked_until = Some(now.plus(RETRY_COMMIT_AFTER));
        self.unwritable = true;
        self.dirty = true;
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Monotonic, at: Timestamp) {
        if now < self.next_tick {
            return;
        }
        self.next_tick = now.plus(PRESENCE_TICK);
        if self.blocked_until.is_some_and(|until| now >= until) {
            self.blocked_until = None;
        }
        self.look_at_own_clock(now, at);
        self.look_at_presence(now, at);
        self.call_waiting(now);
        self.tell_commands_again(now);
        self.give_up_stranded(now, at);
        for id in self.pool.handle_time(now) {
            self.cut(id, Cut::Hoarding);
        }
        self.dirty = true;
    }

    /// When [`Coordinator::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Monotonic {
        if self.dirty { self.next_tick.min(self.show_due) } else { self.next_tick }
    }

    /// The next thing to do, if any.
    pub fn poll_command(&mut self, now: Monotonic) -> Option<Command> {
        if self.commands.is_empty() {
            self.tell_credit();
        }
        if let Some(command) = self.commands.pop_front() {
            return Some(command);
        }
        if let Some(commit) = self.begin_commit() {
            return Some(commit);
        }
        if self.dirty && now >= self.show_due {
            let slots = u32::try_from(self.published.slots().len()).unwrap_or(u32::MAX);
            self.show_due = now.plus(SHOW_EVERY_PER_SLOT.saturating_mul(slots));
            self.dirty = false;
            return Some(Command::Show(Arc::new(self.view(now))));
        }
        None
    }

    // ---- links -------------------------------------------------------------------------------------------------------------------

    /// Notes a sign of life; false if the link is no longer known.
    fn hear(&mut self, id: ConnectionId, now: Monotonic, at: Timestamp) -> bool {
        self.at = at;
        let Some(connection) = self.connections.get(&id) else { return false };
        if connection.instance().is_some() && connection.instance() == self.holder(&connection.slot) {
            let (slot, told) = (connection.slot.clone(), connection.told.is_some());
            let before = self.heard.insert(slot.clone(), now);
            let returned = before.is_none_or(|before| now.since(before) >= LEASE);
            // A link that outlived the silence brings no hello: its process is asked for its newest states all the same.
            if returned && self.settled.remove(&slot) && told {
                self.push_assignment(id, true);
            }
        }
        true
    }

    fn holder(&self, slot: &Slot) -> Option<InstanceId> {
        self.working.slots().get(slot).and_then(|state| state.holder.as_ref()).map(|holder| holder.instance)
    }

    /// What the pool has given since.
    fn tell_credit(&mut self) {
        while let Some((id, lane, bytes)) = self.pool.poll_grown() {
            self.say(id, &[ToSatellite::Credit(LaneBytes { lane, bytes })]);
        }
    }

    fn cut(&mut self, id: ConnectionId, cut: Cut) {
        if let Some(connection) = self.forget(id) {
            tracing::warn!(slot = %connection.slot, remote = connection.remote, ?cut, "closing a link");
            self.commands.push_back(Command::Close { connection: id, cut });
            self.dirty = true;
        }
    }

    fn say(&mut self, id: ConnectionId, messages: &[ToSatellite]) {
        for payload in message::encode(messages) {
            self.commands.push_back(Command::Send { connection: id, payload });
        }
    }

    fn act(&mut self, consequence: Consequence) {
        match consequence {
            Consequence::Acknowledge(id, position) => {
                if self.connections.contains_key(&id) {
                    // Before it leaves: whoever traces this process sees it behind the fdatasync that it stands on.
                    tracing::debug!(target: "perigee::acknowledging", run = %position.run, position = position.position.0);
                    self.say(id, &[ToSatellite::Ack(position)]);
                }
            }
            Consequence::Free(id, charge) => self.pool.free(id, charge),
            Consequence::CloseRun(id, run) => self.say(id, &[ToSatellite::CloseRun(run)]),
            Consequence::Fence(slot, id) => {
                tracing::info!(%slot, connection = %id, "fencing the process that had the slot");
                self.say(id, &[ToSatellite::Fence]);
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.told = None;
                }
            }
            Consequence::Answer(request, activation) => {
                self.commands.push_back(Command::Answer { request, activation })
            }
            Consequence::Obey(request, obeyed) => self.commands.push_back(Command::Obeyed { request, obeyed }),
            Consequence::Noted(note) => self.commands.push_back(Command::Noted { note, durable: true }),
            Consequence::Greet(id) => self.greet(id),
            Consequence::StatesHeard(id) => self.say(id, &[ToSatellite::StatesHeard]),
            Consequence::Settle(id) => self.settle(id),
            Consequence::Commanded(request, index, check) => self.tell_command(request, index, check),
        }
    }
}
