//! Plugins and echoes through a whole installation: written into a configuration, run by a real satellite, seen at the master; and
//! the host without a check, on a machine that does not permit ICMP and then does.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use serde_json::Value;
use tests::fleet::Fleet;
use tests::http::Client;
use tests::network::is_own;

use crate::network::permit_icmp;

/// No single thing takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn plugins_and_echoes_are_seen_at_the_master() {
    if !is_own("system::plugins_and_echoes_are_seen_at_the_master") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let plugin = directory.path().join("check_words");
    fs::write(
        &plugin,
        "#!/bin/sh\nprintf 'WARNING - %s words, %s, %s|n=%s;1;9\\nmore\\n' $# \"$2\" \"$SITE\" $#\nexit 1\n",
    )
    .unwrap();
    fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = directory.path().join("perigee.yaml");
    let text = format!(
        "regions: {{ eu: {{ slots: 1 }} }}\n\
         templates: {{ fast: {{ check_interval: 1s, retry_interval: 1s, max_check_attempts: 1, timeout: 5s }} }}\n\
         commands:\n  words:\n    plugin: [{}, -H, \"{{{{ host.address }}}}{{{{ args.more }}}}\", last]\n    env: {{ SITE: \"{{{{ host.region }}}}\" }}\n\
         hosts:\n  here: {{ use: [fast], address: 127.0.0.1, nrpe: {{ port: {port} }}, vars: {{ odd: \" a;b $(id)\" }} }}\n\
         \x20 away: {{ use: [fast], address: 192.0.2.1 }}\n\
         services:\n  words: {{ hosts: [here], use: [fast], check: {{ command: words, args: {{ more: \"{{{{ host.vars.odd }}}}\" }} }} }}\n\
         \x20 ping: {{ hosts: [here], use: [fast], check: icmp }}\n\
         \x20 gone: {{ hosts: [here], use: [fast], check: {{ plugin: [check_that_nobody_has] }} }}\n",
        plugin.display()
    );
    fs::write(&config, text).unwrap();
    let mut fleet = Fleet::new(directory.path(), &config, &[("eu", 1)]).unwrap();
    fleet.start().unwrap();
    let text = |object: &Value, field: &str| object[field].as_str().unwrap_or_default().to_owned();
    let is = |path: &'static str, state: &'static str, words: &'static str| {
        move |api: &Client| {
            let object = api.get(path)?;
            let said = object["output"].as_str().unwrap_or_default();
            Ok(object["state"] == state && said.contains(words))
        }
    };

    // Nobody may send ICMP in a new network.
    let asked = [
        ("services/here/words", "WARNING", "WARNING - 3 words, 127.0.0.1 a;b $(id), eu"),
        ("services/here/gone", "UNKNOWN", "plugin directories"),
        ("services/here/ping", "UNKNOWN", "ICMP is not permitted here"),
        ("hosts/here", "UP", "(in place of ICMP)"),
        ("hosts/away", "DOWN", "(in place of ICMP)"),
    ];
    for (path, state, words) in asked {
        fleet.until(&format!("{path} {state}: {words}"), PATIENCE, is(path, state, words)).unwrap();
    }
    let words = fleet.master.api().get("services/here/words").unwrap();
    assert_eq!((text(&words, "perfdata").as_str(), text(&words, "long_output").as_str()), ("n=3;1;9", "more"));

    permit_icmp();
    let asked = [
        ("services/here/ping", "OK", "rta "),
        ("hosts/here", "UP", "rta "),
        ("hosts/away", "DOWN", "Network is unreachable. rta nan, lost 100%"),
    ];
    for (path, state, words) in asked {
        fleet.until(&format!("{path} {state}: {words}"), PATIENCE, is(path, state, words)).unwrap();
    }
    let ping = fleet.master.api().get("services/here/ping").unwrap();
    assert!(text(&ping, "perfdata").contains("ms;200.000;500.000;0; pl=0%;40;80;0;100 rtmax="), "{ping}");
    drop(listener);
    fleet.terminate().unwrap();
}
