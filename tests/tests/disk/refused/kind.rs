//! What kind of file a path is: names that a program draws or counts are left out, so that a call site is the same in every run.
//! Knows no program and no call but its paths.

use std::path::Path;

use tests::syscalls::Call;

/// The directory that the data directory is in.
pub(super) const ABOVE: &str = "..";
/// At the end of a kind: whatever stands in that directory.
const ANY: &str = "/+";
/// A name of so many digits is drawn, or counted.
const DRAWN: usize = 16;

/// The kinds of files that a call is about, as far as they are of the data directory.
pub(super) fn kinds(data: &Path, call: &Call) -> Vec<String> {
    call.paths().iter().filter_map(|path| kind(data, path)).collect()
}

/// Whether a kind is the one that is meant.
pub(super) fn is_meant(kind: &str, meant: &str) -> bool {
    let inside = |directory: &str| kind.rsplit_once('/').is_some_and(|(above, _)| above == directory);
    kind == meant || meant.strip_suffix(ANY).is_some_and(inside)
}

fn kind(data: &Path, path: &str) -> Option<String> {
    let path = Path::new(path);
    if data.parent() == Some(path) {
        return Some(ABOVE.to_owned());
    }
    let mut parts: Vec<String> = Vec::new();
    for part in path.strip_prefix(data).ok()?.components() {
        let name = part.as_os_str().to_string_lossy();
        // A cursor is called after its writer.
        let cursor = parts.last().is_some_and(|above| above == "cursors");
        parts.push(if cursor { of_cursor(&name) } else { of_name(&name) });
    }
    Some(parts.join("/"))
}

fn of_cursor(name: &str) -> String {
    if name.ends_with(".tmp") { "*.tmp".to_owned() } else { "*".to_owned() }
}

fn of_name(name: &str) -> String {
    let (stem, ending) = name.split_at(name.find('.').unwrap_or(name.len()));
    let drawn = stem.len() >= DRAWN && stem.chars().all(|letter| letter.is_ascii_hexdigit() || letter == '-');
    if drawn { format!("*{ending}") } else { name.to_owned() }
}

#[test]
fn the_same_call_site_is_of_one_kind_in_every_run() {
    let of = |path: &str| kind(Path::new("/t/eu-1"), path);
    let some = |kind: &str| Some(kind.to_owned());
    let process = "/t/eu-1/spool/0123456789abcdef0123456789abcdef";
    let run = format!("{process}/00000000000000000007-fedcba9876543210fedcba9876543210");
    assert_eq!(of(&format!("{process}/owner")), some("spool/*/owner"));
    assert_eq!(of(&run), some("spool/*/*"));
    assert_eq!(of(&format!("{run}/00000000000000000001-0000000100000000.seg")), some("spool/*/*/*.seg"));
    assert_eq!(of("/t/eu-1/checkpoint/00000000000000000012.ckpt.tmp"), some("checkpoint/*.ckpt.tmp"));
    assert_eq!(of(&format!("/t/eu-1/revisions/{}.cbor.zst", "0a".repeat(32))), some("revisions/*.cbor.zst"));
    assert_eq!(of("/t/eu-1/cursors/graphite-127.0.0.1_2003.tmp"), some("cursors/*.tmp"));
    assert_eq!(of("/t/eu-1/cursors/graphite-127.0.0.1_2003"), some("cursors/*"));
    assert_eq!((of("/t/eu-1"), of("/t"), of("/t/eu-2/spool")), (some(""), some(ABOVE), None));
    assert!(is_meant("spool/*/*/lock", "spool/*/*/+") && !is_meant("spool/*/owner", "spool/*/*/+"));
}
