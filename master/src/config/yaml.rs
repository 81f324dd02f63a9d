//! Text → tree: strict YAML, every node with its place, and every mistake of a file rather than the first.
//!
//! Built on the parser of serde-saphyr. A tree of our own is needed because typed deserialization stops at the first mistake and
//! reads `no`, `1.10` or `08:30` as something else than what was written: here a plain scalar keeps its text, and who wants a
//! number asks for one. Rules of YAML 1.2: only `true` and `false` are truth values. Anchors, aliases and `<<` work.
//! The surprise: after a syntax error reading goes on at the next line that begins a top-level key.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_saphyr::granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, Span, StructureStyle};

use super::diagnostic::{Findings, Place};

/// Most nodes of one file, those that aliases repeat included. The library's own default of 250,000 refuses an honest file of
/// 50,000 services; this one stops an alias bomb after some hundred megabytes of memory. Beyond it the rest of the file is not read.
pub const NODES_MAX: usize = 4_000_000;
/// Deepest nesting. Beyond it the rest of the file is not read.
pub const DEPTH_MAX: usize = 64;
const HINT: &str = "an alias repeats a value that is complete before it, in the same file";
/// How often reading goes on after a syntax error in one file.
const RESUMPTIONS_MAX: usize = 50;

/// A value of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub kind: Kind,
}

/// What a value is, before anybody asks for a type.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A scalar: its text, and whether it was written without quotes.
    Scalar {
        /// The text after quotes and escapes.
        text: String,
        /// Written without quotes, so that it may be a number, a truth value or nothing.
        plain: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// A mapping in the order written; keys are distinct.
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The key's text.
    pub text: String,
    /// Where it stands.
    pub place: Place,
}

impl Node {
    /// Whether nothing stands there: no value at all, `~` or `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The kind of value, for messages.
    #[must_use]
    pub fn describe(&self) -> &'static str {
        match &self.kind {
            _ if self.is_null() => "nothing",
            Kind::Scalar { plain: true, text } => match scalar(text) {
                serde_json::Value::Bool(_) => "a truth value",
                serde_json::Value::Number(_) => "a number",
                _ => "a text",
            },
            Kind::Scalar { .. } => "a text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
        }
    }

    /// The value as free-form data (`vars`): numbers and truth values as YAML 1.2 reads them, mappings in the order of their keys.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        match &self.kind {
            Kind::Scalar { text, plain: true } => scalar(text),
            Kind::Scalar { text, plain: false } => serde_json::Value::String(text.clone()),
            Kind::List(items) => serde_json::Value::Array(items.iter().map(Node::to_json).collect()),
            Kind::Map(entries) => {
                // One order for one content, so that the digest of a catalog names what it says and not how it was typed.
                let sorted: BTreeMap<_, _> =
                    entries.iter().map(|(key, value)| (key.text.clone(), value.to_json())).collect();
                serde_json::Value::Object(sorted.into_iter().collect())
            }
        }
    }
}

/// A plain scalar by the core schema of YAML 1.2.
fn scalar(text: &str) -> serde_json::Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return serde_json::Value::Null,
        "true" | "True" | "TRUE" => return serde_json::Value::Bool(true),
        "false" | "False" | "FALSE" => return serde_json::Value::Bool(false),
        _ => {}
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let decimal = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    // A leading zero is a text: `007` is a name, `01234` a post code. YAML 1.1 read such numbers as octal, 1.2 as decimal.
    if decimal && (digits == "0" || !digits.starts_with('0')) {
        if let Ok(number) = text.trim_start_matches('+').parse::<i64>() {
            return number.into();
        }
        return serde_json::Value::String(text.to_owned());
    }
    let floating = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.contains(|c: char| c.is_ascii_digit())
        && digits.contains(['.', 'e', 'E'])
        && digits.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'));
    if floating
        && let Ok(number) = text.parse::<f64>()
        && let Some(number) = serde_json::Number::from_f64(number)
    {
        return number.into();
    }
    serde_json::Value::String(text.to_owned())
}

