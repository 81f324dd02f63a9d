//! Asks NRPE daemons: one request, one answer, one deadline for everything in between. Decides when a failed attempt may be
//! followed by another — a different packet version, a different cipher list, no ticket — and lets what was learned decide the
//! next time. Knows nothing of checks, states or how many connections a host may have.
//!
//! The surprise: a second attempt is made only while nothing of an answer has come. After the first byte the daemon has run the
//! command, and asking again would run it twice.
#![expect(clippy::disallowed_methods, reason = "a shell room: it reads the clock for what is remembered of endpoints")]

pub mod counters;
pub mod endpoint;
pub mod error;
pub mod hint;
pub mod packet;
pub mod policy;
pub mod records;
pub mod remote;
mod stream;
pub mod tls;
pub mod wire;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::time::Monotonic;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use self::counters::Counters;
use self::endpoint::{Endpoints, Plan};
pub use self::error::VERSION_COMMAND;
use self::error::{Class, Fault, Phase};
use self::packet::{Answer, NotAnAnswer, Progress, Trailer, Version};
use self::policy::{Endpoint, Security, Suites};
use self::remote::Remote;
use self::stream::Stream;
use self::tls::{Agreed, Tls};
use self::wire::{Budget, Wire};
use super::dial::{self, Cause, Route};

/// TLS connections that one attempt may open: with a ticket, without, with all suites.
const MAX_HANDSHAKES: usize = 3;
/// What to ask whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The daemon.
    pub endpoint: Endpoint,
    /// `command!arg1!arg2`; empty asks for [`VERSION_COMMAND`].
    pub text: Vec<u8>,
    /// The versions to try, in this order, and no other; `None`: find out and remember.
    pub versions: Option<Vec<Version>>,
    /// Bytes of the text field of version 2 instead of 1024 (check_nrpe's `-P`); only for daemons that are set to the same.
    pub payload: Option<usize>,
    /// Which way the connection is to take.
    pub route: Route,
}

impl Query {
    /// A query that leaves everything to be found out.
    #[must_use]
    pub fn new(endpoint: Endpoint, text: impl Into<Vec<u8>>) -> Self {
        Self { endpoint, text: text.into(), versions: None, payload: None, route: Route::default() }
    }

    fn bytes(&self) -> &[u8] {
        if self.text.is_empty() { VERSION_COMMAND.as_bytes() } else { &self.text }
    }
}

/// What came back, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The answer, as the daemon sent it.
    pub answer: Answer,
    /// What TLS agreed on; `None` for plain.
    pub agreed: Option<Agreed>,
    /// The address that answered.
    pub peer: SocketAddr,
}

/// Asks daemons and remembers them. One for the whole satellite.
#[derive(Debug)]
pub struct Client {
    tls: Tls,
    endpoints: Mutex<Endpoints>,
    counters: Counters,
    origin: Instant,
}

/// One request on its way: what every step of it needs.
struct Attempt<'a> {
    query: &'a Query,
    budget: Budget,
    deadline: Instant,
    limit: Duration,
}

/// A connection that is ready for the request.
struct Open {
    stream: Stream,
    agreed: Option<Agreed>,
    peer: SocketAddr,
    source: Option<IpAddr>,
    /// Whether the daemon asked for a client certificate.
    certificate_asked: bool,
}

