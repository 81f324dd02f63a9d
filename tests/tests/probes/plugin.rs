//! Plugins as the satellite runs them: real ones say the same as from a plain shell, and those that misbehave leave nothing
//! behind, whatever they do.
#![expect(clippy::disallowed_methods, reason = "a deadline that is kept can only be shown on the clock")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use satellite::probe::Prober;
use shared::check::{Check, Exit, Outcome, PluginCheck, State};
use shared::perfdata::{PERFDATA_LIMIT, TEXT_LIMIT, split_output};
use tests::missing::missing;
use tests::wait::until;

const PLUGINS: &str = "/usr/lib/nagios/plugins";
const LIMIT: Duration = Duration::from_secs(30);
/// What a busy machine may take for something that is over at once.
const SOON: Duration = Duration::from_secs(20);

fn prober() -> Prober {
    Prober::new().unwrap().with_plugins(vec![PathBuf::from(PLUGINS)])
}

fn check(argv: &[&str]) -> Check {
    let argv = argv.iter().map(|word| (*word).to_owned()).collect();
    Check::Plugin(PluginCheck { argv, environment: BTreeMap::new() })
}

async fn run(argv: &[&str], limit: Duration) -> Outcome {
    prober().probe("h!s", &check(argv), limit).await
}

/// A plugin of our own in a directory that must outlive it.
fn script(directory: &Path, text: &str) -> String {
    let path = directory.join("check_own");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

/// Every digit as `#`, runs of them as one: measured values are not the same twice.
fn form(text: &str) -> String {
    let mut form = String::new();
    for c in text.chars() {
        let c = if c.is_ascii_digit() || c == '.' { '#' } else { c };
        if c != '#' || !form.ends_with('#') {
            form.push(c);
        }
    }
    form
}

#[tokio::test]
async fn real_plugins_say_what_they_say_to_a_shell() {
    if !Path::new(PLUGINS).join("check_dummy").exists() {
        return missing(PLUGINS, "monitoring-plugins-basic");
    }
    let port = tests::nrpe::free_port(std::net::Ipv4Addr::LOCALHOST).unwrap().to_string();
    let lines: &[&[&str]] = &[
        &["check_dummy", "0"],
        &["check_dummy", "1", "two words"],
        &["check_dummy", "2", "$(id); `id` 'x' \"y\" | a=1"],
        &["check_dummy", "3", ""],
        &["check_dummy", "9"],
        &["check_dummy"],
        &["check_tcp", "-H", "127.0.0.1", "-p", &port],
        &["check_tcp", "-H", "127.0.0.1"],
        &["check_http", "-I", "127.0.0.1", "-p", &port, "-t", "5"],
        &["check_disk", "-w", "1%", "-c", "0%", "-p", "/"],
        &["check_file_age", "-w", "1", "-c", "2", "-f", "/etc/passwd"],
        &["check_file_age", "-f", "/no/such/file"],
        &["check_procs", "-w", "100000", "-c", "100000"],
        &["check_swap", "-w", "0%", "-c", "0%"],
        &["check_users", "-w", "1000", "-c", "2000"],
        &["check_load", "-w", "1000,1000,1000", "-c", "2000,2000,2000"],
        &["check_http", "--help"],
        &["negate", "/usr/lib/nagios/plugins/check_dummy", "0", "fine"],
    ];
    let mut states = std::collections::BTreeSet::new();
    for line in lines {
        let (name, arguments) = line.split_first().unwrap();
        let path = format!("{PLUGINS}/{name}");
        if !Path::new(&path).exists() {
            missing(&path, "monitoring-plugins-basic");
            continue;
        }
        let shell = Command::new("/bin/sh")
            .args(["-c", "exec \"$@\" 2>&1 </dev/null", "sh", &path])
            .args(arguments)
            .env("LC_ALL", "C")
            .output()
            .unwrap();
        let status = shell.status.code().unwrap();
        let said = split_output(&String::from_utf8_lossy(&shell.stdout));
        for program in [*name, path.as_str()] {
            let argv: Vec<&str> = [program].into_iter().chain(arguments.iter().copied()).collect();
            let ours = run(&argv, LIMIT).await;
            assert_eq!((&ours.exit, ours.state), (&Exit::Ran(status), State::of_exit(status)), "{line:?}: {ours:?}");
            assert_eq!(form(&ours.output), form(&said.output), "{line:?}");
            assert_eq!(form(&ours.long_output), form(&said.long_output), "{line:?}");
            assert_eq!(form(&ours.perfdata), form(&said.perfdata), "{line:?}");
            states.insert(ours.state);
        }
    }
    assert_eq!(states.len(), 4, "every state was seen: {states:?}");
}

#[tokio::test]
async fn a_plugin_that_breeds_is_killed_with_all_it_bred() {
    let directory = tempfile::tempdir().unwrap();
    let tag = format!("86400.{}", std::process::id());
    // Sleepers in the same group that heed nothing but SIGKILL, made as fast as it goes.
    let text = format!("trap '' TERM\necho 'breeding|n=1'\nwhile :; do /bin/sleep {tag} & done");
    let plugin = script(directory.path(), &text);
    let bred = || {
        let lines = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("cmdline")).ok());
        lines.filter(|line| line.contains(&tag)).count()
    };
    let limit = Duration::from_millis(400);
    let running = tokio::spawn(async move { run(&[&plugin], limit).await });
    let (mut most, began) = (0, Instant::now());
    while !running.is_finished() && began.elapsed() < SOON {
        most = most.max(bred());
        tokio::task::yield_now().await;
    }
    let outcome = running.await.unwrap();
    assert_eq!((outcome.state, &outcome.exit), (State::Unknown, &Exit::TimedOut), "{outcome:?}");
    assert_eq!(outcome.output, "PLUGIN UNKNOWN - check_own did not end within 0.400 s and was killed");
    assert_eq!(outcome.long_output, "It had printed: breeding|n=1");
    assert!(outcome.metrics.is_empty() && outcome.duration < SOON);
    assert!(most > 1, "nothing was bred");
    assert!(until(SOON, || bred() == 0), "{} of {most} live", bred());
}

