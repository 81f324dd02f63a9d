//! What both programs must agree on; nothing else.
pub mod perfdata;
pub mod range;
pub mod unit;
