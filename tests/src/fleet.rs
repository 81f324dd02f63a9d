//! A whole installation out of real processes: one master and its satellites, on free loopback ports, in a directory of its own. Each
//! can be started, killed, told to end and started again. Decides nothing about what is monitored; the configuration is given.
//! The surprise: a program may be started through another one (`strace`), whose group then dies with it.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use shared::wall::OFFSET_FILE;

use crate::http::Client;
use crate::process::{Process, text};
use crate::wait::until;

/// How long a process may take until it answers. Much more than it needs: machines are busy.
pub const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long a process that was told to end may take.
pub const ENDED_WITHIN: Duration = Duration::from_secs(20);
/// What the programs log in addition to `info`: what the ledger's judge reads.
const LOG_FILTER: &str =
    "info,perigee::ack=debug,perigee::acknowledging=debug,perigee::durable=debug,perigee::void=debug";
/// Certificates of tests and demos hold for a day.
const DAYS: &str = "1";

/// The built program of this name, beside the one that is running.
///
/// # Errors
/// It is not there; `make build` makes it.
pub fn program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("the running program's place")?;
    let beside = own.parent().filter(|folder| !folder.ends_with("deps")).or_else(|| own.parent()?.parent());
    let path = beside.map(|folder| folder.join(name)).filter(|path| path.exists());
    path.with_context(|| format!("{name} is not beside {}: make build", own.display()))
}

/// A TCP address of 127.0.0.1 that was free a moment ago: `wanted` if it is.
///
/// # Errors
/// No port is free.
pub fn free_tcp(wanted: u16) -> Result<SocketAddr> {
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener = TcpListener::bind(local(wanted)).or_else(|_| TcpListener::bind(local(0)));
    Ok(listener.context("no free TCP port")?.local_addr()?)
}

/// The same of UDP.
///
/// # Errors
/// No port is free.
pub fn free_udp(wanted: u16) -> Result<SocketAddr> {
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let socket = UdpSocket::bind(local(wanted)).or_else(|_| UdpSocket::bind(local(0)));
    Ok(socket.context("no free UDP port")?.local_addr()?)
}

/// The master: its directories, its addresses, its process.
#[derive(Debug)]
pub struct Master {
    /// File or directory of its configuration.
    pub config: PathBuf,
    /// Its data directory.
    pub data: PathBuf,
    /// Where its page and API are.
    pub web: SocketAddr,
    /// Where satellites connect.
    pub link: SocketAddr,
    /// What its process has logged, all of them together.
    pub log: PathBuf,
    /// Program and arguments that it is started through.
    pub through: Vec<String>,
    /// What this file says puts off the clock of its process and of its command line (`shared::wall`).
    pub clock: Option<PathBuf>,
    process: Option<Process>,
}

/// A satellite: its directories and its process.
#[derive(Debug)]
pub struct Satellite {
    /// Its region.
    pub region: String,
    /// Its slot.
    pub number: u32,
    /// Its volume.
    pub data: PathBuf,
    /// Where its certificate is.
    pub identity: PathBuf,
    /// What its processes have logged, all of them together.
    pub log: PathBuf,
    /// Program and arguments that it is started through.
    pub through: Vec<String>,
    /// Further arguments of its own.
    pub more: Vec<String>,
    /// Where it is told that its master is, if not where the master listens.
    pub road: Option<SocketAddr>,
    /// What this file says puts off the clock of its process (`shared::wall`).
    pub clock: Option<PathBuf>,
    process: Option<Process>,
}

/// Master and satellites.
#[derive(Debug)]
pub struct Fleet {
    /// Where everything of it lies.
    pub directory: PathBuf,
    /// The master.
    pub master: Master,
    /// The satellites by `region/number`.
    pub satellites: BTreeMap<String, Satellite>,
}

fn command(program: PathBuf, through: &[String], clock: Option<&Path>) -> Command {
    let mut command = match through.split_first() {
        None => Command::new(program),
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
    };
    command.envs(clock.map(|file| (OFFSET_FILE, file)));
    command
}

impl Master {
    /// A client of its API.
    #[must_use]
    pub fn api(&self) -> Client {
        Client::new(self.web)
    }

