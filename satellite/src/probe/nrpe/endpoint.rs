//! What is remembered of each NRPE endpoint: packet version, cipher list, ticket, and for how long each is believed. Decides
//! which versions to try and in which order. Pure: time comes in, connections and tickets themselves are elsewhere (`tls`).
//!
//! The surprise: nothing here is configuration. Every memory expires, because a daemon may be replaced under the same address,
//! and every failure shortens it.

use std::collections::HashMap;
use std::time::Duration;

use shared::time::Monotonic;

use super::packet::Version;
use super::policy::{Endpoint, Suites, TlsPolicy};

/// How long a learned version or cipher list is believed. After it the endpoint is asked as if it were new: that is how a host
/// wrongly taken for a 2.x daemon gets its long output back.
pub const BELIEVED_FOR: Duration = Duration::from_secs(3600);
/// At most one search through all versions per endpoint in this time, once a version is known: a request that the daemon dislikes
/// looks like a wrong version, and would cost three connections at every check.
pub const SEARCH_EVERY: Duration = Duration::from_secs(60);
/// So many version 3 requests in a row may vanish before version 3 is given up: 3.0–3.2 daemons drop about one in a hundred.
pub const DROPS_BELIEVED: u8 = 3;
/// After so many tickets in a row that were not honoured none is offered for [`BELIEVED_FOR`] (inetd: new keys per connection).
pub const MISSES_BELIEVED: u8 = 3;
/// How long after a full handshake its session may be resumed: nrpe's own lifetime of a ticket. Also how long a peer that is
/// verified goes without showing its certificate again.
pub const TICKET_LIFE: Duration = Duration::from_secs(7200);
/// After so many tickets of TLS 1.3 in a row that were not honoured all that are left are given up; each is used once, and one
/// alone may just have been the last.
const MISSES_GIVE_UP: u8 = 2;
/// Endpoints remembered. Beyond it those not asked for the longest time are forgotten; they are then asked as if new.
pub const MAX_ENDPOINTS: usize = 65_536;

/// Names a ticket of an endpoint; the next generation of it is another ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TicketName {
    /// Number of the endpoint.
    pub endpoint: u64,
    /// Counts the tickets that were given up.
    pub generation: u64,
}

/// How to open the next TLS connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Cipher list.
    pub suites: Suites,
    /// Under which name a ticket is kept; `None`: this daemon must not be offered one.
    pub ticket: Option<TicketName>,
    /// Whether there is one under that name, as far as is known.
    pub offered: bool,
}

#[derive(Debug)]
struct Memory {
    used: Monotonic,
    version: Option<(Version, Monotonic)>,
    drops: u8,
    searched: Option<Monotonic>,
    all_suites: Option<Monotonic>,
    ticket: TicketName,
    /// When the oldest session kept was new.
    since: Option<Monotonic>,
    misses: u8,
    no_tickets: Option<Monotonic>,
    answered: bool,
    /// Whether the daemon asked for a client certificate when it was last spoken to in full.
    asks_certificate: bool,
    /// When the daemon was last asked for its version because it was silent, and whether it answered.
    asked_version: Option<(Monotonic, bool)>,
}

/// The memory of all endpoints of one prober.
#[derive(Debug, Default)]
pub struct Endpoints {
    known: HashMap<Endpoint, Memory>,
    numbered: u64,
}

impl Endpoints {
    /// The versions to try for the next request, in order. Never empty.
    pub fn versions(&mut self, endpoint: &Endpoint, now: Monotonic) -> Vec<Version> {
        use Version::{V2, V3, V4};
        let memory = self.memory(endpoint, now);
        let search = memory.searched.is_none_or(|searched| now.since(searched) >= SEARCH_EVERY);
        let known = memory.version.filter(|&(_, learned)| now.since(learned) < BELIEVED_FOR);
        let mut versions = match known {
            None => return vec![V4, V3, V2],
            Some((V4, _)) => vec![V4, V3, V2],
            // A 3.x daemon drops a request now and then; in version 2 it gets through.
            Some((V3, _)) => vec![V3, V2, V4],
            Some((V2, _)) => vec![V2, V4, V3],
        };
        if !search {
            versions.truncate(if versions.first() == Some(&V3) { 2 } else { 1 });
        }
        versions
    }

