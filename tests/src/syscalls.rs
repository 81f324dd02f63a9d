//! Reads what `strace -f -ttt -T -y` wrote, and judges the order of writing, syncing and telling. Text in, verdict out; runs nothing.
//!
//! A file of a log is written with `pwrite64` behind its header and made durable with `fdatasync`. Who tells that something is durable
//! must do so after the sync that covers it has returned. The surprise: the order of lines is the order of events only within one
//! trace; between two processes their times are compared.

use std::collections::BTreeMap;

/// Stands behind the result of a call that strace has refused.
const INJECTED: &str = "(INJECTED)";
/// Calls that name files in words; which file all others are about their descriptor tells.
const BY_NAME: [&str; 28] = [
    "access",
    "chmod",
    "creat",
    "faccessat2",
    "fchmodat",
    "link",
    "linkat",
    "lstat",
    "mkdir",
    "mkdirat",
    "newfstatat",
    "open",
    "openat",
    "openat2",
    "readlink",
    "readlinkat",
    "rename",
    "renameat",
    "renameat2",
    "rmdir",
    "stat",
    "statfs",
    "statx",
    "symlink",
    "truncate",
    "unlink",
    "unlinkat",
    "utimensat",
];

/// One system call of one thread.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// Everything between its brackets, both halves if it was interrupted by another thread's.
    pub arguments: String,
    /// What it returned; none if that is not known.
    pub returned: Option<i64>,
    /// It was refused by strace and never made.
    pub injected: bool,
    /// When it began, in seconds since 1970.
    pub began: f64,
    /// When it had ended.
    pub ended: f64,
    /// Line on which it began, for the order of events.
    pub first_line: usize,
    /// Line on which it had ended.
    pub last_line: usize,
}

/// A write into a log and the sync that made it durable.
#[derive(Debug, Clone, PartialEq)]
pub struct Commit {
    /// The write.
    pub write: Call,
    /// The first sync of the same file that began after the write had returned, and that succeeded.
    pub sync: Option<Call>,
}

/// A line that a program wrote into its own log.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// The line.
    pub text: String,
    /// When its write began.
    pub at: f64,
    /// Line of the trace.
    pub line: usize,
}

/// The calls of a trace in the order in which they began.
#[must_use]
pub fn calls(trace: &str) -> Vec<Call> {
    let mut calls = Vec::new();
    let mut open: BTreeMap<(&str, String), Call> = BTreeMap::new();
    for (number, line) in trace.lines().enumerate() {
        let Some((thread, rest)) = line.trim_start().split_once(' ') else { continue };
        let Some((time, rest)) = rest.trim_start().split_once(' ') else { continue };
        let Ok(time) = time.parse::<f64>() else { continue };
        if let Some(resumed) = rest.strip_prefix("<... ") {
            let Some((name, rest)) = resumed.split_once(" resumed>") else { continue };
            let Some(mut call) = open.remove(&(thread, name.to_owned())) else { continue };
            let (arguments, returned, _) = end(rest);
            call.arguments.push_str(arguments);
            (call.returned, call.ended, call.last_line) = (returned, time, number);
            call.injected = rest.contains(INJECTED);
            calls.push(call);
        } else if let Some((name, rest)) = rest.split_once('(') {
            let call = |arguments: &str| Call {
                name: name.to_owned(),
                arguments: arguments.to_owned(),
                returned: None,
                injected: false,
                began: time,
                ended: time,
                first_line: number,
                last_line: number,
            };
            if let Some(arguments) = rest.strip_suffix("<unfinished ...>") {
                open.insert((thread, name.to_owned()), call(arguments.trim_end()));
            } else {
                let (arguments, returned, took) = end(rest);
                let injected = rest.contains(INJECTED);
                calls.push(Call { returned, injected, ended: time + took, ..call(arguments) });
            }
        }
    }
    // What never came back began all the same.
    calls.extend(open.into_values());
    calls.sort_by_key(|call| call.first_line);
    calls
}

/// `…arguments) = 12 <0.000034>` to arguments, result and seconds.
fn end(rest: &str) -> (&str, Option<i64>, f64) {
    let Some((arguments, result)) = rest.rsplit_once(") = ") else { return (rest, None, 0.0) };
    let took = result.rsplit_once('<').and_then(|(_, took)| took.strip_suffix('>')?.parse().ok());
    let returned = result.split(' ').next().and_then(|number| number.parse().ok());
    (arguments, returned, took.unwrap_or(0.0))
}

impl Call {
    /// The file that its descriptor belongs to.
    #[must_use]
    pub fn path(&self) -> &str {
        let descriptor = self.arguments.split_once(',').map_or(self.arguments.as_str(), |(first, _)| first);
        descriptor.split_once('<').and_then(|(_, path)| path.rsplit_once('>')).map_or("", |(path, _)| path)
    }

