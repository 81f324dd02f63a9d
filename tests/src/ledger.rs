//! The outside ledger's judge: what the daemons say they answered, what the satellites say is durable and acknowledged, and what
//! history has. Text in, verdict out; knows no process and no file, and shares no code with the product or the daemons.
//!
//! Two ways lead to a loss. A run's sequences are dense, so whatever lies at or below a position that a satellite called durable
//! or acknowledged must be in history, as a result or in a named gap. And every answer has a serial, so a hole in them is a loss,
//! unless the satellite was killed while the answer was on its way to its disk: then it is *in flight*, and nothing of that check
//! may have come between the answer and the kill.

pub mod account;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// A killed satellite's daemon may still answer what stood in its socket, so much later by the daemon's clock (ms).
const AFTER_A_KILL: u64 = 5_000;
/// No answer is on its way to a satellite's disk for longer (ms): the limit of a check, and a commit.
const ON_THE_WAY: u64 = 15_000;

/// One answer that a daemon gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// By which host's daemon.
    pub host: String,
    /// To which command.
    pub command: String,
    /// Its number among the answers of this command of this host, from 1.
    pub serial: u64,
}

/// One result that had its effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// Of which host.
    pub host: String,
    /// Of which service.
    pub service: String,
    /// The number in its performance data.
    pub serial: Option<u64>,
    /// Which slot ran it, as `region/number`.
    pub slot: String,
    /// Its run.
    pub run: String,
    /// Its place in the run.
    pub sequence: u64,
}

/// Sequences of a run that are accounted for otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The run.
    pub run: String,
    /// First sequence.
    pub first: u64,
    /// Last sequence.
    pub last: u64,
}

/// A satellite was killed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kill {
    /// Its slot, as `region/number`.
    pub slot: String,
    /// The clock before (ms since 1970).
    pub before: u64,
    /// The clock when it was gone.
    pub after: u64,
}

/// What a satellite said of its runs: the greatest position of each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Positions {
    /// On its disk.
    pub durable: BTreeMap<String, u64>,
    /// Acknowledged by the master.
    pub acknowledged: BTreeMap<String, u64>,
}

/// Everything there is to judge by.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// What the daemons answered.
    pub answers: Vec<Answer>,
    /// What history has.
    pub effects: Vec<Effect>,
    /// What history names as lost or refused.
    pub named: Vec<Named>,
    /// What the satellites said.
    pub positions: Positions,
    /// Which satellites were killed.
    pub kills: Vec<Kill>,
    /// Executions of which the satellites said that what they brought is no result.
    pub void: u64,
    /// Command by (host, service), for services whose answers are in the ledger.
    pub commands: BTreeMap<(String, String), String>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// Answers that were given.
    pub answers: usize,
    /// Answers that had their effect.
    pub applied: usize,
    /// Answers that never were on a satellite's disk when it was killed.
    pub in_flight: usize,
    /// The same by the kill nearest in time, as a place among the kills.
    pub in_flight_by_kill: BTreeMap<usize, usize>,
    /// What should have had an effect and has none.
    pub lost: Vec<String>,
    /// What had its effect more than once.
    pub duplicates: Vec<String>,
    /// What cannot be: an effect without an answer, an acknowledgement of what was not durable.
    pub impossible: Vec<String>,
}

impl Verdict {
    /// Nothing lost, nothing twice, nothing impossible.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lost.is_empty() && self.duplicates.is_empty() && self.impossible.is_empty()
    }
}

/// The answers in a daemon's ledger: lines `unix_ms host command serial state`. A torn last line, left by a kill, was never sent.
///
/// # Errors
/// A line that is none; it is in the message.
pub fn answers(ledger: &str) -> Result<Vec<Answer>, String> {
    let whole = ledger.rfind('\n').map_or("", |end| &ledger[..end]);
    whole.lines().map(|line| answer(line).ok_or_else(|| format!("no line of a ledger: {line:?}"))).collect()
}

