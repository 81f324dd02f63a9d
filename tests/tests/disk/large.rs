//! A large spool of a busy satellite, hurt all over and without a file of states that would spare reading: how long the next process takes
//! to open it, with nothing of it in the page cache and with all of it, and the program to check again; whether the gaps are exactly the batches that were hurt, and
//! whether each check goes on from its newest result that is left. `PERIGEE_SPOOL_MIB` says how large, `PERIGEE_SEED` which.
#![expect(clippy::disallowed_methods, reason = "measures how long a start takes")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rustix::fs::{Advice, fadvise};
use satellite::command::{Beginning, Command, Identity, Limits, SpooledBatch};
use satellite::outbox::Outbox;
use satellite::spool::{Answer, Order, Spool};
use shared::delivery::{BatchBuilder, BatchHeader, BatchItem, GapRecord, decode_header, decode_items, reason};
use shared::frame::Lane;
use shared::message::RunPosition;
use shared::name::{CheckId, Generation, RunCounter, RunId, Sequence, Timeline};
use shared::perfdata::parse;
use shared::result::CheckResult;
use shared::time::Monotonic;
use tests::figure::figure;
use tests::wait::until;

use crate::damaged::{identity, is_segment, number, result};
use crate::scene::{PATIENCE, scene};

/// Issue and design: a damaged spool of 1 GiB starts within this, of the wall clock.
const WITHIN: Duration = Duration::from_secs(10);
/// Wider than the spool, so that nothing is given up.
const LIMITS: Limits = Limits { bytes: 4 << 30, ..Limits::DEFAULT };
/// Checks of the satellite.
const CHECKS: u64 = 1000;
/// Results of a batch.
const RESULTS: u64 = 200;
/// Different batches: 50 rounds of all checks.
const BODIES: u64 = 250;
/// Bytes before a segment's first record, and before a record's payload (`shared/seglog`).
const SEGMENT_HEADER: u64 = 64;
const RECORD_HEADER: u64 = 40;

/// A result as checks of load and disks give them.
fn busy(number: u64, draw: &mut StdRng) -> CheckResult {
    let (one, five, used): (u32, u32, u32) =
        (draw.random_range(0..900), draw.random_range(0..900), draw.random_range(1..90_000));
    let perfdata = format!("load1=0.{one:03};4;8;0; load5=0.{five:03};3;6;0; /={used}MB;72000;81000;0;90000");
    CheckResult {
        check: CheckId(u32::try_from(number % CHECKS + 1).unwrap()),
        metrics: parse(&perfdata).metrics,
        perfdata,
        ..result(number, &format!("OK - load average: 0.{one:03}, 0.{five:03}, DISK OK - free space: / {used} MB"))
    }
}

/// What the batches hold, made once: where a batch stands in its run is in its header alone.
fn bodies(draw: &mut StdRng) -> Vec<Vec<u8>> {
    let of = |body: u64, draw: &mut StdRng| {
        let mut builder = BatchBuilder::default();
        (0..RESULTS).for_each(|n| builder.push(&busy(body * RESULTS + n, draw)));
        let whole = builder.finish(&header((RunId([0; 16]), RunCounter(0)), Timeline(0), 0));
        decode_header(&whole).unwrap().1.to_vec()
    };
    (0..BODIES).map(|body| of(body, draw)).collect()
}

fn header((run, counter): (RunId, RunCounter), timeline: Timeline, number: u64) -> BatchHeader {
    let (first, last) = (Sequence(number * RESULTS + 1), Sequence((number + 1) * RESULTS));
    BatchHeader { timeline, generation: Generation(1), run, counter, first, last }
}

/// A spool with one run, hurt.
struct Large {
    run: (RunId, RunCounter),
    timeline: Timeline,
    bodies: Vec<Vec<u8>>,
    /// Batches.
    made: u64,
    segments: Vec<PathBuf>,
    wounds: usize,
    /// Numbers of the batches that were hit.
    hurt: BTreeSet<u64>,
    /// See [`Wounds`].
    end_lost: bool,
}

impl Large {
    /// Writes about `mib` into the volume of a slot, as a process of it does, and hurts it when that process is gone.
    fn new(data: &Path, identity: &Identity, mib: u64, draw: &mut StdRng) -> Self {
        let (mut spool, beginning) = Spool::open(data, identity, &LIMITS).unwrap();
        let mut large = Self {
            run: (beginning.open.run, beginning.open.counter),
            timeline: beginning.kept.map_or(Timeline(7), |kept| kept.timeline),
            bodies: bodies(draw),
            made: 0,
            segments: Vec::new(),
            wounds: 0,
            hurt: BTreeSet::new(),
            end_lost: false,
        };
        let mut lengths = Vec::new();
        while spool.bytes() < mib << 20 {
            let next = lengths.len() as u64;
            let batches: Vec<SpooledBatch> = (next..next + 256).map(|number| large.batch(number)).collect();
            lengths.extend(batches.iter().map(|batch| batch.bytes.len() as u64));
            let order = Command::Append { run: large.run.0, batches };
            assert!(matches!(spool.execute(Order::Do(order)), Some(Answer::Appended { .. })));
        }
        large.made = lengths.len() as u64;
        large.segments = segments_of(spool.directory());
        large.wounds = large.segments.len() * 3;
        drop(spool);
        let wounds = wound(&large.segments, &places(&large.segments, &lengths), large.wounds, draw);
        (large.hurt, large.end_lost) = (wounds.hurt, wounds.end_lost);
        large
    }

