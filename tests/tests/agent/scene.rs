//! Both daemons side by side, and the comparison: exit code, standard output and standard error of `check_nrpe` must be equal.
//!
//! The surprise is the second and third look at a difference: nrpe forks, and whether a client it refuses sees an end or a reset
//! can be a race that a busy machine loses. An answer that never comes out equal fails.

use std::time::Duration;

use tests::agent::Agent;
use tests::nrpe::mode::{Keys, Mode};
use tests::nrpe::{RealNrpe, Said, Transport, ask};
use tests::pki::Pki;

/// What the clients allow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// What the daemons allow a command.
pub(crate) const COMMAND_TIMEOUT: &str = "command_timeout=2\n";
/// How often two answers may differ by chance.
const LOOKS: usize = 3;

/// Commands of both: name, command line as nrpe.cfg has it (`$$` is one `$`).
pub(crate) const COMMANDS: &[(&str, &str)] = &[
    ("ok", r"/usr/bin/printf 'OK - fine|time=0.5s;1;2;0;10\n'"),
    ("warning", "/bin/sh -c 'echo WARNING - warm; exit 1'"),
    ("critical", "/bin/sh -c 'echo \"CRITICAL - hot | temp=90C;70;80\"; exit 2'"),
    ("unknown", "/bin/sh -c 'echo UNKNOWN - who knows; exit 3'"),
    ("exit4", "/bin/sh -c 'echo four; exit 4'"),
    ("exit77", "/bin/sh -c 'echo odd; exit 77'"),
    ("exit255", "/bin/sh -c 'echo minus one; exit 255'"),
    ("multi", r"/usr/bin/printf 'OK first|a=1\nline2\nline3|b=2\nc=3\n'"),
    ("pipe", "/bin/echo piped | /usr/bin/tr a-z A-Z"),
    ("none", "/bin/true"),
    ("none_critical", "/bin/sh -c 'exit 2'"),
    ("only_newline", "/bin/echo"),
    ("stderr_only", "/bin/sh -c 'echo nobody reads this >&2; exit 1'"),
    ("missing_binary", "/nonexistent/check_nothing -w 1"),
    ("syntax", "/bin/echo 'unbalanced"),
    ("killed", "/bin/sh -c 'echo x; kill -9 $$$$'"),
    ("shell_killed", "echo x; kill -9 $$$$"),
    ("latin1", r"/usr/bin/printf 'caf\351 OK\n'"),
    ("utf8", r"/usr/bin/printf 'Größe – 5 µs|größe=5us\n'"),
    ("control", r"/usr/bin/printf 'a\033[31mred\033[0m\a\tb\r\n'"),
    ("blank_first", r"/usr/bin/printf '\nsecond line\n'"),
    ("many_newlines", r"/usr/bin/printf 'OK\n\n\n'"),
    ("no_newline", "/usr/bin/printf 'OK without end'"),
    ("kilobyte", r"/bin/sh -c 'head -c 1500 /dev/zero | tr \\0 A'"),
    ("long", r"/bin/sh -c 'head -c 20000 /dev/zero | tr \\0 B; exit 1'"),
    ("huge", r"/bin/sh -c 'head -c 70000 /dev/zero | tr \\0 C; exit 2'"),
    ("nul", r"/usr/bin/printf 'before\0after\n'"),
    ("nul_first", r"/usr/bin/printf '\0after\n'"),
    (
        "nul_in_a_block",
        r#"/bin/sh -c 'head -c 2000 /dev/zero | tr "\\0" A; printf "\0B"; head -c 3000 /dev/zero | tr "\\0" C'"#,
    ),
    (
        "binary",
        r"/usr/bin/printf 'a\0b\377\200'; /usr/bin/head -c 3000 /dev/zero | /usr/bin/tr '\000' '\351'; /usr/bin/printf 'c\0d\n'",
    ),
    ("signed_macros", "/bin/echo [$ARG 1$] [$ARG+1$] [$ARG01$] [$ARG-1$] [$ARG$]"),
    ("macros", "/bin/echo $HOME x $USER$ a$ARG1$b$ARG99$c$ARGx$d"),
    ("dollars", "/bin/echo '$$' '$USER$' \"$$HOME\" '$'"),
    ("environment", "/usr/bin/env | /usr/bin/sort"),
    ("identity", "/usr/bin/id; /bin/pwd; umask"),
    ("input", "/bin/cat; echo read"),
    ("limits", "ulimit -a | /bin/grep -v core"),
    ("descriptors", "echo 4 >&4; echo 9 >&9; echo done"),
    ("language", "LANG=xx_YY; export LANG; echo ${LC_ALL-none} $LANG"),
    ("twice", "/bin/echo first"),
    ("twice", "/bin/echo second"),
    ("two words", "/bin/echo a name with a blank"),
    ("slow", "/bin/sh -c 'echo begun; exec sleep 60'"),
];

