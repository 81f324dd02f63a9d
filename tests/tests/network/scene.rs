//! The stage: numbered daemons, a master, one satellite with two hundred results a second, and a bad road between the two. And the
//! course every profile runs: good road, bad road, good road again, the judge.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tests::audit::Audit;
use tests::fakes::Fakes;
use tests::figure::figure;
use tests::fleet::Fleet;
use tests::lag::Lags;
use tests::ledger::Said;
use tests::load::Load;
use tests::network::Machine;
use tests::relay::Relay;
use tests::shown::Watch;
use tests::violation;
use tests::wait::{until, until_every};

use crate::states::{untold, wrong};

/// No single thing takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Everything has arrived so long after the road is good again, also on a busy machine.
const ARRIVES: Duration = Duration::from_secs(180);
/// Every state is right so long after the road is good again.
const RIGHT_WITHIN: Duration = Duration::from_secs(60);
/// Looks at all states: a look takes some tens of milliseconds.
pub(crate) const LOOK: Duration = Duration::from_millis(200);
/// What services of each host begin to say in the midst of a bad road, by their commands.
const CHANGES: [(&str, i16); 2] = [("c0", 2), ("c1", 1)];
/// A good road is used for so long before it becomes a bad one.
const WARM: Duration = Duration::from_secs(3);
/// The claim that this program proves.
pub(crate) const CLAIM: u8 = 17;

/// Whether every profile is asked for.
pub(crate) fn all() -> bool {
    std::env::var("PERIGEE_PROFILES").is_ok_and(|which| which == "all")
}

/// A number from the environment.
pub(crate) fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// Milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "results are compared with the moment a road became bad")]
pub(crate) fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// Lets time pass: how long is the input of these tests, not a synchronisation.
pub(crate) fn let_run(time: Duration) {
    until(time, || false);
}

/// A running installation with one slot, and how it is judged.
pub(crate) struct Scene {
    pub(crate) fleet: Fleet,
    pub(crate) audit: Audit,
    pub(crate) fakes: Fakes,
    _directory: TempDir,
}

/// What came of a course.
pub(crate) struct Course {
    /// Of the answers given while the road was bad: until the API showed them.
    pub(crate) lags: Lags,
    /// Answers given while the road was bad, a second.
    pub(crate) offered: f64,
    /// Results recorded while the road was bad, a second.
    pub(crate) goodput: f64,
    /// From the good road until every service was shown with the state of its daemon's last answer, those that changed on the bad
    /// one among them.
    pub(crate) right_after: Duration,
    /// Services, and how many of them changed.
    pub(crate) states: (usize, usize),
    /// Links made anew.
    pub(crate) links: usize,
    /// Answers that the daemons gave altogether.
    pub(crate) answers: usize,
}

impl Scene {
    fn new(load: Load, machine: Option<&Machine>, more: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let through = machine.map(Machine::through).unwrap_or_default();
        let fakes = Fakes::start_through(directory.path(), &load.daemons(), &through).unwrap();
        let config = directory.path().join("site.yaml");
        fs::write(&config, load.configuration(1, &fakes.addresses)).unwrap();
        let mut fleet = Fleet::new(directory.path(), &config, &[("eu", 1)]).unwrap();
        if let Some(machine) = machine {
            fleet.master.link.set_ip(machine.here.into());
        }
        let satellite = fleet.satellite("eu/1").unwrap();
        satellite.through = through;
        satellite.more = more.iter().map(|word| (*word).to_owned()).collect();
        let audit = Audit { ledger: fakes.ledger.clone(), commands: load.commands(), ..Audit::default() };
        Self { fleet, audit, fakes, _directory: directory }
    }

    /// With a relay on the satellite's way to its master; nothing runs yet. `more` are arguments of the satellite.
    pub(crate) fn relayed(load: Load, seed: u64, more: &[&str]) -> (Self, Relay) {
        let mut scene = Self::new(load, None, more);
        let relay = Relay::start(scene.fleet.master.link, seed).unwrap();
        scene.fleet.satellite("eu/1").unwrap().road = Some(relay.address);
        (scene, relay)
    }

    /// With satellite and daemons on another machine of the kernel's; nothing runs yet.
    pub(crate) fn cabled(load: Load) -> (Self, Machine) {
        let machine = Machine::new().unwrap();
        (Self::new(load, Some(&machine), &[]), machine)
    }

    /// Starts all of it, and waits until results come.
    pub(crate) fn start(&mut self) {
        self.fleet.start().unwrap();
        self.fleet.until_connected(PATIENCE).unwrap();
        let flowing = |api: &tests::http::Client| {
            let slots = api.items("slots", "")?;
            Ok(slots.first().and_then(|slot| slot["results"].as_u64()).unwrap_or(0) > 100)
        };
        self.fleet.until("delivering", PATIENCE, flowing).unwrap();
    }

    /// How often the satellite's log has this.
    pub(crate) fn said(&self, words: &str) -> usize {
        self.fleet.satellites.values().map(|satellite| satellite.log().matches(words).count()).sum()
    }

    /// The newest position of all runs together that the satellite has told of in this way.
    pub(crate) fn position(&self, kind: Said) -> u64 {
        let mut positions = tests::ledger::Positions::default();
        self.fleet.satellites.values().for_each(|satellite| positions.add(tests::ledger::positions(&satellite.log())));
        match kind {
            Said::Durable => positions.durable.values().sum(),
            Said::Acknowledged | Said::Acknowledging => positions.acknowledged.values().sum(),
        }
    }

