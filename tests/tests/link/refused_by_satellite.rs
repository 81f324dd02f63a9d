//! Masters that the satellite refuses: none of them hears a word of it.

use std::net::UdpSocket;
use std::path::PathBuf;
use std::sync::Arc;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, ConnectionError, Endpoint, ServerConfig};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose};
use rustls::server::NoClientAuth;
use satellite::link::tls::Congestion;
use satellite::link::{LinkEvent, Settings, run};
use shared::frame::{CLOSE_REFUSED, LINK_PROTOCOL};
use shared::identity::master_dns_name;
use shared::message::FRAME_BYTES_MAX;
use shared::refusal::{Refusal, Refusals};
use time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::forge::{Forge, Shown, dns, lives, raw_names, uri};
use crate::listen::{LOOPBACK, Log, counted_alone, in_time};

/// The product's own client against whatever listens.
struct Satellite {
    told: mpsc::Receiver<LinkEvent>,
    refusals: Arc<Refusals>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Satellite {
    fn start(masters: Vec<String>, certificates: PathBuf) -> Satellite {
        let (events, told) = mpsc::channel(8);
        let (refusals, stop) = (Arc::new(Refusals::default()), CancellationToken::new());
        let task = tokio::spawn(run(
            Settings { masters, certificates, congestion: Congestion::default(), linked_before: false },
            events,
            refusals.clone(),
            stop.clone(),
        ));
        Satellite { told, refusals, stop, task }
    }

    async fn next(&mut self) -> LinkEvent {
        in_time("an event of the satellite's link", self.told.recv()).await.unwrap()
    }

    /// The first thing that happens must be a failure: its reason and the rule broken.
    async fn fails(&mut self) -> (String, Option<Refusal>) {
        match self.next().await {
            LinkEvent::Disconnected { reason, refusal, .. } => (reason, refusal),
            other => panic!("{other:?}"),
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        in_time("the satellite's stop", self.task).await.unwrap();
    }
}

/// A server that shows this and asks for nothing; yields how each handshake went.
fn listening(shown: Shown, protocol: &[u8]) -> (String, mpsc::Receiver<Result<Connection, ConnectionError>>) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::new(NoClientAuth))
        .with_single_cert(shown.0, shown.1)
        .unwrap();
    tls.alpn_protocols = vec![protocol.to_vec()];
    let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    let endpoint = Endpoint::server(config, LOOPBACK.parse().unwrap()).unwrap();
    let address = endpoint.local_addr().unwrap().to_string();
    let (went, handshakes) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            if went.send(incoming.await).await.is_err() {
                break;
            }
        }
    });
    (address, handshakes)
}

async fn refused(forge: &Forge, shown: Shown, protocol: &[u8], expected: Refusal) -> ConnectionError {
    let log = Log::start();
    let (address, mut handshakes) = listening(shown, protocol);
    let mut satellite = Satellite::start(vec![address], forge.slot_directory());
    let (reason, refusal) = satellite.fails().await;
    assert_eq!(refusal, Some(expected), "{reason}");
    counted_alone(&satellite.refusals, expected).await;
    assert_eq!(log.lines_of(expected), 1);
    let end = match in_time("the handshake", handshakes.recv()).await.unwrap() {
        Ok(connection) => {
            let end = in_time("the end", connection.closed()).await;
            assert_eq!(connection.stats().frame_rx.stream, 0, "a refused master was told something");
            end
        }
        Err(error) => error,
    };
    satellite.stop().await;
    end
}

/// Refused by the stock verifier: an alert in the handshake.
async fn refused_by_tls(forge: &Forge, params: &CertificateParams, expected: Refusal) {
    let end = refused(forge, forge.sign(params), LINK_PROTOCOL, expected).await;
    assert!(matches!(end, ConnectionError::ConnectionClosed(_)), "{end:?}");
}

/// Refused by its identity.
async fn refused_by_name(forge: &Forge, params: &CertificateParams, expected: Refusal) {
    let end = refused(forge, forge.sign(params), LINK_PROTOCOL, expected).await;
    let ConnectionError::ApplicationClosed(close) = end else { panic!("{end:?}") };
    assert_eq!(close.error_code.into_inner(), u64::from(CLOSE_REFUSED));
    assert_eq!(close.reason.as_ref(), expected.kind().as_bytes());
}

