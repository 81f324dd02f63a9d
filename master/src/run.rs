//! The master's loop and wiring: the one place that knows all rooms. Builds them bottom-up, binds listeners first, then feeds the
//! coordinator with what happens and does what it says. Decides nothing.
#![expect(clippy::disallowed_methods, reason = "the shell that reads the clocks and gives the time to the pure rooms")]

mod descriptors;
mod latency;
mod points;
mod revision;
mod writers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use shared::frame::Lane;
use shared::name::{JournalIndex, Slot, Timeline};
use shared::refusal::Refusal;
use shared::time::Monotonic;
use shared::wall;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::api::figure::as_value;
use crate::api::{self, Applied, Figure, Request};
use crate::config::Catalog;
use crate::coordinator::{Activation, Command, Commanding, Coordinator, Cut, Identity, NoteId, Obeyed, RequestId};
use crate::entry::Row;
use crate::history::History;
use crate::link::{self, CloseReason, LinkEvent, Links};
use crate::settings::Settings;
use crate::store::{self, Commit, Done, Store};
use crate::trust::{GivenCa, Trust};

use latency::Latency;
use revision::Compiled;
use writers::Writers;

/// Requests of the API that wait for the loop; the API answers 503 beyond it.
const REQUESTS_MAX: usize = 64;
/// Published groups that a slow reader of the event stream may lag behind before it must read the journal.
const ROWS_KEPT: usize = 4096;
/// How often the loop trims the journal and asks whether a checkpoint is due.
const HOUSEKEEPING: Duration = Duration::from_secs(5);
/// Messages taken in one turn before commands are drained: keeps groups large under load and turns short.
const EVENTS_A_TURN: usize = 256;

/// The process's clocks.
#[derive(Debug, Clone, Copy)]
struct Clock {
    origin: Instant,
}

impl Clock {
    fn now(self) -> Monotonic {
        self.at(Instant::now())
    }

