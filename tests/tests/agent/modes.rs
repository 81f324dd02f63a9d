//! Every command, in every mode in which daemons are found, with every way in which `check_nrpe` may ask: the agent says what
//! Debian's daemon says.

use std::collections::BTreeSet;

use tests::figure::figure;
use tests::nrpe::mode::{Keys, Mode};
use tests::nrpe::{Transport, installed};
use tests::pki::Pki;

use crate::scene::{COMMANDS, Pair};

/// Ways to ask, beside what the mode itself needs.
const WAYS: &[&[&str]] = &[
    &[],
    &["-2"],
    &["-d", "0"],
    &["-d", "2"],
    &["-L", "AECDH:@SECLEVEL=0"],
    &["-L", "ADH:@SECLEVEL=0"],
    &["-L", "ECDHE+AESGCM"],
    &["-S", "TLSv1"],
    &["-S", "TLSv1.1"],
    &["-S", "TLSv1.2"],
    &["-S", "TLSv1.3"],
    &["-S", "TLSv1.2+"],
];

/// Every command once in a mode, plain `check_nrpe` as it is given to such a host.
fn every_command(mode: Mode) -> usize {
    let pki = Pki::new().unwrap();
    let pair = Pair::start(mode, &pki, "");
    let options = mode.options(&Keys::from(&pki));
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let mut statuses = BTreeSet::new();
    let mut compared = 0;
    for (name, _) in COMMANDS {
        for version in [None, Some("-2")] {
            // Its time is over for both; once is enough.
            if *name == "slow" && version.is_some() {
                continue;
            }
            let options: Vec<&str> = version.into_iter().chain(options.iter().copied()).collect();
            statuses.insert(pair.same(name, &options).status);
            compared += 1;
        }
    }
    for request in ["_NRPE_CHECK", "", "not_defined", "ok "] {
        pair.same(request, &options);
        compared += 1;
    }
    assert_eq!(statuses, BTreeSet::from([0, 1, 2, 3]), "the commands show every state");
    compared
}

/// Every way to ask, and the wrong transport, with certificates that fit and that do not.
fn every_way(mode: Mode) -> usize {
    let pki = Pki::new().unwrap();
    let pair = Pair::start(mode, &pki, "");
    let file = |path: &std::path::Path| path.display().to_string();
    let (ca, foreign_ca) = (file(&pki.authority.certificate), file(&pki.foreign_authority.certificate));
    let (client, client_key) = (file(&pki.client.certificate), file(&pki.client.key));
    let (foreign, foreign_key) = (file(&pki.foreign_client.certificate), file(&pki.foreign_client.key));
    let mut ways: Vec<Vec<&str>> = WAYS.iter().map(|way| way.to_vec()).collect();
    if mode.has_certificate() {
        for version in ["TLSv1.2", "TLSv1.3"] {
            ways.push(vec!["-S", version, "-A", &ca]);
            ways.push(vec!["-S", version, "-A", &foreign_ca]);
            ways.push(vec!["-S", version, "-A", &ca, "-C", &client, "-K", &client_key]);
            ways.push(vec!["-S", version, "-C", &foreign, "-K", &foreign_key]);
        }
    }
    let mut statuses = BTreeSet::new();
    for way in &ways {
        statuses.insert(pair.same("ok", way).status);
    }
    let other = if mode.transport() == Transport::Plain { Transport::Anonymous } else { Transport::Plain };
    let wrong = pair.same_over(other, "ok", &[]);
    assert_ne!(wrong.status, 0, "{wrong:?}");
    if mode != Mode::NotAllowed {
        assert!(statuses.contains(&0), "{mode:?}: no way leads to an answer");
    }
    ways.len() + 1
}

#[test]
fn every_command_is_answered_alike_over_plain_tcp() {
    if installed() {
        figure(10, &format!("{} answers equal over plain", every_command(Mode::Plain)));
    }
}

#[test]
fn every_command_is_answered_alike_over_anonymous_tls() {
    if installed() {
        figure(10, &format!("{} answers equal over anonymous TLS", every_command(Mode::Anonymous)));
    }
}

#[test]
fn every_command_is_answered_alike_to_a_client_with_a_certificate() {
    if installed() {
        figure(10, &format!("{} answers equal with certificates", every_command(Mode::RequiredClient)));
    }
}

#[test]
fn every_way_to_ask_ends_alike_without_certificates() {
    if installed() {
        let modes = [Mode::Plain, Mode::Anonymous, Mode::AdhForced, Mode::AecdhOnly, Mode::OldProtocol];
        let compared: usize = modes.into_iter().map(every_way).sum();
        figure(10, &format!("{compared} ways to ask end alike in {} modes without certificates", modes.len()));
    }
}

#[test]
fn every_way_to_ask_ends_alike_with_certificates() {
    if installed() {
        let modes = [
            Mode::Certificate,
            Mode::CertificateOrAnonymous,
            Mode::OptionalClient,
            Mode::RequiredClient,
            Mode::NoAnonymous,
        ];
        let compared: usize = modes.into_iter().map(every_way).sum();
        figure(10, &format!("{compared} ways to ask end alike in {} modes with certificates", modes.len()));
    }
}

#[test]
fn every_way_to_ask_ends_alike_where_we_are_not_allowed() {
    if installed() {
        every_way(Mode::NotAllowed);
    }
}