    /// The batch of this number: a header as the satellite writes it, and one of the bodies.
    fn batch(&self, number: u64) -> SpooledBatch {
        let header = header(self.run, self.timeline, number);
        let empty = BatchBuilder::default().finish(&header);
        let (_, nothing) = decode_header(&empty).unwrap();
        let mut bytes = empty[..empty.len() - nothing.len()].to_vec();
        bytes.extend_from_slice(self.body(number));
        SpooledBatch { first: header.first, last: header.last, bytes: Bytes::from(bytes) }
    }

    fn body(&self, number: u64) -> &[u8] {
        &self.bodies[usize::try_from(number % BODIES).unwrap()]
    }

    /// What a master that knows nothing gets of the run: the numbers of its batches, byte for byte as they were written, and the gaps.
    fn delivered(&self, spool: &mut Spool, beginning: &Beginning) -> (BTreeSet<u64>, Vec<GapRecord>) {
        let (mut batches, mut gaps) = (BTreeSet::new(), Vec::new());
        let mut outbox = Outbox::new(&beginning.open, &beginning.earlier);
        let now = Monotonic(1);
        outbox.handle_welcome(now, &[]);
        while let Some(command) = outbox.poll_command() {
            if let Command::Send { lane: Lane::Backlog, payload } = &command {
                let (sent, body) = decode_header(payload).unwrap();
                let number = (sent.first.0 - 1) / RESULTS;
                if sent == header(self.run, self.timeline, number) && body == self.body(number) {
                    assert!(batches.insert(number), "batch {number} twice");
                } else {
                    assert_eq!(sent.run, self.run.0, "a run that nobody wrote");
                    for item in decode_items(&sent, body).unwrap() {
                        let BatchItem::Gap(gap) = item else { panic!("{item:?} is not as it was written") };
                        gaps.push(gap);
                    }
                }
                outbox.handle_ack(now, RunPosition { run: sent.run, position: sent.last });
                continue;
            }
            match spool.execute(Order::Do(command)) {
                Some(Answer::Read { read, found }) => outbox.handle_read(now, read, &found),
                Some(Answer::ReadFailed { read }) => panic!("{read:?} failed"),
                _ => {}
            }
        }
        (batches, gaps)
    }

    /// Where the newest result of each check lies that is in no hurt batch.
    fn newest(&self) -> BTreeMap<CheckId, Sequence> {
        let mut newest = BTreeMap::new();
        for number in (0..self.made).rev().filter(|number| !self.hurt.contains(number)) {
            for n in 0..RESULTS {
                let check = CheckId(u32::try_from((number % BODIES * RESULTS + n) % CHECKS + 1).unwrap());
                newest.entry(check).or_insert(Sequence(number * RESULTS + n + 1));
            }
            if newest.len() as u64 == CHECKS {
                break;
            }
        }
        newest
    }
}

/// Where the records lie: for each segment, in order, the end of each of its batches.
fn places(segments: &[PathBuf], lengths: &[u64]) -> Vec<Vec<u64>> {
    let mut lengths = lengths.iter();
    let places = segments.iter().map(|path| {
        let size = fs::metadata(path).unwrap().len();
        let mut ends = Vec::new();
        let mut at = SEGMENT_HEADER;
        while at < size {
            at += RECORD_HEADER + lengths.next().expect("more records than batches");
            ends.push(at);
        }
        assert_eq!(at, size, "{}", path.display());
        ends
    });
    places.collect()
}

/// What was hit.
struct Wounds {
    /// Numbers of the batches.
    hurt: BTreeSet<u64>,
    /// The last record's header is hit: how far the run went then stands nowhere.
    end_lost: bool,
}

