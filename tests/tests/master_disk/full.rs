//! A master whose volume is full: it takes nothing in and says so, gives satellites no more credit than one window of each that it cannot
//! commit and takes that back, everybody can read, satellites keep what they find; with room again it goes on by itself, soon, and
//! the ledger is clean.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use master::coordinator::credit::{BACKLOG_WINDOW_BYTES, LIVE_WINDOW_BYTES};
use tests::figure::figure;
use tests::missing::missing;
use tests::samples::{page, sample};
use tests::violation;
use tests::wait::until;

use crate::scene::{PATIENCE, Scene};

const CHILD: &str = "PERIGEE_TEST_FULL_MASTER";
const NAME: &str = "full::a_full_master_takes_nothing_in_loses_nothing_and_heals_by_itself";
const MOUNT: &str = "mount -t tmpfs -o size=24m tmpfs \"$1\"";
/// How long the volume stays full; `PERIGEE_FULL_SECONDS` for the long form.
const FULL: Duration = Duration::from_secs(6);

/// It is to be seen so soon that the volume is full.
const NOTICED_WITHIN: Duration = Duration::from_secs(10);
/// And so soon after there is room again everybody is connected and has credit: satellites that were turned away a few times in a row
/// wait for some seconds.
const HEALED_WITHIN: Duration = Duration::from_secs(30);
/// Satellites of the scene.
const SLOTS: u64 = 2;

/// Credit of a lane that is out: given and not used, or used for what is not committed.
fn credit(page: &str, lane: &str) -> f64 {
    let of = |state: &str| {
        let name = format!("perigee_link_credit_bytes{{lane=\"{lane}\",state=\"{state}\"}}");
        sample(page, &name).unwrap_or_else(|| panic!("no {name} in\n{page}"))
    };
    of("given") + of("received")
}

fn stays_full() -> Duration {
    let seconds = std::env::var("PERIGEE_FULL_SECONDS").ok().map(|text| text.parse().unwrap());
    seconds.map_or(FULL, Duration::from_secs)
}

/// Takes the last byte of the file system.
fn fill(path: &Path) {
    let mut ballast = File::options().create(true).append(true).open(path).unwrap();
    for size in [64 * 1024, 4096, 1] {
        while ballast.write_all(&vec![7; size]).is_ok() {}
    }
}

