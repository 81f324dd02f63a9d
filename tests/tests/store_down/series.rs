//! What a metrics store must hold by the daemons' own ledger, and nothing of the product's: each answer's number says which values it
//! had, and the ledger when it was given. So a point that is missing, of another answer, or of nobody's is found.
//! The surprise: of two answers to one check in one second a store keeps the later one, which is no loss.

use std::collections::BTreeMap;

use tests::carbon::Series;
use tests::ledger::Answer;

/// Values of one answer, its number included.
pub(crate) const VALUES: usize = 10;
/// An answer's values change with its number, and come again after so many.
const TURNS: u64 = 7;
/// A result's second is its daemon's, or so many later: it ends when the answer has come.
const LATER: i64 = 2;
/// An answer is taken to be replaced by the next one in its second if that began no later than so many milliseconds after it was given:
/// an exchange on a machine of our own is over by then.
const EXCHANGE_MS: u64 = 250;
/// One in so many answers is replaced at most, beside each check's first; checks are a second apart.
const REPLACED: usize = 50;
/// How far the clock by which a result is timed may be behind the daemon's, on one machine.
const CLOCK_MS: u64 = 20;
/// Complaints that are shown.
const SHOWN: usize = 20;

/// The value `n` of an answer with this number.
fn value(n: usize, serial: u64) -> f64 {
    let turn = u32::try_from(serial.saturating_sub(1) % TURNS).unwrap_or_default();
    f64::from(u32::try_from(n).unwrap_or_default()) + f64::from(turn) / 8.0
}

/// The texts that a daemon gives in turn.
pub(crate) fn texts() -> Vec<String> {
    let text = |serial: u64| {
        let values: Vec<String> = (1..VALUES).map(|n| format!("m{n}={}", value(n, serial))).collect();
        format!("OK|{}", values.join(" "))
    };
    (1..=TURNS).map(text).collect()
}

fn name(answer: &Answer, label: &str) -> String {
    format!("icinga2.{}.services.s{}.nrpe.perfdata.{label}.value", answer.host, &answer.command[1..])
}

fn second(answer: &Answer) -> i64 {
    i64::try_from(answer.at / 1000).unwrap_or(i64::MAX)
}

/// The first second that its point may have: a satellite knows the master's time to half a round trip, which is less than this.
fn earliest(answer: &Answer) -> i64 {
    i64::try_from(answer.at.saturating_sub(CLOCK_MS) / 1000).unwrap_or(i64::MAX)
}

/// First and last second of these answers' points.
pub(crate) fn seconds(answers: &[Answer]) -> Option<(i64, i64)> {
    Some((answers.iter().map(earliest).min()?, answers.iter().map(second).max()? + LATER))
}

/// What the store holds otherwise than the ledger says: how much, and the first of it.
pub(crate) fn differences(found: &Series, answers: &[Answer]) -> (usize, Vec<String>) {
    let mut wrong = Vec::new();
    let mut replaced = 0;
    let none = BTreeMap::new();
    let of = |answer: &Answer, label: &str| found.get(&name(answer, label)).unwrap_or(&none);
    let mut by_check: BTreeMap<(&str, &str), BTreeMap<u64, &Answer>> = BTreeMap::new();
    for answer in answers {
        by_check.entry((&answer.host, &answer.command)).or_default().insert(answer.serial, answer);
    }
    for given in by_check.values() {
        let Some(any) = given.values().next() else { continue };
        let serials = of(any, "serial");
        let mut held: BTreeMap<u64, i64> = BTreeMap::new();
        for (at, serial) in serials {
            // Numbers are small: the store's floating points hold them exactly.
            let serial = *serial as u64;
            match given.get(&serial) {
                Some(answer) if (earliest(answer)..=second(answer) + LATER).contains(at) => {
                    held.insert(serial, *at);
                }
                answer => wrong.push(format!("{} at {at}: number {serial}, given {answer:?}", name(any, "serial"))),
            }
            for n in 1..VALUES {
                let label = format!("m{n}");
                if of(any, &label).get(at) != Some(&value(n, serial)) {
                    wrong.push(format!("{} at {at}: not that of number {serial}", name(any, &label)));
                }
            }
        }
        for n in 1..VALUES {
            let label = format!("m{n}");
            if of(any, &label).len() != serials.len() {
                wrong.push(format!(
                    "{}: {} points, {} numbers",
                    name(any, &label),
                    of(any, &label).len(),
                    serials.len()
                ));
            }
        }
        for (serial, answer) in given {
            if held.contains_key(serial) {
                continue;
            }
            let next = held.range(serial + 1..).next().map(|(_, at)| *at);
            let ended = i64::try_from((answer.at + EXCHANGE_MS) / 1000).unwrap_or(i64::MAX);
            if next.is_some_and(|next| next <= ended) {
                // A check's first run is at once, its second at its place in the same second or the next.
                replaced += usize::from(*serial > 1);
            } else {
                wrong.push(format!("missing: {answer:?}"));
            }
        }
    }
    let series = by_check.len() * VALUES;
    if found.len() != series {
        wrong.push(format!("{} series, {series} were measured", found.len()));
    }
    if replaced > 1 + answers.len() / REPLACED {
        wrong.push(format!("{replaced} of {} answers are replaced in their second", answers.len()));
    }
    let count = wrong.len();
    wrong.truncate(SHOWN);
    (count, wrong)
}

fn answers(seconds: &[i64]) -> Vec<Answer> {
    let answer = |(serial, second): (u64, &i64)| Answer {
        at: u64::try_from(*second * 1000 + 900).unwrap(),
        host: "h00".to_owned(),
        command: "c1".to_owned(),
        serial,
    };
    (1..).zip(seconds).map(answer).collect()
}

fn held(answers: &[Answer]) -> Series {
    let mut series = Series::new();
    for answer in answers {
        let mut put = |label: &str, value| {
            series.entry(name(answer, label)).or_default().insert(second(answer) + 1, value);
        };
        put("serial", f64::from(u32::try_from(answer.serial).unwrap()));
        (1..VALUES).for_each(|n| put(&format!("m{n}"), value(n, answer.serial)));
    }
    series
}

#[test]
fn a_point_that_is_missing_moved_or_of_another_answer_is_found() {
    let given = answers(&[100, 101, 102, 103, 103, 104]);
    let good = held(&given);
    assert_eq!(differences(&good, &given), (0, Vec::new()), "one was replaced in its second");
    assert!(good.contains_key("icinga2.h00.services.s1.nrpe.perfdata.m1.value"));
    assert!(differences(&held(&given[1..]), &given).0 > 0, "the first is missing");
    let without = [&given[..1], &given[2..]].concat();
    assert!(differences(&held(&without), &given).0 > 0, "one is missing in the midst");
    assert!(differences(&good, &without).0 > 0, "one is nobody's");
    let mut other = good.clone();
    *other.get_mut("icinga2.h00.services.s1.nrpe.perfdata.m3.value").unwrap().get_mut(&102).unwrap() = 3.0;
    assert_eq!(differences(&other, &given).0, 1, "the value of another number");
    let often: Vec<i64> = (0..100).flat_map(|n| [200 + n, 200 + n]).collect();
    assert_eq!(differences(&held(&answers(&often)), &answers(&often)).0, 1, "too many were replaced");
    let late = held(&answers(&[100, 101, 102, 103, 103, 109]));
    assert!(differences(&late, &given).0 > 0, "at another time");
}

#[test]
fn neighbours_have_other_values() {
    assert!((1..100).all(|serial| value(1, serial) != value(1, serial + 1)));
    assert_eq!(texts()[0].split(' ').next(), Some("OK|m1=1"));
}
