//! Two accounts of the same evidence that know nothing of each other: by the sequences of runs, where every place must be a result or
//! named, and by the numbers of the daemons' answers, where every hole is a result that is gone. Judges no amount: where every result
//! is a numbered answer, as many must be missing by the one as are named by the other, and whoever asks compares them.

use std::collections::{BTreeMap, BTreeSet};

use super::Evidence;

/// What both accounts come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// Results that gaps name.
    pub named: u64,
    /// Answers without an effect below one of the same command that has one: nothing more can come of them, for a run is without holes.
    pub missing: u64,
    /// Answers above the last of their command that has an effect: on their way.
    pub open: u64,
    /// Effects that are no daemon's answer, as a check's that ended without one.
    pub unnumbered: Vec<String>,
}

/// Draws both up.
///
/// # Errors
/// A run is not, from its first sequence to its last or to the last that its satellite called durable, all results and named
/// stretches, each place one of them and once: every run of which this holds, and where not.
pub fn account(evidence: &Evidence) -> Result<Account, Vec<String>> {
    let named = by_sequences(evidence)?;
    let mut last: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut applied: BTreeSet<(&str, &str, u64)> = BTreeSet::new();
    let mut account = Account { named, ..Account::default() };
    for effect in &evidence.effects {
        let command = evidence.commands.get(&(effect.host.clone(), effect.service.clone()));
        let Some((command, serial)) = command.zip(effect.serial) else {
            account.unnumbered.push(format!("{effect:?}"));
            continue;
        };
        let known = last.entry((&effect.host, command)).or_default();
        *known = serial.max(*known);
        applied.insert((&effect.host, command, serial));
    }
    for answer in &evidence.answers {
        let of = (answer.host.as_str(), answer.command.as_str());
        if applied.contains(&(of.0, of.1, answer.serial)) {
            continue;
        }
        if last.get(&of).is_some_and(|last| answer.serial < *last) {
            account.missing += 1;
        } else {
            account.open += 1;
        }
    }
    Ok(account)
}

/// Checks that no run has a hole and no place is taken twice; how many places are named.
fn by_sequences(evidence: &Evidence) -> Result<u64, Vec<String>> {
    let mut taken: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
    for effect in &evidence.effects {
        taken.entry(&effect.run).or_default().push((effect.sequence, effect.sequence));
    }
    for gap in &evidence.named {
        taken.entry(&gap.run).or_default().push((gap.first, gap.last));
    }
    let positions = &evidence.positions;
    for run in positions.durable.keys().chain(positions.acknowledged.keys()) {
        taken.entry(run).or_default();
    }
    let mut wrong = Vec::new();
    for (run, places) in &mut taken {
        places.sort_unstable();
        let mut next = 1;
        for (first, last) in places.iter() {
            if *first != next {
                wrong.push(format!("run {run}: {first} to {last} where {next} is next"));
            }
            next = next.max(last + 1);
        }
        let claims = [&positions.durable, &positions.acknowledged].map(|claims| claims.get(*run).copied().unwrap_or(0));
        if let Some(claimed) = claims.into_iter().max().filter(|claimed| *claimed >= next) {
            wrong.push(format!("run {run}: nothing from {next} to {claimed}"));
        }
    }
    let named = evidence.named.iter().map(|gap| gap.last + 1 - gap.first).sum();
    if wrong.is_empty() { Ok(named) } else { Err(wrong) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Answer, Effect, Named};

    fn effect(serial: Option<u64>, sequence: u64) -> Effect {
        let text = str::to_owned;
        Effect { host: text("h"), service: text("s"), serial, slot: text("eu/1"), run: text("11"), sequence }
    }

    fn named(first: u64, last: u64) -> Named {
        Named { run: "11".to_owned(), first, last }
    }

    /// Six answers; those of 2 to 4 are gone and named, the last is on its way.
    fn evidence() -> Evidence {
        let answer = |serial| Answer { at: serial, host: "h".to_owned(), command: "c".to_owned(), serial };
        let mut evidence = Evidence {
            answers: (1..=6).map(answer).collect(),
            effects: vec![effect(Some(1), 1), effect(Some(5), 5)],
            named: vec![named(2, 3), named(4, 4)],
            commands: BTreeMap::from([(("h".to_owned(), "s".to_owned()), "c".to_owned())]),
            ..Evidence::default()
        };
        evidence.positions.durable.insert("11".to_owned(), 5);
        evidence
    }

    #[test]
    fn both_accounts_of_a_named_loss_agree() {
        let account = account(&evidence()).unwrap();
        assert_eq!(account, Account { named: 3, missing: 3, open: 1, unnumbered: Vec::new() });
    }

    #[test]
    fn one_result_named_too_many_or_too_few_shows() {
        let mut more = evidence();
        more.named.push(named(6, 6));
        assert_eq!(account(&more).map(|account| (account.named, account.missing)), Ok((4, 3)));
        // A result that nobody numbered, lost with the others: named, and not missing.
        let mut silent = evidence();
        silent.named[1].last = 5;
        silent.effects[1].sequence = 6;
        assert_eq!(account(&silent).map(|account| (account.named, account.missing)), Ok((4, 3)));
        let mut there = evidence();
        there.effects.push(effect(None, 6));
        assert_eq!(account(&there).unwrap().unnumbered.len(), 1);
    }

    #[test]
    fn a_place_that_is_empty_or_taken_twice_shows() {
        let wrong = |change: fn(&mut Evidence)| {
            let mut evidence = evidence();
            change(&mut evidence);
            account(&evidence).unwrap_err()
        };
        assert_eq!(wrong(|evidence| evidence.named[1].first = 3), ["run 11: 3 to 4 where 4 is next"]);
        assert_eq!(wrong(|evidence| evidence.named[0].last = 2), ["run 11: 4 to 4 where 3 is next"]);
        assert_eq!(wrong(|evidence| evidence.named[1].last = 5), ["run 11: 5 to 5 where 6 is next"]);
        assert_eq!(wrong(|evidence| evidence.effects.push(effect(Some(6), 1))), ["run 11: 1 to 1 where 2 is next"]);
        assert_eq!(wrong(|evidence| evidence.effects[0].sequence = 0).len(), 2);
        let claim = |evidence: &mut Evidence| {
            evidence.positions.durable.insert("11".to_owned(), 7);
            evidence.positions.acknowledged.insert("22".to_owned(), 1);
        };
        assert_eq!(wrong(claim), ["run 11: nothing from 6 to 7", "run 22: nothing from 1 to 1"]);
    }
}
