//! The kernel made to refuse, `strace --inject`: a call site of a program's disk, where it is, how a program is brought there, and whether
//! it was refused. A site is a call and the kind of file it is about (`refused/kind.rs`). The rooms below name the sites and judge what
//! became of the answers; `refused/seen.rs` holds what the programs do against what is named.
//!
//! Every site is refused once, with EIO or with ENOSPC; `PERIGEE_CALLS=all` takes each with both, and each again at a random later call.
//! strace attaches to running programs for some, which the system must allow (`kernel.yama.ptrace_scope`). It counts the calls of each
//! thread. A site that opens or removes what had no name before is reached while the program runs: every such call is refused until
//! one of them was the one.

mod applied;
mod founded;
mod given_up;
mod journal;
mod kind;
mod seen;
mod spool;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tests::missing::missing;
use tests::process::{Process, text};
use tests::syscalls::calls;
use tests::wait::until;

use crate::damaged::{is_segment, number};
use crate::scene::{PATIENCE, Scene, scene};
use kind::{is_meant, kinds};

const STRACE: &str = "/usr/bin/strace";
/// Answers that must be given after each refusal.
const ANSWERS: usize = 20;
/// Bytes of an answer: segments get full.
const BYTES: usize = 1500;
/// Errors that are injected.
const ERRORS: [&str; 2] = ["EIO", "ENOSPC"];
/// A later call of a kind that comes again and again.
const OFTEN: [&str; 8] = ["3", "4", "5", "6", "7", "8", "9", "10"];
/// One of a kind that comes again every ten seconds or so, or a few times only.
const AGAIN: [&str; 2] = ["2", "3"];

