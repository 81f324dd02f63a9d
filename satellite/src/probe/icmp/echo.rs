//! Echo requests and answers (RFC 792, RFC 4443) as bytes, and what they come to: mean round trip and loss, read against the
//! levels of a check as `check_icmp` does. Knows no socket and no clock.
//!
//! The surprise: identifier and checksum are left to the kernel, which fills in both. What is ours in an answer is told by a
//! token in its payload, not by the identifier, which a later socket may be given again.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use shared::check::{IcmpCheck, IcmpLevel, State};

use crate::probe::found::Found;

/// Bytes of a message: header of 8, payload of 56 as `ping` has it.
pub const BYTES: usize = 64;
const HEADER: usize = 8;
/// Types of request and answer, v4 and v6.
const TYPES: [(u8, u8); 2] = [(8, 0), (128, 129)];

/// The messages of one check.
#[derive(Debug)]
pub struct Echo {
    request: [u8; BYTES],
    answer_type: u8,
    token: [u8; 8],
}

impl Echo {
    /// Messages that carry this token.
    #[must_use]
    pub fn new(is_v6: bool, token: [u8; 8]) -> Self {
        let [v4, v6] = TYPES;
        let (request_type, answer_type) = if is_v6 { v6 } else { v4 };
        let mut request = [0; BYTES];
        let [kind, ..] = &mut request;
        *kind = request_type;
        if let Some(place) = request.get_mut(HEADER..HEADER + token.len()) {
            place.copy_from_slice(&token);
        }
        Self { request, answer_type, token }
    }

    /// The request of this number.
    pub fn request(&mut self, number: u16) -> &[u8] {
        if let Some(place) = self.request.get_mut(6..HEADER) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        &self.request
    }

    /// Which request of ours this message answers.
    #[must_use]
    pub fn answer(&self, message: &[u8]) -> Option<u16> {
        let (header, payload) = message.split_first_chunk::<HEADER>()?;
        let [kind, code, _, _, _, _, high, low] = *header;
        let ours = kind == self.answer_type && code == 0 && payload.starts_with(&self.token);
        ours.then(|| u16::from_be_bytes([high, low]))
    }
}

/// What came back so far.
#[derive(Debug)]
pub struct Tally {
    trips: Vec<Option<Duration>>,
    note: Option<String>,
}

impl Tally {
    /// Nothing has come back of so many requests.
    #[must_use]
    pub fn new(packets: u16) -> Self {
        Self { trips: vec![None; usize::from(packets.max(1))], note: None }
    }

    /// An answer to this request after this time. A second one to the same does not count.
    pub fn count(&mut self, number: u16, trip: Duration) {
        if let Some(place @ None) = self.trips.get_mut(usize::from(number)) {
            *place = Some(trip);
        }
    }

    /// What the system or a router said; shown if nothing comes back at all.
    pub fn note(&mut self, words: String) {
        self.note = Some(words);
    }

    /// Whether there is nothing to wait for.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.trips.iter().all(Option::is_some)
    }

    /// State, text and performance data. `asked`: the address, if it came to that.
    #[must_use]
    pub fn read(&self, check: &IcmpCheck, asked: Option<IpAddr>) -> Found {
        let trips: Vec<u128> = self.trips.iter().flatten().map(Duration::as_nanos).collect();
        let lost = (self.trips.len() - trips.len()) * 100 / self.trips.len().max(1);
        let mean = trips.iter().sum::<u128>() / (trips.len().max(1) as u128);
        let reached =
            |level: &IcmpLevel| mean >= u128::from(level.rta_us) * 1_000 || lost >= usize::from(level.loss_percent);
        let state = if trips.is_empty() || reached(&check.critical) {
            State::Critical
        } else if reached(&check.warning) {
            State::Warning
        } else {
            State::Ok
        };
        let mut text = format!("{state} - {}", check.address);
        if trips.is_empty() {
            if let Some(asked) = asked.map(|ip| ip.to_string()).filter(|ip| *ip != check.address) {
                let _ = write!(text, " ({asked})");
            }
            let why = self.note.as_ref().map(|note| format!("{note}. ")).unwrap_or_default();
            let _ = write!(text, ": {why}rta nan, lost 100%");
        } else {
            let _ = write!(text, ": rta {}ms, lost {lost}%", millis(mean));
        }
        let rta = |level: &IcmpLevel| millis(u128::from(level.rta_us) * 1_000);
        let _ = write!(
            text,
            "|rta={}ms;{};{};0; pl={lost}%;{};{};0;100 rtmax={}ms;;;; rtmin={}ms;;;;",
            millis(mean),
            rta(&check.warning),
            rta(&check.critical),
            check.warning.loss_percent,
            check.critical.loss_percent,
            millis(trips.iter().max().copied().unwrap_or(0)),
            millis(trips.iter().min().copied().unwrap_or(0)),
        );
        Found::ran(state, text)
    }
}

