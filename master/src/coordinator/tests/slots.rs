//! Slots lost and back, drained and given back; a master that is cut off; clocks that were set; protocols before and after ours.

use shared::message::{ClockStep, PROTOCOL};

use super::*;
use crate::entry::{Incident, IncidentKind, Moves, Presence};
use crate::status::attention::OpenIncident;

/// A bench with this many slots of one region, all connected at second 0; connection n is slot n's.
fn with_slots(number: u32) -> (Bench, Arc<Catalog>) {
    let mut bench = Bench::new();
    let catalog = catalog(20, 80);
    bench.activate(&catalog);
    for number in 1..=number {
        bench.connect(u64::from(number), slot("eu", number), u8::try_from(number).unwrap(), Vec::new(), seconds(0));
        bench.settle();
    }
    (bench, catalog)
}

impl Bench {
    /// Goes on second by second; these connections are heard.
    fn live(&mut self, from: u64, to: u64, heard: &[u64]) {
        for second in from..=to {
            for id in heard {
                self.control(*id, &[ToMaster::Heartbeat(Heartbeat::default())], seconds(second));
            }
            let at = AT.plus(Duration::from_secs(second));
            self.coordinator.handle_timeout(seconds(second), at);
            self.settle();
        }
    }

    fn share(&self, number: u32) -> usize {
        let of = |object: &&Arc<crate::status::Object>| {
            object.owner.as_ref().is_some_and(|owner| owner.slot == slot("eu", number))
        };
        self.coordinator.published().objects().filter(of).count()
    }

    fn order(&mut self, order: &Order, second: u64) -> Obeyed {
        self.coordinator.handle_order(RequestId(7), order, "ann", seconds(second), AT);
        self.settle();
        self.obeyed.pop().unwrap()
    }

    fn incidents(&self) -> Vec<Incident> {
        let of = |row: &Row| if let Entry::Incident(incident) = &row.entry { Some(incident.clone()) } else { None };
        self.journal.iter().filter_map(of).collect()
    }

    fn open(&self) -> &[OpenIncident] {
        self.coordinator.published().attention().incidents()
    }
}

#[test]
fn a_lost_slot_is_one_incident_whatever_it_owned_and_no_check_changes_its_state() {
    let (mut bench, catalog) = with_slots(3);
    let states: Vec<_> = bench.coordinator.published().objects().map(|object| object.state).collect();
    let owned = u64::try_from(bench.share(3)).unwrap();
    bench.coordinator.handle_disconnected(ConnectionId(3));
    bench.live(1, 59, &[1, 2]);
    assert_eq!(bench.open(), []);
    bench.live(60, 100, &[1, 2]);
    let lost = bench.open()[0].clone();
    assert_eq!((lost.incident.kind, &lost.incident.slot), (IncidentKind::SlotLost, &Some(slot("eu", 3))));
    assert_eq!((lost.incident.checks, lost.incident.moved, bench.share(3)), (owned, owned, 0));
    let after: Vec<_> = bench.coordinator.published().objects().map(|object| object.state).collect();
    assert_eq!(states, after);
    bench.connect(4, slot("eu", 3), 3, Vec::new(), seconds(101));
    bench.live(101, 110, &[1, 2, 4]);
    let rows = bench.incidents();
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert_eq!((rows[1].open, rows[1].reason.as_str(), rows[1].opened), (false, "heard", Some(lost.index)));
    assert_eq!(bench.open(), []);
    bench.assert_replays(&[&catalog]);
}

#[test]
fn a_slot_alone_in_its_region_is_lost_and_keeps_its_checks() {
    let (mut bench, catalog) = with_slots(1);
    let grant = owned(&bench, "host1!load").1;
    bench.live(1, 90, &[]);
    assert_eq!((bench.open().len(), bench.open()[0].incident.moved), (1, 0));
    bench.connect(2, slot("eu", 1), 1, Vec::new(), seconds(91));
    bench.live(91, 92, &[2]);
    assert_eq!(owned(&bench, "host1!load").1, grant, "the returning slot is current at once");
    assert_eq!(bench.open(), []);
    bench.assert_replays(&[&catalog]);
}

