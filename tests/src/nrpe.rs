//! Debian's real NRPE daemon and its reference client, as a test needs them: a daemon on a port of its own with given commands, in
//! any of the modes in which such daemons are found (`mode`), ready when it is handed out, gone when it is dropped; and what
//! `check_nrpe` says about it.
//!
//! The surprise: nrpe refuses to run as root, so a root test lets it become `nobody`, who must be able to write its log.

pub mod inetd;
pub mod mode;
pub mod setup;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use self::mode::{Keys, Mode};
use self::setup::Setup;
pub use self::setup::Transport;
use crate::missing::missing;
use crate::process::{Watcher, text};
use crate::wait::until;

/// Debian's daemon.
pub const DAEMON: &str = "/usr/sbin/nrpe";
/// Debian's reference client.
pub const CHECK_NRPE: &str = "/usr/lib/nagios/plugins/check_nrpe";
/// How long a daemon may take until it listens.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// A free port may be taken by somebody else before the daemon has it; then the next one is tried.
const PORTS_TRIED: usize = 5;
/// What the daemon logs when it listens, at its start and after SIGHUP.
const LISTENS: &str = "Listening for connections on port";

/// A running daemon; dropped, it is killed.
#[derive(Debug)]
pub struct RealNrpe {
    child: Child,
    _watcher: Watcher,
    directory: TempDir,
    setup: Setup,
    /// Where it listens.
    pub address: SocketAddr,
}

/// What `check_nrpe` printed, and its exit status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Exit status; -1 if a signal ended it.
    pub status: i32,
    /// Standard output, as bytes.
    pub stdout: Vec<u8>,
    /// Standard error, readable.
    pub stderr: String,
}

/// Whether daemon and client are installed; if not, the calling test is recorded as skipped.
#[must_use]
pub fn installed() -> bool {
    for (path, package) in [(DAEMON, "nagios-nrpe-server"), (CHECK_NRPE, "nagios-nrpe-plugin")] {
        if !Path::new(path).exists() {
            missing(path, package);
            return false;
        }
    }
    true
}

/// A loopback port that was free a moment ago. Another process may take it in between; the caller's start then fails by name.
///
/// # Errors
/// No port is free.
pub fn free_port(address: Ipv4Addr) -> Result<u16> {
    Ok(TcpListener::bind((address, 0)).context("no free port")?.local_addr()?.port())
}

impl RealNrpe {
    /// Starts a daemon on a free port of 127.0.0.1 with these commands (name, command line) and further lines of
    /// configuration, and waits until it listens.
    ///
    /// # Errors
    /// It does not start; its log is in the message.
    pub fn start(transport: Transport, commands: &[(&str, &str)], settings: &str) -> Result<Self> {
        Self::on_a_free_port(Setup::new(nowhere(), transport, commands, settings))
    }

    /// The same on a given loopback address and port.
    ///
    /// # Errors
    /// It does not start; its log is in the message.
    pub fn start_on(
        address: SocketAddr,
        transport: Transport,
        commands: &[(&str, &str)],
        settings: &str,
    ) -> Result<Self> {
        Self::set_up(Setup::new(address, transport, commands, settings))
    }

    /// Starts a daemon in a mode that such daemons are found in, on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// It does not start; its log is in the message.
    pub fn in_mode(mode: Mode, keys: &Keys, commands: &[(&str, &str)], settings: &str) -> Result<Self> {
        Self::on_a_free_port(mode.setup(nowhere(), keys, commands, settings))
    }

    /// The same on a given loopback address and port.
    ///
    /// # Errors
    /// It does not start; its log is in the message.
    pub fn in_mode_on(
        address: SocketAddr,
        mode: Mode,
        keys: &Keys,
        commands: &[(&str, &str)],
        settings: &str,
    ) -> Result<Self> {
        Self::set_up(mode.setup(address, keys, commands, settings))
    }

    /// Starts a daemon on a free port, whatever port the setup says, and waits until it listens.
    ///
    /// # Errors
    /// It does not start; its log is in the message.
    pub fn on_a_free_port(mut setup: Setup) -> Result<Self> {
        let mut last = None;
        for _ in 0..PORTS_TRIED {
            setup.address.set_port(free_port(Ipv4Addr::LOCALHOST)?);
            match Self::set_up(setup.clone()) {
                Ok(daemon) => return Ok(daemon),
                Err(error) if format!("{error:#}").contains("already in use") => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("no port was tried")))
    }

    /// Starts a daemon and waits until it listens.
    ///
    /// # Errors
    /// It does not start; its log is in the message.
    pub fn set_up(setup: Setup) -> Result<Self> {
        let (directory, log) = room()?;
        let file = directory.path().join("nrpe.cfg");
        std::fs::write(&file, setup.text(&log, is_root()))?;
        let address = setup.address;
        let (child, watcher) = spawn(&file, setup.transport)?;
        let mut daemon = Self { child, _watcher: watcher, directory, setup, address };
        daemon.await_listening(1)?;
        Ok(daemon)
    }

