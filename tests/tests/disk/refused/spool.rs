//! The satellite's spool: every call with which it touches its disk is refused once. No crash, no loss, and no file is written again that
//! failed once.

use std::fs;
use std::path::Path;

use rand::RngExt as _;
use tests::figure::figure;
use tests::wait::until;

use super::Stage::{Running, Starting};
use super::{ANSWERS, Place, REACHED_WITHIN, STRACE, Site, Stir, Tap, cases, ready, score, site, trusted_again};
use crate::scene::{PATIENCE, Scene};

/// Segments of 512 KiB.
const SPOOL: &str = "PERIGEE_SPOOL_BYTES=4MiB";
/// A later call of a kind that comes again and again.
const LATER: [&str; 8] = ["3", "4", "5", "6", "7", "8", "9", "10"];

/// What strace cannot be told of, and why.
const BEYOND: [(&str, &str); 4] = [
    ("open, write, sync of `owner`", "once, in a directory whose name is drawn at that start"),
    ("open, write, sync, rename of `lost.new`", "of results that are given up, and none may be: D1 gives up"),
    ("create `spool` and `assignment`, and sync beside them", "at the first start of a volume alone"),
    ("cut a segment", "a spool cuts none: what an earlier process left unfinished is left"),
];

fn sites(later: &'static str) -> Vec<Site> {
    use Place::{Anywhere, Beside, Log, LogAndSegment, Named, Process, Segment};
    let running = |call, place| site(call, place).stage(Running);
    let configured = |call, place| running(call, place).stir(Stir::Configuration);
    vec![
        // The process's directory and its run; the run's first segment, its header, records.
        site("mkdir", Anywhere),
        site("mkdir", Anywhere).when("2"),
        running("pwrite64", Anywhere).when("1..2").mark(".seg").times(2),
        running("fdatasync", Anywhere).when("1..2").mark(".seg").times(2),
        site("pwrite64", Anywhere).when("2").mark(".seg").always(),
        site("fdatasync", Anywhere).when("2").mark(".seg").always(),
        site("pwrite64", Anywhere).when(later).mark(".seg").always(),
        site("fdatasync", Anywhere).when(later).mark(".seg").always(),
        running("openat", Anywhere).after("pwrite64", "1").when("1+").mark(".seg"),
        running("openat", LogAndSegment).after("pwrite64", "1").when("1+"),
        running("fsync", LogAndSegment).after("pwrite64", "1").when("1+"),
        running("unlink", Anywhere).after("pwrite64", "1").when("1+").mark(".seg"),
        // The run counter, and the volume's own lock and list.
        site("openat", Named("spool/counter.new")),
        site("write", Named("spool/counter.new")),
        site("fsync", Named("spool/counter.new")),
        site("rename", Named("spool/counter.new")),
        site("openat", Named("spool/counter")),
        site("read", Named("spool/counter")),
        site("openat", Named("spool/lock")),
        site("flock", Named("spool/lock")),
        site("openat", Named("spool")),
        site("fsync", Named("spool")),
        site("getdents64", Named("spool")),
        running("openat", Named("spool/lock")),
        running("flock", Named("spool/lock")),
        running("getdents64", Named("spool")),
        // What an earlier process left.
        site("openat", Process("")),
        site("getdents64", Process("")),
        site("openat", Process("lock")),
        site("flock", Process("lock")),
        site("openat", Process("owner")),
        site("read", Process("owner")),
        site("unlink", Process("status.json")),
        site("openat", Process("states")).stir(Stir::Ended),
        site("read", Process("states")).stir(Stir::Ended),
        site("openat", Log),
        site("getdents64", Log),
        site("openat", Beside("lock")),
        site("flock", Beside("lock")),
        site("openat", Beside("lost")),
        site("openat", Segment),
        site("pread64", Segment),
        site("openat", Segment).when("2"),
        site("pread64", Segment).when("2"),
        site("openat", Segment).when("3"),
        site("pwrite64", Segment),
        site("fdatasync", Segment),
        site("unlinkat", Log),
        site("unlinkat", Process("")),
        // States, and what it tells of itself.
        running("openat", Process("states.new")),
        running("write", Process("states.new")),
        running("fsync", Process("states.new")),
        running("rename", Process("states.new")),
        running("openat", Process("")),
        running("fsync", Process("")),
        running("openat", Process("status.new")),
        running("write", Process("status.new")),
        running("rename", Process("status.new")),
        // The assignment: read, replaced, and the first of all.
        site("openat", Named("assignment/current")),
        site("read", Named("assignment/current")),
        configured("unlink", Named("assignment/previous.new")),
        configured("linkat", Named("assignment/previous.new")),
        configured("rename", Named("assignment/previous.new")),
        configured("openat", Named("assignment/current.new")),
        configured("write", Named("assignment/current.new")),
        configured("fsync", Named("assignment/current.new")),
        configured("rename", Named("assignment/current.new")),
        configured("openat", Named("assignment")),
        configured("fsync", Named("assignment")),
        site("openat", Named("assignment/previous.new")).stir(Stir::NoAssignment),
        site("write", Named("assignment/previous.new")).stir(Stir::NoAssignment),
        site("fsync", Named("assignment/previous.new")).stir(Stir::NoAssignment),
        site("rename", Named("assignment/previous.new")).stir(Stir::NoAssignment),
    ]
}

