//! What the master's store and history keep: through kill -9, a full disk, damaged files, and a history that is deleted. The rows come
//! from the real coordinator; what it published in memory is compared with what the disk gives back.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot set its stage has nothing better to do"
)]

mod backup;
mod damage;
mod fleet;
mod full_disk;
mod history;
mod killed;
mod trimming;
