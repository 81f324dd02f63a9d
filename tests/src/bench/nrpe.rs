//! What a check over NRPE costs the asker: in process over plain TCP, with a full anonymous handshake, with a resumed session, and
//! by forking `check_nrpe` as Nagios and Icinga do. The same daemon, Debian's, answers all of them; the command is the daemon's
//! own version, so no plugin runs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use satellite::probe::Prober;
use satellite::probe::nrpe::VERSION_COMMAND;
use shared::check::{Check, NrpeCheck, NrpeTls, State};
use tokio::runtime::Runtime;

use super::{Bench, Contest, Contestant, Done, Prepared};
use crate::nrpe::{CHECK_NRPE, DAEMON, RealNrpe, Transport, check_nrpe, free_port};

/// Rows of this contest.
pub const BENCH: Bench =
    Bench { rows: &["nrpe-plain", "nrpe-anon-full", "nrpe-anon-resumed", "check_nrpe-forked"], prepare };

/// Units of a round, so that each row costs some tenths of a second of CPU.
const PLAIN: u64 = 1000;
const FULL: u64 = 200;
const RESUMED: u64 = 500;
const FORKED: u64 = 40;
/// Checks in flight: what the prober allows one host.
pub(super) const IN_FLIGHT: usize = 3;
const PATIENCE: Duration = Duration::from_secs(30);
/// Issue: a resumed check must cost at least so many times less than a forked one.
const PROMISED: f64 = 10.0;

/// One prober and one thread, as in a satellite on one core.
pub(super) struct Asker {
    runtime: Runtime,
    pub(super) prober: Arc<Prober>,
}

impl Asker {
    pub(super) fn new() -> Result<Rc<Self>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Rc::new(Self { runtime, prober: Arc::new(Prober::new()?) }))
    }

    /// Makes `count` checks, so many at once, each with its number; every one must be OK.
    pub(super) fn ask(&self, count: u64, in_flight: usize, check: impl Fn(u64) -> NrpeCheck) -> Result<Done> {
        self.runtime.block_on(async {
            let mut inflight = tokio::task::JoinSet::new();
            for number in 0..count {
                while inflight.len() >= in_flight {
                    inflight.join_next().await.context("a check")???;
                }
                let (prober, check) = (Arc::clone(&self.prober), Check::Nrpe(check(number)));
                inflight.spawn(async move {
                    let outcome = prober.probe("bench", &check, PATIENCE).await;
                    ensure!(outcome.state == State::Ok && outcome.output.starts_with("NRPE v"), "{outcome:?}");
                    Ok(())
                });
            }
            while let Some(ended) = inflight.join_next().await {
                ended??;
            }
            Ok(Done::units(count))
        })
    }
}

/// Asks a daemon for its version.
pub(super) fn version_check(address: IpAddr, port: u16, tls: NrpeTls) -> NrpeCheck {
    NrpeCheck {
        address: address.to_string(),
        port,
        tls,
        command: VERSION_COMMAND.to_owned(),
        args: Vec::new(),
        version: None,
        on_transport_error: State::Unknown,
        trust: None,
    }
}

/// An address of loopback that is nobody's usual one, by number: each is an endpoint of its own, so a first contact can be had as
/// often as one likes.
pub(super) fn fresh_address(number: u64) -> IpAddr {
    // 127.1.0.0 to 127.254.255.255 are more than any contest uses.
    IpAddr::V4(Ipv4Addr::from(0x7f01_0000 + u32::try_from(number).unwrap_or(0)))
}

fn prepare() -> Result<Prepared> {
    if let Some(lacking) = lacking() {
        return Ok(lacking);
    }
    // On all loopback addresses, for first contacts.
    let everywhere = |transport| {
        let port = free_port(Ipv4Addr::UNSPECIFIED)?;
        RealNrpe::start_on(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), transport, &[], "")
    };
    let plain = Rc::new(everywhere(Transport::Plain)?);
    let anonymous = Rc::new(everywhere(Transport::Anonymous)?);
    let asker = Asker::new()?;
    let one = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let mut contestants = Vec::new();
    let mut add = |row, reported, peer, at_least, run: Box<dyn FnMut() -> Result<Done>>| {
        contestants.push(Contestant { row, reported, peer, at_least, run });
    };
    {
        let (asker, port) = (Rc::clone(&asker), plain.address.port());
        let run = move || asker.ask(PLAIN, IN_FLIGHT, |_| version_check(one, port, NrpeTls::Plain));
        add("nrpe-plain", true, Some("check_nrpe -n"), None, Box::new(run));
    }
    {
        let (asker, port) = (Rc::clone(&asker), anonymous.address.port());
        let mut used = 0;
        let run = move || {
            let first = used;
            used += FULL;
            let check = |number| version_check(fresh_address(first + number), port, NrpeTls::Anonymous);
            let counters = asker.prober.nrpe().counters();
            let before = counters.handshakes_full();
            let done = asker.ask(FULL, IN_FLIGHT, check)?;
            let full = counters.handshakes_full() - before;
            ensure!(full == FULL, "{full} of {FULL} handshakes were full");
            Ok(done)
        };
        add("nrpe-anon-full", true, Some("check_nrpe-forked"), None, Box::new(run));
    }
    {
        let (asker, port) = (Rc::clone(&asker), anonymous.address.port());
        let mut known = false;
        let run = move || {
            let check = |_| version_check(one, port, NrpeTls::Anonymous);
            if !known {
                // Alone: first contacts at the same time would all be full.
                asker.ask(1, 1, check)?;
                known = true;
            }
            let counters = asker.prober.nrpe().counters();
            let before = counters.handshakes_resumed();
            let done = asker.ask(RESUMED, IN_FLIGHT, check)?;
            let resumed = counters.handshakes_resumed() - before;
            ensure!(resumed == RESUMED, "{resumed} of {RESUMED} handshakes were resumed");
            Ok(done)
        };
        add("nrpe-anon-resumed", true, Some("check_nrpe-forked"), Some(PROMISED), Box::new(run));
    }
    add(
        "check_nrpe-forked",
        true,
        None,
        None,
        Box::new(move || fork(anonymous.address.port(), Transport::Anonymous, &[])),
    );
    add("check_nrpe -n", false, None, None, Box::new(move || fork(plain.address.port(), Transport::Plain, &[])));
    Ok(Prepared::Ready(Contest { unit: "check", contestants }))
}

/// Runs the reference client again and again, one at a time, with these options besides.
pub(super) fn fork(port: u16, transport: Transport, options: &[String]) -> Result<Done> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    for _ in 0..FORKED {
        let output = check_nrpe(address, transport, PATIENCE).args(options).output().context(CHECK_NRPE)?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success() && said.starts_with("NRPE v"), "check_nrpe: {} {said}", output.status);
    }
    Ok(Done::units(FORKED))
}

/// What is not installed, if anything is not.
pub(super) fn lacking() -> Option<Prepared> {
    let parts = [(DAEMON, "nagios-nrpe-server"), (CHECK_NRPE, "nagios-nrpe-plugin")];
    let (what, package) = parts.into_iter().find(|(what, _)| !std::path::Path::new(what).exists())?;
    Some(Prepared::Missing { what: what.to_owned(), package: package.to_owned() })
}
