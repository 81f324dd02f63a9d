//! `kill -9` at random moments, satellites and master in turns, under load: the outside ledger is clean in the end, and the journal
//! gives back the very state that was shown, and never two living grants of one check. Two processes for one slot and processes that
//! stand still are held to the same, and so are programs whose clocks are set, and slots that are lost, cut off, drained and given back
//! beside others of their region. A cut with a backlog: newest states first, true times afterwards. And what the kernel saw:
//! nothing is called durable before its fdatasync has returned.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its stage has nothing better to do")]

mod claims;
mod clocks;
mod cut;
mod failover;
mod grants;
mod overlaps;
mod replay;
mod rounds;
mod scene;
mod stopped;
mod traced;
