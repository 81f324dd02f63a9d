//! Runs one program that is not ours, a plugin above all, and brings home how it ended and what it said: argv without a shell, clean
//! environment, a process group of its own, a deadline that the whole group feels, capped output, resource limits. Knows no checks.
//!
//! The surprise: the program is not collected before its group is killed. As long as its remains are there, its number, which is
//! the group's as well, cannot become anybody else's, and a signal to the group can hit nobody who has nothing to do with it.
#![expect(clippy::disallowed_methods, reason = "a shell room: it waits for processes in real time")]

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout, timeout_at};

pub mod descriptors;
pub mod limits;
pub mod orphans;

#[cfg(test)]
mod tests;

pub use limits::Limits;

/// Where programs are looked for, and what a shell that one of them starts finds.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Bytes of standard error that are kept; the rest is read and dropped, and the text marked.
pub const STDERR_CAP: usize = 16 * 1024;
/// Bytes of one output that are read at all. A program that says more finds its pipe closed, and usually ends by SIGPIPE.
pub const READ_MAX: u64 = 256 * 1024 * 1024;
/// After the deadline a group is asked to end (SIGTERM) and has this long until it is killed.
pub const TERM_GRACE: Duration = Duration::from_millis(500);
/// A program that has ended may have left others that hold its output open: what they say in this time still counts.
pub const LINGER: Duration = Duration::from_millis(200);
/// A killed program is gone at once, unless it hangs in the kernel: then it is left to a task that waits for it, with its place.
pub const COLLECT_WITHIN: Duration = Duration::from_millis(200);
/// How often it is looked for an end where no signals can be had.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What becomes of processes that a program left in its group when it ended in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leftovers {
    /// They are killed: nothing of a check outlives it. Right for plugins, which would leave one more with every check.
    Kill,
    /// They go on. Right where a command is meant to start something, as the handlers that NRPE daemons run. Standard error goes
    /// nowhere then: a pipe of ours would be closed behind them, and whoever says something into it ended.
    Spare,
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Order {
    /// Program and arguments. A program without `/` is looked for along [`PATH`].
    pub argv: Vec<String>,
    /// Variables beside PATH, LANG=C and LC_ALL=C; may replace these. Nothing is inherited.
    pub environment: Vec<(String, String)>,
    /// Whether LANG=C and LC_ALL=C are set: a text that is to be understood should be in English. Without, a program that sets
    /// LANG for itself gets what it wants.
    pub locale: bool,
    /// Working directory.
    pub directory: PathBuf,
    /// How long it may take; it ends at most [`TERM_GRACE`] + [`LINGER`] + [`COLLECT_WITHIN`] later.
    pub timeout: Duration,
    /// Bytes of standard output that are kept; the rest is read and dropped.
    pub output_cap: usize,
    /// What it may use up.
    pub limits: Limits,
    /// What becomes of those it leaves behind.
    pub leftovers: Leftovers,
}

impl Order {
    /// An order as a check gives it: working directory `/`, the usual limits, and nothing left behind.
    #[must_use]
    pub fn new(argv: Vec<String>, timeout: Duration, output_cap: usize) -> Self {
        Self {
            argv,
            environment: Vec::new(),
            locale: true,
            directory: PathBuf::from("/"),
            timeout,
            output_cap,
            limits: Limits::usual(timeout),
            leftovers: Leftovers::Kill,
        }
    }
}

/// Why a program did not even begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// It is not there (what a shell tells with 127).
    #[error("no such file")]
    NotFound,
    /// It is there, but what its first line or its binary format names to run it with is not (127 as well).
    #[error("the file is there, but the interpreter or loader that it names is not")]
    NoInterpreter,
    /// It may not be executed (what a shell tells with 126).
    #[error("permission denied")]
    NotPermitted,
    /// It is no program for this machine, or a script without `#!` (126 as well).
    #[error("not a program that this machine can run (a script needs a first line as #!/bin/sh)")]
    NotExecutable,
    /// As many programs as may were running all the time.
    #[error("no free place: {0} were running all the time")]
    NoPlace(usize),
    /// The system refuses.
    #[error("{0}")]
    Failed(String),
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Ran(i32),
    /// By a signal that we did not send.
    Signal(i32),
    /// Not in time; the group was killed.
    TimedOut,
    /// It did not begin.
    NotStarted(Obstacle),
}

/// What came through one of its outputs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captured {
    /// The first bytes of it.
    pub bytes: Vec<u8>,
    /// Whether there was more.
    pub truncated: bool,
}

