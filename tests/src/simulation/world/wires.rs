//! The links of a world: dialled, opened, carrying frames, fallen silent, gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use master::fleet::ConnectionId;
use satellite::link::LANE_QUEUE_FRAMES;
use satellite::link::backoff::{self, Road};
use shared::delivery::{Key, decode_header};
use shared::frame::Lane;
use shared::message::{self, FRAME_BYTES_MAX, ToMaster, ToSatellite};
use shared::name::{CheckId, InstanceId, Slot};
use shared::time::Monotonic;

use super::headquarters::first_word;
use super::{CONNECT, Event, World, nanos};
use crate::simulation::before;
use crate::simulation::network::{Frame, IDLE, Link, Roads, Way, passage};
use crate::simulation::secret;
use crate::simulation::site::Site;

/// As many satellites as a world has at most.
const SATELLITES_MAX: usize = 8;

impl World {
    pub(in crate::simulation) fn links_of(&self, id: InstanceId) -> Vec<u64> {
        self.links
            .iter()
            .filter(|(_, link)| link.instance == id && link.satellite_open)
            .map(|(link, _)| *link)
            .collect()
    }

    pub(in crate::simulation) fn roads(&mut self, id: InstanceId) -> Roads {
        let volume = self.sites.get(&id).map_or(usize::MAX, |site| site.volume);
        self.roads.get(&volume).copied().unwrap_or_default()
    }

    pub(in crate::simulation) fn dial(&mut self, id: InstanceId) {
        if !self.links_of(id).is_empty() || self.sites.get(&id).is_none_or(|site| site.ends_by.is_some()) {
            return;
        }
        let roads = self.roads(id);
        let reachable = !roads.up.is_cut(self.now) && !roads.down.is_cut(self.now) && !self.master_pauses();
        if self.is_denied(id) {
            self.witness.reach("a denied satellite is turned away");
            return self.dial_again(id, self.plan.delay * 4, false);
        }
        match &self.master {
            Some(master) if reachable => {
                let epoch = master.epoch;
                self.after(self.plan.delay * 4, Event::Opened(id, epoch));
            }
            _ => self.dial_again(id, CONNECT, true),
        }
    }

    /// A link or an attempt has ended. `silent`: because nothing came back at all.
    pub(in crate::simulation) fn dial_again(&mut self, id: InstanceId, after: Duration, silent: bool) {
        let part = self.chance.part();
        let Some(site) = self.sites.get_mut(&id) else { return };
        let served = std::mem::take(&mut site.served);
        site.failures = if served { 1 } else { site.failures.saturating_add(1) };
        site.linked_before |= served;
        let road = Road::of(silent, site.linked_before);
        let longest = backoff::longest(site.failures);
        match road {
            Road::Cut if longest >= backoff::KNOCK => self.witness.reach("a road that is cut is knocked at"),
            Road::Silent if longest >= backoff::BACKOFF_MAX => {
                self.witness.reach("a road that never answered is tried once a minute");
            }
            _ => {}
        }
        let wait = after + backoff::pause(road, site.failures, part);
        self.after(wait, Event::Dial(id));
    }

    pub(in crate::simulation) fn opened(&mut self, id: InstanceId, epoch: u64) {
        let roads = self.roads(id);
        let cut =
            roads.up.is_cut(self.now) || roads.down.is_cut(self.now) || self.master_pauses() || self.is_denied(id);
        let Some(master) = self.master.as_mut().filter(|master| master.epoch == epoch && !cut) else {
            return self.dial_again(id, CONNECT, true);
        };
        let Some(site) = self.sites.get_mut(&id) else { return };
        site.served = false;
        site.unacknowledged.clear();
        self.connections += 1;
        let connection = ConnectionId(self.connections);
        master.links.insert(connection, self.connections);
        // One of the version before tells no states, and is taken to have nothing newer than it delivers.
        let told = if site.old { BTreeMap::new() } else { site.keys() };
        let link = Link {
            instance: id,
            slot: site.slot.clone(),
            epoch,
            connection,
            satellite_open: true,
            master_open: true,
            knew: Some((site.timeline(), told)),
            sent: 0,
            lanes: BTreeMap::new(),
        };
        let rivals = self.links.values().filter(|other| other.slot == link.slot && other.satellite_open);
        match rivals.count() {
            0 => {}
            1 => self.witness.reach("two processes of a slot are connected"),
            _ => self.witness.reach("three processes of a slot are connected"),
        }
        self.links.insert(self.connections, link);
        let there: BTreeSet<&Slot> =
            self.links.values().filter(|link| link.satellite_open).map(|link| &link.slot).collect();
        if there.len() == SATELLITES_MAX {
            self.witness.reach("eight satellites");
        }
        master.coordinator.handle_connected(
            connection,
            site.slot.clone(),
            "192.0.2.1:1".to_owned(),
            Monotonic(self.now),
        );
        let now = site.now(self.now);
        site.scheduler.handle_connected(now);
        self.look_later(id, self.connections);
        self.drain(id);
        self.drain_master();
    }

