//! The master's HTTP interface: JSON, the event stream and metrics for programs, on TCP and on a socket in the data directory.
//! Shows published views and takes requests to the loop; decides nothing about checks. The surprise: whether a request may pass
//! stands in the table of routes (`route`) beside its handler, so that a route without an entry cannot be served.

pub(crate) mod error;
pub mod figure;
mod event;
mod action;
mod command;
mod document;
pub(crate) mod fleet;
mod incident;
pub(crate) mod guard;
pub(crate) mod list;
mod listener;
mod metrics;
mod object;
mod order;
mod page;
mod parameter;
mod request;
pub(crate) mod route;
mod selection;
mod stream;
pub(crate) mod summary;
pub mod token;
mod waiting;
#[cfg(test)]
pub(crate) mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::Result;
use shared::command::What;
use shared::name::{CheckId, Generation};
use shared::time::Timestamp;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::backup;
use crate::config::{Diagnostic, Severity};
use crate::coordinator::{Commanding, Obeyed, Order, View};
use crate::entry::Row;
use crate::history::HistoryReader;
use crate::store::Store;

pub use figure::Figure;
pub(crate) use listener::CONNECTIONS_MAX;
use token::Tokens;

/// Name of the local socket in the data directory.
pub const SOCKET: &str = "api.sock";
/// This program's version, as faces show it.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Where the interface is served.
#[derive(Debug, Clone)]
pub struct Listeners {
    /// TCP address; plain HTTP on a loopback address only.
    pub tcp: Option<SocketAddr>,
    /// Certificate chain and key in PEM: with them TCP is HTTPS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// The local socket, see [`SOCKET`].
    pub unix: PathBuf,
    /// Reads without a token, on a loopback listener only.
    pub open_reads: bool,
}

/// Everything the interface reads and writes.
#[derive(Clone)]
pub struct Inputs {
    /// What readers see.
    pub view: watch::Receiver<Arc<View>>,
    /// Rows as they are published; whoever lags behind reads the store.
    pub rows: broadcast::Sender<Arc<Vec<Row>>>,
    /// The journal, to resume event streams from.
    pub store: Store,
    /// What happened.
    pub history: HistoryReader,
    /// Requests to the loop; a full queue is answered with 503.
    pub requests: mpsc::Sender<Request>,
    /// The data directory: `tokens.json` lies there.
    pub data: PathBuf,
    /// Figures of the shells, for `metrics`.
    pub figures: Arc<dyn Fn() -> Vec<Figure> + Send + Sync>,
    /// Whether the files differ from the running revision; `None`: not known yet.
    pub source_differs: watch::Receiver<Option<bool>>,
    /// When this process started.
    pub started: Timestamp,
    /// The wall clock.
    pub clock: fn() -> Timestamp,
}

/// What the loop is asked to do.
#[derive(Debug)]
pub enum Request {
    /// Read the configuration again and activate it.
    Apply {
        /// Who asks, for the journal.
        author: String,
        /// How it ended.
        reply: oneshot::Sender<Applied>,
    },
    /// Something about slots or moves.
    Order {
        /// What.
        order: Order,
        /// Who orders it, for the journal.
        author: String,
        /// How it ended.
        reply: oneshot::Sender<Obeyed>,
    },
    /// Ask something of the owner of a check.
    Command {
        /// Which check.
        check: CheckId,
        /// What.
        what: What,
        /// Who asks, for the journal.
        author: String,
        /// How it was taken.
        reply: oneshot::Sender<Commanding>,
    },
}

/// How an apply ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Applied {
    /// A new generation runs.
    Activated {
        /// Its number.
        generation: Generation,
        /// Hosts and services that are new.
        added: usize,
        /// Hosts and services whose check or policy is another.
        changed: usize,
        /// Hosts and services that are no longer configured.
        removed: usize,
        /// What may not do what was meant.
        warnings: Vec<Diagnostic>,
    },
    /// The running generation has the same content.
    Unchanged {
        /// Its number.
        generation: Generation,
        /// What may not do what was meant.
        warnings: Vec<Diagnostic>,
    },
    /// The configuration cannot be activated; the running generation goes on.
    Mistakes(Mistakes),
    /// It could not be tried; why, and what to do.
    Failed(String),
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Mistakes {
    /// One by one.
    pub diagnostics: Vec<Diagnostic>,
    /// The same for people, with the lines of source.
    pub text: String,
}

impl Applied {
    /// The answer to a configuration that does not compile.
    #[must_use]
    pub fn mistakes(diagnostics: Vec<Diagnostic>) -> Self {
        let text = diagnostics.iter().map(Diagnostic::render).collect::<Vec<_>>().join("\n");
        Self::Mistakes(Mistakes { diagnostics, text })
    }
}

impl Mistakes {
    /// How many of them are errors.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.diagnostics.iter().filter(|found| found.severity == Severity::Error).count()
    }
}

/// A running interface.
#[derive(Debug)]
pub struct Bound {
    /// Where TCP is served, with the port that was given.
    pub tcp: Option<SocketAddr>,
    /// Ends when everything that was being answered is.
    pub task: JoinHandle<()>,
}

/// What handlers share.
pub(crate) struct Api {
    pub(crate) inputs: Inputs,
    pub(crate) tokens: Tokens,
    pub(crate) open_reads: bool,
    /// Places for event streams.
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) counts: Counts,
    pub(crate) shutdown: CancellationToken,
    /// The backup that is being made, if one is.
    pub(crate) backup: Arc<backup::Progress>,
}

/// What this room counts about itself.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Requests that named no valid token or one without the right.
    pub(crate) refused: AtomicU64,
    /// Connections closed at once because there were too many.
    pub(crate) turned_away: AtomicU64,
    /// Event streams cut because their client did not read.
    pub(crate) streams_cut: AtomicU64,
}

impl Api {
    fn new(inputs: Inputs, open_reads: bool, shutdown: CancellationToken) -> Arc<Self> {
        let tokens = Tokens::new(&inputs.data);
        let streams = Arc::new(Semaphore::new(stream::STREAMS_MAX));
        let (counts, backup) = (Counts::default(), Arc::default());
        Arc::new(Self { inputs, tokens, open_reads, streams, counts, shutdown, backup })
    }

    /// What readers see now.
    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.inputs.view.borrow())
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.inputs.clock)()
    }
}

/// Serves until `shutdown`.
///
/// # Errors
/// A TCP address that is no loopback address without TLS, certificate files that cannot be used, or an address that cannot be
/// bound.
pub async fn serve(listeners: Listeners, inputs: Inputs, shutdown: CancellationToken) -> Result<Bound> {
    let api = Api::new(inputs, listeners.open_reads, shutdown);
    listener::serve(listeners, api).await
}
