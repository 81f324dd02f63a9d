//! The options by letter and by word, and how `getopt_long` takes a word apart: clusters of letters, values behind a letter or an
//! `=`, abbreviated words, and its complaints. Pure: what an option means is not known here.
//!
//! The surprise: words of our own (`--explain`) take no part in abbreviation, so that every abbreviation of check_nrpe's stays one.

/// An option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// `-H`
    Host,
    /// `-f`
    File,
    /// `-b`
    Bind,
    /// `-c`
    Command,
    /// `-a`
    Args,
    /// `-n`
    NoSsl,
    /// `-u`
    UnknownTimeout,
    /// `-2`
    V2Only,
    /// `-3`
    V3Only,
    /// `-4`
    Ipv4,
    /// `-6`
    Ipv6,
    /// `-d`
    Adh,
    /// `-S`
    Protocol,
    /// `-L`
    Ciphers,
    /// `-C`
    Certificate,
    /// `-K`
    KeyFile,
    /// `-A`
    Ca,
    /// `-s`
    Logging,
    /// `-t`
    Timeout,
    /// `-p`
    Port,
    /// `-P`
    Payload,
    /// `-g`
    LogFile,
    /// `-h`
    Help,
    /// `-l`
    License,
    /// `-V`
    Version,
    /// `-E`
    ErrorsToStdout,
    /// `-D`
    NoSyslog,
    /// `--verify-name`, ours.
    Name,
    /// `--pin`, ours.
    Pin,
    /// `--explain`, ours.
    Explain,
}

/// Letter (none: the option is ours), word, key, whether it has a value. In check_nrpe's order, which complaints show.
const OPTIONS: [(Option<u8>, &str, Key, bool); 30] = [
    (Some(b'H'), "host", Key::Host, true),
    (Some(b'f'), "config-file", Key::File, true),
    (Some(b'b'), "bind", Key::Bind, true),
    (Some(b'c'), "command", Key::Command, true),
    (Some(b'a'), "args", Key::Args, true),
    (Some(b'n'), "no-ssl", Key::NoSsl, false),
    (Some(b'u'), "unknown-timeout", Key::UnknownTimeout, false),
    (Some(b'2'), "v2-packets-only", Key::V2Only, false),
    (Some(b'3'), "v3-packets-only", Key::V3Only, false),
    (Some(b'4'), "ipv4", Key::Ipv4, false),
    (Some(b'6'), "ipv6", Key::Ipv6, false),
    (Some(b'd'), "use-adh", Key::Adh, true),
    (Some(b'S'), "ssl-version", Key::Protocol, true),
    (Some(b'L'), "cipher-list", Key::Ciphers, true),
    (Some(b'C'), "client-cert", Key::Certificate, true),
    (Some(b'K'), "key-file", Key::KeyFile, true),
    (Some(b'A'), "ca-cert-file", Key::Ca, true),
    (Some(b's'), "ssl-logging", Key::Logging, true),
    (Some(b't'), "timeout", Key::Timeout, true),
    (Some(b'p'), "port", Key::Port, true),
    (Some(b'P'), "payload-size", Key::Payload, true),
    (Some(b'g'), "log-file", Key::LogFile, true),
    (Some(b'h'), "help", Key::Help, false),
    (Some(b'l'), "license", Key::License, false),
    (Some(b'V'), "version", Key::Version, false),
    (Some(b'E'), "stderr-to-stdout", Key::ErrorsToStdout, false),
    (Some(b'D'), "disable-syslog", Key::NoSyslog, false),
    (None, "verify-name", Key::Name, true),
    (None, "pin", Key::Pin, true),
    (None, "explain", Key::Explain, false),
];

impl Key {
    /// Whether a value belongs to it.
    #[must_use]
    pub fn takes_value(self) -> bool {
        OPTIONS.iter().any(|(_, _, key, value)| *key == self && *value)
    }
}

/// How an option was written, for complaints about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Called {
    /// By its letter.
    Letter(char),
    /// By its word.
    Word(&'static str),
}

/// An option and the value that was written onto it, if any.
pub type Found<'a> = (Key, Option<&'a [u8]>);

/// The option of a word behind `--`, and the value behind its `=`.
///
/// # Errors
/// `getopt_long`'s complaint: no such option, several, or a value where there is none.
pub fn long(word: &[u8]) -> Result<Found<'_>, String> {
    let (name, value) = match word.iter().position(|&byte| byte == b'=') {
        Some(at) => (&word[..at], Some(&word[at + 1..])),
        None => (word, None),
    };
    let exact = OPTIONS.iter().find(|(_, long, ..)| long.as_bytes() == name);
    let begun: Vec<_> =
        OPTIONS.iter().filter(|(letter, long, ..)| letter.is_some() && long.as_bytes().starts_with(name)).collect();
    let shown = String::from_utf8_lossy(word);
    let (_, long, key, takes) = match (exact, begun.as_slice()) {
        (Some(exact), _) => exact,
        (None, [one]) => one,
        (None, []) => return Err(format!("unrecognized option '--{shown}'")),
        (None, several) => {
            let possible: Vec<_> = several.iter().map(|(_, long, ..)| format!("'--{long}'")).collect();
            return Err(format!("option '--{shown}' is ambiguous; possibilities: {}", possible.join(" ")));
        }
    };
    if value.is_some() && !takes {
        return Err(format!("option '--{long}' doesn't allow an argument"));
    }
    Ok((*key, value))
}

/// The options of a cluster of letters behind `-`; the rest behind one that has a value is its value. Complaints about letters
/// that are none come beside them.
#[must_use]
pub fn cluster(letters: &[u8]) -> (Vec<Found<'_>>, Vec<String>) {
    let mut found = Vec::new();
    let mut complaints = Vec::new();
    for (at, letter) in letters.iter().enumerate() {
        match OPTIONS.iter().find(|(short, ..)| short.as_ref() == Some(letter)) {
            None => complaints.push(format!("invalid option -- '{}'", char::from(*letter))),
            Some((_, _, key, true)) => {
                found.push((*key, letters.get(at + 1..).filter(|rest| !rest.is_empty())));
                break;
            }
            Some((_, _, key, false)) => found.push((*key, None)),
        }
    }
    (found, complaints)
}

/// An option by its word.
#[must_use]
pub fn name_of(key: Key) -> Called {
    Called::Word(OPTIONS.iter().find(|(_, _, other, _)| *other == key).map_or("", |(_, long, ..)| long))
}

/// An option by its letter.
#[must_use]
pub fn letter_of(key: Key) -> Called {
    let letter = OPTIONS.iter().find(|(_, _, other, _)| *other == key).and_then(|(letter, ..)| *letter);
    Called::Letter(char::from(letter.unwrap_or(b'?')))
}

/// `getopt_long`'s complaint about an option without its value.
#[must_use]
pub fn lacks_value(called: &Called) -> String {
    match called {
        Called::Letter(letter) => format!("option requires an argument -- '{letter}'"),
        Called::Word(word) => format!("option '--{word}' requires an argument"),
    }
}
