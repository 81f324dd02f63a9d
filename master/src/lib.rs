//! Perigee's master, as rooms: the brain that decides, and the shells around it. `docs/ARCHITECTURE.md` is the map.
//! Knows nothing of the satellite but the contract in `shared`.

pub mod assign;
pub mod config;
pub mod link;
pub mod trust;
pub mod writer;