    /// Once nothing goes wrong any more: what a process knows 45 s after its link was made, the master must know at 60 s.
    pub(in crate::simulation) fn look_later(&mut self, id: InstanceId, link: u64) {
        // One of the version before tells no states: what it knows is shown when its backlog is in.
        if self.calm && self.sites.get(&id).is_some_and(|site| !site.old) {
            self.after(Duration::from_secs(45), Event::Look(id, link));
        }
    }

    /// Both ends are there, and nothing on the way is still held up by a cut that has ended.
    fn is_whole(&self, id: InstanceId, link: u64) -> bool {
        let soon = self.now + nanos(Duration::from_secs(5));
        self.links.get(&link).is_some_and(|link| {
            let flows = link.lanes.values().flatten().all(|frame| frame.arrival <= soon);
            link.instance == id && link.satellite_open && link.master_open && flows
        })
    }

    pub(in crate::simulation) fn look(&mut self, id: InstanceId, link: u64) {
        if self.is_whole(id, link)
            && let Some(site) = self.sites.get(&id)
        {
            let keys = site.keys();
            self.after(Duration::from_secs(15), Event::Compare(id, link, keys));
        } else if self.links.contains_key(&link) {
            self.look_later(id, link);
        }
    }

    pub(in crate::simulation) fn compare(&mut self, id: InstanceId, link: u64, keys: &BTreeMap<CheckId, Key>) {
        if self.is_whole(id, link)
            && let (Some(site), Some(master)) = (self.sites.get(&id), &self.master)
        {
            self.witness.known_for_long(&site.slot, id, keys, master.coordinator.published());
        }
    }

    pub(in crate::simulation) fn send_up(&mut self, id: InstanceId, lane: Lane, payload: Bytes) {
        let Some(link) = self.links_of(id).pop() else { return };
        if lane != Lane::Control {
            self.count_unacknowledged(id, lane, &payload);
            let queue = self.links.get(&link).and_then(|link| link.lanes.get(&(Way::Up, lane)));
            if queue.is_some_and(|queue| queue.len() >= LANE_QUEUE_FRAMES) {
                // As the program does: what the link cannot take is sent again on the next one.
                self.after(self.plan.delay, Event::Gone(link, Way::Up));
                return self.after(Duration::ZERO, Event::Gone(link, Way::Down));
            }
        }
        let old = lane == Lane::Control && self.sites.get(&id).is_some_and(|site| site.old);
        if let Some(payload) = if old { before::said(&payload) } else { Some(payload) } {
            self.send(link, Way::Up, lane, payload);
        }
    }

    /// No more is under way without an acknowledgement than the window of its lane holds (I9).
    fn count_unacknowledged(&mut self, id: InstanceId, lane: Lane, payload: &[u8]) {
        let (Some(site), Ok((header, _))) = (self.sites.get_mut(&id), decode_header(payload)) else { return };
        let told = &site.told;
        let sent = site.unacknowledged.entry(lane).or_default();
        sent.retain(|(run, last)| told.get(run).is_none_or(|told| told < last));
        sent.push((header.run, header.last.0));
        let (count, most) = (sent.len(), self.plan.window);
        if count > most {
            self.witness.violated("I9", format!("{count} batches of one lane are unacknowledged, at most {most}"));
        } else if count == most {
            self.witness.reach("a window is full");
        }
    }

