//! Backups of a store that is being written, and what is restored from them: a state that was published, in a timeline of its own; or
//! nothing, where the backup is not whole.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use master::backup::{self, Outcome, Progress, Source, Wanted};
use master::entry::Entry;
use master::history::History;
use master::status::Status;
use master::store::{self, MANIFEST, Opened, Options, Restoring, StoreError};
use shared::name::{JournalIndex, Timeline};

use crate::fleet::Master;

const FRESH: u64 = 0x0123_4567_89ab_cdef;
const BOTH: Wanted = Wanted { keys: true, history: true };

fn options() -> Options {
    Options { segment_bytes: 64 * 1024, ..Options::default() }
}

/// A data directory with a store of some hundred rows, and the states it was published in.
struct Stage {
    data: PathBuf,
    master: Master,
    history: History,
    published: BTreeMap<JournalIndex, Status>,
}

impl Stage {
    fn new(directory: &Path, seed: u64) -> Self {
        let data = directory.join("data");
        let Opened { store, status, done, recovery } = store::open(&data, options()).unwrap();
        fs::write(data.join("installation"), "test\n").unwrap();
        fs::write(data.join("tokens.json"), "[]").unwrap();
        fs::create_dir_all(data.join("trust/ca")).unwrap();
        for name in ["trust/ca.crt", "trust/ca.key", "trust/reset.key", "trust/ca/older.crt"] {
            fs::write(data.join(name), name).unwrap();
        }
        let history = History::open(&data, store.clone(), &status).unwrap();
        let master = Master::new(Opened { store, status, done, recovery }, seed);
        Self { data, master, history, published: BTreeMap::new() }
    }

    fn step(&mut self) {
        for rows in self.master.step() {
            self.history.feed(&rows);
            let status = self.master.published();
            self.published.insert(status.head, status.as_ref().clone());
        }
    }

    fn source(&self) -> Source {
        Source { store: self.master.store.clone(), history: self.history.reader(), data: self.data.clone() }
    }

    /// Makes a backup while rows are written all the time.
    fn back_up(&mut self, to: &Path, wanted: Wanted) -> backup::Manifest {
        let (source, progress, done) = (self.source(), Progress::default(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let made = scope.spawn(|| {
                let made = backup::take(&source, to, wanted, &progress);
                done.store(true, Ordering::Release);
                made
            });
            while !done.load(Ordering::Acquire) {
                self.step();
            }
            made.join().unwrap().unwrap()
        })
    }
}

fn restore(from: &Path, data: &Path) -> anyhow::Result<Outcome> {
    backup::restore(from, data, FRESH, &mut |_| {})
}

#[test]
fn a_backup_of_a_store_that_is_written_is_a_state_that_was_published() {
    let directory = tempfile::tempdir().unwrap();
    let mut stage = Stage::new(directory.path(), 31);
    for round in 0..4_usize {
        for _ in 0..150 {
            stage.step();
        }
        if round > 0 {
            stage.master.checkpoint();
        }
        let from = directory.path().join(format!("backup-{round}"));
        let manifest = stage.back_up(&from, Wanted { keys: round == 0, history: round != 1 });
        assert!(stage.master.published().head.0 > manifest.index, "rows were written meanwhile");

        let data = directory.path().join(format!("restored-{round}"));
        let outcome = restore(&from, &data).unwrap();
        assert_eq!(outcome.keys, round == 0, "the CA's key is there when it was asked for");
        assert_eq!(outcome.history, round != 1);
        assert!(outcome.head.0 >= manifest.index);
        let backup = &stage.published[&outcome.head];
        assert_eq!((outcome.head_at, outcome.first_check), (backup.at, backup.next_check));

        let opened = store::open(&data, options()).unwrap();
        let status = &opened.status;
        assert_eq!((status.timeline, status.first_check), (Timeline(FRESH), backup.next_check));
        assert_eq!(status.head, JournalIndex(outcome.head.0 + 1));
        let mut reader = opened.store.reader(status.head).unwrap();
        let Some(store::Read::Rows(rows)) = reader.next().unwrap() else { panic!("no row {}", status.head) };
        assert!(matches!(&rows[..], [row] if matches!(row.entry, Entry::Restored(_))));
        let mut expected = backup.clone();
        expected.fold(&rows[0], &[], None);
        assert!(expected.encode() == status.encode(), "round {round}: another state than the published one");
        // Its history goes on from the backup's, or is made from the journal: to the same end.
        let history = History::open(&data, opened.store.clone(), status).unwrap();
        let reflected = history.reader().reflected();
        let head = status.head;
        assert!(tests::wait::until(std::time::Duration::from_secs(30), || *reflected.borrow() >= head));
        assert!(!data.join("history.sqlite.old").exists(), "the history that came with the backup is used");
        // And rows are added as ever.
        let mut again = Master::new(opened, 77);
        for _ in 0..50 {
            again.step();
        }
        assert!(again.failed.is_empty() && again.published().head.0 > head.0 + 20);
    }
}

