//! Reads what the kernel tells in `/proc` and `/sys` about the machine: load, memory, time since the start. Bounded reads, no
//! judgement. The surprise: in a container `/proc` shows the host's figures; for the container's own there is `cgroup`.

use std::fs::{self, File};
use std::io::{self, Read as _};

use anyhow::{Context as _, Result};
use procfs::{FromRead as _, LoadAverage, Uptime};

use super::{load, users};

/// Bytes of one file of `/proc` or `/sys` that are read; the longest we know (meminfo) has some 1500.
pub const FILE_MAX: u64 = 64 * 1024;
/// Where systemd-logind keeps its sessions.
const SESSIONS: &str = "/run/systemd/sessions";
/// Sessions that are looked at; further ones are not counted.
const SESSIONS_MAX: usize = 10_000;
/// Where those who log users in keep their records.
const UTMP: &str = "/var/run/utmp";
/// Bytes of it that are read: some 20,000 records.
const UTMP_MAX: u64 = 8 * 1024 * 1024;

/// The beginning of a file as text, at most `limit` bytes of it. Bytes that are not UTF-8 are replaced.
///
/// # Errors
/// It cannot be read; the text names it.
pub fn text(path: &str, limit: u64) -> Result<String> {
    Ok(String::from_utf8_lossy(&bytes(path, limit).with_context(|| format!("{path} cannot be read"))?).into_owned())
}

fn bytes(path: &str, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Load averages, and how many processors are online.
///
/// # Errors
/// `/proc/loadavg` cannot be read or understood.
pub fn load() -> Result<load::Reading> {
    let text = text("/proc/loadavg", FILE_MAX)?;
    let average = LoadAverage::from_read(text.as_bytes()).context("/proc/loadavg has another form than known")?;
    // The kernel writes two decimals; as f32 2.13 would be a little more.
    let averages = [average.one, average.five, average.fifteen].map(|one| (f64::from(one) * 100.0).round() / 100.0);
    Ok(load::Reading { averages, processors: processors() })
}

/// Processors that are online in this machine, whatever share of them a container may use.
#[must_use]
pub fn processors() -> u32 {
    let online = text("/sys/devices/system/cpu/online", FILE_MAX).ok();
    let available = || std::thread::available_parallelism().ok().and_then(|count| u32::try_from(count.get()).ok());
    online.and_then(|list| load::processors(&list)).or_else(available).unwrap_or(1)
}

/// The text of `/proc/meminfo`.
///
/// # Errors
/// It cannot be read.
pub fn memory() -> Result<String> {
    text("/proc/meminfo", FILE_MAX)
}

/// Seconds since the kernel started.
///
/// # Errors
/// `/proc/uptime` cannot be read or understood.
pub fn uptime() -> Result<f64> {
    let text = text("/proc/uptime", FILE_MAX)?;
    Ok(Uptime::from_read(text.as_bytes()).context("/proc/uptime has another form than known")?.uptime)
}

/// Users that are logged in, by systemd-logind or else by utmp. A machine that has neither has none.
///
/// # Errors
/// utmp is there and cannot be read.
pub fn logins() -> Result<usize> {
    let entries = fs::read_dir(SESSIONS).map(|entries| entries.flatten().take(SESSIONS_MAX).collect::<Vec<_>>());
    // Beside each session lies the pipe that keeps it: `12.ref`.
    let sessions = entries.unwrap_or_default().into_iter().filter(|entry| {
        entry.file_type().is_ok_and(|kind| kind.is_file()) && !entry.file_name().to_string_lossy().contains('.')
    });
    let sessions: Vec<String> =
        sessions.filter_map(|entry| text(&entry.path().to_string_lossy(), FILE_MAX).ok()).collect();
    if !sessions.is_empty() {
        return Ok(sessions.iter().filter(|session| users::is_login(session)).count());
    }
    match bytes(UTMP, UTMP_MAX) {
        Ok(records) => Ok(users::logins(&records)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error).context(format!("{UTMP} cannot be read")),
    }
}
