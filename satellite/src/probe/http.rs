//! Asks a web server for a page: connects, speaks HTTP/1.1, follows redirects as far as the check says, all within one deadline.
//! Judges nothing (`verdict` does) and keeps nothing between checks: each one sees name service, handshake and certificate anew.
//!
//! The surprise: on its way to another host or scheme a redirect loses the check's own headers that hold secrets, and the body;
//! a page must not be able to send them anywhere.
#![expect(clippy::disallowed_methods, reason = "a shell room: it measures response times")]

pub mod counted;
pub mod verdict;

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, LOCATION, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use shared::check::State;
use shared::check::network::{HttpCheck, REDIRECTS_MAX, Tls};
use shared::time::Timestamp;
use shared::url::{Url, encoded};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use self::counted::{Count, Counted};
use self::verdict::{Answer, is_accepted, judge};
use super::certificate::refused;
use super::certificate::validity::Validity;
use super::dial;
use super::found::{Found, shown};
use super::tls::Trust;

/// Longest part of a body that is read and searched; the rest is left alone and the text says so.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Longest head of an answer; a longer one is a fault.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Most headers of an answer; more are a fault.
pub const HEADERS_MAX: usize = 128;
/// What one exchange may read in all: head and body, and what chunks put around it; whoever sends more is cut off.
pub const READ_BYTES_MAX: u64 = 2 * (BODY_BYTES_MAX + HEAD_BYTES_MAX) as u64;

/// What a body is if the check's headers do not say (check_http's own).
const USUAL_CONTENT_TYPE: &str = "application/x-www-form-urlencoded";

/// Headers that are for the server they were written for, and for nobody whom it names.
const SECRET_HEADERS: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];

/// Where one request goes.
#[derive(Debug, Clone)]
struct Target {
    url: Url,
    /// Name or address to connect to.
    address: String,
    method: String,
    /// Whether the check's body and secret headers go along.
    trusted: bool,
}

/// One answer.
#[derive(Debug)]
struct Page {
    line: String,
    status: u16,
    location: Option<String>,
    body: Vec<u8>,
    cut_off: bool,
    size: u64,
    certificate: Option<Vec<u8>>,
    doubt: Option<String>,
}

/// One check on its way.
struct Visit<'a> {
    trust: &'a Trust,
    check: &'a HttpCheck,
    now: Timestamp,
    limit: Duration,
    started: Instant,
    deadline: Instant,
}

/// Asks for the page within `limit`; `now` is the wall clock's time, by which a certificate's days are counted.
pub async fn visit(trust: &Trust, check: &HttpCheck, now: Timestamp, limit: Duration) -> Found {
    let (started, deadline) = (Instant::now(), dial::deadline_in(limit));
    Visit { trust, check, now, limit, started, deadline }.run().await
}

