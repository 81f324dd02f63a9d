//! Daemons of other versions and manners, played by our own: 2.x, 3.x, NSClient++, one that is replaced under its address. What
//! is asked first, what is remembered, and that no command runs twice.

use std::time::Duration;

use satellite::probe::Prober;
use satellite::probe::nrpe::Client;
use satellite::probe::nrpe::packet::Version;
use shared::check::{Check, Exit, State};
use tests::daemon::answers::Command;
use tests::daemon::{Daemon, Spec, Transport};

use crate::scene::{PATIENCE, answer, check, fault, query};

async fn start(spec: Spec) -> Daemon {
    Daemon::start(spec, None, None).await.unwrap()
}

fn speaking(versions: &[u16], transport: Transport) -> Spec {
    let mut spec = Spec::new("h", transport).speaking(versions);
    spec.commands.insert("load".to_owned(), Command::fixed(1, "WARNING - load|load=5").unnumbered());
    spec.commands.insert("long".to_owned(), Command::fixed(0, &"x".repeat(5000)).unnumbered());
    spec
}

#[tokio::test]
async fn every_version_is_found_remembered_and_answers_alike() {
    for transport in [Transport::Plain, Transport::Anonymous, Transport::Adh] {
        for (versions, found, tries) in
            [(&[2][..], Version::V2, 3), (&[2, 3], Version::V3, 2), (&[2, 4], Version::V4, 1)]
        {
            let daemon = start(speaking(versions, transport)).await;
            let client = Client::new().unwrap();
            let load = query(daemon.address, transport != Transport::Plain, "load");
            let expected = (found, 1, "WARNING - load|load=5".to_owned());
            assert_eq!(answer(&client, &load).await, expected, "{versions:?} {transport:?}");
            assert_eq!(client.counters().fallbacks(), tries - 1, "{versions:?} {transport:?}");
            let before = daemon.seen.connections();
            assert_eq!(answer(&client, &load).await, expected);
            assert_eq!(daemon.seen.connections(), before + 1, "the version is remembered: {versions:?} {transport:?}");
            assert_eq!(daemon.seen.requests(), 2, "no command ran twice: {versions:?} {transport:?}");
        }
    }
}

#[tokio::test]
async fn long_output_is_whole_from_3_and_4_and_cut_by_2() {
    for (versions, length) in [(&[2][..], 1023), (&[2, 3], 5000), (&[2, 4], 5000)] {
        let daemon = start(speaking(versions, Transport::Anonymous)).await;
        let client = Client::new().unwrap();
        let (_, _, text) = answer(&client, &query(daemon.address, true, "long")).await;
        assert_eq!(text.len(), length, "{versions:?}");
    }
}

#[tokio::test]
async fn a_daemon_replaced_by_another_version_is_learned_anew_at_the_next_check() {
    let first = start(speaking(&[2, 4], Transport::Plain)).await;
    let client = Client::new().unwrap();
    let load = query(first.address, false, "load");
    assert_eq!(answer(&client, &load).await.0, Version::V4);
    let listen = first.address;
    first.stop().await;
    let _second = start(Spec { listen, ..speaking(&[2], Transport::Plain) }).await;
    assert_eq!(answer(&client, &load).await.0, Version::V2);
    assert_eq!(answer(&client, &load).await.0, Version::V2);
    assert_eq!(client.counters().fallbacks(), 2, "v3 and v2 once, then remembered");
}

#[tokio::test]
async fn a_disliked_request_searches_the_versions_once_and_then_fails_at_once() {
    let daemon = start(speaking(&[2, 4], Transport::Plain)).await;
    let client = Client::new().unwrap();
    answer(&client, &query(daemon.address, false, "load")).await;
    let disliked = query(daemon.address, false, "load!an argument");
    let before = daemon.seen.connections();
    assert_eq!(fault(&client, &disliked, PATIENCE).await, "request-refused");
    let after_search = daemon.seen.connections();
    assert_eq!(after_search, before + 4, "three versions, and the question for the daemon's own");
    assert_eq!(fault(&client, &disliked, PATIENCE).await, "request-refused");
    assert_eq!(daemon.seen.connections(), after_search + 1);
    assert_eq!(
        answer(&client, &query(daemon.address, false, "load")).await.0,
        Version::V4,
        "and nothing was unlearned"
    );
}