/// What one file holds.
#[derive(Debug, Default)]
pub struct Document {
    /// The top-level values: one per YAML document, and one more after each syntax error.
    pub roots: Vec<Node>,
    /// The lines from which on a part could not be read, so that names it defines may be missing.
    pub broken: Vec<u32>,
}

/// Reads one file. Never fails: what is wrong stands in `findings`, what could be read in the result.
pub fn read(file: usize, text: &str, findings: &mut Findings) -> Document {
    let mut document = Document::default();
    let mut budget = NODES_MAX;
    let (mut offset, mut first_line) = (0, 0);
    let mut reported_line = 0;
    for resumption in 0..=RESUMPTIONS_MAX {
        let Some(rest) = text.get(offset..) else { break };
        let mut builder = Builder {
            file,
            first_line,
            findings,
            budget: &mut budget,
            stack: Vec::new(),
            roots: &mut document.roots,
            anchors: HashMap::new(),
            resumed: resumption > 0,
        };
        let Err(stop) = builder.run(rest) else { break };
        builder.close_all();
        let line = match stop {
            Stop::Syntax(error) => {
                let line = line_number(error.marker().line(), first_line);
                // Reading that goes on in a line that was wrong stops there again: one mistake, said once.
                if line != reported_line {
                    let column = u32::try_from(error.marker().col()).unwrap_or(0).saturating_add(1);
                    document.broken.push(line);
                    report_syntax(&error, Place { file, line, column, length: 1 }, findings);
                }
                reported_line = line;
                line
            }
            Stop::Limit(place, message) => {
                document.broken.push(place.line);
                findings.error(place, message, "the rest of this file is not read");
                break;
            }
        };
        let Some((next_offset, next_line)) = resume_point(text, line, first_line) else { break };
        (offset, first_line) = (next_offset, next_line);
    }
    document
}

/// Byte offset and index (from 0) of the line where reading can go on: the first at or after `line` (from 1), but after the
/// present start, that begins a key in its first column.
fn resume_point(text: &str, line: u32, first_line: u32) -> Option<(usize, u32)> {
    let mut offset = 0;
    let from = line.saturating_sub(1).max(first_line.saturating_add(1));
    for (index, content) in (0_u32..).zip(text.split_inclusive('\n')) {
        let begins_key = content.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && content.contains(':');
        if index >= from && begins_key {
            return Some((offset, index));
        }
        offset += content.len();
    }
    None
}

fn line_number(line: usize, first_line: u32) -> u32 {
    u32::try_from(line).unwrap_or(u32::MAX).saturating_add(first_line)
}

fn report_syntax(error: &ScanError, place: Place, findings: &mut Findings) {
    let message = error.info();
    let message = if message.contains("did not find expected key") { "bad indentation".to_owned() } else { message };
    let hint = if message.contains("tabs") {
        "indent with spaces; a tab is not allowed there"
    } else if message.contains("indentation") {
        "the indentation fits neither the line above nor an outer level; entries of one mapping begin in the same column"
    } else if message.contains("bracket") || message.contains("flow") || message.contains("placement of ':'") {
        "look for a [, { or quote that is not closed before this place"
    } else if message.contains("mapping values are not allowed") {
        "a text with “: ” in it needs quotes; or the line above lacks its colon or has another indentation"
    } else if message.contains("unexpected character") {
        "a text that begins with @, `, % or another sign with a meaning in YAML needs quotes"
    } else if message.contains("simple key") {
        "a key needs a colon and a space after it"
    } else {
        "the text is not valid YAML from here on"
    };
    findings.error(place, format!("YAML: {message}"), hint.to_owned());
}

enum Stop {
    Syntax(ScanError),
    Limit(Place, String),
}

/// An open collection.
struct Open {
    anchor: usize,
    place: Place,
    style: StructureStyle,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map {
        entries: Vec<(Key, Node)>,
        seen: HashMap<String, Place>,
        /// The key read last, while its value is not there; `None` inside means that the pair is to be left out.
        key: Option<Option<Key>>,
        /// Values of `<<`, nearest first.
        merges: Vec<Node>,
    },
}

