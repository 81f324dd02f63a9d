//! Free swap space against thresholds in percent or bytes, in the words of check_swap. Reads the same figures as `memory`.
//! The surprise: no swap is OK unless told otherwise (check_swap says CRITICAL), because many machines have none on purpose.

use shared::check::State;

use super::limit::{Limits, Sense, Unit, percent};
use super::memory::Reading;
use super::options::{Given, Known, Manual, Misuse};
use super::verdict::{Answer, Figures};

/// Its page.
pub const MANUAL: Manual = Manual {
    name: "swap",
    about: "Free swap space",
    operands: "",
    options: &[
        Known {
            short: Some('w'),
            long: "warning",
            value: "LIMIT",
            help: "WARNING when so little is free: 20%, 500M, or a range",
        },
        Known { short: Some('c'), long: "critical", value: "LIMIT", help: "CRITICAL when so little is free" },
        Known {
            short: Some('n'),
            long: "no-swap",
            value: "STATE",
            help: "State where there is no swap: ok, warning, critical, unknown",
        },
    ],
    example: "-w 50% -c 20%",
    notes: "A number without unit is bytes. Without swap the state is OK whatever the limits, unless -n says otherwise.",
};

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    limits: Limits,
    no_swap: State,
}

impl Wanted {
    /// Reads the options.
    ///
    /// # Errors
    /// A threshold or a state is none.
    pub fn of(given: &Given) -> Result<Self, Misuse> {
        let no_swap = match given.last("no-swap").map(str::to_lowercase).as_deref() {
            None | Some("ok" | "0") => State::Ok,
            Some("warning" | "1") => State::Warning,
            Some("critical" | "2") => State::Critical,
            Some("unknown" | "3") => State::Unknown,
            Some(other) => {
                return Err(Misuse(format!("--no-swap: `{other}` is not one of ok, warning, critical, unknown")));
            }
        };
        Ok(Self { limits: Limits::of(given, "warning", "critical", Sense::AtMost, Unit::Bytes(1))?, no_swap })
    }
}

/// State, text and performance data: `swap`, the free bytes, as check_swap has it.
#[must_use]
pub fn judge(wanted: &Wanted, reading: &Reading) -> Answer {
    let total = reading.swap_total as f64;
    let free = (reading.swap_free as f64).min(total);
    let mut figures = Figures::default();
    figures.judged("swap", free, "B", &wanted.limits, total, Some(total));
    if reading.swap_total == 0 {
        let text = format!("SWAP {} - there is no swap on this machine", wanted.no_swap);
        return figures.answer(wanted.no_swap, &text);
    }
    let share = percent(free, total, 100.0);
    let state = wanted.limits.state(free, share);
    let mebi = |bytes: f64| bytes / 1_048_576.0;
    let text = format!("SWAP {state} - {share:.0}% free ({:.0} MiB out of {:.0} MiB)", mebi(free), mebi(total));
    figures.answer(state, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: Reading = Reading { total: 1, available: 1, cached: 0, swap_total: 1 << 30, swap_free: 1 << 29 };
    const NONE: Reading = Reading { swap_total: 0, swap_free: 0, ..HALF };

    fn judged(line: &str, reading: &Reading) -> Answer {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        judge(&Wanted::of(&MANUAL.read(&words).unwrap()).unwrap(), reading)
    }

    #[test]
    fn what_is_free_must_be_more_than_the_limit() {
        for (line, state) in [
            ("", State::Ok),
            ("-w 49% -c 10%", State::Ok),
            ("-w 50% -c 10%", State::Warning),
            ("-w 60% -c 50%", State::Critical),
            ("-w 512M", State::Warning),
            ("-w 511M", State::Ok),
            ("-c 50%:", State::Ok),
            ("-c 50.1%:", State::Critical),
        ] {
            assert_eq!(judged(line, &HALF).state, state, "{line}");
        }
        assert_eq!(
            judged("-w 50% -c 20%", &HALF).text,
            "SWAP WARNING - 50% free (512 MiB out of 1024 MiB)|swap=536870912B;536870912;214748365;0;1073741824"
        );
    }

    #[test]
    fn no_swap_is_what_one_says_it_is() {
        for (line, state) in [
            ("-w 50%", State::Ok),
            ("-n critical", State::Critical),
            ("-n WARNING -w 1", State::Warning),
            ("-n unknown", State::Unknown),
            ("-n 2", State::Critical),
        ] {
            let answer = judged(line, &NONE);
            assert_eq!(answer.state, state, "{line}");
            assert!(answer.text.contains("there is no swap") && answer.text.contains("|swap=0B;"), "{}", answer.text);
        }
        let words = ["-n".to_owned(), "bad".to_owned()];
        assert!(Wanted::of(&MANUAL.read(&words).unwrap()).is_err());
        let odd = Reading { swap_total: 10, swap_free: u64::MAX, ..HALF };
        assert!(judged("-w 5%", &odd).text.contains("100% free"));
    }
}
