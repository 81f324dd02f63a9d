//! Runs that nobody has any more are named once, and go on should they come back.

use shared::delivery::reason;

use super::*;
use crate::coordinator::stranded::{STRANDED_AFTER, STRANDED_TICK};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn after(at: Timestamp, by: Duration) -> Timestamp {
    Timestamp::from_millis(at.as_millis() + i64::try_from(by.as_millis()).unwrap())
}

fn stranded(bench: &Bench) -> Vec<(RunId, u64, Option<u64>)> {
    let gaps = bench.coordinator.published().gaps();
    let stranded = gaps.iter().filter(|seen| seen.gap.record.reason == reason::STRANDED);
    stranded.map(|seen| (seen.gap.run, seen.gap.record.first.0, seen.gap.record.lost())).collect()
}

/// A bench whose slot had delivered two results of an open run when its link went.
fn cut_off() -> (Bench, Arc<Catalog>, CheckId, Grant, Teller) {
    let (mut bench, catalog, mut teller) = with_one_slot();
    let (check, grant) = owned(&bench, "host1!load");
    bench.batch(1, teller.tell(&[(check, grant, State::Ok), (check, grant, State::Ok)]));
    bench.settle();
    bench.coordinator.handle_disconnected(ConnectionId(1));
    (bench, catalog, check, grant, teller)
}

#[test]
fn an_open_run_that_no_volume_lists_is_a_gap_after_thirty_days() {
    let (mut bench, catalog, ..) = cut_off();
    bench.coordinator.handle_timeout(seconds(10).plus(STRANDED_TICK), after(AT, STRANDED_AFTER - DAY));
    bench.settle();
    assert!(stranded(&bench).is_empty(), "a spool may still have it");
    // The slot is back, on another volume.
    let later = after(AT, STRANDED_AFTER);
    bench.connect(2, slot("eu", 1), 2, Vec::new(), seconds(4000));
    bench.settle();
    bench.coordinator.handle_timeout(seconds(20).plus(STRANDED_TICK * 2), later);
    bench.settle();
    assert_eq!(stranded(&bench), [(RunId([1; 16]), 3, None)], "from the third on, nobody knows how many");
    let gap = bench.coordinator.published().gaps().last().unwrap().clone();
    assert!(gap.gap.explained && gap.gap.record.from == Some(AT) && gap.at >= later);
    bench.coordinator.handle_timeout(seconds(30).plus(STRANDED_TICK * 3), later);
    bench.settle();
    assert_eq!(stranded(&bench).len(), 1, "once");
    bench.assert_replays(&[&catalog]);
}

#[test]
fn a_run_that_somebody_lists_is_not_stranded_however_long_it_is_silent() {
    let (mut bench, ..) = cut_off();
    let held =
        HeldRun { run: RunId([1; 16]), counter: RunCounter(1), first: Sequence(1), last: Sequence(2), open: true };
    bench.connect(2, slot("eu", 1), 1, vec![held], seconds(4000));
    bench.settle();
    bench.coordinator.handle_timeout(seconds(20).plus(STRANDED_TICK * 2), after(AT, STRANDED_AFTER * 2));
    bench.settle();
    assert!(stranded(&bench).is_empty());
}

#[test]
fn a_stranded_run_that_comes_back_goes_on() {
    let (mut bench, catalog, check, grant, mut teller) = cut_off();
    bench.coordinator.handle_timeout(seconds(10).plus(STRANDED_TICK), after(AT, STRANDED_AFTER));
    bench.settle();
    assert_eq!(stranded(&bench).len(), 1);
    bench.connect(2, slot("eu", 1), 1, Vec::new(), seconds(4000));
    bench.batch(2, teller.tell(&[(check, grant, State::Critical)]));
    bench.settle();
    assert_eq!(bench.journal.last().unwrap().outcomes.verdicts[0].effect, Effect::Current);
    assert_eq!(bench.acknowledged().last(), Some(&(2, 3)));
    bench.assert_replays(&[&catalog]);
}
