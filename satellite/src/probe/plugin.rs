//! Runs a monitoring plugin as Nagios and Icinga do and reads its end: exit status to state, text from standard output, from
//! standard error if it printed nothing there. Decides where a plugin that is named without a directory is looked for.
//!
//! The surprise: the words of a check stay the words that the plugin gets. There is no shell anywhere, so nothing in a host's
//! name or variables can become a second word or a second command.

use std::path::{Path, PathBuf};
use std::time::Duration;

use shared::check::{Exit, PluginCheck, State};
use shared::perfdata::{NO_OUTPUT, PERFDATA_LIMIT, TEXT_LIMIT};

use super::readable;
use crate::process::{self, Ended, Obstacle, Order, Place, Runner};

/// Plugins of the whole satellite at once; further ones wait in order of arrival, not longer than their time limit.
pub const PLUGINS: usize = 128;
/// Bytes of standard output that are kept: more than the limits of text and performance data together, which divide it.
pub const OUTPUT_CAP: usize = TEXT_LIMIT + PERFDATA_LIMIT + 128 * 1024;
/// Characters of what a plugin had printed before its time was over that are shown.
const LAST_WORDS: usize = 1_000;
/// What is said below a text that was too long.
pub const CUT_OFF: &str = "[cut off: the plugin printed more than Perigee keeps]";

/// What a plugin found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// How it ended.
    pub exit: Exit,
    /// Its state.
    pub state: State,
    /// Its text with performance data, or ours.
    pub text: String,
    /// What we have to say about it besides.
    pub remarks: Vec<String>,
}

/// Runs plugins.
#[derive(Debug)]
pub struct Plugins {
    runner: Runner,
    directories: Vec<PathBuf>,
}

impl Plugins {
    /// Plugins that are named without a directory are looked for in these, in their order.
    #[must_use]
    pub fn new(directories: Vec<PathBuf>) -> Self {
        Self { runner: Runner::new(PLUGINS), directories }
    }

    /// Waits for a place to run one in.
    ///
    /// # Errors
    /// None was free in this time.
    pub async fn place(&self, within: Duration) -> Result<Place, Obstacle> {
        self.runner.place(within).await
    }

    /// Runs the plugin within `limit`.
    pub async fn run(&self, place: Place, check: &PluginCheck, limit: Duration) -> Found {
        let mut argv = check.argv.clone();
        if let Some(program) = argv.first_mut()
            && !program.contains('/')
        {
            match self.locate(program).await {
                Some(path) => *program = path,
                None => return self.nowhere(program),
            }
        }
        let mut order = Order::new(argv, limit, OUTPUT_CAP);
        order.environment = check.environment.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let ended = place.run(&order).await;
        read(check, &ended, limit)
    }

    async fn locate(&self, program: &str) -> Option<String> {
        for directory in &self.directories {
            let path = directory.join(program);
            if tokio::fs::try_exists(&path).await.unwrap_or(false) {
                return Some(path.display().to_string());
            }
        }
        None
    }

    fn nowhere(&self, program: &str) -> Found {
        let directories: Vec<String> = self.directories.iter().map(|path| path.display().to_string()).collect();
        let text = format!("PLUGIN UNKNOWN - {program} is in none of this satellite's plugin directories");
        let remark = format!("Looked for in {} (--plugins, PERIGEE_PLUGINS).", directories.join(", "));
        Found { exit: error("not-found"), state: State::Unknown, text, remarks: vec![remark] }
    }
}

fn error(kind: &str) -> Exit {
    Exit::Error(format!("plugin-{kind}"))
}

/// The program as people call it: without its directory.
fn name_of(check: &PluginCheck) -> String {
    let program = check.argv.first().map_or("", String::as_str);
    Path::new(program).file_name().map_or_else(|| program.to_owned(), |name| name.to_string_lossy().into_owned())
}

/// What is said about a plugin that did not begin.
#[must_use]
pub fn not_started(check: &PluginCheck, obstacle: &Obstacle) -> Found {
    let program = check.argv.first().map_or("(no program)", String::as_str);
    let exit = match obstacle {
        Obstacle::NoPlace(_) => Exit::Error("queue-timeout".to_owned()),
        Obstacle::NotFound => error("not-found"),
        Obstacle::NoInterpreter => error("no-interpreter"),
        Obstacle::NotPermitted => error("not-permitted"),
        Obstacle::NotExecutable => error("not-executable"),
        Obstacle::Failed(_) => error("failed"),
    };
    let text = format!("PLUGIN UNKNOWN - {program}: {obstacle}");
    Found { exit, state: State::Unknown, text, remarks: Vec::new() }
}

