//! TLS as NRPE daemons speak it. The one room that knows OpenSSL: contexts at security level 0 that are used for nothing else,
//! anonymous key exchange, session tickets, and OpenSSL's errors turned into our classes. Authenticates nobody.
//!
//! The surprise is an HTTP library: handing a session to OpenSSL is an unsafe call, which this house does not make.
//! `hyper-openssl` makes it, and keeps a cache of sessions by host and port. Our host is the name of a ticket, and a new
//! generation of the name gives the old ticket up.

use std::error::Error as StdError;
use std::future::{Future, Ready, poll_fn, ready};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::Uri;
use hyper_openssl::SslStream;
use hyper_openssl::client::legacy::{HttpsLayer, MaybeHttpsStream};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use openssl::error::ErrorStack;
use openssl::ssl::{
    self, ErrorCode, Ssl, SslAlert, SslConnector, SslConnectorBuilder, SslContext, SslMethod, SslOptions,
    SslVerifyMode, SslVersion,
};
use tokio::sync::Semaphore;
use tower_layer::Layer;
use tower_service::Service;

use super::endpoint::{Plan, Suites, TicketName};
use super::error::Class;
use super::wire::Wire;

/// Elliptic curves, anonymous or with a certificate: no finite-field Diffie-Hellman, which costs ten times as much.
const FAST_SUITES: &str = "ECDHE:AECDH:@SECLEVEL=0";
/// Everything, for daemons that know only ADH.
const ALL_SUITES: &str = "ALL:@SECLEVEL=0";
/// `SSL_OP_IGNORE_UNEXPECTED_EOF`, by number: the name exists only where OpenSSL is 3.0 or newer, and older ones ignore the bit.
const IGNORE_UNEXPECTED_EOF: SslOptions = SslOptions::from_bits_retain(0x80);
/// `SSL_OP_LEGACY_SERVER_CONNECT`, by number: the `openssl` crate has no name for it.
const LEGACY_SERVER_CONNECT: SslOptions = SslOptions::from_bits_retain(0x4);
/// Sessions kept by each context; beyond it OpenSSL drops the oldest, and those daemons see one full handshake more.
const MAX_SESSIONS: i32 = 20_000;

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
}

/// The contexts of one prober.
pub struct Tls {
    fast: Contexts,
    all: Contexts,
    /// Threads that may compute full handshakes at once, so that one that costs 5–16 ms never stalls all of them.
    full: Arc<Semaphore>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

struct Contexts {
    with_tickets: HttpsLayer,
    without: SslContext,
}

impl Contexts {
    fn new(suites: &str, newest: Option<SslVersion>) -> Result<Self, ErrorStack> {
        let mut with_tickets = HttpsLayer::with_connector(builder(suites, newest)?)?;
        with_tickets.set_callback(|connection, _| {
            // The host of the URI names a ticket, not a peer.
            connection.set_use_server_name_indication(false);
            connection.set_verify_hostname(false);
            Ok(())
        });
        Ok(Self { with_tickets, without: builder(suites, newest)?.build().into_context() })
    }
}

fn builder(suites: &str, newest: Option<SslVersion>) -> Result<SslConnectorBuilder, ErrorStack> {
    let mut builder = SslConnector::builder(SslMethod::tls_client())?;
    builder.set_security_level(0);
    builder.set_cipher_list(suites)?;
    builder.set_min_proto_version(Some(SslVersion::TLS1))?;
    builder.set_max_proto_version(newest)?;
    builder.set_verify(SslVerifyMode::NONE);
    builder.set_session_cache_size(MAX_SESSIONS);
    // Daemons close without close_notify. Nothing depends on it: an answer knows its own length and checksum.
    builder.set_options(IGNORE_UNEXPECTED_EOF);
    // Daemons on the OpenSSL of 2009 and before know no safe renegotiation. We never renegotiate.
    builder.set_options(LEGACY_SERVER_CONNECT);
    Ok(builder)
}

impl Tls {
    /// Contexts for both cipher lists.
    ///
    /// # Errors
    /// OpenSSL cannot be set up: a build without the needed ciphers, or no memory.
    pub fn new() -> io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            // TLS 1.3 costs more than 1.2 with a ticket, and 40 ms more each time: its tickets come as a packet of their own.
            fast: Contexts::new(FAST_SUITES, Some(SslVersion::TLS1_2))?,
            all: Contexts::new(ALL_SUITES, None)?,
            full: Arc::new(Semaphore::new((cores - 1).max(1))),
        })
    }

    /// Shakes hands on a fresh connection. No deadline of its own; dropping the future breaks off.
    ///
    /// # Errors
    /// The class of what went wrong; the connection is gone.
    pub async fn shake_hands(&self, wire: Wire, plan: &Plan) -> Result<(Secure, Agreed), Class> {
        let contexts = match plan.suites {
            Suites::Fast => &self.fast,
            Suites::All => &self.all,
        };
        let stream = match plan.ticket {
            Some(name) => {
                let uri = uri(name)?;
                let handshake = contexts.with_tickets.layer(Once(Some(TokioIo::new(wire)))).call(uri);
                let shaken = if plan.offered { handshake.await } else { self.in_turn(handshake).await };
                shaken.map_err(|error| class_of(&*error))?
            }
            None => {
                let ssl = Ssl::new(&contexts.without).map_err(|error| Class::Tls(error.to_string()))?;
                let mut stream =
                    SslStream::new(ssl, TokioIo::new(wire)).map_err(|error| Class::Tls(error.to_string()))?;
                self.in_turn(Pin::new(&mut stream).connect()).await.map_err(|error| class_of_ssl(&error))?;
                MaybeHttpsStream::Https(stream)
            }
        };
        let agreed = match &stream {
            MaybeHttpsStream::Https(stream) => Agreed {
                protocol: stream.ssl().version_str(),
                cipher: stream.ssl().current_cipher().map_or("?", |cipher| cipher.name()),
                resumed: stream.ssl().session_reused(),
            },
            MaybeHttpsStream::Http(_) => return Err(Class::Tls("the connection was left without TLS".to_owned())),
        };
        Ok((TokioIo::new(stream), agreed))
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

fn uri(name: TicketName) -> Result<Uri, Class> {
    let text = format!("https://endpoint-{}-{}/", name.endpoint, name.generation);
    text.parse().map_err(|error| Class::Tls(format!("{text}: {error}")))
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
            return Class::Alert { number, name: alert.to_string() };
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
