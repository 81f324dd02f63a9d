//! The fleet of fake daemons as a process, as the demo and the proofs use it: described by flags, steered by files, killed and
//! started again; its ledger and what a client saw must agree to the last answer.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use satellite::probe::Prober;
use shared::check::State;
use tests::daemon::ledger;

use crate::scene::{PATIENCE, check};

struct Fleet {
    child: Child,
    addresses: BTreeMap<String, SocketAddr>,
}

impl Fleet {
    fn start(directory: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_perigee-fake-nrpe"))
            .args(["--listen", "alpha=127.0.0.2:0", "--listen", "beta=127.0.0.3:0", "--flap", "flap=2"])
            .args(["--command", "load=0:OK - fine|load=1"])
            .arg("--ledger")
            .arg(directory.join("ledger"))
            .arg("--control")
            .arg(directory.join("control"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&ready).unwrap();
        let addresses = ready["ready"].as_object().unwrap().iter();
        let addresses = addresses.map(|(host, at)| (host.clone(), at.as_str().unwrap().parse().unwrap())).collect();
        Self { child, addresses }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[tokio::test]
async fn a_fleet_and_its_ledger_agree_with_what_was_seen_across_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let prober = Prober::new().unwrap();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let fleet = Fleet::start(directory.path());
        for _ in 0..3 {
            for (host, address) in &fleet.addresses {
                for command in ["load", "flap"] {
                    let outcome = prober.probe(host, &check(*address, true, command), PATIENCE).await;
                    let serial =
                        outcome.metrics.iter().find(|metric| metric.label == "serial").expect("a number").value;
                    seen.push((
                        host.clone(),
                        command.to_owned(),
                        serial.to_string(),
                        i16::from(outcome.state.number()),
                    ));
                }
            }
        }
    }
    let mut written: Vec<_> = ledger::read(&directory.path().join("ledger"))
        .unwrap()
        .into_iter()
        .map(|entry| (entry.host, entry.command, entry.serial.to_string(), entry.state))
        .collect();
    assert_eq!(seen.len(), 24);
    let flapped: Vec<i16> =
        seen.iter().filter(|(host, command, ..)| host == "alpha" && command == "flap").map(|seen| seen.3).collect();
    assert_eq!(flapped, [0, 0, 2, 2, 0, 0], "two answers each, across the kill");
    seen.sort();
    written.sort();
    assert_eq!(seen, written);
}

#[tokio::test]
async fn a_control_file_steers_a_running_fleet() {
    let directory = tempfile::tempdir().unwrap();
    let control = directory.path().join("control/beta");
    std::fs::create_dir_all(&control).unwrap();
    let fleet = Fleet::start(directory.path());
    let prober = Prober::new().unwrap();
    let beta = check(fleet.addresses["beta"], true, "load");
    assert_eq!(prober.probe("beta!load", &beta, PATIENCE).await.state, State::Ok);
    std::fs::write(control.join("load"), "CRITICAL - down|load=9").unwrap();
    let down = prober.probe("beta!load", &beta, PATIENCE).await;
    assert_eq!((down.state, down.output.as_str()), (State::Critical, "- down"));
    let alpha = check(fleet.addresses["alpha"], true, "load");
    assert_eq!(prober.probe("alpha!load", &alpha, PATIENCE).await.state, State::Ok, "only the host that was named");
    std::fs::remove_file(control.join("load")).unwrap();
    assert_eq!(prober.probe("beta!load", &beta, PATIENCE).await.state, State::Ok);
}
