//! Decisions and documents: each decision stands in the index, each direct dependency has its line of reason, and no link in a
//! document points at nothing.

use std::collections::BTreeSet;

use crate::source::{CRATES, read, root, texts};
use crate::{Complaint, none_of};

const INDEX: &str = "docs/decisions/README.md";
const DEPENDENCIES: &str = "docs/decisions/0002-dependencies.md";

/// Names below `[dependencies]`, `[dev-dependencies]`, `[build-dependencies]` of a manifest, ours by path left out.
fn direct_dependencies(manifest: &str) -> BTreeSet<String> {
    let own = CRATES.map(|folder| folder.rsplit('/').next().unwrap_or(folder));
    let mut inside = false;
    let mut names = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]");
        } else if let Some((key, _)) = line.split_once('=').filter(|_| inside && !line.starts_with([' ', '#'])) {
            let name = key.trim().split('.').next().unwrap_or_default().to_owned();
            if !own.contains(&name.as_str()) {
                names.insert(name);
            }
        }
    }
    names
}

/// The first column of the table of dependencies.
fn reasoned(decision: &str) -> BTreeSet<String> {
    let rows = decision.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
    rows.map(|(name, _)| name.to_owned()).filter(|name| name != "crate").collect()
}

fn unreasoned(used: &BTreeSet<String>, reasoned: &BTreeSet<String>) -> Vec<Complaint> {
    let without = used.difference(reasoned).map(|name| format!("{DEPENDENCIES}: no reason for {name}"));
    let idle = reasoned.difference(used).map(|name| format!("{DEPENDENCIES}: {name} is no dependency any more"));
    without.chain(idle).collect()
}

/// Targets of Markdown links that are neither addresses nor anchors.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    let local = targets.filter(|target| !target.contains("://") && !target.starts_with('#'));
    local.map(|target| target.split('#').next().unwrap_or(target)).collect()
}

#[test]
fn every_decision_is_in_the_index() {
    let index = read(INDEX);
    let listed: BTreeSet<&str> = links(&index).into_iter().collect();
    let missing = texts("docs/decisions").into_iter().filter_map(|file| {
        let name = file.path.rsplit('/').next().unwrap_or_default().to_owned();
        (name != "README.md" && !listed.contains(name.as_str())).then(|| format!("{INDEX}: {name} is not linked"))
    });
    none_of(&missing.collect::<Vec<_>>());
}

#[test]
fn every_direct_dependency_has_a_reason() {
    let mut used = direct_dependencies(&read("Cargo.toml"));
    for folder in CRATES {
        used.extend(direct_dependencies(&read(&format!("{folder}/Cargo.toml"))));
    }
    none_of(&unreasoned(&used, &reasoned(&read(DEPENDENCIES))));
}

#[test]
fn no_link_in_a_document_points_at_nothing() {
    let mut complaints = Vec::new();
    for file in texts("").into_iter().filter(|file| file.path.ends_with(".md")) {
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
        for target in links(&file.text) {
            if !root().join(&folder).join(target).exists() {
                complaints.push(format!("{}: {target} is not there", file.path));
            }
        }
    }
    none_of(&complaints);
}

#[test]
fn a_dependency_without_reason_and_an_idle_reason_are_found() {
    let manifest = "[package]\nname = \"a\"\n[dependencies]\nbytes.workspace = true\nshared.workspace = true\n\
                    sled = { version = \"1\" }\n[lints]\nworkspace = true\n";
    let used = direct_dependencies(manifest);
    assert_eq!(used, BTreeSet::from(["bytes".to_owned(), "sled".to_owned()]));
    let reasoned = reasoned("| crate | why |\n|---|---|\n| bytes | slices |\n| bincode | habit |\n");
    assert_eq!(unreasoned(&used, &reasoned).len(), 2);
}

#[test]
fn links_are_found_without_addresses_and_anchors() {
    assert_eq!(links("[a](b.md) [c](https://d.invalid) [e](#f) [g](../h.md#i)"), ["b.md", "../h.md"]);
}
