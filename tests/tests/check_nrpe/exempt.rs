//! Where `check-nrpe` does not do what check_nrpe does, and why. A row names an option or a class of failure, never a case, and
//! what may differ there; `docs/nrpe.md` has each reason word for word.

use crate::both::{Both, Ended};

/// What a row covers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Covers {
    /// Command lines with this option.
    Option(&'static str),
    /// What ours saw ([`Both::classes`]).
    Class(&'static [&'static str]),
    /// No row of the table: a test of its own shows it (`cost`, `page`).
    Shown,
}

/// What may differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Code,
    Stdout,
    Stderr,
}

/// One row.
pub(crate) struct Exemption {
    /// Its name, on the page too.
    pub(crate) name: &'static str,
    pub(crate) covers: Covers,
    pub(crate) parts: &'static [Part],
    /// What still has to hold.
    pub(crate) holds: fn(&Both) -> bool,
    /// The reason, as the page has it.
    pub(crate) reason: &'static str,
}

use Covers::{Class, Option as Opt, Shown};
use Part::{Code, Stderr, Stdout};

const fn always(_: &Both) -> bool {
    true
}

/// Their output is ours behind lines that are not the daemon's.
fn ours_comes_last(both: &Both) -> bool {
    both.theirs.stdout.ends_with(&both.ours.stdout) && both.theirs.stdout.len() > both.ours.stdout.len()
}

/// One line of theirs, said as often as they like, in different numbers.
fn same_failure(both: &Both) -> bool {
    let first = |ended: &Ended| ended.stdout.lines().next().unwrap_or_default().starts_with("CHECK_NRPE: ");
    both.ours.code == both.theirs.code
        && first(&both.theirs)
        && first(&both.ours)
        && both.ours.stdout.lines().count() == 1
}

fn same_first_line(both: &Both) -> bool {
    both.theirs.stdout.lines().next() == both.ours.stdout.lines().next()
}

/// A time of the file, or a key of it beside a certificate of the command line.
fn counted_in_a_file(both: &Both) -> bool {
    both.ours.stdout.contains(": Socket timeout after ") || both.theirs.stdout.contains("must both be given or neither")
}

fn unknown_here(both: &Both) -> bool {
    both.ours.code == 3
}

fn failed_as_unreachable(both: &Both) -> bool {
    both.ours.code != 1 && both.ours.stdout == both.theirs.stdout && both.ours.stderr == both.theirs.stderr
}

fn refused_anonymous(both: &Both) -> bool {
    both.theirs.code == 0 && both.ours.code == 2 && both.ours.stdout.contains("Could not complete SSL handshake")
}

