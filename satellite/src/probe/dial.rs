//! Opens a TCP connection to a name or an address before a deadline: name service, then every address in turn. Knows nothing of
//! what is said on it.
//!
//! The surprise: each address gets its share of the time that is left, so that one that swallows packets does not keep the next
//! from being tried.
#![expect(clippy::disallowed_methods, reason = "a shell room: it shares out real time between addresses")]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};

/// Addresses of one name that are tried; further ones are left alone.
pub const MAX_ADDRESSES: usize = 4;

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The name has no address.
    #[error("the name cannot be resolved: {0}")]
    Dns(String),
    /// The name service did not answer in time.
    #[error("no answer from the name service")]
    DnsTimeout,
    /// Nobody listens on the port.
    #[error("connection refused")]
    Refused,
    /// The network knows no way.
    #[error("{0}")]
    Unreachable(String),
    /// Any other failure, ours included (no file descriptors, no free port).
    #[error("{0}")]
    Failed(String),
    /// No address answered in time.
    #[error("no TCP connection")]
    Timeout,
}

/// No connection: why, and which address was tried last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotReached {
    /// Why.
    pub cause: Cause,
    /// The address tried last, if it came to that.
    pub peer: Option<SocketAddr>,
    /// Whether the source address was the trouble: it is not ours.
    pub unbound: bool,
}

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Which way a connection is to take; the default leaves it to the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Route {
    /// Only addresses of this family.
    pub family: Option<Family>,
    /// The address to come from; only addresses of its family are tried.
    pub source: Option<IpAddr>,
}

impl Route {
    fn takes(&self, address: &SocketAddr) -> bool {
        let family = self.family.is_none_or(|family| address.is_ipv4() == (family == Family::V4));
        family && self.source.is_none_or(|source| address.is_ipv4() == source.is_ipv4())
    }
}

/// The C library's sentence for an address of another family than the one that is asked for.
pub const OTHER_FAMILY: &str = "Address family for hostname not supported";

/// Connects to `address` (a name or an IP address) before `deadline`. Nagle's delay is off.
///
/// # Errors
/// The failure of the address tried last.
pub async fn dial(address: &str, port: u16, deadline: Instant) -> Result<TcpStream, NotReached> {
    dial_by(Route::default(), address, port, deadline).await
}

/// The same by a given way.
///
/// # Errors
/// The failure of the address tried last.
pub async fn dial_by(route: Route, address: &str, port: u16, deadline: Instant) -> Result<TcpStream, NotReached> {
    let nowhere = |cause| NotReached { cause, peer: None, unbound: false };
    let mut addresses = resolve(address, port, deadline).await.map_err(nowhere)?;
    let found = !addresses.is_empty();
    let without_source = Route { source: None, ..route };
    addresses.retain(|address| without_source.takes(address));
    // The C library's sentences for it, as check_nrpe prints them.
    let mut last = match address.parse::<IpAddr>() {
        _ if !addresses.is_empty() => NotReached {
            cause: Cause::Failed(OTHER_FAMILY.to_owned()),
            peer: addresses.first().copied(),
            unbound: true,
        },
        Ok(_) => nowhere(Cause::Dns(OTHER_FAMILY.to_owned())),
        Err(_) if found => nowhere(Cause::Dns("Name or service not known".to_owned())),
        Err(_) => nowhere(Cause::Dns("it has no address".to_owned())),
    };
    addresses.retain(|address| route.takes(address));
    let count = addresses.len().min(MAX_ADDRESSES);
    for (number, peer) in addresses.into_iter().take(MAX_ADDRESSES).enumerate() {
        let now = Instant::now();
        let share = deadline.saturating_duration_since(now) / u32::try_from(count - number).unwrap_or(1);
        let socket = match socket(route, peer) {
            Ok(socket) => socket,
            Err(error) => {
                last = NotReached { cause: Cause::Failed(plain(&error)), peer: Some(peer), unbound: true };
                continue;
            }
        };
        match timeout_at(now + share, socket.connect(peer)).await {
            Ok(Ok(stream)) => {
                // Without it a delay is all that is lost; the check itself can go on.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => last = NotReached { cause: cause_of(&error), peer: Some(peer), unbound: false },
            Err(_) => last = NotReached { cause: Cause::Timeout, peer: Some(peer), unbound: false },
        }
    }
    Err(last)
}

fn socket(route: Route, peer: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if peer.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if let Some(source) = route.source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    Ok(socket)
}

/// The addresses of a name, or the address itself, before `deadline`.
///
/// # Errors
/// What the name service said, or that it said nothing.
pub async fn resolve(address: &str, port: u16, deadline: Instant) -> Result<Vec<SocketAddr>, Cause> {
    if let Ok(ip) = address.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    match timeout_at(deadline, lookup_host((address, port))).await {
        Ok(Ok(found)) => Ok(found.collect()),
        Ok(Err(error)) => {
            let text = error.to_string();
            // The C library's sentence is what people search for; the standard library puts its own in front.
            Err(Cause::Dns(text.rsplit_once(": ").map_or(text.as_str(), |(_, reason)| reason).to_owned()))
        }
        Err(_) => Err(Cause::DnsTimeout),
    }
}

fn cause_of(error: &io::Error) -> Cause {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Cause::Refused,
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => Cause::Unreachable(plain(error)),
        io::ErrorKind::TimedOut => Cause::Timeout,
        _ => Cause::Failed(plain(error)),
    }
}

