//! One identity: connects as a satellite does, says hello, beats, keeps to its credit, and comes back when its link ends, with the
//! satellite's own back-off. Has no checks, no disk and no brain.
#![expect(clippy::disallowed_methods, reason = "a shell room: it speaks over real sockets in real time")]

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream};
use satellite::link::CONNECT_DEADLINE;
use satellite::link::backoff::{self, Road};
use satellite::scheduler::HEARTBEAT_EVERY;
use shared::frame::{Lane, frame_head, split_frame};
use shared::message::{self, Heartbeat, Hello, LaneBytes, PROTOCOL, ToMaster, ToSatellite};
use shared::name::{CheckId, Generation, Grant, InstanceId, Sequence, Slot, Timeline};
use shared::time::Timestamp;
use tokio::sync::{mpsc, watch};

use super::backlog::{Backlog, Owned, wanted};
use super::{Crowd, Offer};

/// Bytes taken off the control stream at once.
const READ_BYTES: usize = 64 * 1024;

/// What an identity remembers from one link to the next.
#[derive(Debug, Default)]
struct Memory {
    owned: Option<Owned>,
    timeline: Timeline,
    generation: Generation,
    backlog: Option<Backlog>,
    position: Sequence,
    delivered: bool,
    /// The last sign of life is not answered yet.
    unanswered: bool,
}

/// One identity.
#[derive(Debug)]
pub(super) struct Voice {
    slot: Slot,
    instance: InstanceId,
    memory: Mutex<Memory>,
}

/// Nothing came back at all.
#[derive(Debug)]
struct Silent;

impl fmt::Display for Silent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no answer in time")
    }
}

impl std::error::Error for Silent {}

/// What the reading half tells the writing ones.
struct Told {
    backlog_credit: watch::Sender<u64>,
    welcomed: watch::Sender<bool>,
    control: mpsc::UnboundedSender<Vec<ToMaster>>,
}

