//! What is proven is what runs (docs/decisions/0008-defect-switch.md): product code has no second form behind a `cfg`, and no program
//! plants a defect into itself.

use crate::source::{self, line_of, split, word_offsets};
use crate::{Complaint, none_of};

/// The room of the switch itself.
const SWITCH: &str = "shared/src/defect.rs";

fn complaints(path: &str, text: &str) -> Vec<Complaint> {
    let parts = split(text);
    let code = parts.product();
    let mut found = Vec::new();
    for word in ["cfg", "cfg_attr"] {
        for at in word_offsets(code, word) {
            // A field or a value of that name is none; an attribute and the macro are.
            let rest = code[at + word.len()..].trim_start_matches('!');
            if rest.starts_with('(') && !rest.starts_with("(test)") {
                found.push(format!("{path}:{}: {word} of another kind than test", line_of(code, at)));
            }
        }
    }
    for at in word_offsets(code, "with_defects") {
        if !code[..at].ends_with("fn ") {
            found.push(format!("{path}:{}: a program plants defects", line_of(code, at)));
        }
    }
    if path != SWITCH {
        for at in code.match_indices("Defects::").map(|(at, _)| at) {
            if !code[at..].starts_with("Defects::default()") {
                found.push(format!("{path}:{}: a set of defects is made", line_of(code, at)));
            }
        }
    }
    found
}

#[test]
fn the_programs_have_one_form_and_plant_no_defects() {
    let files = source::rust_files();
    let tests = source::test_only(&files);
    let product =
        files.iter().filter(|file| !file.path.starts_with("tests/") && !tests.contains(&file.path)).collect::<Vec<_>>();
    assert!(product.iter().any(|file| file.path == SWITCH));
    none_of(&product.iter().flat_map(|file| complaints(&file.path, &file.text)).collect::<Vec<_>>());
}

#[test]
fn a_planted_defect_and_a_second_form_are_found() {
    for bad in [
        "#[cfg(feature = \"x\")]\nfn a() {}\n",
        "#[cfg_attr(x, y)]\nfn a() {}\n",
        "fn a() { if cfg!(debug_assertions) {} }\n",
        "fn a() { brain.with_defects(set) }\n",
        "fn a() { Defects::of(Defect::NoFence) }\n",
    ] {
        assert_eq!(complaints("a.rs", bad).len(), 1, "{bad}");
    }
    let good = "pub fn with_defects(mut self, defects: Defects) {}\nfn b(cfg: &Cfg) { cfg.get(); Defects::default(); }\n#[cfg(test)]\nmod tests {\n    a.with_defects(b);\n}\n";
    assert!(complaints("a.rs", good).is_empty());
}
