//! What one slot in or out changes about ownership, without a look at every check: whoever comes in is weighed against each host's
//! owner, whoever goes out leaves its own hosts to the others. Gives exactly what [`super::ownership`] would. The surprise: that holds
//! only where ownership was judged as a whole before and the catalog is the same since; who keeps a [`Placement`] answers for it.

use std::collections::{BTreeMap, BTreeSet};

use shared::name::{CheckId, HostName, RegionName, Slot, SlotNumber};

use super::present;
use crate::assign;
use crate::status::Status;

/// The hosts of each region, with what is checked of them.
#[derive(Debug)]
pub struct Placement {
    regions: BTreeMap<RegionName, Vec<(HostName, Vec<CheckId>)>>,
}

impl Placement {
    /// Of a state in which [`super::ownership`] finds nothing to change; `None` if it has no catalog.
    #[must_use]
    pub fn new(status: &Status) -> Option<Self> {
        let catalog = status.catalog.as_ref()?;
        let mut regions: BTreeMap<RegionName, Vec<(HostName, Vec<CheckId>)>> = BTreeMap::new();
        for (name, definition) in &catalog.objects {
            let Some(id) = status.id(name) else { continue };
            let hosts = match regions.get_mut(&definition.region) {
                Some(hosts) => hosts,
                None => regions.entry(definition.region.clone()).or_default(),
            };
            // Objects come host by host.
            match hosts.last_mut() {
                Some((host, checks)) if *host == name.host => checks.push(id),
                _ => hosts.push((name.host.clone(), vec![id])),
            }
        }
        Some(Self { regions })
    }

    /// What changes about ownership when a slot may own checks from here on, or may not. `status` is the state before.
    #[must_use]
    pub fn moved(&self, status: &Status, slot: &Slot, comes: bool) -> Vec<(CheckId, Option<Slot>)> {
        let before = present(status, &slot.region);
        match (before.contains(&slot.number), comes) {
            (false, true) => self.comes_in(status, slot, before.is_empty()),
            (true, false) => goes_out(status, slot, before),
            (true, true) | (false, false) => Vec::new(),
        }
    }

    fn comes_in(&self, status: &Status, slot: &Slot, alone: bool) -> Vec<(CheckId, Option<Slot>)> {
        let owner = |id: &CheckId| status.object(*id).and_then(|object| object.owner.as_ref()).map(|owner| &owner.slot);
        let mut changes = Vec::new();
        for (host, checks) in self.regions.get(&slot.region).into_iter().flatten() {
            // Where others are in, one of them owns all of the host; where nobody is, each check may have kept another owner.
            let other = checks.first().and_then(owner).filter(|_| !alone);
            let wins = other.is_none_or(|other| {
                assign::owner(&slot.region, [&other.number, &slot.number], host) == Some(slot.number)
            });
            if wins {
                let others = checks.iter().filter(|id| owner(id) != Some(slot));
                changes.extend(others.map(|id| (*id, Some(slot.clone()))));
            }
        }
        changes
    }
}

/// Everything a slot owns, to be granted anew because another process has it now.
#[must_use]
pub fn renewed(status: &Status, slot: &Slot) -> Vec<(CheckId, Option<Slot>)> {
    status.owned(slot).map(|id| (id, Some(slot.clone()))).collect()
}