#[tokio::test]
async fn a_hundred_megabytes_are_cut_and_the_state_stays() {
    let directory = tempfile::tempdir().unwrap();
    let text = "echo 'CRITICAL - much|a=1;2;3'\nhead -c 104857600 /dev/zero | tr '\\0' x\necho '|b=2'\nexit 2";
    let outcome = run(&[&script(directory.path(), text)], LIMIT).await;
    assert_eq!((outcome.state, &outcome.exit), (State::Critical, &Exit::Ran(2)));
    assert_eq!(outcome.output, "CRITICAL - much");
    assert!(outcome.long_output.len() <= TEXT_LIMIT + 200, "{}", outcome.long_output.len());
    assert!(outcome.long_output.ends_with("[cut off: the plugin printed more than Perigee keeps]"));
    assert!(outcome.perfdata.len() <= PERFDATA_LIMIT);
    assert_eq!(outcome.metrics.len(), 1, "{:?}", outcome.metrics);
}

#[tokio::test]
async fn one_that_falls_silent_is_waited_for_and_then_killed() {
    let directory = tempfile::tempdir().unwrap();
    let plugin = script(directory.path(), "exec >&- 2>&-\nsleep 86400");
    let outcome = run(&[&plugin], Duration::from_millis(300)).await;
    assert_eq!((outcome.state, outcome.exit), (State::Unknown, Exit::TimedOut));
    // One that ends and leaves somebody behind with its output open is not waited for.
    let plugin = script(directory.path(), "sleep 86400 &\necho 'OK - done'");
    let outcome = run(&[&plugin], LIMIT).await;
    assert_eq!((outcome.state, outcome.output.as_str()), (State::Ok, "OK - done"));
    assert!(outcome.duration < SOON, "{:?}", outcome.duration);
}

