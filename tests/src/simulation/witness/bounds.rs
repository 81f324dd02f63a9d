//! The witness on what a satellite may hold (I9): bytes on its volume, what others must be left there, age, and bytes in memory. Exact:
//! beyond a bound lies only what may not go, and that is known to the byte.
//!
//! The surprise: what may go is not gone at once. A look, a measurement and a deed are orders to a disk that has others to do, so a
//! bound is broken when it has been for some time and some orders, on a disk that refused none of them.

use std::collections::BTreeMap;
use std::time::Duration;

use satellite::command::{Limits, Room};
use satellite::outbox::bounds::{FREE_FLOOR, FREE_SHARE, LOOK_EVERY};
use shared::name::{InstanceId, RunId};
use shared::time::Timestamp;

use super::Witness;
use crate::simulation::volume::Weight;
use crate::simulation::world::nanos;

/// A disk that does what it is told has done it within this, and within so many of its answers.
pub(in crate::simulation) const SOON: Duration = Duration::from_secs(20);
const ANSWERS: u64 = 8;

/// A bound that is broken: since when, and how often the disk has answered since.
#[derive(Debug, Clone, Copy)]
struct Broken {
    since: u64,
    answers: u64,
}

/// One process's bounds.
#[derive(Debug, Default)]
pub(super) struct Bounded {
    bytes: Option<Broken>,
    age: Option<Broken>,
    /// Which piece is too old: the next one has its own time to go.
    oldest: Option<(Timestamp, RunId)>,
    /// Less was free than is left to others when so much was held; until twice that is free.
    ceiling: Option<u64>,
}

/// All of them.
pub(super) type AllBounded = BTreeMap<InstanceId, Bounded>;

/// How one answer of the disk finds things.
#[derive(Debug)]
pub(in crate::simulation) struct Weighing {
    pub(in crate::simulation) weight: Weight,
    pub(in crate::simulation) room: Room,
    /// The master's time, if the process knows it.
    pub(in crate::simulation) time: Option<Timestamp>,
    /// It refuses nothing and is not slow.
    pub(in crate::simulation) healthy: bool,
}

fn judge(broken: &mut Option<Broken>, is: bool, now: u64, within: Duration) -> bool {
    if !is {
        *broken = None;
        return false;
    }
    let known = broken.get_or_insert(Broken { since: now, answers: 0 });
    known.answers += 1;
    known.answers > ANSWERS && now.saturating_sub(known.since) > nanos(within)
}

impl Witness {
    /// Others leave a process less of its volume than is left to them: what it has delivered goes before anything new stays.
    #[must_use]
    pub(in crate::simulation) fn is_crowded(&self, id: InstanceId) -> bool {
        self.bounded.get(&id).is_some_and(|bounded| bounded.ceiling.is_some())
    }

    /// A disk has answered, and this is what lies there.
    pub(in crate::simulation) fn weighed(&mut self, id: InstanceId, found: &Weighing, limits: &Limits) {
        let Weighing { weight, room, time, healthy } = found;
        let bounded = self.bounded.entry(id).or_default();
        let left = FREE_FLOOR.min(room.size / FREE_SHARE);
        if room.size == 0 || room.free >= 2 * left {
            bounded.ceiling = None;
        } else if room.free < left {
            bounded.ceiling.get_or_insert(room.held);
        }
        let bound = bounded.ceiling.map_or(limits.bytes, |ceiling| limits.bytes.min(ceiling));
        let over = weight.held > bound + weight.pinned;
        let heavy = judge(&mut bounded.bytes, *healthy && over, self.now, SOON);
        let oldest = time.map(|time| time.minus(limits.age));
        let old = weight.oldest.zip(oldest).is_some_and(|((ended, _), oldest)| ended < oldest);
        if std::mem::replace(&mut bounded.oldest, weight.oldest) != weight.oldest {
            bounded.age = None;
        }
        let look = LOOK_EVERY.min(limits.age / 8);
        let stale = judge(&mut bounded.age, *healthy && old, self.now, look + SOON);
        let crowded = bounded.ceiling.is_some();
        if crowded {
            self.reach("others fill the volume, and the spool grows no more");
        }
        if heavy {
            self.violated("I9", format!("{id} holds {weight:?} of {bound}, and has for long"));
        }
        if let (true, Some((ended, run)), Some(oldest)) = (stale, weight.oldest, oldest) {
            let (ended, oldest) = (ended.as_millis(), oldest.as_millis());
            self.violated("I9", format!("{id} holds what ended {} ms too early, of {run}", oldest - ended));
        }
    }

    /// The master's journal was trimmed: no more than its bound lies there, beside what a start needs.
    pub(in crate::simulation) fn journal(&mut self, held: u64, needed: u64, bound: u64) {
        if held > bound.max(needed) {
            self.violated("I9", format!("the journal holds {held} bytes of {bound}, of which a start needs {needed}"));
        }
    }

    /// What a process holds in memory: no more than it may, beside what its disk is just being given and a gap record a run.
    pub(in crate::simulation) fn remembers(
        &mut self,
        id: InstanceId,
        waiting: usize,
        under_way: usize,
        gaps: usize,
        bound: usize,
    ) {
        const GAP: usize = 192;
        if waiting > bound + under_way + gaps * GAP {
            self.violated(
                "I9",
                format!("{id} holds {waiting} bytes in memory of {bound}, {under_way} of them under way"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(held: u64, pinned: u64) -> Weighing {
        let weight = Weight { held, pinned, oldest: None };
        Weighing { weight, room: Room { held, ..Room::default() }, time: None, healthy: true }
    }

    #[test]
    fn a_bound_is_broken_by_what_could_have_gone_for_long() {
        let limits = Limits { bytes: 1000, ..Limits::DEFAULT };
        let id = InstanceId([1; 16]);
        let violations = |found: &Weighing, healthy_at: u64| {
            let mut witness = Witness::default();
            for second in 0..40 {
                witness.now = second * 1_000_000_000;
                let healthy = second != healthy_at;
                let found = Weighing { healthy, ..*found };
                witness.weighed(id, &found, &limits);
            }
            !witness.violations().is_empty()
        };
        assert!(violations(&found(1001, 0), 40));
        assert!(!violations(&found(1001, 0), 20), "a disk that refuses cannot be made to forget");
        assert!(!violations(&found(1001, 1), 40), "what is pinned may lie there");
        assert!(!violations(&found(1000, 0), 40));
        let old = |ended| Weighing {
            weight: Weight { oldest: Some((Timestamp::from_millis(ended), RunId([1; 16]))), ..Weight::default() },
            time: Some(Timestamp::from_millis(1_000_000)),
            ..found(0, 0)
        };
        let limits = Limits { age: Duration::from_secs(80), ..limits };
        let mut witness = Witness::default();
        for second in 0..40 {
            witness.now = second * 1_000_000_000;
            witness.weighed(id, &old(920_001), &limits);
        }
        assert!(witness.violations().is_empty());
        for second in 40..80 {
            witness.now = second * 1_000_000_000;
            witness.weighed(id, &old(919_999), &limits);
        }
        assert!(!witness.violations().is_empty());
    }
}
