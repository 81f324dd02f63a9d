//! What the NRPE client has done since its start, for metrics: answers, handshakes, second attempts, faults by class.

use std::sync::atomic::{AtomicU64, Ordering};

use super::error::{Class, Phase};

/// The names of the classes of faults, in the order in which they are counted. All alerts are one.
pub const FAULTS: [&str; 20] = [
    "dns",
    "connect-refused",
    "connect-unreachable",
    "connect-failed",
    "tls-alert",
    "tls-dh-too-small",
    "tls-not-tls",
    "tls-closed",
    "tls-failed",
    "eof-before-response",
    "eof-in-response",
    "protocol",
    "too-much-data",
    "request-too-long",
    "queue-timeout",
    "dns-timeout",
    "connect-timeout",
    "tls-timeout",
    "send-timeout",
    "answer-timeout",
];

/// Counters that only rise.
#[derive(Debug, Default)]
pub struct Counters {
    answers: AtomicU64,
    full: AtomicU64,
    resumed: AtomicU64,
    fallbacks: AtomicU64,
    faults: [AtomicU64; FAULTS.len()],
}

impl Counters {
    /// Requests that were answered.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Full TLS handshakes.
    #[must_use]
    pub fn handshakes_full(&self) -> u64 {
        self.full.load(Ordering::Relaxed)
    }

    /// TLS handshakes in which the daemon honoured a ticket.
    #[must_use]
    pub fn handshakes_resumed(&self) -> u64 {
        self.resumed.load(Ordering::Relaxed)
    }

    /// Requests made again in another packet version.
    #[must_use]
    pub fn fallbacks(&self) -> u64 {
        self.fallbacks.load(Ordering::Relaxed)
    }

    /// Requests that failed, by name of the class; those that never happened are in it with 0.
    pub fn faults(&self) -> impl Iterator<Item = (&'static str, u64)> {
        FAULTS.iter().zip(&self.faults).map(|(&name, count)| (name, count.load(Ordering::Relaxed)))
    }

    pub(super) fn answered(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn shook_hands(&self, resumed: bool) {
        let counter = if resumed { &self.resumed } else { &self.full };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn fell_back(&self) {
        self.fallbacks.fetch_add(1, Ordering::Relaxed);
    }

    /// A request failed.
    pub fn failed(&self, class: &Class) {
        self.faults[index(class)].fetch_add(1, Ordering::Relaxed);
    }
}

const fn index(class: &Class) -> usize {
    match class {
        Class::Dns(_) => 0,
        Class::Refused => 1,
        Class::Unreachable(_) => 2,
        Class::Connect(_) => 3,
        Class::Alert { .. } => 4,
        Class::DhTooSmall => 5,
        Class::NotTls(_) => 6,
        Class::ClosedInHandshake => 7,
        Class::Tls(_) => 8,
        Class::ClosedBeforeAnswer => 9,
        Class::BrokenOff(_) => 10,
        Class::Protocol(_) => 11,
        Class::TooMuch(_) => 12,
        Class::Request(_) => 13,
        Class::Timeout { phase, .. } => match phase {
            Phase::Queue => 14,
            Phase::Dns => 15,
            Phase::Connect => 16,
            Phase::Tls => 17,
            Phase::Send => 18,
            Phase::Answer => 19,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_counted_under_its_own_name() {
        let classes = [
            Class::Dns(String::new()),
            Class::Refused,
            Class::Unreachable(String::new()),
            Class::Connect(String::new()),
            Class::Alert { number: 40, name: String::new() },
            Class::DhTooSmall,
            Class::NotTls(String::new()),
            Class::ClosedInHandshake,
            Class::Tls(String::new()),
            Class::ClosedBeforeAnswer,
            Class::BrokenOff(String::new()),
            Class::TooMuch(1),
            Class::Timeout { phase: Phase::Queue, after: std::time::Duration::ZERO },
            Class::Timeout { phase: Phase::Answer, after: std::time::Duration::ZERO },
        ];
        for class in classes {
            let counters = Counters::default();
            counters.failed(&class);
            let counted: Vec<_> = counters.faults().filter(|&(_, count)| count > 0).collect();
            assert!(class.kind().starts_with(counted[0].0) && counted.len() == 1, "{counted:?} for {}", class.kind());
        }
    }
}
