//! Who may know whom. The tables are the house plan: a room's line lists the rooms of its own crate that it uses, and the tree
//! must match it exactly, so that a new arrow is a line in a review and a dropped one leaves the table. Purity follows the map:
//! no pure room knows a shell. Arrows inside one top-level room (`probe`, `config`) are its own affair.

use std::collections::{BTreeMap, BTreeSet};

use crate::map::{self, Kind, room_of};
use crate::source::{self, read, split};
use crate::{Complaint, none_of};

/// A room and the rooms of its crate that it knows.
type Table = [(&'static str, &'static [&'static str])];

/// From the ground up: a room knows only rooms above its line.
const SHARED: &Table = &[
    ("defect", &[]),
    ("time", &[]),
    ("wall", &["time"]),
    ("step", &["time"]),
    ("name", &[]),
    ("unit", &[]),
    ("range", &[]),
    ("text", &[]),
    ("url", &[]),
    ("perfdata", &["range"]),
    ("check", &["perfdata", "range", "time"]),
    ("state", &["check", "time"]),
    ("result", &["check", "name", "perfdata", "state", "time"]),
    ("schedule", &["name", "time"]),
    ("item", &[]),
    ("delivery", &["item", "name", "result", "time"]),
    ("assignment", &["check", "delivery", "name", "state"]),
    ("snapshot", &["check", "delivery", "name", "result", "state", "time"]),
    ("command", &["check", "name", "time"]),
    ("frame", &[]),
    ("message", &["assignment", "command", "frame", "item", "name", "snapshot", "time"]),
    ("refusal", &["time"]),
    ("unanswered", &[]),
    ("identity", &["name", "refusal", "time"]),
];

const SATELLITE: &Table = &[
    ("clock", &[]),
    ("command", &[]),
    ("outbox", &["command"]),
    ("scheduler", &["clock", "command", "outbox"]),
    ("nrpe", &[]),
    ("process", &[]),
    ("probe", &["nrpe", "process"]),
    ("agent", &["nrpe", "process"]),
    ("discover", &["probe"]),
    ("spool", &["command"]),
    ("link", &[]),
    ("check_nrpe", &["probe"]),
    ("settings", &["command", "discover", "link"]),
    ("run", &["clock", "command", "link", "probe", "process", "scheduler", "settings", "spool"]),
];

const MASTER: &Table = &[
    ("assign", &[]),
    ("config", &[]),
    ("trust", &[]),
    ("entry", &[]),
    ("status", &["config", "entry"]),
    ("store", &["config", "entry", "status"]),
    ("history", &["entry", "status", "store"]),
    ("writer", &["store"]),
    ("fleet", &["assign", "config", "status"]),
    ("ingest", &["entry", "status"]),
    ("coordinator", &["config", "entry", "fleet", "ingest", "status"]),
    ("link", &["fleet", "trust"]),
    ("backup", &["coordinator", "entry", "history", "status", "store"]),
    ("web", &[]),
    ("api", &["backup", "config", "coordinator", "entry", "history", "status", "store", "web"]),
    ("cli", &["api", "backup", "config", "trust"]),
    ("settings", &[]),
    ("run", &["api", "config", "coordinator", "entry", "history", "link", "settings", "store", "trust", "writer"]),
];

const TABLES: [(&str, &Table); 3] = [("shared/src", SHARED), ("satellite/src", SATELLITE), ("master/src", MASTER)];

/// Which crates of ours a crate's manifest may name. Only the tests know both programs.
const CRATES: [(&str, &[&str]); 5] = [
    ("shared/seglog", &[]),
    ("shared", &[]),
    ("satellite", &["seglog", "shared"]),
    ("master", &["seglog", "shared"]),
    ("tests", &["seglog", "shared", "satellite", "master"]),
];

/// The top-level rooms of its own crate that a file names, as `crate::room`, `crate::{room, …}` or `super::room`.
fn named_rooms(path: &str, code: &str, rooms: &BTreeSet<String>) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        if !code[..at].ends_with('$') {
            named.extend(heads(&code[at + "crate::".len()..]));
        }
    }
    // In a room at the top level `super` is the crate.
    let top_level = room_of(path).is_some_and(|(_, name)| !name.contains('/'));
    if top_level {
        for (at, _) in code.match_indices("super::") {
            named.extend(heads(&code[at + "super::".len()..]));
        }
    }
    named.retain(|name| rooms.contains(name));
    named
}

/// The first names of a path or of a braced list of paths.
fn heads(text: &str) -> Vec<String> {
    let name =
        |text: &str| text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(list) = text.strip_prefix('{') else { return vec![name(text)] };
    let mut heads = vec![name(list)];
    let mut depth = 0_usize;
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.push(name(&list[at + 1..])),
            _ => {}
        }
    }
    heads
}

/// What the table and the tree disagree on.
fn disagreements(folder: &str, table: &Table, tree: &BTreeMap<String, BTreeSet<String>>) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for (room, knows) in tree {
        let Some((_, allowed)) = table.iter().find(|(name, _)| name == room) else {
            complaints.push(format!("{folder}/{room}: not in the table of arrows; it knows {knows:?}"));
            continue;
        };
        let new = knows.iter().filter(|name| !allowed.contains(&name.as_str()));
        complaints
            .extend(new.map(|name| format!("{folder}/{room}: knows {name}, an arrow that the table does not have")));
        let idle = allowed.iter().filter(|name| !knows.contains(**name));
        complaints
            .extend(idle.map(|name| format!("{folder}/{room}: does not know {name} any more, take the arrow out")));
    }
    let gone = table.iter().filter(|(room, _)| !tree.contains_key(*room));
    complaints.extend(gone.map(|(room, _)| format!("{folder}/{room}: in the table of arrows, but not there")));
    complaints
}

