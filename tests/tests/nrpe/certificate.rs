//! Daemons that prove who they are, and that want to know who we are: Debian's, with certificates made here. Nothing weaker is ever
//! spoken than was asked for, and each reason for a no has a class of its own.
#![expect(
    clippy::disallowed_methods,
    reason = "what TLS 1.3 would cost without a quick acknowledgement shows on the clock only"
)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use openssl::sha::sha256;
use rcgen::ExtendedKeyUsagePurpose;
use satellite::probe::Prober;
use satellite::probe::nrpe::error::Class;
use satellite::probe::nrpe::packet::Version;
use satellite::probe::nrpe::policy::{Endpoint, Identity, NameRule, Peer, Security, TlsPolicy};
use satellite::probe::nrpe::{Client, Query};
use shared::check::{Check, Exit, NrpeCheck, NrpeName, NrpeTls, NrpeTrust, Pin, State};
use tests::daemon::answers::Command;
use tests::daemon::tls::Acceptor;
use tests::daemon::{self as fake, Daemon, Spec};
use tests::nrpe::{RealNrpe, Transport, installed};
use tests::pki::{Issued, Pki, SERVER_NAMES};
use tests::wait::until;

use crate::scene::{PATIENCE, check};

const OK: (&str, &str) = ("ok", "/bin/echo OK");

/// A daemon with this certificate, which knows the authority of clients.
fn daemon(pki: &Pki, server: &Issued, more: &str) -> RealNrpe {
    RealNrpe::start(Transport::Anonymous, &[OK], &settings(pki, server, more)).unwrap()
}

fn settings(pki: &Pki, server: &Issued, more: &str) -> String {
    format!(
        "ssl_cert_file={}\nssl_privatekey_file={}\nssl_cacert_file={}\nssl_use_adh=0\n{more}",
        server.certificate.display(),
        server.key.display(),
        pki.authority.certificate.display()
    )
}

fn pin(issued: &Issued) -> [u8; 32] {
    sha256(&issued.public_key)
}

/// A policy: whom to believe.
fn trusting(ca: Option<&PathBuf>, name: NameRule, pins: &[[u8; 32]]) -> TlsPolicy {
    let peer = Peer::Verified { ca: ca.cloned(), name, pins: pins.to_vec() };
    TlsPolicy { peer, ..TlsPolicy::default() }
}

fn strict(pki: &Pki) -> TlsPolicy {
    trusting(Some(&pki.authority.certificate), NameRule::Address, &[])
}

fn showing(issued: &Issued, policy: TlsPolicy) -> TlsPolicy {
    let identity = Identity { certificate: issued.certificate.clone(), key: issued.key.clone() };
    TlsPolicy { identity: Some(identity), ..policy }
}

fn asking(address: SocketAddr, policy: TlsPolicy) -> Query {
    let security = Security::Tls(Arc::new(policy));
    Query::new(Endpoint { address: address.ip().to_string(), port: address.port(), security }, "ok")
}

/// The class of what went wrong, or `ok` from a peer that proved itself, or `unproven`.
async fn ask(client: &Client, query: &Query) -> String {
    match client.ask(query, PATIENCE).await {
        Ok(reply) if reply.agreed.as_ref().is_some_and(|agreed| agreed.authenticated) => "ok".to_owned(),
        Ok(_) => "unproven".to_owned(),
        Err(fault) => fault.kind().into_owned(),
    }
}

