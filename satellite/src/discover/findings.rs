//! What came back from one target, and what follows from it: whether to ask on and how, what kind of daemon it is, which commands
//! it has. Pure: requests are made elsewhere.
//!
//! The surprise: "not allowed" has no words. A daemon that does not know our address closes before TLS begins, and so does one
//! that speaks plain; only asking plain as well tells them apart.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;
use shared::text::is_obeyed;

use super::certificate::Certificate;
use super::targets::Target;

/// Commands that are looked for unless others are named: Debian's defaults first, then what is usual elsewhere. Each is asked
/// without arguments, and runs a check that somebody has set up to be run every minute.
pub const USUAL_COMMANDS: [&str; 26] = [
    "check_users",
    "check_load",
    "check_hda1",
    "check_zombie_procs",
    "check_total_procs",
    "check_disk",
    "check_root",
    "check_disks",
    "check_all_disks",
    "check_sda1",
    "check_swap",
    "check_mem",
    "check_memory",
    "check_cpu",
    "check_procs",
    "check_ntp",
    "check_ntp_time",
    "check_time",
    "check_uptime",
    "check_mailq",
    "check_apt",
    "check_yum",
    "check_updates",
    "check_raid",
    "check_inodes",
    "check_service",
];

/// Bytes of a daemon's text that are kept; the rest is not worth a line of a proposal.
const MAX_TEXT: usize = 200;

/// What one request came back with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// An answer.
    Answer(Answer),
    /// None.
    Nothing(Nothing),
}

/// An answer and how it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Result code.
    pub code: i16,
    /// Text, readable.
    pub text: String,
    /// Who answered.
    pub peer: SocketAddr,
    /// What TLS agreed on; none for plain.
    pub tls: Option<Tls>,
}

/// What TLS agreed on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tls {
    /// Protocol version.
    pub protocol: String,
    /// Cipher suite by OpenSSL's name.
    pub cipher: String,
    /// The certificate the daemon showed; none if the suite is anonymous.
    pub certificate: Option<Certificate>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nothing {
    /// What kind of nothing.
    pub kind: Kind,
    /// In words.
    pub text: String,
    /// The address we came from, where it came to that.
    pub source: Option<IpAddr>,
}

/// Kinds of nothing, as far as they lead to different next steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The name has no address.
    Unresolved,
    /// Nobody listens on the port.
    Closed,
    /// No connection: no way, or no reply in time.
    Unreached,
    /// Connected, and closed without a word, or with words that are not TLS.
    Cut,
    /// Connected, and nothing came in time.
    Hung,
    /// TLS, but we found no common terms, or were asked for a certificate.
    Declined,
    /// Bytes came that are no NRPE.
    Foreign,
    /// Anything else.
    Failed,
}

/// What is known of a target in the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Name or address as it was given.
    pub address: String,
    /// TCP port.
    pub port: u16,
    /// Whether it was named itself, not as part of a network.
    #[serde(skip)]
    pub named: bool,
    /// What it is.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// What a target is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "found", rename_all = "kebab-case")]
pub enum Verdict {
    /// An NRPE daemon that answers us.
    Nrpe(Box<Daemon>),
    /// Something that takes connections and closes them at once: most likely a daemon that does not allow our address.
    Refused {
        /// What its `allowed_hosts` lacks, as far as is known.
        source: Option<IpAddr>,
        /// In words.
        text: String,
    },
    /// A daemon that talks to nobody without a certificate that it can verify.
    WantsCertificate {
        /// In words.
        text: String,
    },
    /// Something else.
    NotNrpe {
        /// In words.
        text: String,
    },
    /// Nobody.
    Nobody {
        /// In words.
        text: String,
    },
}

/// How a daemon is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Bare packets.
    Plain,
    /// TLS without a certificate.
    Anonymous,
    /// TLS, and it showed a certificate.
    Certificate,
}

/// A daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Daemon {
    /// The address that answered.
    pub peer: IpAddr,
    /// What it calls itself: `NRPE v4.1.0`.
    pub says: String,
    /// How it is spoken to.
    pub mode: Mode,
    /// What TLS agreed on.
    pub tls: Option<Tls>,
    /// Whether it was answered only to who showed a certificate.
    pub client_certificate: bool,
    /// Commands it has, with what they said when they were looked for.
    pub commands: BTreeMap<String, Said>,
    /// Commands that gave no clear sign, and why.
    pub unclear: BTreeMap<String, String>,
}

/// What a command said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Said {
    /// The state's word; none if the command took longer than we waited.
    pub state: Option<&'static str>,
    /// First line of its text.
    pub output: String,
}

/// How to ask a target who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// TLS with whoever answers.
    Tls,
    /// The same, showing a certificate.
    Identified,
    /// Bare packets.
    Plain,
}

