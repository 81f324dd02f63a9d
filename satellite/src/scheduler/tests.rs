//! Facts about the scheduler room, on inputs made by hand.
