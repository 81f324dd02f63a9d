//! `perigee-satellite`: settings, log, signals, exit code. Everything else is in the rooms; see `run`.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use clap::error::Error as Refusal;
use satellite::agent::log::Log;
use satellite::agent::{self, Call, Mistakes, builtin};
use satellite::settings::{Action, Agent, Arguments, Check, Misuse, Run, Status};
use satellite::{check_nrpe, discover, run, spool};
use serde_json::Value;
use shared::check::State;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    let program = words.next().unwrap_or_default();
    // Linked to check_nrpe's name it is check_nrpe: the command definitions of Nagios and Icinga stay as they are.
    if Path::new(&program).file_name() == Some(OsStr::new(check_nrpe::NAME)) {
        return check_nrpe::run(&program.to_string_lossy(), words);
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(refusal) => return refuse(&refusal, words.next().as_deref() == Some(OsStr::new("check"))),
    };
    let ended = match arguments.action {
        Action::CheckNrpe(given) => Ok(check_nrpe::run(check_nrpe::NAME, given.words)),
        Action::Run(settings) => start(settings).map(|()| ExitCode::SUCCESS),
        Action::Status(settings) => show(&settings),
        Action::Check(settings) => check(&settings),
        Action::Agent(settings) => answer(settings),
        Action::Discover(discover::What::Nrpe(settings)) => look_for_daemons(&settings),
    };
    ended.unwrap_or_else(|error| {
        let _ = writeln!(std::io::stderr(), "perigee-satellite: {error:#}");
        let misused = error.is::<Misuse>() || error.is::<Mistakes>() || error.is::<discover::Misuse>();
        ExitCode::from(if misused { 2 } else { 1 })
    })
}

/// Shows help or what is wrong with the words. A plugin that was called wrongly is UNKNOWN, and says so where plugins speak.
fn refuse(refusal: &Refusal, as_plugin: bool) -> ExitCode {
    // Nobody may be listening any more; the code tells as much.
    if as_plugin && refusal.use_stderr() {
        let _ = write!(std::io::stdout(), "UNKNOWN - {refusal}");
        return ExitCode::from(State::Unknown.number());
    }
    let _ = refusal.print();
    u8::try_from(refusal.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// Cancelled by the first SIGTERM or SIGINT.
fn told_to_stop() -> Result<CancellationToken> {
    let stop = CancellationToken::new();
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        told.cancel();
    });
    Ok(stop)
}

fn start(settings: Run) -> Result<()> {
    let filter =
        EnvFilter::try_new(&settings.log).map_err(|error| Misuse(format!("--log {}: {error}", settings.log)))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let runtime = tokio::runtime::Runtime::new().context("the runtime cannot be started")?;
    let ended = runtime.block_on(async { run::run(settings, told_to_stop()?).await });
    // A probe or a disk that hangs must not keep a process that was told to end.
    runtime.shutdown_background();
    ended
}

fn look_for_daemons(settings: &discover::Nrpe) -> Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new().context("the runtime cannot be started")?;
    let ended = runtime.block_on(async { discover::run(settings, told_to_stop()?).await });
    runtime.shutdown_background();
    ended
}

fn show(settings: &Status) -> Result<ExitCode> {
    let told = spool::status::ask(&settings.data)?;
    let mut out = std::io::stdout().lock();
    if told.is_empty() {
        let _ = writeln!(std::io::stderr(), "no satellite runs on {}", settings.data.display());
        return Ok(ExitCode::from(3));
    }
    for status in &told {
        if settings.json {
            writeln!(out, "{status}")?;
        } else {
            show_lines(&mut out, "", status)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A plugin's way to end: the text on standard output, the state as exit code.
fn check(settings: &Check) -> Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    if settings.list {
        writeln!(out, "{}", builtin::list())?;
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Runtime::new().context("the runtime cannot be started")?;
    let limit = Duration::from_secs(settings.timeout);
    let answer = runtime.block_on(async { tokio::time::timeout(limit, builtin::run_as_plugin(&settings.words)).await });
    let answer = answer.unwrap_or_else(|_| {
        builtin::Answer::unknown(format!("UNKNOWN - the check has not ended within {} s", settings.timeout))
    });
    writeln!(out, "{}", answer.text)?;
    // What hangs in the kernel must not keep the process.
    runtime.shutdown_background();
    Ok(ExitCode::from(answer.state.number()))
}

/// One line a value; those of a value inside another have both names.
fn show_lines(out: &mut impl Write, name: &str, value: &Value) -> std::io::Result<()> {
    match value {
        Value::Object(inner) => inner.iter().try_for_each(|(key, value)| {
            let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
            show_lines(out, &name, value)
        }),
        Value::String(text) => writeln!(out, "{name:<24} {text}"),
        value => writeln!(out, "{name:<24} {value}"),
    }
}

/// Answers NRPE. Reads, logs and gives up root before there is a runtime, and so before there is a second thread.
fn answer(settings: Agent) -> Result<ExitCode> {
    let Agent { config, check, no_tls, inetd, port, user, group, log: filter } = settings;
    // A daemon's working directory may be gone by the time that it reads its files again.
    let config = config.map(std::path::absolute).transpose().context("the name of the configuration")?;
    let call = Call { config, plain: no_tls, port, user, group };
    if check {
        return judge(&call);
    }
    let (settings, warnings) = agent::read(&call)?;
    let usual = if settings.debug { "debug" } else { "info" };
    let filter = filter.unwrap_or_else(|| usual.to_owned());
    let filter = EnvFilter::try_new(&filter).map_err(|error| Misuse(format!("--log {filter}: {error}")))?;
    let log = Log::default();
    let opened = log.open(settings.log_file.as_deref());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(log.clone()).with_ansi(false).init();
    if let Err(error) = opened {
        tracing::error!(%error, "log_file cannot be opened; logging to standard error");
    }
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    let agent = agent::Agent::prepare(call, settings, log)?;
    let runtime = tokio::runtime::Runtime::new().context("the runtime cannot be started")?;
    let ended = runtime.block_on(async { if inetd { agent.serve_inetd().await } else { agent.serve().await } });
    // A disk that hangs must not keep a process that was told to end.
    runtime.shutdown_background();
    ended.map(|()| ExitCode::SUCCESS)
}

/// All that is to be said about a configuration, on standard output.
fn judge(call: &Call) -> Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match agent::check(call) {
        Ok((warnings, summary)) => {
            for warning in &warnings {
                writeln!(out, "{warning}")?;
            }
            writeln!(out, "good: {summary}")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            writeln!(out, "{error:#}")?;
            Ok(ExitCode::from(2))
        }
    }
}
