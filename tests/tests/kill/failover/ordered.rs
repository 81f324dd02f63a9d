//! What an operator orders about slots while everything runs, typed as he does: a slot is drained and ends, moves are held while
//! another one is killed and let go on, and both slots are given back. Hosts go when he says so and not before; a drained slot is no
//! loss.

use tests::figure::figure;

use super::chronicle::Move;
use super::{APART, BUSY, CHECKS, CLAIM, FAILOVER_AFTER, HELD, LOAD, Stage, let_pass, millis, now, since, when, whole};
use crate::rounds::LOST_BY_A_KILL;
use crate::scene::PATIENCE;

const DRAINED: &str = "eu/2";
const KILLED: &str = "eu/3";
/// The only one left in the end.
const HEIR: &str = "eu/1";

pub(super) fn run() {
    let mut stage = Stage::new(FAILOVER_AFTER);
    stage.start();
    let at_rest = stage.at_rest;
    let share = stage.share(2);

    // Drained at once, and told so; then it ends, as for work on its machine.
    let told = stage.told(&["drain", DRAINED]);
    let drained = now();
    let words = format!("slot eu/2 is drained: {} checks went to other slots, and it owns none", share * CHECKS);
    assert_eq!(told, words);
    assert_eq!(stage.told(&["drain", DRAINED]), "slot eu/2 is drained already");
    stage.until_left(2);
    stage.until_current();
    stage.fleet.satellite(DRAINED).unwrap().terminate().unwrap();

    // Another one is lost while moves are held: an incident, and nothing moves.
    assert!(stage.told(&["moves", "hold"]).starts_with("no host is moved until"));
    let held = now();
    let before = stage.owners();
    stage.audit.kill(stage.fleet.satellite(KILLED).unwrap()).unwrap();
    let lost = |api: &tests::http::Client| {
        let status = api.get("status")?;
        Ok(status["incidents"].as_array().is_some_and(|open| !open.is_empty()))
    };
    stage.fleet.until("a lost slot", FAILOVER_AFTER + PATIENCE, lost).unwrap();
    let_pass(HELD);
    assert_eq!(stage.incidents(), ["slot-lost"], "the drained slot is no loss");
    assert_eq!(stage.owners(), before, "a host moves though moves are held");
    let resumed = now();
    assert!(stage.told(&["moves", "resume"]).starts_with("hosts are moved again"));
    let answered = now();
    stage.until_left(3);
    stage.until_current();

    // Both come back; the drained one has to be given back, and neither has anything before it is stable.
    let deaf = stage.restart(&[DRAINED, KILLED]);
    stage.until_well();
    let words = "slot eu/2 may own checks again, once it has been connected for two minutes";
    assert_eq!(stage.told(&["undrain", DRAINED]), words);
    let undrained = now();
    let_pass(HELD);
    assert!(stage.owners().values().all(|owner| *owner == 1), "{:?}", stage.owners());
    let returns = whole();
    if returns {
        stage.until_returned();
    }
    let judged = stage.judged(&deaf);
    assert!(judged.verdict.in_flight <= LOST_BY_A_KILL, "{:?}", judged.verdict.in_flight_by_kill);

    let chronicle = &judged.chronicle;
    assert_eq!(since(&chronicle.incidents, at_rest), ["slot-lost eu/3 begins silent", "slot-lost eu/3 ends heard"]);
    let mut turns = since(&chronicle.presences, at_rest);
    let mut back = turns.split_off(3);
    assert_eq!(turns, ["eu/2 out drained", "eu/3 out silent", "eu/2 out undrained"]);
    // Whichever was linked first.
    back.sort_unstable();
    assert_eq!(back, if returns { vec!["eu/2 in stable", "eu/3 in stable"] } else { Vec::new() });

    // Each order moves what it says and nothing else.
    let moves = chronicle.moves(at_rest);
    let within =
        |from: u64, to: u64| -> Vec<&Move> { moves.iter().filter(|moved| (from..to).contains(&moved.at)).collect() };
    let (first, second) = (within(at_rest, held), within(resumed, undrained));
    assert_eq!(first.len(), share * CHECKS, "{first:#?}");
    assert!(first.iter().all(|moved| moved.from == DRAINED), "others' hosts move: {first:#?}");
    assert_eq!(within(held, resumed), [] as [&Move; 0], "moves were held");
    let of_killed = before.values().filter(|owner| **owner == 3).count();
    assert_eq!(second.len(), of_killed * CHECKS, "{second:#?}");
    assert!(second.iter().all(|moved| moved.from == KILLED && moved.to == HEIR), "{second:#?}");
    assert!(returns || within(undrained, u64::MAX).is_empty(), "{moves:#?}");

    let taken_up = judged.asked.begun(&first).saturating_sub(drained);
    assert!(taken_up <= millis(LOAD.interval + BUSY), "taken up {taken_up} ms after the order");
    // Every silence counted anew from the order.
    let out = when(&chronicle.presences, at_rest, "eu/3 out silent");
    assert!(out + millis(APART) >= resumed + millis(FAILOVER_AFTER), "{} ms after the order", out - resumed);
    let taken_over = judged.asked.begun(&second).saturating_sub(answered);
    let bound = millis(FAILOVER_AFTER + LOAD.interval + BUSY);
    assert!(taken_over <= bound, "taken over {taken_over} ms after moves were resumed");
    figure(
        CLAIM,
        &format!(
            "drain: {} checks asked by others {taken_up} ms after the order; moves held: none moved while a slot was lost; resumed: its {} \
             checks asked by another {taken_over} ms after; {}; one incident; {} answers, {} in flight, 0 lost, 0 twice, {} grants, never \
             two living of one check",
            first.len(),
            second.len(),
            if returns { "both slots given back and every host where it was" } else { "both slots linked again" },
            judged.verdict.answers,
            judged.verdict.in_flight,
            judged.ownership.grants
        ),
    );
}
