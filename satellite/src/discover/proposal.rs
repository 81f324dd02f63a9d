//! Findings as a configuration that the master takes: hosts with the way they are spoken to, services by the commands that were
//! found, and in comments what an operator has to decide. Pure, and deterministic: the same findings give the same text.
//!
//! The surprise: a daemon with a certificate is proposed with a pin of its key, believed because it was seen. That is more than
//! anonymous TLS gives, and less than the operator's word; the comment says so.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use shared::text::is_obeyed;

use super::findings::{Counts, Daemon, Finding, Mode, Verdict};

/// The port that need not be written.
const DEFAULT_PORT: u16 = 5666;
/// Where a list of hosts is broken.
const WIDTH: usize = 120;
/// The service that every host with an NRPE daemon has by itself; a command must not take its name.
const IMPLICIT_SERVICE: &str = "nrpe";

/// What a proposal needs besides the findings.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Region of the hosts.
    pub region: String,
    /// Whether it is a part of a configuration that has the region already.
    pub part: bool,
    /// Targets that were not asked to the end, because the operator broke off.
    pub left: usize,
    /// Files that were shown to daemons that want a client certificate: certificate, key.
    pub identity: Option<(String, String)>,
}

/// The proposal.
#[must_use]
pub fn yaml(findings: &[Finding], counts: &Counts, frame: &Frame) -> String {
    // Writing to a String cannot fail.
    let mut text = String::new();
    let _ = writeln!(text, "# Proposed by `perigee-satellite discover nrpe`: {}.", summary(counts, frame.left));
    text.push_str("# Look it through before it runs: `perigee-master check-config FILE` names mistakes, and every command below was\n");
    text.push_str("# found by asking for it once, without arguments.\n");
    let found: Vec<(String, &Finding, &Daemon)> = named(findings);
    if found.is_empty() {
        text.push_str("# There is nothing to propose.\n");
    } else {
        if !frame.part {
            let _ = write!(text, "\nregions:\n  {}: {{ slots: 1 }}\n", quoted(&frame.region));
        }
        text.push_str("\nhosts:\n");
        for (name, finding, daemon) in &found {
            host(&mut text, name, finding, daemon, frame);
        }
        services(&mut text, &found);
    }
    remarks(&mut text, findings);
    text
}

