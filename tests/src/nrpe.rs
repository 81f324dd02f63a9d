//! Debian's real NRPE daemon and its reference client, as a test needs them: a daemon on a port of its own with given commands,
//! ready when it is handed out, gone when it is dropped; and what `check_nrpe` says about it.
//!
//! The surprise: nrpe refuses to run as root, so a root test lets it become `nobody`, who must be able to write its log.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::missing::missing;
use crate::process::Watcher;
use crate::wait::until;

/// Debian's daemon.
pub const DAEMON: &str = "/usr/sbin/nrpe";
/// Debian's reference client.
pub const CHECK_NRPE: &str = "/usr/lib/nagios/plugins/check_nrpe";
/// How long a daemon may take until it listens.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// How the daemon is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Bare packets (`-n`).
    Plain,
    /// TLS as a stock daemon without certificates has it: anonymous.
    Anonymous,
}

/// A running daemon; dropped, it is killed.
#[derive(Debug)]
pub struct RealNrpe {
    child: Child,
    _watcher: Watcher,
    directory: TempDir,
    /// Where it listens.
    pub address: SocketAddr,
    transport: Transport,
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
        let port = free_port(Ipv4Addr::LOCALHOST)?;
        Self::start_on(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), transport, commands, settings)
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
        let directory = tempfile::tempdir()?;
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777))?;
        let log = directory.path().join("nrpe.log");
        let mut config = format!(
            "server_address={}\nserver_port={}\nallowed_hosts=127.0.0.0/8,::1\nlog_file={}\nlisten_queue_size=1024\n",
            address.ip(),
            address.port(),
            log.display()
        );
        if is_root() {
            config.push_str("nrpe_user=nobody\nnrpe_group=nogroup\n");
        }
        for (name, line) in commands {
            writeln!(config, "command[{name}]={line}")?;
        }
        config.push_str(settings);
        let file = directory.path().join("nrpe.cfg");
        std::fs::write(&file, config)?;
        let mut command = Command::new(DAEMON);
        command.arg("-c").arg(&file).arg("-f").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if transport == Transport::Plain {
            command.arg("-n");
        }
        let child = command.process_group(0).spawn().with_context(|| format!("cannot start {DAEMON}"))?;
        let watcher = Watcher::over(child.id())?;
        let mut daemon = Self { child, _watcher: watcher, directory, address, transport };
        let mut ended = None;
        let ready = until(READY_WITHIN, || {
            ended = daemon.child.try_wait().ok().flatten();
            ended.is_some() || TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
        });
        match ended {
            None if ready => Ok(daemon),
            ended => bail!("{DAEMON} does not listen on {address} ({ended:?}): {}", daemon.log()),
        }
    }

    /// What the daemon wrote into its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("nrpe.log")).unwrap_or_else(|error| error.to_string())
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
        let mut client = check_nrpe(self.address, self.transport, timeout);
        let output = client.args(["-c", command]).args(more).output().context(CHECK_NRPE)?;
        Ok(Said {
            status: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
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

impl Drop for RealNrpe {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill, only a status to collect.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}
