//! The dns probe against a name server of the tests' own, written byte by byte so that it shares no code with the product, and
//! with `check_dns` as the oracle where it is installed and the port of name servers may be used.
#![expect(clippy::disallowed_methods, reason = "a deadline that is kept can only be shown on the clock")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Instant;

use shared::check::network::{Agreement, Limits, RecordType};
use shared::check::{Check, DnsCheck, Exit, Outcome, State};
use tests::missing::missing;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};

use crate::scene::{KEPT, LIMIT, PATIENCE, plugin, probe};

const A: u16 = 1;
const CNAME: u16 = 5;
const MX: u16 = 15;
const TXT: u16 = 16;

/// Name of the question, and the bytes of the question section.
fn question(query: &[u8]) -> (String, &[u8]) {
    let mut at = 12;
    let mut labels = Vec::new();
    while query[at] != 0 {
        let length = usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..=at + length]).into_owned());
        at += length + 1;
    }
    (labels.join("."), &query[12..at + 5])
}

fn name(text: &str) -> Vec<u8> {
    let mut bytes: Vec<u8> = text
        .split('.')
        .flat_map(|label| [vec![u8::try_from(label.len()).unwrap()], label.as_bytes().to_vec()].concat())
        .collect();
    bytes.push(0);
    bytes
}

/// A record; its owner is the name of the question (a pointer) unless given.
fn record(owner: Option<&str>, kind: u16, data: &[u8]) -> Vec<u8> {
    let owner = owner.map_or(vec![0xc0, 12], name);
    let length = u16::try_from(data.len()).unwrap();
    [&owner, &kind.to_be_bytes()[..], &[0, 1, 0, 0, 0, 60], &length.to_be_bytes(), data].concat()
}

fn message(query: &[u8], flags: u16, records: &[Vec<u8>]) -> Vec<u8> {
    let (_, question) = question(query);
    let count = u16::try_from(records.len()).unwrap();
    let header = [&query[..2], &flags.to_be_bytes(), &[0, 1], &count.to_be_bytes(), &[0, 0, 0, 0]].concat();
    [header, question.to_vec(), records.concat()].concat()
}

const GOOD: u16 = 0x8180;

/// Whether a query has a record besides its question: EDNS.
fn is_extended(query: &[u8]) -> bool {
    query[10..12] != [0, 0]
}

/// What the server sends for a query, in order.
fn answers(query: &[u8], tcp: bool) -> Vec<Vec<u8>> {
    let (name_asked, _) = question(query);
    let a = |last: u8| record(None, A, &[192, 0, 2, last]);
    let good = |records: &[Vec<u8>]| vec![message(query, GOOD, records)];
    match name_asked.to_ascii_lowercase().as_str() {
        "one.test" | "tasks.shop_web.test" | "localhost" => good(&[a(1)]),
        "two.test" => good(&[a(2), a(1)]),
        "nx.test" => vec![message(query, GOOD | 3, &[])],
        "fail.test" => vec![message(query, GOOD | 2, &[])],
        "refused.test" => vec![message(query, GOOD | 5, &[])],
        "empty.test" => good(&[]),
        "alias.test" => good(&[record(None, CNAME, &name("real.test")), record(Some("real.test"), A, &[192, 0, 2, 7])]),
        "mail.test" => good(&[record(None, MX, &[vec![0, 10], name("mx.test")].concat())]),
        "text.test" => good(&[record(None, TXT, b"\x06v=spf1\x05 -all")]),
        "evil.test" => good(&[record(None, TXT, b"\x0cx\x1b[2J|a=1;\r\n")]),
        "cut.test" if !tcp => vec![message(query, GOOD | 0x0200, &[])],
        "cut.test" => good(&(0..200).map(a).collect::<Vec<_>>()),
        // Servers from before EDNS: one says so, one drops what it does not know.
        "old.test" if is_extended(query) => vec![message(query, GOOD | 1, &[])],
        "older.test" if is_extended(query) => Vec::new(),
        "old.test" | "older.test" => good(&[a(1)]),
        "half.test" if !tcp => {
            let mut half = message(query, GOOD | 0x0200, &[a(1), a(2)]);
            half.truncate(half.len() - 3);
            vec![half]
        }
        "half.test" => good(&[a(1), a(2)]),
        "always-cut.test" => vec![message(query, GOOD | 0x0200, &[])],
        "spoofed.test" => {
            let mut wrong = message(query, GOOD, &[a(66)]);
            wrong[0] ^= 0xff;
            vec![wrong, vec![1, 2, 3], message(query, GOOD, &[a(1)])]
        }
        "garbage.test" => vec![vec![0xff; 100]; 200],
        "short.test" => vec![message(query, GOOD, &[a(1)])[..20].to_vec()],
        "lies.test" => {
            let mut lying = message(query, GOOD, &[a(1)]);
            lying[6..8].copy_from_slice(&[0xff, 0xff]);
            vec![lying]
        }
        "pointers.test" => good(&[[vec![0xc0, 12 + 15], vec![0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 1, 2, 3, 4]].concat()]),
        _ => Vec::new(),
    }
}