/// Reads the end of a plugin. Exit 0 to 3 are the states, everything else is UNKNOWN, as in Icinga.
#[must_use]
pub fn read(check: &PluginCheck, ended: &Ended, limit: Duration) -> Found {
    let (stdout, stderr) = (readable(&ended.stdout.bytes), readable(&ended.stderr.bytes));
    let (said, cut) = if stdout.trim().is_empty() {
        (stderr.trim(), ended.stderr.truncated)
    } else {
        (stdout.as_str(), ended.stdout.truncated)
    };
    let mut remarks = Vec::new();
    let (exit, state, text) = match &ended.exit {
        process::Exit::NotStarted(obstacle) => return not_started(check, obstacle),
        process::Exit::Ran(status) => {
            let state = State::of_exit(*status);
            let text = if said.is_empty() { silence(*status) } else { said.to_owned() };
            if !(0..=3).contains(status) && !said.is_empty() {
                remarks.push(format!("[exit status {status} is no state{}]", meaning(*status)));
            }
            if cut {
                remarks.push(CUT_OFF.to_owned());
            }
            (Exit::Ran(*status), state, text)
        }
        process::Exit::Signal(signal) => {
            let text = format!("PLUGIN UNKNOWN - {} was ended by {}", name_of(check), signal_name(*signal));
            last_words(said, &mut remarks);
            (Exit::Signal(*signal), State::Unknown, text)
        }
        process::Exit::TimedOut => {
            let seconds = limit.as_secs_f64();
            let text = format!("PLUGIN UNKNOWN - {} did not end within {seconds:.3} s and was killed", name_of(check));
            last_words(said, &mut remarks);
            (Exit::TimedOut, State::Unknown, text)
        }
    };
    Found { exit, state, text, remarks }
}

/// What stands for the text of a plugin that printed none at all.
fn silence(status: i32) -> String {
    if (0..=3).contains(&status) {
        NO_OUTPUT.to_owned()
    } else {
        format!("{NO_OUTPUT} - exit status {status} is no state{}", meaning(status))
    }
}

/// What a shell, and everything that is written after it, means by a status.
const fn meaning(status: i32) -> &'static str {
    match status {
        126 => ": something in it may not be executed",
        127 => ": something in it was not found",
        _ => "",
    }
}

/// What was printed before the end, as text alone: numbers of a plugin that did not come to its end are no measurement.
fn last_words(said: &str, remarks: &mut Vec<String>) {
    let said = said.trim();
    if !said.is_empty() {
        let shown: String = said.chars().take(LAST_WORDS).collect();
        let more = if shown.len() < said.len() { "…" } else { "" };
        remarks.push(format!("It had printed: {shown}{more}"));
    }
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        4 => "SIGILL: not made for this processor",
        6 => "SIGABRT: it gave up",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL: by somebody else, or the system was out of memory",
        11 => "SIGSEGV: it crashed",
        13 => "SIGPIPE: it printed far too much",
        15 => "SIGTERM: by somebody else",
        24 => "SIGXCPU: it used too much CPU time",
        25 => "SIGXFSZ: it wrote too long a file",
        31 => "SIGSYS",
        _ => return format!("signal {signal}"),
    };
    format!("signal {signal} ({name})")
}

#[cfg(test)]
mod tests {
    use shared::perfdata::split_output;

    use super::*;
    use crate::process::Captured;

    const LIMIT: Duration = Duration::from_secs(10);

    fn check() -> PluginCheck {
        PluginCheck { argv: vec!["/opt/check_it".to_owned(), "-v".to_owned()], environment: Default::default() }
    }

    fn ended(exit: process::Exit, stdout: &[u8], stderr: &[u8]) -> Found {
        let captured = |bytes: &[u8]| Captured { bytes: bytes.to_vec(), truncated: false };
        let ended = Ended { exit, stdout: captured(stdout), stderr: captured(stderr), duration: Duration::ZERO };
        read(&check(), &ended, LIMIT)
    }

