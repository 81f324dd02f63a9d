//! Real processes: how they end, what they leave behind, what they say and what they may use.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::*;

const CAP: usize = 64 * 1024;
/// Much more than anything here takes.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);

fn shell(script: &str, limit: Duration) -> Order {
    Order::new(["/bin/sh", "-c", script].map(str::to_owned).to_vec(), limit, CAP)
}

fn text(captured: &Captured) -> String {
    String::from_utf8_lossy(&captured.bytes).into_owned()
}

/// Whether a process is there and not merely uncollected.
fn lives(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{}/stat", pid.trim())).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Whether there is anything of it at all.
fn is_known(pid: &str) -> bool {
    Path::new(&format!("/proc/{}", pid.trim())).exists()
}

async fn until(mut holds: impl FnMut() -> bool) -> bool {
    for _ in 0..3_000 {
        if holds() {
            return true;
        }
        sleep(LOOK_EVERY).await;
    }
    false
}

#[tokio::test]
async fn status_and_both_outputs_come_home() {
    let ended = run(&shell("echo out; echo err >&2; exit 2", LONG)).await;
    assert_eq!(ended.exit, Exit::Ran(2));
    assert_eq!((text(&ended.stdout).as_str(), text(&ended.stderr).as_str()), ("out\n", "err\n"));
    assert!(!ended.stdout.truncated && !ended.stderr.truncated && ended.duration > Duration::ZERO);
    assert_eq!(run(&shell("kill -SEGV $$", LONG)).await.exit, Exit::Signal(11));
    assert_eq!(run(&shell("exit 255", LONG)).await.exit, Exit::Ran(255));
}

/// A service that a command starts goes on after it, and may complain: nobody listens, and that must not end it.
#[tokio::test]
async fn who_is_spared_may_go_on_writing_errors() {
    let directory = tempfile::tempdir().unwrap();
    let mark = directory.path().join("mark");
    let script = format!(
        "(while ! [ -e {0}/go ]; do sleep 0.05; done; echo late >&2; touch {0}/mark) >/dev/null & echo started",
        directory.path().display()
    );
    let mut order = shell(&script, LONG);
    order.leftovers = Leftovers::Spare;
    let ended = run(&order).await;
    assert_eq!((ended.exit, text(&ended.stdout).as_str()), (Exit::Ran(0), "started\n"));
    assert_eq!(ended.stderr, Captured::default());
    fs::write(directory.path().join("go"), "").unwrap();
    assert!(until(|| mark.exists()).await, "it was ended by what it said");
}

#[tokio::test]
async fn words_stay_words_and_no_shell_sees_them() {
    let argv = ["/usr/bin/printf", "<%s>", "a b", "", "$(id)", "`id`", "c;d", "'e\"", "*"];
    let ended = run(&Order::new(argv.map(str::to_owned).to_vec(), LONG, CAP)).await;
    assert_eq!(text(&ended.stdout), "<a b><><$(id)><`id`><c;d><'e\"><*>");
}

#[tokio::test]
async fn nothing_is_inherited_but_what_is_given() {
    let mut order = Order::new(vec!["env".to_owned()], LONG, CAP);
    order.environment = vec![("SITE".to_owned(), "a b".to_owned()), ("LC_ALL".to_owned(), "C.UTF-8".to_owned())];
    let ended = run(&order).await;
    let said = text(&ended.stdout);
    let mut lines: Vec<&str> = said.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["LANG=C", "LC_ALL=C.UTF-8", format!("PATH={PATH}").as_str(), "SITE=a b"]);
    let ended = run(&shell("pwd; cat; readlink /proc/self/fd/0", LONG)).await;
    assert_eq!(text(&ended.stdout), "/\n/dev/null\n");
}

