//! The tests' own NRPE daemons as one process beside a fleet: started from a description, steered by control files while they run,
//! with their ledger in the directory given. What they are is in `daemon`; this only runs them.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::fleet::program;
use crate::process::Process;
use crate::wait::until;

/// How long the daemons may take to listen.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Running daemons.
#[derive(Debug)]
pub struct Fakes {
    /// Every answer they gave.
    pub ledger: PathBuf,
    /// Where each of them listens.
    pub addresses: BTreeMap<String, SocketAddr>,
    control: PathBuf,
    process: Process,
}

/// Describes a daemon on a free port of 127.0.0.1 that always answers so: `(command, state, text)`.
#[must_use]
pub fn daemon(host: &str, transport: &str, commands: &[(&str, i16, &str)]) -> Value {
    let commands: BTreeMap<&str, Value> = commands
        .iter()
        .map(|(name, state, text)| (*name, json!({ "of": [{ "state": state, "text": text }] })))
        .collect();
    json!({ "host": host, "listen": "127.0.0.1:0", "transport": transport, "commands": commands })
}

impl Fakes {
    /// Starts the daemons, each as `perigee-fake-nrpe --config` reads it, and waits until all of them listen.
    ///
    /// # Errors
    /// One cannot; the end of their log is in the message.
    pub fn start(directory: &Path, daemons: &[Value]) -> Result<Self> {
        Self::start_through(directory, daemons, &[])
    }

    /// The same, started through another program and its arguments.
    ///
    /// # Errors
    /// As [`Fakes::start`].
    pub fn start_through(directory: &Path, daemons: &[Value], through: &[String]) -> Result<Self> {
        let program = program("perigee-fake-nrpe")?;
        let command = match through.split_first() {
            None => Command::new(program),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
        };
        Self::started(directory, json!({ "daemons": daemons }), daemons.len(), command)
    }

    /// Starts hostile daemons, each as `perigee-fake-nrpe --config` reads it. They stand for other machines, so they get this one's
    /// processors last.
    ///
    /// # Errors
    /// As [`Fakes::start`].
    pub fn start_hostile(directory: &Path, hostile: &[Value]) -> Result<Self> {
        let mut command = Command::new("nice");
        command.args(["-n", "19"]).arg(program("perigee-fake-nrpe")?);
        Self::started(directory, json!({ "daemons": [], "hostile": hostile }), hostile.len(), command)
    }

    fn started(directory: &Path, mut fleet: Value, count: usize, mut command: Command) -> Result<Self> {
        let (ledger, control) = (directory.join("ledger"), directory.join("control"));
        fleet["ledger"] = json!(ledger);
        fleet["control"] = json!(control);
        let config = directory.join("fakes.json");
        fs::write(&config, fleet.to_string())?;
        command.arg("--config").arg(&config);
        let log = directory.join("fakes.log");
        let mut process = Process::start("the tests' NRPE daemons", &mut command, &log)?;
        let mut ready = None;
        until(READY_WITHIN, || {
            ready = process.log().lines().find_map(|line| serde_json::from_str::<Value>(line).ok());
            ready.is_some() || process.ended().is_some()
        });
        let ready = ready.as_ref().and_then(|ready| ready.get("ready")).and_then(Value::as_object);
        let ready = ready.with_context(|| format!("the daemons do not start\n{}", process.last_words()))?;
        let mut addresses = BTreeMap::new();
        for (host, address) in ready {
            addresses.insert(host.clone(), address.as_str().unwrap_or_default().parse()?);
        }
        ensure!(addresses.len() == count, "two daemons have one name");
        Ok(Self { ledger, addresses, control, process })
    }

    /// Lets a command answer otherwise from now on: `2 broken`, `eof`, `hang`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn say(&self, host: &str, command: &str, order: &str) -> Result<()> {
        let directory = self.control.join(host);
        fs::create_dir_all(&directory)?;
        // Written beside its place, so that no daemon reads the half of it.
        let half = directory.join(format!(".{command}"));
        fs::write(&half, order)?;
        fs::rename(&half, directory.join(command))?;
        Ok(())
    }

    /// Whether they still run.
    pub fn run(&mut self) -> bool {
        self.process.ended().is_none()
    }
}
