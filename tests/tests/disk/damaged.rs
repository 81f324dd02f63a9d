//! Spools damaged at rest, given to the real brain and the real disk's hands: nobody panics, every record that is intact is delivered, and
//! everything else is named once, from the first result to the last that was made. Where nothing is left that could tell how many
//! there were, the gap at the end says that. `PERIGEE_SPOOLS` says how many, `PERIGEE_SEED` which.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use satellite::command::{Beginning, Command, Identity, Limits, SpooledBatch};
use satellite::outbox::Outbox;
use satellite::spool::{Answer, Order, Spool};
use shared::check::{Exit, State};
use shared::delivery::{BatchBuilder, BatchHeader, BatchItem, decode_header, decode_items, reason};
use shared::frame::Lane;
use shared::message::RunPosition;
use shared::name::{CheckId, Generation, Grant, InstanceId, RunCounter, RunId, Sequence, Timeline};
use shared::result::CheckResult;
use shared::state::CheckState;
use shared::time::{Monotonic, Timestamp};
use tests::figure::figure;

pub(crate) fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

pub(crate) fn identity() -> Identity {
    Identity {
        installation: "acme".parse().unwrap(),
        slot: shared::name::Slot { region: "eu".parse().unwrap(), number: "1".parse().unwrap() },
        instance: InstanceId(rand::random()),
        software: "1".to_owned(),
    }
}

pub(crate) fn result(sequence: u64, output: &str) -> CheckResult {
    CheckResult {
        check: CheckId(u32::try_from(sequence % 50 + 1).unwrap()),
        grant: Grant(5),
        scheduled: Timestamp::from_millis(1),
        started: Timestamp::from_millis(i64::try_from(sequence).unwrap()),
        duration_us: 0,
        exit: Some(Exit::Ran(0)),
        passive: false,
        output: output.to_owned(),
        long_output: String::new(),
        perfdata: String::new(),
        metrics: Vec::new(),
        authenticated: None,
        after: CheckState { state: State::Ok, ..CheckState::pending(3) },
        command: None,
        offset_ms: None,
    }
}

/// A batch of results that share a text, each a part of it.
fn batch((run, counter): (RunId, RunCounter), first: u64, results: u64, text: &str) -> SpooledBatch {
    let part = text.len() / usize::try_from(results).unwrap();
    let mut builder = BatchBuilder::default();
    for n in 0..results {
        let begin = usize::try_from(n).unwrap() * part;
        builder.push(&result(first + n, &text[begin..begin + part]));
    }
    let (first, last) = (Sequence(first), Sequence(first + results - 1));
    let header = BatchHeader { timeline: Timeline(7), generation: Generation(1), run, counter, first, last };
    SpooledBatch { first, last, bytes: Bytes::from(builder.finish(&header)) }
}

fn open(data: &Path, limits: &Limits) -> (Spool, Beginning) {
    Spool::open(data, &identity(), limits).unwrap()
}

/// What a run was made of: (first, last, bytes).
type Made = BTreeMap<RunId, Vec<SpooledBatch>>;

/// Two processes' spools, one run each: `batches` of about `bytes`.
fn make(data: &Path, limits: &Limits, batches: u64, results: u64, bytes: usize, draw: &mut StdRng) -> Made {
    let mut made = Made::new();
    for _ in 0..2 {
        let (mut spool, beginning) = open(data, limits);
        let run = (beginning.open.run, beginning.open.counter);
        let mut next = 1;
        for _ in 0..batches {
            let output: String = (0..bytes).map(|_| char::from(b'0' + draw.random_range(0..64_u8))).collect();
            let batch = batch(run, next, results, &output);
            next += results;
            let order = Command::Append { run: run.0, batches: vec![batch.clone()] };
            assert!(matches!(spool.execute(Order::Do(order)), Some(Answer::Appended { .. })));
            made.entry(run.0).or_default().push(batch);
        }
    }
    made
}

/// What came of each run: results, and gaps as (first, last, reason).
type Delivered = BTreeMap<RunId, (BTreeSet<u64>, Vec<(u64, u64, String)>)>;

/// Everything that a brain sends of a spool to a master that knows nothing: (results, gaps) of each run.
fn delivered(spool: &mut Spool, beginning: &Beginning) -> Delivered {
    let mut delivered: Delivered = BTreeMap::new();
    let mut outbox = Outbox::new(&beginning.open, &beginning.earlier);
    let now = Monotonic(1);
    outbox.handle_welcome(now, &[]);
    while let Some(command) = outbox.poll_command() {
        if let Command::Send { lane: Lane::Backlog, payload } = &command {
            let (header, body) = decode_header(payload).unwrap();
            let (results, gaps) = delivered.entry(header.run).or_default();
            for item in decode_items(&header, body).unwrap() {
                match item {
                    BatchItem::Gap(gap) => gaps.push((gap.first.0, gap.last.0, gap.reason)),
                    BatchItem::Result(sequence, _) | BatchItem::Unreadable(sequence) => {
                        assert!(results.insert(sequence.0), "{} {sequence} twice", header.run);
                    }
                }
            }
            outbox.handle_ack(now, RunPosition { run: header.run, position: header.last });
            continue;
        }
        match spool.execute(Order::Do(command)) {
            Some(Answer::Read { read, found }) => outbox.handle_read(now, read, &found),
            Some(Answer::ReadFailed { read }) => panic!("{read:?} failed"),
            _ => {}
        }
    }
    delivered
}

