//! States that owners tell when they are back: who may, what they do, and that they do nothing else.

use shared::delivery::Key;
use shared::snapshot::{STATES_MAX, Said, StateTold};

use super::*;
use crate::coordinator::snapshot::NOT_HOLDER;

fn key(grant: Grant, counter: u64, sequence: u64) -> Key {
    Key { grant, counter: RunCounter(counter), sequence: Sequence(sequence) }
}

fn tell(check: CheckId, key: Key, state: State) -> ToMaster {
    let (state, _) = CheckState::pending(1).apply(state, Confirmation { max_attempts: 1 }, AT);
    let said = Said {
        scheduled: AT,
        started: AT,
        duration_us: 1000,
        exit: Some(Exit::Ran(2)),
        passive: false,
        output: "as told".into(),
        authenticated: None,
        offset_ms: None,
    };
    ToMaster::State(Box::new(StateTold { check, key, state, said: Some(said), command: None }))
}

/// How many rows hold told states.
fn snapshots(bench: &Bench) -> usize {
    bench.journal.iter().filter(|row| matches!(row.entry, Entry::Snapshot(_))).count()
}

fn heard(bench: &Bench) -> usize {
    bench.sent.iter().filter(|(_, message)| *message == ToSatellite::StatesHeard).count()
}

#[test]
fn a_told_state_counts_at_once_and_its_result_is_late_when_it_comes() {
    let (mut bench, catalog, mut teller) = with_one_slot();
    let (check, grant) = owned(&bench, "host1!load");
    bench.control(1, &[tell(check, key(grant, 1, 3), State::Critical)], seconds(1));
    bench.drain();
    assert_eq!(
        (bench.object("host1!load").state.state, heard(&bench)),
        (State::Pending, 0),
        "not before it is durable"
    );
    bench.settle();
    let object = bench.object("host1!load");
    assert_eq!((object.state.state, object.key), (State::Critical, key(grant, 1, 3)));
    assert_eq!(object.last.as_ref().unwrap().output, "as told");
    let change = bench.journal.last().unwrap().outcomes.verdicts[0].change.unwrap();
    assert!(change.current && change.hard && change.not_before.is_none());
    // State only.
    let state = &bench.coordinator.published().slots()[&slot("eu", 1)];
    assert!(state.runs.is_empty() && state.results == 0 && bench.acknowledged().is_empty());
    assert_eq!(heard(&bench), 1);
    let results = [(check, grant, State::Ok), (check, grant, State::Ok), (check, grant, State::Critical)];
    bench.batch(1, teller.tell(&results));
    bench.settle();
    let verdicts = &bench.journal.last().unwrap().outcomes.verdicts;
    assert!(verdicts.iter().all(|verdict| verdict.effect == Effect::Late && verdict.change.is_none()), "{verdicts:?}");
    assert_eq!(bench.acknowledged(), [(1, 3)]);
    assert_eq!(bench.object("host1!load").state.state, State::Critical);
    bench.batch(1, teller.tell(&[(check, grant, State::Ok)]));
    bench.settle();
    assert_eq!(bench.object("host1!load").state.state, State::Ok);
    bench.assert_replays(&[&catalog]);
}

#[test]
fn a_change_that_is_told_lies_behind_the_last_result_known() {
    let (mut bench, catalog, mut teller) = with_one_slot();
    let (check, grant) = owned(&bench, "host1!load");
    bench.batch(1, teller.tell(&[(check, grant, State::Ok)]));
    bench.settle();
    let known = bench.object("host1!load").last.as_ref().unwrap().ended;
    bench.control(1, &[tell(check, key(grant, 1, 9), State::Critical)], seconds(1));
    bench.settle();
    let change = bench.journal.last().unwrap().outcomes.verdicts[0].change.unwrap();
    assert_eq!((change.from, change.to, change.not_before), (State::Ok, State::Critical, Some(known)));
    bench.assert_replays(&[&catalog]);
}

#[test]
fn the_same_state_again_or_an_older_one_makes_no_row() {
    let (mut bench, _, _) = with_one_slot();
    let (check, grant) = owned(&bench, "host1!load");
    for (counter, sequence) in [(1, 5), (1, 5), (1, 4), (0, 0)] {
        bench.control(1, &[tell(check, key(grant, counter, sequence), State::Critical)], seconds(1));
        bench.settle();
    }
    assert_eq!((snapshots(&bench), heard(&bench)), (1, 4));
}

