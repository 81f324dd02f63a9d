//! Why a peer of the link is turned away, each reason with a name that metrics and tests rely on, and the counters of them.
//! Decides which reason a TLS alert stands for; knows no socket, no clock. The surprise: “expired” and “not yet valid” share one
//! alert (RFC 8446, section 6.2), so those two are told apart by the text beside it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::time::Monotonic;

/// While refusals of one kind keep coming, one of them is logged in this time; all are counted.
pub const REFUSAL_LOG_EVERY: Duration = Duration::from_secs(1);

/// QUIC carries TLS alerts as error codes from here on (RFC 9001, section 4.8).
const QUIC_CRYPTO_ERROR: u64 = 0x100;

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident $kind:literal $text:literal,)*) => {
        /// Why a peer of the link, or one of its frames, is turned away.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
        pub enum Refusal {
            $($(#[$doc])* #[error($text)] $name,)*
        }

        impl Refusal {
            /// Every reason there is.
            pub const ALL: &'static [Refusal] = &[$(Refusal::$name,)*];

            /// The stable name of the reason, for metrics and close frames.
            #[must_use]
            pub const fn kind(self) -> &'static str {
                match self {
                    $(Refusal::$name => $kind,)*
                }
            }
        }
    };
}

refusals! {
    /// The peer showed none.
    NoCertificate "no_certificate" "the peer shows no certificate",
    /// No accepted CA has signed it.
    ForeignCa "foreign_ca" "the certificate is signed by no CA of this installation",
    /// A CA's name over a signature that is not the CA's, or a handshake signed by another key.
    BadSignature "bad_signature" "a signature does not fit the certificate",
    /// Its end lies behind us.
    Expired "expired" "the certificate has expired",
    /// Its beginning lies ahead of us.
    NotYetValid "not_yet_valid" "the certificate is not yet valid: does a clock go wrong?",
    /// A slot must be client only, a master server only.
    WrongRole "wrong_role" "the certificate is made for the other end of the link",
    /// Not X.509, or X.509 that the stock verifier refuses for another reason than those named here.
    BadCertificate "bad_certificate" "the certificate is not usable",
    /// The common name is never an identity.
    NoUri "no_uri" "the certificate names no identity: it has no URI among its subject alternative names",
    /// Who names two identities names none.
    SeveralUris "several_uris" "the certificate names more than one identity",
    /// One URI, but no Perigee identity of the right role.
    BadUri "bad_uri" "the certificate's URI is no identity for this end of the link",
    /// A name that cannot be read may be the one that matters.
    UnreadableNames "unreadable_names" "the list of subject alternative names cannot be read in full",
    /// A DNS name on a slot's certificate, another DNS name than the fixed one on the master's, or any other kind of name.
    UnexpectedName "unexpected_name" "the certificate carries a name that its role does not have",
    /// Signed by an accepted CA, but for somebody else.
    ForeignInstallation "foreign_installation" "the certificate belongs to another installation",
    /// ALPN found no common protocol.
    WrongProtocol "wrong_protocol" "the peer does not speak this link's protocol",
    /// A session was offered for resumption, with or without 0-RTT; a full handshake is demanded instead.
    ResumedSession "resumed_session" "the peer offered to resume a session: a full handshake is demanded",
    /// Any other end of a handshake, its deadline included.
    Handshake "handshake" "the handshake failed",
    /// More handshakes or connections than the named bounds.
    Busy "busy" "too many handshakes or connections are open",
    /// The identity opened one connection more than it may have; the one silent for longest goes.
    Superseded "superseded" "newer connections of the same identity took this one's place",
    /// No control stream in time.
    NoControlStream "no_control_stream" "the peer opened no control stream in time",
    /// A stream without a lane, two of one lane, or a lane that ended.
    BadStream "bad_stream" "the peer broke the rules for streams",
    /// A length beyond the bound.
    FrameTooLong "frame_too_long" "a frame is longer than allowed",
    /// A frame without content.
    FrameEmpty "frame_empty" "a frame is empty",
    /// A frame whose content is no message.
    BadMessage "bad_message" "a frame holds no message this program can read",
    /// The peer takes too little off the control stream.
    SlowReader "slow_reader" "the peer does not read what it is sent",
    /// More bytes of batches than the credit given, or returned than held.
    CreditExceeded "credit_exceeded" "the peer sends more than it was given credit for",
    /// Credit that others wait for, held and not used for long.
    CreditUnused "credit_unused" "the peer holds credit that it does not use, and others wait for it",
    /// The certificate ended while the connection was open.
    CertificateEnded "certificate_ended" "the certificate ended during the connection",
}