impl Visit<'_> {
    async fn run(&self) -> Found {
        let check = self.check;
        let url =
            Url { tls: check.tls.is_some(), host: check.host.clone(), port: check.port, path: check.path.clone() };
        let mut target = Target { url, address: check.address.clone(), method: check.method.clone(), trusted: true };
        let mut seen = vec![target.url.clone()];
        let mut proven = None;
        loop {
            let page = match self.exchange(&target).await {
                Ok(page) => page,
                Err(found) => return *found,
            };
            proven = both(proven, page.certificate.is_some().then_some(page.doubt.is_none()));
            let redirect = (300..400).contains(&page.status) && page.status != 304;
            if check.follow == 0 || !redirect || is_accepted(page.status, &check.status) {
                return self.verdict(&target, &page).proven(proven);
            }
            let from = shown(&target.url.to_string());
            let Some(location) = &page.location else {
                let text = format!("HTTP UNKNOWN - {from}: a redirect without a location: {}", shown(&page.line));
                return Found::ran(State::Unknown, text).proven(proven);
            };
            let next = match target.url.join(location) {
                Ok(url) => url,
                Err(error) => {
                    let text = format!("HTTP UNKNOWN - {from} redirects to “{}”: {error}", shown(location));
                    return Found::ran(State::Unknown, text).proven(proven);
                }
            };
            let to = shown(&next.to_string());
            if seen.contains(&next) {
                let text = format!("HTTP CRITICAL - redirection creates an infinite loop: {from} leads back to {to}");
                return Found::ran(State::Critical, text).proven(proven);
            }
            if seen.len() > usize::from(check.follow.min(REDIRECTS_MAX)) {
                let text =
                    format!("HTTP WARNING - maximum redirection depth {} exceeded: {from} leads to {to}", check.follow);
                return Found::ran(State::Warning, text).proven(proven);
            }
            seen.push(next.clone());
            target = target.next(next, page.status);
        }
    }

    fn verdict(&self, target: &Target, page: &Page) -> Found {
        let days = self.check.certificate.as_ref();
        let validity = page.certificate.as_deref().and_then(Validity::read);
        let answer = Answer {
            url: &target.url.to_string(),
            line: &page.line,
            status: page.status,
            body: &page.body,
            cut_off: page.cut_off,
            size: page.size,
            took: self.started.elapsed(),
            certificate: days.zip(validity).map(|(days, validity)| validity.judge(days, self.now)),
            doubt: page.doubt.as_deref(),
        };
        judge(self.check, &answer, self.limit)
    }

    /// How the servers of this visit are believed; a redirect may lead a plain check to TLS.
    fn tls(&self) -> Tls {
        self.check.tls.clone().unwrap_or(Tls { name: None, verify: true, ca: None })
    }

    async fn exchange(&self, target: &Target) -> Result<Page, Box<Found>> {
        let (url, started) = (&target.url, Instant::now());
        let stream = dial::dial(&target.address, url.port, self.deadline).await;
        let stream =
            stream.map_err(|missed| Found::unreached("HTTP", &target.address, url.port, &missed, started.elapsed()))?;
        if !url.tls {
            return self.ask(stream, target).await;
        }
        let tls = self.tls();
        // A name of its own is for the server of the check, not for one that a redirect leads to.
        let own = tls.name.as_deref().filter(|_| url.host == self.check.host);
        let session = self.trust.open(stream, own.unwrap_or(&url.host), &tls, self.deadline).await;
        let session = session.map_err(|fault| {
            let days = self.check.certificate.as_ref();
            refused("HTTP", &shown(&url.to_string()), &fault, days, self.now, self.limit)
        })?;
        let mut page = self.ask(session.stream, target).await?;
        page.certificate = Some(session.certificate);
        page.doubt = session.problem;
        Ok(page)
    }

    async fn ask<S>(&self, stream: S, target: &Target) -> Result<Page, Box<Found>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let fault = |error: &dyn std::error::Error| {
            let text = format!("HTTP CRITICAL - {}: {}", shown(&target.url.to_string()), shown(&sentence(error)));
            Box::new(Found::failed("http-protocol", State::Critical, text))
        };
        let request = self.request(target)?;
        let count = Count::default();
        let io = TokioIo::new(Counted::new(stream, count.clone(), READ_BYTES_MAX));
        let mut builder = hyper::client::conn::http1::Builder::new();
        builder.max_buf_size(HEAD_BYTES_MAX).max_headers(HEADERS_MAX);
        // A server that writes its headers badly still serves its page: what is no header is left out, as by browsers.
        builder.ignore_invalid_headers_in_responses(true);
        builder.allow_spaces_after_header_name_in_responses(true).allow_obsolete_multiline_headers_in_responses(true);
        let (mut sender, connection) = builder.handshake(io).await.map_err(|error| fault(&error))?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let response = timeout_at(self.deadline, sender.send_request(request)).await;
        let response = response.map_err(|_| self.late(target, "no answer"))?.map_err(|error| fault(&error))?;
        let (line, status) = (line_of(&response), response.status().as_u16());
        let location = response.headers().get(LOCATION).map(|value| encoded(value.as_bytes()));
        let mut body = Vec::new();
        let mut incoming = response.into_body();
        let cut_off = loop {
            let frame = timeout_at(self.deadline, incoming.frame()).await;
            match frame.map_err(|_| self.late(target, "no end of the answer"))? {
                None => break false,
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    let room = BODY_BYTES_MAX - body.len();
                    body.extend_from_slice(data.get(..room.min(data.len())).unwrap_or_default());
                    if data.len() > room {
                        break true;
                    }
                }
                Some(Err(error)) => return Err(fault(&error)),
            }
        };
        Ok(Page { line, status, location, body, cut_off, size: count.bytes(), certificate: None, doubt: None })
    }

    fn request(&self, target: &Target) -> Result<Request<Full<Bytes>>, Box<Found>> {
        let check = self.check;
        let mut request = Request::builder()
            .method(target.method.as_str())
            .uri(target.url.path.as_str())
            .header(HOST, target.url.authority())
            .header(CONNECTION, "close");
        if !check.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(USER_AGENT.as_str())) {
            request = request.header(USER_AGENT, concat!("perigee/", env!("CARGO_PKG_VERSION")));
        }
        let secret = |name: &str| SECRET_HEADERS.iter().any(|secret| name.eq_ignore_ascii_case(secret));
        for (name, value) in check.headers.iter().filter(|(name, _)| target.trusted || !secret(name)) {
            request = request.header(name.as_str(), value.as_str());
        }
        let carries = target.trusted && target.method == check.method;
        let body = check.body.clone().filter(|_| carries).unwrap_or_default();
        if !body.is_empty() && !check.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(CONTENT_TYPE.as_str())) {
            request = request.header(CONTENT_TYPE, USUAL_CONTENT_TYPE);
        }
        request.body(Full::new(Bytes::from(body))).map_err(|error| {
            let text =
                format!("HTTP UNKNOWN - {}: no such request can be sent: {error}", shown(&target.url.to_string()));
            Box::new(Found::failed("http-request", State::Unknown, text))
        })
    }

    fn late(&self, target: &Target, what: &str) -> Box<Found> {
        let seconds = self.limit.as_secs_f64();
        Box::new(Found::late(format!(
            "HTTP CRITICAL - {}: {what} within {seconds:.3} s",
            shown(&target.url.to_string())
        )))
    }
}

