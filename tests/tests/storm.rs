//! A crowd of satellites against a real master: thousands of links come back after `kill -9`, what an idle one costs, backlog of all
//! slots at once within the byte pool, and commits that nothing holds up. Small here and large in `make proof`: `PERIGEE_IDENTITIES`,
//! `PERIGEE_FLOOD` (slots) and `PERIGEE_STALL` (thousands of checks) say how large, and only the large form judges times.
#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene has failed")]

use std::time::Duration;

use master::api::figure::as_value;
use master::coordinator::WAITING_BYTES_MAX;
use tests::figure::figure;
use tests::samples::{page, sample};
use tests::storm::scenes::{Flood, Size, flood, idle, stage, stall};
use tests::storm::{Offer, Storm};

const PATIENCE: Duration = Duration::from_secs(120);
/// All are back so long after the kill.
const BACK: Duration = Duration::from_secs(60);
/// A commit waits no longer, in seconds.
const STALL: f64 = 0.1;
/// Memory that one idle link may cost the master.
const LINK_BYTES: u64 = 64 * 1024;
/// What a flood may cost the master beside all that is named: buffers of links, what the allocator keeps.
const UNNAMED: f64 = 16.0 * 1024.0 * 1024.0;

const MIB: usize = 1024 * 1024;

fn number(name: &str) -> Option<usize> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn a_crowd_is_back_after_the_master_was_killed_and_an_idle_link_costs_little() {
    let directory = tempfile::tempdir().unwrap();
    let large = number("PERIGEE_IDENTITIES");
    let identities = large.unwrap_or(200);
    let idle = idle(directory.path(), Size { identities, regions: 25, hosts: 8, services: 1 }).unwrap();
    assert_eq!((idle.ends, idle.beats_lost), (0, 0), "{idle:?}");
    assert!(idle.beats >= identities, "{idle:?}");
    assert!(idle.back <= BACK, "{idle:?}");
    // Of few links the allocator's pages say more than the links.
    assert!(large.is_none() || idle.bytes_a_link <= LINK_BYTES, "{idle:?}");
    figure(
        20,
        &format!(
            "{identities} identities joined in {:.0} s, {} heartbeats, 0 lost; {} KiB of memory an idle link, {} MiB in all; from the \
             kill -9 on half back in {:.1} s, 99 of 100 in {:.1} s, all in {:.1} s ({:.1} s of it until the new master answers)",
            idle.joined.as_secs_f64(),
            idle.beats,
            idle.bytes_a_link / 1024,
            idle.resident / (1024 * 1024),
            idle.half.as_secs_f64(),
            idle.most.as_secs_f64(),
            idle.back.as_secs_f64(),
            idle.answered.as_secs_f64()
        ),
    );
}

/// The pool counts frames. Beside them there is the newest result of every check, as it is shown and once more as a checkpoint writes
/// it, and three times the rows that the master holds at most (or all there are): those that gather, those being committed, and what
/// the journal makes of them.
fn beside_pool(flood: &Flood, checks: usize) -> f64 {
    let bytes_of = |count: usize| as_value(u64::try_from(count).unwrap());
    let newest = bytes_of(checks) * bytes_of(flood.bytes) / bytes_of(flood.results);
    2.0 * newest + 3.0 * bytes_of(WAITING_BYTES_MAX.min(flood.bytes)) + UNNAMED
}

