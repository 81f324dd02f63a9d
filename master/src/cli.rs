//! The commands people type: what they take, whom they ask, and with which exit status they end. Asks the running master through its
//! API only; `check-config`, `token` and `certificate` work on files and need no master. The surprise: the exit status is part of the
//! answer, 1 means "no" and is no failure.
#![expect(clippy::disallowed_methods, reason = "ages are shown against the wall clock: a shell room")]

mod backup;
mod client;
mod command;
mod gaps;
mod order;
mod restored;
mod show;
mod table;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use shared::name::{RegionName, SlotNumber};

use crate::api::token::{self, Role};
use crate::config::check_config;
use crate::trust::{self, GivenCa, SLOT_DAYS};

use client::{Client, Failure};
use command::OwnerCommand;
use order::{MovesCommand, SlotPath};
use show::Look;

/// The answer is good.
const GOOD: u8 = 0;
/// The answer is no: there are problems, or an expected slot is missing.
const NO: u8 = 1;
/// Wrong use, a configuration with mistakes, or a right that is missing.
const WRONG: u8 = 2;
/// The master is not reached, or cannot answer.
const NOT_REACHED: u8 = 3;
/// An apply waits for the compilation of the whole configuration.
const APPLY_WAIT: Duration = Duration::from_secs(310);
/// What every other question waits for.
const WAIT: Duration = Duration::from_secs(30);

const EXIT_STATUS: &str =
    "Exit status: 0 good, 1 the answer is no, 2 wrong use or configuration, 3 master not reached.";

/// Where the master is and how to write the answer.
#[derive(Debug, Clone, Args)]
pub struct Reach {
    /// The master's data directory, on the machine it runs on: asks through the socket in it, without a token
    #[arg(long, value_name = "DIR", env = "PERIGEE_DATA")]
    data: Option<PathBuf>,
    /// The master's address, as in https://master.example.net:8443; with it --token-file is needed
    #[arg(long, value_name = "URL", env = "PERIGEE_URL")]
    url: Option<String>,
    /// File that holds a token (`perigee-master token create` makes one)
    #[arg(long, value_name = "FILE", env = "PERIGEE_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Certificates to trust for https, PEM; without it those of the system
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Write the answer as JSON, as the API gives it
    #[arg(long)]
    json: bool,
}

/// What can be asked.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Check a configuration: every mistake with its place, or what each region would have to do
    #[command(after_help = "\
Needs no running master and changes nothing.

Examples:
  perigee-master check-config /etc/perigee
  perigee-master check-config hosts.yaml --json

