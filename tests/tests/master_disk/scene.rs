//! What both tests watch: numbered answers of plain daemons, checked every second by two slots.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tests::audit::Audit;
use tests::fakes::{Fakes, daemon};
use tests::fleet::Fleet;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const SERVICES: usize = 5;
/// The last command takes so long, so that at most moments somebody is being asked.
const SLOW_MS: u64 = 600;
/// The command that answers for a host itself.
const ALIVE: &str = "alive";

/// Daemons, fleet, and the ledger's judge.
pub(crate) struct Scene {
    pub(crate) fakes: Fakes,
    pub(crate) fleet: Fleet,
    pub(crate) audit: Audit,
    pub(crate) config: PathBuf,
}

/// The configuration of these hosts, each with all services. Their own checks ask the daemons as well, so that every result is a numbered
/// answer.
pub(crate) fn configuration(fakes: &Fakes, hosts: &[String]) -> String {
    let mut text = String::from(
        "regions:\n  eu: { slots: 2, failover_after: 10m }\n\
         templates:\n  fast: { check_interval: 1s, retry_interval: 1s, timeout: 10s, max_check_attempts: 1 }\nhosts:\n",
    );
    for host in hosts {
        let address = fakes.addresses[host];
        let _ = writeln!(
            text,
            "  {host}: {{ region: eu, address: {}, nrpe: {{ tls: plain, port: {}, service: false }}, \
             check_interval: 1s, check: {{ nrpe: {ALIVE} }} }}",
            address.ip(),
            address.port()
        );
    }
    text.push_str("services:\n");
    for service in 0..SERVICES {
        let _ = writeln!(text, "  s{service}: {{ hosts: [\"*\"], use: [fast], check: {{ nrpe: c{service} }} }}");
    }
    text
}

impl Scene {
    /// Daemons for `hosts` hosts named `h00` and on, of which `first` are configured; nothing runs yet. `master` is where the master's
    /// data directory lies.
    pub(crate) fn new(directory: &Path, master: &Path, hosts: usize, first: usize) -> Self {
        let names: Vec<(String, String)> =
            (0..SERVICES).map(|n| (format!("c{n}"), format!("OK - {n}|value={n};5;8"))).collect();
        let commands: Vec<(&str, i16, &str)> =
            names.iter().map(|(name, text)| (name.as_str(), 0, text.as_str())).chain([(ALIVE, 0, "OK")]).collect();
        let daemons = (0..hosts).map(|host| {
            let mut daemon = daemon(&host_name(host), "plain", &commands);
            daemon["commands"][names[SERVICES - 1].0.as_str()]["takes_ms"] = SLOW_MS.into();
            daemon
        });
        let daemons: Vec<Value> = daemons.collect();
        let fakes = Fakes::start(directory, &daemons).unwrap();
        let config = directory.join("site.yaml");
        let configured: Vec<String> = (0..first).map(host_name).collect();
        fs::write(&config, configuration(&fakes, &configured)).unwrap();
        let mut fleet = Fleet::new(directory, &config, &[("eu", 1), ("eu", 2)]).unwrap();
        fleet.master.data = master.join("master");
        let mut audit = Audit { ledger: fakes.ledger.clone(), ..Audit::default() };
        audit.commands = commands_of(0..first);
        Self { fakes, fleet, audit, config }
    }

    /// Answers in the ledger by now.
    pub(crate) fn answers(&self) -> usize {
        tests::process::text(&self.fakes.ledger).lines().count()
    }

    /// Waits until the daemons have answered so many questions more.
    pub(crate) fn until_answered(&self, more: usize) {
        let wanted = self.answers() + more;
        let reached = tests::wait::until(PATIENCE, || self.answers() >= wanted);
        assert!(reached, "{} of {wanted} answers within {PATIENCE:?}\n{}", self.answers(), self.fleet.last_words());
    }
}

pub(crate) fn host_name(number: usize) -> String {
    format!("h{number:02}")
}

/// Command by host and service; the host's own check is that of no service.
pub(crate) fn commands_of(hosts: std::ops::Range<usize>) -> BTreeMap<(String, String), String> {
    let of = |host| {
        let services = (0..SERVICES).map(move |n| ((host_name(host), format!("s{n}")), format!("c{n}")));
        services.chain([((host_name(host), String::new()), ALIVE.to_owned())])
    };
    hosts.flat_map(of).collect()
}
