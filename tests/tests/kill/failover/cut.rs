//! One slot of three cannot reach its master, and goes on by itself while another has what it had: two ask, one of them owns. When the
//! road is good again what it asked meanwhile is history, it hears that it owns nothing, and after two minutes it has its hosts back.

use std::time::Duration;

use master::fleet::STABLE_AFTER;
use satellite::scheduler::HEARTBEAT_EVERY;
use tests::figure::figure;
use tests::relay::Profile;

use super::chronicle::{Deaf, Move};
use super::{APART, BUSY, CHECKS, CLAIM, FAILOVER_AFTER, LOAD, Stage, let_pass, millis, now, since, when};

const SLOT: &str = "eu/2";
const NUMBER: u64 = 2;
/// Two slots ask the same checks for so long at least.
const BOTH: Duration = Duration::from_secs(10);

pub(super) fn run() {
    let mut stage = Stage::new(FAILOVER_AFTER);
    let relay = stage.relayed(&[SLOT]);
    stage.start();
    let at_rest = stage.at_rest;
    let share = stage.share(NUMBER);
    let links = stage.links(SLOT);
    let cut = now();
    relay.both(Profile { cut: true, ..Profile::default() });
    stage.until_left(NUMBER);
    stage.until_current();
    assert_eq!(stage.incidents(), ["slot-lost"]);
    let_pass(BOTH);
    relay.both(Profile::default());
    let linked = stage.until_linked(SLOT, links);
    stage.until_well();
    stage.until_returned();
    let deaf = [Deaf { slot: SLOT.to_owned(), from: cut, until: linked }];
    let judged = stage.judged(&deaf);

    let chronicle = &judged.chronicle;
    assert_eq!(since(&chronicle.incidents, at_rest), ["slot-lost eu/2 begins silent", "slot-lost eu/2 ends heard"]);
    assert_eq!(since(&chronicle.presences, at_rest), ["eu/2 out silent", "eu/2 in stable"]);
    let moves = chronicle.moves(at_rest);
    let (gone, back): (Vec<&Move>, Vec<&Move>) = moves.iter().partition(|moved| moved.from == SLOT);
    assert_eq!((gone.len(), back.len()), (share * CHECKS, share * CHECKS), "{moves:#?}");
    assert!(back.iter().all(|moved| moved.to == SLOT), "others' hosts move: {back:#?}");

    let out = when(&chronicle.presences, at_rest, "eu/2 out silent");
    assert!(out + millis(HEARTBEAT_EVERY) >= cut + millis(FAILOVER_AFTER), "{} ms after the cut", out - cut);
    let taken_over = judged.asked.begun(&gone) - cut;
    assert!(taken_over <= millis(FAILOVER_AFTER + LOAD.interval + BUSY), "taken over {taken_over} ms after the cut");
    let stable = when(&chronicle.presences, at_rest, "eu/2 in stable");
    assert!(stable + millis(APART) >= linked + millis(STABLE_AFTER), "{} ms after its link", stable - linked);
    let begun = judged.asked.begun(&back) - linked;
    assert!(begun <= millis(STABLE_AFTER + LOAD.interval + BUSY), "asks {begun} ms after its link");

    // It went on by itself, and nothing of that was anybody's state.
    let apart = judged.asked.apart;
    assert!(apart > share * LOAD.services, "{apart} answers to the slot that was cut off");
    assert!(judged.ownership.observed >= apart, "{} observations of {apart} answers", judged.ownership.observed);
    figure(
        CLAIM,
        &format!(
            "slot of three cut off: its {share} of {} hosts ({} checks) asked by others {taken_over} ms after, no other moved, one \
             incident; {apart} answers to it meanwhile, all of them observations; back and asking {begun} ms after its link; {} \
             answers, 0 lost, 0 twice, {} grants, never two living of one check",
            LOAD.hosts,
            gone.len(),
            judged.verdict.answers,
            judged.ownership.grants
        ),
    );
}