Exit status: 0 it can be activated, 2 it has mistakes.")]
    CheckConfig {
        /// File or directory
        #[arg(value_name = "PATH")]
        path: PathBuf,
        /// Write the answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// Take the changed configuration into the running master
    #[command(after_help = "\
The master reads its configuration again, activates it and tells the satellites what changed. Checks that did not change keep their
state and their place in time. With mistakes nothing changes and every mistake is shown.

Example:
  perigee-master apply --data /var/lib/perigee

Exit status: 0 it runs (or ran already), 2 it has mistakes, 3 master not reached.")]
    Apply {
        #[command(flatten)]
        reach: Reach,
    },
    /// Show the installation at one glance
    #[command(after_help = format!("\
Examples:
  perigee-master status --data /var/lib/perigee
  PERIGEE_URL=https://master:8443 PERIGEE_TOKEN_FILE=~/token perigee-master status --json

{EXIT_STATUS}"))]
    Status {
        #[command(flatten)]
        reach: Reach,
    },
    /// Show what is wrong: lost slots first, then hosts and services with a problem, worst first
    #[command(after_help = format!("\
A filter is one or more terms: field=value, field!=value (* and ? are wildcards), or a word to look for. Fields: host, service, region,
slot, state, state_type, problem, stale, group, command. Terms of one field with = are alternatives.

Examples:
  perigee-master problems --data /var/lib/perigee
  perigee-master problems --filter 'region=eu state=CRITICAL state=DOWN'
  perigee-master problems --filter 'service=\"disk *\" group!=test'

Exits 1 when there are problems.
{EXIT_STATUS}"))]
    Problems {
        /// Which ones
        #[arg(long, value_name = "FILTER")]
        filter: Option<String>,
        #[command(flatten)]
        reach: Reach,
    },
    /// Show the slots of every region, expected or seen
    #[command(after_help = format!("\
Link: lost is a slot of which nothing was heard for its region's failover_after; drained is one that an operator took out of service.
Undelivered: results on the satellite's disk that the master has not acknowledged. Lag: age of the newest result that has arrived
while others have not. Clock: the master's clock minus the satellite's; a second is a warning, thirty are critical.

Example:
  perigee-master slots --data /var/lib/perigee

Exits 1 when an expected slot is not connected.
{EXIT_STATUS}"))]
    Slots {
        #[command(flatten)]
        reach: Reach,
    },
    /// Show results that are known to be lost, newest first
    #[command(after_help = format!("\
Nothing is lost in silence: where a bound or a damage forced results out, a gap names them. Not explained means that sequences were
missing and no satellite said why: somebody should look.

Example:
  perigee-master gaps --data /var/lib/perigee

{EXIT_STATUS}"))]
    Gaps {
        #[command(flatten)]
        reach: Reach,
    },
    #[command(flatten)]
    Owner(OwnerCommand),
    /// Take a slot out of service: others of its region take over its hosts at once
    #[command(after_help = format!("\
For work on a satellite's machine. The slot owns nothing from then on, is no loss when it falls silent, and goes on only with what no
other slot of its region can take over. It stays drained over restarts until `undrain`.

Example:
  perigee-master drain eu/1 --data /var/lib/perigee

{EXIT_STATUS}"))]
    Drain {
        /// Which one, as REGION/NUMBER
        #[arg(value_name = "SLOT")]
        slot: SlotPath,
        #[command(flatten)]
        reach: Reach,
    },
    /// Give a drained slot back: it owns hosts again once it has been connected for two minutes
    #[command(after_help = format!("\
Example:
  perigee-master undrain eu/1 --data /var/lib/perigee

{EXIT_STATUS}"))]
    Undrain {
        /// Which one, as REGION/NUMBER
        #[arg(value_name = "SLOT")]
        slot: SlotPath,
        #[command(flatten)]
        reach: Reach,
    },
    /// Hold back the moves of hosts from slot to slot, or let them go on
    #[command(
        subcommand,
        after_help = "\
A master that hears nothing of more than half of its slots at once takes itself for cut off and moves nothing until half of them are
connected again. `resume` says that it is not: each silent slot then has its usual time before its hosts move.

Examples:
  perigee-master moves hold --data /var/lib/perigee
  perigee-master moves resume --data /var/lib/perigee"
    )]
    Moves(MovesCommand),
    /// Copy the running installation into a directory, as of one moment
    #[command(after_help = format!("\
The master goes on meanwhile. The backup has the journal, checkpoints, revisions, the places of writers, history, tokens (their
digests) and the CA's certificates; with --with-keys the CA's key too: whoever has that can speak for every slot. The directory lies
on the master's machine and must be empty or not there.

Examples:
  perigee-master backup --to /backup/perigee-$(date +%F) --data /var/lib/perigee
  perigee-master backup --to /backup/now --with-keys --without-history --data /var/lib/perigee

{EXIT_STATUS}"))]
    Backup {
        /// Directory on the master's machine
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
        /// With the CA's key; without it keep that key somewhere else
        #[arg(long)]
        with_keys: bool,
        /// Without the history file: history then begins where the journal does
        #[arg(long)]
        without_history: bool,
        #[command(flatten)]
        reach: Reach,
    },
    /// Put a backup into a data directory on which no master runs
    #[command(after_help = "\
