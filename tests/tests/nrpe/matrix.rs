//! Every mode in which NRPE daemons are found, every kind of answer, asked by Debian's `check_nrpe` and by us: the state is the same.
//! Ours is that of an imported check, which takes CRITICAL where the daemon cannot be asked, as `check_nrpe` does by itself; and
//! that of `perigee-satellite check-nrpe`, given the same options.
//!
//! Where we differ on purpose [`EXEMPT`] names the class of the error or the option that is the reason, never a single case; what is
//! exempted and does not occur fails the test, and so does a difference of another kind.

mod peers;
mod way;

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use satellite::probe::Prober;
use shared::check::{Exit, Outcome, State};
use shared::perfdata::split_output;
use tests::figure::figure;
use tests::nrpe::inetd::Inetd;
use tests::nrpe::mode::{Keys, Mode};
use tests::nrpe::setup::Setup;
use tests::nrpe::{RealNrpe, Said, Transport, installed};
use tests::pki::Pki;

use self::way::Way;
use crate::scene::said_by_daemon;

/// What the daemon allows a command, in seconds.
const COMMAND_TIMEOUT: u64 = 3;
/// What the clients allow.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(20);
/// What the clients allow for `hang`: less than the daemon does.
const IMPATIENCE: Duration = Duration::from_secs(1);
/// Modes asked at the same time: each has a daemon and two clients.
const AT_ONCE: usize = 6;

