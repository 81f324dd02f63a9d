//! Debian's daemon as inetd and xinetd run it: one process a connection, which finds the socket as its standard input and output.
//! The accepting is ours. Every process has TLS keys of its own, so no ticket is ever honoured.
//!
//! The surprise: in this style nrpe looks at no `allowed_hosts`; whoever accepts decides, and here that is everybody on loopback.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::setup::{Setup, Transport};
use super::{DAEMON, Said, ask, is_root, room, text_of};

/// `nobody` and `nogroup` on Debian: nrpe does not run as root.
const NOBODY: u32 = 65_534;

/// A port behind which each connection gets a daemon of its own; dropped, it is closed.
#[derive(Debug)]
pub struct Inetd {
    /// Where it listens.
    pub address: SocketAddr,
    transport: Transport,
    directory: TempDir,
    started: Arc<AtomicUsize>,
    ending: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Inetd {
    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// No port is free, or its files cannot be written.
    pub fn start(transport: Transport, commands: &[(&str, &str)], settings: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
        let address = listener.local_addr()?;
        let (directory, log) = room()?;
        let config = directory.path().join("nrpe.cfg");
        // It never becomes root, so it need not be told whom to become.
        std::fs::write(&config, Setup::new(address, transport, commands, settings).text(&log, false))?;
        let (started, ending) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let accepting = {
            let (started, ending) = (Arc::clone(&started), Arc::clone(&ending));
            thread::Builder::new()
                .name("inetd".to_owned())
                .spawn(move || accept(&listener, &config, transport, &started, &ending))?
        };
        Ok(Self { address, transport, directory, started, ending, accepting: Some(accepting) })
    }

    /// Daemons started so far.
    #[must_use]
    pub fn started(&self) -> usize {
        self.started.load(Ordering::SeqCst)
    }

    /// What they wrote into their log so far.
    #[must_use]
    pub fn log(&self) -> String {
        text_of(self.directory.path())
    }

    /// Asks with Debian's client.
    ///
    /// # Errors
    /// The client cannot be started.
    pub fn check_nrpe(&self, command: &str, timeout: Duration, more: &[&str]) -> Result<Said> {
        ask(self.address, self.transport, command, timeout, more)
    }
}

impl Drop for Inetd {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        // Wakes the one who accepts; if that fails he is not waiting any more.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn accept(listener: &TcpListener, config: &Path, transport: Transport, started: &AtomicUsize, ending: &AtomicBool) {
    let mut children: Vec<Child> = Vec::new();
    while let Ok((stream, _)) = listener.accept() {
        if ending.load(Ordering::SeqCst) {
            break;
        }
        match serve(stream, config.to_owned(), transport) {
            Ok(child) => {
                started.fetch_add(1, Ordering::SeqCst);
                children.push(child);
            }
            Err(error) => tracing::error!(%error, "{DAEMON} cannot be started for a connection"),
        }
        children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }
    for mut child in children {
        // It may have ended by itself; then there is nothing to kill, only a status to collect.
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn serve(stream: TcpStream, config: PathBuf, transport: Transport) -> io::Result<Child> {
    let output = OwnedFd::from(stream.try_clone()?);
    let mut command = Command::new(DAEMON);
    command.arg("-c").arg(config).arg("-i");
    if transport == Transport::Plain {
        command.arg("-n");
    }
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.stdin(OwnedFd::from(stream)).stdout(output).stderr(Stdio::null()).process_group(0).spawn()
}
