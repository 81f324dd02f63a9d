//! The daemon's side of anonymous TLS, with one context for all connections, so that a ticket of one is good for the next: nrpe
//! makes its context before it forks.

use std::pin::Pin;

use anyhow::{Context as _, Result};
use openssl::dh::Dh;
use openssl::ssl::{Ssl, SslContext, SslMethod, SslVersion};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

use super::Transport;

/// Shakes hands with clients.
pub struct Acceptor(SslContext);

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Acceptor")
    }
}

impl Acceptor {
    /// For a daemon of this transport; none for a plain one.
    ///
    /// # Errors
    /// OpenSSL has not what is needed.
    pub fn new(transport: Transport) -> Result<Option<Self>> {
        let (ciphers, newest) = match transport {
            Transport::Plain => return Ok(None),
            Transport::Anonymous => ("ALL:!MD5:@STRENGTH:@SECLEVEL=0", None),
            Transport::Adh => ("ADH:@SECLEVEL=0", Some(SslVersion::TLS1_2)),
        };
        let mut context = SslContext::builder(SslMethod::tls_server())?;
        context.set_security_level(0);
        context.set_cipher_list(ciphers)?;
        context.set_min_proto_version(Some(SslVersion::TLS1))?;
        context.set_max_proto_version(newest)?;
        let group = Dh::get_2048_256().context("the 2048-bit group of RFC 5114")?;
        context.set_tmp_dh(&group)?;
        Ok(Some(Self(context.build())))
    }

    /// Shakes hands; the flag says whether a session was resumed.
    ///
    /// # Errors
    /// The handshake failed.
    pub async fn accept(&self, stream: TcpStream) -> Result<(SslStream<TcpStream>, bool)> {
        let mut stream = SslStream::new(Ssl::new(&self.0)?, stream)?;
        Pin::new(&mut stream).accept().await?;
        let resumed = stream.ssl().session_reused();
        Ok((stream, resumed))
    }
}
