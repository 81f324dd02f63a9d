//! What a built-in answers: a state, a text of one line or more, performance data. Decides which of two states is worse and how
//! figures are written; knows nothing of what was measured.
//! The surprise: names that come from the system (paths, processes, units) may hold anything; what would end the text or a
//! label is replaced.

use shared::check::State;
use shared::perfdata::{LABEL_LIMIT, METRICS_LIMIT};
use shared::text::is_obeyed;

use super::limit::Limits;

/// What a built-in answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// OK, WARNING, CRITICAL or UNKNOWN.
    pub state: State,
    /// Text in the style of the Monitoring Plugins, performance data behind `|`. No line feed at the end.
    pub text: String,
}

impl Answer {
    /// It could not be found out; `text` says why.
    #[must_use]
    pub fn unknown(text: String) -> Self {
        Self { state: State::Unknown, text }
    }
}

/// The worse of two states, as the Monitoring Plugins order them (`max_state_alt`): OK, UNKNOWN, WARNING, CRITICAL.
#[must_use]
pub fn worse(one: State, other: State) -> State {
    let weight = |state| match state {
        State::Pending | State::Ok | State::Up => 0,
        State::Unknown => 1,
        State::Warning => 2,
        State::Critical | State::Down => 3,
    };
    if weight(other) > weight(one) { other } else { one }
}

/// A name from the system, fit for a text: no bar, nothing that controls a terminal.
#[must_use]
pub fn plain(name: &str) -> String {
    name.chars().map(|letter| if letter == '|' || is_obeyed(letter) { '?' } else { letter }).collect()
}

