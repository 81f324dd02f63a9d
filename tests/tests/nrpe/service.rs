//! The service `nrpe` in a running installation: an hour between its own checks, and yet it knows within seconds that its daemon has
//! stopped, and that it is back, because the other checks of the daemon tell.

use std::time::Duration;

use serde_json::{Value, json};
use tests::fakes::{Fakes, daemon};
use tests::fleet::Fleet;
use tests::http::Client;

/// No single thing takes longer, on whatever machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn service(api: &Client, name: &str) -> (String, String) {
    let found = api.get(&format!("services/alpha/{name}")).unwrap_or(Value::Null);
    let text = |key: &str| found.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    (text("state"), text("output"))
}

#[test]
fn a_daemon_that_stops_and_comes_back_is_known_at_once_by_its_service() {
    let directory = tempfile::tempdir().unwrap();
    let mut alpha = daemon("alpha", "anonymous", &[("load", 0, "OK - fine")]);
    let fakes = Fakes::start(directory.path(), std::slice::from_ref(&alpha)).unwrap();
    let address = fakes.addresses["alpha"];
    let config = directory.path().join("site.yaml");
    let text = format!(
        "regions: {{ eu: {{ slots: 1 }} }}\n\
         hosts:\n  alpha: {{ address: 127.0.0.1, nrpe: {{ port: {} }}, check_interval: 1h, retry_interval: 1h }}\n\
         services:\n  load: {{ hosts: [alpha], check: {{ nrpe: load }}, check_interval: 1s, retry_interval: 1s }}\n",
        address.port()
    );
    std::fs::write(&config, text).unwrap();
    let mut fleet = Fleet::new(directory.path(), &config, &[("eu", 1)]).unwrap();
    fleet.start().unwrap();
    let becomes = |fleet: &Fleet, name: &str, state: &str| {
        fleet.until(&format!("{name} {state}"), PATIENCE, |api| Ok(service(api, name).0 == state)).unwrap();
        service(&fleet.master.api(), name).1
    };
    // Its first check is due at once, not within the hour.
    let output = becomes(&fleet, "nrpe", "OK");
    assert!(output.starts_with("NRPE v4.1.0 (packet version 4, TLSv1.2 "), "{output}");
    assert!(output.ends_with(", not authenticated)"), "{output}");
    becomes(&fleet, "load", "OK");
    drop(fakes);
    let output = becomes(&fleet, "nrpe", "CRITICAL");
    assert!(output.contains("connection refused"), "{output}");
    alpha["listen"] = json!(address.to_string());
    let _fakes = Fakes::start(directory.path(), &[alpha]).unwrap();
    becomes(&fleet, "nrpe", "OK");
    fleet.terminate().unwrap();
}