/// The same site's configuration with another timeout than before.
fn configure_anew(scene: &Scene) {
    let path = &scene.fleet.master.config;
    let text = fs::read_to_string(path).unwrap();
    let (one, other) = ("timeout: 60s", "timeout: 61s");
    fs::write(path, if text.contains(one) { text.replace(one, other) } else { text.replace(other, one) }).unwrap();
    scene.fleet.master.signal("HUP").unwrap();
}

/// Ends the process and starts the next one.
fn restart(scene: &mut Scene, stir: Stir, strace: impl FnOnce(&Path) -> Vec<String>) {
    let link = scene.fleet.master.link;
    let satellite = scene.fleet.satellites.get_mut("eu/1").unwrap();
    if stir == Stir::Ended {
        satellite.terminate().unwrap();
    } else {
        scene.audit.kill(satellite).unwrap();
    }
    if stir == Stir::NoAssignment {
        fs::remove_dir_all(satellite.data.join("assignment")).unwrap();
    }
    satellite.through = ["env", SPOOL].map(str::to_owned).to_vec();
    satellite.through.extend(strace(&satellite.data));
    satellite.start(link).unwrap();
}

#[test]
fn a_spool_whose_disk_refuses_any_call_loses_nothing() {
    let Some((directory, mut scene, mut draw)) = ready("spool") else { return };
    let sites = sites(LATER[draw.random_range(0..LATER.len())]);
    let cases = cases(&sites);
    let mut score = score(&sites, &cases);
    let trace = directory.path().join("satellite.trace");
    let mut tapped = true;
    for (site, error) in &cases {
        let _ = fs::remove_file(&trace);
        let data = scene.fleet.satellite("eu/1").unwrap().data.clone();
        let hit = if site.stage == Starting {
            restart(&mut scene, site.stir, |data| {
                [STRACE, "-f"].map(str::to_owned).into_iter().chain(site.words(error, &trace, data)).collect()
            });
            tapped = true;
            scene.until_answers(ANSWERS);
            until(REACHED_WITHIN, || site.was_hit(&trace))
        } else {
            if std::mem::take(&mut tapped) {
                restart(&mut scene, Stir::Nothing, |_| vec![]);
                scene.fleet.until_connected(PATIENCE).unwrap();
                scene.until_answers(2 * ANSWERS);
            }
            let pid = scene.fleet.satellite("eu/1").unwrap().pid().unwrap();
            let tap = Tap::on(site, error, pid, &trace, &data);
            if site.stir == Stir::Configuration {
                configure_anew(&scene);
            }
            let hit = until(REACHED_WITHIN, || site.was_hit(&trace));
            tap.off();
            scene.until_answers(ANSWERS);
            hit
        };
        let satellite = scene.fleet.satellite("eu/1").unwrap();
        assert!(satellite.runs(), "{site:?} {error}: it has ended\n{}", satellite.log());
        if !hit {
            eprintln!("not reached: {site:?} {error}");
            score.missed.push(format!("{site:?} {error}"));
        }
        assert_eq!(trusted_again(&trace), [""; 0], "{site:?} {error}");
    }
    restart(&mut scene, Stir::Nothing, |_| vec![]);
    scene.until_answers(ANSWERS);
    let (verdict, _) = scene.audit.verdict(&scene.fleet, PATIENCE).unwrap();
    assert!(verdict.is_clean(), "{verdict:#?}");
    assert!(score.missed.is_empty(), "{} of {} refusals happened: {:#?}", score.hit(), score.all, score.missed);
    for (what, why) in BEYOND {
        eprintln!("cannot be refused: {what}: {why}");
    }
    figure(
        18,
        &format!(
            "D2: {} of {} refusals of a spool's disk, at {} call sites, EIO and ENOSPC ({} more cannot be reached and are listed with \
             the reason): {} answers, 0 lost, 0 twice, no end of the program, no file trusted after its failure",
            score.hit(),
            score.all,
            score.sites,
            BEYOND.len(),
            verdict.answers
        ),
    );
    scene.fleet.terminate().unwrap();
}
