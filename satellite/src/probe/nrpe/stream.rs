//! A connection to a daemon, with or without TLS, as one thing to read and write. Decides nothing.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::tls::{self, Secure};
use super::wire::Wire;

/// A connection with or without TLS.
pub(super) enum Stream {
    /// Bare TCP.
    Plain(Wire),
    /// Inside TLS.
    Secure(Pin<Box<Secure>>),
}

impl Stream {
    /// Says that the answer to what was just written is waited for: what comes first is acknowledged at once.
    pub(super) fn hurry(&self) {
        if let Self::Secure(secure) = self {
            tls::hurry(secure);
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(wire) => Pin::new(wire).poll_read(cx, buf),
            Self::Secure(secure) => secure.as_mut().poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(wire) => Pin::new(wire).poll_write(cx, buf),
            Self::Secure(secure) => secure.as_mut().poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(wire) => Pin::new(wire).poll_flush(cx),
            Self::Secure(secure) => secure.as_mut().poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(wire) => Pin::new(wire).poll_shutdown(cx),
            Self::Secure(secure) => secure.as_mut().poll_shutdown(cx),
        }
    }
}
