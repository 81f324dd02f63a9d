//! From a request to what is answered: looks the command up, runs it as nrpe would by a shell, or a built-in without one, and turns
//! its end into nrpe's codes and words. Knows no connection.
//!
//! The surprise: a command that leaves something running in the background is answered when it ends itself. nrpe waits for
//! everybody who holds its output, and calls that a timeout.

use std::time::Duration;

use tokio::time::timeout;

use super::builtin;
use super::config::Settings;
use super::packet::{MAX_OUTPUT, as_passed_on};
use super::request::{Request, command_line, words};
use crate::nrpe::Version;
use crate::process::{Exit, Leftovers, Limits, Order, Runner};

/// Commands that run at once when `max_commands` does not say; further ones wait, not longer than they may run.
pub const COMMANDS: usize = 256;
/// The command that a daemon answers by itself.
const VERSION_COMMAND: &[u8] = b"_NRPE_CHECK";
/// The longest text of our own, as nrpe has it.
const MAX_TEXT: usize = 2047;
const UNKNOWN: u16 = 3;

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// 0 to 3.
    pub code: u16,
    /// The text, without the line feed at its end.
    pub text: Vec<u8>,
    /// Whether the command's time ran out.
    pub timed_out: bool,
}

impl Reply {
    fn told(code: u16, text: impl Into<Vec<u8>>) -> Self {
        let mut text = text.into();
        text.truncate(MAX_TEXT);
        Self { code, text, timed_out: false }
    }

    fn late(limit: Duration) -> Self {
        let text = format!("NRPE: Command timed out after {} seconds", limit.as_secs());
        Self { timed_out: true, ..Self::told(UNKNOWN, text) }
    }
}

/// Runs what is asked for, for an answer in this version.
pub async fn reply(
    request: &Request,
    version: Version,
    settings: &Settings,
    environment: &[(String, String)],
    runner: &Runner,
) -> Reply {
    if request.name == VERSION_COMMAND {
        return Reply::told(0, format!("NRPE v{}", super::VERSION));
    }
    let name = String::from_utf8_lossy(&request.name);
    let Some(line) = settings.commands.get(&request.name) else {
        let text = [b"NRPE: Command '", request.name.as_slice(), b"' not defined"].concat();
        return Reply::told(UNKNOWN, text);
    };
    if let Some(built_in) = line.strip_prefix(b"@") {
        return match words(&String::from_utf8_lossy(built_in), &request.arguments) {
            Ok(words) => run_built_in(&words, version, settings.command_timeout).await,
            Err(why) => Reply::told(UNKNOWN, format!("NRPE: Command '{name}': {why}")),
        };
    }
    let line = match command_line(settings.prefix.as_deref(), line, &request.arguments) {
        Ok(line) => line,
        Err(why) => return Reply::told(UNKNOWN, format!("NRPE: Command '{name}': {why}")),
    };
    let Ok(line) = String::from_utf8(line) else {
        return Reply::told(UNKNOWN, format!("NRPE: Command '{name}': its line is not UTF-8 with these arguments"));
    };
    tracing::debug!(command = %name, line, "running");
    run_shell(line, version, settings.command_timeout, environment, runner).await
}

async fn run_built_in(words: &[String], version: Version, limit: Duration) -> Reply {
    match timeout(limit, builtin::run(words)).await {
        // A built-in's text is ours and ends without a line feed; what it names may be anybody's.
        Ok(answer) => {
            let text = as_passed_on(answer.text.as_bytes(), version)
                .unwrap_or_else(|| b"NRPE: Unable to read output".to_vec());
            Reply { code: u16::from(answer.state.number()), text, timed_out: false }
        }
        Err(_) => Reply::late(limit),
    }
}

