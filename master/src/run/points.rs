//! The journal as a metrics writer sees it: rows become points, under the names that the running catalog gives.

use std::collections::BTreeMap;
use std::sync::Arc;

use shared::check::State;
use shared::delivery::BatchItem;
use shared::name::{CheckId, JournalIndex};
use shared::result::CheckResult;
use shared::state::StateType;
use shared::time::Timestamp;
use tokio::sync::watch;

use crate::coordinator::View;
use crate::entry::{Entry, Row};
use crate::store::{Read, RowReader, Store, StoreError};
use crate::writer::graphite::{Metadata, Naming};
use crate::writer::{Fetched, Point, PointSource, Record};

/// Reads the journal for one writer.
pub(super) struct JournalPoints {
    store: Store,
    published: watch::Receiver<JournalIndex>,
    view: watch::Receiver<Arc<View>>,
    naming: Naming,
    metadata: bool,
    /// Prefix per object, with the command it was made for.
    prefixes: BTreeMap<CheckId, (String, Arc<str>)>,
    reader: Option<(JournalIndex, RowReader)>,
    /// Behind this row something could not be read: whether rows are missing there shows with the next.
    suspected: Option<JournalIndex>,
}

impl JournalPoints {
    pub(super) fn new(store: Store, view: watch::Receiver<Arc<View>>, prefix: &str, metadata: bool) -> Self {
        let published = store.published();
        let (naming, prefixes) = (Naming::new(prefix), BTreeMap::new());
        Self { store, published, view, naming, metadata, prefixes, reader: None, suspected: None }
    }

    fn prefix(&mut self, check: CheckId) -> Option<Arc<str>> {
        let view = self.view.borrow();
        let object = view.status.object(check)?;
        match self.prefixes.get(&check) {
            Some((command, prefix)) if *command == object.command => Some(Arc::clone(prefix)),
            Some(_) | None => {
                let prefix: Arc<str> = self.naming.object_prefix(&object.name, &object.command).into();
                self.prefixes.insert(check, (object.command.clone(), Arc::clone(&prefix)));
                Some(prefix)
            }
        }
    }

    /// The points of rows that were committed together.
    fn record(&mut self, rows: &[Row]) -> Option<Record> {
        let last = rows.last()?;
        let mut points = Vec::new();
        for row in rows {
            for (verdict, item) in row.outcomes.verdicts.iter().zip(row.items()) {
                let BatchItem::Result(_, result) = item else { continue };
                if !verdict.effect.is_logged() || (result.metrics.is_empty() && !self.metadata) {
                    continue;
                }
                let Some(prefix) = self.prefix(result.check) else { continue };
                let metadata = self.metadata.then(|| metadata(&result));
                // A sample from the future never reaches a store: it would hide the true ones until then.
                let at = result.ended().min(row.at);
                points.push(Point { prefix, metrics: result.metrics, at, metadata });
            }
        }
        Some(Record { index: last.index, committed: last.at, points })
    }
}

/// The last row between `after` and these; `None` if there is none.
fn missing_before(rows: &[Row], after: JournalIndex) -> Option<JournalIndex> {
    let first = rows.first().filter(|first| !first.follows(after))?;
    let last = match &first.entry {
        // The indexes above were never given here.
        Entry::Continued(continued) => continued.after,
        _ => JournalIndex(first.index.0.saturating_sub(1)),
    };
    (last > after).then_some(last)
}

fn metadata(result: &CheckResult) -> Metadata {
    let seconds = |from: Timestamp, to: Timestamp| to.since(from).as_secs_f64();
    Metadata {
        state: result.after.state.number(),
        current_attempt: result.after.attempt.max(1),
        max_check_attempts: result.after.max_attempts,
        hard: result.after.state_type == StateType::Hard,
        reachable: result.after.state != State::Pending,
        downtime_depth: 0,
        acknowledgement: 0,
        latency: seconds(result.scheduled, result.started),
        execution_time: std::time::Duration::from_micros(result.duration_us).as_secs_f64(),
    }
}