/// Nanoseconds as milliseconds with three digits.
fn millis(nanos: u128) -> String {
    let micros = (nanos + 500) / 1_000;
    format!("{}.{:03}", micros / 1_000, micros % 1_000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared::check::Exit;

    use super::*;

    const ADDRESS: &str = "192.0.2.1";

    fn check(warning: (u64, u8), critical: (u64, u8)) -> IcmpCheck {
        let level = |(rta_us, loss_percent)| IcmpLevel { rta_us, loss_percent };
        IcmpCheck {
            address: ADDRESS.to_owned(),
            packets: 5,
            warning: level(warning),
            critical: level(critical),
            otherwise_tcp: None,
        }
    }

    fn read(trips_us: &[u64], note: Option<&str>) -> Found {
        let mut tally = Tally::new(5);
        for (number, trip) in trips_us.iter().enumerate() {
            tally.count(u16::try_from(number).unwrap(), Duration::from_micros(*trip));
        }
        if let Some(note) = note {
            tally.note(note.to_owned());
        }
        tally.read(&check((200_000, 40), (500_000, 80)), ADDRESS.parse().ok())
    }

    #[test]
    fn text_and_performance_data_are_those_of_check_icmp() {
        let found = read(&[100, 200, 300, 400, 500], None);
        assert_eq!(
            found.text,
            "OK - 192.0.2.1: rta 0.300ms, lost 0%|rta=0.300ms;200.000;500.000;0; pl=0%;40;80;0;100 rtmax=0.500ms;;;; \
             rtmin=0.100ms;;;;"
        );
        assert_eq!((found.state, found.exit), (State::Ok, Exit::Ran(0)));
        let none = read(&[], Some("No route to host"));
        assert_eq!(
            none.text,
            "CRITICAL - 192.0.2.1: No route to host. rta nan, lost 100%|rta=0.000ms;200.000;500.000;0; pl=100%;40;80;0;100 \
             rtmax=0.000ms;;;; rtmin=0.000ms;;;;"
        );
        assert_eq!((none.state, none.exit), (State::Critical, Exit::Ran(2)));
    }

    #[test]
    fn a_level_is_reached_by_time_or_loss_and_by_equality() {
        let state = |trips: &[u64]| read(trips, None).state;
        assert_eq!(state(&[1, 1, 1, 1]), State::Ok, "20 % are lost");
        assert_eq!(state(&[1, 1, 1]), State::Warning, "40 % are lost");
        assert_eq!(state(&[1]), State::Critical, "80 % are lost");
        assert_eq!(state(&[199_999; 5]), State::Ok);
        assert_eq!(state(&[200_000; 5]), State::Warning);
        assert_eq!(state(&[499_999; 5]), State::Warning);
        assert_eq!(state(&[500_000; 5]), State::Critical);
        assert_eq!(state(&[0, 0, 0, 0, 1_000_000]), State::Warning, "the mean counts");
        let never = check((9_000_000, 100), (9_000_000, 100));
        assert_eq!(Tally::new(5).read(&never, ADDRESS.parse().ok()).state, State::Critical, "nothing came back");
    }

    #[test]
    fn an_answer_counts_once_and_only_for_a_request() {
        let mut tally = Tally::new(2);
        tally.count(0, Duration::from_millis(1));
        tally.count(0, Duration::from_millis(9));
        tally.count(7, Duration::from_millis(1));
        assert!(!tally.is_complete());
        tally.count(1, Duration::from_millis(3));
        assert!(tally.is_complete());
        let found = tally.read(&check((1_000_000, 40), (2_000_000, 80)), ADDRESS.parse().ok());
        assert!(found.text.contains("rta 2.000ms, lost 0%"), "{}", found.text);
    }

    #[test]
    fn an_echo_is_told_from_everything_else() {
        for is_v6 in [false, true] {
            let mut echo = Echo::new(is_v6, *b"12345678");
            let request = echo.request(258).to_vec();
            assert_eq!((request.len(), request[0]), (BYTES, if is_v6 { 128 } else { 8 }));
            assert_eq!(echo.answer(&request), None, "our own request");
            let mut answer = request.clone();
            answer[0] = if is_v6 { 129 } else { 0 };
            // Checksum and identifier are the kernel's.
            answer[2..6].copy_from_slice(&[9; 4]);
            assert_eq!(echo.answer(&answer), Some(258));
            assert_eq!(echo.answer(&answer[..15]), None);
            let mut foreign = answer.clone();
            foreign[8] ^= 1;
            assert_eq!(echo.answer(&foreign), None);
            answer[1] = 1;
            assert_eq!(echo.answer(&answer), None);
        }
    }

    proptest! {
        #[test]
        fn no_message_makes_it_panic(message in proptest::collection::vec(any::<u8>(), 0..200)) {
            let echo = Echo::new(false, [0; 8]);
            if let Some(number) = echo.answer(&message) {
                Tally::new(3).count(number, Duration::ZERO);
            }
        }
    }
}