What the directory held is put aside in it (before-restore-1, …), but for its keys and tokens, which stay. A new timeline begins: no
number of the lost one is given again, nothing is told to anybody a second time, satellites send again what they still have, and what
is gone for good is named by gaps. Cut off, it can be run again; before it has ended well no master starts there.

Example:
  perigee-master restore --from /backup/perigee-2026-11-20 --data /var/lib/perigee
  perigee-master serve --config /etc/perigee --data /var/lib/perigee

Exit status: 0 it can be started, 2 the backup is damaged, the directory is in use or belongs to another installation.")]
    Restore {
        /// The backup
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
        /// The data directory
        #[arg(long, value_name = "DIR", env = "PERIGEE_DATA")]
        data: PathBuf,
        /// Write the answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// Make, list and revoke tokens for the API
    #[command(
        subcommand,
        after_help = "\
Works on the master's data directory; a running master sees a change at the next request.

Examples:
  perigee-master token create --role read --name wallboard --data /var/lib/perigee
  perigee-master token list --data /var/lib/perigee
  perigee-master token revoke 1f2e3d4c5b --data /var/lib/perigee"
    )]
    Token(TokenCommand),
    /// Write the certificate of a slot, for a satellite without a way to join
    #[command(after_help = "\
Writes slot.crt, slot.key and ca.crt into --out: give that directory to the satellite (--identity). Works on the master's data
directory, before its first start too.

Example:
  perigee-master certificate --region eu --slot 1 --out ./eu-1 --data /var/lib/perigee")]
    Certificate {
        /// The slot's region
        #[arg(long, value_name = "REGION")]
        region: RegionName,
        /// The slot's number, from 1
        #[arg(long, value_name = "NUMBER")]
        slot: SlotNumber,
        /// Days until it ends
        #[arg(long, value_name = "DAYS", default_value_t = SLOT_DAYS)]
        days: u32,
        /// Directory to write into; made if it is not there
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// The master's data directory
        #[arg(long, value_name = "DIR", env = "PERIGEE_DATA")]
        data: PathBuf,
        /// CA certificate given from outside, as to `serve`
        #[arg(long, value_name = "FILE", requires = "ca_key")]
        ca_certificate: Option<PathBuf>,
        /// Its key
        #[arg(long, value_name = "FILE", requires = "ca_certificate")]
        ca_key: Option<PathBuf>,
        /// Write the answer as JSON
        #[arg(long)]
        json: bool,
    },
}

/// What can be done with tokens.
#[derive(Debug, Clone, Subcommand)]
pub enum TokenCommand {
    /// Make a token; it is shown once, on standard output
    Create {
        /// What it may do
        #[arg(long, value_enum)]
        role: RoleName,
        /// Whose it is: becomes the author of what is done with it
        #[arg(long, value_name = "NAME", default_value = "")]
        name: String,
        #[command(flatten)]
        place: Place,
    },
    /// List tokens, without their secrets
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Revoke a token: the running master refuses it from now on and closes its event streams
    Revoke {
        /// Its id, as listed
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        place: Place,
    },
}

/// Whose tokens.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// The master's data directory
    #[arg(long, value_name = "DIR", env = "PERIGEE_DATA")]
    data: PathBuf,
    /// Write the answer as JSON
    #[arg(long)]
    json: bool,
}

/// A role by its name.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum RoleName {
    /// See everything
    Read,
    /// Act on objects
    Operate,
    /// Change the configuration
    Admin,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Read => Self::Read,
            RoleName::Operate => Self::Operate,
            RoleName::Admin => Self::Admin,
        }
    }
}

/// Does a command and gives the exit status. Answers go to standard output, complaints to standard error.
#[must_use]
pub fn run(command: Command) -> u8 {
    let stdout = io::stdout();
    let look = look(stdout.is_terminal());
    let mut answer = Vec::new();
    let outcome = perform(command, &look, &mut answer);
    // A reader that has gone away (`| head`) has had enough; the exit status still says what there was to say.
    let _ = stdout.lock().write_all(&answer).and_then(|()| stdout.lock().flush());
    match outcome {
        Ok(status) => status,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "perigee-master: {failure}");
            failure.status()
        }
    }
}

