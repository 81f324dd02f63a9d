//! A result's metrics become Graphite plaintext lines, named exactly as Icinga 2's GraphiteWriter names them.
//!
//! Names are escaped here and nowhere else; dashboards and icingaweb2's Graphite module count path nodes, so the depth is
//! fixed. Knows no socket and no clock. The surprise: dots in a label stay and open new levels, dots in a host name do not.
//! Two differences are meant: numbers are the shortest exact text (Icinga 2 rounds to six digits, so 1e-7 became 0), and
//! `;`, white space and control characters become `_`, because carbon would read them as tags or as the end of the name.

use std::io::Write;

use shared::name::ObjectName;
use shared::perfdata::{Metric, Threshold};
use shared::time::Timestamp;
use shared::unit::base_unit;

/// First node of every name, as Icinga 2's default templates have it.
pub const DEFAULT_ROOT: &str = "icinga2";

/// Which lines a result gets besides its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// `.warn .crit .min .max` beside `.value`: the lines an operator looks for in a graph.
    pub thresholds: bool,
    /// `metadata.*`: nine further series for each object.
    pub metadata: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { thresholds: true, metadata: false }
    }
}

/// How names begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Naming {
    root: String,
}

impl Default for Naming {
    fn default() -> Self {
        Self::new(DEFAULT_ROOT)
    }
}

impl Naming {
    /// Names below `root`, in which dots divide nodes (`site.icinga2`).
    #[must_use]
    pub fn new(root: &str) -> Self {
        let mut naming = Self { root: String::with_capacity(root.len()) };
        root.chars().for_each(|letter| push_escaped(&mut naming.root, letter));
        naming
    }

    /// The name of an object's series up to `perfdata` or `metadata`; worth keeping for as long as the object lives.
    #[must_use]
    pub fn object_prefix(&self, object: &ObjectName, command: &str) -> String {
        let mut prefix = String::with_capacity(self.root.len() + object.host.as_str().len() + command.len() + 32);
        prefix.push_str(&self.root);
        prefix.push('.');
        push_node(&mut prefix, object.host.as_str());
        match &object.service {
            Some(service) => {
                prefix.push_str(".services.");
                push_node(&mut prefix, service.as_str());
                prefix.push('.');
            }
            None => prefix.push_str(".host."),
        }
        push_node(&mut prefix, command);
        prefix
    }
}

/// What the master knows of an object at one result, as Icinga 2's metadata lines tell it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metadata {
    /// 0 to 3 for a service, 0 (up) or 1 (down) for a host.
    pub state: u8,
    /// From 1.
    pub current_attempt: u32,
    /// From 1.
    pub max_check_attempts: u32,
    /// True for a hard state.
    pub hard: bool,
    /// False while everything it depends on is down.
    pub reachable: bool,
    /// Downtimes in effect.
    pub downtime_depth: u32,
    /// 0 none, 1 acknowledged, 2 acknowledged until OK.
    pub acknowledgement: u8,
    /// Seconds from due to started.
    pub latency: f64,
    /// Seconds from started to ended.
    pub execution_time: f64,
}

/// What became of one result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// Lines appended.
    pub lines: u64,
    /// Values no store could take: too great in their base unit, or from before 1970.
    pub dropped: u64,
}

/// Appends the lines of one result: `<prefix>.perfdata.<label>.value <number> <seconds>` and what the options add.
///
/// `at` is the end of the execution and must not lie in the future: carbon takes such points and does not show them.
/// `metadata` is written only if the options ask for it.
pub fn lines(
    out: &mut Vec<u8>,
    prefix: &str,
    metrics: &[Metric],
    at: Timestamp,
    options: Options,
    metadata: Option<&Metadata>,
) -> Written {
    let mut written = Written::default();
    let seconds = at.as_seconds();
    // Carbon stores -1 as now.
    if seconds < 0 {
        written.dropped = u64::try_from(metrics.len()).unwrap_or(u64::MAX);
        return written;
    }
    let ending = format!(" {seconds}\n");
    if let Some(metadata) = metadata.filter(|_| options.metadata) {
        for (name, value) in metadata.fields() {
            line(out, &[prefix, ".metadata.", name], value, &ending);
            written.lines += 1;
        }
    }
    let mut series = String::new();
    for metric in metrics {
        let unit = base_unit(&metric.unit);
        let Some(value) = unit.scale(metric.value) else {
            written.dropped += 1;
            continue;
        };
        series.clear();
        push_label(&mut series, &metric.label);
        line(out, &[prefix, ".perfdata.", &series, ".value"], value, &ending);
        written.lines += 1;
        if !options.thresholds {
            continue;
        }
        let plain = |threshold: Option<Threshold>| threshold.and_then(|threshold| threshold.number());
        for (name, bound) in
            [(".crit", plain(metric.crit)), (".warn", plain(metric.warn)), (".min", metric.min), (".max", metric.max)]
        {
            if let Some(bound) = bound.and_then(|bound| unit.scale(bound)) {
                line(out, &[prefix, ".perfdata.", &series, name], bound, &ending);
                written.lines += 1;
            }
        }
    }
    written
}