fn act(directory: &Path) {
    let volume = directory.join("volume");
    let mut scene = Scene::new(directory, &volume, 8, 8);
    scene.fleet.start().unwrap();
    scene.fleet.until_connected(PATIENCE).unwrap();
    let api = scene.fleet.master.api();
    let read_only = move || api.get("status").map(|status| status["read_only"] == true);
    scene.until_answered(100);

    let ballast = volume.join("ballast");
    let began = Instant::now();
    let noticed = until(PATIENCE, || {
        // What the master frees meanwhile is taken as well.
        fill(&ballast);
        read_only().unwrap()
    });
    assert!(noticed, "nobody notices that the volume is full\n{}", scene.fleet.last_words());
    let noticed = began.elapsed();
    assert!(noticed <= NOTICED_WITHIN, "it is noticed after {noticed:?}");
    let full = Instant::now();
    let (answers, mut reads, mut shown, mut looks) = (scene.answers(), 0_u64, 0_u64, 0_u64);
    let (mut most, mut withheld) = (0.0_f64, 0_u64);
    let index = |scene: &Scene| scene.fleet.master.api().get("status").unwrap()["index"].as_u64().unwrap();
    let before = index(&scene);
    until(stays_full(), || {
        fill(&ballast);
        // Everything can be read all the time: lists, the page, history.
        let api = scene.fleet.master.api();
        for path in ["status", "services?limit=5", "slots", "events?kind=result&limit=5", "metrics"] {
            api.text(&format!("/api/v1/{path}")).unwrap();
            reads += 1;
        }
        api.text("/").unwrap();
        // Nothing is committed, so that nothing that was given comes back to be given again; whoever used it is turned away, and it
        // is taken back.
        let page = page(&api).unwrap();
        for (lane, window) in [("live", LIVE_WINDOW_BYTES), ("backlog", BACKLOG_WINDOW_BYTES)] {
            let (out, bound) = (credit(&page, lane), (SLOTS * window) as f64);
            assert!(out <= bound, "{out} bytes of credit of the {lane} lane are out, more than {bound}");
        }
        let out = credit(&page, "live") + credit(&page, "backlog");
        most = most.max(out);
        withheld += u64::from(out < 1.0);
        shown += u64::from(read_only().unwrap());
        looks += 1;
        full.elapsed() >= stays_full()
    });
    assert!(index(&scene) <= before + 1, "rows were committed on a full volume");
    assert_eq!(shown, looks, "it is shown all the time");
    assert!(withheld > 0, "satellites had credit at each of {looks} looks, {most} bytes at most");
    assert!(looks > 0 && scene.answers() > answers + 20, "checking went on: {} answers", scene.answers() - answers);
    // What would have to be written is refused in words, and nothing happens.
    fs::write(&scene.config, fs::read_to_string(&scene.config).unwrap().replace("timeout: 10s", "timeout: 9s"))
        .unwrap();
    let applied = scene.fleet.master.run(&["apply"], true).unwrap();
    let words = String::from_utf8_lossy(&applied.stderr).into_owned();
    assert_eq!(applied.status.code(), Some(3), "{words}");
    let status = scene.fleet.master.run(&["status"], true).unwrap();
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.contains("The journal cannot be written"), "{status}");

    fs::remove_file(&ballast).unwrap();
    let healing = Instant::now();
    assert!(until(PATIENCE, || !read_only().unwrap_or(true)), "it does not heal\n{}", scene.fleet.last_words());
    scene.fleet.until_connected(PATIENCE).unwrap();
    let credited = until(PATIENCE, || credit(&page(&scene.fleet.master.api()).unwrap(), "live") > 0.0);
    let healed = healing.elapsed();
    assert!(credited && healed <= HEALED_WITHIN, "credit again: {credited}; it heals after {healed:?}");
    scene.until_answered(100);
    let (verdict, evidence) = scene.audit.verdict(&scene.fleet, PATIENCE).unwrap();
    violation::unless(verdict.is_clean(), || format!("{verdict:#?}\n{}", scene.fleet.last_words()));
    assert!(evidence.named.is_empty(), "{:?}", evidence.named);
    scene.fleet.terminate().unwrap();
    figure(
        18,
        &format!(
            "D4: master's volume full for {} s: read-only after {} ms, {} answers meanwhile, {reads} reads answered, credit withheld \
             at {withheld} of {looks} looks and never beyond {most} bytes, connected and with credit again {} ms after there was \
             room; {} answers, {} applied once, 0 lost, 0 twice, no gap",
            full.elapsed().as_secs(),
            noticed.as_millis(),
            scene.answers() - answers,
            healed.as_millis(),
            verdict.answers,
            verdict.applied
        ),
    );
}

#[test]
fn a_full_master_takes_nothing_in_loses_nothing_and_heals_by_itself() {
    if let Some(directory) = std::env::var_os(CHILD) {
        return act(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("volume")).unwrap();
    let namespace = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--map-root-user", "sh", "-c", script, "sh"]).arg(directory.path().join("volume"));
        command
    };
    if !namespace(MOUNT).output().is_ok_and(|output| output.status.success()) {
        return missing("permission to mount a tmpfs in a namespace of its own (unshare)", "util-linux");
    }
    let output = namespace(&format!("{MOUNT} && exec \"$2\" --exact {NAME} --nocapture"))
        .arg(std::env::current_exe().unwrap())
        .env(CHILD, directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{words}");
    eprintln!("{words}");
}
