//! What a master is put through by a crowd: idle links in two sizes and the way back after `kill -9`, backlog of all slots at once,
//! commits while a large state is checkpointed and the journal trimmed. Measures; the bounds are the caller's.
#![expect(clippy::disallowed_methods, reason = "a scene takes real time")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{Offer, Storm};
use crate::fleet::Fleet;
use crate::samples::{self, sample};
use crate::usage::{memory, processor, resident};
use crate::wait::until_every;

/// Everything that is waited for comes within this, or the scene has failed. Beyond every bound that is judged.
const PATIENCE: Duration = Duration::from_secs(600);
/// After so long nothing of a change is on its way: a heartbeat of everybody has come and gone.
const SETTLED: Duration = Duration::from_secs(12);
/// How often the pool is looked at; longer than what the master shows may lag behind what it has acknowledged.
const LOOK: Duration = Duration::from_millis(200);
/// What was acknowledged is counted on `/metrics` within this.
const COUNTED: Duration = Duration::from_secs(30);

/// How large a scene is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Identities in the end.
    pub identities: usize,
    /// Regions they are spread over.
    pub regions: usize,
    /// Hosts of each region.
    pub hosts: usize,
    /// Services of each host.
    pub services: usize,
}

/// Links that have nothing to say.
#[derive(Debug)]
pub struct Idle {
    /// Until the last was welcomed for the first time.
    pub joined: Duration,
    /// Bytes of the master's memory for one more link.
    pub bytes_a_link: u64,
    /// Signs of life until then, and those that were lost.
    pub beats: usize,
    /// Without an answer before the next.
    pub beats_lost: usize,
    /// Links that had ended until then.
    pub ends: usize,
    /// From the kill until the new master's first answer.
    pub answered: Duration,
    /// From the kill until half of them were welcomed by the new master, 99 of 100, and the last.
    pub half: Duration,
    /// See `half`.
    pub most: Duration,
    /// See `half`.
    pub back: Duration,
    /// Why links had ended and attempts had failed by then.
    pub reasons: BTreeMap<String, usize>,
    /// The master's memory with all of them.
    pub resident: u64,
}

/// Backlog of everybody at once.
#[derive(Debug)]
pub struct Flood {
    /// Slots that had some.
    pub slots: usize,
    /// How much.
    pub bytes: usize,
    /// In how many results.
    pub results: usize,
    /// Until the last was acknowledged.
    pub took: Duration,
    /// Most of the pool in use, both lanes together, by the master's own word.
    pub peak: f64,
    /// Size of the pool, by the same.
    pub pool: f64,
    /// The most memory that the master ever had, over what it had before the first byte was offered.
    pub grown: u64,
    /// Most slots seen waiting for their turn.
    pub waiting: f64,
    /// Links that ended meanwhile.
    pub ends: usize,
    /// Why links have ended and attempts have failed, those of the joining included.
    pub reasons: BTreeMap<String, usize>,
    /// Results that the master counts.
    pub accepted: f64,
}

/// Commits while the store tidies up.
#[derive(Debug)]
pub struct Stall {
    /// Checks that the state holds.
    pub checks: usize,
    /// Commits that were measured.
    pub commits: f64,
    /// Of those, how many took longer than 100 ms.
    pub beyond: f64,
    /// Of those, how many were under way while a checkpoint was written.
    pub beside_checkpoint: f64,
    /// Of those, how many were under way while a segment of the journal was removed.
    pub beside_trim: f64,
    /// The longest of them, in seconds.
    pub worst: f64,
    /// The longest that the disk alone took for one, in seconds.
    pub disk: f64,
    /// Checkpoints written meanwhile.
    pub checkpoints: usize,
    /// Rows trimmed meanwhile.
    pub trimmed: f64,
    /// Bytes committed.
    pub bytes: usize,
    /// How long it went on.
    pub took: Duration,
    /// What the master used of a processor in that time.
    pub cpu: Duration,
}

fn configuration(size: Size) -> Result<String> {
    let mut text = "regions:\n".to_owned();
    for region in 1..=size.regions {
        writeln!(text, "  r{region}: {{ slots: 1 }}")?;
    }
    text.push_str("hosts:\n");
    for region in 1..=size.regions {
        let hosts = format!("r{region}-h[001-{:03}]", size.hosts);
        writeln!(text, "  \"{hosts}\": {{ region: r{region}, address: 127.0.0.1 }}")?;
    }
    text.push_str("services:\n");
    for service in 1..=size.services {
        writeln!(text, "  s{service}: {{ where: 'true', check: {{ tcp: {{ port: 9 }} }} }}")?;
    }
    Ok(text)
}