fn answer(line: &str) -> Option<Answer> {
    let words: Vec<&str> = line.split(' ').collect();
    let [at, host, command, serial, state] = words.as_slice() else { return None };
    state.parse::<i16>().ok()?;
    let (at, serial) = (at.parse().ok()?, serial.parse().ok()?);
    Some(Answer { at, host: (*host).to_owned(), command: (*command).to_owned(), serial })
}

/// What a satellite's log says of its runs: lines with `perigee::durable:` or `perigee::ack:`, `run=…` and `position=…`.
#[must_use]
pub fn positions(log: &str) -> Positions {
    let mut positions = Positions::default();
    for (kind, run, position) in log.lines().filter_map(position) {
        let of = match kind {
            Said::Durable => &mut positions.durable,
            Said::Acknowledged => &mut positions.acknowledged,
            // The master's word, which may not have arrived.
            Said::Acknowledging => continue,
        };
        let known = of.entry(run).or_default();
        *known = position.max(*known);
    }
    positions
}

/// How many executions a satellite's log calls good for nothing: what was asked was gone, or another question, when the answer came.
#[must_use]
pub fn void(log: &str) -> u64 {
    log.lines().map(|line| u64::from(line.contains("perigee::void: "))).sum()
}

/// What a line of a log says of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// Its position is on disk.
    Durable,
    /// Its position is acknowledged, says the satellite.
    Acknowledged,
    /// Its position is about to be acknowledged, says the master.
    Acknowledging,
}

impl Said {
    /// How such a line is marked.
    #[must_use]
    pub fn mark(self) -> &'static str {
        match self {
            Said::Durable => "perigee::durable: ",
            Said::Acknowledged => "perigee::ack: ",
            Said::Acknowledging => "perigee::acknowledging: ",
        }
    }
}

/// What one line of a log says of a run's position, if it says anything.
#[must_use]
pub fn position(line: &str) -> Option<(Said, String, u64)> {
    let kinds = [Said::Durable, Said::Acknowledged, Said::Acknowledging];
    let (kind, rest) = kinds.into_iter().find_map(|kind| Some((kind, line.split_once(kind.mark())?.1)))?;
    let value = |name: &str| rest.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    Some((kind, value("run")?.to_owned(), value("position")?.parse().ok()?))
}

impl Positions {
    /// Takes what another log says as well.
    pub fn add(&mut self, other: Positions) {
        for (mine, theirs) in [(&mut self.durable, other.durable), (&mut self.acknowledged, other.acknowledged)] {
            for (run, position) in theirs {
                let known = mine.entry(run).or_default();
                *known = position.max(*known);
            }
        }
    }
}

/// Results of history, as the API gives them.
///
/// # Errors
/// An event without one of the fields; it is in the message.
pub fn effects(events: &[Value]) -> Result<Vec<Effect>, String> {
    events.iter().map(|event| effect(event).ok_or_else(|| format!("no result: {event}"))).collect()
}

fn effect(event: &Value) -> Option<Effect> {
    let text = |name: &str| event.get(name).and_then(Value::as_str).map(str::to_owned);
    let perfdata = text("perfdata").unwrap_or_default();
    let number = |name: &str| event.get(name).and_then(Value::as_u64);
    let serial = perfdata.split(' ').find_map(|word| word.strip_prefix("serial=")?.parse().ok());
    Some(Effect {
        host: text("host")?,
        service: text("service").unwrap_or_default(),
        serial,
        slot: format!("{}/{}", text("region")?, number("slot")?),
        run: text("run")?,
        sequence: number("sequence")?,
    })
}

/// Gaps of history, as the API gives them.
///
/// # Errors
/// An event without one of the fields; it is in the message.
pub fn gaps(events: &[Value]) -> Result<Vec<Named>, String> {
    let gap = |event: &Value| {
        let run = event.get("run")?.as_str()?.to_owned();
        Some(Named { run, first: event.get("first")?.as_u64()?, last: event.get("last")?.as_u64()? })
    };
    events.iter().map(|event| gap(event).ok_or_else(|| format!("no gap: {event}"))).collect()
}

