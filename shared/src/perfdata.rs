//! Plugin text becomes output, long output and performance data; performance data becomes metrics.
//!
//! The rules are Icinga 2's (`lib/base/perfdatavalue.cpp`, `lib/icinga/pluginutility.cpp`), so names and values in the
//! stores stay what dashboards expect. Knows nothing of checks or stores; values keep the unit the plugin wrote
//! (`unit::base_unit` scales them). The surprise: a label with `::` (check_multi) prefixes every later label that has none.

use minicbor::{Decode, Encode};
use serde::{Serialize, Serializer};

use crate::range::{Range, plain_number};

mod encoding;

/// Bytes of output and long output together; the rest is cut off and the result marked.
pub const TEXT_LIMIT: usize = 64 * 1024;
/// Bytes of performance data; the rest is cut off between two items and the result marked.
pub const PERFDATA_LIMIT: usize = 64 * 1024;
/// Metrics of one result; further items are counted as dropped.
pub const METRICS_LIMIT: usize = 64;
/// Bytes of a label, prefix included; an item with a longer one is dropped. Whisper makes it a file name.
pub const LABEL_LIMIT: usize = 255;
/// Bytes of a unit; a longer one is left out, as an unknown unit would be.
pub const UNIT_LIMIT: usize = 32;
/// What stands for the output of a plugin that printed none (the text of Nagios).
pub const NO_OUTPUT: &str = "(No output returned from plugin)";

/// The text of a plugin, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PluginOutput {
    /// First line, trimmed; never empty.
    pub output: String,
    /// Further lines joined by line feeds, without performance data.
    pub long_output: String,
    /// All performance data joined by single spaces, as the plugin wrote it.
    pub perfdata: String,
    /// True when a limit cut something off.
    pub truncated: bool,
}

/// Takes a plugin's text apart, line by line.
///
/// As in Icinga 2 a `|` divides only if `=` follows on its line. As in Nagios, once a line after the first has divided,
/// further lines are performance data without a `|`; but only those that read as such from end to end.
#[must_use]
pub fn split_output(text: &str) -> PluginOutput {
    let mut parts = PluginOutput::default();
    let mut perfdata_goes_on = false;
    let mut first_text = true;
    for (number, line) in text.lines().enumerate() {
        let (words, perfdata) = match line.split_once('|') {
            Some((words, perfdata)) if perfdata.contains('=') => {
                perfdata_goes_on |= number > 0;
                (words, perfdata)
            }
            _ if perfdata_goes_on && is_perfdata(line) => ("", line),
            _ => (line, ""),
        };
        if !perfdata.trim().is_empty() {
            if !parts.perfdata.is_empty() {
                parts.perfdata.push(' ');
            }
            parts.perfdata.push_str(perfdata.trim());
        }
        if first_text {
            parts.output.push_str(words.trim());
            first_text = parts.output.is_empty();
        } else if perfdata.is_empty() || !words.trim().is_empty() {
            if !parts.long_output.is_empty() {
                parts.long_output.push('\n');
            }
            parts.long_output.push_str(words.trim_end());
        }
    }
    parts.long_output.truncate(parts.long_output.trim_end().len());
    let cut_text = cut(&mut parts.output, TEXT_LIMIT);
    let cut_long = cut(&mut parts.long_output, TEXT_LIMIT - parts.output.len());
    let cut_perfdata = cut(&mut parts.perfdata, PERFDATA_LIMIT);
    if cut_perfdata {
        // Half an item would be a wrong number: 1234 cut to 12.
        let whole = parts.perfdata.rfind(char::is_whitespace).unwrap_or(0);
        parts.perfdata.truncate(whole);
    }
    parts.truncated = cut_text || cut_long || cut_perfdata;
    if parts.output.is_empty() {
        parts.output.push_str(NO_OUTPUT);
    }
    parts
}

/// Cuts the text to a limit of bytes, between two characters; true if anything was lost.
fn cut(text: &mut String, limit: usize) -> bool {
    if text.len() <= limit {
        return false;
    }
    text.truncate(text.floor_char_boundary(limit));
    true
}

/// A limit of a metric, in the unit of its value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Threshold {
    /// A plain number, as most plugins print. It may be negative, which a range could not say.
    Number(f64),
    /// A range. Graphite and InfluxDB get no line for it, as from Icinga 2.
    Range(Range),
}

