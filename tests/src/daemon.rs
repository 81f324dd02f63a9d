//! NRPE daemons of our own, for what Debian's cannot be: 2.x and 3.x, NSClient++, a daemon whose answers change while it runs, a
//! fleet of a thousand, a liar. Written from the wire format, not with the product's code: a mistake in one is not in the other.
//!
//! Every answer of a command has a number, in the performance data and in a ledger that is on disk before the answer is sent
//! (`ledger`). What becomes of the answer is somebody else's to prove; that it was given is proven here.
#![expect(clippy::disallowed_methods, reason = "a shell room: it stamps answers and lets them wait")]

pub mod answers;
pub mod hostile;
pub mod ledger;
pub mod script;
pub mod tls;
pub mod wire;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::answers::{Answers, Command, Verdict};
use self::ledger::Ledger;
use self::script::Act;
use self::wire::Request;

/// Connections that one daemon serves at once; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 1024;
/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(60);

/// A fleet as `perigee-fake-nrpe --config` reads it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fleet {
    /// File that every answer is written to before it is sent.
    pub ledger: Option<PathBuf>,
    /// Directory of files `HOST/COMMAND` that override answers while the daemons run; see [`answers`].
    pub control: Option<PathBuf>,
    /// The daemons.
    pub daemons: Vec<Spec>,
    /// Hostile ones beside them.
    #[serde(default)]
    pub hostile: Vec<Hostile>,
}

/// A hostile daemon, of one of the kinds in [`hostile::kinds`].
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hostile {
    /// Its name, for whoever asks where it listens.
    pub host: String,
    /// Name of its kind.
    pub kind: String,
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
}

/// One daemon.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Its name, in the ledger and in the control directory.
    pub host: String,
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// How it is spoken to.
    #[serde(default)]
    pub transport: Transport,
    /// Packet versions it takes: `[2]` is a 2.x daemon, `[2, 3]` a 3.x, `[2, 4]` a 4.x.
    #[serde(default = "modern")]
    pub versions: Vec<u16>,
    /// Whether requests may have arguments; `$ARG1$` and so on in a text become them.
    #[serde(default)]
    pub arguments: bool,
    /// Answers by command; `*` answers for every command that is not named.
    pub commands: BTreeMap<String, Command>,
    /// Whether it is NSClient++: version 2 packets with this many bytes of text, and a refusal in words of every other version.
    #[serde(default)]
    pub nsclient_payload: Option<usize>,
}

/// How a daemon is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// Bare packets.
    Plain,
    /// Anonymous TLS as 3.2 and later have it.
    #[default]
    Anonymous,
    /// Anonymous TLS as 2.x has it: finite-field Diffie-Hellman only.
    Adh,
}

fn modern() -> Vec<u16> {
    vec![2, 4]
}

impl Spec {
    /// A 4.x daemon on a free port of 127.0.0.1 without commands.
    #[must_use]
    pub fn new(host: &str, transport: Transport) -> Self {
        Self {
            host: host.to_owned(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            transport,
            versions: modern(),
            arguments: false,
            commands: BTreeMap::new(),
            nsclient_payload: None,
        }
    }

    /// The same with these packet versions.
    #[must_use]
    pub fn speaking(mut self, versions: &[u16]) -> Self {
        self.versions = versions.to_vec();
        self
    }

    /// The same with a command that always answers so.
    #[must_use]
    pub fn answering(mut self, command: &str, state: i16, text: &str) -> Self {
        self.commands.insert(command.to_owned(), Command::fixed(state, text));
        self
    }
}

/// What a daemon has seen, for tests to look at.
#[derive(Debug, Default)]
pub struct Seen {
    connections: AtomicU64,
    open: AtomicUsize,
    peak: AtomicUsize,
    requests: AtomicU64,
    resumed: AtomicU64,
}

impl Seen {
    /// Connections accepted.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }

    /// The most connections that were open at once.
    #[must_use]
    pub fn peak(&self) -> usize {
        self.peak.load(Ordering::SeqCst)
    }

    /// Requests that were whole and in a version the daemon speaks.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    /// TLS handshakes that resumed a session.
    #[must_use]
    pub fn resumed(&self) -> u64 {
        self.resumed.load(Ordering::SeqCst)
    }
}

/// A running daemon; dropped, it closes its port and its connections.
#[derive(Debug)]
pub struct Daemon {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it has seen.
    pub seen: Arc<Seen>,
    tasks: JoinSet<()>,
}

/// What every connection of a daemon needs.
struct Service {
    spec: Spec,
    answers: Answers,
    tls: Option<tls::Acceptor>,
    seen: Arc<Seen>,
}

impl Daemon {
    /// Starts a daemon on the running runtime.
    ///
    /// # Errors
    /// Its port is taken, or TLS cannot be set up.
    pub async fn start(spec: Spec, ledger: Option<Ledger>, control: Option<PathBuf>) -> Result<Self> {
        let answers = Answers::new(&spec.host, spec.commands.clone(), ledger, control).undefined_as(undefined(&spec));
        let tls = tls::Acceptor::new(spec.transport)?;
        Self::serve(Service { spec, answers, tls, seen: Arc::default() }).await
    }