/// On which path calls are refused.
#[derive(Debug, Clone, Copy)]
enum Place {
    Anywhere,
    /// The data directory.
    Data,
    /// The directory that is in.
    Above,
    /// This one of the data directory.
    Named(&'static str),
    /// The newest file in this directory of the data directory.
    Newest(&'static str),
    /// What is written beside that, to take its place.
    BesideNewest(&'static str),
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
    /// That of every run, or their directories themselves for an empty name.
    BesideAll(&'static str),
    /// A file in the directory of the process that is about to make it, or itself for an empty name.
    Own(&'static str),
}

/// When a site is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// From the start of the program on.
    Starting,
    /// From where it takes its place on the volume on.
    Entering,
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
    /// There is nothing on the disk.
    NewVolume,
    /// Another configuration.
    Configuration,
    /// One that ran before, whose revision is damaged on the disk.
    Damaged,
    /// Something unfinished stands at the end of the newest segment.
    Torn,
    /// The oldest segments are so large that they must go.
    Full,
    /// There are so many revisions that some must go.
    Crowded,
}

/// One call site.
#[derive(Debug, Clone, Copy)]
struct Site {
    call: &'static str,
    place: Place,
    /// The kind of file that the meant call is about, where the place does not say it.
    of: Option<&'static str>,
    /// The kind of the directory that segments are in.
    log: &'static str,
    /// Which calls, in strace's words.
    when: &'static str,
    /// Later ones that one process comes to; none if it comes here once, as the next process does.
    later: &'static [&'static str],
    /// Others that are refused with it, so that the program comes here.
    first: Option<(&'static str, &'static str)>,
    /// So many of these must be refused.
    times: usize,
    stage: Stage,
    stir: Stir,
    /// The one thread that is refused.
    thread: Option<&'static str>,
}

fn site(call: &'static str, place: Place) -> Site {
    Site {
        call,
        place,
        of: None,
        log: "spool/*/*",
        when: "1",
        later: &[],
        first: None,
        times: 1,
        stage: Stage::Starting,
        stir: Stir::Nothing,
        thread: None,
    }
}

impl Site {
    fn of(self, kind: &'static str) -> Self {
        Self { of: Some(kind), ..self }
    }

    fn when(self, when: &'static str) -> Self {
        Self { when, ..self }
    }

    fn later(self, later: &'static [&'static str]) -> Self {
        Self { later, ..self }
    }

    fn after(self, call: &'static str, when: &'static str) -> Self {
        Self { first: Some((call, when)), ..self }
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

    /// The kind of file that the meant call is about.
    fn kind(&self) -> String {
        let below = |directory: &str, name: &str| {
            if name.is_empty() { directory.to_owned() } else { format!("{directory}/{name}") }
        };
        match (self.of, self.place) {
            (Some(kind), _) => kind.to_owned(),
            (None, Place::Data) => String::new(),
            (None, Place::Above) => kind::ABOVE.to_owned(),
            (None, Place::Named(name)) => name.to_owned(),
            (None, Place::Segment) => below(self.log, "*.seg"),
            (None, Place::Log | Place::LogAndSegment) => self.log.to_owned(),
            (None, Place::Beside(name) | Place::BesideAll(name)) => below(self.log, name),
            (None, Place::Process(name) | Place::Own(name)) => below("spool/*", name),
            (None, Place::Anywhere | Place::Newest(_) | Place::BesideNewest(_)) => {
                panic!("{self:?}: nothing says what kind of file is meant")
            }
        }
    }

    /// The paths it is bound to, now that the process that left them is the newest.
    fn paths(&self, data: &Path) -> Vec<PathBuf> {
        let above = |levels| newest(data, is_segment)?.ancestors().nth(levels).map(Path::to_owned);
        let paths = match self.place {
            Place::Anywhere => vec![],
            Place::Data => vec![Some(data.to_owned())],
            Place::Above => vec![data.parent().map(Path::to_owned)],
            Place::Named(name) => vec![Some(data.join(name))],
            Place::Newest(name) => vec![newest(&data.join(name), is_whole)],
            Place::BesideNewest(name) => vec![newest(&data.join(name), is_whole).map(beside)],
            Place::Segment => vec![above(0)],
            Place::Log => vec![above(1)],
            Place::LogAndSegment => vec![above(1), above(0)],
            Place::Process("") => vec![above(2)],
            Place::Process(name) => vec![above(2).map(|process| process.join(name))],
            Place::Beside(name) => vec![above(1).map(|log| log.join(name))],
            Place::BesideAll("") => logs(data).into_iter().map(Some).collect(),
            Place::BesideAll(name) => logs(data).into_iter().map(|log| Some(log.join(name))).collect(),
            Place::Own(_) => panic!("{self:?}: only the process's log has the name of its directory"),
        };
        paths.into_iter().map(|path| path.unwrap_or_else(|| panic!("{self:?}: there is no such file"))).collect()
    }

    /// strace's words for it, bound to these paths.
    fn words(&self, error: &str, trace: &Path, paths: &[PathBuf]) -> Vec<String> {
        let mut words: Vec<String> = ["-ttt", "-T", "-y", "-s", "64", "-o"].map(str::to_owned).to_vec();
        words.push(trace.to_string_lossy().into_owned());
        let refused: Vec<(&str, &str)> = self.first.into_iter().chain([(self.call, self.when)]).collect();
        let seen: Vec<&str> =
            ["pwrite64", "fdatasync"].into_iter().chain(refused.iter().map(|(call, _)| *call)).collect();
        words.extend(["-e".to_owned(), format!("trace={}", seen.join(","))]);
        for (call, when) in refused {
            words.extend(["-e".to_owned(), format!("inject={call}:error={error}:when={when}")]);
        }
        words.extend(paths.iter().flat_map(|path| ["-P".to_owned(), path.to_string_lossy().into_owned()]));
        words
    }

    /// A program started through strace is refused so.
    fn through(&self, error: &str, trace: &Path, data: &Path) -> Vec<String> {
        let strace = [STRACE, "-f"].map(str::to_owned).into_iter();
        strace.chain(self.words(error, trace, &self.paths(data))).collect()
    }

    /// Whether it was refused, by the trace.
    fn was_hit(&self, trace: &Path, data: &Path) -> bool {
        let (calls, meant) = (calls(&traced(trace)), self.kind());
        let hits = calls.iter().filter(|call| {
            call.injected && call.name == self.call && kinds(data, call).iter().any(|kind| is_meant(kind, &meant))
        });
        hits.count() >= self.times
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

/// A file that is not being written to take another's place.
fn is_whole(path: &Path) -> bool {
    path.is_file() && path.extension().is_none_or(|extension| extension != "tmp")
}

/// What the master writes before it takes that file's place.
fn beside(path: PathBuf) -> PathBuf {
    let mut name = path.into_os_string();
    name.push(".tmp");
    PathBuf::from(name)
}

/// The directories of all runs on a satellite's volume.
fn logs(data: &Path) -> Vec<PathBuf> {
    let below = |directory: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
        entries.filter(|path| path.is_dir()).collect()
    };
    below(&data.join("spool")).iter().flat_map(|process| below(process)).collect()
}

/// Waits until the newest segment is one that is being written: one that failed is left, and the next made with what comes next.
fn until_written(data: &Path) {
    let look = || newest(data, is_segment).map(|path| (fs::metadata(&path).map_or(0, |metadata| metadata.len()), path));
    let before = look();
    assert!(until(PATIENCE, || look() != before), "nothing is written: {before:?}");
}

/// The last lines of a trace, for whoever looks why a site was not reached.
fn end_of(trace: &Path) -> String {
    let text = traced(trace);
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(40)).map(|line| format!("  {line}\n")).collect()
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
    fn on(site: &Site, error: &str, pid: u32, trace: &Path, paths: &[PathBuf]) -> Self {
        let log = trace.with_extension("strace");
        let _ = fs::remove_file(&log);
        let mut command = Command::new(STRACE);
        match site.thread {
            None => command.args(["-f", "-p", &pid.to_string()]),
            Some(name) => command.args(["-p", &thread_of(pid, name)]),
        };
        let tap = Process::start("strace", command.args(site.words(error, trace, paths)), &log).unwrap();
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

/// Each site with the errors it is refused with: first as it is, and in the long form once more at a later call, in an order that is
/// drawn: that of the same process where it comes there again, else that of a later one.
fn cases(sites: &[Site], draw: &mut StdRng) -> Vec<(Site, &'static str)> {
    if std::env::var("PERIGEE_CALLS").is_ok_and(|calls| calls == "all") {
        let both = |sites: &[Site]| -> Vec<(Site, &'static str)> {
            sites.iter().flat_map(|site| ERRORS.iter().map(|error| (*site, *error))).collect()
        };
        let (mut cases, mut later) = (both(sites), both(sites));
        for (site, _) in later.iter_mut().filter(|(site, _)| !site.later.is_empty()) {
            site.when = site.later[draw.random_range(0..site.later.len())];
        }
        later.sort_by_cached_key(|_| draw.random::<u64>());
        // A program is brought from one stage into another at some cost.
        later.sort_by_key(|(site, _)| site.stage);
        cases.extend(later);
        cases
    } else {
        sites.iter().zip(ERRORS.iter().cycle()).map(|(site, error)| (*site, *error)).collect()
    }
}

fn score(sites: &[Site], cases: &[(Site, &'static str)]) -> Score {
    Score { all: cases.len(), sites: sites.len(), ..Score::default() }
}

/// What there is only while the program starts is over soon after it checks; what comes again and again comes in time.
const REACHED_WITHIN: Duration = Duration::from_secs(60);

/// A number to draw from that can be given again, and said either way; none where strace is missing.
fn drawn(name: &str) -> Option<StdRng> {
    if !Path::new(STRACE).exists() {
        missing(STRACE, "strace");
        return None;
    }
    let seed = number("PERIGEE_SEED", rand::random_range(1..1_000_000_000));
    eprintln!("{name}: PERIGEE_SEED={seed}");
    Some(StdRng::seed_from_u64(seed))
}

/// A scene in a directory of its own; `more` stands at the end of its configuration. Paths are as the kernel tells them.
fn stage(more: &str) -> (tempfile::TempDir, Scene) {
    let directory = tempfile::tempdir().unwrap();
    let scene = scene(&directory.path().canonicalize().unwrap(), 20, Duration::from_millis(500), BYTES);
    let config = &scene.fleet.master.config;
    fs::write(config, format!("{}{more}", text(config))).unwrap();
    (directory, scene)
}

fn ready(name: &str) -> Option<(tempfile::TempDir, Scene, StdRng)> {
    let draw = drawn(name)?;
    let (directory, mut scene) = stage("");
    scene.fleet.start().unwrap();
    scene.fleet.until_connected(PATIENCE).unwrap();
    Some((directory, scene, draw))
}

/// The same configuration with another timeout than before.
fn configure_anew(scene: &Scene) {
    let path = &scene.fleet.master.config;
    let text = text(path);
    let (one, other) = ("timeout: 60s", "timeout: 61s");
    fs::write(path, if text.contains(one) { text.replace(one, other) } else { text.replace(other, one) }).unwrap();
}
