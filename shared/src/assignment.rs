//! The checks one slot owns at one generation, each with its grant and the state its new owner goes on from; and what changed
//! between two. Knows not who decides ownership (the master's `assign` and `fleet`).

use std::collections::BTreeMap;
use std::time::Duration;

use minicbor::{Decode, Encode};

use crate::check::Check;
use crate::delivery::Key;
use crate::name::{CheckId, Generation, Grant, ObjectName};
use crate::state::CheckState;

/// How often, how long, how many times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Policy {
    /// While good or hard, in milliseconds.
    #[n(0)]
    pub check_interval_ms: u64,
    /// While soft, in milliseconds.
    #[n(1)]
    pub retry_interval_ms: u64,
    /// One deadline for a whole execution, in milliseconds.
    #[n(2)]
    pub timeout_ms: u64,
    /// Problems in a row that make a state hard.
    #[n(3)]
    pub max_attempts: u32,
}

impl Policy {
    /// The interval that follows a state.
    #[must_use]
    pub fn interval(&self, state: &CheckState) -> Duration {
        let soft = state.state.is_problem() && state.state_type == crate::state::StateType::Soft;
        Duration::from_millis(if soft { self.retry_interval_ms } else { self.check_interval_ms })
    }

    /// The execution deadline.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

/// What the master knows about a check when it gives it away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Carried {
    /// The state.
    #[n(0)]
    pub state: CheckState,
    /// The key of the result that made it.
    #[n(1)]
    pub key: Key,
}

/// One check as its owner gets it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct AssignedCheck {
    /// Its number.
    #[n(0)]
    pub id: CheckId,
    /// Its name, for logs and texts.
    #[n(1)]
    pub object: ObjectName,
    /// What to ask; `None`: a kind this satellite does not know.
    #[n(2)]
    pub check: Option<Check>,
    /// When and how often.
    #[n(3)]
    pub policy: Policy,
    /// Under which grant.
    #[n(4)]
    pub grant: Grant,
    /// Where to go on from; `None` if the master has no state yet.
    #[n(5)]
    pub carried: Option<Carried>,
}

/// All the checks of one slot.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Assignment {
    /// The generation all of it belongs to.
    #[n(0)]
    pub generation: Generation,
    /// By id.
    #[n(1)]
    pub checks: BTreeMap<CheckId, AssignedCheck>,
}

/// What turns one assignment into another.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Difference {
    /// New or changed checks.
    pub upserts: Vec<AssignedCheck>,
    /// Checks that are no longer owned.
    pub removals: Vec<CheckId>,
}

impl Difference {
    /// Whether both were the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.removals.is_empty()
    }
}

/// Whether two versions of a check are the same to its owner. The carried state moves with every result and is no difference.
fn same(old: &AssignedCheck, new: &AssignedCheck) -> bool {
    old.grant == new.grant && old.check == new.check && old.policy == new.policy && old.object == new.object
}

impl Assignment {
    /// What must be said to turn `self` into `next`.
    #[must_use]
    pub fn difference(&self, next: &Assignment) -> Difference {
        let upserts = next
            .checks
            .values()
            .filter(|new| self.checks.get(&new.id).is_none_or(|old| !same(old, new)))
            .cloned()
            .collect();
        let removals = self.checks.keys().filter(|id| !next.checks.contains_key(id)).copied().collect();
        Difference { upserts, removals }
    }

    /// Applies a difference and takes its generation.
    pub fn apply(&mut self, difference: Difference, generation: Generation) {
        for id in difference.removals {
            self.checks.remove(&id);
        }
        for check in difference.upserts {
            self.checks.insert(check.id, check);
        }
        self.generation = generation;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::TcpCheck;

    fn check(id: u32, port: u16, grant: u64) -> AssignedCheck {
        AssignedCheck {
            id: CheckId(id),
            object: format!("host{id}").parse().unwrap(),
            check: Some(Check::Tcp(TcpCheck::port("127.0.0.1", port))),
            policy: Policy {
                check_interval_ms: 60_000,
                retry_interval_ms: 15_000,
                timeout_ms: 10_000,
                max_attempts: 3,
            },
            grant: Grant(grant),
            carried: None,
        }
    }

    fn assignment(generation: u64, checks: &[AssignedCheck]) -> Assignment {
        Assignment { generation: Generation(generation), checks: checks.iter().map(|c| (c.id, c.clone())).collect() }
    }

    #[test]
    fn a_difference_turns_one_into_the_other() {
        let mut old = assignment(1, &[check(1, 80, 5), check(2, 80, 5), check(3, 80, 5)]);
        let new = assignment(2, &[check(1, 80, 5), check(2, 81, 5), check(4, 80, 9)]);
        let difference = old.difference(&new);
        assert_eq!(difference.upserts.iter().map(|c| c.id.0).collect::<Vec<_>>(), [2, 4]);
        assert_eq!(difference.removals, [CheckId(3)]);
        old.apply(difference, new.generation);
        assert_eq!(old, new);
    }

    #[test]
    fn a_moved_state_alone_is_no_difference_but_a_new_grant_is() {
        let old = assignment(1, &[check(1, 80, 5)]);
        let mut carried = check(1, 80, 5);
        carried.carried = Some(Carried { state: CheckState::pending(3), key: Key::default() });
        assert!(old.difference(&assignment(1, &[carried])).is_empty());
        assert!(!old.difference(&assignment(1, &[check(1, 80, 6)])).is_empty());
    }

    #[test]
    fn a_check_of_an_unknown_kind_arrives_as_none() {
        // The same array with an enum variant 99 in the place of the check.
        let mut bytes = Vec::new();
        let mut encoder = minicbor::Encoder::new(&mut bytes);
        let known = check(1, 80, 5);
        encoder.array(6).unwrap().encode(known.id).unwrap().encode(&known.object).unwrap();
        encoder.array(2).unwrap().u32(99).unwrap().array(1).unwrap().str("?").unwrap();
        encoder.encode(known.policy).unwrap().encode(known.grant).unwrap().null().unwrap();
        let read: AssignedCheck = minicbor::decode(&bytes).unwrap();
        assert_eq!(read, AssignedCheck { check: None, ..known });
    }
}