    /// Starts a daemon behind this TLS instead of its transport's.
    ///
    /// # Errors
    /// Its port is taken.
    pub async fn start_behind(tls: tls::Acceptor, spec: Spec) -> Result<Self> {
        let answers = Answers::new(&spec.host, spec.commands.clone(), None, None);
        Self::serve(Service { spec, answers, tls: Some(tls), seen: Arc::default() }).await
    }

    async fn serve(service: Service) -> Result<Self> {
        let (listener, address) = bind(service.spec.listen).await?;
        let seen = Arc::clone(&service.seen);
        let service = Arc::new(service);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&seen), move |stream| {
            let service = Arc::clone(&service);
            async move { service.serve(stream).await }
        }));
        Ok(Self { address, seen, tasks })
    }

    /// Starts a peer that is no daemon: on every connection it does these acts, on bare TCP.
    ///
    /// # Errors
    /// No port is free.
    pub async fn scripted(acts: Vec<Act>) -> Result<Self> {
        Self::scripted_in_turn(vec![acts]).await
    }

    /// The same with one script a connection, in order; further connections get the last.
    ///
    /// # Errors
    /// No port is free.
    pub async fn scripted_in_turn(scripts: Vec<Vec<Act>>) -> Result<Self> {
        let seen = Arc::new(Seen::default());
        let (listener, address) = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let mut tasks = JoinSet::new();
        let mut scripts = scripts.into_iter();
        let mut acts = scripts.next().unwrap_or_default();
        tasks.spawn(accept(listener, Arc::clone(&seen), move |stream| {
            let next = scripts.next().unwrap_or_else(|| acts.clone());
            script::play(stream, std::mem::replace(&mut acts, next))
        }));
        Ok(Self { address, seen, tasks })
    }

    /// Ends the daemon and waits until its port is free again.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

async fn bind(listen: SocketAddr) -> Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

async fn accept<F, S>(listener: TcpListener, seen: Arc<Seen>, mut serve: S)
where
    S: FnMut(TcpStream) -> F,
    F: Future<Output = Result<()>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Dropped with this task, and with it every connection.
    let mut connections = JoinSet::new();
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                continue;
            }
        };
        seen.connections.fetch_add(1, Ordering::SeqCst);
        let open = seen.open.fetch_add(1, Ordering::SeqCst) + 1;
        seen.peak.fetch_max(open, Ordering::SeqCst);
        let (seen, served) = (Arc::clone(&seen), serve(stream));
        connections.spawn(async move {
            let ended = tokio::time::timeout(PATIENCE, served).await;
            seen.open.fetch_sub(1, Ordering::SeqCst);
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a connection ended early"),
                Err(_) => tracing::debug!("a client took too long"),
            }
            drop(place);
        });
        while connections.try_join_next().is_some() {}
    }
}

impl Service {
    async fn serve(&self, stream: TcpStream) -> Result<()> {
        stream.set_nodelay(true)?;
        match &self.tls {
            None => self.answer(stream).await,
            Some(tls) => {
                let (stream, resumed) = tls.accept(stream).await?;
                self.seen.resumed.fetch_add(u64::from(resumed), Ordering::SeqCst);
                self.answer(stream).await
            }
        }
    }

    async fn answer<S: AsyncRead + AsyncWrite + Unpin>(&self, mut stream: S) -> Result<()> {
        let Some(request) = wire::read(&mut stream, self.spec.versions == [2], self.spec.nsclient_payload).await?
        else {
            return Ok(());
        };
        if !self.spec.versions.contains(&request.version) {
            if let Some(payload) = self.spec.nsclient_payload {
                let text = format!("Invalid packet version.{}", request.version);
                stream.write_all(&wire::answer_v2(3, text.as_bytes(), payload)).await?;
                close(stream).await;
            }
            return Ok(());
        }
        self.seen.requests.fetch_add(1, Ordering::SeqCst);
        let verdict = match self.own_answer(&request) {
            Some(verdict) => verdict,
            None if wire::is_disliked(&request.text, self.spec.arguments) => Verdict::Close,
            None => self.answers.give(&request.text, now()).await?,
        };
        match verdict {
            Verdict::Answer { state, text } => {
                let packet = match self.spec.nsclient_payload {
                    Some(payload) => wire::answer_v2(state, &text, payload),
                    None => wire::answer(request.version, state, &text),
                };
                stream.write_all(&packet).await?;
                close(stream).await;
            }
            Verdict::Close => {}
            Verdict::Hang => std::future::pending().await,
        }
        Ok(())
    }

    /// `_NRPE_CHECK` is answered by the daemon itself, with the version that such a daemon would have.
    fn own_answer(&self, request: &Request) -> Option<Verdict> {
        let version = match (self.spec.versions.contains(&4), self.spec.versions.contains(&3)) {
            (true, _) => "4.1.0",
            (false, true) => "3.2.1",
            (false, false) => "2.15",
        };
        (request.text == b"_NRPE_CHECK")
            .then(|| Verdict::Answer { state: 0, text: format!("NRPE v{version}").into_bytes() })
    }
}

fn undefined(spec: &Spec) -> answers::Undefined {
    match (spec.nsclient_payload, spec.versions.as_slice()) {
        (Some(_), _) => answers::not_defined_in_nsclient,
        (None, [2]) => answers::not_defined_in_2,
        (None, _) => answers::not_defined,
    }
}

/// Says goodbye and waits for nothing: the client may be gone already.
async fn close<S: AsyncWrite + Unpin>(mut stream: S) {
    let _ = stream.shutdown().await;
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
