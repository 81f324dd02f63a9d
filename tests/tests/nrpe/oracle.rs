//! Debian's daemon asked by `check_nrpe` and by us, command by command, plain and over anonymous TLS: code and bytes must be the
//! same, and so must the state, text and performance data that Perigee makes of them.
//!
//! Where we differ on purpose there is a row in [`EXEMPT`] with the class of the fault and the reason; a row that is not needed
//! fails the test too.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use satellite::probe::Prober;
use satellite::probe::nrpe::Client;
use shared::check::{Exit, State};
use shared::perfdata::split_output;
use tests::figure::figure;
use tests::nrpe::{RealNrpe, Said, Transport, installed};

use crate::scene::{check, query, said_by_daemon};

/// Commands of the daemon: name, command line as its configuration has it (`$$` is one `$`).
const COMMANDS: &[(&str, &str)] = &[
    ("ok", r"/usr/bin/printf 'OK - fine|time=0.5s;1;2;0;10\n'"),
    ("warning", "/bin/sh -c 'echo WARNING - warm; exit 1'"),
    ("critical", "/bin/sh -c 'echo \"CRITICAL - hot | temp=90C;70;80\"; exit 2'"),
    ("unknown", "/bin/sh -c 'echo UNKNOWN - who knows; exit 3'"),
    ("exit4", "/bin/sh -c 'echo four; exit 4'"),
    ("exit77", "/bin/sh -c 'echo odd; exit 77'"),
    ("exit255", "/bin/sh -c 'echo minus one; exit 255'"),
    ("multi", r"/usr/bin/printf 'OK first|a=1\nline2\nline3|b=2\nc=3\n'"),
    ("perf", r#"/usr/bin/printf "OK|'/var/lib'=12MB;80;90;0;100 'a b'=1.5%%;;;; rta=0.3ms;100,0;500 up=1c\n""#),
    ("pipes", r"/usr/bin/printf 'a | b | c=1\n'"),
    ("none", "/bin/true"),
    ("none_critical", "/bin/sh -c 'exit 2'"),
    ("stderr_only", "/bin/sh -c 'echo nobody reads this >&2; exit 1'"),
    ("missing_binary", "/nonexistent/check_nothing -w 1"),
    ("killed", "/bin/sh -c 'echo x; kill -9 $$$$'"),
    ("latin1", r"/usr/bin/printf 'caf\351 OK\n'"),
    ("utf8", r"/usr/bin/printf 'Größe – 5 µs|größe=5us\n'"),
    ("control", r"/usr/bin/printf 'a\033[31mred\033[0m\a\tb\r\n'"),
    ("blank_first", r"/usr/bin/printf '\nsecond line\n'"),
    ("many_newlines", r"/usr/bin/printf 'OK\n\n\n'"),
    ("no_newline", "/usr/bin/printf 'OK without end'"),
    ("spaces", r"/usr/bin/printf '   OK - padded   \n'"),
    ("kilobyte", r"/bin/sh -c 'head -c 1500 /dev/zero | tr \\0 A'"),
    ("long", r"/bin/sh -c 'head -c 20000 /dev/zero | tr \\0 B; exit 1'"),
    ("huge", r"/bin/sh -c 'head -c 70000 /dev/zero | tr \\0 C; exit 2'"),
    ("nul", r"/usr/bin/printf 'before\0after\n'"),
    ("slow", "/bin/sh -c 'exec sleep 60'"),
];

/// Requests besides the daemon's own commands.
const REQUESTS: &[&str] = &["_NRPE_CHECK", "not_defined", "ok!with!arguments", "ok;reboot", "ok$(id)", "hang"];

/// A command that ends neither by itself nor by the daemon: the client gives up first.
const HANG: (&str, &str) = ("hang", "/bin/sh -c 'exec sleep 8'");
/// What the daemon allows a command.
const COMMAND_TIMEOUT: u64 = 3;
/// What the clients allow.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(20);
/// What the clients allow for [`HANG`]: less than the daemon does.
const IMPATIENCE: Duration = Duration::from_secs(1);

/// Where we differ from `check_nrpe` on purpose: our class of fault, reason.
const EXEMPT: &[(&str, &str)] = &[
    (
        "request-refused",
        "check_nrpe prints `Receive header underflow - only 0 bytes received`, twice; we say that the daemon closed, and why",
    ),
    (
        "answer-timeout",
        "check_nrpe's default is CRITICAL and names no phase; our default is UNKNOWN, with check_nrpe's sentence at hand",
    ),
];

/// What a client made of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Made {
    status: i32,
    text: Vec<u8>,
}

fn of_check_nrpe(said: &Said) -> Made {
    // It prints the daemon's text with `printf("%s\n")`.
    let text = said.stdout.strip_suffix(b"\n").unwrap_or(&said.stdout).to_vec();
    Made { status: said.status, text }
}

/// What is shown of a text: as Perigee keeps it.
fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().filter(|char| !char.is_control() || matches!(char, '\n' | '\t')).collect()
}

