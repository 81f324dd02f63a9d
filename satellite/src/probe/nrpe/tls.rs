//! TLS as NRPE daemons speak it. With the rooms below it the only one of the client that knows OpenSSL: contexts that are used
//! for nothing else, anonymous key exchange, verified peers, session tickets, and OpenSSL's errors turned into our classes.
//!
//! The surprise is an HTTP library: handing a session to OpenSSL is an unsafe call, which this house does not make.
//! `hyper-openssl` makes it, and keeps a cache of sessions by host and port. Our host is the name of a ticket, and a new
//! generation of the name gives the old ticket up.

mod files;
mod judge;

use std::collections::HashMap;
use std::error::Error as StdError;
use std::future::{Future, Ready, poll_fn, ready};
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use hyper::Uri;
use hyper_openssl::SslStream;
use hyper_openssl::client::legacy::{HttpsLayer, MaybeHttpsStream};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use openssl::ssl::{self, ErrorCode, Ssl, SslAlert, SslContext, SslRef};
use tokio::sync::Semaphore;
use tower_layer::Layer;
use tower_service::Service;

use self::files::{Files, Stamps};
use self::judge::Judge;
use super::endpoint::{Plan, TicketName};
use super::error::{CERTIFICATE_REQUIRED, Class};
use super::policy::{Endpoint, Offer, TlsPolicy};
use super::wire::Wire;

/// Contexts kept: one for each offer and set of files that the policies of all endpoints come to. Beyond it the one not used
/// for the longest time goes, and its endpoints see one full handshake more.
const MAX_CONTEXTS: usize = 256;

/// [`Agreed::protocol`] of TLS 1.3.
pub const TLS1_3: &str = "TLSv1.3";

/// A connection inside TLS.
pub type Secure = TokioIo<MaybeHttpsStream<TokioIo<Wire>>>;

/// What a handshake agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// Protocol version, for example `TLSv1.2`.
    pub protocol: &'static str,
    /// Cipher suite by OpenSSL's name.
    pub cipher: &'static str,
    /// Whether a ticket was honoured.
    pub resumed: bool,
    /// Whether the peer has proven who it is, now or when the session was new.
    pub authenticated: bool,
    /// The peer's own certificate (DER), where the query asks for it and there is one.
    pub certificate: Option<Vec<u8>>,
}

/// The contexts of one prober.
pub struct Tls {
    contexts: Mutex<HashMap<(Offer, Files), Arc<Contexts>>>,
    /// Whether sessions are kept, as far as endpoints bear them.
    tickets: bool,
    /// Counts uses, to tell which context was used last.
    uses: AtomicU64,
    /// Threads that may compute full handshakes at once, so that one that costs 5–16 ms never stalls all of them.
    full: Arc<Semaphore>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

/// What endpoints with the same offer and files share.
struct Contexts {
    with_tickets: Option<HttpsLayer>,
    without: SslContext,
    stamps: Stamps,
    used: AtomicU64,
}

/// What a handshake needs; made by [`Tls::prepare`].
pub struct Prepared {
    contexts: Arc<Contexts>,
    judge: Option<Judge>,
}

impl Contexts {
    fn new(offer: &Offer, files: &Files, stamps: Stamps, tickets: bool) -> Result<Self, Class> {
        let failed = |error: openssl::error::ErrorStack| Class::Tls(error.to_string());
        let with_tickets =
            if tickets { Some(HttpsLayer::with_connector(files.connector(offer)?).map_err(failed)?) } else { None };
        let without = files.context(offer)?;
        Ok(Self { with_tickets, without, stamps, used: AtomicU64::new(0) })
    }
}

impl Tls {
    /// Contexts for anonymous peers; those of other policies are made when they are needed.
    ///
    /// # Errors
    /// OpenSSL cannot be set up: a build without the needed ciphers, or no memory.
    pub fn new() -> io::Result<Self> {
        let tls = Self { tickets: true, ..Self::without_tickets() };
        let policy = TlsPolicy::default();
        for suites in [super::policy::Suites::Fast, super::policy::Suites::All] {
            tls.contexts(&policy.offer(suites), &Files::of(&policy))
                .map_err(|class| io::Error::other(format!("{class:?}")))?;
        }
        Ok(tls)
    }

