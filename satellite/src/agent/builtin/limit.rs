//! Thresholds as operators write them: ranges of the Monitoring Plugins with `%`, sizes (`500M`) and times (`10m`), and what
//! state a value has under a warning and a critical one.
//! The surprise: a bare number is not always an upper bound. As in check_disk, check_swap and check_file_age it is the bound on
//! the side where trouble is: the least free space, the smallest file, the shortest time since the start.

use shared::check::State;
use shared::range::Range;

use super::options::{Given, Misuse};

/// On which side of a bare number trouble is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sense {
    /// Above it: load, used memory, age. `N` is the range `0:N`.
    Above,
    /// Below it: the size of a file, the time since the start. `N` is the range `N:`.
    Below,
    /// At it or below: free space, as check_disk and check_swap have it. `N` is the range `@0:N`.
    AtMost,
}

/// What the numbers of a threshold count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Plain numbers.
    Count,
    /// Plain numbers, or `%`.
    CountOrPercent,
    /// Bytes with K, M, G, T, P (powers of 1024; `MB` and `MiB` are the same), or `%`; a number without unit counts this many.
    Bytes(u32),
    /// Seconds with s, m, h, d, w.
    Seconds,
    /// Percent with or without `%`.
    Percent,
}

/// One threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    range: Range,
    /// The number, if it was a bare one.
    bare: Option<f64>,
    percent: bool,
}

/// Greatest number of a threshold, in its unit; far above every size and time there is. Greater ones are refused, so that no
/// product of two of them is infinite.
const NUMBER_MAX: f64 = 1e30;

impl Limit {
    /// Reads `[@][start:]end`, each bound with its unit.
    ///
    /// # Errors
    /// It is no range, a unit is unknown, or one bound is a percentage and the other is not.
    pub fn parse(text: &str, sense: Sense, unit: Unit) -> Result<Self, Misuse> {
        let wrong = |why: &str| Misuse(format!("`{text}` is no threshold: {why}"));
        let (inside, bounds) = text.strip_prefix('@').map_or((false, text), |rest| (true, rest));
        let number = |bound: &str| number(bound, unit).map_err(|why| wrong(&why));
        let (start, end) = match bounds.split_once(':') {
            None => {
                let (value, percent) = number(bounds)?.ok_or_else(|| wrong("a number is missing"))?;
                let (start, end, inside) = match sense {
                    _ if inside => (0.0, value, true),
                    Sense::Above => (0.0, value, false),
                    Sense::Below => (value, f64::INFINITY, false),
                    Sense::AtMost => (0.0, value, true),
                };
                let bare = Some(value).filter(|_| !text.starts_with('@'));
                let range = Range::new(start, end, inside).map_err(|error| wrong(&error.to_string()))?;
                return Ok(Self { range, bare, percent });
            }
            Some(("~", end)) => (Some((f64::NEG_INFINITY, false)), number(end)?),
            Some((start, end)) => (number(start)?, number(end)?),
        };
        let percent =
            |bound: Option<(f64, bool)>| bound.filter(|(value, _)| value.is_finite()).map(|(_, percent)| percent);
        let zero = |bound: Option<(f64, bool)>| bound.is_some_and(|(value, _)| value == 0.0);
        let percent = match (percent(start), percent(end)) {
            // Zero is the same in every unit: `0:20%`.
            (Some(_), Some(other)) if zero(start) => other,
            (Some(one), Some(_)) if zero(end) => one,
            (Some(one), Some(other)) if one != other => return Err(wrong("write % at both bounds or at none")),
            (one, other) => one.unwrap_or(false) || other.unwrap_or(false),
        };
        let range =
            Range::new(start.map_or(0.0, |(value, _)| value), end.map_or(f64::INFINITY, |(value, _)| value), inside);
        Ok(Self { range: range.map_err(|error| wrong(&error.to_string()))?, bare: None, percent })
    }

    /// Does this call for an alert? `value` in the unit of the threshold, or `percent` where it is a percentage.
    #[must_use]
    pub fn alerts(&self, value: f64, percent: f64) -> bool {
        self.range.alerts(if self.percent { percent } else { value })
    }

