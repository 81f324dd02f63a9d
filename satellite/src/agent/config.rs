//! `nrpe.cfg` to settings: every key of nrpe 4.1, every mistake with its file and line. Pure: reads no file; `source` does, and
//! hands over what it read in the order in which nrpe would have seen it.
//!
//! The surprise: a file is served as nrpe serves it, even where it is wrong. What nrpe takes for something else (`command_timeout=60s`)
//! is a warning, what it stops reading an included file at costs the rest of that file, and what it refuses to start with is refused.

pub mod tls;
pub mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use self::tls::TlsSettings;
use self::value::{Read, Wrong, flag, metacharacters, number};
use super::allowed::Allowed;
use super::request::{MAX_LINE, NASTY};

/// NRPE's port.
pub const PORT: u16 = 5666;
/// Connections that wait to be accepted when `listen_queue_size` is not given. nrpe has 5, and loses checks by it.
pub const BACKLOG: u32 = 128;
/// How long a command may run when `command_timeout` is not given.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a client may take to ask when `connection_timeout` is not given.
pub const CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);
/// The longest time that can be set, a day: what is longer counts as a day.
const MAX_SECONDS: i64 = 86_400;
/// Most commands at once that can be asked for; what is more counts as this.
const MAX_AT_ONCE: i64 = 1_000_000;
/// Commands that can be defined; more is a mistake.
const MAX_COMMANDS: usize = 10_000;

/// The commands that are served when there is no configuration: the agent's own, of this machine.
const DEFAULTS: &[(&str, &str)] = &[
    ("check_load", "@load"),
    ("check_memory", "@memory"),
    ("check_swap", "@swap"),
    ("check_disk", "@disk"),
    ("check_inodes", "@inodes"),
    ("check_procs", "@procs"),
    ("check_uptime", "@uptime"),
    ("check_systemd", "@systemd"),
];

/// Where something stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: Arc<str>,
    /// The line, from 1; 0 for the file as a whole.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

/// Something to be said about the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// Where.
    pub place: Place,
    /// What.
    pub text: String,
    /// How bad it is.
    pub weight: Weight,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// It counts as something else, or not at all.
    Warning,
    /// A mistake in an included file: the rest of that file is left out, as with nrpe.
    Lost,
    /// nrpe stops reading here. In the first file that keeps the agent from starting.
    Mistake,
    /// The agent does not do it, wherever it stands.
    Refused,
}

impl Remark {
    /// Whether the agent can start all the same.
    #[must_use]
    pub fn is_bearable(&self) -> bool {
        self.weight <= Weight::Lost
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, end) = match self.weight {
            Weight::Warning => ("warning: ", ""),
            Weight::Lost => ("", "; the rest of this file is left out, as with nrpe"),
            Weight::Mistake | Weight::Refused => ("", ""),
        };
        write!(f, "{}: {kind}{}{end}", self.place, self.text)
    }
}

/// A line `key=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Where it stands.
    pub place: Place,
    /// Left of the first `=`.
    pub key: String,
    /// Right of it; bytes, because command lines are.
    pub value: Vec<u8>,
}

/// A statement that brings in other files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Include {
    /// One file.
    File(PathBuf),
    /// All `*.cfg` of a directory and of those in it.
    Directory(PathBuf),
}

impl Statement {
    /// What it brings in, if it does.
    #[must_use]
    pub fn include(&self) -> Option<Include> {
        let path = || PathBuf::from(self.text());
        match self.key.as_str() {
            "include" | "include_file" => Some(Include::File(path())),
            "include_dir" => Some(Include::Directory(path())),
            _ => None,
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.value).into_owned()
    }
}

/// What the agent is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where it listens: a name or address; all addresses if none.
    pub address: Option<String>,
    /// On which port.
    pub port: u16,
    /// How many connections may wait to be accepted.
    pub backlog: u32,
    /// Who may ask; everybody if none.
    pub allowed: Option<Allowed>,
    /// Whether requests may carry arguments.
    pub arguments: bool,
    /// Characters that a request may not contain.
    pub nasty: Vec<u8>,
    /// Put before every command line, with a blank between.
    pub prefix: Option<Vec<u8>>,
    /// Command lines by name.
    pub commands: BTreeMap<Vec<u8>, Vec<u8>>,
    /// How long a command may run.
    pub command_timeout: Duration,
    /// How long a client may take until its request is there.
    pub connection_timeout: Duration,
    /// Commands that may run at once; 0 for as many as the runner allows.
    pub max_commands: usize,
    /// Variables of the agent's environment that commands see.
    pub keep_environment: Vec<String>,
    /// The user to become when started as root.
    pub user: Option<String>,
    /// The group to become.
    pub group: Option<String>,
    /// Where the process writes its number.
    pub pid_file: Option<PathBuf>,
    /// Where it logs; standard error if nowhere.
    pub log_file: Option<PathBuf>,
    /// Whether it logs every step.
    pub debug: bool,
    /// TLS.
    pub tls: TlsSettings,
}

