//! The master's disk under a running fleet, against the outside ledger: full, and put back from yesterday's backup. The programs are
//! the real ones, and so is the full file system.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests that let real time pass and have nothing better to do when their stage cannot be set"
)]

mod ended;
mod full;
mod restored;
mod scene;
