//! The model held against the real store: the same operations on both, drawn from a seed, with entries of every kind. Every answer is the same, and
//! so is everything that is there after each reopening, be it after an end, a kill, a loss of power in the middle of a write, or
//! with a bit that flipped meanwhile (`damage`). The real one lies on a file system that is really full at times.
//!
//! `PERIGEE_OPERATIONS` says how many operations, `PERIGEE_SEED` which; both are printed.

mod damage;
mod entries;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use master::entry::{Entry, Genesis, Outcomes, Row, WriterGap};
use master::store::{self as real, Commit, Done, Opened, Options, Projection, Read, StoreError};
use shared::name::{CheckId, JournalIndex, Term};

use super::*;
use crate::missing::missing;
use crate::simulation::chance::Chance;
use crate::wait::until;

/// So many operations reach everything that there is to be seen.
const MANY: u64 = 5_000;
/// Configurations of 1 to so many hosts.
const CATALOGS: u64 = 12;
const SEGMENT: u64 = 16 * 1024;
const PATIENCE: Duration = Duration::from_secs(30);
const CHILD: &str = "PERIGEE_TEST_MODEL_STORE";
const NAME: &str = "simulation::store::tests::the_model_and_the_real_store_answer_alike";
const MOUNT: &str = "mount -t tmpfs -o size=6m tmpfs \"$1\"";

fn options() -> Options {
    Options { segment_bytes: SEGMENT, ring_bytes: 2 * SEGMENT, most_bytes: 8 * SEGMENT, ..Options::default() }
}

/// Both, side by side.
struct Pair {
    chance: Chance,
    volume: PathBuf,
    data: PathBuf,
    copies: u64,
    model: Store,
    real: Option<Opened>,
    /// What the model adds up to, without replaying it each time.
    status: Status,
    cursors: BTreeMap<String, u64>,
    /// First row that the real one may have: it trims whole segments, so how far is its own affair, within what it was allowed.
    first: u64,
    full: bool,
    /// Checkpoints that were asked for while the disk was full: some of them were written.
    asked: Vec<Arc<Status>>,
    made: u64,
    revisions: Vec<Arc<Catalog>>,
    seen: BTreeMap<&'static str, u64>,
    kinds: BTreeMap<String, u64>,
}

fn catalog_of<'kept>(revisions: &'kept [Arc<Catalog>], row: &Row) -> Option<&'kept Arc<Catalog>> {
    let Entry::Activate(activate) = &row.entry else { return None };
    revisions.iter().find(|catalog| catalog.digest.to_string() == activate.digest)
}

impl Pair {
    fn new(volume: &Path, seed: u64) -> Self {
        let data = volume.join("data-0");
        let real = real::open(&data, options()).unwrap();
        let mut pair = Self {
            chance: Chance::new(seed),
            volume: volume.to_path_buf(),
            data,
            copies: 0,
            model: Store::default(),
            status: real.status.clone(),
            real: Some(real),
            cursors: BTreeMap::new(),
            first: 1,
            full: false,
            asked: Vec::new(),
            made: 0,
            revisions: Vec::new(),
            seen: BTreeMap::new(),
            kinds: BTreeMap::new(),
        };
        let installation = "model".parse().unwrap();
        let rows =
            pair.rows(vec![Entry::Genesis(Genesis { installation, timeline: Timeline(7), first_check: CheckId(1) })]);
        pair.append(rows);
        pair
    }

