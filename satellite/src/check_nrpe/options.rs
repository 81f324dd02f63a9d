//! What a command line of check_nrpe asks for: the words of its `getopt_long`, one by one, and the file of further options (`-f`).
//! Decides what is wrong use, and turns the rest into a query of the NRPE client. No I/O: the file's text is given to it.
//!
//! The surprise: `-a` ends the options. Its value and every word behind it are arguments of the remote command, also those that
//! look like options; and words that belong to no option are skipped without a sound, as check_nrpe does.

pub mod misuse;
pub mod query;
pub mod table;

use std::path::PathBuf;

use shared::check::State;

use self::misuse::Misuse;
use self::table::Key;
use crate::probe::nrpe::packet::Version;
use crate::probe::nrpe::policy::{Adh, Protocol};

/// Words that a file of options may hold; check_nrpe takes one fewer than fifty, its own name among them.
pub const MAX_FILE_WORDS: usize = 48;
/// Bytes of a file of options that are read; a longer one is wrong use. Forty-eight words of the longest path there is fit.
pub const MAX_FILE: u64 = 256 * 1024;

/// An address family that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// `-4`
    V4,
    /// `-6`
    V6,
}

/// What is shown instead of asking anybody. The later ones win, as in check_nrpe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Teach {
    /// `-V`
    Version,
    /// `-l`
    License,
    /// `-h`
    Help,
}

/// Everything that options can say. `None` and empty: not said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// `-H`
    pub host: Option<String>,
    /// `-p`
    pub port: Option<u16>,
    /// `-c`, as bytes: a daemon gets what the shell gave us.
    pub command: Option<Vec<u8>>,
    /// `-a` and everything behind it.
    pub arguments: Vec<Vec<u8>>,
    /// Seconds of `-t`.
    pub seconds: Option<u32>,
    /// State of `-t N:STATE` and `-u`: for a host that cannot be asked.
    pub on_failure: Option<State>,
    /// `-n`
    pub plain: bool,
    /// `-2` or `-3`.
    pub version: Option<Version>,
    /// `-P`
    pub payload: Option<usize>,
    /// `-4` or `-6`.
    pub family: Option<Family>,
    /// `-b`
    pub bind: Option<String>,
    /// `-d`
    pub adh: Option<Adh>,
    /// `-S`: the protocol, and whether newer ones are good too.
    pub protocol: Option<(Protocol, bool)>,
    /// `-L`
    pub ciphers: Option<String>,
    /// `-C`
    pub certificate: Option<PathBuf>,
    /// `-K`
    pub key: Option<PathBuf>,
    /// `-A`
    pub ca: Option<PathBuf>,
    /// `--verify-name`: the name that the daemon's certificate must bear. Ours.
    pub name: Option<String>,
    /// `--pin`: SHA-256 of a public key that the daemon may have; several are alternatives. Ours.
    pub pins: Vec<[u8; 32]>,
    /// `-s`: what is logged of TLS, in check_nrpe's bits.
    pub logging: Option<u32>,
    /// `-g`
    pub log: Option<PathBuf>,
    /// `-f`
    pub file: Option<PathBuf>,
    /// `-E`
    pub errors_to_stdout: bool,
    /// `--explain`: what to do about a failure is said behind it. Ours.
    pub explain: bool,
    /// `-h`, `-l`, `-V`.
    pub teach: Option<Teach>,
    /// What check_nrpe would have printed in front of the answer.
    pub remarks: Vec<String>,
}

/// Where words come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    CommandLine,
    File,
}

/// Reads a command line, without the program's name. `program` is what complaints begin with.
///
/// # Errors
/// What is wrong with it.
pub fn parse(program: &str, words: &[Vec<u8>]) -> Result<Options, Misuse> {
    if words.is_empty() {
        return Err(Misuse::new("nothing was asked: at least -H HOST is needed"));
    }
    read(program, words, Source::CommandLine)
}

