//! A bit flips at rest, in a checkpoint or in a record: what the real store does at its next start is what the model says it does. What
//! a checkpoint contains is not needed; what nothing else contains keeps both from starting, and the real one says why and what to do.
//! A last record that is damaged cannot be told from a write that was never finished: both start without it.
//!
//! The surprise: a start that is refused is tried on a copy, so that the sequence goes on with the store that it would have been.

use std::os::unix::fs::FileExt as _;

use super::*;

/// Bytes before a record's payload.
const RECORD_HEAD: u64 = 40;

impl Pair {
    /// The process ends, a bit flips in what it left, and the next one begins, or refuses to.
    pub(super) fn damage(&mut self) {
        if self.full || self.model.records.len() < 3 {
            return;
        }
        drop(self.real.take());
        self.model.leave(false);
        let there = self.checkpoints_there();
        self.settle_checkpoints(&there);
        self.follow();
        if self.chance.one_in(3) {
            self.damage_checkpoint();
        } else {
            self.damage_record();
        }
        self.open();
    }

    fn damage_checkpoint(&mut self) {
        let Some(newest) = self.model.checkpoints.last_mut() else { return };
        newest.damaged = true;
        let name = format!("checkpoint/{:020}.ckpt", newest.head.0);
        if self.model.is_lost() {
            let copy = self.copy();
            self.flip(&copy.join(&name), 0..fs::metadata(copy.join(&name)).unwrap().len());
            self.is_refused(&copy);
            self.model.checkpoints.iter_mut().for_each(|checkpoint| checkpoint.damaged = false);
            return self.note("a damaged checkpoint without which nothing starts");
        }
        let path = self.data.join(&name);
        self.flip(&path, 0..fs::metadata(&path).unwrap().len());
        self.note(if self.model.checkpoints.len() > 1 {
            "a start from the older checkpoint"
        } else {
            "a start without its only checkpoint"
        });
    }

    fn damage_record(&mut self) {
        let (first, last) = (self.model.trimmed, self.model.records.len() - 1);
        let kept = u64::try_from(last + 1 - first).unwrap();
        let at = if self.chance.one_in(4) { last } else { first + usize::try_from(self.chance.below(kept)).unwrap() };
        // One at the end: how much of several the real one cuts off depends on where its segments begin.
        if at < first
            || at > last
            || self.model.records[at].damaged
            || (at == last && self.model.records[at - 1].damaged)
        {
            return;
        }
        self.model.records[at].damaged = true;
        let bytes = self.model.records[at].bytes.clone();
        let part = if self.chance.one_in(2) {
            0..RECORD_HEAD
        } else {
            RECORD_HEAD..RECORD_HEAD + u64::try_from(bytes.len()).unwrap()
        };
        if self.model.is_lost() {
            let copy = self.copy();
            let (path, begin) = Self::place(&copy, &bytes);
            self.flip(&path, begin + part.start..begin + part.end);
            self.is_refused(&copy);
            self.model.records[at].damaged = false;
            return self.note(if at == last {
                "damage at the end that a checkpoint is ahead of"
            } else {
                "damage that only a backup mends"
            });
        }
        let (path, begin) = Self::place(&self.data, &bytes);
        self.flip(&path, begin + part.start..begin + part.end);
        if at == last {
            // What both start with is the state before it.
            self.status = self.model.replay(Defects::default()).unwrap();
            self.note("damage at the end");
        } else {
            self.note("damage that a checkpoint contains");
        }
    }

    /// Where a record's head begins, by its payload. Newest segment first: an older one may hold what a failed commit left.
    fn place(data: &Path, payload: &[u8]) -> (PathBuf, u64) {
        let entries = fs::read_dir(data.join("journal")).unwrap().map(|entry| entry.unwrap().path());
        let mut segments: Vec<PathBuf> =
            entries.filter(|path| path.extension().is_some_and(|end| end == "seg")).collect();
        segments.sort_by_key(|path| path.file_name().unwrap().to_string_lossy()[21..37].to_owned());
        let found = segments.into_iter().rev().find_map(|path| {
            let bytes = fs::read(&path).unwrap();
            let at = bytes.windows(payload.len()).rposition(|window| window == payload)?;
            Some((path, u64::try_from(at).unwrap() - RECORD_HEAD))
        });
        found.expect("a record that was committed is nowhere")
    }

    fn flip(&mut self, path: &Path, within: std::ops::Range<u64>) {
        let at = within.start + self.chance.below(within.end - within.start);
        let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ (1 << self.chance.below(8))], at).unwrap();
    }

    /// The real store refuses what the model refuses, for the same reason, and names the way out.
    fn is_refused(&self, data: &Path) {
        let from = self.model.newest().map(|checkpoint| checkpoint.head).unwrap_or_default();
        let gone = self.model.overran(from).is_some();
        let short = self.model.end() < from;
        let error = real::open(data, options()).unwrap_err();
        let same = match &error {
            StoreError::Behind { .. } => short,
            StoreError::Beginning { .. } => gone && !short,
            StoreError::Lost { .. } => !gone && !short,
            _ => false,
        };
        assert!(same, "behind {from}, trimmed: {gone}, too short: {short}: {error}");
        assert!(error.to_string().contains("perigee-master restore"), "{error}");
        fs::remove_dir_all(data).unwrap();
    }

    /// What a reader gets from an index on: the rows that can be read, and at least and at most how many places that cannot. One right
    /// before the first row is told if that row's record begins before it.
    pub(super) fn readable(&self, from: u64) -> (Vec<Row>, std::ops::RangeInclusive<u64>) {
        let (mut rows, mut least, mut most) = (Vec::new(), 0, 0);
        let mut broken = None;
        for record in self.model.kept() {
            if record.damaged {
                broken = Some(record.last.0);
                continue;
            }
            let broken = broken.take();
            if record.last.0 < from {
                continue;
            }
            if let Some(last) = broken {
                least += u64::from(last >= from);
                most += u64::from(record.last.0 > from);
            }
            rows.extend(entry::decode(&record.bytes).unwrap().into_iter().filter(|row| row.index.0 >= from));
        }
        (rows, least..=most)
    }

    /// Checkpoints on disk.
    pub(super) fn checkpoints_there(&self) -> Vec<JournalIndex> {
        let entries = fs::read_dir(self.data.join("checkpoint")).unwrap().map(|entry| entry.unwrap().file_name());
        let names = entries.map(|name| name.to_string_lossy().into_owned());
        let mut there: Vec<JournalIndex> =
            names.filter_map(|name| name.strip_suffix(".ckpt")?.parse().ok().map(JournalIndex)).collect();
        there.sort_unstable();
        there
    }

    /// Of the checkpoints that were asked for while the disk was full the model has those that the real one could write.
    pub(super) fn settle_checkpoints(&mut self, there: &[JournalIndex]) {
        for status in std::mem::take(&mut self.asked) {
            if there.contains(&status.head) {
                self.model.checkpoint(&status);
            }
        }
    }

    /// The model has trimmed what the real one has: whole segments of what it was allowed.
    pub(super) fn follow(&mut self) {
        let first = self.first;
        self.model.trimmed = self.model.records.iter().take_while(|record| record.last.0 < first).count();
    }
}
