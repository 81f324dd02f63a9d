//! TLS servers that nobody should run: the oldest version only, somebody else's certificate, a chain that is too long, tickets
//! without number, requests to renegotiate, and a Diffie-Hellman group that no library of today serves, so its handshake is
//! written by hand.
//!
//! The surprise: no library sends a HelloRequest on demand, so it is sealed here with keys worked out from the session's secret.

use std::pin::Pin;

use anyhow::{Context as _, Result};
use openssl::bn::BigNum;
use openssl::dh::Dh;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;
use openssl::ssl::{Ssl, SslContext, SslContextBuilder, SslMethod, SslVersion};
use openssl::symm::{Cipher, encrypt_aead};
use openssl::x509::X509;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

/// Tickets that one connection is sent; together more than any check may read.
const TICKETS: usize = 2000;
/// Certificates in the chain, and names in each.
const CHAIN: (usize, usize) = (5, 2000);
/// The suite whose records are sealed by hand.
const FORGEABLE: &str = "ECDHE-ECDSA-AES128-GCM-SHA256";
/// TLS_DH_anon_WITH_AES_256_CBC_SHA, what daemons of the 2.x series choose.
const DH_ANON: [u8; 2] = [0x00, 0x3a];

/// What is special about a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flavour {
    /// Nothing: a stock daemon's.
    Anonymous,
    /// TLS 1.0 and finite-field Diffie-Hellman only.
    Old,
    /// A certificate for another name.
    Certificate,
    /// A chain of certificates that is longer than any check may read.
    Chain,
    /// TLS 1.3 with thousands of tickets.
    Tickets,
    /// TLS 1.2 with a suite that [`renegotiate`] can seal records for.
    Forgeable,
}

/// Shakes hands in one flavour.
pub(super) struct Acceptor(SslContext);

impl Acceptor {
    pub(super) fn new(flavour: Flavour) -> Result<Self> {
        let mut context = SslContext::builder(SslMethod::tls_server())?;
        context.set_security_level(0);
        context.set_min_proto_version(Some(SslVersion::TLS1))?;
        context.set_tmp_dh(&*Dh::get_2048_256().context("the 2048-bit group of RFC 5114")?)?;
        let ciphers = match flavour {
            Flavour::Anonymous => "ALL:!MD5:@STRENGTH:@SECLEVEL=0",
            Flavour::Old => {
                context.set_max_proto_version(Some(SslVersion::TLS1))?;
                "ADH:@SECLEVEL=0"
            }
            Flavour::Certificate => {
                certify(&mut context, 1, 1)?;
                "ECDHE:@SECLEVEL=0"
            }
            Flavour::Chain => {
                certify(&mut context, CHAIN.0, CHAIN.1)?;
                "ECDHE:@SECLEVEL=0"
            }
            Flavour::Tickets => {
                context.set_min_proto_version(Some(SslVersion::TLS1_3))?;
                context.set_num_tickets(TICKETS)?;
                certify(&mut context, 1, 1)?;
                "ECDHE:@SECLEVEL=0"
            }
            Flavour::Forgeable => {
                context.set_max_proto_version(Some(SslVersion::TLS1_2))?;
                certify(&mut context, 1, 1)?;
                FORGEABLE
            }
        };
        context.set_cipher_list(ciphers)?;
        Ok(Self(context.build()))
    }

    pub(super) async fn accept(&self, stream: TcpStream) -> Result<SslStream<TcpStream>> {
        let mut stream = SslStream::new(Ssl::new(&self.0)?, stream)?;
        Pin::new(&mut stream).accept().await?;
        Ok(stream)
    }
}

/// Gives a server a certificate of somebody else with so many names, and as many more of them behind it.
fn certify(context: &mut SslContextBuilder, certificates: usize, names: usize) -> Result<()> {
    for number in 0..certificates {
        let names: Vec<String> = (0..names).map(|name| format!("host-{name}.another-{number}.example.net")).collect();
        let made = rcgen::generate_simple_self_signed(names)?;
        let certificate = X509::from_der(made.cert.der())?;
        if number == 0 {
            let key: PKey<Private> = PKey::private_key_from_der(&made.signing_key.serialize_der())?;
            context.set_certificate(&certificate)?;
            context.set_private_key(&key)?;
        } else {
            context.add_extra_chain_cert(certificate)?;
        }
    }
    Ok(())
}

/// Reads the request, and then asks for one new handshake after the other until the client is gone.
pub(super) async fn renegotiate(mut stream: SslStream<TcpStream>) -> Result<()> {
    let mut request = [0; 1036];
    stream.read_exact(&mut request).await?;
    let sealer = Sealer::of(&stream)?;
    // Number 0 was our Finished.
    for number in 1.. {
        let record = sealer.seal(number, &[0, 0, 0, 0])?;
        stream.get_mut().write_all(&record).await?;
    }
    Ok(())
}

