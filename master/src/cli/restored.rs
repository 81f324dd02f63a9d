//! What a restore came to, as people read it: whose store from when, every command that it ended, and what to do next. Asks nobody. The
//! surprise: the commands stand first and all of them, for a second restore would not name them again, and what is next stands last,
//! where a terminal is read.

use std::io::{self, Write};
use std::path::Path;

use serde_json::json;

use super::show::{Look, plural, since};
use super::table::{self, Cell, column, printable};
use crate::backup::{LeftCommand, Outcome};

pub(super) fn restored(out: &mut dyn Write, outcome: &Outcome, data: &Path, look: &Look) -> io::Result<()> {
    commands(out, &outcome.given_up, look)?;
    let mut say = |text: String| writeln!(out, "{}", table::wrapped(&printable(&text), look.width));
    let ago = since(&json!(outcome.head_at), look);
    say(format!(
        "installation {} is as it was at {}, {ago} ago (row {} of the journal)",
        outcome.installation, outcome.head_at, outcome.head
    ))?;
    say(format!("timeline {} begins: no number of the lost one is given again", outcome.timeline))?;
    if let Some(aside) = &outcome.aside {
        say(format!("what was there before lies in {}", aside.display()))?;
    }
    if !outcome.history {
        say("history is made anew from the journal at the next start".to_owned())?;
    }
    if outcome.keys {
        say(format!(
            "next: start the master on {}; satellites send again what they still have, and `perigee-master gaps` names the rest",
            data.display()
        ))
    } else {
        say(format!(
            "next: put the CA's key back as {}, or start the master with --ca-certificate and --ca-key",
            data.join("trust/ca.key").display()
        ))
    }
}

/// Commands that nobody is told of any more, with what it takes to give them again.
fn commands(out: &mut dyn Write, given_up: &[LeftCommand], look: &Look) -> io::Result<()> {
    if given_up.is_empty() {
        return Ok(());
    }
    let columns = [
        column("GIVEN").right(),
        column("WHAT"),
        column("CHECK"),
        column("AUTHOR").expendable(2),
        column("TEXT").expendable(1),
    ];
    let row = |command: &LeftCommand| {
        let state = command.state.map(|state| state.to_string());
        let parts = [state.as_deref().unwrap_or_default(), command.output.as_deref().unwrap_or_default()];
        vec![
            Cell::from(format!("{} ago", since(&json!(command.at), look))),
            Cell::from(command.what),
            Cell::from(&command.object),
            Cell::from(&command.author),
            Cell::from(parts.join(" ").trim()),
        ]
    };
    let rows: Vec<Vec<Cell>> = given_up.iter().map(row).collect();
    out.write_all(table::render(&columns, &rows, look.width, look.colours).as_bytes())?;
    let many = u64::try_from(given_up.len()).unwrap_or(u64::MAX);
    let said = format!(
        "{} no answer in the backup, and nobody is told any more: give again what is still wanted",
        plural(many, "command had", "commands had")
    );
    writeln!(out, "\n{}\n", table::wrapped(&said, look.width))
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::check::State;
    use shared::name::{CheckId, JournalIndex};
    use shared::time::Timestamp;

    const WIDTH: usize = 80;
    /// 2026-01-01T00:00:00Z
    const MADE: i64 = 1_767_225_600_000;

    fn outcome(given_up: Vec<LeftCommand>) -> Outcome {
        Outcome {
            installation: "3bvnghmpkk6fxsod".to_owned(),
            made: "2026-01-01T00:00:00Z".to_owned(),
            head: JournalIndex(25),
            head_at: Timestamp::from_millis(MADE),
            timeline: "b32ef8cd7f1b7eae".to_owned(),
            first_check: CheckId(57),
            history: true,
            keys: true,
            given_up,
            aside: Some("/var/lib/perigee/before-restore-1".into()),
        }
    }

    fn written(outcome: &Outcome) -> String {
        let look = Look { width: WIDTH, colours: false, now: "2026-01-02T03:00:00Z".parse().unwrap() };
        let mut out = Vec::new();
        restored(&mut out, outcome, Path::new("/var/lib/perigee"), &look).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_command_is_named_before_what_is_next_and_no_line_is_too_long() {
        let command = |number: usize| LeftCommand {
            command: JournalIndex(9),
            object: format!("web{number:02}.eu.example.net!load"),
            what: "passive-result",
            state: Some(State::Warning),
            output: Some(
                "many users \u{1b}[31m, and a text that is far longer than what is left of the line".to_owned(),
            ),
            author: "ann".to_owned(),
            at: Timestamp::from_millis(MADE),
        };
        let text = written(&outcome((0..50).map(command).collect()));
        assert!((0..50).all(|number| text.contains(&format!("web{number:02}.eu.example.net!load"))), "{text}");
        assert!(text.contains("1d 3h ago  passive-result  web00.eu.example.net!load  "), "{text}");
        assert_eq!(
            text.matches("  WARNING many users").count(),
            50,
            "what was said is worth more room than who said it: {text}"
        );
        assert!(text.contains("\n50 commands had no answer in the backup"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH) && !text.contains('\u{1b}'), "{text}");
        let next = text.find("next: start the master on /var/lib/perigee").unwrap();
        assert!(text.find("web49").unwrap() < next && !text[next..].contains('\u{1b}'), "{text}");
    }

    #[test]
    fn nothing_is_said_of_commands_where_there_are_none_and_a_missing_key_is_what_is_next() {
        let text = written(&outcome(Vec::new()));
        assert!(text.starts_with("installation 3bvnghmpkk6fxsod is as it was at 2026-01-01T00:00:00"), "{text}");
        let text = written(&Outcome { keys: false, history: false, ..outcome(Vec::new()) });
        assert!(text.contains("history is made anew") && text.contains("next: put the CA's key back"), "{text}");
        assert!(!text.contains("start the master on"), "{text}");
    }
}