    /// A request in `version` got an answer, after those in `refused` got none.
    pub fn answered(&mut self, endpoint: &Endpoint, version: Version, refused: &[Version], now: Monotonic) {
        let memory = self.memory(endpoint, now);
        if !refused.is_empty() && memory.version.is_some() {
            memory.searched = Some(now);
        }
        let known = memory.version.map(|(known, _)| known);
        if known == Some(Version::V3) && refused == [Version::V3] && version == Version::V2 {
            memory.drops = memory.drops.saturating_add(1);
            if memory.drops < DROPS_BELIEVED {
                return;
            }
        }
        memory.drops = 0;
        // A version confirmed again keeps its age, so that a better one is looked for in time.
        if known != Some(version) || memory.version.is_some_and(|(_, at)| now.since(at) >= BELIEVED_FOR) {
            memory.version = Some((version, now));
        }
    }

    /// None of these versions got an answer: the daemon dislikes the request, or is not what it was. Only after all of them is
    /// the next search put off: a request that is refused all the time must not keep a daemon that was replaced from being found.
    pub fn refused(&mut self, endpoint: &Endpoint, tried: &[Version], now: Monotonic) {
        if [Version::V4, Version::V3, Version::V2].iter().all(|version| tried.contains(version)) {
            self.memory(endpoint, now).searched = Some(now);
        }
    }

    /// What came back was no NRPE at all: whoever listens there now is a stranger.
    pub fn estranged(&mut self, endpoint: &Endpoint, now: Monotonic) {
        let memory = self.memory(endpoint, now);
        memory.version = None;
        memory.all_suites = None;
        memory.drop_ticket();
    }

    /// How to open the next TLS connection.
    pub fn plan(&mut self, endpoint: &Endpoint, now: Monotonic) -> Plan {
        let memory = self.memory(endpoint, now);
        let believed = |since: Option<Monotonic>| since.is_some_and(|since| now.since(since) < BELIEVED_FOR);
        let barred = believed(memory.no_tickets);
        if memory.since.is_some_and(|since| now.since(since) >= TICKET_LIFE) {
            memory.drop_ticket();
        }
        let first = endpoint.security.tls().map_or(Suites::All, TlsPolicy::first);
        Plan {
            suites: if believed(memory.all_suites) { Suites::All } else { first },
            ticket: (!barred).then_some(memory.ticket),
            offered: !barred && memory.since.is_some(),
        }
    }

    /// A handshake by `plan` succeeded; `resumed` says that the daemon honoured a ticket, `single_use` that its tickets are those
    /// of TLS 1.3, of which there may be several or, just now, none.
    pub fn shook_hands(&mut self, endpoint: &Endpoint, plan: &Plan, resumed: bool, single_use: bool, now: Monotonic) {
        let memory = self.memory(endpoint, now);
        if plan.suites == Suites::All && memory.all_suites.is_none_or(|at| now.since(at) >= BELIEVED_FOR) {
            memory.all_suites = Some(now);
        }
        if plan.ticket != Some(memory.ticket) {
            return;
        }
        if plan.offered && !resumed {
            memory.misses = memory.misses.saturating_add(1);
            // The daemon has new keys. The old ticket is worth nothing, and would be the first one offered again.
            if !single_use || memory.misses >= MISSES_GIVE_UP {
                memory.drop_ticket();
            }
            if memory.misses >= MISSES_BELIEVED {
                memory.no_tickets = Some(now);
                memory.misses = 0;
            }
            return;
        }
        if resumed {
            memory.misses = 0;
        }
        memory.since.get_or_insert(now);
    }

    /// A handshake by `plan` failed; an offered ticket may be the reason and is dropped.
    pub fn handshake_failed(&mut self, endpoint: &Endpoint, plan: &Plan, now: Monotonic) {
        let memory = self.memory(endpoint, now);
        if plan.suites == Suites::All {
            memory.all_suites = None;
        }
        if plan.ticket == Some(memory.ticket) {
            memory.drop_ticket();
        }
    }