#[test]
fn backlog_of_all_slots_at_once_stays_within_the_pool_and_all_of_it_arrives() {
    let directory = tempfile::tempdir().unwrap();
    let slots = number("PERIGEE_FLOOD");
    let large = slots.is_some();
    let (slots, batches) = (slots.unwrap_or(40), if large { 5 } else { 3 });
    let size = Size { identities: slots, regions: slots.div_ceil(4), hosts: 60, services: 1 };
    let checks = size.regions * size.hosts * (size.services + 1);
    let flood = flood(directory.path(), size, batches).unwrap();
    assert_eq!(flood.pool, 256.0 * 1024.0 * 1024.0);
    assert!(flood.peak <= flood.pool, "{flood:?}");
    let (grown, most) = (as_value(flood.grown), flood.peak + beside_pool(&flood, checks));
    assert!(grown <= most, "{grown} bytes of memory, {} of them in the pool, {most} at most: {flood:?}", flood.peak);
    assert_eq!(flood.accepted.to_string(), flood.results.to_string(), "{flood:?}");
    assert_eq!(flood.ends, 0, "{flood:?}");
    assert_eq!(flood.slots, slots, "every slot owns a check: {flood:?}");
    // A pool that never binds keeps any bound. Half of it is for backlog: the crowd offers more, so that somebody has to wait.
    if large {
        assert!(flood.bytes > 128 * MIB && flood.waiting > 0.0, "the pool was never full: {flood:?}");
    }
    figure(
        20,
        &format!(
            "{} slots offered {} MiB of backlog at once: {:.0} MiB of the pool's 256 in use at most, the master's memory {} MiB above \
             that before at most, up to {} slots waiting for their turn, all {} results in after {:.0} s",
            flood.slots,
            flood.bytes / MIB,
            flood.peak / (1024.0 * 1024.0),
            flood.grown / (1024 * 1024),
            flood.waiting,
            flood.results,
            flood.took.as_secs_f64()
        ),
    );
}

#[test]
fn who_sends_beyond_its_credit_is_cut_off_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let (fleet, mut storm) =
        stage(directory.path(), Size { identities: 1, regions: 1, hosts: 1, services: 1 }).unwrap();
    storm.grow(1, PATIENCE).unwrap();
    storm.offer(Offer { batches: 3, beyond_credit: true, ..Offer::default() });
    let cut = |storm: &Storm| storm.reasons().keys().any(|reason| reason.contains("credit_exceeded"));
    storm.until(PATIENCE, cut).unwrap();
    let page = page(&fleet.master.api()).unwrap();
    assert!(sample(&page, "perigee_link_refused_total{reason=\"credit_exceeded\"}").unwrap() >= 1.0);
    assert_eq!(
        sample(&page, "perigee_slot_results_total{region=\"r1\",slot=\"1\"}"),
        Some(0.0),
        "nothing of it counts"
    );
}

#[test]
fn no_commit_waits_for_checkpoints_or_trimming() {
    let directory = tempfile::tempdir().unwrap();
    let large = number("PERIGEE_STALL");
    let (services, bytes, rate) = large.map_or((1, 4 * MIB, 4 * MIB), |thousands| (thousands, 600 * MIB, 8 * MIB));
    let size = Size { identities: 50, regions: 10, hosts: 100, services };
    let stall = stall(directory.path(), size, bytes, rate).unwrap();
    assert!(stall.commits > 0.0 && stall.bytes >= bytes / 2, "{stall:?}");
    if large.is_some() {
        assert!(stall.checkpoints >= 3 && stall.trimmed > 0.0, "{stall:?}");
        // Of that which is said to hold up no commit some was beside commits, each time.
        let at_least = as_value(u64::try_from(stall.checkpoints).unwrap());
        assert!(stall.beside_checkpoint >= at_least && stall.beside_trim > 0.0, "{stall:?}");
        assert!(stall.beyond == 0.0 && stall.worst <= STALL, "{stall:?}");
    }
    figure(
        20,
        &format!(
            "{} checks, {} MiB in {} commits within {:.0} s ({:.1} s of CPU), {} of them beside one of {} checkpoints, {} beside the \
             removal of a segment ({} rows trimmed): longest wait for a commit {:.0} ms, longest write of one {:.0} ms",
            stall.checks,
            stall.bytes / MIB,
            stall.commits,
            stall.took.as_secs_f64(),
            stall.cpu.as_secs_f64(),
            stall.beside_checkpoint,
            stall.checkpoints,
            stall.beside_trim,
            stall.trimmed,
            stall.worst * 1000.0,
            stall.disk * 1000.0
        ),
    );
}
