//! What a running master writes anew: revisions, when a configuration is applied, and the cursors of its writers of metrics. Refused call
//! by call: a configuration that could not be kept does not run and is taken the next time, and no point is missing in the end.
//! The surprise: which revision a configuration becomes is known from having run once; damaged on the disk, it is written again.

use std::fs::{self, File};
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use tests::figure::figure;
use tests::samples::{page, samples};
use tests::sink::Sink;
use tests::violation;
use tests::wait::until;

use super::Stage::{Running, Starting};
use super::journal::site;
use super::{
    AGAIN, ANSWERS, Place, REACHED_WITHIN, Site, Stir, Tap, cases, configure_anew, drawn, is_whole, newest, score,
    stage,
};
use crate::scene::{PATIENCE, Scene};

/// A cursor trails so long behind what was sent (`master::writer::TRAIL`), and then is written every second.
const TRAIL: Duration = Duration::from_secs(120);
/// `apply` ends so when the master could not take the configuration in.
const NOT_TAKEN: i32 = 3;

pub(super) fn sites() -> Vec<Site> {
    use Place::{BesideNewest, Named, Newest};
    let revision = |call, place| site(call, place).stage(Running).stir(Stir::Damaged);
    let written = |call| revision(call, BesideNewest("revisions")).of("revisions/*.cbor.zst.tmp");
    let kept =
        |call| site(call, Newest("revisions")).of("revisions/*.cbor.zst").stage(Running).stir(Stir::Configuration);
    let cursor = |call, place| site(call, place).stage(Running).later(&AGAIN);
    let saved = |call| cursor(call, BesideNewest("cursors")).of("cursors/*.tmp");
    let looked = |call| cursor(call, Newest("cursors")).of("cursors/*");
    vec![
        // A revision that is written.
        revision("openat", Newest("revisions")).of("revisions/*.cbor.zst"),
        revision("read", Newest("revisions")).of("revisions/*.cbor.zst"),
        written("openat"),
        written("write"),
        written("fdatasync"),
        written("fsync"),
        written("rename"),
        revision("openat", Named("revisions")),
        revision("fsync", Named("revisions")),
        // One that is there is used once more.
        kept("openat"),
        kept("read"),
        kept("openat").when("2"),
        kept("utimensat"),
        // The place of a writer: saved, and looked at by whoever trims.
        saved("openat"),
        saved("write"),
        saved("fdatasync"),
        saved("fsync"),
        saved("rename"),
        cursor("openat", Named("cursors")),
        cursor("fsync", Named("cursors")),
        looked("openat"),
        looked("read"),
        site("openat", Newest("cursors")).of("cursors/*"),
        site("read", Newest("cursors")).of("cursors/*"),
    ]
}

fn apply(scene: &Scene) -> Output {
    scene.fleet.master.run(&["apply"], true).unwrap()
}

/// The generation that a successful `apply` tells of.
fn generation(applied: &Output) -> u64 {
    let words = String::from_utf8_lossy(&applied.stdout);
    let number = words.strip_prefix("generation ").and_then(|rest| rest.split(' ').next()?.parse().ok());
    number.unwrap_or_else(|| panic!("no generation is told: {applied:?}"))
}

/// Makes the other configuration's revision the newest one, and damages it if `damaged`; the present configuration runs, and its
/// generation is given.
fn make_newest(scene: &Scene, damaged: bool) -> u64 {
    let directory = scene.fleet.master.data.join("revisions");
    configure_anew(scene);
    assert!(apply(scene).status.success());
    let other = newest(&directory, is_whole).unwrap();
    configure_anew(scene);
    let running = generation(&apply(scene));
    let present = newest(&directory, is_whole).unwrap();
    assert_ne!(present, other, "two configurations have one revision");
    if damaged {
        fs::write(&other, "damaged").unwrap();
    }
    let later = fs::metadata(&present).unwrap().modified().unwrap() + Duration::from_secs(1);
    File::options().append(true).open(&other).unwrap().set_modified(later).unwrap();
    assert_eq!(newest(&directory, is_whole), Some(other));
    running
}