    /// The daemon cannot bear tickets (it asks for client certificates): none is offered until this is forgotten.
    pub fn bar_tickets(&mut self, endpoint: &Endpoint, now: Monotonic) {
        let memory = self.memory(endpoint, now);
        memory.drop_ticket();
        memory.no_tickets = Some(now);
    }

    /// Whether the daemon asked for a client certificate in a full handshake that has just ended, well or badly.
    pub fn asked_certificate(&mut self, endpoint: &Endpoint, asked: bool, now: Monotonic) {
        self.memory(endpoint, now).asks_certificate = asked;
    }

    /// Whether the daemon asks for client certificates, as far as is known.
    #[must_use]
    pub fn asks_certificate(&self, endpoint: &Endpoint) -> bool {
        self.known.get(endpoint).is_some_and(|memory| memory.asks_certificate)
    }

    /// The daemon gave an answer to something.
    pub fn heard(&mut self, endpoint: &Endpoint, now: Monotonic) {
        self.memory(endpoint, now).answered = true;
    }

    /// Whether the daemon has ever answered this process, as far as it remembers.
    #[must_use]
    pub fn has_answered(&self, endpoint: &Endpoint) -> bool {
        self.known.get(endpoint).is_some_and(|memory| memory.answered)
    }

    /// Whether the daemon, which was silent, answered when it was asked for its version; `None`: ask it. At most one such
    /// question in [`SEARCH_EVERY`].
    #[must_use]
    pub fn version_answer(&self, endpoint: &Endpoint, now: Monotonic) -> Option<bool> {
        let asked = self.known.get(endpoint).and_then(|memory| memory.asked_version);
        asked.filter(|&(at, _)| now.since(at) < SEARCH_EVERY).map(|(_, answered)| answered)
    }

    /// The daemon was asked for its version because it was silent.
    pub fn asked_version(&mut self, endpoint: &Endpoint, answered: bool, now: Monotonic) {
        self.memory(endpoint, now).asked_version = Some((now, answered));
    }

    /// The version an endpoint is taken to speak, if it has answered.
    #[must_use]
    pub fn version(&self, endpoint: &Endpoint) -> Option<Version> {
        self.known.get(endpoint).and_then(|memory| memory.version).map(|(version, _)| version)
    }

    fn memory(&mut self, endpoint: &Endpoint, now: Monotonic) -> &mut Memory {
        if !self.known.contains_key(endpoint) && self.known.len() >= MAX_ENDPOINTS {
            self.forget_the_oldest();
        }
        let numbered = &mut self.numbered;
        let memory = self.known.entry(endpoint.clone()).or_insert_with(|| {
            *numbered += 1;
            Memory {
                used: now,
                version: None,
                drops: 0,
                searched: None,
                all_suites: None,
                ticket: TicketName { endpoint: *numbered, generation: 0 },
                since: None,
                misses: 0,
                no_tickets: None,
                answered: false,
                asks_certificate: false,
                asked_version: None,
            }
        });
        memory.used = now;
        memory
    }

    /// Half of them at once, so that a fleet just beyond the limit does not sort its endpoints at every check.
    fn forget_the_oldest(&mut self) {
        let mut uses: Vec<Monotonic> = self.known.values().map(|memory| memory.used).collect();
        let middle = uses.len() / 2;
        let (_, &mut median, _) = uses.select_nth_unstable(middle);
        self.known.retain(|_, memory| memory.used > median);
    }
}

impl Memory {
    fn drop_ticket(&mut self) {
        self.since = None;
        self.ticket.generation += 1;
    }
}

#[cfg(test)]
mod tests {
    use Version::{V2, V3, V4};

    use super::*;
    use crate::probe::nrpe::policy::Security;

    fn at(seconds: u64) -> Monotonic {
        Monotonic(seconds * 1_000_000_000)
    }

    fn endpoint(address: &str) -> Endpoint {
        Endpoint { address: address.to_owned(), port: 5666, security: Security::anonymous() }
    }

    #[test]
    fn a_new_endpoint_is_asked_in_the_newest_version_first() {
        let mut endpoints = Endpoints::default();
        assert_eq!(endpoints.versions(&endpoint("a"), at(0)), [V4, V3, V2]);
        assert_eq!(endpoints.version(&endpoint("a")), None);
    }

