//! Our agent as Debian's daemon is started in the tests: from the same `nrpe.cfg`, on a port of its own, ready when it is handed
//! out, gone when it is dropped. Knows nothing of what it should answer.
//!
//! The surprise: as root it becomes `nobody` like the daemon, by the same two lines of the configuration.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use crate::fleet::program;
use crate::nrpe::mode::{Keys, Mode};
use crate::nrpe::setup::{Setup, Transport};
use crate::nrpe::{Said, ask, free_port, is_root, room, text_of};
use crate::process::Process;
use crate::wait::until;

/// How long an agent may take until it listens, has read its configuration again, or ends.
pub const SOON: Duration = Duration::from_secs(20);
/// A free port may be taken by somebody else before the agent has it; then the next one is tried.
const PORTS_TRIED: usize = 5;

/// What makes a program process 1 of its own table of processes, as in a container; nothing of it outlives `unshare`.
const FIRST: [&str; 5] = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];

/// A running agent; dropped, it is killed.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    directory: TempDir,
    setup: Setup,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Agent {
    /// Starts an agent on a free port of 127.0.0.1 with these commands (name, command line) and further lines of configuration.
    ///
    /// # Errors
    /// It does not start; its log is in the message.
    pub fn start(transport: Transport, commands: &[(&str, &str)], settings: &str) -> Result<Self> {
        Self::set_up(Setup::new(nowhere(), transport, commands, settings))
    }

    /// The same in a mode that daemons are found in.
    ///
    /// # Errors
    /// It does not start; its log is in the message.
    pub fn in_mode(mode: Mode, keys: &Keys, commands: &[(&str, &str)], settings: &str) -> Result<Self> {
        Self::set_up(mode.setup(nowhere(), keys, commands, settings))
    }

    /// Starts an agent; on a free port if the address has none.
    ///
    /// # Errors
    /// It does not start; its log is in the message.
    pub fn set_up(setup: Setup) -> Result<Self> {
        Self::under(&[], setup)
    }

    /// Starts an agent as process 1 of its own table of processes; [`Agent::pid`] is that of its parent, `unshare`. None where
    /// nobody may have such a table.
    ///
    /// # Errors
    /// It does not start; its log is in the message.
    pub fn as_first_process(commands: &[(&str, &str)], settings: &str) -> Result<Option<Self>> {
        let [program, options @ ..] = FIRST;
        if !Command::new(program).args(options).arg("true").output().is_ok_and(|output| output.status.success()) {
            return Ok(None);
        }
        Self::under(&FIRST, Setup::new(nowhere(), Transport::Plain, commands, settings)).map(Some)
    }

    fn under(launcher: &[&str], mut setup: Setup) -> Result<Self> {
        let any = setup.address.port() == 0;
        let mut last = None;
        for _ in 0..PORTS_TRIED {
            if any {
                setup.address.set_port(free_port(Ipv4Addr::LOCALHOST)?);
            }
            match Self::begin(launcher, setup.clone()) {
                Err(error) if any && format!("{error:#}").contains("in use") => last = Some(error),
                begun => return begun,
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("no port was tried")))
    }

    fn begin(launcher: &[&str], setup: Setup) -> Result<Self> {
        let (directory, log) = room()?;
        let config = directory.path().join("nrpe.cfg");
        std::fs::write(&config, setup.text(&log, is_root()))?;
        let mut command = match launcher {
            [] => call(&["--config"])?,
            [first, options @ ..] => {
                let agent = call(&["--config"])?;
                let mut command = Command::new(first);
                command.args(options).arg(agent.get_program()).args(agent.get_args());
                command.env_remove("PERIGEE_AGENT_CONFIG").env_remove("PERIGEE_LOG");
                command
            }
        };
        command.arg(&config);
        if setup.transport == Transport::Plain {
            command.arg("--no-tls");
        }
        let process = Process::start("perigee-satellite agent", &mut command, &directory.path().join("agent.log"))?;
        let address = setup.address;
        let mut agent = Self { process, directory, setup, address };
        let mut ended = None;
        let ready = until(SOON, || {
            ended = agent.process.ended();
            ended.is_some() || TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
        });
        match ended {
            None if ready => Ok(agent),
            ended => bail!("the agent does not listen on {address} ({ended:?}): {}", agent.log()),
        }
    }

    /// Gives it other commands and settings, and tells it to read them (SIGHUP); `said` is what it logs then.
    ///
    /// # Errors
    /// It cannot be told, or does not say so in time.
    pub fn reload(&mut self, commands: &[(&str, &str)], settings: &str, said: &str) -> Result<()> {
        self.setup.commands = crate::nrpe::setup::owned(commands);
        settings.clone_into(&mut self.setup.settings);
        let text = self.setup.text(&self.directory.path().join("nrpe.log"), is_root());
        std::fs::write(self.config(), text)?;
        let before = self.log().matches(said).count();
        self.process.signal("HUP")?;
        let read = until(SOON, || self.log().matches(said).count() > before);
        ensure!(read, "after SIGHUP the agent does not say {said:?}: {}", self.log());
        Ok(())
    }

    /// SIGTERM, and its exit code.
    ///
    /// # Errors
    /// It does not end.
    pub fn terminate(&mut self) -> Result<Option<i32>> {
        Ok(self.process.terminate(SOON)?.code())
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.directory.path().join("nrpe.cfg")
    }

    /// Everything it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        format!("{}{}", text_of(self.directory.path()), self.process.log())
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.process.ended().is_none()
    }

    /// A directory that lives as long as the agent and that its commands may read and write.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Asks it with Debian's client.
    ///
    /// # Errors
    /// The client cannot be started.
    pub fn check_nrpe(&self, command: &str, timeout: Duration, more: &[&str]) -> Result<Said> {
        ask(self.address, self.setup.transport, command, timeout, more)
    }
}

/// Runs `perigee-satellite agent` with these words to its end.
///
/// # Errors
/// It cannot be started.
pub fn output(words: &[&str]) -> Result<Output> {
    call(words)?.output().context("perigee-satellite agent")
}

/// `perigee-satellite agent` with these words, not yet started, and without settings from the environment.
///
/// # Errors
/// It is not built.
pub fn call(words: &[&str]) -> Result<Command> {
    let mut command = Command::new(program("perigee-satellite")?);
    command.arg("agent").args(words).env_remove("PERIGEE_AGENT_CONFIG").env_remove("PERIGEE_LOG");
    Ok(command)
}

fn nowhere() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}
