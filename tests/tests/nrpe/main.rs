//! The satellite's NRPE client against Debian's daemon, with Debian's `check_nrpe` as the oracle, and against daemons of our own
//! for the versions, manners and lies that Debian's cannot show. What needs Debian's programs is skipped loudly without them.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot set its scene has failed")]

mod certificate;
mod fakes;
mod fleet;
mod fuzz;
mod hostile;
mod matrix;
mod oracle;
mod port;
mod queue;
mod scene;
mod service;
mod tickets;
