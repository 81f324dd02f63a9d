//! What an ICMP check asks where the files leave it open, and what cannot be meant.
//!
//! The surprise: a host check is patient (the levels of Icinga's `hostalive`), a service is not (those of `check_icmp`): a slow
//! way to a host is a problem of its own, and no reason to call the host down.

use std::time::Duration;

use shared::check::{IcmpCheck, IcmpLevel};

use super::Problem;
use crate::config::raw::{RawIcmp, RawIcmpLevel};

/// Requests of one check.
pub const PACKETS: u16 = 5;
/// Levels of a service: `check_icmp`'s own.
pub const SERVICE: [IcmpLevel; 2] =
    [IcmpLevel { rta_us: 200_000, loss_percent: 40 }, IcmpLevel { rta_us: 500_000, loss_percent: 80 }];
/// Levels of a host check: those of Icinga's `hostalive`.
pub const HOST: [IcmpLevel; 2] =
    [IcmpLevel { rta_us: 3_000_000, loss_percent: 80 }, IcmpLevel { rta_us: 5_000_000, loss_percent: 100 }];

/// The check that a host has of whom the files say none.
#[must_use]
pub fn of_host(address: &str, otherwise_tcp: u16) -> IcmpCheck {
    let [warning, critical] = HOST;
    let address = address.to_owned();
    IcmpCheck { address, packets: PACKETS, warning, critical, otherwise_tcp: Some(otherwise_tcp) }
}

/// The check that the files say. A level that can never be reached first is named.
pub(super) fn fill(raw: &RawIcmp, of_host: bool, address: &str, problems: &mut Vec<Problem>) -> IcmpCheck {
    let [warning, critical] = if of_host { HOST } else { SERVICE };
    let (warning, critical) = (level(&raw.warning, warning), level(&raw.critical, critical));
    for (name, written, wrong) in [
        ("rta", raw.warning.rta.as_ref().map(|at| at.place), warning.rta_us > critical.rta_us),
        ("loss", raw.warning.loss.as_ref().map(|at| at.place), warning.loss_percent > critical.loss_percent),
    ] {
        let otherwise = raw.critical.rta.as_ref().map(|at| at.place).or(raw.critical.loss.as_ref().map(|at| at.place));
        if let Some(place) = written.or(otherwise).filter(|_| wrong) {
            let message = format!("`{name}` is CRITICAL before it is WARNING");
            problems.push(Problem::warning(
                place,
                message,
                "the level of `critical` must be the higher one".to_owned(),
            ));
        }
    }
    let packets = raw.packets.as_ref().and_then(|at| u16::try_from(at.value).ok()).unwrap_or(PACKETS);
    IcmpCheck { address: address.to_owned(), packets, warning, critical, otherwise_tcp: None }
}

fn level(raw: &RawIcmpLevel, default: IcmpLevel) -> IcmpLevel {
    let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    IcmpLevel {
        rta_us: raw.rta.as_ref().map_or(default.rta_us, |at| micros(at.value)),
        loss_percent: raw.loss.as_ref().and_then(|at| u8::try_from(at.value).ok()).unwrap_or(default.loss_percent),
    }
}
