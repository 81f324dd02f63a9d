//! Everything that the programs do on their disks, held against what is refused: a call on a kind of file that no list names fails the
//! test and is named. Nothing is refused here; both programs are traced from their first start to their last end, through whatever
//! brings them to a call: full disks, torn ends, other configurations, too many revisions.
//! The surprise: the lists name more than is seen, for some calls are made only after another has failed.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tests::figure::figure;
use tests::sink::Sink;
use tests::syscalls::calls;
use tests::wait::until;

use super::applied::moves;
use super::given_up::given_up;
use super::journal::{JOURNAL, crowd, lengthen, prepare, segments};
use super::kind::{ABOVE, is_meant, kinds};
use super::{
    ANSWERS, STRACE, Site, Stir, applied, configure_anew, drawn, founded, given_up as giving_up, journal, newest,
    spool, stage, traced,
};
use crate::damaged::is_segment;
use crate::scene::{PATIENCE, scene};

/// Calls that are no site, for they cannot fail on a disk, or nobody asks whether they did.
const ASIDE: [(&str, &str); 2] = [
    ("close", "what was written is durable before, and nothing follows from it"),
    ("fcntl", "it is about the descriptor and not about the file"),
];
/// Where the journal's part of a master's data directory is; what else is there belongs to other rooms.
const JOURNALS: [&str; 9] =
    ["lock", "backup.json", "restoring", "founded", "founded.tmp", "journal", "checkpoint", "revisions", "cursors"];
const SPOOL: &str = "PERIGEE_SPOOL_BYTES=4MiB";

/// Sets a program to be traced, all of it.
fn through(settings: &[&str], trace: &Path) -> Vec<String> {
    let words = [STRACE, "-f", "-ttt", "-T", "-y", "-s", "16", "-e", "trace=%file,%desc", "-o"];
    let env = ["env"];
    let words = env.iter().chain(settings).chain(&words).map(|word| (*word).to_owned());
    words.chain([trace.to_string_lossy().into_owned()]).collect()
}

/// What was seen on a data directory: a call, and the kinds of files that it is about.
fn seen(data: &Path, traces: &[PathBuf], ours: impl Fn(&str) -> bool) -> BTreeSet<(String, Vec<String>)> {
    let mut seen = BTreeSet::new();
    for trace in traces {
        for call in calls(&traced(trace)) {
            let mut kinds = kinds(data, &call);
            kinds.retain(|kind| ours(kind));
            if !kinds.is_empty() && !ASIDE.iter().any(|(aside, _)| *aside == call.name) {
                seen.insert((call.name, kinds));
            }
        }
    }
    seen
}

/// What was seen and is in no list.
fn unknown(seen: &BTreeSet<(String, Vec<String>)>, sites: &[Site]) -> Vec<String> {
    let is_known = |call: &str, kinds: &[String]| {
        sites.iter().any(|site| site.call == call && kinds.iter().any(|kind| is_meant(kind, &site.kind())))
    };
    let unknown = seen.iter().filter(|(call, kinds)| !is_known(call, kinds));
    unknown.map(|(call, kinds)| format!("{call} {}", kinds.join(" "))).collect()
}

/// Fails with the names of those that nothing refuses.
fn judge(program: &str, seen: &BTreeSet<(String, Vec<String>)>, sites: &[Site], least: usize) {
    let unknown = unknown(seen, sites);
    assert!(
        unknown.is_empty(),
        "a {program} makes calls that no list names, so that nobody refuses them: {unknown:#?}"
    );
    assert!(seen.len() >= least, "only {} kinds of calls were seen: {seen:?}", seen.len());
    for (call, why) in ASIDE {
        eprintln!("{program}: {call} is refused nowhere: {why}");
    }
    figure(
        18,
        &format!(
            "D2: a whole run of a {program}, traced: {} kinds of calls on its disk, all of them in the lists",
            seen.len()
        ),
    );
}

#[test]
fn a_satellite_makes_no_call_on_its_disk_that_is_not_refused() {
    if drawn("seen").is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().canonicalize().unwrap();
    let mut scene = scene(&root, 40, Duration::from_millis(250), 1500);
    let traces: Vec<PathBuf> = (0..3).map(|number| root.join(format!("satellite-{number}.trace"))).collect();
    let satellite = scene.fleet.satellite("eu/1").unwrap();
    let data = satellite.data.clone();
    // What was delivered goes at once.
    satellite.more = ["--spool-grace", "0s"].map(str::to_owned).to_vec();
    satellite.through = through(&[SPOOL], &traces[0]);
    scene.fleet.start().unwrap();
    scene.fleet.until_connected(PATIENCE).unwrap();
    scene.until_answers(ANSWERS);

    let current = data.join("assignment/current");
    assert!(until(PATIENCE, || current.exists()), "no assignment is kept\n{}", scene.fleet.last_words());
    let before = fs::read(&current).unwrap();
    configure_anew(&scene);
    scene.fleet.master.signal("HUP").unwrap();
    assert!(until(PATIENCE, || fs::read(&current).unwrap() != before), "no other assignment comes");

    // Alone until the volume is full; then everything is delivered.
    scene.fleet.master.kill().unwrap();
    assert!(until(PATIENCE, || given_up(&mut scene) > 0), "nothing is given up\n{}", scene.fleet.last_words());
    scene.fleet.master.start().unwrap();
    scene.fleet.until_connected(PATIENCE).unwrap();
    scene.until_answers(ANSWERS);

    // Killed, with something unfinished at the end of its run; and told to end.
    let link = scene.fleet.master.link;
    for (number, trace) in traces.iter().enumerate().skip(1) {
        let satellite = scene.fleet.satellite("eu/1").unwrap();
        let left = newest(&data, is_segment).unwrap();
        if number == 1 {
            satellite.kill().unwrap();
            OpenOptions::new().append(true).open(&left).unwrap().write_all(&[7; 100]).unwrap();
        } else {
            satellite.terminate().unwrap();
        }
        satellite.through = through(&[SPOOL], trace);
        satellite.start(link).unwrap();
        scene.fleet.until_connected(PATIENCE).unwrap();
        scene.until_answers(ANSWERS);
        let process = left.ancestors().nth(2).unwrap();
        assert!(until(PATIENCE, || !process.exists()), "{} stays\n{}", process.display(), scene.fleet.last_words());
    }
    scene.fleet.terminate().unwrap();
    let sites: Vec<Site> = spool::sites().into_iter().chain(giving_up::sites()).collect();
    judge("satellite", &seen(&data, &traces, |_| true), &sites, 40);
}

