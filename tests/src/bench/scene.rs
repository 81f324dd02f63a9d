//! What the delivery rows are measured on: a fleet of services that answer as Monitoring Plugins do, mostly good, each with three
//! metrics, gathered into full batches. The same numbers come out every time.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use master::config::{Catalog, CheckDefinition, Host, Region, Vars};
use shared::assignment::Policy;
use shared::check::{Check, Exit, NrpeCheck, NrpeTls, State};
use shared::delivery::{BATCH_RESULTS_MAX, BatchBuilder, BatchHeader};
use shared::name::{
    CheckId, Generation, Grant, HostName, ObjectName, RunCounter, RunId, Sequence, SlotNumber, Timeline,
};
use shared::perfdata;
use shared::result::CheckResult;
use shared::state::{CheckState, Confirmation};
use shared::time::Timestamp;

/// Services in the fleet.
pub const SERVICES: u32 = 10_000;
/// The time of the first result.
pub const AT: Timestamp = Timestamp::from_millis(1_790_000_000_000);

/// One region, a thousand hosts, ten services each.
///
/// # Errors
/// Never, unless the names above it are no names any more.
pub fn catalog() -> Result<Arc<Catalog>> {
    let mut hosts = BTreeMap::new();
    let mut objects = BTreeMap::new();
    for number in 0..SERVICES {
        let host: HostName = format!("web{:04}.example.net", number / 10).parse()?;
        let definition = CheckDefinition {
            check: Check::Nrpe(NrpeCheck {
                address: host.to_string(),
                port: 5666,
                tls: NrpeTls::Anonymous,
                command: "check_load".to_owned(),
                args: Vec::new(),
                version: None,
                on_transport_error: State::Unknown,
                trust: None,
            }),
            policy: Policy {
                check_interval_ms: 60_000,
                retry_interval_ms: 15_000,
                timeout_ms: 10_000,
                max_attempts: 3,
            },
            command_name: "nrpe".to_owned(),
            region: "eu".parse()?,
        };
        hosts.entry(host.clone()).or_insert(Host {
            region: "eu".parse()?,
            address: host.to_string(),
            groups: std::collections::BTreeSet::new(),
            vars: Vars::default(),
        });
        objects.insert(ObjectName::service(host, format!("service {}", number % 10).parse()?), definition);
    }
    let regions = BTreeMap::from([("eu".parse()?, Region { slots: 1, join: Vec::new(), failover_after_ms: 60_000 })]);
    Ok(Arc::new(Catalog::new(regions, hosts, objects, Vec::new())))
}

/// The slot that owns the fleet.
///
/// # Errors
/// Never, unless its name is no name any more.
pub fn slot() -> Result<shared::name::Slot> {
    Ok(shared::name::Slot { region: "eu".parse()?, number: SlotNumber::new(1).context("slots count from 1")? })
}

/// The `n`-th result of the fleet: 80 bytes of text, three metrics, one in a hundred a problem.
#[must_use]
pub fn result(n: u64, check: CheckId, grant: Grant) -> CheckResult {
    // Real answers hardly repeat: every number below is drawn anew, or compression would flatter the wire.
    let draw = |salt: u64, below: u64| {
        let mut x = n.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(salt.wrapping_mul(0xd1b5_4a32_d192_ed03));
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % below
    };
    let state = if draw(1, 100) == 0 { State::Critical } else { State::Ok };
    let [one, five, fifteen] = [2, 3, 4].map(|salt| draw(salt, 800));
    let load = |hundredths: u64| format!("{}.{:02}", hundredths / 100, hundredths % 100);
    let [one, five, fifteen] = [load(one), load(five), load(fifteen)];
    let perfdata = format!("load1={one};5;10;0 load5={five};4;6;0 load15={fifteen};3;4;0");
    let output = format!(
        "{state} - load average: {one}, {five}, {fifteen} with {} processes, {} running",
        100 + draw(5, 900),
        draw(6, 9)
    );
    let due = Timestamp::from_millis(AT.as_millis() + i64::try_from(n * 6).unwrap_or(0));
    let started = Timestamp::from_millis(due.as_millis() + i64::try_from(draw(7, 25)).unwrap_or(0));
    let (after, _) = CheckState::pending(3).apply(state, Confirmation { max_attempts: 3 }, started);
    CheckResult {
        check,
        grant,
        scheduled: due,
        started,
        duration_us: 2000 + draw(8, 60_000),
        exit: Some(Exit::Ran(i32::from(state.number()))),
        passive: false,
        output,
        long_output: String::new(),
        metrics: perfdata::parse(&perfdata).metrics,
        perfdata,
        authenticated: Some(false),
        after,
        command: None,
        offset_ms: Some(0),
    }
}

/// `count` batches of one run, each of as many results as a batch may have, from batch number `first` on. Check ids go round from 1 to [`SERVICES`].
#[must_use]
pub fn batches(first: u64, count: u64, grant: Grant) -> Vec<Vec<u8>> {
    let size = u64::try_from(BATCH_RESULTS_MAX).unwrap_or(u64::MAX);
    let mut builder = BatchBuilder::default();
    let batch = |number: u64| {
        let mut next = number * size;
        let begin = next + 1;
        while next < (number + 1) * size {
            let id = u32::try_from(next % u64::from(SERVICES)).unwrap_or(0) + 1;
            builder.push(&result(next, CheckId(id), grant));
            next += 1;
        }
        let header = BatchHeader {
            timeline: Timeline(1),
            generation: Generation(1),
            run: RunId([7; 16]),
            counter: RunCounter(1),
            first: Sequence(begin),
            last: Sequence(next),
        };
        builder.finish(&header)
    };
    (first..first + count).map(batch).collect()
}
