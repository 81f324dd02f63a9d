//! Whether a TCP port accepts a connection, and says what it should, in the words of Monitoring Plugins' `check_tcp`: what shall
//! be sent is sent, and one of the expected texts must come, in plain or over TLS.
#![expect(clippy::disallowed_methods, reason = "a shell room: it measures response times")]

use std::time::Duration;

use shared::check::State;
use shared::check::network::{Talk, TcpCheck};
use shared::time::Timestamp;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};

use super::certificate::refused;
use super::dial;
use super::found::{Found, shown_bytes, time_item, worse};
use super::tls::Trust;

/// Bytes of an answer that are read and searched; what is expected must come within them.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// An answer that has begun and pauses this long is over (check_tcp's own rule).
pub const PAUSE: Duration = Duration::from_secs(2);

/// What came of a talk.
struct Heard {
    bytes: Vec<u8>,
    matched: bool,
    ended: bool,
}

/// Connects within `limit`, says and hears what the check wants, and hangs up.
pub async fn connect(trust: &Trust, check: &TcpCheck, now: Timestamp, limit: Duration) -> Found {
    let TcpCheck { address, port, talk, .. } = check;
    let started = Instant::now();
    let deadline = dial::deadline_in(limit);
    let mut stream = match dial::dial(address, *port, deadline).await {
        Ok(stream) => stream,
        Err(missed) => return Found::unreached("TCP", address, *port, &missed, started.elapsed()),
    };
    let Some(talk) = talk else { return judge(check, None, started.elapsed(), limit) };
    let Some(tls) = &talk.tls else {
        let heard = hear(&mut stream, talk, deadline).await;
        return judge(check, Some((talk, heard)), started.elapsed(), limit);
    };
    match trust.open(stream, tls.name.as_deref().unwrap_or(address), tls, deadline).await {
        Ok(mut session) => {
            let heard = hear(&mut session.stream, talk, deadline).await;
            let proven = Some(session.problem.is_none());
            judge(check, Some((talk, heard)), started.elapsed(), limit).proven(proven)
        }
        Err(fault) => refused("TCP", &format!("{address} port {port}"), &fault, None, now, limit),
    }
}

/// Sends and reads until an expected text has come, the peer ends, or the time is over.
async fn hear<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    talk: &Talk,
    deadline: Instant,
) -> Result<Heard, String> {
    if let Some(send) = &talk.send {
        let sent = async {
            stream.write_all(send.as_bytes()).await?;
            stream.flush().await
        };
        match timeout_at(deadline, sent).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(dial::plain(&error)),
            Err(_) => return Ok(Heard { bytes: Vec::new(), matched: false, ended: false }),
        }
    }
    let mut heard = Heard { bytes: Vec::new(), matched: talk.expect.is_empty(), ended: false };
    let mut buffer = vec![0; 4_096];
    while !heard.matched && !heard.ended && heard.bytes.len() < ANSWER_BYTES_MAX {
        let pause = if heard.bytes.is_empty() { deadline } else { deadline.min(Instant::now() + PAUSE) };
        match timeout_at(pause, stream.read(&mut buffer)).await {
            Err(_) => break,
            // A reset, or TLS without a farewell, ends an answer like any other end.
            Ok(Ok(0) | Err(_)) => heard.ended = true,
            Ok(Ok(count)) => {
                // What was looked through already is not again, but for the tail in which a text may have begun.
                let longest = talk.expect.iter().map(String::len).max().unwrap_or(0);
                let from = heard.bytes.len().saturating_sub(longest);
                heard.bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
                let fresh = heard.bytes.get(from..).unwrap_or_default();
                heard.matched = talk.expect.iter().any(|text| occurs(fresh, text.as_bytes()));
            }
        }
    }
    Ok(heard)
}

fn occurs(bytes: &[u8], text: &[u8]) -> bool {
    text.is_empty() || bytes.windows(text.len()).any(|window| window == text)
}

fn judge(check: &TcpCheck, talked: Option<(&Talk, Result<Heard, String>)>, took: Duration, limit: Duration) -> Found {
    let TcpCheck { address, port, .. } = check;
    let limits = check.limits.unwrap_or_default();
    let perfdata = time_item(took, &limits, limit);
    let mut answer = String::new();
    if let Some((talk, heard)) = talked {
        let heard = match heard {
            Ok(heard) => heard,
            Err(why) => {
                let text = format!("TCP CRITICAL - {address} port {port}: cannot send: {why}");
                return Found::failed("tcp-send", State::Critical, text);
            }
        };
        let said = shown_bytes(&heard.bytes);
        match (heard.matched, heard.bytes.is_empty(), heard.ended) {
            (true, ..) => {}
            (false, false, _) => {
                let state = worse(talk.mismatch, limits.judge(took.as_secs_f64()));
                let text = format!("TCP {state} - Unexpected response from host/socket: {said}|{perfdata}");
                return Found::ran(state, text);
            }
            (false, true, true) => {
                let text = format!("TCP CRITICAL - {address} port {port}: no data was received|{perfdata}");
                return Found::ran(State::Critical, text);
            }
            (false, true, false) => {
                let seconds = limit.as_secs_f64();
                return Found::late(format!("TCP CRITICAL - {address} port {port}: no answer within {seconds:.3} s"));
            }
        }
        if !said.is_empty() {
            answer = format!(" [{said}]");
        }
    }
    let seconds = took.as_secs_f64();
    let state = limits.judge(seconds);
    let text = format!("TCP {state} - {seconds:.3} second response time on {address} port {port}{answer}|{perfdata}");
    Found::ran(state, text)
}