/// What there is to say about a program that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub exit: Exit,
    /// Standard output.
    pub stdout: Captured,
    /// Standard error; nothing with [`Leftovers::Spare`].
    pub stderr: Captured,
    /// From its start to its own end, without the wait for a place and without whom it left behind.
    pub duration: Duration,
}

impl Ended {
    fn not_started(obstacle: Obstacle) -> Self {
        Self {
            exit: Exit::NotStarted(obstacle),
            stdout: Captured::default(),
            stderr: Captured::default(),
            duration: Duration::ZERO,
        }
    }
}

/// Runs programs, so many at once and not more; further ones wait in order of arrival.
#[derive(Debug, Clone)]
pub struct Runner {
    places: Arc<Semaphore>,
    at_once: usize,
}

impl Runner {
    /// At most `at_once` programs run at a time.
    #[must_use]
    pub fn new(at_once: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(at_once)), at_once }
    }

    /// Waits for a place, not longer than the order's time limit, which then begins anew, and runs the program. Dropping the
    /// future kills the whole group.
    pub async fn run(&self, order: &Order) -> Ended {
        match self.place(order.timeout).await {
            Ok(place) => place.run(order).await,
            Err(obstacle) => Ended::not_started(obstacle),
        }
    }

    /// Waits for a place.
    ///
    /// # Errors
    /// [`Obstacle::NoPlace`]: none was free in this time.
    pub async fn place(&self, within: Duration) -> Result<Place, Obstacle> {
        match timeout(within, Arc::clone(&self.places).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Place { _permit: permit }),
            Ok(Err(_)) | Err(_) => Err(Obstacle::NoPlace(self.at_once)),
        }
    }
}

/// A place to run one program in, given back when that is gone.
#[derive(Debug)]
pub struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// Runs the program. Dropping the future kills the whole group.
    pub async fn run(self, order: &Order) -> Ended {
        execute(order, Some(self)).await
    }
}

/// Runs the program at once, whatever else is running. Dropping the future kills the whole group.
pub async fn run(order: &Order) -> Ended {
    execute(order, None).await
}

async fn execute(order: &Order, place: Option<Place>) -> Ended {
    let began = Instant::now();
    // A day stands for a time too long to be added up.
    let deadline = began.checked_add(order.timeout).unwrap_or(began + Duration::from_secs(86_400));
    let (mut group, stdout, stderr) = match start(order, place) {
        Ok(started) => started,
        Err(obstacle) => return Ended::not_started(obstacle),
    };
    let leader = group.leader;
    let (mut out, mut err) = (Capture::new(order.output_cap), Capture::new(STDERR_CAP));
    let (duration, in_time) = {
        let errors = async {
            if let Some(stderr) = stderr {
                err.read(stderr).await;
            }
        };
        let reading = async { tokio::join!(out.read(stdout), errors) };
        tokio::pin!(reading);
        let mut read = false;
        let waited = timeout_at(deadline, async {
            tokio::select! {
                () = until_ended(leader) => {}
                _ = &mut reading => {
                    read = true;
                    until_ended(leader).await;
                }
            }
        });
        let in_time = waited.await.is_ok();
        let duration = began.elapsed();
        if !in_time {
            group.signal(Signal::TERM);
            // Read on: one that waits for room in its pipe could not end by itself.
            let _ = timeout(TERM_GRACE, async {
                tokio::select! {
                    () = until_ended(leader) => {}
                    _ = &mut reading, if !read => {
                        read = true;
                        until_ended(leader).await;
                    }
                }
            })
            .await;
            group.signal(Signal::KILL);
        }
        if !read {
            let _ = timeout(LINGER, &mut reading).await;
        }
        (duration, in_time)
    };
    if order.leftovers == Leftovers::Kill {
        group.signal(Signal::KILL);
    }
    let status = group.collect().await;
    let exit = match status {
        _ if !in_time => Exit::TimedOut,
        Some(Ok(status)) => exit_of(status),
        Some(Err(error)) => Exit::NotStarted(Obstacle::Failed(format!("its exit status is lost: {error}"))),
        None => Exit::TimedOut,
    };
    Ended { exit, stdout: out.done(), stderr: err.done(), duration }
}

fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Ran(code),
        (None, signal) => Exit::Signal(signal.unwrap_or_default()),
    }
}

type Started = (Group, tokio::process::ChildStdout, Option<tokio::process::ChildStderr>);

