//! A stream that counts what is read from it: what an answer weighs, and an end to what a server can make us read, whatever it
//! calls headers, chunks or trailers.
//!
//! The surprise: TLS that ends without a farewell is an end like any other, as for check_http and browsers. Servers that hang up so
//! are many, and a body that says how long it is, or comes in chunks, is not taken for whole if it is not.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How many bytes were read; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Count(Arc<AtomicU64>);

impl Count {
    /// Bytes so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A stream with its count.
#[derive(Debug)]
pub struct Counted<S> {
    inner: S,
    count: Count,
    most: u64,
}

impl<S> Counted<S> {
    /// Counts on `count`; after `most` bytes reading is an error.
    #[must_use]
    pub fn new(inner: S, count: Count, most: u64) -> Self {
        Self { inner, count, most }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.count.bytes() >= this.most {
            return Poll::Ready(Err(io::Error::other(format!("more than {} bytes came", this.most))));
        }
        // A read may go over by one buffer: this bounds what a peer can make us take, not the last byte of it.
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.inner).poll_read(cx, buf);
        this.count.0.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        match polled {
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            polled => polled,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;

    #[tokio::test]
    async fn what_is_read_is_counted_and_has_an_end() {
        let count = Count::default();
        let mut stream = Counted::new(std::io::Cursor::new(vec![7; 100]), count.clone(), 50);
        let mut read = [0; 30];
        stream.read_exact(&mut read).await.unwrap();
        assert_eq!(count.bytes(), 30);
        stream.read_exact(&mut read).await.unwrap();
        assert!(stream.read(&mut read).await.is_err());
        assert_eq!(count.bytes(), 60);
    }
}
