//! Whether and how fast a host answers echo requests, in the words and numbers of Monitoring Plugins' `check_icmp`: several
//! requests, the mean of the round trips, the share that was lost. Sends through the kernel's unprivileged ICMP sockets, v4 or
//! v6; knows no privilege.
//!
//! The surprise: whether it may do so is a setting of the machine (`net.ipv4.ping_group_range`, for v6 as well). Where it may
//! not, a check says so with the setting to make; only the check that a host has by default knocks at a TCP port instead.
#![expect(clippy::disallowed_methods, reason = "a shell room: it measures round trips in real time")]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustix::io::Errno;
use shared::check::{Exit, IcmpCheck, State, TcpCheck};
use shared::time::Timestamp;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until};

use self::echo::{Echo, Tally};
use super::dial::{self, Cause};
use super::found::Found;
use super::tcp;
use super::tls::Trust;

pub mod echo;

/// Between two requests of one check, as `check_icmp` has it; less where the time limit is short.
pub const BETWEEN: Duration = Duration::from_millis(80);
/// The last request is waited for as long as a round trip may be critical, and at least so long.
pub const WAIT_MIN: Duration = Duration::from_secs(1);
/// Who may send ICMP, as the kernel has it: the lowest and the highest group.
const PERMITTED: &str = "/proc/sys/net/ipv4/ping_group_range";

/// Why there is no socket.
enum NoSocket {
    /// The kernel does not let us, or has no such sockets.
    NotPermitted(&'static str),
    /// There is no way to the address.
    Unreachable(String),
    /// Our own trouble: no file descriptors.
    Failed(String),
}

/// Sends the check's requests and counts what comes back, all of it within `limit`.
pub async fn ask(trust: &Trust, check: &IcmpCheck, now: Timestamp, limit: Duration) -> Found {
    let deadline = dial::deadline_in(limit);
    let addresses = match dial::resolve(&check.address, 0, deadline).await {
        Ok(addresses) => addresses,
        Err(cause) => return unresolved(&check.address, cause),
    };
    let mut last = Cause::Dns("it has no address".to_owned());
    for address in addresses.into_iter().take(dial::MAX_ADDRESSES) {
        match open(address.ip()) {
            Ok(socket) => {
                let tally = exchange(&socket, check, address.ip(), deadline).await;
                return tally.read(check, Some(address.ip()));
            }
            Err(NoSocket::NotPermitted(why)) => return not_permitted(trust, check, why, now, deadline).await,
            Err(NoSocket::Unreachable(why)) => last = Cause::Unreachable(why),
            Err(NoSocket::Failed(why)) => {
                let text = format!("UNKNOWN - {}: no ICMP socket: {why}", check.address);
                return Found::failed("icmp-failed", State::Unknown, text);
            }
        }
    }
    match last {
        Cause::Unreachable(why) => {
            let mut tally = Tally::new(check.packets);
            tally.note(why);
            let mut found = tally.read(check, None);
            found.exit = Exit::Error("connect-unreachable".to_owned());
            found
        }
        cause => unresolved(&check.address, cause),
    }
}

fn unresolved(address: &str, cause: Cause) -> Found {
    let text = format!("CRITICAL - {address}: {cause}");
    if cause == Cause::DnsTimeout { Found::late(text) } else { Found::failed("dns", State::Critical, text) }
}

/// A socket that the kernel gives an identifier of its own, so that it sees the answers to its own requests only.
fn open(to: IpAddr) -> Result<UdpSocket, NoSocket> {
    let (domain, protocol) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket =
        Socket::new(domain, Type::DGRAM, Some(protocol)).map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::ACCESS | Errno::PERM) => NoSocket::NotPermitted("its groups are not among those that may"),
            Some(Errno::PROTONOSUPPORT | Errno::PROTOTYPE) => NoSocket::NotPermitted("its kernel has no ICMP sockets"),
            Some(Errno::AFNOSUPPORT) => NoSocket::Unreachable(dial::plain(&error)),
            _ => NoSocket::Failed(dial::plain(&error)),
        })?;
    let failed = |error: io::Error| NoSocket::Failed(dial::plain(&error));
    socket.set_nonblocking(true).map_err(failed)?;
    // Connected, it needs no address with every request, and it hears what a host or a router refuses.
    socket.connect(&SocketAddr::new(to, 0).into()).map_err(|error| NoSocket::Unreachable(dial::plain(&error)))?;
    UdpSocket::from_std(socket.into()).map_err(failed)
}

/// The requests and their answers, until all have come or the time is over.
async fn exchange(socket: &UdpSocket, check: &IcmpCheck, to: IpAddr, deadline: Instant) -> Tally {
    let mut tally = Tally::new(check.packets);
    let mut echo = Echo::new(to.is_ipv6(), rand::random());
    let began = Instant::now();
    let room = deadline.saturating_duration_since(began);
    let between = BETWEEN.min(room / (2 * u32::from(check.packets.max(1))));
    let wait = Duration::from_micros(check.critical.rta_us).max(WAIT_MIN);
    let mut sent_at: Vec<Instant> = Vec::new();
    let mut buffer = [0; echo::BYTES + 64];
    while !tally.is_complete() {
        let all_sent = sent_at.len() >= usize::from(check.packets);
        let next = match sent_at.last() {
            None => began,
            Some(last) if all_sent => deadline.min(*last + wait),
            Some(last) => *last + between,
        };
        tokio::select! {
            // A flood of answers must not keep the clock from being looked at.
            biased;
            () = sleep_until(next) => {
                if all_sent || Instant::now() >= deadline {
                    break;
                }
                let number = u16::try_from(sent_at.len()).unwrap_or(u16::MAX);
                sent_at.push(Instant::now());
                if let Err(error) = socket.send(echo.request(number)).await {
                    tally.note(dial::plain(&error));
                }
            }
            got = socket.recv(&mut buffer) => match got {
                Ok(length) => {
                    let answered = buffer.get(..length).and_then(|bytes| echo.answer(bytes));
                    if let Some((number, at)) = answered.and_then(|n| Some((n, sent_at.get(usize::from(n))?))) {
                        tally.count(number, at.elapsed());
                    }
                }
                Err(error) => tally.note(dial::plain(&error)),
            },
        }
    }
    tally
}

