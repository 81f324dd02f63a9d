//! The metrics writers that the running catalog asks for: started, left alone or stopped as it changes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::points::JournalPoints;
use crate::api::Figure;
use crate::api::figure::as_value;
use crate::config::{Catalog, GraphiteWriter, Writer};
use crate::coordinator::View;
use crate::entry::{JOURNAL_DAMAGED, WriterGap};
use crate::store::Store;
use crate::writer::{self, graphite};

/// Gaps of all writers that wait for the loop; a writer asks again when there is no room.
pub(super) const GAPS_WAITING: usize = 64;
/// The lane of a metrics writer: its one cursor.
const LANE: &str = "metrics";

struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// All writers of the running catalog, by what they are to do.
pub(super) struct Writers {
    store: Store,
    view: watch::Receiver<Arc<View>>,
    stop: CancellationToken,
    digest: String,
    running: BTreeMap<String, (Writer, Running)>,
    gaps: mpsc::Sender<writer::Overrun>,
    figures: Figures,
}

/// The figures of all writers, for whoever shows them.
#[derive(Clone, Default)]
pub(super) struct Figures {
    by_name: Arc<Mutex<BTreeMap<String, watch::Receiver<writer::Status>>>>,
    store: Option<Store>,
}

impl Figures {
    pub(super) fn read(&self) -> Vec<Figure> {
        let by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        by_name.iter().flat_map(|(name, status)| figures(name, &status.borrow(), self.store.as_ref())).collect()
    }
}

fn figures(name: &str, status: &writer::Status, store: Option<&Store>) -> Vec<Figure> {
    let rows = status.head.0.saturating_sub(status.position.0);
    let bytes = store.map_or(0, |store| store.bytes_behind(status.position));
    let table = [
        ("perigee_writer_lag_rows", "Rows of the journal not yet handed to the store", false, rows),
        ("perigee_writer_lag_bytes", "Segments of the journal that hold such rows, in bytes", false, bytes),
        (
            "perigee_writer_buffer_bytes",
            "Most bytes that ever waited for the store in memory",
            false,
            u64::try_from(status.buffered_max).unwrap_or(u64::MAX),
        ),
        ("perigee_writer_connected", "Whether the store is connected", false, u64::from(status.connected)),
        ("perigee_writer_lag_seconds", "Age of what is being sent", false, status.lag_ms / 1000),
        ("perigee_writer_position_index", "Last row handed to the store", false, status.position.0),
        ("perigee_writer_cursor_index", "Rows up to here count as kept by the store", false, status.cursor.0),
        ("perigee_writer_lines_total", "Lines handed over, repeated ones included", true, status.lines_sent),
        ("perigee_writer_points_total", "Results handed over, repeated ones included", true, status.points_sent),
        ("perigee_writer_dropped_values_total", "Values no store could take", true, status.values_dropped),
        ("perigee_writer_connections_total", "Connections made", true, status.connections),
        ("perigee_writer_failures_total", "Connections lost or refused", true, status.failures),
        (
            "perigee_writer_gaps_total",
            "Times rows were trimmed, or could not be read, before the writer had sent them",
            true,
            status.gaps,
        ),
    ];
    let figure = |(metric, help, counter, value)| Figure {
        name: metric,
        help,
        counter,
        labels: vec![("writer", name.to_owned())],
        value: as_value(value),
    };
    table.into_iter().map(figure).collect()
}

impl Writers {
    /// `gaps` hears what a writer was overrun by.
    pub(super) fn new(
        store: Store,
        view: watch::Receiver<Arc<View>>,
        gaps: mpsc::Sender<writer::Overrun>,
        stop: CancellationToken,
    ) -> Self {
        let figures = Figures { store: Some(store.clone()), ..Figures::default() };
        Self { store, view, stop, digest: String::new(), running: BTreeMap::new(), gaps, figures }
    }

    pub(super) fn figures(&self) -> Figures {
        self.figures.clone()
    }

    /// Starts what a catalog asks for anew and stops what it asks for no longer.
    pub(super) fn follow(&mut self, catalog: Option<&Catalog>) {
        let Some(catalog) = catalog else { return };
        let digest = catalog.digest.to_string();
        if digest == self.digest {
            return;
        }
        self.digest = digest;
        let wanted: BTreeMap<String, Writer> =
            catalog.writers.iter().map(|writer| (name(writer), writer.clone())).collect();
        self.running.retain(|name, (writer, running)| {
            let stays = wanted.get(name) == Some(writer);
            if !stays {
                running.stop.cancel();
                self.figures.by_name.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
            }
            stays
        });
        for (name, writer) in wanted {
            if !self.running.contains_key(&name) {
                self.start(name, writer);
            }
        }
    }

    fn start(&mut self, name: String, writer: Writer) {
        let Writer::Graphite(settings) = &writer;
        let cursor = match self.store.cursor(&name) {
            Ok(cursor) => cursor,
            Err(error) => {
                return tracing::error!(writer = name, %error, "this writer cannot keep its place and is not started");
            }
        };
        let source = JournalPoints::new(self.store.clone(), self.view.clone(), &settings.prefix, settings.metadata);
        let gaps = self.gaps.clone();
        let (status_sender, status) = watch::channel(writer::Status::default());
        let stop = self.stop.child_token();
        let told = writer_settings(&name, settings);
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            if let Err(error) = writer::run(told, source, cursor, gaps, status_sender, stopped).await {
                tracing::error!(%error, "a metrics writer has stopped");
            }
        });
        self.figures.by_name.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), status);
        self.running.insert(name, (writer, Running { stop, task }));
    }

    /// Stops all writers and waits for their cursors to be saved.
    pub(super) async fn stop(&mut self) {
        self.stop.cancel();
        for (_, (_, running)) in std::mem::take(&mut self.running) {
            running.task.await.ok();
        }
    }
}

/// The entry of a gap: of what was trimmed whoever trimmed says why.
pub(super) fn entry(gap: &writer::Gap, trimmed_for: &str) -> WriterGap {
    let reason = if gap.unreadable { JOURNAL_DAMAGED } else { trimmed_for };
    WriterGap {
        writer: gap.writer.clone(),
        lane: LANE.to_owned(),
        first: gap.first,
        last: gap.last,
        reason: reason.to_owned(),
    }
}

/// A writer is named by what it writes to: another address is another store with a place of its own.
fn name(writer: &Writer) -> String {
    match writer {
        Writer::Graphite(graphite) => {
            let address = graphite
                .address
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '_' });
            format!("graphite-{}", address.collect::<String>())
        }
    }
}

fn writer_settings(name: &str, settings: &GraphiteWriter) -> writer::Settings {
    writer::Settings {
        options: graphite::Options { thresholds: settings.thresholds, metadata: settings.metadata },
        ..writer::Settings::graphite(name, &settings.address)
    }
}
