//! The sockets: binds TCP and the local one, shakes TLS hands, serves each connection within its limits, and ends them in order. Knows
//! nothing of what is asked. The surprise: the local socket is made in a directory of its own and moved to its place, because
//! between making and closing it for others it would be open for a moment.
#![expect(clippy::disallowed_methods, reason = "waits out what accepting cannot do at the moment: a shell room")]

use std::fs;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context as Step, Poll};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use shared::identity::key_is_exposed;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_util::task::TaskTracker;

use crate::api::guard::Origin;
use crate::api::{Api, Bound, Listeners, route};

/// Connections at once, event streams among them; one more is closed at once and counted.
pub(crate) const CONNECTIONS_MAX: usize = 512;
/// A TLS handshake, and the head of each request, must be complete within this time; otherwise the connection is closed. An idle
/// connection ends by it too.
pub(crate) const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that takes nothing for this long while something is to be sent is cut.
pub(crate) const STALL_MAX: Duration = Duration::from_secs(30);
/// What is being answered at shutdown has this long.
pub(crate) const SHUTDOWN_GRACE: Duration = Duration::from_secs(3);
/// After a failure to accept (no more files, for example) nothing is accepted for this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes of a request's head; more is refused with 431.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Binds what is asked for and serves it in a task.
pub(crate) async fn serve(listeners: Listeners, api: Arc<Api>) -> Result<Bound> {
    let Listeners { tcp, tls, unix, open_reads } = listeners;
    if let Some(address) = tcp {
        if !address.ip().is_loopback() && tls.is_none() {
            bail!(
                "{address} can be reached from other machines, and tokens must not travel in the clear: give a certificate \
                 (--tls-certificate, --tls-key) or listen on a loopback address"
            );
        }
        if open_reads && !address.ip().is_loopback() {
            bail!("--open-reads is for a loopback address; {address} can be reached from other machines");
        }
    }
    let acceptor = tls.as_ref().map(|(certificate, key)| acceptor(certificate, key)).transpose()?;
    let tcp = match tcp {
        Some(address) => {
            Some(TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address} for HTTP"))?)
        }
        None => None,
    };
    let address =
        tcp.as_ref().map(TcpListener::local_addr).transpose().context("cannot tell the address listened on")?;
    let local = bind_local(&unix)?;
    let door = Door {
        router: route::router(&api),
        places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        tracker: TaskTracker::new(),
        api,
    };
    let task = tokio::spawn(async move {
        let local_loop = door.accept_local(local);
        match tcp {
            Some(tcp) => drop(tokio::join!(local_loop, door.accept_tcp(tcp, acceptor))),
            None => local_loop.await,
        }
        if let Err(error) = fs::remove_file(&unix) {
            tracing::debug!(%error, socket = %unix.display(), "the local socket was not removed");
        }
        door.tracker.close();
        door.tracker.wait().await;
    });
    Ok(Bound { tcp: address, task })
}

fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor> {
    let mode = fs::metadata(key).with_context(|| format!("cannot examine {}", key.display()))?.permissions().mode();
    if key_is_exposed(mode) {
        bail!("the key {} can be read or written by others: chmod 600 it", key.display());
    }
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .with_context(|| format!("cannot read certificates from {}", certificate.display()))?;
    let key_read =
        PrivateKeyDer::from_pem_file(key).with_context(|| format!("cannot read a key from {}", key.display()))?;
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .context("TLS")?
        .with_no_client_auth()
        .with_single_cert(chain, key_read)
        .with_context(|| format!("{} and {} do not fit together", certificate.display(), key.display()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Binds the local socket, readable and writable by its owner alone from its first moment.
fn bind_local(path: &Path) -> Result<UnixListener> {
    let mut nursery = path.as_os_str().to_owned();
    nursery.push(".new");
    let nursery = PathBuf::from(nursery);
    let fresh = nursery.join("s");
    let bind = || -> io::Result<UnixListener> {
        match fs::remove_dir_all(&nursery) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        fs::DirBuilder::new().mode(0o700).create(&nursery)?;
        let listener = UnixListener::bind(&fresh)?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600))?;
        // Takes the place of a socket that a killed master left behind; the data directory's lock says that none is alive.
        fs::rename(&fresh, path)?;
        fs::remove_dir(&nursery)?;
        Ok(listener)
    };
    bind().with_context(|| {
        format!("cannot make the local socket {} (its path may have at most 100 bytes)", path.display())
    })
}

/// What every connection needs.
struct Door {
    api: Arc<Api>,
    router: Router,
    places: Arc<Semaphore>,
    tracker: TaskTracker,
}

impl Door {
    async fn accept_tcp(&self, listener: TcpListener, acceptor: Option<TlsAcceptor>) {
        while let Some(accepted) = self.next(|| listener.accept()).await {
            let (stream, peer): (_, SocketAddr) = accepted;
            let Some(place) = self.place() else { continue };
            // Small answers, waited for by people.
            let _ = stream.set_nodelay(true);
            let origin = Origin::Tcp { loopback: peer.ip().to_canonical().is_loopback() };
            match acceptor.clone() {
                None => self.spawn(stream, origin, place),
                Some(acceptor) => {
                    let serve = self.server(origin, place);
                    self.tracker.spawn(async move {
                        match timeout(HEADER_TIMEOUT, acceptor.accept(stream)).await {
                            Ok(Ok(stream)) => serve.run(stream).await,
                            Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS"),
                            Err(_) => tracing::debug!(%peer, "the TLS handshake took too long"),
                        }
                    });
                }
            }
        }
    }

    async fn accept_local(&self, listener: UnixListener) {
        while let Some((stream, _)) = self.next(|| listener.accept()).await {
            let Some(place) = self.place() else { continue };
            match stream.peer_cred() {
                Ok(peer) => self.spawn(stream, Origin::Local { uid: peer.uid() }, place),
                Err(error) => tracing::warn!(%error, "a local client without credentials is turned away"),
            }
        }
    }

    /// The next connection; `None` at shutdown.
    async fn next<T, F: Future<Output = io::Result<T>>>(&self, mut accept: impl FnMut() -> F) -> Option<T> {
        loop {
            let accepted = tokio::select! {
                () = self.api.shutdown.cancelled() => return None,
                accepted = accept() => accepted,
            };
            match accepted {
                Ok(accepted) => return Some(accepted),
                Err(error) => {
                    tracing::warn!(%error, "a connection to the API cannot be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn place(&self) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok();
        if place.is_none() {
            self.api.counts.turned_away.fetch_add(1, Ordering::Relaxed);
        }
        place
    }

    fn server(&self, origin: Origin, place: OwnedSemaphorePermit) -> Server {
        Server { router: self.router.clone(), api: Arc::clone(&self.api), origin, _place: place }
    }

    fn spawn<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
        &self,
        stream: S,
        origin: Origin,
        place: OwnedSemaphorePermit,
    ) {
        self.tracker.spawn(self.server(origin, place).run(stream));
    }
}

/// Serves one connection.
struct Server {
    router: Router,
    api: Arc<Api>,
    origin: Origin,
    _place: OwnedSemaphorePermit,
}

impl Server {
    async fn run<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(self, stream: S) {
        let inner = TowerToHyperService::new(self.router.clone());
        let origin = self.origin;
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(origin);
            inner.call(request)
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(HEAD_BYTES_MAX);
        let connection = builder.serve_connection(TokioIo::new(Moving::new(stream)), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.api.shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                match timeout(SHUTDOWN_GRACE, connection).await {
                    Ok(ended) => ended,
                    Err(_) => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a client's connection has ended");
        }
    }
}

/// A stream on which writing fails when nothing moves for [`STALL_MAX`]: a client that does not read holds nothing for long.
struct Moving<S> {
    stream: S,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Moving<S> {
    fn new(stream: S) -> Self {
        Self { stream, stalled: None }
    }

    fn watch<T>(&mut self, step: &mut Step<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stalled = None;
            return outcome;
        }
        let timer = self.stalled.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + STALL_MAX)));
        match timer.as_mut().poll(step) {
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Moving<S> {
    fn poll_read(mut self: Pin<&mut Self>, step: &mut Step<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(step, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Moving<S> {
    fn poll_write(mut self: Pin<&mut Self>, step: &mut Step<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(step, bytes);
        self.watch(step, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        step: &mut Step<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(step, parts);
        self.watch(step, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, step: &mut Step<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(step);
        self.watch(step, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, step: &mut Step<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(step);
        self.watch(step, outcome)
    }
}
