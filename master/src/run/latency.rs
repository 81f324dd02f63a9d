//! How long batches wait for their commit, from the last byte that came until the row is durable and the loop knows: counted in
//! classes, with the worst of all, and how many of them were beside a checkpoint or the removal of a segment. Decides nothing; knows
//! no clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::api::Figure;
use crate::api::figure::as_value;
use crate::store::Beside;

/// Upper ends of the classes, in milliseconds; 100 ms is the bound that the design promises while trimming and checkpointing.
const CLASSES: [u64; 12] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 5_000, 30_000];

/// The counts. Shared freely between threads.
#[derive(Debug, Default)]
pub(super) struct Latency {
    /// One more than there are classes: the last has no end.
    counts: [AtomicU64; CLASSES.len() + 1],
    sum_us: AtomicU64,
    worst_us: AtomicU64,
    beside_checkpoint: AtomicU64,
    beside_trim: AtomicU64,
}

impl Latency {
    /// A group whose oldest batch had waited this long is durable; `beside` is what the store did since the disk was asked for it.
    pub(super) fn note(&self, waited: Duration, beside: Beside) {
        let micros = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        let class = CLASSES.iter().position(|end| micros <= end * 1000).unwrap_or(CLASSES.len());
        if let Some(count) = self.counts.get(class) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_us.fetch_add(micros, Ordering::Relaxed);
        self.worst_us.fetch_max(micros, Ordering::Relaxed);
        self.beside_checkpoint.fetch_add(u64::from(beside.checkpoint), Ordering::Relaxed);
        self.beside_trim.fetch_add(u64::from(beside.trim), Ordering::Relaxed);
    }

    /// As Prometheus wants a histogram, and the worst.
    pub(super) fn figures(&self) -> Vec<Figure> {
        const HELP: &str = "Time from a group's oldest batch to its commit";
        let seconds = |micros: &AtomicU64| as_value(micros.load(Ordering::Relaxed)) / 1e6;
        let mut below = 0;
        let mut figures = Vec::with_capacity(CLASSES.len() + 6);
        let ends = CLASSES.iter().map(|end| (as_value(*end) / 1e3).to_string()).chain(["+Inf".to_owned()]);
        for (end, count) in ends.zip(&self.counts) {
            below += count.load(Ordering::Relaxed);
            let labels = vec![("le", end)];
            let name = "perigee_commit_seconds_bucket";
            figures.push(Figure { name, help: HELP, counter: true, labels, value: as_value(below) });
        }
        let total = |name, value| Figure { name, help: HELP, counter: true, labels: Vec::new(), value };
        figures.push(total("perigee_commit_seconds_sum", seconds(&self.sum_us)));
        figures.push(total("perigee_commit_seconds_count", as_value(below)));
        for (work, count) in [("checkpoint", &self.beside_checkpoint), ("trim", &self.beside_trim)] {
            figures.push(Figure {
                name: "perigee_commit_beside_total",
                help: "Commits under way while a checkpoint was written or a segment of the journal removed, by that work",
                counter: true,
                labels: vec![("work", work.to_owned())],
                value: as_value(count.load(Ordering::Relaxed)),
            });
        }
        figures.push(Figure {
            name: "perigee_commit_worst_seconds",
            help: "The longest such time since start",
            counter: false,
            labels: Vec::new(),
            value: seconds(&self.worst_us),
        });
        figures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_count_all_that_is_below_their_end() {
        let latency = Latency::default();
        for millis in [1, 3, 100, 101, 60_000] {
            latency.note(Duration::from_millis(millis), Beside::default());
        }
        let figures = latency.figures();
        let below = |end: &str| {
            let named = |figure: &&Figure| figure.labels.iter().any(|(_, value)| value == end);
            figures.iter().find(named).map(|figure| figure.value)
        };
        assert_eq!(
            [below("0.001"), below("0.1"), below("0.2"), below("+Inf")],
            [Some(1.), Some(3.), Some(4.), Some(5.)]
        );
        assert_eq!(figures.last().map(|worst| worst.value), Some(60.0));
    }

    #[test]
    fn commits_beside_other_work_are_counted_by_the_work() {
        let latency = Latency::default();
        for (checkpoint, trim) in [(false, false), (true, false), (true, true)] {
            latency.note(Duration::from_millis(1), Beside { checkpoint, trim });
        }
        let figures = latency.figures();
        let beside = |work: &str| {
            let named = |figure: &&Figure| figure.labels.iter().any(|(name, value)| *name == "work" && value == work);
            figures.iter().find(named).map(|figure| figure.value)
        };
        assert_eq!([beside("checkpoint"), beside("trim")], [Some(2.), Some(1.)]);
    }
}