/// How many of each, in words.
#[must_use]
pub fn summary(counts: &Counts, left: usize) -> String {
    let mut parts = vec![
        format!("{} asked", plural(counts.asked, "target", "targets")),
        plural(counts.nrpe, "NRPE daemon", "NRPE daemons"),
    ];
    for (count, what) in [
        (counts.refused, "refused here"),
        (counts.wants_certificate, "want a client certificate"),
        (counts.not_nrpe, "no NRPE"),
        (counts.nobody, "without an answer"),
        (left, "not asked to the end"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    parts.join(", ")
}

fn plural(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Every daemon with a name of its own: its address, with the port where one address has several.
fn named(findings: &[Finding]) -> Vec<(String, &Finding, &Daemon)> {
    let daemons: Vec<_> = findings.iter().filter_map(|finding| Some((finding, finding.daemon()?))).collect();
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for (finding, _) in &daemons {
        *times.entry(&finding.address).or_default() += 1;
    }
    let name = |finding: &Finding| match times.get(finding.address.as_str()) {
        Some(1) => finding.address.clone(),
        _ => format!("{}-{}", finding.address, finding.port),
    };
    daemons.into_iter().map(|(finding, daemon)| (name(finding), finding, daemon)).collect()
}

fn host(text: &mut String, name: &str, finding: &Finding, daemon: &Daemon, frame: &Frame) {
    let certificate = daemon.tls.as_ref().and_then(|tls| tls.certificate.as_ref());
    let mut security = daemon.tls.as_ref().map_or("plain".to_owned(), |tls| format!("{} {}", tls.protocol, tls.cipher));
    security.push_str(match daemon.mode {
        Mode::Plain => ": neither encrypted nor authenticated",
        Mode::Anonymous => ": encrypted, not authenticated",
        Mode::Certificate => "",
    });
    let _ = writeln!(text, "  # {}, {security}", daemon.says);
    if let Some(certificate) = certificate {
        let _ = writeln!(text, "  # {}; its key is pinned because it was", certificate.describe());
        text.push_str("  # seen just now: compare it with the host's, or trust its issuer instead (`ca: FILE`)\n");
    }
    for (command, why) in &daemon.unclear {
        let _ = writeln!(text, "  # {command} gave no clear sign: {}", comment(why));
    }
    let mut keys = Vec::new();
    if frame.part {
        keys.push(format!("region: {}", quoted(&frame.region)));
    }
    if name != finding.address {
        keys.push(format!("address: {}", quoted(&finding.address)));
    }
    let mut nrpe = Vec::new();
    match (daemon.mode, certificate) {
        (Mode::Plain, _) => nrpe.push("tls: plain".to_owned()),
        (Mode::Certificate, Some(certificate)) => {
            nrpe.push(format!("tls: certificate, pins: [{}]", quoted(&certificate.pin)));
            if let (true, Some((certificate, key))) = (daemon.client_certificate, &frame.identity) {
                nrpe.push(format!("certificate: {}, key: {}", quoted(certificate), quoted(key)));
            }
        }
        (Mode::Anonymous | Mode::Certificate, _) => nrpe.push("tls: anonymous".to_owned()),
    }
    if finding.port != DEFAULT_PORT {
        nrpe.push(format!("port: {}", finding.port));
    }
    keys.push(format!("nrpe: {{ {} }}", nrpe.join(", ")));
    let _ = writeln!(text, "  {}: {{ {} }}", quoted(name), keys.join(", "));
}

fn services(text: &mut String, found: &[(String, &Finding, &Daemon)]) {
    let mut hosts: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut states: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    for (name, _, daemon) in found {
        for (command, said) in &daemon.commands {
            hosts.entry(command).or_default().push(name);
            *states.entry(command).or_default().entry(said.state.unwrap_or("no answer in time")).or_default() += 1;
        }
    }
    if hosts.is_empty() {
        text.push_str(
            "\n# None of the commands that were asked for is defined anywhere (--commands a,b asks for others).\n",
        );
        return;
    }
    text.push_str("\nservices:\n");
    let names = service_names(hosts.keys().copied());
    for (command, hosts) in &hosts {
        let seen = states.get(command).into_iter().flatten().map(|(state, count)| format!("{count} {state}"));
        let _ = writeln!(text, "  {}:", quoted(names.get(command).map_or(*command, String::as_str)));
        let _ = writeln!(text, "    # when it was looked for: {}", seen.collect::<Vec<_>>().join(", "));
        list(text, "    hosts: [", hosts);
        let _ = writeln!(text, "    check: {{ nrpe: {} }}", quoted(command));
    }
}

/// `check_load` becomes the service `load`, unless two commands would become one service.
fn service_names<'c>(commands: impl Iterator<Item = &'c str>) -> BTreeMap<&'c str, String> {
    let commands: Vec<&str> = commands.collect();
    let mut taken: BTreeSet<&str> = commands.iter().copied().filter(|name| !name.starts_with("check_")).collect();
    taken.insert(IMPLICIT_SERVICE);
    let name = |command: &'c str| {
        let short = command.strip_prefix("check_").filter(|short| !short.is_empty() && !taken.contains(short));
        (command, short.unwrap_or(command).to_owned())
    };
    commands.iter().map(|&command| name(command)).collect()
}

