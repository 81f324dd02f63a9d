//! A TCP connection that counts what it reads: what one check may cost in bytes is decided here, below TLS, so that records,
//! handshakes and certificate chains without end cost no more than a long answer.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes that one check may read from the network in all its attempts; whoever sends more is cut off.
pub const MAX_READ: usize = 128 * 1024;

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

/// A connection with its budget.
#[derive(Debug)]
pub struct Wire {
    tcp: TcpStream,
    budget: Budget,
}

impl Wire {
    /// A connection that reads on this budget.
    #[must_use]
    pub fn new(tcp: TcpStream, budget: Budget) -> Self {
        Self { tcp, budget }
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
        // A read may go over by one buffer: the budget bounds what a peer can make us take, not the last byte of it.
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.tcp).poll_read(cx, buf);
        this.budget.spend(buf.filled().len() - before);
        polled
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
