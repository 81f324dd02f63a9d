//! The http probe, with `check_http` as the oracle: same state for same server, and the same text but for measured times. Where
//! the words differ on purpose, [`CASES`] says so by its last column.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use shared::check::network::{CertificateDays, Limits, StatusRange, Tls};
use shared::check::{Check, Exit, HttpCheck, State};
use tests::daemon::script::Act::{self, Send};

use crate::scene::{Ca, PATIENCE, form, page, path_of, plugin, printed, probe, web, web_v6};

pub(crate) fn http(address: SocketAddr, path: &str) -> HttpCheck {
    HttpCheck {
        address: address.ip().to_string(),
        port: address.port(),
        tls: None,
        host: address.ip().to_string(),
        path: path.into(),
        method: "GET".into(),
        headers: Vec::new(),
        body: None,
        status: Vec::new(),
        contains: Vec::new(),
        lacks: Vec::new(),
        follow: 0,
        limits: Limits::default(),
        certificate: None,
    }
}

/// What the server of these tests has.
fn site(head: &str) -> Vec<Act> {
    let path = path_of(head);
    let sent = |status: &str, headers: &str| vec![Send(page(status, headers, "hello world"))];
    match path {
        "/404" => sent("404 Not Found", ""),
        "/401" => sent("401 Unauthorized", "WWW-Authenticate: Basic\r\n"),
        "/500" => sent("500 Internal Server Error", ""),
        "/503" => sent("503 Out of Order", ""),
        "/999" => sent("999 Beyond", ""),
        "/204" => vec![Send(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n".to_vec())],
        "/moved" => sent("301 Moved Permanently", "Location: /good\r\n"),
        "/relative" => sent("302 Found", "Location: good\r\n"),
        "/twice" => sent("307 Temporary Redirect", "Location: /moved\r\n"),
        "/self" => sent("302 Found", "Location: /self\r\n"),
        "/nowhere" => sent("302 Found", ""),
        "/old" => vec![Send(b"HTTP/1.0 200 OK\r\n\r\nhello world".to_vec())],
        "/half" => vec![Send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf".to_vec())],
        "/chunked" => vec![Send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n".to_vec(),
        )],
        // What is wrong with these, browsers and check_http overlook.
        "/blank-before-colon" => sent("200 OK", "X-Odd : y\r\n"),
        "/folded" => sent("200 OK", "X-Odd: y\r\n z\r\n"),
        "/odd-name" => sent("200 OK", "X odd(1): y\r\n"),
        "/no-header" => sent("200 OK", "this is no header\r\n"),
        "/control" => sent("200 OK", "X-Odd: a\u{1}b\r\n"),
        "/to-blank" => sent("302 Found", "Location:  /a b<ü>\r\n"),
        "/garbage" => vec![Send(b"SSH-2.0-OpenSSH_9.2p1\r\n".to_vec())],
        "/nothing" => vec![],
        path => match path.strip_prefix("/hop/").and_then(|number| number.parse::<u32>().ok()) {
            Some(number) => sent("302 Found", &format!("Location: /hop/{}\r\n", number + 1)),
            None => sent("200 OK", ""),
        },
    }
}

async fn served() -> SocketAddr {
    web(None, Arc::new(site)).await
}

type Change = fn(&mut HttpCheck);

/// Path, arguments for check_http, the same for ours, whether the texts are the same.
const CASES: &[(&str, &[&str], Change, bool)] = &[
    ("/good", &[], |_| {}, true),
    ("/204", &[], |_| {}, true),
    ("/404", &[], |_| {}, true),
    ("/401", &[], |_| {}, true),
    ("/500", &[], |_| {}, true),
    ("/503", &[], |_| {}, true),
    ("/old", &[], |_| {}, true),
    ("/moved", &[], |_| {}, true),
    ("/moved", &["-f", "follow"], |check| check.follow = 15, true),
    ("/relative", &["-f", "follow"], |check| check.follow = 15, true),
    ("/twice", &["-f", "follow"], |check| check.follow = 15, true),
    ("/good", &["-s", "hello"], |check| check.contains = vec!["hello".into()], true),
    ("/good", &["-s", "absent"], |check| check.contains = vec!["absent".into()], true),
    ("/404", &["-s", "hello"], |check| check.contains = vec!["hello".into()], true),
    ("/404", &["-s", "absent"], |check| check.contains = vec!["absent".into()], true),
    (
        "/good",
        &["-w", "0", "-c", "5"],
        |check| {
            check.limits = Limits { warning: "0".parse().ok(), critical: "5".parse().ok() };
        },
        true,
    ),
    ("/good", &["-c", "0"], |check| check.limits.critical = "0".parse().ok(), true),
    ("/503", &["-w", "0"], |check| check.limits.warning = "0".parse().ok(), true),
    ("/good", &["-j", "HEAD"], |check| check.method = "HEAD".into(), false),
    // check_http has other words for these, and no performance data.
    ("/999", &[], |_| {}, false),
    ("/good", &["-e", "200"], |check| check.status = vec![StatusRange { first: 200, last: 200 }], false),
    ("/404", &["-e", "200"], |check| check.status = vec![StatusRange { first: 200, last: 200 }], false),
    ("/404", &["-e", "404"], |check| check.status = vec![StatusRange { first: 404, last: 404 }], false),
    ("/chunked", &["-s", "hello world"], |check| check.contains = vec!["hello world".into()], false),
    ("/blank-before-colon", &["-s", "hello"], |check| check.contains = vec!["hello".into()], true),
    ("/folded", &["-s", "hello"], |check| check.contains = vec!["hello".into()], true),
    ("/odd-name", &["-s", "hello"], |check| check.contains = vec!["hello".into()], true),
    ("/no-header", &["-s", "hello"], |check| check.contains = vec!["hello".into()], true),
    ("/control", &["-s", "hello"], |check| check.contains = vec!["hello".into()], true),
    ("/to-blank", &["-f", "follow"], |check| check.follow = 15, true),
    ("/nowhere", &["-f", "follow"], |check| check.follow = 15, false),
    ("/hop/1", &["-f", "follow"], |check| check.follow = 15, false),
    ("/self", &["-f", "follow"], |check| check.follow = 15, false),
    ("/garbage", &[], |_| {}, false),
    ("/nothing", &[], |_| {}, false),
];

#[tokio::test(flavor = "multi_thread")]
async fn states_and_texts_are_those_of_check_http() {
    let address = served().await;
    let port = address.port().to_string();
    let mut compared = 0;
    for (path, args, change, same_text) in CASES {
        let mut check = http(address, path);
        change(&mut check);
        let ours = probe(&Check::Http(Box::new(check)), PATIENCE).await;
        let args = [&["-I", "127.0.0.1", "-p", &port, "-t", "10", "-u", path], *args].concat();
        let Some((status, text)) = plugin("check_http", "monitoring-plugins-basic", &args).await else { return };
        assert_eq!(ours.state, State::of_exit(status.into()), "{path} {args:?}: {ours:?} and {text}");
        if *same_text {
            assert_eq!(form(&printed(&ours)), form(&text), "{path} {args:?}");
        }
        assert_eq!(ours.authenticated, None, "plain HTTP proves nothing and claims nothing");
        compared += 1;
    }
    assert_eq!(compared, CASES.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_the_text_is_that_of_check_http_too() {
    let ca = Ca::new();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, &ca.pem).unwrap();
    let address = web(Some(&ca.leaf("www.example", 45)), Arc::new(site)).await;
    let mut check = http(address, "/good");
    check.host = "www.example".into();
    check.tls = Some(Tls { name: None, verify: true, ca: Some(file.to_string_lossy().into_owned()) });
    let ours = probe(&Check::Http(Box::new(check.clone())), PATIENCE).await;
    assert_eq!((ours.state, ours.authenticated), (State::Ok, Some(true)), "{ours:?}");
    let port = address.port().to_string();
    let args = ["-S", "-I", "127.0.0.1", "-H", "www.example", "-p", &port, "-u", "/good", "-t", "10"];
    if let Some((_, text)) = plugin("check_http", "monitoring-plugins-basic", &args).await {
        assert_eq!(form(&printed(&ours)), form(&text));
    }
    // A server that ends without TLS's farewell, as these do, and says no length before.
    let mut old = check.clone();
    old.path = "/old".into();
    old.contains = vec!["hello world".into()];
    let ours = probe(&Check::Http(Box::new(old)), PATIENCE).await;
    assert_eq!((ours.state, ours.authenticated), (State::Ok, Some(true)), "{ours:?}");
    // It finds no text behind a head without headers.
    let args = [&args[..8], &["/old"]].concat();
    if let Some((_, text)) = plugin("check_http", "monitoring-plugins-basic", &args).await {
        assert_eq!(form(&printed(&ours)), form(&text));
    }
    // One that promised more has been cut off.
    let mut half = check.clone();
    half.path = "/half".into();
    let ours = probe(&Check::Http(Box::new(half)), PATIENCE).await;
    assert_eq!((ours.state, &ours.exit), (State::Critical, &Exit::Error("http-protocol".into())), "{ours:?}");
    // With days, and without belief.
    check.certificate = Some(CertificateDays { warning: Some(60), critical: Some(7) });
    let ours = probe(&Check::Http(Box::new(check.clone())), PATIENCE).await;
    assert_eq!(ours.state, State::Warning);
    assert!(ours.output.contains("response time, certificate 'www.example' expires in 45 days (20"), "{ours:?}");
    assert!(ours.perfdata.ends_with(" days=45;60;7"), "{ours:?}");
    check.tls = Some(Tls { name: None, verify: true, ca: None });
    let ours = probe(&Check::Http(Box::new(check.clone())), PATIENCE).await;
    assert!(ours.state == State::Critical || ours.exit == Exit::Error("tls-ca".into()), "{ours:?}");
    check.tls = Some(Tls { name: None, verify: false, ca: None });
    let ours = probe(&Check::Http(Box::new(check)), PATIENCE).await;
    assert_eq!((ours.state, ours.authenticated), (State::Warning, Some(false)), "{ours:?}");
    assert!(ours.output.contains("certificate not trusted: "), "{ours:?}");
}

#[tokio::test]
async fn the_request_is_what_the_check_says() {
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = Arc::clone(&heads);
    let address = web(
        None,
        Arc::new(move |head: &str| {
            kept.lock().unwrap().push(head.to_owned());
            site(head)
        }),
    )
    .await;
    let mut check = http(address, "/good?full=1");
    check.host = "www.example".into();
    check.method = "POST".into();
    check.body = Some("a=b".into());
    check.headers = vec![("X-Probe".into(), "yes".into()), ("Authorization".into(), "Bearer secret".into())];
    let outcome = probe(&Check::Http(Box::new(check)), PATIENCE).await;
    assert_eq!(outcome.state, State::Ok, "{outcome:?}");
    let head = heads.lock().unwrap()[0].to_ascii_lowercase();
    assert!(head.starts_with("post /good?full=1 http/1.1\r\n"), "{head}");
    let host = format!("host: www.example:{}", address.port());
    for line in [
        host.as_str(),
        "x-probe: yes",
        "authorization: bearer secret",
        "content-length: 3",
        "content-type: application/x-www-form-urlencoded",
        "connection: close",
    ] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line}: {head}");
    }
    assert!(head.contains("\r\nuser-agent: perigee/"), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_of_version_6_stands_in_brackets_where_it_must() {
    let respond = |head: &str| {
        let host = head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or("?");
        let there = format!("Location: http://{host}/there\r\n");
        vec![Send(if path_of(head) == "/there" { page("200 OK", "", host) } else { page("302 Found", &there, "") })]
    };
    let Some(address) = web_v6(Arc::new(respond)).await else { return };
    let mut check = http(address, "/");
    check.follow = 1;
    check.contains = vec![format!("[::1]:{}", address.port())];
    let ours = probe(&Check::Http(Box::new(check)), PATIENCE).await;
    assert_eq!(ours.state, State::Ok, "{ours:?}");
    let port = address.port().to_string();
    let args = ["-6", "-I", "::1", "-H", "[::1]", "-p", &port, "-u", "/there", "-t", "10"];
    if let Some((status, text)) = plugin("check_http", "monitoring-plugins-basic", &args).await {
        assert_eq!(status, 0, "{text}");
    }
}

#[tokio::test]
async fn a_redirect_to_another_server_takes_no_secret_along() {
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = Arc::clone(&heads);
    let other = web(
        None,
        Arc::new(move |head: &str| {
            kept.lock().unwrap().push(head.to_owned());
            site(head)
        }),
    )
    .await;
    let there = format!("Location: http://{other}/good\r\n");
    let address = web(None, Arc::new(move |_: &str| vec![Send(page("302 Found", &there, ""))])).await;
    let mut check = http(address, "/");
    check.follow = 3;
    check.headers = vec![
        ("Authorization".into(), "secret".into()),
        ("cookie".into(), "secret".into()),
        ("X-Probe".into(), "y".into()),
    ];
    let outcome = probe(&Check::Http(Box::new(check)), PATIENCE).await;
    assert_eq!(outcome.state, State::Ok, "{outcome:?}");
    let head = heads.lock().unwrap()[0].to_ascii_lowercase();
    assert!(head.contains("x-probe: y") && !head.contains("secret"), "{head}");
    assert!(head.contains(&format!("\r\nhost: {other}\r\n")), "{head}");
}

#[tokio::test]
async fn redirects_that_lead_nowhere_say_so() {
    let address = served().await;
    let text = async |path: &str, follow| {
        let mut check = http(address, path);
        check.follow = follow;
        let outcome = probe(&Check::Http(Box::new(check)), PATIENCE).await;
        (outcome.state, outcome.output)
    };
    let (state, output) = text("/self", 15).await;
    assert!(state == State::Critical && output.contains("redirection creates an infinite loop"), "{state} {output}");
    let (state, output) = text("/hop/1", 4).await;
    assert_eq!(state, State::Warning);
    assert!(output.contains("maximum redirection depth 4 exceeded") && output.contains("/hop/6"), "{output}");
    let (state, output) = text("/nowhere", 4).await;
    assert!(state == State::Unknown && output.contains("a redirect without a location"), "{state} {output}");
}