    /// The files that it is about, in the order of its arguments: those that it names, else the one that its descriptor belongs to.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        let named = if BY_NAME.contains(&self.name.as_str()) { self.named() } else { Vec::new() };
        if named.is_empty() { vec![self.path().to_owned()] } else { named }
    }

    /// The names among its arguments; one that is not whole stands below the directory whose descriptor comes before it.
    fn named(&self) -> Vec<String> {
        let mut named = Vec::new();
        let mut rest = self.arguments.as_str();
        while let Some((before, from)) = rest.split_once('"') {
            let Some((name, behind)) = from.split_once('"') else { break };
            let directory = before.rsplit_once('<').and_then(|(_, path)| path.split_once('>'));
            if name.starts_with('/') {
                named.push(name.to_owned());
            } else if !name.is_empty() {
                named.push(format!("{}/{name}", directory.map_or("", |(path, _)| path)));
            }
            rest = behind;
        }
        named
    }

    /// Where in its file a positioned write goes.
    fn offset(&self) -> Option<u64> {
        self.arguments.rsplit_once(", ")?.1.parse().ok()
    }
}

/// Every write of records into the segments whose path `is_ours`, with its sync. A segment's header, at its beginning, is none.
#[must_use]
pub fn commits(calls: &[Call], is_ours: impl Fn(&str) -> bool) -> Vec<Commit> {
    let of_log = |call: &&Call| call.path().ends_with(".seg") && is_ours(call.path());
    let writes = calls.iter().filter(of_log).filter(|call| call.name == "pwrite64" && call.offset() != Some(0));
    let synced = |write: &Call| {
        let mut later = calls.iter().filter(|call| call.first_line > write.last_line);
        let sync =
            later.find(|call| call.name == "fdatasync" && call.path() == write.path() && call.returned == Some(0));
        sync.cloned()
    };
    writes.map(|write| Commit { write: write.clone(), sync: synced(write) }).collect()
}

/// The lines with `mark` that the program wrote into its log.
#[must_use]
pub fn told(calls: &[Call], mark: &str) -> Vec<Told> {
    let writes = calls.iter().filter(|call| call.name == "write" && call.arguments.contains(mark));
    let text = |call: &Call| call.arguments.split_once('"').map_or("", |(_, text)| text).to_owned();
    let line = |text: &str| text.split("\\n").next().unwrap_or_default().to_owned();
    writes.map(|call| Told { text: line(&text(call)), at: call.began, line: call.first_line }).collect()
}

/// Judges one program: what it tells for the `n`th time must come after its `n`th commit. Gives what is wrong, in words.
#[must_use]
pub fn told_too_early(commits: &[Commit], told: &[Told]) -> Vec<String> {
    let numbered: Vec<(Told, Option<usize>)> =
        told.iter().cloned().enumerate().map(|(number, told)| (told, Some(number))).collect();
    told_before_its_commit(commits, &numbered)
}

/// Judges one program by the order of its events: what it tells must come after the sync of the commit it stands on, named by its
/// number; none means that no commit covers it.
#[must_use]
pub fn told_before_its_commit(commits: &[Commit], told: &[(Told, Option<usize>)]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (told, commit) in told {
        let sync = commit.and_then(|number| commits.get(number)).and_then(|commit| commit.sync.as_ref());
        if sync.is_none_or(|sync| sync.last_line >= told.line) {
            let when = sync.map_or("never".to_owned(), |sync| format!("{:.6}", sync.ended));
            wrong.push(format!("told at {:.6}, synced {when}: {}", told.at, told.text));
        }
    }
    wrong
}

