//! From a backup to a data directory that a master can be started on: checked, copied, and begun anew as a timeline of its own. Needs
//! that no master runs there. The surprise: keys and tokens that the directory has already are kept, for they are newer than the
//! backup's; a token that was revoked since stays revoked.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use shared::check::State;
use shared::command::What;
use shared::name::{CheckId, JournalIndex, Timeline};
use shared::time::Timestamp;
use shared::wall;

use super::{Listed, Manifest, copying};
use crate::coordinator::timeline;
use crate::entry;
use crate::history;
use crate::status::{Status, command};
use crate::store::{self, Commit, Done, Opened, Options, Restoring, Store};

/// Files of the directory that stay as they are when it has them.
const KEPT: [&str; 3] = ["installation", "tokens.json", "trust/"];

/// What a restore came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Whose installation.
    pub installation: String,
    /// When the backup was made.
    pub made: String,
    /// Last row of the backup.
    pub head: JournalIndex,
    /// When that row was written: what came after it is lost, unless satellites still have it.
    pub head_at: Timestamp,
    /// The new timeline.
    pub timeline: String,
    /// First check id it gives.
    pub first_check: CheckId,
    /// Whether history came with the backup; else it is made from the journal at the next start.
    pub history: bool,
    /// Whether the directory has the CA's key. Without it, put the key back or give the CA to `serve`.
    pub keys: bool,
    /// Commands that waited for their answer in the backup: nobody is told of them any more.
    pub given_up: Vec<LeftCommand>,
    /// Where the store that was there before lies now.
    pub aside: Option<PathBuf>,
}

/// A command that the restore has ended: whoever wants it asks again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftCommand {
    /// Its name in the timeline of the backup.
    pub command: JournalIndex,
    /// Of which object.
    pub object: String,
    /// What was asked.
    pub what: &'static str,
    /// Of a result from outside: its state, as the object has it.
    pub state: Option<State>,
    /// Of a result from outside: all of its text.
    pub output: Option<String>,
    /// By whom.
    pub author: String,
    /// When.
    pub at: Timestamp,
}

/// Puts the backup in `from` into the data directory `data`. `fresh` must be 64 random bits. `told` hears of every file that is done.
///
/// # Errors
/// The backup is not whole, a master works in `data`, `data` belongs to another installation, or something cannot be written. The
/// directory cannot be started on before a restore has ended well; it may be run again.
pub fn restore(from: &Path, data: &Path, fresh: u64, told: &mut dyn FnMut(&Listed)) -> Result<Outcome> {
    let manifest = Manifest::read(from)?;
    ensure!(!data.starts_with(from) && !from.starts_with(data), "the backup and the data directory lie in each other");
    check(&manifest, from)?;
    same_installation(from, data)?;
    let restoring = Restoring::begin(data)?;
    let aside = restoring.aside.clone();
    let copied = AtomicU64::new(0);
    for listed in &manifest.files {
        let keep = KEPT.iter().any(|kept| listed.name.starts_with(kept)) && data.join(&listed.name).exists();
        if !keep {
            let held = copying::beside(from, &listed.name)?
                .with_context(|| format!("{} is gone from the backup", listed.name))?;
            let copy = copying::copy(held, data, &copied)?;
            ensure!(copy == *listed, "{} has changed while it was copied", listed.name);
        }
        told(listed);
    }
    copying::sync_tree(data)?;
    restoring.filled()?;
    let outcome = begin_anew(&manifest, data, Timeline(fresh), aside)?;
    store::finish_restoring(data)?;
    tracing::info!(data = %data.display(), timeline = outcome.timeline, head = %outcome.head, "restored");
    Ok(outcome)
}

fn given_up(backup: &Status) -> Vec<LeftCommand> {
    let waiting = backup.errands().filter_map(|(index, errand)| {
        let what = errand.what.as_ref()?;
        let name = &backup.object(errand.check)?.name;
        let passive = if let What::Passive(passive) = what { Some(passive) } else { None };
        Some(LeftCommand {
            command: index,
            object: name.to_string(),
            what: what.as_str(),
            state: passive.map(|passive| command::state_of(name, passive)),
            output: passive.map(|passive| passive.text.clone()),
            author: errand.author.clone(),
            at: errand.at,
        })
    });
    waiting.collect()
}

/// Every file of a backup is there and is what it was.
fn check(manifest: &Manifest, from: &Path) -> Result<()> {
    for listed in &manifest.files {
        let held = copying::beside(from, &listed.name)?
            .with_context(|| format!("the backup is damaged: {} is missing", listed.name))?;
        let (bytes, crc32c) = copying::sum(held.file).with_context(|| format!("cannot read {}", listed.name))?;
        ensure!(
            (bytes, crc32c) == (listed.bytes, listed.crc32c),
            "the backup is damaged: {} is not what it was when the backup was made",
            listed.name
        );
    }
    Ok(())
}

fn same_installation(from: &Path, data: &Path) -> Result<()> {
    let name = |place: &Path| copying::read_small(&place.join("installation"), 1024).ok();
    match (name(from), name(data)) {
        (None, _) => bail!("{} names no installation", from.display()),
        (Some(backup), Some(there)) if backup != there => bail!(
            "the backup is of installation {}, {} belongs to {}",
            String::from_utf8_lossy(&backup).trim_end(),
            data.display(),
            String::from_utf8_lossy(&there).trim_end()
        ),
        _ => Ok(()),
    }
}

/// Opens what was copied and writes the row with which the new timeline begins.
fn begin_anew(manifest: &Manifest, data: &Path, timeline: Timeline, aside: Option<PathBuf>) -> Result<Outcome> {
    let Opened { store, status, mut done, .. } =
        store::open(data, Options { restoring: true, ..Options::default() }).context("opening what was restored")?;
    ensure!(
        status.head.0 >= manifest.index,
        "the backup ends at row {}, and should reach {}",
        status.head,
        manifest.index
    );
    rewind_cursors(&store, data, &status)?;
    let row = timeline::restored(&status, timeline, wall::now())
        .context("the backup is of a store that was never founded")?;
    store.append(Commit { record: entry::encode(std::slice::from_ref(&row)), last: row.index })?;
    match done.blocking_recv() {
        Some(Done::Committed { .. }) => {}
        Some(Done::Failed { error, .. }) => return Err(error).context("writing the first row of the new timeline"),
        None => bail!("the store's writing thread has ended"),
    }
    let mut begun = status.clone();
    begun.fold(&row, &[], None);
    let outcome = Outcome {
        installation: begun.installation.as_ref().map(ToString::to_string).unwrap_or_default(),
        made: manifest.made.clone(),
        head: status.head,
        head_at: status.at,
        timeline: format!("{:016x}", timeline.0),
        first_check: begun.first_check,
        history: history::adopt(data, timeline, status.head)?,
        keys: data.join("trust/ca.key").exists(),
        given_up: given_up(&status),
        aside,
    };
    store.checkpoint(Arc::new(begun));
    // The last handle waits for the checkpoint.
    drop(store);
    Ok(outcome)
}

/// A writer's place may be ahead of the journal that was copied before it: what it has sent since has no rows here.
fn rewind_cursors(store: &Store, data: &Path, status: &Status) -> Result<()> {
    for name in copying::names(&data.join("cursors"))? {
        let cursor = store.cursor(&name)?;
        if cursor.load()?.is_some_and(|place| place > status.head) {
            cursor.save(status.head)?;
        }
    }
    Ok(())
}
