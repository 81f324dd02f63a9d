//! Units of systemd: the named ones, or whichever have failed. Reads what `systemctl` printed and judges it; does not run it.
//! The surprise: a unit of type oneshot that has done its work is inactive and well; `--inactive-ok` says so.

use shared::check::State;

use super::limit::{Limit, Limits, Sense, Unit};
use super::options::{Given, Known, Manual, Misuse};
use super::verdict::{Answer, Figures, plain, worse};

/// Units named in one check; more are refused.
pub const UNITS_MAX: usize = 64;
/// Failed units that the text names; the rest is counted.
const NAMED_MAX: usize = 10;

/// Its page.
pub const MANUAL: Manual = Manual {
    name: "systemd",
    about: "Units of systemd: the named ones, or any that have failed",
    operands: "[UNIT…]",
    options: &[
        Known {
            short: Some('w'),
            long: "warning",
            value: "RANGE",
            help: "Without UNIT: WARNING when more have failed",
        },
        Known {
            short: Some('c'),
            long: "critical",
            value: "RANGE",
            help: "Without UNIT: CRITICAL when more have failed [default: 0]",
        },
        Known {
            short: Some('x'),
            long: "exclude",
            value: "UNIT",
            help: "Without UNIT: leave out this one; `*` at the end: all that begin so (repeat)",
        },
        Known {
            short: Some('i'),
            long: "inactive-ok",
            value: "",
            help: "With UNIT: inactive is well, as for what a timer starts",
        },
    ],
    example: "",
    notes: "With UNIT: active is OK, starting or stopping is WARNING, anything else is CRITICAL. Runs `systemctl`, without a shell.\n\
            Where systemd does not run, as in most containers, the answer is UNKNOWN.",
};

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    units: Vec<String>,
    limits: Limits,
    excluded: Vec<String>,
    inactive_ok: bool,
}

impl Wanted {
    /// Reads the options.
    ///
    /// # Errors
    /// A threshold is none, a name is no unit's, or there are too many.
    pub fn of(given: &Given) -> Result<Self, Misuse> {
        if given.operands.len() > UNITS_MAX {
            return Err(Misuse(format!("more than {UNITS_MAX} units")));
        }
        // What systemd allows in names; no option can hide among them.
        let fits = |name: &String| {
            !name.is_empty()
                && name.len() <= 255
                && !name.starts_with('-')
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte))
        };
        if let Some(odd) = given.operands.iter().find(|name| !fits(name)) {
            return Err(Misuse(format!("`{}` is not the name of a unit", plain(odd))));
        }
        let mut limits = Limits::of(given, "warning", "critical", Sense::Above, Unit::Count)?;
        if limits == Limits::default() {
            limits.critical = Limit::parse("0", Sense::Above, Unit::Count).ok();
        }
        Ok(Self {
            units: given.operands.clone(),
            limits,
            excluded: given.all("exclude").map(str::to_owned).collect(),
            inactive_ok: given.has("inactive-ok"),
        })
    }

    /// What to run: program and arguments.
    #[must_use]
    pub fn command(&self) -> Vec<String> {
        let fixed: &[&str] = match self.units.is_empty() {
            true => &[
                "systemctl",
                "list-units",
                "--state=failed",
                "--all",
                "--plain",
                "--no-legend",
                "--no-pager",
                "--full",
            ],
            false => &["systemctl", "show", "--no-pager", "--property=Id,LoadState,ActiveState,SubState,Result", "--"],
        };
        fixed.iter().map(|word| (*word).to_owned()).chain(self.units.iter().cloned()).collect()
    }
}

/// State, text and performance data (`failed`, or `active` of so many) of what [`Wanted::command`] printed.
#[must_use]
pub fn judge(wanted: &Wanted, printed: &str) -> Answer {
    if wanted.units.is_empty() { judge_failed(wanted, printed) } else { judge_units(wanted, printed) }
}

fn judge_failed(wanted: &Wanted, printed: &str) -> Answer {
    let excluded = |unit: &str| {
        wanted.excluded.iter().any(|one| match one.strip_suffix('*') {
            Some(start) => unit.starts_with(start),
            None => unit == one,
        })
    };
    // Some versions put a dot before a unit in trouble, `--plain` or not.
    let units = printed.lines().filter_map(|line| line.trim_start_matches(['●', '*', ' ']).split_whitespace().next());
    let failed: Vec<String> = units.filter(|unit| !excluded(unit)).map(plain).collect();
    let count = failed.len() as f64;
    let state = wanted.limits.state(count, 0.0);
    let mut figures = Figures::default();
    figures.judged("failed", count, "", &wanted.limits, 0.0, None);
    let text = match failed.len() {
        0 => format!("SYSTEMD {state} - no unit has failed"),
        number => {
            let more = number.saturating_sub(NAMED_MAX);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let noun = if number == 1 { "unit has" } else { "units have" };
            let named = failed.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
            format!("SYSTEMD {state} - {number} {noun} failed: {named}{more}")
        }
    };
    figures.answer(state, &text)
}