/// With TLS 1.3 a client has shaken hands before the daemon has looked at its certificate. Whether it then fails to write its query
/// or to read the answer is a race on its own side, against either daemon; both are the class "alert after the handshake".
const ALERT_AFTER_HANDSHAKE: [&str; 2] = [
    "CHECK_NRPE: Error sending query to host.\n",
    "CHECK_NRPE: Receive header underflow - only 0 bytes received (4 expected).\n",
];

/// A connection that is reset ends a client with these words, or, if it was about to write, by SIGPIPE without any.
fn met_a_reset(said: &Said) -> bool {
    let words = "CHECK_NRPE: Error - Could not connect to 127.0.0.1: Connection reset by peer\n";
    let silent = said.status == -1 && said.stdout.is_empty() && said.stderr.is_empty();
    silent || (said.status == 2 && said.stdout == words.as_bytes())
}

fn alike(said: &Said) -> Said {
    let mut said = said.clone();
    if said.status == 3 && ALERT_AFTER_HANDSHAKE.iter().any(|text| said.stdout == text.as_bytes()) {
        said.stdout = ALERT_AFTER_HANDSHAKE[1].into();
    }
    said
}

/// Debian's daemon and our agent, set up alike.
pub(crate) struct Pair {
    theirs: RealNrpe,
    ours: Agent,
    transport: Transport,
}

impl Pair {
    pub(crate) fn start(mode: Mode, pki: &Pki, settings: &str) -> Self {
        Self::with(mode, pki, COMMANDS, &format!("{COMMAND_TIMEOUT}{settings}"))
    }

    pub(crate) fn with(mode: Mode, pki: &Pki, commands: &[(&str, &str)], settings: &str) -> Self {
        let keys = Keys::from(pki);
        let readable = |path: &std::path::Path| {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
        };
        readable(&keys.key);
        Self {
            theirs: RealNrpe::in_mode(mode, &keys, commands, settings).unwrap(),
            ours: Agent::in_mode(mode, &keys, commands, settings).unwrap(),
            transport: mode.transport(),
        }
    }

    /// Asks both with these options, as to a daemon of their transport, and returns what both said.
    pub(crate) fn same(&self, request: &str, options: &[&str]) -> Said {
        self.same_over(self.transport, request, options)
    }

    /// The same over another transport than theirs.
    pub(crate) fn same_over(&self, transport: Transport, request: &str, options: &[&str]) -> Said {
        let mut seen = Vec::new();
        for _ in 0..LOOKS {
            let theirs = ask(self.theirs.address, transport, request, PATIENCE, options).unwrap();
            let ours = ask(self.ours.address, transport, request, PATIENCE, options).unwrap();
            if alike(&ours) == alike(&theirs) || (met_a_reset(&ours) && met_a_reset(&theirs)) {
                return ours;
            }
            let words =
                |said: &Said| format!("{} {:?} {:?}", said.status, String::from_utf8_lossy(&said.stdout), said.stderr);
            seen.push(format!("ours {}\ntheirs {}", words(&ours), words(&theirs)));
        }
        panic!("{request:?} {options:?}:\n{}\nour log: {}", seen.join("\n"), self.ours.log());
    }

    /// The agent.
    pub(crate) fn ours(&self) -> &Agent {
        &self.ours
    }

    /// The daemon.
    pub(crate) fn theirs(&self) -> &RealNrpe {
        &self.theirs
    }
}
