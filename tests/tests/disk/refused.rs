//! The kernel made to refuse, `strace --inject`: a call site of a program's disk, where it is, how a program is brought there, and whether
//! it was refused. `refused/spool.rs` and `refused/journal.rs` name the sites and judge what became of the answers.
//!
//! `PERIGEE_CALLS=all` takes every site, with EIO and with ENOSPC, and attaches to running programs for some, which the system must allow
//! (`kernel.yama.ptrace_scope`); without it only writing and syncing. strace counts the calls of each thread. A site that opens or
//! removes what had no name before is reached while the program runs: every such call is refused until one of them was the one.

mod journal;
mod spool;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tests::missing::missing;
use tests::process::{Process, text};
use tests::syscalls::calls;
use tests::wait::until;

use crate::damaged::{is_segment, number};
use crate::scene::{PATIENCE, Scene, scene};

const STRACE: &str = "/usr/bin/strace";
/// Answers that must be given after each refusal.
const ANSWERS: usize = 20;
/// Bytes of an answer: segments get full.
const BYTES: usize = 1500;
/// Errors that are injected.
const ERRORS: [&str; 2] = ["EIO", "ENOSPC"];

/// On which path calls are refused.
#[derive(Debug, Clone, Copy)]
enum Place {
    Anywhere,
    /// This one of the data directory.
    Named(&'static str),
    /// The newest file in this directory of the data directory.
    Newest(&'static str),
    /// The newest segment.
    Segment,
    /// The directory that segment is in.
    Log,
    /// That directory, reached over a call on the segment.
    LogAndSegment,
    /// A file in the directory above that, or itself for an empty name.
    Process(&'static str),
    /// A file beside the segment.
    Beside(&'static str),
}

/// When a site is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// From the start of the program on.
    Starting,
    /// While it runs.
    Running,
    /// While it ends as it was told to.
    Ending,
}

/// What brings the program there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stir {
    Nothing,
    /// The process before ended as it was told to.
    Ended,
    /// There is no assignment on the disk.
    NoAssignment,
    /// Another configuration.
    Configuration,
    /// Something unfinished stands at the end of the newest segment.
    Torn,
    /// The oldest segments are so large that they must go.
    Full,
}

/// One call site.
#[derive(Debug, Clone, Copy)]
struct Site {
    call: &'static str,
    place: Place,
    /// Which calls, in strace's words.
    when: &'static str,
    /// Others that are refused with it, so that the program comes here.
    first: Option<(&'static str, &'static str)>,
    /// What stands among the arguments of the call that is meant.
    mark: &'static str,
    /// So many of these must be refused.
    times: usize,
    stage: Stage,
    stir: Stir,
    /// The one thread that is refused.
    thread: Option<&'static str>,
    /// Taken in every run.
    always: bool,
}

fn site(call: &'static str, place: Place) -> Site {
    Site {
        call,
        place,
        when: "1",
        first: None,
        mark: "",
        times: 1,
        stage: Stage::Starting,
        stir: Stir::Nothing,
        thread: None,
        always: false,
    }
}

impl Site {
    fn when(self, when: &'static str) -> Self {
        Self { when, ..self }
    }

    fn after(self, call: &'static str, when: &'static str) -> Self {
        Self { first: Some((call, when)), ..self }
    }

    fn mark(self, mark: &'static str) -> Self {
        Self { mark, ..self }
    }

    fn times(self, times: usize) -> Self {
        Self { times, ..self }
    }

    fn stage(self, stage: Stage) -> Self {
        Self { stage, ..self }
    }

    fn stir(self, stir: Stir) -> Self {
        Self { stir, ..self }
    }

    fn thread(self, thread: &'static str) -> Self {
        Self { thread: Some(thread), ..self }
    }

    fn always(self) -> Self {
        Self { always: true, ..self }
    }

    /// The paths it is bound to, now that the process that left them is the newest.
    fn paths(&self, data: &Path) -> Vec<PathBuf> {
        let above = |levels| newest(data, is_segment)?.ancestors().nth(levels).map(Path::to_owned);
        let paths = match self.place {
            Place::Anywhere => vec![],
            Place::Named(name) => vec![Some(data.join(name))],
            Place::Newest(name) => vec![newest(&data.join(name), Path::is_file)],
            Place::Segment => vec![above(0)],
            Place::Log => vec![above(1)],
            Place::LogAndSegment => vec![above(1), above(0)],
            Place::Process("") => vec![above(2)],
            Place::Process(name) => vec![above(2).map(|process| process.join(name))],
            Place::Beside(name) => vec![above(1).map(|log| log.join(name))],
        };
        paths.into_iter().map(|path| path.unwrap_or_else(|| panic!("{self:?}: there is no such file"))).collect()
    }

    /// strace's words for it. `data`: where its paths are.
    fn words(&self, error: &str, trace: &Path, data: &Path) -> Vec<String> {
        let mut words: Vec<String> = ["-ttt", "-T", "-y", "-s", "64", "-o"].map(str::to_owned).to_vec();
        words.push(trace.to_string_lossy().into_owned());
        let refused: Vec<(&str, &str)> = self.first.into_iter().chain([(self.call, self.when)]).collect();
        let seen: Vec<&str> =
            ["pwrite64", "fdatasync"].into_iter().chain(refused.iter().map(|(call, _)| *call)).collect();
        words.extend(["-e".to_owned(), format!("trace={}", seen.join(","))]);
        for (call, when) in refused {
            words.extend(["-e".to_owned(), format!("inject={call}:error={error}:when={when}")]);
        }
        words.extend(self.paths(data).iter().flat_map(|path| ["-P".to_owned(), path.to_string_lossy().into_owned()]));
        words
    }

    /// Whether it was refused, by the trace.
    fn was_hit(&self, trace: &Path) -> bool {
        let calls = calls(&traced(trace));
        let meant =
            calls.iter().filter(|call| call.injected && call.name == self.call && call.arguments.contains(self.mark));
        meant.count() >= self.times
    }
}

/// A trace as it is of several threads: that of one has no numbers of them.
fn traced(trace: &Path) -> String {
    let text = text(trace);
    let numbered = text.lines().next().is_none_or(|line| {
        line.split_whitespace().nth(1).is_some_and(|word| word.contains('.') && word.parse::<f64>().is_ok())
    });
    if numbered { text } else { text.lines().map(|line| format!("1 {line}\n")).collect() }
}

/// The newest file below a directory that `is_one`.
fn newest(directory: &Path, is_one: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let mut open = vec![directory.to_owned()];
    let mut newest = None;
    while let Some(directory) = open.pop() {
        // What a living process removes meanwhile is gone.
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let (path, Ok(metadata)) = (entry.path(), entry.metadata()) else { continue };
            if metadata.is_dir() {
                open.push(path);
            } else if is_one(&path) {
                newest = newest.max(metadata.modified().ok().map(|modified| (modified, path)));
            }
        }
    }
    newest.map(|(_, path)| path)
}

/// Files of a log that were written after a write or sync of theirs had failed.
fn trusted_again(trace: &Path) -> Vec<String> {
    let calls = calls(&traced(trace));
    let on_log = calls
        .iter()
        .filter(|call| call.path().ends_with(".seg") && ["pwrite64", "fdatasync"].contains(&call.name.as_str()));
    let mut failed: Vec<&str> = Vec::new();
    let mut again = Vec::new();
    for call in on_log {
        if call.name == "pwrite64" && failed.contains(&call.path()) {
            again.push(call.path().to_owned());
        }
        if call.returned.is_none_or(|returned| returned < 0) {
            failed.push(call.path());
        }
    }
    again
}

/// strace on a program that runs.
struct Tap(Process);

impl Tap {
    /// On all threads of a process, or on the one of that name.
    fn on(site: &Site, error: &str, pid: u32, trace: &Path, data: &Path) -> Self {
        let log = trace.with_extension("strace");
        let _ = fs::remove_file(&log);
        let mut command = Command::new(STRACE);
        match site.thread {
            None => command.args(["-f", "-p", &pid.to_string()]),
            Some(name) => command.args(["-p", &thread_of(pid, name)]),
        };
        let tap = Process::start("strace", command.args(site.words(error, trace, data)), &log).unwrap();
        assert!(until(PATIENCE, || tap.log().contains("attached")), "{site:?}\n{}", tap.log());
        Self(tap)
    }

