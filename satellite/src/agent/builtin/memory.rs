//! Memory in use, or memory available, against thresholds in percent or bytes; and the text of `/proc/meminfo`, for swap too.
//! "Used" is what is not available (the kernel's MemAvailable): a cache that can be given up counts as free.
//! The surprise: of meminfo only the lines that are needed are read, because sandboxes and containers leave others out.

use super::limit::{Limits, Sense, Unit, percent};
use super::options::{Given, Known, Manual, Misuse};
use super::verdict::{Answer, Figures, bytes};

/// Its page.
pub const MANUAL: Manual = Manual {
    name: "memory",
    about: "Memory used and available",
    operands: "",
    options: &[
        Known {
            short: Some('w'),
            long: "warning",
            value: "LIMIT",
            help: "WARNING when more is used: 80%, 12G, or a range",
        },
        Known { short: Some('c'), long: "critical", value: "LIMIT", help: "CRITICAL when more is used" },
        Known {
            short: Some('a'),
            long: "available",
            value: "",
            help: "Limits are of what is available: the least there must be",
        },
    ],
    example: "-w 85% -c 95%",
    notes: "Used is the total less what is available without swapping (MemAvailable); caches do not count as used.\n\
            A number without unit is bytes. In a container these are the host's figures: see `container`.",
};

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    limits: Limits,
    available: bool,
}

/// What `/proc/meminfo` says, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Memory the kernel can use at all.
    pub total: u64,
    /// What can be had without swapping.
    pub available: u64,
    /// Cache of files.
    pub cached: u64,
    /// Room on all swap devices.
    pub swap_total: u64,
    /// What of it is free.
    pub swap_free: u64,
}

impl Wanted {
    /// Reads the options.
    ///
    /// # Errors
    /// A threshold is none.
    pub fn of(given: &Given) -> Result<Self, Misuse> {
        let available = given.has("available");
        let sense = if available { Sense::AtMost } else { Sense::Above };
        Ok(Self { limits: Limits::of(given, "warning", "critical", sense, Unit::Bytes(1))?, available })
    }
}

/// Reads the text of `/proc/meminfo`. Kernels before 3.14 do not estimate what is available: free, buffers and cache stand in.
///
/// # Errors
/// A line that is needed is missing or has another form.
pub fn read(text: &str) -> Result<Reading, String> {
    let line = |key: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        let mut words = rest.split_whitespace();
        let value: u64 = words.next()?.parse().ok()?;
        // The unit is written kB and means 1024 bytes.
        if words.next() == Some("kB") { value.checked_mul(1024) } else { Some(value) }
    };
    let need = |key: &str| line(key).ok_or_else(|| format!("/proc/meminfo has no usable line {key}"));
    let cached = line("Cached").unwrap_or(0);
    let available = match line("MemAvailable") {
        Some(available) => available,
        None => need("MemFree")?.saturating_add(line("Buffers").unwrap_or(0)).saturating_add(cached),
    };
    let total = need("MemTotal")?;
    Ok(Reading {
        total,
        available: available.min(total),
        cached,
        swap_total: line("SwapTotal").unwrap_or(0),
        swap_free: line("SwapFree").unwrap_or(0),
    })
}

