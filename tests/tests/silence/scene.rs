//! What both stories have in common: daemons whose answers are long, and the three faces of a master.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tests::browser;
use tests::fleet::Master;

/// No single thing takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A daemon `h` whose services `c0` and so on are fine and say so in about `bytes` of noise each; `broken` is not.
pub(crate) fn daemon(services: usize, bytes: usize) -> Value {
    let mut draw = StdRng::seed_from_u64(25);
    let mut noise = || -> String { (0..bytes).map(|_| char::from(b'a' + draw.random_range(0..26_u8))).collect() };
    let mut commands: BTreeMap<String, Value> = (0..services)
        .map(|n| (format!("c{n}"), json!({ "of": [{ "state": 0, "text": format!("OK {}|a=1", noise()) }] })))
        .collect();
    commands.insert("broken".to_owned(), json!({ "of": [{ "state": 2, "text": "CRITICAL - broken for good" }] }));
    json!({ "host": "h", "listen": "127.0.0.1:0", "transport": "plain", "commands": commands })
}

/// What a command of the master says, which must end with this code: 1 where something is amiss.
pub(crate) fn said(master: &Master, arguments: &[&str], code: i32) -> String {
    let output = master.run(arguments, true).unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}{complaint}");
    eprintln!("$ perigee-master {}\n{said}", arguments.join(" "));
    said
}

/// The master's page as markup, each look with a browser that has never been there.
pub(crate) fn page(master: &Master, directory: &Path) -> String {
    let profile = tempfile::tempdir_in(directory).unwrap();
    browser::look(&format!("http://{}/", master.web), &profile.path().join("browser")).unwrap()
}

/// A text without the line feeds that keep it within a terminal.
pub(crate) fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A number as the page writes it.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let from_behind: Vec<&str> =
        digits.as_bytes().rchunks(3).map(|chunk| std::str::from_utf8(chunk).unwrap()).collect();
    from_behind.into_iter().rev().collect::<Vec<_>>().join(",")
}
