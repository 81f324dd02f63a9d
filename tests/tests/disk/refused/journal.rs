//! The master's journal, its checkpoints and what a start reads: every call is refused once. What refuses a start may end it: it says why,
//! and whoever watches it starts it again. No loss, and no file is written again that failed once.
//!
//! Segments are of 64 MiB, more than a test fills. A segment that failed is followed by the next one at once, so that is how the next one
//! is reached; and the oldest ones are made large by a hole behind their last record, so that they must go.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use rand::RngExt as _;
use tests::figure::figure;
use tests::wait::until;

use super::Stage::{Ending, Running, Starting};
use super::{
    ANSWERS, Place, REACHED_WITHIN, STRACE, Site, Stir, Tap, cases, newest, ready, score, site, trusted_again,
};
use crate::damaged::is_segment;
use crate::scene::{PATIENCE, Scene};

/// The least that may be kept: what is beyond goes when nobody needs it.
const JOURNAL: &str = "PERIGEE_JOURNAL_BYTES=128MiB";
/// Two of this size are too much for it.
const LARGE: u64 = 160 << 20;
const LATER: [&str; 8] = ["3", "4", "5", "6", "7", "8", "9", "10"];

/// What is not refused here, and why.
const BEYOND: [(&str, &str); 4] = [
    ("make the directories and the mark of a founded store", "at the first start of an installation alone"),
    ("open, write, sync, rename of a revision", "it is called by its digest, which nobody can tell strace before"),
    ("read checkpoints and the journal for revisions that may go, and remove them", "beyond 64 revisions alone"),
    ("open, write, sync, rename of a cursor", "of writers of metrics, of which this scene has none"),
];

fn sites(later: &'static str) -> Vec<Site> {
    use Place::{Anywhere, Log, LogAndSegment, Named, Newest, Segment};
    let writer = |call, place| site(call, place).stage(Running).thread("journal");
    let keeper = |call| site(call, Anywhere).stage(Ending).thread("checkpoint");
    let trimmed = |call, place| site(call, place).stage(Starting).stir(Stir::Full);
    vec![
        // The newest segment is read, confirmed and gone on with.
        site("openat", Segment),
        site("pread64", Segment),
        site("openat", Segment).when("2"),
        site("pread64", Segment).when("2"),
        site("openat", Segment).when("3"),
        site("openat", Segment).when("2"),
        site("pread64", Segment).when("2"),
        site("openat", Segment).when("3"),
        site("pwrite64", Segment).always(),
        site("fdatasync", Segment).always(),
        site("pwrite64", Segment).when(later).always(),
        site("fdatasync", Segment).when(later).always(),
        site("ftruncate", Segment).stir(Stir::Torn),
        site("openat", Named("journal")),
        site("getdents64", Named("journal")),
        site("openat", Named("journal/lock")),
        site("flock", Named("journal/lock")),
        // Records, and the segment that follows one that failed.
        writer("pwrite64", Anywhere).mark(".seg"),
        writer("fdatasync", Anywhere).mark(".seg"),
        writer("openat", Anywhere).after("pwrite64", "1").when("1+").mark(".seg"),
        writer("pwrite64", Anywhere).when("1..2").mark(".seg").times(2),
        writer("fdatasync", Anywhere).when("1..2").mark(".seg").times(2),
        writer("openat", LogAndSegment).after("pwrite64", "1").when("1+"),
        writer("fsync", LogAndSegment).after("pwrite64", "1").when("1+"),
        // What is left of one that could not be made, and one that holds nothing.
        writer("unlink", Anywhere).after("fdatasync", "1..2").mark(".seg"),
        writer("unlink", Anywhere).after("pwrite64", "1..3+2").mark(".seg"),
        // Checkpoints: read at a start, written at an end.
        site("openat", Named("checkpoint")),
        site("getdents64", Named("checkpoint")),
        site("openat", Newest("checkpoint")),
        site("read", Newest("checkpoint")),
        site("openat", Newest("revisions")),
        site("read", Newest("revisions")),
        site("openat", Named("lock")),
        site("flock", Named("lock")),
        site("openat", Named("cursors")),
        site("getdents64", Named("cursors")),
        keeper("openat").mark(".tmp"),
        keeper("write").mark(".tmp"),
        keeper("fdatasync").mark(".tmp"),
        keeper("fsync").mark(".tmp"),
        keeper("rename"),
        keeper("openat").when("2").mark("/checkpoint\""),
        keeper("fsync").when("2").mark("/checkpoint>"),
        keeper("openat").when("3").mark("/checkpoint\""),
        keeper("getdents64").mark("/checkpoint>"),
        keeper("unlink").mark(".ckpt"),
        keeper("openat").when("4").mark("/revisions\""),
        keeper("getdents64").when("3").mark("/revisions>"),
        keeper("statx").mark("/revisions/"),
        // Trimming.
        trimmed("openat", Log).when("2+"),
        trimmed("fsync", Log),
        trimmed("unlink", Anywhere).when("1+").mark(".seg"),
    ]
}

