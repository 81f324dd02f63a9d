//! What is wrong with a configuration, said so that it can be mended: file, line, column, message, hint, and the line itself.
//!
//! Collects everything before anything is shown, sorts by place, says one thing once. Knows no rule of the configuration.
//! The surprise: a diagnostic carries its own line of source, so that whoever receives it needs no file to show it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::Serialize;

use super::source::Sources;

/// Most diagnostics one compilation names; what is beyond is counted in a last one.
pub const DIAGNOSTICS_MAX: usize = 1_000;
/// Longest piece of a source line shown, in characters; a longer line is shown around its mistake.
const EXCERPT_CHARS: usize = 120;

/// A stretch of a configuration file. Lines and columns count from 1, columns and length in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Place {
    /// Index of the file in its `Sources`.
    pub file: usize,
    /// Line, from 1; 0 means the file as a whole.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
    /// How many characters are meant, at least 1 when drawn.
    pub length: u32,
}

/// A value and where it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub place: Place,
}

impl<T> At<T> {
    /// A value at a place.
    pub fn new(value: T, place: Place) -> Self {
        Self { value, place }
    }
}

/// Whether a configuration with this can be activated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can, but it may not do what was meant.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One mistake or warning, complete in itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The file as it was named, relative to the configuration's directory.
    pub file: String,
    /// Line, from 1; 0 means the file as a whole.
    pub line: u32,
    /// Column, from 1, in characters; 0 with line 0.
    pub column: u32,
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// What to do about it, if that can be said.
    pub hint: Option<String>,
    #[serde(skip)]
    length: u32,
    #[serde(skip)]
    source_line: Option<String>,
}

impl Diagnostic {
    /// A mistake about a path as a whole.
    #[must_use]
    pub fn of_path(path: &std::path::Path, message: String) -> Self {
        let file = path.display().to_string();
        let severity = Severity::Error;
        Self { file, line: 0, column: 0, severity, message, hint: None, length: 0, source_line: None }
    }

    /// The diagnostic as a person reads it: message, place, the line with a caret below, hint. Ends with a line feed.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = format!("{}: {}\n", self.severity.as_str(), self.message);
        let width = self.line.to_string().len().max(1);
        if self.line == 0 {
            let _ = writeln!(out, "{:width$}--> {}", "", self.file);
        } else {
            let _ = writeln!(out, "{:width$}--> {}:{}:{}", "", self.file, self.line, self.column);
        }
        if let Some(line) = &self.source_line {
            let (excerpt, start) = excerpt(line, self.column);
            let left = (self.column.saturating_sub(1) as usize).saturating_sub(start);
            let room = excerpt.chars().count().saturating_sub(left).max(1);
            let carets = (self.length.max(1) as usize).min(room);
            let _ = writeln!(out, "{:width$} |", "");
            let _ = writeln!(out, "{} | {}", self.line, excerpt);
            let _ = writeln!(out, "{:width$} | {}{}", "", " ".repeat(left), "^".repeat(carets));
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(out, "{:width$} = hint: {hint}", "");
        }
        out
    }
}

/// At most `EXCERPT_CHARS` of the line, around the column, with control characters made visible as `?` (a terminal must not obey
/// a configuration file). Second: how many characters of the line were left out in front.
fn excerpt(line: &str, column: u32) -> (String, usize) {
    let chars: Vec<char> = line.chars().map(|c| if c == '\t' { ' ' } else { c }).collect();
    let at = (column.saturating_sub(1) as usize).min(chars.len());
    let start = if chars.len() <= EXCERPT_CHARS { 0 } else { at.saturating_sub(EXCERPT_CHARS / 2) };
    let end = (start + EXCERPT_CHARS).min(chars.len());
    let text =
        chars.get(start..end).unwrap_or_default().iter().map(|c| if c.is_control() { '?' } else { *c }).collect();
    (text, start)
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    place: Place,
    severity: Severity,
    message: String,
    hint: Option<String>,
}

/// [`did_you_mean`], or other advice where there is nothing to offer.
pub fn did_you_mean_or<'a>(
    wrong: &str,
    candidates: impl IntoIterator<Item = &'a str> + Clone,
    otherwise: &str,
) -> String {
    did_you_mean(wrong, candidates).unwrap_or_else(|| otherwise.to_owned())
}

/// Everything found so far.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    items: BTreeSet<Finding>,
}

impl Findings {
    /// A mistake: the configuration cannot be activated. It always comes with advice.
    pub fn error(&mut self, place: Place, message: impl Into<String>, hint: impl Into<String>) {
        self.add(place, Severity::Error, message.into(), Some(hint.into()));
    }

    /// Something allowed that may not do what was meant.
    pub fn warning(&mut self, place: Place, message: impl Into<String>, hint: impl Into<Option<String>>) {
        self.add(place, Severity::Warning, message.into(), hint.into());
    }

    fn add(&mut self, place: Place, severity: Severity, message: String, hint: Option<String>) {
        self.items.insert(Finding { place, severity, message, hint });
    }

    /// Takes over what another collection holds.
    pub fn extend(&mut self, other: Findings) {
        self.items.extend(other.items);
    }

