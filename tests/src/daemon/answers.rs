//! What a daemon answers: a fixed text, texts that take turns (a flapping service), or whatever a file in the control directory
//! says at that moment. Numbers every answer and has the number on disk before it is given.
//!
//! A control file is `DIR/HOST/COMMAND`; `*` stands for all commands of a host. Its first word is a state (0–3 or a word) or one
//! of `eof` (close without an answer) and `hang` (never answer); the rest is the text. A file that cannot be read is not there.
//! Write it beside its place and rename it, else a half-written one may be read.
#![expect(clippy::disallowed_methods, reason = "a shell room: a slow command takes real time")]

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use serde::Deserialize;

use super::ledger::{Entry, Ledger};

/// Arguments that a request may have; nrpe ignores further ones.
const MAX_ARGUMENTS: usize = 16;

/// The answers of one command: they take turns, each for `every` answers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// How many answers in a row are the same.
    #[serde(default = "one")]
    pub every: u64,
    /// The answers, in turn.
    pub of: Vec<Text>,
    /// How long the command takes, in milliseconds.
    #[serde(default)]
    pub takes_ms: u64,
    /// Whether answers are numbered: `serial=N` in the performance data and in the ledger.
    #[serde(default = "yes")]
    pub numbered: bool,
}

/// One answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// Result code.
    pub state: i16,
    /// Plugin output with performance data, as a plugin prints it.
    pub text: String,
}

const fn one() -> u64 {
    1
}

const fn yes() -> bool {
    true
}

impl Command {
    /// A command that always answers so.
    #[must_use]
    pub fn fixed(state: i16, text: &str) -> Self {
        Self { every: 1, of: vec![Text { state, text: text.to_owned() }], takes_ms: 0, numbered: true }
    }

    /// A command that changes between two answers after every `every`.
    #[must_use]
    pub fn flapping(every: u64, one: (i16, &str), other: (i16, &str)) -> Self {
        let text = |(state, text): (i16, &str)| Text { state, text: text.to_owned() };
        Self { every, of: vec![text(one), text(other)], takes_ms: 0, numbered: true }
    }

    /// The same, without numbers: the answer is exactly the text.
    #[must_use]
    pub fn unnumbered(mut self) -> Self {
        self.numbered = false;
        self
    }

    /// The same, but it takes a while.
    #[must_use]
    pub fn taking(mut self, time: Duration) -> Self {
        self.takes_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self
    }
}

/// What a daemon does with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Answers.
    Answer {
        /// Result code.
        state: i16,
        /// Text.
        text: Vec<u8>,
    },
    /// Closes without a word.
    Close,
    /// Never answers.
    Hang,
}

/// What a daemon says of a command that it does not have.
pub type Undefined = fn(&str) -> (i16, String);

/// As nrpe 3.x and 4.x say it.
#[must_use]
pub fn not_defined(command: &str) -> (i16, String) {
    (3, format!("NRPE: Command '{command}' not defined"))
}

/// As nrpe 2.x says it: the same words, and CRITICAL.
#[must_use]
pub fn not_defined_in_2(command: &str) -> (i16, String) {
    (2, not_defined(command).1)
}

/// As NSClient++ says it.
#[must_use]
pub fn not_defined_in_nsclient(command: &str) -> (i16, String) {
    (3, format!("Unknown command(s): {command}"))
}

/// The answers of one daemon.
#[derive(Debug)]
pub struct Answers {
    host: String,
    commands: BTreeMap<String, Command>,
    undefined: Undefined,
    ledger: Option<Ledger>,
    control: Option<PathBuf>,
    /// Last number given, by command. Goes on from the ledger: a restarted daemon repeats none.
    serials: Mutex<HashMap<String, u64>>,
}

impl Answers {
    /// Answers of `host`, numbered on from what the ledger holds.
    #[must_use]
    pub fn new(
        host: &str,
        commands: BTreeMap<String, Command>,
        ledger: Option<Ledger>,
        control: Option<PathBuf>,
    ) -> Self {
        let serials = ledger.as_ref().map(|ledger| ledger.last_serials(host)).unwrap_or_default();
        Self {
            host: host.to_owned(),
            commands,
            undefined: not_defined,
            ledger,
            control: control.map(|directory| directory.join(host)),
            serials: Mutex::new(serials),
        }
    }

    /// The same, with other words for a command that is not there.
    #[must_use]
    pub fn undefined_as(mut self, undefined: Undefined) -> Self {
        self.undefined = undefined;
        self
    }

    /// The answer to a request at this time (milliseconds since 1970), on disk before this returns.
    ///
    /// # Errors
    /// The ledger cannot be written: then no answer may be given.
    pub async fn give(&self, request: &[u8], at: u64) -> Result<Verdict> {
        let request = String::from_utf8_lossy(request);
        let mut parts = request.split('!').filter(|part| !part.is_empty());
        let name = parts.next().unwrap_or_default();
        let arguments: Vec<&str> = parts.take(MAX_ARGUMENTS).collect();
        let Some(command) = self.commands.get(name).or_else(|| self.commands.get("*")) else {
            let (state, text) = (self.undefined)(name);
            return Ok(Verdict::Answer { state, text: text.into_bytes() });
        };
        if command.takes_ms > 0 {
            tokio::time::sleep(Duration::from_millis(command.takes_ms)).await;
        }
        let ordered = self.ordered(name);
        match ordered.as_deref().map(|order| order.split_once(' ').unwrap_or((order, ""))) {
            Some(("eof", _)) => return Ok(Verdict::Close),
            Some(("hang", _)) => return Ok(Verdict::Hang),
            _ => {}
        }
        let serial = self.next(name);
        let turn = usize::try_from((serial - 1) / command.every.max(1)).unwrap_or(0);
        let own = command.of.get(turn % command.of.len().max(1));
        let (state, text) = match (ordered.as_deref().and_then(state_and_text), own) {
            (Some(said), _) => said,
            (None, Some(own)) => (own.state, own.text.clone()),
            (None, None) => (3, "NRPE: Unable to read output".to_owned()),
        };
        let mut text = expand(&text, &arguments);
        if command.numbered {
            text = numbered(&text, serial);
            if let Some(ledger) = &self.ledger {
                let entry = Entry { at, host: self.host.clone(), command: name.to_owned(), serial, state };
                ledger.record(entry).await?;
            }
        }
        Ok(Verdict::Answer { state, text: text.into_bytes() })
    }

