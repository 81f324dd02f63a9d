//! What the NRPE client has done since its start, for metrics: answers, handshakes, second attempts, faults by class.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::endpoint::Plan;
use super::error::{Class, Phase};
use super::packet::NotAnAnswer;
use super::remote::Remote;

/// The names of the classes of faults, in the order in which they are counted. All alerts are one.
pub const FAULTS: [&str; 32] = [
    "dns",
    "connect-refused",
    "connect-unreachable",
    "connect-failed",
    "tls-alert",
    "tls-dh-too-small",
    "tls-not-tls",
    "tls-closed",
    "tls-failed",
    "tls-client-certificate",
    "tls-files",
    "tls-not-trusted",
    "tls-expired",
    "tls-wrong-name",
    "tls-wrong-pin",
    "refused-here",
    "request-refused",
    "eof-before-response",
    "eof-in-response",
    "protocol-foreign",
    "protocol-length",
    "protocol-checksum",
    "protocol-truncated",
    "too-much-data",
    "request-too-long",
    "bind-failed",
    "queue-timeout",
    "dns-timeout",
    "connect-timeout",
    "tls-timeout",
    "send-timeout",
    "answer-timeout",
];

/// The counters at one moment, as an operator is shown them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Requests that were answered.
    pub answers: u64,
    /// Requests made again in another packet version.
    pub fallbacks: u64,
    /// TLS handshakes that ended well.
    pub handshakes: Handshakes,
    /// What became of session tickets.
    pub tickets: Tickets,
    /// Answers in which the daemon says that it could not run a command, by name of the reason.
    pub remote: BTreeMap<&'static str, u64>,
    /// Requests that failed, by name of the class.
    pub faults: BTreeMap<&'static str, u64>,
}

/// TLS handshakes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Handshakes {
    /// In full: 0.5 ms of CPU and more.
    pub full: u64,
    /// With a ticket.
    pub resumed: u64,
}

/// Session tickets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tickets {
    /// Handshakes for which there was one.
    pub offered: u64,
    /// Those that the daemon honoured.
    pub honoured: u64,
    /// Those that it did not.
    pub missed: u64,
    /// Handshakes with daemons that are offered none.
    pub barred: u64,
}

/// Counters that only rise.
#[derive(Debug, Default)]
pub struct Counters {
    answers: AtomicU64,
    full: AtomicU64,
    resumed: AtomicU64,
    fallbacks: AtomicU64,
    offered: AtomicU64,
    missed: AtomicU64,
    barred: AtomicU64,
    remote: [AtomicU64; Remote::ALL.len()],
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

    /// Handshakes for which there was a ticket.
    #[must_use]
    pub fn tickets_offered(&self) -> u64 {
        self.offered.load(Ordering::Relaxed)
    }

    /// Tickets that were offered to no effect: the daemon has new keys, or broke off.
    #[must_use]
    pub fn tickets_missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    /// Handshakes with daemons that are offered no ticket, because they ask for client certificates or never honour one.
    #[must_use]
    pub fn tickets_barred(&self) -> u64 {
        self.barred.load(Ordering::Relaxed)
    }

    /// Requests made again in another packet version.
    #[must_use]
    pub fn fallbacks(&self) -> u64 {
        self.fallbacks.load(Ordering::Relaxed)
    }

    /// All of it, to be shown; of the faults those that have happened.
    #[must_use]
    pub fn figures(&self) -> Figures {
        Figures {
            answers: self.answers(),
            fallbacks: self.fallbacks(),
            handshakes: Handshakes { full: self.handshakes_full(), resumed: self.handshakes_resumed() },
            tickets: Tickets {
                offered: self.tickets_offered(),
                honoured: self.handshakes_resumed(),
                missed: self.tickets_missed(),
                barred: self.tickets_barred(),
            },
            remote: Remote::ALL
                .iter()
                .map(|&remote| (remote.kind(), self.remote[remote as usize].load(Ordering::Relaxed)))
                .filter(|&(_, count)| count > 0)
                .collect(),
            faults: self.faults().filter(|&(_, count)| count > 0).collect(),
        }
    }

    /// Requests that failed, by name of the class; those that never happened are in it with 0.
    pub fn faults(&self) -> impl Iterator<Item = (&'static str, u64)> {
        FAULTS.iter().zip(&self.faults).map(|(&name, count)| (name, count.load(Ordering::Relaxed)))
    }

