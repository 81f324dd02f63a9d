//! Who may talk to the agent: addresses, networks and names of `allowed_hosts`. Pure: the addresses of names are looked up
//! elsewhere and given in.
//!
//! The surprise: entries are read as nrpe reads them, so that a new agent lets in nobody whom nrpe kept out, and keeps out nobody
//! whom it let in: `192.168.001.010` is decimal, of two words in an entry the first counts, and `0.0.0.0/0` is one address, not
//! all. What makes no sense is left out and named: the list can only become shorter by it, and an empty one lets nobody in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

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

    /// Adds a comma-separated list of addresses, networks (`192.0.2.0/24`) and names; returns what there is to remark about it.
    pub fn add(&mut self, list: &str) -> Vec<String> {
        let mut remarks = Vec::new();
        for entry in list.split(',') {
            let mut words = entry.split_ascii_whitespace();
            let Some(word) = words.next() else { continue };
            let remark = match self.add_entry(word) {
                Ok(remark) => remark,
                Err(why) => Some(format!("{word:?} is left out: {why}")),
            };
            remarks.extend(remark.map(|remark| format!("allowed_hosts: {remark}")));
            if words.next().is_some() {
                let entry = entry.trim();
                remarks.push(format!(
                    "allowed_hosts: of {entry:?} only {word:?} is read, as with nrpe; entries are separated by commas"
                ));
            }
        }
        remarks
    }

    /// Adds an entry; returns what may surprise about it.
    fn add_entry(&mut self, entry: &str) -> Result<Option<String>, String> {
        if entry.contains(':') {
            let network = v6_network(entry).ok_or("it is no IPv6 address or network")?;
            if let Some(v4) = network.addr().to_ipv4_mapped() {
                return Err(format!("as with nrpe an IPv4 address must be written as one, {v4}"));
            }
            self.networks.push(network.trunc().into());
            return Ok(None);
        }
        if let Some((address, bits)) = v4_network(entry) {
            // nrpe's mask for 0 bits comes out as that for 32.
            let network =
                Ipv4Net::new(address, if bits == 0 { 32 } else { bits }).map_err(|error| error.to_string())?;
            if network.addr() != network.network() {
                return Err(format!("address and mask do not match, the network is {}", network.trunc()));
            }
            self.networks.push(network.into());
            return Ok((bits == 0).then(|| {
                format!("as with nrpe {entry} lets in {address} only; without allowed_hosts everybody may ask")
            }));
        }
        if entry.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            // What the C library makes of a number or two, when nrpe looks the "name" up.
            let address = short_v4(entry).ok_or("it is no address")?;
            self.networks.push(IpAddr::from(address).into());
            return Ok(Some(format!("{entry:?} counts as the address {address}, as with nrpe")));
        }
        if entry.contains('/') {
            return Err("it is no network such as 192.0.2.0/24".to_owned());
        }
        if !is_name(entry) {
            return Err("to nrpe it is neither an address nor a network nor a name".to_owned());
        }
        if self.names.len() >= MAX_NAMES {
            return Err(format!("more than {MAX_NAMES} names"));
        }
        self.names.push(entry.to_owned());
        Ok(None)
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

/// An IPv6 address, with the bits of its network behind `/`.
fn v6_network(entry: &str) -> Option<Ipv6Net> {
    let (address, bits) = entry.split_once('/').unwrap_or((entry, ""));
    let bits = if bits.is_empty() { 128 } else { bits.parse().ok()? };
    Ipv6Net::new(address.parse::<Ipv6Addr>().ok()?, bits).ok()
}

/// Four decimal numbers, zeros before them or not, with the bits of the network behind `/`; nrpe takes up to 18 characters.
fn v4_network(entry: &str) -> Option<(Ipv4Addr, u8)> {
    let (address, bits) = entry.split_once('/').unwrap_or((entry, "32"));
    let mut octets = [0; 4];
    let mut pieces = address.split('.');
    for octet in &mut octets {
        *octet = decimal(pieces.next()?)?.try_into().ok()?;
    }
    let bits = decimal(bits)?.try_into().ok().filter(|bits| *bits <= 32)?;
    (pieces.next().is_none() && entry.len() <= 18).then_some((Ipv4Addr::from(octets), bits))
}

