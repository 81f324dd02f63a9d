//! What a test does when a part of the outside world is not installed: it says so loudly and passes on a user's machine, and
//! fails where `CI=true`, so that a proof can never quietly stop running. It does not look for the part; the test does that.
//!
//! The note goes past libtest's capture straight to stderr, and as a line `test<TAB>note` to the file named by
//! `PERIGEE_SKIPPED`, from which `tests/run.sh` counts the skipped tests.

use std::fs::OpenOptions;
use std::io::Write;

/// Names the file that `tests/run.sh` reads the skipped tests from.
pub const SKIPPED_FILE: &str = "PERIGEE_SKIPPED";

/// Records that the calling test cannot run because `what` is missing, which the Debian `package` would bring.
/// The caller returns right after it.
///
/// # Panics
/// When the environment has `CI=true`: there a missing part is a failure.
pub fn missing(what: &str, package: &str) {
    let note = note(what, package);
    assert!(!is_failure(std::env::var("CI").ok().as_deref()), "{note} (CI=true: a missing part is a failure)");
    let test = test_name();
    // Neither write may turn a skip into a failure: without a terminal or a list the skip still holds.
    let _ = writeln!(std::io::stderr(), "{note} [{test}]");
    if let Some(path) = std::env::var_os(SKIPPED_FILE)
        && let Ok(mut list) = OpenOptions::new().create(true).append(true).open(path)
    {
        // One write call a line: tests append to the list side by side.
        let _ = list.write_all(format!("{test}\t{note}\n").as_bytes());
    }
}

fn note(what: &str, package: &str) -> String {
    format!("SKIPPED: {what} is missing, install {package}")
}

/// Only the word `true` counts, as CI services set it.
fn is_failure(ci: Option<&str>) -> bool {
    ci == Some("true")
}

/// `program::test`, as far as the test harness tells: it names each test's thread after the test.
fn test_name() -> String {
    let program = std::env::args().next().unwrap_or_default();
    let program = program.rsplit('/').next().unwrap_or_default().to_owned();
    let thread = std::thread::current();
    let test = std::env::var("NEXTEST_TEST_NAME").ok();
    format!("{program}::{}", test.as_deref().or(thread.name()).unwrap_or("?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ci_true_makes_a_missing_part_a_failure() {
        assert!(is_failure(Some("true")));
        assert!(!is_failure(Some("1")));
        assert!(!is_failure(Some("")));
        assert!(!is_failure(None));
    }

    #[test]
    fn a_note_names_what_is_missing_and_what_to_install() {
        let note = note("/usr/sbin/nrpe", "nagios-nrpe-server");
        assert_eq!(note, "SKIPPED: /usr/sbin/nrpe is missing, install nagios-nrpe-server");
    }

    #[test]
    fn a_test_is_named_by_program_and_test() {
        assert!(test_name().ends_with("a_test_is_named_by_program_and_test"), "{}", test_name());
    }
}
