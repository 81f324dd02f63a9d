//! Asks the running master: over the socket in its data directory, or over the network with a token. Decides what a failure means to
//! whoever typed the command. One connection a question. The surprise: a token is never sent in the clear to another machine.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, HOST};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::api::SOCKET;

/// A connection is made within this time.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// Longest answer that is read, in bytes: a thousand objects with the longest texts.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Longest token file that is read, in bytes.
const TOKEN_BYTES_MAX: usize = 4096;
/// Where Debian keeps the certificates it trusts.
const SYSTEM_CAS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nobody answers, or whoever does cannot.
    NotReached(String),
    /// The command was used wrongly.
    Wrong(String),
    /// The master refuses: its message, and the whole answer.
    Refused { message: String, answer: Value },
}

impl Failure {
    /// The exit status it ends with.
    pub(super) fn status(&self) -> u8 {
        match self {
            Self::NotReached(_) => super::NOT_REACHED,
            Self::Wrong(_) | Self::Refused { .. } => super::WRONG,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReached(why) | Self::Wrong(why) => f.write_str(why),
            Self::Refused { message, .. } => f.write_str(&super::table::printable(message)),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Wrong(format!("cannot write the answer: {error}"))
    }
}

/// Where the master is.
enum Way {
    Socket(PathBuf),
    Network { host: String, port: u16, authority: String, token: String, tls: Option<Arc<ClientConfig>> },
}

/// Asks one master.
pub(super) struct Client {
    way: Way,
}

/// A value as a part of a query: everything but letters, digits and `-._~` is escaped (RFC 3986).
pub(super) fn encoded(value: &str) -> String {
    value
        .bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

impl Client {
    /// A client for the master in a data directory, or at an address.
    pub(super) fn new(
        data: Option<&Path>,
        url: Option<&str>,
        token: Option<&Path>,
        ca: Option<&Path>,
    ) -> Result<Self, Failure> {
        let wrong = |why: String| Err(Failure::Wrong(why));
        let data = data.filter(|data| !data.as_os_str().is_empty());
        let way = match (data, url) {
            (Some(data), _) => Way::Socket(data.join(SOCKET)),
            (None, None) => {
                return wrong(
                    "say where the master is: --data DIR on its own machine, or --url URL with --token-file FILE \
                     (PERIGEE_DATA, PERIGEE_URL and PERIGEE_TOKEN_FILE say the same)"
                        .to_owned(),
                );
            }
            (None, Some(url)) => network(url, token, ca)?,
        };
        Ok(Self { way })
    }

    /// Reads a path below the API's root.
    pub(super) fn get(&self, path: &str, wait: Duration) -> Result<Value, Failure> {
        self.ask(Method::GET, path, None, wait)
    }

    /// Asks for an action.
    pub(super) fn post(&self, path: &str, wait: Duration) -> Result<Value, Failure> {
        self.ask(Method::POST, path, None, wait)
    }

    /// Asks for an action that needs to be told something.
    pub(super) fn send(&self, path: &str, body: &Value, wait: Duration) -> Result<Value, Failure> {
        self.ask(Method::POST, path, Some(body), wait)
    }

    fn ask(&self, method: Method, path: &str, body: Option<&Value>, wait: Duration) -> Result<Value, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::Wrong(format!("cannot begin: {error}")))?;
        runtime.block_on(async {
            let asked = timeout(wait, self.exchange(method, path, body)).await;
            asked.unwrap_or_else(|_| {
                Err(Failure::NotReached(format!("{} does not answer within {} s", self.name(), wait.as_secs())))
            })
        })
    }

    fn name(&self) -> String {
        match &self.way {
            Way::Socket(path) => format!("the master at {}", path.display()),
            Way::Network { authority, .. } => format!("the master at {authority}"),
        }
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        match &self.way {
            Way::Socket(socket) => {
                let stream = connected(UnixStream::connect(socket))
                    .await
                    .map_err(|error| Failure::NotReached(not_there(socket, &error)))?;
                self.speak(stream, method, path, body, "localhost", None).await
            }
            Way::Network { host, port, authority, token, tls } => {
                let fail = |error: io::Error| {
                    Failure::NotReached(format!(
                        "{authority} is not reached: {error}; is the master running, and is the address right?"
                    ))
                };
                let stream = connected(TcpStream::connect((host.as_str(), *port))).await.map_err(fail)?;
                let Some(tls) = tls else {
                    return self.speak(stream, method, path, body, authority, Some(token)).await;
                };
                let name = ServerName::try_from(host.clone())
                    .map_err(|_| Failure::Wrong(format!("{host} is no name for https")))?;
                let stream =
                    connected(TlsConnector::from(Arc::clone(tls)).connect(name, stream)).await.map_err(fail)?;
                self.speak(stream, method, path, body, authority, Some(token)).await
            }
        }
    }

