//! The daemon's side of TLS, anonymous or with a certificate, with one context for all connections, so that a ticket of one is good for the next: nrpe
//! makes its context before it forks.

use std::path::Path;
use std::pin::Pin;

use anyhow::{Context as _, Result};
use openssl::dh::Dh;
use openssl::ssl::{Ssl, SslContext, SslFiletype, SslMethod, SslVerifyMode, SslVersion};
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

    /// For a daemon with a certificate and no anonymous suite; with the certificate of an authority in `clients` it insists on a
    /// client certificate of that one. Unlike nrpe it honours tickets all the same.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn certified(certificate: &Path, key: &Path, clients: Option<&Path>) -> Result<Self> {
        let mut context = SslContext::builder(SslMethod::tls_server())?;
        context.set_min_proto_version(Some(SslVersion::TLS1_2))?;
        context.set_certificate_chain_file(certificate)?;
        context.set_private_key_file(key, SslFiletype::PEM)?;
        context.set_session_id_context(b"fake nrpe")?;
        if let Some(clients) = clients {
            context.set_ca_file(clients)?;
            context.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
        }
        Ok(Self(context.build()))
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
