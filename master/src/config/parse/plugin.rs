//! `plugin: [check_http, -H, "{{ host.address }}"]` and `env` beside it → raw. A plugin is a list of words; a line that wants to be
//! taken apart is a mistake, because nobody here knows a shell's rules.

use super::{Kind, Parser};
use crate::config::diagnostic::At;
use crate::config::raw::RawProbe;
use crate::config::yaml::{self, Node};

impl Parser<'_> {
    pub(super) fn plugin(&mut self, kind: &Kind<'_>, value: &Node) -> Option<RawProbe> {
        self.takes_no_args(kind, "write them behind the plugin, in its own list: plugin: [check_http, -H, a.example]");
        let argv = match &value.kind {
            yaml::Kind::Scalar { text, .. } if !value.is_null() => {
                let words: Vec<String> = words(text).iter().map(|word| quoted(word)).collect();
                let message = "`plugin` must be a list of words: there is no shell that would take a line apart";
                self.findings.error(value.place, message, format!("write plugin: [{}]", words.join(", ")));
                return None;
            }
            yaml::Kind::List(items) if !items.is_empty() => {
                let words = self.fields().texts(value, "plugin");
                (words.len() == items.len()).then_some(words)?
            }
            yaml::Kind::Map(_) => {
                let hint = "write plugin: [check_http, -H, a.example], and env: { NAME: value } beside it";
                self.findings.error(value.place, "`plugin` must be a list of words, and this is a mapping", hint);
                return None;
            }
            _ => {
                let hint = "write plugin: [check_http, -H, \"{{ host.address }}\"]";
                self.findings.error(kind.place, "`plugin` does not say which program to run", hint);
                return None;
            }
        };
        let mut environment = Vec::new();
        if let Some((_, node)) = kind.env {
            for (key, node) in self.fields().entries(node, "`env`") {
                let name = At::new(key.text.clone(), key.place);
                environment.push((name, self.fields().text(node, &key.text)?));
            }
        }
        Some(RawProbe::Plugin { argv, environment })
    }
}

/// The words of a line, of which a `{{ … }}` is never taken apart.
fn words(line: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut open = false;
    for part in line.split_whitespace() {
        match words.last_mut().filter(|_| open) {
            Some(word) => {
                word.push(' ');
                word.push_str(part);
            }
            None => words.push(part.to_owned()),
        }
        open = words.last().is_some_and(|word| word.matches("{{").count() > word.matches("}}").count());
    }
    words
}

/// A word as YAML can have it within `[ ]`.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '%');
    if word.chars().all(plain) { word.to_owned() } else { format!("{word:?}") }
}
