//! Session tickets on Debian's daemon: every check after the first resumes, a restarted daemon costs full handshakes and no
//! result, and a daemon that cannot bear tickets is not offered any.

use std::net::SocketAddr;

use satellite::probe::nrpe::Client;
use tests::nrpe::{RealNrpe, Transport, installed};
use tests::wait::until;

use crate::scene::{PATIENCE, answer, query};

const OK: (&str, &str) = ("ok", "/bin/echo OK");

#[tokio::test]
async fn every_check_after_the_first_resumes_its_session() {
    if !installed() {
        return;
    }
    let daemon = RealNrpe::start(Transport::Anonymous, &[OK], "").unwrap();
    let client = Client::new().unwrap();
    let ok = query(daemon.address, true, "ok");
    for number in 0..10 {
        let reply = client.ask(&ok, PATIENCE).await.unwrap();
        let agreed = reply.agreed.unwrap();
        assert_eq!(agreed.resumed, number > 0, "check {number}");
        assert!(agreed.cipher.starts_with("AECDH"), "the cheap suites come first: {agreed:?}");
    }
    assert_eq!((client.counters().handshakes_full(), client.counters().handshakes_resumed()), (1, 9));
    assert_eq!(client.counters().fallbacks(), 0);
}

#[tokio::test]
async fn a_timed_out_answer_keeps_the_ticket() {
    if !installed() {
        return;
    }
    let daemon = RealNrpe::start(Transport::Anonymous, &[OK, ("slow", "/bin/sleep 5")], "").unwrap();
    let client = Client::new().unwrap();
    answer(&client, &query(daemon.address, true, "ok")).await;
    let slow = client.ask(&query(daemon.address, true, "slow"), std::time::Duration::from_millis(500)).await;
    assert_eq!(slow.unwrap_err().kind(), "answer-timeout");
    let reply = client.ask(&query(daemon.address, true, "ok"), PATIENCE).await.unwrap();
    assert!(reply.agreed.unwrap().resumed);
}

#[tokio::test]
async fn a_restarted_daemon_costs_full_handshakes_and_no_answer() {
    if !installed() {
        return;
    }
    let client = Client::new().unwrap();
    let first = RealNrpe::start(Transport::Anonymous, &[OK], "").unwrap();
    let address: SocketAddr = first.address;
    let ok = query(address, true, "ok");
    for _ in 0..3 {
        answer(&client, &ok).await;
    }
    drop(first);
    let _second = RealNrpe::start_on(address, Transport::Anonymous, &[OK], "").unwrap();
    let mut resumed = Vec::new();
    for _ in 0..4 {
        resumed.push(client.ask(&ok, PATIENCE).await.unwrap().agreed.unwrap().resumed);
    }
    assert_eq!(resumed, [false, false, true, true], "the old ticket is refused, then given up, then replaced");
}

#[tokio::test]
async fn a_daemon_that_knows_only_adh_is_reached_with_the_second_list_and_remembered() {
    if !installed() {
        return;
    }
    let daemon = RealNrpe::start(Transport::Anonymous, &[OK], "ssl_use_adh=2\nssl_version=TLSv1\n").unwrap();
    let client = Client::new().unwrap();
    let ok = query(daemon.address, true, "ok");
    let refused = || daemon.log().matches("Could not complete SSL handshake").count();
    for number in 0..4 {
        let agreed = client.ask(&ok, PATIENCE).await.unwrap().agreed.unwrap();
        assert!(agreed.cipher.starts_with("ADH"), "{agreed:?}");
        assert_eq!((agreed.protocol, agreed.resumed), ("TLSv1", number > 0));
        // The connection that found the daemon ready, and the first list of the first check.
        assert!(until(PATIENCE, || refused() >= 2), "{}", daemon.log());
    }
    assert_eq!(refused(), 2, "the list is remembered, so no later check is refused: {}", daemon.log());
}

#[tokio::test]
async fn a_daemon_that_asks_for_certificates_is_offered_no_ticket_twice() {
    if !installed() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let settings = format!(
        "ssl_cert_file={0}\nssl_privatekey_file={1}\nssl_cacert_file={0}\nssl_client_certs=1\nssl_use_adh=0\nssl_version=TLSv1.2+\n",
        certificate.display(),
        key.display()
    );
    let daemon = RealNrpe::start(Transport::Anonymous, &[OK], &settings).unwrap();
    let client = Client::new().unwrap();
    let ok = query(daemon.address, true, "ok");
    for _ in 0..5 {
        assert_eq!(answer(&client, &ok).await.2, "OK");
    }
    let (full, resumed) = (client.counters().handshakes_full(), client.counters().handshakes_resumed());
    assert_eq!((full, resumed), (5, 0), "{}", daemon.log());
}