/// One to three numbers, the last of which stands for all remaining bytes: `127.1`.
fn short_v4(entry: &str) -> Option<Ipv4Addr> {
    let pieces = entry.split('.').map(decimal).collect::<Option<Vec<u32>>>()?;
    let (last, first) = pieces.split_last().filter(|(_, first)| first.len() < 3)?;
    let room = 32 - 8 * u32::try_from(first.len()).ok()?;
    let mut number = 0;
    for piece in first {
        number = number << 8 | u32::from(u8::try_from(*piece).ok()?);
    }
    let fits = room == 32 || last >> room == 0;
    fits.then(|| Ipv4Addr::from(number.checked_shl(room).unwrap_or(0) | last))
}

fn decimal(text: &str) -> Option<u32> {
    // Without a sign, which `parse` would take.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Letters, digits, dashes and dots as nrpe takes them: no two dots or a dash at an end, no underscore, no dot at the end, and
/// behind the last dot not a single letter. Without any letter it is a mistyped address or range, which no name service knows.
fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        let within = |char: char| char.is_ascii_alphanumeric() || char == '-';
        !label.is_empty() && !label.starts_with('-') && !label.ends_with('-') && label.chars().all(within)
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    let single = text.contains('.') && last.len() == 1 && last.bytes().all(|byte| byte.is_ascii_alphabetic());
    let letters = text.bytes().any(|byte| byte.is_ascii_alphabetic());
    text.len() <= MAX_NAME && letters && text.split('.').all(label) && !single
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
        let (allowed, remarks) = of(list);
        assert!(remarks.is_empty(), "{remarks:?}");
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
        assert!(permits("::/0", "2001:db8::1"));
        assert!(!permits("::/0", "192.0.2.1"));
        assert!(permits("0.0.0.0/1,128.0.0.0/1", "192.0.2.1"));
        assert!(permits("::1/", "::1") && !permits("::1/", "::2"));
    }

    #[test]
    fn an_ipv4_peer_on_an_ipv6_socket_is_its_ipv4_address() {
        assert!(permits("192.0.2.1", "::ffff:192.0.2.1"));
        assert!(!permits("192.0.2.1", "::ffff:192.0.2.2"));
    }

    /// Each seen with Debian's daemon.
    #[test]
    fn odd_entries_are_read_as_nrpe_reads_them() {
        assert!(permits("127.000.000.001", "127.0.0.1"));
        assert!(permits("0177.0.0.1", "177.0.0.1"));
        assert!(permits("127.0.0.0/08", "127.9.9.9"));
        for (list, peer, let_in) in [
            ("127.0.0.1 10.0.0.1", "127.0.0.1", true),
            ("127.0.0.1 10.0.0.1", "10.0.0.1", false),
            ("127.1", "127.0.0.1", true),
            ("2130706433", "127.0.0.1", true),
            ("10.0.258", "10.0.1.2", true),
            ("0.0.0.0/0", "127.0.0.1", false),
            ("127.0.0.1/0", "127.0.0.1", true),
            ("127.0.0.1/0", "127.0.0.2", false),
            ("::ffff:127.0.0.1", "127.0.0.1", false),
        ] {
            let (allowed, remarks) = of(list);
            assert_eq!(allowed.permits(peer.parse().unwrap()), let_in, "{list} {peer}");
            assert_eq!(remarks.len(), 1, "{list}: {remarks:?}");
        }
    }

    #[test]
    fn names_are_kept_for_who_looks_them_up() {
        let (allowed, wrong) = of("monitor.example.net,mars, 192.0.2.1,sat-1");
        assert!(wrong.is_empty());
        assert_eq!(allowed.names(), ["monitor.example.net", "mars", "sat-1"]);
    }

    #[test]
    fn entries_that_make_no_sense_are_left_out_and_named() {
        for entry in [
            "10.0.0.1/8",
            "10.0.0.0/33",
            "300.1.1.1",
            "1.2.3.4.5",
            "4294967296",
            "256.1",
            "-x",
            "x-",
            "x..y",
            "x.",
            "a.b",
            "a_b",
            "::1/200",
            "::1/x",
            "*.net",
            "10.0.0.0/255.0.0.0",
            "10.0.0.0-10.0.0.9",
            ".",
            "10..1",
        ] {
            let (allowed, wrong) = of(&format!("127.0.0.1,{entry}"));
            assert_eq!(wrong.len(), 1, "{entry}");
            assert!(wrong[0].contains(&format!("{entry:?} is left out: ")), "{wrong:?}");
            assert!(allowed.permits("127.0.0.1".parse().unwrap()));
            assert!(!allowed.permits("10.0.0.1".parse().unwrap()));
        }
        let (nobody, _) = of(",,");
        assert!(!nobody.permits("127.0.0.1".parse().unwrap()));
    }
}