    /// Starts it and waits until its API answers.
    ///
    /// # Errors
    /// It ends at once, or does not answer; its last words are in the message.
    pub fn start(&mut self) -> Result<()> {
        let mut command = command(program("perigee-master")?, &self.through, self.clock.as_deref());
        command.args(["--log", LOG_FILTER, "serve", "--open-reads", "--config"]).arg(&self.config);
        command.arg("--data").arg(&self.data);
        command.args(["--listen", &self.web.to_string(), "--link", &self.link.to_string()]);
        self.process = Some(Process::start("perigee-master", &mut command, &self.log)?);
        let api = self.api();
        let mut ended = None;
        let ready = until(READY_WITHIN, || {
            ended = self.process.as_mut().and_then(Process::ended);
            ended.is_some() || api.get("status").is_ok()
        });
        match ended {
            None if ready => Ok(()),
            None => bail!("the master does not answer within {READY_WITHIN:?}\n{}", self.last_words()),
            Some(status) => bail!("the master has ended ({status})\n{}", self.last_words()),
        }
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// It does not go.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), |mut process| process.kill())
    }

    /// SIGTERM, and waits for its end, which must be a good one.
    ///
    /// # Errors
    /// It does not end in time, or with another code than 0.
    pub fn terminate(&mut self) -> Result<()> {
        terminate("perigee-master", self.process.take())
    }

    /// Sends it a signal by name.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal(&self, name: &str) -> Result<()> {
        self.process.as_ref().context("the master does not run")?.signal(name)
    }

    /// Whether it runs.
    pub fn runs(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.ended().is_none())
    }

    /// The number of its process.
    ///
    /// # Errors
    /// It does not run.
    pub fn process_id(&self) -> Result<u32> {
        self.process.as_ref().map(Process::pid).context("the master does not run")
    }

    /// The number of its process, or of what it is started through.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// The end of its log.
    #[must_use]
    pub fn last_words(&self) -> String {
        self.process.as_ref().map_or_else(|| text(&self.log), Process::last_words)
    }

    /// Runs another command of its program with these arguments, `--data` included if `local`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn run(&self, arguments: &[&str], local: bool) -> Result<Output> {
        let mut command = command(program("perigee-master")?, &[], self.clock.as_deref());
        command.args(arguments);
        if local {
            command.arg("--data").arg(&self.data);
        }
        command.output().with_context(|| format!("perigee-master {}", arguments.join(" ")))
    }
}

impl Satellite {
    fn new(directory: &Path, name: &str, region: &str, number: u32) -> Result<Self> {
        let satellite = Self {
            region: region.to_owned(),
            number,
            data: directory.join(name),
            identity: directory.join(format!("{name}.identity")),
            log: directory.join(format!("{name}.log")),
            through: Vec::new(),
            more: Vec::new(),
            road: None,
            clock: None,
            process: None,
        };
        fs::create_dir_all(&satellite.data).with_context(|| format!("cannot make {}", satellite.data.display()))?;
        Ok(satellite)
    }

    /// Another process of the same slot with the same certificate, on a volume of its own; nothing runs yet.
    ///
    /// # Errors
    /// Its volume cannot be made.
    pub fn claimant(&self, directory: &Path, name: &str) -> Result<Self> {
        let other = Self::new(directory, name, &self.region, self.number)?;
        Ok(Self { identity: self.identity.clone(), road: self.road, clock: self.clock.clone(), ..other })
    }

    /// Its slot as `region/number`.
    #[must_use]
    pub fn slot(&self) -> String {
        format!("{}/{}", self.region, self.number)
    }

    /// Starts it; it waits by itself for whatever is not there yet.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&mut self, master: SocketAddr) -> Result<()> {
        let mut command = command(program("perigee-satellite")?, &self.through, self.clock.as_deref());
        let master = self.road.unwrap_or(master);
        command.args(["run", "--log", LOG_FILTER, "--master", &master.to_string(), "--region", &self.region]);
        command.args(["--slot", &self.number.to_string(), "--data"]).arg(&self.data);
        command.arg("--identity").arg(&self.identity).args(&self.more);
        self.process = Some(Process::start(&format!("satellite {}", self.slot()), &mut command, &self.log)?);
        Ok(())
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// It does not go.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), |mut process| process.kill())
    }

    /// SIGTERM, and waits for its end, which must be a good one.
    ///
    /// # Errors
    /// It does not end in time, or with another code than 0.
    pub fn terminate(&mut self) -> Result<()> {
        terminate("perigee-satellite", self.process.take())
    }

    /// Sends it a signal by name.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal(&self, name: &str) -> Result<()> {
        self.process.as_ref().with_context(|| format!("satellite {} does not run", self.slot()))?.signal(name)
    }

    /// Whether it runs.
    pub fn runs(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.ended().is_none())
    }

    /// The number of its process, or of what it is started through.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Everything it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        text(&self.log)
    }
}

fn terminate(name: &str, process: Option<Process>) -> Result<()> {
    let Some(mut process) = process else { return Ok(()) };
    let status = process.terminate(ENDED_WITHIN)?;
    ensure!(status.success(), "{name} ended with {status}\n{}", process.last_words());
    Ok(())
}

