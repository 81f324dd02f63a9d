//! Reads `nrpe.cfg` and what it includes, in nrpe's order: an included file stands where its line stands, a directory brings its
//! `*.cfg` sorted by name and then those of the directories in it. Decides nothing about what the lines mean.
//!
//! The surprise: nothing in an included file keeps the agent from starting. One that is not there is a warning, since Debian's own
//! `nrpe.cfg` names files that need not exist; one with a mistake counts up to it, as with nrpe, and a check of the file says so.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::config::{Draft, Include, Place, Remark, Settings, Statement, Weight, statements};

/// Files within files; deeper ones are a mistake: a file includes itself.
const MAX_DEPTH: usize = 16;
/// Files in all; more is a mistake.
const MAX_FILES: usize = 2000;
/// The size of one file; a larger one is a mistake.
const MAX_SIZE: u64 = 4 * 1024 * 1024;

/// The settings in a file, and remarks about them. `plain`: for an agent that speaks no TLS.
///
/// # Errors
/// Mistakes that nrpe would not start with, all of them, with all other remarks among them.
pub fn read(file: &Path, plain: bool) -> Result<(Settings, Vec<Remark>), Vec<Remark>> {
    let draft = if plain { Draft::plain() } else { Draft::default() };
    let mut reader = Reader { draft, files: 0 };
    match contents(file) {
        Ok(text) => reader.take(file, &text, 0),
        Err(error) => return Err(vec![about(file, format!("cannot be read: {error}"))]),
    }
    reader.draft.finish()
}

struct Reader {
    draft: Draft,
    files: usize,
}

impl Reader {
    /// The first file: everything in it is looked at, and every mistake named.
    fn take(&mut self, file: &Path, text: &[u8], depth: usize) {
        self.files += 1;
        let (found, remarks) = statements(&file.to_string_lossy(), text);
        self.draft.remark(remarks);
        for statement in found {
            if !self.include(&statement, depth) {
                self.draft.take(&statement);
            }
        }
    }

    /// A file that another one brings in, up to its first mistake.
    fn take_included(&mut self, file: &Path, text: &[u8], depth: usize) {
        self.files += 1;
        let (found, remarks) = statements(&file.to_string_lossy(), text);
        let torn = remarks.into_iter().min_by_key(|remark| remark.place.line);
        let end = torn.as_ref().map_or(usize::MAX, |remark| remark.place.line);
        for statement in found.iter().filter(|statement| statement.place.line < end) {
            if !self.include(statement, depth) && !self.draft.take_included(statement) {
                return;
            }
        }
        self.draft.remark(torn.map(|remark| Remark { weight: Weight::Lost, ..remark }));
    }

    /// What a statement brings in, if it does.
    fn include(&mut self, statement: &Statement, depth: usize) -> bool {
        let place = &statement.place;
        match statement.include() {
            None => return false,
            Some(_) if depth >= MAX_DEPTH => self.say(
                place,
                Weight::Refused,
                format!("files within files, {MAX_DEPTH} deep: a file includes itself"),
            ),
            Some(_) if self.files >= MAX_FILES => {
                self.say(place, Weight::Refused, format!("more than {MAX_FILES} files"))
            }
            Some(Include::File(path)) => self.file(place, &path, depth + 1),
            Some(Include::Directory(path)) => self.directory(place, &path, depth + 1),
        }
        true
    }

    fn file(&mut self, place: &Place, path: &Path, depth: usize) {
        match contents(path) {
            Ok(text) => self.take_included(path, &text, depth),
            Err(error) => self.say(place, Weight::Warning, format!("{} is left out: {error}", path.display())),
        }
    }

    fn directory(&mut self, place: &Place, path: &Path, depth: usize) {
        let mut entries: Vec<PathBuf> = match fs::read_dir(path) {
            Ok(entries) => entries.filter_map(Result::ok).map(|entry| entry.path()).collect(),
            Err(error) => {
                return self.say(place, Weight::Warning, format!("{} is left out: {error}", path.display()));
            }
        };
        entries.sort();
        for entry in entries {
            if self.files >= MAX_FILES || depth > MAX_DEPTH {
                let why = format!("more than {MAX_FILES} files, or {MAX_DEPTH} directories deep");
                return self.say(place, Weight::Refused, why);
            }
            let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.len() > 4 && name.ends_with(".cfg") {
                // A directory of such a name is not looked into.
                if entry.is_file() {
                    self.file(place, &entry, depth);
                }
            } else if entry.is_dir() && !name.starts_with('.') {
                self.directory(place, &entry, depth + 1);
            }
        }
    }