    /// For a process that asks once: nothing is made before it is needed, no session is kept.
    #[must_use]
    pub fn without_tickets() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            contexts: Mutex::default(),
            tickets: false,
            uses: AtomicU64::new(0),
            full: Arc::new(Semaphore::new((cores - 1).max(1))),
        }
    }

    /// All that a handshake needs before there is a connection.
    ///
    /// # Errors
    /// A file of the policy cannot be used, or OpenSSL cannot do what the policy wants.
    pub fn prepare(&self, endpoint: &Endpoint, plan: &Plan) -> Result<Prepared, Class> {
        let Some(policy) = endpoint.security.tls() else {
            return Err(Class::Tls("this endpoint is spoken to without TLS".to_owned()));
        };
        let contexts = self.contexts(&policy.offer(plan.suites), &Files::of(policy))?;
        Ok(Prepared { contexts, judge: Judge::of(endpoint) })
    }

    /// Shakes hands on a fresh connection. No deadline of its own; dropping the future breaks off.
    ///
    /// # Errors
    /// The class of what went wrong; the connection is gone.
    pub async fn shake_hands(&self, wire: Wire, prepared: &Prepared, plan: &Plan) -> Result<(Secure, Agreed), Class> {
        let Prepared { contexts, judge } = prepared;
        let refused = |class| judge.as_ref().and_then(Judge::verdict).unwrap_or(class);
        let stream = match plan.ticket.zip(contexts.with_tickets.as_ref()) {
            Some((name, with_tickets)) => {
                let uri = uri(name)?;
                let mut connector = with_tickets.layer(Once(Some(TokioIo::new(wire))));
                let presiding = judge.clone();
                connector.set_callback(move |connection, _| {
                    // The host of the URI names a ticket, not a peer.
                    connection.set_use_server_name_indication(false);
                    connection.set_verify_hostname(false);
                    presiding.as_ref().map_or(Ok(()), |judge| judge.preside(connection))
                });
                let handshake = connector.call(uri);
                let shaken = if plan.offered { handshake.await } else { self.in_turn(handshake).await };
                shaken.map_err(|error| refused(class_of(&*error)))?
            }
            None => {
                let failed = |error: openssl::error::ErrorStack| Class::Tls(error.to_string());
                let mut ssl = Ssl::new(&contexts.without).map_err(failed)?;
                if let Some(judge) = judge {
                    judge.preside(&mut ssl).map_err(failed)?;
                }
                let mut stream = SslStream::new(ssl, TokioIo::new(wire)).map_err(failed)?;
                self.in_turn(Pin::new(&mut stream).connect()).await.map_err(|error| refused(class_of_ssl(&error)))?;
                MaybeHttpsStream::Https(stream)
            }
        };
        let MaybeHttpsStream::Https(secure) = &stream else {
            return Err(Class::Tls("the connection was left without TLS".to_owned()));
        };
        let agreed = agreed(secure.ssl(), judge.as_ref())?;
        Ok((TokioIo::new(stream), agreed))
    }

    /// The contexts for this offer, made anew when a file is not what it was.
    fn contexts(&self, offer: &Offer, files: &Files) -> Result<Arc<Contexts>, Class> {
        let use_number = self.uses.fetch_add(1, Ordering::Relaxed);
        let stamps = files.stamps()?;
        let key = (offer.clone(), files.clone());
        let mut known = self.known();
        if let Some(contexts) = known.get(&key).filter(|contexts| contexts.stamps == stamps) {
            contexts.used.store(use_number, Ordering::Relaxed);
            return Ok(Arc::clone(contexts));
        }
        let made = Arc::new(Contexts::new(offer, files, stamps, self.tickets)?);
        made.used.store(use_number, Ordering::Relaxed);
        if known.len() >= MAX_CONTEXTS {
            let oldest = known.iter().min_by_key(|(_, contexts)| contexts.used.load(Ordering::Relaxed));
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                known.remove(&oldest);
            }
        }
        known.insert(key, Arc::clone(&made));
        Ok(made)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<(Offer, Files), Arc<Contexts>>> {
        // Whatever a panicking thread left in it is whole: an entry is made before it is put in.
        self.contexts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a full handshake so that each of its steps, not its waits, holds one of the few places: a peer that never answers
    /// costs nobody else a place.
    async fn in_turn<F: Future>(&self, handshake: F) -> F::Output {
        let mut handshake = pin!(handshake);
        let mut place = pin!(None);
        poll_fn(|cx| {
            if place.is_none() {
                place.set(Some(Arc::clone(&self.full).acquire_owned()));
            }
            let held = match place.as_mut().as_pin_mut() {
                Some(acquire) => ready!(acquire.poll(cx)),
                None => return Poll::Pending,
            };
            let stepped = handshake.as_mut().poll(cx);
            place.set(None);
            drop(held);
            stepped
        })
        .await
    }
}