    fn at(self, moment: Instant) -> Monotonic {
        let since = moment.saturating_duration_since(self.origin);
        Monotonic(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// Whoever waits for an activation or the end of an order.
enum Asker {
    /// The start itself: nobody waits, and without it nothing is checked.
    Start(Arc<Catalog>),
    /// An operator, by API or signal.
    Operator { compiled: Box<Compiled>, reply: Option<oneshot::Sender<Applied>> },
    /// Whoever ordered something about slots.
    Order(oneshot::Sender<Obeyed>),
    /// Whoever gave a command.
    Command(oneshot::Sender<Commanding>),
}

/// Runs the master until `shutdown`; `reload` asks for the configuration to be read again (SIGHUP).
///
/// # Errors
/// When a room cannot be built: a locked or damaged store, a port in use, a configuration with mistakes and nothing to resume.
pub async fn serve(settings: Settings, shutdown: CancellationToken, mut reload: mpsc::Receiver<()>) -> Result<()> {
    let clock = Clock { origin: Instant::now() };
    if let Some(file) = wall::offset_file() {
        tracing::warn!("for tests: the master's clock is off by what {} says ({})", file.display(), wall::OFFSET_FILE);
    }
    let software = env!("CARGO_PKG_VERSION").to_owned();
    let options = store::Options {
        new_installation: settings.new_installation,
        most_bytes: settings.journal_bytes,
        ring_bytes: store::JOURNAL_RING_BYTES.min(settings.journal_bytes),
        most_age: settings.journal_age,
        ..store::Options::default()
    };
    let data = settings.data.clone();
    let store::Opened { store, status, mut done, recovery } =
        tokio::task::spawn_blocking(move || store::open(&data, options)).await?.context("opening the store")?;
    tracing::info!(head = %status.head, replayed = recovery.replayed, "the state is there");
    let given = match (&settings.ca_certificate, &settings.ca_key) {
        (Some(certificate), Some(key)) => Some(GivenCa { certificate: certificate.clone(), key: key.clone() }),
        _ => None,
    };
    let trust = Arc::new(Trust::open(&settings.data, given.as_ref())?);
    let installation = trust.installation().clone();
    if status.installation.as_ref().is_some_and(|known| *known != installation) {
        bail!(
            "the journal in {} belongs to another installation than its CA; put the right one back",
            settings.data.display()
        );
    }

    // Everything fallible comes before anything is bound: a bad first configuration stops here.
    let first =
        if status.catalog.is_none() { Some(revision::compile_first(&settings.config, &store).await?) } else { None };
    let catalog = status.catalog.as_deref().or(first.as_deref());
    descriptors::look(catalog.map_or(0, |catalog| catalog.writers.len()));
    let running = status.digest.clone();
    let history = Arc::new(History::open(&settings.data, store.clone(), &status).context("opening the history")?);

    let (links, mut link_events, link_address) =
        link::listen(link::Settings { address: settings.link, trust: Arc::clone(&trust) }).await?;
    let timeline = Timeline(rand::random());
    let mut coordinator =
        Coordinator::new(Identity { installation, software }, status, timeline, clock.now(), wall::now());
    let (view_sender, view) = watch::channel(Arc::new(coordinator.view(clock.now())));
    let (rows, _) = broadcast::channel::<Arc<Vec<Row>>>(ROWS_KEPT);
    let (request_sender, mut requests) = mpsc::channel(REQUESTS_MAX);
    let (source_sender, source_differs) = watch::channel(None);
    let commits = Arc::new(Latency::default());
    let (gap_sender, mut gaps) = mpsc::channel(writers::GAPS_WAITING);
    let mut writers = Writers::new(store.clone(), view.clone(), gap_sender, shutdown.child_token());

    let inputs = api::Inputs {
        view: view.clone(),
        rows: rows.clone(),
        store: store.clone(),
        history: history.reader(),
        requests: request_sender.clone(),
        data: settings.data.clone(),
        figures: figures(links.clone(), writers.figures(), store.clone(), Arc::clone(&commits)),
        source_differs,
        started: wall::now(),
        clock: wall::now,
    };
    let listeners = api::Listeners {
        tcp: Some(settings.listen),
        tls: settings.tls_certificate.clone().zip(settings.tls_key.clone()),
        unix: settings.data.join(api::SOCKET),
        open_reads: settings.open_reads,
    };
    let api = api::serve(listeners, inputs, shutdown.child_token()).await?;
    tracing::info!(link = %link_address, web = ?api.tcp, "the master is ready");

    let (compiled_sender, mut compiled) = mpsc::channel::<revision::Brought>(REQUESTS_MAX);
    let mut asked: BTreeMap<RequestId, Asker> = BTreeMap::new();
    let mut last_request = 0_u64;
    let mut ask = |asked: &mut BTreeMap<RequestId, Asker>, asker| {
        last_request += 1;
        asked.insert(RequestId(last_request), asker);
        RequestId(last_request)
    };
    match first {
        Some(catalog) => {
            let request = ask(&mut asked, Asker::Start(Arc::clone(&catalog)));
            coordinator.handle_activation(request, &catalog, "start", wall::now());
            source_sender.send_replace(Some(false));
        }
        None => revision::compare_in_background(settings.config.clone(), running, source_sender.clone()),
    }

    let mut notes = 0_u64;
    let mut noting: BTreeMap<NoteId, oneshot::Sender<()>> = BTreeMap::new();
    let mut trimming: Option<tokio::task::JoinHandle<()>> = None;
    let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
    let mut checkpointed = clock.now();
    // When the oldest batch of the commit under way arrived, and how far the store's other work was when it was asked for.
    let mut committing = None;
    let hands = Hands { links: &links, rows: &rows, history: &history };
    loop {
        while let Some(command) = coordinator.poll_command(clock.now()) {
            match command {
                Command::Show(view) => {
                    writers.follow(view.status.catalog.as_deref());
                    view_sender.send_replace(view);
                }
                Command::Commit { record, last, since } => {
                    committing = since.map(|since| (since, store.tidying()));
                    if let Err(error) = store.append(Commit { record, last }) {
                        tracing::error!(%error, "a commit could not even be asked for");
                        coordinator.handle_commit_failed(clock.now());
                    }
                }
                Command::Answer { request, activation } => match asked.remove(&request) {
                    // Nobody would ask again: it is part of every commit until one is made.
                    Some(Asker::Start(catalog)) if activation == Activation::NotCommitted => {
                        tracing::error!("the first configuration is not in the journal yet; it is tried again");
                        let request = ask(&mut asked, Asker::Start(Arc::clone(&catalog)));
                        coordinator.handle_activation(request, &catalog, "start", wall::now());
                    }
                    asker => answer(asker, activation, &source_sender),
                },
                Command::Obeyed { request, obeyed } => {
                    if let Some(Asker::Order(reply)) = asked.remove(&request) {
                        // Whoever has gone away finds it among the events.
                        let _ = reply.send(obeyed);
                    }
                }
                // Untold, the writer asks again.
                Command::Noted { note, durable } => {
                    if let Some(recorded) = noting.remove(&note).filter(|_| durable) {
                        let _ = recorded.send(());
                    }
                }
                Command::Commanded { request, commanding } => {
                    if let Some(Asker::Command(reply)) = asked.remove(&request) {
                        // Whoever has gone away finds the command in history.
                        let _ = reply.send(commanding);
                    }
                }
                other => hands.act(other),
            }
        }
        let deadline = coordinator.poll_timeout();
        let until = Duration::from_nanos(deadline.0.saturating_sub(clock.now().0));
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(done) = done.recv() => match done {
                Done::Committed { .. } => {
                    if let Some((since, tidied)) = committing.take() {
                        commits.note(clock.now().since(since), store.tidying().since(tidied));
                    }
                    coordinator.handle_committed(wall::now());
                }
                Done::Failed { last, error } => {
                    tracing::error!(%last, %error, "a commit failed: nothing of it is acknowledged, satellites send again");
                    coordinator.handle_commit_failed(clock.now());
                }
            },
            Some(event) = link_events.recv(), if !coordinator.is_saturated() => {
                hear(&mut coordinator, event, clock);
                for _ in 1..EVENTS_A_TURN {
                    if coordinator.is_saturated() {
                        break;
                    }
                    let Ok(event) = link_events.try_recv() else { break };
                    hear(&mut coordinator, event, clock);
                }
            }
            Some(request) = requests.recv() => match request {
                Request::Apply { author, reply } => {
                    revision::compile_in_background(&settings.config, &store, compiled_sender.clone(), author, Some(reply));
                }
                Request::Order { order, author, reply } => {
                    let request = ask(&mut asked, Asker::Order(reply));
                    coordinator.handle_order(request, &order, &author, clock.now(), wall::now());
                }
                Request::Command { check, what, author, reply } => {
                    let request = ask(&mut asked, Asker::Command(reply));
                    coordinator.handle_command(request, check, what, &author, clock.now(), wall::now());
                }
            },
            Some(()) = reload.recv() => {
                tracing::info!("reading the configuration again, as asked by signal");
                revision::compile_in_background(&settings.config, &store, compiled_sender.clone(), "signal".to_owned(), None);
            }
            Some((result, author, reply)) = compiled.recv() => match result {
                Ok(compiled) => {
                    let catalog = Arc::clone(&compiled.catalog);
                    let compiled = compiled.against(coordinator.published().catalog.as_deref());
                    let request = ask(&mut asked, Asker::Operator { compiled: Box::new(compiled), reply });
                    coordinator.handle_activation(request, &catalog, &author, wall::now());
                }
                Err(applied) => {
                    source_sender.send_replace(Some(true));
                    revision::tell(applied, reply);
                }
            },
            Some(overrun) = gaps.recv() => {
                let gap = writers::entry(&overrun.gap, store.overran_by());
                if coordinator.published().lineage().names(&gap) {
                    // Recorded by a process before this one, which ended before the writer's cursor had passed it.
                    overrun.recorded.send(()).ok();
                } else {
                    notes += 1;
                    noting.insert(NoteId(notes), overrun.recorded);
                    coordinator.handle_writer_gap(NoteId(notes), gap, wall::now());
                }
            }
            _ = housekeeping.tick() => {
                // Looks at the cursors' files: a disk that hangs keeps one thread waiting, not one more every time.
                if trimming.as_ref().is_none_or(tokio::task::JoinHandle::is_finished) {
                    let trimmed = store.clone();
                    trimming = Some(tokio::task::spawn_blocking(move || trimmed.trim(wall::now())));
                }
                if store.checkpoint_due(clock.now().since(checkpointed)) {
                    checkpointed = clock.now();
                    store.checkpoint(Arc::clone(coordinator.published()));
                }
            }
            () = tokio::time::sleep(until) => coordinator.handle_timeout(clock.now(), wall::now()),
        }
    }

    tracing::info!("stopping");
    links.stop().await;
    writers.stop().await;
    api.task.await.ok();
    store.checkpoint(Arc::clone(coordinator.published()));
    // The last handles wait for the threads: what was begun is finished before the lock is free.
    tokio::task::spawn_blocking(move || drop((history, store, writers))).await?;
    Ok(())
}

fn hear(coordinator: &mut Coordinator, event: LinkEvent, clock: Clock) {
    match event {
        LinkEvent::Connected { connection, session, remote } => {
            let slot = Slot { region: session.region().clone(), number: session.slot() };
            coordinator.handle_connected(connection, slot, remote.to_string(), clock.now());
        }
        LinkEvent::Frame { connection, lane: Lane::Control, bytes, arrived } => {
            coordinator.handle_control(connection, &bytes, clock.at(arrived), wall::now())
        }
        LinkEvent::Frame { connection, lane, bytes, arrived } => {
            coordinator.handle_batch(connection, lane, bytes.to_vec(), clock.at(arrived), wall::now());
        }
        LinkEvent::Disconnected { connection, reason } => {
            tracing::info!(%connection, reason, "a satellite is gone");
            coordinator.handle_disconnected(connection);
        }
    }
}

fn answer(asker: Option<Asker>, activation: Activation, differs: &watch::Sender<Option<bool>>) {
    match asker {
        None | Some(Asker::Order(_) | Asker::Command(_)) => {}
        Some(Asker::Start(_)) => tracing::info!(?activation, "the first configuration"),
        Some(Asker::Operator { compiled, reply }) => {
            differs.send_replace(Some(activation == Activation::NotCommitted));
            revision::tell(compiled.applied(&activation), reply);
        }
    }
}

/// What the shells count, for `/metrics`.
fn figures(
    links: Links,
    writers: writers::Figures,
    store: Store,
    commits: Arc<Latency>,
) -> Arc<dyn Fn() -> Vec<Figure> + Send + Sync> {
    Arc::new(move || {
        let counter =
            |name, help, labels, value: u64| Figure { name, help, counter: true, labels, value: as_value(value) };
        let gauge =
            |name, help, value: u64| Figure { name, help, counter: false, labels: Vec::new(), value: as_value(value) };
        let mut figures: Vec<Figure> = Refusal::ALL
            .iter()
            .map(|refusal| {
                let labels = vec![("reason", refusal.kind().to_owned())];
                counter(
                    "perigee_link_refused_total",
                    "Peers of the link turned away, by reason",
                    labels,
                    links.refusals().total(*refusal),
                )
            })
            .collect();
        let journal = [
            ("perigee_journal_first_index", "First row the journal still holds", store.first().0),
            ("perigee_journal_published_index", "Last row that is durable", store.published().borrow().0),
            ("perigee_journal_bytes", "Segments of the journal, in bytes", store.bytes_behind(JournalIndex(0))),
            ("perigee_journal_bytes_max", "Bound at which writers are overrun", store.bytes_max()),
        ];
        figures.extend(journal.map(|(name, help, value)| gauge(name, help, value)));
        figures.push(Figure {
            name: "perigee_journal_write_worst_seconds",
            help: "The longest that the disk took for one commit since start",
            counter: false,
            labels: Vec::new(),
            value: store.slowest_write().as_secs_f64(),
        });
        figures.push(gauge("perigee_link_connections", "Open links", u64::try_from(links.open()).unwrap_or(u64::MAX)));
        figures.extend(commits.figures());
        figures.extend(writers.read());
        figures
    })
}

/// The rooms that take commands without an answer.
struct Hands<'a> {
    links: &'a Links,
    rows: &'a broadcast::Sender<Arc<Vec<Row>>>,
    history: &'a History,
}

impl Hands<'_> {
    fn act(&self, command: Command) {
        match command {
            Command::Send { connection, payload } => self.links.send(connection, Bytes::from(payload)),
            Command::Close { connection, cut } => {
                let reason = match cut {
                    Cut::Protocol(why) => {
                        tracing::warn!(%connection, why, "a satellite broke the protocol");
                        CloseReason::Refused(Refusal::BadMessage)
                    }
                    Cut::Overdrawn(overdrawn) => {
                        tracing::warn!(%connection, %overdrawn, "a satellite sent more than it had credit for");
                        CloseReason::Refused(Refusal::CreditExceeded)
                    }
                    Cut::Hoarding => CloseReason::Refused(Refusal::CreditUnused),
                    Cut::NotCommitted => CloseReason::NotCommitted,
                    Cut::Vacant => CloseReason::Vacant,
                };
                self.links.close(connection, reason);
            }
            Command::Published(published) => {
                self.history.feed(&published);
                // Nobody listening is no error.
                let _ = self.rows.send(published);
            }
            Command::Show(_)
            | Command::Commit { .. }
            | Command::Answer { .. }
            | Command::Obeyed { .. }
            | Command::Noted { .. }
            | Command::Commanded { .. } => {}
        }
    }
}
