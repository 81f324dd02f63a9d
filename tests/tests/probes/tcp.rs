//! What the TCP probe says and expects, with `check_tcp` as the oracle.
#![expect(clippy::disallowed_methods, reason = "a deadline that is kept can only be shown on the clock")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use shared::check::network::{Limits, Talk, Tls};
use shared::check::{Check, Exit, State, TcpCheck};
use tests::daemon::script::Act::{self, Drip, Flood, Hang, Read, Send};

use crate::scene::{Ca, KEPT, LIMIT, PATIENCE, form, page, plugin, printed, probe, server, web};

fn tcp(address: SocketAddr, send: Option<&str>, expect: &[&str]) -> TcpCheck {
    let expect: Vec<String> = expect.iter().map(|text| (*text).to_owned()).collect();
    let talk = Talk { tls: None, send: send.map(str::to_owned), expect, mismatch: State::Warning };
    TcpCheck { talk: Some(talk), ..TcpCheck::port(address.ip().to_string(), address.port()) }
}

/// What the server does, what is sent, what is expected, whether the texts are the same.
type Case = (Vec<Act>, Option<&'static str>, &'static [&'static str], bool);

#[tokio::test(flavor = "multi_thread")]
async fn states_and_texts_are_those_of_check_tcp() {
    let greeting = || vec![Send(b"220 mail ESMTP\r\n".to_vec()), Hang];
    let echo = || vec![Read(4), Send(b"+PONG\r\n".to_vec())];
    let cases: Vec<Case> = vec![
        (greeting(), None, &["220"], true),
        (greeting(), None, &["ESMTP"], true),
        (greeting(), None, &["999", "220"], true),
        (greeting(), None, &["999"], true),
        (echo(), Some("PING"), &["PONG"], true),
        (echo(), Some("PING"), &["OK"], true),
        (vec![], None, &["220"], false),
    ];
    let mut compared = 0;
    for (acts, send, expect, same_text) in cases {
        let address = server(acts).await;
        let ours = probe(&Check::Tcp(tcp(address, send, expect)), PATIENCE).await;
        let port = address.port().to_string();
        let mut args = vec!["-H", "127.0.0.1", "-t", "10", "-p", &port];
        args.extend(send.iter().flat_map(|send| ["-s", send]));
        args.extend(expect.iter().flat_map(|text| ["-e", text]));
        let Some((status, text)) = plugin("check_tcp", "monitoring-plugins-basic", &args).await else { return };
        assert_eq!(ours.state, State::of_exit(status.into()), "{send:?} {expect:?}: {ours:?} and {text}");
        if same_text {
            // A mismatch is waited for, so that its time has whole seconds.
            let (ours, theirs) = (form(&printed(&ours)), form(&text));
            let cut = |text: &str| text.split("|time=").next().unwrap_or_default().to_owned();
            assert_eq!(cut(&ours), cut(&theirs), "{send:?} {expect:?}");
        }
        compared += 1;
    }
    assert_eq!(compared, 7);
}

#[tokio::test]
async fn a_mismatch_has_the_state_that_was_asked_for() {
    let address = server(vec![Send(b"-ERR\r\n".to_vec())]).await;
    let mut check = tcp(address, None, &["+OK"]);
    check.talk.as_mut().unwrap().mismatch = State::Critical;
    check.limits = Some(Limits { warning: "1".parse().ok(), critical: None });
    let outcome = probe(&Check::Tcp(check), PATIENCE).await;
    assert_eq!((outcome.state, outcome.exit), (State::Critical, Exit::Ran(2)));
    assert_eq!(outcome.output, "TCP CRITICAL - Unexpected response from host/socket: -ERR");
    assert!(outcome.perfdata.contains("s;1.000000;;0.000000;10.000000"), "{}", outcome.perfdata);
}

#[tokio::test]
async fn tls_ports_are_spoken_with_as_well() {
    let ca = Ca::new();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, &ca.pem).unwrap();
    let respond = |_: &str| vec![Send(page("200 OK", "", "x"))];
    let address = web(Some(&ca.leaf("mail.example", 90)), std::sync::Arc::new(respond)).await;
    let mut check = tcp(address, Some("GET / HTTP/1.0\r\n\r\n"), &["200 OK"]);
    let talk = check.talk.as_mut().unwrap();
    talk.tls =
        Some(Tls { name: Some("mail.example".into()), verify: true, ca: Some(file.to_string_lossy().into_owned()) });
    let outcome = probe(&Check::Tcp(check.clone()), PATIENCE).await;
    assert_eq!((outcome.state, outcome.authenticated), (State::Ok, Some(true)), "{outcome:?}");
    check.talk.as_mut().unwrap().tls = Some(Tls { name: Some("mail.example".into()), verify: false, ca: None });
    let outcome = probe(&Check::Tcp(check), PATIENCE).await;
    assert_eq!((outcome.state, outcome.authenticated), (State::Ok, Some(false)), "{outcome:?}");
}

#[tokio::test]
async fn servers_that_flood_or_stall_end_in_time() {
    let cases: Vec<(&str, Vec<Act>, State)> = vec![
        ("nothing", vec![Hang], State::Critical),
        ("a flood", vec![Flood(b'x')], State::Warning),
        ("a drip", vec![Drip(b"nothing of what is expected".to_vec(), Duration::from_millis(200))], State::Warning),
        ("half an answer", vec![Send(b"22".to_vec()), Hang], State::Warning),
    ];
    for (name, acts, state) in cases {
        let address = server(acts).await;
        let started = Instant::now();
        let outcome = probe(&Check::Tcp(tcp(address, None, &["220"])), LIMIT).await;
        assert!(started.elapsed() < KEPT, "{name}: {:?}", started.elapsed());
        assert_eq!(outcome.state, state, "{name}: {outcome:?}");
    }
}
