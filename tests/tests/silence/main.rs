//! What is lost and who is silent, on every face of the real master: its API, its commands in a terminal, and its page in a real
//! browser. A spool that is overrun, a satellite that is gone, and a metrics writer that the journal could not wait for.
#![cfg(test)]

mod gone;
mod overrun;
mod scene;