#[tokio::test]
async fn the_deadline_ends_the_whole_group() {
    // A grandchild in the same group that does not heed SIGTERM either.
    let script = "trap '' TERM; sh -c 'trap \"\" TERM; while :; do sleep 600; done' & echo $! $$; wait; sleep 600";
    let began = Instant::now();
    let ended = run(&shell(script, SHORT)).await;
    assert_eq!(ended.exit, Exit::TimedOut);
    assert!(ended.duration >= SHORT && began.elapsed() < Duration::from_secs(30), "{ended:?}");
    let said = text(&ended.stdout);
    let (below, own) = said.trim().split_once(' ').unwrap();
    assert!(until(|| !lives(below)).await, "the grandchild lives");
    assert!(!is_known(own), "the leader is not collected");
}

#[tokio::test]
async fn one_that_heeds_the_request_may_say_its_last_words() {
    let ended = run(&shell("trap 'echo bye; exit 0' TERM; echo here; while :; do sleep 0.05; done", SHORT)).await;
    assert_eq!((ended.exit, text(&ended.stdout).as_str()), (Exit::TimedOut, "here\nbye\n"));
}

#[tokio::test]
async fn a_child_that_holds_the_output_open_holds_nobody_up() {
    let ended = run(&shell("sleep 600 & echo $!; exit 1", LONG)).await;
    assert_eq!(ended.exit, Exit::Ran(1));
    assert!(ended.duration < Duration::from_secs(30));
    assert!(until(|| !lives(&text(&ended.stdout))).await, "what was left behind lives");
    let mut order = shell("sleep 600 & echo $!", LONG);
    order.leftovers = Leftovers::Spare;
    let ended = run(&order).await;
    let left = text(&ended.stdout);
    assert!(lives(&left), "what was to be spared is gone");
    let pid = Pid::from_raw(left.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
}

#[tokio::test]
async fn closed_outputs_are_not_taken_for_an_end() {
    let ended = run(&shell("echo early; exec >&- 2>&-; sleep 0.3; exit 1", LONG)).await;
    assert_eq!((ended.exit, text(&ended.stdout).as_str()), (Exit::Ran(1), "early\n"));
    assert!(ended.duration >= Duration::from_millis(300));
    assert_eq!(run(&shell("exec >&- 2>&-; sleep 600", SHORT)).await.exit, Exit::TimedOut);
}

#[tokio::test]
async fn much_output_is_cut_and_the_status_stays() {
    let ended = run(&shell("head -c 20000000 /dev/zero; head -c 20000000 /dev/zero >&2; exit 3", LONG)).await;
    assert_eq!(ended.exit, Exit::Ran(3));
    assert_eq!((ended.stdout.bytes.len(), ended.stdout.truncated), (CAP, true));
    assert_eq!((ended.stderr.bytes.len(), ended.stderr.truncated), (STDERR_CAP, true));
    let exact = run(&shell(&format!("head -c {CAP} /dev/zero"), LONG)).await;
    assert_eq!((exact.stdout.bytes.len(), exact.stdout.truncated), (CAP, false));
}

#[tokio::test]
async fn one_that_never_stops_talking_finds_its_pipe_closed() {
    let ended = run(&Order::new(vec!["yes".to_owned()], LONG, CAP)).await;
    // yes says so and ends with 1 where somebody ignores SIGPIPE; here nobody does.
    assert_eq!(ended.exit, Exit::Signal(13), "{:?}", text(&ended.stderr));
}

#[tokio::test]
async fn what_cannot_begin_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str, mode: u32| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    };
    let cases = [
        (file("plain", "#!/bin/sh\n", 0o644), Obstacle::NotPermitted),
        (file("headless", "echo a\n", 0o755), Obstacle::NotExecutable),
        (file("foreign", "#!/no/such/interpreter\n", 0o755), Obstacle::NoInterpreter),
        (folder.path().join("gone").display().to_string(), Obstacle::NotFound),
        ("no-such-program".to_owned(), Obstacle::NotFound),
        (folder.path().display().to_string(), Obstacle::NotPermitted),
    ];
    for (program, wanted) in cases {
        let ended = run(&Order::new(vec![program.clone()], LONG, CAP)).await;
        assert_eq!(ended.exit, Exit::NotStarted(wanted), "{program}");
    }
    assert!(matches!(run(&Order::new(Vec::new(), LONG, CAP)).await.exit, Exit::NotStarted(Obstacle::Failed(_))));
    let nul = run(&Order::new(vec!["/bin/echo".to_owned(), "a\0b".to_owned()], LONG, CAP)).await;
    assert!(matches!(nul.exit, Exit::NotStarted(Obstacle::Failed(_))), "{nul:?}");
    let mut order = shell("true", LONG);
    order.directory = folder.path().join("gone");
    let ended = run(&order).await;
    assert!(matches!(&ended.exit, Exit::NotStarted(Obstacle::Failed(why)) if why.contains("directory")), "{ended:?}");
}