/// Commands of the daemon: name, command line (`$$` is one `$`).
const COMMANDS: &[(&str, &str)] = &[
    ("ok", r"/usr/bin/printf 'OK - fine|time=0.5s;1;2;0;10\n'"),
    ("warning", "/bin/sh -c 'echo WARNING - warm; exit 1'"),
    ("critical", "/bin/sh -c 'echo \"CRITICAL - hot | temp=90C;70;80\"; exit 2'"),
    ("unknown", "/bin/sh -c 'echo UNKNOWN - who knows; exit 3'"),
    ("exit4", "/bin/sh -c 'echo four; exit 4'"),
    ("exit255", "/bin/sh -c 'echo minus one; exit 255'"),
    ("multi", r"/usr/bin/printf 'OK first|a=1\nline2\nline3|b=2\nc=3\n'"),
    ("perf", r#"/usr/bin/printf "OK|'/var/lib'=12MB;80;90;0;100 'a b'=1.5%%;;;; rta=0.3ms;100,0;500 up=1c\n""#),
    ("none", "/bin/true"),
    ("missing_binary", "/nonexistent/check_nothing -w 1"),
    ("killed", "/bin/sh -c 'echo x; kill -9 $$$$'"),
    ("terminated", "/bin/sh -c 'echo x; kill -15 $$$$'"),
    ("exit127", "/bin/sh -c 'echo not found; exit 127'"),
    ("blank", r"/usr/bin/printf '\n'"),
    ("blank_first", r"/usr/bin/printf '\n\nthird|a=1\n'"),
    ("nul", r"/usr/bin/printf 'before\0after\n'"),
    ("nul_first", r"/usr/bin/printf '\0after\n'"),
    ("binary", r"/bin/sh -c 'head -c 3000 /usr/sbin/nrpe; exit 1'"),
    ("leaves_one_behind", "/bin/sh -c 'echo started; sleep 1 >/dev/null & exit 2'"),
    ("latin1", r"/usr/bin/printf 'caf\351 OK\n'"),
    ("long", r"/bin/sh -c 'head -c 20000 /dev/zero | tr \\0 B; exit 1'"),
    ("huge", r"/bin/sh -c 'head -c 70000 /dev/zero | tr \\0 C; exit 2'"),
    ("slow", "/bin/sh -c 'exec sleep 60'"),
    ("hang", "/bin/sh -c 'exec sleep 4'"),
];
/// Requests besides: the daemon's own, an unknown command, arguments and characters that it refuses.
const REQUESTS: &[&str] = &["_NRPE_CHECK", "not_defined", "ok!with!arguments", "ok;reboot", "ok!$(id)"];
/// Enough to see how a way that is not the usual one ends.
const FEW: &[&str] = &["ok", "critical", "not_defined", "ok;reboot"];

/// What a difference rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reason {
    /// Our class of error, or the beginning of its name.
    Class(&'static str),
    /// An option of `check_nrpe`, and our class of error (or the beginning of its name) where it is given.
    Option(&'static str, &'static str),
}

/// Where we differ from `check_nrpe` on purpose: what it rests on, its states, ours, why.
const EXEMPT: &[(Reason, &[State], State, &str)] = &[
    (
        Reason::Class("request-refused"),
        &[State::Unknown],
        State::Critical,
        "check_nrpe ends with UNKNOWN after a close without an answer, whatever state it was given for transport errors",
    ),
    (
        Reason::Class("eof-before-response"),
        &[State::Unknown],
        State::Critical,
        "the same, where the request gives reasons enough for a close and nobody asks further",
    ),
    (
        Reason::Class("refused-here"),
        &[State::Unknown],
        State::Critical,
        "the same, when the daemon closes because it does not know our address, or wants TLS",
    ),
    (
        Reason::Class("tls-client-certificate"),
        &[State::Unknown],
        State::Critical,
        "the same: in TLS 1.3 a missing or foreign client certificate is told after the handshake",
    ),
    (
        Reason::Class("protocol"),
        &[State::Unknown],
        State::Critical,
        "the same after an answer that is none: what answers there is no NRPE daemon, so this is a transport error",
    ),
    (
        Reason::Class("dns"),
        &[State::Warning],
        State::Critical,
        "check_nrpe ends with 1, WARNING, when a name cannot be resolved",
    ),
    (
        Reason::Class("empty-answer"),
        &[State::Ok],
        State::Unknown,
        "check_nrpe takes the code of an answer without any text; no words at all are no result",
    ),
    (
        Reason::Option("-A", "tls-alert-40"),
        &[State::Ok, State::Unknown],
        State::Critical,
        "check_nrpe was told whom to trust and believes an anonymous daemon all the same",
    ),
    (
        Reason::Option("-A", "tls-alert-70"),
        &[State::Ok, State::Unknown],
        State::Critical,
        "the same of a daemon that proves itself in a protocol that proves nothing any more: TLS 1.0 and 1.1",
    ),
    (
        Reason::Option("-P", "answer"),
        &[State::Unknown],
        State::Ok,
        "check_nrpe does not read the last two bytes of such a packet, and takes the checksum for wrong unless they are zero",
    ),
];

/// The same of `perigee-satellite check-nrpe`, which is told everything by options and so has fewer reasons to differ.
const EXEMPT_INSTEAD: &[(Reason, &[State], State, &str)] = &[
    (
        Reason::Class("tls-client-certificate"),
        &[State::Unknown],
        State::Critical,
        "a client certificate that is missing or foreign fails the handshake, also where TLS 1.3 tells it only afterwards",
    ),
    (
        Reason::Class("dns"),
        &[State::Warning],
        State::Critical,
        "a name without an address is a host that cannot be reached",
    ),
    (Reason::Class("empty-answer"), &[State::Ok], State::Unknown, "no words at all are no result"),
    (
        Reason::Option("-A", "tls-alert-40"),
        &[State::Ok, State::Unknown],
        State::Critical,
        "nobody is believed without a certificate",
    ),
    (Reason::Option("-A", "tls-alert-70"), &[State::Ok, State::Unknown], State::Critical, "nobody before TLS 1.2"),
    (Reason::Option("-P", "answer"), &[State::Unknown], State::Ok, "the packet is read to its end"),
];

/// What was compared, and what came of it.

#[derive(Debug, Default)]
struct Book {
    compared: usize,
    used: BTreeSet<(&'static str, Reason)>,
    exempt: usize,
    wrong: Vec<String>,
}

impl Book {
    fn judge(&mut self, way: &Way, request: &str, theirs: &Said, ours: &Outcome) {
        self.compared += 1;
        let (their_state, class) = (State::of_exit(theirs.status), class_of(ours));
        let mut wrong = |what: &str| {
            let theirs = (theirs.status, shown(&theirs.stdout).chars().take(200).collect::<String>(), &theirs.stderr);
            self.wrong.push(format!("{way}, {request}: {what}\n  theirs {theirs:?}\n  ours {class}: {ours:?}"));
        };
        let answered = matches!(ours.exit, Exit::Ran(_));
        if answered && ours.authenticated != Some(way.proven) || !answered && ours.authenticated.is_some() {
            wrong("authenticated");
        }
        if their_state == ours.state {
            let expected = split_output(&shown(&theirs.stdout));
            let verbatim = answered && way.verbatim;
            if verbatim && said_by_daemon(request, &ours.output) != expected.output {
                wrong("the text");
            }
            if verbatim && ours.perfdata != expected.perfdata {
                wrong("the performance data");
            }
            if verbatim && ours.exit != Exit::Ran(theirs.status) {
                wrong("the code");
            }
            return;
        }
        match exemption(EXEMPT, way, &class, their_state, ours.state) {
            Some(reason) => {
                self.used.insert(("check", reason));
                self.exempt += 1;
            }
            None => wrong("the state"),
        }
    }

    /// The same for `check-nrpe`, whose exit code is what counts; `class` is what happened to our check.
    fn judge_instead(&mut self, way: &Way, request: &str, theirs: &Said, ours: &Said, class: &str) {
        self.compared += 1;
        let (their_state, our_state) = (State::of_exit(theirs.status), State::of_exit(ours.status));
        if their_state == our_state {
            return;
        }
        match exemption(EXEMPT_INSTEAD, way, class, their_state, our_state) {
            Some(reason) => {
                self.used.insert(("check-nrpe", reason));
                self.exempt += 1;
            }
            None => self.wrong.push(format!(
                "{way}, {request}: check-nrpe's exit code ({class})\n  theirs {theirs:?}\n  ours {ours:?}"
            )),
        }
    }

    fn add(&mut self, other: Self) {
        self.compared += other.compared;
        self.used.extend(other.used);
        self.exempt += other.exempt;
        self.wrong.extend(other.wrong);
    }

    /// Asks in this way by both clients.
    fn ask(&mut self, prober: &Prober, way: &Way, requests: &[&str]) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for request in requests {
            let limit = if *request == "hang" { IMPATIENCE } else { CLIENT_TIMEOUT };
            let theirs = way.theirs(request, limit);
            let ours = runtime.block_on(prober.probe(request, &way.check(request), limit));
            self.judge(way, request, &theirs, &ours);
            let instead = way.instead(request, limit);
            self.judge_instead(way, request, &theirs, &instead, &class_of(&ours));
        }
    }
}

/// What a difference rests on, if it may be.
fn exemption(
    table: &[(Reason, &[State], State, &str)],
    way: &Way,
    class: &str,
    theirs: State,
    ours: State,
) -> Option<Reason> {
    let exemption = table.iter().find(|(reason, states, state, _)| {
        let applies = match reason {
            Reason::Class(name) => class.starts_with(name),
            Reason::Option(option, name) => class.starts_with(name) && way.options.iter().any(|given| given == option),
        };
        applies && states.contains(&theirs) && *state == ours
    });
    exemption.map(|(reason, ..)| *reason)
}

/// The name of what happened to us.
fn class_of(ours: &Outcome) -> String {
    match &ours.exit {
        Exit::Error(class) => class.clone(),
        Exit::TimedOut => "answer-timeout".to_owned(),
        Exit::Ran(_) if ours.output.contains("without any text") => "empty-answer".to_owned(),
        Exit::Ran(_) | Exit::Signal(_) => "answer".to_owned(),
    }
}

/// What is shown of a text: as Perigee keeps it.
fn shown(text: &[u8]) -> String {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    String::from_utf8_lossy(text).chars().filter(|char| !char.is_control() || matches!(char, '\n' | '\t')).collect()
}

fn settings() -> String {
    format!("command_timeout={COMMAND_TIMEOUT}\n")
}

/// All requests; what takes its time only where `patient`.
fn everything(patient: bool) -> Vec<&'static str> {
    let commands = COMMANDS.iter().map(|(name, _)| *name).filter(|name| patient || !["slow", "hang"].contains(name));
    commands.chain(REQUESTS.iter().copied()).collect()
}