    fn note(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    fn real(&mut self) -> &mut Opened {
        self.real.as_mut().unwrap()
    }

    /// Entries as the next rows, each upon the ones before it.
    fn rows(&mut self, entries: Vec<Entry>) -> Vec<Row> {
        let mut status = self.status.clone();
        entries.into_iter().map(|entry| self.row(&mut status, entry)).collect()
    }

    fn row(&mut self, status: &mut Status, entry: Entry) -> Row {
        let index = match &entry {
            Entry::Continued(continued) => continued.index(),
            _ => JournalIndex(status.head.0 + 1),
        };
        let at = status.at.plus(Duration::from_millis(10));
        let mut row = Row { index, term: Term(1), at, entry, outcomes: Outcomes::default() };
        let catalog = catalog_of(&self.revisions, &row);
        row.outcomes = entries::outcomes(&mut self.chance, status, &row, catalog);
        status.fold(&row, &row.items(), catalog);
        row
    }

    /// The rows of the next commit, of any kinds.
    fn some_rows(&mut self) -> Vec<Row> {
        let mut status = self.status.clone();
        let count = self.chance.between(1, 4);
        let rows = (0..count).map(|_| {
            self.made += 1;
            let entry = entries::entry(&mut self.chance, &status, self.made, &self.revisions);
            self.row(&mut status, entry)
        });
        rows.collect()
    }

    fn fold(&mut self, rows: &[Row]) {
        for row in rows {
            self.status.fold(row, &row.items(), catalog_of(&self.revisions, row));
            let kind = format!("{:?}", row.entry).chars().take_while(|letter| letter.is_alphanumeric()).collect();
            *self.kinds.entry(kind).or_default() += 1;
        }
    }

    /// Makes a configuration durable on both, as before an entry that names it.
    fn keep_revision(&mut self) {
        let catalog = entries::catalog(self.chance.between(1, CATALOGS));
        if let Err(error) = self.real().store.keep_revision(&catalog) {
            assert!(self.full, "{error}");
            return self.note("a revision on a full disk");
        }
        self.model.keep_revision(&catalog);
        if self.revisions.iter().all(|kept| kept.digest != catalog.digest) {
            self.revisions.push(catalog);
        }
        self.note("revision");
    }

    /// One commit on both; the outcome must be the same, but where the disk is full, which only the real one can tell.
    fn append(&mut self, rows: Vec<Row>) {
        let (record, last) = (entry::encode(&rows), rows.last().unwrap().index);
        let too_large = record.len() as u64 > SEGMENT - 128;
        self.model.begin(record.clone());
        self.real().store.append(Commit { record, last }).unwrap();
        match self.real().done.blocking_recv().unwrap() {
            Done::Committed { last: committed } => {
                assert!(committed == last && !too_large, "{committed}, {last}");
                assert_eq!(self.model.commit(), rows);
                self.fold(&rows);
                self.note("committed");
            }
            Done::Failed { last: failed, error } => {
                assert_eq!(failed, last);
                assert!(too_large || self.full, "{error}");
                self.model.fail();
                self.note(if too_large { "refused for its size" } else { "refused by a full disk" });
            }
        }
        let published = *self.real().store.published().borrow();
        assert_eq!(published, self.status.head);
    }

    /// Everything from an index on is the same rows; below what is kept it is refused by name.
    fn read(&mut self) {
        let head = self.status.head.0;
        let from =
            self.chance.between(1, head + 1).max(if self.chance.one_in(4) { 1 } else { head.saturating_sub(200) });
        let mut reader = match self.real().store.reader(JournalIndex(from)) {
            Ok(reader) => reader,
            Err(StoreError::Trimmed { first }) => {
                assert!(from < first.0 && first.0 == self.first, "{from}, {first}, {}", self.first);
                return self.note("read what is trimmed");
            }
            Err(error) => panic!("{error}"),
        };
        let (mut found, mut damages) = (Vec::new(), 0);
        while let Some(read) = reader.next().unwrap() {
            match read {
                Read::Rows(rows) => found.extend(rows),
                Read::Damage(_) => damages += 1,
            }
        }
        let (rows, broken) = self.readable(from);
        assert!(found == rows, "rows from {from} on differ");
        assert!(broken.contains(&damages), "{damages} places from {from} on cannot be read, expected {broken:?}");
        self.note(if damages == 0 { "read" } else { "read past damage" });
    }

    fn checkpoint(&mut self) {
        let (status, head) = (Arc::new(self.status.clone()), self.status.head);
        let store = self.real().store.clone();
        store.checkpoint(Arc::clone(&status));
        if self.full {
            self.asked.push(status);
            return self.note("checkpoint on a full disk");
        }
        let kept = store.checkpoints();
        // One that is asked for while another is written is left out.
        let written = until(PATIENCE, || {
            store.checkpoint(Arc::clone(&status));
            kept.borrow().last() == Some(&head)
        });
        assert!(written, "no checkpoint at {head}");
        self.real().store.reached(Projection::History, head);
        let there = kept.borrow().clone();
        self.settle_checkpoints(&there);
        self.model.checkpoint(&status);
        self.note("checkpoint");
    }

    fn trim(&mut self) {
        let at = self.status.at;
        self.real().store.trim(at);
        let store = self.real().store.clone();
        assert!(until(PATIENCE, || !store.is_trimming()), "the trim does not end");
        self.hold_bound();
        let rows = self.some_rows();
        self.append(rows);
        let first = self.real().store.first().0;
        if first > self.first {
            let kept = self.real().store.checkpoints().borrow().clone();
            let allowed = if kept.len() < real::CHECKPOINTS_KEPT { 0 } else { kept[0].0 };
            assert!(first <= allowed + 1, "trimmed up to {first}, the older checkpoint is at {allowed}");
            self.note("trimmed");
        }
        self.first = first;
        self.follow();
    }

    /// After a trim: no more than the bound, beside what a start may need that falls back to the older checkpoint.
    fn hold_bound(&mut self) {
        let store = self.real().store.clone();
        let kept = store.checkpoints().borrow().clone();
        let reached = if kept.len() < real::CHECKPOINTS_KEPT { JournalIndex(0) } else { kept[0] };
        let (held, needed) = (store.bytes_behind(JournalIndex(0)), store.bytes_behind(reached));
        assert!(held <= (8 * SEGMENT).max(needed), "{held} bytes of journal, {needed} of them needed");
    }

    fn cursor(&mut self) {
        let name = format!("c{}", self.chance.below(3));
        let cursor = self.real().store.cursor(&name).unwrap();
        assert_eq!(cursor.load().unwrap().map(|index| index.0), self.cursors.get(&name).copied());
        let place = self.status.head.0.saturating_sub(self.chance.below(50));
        if cursor.save(JournalIndex(place)).is_ok() {
            self.cursors.insert(name, place);
        } else {
            assert!(self.full, "a cursor could not be saved");
        }
        self.note("cursor");
    }

    /// The newest segment of a directory, with its length.
    fn newest(data: &Path) -> (PathBuf, u64) {
        let segments = fs::read_dir(data.join("journal")).unwrap().map(|entry| entry.unwrap().path());
        let newest = segments.filter(|path| path.extension().is_some_and(|end| end == "seg")).max().unwrap();
        let length = fs::metadata(&newest).unwrap().len();
        (newest, length)
    }

    fn copy(&mut self) -> PathBuf {
        self.copies += 1;
        let to = self.volume.join(format!("data-{}", self.copies));
        let done = Command::new("cp").arg("-a").arg(&self.data).arg(&to).status().unwrap();
        assert!(done.success(), "cp");
        to
    }

    /// The process ends: well, by a kill, or with its machine, in the middle of a commit that was begun.
    fn reopen(&mut self) {
        let how = if self.full { 0 } else { self.chance.below(3) };
        drop(self.real.take());
        let there = self.checkpoints_there();
        self.settle_checkpoints(&there);
        if how == 0 {
            self.model.leave(false);
            self.note("reopened after an end");
        } else {
            // What a commit would add to the disk is found on a copy; as much of it as was written lies on the real one.
            let rows = self.some_rows();
            let (record, last) = (entry::encode(&rows), rows.last().unwrap().index);
            self.model.begin(record.clone());
            let copy = self.copy();
            let mut later = real::open(&copy, options()).unwrap();
            // What a refused append had left is cut off before the next one.
            let (newest, before) = Self::newest(&copy);
            later.store.append(Commit { record, last }).unwrap();
            let done = later.done.blocking_recv().unwrap();
            assert!(matches!(done, Done::Committed { .. }), "{done:?}");
            drop(later);
            let (grown, after) = Self::newest(&copy);
            let same = newest.file_name() == grown.file_name();
            if !same {
                fs::copy(&newest, self.data.join("journal").join(newest.file_name().unwrap())).unwrap();
            }
            let reached = how == 1 && self.chance.one_in(2);
            if reached {
                // Killed behind the write: all of it had reached the disk, and nobody was told.
                fs::copy(&grown, self.data.join("journal").join(grown.file_name().unwrap())).unwrap();
                let rows = self.model.leave(true);
                self.fold(&rows);
                self.note("killed behind the write");
            } else {
                let from = if same { before } else { 0 };
                let torn = from + self.chance.below(after - from);
                // A disk writes whole sectors.
                let torn = if how == 2 { (torn / 512 * 512).max(from) } else { torn };
                let bytes = fs::read(&grown).unwrap();
                let target = self.data.join("journal").join(grown.file_name().unwrap());
                fs::write(target, &bytes[..usize::try_from(torn).unwrap()]).unwrap();
                self.model.leave(false);
                self.note(if how == 1 {
                    "killed in the middle of a write"
                } else {
                    "power lost in the middle of a write"
                });
            }
            fs::remove_dir_all(copy).unwrap();
        }
        self.open();
    }

    /// The next process begins: from the same checkpoint, with as many rows behind it, to the same state.
    fn open(&mut self) {
        let opened = real::open(&self.data, options()).unwrap();
        assert!(opened.status.encode() == self.status.encode(), "another state at {}", self.status.head);
        let from = self.model.newest().map(|checkpoint| checkpoint.head).unwrap_or_default();
        let (mut behind, end) = (self.model.rows(from), self.model.end());
        behind.retain(|row| row.index <= end);
        let replayed = u64::try_from(behind.len()).unwrap();
        assert_eq!((opened.recovery.checkpoint, opened.recovery.replayed), (from, replayed));
        let (fell_back, covered) = self.model.put_aside();
        assert_eq!(opened.recovery.damaged_checkpoints.len(), usize::from(fell_back), "{:?}", opened.recovery);
        assert!(covered || opened.recovery.damages.is_empty(), "{:?}", opened.recovery);
        let heads: Vec<JournalIndex> = self.model.checkpoints.iter().map(|checkpoint| checkpoint.head).collect();
        assert_eq!(*opened.store.checkpoints().borrow(), heads);
        // From the first row on it takes long: now and then, and at the end.
        let whole = self.chance.one_in(20).then(|| self.model.replay_whole(Defects::default()));
        assert!(whole.is_none_or(|whole| whole.encode() == self.status.encode()));
        assert!(self.model.replay(Defects::default()).unwrap().encode() == self.status.encode());
        let reached = opened.store.checkpoints().borrow().last().copied().unwrap_or_default();
        opened.store.reached(Projection::History, reached);
        self.first = opened.store.first().0;
        self.real = Some(opened);
        self.follow();
    }

    /// Takes all room, or gives it back.
    fn turn_full(&mut self, may: bool) {
        let ballast = self.volume.join("ballast");
        if self.full {
            fs::remove_file(&ballast).unwrap();
        } else if may {
            let mut bytes = 8 * 1024 * 1024;
            while bytes > 0 {
                let grown = fs::metadata(&ballast).map_or(0, |found| found.len());
                let mut file = fs::OpenOptions::new().create(true).append(true).open(&ballast).unwrap();
                if std::io::Write::write_all(&mut file, &vec![7; bytes]).is_err()
                    && fs::metadata(&ballast).map_or(0, |found| found.len()) == grown
                {
                    bytes /= 2;
                }
            }
        } else {
            return;
        }
        self.full = !self.full;
        self.note("full and not");
    }
}

fn act(volume: &Path, may_fill: bool, (operations, seed): (u64, u64)) {
    let mut pair = Pair::new(volume, seed);
    for _ in 0..operations {
        match pair.chance.below(1000) {
            0..675 => {
                let rows = pair.some_rows();
                pair.append(rows);
            }
            675..690 => pair.damage(),
            690..700 => pair.keep_revision(),
            700..720 => {
                // Longer than a segment holds.
                let rows = pair.rows(vec![Entry::WriterGap(WriterGap {
                    writer: "x".repeat(usize::try_from(SEGMENT).unwrap()),
                    lane: "metrics".to_owned(),
                    first: JournalIndex(1),
                    last: JournalIndex(1),
                    reason: "journal-bytes".to_owned(),
                })]);
                pair.append(rows);
            }
            720..800 => pair.read(),
            800..870 => pair.cursor(),
            870..910 => pair.checkpoint(),
            910..960 => pair.trim(),
            960..985 => pair.reopen(),
            _ => pair.turn_full(may_fill),
        }
    }
    if pair.full {
        pair.turn_full(false);
    }
    pair.reopen();
    assert!(pair.model.replay_whole(Defects::default()).encode() == pair.status.encode());
    if operations < MANY {
        return;
    }
    assert_eq!(pair.kinds.len() as u64, entries::KINDS + 1, "kinds of entries: {:?}", pair.kinds);
    let wanted = [
        "committed",
        "refused for its size",
        "read",
        "read what is trimmed",
        "checkpoint",
        "trimmed",
        "cursor",
        "reopened after an end",
        "killed behind the write",
        "killed in the middle of a write",
        "power lost in the middle of a write",
        "damage at the end",
        "damage that a checkpoint contains",
        "damage that only a backup mends",
        "read past damage",
        "a start from the older checkpoint",
    ];
    for what in wanted {
        assert!(pair.seen.contains_key(what), "never {what}: {:?}", pair.seen);
    }
    assert!(!may_fill || pair.seen.contains_key("refused by a full disk"), "{:?}", pair.seen);
}

#[test]
fn the_model_and_the_real_store_answer_alike() {
    let (operations, seed) = crate::simulation::asked();
    eprintln!("{operations} operations, PERIGEE_SEED={seed}");
    if let Some(volume) = std::env::var_os(CHILD) {
        return act(Path::new(&volume), true, (operations, seed));
    }
    let directory = tempfile::tempdir().unwrap();
    let namespace = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--map-root-user", "sh", "-c", script, "sh"]).arg(directory.path());
        command
    };
    if !namespace(MOUNT).output().is_ok_and(|output| output.status.success()) {
        missing("permission to mount a tmpfs in a namespace of its own (unshare)", "util-linux");
        return act(directory.path(), false, (operations, seed));
    }
    let output = namespace(&format!("{MOUNT} && exec \"$2\" --exact {NAME} --nocapture"))
        .arg(std::env::current_exe().unwrap())
        .env(CHILD, directory.path())
        .env("PERIGEE_OPERATIONS", operations.to_string())
        .env("PERIGEE_SEED", seed.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{words}");
}
