//! A satellite's disk under attack, with the real programs and the outside ledger: full, failing at every call, damaged at rest. Nothing
//! that was called durable is lost without a name, and checking goes on.
#![cfg(test)]

mod aged;
mod damaged;
mod full;
mod kept;
mod large;
mod refused;
mod scene;
