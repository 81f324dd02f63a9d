//! Who may talk to the agent: addresses, networks and names of `allowed_hosts`. Pure: the addresses of names are looked up
//! elsewhere and given in.
//!
//! The surprise: an entry that makes no sense is left out and named, as nrpe does, rather than refused: the list can only become
//! shorter by it, and a list without a single entry lets nobody in.

use std::net::IpAddr;

use ipnet::IpNet;

/// The longest name that is taken, in bytes (nrpe's own limit).
const MAX_NAME: usize = 63;
/// Names that are looked up; further ones are left out and named.
pub const MAX_NAMES: usize = 64;

/// What `allowed_hosts` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    networks: Vec<IpNet>,
    names: Vec<String>,
}

impl Allowed {
    /// Only this machine.
    #[must_use]
    pub fn this_machine() -> Self {
        Self { networks: vec![IpAddr::from([127, 0, 0, 1]).into()], names: Vec::new() }
    }

    /// Adds a comma-separated list of addresses, networks (`192.0.2.0/24`) and names; returns what is wrong with entries that are
    /// left out.
    pub fn add(&mut self, list: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        for entry in list.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            if let Err(why) = self.add_entry(entry) {
                wrong.push(format!("allowed_hosts: {entry:?} is left out: {why}"));
            }
        }
        wrong
    }

    fn add_entry(&mut self, entry: &str) -> Result<(), String> {
        if let Ok(address) = entry.parse::<IpAddr>() {
            self.networks.push(address.to_canonical().into());
            return Ok(());
        }
        if entry.contains('/') {
            let network: IpNet = entry.parse().map_err(|_| "it is no network such as 192.0.2.0/24".to_owned())?;
            if let IpNet::V4(v4) = network
                && v4.addr() != v4.network()
            {
                // nrpe leaves such an entry out too, for IPv4 only.
                return Err(format!("address and mask do not match, the network is {}", v4.trunc()));
            }
            self.networks.push(network.trunc());
            return Ok(());
        }
        if !is_name(entry) {
            return Err("it is neither an address nor a network nor a name".to_owned());
        }
        if self.names.len() >= MAX_NAMES {
            return Err(format!("more than {MAX_NAMES} names"));
        }
        self.names.push(entry.to_owned());
        Ok(())
    }

    /// The names, whose addresses [`Allowed::permits`] must be given.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether an address or network of the list lets this peer in.
    #[must_use]
    pub fn permits(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.networks.iter().any(|network| network.contains(&peer))
    }
}

/// Letters, digits, dashes and dots, as nrpe takes them; not only digits and dots, which would be a mistyped address.
fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_'))
    };
    text.len() <= MAX_NAME
        && text.chars().any(|char| char.is_ascii_alphabetic())
        && text.strip_suffix('.').unwrap_or(text).split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(list: &str) -> (Allowed, Vec<String>) {
        let mut allowed = Allowed::default();
        let wrong = allowed.add(list);
        (allowed, wrong)
    }

    fn permits(list: &str, peer: &str) -> bool {
        let (allowed, wrong) = of(list);
        assert!(wrong.is_empty(), "{wrong:?}");
        allowed.permits(peer.parse().unwrap())
    }

    #[test]
    fn addresses_and_networks_let_in_whom_they_contain() {
        assert!(permits("127.0.0.1, ::1", "127.0.0.1"));
        assert!(permits("127.0.0.1, ::1", "::1"));
        assert!(!permits("127.0.0.1,::1", "127.0.0.2"));
        assert!(permits("10.1.0.0/16", "10.1.255.255"));
        assert!(!permits("10.1.0.0/16", "10.2.0.0"));
        assert!(permits("2001:db8::/32", "2001:db8:1::5"));
        assert!(permits("2001:db8::5/32", "2001:db8:1::5"));
        assert!(!permits("2001:db8::/32", "2001:db9::5"));
        assert!(permits("0.0.0.0/0", "192.0.2.1"));
        assert!(!permits("0.0.0.0/0", "2001:db8::1"));
    }

    #[test]
    fn an_ipv4_peer_on_an_ipv6_socket_is_its_ipv4_address() {
        assert!(permits("192.0.2.1", "::ffff:192.0.2.1"));
        assert!(!permits("192.0.2.1", "::ffff:192.0.2.2"));
    }

    #[test]
    fn names_are_kept_for_who_looks_them_up() {
        let (allowed, wrong) = of("monitor.example.net,mars, 192.0.2.1,sat-1");
        assert!(wrong.is_empty());
        assert_eq!(allowed.names(), ["monitor.example.net", "mars", "sat-1"]);
    }

    #[test]
    fn entries_that_make_no_sense_are_left_out_and_named() {
        for entry in ["10.0.0.1/8", "10.0.0.0/33", "300.1.1.1", "10.0.0", "a b", "-x", "x..y", "::1/200", "*.net"] {
            let (allowed, wrong) = of(&format!("127.0.0.1,{entry}"));
            assert_eq!(wrong.len(), 1, "{entry}");
            assert!(wrong[0].contains(entry), "{wrong:?}");
            assert!(allowed.permits("127.0.0.1".parse().unwrap()));
            assert!(!allowed.permits("10.0.0.1".parse().unwrap()));
        }
        let (nobody, _) = of(",,");
        assert!(!nobody.permits("127.0.0.1".parse().unwrap()));
    }
}
