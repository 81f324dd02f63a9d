//! Whether as many files and sockets may be open as the master's own bounds allow at a time: read once at its start and said in the
//! log. The surprise: the limit is only told, not raised; who starts the master sets it.

use std::fs;

use crate::api;

/// Where the kernel shows a process its limits (proc_pid_limits(5)).
const LIMITS: &str = "/proc/self/limits";
/// What one connection of the API takes: its socket, and history's database and log, or a segment of the journal, that it reads.
const PER_CONNECTION: u64 = 3;
/// What one metrics writer takes: its socket, the segment that it reads, its cursor while it is saved.
const PER_WRITER: u64 = 3;
/// Everything else: runtime, log, the one socket of all satellites, the API's listeners, journal, checkpoint, history and its readers at
/// rest, configuration that is read, a backup that is made.
const OWN: u64 = 128;

/// Files and sockets that there may be at a time beside so many metrics writers.
fn needed(writers: usize) -> u64 {
    let number = |of: usize| u64::try_from(of).unwrap_or(u64::MAX);
    let connections = number(api::CONNECTIONS_MAX).saturating_mul(PER_CONNECTION);
    OWN.saturating_add(connections).saturating_add(number(writers).saturating_mul(PER_WRITER))
}

/// The soft limit of open files in the kernel's table; none if there is no such limit or no such line.
fn soft(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Says in the log when fewer may be open than there may be.
pub(super) fn look(writers: usize) {
    let needed = needed(writers);
    match fs::read_to_string(LIMITS) {
        Ok(limits) => match soft(&limits) {
            Some(most) if most < needed => tracing::warn!(
                most,
                needed,
                "too few files and sockets may be open: with many clients of the API requests will fail and the journal may too; raise \
                 the soft limit (LimitNOFILE=, ulimit -n)"
            ),
            most => tracing::debug!(most, needed, "as many files and sockets may be open as there may be"),
        },
        Err(error) => tracing::debug!("the limit of open files is not known: {LIMITS}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_read_from_the_kernels_table() {
        let table = "Limit                     Soft Limit           Hard Limit           Units     \n\
                     Max processes             63202                63202                processes \n\
                     Max open files            1024                 524288               files     \n";
        assert_eq!(soft(table), Some(1024));
        assert_eq!(soft(&table.replace("1024  ", "unlimited")), None);
        assert_eq!(soft("nothing of it"), None);
        let own = soft(&fs::read_to_string(LIMITS).unwrap());
        assert!(own.is_none_or(|most| most > 0), "{own:?}");
    }

    #[test]
    fn writers_need_files_of_their_own() {
        assert!(needed(0) > 3 * u64::try_from(api::CONNECTIONS_MAX).unwrap());
        assert_eq!(needed(2), needed(0) + 2 * PER_WRITER);
    }
}
