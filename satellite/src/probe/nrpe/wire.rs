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

/// Bytes that one check may read from the network in all its attempts; whoever sends more is cut off. A TLS record counts as at
/// least [`RECORD`] of them.
pub const MAX_READ: usize = 128 * 1024;
/// What a TLS record costs at least. Opening one takes as long as reading so much, so that without it fourteen thousand records of
/// a few bytes, which OpenSSL reads patiently, would cost a tenth of a second. Enough for an answer of 64 KiB in 250 records.
const RECORD: usize = 256;
/// Bytes that a check may read before others have their turn on this thread. An answer of usual size never gets there; a flood
/// that is always ready would keep the thread as long as it lasts.
const TURN: usize = 4 * 1024;

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

/// Finds the records in what is received.
#[derive(Debug, Default)]
struct Received {
    header: [u8; 5],
    /// Bytes of the header that are there.
    have: usize,
    /// Bytes of the record that are still to come.
    rest: usize,
}

impl Received {
    /// What these bytes cost beyond their number.
    fn surcharge(&mut self, mut bytes: &[u8]) -> usize {
        let mut surcharge = 0;
        while !bytes.is_empty() {
            if self.rest == 0 {
                let taken = bytes.len().min(self.header.len() - self.have);
                self.header[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
                self.have += taken;
                bytes = &bytes[taken..];
                if self.have == self.header.len() {
                    self.have = 0;
                    self.rest = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
                    surcharge += RECORD.saturating_sub(self.header.len() + self.rest);
                }
            } else {
                let taken = bytes.len().min(self.rest);
                self.rest -= taken;
                bytes = &bytes[taken..];
            }
        }
        surcharge
    }
}

/// A connection with its budget.
#[derive(Debug)]
pub struct Wire {
    tcp: TcpStream,
    budget: Budget,
    sent: Sent,
    /// Bytes read since the last turn began.
    turn: usize,
    /// `None`: what is received is no TLS.
    received: Option<Received>,
}

impl Wire {
    /// A connection that reads on this budget.
    #[must_use]
    pub fn new(tcp: TcpStream, budget: Budget) -> Self {
        Self { tcp, budget, sent: Sent::default(), turn: 0, received: None }
    }

    /// The same for TLS, whose records have their price.
    #[must_use]
    pub fn in_records(self) -> Self {
        Self { received: Some(Received::default()), ..self }
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
        // A read may go over by one turn: the budget bounds what a peer can make us take, not the last byte of it.
        let room = buf.remaining().min(TURN);
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
        let polled = Pin::new(&mut this.tcp).poll_read(cx, &mut part);
        let read = part.filled().len();
        let surcharge = this.received.as_mut().map_or(0, |received| received.surcharge(part.filled()));
        buf.advance(read);
        this.budget.spend(read + surcharge);
        this.turn += read + surcharge;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_records_have_their_price_however_they_are_cut() {
        let short = [0x16, 3, 3, 0, 4, 0, 0, 0, 0].repeat(10);
        let long = [&[0x17, 3, 3, 4, 0][..], &[7; 1024]].concat();
        let stream = [short.as_slice(), &long, &[0x17, 3, 3, 0, 0]].concat();
        for cut in [1, 2, 3, 7, 64, 5000] {
            let mut received = Received::default();
            let surcharge: usize = stream.chunks(cut).map(|part| received.surcharge(part)).sum();
            assert_eq!(surcharge, 10 * (RECORD - 9) + (RECORD - 5), "cut at {cut}");
        }
    }
}
