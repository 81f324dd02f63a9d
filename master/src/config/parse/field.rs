//! One value of one type out of a node, or a diagnostic that says what stands there instead. Knows no object.

use std::ops::RangeInclusive;
use std::time::Duration;

use shared::time::Interval;

use crate::config::diagnostic::{At, Findings, did_you_mean_or};
use crate::config::yaml::{Key, Kind, Node};

/// Keys that belong to Perigee but not to this version.
pub type Later = &'static [&'static str];

/// Reads values and collects what is wrong with them.
pub struct Fields<'a> {
    /// Where mistakes go.
    pub findings: &'a mut Findings,
}

impl Fields<'_> {
    /// The pairs of a mapping; none if nothing stands there.
    pub fn entries<'n>(&mut self, node: &'n Node, what: &str) -> &'n [(Key, Node)] {
        match &node.kind {
            Kind::Map(entries) => entries,
            _ if node.is_null() => &[],
            _ => {
                let message = format!("{what} must be a mapping (key: value), and this is {}", node.describe());
                self.findings.error(node.place, message, "write its keys below it, indented, or { key: value }");
                &[]
            }
        }
    }

    /// Whether [`Self::entries`] complains about this node.
    pub fn is_wrong_type(&self, node: &Node) -> bool {
        !matches!(node.kind, Kind::Map(_)) && !node.is_null()
    }

    /// Whether the node is a mapping.
    pub fn is_mapping(node: &Node) -> bool {
        matches!(node.kind, Kind::Map(_))
    }

    /// The text of a scalar that is not empty.
    pub fn bare_word<'n>(&self, node: &'n Node) -> Option<&'n str> {
        match &node.kind {
            Kind::Scalar { text, .. } if !node.is_null() => Some(text),
            _ => None,
        }
    }

    /// Whether the node is this word.
    pub fn is_word(&self, node: &Node, word: &str) -> bool {
        self.bare_word(node) == Some(word)
    }

    /// A key that is not known here.
    pub fn unknown(&mut self, key: &Key, what: &str, known: &[&str], later: Later) {
        let text = &key.text;
        if later.contains(&text.as_str()) {
            let hint = "take it out; everything else works without it".to_owned();
            return self.findings.error(key.place, format!("`{text}` is not in this version"), hint);
        }
        self.findings.error(
            key.place,
            format!("unknown {what}: `{text}`"),
            did_you_mean_or(text, known.iter().copied(), "take it out"),
        );
    }

    fn wrong(&mut self, node: &Node, key: &str, wanted: &str, hint: impl Into<String>) {
        let message = match &node.kind {
            Kind::Scalar { text, .. } if !node.is_null() && text.chars().count() <= 40 => {
                format!("`{key}` must be {wanted}, and this is “{}”", text.escape_debug())
            }
            _ => format!("`{key}` must be {wanted}, and this is {}", node.describe()),
        };
        self.findings.error(node.place, message, hint);
    }

    /// A text. Numbers and truth values are taken as they were written.
    pub fn text(&mut self, node: &Node, key: &str) -> Option<At<String>> {
        match self.bare_word(node) {
            Some(text) => Some(At::new(text.to_owned(), node.place)),
            None => {
                let hint = match node.kind {
                    Kind::Map(_) => "a text that begins with { needs quotes",
                    _ => "write one text behind the colon",
                };
                self.wrong(node, key, "a text", hint);
                None
            }
        }
    }

    /// A list of texts.
    pub fn texts(&mut self, node: &Node, key: &str) -> Vec<At<String>> {
        match &node.kind {
            Kind::List(items) => items.iter().filter_map(|item| self.text(item, key)).collect(),
            _ if node.is_null() => Vec::new(),
            Kind::Scalar { text, .. } => {
                self.wrong(node, key, "a list", format!("write [{text}]"));
                Vec::new()
            }
            Kind::Map(_) => {
                self.wrong(node, key, "a list", format!("as in {key}: [a, b]"));
                Vec::new()
            }
        }
    }

    /// A whole number within bounds.
    pub fn integer(&mut self, node: &Node, key: &str, bounds: RangeInclusive<u64>) -> Option<At<u64>> {
        let plain = matches!(node.kind, Kind::Scalar { plain: true, .. });
        let number = self.bare_word(node).filter(|text| plain && text.bytes().all(|byte| byte.is_ascii_digit()));
        match number.and_then(|text| text.parse().ok()).filter(|number| bounds.contains(number)) {
            Some(number) => Some(At::new(number, node.place)),
            None => {
                let hint = match self.bare_word(node) {
                    Some(text) if !plain && text.parse::<u64>().is_ok() => {
                        "a number is written without quotes".to_owned()
                    }
                    _ => format!("as in {key}: {}", bounds.start().max(&1)),
                };
                self.wrong(node, key, &format!("a whole number from {} to {}", bounds.start(), bounds.end()), hint);
                None
            }
        }
    }

    /// `true` or `false`.
    pub fn truth(&mut self, node: &Node, key: &str) -> Option<At<bool>> {
        match node.to_json() {
            serde_json::Value::Bool(truth) => Some(At::new(truth, node.place)),
            _ => {
                self.wrong(node, key, "true or false", "only these two words, without quotes");
                None
            }
        }
    }

    /// A duration with its unit, within bounds.
    pub fn interval(&mut self, node: &Node, key: &str, (least, most): (Duration, Duration)) -> Option<At<Duration>> {
        let Some(text) = self.bare_word(node) else {
            self.wrong(node, key, "a duration", "write 30s, 1m or 1m30s".to_owned());
            return None;
        };
        match text.parse::<Interval>() {
            Ok(Interval(duration)) if (least..=most).contains(&duration) => Some(At::new(duration, node.place)),
            Ok(_) => {
                let wanted = format!("between {} and {}", Interval(least), Interval(most));
                self.wrong(
                    node,
                    key,
                    &wanted,
                    format!("as in {key}: {}", Interval(least.max(Duration::from_secs(30)))),
                );
                None
            }
            Err(_) => {
                let number = text.bytes().all(|byte| byte.is_ascii_digit());
                let hint = if number {
                    format!("write {text}s for seconds")
                } else {
                    "write 30s, 1m, 1m30s or 250ms".to_owned()
                };
                self.wrong(node, key, "a duration with its unit", hint);
                None
            }
        }
    }

    /// One of some words.
    pub fn word<T: Copy>(&mut self, node: &Node, key: &str, words: &[(&str, T)]) -> Option<At<T>> {
        let text = self.bare_word(node).unwrap_or_default();
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(At::new(*value, node.place));
        }
        let list: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let hint = did_you_mean_or(text, list.iter().copied(), "choose one of these words");
        self.wrong(node, key, &format!("one of {}", list.join(", ")), hint);
        None
    }
}
