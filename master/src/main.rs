//! The door of `perigee-master`; it opens when the loop has landed.

fn main() {}
