//! Networks of the kernel's own, for one test: the test's program is started again in a network namespace with loopback and nothing
//! else, and beside it a [`Machine`] stands at the other end of a cable, whose rate, packet size and losses are the kernel's work.
//! No privilege is needed and nothing outside is touched: all of it goes with the processes in it.
//! The surprise: both ends of the cable are forbidden to send several datagrams as one, or a rule would lose all of them together.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::missing::missing;
use crate::wait::until;

/// Tells the program that it runs within.
const WITHIN: &str = "PERIGEE_TEST_NETWORK";
const SCRIPT: &str = "ip link set lo up && exec \"$@\"";
/// The programs that lay a cable and damage it, with what installs them.
const TOOLS: [(&str, &str); 5] = [
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("iptables-legacy", "iptables"),
];
/// Where programs are.
const PLACES: [&str; 4] = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];
/// A new process is in its namespace after so long.
const MADE_WITHIN: Duration = Duration::from_secs(20);
/// What a slow cable lets through at once, which is hardly more than a packet, and how long it lets packets wait.
const BURST_BYTES: u32 = 1_600;
const WAITS: &str = "400ms";

fn is_there(tool: &str) -> bool {
    PLACES.iter().any(|place| Path::new(place).join(tool).exists())
}

/// Whether the calling test (its path within this program) is to run its body: true within the network. Outside, the same test
/// was run there, and has passed, or the skip is recorded.
///
/// # Panics
/// When the test fails there.
#[must_use]
pub fn is_own(test: &str) -> bool {
    if std::env::var_os(WITHIN).is_some() {
        return true;
    }
    let needed = TOOLS.iter().filter(|(tool, _)| ["unshare", "ip"].contains(tool));
    for (tool, package) in needed {
        if !is_there(tool) {
            missing(tool, package);
            return false;
        }
    }
    let may = Command::new("unshare").args(["--map-root-user", "--net", "true"]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        missing("the right to make a network namespace", "nothing: allow unprivileged user namespaces, or run as root");
        return false;
    }
    let output = std::env::current_exe().and_then(|own| {
        Command::new("unshare")
            .args(["--map-root-user", "--net", "sh", "-c", SCRIPT, "sh"])
            .arg(own)
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(WITHIN, "1")
            .output()
    });
    let (success, said) = match output {
        Ok(output) => {
            let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            (output.status.success(), said.concat())
        }
        Err(error) => (false, error.to_string()),
    };
    assert!(success && said.contains("1 passed"), "within a network of its own:\n{said}");
    // What it told of is for whoever reads this test's output; nobody may.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), said.as_bytes());
    false
}

/// The first part that is missing to lay cables, with what brings it.
#[must_use]
pub fn cables_need() -> Option<(&'static str, &'static str)> {
    TOOLS.into_iter().find(|(tool, _)| !is_there(tool))
}

/// Which way packets go over the cable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the machine to here.
    Up,
    /// From here to the machine.
    Down,
}

/// Another machine, as far as the network is concerned; it goes with this value.
#[derive(Debug)]
pub struct Machine {
    /// Our end of the cable.
    pub here: Ipv4Addr,
    holder: Child,
}

impl Machine {
    /// A machine at the other end of a cable; there can be one of them in a network.
    ///
    /// # Errors
    /// A tool refuses; its words are in the message.
    pub fn new() -> Result<Self> {
        let mut command = Command::new("unshare");
        command.args(["--net", "sleep", "infinity"]).stdin(Stdio::null());
        let holder = command.spawn().context("unshare")?;
        let machine = Self { here: Ipv4Addr::new(10, 213, 0, 1), holder };
        let own = std::fs::read_link("/proc/self/ns/net")?;
        let theirs = format!("/proc/{}/ns/net", machine.holder.id());
        let made = || std::fs::read_link(&theirs).is_ok_and(|theirs| theirs != own);
        ensure!(until(MADE_WITHIN, made), "a process is not in a network of its own");
        let pid = machine.holder.id().to_string();
        run("ip", &["link", "add", "near", "type", "veth", "peer", "name", "far", "netns", &pid])?;
        run("ip", &["address", "add", "10.213.0.1/30", "dev", "near"])?;
        run("ip", &["link", "set", "near", "gso_max_segs", "1", "up"])?;
        machine.on(Way::Down, &["ip", "link", "set", "lo", "up"])?;
        machine.on(Way::Down, &["ip", "address", "add", "10.213.0.2/30", "dev", "far"])?;
        machine.on(Way::Down, &["ip", "link", "set", "far", "gso_max_segs", "1", "up"])?;
        Ok(machine)
    }

