//! `backup` and `restore`: the one asks the running master and tells how far it is, the other works on directories where no master
//! runs. Decides only what is said. The surprise: both fail before they change anything, or leave behind what can be run again.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::{Client, Failure};
use super::show::Look;
use super::{GOOD, Reach, WAIT, client, restored, write_json};
use crate::backup;

/// A backup copies everything there is.
const BACKUP_WAIT: Duration = Duration::from_secs(6 * 3600);
/// Between two words about how far it is.
const TELL_EVERY: Duration = Duration::from_secs(2);
/// The last thing heard is looked for this often.
const POLL: Duration = Duration::from_millis(100);

const MIB: u64 = 1024 * 1024;

/// Asks the master for a backup; progress goes to standard error.
pub(super) fn back_up(reach: &Reach, to: &Path, keys: bool, history: bool, out: &mut Vec<u8>) -> Result<u8, Failure> {
    let to = std::path::absolute(to).map_err(|error| Failure::Wrong(format!("{}: {error}", to.display())))?;
    let asking = client(reach)?;
    let watching = client(reach)?;
    let done = AtomicBool::new(false);
    let body = json!({ "to": to, "keys": keys, "history": history });
    let made = std::thread::scope(|scope| {
        scope.spawn(|| watch(&watching, &done));
        let made = asking.send("actions/backup", &body, BACKUP_WAIT);
        done.store(true, Ordering::Release);
        made
    })?;
    if reach.json {
        write_json(out, &made)?;
    } else {
        writeln!(
            out,
            "{} files, {} MiB, up to row {} of the journal: {}",
            made["files"],
            made["bytes"].as_u64().unwrap_or(0).div_ceil(MIB),
            made["index"],
            to.display()
        )?;
        if !keys {
            writeln!(
                out,
                "without the CA's key: keep trust/ca.key of the data directory apart, where only you can read it"
            )?;
        }
    }
    Ok(GOOD)
}

/// Tells how far the running backup is until it is done.
fn watch(client: &Client, done: &AtomicBool) {
    let mut told = Instant::now();
    while !done.load(Ordering::Acquire) {
        std::thread::sleep(POLL);
        if told.elapsed() < TELL_EVERY {
            continue;
        }
        told = Instant::now();
        let Ok(status) = client.get("status", WAIT) else { continue };
        let number = |name: &str| status["backup"][name].as_u64().map(|bytes| bytes / MIB);
        if let (Some(copied), Some(total)) = (number("copied_bytes"), number("total_bytes")) {
            let far = if total == 0 { "compacting the history".to_owned() } else { format!("{copied} of {total} MiB") };
            let _ = writeln!(io::stderr(), "{far}");
        }
    }
}

/// Puts a backup into a data directory; progress goes to standard error.
pub(super) fn restore(from: &Path, data: &Path, as_json: bool, look: &Look, out: &mut Vec<u8>) -> Result<u8, Failure> {
    let absolute = |path: &Path| -> Result<PathBuf, Failure> {
        std::path::absolute(path).map_err(|error| Failure::Wrong(format!("{}: {error}", path.display())))
    };
    let (from, data) = (absolute(from)?, absolute(data)?);
    let (mut told, mut bytes) = (Instant::now(), 0_u64);
    let mut tell = |listed: &backup::Listed| {
        bytes = bytes.saturating_add(listed.bytes);
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            let _ = writeln!(io::stderr(), "{} MiB copied", bytes / MIB);
        }
    };
    let outcome = backup::restore(&from, &data, rand::random(), &mut tell)
        .map_err(|error| Failure::Wrong(format!("{error:#}")))?;
    if as_json {
        let value: Value = serde_json::to_value(&outcome).map_err(io::Error::from)?;
        write_json(out, &value)?;
        return Ok(GOOD);
    }
    restored::restored(out, &outcome, &data, look)?;
    Ok(GOOD)
}
