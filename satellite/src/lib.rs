//! Perigee's satellite, as rooms: the brain that decides, and the shells around it. `docs/ARCHITECTURE.md` is the map.
//! Knows nothing of the master but the contract in `shared`.

pub mod clock;
pub mod command;
pub mod outbox;
pub mod scheduler;
pub mod nrpe;
pub mod process;
pub mod probe;
pub mod agent;
pub mod discover;
pub mod spool;
pub mod link;
pub mod check_nrpe;
pub mod settings;
pub mod run;
