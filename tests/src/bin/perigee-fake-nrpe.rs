//! A fleet of the tests' own NRPE daemons as a process: described by a JSON file or by flags, numbered into a ledger, steered by
//! files while it runs. Prints one line `{"ready":{"host":"address:port",…}}` when all of them listen; ends with SIGTERM or SIGINT.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use tests::daemon::answers::Command;
use tests::daemon::ledger::Ledger;
use tests::daemon::{Daemon, Fleet, Spec, Transport, hostile};
use tokio::signal::unix::{SignalKind, signal};

/// NRPE daemons for tests and the demo.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Fleet as JSON: {"ledger":FILE,"control":DIR,"daemons":[{"host":..,"listen":..,"transport":"plain|anonymous|adh",
    /// "versions":[2,4],"commands":{"NAME":{"every":1,"of":[{"state":0,"text":".."}]}}}],
    /// "hostile":[{"host":..,"listen":..,"kind":"one byte per second"}]}
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A daemon, as NAME=ADDRESS:PORT; port 0 takes a free one. All of them have the commands given by flags.
    #[arg(long, value_name = "HOST=ADDRESS:PORT", value_parser = host)]
    listen: Vec<(String, SocketAddr)>,
    /// Packet versions of the daemons given by --listen: 2 (2.x), 2,3 (3.x) or 2,4 (4.x).
    #[arg(long, value_delimiter = ',', default_value = "2,4")]
    versions: Vec<u16>,
    /// Bare packets instead of anonymous TLS, for the daemons given by --listen.
    #[arg(long)]
    plain: bool,
    /// A command that always answers so; the name * answers for all others.
    #[arg(long, value_name = "NAME=STATE:TEXT", value_parser = fixed)]
    command: Vec<(String, Command)>,
    /// A command that changes between OK and CRITICAL after every N answers.
    #[arg(long, value_name = "NAME=N", value_parser = flapping)]
    flap: Vec<(String, Command)>,
    /// File that every answer is written to before it is sent.
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// Directory of files HOST/COMMAND ("STATE text", "eof" or "hang") that override answers while the daemons run.
    #[arg(long, value_name = "DIR")]
    control: Option<PathBuf>,
}

fn host(text: &str) -> Result<(String, SocketAddr)> {
    let (host, address) = text.split_once('=').context("write it as HOST=ADDRESS:PORT")?;
    Ok((host.to_owned(), address.parse()?))
}

fn fixed(text: &str) -> Result<(String, Command)> {
    let (name, answer) = text.split_once('=').context("write it as NAME=STATE:TEXT")?;
    let (state, text) = answer.split_once(':').context("write it as NAME=STATE:TEXT")?;
    Ok((name.to_owned(), Command::fixed(state.parse()?, text)))
}

fn flapping(text: &str) -> Result<(String, Command)> {
    let (name, every) = text.split_once('=').context("write it as NAME=N")?;
    let every = every.parse()?;
    Ok((name.to_owned(), Command::flapping(every, (0, "OK - up"), (2, "CRITICAL - down"))))
}

fn fleet(arguments: Arguments) -> Result<Fleet> {
    let mut fleet = match &arguments.config {
        Some(path) => {
            let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            serde_json::from_slice(&text).with_context(|| format!("{} is no fleet", path.display()))?
        }
        None => Fleet::default(),
    };
    let commands: BTreeMap<String, Command> = arguments.command.into_iter().chain(arguments.flap).collect();
    let transport = if arguments.plain { Transport::Plain } else { Transport::Anonymous };
    for (host, listen) in arguments.listen {
        let versions = arguments.versions.clone();
        fleet.daemons.push(Spec { listen, versions, commands: commands.clone(), ..Spec::new(&host, transport) });
    }
    fleet.ledger = arguments.ledger.or(fleet.ledger);
    fleet.control = arguments.control.or(fleet.control);
    if fleet.daemons.is_empty() && fleet.hostile.is_empty() {
        bail!("no daemon: give --config or --listen");
    }
    Ok(fleet)
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let fleet = fleet(Arguments::parse())?;
    // Before the daemons listen, so that a stop cannot come too early.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let ledger = fleet.ledger.as_deref().map(Ledger::open).transpose()?;
    let mut daemons = Vec::new();
    let mut ready = serde_json::Map::new();
    for spec in fleet.daemons {
        let host = spec.host.clone();
        let daemon = Daemon::start(spec, ledger.clone(), fleet.control.clone()).await.with_context(|| host.clone())?;
        ready.insert(host, daemon.address.to_string().into());
        daemons.push(daemon);
    }
    let kinds = hostile::kinds();
    for spec in fleet.hostile {
        let kind = kinds.iter().find(|kind| kind.name == spec.kind);
        let kind = kind.with_context(|| format!("there is no kind of hostile daemon “{}”", spec.kind))?;
        let daemon = Daemon::hostile(kind, spec.listen).await.with_context(|| spec.host.clone())?;
        ready.insert(spec.host, daemon.address.to_string().into());
        daemons.push(daemon);
    }
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", serde_json::json!({ "ready": ready }))?;
    stdout.flush()?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
