//! Commands to the owners of checks, as they are typed: check now, a result from outside, a reset. Asks the running master; decides
//! nothing. The surprise: a command that was taken and waits for a silent slot exits with 1, for nobody has done it yet.

use std::io::{Read as _, Write as _};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use shared::name::ObjectName;

use super::client::{Client, Failure};
use super::table::printable;
use super::{GOOD, NO, Reach, WAIT, all, client, show, write_json};

/// Text of a result that is read from standard input, in bytes; the master refuses more than it takes.
const INPUT_BYTES_MAX: u64 = 1024 * 1024;

/// What can be asked of the owner of a check.
#[derive(Debug, Clone, Subcommand)]
pub enum OwnerCommand {
    /// Run checks now, whatever their place in time
    #[command(after_help = "\
The slot that owns the check runs it at once, or again when one is running already; its result comes as every other does. While that \
slot is silent the command waits for it, or for the next owner: 256 for a slot at most. A filter is written as for `problems`.

Examples:
  perigee-master check 'web01!load' --data /var/lib/perigee
  perigee-master check web01 'web01!disk /' --data /var/lib/perigee
  perigee-master check --filter 'group=linux state=CRITICAL' --data /var/lib/perigee

Exit status: 0 the owners were told, 1 a command waits, 2 wrong use, or no such object, 3 master not reached or it took nothing.")]
    Check {
        #[command(flatten)]
        objects: Objects,
        #[command(flatten)]
        reach: Reach,
    },
    /// Give a check a result from outside, as if its plugin had said so
    #[command(after_help = "\
The owner of the check takes it as the result of an execution at this moment: it counts as an attempt, it goes into history and \
metrics, and the next execution replaces it. Behind a bar stands performance data; with `-` the text is read from standard input.

Examples:
  perigee-master result 'web01!backup' OK '42 files|files=42' --data /var/lib/perigee
  perigee-master result web01 DOWN 'switched off for good' --data /var/lib/perigee
  ./nightly.sh | perigee-master result 'web01!nightly' WARNING - --data /var/lib/perigee

Exit status: 0 the owner was told, 1 the result waits, 2 wrong use, or no such object, 3 master not reached or it took nothing.")]
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
    #[command(after_help = "\
For a check whose past says nothing any more, as after a repair. The owner sets it to OK (a host to UP) and tells that as a result; \
what is wrong still, the next execution finds, as a first attempt. A filter is written as for `problems`.

Examples:
  perigee-master reset 'web01!load' --data /var/lib/perigee
  perigee-master reset --filter 'host=web01' --data /var/lib/perigee

Exit status: 0 the owners were told, 1 a command waits, 2 wrong use, or no such object, 3 master not reached or it took nothing.")]
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
pub(super) fn ask(command: &OwnerCommand, out: &mut Vec<u8>) -> Result<u8, Failure> {
    match command {
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
    let read = std::io::stdin().take(INPUT_BYTES_MAX).read_to_string(&mut text);
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

fn tell(answers: &[Value], reach: &Reach, out: &mut Vec<u8>) -> Result<u8, Failure> {
    if reach.json {
        write_json(out, &json!({ "total": answers.len(), "items": answers }))?;
    } else {
        for answer in answers {
            let host = answer["host"].as_str().unwrap_or_default();
            let name = match answer["service"].as_str() {
                Some(service) => format!("{host}!{service}"),
                None => host.to_owned(),
            };
            writeln!(out, "{}: {}", printable(&name), printable(answer["text"].as_str().unwrap_or("done")))?;
        }
    }
    let waits = answers.iter().any(|answer| answer["result"] != "told");
    Ok(if waits { NO } else { GOOD })
}