impl Metadata {
    fn fields(&self) -> [(&'static str, f64); 9] {
        [
            ("state", f64::from(self.state)),
            ("current_attempt", f64::from(self.current_attempt)),
            ("max_check_attempts", f64::from(self.max_check_attempts)),
            ("state_type", f64::from(u8::from(self.hard))),
            ("reachable", f64::from(u8::from(self.reachable))),
            ("downtime_depth", f64::from(self.downtime_depth)),
            ("acknowledgement", f64::from(self.acknowledgement)),
            ("latency", self.latency),
            ("execution_time", self.execution_time),
        ]
    }
}

fn line(out: &mut Vec<u8>, name: &[&str], value: f64, ending: &str) {
    name.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
    out.push(b' ');
    push_number(out, value);
    out.extend_from_slice(ending.as_bytes());
}

/// The shortest text that reads back as the same number, without an exponent: old tools do not know one.
fn push_number(out: &mut Vec<u8>, value: f64) {
    const EXACT_INTEGER: f64 = 9_007_199_254_740_992.0;
    // Writing into a vector cannot fail.
    let _ = if value.fract() == 0.0 && value.abs() < EXACT_INTEGER {
        #[expect(clippy::cast_possible_truncation, reason = "a whole number below 2^53")]
        let whole = value as i64;
        write!(out, "{whole}")
    } else {
        write!(out, "{value}")
    };
}

fn push_escaped(text: &mut String, letter: char) {
    let unsafe_in_a_name = matches!(letter, '\\' | '/' | ';') || letter.is_whitespace() || letter.is_control();
    text.push(if unsafe_in_a_name { '_' } else { letter });
}

/// One node: a dot would open another.
fn push_node(text: &mut String, name: &str) {
    name.chars().for_each(|letter| push_escaped(text, if letter == '.' { '_' } else { letter }));
}

/// A label may hold several nodes: `::` becomes a dot, and dots stay.
fn push_label(text: &mut String, label: &str) {
    for (number, part) in label.split("::").enumerate() {
        if number > 0 {
            text.push('.');
        }
        part.chars().for_each(|letter| push_escaped(text, letter));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::perfdata::{parse, split_output};

    fn text(prefix: &str, perfdata: &str, options: Options) -> String {
        let mut out = Vec::new();
        lines(&mut out, prefix, &parse(perfdata).metrics, Timestamp::from_millis(1_700_000_000_999), options, None);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_host_and_its_service_are_named_as_icinga_names_them() {
        let naming = Naming::default();
        let object = |name: &str| name.parse::<ObjectName>().unwrap();
        assert_eq!(
            naming.object_prefix(&object(r"web-01.example.com/a b!disk C:\ a=b,c"), "pd cmd.x"),
            "icinga2.web-01_example_com_a_b.services.disk_C:__a=b,c.pd_cmd_x"
        );
        assert_eq!(naming.object_prefix(&object("web-01"), "hostalive"), "icinga2.web-01.host.hostalive");
        assert_eq!(
            Naming::new("site one.icinga2").object_prefix(&object("a;b"), "c\u{a0}d"),
            "site_one.icinga2.a_b.host.c_d",
            "what carbon would cut at"
        );
    }

    #[test]
    fn numbers_are_exact_and_have_no_exponent() {
        for (value, expected) in [
            (0.0, "0"),
            (-0.0, "0"),
            (7.0, "7"),
            (-3.25, "-3.25"),
            (0.1, "0.1"),
            (1e-7, "0.0000001"),
            (1e18, "1000000000000000000"),
            (1.5e19, "15000000000000000000"),
            (0.333_333_333_333_333, "0.333333333333333"),
            (123_456_789.0, "123456789"),
            (f64::MIN_POSITIVE, &format!("{}", f64::MIN_POSITIVE)),
        ] {
            let mut out = Vec::new();
            push_number(&mut out, value);
            let written = String::from_utf8(out).unwrap();
            assert_eq!(written, expected);
            assert_eq!(written.parse::<f64>().unwrap(), value);
            assert!(!written.contains('e'));
        }
    }

    #[test]
    fn thresholds_come_unless_switched_off_and_ranges_never() {
        let off = Options { thresholds: false, metadata: false };
        assert_eq!(text("p", "a=1;2;3;0;9", off), "p.perfdata.a.value 1 1700000000\n");
        assert_eq!(
            text("p", "a=1ms;2;3:4;0;9", Options::default()),
            "p.perfdata.a.value 0.001 1700000000\np.perfdata.a.warn 0.002 1700000000\n\
             p.perfdata.a.min 0 1700000000\np.perfdata.a.max 0.009 1700000000\n"
        );
    }

    #[test]
    fn no_label_can_end_a_line_or_add_a_word() {
        let hostile = "'a b\u{b}c\u{2003}d\u{85}e;f'=1";
        assert_eq!(text("p", hostile, Options::default()), "p.perfdata.a_b_c_d_e_f.value 1 1700000000\n");
    }

    #[test]
    fn what_no_store_could_take_is_dropped_and_counted() {
        let mut out = Vec::new();
        let metrics = parse("a=1e300YB b=2").metrics;
        let written = lines(&mut out, "p", &metrics, Timestamp::from_millis(1_000), Options::default(), None);
        assert_eq!(written, Written { lines: 1, dropped: 1 });
        assert_eq!(out, b"p.perfdata.b.value 2 1\n");

        let before_1970 = lines(&mut out, "p", &metrics, Timestamp::from_millis(-1), Options::default(), None);
        assert_eq!(before_1970, Written { lines: 0, dropped: 2 });
    }

    /// What a real Icinga 2 wrote to Graphite for one result; see the head of the file.
    const GOLDEN: &str = include_str!("../../../tests/testdata/icinga2-perfdata-golden.txt");

    fn section(title: &str) -> impl Iterator<Item = &'static str> {
        GOLDEN.lines().skip_while(move |line| !line.starts_with(title)).skip(1).take_while(|line| !line.is_empty())
    }

    /// Lines of ours whose number is not Icinga's text, by the last nodes of their names: Icinga's number and ours.
    const MORE_EXACT: [(&str, &str, &str); 9] = [
        ("load1.value", "1.500000", "1.5"),
        ("time.value", "0.012445", "0.012445"),
        ("time.max", "0.010000", "0.01"),
        ("tiny.value", "0.000000", "0.0000001"),
        ("neg.value", "-3.250000", "-3.25"),
        ("quoted.value", "0.100000", "0.1"),
        ("third.value", "0.333333", "0.333333333333333"),
        ("metadata.latency", "SECONDS", "0.25"),
        ("metadata.execution_time", "SECONDS", "0.5"),
    ];

    fn compare(object: &str, title: &str, metadata: &Metadata) -> usize {
        let output = GOLDEN.lines().find(|line| line.starts_with("OK - text |")).unwrap();
        let metrics = parse(&split_output(output).perfdata).metrics;
        let prefix = Naming::default().object_prefix(&object.parse().unwrap(), "pd cmd.x");
        let options = Options { thresholds: true, metadata: true };
        let mut out = Vec::new();
        lines(&mut out, &prefix, &metrics, Timestamp::from_millis(1_700_000_000_999), options, Some(metadata));
        let ours = String::from_utf8(out).unwrap();
        let mut compared = 0;
        for (golden, ours) in section(title).zip(ours.lines()) {
            let golden: Vec<&str> = golden.split(' ').collect();
            let ours: Vec<&str> = ours.split(' ').collect();
            assert_eq!(ours[0], golden[0]);
            assert_eq!((golden[2], ours[2]), ("TS", "1700000000"));
            match MORE_EXACT.iter().find(|(name, ..)| golden[0].ends_with(&format!(".{name}"))) {
                Some((name, theirs, exact)) => assert_eq!((golden[1], ours[1]), (*theirs, *exact), "{name}"),
                None => assert_eq!(ours[1], golden[1], "{}", golden[0]),
            }
            compared += 1;
        }
        if title == "[graphite service]" {
            assert_eq!(section(title).count(), ours.lines().count(), "no line more, no line less");
        }
        compared
    }

    #[test]
    fn lines_equal_icingas_number_text_aside() {
        let service = Metadata {
            state: 1,
            current_attempt: 2,
            max_check_attempts: 3,
            hard: false,
            reachable: true,
            downtime_depth: 0,
            acknowledgement: 0,
            latency: 0.25,
            execution_time: 0.5,
        };
        assert_eq!(compare(r"web-01.example.com/a b!disk C:\ a=b,c", "[graphite service]", &service), 47);
        let host = Metadata { state: 0, current_attempt: 1, hard: true, ..service };
        assert_eq!(compare("web-01.example.com/a b", "[graphite host", &host), 12);
    }
}
