//! Lock files name no registry host: who builds elsewhere gets crates and packages from the registry set up there. Cargo writes
//! its default index under one canonical name, which is no host that is asked.

use crate::source::{read, root};
use crate::{Complaint, none_of};

/// The name cargo writes for its default index, whichever mirror is configured.
const DEFAULT_INDEX: &str = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";

fn hosts_in_cargo_lock(text: &str) -> Vec<Complaint> {
    complaints("Cargo.lock", text, |line| line.trim() == DEFAULT_INDEX)
}

/// `url` is where a package's author takes donations; the client never asks it. Some authors list the bare address, without a key.
fn hosts_in_package_lock(path: &str, text: &str) -> Vec<Complaint> {
    complaints(path, text, |line| {
        ["\"url\":", "\"funding\":", "\"http"].iter().any(|start| line.trim_start().starts_with(start))
    })
}

fn complaints(path: &str, text: &str, fine: impl Fn(&str) -> bool) -> Vec<Complaint> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| (line.contains("http:") || line.contains("https:") || line.contains("git+")) && !fine(line))
        .map(|(line, content)| format!("{path}:{}: names a host: {}", line + 1, content.trim()))
        .collect()
}

#[test]
fn lock_files_name_no_host() {
    let mut found = hosts_in_cargo_lock(&read("Cargo.lock"));
    let package_lock = "master/web/package-lock.json";
    if root().join(package_lock).exists() {
        found.extend(hosts_in_package_lock(package_lock, &read(package_lock)));
    }
    none_of(&found);
}

#[test]
fn a_host_in_a_lock_file_is_found() {
    assert!(hosts_in_cargo_lock(DEFAULT_INDEX).is_empty());
    assert_eq!(hosts_in_cargo_lock("source = \"registry+https://mirror.invalid/index\"").len(), 1);
    assert_eq!(hosts_in_cargo_lock("source = \"git+ssh://mirror.invalid/crate#1\"").len(), 1);
    let resolved = "      \"resolved\": \"https://mirror.invalid/svelte.tgz\",\n";
    assert_eq!(hosts_in_package_lock("a", resolved).len(), 1);
    assert!(hosts_in_package_lock("a", "        \"url\": \"https://donate.invalid\"\n").is_empty());
    assert!(hosts_in_package_lock("a", "        \"https://donate.invalid\",\n").is_empty());
}
