//! The demo's stage: takes a configuration, lets daemons answer whatever it asks for, and starts master and satellites around it.
//! Hosts of the group `real` get Debian's daemon where it is installed, hosts of the group `gone` get none, all others the tests' own.
//! Does not wait and tells nobody; the program `perigee-demo` does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use master::config::{self, Catalog};
use serde_json::{Value, json};
use shared::check::{Check, NrpeCheck, NrpeTls};
use tempfile::TempDir;

use crate::audit::Audit;
use crate::daemon::answers;
use crate::fakes::Fakes;
use crate::fleet::Fleet;
use crate::nrpe::{self, RealNrpe};

/// The port that the configuration names; another one takes its place everywhere if it is in use.
const NRPE_PORT: u16 = 5666;
/// Ports that are tried when it is.
const PORTS_TRIED: usize = 50;
/// Where Debian keeps plugins.
const PLUGINS: &str = "/usr/lib/nagios/plugins";

/// A host's daemon, as the configuration needs it.
struct Asked {
    host: String,
    address: SocketAddr,
    plain: bool,
    versions: Vec<u16>,
    real: bool,
    commands: BTreeSet<String>,
}

/// Everything that was started.
pub struct Stage {
    /// Master and satellites.
    pub fleet: Fleet,
    /// The evidence about the tests' own daemons.
    pub audit: Audit,
    /// How many of Debian's daemons answer.
    pub real: usize,
    /// How many of the tests' own.
    pub fakes: usize,
    /// The NRPE port in use.
    pub port: u16,
    daemons: Vec<RealNrpe>,
    own: Option<Fakes>,
    asked: Vec<Asked>,
    // Last: removed when everything in it has ended.
    directory: TempDir,
}

impl Stage {
    /// Reads the configuration and lays everything out; nothing runs yet. `graphite`: where points go, if anywhere.
    ///
    /// # Errors
    /// The configuration has mistakes, or no port is free.
    pub fn set(config: &Path, graphite: Option<&str>) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("perigee-demo-").tempdir()?;
        let copy = directory.path().join("config");
        let asked = asked(&compiled(config)?);
        let addresses: Vec<IpAddr> = asked.iter().map(|asked| asked.address.ip()).collect();
        let port = free_port(&addresses)?;
        copy_of(config, &copy, port)?;
        if let Some(graphite) = graphite {
            let text = format!("# Where the demo's points go.\nwriters:\n  graphite: {{ address: \"{graphite}\" }}\n");
            fs::write(copy.join("store.yaml"), text)?;
        }
        let catalog = compiled(&copy)?;
        let slots: Vec<(&str, u32)> = catalog
            .regions
            .iter()
            .flat_map(|(region, definition)| (1..=definition.slots).map(move |slot| (region.as_str(), slot)))
            .collect();
        let fleet = Fleet::on_ports(directory.path(), &copy, &slots, 8080, 7443)?;
        let asked = self::asked(&catalog);
        let commands = numbered_commands(&catalog, &asked);
        let audit = Audit { commands, ..Audit::default() };
        Ok(Self { fleet, audit, real: 0, fakes: 0, port, daemons: Vec::new(), own: None, asked, directory })
    }

    /// Starts the daemons and waits until they listen.
    ///
    /// # Errors
    /// One does not start.
    pub fn start_daemons(&mut self) -> Result<()> {
        for asked in self.asked.iter().filter(|asked| asked.real) {
            let lines: Vec<(&str, String)> =
                asked.commands.iter().map(|command| (command.as_str(), real_command(command))).collect();
            let lines: Vec<(&str, &str)> = lines.iter().map(|(name, line)| (*name, line.as_str())).collect();
            let transport = if asked.plain { nrpe::Transport::Plain } else { nrpe::Transport::Anonymous };
            self.daemons.push(RealNrpe::start_on(asked.address, transport, &lines, "")?);
        }
        self.real = self.daemons.len();
        let daemons: Vec<Value> = self.asked.iter().filter(|asked| !asked.real).map(fake).collect();
        self.fakes = daemons.len();
        let own = Fakes::start(self.directory.path(), &daemons)?;
        self.audit.ledger.clone_from(&own.ledger);
        self.own = Some(own);
        Ok(())
    }

    /// The names of programs that should run and do not.
    pub fn missing(&mut self) -> Vec<String> {
        let mut missing = Vec::new();
        if !self.fleet.master.runs() {
            missing.push("the master".to_owned());
        }
        for (slot, satellite) in &mut self.fleet.satellites {
            if !satellite.runs() {
                missing.push(format!("satellite {slot}"));
            }
        }
        if !self.own.as_mut().is_some_and(Fakes::run) {
            missing.push("the tests' NRPE daemons".to_owned());
        }
        missing
    }

    /// Ends everything, satellites first.
    ///
    /// # Errors
    /// Master or a satellite does not end well; what is left is killed.
    pub fn end(mut self) -> Result<()> {
        let ended = self.fleet.terminate();
        self.daemons.clear();
        drop(self.own.take());
        ended
    }
}