#[test]
fn only_the_owner_decides_and_only_what_can_be() {
    let mut bench = Bench::new();
    let catalog = catalog(6, 80);
    bench.activate(&catalog);
    for number in 1..=2 {
        bench.connect(u64::from(number), slot("eu", number), u8::try_from(number).unwrap(), Vec::new(), seconds(1));
        bench.settle();
    }
    let of = |number: u32| {
        let status = bench.coordinator.published();
        let mut services = status.objects().filter(|object| !object.name.is_host());
        let object = services.find(|object| object.owner.as_ref().unwrap().slot == slot("eu", number)).unwrap();
        (object.id, object.owner.as_ref().unwrap().grant)
    };
    let ((own, grant), (foreign, foreign_grant)) = (of(1), of(2));
    let told = [
        tell(foreign, key(foreign_grant, 1, 1), State::Critical),
        tell(CheckId(999), key(grant, 1, 1), State::Critical),
        tell(own, key(Grant(grant.0 + 77), 1, 1), State::Critical),
        tell(own, key(grant, 0, 7), State::Critical),
        tell(own, key(grant, 1, 1), State::Down),
        tell(own, key(grant, 0, 0), State::Critical),
        tell(own, key(grant, 1, 1), State::Warning),
    ];
    bench.control(1, &told, seconds(2));
    bench.settle();
    let row = bench.journal.last().unwrap();
    let effects: Vec<Effect> = row.outcomes.verdicts.iter().map(|verdict| verdict.effect).collect();
    assert_eq!(
        effects,
        [
            Effect::RefusedForeign,
            Effect::RefusedUnknown,
            Effect::RefusedForeign,
            Effect::RefusedMalformed,
            Effect::RefusedMalformed,
            Effect::Current,
            Effect::Current
        ]
    );
    let status = bench.coordinator.published();
    assert_eq!(status.object(own).unwrap().state.state, State::Warning);
    assert_eq!(status.object(foreign).unwrap().state.state, State::Pending);
    assert_eq!(status.slots()[&slot("eu", 1)].refused, 5);
    bench.assert_replays(&[&catalog]);
}

#[test]
fn a_state_under_a_grant_that_has_ended_is_nothing() {
    let (mut bench, catalog, _) = with_one_slot();
    let (check, grant) = owned(&bench, "host1!load");
    bench.connect(2, slot("eu", 1), 2, Vec::new(), seconds(2));
    bench.settle();
    bench.control(2, &[tell(check, key(grant, 1, 1), State::Critical)], seconds(2));
    bench.settle();
    assert_eq!((snapshots(&bench), bench.object("host1!load").state.state), (0, State::Pending));
    bench.assert_replays(&[&catalog]);
}

#[test]
fn whoever_does_not_hold_the_slot_or_was_not_welcomed_decides_nothing() {
    let (mut bench, _, _) = with_one_slot();
    bench.connect(2, slot("eu", 1), 2, Vec::new(), seconds(2));
    bench.settle();
    let (check, grant) = owned(&bench, "host1!load");
    let told = tell(check, key(grant, 1, 1), State::Critical);
    let marker = ToMaster::StatesEnd(Generation(1));
    // Fenced; not yet said hello; said hello, and the welcome waits for its commit.
    bench.control(1, &[told.clone(), marker.clone()], seconds(3));
    bench.coordinator.handle_connected(ConnectionId(3), slot("eu", 1), "192.0.2.1:1".into(), seconds(3));
    bench.control(3, &[told.clone(), marker.clone()], seconds(3));
    bench.settle();
    bench.connect(4, slot("eu", 1), 4, Vec::new(), seconds(3));
    bench.control(4, &[told, marker], seconds(3));
    bench.settle();
    assert_eq!((snapshots(&bench), bench.object("host1!load").state.state), (0, State::Pending));
    let view = bench.coordinator.view(seconds(3));
    assert_eq!(view.refused, BTreeMap::from([(NOT_HOLDER, 3)]));
    assert!(!view.links[&slot("eu", 1)].settled);
}

#[test]
fn a_frame_of_too_many_states_closes_its_link() {
    let (mut bench, _, _) = with_one_slot();
    let (check, grant) = owned(&bench, "host1!load");
    let told = (0..=STATES_MAX as u64).map(|n| tell(check, key(grant, 1, n + 1), State::Critical));
    let payload = message::encode(&told.collect::<Vec<_>>()).remove(0);
    bench.coordinator.handle_control(ConnectionId(1), &payload, seconds(1), AT);
    bench.drain();
    assert!(matches!(&bench.closed[..], [(ConnectionId(1), Cut::Protocol(_))]));
}