#[test]
fn a_backup_that_is_not_whole_is_refused_and_nothing_is_touched() {
    let directory = tempfile::tempdir().unwrap();
    let mut stage = Stage::new(directory.path(), 32);
    (0..120).for_each(|_| stage.step());
    stage.master.checkpoint();
    let from = directory.path().join("backup");
    let manifest = stage.back_up(&from, BOTH);
    let data = directory.path().join("restored");
    for listed in &manifest.files {
        let path = from.join(&listed.name);
        let good = fs::read(&path).unwrap();
        let mut damaged = good.clone();
        match damaged.len() {
            0 => damaged.push(1),
            length => damaged[length / 2] ^= 0x20,
        }
        fs::write(&path, &damaged).unwrap();
        let error = restore(&from, &data).unwrap_err().to_string();
        assert!(error.contains("damaged") && error.contains(&listed.name), "{error}");
        fs::remove_file(&path).unwrap();
        assert!(restore(&from, &data).unwrap_err().to_string().contains("missing"));
        fs::write(&path, &good).unwrap();
    }
    let text = fs::read_to_string(from.join(MANIFEST)).unwrap();
    for wrong in [
        text.replace("\"format\": 1", "\"format\": 9"),
        text.replace("\"installation\"", "\"../elsewhere\""),
        text[..40].to_owned(),
    ] {
        assert_ne!(wrong, text);
        fs::write(from.join(MANIFEST), wrong).unwrap();
        restore(&from, &data).unwrap_err();
    }
    fs::remove_file(from.join(MANIFEST)).unwrap();
    assert!(restore(&from, &data).unwrap_err().to_string().contains("no complete backup"));
    assert!(!data.exists(), "nothing was begun");
    fs::write(from.join(MANIFEST), text).unwrap();
    restore(&from, &data).unwrap();
}

#[test]
fn a_restore_puts_aside_what_was_there_and_never_comes_up_half() {
    let directory = tempfile::tempdir().unwrap();
    let mut stage = Stage::new(directory.path(), 33);
    (0..80).for_each(|_| stage.step());
    let from = directory.path().join("backup");
    stage.back_up(&from, BOTH);
    let data = stage.data.clone();
    let before = stage.master.published().head;
    // While the master runs, and where a backup already is, nothing happens.
    assert!(restore(&from, &data).unwrap_err().to_string().contains("another master works"));
    let again = backup::take(&stage.source(), &from, BOTH, &Progress::default()).unwrap_err().to_string();
    assert!(again.contains("is not empty"), "{again}");
    assert!(matches!(store::open(&from, options()), Err(StoreError::Backup { .. })), "a backup is no data directory");
    drop(stage);

    // Cut off in the middle: no master comes up on it, and the next restore ends it. A token that is there stays.
    fs::write(data.join("tokens.json"), "[\"newer\"]").unwrap();
    let begun = Restoring::begin(&data).unwrap();
    let aside = begun.aside.clone().unwrap();
    drop(begun);
    assert!(matches!(store::open(&data, options()), Err(StoreError::Unfinished { .. })));
    fs::create_dir_all(data.join("journal")).unwrap();
    fs::write(data.join("journal/half"), "half").unwrap();
    let outcome = restore(&from, &data).unwrap();
    assert!(!data.join("journal/half").exists());
    assert_eq!(fs::read_to_string(data.join("tokens.json")).unwrap(), "[\"newer\"]");
    assert!(store::open(&data, options()).unwrap().status.head > outcome.head);
    // What was put aside is the whole store.
    let lost = store::open(&aside, options()).unwrap();
    assert_eq!(lost.status.head, before);
    assert!(lost.status.head > outcome.head);

    // Another installation's directory is left alone.
    let foreign = directory.path().join("foreign");
    fs::create_dir_all(&foreign).unwrap();
    fs::write(foreign.join("installation"), "other\n").unwrap();
    assert!(restore(&from, &foreign).unwrap_err().to_string().contains("belongs to other"));
    assert_eq!(fs::read_dir(&foreign).unwrap().count(), 1);
}