fn compiled(config: &Path) -> Result<Catalog> {
    let sources = config::load(config).with_context(|| format!("reading {}", config.display()))?;
    match config::compile(&sources) {
        Ok((catalog, _)) => Ok(catalog),
        Err(mistakes) => bail!("{}: {mistakes:?}", config.display()),
    }
}

/// The daemons that a catalog needs.
fn asked(catalog: &Catalog) -> Vec<Asked> {
    let installed = Path::new(nrpe::DAEMON).exists();
    let mut daemons: BTreeMap<String, Asked> = BTreeMap::new();
    for (name, definition) in &catalog.objects {
        let (Check::Nrpe(check), Some(host)) = (&definition.check, catalog.hosts.get(&name.host)) else { continue };
        let Ok(address) = check.address.parse::<IpAddr>() else { continue };
        if host.groups.contains("gone") {
            continue;
        }
        let daemon = daemons.entry(name.host.to_string()).or_insert_with(|| Asked {
            host: name.host.to_string(),
            address: SocketAddr::from((address, check.port)),
            plain: check.tls == NrpeTls::Plain,
            versions: versions(check),
            real: installed && host.groups.contains("real"),
            commands: BTreeSet::new(),
        });
        if !check.asks_daemon() {
            daemon.commands.insert(check.command.clone());
        }
    }
    daemons.into_values().collect()
}

/// What such a daemon speaks: 4.x unless the configuration knows it to be older.
fn versions(check: &NrpeCheck) -> Vec<u16> {
    match check.version {
        Some(2) => vec![2],
        Some(3) => vec![2, 3],
        _ => vec![2, 4],
    }
}

/// Which command of which daemon a service asks, where answers are numbered.
fn numbered_commands(catalog: &Catalog, asked: &[Asked]) -> BTreeMap<(String, String), String> {
    let mut commands = BTreeMap::new();
    for (name, definition) in &catalog.objects {
        let host = name.host.to_string();
        let fake = asked.iter().any(|daemon| daemon.host == host && !daemon.real);
        if let (Check::Nrpe(check), Some(service), true) = (&definition.check, &name.service, fake)
            && !check.asks_daemon()
        {
            commands.insert((host, service.to_string()), check.command.clone());
        }
    }
    commands
}

/// A port that is free on all these addresses: the usual one if possible.
fn free_port(addresses: &[IpAddr]) -> Result<u16> {
    let free = |port| addresses.iter().all(|address| TcpListener::bind((*address, port)).is_ok());
    if free(NRPE_PORT) {
        return Ok(NRPE_PORT);
    }
    for _ in 0..PORTS_TRIED {
        let port = nrpe::free_port(Ipv4Addr::LOCALHOST)?;
        if free(port) {
            return Ok(port);
        }
    }
    bail!("no port is free on all of {addresses:?}")
}

/// Copies the configuration with another NRPE port in it.
fn copy_of(config: &Path, copy: &Path, port: u16) -> Result<()> {
    fs::create_dir_all(copy)?;
    for entry in fs::read_dir(config).with_context(|| format!("reading {}", config.display()))? {
        let path: PathBuf = entry?.path();
        let (Some(name), Some("yaml")) = (path.file_name(), path.extension().and_then(|end| end.to_str())) else {
            continue;
        };
        let text = fs::read_to_string(&path)?.replace(&NRPE_PORT.to_string(), &port.to_string());
        fs::write(copy.join(name), text)?;
    }
    Ok(())
}

