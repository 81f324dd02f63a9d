//! The examples people copy: every configuration in `configs/` and the snippet in the README compile with the master's own
//! loader, without a warning, and every key that the loader knows has its entry in the reference.

use std::fs;

use master::config::{Sources, compile, load};

use crate::source::{read, root};
use crate::{Complaint, none_of};

const REFERENCE: &str = "docs/CONFIGURATION.md";

/// What the compiler has against the sources: errors, and warnings as well.
fn mistakes(name: &str, sources: &Sources) -> Vec<Complaint> {
    let found = match compile(sources) {
        Ok((_, warnings)) => warnings,
        Err(errors) => errors,
    };
    found.iter().map(|diagnostic| format!("{name}: {diagnostic:?}")).collect()
}

/// The YAML blocks of a Markdown text.
fn yaml_blocks(text: &str) -> Vec<&str> {
    text.split("```yaml\n").skip(1).filter_map(|rest| rest.split_once("\n```")).map(|(block, _)| block).collect()
}

/// Keys, sections and kinds in the tables of the parser: `const …_KEYS: &[&str] = &["…", …];`.
fn known_keys(parser: &str) -> Vec<String> {
    let tables = ["_KEYS:", "_KINDS:", "SECTIONS:"];
    let statements = parser.split(';').filter(|statement| {
        let declared = statement.rsplit_once("const ").map_or("", |(_, declared)| declared);
        tables.iter().any(|table| declared.contains(table)) && !declared.starts_with("LATER_")
    });
    statements.flat_map(|statement| statement.split('"').skip(1).step_by(2).map(str::to_owned)).collect()
}

#[test]
fn every_example_compiles() {
    let mut complaints = Vec::new();
    let mut examples = 0;
    for entry in fs::read_dir(root().join("configs")).expect("configs/") {
        let path = entry.expect("an example").path();
        // An agent's, which is nrpe's form and the satellite's to read.
        if path.ends_with("agent") {
            continue;
        }
        let name = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
        match load(&path) {
            Ok(sources) => complaints.extend(mistakes(&name, &sources)),
            Err(error) => complaints.push(format!("{name}: {error}")),
        }
        examples += 1;
    }
    assert!(examples > 0, "configs/ has no example");
    none_of(&complaints);
}

#[test]
fn the_example_of_the_agent_has_no_mistake() {
    let (settings, remarks) =
        satellite::agent::source::read(&root().join("configs/agent/nrpe.cfg"), false).expect("no mistake");
    assert!(remarks.is_empty(), "{remarks:?}");
    assert!(settings.commands.len() >= 7 && settings.allowed.is_some(), "{settings:?}");
}

#[test]
fn what_the_readme_shows_compiles() {
    let readme = read("README.md");
    let blocks = yaml_blocks(&readme);
    assert!(!blocks.is_empty(), "the README shows no configuration");
    none_of(&mistakes("README.md", &Sources::from_texts(blocks.into_iter().map(|block| ("README.md", block)))));
}

#[test]
fn every_key_has_an_entry_in_the_reference() {
    let reference = read(REFERENCE);
    let mut keys = known_keys(&read("master/src/config/parse.rs"));
    assert!(keys.len() > 20, "the parser's tables were not found: {keys:?}");
    let network = known_keys(&read("master/src/config/parse/network.rs"));
    assert!(network.len() > 40, "the tables of network checks were not found: {network:?}");
    keys.extend(network);
    let without = keys.iter().filter(|key| !reference.contains(&format!("`{key}`")));
    none_of(&without.map(|key| format!("{REFERENCE}: no entry for `{key}`")).collect::<Vec<_>>());
}

#[test]
fn a_bad_example_is_found() {
    let bad = Sources::from_texts([("bad.yaml", "hosts:\n  a: { region: nowhere }\n")]);
    assert!(!mistakes("bad.yaml", &bad).is_empty());
    assert_eq!(yaml_blocks("a\n```yaml\nb: 1\n```\nc\n```sh\nd\n```\n"), ["b: 1"]);
    let tables = "const NRPE_KEYS: &[&str] = &[\"tls\", \"port\"];\nconst LATER_NRPE_KEYS: Later = &[\"ca\"];\n";
    assert_eq!(known_keys(tables), ["tls", "port"]);
}