/// What must be told of a run.
struct Due {
    /// Results that it was made of.
    made: u64,
    /// What is left shows where the run ended, or that this cannot be known: nothing at its end may be missing without a name.
    end: bool,
    /// Its files are where they were: what is missing was damaged there, and nothing else is a reason.
    in_place: bool,
}

/// Every sequence from the first to the last one is there once, as a result or in a gap; gaps that touch have different names. Whether
/// the last gap is one whose end nobody knows.
fn covered(results: &BTreeSet<u64>, gaps: &[(u64, u64, String)], due: &Due, what: &str) -> bool {
    let mut parts: Vec<(u64, u64)> = results.iter().map(|sequence| (*sequence, *sequence)).collect();
    parts.extend(gaps.iter().map(|(first, last, _)| (*first, *last)));
    parts.sort_unstable();
    let mut next = 1;
    for (first, last) in parts {
        assert_eq!(first, next, "{what}: {gaps:?}");
        next = last + 1;
    }
    let last = next - 1;
    assert!(last <= due.made, "{what}: {last} of {}: {gaps:?}", due.made);
    let ordered: BTreeMap<u64, &(u64, u64, String)> = gaps.iter().map(|gap| (gap.0, gap)).collect();
    for (one, two) in ordered.values().zip(ordered.values().skip(1)) {
        assert!(one.1 + 1 < two.0 || one.2 != two.2, "{what}: two gaps for one stretch: {gaps:?}");
    }
    let open: Vec<u64> = gaps.iter().filter(|gap| gap.2 == reason::SPOOL_END).map(|gap| gap.1).collect();
    assert!(open.is_empty() || open == [last], "{what}: an end that is none: {gaps:?}");
    assert!(!due.end || last == due.made || !open.is_empty(), "{what}: nothing tells what was behind {last}: {gaps:?}");
    let damaged = |gap: &(u64, u64, String)| [reason::SPOOL_DAMAGED, reason::SPOOL_END].contains(&gap.2.as_str());
    assert!(!due.in_place || gaps.iter().all(damaged), "{what}: damage under another name: {gaps:?}");
    !open.is_empty()
}

type Image = BTreeMap<PathBuf, Vec<u8>>;

fn image(data: &Path) -> Image {
    let mut image = Image::new();
    let mut open = vec![data.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                open.push(entry);
            } else {
                image.insert(entry.strip_prefix(data).unwrap().to_owned(), fs::read(&entry).unwrap());
            }
        }
    }
    image
}

fn restore(data: &Path, image: &Image) {
    let _ = fs::remove_dir_all(data);
    for (path, bytes) in image {
        let path = data.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

pub(crate) fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "seg")
}

/// Hurts one file, or swaps, doubles or adds one; those that are not what they were called go into `moved`.
fn wound(image: &mut Image, moved: &mut BTreeSet<PathBuf>, draw: &mut StdRng) {
    let segments: Vec<PathBuf> = image.keys().filter(|path| is_segment(path)).cloned().collect();
    let all: Vec<PathBuf> = image.keys().cloned().collect();
    let any = &segments[draw.random_range(0..segments.len())];
    let other = &segments[draw.random_range(0..segments.len())];
    match draw.random_range(0..9) {
        0 | 1 => {
            let bytes = image.get_mut(any).unwrap();
            if let Some(at) = bytes.len().checked_sub(1).map(|last| draw.random_range(0..=last)) {
                bytes[at] ^= 1 << draw.random_range(0..8);
            }
        }
        2 => {
            let bytes = image.get_mut(any).unwrap();
            bytes.truncate(draw.random_range(0..=bytes.len()));
        }
        3 => {
            let bytes = image.get_mut(any).unwrap();
            let (begin, end) = (draw.random_range(0..=bytes.len()), draw.random_range(0..=bytes.len()));
            bytes[begin.min(end)..begin.max(end)].fill(0);
        }
        4 => {
            // Each has the other's name, in its own directory or in another run's.
            let (one, two) = (image[any].clone(), image[other].clone());
            if any != other {
                moved.extend([any.clone(), other.clone()]);
            }
            image.insert(any.clone(), two);
            image.insert(other.clone(), one);
        }
        5 => {
            let copy = any.parent().unwrap().join(other.file_name().unwrap());
            let bytes = image[other].clone();
            image.entry(copy).or_insert(bytes);
        }
        6 => {
            // Other endian: every word turned round.
            for word in image.get_mut(any).unwrap().chunks_mut(8) {
                word.reverse();
            }
        }
        7 => {
            let bytes: Vec<u8> = (0..draw.random_range(0..300)).map(|_| draw.random()).collect();
            let name = ["notes.txt", "00000000000000000001-0000000100000000.seg", "lost", "states", "core"];
            image.insert(any.parent().unwrap().join(name[draw.random_range(0..name.len())]), bytes);
        }
        _ => {
            let path = &all[draw.random_range(0..all.len())];
            let bytes = image.get_mut(path).unwrap();
            if !path.ends_with("owner") && !bytes.is_empty() {
                let at = draw.random_range(0..bytes.len());
                bytes[at] = bytes[at].wrapping_add(1);
            }
        }
    }
}