/// A master that runs, and nobody yet.
///
/// # Errors
/// It does not start.
pub fn stage(directory: &Path, size: Size) -> Result<(Fleet, Storm)> {
    let config = directory.join("site.yaml");
    fs::write(&config, configuration(size)?)?;
    let mut fleet = Fleet::new(directory, &config, &[])?;
    fleet.master.start()?;
    let storm = Storm::new(&fleet.master.data, fleet.master.link, size.regions)?;
    Ok((fleet, storm))
}

fn page(fleet: &Fleet) -> Result<String> {
    samples::page(&fleet.master.api())
}

fn value(page: &str, name: &str) -> Result<f64> {
    sample(page, name).with_context(|| format!("{name} is not on /metrics"))
}

/// Results of all slots by a page of metrics.
fn taken_in(page: &str) -> f64 {
    samples::samples(page, "perigee_slot_results_total").iter().sum()
}

/// Idle links in two sizes, then `kill -9` of the master.
///
/// # Errors
/// Somebody does not come, or not come back.
pub fn idle(directory: &Path, size: Size) -> Result<Idle> {
    let (mut fleet, mut storm) = stage(directory, size)?;
    let first = size.identities / 3;
    let mut joined = storm.grow(first, PATIENCE)?;
    thread::sleep(SETTLED);
    let before = resident(fleet.master.process_id()?)?;
    joined += storm.grow(size.identities, PATIENCE)?;
    thread::sleep(SETTLED);
    let resident = resident(fleet.master.process_id()?)?;
    let counted = |count: &std::sync::atomic::AtomicUsize| count.load(Ordering::Relaxed);
    let counts = storm.counts();
    let (beats, beats_lost, ends) = (counted(&counts.beats), counted(&counts.beats_lost), counted(&counts.ends));
    let more = u64::try_from(size.identities - first)?.max(1);
    let killed = Instant::now();
    fleet.master.kill()?;
    let welcomes = counted(&counts.welcomes);
    fleet.master.start()?;
    let answered = killed.elapsed();
    // Links of the old master count as connected until they are missed: what counts is who was welcomed since.
    let back = |storm: &Storm| counted(&storm.counts().welcomes) - welcomes;
    storm.until(PATIENCE, |storm| back(storm) >= size.identities / 2)?;
    let half = killed.elapsed();
    storm.until(PATIENCE, |storm| back(storm) >= size.identities - size.identities / 100)?;
    let most = killed.elapsed();
    let all = format!("{}", size.identities);
    storm.until(PATIENCE, |storm| {
        let open = || page(&fleet).ok().and_then(|page| sample(&page, "perigee_link_connections"));
        back(storm) >= size.identities
            && storm.connected() == size.identities
            && open().is_some_and(|open| open.to_string() == all)
    })?;
    Ok(Idle {
        joined,
        bytes_a_link: resident.saturating_sub(before) / more,
        beats,
        beats_lost,
        ends,
        answered,
        half,
        most,
        back: killed.elapsed(),
        reasons: storm.reasons(),
        resident,
    })
}

