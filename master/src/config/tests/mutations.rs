//! Configurations with mistakes that nobody thought of: whatever stands in the files, they are told, and nothing panics.

use proptest::prelude::*;

use super::*;

/// All test configurations, as material.
fn corpus() -> Vec<String> {
    let mut texts = Vec::new();
    for folder in fs::read_dir(testdata()).unwrap() {
        let sources = load(&folder.unwrap().path()).unwrap();
        texts.extend(sources.texts().map(|(_, text)| text.to_owned()));
    }
    texts.retain(|text| text.len() < 2_000);
    texts.sort();
    texts
}

#[derive(Debug, Clone)]
enum Change {
    Insert(prop::sample::Index, String),
    Remove(prop::sample::Index, usize),
    Repeat(prop::sample::Index, usize),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let piece = prop_oneof![
        "[{}\\[\\]:,&*!|>'\"%@`#?~\\- \\n\\t]{1,4}",
        "\\PC{1,3}",
        Just("{{".to_owned()),
        Just("<<: *a".to_owned()),
        Just("\u{feff}".to_owned()),
        Just("\u{0}".to_owned()),
        Just("\r\n".to_owned()),
        Just("[1-99999]".to_owned()),
    ];
    let any_index = any::<prop::sample::Index>;
    let change = prop_oneof![
        (any_index(), piece).prop_map(|(at, text)| Change::Insert(at, text)),
        (any_index(), 1..20_usize).prop_map(|(at, length)| Change::Remove(at, length)),
        (any_index(), 1..40_usize).prop_map(|(at, length)| Change::Repeat(at, length)),
    ];
    proptest::collection::vec(change, 1..6)
}

fn mutate(text: &str, changes: &[Change]) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for change in changes {
        let place = |at: &prop::sample::Index| at.index(chars.len() + 1);
        match change {
            Change::Insert(at, piece) => {
                let at = place(at);
                chars.splice(at..at, piece.chars());
            }
            Change::Remove(at, length) => {
                let at = place(at);
                chars.drain(at..(at + length).min(chars.len()));
            }
            Change::Repeat(at, length) => {
                let at = place(at);
                let part: Vec<char> = chars[at..(at + length).min(chars.len())].to_vec();
                chars.splice(at..at, part);
            }
        }
    }
    chars.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_loader_panic(which in any::<prop::sample::Index>(), changes in changes()) {
        let corpus = corpus();
        let text = mutate(&corpus[which.index(corpus.len())], &changes);
        let sources = Sources::from_texts([("a", text.as_str())]);
        let diagnostics = match compile(&sources) {
            Ok((catalog, warnings)) => {
                prop_assert_eq!(&Catalog::from_bytes(&catalog.to_bytes()).unwrap(), &catalog);
                warnings
            }
            Err(diagnostics) => {
                prop_assert!(!diagnostics.is_empty());
                diagnostics
            }
        };
        for diagnostic in diagnostics {
            prop_assert!(!diagnostic.render().is_empty());
            prop_assert!(diagnostic.severity == Severity::Warning || diagnostic.hint.is_some());
        }
    }
}
