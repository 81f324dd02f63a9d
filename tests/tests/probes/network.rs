//! A network of its own for a test: loopback and nothing else, and kernel settings that nobody else has. The test's program is
//! started again within it, as root of a new user namespace, so that no privilege is needed and nothing outside is touched.

use std::fs;
use std::path::Path;
use std::process::Command;

use tests::missing::missing;

/// Tells the program that it runs within.
const WITHIN: &str = "PERIGEE_TEST_NETWORK";
/// Which groups may send ICMP in this network.
pub(crate) const PERMITTED: &str = "/proc/sys/net/ipv4/ping_group_range";
const SCRIPT: &str = "ip link set lo up && exec \"$@\"";

/// Whether the calling test (its path within this program) is to run its body: true within the network. Outside, the same test
/// was run there, and has passed, or the skip is recorded.
pub(crate) fn is_own(test: &str) -> bool {
    if std::env::var_os(WITHIN).is_some() {
        return true;
    }
    for (program, package) in [("/usr/bin/unshare", "util-linux"), ("/usr/sbin/ip", "iproute2")] {
        if !Path::new(program).exists() && !Path::new(&program.replace("/usr", "")).exists() {
            missing(program, package);
            return false;
        }
    }
    let may = Command::new("unshare").args(["--map-root-user", "--net", "true"]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        missing("the right to make a network namespace", "nothing: allow unprivileged user namespaces, or run as root");
        return false;
    }
    let own = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .args(["--map-root-user", "--net", "sh", "-c", SCRIPT, "sh"])
        .arg(own)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(WITHIN, "1")
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success() && said.contains("1 passed"), "within a network of its own:\n{said}");
    false
}

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