struct Builder<'a> {
    file: usize,
    first_line: u32,
    findings: &'a mut Findings,
    budget: &'a mut usize,
    stack: Vec<Open>,
    roots: &'a mut Vec<Node>,
    /// Finished anchored values and their number of nodes.
    anchors: HashMap<usize, (Node, usize)>,
    resumed: bool,
}

impl Builder<'_> {
    fn run(&mut self, text: &str) -> Result<(), Stop> {
        let mut options = Options::default();
        options.set_emit_comments(false);
        options.emit_unresolved_aliases = true;
        for event in Parser::new_from_str_with_options(text, options) {
            let (event, span) = event.map_err(Stop::Syntax)?;
            let place = self.place(&span);
            match event {
                Event::Scalar(text, style, anchor, tag) => {
                    self.check_tag(tag.is_some(), place, &span);
                    self.spend(1, place)?;
                    let kind = Kind::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain };
                    self.finish(Node { place, kind }, anchor, 1);
                }
                Event::SequenceStart(style, anchor, tag) => {
                    self.check_tag(tag.is_some(), place, &span);
                    self.open(anchor, place, style, Content::List(Vec::new()))?;
                }
                Event::MappingStart(style, anchor, tag) => {
                    self.check_tag(tag.is_some(), place, &span);
                    let (entries, seen) = (Vec::new(), HashMap::new());
                    let content = Content::Map { entries, seen, key: None, merges: Vec::new() };
                    self.open(anchor, place, style, content)?;
                }
                Event::SequenceEnd | Event::MappingEnd => self.close(),
                Event::Alias(anchor) => self.repeat(anchor, place)?,
                Event::UnresolvedAlias(name) => {
                    // After a syntax error the anchor may stand in the part that was skipped.
                    if !self.resumed {
                        self.findings.error(place, format!("no anchor `&{name}` comes before this alias"), HINT);
                    }
                    self.finish(Node { place, kind: Kind::Scalar { text: String::new(), plain: true } }, 0, 1);
                }
                // Stream and document marks carry no value.
                _ => {}
            }
        }
        Ok(())
    }

    fn place(&self, span: &Span) -> Place {
        let column = u32::try_from(span.start.col()).unwrap_or(0).saturating_add(1);
        let one_line = span.end.line() == span.start.line();
        let length = if one_line { span.end.col().saturating_sub(span.start.col()) } else { 1 };
        let length = u32::try_from(length).unwrap_or(1).max(1);
        Place { file: self.file, line: line_number(span.start.line(), self.first_line), column, length }
    }

    fn check_tag(&mut self, tagged: bool, mut place: Place, span: &Span) {
        if tagged {
            if let Some(start) = span.tag_start {
                place.line = line_number(start.line(), self.first_line);
                place.column = u32::try_from(start.col()).unwrap_or(0).saturating_add(1);
                place.length = 1;
            }
            let hint = "quotes make a text of a number; nothing else needs a tag here".to_owned();
            self.findings.error(place, "YAML tags (`!…`) are not used in this configuration", hint);
        }
    }

    fn spend(&mut self, nodes: usize, place: Place) -> Result<(), Stop> {
        match self.budget.checked_sub(nodes) {
            Some(rest) => {
                *self.budget = rest;
                Ok(())
            }
            None => Err(Stop::Limit(
                place,
                format!("the file has more than {NODES_MAX} values, those that aliases repeat included"),
            )),
        }
    }

    fn open(&mut self, anchor: usize, place: Place, style: StructureStyle, content: Content) -> Result<(), Stop> {
        self.spend(1, place)?;
        if self.stack.len() >= DEPTH_MAX {
            return Err(Stop::Limit(place, format!("values are nested deeper than {DEPTH_MAX}")));
        }
        self.stack.push(Open { anchor, place, style, content });
        Ok(())
    }

    fn close(&mut self) {
        let Some(Open { anchor, place, content, .. }) = self.stack.pop() else { return };
        let kind = match content {
            Content::List(items) => Kind::List(items),
            Content::Map { mut entries, merges, .. } => {
                self.merge(&mut entries, merges);
                Kind::Map(entries)
            }
        };
        let node = Node { place, kind };
        let nodes = if anchor == 0 { 0 } else { count(&node) };
        self.finish(node, anchor, nodes);
    }

    /// After a syntax error: what was complete is kept. A value in brackets that was not closed is dropped: nobody can tell what
    /// belongs to it.
    fn close_all(&mut self) {
        while self.stack.last().is_some_and(|open| open.style == StructureStyle::Flow) {
            self.stack.pop();
        }
        while !self.stack.is_empty() {
            if let Some(Open { content: Content::Map { key, .. }, .. }) = self.stack.last_mut() {
                *key = None;
            }
            self.close();
        }
    }

    fn repeat(&mut self, anchor: usize, place: Place) -> Result<(), Stop> {
        let Some((node, nodes)) = self.anchors.get(&anchor) else {
            self.findings.error(place, "this alias stands inside the value it repeats", HINT);
            self.finish(Node { place, kind: Kind::Scalar { text: String::new(), plain: true } }, 0, 1);
            return Ok(());
        };
        let (node, nodes) = (node.clone(), *nodes);
        self.spend(nodes, place)?;
        if self.stack.len() + depth(&node) > DEPTH_MAX {
            return Err(Stop::Limit(place, format!("values are nested deeper than {DEPTH_MAX}")));
        }
        self.finish(node, 0, nodes);
        Ok(())
    }

    /// Puts a finished value where it belongs.
    fn finish(&mut self, node: Node, anchor: usize, nodes: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), nodes));
        }
        let Some(open) = self.stack.last_mut() else {
            if !node.is_null() {
                self.roots.push(node);
            }
            return;
        };
        match &mut open.content {
            Content::List(items) => items.push(node),
            Content::Map { entries, seen, key, merges } => match key.take() {
                None => *key = Some(take_key(node, seen, self.findings)),
                Some(Some(name)) if name.text == "<<" => match node.kind {
                    Kind::List(items) => merges.extend(items),
                    _ => merges.push(node),
                },
                Some(Some(name)) => entries.push((name, node)),
                Some(None) => {}
            },
        }
    }

    fn merge(&mut self, entries: &mut Vec<(Key, Node)>, merges: Vec<Node>) {
        if merges.is_empty() {
            return;
        }
        let mut known: HashSet<String> = entries.iter().map(|(key, _)| key.text.clone()).collect();
        for node in merges {
            // Nothing stands for an alias without anchor, which has been named.
            if node.is_null() {
                continue;
            }
            let Kind::Map(others) = node.kind else {
                let hint = "as in <<: *name, where &name stands before a mapping";
                self.findings.error(node.place, "`<<` takes a mapping or a list of mappings", hint);
                continue;
            };
            for (key, value) in others {
                if known.insert(key.text.clone()) {
                    entries.push((key, value));
                }
            }
        }
    }
}