/// What follows when `way` was heard so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask in this way.
    Ask(Way),
    /// That was all: nobody to ask for commands.
    End(Verdict),
    /// It is a daemon.
    Found(Box<Daemon>),
}

/// Judges what was heard; `identified` says whether there is a certificate of ours to show.
#[must_use]
pub fn next(way: Way, heard: Heard, identified: bool) -> Step {
    let nothing = match heard {
        Heard::Answer(answer) => return Step::Found(Box::new(daemon(way, answer))),
        Heard::Nothing(nothing) => nothing,
    };
    let Nothing { kind, text, source } = nothing;
    match (kind, way) {
        (Kind::Unresolved | Kind::Closed | Kind::Unreached, _) => Step::End(Verdict::Nobody { text }),
        (Kind::Declined, Way::Tls) if identified => Step::Ask(Way::Identified),
        (Kind::Declined, _) => Step::End(Verdict::WantsCertificate { text }),
        (Kind::Cut | Kind::Hung | Kind::Foreign, Way::Tls) => Step::Ask(Way::Plain),
        (Kind::Cut, Way::Plain | Way::Identified) => Step::End(Verdict::Refused { source, text }),
        (Kind::Hung | Kind::Foreign | Kind::Failed, _) => Step::End(Verdict::NotNrpe { text }),
    }
}

fn daemon(way: Way, answer: Answer) -> Daemon {
    let mode = match &answer.tls {
        None => Mode::Plain,
        Some(tls) if is_anonymous(&tls.cipher) => Mode::Anonymous,
        Some(_) => Mode::Certificate,
    };
    let says = first_line(&answer.text);
    Daemon {
        peer: answer.peer.ip(),
        says,
        mode,
        tls: answer.tls,
        client_certificate: way == Way::Identified,
        commands: BTreeMap::new(),
        unclear: BTreeMap::new(),
    }
}

/// OpenSSL's names of anonymous suites begin so; TLS 1.3 has none.
fn is_anonymous(cipher: &str) -> bool {
    cipher.starts_with("ADH-") || cipher.starts_with("AECDH-")
}

impl Daemon {
    /// Takes what a command was heard to say.
    pub fn learn(&mut self, command: &str, heard: Heard) {
        match heard {
            Heard::Answer(answer) if is_unknown(command, &answer.text) => {}
            Heard::Answer(answer) => {
                let state = match answer.code {
                    0 => "OK",
                    1 => "WARNING",
                    2 => "CRITICAL",
                    _ => "UNKNOWN",
                };
                self.commands.insert(command.to_owned(), Said { state: Some(state), output: first_line(&answer.text) });
            }
            // What is not defined is answered at once; what takes its time is there.
            Heard::Nothing(Nothing { kind: Kind::Hung, text, .. }) => {
                self.commands.insert(command.to_owned(), Said { state: None, output: text });
            }
            Heard::Nothing(Nothing { text, .. }) => {
                self.unclear.insert(command.to_owned(), text);
            }
        }
    }
}

/// Whether a daemon says that it has no such command: nrpe of all versions, NSClient++, SNClient.
fn is_unknown(command: &str, text: &str) -> bool {
    let text = first_line(text);
    text == format!("NRPE: Command '{command}' not defined")
        || text.starts_with("Unknown command(s):")
        || text.starts_with("No handler for")
        || text.contains("No such check:")
}

/// The first line, not longer than what is worth a line of a proposal, without the performance data.
fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let line = line.split_once('|').map_or(line, |(line, _)| line).trim();
    line.chars().filter(|&char| !is_obeyed(char)).take(MAX_TEXT).collect()
}

impl Finding {
    /// A target and what it is.
    #[must_use]
    pub fn new(target: Target, verdict: Verdict) -> Self {
        Self { address: target.address, port: target.port, named: target.named, verdict }
    }

    /// The daemon, if it is one that answers us.
    #[must_use]
    pub fn daemon(&self) -> Option<&Daemon> {
        match &self.verdict {
            Verdict::Nrpe(daemon) => Some(daemon),
            _ => None,
        }
    }
}

/// How many of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Targets asked to the end.
    pub asked: usize,
    /// NRPE daemons that answer us.
    pub nrpe: usize,
    /// Those that take connections and close them.
    pub refused: usize,
    /// Those that want a certificate.
    pub wants_certificate: usize,
    /// Those that are something else.
    pub not_nrpe: usize,
    /// Those that did not answer.
    pub nobody: usize,
}

