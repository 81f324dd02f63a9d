//! The load averages of 1, 5 and 15 minutes against three warning and three critical thresholds, in the words of check_load.
//! Judges numbers; where they come from is another room's affair.

use shared::check::State;

use super::limit::{Limit, Limits, Sense, Unit};
use super::options::{Given, Known, Manual, Misuse};
use super::verdict::{Answer, Figures, worse};

/// Over how many minutes the three figures are averages.
const MINUTES: [u8; 3] = [1, 5, 15];

/// Its page.
pub const MANUAL: Manual = Manual {
    name: "load",
    about: "Load averages over 1, 5 and 15 minutes",
    operands: "",
    options: &[
        Known {
            short: Some('w'),
            long: "warning",
            value: "L1,L5,L15",
            help: "WARNING above these, or outside these ranges",
        },
        Known {
            short: Some('c'),
            long: "critical",
            value: "L1,L5,L15",
            help: "CRITICAL above these, or outside these ranges",
        },
        Known {
            short: Some('r'),
            long: "percpu",
            value: "",
            help: "Divide by the number of processors that are online",
        },
    ],
    example: "-r -w 1.5,1.2,1 -c 3,2.5,2",
    notes: "Fewer than three thresholds: the last one holds for the rest. Without thresholds it only reports.",
};

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    limits: [Limits; 3],
    per_processor: bool,
}

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// Over 1, 5 and 15 minutes.
    pub averages: [f64; 3],
    /// Processors that are online; 0 counts as 1.
    pub processors: u32,
}

impl Wanted {
    /// Reads the options.
    ///
    /// # Errors
    /// A threshold is none, there are more than three, or a warning stands above its critical one.
    pub fn of(given: &Given) -> Result<Self, Misuse> {
        let warning = three(given, "warning")?;
        let critical = three(given, "critical")?;
        let mut limits = [Limits::default(); 3];
        for (at, minutes) in MINUTES.iter().enumerate() {
            limits[at] = Limits { warning: warning[at], critical: critical[at] };
            // check_load refuses that too; between ranges there is no order to speak of.
            let bare = |limit: Option<Limit>| limit.and_then(|limit| limit.bare());
            if let (Some(warning), Some(critical)) = (bare(warning[at]), bare(critical[at]))
                && warning > critical
            {
                return Err(Misuse(format!(
                    "the warning load of {minutes} minutes ({warning}) is greater than the critical one ({critical})"
                )));
            }
        }
        Ok(Self { limits, per_processor: given.has("percpu") })
    }
}

fn three(given: &Given, name: &str) -> Result<[Option<Limit>; 3], Misuse> {
    let Some(text) = given.last(name) else { return Ok([None; 3]) };
    let mut limits = [None; 3];
    let mut last = None;
    let mut texts = text.split(',');
    for limit in &mut limits {
        if let Some(text) = texts.next() {
            let parsed = Limit::parse(text, Sense::Above, Unit::Count);
            last = Some(parsed.map_err(|Misuse(why)| Misuse(format!("--{name}: {why}")))?);
        }
        *limit = last;
    }
    match texts.next() {
        Some(_) => Err(Misuse(format!("--{name}: `{text}` has more than three thresholds"))),
        None => Ok(limits),
    }
}

/// State, text and performance data: `load1`, `load5`, `load15`, and `scaled_load…` with the thresholds where they are per
/// processor.
#[must_use]
pub fn judge(wanted: &Wanted, reading: &Reading) -> Answer {
    let processors = f64::from(reading.processors.max(1));
    let mut figures = Figures::default();
    let mut state = State::Ok;
    for (at, minutes) in MINUTES.iter().enumerate() {
        let (total, limits) = (reading.averages[at], &wanted.limits[at]);
        if wanted.per_processor {
            let scaled = total / processors;
            state = worse(state, limits.state(scaled, 0.0));
            figures.add(&format!("load{minutes}"), total, "", [String::new(), String::new()], Some(0.0), None);
            figures.judged(&format!("scaled_load{minutes}"), scaled, "", limits, 0.0, None);
        } else {
            state = worse(state, limits.state(total, 0.0));
            figures.judged(&format!("load{minutes}"), total, "", limits, 0.0, None);
        }
    }
    let list = |scale: f64| reading.averages.map(|average| format!("{:.2}", average / scale)).join(", ");
    let scaled =
        if wanted.per_processor { format!("scaled load average: {} - ", list(processors)) } else { String::new() };
    figures.answer(state, &format!("LOAD {state} - {scaled}total load average: {}", list(1.0)))
}

