//! The proving ground: what the tests and the demo need around the two real programs. Only this crate links both of them.
//! Nothing here is part of the product; what it measures it measures from outside.

pub mod agent;
pub mod audit;
pub mod browser;
pub mod carbon;
pub mod bench;
pub mod daemon;
pub mod demo;
pub mod fakes;
pub mod figure;
pub mod fleet;
pub mod http;
pub mod lag;
pub mod ledger;
pub mod load;
pub mod missing;
pub mod network;
pub mod nrpe;
pub mod packets;
pub mod pki;
pub mod process;
pub mod relay;
pub mod samples;
pub mod shown;
pub mod simulation;
pub mod sink;
pub mod slope;
pub mod storm;
pub mod syscalls;
pub mod usage;
pub mod violation;
pub mod wait;
