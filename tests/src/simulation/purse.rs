//! The account of credit as an onlooker keeps it, from the frames alone: what satellites were told they may send, what came, what is
//! durable. Says when the master's byte pool is overspent (I9). Shares no rule with the pool; knows neither slots' turns nor windows.

use std::collections::BTreeMap;

use master::coordinator::credit::Sizes;
use shared::delivery::decode_header;
use shared::frame::Lane;
use shared::message::{LaneBytes, ToMaster, ToSatellite};
use shared::name::{RunId, Sequence, Slot};

/// One lane of one link, in bytes since it began.
#[derive(Debug, Clone, Copy, Default)]
struct Account {
    told: u64,
    spent: u64,
}

type Batch = (Slot, RunId, Sequence);

/// The whole account.
#[derive(Debug)]
pub(super) struct Purse {
    half: u64,
    /// Links that the master holds open and has told of credit.
    open: BTreeMap<u64, BTreeMap<Lane, Account>>,
    /// Batches that have come and are not durable.
    memory: BTreeMap<Batch, (Lane, u64)>,
    positions: BTreeMap<(Slot, RunId), Sequence>,
    newest: Option<(u64, Batch)>,
    /// A link that was overdrawn and must be closed at once.
    overdrawn: Option<u64>,
}

impl Purse {
    /// For a pool of these sizes.
    pub(super) fn new(sizes: Sizes) -> Self {
        let half = sizes.pool.div_ceil(2);
        Self {
            half,
            open: BTreeMap::new(),
            memory: BTreeMap::new(),
            positions: BTreeMap::new(),
            newest: None,
            overdrawn: None,
        }
    }

    /// The master says something.
    pub(super) fn heed(&mut self, link: u64, said: &ToSatellite) -> Result<(), String> {
        let (lane, up_to) = match said {
            ToSatellite::Welcome(welcome) => match welcome.credit {
                Some(live) => (Lane::Live, live),
                None => return Ok(()),
            },
            ToSatellite::Credit(LaneBytes { lane, bytes }) => (*lane, *bytes),
            _ => return Ok(()),
        };
        let account = self.open.entry(link).or_default().entry(lane).or_default();
        if up_to < account.told {
            return Err(format!("credit of {lane:?} falls from {} to {up_to}", account.told));
        }
        account.told = up_to;
        self.judge()
    }

    /// A satellite says something about credit, and the master hears it.
    pub(super) fn heard(&mut self, link: u64, said: &ToMaster) -> Result<(), String> {
        let ToMaster::Returned(LaneBytes { lane, bytes }) = said else { return Ok(()) };
        self.spend(link, *lane, *bytes)
    }

    /// A batch has come.
    pub(super) fn arrived(&mut self, link: u64, lane: Lane, slot: &Slot, payload: &[u8]) -> Result<(), String> {
        let bytes = u64::try_from(payload.len()).unwrap_or(u64::MAX);
        self.spend(link, lane, bytes)?;
        let Ok((header, _)) = decode_header(payload) else { return Ok(()) };
        if !self.open.contains_key(&link) {
            // One that knows no credit is bounded otherwise.
            return Ok(());
        }
        let held = self.positions.get(&(slot.clone(), header.run)).copied().unwrap_or_default();
        if header.last > held {
            let batch = (slot.clone(), header.run, header.last);
            self.newest = (!self.memory.contains_key(&batch)).then(|| (link, batch.clone()));
            self.memory.entry(batch).or_insert((lane, bytes));
        }
        self.judge()
    }

    fn spend(&mut self, link: u64, lane: Lane, bytes: u64) -> Result<(), String> {
        // One that was told of no credit keeps to none.
        let Some(lanes) = self.open.get_mut(&link) else { return Ok(()) };
        let account = lanes.entry(lane).or_default();
        account.spent = account.spent.saturating_add(bytes);
        if account.spent > account.told {
            self.overdrawn = Some(link);
            return Err(format!("{} bytes came on {lane:?}, credit was given for {}", account.spent, account.told));
        }
        Ok(())
    }

    /// After everything that follows from a frame: whether the master goes on with somebody who sent beyond its credit.
    pub(super) fn tolerated(&mut self) -> bool {
        self.overdrawn.take().is_some_and(|link| self.open.contains_key(&link))
    }

    /// What waits for its commit and what may still come, for each lane.
    fn judge(&self) -> Result<(), String> {
        for lane in [Lane::Live, Lane::Backlog] {
            let memory: u64 = self.memory.values().filter(|(of, _)| *of == lane).map(|(_, bytes)| bytes).sum();
            let accounts = self.open.values().filter_map(|lanes| lanes.get(&lane));
            let to_come: u64 = accounts.map(|account| account.told.saturating_sub(account.spent)).sum();
            if memory + to_come > self.half {
                return Err(format!(
                    "{lane:?}: {memory} bytes wait for their commit and {to_come} may still come, the pool has {}",
                    self.half
                ));
            }
        }
        Ok(())
    }

    /// The position of a run is durable.
    pub(super) fn committed(&mut self, slot: &Slot, run: RunId, position: Sequence) {
        self.positions.insert((slot.clone(), run), position);
        self.memory.retain(|(of, other, last), _| of != slot || *other != run || *last > position);
    }

    /// The master closes a link; `refused` if for the batch that came last.
    pub(super) fn closed(&mut self, link: u64, refused: bool) {
        self.open.remove(&link);
        if let Some((_, batch)) = self.newest.take_if(|(from, _)| refused && *from == link) {
            self.memory.remove(&batch);
        }
    }

    /// Everything that waited is gone: its commit has failed.
    pub(super) fn dropped(&mut self) {
        self.memory.clear();
    }

    /// The master is gone.
    pub(super) fn ended(&mut self) {
        self.memory.clear();
        self.open.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_beyond_the_pool_is_seen() {
        let mut purse = Purse::new(Sizes { pool: 200, ..Sizes::default() });
        let credit = |bytes| ToSatellite::Credit(LaneBytes { lane: Lane::Backlog, bytes });
        assert_eq!(purse.heed(1, &credit(60)), Ok(()));
        assert_eq!(purse.heed(2, &credit(40)), Ok(()));
        assert!(purse.heed(2, &credit(41)).is_err());
        purse.closed(1, false);
        assert_eq!(purse.heed(2, &credit(100)), Ok(()));
        assert!(purse.heed(2, &credit(99)).is_err(), "it falls");
        assert_eq!(purse.heard(2, &ToMaster::Returned(LaneBytes { lane: Lane::Backlog, bytes: 50 })), Ok(()));
        assert_eq!(purse.heed(3, &credit(50)), Ok(()));
        let slot = Slot { region: "eu".parse().unwrap(), number: shared::name::SlotNumber::new(1).unwrap() };
        assert!(purse.arrived(3, Lane::Backlog, &slot, &[0; 51]).is_err(), "more than it may");
    }
}