/// The segments, oldest first.
fn segments(journal: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(journal).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| is_segment(path));
    // By their number in the log, which the name has last.
    paths.sort_by_key(|path| path.to_string_lossy().rsplit('-').next().map(str::to_owned));
    paths
}

/// Makes the disk of a master that does not run such that a site is reached.
fn prepare(scene: &mut Scene, stir: Stir) {
    let journal = scene.fleet.master.data.join("journal");
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
    prepare(scene, stir);
    let master = &mut scene.fleet.master;
    master.through = ["env", JOURNAL].map(str::to_owned).to_vec();
    master.through.extend(strace(&master.data));
    master.start()
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
    let sites = sites(LATER[draw.random_range(0..LATER.len())]);
    let cases = cases(&sites);
    let mut score = score(&sites, &cases);
    let trace = directory.path().join("master.trace");
    let data = scene.fleet.master.data.clone();
    scene.until_answers(ANSWERS);
    settle(&mut scene);
    let mut tapped = false;
    for (site, error) in &cases {
        let _ = fs::remove_file(&trace);
        if site.stage != Starting && std::mem::take(&mut tapped) {
            settle(&mut scene);
        }
        let hit = match site.stage {
            Starting => {
                tapped = true;
                let words = |data: &Path| {
                    // Below the journal for what is named by its newest segment.
                    let below = if matches!(site.place, Place::Segment | Place::Log) {
                        data.join("journal")
                    } else {
                        data.to_owned()
                    };
                    [STRACE, "-f"].map(str::to_owned).into_iter().chain(site.words(error, &trace, &below)).collect()
                };
                if restart(&mut scene, site.stir, words).is_err() {
                    let words = scene.fleet.master.last_words();
                    assert!(
                        site.was_hit(&trace) && words.contains("os error"),
                        "{site:?} {error}: it does not start: {words}"
                    );
                    score.ended += 1;
                    restart(&mut scene, Stir::Nothing, |_| vec![]).unwrap();
                    scene.fleet.until_connected(PATIENCE).unwrap();
                    continue;
                }
                scene.fleet.until_connected(PATIENCE).unwrap();
                scene.until_answers(ANSWERS);
                until(REACHED_WITHIN, || site.was_hit(&trace))
            }
            Running => {
                let tap = Tap::on(site, error, scene.fleet.master.process_id().unwrap(), &trace, &data.join("journal"));
                let hit = until(REACHED_WITHIN, || site.was_hit(&trace));
                tap.off();
                hit
            }
            Ending => {
                let tap = Tap::on(site, error, scene.fleet.master.process_id().unwrap(), &trace, &data);
                scene.fleet.master.terminate().unwrap();
                tap.off();
                scene.fleet.master.start().unwrap();
                site.was_hit(&trace)
            }
        };
        scene.fleet.until_connected(PATIENCE).unwrap();
        scene.until_answers(ANSWERS);
        assert!(scene.fleet.master.runs(), "{site:?} {error}: it has ended\n{}", scene.fleet.master.last_words());
        if !hit {
            eprintln!("not reached: {site:?} {error}");
            score.missed.push(format!("{site:?} {error}"));
        }
        assert_eq!(trusted_again(&trace), [""; 0], "{site:?} {error}");
    }
    restart(&mut scene, Stir::Nothing, |_| vec![]).unwrap();
    scene.fleet.until_connected(PATIENCE).unwrap();
    let (verdict, _) = scene.audit.verdict(&scene.fleet, PATIENCE).unwrap();
    assert!(verdict.is_clean(), "{verdict:#?}");
    assert!(score.missed.is_empty(), "{} of {} refusals happened: {:#?}", score.hit(), score.all, score.missed);
    for (what, why) in BEYOND {
        eprintln!("not refused: {what}: {why}");
    }
    figure(
        18,
        &format!(
            "D2: {} of {} refusals of a journal's disk, at {} call sites of journal, checkpoints and trimming, EIO and ENOSPC ({} more are \
             listed with the reason); {} at a start ended it with the reason: {} answers, 0 lost, 0 twice, no file trusted after its failure",
            score.hit(),
            score.all,
            score.sites,
            BEYOND.len(),
            score.ended,
            verdict.answers
        ),
    );
    scene.fleet.terminate().unwrap();
}