fn start(order: &Order, place: Option<Place>) -> Result<Started, Obstacle> {
    let Some((program, arguments)) = order.argv.split_first() else {
        return Err(Obstacle::Failed("no program is named".to_owned()));
    };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", PATH);
    if order.locale {
        command.env("LANG", "C").env("LC_ALL", "C");
    }
    command.envs(order.environment.iter().map(|(name, value)| (name, value))).current_dir(&order.directory);
    let errors = match order.leftovers {
        Leftovers::Kill => Stdio::piped(),
        Leftovers::Spare => Stdio::null(),
    };
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors).process_group(0).kill_on_drop(true);
    let started = orphans::start(|| command.spawn());
    let mut child = started.map_err(|error| obstacle_of(&error, Path::new(program), &order.directory))?;
    let leader = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let (Some(leader), Some(stdout)) = (leader, child.stdout.take()) else {
        return Err(Obstacle::Failed("the system gave the new process no number".to_owned()));
    };
    let stderr = child.stderr.take();
    order.limits.apply(leader);
    Ok((Group { leader, remains: Some((child, place)) }, stdout, stderr))
}

fn obstacle_of(error: &io::Error, program: &Path, directory: &Path) -> Obstacle {
    let there = program.components().count() > 1 && directory.join(program).exists();
    match error.kind() {
        io::ErrorKind::NotFound if !directory.exists() => {
            Obstacle::Failed(format!("the working directory {} is not there", directory.display()))
        }
        io::ErrorKind::NotFound if there => Obstacle::NoInterpreter,
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Obstacle::NotFound,
        io::ErrorKind::PermissionDenied => Obstacle::NotPermitted,
        _ if error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => Obstacle::NotExecutable,
        _ => {
            let text = error.to_string();
            Obstacle::Failed(text.split_once(" (os error").map_or(text.as_str(), |(sentence, _)| sentence).to_owned())
        }
    }
}

/// A group of processes; unless it was collected, dropping it kills it.
struct Group {
    leader: Pid,
    /// The leader as long as it is not collected, and the place that is taken so long.
    remains: Option<(Child, Option<Place>)>,
}

impl Group {
    /// Sends to everybody in the group. Does nothing once the leader is collected: the number may be another's by then.
    fn signal(&self, signal: Signal) {
        if self.remains.is_some() {
            // Nobody may be left to hear it.
            let _ = kill_process_group(self.leader, signal);
        }
    }

    /// Collects the leader, which has ended or is killed; `None` if it does not go.
    async fn collect(&mut self) -> Option<io::Result<ExitStatus>> {
        let (child, _) = self.remains.as_mut()?;
        let status = timeout(COLLECT_WITHIN, child.wait()).await.ok()?;
        orphans::collected(self.leader);
        self.remains = None;
        Some(status)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let Some((mut child, place)) = self.remains.take() else { return };
        let leader = self.leader;
        // Without a runtime the process is ending, and the system collects what it leaves behind.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                let _ = child.wait().await;
                orphans::collected(leader);
                drop(place);
            });
        }
    }
}

/// Waits until this child of ours has ended, and does not collect it.
async fn until_ended(leader: Pid) {
    let looking = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let runs = || matches!(waitid(WaitId::Pid(leader), looking), Ok(None));
    // Listening begins before the first look, so that no end falls between the two.
    match signal(SignalKind::child()) {
        Ok(mut ends) => {
            while runs() {
                // Whoever's end it was.
                ends.recv().await;
            }
        }
        Err(_) => {
            while runs() {
                sleep(LOOK_EVERY).await;
            }
        }
    }
}

/// One output, as far as it was read.
struct Capture {
    kept: Vec<u8>,
    most: usize,
    seen: u64,
}

impl Capture {
    fn new(most: usize) -> Self {
        Self { kept: Vec::new(), most, seen: 0 }
    }

    /// Reads to the end, or until there was far too much, and closes the pipe.
    async fn read(&mut self, mut pipe: impl AsyncRead + Unpin) {
        let mut chunk = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
            self.seen = self.seen.saturating_add(count as u64);
            let room = self.most - self.kept.len();
            self.kept.extend_from_slice(chunk.get(..count.min(room)).unwrap_or_default());
            if self.seen > READ_MAX {
                return;
            }
        }
    }

    fn done(self) -> Captured {
        let truncated = self.seen > self.kept.len() as u64;
        Captured { bytes: self.kept, truncated }
    }
}
