//! Bad networks between the real programs, judged by the outside ledger: whatever a road does to datagrams, no result is lost and
//! none is there twice. Delay, jitter, reordering, copies, damage and rebinding are our relay's work (`relayed`), loss, rate, packet
//! size and cuts the kernel's (`cabled`), where it can. `PERIGEE_PROFILES=all` tries every profile, for longer; else three.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its stage has nothing better to do")]

mod blocked;
mod cabled;
mod congestion;
mod healed;
mod relayed;
mod scene;
mod states;
