//! A satellite whose master is away overruns its bounded spool, and later is gone itself while nobody of its region can take over: one
//! incident, whatever it owned; its checks keep their states and are stale; and all of it is over when it is back.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tests::browser;
use tests::fakes::Fakes;
use tests::fleet::{Fleet, program};
use tests::http::Client;
use tests::wait::until;

use crate::scene::{PATIENCE, daemon, grouped, page, said, words};

const SERVICES: usize = 40;
/// About what a result holds.
const BYTES: usize = 900;
/// The host and its services, the broken one among them.
const CHECKS: u64 = SERVICES as u64 + 2;

/// `h` in a region of one slot, and a region of two that stays, so that the master does not take itself for cut off.
fn configuration(fakes: &Fakes) -> String {
    let address = fakes.addresses["h"];
    let (ip, port) = (address.ip(), address.port());
    let mut text = "regions:\n  eu: { slots: 1, failover_after: 20s }\n  us: { slots: 2, failover_after: 20s }\n\
                    templates:\n  fast: { check_interval: 200ms, retry_interval: 200ms, timeout: 60s, max_check_attempts: 1 }\n\
                    hosts:\n"
        .to_owned();
    for (name, region) in [("h", "eu"), ("far", "us"), ("farther", "us")] {
        let _ = writeln!(
            text,
            "  {name}: {{ region: {region}, address: {ip}, check_interval: 1s, timeout: 60s, check: {{ tcp: {port} }}, \
             nrpe: {{ tls: plain, port: {port}, service: false }} }}"
        );
    }
    text.push_str("services:\n  broken: { hosts: [h], use: [fast], check: { nrpe: broken } }\n");
    for n in 0..SERVICES {
        let _ = writeln!(text, "  s{n}: {{ hosts: [h], use: [fast], check: {{ nrpe: c{n} }} }}");
    }
    text
}

/// All that the region's slot checks, by name.
fn checks(api: &Client) -> anyhow::Result<BTreeMap<String, Value>> {
    let mut checks = api.items("hosts", "filter=region%3Deu")?;
    checks.extend(api.items("services", "filter=region%3Deu")?);
    Ok(checks.into_iter().map(|check| (format!("{}!{}", check["host"], check["service"]), check)).collect())
}

/// What must not change because nobody looks: the state and its past.
fn states(checks: &BTreeMap<String, Value>) -> BTreeMap<String, Vec<Value>> {
    let kept = ["state", "state_type", "attempt", "last_change", "last_hard_change", "output", "slot"];
    checks.iter().map(|(name, check)| (name.clone(), kept.map(|field| check[field].clone()).to_vec())).collect()
}

/// The slot of `h`.
fn slot(api: &Client) -> anyhow::Result<Value> {
    let slots = api.items("slots", "")?;
    Ok(slots.into_iter().find(|slot| slot["region"] == "eu").unwrap_or_default())
}

/// Lets the satellite give up what it cannot hold while no master is there. How much of its spool there was at most.
fn overrun(fleet: &mut Fleet) -> u64 {
    fleet.master.kill().unwrap();
    let volume = fleet.satellite("eu/1").unwrap().data.clone();
    let mut most = 0;
    let forced = until(PATIENCE, || {
        let told = Command::new(program("perigee-satellite").unwrap())
            .args(["status", "--json", "--data"])
            .arg(&volume)
            .output()
            .unwrap();
        let told = String::from_utf8(told.stdout).unwrap();
        let told: Value = serde_json::from_str(told.lines().next().unwrap_or("{}")).unwrap_or_default();
        most = most.max(told["spool_bytes"].as_u64().unwrap_or(0));
        told["given_up"].as_u64() > Some(0)
    });
    assert!(forced, "nothing was given up at {most} bytes\n{}", fleet.last_words());
    fleet.master.start().unwrap();
    fleet.until_connected(PATIENCE).unwrap();
    most
}

