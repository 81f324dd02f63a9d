//! What must not occur in our text, and what every room begins with. Whether clippy would see it too does not matter: a rule
//! here also holds for code that is not compiled on this machine.

use crate::source::{self, Parts, line_of, split, word_offsets};
use crate::{Complaint, none_of};

/// Code that is refused, with what to do instead.
const CODE: [(&str, &str); 8] = [
    ("unsafe", "unsafe code is forbidden"),
    ("todo!", "finish it"),
    ("unimplemented!", "finish it"),
    ("dbg!", "use tracing"),
    ("#[allow(", "use #[expect(…, reason = …)], or better, fix it"),
    ("#![allow(", "use #![expect(…, reason = …)], or better, fix it"),
    ("#[ignore", "call tests::missing::missing for what is not there"),
    ("super::super::", "name the room: crate::room"),
];

/// Words that a comment keeps for later.
const COMMENTS: [&str; 3] = ["TODO", "FIXME", "XXX"];

/// The only product rooms that name OpenSSL, NRPE's client side and its daemon side; the tests make TLS daemons of their own.
const OPENSSL_ROOMS: [&str; 2] = ["satellite/src/probe/nrpe/tls", "satellite/src/agent/tls"];

fn refused(path: &str, parts: &Parts) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for (word, advice) in CODE {
        for at in word_offsets(&parts.code, word) {
            complaints.push(format!("{path}:{}: `{word}`: {advice}", line_of(&parts.code, at)));
        }
    }
    for word in COMMENTS {
        for at in word_offsets(&parts.comments, word) {
            complaints
                .push(format!("{path}:{}: {word} in a comment: do it, or file an issue", line_of(&parts.comments, at)));
        }
    }
    for at in word_offsets(&parts.code, "expect(").filter(|at| parts.code[..*at].ends_with(['[', ' ', '('])) {
        let attribute = &parts.code[at..];
        let is_attribute = parts.code[..at].trim_end().ends_with("#[") || parts.code[..at].trim_end().ends_with("#![");
        let end = attribute.find(']').unwrap_or(attribute.len());
        if is_attribute && word_offsets(&attribute[..end], "reason").next().is_none() {
            complaints.push(format!("{path}:{}: an expected lint without `reason`", line_of(&parts.code, at)));
        }
    }
    complaints
}

fn opens_with_its_purpose(path: &str, text: &str) -> Option<Complaint> {
    let words =
        text.lines().take_while(|line| line.starts_with("//!")).flat_map(|line| line[3..].split_whitespace()).count();
    // Fewer than five words name the room again and say nothing.
    (words < 5)
        .then(|| format!("{path}:1: a room opens with `//!`: what it does or decides, and what it does not know"))
}

fn openssl_outside_its_room(path: &str, parts: &Parts) -> Vec<Complaint> {
    let allowed = OPENSSL_ROOMS.iter().any(|room| path.starts_with(room)) || path.starts_with("tests/");
    let words = ["openssl", "tokio_openssl", "hyper_openssl", "openssl_sys"];
    let offsets = words.iter().flat_map(|word| word_offsets(&parts.code, word));
    offsets
        .filter(|_| !allowed)
        .map(|at| {
            format!("{path}:{}: OpenSSL is named in {} only", line_of(&parts.code, at), OPENSSL_ROOMS.join(" and "))
        })
        .collect()
}

/// A folder of the machine that this tree was first written on.
fn machine_path() -> String {
    ["/wo", "rk/"].concat()
}

fn machine_paths(path: &str, text: &str) -> Vec<Complaint> {
    let needle = machine_path();
    text.lines()
        .enumerate()
        // As the beginning of a path; docs/work/ is somebody's folder.
        .filter(|(_, line)| {
            line.match_indices(&needle).any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '.'))
        })
        .map(|(line, _)| format!("{path}:{}: a path of one machine", line + 1))
        .collect()
}

#[test]
fn no_refused_word_is_in_the_tree() {
    let complaints: Vec<_> =
        source::rust_files().iter().flat_map(|file| refused(&file.path, &split(&file.text))).collect();
    none_of(&complaints);
}

#[test]
fn every_room_opens_with_its_purpose() {
    let complaints: Vec<_> =
        source::rust_files().iter().filter_map(|file| opens_with_its_purpose(&file.path, &file.text)).collect();
    none_of(&complaints);
}

#[test]
fn openssl_is_named_in_two_rooms() {
    let files = source::rust_files();
    none_of(
        &files.iter().flat_map(|file| openssl_outside_its_room(&file.path, &split(&file.text))).collect::<Vec<_>>(),
    );
}

#[test]
fn no_path_of_one_machine_is_in_the_tree() {
    none_of(&source::texts("").iter().flat_map(|file| machine_paths(&file.path, &file.text)).collect::<Vec<_>>());
}

#[test]
fn each_refused_word_is_found() {
    for (word, _) in CODE {
        let text = format!("fn a() {{}}\n{word} b\n");
        let found = refused("a.rs", &split(&text));
        assert!(found.first().is_some_and(|complaint| complaint.starts_with("a.rs:2: ")), "{word}: {found:?}");
        assert!(refused("a.rs", &split(&format!("// {word}\nlet a = \"{word}\";"))).is_empty(), "{word} outside code");
    }
    for word in COMMENTS {
        assert_eq!(refused("a.rs", &split(&format!("//! {word}: later\n"))).len(), 1, "{word}");
    }
    assert_eq!(refused("a.rs", &split("#[expect(clippy::b)]\nfn c() {}")).len(), 1);
    assert!(refused("a.rs", &split("#[expect(clippy::b, reason = \"d\")]\nfn c() { e.expect(\"f\"); }")).is_empty());
}

#[test]
fn a_room_without_purpose_is_found() {
    assert!(opens_with_its_purpose("a.rs", "use b;\n").is_some());
    assert!(opens_with_its_purpose("a.rs", "//! stub\n").is_some());
    assert!(opens_with_its_purpose("a.rs", "//! Decides what is due next. Knows no clock.\n").is_none());
}

#[test]
fn openssl_in_another_room_is_found() {
    let parts = split("use openssl::ssl::SslConnector;");
    assert_eq!(openssl_outside_its_room("satellite/src/link.rs", &parts).len(), 1);
    assert_eq!(openssl_outside_its_room("satellite/src/agent/config/tls.rs", &parts).len(), 1);
    assert!(openssl_outside_its_room("satellite/src/probe/nrpe/tls.rs", &parts).is_empty());
    assert!(openssl_outside_its_room("satellite/src/agent/tls.rs", &parts).is_empty());
}

#[test]
fn a_path_of_one_machine_is_found() {
    assert_eq!(machine_paths("a.sh", &format!("cd {}perigee", machine_path())).len(), 1);
    assert!(machine_paths("a.sh", &format!("cd docs{}perigee", machine_path())).is_empty());
}
