//! The interface from outside: a real socket, a real store, a real client.

mod access;
mod reading;
mod rig;
mod streaming;
