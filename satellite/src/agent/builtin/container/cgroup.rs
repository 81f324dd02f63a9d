//! Finds the control groups of this process, version 1 or 2, and reads their figures. Judges nothing.
//! The surprise: inside a container the path that the kernel names and the path below the mount differ, depending on version and
//! namespace; whichever of the possible places has the file is taken.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use procfs::process::MountInfo;
use procfs::{FromBufRead as _, ProcessCGroups};
use tokio::time::Instant;

use super::{Group, Own, Wanted};
use crate::agent::builtin::{kernel, memory};

/// Bytes of one file that are read; `memory.stat` has some 2000.
const FILE_MAX: u64 = 64 * 1024;
/// Bytes of the list of mounts that are read.
const MOUNTINFO_MAX: u64 = 4 * 1024 * 1024;
/// Version 1 writes a number near 2^63 where there is no limit of memory.
const NO_LIMIT: u64 = 1 << 60;

/// Where this process's control groups are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Places {
    unified: Option<PathBuf>,
    memory: Option<PathBuf>,
    processor: Option<PathBuf>,
    account: Option<PathBuf>,
    pids: Option<PathBuf>,
}

/// Looks twice, the wanted time apart.
///
/// # Errors
/// This process is in no control group with figures of memory: on a host, outside of any service.
#[expect(clippy::disallowed_methods, reason = "a shell room: CPU use is time against time")]
pub async fn look(wanted: &Wanted) -> Result<Own> {
    let groups = kernel::text("/proc/self/cgroup", FILE_MAX)?;
    let mounts = kernel::text("/proc/self/mountinfo", MOUNTINFO_MAX)?;
    let places = places(&groups, &mounts, &|path| path.exists())?;
    let first = Instant::now();
    let before = read(&places)?;
    tokio::time::sleep(Duration::from_millis(wanted.interval)).await;
    let group = read(&places)?;
    let machine = kernel::memory()?;
    Ok(Own {
        busy_before: before.busy,
        group,
        apart: u64::try_from(first.elapsed().as_nanos()).unwrap_or(u64::MAX),
        machine_memory: memory::read(&machine).map_or(0, |reading| reading.total),
        processors: kernel::processors(),
    })
}

/// From the texts of `/proc/self/cgroup` and `/proc/self/mountinfo`; `there` tells whether a file is.
fn places(groups: &str, mounts: &str, there: &dyn Fn(&Path) -> bool) -> Result<Places> {
    let groups =
        ProcessCGroups::from_buf_read(groups.as_bytes()).context("/proc/self/cgroup has another form than known")?;
    let mounts: Vec<MountInfo> = mounts.lines().filter_map(|line| MountInfo::from_line(line).ok()).collect();
    // Of a mount and a path in its hierarchy, the folder that has the file.
    let folder = |mount: &MountInfo, path: &str, file: &str| {
        let below = Path::new(path).strip_prefix(&mount.root).ok();
        let whole = Path::new(path).strip_prefix("/").ok();
        let possible =
            [below, whole, Some(Path::new(""))].into_iter().flatten().map(|path| mount.mount_point.join(path));
        possible.into_iter().find(|folder| there(&folder.join(file)))
    };
    let mut places = Places::default();
    for group in &groups.0 {
        let path = group.pathname.as_str();
        // Nothing but a name that the kernel gave may follow: `/../..` is what it shows of a place outside of the namespace.
        let path = if path.contains("..") { "/" } else { path };
        if group.hierarchy == 0 {
            let unified = mounts.iter().filter(|mount| mount.fs_type == "cgroup2");
            places.unified = unified.into_iter().find_map(|mount| folder(mount, path, "memory.current"));
            continue;
        }
        let of = |controller: &str, file: &str| {
            let has = group.controllers.iter().any(|one| one == controller);
            let mut mounts =
                mounts.iter().filter(|mount| mount.fs_type == "cgroup" && mount.super_options.contains_key(controller));
            has.then(|| mounts.find_map(|mount| folder(mount, path, file))).flatten()
        };
        places.memory = places.memory.or_else(|| of("memory", "memory.usage_in_bytes"));
        places.processor = places.processor.or_else(|| of("cpu", "cpu.cfs_quota_us"));
        places.account = places.account.or_else(|| of("cpuacct", "cpuacct.usage"));
        places.pids = places.pids.or_else(|| of("pids", "pids.current"));
    }
    if places.unified.is_none() && places.memory.is_none() {
        anyhow::bail!("this process is in no control group that counts memory: it runs in no container");
    }
    Ok(places)
}