    /// A request was answered; `remote` if the daemon had to speak for itself.
    pub(super) fn answered(&self, remote: Option<Remote>) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        if let Some(remote) = remote {
            self.remote[remote as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn shook_hands(&self, resumed: bool) {
        let counter = if resumed { &self.resumed } else { &self.full };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// What became of the ticket of a handshake by `plan`, which ended well (`resumed` or not) or badly.
    pub(super) fn used_ticket(&self, plan: &Plan, resumed: bool) {
        if plan.ticket.is_none() {
            self.barred.fetch_add(1, Ordering::Relaxed);
        } else if plan.offered {
            self.offered.fetch_add(1, Ordering::Relaxed);
            self.missed.fetch_add(u64::from(!resumed), Ordering::Relaxed);
        }
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
        Class::ClientCertificate { .. } => 9,
        Class::TlsFiles(_) => 10,
        Class::Untrusted(_) => 11,
        Class::Expired(_) => 12,
        Class::WrongName(_) => 13,
        Class::WrongPin(_) => 14,
        Class::RefusedHere { .. } => 15,
        Class::RequestRefused => 16,
        Class::ClosedBeforeAnswer => 17,
        Class::BrokenOff(_) => 18,
        Class::Protocol(NotAnAnswer::Foreign { .. } | NotAnAnswer::Kind { .. }) => 19,
        Class::Protocol(NotAnAnswer::Length(_) | NotAnAnswer::TooLong) => 20,
        Class::Protocol(NotAnAnswer::Checksum(_)) => 21,
        Class::Protocol(NotAnAnswer::Truncated { .. }) => 22,
        Class::TooMuch(_) => 23,
        Class::Request(_) => 24,
        Class::Bind(_) => 25,
        Class::Timeout { phase, .. } => match phase {
            Phase::Queue => 26,
            Phase::Dns => 27,
            Phase::Connect => 28,
            Phase::Tls => 29,
            Phase::Send => 30,
            Phase::Answer | Phase::Rest => 31,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_offered_honoured_missed_or_barred() {
        use crate::probe::nrpe::endpoint::TicketName;
        use crate::probe::nrpe::policy::Suites;
        let counters = Counters::default();
        let ticket = Some(TicketName { endpoint: 1, generation: 0 });
        let first = Plan { suites: Suites::Fast, ticket, offered: false };
        let later = Plan { offered: true, ..first };
        let barred = Plan { ticket: None, ..first };
        for (plan, resumed) in [(&first, false), (&later, true), (&later, true), (&later, false), (&barred, false)] {
            counters.shook_hands(resumed);
            counters.used_ticket(plan, resumed);
        }
        let figures = counters.figures();
        assert_eq!(figures.tickets, Tickets { offered: 3, honoured: 2, missed: 1, barred: 1 });
        assert_eq!(figures.handshakes, Handshakes { full: 3, resumed: 2 });
        assert!(figures.faults.is_empty());
        for remote in [None, Some(Remote::NoOutput), Some(Remote::TimedOut), Some(Remote::NoOutput)] {
            counters.answered(remote);
        }
        let figures = counters.figures();
        assert_eq!(figures.answers, 4);
        assert_eq!(figures.remote, BTreeMap::from([("nrpe-command-timeout", 1), ("nrpe-no-output", 2)]));
        counters.failed(&Class::Refused);
        assert_eq!(counters.figures().faults, BTreeMap::from([("connect-refused", 1)]));
    }

    #[test]
    fn a_fault_is_counted_under_its_own_name() {
        let classes = [
            Class::Dns(String::new()),
            Class::Refused,
            Class::Unreachable(String::new()),
            Class::Connect(String::new()),
            Class::Bind(String::new()),
            Class::Alert { number: 40, name: String::new() },
            Class::DhTooSmall,
            Class::NotTls(String::new()),
            Class::ClosedInHandshake,
            Class::Tls(String::new()),
            Class::ClientCertificate { alert: None, shown: false },
            Class::TlsFiles(String::new()),
            Class::Untrusted(String::new()),
            Class::Expired(String::new()),
            Class::WrongName(String::new()),
            Class::WrongPin(String::new()),
            Class::RefusedHere { in_handshake: true },
            Class::RequestRefused,
            Class::ClosedBeforeAnswer,
            Class::BrokenOff(String::new()),
            Class::Protocol(NotAnAnswer::Foreign { what: String::new(), first: String::new() }),
            Class::Protocol(NotAnAnswer::Length(-1)),
            Class::Protocol(NotAnAnswer::TooLong),
            Class::Protocol(NotAnAnswer::Checksum(1)),
            Class::Protocol(NotAnAnswer::Truncated { have: 1, need: 2 }),
            Class::TooMuch(1),
            Class::Timeout { phase: Phase::Queue, after: std::time::Duration::ZERO },
            Class::Timeout { phase: Phase::Answer, after: std::time::Duration::ZERO },
            Class::Timeout { phase: Phase::Rest, after: std::time::Duration::ZERO },
        ];
        for class in classes {
            let counters = Counters::default();
            counters.failed(&class);
            let counted: Vec<_> = counters.faults().filter(|&(_, count)| count > 0).collect();
            assert!(class.kind().starts_with(counted[0].0) && counted.len() == 1, "{counted:?} for {}", class.kind());
        }
    }
}