impl Client {
    /// A client that knows no endpoint yet.
    ///
    /// # Errors
    /// The TLS library cannot be set up.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            tls: Tls::new()?,
            endpoints: Mutex::default(),
            counters: Counters::default(),
            origin: Instant::now(),
        })
    }

    /// A client for a process that asks once and forgets: no session is kept.
    #[must_use]
    pub fn for_one_check() -> Self {
        Self {
            tls: Tls::without_tickets(),
            endpoints: Mutex::default(),
            counters: Counters::default(),
            origin: Instant::now(),
        }
    }

    /// What has been counted since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Asks within `limit`, which covers name service, connection, TLS, every further attempt, and the answer.
    ///
    /// # Errors
    /// Why there is no answer: the fault of the last attempt.
    pub async fn ask(&self, query: &Query, limit: Duration) -> Result<Reply, Fault> {
        let attempt = Attempt { query, budget: Budget::default(), deadline: dial::deadline_in(limit), limit };
        let asked = match self.in_versions(&attempt).await {
            Err(fault) => Err(self.explained(&attempt, fault).await),
            reply => reply,
        };
        match &asked {
            Ok(reply) => self.counters.answered(Remote::of(&reply.answer)),
            Err(fault) => self.counters.failed(&fault.class),
        }
        asked
    }

    async fn in_versions(&self, attempt: &Attempt<'_>) -> Result<Reply, Fault> {
        let Query { endpoint, versions: fixed, .. } = attempt.query;
        let versions = match fixed {
            Some(versions) => versions.clone(),
            None => self.endpoints().versions(endpoint, self.now()),
        };
        let planned = versions.clone();
        let mut silent: Vec<Version> = Vec::new();
        let mut last = None;
        let mut versions = versions.into_iter();
        while let Some(version) = versions.next() {
            if last.is_some() {
                self.counters.fell_back();
            }
            match self.in_version(attempt, version).await {
                Ok(reply) if version != Version::V2 && refuses_version(&reply.answer) => {
                    // NSClient++ says so in a version 2 packet without having run anything.
                    silent.push(version);
                    let may_follow = fixed.as_ref().is_none_or(|fixed| fixed.contains(&Version::V2));
                    if !may_follow || silent.contains(&Version::V2) {
                        return Ok(reply);
                    }
                    versions = vec![Version::V2].into_iter();
                    last = Some(Fault { class: Class::ClosedBeforeAnswer, ..attempt.fault_at(reply.peer) });
                }
                Ok(reply) => {
                    if fixed.is_none() {
                        self.learn(endpoint, version, &silent, &reply);
                    }
                    return Ok(reply);
                }
                Err(fault) if fault.class == Class::ClosedBeforeAnswer => {
                    silent.push(version);
                    last = Some(fault);
                }
                // A request too long for an older version does not hide why the newer ones got no answer.
                Err(Fault { class: Class::Request(_), .. }) if last.is_some() => {}
                Err(fault) => {
                    if matches!(fault.class, Class::Protocol(_) | Class::NotTls(_)) {
                        self.endpoints().estranged(endpoint, self.now());
                    }
                    return Err(fault);
                }
            }
        }
        self.endpoints().refused(endpoint, &planned, self.now());
        Err(last.unwrap_or_else(|| attempt.fault(Class::ClosedBeforeAnswer)))
    }

    fn learn(&self, endpoint: &Endpoint, asked: Version, silent: &[Version], reply: &Reply) {
        let mut endpoints = self.endpoints();
        let before = endpoints.version(endpoint);
        // A version 2 answer to a later request (SNClient) came over a daemon that takes the later request.
        endpoints.answered(endpoint, asked, silent, self.now());
        let known = endpoints.version(endpoint);
        drop(endpoints);
        if before != known {
            let security = reply.agreed.as_ref().map_or_else(
                || "plain".to_owned(),
                |agreed| {
                    let proven = if agreed.authenticated { "authenticated" } else { "not authenticated" };
                    format!("{} {}, {proven}", agreed.protocol, agreed.cipher)
                },
            );
            tracing::info!(
                %endpoint,
                version = %asked,
                security,
                "NRPE daemon learned"
            );
        }
    }

    async fn in_version(&self, attempt: &Attempt<'_>, version: Version) -> Result<Reply, Fault> {
        let query = attempt.query;
        let plain = query.endpoint.security == Security::Plain;
        let encoded = match query.payload {
            Some(payload) if version == Version::V2 => packet::encode_query_sized(query.bytes(), payload),
            _ => {
                let trailer = if plain { Trailer::Counted } else { Trailer::Sent };
                packet::encode_query(version, query.bytes(), trailer)
            }
        };
        let request = encoded.map_err(|too_long| attempt.fault(Class::Request(too_long)))?;
        let Open { mut stream, agreed, peer, source, certificate_asked } = self.open(attempt).await?;
        let exchanged = exchange(&mut stream, &request, attempt).await;
        tls::close(&mut stream).await;
        match exchanged {
            Ok(answer) => {
                self.endpoints().heard(&query.endpoint, self.now());
                Ok(Reply { answer, agreed, peer })
            }
            Err(class) => {
                let class = about_certificates(class, certificate_asked, &query.endpoint);
                Err(Fault { class, source, ..attempt.fault_at(peer) })
            }
        }
    }

    async fn open(&self, attempt: &Attempt<'_>) -> Result<Open, Fault> {
        let endpoint = &attempt.query.endpoint;
        if endpoint.security == Security::Plain {
            let (wire, peer) = attempt.connect().await?;
            let source = wire.source();
            let stream = Stream::Plain(wire);
            return Ok(Open { stream, agreed: None, peer, source, certificate_asked: false });
        }
        let mut plan = self.endpoints().plan(endpoint, self.now());
        let mut ticket_hurt = false;
        let mut handshakes = 0;
        loop {
            handshakes += 1;
            let prepared = self.tls.prepare(endpoint, &plan).map_err(|class| attempt.fault(class))?;
            let (wire, peer) = attempt.connect().await?;
            let (source, sent) = (wire.source(), wire.sent());
            let shaken = timeout_at(attempt.deadline, self.tls.shake_hands(wire, &prepared, &plan)).await;
            let certificate_asked = sent.had_certificate();
            if !matches!(&shaken, Ok(Ok((_, agreed))) if agreed.resumed) {
                self.endpoints().asked_certificate(endpoint, certificate_asked, self.now());
            }
            let class = match shaken {
                Ok(Ok((stream, agreed))) => {
                    self.shook_hands(endpoint, &plan, &agreed, ticket_hurt || certificate_asked);
                    let stream = Stream::Secure(Box::pin(stream));
                    return Ok(Open { stream, agreed: Some(agreed), peer, source, certificate_asked });
                }
                Ok(Err(_)) if attempt.budget.is_spent() => Class::TooMuch(wire::MAX_READ),
                Ok(Err(class)) => about_certificates(class, certificate_asked, endpoint),
                Err(_) => attempt.timeout(Phase::Tls),
            };
            self.counters.used_ticket(&plan, false);
            let again = handshakes < MAX_HANDSHAKES && may_be_otherwise(&class);
            let offered = plan.offered;
            if !matches!(class, Class::Timeout { .. }) {
                self.endpoints().handshake_failed(endpoint, &plan, self.now());
            }
            if again && offered {
                // Daemons that ask for client certificates answer any ticket with internal_error.
                ticket_hurt = matches!(class, Class::Alert { number: 80, .. });
                let suites = plan.suites;
                plan = self.endpoints().plan(endpoint, self.now());
                plan.suites = suites;
                continue;
            }
            if again && plan.suites == Suites::Fast && matches!(class, Class::Alert { number: 40 | 70 | 71, .. }) {
                plan = self.endpoints().plan(endpoint, self.now());
                plan.suites = Suites::All;
                plan.offered = false;
                continue;
            }
            return Err(Fault { class, source, ..attempt.fault_at(peer) });
        }
    }

    fn shook_hands(&self, endpoint: &Endpoint, plan: &Plan, agreed: &Agreed, hates_tickets: bool) {
        self.counters.shook_hands(agreed.resumed);
        self.counters.used_ticket(plan, agreed.resumed);
        let mut endpoints = self.endpoints();
        endpoints.shook_hands(endpoint, plan, agreed.resumed, agreed.protocol == tls::TLS1_3, self.now());
        if hates_tickets {
            endpoints.bar_tickets(endpoint, self.now());
        }
    }

    /// A daemon says no by closing, whatever it is that it dislikes. Whether that is this one request, or us, shows in whether
    /// it tells its version to the same address: asked once, and remembered for a while.
    async fn explained(&self, attempt: &Attempt<'_>, fault: Fault) -> Fault {
        let Query { endpoint, versions, .. } = attempt.query;
        let known = self.endpoints().has_answered(endpoint);
        let class = match &fault.class {
            Class::ClosedInHandshake if !known => Class::RefusedHere { in_handshake: true },
            Class::ClosedBeforeAnswer => {
                // Version 2 is the only one that every daemon speaks.
                let everybodys = versions.as_ref().is_none_or(|versions| versions.contains(&Version::V2));
                let innocent = everybodys && hint::dislikes(attempt.query.bytes()).is_none();
                if self.answers_another(attempt, everybodys).await {
                    Class::RequestRefused
                } else if !known && self.endpoints().asks_certificate(endpoint) {
                    // A close on unread bytes is a reset, which overtakes the alert that TLS 1.3 has for it.
                    Class::ClientCertificate { alert: None, shown: shows_certificate(endpoint) }
                } else if innocent && !known {
                    Class::RefusedHere { in_handshake: false }
                } else {
                    return fault;
                }
            }
            _ => return fault,
        };
        Fault { class, ..fault }
    }

    async fn answers_another(&self, attempt: &Attempt<'_>, everybodys: bool) -> bool {
        let Query { endpoint, versions, .. } = attempt.query;
        if attempt.query.bytes() == VERSION_COMMAND.as_bytes() {
            return false;
        }
        if let Some(answered) = self.endpoints().version_answer(endpoint, self.now()) {
            return answered;
        }
        let fixed = versions.as_ref().and_then(|versions| versions.first().copied()).filter(|_| !everybodys);
        let query = Query { text: Vec::new(), ..attempt.query.clone() };
        let asking = Attempt { query: &query, budget: attempt.budget.clone(), ..*attempt };
        let asked = self.in_version(&asking, fixed.unwrap_or(Version::V2)).await;
        // Out of time is no answer, but none to remember either.
        if !matches!(&asked, Err(Fault { class: Class::Timeout { .. }, .. })) {
            self.endpoints().asked_version(endpoint, asked.is_ok(), self.now());
        }
        asked.is_ok()
    }

    fn now(&self) -> Monotonic {
        Monotonic(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn endpoints(&self) -> MutexGuard<'_, Endpoints> {
        // What a panicking thread left is still a memory; at worst it is wrong, and wrong memories expire.
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attempt<'_> {
    async fn connect(&self) -> Result<(Wire, SocketAddr), Fault> {
        let Endpoint { address, port, .. } = &self.query.endpoint;
        let failed = |class, peer| Fault { class, peer, ..self.fault(Class::Refused) };
        let tcp = dial::dial_by(self.query.route, address, *port, self.deadline).await.map_err(|missed| {
            let class = match missed.cause {
                Cause::Failed(reason) if missed.unbound => Class::Bind(reason),
                Cause::Dns(reason) => Class::Dns(reason),
                Cause::DnsTimeout => self.timeout(Phase::Dns),
                Cause::Refused => Class::Refused,
                Cause::Unreachable(reason) => Class::Unreachable(reason),
                Cause::Failed(reason) => Class::Connect(reason),
                Cause::Timeout => self.timeout(Phase::Connect),
            };
            failed(class, missed.peer)
        })?;
        let peer = tcp.peer_addr().map_err(|error| failed(Class::Connect(error.to_string()), None))?;
        let wire = Wire::new(tcp, self.budget.clone());
        let tls = matches!(self.query.endpoint.security, Security::Tls(_));
        Ok((if tls { wire.in_records() } else { wire }, peer))
    }

    fn timeout(&self, phase: Phase) -> Class {
        Class::Timeout { phase, after: self.limit }
    }

    fn fault(&self, class: Class) -> Fault {
        Fault { class, endpoint: self.query.endpoint.to_string(), peer: None, source: None }
    }

    fn fault_at(&self, peer: SocketAddr) -> Fault {
        Fault { peer: Some(peer), ..self.fault(Class::ClosedBeforeAnswer) }
    }
}

/// Sends the request in one write and reads until the answer is complete; what follows it is left unread.
async fn exchange(stream: &mut Stream, request: &[u8], attempt: &Attempt<'_>) -> Result<Answer, Class> {
    match timeout_at(attempt.deadline, async {
        stream.write_all(request).await?;
        stream.flush().await?;
        stream.hurry();
        Ok(())
    })
    .await
    {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(broken(&error, 0, attempt)),
        Err(_) => return Err(attempt.timeout(Phase::Send)),
    }
    let mut received = Vec::with_capacity(2048);
    loop {
        match timeout_at(attempt.deadline, stream.read_buf(&mut received)).await {
            Ok(Ok(0)) if received.is_empty() => return Err(Class::ClosedBeforeAnswer),
            Ok(Ok(0)) => {
                return match packet::decode(&received, true) {
                    Ok(Progress::Complete(answer)) => Ok(answer),
                    Ok(Progress::More) => Err(Class::BrokenOff("closed by the peer".to_owned())),
                    Err(why) => Err(Class::Protocol(why)),
                };
            }
            Ok(Ok(_)) => match packet::decode(&received, false) {
                Ok(Progress::Complete(answer)) => return Ok(answer),
                Ok(Progress::More) => {}
                Err(why) => return Err(Class::Protocol(why)),
            },
            Ok(Err(error)) => return Err(broken(&error, received.len(), attempt)),
            Err(_) if received.is_empty() => return Err(attempt.timeout(Phase::Answer)),
            Err(_) => return unended(&received, attempt),
        }
    }
}

/// What came until the deadline from a peer that does not close. A version 2 packet of unusual size has no other end; one that is
/// long enough and whose checksum is wrong is damaged, not slow.
fn unended(received: &[u8], attempt: &Attempt<'_>) -> Result<Answer, Class> {
    match packet::decode(received, true) {
        Ok(Progress::Complete(answer)) => Ok(answer),
        Err(why @ NotAnAnswer::Checksum(_)) => Err(Class::Protocol(why)),
        Ok(Progress::More) | Err(_) => Err(attempt.timeout(Phase::Rest)),
    }
}

/// The class of a failed read or write, `received` bytes into the answer.
fn broken(error: &io::Error, received: usize, attempt: &Attempt<'_>) -> Class {
    if attempt.budget.is_spent() {
        return Class::TooMuch(wire::MAX_READ);
    }
    match tls::class_of_io(error) {
        Some(class) => class,
        None if received == 0 => Class::ClosedBeforeAnswer,
        None => Class::BrokenOff(error.to_string()),
    }
}

/// An alert as the daemon's no to our certificate, or to none: what it means depends on whether the daemon asked for one.
fn about_certificates(class: Class, asked: bool, endpoint: &Endpoint) -> Class {
    match class {
        // 40 is what TLS 1.2 has for a missing certificate; the others are about certificates by their names (RFC 8446 §6.2).
        Class::Alert { number, name } if asked && matches!(number, 40 | 42..=46 | 48 | 49 | 116) => {
            Class::ClientCertificate { alert: Some((number, name)), shown: shows_certificate(endpoint) }
        }
        class => class,
    }
}

fn shows_certificate(endpoint: &Endpoint) -> bool {
    endpoint.security.tls().is_some_and(|policy| policy.identity.is_some())
}

/// Whether another handshake, without a ticket or with more ciphers, may end otherwise.
fn may_be_otherwise(class: &Class) -> bool {
    !matches!(
        class,
        Class::Timeout { .. }
            | Class::TooMuch(_)
            | Class::ClientCertificate { .. }
            | Class::Untrusted(_)
            | Class::Expired(_)
            | Class::WrongName(_)
            | Class::WrongPin(_)
    )
}

/// NSClient++ answers a later version with a version 2 packet that says so.
fn refuses_version(answer: &Answer) -> bool {
    const SAYS: [&[u8]; 2] = [b"Invalid packet version", b"Invalid packet length"];
    answer.version == Version::V2 && SAYS.iter().any(|says| answer.text.windows(says.len()).any(|part| part == *says))
}
