//! Checks of pages, certificates, names, SSH servers and ports: what the files say is what is asked, and each mistake is named.

use shared::check::network::{Agreement, CertificateDays, RecordType, StatusRange};
use shared::check::{Check, HttpCheck, State, TcpCheck};

use super::{BASE, catalog, object};
use crate::config::{Sources, compile};

/// The check that this text below `check:` makes on the host `web`.
fn made(check: &str) -> Check {
    let text = format!(
        "{BASE}hosts: {{ web: {{ address: 192.0.2.1, vars: {{ path: /x, port: 8443 }} }} }}\nservices: {{ s: {{ hosts: [web], check: {check} }} }}\n"
    );
    object(&catalog(&text), "web!s").check.clone()
}

fn http(check: &str) -> HttpCheck {
    match made(check) {
        Check::Http(check) => *check,
        other => panic!("{other:?}"),
    }
}

/// Messages and hints of the mistakes in this check.
fn said(check: &str) -> Vec<String> {
    let text = format!("{BASE}hosts: {{ web: {{}} }}\nservices: {{ s: {{ hosts: [web], check: {check} }} }}\n");
    match compile(&Sources::from_texts([("a.yaml", text.as_str())])) {
        Ok((_, warnings)) => warnings.into_iter().map(|warning| warning.message).collect(),
        Err(errors) => errors
            .into_iter()
            .map(|error| {
                assert!(error.line > 0 && error.column > 0, "{error:?}");
                format!("{} = {}", error.message, error.hint.unwrap_or_default())
            })
            .collect(),
    }
}

#[test]
fn a_path_asks_the_host_and_a_url_whom_it_names() {
    let check = http("{ http: /health }");
    assert_eq!((check.address.as_str(), check.host.as_str(), check.port), ("192.0.2.1", "192.0.2.1", 80));
    assert_eq!((check.path.as_str(), check.method.as_str(), check.tls.is_none()), ("/health", "GET", true));
    let check = http("{ http: \"https://Www.Example.net:8443/a?b\" }");
    assert_eq!((check.address.as_str(), check.host.as_str(), check.port), ("www.example.net", "www.example.net", 8443));
    assert!(check.tls.is_some_and(|tls| tls.verify && tls.ca.is_none()));
    let check = http("{ http: { url: \"https://www.example.net/\", address: 192.0.2.9 } }");
    assert_eq!((check.address.as_str(), check.host.as_str(), check.port), ("192.0.2.9", "www.example.net", 443));
    let check = http("{ http: }");
    assert_eq!((check.path.as_str(), check.port), ("/", 80));
}

