//! The TCP probe in the words of Monitoring Plugins' `check_tcp`, compared with the real one where it is installed.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use satellite::probe::Prober;
use shared::check::{Check, Exit, State, TcpCheck};
use tests::missing::missing;

const CHECK_TCP: &str = "/usr/lib/nagios/plugins/check_tcp";
const LIMIT: Duration = Duration::from_secs(10);

fn check(address: &str, port: u16) -> Check {
    Check::Tcp(TcpCheck::port(address.to_owned(), port))
}

/// Every measured time as `#`: what is left is the form.
fn form(text: &str) -> String {
    let mut form = String::new();
    for part in text.trim_end().split_inclusive([' ', '=', 's']) {
        let number = part.trim_end_matches([' ', '=', 's']);
        let measured = number.starts_with("0.") && number.len() > 4 || number.starts_with("0.0");
        form.push_str(&if measured { part.replacen(number, "#", 1) } else { part.to_owned() });
    }
    form
}

#[tokio::test]
async fn an_open_port_is_told_in_the_form_of_check_tcp() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let outcome = Prober::new().unwrap().probe("h", &check("127.0.0.1", port), LIMIT).await;
    assert_eq!((outcome.state, &outcome.exit), (State::Ok, &Exit::Ran(0)), "{outcome:?}");
    assert_eq!(outcome.metrics.len(), 1);
    assert_eq!((outcome.metrics[0].label.as_str(), outcome.metrics[0].unit.as_str()), ("time", "s"));
    assert!(outcome.metrics[0].value < LIMIT.as_secs_f64());
    let ours = format!("{}|{}", outcome.output, outcome.perfdata);
    assert_eq!(
        form(&ours),
        format!("TCP OK - # second response time on 127.0.0.1 port {port}|time=#s;;;0.000000;10.000000")
    );
    if !Path::new(CHECK_TCP).exists() {
        missing(CHECK_TCP, "monitoring-plugins-basic");
        return;
    }
    let theirs = Command::new(CHECK_TCP)
        .args(["-H", "127.0.0.1", "-t", "10", "-p", &port.to_string()])
        .output()
        .expect("check_tcp starts");
    assert_eq!(form(&ours), form(&String::from_utf8_lossy(&theirs.stdout)));
}

#[tokio::test]
async fn a_closed_port_and_an_unknown_name_are_critical_and_say_which() {
    let prober = Prober::new().unwrap();
    let port = tests::nrpe::free_port(std::net::Ipv4Addr::LOCALHOST).unwrap();
    let refused = prober.probe("h", &check("127.0.0.1", port), LIMIT).await;
    assert_eq!((refused.state, refused.exit), (State::Critical, Exit::Error("connect-refused".to_owned())));
    assert_eq!(refused.output, format!("TCP CRITICAL - 127.0.0.1 port {port}: connection refused"));
    let unknown = prober.probe("h", &check("no-such-host.invalid", port), LIMIT).await;
    assert_eq!(unknown.state, State::Critical);
    assert!(unknown.output.starts_with("TCP CRITICAL - no-such-host.invalid port"), "{unknown:?}");
}
