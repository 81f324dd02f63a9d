//! The link port against every peer it must not trust, and both ends against each other: each refusal is closed, counted under its
//! own name and logged, and nothing of a refused peer reaches the rooms behind. Certificates are forged with the real CA's key.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its stage has nothing better to do")]

mod flood;
mod flow;
mod forge;
mod hostile_frames;
mod listen;
mod refused_by_master;
mod refused_by_satellite;
mod resumption;
mod trust_files;