    /// Program and arguments through which a program is started on it.
    #[must_use]
    pub fn through(&self) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--net=/proc/{}/ns/net", self.holder.id()), "--".to_owned()]
    }

    /// Runs a tool where packets of this way arrive.
    fn on(&self, receiver: Way, words: &[&str]) -> Result<String> {
        match receiver {
            Way::Up => words.split_first().map_or(Ok(String::new()), |(tool, rest)| run(tool, rest)),
            Way::Down => {
                let through = self.through();
                let rest: Vec<&str> = through.iter().skip(1).map(String::as_str).chain(words.iter().copied()).collect();
                run("nsenter", &rest)
            }
        }
    }

    fn rule(&self, way: Way, condition: &[&str], target: &str) -> Result<()> {
        let words = [&["iptables-legacy", "-w", "-A", "INPUT", "-p", "udp"], condition, &["-j", target]].concat();
        self.on(way, &words).map(drop)
    }

    /// Datagrams that met a rule with this target since the cable was last mended, as the kernel counts them.
    fn counted(&self, way: Way, target: &str) -> Result<u64> {
        let said = self.on(way, &["iptables-legacy", "-w", "-nvxL", "INPUT"])?;
        Ok(said.lines().filter_map(|line| met(line, target)).sum())
    }

    /// Datagrams of this way that rules have dropped since the cable was last mended.
    ///
    /// # Errors
    /// A tool refuses.
    pub fn dropped(&self, way: Way) -> Result<u64> {
        self.counted(way, "DROP")
    }

    /// From now on datagrams with more payload than this are counted, see [`Machine::passed`].
    ///
    /// # Errors
    /// A tool refuses.
    pub fn watch_above(&self, way: Way, payload: u16) -> Result<()> {
        self.rule(way, &["-m", "length", "--length", &above(payload)], "ACCEPT")
    }

    /// Datagrams of this way that were counted since the cable was last mended.
    ///
    /// # Errors
    /// A tool refuses.
    pub fn passed(&self, way: Way) -> Result<u64> {
        self.counted(way, "ACCEPT")
    }

    /// Bytes of this way that went over a slow cable, and packets that it has let wait or dropped.
    ///
    /// # Errors
    /// A tool refuses.
    pub fn slowed(&self, way: Way) -> Result<(u64, u64)> {
        // A packet waits where it leaves.
        let (leaves, end) = match way {
            Way::Up => (Way::Down, "far"),
            Way::Down => (Way::Up, "near"),
        };
        Ok(slowed(&self.on(leaves, &["tc", "-s", "qdisc", "show", "dev", end])?))
    }

    /// So many of a thousand datagrams are lost.
    ///
    /// # Errors
    /// A tool refuses.
    pub fn lose(&self, way: Way, thousandths: u32) -> Result<()> {
        let part = format!("{:.3}", f64::from(thousandths) / 1000.0);
        self.rule(way, &["-m", "statistic", "--mode", "random", "--probability", &part], "DROP")
    }

    /// Every datagram is lost.
    ///
    /// # Errors
    /// A tool refuses.
    pub fn cut(&self, way: Way) -> Result<()> {
        self.rule(way, &[], "DROP")
    }

    /// Datagrams with more payload than this vanish without a word.
    ///
    /// # Errors
    /// A tool refuses.
    pub fn swallow_above(&self, way: Way, payload: u16) -> Result<()> {
        self.rule(way, &["-m", "length", "--length", &above(payload)], "DROP")
    }

    /// So many bits a second go either way.
    ///
    /// # Errors
    /// A tool refuses.
    pub fn slow_down(&self, kbit: u32) -> Result<()> {
        let (rate, burst) = (format!("{kbit}kbit"), BURST_BYTES.to_string());
        let limit = ["root", "tbf", "rate", &rate, "burst", &burst, "latency", WAITS];
        self.on(Way::Up, &[&["tc", "qdisc", "add", "dev", "near"], &limit[..]].concat())?;
        self.on(Way::Down, &[&["tc", "qdisc", "add", "dev", "far"], &limit[..]].concat()).map(drop)
    }

    /// The cable carries packets of this size at most, and both ends know it.
    ///
    /// # Errors
    /// A tool refuses.
    pub fn narrow(&self, bytes: u16) -> Result<()> {
        let bytes = bytes.to_string();
        self.on(Way::Up, &["ip", "link", "set", "near", "mtu", &bytes])?;
        self.on(Way::Down, &["ip", "link", "set", "far", "mtu", &bytes]).map(drop)
    }

    /// A good cable again.
    ///
    /// # Errors
    /// A tool refuses.
    pub fn mend(&self) -> Result<()> {
        for (way, end) in [(Way::Up, "near"), (Way::Down, "far")] {
            self.on(way, &["iptables-legacy", "-w", "-F", "INPUT"])?;
            self.on(way, &["ip", "link", "set", end, "mtu", "1500"])?;
            // There is none to take away unless it was slow.
            let _ = self.on(way, &["tc", "qdisc", "del", "dev", end, "root"]);
        }
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// The lengths of datagrams with more payload than this, as iptables has them: the heads of IP and UDP count as well.
fn above(payload: u16) -> String {
    format!("{}:65535", u32::from(payload) + 28 + 1)
}

/// The packets of a line of `iptables -nvxL`, if it is a rule with this target.
fn met(line: &str, target: &str) -> Option<u64> {
    let mut words = line.split_whitespace();
    let (packets, _bytes) = (words.next()?.parse().ok()?, words.next()?);
    (words.next() == Some(target)).then_some(packets)
}

/// Bytes that a `tbf` has sent, and packets that it has dropped or let wait, by `tc -s qdisc`:
/// `Sent 6 bytes 1 pkt (dropped 2, overlimits 3 requeues 0)`.
fn slowed(said: &str) -> (u64, u64) {
    let number = |name: &str| {
        let (_, rest) = said.split_once(name)?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok()
    };
    let number = |name| number(name).filter(|_| said.contains("qdisc tbf")).unwrap_or(0);
    (number("Sent "), number("dropped ").saturating_add(number("overlimits ")))
}

/// What a tool says.
fn run(tool: &str, words: &[&str]) -> Result<String> {
    let output = Command::new(tool).args(words).output().with_context(|| tool.to_owned())?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{tool} {}: {}", words.join(" "), said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_counts_is_read() {
        let line = "      17     8120 DROP       udp  --  *      *       0.0.0.0/0            0.0.0.0/0            length 1229:65535";
        assert_eq!([met(line, "DROP"), met(line, "ACCEPT")], [Some(17), None]);
        assert_eq!(met("Chain INPUT (policy ACCEPT 5 packets, 500 bytes)", "ACCEPT"), None);
        assert_eq!(met("    pkts      bytes target     prot opt in     out     source   destination", "DROP"), None);
        let slow = "qdisc tbf 8001: root refcnt 2 rate 256Kbit burst 4000b lat 400ms \n Sent 6 bytes 1 pkt (dropped 2, overlimits 30 requeues 0)";
        assert_eq!(slowed(slow), (6, 32));
        assert_eq!(
            slowed("qdisc noqueue 0: root refcnt 2 \n Sent 0 bytes 0 pkt (dropped 0, overlimits 5 requeues 0)"),
            (0, 0)
        );
    }
}