    async fn speak<S>(
        &self,
        stream: S,
        method: Method,
        path: &str,
        body: Option<&Value>,
        host: &str,
        token: Option<&str>,
    ) -> Result<Value, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let broken = |error: &dyn fmt::Display| Failure::NotReached(format!("{} broke off: {error}", self.name()));
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        tokio::spawn(connection);
        let text = body.map(Value::to_string).unwrap_or_default();
        let mut request = Request::builder().method(&method).uri(format!("/api/v1/{path}")).header(HOST, host);
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if method == Method::POST {
            request = request.header(CONTENT_LENGTH, text.len());
        }
        let request = request
            .body(Full::new(Bytes::from(text)))
            .map_err(|error| Failure::Wrong(format!("no such question: {error}")))?;
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| broken(&error))?
            .to_bytes();
        let answer: Value = serde_json::from_slice(&body).map_err(|_| {
            Failure::NotReached(format!(
                "{} answers with something else ({status}): is it a Perigee master?",
                self.name()
            ))
        })?;
        if status.is_success() {
            return Ok(answer);
        }
        let message = answer["error"]["message"].as_str().unwrap_or("refused without a reason").to_owned();
        if status.is_server_error() {
            return Err(Failure::NotReached(format!("{}: {}", self.name(), super::table::printable(&message))));
        }
        Err(Failure::Refused { message, answer })
    }
}

async fn connected<T>(connect: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(CONNECT_WAIT, connect).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn not_there(socket: &Path, error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "only the user that the master runs as may use it: become that user, or use --url with a token"
        }
        _ => "is the master running (perigee-master serve), and is this its data directory?",
    };
    format!("no master answers at {}: {error}; {advice}", socket.display())
}

fn network(url: &str, token: Option<&Path>, ca: Option<&Path>) -> Result<Way, Failure> {
    let wrong = |why: String| Failure::Wrong(why);
    let uri: Uri =
        url.parse().map_err(|_| wrong(format!("“{}” is no address: write https://HOST:PORT", url.escape_debug())))?;
    let secure = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(wrong(format!("“{}” is no address: write https://HOST:PORT", url.escape_debug()))),
    };
    let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    let loopback =
        host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if !secure && !loopback {
        return Err(wrong(format!("{url} is not encrypted and a token must not be read on the way: use https")));
    }
    let port = uri.port_u16().unwrap_or(if secure { 8443 } else { 8080 });
    let token = token
        .ok_or_else(|| wrong("--url needs --token-file: `perigee-master token create` makes a token".to_owned()))?;
    let text = std::fs::read_to_string(token)
        .map_err(|error| wrong(format!("cannot read the token in {}: {error}", token.display())))?;
    let text = text.trim();
    if text.is_empty() || text.len() > TOKEN_BYTES_MAX || text.chars().any(|c| !c.is_ascii_graphic()) {
        return Err(wrong(format!("{} holds no token", token.display())));
    }
    let tls = if secure { Some(Arc::new(trusting(ca)?)) } else { None };
    Ok(Way::Network { host, port, authority, token: text.to_owned(), tls })
}

fn trusting(ca: Option<&Path>) -> Result<ClientConfig, Failure> {
    let path = ca.unwrap_or(Path::new(SYSTEM_CAS));
    let unusable = |why: String| {
        Failure::Wrong(format!("no certificates to trust in {}: {why}; give them by --ca", path.display()))
    };
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| unusable(error.to_string()))?;
    roots.add_parsable_certificates(certificates.filter_map(Result::ok));
    if roots.is_empty() {
        return Err(unusable("none can be read".to_owned()));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_pass_a_url_unchanged() {
        assert_eq!(encoded("state=DOWN group!=a b/ü"), "state%3DDOWN%20group%21%3Da%20b%2F%C3%BC");
    }

    #[test]
    fn a_token_does_not_leave_the_machine_in_the_clear() {
        let directory = tempfile::tempdir().unwrap();
        let token = directory.path().join("token");
        std::fs::write(&token, "pgt1.a.b\n").unwrap();
        let refused = |url: &str| network(url, Some(&token), None).err().map(|failure| failure.to_string());
        assert!(refused("http://192.0.2.7:8080").unwrap().contains("use https"));
        assert!(refused("http://master.example.net").unwrap().contains("use https"));
        assert!(refused("ftp://127.0.0.1").unwrap().contains("https://HOST:PORT"));
        for url in ["http://127.0.0.1:8080", "http://localhost", "http://[::1]:8080"] {
            assert_eq!(refused(url), None, "{url}");
        }
        assert!(
            network("http://127.0.0.1", None, None).is_err_and(|failure| failure.to_string().contains("--token-file"))
        );
    }
}