/// Settings of a daemon without a certificate that are not usual, and are met.
const UNUSUAL: &[(&str, &str)] = &[
    ("nothing is encrypted", "ssl_cipher_list=AECDH-NULL-SHA:@SECLEVEL=0\n"),
    ("one suite", "ssl_cipher_list=ADH-AES128-SHA:@SECLEVEL=0\n"),
    ("no suite of anybody's", "ssl_cipher_list=PSK:@SECLEVEL=0\n"),
    ("no ADH", "ssl_use_adh=0\n"),
    ("TLS 1.1", "ssl_version=TLSv1.1\n"),
    ("TLS 1.3, which needs a certificate", "ssl_version=TLSv1.3\n"),
];
/// The same of one with a certificate.
const UNUSUAL_WITH_CERTIFICATE: &[(&str, &str)] = &[
    ("TLS 1.0, certificate", "ssl_version=TLSv1\n"),
    ("TLS 1.2, certificate", "ssl_version=TLSv1.2\n"),
    ("TLS 1.3, certificate", "ssl_version=TLSv1.3\n"),
    ("a suite that its key cannot do, certificate", "ssl_version=TLSv1.2\nssl_cipher_list=AES256-SHA:@SECLEVEL=0\n"),
    ("ADH forced, certificate", "ssl_use_adh=2\n"),
    ("ADH forced up to TLS 1.2, certificate", "ssl_use_adh=2\nssl_version=TLSv1.2\n"),
];