/// The system's sentence without the `(os error 113)` behind it.
#[must_use]
pub fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error").map_or(text.as_str(), |(sentence, _)| sentence).to_owned()
}

/// A deadline `after` from now.
#[must_use]
pub fn deadline_in(after: Duration) -> Instant {
    // An hour stands for a time too long to be added up: no check waits longer.
    let now = Instant::now();
    now.checked_add(after).unwrap_or(now + Duration::from_secs(3600))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_port_is_refused_and_an_open_one_is_reached() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let reached = dial("localhost", port, deadline_in(Duration::from_secs(5))).await.unwrap();
        assert_eq!(reached.peer_addr().unwrap().port(), port);
        drop(listener);
        let refused = dial("127.0.0.1", port, deadline_in(Duration::from_secs(5))).await.unwrap_err();
        assert_eq!((refused.cause, refused.peer.unwrap().port()), (Cause::Refused, port));
    }

    #[tokio::test]
    async fn a_name_that_cannot_exist_is_a_failure_of_the_name_service() {
        let missing = dial("no-such-host.invalid", 5666, deadline_in(Duration::from_secs(20))).await.unwrap_err();
        assert!(matches!(missing.cause, Cause::Dns(_) | Cause::DnsTimeout), "{missing:?}");
        assert_eq!(missing.peer, None);
    }

    #[tokio::test]
    async fn a_way_is_kept_or_refused() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let deadline = || deadline_in(Duration::from_secs(20));
        let from = |source: &str| Route { family: None, source: Some(source.parse().unwrap()) };
        let reached = dial_by(from("127.0.0.7"), "localhost", port, deadline()).await.unwrap();
        assert_eq!(reached.local_addr().unwrap().ip().to_string(), "127.0.0.7");
        let foreign = dial_by(from("192.0.2.1"), "127.0.0.1", port, deadline()).await.unwrap_err();
        assert!(foreign.unbound && matches!(foreign.cause, Cause::Failed(_)), "{foreign:?}");
        let six = Route { family: Some(Family::V6), source: None };
        let other = dial_by(six, "127.0.0.1", port, deadline()).await.unwrap_err();
        assert_eq!(other.cause, Cause::Dns("Address family for hostname not supported".to_owned()));
        let other = dial_by(from("::1"), "127.0.0.1", port, deadline()).await.unwrap_err();
        assert!(other.unbound && other.cause == Cause::Failed(OTHER_FAMILY.to_owned()), "{other:?}");
    }

    #[tokio::test]
    async fn a_deadline_that_has_passed_ends_the_attempt() {
        let late = dial("127.0.0.1", 9, Instant::now()).await.unwrap_err();
        assert!(matches!(late.cause, Cause::Timeout | Cause::Refused), "{late:?}");
    }
}
