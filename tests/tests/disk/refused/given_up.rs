//! What a full spool gives up is named before it is deleted, and the disk refuses the name: call by call, while the master is away. As
//! long as it cannot be written nothing is deleted, and in the end as many results are named as are missing.

use std::fs;
use std::process::Command;
use std::time::Duration;

use tests::figure::figure;
use tests::fleet::program;
use tests::violation;
use tests::wait::until;

use super::Stage::Running;
use super::{AGAIN, Place, REACHED_WITHIN, Site, Tap, cases, drawn, end_of, score, site, trusted_again};
use crate::scene::{PATIENCE, Scene, scene};

/// Segments of 512 KiB: one is given up every two seconds.
const SPOOL: &str = "PERIGEE_SPOOL_BYTES=4MiB";
const SERVICES: usize = 60;
const EVERY: Duration = Duration::from_millis(200);
const BYTES: usize = 900;

pub(super) fn sites() -> Vec<Site> {
    use Place::BesideAll;
    let lost = |call| site(call, BesideAll("lost.new")).stage(Running).later(&AGAIN);
    vec![
        lost("openat"),
        lost("write"),
        lost("write").when("2"),
        lost("fsync"),
        lost("rename"),
        // Where the segments are: their names and that of the gaps are made durable there, and then the oldest is deleted.
        site("openat", BesideAll("")).of("spool/*/*").stage(Running).later(&AGAIN),
        site("fsync", BesideAll("")).of("spool/*/*").stage(Running).later(&AGAIN),
        site("unlink", Place::Anywhere).of("spool/*/*/*.seg").stage(Running).later(&AGAIN),
        // The next process reads what was named.
        site("openat", BesideAll("lost")),
        site("read", BesideAll("lost")),
    ]
}

/// Results that the satellite has given up by what it says itself.
pub(super) fn given_up(scene: &mut Scene) -> u64 {
    let data = &scene.fleet.satellite("eu/1").unwrap().data;
    let mut status = Command::new(program("perigee-satellite").unwrap());
    let told = status.args(["status", "--json", "--data"]).arg(data).output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    let told: serde_json::Value = serde_json::from_str(told.lines().next().unwrap_or("{}")).unwrap_or_default();
    told["given_up"].as_u64().unwrap_or(0)
}

/// Ends the process as it is told to and starts the next one.
fn restart(scene: &mut Scene, strace: Vec<String>) {
    let link = scene.fleet.master.link;
    let satellite = scene.fleet.satellite("eu/1").unwrap();
    satellite.terminate().unwrap();
    satellite.through = ["env", SPOOL].map(str::to_owned).into_iter().chain(strace).collect();
    satellite.start(link).unwrap();
}

#[test]
fn a_gap_whose_name_the_disk_refuses_is_named_before_anything_is_deleted() {
    let Some(mut draw) = drawn("given up") else { return };
    let directory = tempfile::tempdir().unwrap();
    let mut scene = scene(&directory.path().canonicalize().unwrap(), SERVICES, EVERY, BYTES);
    scene.fleet.satellite("eu/1").unwrap().through = ["env", SPOOL].map(str::to_owned).to_vec();
    scene.fleet.start().unwrap();
    scene.fleet.until_connected(PATIENCE).unwrap();
    scene.until_answers(200);
    let sites = sites();
    let cases = cases(&sites, &mut draw);
    let mut score = score(&sites, &cases);
    let trace = scene.fleet.directory.join("satellite.trace");
    scene.fleet.master.kill().unwrap();
    assert!(until(PATIENCE, || given_up(&mut scene) > 0), "nothing was given up\n{}", scene.fleet.last_words());
    for (site, error) in &cases {
        let _ = fs::remove_file(&trace);
        let satellite = scene.fleet.satellite("eu/1").unwrap();
        let (data, pid) = (satellite.data.clone(), satellite.pid().unwrap());
        let tap = if site.stage == Running {
            Some(Tap::on(site, error, pid, &trace, &site.paths(&data)))
        } else {
            let strace = site.through(error, &trace, &data);
            restart(&mut scene, strace);
            None
        };
        if !until(REACHED_WITHIN, || site.was_hit(&trace, &data)) {
            eprintln!("not reached: {site:?} {error}\n{}", end_of(&trace));
            score.missed.push(format!("{site:?} {error}"));
        }
        match tap {
            Some(tap) => tap.off(),
            None => {
                assert!(scene.fleet.satellite("eu/1").unwrap().runs(), "{site:?}\n{}", scene.fleet.last_words());
                restart(&mut scene, vec![]);
            }
        }
        assert_eq!(trusted_again(&trace), [""; 0], "{site:?} {error}");
        // It is tried again, and goes on.
        let before = given_up(&mut scene);
        let goes_on = until(PATIENCE, || given_up(&mut scene) > before);
        assert!(goes_on, "{site:?} {error}: a full spool gives nothing up\n{}", scene.fleet.last_words());
        assert!(scene.fleet.satellite("eu/1").unwrap().runs(), "{site:?} {error}\n{}", scene.fleet.last_words());
    }
    scene.fleet.master.start().unwrap();
    scene.fleet.until_connected(PATIENCE).unwrap();
    let (_, account) = scene.settled();
    assert!(account.named > 0);
    violation::unless(account.missing == account.named, || {
        format!("answers are missing, others are named: {account:?}")
    });
    let gaps = scene.fleet.master.api().items("gaps", "").unwrap();
    assert!(gaps.iter().all(|gap| gap["reason"] == "spool-full" && gap["from"].is_string()), "{gaps:?}");
    assert!(score.missed.is_empty(), "{} of {} refusals happened: {:#?}", score.hit(), score.all, score.missed);
    figure(
        18,
        &format!(
            "D2: {} of {} refusals where a full spool names what it gives up, at {} call sites, EIO and ENOSPC: {} results given up and named, \
             none else missing",
            score.hit(),
            score.all,
            score.sites,
            account.named
        ),
    );
    scene.fleet.terminate().unwrap();
}