/// What Debian's daemon runs for a command: the real plugin where it is installed.
fn real_command(command: &str) -> String {
    let plugin = |name: &str, arguments: &str| {
        let path = format!("{PLUGINS}/{name}");
        Path::new(&path).exists().then(|| format!("{path} {arguments}"))
    };
    let found = match command {
        "check_load" => plugin("check_load", "-w 60,50,40 -c 90,80,70"),
        "check_procs" => plugin("check_procs", "-w 5000 -c 9000"),
        "check_disk_root" => plugin("check_disk", "-w 1% -c 1% -p /"),
        _ => None,
    };
    found.unwrap_or_else(|| format!("/bin/echo 'OK - {command} is fine|time=0.012s;1;5;0'"))
}

/// One of the tests' own daemons, as `perigee-fake-nrpe` reads it.
fn fake(asked: &Asked) -> Value {
    let commands: BTreeMap<&str, Value> = asked
        .commands
        .iter()
        .map(|command| {
            let answer = answer(&asked.host, command);
            let of: Vec<Value> =
                answer.of.iter().map(|text| json!({ "state": text.state, "text": text.text })).collect();
            (command.as_str(), json!({ "every": answer.every, "of": of, "takes_ms": answer.takes_ms }))
        })
        .collect();
    json!({
        "host": asked.host,
        "listen": asked.address,
        "transport": if asked.plain { "plain" } else { "anonymous" },
        "versions": asked.versions,
        "commands": commands,
    })
}

/// What the tests' own daemons answer: mostly that all is well.
fn answer(host: &str, command: &str) -> answers::Command {
    match (command, host) {
        ("check_queue", _) => answers::Command::flapping(
            2,
            (0, "OK - 12 messages wait|waiting=12;100;500;0"),
            (2, "CRITICAL - 731 messages wait|waiting=731;100;500;0"),
        ),
        ("check_disk_var", "db1.us.demo") => {
            answers::Command::fixed(1, "DISK WARNING - free space: /var 812 MB (9%)|/var=8212MB;8000;8800;0;9024")
        }
        ("check_replication", "db1.eu.demo") => {
            answers::Command::fixed(2, "CRITICAL - replica is 734 s behind|lag=734s;60;300;0")
        }
        ("check_replication", _) => answers::Command::fixed(0, "OK - replica is 0 s behind|lag=0s;60;300;0"),
        ("check_load", _) => answers::Command::fixed(
            0,
            "OK - load average: 0.31, 0.22, 0.18|load1=0.310;60;90;0; load5=0.220;50;80;0; load15=0.180;40;70;0;",
        ),
        ("check_procs", _) => answers::Command::fixed(0, "PROCS OK: 142 processes|procs=142;5000;9000;0;"),
        ("check_disk_root", _) => {
            answers::Command::fixed(0, "DISK OK - free space: / 24711 MB (62%)|/=14982MB;36000;39000;0;39693")
        }
        _ => answers::Command::fixed(0, &format!("OK - {command} is fine|time=0.012s;1;5;0")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demo() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/demo")
    }

    #[test]
    fn the_demo_is_as_large_as_it_says_and_has_a_daemon_for_every_question() {
        let catalog = compiled(&demo()).unwrap();
        assert_eq!(catalog.regions.values().map(|region| region.slots).collect::<Vec<_>>(), [2, 2]);
        let services = catalog.objects.keys().filter(|name| name.service.is_some()).count();
        assert!(catalog.hosts.len() >= 6 && services >= 20, "{} hosts, {services} services", catalog.hosts.len());
        let asked = asked(&catalog);
        let gone: Vec<_> =
            catalog.hosts.keys().filter(|host| !asked.iter().any(|asked| asked.host == host.as_str())).collect();
        assert_eq!(gone.iter().map(|host| host.as_str()).collect::<Vec<_>>(), ["gone.us.demo"]);
        assert!(answer("mail.eu.demo", "check_queue").of.len() > 1, "the flapping service");
        let numbered = numbered_commands(&catalog, &asked);
        assert_eq!(numbered[&("mail.eu.demo".to_owned(), "queue".to_owned())], "check_queue");
    }

    #[test]
    fn another_port_stands_everywhere_in_the_copy() {
        let directory = tempfile::tempdir().unwrap();
        copy_of(&demo(), directory.path(), 15666).unwrap();
        let asked = asked(&compiled(directory.path()).unwrap());
        assert!(asked.iter().all(|asked| asked.address.port() == 15666));
    }
}