fn judge_units(wanted: &Wanted, printed: &str) -> Answer {
    let mut blocks = printed.split("\n\n");
    let (mut state, mut active, mut parts) = (State::Ok, 0_u32, Vec::new());
    for unit in &wanted.units {
        let block = blocks.next().unwrap_or_default();
        let value = |key: &str| {
            let value = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            value.map(plain).unwrap_or_default()
        };
        let (loaded, is, sub, result) = (value("LoadState"), value("ActiveState"), value("SubState"), value("Result"));
        let (one, words) = match (loaded.as_str(), is.as_str()) {
            ("", _) | (_, "") => (State::Unknown, "systemctl says nothing of it".to_owned()),
            ("not-found", _) => (State::Critical, "there is no such unit".to_owned()),
            (_, "active") => (State::Ok, format!("active ({sub})")),
            (_, "activating" | "deactivating" | "reloading" | "refreshing" | "maintenance") => {
                (State::Warning, format!("{is} ({sub})"))
            }
            (_, "inactive") if wanted.inactive_ok && matches!(result.as_str(), "success" | "") => {
                (State::Ok, format!("inactive ({sub})"))
            }
            (_, _) if matches!(result.as_str(), "success" | "") => (State::Critical, format!("{is} ({sub})")),
            (_, _) => (State::Critical, format!("{is} ({sub}, {result})")),
        };
        active += u32::from(is == "active");
        state = worse(state, one);
        parts.push((one, format!("{}: {words}", plain(unit))));
    }
    parts.sort_by_key(|(state, _)| std::cmp::Reverse(*state));
    let parts: Vec<String> = parts.into_iter().map(|(_, part)| part).collect();
    let mut figures = Figures::default();
    let none = [String::new(), String::new()];
    figures.add("active", f64::from(active), "", none, Some(0.0), Some(wanted.units.len() as f64));
    figures.answer(state, &format!("SYSTEMD {state} - {}", parts.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn judged(line: &str, printed: &str) -> Answer {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        judge(&Wanted::of(&MANUAL.read(&words).unwrap()).unwrap(), printed)
    }

    const FAILED: &str = "apt-daily.service loaded failed failed Daily apt download\n\
        ● run-x.mount  loaded failed failed /run/x\n";

    #[test]
    fn failed_units_are_counted_and_named() {
        assert_eq!(judged("", "").text, "SYSTEMD OK - no unit has failed|failed=0;;0;0");
        let two = judged("", FAILED);
        assert_eq!(
            (two.state, two.text.as_str()),
            (State::Critical, "SYSTEMD CRITICAL - 2 units have failed: apt-daily.service, run-x.mount|failed=2;;0;0")
        );
        for (line, state) in [
            ("-w 0 -c 5", State::Warning),
            ("-w 2", State::Ok),
            ("-x run-* -x apt-daily.service", State::Ok),
            ("-x run-*", State::Critical),
            ("-x run-", State::Critical),
        ] {
            assert_eq!(judged(line, FAILED).state, state, "{line}");
        }
        let many: String = (0..30).map(|at| format!("u{at}.service loaded failed failed x\n")).collect();
        assert!(judged("", &many).text.contains("u9.service and 20 more|"));
    }

    /// LoadState ActiveState SubState Result | state
    const UNITS: &str = "
        loaded active running success        | ok
        loaded active exited success         | ok
        loaded reloading reload success      | warning
        loaded activating auto-restart exit-code | warning
        loaded inactive dead success         | critical
        loaded failed failed exit-code       | critical
        masked inactive dead success         | critical
        not-found inactive dead success      | critical
        loaded strange new success           | critical
    ";

    #[test]
    fn a_named_unit_must_be_active() {
        let mut rows = 0;
        for row in UNITS.lines().filter(|row| !row.trim().is_empty()) {
            let (fields, state) = row.split_once('|').unwrap();
            let fields: Vec<&str> = fields.split_whitespace().collect();
            let printed = format!(
                "Id=a.service\nLoadState={}\nActiveState={}\nSubState={}\nResult={}\n",
                fields[0], fields[1], fields[2], fields[3]
            );
            assert_eq!(judged("a", &printed).state.as_str().to_lowercase(), state.trim(), "{row}");
            rows += 1;
        }
        assert_eq!(rows, 9);
    }

    #[test]
    fn several_units_are_told_apart_and_trouble_stands_first() {
        let printed = "Result=success\nId=ssh.service\nLoadState=loaded\nActiveState=active\nSubState=running\n\n\
            Result=exit-code\nId=b.service\nLoadState=loaded\nActiveState=failed\nSubState=failed\n\n\
            Result=success\nId=c.service\nLoadState=loaded\nActiveState=inactive\nSubState=dead\n";
        assert_eq!(
            judged("-i ssh b c", printed).text,
            "SYSTEMD CRITICAL - b: failed (failed, exit-code), ssh: active (running), c: inactive (dead)|active=1;;;0;3"
        );
        assert_eq!(judged("ssh b c d", printed).text.matches("says nothing of it").count(), 1);
    }

    #[test]
    fn what_is_run_is_a_list_of_words_and_names_are_checked() {
        let of = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            MANUAL.read(&words).and_then(|given| Wanted::of(&given))
        };
        assert_eq!(
            of(&["getty@tty1", r"dev-x\x2d.swap"]).unwrap().command()[4..],
            ["--", "getty@tty1", r"dev-x\x2d.swap"]
        );
        assert_eq!(of(&[]).unwrap().command()[..3], ["systemctl", "list-units", "--state=failed"]);
        for odd in ["a b", "a;b", "$(id)", "", "ü"] {
            assert!(of(&["--", odd]).is_err(), "{odd}");
        }
        assert!(of(&["--", "--help"]).is_err());
        assert!(of(&vec!["a"; UNITS_MAX + 1]).is_err());
    }

    proptest! {
        #[test]
        fn anything_printed_is_judged(printed in "(.|\n){0,80}|((Id|LoadState|ActiveState|Result)=[a-z|]{0,8}\n){0,9}", named: bool) {
            let answer = judged(if named { "a b" } else { "" }, &printed);
            let parsed = shared::perfdata::parse(&shared::perfdata::split_output(&answer.text).perfdata);
            prop_assert_eq!((parsed.metrics.len(), parsed.dropped), (1, 0), "{}", answer.text);
        }
    }
}