/// A name server on both transports of one port.
async fn name_server(on: SocketAddr) -> std::io::Result<SocketAddr> {
    // A port that is free for UDP is usually free for TCP; if not, another one is tried.
    for _ in 0..20 {
        let udp = UdpSocket::bind(on).await?;
        let address = udp.local_addr()?;
        let Ok(tcp) = TcpListener::bind(address).await else { continue };
        tokio::spawn(async move {
            let mut buffer = [0; 4_096];
            while let Ok((size, peer)) = udp.recv_from(&mut buffer).await {
                for answer in answers(&buffer[..size], false) {
                    let _ = udp.send_to(&answer, peer).await;
                }
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let Ok(length) = stream.read_u16().await else { continue };
                let mut query = vec![0; length.into()];
                if stream.read_exact(&mut query).await.is_ok() {
                    for answer in answers(&query, true) {
                        let length = u16::try_from(answer.len()).unwrap();
                        let _ = stream.write_all(&[&length.to_be_bytes()[..], &answer].concat()).await;
                    }
                }
            }
        });
        return Ok(address);
    }
    Err(std::io::Error::other("no port is free for both"))
}

async fn started() -> SocketAddr {
    name_server(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap()
}

fn check(server: SocketAddr, name: &str) -> DnsCheck {
    DnsCheck {
        name: name.into(),
        kind: RecordType::A,
        server: Some(server.ip().to_string()),
        port: Some(server.port()),
        expect: Vec::new(),
        agreement: Agreement::All,
        limits: Limits::default(),
    }
}

async fn asked(check: DnsCheck) -> Outcome {
    probe(&Check::Dns(check), PATIENCE).await
}

#[tokio::test]
async fn an_answer_is_told_in_the_form_of_check_dns() {
    let server = started().await;
    let outcome = asked(check(server, "one.test")).await;
    assert_eq!((outcome.state, &outcome.exit), (State::Ok, &Exit::Ran(0)), "{outcome:?}");
    let rest = outcome.output.strip_prefix("DNS OK: ").unwrap();
    let (seconds, rest) = rest.split_once(' ').unwrap();
    assert!(seconds.parse::<f64>().is_ok(), "{outcome:?}");
    assert_eq!(rest.replace("second ", "seconds "), "seconds response time. one.test returns 192.0.2.1");
    assert!(outcome.perfdata.starts_with("time=") && outcome.perfdata.contains("s;;;0.000000;"), "{outcome:?}");
    assert_eq!(outcome.metrics[0].label, "time");
}

#[tokio::test]
async fn answers_of_every_type_are_values() {
    let server = started().await;
    let returned = async |name: &str, kind| {
        let outcome = asked(DnsCheck { kind, ..check(server, name) }).await;
        assert_eq!(outcome.state, State::Ok, "{outcome:?}");
        outcome.output.split_once(" returns ").unwrap().1.to_owned()
    };
    assert_eq!(returned("two.test", RecordType::A).await, "192.0.2.1,192.0.2.2");
    assert_eq!(returned("alias.test", RecordType::A).await, "192.0.2.7");
    assert_eq!(returned("mail.test", RecordType::Mx).await, "10 mx.test");
    assert_eq!(returned("text.test", RecordType::Txt).await, "v=spf1 -all");
    assert_eq!(returned("evil.test", RecordType::Txt).await, "x[2Ja=1;");
    assert_eq!(returned("tasks.shop_web.test", RecordType::A).await, "192.0.2.1");
    assert_eq!(returned("localhost", RecordType::A).await, "192.0.2.1", "the server is asked, nobody else");
    assert!(returned("cut.test", RecordType::A).await.contains("192.0.2.100"), "by TCP");
    assert_eq!(returned("spoofed.test", RecordType::A).await, "192.0.2.1", "not what a stranger sent");
}

#[tokio::test]
async fn failures_are_told_apart() {
    let server = started().await;
    for (name, words) in [
        ("nx.test", "Domain nx.test was not found by"),
        ("fail.test", "(SERVFAIL)"),
        ("refused.test", "(REFUSED)"),
        ("empty.test", "empty.test has no A record"),
    ] {
        let outcome = asked(check(server, name)).await;
        assert_eq!((outcome.state, outcome.exit), (State::Critical, Exit::Ran(2)), "{name}");
        assert!(outcome.output.contains(words), "{name}: {}", outcome.output);
    }
    let silent = probe(&Check::Dns(check(server, "silent.test")), LIMIT).await;
    assert_eq!((silent.state, silent.exit), (State::Critical, Exit::TimedOut));
    assert!(silent.output.contains(&format!("no answer from {server} within")), "{}", silent.output);
    let bad = asked(check(server, "a..b")).await;
    assert_eq!((bad.state, bad.exit), (State::Unknown, Exit::Error("dns-name".into())), "{}", bad.output);
}

#[tokio::test]
async fn expected_values_decide() {
    let server = started().await;
    let state = async |expect: &[&str], agreement| {
        let expect = expect.iter().map(|text| (*text).to_owned()).collect();
        asked(DnsCheck { expect, agreement, ..check(server, "two.test") }).await
    };
    assert_eq!(state(&["192.0.2.2", "192.0.2.1"], Agreement::Exact).await.state, State::Ok);
    assert_eq!(state(&["192.0.2.1"], Agreement::All).await.state, State::Ok);
    assert_eq!(state(&["192.0.2.1"], Agreement::Exact).await.state, State::Critical);
    assert_eq!(state(&["192.0.2.9", "192.0.2.1"], Agreement::Any).await.state, State::Ok);
    let wrong = state(&["192.0.2.9", "192.0.2.1"], Agreement::All).await;
    assert_eq!(wrong.state, State::Critical);
    assert_eq!(wrong.output, "DNS CRITICAL - expected '192.0.2.9,192.0.2.1' but got '192.0.2.1,192.0.2.2'");
}

#[tokio::test]
async fn a_slow_answer_is_a_warning() {
    let server = started().await;
    let limits = Limits { warning: "0".parse().ok(), critical: None };
    let outcome = asked(DnsCheck { limits, ..check(server, "one.test") }).await;
    assert!(outcome.state == State::Warning && outcome.output.starts_with("DNS WARNING: "), "{outcome:?}");
}

#[tokio::test]
async fn servers_from_before_edns_are_asked_without_it() {
    let server = started().await;
    for name in ["old.test", "older.test"] {
        let outcome = probe(&Check::Dns(check(server, name)), LIMIT).await;
        assert_eq!(outcome.state, State::Ok, "{name}: {outcome:?}");
        assert!(outcome.output.ends_with(&format!("{name} returns 192.0.2.1")), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_server_may_have_an_address_of_version_6() {
    let Ok(server) = name_server(SocketAddr::from((Ipv6Addr::LOCALHOST, 0))).await else {
        return missing("IPv6 on loopback", "nothing: allow it (net.ipv6.conf.lo.disable_ipv6=0)");
    };
    for name in ["one.test", "cut.test"] {
        assert_eq!(asked(check(server, name)).await.state, State::Ok, "{name}");
    }
}

#[tokio::test]
async fn an_answer_cut_in_the_middle_of_a_record_comes_whole_by_tcp() {
    let outcome = asked(check(started().await, "half.test")).await;
    assert!(outcome.output.ends_with("half.test returns 192.0.2.1,192.0.2.2"), "{outcome:?}");
}

#[tokio::test]
async fn servers_that_lie_end_in_time() {
    let server = started().await;
    for name in ["garbage.test", "short.test", "lies.test", "pointers.test", "always-cut.test", "silent.test"] {
        let started = Instant::now();
        let outcome = probe(&Check::Dns(check(server, name)), LIMIT).await;
        assert!(started.elapsed() < KEPT, "{name}: {:?}", started.elapsed());
        assert_eq!(outcome.state, State::Critical, "{name}: {outcome:?}");
        assert!(!outcome.output.contains(char::is_control), "{name}: {outcome:?}");
        let counted = outcome.output.contains("that cannot be read or do not answer what was asked");
        assert!(counted || !["short.test", "lies.test"].contains(&name), "{name}: {outcome:?}");
        assert!(!counted || name != "silent.test", "{name}: {outcome:?}");
    }
    let nobody = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), tests::nrpe::free_port(Ipv4Addr::LOCALHOST).unwrap());
    let outcome = probe(&Check::Dns(check(nobody, "one.test")), LIMIT).await;
    assert_eq!(outcome.state, State::Critical);
    assert!(outcome.output.contains("onnection refused"), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn states_are_those_of_check_dns() {
    for (path, package) in
        [("/usr/lib/nagios/plugins/check_dns", "monitoring-plugins-standard"), ("/usr/bin/nslookup", "bind9-dnsutils")]
    {
        if !Path::new(path).exists() {
            return missing(path, package);
        }
    }
    // check_dns asks port 53 and no other.
    let Ok(server) = name_server(SocketAddr::from(([127, 0, 0, 53], 53))).await else {
        return missing(
            "the right to listen on 127.0.0.53:53",
            "nothing, but run the test as root and without a resolver there",
        );
    };
    let host = server.ip().to_string();
    for (name, expect) in
        [("one.test", None), ("nx.test", None), ("one.test", Some("192.0.2.1")), ("one.test", Some("192.0.2.9"))]
    {
        let ours =
            asked(DnsCheck { expect: expect.into_iter().map(str::to_owned).collect(), ..check(server, name) }).await;
        let mut args = vec!["-H", name, "-s", &host, "-t", "10"];
        args.extend(expect.iter().flat_map(|expect| ["-a", expect]));
        let Some((status, text)) = plugin("check_dns", "monitoring-plugins-standard", &args).await else { return };
        assert_eq!(ours.state, State::of_exit(status.into()), "{name} {expect:?}: {ours:?} and {text}");
    }
}
