//! One connection from its first byte to its last: allowed or not, handshake, query, answer, end. Decides when to be silent and how
//! to close, since that is all a client of nrpe ever learns about a refusal.
//!
//! The surprise is how a stranger is turned away: the agent waits until he has begun to speak. Closing then makes the kernel answer
//! with a reset, which `check_nrpe` reports as such; closing at once would make it a matter of chance what he sees.
#![expect(clippy::disallowed_methods, reason = "a shell room: deadlines of a connection are real time")]

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use super::Live;
use super::counters::{Counters, Event};
use super::packet::{NotAQuery, Query, decode_query, encode_answer, needed};
use super::request::{Refused, parse};
use super::run::reply;
use super::tls::Agreed;

/// How long a stranger is waited for before his connection is closed.
pub const REFUSE_WITHIN: Duration = Duration::from_secs(1);
/// Strangers waited for at once; further ones are closed where they stand.
pub const REFUSALS: usize = 64;
/// How long a client may take to read its answer; then it is cut off.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// How long a client without TLS may take to close after its answer; with TLS it is `ssl_shutdown_timeout`.
pub const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// Bytes that a client may send behind its query before it is cut off.
const MAX_TRAILING: u64 = 128 * 1024;

/// Why a connection ended without an answer.
#[derive(Debug, thiserror::Error)]
enum Why {
    #[error("it is not in allowed_hosts")]
    NotAllowed,
    #[error("no TLS handshake: {0}")]
    Handshake(String),
    #[error("it sent no whole query within {0:?}")]
    Late(Duration),
    #[error("it closed after {0} bytes, without a query")]
    Closed(usize),
    #[error("{0}")]
    Packet(#[from] NotAQuery),
    #[error("{0}")]
    Request(#[from] Refused),
    #[error("it did not take its answer: {0}")]
    Undelivered(io::Error),
}

impl Why {
    const fn event(&self) -> Event {
        match self {
            Self::NotAllowed => Event::NotAllowed,
            Self::Handshake(_) => Event::Handshake,
            Self::Late(_) | Self::Closed(_) | Self::Packet(_) => Event::Packet,
            Self::Request(_) => Event::Request,
            Self::Undelivered(_) => Event::Undelivered,
        }
    }
}

/// What connections share beside the configuration.
#[derive(Debug)]
pub struct Shared {
    /// Counts.
    pub counters: Counters,
    strangers: Semaphore,
    began: Instant,
}

impl Default for Shared {
    fn default() -> Self {
        Self { counters: Counters::default(), strangers: Semaphore::new(REFUSALS), began: Instant::now() }
    }
}

impl Shared {
    /// Time since the start.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.began.elapsed()
    }

    /// Counts something that was refused, and logs it unless there is too much of it.
    pub fn refused(&self, event: Event, peer: SocketAddr, reason: &dyn std::fmt::Display) {
        self.counters.count(event);
        if self.counters.may_log(self.uptime()) {
            tracing::warn!(peer = %peer.ip(), %reason, "refused");
        }
    }
}

/// Serves a connection to its end. `by_inetd` says that somebody else has checked who is calling, as nrpe has it there.
pub async fn serve(tcp: TcpStream, peer: SocketAddr, live: &Live, shared: &Shared, by_inetd: bool) {
    shared.counters.count(Event::Accepted);
    if let Err(why) = handle(tcp, peer, live, shared, by_inetd).await {
        shared.refused(why.event(), peer, &why);
    }
}

async fn handle(tcp: TcpStream, peer: SocketAddr, live: &Live, shared: &Shared, by_inetd: bool) -> Result<(), Why> {
    let limit = live.settings.connection_timeout;
    let deadline = Instant::now() + limit;
    if live.settings.tls.logging.address() {
        tracing::info!(%peer, "connection");
    }
    if let Some(allowed) = &live.settings.allowed
        && !by_inetd
        && !live.names.permit(allowed, peer.ip()).await
    {
        turn_away(&tcp, shared).await;
        return Err(Why::NotAllowed);
    }
    // Tickets of TLS 1.3 go out before the answer: without this the answer would wait for their acknowledgement.
    let _ = tcp.set_nodelay(true);
    match &live.tls {
        None => {
            let mut stream = tcp;
            // A refusal closes with whatever is unread, which makes it a reset, as with nrpe.
            converse(&mut stream, Pieces::Any, live, shared, deadline, limit).await?;
            let _ = timeout(CLOSE_WITHIN, finish(&mut stream)).await;
            Ok(())
        }
        Some(tls) => {
            let shaken = timeout_at(deadline, tls.accept(tcp)).await;
            let (mut stream, agreed) =
                shaken.unwrap_or_else(|_| Err(format!("none within {limit:?}"))).map_err(Why::Handshake)?;
            log_agreed(&agreed, peer, live);
            let ended = converse(&mut stream, Pieces::Records, live, shared, deadline, limit).await;
            let _ = timeout(live.settings.tls.shutdown_timeout, finish(&mut stream)).await;
            ended
        }
    }
}

fn log_agreed(agreed: &Agreed, peer: SocketAddr, live: &Live) {
    let logging = live.settings.tls.logging;
    let client = agreed.client.as_deref().unwrap_or("none");
    if logging.protocol() {
        tracing::info!(peer = %peer.ip(), agreed.protocol, agreed.cipher, agreed.resumed, "handshake");
    }
    if logging.certificate() {
        tracing::info!(peer = %peer.ip(), certificate = client, "client certificate");
    }
    tracing::debug!(peer = %peer.ip(), ?agreed, "handshake");
}

/// Waits until the stranger has said something, so that the close is a reset.
async fn turn_away(tcp: &TcpStream, shared: &Shared) {
    if let Ok(_place) = shared.strangers.try_acquire() {
        let _ = timeout(REFUSE_WITHIN, tcp.peek(&mut [0; 1])).await;
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    pieces: Pieces,
    live: &Live,
    shared: &Shared,
    deadline: Instant,
    limit: Duration,
) -> Result<(), Why> {
    let query = timeout_at(deadline, read(stream, pieces)).await.unwrap_or(Err(Why::Late(limit)))?;
    let settings = &live.settings;
    let request = parse(&query.text, settings.arguments, &settings.nasty)?;
    let reply = reply(&request, query.version, settings, &live.environment, &live.runner).await;
    if reply.timed_out {
        shared.counters.count(Event::TimedOut);
        tracing::warn!(command = %String::from_utf8_lossy(&request.name), "timed out");
    }
    let bytes = encode_answer(query.version, reply.code, &reply.text);
    let sent = timeout(ANSWER_WITHIN, async {
        stream.write_all(&bytes).await?;
        stream.flush().await
    });
    let sent = sent.await.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)));
    sent.map_err(Why::Undelivered)?;
    shared.counters.count(Event::Answered);
    Ok(())
}