    /// The bare number, if it was one and no range.
    #[must_use]
    pub fn bare(&self) -> Option<f64> {
        self.bare
    }

    /// As performance data has it, in the unit of the value; percentages are of `whole`. A bare number stays one, as in
    /// check_swap; readers that take it for an upper bound are as old as performance data.
    #[must_use]
    pub fn shown(&self, whole: f64) -> String {
        let scaled = |bound: f64| if self.percent { whole * bound / 100.0 } else { bound };
        match self.bare {
            Some(bare) => super::verdict::number(rounded(scaled(bare), whole)),
            None => self.mapped(|bound| rounded(scaled(bound), whole), false),
        }
    }

    /// The same for a threshold of what is free where performance data has what is used: the bounds, from the other end.
    #[must_use]
    pub fn shown_as_rest(&self, whole: f64) -> String {
        let scaled = |bound: f64| if self.percent { whole * bound / 100.0 } else { bound };
        let rest = |bound: f64| rounded(whole - scaled(bound), whole);
        match self.bare {
            Some(bare) => super::verdict::number(rest(bare).max(0.0)),
            None => self.mapped(rest, true),
        }
    }

    fn mapped(&self, map: impl Fn(f64) -> f64, swapped: bool) -> String {
        let infinite = |bound: f64| {
            if bound.is_finite() {
                map(bound)
            } else if swapped {
                -bound
            } else {
                bound
            }
        };
        let (start, end) = (infinite(self.range.start()), infinite(self.range.end()));
        let (start, end) = if swapped { (end, start) } else { (start, end) };
        Range::new(start, end, self.range.inside()).map(|range| range.to_string()).unwrap_or_default()
    }
}

/// Of a whole that is counted (bytes) no fractions are shown.
fn rounded(value: f64, whole: f64) -> f64 {
    if whole > 100.0 { value.round() } else { (value * 1000.0).round() / 1000.0 }
}

/// A number with its unit: value and whether it is a percentage. `None`: nothing stands there.
fn number(text: &str, unit: Unit) -> Result<Option<(f64, bool)>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let digits = text.trim_end_matches(|letter: char| letter.is_alphabetic() || letter == '%');
    let suffix = &text[digits.len()..];
    let (factor, percent) = factor(suffix, unit)?;
    // By the rules of ranges: digits, sign, dot, exponent; never `inf` or a comma.
    let value = format!("{digits}:").parse::<Range>().map(|range| range.start()).map_err(|error| error.to_string())?;
    let value = value * factor;
    if digits.is_empty() || value.abs() > NUMBER_MAX {
        return Err(format!("`{text}` is no number in these bounds"));
    }
    Ok(Some((value, percent)))
}

fn factor(suffix: &str, unit: Unit) -> Result<(f64, bool), String> {
    let kibi = |power| Ok((1024_f64.powi(power), false));
    match (unit, suffix) {
        (Unit::Percent, "" | "%") | (Unit::Bytes(_) | Unit::CountOrPercent, "%") => Ok((1.0, true)),
        (Unit::Count | Unit::CountOrPercent, "") | (Unit::Seconds, "" | "s") => Ok((1.0, false)),
        (Unit::Bytes(bare), "") => Ok((f64::from(bare), false)),
        (Unit::Bytes(_), "B" | "b") => kibi(0),
        (Unit::Bytes(_), "k" | "K" | "kB" | "KB" | "kiB" | "KiB") => kibi(1),
        (Unit::Bytes(_), "M" | "MB" | "MiB") => kibi(2),
        (Unit::Bytes(_), "G" | "GB" | "GiB") => kibi(3),
        (Unit::Bytes(_), "T" | "TB" | "TiB") => kibi(4),
        (Unit::Bytes(_), "P" | "PB" | "PiB") => kibi(5),
        (Unit::Seconds, "m" | "min") => Ok((60.0, false)),
        (Unit::Seconds, "h") => Ok((3600.0, false)),
        (Unit::Seconds, "d") => Ok((86_400.0, false)),
        (Unit::Seconds, "w") => Ok((604_800.0, false)),
        (unit, suffix) => Err(format!(
            "`{suffix}` is no unit here; {}",
            match unit {
                Unit::Count => "plain numbers only",
                Unit::CountOrPercent => "plain numbers or %",
                Unit::Bytes(_) => "K, M, G, T, P or %",
                Unit::Seconds => "s, m, h, d or w",
                Unit::Percent => "% or nothing",
            }
        )),
    }
}

