//! A peer that does what it is told, byte by byte, whatever the client thinks: for answers that no daemon would give.
#![expect(clippy::disallowed_methods, reason = "a shell room: pauses between bytes are part of the script")]

use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

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
    /// Do nothing any more, and keep the connection.
    Hang,
}

/// Does the acts in order, then closes.
///
/// # Errors
/// The client closed first.
pub async fn play<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, acts: Vec<Act>) -> Result<()> {
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
            Act::Hang => std::future::pending().await,
        }
    }
    stream.shutdown().await?;
    Ok(())
}