impl PointSource for JournalPoints {
    async fn next(&mut self, after: JournalIndex) -> anyhow::Result<Fetched> {
        let from = JournalIndex(after.0 + 1);
        loop {
            // What is there is taken before waiting: a change between the two is seen by `changed`.
            self.published.borrow_and_update();
            let (_, mut reader) = match self.reader.take().filter(|(place, _)| *place == after) {
                Some(reader) => reader,
                None => match self.store.reader(from) {
                    Ok(reader) => (after, reader),
                    Err(StoreError::Trimmed { first }) => return Ok(Fetched::Overrun { first }),
                    Err(error) => return Err(error.into()),
                },
            };
            match reader.next() {
                Ok(Some(Read::Rows(rows))) => {
                    let suspected = self.suspected.take() == Some(after);
                    if let Some(last) = missing_before(&rows, after).filter(|_| suspected) {
                        return Ok(Fetched::Unreadable { last });
                    }
                    if let Some(record) = self.record(&rows) {
                        self.reader = Some((record.index, reader));
                        return Ok(Fetched::Record(record));
                    }
                }
                Ok(Some(Read::Damage(damage))) => {
                    tracing::error!(?damage, "the journal is damaged here: what is missing reaches no metrics store");
                    self.suspected = Some(after);
                    self.reader = Some((after, reader));
                }
                Ok(None) => {
                    self.reader = Some((after, reader));
                    self.published.changed().await?;
                }
                Err(StoreError::Trimmed { first }) => return Ok(Fetched::Overrun { first }),
                Err(error @ StoreError::Record { .. }) => {
                    tracing::error!(%error, "a record cannot be read: its results reach no metrics store");
                    self.suspected = Some(after);
                    self.reader = Some((after, reader));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn head(&self) -> JournalIndex {
        *self.published.borrow()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use shared::name::{Generation, Term};

    use super::*;
    use crate::entry::{self, Activate, Outcomes};
    use crate::status::Status;
    use crate::store::{self, Commit};

    /// Nothing in it is anybody's point; its author tells it from others on the disk.
    fn row(index: u64) -> Row {
        let digest = "0".repeat(64);
        let author = format!("author of {index:04}");
        Row {
            index: JournalIndex(index),
            term: Term(1),
            at: Timestamp::from_millis(1_790_000_000_000),
            entry: Entry::Activate(Activate { generation: Generation(1), digest, author }),
            outcomes: Outcomes::default(),
        }
    }

    fn shown(status: Status) -> watch::Receiver<Arc<View>> {
        let view = View {
            status: Arc::new(status),
            links: BTreeMap::new(),
            held_off: false,
            read_only: false,
            credit: Default::default(),
            refused: BTreeMap::new(),
            future: 0,
        };
        watch::channel(Arc::new(view)).1
    }

    /// Flips a bit within the record of a row.
    fn damage(data: &Path, index: u64) {
        let text = format!("author of {index:04}");
        let mut damaged = 0;
        for file in fs::read_dir(data.join("journal")).unwrap() {
            let path = file.unwrap().path();
            let mut bytes = fs::read(&path).unwrap();
            if let Some(at) = bytes.windows(text.len()).position(|window| window == text.as_bytes()) {
                bytes[at] ^= 0x10;
                fs::write(&path, bytes).unwrap();
                damaged += 1;
            }
        }
        assert_eq!(damaged, 1, "{text}");
    }

    #[tokio::test]
    async fn rows_that_cannot_be_read_are_told_and_not_only_passed() {
        let data = tempfile::tempdir().unwrap();
        let store::Opened { store, status, mut done, .. } =
            store::open(data.path(), store::Options::default()).unwrap();
        // Of the third to the fifth the record is damaged on the disk; the seventh is no row to anybody.
        for group in [vec![1], vec![2], vec![3, 4, 5], vec![6], vec![7], vec![8, 9]] {
            let rows: Vec<Row> = group.iter().map(|index| row(*index)).collect();
            let record = if group == [7] { vec![77] } else { entry::encode(&rows) };
            store.append(Commit { record, last: JournalIndex(*group.last().unwrap()) }).unwrap();
            done.recv().await.unwrap();
        }
        damage(data.path(), 4);
        let mut points = JournalPoints::new(store, shown(status), "icinga2", false);
        for _ in 0..2 {
            // The second time as behind a new connection: the same is told.
            let mut told = Vec::new();
            let mut after = JournalIndex(0);
            while after < JournalIndex(9) {
                match points.next(after).await.unwrap() {
                    Fetched::Record(record) => {
                        told.push((record.index.0, true));
                        after = record.index;
                    }
                    Fetched::Unreadable { last } => {
                        told.push((last.0, false));
                        after = last;
                    }
                    other @ Fetched::Overrun { .. } => panic!("{other:?}"),
                }
            }
            assert_eq!(told, [(1, true), (2, true), (5, false), (6, true), (7, false), (9, true)]);
        }
    }
}