#[test]
fn a_drained_slot_is_out_at_once_and_in_again_when_it_is_given_back_and_stable() {
    let (mut bench, catalog) = with_slots(3);
    let shares = [1, 2, 3].map(|number| bench.share(number));
    let moved = u64::try_from(shares[1]).unwrap();
    assert_eq!(bench.order(&Order::Drain(slot("eu", 2)), 5), Obeyed::Done { moved, kept: 0 });
    assert_eq!(bench.share(2), 0);
    let Entry::Presence(Presence { drain, author, .. }) = &bench.journal.last().unwrap().entry else {
        panic!("no presence")
    };
    assert_eq!((*drain, author.as_deref()), (Some(true), Some("ann")));
    assert_eq!(bench.order(&Order::Drain(slot("eu", 2)), 6), Obeyed::Unchanged);
    // Neither long connected nor silent does it come back or count as lost.
    bench.live(6, 300, &[1, 2, 3]);
    bench.live(301, 400, &[1, 3]);
    assert_eq!((bench.share(2), bench.open()), (0, &[][..]));
    assert_eq!(bench.order(&Order::Undrain(slot("eu", 2)), 401), Obeyed::Done { moved: 0, kept: 0 });
    bench.live(401, 402, &[1, 2, 3]);
    assert_eq!([1, 2, 3].map(|number| bench.share(number)), shares, "connected for longer than it takes to be stable");
    bench.assert_replays(&[&catalog]);
}

#[test]
fn a_drained_slot_goes_on_with_what_nobody_can_take_over() {
    let (mut bench, catalog) = with_slots(1);
    assert_eq!(bench.order(&Order::Drain(slot("eu", 1)), 5), Obeyed::Done { moved: 0, kept: 40 });
    assert_eq!(bench.share(1), 40);
    bench.connect(2, slot("eu", 2), 2, Vec::new(), seconds(6));
    bench.settle();
    assert_eq!([bench.share(1), bench.share(2)], [0, 40]);
    bench.assert_replays(&[&catalog]);
}

#[test]
fn a_slot_can_be_drained_before_it_comes_and_none_that_is_unheard_of() {
    let (mut bench, catalog) = with_slots(1);
    assert_eq!(bench.order(&Order::Drain(slot("eu", 9)), 5), Obeyed::Unknown);
    assert_eq!(bench.order(&Order::Undrain(slot("us", 1)), 5), Obeyed::Unknown);
    assert_eq!(bench.order(&Order::Drain(slot("eu", 2)), 5), Obeyed::Done { moved: 0, kept: 0 });
    bench.connect(2, slot("eu", 2), 2, Vec::new(), seconds(6));
    bench.settle();
    assert!(bench.welcome(2).unwrap().holder);
    assert_eq!([bench.share(1), bench.share(2)], [40, 0]);
    bench.assert_replays(&[&catalog]);
}

#[test]
fn an_order_that_cannot_be_committed_has_changed_nothing() {
    let (mut bench, _) = with_slots(3);
    let before = bench.coordinator.published().encode();
    bench.coordinator.handle_order(RequestId(1), &Order::Drain(slot("eu", 2)), "ann", seconds(5), AT);
    bench.drain();
    bench.waiting = None;
    bench.coordinator.handle_commit_failed(seconds(5));
    bench.drain();
    assert_eq!(bench.obeyed.pop(), Some(Obeyed::NotCommitted));
    assert_eq!(bench.order(&Order::Hold, 5), Obeyed::NotCommitted, "while no commit is tried");
    assert_eq!(bench.coordinator.published().encode(), before);
}

#[test]
fn an_operator_says_that_the_master_is_not_cut_off_and_it_is_in_the_journal_with_the_name() {
    let (mut bench, catalog) = with_slots(3);
    bench.live(1, 100, &[1]);
    assert!(bench.coordinator.published().attention().cut_off());
    assert_eq!(bench.incidents().len(), 1, "one alert, no slot by itself");
    assert_eq!(bench.order(&Order::Resume, 101), Obeyed::Done { moved: 0, kept: 0 });
    let rows = &bench.journal[bench.journal.len() - 2..];
    assert_eq!(rows[0].entry, Entry::Moves(Moves { held: false, author: "ann".into() }));
    assert!(
        matches!(&rows[1].entry, Entry::Incident(end) if end.reason == "resumed" && end.author.as_deref() == Some("ann"))
    );
    bench.live(101, 160, &[1]);
    assert_eq!((bench.open(), bench.share(1)), (&[][..], bench.share(1)));
    bench.live(161, 162, &[1]);
    assert_eq!((bench.open().len(), bench.share(1)), (2, 40), "each silent slot's time began anew");
    assert_eq!(bench.order(&Order::Resume, 163), Obeyed::Unchanged);
    bench.assert_replays(&[&catalog]);
}

