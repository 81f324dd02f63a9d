//! `docs/ARCHITECTURE.md` against the tree: every room is named there, as pure (P) or shell (S), and every room named there
//! exists. What the map calls pure must not reach for a clock, disk, socket, runtime or chance.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{self, Parts, line_of, read, split, word_offsets};
use crate::{Complaint, none_of};

const MAP: &str = "docs/ARCHITECTURE.md";

/// Folders whose files are rooms. Of `tests/tests` only the first level counts: a folder there is one test program.
const FOLDERS: [&str; 6] =
    ["shared/src", "shared/seglog/src", "satellite/src", "master/src", "tests/src", "tests/tests"];

/// What no pure room names in the code it ships. Lint sees clock reads too; it does not see these.
const IMPURE: [&str; 19] = [
    "tokio",
    "quinn",
    "hyper",
    "axum",
    "rusqlite",
    "rand",
    "openssl",
    "tempfile",
    "fs",
    "File",
    "env",
    "process",
    "thread",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "Instant",
    "SystemTime",
    "Mutex",
];

/// What the map says of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Pure,
    Shell,
}

/// Rooms by folder and name, as `("satellite/src", "probe/nrpe")`.
pub(crate) type Rooms = BTreeMap<(String, String), Kind>;

/// The map as it stands.
pub(crate) fn rooms() -> Rooms {
    let (rooms, complaints) = parse(&read(MAP));
    none_of(&complaints);
    rooms
}

/// Lines "- **`name`** P: …" under headings "### `folder`".
fn parse(text: &str) -> (Rooms, Vec<Complaint>) {
    let mut rooms = Rooms::new();
    let mut complaints = Vec::new();
    let mut folder: Option<&str> = None;
    for (number, line) in text.lines().enumerate() {
        if line.starts_with('#') {
            folder = line.strip_prefix("### `").and_then(|rest| rest.strip_suffix('`'));
        }
        if line.starts_with("**`") {
            complaints.push(format!("{MAP}:{}: a room is an item of a list: begin with `- `", number + 1));
        }
        let (Some(folder), Some((name, rest))) =
            (folder, line.strip_prefix("- **`").and_then(|rest| rest.split_once("`** ")))
        else {
            continue;
        };
        let kind = match rest.split_once(": ") {
            Some(("P", text)) if !text.is_empty() => Kind::Pure,
            Some(("S", text)) if !text.is_empty() => Kind::Shell,
            _ => {
                complaints.push(format!("{MAP}:{}: say `P: …` or `S: …` after {name}", number + 1));
                continue;
            }
        };
        if rooms.insert((folder.to_owned(), name.to_owned()), kind).is_some() {
            complaints.push(format!("{MAP}:{}: {name} is named twice", number + 1));
        }
    }
    (rooms, complaints)
}

/// The room a file belongs to, none for doors (`lib.rs`, `main.rs`) and for files of tests only.
pub(crate) fn room_of(path: &str) -> Option<(&'static str, String)> {
    let folder = FOLDERS.into_iter().find(|folder| path.starts_with(&format!("{folder}/")))?;
    let name = path[folder.len() + 1..].strip_suffix(".rs")?;
    let of_tests = |part: &str| part == "tests" || part.ends_with("_tests");
    if folder == "tests/tests" {
        let program = name.split('/').next().unwrap_or(name);
        return Some((folder, program.to_owned()));
    }
    if matches!(name, "lib" | "main") || name.split('/').any(of_tests) {
        return None;
    }
    Some((folder, name.to_owned()))
}

fn differences(map: &Rooms, tree: &BTreeSet<(String, String)>) -> Vec<Complaint> {
    let unnamed = tree.iter().filter(|room| !map.contains_key(*room));
    let unnamed = unnamed.map(|(folder, name)| format!("{folder}/{name}: not named in {MAP}"));
    let gone = map.keys().filter(|room| !tree.contains(*room));
    let gone = gone.map(|(folder, name)| format!("{MAP}: names {folder}/{name}, which does not exist"));
    unnamed.chain(gone).collect()
}

fn impurities(path: &str, parts: &Parts) -> Vec<Complaint> {
    let product = parts.product();
    let named = IMPURE.iter().flat_map(|word| word_offsets(product, word).map(move |at| (at, word)));
    // As a path (`fs::read`, `use tokio::…`); a field or an argument may be called `env`.
    let named = named.filter(|(at, word)| {
        let after = &product[at + word.len()..];
        let before = &product[..*at];
        after.starts_with("::")
            || before.ends_with("std::")
            || before.ends_with("std::sync::")
            || before.ends_with("net::")
    });
    named.map(|(at, word)| format!("{path}:{}: a pure room names `{word}`", line_of(product, at))).collect()
}

#[test]
fn the_map_names_every_room_and_no_other() {
    let files = source::rust_files();
    let tests = source::test_only(&files);
    let rooms_of_tree = files.iter().filter(|file| !tests.contains(&file.path)).filter_map(|file| room_of(&file.path));
    let tree = rooms_of_tree.map(|(folder, name)| (folder.to_owned(), name));
    none_of(&differences(&rooms(), &tree.collect()));
}

#[test]
fn pure_rooms_reach_for_nothing() {
    let rooms = rooms();
    let mut complaints = Vec::new();
    for file in source::rust_files() {
        let room = room_of(&file.path).map(|(folder, name)| (folder.to_owned(), name));
        if room.is_some_and(|room| rooms.get(&room) == Some(&Kind::Pure)) {
            complaints.extend(impurities(&file.path, &split(&file.text)));
        }
    }
    none_of(&complaints);
}

#[test]
fn an_unnamed_room_and_a_named_nothing_are_found() {
    let (map, complaints) =
        parse("### `master/src`\n\n- **`fleet`** P: holders\n- **`status`** P: state\n## Other\n- **`x`** P: y\n");
    assert!(complaints.is_empty(), "{complaints:?}");
    let tree =
        BTreeSet::from([("master/src".to_owned(), "fleet".to_owned()), ("master/src".to_owned(), "link".to_owned())]);
    let found = differences(&map, &tree);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("master/src/link: not named"));
    assert!(found[1].contains("master/src/status, which does not exist"));
}

#[test]
fn a_room_without_kind_is_found() {
    assert_eq!(parse("### `master/src`\n- **`fleet`** holders\n- **`link`** S:\n**`run`** S: loop\n").1.len(), 3);
}

#[test]
fn doors_and_test_files_are_no_rooms() {
    assert_eq!(room_of("master/src/main.rs"), None);
    assert_eq!(room_of("master/src/config/tests.rs"), None);
    assert_eq!(room_of("satellite/src/scheduler/tests/world.rs"), None);
    assert_eq!(room_of("master/build.rs"), None);
    assert_eq!(room_of("master/src/config/parse.rs"), Some(("master/src", "config/parse".to_owned())));
    assert_eq!(room_of("tests/tests/tidy/words.rs"), Some(("tests/tests", "tidy".to_owned())));
}

#[test]
fn a_pure_room_that_reaches_out_is_found() {
    let bad = [
        "use std::fs;",
        "let a = std::fs::read(b);",
        "use tokio::sync::mpsc;",
        "std::time::Instant::now()",
        "use std::env;",
    ];
    for text in bad {
        assert!(!impurities("a.rs", &split(text)).is_empty(), "{text}");
    }
    let good = "fn a(env: &Env) { env.get(); }\n#[cfg(test)]\nmod tests {\n    use tokio::time;\n}\n";
    assert!(impurities("a.rs", &split(good)).is_empty());
}