/// A table is in order when every arrow points at a line above: then there is no circle.
fn upward_arrows(folder: &str, table: &Table) -> Vec<Complaint> {
    let mut above: Vec<&str> = Vec::new();
    let mut complaints = Vec::new();
    for (room, knows) in table {
        let upward = knows.iter().filter(|name| !above.contains(*name));
        complaints.extend(upward.map(|name| format!("{folder}/{room}: {name} does not stand above it in the table")));
        above.push(room);
    }
    complaints
}

fn tree_of(folder: &str, files: &[source::File]) -> BTreeMap<String, BTreeSet<String>> {
    let top = |path: &str| {
        room_of(path)
            .filter(|(of, _)| *of == folder)
            .map(|(_, name)| name.split('/').next().unwrap_or(&name).to_owned())
    };
    let tests = source::test_only(files);
    let files: Vec<&source::File> = files.iter().filter(|file| !tests.contains(&file.path)).collect();
    let rooms: BTreeSet<String> = files.iter().filter_map(|file| top(&file.path)).collect();
    let mut tree: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in files {
        let Some(room) = top(&file.path) else { continue };
        let mut named = named_rooms(&file.path, split(&file.text).product(), &rooms);
        named.remove(&room);
        tree.entry(room).or_default().extend(named);
    }
    tree
}

/// Names of our crates below the dependency headings of a manifest.
fn foreign_crates(folder: &str, manifest: &str, allowed: &[&str]) -> Vec<Complaint> {
    let own = CRATES.map(|(folder, _)| folder.rsplit('/').next().unwrap_or(folder));
    let keys = manifest.lines().filter_map(|line| line.split(['.', '=', ' ']).next());
    let foreign = keys.filter(|key| own.contains(key) && !allowed.contains(key));
    foreign.map(|key| format!("{folder}/Cargo.toml: must not know {key}")).collect()
}

#[test]
fn rooms_know_what_the_tables_say() {
    let files = source::rust_files();
    let found = TABLES.iter().flat_map(|(folder, table)| disagreements(folder, table, &tree_of(folder, &files)));
    none_of(&found.collect::<Vec<_>>());
}

#[test]
fn arrows_point_down() {
    none_of(&TABLES.iter().flat_map(|(folder, table)| upward_arrows(folder, table)).collect::<Vec<_>>());
}

#[test]
fn no_pure_room_knows_a_shell() {
    let rooms = map::rooms();
    let files = source::rust_files();
    let mut complaints = Vec::new();
    for file in &files {
        let Some((folder, name)) = room_of(&file.path) else { continue };
        let kind = |name: &str| rooms.get(&(folder.to_owned(), name.to_owned())).copied();
        if kind(&name) != Some(Kind::Pure) {
            continue;
        }
        let all: BTreeSet<String> = rooms.keys().filter(|(of, _)| of == folder).map(|(_, name)| name.clone()).collect();
        let shells = named_rooms(&file.path, split(&file.text).product(), &all);
        let own = name.split('/').next().unwrap_or(&name);
        for shell in shells.iter().filter(|other| *other != own && kind(other) == Some(Kind::Shell)) {
            complaints.push(format!("{}: a pure room knows the shell {shell}", file.path));
        }
    }
    none_of(&complaints);
}

#[test]
fn only_the_tests_know_both_programs() {
    let complaints: Vec<_> = CRATES
        .iter()
        .flat_map(|(folder, allowed)| foreign_crates(folder, &read(&format!("{folder}/Cargo.toml")), allowed))
        .collect();
    none_of(&complaints);
}

#[test]
fn every_way_to_name_a_room_is_seen() {
    let rooms: BTreeSet<String> = ["fleet", "status", "entry", "link"].map(str::to_owned).into();
    let code = "use crate::fleet::Fleet;\nuse crate::{entry::{Entry, link}, status};\nfn a() { crate::link::b() }\n$crate::x!()";
    assert_eq!(named_rooms("master/src/ingest.rs", code, &rooms), rooms);
    let listed = named_rooms("master/src/ingest.rs", "use crate::{entry::{Entry, link}, status};", &rooms);
    assert_eq!(listed, ["entry", "status"].map(str::to_owned).into());
    let above = "use super::link;";
    assert_eq!(named_rooms("master/src/ingest.rs", above, &rooms).len(), 1);
    assert!(named_rooms("master/src/api/stream.rs", above, &rooms).is_empty(), "there `super` is the room itself");
}

#[test]
fn a_new_an_idle_and_an_upward_arrow_are_found() {
    let table: &Table = &[("entry", &[]), ("status", &["entry"]), ("gone", &[])];
    let knows = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let tree = BTreeMap::from([
        ("entry".to_owned(), knows(&["status"])),
        ("status".to_owned(), knows(&[])),
        ("link".to_owned(), knows(&[])),
    ]);
    let found = disagreements("master/src", table, &tree);
    assert_eq!(found.len(), 4, "{found:?}");
    assert_eq!(upward_arrows("master/src", &[("entry", &["status"]), ("status", &[])]).len(), 1);
}

#[test]
fn a_satellite_that_knows_the_master_is_found() {
    let manifest =
        "[package]\nname = \"satellite\"\n[dependencies]\nmaster.workspace = true\nshared.workspace = true\n";
    assert_eq!(foreign_crates("satellite", manifest, &["seglog", "shared"]).len(), 1);
}
