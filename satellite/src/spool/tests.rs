//! Facts about the spool room, on inputs made by hand.