/// Every row.
pub(crate) const EXEMPTIONS: &[Exemption] = &[
    Exemption {
        name: "usage",
        covers: Class(&["usage"]),
        parts: &[Stdout],
        holds: |both| both.ours.stdout.starts_with("Error: ") && both.ours.code == 3,
        reason: "Wrong use: the first line says what is wrong. check_nrpe's first line is often empty, and that is all Nagios shows.",
    },
    Exemption {
        name: "-h, -V, -l",
        covers: Opt("-hVl"),
        parts: &[Stdout],
        holds: unknown_here,
        reason: "Help, version and licence are texts of ours. They end with 3 as well.",
    },
    Exemption {
        name: "-a",
        covers: Opt("-a"),
        parts: &[Stdout],
        holds: |both| both.theirs.stdout.starts_with('-') && both.theirs.code == both.ours.code,
        reason: "`-aX` and `--args=X` send X. check_nrpe sends the option itself, `-aX`, as the first argument.",
    },
    Exemption {
        name: "-p",
        covers: Opt("-p"),
        parts: &[Code, Stdout, Stderr],
        holds: |both| both.ours.stdout.starts_with("Error: -p "),
        reason: "A port beyond 65535 is wrong use. check_nrpe cuts it to 16 bits and asks whatever listens there.",
    },
    Exemption {
        name: "-f",
        covers: Opt("-f"),
        parts: &[Code, Stdout],
        holds: counted_in_a_file,
        reason: "`-t` in a file of options counts, and `-C` and `-K` may be one there and one on the command line. check_nrpe skips \
                 the first and refuses the second.",
    },
    Exemption {
        name: "-b",
        covers: Opt("-b"),
        parts: &[Stderr],
        holds: |both| both.ours.stdout.is_empty() && both.ours.stderr.lines().count() >= 1,
        reason: "A source address that cannot be used is told with its reason. check_nrpe ends that line with `Success`.",
    },
    Exemption {
        name: "-P",
        covers: Opt("-P"),
        parts: &[Code, Stdout],
        holds: |both| both.ours.code == 0,
        reason: "A whole packet is read: its text and two bytes of padding. check_nrpe leaves the two unread and then reports a wrong \
                 checksum unless they are zero.",
    },
    Exemption {
        name: "-A",
        covers: Opt("-A"),
        parts: &[Code, Stdout],
        holds: refused_anonymous,
        reason: "With a CA file a daemon without a certificate is refused, and so is one that has only TLS 1.0 or 1.1, or a key of less \
                 than 112 bits of strength. check_nrpe accepts them: an anonymous daemon shows no certificate that could be wrong, so the \
                 file protects from nobody.",
    },
    Exemption {
        name: "-L",
        covers: Opt("-L"),
        parts: &[Stdout],
        holds: same_first_line,
        reason: "A cipher list that cannot be used: the second line is our words for it.",
    },
    Exemption {
        name: "remarks",
        covers: Class(&["remark"]),
        parts: &[Stdout, Stderr],
        holds: ours_comes_last,
        reason: "Remarks (an unknown state in `-t`, a log file that cannot be written, `-f` in a file) go to standard error. check_nrpe \
                 puts them in front of the output, where they become the result.",
    },
    Exemption {
        name: "dns",
        covers: Class(&["dns"]),
        parts: &[Code],
        holds: failed_as_unreachable,
        reason: "A name without an address is a host that cannot be reached: the state of `-t` and `-u`, CRITICAL without them. \
                 check_nrpe says WARNING whatever was asked for.",
    },
    Exemption {
        name: "tls-files",
        covers: Class(&["tls-files"]),
        parts: &[Stdout],
        holds: same_first_line,
        reason: "A certificate or key that cannot be read: the second line says why. check_nrpe prints `(null)`.",
    },
    Exemption {
        name: "first-line",
        covers: Class(&["version-2"]),
        parts: &[Stdout],
        holds: ours_comes_last,
        reason: "The first line is the result. When check_nrpe falls back to version 2, the error of the version before comes first.",
    },
    Exemption {
        name: "several-packets",
        covers: Class(&["version-2"]),
        parts: &[Code, Stdout],
        holds: |both| both.theirs.stdout.ends_with("Invalid packet type received from server.\n"),
        reason: "Long output in several packets of version 2 (NSClient++, Opsview) is put together. check_nrpe refuses it.",
    },
    Exemption {
        name: "result-code",
        covers: Class(&["code-out-of-range"]),
        parts: &[Code, Stdout],
        holds: unknown_here,
        reason: "A result code that is no state is UNKNOWN. check_nrpe ends with it (99, or 44 for 300), and takes -1 for a failure \
                 and prints the output twice.",
    },
    Exemption {
        name: "no-output",
        covers: Class(&["no-output"]),
        parts: &[Code, Stdout],
        holds: |both| both.ours.code == 3 && both.ours.stdout == "CHECK_NRPE: No output returned from daemon.\n",
        reason: "No text at all is UNKNOWN. check_nrpe takes the code of the packet: OK, although no plugin has said a word.",
    },
    Exemption {
        name: "request-too-long",
        covers: Class(&["request-too-long"]),
        parts: &[Stdout],
        holds: unknown_here,
        reason: "A request that fits no packet is not sent. check_nrpe cuts it and asks for something else.",
    },
    Exemption {
        name: "said-once",
        covers: Class(&[
            "eof-before-response",
            "refused-here",
            "request-refused",
            "protocol-foreign",
            "protocol-truncated",
            "protocol-checksum",
            "tls-client-certificate",
        ]),
        parts: &[Stdout],
        holds: same_failure,
        reason: "A failure is said once, and the same one always in the same line. check_nrpe says it for every version it tried, with numbers of bytes that are \
                 wrong, `-1 bytes received` among them.",
    },
    Exemption {
        name: "length",
        covers: Class(&["protocol-length"]),
        parts: &[Code, Stdout],
        holds: unknown_here,
        reason: "A length that no daemon means ends the check. check_nrpe asks again in version 2, and the command runs twice.",
    },
    Exemption {
        name: "run-twice",
        covers: Shown,
        parts: &[],
        holds: always,
        reason: "A command is never asked for again once a byte of an answer has come. check_nrpe runs it a second time when the \
                 answer is of another version or its code is -1.",
    },
    Exemption {
        name: "time",
        covers: Shown,
        parts: &[],
        holds: always,
        reason: "`-t` is the time for everything. check_nrpe starts it again for the answer and for a second version: up to four times.",
    },
];

impl Exemption {
    /// Whether this row is about such a command line, or what came of it.
    pub(crate) fn covers(&self, words: &[String], both: &Both) -> bool {
        match self.covers {
            Shown => false,
            Class(kinds) => kinds.iter().any(|kind| both.classes.contains(*kind)),
            Opt(letters) => words.iter().any(|word| has(word, letters)),
        }
    }
}

/// Whether a word is, or begins with, one of these options.
fn has(word: &str, letters: &str) -> bool {
    let long = [("-a", "--args"), ("-p", "--port")];
    if letters == "-hVl" {
        return ["-h", "-V", "-l", "--help", "--version", "--license"].contains(&word);
    }
    word.starts_with(letters) || long.iter().any(|(letter, long)| *letter == letters && word.starts_with(long))
}

/// The differences between both.
pub(crate) fn differences(both: &Both) -> Vec<Part> {
    let mut parts = Vec::new();
    if both.theirs.code != both.ours.code {
        parts.push(Code);
    }
    if both.theirs.stdout != both.ours.stdout {
        parts.push(Stdout);
    }
    if both.theirs.stderr != both.ours.stderr {
        parts.push(Stderr);
    }
    parts
}