    fn next(&self, command: &str) -> u64 {
        let mut serials = self.serials.lock().unwrap_or_else(PoisonError::into_inner);
        let serial = serials.entry(command.to_owned()).or_default();
        *serial += 1;
        *serial
    }

    /// What the control directory says about this command.
    fn ordered(&self, command: &str) -> Option<String> {
        let directory = self.control.as_ref()?;
        // A command is a name, not a way to other files.
        let named = (!command.contains('/') && command != "..").then(|| directory.join(command));
        let files = named.into_iter().chain([directory.join("*")]);
        files.filter_map(|file| std::fs::read_to_string(file).ok()).map(|order| order.trim().to_owned()).next()
    }
}

fn state_and_text(order: &str) -> Option<(i16, String)> {
    let (state, text) = order.split_once(' ').unwrap_or((order, ""));
    let state = match state {
        "0" | "OK" => 0,
        "1" | "WARNING" => 1,
        "2" | "CRITICAL" => 2,
        "3" | "UNKNOWN" => 3,
        _ => return None,
    };
    Some((state, text.to_owned()))
}

fn expand(text: &str, arguments: &[&str]) -> String {
    (1..=MAX_ARGUMENTS).fold(text.to_owned(), |text, number| {
        let argument = arguments.get(number - 1).copied().unwrap_or_default();
        text.replace(&format!("$ARG{number}$"), argument)
    })
}

/// The text with its number in the performance data of its first line.
fn numbered(text: &str, serial: u64) -> String {
    let (first, rest) = text.split_once('\n').map_or((text, None), |(first, rest)| (first, Some(rest)));
    let separator = if first.contains('|') { ' ' } else { '|' };
    let mut text = format!("{first}{separator}serial={serial}");
    if let Some(rest) = rest {
        text.push('\n');
        text.push_str(rest);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn given(answers: &Answers, request: &str) -> (i16, String) {
        match answers.give(request.as_bytes(), 7).await.unwrap() {
            Verdict::Answer { state, text } => (state, String::from_utf8(text).unwrap()),
            other => panic!("{other:?}"),
        }
    }

    fn with(command: Command) -> BTreeMap<String, Command> {
        BTreeMap::from([("load".to_owned(), command)])
    }

    #[tokio::test]
    async fn answers_are_numbered_and_take_turns() {
        let flapping = Command::flapping(2, (0, "OK - $ARG1$|a=1"), (2, "BAD"));
        let answers = Answers::new("h", with(flapping), None, None);
        let mut said = Vec::new();
        for _ in 0..5 {
            said.push(given(&answers, "load!x").await);
        }
        let expected =
            ["OK - x|a=1 serial=1", "OK - x|a=1 serial=2", "BAD|serial=3", "BAD|serial=4", "OK - x|a=1 serial=5"];
        assert_eq!(said.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(), expected);
        assert_eq!(said.iter().map(|(state, _)| *state).collect::<Vec<_>>(), [0, 0, 2, 2, 0]);
        assert_eq!(given(&answers, "no").await, (3, "NRPE: Command 'no' not defined".to_owned()));
    }

    #[tokio::test]
    async fn a_control_file_changes_the_answer_while_the_daemon_runs() {
        let directory = tempfile::tempdir().unwrap();
        let answers = Answers::new("h", with(Command::fixed(0, "fine\nmore")), None, Some(directory.path().to_owned()));
        assert_eq!(given(&answers, "load").await, (0, "fine|serial=1\nmore".to_owned()));
        std::fs::create_dir(directory.path().join("h")).unwrap();
        std::fs::write(directory.path().join("h/load"), "CRITICAL broken|a=2\n").unwrap();
        assert_eq!(given(&answers, "load").await, (2, "broken|a=2 serial=2".to_owned()));
        std::fs::write(directory.path().join("h/load"), "eof").unwrap();
        assert_eq!(answers.give(b"load", 7).await.unwrap(), Verdict::Close);
        std::fs::remove_file(directory.path().join("h/load")).unwrap();
        std::fs::write(directory.path().join("h/*"), "1 all").unwrap();
        assert_eq!(given(&answers, "load").await, (1, "all|serial=3".to_owned()));
    }

    #[tokio::test]
    async fn numbers_go_on_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ledger");
        for expected in ["fine|serial=1", "fine|serial=2", "fine|serial=3"] {
            let ledger = Ledger::open(&file).unwrap();
            let answers = Answers::new("h", with(Command::fixed(0, "fine")), Some(ledger), None);
            assert_eq!(given(&answers, "load").await.1, expected);
        }
        let entries = crate::daemon::ledger::read(&file).unwrap();
        assert_eq!(entries.len(), 3);
        assert_eq!(entries[2], Entry { at: 7, host: "h".to_owned(), command: "load".to_owned(), serial: 3, state: 0 });
    }
}
