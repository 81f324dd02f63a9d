//! Names that others rely on (`docs/DESIGN.md` section 14): make's targets, the command lines, the environment. They change
//! only together with every user of them, and with the lists here.

use std::path::PathBuf;
use std::process::Command;

use tests::missing::missing;

use crate::source::read;
use crate::{Complaint, none_of};

const TARGETS: [&str; 9] = ["deps", "build", "web", "lint", "test", "proof", "demo", "demo-smoke", "bench"];

/// Program, arguments before `--help`, and what its help must name.
const HELP: [(&str, &[&str], &[&str]); 4] = [
    (
        "perigee-master",
        &[],
        &["serve", "check-config", "apply", "status", "problems", "slots", "gaps", "token", "certificate"],
    ),
    ("perigee-master", &["serve"], &["--config", "--data"]),
    ("perigee-satellite", &["check"], &["--list", "--timeout"]),
    ("perigee-satellite", &["run"], &["PERIGEE_REGION", "PERIGEE_SLOT", "PERIGEE_MASTER"]),
];

fn missing_targets(makefile: &str) -> Vec<Complaint> {
    let has = |target: &str| makefile.lines().any(|line| line.starts_with(&format!("{target}:")));
    TARGETS.into_iter().filter(|target| !has(target)).map(|target| format!("Makefile: no target {target}")).collect()
}

/// Names as whole words: `slots` is not named by `--slots-max`.
fn missing_names(program: &str, help: &str, names: &[&str]) -> Vec<Complaint> {
    let words: Vec<&str> = help.split(|c: char| !(c.is_alphanumeric() || c == '-' || c == '_')).collect();
    let lacks = names.iter().filter(|name| !words.contains(*name));
    lacks.map(|name| format!("{program} --help does not name {name}")).collect()
}

/// Where this test program was built, the others are built too: `…/release/deps/tidy-…` beside `…/release/perigee-master`.
fn built(program: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let path = own.parent()?.parent()?.join(program);
    path.is_file().then_some(path)
}

#[test]
fn make_has_the_targets_others_call() {
    none_of(&missing_targets(&read("Makefile")));
}

#[test]
fn the_programs_have_the_commands_others_call() {
    let mut complaints = Vec::new();
    for (program, arguments, names) in HELP {
        let Some(path) = built(program) else {
            missing(program, "it with `make build`");
            return;
        };
        let output = Command::new(path).args(arguments).arg("--help").output().expect("a program that starts");
        assert!(output.status.success(), "{program} {arguments:?} --help: {output:?}");
        complaints.extend(missing_names(program, &String::from_utf8_lossy(&output.stdout), names));
    }
    none_of(&complaints);
}

#[test]
fn a_missing_target_or_command_is_found() {
    assert_eq!(missing_targets("deps:\nbuild: x\nweb lint:\n").len(), TARGETS.len() - 2);
    let found = missing_names("a", "Usage: a <COMMAND>\n  serve  Runs it\n  --slots-max", &["serve", "slots"]);
    assert_eq!(found, ["a --help does not name slots"]);
}