/// The gaps as every face shows them; how many results are lost.
fn gaps_are_shown(fleet: &Fleet, directory: &Path) -> u64 {
    let api = fleet.master.api();
    let lost = |gaps: &[Value]| gaps.iter().filter_map(|gap| gap["lost"].as_u64()).sum::<u64>();
    fleet
        .until("delivered and named", PATIENCE, |api| {
            let (slot, gaps) = (slot(api)?, api.items("gaps", "")?);
            // Exactly what the satellite gave up is what the gaps name.
            Ok(!gaps.is_empty() && slot["undelivered"].as_u64() < Some(100) && slot["given_up"] == lost(&gaps))
        })
        .unwrap();
    let gaps = api.items("gaps", "").unwrap();
    for gap in &gaps {
        let whose = (gap["region"].as_str(), gap["slot"].as_u64(), gap["writer"].as_str());
        assert_eq!(whose, (Some("eu"), Some(1), None), "{gap}");
        assert_eq!((gap["reason"].as_str(), gap["explained"].as_bool()), (Some("spool-full"), Some(true)), "{gap}");
        assert!(gap["from"].is_string() && gap["from"].as_str() <= gap["to"].as_str(), "{gap}");
    }
    let lost = lost(&gaps);
    let shown = said(&fleet.master, &["gaps"], 0);
    assert!(shown.contains("eu/1") && shown.contains("spool-full"), "{shown}");
    assert!(shown.contains(&format!("{lost} result")), "{lost}: {shown}");
    // What the reason means stands beside its name.
    let meaning = gaps[0]["meaning"].as_str().unwrap();
    assert!(words(&shown).contains(&format!("spool-full: {meaning}")), "{shown}");
    let markup = page(&fleet.master, directory);
    let text = browser::text(browser::labelled(&markup, "Gaps", "section").unwrap_or_default());
    // The newest stands first.
    let newest = grouped(gaps[0]["lost"].as_u64().unwrap());
    assert!(text.contains(&format!("eu/1 {newest} result")) && text.contains("spool-full"), "{text}");
    assert!(words(&text).contains(meaning), "{text}");
    lost
}

/// The satellite is gone: one incident and stale checks, on every face.
fn silence_is_shown(fleet: &Fleet, earlier: usize, before: &BTreeMap<String, Vec<Value>>, directory: &Path) {
    let lost = |status: &Value| status["incidents"].as_array().is_some_and(|open| !open.is_empty());
    fleet.until("a lost slot", PATIENCE, |api| Ok(lost(&api.get("status")?))).unwrap();
    let api = fleet.master.api();
    let status = api.get("status").unwrap();
    let incidents = status["incidents"].as_array().unwrap();
    assert_eq!(incidents.len(), 1, "{incidents:?}");
    let words = format!("slot eu/1 is lost: its {CHECKS} checks may be out of date, no other slot has taken them over");
    let told = json!([incidents[0]["kind"], incidents[0]["region"], incidents[0]["slot"], incidents[0]["text"]]);
    assert_eq!(told, json!(["slot-lost", "eu", 1, words]));
    assert_eq!((&status["stale"], &status["slots"]["missing"]), (&json!(CHECKS), &json!(1)), "{status}");

    let now = checks(&api).unwrap();
    assert_eq!(&states(&now), before, "states change because nobody looks");
    for (name, check) in &now {
        assert_eq!((&check["stale"], &check["stale_reason"]), (&json!(true), &json!("silent")), "{name}: {check}");
    }
    let others = api.items("hosts", "filter=region%3Dus").unwrap();
    assert!(others.len() == 2 && others.iter().all(|host| host["stale"] == false), "{others:?}");
    let slots = api.items("slots", "").unwrap();
    let gone: Vec<&Value> = slots.iter().filter(|slot| slot["lost"].is_string()).collect();
    assert!(gone.len() == 1 && gone[0]["region"] == "eu" && gone[0]["connected"] == false, "{slots:?}");
    let history = api.events("incident").unwrap().split_off(earlier);
    assert_eq!(history.len(), 1, "{history:?}");
    assert_eq!((&history[0]["open"], &history[0]["checks"]), (&json!(true), &json!(CHECKS)), "{history:?}");

    // Lines of a terminal end where it does.
    let unwrapped = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown = unwrapped(said(&fleet.master, &["status"], 0));
    assert_eq!(shown.matches("is lost").count(), 1, "{shown}");
    assert!(shown.contains(&words) && shown.contains(&format!("stale {CHECKS} may be out of date")), "{shown}");
    let problems = unwrapped(said(&fleet.master, &["problems"], 1));
    assert!(problems.contains(&words) && problems.contains("eu/1 stale"), "{problems}");
    let shown = said(&fleet.master, &["slots"], 1);
    assert!(shown.contains("lost") && shown.contains("2 of 3 expected slots connected"), "{shown}");

    let markup = page(&fleet.master, directory);
    let rows = browser::labelled(&markup, "Problems of the fleet", "ul").unwrap_or_default();
    assert_eq!(rows.matches("<li").count(), 1, "{rows}");
    assert!(browser::text(rows).contains(&words), "{rows}");
    let text = browser::text(&markup);
    assert!(text.contains("broken") && text.contains("may be old"), "{text}");
    assert!(text.contains("slot 1 lost for") && text.contains("0 of 1 connected"), "{text}");
}

