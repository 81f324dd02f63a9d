//! The satellite's spool: every call with which it touches its disk is refused. No crash, no loss, and no file is written again that
//! failed once. What it gives up when it is full is in `given_up.rs`: results are missing then, by name.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use tests::figure::figure;
use tests::violation;
use tests::wait::until;

use super::Stage::{Ending, Entering, Running, Starting};
use super::{
    AGAIN, ANSWERS, OFTEN, Place, REACHED_WITHIN, Site, Stir, Tap, cases, configure_anew, end_of, ready, score, site,
    trusted_again, until_written,
};
use crate::scene::{PATIENCE, Scene};

/// Segments of 512 KiB.
const SPOOL: &str = "PERIGEE_SPOOL_BYTES=4MiB";
/// So often the configuration is changed until a site is reached.
const CHANGES: usize = 6;

pub(super) fn sites() -> Vec<Site> {
    use Place::{Anywhere, Beside, Data, Log, LogAndSegment, Named, Own, Process, Segment};
    let running = |call, place| site(call, place).stage(Running);
    let segment = |call| running(call, Anywhere).of("spool/*/*/*.seg").later(&OFTEN);
    let again = |call, place| running(call, place).later(&AGAIN);
    let entering = |call, place| site(call, place).stage(Entering);
    let configured = |call, place| running(call, place).stir(Stir::Configuration).later(&AGAIN);
    let founding = |call, place| site(call, place).stir(Stir::NewVolume);
    let first = |call| site(call, Named("assignment/previous.new")).stir(Stir::NoAssignment);
    vec![
        // A volume on which nothing was before.
        founding("statx", Named("spool")),
        founding("statx", Data),
        founding("mkdir", Named("spool")),
        founding("openat", Data),
        founding("fsync", Data),
        founding("mkdir", Named("assignment")),
        founding("openat", Data).when("2"),
        founding("fsync", Data).when("2"),
        founding("openat", Named("spool/counter")),
        founding("openat", Named("spool/lock")),
        founding("openat", Named("assignment/current")),
        founding("openat", Named("assignment/previous")),
        // The process's directory, its owner's name, and its run.
        entering("statx", Own("")),
        entering("mkdir", Own("")),
        entering("openat", Own("lock")),
        entering("flock", Own("lock")),
        entering("openat", Own("owner")),
        entering("write", Own("owner")),
        entering("openat", Own("owner")).when("2"),
        entering("fsync", Own("owner")),
        entering("openat", Own("")),
        entering("fsync", Own("")),
        entering("mkdir", Anywhere).when("2").of("spool/*/*"),
        // The run's segments: their headers, records, and the one that follows one that failed.
        running("pwrite64", Anywhere).when("1..2").of("spool/*/*/*.seg").times(2),
        running("fdatasync", Anywhere).when("1..2").of("spool/*/*/*.seg").times(2),
        segment("pwrite64"),
        segment("fdatasync"),
        running("openat", Anywhere).after("pwrite64", "1").when("1+").of("spool/*/*/*.seg"),
        running("openat", LogAndSegment).after("pwrite64", "1").when("1+"),
        running("fsync", LogAndSegment).after("pwrite64", "1").when("1+"),
        running("unlink", Anywhere).after("pwrite64", "1").when("1+").of("spool/*/*/*.seg"),
        running("statx", Segment).after("pwrite64", "1"),
        // The run counter, and the volume's own lock and list.
        site("openat", Named("spool/counter.new")),
        site("write", Named("spool/counter.new")),
        site("fsync", Named("spool/counter.new")),
        site("rename", Named("spool/counter.new")),
        site("openat", Named("spool/counter")),
        site("read", Named("spool/counter")),
        site("openat", Named("spool/lock")).later(&AGAIN),
        site("flock", Named("spool/lock")).later(&AGAIN),
        site("statx", Named("spool")),
        site("openat", Named("spool")).later(&AGAIN),
        site("fsync", Named("spool")).later(&["2"]),
        site("newfstatat", Named("spool")).later(&["2"]),
        site("getdents64", Named("spool")).later(&AGAIN),
        again("openat", Named("spool/lock")),
        again("flock", Named("spool/lock")),
        again("openat", Named("spool")),
        again("newfstatat", Named("spool")),
        again("getdents64", Named("spool")),
        segment("statfs").of("spool"),
        // What an earlier process left.
        site("statx", Process("")),
        site("openat", Process("")),
        site("newfstatat", Process("")),
        site("getdents64", Process("")),
        site("openat", Process("lock")),
        site("flock", Process("lock")),
        site("openat", Process("owner")),
        site("statx", Process("owner")),
        site("read", Process("owner")),
        site("unlink", Process("status.json")),
        site("openat", Process("states")).stir(Stir::Ended),
        site("read", Process("states")).stir(Stir::Ended),
        site("statx", Log),
        site("openat", Log),
        site("newfstatat", Log),
        site("getdents64", Log),
        // Of what stands in it, each is looked at.
        site("statx", Log).when("2").of("spool/*/*/+"),
        site("openat", Beside("lock")),
        site("flock", Beside("lock")),
        site("openat", Beside("lost")),
        // The newest segment is read, confirmed, and read again by whoever delivers it.
        site("openat", Segment),
        site("pread64", Segment),
        site("openat", Segment).when("2"),
        site("pread64", Segment).when("2"),
        site("openat", Segment).when("3"),
        site("pwrite64", Segment),
        site("fdatasync", Segment),
        site("fsync", Log),
        // What was delivered goes: what is in the directory of a run, it, and the process's.
        site("unlinkat", Log).of("spool/*/*/+"),
        site("unlinkat", Log).when("2").of("spool/*/*/+"),
        site("unlinkat", Process("")).of("spool/*/+"),
        // Behind its lock, its owner and its states.
        site("unlinkat", Process("")).when("4").of("spool/*").stir(Stir::Ended),
        // States, and what it tells of itself.
        again("openat", Process("states.new")),
        again("write", Process("states.new")),
        again("fsync", Process("states.new")),
        again("rename", Process("states.new")),
        again("openat", Process("")),
        again("fsync", Process("")),
        running("openat", Process("status.new")).later(&OFTEN),
        running("write", Process("status.new")).later(&OFTEN),
        running("rename", Process("status.new")).later(&OFTEN),
        // The assignment: read, replaced, and the first of all.
        site("mkdir", Named("assignment")),
        site("openat", Data),
        site("fsync", Data),
        site("openat", Named("assignment/current")),
        site("read", Named("assignment/current")),
        configured("openat", Named("assignment/current")),
        configured("read", Named("assignment/current")),
        configured("unlink", Named("assignment/previous.new")),
        configured("linkat", Named("assignment/previous.new")),
        configured("rename", Named("assignment/previous.new")),
        configured("openat", Named("assignment/current.new")),
        configured("write", Named("assignment/current.new")),
        configured("fsync", Named("assignment/current.new")),
        configured("rename", Named("assignment/current.new")),
        configured("openat", Named("assignment")),
        configured("fsync", Named("assignment")),
        configured("statx", Named("assignment/previous")),
        first("openat"),
        first("write"),
        first("fsync"),
        first("rename"),
    ]
}