fn read(places: &Places) -> Result<Group> {
    let text = |folder: &Path, file: &str| kernel::text(&folder.join(file).to_string_lossy(), FILE_MAX);
    match &places.unified {
        Some(folder) => unified(&|file| text(folder, file)),
        None => divided(&|controller, file| {
            let folder = match controller {
                "memory" => &places.memory,
                "cpu" => &places.processor,
                "cpuacct" => &places.account,
                _ => &places.pids,
            };
            text(folder.as_deref().context("there is no such controller")?, file)
        }),
    }
}

/// Version 2: every figure in one folder.
fn unified(text: &dyn Fn(&str) -> Result<String>) -> Result<Group> {
    let share = text("cpu.max").ok().and_then(|text| {
        let (quota, period) = text.trim().split_once(' ')?;
        Some((quota.parse().ok()?, period.parse().ok()?))
    });
    let of = |file: &str, key: &str| text(file).ok().and_then(|text| value(&text, key));
    Ok(Group {
        memory: number(&text("memory.current")?).context("memory.current is no number")?,
        inactive: of("memory.stat", "inactive_file").unwrap_or(0),
        memory_limit: text("memory.max").ok().and_then(|text| number(&text)),
        killed: of("memory.events", "oom_kill"),
        busy: of("cpu.stat", "usage_usec").map(|micros| micros.saturating_mul(1000)),
        share,
        throttled: of("cpu.stat", "nr_throttled"),
        pids: text("pids.current").ok().and_then(|text| number(&text)),
        pids_limit: text("pids.max").ok().and_then(|text| number(&text)),
    })
}

/// Version 1: a folder for each controller.
fn divided(text: &dyn Fn(&str, &str) -> Result<String>) -> Result<Group> {
    let one = |controller: &str, file: &str| text(controller, file).ok().and_then(|text| number(&text));
    let of = |controller: &str, file: &str, key: &str| text(controller, file).ok().and_then(|text| value(&text, key));
    // A quota of -1 is none, and no number here.
    let share = one("cpu", "cpu.cfs_quota_us").zip(one("cpu", "cpu.cfs_period_us"));
    Ok(Group {
        memory: number(&text("memory", "memory.usage_in_bytes")?).context("memory.usage_in_bytes is no number")?,
        inactive: of("memory", "memory.stat", "total_inactive_file").unwrap_or(0),
        memory_limit: one("memory", "memory.limit_in_bytes").filter(|limit| *limit < NO_LIMIT),
        killed: of("memory", "memory.oom_control", "oom_kill"),
        busy: one("cpuacct", "cpuacct.usage"),
        share,
        throttled: of("cpu", "cpu.stat", "nr_throttled"),
        pids: one("pids", "pids.current"),
        pids_limit: one("pids", "pids.max"),
    })
}