/// A warning and a critical threshold, either of which may be absent.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Limits {
    /// Outside of it: WARNING.
    pub warning: Option<Limit>,
    /// Outside of it: CRITICAL.
    pub critical: Option<Limit>,
}

impl Limits {
    /// From the options of these names.
    ///
    /// # Errors
    /// One of them is no threshold; the text names the option.
    pub fn of(given: &Given, warning: &str, critical: &str, sense: Sense, unit: Unit) -> Result<Self, Misuse> {
        let limit = |name: &str| {
            let limit = given.last(name).map(|text| Limit::parse(text, sense, unit)).transpose();
            limit.map_err(|Misuse(why)| Misuse(format!("--{name}: {why}")))
        };
        Ok(Self { warning: limit(warning)?, critical: limit(critical)? })
    }

    /// The state of a value; `percent` is the same as a percentage.
    #[must_use]
    pub fn state(&self, value: f64, percent: f64) -> State {
        let alerts = |limit: Option<Limit>| limit.is_some_and(|limit| limit.alerts(value, percent));
        match (alerts(self.critical), alerts(self.warning)) {
            (true, _) => State::Critical,
            (false, true) => State::Warning,
            (false, false) => State::Ok,
        }
    }

    /// Both as performance data has them; see [`Limit::shown`].
    #[must_use]
    pub fn shown(&self, whole: f64) -> [String; 2] {
        [self.warning, self.critical].map(|limit| limit.map(|limit| limit.shown(whole)).unwrap_or_default())
    }

    /// Both, from the other end; see [`Limit::shown_as_rest`].
    #[must_use]
    pub fn shown_as_rest(&self, whole: f64) -> [String; 2] {
        [self.warning, self.critical].map(|limit| limit.map(|limit| limit.shown_as_rest(whole)).unwrap_or_default())
    }
}

