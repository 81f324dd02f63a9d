//! Reads `nrpe.cfg` and what it includes, in nrpe's order: an included file stands where its line stands, a directory brings its
//! `*.cfg` sorted by name and then those of the directories in it. Decides nothing about what the lines mean.
//!
//! The surprise: a file or directory that is not there is a warning, since nrpe runs on without it and Debian's own `nrpe.cfg`
//! names files that need not exist.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::config::{Draft, Include, Place, Remark, Settings, statements};

/// Files within files; deeper ones are a mistake: a file includes itself.
const MAX_DEPTH: usize = 16;
/// Files in all; more is a mistake.
const MAX_FILES: usize = 2000;
/// The size of one file; a larger one is a mistake.
const MAX_SIZE: u64 = 4 * 1024 * 1024;

/// The settings in a file, and warnings about them.
///
/// # Errors
/// Mistakes, all of them, with warnings among them.
pub fn read(file: &Path) -> Result<(Settings, Vec<Remark>), Vec<Remark>> {
    let mut reader = Reader { draft: Draft::default(), files: 0 };
    match contents(file) {
        Ok(text) => reader.take(file, &text, 0),
        Err(error) => return Err(vec![about(file, true, format!("cannot be read: {error}"))]),
    }
    reader.draft.finish()
}

struct Reader {
    draft: Draft,
    files: usize,
}

impl Reader {
    fn take(&mut self, file: &Path, text: &[u8], depth: usize) {
        self.files += 1;
        let (found, remarks) = statements(&file.to_string_lossy(), text);
        self.draft.remark(remarks);
        for statement in found {
            match statement.include() {
                None => self.draft.take(&statement),
                Some(_) if depth >= MAX_DEPTH => self.say(
                    &statement.place,
                    true,
                    format!("files within files, {MAX_DEPTH} deep: a file includes itself"),
                ),
                Some(_) if self.files >= MAX_FILES => {
                    self.say(&statement.place, true, format!("more than {MAX_FILES} files"))
                }
                Some(Include::File(path)) => self.file(&statement.place, &path, depth + 1),
                Some(Include::Directory(path)) => self.directory(&statement.place, &path, depth + 1),
            }
        }
    }

    fn file(&mut self, place: &Place, path: &Path, depth: usize) {
        match contents(path) {
            Ok(text) => self.take(path, &text, depth),
            Err(error) => self.say(place, false, format!("{} is left out: {error}", path.display())),
        }
    }

    fn directory(&mut self, place: &Place, path: &Path, depth: usize) {
        let mut entries: Vec<PathBuf> = match fs::read_dir(path) {
            Ok(entries) => entries.filter_map(Result::ok).map(|entry| entry.path()).collect(),
            Err(error) => return self.say(place, false, format!("{} is left out: {error}", path.display())),
        };
        entries.sort();
        for entry in entries {
            if self.files >= MAX_FILES || depth > MAX_DEPTH {
                return self.say(place, true, format!("more than {MAX_FILES} files, or {MAX_DEPTH} directories deep"));
            }
            let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if entry.is_dir() {
                if !name.starts_with('.') {
                    self.directory(place, &entry, depth + 1);
                }
            } else if name.len() > 4 && name.ends_with(".cfg") && entry.is_file() {
                self.file(place, &entry, depth);
            }
        }
    }

    fn say(&mut self, place: &Place, mistake: bool, text: String) {
        self.draft.remark([Remark { place: place.clone(), text, mistake }]);
    }
}

fn about(file: &Path, mistake: bool, text: String) -> Remark {
    Remark { place: Place { file: Arc::from(file.to_string_lossy()), line: 0 }, text, mistake }
}

fn contents(file: &Path) -> io::Result<Vec<u8>> {
    let open = fs::File::open(file)?;
    if open.metadata()?.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    let mut text = Vec::new();
    open.take(MAX_SIZE + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_SIZE {
        return Err(io::Error::other(format!("it is larger than {MAX_SIZE} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text.replace("DIR", &directory.path().to_string_lossy())).unwrap();
        }
        directory
    }

    #[test]
    fn a_file_and_a_directory_stand_where_their_lines_stand() {
        let directory = tree(&[
            ("nrpe.cfg", "command[a]=main\ninclude=DIR/one.cfg\ninclude_dir=DIR/d/\ncommand[z]=main\n"),
            ("one.cfg", "command[a]=one\ncommand[b]=one\ncommand[z]=one\n"),
            ("d/2.cfg", "command[b]=two\ncommand[c]=two\n"),
            ("d/1.cfg", "command[c]=first\n"),
            ("d/deep/er/3.cfg", "command[d]=deep\n"),
            ("d/.hidden/4.cfg", "command[e]=hidden\n"),
            ("d/5.conf", "command[f]=other\n"),
            ("d/.cfg", "command[g]=name\n"),
        ]);
        let (settings, _) = read(&directory.path().join("nrpe.cfg")).unwrap();
        let commands: Vec<_> =
            settings.commands.iter().map(|(name, line)| [name.clone(), line.clone()].concat()).collect();
        assert_eq!(
            commands,
            [b"aone".to_vec(), b"btwo".to_vec(), b"ctwo".to_vec(), b"ddeep".to_vec(), b"zmain".to_vec()]
        );
    }

    #[test]
    fn what_is_not_there_is_a_warning_and_the_first_file_is_a_mistake() {
        let directory = tree(&[("nrpe.cfg", "include=DIR/missing.cfg\ninclude_dir=DIR/none/\ncommand[a]=x\n")]);
        let (settings, warnings) = read(&directory.path().join("nrpe.cfg")).unwrap();
        assert_eq!((settings.commands.len(), warnings.len()), (1, 2));
        assert!(warnings[0].to_string().contains("nrpe.cfg:1: warning: "), "{warnings:?}");
        let mistakes = read(&directory.path().join("missing.cfg")).unwrap_err();
        assert!(mistakes[0].to_string().contains("cannot be read"), "{mistakes:?}");
        assert!(read(directory.path()).is_err());
    }

    #[test]
    fn mistakes_of_all_files_are_named_at_once() {
        let directory = tree(&[("nrpe.cfg", "nonsense\ninclude=DIR/one.cfg\n"), ("one.cfg", "\nserver_port=1\n")]);
        let mistakes = read(&directory.path().join("nrpe.cfg")).unwrap_err();
        let text: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
        assert!(text[0].contains("nrpe.cfg:1: ") && text[1].contains("one.cfg:2: "), "{text:?}");
    }

    #[test]
    fn a_file_that_includes_itself_ends() {
        let directory = tree(&[("nrpe.cfg", "include=DIR/nrpe.cfg\n"), ("d/a.cfg", "include_dir=DIR/d\n")]);
        for name in ["nrpe.cfg", "d/a.cfg"] {
            assert!(!read(&directory.path().join(name)).unwrap_err().is_empty());
        }
    }
}
