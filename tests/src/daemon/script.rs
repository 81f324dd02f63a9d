//! A peer that does what it is told, byte by byte, whatever the client thinks: for answers that no daemon would give.
#![expect(clippy::disallowed_methods, reason = "a shell room: pauses between bytes are part of the script")]

use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

/// One thing to do on a connection.
#[derive(Debug, Clone)]
pub enum Act {
    /// Read this many bytes and forget them.
    Read(usize),
    /// Send these bytes.
    Send(Vec<u8>),
    /// Send these bytes one at a time, with a pause after each.
    Drip(Vec<u8>, Duration),
    /// Send this byte for ever.
    Flood(u8),
    /// Wait this long.
    Pause(Duration),
    /// Send these bytes for ever.
    Repeat(Vec<u8>),
    /// Say that nothing more comes, and go on listening.
    Finish,
    /// Break the connection with a reset, whatever is on its way.
    Reset,
    /// Say nothing any more, and keep the connection until the client closes it.
    Hang,
}

/// A connection that can be broken.
pub trait Breakable: AsyncRead + AsyncWrite + Unpin {
    /// Makes the coming close a reset.
    ///
    /// # Errors
    /// The connection is gone already.
    fn break_on_close(&mut self) -> std::io::Result<()>;
}

impl Breakable for TcpStream {
    fn break_on_close(&mut self) -> std::io::Result<()> {
        self.set_zero_linger()
    }
}

impl Breakable for SslStream<TcpStream> {
    fn break_on_close(&mut self) -> std::io::Result<()> {
        self.get_ref().set_zero_linger()
    }
}

/// Does the acts in order, then closes.
///
/// # Errors
/// The client closed first.
pub async fn play<S: Breakable>(mut stream: S, acts: Vec<Act>) -> Result<()> {
    for act in acts {
        match act {
            Act::Read(count) => {
                let mut read = vec![0; count];
                stream.read_exact(&mut read).await?;
            }
            Act::Send(bytes) => {
                stream.write_all(&bytes).await?;
                stream.flush().await?;
            }
            Act::Drip(bytes, pause) => {
                for byte in bytes {
                    stream.write_all(&[byte]).await?;
                    stream.flush().await?;
                    tokio::time::sleep(pause).await;
                }
            }
            Act::Flood(byte) => loop {
                stream.write_all(&[byte; 4096]).await?;
            },
            Act::Pause(pause) => tokio::time::sleep(pause).await,
            Act::Repeat(bytes) => loop {
                stream.write_all(&bytes).await?;
            },
            Act::Finish => stream.shutdown().await?,
            Act::Reset => {
                stream.break_on_close()?;
                return Ok(());
            }
            Act::Hang => return hang(&mut stream).await,
        }
    }
    stream.shutdown().await?;
    Ok(())
}

/// Says nothing until the client has closed.
///
/// # Errors
/// The connection broke.
pub async fn hang<S: AsyncRead + Unpin>(stream: &mut S) -> Result<()> {
    let mut heard = [0; 4096];
    while stream.read(&mut heard).await? > 0 {}
    Ok(())
}
