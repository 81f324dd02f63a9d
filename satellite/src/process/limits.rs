//! What a program that is not ours may use up, set on it right after its start.
//!
//! The surprise: they come a moment after the program has begun, because nothing of ours may run between fork and exec without
//! `unsafe`. What it starts later inherits them. A program that runs with the rights of somebody else (setuid) keeps its own.

use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use super::descriptors;

/// Private writable memory of one process, in bytes. Not its address space, of which Go, Java and Node reserve far more than
/// they ever use. Beyond it an allocation fails.
pub const MEMORY_MAX: u64 = 2 * 1024 * 1024 * 1024;
/// Longest file that a process may write, in bytes; beyond it SIGXFSZ.
pub const FILE_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// Processes and threads of the user in all, beyond which the program cannot make another: what ends a fork bomb. High, because
/// everything else of the same user counts, on some systems in other containers as well. Does not bind root.
pub const PROCESSES_MAX: u64 = 4_096;
/// CPU time of one process is this many times its time limit: threads add theirs up. It ends what has left its group.
pub const CPU_FACTOR: u32 = 4;
/// And at least this much.
pub const CPU_MIN: Duration = Duration::from_secs(60);

/// What a program may use up. None of it is ever more than we may use ourselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// CPU time of one process; then SIGXCPU, and five seconds later SIGKILL.
    pub cpu: Duration,
    /// Private writable memory of one process, in bytes.
    pub memory: u64,
    /// Longest file, in bytes.
    pub file: u64,
    /// Processes of the user.
    pub processes: u64,
}

impl Limits {
    /// What suits a program that may run this long.
    #[must_use]
    pub fn usual(timeout: Duration) -> Self {
        Self {
            cpu: timeout.saturating_mul(CPU_FACTOR).max(CPU_MIN),
            memory: MEMORY_MAX,
            file: FILE_MAX,
            processes: PROCESSES_MAX,
        }
    }

    /// No limits but our own, for programs that have never had any.
    #[must_use]
    pub const fn none() -> Self {
        Self { cpu: Duration::MAX, memory: u64::MAX, file: u64::MAX, processes: u64::MAX }
    }

    /// Sets them on a process. One that cannot be set is logged: the check itself can do without.
    pub(super) fn apply(&self, process: Pid) {
        if *self == Self::none() {
            return;
        }
        let cpu = self.cpu.as_secs().max(1);
        let files = descriptors::of_others().map(|soft| (Resource::Nofile, soft, u64::MAX));
        let wanted = [
            (Resource::Core, 0, 0),
            (Resource::Cpu, cpu, cpu.saturating_add(5)),
            (Resource::Data, self.memory, self.memory),
            (Resource::Fsize, self.file, self.file),
            (Resource::Nproc, self.processes, self.processes),
        ];
        for (resource, soft, hard) in wanted.into_iter().chain(files) {
            let own = getrlimit(resource);
            let limit = Rlimit { current: Some(least(soft, own.current)), maximum: Some(least(hard, own.maximum)) };
            if let Err(error) = prlimit(Some(process), resource, limit) {
                tracing::debug!(?resource, process = process.as_raw_nonzero().get(), "a limit is not set: {error}");
            }
        }
    }
}

/// A limit that is not above the present one; `None` is none.
fn least(wanted: u64, present: Option<u64>) -> u64 {
    present.map_or(wanted, |present| present.min(wanted))
}
