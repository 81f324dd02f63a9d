//! Commands to the owners of checks, as they are typed: check now, a result from outside, a reset, and which of them wait. Asks the running master; decides
//! nothing. The surprise: a command that was taken and waits for a silent slot exits with 1, for nobody has done it yet.

use std::io::{self, Read as _, Write};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use shared::name::ObjectName;

use super::client::{Client, Failure};
use super::show::Look;
use super::table::{self, Cell, column, printable};
use super::{GOOD, NO, Reach, WAIT, all, client, show, write_json};

/// Text of a result that is read from standard input, in bytes; the master refuses more than it takes.
const INPUT_BYTES_MAX: u64 = 1024 * 1024;

const EXIT_STATUS: &str = "Exit status: 0 the owners were told, 1 a command waits, 2 wrong use, or no such object, \
                           3 master not reached or it took nothing.";

/// What can be asked of the owner of a check.
#[derive(Debug, Clone, Subcommand)]
pub enum OwnerCommand {
    /// Show the commands that wait for their answer, oldest first
    #[command(after_help = format!("\
To: who owns the check now. A command to a slot that is connected has been told, and its answer is to come; one to a silent slot waits \
until the slot is back or another owns the check. A filter is one or more terms, as for `problems`. Fields: host, service, what, \
author, region, slot, told, reason.

Examples:
  perigee-master commands --data /var/lib/perigee
  perigee-master commands --filter 'region=eu told=false' --json

{}", super::EXIT_STATUS))]
    Commands {
        /// Which ones
        #[arg(long, value_name = "FILTER")]
        filter: Option<String>,
        #[command(flatten)]
        reach: Reach,
    },
    /// Run checks now, whatever their place in time
    #[command(after_help = format!("\
The slot that owns the check runs it at once, or again when one is running already; its result comes as every other does. While that \
slot is silent the command waits for it, or for the next owner: 256 for a slot at most. A filter is written as for `problems`.

Examples:
  perigee-master check 'web01!load' --data /var/lib/perigee
  perigee-master check web01 'web01!disk /' --data /var/lib/perigee
  perigee-master check --filter 'group=linux state=CRITICAL' --data /var/lib/perigee

{EXIT_STATUS}"))]
    Check {
        #[command(flatten)]
        objects: Objects,
        #[command(flatten)]
        reach: Reach,
    },
    /// Give a check a result from outside, as if its plugin had said so
    #[command(after_help = format!("\
The owner of the check takes it as the result of an execution at this moment: it counts as an attempt, it goes into history and \
metrics, and the next execution replaces it. Behind a bar stands performance data; with `-` the text is read from standard input.

Examples:
  perigee-master result 'web01!backup' OK '42 files|files=42' --data /var/lib/perigee
  perigee-master result web01 DOWN 'switched off for good' --data /var/lib/perigee
  ./nightly.sh | perigee-master result 'web01!nightly' WARNING - --data /var/lib/perigee

{EXIT_STATUS}"))]
    Result {
        /// Host or host!service
        #[arg(value_name = "OBJ")]
        object: ObjectName,
        /// OK, WARNING, CRITICAL or UNKNOWN, or 0 to 3; of a host UP or DOWN
        #[arg(value_name = "STATE")]
        state: String,
        /// What a plugin would print; `-` for standard input
        #[arg(value_name = "TEXT")]
        text: String,
        #[command(flatten)]
        reach: Reach,
    },
    /// Forget the state of checks: good, hard, and never flapped
    #[command(after_help = format!("\
For a check whose past says nothing any more, as after a repair. The owner sets it to OK (a host to UP) and tells that as a result; \
what is wrong still, the next execution finds, as a first attempt. A filter is written as for `problems`.

Examples:
  perigee-master reset 'web01!load' --data /var/lib/perigee
  perigee-master reset --filter 'host=web01' --data /var/lib/perigee

{EXIT_STATUS}"))]
    Reset {
        #[command(flatten)]
        objects: Objects,
        #[command(flatten)]
        reach: Reach,
    },
}

