//! What does not show in one command line's output: how often the daemon is asked, and how long it may take.

use std::time::Duration;

use tests::daemon::answers::Command;
use tests::daemon::script::Act;
use tests::daemon::{Daemon, Spec, Transport, wire};
use tests::nrpe::installed;

use crate::both::{ours, theirs};

fn words(daemon: &Daemon, more: &[&str]) -> Vec<String> {
    let (ip, port) = (daemon.address.ip().to_string(), daemon.address.port().to_string());
    ["-H", &ip, "-p", &port, "-n"].iter().chain(more).map(|word| (*word).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_once_where_check_nrpe_runs_it_twice() {
    if !installed() {
        return;
    }
    let here = tempfile::tempdir().unwrap();
    let mut spec = Spec::new("minus", Transport::Plain);
    spec.commands.insert("minus".to_owned(), Command::fixed(-1, "minus one").unnumbered());
    let minus = Daemon::start(spec, None, None).await.unwrap();
    theirs(&words(&minus, &["-c", "minus"]), here.path());
    assert_eq!(minus.seen.requests(), 2, "check_nrpe");
    assert_eq!(ours(&words(&minus, &["-c", "minus"]), here.path()).code, 3);
    assert_eq!(minus.seen.requests(), 3);
    // SNClient answers a request of version 3 in version 2.
    let older = Daemon::scripted(vec![Act::Read(1036), Act::Send(wire::answer_v2(1, b"ran", 1024))]).await.unwrap();
    theirs(&words(&older, &["-3"]), here.path());
    assert_eq!(older.seen.connections(), 2, "check_nrpe");
    let said = ours(&words(&older, &["-3"]), here.path());
    assert_eq!((said.code, said.stdout.as_str(), older.seen.connections()), (1, "ran\n", 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_is_for_everything_where_check_nrpe_starts_it_again() {
    if !installed() {
        return;
    }
    let here = tempfile::tempdir().unwrap();
    let scripts = || vec![vec![Act::Read(1036), Act::Pause(Duration::from_secs(3))], vec![Act::Hang]];
    let daemon = Daemon::scripted_in_turn(scripts()).await.unwrap();
    let theirs = theirs(&words(&daemon, &["-t", "4"]), here.path());
    let daemon = Daemon::scripted_in_turn(scripts()).await.unwrap();
    let ours = ours(&words(&daemon, &["-t", "4"]), here.path());
    assert_eq!((theirs.code, ours.code, &theirs.stdout), (2, 2, &ours.stdout));
    assert!(theirs.took >= Duration::from_secs(7), "{theirs:?}");
    assert!(ours.took >= Duration::from_secs(4) && ours.took < Duration::from_millis(6500), "{ours:?}");
}
