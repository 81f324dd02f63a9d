//! The event stream of a whole system: a change is there within a second of the daemon's first answer that differs, and a client
//! that comes back with the last id it saw, after the master was told to end or was killed, has missed nothing and gets nothing
//! twice. Compared with the daemons' own ledger and with the history.
//! The surprise: history also knows late results, which are older than what was known; the stream speaks of the present only.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test that measures real time and has nothing better to do when its stage cannot be set"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::daemon::ledger;
use tests::fakes::{Fakes, daemon};
use tests::figure::figure;
use tests::fleet::Fleet;
use tests::http::{Client, Message, Stream};

/// No single thing takes longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is promised: from the daemon's first answer that differs to its arrival at the client, in milliseconds.
const SEEN_WITHIN_MS: u64 = 1000;
/// How long it takes a check to be asked again, in milliseconds: what lies between the daemon's mind and its answer.
const INTERVAL_MS: u64 = 1000;
const CHANGES: usize = 10;
/// Services that change all the time while the master is restarted.
const FLAPPING: usize = 8;

/// A master, one satellite, and what they monitor.
struct Scene {
    // Ends before its directory does.
    fleet: Fleet,
    fakes: Fakes,
    _directory: TempDir,
}

impl Scene {
    /// One host with these services and their answers, checked every second.
    fn with(services: &BTreeMap<String, Value>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut alpha = daemon("alpha", "anonymous", &[]);
        alpha["commands"] = json!(services);
        let fakes = Fakes::start(directory.path(), &[alpha]).unwrap();
        let port = fakes.addresses["alpha"].port();
        let mut config = format!(
            "regions: {{ eu: {{ slots: 1 }} }}\n\
             templates: {{ fast: {{ check_interval: 1s, retry_interval: 1s, max_check_attempts: 3, timeout: 5s }} }}\n\
             hosts:\n  alpha: {{ use: [fast], address: 127.0.0.1, nrpe: {{ tls: anonymous, port: {port}, service: false }} }}\n\
             services:\n"
        );
        for service in services.keys() {
            config.push_str(&format!("  {service}: {{ hosts: [alpha], use: [fast], check: {{ nrpe: {service} }} }}\n"));
        }
        let file = directory.path().join("perigee.yaml");
        fs::write(&file, config).unwrap();
        let mut fleet = Fleet::new(directory.path(), &file, &[("eu", 1)]).unwrap();
        fleet.start().unwrap();
        let checked = |api: &Client| {
            let shown = api.items("services", "")?;
            Ok(shown.len() == services.len() && shown.iter().all(|service| service["state"] != "PENDING"))
        };
        fleet.until("checked", PATIENCE, checked).unwrap();
        Self { fleet, fakes, _directory: directory }
    }

    /// A service that is always well, until it is told otherwise.
    fn with_one_service() -> Self {
        Self::with(&BTreeMap::from([("watched".to_owned(), json!({ "of": [{ "state": 0, "text": "fine" }] }))]))
    }
}

/// Now, in milliseconds since 1970, as the ledger has it.
fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// The entries of a list in a message, or of nothing.
fn list<'m>(message: &'m Message, name: &str) -> &'m [Value] {
    message.data.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Whether a message tells that this service has come into this state.
fn tells(message: &Message, service: &str, state: &str) -> bool {
    list(message, "changes").iter().any(|change| {
        change["service"] == service && change["state"] == state && change["from"]["state"] != change["state"]
    })
}