    pub(in crate::simulation) fn send(&mut self, number: u64, way: Way, lane: Lane, payload: Bytes) {
        self.trace.decided(self.now, number, &payload);
        if payload.len() > FRAME_BYTES_MAX {
            self.witness.violated("I9", format!("a frame of {} bytes", payload.len()));
        }
        if way == Way::Up && lane == Lane::Control && secret::tells(&payload) {
            self.witness.violated("I15", "what a check was asked with is told to the master".to_owned());
        }
        self.line(|| format!("link {number} {way:?} {lane:?}: {}", told_frame(way, lane, &payload)));
        let Some(instance) = self.links.get(&number).map(|link| link.instance) else { return };
        let volume = self.sites.get(&instance).map_or(usize::MAX, |site| site.volume);
        let road = self.roads.get(&volume).copied().unwrap_or_default();
        let road = if way == Way::Up { road.up } else { road.down };
        let passage = passage(&road, lane, payload.len(), self.now, self.plan.delay, &mut self.chance);
        self.packets_hit(volume, &passage);
        if passage.hastened > 0 {
            self.witness.reach("a packet comes twice and counts once");
        }
        let arrival = self.now.max(if road.is_cut(self.now) { road.cut_until } else { 0 }) + passage.takes;
        let Some(link) = self.links.get_mut(&number) else { return };
        link.sent += 1;
        let number_in_link = link.sent;
        let queue = link.lanes.entry((way, lane)).or_default();
        let arrival = match queue.back() {
            Some(before) if before.arrival > arrival => {
                if before.lost {
                    self.witness.reach("a stream waits for a packet that was lost");
                }
                before.arrival
            }
            _ => arrival,
        };
        queue.push_back(Frame { arrival, number: number_in_link, lost: passage.lost > 0, payload });
        self.at(arrival, Event::Arrive(number, way, lane));
    }

    /// Batches that come out of the order in which they were sent: from the other stream, from the link before, a second time.
    fn count_order(&mut self, number: u64, lane: Lane, sent: u64, payload: &[u8]) {
        let (Some(link), Ok((header, _))) = (self.links.get(&number), decode_header(payload)) else { return };
        if link.is_overtaking(lane, sent) {
            self.witness.reach("a batch overtakes one of the other stream");
        }
        let newest = self.newest_heard.entry(link.instance).or_default();
        if number < *newest {
            self.witness.reach("batches of two links of one process come in turn");
        }
        *newest = number.max(*newest);
        let (up_to, on) = self.heard.entry(header.run).or_default();
        if header.first.0 <= *up_to && *on != number {
            self.witness.reach("a batch comes again on another link");
        }
        (*up_to, *on) = (header.last.0.max(*up_to), number);
    }

