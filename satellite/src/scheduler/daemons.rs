//! Which check asks each NRPE daemon for itself (the service `nrpe` of a host), and when it is asked before its time: as soon as
//! the outcome of another check of the same daemon does not fit what it said last. So the daemon's state is that of the newest
//! transport outcome, and costs no connection per check. Knows no clock and no schedule; places on the master's axis come in.
//!
//! The surprise: a command that does not end in time counts as a daemon that cannot be reached. A daemon that hangs looks the same,
//! and asking it once settles which it is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shared::assignment::{AssignedCheck, Carried};
use shared::check::{Check, Exit, NrpeCheck, State};
use shared::name::CheckId;
use shared::time::Timestamp;

/// A daemon is asked for itself before its time at most this often; a doubt that comes earlier waits for the rest of it.
pub const FORWARD_EVERY: Duration = Duration::from_secs(15);
/// Failures of ours: nobody was asked.
const OURS: [&str; 4] = ["queue-timeout", "request-too-long", "probe-broke-off", "check-kind-unknown"];
/// The daemon was reached and refused this one request.
const REFUSED: &str = "request-refused";

/// A daemon, by address and port as configured.
type Daemon = (String, u16);

/// The daemons of this slot.
#[derive(Debug, Default)]
pub struct Daemons {
    asking: BTreeMap<Daemon, BTreeSet<CheckId>>,
    /// When a check was last asked before its time.
    forwarded: BTreeMap<CheckId, Timestamp>,
}

fn daemon(check: &NrpeCheck) -> Daemon {
    (check.address.clone(), check.port)
}

/// Whether a check asks a daemon for itself.
#[must_use]
pub fn asks_daemon(check: &AssignedCheck) -> bool {
    matches!(&check.check, Some(Check::Nrpe(check)) if check.asks_daemon())
}

/// Whether the daemon was reached; `None` where the outcome does not tell.
fn reached(exit: &Exit) -> Option<bool> {
    match exit {
        Exit::Ran(_) => Some(true),
        Exit::TimedOut => Some(false),
        Exit::Error(kind) if kind == REFUSED => Some(true),
        Exit::Error(kind) if OURS.contains(&kind.as_str()) => None,
        Exit::Error(_) => Some(false),
        Exit::Signal(_) => None,
    }
}

impl Daemons {
    /// Takes the checks of a new assignment.
    pub fn assign(&mut self, checks: &BTreeMap<CheckId, AssignedCheck>) {
        self.asking.clear();
        for (id, check) in checks {
            if let Some(Check::Nrpe(check)) = &check.check
                && check.asks_daemon()
            {
                self.asking.entry(daemon(check)).or_default().insert(*id);
            }
        }
        self.forwarded.retain(|id, _| checks.contains_key(id));
    }

    /// The checks that should be asked before their time because of this outcome, and when each may be.
    #[must_use]
    pub fn doubted(
        &self,
        now: Timestamp,
        check: &Check,
        exit: &Exit,
        states: &BTreeMap<CheckId, Carried>,
    ) -> Vec<(CheckId, Timestamp)> {
        let Check::Nrpe(check) = check else { return Vec::new() };
        let (false, Some(reached)) = (check.asks_daemon(), reached(exit)) else { return Vec::new() };
        let asking = self.asking.get(&daemon(check)).into_iter().flatten();
        let doubted = asking.filter(|id| {
            let known = states.get(id).map_or(State::Pending, |known| known.state.state);
            // One that was never asked has its first time before it.
            known != State::Pending && (known == State::Ok) != reached
        });
        let when = |id: &CheckId| self.forwarded.get(id).map_or(now, |last| now.max(last.plus(FORWARD_EVERY)));
        doubted.map(|id| (*id, when(id))).collect()
    }

    /// A check is asked before its time, at this place.
    pub fn forwarded(&mut self, id: CheckId, at: Timestamp) {
        self.forwarded.insert(id, at);
    }
}