#[test]
fn a_master_makes_no_call_on_its_journal_that_is_not_refused() {
    if drawn("seen").is_none() {
        return;
    }
    let sink = Sink::start().unwrap();
    let (_directory, mut scene) = stage(&format!("writers: {{ graphite: {{ address: \"{}\" }} }}\n", sink.address));
    let data = scene.fleet.master.data.clone();
    let root = scene.fleet.directory.clone();
    let traces: Vec<PathBuf> = (0..4).map(|number| root.join(format!("master-{number}.trace"))).collect();
    scene.fleet.master.through = through(&[JOURNAL], &traces[0]);
    scene.fleet.start().unwrap();
    scene.fleet.until_connected(PATIENCE).unwrap();
    // Another configuration and the first again, which is there; and the cursor follows what was sent.
    for _ in 0..2 {
        configure_anew(&scene);
        assert!(scene.fleet.master.run(&["apply"], true).unwrap().status.success());
        scene.until_answers(ANSWERS);
    }
    assert!(moves(&data), "no cursor is saved\n{}", scene.fleet.last_words());
    scene.fleet.master.terminate().unwrap();

    // Checkpoints and revisions that are too many go at an end.
    scene.fleet.master.through = through(&[JOURNAL], &traces[1]);
    for _ in 0..2 {
        scene.fleet.master.start().unwrap();
        scene.fleet.until_connected(PATIENCE).unwrap();
        scene.until_answers(ANSWERS);
        crowd(&data);
        scene.fleet.master.terminate().unwrap();
        // strace writes a file anew.
        scene.fleet.master.through = through(&[JOURNAL], &traces[2]);
    }
    scene.fleet.master.through.clear();
    scene.fleet.master.start().unwrap();
    scene.fleet.until_connected(PATIENCE).unwrap();
    lengthen(&mut scene);

    // A torn end, and segments that both checkpoints have behind them and that must go.
    for _ in 0..2 {
        scene.fleet.master.terminate().unwrap();
        scene.fleet.master.start().unwrap();
        scene.fleet.until_connected(PATIENCE).unwrap();
        scene.until_answers(ANSWERS);
    }
    scene.fleet.master.terminate().unwrap();
    prepare(&data, Stir::Torn);
    prepare(&data, Stir::Full);
    let before = segments(&data.join("journal")).len();
    scene.fleet.master.through = through(&[JOURNAL], &traces[3]);
    scene.fleet.master.start().unwrap();
    scene.fleet.until_connected(PATIENCE).unwrap();
    scene.until_answers(ANSWERS);
    let trimmed = until(PATIENCE, || segments(&data.join("journal")).len() < before);
    assert!(trimmed, "no segment goes\n{}", scene.fleet.last_words());
    scene.fleet.terminate().unwrap();

    let ours = |kind: &str| JOURNALS.contains(&kind.split('/').next().unwrap_or_default());
    let lists = [journal::sites(), applied::sites(), founded::sites(NO_FILE, NO_FILE)];
    let sites: Vec<Site> = lists.into_iter().flatten().collect();
    judge("master", &seen(&data, &traces, ours), &sites, 30);
}

/// Where the list of a first start has a revision that is not looked for here.
const NO_FILE: &str = "revisions";

#[test]
fn a_call_that_is_in_no_list_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("trace");
    let lines = "71 100.000001 openat(AT_FDCWD</>, \"/t/eu-1/spool/counter\", O_RDONLY) = 9</t/eu-1/spool/counter> <0.000010>\n\
                 71 100.000002 fallocate(9</t/eu-1/spool/counter>, 0, 0, 4096) = 0 <0.000010>\n\
                 71 100.000003 fallocate(9</etc/passwd>, 0, 0, 4096) = 0 <0.000010>\n\
                 71 100.000004 close(9</t/eu-1/spool/counter>) = 0 <0.000010>\n";
    fs::write(&trace, lines).unwrap();
    let seen = seen(Path::new("/t/eu-1"), &[trace], |kind| kind != ABOVE);
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert_eq!(unknown(&seen, &spool::sites()), ["fallocate spool/counter"]);
}
