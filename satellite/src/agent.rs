//! The satellite as an NRPE daemon for its own container or host: it answers what commands its configuration has.
//! Holds the checks that are built in; they know nothing of NRPE and are run by hand as well (`perigee-satellite check`).

pub mod builtin;
