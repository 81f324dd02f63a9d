//! What Debian's daemon cannot be: 2.x, 3.x, NSClient++, peers that answer nonsense, and nobody at all.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use satellite::probe::Prober;
pub(crate) use tests::daemon::Transport;
use tests::daemon::answers::Command;
use tests::daemon::script::Act;
use tests::daemon::{Daemon, Spec, wire};
use tests::nrpe::free_port;
use tokio::runtime::Runtime;

use super::Book;
use super::way::Way;

/// What every daemon here can be asked.
const ASKED: &[&str] = &[
    "ok",
    "warning",
    "critical",
    "unknown",
    "long",
    "multi",
    "ninety_nine",
    "empty",
    "hang",
    "_NRPE_CHECK",
    "not_defined",
    "ok;reboot",
    "echo!one!two",
    "echo!!two!",
    "echo!a!b!c!d!e!f!g!h!i!j!k!l!m!n!o!p!q",
    "echo!white space !\"$HOME\"",
    "echo!$(id)",
    "echo!a;b",
];

/// Enough to see that a fixed version makes no difference.
const FEW: &[&str] = &["ok", "critical", "long", "empty", "not_defined"];

fn spec(host: &str, transport: Transport, versions: &[u16]) -> Spec {
    let mut spec = Spec::new(host, transport).speaking(versions);
    let mut add = |name: &str, command: Command| spec.commands.insert(name.to_owned(), command.unnumbered());
    add("ok", Command::fixed(0, "OK - fine|time=0.5s"));
    add("warning", Command::fixed(1, "WARNING - warm"));
    add("critical", Command::fixed(2, "CRITICAL - hot"));
    add("unknown", Command::fixed(3, "UNKNOWN - who knows"));
    add("long", Command::fixed(1, &"x".repeat(5000)));
    add("multi", Command::fixed(2, "first|a=1\nsecond\nthird|b=2"));
    add("ninety_nine", Command::fixed(99, "no state"));
    add("empty", Command::fixed(0, ""));
    add("hang", Command::fixed(0, "late").taking(Duration::from_secs(4)));
    add("echo", Command::fixed(1, "$ARG1$, $ARG2$, $ARG16$|a=1"));
    // As with `dont_blame_nrpe`, which Debian's daemon cannot honour.
    spec.arguments = true;
    spec
}

/// Daemons of every version and NSClient++, spoken to so.
pub(crate) fn daemons(transport: Transport) -> Book {
    let runtime = Runtime::new().unwrap();
    let mut book = Book::default();
    let start = |spec: Spec| runtime.block_on(Daemon::start(spec, None, None)).unwrap();
    let way = |name: &str, address: SocketAddr| match transport {
        Transport::Plain => Way::plain(name, address).noisy(),
        Transport::Anonymous | Transport::Adh => Way::anonymous(name, address).noisy(),
    };
    for (name, versions) in [("2.x", &[2][..]), ("3.x", &[2, 3]), ("4.x", &[2, 4])] {
        let daemon = start(spec(name, transport, versions));
        let found_out = way(&format!("{name} {transport:?}"), daemon.address);
        book.ask(&Prober::new().unwrap(), &found_out, ASKED);
        book.ask(&Prober::new().unwrap(), &found_out.clone().version(2), FEW);
        if versions.contains(&3) {
            book.ask(&Prober::new().unwrap(), &found_out.version(3), FEW);
        }
    }
    for payload in [1024, 4096] {
        let mut windows = spec("windows", transport, &[2]);
        windows.nsclient_payload = Some(payload);
        let daemon = start(windows);
        let way = way(&format!("NSClient++ {payload} {transport:?}"), daemon.address);
        // Whoever sets another payload must tell check_nrpe, and cannot leave the version to it; we find both out.
        let way = if payload == 1024 { way } else { way.options(&["-2", "-P", &payload.to_string()]) };
        let asked = if payload == 1024 { ASKED } else { &["ok"] };
        book.ask(&Prober::new().unwrap(), &way, asked);
    }
    book
}

/// Who is no daemon, and nobody.
pub(crate) fn strangers() -> Book {
    let runtime = Runtime::new().unwrap();
    let mut book = Book::default();
    nonsense(&runtime, &mut book);
    nobody(&mut book);
    book
}

/// Peers that are no daemons.
fn nonsense(runtime: &Runtime, book: &mut Book) {
    let mut wrong_checksum = wire::answer(2, 0, b"OK - believe me");
    wrong_checksum[5] ^= 1;
    let http = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_vec();
    for (name, bytes) in [("wrong checksum", wrong_checksum), ("a web server", http)] {
        let peer = runtime.block_on(Daemon::scripted(vec![Act::Read(1036), Act::Send(bytes)])).unwrap();
        let plain = Way::plain(name, peer.address).noisy();
        book.ask(&Prober::new().unwrap(), &plain, &["ok"]);
        book.ask(&Prober::new().unwrap(), &plain.unknown_on_error(), &["ok"]);
    }
    let silent = runtime.block_on(Daemon::scripted(vec![Act::Hang])).unwrap();
    for way in [Way::plain("silent", silent.address), Way::anonymous("silent", silent.address)] {
        book.ask(&Prober::new().unwrap(), &way, &["hang"]);
        book.ask(&Prober::new().unwrap(), &way.unknown_on_error(), &["hang"]);
    }
}

/// Nobody listens, and nobody has the name.
fn nobody(book: &mut Book) {
    let closed = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port(Ipv4Addr::LOCALHOST).unwrap()));
    for way in [Way::plain("closed port", closed), Way::anonymous("closed port", closed)] {
        book.ask(&Prober::new().unwrap(), &way, &["ok"]);
        book.ask(&Prober::new().unwrap(), &way.unknown_on_error(), &["ok"]);
    }
    let nameless = Way::anonymous("no such name", closed).host("no-such-host.invalid");
    book.ask(&Prober::new().unwrap(), &nameless, &["ok"]);
}
