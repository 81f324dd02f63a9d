//! Peers whose handshake or identity the master refuses.

use quinn::ConnectionError;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose};
use satellite::link::tls::Congestion;
use satellite::link::{LinkEvent, Settings, run};
use shared::frame::CLOSE_REFUSED;
use shared::refusal::{Refusal, Refusals};
use time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::forge::{Forge, Shown, dns, lives, raw_names, uri};
use crate::listen::{Log, Master, client, client_tls, counted_alone, dial, ended, in_time, until};

/// The peer is closed, counted once and under this reason alone, logged, and nobody behind the link hears of it.
async fn refused(forge: &Forge, tls: rustls::ClientConfig, expected: Refusal) -> ConnectionError {
    let log = Log::start();
    let mut master = Master::of(forge).await;
    let client = client();
    let end = ended(dial(&client, forge, master.address, tls).await).await;
    counted_alone(master.links.refusals(), expected).await;
    assert_eq!(log.lines_of(expected), 1);
    assert_eq!(master.links.open(), 0);
    assert!(master.events.try_recv().is_err(), "a refused peer reached the master's loop");
    end
}

async fn refused_certificate(forge: &Forge, shown: Shown, expected: Refusal) -> ConnectionError {
    refused(forge, client_tls(forge, Some(shown)), expected).await
}

/// Refused in the handshake, by the stock verifier: the peer sees a TLS alert.
async fn refused_by_tls(forge: &Forge, params: &CertificateParams, expected: Refusal) {
    let end = refused_certificate(forge, forge.sign(params), expected).await;
    assert!(matches!(end, ConnectionError::ConnectionClosed(_)), "{end:?}");
}

/// Refused after the handshake, by the identity: the peer is told the kind.
async fn refused_by_name(forge: &Forge, params: &CertificateParams, expected: Refusal) {
    let end = refused_certificate(forge, forge.sign(params), expected).await;
    let ConnectionError::ApplicationClosed(close) = end else { panic!("{end:?}") };
    assert_eq!(close.error_code.into_inner(), u64::from(CLOSE_REFUSED));
    assert_eq!(close.reason.as_ref(), expected.kind().as_bytes());
}

#[tokio::test]
async fn a_peer_without_certificate_is_refused() {
    let forge = Forge::new();
    let end = refused(&forge, client_tls(&forge, None), Refusal::NoCertificate).await;
    assert!(matches!(end, ConnectionError::ConnectionClosed(_)), "{end:?}");
}

#[tokio::test]
async fn a_certificate_of_a_foreign_ca_is_refused() {
    let forge = Forge::new();
    let impostor = forge.impostor();
    assert_eq!(impostor.slot_uri(), forge.slot_uri());
    refused_certificate(&forge, impostor.sign(&impostor.slot()), Refusal::ForeignCa).await;
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let forge = Forge::new();
    let mut params = forge.slot();
    lives(&mut params, Duration::days(-8), Duration::seconds(-5));
    refused_by_tls(&forge, &params, Refusal::Expired).await;
}

#[tokio::test]
async fn a_certificate_not_yet_valid_is_refused() {
    let forge = Forge::new();
    let mut params = forge.slot();
    lives(&mut params, Duration::hours(1), Duration::days(8));
    refused_by_tls(&forge, &params, Refusal::NotYetValid).await;
}

#[tokio::test]
async fn a_master_s_certificate_is_no_slot_s() {
    let forge = Forge::new();
    refused_by_tls(&forge, &forge.master(), Refusal::WrongRole).await;
}

#[tokio::test]
async fn a_master_s_identity_with_a_client_s_usage_is_refused() {
    let forge = Forge::new();
    let mut params = forge.slot();
    params.subject_alt_names = vec![uri(&forge.master_uri())];
    refused_by_name(&forge, &params, Refusal::BadUri).await;
}

#[tokio::test]
async fn a_certificate_for_both_ends_is_refused() {
    let forge = Forge::new();
    let mut params = forge.slot();
    params.insert_extended_key_usage(ExtendedKeyUsagePurpose::ServerAuth);
    refused_by_name(&forge, &params, Refusal::WrongRole).await;
}

#[tokio::test]
async fn a_certificate_that_states_no_usage_is_refused() {
    let forge = Forge::new();
    let mut params = forge.slot();
    params.extended_key_usages.clear();
    refused_by_name(&forge, &params, Refusal::WrongRole).await;
}

#[tokio::test]
async fn two_uris_are_refused() {
    let forge = Forge::new();
    let mut params = forge.slot();
    params.subject_alt_names.push(uri("https://example.net/"));
    refused_by_name(&forge, &params, Refusal::SeveralUris).await;
}

