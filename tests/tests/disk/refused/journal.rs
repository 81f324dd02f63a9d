//! The master's journal, its checkpoints and what a start reads: every call is refused once. What refuses a start may end it: it says why,
//! and whoever watches it starts it again. No loss, and no file is written again that failed once.
//!
//! Segments are of 64 MiB, more than a test fills. A segment that failed is followed by the next one at once, so that is how the next one
//! is reached; and the oldest ones are made large by a hole behind their last record, so that they must go.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tests::figure::figure;
use tests::violation;
use tests::wait::until;

use super::Stage::{Ending, Entering, Running, Starting};
use super::{
    AGAIN, ANSWERS, OFTEN, Place, REACHED_WITHIN, Site, Stir, Tap, cases, end_of, newest, ready, score, trusted_again,
    until_written,
};
use crate::damaged::is_segment;
use crate::scene::{PATIENCE, Scene};

/// The least that may be kept: what is beyond goes when nobody needs it.
pub(super) const JOURNAL: &str = "PERIGEE_JOURNAL_BYTES=128MiB";
/// Two of this size are too much for it.
const LARGE: u64 = 160 << 20;
/// So many revisions are too many, and older than any that was used. The master looks at names and times alone.
const REVISIONS: u64 = 80;
/// The oldest of them goes first.
const OLDEST: &str = "revisions/0000000000000000000000000000000000000000000000000000000000000000.cbor.zst";

/// A site of the master's.
pub(super) fn site(call: &'static str, place: Place) -> Site {
    Site { log: "journal", ..super::site(call, place) }
}

pub(super) fn sites() -> Vec<Site> {
    use Place::{Anywhere, Data, Log, LogAndSegment, Named, Newest, Segment};
    let writer = |call, place| site(call, place).stage(Running).thread("journal");
    let segment = |call| writer(call, Anywhere).of("journal/*.seg");
    let keeper = |call, kind| site(call, Anywhere).of(kind).stage(Ending).thread("checkpoint");
    let sweeper = |call, place| site(call, place).stage(Ending).stir(Stir::Crowded).thread("checkpoint");
    let trimmed = |call, place| site(call, place).stir(Stir::Full);
    vec![
        // What is there, and whose it is.
        site("statx", Data),
        site("openat", Named("lock")),
        site("flock", Named("lock")),
        site("statx", Named("backup.json")),
        site("statx", Named("restoring")),
        site("statx", Named("founded")),
        site("statx", Named("founded")).when("2"),
        site("statx", Named("journal")),
        site("statx", Named("checkpoint")),
        site("statx", Named("revisions")),
        site("statx", Named("cursors")),
        // The newest segment is read, confirmed and gone on with.
        site("openat", Named("journal")),
        site("newfstatat", Named("journal")),
        site("getdents64", Named("journal")),
        site("statx", Named("journal")).when("2").of("journal/+"),
        site("openat", Named("journal/lock")),
        site("flock", Named("journal/lock")),
        site("openat", Segment),
        site("pread64", Segment),
        site("openat", Segment).when("2"),
        site("pread64", Segment).when("2"),
        site("openat", Segment).when("3"),
        site("pwrite64", Segment).later(&OFTEN),
        site("fdatasync", Segment).later(&OFTEN),
        site("ftruncate", Segment).stir(Stir::Torn),
        site("openat", Named("journal")).when("2"),
        site("fsync", Named("journal")),
        // Records, and the segment that follows one that failed.
        segment("pwrite64").later(&OFTEN),
        segment("fdatasync").later(&OFTEN),
        segment("openat").after("pwrite64", "1").when("1+"),
        segment("pwrite64").when("1..2").times(2),
        segment("fdatasync").when("1..2").times(2),
        writer("openat", LogAndSegment).after("pwrite64", "1").when("1+"),
        writer("fsync", LogAndSegment).after("pwrite64", "1").when("1+"),
        writer("statx", Segment).after("pwrite64", "1"),
        // What is left of one that could not be made, and one that holds nothing.
        segment("unlink").after("fdatasync", "1..2"),
        segment("unlink").after("pwrite64", "1..3+2"),
        // Checkpoints: read at a start, written at an end.
        site("openat", Named("checkpoint")),
        site("newfstatat", Named("checkpoint")),
        site("getdents64", Named("checkpoint")),
        site("openat", Newest("checkpoint")).of("checkpoint/*.ckpt"),
        site("read", Newest("checkpoint")).of("checkpoint/*.ckpt"),
        keeper("openat", "checkpoint/*.ckpt.tmp"),
        keeper("write", "checkpoint/*.ckpt.tmp"),
        keeper("fdatasync", "checkpoint/*.ckpt.tmp"),
        keeper("fsync", "checkpoint/*.ckpt.tmp"),
        keeper("rename", "checkpoint/*.ckpt.tmp"),
        keeper("openat", "checkpoint").when("2"),
        keeper("fsync", "checkpoint").when("2"),
        keeper("openat", "checkpoint").when("3"),
        keeper("newfstatat", "checkpoint"),
        keeper("getdents64", "checkpoint"),
        keeper("unlink", "checkpoint/*.ckpt"),
        // Revisions: the running one, and which may go. What a replay may ask for is read before one does.
        site("openat", Newest("revisions")).of("revisions/*.cbor.zst"),
        site("read", Newest("revisions")).of("revisions/*.cbor.zst"),
        keeper("openat", "revisions").when("4"),
        keeper("newfstatat", "revisions").when("2"),
        keeper("getdents64", "revisions").when("3"),
        keeper("statx", "revisions/*.cbor.zst"),
        sweeper("openat", Newest("checkpoint")).of("checkpoint/*.ckpt"),
        sweeper("read", Newest("checkpoint")).of("checkpoint/*.ckpt"),
        sweeper("openat", Segment),
        sweeper("pread64", Segment),
        sweeper("unlink", Named(OLDEST)).of("revisions/*.cbor.zst"),
        // Trimming looks at the cursors first.
        site("openat", Named("cursors")).later(&AGAIN),
        site("newfstatat", Named("cursors")).later(&AGAIN),
        site("getdents64", Named("cursors")).later(&AGAIN),
        trimmed("openat", Log).when("2+"),
        trimmed("fsync", Log),
        trimmed("unlink", Anywhere).when("1+").of("journal/*.seg"),
    ]
}

