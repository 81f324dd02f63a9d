//! A TCP connection that counts what it reads: what one check may cost in bytes is decided here, below TLS, so that records,
//! handshakes and certificate chains without end cost no more than a long answer.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::records::Records;

/// Bytes that one check may read from the network in all its attempts; whoever sends more is cut off.
pub const MAX_READ: usize = 128 * 1024;

/// Bytes that a check may read before others have their turn on this thread. An answer of usual size never gets there; a flood
/// that is always ready would keep the thread as long as it lasts.
const TURN: usize = 8 * 1024;

/// What a check may still read. Clones share it.
#[derive(Debug, Clone)]
pub struct Budget(Arc<AtomicUsize>);

impl Default for Budget {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(MAX_READ)))
    }
}

impl Budget {
    /// Whether nothing is left.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.left() == 0
    }

    fn left(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn spend(&self, bytes: usize) {
        self.0.store(self.left().saturating_sub(bytes), Ordering::Relaxed);
    }
}

/// The records that were sent on a connection; outlives it.
#[derive(Debug, Clone, Default)]
pub struct Sent(Arc<Mutex<Records>>);

impl Sent {
    /// Whether the handshake that has just ended held a certificate message of ours: the daemon asked for one.
    #[must_use]
    pub fn had_certificate(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).had_certificate()
    }

    fn take(&self, bytes: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).sent(bytes);
    }
}

/// A connection with its budget.
#[derive(Debug)]
pub struct Wire {
    tcp: TcpStream,
    budget: Budget,
    sent: Sent,
}

impl Wire {
    /// A connection that reads on this budget.
    #[must_use]
    pub fn new(tcp: TcpStream, budget: Budget) -> Self {
        Self { tcp, budget, sent: Sent::default() }
    }

    /// The records that are sent on it, should it be TLS.
    #[must_use]
    pub fn sent(&self) -> Sent {
        self.sent.clone()
    }

    /// Asks the kernel to acknowledge the next packets at once (`TCP_QUICKACK`). Without it only time is lost.
    pub fn hurry(&self) {
        let _ = SockRef::from(&self.tcp).set_tcp_quickack(true);
    }

    /// The address we came from.
    #[must_use]
    pub fn source(&self) -> Option<IpAddr> {
        self.tcp.local_addr().ok().map(|address| address.ip())
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.budget.is_spent() {
            return Poll::Ready(Err(io::Error::other("the peer has sent all that one check may read")));
        }
        if this.turn >= TURN {
            this.turn = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // A read may go over by one buffer: the budget bounds what a peer can make us take, not the last byte of it.
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.tcp).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        this.budget.spend(read);
        this.turn += read;
        polled
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.tcp).poll_write(cx, buf);
        if let Poll::Ready(Ok(count)) = polled {
            self.sent.take(&buf[..count]);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
