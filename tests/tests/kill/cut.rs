//! A cut with a backlog, with real programs: what became hard meanwhile is told first, and the backlog then says when it did.

use std::fs;
use std::time::Duration;

use master::entry::{Effect, Entry, Row};
use master::store::{self, Options, Read};
use serde_json::Value;
use shared::name::JournalIndex;
use tests::fakes::{Fakes, daemon};
use tests::fleet::Fleet;
use tests::wait::until;

use crate::scene::undelivered;

const PATIENCE: Duration = Duration::from_secs(60);
/// How long the backlog may take to come together on a busy machine.
const GATHERS: Duration = Duration::from_secs(180);
/// Results that wait on the satellite's volume when the master comes back.
const BACKLOG: u64 = 1500;
const SERVICES: usize = 40;

fn configuration(fakes: &Fakes) -> String {
    let address = fakes.addresses["h"];
    let services: String =
        (0..SERVICES).map(|n| format!("  s{n}: {{ hosts: [h], use: [fast], check: {{ nrpe: c{n} }} }}\n")).collect();
    format!(
        "regions: {{ eu: {{ slots: 1 }} }}\n\
         templates: {{ fast: {{ check_interval: 200ms, retry_interval: 200ms, timeout: 10s, max_check_attempts: 3 }} }}\n\
         hosts:\n  h: {{ region: eu, address: {}, nrpe: {{ tls: plain, port: {}, service: false }} }}\n\
         services:\n  load: {{ hosts: [h], use: [fast], check: {{ nrpe: load }} }}\n{services}",
        address.ip(),
        address.port()
    )
}

fn is_hard_problem(shown: &Value) -> bool {
    shown["service"] == "load" && shown["state"] == "CRITICAL" && shown["state_type"] == "HARD"
}

/// All rows of the journal.
fn rows(fleet: &Fleet) -> Vec<Row> {
    let opened = store::open(&fleet.master.data, Options::default()).unwrap();
    let mut reader = opened.store.reader(JournalIndex(0)).unwrap();
    let mut all = Vec::new();
    while let Some(read) = reader.next().unwrap() {
        let Read::Rows(rows) = read else { panic!("the journal is damaged: {read:?}") };
        all.extend(rows);
    }
    all
}

#[test]
fn what_became_hard_during_a_cut_is_shown_before_the_backlog_which_then_says_when_it_did() {
    let directory = tempfile::tempdir().unwrap();
    let fakes = Fakes::start(directory.path(), &[daemon("h", "plain", &[("*", 0, "OK|a=1")])]).unwrap();
    let config = directory.path().join("site.yaml");
    fs::write(&config, configuration(&fakes)).unwrap();
    let mut fleet = Fleet::new(directory.path(), &config, &[("eu", 1)]).unwrap();
    fleet.start().unwrap();
    let good = |api: &tests::http::Client| {
        let shown = api.get("services/h/load")?;
        Ok(shown["state"] == "OK" && shown["stale"] == false)
    };
    fleet.until("a good state that is no longer stale", PATIENCE, good).unwrap();

    fleet.master.kill().unwrap();
    fakes.say("h", "load", "2 CRITICAL - broken").unwrap();
    let mut waiting = 0;
    let gathered = until(GATHERS, || {
        waiting = undelivered(&fleet.satellites["eu/1"].log());
        waiting >= BACKLOG
    });
    assert!(gathered, "{waiting} results wait\n{}", fleet.last_words());
    fleet.master.start().unwrap();

    // Told by a snapshot, as whoever watches sees it.
    let mut stream = fleet.master.api().stream("", Some("0")).unwrap();
    let told = stream.until(PATIENCE, |message| {
        let changes = message.data["changes"].as_array().into_iter().flatten();
        message.event == "change" && message.data["snapshot"] == true && changes.clone().any(is_hard_problem)
    });
    let told = told.unwrap_or_else(|error| panic!("{error:#}\n{}", fleet.last_words()));
    fleet
        .until("settled", PATIENCE, |api| {
            let shown = api.get("services/h/load")?;
            Ok(is_hard_problem(&shown) && shown["stale"] == false)
        })
        .unwrap();

    // The backlog's own word replaces it, at its true time.
    let mut truly = Value::Null;
    fleet
        .until("the true moment in place of the told one", PATIENCE, |api| {
            let transitions = api.events("transition")?;
            let to_hard: Vec<&Value> = transitions.iter().filter(|event| is_hard_problem(event)).collect();
            truly = to_hard.first().map_or(Value::Null, |event| (*event).clone());
            Ok(to_hard.len() == 1 && truly["late"] == true && truly["snapshot"] == false)
        })
        .unwrap();
    let (came_about, was_told) = (truly["time"].as_str().unwrap(), told.data["at"].as_str().unwrap());
    assert!(came_about < was_told && truly["hard"] == true, "{truly}: told at {was_told}");

    // And in the journal it stands before the first result of the backlog.
    fleet.terminate().unwrap();
    let rows = rows(&fleet);
    let snapshot = rows.iter().position(|row| matches!(row.entry, Entry::Snapshot(_)) && changes_to_hard(row));
    let late = |row: &Row| row.outcomes.verdicts.iter().any(|verdict| verdict.effect == Effect::Late);
    let backlog = rows.iter().position(|row| matches!(row.entry, Entry::Batch(_)) && late(row));
    assert!(snapshot.unwrap() < backlog.unwrap(), "{snapshot:?} {backlog:?}");
}

fn changes_to_hard(row: &Row) -> bool {
    let mut changes = row.outcomes.verdicts.iter().filter_map(|verdict| verdict.change);
    changes.any(|change| change.hard && change.to.is_problem() && change.current)
}
