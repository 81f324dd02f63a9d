//! The probes beside NRPE against servers of the tests' own, in a network of their own where a test must set what belongs to a
//! machine, with Debian's Monitoring Plugins as oracles where they are installed: the state is the same and the text has the same
//! form. What needs them is skipped loudly without them.
#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene has failed")]

mod certificate;
mod dns;
mod http;
mod http_hostile;
mod icmp;
mod network;
mod plugin;
mod scene;
mod ssh;
mod system;
mod tcp;
