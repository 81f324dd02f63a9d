//! Which slot checks which host: rendezvous hashing by host among the slots of its region that are in.
//!
//! Every (host, slot) pair has a weight; the slot with the greatest owns the host. A slot that goes out moves its own hosts and
//! no others; one that comes in takes hosts from the others evenly and moves nothing else. Knows nothing of leases and grants.
//! The surprise: the region is part of the weight, so that two regions with the same slot numbers do not share their imbalance.
//!
//! The weight is a format: masters of different versions must agree on it, or an upgrade would move every host. It is SipHash-2-4
//! with the keys below over the region's bytes, 0xFF, the host's bytes, 0xFF, and the slot number as four bytes, least first (no
//! UTF-8 text contains 0xFF). On equal weights the lower number owns.

use std::hash::Hasher as _;

use shared::name::{HostName, RegionName, SlotNumber};
use siphasher::sip::SipHasher24;

/// `perigee` and `assign`, as bytes.
const KEYS: (u64, u64) = (0x7065_7269_6765_6500, 0x6173_7369_676e_0000);
const DIVIDER: u8 = 0xff;

/// The slot that owns a host, among those of its region that are in; `None` if none is.
#[must_use]
pub fn owner<'a>(
    region: &RegionName,
    in_slots: impl IntoIterator<Item = &'a SlotNumber>,
    host: &HostName,
) -> Option<SlotNumber> {
    let mut hasher = SipHasher24::new_with_keys(KEYS.0, KEYS.1);
    hasher.write(region.as_str().as_bytes());
    hasher.write_u8(DIVIDER);
    hasher.write(host.as_str().as_bytes());
    hasher.write_u8(DIVIDER);
    let weight = |slot: SlotNumber| {
        let mut hasher = hasher;
        hasher.write(&slot.get().to_le_bytes());
        hasher.finish()
    };
    let best = in_slots.into_iter().map(|slot| (weight(*slot), std::cmp::Reverse(*slot))).max();
    best.map(|(_, std::cmp::Reverse(slot))| slot)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn region(name: &str) -> RegionName {
        name.parse().unwrap()
    }

    fn host(name: &str) -> HostName {
        name.parse().unwrap()
    }

    fn slots(numbers: impl IntoIterator<Item = u32>) -> BTreeSet<SlotNumber> {
        numbers.into_iter().filter_map(SlotNumber::new).collect()
    }

    #[test]
    fn owners_are_the_same_for_ever() {
        let eu = region("eu");
        let owners: Vec<u32> = (1..=12)
            .map(|n| owner(&eu, &slots(1..=4), &host(&format!("web{n:02}.example.net"))).unwrap().get())
            .collect();
        assert_eq!(owners, [1, 4, 2, 3, 2, 1, 1, 1, 3, 4, 2, 1]);
    }

    #[test]
    fn hosts_spread_evenly() {
        let mut counts: BTreeMap<SlotNumber, u32> = BTreeMap::new();
        for n in 0..20_000 {
            let name = host(&format!("host{n}"));
            *counts.entry(owner(&region("eu"), &slots(1..=10), &name).unwrap()).or_default() += 1;
        }
        // 2,000 each; six standard deviations are 255.
        assert!(counts.len() == 10 && counts.values().all(|count| (1_745..=2_255).contains(count)), "{counts:?}");
    }

    #[test]
    fn two_regions_do_not_place_a_host_alike() {
        let same = (0..1_000)
            .filter(|n| {
                let name = host(&format!("host{n}"));
                owner(&region("eu"), &slots(1..=2), &name) == owner(&region("us"), &slots(1..=2), &name)
            })
            .count();
        assert!((400..=600).contains(&same), "{same}");
    }

    #[test]
    fn without_slots_nobody_owns() {
        assert_eq!(owner(&region("eu"), &slots([]), &host("a")), None);
    }

    proptest! {
        #[test]
        fn a_slot_going_out_moves_only_its_hosts(
            numbers in proptest::collection::btree_set(1_u32..200, 2..20),
            gone in any::<prop::sample::Index>(),
            names in proptest::collection::vec("[a-z0-9.-]{1,20}", 1..50),
        ) {
            let all = slots(numbers.iter().copied());
            let gone = *all.iter().nth(gone.index(all.len())).unwrap();
            let rest: BTreeSet<SlotNumber> = all.iter().copied().filter(|slot| *slot != gone).collect();
            for name in &names {
                let before = owner(&region("eu"), &all, &host(name)).unwrap();
                let after = owner(&region("eu"), &rest, &host(name)).unwrap();
                prop_assert!(all.contains(&before));
                prop_assert_eq!(before == after, before != gone);
            }
        }

        #[test]
        fn the_order_of_the_slots_does_not_matter(
            numbers in proptest::collection::vec(1_u32..50, 1..20),
            name in "[a-z0-9.-]{1,20}",
        ) {
            let listed: Vec<SlotNumber> = numbers.iter().copied().filter_map(SlotNumber::new).collect();
            let ordered = slots(numbers);
            prop_assert_eq!(owner(&region("eu"), &listed, &host(&name)), owner(&region("eu"), &ordered, &host(&name)));
        }
    }
}
