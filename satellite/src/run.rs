//! The loop: builds the rooms bottom-up, then carries the brain's orders to them and what happens back to it. Reads the clocks; the
//! only room that knows all others. Decides nothing but how a process begins and ends.
//! The surprise: nothing in the loop waits for a disk, a probe or the link; each has its own queue, bounded by the brain.
#![expect(clippy::disallowed_methods, reason = "the shell: it reads the clocks and waits")]

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use serde::Serialize;
use shared::check::{Exit, Outcome, State};
use shared::frame::Lane;
use shared::identity;
use shared::message::{self, ToSatellite};
use shared::name::{InstallationId, Slot};
use shared::refusal::Refusals;
use shared::time::Monotonic;
use shared::wall;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Now;
use crate::command::{Beginning, Command, Identity, ProbeId};
use crate::link::{self, LinkEvent, LinkHandle, SendError};
use crate::probe::nrpe::counters::Figures;
use crate::probe::{self, Prober};
use crate::process::{descriptors, orphans};
use crate::scheduler::{Scheduler, Status};
use crate::settings::{Misuse, Run};
use crate::spool::{self, Answer, Order, Spool};

/// What the volume's other directories hold is looked at this often.
pub const SURVEY_EVERY: Duration = Duration::from_secs(10);
/// The status file is this old at most.
pub const STATUS_EVERY: Duration = Duration::from_secs(1);
/// A missing certificate is looked for this often.
const IDENTITY_EVERY: Duration = Duration::from_secs(1);
/// A volume that cannot be opened is tried this often.
const VOLUME_EVERY: Duration = Duration::from_secs(1);
/// An ending process waits this long for probes, disk and acknowledgements; what is not done then stays in the spool.
const SETTLE_WITHIN: Duration = Duration::from_millis(3500);
/// And this long for the disk to finish what it was ordered.
const DISK_WITHIN: Duration = Duration::from_secs(1);
/// After words from the master that cannot be read, the link is made anew this much later.
const NONSENSE_WAIT: Duration = Duration::from_secs(5);
/// Events of the link waiting for the loop; then the link waits, and with it the master.
const EVENTS_MAX: usize = 64;
/// Files and sockets beside those of checks: runtime, link, log, and the volume, where every run that is adopted or read is a few.
const OWN_DESCRIPTORS: usize = 256;

/// Both clocks of this process.
struct Clocks {
    began: Instant,
}

impl Clocks {
    fn now(&self) -> Now {
        let monotonic = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Now { monotonic: Monotonic(monotonic), wall: wall::now() }
    }
}

/// The task that keeps the link, and what it tells.
struct Linking {
    settings: link::Settings,
    refusals: Arc<Refusals>,
    events: mpsc::Receiver<LinkEvent>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    handle: Option<LinkHandle>,
}

impl Linking {
    fn start(settings: link::Settings, refusals: Arc<Refusals>, wait: Duration) -> Self {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let stop = CancellationToken::new();
        let (to, counts, token) = (settings.clone(), Arc::clone(&refusals), stop.clone());
        let task = tokio::spawn(async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = tokio::time::sleep(wait) => link::run(to, sender, counts, token.clone()).await,
            }
        });
        Self { settings, refusals, events, stop, task, handle: None }
    }

    /// Ends the present connection and makes another, later.
    fn again(&mut self) {
        self.stop.cancel();
        let settings = link::Settings { linked_before: true, ..self.settings.clone() };
        *self = Self::start(settings, Arc::clone(&self.refusals), NONSENSE_WAIT);
    }

    async fn end(self) {
        self.stop.cancel();
        drop(self.events);
        if let Err(error) = self.task.await {
            tracing::error!("the link ended badly: {error}");
        }
    }
}

