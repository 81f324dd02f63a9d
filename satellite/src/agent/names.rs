//! The addresses of the names in `allowed_hosts`: looked up when somebody comes whom no address lets in, and remembered for a while.
//! Decides how long an answer of the name service is believed. Knows no connection.
//!
//! The surprise: when the name service does not answer, the addresses of before go on counting. Otherwise its outage would also be
//! the monitoring's.
#![expect(
    clippy::disallowed_methods,
    reason = "a shell room: it asks the name service and measures the age of answers"
)]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::allowed::Allowed;

/// An answer so old is asked for again before it lets somebody in.
const FRESH: Duration = Duration::from_secs(60);
/// An answer so old is asked for again before somebody is turned away.
const FRESH_ENOUGH_TO_REFUSE: Duration = Duration::from_secs(5);
/// How long the name service may take; who comes meanwhile waits.
const LOOKUP: Duration = Duration::from_secs(5);
/// Addresses of one name that are kept; further ones do not count.
const MAX_ADDRESSES: usize = 256;

/// Addresses by name, and when all of them were asked for.
#[derive(Debug, Default)]
struct Found {
    addresses: BTreeMap<String, Vec<IpAddr>>,
    at: Option<Instant>,
}

/// What is known of the names.
#[derive(Debug, Default)]
pub struct Names(Mutex<Found>);

impl Names {
    /// Whether this list lets the peer in, by address, network or name.
    pub async fn permit(&self, allowed: &Allowed, peer: IpAddr) -> bool {
        if allowed.permits(peer) {
            return true;
        }
        if allowed.names().is_empty() {
            return false;
        }
        let peer = peer.to_canonical();
        // Whoever waits here waits for one look-up, not for one of his own.
        let mut found = self.0.lock().await;
        for age in [FRESH, FRESH_ENOUGH_TO_REFUSE] {
            if found.at.is_none_or(|at| at.elapsed() > age) {
                found.look_up(allowed.names()).await;
            }
            if found.addresses.values().flatten().any(|address| *address == peer) {
                return true;
            }
        }
        false
    }
}

impl Found {
    async fn look_up(&mut self, names: &[String]) {
        let mut asking = JoinSet::new();
        for name in names {
            let name = name.clone();
            asking.spawn(async move {
                let found = timeout(LOOKUP, lookup_host((name.clone(), 0))).await;
                let addresses = match found {
                    Ok(Ok(found)) => {
                        Ok(found.map(|address| address.ip().to_canonical()).take(MAX_ADDRESSES).collect::<Vec<_>>())
                    }
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(_) => Err(format!("no answer from the name service in {LOOKUP:?}")),
                };
                (name, addresses)
            });
        }
        while let Some(joined) = asking.join_next().await {
            match joined {
                Ok((name, Ok(addresses))) => drop(self.addresses.insert(name, addresses)),
                Ok((name, Err(why))) => tracing::warn!(name, why, "a name of allowed_hosts cannot be looked up"),
                Err(error) => tracing::error!(%error, "a look-up failed"),
            }
        }
        self.at = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_lets_its_addresses_in_and_nobody_else() {
        let mut allowed = Allowed::default();
        assert!(allowed.add("localhost,no-such-host.invalid,192.0.2.7").is_empty());
        let names = Names::default();
        assert!(names.permit(&allowed, IpAddr::from([127, 0, 0, 1])).await);
        assert!(names.permit(&allowed, IpAddr::from([192, 0, 2, 7])).await);
        assert!(!names.permit(&allowed, IpAddr::from([192, 0, 2, 8])).await);
    }
}