/// Seals handshake records of TLS 1.2 with AES-128-GCM as the server does (RFC 5246, 5288).
struct Sealer {
    key: Vec<u8>,
    salt: Vec<u8>,
}

impl Sealer {
    fn of(stream: &SslStream<TcpStream>) -> Result<Self> {
        let ssl = stream.ssl();
        let session = ssl.session().context("no session")?;
        let mut master = vec![0; session.master_key_len()];
        session.master_key(&mut master);
        let mut seed = b"key expansion".to_vec();
        let mut random = [0; 32];
        ssl.server_random(&mut random);
        seed.extend(random);
        ssl.client_random(&mut random);
        seed.extend(random);
        // Both keys of 16 bytes, then both salts of 4; the client's come first.
        let block = expand(&master, &seed, 40)?;
        Ok(Self { key: block[16..32].to_vec(), salt: block[36..40].to_vec() })
    }

    fn seal(&self, number: u64, message: &[u8]) -> Result<Vec<u8>> {
        const HANDSHAKE: [u8; 3] = [0x16, 3, 3];
        let number = number.to_be_bytes();
        let nonce = [self.salt.as_slice(), &number].concat();
        let length = u16::try_from(message.len())?.to_be_bytes();
        let covered = [number.as_slice(), &HANDSHAKE, &length].concat();
        let mut tag = [0; 16];
        let sealed = encrypt_aead(Cipher::aes_128_gcm(), &self.key, Some(&nonce), &covered, message, &mut tag)?;
        let body = [number.as_slice(), &sealed, &tag].concat();
        let length = u16::try_from(body.len())?.to_be_bytes();
        Ok([HANDSHAKE.as_slice(), &length, &body].concat())
    }
}

/// P_SHA256 of RFC 5246, section 5.
fn expand(secret: &[u8], seed: &[u8], length: usize) -> Result<Vec<u8>> {
    let key = PKey::hmac(secret)?;
    let hmac =
        |data: &[u8]| -> Result<Vec<u8>> { Ok(Signer::new(MessageDigest::sha256(), &key)?.sign_oneshot_to_vec(data)?) };
    let mut out = Vec::new();
    let mut link = hmac(seed)?;
    while out.len() < length {
        out.extend(hmac(&[link.as_slice(), seed].concat())?);
        link = hmac(&link)?;
    }
    out.truncate(length);
    Ok(out)
}

/// A 2.x daemon's handshake, written by hand.
pub(super) struct Weak(Vec<u8>);

impl Weak {
    /// With a group of so many bits.
    pub(super) fn new(bits: i32) -> Result<Self> {
        let prime = if bits == 768 {
            BigNum::get_rfc2409_prime_768()?
        } else {
            let mut prime = BigNum::new()?;
            prime.generate_prime(bits, false, None, None)?;
            prime
        };
        let prime = prime.to_vec();
        let mut public = vec![0; prime.len()];
        public[prime.len() - 1] = 4;
        let mut hello = vec![3, 3];
        hello.extend([7; 32]);
        // No session, the suite, no compression.
        hello.extend([0, DH_ANON[0], DH_ANON[1], 0]);
        let mut exchange = Vec::new();
        for value in [&prime, &vec![2], &public] {
            exchange.extend(u16::try_from(value.len())?.to_be_bytes());
            exchange.extend(value);
        }
        let mut messages = Vec::new();
        for (kind, body) in [(2_u8, hello), (12, exchange), (14, Vec::new())] {
            messages.push(kind);
            messages.extend(&u32::try_from(body.len())?.to_be_bytes()[1..]);
            messages.extend(body);
        }
        let length = u16::try_from(messages.len())?.to_be_bytes();
        Ok(Self([vec![0x16, 3, 3], length.to_vec(), messages].concat()))
    }

    /// What such a daemon answers to this hello: its handshake, or an alert if the client cannot do its only suite.
    pub(super) fn answer(&self, hello: &[u8]) -> &[u8] {
        const HANDSHAKE_FAILURE: &[u8] = &[0x15, 3, 3, 0, 2, 2, 40];
        // Behind the record's and the message's header, the version, the random and the session come the suites.
        let session = usize::from(hello.get(43).copied().unwrap_or(0));
        let suites = hello.get(46 + session..).unwrap_or_default();
        let length = hello
            .get(44 + session..46 + session)
            .map_or(0, |field| usize::from(field[0]) * 256 + usize::from(field[1]));
        let offered = suites.get(..length).unwrap_or(suites).chunks_exact(2).any(|suite| suite == DH_ANON);
        if offered { &self.0 } else { HANDSHAKE_FAILURE }
    }
}