/// Runs until `stop`.
///
/// # Errors
/// When the process cannot begin or its volume is gone for good; [`Misuse`] when it was told what cannot be.
pub async fn run(settings: Run, stop: CancellationToken) -> Result<()> {
    let clocks = Clocks { began: Instant::now() };
    orphans::collect();
    descriptors::raise(probe::DESCRIPTORS + OWN_DESCRIPTORS);
    if let Some(file) = wall::offset_file() {
        tracing::warn!(
            "for tests: this satellite's clock is off by what {} says ({})",
            file.display(),
            wall::OFFSET_FILE
        );
    }
    let certificates = settings.identity();
    let Some((installation, slot)) = identify(&settings, &certificates, &stop).await? else { return Ok(()) };
    let identity = Identity {
        installation,
        slot,
        instance: spool::new_instance(),
        software: env!("CARGO_PKG_VERSION").to_owned(),
    };
    tracing::info!(slot = %identity.slot, installation = %identity.installation, instance = %identity.instance, "satellite starts");

    let Some((spool, beginning)) = open_volume(&settings, &identity, &stop).await? else { return Ok(()) };
    let disk = spool::start(spool);
    let prober = Arc::new(Prober::new().context("the prober cannot be set up")?.with_plugins(settings.plugins.clone()));
    let link_settings = link::Settings {
        masters: settings.master.clone(),
        certificates,
        congestion: settings.congestion,
        // Only a master gives assignments: who finds one had a link, maybe in a process before this one.
        linked_before: beginning.kept.is_some(),
    };
    let linking = Linking::start(link_settings, Arc::default(), Duration::ZERO);
    let scheduler = Scheduler::new(identity, beginning, clocks.now()).with_limits(settings.limits());
    let mut shell = Shell {
        clocks,
        scheduler,
        prober,
        probes: JoinSet::new(),
        probing: HashMap::new(),
        orders: VecDeque::new(),
        disk,
        linking,
    };
    shell.serve(&stop).await?;
    shell.end().await;
    Ok(())
}

/// Whose certificate lies there; waits for one. `None`: told to stop meanwhile.
async fn identify(
    settings: &Run,
    certificates: &Path,
    stop: &CancellationToken,
) -> Result<Option<(InstallationId, Slot)>> {
    let mut told = false;
    let leaf = loop {
        match link::tls::identity(certificates) {
            Ok(Some(leaf)) => break leaf,
            Ok(None) => {}
            Err(error) => return Err(Misuse(format!("{error:#}")).into()),
        }
        if !told {
            let file = certificates.join("slot.crt");
            tracing::warn!("waiting for {}: `perigee-master certificate` makes it", file.display());
            told = true;
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = tokio::time::sleep(IDENTITY_EVERY) => {}
        }
    };
    let identity::Identity::Slot { installation, region, slot } = leaf.identity else {
        return Err(Misuse(format!("{} is no slot's", certificates.display())).into());
    };
    let shown = Slot { region, number: slot };
    let region_differs = settings.region.as_ref().is_some_and(|region| *region != shown.region);
    let slot_differs = settings.slot.is_some_and(|number| number != shown.number);
    if region_differs || slot_differs {
        let told = |given: Option<String>| given.unwrap_or_else(|| "any".to_owned());
        return Err(Misuse(format!(
            "the certificate in {} is for region {} slot {}, but this satellite is told to be region {} slot {}: give it that \
             slot's certificate, or change PERIGEE_REGION and PERIGEE_SLOT",
            certificates.display(),
            shown.region,
            shown.number,
            told(settings.region.as_ref().map(ToString::to_string)),
            told(settings.slot.map(|slot| slot.to_string())),
        ))
        .into());
    }
    Ok(Some((installation, shown)))
}

/// Opens the volume; waits where it is full or its disk refuses, which may pass. `None`: told to stop meanwhile.
async fn open_volume(
    settings: &Run,
    identity: &Identity,
    stop: &CancellationToken,
) -> Result<Option<(Spool, Beginning)>> {
    loop {
        let (data, own, limits) = (settings.data.clone(), identity.clone(), settings.limits());
        let opened = tokio::task::spawn_blocking(move || Spool::open(&data, &own, &limits))
            .await
            .context("the volume was not opened")?;
        let error = match opened {
            Ok(opened) => return Ok(Some(opened)),
            Err(error) => error,
        };
        let place = settings.data.display();
        if !spool::may_pass(&error) {
            return Err(error).with_context(|| format!("the data directory {place} cannot be used"));
        }
        tracing::error!("waiting for the data directory {place}: {error:#}");
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = tokio::time::sleep(VOLUME_EVERY) => {}
        }
    }
}

