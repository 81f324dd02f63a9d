//! Who holds which slot and who owns which check. Pure rules over the state: a process never seen for a slot is newer and takes it
//! over; one that was fenced gets it back only when nobody lives there; only a slot's in and out move hosts. Knows no connection's
//! bytes and no clock; `coordinator` asks and journals.

mod placement;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use shared::assignment::{AssignedCheck, Assignment, Carried};
use shared::defect::Defect;
use shared::name::{CheckId, Grant, HostName, InstanceId, RegionName, Slot, SlotNumber};

use crate::assign;
use crate::config::Catalog;
use crate::status::{Object, Status};

pub use placement::{Placement, renewed};

/// A holder not heard of for this long has lost its lease: a process that was fenced may have the slot back.
pub const LEASE: Duration = Duration::from_secs(15);
/// A slot that was out owns checks again after being connected this long.
pub const STABLE_AFTER: Duration = Duration::from_secs(120);

/// One connection, from 1, never reused by this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ConnectionId(pub u64);

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What a process that says hello is to its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It has the slot already.
    Holds,
    /// It takes the slot; the process named loses it.
    Takes(Option<InstanceId>),
    /// Another has the slot and lives: this one drains and schedules nothing.
    Fenced,
}

/// Decides a claim. `alive` tells whether the present holder's lease still runs.
#[must_use]
pub fn claim(status: &Status, slot: &Slot, instance: InstanceId, alive: bool) -> Claim {
    let Some(state) = status.slots().get(slot) else { return Claim::Takes(None) };
    match &state.holder {
        None => Claim::Takes(None),
        Some(holder) if holder.instance == instance => Claim::Holds,
        Some(holder) if !state.former.contains_key(&instance) || !alive => Claim::Takes(Some(holder.instance)),
        Some(_) => Claim::Fenced,
    }
}

/// The slots of a region that may own checks.
fn present(status: &Status, region: &RegionName) -> BTreeSet<SlotNumber> {
    let Some(number) = SlotNumber::new(1) else { return BTreeSet::new() };
    let first = Slot { region: region.clone(), number };
    let of_region = status.slots().range(first..).take_while(|(slot, _)| slot.region == *region);
    of_region.filter(|(_, state)| state.present).map(|(slot, _)| slot.number).collect()
}

/// Every change of ownership that the catalog and the slots now ask for. `renew` names a slot whose grants all end even where it
/// goes on owning the check, because another process holds it now.
///
/// Where a region has no slot that may own checks, ownership stays as it is, and the returning slot is current at once.
#[must_use]
pub fn ownership(status: &Status, catalog: &Catalog, renew: Option<&Slot>) -> Vec<(CheckId, Option<Slot>)> {
    let mut regions: BTreeMap<&RegionName, BTreeSet<SlotNumber>> = BTreeMap::new();
    let mut owners: BTreeMap<&HostName, Option<Slot>> = BTreeMap::new();
    let mut changes = Vec::new();
    for object in status.objects() {
        let now = object.owner.as_ref().map(|owner| &owner.slot);
        let Some(definition) = catalog.objects.get(&object.name) else {
            if now.is_some() {
                changes.push((object.id, None));
            }
            continue;
        };
        let wanted = owners.entry(&object.name.host).or_insert_with(|| {
            let slots = regions.entry(&definition.region).or_insert_with(|| present(status, &definition.region));
            let number = assign::owner(&definition.region, &*slots, &object.name.host)?;
            Some(Slot { region: definition.region.clone(), number })
        });
        // A host whose region has nobody keeps its owner, unless that owner is of a region it has left.
        let wanted = wanted.as_ref().or(now.filter(|slot| slot.region == definition.region));
        if wanted != now || (wanted.is_some() && wanted == renew) {
            changes.push((object.id, wanted.cloned()));
        }
    }
    changes
}

/// Everything a slot owns, as it is to be told.
#[must_use]
pub fn assignment(status: &Status, catalog: &Catalog, slot: &Slot) -> Assignment {
    let told = |id: CheckId| {
        let object = status.object(id)?;
        let grant = told_grant(status, object, slot)?;
        let definition = catalog.objects.get(&object.name)?;
        let carried = object.last.is_some().then_some(Carried { state: object.state, key: object.key });
        let check = AssignedCheck {
            id: object.id,
            object: object.name.clone(),
            check: Some(definition.check.clone()),
            policy: definition.policy,
            grant,
            carried,
        };
        Some((object.id, check))
    };
    let checks = if status.defects.has(Defect::EndedGrantTold) {
        status.objects().filter_map(|object| told(object.id)).collect()
    } else {
        status.owned(slot).filter_map(told).collect()
    };
    Assignment { generation: status.generation, checks }
}

/// The living grant, if the slot has it.
fn told_grant(status: &Status, object: &Object, slot: &Slot) -> Option<Grant> {
    let living = object.owner.as_ref().filter(|owner| owner.slot == *slot).map(|owner| owner.grant);
    let ended = object.ended.last().filter(|ended| ended.slot == *slot).map(|ended| ended.grant);
    living.or(ended.filter(|_| status.defects.has(Defect::EndedGrantTold)))
}