/// A number as performance data has it: at most three decimals, no exponent. What is no number becomes `U`.
#[must_use]
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "U".to_owned();
    }
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// Bytes as people read them: `33.1 GiB`.
#[must_use]
pub fn bytes(value: f64) -> String {
    let mut value = value;
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
        if value.abs() < 1024.0 {
            return if unit == "B" { format!("{value:.0} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} PiB")
}

/// Performance data, built item by item. At most [`METRICS_LIMIT`] items: a reader would drop the rest.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    items: Vec<String>,
}

impl Figures {
    /// Adds `label=value;warning;critical;minimum;maximum`. `limits` are already text.
    pub fn add(
        &mut self,
        label: &str,
        value: f64,
        unit: &str,
        limits: [String; 2],
        min: Option<f64>,
        max: Option<f64>,
    ) {
        if self.items.len() >= METRICS_LIMIT {
            return;
        }
        let [warning, critical] = limits;
        let bound = |bound: Option<f64>| bound.map(number).unwrap_or_default();
        let item =
            format!("{}={}{unit};{warning};{critical};{};{}", quoted(label), number(value), bound(min), bound(max));
        self.items.push(item.trim_end_matches(';').to_owned());
    }

    /// The same for a figure that limits apply to; percentages of them are of `whole`.
    pub fn judged(&mut self, label: &str, value: f64, unit: &str, limits: &Limits, whole: f64, max: Option<f64>) {
        self.add(label, value, unit, limits.shown(whole), Some(0.0), max);
    }

    /// The answer: the text, then these figures.
    #[must_use]
    pub fn answer(self, state: State, text: &str) -> Answer {
        let text = match self.items.is_empty() {
            true => text.to_owned(),
            false => format!("{text}|{}", self.items.join(" ")),
        };
        Answer { state, text }
    }

    /// The answer of a text with further lines: figures stand at the end of the first.
    #[must_use]
    pub fn answer_lines(self, state: State, first: &str, further: &[String]) -> Answer {
        let mut answer = self.answer(state, first);
        for line in further {
            answer.text.push('\n');
            answer.text.push_str(line);
        }
        answer
    }
}

/// A label may hold anything but `=` and `'` (guidelines, "Performance data"); with blanks it is quoted. Too long a one is cut.
fn quoted(label: &str) -> String {
    let fit = |letter: char| match letter {
        '=' | '\'' => '_',
        letter => letter,
    };
    let label: String = plain(label).chars().map(fit).collect();
    let end = (0..=label.len().min(LABEL_LIMIT)).rev().find(|end| label.is_char_boundary(*end)).unwrap_or(0);
    let label = label[..end].trim();
    // `a::b` would prefix every later label in Icinga's reading.
    let label = label.replace("::", ":_");
    if label.is_empty() || label.contains(char::is_whitespace) { format!("'{label}'") } else { label }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use shared::perfdata::{parse, split_output};

    #[test]
    fn critical_is_worse_than_warning_than_unknown_than_ok() {
        let order = [State::Ok, State::Unknown, State::Warning, State::Critical];
        for (at, one) in order.iter().enumerate() {
            for (above, other) in order.iter().enumerate() {
                assert_eq!(worse(*one, *other), order[at.max(above)]);
            }
        }
    }

    #[test]
    fn numbers_have_no_exponent_and_no_idle_zeros() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (-0.0001, "0"),
            (1.5, "1.5"),
            (100.0, "100"),
            (2.1300001, "2.13"),
            (1e15, "1000000000000000"),
            (f64::NAN, "U"),
            (f64::INFINITY, "U"),
        ] {
            assert_eq!(number(value), text);
        }
        for (value, text) in
            [(0.0, "0 B"), (1023.0, "1023 B"), (1536.0, "1.5 KiB"), (3.5e13, "31.8 TiB"), (1e18, "888.2 PiB")]
        {
            assert_eq!(bytes(value), text);
        }
    }

    #[test]
    fn figures_are_read_back_as_they_were_meant() {
        let mut figures = Figures::default();
        figures.add("load1", 1.5, "", ["5".into(), "@1:2".into()], Some(0.0), None);
        figures.add("/var/lib log", 2048.0, "B", [String::new(), String::new()], Some(0.0), Some(4096.0));
        figures.add("it's a=b|c\n", 3.0, "%", [String::new(), String::new()], None, None);
        figures.add("a::b", 1.0, "c", [String::new(), String::new()], None, None);
        let answer = figures.answer_lines(State::Ok, "OK - fine", &["further".to_owned()]);
        assert_eq!(
            answer.text,
            "OK - fine|load1=1.5;5;@1:2;0 '/var/lib log'=2048B;;;0;4096 'it_s a_b?c?'=3% a:_b=1c\nfurther"
        );
        let output = split_output(&answer.text);
        assert_eq!((output.output.as_str(), output.long_output.as_str()), ("OK - fine", "further"));
        let parsed = parse(&output.perfdata);
        assert_eq!((parsed.metrics.len(), parsed.dropped), (4, 0));
        assert_eq!(parsed.metrics[1].label, "/var/lib log");
        assert_eq!(parsed.metrics[1].max, Some(4096.0));
    }

    #[test]
    fn no_more_figures_than_a_reader_takes() {
        let mut figures = Figures::default();
        for at in 0..METRICS_LIMIT + 9 {
            figures.add(&format!("m{at}"), 1.0, "", [String::new(), String::new()], None, None);
        }
        let parsed = parse(&split_output(&figures.answer(State::Ok, "OK").text).perfdata);
        assert_eq!((parsed.metrics.len(), parsed.dropped), (METRICS_LIMIT, 0));
    }

    proptest! {
        #[test]
        fn any_name_gives_one_figure(name in ".{0,300}", value in proptest::num::f64::ANY) {
            let mut figures = Figures::default();
            figures.add(&name, value, "B", [String::new(), String::new()], Some(0.0), None);
            figures.add("last", 1.0, "", [String::new(), String::new()], None, None);
            let text = figures.answer(State::Ok, &plain(&name)).text;
            prop_assert_eq!(text.lines().count(), 1);
            let perfdata = &text[text.find('|').unwrap() + 1..];
            let parsed = parse(perfdata);
            prop_assert_eq!(parsed.metrics.last().map(|metric| metric.label.as_str()), Some("last"));
            prop_assert_eq!(parsed.metrics.len(), if value.is_finite() { 2 } else { 1 });
        }
    }
}