impl Options {
    /// Adds what the file of `-f` says; what the command line says wins.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn with_file(self, text: &[u8]) -> Result<Self, Misuse> {
        let name = self.file.clone().unwrap_or_default();
        let wrong = |what: String| Misuse::new(&format!("{}: {what}", name.display()));
        let words: Vec<Vec<u8>> =
            text.split(|byte| b" \t\r\n".contains(byte)).filter(|word| !word.is_empty()).map(<[u8]>::to_vec).collect();
        if words.is_empty() {
            return Err(wrong("the file of options is empty".to_owned()));
        }
        if words.len() > MAX_FILE_WORDS {
            return Err(wrong(format!("{} words; at most {MAX_FILE_WORDS} are read", words.len())));
        }
        // check_nrpe's complaints about a file's words begin so, under whatever name it runs.
        let file = read("check_nrpe", &words, Source::File)?;
        Ok(self.over(file))
    }

    fn over(self, file: Self) -> Self {
        let mut remarks = self.remarks;
        remarks.extend(file.remarks);
        Self {
            host: self.host.or(file.host),
            port: self.port.or(file.port),
            command: self.command,
            arguments: self.arguments,
            seconds: self.seconds.or(file.seconds),
            on_failure: self.on_failure.or(file.on_failure),
            plain: self.plain || file.plain,
            version: self.version.or(file.version),
            payload: self.payload.or(file.payload),
            family: self.family.or(file.family),
            bind: self.bind.or(file.bind),
            adh: self.adh.or(file.adh),
            protocol: self.protocol.or(file.protocol),
            ciphers: self.ciphers.or(file.ciphers),
            certificate: self.certificate.or(file.certificate),
            key: self.key.or(file.key),
            ca: self.ca.or(file.ca),
            name: self.name.or(file.name),
            pins: if self.pins.is_empty() { file.pins } else { self.pins },
            logging: self.logging.or(file.logging),
            log: self.log.or(file.log),
            file: self.file,
            errors_to_stdout: self.errors_to_stdout || file.errors_to_stdout,
            explain: self.explain || file.explain,
            teach: self.teach.max(file.teach),
            remarks,
        }
    }

    /// Checks what only all options together can show.
    ///
    /// # Errors
    /// What is missing, or contradicts itself.
    pub fn checked(self) -> Result<Self, Misuse> {
        if self.certificate.is_some() != self.key.is_some() {
            return Err(Misuse::new("the client certificate and the private key must both be given or neither"));
        }
        if self.payload.is_some() && self.version != Some(Version::V2) {
            return Err(Misuse::new("if a fixed payload size is specified, '-2' must also be specified"));
        }
        if self.teach.is_none() {
            // An empty one is a host that has no address, as to check_nrpe: `-t` and `-u` say what it is.
            if self.host.is_none() {
                return Err(Misuse::new("no host was given: -H HOST"));
            }
            if self.command.as_ref().is_some_and(Vec::is_empty) {
                return Err(Misuse::new("the command (-c) is empty; without -c the daemon's version is asked for"));
            }
        }
        Ok(self)
    }
}

fn read(program: &str, words: &[Vec<u8>], source: Source) -> Result<Options, Misuse> {
    let mut options = Options::default();
    let mut complaints = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == b"--" {
            break;
        }
        // A word of no option is skipped.
        let Some(rest) = word.strip_prefix(b"-").filter(|rest| !rest.is_empty()) else { continue };
        let mut found = Vec::new();
        if let Some(long) = rest.strip_prefix(b"-") {
            match table::long(long) {
                Ok((key, value)) => found.push((key, value, table::name_of(key))),
                Err(complaint) => complaints.push(format!("{program}: {complaint}")),
            }
        } else {
            let (keys, unknown) = table::cluster(rest);
            found.extend(keys.into_iter().map(|(key, value)| (key, value, table::letter_of(key))));
            complaints.extend(unknown.into_iter().map(|complaint| format!("{program}: {complaint}")));
        }
        for (key, value, called) in found {
            let value = match value {
                None if key.takes_value() => match words.next() {
                    Some(next) => Some(next.as_slice()),
                    None => {
                        complaints.push(format!("{program}: {}", table::lacks_value(&called)));
                        continue;
                    }
                },
                given => given,
            };
            let value = value.unwrap_or_default();
            if key == Key::Args {
                if source == Source::File {
                    return Err(Misuse::new("The config file should not have args (-a) arguments."));
                }
                options.arguments.push(value.to_vec());
                options.arguments.extend(words.by_ref().cloned());
            } else {
                options.take(key, value, source).map_err(|misuse| misuse.after(&complaints))?;
            }
        }
    }
    match complaints.first() {
        None => Ok(options),
        Some(first) => {
            Err(Misuse::new(first.split_once(": ").map_or(first.as_str(), |(_, what)| what)).after(&complaints))
        }
    }
}

