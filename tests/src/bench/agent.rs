//! What an answer over NRPE costs the monitored host: our agent against Debian's daemon, asked the same by the same client, for the
//! daemon's own version and for a trivial command, over plain TCP and over anonymous TLS with a resumed session.
//!
//! The surprise is whose CPU is counted: the server's with all that it starts, and not the client's. nrpe forks twice for each
//! connection and waits for the first child only; the second becomes an orphan. This process adopts such orphans and collects them.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{WaitOptions, set_child_subreaper, wait};
use satellite::agent::VERSION;
use satellite::probe::nrpe::policy::{Endpoint, Security};
use satellite::probe::nrpe::{Client, Query, VERSION_COMMAND};
use tokio::runtime::Runtime;

use super::{Bench, Contest, Contestant, Done, Prepared};
use crate::agent::Agent;
use crate::nrpe::{CHECK_NRPE, DAEMON, RealNrpe, Transport};
use crate::usage::processor;
use crate::wait::until;

/// Rows of this contest; each of ours has the daemon's beside it.
pub const BENCH: Bench = Bench {
    rows: &[
        "agent-answer",
        "nrpe-daemon-answer",
        "agent-anon-resumed",
        "nrpe-daemon-anon-resumed",
        "agent-command",
        "nrpe-daemon-command",
    ],
    prepare,
};

/// Answers of a round: enough for some tenths of a second of CPU.
const ANSWERS: u64 = 1000;
/// The same for the daemon, which takes longer, and where a command runs.
const FEWER: u64 = 200;
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the last of the daemon's processes may take to go.
const GONE_WITHIN: Duration = Duration::from_secs(30);
const COMMAND: (&str, &str) = ("trivial", "/bin/echo OK");
/// An answer by the agent itself takes no process: at least so many times less than one of the daemon's.
const PROMISED: f64 = 3.0;

/// Who answers.
enum Server {
    Ours(Agent),
    Theirs(RealNrpe),
}

/// A server, and a client that has its ticket.
struct Scene {
    server: Server,
    endpoint: Endpoint,
    client: Client,
    runtime: Rc<Runtime>,
}

impl Scene {
    fn new(ours: bool, transport: Transport, runtime: &Rc<Runtime>) -> Result<Rc<Self>> {
        let server = if ours {
            Server::Ours(Agent::start(transport, &[COMMAND], "")?)
        } else {
            Server::Theirs(RealNrpe::start(transport, &[COMMAND], "")?)
        };
        let address = match &server {
            Server::Ours(agent) => agent.address,
            Server::Theirs(daemon) => daemon.address,
        };
        let security = if transport == Transport::Plain { Security::Plain } else { Security::anonymous() };
        let endpoint = Endpoint { address: address.ip().to_string(), port: address.port(), security };
        Ok(Rc::new(Self { server, endpoint, client: Client::new()?, runtime: Rc::clone(runtime) }))
    }

    /// CPU of the server and of all that it has started and that is gone.
    fn cpu(&self) -> Result<Duration> {
        match &self.server {
            Server::Ours(agent) => Ok(processor(agent.pid())?.sum()),
            Server::Theirs(daemon) => Ok(processor(daemon.pid())?.sum() + processor(std::process::id())?.children),
        }
    }

    fn ask(&self, command: &str, expected: &str, count: u64) -> Result<Done> {
        let query = Query::new(self.endpoint.clone(), command);
        collect(0);
        let before = self.cpu()?;
        for _ in 0..count {
            let reply = self.runtime.block_on(self.client.ask(&query, PATIENCE));
            let reply = reply.map_err(|fault| anyhow::anyhow!("{fault}"))?;
            let text = String::from_utf8_lossy(&reply.answer.text);
            ensure!(reply.answer.code == 0 && text == expected, "{command}: {} {text}", reply.answer.code);
        }
        if matches!(self.server, Server::Theirs(_)) {
            let mut left = usize::try_from(count)?;
            let gone = until(GONE_WITHIN, || {
                left = left.saturating_sub(collect(left));
                left == 0
            });
            ensure!(gone, "{left} of {count} processes of the daemon are not gone");
        }
        let cpu = self.cpu()?.saturating_sub(before);
        Ok(Done { cpu: Some(cpu), ..Done::units(count) })
    }
}

/// Collects adopted processes that have ended, and says how many; nobody else in this process has children that end meanwhile.
fn collect(at_most: usize) -> usize {
    let mut collected = 0;
    while (at_most == 0 || collected < at_most) && matches!(wait(WaitOptions::NOHANG), Ok(Some(_))) {
        collected += 1;
    }
    collected
}

fn prepare() -> Result<Prepared> {
    for (what, package) in [(DAEMON, "nagios-nrpe-server"), (CHECK_NRPE, "nagios-nrpe-plugin")] {
        if !std::path::Path::new(what).exists() {
            return Ok(Prepared::Missing { what: what.to_owned(), package: package.to_owned() });
        }
    }
    set_child_subreaper(Some(rustix::process::getpid())).context("cannot adopt the daemon's orphans")?;
    let runtime = Rc::new(tokio::runtime::Builder::new_current_thread().enable_all().build()?);
    let version = format!("NRPE v{VERSION}");
    let mut contestants = Vec::new();
    let mut add = |row, peer, at_least, scene: &Rc<Scene>, command: &'static str, expected: &str, count| {
        let (scene, expected) = (Rc::clone(scene), expected.to_owned());
        let run = Box::new(move || scene.ask(command, &expected, count));
        contestants.push(Contestant { row, reported: true, peer, at_least, run });
    };
    let (ours, theirs) =
        (Scene::new(true, Transport::Plain, &runtime)?, Scene::new(false, Transport::Plain, &runtime)?);
    add("agent-answer", Some("nrpe-daemon-answer"), Some(PROMISED), &ours, VERSION_COMMAND, &version, ANSWERS);
    add("nrpe-daemon-answer", None, None, &theirs, VERSION_COMMAND, &version, FEWER);
    add("agent-command", Some("nrpe-daemon-command"), Some(1.0), &ours, COMMAND.0, "OK", FEWER);
    add("nrpe-daemon-command", None, None, &theirs, COMMAND.0, "OK", FEWER);
    let (ours, theirs) =
        (Scene::new(true, Transport::Anonymous, &runtime)?, Scene::new(false, Transport::Anonymous, &runtime)?);
    add(
        "agent-anon-resumed",
        Some("nrpe-daemon-anon-resumed"),
        Some(PROMISED),
        &ours,
        VERSION_COMMAND,
        &version,
        ANSWERS,
    );
    add("nrpe-daemon-anon-resumed", None, None, &theirs, VERSION_COMMAND, &version, FEWER);
    Ok(Prepared::Ready(Contest { unit: "answer", contestants }))
}
