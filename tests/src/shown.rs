//! What the API shows of numbered answers, and since when: a thread that reads the list of services again and again while a fleet runs,
//! as any watcher could, and notes when each service first showed a number. Judges nothing.
//! The surprise: a number that was overtaken counts as shown with the newer one: then what is shown is newer than it.
#![expect(clippy::disallowed_methods, reason = "a shell room: what is shown is compared with the daemons' clock")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::http::Client;

/// The time between two looks, by which everything is seen too late at most.
const BETWEEN: Duration = Duration::from_millis(50);

/// Moments (ms since 1970) at which services began to show a number, in their order.
#[derive(Debug, Clone, Default)]
pub struct Shown(BTreeMap<(String, String), Vec<(i64, u64)>>);

impl Shown {
    /// Takes the services in that were shown at a moment.
    pub fn note(&mut self, at: i64, services: &[Value]) {
        for service in services {
            let text = |name: &str| service.get(name).and_then(Value::as_str).unwrap_or_default();
            let mut words = text("perfdata").split(' ');
            let Some(serial) = words.find_map(|word| word.strip_prefix("serial=")?.parse().ok()) else { continue };
            let seen = self.0.entry((text("host").to_owned(), text("service").to_owned())).or_default();
            if seen.last().is_none_or(|(_, newest)| *newest < serial) {
                seen.push((at, serial));
            }
        }
    }

    /// When a service showed an answer with this number, or a newer one, for the first time.
    #[must_use]
    pub fn since(&self, host: &str, service: &str, serial: u64) -> Option<i64> {
        let seen = self.0.get(&(host.to_owned(), service.to_owned()))?;
        seen.get(seen.partition_point(|(_, shown)| *shown < serial)).map(|(at, _)| *at)
    }
}

/// A watcher at work.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Shown>,
}

impl Watch {
    /// Begins to watch.
    #[must_use]
    pub fn start(api: Client) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut shown = Shown::default();
            loop {
                // The last look begins after it was asked for.
                let last = stopped.load(Ordering::Acquire);
                // An answer that does not come is a look that was not had: what it would have shown is seen later.
                if let Ok(services) = api.items("services", "") {
                    shown.note(jiff::Timestamp::now().as_millisecond(), &services);
                }
                if last {
                    return shown;
                }
                std::thread::sleep(BETWEEN);
            }
        });
        Self { stop, thread }
    }

    /// Ends it, with one more look at what is shown now.
    ///
    /// # Panics
    /// When the watcher did.
    #[must_use]
    pub fn end(self) -> Shown {
        self.stop.store(true, Ordering::Release);
        match self.thread.join() {
            Ok(shown) => shown,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_shown_with_the_first_number_that_is_no_older() {
        let service = |serial: u64| serde_json::json!({ "host": "h", "service": "s", "perfdata": format!("v=1 serial={serial}") });
        let mut shown = Shown::default();
        for (at, serial) in [(10, 1), (20, 1), (30, 4), (40, 3), (50, 5)] {
            shown.note(at, &[service(serial), serde_json::json!({ "host": "h", "service": "t", "perfdata": "" })]);
        }
        let since = |serial| shown.since("h", "s", serial);
        assert_eq!([since(1), since(2), since(4), since(5), since(6)], [Some(10), Some(30), Some(30), Some(50), None]);
        assert_eq!(shown.since("h", "t", 1), None);
    }
}
