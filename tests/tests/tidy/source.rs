//! Reads the tree and splits Rust text into code, comments and nothing else. A lexer of four states, no parser: strings and
//! character literals are blanked out, so that a rule about code never trips over a word in a message.

use std::fs;
use std::path::{Path, PathBuf};

/// The crates of the workspace, as folders.
pub(crate) const CRATES: [&str; 5] = ["shared", "shared/seglog", "satellite", "master", "tests"];

/// What no rule looks into: built, fetched, or git's own (a file, in a worktree).
const SKIPPED: [&str; 6] = [".git", "target", "node_modules", "dist", ".svelte-kit", "corpus"];

/// One text file, by its path from the root with forward slashes.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_path_buf()
}

/// A file of the tree that must be there.
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file below `folder` that is UTF-8 text, in order of path. A folder that is not there has none.
pub(crate) fn texts(folder: &str) -> Vec<File> {
    let mut found = Vec::new();
    walk(&root().join(folder), &mut found);
    found.sort();
    let root = root();
    found
        .into_iter()
        .filter_map(|path| {
            let text = fs::read_to_string(&path).ok()?;
            let path = path.strip_prefix(&root).ok()?.to_str()?.replace('\\', "/");
            Some(File { path, text })
        })
        .collect()
}

/// Every Rust file of our crates: products, tests and build scripts.
pub(crate) fn rust_files() -> Vec<File> {
    let files: Vec<File> = texts("").into_iter().filter(|file| file.path.ends_with(".rs")).collect();
    assert!(files.iter().any(|file| file.path == "tests/tests/tidy/source.rs"), "the tree was not found");
    files
}

/// Paths of files that are compiled for tests only: `#[cfg(test)] mod name;` in the module above them.
pub(crate) fn test_only(files: &[File]) -> Vec<String> {
    let mut paths = Vec::new();
    for file in files {
        let (folder, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
        let stem = name.trim_end_matches(".rs");
        let below = if matches!(stem, "lib" | "main" | "mod") { folder.to_owned() } else { format!("{folder}/{stem}") };
        let code = split(&file.text).code;
        for (at, _) in code.match_indices("#[cfg(test)]") {
            let declared = code[at..].lines().nth(1).unwrap_or_default().trim_start_matches("pub(crate) ");
            if let Some(module) = declared.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
                paths.push(format!("{below}/{module}.rs"));
            }
        }
    }
    paths
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let entry = entry.expect("a readable folder");
        if SKIPPED.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        let kind = entry.file_type().expect("a kind of file");
        if kind.is_dir() {
            walk(&entry.path(), found);
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
}

/// Rust text taken apart. Both parts keep the line breaks of the whole, so that line numbers hold.
pub(crate) struct Parts {
    /// Without comments, and with the inside of strings and characters blanked.
    pub(crate) code: String,
    /// Comments and documentation only.
    pub(crate) comments: String,
}

/// Splits Rust text. Understands line and nested block comments, strings, raw strings, characters and lifetimes.
pub(crate) fn split(text: &str) -> Parts {
    let mut parts = Parts { code: String::with_capacity(text.len()), comments: String::new() };
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (length, part) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), Part::Comment)
        } else if rest.starts_with("/*") {
            (block_comment(rest), Part::Comment)
        } else if let Some(length) = literal(rest, parts.code.chars().next_back()) {
            (length, Part::Literal)
        } else {
            (first.len_utf8(), Part::Code)
        };
        let (taken, left) = rest.split_at(length);
        parts.push(taken, part);
        rest = left;
    }
    parts
}

#[derive(Clone, Copy)]
enum Part {
    Code,
    Comment,
    Literal,
}

impl Parts {
    fn push(&mut self, taken: &str, part: Part) {
        let breaks: String = taken.chars().filter(|c| *c == '\n').collect();
        match part {
            Part::Code => {
                self.code.push_str(taken);
                self.comments.push_str(&breaks);
            }
            Part::Comment => {
                self.comments.push_str(taken);
                self.code.push_str(&breaks);
            }
            Part::Literal => {
                self.code.push_str("\"\"");
                self.code.push_str(&breaks);
                self.comments.push_str(&breaks);
            }
        }
    }

    /// The code that is shipped: without the test module at the foot of a file.
    pub(crate) fn product(&self) -> &str {
        let mut feet = self.code.match_indices("#[cfg(test)]").map(|(at, _)| at);
        let foot = feet.find(|at| {
            self.code[*at..].lines().nth(1).is_some_and(|line| line.starts_with("mod ") && line.ends_with('{'))
        });
        foot.map_or(&self.code, |foot| &self.code[..foot])
    }
}

fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The length of the string or character literal that `text` begins with, prefix included.
fn literal(text: &str, before: Option<char>) -> Option<usize> {
    if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
        return None;
    }
    let body = text.trim_start_matches(['b', 'c']);
    let prefix = text.len() - body.len();
    if prefix > 1 {
        return None;
    }
    if let Some(raw) = body.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let inside = &raw[hashes + 1..];
            let end = inside.find(&close).map_or(inside.len(), |end| end + close.len());
            return Some(prefix + 1 + hashes + 1 + end);
        }
        return None;
    }
    if body.starts_with('"') {
        return Some(prefix + quoted(body, '"'));
    }
    if let Some(inside) = body.strip_prefix('\'') {
        let mut inside = inside.chars();
        let first = inside.next()?;
        // 'a' is a character, 'a without a closing quote is a lifetime.
        if first == '\\' || inside.next() == Some('\'') {
            return Some(prefix + quoted(body, '\''));
        }
    }
    None
}

fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == quote {
            return at + c.len_utf8();
        }
    }
    text.len()
}

/// The line number of a byte offset, from 1.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Byte offsets at which `word` stands in `code` as a whole word (or begins with one, for `name!` and `#[name`).
pub(crate) fn word_offsets<'t>(code: &'t str, word: &'t str) -> impl Iterator<Item = usize> + 't {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = code[..*at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        let open = |edge: Option<char>, inner: Option<char>| {
            !(edge.is_some_and(part_of_name) && inner.is_some_and(part_of_name))
        };
        open(before, word.chars().next()) && open(after, word.chars().next_back())
    })
}

#[test]
fn a_module_of_tests_is_seen() {
    let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
    let files = [
        file("a/src/lib.rs", "pub mod b;\n#[cfg(test)]\nmod faults;\n"),
        file("a/src/b.rs", "#[cfg(test)]\nmod tests {\n}\n#[cfg(test)]\nmod cases;\n"),
    ];
    assert_eq!(test_only(&files), ["a/src/faults.rs", "a/src/b/cases.rs"]);
}

#[test]
fn strings_and_comments_are_not_code() {
    let parts = split("let a = \"b // c\"; // d \"e\"\nlet f = r#\"g \"h\" i\"#; /* j /* k */ l */ m");
    assert_eq!(parts.code, "let a = \"\"; \nlet f = \"\";  m");
    assert_eq!(parts.comments, "// d \"e\"\n/* j /* k */ l */");
}

#[test]
fn lifetimes_are_code_and_characters_are_not() {
    let parts = split("fn a<'b>(c: &'b str) { d('\"', '\\'', b'/') } // e");
    assert_eq!(parts.code, "fn a<'b>(c: &'b str) { d(\"\", \"\", \"\") } ");
}

#[test]
fn a_word_is_not_part_of_a_longer_one() {
    assert_eq!(word_offsets("openssl_vendored, openssl::x, my_openssl", "openssl").collect::<Vec<_>>(), [18]);
}