/// Where the slot's volumes are: the one it has all the time, and those that it was founded on once.
struct Volumes {
    home: PathBuf,
    others: Vec<PathBuf>,
}

/// Ends the process and starts the next one.
fn restart(scene: &mut Scene, volumes: &mut Volumes, stir: Stir, strace: impl FnOnce(&Path) -> Vec<String>) {
    let link = scene.fleet.master.link;
    let satellite = scene.fleet.satellites.get_mut("eu/1").unwrap();
    // What it has not delivered stays on the volume that it leaves.
    if matches!(stir, Stir::Ended | Stir::NewVolume) || satellite.data != volumes.home {
        satellite.terminate().unwrap();
    } else {
        scene.audit.kill(satellite).unwrap();
    }
    satellite.data.clone_from(&volumes.home);
    match stir {
        Stir::NewVolume => {
            let next = volumes.home.with_file_name(format!("volume-{}", volumes.others.len()));
            fs::create_dir(&next).unwrap();
            satellite.data.clone_from(&next);
            volumes.others.push(next);
        }
        Stir::NoAssignment => fs::remove_dir_all(satellite.data.join("assignment")).unwrap(),
        _ => {}
    }
    satellite.through = ["env", SPOOL].map(str::to_owned).to_vec();
    satellite.through.extend(strace(&satellite.data));
    satellite.start(link).unwrap();
}

/// The name of the process that says last that it starts.
fn instance(log: &str) -> Option<String> {
    let line = log.lines().rfind(|line| line.contains("satellite starts"))?;
    line.split_once("instance=")?.1.split_whitespace().next().map(str::to_owned)
}

/// Starts the next process and refuses from where it makes its directory on: it has drawn the name and said it, and waits for the lock
/// of the volume, which is held meanwhile. Whether the site was reached.
fn enter(scene: &mut Scene, volumes: &mut Volumes, site: &Site, error: &str, trace: &Path) -> bool {
    let lock = File::options().write(true).open(volumes.home.join("spool/lock")).unwrap();
    let said = scene.fleet.satellite("eu/1").unwrap().log().len();
    restart(scene, volumes, Stir::Nothing, |_| {
        // Its process is gone, and with it who held the lock.
        lock.lock().unwrap();
        vec![]
    });
    let satellite = scene.fleet.satellite("eu/1").unwrap();
    let data = satellite.data.clone();
    let mut named = None;
    let starts = until(PATIENCE, || {
        named = instance(satellite.log().get(said..).unwrap_or_default());
        named.is_some()
    });
    assert!(starts, "{site:?}: it does not start\n{}", satellite.log());
    let own = data.join("spool").join(named.unwrap());
    let paths = match site.place {
        Place::Own("") => vec![own],
        Place::Own(name) => vec![own.join(name)],
        _ => site.paths(&data),
    };
    let tap = Tap::on(site, error, satellite.pid().unwrap(), trace, &paths);
    drop(lock);
    let hit = until(REACHED_WITHIN, || site.was_hit(trace, &data));
    tap.off();
    hit
}