/// The cases below would prove nothing if the satellite refused this one.
#[tokio::test]
async fn the_forged_good_master_is_accepted() {
    let forge = Forge::new();
    let (address, mut handshakes) = listening(forge.sign(&forge.master()), LINK_PROTOCOL);
    let mut satellite = Satellite::start(vec![address], forge.slot_directory());
    let LinkEvent::Connected { session, .. } = satellite.next().await else { panic!("not connected") };
    assert_eq!(session.leaf().identity.to_string(), forge.master_uri());
    in_time("the handshake", handshakes.recv()).await.unwrap().unwrap();
    satellite.stop().await;
}

#[tokio::test]
async fn a_master_of_a_foreign_ca_is_refused() {
    let forge = Forge::new();
    let impostor = forge.impostor();
    refused(&forge, impostor.sign(&impostor.master()), LINK_PROTOCOL, Refusal::ForeignCa).await;
}

#[tokio::test]
async fn an_expired_master_is_refused() {
    let forge = Forge::new();
    let mut params = forge.master();
    lives(&mut params, Duration::days(-8), Duration::seconds(-5));
    refused_by_tls(&forge, &params, Refusal::Expired).await;
}

#[tokio::test]
async fn a_master_not_yet_valid_is_refused() {
    let forge = Forge::new();
    let mut params = forge.master();
    lives(&mut params, Duration::hours(1), Duration::days(8));
    refused_by_tls(&forge, &params, Refusal::NotYetValid).await;
}

/// A stolen slot's certificate must not make a master: it has not the master's name, and with that name forged, not its role.
#[tokio::test]
async fn a_slot_s_certificate_is_no_master_s() {
    let forge = Forge::new();
    let mut params = forge.slot();
    params.subject_alt_names.push(dns(&master_dns_name(forge.trust.installation())));
    refused_by_tls(&forge, &params, Refusal::WrongRole).await;
    refused_by_tls(&forge, &forge.slot(), Refusal::WrongRole).await;
}

#[tokio::test]
async fn a_slot_s_identity_with_a_server_s_usage_is_refused() {
    let forge = Forge::new();
    let mut params = forge.master();
    params.subject_alt_names = vec![uri(&forge.slot_uri()), dns(&master_dns_name(forge.trust.installation()))];
    refused_by_name(&forge, &params, Refusal::BadUri).await;
}

#[tokio::test]
async fn a_master_that_may_also_be_a_client_is_refused() {
    let forge = Forge::new();
    let mut params = forge.master();
    params.insert_extended_key_usage(ExtendedKeyUsagePurpose::ClientAuth);
    refused_by_name(&forge, &params, Refusal::WrongRole).await;
}

#[tokio::test]
async fn a_master_with_two_uris_is_refused() {
    let forge = Forge::new();
    let mut params = forge.master();
    params.subject_alt_names.push(uri(&forge.slot_uri()));
    refused_by_name(&forge, &params, Refusal::SeveralUris).await;
}

#[tokio::test]
async fn a_master_without_uri_is_refused() {
    let forge = Forge::new();
    let mut params = forge.master();
    params.subject_alt_names = vec![dns(&master_dns_name(forge.trust.installation()))];
    refused_by_name(&forge, &params, Refusal::NoUri).await;
}

#[tokio::test]
async fn a_master_by_common_name_only_is_refused() {
    let forge = Forge::new();
    let mut params = forge.master();
    params.subject_alt_names.clear();
    params.distinguished_name.push(rcgen::DnType::CommonName, master_dns_name(forge.trust.installation()));
    refused_by_tls(&forge, &params, Refusal::BadCertificate).await;
}

#[tokio::test]
async fn a_master_with_a_second_dns_name_is_refused() {
    let forge = Forge::new();
    let mut params = forge.master();
    params.subject_alt_names.push(dns("monitoring.example.net"));
    refused_by_name(&forge, &params, Refusal::UnexpectedName).await;
}

#[tokio::test]
async fn a_master_with_a_name_that_cannot_be_read_is_refused() {
    let forge = Forge::new();
    let mut params = forge.master();
    let name = master_dns_name(forge.trust.installation());
    raw_names(&mut params, &[(2, name.as_bytes()), (6, forge.master_uri().as_bytes()), (6, b"\xff")]);
    refused_by_name(&forge, &params, Refusal::UnreadableNames).await;
}

