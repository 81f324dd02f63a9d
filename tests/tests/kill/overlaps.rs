//! Who asked what when, from outside: the daemons' ledger says when each answer was given, history which run it came by, and the
//! satellites' logs whose run that was. A check that is asked by two processes at once has two owners, whatever the journal says.
//! The surprise: a process may come back to a check after the one that took it has died, so only what lies between two answers of
//! the newer process is at the same time.

use std::collections::BTreeMap;

use tests::fleet::Fleet;
use tests::ledger::{Answer, Effect, Evidence, Said, position};

/// A check may begin, and be answered, in the moment in which its satellite hears that it is fenced (ms).
pub(crate) const FENCED_WITHIN: u64 = 1_000;

/// Which process made which run, and when processes stood still and were told of a fence only afterwards.
#[derive(Debug, Default)]
pub(crate) struct Processes {
    runs: BTreeMap<String, String>,
    /// Until when a process could not know that it is fenced (ms since 1970).
    deaf_until: BTreeMap<String, u64>,
}

impl Processes {
    /// By the logs: each start of a satellite is another process.
    pub(crate) fn of(fleet: &Fleet) -> Self {
        let mut runs = BTreeMap::new();
        for (name, satellite) in &fleet.satellites {
            let mut starts = 0;
            for line in satellite.log().lines() {
                starts += usize::from(line.contains("satellite starts"));
                if let Some((Said::Durable, run, _)) = position(line) {
                    runs.insert(run, format!("{name}, start {starts}"));
                }
            }
        }
        Self { runs, deaf_until: BTreeMap::new() }
    }

    /// A satellite started once stood still, and heard of its fence no earlier than this.
    pub(crate) fn was_deaf(&mut self, name: &str, until: u64) {
        self.deaf_until.insert(format!("{name}, start 1"), until);
    }
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Overlaps {
    /// Answers of which the process is known.
    pub(crate) answers: usize,
    /// Checks that went from one process to another.
    pub(crate) handed_over: usize,
    /// The longest that the older process still asked after the newer one (ms), where both went on.
    pub(crate) longest: u64,
    /// What must not be.
    pub(crate) broken: Vec<String>,
}

/// Finds checks that two processes asked in the same time.
pub(crate) fn find(evidence: &Evidence, processes: &Processes) -> Overlaps {
    let given: BTreeMap<(&str, &str, u64), u64> =
        evidence.answers.iter().map(|answer| ((&*answer.host, &*answer.command, answer.serial), answer.at)).collect();
    let mut asked: BTreeMap<(&str, &str), BTreeMap<&str, Vec<u64>>> = BTreeMap::new();
    let mut found = Overlaps::default();
    for effect in &evidence.effects {
        let command = evidence.commands.get(&(effect.host.clone(), effect.service.clone()));
        let Some((command, serial)) = command.zip(effect.serial) else { continue };
        let Some(at) = given.get(&(&*effect.host, command, serial)) else { continue };
        // A run that was killed before it told of itself is taken for a process of its own.
        let process = processes.runs.get(&effect.run).unwrap_or(&effect.run);
        asked.entry((&effect.host, command)).or_default().entry(process).or_default().push(*at);
        found.answers += 1;
    }
    for (check, by_process) in &mut asked {
        by_process.values_mut().for_each(|times| times.sort_unstable());
        let mut by_age: Vec<(&str, &Vec<u64>)> = by_process.iter().map(|(process, times)| (*process, times)).collect();
        by_age.sort_by_key(|(_, times)| times[0]);
        found.handed_over += by_age.len() - 1;
        for (at, (older, before)) in by_age.iter().enumerate() {
            for (newer, after) in &by_age[at + 1..] {
                let (first, last) = (after[0], after[after.len() - 1]);
                let both = before.iter().filter(|asked| (first + 1..last).contains(*asked)).max();
                let Some(asked) = both else { continue };
                found.longest = found.longest.max(asked - first);
                let heard = processes.deaf_until.get(*older).copied().unwrap_or(0).max(first);
                if *asked > heard + FENCED_WITHIN {
                    let text = format!("{check:?}: {older} asks {} ms after {newer}, who goes on", asked - first);
                    found.broken.push(text);
                }
            }
        }
    }
    found
}

/// Answers to one check: the process and when.
fn found(asked: &[(&str, u64)]) -> Overlaps {
    let mut evidence = Evidence::default();
    evidence.commands.insert(("h".to_owned(), "s".to_owned()), "c".to_owned());
    for (serial, (run, at)) in (1_u64..).zip(asked) {
        let (host, command) = ("h".to_owned(), "c".to_owned());
        evidence.answers.push(Answer { at: *at, host: host.clone(), command, serial });
        let (service, slot, run) = ("s".to_owned(), "eu/1".to_owned(), (*run).to_owned());
        evidence.effects.push(Effect { host, service, serial: Some(serial), slot, run, sequence: serial });
    }
    let runs = BTreeMap::from([("a".to_owned(), "A".to_owned()), ("b".to_owned(), "B".to_owned())]);
    let deaf_until = BTreeMap::from([("deaf".to_owned(), 9_000)]);
    find(&evidence, &Processes { runs, deaf_until })
}

#[test]
fn two_owners_at_once_are_found() {
    let one_after_the_other = [("a", 1000), ("a", 2000), ("b", 3000), ("a", 3900), ("b", 4000), ("b", 5000)];
    let overlaps = found(&one_after_the_other);
    assert!(overlaps.broken.is_empty(), "{overlaps:?}");
    assert_eq!((overlaps.answers, overlaps.handed_over, overlaps.longest), (6, 1, 900));
    let both = found(&[("a", 1000), ("b", 3000), ("a", 4100), ("b", 5000), ("a", 5100)]);
    assert_eq!(both.broken.len(), 1, "{both:?}");
    let back = found(&[("a", 1000), ("b", 3000), ("b", 5000), ("a", 20_000), ("a", 21_000)]);
    assert!(back.broken.is_empty(), "the newer one had died: {back:?}");
}

#[test]
fn a_process_that_stood_still_is_not_blamed_before_it_hears() {
    let asked = |last| found(&[("deaf", 1000), ("b", 3000), ("deaf", last), ("b", 30_000)]).broken.len();
    assert_eq!([asked(9_900), asked(10_100)], [0, 1]);
}