    pub(in crate::simulation) fn arrive(&mut self, number: u64, way: Way, lane: Lane) {
        let Some(link) = self.links.get_mut(&number) else { return };
        let open = if way == Way::Up { link.master_open } else { link.satellite_open };
        if !open {
            link.lanes.remove(&(way, lane));
            return;
        }
        let (id, connection, epoch, slot) = (link.instance, link.connection, link.epoch, link.slot.clone());
        let site = self.sites.get(&id);
        let mut road = self.roads.get(&site.map_or(usize::MAX, |site| site.volume)).copied().unwrap_or_default();
        let road = road.of(way);
        let later = if road.is_cut(self.now) {
            road.cut_until + nanos(self.plan.delay)
        } else if way == Way::Down && site.is_some_and(|site| site.paused_until > self.now) {
            site.map_or(0, |site| site.paused_until)
        } else if way == Way::Up && self.master.as_ref().is_some_and(|master| master.coordinator.is_saturated()) {
            self.now + 50_000_000
        } else {
            0
        };
        let Some(queue) = self.links.get_mut(&number).and_then(|link| link.lanes.get_mut(&(way, lane))) else { return };
        if later > self.now {
            return self.at(later, Event::Arrive(number, way, lane));
        }
        let Some(Frame { number: sent, payload, .. }) = queue.pop_front() else { return };
        if way == Way::Up
            && lane == Lane::Control
            && let Some((timeline, states)) = self.links.get_mut(&number).and_then(|link| link.knew.take())
        {
            self.witness.linked(id, number, timeline, states);
        }
        if way == Way::Up && lane != Lane::Control {
            self.count_order(number, lane, sent, &payload);
        }
        match way {
            Way::Up => {
                let at = self.wall();
                let Some(master) = self.master.as_mut().filter(|master| master.epoch == epoch) else { return };
                let account = match lane {
                    Lane::Control => {
                        message::decode::<ToMaster>(&payload).unwrap_or_default().iter().try_for_each(|said| {
                            match said {
                                ToMaster::Wanted(_) => self.witness.reach("a satellite asks for credit"),
                                ToMaster::Returned(_) => self.witness.reach("a satellite gives credit back"),
                                _ => {}
                            }
                            self.purse.heard(number, said)
                        })
                    }
                    Lane::Live | Lane::Backlog => self.purse.arrived(number, lane, &slot, &payload),
                };
                let honest = self.sites.contains_key(&id);
                if let Err(overspent) = account {
                    if honest {
                        self.witness.violated("I9", overspent);
                    } else {
                        self.witness.reach("who sends beyond its credit is cut off");
                    }
                }
                match lane {
                    Lane::Control => master.coordinator.handle_control(connection, &payload, Monotonic(self.now), at),
                    Lane::Live | Lane::Backlog => {
                        if lane == Lane::Backlog {
                            self.witness.reach("backlog");
                        }
                        master.coordinator.handle_batch(connection, lane, payload.to_vec(), Monotonic(self.now), at);
                    }
                }
                self.drain_master();
                if self.purse.tolerated() {
                    self.witness.violated("I9", format!("link {number} sends beyond its credit and stays"));
                }
            }
            Way::Down => {
                let Some(site) = self.sites.get_mut(&id) else { return };
                site.served = true;
                let now = site.now(self.now);
                for message in message::decode::<ToSatellite>(&payload).unwrap_or_default() {
                    if site.old && !before::understood(&message) {
                        continue;
                    }
                    if let ToSatellite::Welcome(welcome) = &message {
                        self.witness.welcomed(id, welcome.timeline);
                    }
                    match &message {
                        ToSatellite::Ack(ack) => {
                            site.told.insert(ack.run, ack.position.0);
                        }
                        ToSatellite::CloseRun(run) => {
                            site.told.insert(*run, u64::MAX);
                        }
                        ToSatellite::Welcome(welcome) => {
                            site.told = welcome.positions.iter().map(|at| (at.run, at.position.0)).collect();
                        }
                        _ => {}
                    }
                    match &message {
                        ToSatellite::Fence if site.ends_by.is_some() => {
                            self.witness.reach("a process is fenced while it ends");
                        }
                        ToSatellite::Fence => self.witness.reach("a process is fenced"),
                        ToSatellite::Welcome(welcome) if welcome.holder && site.scheduler.status(now).fenced => {
                            self.witness.reach("a process has its slot back");
                        }
                        ToSatellite::Welcome(welcome) if !welcome.holder => self.witness.reach("a claim is refused"),
                        _ => {}
                    }
                    let command =
                        if let ToSatellite::Command(command) = &message { Some(command.clone()) } else { None };
                    let known = |site: &Site| {
                        let check = command.as_ref().map(|command| command.check);
                        check.and_then(|check| site.scheduler.states().get(&check)).copied()
                    };
                    let reassigns = matches!(message, ToSatellite::AssignmentEnd(_));
                    let (before, made) = (known(site), site.scheduler.status(now).results);
                    site.scheduler.handle_message(now, message);
                    if let Some(command) = &command {
                        let made = site.scheduler.status(now).results - made;
                        self.witness.obeys(id, command, before, known(site), made);
                    }
                    if reassigns {
                        self.witness.knows(id, site.timeline(), site.scheduler.states());
                    }
                }
                self.drain(id);
            }
        }
    }