/// The key of a pair, or `None` when it is a mistake and the pair is to be left out.
fn take_key(node: Node, seen: &mut HashMap<String, Place>, findings: &mut Findings) -> Option<Key> {
    let place = node.place;
    let Kind::Scalar { text, .. } = node.kind else {
        let hint = "a value that begins with {{ needs quotes: \"{{ … }}\"".to_owned();
        findings.error(place, "a key must be a text", hint);
        return None;
    };
    if let Some(first) = seen.get(&text) {
        let hint = format!("it stands already in line {}; one of the two must go", first.line);
        findings.error(place, format!("the key `{text}` is written twice"), hint);
        return None;
    }
    seen.insert(text.clone(), place);
    Some(Key { text, place })
}

fn count(node: &Node) -> usize {
    match &node.kind {
        Kind::Scalar { .. } => 1,
        Kind::List(items) => 1 + items.iter().map(count).sum::<usize>(),
        Kind::Map(entries) => 1 + entries.iter().map(|(_, value)| 1 + count(value)).sum::<usize>(),
    }
}

fn depth(node: &Node) -> usize {
    match &node.kind {
        Kind::Scalar { .. } => 0,
        Kind::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Kind::Map(entries) => 1 + entries.iter().map(|(_, value)| depth(value)).max().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::source::Sources;

    fn read_one(text: &str) -> (Document, Vec<String>) {
        let mut findings = Findings::default();
        let document = read(0, text, &mut findings);
        let sources = Sources::from_texts([("f", text)]);
        let said = findings.into_diagnostics(&sources);
        (document, said.into_iter().map(|d| format!("{}:{} {}", d.line, d.column, d.message)).collect())
    }

    fn json(text: &str) -> serde_json::Value {
        let (document, said) = read_one(text);
        assert_eq!(said, Vec::<String>::new());
        document.roots[0].to_json()
    }

    #[test]
    fn scalars_are_what_was_written() {
        let value = json(
            "[no, on, 08:30, 007, 0x10, 1.10.2, '5', 5, -3, 1.5, 1e3, true, null, 99999999999999999999, .inf, 1-2]",
        );
        assert_eq!(
            value,
            serde_json::json!([
                "no",
                "on",
                "08:30",
                "007",
                "0x10",
                "1.10.2",
                "5",
                5,
                -3,
                1.5,
                1000.0,
                true,
                null,
                "99999999999999999999",
                ".inf",
                "1-2"
            ])
        );
    }

    #[test]
    fn anchors_aliases_and_merges_work() {
        let value = json("base: &b {x: 1, y: 2}\nown: {<<: *b, y: 3}\nmany: {<<: [{x: 1}, {x: 2, z: 4}]}\n");
        assert_eq!(value["own"], serde_json::json!({"x": 1, "y": 3}));
        assert_eq!(value["many"], serde_json::json!({"x": 1, "z": 4}));
    }

    #[test]
    fn every_duplicate_key_is_named_and_the_first_stays() {
        let (document, said) = read_one("a: 1\nb: 2\na: 3\nb: 4\n");
        assert_eq!(said, ["3:1 the key `a` is written twice", "4:1 the key `b` is written twice"]);
        assert_eq!(document.roots[0].to_json(), serde_json::json!({"a": 1, "b": 2}));
    }

    #[test]
    fn reading_goes_on_after_a_syntax_error() {
        let (document, said) = read_one("a: {x: 1}\nb:\n  c: 1\n d: 2\ne: 5\nf: @x\ng: 7\n");
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].starts_with("4:2 YAML: "), "{said:?}");
        assert!(said[1].starts_with("6:4 YAML: "), "{said:?}");
        let keys: Vec<String> = document
            .roots
            .iter()
            .filter_map(|root| match &root.kind {
                Kind::Map(entries) => Some(entries.iter().map(|(key, _)| key.text.clone())),
                _ => None,
            })
            .flatten()
            .collect();
        assert_eq!(keys, ["a", "b", "e", "g"]);
        assert_eq!(document.broken, [4, 6]);
    }

    #[test]
    fn an_unquoted_interpolation_is_explained() {
        let (_, said) = read_one("a: {{ b }}\n");
        assert_eq!(said, ["1:5 a key must be a text"]);
    }

    #[test]
    fn an_alias_bomb_is_stopped() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let before = level - 1;
            let aliases = vec![format!("*a{before}"); 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
        }
        let (_, said) = read_one(&text);
        assert_eq!(said.len(), 1);
        assert!(said[0].contains("more than 4000000 values"), "{said:?}");
    }

    #[test]
    fn nesting_has_an_end_and_an_alias_cannot_hold_itself() {
        let (_, said) = read_one(&format!("{}{}", "[".repeat(200), "]".repeat(200)));
        assert!(said[0].contains("nested deeper than 64"), "{said:?}");
        let (_, said) = read_one("a: &a [*a]\n");
        assert!(said[0].contains("inside the value"), "{said:?}");
        let (_, said) = read_one("a: *b\nc: *d\n");
        assert_eq!(said.len(), 2, "{said:?}");
    }
}
