//! A firewall that was never open: how often a satellite tries, and how soon it is there when somebody opens it.

use std::time::Duration;

use satellite::link::backoff::BACKOFF_MAX;
use tests::figure::figure;
use tests::fleet::connected;
use tests::load::Load;
use tests::relay::Profile;
use tests::violation;
use tests::wait::until;

use crate::scene::{CLAIM, Scene, all, let_run};

/// Packets closer than this are one burst: those of one attempt come after 1, 2 and 4 s.
const APART: Duration = Duration::from_secs(9);
/// So much is left to a busy machine.
const BUSY: Duration = Duration::from_secs(3);
/// Until then waits are still growing: ten seconds for each of seven attempts, and waits of a minute in all.
const GROWING: Duration = Duration::from_secs(135);

/// When bursts began.
fn bursts(knocks: &[Duration]) -> Vec<Duration> {
    let mut begun = Vec::new();
    let mut last = None;
    for knock in knocks {
        if last.is_none_or(|last| *knock > last + APART) {
            begun.push(*knock);
        }
        last = Some(*knock);
    }
    begun
}

#[test]
fn a_closed_firewall_sees_a_burst_a_minute_and_an_open_one_a_satellite_within_a_minute() {
    let (mut scene, relay) = Scene::relayed(Load::TWO_HUNDRED, 1, &[]);
    relay.both(Profile { cut: true, ..Profile::default() });
    scene.fleet.start().unwrap();
    let time = if all() { GROWING + 3 * BACKOFF_MAX + BUSY } else { Duration::from_secs(25) };
    let_run(time);
    let begun = bursts(&relay.knocks());
    relay.both(Profile::default());
    let opened = relay.now();
    let back = until(BACKOFF_MAX + BUSY, || {
        scene.fleet.master.api().items("slots", "").is_ok_and(|slots| connected(&slots) == 1)
    });
    let after = relay.now() - opened;
    assert!(back && after <= BACKOFF_MAX, "linked {after:?} after it was opened (bursts at {begun:?})");
    // An attempt takes ten seconds: there cannot be more of them.
    assert!(!begun.is_empty() && begun.len() <= 1 + usize::try_from(time.as_secs() / 10).unwrap(), "{begun:?}");
    let steady: Vec<Duration> = begun.iter().copied().filter(|at| *at > GROWING).collect();
    assert!(!all() || steady.len() >= 3, "{begun:?}");
    let closest = steady.windows(2).map(|pair| pair[1] - pair[0]).min();
    assert!(closest.is_none_or(|closest| closest + Duration::from_millis(100) >= BACKOFF_MAX), "{begun:?}");
    let (verdict, _) = scene.audit.verdict(&scene.fleet, Duration::from_secs(120)).unwrap();
    violation::unless(verdict.is_clean(), || format!("{verdict:#?}"));
    figure(
        CLAIM,
        &format!(
            "closed for {time:.0?}: {} bursts, {:.1?} between two at least when steady; linked {after:.1?} after it was opened",
            begun.len(),
            closest.unwrap_or_default()
        ),
    );
}
