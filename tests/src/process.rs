//! A program under test as a process of its own: in a group of its own, its log in a file, killed or told to end, and never left
//! behind. Knows nothing of what the program does.
//! The surprise: each process has a watcher, a shell that reads from us and kills the group when that ends; so nothing outlives a
//! test that was itself killed.

use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::wait::until;

/// The end of a log that is shown when something went wrong.
const LAST_WORDS: usize = 4000;
/// How long a killed process may take until the kernel has put it away.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// Kills a process group when the process that made this value is gone, however it went.
#[derive(Debug)]
pub struct Watcher {
    shell: Child,
}

impl Watcher {
    /// Watches over the group led by this process.
    ///
    /// # Errors
    /// No shell can be started.
    pub fn over(group: u32) -> Result<Self> {
        let mut command = shell("read -r end; kill -s KILL -- \"-$1\"", &[&group.to_string()]);
        let shell = command.stdin(Stdio::piped()).spawn().context("the watcher cannot be started")?;
        Ok(Self { shell })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // Before its input ends: by now the group's number may be another's.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

/// A shell in a group of its own; its script sees the words as `$1` and so on.
fn shell(script: &str, words: &[&str]) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, "sh"]).args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.process_group(0);
    command
}

/// Whether anybody in this group still runs: what has ended and only waits to be asked how holds nothing.
fn lives(group: u32) -> bool {
    let group = group.to_string();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(|process| fs::read_to_string(process.path().join("stat")).ok()).any(|stat| {
        // `number (name) state parent group …`, proc(5); a name may have spaces and brackets.
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let state = fields.next();
        fields.nth(1) == Some(&group) && !matches!(state, Some("Z" | "X"))
    })
}

/// A running program.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
    _watcher: Watcher,
}

impl Process {
    /// Starts the program; both of its outputs are added to the log.
    ///
    /// # Errors
    /// It cannot be started, or the log not be written.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(log);
        let file = file.with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name} ({})", command.get_program().display()))?;
        let watcher = Watcher::over(child.id())?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned(), ended: None, _watcher: watcher })
    }

    /// Its process id, which is also its group's.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// Sends a signal by name (`HUP`, `TERM`) to its whole group.
    ///
    /// # Errors
    /// There is no such group any more.
    pub fn signal(&self, name: &str) -> Result<()> {
        let group = self.child.id().to_string();
        let status = shell("kill -s \"$1\" -- \"-$2\"", &[name, &group]).status()?;
        ensure!(status.success(), "{} cannot be sent {name}", self.name);
        Ok(())
    }

    /// `kill -9`, and waits until it is gone.
    ///
    /// # Errors
    /// It does not go.
    pub fn kill(&mut self) -> Result<()> {
        if self.ended().is_none() {
            // The leader first and directly, without the way through a shell: this is the moment that a test has chosen.
            self.child.kill()?;
            // Whatever else is in its group; that there is nothing is the rule. Behind one that runs another, as strace does, that one
            // is looked for: it may hold its locks a moment longer.
            let _ = self.signal("KILL");
            let group = self.pid();
            let gone = until(GONE_WITHIN, || self.ended().is_some() && !lives(group));
            ensure!(gone, "{} does not go", self.name);
        }
        Ok(())
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// It has not ended by then; its last words are in the message.
    pub fn terminate(&mut self, within: Duration) -> Result<ExitStatus> {
        if self.ended().is_none() {
            // It may end by itself in between.
            let _ = self.signal("TERM");
        }
        until(within, || self.ended().is_some());
        self.ended().with_context(|| format!("{} did not end within {within:?}\n{}", self.name, self.last_words()))
    }

    /// Everything it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        text(&self.log)
    }

    /// The end of its log.
    #[must_use]
    pub fn last_words(&self) -> String {
        let log = self.log();
        let from = log.len().saturating_sub(LAST_WORDS);
        let from = (from..=log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or(0);
        format!("--- {}\n{}", self.name, &log[from..])
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nobody is there to be told; the watcher and the kernel do what is left.
        let _ = self.kill();
    }
}

/// What a file holds as text, and why it cannot be read if so.
#[must_use]
pub fn text(path: &Path) -> String {
    match fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("{}: {error}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn lives(pid: &str) -> bool {
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    }

    #[test]
    fn a_process_is_told_to_end_and_its_log_stays() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.02; done"]);
        let mut process = Process::start("sh", &mut command, &log).unwrap();
        assert!(until(SOON, || process.log().contains("ready")));
        assert_eq!(process.terminate(SOON).unwrap().code(), Some(7));
        // The whole group was told, so the shell may have said something of what it waited for.
        let words = process.last_words();
        assert!(words.contains("ready\n") && words.ends_with("bye\n"), "{words}");
    }

    #[test]
    fn a_killed_process_takes_its_group_along() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "sleep 600 & echo $!; wait"]);
        let mut process = Process::start("sh", &mut command, &log).unwrap();
        assert!(until(SOON, || process.log().ends_with('\n')));
        let below = process.log().trim().to_owned();
        assert!(lives(&below));
        process.kill().unwrap();
        assert!(until(SOON, || !lives(&below)));
    }

    #[test]
    fn nothing_outlives_the_one_who_watches() {
        let mut sleeper = Command::new("/bin/sleep").arg("600").process_group(0).spawn().unwrap();
        let mut watcher = Watcher::over(sleeper.id()).unwrap();
        drop(watcher.shell.stdin.take());
        assert!(until(SOON, || sleeper.try_wait().unwrap().is_some()));
        let mut sleeper = Command::new("/bin/sleep").arg("600").process_group(0).spawn().unwrap();
        drop(Watcher::over(sleeper.id()).unwrap());
        assert_eq!(sleeper.try_wait().unwrap(), None, "a watcher that is put away leaves the group alone");
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
    }
}
