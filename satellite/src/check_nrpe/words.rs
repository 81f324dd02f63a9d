//! What is said and with which exit code: check_nrpe's sentences on check_nrpe's streams for what came back, what did not, and
//! wrong use; our own words for help. No I/O.
//!
//! The surprise: the first line is the whole message to most people, so it is never spent on anything but the result. What
//! check_nrpe prints in front of a result (a failed first version, remarks about options) goes to standard error here.

pub mod help;

use std::path::PathBuf;

use shared::check::State;

use super::options::misuse::Misuse;
use super::options::{Options, Teach};
use crate::probe::dial::OTHER_FAMILY;
use crate::probe::nrpe::Query;
use crate::probe::nrpe::error::{CERTIFICATE_REQUIRED, Class, Fault};
use crate::probe::nrpe::packet::Answer;

/// Exit code of everything that is no statement about the host: wrong use, no answer, an answer that cannot be believed.
pub const UNKNOWN: u8 = 3;
/// Exit code for files and cipher lists that cannot be used, as in check_nrpe; no `-t` or `-u` changes it.
const UNUSABLE: u8 = 2;

/// What the process prints, and its exit code.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Said {
    /// Exit code: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.
    pub code: u8,
    /// Standard output, bytes: a plugin's text is passed on as it came.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
}

impl Said {
    /// One line on standard output.
    #[must_use]
    pub fn line(code: u8, line: &str) -> Self {
        Self { code, stdout: format!("{line}\n").into_bytes(), stderr: String::new() }
    }

    /// The same with standard error behind standard output (`-E`).
    #[must_use]
    pub fn on_one_stream(mut self) -> Self {
        self.stdout.extend_from_slice(self.stderr.as_bytes());
        self.stderr.clear();
        self
    }
}

/// What a daemon answered.
#[must_use]
pub fn answer(answer: &Answer) -> Said {
    if answer.text.is_empty() {
        // check_nrpe takes the packet's code, which would be OK without a word of any plugin.
        return Said::line(UNKNOWN, "CHECK_NRPE: No output returned from daemon.");
    }
    let mut stdout = answer.text.clone();
    stdout.push(b'\n');
    let code = u8::try_from(answer.code).ok().filter(|code| *code <= UNKNOWN).unwrap_or(UNKNOWN);
    Said { code, stdout, stderr: String::new() }
}

/// Why there is no answer.
#[must_use]
pub fn fault(fault: &Fault, options: &Options) -> Said {
    let state = options.on_failure.unwrap_or(State::Critical);
    let failed = state.number();
    let legacy = fault.legacy(state.as_str());
    let reason = legacy.rsplit_once(": ").map_or("", |(_, reason)| reason);
    match &fault.class {
        Class::Dns(reason) => {
            let host = options.host.as_deref().unwrap_or_default();
            on_stderr(failed, &format!("Could not resolve hostname {host}: {reason}"))
        }
        Class::Bind(_) => {
            let bind = options.bind.as_deref().unwrap_or_default();
            let call = if reason == OTHER_FAMILY { "getaddrinfo" } else { "bind" };
            on_stderr(failed, &format!("{call}: {bind}: {reason}\n{}", no_connection(options, reason)))
        }
        Class::Refused | Class::Unreachable(_) | Class::Connect(_) => {
            on_stderr(failed, &format!("{legacy}\n{}", no_connection(options, reason)))
        }
        Class::TlsFiles(why) => Said::line(UNUSABLE, &format!("{}\n{why}", unusable(why, options))),
        // Nobody was connected to: it is what was to be offered.
        Class::Tls(why) if fault.peer.is_none() => {
            let list = options.ciphers.as_deref().unwrap_or_default();
            Said::line(UNUSABLE, &format!("Error: Could not set SSL/TLS cipher list: {list}\n{why}"))
        }
        // In TLS 1.3 the daemon's no comes after the handshake, where check_nrpe waits for the answer.
        Class::ClientCertificate { alert: None | Some((CERTIFICATE_REQUIRED, _)), .. } => Said::line(UNKNOWN, &legacy),
        Class::Alert { .. }
        | Class::ClientCertificate { .. }
        | Class::Untrusted(_)
        | Class::Expired(_)
        | Class::WrongName(_)
        | Class::WrongPin(_)
        | Class::DhTooSmall
        | Class::NotTls(_)
        | Class::ClosedInHandshake
        | Class::RefusedHere { in_handshake: true }
        | Class::Tls(_)
        | Class::Timeout { .. } => Said::line(failed, &legacy),
        Class::ClosedBeforeAnswer
        | Class::RefusedHere { in_handshake: false }
        | Class::RequestRefused
        | Class::BrokenOff(_)
        | Class::Protocol(_)
        | Class::TooMuch(_) => Said::line(UNKNOWN, &legacy),
        // check_nrpe cuts the request and asks for something else; there is no sentence of its for this.
        Class::Request(too_long) => Said::line(UNKNOWN, &format!("CHECK_NRPE: Error - {too_long}")),
    }
}