struct Shell {
    clocks: Clocks,
    scheduler: Scheduler,
    prober: Arc<Prober>,
    probes: JoinSet<Outcome>,
    probing: HashMap<tokio::task::Id, ProbeId>,
    /// Orders for which the disk has no room yet; the brain never has more than a few open.
    orders: VecDeque<Order>,
    disk: spool::Desk,
    linking: Linking,
}

impl Shell {
    async fn serve(&mut self, stop: &CancellationToken) -> Result<()> {
        let disk = self.disk.orders.clone();
        let mut status = tokio::time::interval(STATUS_EVERY);
        let mut survey = tokio::time::interval(SURVEY_EVERY);
        status.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        survey.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut end_by: Option<Instant> = None;
        loop {
            while let Some(command) = self.scheduler.poll_command() {
                self.carry(command);
            }
            if let Some(end_by) = end_by
                && (self.scheduler.is_settled() || Instant::now() >= end_by)
            {
                return Ok(());
            }
            let deadline = self.scheduler.poll_timeout().map(|at| self.clocks.began + Duration::from_nanos(at.0));
            let wake = [deadline, end_by].into_iter().flatten().min();
            tokio::select! {
                permit = disk.reserve(), if !self.orders.is_empty() => {
                    let permit = permit.ok().context("the volume's thread has ended")?;
                    if let Some(order) = self.orders.pop_front() {
                        permit.send(order);
                    }
                }
                answer = self.disk.answers.recv() => {
                    let (answer, room) = answer.context("the volume's thread has ended")?;
                    self.scheduler.handle_room(self.clocks.now(), room);
                    self.answered(answer);
                }
                Some(ended) = self.probes.join_next_with_id() => self.probed(ended),
                event = self.linking.events.recv() => match event {
                    Some(event) => self.linked(event),
                    None => bail!("the link's task has ended"),
                },
                () = sleep_until(wake), if wake.is_some() => self.scheduler.handle_timeout(self.clocks.now()),
                _ = status.tick() => self.tell(),
                _ = survey.tick() => self.orders.push_back(Order::Survey),
                () = stop.cancelled(), if end_by.is_none() => {
                    tracing::info!("told to stop: nothing new starts, what runs is brought to its end");
                    end_by = Some(Instant::now() + SETTLE_WITHIN);
                    self.scheduler.handle_shutdown(self.clocks.now());
                }
            }
        }
    }

    /// Nothing more is decided: link and disk finish what they have.
    async fn end(self) {
        let Shell { probes, orders, disk, linking, .. } = self;
        drop(probes);
        linking.end().await;
        let spool::Desk { orders: sender, mut answers, thread } = disk;
        let finish = async {
            for order in orders {
                if sender.send(order).await.is_err() {
                    break;
                }
            }
            drop(sender);
            while answers.recv().await.is_some() {}
            thread.await
        };
        match tokio::time::timeout(DISK_WITHIN, finish).await {
            Ok(Ok(())) => tracing::info!("satellite ends"),
            Ok(Err(error)) => tracing::error!("the volume's thread ended badly: {error}"),
            Err(_) => tracing::error!("the volume did not finish in time"),
        }
    }

    fn carry(&mut self, command: Command) {
        match command {
            Command::Probe { probe, check } => {
                let prober = Arc::clone(&self.prober);
                let task = self.probes.spawn(async move {
                    let object = check.object.to_string();
                    match &check.check {
                        Some(question) => prober.probe(&object, question, check.policy.timeout()).await,
                        None => failed("nothing to ask"),
                    }
                });
                self.probing.insert(task.id(), probe);
            }
            Command::Send { lane, payload } => self.send(lane, payload),
            order => self.orders.push_back(Order::Do(order)),
        }
    }

    fn send(&mut self, lane: Lane, payload: Bytes) {
        let Some(handle) = &self.linking.handle else { return };
        match handle.send(lane, payload) {
            // What was not taken is sent again on the next connection.
            Ok(()) | Err(SendError::Closed) => {}
            Err(error) => {
                tracing::error!(?lane, "the link is made anew: {error}");
                self.relink();
            }
        }
    }