fn goes_out(status: &Status, slot: &Slot, mut present: BTreeSet<SlotNumber>) -> Vec<(CheckId, Option<Slot>)> {
    present.remove(&slot.number);
    let mut owners: BTreeMap<&HostName, Option<Slot>> = BTreeMap::new();
    let mut changes = Vec::new();
    for id in status.owned(slot) {
        let Some(object) = status.object(id) else { continue };
        let host = &object.name.host;
        let next = owners.entry(host).or_insert_with(|| {
            let number = assign::owner(&slot.region, &present, host)?;
            Some(Slot { region: slot.region.clone(), number })
        });
        // Where nobody is left, ownership stays as it is.
        if next.is_some() {
            changes.push((id, next.clone()));
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use shared::assignment::Policy;
    use shared::check::{Check, TcpCheck};
    use shared::name::{Generation, InstanceId, JournalIndex, ObjectName};
    use shared::time::Timestamp;

    use super::*;
    use crate::config::{Catalog, CheckDefinition, Host, Region, Vars};
    use crate::entry::{self, Activate, Claim, Entry, Named, Outcomes, Presence, Row};
    use crate::fleet::ownership;

    const REGIONS: [&str; 3] = ["ap", "eu", "us"];

    #[derive(Debug, Clone)]
    enum Step {
        Presence(usize, u32, bool),
        Claim(usize, u32),
        /// The hosts of this many places further are in each region.
        Activate(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0_usize..3, 1_u32..5, any::<bool>()).prop_map(|(region, number, comes)| Step::Presence(region, number, comes)),
            2 => (0_usize..3, 1_u32..5).prop_map(|(region, number)| Step::Claim(region, number)),
            1 => (0_usize..3).prop_map(Step::Activate),
        ]
    }

    fn slot(region: usize, number: u32) -> Slot {
        Slot { region: REGIONS[region].parse().unwrap(), number: SlotNumber::new(number).unwrap() }
    }

    /// Forty hosts, some of them gone or in another region after a turn; two checks each.
    fn catalog(turn: usize) -> Arc<Catalog> {
        let (mut hosts, mut objects) = (BTreeMap::new(), BTreeMap::new());
        for number in (0..40_usize).filter(|number| number % 7 != turn) {
            let region: RegionName = REGIONS[(number + turn * (number % 2)) % 3].parse().unwrap();
            let host: HostName = format!("h{number}").parse().unwrap();
            let definition = CheckDefinition {
                check: Check::Tcp(TcpCheck::port("127.0.0.1", 9)),
                policy: Policy { check_interval_ms: 1, retry_interval_ms: 1, timeout_ms: 1, max_attempts: 1 },
                command_name: "tcp".into(),
                region: region.clone(),
            };
            let (groups, vars) = (Default::default(), Vars::default());
            hosts.insert(host.clone(), Host { region, address: "127.0.0.1".into(), groups, vars });
            objects.insert(ObjectName::host(host.clone()), definition.clone());
            objects.insert(ObjectName::service(host, "load".parse().unwrap()), definition);
        }
        let region = |name: &str| (name.parse().unwrap(), Region { slots: 4, join: Vec::new(), failover_after_ms: 1 });
        Arc::new(Catalog::new(REGIONS.map(region).into(), hosts, objects, Vec::new()))
    }

    /// A row with what ownership follows by a look at everything.
    fn judged(status: &Status, entry: Entry, mut outcomes: Outcomes, next: Option<&Arc<Catalog>>) -> Row {
        let renew = if let Entry::Claim(claim) = &entry { Some(claim.slot.clone()) } else { None };
        let row = |outcomes| Row {
            index: JournalIndex(status.head.0 + 1),
            term: status.term,
            at: Timestamp::EPOCH,
            entry: entry.clone(),
            outcomes,
        };
        let mut after = status.clone();
        after.fold(&row(outcomes.clone()), &[], next);
        let catalog = after.catalog.clone().unwrap();
        outcomes.granted = entry::group_grants(ownership(&after, &catalog, renew.as_ref()));
        row(outcomes)
    }

    fn activate(status: &Status, turn: usize) -> (Row, Arc<Catalog>) {
        let next = catalog(turn);
        let unnamed = next.objects.keys().filter(|name| status.id(name).is_none());
        let named = (status.next_check.0..).zip(unnamed);
        let named = named.map(|(id, object)| Named { id: CheckId(id), object: object.clone() }).collect();
        let removed = status.objects().filter(|object| !next.objects.contains_key(&object.name));
        let outcomes = Outcomes { named, removed: removed.map(|object| object.id).collect(), ..Outcomes::default() };
        let activate =
            Activate { generation: Generation(status.generation.0 + 1), digest: turn.to_string(), author: "t".into() };
        (judged(status, Entry::Activate(activate), outcomes, Some(&next)), next)
    }

    proptest! {
        #[test]
        fn a_slot_changes_what_a_look_at_everything_would_change(steps in proptest::collection::vec(step(), 1..60)) {
            let mut status = Status::new();
            let (row, first) = activate(&status, 0);
            status.fold(&row, &[], Some(&first));
            let mut placement = Placement::new(&status).unwrap();
            for step in steps {
                match step {
                    Step::Activate(turn) => {
                        let (row, next) = activate(&status, turn);
                        status.fold(&row, &[], Some(&next));
                        placement = Placement::new(&status).unwrap();
                    }
                    Step::Presence(region, number, present) => {
                        let slot = slot(region, number);
                        let entry = Presence { slot: slot.clone(), present, reason: String::new(), drain: None, author: None };
                        let row = judged(&status, Entry::Presence(entry), Outcomes::default(), None);
                        let moved = placement.moved(&status, &slot, present);
                        prop_assert_eq!(&entry::group_grants(moved), &row.outcomes.granted);
                        status.fold(&row, &[], None);
                    }
                    Step::Claim(region, number) => {
                        let slot = slot(region, number);
                        let claim = Claim {
                            slot: slot.clone(),
                            instance: InstanceId([1; 16]),
                            remote: String::new(),
                            software: String::new(),
                        };
                        let row = judged(&status, Entry::Claim(claim), Outcomes::default(), None);
                        prop_assert_eq!(&entry::group_grants(renewed(&status, &slot)), &row.outcomes.granted);
                        status.fold(&row, &[], None);
                    }
                }
                for slot in (0..3).flat_map(|region| (1..5).map(move |number| slot(region, number))) {
                    let owns = |status: &Status| status.owned(&slot).collect::<Vec<_>>();
                    let owner = |object: &Arc<crate::status::Object>| object.owner.as_ref().is_some_and(|owner| owner.slot == slot);
                    let mut found: Vec<_> = status.objects().filter(|object| owner(object)).map(|object| object.id).collect();
                    found.sort_unstable();
                    prop_assert_eq!(&owns(&status), &found);
                    prop_assert_eq!(&owns(&Status::decode(&status.encode()).unwrap()), &found);
                }
            }
        }
    }
}