    fn say(&mut self, place: &Place, weight: Weight, text: String) {
        self.draft.remark([Remark { place: place.clone(), text, weight }]);
    }
}

fn about(file: &Path, text: String) -> Remark {
    Remark { place: Place { file: Arc::from(file.to_string_lossy()), line: 0 }, text, weight: Weight::Mistake }
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
        let (settings, _) = read(&directory.path().join("nrpe.cfg"), false).unwrap();
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
        let (settings, warnings) = read(&directory.path().join("nrpe.cfg"), false).unwrap();
        assert_eq!((settings.commands.len(), warnings.len()), (1, 2));
        assert!(warnings[0].to_string().contains("nrpe.cfg:1: warning: "), "{warnings:?}");
        let mistakes = read(&directory.path().join("missing.cfg"), false).unwrap_err();
        assert!(mistakes[0].to_string().contains("cannot be read"), "{mistakes:?}");
        assert!(read(directory.path(), false).is_err());
    }

    #[test]
    fn mistakes_of_all_files_are_named_at_once() {
        let directory = tree(&[("nrpe.cfg", "nonsense\ninclude=DIR/one.cfg\n"), ("one.cfg", "\nserver_port=1\n")]);
        let mistakes = read(&directory.path().join("nrpe.cfg"), false).unwrap_err();
        let text: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
        assert!(text[0].contains("nrpe.cfg:1: ") && text[1].contains("one.cfg:2: "), "{text:?}");
    }

    /// As with nrpe: the mistake costs the rest of its file, and no other.
    #[test]
    fn an_included_file_counts_up_to_its_first_mistake() {
        let directory = tree(&[
            ("nrpe.cfg", "include=DIR/one.cfg\ninclude_dir=DIR/d\ncommand[z]=main\n"),
            ("one.cfg", "command[a]=one\nserver_port=1\ncommand[b]=one\n"),
            ("d/1.cfg", "command[c]=first\nnonsense\ncommand[d]=first\n"),
            ("d/2.cfg", "command[e]=second\n"),
        ]);
        let (settings, remarks) = read(&directory.path().join("nrpe.cfg"), false).unwrap();
        let names: Vec<_> = settings.commands.keys().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        assert_eq!(names, ["a", "c", "e", "z"]);
        let text: Vec<_> = remarks.iter().map(ToString::to_string).collect();
        assert!(text.len() == 2 && remarks.iter().all(|remark| remark.weight == Weight::Lost), "{text:?}");
        assert!(text[0].contains("one.cfg:2: server_port") && text[1].contains("1.cfg:2: a line is"), "{text:?}");
        // What the agent never does is refused wherever it stands.
        let directory =
            tree(&[("nrpe.cfg", "include=DIR/one.cfg\n"), ("one.cfg", "allow_bash_command_substitution=1\n")]);
        assert!(read(&directory.path().join("nrpe.cfg"), false).is_err());
    }

    #[test]
    fn without_tls_its_keys_need_not_go_together() {
        let directory = tree(&[("nrpe.cfg", "ssl_client_certs=2\nssl_cert_file=/none\n")]);
        assert!(read(&directory.path().join("nrpe.cfg"), false).is_err());
        assert!(read(&directory.path().join("nrpe.cfg"), true).is_ok());
    }

    #[test]
    fn a_file_that_includes_itself_ends() {
        let directory = tree(&[("nrpe.cfg", "include=DIR/nrpe.cfg\n"), ("d/a.cfg", "include_dir=DIR/d\n")]);
        for name in ["nrpe.cfg", "d/a.cfg"] {
            assert!(!read(&directory.path().join(name), false).unwrap_err().is_empty());
        }
    }
}
