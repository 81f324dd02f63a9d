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
use crate::entry::Row;
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
}

impl JournalPoints {
    pub(super) fn new(store: Store, view: watch::Receiver<Arc<View>>, prefix: &str, metadata: bool) -> Self {
        let published = store.published();
        Self { store, published, view, naming: Naming::new(prefix), metadata, prefixes: BTreeMap::new(), reader: None }
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
                    if let Some(record) = self.record(&rows) {
                        self.reader = Some((record.index, reader));
                        return Ok(Fetched::Record(record));
                    }
                }
                Ok(Some(Read::Damage(damage))) => {
                    tracing::error!(?damage, "the journal is damaged here: these results reach no metrics store");
                    self.reader = Some((after, reader));
                }
                Ok(None) => {
                    self.reader = Some((after, reader));
                    self.published.changed().await?;
                }
                Err(StoreError::Trimmed { first }) => return Ok(Fetched::Overrun { first }),
                Err(error @ StoreError::Record { .. }) => {
                    tracing::error!(%error, "a record cannot be read: its results reach no metrics store");
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