/// Which checks: by name, or all that fit a filter.
#[derive(Debug, Clone, Args)]
pub struct Objects {
    /// Hosts and host!services
    #[arg(value_name = "OBJ", required_unless_present = "filter", conflicts_with = "filter")]
    objects: Vec<ObjectName>,
    /// All hosts and services that fit
    #[arg(long, value_name = "FILTER")]
    filter: Option<String>,
}

/// Asks it.
pub(super) fn ask(command: &OwnerCommand, look: &Look, out: &mut Vec<u8>) -> Result<u8, Failure> {
    match command {
        OwnerCommand::Commands { filter, reach } => {
            let commands = all(reach, "commands", filter.as_deref())?;
            if reach.json {
                write_json(out, &commands)?
            } else {
                waiting(out, &commands, filter.is_some(), look)?
            }
            Ok(GOOD)
        }
        OwnerCommand::Check { objects, reach } => each("actions/check-now", objects, reach, out),
        OwnerCommand::Reset { objects, reach } => each("actions/reset", objects, reach, out),
        OwnerCommand::Result { object, state, text, reach } => {
            let text = if text == "-" { from_input()? } else { text.clone() };
            let body = json!({ "host": object.host, "service": object.service, "state": state, "output": text });
            let answer = client(reach)?.send("actions/passive-result", &body, WAIT)?;
            tell(&[answer], reach, out)
        }
    }
}

fn from_input() -> Result<String, Failure> {
    let mut text = String::new();
    let read = io::stdin().take(INPUT_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| Failure::Wrong(format!("cannot read the text from standard input: {error}")))?;
    Ok(text.trim_end().to_owned())
}

/// Asks the same of several. Whoever is asked before one fails has been asked.
fn each(path: &str, objects: &Objects, reach: &Reach, out: &mut Vec<u8>) -> Result<u8, Failure> {
    let client = client(reach)?;
    let mut answers = Vec::new();
    for body in bodies(objects, reach)? {
        match send(&client, path, &body) {
            Ok(answer) => answers.push(answer),
            Err(failure) => {
                tell(&answers, reach, out)?;
                return Err(failure);
            }
        }
    }
    tell(&answers, reach, out)
}

fn send(client: &Client, path: &str, body: &Value) -> Result<Value, Failure> {
    client.send(path, body, WAIT)
}

fn bodies(objects: &Objects, reach: &Reach) -> Result<Vec<Value>, Failure> {
    let body = |host: &Value, service: &Value| json!({ "host": host, "service": service });
    let Some(filter) = &objects.filter else {
        let named = objects.objects.iter();
        return Ok(named.map(|name| json!({ "host": name.host, "service": name.service })).collect());
    };
    let mut found = Vec::new();
    for list in ["hosts", "services"] {
        let listed = all(reach, list, Some(filter))?;
        found.extend(show::items(&listed).iter().map(|item| body(&item["host"], &item["service"])));
    }
    if found.is_empty() {
        return Err(Failure::Wrong("no host and no service fits the filter".to_owned()));
    }
    Ok(found)
}

/// Commands without their answer.
fn waiting(out: &mut dyn Write, commands: &Value, filtered: bool, look: &Look) -> io::Result<()> {
    if show::items(commands).is_empty() {
        let which = if filtered { " that fits the filter" } else { "" };
        return writeln!(out, "no command{which} waits");
    }
    let columns = [
        column("WAITS").right(),
        column("WHAT"),
        column("CHECK"),
        column("TO"),
        column("AUTHOR").expendable(1),
        column("COMMAND").expendable(2).right(),
        column("TEXT").expendable(3),
    ];
    let row = |command: &Value| {
        let (told, whom) = to(command);
        let outside = [&command["state"], &command["output"]].map(|part| part.as_str().unwrap_or_default());
        vec![
            Cell::from(show::since(&command["at"], look)),
            Cell::from(show::text(&command["what"])),
            Cell::from(object(command)),
            Cell::from(whom).coloured(Some("33").filter(|_| !told)),
            Cell::from(show::text(&command["author"])),
            Cell::from(show::text(&command["index"])),
            Cell::from(outside.join(" ").trim()),
        ]
    };
    let rows: Vec<Vec<Cell>> = show::items(commands).iter().map(row).collect();
    out.write_all(table::render(&columns, &rows, look.width, look.colours).as_bytes())?;
    let untold = show::items(commands).iter().filter(|command| command["told"] != true).count();
    let noun = if rows.len() == 1 { "command waits" } else { "commands wait" };
    writeln!(out, "\n{} {noun}, {untold} of them for an owner that could not be told yet", rows.len())
}

