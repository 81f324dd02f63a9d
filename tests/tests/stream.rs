//! The event stream of a whole installation: a change of a daemon's answer is seen within a second, and a client that comes back by
//! id after the master was killed has seen every row once.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test that measures real time and has nothing better to do when its stage cannot be set"
)]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tests::daemon::ledger;
use tests::fakes::{Fakes, daemon};
use tests::figure::figure;
use tests::fleet::Fleet;
use tests::http::{Message, Stream};

const PATIENCE: Duration = Duration::from_secs(60);
/// What the page promises.
const A_SECOND: Duration = Duration::from_secs(1);
const CHANGES: usize = 6;

/// A fleet with one satellite; `services` are (name, command), all of host `h`, checked four times a second.
fn fleet(directory: &Path, fakes: &Fakes, services: &[(&str, &str)]) -> Fleet {
    let address = fakes.addresses["h"];
    let lines: String = services
        .iter()
        .map(|(name, command)| format!("  {name}: {{ hosts: [h], use: [fast], check: {{ nrpe: {command} }} }}\n"))
        .collect();
    let text = format!(
        "regions: {{ eu: {{ slots: 1 }} }}\n\
         templates: {{ fast: {{ check_interval: 250ms, retry_interval: 250ms, max_check_attempts: 1 }} }}\n\
         hosts:\n  h: {{ region: eu, address: {}, nrpe: {{ tls: plain, port: {} }} }}\nservices:\n{lines}",
        address.ip(),
        address.port()
    );
    let config = directory.join("site.yaml");
    fs::write(&config, text).unwrap();
    let mut fleet = Fleet::new(directory, &config, &[("eu", 1)]).unwrap();
    fleet.start().unwrap();
    fleet
        .until("a result of every service", PATIENCE, |api| {
            let services = api.items("services", "")?;
            Ok(!services.is_empty() && services.iter().all(|service| service["state"] != "PENDING"))
        })
        .unwrap();
    fleet
}

/// The first change of the service in a message, as its new state.
fn new_state<'m>(message: &'m Message, service: &str) -> Option<&'m str> {
    let changes = message.data["changes"].as_array()?;
    changes.iter().find(|change| change["service"] == service)?["state"].as_str()
}

fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

#[test]
fn a_change_is_seen_within_a_second_of_the_daemons_answer() {
    let directory = tempfile::tempdir().unwrap();
    let fakes = Fakes::start(directory.path(), &[daemon("h", "plain", &[("*", 0, "OK")])]).unwrap();
    let fleet = fleet(directory.path(), &fakes, &[("one", "one"), ("two", "two")]);
    let mut stream = fleet.master.api().stream("", None).unwrap();
    let mut from_answer = Vec::new();
    let mut from_cause = Vec::new();
    for change in 0..CHANGES {
        let (order, state, code) = if change % 2 == 0 { ("2 broken", "CRITICAL", 2) } else { ("0 well", "OK", 0) };
        let began = now();
        let cause = Instant::now();
        fakes.say("h", "one", order).unwrap();
        stream.until(PATIENCE, |message| new_state(message, "one") == Some(state)).unwrap();
        let seen = now();
        from_cause.push(cause.elapsed());
        let answers = ledger::read(&fakes.ledger).unwrap();
        let answer =
            answers.iter().find(|answer| answer.command == "one" && answer.at >= began && answer.state == code);
        from_answer.push(Duration::from_millis(seen.saturating_sub(answer.unwrap().at)));
    }
    from_answer.sort();
    from_cause.sort();
    let slowest = from_answer[CHANGES - 1];
    assert!(slowest <= A_SECOND, "{from_answer:?}");
    let (median, cause) = (from_answer[CHANGES / 2], from_cause[CHANGES / 2]);
    figure(
        7,
        &format!(
            "a change is seen {median:?} after the daemon's answer ({slowest:?} at most), {cause:?} after its cause"
        ),
    );
}

