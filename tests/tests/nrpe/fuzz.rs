//! Millions of bytes that are nearly packets, against the parsers: no panic, and every rule of `tests::packets`. The inputs are a
//! function of `PERIGEE_SEED`; `PERIGEE_FUZZ_INPUTS` says how many (a million unless told, ten million for the proof).

use std::panic;
use std::thread;

use tests::figure::figure;
use tests::packets::{Generator, Verdict, examine};

/// Inputs of a plain run: some seconds.
const INPUTS: u64 = 1_000_000;
/// The seed of a plain run: always the same inputs, so that a failure is no accident of the day.
const SEED: u64 = 20_261_121;
/// Each verdict comes at least once in so many inputs, else the generator has lost its teeth.
const SHARE: u64 = 100;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().expect(name))
}

/// Feeds `count` inputs of one seed; how many were complete, beginnings, refused.
fn feed(seed: u64, count: u64) -> [u64; 3] {
    let mut generator = Generator::new(seed);
    let mut verdicts = [0; 3];
    for number in 0..count {
        let input = generator.input();
        let verdict = panic::catch_unwind(|| examine(input))
            .unwrap_or_else(|_| panic!("input {number} of seed {seed}: \"{}\"", input.escape_ascii()));
        verdicts[match verdict {
            Verdict::Complete => 0,
            Verdict::More => 1,
            Verdict::Refused => 2,
        }] += 1;
    }
    verdicts
}

#[test]
fn no_input_breaks_a_rule_of_the_packet_parser() {
    let inputs = number("PERIGEE_FUZZ_INPUTS", INPUTS);
    let seed = number("PERIGEE_SEED", SEED);
    let threads = u64::try_from(thread::available_parallelism().map_or(1, usize::from)).unwrap();
    let feeders: Vec<_> = (0..threads)
        .map(|thread| {
            let share = inputs / threads + u64::from(thread < inputs % threads);
            thread::spawn(move || feed(seed.wrapping_mul(threads).wrapping_add(thread), share))
        })
        .collect();
    let mut verdicts = [0; 3];
    for feeder in feeders {
        let fed = feeder.join().expect("a feeder that found nothing");
        verdicts = [verdicts[0] + fed[0], verdicts[1] + fed[1], verdicts[2] + fed[2]];
    }
    let [complete, more, refused] = verdicts;
    assert_eq!(complete + more + refused, inputs);
    assert!(verdicts.iter().all(|&verdict| verdict >= inputs / SHARE), "{verdicts:?} of {inputs}");
    figure(
        11,
        &format!("{inputs} packets, seed {seed}: {complete} answers, {more} beginnings, {refused} refused, 0 panics"),
    );
}
