//! The door of `perigee-master`: settings, logs, signals, exit code. Everything else is in the library.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use master::settings::Settings;
use master::{config, run, trust};
use shared::name::{RegionName, SlotNumber};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Perigee's master: configuration, state and delivery of a whole installation.
#[derive(Debug, Parser)]
#[command(name = "perigee-master", version, max_term_width = 110)]
struct Arguments {
    /// What to log, on standard error: error, warn, info, debug, or a filter such as `info,master::link=debug`
    #[arg(long, global = true, default_value = "info", env = "PERIGEE_LOG", value_name = "FILTER")]
    log: String,
    /// Log as JSON, one object a line
    #[arg(long, global = true)]
    log_json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Serve(Settings),
    /// Checks a configuration and says what it would do, or everything that is wrong with it
    CheckConfig {
        /// File or directory
        path: PathBuf,
        /// For scripts
        #[arg(long)]
        json: bool,
    },
    /// Writes a certificate for a slot: slot.crt, slot.key and ca.crt
    Certificate {
        /// The region
        #[arg(long)]
        region: RegionName,
        /// The slot, from 1
        #[arg(long)]
        slot: SlotNumber,
        /// How long it is valid
        #[arg(long, default_value_t = trust::SLOT_DAYS)]
        days: u32,
        /// Where to
        #[arg(long)]
        out: PathBuf,
        /// The master's data directory
        #[arg(long, env = "PERIGEE_DATA")]
        data: PathBuf,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_new(&arguments.log).unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if arguments.log_json {
        logs.json().init()
    } else {
        logs.with_ansi(false).init()
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the asynchronous runtime cannot start");
            return ExitCode::from(config::EXIT_WRONG);
        }
    };
    match arguments.command {
        Command::CheckConfig { path, json } => match config::check_config(&path, json, &mut std::io::stdout()) {
            Ok(code) => ExitCode::from(code),
            Err(error) => failed(&error.into()),
        },
        Command::Certificate { region, slot, days, out, data } => {
            match trust::certificate(&data, None, &region, slot, days, &out) {
                Ok(_) => ExitCode::SUCCESS,
                Err(error) => failed(&error),
            }
        }
        Command::Serve(settings) => match runtime.block_on(serve(settings)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error),
        },
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    tracing::error!("{error:#}");
    ExitCode::from(config::EXIT_WRONG)
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
