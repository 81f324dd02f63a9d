//! Runs one check within its timeout and says what was seen. Decides how many connections may be open at once, to one host and
//! in all, and turns what a probe found into an outcome. Knows nothing of schedules, attempts or delivery.
//!
//! The surprise: waiting for a free connection costs a check nothing of its timeout, but may last no longer than it. A stock
//! NRPE daemon has a backlog of five; a sixth connection would stall for ten seconds and more.
#![expect(clippy::disallowed_methods, reason = "a shell room: it stamps outcomes and measures their duration")]

pub mod certificate;
pub mod dial;
pub mod dns;
pub mod found;
pub mod http;
pub mod icmp;
pub mod nrpe;
pub mod plugin;
pub mod ssh;
pub mod tcp;
pub mod tls;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::check::{Check, Exit, NrpeCheck, NrpeName, NrpeTls, NrpeTrust, Outcome, PluginCheck, State};
use shared::perfdata;
use shared::text::is_obeyed;
use shared::time::Timestamp;
use shared::wall;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use self::found::Found;
use self::nrpe::error::{Class, Fault, Phase};
use self::nrpe::packet::Version;
use self::nrpe::policy::{Endpoint, Identity, NameRule, Peer, Security, TlsPolicy};
use self::nrpe::{Client, Query, Reply};
use self::plugin::Plugins;
use self::tls::Trust;

/// Connections to one host at once; further checks of it wait in order of arrival.
pub const CONNECTIONS_PER_HOST: usize = 3;
/// Connections of the whole satellite at once; further checks wait in order of arrival. Half of the 1024 file descriptors that
/// a process usually has.
pub const CONNECTIONS: usize = 512;
/// Files and sockets that all checks may have open at a time: a connection and the question for its name; what a plugin says, and
/// what tells its end.
pub const DESCRIPTORS: usize = 2 * CONNECTIONS + 4 * plugin::PLUGINS;

/// Runs checks. One for the whole satellite: it remembers daemons and counts connections.
#[derive(Debug)]
pub struct Prober {
    nrpe: Client,
    trust: Trust,
    plugins: Plugins,
    hosts: Mutex<HashMap<String, Arc<Semaphore>>>,
    all: Arc<Semaphore>,
}

/// A place among the connections of a host and of the satellite, given back when dropped.
#[derive(Debug)]
struct Place<'a> {
    prober: &'a Prober,
    host: String,
    lane: Arc<Semaphore>,
    permits: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
}

impl Prober {
    /// A prober without memories.
    ///
    /// # Errors
    /// The TLS library cannot be set up.
    pub fn new() -> io::Result<Self> {
        let all = Arc::new(Semaphore::new(CONNECTIONS));
        Ok(Self {
            nrpe: Client::new()?,
            trust: Trust::default(),
            plugins: Plugins::new(Vec::new()),
            hosts: Mutex::default(),
            all,
        })
    }

    /// The same prober with directories for plugins that are named without one; the first that has it counts.
    #[must_use]
    pub fn with_plugins(mut self, directories: Vec<PathBuf>) -> Self {
        self.plugins = Plugins::new(directories);
        self
    }

    /// The NRPE client, for its counters.
    #[must_use]
    pub fn nrpe(&self) -> &Client {
        &self.nrpe
    }

    /// Runs `check` for `object` (named in the log only). Returns within twice `timeout`: once to wait for a free connection,
    /// once to run. The outcome's start and duration are those of the run.
    pub async fn probe(&self, object: &str, check: &Check, timeout: Duration) -> Outcome {
        let trust = &self.trust;
        let outcome = match check {
            // A plugin opens what it likes and where it likes; how many may run has a bound of its own.
            Check::Plugin(check) => self.plugin_outcome(check, timeout).await,
            Check::Nrpe(check) => self.nrpe_outcome(check, timeout).await,
            Check::Tcp(check) => {
                let ask = |now| tcp::connect(trust, check, now, timeout);
                self.found("TCP", &check.address, timeout, ask).await
            }
            Check::Icmp(check) => {
                let ask = |now| icmp::ask(trust, check, now, timeout);
                self.found("ICMP", &check.address, timeout, ask).await
            }
            Check::Http(check) => {
                let ask = |now| http::visit(trust, check, now, timeout);
                self.found("HTTP", &check.address, timeout, ask).await
            }
            Check::Certificate(check) => {
                let ask = |now| certificate::look(trust, check, now, timeout);
                self.found("CERTIFICATE", &check.address, timeout, ask).await
            }
            Check::Dns(check) => {
                // Questions to the system's own name servers share one lane.
                let server = check.server.as_deref().unwrap_or("the name service");
                self.found("DNS", server, timeout, |_| dns::ask(check, timeout)).await
            }
            Check::Ssh(check) => self.found("SSH", &check.address, timeout, |_| ssh::identify(check, timeout)).await,
        };
        tracing::debug!(object, state = %outcome.state, exit = ?outcome.exit, output = outcome.output, "checked");
        outcome
    }

