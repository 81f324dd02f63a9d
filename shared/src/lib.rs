//! The contract between master and satellites: names, times, checks and their results, state, schedule, assignment, messages and
//! delivery. Pure: no socket, no file, no clock, but for the one room that is the wall clock of both programs. A change in here is a
//! change of protocol or of meaning.

pub mod defect;
pub mod time;
pub mod wall;
pub mod step;
pub mod name;
pub mod unit;
pub mod range;
pub mod text;
pub mod url;
pub mod perfdata;
pub mod check;
pub mod state;
pub mod result;
pub mod schedule;
pub mod item;
pub mod delivery;
pub mod assignment;
pub mod snapshot;
pub mod command;
pub mod message;
pub mod frame;
pub mod refusal;
pub mod unanswered;
pub mod identity;