/// Flips bits all over, one of them in a segment's header and one in the last record of all.
fn wound(segments: &[PathBuf], places: &[Vec<u64>], wounds: usize, draw: &mut StdRng) -> Wounds {
    let files: Vec<File> =
        segments.iter().map(|path| File::options().read(true).write(true).open(path).unwrap()).collect();
    let firsts: Vec<u64> = places
        .iter()
        .scan(0, |next, ends| {
            let first = *next;
            *next += ends.len() as u64;
            Some(first)
        })
        .collect();
    let newest = segments.len() - 1;
    let (before_last, end) = match places[newest][..] {
        [.., before, end] => (before, end),
        [end] => (SEGMENT_HEADER, end),
        [] => panic!("the newest segment is empty"),
    };
    let last_header = before_last..before_last + RECORD_HEADER;
    let header = (draw.random_range(0..segments.len()), draw.random_range(0..SEGMENT_HEADER));
    let last = if draw.random() { last_header.clone() } else { last_header.end..end };
    let mut chosen = vec![header, (newest, draw.random_range(last))];
    let mut bits = BTreeSet::new();
    let mut hit = Wounds { hurt: BTreeSet::new(), end_lost: false };
    while bits.len() < wounds {
        let (segment, at) = chosen.pop().unwrap_or_else(|| {
            let segment = draw.random_range(0..segments.len());
            (segment, draw.random_range(0..*places[segment].last().unwrap()))
        });
        let bit = draw.random_range(0..8_u8);
        if !bits.insert((segment, at, bit)) {
            continue;
        }
        let mut byte = [0];
        files[segment].read_exact_at(&mut byte, at).unwrap();
        files[segment].write_all_at(&[byte[0] ^ 1 << bit], at).unwrap();
        // What a segment's header said stands in its first record and in its name as well.
        if at >= SEGMENT_HEADER {
            hit.hurt.insert(firsts[segment] + places[segment].partition_point(|end| *end <= at) as u64);
        }
        hit.end_lost |= segment == newest && last_header.contains(&at);
    }
    hit
}

/// Writes everything back, so that a start does not wait for what the test has left in the page cache; `cold`: and lets go of it there.
fn settle(segments: &[PathBuf], cold: bool) {
    for path in segments {
        let file = File::options().read(true).write(true).open(path).unwrap();
        file.sync_all().unwrap();
        if cold {
            fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        }
    }
}

/// What a thread has had of processors so far, and what it has waited for one that others had: told beside the wall clock.
#[derive(Debug, Clone, Copy)]
struct Shares {
    had: Duration,
    waited: Duration,
}

/// Of a thread by its directory in `/proc`; nothing where the kernel does not tell.
fn shares(thread: &Path) -> Shares {
    let told = fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
    let mut numbers = told.split_whitespace().map(|number| Duration::from_nanos(number.parse().unwrap_or(0)));
    let mut next = || numbers.next().unwrap_or_default();
    Shares { had: next(), waited: next() }
}

/// Of the thread that asks.
fn own_shares() -> Shares {
    shares(Path::new("/proc/thread-self"))
}

/// Of that thread of a process that has waited longest.
fn most_waiting(pid: u32) -> Shares {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().map(|entry| shares(&entry.path()));
    threads.max_by_key(|shares| shares.waited).unwrap()
}

fn segments_of(data: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    let mut open = vec![data.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                open.push(entry);
            } else if is_segment(&entry) {
                paths.push(entry);
            }
        }
    }
    paths.sort();
    paths
}

/// Stretches of batches as first and last sequence.
fn stretches(numbers: &BTreeSet<u64>) -> Vec<(u64, u64)> {
    let mut stretches: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        let (first, last) = (number * RESULTS + 1, (number + 1) * RESULTS);
        match stretches.last_mut() {
            Some(stretch) if stretch.1 + 1 == first => stretch.1 = last,
            _ => stretches.push((first, last)),
        }
    }
    stretches
}

/// How large, and the chance that is drawn from.
fn size() -> (u64, StdRng) {
    let mib = number("PERIGEE_SPOOL_MIB", 64);
    let seed = number("PERIGEE_SEED", rand::random_range(1..1_000_000_000));
    eprintln!("{mib} MiB, PERIGEE_SEED={seed}");
    (mib, StdRng::seed_from_u64(seed))
}