/// What a check comes to where the satellite may not send ICMP.
async fn not_permitted(trust: &Trust, check: &IcmpCheck, why: &str, now: Timestamp, deadline: Instant) -> Found {
    let range = tokio::fs::read_to_string(PERMITTED).await.unwrap_or_default();
    let range: Vec<&str> = range.split_whitespace().collect();
    let advice = format!(
        "This satellite may not send ICMP: {why} (net.ipv4.ping_group_range is “{}”). On its machine or for its container: \
         sysctl net.ipv4.ping_group_range=\"0 2147483647\"",
        range.join(" ")
    );
    let Some(port) = check.otherwise_tcp else {
        let text = format!("UNKNOWN - {}: ICMP is not permitted here\n{advice}", check.address);
        return Found::failed("icmp-not-permitted", State::Unknown, text);
    };
    let room = deadline.saturating_duration_since(Instant::now());
    let knocked = tcp::connect(trust, &TcpCheck::port(check.address.clone(), port), now, room).await;
    instead(check, port, knocked, &advice)
}

/// What a knock says in place of an echo: a host that refuses the connection is there.
fn instead(check: &IcmpCheck, port: u16, knocked: Found, advice: &str) -> Found {
    if knocked.exit == Exit::Error("connect-refused".to_owned()) {
        let text = format!(
            "TCP OK - {} refuses connections to port {port}, so it is there (in place of ICMP)\n{advice}",
            check.address
        );
        return Found::ran(State::Ok, text);
    }
    let (words, perfdata) = knocked.text.split_once('|').unwrap_or((&knocked.text, ""));
    let perfdata = if perfdata.is_empty() { String::new() } else { format!("|{perfdata}") };
    let text = format!("{words} (in place of ICMP){perfdata}\n{advice}");
    Found { text, ..knocked }
}

#[cfg(test)]
mod tests {
    use shared::check::IcmpLevel;
    use shared::perfdata::split_output;

    use super::*;

    const START: Timestamp = Timestamp::from_millis(0);

    fn check(address: &str, otherwise_tcp: Option<u16>) -> IcmpCheck {
        IcmpCheck {
            address: address.to_owned(),
            packets: 3,
            warning: IcmpLevel { rta_us: 200_000, loss_percent: 40 },
            critical: IcmpLevel { rta_us: 500_000, loss_percent: 80 },
            otherwise_tcp,
        }
    }

    #[tokio::test]
    async fn a_host_that_refuses_the_knock_is_there() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let deadline = dial::deadline_in(Duration::from_secs(20));
        let check = check("127.0.0.1", Some(port));
        let open = not_permitted(&Trust::default(), &check, "so", START, deadline).await;
        let parts = split_output(&open.text);
        assert_eq!((open.state, open.exit), (State::Ok, Exit::Ran(0)), "{}", open.text);
        assert!(parts.output.starts_with("TCP OK - ") && parts.output.ends_with(" (in place of ICMP)"), "{parts:?}");
        assert!(parts.perfdata.starts_with("time=") && parts.long_output.contains("ping_group_range"), "{parts:?}");
        drop(listener);
        let refused = not_permitted(&Trust::default(), &check, "so", START, deadline).await;
        assert_eq!((refused.state, refused.exit), (State::Ok, Exit::Ran(0)), "{}", refused.text);
        assert!(refused.text.starts_with("TCP OK - 127.0.0.1 refuses"), "{}", refused.text);
        let silent = Found::late("TCP CRITICAL - x".to_owned());
        let silent = instead(&check, port, silent, "advice");
        assert_eq!(
            (silent.state, silent.text.as_str()),
            (State::Critical, "TCP CRITICAL - x (in place of ICMP)\nadvice")
        );
    }

    #[tokio::test]
    async fn a_check_that_names_icmp_never_asks_anything_else() {
        let found = not_permitted(
            &Trust::default(),
            &check("192.0.2.1", None),
            "so",
            START,
            dial::deadline_in(Duration::from_secs(20)),
        )
        .await;
        assert_eq!((found.state, found.exit), (State::Unknown, Exit::Error("icmp-not-permitted".to_owned())));
        assert!(found.text.contains("sysctl net.ipv4.ping_group_range=\"0 2147483647\""), "{}", found.text);
    }

    #[tokio::test]
    async fn a_name_without_an_address_is_critical() {
        let found =
            ask(&Trust::default(), &check("no-such-host.invalid", Some(1)), START, Duration::from_secs(20)).await;
        assert_eq!(found.state, State::Critical);
        assert!(found.text.starts_with("CRITICAL - no-such-host.invalid: "), "{}", found.text);
    }
}