#[test]
fn a_master_that_starts_while_it_is_cut_off_still_is() {
    let (mut bench, catalog) = with_slots(3);
    bench.live(1, 100, &[1]);
    let mut status = Status::decode(&bench.coordinator.published().encode()).unwrap();
    status.catalog = Some(Arc::clone(&catalog));
    let identity = Identity { installation: "test".parse().unwrap(), software: "0".into() };
    bench.coordinator = Coordinator::new(identity, status, Timeline(42), seconds(200), AT);
    bench.live(200, 300, &[]);
    assert_eq!(bench.incidents().len(), 1);
    assert_eq!(bench.share(1) + bench.share(2) + bench.share(3), 40);
    bench.connect(11, slot("eu", 1), 1, Vec::new(), seconds(301));
    bench.connect(12, slot("eu", 2), 2, Vec::new(), seconds(301));
    bench.live(301, 302, &[11, 12]);
    assert_eq!(bench.incidents().last().map(|end| end.reason.clone()), Some("connected".to_owned()));
    bench.assert_replays(&[&catalog]);
}

#[test]
fn while_an_operator_holds_the_moves_a_loss_moves_nothing() {
    let (mut bench, catalog) = with_slots(3);
    let share = bench.share(3);
    assert_eq!(bench.order(&Order::Hold, 1), Obeyed::Done { moved: 0, kept: 0 });
    assert_eq!(bench.order(&Order::Hold, 2), Obeyed::Unchanged);
    bench.live(2, 90, &[1, 2]);
    assert_eq!((bench.open().len(), bench.share(3)), (1, share));
    assert!(bench.coordinator.view(seconds(90)).held_off);
    bench.order(&Order::Resume, 91);
    bench.live(92, 152, &[1, 2]);
    assert_eq!((bench.incidents().len(), bench.share(3)), (1, 0));
    bench.assert_replays(&[&catalog]);
}

#[test]
fn a_clock_that_was_set_is_one_row_however_often_it_is_told() {
    let (mut bench, catalog) = with_slots(2);
    let step = |number, by_ms| ToMaster::ClockStep(ClockStep { number, by_ms, at: AT });
    let rows = bench.journal.len();
    bench.control(1, &[step(1, 3_600_000)], seconds(1));
    bench.control(1, &[step(1, 3_600_000), step(2, -90_000)], seconds(2));
    bench.settle();
    let told: Vec<_> = bench.journal[rows..]
        .iter()
        .map(|row| if let Entry::ClockStep(step) = &row.entry { (step.number, step.by_ms) } else { (0, 0) })
        .collect();
    assert_eq!(told, [(1, 3_600_000), (2, -90_000)]);
    // Another process of the slot counts its own; the one that was fenced is not asked any more.
    bench.connect(5, slot("eu", 1), 9, Vec::new(), seconds(3));
    bench.settle();
    let rows = bench.journal.len();
    bench.control(1, &[step(3, 1000)], seconds(4));
    bench.control(5, &[step(1, 7000)], seconds(4));
    bench.settle();
    assert_eq!(bench.journal.len(), rows + 1);
    let seen = &bench.coordinator.published().attention().steps[&slot("eu", 1)];
    assert_eq!((seen.number, seen.by_ms, seen.instance), (1, 7000, Some(InstanceId([9; 16]))));
    bench.assert_replays(&[&catalog]);
}

#[test]
fn the_masters_own_clock_that_was_set_is_a_row_and_no_time_decreases() {
    for by in [-3_600_000_i64, 3_600_000, -i64::from(u32::MAX)] {
        let (mut bench, catalog) = with_slots(2);
        bench.live(1, 5, &[1, 2]);
        let rows = bench.journal.len();
        for second in 6..20 {
            let at = AT.plus(Duration::from_secs(second)).as_millis() + by;
            bench.coordinator.handle_timeout(seconds(second), Timestamp::from_millis(at));
            bench.settle();
        }
        let steps: Vec<_> = bench.journal[rows..]
            .iter()
            .filter_map(
                |row| if let Entry::ClockStep(step) = &row.entry { Some((step.by_ms, &step.slot)) } else { None },
            )
            .collect();
        assert_eq!(steps, [(by, &None)]);
        assert!(bench.journal.is_sorted_by_key(|row| row.at), "{by}");
        assert_eq!(bench.coordinator.published().attention().own_step.as_ref().map(|step| step.by_ms), Some(by));
        bench.assert_replays(&[&catalog]);
    }
}