impl Options {
    fn take(&mut self, key: Key, value: &[u8], source: Source) -> Result<(), Misuse> {
        let text = || String::from_utf8_lossy(value).into_owned();
        let path = || PathBuf::from(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(value));
        match key {
            Key::Host => self.host = Some(text()),
            Key::Port => {
                let port = u16::try_from(number(value)).ok().filter(|&port| port > 0);
                let port =
                    port.ok_or_else(|| Misuse::new(&format!("-p {}: a port is a number from 1 to 65535", text())))?;
                self.port = Some(port);
            }
            Key::Command if source == Source::File => {
                return Err(Misuse::new("The config file should not have a command (-c) option."));
            }
            Key::Command => self.command = Some(value.to_vec()),
            Key::Args => {}
            Key::Timeout => self.take_timeout(&text())?,
            Key::UnknownTimeout => self.on_failure = Some(State::Unknown),
            Key::NoSsl => self.plain = true,
            Key::V2Only | Key::V3Only => {
                let version = if key == Key::V2Only { Version::V2 } else { Version::V3 };
                if self.version.is_some_and(|other| other != version) {
                    let what = "Only one of force_v2_packet (-2) and force_v3_packet (-3) can be specified.";
                    return Err(Misuse::new(what));
                }
                self.version = Some(version);
            }
            Key::Payload => {
                let size = usize::try_from(number(value))
                    .map_err(|_| Misuse::new(&format!("-P {}: a size in bytes is not negative", text())))?;
                self.payload = (size > 0).then_some(size);
            }
            Key::Ipv4 => self.family = Some(Family::V4),
            Key::Ipv6 => self.family = Some(Family::V6),
            Key::Bind => self.bind = Some(text()),
            Key::Adh => {
                if !matches!(value.first(), Some(b'0'..=b'2')) {
                    return Err(Misuse::new(&format!("-d {}: 0, 1 or 2", text())));
                }
                self.adh = Some(match number(value) {
                    0 => Adh::Never,
                    2 => Adh::Only,
                    _ => Adh::Allowed,
                });
            }
            Key::Protocol => {
                let word = text();
                let (name, newer) = word.strip_suffix('+').map_or((word.as_str(), false), |name| (name, true));
                let protocol = name.parse().map_err(|unknown| Misuse::new(&format!("-S {word}: {unknown}")))?;
                self.protocol = Some((protocol, newer));
            }
            // An empty list is check_nrpe's default list.
            Key::Ciphers => self.ciphers = Some(text()).filter(|list| !list.is_empty()),
            Key::Certificate => self.certificate = Some(path()),
            Key::KeyFile => self.key = Some(path()),
            Key::Ca => self.ca = Some(path()),
            Key::Name => self.name = Some(text()),
            Key::Pin => {
                let what = || Misuse::new(&format!("--pin {}: a SHA-256 is 64 hexadecimal digits", text()));
                self.pins.push(sha256(value).ok_or_else(what)?);
            }
            Key::Logging => self.logging = Some(bits(value)),
            Key::LogFile => self.log = Some(path()),
            Key::File if source == Source::File => {
                self.remarks.push("Error: The config file should not have a config-file (-f) option.".to_owned());
            }
            Key::File => self.file = Some(path()),
            Key::ErrorsToStdout => self.errors_to_stdout = true,
            // There is no syslog of ours to keep quiet.
            Key::NoSyslog => {}
            Key::Explain => self.explain = true,
            Key::Help => self.teach = self.teach.max(Some(Teach::Help)),
            Key::License => self.teach = self.teach.max(Some(Teach::License)),
            Key::Version => self.teach = self.teach.max(Some(Teach::Version)),
        }
        Ok(())
    }

    /// `N`, `N:STATE` or `:STATE`; colons may come in rows, and a third part is not looked at (strtok).
    fn take_timeout(&mut self, text: &str) -> Result<(), Misuse> {
        let mut parts = text.split(':').filter(|part| !part.is_empty());
        let seconds = if text.starts_with(':') { None } else { parts.next() };
        if let Some(state) = parts.next().filter(|_| text.contains(':')) {
            self.on_failure = state_of(state);
            if self.on_failure.is_none() {
                self.remarks.push(
                    "Timeout state must be a valid state name (OK, WARNING, CRITICAL, UNKNOWN) or integer (0-3)."
                        .to_owned(),
                );
            }
        }
        if let Some(seconds) = seconds {
            let seconds = u32::try_from(number(seconds.as_bytes())).ok().filter(|&seconds| seconds > 0);
            self.seconds = Some(seconds.ok_or_else(|| Misuse::bare("Timeout value must be a positive integer"))?);
        }
        Ok(())
    }
}

fn state_of(word: &str) -> Option<State> {
    let states = [("0", State::Ok), ("1", State::Warning), ("2", State::Critical), ("3", State::Unknown)];
    states
        .into_iter()
        .find(|(digit, state)| *digit == word || state.as_str().eq_ignore_ascii_case(word))
        .map(|(_, state)| state)
}

/// The number that a text begins with, as C's `atoi` reads it: blanks, a sign, digits; 0 where there is none. Held to an `int`.
fn number(text: &[u8]) -> i32 {
    let text = text.trim_ascii_start();
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let digits = digits.iter().take_while(|byte| byte.is_ascii_digit());
    let value = digits.fold(0_i32, |value, digit| value.saturating_mul(10).saturating_add(i32::from(digit - b'0')));
    if negative { -value } else { value }
}

/// A number of `-s`: decimal, `0x` or octal behind a `0`, as C's `strtoul` reads it; 0 where there is none.
fn bits(text: &[u8]) -> u32 {
    let text = text.trim_ascii_start();
    let (base, digits) = match text {
        [b'0', b'x' | b'X', rest @ ..] => (16, rest),
        [b'0', rest @ ..] => (8, rest),
        rest => (10, rest),
    };
    let digits = digits.iter().map_while(|&byte| char::from(byte).to_digit(base));
    digits.fold(0_u32, |value, digit| value.saturating_mul(base).saturating_add(digit))
}

/// 64 hexadecimal digits, with or without colons between them.
fn sha256(text: &[u8]) -> Option<[u8; 32]> {
    let digits: Option<Vec<u8>> = text
        .iter()
        .filter(|&&byte| byte != b':')
        .map(|&byte| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let bytes: Vec<u8> =
        digits.filter(|digits| digits.len() == 64)?.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests;
