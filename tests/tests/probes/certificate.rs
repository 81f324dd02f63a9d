//! Certificates of every kind of wrong, seen by the certificate and the http check, with `check_http -C` as the oracle for days.
#![expect(clippy::disallowed_methods, reason = "a deadline that is kept can only be shown on the clock")]

use std::net::SocketAddr;
use std::sync::Arc;

use shared::check::network::{CertificateDays, Tls};
use shared::check::{CertificateCheck, Check, Exit, Outcome, State};
use tempfile::TempDir;
use tests::daemon::script::Act::{Flood, Hang, Read, Send};

use crate::scene::{Ca, Identity, KEPT, LIMIT, PATIENCE, page, plugin, probe, self_signed, server, web};

const DAYS: CertificateDays = CertificateDays { warning: Some(30), critical: Some(7) };

fn check(address: SocketAddr, name: &str, verify: bool, ca: Option<String>) -> Check {
    Check::Certificate(CertificateCheck {
        address: address.ip().to_string(),
        port: address.port(),
        tls: Tls { name: Some(name.into()), verify, ca },
        days: DAYS,
    })
}

async fn serving(identity: &Identity) -> SocketAddr {
    web(Some(identity), Arc::new(|_: &str| vec![Send(page("200 OK", "", "hello"))])).await
}

/// A CA, and its certificate in a file.
fn authority() -> (Ca, TempDir, String) {
    let ca = Ca::new();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, &ca.pem).unwrap();
    let name = file.to_string_lossy().into_owned();
    (ca, directory, name)
}

async fn seen(identity: &Identity, name: &str, verify: bool, ca: Option<&str>) -> Outcome {
    probe(&check(serving(identity).await, name, verify, ca.map(str::to_owned)), PATIENCE).await
}

#[tokio::test(flavor = "multi_thread")]
async fn days_make_the_state_that_check_http_gives() {
    let (ca, _directory, file) = authority();
    let mut compared = 0;
    for (days, state) in [
        (100, State::Ok),
        (31, State::Ok),
        (30, State::Warning),
        (8, State::Warning),
        (7, State::Critical),
        (0, State::Critical),
        (-3, State::Critical),
    ] {
        let identity = ca.leaf("www.example", days);
        let address = serving(&identity).await;
        let outcome = probe(&check(address, "www.example", true, Some(file.clone())), PATIENCE).await;
        assert_eq!(outcome.state, state, "{days}: {outcome:?}");
        // `days` and an hour are left of it: before its end whole days are cut, after it an hour less is a day more.
        assert_eq!(outcome.perfdata, format!("days={days};30;7"), "{outcome:?}");
        let port = address.port().to_string();
        let args = ["-S", "-I", "127.0.0.1", "-H", "www.example", "-p", &port, "-C", "30,7", "-t", "10"];
        let Some((status, text)) = plugin("check_http", "monitoring-plugins-basic", &args).await else { return };
        assert_eq!(outcome.state, State::of_exit(status.into()), "{days}: {outcome:?} and {text}");
        compared += 1;
    }
    assert_eq!(compared, 7);
}

#[tokio::test]
async fn a_good_certificate_is_proof_and_says_until_when() {
    let (ca, _directory, file) = authority();
    let outcome = seen(&ca.leaf("www.example", 45), "www.example", true, Some(&file)).await;
    assert_eq!((outcome.state, outcome.exit), (State::Ok, Exit::Ran(0)));
    assert_eq!(outcome.authenticated, Some(true));
    let text = outcome.output;
    assert!(text.starts_with("CERTIFICATE OK - certificate 'www.example' expires in 45 days (20"), "{text}");
    assert!(text.ends_with("Z)"), "{text}");
    assert_eq!(outcome.metrics[0].value, 45.0);
}

#[tokio::test]
async fn each_kind_of_wrong_has_its_sentence() {
    let (ca, _directory, file) = authority();
    let pinned = self_signed("www.example", 90);
    let cases = [
        ("expired", ca.leaf("www.example", -3), Some(file.as_str()), "it expired on 20"),
        (
            "wrong name",
            ca.leaf("other.example", 90),
            Some(file.as_str()),
            "it is for other.example, not for www.example",
        ),
        (
            "untrusted",
            Ca::named("Another CA").leaf("www.example", 90),
            Some(file.as_str()),
            "no trusted CA has signed it",
        ),
        ("self-signed", self_signed("www.example", 90), Some(file.as_str()), "no trusted CA has signed it"),
    ];
    for (name, identity, ca, words) in cases {
        let refused = seen(&identity, "www.example", true, ca).await;
        assert_eq!(refused.state, State::Critical, "{name}: {refused:?}");
        assert_eq!(refused.exit, Exit::Error("tls-certificate".into()), "{name}");
        assert_eq!(refused.authenticated, Some(false), "{name}");
        assert!(refused.output.contains(&format!("the certificate is not trusted: {words}")), "{name}: {refused:?}");
        assert!(refused.perfdata.starts_with("days="), "{name}: {refused:?}");
        let told = seen(&identity, "www.example", false, ca).await;
        assert_eq!(told.state == State::Ok, name != "expired", "{name}: {told:?}");
        assert!(told.output.contains(&format!(", not trusted: {words}")), "{name}: {told:?}");
        assert_eq!(told.authenticated, Some(false), "{name}");
    }
    // Pinned: the file holds the certificate itself.
    std::fs::write(&file, &pinned.pem).unwrap();
    let believed = seen(&pinned, "www.example", true, Some(&file)).await;
    assert_eq!((believed.state, believed.authenticated), (State::Ok, Some(true)), "{believed:?}");
    let other = seen(&pinned, "other.example", true, Some(&file)).await;
    assert!(other.output.contains("it is for www.example, not for other.example"), "{other:?}");
}

#[tokio::test]
async fn without_a_ca_file_that_can_be_read_nothing_is_believed() {
    let (ca, directory, _) = authority();
    let identity = ca.leaf("www.example", 90);
    let missing = directory.path().join("missing.pem").to_string_lossy().into_owned();
    let empty = directory.path().join("empty.pem").to_string_lossy().into_owned();
    std::fs::write(&empty, "no certificate").unwrap();
    for file in [&missing, &empty] {
        let outcome = seen(&identity, "www.example", true, Some(file)).await;
        assert_eq!((outcome.state, outcome.exit), (State::Unknown, Exit::Error("tls-ca".into())), "{}", outcome.output);
        assert!(outcome.output.contains(file.as_str()), "{}", outcome.output);
    }
}

#[tokio::test]
async fn servers_that_speak_no_tls_or_none_in_time_are_told_apart() {
    for (name, acts, words) in [
        ("HTTP", vec![Read(1), Send(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec())], "TLS handshake failed"),
        ("an end", vec![Read(1)], "TLS handshake failed"),
        ("garbage", vec![Flood(0xa5)], "TLS handshake failed"),
        ("records without end", vec![Send([22, 3, 3, 64, 0].to_vec()), Flood(1)], "TLS handshake failed"),
        ("silence", vec![Hang], "no end of the TLS handshake within"),
    ] {
        let address = server(acts).await;
        let started = std::time::Instant::now();
        let outcome = probe(&check(address, "www.example", false, None), LIMIT).await;
        assert!(started.elapsed() < KEPT, "{name}");
        assert_eq!(outcome.state, State::Critical, "{name}: {outcome:?}");
        assert!(outcome.output.contains(words), "{name}: {outcome:?}");
    }
}
