//! What happens when 64 checks of one host fall due at the same moment and its daemon has the stock backlog of five: ours wait for
//! one of the host's few connections, and every one of them is answered. `check_nrpe` is started 64 times, as a scheduler without
//! such a bound does; how many of these fail is a figure of the row.
#![expect(clippy::disallowed_methods, reason = "a shell room: it measures real time")]

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Stdio;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use shared::check::NrpeTls;

use super::nrpe::{Asker, lacking, version_check};
use super::{Bench, Contest, Contestant, Done, Prepared};
use crate::nrpe::mode::{Keys, Mode};
use crate::nrpe::{CHECK_NRPE, RealNrpe, Transport, check_nrpe};
use crate::pki::Pki;

/// Rows of this contest.
pub const BENCH: Bench = Bench { rows: &["nrpe-64-parallel"], prepare };

/// Checks asked at once.
const AT_ONCE: u64 = 64;
/// How often in a round, one after the other, so that the CPU of ours is more than the kernel's grain.
const TIMES: u64 = 4;
/// What `check_nrpe` is given: its own default.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// The peer.
const FORKED: &str = "64 × check_nrpe";

fn prepare() -> Result<Prepared> {
    if let Some(lacking) = lacking() {
        return Ok(lacking);
    }
    let daemon = Rc::new(RealNrpe::in_mode(Mode::TinyBacklog, &Keys::from(&Pki::new()?), &[], "")?);
    let failed = Rc::new(Cell::new(0_u64));
    let peer = {
        let (daemon, failed) = (Rc::clone(&daemon), Rc::clone(&failed));
        move || {
            failed.set(failed.get() + failed_of_forked(&daemon)?);
            Ok(Done::units(AT_ONCE))
        }
    };
    let asker = Asker::new()?;
    let ours = move || {
        let (address, port) = (IpAddr::V4(Ipv4Addr::LOCALHOST), daemon.address.port());
        let began = Instant::now();
        for _ in 0..TIMES {
            // Every one must be OK, or the contest fails.
            asker.ask(AT_ONCE, AT_ONCE as usize, |_| version_check(address, port, NrpeTls::Anonymous))?;
        }
        let each = began.elapsed().as_secs_f64() * 1e3 / TIMES as f64;
        let figures = vec![("all_64_after_ms", each), ("peer_failed_in_all_rounds", failed.get() as f64)];
        Ok(Done { units: AT_ONCE * TIMES, figures, ..Done::default() })
    };
    // The peer first: its failures so far are told beside our figures.
    let contestants = vec![
        Contestant { row: FORKED, reported: false, peer: None, at_least: None, run: Box::new(peer) },
        Contestant { row: "nrpe-64-parallel", reported: true, peer: Some(FORKED), at_least: None, run: Box::new(ours) },
    ];
    Ok(Prepared::Ready(Contest { unit: "check", contestants }))
}

/// Starts all at once and says how many had no answer.
fn failed_of_forked(daemon: &RealNrpe) -> Result<u64> {
    let start = |_| {
        let mut client = check_nrpe(daemon.address, Transport::Anonymous, DEFAULT_TIMEOUT);
        client.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().context(CHECK_NRPE)
    };
    let running = (0..AT_ONCE).map(start).collect::<Result<Vec<_>>>()?;
    let mut failed = 0;
    for mut client in running {
        failed += u64::from(!client.wait()?.success());
    }
    Ok(failed)
}
