//! Threshold ranges: `[@][start:]end`, as the Monitoring Plugins guidelines write them.
//!
//! A range says where a value is fine; with `@` it says where a value is not. Knows nothing of performance data.
//! The surprise: a bare negative number (`-5`) is *not* a range, for it would run from 0 down to -5; performance data
//! keeps such a number as a number (see `perfdata::Threshold`).

use std::fmt;
use std::str::FromStr;

use minicbor::decode::{self, Decode, Decoder};
use minicbor::encode::{self, Encode, Encoder, Write};

/// A threshold range. Both ends belong to it. The start is never above the end, and neither is NaN.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    start: f64,
    end: f64,
    inside: bool,
}

/// Why a text is not a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Nothing stands where an end is needed.
    #[error("a range needs an end: [@][start:]end")]
    Empty,
    /// A bound is not a finite decimal number (nor `~` as the start).
    #[error("a bound of a range is a plain number, or ~ as the start")]
    NotANumber,
    /// `20:10`, or a bare negative number.
    #[error("the start of a range lies above its end")]
    StartAboveEnd,
}

impl Range {
    /// A range from its bounds; the start may be minus infinity, the end plus infinity.
    ///
    /// # Errors
    /// A bound that is NaN or infinite on the wrong side, or a start above the end.
    pub fn new(start: f64, end: f64, inside: bool) -> Result<Self, RangeError> {
        if start.is_nan() || end.is_nan() || start == f64::INFINITY || end == f64::NEG_INFINITY {
            return Err(RangeError::NotANumber);
        }
        if start > end {
            return Err(RangeError::StartAboveEnd);
        }
        // Adding zero turns -0 into 0, so that equal ranges have equal text.
        Ok(Self { start: start + 0.0, end: end + 0.0, inside })
    }

    /// The lower bound; minus infinity when written `~`.
    #[must_use]
    pub fn start(&self) -> f64 {
        self.start
    }

    /// The upper bound; plus infinity when left out.
    #[must_use]
    pub fn end(&self) -> f64 {
        self.end
    }

    /// True for `@`: the alert is inside.
    #[must_use]
    pub fn inside(&self) -> bool {
        self.inside
    }

    /// Does the value lie between the bounds, both included?
    #[must_use]
    pub fn contains(&self, value: f64) -> bool {
        self.start <= value && value <= self.end
    }

    /// Does the value call for an alert: outside the range, or inside it with `@`? (Guidelines, "Threshold and ranges".)
    #[must_use]
    pub fn alerts(&self, value: f64) -> bool {
        self.contains(value) == self.inside
    }
}

/// A finite decimal number as performance data writes it: digits, sign, dot, exponent. Never `inf`, `nan`, or a comma.
pub(crate) fn plain_number(text: &str) -> Option<f64> {
    let plain = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E');
    if !text.bytes().all(plain) {
        return None;
    }
    text.parse::<f64>().ok().filter(|number| number.is_finite())
}

impl FromStr for Range {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let (inside, bounds) = match text.strip_prefix('@') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if bounds.is_empty() {
            return Err(RangeError::Empty);
        }
        let number = |text: &str| plain_number(text).ok_or(RangeError::NotANumber);
        let (start, end) = match bounds.split_once(':') {
            None => (0.0, number(bounds)?),
            Some((start, end)) => (
                match start {
                    "" => 0.0,
                    "~" => f64::NEG_INFINITY,
                    start => number(start)?,
                },
                if end.is_empty() { f64::INFINITY } else { number(end)? },
            ),
        };
        Self::new(start, end, inside)
    }
}

impl fmt::Display for Range {
    /// The shortest text that parses to the same range.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.inside {
            out.write_str("@")?;
        }
        if self.start == f64::NEG_INFINITY {
            out.write_str("~:")?;
        } else if self.start != 0.0 || self.end == f64::INFINITY {
            write!(out, "{}:", self.start)?;
        }
        if self.end == f64::INFINITY { Ok(()) } else { write!(out, "{}", self.end) }
    }
}

// Neither end is ever NaN, so that every range equals itself.
impl Eq for Range {}

