//! A store that takes Graphite's lines and keeps what they say, for where a real one is too much or not installed. Knows one line's
//! shape and nothing of names. The surprise: a writer that is not sure sends again, so the same point counts once.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result};

/// Points by series and second; the newest value stands, as in a real store.
pub type Points = BTreeMap<(String, i64), f64>;

/// A running store. It ends with the process: its thread waits for connections.
#[derive(Debug, Clone)]
pub struct Sink {
    /// Where it listens.
    pub address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    points: Points,
    nonsense: u64,
}

impl Sink {
    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// No port is free.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("no free port for the store of points")?;
        let sink = Self { address: listener.local_addr()?, kept: Arc::default() };
        let kept = Arc::clone(&sink.kept);
        thread::Builder::new().name("sink".to_owned()).spawn(move || {
            // A connection that cannot be accepted is the writer's to make again.
            for stream in listener.incoming().flatten() {
                let kept = Arc::clone(&kept);
                thread::spawn(move || take(stream, &kept));
            }
        })?;
        Ok(sink)
    }

    /// What was written so far.
    #[must_use]
    pub fn points(&self) -> Points {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).points.clone()
    }

    /// How many points were written so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).points.len()
    }

    /// How many lines were none.
    #[must_use]
    pub fn nonsense(&self) -> u64 {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).nonsense
    }
}

fn take(stream: TcpStream, kept: &Mutex<Kept>) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    // A line that breaks off with its connection comes again on the next.
    while reader.read_line(&mut line).is_ok() && line.ends_with('\n') {
        let said = point(line.trim_end());
        line.clear();
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        match said {
            Some((series, second, value)) => {
                kept.points.insert((series, second), value);
            }
            None => kept.nonsense += 1,
        }
    }
}

/// `name value second`.
fn point(line: &str) -> Option<(String, i64, f64)> {
    let words: Vec<&str> = line.split(' ').collect();
    let [series, value, second] = words.as_slice() else { return None };
    Some(((*series).to_owned(), second.parse().ok()?, value.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::time::Duration;

    #[test]
    fn a_point_sent_twice_is_one_point() {
        let sink = Sink::start().unwrap();
        let mut stream = TcpStream::connect(sink.address).unwrap();
        stream.write_all(b"a.b 1.5 1000\na.b 1.5 1000\na.b 2 1001\nwhat is this line\na.b x 1\na.b 3 100").unwrap();
        drop(stream);
        assert!(crate::wait::until(Duration::from_secs(20), || sink.nonsense() == 2));
        let expected = [(("a.b".to_owned(), 1000), 1.5), (("a.b".to_owned(), 1001), 2.0)];
        assert_eq!(sink.points(), Points::from(expected));
        assert_eq!(sink.count(), 2);
    }
}
