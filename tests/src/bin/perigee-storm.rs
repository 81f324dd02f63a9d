//! `perigee-storm`: puts a master of its own through a crowd of satellites and says what it measured. Exit 1 when somebody was not
//! served.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tests::storm::scenes::{self, Size};

/// Starts a master in a temporary directory and lets thousands of satellite identities loose on it.
#[derive(Debug, Parser)]
#[command(name = "perigee-storm")]
struct Arguments {
    #[command(subcommand)]
    scene: Scene,
}

#[derive(Debug, Subcommand)]
enum Scene {
    /// Idle links in two sizes, then kill -9 of the master: memory a link, time until all are back.
    Idle {
        /// Identities in the end; a third of them come first.
        #[arg(long, default_value_t = 3000)]
        identities: usize,
    },
    /// All slots offer backlog at once: use of the byte pool, time until all is acknowledged.
    Flood {
        /// Slots.
        #[arg(long, default_value_t = 1000)]
        slots: usize,
        /// Full batches of each, some 54 KiB.
        #[arg(long, default_value_t = 5)]
        batches: usize,
    },
    /// Steady commits while checkpoints of a large state are written and the journal is trimmed: the longest wait for a commit.
    Stall {
        /// Checks of the state, in thousands.
        #[arg(long, default_value_t = 100)]
        thousands: usize,
        /// MiB to commit; beyond 320 the journal is trimmed.
        #[arg(long, default_value_t = 600)]
        mebibytes: usize,
        /// MiB a second.
        #[arg(long, default_value_t = 8)]
        rate: usize,
    },
}

/// What hosts and services make so many thousand checks: ten regions.
fn large(thousands: usize) -> Size {
    Size { identities: 50, regions: 10, hosts: 100, services: thousands }
}

fn main() -> Result<ExitCode> {
    let directory = tempfile::tempdir()?;
    let measured = match Arguments::parse().scene {
        Scene::Idle { identities } => {
            let size = Size { identities, regions: 25, hosts: 8, services: 1 };
            scenes::idle(directory.path(), size).map(|idle| format!("{idle:#?}"))
        }
        Scene::Flood { slots, batches } => {
            let size = Size { identities: slots, regions: slots.div_ceil(4), hosts: 60, services: 1 };
            scenes::flood(directory.path(), size, batches).map(|flood| format!("{flood:#?}"))
        }
        Scene::Stall { thousands, mebibytes, rate } => {
            const MIB: usize = 1024 * 1024;
            scenes::stall(directory.path(), large(thousands), mebibytes * MIB, rate * MIB)
                .map(|stall| format!("{stall:#?}"))
        }
    };
    match measured {
        Ok(measured) => {
            writeln!(std::io::stdout(), "{measured}")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            writeln!(std::io::stderr(), "perigee-storm: {error:#}")?;
            Ok(ExitCode::FAILURE)
        }
    }
}