impl Refusal {
    /// The reason behind a failed handshake: `code` is the QUIC error code, `reason` rustls' text beside it.
    #[must_use]
    pub fn of_handshake(code: u64, reason: &str) -> Refusal {
        // Alert numbers: RFC 8446, section 6.
        match code.checked_sub(QUIC_CRYPTO_ERROR) {
            Some(116) => Refusal::NoCertificate,
            Some(48) => Refusal::ForeignCa,
            Some(51) => Refusal::BadSignature,
            Some(45) if reason.contains("not valid yet") => Refusal::NotYetValid,
            Some(45) => Refusal::Expired,
            Some(43) => Refusal::WrongRole,
            Some(42 | 44 | 46 | 49) => Refusal::BadCertificate,
            Some(120) => Refusal::WrongProtocol,
            _ => Refusal::Handshake,
        }
    }

    /// The reason of this stable name.
    #[must_use]
    pub fn of_kind(kind: &str) -> Option<Refusal> {
        Refusal::ALL.iter().copied().find(|refusal| refusal.kind() == kind)
    }
}

/// How often each reason was met. Shared freely between threads.
#[derive(Debug, Default)]
pub struct Refusals {
    met: [Met; Refusal::ALL.len()],
}

#[derive(Debug, Default)]
struct Met {
    total: AtomicU64,
    /// From which time on the next one is logged.
    log_from: AtomicU64,
}

impl Refusals {
    /// Counts one. `Some(total so far)` when it is to be logged as well: the first of its kind, then one in
    /// [`REFUSAL_LOG_EVERY`], so that a flood of refused peers is no flood of lines.
    pub fn count(&self, refusal: Refusal, now: Monotonic) -> Option<u64> {
        let met = self.met.get(refusal as usize)?;
        let total = met.total.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let log_from = met.log_from.load(Ordering::Relaxed);
        let next = now.plus(REFUSAL_LOG_EVERY).0;
        // Of two threads at the same moment one logs.
        let logs = now.0 >= log_from
            && met.log_from.compare_exchange(log_from, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        logs.then_some(total)
    }

    /// How often this reason was met.
    #[must_use]
    pub fn total(&self, refusal: Refusal) -> u64 {
        self.met.get(refusal as usize).map_or(0, |met| met.total.load(Ordering::Relaxed))
    }

    /// Every reason with its count, zeros included, by stable name.
    #[must_use]
    pub fn totals(&self) -> BTreeMap<&'static str, u64> {
        Refusal::ALL.iter().map(|refusal| (refusal.kind(), self.total(*refusal))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_name_of_its_own() {
        let kinds: std::collections::BTreeSet<_> = Refusal::ALL.iter().map(|refusal| refusal.kind()).collect();
        assert_eq!(kinds.len(), Refusal::ALL.len());
        for refusal in Refusal::ALL {
            assert_eq!(Refusal::of_kind(refusal.kind()), Some(*refusal));
        }
        assert_eq!(Refusal::of_kind("weather"), None);
    }

    #[test]
    fn an_error_code_outside_the_tls_range_is_a_failed_handshake() {
        assert_eq!(Refusal::of_handshake(0, ""), Refusal::Handshake);
        assert_eq!(Refusal::of_handshake(116, ""), Refusal::Handshake);
        assert_eq!(Refusal::of_handshake(0x100 + 116, ""), Refusal::NoCertificate);
    }

    #[test]
    fn a_flood_is_counted_in_full_and_logged_in_part() {
        let refusals = Refusals::default();
        let logged: Vec<_> =
            (0..300u64).filter_map(|i| refusals.count(Refusal::ForeignCa, Monotonic(i * 10_000_000))).collect();
        assert_eq!(logged, [1, 101, 201]);
        assert_eq!(refusals.total(Refusal::ForeignCa), 300);
        assert_eq!(refusals.count(Refusal::Expired, Monotonic(1)), Some(1), "another reason has its own first line");
        assert_eq!(refusals.totals()["foreign_ca"], 300);
        assert_eq!(refusals.totals()["no_uri"], 0);
    }
}