#[tokio::test]
async fn the_master_of_another_installation_under_the_same_ca_is_refused() {
    let forge = Forge::new();
    let mut params = forge.master();
    params.subject_alt_names = vec![uri("perigee://somebody-else/master"), dns("master.somebody-else.perigee.invalid")];
    refused_by_tls(&forge, &params, Refusal::BadCertificate).await;
    params.subject_alt_names =
        vec![uri("perigee://somebody-else/master"), dns(&master_dns_name(forge.trust.installation()))];
    refused_by_name(&forge, &params, Refusal::UnexpectedName).await;
}

/// TLS lets the server end it: with an alert the client cannot tell from any other.
#[tokio::test]
async fn a_server_of_another_protocol_is_refused() {
    let forge = Forge::new();
    refused(&forge, forge.sign(&forge.master()), b"h3", Refusal::WrongProtocol).await;
}

#[tokio::test]
async fn a_frame_too_long_from_the_master_closes_the_link() {
    let (log, forge) = (Log::start(), Forge::new());
    let (address, mut handshakes) = listening(forge.sign(&forge.master()), LINK_PROTOCOL);
    let mut satellite = Satellite::start(vec![address], forge.slot_directory());
    let LinkEvent::Connected { link, .. } = satellite.next().await else { panic!("not connected") };
    link.send(satellite::link::Lane::Control, "hello".into()).unwrap();
    let connection = in_time("the handshake", handshakes.recv()).await.unwrap().unwrap();
    let (mut control, _reading) = in_time("the control stream", connection.accept_bi()).await.unwrap();
    control.write_all(&u32::try_from(FRAME_BYTES_MAX + 1).unwrap().to_be_bytes()).await.unwrap();
    let (reason, refusal) = satellite.fails().await;
    assert_eq!(refusal, Some(Refusal::FrameTooLong), "{reason}");
    counted_alone(&satellite.refusals, Refusal::FrameTooLong).await;
    assert_eq!(log.lines_of(Refusal::FrameTooLong), 1);
    let ConnectionError::ApplicationClosed(close) = in_time("the end", connection.closed()).await else { panic!() };
    assert_eq!(close.reason.as_ref(), Refusal::FrameTooLong.kind().as_bytes());
    satellite.stop().await;
}

#[tokio::test]
async fn silence_is_told_as_a_closed_port() {
    let forge = Forge::new();
    let silent = UdpSocket::bind(LOOPBACK).unwrap();
    let address = silent.local_addr().unwrap();
    let mut satellite = Satellite::start(vec![address.to_string()], forge.slot_directory());
    let (reason, refusal) = satellite.fails().await;
    assert_eq!(refusal, None);
    assert!(reason.contains(&format!("UDP port {} to {address} gets no answer", address.port())), "{reason}");
    assert!(reason.contains("firewall"), "{reason}");
    satellite.stop().await;
}

#[tokio::test]
async fn a_key_open_to_others_is_not_used() {
    use std::os::unix::fs::PermissionsExt;
    let forge = Forge::new();
    let certificates = forge.slot_directory();
    let key = certificates.join("slot.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (address, mut handshakes) = listening(forge.sign(&forge.master()), LINK_PROTOCOL);
    let mut satellite = Satellite::start(vec![address], certificates.clone());
    let (reason, _) = satellite.fails().await;
    assert!(reason.contains(&format!("chmod 600 {}", key.display())), "{reason}");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    while !matches!(satellite.next().await, LinkEvent::Connected { .. }) {}
    in_time("the handshake", handshakes.recv()).await.unwrap().unwrap();
    satellite.stop().await;
}

#[tokio::test]
async fn missing_certificates_are_named_with_the_command_that_makes_them() {
    let forge = Forge::new();
    let mut satellite = Satellite::start(vec!["127.0.0.1:9".to_owned()], forge.path("nothing"));
    let (reason, _) = satellite.fails().await;
    assert!(reason.contains("slot.crt") && reason.contains("perigee-master certificate"), "{reason}");
    satellite.stop().await;
}

#[tokio::test]
async fn the_second_master_is_taken_when_the_first_has_no_name() {
    let forge = Forge::new();
    let (address, mut handshakes) = listening(forge.sign(&forge.master()), LINK_PROTOCOL);
    let masters = vec!["no-such-master.invalid:7443".to_owned(), address];
    let mut satellite = Satellite::start(masters, forge.slot_directory());
    assert!(matches!(satellite.next().await, LinkEvent::Connected { .. }));
    in_time("the handshake", handshakes.recv()).await.unwrap().unwrap();
    satellite.stop().await;
}
