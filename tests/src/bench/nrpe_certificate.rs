//! What a check over NRPE costs the asker where the daemon has a certificate: verified with a full handshake, with a resumed
//! session, and by forking `check_nrpe -A`, which verifies less (no name). The same daemon, Debian's, answers all of them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;

use anyhow::{Result, ensure};
use shared::check::{NrpeCheck, NrpeName, NrpeTls, NrpeTrust};

use super::nrpe::{Asker, IN_FLIGHT, fork, fresh_address, lacking, version_check};
use super::{Bench, Contest, Contestant, Done, Prepared};
use crate::nrpe::mode::{Keys, Mode};
use crate::nrpe::{RealNrpe, Transport, free_port};
use crate::pki::Pki;

/// Rows of this contest.
pub const BENCH: Bench = Bench { rows: &["nrpe-cert-full", "nrpe-cert-resumed"], prepare };

/// Units of a round, so that each row costs some tenths of a second of CPU.
const FULL: u64 = 150;
const RESUMED: u64 = 300;
/// The peer: what Nagios and Icinga do.
const FORKED: &str = "check_nrpe -A";

fn prepare() -> Result<Prepared> {
    if let Some(lacking) = lacking() {
        return Ok(lacking);
    }
    let pki = Pki::new()?;
    let keys = Keys::from(&pki);
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, free_port(Ipv4Addr::UNSPECIFIED)?));
    let daemon = RealNrpe::in_mode_on(address, Mode::Certificate, &keys, &[], "")?;
    let port = daemon.address.port();
    let options = Mode::Certificate.options(&keys);
    let ca = pki.authority.certificate.display().to_string();
    // On all loopback addresses, so the name is not that of an address.
    let name = NrpeName::Exactly("nrpe.example.net".to_owned());
    let trust = NrpeTrust { ca: Some(ca), name, ..NrpeTrust::default() };
    let check =
        move |address| NrpeCheck { trust: Some(trust.clone()), ..version_check(address, port, NrpeTls::Certificate) };
    let asker = Asker::new()?;
    let mut contestants = Vec::new();
    let mut add = |row, reported, peer, run: Box<dyn FnMut() -> Result<Done>>| {
        contestants.push(Contestant { row, reported, peer, at_least: None, run });
    };
    {
        let (asker, check) = (Rc::clone(&asker), check.clone());
        let mut used = 0;
        let run = move || {
            let first = used;
            used += FULL;
            let counters = asker.prober.nrpe().counters();
            let before = counters.handshakes_full();
            let done = asker.ask(FULL, IN_FLIGHT, |number| check(fresh_address(first + number)))?;
            let full = counters.handshakes_full() - before;
            ensure!(full == FULL, "{full} of {FULL} handshakes were full");
            Ok(done)
        };
        add("nrpe-cert-full", true, Some(FORKED), Box::new(run));
    }
    {
        let mut known = false;
        let run = move || {
            let one = |_| check(IpAddr::V4(Ipv4Addr::LOCALHOST));
            if !known {
                // Alone: first contacts at the same time would all be full.
                asker.ask(1, 1, one)?;
                known = true;
            }
            let counters = asker.prober.nrpe().counters();
            let before = counters.handshakes_resumed();
            // One after the other: a ticket of TLS 1.3 is good for one connection, which brings the next.
            let done = asker.ask(RESUMED, 1, one)?;
            let resumed = counters.handshakes_resumed() - before;
            ensure!(resumed == RESUMED, "{resumed} of {RESUMED} handshakes were resumed");
            Ok(done)
        };
        add("nrpe-cert-resumed", true, Some(FORKED), Box::new(run));
    }
    // The daemon and its certificates outlive the contest.
    let run = move || {
        let (_daemon, _pki) = (&daemon, &pki);
        fork(port, Transport::Anonymous, &options)
    };
    add(FORKED, false, None, Box::new(run));
    Ok(Prepared::Ready(Contest { unit: "check", contestants }))
}