/// Judges.
#[must_use]
pub fn judge(evidence: &Evidence) -> Verdict {
    let mut verdict = Verdict { answers: evidence.answers.len(), ..Verdict::default() };
    let runs = judge_sequences(evidence, &mut verdict);
    judge_positions(evidence, &runs, &mut verdict);
    judge_serials(evidence, &mut verdict);
    verdict
}

type Sequences = BTreeMap<String, BTreeSet<u64>>;

/// Every place of a run has its effect at most once.
fn judge_sequences(evidence: &Evidence, verdict: &mut Verdict) -> Sequences {
    let mut runs = Sequences::new();
    for effect in &evidence.effects {
        let run = runs.entry(effect.run.clone()).or_default();
        if !run.insert(effect.sequence) {
            verdict.duplicates.push(format!("sequence {} of run {}", effect.sequence, effect.run));
        }
    }
    for gap in &evidence.named {
        runs.entry(gap.run.clone()).or_default().extend(gap.first..=gap.last);
    }
    runs
}

/// What was called durable is there up to its position, and nothing was acknowledged that was not durable.
fn judge_positions(evidence: &Evidence, runs: &Sequences, verdict: &mut Verdict) {
    let Positions { durable, acknowledged } = &evidence.positions;
    for (run, position) in acknowledged {
        // Where a satellite was killed, its last line about durability may be missing: it is written after the sync.
        let known = durable.get(run).copied().unwrap_or(0);
        if *position > known && evidence.kills.is_empty() {
            verdict.impossible.push(format!("run {run}: {position} acknowledged, {known} durable"));
        }
    }
    let mut claimed = durable.clone();
    for (run, position) in acknowledged {
        let known = claimed.entry(run.clone()).or_default();
        *known = (*position).max(*known);
    }
    let none = BTreeSet::new();
    for (run, position) in &claimed {
        let there = runs.get(run).unwrap_or(&none);
        let missing: Vec<u64> = (1..=*position).filter(|sequence| !there.contains(sequence)).collect();
        if let (Some(first), Some(last)) = (missing.first(), missing.last()) {
            let count = missing.len();
            let text = format!("run {run}: {count} of the {position} durable results, between {first} and {last}");
            verdict.lost.push(text);
        }
    }
}

/// Every answer has its effect once, unless it was on its way to a satellite's disk when that was killed.
fn judge_serials(evidence: &Evidence, verdict: &mut Verdict) {
    let mut applied: BTreeMap<(&str, &str), BTreeMap<u64, &Effect>> = BTreeMap::new();
    for effect in &evidence.effects {
        let Some(serial) = effect.serial else { continue };
        let of = (effect.host.clone(), effect.service.clone());
        let Some(command) = evidence.commands.get(&of) else {
            verdict.impossible.push(format!("{}!{}: serial {serial} of nobody's", effect.host, effect.service));
            continue;
        };
        let known = applied.entry((&effect.host, command)).or_default();
        if known.insert(serial, effect).is_some() {
            verdict.duplicates.push(format!("{}!{}: serial {serial}", effect.host, effect.service));
        }
    }
    let mut given: BTreeMap<(&str, &str), BTreeMap<u64, &Answer>> = BTreeMap::new();
    for answer in &evidence.answers {
        let of = given.entry((&answer.host, &answer.command)).or_default();
        if of.insert(answer.serial, answer).is_some() {
            let Answer { host, command, serial, .. } = answer;
            verdict.impossible.push(format!("{host} {command}: serial {serial} was given twice"));
        }
    }
    for (of, effects) in &applied {
        let answers = given.get(of);
        for serial in effects.keys().filter(|serial| !answers.is_some_and(|given| given.contains_key(serial))) {
            verdict.impossible.push(format!("{} {}: serial {serial} was never given", of.0, of.1));
        }
    }
    for (of, answers) in &given {
        judge_answers(answers, applied.get(of), &evidence.kills, verdict);
    }
}

