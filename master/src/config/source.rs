//! Reads a configuration: one file, or every `*.yaml` and `*.yml` below a directory, in the order of their names.
//!
//! The only room of the configuration that touches a disk. A file it cannot use is named and put aside; the others are read.
//! The surprise: names that begin with a dot are skipped, because a mounted Docker or Kubernetes config keeps its old versions there.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::diagnostic::{Findings, Place};

/// Largest single file read, in bytes; a larger one is a mistake and is not read.
pub const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Most bytes of all files together; what comes after is a mistake and is not read.
pub const TOTAL_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Most files; what comes after is a mistake and is not read.
pub const FILES_MAX: usize = 10_000;
/// Deepest directory below the given one; a loop of symbolic links ends here, as a mistake.
pub const DIRECTORY_DEPTH_MAX: usize = 16;

/// Why there is no configuration at all.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The path itself cannot be read.
    #[error("cannot read the configuration {}: {cause}", path.display())]
    Unreadable { path: PathBuf, cause: std::io::Error },
    /// A directory without a single usable name.
    #[error("there is no *.yaml or *.yml file in {}", path.display())]
    Empty { path: PathBuf },
}

/// One file as it was read.
#[derive(Debug, Clone)]
struct SourceFile {
    name: String,
    text: String,
    /// Byte offset of the start of each line.
    lines: Vec<usize>,
}

impl SourceFile {
    fn new(name: String, text: String) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { name, text, lines }
    }
}

/// The texts of a configuration, and what could not be read of it.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    files: Vec<SourceFile>,
    findings: Findings,
}

impl Sources {
    /// A configuration given as texts with names, as an upload or a test has it.
    #[must_use]
    pub fn from_texts<'a>(texts: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let files = texts.into_iter().map(|(name, text)| SourceFile::new(name.to_owned(), text.to_owned())).collect();
        Self { files, findings: Findings::default() }
    }

    /// Names and texts in the order they were read.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|file| (file.name.as_str(), file.text.as_str()))
    }

    /// The name of a file by its index; empty if there is none.
    #[must_use]
    pub fn file_name(&self, file: usize) -> &str {
        self.files.get(file).map_or("", |file| &file.name)
    }

    /// A line without its end, counted from 1.
    #[must_use]
    pub fn line(&self, file: usize, line: u32) -> Option<&str> {
        let file = self.files.get(file)?;
        let index = usize::try_from(line).ok()?.checked_sub(1)?;
        let start = *file.lines.get(index)?;
        let end = file.lines.get(index + 1).copied().unwrap_or(file.text.len());
        file.text.get(start..end).map(|text| text.trim_end_matches(['\n', '\r']))
    }

    /// What could not be read.
    #[must_use]
    pub fn findings(&self) -> &Findings {
        &self.findings
    }
}

/// Reads a file or a directory.
///
/// # Errors
/// When the path cannot be read, or is a directory without any YAML file. A single bad file among others is a finding instead.
pub fn load(path: &Path) -> Result<Sources, SourceError> {
    let unreadable = |cause| SourceError::Unreadable { path: path.to_owned(), cause };
    let metadata = fs::metadata(path).map_err(unreadable)?;
    let mut reader = Reader { sources: Sources::default(), bytes: 0 };
    if metadata.is_dir() {
        let mut found = Vec::new();
        list(path, "", 0, &mut found).map_err(unreadable)?;
        if found.is_empty() {
            return Err(SourceError::Empty { path: path.to_owned() });
        }
        for entry in found {
            reader.take(entry);
        }
    } else {
        let name = path.file_name().map_or_else(|| path.to_string_lossy(), |name| name.to_string_lossy()).into_owned();
        // Proves that it can be opened at all: one unreadable file given by name is no configuration.
        fs::File::open(path).map_err(unreadable)?;
        reader.take(Found { name, path: path.to_owned(), problem: None });
    }
    Ok(reader.sources)
}

struct Found {
    name: String,
    path: PathBuf,
    problem: Option<String>,
}

fn list(directory: &Path, prefix: &str, depth: usize, found: &mut Vec<Found>) -> Result<(), std::io::Error> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(directory)? {
        entries.push(entry?.file_name());
    }
    entries.sort();
    for entry in entries {
        let text = entry.to_string_lossy();
        if text.starts_with('.') {
            continue;
        }
        let path = directory.join(&entry);
        let name = format!("{prefix}{text}");
        let is_yaml = text.ends_with(".yaml") || text.ends_with(".yml");
        let problem = match fs::metadata(&path) {
            // Follows symbolic links: that is how Docker and Kubernetes mount configs.
            Ok(metadata) if metadata.is_dir() => {
                if depth >= DIRECTORY_DEPTH_MAX {
                    Some(format!("directories are read {DIRECTORY_DEPTH_MAX} deep at most; this one is deeper"))
                } else {
                    match list(&path, &format!("{name}/"), depth + 1, found) {
                        Ok(()) => continue,
                        Err(cause) => Some(format!("cannot read the directory: {cause}")),
                    }
                }
            }
            Ok(metadata) if is_yaml && !metadata.is_file() => Some("this is no regular file".to_owned()),
            Ok(_) => None,
            Err(cause) => Some(format!("cannot read the file: {cause}")),
        };
        if is_yaml || (problem.is_some() && !text.contains('.')) {
            found.push(Found { name, path, problem });
        }
    }
    Ok(())
}