async fn compare(transport: Transport) -> usize {
    let tls = transport == Transport::Anonymous;
    let commands: Vec<_> = COMMANDS.iter().copied().chain([HANG]).collect();
    let daemon = RealNrpe::start(transport, &commands, &format!("command_timeout={COMMAND_TIMEOUT}\n")).unwrap();
    let client = Client::new().unwrap();
    let prober = Prober::new().unwrap();
    let mut needed = BTreeSet::new();
    let mut equal = 0;
    let requests = COMMANDS.iter().map(|(name, _)| *name).chain(REQUESTS.iter().copied());
    for request in requests {
        let limit = if request == HANG.0 { IMPATIENCE } else { CLIENT_TIMEOUT };
        let theirs = of_check_nrpe(&daemon.check_nrpe(request, limit, &[]).unwrap());
        let asked = client.ask(&query(daemon.address, tls, request), limit).await;
        let outcome = prober.probe(request, &check(daemon.address, tls, request), limit).await;
        if let Err(fault) = asked {
            let exempt = EXEMPT.iter().find(|(class, _)| fault.kind() == *class);
            let (class, _) = exempt.unwrap_or_else(|| panic!("{request}: {fault}"));
            assert_eq!(outcome.state, State::Unknown, "{request}");
            assert!(!outcome.output.is_empty() && !outcome.output.contains("CHECK_NRPE"), "{request}: {outcome:?}");
            let same = State::of_exit(theirs.status) == outcome.state && shown(&theirs.text) == outcome.output;
            assert!(!same, "{request}: nothing differs, the exemption is not needed");
            let legacy = fault.legacy("CRITICAL");
            let beside = format!("check_nrpe says: {}", fault.legacy("UNKNOWN"));
            assert!(outcome.long_output.ends_with(&beside), "{request}: {outcome:?}");
            assert!(
                shown(&theirs.text).contains(&legacy),
                "{request}: {legacy:?} is not what check_nrpe says: {theirs:?}"
            );
            needed.insert(*class);
            continue;
        }
        let reply = asked.expect("no fault");
        let ours = Made { status: i32::from(reply.answer.code), text: reply.answer.text };
        assert_eq!(ours, theirs, "{request} ({transport:?}): left ours, right check_nrpe's");
        let expected = split_output(&shown(&theirs.text));
        assert_eq!(
            (
                outcome.state,
                said_by_daemon(request, &outcome.output),
                &outcome.long_output,
                &outcome.perfdata,
                &outcome.exit
            ),
            (
                State::of_exit(theirs.status),
                expected.output.as_str(),
                &expected.long_output,
                &expected.perfdata,
                &Exit::Ran(theirs.status)
            ),
            "{request} ({transport:?})"
        );
        equal += 1;
    }
    assert_eq!(needed.len(), EXEMPT.len(), "exempted, and never needed: {EXEMPT:?} but for {needed:?}");
    equal
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_answers_are_those_of_check_nrpe() {
    if installed() {
        let equal = compare(Transport::Plain).await;
        assert!(equal >= 20, "{equal} commands compared");
        figure(2, &format!("{equal} commands equal over plain"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_over_anonymous_tls_are_those_of_check_nrpe() {
    if installed() {
        let equal = compare(Transport::Anonymous).await;
        assert!(equal >= 20, "{equal} commands compared");
        figure(2, &format!("{equal} commands equal over anonymous TLS"));
    }
}

/// The table above proves nothing if the daemon gave the same answer to everything.
#[tokio::test]
async fn the_commands_show_every_state_and_the_longest_output() {
    if !installed() {
        return;
    }
    let daemon = RealNrpe::start(Transport::Plain, COMMANDS, &format!("command_timeout={COMMAND_TIMEOUT}\n")).unwrap();
    let prober = Prober::new().unwrap();
    let mut states = BTreeMap::new();
    for (name, _) in COMMANDS {
        let outcome = prober.probe(name, &check(daemon.address, false, name), CLIENT_TIMEOUT).await;
        states.insert(*name, (outcome.state, outcome.output.len(), outcome.output));
    }
    let state = |name: &str| states[name].0;
    assert_eq!(state("ok"), State::Ok);
    assert_eq!(state("warning"), State::Warning);
    assert_eq!(state("critical"), State::Critical);
    for name in ["unknown", "exit4", "exit77", "exit255", "none", "none_critical", "killed", "slow", "missing_binary"] {
        assert_eq!(state(name), State::Unknown, "{name}: {:?}", states[name].2);
    }
    // nrpe reads a pipe of 64 KiB after the plugin has ended, 2047 bytes at a time: more than 32 of them it never sees.
    assert_eq!(states["huge"].1, 32 * 2047);
    assert_eq!(states["long"].1, 20_000);
    assert!(states["slow"].2.contains("timed out after 3 seconds"), "{:?}", states["slow"].2);
}