    #[test]
    fn what_was_answered_is_asked_first_until_it_is_forgotten() {
        let mut endpoints = Endpoints::default();
        let old = endpoint("old");
        endpoints.answered(&old, V2, &[V4, V3], at(0));
        assert_eq!(endpoints.versions(&old, at(10)), [V2, V4, V3]);
        let later = BELIEVED_FOR.as_secs();
        endpoints.answered(&old, V2, &[], at(later - 1));
        assert_eq!(endpoints.versions(&old, at(later)), [V4, V3, V2], "confirming it does not make it younger");
    }

    #[test]
    fn a_disliked_request_searches_all_versions_once_a_minute_only() {
        let mut endpoints = Endpoints::default();
        let host = endpoint("h");
        endpoints.answered(&host, V4, &[], at(0));
        assert_eq!(endpoints.versions(&host, at(1)), [V4, V3, V2]);
        endpoints.refused(&host, &[V4, V3, V2], at(1));
        for second in 2..=SEARCH_EVERY.as_secs() {
            assert_eq!(endpoints.versions(&host, at(second)), [V4]);
            endpoints.refused(&host, &[V4], at(second));
        }
        assert_eq!(
            endpoints.versions(&host, at(1 + SEARCH_EVERY.as_secs())),
            [V4, V3, V2],
            "however often it was asked"
        );
    }

    #[test]
    fn a_replaced_daemon_is_learned_anew() {
        let mut endpoints = Endpoints::default();
        let host = endpoint("h");
        endpoints.answered(&host, V4, &[], at(0));
        endpoints.answered(&host, V2, &[V4, V3], at(5));
        assert_eq!(endpoints.version(&host), Some(V2));
        assert_eq!(endpoints.versions(&host, at(6)), [V2], "and the search just made is not repeated at once");
    }

    #[test]
    fn single_drops_of_version_3_do_not_make_a_host_version_2() {
        let mut endpoints = Endpoints::default();
        let host = endpoint("three");
        endpoints.answered(&host, V3, &[V4], at(0));
        for drop in 1..DROPS_BELIEVED {
            endpoints.answered(&host, V2, &[V3], at(u64::from(drop)));
            assert_eq!(endpoints.versions(&host, at(u64::from(drop)))[..2], [V3, V2]);
        }
        endpoints.answered(&host, V3, &[], at(10));
        for drop in 0..DROPS_BELIEVED {
            endpoints.answered(&host, V2, &[V3], at(20 + u64::from(drop)));
        }
        assert_eq!(endpoints.version(&host), Some(V2), "in a row they do");
    }

    #[test]
    fn a_ticket_is_offered_after_the_first_handshake_and_dropped_when_not_honoured() {
        let mut endpoints = Endpoints::default();
        let host = endpoint("h");
        let first = endpoints.plan(&host, at(0));
        assert!(!first.offered && first.ticket.is_some());
        endpoints.shook_hands(&host, &first, false, false, at(0));
        let second = endpoints.plan(&host, at(1));
        assert!(second.offered && second.ticket == first.ticket);
        endpoints.shook_hands(&host, &second, true, false, at(1));
        assert!(endpoints.plan(&host, at(2)).offered);
        endpoints.shook_hands(&host, &second, false, false, at(3));
        let after_restart = endpoints.plan(&host, at(4));
        assert!(!after_restart.offered && after_restart.ticket != second.ticket);
    }

    #[test]
    fn a_daemon_that_never_honours_tickets_is_offered_none_for_a_while() {
        let mut endpoints = Endpoints::default();
        let inetd = endpoint("inetd");
        for second in 0..u64::from(2 * MISSES_BELIEVED) {
            let plan = endpoints.plan(&inetd, at(second));
            assert!(plan.ticket.is_some(), "second {second}");
            endpoints.shook_hands(&inetd, &plan, false, false, at(second));
        }
        assert_eq!(endpoints.plan(&inetd, at(10)).ticket, None);
        assert!(endpoints.plan(&inetd, at(10 + BELIEVED_FOR.as_secs())).ticket.is_some());
    }