#[test]
fn a_satellite_says_itself_how_far_its_clock_is_off() {
    let (mut bench, _) = with_slots(1);
    let beat = |offset_ms| {
        ToMaster::Heartbeat(Heartbeat { clock: AT.plus(Duration::from_secs(9)), offset_ms, ..Heartbeat::default() })
    };
    bench.control(1, &[beat(None)], seconds(1));
    let offset = |bench: &Bench| bench.coordinator.view(seconds(1)).links[&slot("eu", 1)].offset_ms;
    assert_eq!(offset(&bench), -9000, "as seen from here, where it does not say");
    bench.control(1, &[beat(Some(-8_990))], seconds(1));
    assert_eq!(offset(&bench), -8_990);
}

#[test]
fn a_result_from_the_future_ends_when_it_came_and_is_counted() {
    let (mut bench, catalog, mut teller) = with_one_slot();
    let (check, grant) = owned(&bench, "host1!load");
    let future = |by_ms: i64| {
        let mut builder = BatchBuilder::default();
        let (after, _) = CheckState::pending(1).apply(State::Critical, Confirmation { max_attempts: 1 }, AT);
        builder.push(&CheckResult {
            check,
            grant,
            scheduled: Timestamp::from_millis(AT.as_millis() + by_ms),
            started: Timestamp::from_millis(AT.as_millis() + by_ms),
            duration_us: 0,
            exit: Some(Exit::Ran(2)),
            passive: false,
            output: "x".into(),
            long_output: String::new(),
            perfdata: String::new(),
            metrics: Vec::new(),
            authenticated: None,
            after,
            command: None,
            offset_ms: None,
        });
        builder
    };
    // (ahead, as it is stored, counted)
    let century = 74 * 365 * 24 * 3_600_000_i64;
    let table =
        [(-5_000, -5_000, 0), (400, 0, 0), (3_600_000, 0, 1), (century, 0, 2), (-AT.as_millis(), -AT.as_millis(), 2)];
    for (ahead, stored, counted) in table {
        let sequence = Sequence(teller.next);
        teller.next += 1;
        let header = BatchHeader {
            timeline: Timeline(42),
            generation: Generation(1),
            run: RunId([1; 16]),
            counter: RunCounter(1),
            first: sequence,
            last: sequence,
        };
        bench.batch(1, future(ahead).finish(&header));
        bench.settle();
        let last = bench.object("host1!load").last.clone().unwrap();
        assert_eq!(last.ended.as_millis() - AT.as_millis(), stored, "{ahead}");
        assert_eq!(bench.coordinator.view(seconds(1)).future, counted, "{ahead}");
    }
    bench.assert_replays(&[&catalog]);
}

#[test]
fn satellites_of_the_versions_around_ours_are_spoken_to_in_what_both_know() {
    for (theirs, spoken) in [(0, None), (1, Some(1)), (PROTOCOL, Some(PROTOCOL)), (PROTOCOL + 1, Some(PROTOCOL))] {
        let (mut bench, _) = with_slots(0);
        bench.coordinator.handle_connected(ConnectionId(1), slot("eu", 1), "192.0.2.1:1".into(), seconds(1));
        let hello = Hello {
            protocol: theirs,
            software: "9".into(),
            instance: InstanceId([1; 16]),
            fenced: false,
            timeline: None,
            grant: Grant(0),
            generation: Generation(0),
            check: CheckId(0),
            runs: Vec::new(),
            clock: AT,
            tells_states: theirs > 1,
            credit: theirs > 1,
        };
        bench.control(1, &[ToMaster::Hello(Box::new(hello))], seconds(1));
        bench.settle();
        assert_eq!(bench.welcome(1).map(|welcome| welcome.protocol), spoken, "{theirs}");
        assert_eq!(bench.closed.is_empty(), spoken.is_some());
    }
}
