//! What a ledger saw that must never be: a result lost or applied twice, a check with two living grants. It decides nothing; the
//! ledger does.
//!
//! A test with real daemons may have a second try on a busy machine, and these draw a new seed each time: a second try does not repeat
//! a loss that the first one saw. So a violation is also written to the file named by `PERIGEE_VIOLATIONS`, and `tests/run.sh` fails
//! whatever the tries after it say.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

/// Names the file that `tests/run.sh` reads violations from.
pub const VIOLATIONS_FILE: &str = "PERIGEE_VIOLATIONS";

/// Ends the test, and the run it is part of, with what was seen, unless the promise `holds`.
///
/// # Panics
/// When it does not.
#[track_caller]
pub fn unless(holds: bool, seen: impl FnOnce() -> String) {
    end_unless(holds, seen, std::env::var_os(VIOLATIONS_FILE).as_deref().map(Path::new));
}

#[track_caller]
fn end_unless(holds: bool, seen: impl FnOnce() -> String, list: Option<&Path>) {
    if holds {
        return;
    }
    let seen = seen();
    if let Some(list) = list {
        let test = std::env::var("NEXTEST_TEST_NAME").unwrap_or_else(|_| "a test".to_owned());
        let noted = OpenOptions::new().create(true).append(true).open(list);
        let noted = noted.and_then(|mut list| list.write_all(line(&test, &seen).as_bytes()));
        assert!(noted.is_ok(), "a violation could not be noted ({noted:?}): {seen}");
    }
    panic!("{seen}");
}

/// `test<TAB>what was seen`, on one line.
fn line(test: &str, seen: &str) -> String {
    format!("{test}\t{}\n", seen.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_fits_into_one_line() {
        assert_eq!(line("rounds", "lost: [\n  \"host 3\",\n]"), "rounds\tlost: [ \"host 3\", ]\n");
    }

    #[test]
    fn a_promise_that_holds_says_nothing() {
        unless(true, || panic!("asked for what was not seen"));
    }

    #[test]
    fn a_promise_that_does_not_hold_ends_the_test_and_is_noted() {
        let directory = tempfile::tempdir().expect("a directory");
        let list = directory.path().join("violations");
        let ended = std::panic::catch_unwind(|| end_unless(false, || "two living grants".to_owned(), Some(&list)));
        let said = ended.expect_err("it went on");
        assert_eq!(said.downcast_ref::<String>().map(String::as_str), Some("two living grants"));
        let noted = std::fs::read_to_string(&list).expect("a list");
        assert!(noted.ends_with("\ttwo living grants\n") && noted.lines().count() == 1, "{noted}");
    }
}
