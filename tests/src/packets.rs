//! What must hold of the NRPE packet parsers for any bytes whatever, and a seeded source of bytes that are nearly packets. The
//! generator knows the wire format, so that lengths, types and checksums are wrong one at a time; what it makes is a function of
//! its seed. The tests feed one to the other; `tests/fuzz` feeds the rules from a fuzzer that watches the parser's branches.
//!
//! The surprise: a checksum is made right again after half of the changes, else nothing would ever get past it.

use std::ops::Range;

use satellite::probe::nrpe::packet::{Answer, MAX_ANSWER, Progress, Version, decode};

use crate::daemon::wire;

/// What a parser made of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// An answer.
    Complete,
    /// The beginning of one.
    More,
    /// Nothing that can become one.
    Refused,
}

/// Bytes that may follow any others.
const JUNK: [u8; 7] = [0, 4, 0, 2, 0xff, 0, 1];

/// Looks at an input in every way a connection may deliver it.
///
/// # Panics
/// When one of the rules is broken; the rule is in the message.
pub fn examine(bytes: &[u8]) -> Verdict {
    let so_far = decode(bytes, false);
    let in_all = decode(bytes, true);
    let mut longer = Vec::with_capacity(bytes.len() + JUNK.len());
    longer.extend_from_slice(bytes);
    longer.extend_from_slice(&JUNK);
    let with_more = decode(&longer, false);
    assert!(!matches!(in_all, Ok(Progress::More)), "more is wanted though nothing can come");
    match so_far {
        Ok(Progress::Complete(answer)) => {
            is_from(&answer, bytes);
            assert_eq!(in_all, Ok(Progress::Complete(answer.clone())), "the end of the stream changes a whole answer");
            match with_more {
                Ok(Progress::Complete(other)) => assert_eq!(other, answer, "what follows changes a whole answer"),
                // A version 2 packet of another length than nrpe's is measured by its end, so nothing may follow it.
                _ if answer.version == Version::V2 => {}
                other => panic!("what follows spoils a whole answer: {other:?}"),
            }
            Verdict::Complete
        }
        Ok(Progress::More) => {
            if let Ok(Progress::Complete(answer)) = in_all {
                assert_eq!(answer.version, Version::V2, "only version 2 is measured by its end");
                is_from(&answer, bytes);
            }
            assert!(bytes.len() < MAX_ANSWER, "an answer may be longer than it may");
            Verdict::More
        }
        Err(why) => {
            assert!(in_all.is_err(), "refused, and taken at the end: {why}");
            assert!(with_more.is_err(), "refused, and taken with more behind it: {why}");
            Verdict::Refused
        }
    }
}

/// An answer holds nothing that was not sent.
fn is_from(answer: &Answer, bytes: &[u8]) {
    assert!(
        answer.text.len() <= bytes.len().min(MAX_ANSWER),
        "{} bytes of text out of {}",
        answer.text.len(),
        bytes.len()
    );
    assert!(!answer.text.contains(&0), "a text goes on behind its NUL");
}

/// Makes inputs, one after the other.
#[derive(Debug, Clone)]
pub struct Generator {
    state: u64,
    bytes: Vec<u8>,
}

