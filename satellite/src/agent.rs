//! The satellite as an NRPE daemon for its own container or host: reads nrpe's configuration, answers versions 2 to 4 over plain
//! TCP, anonymous TLS or certificates, and runs the commands. Knows the probes only by the packets and the runner they share.
//!
//! The surprise: root is given up before the runtime exists, since a process changes its user thread by thread. So everything that
//! needs root (a private key, the pid file) happens in [`Agent::prepare`], and [`Agent::serve`] is what has a runtime.

pub mod allowed;
pub mod builtin;
pub mod config;
pub mod connection;
pub mod counters;
pub mod gate;
pub mod log;
pub mod names;
pub mod packet;
pub mod pid;
pub mod privilege;
pub mod request;
pub mod run;
pub mod server;
pub mod source;
pub mod tls;

use std::net::TcpStream as StdTcpStream;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::config::tls::TlsSettings;
use self::config::{Remark, Settings, Weight};
use self::connection::Shared;
use self::log::Log;
use self::names::Names;
use self::pid::PidFile;
use self::server::{Server, listen};
use self::tls::Tls;
use crate::process::{Runner, orphans};

/// The version of nrpe that the agent answers like, and says it is: clients choose their packets by it.
pub const VERSION: &str = "4.1.0";
/// How long answers under way may take when the agent is told to end; then their commands are ended too.
pub const GRACE: Duration = Duration::from_secs(5);

/// What the command line says.
#[derive(Debug, Clone, Default)]
pub struct Call {
    /// The configuration; the built-in checks for this machine if none.
    pub config: Option<PathBuf>,
    /// No TLS.
    pub plain: bool,
    /// Goes over `server_port`.
    pub port: Option<u16>,
    /// Goes over `nrpe_user`.
    pub user: Option<String>,
    /// Goes over `nrpe_group`.
    pub group: Option<String>,
}

/// A configuration that is not to be served: all mistakes and warnings, one a line.
#[derive(Debug, thiserror::Error)]
#[error("{}", said(.0))]
pub struct Mistakes(pub Vec<Remark>);