fn list(text: &mut String, head: &str, items: &[&str]) {
    let mut line = head.to_owned();
    for (number, item) in items.iter().enumerate() {
        let item = quoted(item);
        let end = if number + 1 == items.len() { "]" } else { "," };
        if line.len() + item.len() + 2 > WIDTH && line.trim() != "" {
            text.push_str(line.trim_end());
            text.push('\n');
            line = " ".repeat(head.len());
        }
        line.push_str(&item);
        line.push_str(end);
        line.push(' ');
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

/// Comments on what is no daemon of ours yet.
fn remarks(text: &mut String, findings: &[Finding]) {
    let mut sections: [(&str, Vec<String>); 4] = [
        (
            "Refused here: something takes connections and closes them at once. Put this satellite's address into\n\
             # `allowed_hosts` there, and ask again:",
            Vec::new(),
        ),
        ("Talk only to who shows a certificate they trust (--certificate and --key show one):", Vec::new()),
        ("Something else listens:", Vec::new()),
        ("Did not answer:", Vec::new()),
    ];
    let mut quiet = 0;
    for finding in findings {
        let target = if finding.port == DEFAULT_PORT {
            finding.address.clone()
        } else {
            format!("{} port {}", finding.address, finding.port)
        };
        match &finding.verdict {
            Verdict::Nrpe(_) => {}
            Verdict::Refused { source, .. } => {
                let allow = source.map(|source| format!(": allow {source}")).unwrap_or_default();
                sections[0].1.push(format!("{target}{allow}"));
            }
            Verdict::WantsCertificate { text } => sections[1].1.push(format!("{target}: {text}")),
            Verdict::NotNrpe { text } => sections[2].1.push(format!("{target}: {text}")),
            Verdict::Nobody { text } if finding.named => sections[3].1.push(format!("{target}: {text}")),
            Verdict::Nobody { .. } => quiet += 1,
        }
    }
    if quiet > 0 {
        sections[3].1.push(format!("{} of networks and ranges", plural(quiet, "address", "addresses")));
    }
    for (heading, lines) in sections.iter().filter(|(_, lines)| !lines.is_empty()) {
        let _ = writeln!(text, "\n# {heading}");
        for line in lines {
            let _ = writeln!(text, "#   {}", comment(line));
        }
    }
}

/// What a peer said must stay a comment.
fn comment(text: &str) -> String {
    text.chars().map(|char| if is_obeyed(char) { ' ' } else { char }).collect()
}

/// A YAML text: as it is where nobody could take it for anything else, else in double quotes.
fn quoted(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/'))
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&text.to_ascii_lowercase().as_str());
    if plain {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for char in text.chars() {
        match char {
            '"' | '\\' => quoted.extend(['\\', char]),
            char if is_obeyed(char) => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(char));
            }
            char => quoted.push(char),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover::certificate::Certificate;
    use crate::discover::findings::{Said, Tls};

    fn daemon(mode: Mode, commands: &[&str]) -> Verdict {
        let tls = (mode != Mode::Plain).then(|| Tls {
            protocol: "TLSv1.2".to_owned(),
            cipher: "AECDH-AES256-SHA".to_owned(),
            certificate: (mode == Mode::Certificate).then(|| Certificate {
                subject: "db".to_owned(),
                names: vec!["db".to_owned()],
                issuer: "ca".to_owned(),
                days: 9,
                pin: "ab".repeat(32),
            }),
        });
        let said = |command: &&str| ((*command).to_owned(), Said { state: Some("OK"), output: String::new() });
        Verdict::Nrpe(Box::new(Daemon {
            peer: "192.0.2.1".parse().unwrap(),
            says: "NRPE v4.1.0".to_owned(),
            mode,
            tls,
            client_certificate: mode == Mode::Certificate,
            commands: commands.iter().map(said).collect(),
            unclear: BTreeMap::new(),
        }))
    }

    fn finding(address: &str, port: u16, named: bool, verdict: Verdict) -> Finding {
        Finding { address: address.to_owned(), port, named, verdict }
    }

    fn frame(part: bool) -> Frame {
        let identity = Some(("/etc/c.crt".to_owned(), "/etc/c.key".to_owned()));
        Frame { region: "eu".to_owned(), part, left: 0, identity }
    }

    fn proposed(findings: &[Finding], part: bool) -> String {
        let mut counts = Counts::default();
        findings.iter().for_each(|finding| counts.add(&finding.verdict));
        yaml(findings, &counts, &frame(part))
    }

    #[test]
    fn hosts_services_and_remarks() {
        let findings = [
            finding("web01", 5666, true, daemon(Mode::Anonymous, &["check_load", "check_users"])),
            finding("10.0.0.7", 7000, false, daemon(Mode::Plain, &["check_load"])),
            finding("db", 5666, true, daemon(Mode::Certificate, &[])),
            finding(
                "10.0.0.8",
                5666,
                false,
                Verdict::Refused { source: Some("10.0.0.1".parse().unwrap()), text: "x".to_owned() },
            ),
            finding("10.0.0.9", 5666, false, Verdict::Nobody { text: "x".to_owned() }),
            finding("web02", 5666, true, Verdict::Nobody { text: "connection refused\nhosts:".to_owned() }),
        ];
        let expected = "\
# Proposed by `perigee-satellite discover nrpe`: 6 targets asked, 3 NRPE daemons, 1 refused here, 2 without an answer.
# Look it through before it runs: `perigee-master check-config FILE` names mistakes, and every command below was
# found by asking for it once, without arguments.

regions:
  eu: { slots: 1 }

hosts:
  # NRPE v4.1.0, TLSv1.2 AECDH-AES256-SHA: encrypted, not authenticated
  web01: { nrpe: { tls: anonymous } }
  # NRPE v4.1.0, plain: neither encrypted nor authenticated
  \"10.0.0.7\": { nrpe: { tls: plain, port: 7000 } }
  # NRPE v4.1.0, TLSv1.2 AECDH-AES256-SHA
  # certificate of db for db, issued by ca, 9 days left; its key is pinned because it was
  # seen just now: compare it with the host's, or trust its issuer instead (`ca: FILE`)
  db: { nrpe: { tls: certificate, pins: [PIN], certificate: \"/etc/c.crt\", key: \"/etc/c.key\" } }

services:
  load:
    # when it was looked for: 2 OK
    hosts: [web01, \"10.0.0.7\"]
    check: { nrpe: check_load }
  users:
    # when it was looked for: 1 OK
    hosts: [web01]
    check: { nrpe: check_users }

# Refused here: something takes connections and closes them at once. Put this satellite's address into
# `allowed_hosts` there, and ask again:
#   10.0.0.8: allow 10.0.0.1

# Did not answer:
#   web02: connection refused hosts:
#   1 address of networks and ranges
";
        assert_eq!(proposed(&findings, false), expected.replace("PIN", &"ab".repeat(32)));
    }

    #[test]
    fn a_part_of_a_configuration_names_its_region_and_does_not_define_it() {
        let text = proposed(&[finding("web01", 5666, true, daemon(Mode::Plain, &["check_load"]))], true);
        assert!(!text.contains("regions:") && text.contains("web01: { region: eu, nrpe: { tls: plain } }"), "{text}");
    }

    #[test]
    fn two_daemons_of_one_address_are_two_hosts() {
        let findings = [
            finding("10.0.0.1", 5666, true, daemon(Mode::Plain, &[])),
            finding("10.0.0.1", 5667, true, daemon(Mode::Plain, &[])),
        ];
        let text = proposed(&findings, false);
        assert!(text.contains("\"10.0.0.1-5666\": { address: \"10.0.0.1\", nrpe: { tls: plain } }"), "{text}");
        assert!(
            text.contains("\"10.0.0.1-5667\": { address: \"10.0.0.1\", nrpe: { tls: plain, port: 5667 } }"),
            "{text}"
        );
        assert!(text.contains("None of the commands"), "{text}");
    }

    #[test]
    fn services_have_names_of_their_own() {
        let names = service_names(["check_load", "load", "check_nrpe", "check_", "backup"].into_iter());
        let expected = [
            ("backup", "backup"),
            ("check_", "check_"),
            ("check_load", "check_load"),
            ("check_nrpe", "check_nrpe"),
            ("load", "load"),
        ];
        assert_eq!(names, expected.map(|(command, name)| (command, name.to_owned())).into());
    }

    #[test]
    fn long_lists_are_broken_and_nothing_is_lost() {
        let findings: Vec<Finding> = (0..100)
            .map(|n| finding(&format!("web{n:03}.example.net"), 5666, true, daemon(Mode::Plain, &["x"])))
            .collect();
        let text = proposed(&findings, false);
        assert!(text.lines().all(|line| line.len() <= WIDTH), "{text}");
        let (_, services) = text.split_once("services:").unwrap();
        assert_eq!(services.matches("example.net").count(), 100);
    }

    #[test]
    fn what_yaml_would_read_as_something_else_is_quoted() {
        for text in ["10", "1.5", "no", "true", "a b", "[x]", "x:y", "*", "a\"b\\c", "~", "é"] {
            assert!(quoted(text).starts_with('"'), "{text}");
        }
        assert_eq!(quoted("a\"\\\n"), "\"a\\\"\\\\\\u000a\"");
        assert_eq!(quoted("web-01.example.net"), "web-01.example.net");
    }
}
