//! Facts about the outbox room, on inputs made by hand.
