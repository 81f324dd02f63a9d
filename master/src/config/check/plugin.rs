//! The words of a plugin for one host: each template becomes exactly one word, and what no system could run is said here.

use std::collections::BTreeMap;

use shared::check::PluginCheck;

use super::{Problem, fill};
use crate::config::diagnostic::{At, Place};
use crate::config::expression::{Scope, Template};

/// Bytes of all words and variables of one check. The system takes more, but an assignment is held in memory and sent whole.
pub(super) const PLUGIN_BYTES: usize = 32 * 1024;

/// The check of one host; `None` if it cannot run, which is then in `problems`.
pub(super) fn fill_plugin(
    argv: &[At<Template>],
    environment: &[(At<String>, At<Template>)],
    scope: &Scope,
    problems: &mut Vec<Problem>,
) -> Option<PluginCheck> {
    let before = problems.len();
    let words: Vec<Option<String>> = argv.iter().map(|word| fill(&word.value, word.place, scope, problems)).collect();
    let mut variables = BTreeMap::new();
    for (name, value) in environment {
        let text = fill(&value.value, value.place, scope, problems)?;
        no_nul(&text, "a variable", value.place, problems);
        variables.insert(name.value.clone(), text);
    }
    let words = words.into_iter().collect::<Option<Vec<String>>>()?;
    let place = argv.first().map(|word| word.place).unwrap_or_default();
    check_program(words.first().map_or("", String::as_str), place, problems);
    for (text, word) in words.iter().zip(argv) {
        no_nul(text, "an argument", word.place, problems);
    }
    let lengths = words.iter().map(String::len).chain(variables.iter().map(|(name, value)| name.len() + value.len()));
    let bytes: usize = lengths.sum();
    if bytes > PLUGIN_BYTES {
        let message = format!("the plugin's words have {bytes} bytes; at most {PLUGIN_BYTES} fit");
        problems.push(Problem::fatal(place, message, "put what is long into a file beside the plugin"));
    }
    let broken = problems.iter().skip(before).any(|problem| problem.fatal);
    (!broken).then_some(PluginCheck { argv: words, environment: variables })
}

fn check_program(program: &str, place: Place, problems: &mut Vec<Problem>) {
    if program.trim().is_empty() {
        let hint = "as in plugin: [check_http, -H, a.example]";
        problems.push(Problem::fatal(place, "the name of the plugin is empty", hint));
    } else if program.contains('/') && !program.starts_with('/') {
        let message = format!("`{program}` is neither the name of a plugin nor a whole path");
        let hint = "a name without / is looked for in the satellite's plugin directories; a path begins with /";
        problems.push(Problem::fatal(place, message, hint));
    } else if program.contains(char::is_whitespace) {
        let message = format!("the name of the plugin has a space in it: “{}”", program.escape_debug());
        let hint = "every argument is a word of its own: plugin: [check_http, -H, a.example]".to_owned();
        problems.push(Problem::warning(place, message, hint));
    }
}

fn no_nul(text: &str, what: &str, place: Place, problems: &mut Vec<Problem>) {
    if text.contains('\0') {
        let message = format!("{what} of a plugin must not contain \\0");
        problems.push(Problem::fatal(place, message, "take it out: the system would end the word there"));
    }
}
