//! Web servers that lie, stall, flood or lead in circles: each check ends in time, with a bound on what was read, and what the
//! server sent never gets to a terminal.
#![expect(clippy::disallowed_methods, reason = "a deadline that is kept can only be shown on the clock")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use satellite::probe::http::{BODY_BYTES_MAX, READ_BYTES_MAX};
use shared::check::{Check, Exit, State};
use tests::daemon::script::Act::{self, Drip, Flood, Hang, Send};

use crate::http::http;
use crate::scene::{KEPT, LIMIT, PATIENCE, path_of, probe, web};

fn sent(text: &str) -> Act {
    Send(text.as_bytes().to_vec())
}

const OK: &str = "HTTP/1.1 200 OK\r\n";

/// What the server does, how the check ends, words of its text.
fn lies() -> Vec<(&'static str, Vec<Act>, State, &'static str)> {
    let drip = Duration::from_millis(100);
    let numbered: String = (0..2_000).map(|number| format!("X-{number}: y\r\n")).collect();
    vec![
        ("silence", vec![Hang], State::Critical, "no answer within"),
        ("an end at once", vec![], State::Critical, ""),
        ("zeros without end", vec![Flood(0)], State::Critical, ""),
        ("a status line without end", vec![sent("HTTP/1.1 200 "), Flood(b'O')], State::Critical, ""),
        ("a header without end", vec![sent(OK), sent("X-Long: "), Flood(b'x')], State::Critical, ""),
        ("two thousand headers", vec![sent(OK), sent(&numbered), sent("\r\n")], State::Critical, ""),
        ("a head by drips", vec![sent(OK), Drip(vec![b'x'; 1_000], drip)], State::Critical, "no answer within"),
        (
            "a body by drips",
            vec![sent(OK), sent("\r\n"), Drip(vec![b'x'; 1_000], drip)],
            State::Critical,
            "no end of the answer",
        ),
        ("half a body", vec![sent(OK), sent("Content-Length: 100\r\n\r\nhalf")], State::Critical, ""),
        (
            "half a body, held",
            vec![sent(OK), sent("Content-Length: 100\r\n\r\nhalf"), Hang],
            State::Critical,
            "no end of the answer",
        ),
        ("two lengths", vec![sent(OK), sent("Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx")], State::Critical, ""),
        (
            "a chunk too large",
            vec![sent(OK), sent("Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n")],
            State::Critical,
            "",
        ),
        (
            "a chunk's comment without end",
            vec![sent(OK), sent("Transfer-Encoding: chunked\r\n\r\n1;"), Flood(b'x')],
            State::Critical,
            "",
        ),
        (
            "trailers without end",
            vec![sent(OK), sent("Transfer-Encoding: chunked\r\n\r\n0\r\n"), Flood(b'x')],
            State::Critical,
            "",
        ),
        (
            "early hints without end",
            vec![sent(&"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(200_000))],
            State::Critical,
            "",
        ),
        ("TLS on a plain port", vec![Send(vec![21, 3, 3, 0, 2, 2, 70])], State::Critical, ""),
        (
            "a forged status",
            vec![sent("HTTP/1.1 200 OK|time=0s\r\nContent-Length: 0\r\n\r\n")],
            State::Ok,
            "200 OKtime=0s",
        ),
        (
            "an upgrade",
            vec![sent("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"), Flood(1)],
            State::Ok,
            "101 Switching Protocols",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_lie_ends_in_time() {
    let mut kinds = 0;
    for (name, acts, state, words) in lies() {
        let address = web(None, Arc::new(move |_: &str| acts.clone())).await;
        let started = Instant::now();
        let outcome = probe(&Check::Http(Box::new(http(address, "/"))), LIMIT).await;
        let took = started.elapsed();
        assert!(took < KEPT, "{name}: {took:?}");
        assert_eq!(outcome.state, state, "{name}: {outcome:?}");
        assert!(outcome.output.contains(words), "{name}: {outcome:?}");
        assert!(outcome.output.len() < 2_000 && !outcome.output.contains(char::is_control), "{name}: {outcome:?}");
        kinds += 1;
    }
    assert!(kinds >= 15);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_end_is_cut_off_and_judged_by_what_came() {
    let acts = vec![sent(OK), sent("\r\nneedle"), Flood(b'x')];
    let address = web(None, Arc::new(move |_: &str| acts.clone())).await;
    let mut check = http(address, "/");
    check.contains = vec!["needle".into()];
    let outcome = probe(&Check::Http(Box::new(check.clone())), PATIENCE).await;
    assert_eq!(outcome.state, State::Ok, "{outcome:?}");
    let size = outcome.metrics.iter().find(|metric| metric.label == "size").unwrap().value;
    assert!(size >= BODY_BYTES_MAX as f64 && size <= READ_BYTES_MAX as f64, "{size}");
    check.contains = vec!["haystack".into()];
    let outcome = probe(&Check::Http(Box::new(check)), PATIENCE).await;
    assert_eq!(outcome.state, State::Critical);
    assert!(outcome.output.contains(&format!("in its first {BODY_BYTES_MAX} bytes")), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_that_stall_share_one_deadline() {
    let respond = |head: &str| {
        let number: u32 = path_of(head).trim_start_matches('/').parse().unwrap_or(0);
        let pause = Drip(b"HTTP/1.1".to_vec(), Duration::from_millis(100));
        let rest = format!(" 302 Found\r\nLocation: /{}\r\nContent-Length: 0\r\n\r\n", number + 1);
        vec![pause, sent(&rest)]
    };
    let address = web(None, Arc::new(respond)).await;
    let mut check = http(address, "/0");
    check.follow = 15;
    let started = Instant::now();
    let outcome = probe(&Check::Http(Box::new(check)), LIMIT).await;
    assert!(started.elapsed() < KEPT, "{:?}", started.elapsed());
    assert_eq!((outcome.state, outcome.exit), (State::Critical, Exit::TimedOut), "{}", outcome.output);
}

#[tokio::test]
async fn a_location_that_is_no_web_address_is_not_followed() {
    for location in ["file:///etc/passwd", "http://user:secret@192.0.2.1/", "http://a b/", "gopher://x/", "/\u{1b}[2J"]
    {
        let answer = format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
        let address = web(None, Arc::new(move |_: &str| vec![sent(&answer)])).await;
        let mut check = http(address, "/");
        check.follow = 5;
        let outcome = probe(&Check::Http(Box::new(check)), PATIENCE).await;
        assert_ne!(outcome.state, State::Ok, "{location}: {outcome:?}");
        assert!(!outcome.output.contains(char::is_control), "{location}: {outcome:?}");
    }
}