/// Judges across two programs: what one told at a time must have been made durable by the other before. Each claim is a time and
/// the number of the commit it stands on; none means that no commit covers it.
#[must_use]
pub fn before_its_commit(commits: &[Commit], claims: &[(f64, Option<usize>, String)]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (at, commit, what) in claims {
        let sync = commit.and_then(|number| commits.get(number)).and_then(|commit| commit.sync.as_ref());
        if sync.is_none_or(|sync| sync.ended > *at) {
            let when = sync.map_or("never".to_owned(), |sync| format!("{:.6}", sync.ended));
            wrong.push(format!("{what} at {at:.6}, synced {when}"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"71 100.000001 pwrite64(9</t/spool/1-ab/1.seg>, "\211SEGLOG"..., 64, 0) = 64 <0.000010>
71 100.000100 fdatasync(9</t/spool/1-ab/1.seg>) = 0 <0.000500>
71 100.001000 pwrite64(9</t/spool/1-ab/1.seg>, "abc"..., 300, 64) = 300 <0.000010>
71 100.001100 fdatasync(9</t/spool/1-ab/1.seg> <unfinished ...>
70 100.001200 write(2</t/log>, "t INFO satellite: hello\n", 24) = 24 <0.000005>
71 100.002000 <... fdatasync resumed>) = 0 <0.000900>
70 100.002100 write(2</t/log>, "t DEBUG perigee::durable: run=ab position=3\n", 44) = 44 <0.000005>
70 100.002200 sendmsg(8<UDP:[1]>, {msg_name=NULL}, 0) = 100 <0.000005>
71 100.003000 pwrite64(9</t/spool/1-ab/1.seg>, "def"..., 100, 364) = 100 <0.000010>
71 100.003100 fdatasync(9</t/spool/1-ab/1.seg>) = 0 <0.000500>
70 100.004000 write(2</t/log>, "t DEBUG perigee::durable: run=ab position=5\n", 44) = 44 <0.000005>
"#;

    fn judged(trace: &str) -> Vec<String> {
        let calls = calls(trace);
        told_too_early(&commits(&calls, |path| path.contains("-ab/")), &told(&calls, "perigee::durable"))
    }

    #[test]
    fn calls_are_read_whole_and_in_halves() {
        let calls = calls(GOOD);
        assert_eq!(calls.len(), 10);
        let halved = &calls[3];
        assert_eq!((halved.name.as_str(), halved.returned), ("fdatasync", Some(0)));
        assert_eq!((halved.first_line, halved.last_line, halved.path()), (3, 5, "/t/spool/1-ab/1.seg"));
        assert!((halved.ended - 100.002).abs() < 1e-6);
        let commits = commits(&calls, |_| true);
        assert_eq!(commits.len(), 2, "a header is no record");
        assert_eq!(commits[0].sync.as_ref(), Some(halved));
        let told = told(&calls, "perigee::durable");
        assert_eq!(told[1].text, "t DEBUG perigee::durable: run=ab position=5");
    }

    #[test]
    fn a_call_is_about_the_files_that_it_names_or_that_its_descriptor_belongs_to() {
        let about = |line: &str| calls(&format!("71 100.000001 {line} <0.000010>\n"))[0].paths();
        assert_eq!(
            about(r#"openat(AT_FDCWD</t>, "/t/spool/lock", O_WRONLY|O_CREAT, 0666) = 9</t/spool/lock>"#),
            ["/t/spool/lock"]
        );
        assert_eq!(
            about(r#"openat(AT_FDCWD</t>, "lock", O_WRONLY) = -1 EIO (Input/output error) (INJECTED)"#),
            ["/t/lock"]
        );
        assert_eq!(about(r#"unlinkat(5</t/spool/1-ab>, "1.seg", 0) = 0"#), ["/t/spool/1-ab/1.seg"]);
        assert_eq!(about(r#"rename("/t/new", "/t/old") = 0"#), ["/t/new", "/t/old"]);
        assert_eq!(
            about(r#"newfstatat(5</t/spool>, "", {st_mode=S_IFDIR|0755, ...}, AT_EMPTY_PATH) = 0"#),
            ["/t/spool"]
        );
        // What is written is no name.
        assert_eq!(about(r#"write(9</t/owner>, "/etc/passwd", 11) = 11"#), ["/t/owner"]);
        assert_eq!(about("fsync(9</t/spool>) = 0"), ["/t/spool"]);
    }

    #[test]
    fn telling_after_the_sync_is_right() {
        assert_eq!(judged(GOOD), [""; 0]);
    }

    #[test]
    fn a_planted_word_between_write_and_sync_is_found() {
        let lines: Vec<&str> = GOOD.lines().collect();
        // The first word about durability changes places with the end of the sync.
        let mut early = lines.clone();
        early.swap(5, 6);
        let found = judged(&early.join("\n"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("position=3"), "{found:?}");
        // A sync that failed is none, and one that is left out is none.
        let failed = GOOD.replace("resumed>) = 0", "resumed>) = -1 EIO (Input/output error)");
        assert!(judged(&failed)[0].contains("position=3"));
        let mut without = lines;
        without.remove(9);
        let found = judged(&without.join("\n"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("synced never") && found[0].contains("position=5"), "{found:?}");
    }

    #[test]
    fn a_claim_of_another_process_is_held_against_the_sync() {
        let commits = commits(&calls(GOOD), |_| true);
        let claim = |at, commit| vec![(at, commit, "acknowledged".to_owned())];
        assert_eq!(before_its_commit(&commits, &claim(100.0021, Some(0))), [""; 0]);
        assert_eq!(before_its_commit(&commits, &claim(100.0019, Some(0))).len(), 1);
        assert_eq!(before_its_commit(&commits, &claim(100.0021, Some(1))).len(), 1);
        assert_eq!(before_its_commit(&commits, &claim(200.0, None)), ["acknowledged at 200.000000, synced never"]);
    }
}
