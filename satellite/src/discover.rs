//! `perigee-satellite discover nrpe`: asks targets one by one whether they are NRPE daemons, how they are spoken to and which usual
//! commands they have, slowly and within bounds, and prints a configuration that monitors them. Decides how fast; what an answer
//! means is decided in `findings`, and what is proposed in `proposal`.
//!
//! The surprise: everybody is asked in version 2 packets. It is the one version that every daemon takes, so no target sees more
//! connections than it needs to.
#![expect(clippy::disallowed_methods, reason = "a shell room: it spreads connections over real time")]

pub mod certificate;
pub mod findings;
pub mod proposal;
pub mod targets;

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use clap::Subcommand;
use shared::name::RegionName;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use self::findings::{Answer, Counts, Finding, Heard, Kind, Nothing, Step, USUAL_COMMANDS, Verdict, Way};
use self::proposal::Frame;
use self::targets::{Mistake, Target, Word};
use crate::probe::nrpe::error::{Class, Fault, Phase};
use crate::probe::nrpe::packet::{NotAnAnswer, Version};
use crate::probe::nrpe::policy::{Endpoint, Identity, Security, TlsPolicy};
use crate::probe::nrpe::{Client, Query, Reply, VERSION_COMMAND};

/// Bytes of one list of targets; a longer one is wrong use. A million names fit.
const MAX_LIST: u64 = 16 * 1024 * 1024;
/// Between two looks of the progress line.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// The same where no terminal is, for a log: a line of its own.
const REPORT_EVERY: Duration = Duration::from_secs(60);
/// What takes longer than this, at its rate, says so before it begins.
const LONG: Duration = Duration::from_secs(60);

const TEACHING: &str = "\
TARGET is a name (web01), several (web[01-40].example.net), an address, a
network (10.0.0.0/24, 2001:db8::/120; at most 65536 targets in all), a range
(10.0.0.5-10.0.0.20 or 10.0.0.5-20), @FILE with such words in it (# begins a
comment), or - for such words on standard input. web01:5667 and
[2001:db8::1]:5667 have a port of their own.

Run it where the checks will come from: daemons answer by source address. It
opens at most --rate connections a second, asks --parallel targets at a time,
and each of them one thing at a time: for its version (_NRPE_CHECK, over TLS,
then plain), and then for each of the usual commands, without arguments. Ctrl-C
or SIGTERM ends it with what was found until then.

It prints a configuration for `perigee-master check-config`: hosts with the way
they are spoken to, services by the commands that exist, and comments on who
refused, wants a certificate or is no NRPE daemon.

  perigee-satellite discover nrpe 10.0.0.0/24 --exclude 10.0.0.1 >found.yaml
  perigee-satellite discover nrpe @hosts.txt --commands check_load,check_raid

Exit codes: 0 daemons found; 1 none found, or it failed and says why; 2 wrong
use.";

/// What to look for.
#[derive(Debug, Clone, Subcommand)]
pub enum What {
    /// Look for NRPE daemons and their commands.
    #[command(after_help = TEACHING)]
    Nrpe(Nrpe),
}

/// How to look for NRPE daemons.
#[derive(Debug, Clone, clap::Args)]
pub struct Nrpe {
    /// Whom to ask: names, addresses, networks, ranges, @FILE, or - for standard input.
    #[arg(value_name = "TARGET", required = true)]
    pub targets: Vec<String>,
    /// Whom not to ask; the same forms, as often as needed.
    #[arg(long, value_name = "TARGET")]
    pub exclude: Vec<String>,
    /// Port of targets that name none.
    #[arg(long, value_name = "PORT", default_value_t = 5666, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// Commands to look for instead of the usual ones, separated by commas; none with an empty text.
    #[arg(long, value_name = "COMMAND,…")]
    pub commands: Option<String>,
    /// Connections opened in a second, over all targets.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rate: u32,
    /// Targets asked at the same time.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub parallel: u16,
    /// Seconds that one request may take, connection and TLS included.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=300))]
    pub timeout: u64,
    /// Certificate (PEM) to show to daemons that want one.
    #[arg(long, value_name = "FILE", requires = "key")]
    pub certificate: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub key: Option<PathBuf>,
    /// Region of the hosts in the proposal.
    #[arg(long, value_name = "REGION", default_value = "default")]
    pub region: RegionName,
    /// Leave the region's definition out: the proposal becomes part of a configuration that has it.
    #[arg(long)]
    pub part: bool,
    /// Print everything that was found as JSON instead.
    #[arg(long)]
    pub json: bool,
}

/// Wrong use: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Misuse(String);

