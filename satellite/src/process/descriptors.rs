//! How many files and sockets this process may have open at a time: raised to what the system allows, once, at its start. Programs that
//! are not ours get the number back that we began with: some close every number up to their limit, some cannot use high ones.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The soft limit that this process was started with, if it was raised.
static BEGAN_WITH: OnceLock<u64> = OnceLock::new();

/// Raises the soft limit to the hard one. `needed`: files and sockets that there may be at a time; fewer are warned of.
pub fn raise(needed: usize) {
    let needed = u64::try_from(needed).unwrap_or(u64::MAX);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // No soft limit means none at all.
    let Some(soft) = current else { return };
    let raised = match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!(soft, hard = shown(maximum), "the limit of open files is not raised: {error}");
            current
        }
    };
    if raised != current {
        // Only the first call raises anything.
        let _ = BEGAN_WITH.set(soft);
        tracing::info!(from = soft, to = shown(raised), "the limit of open files is raised");
    }
    if raised.is_some_and(|most| most < needed) {
        tracing::warn!(
            most = shown(raised),
            needed,
            "too few files and sockets may be open: under full load checks will fail; raise the hard limit (LimitNOFILE=, ulimit -Hn)"
        );
    }
}

fn shown(limit: Option<u64>) -> String {
    limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string())
}

/// The soft limit of programs that are not ours, where it is another than our own.
pub(super) fn of_others() -> Option<u64> {
    BEGAN_WITH.get().copied()
}