/// `part` of `whole` in percent; of nothing it is `of_nothing`.
#[must_use]
pub fn percent(part: f64, whole: f64, of_nothing: f64) -> f64 {
    if whole > 0.0 { part * 100.0 / whole } else { of_nothing }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// threshold | sense | unit | value and percentage that alert | that do not | shown of 1000
    const LIMITS: &str = "
        5        | above   | count   | 5.1/0   | 5/0      | 5
        5        | below   | count   | 4.9/0   | 5/0      | 5
        5        | at-most | count   | 5/0     | 5.1/0    | 5
        10:20    | at-most | count   | 9/0     | 15/0     | 10:20
        @10:20   | above   | count   | 15/0    | 9/0      | @10:20
        @5       | above   | count   | 5/0     | 6/0      | @5
        ~:0      | below   | count   | 1/0     | -5/0     | ~:0
        80%      | above   | bytes   | 0/80.1  | 999/80   | 800
        10%      | at-most | bytes   | 999/10  | 0/10.1   | 100
        10%:20%  | above   | bytes   | 0/9     | 0/15     | 100:200
        0:20%    | above   | bytes   | 0/21    | 999/20   | 200
        10%:     | above   | bytes   | 0/9     | 0/10     | 100:
        1k       | above   | bytes   | 1025/0  | 1024/0   | 1024
        2MiB     | below   | bytes   | 2097151/0 | 2097152/0 | 2097152
        3        | above   | megabytes | 3145729/0 | 3145728/0 | 3145728
        10m      | below   | seconds | 599/0   | 600/0    | 600
        1h:2d    | above   | seconds | 3599/0  | 3600/0   | 3600:172800
        90       | above   | percent | 0/91    | 999/90   | 900
    ";

    fn unit(name: &str) -> Unit {
        match name {
            "count" => Unit::Count,
            "bytes" => Unit::Bytes(1),
            "megabytes" => Unit::Bytes(1 << 20),
            "seconds" => Unit::Seconds,
            "percent" => Unit::Percent,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn thresholds_alert_on_their_side_and_at_their_bounds() {
        let mut rows = 0;
        for row in LIMITS.lines().filter(|row| !row.trim().is_empty()) {
            let columns: Vec<&str> = row.split('|').map(str::trim).collect();
            let sense = match columns[1] {
                "above" => Sense::Above,
                "below" => Sense::Below,
                _ => Sense::AtMost,
            };
            let limit =
                Limit::parse(columns[0], sense, unit(columns[2])).unwrap_or_else(|error| panic!("{row}: {error}"));
            for (column, alerts) in [(columns[3], true), (columns[4], false)] {
                let (value, percent) = column.split_once('/').unwrap();
                assert_eq!(limit.alerts(value.parse().unwrap(), percent.parse().unwrap()), alerts, "{row}: {column}");
            }
            assert_eq!(limit.shown(1000.0), columns[5], "{row}");
            rows += 1;
        }
        assert_eq!(rows, 18);
    }

    #[test]
    fn what_is_free_is_shown_as_what_is_used() {
        for (text, shown) in [
            ("10%", "900"),
            ("100", "900"),
            ("5000", "0"),
            ("10%:", "~:900"),
            ("@10%:20%", "@800:900"),
            ("~:50", "950:"),
        ] {
            let limit = Limit::parse(text, Sense::AtMost, Unit::Bytes(1)).unwrap();
            assert_eq!(limit.shown_as_rest(1000.0), shown, "{text}");
        }
    }

    #[test]
    fn what_is_no_threshold_is_refused() {
        for (text, unit, says) in [
            ("", Unit::Count, "a number is missing"),
            ("@", Unit::Count, "a number is missing"),
            ("x", Unit::Count, "no unit here"),
            ("5%", Unit::Count, "plain numbers only"),
            ("5Q", Unit::Bytes(1), "K, M, G, T, P or %"),
            ("5y", Unit::Seconds, "s, m, h, d or w"),
            ("M", Unit::Bytes(1), "no number in these bounds"),
            ("1,5", Unit::Count, "plain number"),
            ("20:10", Unit::Count, "start of a range lies above its end"),
            ("-5", Unit::Count, "start of a range lies above its end"),
            ("10M:20%", Unit::Bytes(1), "% at both bounds"),
            ("10%:20M", Unit::Bytes(1), "% at both bounds"),
            ("10:~", Unit::Count, "no number in these bounds"),
            ("1e31", Unit::Count, "no number in these bounds"),
            ("inf", Unit::Count, "no unit here"),
        ] {
            let said = Limit::parse(text, Sense::Above, unit).expect_err(text).0;
            assert!(said.contains(says), "{text}: {said}");
        }
    }

    #[test]
    fn critical_stands_before_warning() {
        let limit = |text| Limit::parse(text, Sense::Above, Unit::Count).ok();
        let both = Limits { warning: limit("5"), critical: limit("10") };
        let states = [4.0, 6.0, 11.0].map(|value| both.state(value, 0.0));
        assert_eq!(states, [State::Ok, State::Warning, State::Critical]);
        assert_eq!(Limits::default().state(f64::MAX, f64::MAX), State::Ok);
        assert_eq!(Limits { warning: None, critical: limit("1") }.state(2.0, 0.0), State::Critical);
        assert_eq!((percent(1.0, 4.0, 0.0), percent(0.0, 0.0, 100.0)), (25.0, 100.0));
    }

    proptest! {
        #[test]
        fn any_text_is_a_threshold_or_refused(
            text in "[@~:%0-9.eE+kMGm-]{0,12}|.{0,16}",
            sense in 0..3_usize,
            unit in 0..4_usize,
            value in proptest::num::f64::ANY,
        ) {
            let sense = [Sense::Above, Sense::Below, Sense::AtMost][sense];
            let unit = [Unit::Count, Unit::Bytes(1 << 20), Unit::Seconds, Unit::Percent][unit];
            if let Ok(limit) = Limit::parse(&text, sense, unit) {
                let _ = limit.alerts(value, value);
                for shown in [limit.shown(value), limit.shown_as_rest(value), limit.shown(1e18), limit.shown_as_rest(1e18)] {
                    prop_assert!(!shown.contains("inf") && !shown.contains("NaN"), "{} {}", text, shown);
                }
            }
        }
    }
}
