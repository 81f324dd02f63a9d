//! The agent beside Debian's daemon, both started from one configuration and asked by Debian's `check_nrpe`: what comes back must be
//! the same. Then what Debian's cannot show: arguments, version 3, bounds, a configuration that is read again.
#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene has failed")]

mod arguments;
mod bounds;
mod configuration;
mod modes;
mod orphans;
mod refusals;
mod scene;
mod tickets;
mod versions;