/// A file of one number; `max` is none.
fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// A file of lines `key number`.
fn value(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::builtin::container::MANUAL;

    fn found(groups: &str, mounts: &str, files: &[&str]) -> Result<Places> {
        places(groups, mounts, &|path| files.contains(&path.to_str().unwrap()))
    }

    const V2: &str = "30 24 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n";

    #[test]
    fn version_2_is_found_in_and_outside_of_a_namespace() {
        let in_namespace = found("0::/\n", V2, &["/sys/fs/cgroup/memory.current"]).unwrap();
        assert_eq!(in_namespace.unified.unwrap(), Path::new("/sys/fs/cgroup"));
        let service =
            found("0::/system.slice/a.service\n", V2, &["/sys/fs/cgroup/system.slice/a.service/memory.current"]);
        assert_eq!(service.unwrap().unified.unwrap(), Path::new("/sys/fs/cgroup/system.slice/a.service"));
        let outside = found("0::/../../x\n", V2, &["/sys/fs/cgroup/memory.current"]).unwrap();
        assert_eq!(outside.unified.unwrap(), Path::new("/sys/fs/cgroup"));
        let host = found("0::/\n", V2, &[]).unwrap_err();
        assert!(host.to_string().contains("in no container"), "{host}");
    }

    #[test]
    fn version_1_is_found_below_the_root_of_its_mount() {
        let groups =
            "5:pids:/docker/abc\n4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n0::/\n";
        let mounts = "40 30 0:40 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n\
            41 30 0:41 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n\
            42 30 0:42 / /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids\n";
        let files = [
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
            "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us",
            "/sys/fs/cgroup/cpu,cpuacct/cpuacct.usage",
            "/sys/fs/cgroup/pids/docker/abc/pids.current",
        ];
        let places = found(groups, mounts, &files).unwrap();
        assert_eq!(places.memory.unwrap(), Path::new("/sys/fs/cgroup/memory"));
        assert_eq!(places.account, places.processor);
        assert_eq!(places.pids.unwrap(), Path::new("/sys/fs/cgroup/pids/docker/abc"));
        assert!(found("nonsense", mounts, &files).is_err());
    }

    #[test]
    fn both_versions_say_the_same() {
        let text = |file: &str| {
            Ok(match file {
                "memory.current" => "600\n",
                "memory.stat" => "anon 1\ninactive_file 100\n",
                "memory.max" => "max\n",
                "memory.events" => "oom 2\noom_kill 1\n",
                "cpu.max" => "50000 100000\n",
                "cpu.stat" => "usage_usec 18446744073709551615\nnr_throttled 3\n",
                "pids.current" => "4\n",
                "pids.max" => "100\n",
                other => anyhow::bail!("{other}"),
            }
            .to_owned())
        };
        let two = unified(&text).unwrap();
        let expected = Group {
            memory: 600,
            inactive: 100,
            memory_limit: None,
            killed: Some(1),
            busy: Some(u64::MAX),
            share: Some((50_000, 100_000)),
            throttled: Some(3),
            pids: Some(4),
            pids_limit: Some(100),
        };
        assert_eq!(two, expected);
        let text = |_: &str, file: &str| {
            Ok(match file {
                "memory.usage_in_bytes" => "600\n",
                "memory.stat" => "inactive_file 7\ntotal_inactive_file 100\n",
                "memory.limit_in_bytes" => "9223372036854771712\n",
                "memory.oom_control" => "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
                "cpu.cfs_quota_us" => "-1\n",
                "cpu.cfs_period_us" => "100000\n",
                "cpuacct.usage" => "5\n",
                "pids.max" => "max\n",
                other => anyhow::bail!("{other}"),
            }
            .to_owned())
        };
        let one = divided(&text).unwrap();
        assert_eq!((one.memory, one.inactive, one.memory_limit, one.killed), (600, 100, None, Some(1)));
        assert_eq!((one.busy, one.share, one.throttled, one.pids, one.pids_limit), (Some(5), None, None, None, None));
        assert!(unified(&|_| anyhow::bail!("nothing")).is_err());
    }

    #[tokio::test]
    async fn this_machine_is_read_or_says_why_not() {
        let words = ["-i".to_owned(), "10".to_owned()];
        let wanted = Wanted::of(&MANUAL.read(&words).unwrap()).unwrap();
        match look(&wanted).await {
            Ok(own) => assert!(own.group.memory > 0 && own.apart >= 10_000_000 && own.processors > 0, "{own:?}"),
            Err(error) => assert!(error.to_string().contains("no control group"), "{error}"),
        }
    }
}
