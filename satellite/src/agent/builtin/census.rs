//! Walks through the processes of `/proc` and looks up who a user is: what `procs` and `users` need, read within bounds, on threads
//! that may hang. Judges nothing.
//! The surprise: processes come and go during the walk; one that is gone when it is looked at was never there.

use std::io::Read as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::unistd::{Uid, User as Account};

use super::errand;
use super::kernel;
use super::options::Misuse;
use super::procs::{Process, User, Wanted};

/// How long the walk may take; a command line is not to be had while its process holds its memory locked.
const PATIENCE: Duration = Duration::from_secs(8);
/// Processes that are looked at; with more the answer is an error and no wrong number. Linux has four million at the most.
const PROCESSES_MAX: usize = 500_000;
/// Bytes of a command line that are looked at.
const ARGUMENTS_MAX: u64 = 16 * 1024;
/// Bytes of `/proc/PID/status` that are read; the user stands in the first kilobyte.
const STATUS_MAX: u64 = 4096;
/// The kernel's mark of its own threads in a process's flags (PF_KTHREAD).
const KERNEL_THREAD: u32 = 0x0020_0000;

/// All processes but `without`, with what the filters need; and the user that is asked for.
///
/// # Errors
/// There is no such user, `/proc` cannot be read or does not answer, or there are too many processes.
pub async fn processes(wanted: &Wanted, without: Option<u32>) -> Result<(Vec<Process>, Option<User>)> {
    let user = match &wanted.user {
        None => None,
        Some(name) => {
            let asked = name.clone();
            Some(errand::send_about("the list of users", PATIENCE, move || account(&asked)).await??)
        }
    };
    let (arguments, owner) = (wanted.needs_arguments(), user.is_some());
    let walk = move || walk(arguments, owner, without.and_then(|pid| i32::try_from(pid).ok()));
    Ok((errand::send_about("/proc", PATIENCE, walk).await??, user))
}

/// By number, else by name.
fn account(name: &str) -> Result<User> {
    let found = match name.parse::<u32>() {
        // A number needs no name: processes may belong to nobody in the list.
        Ok(id) => {
            let known = Account::from_uid(Uid::from_raw(id)).ok().flatten();
            return Ok(User { id, name: known.map_or_else(String::new, |account| account.name) });
        }
        Err(_) => Account::from_name(name).with_context(|| format!("user {name} cannot be looked up"))?,
    };
    match found {
        Some(account) => Ok(User { id: account.uid.as_raw(), name: account.name }),
        None => Err(Misuse(format!("--user: there is no user `{name}` on this machine")).into()),
    }
}

fn walk(arguments: bool, owner: bool, without: Option<i32>) -> Result<Vec<Process>> {
    let uptime = kernel::uptime()?;
    let (ticks, page) = (procfs::ticks_per_second().max(1) as f64, procfs::page_size());
    let mut found = Vec::new();
    for process in procfs::process::all_processes().context("/proc cannot be read")?.flatten() {
        let Ok(stat) = process.stat() else { continue };
        if Some(stat.pid) == without {
            continue;
        }
        if found.len() >= PROCESSES_MAX {
            bail!("there are more than {PROCESSES_MAX} processes");
        }
        let part = |name: &str, limit| {
            let mut bytes = Vec::new();
            let file = process.open_relative(name).ok()?;
            file.take(limit).read_to_end(&mut bytes).ok()?;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        };
        let words = if arguments { part("cmdline", ARGUMENTS_MAX) } else { None };
        let status = if owner { part("status", STATUS_MAX) } else { None };
        found.push(Process {
            pid: stat.pid,
            parent: stat.ppid,
            state: stat.state,
            comm: stat.comm,
            arguments: words.map(|words| words.trim_end_matches('\0').replace('\0', " ")).unwrap_or_default(),
            user: status.and_then(|status| effective_user(&status)),
            kernel: stat.flags & KERNEL_THREAD != 0,
            resident: stat.rss.saturating_mul(page),
            mapped: stat.vsize,
            busy: stat.utime.saturating_add(stat.stime) as f64 / ticks,
            elapsed: (uptime - stat.starttime as f64 / ticks).max(0.0),
        });
    }
    Ok(found)
}

/// The second of the four numbers behind `Uid:`. The owner of `/proc/PID` is another one for programs that changed their user.
fn effective_user(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::builtin::procs::MANUAL;

    async fn found(line: &str, without: Option<u32>) -> Result<(Vec<Process>, Option<User>)> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        processes(&Wanted::of(&MANUAL.read(&words).unwrap()).unwrap(), without).await
    }

    #[tokio::test]
    async fn this_process_is_among_them_unless_left_out() {
        let own = std::process::id();
        let is_own = |process: &&Process| u32::try_from(process.pid) == Ok(own);
        let (all, user) = found("-a x -u 0", None).await.unwrap();
        let me = all.iter().find(is_own).unwrap();
        assert_eq!(user.unwrap(), User { id: 0, name: "root".to_owned() });
        assert_eq!(me.user, Some(nix::unistd::geteuid().as_raw()));
        assert!(me.resident > 0 && me.elapsed >= 0.0 && !me.kernel, "{me:?}");
        assert!(
            me.arguments.contains(std::env::current_exe().unwrap().file_stem().unwrap().to_str().unwrap()),
            "{me:?}"
        );
        let (others, _) = found("", Some(own)).await.unwrap();
        assert_eq!(others.iter().find(is_own), None);
    }

    #[tokio::test]
    async fn a_user_that_is_not_there_is_a_wrong_option() {
        let error = found("-u no-such-user-here", None).await.unwrap_err();
        assert!(error.is::<Misuse>() && error.to_string().contains("no-such-user-here"), "{error}");
        assert_eq!(found("-u 4294967294", None).await.unwrap().1.unwrap().name, "");
    }

    #[test]
    fn the_effective_user_is_the_second_number() {
        assert_eq!(effective_user("Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5"), Some(2));
        for status in ["", "Uid:", "Uid: 1", "Uid: 1 x"] {
            assert_eq!(effective_user(status), None, "{status}");
        }
    }
}