async fn run_shell(
    line: String,
    version: Version,
    limit: Duration,
    environment: &[(String, String)],
    runner: &Runner,
) -> Reply {
    let mut order = Order::new(vec!["/bin/sh".to_owned(), "-c".to_owned(), line], limit, MAX_OUTPUT);
    order.environment = environment.to_vec();
    order.locale = false;
    // What a command starts on purpose, a service it restarts, must not live within a check's bounds, nor end with it.
    order.leftovers = Leftovers::Spare;
    order.limits = Limits::none();
    let ended = runner.run(&order).await;
    let code = match ended.exit {
        Exit::Ran(code) => code_of(code),
        // Of the shell itself; a plugin that is killed makes it exit with 128 and more.
        Exit::Signal(_) => 2,
        Exit::TimedOut => return Reply::late(limit),
        Exit::NotStarted(why) => return Reply::told(UNKNOWN, format!("NRPE: the command cannot be run: {why}")),
    };
    match as_passed_on(&ended.stdout.bytes, version) {
        Some(text) => Reply { code, text, timed_out: false },
        None => Reply::told(UNKNOWN, "NRPE: Unable to read output"),
    }
}

/// What nrpe makes of an exit status: anything but a state is UNKNOWN.
fn code_of(status: i32) -> u16 {
    u16::try_from(status).ok().filter(|code| *code <= UNKNOWN).unwrap_or(UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn said(line: &str, arguments: &[&str]) -> (u16, String) {
        let mut settings = Settings { command_timeout: Duration::from_secs(20), ..Settings::default() };
        settings.commands.insert(b"c".to_vec(), line.as_bytes().to_vec());
        let arguments = arguments.iter().map(|argument| argument.as_bytes().to_vec()).collect();
        let request = Request { name: b"c".to_vec(), arguments };
        let path = [("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
        let reply = reply(&request, Version::V4, &settings, &path, &Runner::new(2)).await;
        (reply.code, String::from_utf8_lossy(&reply.text).into_owned())
    }

    #[tokio::test]
    async fn states_and_texts_are_those_of_nrpe() {
        let both = |code, text: &str| (code, text.to_owned());
        assert_eq!(said("echo OK; exit 1", &[]).await, both(1, "OK"));
        assert_eq!(said("echo odd; exit 77", &[]).await, both(3, "odd"));
        assert_eq!(said("exit 2", &[]).await, both(3, "NRPE: Unable to read output"));
        assert_eq!(said("echo", &[]).await, both(0, ""));
        assert_eq!(said("echo x; kill -9 $$$$", &[]).await, both(2, "x"));
        assert_eq!(said("echo $ARG1$-$ARG2$", &["a b"]).await, both(0, "a b-"));
        assert_eq!(said("echo ${LANG-unset} ${LC_ALL-unset}", &[]).await.1, "unset unset");
    }

    #[tokio::test]
    async fn what_is_not_defined_is_said_and_the_version_is_told() {
        let ask = async |name: &[u8]| {
            let request = Request { name: name.to_vec(), arguments: Vec::new() };
            let reply = reply(&request, Version::V4, &Settings::default(), &[], &Runner::new(1)).await;
            (reply.code, String::from_utf8_lossy(&reply.text).into_owned())
        };
        assert_eq!(ask(b"nothing").await, (3, "NRPE: Command 'nothing' not defined".to_owned()));
        assert_eq!(ask(b"_NRPE_CHECK").await, (0, format!("NRPE v{}", crate::agent::VERSION)));
        assert_eq!(ask(&[b'x'; 5000]).await.1.len(), MAX_TEXT);
    }

    #[tokio::test]
    async fn a_command_that_takes_too_long_is_ended_with_all_it_started() {
        let mut settings = Settings { command_timeout: Duration::from_secs(1), ..Settings::default() };
        settings.commands.insert(b"c".to_vec(), b"echo begun; sleep 600; echo done".to_vec());
        let request = Request { name: b"c".to_vec(), arguments: Vec::new() };
        let reply = reply(&request, Version::V4, &settings, &[], &Runner::new(1)).await;
        assert_eq!((reply.code, reply.timed_out), (3, true));
        assert_eq!(reply.text, b"NRPE: Command timed out after 1 seconds");
    }

    #[tokio::test]
    async fn a_built_in_needs_no_shell_and_an_argument_stays_one_word() {
        let (code, text) = said("@version", &[]).await;
        assert_eq!(code, 0, "{text}");
        let (code, text) = said("@load -w $ARG1$", &["1 -c 2; echo pwned"]).await;
        assert_eq!(code, 3, "{text}");
    }
}
