//! The lines that `-g FILE` gets: always how a check ended, and of TLS what the bits of `-s` ask for. No I/O; the shell stamps and
//! writes them.

use super::options::Options;
use crate::probe::nrpe::Reply;
use crate::probe::nrpe::error::Fault;

/// Bits of `-s`, as check_nrpe has them.
const STARTUP: u32 = 0x01;
const ADDRESS: u32 = 0x02;
const VERSION: u32 = 0x04;
const SUITE: u32 = 0x08;
const CERTIFICATE: u32 = 0x10;
const DETAILS: u32 = 0x20;
/// Characters of a plugin's first line that are logged.
const MAX_SHOWN: usize = 200;

fn wants(options: &Options, bit: u32) -> bool {
    options.logging.unwrap_or(0) & bit != 0
}

/// Whom and what a line is about.
#[must_use]
pub fn subject(options: &Options) -> String {
    let query = options.query(None);
    format!("{} {}", query.endpoint, String::from_utf8_lossy(&query.text).escape_debug())
}

/// What the check is about to use.
#[must_use]
pub fn settings(options: &Options) -> Vec<String> {
    if !wants(options, STARTUP) || options.plain {
        return Vec::new();
    }
    let path =
        |path: &Option<std::path::PathBuf>| path.as_ref().map_or("None".to_owned(), |path| path.display().to_string());
    let security = options.security();
    let Some(policy) = security.tls() else { return Vec::new() };
    let offer = policy.offer(policy.first());
    let newest = offer.newest.map_or_else(|| "the newest".to_owned(), |newest| format!("{newest:?}"));
    vec![
        format!("SSL Certificate File: {}", path(&options.certificate)),
        format!("SSL Private Key File: {}", path(&options.key)),
        format!("SSL CA Certificate File: {}", path(&options.ca)),
        format!("SSL Cipher List: {}", offer.ciphers),
        format!("SSL Version: {:?} to {newest}", offer.oldest),
    ]
}

/// An answer.
#[must_use]
pub fn answered(options: &Options, reply: &Reply) -> Vec<String> {
    let mut lines = Vec::new();
    let peer = reply.peer.ip();
    if wants(options, ADDRESS) {
        lines.push(format!("Connected to {peer}"));
    }
    if let Some(agreed) = &reply.agreed {
        if wants(options, VERSION) {
            lines.push(format!("Remote {peer} - SSL Version: {}", agreed.protocol));
        }
        if wants(options, SUITE) {
            lines.push(format!("Remote {peer} - {}, Cipher is {}", agreed.protocol, agreed.cipher));
        }
        if wants(options, CERTIFICATE | DETAILS) {
            let said = if agreed.authenticated { "has a certificate that was verified" } else { "was not verified" };
            lines.push(format!("SSL {peer} {said}"));
        }
    }
    let text = String::from_utf8_lossy(&reply.answer.text);
    let first: String = text.lines().next().unwrap_or_default().escape_debug().take(MAX_SHOWN).collect();
    let (code, version) = (reply.answer.code, reply.answer.version);
    lines.push(format!("answered: {}: code {code} in a packet {version}: {first}", subject(options)));
    lines
}

/// A failure: its kind, which is stable, whom and what was asked, and its sentence.
#[must_use]
pub fn failed(options: &Options, fault: &Fault) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(peer) = fault.peer.filter(|_| wants(options, ADDRESS)) {
        lines.push(format!("Tried {}", peer.ip()));
    }
    lines.push(format!("{}: {}: {fault}", fault.kind(), subject(options)));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::nrpe::error::Class;
    use crate::probe::nrpe::packet::{Answer, Version};

    fn options(logging: u32) -> Options {
        Options { host: Some("h".to_owned()), logging: Some(logging), ..Options::default() }
    }

    #[test]
    fn an_answer_is_one_line_and_nobody_can_forge_a_second() {
        let answer = Answer { version: Version::V4, code: 1, text: b"warm\x1b[31m\r| a=1\nmore".to_vec() };
        let reply = Reply { answer, agreed: None, peer: "192.0.2.1:5666".parse().unwrap() };
        let lines = answered(&options(0), &reply);
        assert_eq!(lines, ["answered: h:5666 _NRPE_CHECK: code 1 in a packet v4: warm\\u{1b}[31m\\r| a=1"]);
        assert_eq!(answered(&options(ADDRESS), &reply)[0], "Connected to 192.0.2.1");
    }

    #[test]
    fn a_failure_has_its_stable_kind() {
        let fault = Fault { class: Class::Refused, endpoint: "h:5666".to_owned(), peer: None, source: None };
        assert_eq!(
            failed(&options(0), &fault),
            ["connect-refused: h:5666 _NRPE_CHECK: NRPE h:5666: connection refused"]
        );
    }

    #[test]
    fn settings_are_told_when_asked_for() {
        assert!(settings(&options(ADDRESS | DETAILS)).is_empty());
        let lines = settings(&options(STARTUP));
        assert!(lines.iter().any(|line| line.contains("AECDH")) && lines.len() == 5, "{lines:?}");
    }
}