#[test]
fn a_large_damaged_spool_starts_within_ten_seconds_with_exact_gaps() {
    let (mib, mut draw) = size();
    // On a disk, not in memory: reading it is a part of what is measured.
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let large = Large::new(&data, &identity(), mib, &mut draw);
    let mut took = Vec::new();
    for cold in [true, false] {
        settle(&large.segments, cold);
        let (began, before) = (Instant::now(), own_shares());
        let (spool, beginning) = Spool::open(&data, &identity(), &LIMITS).unwrap();
        let (wall, after) = (began.elapsed(), own_shares());
        let shares = Shares { had: after.had - before.had, waited: after.waited - before.waited };
        eprintln!("cold {cold}: {wall:?} {shares:?}");
        took.push((wall, shares));
        let states = &beginning.states.states;
        let told: BTreeMap<CheckId, Sequence> =
            states.iter().map(|(check, state)| (*check, state.key.sequence)).collect();
        assert!(told == large.newest(), "{} checks, which do not all go on from their newest result", told.len());
        drop(spool);
    }
    let [(cold, of_cold), (warm, _)] = took[..] else { panic!("{took:?}") };

    let (mut spool, beginning) = Spool::open(&data, &identity(), &LIMITS).unwrap();
    let (batches, gaps) = large.delivered(&mut spool, &beginning);
    let whole: BTreeSet<u64> = (0..large.made).filter(|number| !large.hurt.contains(number)).collect();
    assert!(batches == whole, "{:?} are missing or not as written", whole.symmetric_difference(&batches).take(9));
    // How far the stretch at the end went stands in the headers of its records alone; without the last of them it has an open end.
    let hurt = stretches(&large.hurt);
    let ((at_end, inside), (&(first, last), others)) = (gaps.split_last().unwrap(), hurt.split_last().unwrap());
    let named: Vec<(u64, u64)> = inside.iter().map(|gap| (gap.first.0, gap.last.0)).collect();
    assert!(named == others, "{} gaps, which are not what was hurt", named.len());
    assert!(inside.iter().all(|gap| gap.reason == reason::SPOOL_DAMAGED), "{:?}", inside.first());
    let told = (at_end.first.0, at_end.last.0, at_end.reason.as_str());
    let known = if large.end_lost { first..=last } else { last..=last };
    assert!(
        told.0 == first && known.contains(&told.1) && told.2 == reason::SPOOL_END,
        "{told:?} instead of {first}..={last}, the header of the last record hit: {}",
        large.end_lost
    );
    assert!(cold <= WITHIN && warm <= WITHIN, "{took:?}");
    figure(
        18,
        &format!(
            "D3: a spool of {mib} MiB ({} results of {CHECKS} checks) with {} flipped bits, one of them in its last record, opens in {:.1} s from the disk ({:.1} s of \
             CPU, {:.1} s waiting for one), {:.1} s from the page cache; {} gaps name exactly the {} batches that were hit, the last gap with its end {}, the other {} batches come byte for byte",
            large.made * RESULTS,
            large.wounds,
            cold.as_secs_f64(),
            of_cold.had.as_secs_f64(),
            of_cold.waited.as_secs_f64(),
            warm.as_secs_f64(),
            gaps.len(),
            large.hurt.len(),
            if large.end_lost { "open" } else { "known" },
            batches.len()
        ),
    );
}

#[test]
fn the_program_checks_and_connects_within_ten_seconds_of_a_start_on_a_large_damaged_spool() {
    let (mib, mut draw) = size();
    let directory = tempfile::tempdir().unwrap();
    let mut scene = scene(directory.path(), 8, Duration::from_millis(500), 60);
    scene.fleet.start().unwrap();
    scene.fleet.until_connected(PATIENCE).unwrap();
    scene.until_answers(20);
    let link = scene.fleet.master.link;
    let satellite = scene.fleet.satellite("eu/1").unwrap();
    satellite.terminate().unwrap();
    let data = satellite.data.clone();
    // Whose it is stands in every directory of the spool: `installation/region/number`.
    let mut owners = fs::read_dir(data.join("spool")).unwrap().map(|entry| entry.unwrap().path().join("owner"));
    let owner = owners.find_map(|path| fs::read_to_string(path).ok()).unwrap();
    let (installation, _) = owner.split_once('/').unwrap();
    let identity = Identity { installation: installation.parse().unwrap(), ..identity() };
    let large = Large::new(&data, &identity, mib, &mut draw);
    settle(&large.segments, true);
    let before = scene.answers();
    let began = Instant::now();
    scene.fleet.satellite("eu/1").unwrap().start(link).unwrap();
    assert!(until(PATIENCE, || scene.answers() > before), "it does not check\n{}", scene.fleet.last_words());
    let checks = began.elapsed();
    scene.fleet.until_connected(PATIENCE).unwrap();
    let connected = began.elapsed();
    let satellite = scene.fleet.satellite("eu/1").unwrap();
    let (waited, log) = (most_waiting(satellite.pid().unwrap()).waited, satellite.log());
    assert!(log.contains("an earlier process's spool is delivered from here"), "{log}");
    assert!(
        checks <= WITHIN && connected <= WITHIN,
        "checks after {checks:?}, connected after {connected:?}, {waited:?} of it waiting for a processor"
    );
    figure(
        18,
        &format!(
            "D3: the program started on such a spool of {mib} MiB checks after {:.1} s and is connected after {:.1} s, {:.1} s of \
             it waiting for a processor",
            checks.as_secs_f64(),
            connected.as_secs_f64(),
            waited.as_secs_f64()
        ),
    );
    // Delivering it all is not what is measured here.
    scene.fleet.satellite("eu/1").unwrap().kill().unwrap();
    scene.fleet.master.kill().unwrap();
}