impl Default for Settings {
    /// nrpe's own, before any line is read.
    fn default() -> Self {
        Self {
            address: None,
            port: PORT,
            backlog: BACKLOG,
            allowed: None,
            arguments: false,
            nasty: NASTY.to_vec(),
            prefix: None,
            commands: BTreeMap::new(),
            command_timeout: COMMAND_TIMEOUT,
            connection_timeout: CONNECTION_TIMEOUT,
            max_commands: 0,
            keep_environment: Vec::new(),
            user: None,
            group: None,
            pid_file: None,
            log_file: None,
            debug: false,
            tls: TlsSettings::default(),
        }
    }
}

impl Settings {
    /// Without a configuration: the built-in checks, for this machine only.
    #[must_use]
    pub fn built_in() -> Self {
        let commands = DEFAULTS.iter().map(|(name, line)| (name.as_bytes().to_vec(), line.as_bytes().to_vec()));
        Self {
            address: Some("127.0.0.1".to_owned()),
            allowed: Some(Allowed::this_machine()),
            commands: commands.collect(),
            ..Self::default()
        }
    }
}

/// Splits a file into statements: comments and empty lines go, blanks around a line too.
#[must_use]
pub fn statements(file: &str, text: &[u8]) -> (Vec<Statement>, Vec<Remark>) {
    let file: Arc<str> = Arc::from(file);
    let (mut found, mut remarks) = (Vec::new(), Vec::new());
    for (number, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let place = Place { file: Arc::clone(&file), line: number + 1 };
        let mut mistake = |text: &str| {
            remarks.push(Remark { place: place.clone(), text: text.to_owned(), weight: Weight::Mistake });
        };
        if line.len() >= MAX_LINE {
            mistake("the line is longer than 2046 bytes; nrpe would read its end as a line of its own");
            continue;
        }
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        if line.contains(&0) {
            mistake("a NUL byte; this is no text");
            continue;
        }
        // nrpe's way to find the name (strtok) does not see what stands before it.
        let line = &line[line.iter().take_while(|&&byte| byte == b'=').count()..];
        if line.is_empty() {
            mistake("there is no name before the =");
            continue;
        }
        let Some(at) = line.iter().position(|&byte| byte == b'=') else {
            mistake("a line is key=value, and there is no =");
            continue;
        };
        let (key, value) = (&line[..at], &line[at + 1..]);
        match (key, value) {
            (_, []) => mistake("there is no value after the ="),
            _ => {
                let key = String::from_utf8_lossy(key).into_owned();
                found.push(Statement { place, key, value: value.to_vec() });
            }
        }
    }
    (found, remarks)
}

/// Settings in the making.
#[derive(Debug, Default)]
pub struct Draft {
    settings: Settings,
    remarks: Vec<Remark>,
    places: BTreeMap<&'static str, Place>,
    plain: bool,
}

impl Draft {
    /// A draft for an agent that speaks no TLS: it does not matter whether the keys of TLS go together.
    #[must_use]
    pub fn plain() -> Self {
        Self { plain: true, ..Self::default() }
    }

    /// Adds remarks that were made elsewhere.
    pub fn remark(&mut self, remarks: impl IntoIterator<Item = Remark>) {
        self.remarks.extend(remarks);
    }

    /// Takes a statement of an included file. False if nrpe stops reading that file here.
    pub fn take_included(&mut self, statement: &Statement) -> bool {
        self.take(statement);
        match self.remarks.last_mut() {
            Some(last) if last.weight == Weight::Mistake && last.place == statement.place => {
                last.weight = Weight::Lost;
                false
            }
            _ => true,
        }
    }

    /// Takes a statement; a later one of the same key goes over an earlier one, commands and `allowed_hosts` add up.
    pub fn take(&mut self, statement: &Statement) {
        let mut warnings = Vec::new();
        let outcome = self.set(statement, &mut warnings);
        let remark = |(weight, text)| Remark { place: statement.place.clone(), text, weight };
        self.remarks.extend(warnings.into_iter().map(|text| remark((Weight::Warning, text))));
        self.remarks.extend(outcome.err().map(remark));
    }