    /// What a fault holds back on its way is sent once more, and comes as from a healthy road.
    pub(in crate::simulation) fn hurry(&mut self) {
        let soon = self.now + nanos(self.plan.delay);
        for frame in self.links.values_mut().flat_map(|link| link.lanes.values_mut()).flatten() {
            frame.arrival = soon.min(frame.arrival);
        }
        let behind = self.events.split_off(&(soon, u64::MAX));
        for ((at, order), event) in behind {
            let at = if matches!(event, Event::Arrive(..)) { soon } else { at };
            self.events.insert((at, order), event);
        }
    }

    /// A way was cut so long ago that whoever listens at its end gives up.
    pub(in crate::simulation) fn silence(&mut self, number: u64, way: Way) {
        let Some(link) = self.links.get(&number) else { return };
        let volume = self.sites.get(&link.instance).map_or(usize::MAX, |site| site.volume);
        let mut roads = self.roads.get(&volume).copied().unwrap_or_default();
        let road = roads.of(way);
        if road.is_cut(self.now) && self.now.saturating_sub(road.cut_since) >= nanos(IDLE) {
            self.gone(number, way, true);
            // Whose words were not heard is not told; it hears nothing from now on either.
            let other = if way == Way::Up { Way::Down } else { Way::Up };
            self.after(IDLE, Event::Lapsed(number, other));
        }
    }

    /// An end of a link is there no more. `silent`: because nothing came.
    pub(in crate::simulation) fn gone(&mut self, number: u64, end: Way, silent: bool) {
        let Some(link) = self.links.get_mut(&number) else { return };
        let (id, connection, epoch) = (link.instance, link.connection, link.epoch);
        match end {
            Way::Up if std::mem::take(&mut link.master_open) => {
                self.purse.closed(number, false);
                if let Some(master) = self.master.as_mut().filter(|master| master.epoch == epoch) {
                    master.links.remove(&connection);
                    master.coordinator.handle_disconnected(connection);
                    self.drain_master();
                }
            }
            Way::Down if std::mem::take(&mut link.satellite_open) => {
                let Some(site) = self.sites.get_mut(&id) else { return };
                let now = site.now(self.now);
                if !site.scheduler.status(now).connected {
                    self.witness.reach("a link dies before its hello is answered");
                }
                site.scheduler.handle_disconnected(now);
                self.drain(id);
                self.dial_again(id, Duration::ZERO, silent);
            }
            _ => {}
        }
        if self.links.get(&number).is_some_and(|link| !link.master_open && !link.satellite_open) {
            self.links.remove(&number);
        }
    }
}

/// A frame in a few words.
fn told_frame(way: Way, lane: Lane, payload: &[u8]) -> String {
    let told = |words: Vec<String>| words.join(", ");
    match (way, lane) {
        (Way::Up, Lane::Live | Lane::Backlog) => match decode_header(payload) {
            Ok((header, _)) => format!("{} {}..={}", header.run, header.first, header.last),
            Err(error) => error.to_string(),
        },
        (Way::Up, Lane::Control) => {
            let messages = message::decode::<ToMaster>(payload).unwrap_or_default();
            let word = |message: &ToMaster| match message {
                ToMaster::State(state) => format!("State of {} {}", state.check, told_key(state.key)),
                other => first_word(&format!("{other:?}")),
            };
            told(messages.iter().map(word).collect())
        }
        (Way::Down, _) => {
            let messages = message::decode::<ToSatellite>(payload).unwrap_or_default();
            told(
                messages
                    .iter()
                    .map(|message| match message {
                        ToSatellite::Ack(ack) => format!("Ack {} {}", ack.run, ack.position),
                        ToSatellite::CloseRun(run) => format!("CloseRun {run}"),
                        ToSatellite::Welcome(welcome) => format!("Welcome holder: {}", welcome.holder),
                        ToSatellite::AssignmentUpsert(check) => {
                            let carried = check.carried.map(|carried| told_key(carried.key)).unwrap_or_default();
                            format!("Upsert {} under {} {carried}", check.id, check.grant)
                        }
                        other => first_word(&format!("{other:?}")),
                    })
                    .collect(),
            )
        }
    }
}

fn told_key(key: Key) -> String {
    format!("({} {} {})", key.grant, key.counter, key.sequence)
}
