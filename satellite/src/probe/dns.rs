//! Asks name servers one question and says what came: by UDP, again if nothing comes, without EDNS if that is not understood, by TCP
//! if the answer is cut off. Each check asks anew; nothing is cached, and neither search list nor hosts file is read.
//!
//! The surprise: this is no resolver. Resolvers answer some names themselves (`localhost`, `.invalid`), which would say nothing
//! about the server that is monitored.
#![expect(clippy::disallowed_methods, reason = "a shell room: it measures response times")]

pub mod answer;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::system_conf::read_system_conf;
use shared::check::State;
use shared::check::network::DnsCheck;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use self::answer::{Question, Said, UDP_BYTES, disagreement};
use super::dial::{self, Cause};
use super::found::{Found, shown, time_item};

/// Port of a name server that has no other.
pub const PORT: u16 = 53;
/// Questions by UDP to one server; further ones are not sent. The last one waits for what is left of the time, and is without EDNS:
/// there are servers that drop what they do not know.
pub const QUESTIONS: u32 = 3;
/// Answers by UDP that may be about something else before one is given up; more come from somebody who guesses.
pub const STRAY_ANSWERS: usize = 64;

/// Why a server gave no answer.
#[derive(Debug)]
enum Silence {
    /// None in time; this many datagrams came that answer something else, or nothing.
    Timeout { strays: usize },
    /// The system says why not.
    Failed(String),
}

/// Asks within `limit`.
pub async fn ask(check: &DnsCheck, limit: Duration) -> Found {
    let started = Instant::now();
    let deadline = dial::deadline_in(limit);
    let unknown = |class: &str, why: &str| {
        Found::failed(class, State::Unknown, format!("DNS UNKNOWN - {}: {why}", shown(&check.name)))
    };
    let question = match Question::new(&check.name, check.kind, rand::random()) {
        Ok(question) => question,
        Err(error) => return unknown("dns-name", &format!("it is no name that can be asked for: {error}")),
    };
    let servers = match servers(check, deadline).await {
        Ok(servers) if !servers.is_empty() => servers,
        Ok(_) => return unknown("dns-server", "the satellite's resolv.conf names no server; name one with `server`"),
        Err(found) => return *found,
    };
    let mut silence = (Silence::Timeout { strays: 0 }, String::new());
    let count = servers.len().min(dial::MAX_ADDRESSES);
    for (number, server) in servers.into_iter().take(dial::MAX_ADDRESSES).enumerate() {
        let now = Instant::now();
        let share = deadline.saturating_duration_since(now) / u32::try_from(count - number).unwrap_or(1);
        match exchange(&question, server, now + share).await {
            Ok(said) => return judge(check, &said, server, started.elapsed(), limit),
            Err(why) => silence = (why, place(server)),
        }
    }
    let (why, server) = silence;
    let text = |why: &str| format!("DNS CRITICAL - {}: {why}", shown(&check.name));
    match why {
        Silence::Timeout { strays } => {
            let seconds = started.elapsed().as_secs_f64();
            let but = match strays {
                0 => String::new(),
                count => format!(", but {count} that cannot be read or do not answer what was asked"),
            };
            Found::late(text(&format!("no answer from {server} within {seconds:.3} s{but}")))
        }
        Silence::Failed(why) => Found::failed("dns-server", State::Critical, text(&format!("{server}: {why}"))),
    }
}

/// Which servers are asked, in this order.
async fn servers(check: &DnsCheck, deadline: Instant) -> Result<Vec<SocketAddr>, Box<Found>> {
    let Some(server) = &check.server else {
        let read = tokio::task::spawn_blocking(read_system_conf).await.ok().and_then(Result::ok);
        let Some((config, _)) = read else { return Ok(Vec::new()) };
        let port = check.port.unwrap_or(PORT);
        return Ok(config.name_servers().iter().map(|server| SocketAddr::new(server.ip, port)).collect());
    };
    let port = check.port.unwrap_or(PORT);
    if let Ok(address) = server.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    dial::resolve(server, port, deadline).await.map_err(|cause| {
        let why = match cause {
            Cause::DnsTimeout => return Box::new(Found::late(server_text(server, &cause.to_string()))),
            cause => cause.to_string(),
        };
        Box::new(Found::failed("dns-server", State::Critical, server_text(server, &why)))
    })
}

fn server_text(server: &str, why: &str) -> String {
    format!("DNS CRITICAL - server {}: {why}", shown(server))
}

/// `192.0.2.1`, with its port where that is another one.
fn place(server: SocketAddr) -> String {
    if server.port() == PORT { server.ip().to_string() } else { server.to_string() }
}