    /// Whether there is a mistake among them.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.items.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// All of them in the order of file, line and column. Beyond `DIAGNOSTICS_MAX` the rest is one line that counts them; errors
    /// are kept before warnings.
    #[must_use]
    pub fn into_diagnostics(self, sources: &Sources) -> Vec<Diagnostic> {
        let total = self.items.len();
        let mut kept: Vec<Finding> = self.items.into_iter().collect();
        if total > DIAGNOSTICS_MAX {
            kept.sort_by_key(|finding| finding.severity);
            kept.truncate(DIAGNOSTICS_MAX);
            kept.sort();
        }
        let rest = total.saturating_sub(kept.len());
        let mut diagnostics: Vec<Diagnostic> = kept
            .into_iter()
            .map(|Finding { place, severity, message, hint }| Diagnostic {
                file: sources.file_name(place.file).to_owned(),
                line: place.line,
                column: place.column,
                severity,
                message,
                hint,
                length: place.length,
                source_line: sources.line(place.file, place.line).map(str::to_owned),
            })
            .collect();
        if let Some(last) = diagnostics.last().cloned()
            && rest > 0
        {
            diagnostics.push(Diagnostic {
                severity: Severity::Error,
                message: format!("{rest} more mistakes or warnings are not shown"),
                hint: Some("mend these first".to_owned()),
                source_line: None,
                ..last
            });
        }
        diagnostics
    }
}

/// The candidate that was probably meant by `wrong`, if one is near enough: distance 1 for short words, up to a third of the
/// length for longer ones, or the candidate that has all its words (`max_attempts`, `max_check_attempts`).
#[must_use]
pub fn nearest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = wrong.chars().count();
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let distance = strsim::damerau_levenshtein(wrong, candidate);
            let near = distance <= 1.max(length / 3) && distance < candidate.chars().count();
            let part = length >= 4 && wrong.split('_').all(|word| candidate.split('_').any(|known| known == word));
            (near || part).then_some((distance, candidate))
        })
        .min()
        .map(|(_, candidate)| candidate)
}

/// “did you mean …?” for a word, or the list of what is possible if nothing is near and the list is short.
#[must_use]
pub fn did_you_mean<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str> + Clone) -> Option<String> {
    if let Some(near) = nearest(wrong, candidates.clone()) {
        return Some(format!("did you mean `{near}`?"));
    }
    let all: Vec<&str> = candidates.into_iter().take(25).collect();
    if all.is_empty() || all.len() > 24 {
        return None;
    }
    Some(format!("possible here: {}", all.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_under_the_mistake() {
        let sources = Sources::from_texts([("a.yaml", "hosts:\n  web: { intervall: 1m }\n")]);
        let mut findings = Findings::default();
        let place = Place { file: 0, line: 2, column: 10, length: 9 };
        findings.error(place, "unknown key `intervall`", "did you mean `interval`?");
        findings.error(place, "unknown key `intervall`", "did you mean `interval`?");
        let all = findings.into_diagnostics(&sources);
        assert_eq!(all.len(), 1, "one thing is said once");
        let text = all[0].render();
        assert_eq!(
            text,
            "error: unknown key `intervall`\n --> a.yaml:2:10\n  |\n2 |   web: { intervall: 1m }\n  |          ^^^^^^^^^\n  \
             = hint: did you mean `interval`?\n"
        );
    }

    #[test]
    fn long_lines_are_shown_around_the_mistake_and_control_characters_are_not_obeyed() {
        let line = format!("{}\u{1b}[31mX{}", "a".repeat(500), "b".repeat(500));
        let (text, start) = excerpt(&line, 502);
        assert_eq!(text.chars().count(), EXCERPT_CHARS);
        assert!(text.contains("?[31mX") && !text.contains('\u{1b}'), "{text}");
        assert_eq!(start, 501 - EXCERPT_CHARS / 2);
    }

    #[test]
    fn too_many_mistakes_end_in_a_count_and_errors_come_before_warnings() {
        let sources = Sources::from_texts([("a.yaml", "")]);
        let mut findings = Findings::default();
        for line in 0..DIAGNOSTICS_MAX as u32 {
            findings.warning(Place { line, ..Place::default() }, "w", None);
        }
        findings.error(Place { line: 9_999, ..Place::default() }, "e", "h");
        let all = findings.into_diagnostics(&sources);
        assert_eq!(all.len(), DIAGNOSTICS_MAX + 1);
        assert!(all.iter().any(|d| d.message == "e"));
        assert!(all[DIAGNOSTICS_MAX].message.starts_with("1 more"));
    }

    #[test]
    fn the_nearest_word_is_offered_and_a_far_one_is_not() {
        let keys = ["check_interval", "retry_interval", "max_check_attempts", "region"];
        assert_eq!(nearest("chek_interval", keys), Some("check_interval"));
        assert_eq!(nearest("check_intervall", keys), Some("check_interval"));
        assert_eq!(nearest("attempts", keys), Some("max_check_attempts"));
        assert_eq!(nearest("max_attempts", keys), Some("max_check_attempts"));
        assert_eq!(nearest("colour", keys), None);
        assert_eq!(nearest("x", ["y"]), None);
    }
}
