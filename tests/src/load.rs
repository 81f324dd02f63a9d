//! A steady load for a fleet: so many hosts with so many services, each asked in the same interval and answered with a number. Says
//! what the daemons, the configuration and the ledger's judge need to know of it. Decides nothing about what happens to it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use crate::fakes::daemon;

/// No slot of any test is silent for so long.
const NEVER: Duration = Duration::from_secs(600);

/// Services of one host are called `s0`, `s1` and so on, their commands `c0`, `c1`; hosts `h00`, `h01`.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Hosts.
    pub hosts: usize,
    /// Services of each.
    pub services: usize,
    /// Each service is checked once in this time.
    pub interval: Duration,
    /// One more service of every host, `slow`, checked once in this time.
    pub slow: Option<Duration>,
}

impl Load {
    /// Two hundred results a second.
    pub const TWO_HUNDRED: Load = Load { hosts: 20, services: 10, interval: Duration::from_secs(1), slow: None };

    fn names(&self) -> impl Iterator<Item = String> {
        (0..self.hosts).map(|host| format!("h{host:02}"))
    }

    /// The daemons, as [`crate::fakes::Fakes::start`] takes them: everything is OK.
    #[must_use]
    pub fn daemons(&self) -> Vec<Value> {
        let commands: Vec<(String, String)> =
            (0..self.services).map(|n| (format!("c{n}"), format!("OK - {n}|value={n};5;8"))).collect();
        let commands = [commands, vec![("slow".to_owned(), "OK - slow".to_owned())]].concat();
        let commands: Vec<(&str, i16, &str)> =
            commands.iter().map(|(name, text)| (name.as_str(), 0, text.as_str())).collect();
        self.names().map(|host| daemon(&host, "plain", &commands)).collect()
    }

    /// The configuration: all hosts in the region `eu` with so many slots, none of which is ever failed over. A first problem is
    /// hard at once.
    #[must_use]
    pub fn configuration(&self, slots: u32, addresses: &BTreeMap<String, SocketAddr>) -> String {
        self.configuration_with(slots, NEVER, addresses)
    }

    /// The same, where a slot of which nothing is heard for so many whole seconds is failed over.
    #[must_use]
    pub fn configuration_with(
        &self,
        slots: u32,
        failover_after: Duration,
        addresses: &BTreeMap<String, SocketAddr>,
    ) -> String {
        let (interval, failover_after) = (self.interval.as_millis(), failover_after.as_secs());
        let mut text = format!(
            "regions:\n  eu: {{ slots: {slots}, failover_after: {failover_after}s }}\n\
             templates:\n  fast: {{ check_interval: {interval}ms, \
             retry_interval: {interval}ms, timeout: 60s, max_check_attempts: 1 }}\nhosts:\n"
        );
        for (host, address) in addresses {
            let (ip, port) = (address.ip(), address.port());
            let _ = writeln!(
                text,
                "  {host}: {{ region: eu, address: {ip}, nrpe: {{ tls: plain, port: {port}, service: false }}, check_interval: 10s }}"
            );
        }
        text.push_str("services:\n");
        for service in 0..self.services {
            let _ = writeln!(text, "  s{service}: {{ hosts: [\"*\"], use: [fast], check: {{ nrpe: c{service} }} }}");
        }
        if let Some(slow) = self.slow {
            let slow = slow.as_millis();
            let _ = writeln!(
                text,
                "  slow: {{ hosts: [\"*\"], use: [fast], check_interval: {slow}ms, retry_interval: {slow}ms, check: {{ nrpe: slow }} }}"
            );
        }
        text
    }

    /// Command by host and service, for the ledger's judge.
    #[must_use]
    pub fn commands(&self) -> BTreeMap<(String, String), String> {
        let of = |host: String| (0..self.services).map(move |n| ((host.clone(), format!("s{n}")), format!("c{n}")));
        let slow = |host: String| self.slow.map(|_| ((host, "slow".to_owned()), "slow".to_owned()));
        self.names().flat_map(of).chain(self.names().filter_map(slow)).collect()
    }
}