impl Threshold {
    /// Plain number first, then a range; anything else is no threshold.
    fn parse(text: &str) -> Option<Self> {
        plain_number(text).map(Self::Number).or_else(|| text.parse().ok().map(Self::Range))
    }

    /// The plain number, if it is one: what metric stores get.
    #[must_use]
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Range(_) => None,
        }
    }

    /// The range it stands for; none for a plain negative number.
    #[must_use]
    pub fn range(&self) -> Option<Range> {
        match self {
            Self::Number(number) => Range::new(0.0, *number, false).ok(),
            Self::Range(range) => Some(*range),
        }
    }
}

impl Serialize for Threshold {
    /// A number stays a number; a range is its text.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => serializer.serialize_f64(*number),
            Self::Range(range) => serializer.collect_str(range),
        }
    }
}

/// One item of performance data. Every number is finite.
#[derive(Debug, Clone, PartialEq, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct Metric {
    /// The label without quotes and with its check_multi prefix; neither empty nor longer than [`LABEL_LIMIT`].
    #[cbor(n(0), decode_with = "encoding::label")]
    pub label: String,
    /// The value in the unit the plugin wrote.
    #[cbor(n(1), with = "encoding::number")]
    pub value: f64,
    /// The unit as the plugin wrote it; empty for none.
    #[cbor(n(2), decode_with = "encoding::unit")]
    pub unit: String,
    /// Warning threshold, in the same unit.
    #[n(3)]
    pub warn: Option<Threshold>,
    /// Critical threshold, in the same unit.
    #[n(4)]
    pub crit: Option<Threshold>,
    /// Smallest possible value, in the same unit.
    #[cbor(n(5), with = "encoding::optional_number", has_nil)]
    pub min: Option<f64>,
    /// Greatest possible value, in the same unit.
    #[cbor(n(6), with = "encoding::optional_number", has_nil)]
    pub max: Option<f64>,
}

/// The metrics of one result.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Parsed {
    /// In the order of the plugin; at most [`METRICS_LIMIT`]. A label may come twice.
    pub metrics: Vec<Metric>,
    /// Items left out: no number, `U`, a comma, a label too long, or beyond the limit.
    pub dropped: u32,
}

/// Reads performance data. Never fails: what cannot be read is left out and counted.
#[must_use]
pub fn parse(text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    let mut prefix = String::new();
    let mut rest = text;
    loop {
        let (label, value) = match next_item(rest) {
            Next::Item { label, value, rest: further } => {
                rest = further;
                (label, value)
            }
            Next::Remainder => {
                parsed.dropped = parsed.dropped.saturating_add(1);
                return parsed;
            }
            Next::End => return parsed,
        };
        let label = match label.rfind("::") {
            Some(end) => {
                label[..end].clone_into(&mut prefix);
                label.to_owned()
            }
            None if prefix.is_empty() => label.to_owned(),
            None => format!("{prefix}::{label}"),
        };
        match metric(label, value) {
            Some(metric) if parsed.metrics.len() < METRICS_LIMIT => parsed.metrics.push(metric),
            _ => parsed.dropped = parsed.dropped.saturating_add(1),
        }
    }
}

enum Next<'a> {
    Item {
        label: &'a str,
        value: &'a str,
        rest: &'a str,
    },
    /// Text without any `=`.
    Remainder,
    End,
}

/// A label runs to the first `=`, spaces included; its value to the next white space.
fn next_item(text: &str) -> Next<'_> {
    let text = text.trim_start();
    if text.is_empty() {
        return Next::End;
    }
    let Some((label, value)) = text.split_once('=') else { return Next::Remainder };
    let (value, rest) = value.split_once(char::is_whitespace).unwrap_or((value, ""));
    Next::Item { label: unquoted(label), value, rest }
}

/// Quotes go only from labels with something between them, and doubled quotes inside stay: both as Icinga 2 does.
fn unquoted(label: &str) -> &str {
    match label.strip_prefix('\'').and_then(|label| label.strip_suffix('\'')) {
        Some(inner) if !inner.is_empty() => inner,
        _ => label,
    }
}