    fn relink(&mut self) {
        self.linking.again();
        self.scheduler.handle_disconnected(self.clocks.now());
    }

    fn probed(&mut self, ended: Result<(tokio::task::Id, Outcome), tokio::task::JoinError>) {
        let (task, outcome) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                tracing::error!("a probe ended badly: {error}");
                (error.id(), failed("this satellite's probe broke off; its log says more"))
            }
        };
        if let Some(probe) = self.probing.remove(&task) {
            self.scheduler.handle_outcome(self.clocks.now(), probe, outcome);
        }
    }

    fn answered(&mut self, answer: Answer) {
        let now = self.clocks.now();
        let scheduler = &mut self.scheduler;
        match answer {
            Answer::Opened { run, counter } => scheduler.handle_opened(now, run, counter),
            Answer::OpenFailed => scheduler.handle_open_failed(now),
            Answer::Appended { run, up_to } => {
                tracing::debug!(target: "perigee::durable", %run, position = up_to.0);
                scheduler.handle_appended(now, run, up_to);
            }
            Answer::AppendFailed => scheduler.handle_append_failed(now),
            Answer::Read { read, found } => scheduler.handle_read(now, read, &found),
            Answer::ReadFailed { read } => scheduler.handle_read_failed(now, read),
            Answer::Trimmed { run, first } => scheduler.handle_trimmed(run, first),
            Answer::Measured { extents } => scheduler.handle_measured(now, &extents),
            Answer::GivenUp { run, up_to, lost } => scheduler.handle_given_up(now, run, up_to, lost),
            Answer::GiveUpFailed => scheduler.handle_give_up_failed(now),
            Answer::Kept => scheduler.handle_kept(now),
            Answer::KeepFailed => scheduler.handle_keep_failed(now),
            Answer::StatesKept => scheduler.handle_states_kept(now),
            Answer::StatesFailed => scheduler.handle_states_failed(now),
            Answer::Neighbours { alive, adopted } => scheduler.handle_neighbours(now, alive, adopted),
        }
    }

    fn linked(&mut self, event: LinkEvent) {
        let now = self.clocks.now();
        match event {
            LinkEvent::Connected { link, .. } => {
                self.linking.handle = Some(link);
                self.scheduler.handle_connected(now);
            }
            LinkEvent::Disconnected { .. } => {
                self.linking.handle = None;
                self.scheduler.handle_disconnected(now);
            }
            LinkEvent::Frame(frame) => match message::decode::<ToSatellite>(&frame) {
                Ok(messages) => {
                    for message in messages {
                        match &message {
                            ToSatellite::Ack(ack) => {
                                tracing::debug!(target: "perigee::ack", run = %ack.run, position = ack.position.0);
                            }
                            ToSatellite::Welcome(welcome) => {
                                tracing::info!(holder = welcome.holder, master = welcome.software, "welcomed");
                                for at in &welcome.positions {
                                    tracing::debug!(target: "perigee::ack", run = %at.run, position = at.position.0);
                                }
                            }
                            ToSatellite::Fence => tracing::warn!("fenced: another process has this slot now"),
                            ToSatellite::AssignmentEnd(generation) => tracing::info!(%generation, "assigned"),
                            _ => {}
                        }
                        self.scheduler.handle_message(now, message);
                    }
                }
                Err(error) => {
                    tracing::error!("the master's words cannot be read, the link is made anew: {error}");
                    self.relink();
                }
            },
        }
    }

    fn tell(&mut self) {
        let status = self.scheduler.status(self.clocks.now());
        match serde_json::to_vec(&Told { status, nrpe: self.prober.nrpe().counters().figures() }) {
            Ok(status) => self.orders.push_back(Order::Tell(status)),
            Err(error) => tracing::warn!("the status is not told: {error}"),
        }
    }
}

/// What this process tells of itself.
#[derive(Serialize)]
struct Told {
    #[serde(flatten)]
    status: Status,
    nrpe: Figures,
}

async fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at.into()).await;
    }
}

/// An execution that failed on our side.
fn failed(text: &str) -> Outcome {
    let exit = Exit::Error("probe-broke-off".to_owned());
    Outcome::text(wall::now(), Duration::ZERO, exit, State::Unknown, text.to_owned())
}
