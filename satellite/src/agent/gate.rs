//! How much of the agent one source may take: connections open at once, and new ones a second. Pure: time comes in. Knows nothing
//! of `allowed_hosts`; it counts strangers and friends alike, so that neither can keep the others out.
//!
//! The surprise: a source of IPv6 is its /64. Whoever has one address of it usually has them all.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// Connections of one source at once; a further one is closed unread and counted. A master with 64 parallel checks of one host
/// has room for two of itself.
pub const PER_SOURCE: u32 = 128;
/// New connections of one source in a second, over any longer time; a further one is closed unread and counted.
pub const PER_SECOND: u32 = 500;
/// New connections that a source which was quiet may make at once.
pub const BURST: u32 = 2000;
/// Sources remembered; beyond it those without an open connection are forgotten, and then a new source is turned away.
pub const SOURCES: usize = 8192;

/// Why a connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Turned {
    /// The source has its share of open connections.
    #[error("it has {PER_SOURCE} connections open")]
    Open,
    /// The source comes too often.
    #[error("it makes more than {PER_SECOND} connections a second")]
    Rate,
    /// Too many sources at once.
    #[error("{SOURCES} sources have connections open")]
    Sources,
}

#[derive(Debug)]
struct Source {
    open: u32,
    /// New connections it may make, in thousandths.
    credit: u64,
    at: Duration,
}

/// Counts.
#[derive(Debug, Default)]
pub struct Gate {
    sources: BTreeMap<IpAddr, Source>,
}

impl Gate {
    /// Takes a new connection of `peer`, `now` since any fixed moment. Every one taken must be given back by [`Gate::leave`].
    ///
    /// # Errors
    /// It must be closed.
    pub fn enter(&mut self, peer: IpAddr, now: Duration) -> Result<(), Turned> {
        let source = source_of(peer);
        if !self.sources.contains_key(&source) && self.sources.len() >= SOURCES {
            self.sources.retain(|_, source| source.open > 0);
            if self.sources.len() >= SOURCES {
                return Err(Turned::Sources);
            }
        }
        let full = u64::from(BURST) * 1000;
        let source = self.sources.entry(source).or_insert(Source { open: 0, credit: full, at: now });
        let elapsed = u64::try_from(now.saturating_sub(source.at).as_millis()).unwrap_or(u64::MAX);
        if elapsed > 0 {
            source.credit = source.credit.saturating_add(elapsed.saturating_mul(u64::from(PER_SECOND))).min(full);
            source.at = now;
        }
        if source.open >= PER_SOURCE {
            return Err(Turned::Open);
        }
        source.credit = source.credit.checked_sub(1000).ok_or(Turned::Rate)?;
        source.open += 1;
        Ok(())
    }

    /// A connection that was taken has ended.
    pub fn leave(&mut self, peer: IpAddr) {
        if let Some(source) = self.sources.get_mut(&source_of(peer)) {
            source.open = source.open.saturating_sub(1);
        }
    }
}

fn source_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            let network = u128::from(v6) & (u128::MAX << 64);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u32) -> IpAddr {
        IpAddr::V4(std::net::Ipv4Addr::from(0x0a00_0000 + number))
    }

    const START: Duration = Duration::from_secs(1000);

    #[test]
    fn a_source_has_its_share_and_takes_nobody_elses() {
        let mut gate = Gate::default();
        for _ in 0..PER_SOURCE {
            gate.enter(peer(1), START).unwrap();
        }
        assert_eq!(gate.enter(peer(1), START), Err(Turned::Open));
        assert_eq!(gate.enter(peer(2), START), Ok(()));
        gate.leave(peer(1));
        assert_eq!(gate.enter(peer(1), START), Ok(()));
    }

    #[test]
    fn a_source_that_comes_too_often_waits_for_its_credit() {
        let mut gate = Gate::default();
        let come = |gate: &mut Gate, now| {
            let entered = gate.enter(peer(1), now);
            if entered.is_ok() {
                gate.leave(peer(1));
            }
            entered
        };
        for _ in 0..BURST {
            come(&mut gate, START).unwrap();
        }
        assert_eq!(come(&mut gate, START), Err(Turned::Rate));
        let later = START + Duration::from_secs(1);
        let taken = (0..BURST).take_while(|_| come(&mut gate, later).is_ok()).count();
        assert_eq!(taken, PER_SECOND as usize);
        // A clock that stands still or goes back gives no credit.
        assert_eq!(come(&mut gate, START), Err(Turned::Rate));
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_source() {
        let mut gate = Gate::default();
        let of = |text: &str| text.parse::<IpAddr>().unwrap();
        for number in 0..PER_SOURCE {
            gate.enter(of(&format!("2001:db8::{number:x}")), START).unwrap();
        }
        assert_eq!(gate.enter(of("2001:db8::ffff:1"), START), Err(Turned::Open));
        assert_eq!(gate.enter(of("2001:db8:0:1::1"), START), Ok(()));
    }

    #[test]
    fn quiet_sources_are_forgotten_before_a_new_one_is_turned_away() {
        let mut gate = Gate::default();
        for number in 0..u32::try_from(SOURCES).unwrap() {
            gate.enter(peer(number), START).unwrap();
        }
        assert_eq!(gate.enter(peer(9_000_000), START), Err(Turned::Sources));
        gate.leave(peer(7));
        assert_eq!(gate.enter(peer(9_000_000), START), Ok(()));
        assert_eq!(gate.sources.len(), SOURCES);
    }
}