impl Voice {
    pub(super) fn new(slot: Slot) -> Self {
        Self { slot, instance: InstanceId(rand::random()), memory: Mutex::default() }
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a link for ever.
    pub(super) async fn live(self, crowd: &Crowd, endpoint: &Endpoint) {
        let (mut failures, mut linked_before) = (0_u32, false);
        loop {
            let mut welcomed = false;
            let end = self.attempt(crowd, endpoint, &mut welcomed).await;
            if welcomed {
                crowd.counts.connected.fetch_sub(1, Ordering::Relaxed);
                failures = 0;
                linked_before = true;
            }
            failures = failures.saturating_add(1);
            let silent = end.as_ref().is_err_and(|error| error.is::<Silent>());
            let road = Road::of(silent, linked_before);
            crowd.ended(&end.map_or_else(|error| format!("{error:#}"), |()| "it ended by itself".to_owned()));
            tokio::time::sleep(backoff::pause(road, failures, rand::random())).await;
        }
    }

    async fn attempt(&self, crowd: &Crowd, endpoint: &Endpoint, welcomed: &mut bool) -> Result<()> {
        let config = crowd.authority.config(&self.slot)?;
        let master: SocketAddr = crowd.master;
        let connecting = endpoint.connect_with(config, master, &crowd.authority.master_name())?;
        let connection = match tokio::time::timeout(CONNECT_DEADLINE, connecting).await {
            Err(_) | Ok(Err(ConnectionError::TimedOut)) => bail!(Silent),
            Ok(connected) => connected?,
        };
        let (control, reading) = connection.open_bi().await?;
        // As a satellite: both lanes are opened at once.
        let mut lanes = Vec::with_capacity(2);
        for lane in [Lane::Live, Lane::Backlog] {
            let mut stream = connection.open_uni().await?;
            stream.write_all(&[lane.byte()]).await?;
            lanes.push(stream);
        }
        let backlog = lanes.pop().context("no backlog stream")?;
        let (control_sender, control_queue) = mpsc::unbounded_channel();
        let (credit_sender, credit) = watch::channel(0);
        let (welcomed_sender, greeted) = watch::channel(false);
        control_sender.send(vec![self.hello()])?;
        let told = Told { backlog_credit: credit_sender, welcomed: welcomed_sender, control: control_sender.clone() };
        tokio::select! {
            end = self.read(crowd, reading, &told, welcomed) => end,
            end = write(control, control_queue) => end,
            end = self.beat(crowd, greeted.clone(), control_sender.clone()) => end,
            end = self.deliver(crowd, greeted, control_sender, credit, backlog) => end,
            end = closed(&connection) => end,
        }
    }

    fn hello(&self) -> ToMaster {
        let memory = self.memory();
        ToMaster::Hello(Box::new(Hello {
            protocol: PROTOCOL,
            software: "storm".to_owned(),
            instance: self.instance,
            fenced: false,
            timeline: (memory.generation > Generation(0)).then_some(memory.timeline),
            grant: Grant(0),
            generation: memory.generation,
            check: CheckId(0),
            runs: memory.backlog.iter().map(Backlog::held).collect(),
            clock: now(),
            tells_states: false,
            credit: true,
        }))
    }

    async fn read(&self, crowd: &Crowd, mut stream: RecvStream, told: &Told, welcomed: &mut bool) -> Result<()> {
        let mut buffer = BytesMut::new();
        loop {
            while let Some(frame) = split_frame(&mut buffer)? {
                for message in message::decode::<ToSatellite>(&frame)? {
                    self.hear(crowd, message, told, welcomed)?;
                }
            }
            match stream.read_chunk(READ_BYTES, true).await? {
                Some(chunk) => buffer.extend_from_slice(&chunk.bytes),
                None => bail!("the control stream ended"),
            }
        }
    }

    fn hear(&self, crowd: &Crowd, message: ToSatellite, told: &Told, welcomed: &mut bool) -> Result<()> {
        let mut memory = self.memory();
        match message {
            ToSatellite::Welcome(welcome) => {
                ensure!(welcome.holder, "{} is another's", self.slot);
                memory.timeline = welcome.timeline;
                let run = memory.backlog.as_ref().map(|backlog| backlog.run);
                let known = welcome.positions.iter().find(|at| Some(at.run) == run);
                memory.position = known.map_or(memory.position, |at| at.position);
                *welcomed = true;
                crowd.counts.connected.fetch_add(1, Ordering::Relaxed);
                crowd.counts.welcomes.fetch_add(1, Ordering::Relaxed);
            }
            ToSatellite::AssignmentUpsert(check) => memory.owned = Some(Owned::of(&check)),
            ToSatellite::AssignmentEnd(generation) => {
                memory.generation = generation;
                told.control.send(vec![ToMaster::Applied(generation)])?;
                // From here on it knows what it owns.
                told.welcomed.send_replace(true);
            }
            ToSatellite::Credit(LaneBytes { lane: Lane::Backlog, bytes }) => {
                told.backlog_credit.send_replace(bytes);
            }
            ToSatellite::Ack(ack) => {
                let last = memory.backlog.as_ref().filter(|backlog| backlog.run == ack.run).map(Backlog::last);
                memory.position = memory.position.max(ack.position);
                if last.is_some_and(|last| ack.position >= last) && !std::mem::replace(&mut memory.delivered, true) {
                    crowd.counts.delivered.fetch_add(1, Ordering::Relaxed);
                }
            }
            ToSatellite::ClockReply(_) => {
                memory.unanswered = false;
                crowd.counts.replies.fetch_add(1, Ordering::Relaxed);
            }
            ToSatellite::Fence => bail!("{} was fenced", self.slot),
            _ => {}
        }
        Ok(())
    }

    /// A sign of life every five seconds, each identity at its own moment. One that has no answer when the next is due counts as lost.
    async fn beat(
        &self,
        crowd: &Crowd,
        mut welcomed: watch::Receiver<bool>,
        control: mpsc::UnboundedSender<Vec<ToMaster>>,
    ) -> Result<()> {
        welcomed.wait_for(|welcomed| *welcomed).await?;
        self.memory().unanswered = false;
        tokio::time::sleep(HEARTBEAT_EVERY.mul_f64(rand::random())).await;
        loop {
            if std::mem::replace(&mut self.memory().unanswered, true) {
                crowd.counts.beats_lost.fetch_add(1, Ordering::Relaxed);
            }
            control.send(vec![ToMaster::Heartbeat(Heartbeat { clock: now(), ..Heartbeat::default() })])?;
            crowd.counts.beats.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(HEARTBEAT_EVERY).await;
        }
    }

    /// Offers a backlog when the crowd is told to, and sends it as credit comes.
    async fn deliver(
        &self,
        crowd: &Crowd,
        mut welcomed: watch::Receiver<bool>,
        control: mpsc::UnboundedSender<Vec<ToMaster>>,
        mut credit: watch::Receiver<u64>,
        mut stream: SendStream,
    ) -> Result<()> {
        let mut offer = crowd.offer.subscribe();
        welcomed.wait_for(|welcomed| *welcomed).await?;
        let Offer { batches: count, pause, beyond_credit } = *offer.wait_for(|offer| offer.batches > 0).await?;
        let Some(owned) = self.memory().owned else { return std::future::pending().await };
        let rest = {
            let mut memory = self.memory();
            if memory.backlog.is_none() {
                let backlog = Backlog::new(owned, memory.timeline, memory.generation, count);
                crowd.offered(&backlog);
                control.send(vec![ToMaster::Held(backlog.held())])?;
                memory.backlog = Some(backlog);
            }
            let position = memory.position;
            memory.backlog.as_ref().map(|backlog| backlog.above(position)).unwrap_or_default()
        };
        if !beyond_credit {
            control.send(vec![wanted(&rest)])?;
        }
        let mut spent = 0;
        for batch in rest {
            spent += u64::try_from(batch.len())?;
            credit.wait_for(|given| beyond_credit || *given >= spent).await?;
            stream.write_all_chunks(&mut [Bytes::copy_from_slice(&frame_head(&batch)?), batch]).await?;
            tokio::time::sleep(pause.mul_f64(2.0 * rand::random::<f64>())).await;
        }
        std::future::pending().await
    }
}

async fn write(mut stream: SendStream, mut queue: mpsc::UnboundedReceiver<Vec<ToMaster>>) -> Result<()> {
    while let Some(messages) = queue.recv().await {
        for payload in message::encode(&messages) {
            let payload = Bytes::from(payload);
            stream.write_all_chunks(&mut [Bytes::copy_from_slice(&frame_head(&payload)?), payload]).await?;
        }
    }
    Ok(())
}

async fn closed(connection: &Connection) -> Result<()> {
    Err(connection.closed().await.into())
}

fn now() -> Timestamp {
    Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
}

/// How often a crowd is looked at while something is waited for.
pub(super) const LOOK: Duration = Duration::from_millis(100);