/// What identifies a row's message: index and kind, and of changes what changed.
fn identity(message: &Message) -> (u64, String) {
    let index = message.data["index"].as_u64().unwrap();
    let changes = message.data["changes"].as_array().into_iter().flatten();
    let changes =
        changes.map(|change| format!("{}:{}>{}", change["service"], change["from"]["state"], change["state"]));
    (index, format!("{} {}", message.event, changes.collect::<Vec<_>>().join(",")))
}

/// Reads rows until `enough`; links come and go without a row and are left out.
fn read(stream: &mut Stream, seen: &mut Vec<(u64, String)>, mut enough: impl FnMut(&[(u64, String)]) -> bool) {
    let began = Instant::now();
    while !enough(seen) {
        assert!(began.elapsed() < PATIENCE, "only {} rows: {:?}", seen.len(), seen.last());
        let message = stream.next(Duration::from_millis(200)).unwrap();
        assert!(message.as_ref().is_none_or(|message| message.event != "resync"), "{message:?}");
        seen.extend(message.filter(|message| message.event != "link").map(|message| identity(&message)));
    }
}

#[test]
fn a_client_that_comes_back_by_id_has_seen_every_row_once() {
    let directory = tempfile::tempdir().unwrap();
    let texts = [serde_json::json!({ "state": 0, "text": "up" }), serde_json::json!({ "state": 2, "text": "down" })];
    let mut description = daemon("h", "plain", &[]);
    for (command, every) in [("a", 1), ("b", 2), ("c", 3)] {
        description["commands"][command] = serde_json::json!({ "every": every, "of": texts });
    }
    let fakes = Fakes::start(directory.path(), &[description]).unwrap();
    let mut fleet = fleet(directory.path(), &fakes, &[("a", "a"), ("b", "b"), ("c", "c")]);
    let api = fleet.master.api();

    let mut seen = Vec::new();
    let mut stream = api.stream("since=0", None).unwrap();
    read(&mut stream, &mut seen, |seen| seen.len() >= 20);
    let before = seen.len();
    fleet.master.kill().unwrap();
    // What was on its way when the master was killed still comes; then the stream ends.
    while let Ok(Some(message)) = stream.next(Duration::from_secs(5)) {
        if message.event != "link" {
            seen.push(identity(&message));
        }
    }
    let id = stream.last_id.clone();
    assert!(id.is_some());
    fleet.master.start().unwrap();
    let mut stream = api.stream("", id.as_deref()).unwrap();
    let cut = seen.len();
    read(&mut stream, &mut seen, |seen| seen.len() >= cut + 20);

    let last = seen.last().map(|(index, _)| *index).unwrap();
    let mut whole = Vec::new();
    let mut stream = api.stream("since=0", None).unwrap();
    read(&mut stream, &mut whole, |whole| whole.last().is_some_and(|(index, _)| *index >= last));
    whole.retain(|(index, _)| *index <= last);
    assert_eq!(seen.len(), whole.len(), "{before} rows before the kill, {cut} with what was on its way");
    assert_eq!(seen, whole);
    assert!(whole.windows(2).all(|pair| pair[0].0 <= pair[1].0), "rows come in their order");
    let changes = whole.iter().filter(|(_, what)| what.starts_with("change")).count();
    assert!(changes >= 30, "{changes} changes");
    figure(
        7,
        &format!(
            "{} rows over a kill of the master, each seen once by a client that resumed at {}",
            seen.len(),
            id.unwrap()
        ),
    );
}

#[test]
fn an_id_that_was_never_given_is_answered_with_resync() {
    let directory = tempfile::tempdir().unwrap();
    let fakes = Fakes::start(directory.path(), &[daemon("h", "plain", &[("*", 0, "OK")])]).unwrap();
    let fleet = fleet(directory.path(), &fakes, &[("one", "one")]);
    let mut stream = fleet.master.api().stream("", Some("99999999")).unwrap();
    let message = stream.until(PATIENCE, |message| message.event == "resync").unwrap();
    assert!(message.data["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{message:?}");
    assert_ne!(message.data["index"], Value::Null);
}