    fn set(&mut self, statement: &Statement, warnings: &mut Vec<String>) -> Result<(), Wrong> {
        let (key, value) = (statement.key.as_str(), statement.text());
        let value = value.as_str();
        if let Some(done) = self.settings.tls.set(key, value) {
            if let Some(name) = tls::NAMES.iter().find(|name| **name == key) {
                self.places.insert(name, statement.place.clone());
            }
            warnings.extend(done?);
            return Ok(());
        }
        let mut told = |(value, remark): Read<i64>| {
            warnings.extend(remark);
            value
        };
        let settings = &mut self.settings;
        match key {
            "server_address" => settings.address = Some(value.to_owned()),
            "server_port" => {
                let port = told(number(key, value, 1024..=i64::MAX)?);
                settings.port = port
                    .try_into()
                    .map_err(|_| (Weight::Mistake, format!("server_port: {port} is more than 65535")))?;
            }
            "listen_queue_size" => {
                let size = told(number(key, value, i64::MIN..=65_535)?);
                // To the kernel a negative one is the most there is.
                settings.backlog = match size {
                    0 => return Err((Weight::Mistake, "listen_queue_size: 0 leaves no room for anybody".to_owned())),
                    size => u32::try_from(size).unwrap_or(65_535),
                };
            }
            "allowed_hosts" => warnings.extend(settings.allowed.get_or_insert_default().add(value)),
            "dont_blame_nrpe" => {
                let (on, remark) = flag(key, value);
                warnings.extend(remark);
                settings.arguments = on;
            }
            "allow_bash_command_substitution" => {
                let (on, remark) = flag(key, value);
                warnings.extend(remark);
                if on {
                    return Err((
                        Weight::Refused,
                        "allow_bash_command_substitution=1 is refused: whoever may send arguments could run any command \
                         with $(…). Write the command into a script and name that in a command[] line"
                            .to_owned(),
                    ));
                }
            }
            "nasty_metachars" => {
                let (characters, remark) = metacharacters(&statement.value);
                warnings.extend(remark);
                settings.nasty = characters;
            }
            "command_prefix" => settings.prefix = Some(statement.value.clone()),
            "command_timeout" => {
                let (bare, state) = value.split_once(':').map_or((value, None), |(bare, state)| (bare, Some(state)));
                let seconds = told(number(key, bare, 1..=MAX_SECONDS)?);
                settings.command_timeout = Duration::from_secs(seconds.unsigned_abs());
                warnings.extend(state.map(|state| {
                    format!(
                        "command_timeout: the state {state:?} has no effect, as in nrpe; a command that takes too long is UNKNOWN"
                    )
                }));
            }
            "connection_timeout" => {
                let seconds = told(number(key, value, 1..=MAX_SECONDS)?);
                settings.connection_timeout = Duration::from_secs(seconds.unsigned_abs());
            }
            "max_commands" => {
                let most = told(number(key, value, i64::MIN..=MAX_AT_ONCE)?);
                if most < 0 {
                    warnings.push(format!("max_commands: {most} counts as 0, as with nrpe"));
                }
                settings.max_commands = most.try_into().unwrap_or(0);
            }
            "keep_env_vars" => {
                let names = value.split(',').map(str::trim).filter(|name| !name.is_empty());
                settings.keep_environment = names.map(str::to_owned).collect();
            }
            "nrpe_user" => settings.user = Some(value.to_owned()),
            "nrpe_group" => settings.group = Some(value.to_owned()),
            "pid_file" => settings.pid_file = Some(PathBuf::from(value)),
            "log_file" => settings.log_file = Some(PathBuf::from(value)),
            "debug" => settings.debug = told(number(key, value, i64::MIN..=i64::MAX)?) > 0,
            "allow_weak_random_seed" => {
                warnings.push("allow_weak_random_seed has no effect: the system's random numbers are used".to_owned())
            }
            "disable_syslog" | "log_facility" => warnings.push(format!(
                "{key} has no effect: the agent logs to standard error, or to log_file; it does not speak syslog"
            )),
            key if key.contains("command[") => return self.command(key, &statement.value),
            key => warnings.push(unknown(key)),
        }
        Ok(())
    }

    fn command(&mut self, key: &str, line: &[u8]) -> Result<(), Wrong> {
        let name = key.split_once('[').map_or("", |(_, name)| name);
        let name = name.split(']').next().unwrap_or_default();
        if name.is_empty() {
            return Err((Weight::Mistake, "command[] without a name".to_owned()));
        }
        if let Some(built_in) = line.strip_prefix(b"@")
            && let Err(why) = super::request::words(&String::from_utf8_lossy(built_in), &[])
        {
            return Err((Weight::Refused, format!("command[{name}]: {why}")));
        }
        let commands = &mut self.settings.commands;
        if commands.len() >= MAX_COMMANDS {
            return Err((Weight::Refused, format!("more than {MAX_COMMANDS} commands")));
        }
        if commands.insert(name.as_bytes().to_vec(), line.to_vec()).is_some() {
            return Err((Weight::Warning, format!("command[{name}] is defined twice; the later line counts")));
        }
        Ok(())
    }

    /// The settings, and warnings about them.
    ///
    /// # Errors
    /// There are mistakes; warnings are among them, in the order of the files.
    pub fn finish(mut self) -> Result<(Settings, Vec<Remark>), Vec<Remark>> {
        let contradictions = if self.plain { Vec::new() } else { self.settings.tls.contradictions() };
        for (key, weight, text) in contradictions {
            if let Some(place) = self.places.get(key) {
                self.remarks.push(Remark { place: place.clone(), text, weight });
            }
        }
        if self.remarks.iter().all(Remark::is_bearable) { Ok((self.settings, self.remarks)) } else { Err(self.remarks) }
    }
}

fn unknown(key: &str) -> String {
    let blank = if key.contains(char::is_whitespace) { "; nothing may stand between the name and the =" } else { "" };
    format!("unknown option {key:?} is left out{blank}")
}

#[cfg(test)]
mod tests;
