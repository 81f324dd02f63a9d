//! Session tickets of the agent: good across SIGHUP, worthless after a change of what they stand for, and, unlike nrpe's, good with
//! client certificates.

use std::path::{Path, PathBuf};
use std::process::Command;

use satellite::probe::nrpe::policy::{Endpoint, Security};
use satellite::probe::nrpe::{Client, Query};
use tests::agent::Agent;
use tests::missing::missing;
use tests::nrpe::Transport;
use tests::nrpe::mode::{Keys, Mode};
use tests::pki::Pki;

use crate::scene::{COMMANDS, PATIENCE};

const OPENSSL: &str = "/usr/bin/openssl";
const AGAIN: &str = "the configuration was read again";

#[tokio::test]
async fn a_ticket_is_good_until_tls_itself_changes() {
    let mut agent = Agent::start(Transport::Anonymous, COMMANDS, "").unwrap();
    let client = Client::new().unwrap();
    let address = agent.address;
    let endpoint =
        Endpoint { address: address.ip().to_string(), port: address.port(), security: Security::anonymous() };
    let ok = Query::new(endpoint, "ok");
    for number in 0..5 {
        let reply = client.ask(&ok, PATIENCE).await.unwrap();
        assert_eq!(reply.agreed.unwrap().resumed, number > 0, "check {number}");
    }
    agent.reload(&[("ok", "/bin/echo other")], "", AGAIN).unwrap();
    let reply = client.ask(&ok, PATIENCE).await.unwrap();
    assert!(reply.agreed.unwrap().resumed, "SIGHUP keeps the keys");
    assert_eq!(reply.answer.text, b"other");
    agent.reload(COMMANDS, "ssl_cipher_list=AECDH:@SECLEVEL=0\n", AGAIN).unwrap();
    let reply = client.ask(&ok, PATIENCE).await.unwrap();
    assert!(!reply.agreed.unwrap().resumed, "what a ticket stood for has changed");
}

/// Shakes hands as `openssl s_client` with the daemon's CA and these options; its report.
fn shake(agent: &Agent, pki: &Pki, options: &[&Path]) -> String {
    let mut command = Command::new("/bin/sh");
    // It sends a line and waits until the agent closes, so that tickets of TLS 1.3 arrive too.
    command.args([
        "-c",
        "echo | \"$@\" 2>&1",
        "sh",
        OPENSSL,
        "s_client",
        "-ign_eof",
        "-connect",
        &agent.address.to_string(),
    ]);
    command.arg("-CAfile").arg(&pki.authority.certificate);
    command.arg("-cert").arg(&pki.client.certificate).arg("-key").arg(&pki.client.key).args(options);
    String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned()
}

#[test]
fn tickets_are_good_with_client_certificates() {
    if !Path::new(OPENSSL).exists() {
        missing(OPENSSL, "openssl");
        return;
    }
    let pki = Pki::new().unwrap();
    for mode in [Mode::OptionalClient, Mode::RequiredClient] {
        let mut agent = Agent::in_mode(mode, &Keys::from(&pki), COMMANDS, "connection_timeout=1\n").unwrap();
        for version in ["-tls1_2", "-tls1_3"] {
            let session = PathBuf::from(pki.directory()).join(format!("session-{mode:?}{version}"));
            let version = Path::new(version);
            let first = shake(&agent, &pki, &[version, Path::new("-sess_out"), &session]);
            assert!(first.contains("New, TLSv1"), "{mode:?} {version:?}: {first}");
            let second = shake(&agent, &pki, &[version, Path::new("-sess_in"), &session]);
            assert!(second.contains("Reused, TLSv1"), "{mode:?} {version:?}: {second}\n{}", agent.log());
        }
        // A ticket of a client with a certificate is none for a daemon that was told of other certificates.
        let session = PathBuf::from(pki.directory()).join(format!("session-{mode:?}-tls1_2"));
        let keys = Keys::from(&pki);
        let (ca, own, key) =
            (pki.foreign_authority.certificate.display(), keys.certificate.display(), keys.key.display());
        let other = format!(
            "connection_timeout=1\nssl_cacert_file={ca}\nssl_cert_file={own}\nssl_privatekey_file={key}\nssl_client_certs=2\n"
        );
        agent.reload(COMMANDS, &other, AGAIN).unwrap();
        let third = shake(&agent, &pki, &[Path::new("-tls1_2"), Path::new("-sess_in"), &session]);
        assert!(!third.contains("Reused, TLSv1"), "{mode:?}: {third}");
    }
}