/// State, text and performance data: `used` and `available` (the thresholds at the one they are of), `cached`; in bytes.
#[must_use]
pub fn judge(wanted: &Wanted, reading: &Reading) -> Answer {
    let (total, available) = (reading.total as f64, reading.available as f64);
    let used = (total - available).max(0.0);
    let judged = if wanted.available { available } else { used };
    let state = wanted.limits.state(judged, percent(judged, total, 0.0));
    let mut figures = Figures::default();
    let none = Limits::default();
    let (of_used, of_available) = if wanted.available { (&none, &wanted.limits) } else { (&wanted.limits, &none) };
    figures.judged("used", used, "B", of_used, total, Some(total));
    figures.judged("available", available, "B", of_available, total, Some(total));
    figures.judged("cached", reading.cached as f64, "B", &none, total, Some(total));
    let text = format!(
        "MEMORY {state} - {:.1}% used ({} of {}), {} available, {} cached",
        percent(used, total, 0.0),
        bytes(used),
        bytes(total),
        bytes(available),
        bytes(reading.cached as f64),
    );
    figures.answer(state, &text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use shared::check::State;

    pub(crate) const MEMINFO: &str = "MemTotal:        1000000 kB\nMemFree:          100000 kB\nMemAvailable:     250000 kB\n\
        Buffers:           10000 kB\nCached:           200000 kB\nSwapCached:            0 kB\nSwapTotal:        500000 kB\n\
        SwapFree:         400000 kB\nHugePages_Total:       0\n";

    fn judged(line: &str) -> Answer {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        judge(&Wanted::of(&MANUAL.read(&words).unwrap()).unwrap(), &read(MEMINFO).unwrap())
    }

    #[test]
    fn three_quarters_are_used_when_a_quarter_is_available() {
        for (line, state) in [
            ("", State::Ok),
            ("-w 75% -c 90%", State::Ok),
            ("-w 74% -c 90%", State::Warning),
            ("-w 50% -c 74.9%", State::Critical),
            ("-w 700M", State::Warning),
            ("-w 750M -c 1G", State::Ok),
            ("-a -w 25%", State::Warning),
            ("-a -w 24% -c 10%", State::Ok),
            ("-a -c 1G", State::Critical),
            ("-a -c 30%:", State::Critical),
            ("-w @70%:80%", State::Warning),
        ] {
            assert_eq!(judged(line).state, state, "{line}");
        }
    }

    #[test]
    fn text_and_figures_say_used_available_and_cached() {
        assert_eq!(
            judged("-w 80% -c 90%").text,
            "MEMORY OK - 75.0% used (732.4 MiB of 976.6 MiB), 244.1 MiB available, 195.3 MiB cached|\
             used=768000000B;819200000;921600000;0;1024000000 available=256000000B;;;0;1024000000 \
             cached=204800000B;;;0;1024000000"
        );
        assert!(judged("-a -w 10%").text.contains(" available=256000000B;102400000;;0;1024000000 "));
    }

    #[test]
    fn old_kernels_sandboxes_and_nonsense_are_met() {
        let old = MEMINFO.replace("MemAvailable", "MemOther");
        assert_eq!(read(&old).unwrap().available, 310_000 * 1024);
        let sparse = read("MemTotal: 100 kB\nMemAvailable: 50 kB\n").unwrap();
        assert_eq!((sparse.cached, sparse.swap_total), (0, 0));
        assert_eq!(read("MemTotal: 100 kB\nMemAvailable: 500 kB\n").unwrap().available, 100 * 1024);
        for text in
            ["", "MemTotal: x kB", "MemTotal: 18446744073709551615 kB\nMemAvailable: 1 kB", "MemAvailable: 5 kB"]
        {
            assert!(read(text).is_err(), "{text}");
        }
        let nothing = Reading { total: 0, available: 0, cached: 0, swap_total: 0, swap_free: 0 };
        assert_eq!(judge(&Wanted { limits: Limits::default(), available: false }, &nothing).state, State::Ok);
    }

    proptest! {
        #[test]
        fn any_text_and_any_figures_are_judged(text in "(Mem(Total|Free|Available)|Cached|.{0,5}): {0,3}[0-9]{0,22}( kB)?\n", values: [u64; 3]) {
            let _ = read(&text);
            let reading = Reading { total: values[0], available: values[1], cached: values[2], swap_total: 0, swap_free: 0 };
            let words: Vec<String> = ["-w", "80%", "-c", "5G"].map(str::to_owned).to_vec();
            let answer = judge(&Wanted::of(&MANUAL.read(&words).unwrap()).unwrap(), &reading);
            prop_assert_eq!(shared::perfdata::parse(&shared::perfdata::split_output(&answer.text).perfdata).metrics.len(), 3);
        }
    }
}