/// The answers of one command of one host.
fn judge_answers(
    answers: &BTreeMap<u64, &Answer>,
    applied: Option<&BTreeMap<u64, &Effect>>,
    kills: &[Kill],
    verdict: &mut Verdict,
) {
    let slots: BTreeSet<&str> =
        applied.into_iter().flat_map(BTreeMap::values).map(|effect| effect.slot.as_str()).collect();
    // From the newest answer back, so that the next one that had its effect is known.
    let mut next: Option<u64> = None;
    for (serial, answer) in answers.iter().rev() {
        if applied.is_some_and(|applied| applied.contains_key(serial)) {
            verdict.applied += 1;
            next = Some(answer.at);
            continue;
        }
        let explains = |kill: &Kill| {
            let there = slots.is_empty() || slots.contains(kill.slot.as_str());
            let before = answer.at <= kill.after.saturating_add(AFTER_A_KILL);
            let soon = kill.before <= answer.at.saturating_add(ON_THE_WAY);
            there && before && soon && next.is_none_or(|next| next >= kill.before)
        };
        let explained = kills.iter().enumerate().filter(|(_, kill)| explains(kill));
        if let Some((kill, _)) = explained.min_by_key(|(_, kill)| kill.before.abs_diff(answer.at)) {
            verdict.in_flight += 1;
            *verdict.in_flight_by_kill.entry(kill).or_default() += 1;
        } else {
            let Answer { host, command, serial, at } = answer;
            verdict.lost.push(format!("{host} {command}: serial {serial} of {at}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEDGER: &str = "101000 a load 1 0\n102000 a load 2 0\n103000 a load 3 2\n102500 b load 1 0\n104000 a lo";
    const LOG: &str = "2026-01-01T00:00:00Z DEBUG perigee::durable: run=11 position=3\n\
                       2026-01-01T00:00:00Z  INFO satellite::run: welcomed holder=true\n\
                       2026-01-01T00:00:00Z DEBUG perigee::ack: run=11 position=2\n\
                       2026-01-01T00:00:00Z DEBUG perigee::ack: run=11 position=3\n\
                       2026-01-01T00:00:01Z DEBUG perigee::durable: run=22 position=1\n";

    fn result(host: &str, serial: u64, run: &str, sequence: u64) -> Value {
        serde_json::json!({
            "kind": "result", "host": host, "service": "load", "region": "eu", "slot": 1, "run": run, "sequence": sequence,
            "perfdata": format!("load=0.1;1;2 serial={serial}"),
        })
    }

    fn history() -> Vec<Value> {
        vec![result("a", 1, "11", 1), result("a", 2, "11", 2), result("a", 3, "11", 3), result("b", 1, "22", 1)]
    }

    fn evidence(history: &[Value]) -> Evidence {
        let load = |host: &str| ((host.to_owned(), "load".to_owned()), "load".to_owned());
        Evidence {
            answers: answers(LEDGER).unwrap(),
            effects: effects(history).unwrap(),
            positions: positions(LOG),
            commands: BTreeMap::from([load("a"), load("b")]),
            ..Evidence::default()
        }
    }

    fn kill(before: u64) -> Kill {
        Kill { slot: "eu/1".to_owned(), before, after: before + 10 }
    }

    #[test]
    fn what_was_answered_and_applied_once_is_clean() {
        let verdict = judge(&evidence(&history()));
        assert!(verdict.is_clean(), "{verdict:?}");
        assert_eq!((verdict.answers, verdict.applied, verdict.in_flight), (4, 4, 0));
    }

    #[test]
    fn a_planted_loss_is_found_twice() {
        let mut history = history();
        history.remove(1);
        let verdict = judge(&evidence(&history));
        assert!(verdict.lost.iter().any(|lost| lost == "a load: serial 2 of 102000"), "{verdict:?}");
        let sequences = "run 11: 1 of the 3 durable results, between 2 and 2";
        assert!(verdict.lost.iter().any(|lost| lost == sequences), "{verdict:?}");
        assert!(verdict.duplicates.is_empty() && !verdict.is_clean());
    }

    #[test]
    fn a_planted_duplicate_is_found() {
        let mut twice = history();
        twice.push(result("a", 2, "22", 2));
        let verdict = judge(&evidence(&twice));
        assert_eq!(verdict.duplicates, ["a!load: serial 2"]);
        assert!(verdict.lost.is_empty() && !verdict.is_clean(), "{verdict:?}");
        let mut again = history();
        again.push(again[0].clone());
        assert_eq!(judge(&evidence(&again)).duplicates, ["sequence 1 of run 11", "a!load: serial 1"]);
    }

    #[test]
    fn an_answer_on_its_way_when_its_satellite_was_killed_is_in_flight() {
        let mut evidence = evidence(&history()[..2]);
        evidence.positions = Positions::default();
        evidence.answers.retain(|answer| answer.host == "a");
        assert_eq!(judge(&evidence).lost, ["a load: serial 3 of 103000"]);
        evidence.kills = vec![kill(103_005)];
        let verdict = judge(&evidence);
        assert_eq!((verdict.in_flight, verdict.is_clean()), (1, true), "{verdict:?}");
        // Another slot's kill, one before the answer, and one long after it explain nothing.
        for kills in [
            Kill { slot: "us/1".to_owned(), ..kill(103_005) },
            kill(103_000 - AFTER_A_KILL - 20),
            kill(103_001 + ON_THE_WAY),
        ] {
            evidence.kills = vec![kills];
            assert_eq!(judge(&evidence).lost.len(), 1, "{:?}", evidence.kills);
        }
    }

    #[test]
    fn a_hole_before_the_kill_is_a_loss() {
        // The third answer came through before the satellite was killed: the second one had no reason to be missing.
        let mut evidence = evidence(&[result("a", 1, "11", 1), result("a", 3, "11", 2), result("b", 1, "22", 1)]);
        evidence.positions = Positions::default();
        evidence.kills = vec![kill(103_500)];
        assert_eq!(judge(&evidence).lost, ["a load: serial 2 of 102000"]);
    }

    #[test]
    fn a_named_gap_accounts_for_its_sequences_and_not_for_more() {
        let mut evidence = evidence(&history());
        evidence.positions.durable.insert("22".to_owned(), 4);
        evidence.named = gaps(&[serde_json::json!({ "run": "22", "first": 2, "last": 3 })]).unwrap();
        assert_eq!(judge(&evidence).lost, ["run 22: 1 of the 4 durable results, between 4 and 4"]);
        evidence.named[0].last = 4;
        assert!(judge(&evidence).is_clean());
    }

    #[test]
    fn what_cannot_be_is_said() {
        let mut acknowledged = evidence(&history());
        acknowledged.positions.durable.insert("11".to_owned(), 2);
        assert_eq!(judge(&acknowledged).impossible, ["run 11: 3 acknowledged, 2 durable"]);
        let mut unknown = evidence(&history());
        unknown.answers.retain(|answer| answer.serial != 3);
        assert_eq!(judge(&unknown).impossible, ["a load: serial 3 was never given"]);
    }

    #[test]
    fn what_a_satellite_calls_void_is_counted_by_its_lines() {
        let line = "2026-01-01T00:00:00Z DEBUG perigee::void: what an execution brought is no result: its question is gone probe=7\n";
        assert_eq!((void(LOG), void(&format!("{LOG}{line}{LOG}{line}"))), (0, 2));
    }

    #[test]
    fn a_line_that_is_none_is_an_error_and_a_torn_one_is_not() {
        assert_eq!(answers(LEDGER).unwrap().len(), 4);
        assert!(answers("1000 a load 1 0\nhello\n").is_err());
        assert!(effects(&[serde_json::json!({ "host": "a" })]).is_err());
        assert!(gaps(&[serde_json::json!({ "run": "11" })]).is_err());
        assert_eq!(answers("").unwrap(), []);
    }
}