#[test]
fn a_change_is_seen_within_a_second_of_the_daemons_first_answer_that_differs() {
    let scene = Scene::with_one_service();
    let mut stream = scene.fleet.master.api().stream("", None).unwrap();
    let mut delays = Vec::new();
    for number in 0..CHANGES {
        let (state, code, text) = if number % 2 == 0 { ("CRITICAL", 2, "2 broken") } else { ("OK", 0, "0 fine") };
        let decided = now();
        scene.fakes.say("alpha", "watched", text).unwrap();
        stream.until(PATIENCE, |message| tells(message, "watched", state)).unwrap();
        let arrived = now();

        let answers = ledger::read(&scene.fakes.ledger).unwrap();
        let changed =
            answers.iter().find(|answer| answer.at >= decided && answer.command == "watched" && answer.state == code);
        let answered = changed.unwrap().at;
        let (delay, whole) = (arrived - answered, arrived - decided);
        assert!(delay <= SEEN_WITHIN_MS, "change {number} was seen {delay} ms after the daemon's answer");
        assert!(whole <= INTERVAL_MS + SEEN_WITHIN_MS, "change {number}: {whole} ms, a check interval included");
        delays.push(delay);
    }
    let (all, slowest): (u64, _) = (delays.iter().sum(), delays.iter().max().unwrap());
    let mean = all / u64::try_from(CHANGES).unwrap();
    figure(7, &format!("{CHANGES} changes on the event stream {mean} ms after the answer, {slowest} ms at most"));
}

/// What the stream and the history both tell of a result: row, service, state, type, text. Texts are numbered.
type Told = (u64, String, String, String, String);

fn told(index: &Value, result: &Value) -> Told {
    let text = |name: &str| result[name].as_str().unwrap_or_default().to_owned();
    let numbered = format!("{} {}", text("output"), text("perfdata"));
    (index.as_u64().unwrap(), text("service"), text("state"), text("state_type"), numbered)
}

/// What one client has seen over all its connections.
#[derive(Default)]
struct Seen {
    last_id: Option<String>,
    ids: Vec<u64>,
    /// What has come of a row whose last message, the one with the id, has not: cut here, it comes again.
    begun: Vec<Message>,
    /// Every result, changes included.
    results: Vec<Told>,
    changes: Vec<(Told, String)>,
}

impl Seen {
    /// Reads until the stream breaks off, or until `enough` holds.
    fn read(&mut self, stream: &mut Stream, mut enough: impl FnMut(&Seen) -> bool) {
        while !enough(self) {
            let Ok(Some(message)) = stream.next(PATIENCE) else { break };
            assert_ne!(message.event, "resync", "{message:?}");
            let id = message.id.as_ref().map(|id| id.parse().unwrap());
            self.begun.push(message);
            if let Some(id) = id {
                self.ids.push(id);
                std::mem::take(&mut self.begun).iter().for_each(|message| self.take(message));
            }
        }
        self.last_id = stream.last_id.clone().or(self.last_id.take());
    }

    /// A connection has ended.
    fn cut(&mut self) {
        self.begun.clear();
    }

    fn take(&mut self, message: &Message) {
        // States told after a reconnect are no results, and give way in history to the results that made them.
        if message.data["snapshot"] == true {
            return;
        }
        let index = &message.data["index"];
        self.results.extend(list(message, "results").iter().map(|result| told(index, result)));
        for change in list(message, "changes") {
            self.results.push(told(index, change));
            self.changes.push((told(index, change), change["from"]["state"].as_str().unwrap().to_owned()));
        }
    }
}

/// Connects again as soon as the master answers, with the id seen last, once as a header and once as a parameter.
fn back(api: &Client, seen: &Seen, as_parameter: bool) -> Stream {
    let last = seen.last_id.clone().unwrap();
    if as_parameter {
        api.stream(&format!("results=all&since={last}"), None).unwrap()
    } else {
        api.stream("results=all", Some(&last)).unwrap()
    }
}