/// The segments, oldest first.
pub(super) fn segments(journal: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(journal).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| is_segment(path));
    // By their number in the log, which the name has last.
    paths.sort_by_key(|path| path.to_string_lossy().rsplit('-').next().map(str::to_owned));
    paths
}

/// Puts so many revisions beside the true ones that some must go.
pub(super) fn crowd(data: &Path) {
    for number in 0..REVISIONS {
        let file = File::create(data.join(format!("revisions/{number:064x}.cbor.zst"))).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(number)).unwrap();
    }
}

/// Makes the disk of a master that does not run such that a site is reached.
pub(super) fn prepare(data: &Path, stir: Stir) {
    let journal = data.join("journal");
    match stir {
        Stir::Torn => {
            let segment = newest(&journal, is_segment).unwrap();
            OpenOptions::new().append(true).open(segment).unwrap().write_all(&[7; 100]).unwrap();
        }
        Stir::Full => {
            let segments = segments(&journal);
            assert!(segments.len() > 2, "too few segments: {segments:?}");
            for segment in &segments[..2] {
                OpenOptions::new().write(true).open(segment).unwrap().set_len(LARGE).unwrap();
            }
        }
        _ => {}
    }
}

/// Ends the master and starts it again.
fn restart(scene: &mut Scene, stir: Stir, strace: impl FnOnce(&Path) -> Vec<String>) -> anyhow::Result<()> {
    if stir == Stir::Full {
        scene.fleet.master.terminate()?;
    } else {
        scene.fleet.master.kill()?;
    }
    let master = &mut scene.fleet.master;
    prepare(&master.data, stir);
    master.through = ["env", JOURNAL].map(str::to_owned).to_vec();
    master.through.extend(strace(&master.data));
    master.start()
}

/// Its oldest segments must be able to go: so many there are.
pub(super) fn lengthen(scene: &mut Scene) {
    let journal = scene.fleet.master.data.join("journal");
    // A segment that failed is left, and the next one begun.
    while segments(&journal).len() <= 3 {
        let before = segments(&journal).len();
        let trace = scene.fleet.directory.join("lengthen.trace");
        let paths = [newest(&journal, is_segment).unwrap()];
        let one = site("pwrite64", Place::Segment).stage(Running).thread("journal");
        let tap = Tap::on(&one, "EIO", scene.fleet.master.process_id().unwrap(), &trace, &paths);
        assert!(until(PATIENCE, || segments(&journal).len() > before), "no further segment");
        tap.off();
        scene.fleet.until_connected(PATIENCE).unwrap();
        scene.until_answers(ANSWERS);
    }
}

