//! What falls to us where we are process 1, as in a container without an init: programs whose own parent has ended become our
//! children, whoever started them, and stay in the process table until we collect them. Looks after each end of a child.
//!
//! The surprise: a program of ours that has ended is never collected here, because its status is waited for elsewhere, and because
//! its number must stay taken until its group is killed. So programs are started and orphans collected one after the other.
#![expect(clippy::disallowed_methods, reason = "a shell room: it looks again after a while")]

use std::collections::BTreeSet;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use procfs::process::{ProcState, all_processes};
use rustix::process::{Pid, WaitOptions, getpid, waitpid};
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};

/// Between two looks at the least: many ends are one look.
const REST: Duration = Duration::from_millis(50);
/// It is looked at least so often, also where no signal tells of an end.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Held by many who start programs, or by the one who collects.
static STARTING: RwLock<()> = RwLock::new(());
/// Programs that were started here and are not collected yet.
static OWN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Whether orphans fall to us.
fn is_first_process() -> bool {
    getpid().as_raw_nonzero().get() == 1
}

/// Collects orphans as long as the runtime lives, if they fall to us. Once for a process.
pub fn collect() {
    if is_first_process() {
        tokio::spawn(collect_always());
    }
}

async fn collect_always() {
    let mut ends = signal(SignalKind::child()).ok();
    loop {
        look();
        sleep(REST).await;
        match &mut ends {
            // What ended since the last look has been told and is not lost.
            Some(ends) => drop(timeout(LOOK_EVERY, ends.recv()).await),
            None => sleep(LOOK_EVERY).await,
        }
    }
}

/// Starts a program of ours.
pub(super) fn start(spawn: impl FnOnce() -> io::Result<Child>) -> io::Result<Child> {
    let _starting = STARTING.read().unwrap_or_else(PoisonError::into_inner);
    let child = spawn()?;
    own().extend(child.id().and_then(|id| i32::try_from(id).ok()));
    Ok(child)
}

/// A program of ours was collected by who started it.
pub(super) fn collected(leader: Pid) {
    own().remove(&leader.as_raw_nonzero().get());
}

fn own() -> MutexGuard<'static, BTreeSet<i32>> {
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Collects everybody who has ended and was not started here.
fn look() {
    let _nobody_starts = STARTING.write().unwrap_or_else(PoisonError::into_inner);
    let ourselves = getpid().as_raw_nonzero().get();
    let processes = match all_processes() {
        Ok(processes) => processes,
        Err(error) => return tracing::warn!(%error, "orphans cannot be found: /proc cannot be read"),
    };
    // One that goes while we look is no orphan of ours.
    let stats = processes.flatten().filter_map(|process| process.stat().ok());
    let ended = stats.filter(|stat| stat.ppid == ourselves && matches!(stat.state(), Ok(ProcState::Zombie)));
    for pid in ended.map(|stat| stat.pid).filter(|pid| !own().contains(pid)).filter_map(Pid::from_raw) {
        if let Ok(Some((_, status))) = waitpid(Some(pid), WaitOptions::NOHANG) {
            tracing::debug!(process = pid.as_raw_nonzero().get(), ?status, "an orphan was collected");
        }
    }
}