fn said(remarks: &[Remark]) -> String {
    remarks.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// A configuration in use.
#[derive(Debug)]
pub struct Live {
    /// What it says.
    pub settings: Settings,
    /// Its TLS; none with `--no-tls`.
    pub tls: Option<Arc<Tls>>,
    /// What is known of names in `allowed_hosts`.
    pub names: Names,
    /// What commands see.
    pub environment: Vec<(String, String)>,
    /// Runs commands.
    pub runner: Runner,
    seen: Seen,
}

/// What the TLS context was made of: tickets stay good as long as this does.
type Seen = (TlsSettings, Vec<Option<(u64, SystemTime)>>);

fn seen(tls: &TlsSettings) -> Seen {
    let look = |file: &Option<PathBuf>| {
        let about = std::fs::metadata(file.as_ref()?).ok()?;
        Some((about.len(), about.modified().ok()?))
    };
    (tls.clone(), [&tls.certificate, &tls.key, &tls.ca].map(look).to_vec())
}

impl Live {
    /// Makes everything that the settings ask for; takes over from the configuration before what did not change.
    fn new(settings: Settings, call: &Call, before: Option<&Self>) -> Result<Self> {
        let seen = seen(&settings.tls);
        let tls = match before {
            _ if call.plain => None,
            Some(before) if before.seen == seen => before.tls.clone(),
            _ => Some(Arc::new(Tls::new(&settings.tls)?)),
        };
        let runner = match before {
            Some(before) if before.settings.max_commands == settings.max_commands => before.runner.clone(),
            _ => Runner::new(if settings.max_commands == 0 { run::COMMANDS } else { settings.max_commands }),
        };
        let user = call.user.as_deref().or(settings.user.as_deref());
        let environment = privilege::environment(user, &settings.keep_environment);
        Ok(Self { settings, tls, names: Names::default(), environment, runner, seen })
    }
}

/// The settings of a call, and warnings about them.
///
/// # Errors
/// Mistakes in the files.
pub fn read(call: &Call) -> Result<(Settings, Vec<Remark>), Mistakes> {
    let (mut settings, warnings) = match &call.config {
        None => (Settings::built_in(), Vec::new()),
        Some(file) => source::read(file, call.plain).map_err(Mistakes)?,
    };
    settings.port = call.port.unwrap_or(settings.port);
    Ok((settings, warnings))
}

/// Reads the configuration and the files of its TLS as a start would, and says in a line what would be served.
///
/// # Errors
/// What keeps it from starting, and what part of an included file is lost: it may have held half of the commands.
pub fn check(call: &Call) -> Result<(Vec<Remark>, String)> {
    let (settings, warnings) = read(call)?;
    if warnings.iter().any(|warning| warning.weight > Weight::Warning) {
        return Err(Mistakes(warnings).into());
    }
    let live = Live::new(settings, call, None)?;
    let settings = &live.settings;
    let address = settings.address.as_deref().unwrap_or("all addresses");
    let tls = match (&live.tls, &settings.tls.certificate) {
        (None, _) => "no TLS",
        (Some(_), None) => "anonymous TLS",
        (Some(_), Some(_)) => "TLS with a certificate",
    };
    let count = settings.commands.len();
    Ok((warnings, format!("{count} commands on {address}, port {}, {tls}", settings.port)))
}

/// An agent that is ready to serve and is no longer root.
#[derive(Debug)]
pub struct Agent {
    call: Call,
    live: Live,
    log: Log,
    pid: Option<PidFile>,
}

impl Agent {
    /// Does everything that needs root, and gives it up. The process must have one thread.
    ///
    /// # Errors
    /// The TLS files cannot be used, the pid file is another's, or root cannot or may not be given up.
    pub fn prepare(call: Call, settings: Settings, log: Log) -> Result<Self> {
        let live = Live::new(settings, &call, None)?;
        let settings = &live.settings;
        let pid = settings.pid_file.as_deref().map(PidFile::write).transpose()?;
        let user = call.user.as_deref().or(settings.user.as_deref());
        let group = call.group.as_deref().or(settings.group.as_deref());
        privilege::give_up(user, group, call.user.is_some())?;
        Ok(Self { call, live, log, pid })
    }

    /// Answers until SIGTERM or SIGINT; SIGHUP reads the configuration again.
    ///
    /// # Errors
    /// It cannot listen.
    pub async fn serve(self) -> Result<()> {
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut hup = signal(SignalKind::hangup())?;
        let Self { call, live, log, pid } = self;
        orphans::collect();
        announce(&live);
        let mut listening = Listening::start(&live.settings).await?;
        let (give, take) = watch::channel(Arc::new(live));
        let server = Arc::new(Server::new(take));
        listening.accept(&server);
        loop {
            tokio::select! {
                _ = term.recv() => break,
                _ = int.recv() => break,
                _ = hup.recv() => {
                    let before = Arc::clone(&give.borrow());
                    match again(&call, &before, &log, &server, &mut listening).await {
                        Ok(live) => {
                            announce(&live);
                            give.send_replace(Arc::new(live));
                            tracing::info!(counts = %server.shared.counters, "the configuration was read again");
                        }
                        Err(error) => tracing::error!("the configuration of before stays in use: {error:#}"),
                    }
                }
            }
        }
        listening.stop.cancel();
        server.open.close();
        if timeout(GRACE, server.open.wait()).await.is_err() {
            tracing::warn!(connections = server.open.len(), "ending with connections open");
        }
        tracing::info!(counts = %server.shared.counters, "ended");
        drop(pid);
        Ok(())
    }

    /// Serves the one connection that standard input is, as inetd starts it.
    ///
    /// # Errors
    /// Standard input is no connection.
    pub async fn serve_inetd(self) -> Result<()> {
        let input = std::io::stdin().as_fd().try_clone_to_owned().context("standard input")?;
        let tcp = StdTcpStream::from(input);
        let peer = tcp.peer_addr().context("standard input is no TCP connection (--inetd is for inetd and xinetd)")?;
        tcp.set_nonblocking(true)?;
        let tcp = TcpStream::from_std(tcp)?;
        connection::serve(tcp, peer, &self.live, &Shared::default(), true).await;
        Ok(())
    }
}

/// Listeners, and how to end them.
struct Listening {
    of: (Option<String>, u16, u32),
    listeners: Vec<tokio::net::TcpListener>,
    stop: CancellationToken,
}

impl Listening {
    async fn start(settings: &Settings) -> Result<Self> {
        let of = (settings.address.clone(), settings.port, settings.backlog);
        Ok(Self { of, listeners: listen(settings).await?, stop: CancellationToken::new() })
    }

    fn accept(&mut self, server: &Arc<Server>) {
        for listener in self.listeners.drain(..) {
            tokio::spawn(Arc::clone(server).accept(listener, self.stop.clone()));
        }
    }
}

/// Reads everything again, and listens elsewhere if that has changed. Nothing of before is given up until all of it is good.
async fn again(call: &Call, before: &Live, log: &Log, server: &Arc<Server>, listening: &mut Listening) -> Result<Live> {
    let (settings, warnings) = read(call)?;
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    let live = Live::new(settings, call, Some(before))?;
    let settings = &live.settings;
    if (&settings.address, settings.port, settings.backlog) != (&listening.of.0, listening.of.1, listening.of.2) {
        if settings.port == listening.of.1 {
            bail!("server_address and listen_queue_size change with a restart only, while server_port stays");
        }
        let mut new = Listening::start(settings).await?;
        new.accept(server);
        std::mem::replace(listening, new).stop.cancel();
    }
    if (&settings.user, &settings.group, &settings.pid_file)
        != (&before.settings.user, &before.settings.group, &before.settings.pid_file)
    {
        tracing::warn!("nrpe_user, nrpe_group and pid_file change with a restart only");
    }
    if let Err(error) = log.open(settings.log_file.as_deref()) {
        tracing::error!(%error, "log_file cannot be opened; logging to standard error");
    }
    Ok(live)
}

fn announce(live: &Live) {
    let settings = &live.settings;
    if settings.allowed.is_none() {
        tracing::warn!("there is no allowed_hosts: everybody who reaches the port may ask");
    }
    if settings.arguments {
        tracing::warn!("dont_blame_nrpe=1: clients choose arguments of commands that a shell runs");
    }
    if settings.tls.logging.startup() {
        tracing::info!(tls = ?settings.tls, "TLS settings");
    }
    tracing::info!(commands = settings.commands.len(), port = settings.port, tls = live.tls.is_some(), "serving");
}