/// What is set in no mode: whoever is asked anonymously, and by those who want proof.
fn unusual(pki: &Pki) -> Book {
    let mut book = Book::default();
    let keys = Keys::from(pki);
    let certificate = |settings: &str| format!("{}{settings}", keys.settings());
    let bare = UNUSUAL.iter().map(|(name, settings)| (*name, (*settings).to_owned()));
    let clients = format!("ssl_cacert_file={}\nssl_client_certs=2\n", keys.ca.display());
    let bare = bare.chain([("client certificates, and none of its own", clients)]);
    let certified = UNUSUAL_WITH_CERTIFICATE.iter().map(|(name, settings)| (*name, certificate(settings)));
    for (name, settings) in bare.chain(certified) {
        let daemon = RealNrpe::start(Transport::Anonymous, COMMANDS, &settings).unwrap();
        let prober = Prober::new().unwrap();
        // Twice: the second time something has been learned.
        for _ in 0..2 {
            book.ask(&prober, &Way::anonymous(name, daemon.address), FEW);
            book.ask(&prober, &Way::verified(name, daemon.address, pki, None), FEW);
        }
    }
    book
}

/// One mode: everything in the way that suits it, and a few requests in ways that are usual mistakes.
fn in_mode(mode: Mode, pki: &Pki) -> Book {
    let mut book = Book::default();
    let prober = Prober::new().unwrap();
    let daemon = RealNrpe::in_mode(mode, &Keys::from(pki), COMMANDS, &settings()).unwrap();
    let suitable = Way::of(mode, daemon.address, pki);
    if mode == Mode::NotAllowed {
        book.ask(&prober, &suitable, FEW);
        let setup = Setup { allowed_hosts: "127.0.0.9".to_owned(), ..plain_setup() };
        let plain = RealNrpe::on_a_free_port(setup).unwrap();
        book.ask(&prober, &Way::plain("not allowed, plain", plain.address), FEW);
        return book;
    }
    // Timeouts are the same in every kind of TLS.
    let patient = matches!(mode, Mode::Plain | Mode::Anonymous | Mode::OldProtocol | Mode::Certificate);
    book.ask(&prober, &suitable, &everything(patient));
    book.ask(&prober, &suitable.clone().version(2), FEW);
    match mode {
        Mode::Plain => book.ask(&prober, &Way::anonymous("TLS to plain", daemon.address), FEW),
        Mode::Anonymous => {
            book.ask(&prober, &Way::plain("plain to TLS", daemon.address), FEW);
            book.ask(&prober, &Way::plain("plain to TLS", daemon.address).unknown_on_error(), FEW);
            book.ask(&prober, &Way::verified("a CA for an anonymous daemon", daemon.address, pki, None), FEW);
        }
        Mode::Certificate | Mode::CertificateOrAnonymous | Mode::NoAnonymous => {
            book.ask(&prober, &Way::anonymous("a certificate unasked", daemon.address), FEW);
            book.ask(&prober, &Way::foreign("a CA that is another's", daemon.address, pki), FEW);
        }
        Mode::OptionalClient | Mode::RequiredClient => {
            book.ask(&prober, &Way::anonymous("no client certificate", daemon.address), FEW);
            book.ask(&prober, &Way::anonymous("the same with -u", daemon.address).unknown_on_error(), FEW);
            let foreign = Way::verified("a foreign client", daemon.address, pki, Some(&pki.foreign_client));
            book.ask(&prober, &foreign, FEW);
        }
        _ => {}
    }
    book
}

fn plain_setup() -> Setup {
    Setup::new(([127, 0, 0, 1], 0).into(), Transport::Plain, COMMANDS, &settings())
}

/// One process a connection, as inetd has it.
fn behind_inetd(transport: Transport) -> Book {
    let mut book = Book::default();
    let prober = Prober::new().unwrap();
    let inetd = Inetd::start(transport, COMMANDS, &settings()).unwrap();
    let way = match transport {
        Transport::Plain => Way::plain("inetd, plain", inetd.address),
        Transport::Anonymous => Way::anonymous("inetd", inetd.address),
    };
    book.ask(&prober, &way, &everything(transport == Transport::Plain));
    assert_eq!(prober.nrpe().counters().handshakes_resumed(), 0, "every process has its own keys: {}", inetd.log());
    book
}