struct Reader {
    sources: Sources,
    bytes: u64,
}

impl Reader {
    fn take(&mut self, found: Found) {
        let index = self.sources.files.len();
        if index >= FILES_MAX {
            if index == FILES_MAX {
                self.put_aside(
                    found.name,
                    format!("more than {FILES_MAX} files; this one and those after it are not read"),
                );
            }
            return;
        }
        if let Some(problem) = found.problem {
            return self.put_aside(found.name, problem);
        }
        match self.read(&found.path) {
            Ok(text) => self.sources.files.push(SourceFile::new(found.name, text)),
            Err(problem) => self.put_aside(found.name, problem),
        }
    }

    fn put_aside(&mut self, name: String, problem: String) {
        let place = Place { file: self.sources.files.len(), ..Place::default() };
        self.sources.files.push(SourceFile::new(name, String::new()));
        self.sources.findings.error(place, problem, "the other files are read without it".to_owned());
    }

    fn read(&mut self, path: &Path) -> Result<String, String> {
        let file = fs::File::open(path).map_err(|cause| format!("cannot read the file: {cause}"))?;
        let mut bytes = Vec::new();
        // One byte more than allowed tells a full file from a larger one, whatever its metadata say.
        let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
        read.map_err(|cause| format!("cannot read the file: {cause}"))?;
        let length = bytes.len() as u64;
        if length > FILE_BYTES_MAX {
            return Err(format!("the file is larger than {} MiB", FILE_BYTES_MAX >> 20));
        }
        if self.bytes + length > TOTAL_BYTES_MAX {
            return Err(format!(
                "all files together are larger than {} MiB; this one is not read",
                TOTAL_BYTES_MAX >> 20
            ));
        }
        self.bytes += length;
        String::from_utf8(bytes).map_err(|wrong| {
            let line = wrong.as_bytes().get(..wrong.utf8_error().valid_up_to()).unwrap_or_default();
            let line = line.iter().filter(|byte| **byte == b'\n').count() + 1;
            format!("the file is not UTF-8 (line {line})")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_read_in_the_order_of_names_through_links_and_without_hidden_entries() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        fs::create_dir_all(path.join("b")).unwrap();
        fs::create_dir_all(path.join("..data")).unwrap();
        fs::write(path.join("..data/old.yaml"), "old: 1").unwrap();
        fs::write(path.join("z.yml"), "z: 1").unwrap();
        fs::write(path.join("b/one.yaml"), "one: 1").unwrap();
        fs::write(path.join("notes.txt"), "no").unwrap();
        std::os::unix::fs::symlink(path.join("..data/old.yaml"), path.join("a.yaml")).unwrap();
        let sources = load(path).unwrap();
        let names: Vec<&str> = sources.texts().map(|(name, _)| name).collect();
        assert_eq!(names, ["a.yaml", "b/one.yaml", "z.yml"]);
        assert!(!sources.findings().has_errors());
        assert_eq!(sources.line(2, 1), Some("z: 1"));
        assert_eq!(sources.line(2, 2), None);
    }

    #[test]
    fn one_bad_file_does_not_hide_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        fs::write(path.join("a.yaml"), b"x: 1\ny: \xff\n").unwrap();
        fs::write(path.join("b.yaml"), "b: 1").unwrap();
        std::os::unix::fs::symlink(path.join("gone"), path.join("c.yaml")).unwrap();
        std::os::unix::fs::symlink(path, path.join("loop")).unwrap();
        let sources = load(path).unwrap();
        assert!(sources.texts().any(|(name, text)| name == "b.yaml" && text == "b: 1"));
        let found = sources.findings().clone().into_diagnostics(&sources);
        assert!(found.iter().any(|d| d.file == "a.yaml" && d.message.contains("UTF-8 (line 2)")), "{found:?}");
        assert!(found.iter().any(|d| d.file == "c.yaml" && d.message.contains("cannot read")), "{found:?}");
        assert!(found.iter().any(|d| d.message.contains("deep at most")), "{found:?}");
    }

    #[test]
    fn a_missing_path_and_an_empty_directory_are_errors_that_name_it() {
        let directory = tempfile::tempdir().unwrap();
        assert!(load(directory.path()).unwrap_err().to_string().contains("no *.yaml"));
        let gone = directory.path().join("gone");
        assert!(load(&gone).unwrap_err().to_string().contains("gone"));
    }
}