fn metric(mut label: String, value: &str) -> Option<Metric> {
    // Icinga 2 takes the last `=` of an item for the divider: `a=b=3` is 3, labelled `a=b`.
    let value = match value.rsplit_once('=') {
        Some((more, value)) => {
            label.push('=');
            label.push_str(more);
            value
        }
        None => value,
    };
    if label.is_empty() || label.len() > LABEL_LIMIT || value.contains(',') {
        return None;
    }
    let mut fields = value.split(';');
    let (value, unit) = number_and_unit(fields.next()?)?;
    let mut threshold = || fields.next().and_then(Threshold::parse);
    let (warn, crit) = (threshold(), threshold());
    let mut bound = || fields.next().and_then(plain_number);
    let (min, max) = (bound(), bound());
    let unit = if unit.len() > UNIT_LIMIT { "" } else { unit };
    Some(Metric { label, value, unit: unit.to_owned(), warn, crit, min, max })
}

/// The number ends after its last digit or dot, so an exponent belongs to it: `1e10GB`.
fn number_and_unit(text: &str) -> Option<(f64, &str)> {
    let end = text.rfind(|letter: char| letter.is_ascii_digit() || letter == '.')? + 1;
    let (number, unit) = text.split_at(end);
    Some((plain_number(number)?, unit))
}

