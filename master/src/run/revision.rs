//! From files to a catalog that may run: read, compiled, compared and kept in the store, all off the loop. Everything fallible
//! happens here, before anything live is touched.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};
use tokio::sync::{mpsc, oneshot, watch};

use crate::api::Applied;
use crate::config::{self, Catalog, Diagnostic};
use crate::coordinator::Activation;
use crate::store::Store;

/// A catalog that the store holds, and what it would change.
pub(super) struct Compiled {
    pub(super) catalog: Arc<Catalog>,
    warnings: Vec<Diagnostic>,
    added: usize,
    changed: usize,
    removed: usize,
}

impl Compiled {
    /// Counts what differs from the running catalog.
    pub(super) fn against(mut self, running: Option<&Catalog>) -> Self {
        let empty = Catalog::default();
        let running = running.unwrap_or(&empty);
        self.added = self.catalog.objects.keys().filter(|name| !running.objects.contains_key(*name)).count();
        self.removed = running.objects.keys().filter(|name| !self.catalog.objects.contains_key(*name)).count();
        let same = |(name, new): &(&_, &_)| running.objects.get(*name).is_none_or(|old| old == *new);
        self.changed = self.catalog.objects.iter().filter(|pair| !same(pair)).count();
        self
    }

    /// What to tell whoever asked.
    pub(super) fn applied(self, activation: &Activation) -> Applied {
        let Self { warnings, added, changed, removed, .. } = self;
        match activation {
            Activation::Activated(generation) => {
                Applied::Activated { generation: *generation, added, changed, removed, warnings }
            }
            Activation::Unchanged(generation) => Applied::Unchanged { generation: *generation, warnings },
            Activation::NotCommitted => Applied::Failed(
                "the journal cannot be written; the running generation goes on (see the master's log)".to_owned(),
            ),
        }
    }
}

/// Answers whoever asked, or logs where nobody waits.
pub(super) fn tell(applied: Applied, reply: Option<oneshot::Sender<Applied>>) {
    match &applied {
        Applied::Activated { generation, added, changed, removed, .. } => {
            tracing::info!(%generation, added, changed, removed, "a new generation runs");
        }
        Applied::Unchanged { generation, .. } => tracing::info!(%generation, "the configuration is the running one"),
        Applied::Mistakes(mistakes) => {
            tracing::error!(
                mistakes = mistakes.diagnostics.len(),
                "the configuration has mistakes; the running generation goes on"
            );
        }
        Applied::Failed(why) => tracing::error!(why, "the configuration was not taken in"),
    }
    if let Some(reply) = reply {
        // Whoever asked may have gone; the log has the answer.
        let _ = reply.send(applied);
    }
}

fn compile(path: &Path, store: &Store) -> Result<Compiled, Applied> {
    let sources = config::load(path).map_err(|error| Applied::Failed(error.to_string()))?;
    match config::compile(&sources) {
        Ok((catalog, warnings)) => {
            store.keep_revision(&catalog).map_err(|error| Applied::Failed(error.to_string()))?;
            Ok(Compiled { catalog: Arc::new(catalog), warnings, added: 0, changed: 0, removed: 0 })
        }
        Err(mistakes) => Err(Applied::mistakes(mistakes)),
    }
}

/// Compiles what an empty store begins with.
pub(super) async fn compile_first(path: &Path, store: &Store) -> Result<Arc<Catalog>> {
    let (path, store) = (path.to_owned(), store.clone());
    let result = tokio::task::spawn_blocking(move || compile(&path, &store)).await?;
    match result {
        Ok(compiled) => Ok(compiled.catalog),
        Err(Applied::Mistakes(mistakes)) => bail!("the configuration has mistakes:\n{}", mistakes.text),
        Err(Applied::Failed(why)) => bail!(why),
        Err(Applied::Activated { .. } | Applied::Unchanged { .. }) => {
            bail!("the first configuration cannot have run before")
        }
    }
}

/// What a background compile brings to the loop: the outcome, who asked, where to answer.
pub(super) type Brought = (Result<Compiled, Applied>, String, Option<oneshot::Sender<Applied>>);

/// Compiles off the loop; the outcome comes through `done`.
pub(super) fn compile_in_background(
    path: &Path,
    store: &Store,
    done: mpsc::Sender<Brought>,
    author: String,
    reply: Option<oneshot::Sender<Applied>>,
) {
    let (path, store) = (path.to_owned(), store.clone());
    tokio::task::spawn_blocking(move || {
        let result = compile(&path, &store);
        // The loop has ended when nobody listens; then there is nobody to answer either.
        let _ = done.blocking_send((result, author, reply));
    });
}

/// Tells whether the files differ from the running revision, which a restart resumes whatever the files say.
pub(super) fn compare_in_background(path: PathBuf, running: String, differs: watch::Sender<Option<bool>>) {
    tokio::task::spawn_blocking(move || {
        let compiled = config::load(&path).ok().map(|sources| config::compile(&sources));
        let same = matches!(compiled, Some(Ok((catalog, _))) if catalog.digest.to_string() == running);
        if !same {
            tracing::warn!(path = %path.display(), "the files differ from the running revision; `perigee-master apply` takes them in");
        }
        differs.send_replace(Some(!same));
    });
}