    #[test]
    fn tickets_of_tls_1_3_are_not_given_up_for_one_that_was_lacking() {
        let mut endpoints = Endpoints::default();
        let host = endpoint("three");
        let first = endpoints.plan(&host, at(0));
        endpoints.shook_hands(&host, &first, false, true, at(0));
        let next = endpoints.plan(&host, at(1));
        endpoints.shook_hands(&host, &next, false, true, at(1));
        assert_eq!(endpoints.plan(&host, at(2)), next, "three at once, and two tickets");
        endpoints.shook_hands(&host, &next, true, true, at(2));
        // A restarted daemon knows none of them.
        for _ in 0..MISSES_GIVE_UP {
            assert!(endpoints.plan(&host, at(3)).offered);
            endpoints.shook_hands(&host, &next, false, true, at(3));
        }
        let after = endpoints.plan(&host, at(4));
        assert!(!after.offered && after.ticket.is_some() && after.ticket != next.ticket);
        endpoints.shook_hands(&host, &after, false, true, at(4));
        let again = endpoints.plan(&host, at(5));
        assert!(again.offered);
        endpoints.shook_hands(&host, &again, false, true, at(5));
        assert_eq!(endpoints.plan(&host, at(6)).ticket, None, "inetd: new keys for every connection");
    }

    #[test]
    fn a_session_is_resumed_for_two_hours_at_most() {
        let mut endpoints = Endpoints::default();
        let host = endpoint("h");
        let plan = endpoints.plan(&host, at(0));
        endpoints.shook_hands(&host, &plan, false, false, at(0));
        for minute in 1..120 {
            let plan = endpoints.plan(&host, at(minute * 60));
            assert!(plan.offered, "minute {minute}");
            endpoints.shook_hands(&host, &plan, true, false, at(minute * 60));
        }
        assert!(!endpoints.plan(&host, at(TICKET_LIFE.as_secs())).offered, "then the certificate is shown again");
    }

    #[test]
    fn a_silent_daemon_is_asked_for_its_version_once_a_minute() {
        let mut endpoints = Endpoints::default();
        let host = endpoint("silent");
        assert!(!endpoints.has_answered(&host));
        assert_eq!(endpoints.version_answer(&host, at(0)), None);
        endpoints.asked_version(&host, false, at(0));
        assert_eq!(endpoints.version_answer(&host, at(59)), Some(false));
        assert_eq!(endpoints.version_answer(&host, at(60)), None);
        endpoints.heard(&host, at(60));
        endpoints.asked_version(&host, true, at(60));
        assert!(endpoints.has_answered(&host));
        assert_eq!(endpoints.version_answer(&host, at(61)), Some(true));
    }

    #[test]
    fn the_second_cipher_list_is_remembered_until_it_fails() {
        let mut endpoints = Endpoints::default();
        let host = endpoint("adh");
        let fast = endpoints.plan(&host, at(0));
        let all = Plan { suites: Suites::All, ..fast };
        endpoints.shook_hands(&host, &all, false, false, at(0));
        assert_eq!(endpoints.plan(&host, at(1)).suites, Suites::All);
        let later = at(BELIEVED_FOR.as_secs());
        assert_eq!(endpoints.plan(&host, later).suites, Suites::Fast, "and the first is tried again after an hour");
        endpoints.shook_hands(&host, &all, false, false, later);
        assert_eq!(endpoints.plan(&host, later).suites, Suites::All);
        endpoints.handshake_failed(&host, &all, at(2));
        assert_eq!(endpoints.plan(&host, at(3)).suites, Suites::Fast);
    }

    #[test]
    fn memory_is_bounded_and_keeps_those_in_use() {
        let mut endpoints = Endpoints::default();
        for number in 0..=MAX_ENDPOINTS {
            endpoints.plan(&endpoint(&number.to_string()), at(number as u64));
        }
        assert!(endpoints.known.len() <= MAX_ENDPOINTS);
        assert!(endpoints.known.contains_key(&endpoint(&MAX_ENDPOINTS.to_string())));
        assert!(!endpoints.known.contains_key(&endpoint("0")));
    }
}
