//! `check-nrpe` against Debian's check_nrpe: the same command lines against the same daemons, exit code, standard output and
//! standard error compared; where they differ an exemption says for which option or class of failure, and why. And
//! `docs/nrpe.md` word for word: its commands are run, its list of what differs is this one.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot set its scene has failed")]

mod both;
mod cost;
mod exempt;
mod guide;
mod page;
mod scene;
mod table;