/// Asks everybody, prints the proposal, and says how it ended. `stop` ends it early.
///
/// # Errors
/// [`Misuse`] for targets that make no sense; anything else when no target can be asked, or nobody can be told.
pub async fn run(settings: &Nrpe, stop: CancellationToken) -> Result<ExitCode> {
    let targets = targets_of(settings)?;
    let commands = commands_of(settings)?;
    let total = targets.len();
    let began = Instant::now();
    let asker = Arc::new(Asker::new(settings, commands)?);
    let mut error = io::stderr();
    // Nobody may be listening there; what was found goes to standard output.
    if let Some(words) = announcement(total, settings.rate) {
        let _ = writeln!(error, "{words}");
    }
    let (findings, counts) = asker.ask_all(targets, usize::from(settings.parallel), &stop).await;
    let left = total - counts.asked;
    let _ = writeln!(error, "{} in {:.1} s", proposal::summary(&counts, left), began.elapsed().as_secs_f64());
    let text = if settings.json {
        let told = serde_json::json!({ "counts": counts, "left": left, "findings": findings });
        format!("{told}\n")
    } else {
        let text = |path: &PathBuf| path.display().to_string();
        let identity = settings.certificate.as_ref().map(text).zip(settings.key.as_ref().map(text));
        let frame = Frame { region: settings.region.to_string(), part: settings.part, left, identity };
        proposal::yaml(&findings, &counts, &frame)
    };
    io::stdout().write_all(text.as_bytes()).context("standard output")?;
    Ok(if counts.nrpe > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is said before the first question, if it will take long: one connection for each target is the least.
fn announcement(total: usize, rate: u32) -> Option<String> {
    let seconds = u64::try_from(total).unwrap_or(u64::MAX) / u64::from(rate.max(1));
    (Duration::from_secs(seconds) > LONG).then(|| {
        let minutes = seconds / 60;
        let time = if minutes < 120 { format!("{minutes} minutes") } else { format!("{} hours", minutes / 60) };
        format!("{total} targets at {rate} connections a second (--rate) take {time} at the least")
    })
}

fn targets_of(settings: &Nrpe) -> Result<Vec<Target>> {
    let wanted = words_of(&settings.targets)?;
    let excluded = words_of(&settings.exclude)?;
    let targets = targets::targets(&wanted, &excluded, settings.port).map_err(|mistakes| {
        let lines: Vec<String> = mistakes.iter().map(Mistake::to_string).collect();
        Misuse(lines.join("\n"))
    })?;
    if targets.is_empty() {
        return Err(Misuse("nobody is left to be asked: the lists are empty, or all is excluded".to_owned()).into());
    }
    Ok(targets)
}

/// The words of the command line, with lists read.
fn words_of(arguments: &[String]) -> Result<Vec<Word>> {
    let mut words = Vec::new();
    for argument in arguments {
        let text = match argument.strip_prefix('@') {
            Some(file) => {
                let opened = std::fs::File::open(file);
                let opened = opened.map_err(|error| Misuse(format!("the list {file} cannot be read: {error}")))?;
                read_list(opened, file)?
            }
            None if argument == "-" => read_list(io::stdin().lock(), "standard input")?,
            None => {
                words.push(Word { text: argument.clone(), place: None });
                continue;
            }
        };
        let name = argument.strip_prefix('@').unwrap_or("standard input");
        words.extend(targets::words(name, &text));
    }
    Ok(words)
}

fn read_list(source: impl io::Read, name: &str) -> Result<String, Misuse> {
    let mut text = String::new();
    let read = source.take(MAX_LIST + 1).read_to_string(&mut text);
    read.map_err(|error| Misuse(format!("the list {name} cannot be read: {error}")))?;
    if text.len() as u64 > MAX_LIST {
        return Err(Misuse(format!("the list {name} is longer than {MAX_LIST} bytes")));
    }
    Ok(text)
}

fn commands_of(settings: &Nrpe) -> Result<Vec<String>, Misuse> {
    let Some(named) = &settings.commands else { return Ok(USUAL_COMMANDS.map(str::to_owned).to_vec()) };
    let commands: Vec<String> =
        named.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    // What daemons refuse, and arguments: a discovery asks for names only.
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/');
    match commands.iter().find(|name| name.len() > 255 || !name.chars().all(known)) {
        Some(name) => Err(Misuse(format!("--commands: “{name}” is no name of a command; arguments are not asked for"))),
        None => Ok(commands),
    }
}

/// Asks targets. One for the whole discovery: it remembers who is spoken to how.
#[derive(Debug)]
struct Asker {
    client: Client,
    pace: Pace,
    limit: Duration,
    identity: Option<Identity>,
    commands: Vec<String>,
}

impl Asker {
    fn new(settings: &Nrpe, commands: Vec<String>) -> Result<Self> {
        let identity = settings.certificate.clone().zip(settings.key.clone());
        Ok(Self {
            client: Client::new().context("TLS cannot be set up")?,
            pace: Pace::new(settings.rate),
            limit: Duration::from_secs(settings.timeout),
            identity: identity.map(|(certificate, key)| Identity { certificate, key }),
            commands,
        })
    }

    /// Asks every target until all are known or `stop` says so; findings are in the order of the targets.
    async fn ask_all(
        self: &Arc<Self>,
        targets: Vec<Target>,
        parallel: usize,
        stop: &CancellationToken,
    ) -> (Vec<Finding>, Counts) {
        let mut found: Vec<Option<Finding>> = Vec::new();
        found.resize_with(targets.len(), || None);
        let mut counts = Counts::default();
        let mut progress = Progress::new(targets.len());
        let mut waiting = targets.into_iter().enumerate();
        let mut asking = JoinSet::new();
        loop {
            while asking.len() < parallel
                && let Some((number, target)) = waiting.next()
            {
                let asker = Arc::clone(self);
                asking.spawn(async move { (number, asker.ask(target).await) });
            }
            progress.show(&counts);
            let ended = tokio::select! {
                () = stop.cancelled() => break,
                ended = asking.join_next() => ended,
            };
            match ended {
                Some(Ok((number, finding))) => {
                    counts.add(&finding.verdict);
                    found[number] = Some(finding);
                }
                Some(Err(error)) => tracing::error!(%error, "a target could not be asked to the end"),
                None => break,
            }
        }
        progress.end();
        (found.into_iter().flatten().collect(), counts)
    }

    /// Everything about one target.
    async fn ask(&self, target: Target) -> Finding {
        let mut way = Way::Tls;
        loop {
            let heard = self.request(&target, way, VERSION_COMMAND).await;
            match findings::next(way, heard, self.identity.is_some()) {
                Step::Ask(next) => way = next,
                Step::End(verdict) => return Finding::new(target, verdict),
                Step::Found(mut daemon) => {
                    for command in &self.commands {
                        let heard = self.request(&target, way, command).await;
                        daemon.learn(command, heard);
                    }
                    return Finding::new(target, Verdict::Nrpe(daemon));
                }
            }
        }
    }

    async fn request(&self, target: &Target, way: Way, command: &str) -> Heard {
        self.pace.turn().await;
        let security = match way {
            Way::Plain => Security::Plain,
            Way::Tls => Security::anonymous(),
            Way::Identified => {
                Security::Tls(Arc::new(TlsPolicy { identity: self.identity.clone(), ..TlsPolicy::default() }))
            }
        };
        let endpoint = Endpoint { address: target.address.clone(), port: target.port, security };
        let query = Query { versions: Some(vec![Version::V2]), ..Query::new(endpoint, command) };
        let asked = self.client.ask(&query, self.limit).await;
        if way != Way::Plain && (command == VERSION_COMMAND) && takes_two(&asked) {
            self.pace.skip();
        }
        match asked {
            Ok(reply) => Heard::Answer(answer(&reply)),
            Err(fault) => Heard::Nothing(nothing(&fault)),
        }
    }
}

/// Whether a first contact has cost a second connection: the fast suites were declined.
fn takes_two(asked: &Result<Reply, Fault>) -> bool {
    match asked {
        Ok(reply) => reply.agreed.as_ref().is_some_and(|agreed| agreed.cipher.starts_with("ADH")),
        Err(fault) => matches!(fault.class, Class::Alert { .. } | Class::ClientCertificate { .. }),
    }
}

fn answer(reply: &Reply) -> Answer {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    Answer {
        code: reply.answer.code,
        text: String::from_utf8_lossy(&reply.answer.text).into_owned(),
        peer: reply.peer,
        tls: reply.agreed.as_ref().map(|agreed| findings::Tls {
            protocol: agreed.protocol.to_owned(),
            cipher: agreed.cipher.to_owned(),
            certificate: agreed.certificate.as_ref().and_then(|der| certificate::read(der, now)),
        }),
    }
}

fn nothing(fault: &Fault) -> Nothing {
    let kind = match &fault.class {
        Class::Dns(_) => Kind::Unresolved,
        Class::Refused => Kind::Closed,
        Class::Unreachable(_) | Class::Timeout { phase: Phase::Dns | Phase::Connect, .. } => Kind::Unreached,
        Class::ClosedInHandshake
        | Class::RefusedHere { .. }
        | Class::RequestRefused
        | Class::ClosedBeforeAnswer
        | Class::NotTls(_) => Kind::Cut,
        Class::Timeout { .. } => Kind::Hung,
        Class::Alert { .. } | Class::ClientCertificate { .. } => Kind::Declined,
        Class::Protocol(NotAnAnswer::Foreign { .. } | NotAnAnswer::Kind { .. }) => Kind::Foreign,
        _ => Kind::Failed,
    };
    // The target is named beside it.
    let text = fault.to_string();
    let text = text.strip_prefix(&format!("NRPE {}: ", fault.endpoint)).unwrap_or(&text).to_owned();
    Nothing { kind, text, source: fault.source }
}

/// Spreads connections over time: each takes a place, and places are even.
#[derive(Debug)]
struct Pace {
    between: Duration,
    next: Mutex<Instant>,
}

impl Pace {
    fn new(rate: u32) -> Self {
        Self { between: Duration::from_secs(1) / rate.max(1), next: Mutex::new(Instant::now()) }
    }

    /// Waits for the next place.
    async fn turn(&self) {
        let at = self.take();
        sleep_until(at).await;
    }

    /// Leaves one place empty, for a connection that was opened without one.
    fn skip(&self) {
        self.take();
    }

    fn take(&self) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        // What was not used is not made up for: a pause is followed by the same pace.
        let at = (*next).max(Instant::now());
        *next = at + self.between;
        at
    }
}

/// A line on standard error that says how far it is: on a terminal one that changes, elsewhere a new one from time to time.
struct Progress {
    total: usize,
    shown: Instant,
    looked_at: bool,
}

impl Progress {
    fn new(total: usize) -> Self {
        Self { total, shown: Instant::now(), looked_at: io::stderr().is_terminal() }
    }

    fn show(&mut self, counts: &Counts) {
        if self.shown.elapsed() < if self.looked_at { PROGRESS_EVERY } else { REPORT_EVERY } {
            return;
        }
        self.shown = Instant::now();
        let Counts { asked, nrpe, refused, .. } = counts;
        let line = format!("{asked} of {} asked, {nrpe} NRPE daemons, {refused} refused here", self.total);
        let line = if self.looked_at { format!("\r{line}\x1b[K") } else { format!("{line}\n") };
        // A terminal that is gone is no reason to stop asking.
        let _ = io::stderr().write_all(line.as_bytes());
    }

    fn end(&self) {
        if self.looked_at {
            let _ = io::stderr().write_all(b"\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_are_spread_over_time() {
        let pace = Pace::new(100);
        let began = Instant::now();
        for _ in 0..10 {
            pace.turn().await;
        }
        pace.skip();
        pace.turn().await;
        assert!(began.elapsed() >= Duration::from_millis(110), "{:?}", began.elapsed());
    }

    #[test]
    fn what_takes_long_is_told_before() {
        assert_eq!(announcement(1_200, 20), None);
        let words = announcement(65_534, 20).unwrap();
        assert_eq!(words, "65534 targets at 20 connections a second (--rate) take 54 minutes at the least");
        assert!(announcement(65_534, 1).unwrap().contains("take 18 hours at"));
    }

    #[test]
    fn commands_are_names_without_arguments() {
        let settings = |commands: &str| {
            let words = ["nrpe", "web01", "--commands", commands];
            <Parsed as clap::Parser>::try_parse_from(words).map(|parsed| commands_of(&parsed.nrpe))
        };
        assert_eq!(settings("check_load, my.check,").unwrap().unwrap(), ["check_load", "my.check"]);
        assert_eq!(settings("").unwrap().unwrap(), Vec::<String>::new());
        for name in ["check_disk!/", "a;b", "$(id)", "a b"] {
            assert!(settings(name).unwrap().is_err(), "{name}");
        }
    }

    #[derive(Debug, clap::Parser)]
    struct Parsed {
        #[command(flatten)]
        nrpe: Nrpe,
    }

    #[test]
    fn lists_that_cannot_be_read_and_empty_ones_are_wrong_use() {
        let settings = |target: &str| {
            let parsed = <Parsed as clap::Parser>::try_parse_from(["nrpe", target]).unwrap();
            targets_of(&parsed.nrpe).unwrap_err()
        };
        assert!(settings("@/nonexistent/list").is::<Misuse>());
        let empty = tempfile::NamedTempFile::new().unwrap();
        let error = settings(&format!("@{}", empty.path().display()));
        assert!(error.is::<Misuse>() && error.to_string().contains("nobody is left"), "{error}");
    }
}