fn look(terminal: bool) -> Look {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let measured = || terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
    let width = columns.or_else(|| measured().filter(|_| terminal)).unwrap_or(usize::MAX);
    let now = jiff::Timestamp::now();
    Look { width: width.max(table::WIDTH_MIN), colours: terminal && !plain, now }
}

fn perform(command: Command, look: &Look, out: &mut Vec<u8>) -> Result<u8, Failure> {
    match command {
        Command::CheckConfig { path, json } => Ok(check_config(&path, json, out)?),
        Command::Apply { reach } => apply(&reach, out),
        Command::Status { reach } => {
            let status = ask(&reach, "status")?;
            if reach.json {
                write_json(out, &status)?
            } else {
                show::status(out, &status, look)?
            }
            Ok(GOOD)
        }
        Command::Problems { filter, reach } => problems(&reach, filter.as_deref(), look, out),
        Command::Slots { reach } => {
            let slots = all(&reach, "slots", None)?;
            if reach.json {
                write_json(out, &slots)?
            } else {
                show::slots(out, &slots, look)?
            }
            let missing = show::items(&slots).iter().any(|slot| slot["expected"] == true && slot["connected"] != true);
            Ok(if missing { NO } else { GOOD })
        }
        Command::Gaps { reach } => {
            let gaps = all(&reach, "gaps", None)?;
            if reach.json {
                write_json(out, &gaps)?
            } else {
                gaps::gaps(out, &gaps, look)?
            }
            Ok(GOOD)
        }
        Command::Owner(command) => command::ask(&command, look, out),
        Command::Drain { slot, reach } => order::drain(&slot, true, &reach, out),
        Command::Undrain { slot, reach } => order::drain(&slot, false, &reach, out),
        Command::Moves(command) => order::moves(&command, out),
        Command::Backup { to, with_keys, without_history, reach } => {
            backup::back_up(&reach, &to, with_keys, !without_history, out)
        }
        Command::Restore { from, data, json } => backup::restore(&from, &data, json, look, out),
        Command::Token(command) => tokens(command, look, out),
        Command::Certificate { region, slot, days, out: directory, data, ca_certificate, ca_key, json } => {
            let given = ca_certificate.zip(ca_key).map(|(certificate, key)| GivenCa { certificate, key });
            let issued = trust::certificate(&data, given.as_ref(), &region, slot, days, &directory);
            let issued = issued.map_err(|error| Failure::Wrong(format!("{error:#}")))?;
            if json {
                write_json(
                    out,
                    &json!({
                        "identity": issued.identity.to_string(),
                        "serial": issued.serial.to_string(),
                        "not_after": issued.not_after,
                        "directory": issued.directory,
                    }),
                )?;
            } else {
                writeln!(
                    out,
                    "{} until {}: slot.crt, slot.key and ca.crt in {}",
                    issued.identity,
                    issued.not_after,
                    issued.directory.display()
                )?;
            }
            Ok(GOOD)
        }
    }
}

fn write_json(out: &mut Vec<u8>, value: &Value) -> Result<(), Failure> {
    serde_json::to_writer_pretty(&mut *out, value).map_err(io::Error::from)?;
    Ok(writeln!(out)?)
}

fn client(reach: &Reach) -> Result<Client, Failure> {
    Client::new(reach.data.as_deref(), reach.url.as_deref(), reach.token_file.as_deref(), reach.ca.as_deref())
}

fn ask(reach: &Reach, path: &str) -> Result<Value, Failure> {
    client(reach)?.get(path, WAIT)
}

