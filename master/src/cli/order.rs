//! Orders about slots and moves, as they are typed. Asks the running master; decides nothing.

use clap::Subcommand;
use serde_json::{Value, json};
use shared::name::{RegionName, SlotNumber};

use super::client::Failure;
use super::table::printable;
use super::{GOOD, Reach, WAIT, client, write_json};

/// What can be said about moves.
#[derive(Debug, Clone, Subcommand)]
pub enum MovesCommand {
    /// No host goes from one slot to another until `resume`: for work on the network, or on the master's own link
    Hold {
        #[command(flatten)]
        reach: Reach,
    },
    /// Hosts are moved again, whoever held them back; every silence that lasts counts anew
    Resume {
        #[command(flatten)]
        reach: Reach,
    },
}

/// A slot as people write it: `eu/1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotPath {
    region: RegionName,
    number: SlotNumber,
}

impl std::str::FromStr for SlotPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("“{text}” is no slot: write REGION/NUMBER, as in eu/1");
        let (region, number) = text.rsplit_once('/').ok_or_else(wrong)?;
        let number = number.parse().ok().and_then(SlotNumber::new).ok_or_else(wrong)?;
        Ok(Self { region: region.parse().map_err(|_| wrong())?, number })
    }
}

/// Takes a slot out of service, or gives it back.
pub(super) fn drain(slot: &SlotPath, drain: bool, reach: &Reach, out: &mut Vec<u8>) -> Result<u8, Failure> {
    let body = json!({ "region": slot.region, "slot": slot.number });
    let answer = client(reach)?.send(if drain { "actions/drain" } else { "actions/undrain" }, &body, WAIT)?;
    told(&answer, reach, out)
}

/// Holds moves back, or lets them go on.
pub(super) fn moves(command: &MovesCommand, out: &mut Vec<u8>) -> Result<u8, Failure> {
    let (path, reach) = match command {
        MovesCommand::Hold { reach } => ("actions/hold-moves", reach),
        MovesCommand::Resume { reach } => ("actions/resume-moves", reach),
    };
    let answer = client(reach)?.post(path, WAIT)?;
    told(&answer, reach, out)
}

fn told(answer: &Value, reach: &Reach, out: &mut Vec<u8>) -> Result<u8, Failure> {
    use std::io::Write as _;
    if reach.json {
        write_json(out, answer)?;
    } else {
        writeln!(out, "{}", printable(answer["text"].as_str().unwrap_or("done")))?;
    }
    Ok(GOOD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_written_as_it_is_shown() {
        let slot: SlotPath = "eu/12".parse().unwrap();
        assert_eq!((slot.region.as_str(), slot.number.get()), ("eu", 12));
        for text in ["eu", "eu/", "/1", "eu/0", "eu/one", "e u/1", ""] {
            assert!(text.parse::<SlotPath>().unwrap_err().contains("as in eu/1"), "{text}");
        }
    }
}