#[tokio::test]
async fn limits_hold_for_the_program_and_what_it_starts() {
    // They come a moment after the start.
    let wait = "until grep -q 'Max core file size *0 ' /proc/$$/limits; do :; done; cat /proc/self/limits; ";
    let ended = run(&shell(wait, LONG)).await;
    let said = text(&ended.stdout);
    let row = |name: &str| {
        let row = said.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{said}"));
        row[name.len()..].split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!((row("Max core file size"), row("Max cpu time")), ("0".to_owned(), "240".to_owned()));
    let at_most = |name: &str, most: u64| assert!(row(name).parse::<u64>().unwrap() <= most, "{name}: {said}");
    at_most("Max data size", limits::MEMORY_MAX);
    at_most("Max file size", limits::FILE_MAX);
    at_most("Max processes", limits::PROCESSES_MAX);

    let folder = tempfile::tempdir().unwrap();
    let mut order = shell(&format!("{wait} head -c 100000 /dev/zero >{}/big", folder.path().display()), LONG);
    order.limits.file = 4_096;
    let ended = run(&order).await;
    assert_ne!(ended.exit, Exit::Ran(0));
    assert_eq!(fs::metadata(folder.path().join("big")).unwrap().len(), 4_096);
}

#[tokio::test]
async fn a_dropped_run_takes_its_group_along() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pids");
    let order = shell(&format!("sleep 600 & echo $! $$ >{0}.new; mv {0}.new {0}; wait", file.display()), LONG);
    let task = tokio::spawn(async move { run(&order).await });
    assert!(until(|| file.exists()).await);
    let pids = fs::read_to_string(&file).unwrap();
    let (below, own) = pids.trim().split_once(' ').unwrap();
    assert!(lives(below) && lives(own));
    task.abort();
    assert!(until(|| !lives(below) && !is_known(own)).await);
}

#[tokio::test]
async fn open_files_are_raised_for_us_and_stay_as_they_were_for_others() {
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(200), maximum: hard }).unwrap();
    descriptors::raise(1);
    assert_eq!(getrlimit(Resource::Nofile).current, hard);
    descriptors::raise(1);
    // It comes a moment after the start.
    let ended = run(&shell("until [ $(ulimit -Sn) = 200 ]; do :; done; ulimit -Hn", LONG)).await;
    let most = hard.map_or("unlimited".to_owned(), |hard| hard.to_string());
    assert_eq!(text(&ended.stdout).trim(), most, "{ended:?}");
}

#[tokio::test]
async fn no_more_run_at_once_than_may() {
    let runner = Runner::new(1);
    let folder = tempfile::tempdir().unwrap();
    let script = format!("mkdir {0}/lock || exit 9; sleep 0.05; rmdir {0}/lock", folder.path().display());
    let runs = (0..5).map(|_| {
        let (runner, order) = (runner.clone(), shell(&script, LONG));
        tokio::spawn(async move { runner.run(&order).await.exit })
    });
    for run in runs.collect::<Vec<_>>() {
        assert_eq!(run.await.unwrap(), Exit::Ran(0));
    }
    let (busy, order) = (runner.clone(), shell("sleep 600", LONG));
    let task = tokio::spawn(async move { busy.run(&order).await });
    assert!(until(|| runner.places.available_permits() == 0).await);
    let waited = runner.run(&shell("true", SHORT)).await;
    assert_eq!(waited.exit, Exit::NotStarted(Obstacle::NoPlace(1)));
    task.abort();
    assert_eq!(runner.run(&shell("true", LONG)).await.exit, Exit::Ran(0), "a place is given back");
}
