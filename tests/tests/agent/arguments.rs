//! Arguments, as an nrpe built with them does by its documentation: Debian's is built without and can be no oracle. Each row is a
//! line of the configuration, a request, and what a plugin is given.

use tests::agent::Agent;
use tests::nrpe::{Transport, installed};

use crate::scene::PATIENCE;

const COMMANDS: &[(&str, &str)] = &[
    ("two", "/usr/bin/printf '[%s]' \"$ARG1$\" \"$ARG2$\""),
    ("bare", "/usr/bin/printf '[%s]' $ARG1$"),
    ("last", "/usr/bin/printf '[%s]' \"$ARG16$\" \"$ARG17$\""),
    ("dollars", "/usr/bin/printf '[%s]' \"$ARG1$\" '$$' '$ARG1x$'"),
    ("built_in", "@load -w $ARG1$"),
];

/// Request by `check_nrpe -c … -a …`, and the text that comes back.
const ANSWERED: &[(&str, &[&str], &str)] = &[
    ("two", &["a", "b"], "[a][b]"),
    ("two", &["a"], "[a][]"),
    ("two", &[], "[][]"),
    ("two", &["a b", "c*"], "[a b][c*]"),
    ("two!a!b", &[], "[a][b]"),
    // The separator cannot be escaped, and empty arguments vanish.
    ("two", &["a!b"], "[a][b]"),
    ("two!a!!b", &[], "[a][b]"),
    ("!two!a!b", &[], "[a][b]"),
    ("bare", &["a b"], "[a][b]"),
    ("bare", &["ä#~()"], "NRPE: Unable to read output"),
    ("bare", &["ä#~"], "[ä#~]"),
    ("last", &["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16", "17"], "[16][]"),
    ("dollars", &["x"], "[x][$][x]"),
    ("two", &["$ARG2$", "b"], "[$][b]"),
];

#[test]
fn arguments_reach_the_command_as_nrpe_built_with_them_passes_them() {
    if !installed() {
        return;
    }
    for transport in [Transport::Plain, Transport::Anonymous] {
        let agent = Agent::start(transport, COMMANDS, "dont_blame_nrpe=1\n").unwrap();
        for (request, arguments, expected) in ANSWERED {
            let mut more: Vec<&str> = Vec::new();
            if !arguments.is_empty() {
                more.push("-a");
                more.extend(*arguments);
            }
            let said = agent.check_nrpe(request, PATIENCE, &more).unwrap();
            let text = String::from_utf8_lossy(&said.stdout).trim_end().to_owned();
            assert_eq!(&text, expected, "{request} {arguments:?} {transport:?}: {said:?}\n{}", agent.log());
        }
    }
}

#[test]
fn characters_and_substitutions_are_refused_where_arguments_are_allowed() {
    if !installed() {
        return;
    }
    let agent = Agent::start(Transport::Plain, COMMANDS, "dont_blame_nrpe=1\n").unwrap();
    // First what is looked for in the log, which names a bounded number of refusals a second.
    for argument in
        ["$(id)", "a;b", "a|b", "`id`", "a&b", "a>b", "a<b", "'a'", "a\\b", "[a]", "{a}", "a\nb", "a\rb", "x$(id)y"]
    {
        let said = agent.check_nrpe("two", PATIENCE, &["-a", argument]).unwrap();
        assert_eq!(said.status, 3, "{argument:?}: {said:?}");
        assert!(String::from_utf8_lossy(&said.stdout).contains("0 bytes received"), "{argument:?}: {said:?}");
    }
    assert!(agent.log().contains("an argument contains $("), "{}", agent.log());
}

#[test]
fn a_line_that_grows_too_long_is_not_run_at_all() {
    if !installed() {
        return;
    }
    let line = format!("/bin/echo {} $ARG1$ $ARG1$", "x".repeat(300));
    let agent = Agent::start(Transport::Plain, &[("long", &line)], "dont_blame_nrpe=1\n").unwrap();
    let said = agent.check_nrpe("long", PATIENCE, &["-a", &"y".repeat(900)]).unwrap();
    assert_eq!(said.status, 3);
    assert!(String::from_utf8_lossy(&said.stdout).contains("at most 2047 are run"), "{said:?}");
}

#[test]
fn an_argument_of_a_built_in_is_one_word_and_meets_no_shell() {
    if !installed() {
        return;
    }
    let agent = Agent::start(Transport::Plain, COMMANDS, "dont_blame_nrpe=1\nnasty_metachars=\\a\n").unwrap();
    let touched = agent.directory().join("touched");
    let evil = format!("1000; touch {}", touched.display());
    let said = agent.check_nrpe("built_in", PATIENCE, &["-a", &evil]).unwrap();
    assert_eq!(said.status, 3, "{said:?}");
    assert!(!touched.exists());
    let said = agent.check_nrpe("built_in", PATIENCE, &["-a", "100000"]).unwrap();
    assert_eq!(said.status, 0, "{said:?}");
    assert!(String::from_utf8_lossy(&said.stdout).starts_with("LOAD OK"), "{said:?}");
}
