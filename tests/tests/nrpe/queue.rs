//! How many connections a host gets at once, and what becomes of the checks that wait.

use std::sync::Arc;
use std::time::Duration;

use satellite::probe::{CONNECTIONS_PER_HOST, Prober};
use shared::check::{Exit, State};
use tests::daemon::answers::Command;
use tests::daemon::{Daemon, Spec, Transport};

use crate::scene::{PATIENCE, check};

async fn slow_daemon(takes: Duration) -> Daemon {
    let mut spec = Spec::new("h", Transport::Plain);
    spec.commands.insert("slow".to_owned(), Command::fixed(0, "OK").taking(takes));
    Daemon::start(spec, None, None).await.unwrap()
}

#[tokio::test]
async fn a_host_never_has_more_than_its_few_connections_and_every_check_gets_its_turn() {
    let daemon = slow_daemon(Duration::from_millis(30)).await;
    let prober = Arc::new(Prober::new().unwrap());
    let checks: Vec<_> = (0..20)
        .map(|_| {
            let (prober, check) = (Arc::clone(&prober), check(daemon.address, false, "slow"));
            tokio::spawn(async move { prober.probe("h!slow", &check, PATIENCE).await })
        })
        .collect();
    for check in checks {
        let outcome = check.await.unwrap();
        assert_eq!(outcome.state, State::Ok, "{outcome:?}");
    }
    assert_eq!(daemon.seen.peak(), CONNECTIONS_PER_HOST);
    assert_eq!(daemon.seen.requests(), 20);
}

#[tokio::test]
async fn a_check_that_waits_in_vain_says_so_and_a_neighbour_does_not_wait() {
    let busy = slow_daemon(Duration::from_secs(20)).await;
    let free = slow_daemon(Duration::ZERO).await;
    let prober = Arc::new(Prober::new().unwrap());
    let hanging: Vec<_> = (0..CONNECTIONS_PER_HOST)
        .map(|_| {
            let (prober, check) = (Arc::clone(&prober), check(busy.address, false, "slow"));
            tokio::spawn(async move { prober.probe("busy!slow", &check, PATIENCE).await })
        })
        .collect();
    while busy.seen.peak() < CONNECTIONS_PER_HOST {
        tokio::task::yield_now().await;
    }
    let waited = prober.probe("busy!slow", &check(busy.address, false, "slow"), Duration::from_millis(300)).await;
    assert_eq!(waited.state, State::Unknown);
    assert_eq!(waited.exit, Exit::Error("queue-timeout".to_owned()));
    assert!(waited.output.contains("waited for a free connection"), "{waited:?}");
    for check in hanging {
        check.abort();
    }
    // Another host: 127.0.0.1 is the busy one, so this one is asked under its other name.
    let mut neighbour = check(free.address, false, "slow");
    if let shared::check::Check::Nrpe(check) = &mut neighbour {
        check.address = "localhost".to_owned();
    }
    assert_eq!(prober.probe("free!slow", &neighbour, PATIENCE).await.state, State::Ok);
}

#[tokio::test]
async fn a_cancelled_check_gives_its_place_back() {
    let daemon = slow_daemon(Duration::from_secs(20)).await;
    let prober = Arc::new(Prober::new().unwrap());
    for _ in 0..2 * CONNECTIONS_PER_HOST {
        let slow = check(daemon.address, false, "slow");
        let cut = tokio::time::timeout(Duration::from_millis(20), prober.probe("h!slow", &slow, PATIENCE)).await;
        assert!(cut.is_err());
    }
    let last = prober.probe("h!slow", &check(daemon.address, false, "slow"), Duration::from_millis(200)).await;
    assert_eq!(last.exit, Exit::TimedOut, "it was asked, not kept waiting: {last:?}");
}