    /// Lets services of every host say something else from now on; gives what, by host and command.
    fn change(&self) -> BTreeMap<(String, String), i16> {
        let hosts: BTreeSet<&String> = self.audit.commands.keys().map(|(host, _)| host).collect();
        let mut changed = BTreeMap::new();
        for host in hosts {
            for (command, state) in CHANGES {
                self.fakes.say(host, command, &format!("{state} said while the road was bad")).unwrap();
                changed.insert((host.clone(), command.to_owned()), state);
            }
        }
        changed
    }

    /// Runs a bad road for a time, and a good one again; `bad` and `good` are what make the road so, `meanwhile` is called again
    /// and again with the time the road has been bad.
    pub(crate) fn course(
        &mut self,
        name: &str,
        time: Duration,
        bad: impl FnOnce(),
        mut meanwhile: impl FnMut(Duration),
        good: impl FnOnce(),
    ) -> Course {
        let_run(WARM);
        let watch = Watch::start(self.fleet.master.api());
        let links = self.said("linked to the master");
        let from = now();
        bad();
        let mut changed = BTreeMap::new();
        until(time, || {
            let passed = Duration::from_millis(u64::try_from(now() - from).unwrap_or(0));
            if changed.is_empty() && passed > time / 2 {
                changed = self.change();
            }
            meanwhile(passed);
            false
        });
        good();
        let to = now();
        assert!(!changed.is_empty(), "{name}: nothing changed while the road was bad");
        let mut left = Vec::new();
        let right = until_every(LOOK, RIGHT_WITHIN, || {
            let said = tests::process::text(&self.audit.ledger);
            left = untold(&changed, &said);
            left.extend(wrong(self, &said));
            left.is_empty()
        });
        let right_after = Duration::from_millis(u64::try_from(now() - to).unwrap_or(0));
        assert!(
            right && right_after <= RIGHT_WITHIN,
            "{name}: {} states are not right {right_after:.1?} after the road is good again: {left:#?}\n{}",
            left.len(),
            self.fleet.last_words()
        );
        let (verdict, evidence) = self.audit.verdict(&self.fleet, ARRIVES).unwrap();
        violation::unless(verdict.is_clean(), || format!("{name}: {verdict:#?}\n{}", self.fleet.last_words()));
        // A state that was told after a cut bears no number; the next result of its check does.
        let numbered = |service: &Value| service["perfdata"].as_str().is_some_and(|text| text.contains("serial="));
        let showing = |api: &tests::http::Client| Ok(api.items("services", "")?.iter().all(numbered));
        self.fleet.until("showing results", PATIENCE, showing).unwrap();
        let lags = Lags::of(&evidence.answers, &self.audit.commands, &watch.end(), from, to).unwrap();
        let results = self.fleet.master.api().events("result").unwrap();
        let recorded = |event: &Value| event["recorded"].as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let recorded = results.iter().filter_map(recorded).map(jiff::Timestamp::as_millisecond);
        let recorded = recorded.filter(|at| (from..to).contains(at)).count();
        let links = self.said("linked to the master") - links;
        let a_second = |count: usize| f64::from(u32::try_from(count).unwrap()) * 1000.0 / (to - from) as f64;
        Course {
            offered: a_second(lags.count()),
            lags,
            goodput: a_second(recorded),
            right_after,
            states: (self.audit.commands.len(), changed.len()),
            links,
            answers: verdict.answers,
        }
    }
}

impl Course {
    /// One line for people.
    pub(crate) fn told(&self, name: &str) -> String {
        format!(
            "{name}: {} answers, {:.0} a second, shown after p50 {:.0?} p99 {:.0?} longest {:.0?}, {:.0} a second arrived, all {} states \
             right {:.1?} after ({} had changed), {} new links",
            self.lags.count(),
            self.offered,
            self.lags.percentile(50),
            self.lags.percentile(99),
            self.lags.longest(),
            self.goodput,
            self.states.0,
            self.right_after,
            self.states.1,
            self.links
        )
    }
}

/// Courses of many profiles in one figure.
pub(crate) fn report(kind: &str, courses: &[(String, Course)]) {
    let answers: usize = courses.iter().map(|(_, course)| course.answers).sum();
    let lags: Vec<String> =
        courses.iter().map(|(name, course)| format!("{name} {:.1?}", course.lags.percentile(99))).collect();
    let after = |begin: &str| {
        courses.iter().filter(|(name, _)| name.starts_with(begin)).map(|(_, course)| course.right_after).max()
    };
    let right = after("").unwrap_or_default();
    let heavy =
        after("30 % loss").map_or_else(String::new, |heavy| format!(", {heavy:.1?} after those with 30 % loss"));
    let states = courses.first().map_or(0, |(_, course)| course.states.0);
    let (count, lags) = (courses.len(), lags.join(", "));
    figure(
        CLAIM,
        &format!(
            "{count} profiles {kind}: {answers} answers, 0 lost, 0 twice; all {states} states right at most {right:.1?} after \
             each{heavy}; p99 from a daemon's answer until the API shows it: {lags}"
        ),
    );
}