/// How a query may arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pieces {
    /// In as many pieces as TCP likes.
    Any,
    /// With TLS nrpe takes each step from one record, and drops a client whose record is shorter than it should be. Waiting for
    /// more would let a client with another packet size hang until its own timeout.
    Records,
}

/// Reads in nrpe's steps and not a byte further.
async fn read(stream: &mut (impl AsyncRead + Unpin), pieces: Pieces) -> Result<Query, Why> {
    let mut received = Vec::new();
    loop {
        let need = needed(&received)?;
        if need <= received.len() {
            return Ok(decode_query(&received)?);
        }
        let have = received.len();
        received.resize(need, 0);
        let mut filled = have;
        while filled < need {
            match stream.read(&mut received[filled..]).await {
                Ok(0) | Err(_) => return Err(Why::Closed(filled)),
                Ok(count) if pieces == Pieces::Any || filled + count == need => filled += count,
                Ok(count) => return Err(NotAQuery::Truncated { have: filled + count, need }.into()),
            }
        }
    }
}

/// Says that nothing more will come, and waits for the client to close: what it has not read yet would be lost otherwise.
async fn finish<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    if stream.shutdown().await.is_ok() {
        let _ = tokio::io::copy(&mut stream.take(MAX_TRAILING), &mut tokio::io::sink()).await;
    }
}
