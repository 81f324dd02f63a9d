//! The closing lines of `make test` (`tests/run.sh`), with a cargo that only says what it is told to: a skipped test is taken off
//! the passed ones, a failed run can never look like a good one, and both test runners are counted alike. And those of `make proof`
//! (`tests/proof.sh`), where what was not begun can not look like what was shown.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use crate::source::root;

/// Runs `tests/run.sh` with `script` as `cargo`, and as `cargo-nextest` too if it shall be found.
fn run(script: &str, nextest: bool) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    let programs: &[&str] = if nextest { &["cargo", "cargo-nextest"] } else { &["cargo"] };
    for program in programs {
        let path = folder.path().join(program);
        fs::write(&path, format!("#!/bin/bash\n{script}\n")).expect("a program");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a program that may run");
    }
    let run = root().join("tests/run.sh");
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    assert!(!Path::new("/usr/bin/cargo-nextest").exists(), "the test needs a PATH without cargo-nextest");
    Command::new(run).env("PATH", path).env_remove("CI").output().expect("a script that starts")
}

#[track_caller]
fn closes_with(output: &Output, plain: &str, counts: &str, good: bool) {
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{output:?}");
    assert_eq!(lines[0], plain);
    assert!(lines[1].starts_with(&format!("{{{counts},")), "{}", lines[1]);
    assert_eq!(output.status.success(), good, "{output:?}");
}

const TWO_PROGRAMS: &str = "echo 'test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out'
echo 'test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out'";

#[test]
fn a_skipped_test_is_not_a_passed_one() {
    let script = format!(
        "{TWO_PROGRAMS}\nfor i in 1 2; do printf 'a::b\\tSKIPPED: nrpe\\n' >>\"$PERIGEE_SKIPPED\"; done
printf 'a::c\\tSKIPPED: carbon\\n' >>\"$PERIGEE_SKIPPED\""
    );
    let output = run(&script, false);
    closes_with(&output, "5 passed, 0 failed, 3 skipped", "\"passed\":5,\"failed\":0,\"skipped\":3", true);
    assert!(String::from_utf8_lossy(&output.stderr).contains("SKIPPED: carbon"));
}

#[test]
fn nextest_is_counted_alike() {
    let script =
        "echo '     Summary [  12.3s] 9 tests run: 6 passed (1 slow), 2 failed, 1 timed out, 0 skipped' >&2; exit 100";
    closes_with(&run(script, true), "6 passed, 3 failed, 0 skipped", "\"passed\":6,\"failed\":3,\"skipped\":0", false);
}

#[test]
fn what_a_ledger_saw_is_not_taken_back_by_a_second_try() {
    let script = "printf 'rounds\\tlost: 1\\n' >>\"$PERIGEE_VIOLATIONS\"
echo '     Summary [  12.3s] 9 tests run: 9 passed (1 flaky), 0 skipped' >&2";
    let output = run(script, true);
    closes_with(&output, "8 passed, 1 failed, 0 skipped", "\"passed\":8,\"failed\":1,\"skipped\":0", false);
    assert!(String::from_utf8_lossy(&output.stderr).contains("VIOLATED"), "{output:?}");
}

#[test]
fn a_run_that_does_not_compile_or_tests_nothing_is_not_good() {
    closes_with(
        &run("exit 101", false),
        "0 passed, 0 failed, 0 skipped",
        "\"passed\":0,\"failed\":0,\"skipped\":0",
        false,
    );
    closes_with(
        &run("exit 0", false),
        "0 passed, 0 failed, 0 skipped",
        "\"passed\":0,\"failed\":0,\"skipped\":0",
        false,
    );
    let script = format!("{TWO_PROGRAMS}\nexit 101");
    closes_with(
        &run(&script, false),
        "7 passed, 0 failed, 1 skipped",
        "\"passed\":7,\"failed\":0,\"skipped\":1",
        false,
    );
}

#[test]
fn claims_that_were_not_begun_for_the_budget_are_no_proof() {
    let mut proof = Command::new(root().join("tests/proof.sh"));
    // No claims of ours, lest one was shown on this commit before.
    proof.env("CARGO_FLAGS", "--release").env("BUDGET", "0").env("CLAIMS", "0 00");
    let output = proof.output().expect("a script that starts");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("{\"passed\":0,\"failed\":0,\"skipped\":2,") && text.lines().count() == 1, "{text}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("NOT PROVEN: claims 0 00 were not begun") && said.contains("CLAIMS=\"0 00\""), "{said}");
}