impl Generator {
    /// The inputs of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed, bytes: Vec::with_capacity(8 * 1024) }
    }

    /// Makes the next input.
    pub fn input(&mut self) -> &[u8] {
        self.bytes.clear();
        self.begin();
        for _ in 0..self.below(4) {
            self.spoil();
        }
        if self.one_in(2) {
            self.seal();
        }
        match self.below(16) {
            0 => {
                let cut = self.below(self.bytes.len() + 1);
                self.bytes.truncate(cut);
            }
            1 => {
                let junk = self.below(64);
                self.random(junk);
            }
            2 => self.bytes.extend_from_within(..),
            _ => {}
        }
        &self.bytes
    }

    /// Something that a daemon or a client would send, or nothing of the kind.
    fn begin(&mut self) {
        let state = i16::try_from(self.below(6)).unwrap_or(0);
        let text = self.text();
        match self.below(20) {
            0..=5 => self.bytes.extend(wire::answer(4, state, &text)),
            6..=9 => self.bytes.extend(wire::answer(3, state, &text)),
            10..=12 => self.bytes.extend(wire::answer(2, state, &text)),
            13 => {
                let payload = [1, 100, 1023, 2048, 4096][self.below(5)];
                self.bytes.extend(wire::answer_v2(state, &text, payload));
            }
            14 => {
                for _ in 0..self.below(4) {
                    self.bytes.extend(wire::part_v2(3, state, &text, 1024));
                }
                self.bytes.extend(wire::answer(2, state, &text));
            }
            15 => {
                let version = [2_u16, 3, 4][self.below(3)];
                let mut query = wire::answer(version, 0, &text);
                query[3] = 1;
                query.resize(query.len().max(1036), 0);
                self.bytes.extend(query);
            }
            16 => {
                let kind = [0_u8, 1, 2, 2, 3, 9][self.below(6)];
                let version = [2_u8, 3, 4, 4, 5][self.below(5)];
                self.bytes.extend([0, version, 0, kind]);
                let rest = self.below(96);
                self.random(rest);
            }
            17 => self.bytes.extend_from_slice(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
            18 => self.bytes.extend([0x15, 3, 3, 0, 2, 2, 40]),
            _ => {
                let length = self.below(64);
                self.random(length);
            }
        }
    }

    /// Changes one thing.
    fn spoil(&mut self) {
        match self.below(10) {
            0 => self.set(0..2, &[2_u16, 3, 4, 0, 5, 0xffff]),
            1 => self.set(2..4, &[1_u16, 2, 3, 0, 0x0200]),
            2 => self.set(8..10, &[0_u16, 3, 4, 99, 0xffff, 0x8000]),
            3 | 4 => {
                let rest = u32::try_from(self.bytes.len().saturating_sub(16)).unwrap_or(0);
                let lengths = [0, 1, rest, rest + 1, rest.saturating_sub(1), 65_536, 65_537, i32::MAX as u32, u32::MAX];
                let length = lengths[self.below(lengths.len())];
                self.overwrite(12..16, &length.to_be_bytes());
            }
            5 => self.overwrite_somewhere(&[0]),
            6 => {
                let byte = self.draw().to_le_bytes()[0];
                self.overwrite_somewhere(&[byte]);
            }
            7 if !self.bytes.is_empty() => {
                let at = self.below(self.bytes.len());
                let bit = self.below(8);
                self.bytes[at] ^= 1 << bit;
            }
            8 if !self.bytes.is_empty() => {
                let at = self.below(self.bytes.len());
                self.bytes.remove(at);
            }
            9 => {
                let at = self.below(self.bytes.len() + 1);
                let byte = self.draw().to_le_bytes()[0];
                self.bytes.insert(at, byte);
            }
            _ => {}
        }
    }

    /// Makes the checksum that of the bytes, as far as their own header goes.
    fn seal(&mut self) {
        let Some(head) = self.bytes.get(..10) else { return };
        let version = u16::from_be_bytes([head[0], head[1]]);
        let end = match (version, self.bytes.get(12..16)) {
            (3 | 4, Some(field)) => {
                let text = usize::try_from(u32::from_be_bytes([field[0], field[1], field[2], field[3]])).unwrap_or(0);
                text.saturating_add(16).min(self.bytes.len())
            }
            _ => self.bytes.len(),
        };
        self.bytes[4..8].fill(0);
        if version != 2 && end >= 12 {
            self.bytes[10..12].fill(0);
        }
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.bytes[..end]);
        if version == 3 {
            hasher.update(&[0; 3]);
        }
        self.bytes[4..8].copy_from_slice(&hasher.finalize().to_be_bytes());
    }

    fn set(&mut self, field: Range<usize>, values: &[u16]) {
        let value = values[self.below(values.len())];
        self.overwrite(field, &value.to_be_bytes());
    }

    fn overwrite(&mut self, field: Range<usize>, value: &[u8]) {
        if let Some(bytes) = self.bytes.get_mut(field) {
            bytes.copy_from_slice(value);
        }
    }

    fn overwrite_somewhere(&mut self, value: &[u8]) {
        let at = self.below(self.bytes.len() + 1);
        self.overwrite(at..at + value.len(), value);
    }

    /// Mostly short: long texts cost time and find nothing more.
    fn text(&mut self) -> Vec<u8> {
        let length = match self.below(64) {
            0 => 1023 + self.below(3),
            1 => 2000 + self.below(100),
            _ => self.below(48),
        };
        (0..length).map(|at| b' ' + u8::try_from(at % 90).unwrap_or(0)).collect()
    }

    fn random(&mut self, count: usize) {
        for _ in 0..count {
            let byte = self.draw().to_le_bytes()[3];
            self.bytes.push(byte);
        }
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end.max(1)).unwrap_or(1);
        usize::try_from(self.draw() % end).unwrap_or(0)
    }

    /// SplitMix64: every seed is a good one.
    fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_makes_the_same_inputs() {
        let (mut one, mut other, mut third) = (Generator::new(7), Generator::new(7), Generator::new(8));
        let mut differ = 0;
        for _ in 0..100 {
            assert_eq!(one.input(), other.input());
            differ += u32::from(one.bytes != third.input());
        }
        assert!(differ > 50);
    }

    #[test]
    fn a_whole_answer_its_beginning_and_nonsense_are_told_apart() {
        let answer = wire::answer(4, 0, b"OK - fine");
        assert_eq!(examine(&answer), Verdict::Complete);
        assert_eq!(examine(&answer[..20]), Verdict::More);
        assert_eq!(examine(b"HTTP/1.1 200"), Verdict::Refused);
    }
}