/// How many processors a list of the kernel's has: `0-3,6` has five. `None`: it is no such list.
#[must_use]
pub fn processors(list: &str) -> Option<u32> {
    let mut count: u32 = 0;
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        count = count.checked_add(last.checked_sub(first)?.checked_add(1)?)?;
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    const READING: Reading = Reading { averages: [2.13, 1.72, 0.5], processors: 2 };

    fn judged(line: &str) -> Answer {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        judge(&Wanted::of(&MANUAL.read(&words).unwrap()).unwrap(), &READING)
    }

    #[test]
    fn each_average_has_its_thresholds() {
        for (line, state) in [
            ("", State::Ok),
            ("-w 5 -c 10", State::Ok),
            ("-w 2.13,2,1 -c 3", State::Ok),
            ("-w 2.12,2,1 -c 3", State::Warning),
            ("-w 5,5,0.4 -c 10", State::Warning),
            ("-w 1 -c 5,1.71,5", State::Critical),
            ("-w 1", State::Warning),
            ("-c 1", State::Critical),
            ("-r -w 1.1 -c 2", State::Ok),
            ("-r -w 1,2,3 -c 2,3,4", State::Warning),
            ("-w 3: -c 0:9", State::Warning),
            ("-w @2:3,9,9", State::Warning),
        ] {
            assert_eq!(judged(line).state, state, "{line}");
        }
    }

    #[test]
    fn text_and_figures_are_check_loads() {
        assert_eq!(
            judged("-w 15,10,5 -c 30,25,20").text,
            "LOAD OK - total load average: 2.13, 1.72, 0.50|load1=2.13;15;30;0 load5=1.72;10;25;0 load15=0.5;5;20;0"
        );
        assert_eq!(
            judged("-r -w 1 -c 2").text,
            "LOAD WARNING - scaled load average: 1.06, 0.86, 0.25 - total load average: 2.13, 1.72, 0.50|\
             load1=2.13;;;0 scaled_load1=1.065;1;2;0 load5=1.72;;;0 scaled_load5=0.86;1;2;0 load15=0.5;;;0 \
             scaled_load15=0.25;1;2;0"
        );
    }

    #[test]
    fn wrong_thresholds_are_refused() {
        for (line, says) in [
            ("-w x", "--warning: `x` is no threshold"),
            ("-w 1,,2", "--warning: `` is no threshold"),
            ("-c 1,2,3,4", "more than three"),
            ("-w 5 -c 4", "of 1 minutes (5) is greater than the critical one (4)"),
            ("-w 1,6,1 -c 4,5,6", "of 5 minutes"),
        ] {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            let said = Wanted::of(&MANUAL.read(&words).unwrap()).expect_err(line).0;
            assert!(said.contains(says), "{line}: {said}");
        }
    }

    #[test]
    fn lists_of_processors_are_counted() {
        for (list, count) in [
            ("0\n", Some(1)),
            ("0-1\n", Some(2)),
            ("0-3,6,8-9", Some(7)),
            ("", None),
            ("3-1", None),
            ("a", None),
            ("0-4294967295", None),
        ] {
            assert_eq!(processors(list), count, "{list:?}");
        }
        let none = Reading { processors: 0, ..READING };
        let wanted = Wanted::of(&Given::default()).unwrap();
        assert_eq!(judge(&wanted, &none).state, State::Ok);
    }
}
