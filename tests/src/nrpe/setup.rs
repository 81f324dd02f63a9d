//! How a daemon of a test is set up, and the `nrpe.cfg` that says so. Knows no process and no mode.
//!
//! The surprise: the address is the only thing that nrpe cannot find out for itself; port 0 means port 0 to it.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

/// How the daemon is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Bare packets (`-n`).
    Plain,
    /// TLS as a stock daemon without certificates has it: anonymous.
    Anonymous,
}

/// A daemon before it is started.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Where it listens. nrpe cannot choose a port by itself.
    pub address: SocketAddr,
    /// Bare or inside TLS.
    pub transport: Transport,
    /// Its commands: name, command line (`$$` is one `$`).
    pub commands: Vec<(String, String)>,
    /// Who may ask.
    pub allowed_hosts: String,
    /// Connections that may wait to be accepted; `None`: nrpe's own 5.
    pub backlog: Option<u32>,
    /// Further lines.
    pub settings: String,
}

impl Setup {
    /// A daemon on this address that all of loopback may ask, many at once.
    #[must_use]
    pub fn new(address: SocketAddr, transport: Transport, commands: &[(&str, &str)], settings: &str) -> Self {
        Self {
            address,
            transport,
            commands: owned(commands),
            allowed_hosts: "127.0.0.0/8,::1".to_owned(),
            backlog: Some(1024),
            settings: settings.to_owned(),
        }
    }

    /// The text of its configuration, with its log in this file. As root it is told to become `nobody`, which nrpe insists on.
    #[must_use]
    pub fn text(&self, log: &Path, root: bool) -> String {
        let Self { address, allowed_hosts, .. } = self;
        let (ip, port, log) = (address.ip(), address.port(), log.display());
        let mut text =
            format!("server_address={ip}\nserver_port={port}\nallowed_hosts={allowed_hosts}\nlog_file={log}\n");
        if let Some(backlog) = self.backlog {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "listen_queue_size={backlog}");
        }
        if root {
            text.push_str("nrpe_user=nobody\nnrpe_group=nogroup\n");
        }
        for (name, line) in &self.commands {
            let _ = writeln!(text, "command[{name}]={line}");
        }
        text.push_str(&self.settings);
        text
    }
}

/// Commands as a setup keeps them.
#[must_use]
pub fn owned(commands: &[(&str, &str)]) -> Vec<(String, String)> {
    commands.iter().map(|&(name, line)| (name.to_owned(), line.to_owned())).collect()
}
