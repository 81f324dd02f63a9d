//! What must be shown, and is not: for every service the state of its daemon's last answer, as what is current. The daemons' ledger in,
//! what differs from it out. Changes nothing, waits for nothing.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::scene::Scene;

/// States as daemons give them and as they are shown.
pub(crate) const STATES: [(i16, &str); 3] = [(2, "CRITICAL"), (1, "WARNING"), (0, "OK")];

/// Host and command of every answer in the ledger's text from a place on, with the state it gave.
pub(crate) fn given(ledger: &str) -> impl Iterator<Item = ((&str, &str), &str)> {
    ledger.lines().filter_map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        let [_, host, command, _, state] = words.as_slice() else { return None };
        Some(((*host, *command), *state))
    })
}

/// Commands, by host and their own name, whose last answer is not yet the state that they were told to give.
pub(crate) fn untold(wanted: &BTreeMap<(String, String), i16>, ledger: &str) -> Vec<String> {
    let last: BTreeMap<(&str, &str), &str> = given(ledger).collect();
    let is_told = |(of, state): &(&(String, String), &i16)| {
        last.get(&(of.0.as_str(), of.1.as_str())).is_some_and(|last| last.parse::<i16>() == Ok(**state))
    };
    let untold = wanted.iter().filter(|both| !is_told(both));
    untold.map(|((host, command), state)| format!("{host} has not said {state} to {command}")).collect()
}

/// Services that do not show, as what is current, the state of their daemon's last answer.
pub(crate) fn wrong(scene: &Scene, ledger: &str) -> Vec<String> {
    let last: BTreeMap<(&str, &str), &str> = given(ledger).collect();
    let Ok(shown) = scene.fleet.master.api().items("services", "") else { return vec!["nothing is shown".to_owned()] };
    let text = |item: &Value, name: &str| item[name].as_str().unwrap_or_default().to_owned();
    let shown: BTreeMap<(String, String), &Value> =
        shown.iter().map(|item| ((text(item, "host"), text(item, "service")), item)).collect();
    let is_right = |(of, command): &(&(String, String), &String)| {
        let Some(state) = last.get(&(&*of.0, command)).and_then(|state| state.parse::<i16>().ok()) else {
            return false;
        };
        let wanted = STATES.iter().find(|(number, _)| *number == state).map(|(_, name)| *name);
        let is =
            |item: &&&Value| item["state"].as_str() == wanted && item["state_type"] == "HARD" && item["stale"] == false;
        shown.get(*of).filter(is).is_some()
    };
    let wrong = scene.audit.commands.iter().filter(|both| !is_right(both));
    wrong.map(|(of, _)| format!("{of:?}: {:?}", shown.get(of).map(|item| (&item["state"], &item["stale"])))).collect()
}

#[test]
fn what_a_daemon_has_not_said_yet_is_found() {
    let wanted = BTreeMap::from([
        (("h00".to_owned(), "c0".to_owned()), 2),
        (("h00".to_owned(), "c1".to_owned()), 1),
        (("h01".to_owned(), "c0".to_owned()), 2),
    ]);
    let ledger = "1 h00 c0 1 0\n2 h00 c0 2 2\n3 h00 c1 1 1\n4 h00 c1 2 0\n";
    let untold = untold(&wanted, ledger);
    assert_eq!(untold, ["h00 has not said 1 to c1", "h01 has not said 2 to c0"]);
}