/// Every slot offers so many full batches at the same moment.
///
/// # Errors
/// Not everything is acknowledged.
pub fn flood(directory: &Path, size: Size, batches: usize) -> Result<Flood> {
    let (fleet, mut storm) = stage(directory, size)?;
    storm.grow(size.identities, PATIENCE)?;
    // What joining needed is given back, and not taken for room that the flood then fills.
    thread::sleep(SETTLED);
    let process = fleet.master.process_id()?;
    let before = resident(process)?;
    let ends = storm.counts().ends.load(Ordering::Relaxed);
    let began = Instant::now();
    storm.offer(Offer { batches, ..Offer::default() });
    let (mut waiting, mut failed) = (0.0_f64, None);
    let delivered = until_every(LOOK, PATIENCE, || {
        match page(&fleet).and_then(|page| value(&page, "perigee_link_credit_waiting_slots{lane=\"backlog\"}")) {
            Ok(seen) => waiting = waiting.max(seen),
            Err(error) => failed = Some(error),
        }
        // Those without a check have nothing to offer: all others have, when nobody was added for a while.
        let counts = storm.counts();
        let offering = counts.offering.load(Ordering::Relaxed);
        failed.is_some()
            || (offering > 0 && counts.delivered.load(Ordering::Relaxed) == offering && began.elapsed() > 4 * LOOK)
    });
    if let Some(error) = failed {
        return Err(error);
    }
    ensure!(delivered, "not delivered within {PATIENCE:?}: {:?} {:?}", storm.counts(), storm.reasons());
    let took = began.elapsed();
    let counts = storm.counts();
    let results = counts.offered_results.load(Ordering::Relaxed);
    let offered = results.to_string();
    let (mut shown, mut accepted, mut last) = (Ok(String::new()), 0.0_f64, 0.0_f64);
    // Twice in a row: the count has arrived there and does not go on.
    until_every(LOOK, COUNTED, || {
        shown = page(&fleet);
        last = accepted;
        accepted = shown.as_ref().map_or(0.0, |page| taken_in(page));
        accepted.to_string() == offered && last.to_string() == offered
    });
    let page = shown?;
    let lane = |name: &str, lane: &str| value(&page, &format!("perigee_link_credit_{name}{{lane=\"{lane}\"}}"));
    let mut pool = 0.0;
    for lane in ["live", "backlog"] {
        for state in ["given", "received", "free"] {
            pool += value(&page, &format!("perigee_link_credit_bytes{{lane=\"{lane}\",state=\"{state}\"}}"))?;
        }
    }
    Ok(Flood {
        slots: counts.offering.load(Ordering::Relaxed),
        bytes: counts.offered_bytes.load(Ordering::Relaxed),
        results,
        took,
        peak: lane("peak_bytes", "live")? + lane("peak_bytes", "backlog")?,
        pool,
        grown: memory(process, "VmHWM")?.saturating_sub(before),
        waiting,
        ends: counts.ends.load(Ordering::Relaxed) - ends,
        reasons: storm.reasons(),
        accepted,
    })
}

/// Steady commits, `rate` bytes a second until `bytes` are in, while the journal is trimmed and checkpoints of a large state are
/// written.
///
/// # Errors
/// Not everything is acknowledged.
pub fn stall(directory: &Path, size: Size, bytes: usize, rate: usize) -> Result<Stall> {
    /// What a full batch comes to, about.
    const BATCH: usize = 54 * 1024;
    let (fleet, mut storm) = stage(directory, size)?;
    storm.grow(size.identities, PATIENCE)?;
    thread::sleep(SETTLED);
    let before = page(&fleet)?;
    let (process, began) = (fleet.master.process_id()?, Instant::now());
    let (cpu, mut checkpoints) = (processor(process)?.own, std::collections::BTreeSet::new());
    let batches = (bytes / size.identities / BATCH).max(1);
    let pause = u64::try_from(BATCH * size.identities)? * 1_000_000 / u64::try_from(rate.max(1))?;
    let pause = Duration::from_micros(pause);
    storm.offer(Offer { batches, pause, ..Offer::default() });
    storm.until(PATIENCE, |storm| {
        let names = fs::read_dir(fleet.master.data.join("checkpoint")).into_iter().flatten().flatten();
        checkpoints
            .extend(names.map(|entry| entry.file_name()).filter(|name| name.to_string_lossy().ends_with(".ckpt")));
        let counts = storm.counts();
        let offering = counts.offering.load(Ordering::Relaxed);
        offering > 0 && counts.delivered.load(Ordering::Relaxed) == offering
    })?;
    let (after, took) = (page(&fleet)?, began.elapsed());
    let more = |name: &str| Ok::<f64, anyhow::Error>(value(&after, name)? - value(&before, name)?);
    let within = more("perigee_commit_seconds_bucket{le=\"0.1\"}")?;
    let commits = more("perigee_commit_seconds_count")?;
    Ok(Stall {
        checks: size.regions * size.hosts * (size.services + 1),
        commits,
        beyond: commits - within,
        beside_checkpoint: more("perigee_commit_beside_total{work=\"checkpoint\"}")?,
        beside_trim: more("perigee_commit_beside_total{work=\"trim\"}")?,
        worst: value(&after, "perigee_commit_worst_seconds")?,
        disk: value(&after, "perigee_journal_write_worst_seconds")?,
        checkpoints: checkpoints.len(),
        trimmed: more("perigee_journal_first_index")?,
        bytes: storm.counts().offered_bytes.load(Ordering::Relaxed),
        took,
        cpu: processor(process)?.own.saturating_sub(cpu),
    })
}
