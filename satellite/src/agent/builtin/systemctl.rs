//! Runs `systemctl` and brings home what it printed, or why there is nothing to be had. Judges no unit.

use std::time::Duration;

use crate::process::{self, Exit, Order};

/// How long systemctl may take; it asks systemd over a socket and usually needs some hundredths.
const PATIENCE: Duration = Duration::from_secs(8);
/// Bytes of its output that are read; more than thousand units in trouble.
const OUTPUT_MAX: usize = 256 * 1024;

/// What it printed.
///
/// # Errors
/// It is not installed, systemd does not run here, or it failed; the text says which.
pub async fn run(command: Vec<String>) -> Result<String, String> {
    let ended = process::run(&Order::new(command, PATIENCE, OUTPUT_MAX)).await;
    let said = String::from_utf8_lossy(&ended.stderr.bytes);
    let said = said.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned();
    match ended.exit {
        Exit::Ran(0) => Ok(String::from_utf8_lossy(&ended.stdout.bytes).into_owned()),
        Exit::Ran(_) if said.contains("not been booted with systemd") || said.contains("connect to bus") => {
            Err(format!("systemd does not run here, or cannot be reached: {said}"))
        }
        Exit::Ran(status) => Err(format!("systemctl ended with {status}: {said}")),
        Exit::Signal(signal) => Err(format!("systemctl was ended by signal {signal}")),
        Exit::TimedOut => Err(format!("systemctl has not ended within {} s", PATIENCE.as_secs())),
        Exit::NotStarted(obstacle) => {
            Err(format!("systemctl cannot be run ({obstacle}): is this machine run by systemd?"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn what_cannot_be_run_is_said_in_words() {
        assert_eq!(run(words("/bin/echo a.service loaded")).await, Ok("a.service loaded\n".to_owned()));
        let missing = run(words("/no/such/systemctl")).await.unwrap_err();
        assert!(missing.contains("no such file") && missing.contains("run by systemd?"), "{missing}");
        assert_eq!(run(words("/bin/false")).await, Err("systemctl ended with 1: ".to_owned()));
    }
}