impl Target {
    /// The next request after a redirect (RFC 9110 §15.4): to another host or scheme without secrets, and as GET where browsers
    /// make it one.
    fn next(&self, url: Url, status: u16) -> Self {
        let same = (url.tls, &url.host, url.port) == (self.url.tls, &self.url.host, self.url.port);
        let rewritten = status == 303 || (matches!(status, 301 | 302) && self.method == "POST");
        let method = if rewritten && self.method != "HEAD" { "GET".to_owned() } else { self.method.clone() };
        let address = if url.host == self.url.host { self.address.clone() } else { url.host.clone() };
        Self { url, address, method, trusted: self.trusted && same }
    }
}

/// Whether everything that was spoken with is proven; plain HTTP alone has no answer.
fn both(one: Option<bool>, other: Option<bool>) -> Option<bool> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one && other),
        (one, other) => one.or(other),
    }
}

/// The status line as it came.
fn line_of(response: &Response<Incoming>) -> String {
    let status = response.status();
    let reason = match response.extensions().get::<ReasonPhrase>() {
        Some(reason) => String::from_utf8_lossy(reason.as_bytes()).into_owned(),
        None => status.canonical_reason().unwrap_or_default().to_owned(),
    };
    format!("{:?} {} {reason}", response.version(), status.as_str()).trim_end().to_owned()
}

/// An error with what caused it: hyper keeps the interesting part behind.
fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str, method: &str) -> Target {
        Target { url: Url::parse(url).unwrap(), address: "192.0.2.1".into(), method: method.into(), trusted: true }
    }

    #[test]
    fn a_redirect_within_a_host_keeps_its_address_and_its_secrets() {
        let next = target("http://web/a", "GET").next(Url::parse("http://web/b").unwrap(), 302);
        assert_eq!((next.address.as_str(), next.trusted), ("192.0.2.1", true));
    }

    #[test]
    fn a_redirect_elsewhere_loses_secrets_for_good() {
        let first = target("https://web/a", "GET");
        for other in ["https://other/", "http://web/", "https://web:444/"] {
            let next = first.next(Url::parse(other).unwrap(), 302);
            assert!(!next.trusted, "{other}");
            assert!(!next.next(first.url.clone(), 302).trusted, "{other} and back");
        }
        assert_eq!(first.next(Url::parse("https://other/").unwrap(), 302).address, "other");
    }

    #[test]
    fn the_method_changes_as_browsers_change_it() {
        let method =
            |method: &str, status| target("http://a/", method).next(Url::parse("http://a/b").unwrap(), status).method;
        assert_eq!(
            [301, 302, 303, 307, 308].map(|status| method("POST", status)),
            ["GET", "GET", "GET", "POST", "POST"]
        );
        assert_eq!([301, 303].map(|status| method("HEAD", status)), ["HEAD", "HEAD"]);
        assert_eq!([301, 303].map(|status| method("PUT", status)), ["PUT", "GET"]);
    }

    #[test]
    fn one_server_that_proved_nothing_is_enough() {
        assert_eq!(both(None, None), None);
        assert_eq!(both(Some(true), None), Some(true));
        assert_eq!(both(Some(true), Some(false)), Some(false));
    }
}