impl Fleet {
    /// Lays a fleet out in `directory`: nothing runs yet. `slots` are region and number.
    ///
    /// # Errors
    /// The directory cannot be written, or no port is free.
    pub fn new(directory: &Path, config: &Path, slots: &[(&str, u32)]) -> Result<Self> {
        Self::on_ports(directory, config, slots, 0, 0)
    }

    /// The same with ports that are wanted and taken if they are free.
    ///
    /// # Errors
    /// As [`Fleet::new`].
    pub fn on_ports(directory: &Path, config: &Path, slots: &[(&str, u32)], web: u16, link: u16) -> Result<Self> {
        let master = Master {
            config: config.to_owned(),
            data: directory.join("master"),
            web: free_tcp(web)?,
            link: free_udp(link)?,
            log: directory.join("master.log"),
            through: Vec::new(),
            clock: None,
            process: None,
        };
        let mut satellites = BTreeMap::new();
        for (region, number) in slots {
            let satellite = Satellite::new(directory, &format!("{region}-{number}"), region, *number)?;
            satellites.insert(satellite.slot(), satellite);
        }
        Ok(Self { directory: directory.to_owned(), master, satellites })
    }

    /// Starts the master, makes the certificates, starts the satellites. Does not wait for them.
    ///
    /// # Errors
    /// One of it does not succeed.
    pub fn start(&mut self) -> Result<()> {
        self.master.start()?;
        self.certify()?;
        self.start_satellites()
    }

    /// Makes the certificates that are missing, on the master's machine as an operator does.
    ///
    /// # Errors
    /// The master's program refuses; its words are in the message.
    pub fn certify(&self) -> Result<()> {
        for satellite in self.satellites.values().filter(|satellite| !satellite.identity.join("slot.crt").exists()) {
            let number = satellite.number.to_string();
            let out = satellite.identity.to_string_lossy();
            let arguments =
                ["certificate", "--region", &satellite.region, "--slot", &number, "--days", DAYS, "--out", &out];
            let made = self.master.run(&arguments, true)?;
            ensure!(made.status.success(), "certificate: {}", String::from_utf8_lossy(&made.stderr));
        }
        Ok(())
    }

    /// Starts every satellite that does not run.
    ///
    /// # Errors
    /// One cannot be started.
    pub fn start_satellites(&mut self) -> Result<()> {
        let link = self.master.link;
        for satellite in self.satellites.values_mut() {
            if !satellite.runs() {
                satellite.start(link)?;
            }
        }
        Ok(())
    }

    /// The satellite of a slot.
    ///
    /// # Errors
    /// There is none.
    pub fn satellite(&mut self, slot: &str) -> Result<&mut Satellite> {
        self.satellites.get_mut(slot).with_context(|| format!("no satellite {slot}"))
    }

    /// Waits until the API says so; an answer that does not come counts as no.
    ///
    /// # Errors
    /// It does not within the time; the end of the master's log is in the message.
    pub fn until(&self, what: &str, within: Duration, mut holds: impl FnMut(&Client) -> Result<bool>) -> Result<()> {
        let api = self.master.api();
        let mut last = None;
        let reached = until(within, || match holds(&api) {
            Ok(holds) => holds,
            Err(error) => {
                last = Some(error);
                false
            }
        });
        let why = last.map(|error| format!(" ({error:#})")).unwrap_or_default();
        ensure!(reached, "not {what} within {within:?}{why}\n{}", self.last_words());
        Ok(())
    }

    /// Waits until as many slots are connected as satellites run.
    ///
    /// # Errors
    /// They are not within the time.
    pub fn until_connected(&mut self, within: Duration) -> Result<()> {
        let running = self.satellites.values_mut().filter_map(|satellite| satellite.runs().then_some(())).count();
        self.until("connected", within, |api| Ok(connected(&api.items("slots", "")?) == running))
    }

    /// Tells all to end: satellites first, so that they can deliver.
    ///
    /// # Errors
    /// One does not end, or not well; the others are told all the same.
    pub fn terminate(&mut self) -> Result<()> {
        let mut ends: Vec<Result<()>> = self.satellites.values_mut().map(Satellite::terminate).collect();
        ends.push(self.master.terminate());
        ends.into_iter().collect()
    }

    /// The ends of all logs.
    #[must_use]
    pub fn last_words(&self) -> String {
        let satellites = self.satellites.values().filter_map(|satellite| satellite.process.as_ref());
        let satellites = satellites.map(Process::last_words);
        satellites.chain([self.master.last_words()]).collect::<Vec<_>>().join("\n")
    }
}

/// How many of these slots are connected.
#[must_use]
pub fn connected(slots: &[Value]) -> usize {
    slots.iter().filter(|slot| slot.get("connected") == Some(&Value::Bool(true))).count()
}