/// Applies the other configuration while a call is refused, and again when none is. Whether the site was reached.
fn refuse_apply(scene: &Scene, site: &Site, error: &str, trace: &Path) -> bool {
    let data = &scene.fleet.master.data;
    let before = make_newest(scene, site.stir == Stir::Damaged);
    let tap = Tap::on(site, error, scene.fleet.master.process_id().unwrap(), trace, &site.paths(data));
    configure_anew(scene);
    let refused = apply(scene);
    tap.off();
    let hit = site.was_hit(trace, data);
    // What cannot be read is written once more; what cannot be written is said.
    match refused.status.code() {
        Some(0) => assert_eq!(generation(&refused), before + 1, "{site:?} {error}: {refused:?}"),
        Some(NOT_TAKEN) => {
            let words = String::from_utf8_lossy(&refused.stderr);
            assert!(words.contains("os error"), "{site:?} {error}: {words}");
        }
        _ => panic!("{site:?} {error}: {refused:?}"),
    }
    // What was not kept did not run: it is the next generation, not the one after.
    let again = apply(scene);
    assert!(again.status.success(), "{site:?} {error}: {again:?}");
    assert_eq!(generation(&again), before + 1, "{site:?} {error}: {again:?}");
    hit
}

/// Whether a writer's cursor moves on the disk within the time in which it must.
pub(super) fn moves(data: &Path) -> bool {
    let cursor = || newest(&data.join("cursors"), is_whole).and_then(|cursor| fs::read(cursor).ok());
    let first = cursor();
    until(TRAIL + PATIENCE, || cursor().is_some_and(|now| Some(&now) != first.as_ref()))
}

/// Starts the master once more.
fn restart(scene: &mut Scene, strace: Vec<String>) {
    scene.fleet.master.kill().unwrap();
    scene.fleet.master.through = strace;
    scene.fleet.master.start().unwrap();
    scene.fleet.until_connected(PATIENCE).unwrap();
}

#[test]
fn a_revision_or_a_cursor_that_the_disk_refuses_costs_nothing() {
    let Some(mut draw) = drawn("applied") else { return };
    let sink = Sink::start().unwrap();
    let (_directory, mut scene) = stage(&format!("writers: {{ graphite: {{ address: \"{}\" }} }}\n", sink.address));
    scene.fleet.start().unwrap();
    scene.fleet.until_connected(PATIENCE).unwrap();
    scene.until_answers(ANSWERS);
    let sites = sites();
    let cases = cases(&sites, &mut draw);
    let mut score = score(&sites, &cases);
    let trace = scene.fleet.directory.join("master.trace");
    let data = scene.fleet.master.data.clone();
    let mut tapped = false;
    for (site, error) in &cases {
        let _ = fs::remove_file(&trace);
        if site.stage == Running && std::mem::take(&mut tapped) {
            restart(&mut scene, vec![]);
        }
        let hit = match (site.stage, site.stir) {
            (_, Stir::Damaged | Stir::Configuration) => refuse_apply(&scene, site, error, &trace),
            (Starting, _) => {
                tapped = true;
                restart(&mut scene, site.through(error, &trace, &data));
                until(REACHED_WITHIN, || site.was_hit(&trace, &data))
            }
            _ => {
                assert!(moves(&data), "no cursor is ever saved\n{}", scene.fleet.last_words());
                let pid = scene.fleet.master.process_id().unwrap();
                let tap = Tap::on(site, error, pid, &trace, &site.paths(&data));
                let hit = until(REACHED_WITHIN, || site.was_hit(&trace, &data));
                tap.off();
                hit
            }
        };
        scene.until_answers(ANSWERS);
        assert!(scene.fleet.master.runs(), "{site:?} {error}: it has ended\n{}", scene.fleet.master.last_words());
        if !hit {
            eprintln!("not reached: {site:?} {error}");
            score.missed.push(format!("{site:?} {error}"));
        }
    }
    // A writer that could not read its place at a start stopped there; started again it goes on from where it was.
    restart(&mut scene, vec![]);
    let (verdict, _) = scene.audit.verdict(&scene.fleet, PATIENCE).unwrap();
    violation::unless(verdict.is_clean(), || format!("{verdict:#?}"));
    scene.fleet.satellite("eu/1").unwrap().terminate().unwrap();
    let metrics = |name: &str| samples(&page(&scene.fleet.master.api()).unwrap(), name);
    assert!(until(PATIENCE, || metrics("perigee_writer_lag_rows") == [0.0]), "a writer is not at the head");
    assert_eq!(metrics("perigee_writer_gaps_total"), [0.0], "a writer was overrun");
    assert_eq!(sink.nonsense(), 0);
    assert!(score.missed.is_empty(), "{} of {} refusals happened: {:#?}", score.hit(), score.all, score.missed);
    figure(
        18,
        &format!(
            "D2: {} of {} refusals of revisions and cursors, at {} call sites, EIO and ENOSPC: no configuration ran that was not kept; {} points \
             written, the writer at the head without a gap; {} answers, 0 lost, 0 twice",
            score.hit(),
            score.all,
            score.sites,
            sink.count(),
            verdict.answers
        ),
    );
    scene.fleet.terminate().unwrap();
}