#[test]
fn a_satellite_that_is_gone_is_one_incident_and_its_gaps_have_names() {
    if !browser::installed() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let fakes = Fakes::start(directory, &[daemon(SERVICES, BYTES)]).unwrap();
    let config = directory.join("site.yaml");
    fs::write(&config, configuration(&fakes)).unwrap();
    let mut fleet = Fleet::new(directory, &config, &[("eu", 1), ("us", 1), ("us", 2)]).unwrap();
    // As an operator sets it, through the environment of the satellite.
    fleet.satellite("eu/1").unwrap().through = ["env", "PERIGEE_SPOOL_BYTES=4MiB"].map(str::to_owned).to_vec();
    fleet.start().unwrap();
    fleet.until_connected(PATIENCE).unwrap();
    let known = |api: &Client| {
        let all = checks(api)?;
        let known = all.values().all(|check| check["state"] != "PENDING" && check["stale"] == false);
        Ok(all.len() == usize::try_from(CHECKS)? && known)
    };
    fleet.until("everything checked", PATIENCE, known).unwrap();
    assert_eq!(fleet.master.api().get("status").unwrap()["incidents"], json!([]));

    let most = overrun(&mut fleet);
    assert!(most <= 4 << 20, "{most} bytes");
    let lost = gaps_are_shown(&fleet, directory);
    fleet.until("everything is known again", PATIENCE, known).unwrap();
    let before = states(&checks(&fleet.master.api()).unwrap());

    // On a busy machine somebody may have been late after the master's return.
    fleet.until("no incident", PATIENCE, |api| Ok(api.get("status")?["incidents"] == json!([]))).unwrap();
    let earlier = fleet.master.api().events("incident").unwrap().len();
    fleet.satellite("eu/1").unwrap().kill().unwrap();
    silence_is_shown(&fleet, earlier, &before, directory);

    fleet.start_satellites().unwrap();
    fleet
        .until("back", PATIENCE, |api| {
            let status = api.get("status")?;
            Ok(status["incidents"] == json!([]) && status["stale"] == 0 && status["slots"]["missing"] == 0)
        })
        .unwrap();
    let history = fleet.master.api().events("incident").unwrap().split_off(earlier);
    let told: Vec<_> = history.iter().map(|event| (event["open"].as_bool(), event["reason"].as_str())).collect();
    assert_eq!(told, [(Some(true), Some("silent")), (Some(false), Some("heard"))], "{history:?}");
    assert_eq!(states(&checks(&fleet.master.api()).unwrap()), before);
    let shown = said(&fleet.master, &["status"], 0);
    assert!(!shown.contains("is lost") && shown.contains("everything shown is current"), "{shown}");
    let markup = page(&fleet.master, directory);
    assert_eq!(browser::labelled(&markup, "Problems of the fleet", "ul"), None);
    let text = browser::text(&markup);
    assert!(text.contains("broken") && !text.contains("may be old"), "{text}");
    assert!(text.contains("1 of 1 connected"), "{text}");
    // What is lost stays named.
    let named = fleet.master.api().items("gaps", "").unwrap();
    assert!(named.iter().filter_map(|gap| gap["lost"].as_u64()).sum::<u64>() >= lost, "{named:?}");
    fleet.terminate().unwrap();
}
