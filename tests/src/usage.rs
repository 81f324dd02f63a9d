//! What a process has used, as the kernel counts it: memory and processor time. Knows nothing of what it did meanwhile.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// `USER_HZ`: the unit of times in `/proc`, 100 on every architecture that Rust and Linux share.
const TICKS_PER_SECOND: u64 = 100;

/// User and system time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Processor {
    /// Of the process itself.
    pub own: Duration,
    /// Of the children it has waited for.
    pub children: Duration,
}

impl Processor {
    /// Both together.
    #[must_use]
    pub fn sum(self) -> Duration {
        self.own + self.children
    }
}

/// Resident bytes of a process.
///
/// # Errors
/// There is no such process.
pub fn resident(process: u32) -> Result<u64> {
    memory(process, "VmRSS")
}

/// One of the sizes in `/proc/PID/status`, in bytes: `VmRSS`, `VmHWM`.
///
/// # Errors
/// There is no such process, or no such size.
pub fn memory(process: u32, name: &str) -> Result<u64> {
    let path = format!("/proc/{process}/status");
    let status = fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kibibytes: u64 =
        line.with_context(|| format!("no {name} in {path}"))?.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes * 1024)
}

/// What a process has used of the processors.
///
/// # Errors
/// There is no such process.
pub fn processor(process: u32) -> Result<Processor> {
    let path = format!("/proc/{process}/stat");
    let stat = fs::read_to_string(&path).with_context(|| path.clone())?;
    // The name of the program comes second, in parentheses, and may hold anything.
    let (_, fields) = stat.rsplit_once(") ").with_context(|| format!("{path} has another form"))?;
    let ticks: Vec<u64> = fields.split(' ').skip(11).take(4).map(str::parse).collect::<Result<_, _>>()?;
    ensure!(ticks.len() == 4, "{path} has another form");
    let time = |ticks: &[u64]| Duration::from_micros(ticks.iter().sum::<u64>() * 1_000_000 / TICKS_PER_SECOND);
    let (own, children) = ticks.split_at(2);
    Ok(Processor { own: time(own), children: time(children) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_time_of_this_process_are_counted() {
        let me = std::process::id();
        let (before, resident_before) = (processor(me).unwrap(), resident(me).unwrap());
        let held = vec![1_u8; 64 * 1024 * 1024];
        let mut sum = 0_u64;
        let more = crate::wait::until(Duration::from_secs(30), || {
            sum += held.iter().map(|byte| u64::from(*byte)).sum::<u64>();
            processor(me).unwrap().own >= before.own + Duration::from_millis(50)
        });
        assert!(more && sum > 0, "{before:?}");
        assert!(memory(me, "VmHWM").unwrap() >= resident_before + 32 * 1024 * 1024);
        assert!(memory(me, "VmNone").is_err() && processor(u32::MAX).is_err());
    }
}