#[tokio::test]
async fn the_same_uri_twice_is_refused() {
    let forge = Forge::new();
    let mut params = forge.slot();
    params.subject_alt_names.push(uri(&forge.slot_uri()));
    refused_by_name(&forge, &params, Refusal::SeveralUris).await;
}

#[tokio::test]
async fn no_uri_is_refused() {
    let forge = Forge::new();
    let mut params = forge.slot();
    params.subject_alt_names = vec![dns("slot.example.net")];
    refused_by_name(&forge, &params, Refusal::NoUri).await;
}

#[tokio::test]
async fn a_common_name_is_no_identity() {
    let forge = Forge::new();
    let mut params = forge.slot();
    params.subject_alt_names.clear();
    params.distinguished_name.push(rcgen::DnType::CommonName, forge.slot_uri());
    refused_by_name(&forge, &params, Refusal::NoUri).await;
}

#[tokio::test]
async fn a_foreign_uri_is_refused() {
    let forge = Forge::new();
    let mut params = forge.slot();
    params.subject_alt_names = vec![uri(&forge.slot_uri().replace("/eu/", "/EU/"))];
    refused_by_name(&forge, &params, Refusal::BadUri).await;
}

#[tokio::test]
async fn a_name_that_cannot_be_read_is_refused_beside_a_good_uri() {
    let forge = Forge::new();
    let mut params = forge.slot();
    raw_names(&mut params, &[(6, forge.slot_uri().as_bytes()), (6, b"perigee://\xff\xfe")]);
    refused_by_name(&forge, &params, Refusal::UnreadableNames).await;
}

#[tokio::test]
async fn a_name_of_unknown_kind_is_refused_beside_a_good_uri() {
    let forge = Forge::new();
    let mut params = forge.slot();
    raw_names(&mut params, &[(6, forge.slot_uri().as_bytes()), (9, b"?")]);
    refused_by_name(&forge, &params, Refusal::UnreadableNames).await;
}

#[tokio::test]
async fn a_dns_name_beside_a_slot_s_uri_is_refused() {
    let forge = Forge::new();
    let mut params = forge.slot();
    params.subject_alt_names.push(dns("slot.example.net"));
    refused_by_name(&forge, &params, Refusal::UnexpectedName).await;
}

#[tokio::test]
async fn another_installation_under_the_same_ca_is_refused() {
    let forge = Forge::new();
    let mut params = forge.slot();
    params.subject_alt_names = vec![uri("perigee://somebody-else/region/eu/slot/1")];
    refused_by_name(&forge, &params, Refusal::ForeignInstallation).await;
}

#[tokio::test]
async fn another_protocol_is_refused() {
    let forge = Forge::new();
    let mut tls = client_tls(&forge, Some(forge.sign(&forge.slot())));
    tls.alpn_protocols = vec![b"perigee/0".to_vec()];
    let end = refused(&forge, tls, Refusal::WrongProtocol).await;
    assert!(matches!(end, ConnectionError::ConnectionClosed(_)), "{end:?}");
}

#[tokio::test]
async fn no_protocol_is_refused() {
    let forge = Forge::new();
    let mut tls = client_tls(&forge, Some(forge.sign(&forge.slot())));
    tls.alpn_protocols.clear();
    refused(&forge, tls, Refusal::WrongProtocol).await;
}

#[tokio::test]
async fn a_refused_satellite_knows_why() {
    let forge = Forge::new();
    let master = Master::of(&forge).await;
    let certificates = forge.slot_directory();
    let mut params = forge.slot();
    lives(&mut params, Duration::days(-8), Duration::seconds(-5));
    write_slot(&certificates, &params, &forge);
    let (events, mut told) = mpsc::channel(8);
    let stop = CancellationToken::new();
    let settings = Settings {
        masters: vec![master.address.to_string()],
        certificates,
        congestion: Congestion::default(),
        linked_before: false,
    };
    let task = tokio::spawn(run(settings, events, Refusals::default().into(), stop.clone()));
    let (reason, refusal) = loop {
        if let LinkEvent::Disconnected { reason, refusal, .. } = in_time("an end", told.recv()).await.unwrap() {
            break (reason, refusal);
        }
    };
    assert_eq!(refusal, Some(Refusal::Expired), "{reason}");
    assert!(reason.contains("the master refused this satellite"), "{reason}");
    until("the master's count", || master.links.refusals().total(Refusal::Expired) > 0).await;
    stop.cancel();
    in_time("the satellite's stop", task).await.unwrap();
}

fn write_slot(directory: &std::path::Path, params: &CertificateParams, forge: &Forge) {
    let (certificate, key) = forge.sign_pem(params);
    std::fs::write(directory.join("slot.crt"), certificate).unwrap();
    std::fs::write(directory.join("slot.key"), key).unwrap();
}