/// Whether the owner was told, and who it is.
fn to(command: &Value) -> (bool, String) {
    let slot = format!("{}/{}", show::text(&command["region"]), show::text(&command["slot"]));
    match command["reason"].as_str() {
        None => (true, slot),
        Some("silent") => (false, format!("{slot} silent")),
        Some("old-version") => (false, format!("{slot} too old")),
        Some(_) => (false, "nobody yet".to_owned()),
    }
}

fn object(answer: &Value) -> String {
    let host = answer["host"].as_str().unwrap_or_default();
    match answer["service"].as_str() {
        Some(service) => format!("{host}!{service}"),
        None => host.to_owned(),
    }
}

fn tell(answers: &[Value], reach: &Reach, out: &mut Vec<u8>) -> Result<u8, Failure> {
    if reach.json {
        write_json(out, &json!({ "total": answers.len(), "items": answers }))?;
    } else {
        for answer in answers {
            writeln!(out, "{}: {}", printable(&object(answer)), printable(answer["text"].as_str().unwrap_or("done")))?;
        }
    }
    let waits = answers.iter().any(|answer| answer["result"] != "told");
    Ok(if waits { NO } else { GOOD })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_that_wait_say_for_whom_and_fit_80_columns() {
        let command = |index: u64, service: &str, reason: Option<&str>, state: Option<&str>, output: Option<&str>| {
            json!({
                "index": index, "at": "2026-01-01T00:57:00Z", "waiting_seconds": 180, "author": "ann", "host": "web01",
                "service": service, "what": if output.is_some() { "passive-result" } else { "check-now" }, "state": state,
                "output": output, "region": "eu", "slot": 2, "told": reason.is_none(), "reason": reason,
            })
        };
        let long = "backup took 3 hours and left 42 files behind ".repeat(4);
        let list = json!({ "items": [
            command(7, "load", None, None, None),
            command(1234, "nightly", Some("silent"), Some("WARNING"), Some(&long)),
            command(1235, "disk", Some("old-version"), None, None),
            command(1236, "disk", Some("no-owner"), None, None),
        ] });
        let written = |list: &Value, filtered: bool, width: usize| {
            let mut out = Vec::new();
            let now = "2026-01-01T01:00:00Z".parse().unwrap();
            waiting(&mut out, list, filtered, &Look { width, colours: false, now }).unwrap();
            String::from_utf8(out).unwrap()
        };
        for width in [80, 200] {
            let text = written(&list, false, width);
            assert!(text.lines().all(|line| line.chars().count() <= width), "{text}");
            for part in ["3m 0s  check-now", "web01!load", "eu/2 silent", "eu/2 too old", "nobody yet"] {
                assert!(text.contains(part), "{part}: {text}");
            }
            assert!(text.ends_with("\n4 commands wait, 3 of them for an owner that could not be told yet\n"), "{text}");
        }
        assert!(written(&list, false, 200).contains("ann        1234  WARNING backup took"));
        let none = json!({ "items": [] });
        assert_eq!(written(&none, false, 80), "no command waits\n");
        assert_eq!(written(&none, true, 80), "no command that fits the filter waits\n");
    }
}
