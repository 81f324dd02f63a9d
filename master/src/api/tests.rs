//! The interface from outside: a real socket, a real store, a real client.

mod access;
mod limits;
mod reading;
pub(crate) mod rig;
mod streaming;
