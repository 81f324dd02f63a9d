//! What a test may change in a network of its own ([`tests::network`]): kernel settings that nobody else has.

use std::fs;

/// Which groups may send ICMP in this network.
pub(crate) const PERMITTED: &str = "/proc/sys/net/ipv4/ping_group_range";

/// Lets everybody in this network send ICMP. Its only group is root's.
pub(crate) fn permit_icmp() {
    fs::write(PERMITTED, "0 0").unwrap();
}

/// Whether this network's loopback answers echo requests.
pub(crate) fn answer_echoes(answers: bool) {
    let ignores = if answers { "0" } else { "1" };
    fs::write("/proc/sys/net/ipv4/icmp_echo_ignore_all", ignores).unwrap();
    // Older kernels have no such setting for v6; nothing here needs it.
    let _ = fs::write("/proc/sys/net/ipv6/icmp/echo_ignore_all", ignores);
}
