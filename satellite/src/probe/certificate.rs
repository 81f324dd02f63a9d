//! The certificate of a TLS port: how long it is still valid, and whether a client would believe it. Says nothing on the
//! connection beyond the handshake. Knows no protocol that begins in plain text (STARTTLS).
#![expect(clippy::disallowed_methods, reason = "a shell room: it measures the handshake")]

pub mod validity;

use std::time::Duration;

use shared::check::State;
use shared::check::network::{CertificateCheck, CertificateDays};
use shared::time::Timestamp;
use tokio::time::Instant;

use self::validity::Validity;
use super::dial;
use super::found::Found;
use super::tls::{Fault, Session, Trust};

/// Looks at the certificate within `limit`; `now` is the wall clock's time, by which its days are counted.
pub async fn look(trust: &Trust, check: &CertificateCheck, now: Timestamp, limit: Duration) -> Found {
    let CertificateCheck { address, port, tls, days } = check;
    let started = Instant::now();
    let deadline = dial::deadline_in(limit);
    let stream = match dial::dial(address, *port, deadline).await {
        Ok(stream) => stream,
        Err(missed) => return Found::unreached("CERTIFICATE", address, *port, &missed, started.elapsed()),
    };
    let name = tls.name.as_deref().unwrap_or(address);
    match trust.open(stream, name, tls, deadline).await {
        Ok(session) => seen(&session, days, now),
        Err(fault) => refused("CERTIFICATE", &format!("{address} port {port}"), &fault, Some(days), now, limit),
    }
}

fn seen<S>(session: &Session<S>, days: &CertificateDays, now: Timestamp) -> Found {
    let Some(validity) = Validity::read(&session.certificate) else {
        return Found::ran(State::Critical, "CERTIFICATE CRITICAL - the certificate cannot be read".to_owned());
    };
    let judged = validity.judge(days, now);
    let doubt = session.problem.as_ref().map_or_else(String::new, |problem| format!(", not trusted: {problem}"));
    let text = format!("CERTIFICATE {} - {}{doubt}|{}", judged.state, judged.text, judged.perfdata);
    Found::ran(judged.state, text).proven(Some(session.problem.is_none()))
}

/// What a failed handshake with `peer` means: CRITICAL, with the days of a certificate that was not believed, where they are
/// asked for.
pub fn refused(
    kind: &str,
    peer: &str,
    fault: &Fault,
    days: Option<&CertificateDays>,
    now: Timestamp,
    limit: Duration,
) -> Found {
    let said = |state: State| format!("{kind} {state} - {peer}: {fault}");
    match fault {
        Fault::Timeout => Found::late(format!("{} within {:.3} s", said(State::Critical), limit.as_secs_f64())),
        // Ours to mend: what the server is, nobody knows.
        Fault::NoCa(_) | Fault::Name(_) => Found::failed(fault.class(), State::Unknown, said(State::Unknown)),
        Fault::Handshake(_) => Found::failed(fault.class(), State::Critical, said(State::Critical)),
        Fault::Untrusted { certificate, .. } => {
            let judged = days.zip(Validity::read(certificate)).map(|(days, validity)| validity.judge(days, now));
            let more = judged.map_or_else(String::new, |judged| format!("; {}|{}", judged.text, judged.perfdata));
            Found::failed(fault.class(), State::Critical, said(State::Critical) + &more).proven(Some(false))
        }
    }
}