#[test]
fn no_state_differs_from_check_nrpes_in_any_mode() {
    if !installed() {
        return;
    }
    let pki = Pki::new().unwrap();
    let mut jobs: Vec<(String, Box<dyn Fn() -> Book + Send + Sync + '_>)> = Vec::new();
    for mode in Mode::ALL {
        let pki = &pki;
        jobs.push((format!("{mode:?}"), Box::new(move || in_mode(mode, pki))));
    }
    jobs.push(("inetd".to_owned(), Box::new(|| behind_inetd(Transport::Anonymous))));
    jobs.push(("inetd, plain".to_owned(), Box::new(|| behind_inetd(Transport::Plain))));
    jobs.push(("unusual settings".to_owned(), Box::new(|| unusual(&pki))));
    for transport in [peers::Transport::Plain, peers::Transport::Anonymous, peers::Transport::Adh] {
        jobs.push((format!("others, {transport:?}"), Box::new(move || peers::daemons(transport))));
    }
    jobs.push(("strangers".to_owned(), Box::new(peers::strangers)));
    let mut book = Book::default();
    for jobs in jobs.chunks(AT_ONCE) {
        thread::scope(|scope| {
            let running: Vec<_> = jobs.iter().map(|(name, job)| (name, scope.spawn(job))).collect();
            for (name, job) in running {
                book.add(job.join().unwrap_or_else(|_| panic!("{name} could not be compared to the end")));
            }
        });
    }
    assert!(book.wrong.is_empty(), "{} of {} differ:\n{}", book.wrong.len(), book.compared, book.wrong.join("\n"));
    let unused: Vec<_> = [("check", EXEMPT), ("check-nrpe", EXEMPT_INSTEAD)]
        .iter()
        .flat_map(|(of, table)| table.iter().map(move |(reason, ..)| (*of, *reason)))
        .filter(|exempt| !book.used.contains(exempt))
        .collect();
    assert!(unused.is_empty(), "exempted, and never needed: {unused:#?}");
    assert!(book.compared > Mode::ALL.len() * COMMANDS.len(), "{} compared", book.compared);
    figure(
        9,
        &format!(
            "{} modes, inetd and fakes for 2.x, 3.x and NSClient++: {} states of checks and of check-nrpe compared with check_nrpe's, \
             0 differ, {} exempted by {} classes and options",
            Mode::ALL.len(),
            book.compared,
            book.exempt,
            EXEMPT.len() + EXEMPT_INSTEAD.len()
        ),
    );
}

/// A daemon that goes and comes back on its port, and one that reads other commands: no result is wrong, and tickets are renewed
/// where the keys are new and kept where they are not.
#[test]
fn results_stay_right_over_a_restart_and_a_reload() {
    if !installed() {
        return;
    }
    let pki = Pki::new().unwrap();
    for mode in [Mode::Plain, Mode::Anonymous, Mode::OldProtocol, Mode::Certificate, Mode::RequiredClient] {
        let (mut book, prober) = (Book::default(), Prober::new().unwrap());
        let mut daemon = RealNrpe::in_mode(mode, &Keys::from(&pki), COMMANDS, "").unwrap();
        let way = Way::of(mode, daemon.address, &pki);
        let few = ["ok", "critical", "warning", "not_defined"];
        // With client certificates a daemon can bear no ticket, and plain has none.
        let tickets = !matches!(mode, Mode::Plain | Mode::RequiredClient);
        let resumed = || prober.nrpe().counters().handshakes_resumed();
        book.ask(&prober, &way, &few);
        let before = resumed();
        assert_eq!(before > 0, tickets, "{mode:?}: {before} resumed");

        daemon.restart().unwrap();
        book.ask(&prober, &way, &few);
        book.ask(&prober, &way, &few);
        let restarted = resumed();
        assert_eq!(restarted > before, tickets, "{mode:?}: {before} resumed, then {restarted}: renewed");

        let full = prober.nrpe().counters().handshakes_full();
        daemon.reload(&[("ok", "/bin/sh -c 'echo not any more; exit 2'"), ("new", "/bin/echo OK - new")]).unwrap();
        book.ask(&prober, &way, &["ok", "new", "critical"]);
        if tickets {
            assert_eq!(prober.nrpe().counters().handshakes_full(), full, "{mode:?}: a reload keeps the keys");
            assert_eq!(resumed(), restarted + 3, "{mode:?}");
        }
        assert!(book.wrong.is_empty(), "{mode:?}: {}", book.wrong.join("\n"));
        assert_eq!((book.exempt, book.compared), (0, 2 * 15), "{mode:?}: {book:?}");
    }
}