#[tokio::test]
async fn a_verified_daemon_resumes_in_both_protocols_and_the_results_say_so() {
    if !installed() {
        return;
    }
    let pki = Pki::new().unwrap();
    for (version, protocol) in [("TLSv1.2", "TLSv1.2"), ("TLSv1.2+", "TLSv1.3"), ("TLSv1.3", "TLSv1.3")] {
        let daemon = daemon(&pki, &pki.server, &format!("ssl_version={version}\n"));
        let client = Client::new().unwrap();
        let ok = asking(daemon.address, strict(&pki));
        for number in 0..5 {
            let reply = client.ask(&ok, PATIENCE).await.unwrap();
            let agreed = reply.agreed.unwrap();
            assert_eq!((agreed.protocol, agreed.resumed), (protocol, number > 0), "{version}, check {number}");
            assert!(agreed.authenticated, "{agreed:?}");
            assert_eq!(agreed.certificate.as_ref(), Some(&pki.server.der), "{version}, check {number}");
        }
        let tickets = client.counters().figures().tickets;
        assert_eq!((tickets.offered, tickets.honoured, tickets.missed, tickets.barred), (4, 4, 0, 0), "{version}");
    }
}

#[tokio::test]
async fn tls_1_3_costs_no_delayed_acknowledgement() {
    if !installed() {
        return;
    }
    let pki = Pki::new().unwrap();
    let daemon = daemon(&pki, &pki.server, "ssl_version=TLSv1.3\n");
    let client = Client::new().unwrap();
    let ok = asking(daemon.address, strict(&pki));
    let mut took = Vec::new();
    for _ in 0..20 {
        let began = Instant::now();
        assert_eq!(ask(&client, &ok).await, "ok");
        took.push(began.elapsed());
    }
    // Without it the kernel waits 40 ms in every single one.
    let quickest = took.iter().min().unwrap();
    assert!(*quickest < Duration::from_millis(38), "{took:?}");
}

#[tokio::test]
async fn parallel_checks_of_a_tls_1_3_daemon_find_tickets() {
    if !installed() {
        return;
    }
    let pki = Pki::new().unwrap();
    let daemon = daemon(&pki, &pki.server, "ssl_version=TLSv1.3\n");
    let client = Arc::new(Client::new().unwrap());
    let ok = asking(daemon.address, strict(&pki));
    for _ in 0..10 {
        let three: Vec<_> = (0..3)
            .map(|_| {
                let (client, ok) = (Arc::clone(&client), ok.clone());
                tokio::spawn(async move { ask(&client, &ok).await })
            })
            .collect();
        for one in three {
            assert_eq!(one.await.unwrap(), "ok");
        }
    }
    let figures = client.counters().figures();
    assert_eq!(figures.handshakes.full + figures.handshakes.resumed, 30);
    assert!(figures.handshakes.resumed >= 20, "each ticket is good for one check, and there are enough: {figures:?}");
    assert_eq!(figures.tickets.barred, 0, "{figures:?}");
}

