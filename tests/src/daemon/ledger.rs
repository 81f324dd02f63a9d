//! The outside ledger: one line for every answer a test daemon gave, on disk before the answer is sent. Whoever claims that no
//! result was lost compares with this file; Perigee has no part in it.
//!
//! A line is `unix_ms host command serial state`. Several daemons of one process share a ledger, and a sync: answers that come
//! while one is running wait for the next together.

use std::collections::HashMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::mpsc;
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use tokio::sync::oneshot;

/// One answer that was given.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// By which daemon.
    pub host: String,
    /// To which command.
    pub command: String,
    /// Its number among the answers of this command of this host, from 1.
    pub serial: u64,
    /// Its result code.
    pub state: i16,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, host, command, serial, state } = self;
        write!(f, "{at} {host} {command} {serial} {state}")
    }
}

impl FromStr for Entry {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> Result<Self> {
        let mut words = line.split(' ');
        let mut word = |name| words.next().with_context(|| format!("{line:?}: no {name}"));
        let entry = Self {
            at: word("time")?.parse()?,
            host: word("host")?.to_owned(),
            command: word("command")?.to_owned(),
            serial: word("serial")?.parse()?,
            state: word("state")?.parse()?,
        };
        words.next().map_or(Ok(entry), |more| Err(anyhow!("{line:?}: what is {more:?}?")))
    }
}

type Request = (Entry, oneshot::Sender<io::Result<()>>);

/// An open ledger. Clones write to the same file.
#[derive(Debug, Clone)]
pub struct Ledger {
    requests: mpsc::Sender<Request>,
    path: PathBuf,
}

impl Ledger {
    /// Opens or makes the file. A last line without an end, left by a kill, is cut off: its answer was never sent.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let whole =
            std::fs::read(path).ok().map(|bytes| bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1));
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .with_context(|| format!("cannot open the ledger {}", path.display()))?;
        if let Some(whole) = whole {
            file.set_len(u64::try_from(whole)?)?;
        }
        let (requests, queue) = mpsc::channel::<Request>();
        thread::Builder::new().name("ledger".to_owned()).spawn(move || write(&mut file, &queue))?;
        Ok(Self { requests, path: path.to_owned() })
    }

    /// Writes the entry and returns when it is on disk.
    ///
    /// # Errors
    /// It is not on disk.
    pub async fn record(&self, entry: Entry) -> Result<()> {
        let (done, written) = oneshot::channel();
        self.requests.send((entry, done)).map_err(|_| anyhow!("the ledger is closed"))?;
        written.await.context("the ledger is closed")?.context("the ledger cannot be written")
    }

    /// The greatest number of each command of a host.
    #[must_use]
    pub fn last_serials(&self, host: &str) -> HashMap<String, u64> {
        let mut serials = HashMap::new();
        for entry in read(&self.path).unwrap_or_default().into_iter().filter(|entry| entry.host == host) {
            let last = serials.entry(entry.command).or_insert(0);
            *last = entry.serial.max(*last);
        }
        serials
    }
}

/// Takes all that waits, writes it, syncs once, and tells everybody.
fn write(file: &mut File, queue: &mpsc::Receiver<Request>) {
    while let Ok(first) = queue.recv() {
        let requests: Vec<Request> = std::iter::once(first).chain(queue.try_iter()).collect();
        let lines: String = requests.iter().map(|(entry, _)| format!("{entry}\n")).collect();
        let written = file.write_all(lines.as_bytes()).and_then(|()| file.sync_data());
        for (_, done) in requests {
            // A connection that is gone does not want to know.
            let _ = done.send(written.as_ref().map_or_else(|error| Err(error.kind().into()), |()| Ok(())));
        }
    }
}

/// All entries of a ledger in the order of writing. A torn line, which only a kill leaves, is left out.
///
/// # Errors
/// The file cannot be read.
pub fn read(path: &Path) -> Result<Vec<Entry>> {
    let file = File::open(path).with_context(|| format!("cannot read the ledger {}", path.display()))?;
    let lines = BufReader::new(file).lines().collect::<io::Result<Vec<String>>>()?;
    Ok(lines.iter().filter_map(|line| line.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_recorded_is_in_the_file_and_a_torn_line_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        let entry = |serial| Entry { at: 1, host: "h".to_owned(), command: "c".to_owned(), serial, state: 2 };
        let ledger = Ledger::open(&path).unwrap();
        let waits: Vec<_> = (1..=50).map(|serial| ledger.record(entry(serial))).collect();
        for wait in waits {
            wait.await.unwrap();
        }
        assert_eq!(read(&path).unwrap(), (1..=50).map(entry).collect::<Vec<_>>());
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"1 h c 51 0").unwrap();
        let again = Ledger::open(&path).unwrap();
        again.record(entry(51)).await.unwrap();
        assert_eq!(again.last_serials("h")["c"], 51);
        assert_eq!(read(&path).unwrap(), (1..=51).map(entry).collect::<Vec<_>>());
    }
}
