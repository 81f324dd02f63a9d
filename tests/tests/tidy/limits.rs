//! How long a room may get. The number is a direction: a longer file usually hides a second noun, and one that does not is
//! named here with its reason.

use crate::source;
use crate::{Complaint, none_of};

/// Lines of one file, tests at its foot included.
const LINES_MAX: usize = 600;

/// Files that are longer and should be: (path, reason).
const LONGER: [(&str, &str); 0] = [];

fn too_long(path: &str, text: &str, longer: &[(&str, &str)]) -> Option<Complaint> {
    let lines = text.lines().count();
    let excused = longer.iter().any(|(excused, _)| *excused == path);
    match (lines > LINES_MAX, excused) {
        (true, false) => Some(format!("{path}: {lines} lines, more than {LINES_MAX}: which second noun does it hide?")),
        (false, true) => Some(format!("{path}: {lines} lines need no exception any more")),
        (true, true) | (false, false) => None,
    }
}

#[test]
fn no_room_is_too_long() {
    let files = source::rust_files();
    let mut complaints: Vec<_> = files.iter().filter_map(|file| too_long(&file.path, &file.text, &LONGER)).collect();
    for (path, _) in LONGER {
        if !files.iter().any(|file| file.path == path) {
            complaints.push(format!("{path}: excused, but not there"));
        }
    }
    none_of(&complaints);
}

#[test]
fn a_long_room_is_found_and_an_idle_exception_too() {
    let long = "//! a\n".repeat(LINES_MAX + 1);
    assert!(too_long("a.rs", &long, &[]).is_some());
    assert!(too_long("a.rs", &long, &[("a.rs", "a table")]).is_none());
    assert!(too_long("a.rs", "//! a\n", &[("a.rs", "a table")]).is_some());
    assert!(too_long("a.rs", &"//! a\n".repeat(LINES_MAX), &[]).is_none());
}