/// All pages of a list as one answer.
fn all(reach: &Reach, path: &str, filter: Option<&str>) -> Result<Value, Failure> {
    let client = client(reach)?;
    let mut items = Vec::new();
    let mut cursor = String::new();
    loop {
        let filter = filter.map(|filter| format!("&filter={}", client::encoded(filter))).unwrap_or_default();
        let mut page = client.get(&format!("{path}?limit=1000{filter}{cursor}"), WAIT)?;
        if let Some(Value::Array(more)) = page.get_mut("items").map(Value::take) {
            items.extend(more);
        }
        match page.get("next").and_then(Value::as_str) {
            Some(next) => cursor = format!("&cursor={}", client::encoded(next)),
            None => return Ok(json!({ "total": items.len(), "items": items })),
        }
    }
}

fn problems(reach: &Reach, filter: Option<&str>, look: &Look, out: &mut Vec<u8>) -> Result<u8, Failure> {
    let mut problems = all(reach, "problems", filter)?;
    let status = ask(reach, "status")?;
    // What befell the fleet fits no filter of hosts and services.
    let incidents = if filter.is_some() { Value::Array(Vec::new()) } else { status["incidents"].clone() };
    let of_fleet = incidents.as_array().is_some_and(|incidents| !incidents.is_empty());
    let any = !show::items(&problems).is_empty();
    if reach.json {
        problems["incidents"] = incidents;
        write_json(out, &problems)?;
    } else {
        if of_fleet {
            show::incidents(out, &incidents, look)?;
        }
        if any {
            show::problems(out, &problems, look)?;
        } else {
            show::no_problems(out, &status, filter.is_some())?;
        }
    }
    Ok(if any || of_fleet { NO } else { GOOD })
}

fn apply(reach: &Reach, out: &mut Vec<u8>) -> Result<u8, Failure> {
    match client(reach)?.post("actions/apply", APPLY_WAIT) {
        Ok(applied) => {
            if reach.json {
                write_json(out, &applied)?
            } else {
                show::applied(out, &applied)?
            }
            Ok(GOOD)
        }
        Err(Failure::Refused { answer, .. }) if answer["error"]["code"] == "config-mistakes" => {
            if reach.json {
                write_json(out, &answer)?
            } else {
                show::mistakes(out, &answer)?
            }
            Ok(WRONG)
        }
        Err(other) => Err(other),
    }
}

fn tokens(command: TokenCommand, look: &Look, out: &mut Vec<u8>) -> Result<u8, Failure> {
    let wrong = |error: anyhow::Error| Failure::Wrong(format!("{error:#}"));
    match command {
        TokenCommand::Create { role, name, place } => {
            let created = token::create(&place.data, role.into(), &name).map_err(wrong)?;
            if place.json {
                write_json(out, &serde_json::to_value(&created).map_err(io::Error::from)?)?;
            } else {
                writeln!(out, "{}", created.token)?;
                writeln!(
                    io::stderr(),
                    "token {} ({}) for “{}”: keep it, it is not shown again",
                    created.id,
                    created.role.as_str(),
                    created.name
                )?;
            }
        }
        TokenCommand::List { place } => {
            let listed: Vec<Value> = token::list(&place.data)
                .map_err(wrong)?
                .iter()
                .map(
                    |token| json!({ "id": token.id, "role": token.role, "name": token.name, "created": token.created }),
                )
                .collect();
            let listed = json!({ "total": listed.len(), "items": listed });
            if place.json { write_json(out, &listed)? } else { show::tokens(out, &listed, look)? }
        }
        TokenCommand::Revoke { id, place } => {
            let revoked = token::revoke(&place.data, &id).map_err(wrong)?;
            if place.json {
                write_json(out, &json!({ "revoked": revoked.id }))?;
            } else {
                writeln!(
                    out,
                    "revoked {} ({}) of “{}”",
                    revoked.id,
                    revoked.role.as_str(),
                    table::printable(&revoked.name)
                )?;
            }
        }
    }
    Ok(GOOD)
}