/// On the wire a range is its text.
impl<C> Encode<C> for Range {
    fn encode<W: Write>(&self, out: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        out.str(&self.to_string())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Range {
    fn decode(input: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        input.str()?.parse().map_err(decode::Error::custom)
    }
}

impl serde::Serialize for Range {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// range | values that alert | values that do not
    const ALERTS: &str = "
        10      | -1 -0.001 10.001 11   | 0 5 10
        10:     | 9.999 -1              | 10 11 1e300
        ~:10    | 10.001 1e300          | 10 0 -1e300
        10:20   | 9.999 20.001          | 10 15 20
        @10:20  | 10 15 20              | 9.999 20.001
        @~:0    | 0 -1                  | 0.001
        @10     | 0 5 10                | -1 11
        -10:-5  | -11 -4 0              | -10 -7 -5
        :10     | -1 11                 | 0 10
        ~:      |                       | -1e300 0 1e300
        :       | -0.001                | 0 1e300
        0:0     | -1 1                  | 0
        1e1:2E1 | 9 21                  | 10 20
    ";

    #[test]
    fn a_value_outside_alerts_and_with_an_at_sign_inside() {
        let mut rows = 0;
        for row in ALERTS.lines().map(str::trim).filter(|row| !row.is_empty()) {
            let columns: Vec<&str> = row.split('|').map(str::trim).collect();
            let range: Range = columns[0].parse().unwrap_or_else(|error| panic!("{row}: {error}"));
            for (column, expected) in [(columns[1], true), (columns[2], false)] {
                for value in column.split_whitespace() {
                    assert_eq!(range.alerts(value.parse().unwrap()), expected, "{row}: {value}");
                }
            }
            rows += 1;
        }
        assert_eq!(rows, 13);
    }

    #[test]
    fn what_is_no_range_is_refused_with_its_reason() {
        for (text, error) in [
            ("", RangeError::Empty),
            ("@", RangeError::Empty),
            ("20:10", RangeError::StartAboveEnd),
            ("-5", RangeError::StartAboveEnd),
            ("~", RangeError::NotANumber),
            ("~:~", RangeError::NotANumber),
            ("10:~", RangeError::NotANumber),
            ("1,5", RangeError::NotANumber),
            ("inf", RangeError::NotANumber),
            ("nan:1", RangeError::NotANumber),
            ("1e400", RangeError::NotANumber),
            ("10 :20", RangeError::NotANumber),
            ("1:2:3", RangeError::NotANumber),
            ("0x10", RangeError::NotANumber),
        ] {
            assert_eq!(text.parse::<Range>(), Err(error), "{text}");
        }
        assert_eq!(Range::new(f64::NAN, 1.0, false), Err(RangeError::NotANumber));
        assert_eq!(Range::new(f64::INFINITY, f64::INFINITY, false), Err(RangeError::NotANumber));
    }

    #[test]
    fn text_is_the_shortest_that_says_the_same() {
        for (text, shortest) in [
            ("0:10", "10"),
            ("@0:10", "@10"),
            ("10:", "10:"),
            (":", "0:"),
            ("-0:3", "3"),
            ("@~:-0", "@~:0"),
            ("1e3:2e3", "1000:2000"),
        ] {
            assert_eq!(text.parse::<Range>().unwrap().to_string(), shortest, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_printed_range_parses_to_itself(
            a in proptest::num::f64::NORMAL | proptest::num::f64::ZERO,
            b in proptest::num::f64::NORMAL | proptest::num::f64::ZERO,
            open in 0..4u8,
            inside: bool,
        ) {
            let start = if open & 1 == 1 { f64::NEG_INFINITY } else { a.min(b) };
            let end = if open & 2 == 2 { f64::INFINITY } else { a.max(b) };
            let range = Range::new(start, end, inside).unwrap();
            prop_assert_eq!(range.to_string().parse::<Range>(), Ok(range));
        }

        #[test]
        fn any_text_is_a_range_or_an_error(text in "[@~:0-9.eE+-]{0,12}|.{0,20}") {
            if let Ok(range) = text.parse::<Range>() {
                prop_assert!(range.start() <= range.end());
            }
        }
    }
}
