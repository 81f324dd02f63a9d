//! The list of what differs in `docs/nrpe.md` against the list that the comparison goes by.

use std::path::Path;

use crate::exempt::EXEMPTIONS;

/// The page.
pub(crate) fn text() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace");
    std::fs::read_to_string(root.join("docs/nrpe.md")).expect("docs/nrpe.md")
}

/// The rows of the page's list: name and reason, lines joined.
fn listed(page: &str) -> Vec<(String, String)> {
    let from = page.find("## What is different").expect("the section");
    let section = &page[from + 3..];
    let section = &section[..section.find("\n## ").unwrap_or(section.len())];
    section
        .split("\n- **")
        .skip(1)
        .map(|row| {
            let row = row.split("\n\n").next().unwrap_or_default();
            let (name, reason) = row.split_once("**: ").expect("- **name**: reason");
            (name.to_owned(), reason.split_whitespace().collect::<Vec<_>>().join(" "))
        })
        .collect()
}

#[test]
fn the_page_lists_what_differs_and_why() {
    let page = listed(&text());
    let list: Vec<(String, String)> =
        EXEMPTIONS.iter().map(|row| (row.name.to_owned(), row.reason.to_owned())).collect();
    assert_eq!(page, list);
}

#[test]
fn the_page_explains_every_kind_of_failure() {
    let page = text();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace");
    let source = std::fs::read_to_string(root.join("satellite/src/probe/nrpe/error.rs")).expect("the kinds");
    let kinds: Vec<&str> = source
        .lines()
        .filter_map(|line| line.split_once("=> \"")?.1.strip_suffix("\","))
        .filter(|kind| kind.contains('-') && kind.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
        .collect();
    assert!(kinds.len() >= 28, "the kinds were not found: {kinds:?}");
    let missing: Vec<_> = kinds.iter().filter(|kind| !page.contains(&format!("`{kind}`"))).collect();
    assert!(missing.is_empty(), "docs/nrpe.md does not explain {missing:?}");
}
