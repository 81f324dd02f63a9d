//! The first start of an installation: what a master makes in an empty directory is refused, call by call. It ends and says why, or
//! goes on; the next start finds neither half a store nor an empty one in the place of one that was there.

use std::fs;
use std::path::Path;

use tests::figure::figure;
use tests::samples::{page, sample};
use tests::wait::until;

use super::journal::site;
use super::{AGAIN, Place, REACHED_WITHIN, Site, cases, configure_anew, drawn, newest, score, stage};
use crate::scene::{PATIENCE, Scene};

/// `revision`: the file of the first configuration, below the data directory.
pub(super) fn sites(revision: &'static str, beside: &'static str) -> Vec<Site> {
    use Place::{Above, Data, Named};
    let written = |call| site(call, Named(beside)).of("revisions/*.cbor.zst.tmp");
    vec![
        site("statx", Data),
        site("mkdir", Data),
        site("openat", Above),
        site("fsync", Above),
        site("openat", Named("lock")),
        site("flock", Named("lock")),
        site("statx", Named("founded")),
        site("openat", Named("checkpoint")),
        // Each directory is made, and made durable in the one above.
        site("statx", Named("journal")),
        site("mkdir", Named("journal")),
        site("statx", Named("checkpoint")),
        site("mkdir", Named("checkpoint")),
        site("statx", Named("revisions")),
        site("mkdir", Named("revisions")),
        site("statx", Named("cursors")),
        site("mkdir", Named("cursors")),
        site("openat", Data).later(&["2", "3", "4"]),
        site("fsync", Data).later(&["2", "3", "4"]),
        site("openat", Named("journal/lock")),
        site("flock", Named("journal/lock")),
        // The journal's first segment is made durable in its directory.
        site("openat", Named("journal")),
        site("fsync", Named("journal")),
        // The mark that there is a store now.
        site("openat", Named("founded.tmp")),
        site("fsync", Named("founded.tmp")),
        site("rename", Named("founded.tmp")),
        // The revision it begins with.
        site("openat", Named(revision)).of("revisions/*.cbor.zst"),
        written("openat"),
        written("write"),
        written("fdatasync"),
        written("fsync"),
        written("rename"),
        site("openat", Named("revisions")),
        site("fsync", Named("revisions")),
        // Nothing has been trimmed, and still it is looked for.
        site("openat", Named("cursors")).later(&AGAIN),
    ]
}

/// Starts a master on a directory that is not there yet.
fn found(scene: &mut Scene, data: &Path, strace: Vec<String>) -> anyhow::Result<()> {
    let master = &mut scene.fleet.master;
    master.data = data.to_owned();
    master.through = strace;
    master.start()
}

/// How far the journal is durable, once something is.
fn head(scene: &Scene) -> f64 {
    let mut head = 0.0;
    let begun = until(PATIENCE, || {
        let told = page(&scene.fleet.master.api()).ok().and_then(|page| sample(&page, "perigee_journal_index"));
        head = told.unwrap_or(0.0);
        head > 0.0
    });
    assert!(begun, "nothing is in the journal\n{}", scene.fleet.master.last_words());
    head
}

#[test]
fn a_first_start_whose_disk_refuses_any_call_leaves_a_whole_store_or_none() {
    let Some(mut draw) = drawn("founded") else { return };
    let (_directory, mut scene) = stage("");
    let home = scene.fleet.directory.join("first");
    // One that nobody refuses shows what the revision is called.
    found(&mut scene, &home, vec![]).unwrap();
    head(&scene);
    scene.fleet.master.terminate().unwrap();
    let revision = newest(&home.join("revisions"), Path::is_file).unwrap();
    let revision = revision.strip_prefix(&home).unwrap().to_string_lossy().into_owned();
    let beside = format!("{revision}.tmp");
    let sites = sites(revision.leak(), beside.leak());
    let cases = cases(&sites, &mut draw);
    let mut score = score(&sites, &cases);
    let trace = scene.fleet.directory.join("founding.trace");
    for (site, error) in &cases {
        let _ = fs::remove_file(&trace);
        fs::remove_dir_all(&home).unwrap();
        let strace = site.through(error, &trace, &home);
        let mut told = 0.0;
        if found(&mut scene, &home, strace).is_ok() {
            told = head(&scene);
            if !until(REACHED_WITHIN, || site.was_hit(&trace, &home)) {
                eprintln!("not reached: {site:?} {error}");
                score.missed.push(format!("{site:?} {error}"));
            }
            assert!(scene.fleet.master.runs(), "{site:?} {error}\n{}", scene.fleet.master.last_words());
        } else {
            let words = scene.fleet.master.last_words();
            assert!(
                site.was_hit(&trace, &home) && words.contains("os error"),
                "{site:?} {error}: it does not start: {words}"
            );
            score.ended += 1;
        }
        // Whoever watches it starts it again: from what it told of, or from nothing.
        scene.fleet.master.kill().unwrap();
        found(&mut scene, &home, vec![]).unwrap();
        let there = head(&scene);
        assert!(there >= told, "{site:?} {error}: {told} rows were told of, {there} are there");
        // At the next row at the latest there is the mark.
        configure_anew(&scene);
        scene.fleet.master.signal("HUP").unwrap();
        assert!(until(PATIENCE, || home.join("founded").exists()), "{site:?} {error}: nothing marks it as founded");
        scene.fleet.master.terminate().unwrap();
        configure_anew(&scene);
    }
    assert!(score.missed.is_empty(), "{} of {} refusals happened: {:#?}", score.hit(), score.all, score.missed);
    figure(
        18,
        &format!(
            "D2: {} of {} refusals at a master's first start, at {} call sites, EIO and ENOSPC; {} ended it with the reason; every next start \
             found a whole store or none",
            score.hit(),
            score.all,
            score.sites,
            score.ended
        ),
    );
}