    /// What a network probe finds once there is a free connection to `host`; `kind` begins the text if there never is one.
    async fn found<F: Future<Output = Found>>(
        &self,
        kind: &str,
        host: &str,
        timeout: Duration,
        ask: impl FnOnce(Timestamp) -> F,
    ) -> Outcome {
        let asked = Began::now();
        let Some(_place) = self.place(host, asked.at + timeout).await else {
            let seconds = timeout.as_secs_f64();
            let text = format!("{kind} CRITICAL - {host}: {} all of its {seconds:.3} s", Phase::Queue);
            return asked.told(Exit::Error("queue-timeout".to_owned()), State::Critical, &text);
        };
        let began = Began::now();
        began.found(ask(began.wall).await)
    }

    async fn plugin_outcome(&self, check: &PluginCheck, timeout: Duration) -> Outcome {
        let place = self.plugins.place(timeout).await;
        let began = Began::now();
        let found = match place {
            Ok(place) => self.plugins.run(place, check, timeout).await,
            Err(obstacle) => plugin::not_started(check, &obstacle),
        };
        let mut outcome = began.told(found.exit, found.state, &found.text);
        for remark in found.remarks {
            outcome.remark(&remark);
        }
        outcome
    }

    async fn nrpe_outcome(&self, check: &NrpeCheck, timeout: Duration) -> Outcome {
        let asked = Began::now();
        let query = query_of(check);
        let Some(_place) = self.place(&check.address, asked.at + timeout).await else {
            let class = Class::Timeout { phase: Phase::Queue, after: timeout };
            self.nrpe.counters().failed(&class);
            let fault = Fault { class, endpoint: query.endpoint.to_string(), peer: None, source: None };
            return fault_outcome(asked, check, &query.text, &fault);
        };
        let began = Began::now();
        match self.nrpe.ask(&query, timeout).await {
            Ok(reply) => {
                let mut outcome = reply_outcome(began, &reply);
                if check.asks_daemon() {
                    outcome.output.push_str(&manner(&reply));
                }
                outcome
            }
            Err(fault) => fault_outcome(began, check, &query.text, &fault),
        }
    }

    /// A place for one connection, or none until `deadline`. First the host's, then the satellite's: checks that wait for a
    /// slow host keep nobody else from being run.
    async fn place(&self, host: &str, deadline: Instant) -> Option<Place<'_>> {
        let lane = {
            let mut hosts = self.hosts();
            Arc::clone(hosts.entry(host.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(CONNECTIONS_PER_HOST))))
        };
        // Made before the wait, so that a lane in which everybody gave up is removed as well.
        let mut place = Place { prober: self, host: host.to_owned(), lane: Arc::clone(&lane), permits: None };
        let own = timeout_at(deadline, lane.acquire_owned()).await.ok()?.ok()?;
        let common = timeout_at(deadline, Arc::clone(&self.all).acquire_owned()).await.ok()?.ok()?;
        place.permits = Some((own, common));
        Some(place)
    }

    fn hosts(&self) -> MutexGuard<'_, HashMap<String, Arc<Semaphore>>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.permits = None;
        let mut hosts = self.prober.hosts();
        // The map's and ours: nobody else is in this lane, and nobody can enter while the map is locked.
        if Arc::strong_count(&self.lane) == 2 {
            hosts.remove(&self.host);
        }
    }
}

/// The moment a check began, by both clocks.
#[derive(Debug, Clone, Copy)]
struct Began {
    wall: Timestamp,
    at: Instant,
}

impl Began {
    fn now() -> Self {
        Self { wall: wall::now(), at: Instant::now() }
    }

    /// The outcome of a network probe that ends now.
    fn found(self, found: Found) -> Outcome {
        let mut outcome = self.told(found.exit, found.state, &found.text);
        outcome.authenticated = found.authenticated;
        outcome
    }

    /// The outcome of a check that ends now with this plugin text.
    fn told(self, exit: Exit, state: State, text: &str) -> Outcome {
        let parts = perfdata::split_output(text);
        let metrics = perfdata::parse(&parts.perfdata).metrics;
        let mut outcome = Outcome::text(self.wall, self.at.elapsed(), exit, state, parts.output);
        outcome.long_output = parts.long_output;
        if parts.truncated {
            outcome.remark(plugin::CUT_OFF);
        }
        outcome.perfdata = parts.perfdata;
        outcome.metrics = metrics;
        outcome
    }
}

