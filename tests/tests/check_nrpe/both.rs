//! Runs a command line with both programs, under the same name and in the same directory, and tells what class of failure ours saw.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tests::fleet::program;
use tests::nrpe::CHECK_NRPE;

/// The name both run under, which their complaints begin with.
const NAME: &str = "check_nrpe";
/// The log of ours, which every comparison asks for.
const OURS: &str = "ours.log";

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

/// Both of them.
#[derive(Debug)]
pub(crate) struct Both {
    pub(crate) theirs: Ended,
    pub(crate) ours: Ended,
    /// What ours saw: the kind of failure, and what was odd about an answer.
    pub(crate) classes: BTreeSet<String>,
}

pub(crate) fn theirs(words: &[String], directory: &Path) -> Ended {
    run(Path::new(CHECK_NRPE), words, directory)
}

pub(crate) fn ours(words: &[String], directory: &Path) -> Ended {
    run(&satellite(), words, directory)
}

pub(crate) fn satellite() -> PathBuf {
    program("perigee-satellite").expect("the satellite is built")
}

#[expect(clippy::disallowed_methods, reason = "how long a program takes is what is measured")]
fn run(path: &Path, words: &[String], directory: &Path) -> Ended {
    let mut command = Command::new(path);
    command.arg0(NAME).args(words).current_dir(directory).env("LC_ALL", "C").stdin(Stdio::null());
    let began = Instant::now();
    let output = command.output().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Ended {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: began.elapsed(),
    }
}

/// Runs both, ours with a log.
pub(crate) fn both(words: &[String], directory: &Path) -> Both {
    let theirs = theirs(words, directory);
    let log = directory.join(OURS);
    // The command line's last -g wins: a case that has one keeps it, and tells no class.
    let mut logged = words.to_vec();
    if !words.is_empty() {
        logged.splice(0..0, ["-g".to_owned(), OURS.to_owned()]);
    }
    let ours = ours(&logged, directory);
    let text = std::fs::read_to_string(&log).unwrap_or_default();
    let _ = std::fs::remove_file(&log);
    Both { classes: classes(&ours, &text), theirs, ours }
}

/// The classes of what ours saw: `[seconds] KIND: …` in its log, `usage` where it asked nobody.
fn classes(ours: &Ended, log: &str) -> BTreeSet<String> {
    let mut classes = BTreeSet::new();
    if ours.stdout.contains("Incorrect command line arguments supplied") {
        classes.insert("usage".to_owned());
    }
    let Some(line) = log.lines().next_back().and_then(|line| line.split_once("] ")).map(|(_, line)| line) else {
        return classes;
    };
    let kind = line.split(':').next().unwrap_or_default();
    classes.insert(kind.to_owned());
    if kind == "answered" {
        let (_, rest) = line.split_once(": code ").expect("an answer has a code");
        let code = rest.split(' ').next().unwrap_or_default();
        if !["0", "1", "2", "3"].contains(&code) {
            classes.insert("code-out-of-range".to_owned());
        }
        if rest.contains(" in a packet v2") {
            classes.insert("version-2".to_owned());
        }
        if rest.ends_with(": ") {
            classes.insert("no-output".to_owned());
        }
        if !ours.stderr.is_empty() {
            classes.insert("remark".to_owned());
        }
    }
    classes
}
