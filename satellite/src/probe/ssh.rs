//! Reads the identification of an SSH server and says our own, as RFC 4253 §4.2 wants both sides to; no key is exchanged. Text
//! and states are those of check_ssh.
#![expect(clippy::disallowed_methods, reason = "a shell room: it measures response times")]

pub mod banner;

use std::time::Duration;

use shared::check::State;
use shared::check::network::SshCheck;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};

use self::banner::{BYTES_MAX, Banner, Read, read};
use super::dial;
use super::found::{Found, shown, shown_bytes, time_item};

/// What we say we are. Servers log a client that says nothing as an attack.
const IDENTIFICATION: &str = concat!("SSH-2.0-perigee_", env!("CARGO_PKG_VERSION"), "\r\n");

/// Reads it within `limit`.
pub async fn identify(check: &SshCheck, limit: Duration) -> Found {
    let SshCheck { address, port, .. } = check;
    let started = Instant::now();
    let deadline = dial::deadline_in(limit);
    let mut stream = match dial::dial(address, *port, deadline).await {
        Ok(stream) => stream,
        Err(missed) => return Found::unreached("SSH", address, *port, &missed, started.elapsed()),
    };
    // A server that has hung up already may have said enough before.
    let _ = timeout_at(deadline, stream.write_all(IDENTIFICATION.as_bytes())).await;
    let mut bytes = Vec::new();
    let mut buffer = [0; 1_024];
    let critical = |class: &str, why: &str, bytes: &[u8]| {
        let answer = if bytes.is_empty() { String::new() } else { format!("; it said: {}", shown_bytes(bytes)) };
        let text = format!("SSH CRITICAL - {address} port {port}: {why}{answer}");
        Found::failed(class, State::Critical, text)
    };
    loop {
        let ended = match timeout_at(deadline, stream.read(&mut buffer)).await {
            Err(_) => {
                let why = format!("no identification within {:.3} s", limit.as_secs_f64());
                return Found::late(critical("", &why, &bytes).text);
            }
            Ok(Ok(count)) => {
                bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
                count == 0
            }
            Ok(Err(error)) => {
                // What came before a reset counts like what came before an end.
                if let Read::Not(_) | Read::Part = read(&bytes, true) {
                    return critical("ssh-protocol", &dial::plain(&error), &bytes);
                }
                true
            }
        };
        match read(&bytes, ended) {
            Read::Whole(banner) => return judge(check, &banner, started.elapsed(), limit),
            Read::Not(why) => return critical("ssh-protocol", why, &bytes),
            Read::Part if bytes.len() >= BYTES_MAX => return critical("ssh-protocol", "no identification", &bytes),
            Read::Part => {}
        }
    }
}

fn judge(check: &SshCheck, banner: &Banner, took: Duration, limit: Duration) -> Found {
    let (software, protocol) = (shown(&banner.software), shown(&banner.protocol));
    let perfdata = time_item(took, &check.limits, limit);
    let wrong = |expected: &str, what: &str| {
        let expected = shown(expected);
        let text = format!("SSH CRITICAL - {software} (protocol {protocol}) {what} mismatch, expected '{expected}'");
        Found::ran(State::Critical, text)
    };
    if let Some(version) = check.version.as_ref().filter(|version| **version != banner.software) {
        return wrong(version, "version");
    }
    if let Some(version) = check.protocol.as_ref().filter(|version| **version != banner.protocol) {
        return wrong(version, "protocol version");
    }
    let state = check.limits.judge(took.as_secs_f64());
    Found::ran(state, format!("SSH {state} - {software} (protocol {protocol}) | {perfdata}"))
}
