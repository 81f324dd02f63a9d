//! One slot of three is killed and stays away until others have all it had: one incident, nobody else's hosts move, and what lay on
//! its volume is delivered when it comes back. Its hosts return once it has been linked for two minutes, and not before.

use master::fleet::STABLE_AFTER;
use satellite::scheduler::HEARTBEAT_EVERY;
use tests::figure::figure;

use super::chronicle::Move;
use super::{APART, BUSY, CHECKS, CLAIM, FAILOVER_AFTER, HELD, LOAD, Stage, let_pass, millis, since, when, whole};
use crate::rounds::LOST_BY_A_KILL;

const SLOT: &str = "eu/2";
const NUMBER: u64 = 2;

pub(super) fn run() {
    let mut stage = Stage::new(FAILOVER_AFTER);
    stage.start();
    let at_rest = stage.at_rest;
    let share = stage.share(NUMBER);
    stage.audit.kill(stage.fleet.satellite(SLOT).unwrap()).unwrap();
    let (before, after) = (stage.audit.kills[0].before, stage.audit.kills[0].after);
    stage.until_left(NUMBER);
    stage.until_current();
    assert_eq!(stage.incidents(), ["slot-lost"]);
    let away = stage.owners();

    let deaf = stage.restart(&[SLOT]);
    let linked = deaf[0].until;
    stage.until_well();
    let_pass(HELD);
    assert_eq!(stage.owners(), away, "hosts move before the slot is stable");
    let returns = whole();
    if returns {
        stage.until_returned();
    }
    let judged = stage.judged(&deaf);
    assert!(judged.verdict.in_flight <= LOST_BY_A_KILL, "{:?}", judged.verdict.in_flight_by_kill);

    // One incident, one out, and, in the long form, one in.
    let chronicle = &judged.chronicle;
    assert_eq!(since(&chronicle.incidents, at_rest), ["slot-lost eu/2 begins silent", "slot-lost eu/2 ends heard"]);
    let turns = ["eu/2 out silent", "eu/2 in stable"];
    assert_eq!(since(&chronicle.presences, at_rest), turns[..1 + usize::from(returns)]);

    // All of its checks go, and nobody else's.
    let moves = chronicle.moves(at_rest);
    let (gone, back): (Vec<&Move>, Vec<&Move>) = moves.iter().partition(|moved| moved.from == SLOT);
    assert_eq!(gone.len(), share * CHECKS, "{gone:#?}");
    assert!(back.iter().all(|moved| moved.to == SLOT), "others' hosts move: {back:#?}");
    assert_eq!(back.len(), if returns { share * CHECKS } else { 0 }, "{back:#?}");

    let out = when(&chronicle.presences, at_rest, "eu/2 out silent");
    assert!(out + millis(HEARTBEAT_EVERY) >= before + millis(FAILOVER_AFTER), "{} ms after the kill", out - before);
    let taken_over = judged.asked.begun(&gone) - after;
    assert!(taken_over <= millis(FAILOVER_AFTER + LOAD.interval + BUSY), "taken over {taken_over} ms after the kill");
    let returned = if returns {
        let stable = when(&chronicle.presences, at_rest, "eu/2 in stable");
        assert!(stable + millis(APART) >= linked + millis(STABLE_AFTER), "{} ms after its link", stable - linked);
        let begun = judged.asked.begun(&back) - linked;
        assert!(begun <= millis(STABLE_AFTER + LOAD.interval + BUSY), "asks {begun} ms after its link");
        format!("back and asking {begun} ms after its link")
    } else {
        "linked again".to_owned()
    };
    figure(
        CLAIM,
        &format!(
            "slot of three killed: its {share} of {} hosts ({} checks) asked by others {taken_over} ms after (failover_after {} s), no \
             other moved, one incident; {returned}; {} answers, {} in flight, 0 lost, 0 twice, {} grants, never two living of one check",
            LOAD.hosts,
            gone.len(),
            FAILOVER_AFTER.as_secs(),
            judged.verdict.answers,
            judged.verdict.in_flight,
            judged.ownership.grants
        ),
    );
}
