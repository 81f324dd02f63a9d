//! Waiting for something that has no signal: looked at again and again until it holds or the time is over. The only way in
//! which tests wait; a fixed sleep would be too short on a busy machine and too long on an idle one.
#![expect(clippy::disallowed_methods, reason = "a shell room: it polls the world outside in real time")]

use std::thread;
use std::time::{Duration, Instant};

const BETWEEN: Duration = Duration::from_millis(10);

/// Looks every 10 ms until `holds` or `within` is over; says whether it held in the end.
pub fn until(within: Duration, holds: impl FnMut() -> bool) -> bool {
    until_every(BETWEEN, within, holds)
}

/// The same, looking less often where a look costs much.
pub fn until_every(between: Duration, within: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + within;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(between);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_holds_ends_with_the_time() {
        let mut looks = 0;
        assert!(!until(Duration::from_millis(30), || {
            looks += 1;
            false
        }));
        assert!(looks > 1);
        assert!(until(Duration::ZERO, || true));
    }
}
