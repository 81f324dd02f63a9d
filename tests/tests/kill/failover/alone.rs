//! A master that is cut off: first from two slots of three, of which the third could take over, then from all. It says so once, no
//! slot is lost, and not one check moves; and when the roads are good again everything is as it was.

use std::time::Duration;

use master::fleet::LEASE;
use tests::figure::figure;
use tests::relay::Profile;

use super::{BUSY, CLAIM, HELD, LOAD, Stage, let_pass, since};
use crate::scene::PATIENCE;

/// Longer than a lease by much more than lies between the last words of two slots that are cut off together: whoever is out before
/// the second one's lease has run out has moved.
const FAILOVER_AFTER: Duration = Duration::from_secs(25);

pub(super) fn run() {
    let mut stage = Stage::new(FAILOVER_AFTER);
    let (two, third) = (stage.relayed(&["eu/2", "eu/3"]), stage.relayed(&["eu/1"]));
    stage.start();
    let at_rest = stage.at_rest;
    let cut = Profile { cut: true, ..Profile::default() };

    two.both(cut);
    let cut_off = |api: &tests::http::Client| Ok(api.get("status")?["moves"]["by"] == "cut-off");
    stage.fleet.until("cut off", LEASE + PATIENCE, cut_off).unwrap();
    // The third one lives, and nothing goes to it.
    let_pass(FAILOVER_AFTER + HELD);
    says_it_once(&stage);
    third.both(cut);
    let_pass(FAILOVER_AFTER + HELD);
    says_it_once(&stage);

    let links = ["eu/1", "eu/2", "eu/3"].map(|slot| (slot, stage.links(slot)));
    [&two, &third].into_iter().for_each(|relay| relay.both(Profile::default()));
    for (slot, before) in links {
        stage.until_linked(slot, before);
    }
    stage.until_well();
    stage.until_current();
    // And none is lost afterwards.
    let_pass(FAILOVER_AFTER + BUSY);
    assert_eq!(stage.incidents(), [] as [String; 0]);
    assert_eq!(stage.owners(), stage.before);
    let judged = stage.judged(&[]);

    let chronicle = &judged.chronicle;
    let told = since(&chronicle.incidents, at_rest);
    assert_eq!(told, ["cut-off master begins silent", "cut-off master ends connected"]);
    assert_eq!(since(&chronicle.presences, at_rest), [] as [&str; 0]);
    let moves = chronicle.moves(at_rest);
    assert!(moves.is_empty(), "{moves:#?}");
    assert_eq!(judged.verdict.in_flight, 0, "nothing was killed");
    figure(
        CLAIM,
        &format!(
            "master cut off from two slots of three, then from all: one incident, none of {} hosts moved; {} answers, 0 lost, 0 twice, \
             {} observations, {} grants, never two living of one check",
            LOAD.hosts, judged.verdict.answers, judged.ownership.observed, judged.ownership.grants
        ),
    );
}

/// One incident on every face that a terminal shows, and every host where it was.
fn says_it_once(stage: &Stage) {
    assert_eq!(stage.incidents(), ["cut-off"]);
    assert_eq!(stage.owners(), stage.before, "a host moves though the master is cut off");
    let told = stage.told(&["status"]);
    assert_eq!(told.matches("this master is cut off").count(), 1, "{told}");
    assert!(!told.contains("is lost:"), "no slot is called lost beside it: {told}");
}