#[test]
fn a_client_that_comes_back_with_its_last_id_misses_nothing_and_gets_nothing_twice() {
    let flapping = json!({ "every": 2, "of": [{ "state": 0, "text": "fine" }, { "state": 2, "text": "broken" }] });
    let services = (0..FLAPPING).map(|number| (format!("flap{number}"), flapping.clone())).collect();
    let mut scene = Scene::with(&services);
    let api = scene.fleet.master.api();
    let mut stream = api.stream("results=all", None).unwrap();
    let mut seen = Seen::default();
    seen.read(&mut stream, |seen| seen.changes.len() >= FLAPPING);

    for (number, killed) in [false, true, false, true].into_iter().enumerate() {
        let (before, also) = (seen.changes.len(), 2 * FLAPPING);
        if killed {
            scene.fleet.master.kill().unwrap();
        } else {
            scene.fleet.master.terminate().unwrap();
        }
        // What had been sent before it ended is read first.
        seen.read(&mut stream, |_| false);
        seen.cut();
        scene.fleet.master.start().unwrap();
        // Rows come before this client is back: the first ones it reads are of the past.
        let known: u64 = seen.last_id.as_ref().unwrap().parse().unwrap();
        let further = |api: &Client| Ok(api.get("status")?["index"].as_u64() > Some(known + 2));
        scene.fleet.until("going on", PATIENCE, further).unwrap();
        stream = back(&api, &seen, number % 2 == 1);
        seen.read(&mut stream, |seen| seen.changes.len() >= before + also);
        assert!(seen.changes.len() >= before + also, "nothing came any more\n{}", scene.fleet.last_words());
    }

    assert!(seen.ids.windows(2).all(|pair| pair[0] < pair[1]), "ids rise over all connections: {:?}", seen.ids);
    let (first, last) = (*seen.ids.first().unwrap(), *seen.ids.last().unwrap());
    let reflected = |api: &Client| Ok(api.get("events?limit=1")?["index"].as_u64() >= Some(last));
    scene.fleet.until("in history", PATIENCE, reflected).unwrap();
    let known = |kind: &str| -> Vec<Value> {
        let events = api.events(kind).unwrap();
        let within = |event: &Value| event["index"].as_u64().is_some_and(|index| (first..=last).contains(&index));
        events
            .into_iter()
            .filter(|event| within(event) && event["late"] == false && event["snapshot"] != true)
            .collect()
    };

    let mut results: Vec<Told> = known("result").iter().map(|event| told(&event["index"], event)).collect();
    results.sort();
    seen.results.sort();
    assert_eq!(
        difference(&seen.results, &results),
        (Vec::new(), Vec::new()),
        "results the stream missed, and had over"
    );
    assert_eq!(seen.results.len(), results.len(), "a result came twice");

    let told_by_history: Vec<(u64, String, String, String, String)> = known("transition")
        .iter()
        .map(|event| {
            let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            let index = event["index"].as_u64().unwrap();
            (index, text("service"), text("from_state"), text("state"), text("state_type"))
        })
        .collect();
    let told_by_stream: Vec<(u64, String, String, String, String)> = seen
        .changes
        .iter()
        .map(|((index, service, state, state_type, _), from)| {
            (*index, service.clone(), from.clone(), state.clone(), state_type.clone())
        })
        .collect();
    assert_eq!(told_by_stream, told_by_history, "changes, in order");
    scene.fleet.terminate().unwrap();
    figure(
        7,
        &format!(
            "2 kills and 2 ends of the master: {} results and {} changes resumed by id, none missed, none twice",
            results.len(),
            told_by_stream.len()
        ),
    );
}

#[test]
fn an_id_that_was_never_given_is_answered_with_resync() {
    let scene = Scene::with_one_service();
    let mut stream = scene.fleet.master.api().stream("", Some("99999999")).unwrap();
    let message = stream.until(PATIENCE, |message| message.event == "resync").unwrap();
    assert!(message.data["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{message:?}");
    assert_ne!(message.data["index"], Value::Null);
}

/// What the second has and the first has not, and the other way round.
fn difference(one: &[Told], other: &[Told]) -> (Vec<Told>, Vec<Told>) {
    let set = |told: &[Told]| told.iter().cloned().collect::<BTreeSet<_>>();
    let (one, other) = (set(one), set(other));
    (other.difference(&one).cloned().collect(), one.difference(&other).cloned().collect())
}