    /// Kills the daemon, as a crash would, and starts it again on the same port: with new keys for session tickets.
    ///
    /// # Errors
    /// It does not start again; its log is in the message.
    pub fn restart(&mut self) -> Result<()> {
        let before = self.listened();
        self.child.kill()?;
        self.child.wait()?;
        let (child, watcher) = spawn(&self.directory.path().join("nrpe.cfg"), self.setup.transport)?;
        self.child = child;
        self._watcher = watcher;
        self.await_listening(before + 1)
    }

    /// Gives the daemon other commands and tells it to read its configuration again (SIGHUP). It closes its port for a moment
    /// and keeps its keys for session tickets.
    ///
    /// # Errors
    /// It cannot be told, or does not listen again; its log is in the message.
    pub fn reload(&mut self, commands: &[(&str, &str)]) -> Result<()> {
        let before = self.listened();
        self.setup.commands = setup::owned(commands);
        let log = self.directory.path().join("nrpe.log");
        std::fs::write(self.directory.path().join("nrpe.cfg"), self.setup.text(&log, is_root()))?;
        let pid = self.child.id().to_string();
        let told = Command::new("/bin/sh").args(["-c", "kill -s HUP \"$1\"", "sh", &pid]).status()?;
        ensure!(told.success(), "{DAEMON} cannot be sent HUP");
        self.await_listening(before + 1)
    }

    /// Waits until the daemon has said `times` times that it listens, and does.
    fn await_listening(&mut self, times: usize) -> Result<()> {
        let mut ended = None;
        let ready = until(READY_WITHIN, || {
            ended = self.child.try_wait().ok().flatten();
            let listens = || TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).is_ok();
            ended.is_some() || (self.listened() >= times && listens())
        });
        match ended {
            None if ready => Ok(()),
            ended => bail!("{DAEMON} does not listen on {} ({ended:?}): {}", self.address, self.log()),
        }
    }

    fn listened(&self) -> usize {
        self.log().matches(LISTENS).count()
    }

    /// What the daemon wrote into its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        text_of(self.directory.path())
    }

    /// The daemon's process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A directory that lives as long as the daemon and that its commands may read and write.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// Asks the daemon with Debian's client.
    ///
    /// # Errors
    /// The client cannot be started.
    pub fn check_nrpe(&self, command: &str, timeout: Duration, more: &[&str]) -> Result<Said> {
        ask(self.address, self.setup.transport, command, timeout, more)
    }
}

/// The reference client, set to a daemon; the caller adds `-c` and runs it.
#[must_use]
pub fn check_nrpe(address: SocketAddr, transport: Transport, timeout: Duration) -> Command {
    let mut command = Command::new(CHECK_NRPE);
    command.args(["-H", &address.ip().to_string(), "-p", &address.port().to_string()]);
    command.args(["-t", &timeout.as_secs().to_string()]);
    if transport == Transport::Plain {
        command.arg("-n");
    }
    command
}

/// Runs the reference client; `more` are further options of its, before which the command stands.
///
/// # Errors
/// The client cannot be started.
pub fn ask(address: SocketAddr, transport: Transport, command: &str, timeout: Duration, more: &[&str]) -> Result<Said> {
    let mut client = check_nrpe(address, transport, timeout);
    let output = client.args(["-c", command]).args(more).output().context(CHECK_NRPE)?;
    Ok(Said {
        status: output.status.code().unwrap_or(-1),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

impl Drop for RealNrpe {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill, only a status to collect.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn nowhere() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

fn spawn(config: &Path, transport: Transport) -> Result<(Child, Watcher)> {
    let mut command = Command::new(DAEMON);
    command.arg("-c").arg(config).arg("-f").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if transport == Transport::Plain {
        command.arg("-n");
    }
    let child = command.process_group(0).spawn().with_context(|| format!("cannot start {DAEMON}"))?;
    let watcher = Watcher::over(child.id())?;
    Ok((child, watcher))
}

/// A directory that a daemon may use whoever it becomes, and its log in it. The log is there before the daemon is: made by root
/// it could not be written by `nobody`, and after SIGHUP nothing would be logged.
pub(crate) fn room() -> Result<(TempDir, PathBuf)> {
    let directory = tempfile::tempdir()?;
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777))?;
    let log = directory.path().join("nrpe.log");
    std::fs::write(&log, "")?;
    std::fs::set_permissions(&log, std::fs::Permissions::from_mode(0o666))?;
    Ok((directory, log))
}

pub(crate) fn text_of(directory: &Path) -> String {
    text(&directory.join("nrpe.log"))
}

pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}