    fn off(mut self) {
        self.0.terminate(PATIENCE).unwrap();
    }
}

/// The number of a process's thread of that name.
fn thread_of(pid: u32, name: &str) -> String {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|entry| entry.unwrap().path());
    let mut named = threads.filter(|path| fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name));
    let thread = named.next().unwrap_or_else(|| panic!("process {pid} has no thread called {name}"));
    thread.file_name().unwrap().to_string_lossy().into_owned()
}

/// How it went.
#[derive(Debug, Default)]
struct Score {
    /// What was to be refused.
    all: usize,
    /// Sites.
    sites: usize,
    /// Refusals at a start that ended the program with the reason.
    ended: usize,
    /// What was not refused.
    missed: Vec<String>,
}

impl Score {
    fn hit(&self) -> usize {
        self.all - self.missed.len()
    }
}

/// The sites of this run, each with the errors it is refused with.
fn cases(sites: &[Site]) -> Vec<(Site, &'static str)> {
    let all = std::env::var("PERIGEE_CALLS").is_ok_and(|calls| calls == "all");
    let taken = sites.iter().filter(|site| all || site.always).enumerate();
    let errors = |number: usize| if all { &ERRORS[..] } else { &ERRORS[number % 2..][..1] };
    taken.flat_map(|(number, site)| errors(number).iter().map(|error| (*site, *error))).collect()
}

fn score(sites: &[Site], cases: &[(Site, &'static str)]) -> Score {
    let taken = sites.iter().filter(|site| site.always).count();
    let sites = if cases.len() > taken { sites.len() } else { taken };
    Score { all: cases.len(), sites, ..Score::default() }
}

/// What there is only while the program starts is over soon after it checks; what comes again and again comes in time.
const REACHED_WITHIN: Duration = Duration::from_secs(60);

fn ready(name: &str) -> Option<(tempfile::TempDir, Scene, StdRng)> {
    if !Path::new(STRACE).exists() {
        missing(STRACE, "strace");
        return None;
    }
    let seed = number("PERIGEE_SEED", rand::random_range(1..1_000_000_000));
    eprintln!("{name}: PERIGEE_SEED={seed}");
    let directory = tempfile::tempdir().unwrap();
    let mut scene = scene(directory.path(), 20, Duration::from_millis(500), BYTES);
    scene.fleet.start().unwrap();
    scene.fleet.until_connected(PATIENCE).unwrap();
    Some((directory, scene, StdRng::seed_from_u64(seed)))
}
