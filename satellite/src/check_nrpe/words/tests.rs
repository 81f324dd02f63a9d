//! check_nrpe's sentences, streams and exit codes, class by class.

use std::time::Duration;

use super::*;
use crate::probe::nrpe::error::Phase;
use crate::probe::nrpe::packet::Version;

fn answered(code: i16, text: &[u8]) -> Said {
    answer(&Answer { version: Version::V4, code, text: text.to_vec() })
}

fn failed(class: Class, on_failure: Option<State>) -> Said {
    let options = Options { host: Some("web01".to_owned()), on_failure, ..Options::default() };
    fault(&of(class), &options)
}

fn of(class: Class) -> Fault {
    let peer = Some("192.0.2.1:5666".parse().unwrap());
    Fault { class, endpoint: "web01:5666".to_owned(), peer, source: None }
}

fn out(said: &Said) -> String {
    String::from_utf8_lossy(&said.stdout).into_owned()
}

#[test]
fn an_answer_is_passed_on_with_its_code() {
    let said = answered(1, b"WARN caf\xe9\nline 2");
    assert_eq!((said.code, said.stdout.as_slice(), said.stderr.as_str()), (1, &b"WARN caf\xe9\nline 2\n"[..], ""));
}

#[test]
fn a_code_that_is_no_state_is_unknown() {
    for code in [4, 99, 300, -1, i16::MIN] {
        assert_eq!(answered(code, b"text").code, 3, "{code}");
    }
}

#[test]
fn no_text_is_never_ok() {
    let said = answered(0, b"");
    assert_eq!((said.code, out(&said).as_str()), (3, "CHECK_NRPE: No output returned from daemon.\n"));
}

#[test]
fn a_refused_connection_is_told_on_standard_error_in_two_lines() {
    let said = failed(Class::Refused, None);
    assert_eq!((said.code, out(&said).as_str()), (2, ""));
    assert_eq!(
        said.stderr,
        "connect to address 192.0.2.1 port 5666: Connection refused\nconnect to host web01 port 5666: Connection refused\n"
    );
    let joined = said.clone().on_one_stream();
    assert_eq!((joined.stderr.as_str(), out(&joined)), ("", said.stderr));
}

#[test]
fn the_state_of_a_host_that_cannot_be_asked_is_the_operators() {
    let timeout = Class::Timeout { phase: Phase::Answer, after: Duration::from_secs(7) };
    let said = failed(timeout, Some(State::Warning));
    assert_eq!((said.code, out(&said).as_str()), (1, "CHECK_NRPE STATE WARNING: Socket timeout after 7 seconds.\n"));
    assert_eq!(failed(Class::Dns("Name or service not known".to_owned()), Some(State::Unknown)).code, 3);
    assert_eq!(failed(Class::Dns("Name or service not known".to_owned()), None).code, 2);
    assert_eq!(failed(Class::ClosedInHandshake, Some(State::Ok)).code, 0);
    assert_eq!(failed(Class::ClosedBeforeAnswer, Some(State::Ok)).code, 3, "no answer is no unreachable host");
}

#[test]
fn files_that_cannot_be_used_are_named_as_check_nrpe_names_them() {
    let options = Options {
        certificate: Some("/c".into()),
        key: Some("/k".into()),
        ca: Some("/ca".into()),
        bind: Some("192.0.2.7".to_owned()),
        on_failure: Some(State::Ok),
        ..Options::default()
    };
    for (why, line) in [
        ("/c: no certificate in it", "Error: could not use certificate file '/c'."),
        ("/k: no key in it", "Error: could not use private key file '/k'."),
        ("/ca: Permission denied", "Error: could not use CA certificate '/ca'."),
    ] {
        let said = fault(&of(Class::TlsFiles(why.to_owned())), &options);
        assert_eq!((said.code, out(&said)), (2, format!("{line}\n{why}\n")), "a state of -t is about the host");
    }
    let bound = fault(&of(Class::Bind("Cannot assign requested address".to_owned())), &options);
    assert!(
        bound.stderr.starts_with("bind: 192.0.2.7: Cannot assign requested address\nconnect to host "),
        "{bound:?}"
    );
    assert_eq!(bound.code, 0);
}

#[test]
fn an_explanation_is_our_sentence_and_what_to_do() {
    let query = Options { host: Some("web01".to_owned()), ..Options::default() }.query(None);
    let said = explanation(&of(Class::Refused), &query);
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(said.starts_with("NRPE web01:5666"), "{said}");
}

#[test]
fn wrong_use_says_first_what_is_wrong() {
    let said =
        misuse(&Misuse::new("no host was given: -H HOST").after(&["check_nrpe: invalid option -- 'x'".to_owned()]));
    assert!(out(&said).starts_with("Error: no host was given: -H HOST\n\nIncorrect command line"), "{}", out(&said));
    assert_eq!((said.code, said.stderr.as_str()), (3, "check_nrpe: invalid option -- 'x'\n"));
    assert_eq!(out(&misuse(&Misuse::bare("Timeout value must be a positive integer"))).lines().count(), 1);
}

#[test]
fn help_names_every_option() {
    let said = teach(Teach::Help);
    let text = out(&said);
    assert_eq!(said.code, 3);
    for letter in "Hpcatuf46bn23PACKLSdEgsDhVl".chars() {
        assert!(text.contains(&format!("-{letter}, --")), "-{letter}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 80), "lines fit a terminal");
}

#[test]
fn what_to_do_is_said_in_options_of_this_program() {
    use crate::probe::nrpe::policy::{Endpoint, NameRule, Peer, Security, TlsPolicy};

    let verified = Security::Tls(std::sync::Arc::new(TlsPolicy {
        peer: Peer::Verified { ca: None, name: NameRule::Any, pins: Vec::new() },
        ..TlsPolicy::default()
    }));
    let name = |name: &str| name.to_owned();
    for (class, says) in [
        (Class::RefusedHere { in_handshake: true }, "(-n)?"),
        (Class::ClosedInHandshake, "(-n)?"),
        (Class::NotTls(name("x")), "(-n)?"),
        (Class::Alert { number: 40, name: name("x") }, "nothing weaker"),
        (Class::ClientCertificate { alert: None, shown: false }, "name one with -C and -K"),
        (Class::TlsFiles(name("x")), "who may read it"),
        (Class::Untrusted(name("x")), "in the file -A names"),
        (Class::Untrusted(name("self-signed certificate")), "naming its file in -A or its key in --pin"),
        (Class::Untrusted(name("EE certificate key too weak")), "-L DEFAULT@SECLEVEL=1"),
        (Class::WrongName(name("x")), "the one --verify-name says"),
        (Class::WrongPin(name("00ff")), "add 00ff to --pin"),
    ] {
        for security in [Security::Plain, Security::anonymous(), verified.clone()] {
            let endpoint = Endpoint { address: name("web01"), port: 5666, security: security.clone() };
            let said = explanation(&of(class.clone()), &Query::new(endpoint, "x"));
            assert!(!said.replace("nrpe.cfg", "").contains("nrpe."), "{said}");
            if security == verified {
                assert!(said.contains(says), "{said}");
            }
        }
    }
}