/// Is the whole line performance data, each label a single word or quoted?
fn is_perfdata(line: &str) -> bool {
    let mut rest = line;
    let mut items = 0;
    loop {
        let trimmed = rest.trim_start();
        rest = match next_item(trimmed) {
            Next::End => return items > 0,
            Next::Remainder => return false,
            Next::Item { label, value, rest } => {
                let single = trimmed.starts_with('\'') || !label.contains(char::is_whitespace);
                let first = value.split(';').next().unwrap_or_default();
                if label.is_empty() || !single || (first != "U" && number_and_unit(first).is_none()) {
                    return false;
                }
                rest
            }
        };
        items += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(text: &str) -> (String, String, String) {
        let parts = split_output(text);
        assert!(!parts.truncated);
        (parts.output, parts.long_output, parts.perfdata)
    }

    #[test]
    fn text_is_divided_line_by_line() {
        for (text, output, long_output, perfdata) in [
            ("", NO_OUTPUT, "", ""),
            ("\n \n", NO_OUTPUT, "", ""),
            ("|a=1", NO_OUTPUT, "", "a=1"),
            ("OK", "OK", "", ""),
            ("OK\r\n", "OK", "", ""),
            ("  OK - fine  | a=1;2;3  b=2 \n", "OK - fine", "", "a=1;2;3  b=2"),
            ("a pipe | in text", "a pipe | in text", "", ""),
            ("x=1 before | the bar", "x=1 before | the bar", "", ""),
            ("\n\nOK after blank lines\nmore", "OK after blank lines", "more", ""),
            ("OK|a=1\nlong 1\n\n  long 3\n\n", "OK", "long 1\n\n  long 3", "a=1"),
            ("OK|a=1\nlong|b=2\nmore text", "OK", "long\nmore text", "a=1 b=2"),
            ("OK|a=1\nb=2", "OK", "b=2", "a=1"),
            ("OK\nlong|b=2\nc=3 d=4;5\n'e f'=6\ng=U", "OK", "long", "b=2 c=3 d=4;5 'e f'=6 g=U"),
            ("OK\nlong|b=2\nthe answer is=42\nc=3x y", "OK", "long\nthe answer is=42\nc=3x y", "b=2"),
            ("OK\nlong|b=2\nhttp://x/?q=a", "OK", "long\nhttp://x/?q=a", "b=2"),
            ("OK\n|b=2\nc=3\ntext", "OK", "text", "b=2 c=3"),
            ("a|b|c=1", "a", "", "b|c=1"),
        ] {
            let expected = (output.to_owned(), long_output.to_owned(), perfdata.to_owned());
            assert_eq!(split(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_example_of_the_nagios_manual_is_read_as_meant() {
        let (output, long_output, perfdata) = split(
            "DISK OK - free space: / 3326 MB (56%); | /=2643MB;5948;5958;0;5968\n\
             / 15272 MB (77%);\n/boot 68 MB (69%);\n/home 69357 MB (27%);\n\
             /var/log 819 MB (84%); | /boot=68MB;88;93;0;98\n\
             /home=69357MB;253404;253409;0;253414 \n/var/log=818MB;970;975;0;980\n",
        );
        assert_eq!(output, "DISK OK - free space: / 3326 MB (56%);");
        assert_eq!(long_output, "/ 15272 MB (77%);\n/boot 68 MB (69%);\n/home 69357 MB (27%);\n/var/log 819 MB (84%);");
        assert_eq!(
            perfdata,
            "/=2643MB;5948;5958;0;5968 /boot=68MB;88;93;0;98 \
             /home=69357MB;253404;253409;0;253414 /var/log=818MB;970;975;0;980"
        );
        let parsed = parse(&perfdata);
        assert_eq!((parsed.metrics.len(), parsed.dropped), (4, 0));
    }

    #[test]
    fn too_much_text_is_cut_and_marked() {
        let text =
            format!("{}\n{}|{}", "ü".repeat(TEXT_LIMIT / 2 - 1), "lang", "a=123456 ".repeat(PERFDATA_LIMIT / 9 + 1));
        let parts = split_output(&text);
        assert!(parts.truncated);
        assert_eq!(parts.output.len(), TEXT_LIMIT - 2);
        assert_eq!(parts.long_output, "la");
        assert!(parts.perfdata.len() <= PERFDATA_LIMIT && parts.perfdata.ends_with("a=123456"), "whole items only");

        let parts = split_output(&"ü".repeat(TEXT_LIMIT));
        assert_eq!((parts.output.len(), parts.truncated), (TEXT_LIMIT, true));
        let parts = split_output(&"x".repeat(TEXT_LIMIT));
        assert!(!parts.truncated);
    }

    /// text → label | value | unit | warn | crit | min | max, or `dropped`
    const ITEMS: &str = "
        load1=1.5;5;10;0;100         → load1 | 1.5 |  | 5 | 10 | 0 | 100
        '/var/lib log'=12.5MB;80:90;@10:20;0;~ → /var/lib log | 12.5 | MB | 80:90 | @10:20 | 0 |
        time=12.445ms;;;0;10         → time | 12.445 | ms |  |  | 0 | 10
        pct=42%;80;90                → pct | 42 | % | 80 | 90 |  |
        neg=-3.25C;-10;-20           → neg | -3.25 | C | -10 | -20 |  |
        'C:\\'=5GB;6;7;0;8           → C:\\ | 5 | GB | 6 | 7 | 0 | 8
        two words=3                  → two words | 3 |  |  |  |  |
        'it''s'=1                    → it''s | 1 |  |  |  |  |
        ''=1                         → '' | 1 |  |  |  |  |
        'x'=1                        → x | 1 |  |  |  |  |
        x=1e10GB                     → x | 10000000000 | GB |  |  |  |
        x=+1.E-1EW                   → x | 0.1 | EW |  |  |  |
        x=.5s                        → x | 0.5 | s |  |  |  |
        x=1.                         → x | 1 |  |  |  |  |
        a=b=3                        → a=b | 3 |  |  |  |  |
        x=5;10:;~:20                 → x | 5 |  | 10: | ~:20 |  |
        x=5;20:10;abc;x;y            → x | 5 |  |  |  |  |
        x=5;U;;U;U                   → x | 5 |  |  |  |  |
        x=5;1;2;3;4;5;6              → x | 5 |  | 1 | 2 | 3 | 4
        x=5°C                        → x | 5 | °C |  |  |  |
        u=U;1;2                      → dropped
        c,d=1,5                      → dropped
        x=5;1,5                      → dropped
        emp=;1;2                     → dropped
        =5                           → dropped
        x=1e999                      → dropped
        x=nan                        → dropped
        x=inf1                       → dropped
        x=0x10                       → dropped
        x=1-2                        → dropped
        x=.                          → dropped
        no equals sign               → dropped
    ";

    #[test]
    fn one_item_becomes_one_metric_or_is_counted() {
        let mut rows = 0;
        for row in ITEMS.lines().filter(|row| !row.trim().is_empty()) {
            let (text, expected) = row.trim().split_once('→').unwrap();
            let parsed = parse(text.trim());
            rows += 1;
            if expected.trim() == "dropped" {
                assert_eq!(parsed, Parsed { metrics: vec![], dropped: 1 }, "{row}");
                continue;
            }
            assert_eq!((parsed.metrics.len(), parsed.dropped), (1, 0), "{row}");
            let expected: Vec<&str> = expected.split('|').map(str::trim).collect();
            let metric = &parsed.metrics[0];
            let threshold = |threshold: Option<Threshold>| match threshold {
                None => String::new(),
                Some(Threshold::Number(number)) => number.to_string(),
                Some(Threshold::Range(range)) => range.to_string(),
            };
            let bound = |bound: Option<f64>| bound.map(|bound| bound.to_string()).unwrap_or_default();
            let actual = [
                metric.label.clone(),
                metric.value.to_string(),
                metric.unit.clone(),
                threshold(metric.warn),
                threshold(metric.crit),
                bound(metric.min),
                bound(metric.max),
            ];
            assert_eq!(actual.as_slice(), expected.as_slice(), "{row}");
        }
        assert_eq!(rows, 32);
    }

    #[test]
    fn a_check_multi_prefix_holds_until_the_next_label_that_has_one() {
        let labels = |text: &str| parse(text).metrics.into_iter().map(|metric| metric.label).collect::<Vec<_>>();
        assert_eq!(
            labels("a=1 'b::c::x'=1 y=2 'z z'=3 d::e=4 f=5"),
            ["a", "b::c::x", "b::c::y", "b::c::z z", "d::e", "d::f"]
        );
        assert_eq!(labels("b::x=U y=2"), ["b::y"], "the prefix of a dropped item counts");
        assert_eq!(labels("b::x=1 ::y=2 z=3"), ["b::x", "::y", "z"], "an empty prefix ends it");
    }

    #[test]
    fn bad_items_cost_only_themselves() {
        let parsed = parse("a=1 b=U c=3\td=4  e=1,5 f=6 rest");
        let labels: Vec<&str> = parsed.metrics.iter().map(|metric| metric.label.as_str()).collect();
        assert_eq!(labels, ["a", "c", "d", "f"]);
        assert_eq!(parsed.dropped, 3);
    }

    #[test]
    fn limits_drop_and_count() {
        let many: String = (0..METRICS_LIMIT + 7).map(|n| format!("m{n}={n} ")).collect();
        let parsed = parse(&many);
        assert_eq!((parsed.metrics.len(), parsed.dropped), (METRICS_LIMIT, 7));

        let longest = "l".repeat(LABEL_LIMIT);
        assert_eq!(parse(&format!("{longest}=1")).metrics[0].label, longest);
        assert_eq!(parse(&format!("{longest}l=1")).dropped, 1);
        assert_eq!(parse(&format!("p::x=1 {longest}=1")).dropped, 1, "the prefix counts");

        assert_eq!(parse(&format!("x=1{}", "u".repeat(UNIT_LIMIT + 1))).metrics[0].unit, "");
    }

    #[test]
    fn a_plain_negative_threshold_is_a_number_but_no_range() {
        let metric = &parse("rx=-60dBm;-70;5").metrics[0];
        assert_eq!(metric.warn.unwrap().number(), Some(-70.0));
        assert_eq!(metric.warn.unwrap().range(), None);
        assert_eq!(metric.crit.unwrap().range(), "5".parse().ok());
    }

    proptest! {
        #[test]
        fn any_text_is_divided_within_its_bounds(text in "(.|\n){0,60}|[a=|'; \n:0-9]{0,80}") {
            let parts = split_output(&text);
            prop_assert!(!parts.output.is_empty() && !parts.output.contains('\n') && !parts.perfdata.contains('\n'));
            prop_assert!(parse(&parts.perfdata).metrics.len() <= METRICS_LIMIT);
        }

        #[test]
        fn any_performance_data_gives_finite_metrics_with_labels(text in ".{0,60}|[a='; :,.0-9eU%~@-]{0,80}") {
            let parsed = parse(&text);
            for metric in &parsed.metrics {
                prop_assert!(metric.value.is_finite() && !metric.label.is_empty() && metric.label.len() <= LABEL_LIMIT);
                let bytes = minicbor::to_vec(metric).unwrap();
                prop_assert_eq!(&minicbor::decode::<Metric>(&bytes).unwrap(), metric);
            }
        }
    }
}