async fn exchange(question: &Question, server: SocketAddr, deadline: Instant) -> Result<Said, Silence> {
    let (extended, plain) = (question.bytes(true), question.bytes(false));
    let (extended, plain) = (extended.map_err(Silence::Failed)?, plain.map_err(Silence::Failed)?);
    let (mut understood, mut said) = (&extended, by_udp(question, [&extended, &plain], server, deadline).await?);
    if said.is_too_new() {
        (understood, said) = (&plain, by_udp(question, [&plain, &plain], server, deadline).await?);
    }
    match said {
        Said::Truncated => by_tcp(question, understood, server, deadline).await,
        said => Ok(said),
    }
}

/// Sends the first form of the question, and the second in the end.
async fn by_udp(
    question: &Question,
    [first, last]: [&[u8]; 2],
    server: SocketAddr,
    deadline: Instant,
) -> Result<Said, Silence> {
    let failed = |error: std::io::Error| Silence::Failed(dial::plain(&error));
    let own: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(own).await.map_err(failed)?;
    // Connected: the system drops what comes from anywhere else, and tells when nobody listens.
    socket.connect(server).await.map_err(failed)?;
    let mut buffer = vec![0; usize::from(UDP_BYTES).max(4_096)];
    let mut strays = 0;
    for number in 0..QUESTIONS {
        let is_last = number + 1 == QUESTIONS;
        socket.send(if is_last { last } else { first }).await.map_err(failed)?;
        let now = Instant::now();
        // Half of the time for the first one: a slow answer shall not be met by a second question.
        let left = deadline.saturating_duration_since(now);
        let until = if is_last { deadline } else { now + left / 2 };
        while let Ok(received) = timeout_at(until, socket.recv(&mut buffer)).await {
            let size = received.map_err(failed)?;
            if let Some(said) = question.read(buffer.get(..size).unwrap_or_default()) {
                return Ok(said);
            }
            strays += 1;
            if strays > STRAY_ANSWERS {
                return Err(Silence::Failed("it answers what was not asked".to_owned()));
            }
        }
    }
    Err(Silence::Timeout { strays })
}

async fn by_tcp(question: &Question, bytes: &[u8], server: SocketAddr, deadline: Instant) -> Result<Said, Silence> {
    let failed = |error: std::io::Error| Silence::Failed(format!("by TCP: {}", dial::plain(&error)));
    let exchange = async {
        let mut stream = tokio::net::TcpStream::connect(server).await.map_err(failed)?;
        // RFC 1035 §4.2.2: two bytes of length before each message; no message is longer than they can say.
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        let message = [&length.to_be_bytes(), bytes].concat();
        stream.write_all(&message).await.map_err(failed)?;
        let length = stream.read_u16().await.map_err(failed)?;
        let mut answer = vec![0; length.into()];
        stream.read_exact(&mut answer).await.map_err(failed)?;
        match question.read(&answer) {
            Some(Said::Truncated) => Err(Silence::Failed("its answer is cut off by TCP as well".to_owned())),
            Some(said) => Ok(said),
            None => Err(Silence::Failed("by TCP it answers what was not asked".to_owned())),
        }
    };
    timeout_at(deadline, exchange).await.unwrap_or(Err(Silence::Timeout { strays: 0 }))
}

/// State, text and performance data, as check_dns has them.
fn judge(check: &DnsCheck, said: &Said, server: SocketAddr, took: Duration, limit: Duration) -> Found {
    let (name, kind, server) = (shown(&check.name), check.kind.as_str(), place(server));
    let critical = |why: String| Found::ran(State::Critical, format!("DNS CRITICAL - {why}"));
    let values = match said {
        Said::Values(values) => values,
        Said::Code(ResponseCode::NXDomain) => {
            return critical(format!("Domain {name} was not found by {server} (NXDOMAIN)"));
        }
        Said::Code(ResponseCode::ServFail) => {
            return critical(format!("{server} failed to answer for {name} (SERVFAIL)"));
        }
        Said::Code(ResponseCode::Refused) => {
            return critical(format!("{server} refuses to answer for {name} (REFUSED)"));
        }
        Said::Code(code) => return critical(format!("{server} answers for {name}: {}", shown(&code.to_string()))),
        Said::Truncated => return critical(format!("the answer of {server} for {name} is cut off")),
    };
    if values.is_empty() {
        return critical(format!("{name} has no {kind} record ({server})"));
    }
    let seconds = took.as_secs_f64();
    let perfdata = time_item(took, &check.limits, limit);
    if let Some(wrong) = disagreement(values, &check.expect, check.agreement) {
        return Found::ran(State::Critical, format!("DNS CRITICAL - {wrong}|{perfdata}"));
    }
    let state = check.limits.judge(seconds);
    let unit = if (1.0..2.0).contains(&seconds) { "second" } else { "seconds" };
    let values = shown(&values.join(","));
    let text = format!("DNS {state}: {seconds:.3} {unit} response time. {name} returns {values}|{perfdata}");
    Found::ran(state, text)
}
