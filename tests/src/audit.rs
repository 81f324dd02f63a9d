//! Gathers what the ledger's judge needs from a running fleet: the daemons' file, the satellites' logs, history through the API.
//! Judges nothing itself.
//! The surprise: everything goes on while it is gathered, so the order matters: claims first, history then, and of the answers
//! given meanwhile only those that history already has.
#![expect(clippy::disallowed_methods, reason = "a shell room: kills are compared with the daemons' clock")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

use crate::fleet::{Fleet, Satellite};
use crate::ledger::{self, Answer, Evidence, Kill, Positions, Verdict};
use crate::process::text;
use crate::wait::until;

/// Where the evidence is.
#[derive(Debug, Clone, Default)]
pub struct Audit {
    /// The daemons' ledger.
    pub ledger: PathBuf,
    /// Command by (host, service), for services whose answers are in the ledger.
    pub commands: BTreeMap<(String, String), String>,
    /// Satellites killed so far.
    pub kills: Vec<Kill>,
}

fn answers(path: &std::path::Path) -> Result<Vec<Answer>> {
    ledger::answers(&text(path)).map_err(|error| anyhow!("{}: {error}", path.display()))
}

impl Audit {
    /// What can be known at this moment.
    ///
    /// # Errors
    /// A part of the evidence cannot be read.
    pub fn evidence(&self, fleet: &Fleet) -> Result<Evidence> {
        let claimed = answers(&self.ledger)?;
        let (mut positions, mut void) = (Positions::default(), 0);
        for satellite in fleet.satellites.values() {
            let log = satellite.log();
            positions.add(ledger::positions(&log));
            void += ledger::void(&log);
        }
        let api = fleet.master.api();
        let effects = ledger::effects(&api.events("result")?).map_err(|error| anyhow!(error))?;
        let named = ledger::gaps(&api.events("gap")?).map_err(|error| anyhow!(error))?;
        // Given while history was read: what is in history must have been given, the rest is on its way.
        let mut known: BTreeSet<(&str, &str, u64)> = BTreeSet::new();
        for effect in &effects {
            let command = self.commands.get(&(effect.host.clone(), effect.service.clone()));
            known.extend(
                command.zip(effect.serial).map(|(command, serial)| (effect.host.as_str(), command.as_str(), serial)),
            );
        }
        let before = claimed.len();
        let later = answers(&self.ledger)?.into_iter().skip(before);
        let later =
            later.filter(|answer| known.contains(&(answer.host.as_str(), answer.command.as_str(), answer.serial)));
        let answers = claimed.iter().cloned().chain(later).collect();
        let (kills, commands) = (self.kills.clone(), self.commands.clone());
        Ok(Evidence { answers, effects, named, positions, kills, void, commands })
    }

    /// Waits until the verdict is clean: what is still on its way counts as lost before. Gives the last verdict in any case.
    ///
    /// # Errors
    /// A part of the evidence cannot be read.
    pub fn verdict(&self, fleet: &Fleet, within: Duration) -> Result<(Verdict, Evidence)> {
        let mut last = None;
        until(within, || {
            let judged = self.evidence(fleet).map(|evidence| (ledger::judge(&evidence), evidence));
            let clean = judged.as_ref().is_ok_and(|(verdict, _)| verdict.is_clean());
            last = Some(judged);
            clean
        });
        last.context("nothing was judged")?
    }

    /// Kills a satellite with `kill -9`, for the record.
    ///
    /// # Errors
    /// It does not go.
    pub fn kill(&mut self, satellite: &mut Satellite) -> Result<()> {
        let before = now();
        satellite.kill()?;
        self.kills.push(Kill { slot: satellite.slot(), before, after: now() });
        Ok(())
    }
}

/// The daemons' clock: milliseconds since 1970.
fn now() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0)
}