/// The address to come from (`-b`) has no address.
#[must_use]
pub fn unbound(options: &Options, bind: &str, reason: &str) -> Said {
    let failed = options.on_failure.unwrap_or(State::Critical).number();
    on_stderr(failed, &format!("getaddrinfo: {bind}: {reason}\n{}", no_connection(options, reason)))
}

fn on_stderr(code: u8, lines: &str) -> Said {
    Said { code, stdout: Vec::new(), stderr: format!("{lines}\n") }
}

fn no_connection(options: &Options, reason: &str) -> String {
    format!("connect to host {} port {}: {reason}", options.host.as_deref().unwrap_or_default(), options.port())
}

/// check_nrpe's line about a file of TLS; `why` begins with its path.
fn unusable(why: &str, options: &Options) -> String {
    let about = |path: &Option<PathBuf>| {
        let path = path.as_ref()?.display().to_string();
        why.strip_prefix(&path)?.starts_with(':').then_some(path)
    };
    if let Some(path) = about(&options.certificate) {
        format!("Error: could not use certificate file '{path}'.")
    } else if let Some(path) = about(&options.key) {
        format!("Error: could not use private key file '{path}'.")
    } else if let Some(path) = about(&options.ca) {
        format!("Error: could not use CA certificate '{path}'.")
    } else {
        "Error: could not use a file of TLS.".to_owned()
    }
}

/// What happened and what to do about it, in our words, a line each.
#[must_use]
pub fn explanation(fault: &Fault, query: &Query) -> String {
    let mut said = format!("{fault}\n");
    if let Some(hint) = fault.hint(&query.text, &query.endpoint.security) {
        said.push_str(&in_options(&hint));
        said.push('\n');
    }
    said
}

/// The settings that a hint names, as the options of this program that mean the same; the longer name first.
const SETTINGS: [(&str, &str); 9] = [
    ("with nrpe.ciphers: DEFAULT@SECLEVEL=1", "with -L DEFAULT@SECLEVEL=1"),
    ("nrpe.certificate and nrpe.key", "-C and -K"),
    (
        "files that a host's nrpe settings name are read on the satellite, by the user it runs as",
        "look at the path and at who may read it",
    ),
    ("nrpe.tls: certificate", "-A or --pin"),
    ("nrpe.tls: anonymous", "no -n"),
    ("nrpe.tls: plain", "-n"),
    ("nrpe.name", "--verify-name"),
    ("nrpe.pins", "--pin"),
    ("nrpe.ca", "-A"),
];

/// A hint in words that can be typed here: who runs this program has no configuration of Perigee before him.
fn in_options(hint: &str) -> String {
    SETTINGS.iter().fold(hint.to_owned(), |hint, (setting, option)| hint.replace(setting, option))
}

/// Wrong use. The first line says what is wrong.
#[must_use]
pub fn misuse(misuse: &Misuse) -> Said {
    let mut stderr = String::new();
    for complaint in &misuse.complaints {
        stderr.push_str(complaint);
        stderr.push('\n');
    }
    let stdout = if misuse.bare {
        format!("{}\n", misuse.reason)
    } else {
        format!("Error: {}\n\nIncorrect command line arguments supplied\n\n{}", misuse.reason, help::USAGE)
    };
    Said { code: UNKNOWN, stdout: stdout.into_bytes(), stderr }
}

/// Help, version or licence: all of them end with 3, as in check_nrpe, so that none can pass for a result.
#[must_use]
pub fn teach(what: Teach) -> Said {
    let stdout = match what {
        Teach::Version => help::version(),
        Teach::License => format!("{}\n{}", help::version(), help::LICENSE),
        Teach::Help => format!("{}\n{}\n{}", help::version(), help::USAGE, help::OPTIONS),
    };
    Said { code: UNKNOWN, stdout: stdout.into_bytes(), stderr: String::new() }
}

#[cfg(test)]
mod tests;
