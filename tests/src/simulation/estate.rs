//! What a world watches: hosts, services and how each of them is; and the configuration that says so. Decides what a daemon answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use master::config::{Catalog, CheckDefinition, Host, Region, Vars};
use shared::assignment::Policy;
use shared::check::{Check, PluginCheck, State, TcpCheck};
use shared::name::{InstallationId, ObjectName, RegionName, Slot};

use super::chance::Chance;
use super::plan::Plan;
use super::secret::CANARY;
use super::world::{STATES, object, slot};

#[derive(Debug, Clone)]
struct Watched {
    region: RegionName,
    state: State,
    /// Changed by the operator now and then.
    port: u16,
}

impl Watched {
    /// Hosts are asked for a port, services by a plugin that is given secrets in both ways there are.
    fn question(&self, name: &ObjectName) -> Check {
        if name.is_host() {
            return Check::Tcp(TcpCheck::port("192.0.2.1", self.port));
        }
        let argv = ["check_page", "--port", &self.port.to_string(), "--password", CANARY];
        let environment = BTreeMap::from([("PASSWORD".to_owned(), CANARY.to_owned())]);
        Check::Plugin(PluginCheck { argv: argv.map(str::to_owned).to_vec(), environment })
    }
}

/// Everything there is to watch.
#[derive(Debug)]
pub(super) struct Estate {
    slots: Vec<Slot>,
    objects: BTreeMap<ObjectName, Watched>,
    made: u64,
    services: u64,
    /// Not more than these: what operators add must fit into a world's events as well.
    objects_max: usize,
}

/// No name of ours is refused; if one were, the world would be empty and its results missed.
fn region(number: u64) -> Option<RegionName> {
    format!("r{number}").parse().ok()
}

impl Estate {
    /// What the plan says.
    pub(super) fn found(plan: &Plan, chance: &mut Chance) -> Self {
        let mut estate =
            Self { slots: Vec::new(), objects: BTreeMap::new(), made: 0, services: plan.services, objects_max: 0 };
        for number in 1..=plan.regions {
            let Some(region) = region(number) else { continue };
            let others = plan.regions - 1;
            let count = (plan.satellites + others - (number - 1)) / plan.regions;
            let count = u32::try_from(count).unwrap_or(1);
            estate.slots.extend((1..=count).filter_map(|number| slot(region.as_str(), number)));
            for _ in 0..plan.hosts {
                estate.add(&region, chance);
            }
        }
        estate.objects_max = estate.objects.len() + 4;
        estate
    }

    /// All slots.
    #[must_use]
    pub(super) fn slots(&self) -> Vec<Slot> {
        self.slots.clone()
    }

    /// The installation's name.
    ///
    /// # Panics
    /// If it is none; it is a constant.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a constant")]
    pub(super) fn installation(&self, name: &str) -> InstallationId {
        name.parse().expect("a valid name")
    }

    fn add(&mut self, region: &RegionName, chance: &mut Chance) {
        self.made += 1;
        let services = chance.between(0, self.services);
        let names = std::iter::once(format!("h{}", self.made));
        for name in names.chain((0..services).map(|service| format!("h{}!s{service}", self.made))) {
            if let Some(name) = object(&name) {
                self.objects.insert(name, Watched { region: region.clone(), state: State::Ok, port: 1 });
            }
        }
    }

    /// The operator changes something.
    pub(super) fn change(&mut self, chance: &mut Chance) {
        let names: Vec<ObjectName> = self.objects.keys().cloned().collect();
        let Some(name) = chance.pick(&names) else { return };
        match chance.below(3) {
            0 if self.objects.len() < self.objects_max => {
                if let Some(region) = chance.pick(&self.slots).map(|slot| slot.region.clone()) {
                    self.add(&region, chance);
                }
            }
            1 if self.objects.keys().filter(|name| name.is_host()).count() > 1 => {
                self.objects.retain(|other, _| other.host != name.host);
            }
            _ => {
                if let Some(watched) = self.objects.get_mut(name) {
                    watched.port += 1;
                }
            }
        }
    }

    /// What a daemon answers now. `calm`: nothing changes any more.
    pub(super) fn answer(&mut self, name: &ObjectName, calm: bool, chance: &mut Chance) -> State {
        let Some(watched) = self.objects.get_mut(name) else { return State::Ok };
        if !calm && chance.one_in(4) {
            watched.state = chance.pick(&STATES).copied().unwrap_or(State::Ok);
        }
        watched.state
    }

    /// What it answered last.
    #[must_use]
    pub(super) fn last(&self, name: &ObjectName) -> State {
        self.objects.get(name).map_or(State::Pending, |watched| watched.state)
    }

    /// What is configured, with its region.
    #[must_use]
    pub(super) fn configured(&self) -> Vec<(ObjectName, RegionName)> {
        self.objects.iter().map(|(name, watched)| (name.clone(), watched.region.clone())).collect()
    }

    /// The configuration that says so.
    #[must_use]
    pub(super) fn catalog(&self, plan: &Plan) -> Arc<Catalog> {
        let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let policy = Policy {
            check_interval_ms: millis(plan.interval),
            retry_interval_ms: millis(plan.retry),
            timeout_ms: 10_000,
            max_attempts: plan.max_attempts,
        };
        let count = |region: &RegionName| self.slots.iter().filter(|slot| slot.region == *region).count();
        let failover_after_ms = millis(plan.failover_after);
        let regions = self.slots.iter().map(|slot| {
            let slots = u32::try_from(count(&slot.region)).unwrap_or(1);
            (slot.region.clone(), Region { slots, join: Vec::new(), failover_after_ms })
        });
        let hosts = self.objects.iter().map(|(name, watched)| {
            let host = Host {
                region: watched.region.clone(),
                address: "192.0.2.1".to_owned(),
                groups: Default::default(),
                vars: Vars::default(),
            };
            (name.host.clone(), host)
        });
        let objects = self.objects.iter().map(|(name, watched)| {
            let definition = CheckDefinition {
                check: watched.question(name),
                policy,
                command_name: if name.is_host() { "tcp" } else { "plugin" }.to_owned(),
                region: watched.region.clone(),
            };
            (name.clone(), definition)
        });
        Arc::new(Catalog::new(regions.collect(), hosts.collect(), objects.collect(), Vec::new()))
    }
}