/// What stands now. A resumed session is asked once more for its pin; its chain was judged when it was new.
fn agreed(ssl: &SslRef, judge: Option<&Judge>) -> Result<Agreed, Class> {
    let certificate = ssl.peer_certificate();
    if let Some(judge) = judge
        && !judge.knows(certificate.as_deref())
    {
        return Err(Class::Untrusted("the session stands without the expected certificate".to_owned()));
    }
    Ok(Agreed {
        protocol: ssl.version_str(),
        cipher: ssl.current_cipher().map_or("?", |cipher| cipher.name()),
        resumed: ssl.session_reused(),
        authenticated: judge.is_some(),
        certificate: certificate.and_then(|certificate| certificate.to_der().ok()),
    })
}

fn uri(name: TicketName) -> Result<Uri, Class> {
    let text = format!("https://endpoint-{}-{}/", name.endpoint, name.generation);
    text.parse().map_err(|error| Class::Tls(format!("{text}: {error}")))
}

/// Makes the kernel acknowledge at once what comes next. A daemon's TLS 1.3 tickets are a packet of their own, whose
/// acknowledgement its kernel waits for before it sends the answer: 40 ms unless we say so after each request.
pub fn hurry(secure: &Secure) {
    if let MaybeHttpsStream::Https(stream) = secure.inner()
        && stream.ssl().version_str() == TLS1_3
    {
        stream.get_ref().inner().hurry();
    }
}

/// Sends close_notify if the kernel takes it now; waits for nothing. Without it the daemon's child would stay for 15 s, and
/// OpenSSL would hold the session for broken and forget its ticket.
pub async fn close(stream: &mut (impl tokio::io::AsyncWrite + Unpin)) {
    poll_fn(|cx| {
        let _ = Pin::new(&mut *stream).poll_shutdown(cx);
        Poll::Ready(())
    })
    .await;
}

/// The class of an error met while reading or writing inside TLS; `None` if TLS has no part in it.
#[must_use]
pub fn class_of_io(error: &io::Error) -> Option<Class> {
    let ssl = error.get_ref()?.downcast_ref::<ssl::Error>()?;
    match class_of_ssl(ssl) {
        // Before an answer this is the daemon's usual way to say no, and the caller's to judge.
        Class::ClosedInHandshake => None,
        class => Some(class),
    }
}

fn class_of(error: &(dyn StdError + 'static)) -> Class {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(ssl) = error.downcast_ref::<ssl::Error>() {
            return class_of_ssl(ssl);
        }
        cause = error.source();
    }
    Class::Tls(error.to_string())
}

fn class_of_ssl(error: &ssl::Error) -> Class {
    if let Some(io) = error.io_error() {
        return match io.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => {
                Class::ClosedInHandshake
            }
            _ => Class::Tls(io.to_string()),
        };
    }
    if matches!(error.code(), ErrorCode::ZERO_RETURN | ErrorCode::SYSCALL) {
        return Class::ClosedInHandshake;
    }
    let Some(stack) = error.ssl_error() else { return Class::Tls(error.to_string()) };
    for entry in stack.errors() {
        if let Some(alert) = SslAlert::from_reason_code(entry.reason_code())
            && let Ok(number) = u8::try_from(entry.reason_code() - SslAlert::CLOSE_NOTIFY.reason_code())
        {
            return Class::Alert { number, name: name_of(number, alert) };
        }
        match entry.reason() {
            Some("dh key too small") => return Class::DhTooSmall,
            Some("unexpected eof while reading") => return Class::ClosedInHandshake,
            Some(
                reason @ ("wrong version number" | "http request" | "packet length too long" | "record too small"),
            ) => {
                return Class::NotTls(reason.to_owned());
            }
            _ => {}
        }
    }
    Class::Tls(stack.errors().iter().find_map(openssl::error::Error::reason).unwrap_or("unknown reason").to_owned())
}

/// What an alert is called. The library has no words for those that came with TLS 1.3 (RFC 8446 §6.2).
fn name_of(number: u8, alert: SslAlert) -> String {
    match number {
        109 => "missing extension".to_owned(),
        CERTIFICATE_REQUIRED => "certificate required".to_owned(),
        120 => "no application protocol".to_owned(),
        _ => alert.to_string(),
    }
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

/// The service that gives `hyper-openssl` the connection we have already opened.
struct Once(Option<TokioIo<Wire>>);

impl Service<Uri> for Once {
    type Response = TokioIo<Wire>;
    type Error = io::Error;
    type Future = Ready<io::Result<TokioIo<Wire>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(self.0.take().ok_or_else(|| io::Error::other("the connection was taken before")))
    }
}