#[tokio::test]
async fn nsclient_is_understood_when_it_refuses_a_version_in_words() {
    for payload in [1024, 4096] {
        let spec = Spec { nsclient_payload: Some(payload), ..speaking(&[2], Transport::Plain) };
        let daemon = start(spec).await;
        let client = Client::new().unwrap();
        let load = query(daemon.address, false, "load");
        assert_eq!(answer(&client, &load).await, (Version::V2, 1, "WARNING - load|load=5".to_owned()), "{payload}");
        assert_eq!(answer(&client, &load).await.0, Version::V2);
        assert_eq!(daemon.seen.connections(), 3, "asked in v4 once, then in v2 only");
        let (_, _, long) = answer(&client, &query(daemon.address, false, "long")).await;
        assert_eq!(long.len(), payload - 1);
    }
}

#[tokio::test]
async fn a_fixed_version_is_the_only_one_tried() {
    let daemon = start(speaking(&[2], Transport::Plain)).await;
    let client = Client::new().unwrap();
    let mut load = query(daemon.address, false, "load");
    load.versions = Some(vec![Version::V4]);
    assert_eq!(fault(&client, &load, PATIENCE).await, "eof-before-response");
    assert_eq!(daemon.seen.connections(), 2, "and the daemon's own command in the same version");
    for (version, says) in [(3, Some("speak version 3: without nrpe.version")), (4, Some("speak version 4")), (2, None)]
    {
        let mut fixed = check(daemon.address, false, "load");
        if let Check::Nrpe(check) = &mut fixed {
            check.version = Some(version);
        }
        let outcome = Prober::new().unwrap().probe("h!load", &fixed, PATIENCE).await;
        assert_eq!(says.is_none(), outcome.state == State::Warning, "{outcome:?}");
        assert!(says.is_none_or(|says| outcome.long_output.contains(says)), "{outcome:?}");
    }
    load.versions = Some(vec![Version::V2]);
    assert_eq!(answer(&client, &load).await.1, 1);
}

#[tokio::test]
async fn our_own_daemon_honours_tickets_too() {
    let daemon = start(speaking(&[2, 4], Transport::Adh)).await;
    let client = Client::new().unwrap();
    for _ in 0..5 {
        answer(&client, &query(daemon.address, true, "load")).await;
    }
    assert_eq!((client.counters().handshakes_full(), client.counters().handshakes_resumed()), (1, 4));
    assert_eq!(daemon.seen.resumed(), 4, "and the daemon saw the same");
}

#[tokio::test]
async fn refused_connections_and_closed_ports_have_their_own_words() {
    let daemon = start(speaking(&[2, 4], Transport::Plain)).await;
    let address = daemon.address;
    let prober = Prober::new().unwrap();
    // TLS to a plain daemon: it takes the ClientHello for a packet it does not know and closes.
    let over_tls = prober.probe("h!load", &check(address, true, "load"), PATIENCE).await;
    assert!(over_tls.output.contains("during the TLS handshake"), "{over_tls:?}");
    assert_eq!(over_tls.exit, Exit::Error("refused-here".to_owned()));
    assert!(over_tls.long_output.starts_with("put 127.0.0.1 into allowed_hosts"), "{over_tls:?}");
    assert!(over_tls.long_output.contains("nrpe.tls: plain"), "{over_tls:?}");
    daemon.stop().await;
    let refused = prober.probe("h!load", &check(address, false, "load"), Duration::from_secs(5)).await;
    assert_eq!(refused.state, State::Unknown);
    assert_eq!(refused.output, format!("NRPE {address}: connection refused"));
}

#[tokio::test]
async fn an_ipv6_address_is_asked_and_named_with_brackets() {
    let listen = "[::1]:0".parse().unwrap();
    let daemon = start(Spec { listen, ..speaking(&[2, 4], Transport::Anonymous) }).await;
    let client = Client::new().unwrap();
    let load = query(daemon.address, true, "load");
    assert_eq!(answer(&client, &load).await.1, 1);
    let address = daemon.address;
    daemon.stop().await;
    let refused = client.ask(&load, PATIENCE).await.unwrap_err();
    assert_eq!(refused.to_string(), format!("NRPE {address}: connection refused"));
}