#[test]
fn every_key_of_http_arrives() {
    let check = http(
        "{ http: { path: \"{{ host.vars.path }}\", port: \"{{ host.vars.port }}\", tls: true, name: www.example.net, method: PUT,
        body: x, headers: { X-Probe: \"{{ host.name }}\" }, status: [200, 3xx, \"400-404\"], contains: [a, b], lacks: error,
        follow: 3, warning: 500ms, critical: \"0.1:2\", certificate: { warning: 20d }, verify: false, ca: /etc/ca.pem } }",
    );
    assert_eq!((check.path.as_str(), check.port, check.host.as_str()), ("/x", 8443, "www.example.net"));
    assert_eq!((check.method.as_str(), check.body.as_deref()), ("PUT", Some("x")));
    assert_eq!(check.headers, [("X-Probe".to_owned(), "web".to_owned())]);
    let range = |first, last| StatusRange { first, last };
    assert_eq!(check.status, [range(200, 200), range(300, 399), range(400, 404)]);
    assert_eq!((check.contains.len(), check.lacks.as_slice()), (2, ["error".to_owned()].as_slice()));
    assert_eq!(check.follow, 3);
    assert_eq!(check.limits.warning, "0.5".parse().ok());
    assert_eq!(check.limits.critical, "0.1:2".parse().ok());
    assert_eq!(check.certificate, Some(CertificateDays { warning: Some(20), critical: None }));
    assert!(check.tls.is_some_and(|tls| !tls.verify && tls.ca.as_deref() == Some("/etc/ca.pem")));
    let check = http("{ http: { tls: true, certificate: , body: x } }");
    assert_eq!(check.certificate, Some(CertificateDays { warning: Some(30), critical: Some(7) }));
    assert_eq!((check.method.as_str(), check.port), ("POST", 443));
}

#[test]
fn names_certificates_and_ssh_servers_are_asked_for() {
    let Check::Dns(check) = made("{ dns: www.example.net }") else { panic!("no dns check") };
    assert_eq!(
        (check.name.as_str(), check.kind, check.server, check.port),
        ("www.example.net", RecordType::A, None, None)
    );
    let text = "{ dns: { name: _sip._udp.shop_web, type: SRV, server: \"{{ host.address }}\", port: 5353, expect: [a, b], match: exact } }";
    let Check::Dns(check) = made(text) else { panic!("no dns check") };
    assert_eq!((check.server.as_deref(), check.port, check.kind), (Some("192.0.2.1"), Some(5353), RecordType::Srv));
    assert_eq!((check.expect.len(), check.agreement), (2, Agreement::Exact));
    let Check::Certificate(check) = made("{ certificate: 993 }") else { panic!("no certificate check") };
    assert_eq!((check.address.as_str(), check.port, check.tls.verify), ("192.0.2.1", 993, true));
    assert_eq!(check.days, CertificateDays { warning: Some(30), critical: Some(7) });
    let Check::Certificate(check) =
        made("{ certificate: { name: a.example, warning: 14d, critical: 3d, verify: false } }")
    else {
        panic!("no certificate check")
    };
    assert_eq!((check.port, check.tls.name.as_deref(), check.tls.verify), (443, Some("a.example"), false));
    assert_eq!(check.days, CertificateDays { warning: Some(14), critical: Some(3) });
    let Check::Ssh(check) = made("{ ssh: }") else { panic!("no ssh check") };
    assert_eq!((check.port, check.version), (22, None));
    let Check::Ssh(check) = made("{ ssh: { port: 2222, version: OpenSSH_9.2p1, protocol: 2.0, warning: 1s } }") else {
        panic!("no ssh check")
    };
    assert_eq!(
        (check.port, check.version.as_deref(), check.protocol.as_deref()),
        (2222, Some("OpenSSH_9.2p1"), Some("2.0"))
    );
}

#[test]
fn a_port_may_have_to_say_something() {
    assert_eq!(made("{ tcp: 80 }"), Check::Tcp(TcpCheck::port("192.0.2.1", 80)));
    let Check::Tcp(check) =
        made("{ tcp: { port: 25, send: \"QUIT\\r\\n\", expect: \"220\", mismatch: critical, warning: 2s } }")
    else {
        panic!("no tcp check")
    };
    let talk = check.talk.expect("a talk");
    assert_eq!(
        (talk.send.as_deref(), talk.expect, talk.mismatch),
        (Some("QUIT\r\n"), vec!["220".to_owned()], State::Critical)
    );
    assert_eq!(check.limits.and_then(|limits| limits.warning), "2".parse().ok());
}

#[test]
fn each_mistake_is_named_with_advice() {
    for (check, words) in [
        ("{ tcp: { } }", "a tcp check needs a port = write tcp: { port: 80 }"),
        ("{ tcp: 0 }", "is no port; a port is a number from 1 to 65535"),
        ("{ tcp: { port: 80, args: [a] } }", "unknown key of `tcp`: `args`"),
        ("{ tcp: 80, args: [a] }", "a tcp check takes no `args`"),
        ("{ tcp: { port: 80, ca: /a } }", "`ca` means nothing without TLS"),
        ("{ tcp: { port: 80, mismatch: critical } }", "`mismatch` means nothing without `expect`"),
        ("{ tcp: { port: 80, expect: \"\" } }", "an empty text is found in everything"),
        ("{ http: \"ftp://a/\" }", "is no web address: it does not begin with http:// or https://"),
        ("{ http: \"http://me:pw@a/\" }", "it has a user name or password in it"),
        ("{ http: { path: health } }", "is no path: it does not begin with /"),
        ("{ http: { url: \"http://a/\", port: 81 } }", "`port` stands in the `url` already"),
        ("{ http: { tls: yes } }", "`tls` must be true or false, and this is “yes”"),
        ("{ http: { status: 20 } }", "is no status of HTTP = write 200, 2xx"),
        ("{ http: { status: [\"399-200\"] } }", "is no status of HTTP"),
        ("{ http: { method: get } }", "is no method of HTTP"),
        ("{ http: { headers: { Host: a } } }", "the header `Host` is made by Perigee = write name:"),
        ("{ http: { headers: { \"a b\": c } } }", "is no name of a header"),
        ("{ http: { headers: { a: \"b\\r\\nc: d\" } } }", "must not hold control characters"),
        ("{ http: { headers: [a] } }", "must be a mapping"),
        ("{ http: { follow: 99 } }", "a number of redirects from 0 to 15"),
        ("{ http: { verify: false } }", "`verify` means nothing without TLS"),
        ("{ http: { warning: fast } }", "must be a response time"),
        ("{ http: { warning: 2s, critical: 1s } }", "the bound of `warning` lies above"),
        ("{ http: { timeout: 5s } }", "`timeout` belongs beside `check`, not into it"),
        ("{ http: { regex: a.*b } }", "`regex` is not in this version"),
        ("{ http: { contians: a } }", "unknown key of `http`: `contians` = did you mean `contains`?"),
        (
            "{ http: { tls: true, certificate: { warning: 30 } } }",
            "is no time before a certificate's end (1d to 3650d) = write 30d for days",
        ),
        ("{ http: { tls: true, ca: ca.pem } }", "`ca` must be the absolute path of a file"),
        ("{ certificate: { warning: 5d, critical: 10d } }", "critical (10d) comes before warning (5d)"),
        ("{ certificate: { address: \"a b\" } }", "`address` must be a name or an address"),
        ("{ dns: { type: A } }", "a dns check needs a name"),
        ("{ dns: { name: a, type: AAA } }", "`type` must be one of A, AAAA"),
        ("{ dns: ü.example }", "is no name that can be asked for"),
        ("{ dns: a..b }", "“a..b” is no name that can be asked for"),
        ("{ dns: \"a b\" }", "is no name that can be asked for"),
        ("{ dns: { name: a, match: any } }", "`match` means nothing without `expect`"),
        ("{ ssh: { port: ssh } }", "“ssh” is no port"),
        ("{ ssh: { version: { a: b } } }", "`version` must be a text"),
        ("{ htpp: / }", "did you mean `http`?"),
        ("{ http: \"{{ host.vars.nowhere }}\" }", "nowhere"),
    ] {
        let found = said(check);
        assert!(found.iter().any(|said| said.contains(words)), "{check}: {found:?}");
        assert_eq!(found.len(), 1, "{check}: one thing is said once: {found:?}");
    }
}

#[test]
fn a_command_may_be_a_network_check() {
    let text = format!(
        "{BASE}commands: {{ page: {{ http: {{ path: \"{{{{ args.path }}}}\", contains: \"{{{{ args.text }}}}\" }} }} }}
hosts: {{ web: {{}} }}
services: {{ s: {{ hosts: [web], check: {{ command: page, args: {{ path: /a, text: ready }} }} }} }}
"
    );
    let catalog = catalog(&text);
    let object = object(&catalog, "web!s");
    let Check::Http(check) = &object.check else { panic!("{object:?}") };
    assert_eq!((check.path.as_str(), check.contains.as_slice()), ("/a", ["ready".to_owned()].as_slice()));
    assert_eq!(object.command_name, "page");
}
