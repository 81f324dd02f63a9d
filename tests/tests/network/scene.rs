//! The stage: numbered daemons, a master, one satellite with two hundred results a second, and a bad road between the two. And the
//! course every profile runs: good road, bad road, good road again, the judge.

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
use tests::wait::until;

/// No single thing takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Everything has arrived so long after the road is good again, also on a busy machine.
const ARRIVES: Duration = Duration::from_secs(180);
/// What is current is right so long after the road is good again.
const RIGHT_WITHIN: Duration = Duration::from_secs(60);
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
    /// From the good road until a state that changed on the bad one was shown.
    pub(crate) right_after: Duration,
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

    /// The states that the API shows of a host's services.
    pub(crate) fn states(&self, host: &str) -> Vec<(String, String, String)> {
        let api = self.fleet.master.api();
        let items = api.items("services", &format!("filter=host%3D{host}")).unwrap_or_default();
        let text = |item: &Value, name: &str| item[name].as_str().unwrap_or_default().to_owned();
        items.iter().map(|item| (text(item, "service"), text(item, "state"), text(item, "state_type"))).collect()
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
        let mut told = false;
        let broken = |scene: &Self| scene.fakes.say("h00", "c0", "2 broken").unwrap();
        until(time, || {
            let passed = Duration::from_millis(u64::try_from(now() - from).unwrap_or(0));
            if !told && passed > time / 2 {
                told = true;
                broken(self);
            }
            meanwhile(passed);
            false
        });
        good();
        let to = now();
        let is_shown = |states: &[(String, String, String)]| {
            states.iter().any(|(service, state, kind)| (&**service, &**state, &**kind) == ("s0", "CRITICAL", "HARD"))
        };
        let right = until(RIGHT_WITHIN, || is_shown(&self.states("h00")));
        let right_after = Duration::from_millis(u64::try_from(now() - to).unwrap_or(0));
        assert!(right, "{name}: a state that changed while the road was bad is not shown after {RIGHT_WITHIN:?}");
        let (verdict, evidence) = self.audit.verdict(&self.fleet, ARRIVES).unwrap();
        assert!(verdict.is_clean(), "{name}: {verdict:#?}\n{}", self.fleet.last_words());
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
            links,
            answers: verdict.answers,
        }
    }
}

impl Course {
    /// One line for people.
    pub(crate) fn told(&self, name: &str) -> String {
        format!(
            "{name}: {} answers, {:.0} a second, shown after p50 {:.0?} p99 {:.0?} longest {:.0?}, {:.0} a second arrived, right {:.1?} \
             after, {} new links",
            self.lags.count(),
            self.offered,
            self.lags.percentile(50),
            self.lags.percentile(99),
            self.lags.longest(),
            self.goodput,
            self.right_after,
            self.links
        )
    }
}

/// Courses of many profiles in one figure.
pub(crate) fn report(kind: &str, courses: &[(String, Course)]) {
    let answers: usize = courses.iter().map(|(_, course)| course.answers).sum();
    let lags: Vec<String> =
        courses.iter().map(|(name, course)| format!("{name} {:.1?}", course.lags.percentile(99))).collect();
    let (count, lags) = (courses.len(), lags.join(", "));
    figure(
        CLAIM,
        &format!(
            "{count} profiles {kind}: {answers} answers, 0 lost, 0 twice; p99 from a daemon's answer until the API shows it: {lags}"
        ),
    );
}
