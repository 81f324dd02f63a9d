//! Who has a slot: a new process takes it, the one before is fenced and waits.

use super::*;

#[test]
fn a_new_process_takes_the_slot_and_the_old_one_is_fenced() {
    let (mut bench, catalog, mut teller) = with_one_slot();
    let (check, old_grant) = owned(&bench, "host1!load");
    bench.connect(2, slot("eu", 1), 2, Vec::new(), seconds(2));
    bench.settle();
    assert!(bench.sent.iter().any(|(id, message)| id.0 == 1 && *message == ToSatellite::Fence));
    assert!(bench.welcome(2).unwrap().holder);
    let (_, new_grant) = owned(&bench, "host1!load");
    assert!(new_grant > old_grant);
    // What the fenced process still has is history, never state.
    bench.batch(1, teller.tell(&[(check, old_grant, State::Critical)]));
    bench.settle();
    assert_eq!(bench.journal.last().unwrap().outcomes.verdicts[0].effect, Effect::Late);
    assert_eq!(bench.object("host1!load").state.state, State::Pending);
    // While the new one lives the old one does not get the slot back; when its lease has run out it does.
    bench.coordinator.handle_disconnected(ConnectionId(1));
    bench.connect(3, slot("eu", 1), 1, Vec::new(), seconds(3));
    bench.settle();
    assert!(!bench.welcome(3).unwrap().holder);
    bench.connect(4, slot("eu", 1), 1, Vec::new(), seconds(3 + LEASE.as_secs()));
    bench.settle();
    assert!(bench.welcome(4).unwrap().holder);
    bench.assert_replays(&[&catalog]);
}

#[test]
fn a_fenced_process_that_waits_is_sent_for_when_its_slot_is_free() {
    let (mut bench, _, _) = with_one_slot();
    bench.connect(2, slot("eu", 1), 2, Vec::new(), seconds(2));
    bench.settle();
    let lease = LEASE.as_secs();
    bench.coordinator.handle_timeout(seconds(3 + lease), AT);
    bench.drain();
    assert_eq!(bench.closed, [], "a holder that is connected is not passed over");
    bench.coordinator.handle_disconnected(ConnectionId(2));
    bench.coordinator.handle_timeout(seconds(4 + lease), AT);
    bench.drain();
    assert_eq!(bench.closed, [(ConnectionId(1), Cut::Vacant)]);
    bench.connect(3, slot("eu", 1), 1, Vec::new(), seconds(5 + lease));
    bench.settle();
    assert!(bench.welcome(3).unwrap().holder);
}