#[tokio::test]
async fn no_byte_of_a_plugin_does_harm() {
    let directory = tempfile::tempdir().unwrap();
    let plugin = script(directory.path(), "printf 'OK \\377\\376 \\033[31mred\\007 gr\\303\\274n\\r\\n|a=1\\n'");
    let outcome = run(&[&plugin], LIMIT).await;
    assert_eq!((outcome.state, outcome.output.as_str()), (State::Ok, "OK \u{fffd}\u{fffd} [31mred grün"));
    assert_eq!((outcome.perfdata.as_str(), outcome.metrics.len()), ("a=1", 1));
    let outcome = run(&[&script(directory.path(), "echo 'no module Foo' >&2\nexit 3")], LIMIT).await;
    assert_eq!((outcome.state, outcome.output.as_str()), (State::Unknown, "no module Foo"));
}

#[tokio::test]
async fn a_plugin_reads_nothing_and_sees_what_it_is_given() {
    let directory = tempfile::tempdir().unwrap();
    let text = "read -r line\necho \"${line:-nothing} $# $2 ${SITE:-none} ${HOME:-none} $LC_ALL $(pwd)\"";
    let plugin = script(directory.path(), text);
    let argv = [plugin.as_str(), "a b", "$(id) 'c'"].map(str::to_owned).to_vec();
    let environment = [("SITE".to_owned(), "eu 1".to_owned())].into();
    let outcome = prober().probe("h!s", &Check::Plugin(PluginCheck { argv, environment }), LIMIT).await;
    assert_eq!(outcome.output, "nothing 2 $(id) 'c' eu 1 none C /");
}

#[tokio::test]
async fn what_cannot_run_is_unknown_and_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let gone = run(&["check_no_such_thing"], LIMIT).await;
    assert_eq!((gone.state, &gone.exit), (State::Unknown, &Exit::Error("plugin-not-found".to_owned())));
    assert!(gone.long_output.contains(PLUGINS) && gone.long_output.contains("PERIGEE_PLUGINS"), "{gone:?}");
    let plugin = script(directory.path(), "exit 0");
    fs::set_permissions(&plugin, fs::Permissions::from_mode(0o644)).unwrap();
    let outcome = run(&[&plugin], LIMIT).await;
    assert_eq!(outcome.exit, Exit::Error("plugin-not-permitted".to_owned()));
    assert_eq!(outcome.output, format!("PLUGIN UNKNOWN - {plugin}: permission denied"));
    let outcome = run(&[&script(directory.path(), "no-such-command-here")], LIMIT).await;
    assert_eq!((outcome.state, &outcome.exit), (State::Unknown, &Exit::Ran(127)));
    assert!(outcome.output.contains("not found") && outcome.long_output.contains("127"), "{outcome:?}");
    let outcome = run(&[&script(directory.path(), "kill -KILL $$")], LIMIT).await;
    assert_eq!((outcome.state, &outcome.exit), (State::Unknown, &Exit::Signal(9)));
    assert!(outcome.output.contains("signal 9 (SIGKILL"), "{outcome:?}");
}

#[tokio::test]
async fn hundreds_of_runs_leave_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let plugin = script(directory.path(), "sleep 0.01 &\necho \"OK|n=$1\"\nexit 0");
    let prober = std::sync::Arc::new(prober());
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    // The first one brings what the runtime keeps: the signal handler's pipe.
    assert_eq!(prober.probe("h", &check(&[&plugin, "0"]), LIMIT).await.state, State::Ok);
    let before = open();
    let runs = (0..300_u32).map(|number| {
        let (prober, plugin) = (std::sync::Arc::clone(&prober), plugin.clone());
        tokio::spawn(async move { (number, prober.probe("h", &check(&[&plugin, &number.to_string()]), LIMIT).await) })
    });
    for run in runs.collect::<Vec<_>>() {
        let (number, outcome) = run.await.unwrap();
        assert_eq!((outcome.state, outcome.perfdata), (State::Ok, format!("n={number}")));
    }
    assert!(until(SOON, || open() <= before), "{} descriptors, {before} before", open());
    let own = std::process::id().to_string();
    let children = || {
        let stats =
            fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("stat")).ok());
        let parents = stats.filter_map(|stat| Some(stat.rsplit_once(") ")?.1.split(' ').nth(1)?.to_owned()));
        parents.filter(|parent| *parent == own).count()
    };
    assert!(until(SOON, || children() == 0), "{} children are left", children());
}