impl Counts {
    /// Counts one more.
    pub fn add(&mut self, verdict: &Verdict) {
        self.asked += 1;
        *match verdict {
            Verdict::Nrpe(_) => &mut self.nrpe,
            Verdict::Refused { .. } => &mut self.refused,
            Verdict::WantsCertificate { .. } => &mut self.wants_certificate,
            Verdict::NotNrpe { .. } => &mut self.not_nrpe,
            Verdict::Nobody { .. } => &mut self.nobody,
        } += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: i16, text: &str, cipher: Option<&str>) -> Heard {
        let tls =
            cipher.map(|cipher| Tls { protocol: "TLSv1.2".to_owned(), cipher: cipher.to_owned(), certificate: None });
        Heard::Answer(Answer { code, text: text.to_owned(), peer: "192.0.2.1:5666".parse().unwrap(), tls })
    }

    fn nothing(kind: Kind) -> Heard {
        Heard::Nothing(Nothing { kind, text: "so".to_owned(), source: Some("192.0.2.9".parse().unwrap()) })
    }

    fn found(way: Way, heard: Heard) -> Daemon {
        match next(way, heard, false) {
            Step::Found(daemon) => *daemon,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_answer_tells_version_and_mode() {
        let anonymous = found(Way::Tls, answer(0, "NRPE v4.1.0", Some("AECDH-AES256-SHA")));
        assert_eq!((anonymous.mode, anonymous.says.as_str()), (Mode::Anonymous, "NRPE v4.1.0"));
        let certificate = found(Way::Identified, answer(0, "NRPE v3.2.1", Some("TLS_AES_256_GCM_SHA384")));
        assert_eq!((certificate.mode, certificate.client_certificate), (Mode::Certificate, true));
        let windows = found(Way::Plain, answer(0, "I (0.5.2.35 2018-01-28) seem to be doing fine...", None));
        assert_eq!((windows.mode, windows.client_certificate), (Mode::Plain, false));
    }

    #[test]
    fn a_closed_connection_is_refused_only_when_plain_is_closed_too() {
        assert_eq!(next(Way::Tls, nothing(Kind::Cut), false), Step::Ask(Way::Plain));
        let refused = Verdict::Refused { source: Some("192.0.2.9".parse().unwrap()), text: "so".to_owned() };
        assert_eq!(next(Way::Plain, nothing(Kind::Cut), false), Step::End(refused));
        assert_eq!(next(Way::Tls, nothing(Kind::Hung), false), Step::Ask(Way::Plain), "it may wait for a whole packet");
        let other = Verdict::NotNrpe { text: "so".to_owned() };
        assert_eq!(next(Way::Plain, nothing(Kind::Hung), false), Step::End(other.clone()));
        assert_eq!(next(Way::Plain, nothing(Kind::Foreign), false), Step::End(other));
    }

    #[test]
    fn a_daemon_that_declines_is_shown_a_certificate_if_there_is_one() {
        assert_eq!(next(Way::Tls, nothing(Kind::Declined), true), Step::Ask(Way::Identified));
        let wants = Step::End(Verdict::WantsCertificate { text: "so".to_owned() });
        assert_eq!(next(Way::Tls, nothing(Kind::Declined), false), wants);
        assert_eq!(next(Way::Identified, nothing(Kind::Declined), true), wants, "once");
    }

    #[test]
    fn nobody_is_asked_once() {
        for kind in [Kind::Unresolved, Kind::Closed, Kind::Unreached] {
            assert_eq!(next(Way::Tls, nothing(kind), true), Step::End(Verdict::Nobody { text: "so".to_owned() }));
        }
    }

    #[test]
    fn commands_are_there_or_not_or_unclear() {
        let mut daemon = found(Way::Plain, answer(0, "NRPE v2.15", None));
        daemon.learn("check_load", answer(1, "WARNING - load|load1=1;2;3\nmore", None));
        daemon.learn("check_disk", answer(2, "NRPE: Command 'check_disk' not defined", None));
        daemon.learn("check_cpu", answer(3, "Unknown command(s): check_cpu", None));
        daemon.learn("check_mem", answer(3, "${status} - No such check: check_mem", None));
        daemon.learn("check_apt", nothing(Kind::Hung));
        daemon.learn("check_raid", nothing(Kind::Cut));
        assert_eq!(daemon.commands.keys().collect::<Vec<_>>(), ["check_apt", "check_load"]);
        assert_eq!(daemon.commands["check_load"], Said { state: Some("WARNING"), output: "WARNING - load".to_owned() });
        assert_eq!(daemon.commands["check_apt"].state, None);
        assert_eq!(daemon.unclear.keys().collect::<Vec<_>>(), ["check_raid"]);
    }

    #[test]
    fn usual_commands_are_named_once_each() {
        let mut names = USUAL_COMMANDS.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), USUAL_COMMANDS.len());
    }

    #[test]
    fn what_a_peer_says_fits_a_line() {
        assert_eq!(first_line("a\u{1b}[31m\u{2028}x: y\u{202e} \r\nb"), "a[31mx: y");
        assert_eq!(first_line(&"x".repeat(5000)).len(), MAX_TEXT);
    }
}
