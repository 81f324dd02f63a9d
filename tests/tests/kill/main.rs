//! `kill -9` at random moments, satellites and master in turns, under load: the outside ledger is clean in the end, and the journal
//! gives back the very state that was shown. A cut with a backlog: newest states first, true times afterwards. And what the kernel
//! saw: nothing is called durable before its fdatasync has returned.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its stage has nothing better to do")]

mod cut;
mod replay;
mod rounds;
mod traced;