fn query_of(check: &NrpeCheck) -> Query {
    let mut text = check.command.clone();
    for argument in &check.args {
        text.push('!');
        text.push_str(argument);
    }
    let endpoint = Endpoint { address: check.address.clone(), port: check.port, security: security_of(check) };
    let versions = check.version.and_then(|number| Version::of_number(number.into())).map(|version| vec![version]);
    Query { versions, ..Query::new(endpoint, text) }
}

fn security_of(check: &NrpeCheck) -> Security {
    match check.tls {
        NrpeTls::Plain => Security::Plain,
        NrpeTls::Anonymous => Security::anonymous(),
        NrpeTls::Certificate => {
            let NrpeTrust { ca, certificate, key, name, pins, ciphers } = check.trust.clone().unwrap_or_default();
            let name = match name {
                NrpeName::Address => NameRule::Address,
                NrpeName::Exactly(name) => NameRule::Exactly(name),
                NrpeName::Any => NameRule::Any,
            };
            let pins = pins.iter().map(|pin| pin.0).collect();
            let identity = certificate.map(|certificate| Identity {
                // One file may hold both.
                key: key.unwrap_or_else(|| certificate.clone()).into(),
                certificate: certificate.into(),
            });
            let peer = Peer::Verified { ca: ca.map(Into::into), name, pins };
            Security::Tls(Arc::new(TlsPolicy { peer, identity, ciphers, ..TlsPolicy::default() }))
        }
    }
}

fn reply_outcome(began: Began, reply: &Reply) -> Outcome {
    let code = i32::from(reply.answer.code);
    let mut outcome = if reply.answer.text.is_empty() {
        // A plugin without output is reported by nrpe itself, in words; no words at all is no result, whatever the code.
        let text = format!("NRPE {}: the daemon answered without any text (result code {code})", reply.peer);
        began.told(Exit::Ran(code), State::Unknown, &text)
    } else {
        began.told(Exit::Ran(code), State::of_exit(code), &readable(&reply.answer.text))
    };
    // Neither plain nor anonymous connections prove anything about the peer.
    outcome.authenticated = Some(reply.agreed.as_ref().is_some_and(|agreed| agreed.authenticated));
    outcome
}

/// How a daemon was spoken to, for the check that asks it for itself.
fn manner(reply: &Reply) -> String {
    let version = reply.answer.version.number();
    match &reply.agreed {
        Some(agreed) => {
            let proven = if agreed.authenticated { "authenticated" } else { "not authenticated" };
            format!(" (packet version {version}, {} {}, {proven})", agreed.protocol, agreed.cipher)
        }
        None => format!(" (packet version {version}, plain: neither encrypted nor authenticated)"),
    }
}

fn fault_outcome(began: Began, check: &NrpeCheck, request: &[u8], fault: &Fault) -> Outcome {
    // A command that did not end is not the transport's failure, but nobody can say more about its state either.
    let exit = match &fault.class {
        Class::Timeout { phase: Phase::Answer | Phase::Rest, .. } => Exit::TimedOut,
        class => Exit::Error(class.kind().into_owned()),
    };
    let mut outcome = Outcome::text(began.wall, began.at.elapsed(), exit, check.on_transport_error, fault.to_string());
    // The sentence people know and search for stands last, beside ours.
    let legacy = format!("check_nrpe says: {}", fault.legacy(check.on_transport_error.as_str()));
    let hint = fault.hint(request, &security_of(check));
    let lines = [fixed_version(check, fault), hint, Some(legacy)];
    outcome.long_output = lines.into_iter().flatten().collect::<Vec<_>>().join("\n");
    outcome
}

/// What a version that was written down may have to do with it: a daemon closes without a word on one that it does not speak.
fn fixed_version(check: &NrpeCheck, fault: &Fault) -> Option<String> {
    let speaks = match check.version? {
        3 => "only daemons of 3.0 to 3.2 speak version 3",
        4 => "only daemons of 4.0 and later speak version 4",
        // Every daemon speaks version 2.
        _ => return None,
    };
    let closed = matches!(fault.class, Class::ClosedBeforeAnswer | Class::RefusedHere { in_handshake: false });
    closed.then(|| format!("{speaks}: without nrpe.version the right one is found out"))
}

/// The text of a plugin for people: what is no UTF-8 is replaced, and what would be obeyed is left out, but for line feed and tab.
fn readable(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().filter(|&char| matches!(char, '\n' | '\t') || !is_obeyed(char)).collect()
}
