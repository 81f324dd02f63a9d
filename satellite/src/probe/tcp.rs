//! Whether a TCP port accepts a connection, in the words of Monitoring Plugins' `check_tcp`.

use std::time::Duration;

use shared::check::{Exit, State, TcpCheck};
use tokio::time::Instant;

use super::dial::{self, Cause};

/// What was found: how the check ended, its state and its text.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// How it ended.
    pub exit: Exit,
    /// OK, or CRITICAL for whatever kept the connection from being made.
    pub state: State,
    /// Text with performance data.
    pub text: String,
}

/// Connects within `limit` and hangs up.
pub async fn connect(check: &TcpCheck, limit: Duration) -> Found {
    let TcpCheck { address, port } = check;
    let started = Instant::now();
    let reached = dial::dial(address, *port, dial::deadline_in(limit)).await;
    let took = started.elapsed().as_secs_f64();
    let missed = match reached {
        Ok(_) => {
            let limit = limit.as_secs_f64();
            let text = format!(
                "TCP OK - {took:.3} second response time on {address} port {port}|time={took:.6}s;;;0.000000;{limit:.6}"
            );
            return Found { exit: Exit::Ran(0), state: State::Ok, text };
        }
        Err(missed) => missed,
    };
    let (exit, why) = match missed.cause {
        Cause::Dns(reason) => (Exit::Error("dns".to_owned()), format!("the name cannot be resolved: {reason}")),
        Cause::DnsTimeout => (Exit::TimedOut, format!("no answer from the name service within {took:.3} s")),
        Cause::Refused => (Exit::Error("connect-refused".to_owned()), "connection refused".to_owned()),
        Cause::Unreachable(reason) => (Exit::Error("connect-unreachable".to_owned()), reason),
        Cause::Failed(reason) => (Exit::Error("connect-failed".to_owned()), reason),
        Cause::Timeout => (Exit::TimedOut, format!("no connection within {took:.3} s")),
    };
    let tried = missed.peer.map(|peer| peer.ip().to_string()).filter(|ip| ip != address);
    let tried = tried.map_or_else(String::new, |ip| format!(" ({ip})"));
    Found { exit, state: State::Critical, text: format!("TCP CRITICAL - {address}{tried} port {port}: {why}") }
}
