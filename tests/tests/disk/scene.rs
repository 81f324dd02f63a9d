//! A fleet whose daemons answer long, different texts, so that spools fill; and what is missing of their answers, counted by their own
//! numbers and by the gaps that the API names.
#![expect(clippy::disallowed_methods, reason = "a scene measures how long things take")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tests::audit::Audit;
use tests::fakes::Fakes;
use tests::fleet::Fleet;
use tests::ledger::Evidence;
use tests::ledger::account::{Account, account};
use tests::violation;

pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// How often a ledger that may be long is counted.
const LOOK: Duration = Duration::from_millis(50);
/// The command that answers for the host itself.
const ALIVE: &str = "alive";

/// A fleet of one satellite, its daemon, and the judge.
pub(crate) struct Scene {
    pub(crate) fleet: Fleet,
    pub(crate) audit: Audit,
    _fakes: Fakes,
}

/// `services` of one host, each asked every `interval` and answering with about `bytes` of noise. The host's own check asks the daemon as
/// well, so that every result is a numbered answer; no answer takes so long that a busy machine could ask in vain.
pub(crate) fn scene(directory: &Path, services: usize, interval: Duration, bytes: usize) -> Scene {
    let mut draw = StdRng::seed_from_u64(18);
    let mut noise = || -> String {
        let letter = |draw: &mut StdRng| {
            char::from(b'0' + draw.random_range(0..64_u8)).to_string().replace(['|', '`', '\\'], "x")
        };
        (0..bytes).map(|_| letter(&mut draw)).collect()
    };
    let mut commands: BTreeMap<String, Value> = (0..services)
        .map(|n| {
            let texts: Vec<Value> =
                (0..8).map(|_| json!({ "state": 0, "text": format!("OK {}|a=1", noise()) })).collect();
            (format!("c{n}"), json!({ "every": 1, "of": texts }))
        })
        .collect();
    commands.insert(ALIVE.to_owned(), json!({ "every": 1, "of": [{ "state": 0, "text": "OK" }] }));
    let daemon = json!({ "host": "h", "listen": "127.0.0.1:0", "transport": "plain", "commands": commands });
    let fakes = Fakes::start(directory, &[daemon]).unwrap();
    let address = fakes.addresses["h"];
    let mut text = format!(
        "regions: {{ eu: {{ slots: 1, failover_after: 10m }} }}\n\
         templates: {{ fast: {{ check_interval: {0}ms, retry_interval: {0}ms, timeout: 60s }} }}\n\
         hosts:\n  h: {{ region: eu, address: {1}, nrpe: {{ tls: plain, port: {2}, service: false }}, use: [fast], \
         check: {{ nrpe: {ALIVE} }} }}\nservices:\n",
        interval.as_millis(),
        address.ip(),
        address.port()
    );
    for n in 0..services {
        let _ = writeln!(text, "  s{n}: {{ hosts: [h], use: [fast], check: {{ nrpe: c{n} }} }}");
    }
    let config = directory.join("site.yaml");
    fs::write(&config, text).unwrap();
    let fleet = Fleet::new(directory, &config, &[("eu", 1)]).unwrap();
    let own = (("h".to_owned(), String::new()), ALIVE.to_owned());
    let commands = (0..services).map(|n| (("h".to_owned(), format!("s{n}")), format!("c{n}"))).chain([own]).collect();
    let audit = Audit { ledger: fakes.ledger.clone(), commands, ..Audit::default() };
    Scene { fleet, audit, _fakes: fakes }
}

impl Scene {
    /// What the API says of the one slot.
    pub(crate) fn slot(&self) -> Value {
        self.fleet.master.api().items("slots", "").unwrap().remove(0)
    }

    /// Waits until the slot's field is so; how long that took.
    pub(crate) fn until_slot(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Duration {
        let began = Instant::now();
        self.fleet.until(what, PATIENCE, |api| Ok(api.items("slots", "")?.first().is_some_and(&holds))).unwrap();
        began.elapsed()
    }

    /// Answers that the daemon gave so far.
    pub(crate) fn answers(&self) -> usize {
        fs::read_to_string(&self.audit.ledger).unwrap_or_default().lines().count()
    }

    /// Waits until the daemon gave so many more.
    pub(crate) fn until_answers(&self, more: usize) {
        let target = self.answers() + more;
        assert!(
            tests::wait::until_every(LOOK, PATIENCE, || self.answers() >= target),
            "checking has stopped\n{}",
            self.fleet.last_words()
        );
    }

    /// Waits until no answer is on its way: what is known then, and both accounts of it, of which every result must be an answer.
    pub(crate) fn settled(&self) -> (Evidence, Account) {
        let mut last = None;
        let settled = tests::wait::until_every(LOOK, PATIENCE, || {
            let (verdict, evidence) = self.audit.verdict(&self.fleet, Duration::ZERO).unwrap();
            let account = account(&evidence);
            let wrong = !verdict.duplicates.is_empty() || !verdict.impossible.is_empty();
            let settled = !wrong && account.as_ref().is_ok_and(|account| account.open == 0);
            last = Some((verdict, evidence, account));
            settled
        });
        let (verdict, evidence, account) = last.unwrap();
        let never = verdict.duplicates.is_empty() && verdict.impossible.is_empty();
        violation::unless(never, || format!("{:?} {:?}", verdict.duplicates, verdict.impossible));
        assert!(settled, "{:?} {:?}, {account:?}\n{}", verdict.duplicates, verdict.impossible, self.fleet.last_words());
        let account = account.unwrap();
        assert_eq!(account.unnumbered, [] as [String; 0], "a check without an answer");
        (evidence, account)
    }
}