/// A master that nobody looks at, with so many checkpoints that the next one removes one.
fn settle(scene: &mut Scene) {
    restart(scene, Stir::Nothing, |_| vec![]).unwrap();
    for _ in 0..2 {
        scene.fleet.until_connected(PATIENCE).unwrap();
        scene.until_answers(ANSWERS);
        scene.fleet.master.terminate().unwrap();
        scene.fleet.master.start().unwrap();
    }
    scene.fleet.until_connected(PATIENCE).unwrap();
}

#[test]
fn a_journal_whose_disk_refuses_any_call_loses_nothing() {
    let Some((directory, mut scene, mut draw)) = ready("journal") else { return };
    let sites = sites();
    let cases = cases(&sites, &mut draw);
    let mut score = score(&sites, &cases);
    let trace = directory.path().join("master.trace");
    let data = scene.fleet.master.data.clone();
    scene.until_answers(ANSWERS);
    settle(&mut scene);
    let mut tapped = false;
    for (site, error) in &cases {
        let _ = fs::remove_file(&trace);
        if (site.stage != Starting || site.stir == Stir::Full) && std::mem::take(&mut tapped) {
            settle(&mut scene);
        }
        let hit = match site.stage {
            Starting => {
                tapped = true;
                if site.stir == Stir::Full {
                    lengthen(&mut scene);
                }
                if restart(&mut scene, site.stir, |data| site.through(error, &trace, data)).is_err() {
                    let words = scene.fleet.master.last_words();
                    assert!(
                        site.was_hit(&trace, &data) && words.contains("os error"),
                        "{site:?} {error}: it does not start: {words}"
                    );
                    score.ended += 1;
                    restart(&mut scene, Stir::Nothing, |_| vec![]).unwrap();
                    scene.fleet.until_connected(PATIENCE).unwrap();
                    continue;
                }
                scene.fleet.until_connected(PATIENCE).unwrap();
                scene.until_answers(ANSWERS);
                until(REACHED_WITHIN, || site.was_hit(&trace, &data))
            }
            Running => {
                let pid = scene.fleet.master.process_id().unwrap();
                until_written(&data);
                let tap = Tap::on(site, error, pid, &trace, &site.paths(&data));
                let hit = until(REACHED_WITHIN, || site.was_hit(&trace, &data));
                tap.off();
                hit
            }
            Ending => {
                let paths = site.paths(&data);
                if site.stir == Stir::Crowded {
                    crowd(&data);
                }
                let tap = Tap::on(site, error, scene.fleet.master.process_id().unwrap(), &trace, &paths);
                scene.fleet.master.terminate().unwrap();
                tap.off();
                scene.fleet.master.start().unwrap();
                site.was_hit(&trace, &data)
            }
            Entering => panic!("{site:?}: a master has no directory of its own to take"),
        };
        scene.fleet.until_connected(PATIENCE).unwrap();
        scene.until_answers(ANSWERS);
        assert!(scene.fleet.master.runs(), "{site:?} {error}: it has ended\n{}", scene.fleet.master.last_words());
        if !hit {
            eprintln!("not reached: {site:?} {error}\n{}", end_of(&trace));
            score.missed.push(format!("{site:?} {error}"));
        }
        assert_eq!(trusted_again(&trace), [""; 0], "{site:?} {error}");
    }
    restart(&mut scene, Stir::Nothing, |_| vec![]).unwrap();
    scene.fleet.until_connected(PATIENCE).unwrap();
    let (verdict, _) = scene.audit.verdict(&scene.fleet, PATIENCE).unwrap();
    violation::unless(verdict.is_clean(), || format!("{verdict:#?}"));
    assert!(score.missed.is_empty(), "{} of {} refusals happened: {:#?}", score.hit(), score.all, score.missed);
    figure(
        18,
        &format!(
            "D2: {} of {} refusals of a journal's disk, at {} call sites of journal, checkpoints, revisions and trimming, EIO and ENOSPC; {} at \
             a start ended it with the reason: {} answers, 0 lost, 0 twice, no file trusted after its failure",
            score.hit(),
            score.all,
            score.sites,
            score.ended,
            verdict.answers
        ),
    );
    scene.fleet.terminate().unwrap();
}
