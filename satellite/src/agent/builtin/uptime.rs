//! How long the machine has been up, against a shortest time (a reboot nobody ordered) or a range (too long without a new kernel).
//! Judges a number of seconds; knows no clock.

use super::limit::{Limits, Sense, Unit};
use super::options::{Given, Known, Manual, Misuse};
use super::verdict::{Answer, Figures};

/// Its page.
pub const MANUAL: Manual = Manual {
    name: "uptime",
    about: "Time since the machine started",
    operands: "",
    options: &[
        Known {
            short: Some('w'),
            long: "warning",
            value: "TIME",
            help: "WARNING when started less than this ago: 30m, 2h; or a range",
        },
        Known { short: Some('c'), long: "critical", value: "TIME", help: "CRITICAL when started less than this ago" },
    ],
    example: "-w 30m -c 10m",
    notes: "Times are seconds, or have a unit: s, m, h, d, w. `-w 10m:90d` warns after a reboot and after 90 days without one.\n\
            In a container this is the host's time.",
};

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    limits: Limits,
}

impl Wanted {
    /// Reads the options.
    ///
    /// # Errors
    /// A threshold is none.
    pub fn of(given: &Given) -> Result<Self, Misuse> {
        Ok(Self { limits: Limits::of(given, "warning", "critical", Sense::Below, Unit::Seconds)? })
    }
}

/// State, text and performance data: `uptime` in seconds.
#[must_use]
pub fn judge(wanted: &Wanted, seconds: f64) -> Answer {
    let seconds = if seconds.is_finite() { seconds.max(0.0).floor() } else { 0.0 };
    let state = wanted.limits.state(seconds, 0.0);
    let mut figures = Figures::default();
    figures.judged("uptime", seconds, "s", &wanted.limits, seconds, None);
    figures.answer(state, &format!("UPTIME {state} - up for {}", span(seconds)))
}

/// A time as people say it: its two largest parts.
#[must_use]
pub fn span(seconds: f64) -> String {
    // Beyond the range of u64 it stays at its end: no panic, no wrap.
    let seconds = seconds as u64;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::check::State;

    fn judged(line: &str, seconds: f64) -> Answer {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        judge(&Wanted::of(&MANUAL.read(&words).unwrap()).unwrap(), seconds)
    }

    #[test]
    fn a_start_a_short_time_ago_alerts() {
        for (line, seconds, state) in [
            ("", 1.0, State::Ok),
            ("-w 30m -c 10m", 1800.0, State::Ok),
            ("-w 30m -c 10m", 1799.0, State::Warning),
            ("-w 30m -c 10m", 599.0, State::Critical),
            ("-c 600", 599.0, State::Critical),
            ("-w 10m:90d", 8_000_000.0, State::Warning),
            ("-w 10m:90d", 7_000_000.0, State::Ok),
        ] {
            assert_eq!(judged(line, seconds).state, state, "{line} {seconds}");
        }
        assert_eq!(judged("-w 30m -c 10m", 12441.7).text, "UPTIME OK - up for 3 h 27 min|uptime=12441s;1800;600;0");
        for seconds in [f64::NAN, f64::INFINITY, -5.0, 1e300] {
            assert!(judged("-w 5", seconds).text.starts_with("UPTIME "));
        }
    }

    #[test]
    fn times_are_said_in_two_parts() {
        for (seconds, text) in
            [(5.0, "5 s"), (65.0, "1 min 5 s"), (7260.0, "2 h 1 min"), (90_000.0, "1 d 1 h"), (-1.0, "0 s")]
        {
            assert_eq!(span(seconds), text);
        }
    }
}