#[test]
fn a_slot_is_settled_from_its_marker_until_it_is_silent_for_a_lease() {
    let (mut bench, _, _) = with_one_slot();
    let (check, grant) = owned(&bench, "host1!load");
    let shown = |bench: &Bench, at: u64| {
        let view = bench.coordinator.view(seconds(at));
        (view.links[&slot("eu", 1)].settled, view.is_stale(bench.object("host1!load")))
    };
    let marker = ToMaster::StatesEnd(Generation(1));
    assert_eq!(shown(&bench, 1), (false, true));
    bench.control(1, &[tell(check, key(grant, 1, 1), State::Critical), marker.clone()], seconds(2));
    bench.drain();
    assert_eq!(shown(&bench, 2), (false, true), "what was told before the marker is not durable");
    bench.settle();
    assert_eq!(shown(&bench, 2), (true, false));
    // A link that is lost and made again within the lease changes nothing.
    bench.coordinator.handle_disconnected(ConnectionId(1));
    bench.connect(2, slot("eu", 1), 1, Vec::new(), seconds(6));
    bench.settle();
    bench.control(2, &[ToMaster::Heartbeat(Heartbeat::default())], seconds(7));
    assert_eq!(shown(&bench, 7), (true, false));
    // Silent: stale. Heard again on a link that outlived it: asked anew, and stale until the marker.
    let late = 7 + LEASE.as_secs();
    assert_eq!(shown(&bench, late), (false, true));
    bench.sent.clear();
    bench.control(2, &[ToMaster::Heartbeat(Heartbeat::default())], seconds(late));
    bench.settle();
    assert_eq!((shown(&bench, late), bench.upserts(2)), ((false, true), 4));
    bench.control(2, &[marker], seconds(late + 1));
    bench.settle();
    assert_eq!(shown(&bench, late + 1), (true, false));
}

#[test]
fn a_marker_on_a_link_that_its_process_has_left_settles_nothing() {
    let (mut bench, _, _) = with_one_slot();
    let (check, grant) = owned(&bench, "host1!load");
    let marker = ToMaster::StatesEnd(Generation(1));
    let settled = |bench: &Bench| bench.coordinator.view(seconds(3)).links[&slot("eu", 1)].settled;
    // Heard before the next link's hello, durable after it.
    bench.control(1, &[tell(check, key(grant, 1, 1), State::Critical), marker.clone()], seconds(2));
    bench.drain();
    bench.connect(2, slot("eu", 1), 1, Vec::new(), seconds(2));
    bench.settle();
    assert!(!settled(&bench), "what it knows by now it tells on the new link");
    bench.control(1, std::slice::from_ref(&marker), seconds(3));
    bench.settle();
    assert!(!settled(&bench), "the old link still brings what was on its way");
    bench.coordinator.handle_disconnected(ConnectionId(2));
    bench.control(1, std::slice::from_ref(&marker), seconds(3));
    bench.settle();
    assert!(!settled(&bench), "also when the new one has gone before it");
    bench.connect(3, slot("eu", 1), 1, Vec::new(), seconds(3));
    bench.settle();
    bench.control(3, &[marker], seconds(3));
    bench.settle();
    assert!(settled(&bench));
}

#[test]
fn a_satellite_that_tells_no_states_is_settled_when_it_runs_what_it_owns() {
    let (mut bench, _, _) = with_one_slot();
    bench.coordinator.handle_connected(ConnectionId(2), slot("eu", 2), "192.0.2.1:1".into(), seconds(1));
    let hello = Hello {
        protocol: message::PROTOCOL,
        software: "0".into(),
        instance: InstanceId([9; 16]),
        fenced: false,
        timeline: None,
        grant: Grant(0),
        generation: Generation(0),
        check: CheckId(0),
        runs: Vec::new(),
        clock: AT,
        tells_states: false,
        credit: false,
    };
    bench.control(2, &[ToMaster::Hello(Box::new(hello))], seconds(1));
    bench.settle();
    assert!(!bench.coordinator.view(seconds(1)).links[&slot("eu", 2)].settled);
    bench.control(2, &[ToMaster::Applied(Generation(1))], seconds(1));
    bench.settle();
    assert!(bench.coordinator.view(seconds(1)).links[&slot("eu", 2)].settled);
}