#[tokio::test]
async fn whoever_is_not_the_one_expected_is_not_asked_and_the_reason_has_a_name() {
    if !installed() {
        return;
    }
    let pki = Pki::new().unwrap();
    let (ca, foreign) = (Some(&pki.authority.certificate), Some(&pki.foreign_authority.certificate));
    let exactly = |name: &str| NameRule::Exactly(name.to_owned());
    let (own, other) = (pin(&pki.server), pin(&pki.other_server));
    let cases = [
        (&pki.server, trusting(ca, NameRule::Address, &[]), "ok"),
        (&pki.server, trusting(ca, exactly("nrpe.example.net"), &[]), "ok"),
        (&pki.server, trusting(ca, exactly("NRPE.example.net"), &[]), "ok"),
        (&pki.server, trusting(ca, exactly("::1"), &[]), "ok"),
        (&pki.server, trusting(ca, NameRule::Any, &[]), "ok"),
        (&pki.server, trusting(ca, exactly("elsewhere.example.net"), &[]), "tls-wrong-name"),
        (&pki.server, trusting(ca, exactly("192.0.2.1"), &[]), "tls-wrong-name"),
        (&pki.elsewhere, trusting(ca, NameRule::Address, &[]), "tls-wrong-name"),
        (&pki.elsewhere, trusting(ca, NameRule::Any, &[]), "ok"),
        (&pki.expired, trusting(ca, NameRule::Address, &[]), "tls-expired"),
        (&pki.expired, trusting(ca, NameRule::Any, &[]), "tls-expired"),
        (&pki.foreign_server, trusting(ca, NameRule::Address, &[]), "tls-not-trusted"),
        (&pki.foreign_server, trusting(foreign, NameRule::Address, &[]), "ok"),
        (&pki.server, trusting(foreign, NameRule::Any, &[]), "tls-not-trusted"),
        (&pki.server, trusting(None, NameRule::Address, &[]), "tls-not-trusted"),
        // A certificate named itself is trusted, although it is no authority.
        (&pki.server, trusting(Some(&pki.server.certificate), NameRule::Address, &[]), "ok"),
        (&pki.other_server, trusting(Some(&pki.server.certificate), NameRule::Address, &[]), "tls-not-trusted"),
        // A pin alone is the proof, whoever signed; beside an authority it is one condition more.
        (&pki.server, trusting(None, NameRule::Address, &[other, own]), "ok"),
        (&pki.foreign_server, trusting(None, NameRule::Address, &[pin(&pki.foreign_server)]), "ok"),
        (&pki.server, trusting(None, NameRule::Address, &[other]), "tls-wrong-pin"),
        (&pki.server, trusting(ca, NameRule::Address, &[own]), "ok"),
        (&pki.server, trusting(ca, NameRule::Address, &[other]), "tls-wrong-pin"),
        (&pki.foreign_server, trusting(ca, NameRule::Address, &[pin(&pki.foreign_server)]), "tls-not-trusted"),
        (&pki.elsewhere, trusting(ca, NameRule::Address, &[pin(&pki.elsewhere)]), "tls-wrong-name"),
    ];
    let client = Client::new().unwrap();
    for version in ["TLSv1.2", "TLSv1.3"] {
        for server in [&pki.server, &pki.other_server, &pki.elsewhere, &pki.expired, &pki.foreign_server] {
            let daemon = daemon(&pki, server, &format!("ssl_version={version}\n"));
            for (shown, policy, expected) in &cases {
                if shown.certificate == server.certificate {
                    let ok = asking(daemon.address, policy.clone());
                    for time in ["first", "second"] {
                        assert_eq!(ask(&client, &ok).await, *expected, "{version}, {time} time: {policy:?}");
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn nothing_weaker_is_tried_where_the_daemon_cannot_prove_itself() {
    if !installed() {
        return;
    }
    let pki = Pki::new().unwrap();
    let policies = [
        strict(&pki),
        trusting(None, NameRule::Any, &[pin(&pki.server)]),
        TlsPolicy { ciphers: Some("ALL:aNULL@SECLEVEL=0".to_owned()), ..strict(&pki) },
        TlsPolicy { ciphers: Some("AECDH:ADH:ECDHE".to_owned()), ..strict(&pki) },
    ];
    let anonymous = RealNrpe::start(Transport::Anonymous, &[OK], "").unwrap();
    let plain = RealNrpe::start(Transport::Plain, &[OK], "").unwrap();
    let client = Client::new().unwrap();
    for policy in policies {
        let fault = client.ask(&asking(anonymous.address, policy.clone()), PATIENCE).await.unwrap_err();
        assert_eq!(fault.kind(), "tls-alert-40", "{policy:?}");
        let hint = fault.hint(b"ok", &Security::Tls(Arc::new(policy.clone()))).unwrap();
        assert!(hint.contains("nothing weaker is tried"), "{hint}");
        assert_eq!(ask(&client, &asking(plain.address, policy.clone())).await, "refused-here", "{policy:?}");
    }
    // The same hosts answer those who do not ask for proof.
    assert_eq!(ask(&client, &asking(anonymous.address, TlsPolicy::default())).await, "unproven");
    assert_eq!(client.counters().handshakes_full(), 1);
}

#[tokio::test]
async fn a_host_that_speaks_both_gives_each_policy_its_own_and_shares_no_ticket() {
    if !installed() {
        return;
    }
    let pki = Pki::new().unwrap();
    let daemon = daemon(&pki, &pki.server, "ssl_use_adh=1\nssl_version=TLSv1+\n");
    let client = Client::new().unwrap();
    let anybody = asking(daemon.address, TlsPolicy::default());
    let proven = asking(daemon.address, strict(&pki));
    let pinned = asking(daemon.address, trusting(None, NameRule::Any, &[pin(&pki.other_server)]));
    for round in 0..3 {
        for (query, authenticated) in [(&anybody, false), (&proven, true)] {
            let agreed = client.ask(query, PATIENCE).await.unwrap().agreed.unwrap();
            assert_eq!((agreed.authenticated, agreed.resumed), (authenticated, round > 0), "{agreed:?}");
        }
        assert_eq!(ask(&client, &pinned).await, "tls-wrong-pin", "however many tickets there are");
    }
}

#[tokio::test]
async fn an_impostor_under_the_same_address_is_found_out_although_there_is_a_ticket() {
    if !installed() {
        return;
    }
    let pki = Pki::new().unwrap();
    let first = daemon(&pki, &pki.server, "ssl_version=TLSv1.2+\n");
    let address = first.address;
    let client = Client::new().unwrap();
    let ok = asking(address, strict(&pki));
    for _ in 0..2 {
        assert_eq!(ask(&client, &ok).await, "ok");
    }
    drop(first);
    let settings = settings(&pki, &pki.foreign_server, "ssl_version=TLSv1.2+\n");
    let impostor = RealNrpe::start_on(address, Transport::Anonymous, &[OK], &settings).unwrap();
    assert_eq!(ask(&client, &ok).await, "tls-not-trusted");
    drop(impostor);
    let settings = self::settings(&pki, &pki.other_server, "ssl_version=TLSv1.2+\n");
    let _renewed = RealNrpe::start_on(address, Transport::Anonymous, &[OK], &settings).unwrap();
    assert_eq!(ask(&client, &ok).await, "ok", "another key of the same authority is what a renewal is");
}

#[tokio::test]
async fn a_daemon_that_wants_to_know_who_we_are_is_told_or_the_check_says_why_not() {
    if !installed() {
        return;
    }
    let pki = Pki::new().unwrap();
    for version in ["TLSv1.2", "TLSv1.3"] {
        for wants in [1, 2] {
            let settings = format!("ssl_client_certs={wants}\nssl_version={version}\n");
            let daemon = daemon(&pki, &pki.server, &settings);
            let client = Client::new().unwrap();
            let known = asking(daemon.address, showing(&pki.client, strict(&pki)));
            let foreign = asking(daemon.address, showing(&pki.foreign_client, strict(&pki)));
            let nobody = asking(daemon.address, strict(&pki));
            for _ in 0..3 {
                assert_eq!(ask(&client, &known).await, "ok", "{version}, {wants}: {}", daemon.log());
                assert_eq!(ask(&client, &foreign).await, "tls-client-certificate", "{version}, {wants}");
                let expected = if wants == 2 { "tls-client-certificate" } else { "ok" };
                assert_eq!(ask(&client, &nobody).await, expected, "{version}, {wants}");
            }
            if wants == 2 {
                let fault = client.ask(&nobody, PATIENCE).await.unwrap_err();
                let hint = fault.hint(b"ok", &nobody.endpoint.security).unwrap();
                assert!(hint.contains("ssl_client_certs=2") && hint.contains("nrpe.certificate"), "{hint}");
            }
            // It cannot bear tickets, so none is ever offered: seen in the first handshake, not learned from an alert.
            let figures = client.counters().figures();
            assert_eq!(
                (figures.tickets.offered, figures.handshakes.resumed),
                (0, 0),
                "{version}, {wants}: {figures:?}"
            );
            assert!(figures.tickets.barred >= 2, "{version}, {wants}: {figures:?}");
        }
    }
}

#[tokio::test]
async fn an_anonymous_check_of_a_daemon_that_asks_for_certificates_costs_one_handshake_each() {
    if !installed() {
        return;
    }
    let pki = Pki::new().unwrap();
    for version in ["TLSv1.2", "TLSv1.3"] {
        let daemon = daemon(&pki, &pki.server, &format!("ssl_client_certs=1\nssl_version={version}\n"));
        let refused = || daemon.log().matches("Could not complete SSL handshake").count();
        let client = Client::new().unwrap();
        assert_eq!(ask(&client, &asking(daemon.address, TlsPolicy::default())).await, "unproven");
        // The connection that found the daemon ready, and where there is only TLS 1.3 the first list of the first check.
        let before = if version == "TLSv1.3" { 2 } else { 1 };
        assert!(until(PATIENCE, || refused() >= before), "{}", daemon.log());
        for _ in 0..4 {
            assert_eq!(ask(&client, &asking(daemon.address, TlsPolicy::default())).await, "unproven");
        }
        assert_eq!(client.counters().handshakes_full(), 5);
        assert_eq!(refused(), before, "no ticket was offered: {}", daemon.log());
    }
}

#[tokio::test]
async fn files_are_read_again_when_they_change_and_a_missing_one_is_named() {
    if !installed() {
        return;
    }
    let pki = Pki::new().unwrap();
    let daemon = daemon(&pki, &pki.server, "ssl_client_certs=2\nssl_version=TLSv1.2+\n");
    let files = tempfile::tempdir().unwrap();
    let path = |name: &str| files.path().join(name);
    let put = |from: &PathBuf, name: &str| {
        // As one renews files: whole, and at once.
        std::fs::copy(from, path("new")).unwrap();
        std::fs::rename(path("new"), path(name)).unwrap();
    };
    let identity = Identity { certificate: path("client.pem"), key: path("client.key") };
    let policy = TlsPolicy { identity: Some(identity), ..trusting(Some(&path("ca.pem")), NameRule::Address, &[]) };
    let ok = asking(daemon.address, policy);
    let client = Client::new().unwrap();
    let missing = client.ask(&ok, PATIENCE).await.unwrap_err();
    assert_eq!(missing.kind(), "tls-files");
    assert!(missing.to_string().contains(path("ca.pem").to_str().unwrap()), "{missing}");
    put(&pki.authority.certificate, "ca.pem");
    put(&pki.client.certificate, "client.pem");
    put(&pki.foreign_client.key, "client.key");
    let mismatch = client.ask(&ok, PATIENCE).await.unwrap_err();
    assert_eq!(mismatch.kind(), "tls-files");
    assert!(mismatch.to_string().contains("not the key of"), "{mismatch}");
    put(&pki.client.key, "client.key");
    assert_eq!(ask(&client, &ok).await, "ok");
    put(&pki.foreign_authority.certificate, "ca.pem");
    assert_eq!(ask(&client, &ok).await, "tls-not-trusted");
    put(&pki.authority.certificate, "ca.pem");
    assert_eq!(ask(&client, &ok).await, "ok");
    std::fs::write(path("ca.pem"), "no certificate\n").unwrap();
    assert_eq!(ask(&client, &ok).await, "tls-files");
    std::fs::remove_file(path("client.key")).unwrap();
    put(&pki.authority.certificate, "ca.pem");
    let gone = client.ask(&ok, PATIENCE).await.unwrap_err();
    assert!(gone.to_string().contains(path("client.key").to_str().unwrap()), "{gone}");
    assert_eq!(client.counters().faults().filter(|&(name, _)| name == "tls-files").map(|(_, n)| n).sum::<u64>(), 4);
}

#[tokio::test]
async fn an_encrypted_key_is_a_mistake_and_asks_no_terminal() {
    let pki = Pki::new().unwrap();
    let key = openssl::pkey::PKey::private_key_from_pem(&std::fs::read(&pki.client.key).unwrap()).unwrap();
    let sealed = key.private_key_to_pem_pkcs8_passphrase(openssl::symm::Cipher::aes_256_cbc(), b"secret").unwrap();
    std::fs::write(&pki.client.key, sealed).unwrap();
    let client = Client::new().unwrap();
    // Nobody listens: files are looked at before anybody is spoken to.
    let ok = asking(SocketAddr::from(([127, 0, 0, 1], 9)), showing(&pki.client, strict(&pki)));
    let fault = client.ask(&ok, PATIENCE).await.unwrap_err();
    assert_eq!(fault.kind(), "tls-files");
    assert!(fault.to_string().contains("without a passphrase"), "{fault}");
}

#[tokio::test]
async fn a_check_by_certificate_has_its_words_and_says_that_the_daemon_was_authenticated() {
    if !installed() {
        return;
    }
    let pki = Pki::new().unwrap();
    let daemon = daemon(&pki, &pki.server, "ssl_version=TLSv1.2+\n");
    let by = |trust: NrpeTrust| match check(daemon.address, true, "ok") {
        Check::Nrpe(check) => Check::Nrpe(NrpeCheck { tls: NrpeTls::Certificate, trust: Some(trust), ..check }),
        other => other,
    };
    let ca = Some(pki.authority.certificate.display().to_string());
    let prober = Prober::new().unwrap();
    let good = by(NrpeTrust { ca: ca.clone(), ..NrpeTrust::default() });
    let outcome = prober.probe("h!ok", &good, PATIENCE).await;
    assert_eq!((outcome.state, outcome.authenticated), (State::Ok, Some(true)), "{outcome:?}");
    let unproven = prober.probe("h!ok", &check(daemon.address, true, "ok"), PATIENCE).await;
    assert_eq!((unproven.state, unproven.authenticated), (State::Ok, Some(false)), "{unproven:?}");
    let name = NrpeName::Exactly("db.example.net".to_owned());
    let wrong = prober.probe("h!ok", &by(NrpeTrust { ca, name, ..NrpeTrust::default() }), PATIENCE).await;
    assert_eq!((wrong.state, &wrong.exit), (State::Unknown, &Exit::Error("tls-wrong-name".to_owned())));
    assert!(wrong.output.contains("not for db.example.net") && wrong.long_output.contains("nrpe.name"), "{wrong:?}");
    let pins = vec![Pin(pin(&pki.other_server))];
    let stranger = prober.probe("h!ok", &by(NrpeTrust { pins, ..NrpeTrust::default() }), PATIENCE).await;
    let seen = Pin(pin(&pki.server)).to_string();
    assert_eq!(stranger.exit, Exit::Error("tls-wrong-pin".to_owned()));
    assert!(stranger.long_output.contains(&seen), "the pin to add is there to be copied: {stranger:?}");
}

#[tokio::test]
async fn options_of_check_nrpe_are_kept_to() {
    if !installed() {
        return;
    }
    let pki = Pki::new().unwrap();
    use satellite::probe::nrpe::policy::{Adh, Protocol};
    let both = daemon(&pki, &pki.server, "ssl_use_adh=1\nssl_version=TLSv1.2+\n");
    let anonymous = RealNrpe::start(Transport::Anonymous, &[OK], "").unwrap();
    let client = Client::new().unwrap();
    let agreed = async |address, policy| {
        let reply = client.ask(&asking(address, policy), PATIENCE).await;
        reply.map_or_else(
            |fault| fault.kind().into_owned(),
            |reply| reply.agreed.map(|agreed| format!("{} {}", agreed.protocol, agreed.cipher)).unwrap_or_default(),
        )
    };
    let only = TlsPolicy { adh: Adh::Only, newest: Some(Protocol::Tls1_2), ..TlsPolicy::default() };
    assert!(agreed(anonymous.address, only).await.starts_with("TLSv1.2 ADH-"));
    let never = TlsPolicy { adh: Adh::Never, ..TlsPolicy::default() };
    assert!(agreed(anonymous.address, never).await.starts_with("TLSv1.2 AECDH-"));
    let list = TlsPolicy { ciphers: Some("ECDHE-ECDSA-AES128-GCM-SHA256".to_owned()), ..TlsPolicy::default() };
    let twelve = TlsPolicy { newest: Some(Protocol::Tls1_2), ..list.clone() };
    assert_eq!(agreed(both.address, twelve).await, "TLSv1.2 ECDHE-ECDSA-AES128-GCM-SHA256");
    let thirteen = TlsPolicy { oldest: Some(Protocol::Tls1_3), ..TlsPolicy::default() };
    assert!(agreed(both.address, thirteen.clone()).await.starts_with("TLSv1.3 TLS_AES"));
    assert_eq!(agreed(anonymous.address, thirteen).await, "tls-alert-70");
    let nonsense = TlsPolicy { ciphers: Some("NO-SUCH-CIPHER".to_owned()), ..TlsPolicy::default() };
    assert_eq!(agreed(both.address, nonsense).await, "tls-failed");
}

#[tokio::test]
async fn our_own_daemon_with_a_certificate_is_judged_alike() {
    let pki = Pki::new().unwrap();
    let start = async |server: &Issued, clients: Option<&PathBuf>| {
        let acceptor = Acceptor::certified(&server.certificate, &server.key, clients.map(PathBuf::as_path)).unwrap();
        let mut spec = Spec::new("h", fake::Transport::Anonymous);
        spec.commands.insert("ok".to_owned(), Command::fixed(0, "OK").unnumbered());
        Daemon::start_behind(acceptor, spec).await.unwrap()
    };
    let client = Client::new().unwrap();
    let open = start(&pki.server, None).await;
    for (policy, expected) in [
        (TlsPolicy::default(), "unproven"),
        (strict(&pki), "ok"),
        (trusting(None, NameRule::Address, &[pin(&pki.server)]), "ok"),
        (trusting(None, NameRule::Address, &[pin(&pki.client)]), "tls-wrong-pin"),
        (trusting(Some(&pki.foreign_authority.certificate), NameRule::Any, &[]), "tls-not-trusted"),
        (trusting(Some(&pki.authority.certificate), NameRule::Exactly("x.net".to_owned()), &[]), "tls-wrong-name"),
        // What would be no name to be looked at for OpenSSL is no name that anybody bears.
        (trusting(Some(&pki.authority.certificate), NameRule::Exactly(String::new()), &[]), "tls-wrong-name"),
        (trusting(Some(&pki.authority.certificate), NameRule::Exactly("nrpe.example.net.".to_owned()), &[]), "ok"),
    ] {
        for _ in 0..2 {
            assert_eq!(ask(&client, &asking(open.address, policy.clone())).await, expected, "{policy:?}");
        }
    }
    assert_eq!(open.seen.resumed(), 4, "each policy that went well, the second time");
    let insisting = start(&pki.server, Some(&pki.authority.certificate)).await;
    for _ in 0..2 {
        assert_eq!(ask(&client, &asking(insisting.address, strict(&pki))).await, "tls-client-certificate");
        let foreign = showing(&pki.foreign_client, strict(&pki));
        assert_eq!(ask(&client, &asking(insisting.address, foreign)).await, "tls-client-certificate");
        assert_eq!(ask(&client, &asking(insisting.address, showing(&pki.client, strict(&pki)))).await, "ok");
    }
    assert_eq!(insisting.seen.requests(), 2, "nobody else got through");
}

#[tokio::test]
async fn a_daemon_that_wants_a_certificate_is_never_taken_for_one_that_lacks_our_address() {
    if !installed() {
        return;
    }
    let pki = Pki::new().unwrap();
    let daemon = daemon(&pki, &pki.server, "ssl_client_certs=2\nssl_version=TLSv1.3\n");
    // Its alert comes after the handshake, and where our request is unread when it closes, a reset overtakes it: now and then.
    for (policy, shown) in [(strict(&pki), false), (showing(&pki.foreign_client, strict(&pki)), true)] {
        for round in 0..40 {
            let query = Query { versions: Some(vec![Version::V2]), ..asking(daemon.address, policy.clone()) };
            let fault = Client::new().unwrap().ask(&query, PATIENCE).await.unwrap_err();
            assert!(
                matches!(fault.class, Class::ClientCertificate { shown: said, .. } if said == shown),
                "round {round}: {fault:?}"
            );
            assert!(!fault.to_string().contains("unknown)"), "an alert without a name: {fault}");
        }
    }
}

#[tokio::test]
async fn nobody_is_spoken_to_without_encryption_who_is_to_be_spoken_to_by_tls() {
    if !installed() {
        return;
    }
    let pki = Pki::new().unwrap();
    let bare = RealNrpe::start(Transport::Anonymous, &[OK], "ssl_cipher_list=AECDH-NULL-SHA:@SECLEVEL=0\n").unwrap();
    let certified = daemon(&pki, &pki.server, "ssl_version=TLSv1.2\nssl_cipher_list=eNULL:@SECLEVEL=0\n");
    let client = Client::new().unwrap();
    for address in [bare.address, certified.address] {
        for policy in [TlsPolicy::default(), strict(&pki)] {
            assert_eq!(ask(&client, &asking(address, policy)).await, "tls-alert-40");
        }
    }
}

#[tokio::test]
async fn a_chain_is_believed_if_the_daemon_shows_all_of_it() {
    if !installed() {
        return;
    }
    let pki = Pki::new().unwrap();
    let between = pki.authority.intermediate("between").unwrap();
    let leaf = between.issue("leaf", SERVER_NAMES, &ExtendedKeyUsagePurpose::ServerAuth, (-1, 365)).unwrap();
    let client = Client::new().unwrap();
    let alone = daemon(&pki, &leaf, "ssl_version=TLSv1.2+\n");
    let fault = client.ask(&asking(alone.address, strict(&pki)), PATIENCE).await.unwrap_err();
    assert_eq!(fault.kind(), "tls-not-trusted");
    let hint = fault.hint(b"ok", &Security::Tls(Arc::new(strict(&pki)))).unwrap();
    assert!(hint.contains("belong into the daemon's ssl_cert_file"), "{hint}");
    let whole = [&leaf.certificate, &between.certificate].map(|file| std::fs::read(file).unwrap()).concat();
    std::fs::write(&leaf.certificate, whole).unwrap();
    let whole = daemon(&pki, &leaf, "ssl_version=TLSv1.2+\n");
    assert_eq!(ask(&client, &asking(whole.address, strict(&pki))).await, "ok");
    // Whoever names the authority in between believes it without the one above.
    assert_eq!(
        ask(&client, &asking(alone.address, trusting(Some(&between.certificate), NameRule::Address, &[]))).await,
        "ok"
    );
}

#[tokio::test]
async fn a_certificate_that_is_not_for_servers_is_refused_and_the_hint_says_so() {
    if !installed() {
        return;
    }
    let pki = Pki::new().unwrap();
    let issued = pki.authority.issue("wrong", SERVER_NAMES, &ExtendedKeyUsagePurpose::ClientAuth, (-1, 365)).unwrap();
    let daemon = daemon(&pki, &issued, "ssl_version=TLSv1.2+\n");
    let client = Client::new().unwrap();
    let fault = client.ask(&asking(daemon.address, strict(&pki)), PATIENCE).await.unwrap_err();
    assert_eq!(fault.kind(), "tls-not-trusted");
    let hint = fault.hint(b"ok", &Security::Tls(Arc::new(strict(&pki)))).unwrap();
    assert!(hint.contains("serverAuth"), "{hint}");
}
