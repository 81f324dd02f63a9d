//! What every test here needs: servers that do what they are told, certificates of any age and name, Debian's plugins, and
//! the form of a text without what was measured.
#![expect(clippy::disallowed_methods, reason = "certificates are made that end some days from now")]

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use openssl::pkey::PKey;
use openssl::ssl::{Ssl, SslAcceptor, SslMethod};
use openssl::x509::X509;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use satellite::probe::Prober;
use shared::check::{Check, Outcome};
use tests::daemon::script::{Act, Breakable, play};
use tests::missing::missing;
use time::OffsetDateTime;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_openssl::SslStream;

/// For checks that should succeed: long enough for a machine that does much else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// What a check of a peer that stalls may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(2);
/// What it may take at most on a busy machine, deadline included.
pub(crate) const KEPT: Duration = Duration::from_secs(5);

/// What Debian's plugin `name` says to these arguments: exit status and text; `None`, and the test is recorded as skipped, where it
/// is not installed.
pub(crate) async fn plugin(name: &str, package: &str, args: &[&str]) -> Option<(u8, String)> {
    let path = format!("/usr/lib/nagios/plugins/{name}");
    if !Path::new(&path).exists() {
        missing(&path, package);
        return None;
    }
    let mut command = Command::new(path);
    command.args(args);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let status = u8::try_from(output.status.code().unwrap_or(255)).unwrap();
    Some((status, String::from_utf8_lossy(&output.stdout).trim_end().to_owned()))
}

/// What the satellite makes of a check.
pub(crate) async fn probe(check: &Check, limit: Duration) -> Outcome {
    Prober::new().unwrap().probe("test", check, limit).await
}

/// Text and performance data as a plugin would print them.
pub(crate) fn printed(outcome: &Outcome) -> String {
    if outcome.perfdata.is_empty() {
        outcome.output.clone()
    } else {
        format!("{}|{}", outcome.output, outcome.perfdata)
    }
}

/// A plugin's text with `#` for every measured time, and without blanks around the bar.
pub(crate) fn form(text: &str) -> String {
    let mut form = String::new();
    for part in text.replace(" |", "|").replace("| ", "|").split_inclusive([' ', '=', 's']) {
        let number = part.trim_end_matches([' ', '=', 's']);
        let measured = number.starts_with("0.") && number.len() > 4;
        form.push_str(&if measured { part.replacen(number, "#", 1) } else { part.to_owned() });
    }
    form
}

/// A server on a free port of loopback that plays the acts to everybody who connects.
pub(crate) async fn server(acts: Vec<Act>) -> SocketAddr {
    serve(move |stream| {
        let acts = acts.clone();
        async move {
            // The client may hang up whenever it has seen enough.
            let _ = play(stream, acts).await;
        }
    })
    .await
}

async fn serve<F, R>(handle: F) -> SocketAddr
where
    F: Fn(TcpStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    accept(listener, handle)
}

fn accept<F, R>(listener: TcpListener, handle: F) -> SocketAddr
where
    F: Fn(TcpStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(handle(stream));
        }
    });
    address
}

/// A web server on the IPv6 loopback; none where there is no such thing, which is recorded.
pub(crate) async fn web_v6(respond: Respond) -> Option<SocketAddr> {
    let Ok(listener) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await else {
        missing("IPv6 on loopback", "nothing: allow it (net.ipv6.conf.lo.disable_ipv6=0)");
        return None;
    };
    Some(accept(listener, move |stream| {
        let respond = Arc::clone(&respond);
        async move { answer(stream, &respond).await }
    }))
}

/// What a web server does for a request, given its whole head.
pub(crate) type Respond = Arc<dyn Fn(&str) -> Vec<Act> + Send + Sync>;

/// A web server that answers each request by `respond`, over TLS if it has a certificate.
pub(crate) async fn web(identity: Option<&Identity>, respond: Respond) -> SocketAddr {
    let acceptor = identity.map(Identity::acceptor);
    serve(move |stream| {
        let (acceptor, respond) = (acceptor.clone(), Arc::clone(&respond));
        async move {
            match acceptor {
                None => answer(stream, &respond).await,
                Some(acceptor) => {
                    let ssl = Ssl::new(acceptor.context()).unwrap();
                    let mut stream = SslStream::new(ssl, stream).unwrap();
                    // A client that does not believe the certificate ends the handshake.
                    if std::pin::Pin::new(&mut stream).accept().await.is_ok() {
                        answer(stream, &respond).await;
                    }
                }
            }
        }
    })
    .await
}

async fn answer<S: Breakable>(mut stream: S, respond: &Respond) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let _ = play(stream, respond(&String::from_utf8_lossy(&head))).await;
}

/// The path of a request's head.
pub(crate) fn path_of(head: &str) -> &str {
    head.split(' ').nth(1).unwrap_or_default()
}

/// An answer with a status line, headers (each with its line end) and a body.
pub(crate) fn page(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}").into_bytes()
}

/// A certificate with its key.
#[derive(Debug)]
pub(crate) struct Identity {
    /// The certificate, PEM.
    pub(crate) pem: String,
    key: String,
}

/// A CA for tests.
pub(crate) struct Ca {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub(crate) fn new() -> Self {
        Self::named("A CA of the tests")
    }

    pub(crate) fn named(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate for `name`, an hour over so many days from its end; fewer than none: it has expired.
    pub(crate) fn leaf(&self, name: &str, days: i64) -> Identity {
        let key = KeyPair::generate().unwrap();
        let made = params(name, days).signed_by(&key, &self.issuer).unwrap();
        Identity { pem: made.pem(), key: key.serialize_pem() }
    }
}

/// A certificate that nobody else has signed.
pub(crate) fn self_signed(name: &str, days: i64) -> Identity {
    let key = KeyPair::generate().unwrap();
    let made = params(name, days).self_signed(&key).unwrap();
    Identity { pem: made.pem(), key: key.serialize_pem() }
}

fn params(name: &str, days: i64) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(jiff::Timestamp::now().as_second());
    params.not_before = now - time::Duration::days(400);
    params.not_after = now + time::Duration::days(days) + time::Duration::hours(1);
    params
}

impl Identity {
    fn acceptor(&self) -> SslAcceptor {
        let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
        builder.set_certificate(&X509::from_pem(self.pem.as_bytes()).unwrap()).unwrap();
        builder.set_private_key(&PKey::private_key_from_pem(self.key.as_bytes()).unwrap()).unwrap();
        builder.build()
    }
}
