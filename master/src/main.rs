//! The door of `perigee-master`: settings, logs, signals, exit code. Everything else is in the library.

use std::process::ExitCode;

use clap::Parser;
use master::settings::Settings;
use master::{cli, config, run};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Perigee's master: configuration, state and delivery of a whole installation, and the commands that ask it.
#[derive(Debug, Parser)]
#[command(name = "perigee-master", version, max_term_width = 110)]
struct Arguments {
    /// What to log, on standard error: error, warn, info, debug, or a filter such as `info,master::link=debug`; without it `serve`
    /// logs info and everything else warn
    #[arg(long, global = true, env = "PERIGEE_LOG", value_name = "FILTER")]
    log: Option<String>,
    /// Log as JSON, one object a line
    #[arg(long, global = true)]
    log_json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Serve(Settings),
    #[command(flatten)]
    Ask(cli::Command),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let usual = if matches!(arguments.command, Command::Serve(_)) { "info" } else { "warn" };
    let filter =
        EnvFilter::try_new(arguments.log.as_deref().unwrap_or(usual)).unwrap_or_else(|_| EnvFilter::new(usual));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if arguments.log_json {
        logs.json().init()
    } else {
        logs.with_ansi(false).init()
    }
    match arguments.command {
        Command::Ask(command) => ExitCode::from(cli::run(command)),
        Command::Serve(settings) => match begin(settings) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!("{error:#}");
                ExitCode::from(config::EXIT_WRONG)
            }
        },
    }
}

fn begin(settings: Settings) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(settings))
}

/// Runs until SIGTERM or SIGINT; SIGHUP reads the configuration again.
async fn serve(settings: Settings) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    let (reload_sender, reload) = mpsc::channel(1);
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hangup = signal(SignalKind::hangup())?;
    let stop = shutdown.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                // A reload already waits when the channel is full; one is enough.
                _ = hangup.recv() => { let _ = reload_sender.try_send(()); }
            }
        }
        stop.cancel();
    });
    run::serve(settings, shutdown, reload).await
}