/// Refuses a process that runs. Whether the site was reached.
fn tap(scene: &mut Scene, site: &Site, error: &str, trace: &Path) -> bool {
    let satellite = scene.fleet.satellite("eu/1").unwrap();
    let (data, pid) = (satellite.data.clone(), satellite.pid().unwrap());
    until_written(&data);
    let tap = Tap::on(site, error, pid, trace, &site.paths(&data));
    let hit = if site.stir == Stir::Configuration {
        (0..CHANGES).any(|_| {
            configure_anew(scene);
            scene.fleet.master.signal("HUP").unwrap();
            until(REACHED_WITHIN / 6, || site.was_hit(trace, &data))
        })
    } else {
        until(REACHED_WITHIN, || site.was_hit(trace, &data))
    };
    tap.off();
    hit
}

#[test]
fn a_spool_whose_disk_refuses_any_call_loses_nothing() {
    let Some((directory, mut scene, mut draw)) = ready("spool") else { return };
    let sites = sites();
    let cases = cases(&sites, &mut draw);
    let mut score = score(&sites, &cases);
    let trace = directory.path().join("satellite.trace");
    // What was delivered goes at once, so that its removal is reached at every start.
    scene.fleet.satellite("eu/1").unwrap().more = ["--spool-grace", "0s"].map(str::to_owned).to_vec();
    let mut volumes = Volumes { home: scene.fleet.satellite("eu/1").unwrap().data.clone(), others: Vec::new() };
    let mut tapped = true;
    for (site, error) in &cases {
        let _ = fs::remove_file(&trace);
        let hit = match site.stage {
            Starting => {
                restart(&mut scene, &mut volumes, site.stir, |data| site.through(error, &trace, data));
                tapped = true;
                scene.until_answers(ANSWERS);
                let data = scene.fleet.satellite("eu/1").unwrap().data.clone();
                until(REACHED_WITHIN, || site.was_hit(&trace, &data))
            }
            Entering => {
                tapped = false;
                let hit = enter(&mut scene, &mut volumes, site, error, &trace);
                scene.until_answers(ANSWERS);
                hit
            }
            Running => {
                if std::mem::take(&mut tapped) {
                    restart(&mut scene, &mut volumes, Stir::Nothing, |_| vec![]);
                    scene.fleet.until_connected(PATIENCE).unwrap();
                    scene.until_answers(2 * ANSWERS);
                }
                let hit = tap(&mut scene, site, error, &trace);
                scene.until_answers(ANSWERS);
                hit
            }
            Ending => panic!("{site:?}: a spool has no site of its own at the end of its process"),
        };
        let satellite = scene.fleet.satellite("eu/1").unwrap();
        assert!(satellite.runs(), "{site:?} {error}: it has ended\n{}", satellite.log());
        if !hit {
            eprintln!("not reached: {site:?} {error}\n{}", end_of(&trace));
            score.missed.push(format!("{site:?} {error}"));
        }
        assert_eq!(trusted_again(&trace), [""; 0], "{site:?} {error}");
    }
    // What was founded is gone on from, and delivered.
    for volume in std::mem::take(&mut volumes.others) {
        let link = scene.fleet.master.link;
        let satellite = scene.fleet.satellite("eu/1").unwrap();
        satellite.terminate().unwrap();
        satellite.data = volume;
        satellite.through.clear();
        satellite.start(link).unwrap();
        scene.fleet.until_connected(PATIENCE).unwrap();
        scene.until_answers(ANSWERS);
    }
    restart(&mut scene, &mut volumes, Stir::Ended, |_| vec![]);
    scene.until_answers(ANSWERS);
    let (verdict, _) = scene.audit.verdict(&scene.fleet, PATIENCE).unwrap();
    violation::unless(verdict.is_clean(), || format!("{verdict:#?}"));
    assert!(score.missed.is_empty(), "{} of {} refusals happened: {:#?}", score.hit(), score.all, score.missed);
    figure(
        18,
        &format!(
            "D2: {} of {} refusals of a spool's disk, at {} call sites from the first start of a volume on, EIO and ENOSPC: {} answers, 0 \
             lost, 0 twice, no end of the program, no file trusted after its failure",
            score.hit(),
            score.all,
            score.sites,
            verdict.answers
        ),
    );
    scene.fleet.terminate().unwrap();
}