    #[test]
    fn exit_statuses_are_icingas_states() {
        let states =
            [(0, State::Ok), (1, State::Warning), (2, State::Critical), (3, State::Unknown), (4, State::Unknown)];
        for (status, state) in states.into_iter().chain([(-1, State::Unknown), (127, State::Unknown)]) {
            let found = ended(process::Exit::Ran(status), b"text|a=1\n", b"");
            assert_eq!((found.state, found.exit), (state, Exit::Ran(status)));
            assert_eq!(found.text, "text|a=1\n");
            assert_eq!(found.remarks.is_empty(), (0..=3).contains(&status), "{status}");
        }
    }

    #[test]
    fn standard_error_speaks_where_standard_output_is_silent() {
        let found = ended(process::Exit::Ran(3), b" \n", b"Can't locate Foo.pm\nat line 3\n");
        assert_eq!(found.text, "Can't locate Foo.pm\nat line 3");
        assert_eq!(ended(process::Exit::Ran(0), b"fine\n", b"warning: old\n").text, "fine\n");
    }

    #[test]
    fn silence_is_told_with_what_it_may_mean() {
        assert_eq!(ended(process::Exit::Ran(0), b"", b"").text, NO_OUTPUT);
        let found = ended(process::Exit::Ran(127), b"", b"");
        assert!(found.text.starts_with(NO_OUTPUT) && found.text.contains("127") && found.text.contains("not found"));
    }

    #[test]
    fn what_terminals_obey_and_what_is_no_text_is_left_out() {
        let found = ended(process::Exit::Ran(0), b"a\x1b[31mb\r\n\xff\xfec\0d\te\n", b"");
        assert_eq!(found.text, "a[31mb\n\u{fffd}\u{fffd}cd\te\n");
    }

    #[test]
    fn a_plugin_that_did_not_come_to_its_end_measured_nothing() {
        for exit in [process::Exit::TimedOut, process::Exit::Signal(11)] {
            let found = ended(exit, b"load 1|load=1\n", b"");
            assert_eq!(found.state, State::Unknown);
            assert!(found.text.starts_with("PLUGIN UNKNOWN - check_it "), "{}", found.text);
            assert_eq!(split_output(&found.text).perfdata, "");
            assert_eq!(found.remarks, ["It had printed: load 1|load=1"]);
        }
        let found = ended(process::Exit::TimedOut, b"", b"");
        assert_eq!(found.text, "PLUGIN UNKNOWN - check_it did not end within 10.000 s and was killed");
        assert_eq!(found.exit, Exit::TimedOut);
    }

    #[test]
    fn obstacles_have_names_and_words() {
        let found = not_started(&check(), &Obstacle::NotPermitted);
        assert_eq!(found.text, "PLUGIN UNKNOWN - /opt/check_it: permission denied");
        assert_eq!(found.exit, Exit::Error("plugin-not-permitted".to_owned()));
        let found = not_started(&check(), &Obstacle::NoPlace(PLUGINS));
        assert_eq!(found.exit, Exit::Error("queue-timeout".to_owned()));
    }

    #[tokio::test]
    async fn a_bare_name_is_looked_for_in_the_plugin_directories_only() {
        let folder = tempfile::tempdir().unwrap();
        let plugins = Plugins::new(vec![folder.path().join("gone"), folder.path().to_owned()]);
        let ask = async |program: &str| {
            let check = PluginCheck { argv: vec![program.to_owned(), "5".to_owned()], environment: Default::default() };
            plugins.run(plugins.place(LIMIT).await.unwrap(), &check, LIMIT).await
        };
        // `sleep` is in PATH, and a plugin it is not.
        let found = ask("sleep").await;
        assert_eq!((found.state, found.exit), (State::Unknown, Exit::Error("plugin-not-found".to_owned())));
        assert!(found.remarks[0].contains(&folder.path().display().to_string()), "{:?}", found.remarks);
        std::os::unix::fs::symlink("/bin/echo", folder.path().join("sleep")).unwrap();
        let found = ask("sleep").await;
        assert_eq!((found.state, found.text.as_str()), (State::Ok, "5\n"));
    }
}
