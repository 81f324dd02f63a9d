//! Perigee's master, as rooms: the brain that decides, and the shells around it. `docs/ARCHITECTURE.md` is the map.
//! Knows nothing of the satellite but the contract in `shared`.

pub mod config;
pub mod assign;
pub mod backup;
pub mod entry;
pub mod status;
pub mod fleet;
pub mod ingest;
pub mod coordinator;
pub mod store;
pub mod history;
pub mod trust;
pub mod link;
pub mod writer;
pub mod web;
pub mod api;
pub mod cli;
pub mod settings;
pub mod run;