/// Batches whose records stand where they were written, in the file that they were written to, unchanged.
fn intact(before: &Image, after: &Image, batches: &[SpooledBatch]) -> Vec<SpooledBatch> {
    let stands = |batch: &&SpooledBatch| {
        let place = before.iter().filter(|(path, _)| is_segment(path)).find_map(|(path, bytes)| {
            let at = bytes.windows(batch.bytes.len()).position(|window| window == batch.bytes.as_ref())?;
            Some((path, at - 40, at + batch.bytes.len()))
        });
        let Some((path, begin, end)) = place else { return false };
        after.get(path).is_some_and(|now| {
            now.get(begin..end) == before[path].get(begin..end) && now.get(..64) == before[path].get(..64)
        })
    };
    batches.iter().filter(stands).cloned().collect()
}

/// The segments of a run as they were, oldest first.
fn segments_of(before: &Image, run: RunId) -> Vec<&PathBuf> {
    let name = run.to_string();
    before.keys().filter(|path| is_segment(path) && path.to_string_lossy().contains(&name)).collect()
}

/// What must be told of a run after its files were hurt. Its end is lost without a trace only where its newest segment was taken
/// elsewhere, or cut exactly behind its header or a record.
fn due(before: &Image, after: &Image, moved: &BTreeSet<PathBuf>, run: RunId, batches: &[SpooledBatch]) -> Due {
    let segments = segments_of(before, run);
    let in_place = !segments.iter().any(|path| moved.contains(*path));
    let newest = *segments.last().unwrap();
    let (was, is) = (&before[newest], &after[newest]);
    let end_of = |batch: &SpooledBatch| {
        let at = was.windows(batch.bytes.len()).position(|window| window == batch.bytes.as_ref())?;
        Some(at + batch.bytes.len())
    };
    let cut_between =
        is.len() < was.len() && (is.len() == 64 || batches.iter().filter_map(end_of).any(|end| end == is.len()));
    Due { made: batches.last().unwrap().last.0, end: in_place && !cut_between, in_place }
}

#[test]
fn damaged_spools_deliver_what_is_intact_and_name_the_rest() {
    let spools = number("PERIGEE_SPOOLS", 400);
    let seed = number("PERIGEE_SEED", rand::random_range(1..1_000_000_000));
    eprintln!("{spools} spools, PERIGEE_SEED={seed}");
    let mut draw = StdRng::seed_from_u64(seed);
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let limits = Limits { bytes: 8 * 2048, ..Limits::DEFAULT };
    let data = directory.path().join("data");
    let made = make(&data, &limits, 14, 3, 120, &mut draw);
    let before = image(&data);
    let largest = before.iter().filter(|(path, _)| is_segment(path)).map(|(_, bytes)| bytes.len()).max().unwrap();
    let one = before.iter().find(|(path, bytes)| is_segment(path) && bytes.len() == largest).unwrap().0.clone();
    let (mut gaps_named, mut lost, mut ends, mut open_ends) = (0, 0, 0, 0);
    for number in 0..spools {
        let (mut after, mut moved) = (before.clone(), BTreeSet::new());
        if number < largest as u64 && spools > largest as u64 {
            // First every byte at which one file can be cut.
            after.get_mut(&one).unwrap().truncate(usize::try_from(number).unwrap());
        } else {
            for _ in 0..draw.random_range(1..=3) {
                wound(&mut after, &mut moved, &mut draw);
            }
        }
        restore(&data, &after);
        let what = format!("spool {number}, seed {seed}");
        let (mut spool, beginning) = open(&data, &limits);
        let delivered = delivered(&mut spool, &beginning);
        drop(spool);
        for (run, batches) in &made {
            let (results, gaps) = delivered.get(run).cloned().unwrap_or_default();
            let due = due(&before, &after, &moved, *run, batches);
            ends += usize::from(due.end);
            open_ends += usize::from(covered(&results, &gaps, &due, &format!("{what}, run {run}")));
            for batch in intact(&before, &after, batches) {
                let whole = (batch.first.0..=batch.last.0).all(|sequence| results.contains(&sequence));
                assert!(whole, "{what}: {run} {}..={} is intact and not delivered: {gaps:?}", batch.first, batch.last);
            }
            gaps_named += gaps.len();
            lost += batches.len() * 3 - results.len();
        }
    }
    assert!(gaps_named > 0 && open_ends > 0, "{gaps_named} gaps, {open_ends} of them with an open end");
    figure(
        18,
        &format!(
            "D3: {spools} damaged spools, seed {seed}: 0 panics, every intact record delivered, {lost} results lost in {gaps_named} gaps; \
             results and gaps make up each run from its first result, to the last made in the {ends} runs whose end left a trace, {open_ends} \
             times by a gap that says its end is not known"
        ),
    );
}
