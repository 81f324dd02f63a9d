//! The writing end of a log: appends, makes durable, rolls to the next segment, trims.
//! Decides nothing about when to sync; group commit is the caller's. One writer per directory, held by a lock.
//! The surprise: `append` touches no file. A group is written by `sync` in one write into one segment, so that a
//! group costs one write and one fdatasync and is never split over two files.

use crate::bounds::Bounds;
use crate::medium::{Disk, Medium};
use crate::record;
use crate::recovery::{self, LOCK, Recovery};
use crate::segment::{self, Segment};
use crate::{Error, Reader};
use std::collections::hash_map::RandomState;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::BuildHasher;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// No segment is longer: trimming stays fine-grained, and recovery reads at most this much of the newest one.
pub const MAX_SEGMENT_BYTES: u64 = 64 << 20;
/// Longest payload unless the options say otherwise.
pub const DEFAULT_RECORD_BYTES: u32 = 8 << 20;
/// A group that would grow beyond this (or beyond a segment) is synced by `append` before the next record is taken, so
/// that a caller who never syncs costs bounded memory.
const GROUP_BYTES: u64 = 8 << 20;
/// Buffer kept between groups.
const KEPT_BYTES: usize = 1 << 20;
const FRAME_BYTES: u64 = (segment::HEADER + record::HEADER) as u64;

/// How a log is laid out and what kind it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Longest segment file, 128 bytes to 64 MiB.
    pub segment_bytes: u64,
    /// Longest payload in bytes; a segment that is smaller lowers it. Longer records already on disk are still read.
    pub record_bytes: u32,
    /// What kind of log this is; a segment with another tag is refused by name.
    pub tag: [u8; 4],
    /// Which log of that kind this is; segments of another one are left alone. 0 where there is only one.
    pub owner: u64,
    /// Nothing will be appended: what is unfinished at the end is neither cut nor removed. Appending all the same begins a segment.
    pub frozen: bool,
}

/// One segment as far as it is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Its records have indexes above this.
    pub after: u64,
    /// And up to this.
    pub last: u64,
    /// Bytes on disk.
    pub bytes: u64,
}

impl Options {
    /// Segments of 64 MiB, records up to 8 MiB, the only log of its kind, to be written.
    pub fn new(tag: [u8; 4]) -> Self {
        Options { segment_bytes: MAX_SEGMENT_BYTES, record_bytes: DEFAULT_RECORD_BYTES, tag, owner: 0, frozen: false }
    }

    /// Longest payload a segment has room for.
    fn record_limit(&self) -> Result<u64, Error> {
        let (least, most) = (128, MAX_SEGMENT_BYTES);
        if !(least..=most).contains(&self.segment_bytes) {
            return Err(Error::Options { option: "segment_bytes", given: self.segment_bytes, least, most });
        }
        Ok(u64::from(self.record_bytes).min(self.segment_bytes - FRAME_BYTES))
    }
}

/// The writer of a log. Dropping it loses what was appended and not synced, as a crash would.
#[derive(Debug)]
pub struct Log {
    dir: PathBuf,
    options: Options,
    record_limit: u64,
    medium: Arc<dyn Medium>,
    bounds: Arc<Bounds>,
    /// The segment that takes the next group; none before the first one and after a failure.
    current: Option<(Arc<Segment>, File)>,
    /// The newest segment must not be written again; its successor says so.
    given_up: bool,
    /// Unfinished files that could not be removed yet; at most one more than recovery found.
    remains: Vec<PathBuf>,
    /// The last removal by a trim is not durable yet.
    removal_unsynced: bool,
    serial: u32,
    /// Highest index appended; falls back to the published one when a group fails.
    last: u64,
    group: Vec<u8>,
    starts: Vec<usize>,
    group_first: u64,
    random: RandomState,
    _lock: Lock,
}

impl Log {
    /// Opens the log in `dir`, making it if it is missing, takes its lock and recovers what is there.
    pub fn open(dir: &Path, options: Options) -> Result<(Log, Recovery), Error> {
        Log::open_on(dir, options, Arc::new(Disk))
    }

    /// The same on another medium than the disk: what a test makes fail, tear or be forgotten.
    pub fn open_on(dir: &Path, options: Options, medium: Arc<dyn Medium>) -> Result<(Log, Recovery), Error> {
        let record_limit = options.record_limit()?;
        create_directory(dir, medium.as_ref())?;
        let lock = lock(dir)?;
        let recovered = recovery::recover(dir, &options, &medium)?;
        let report = recovered.report;
        let serial = recovered.segments.last().map_or(0, |newest| newest.serial());
        let given_up = !recovered.segments.is_empty() && recovered.current.is_none();
        let bounds = Arc::new(Bounds::new(report.published, recovered.segments, Arc::clone(&medium)));
        let mut log = Log {
            dir: dir.to_path_buf(),
            options,
            record_limit,
            medium,
            bounds,
            current: recovered.current,
            given_up,
            remains: recovered.remains,
            // Nobody knows what the process before left undone.
            removal_unsynced: true,
            serial,
            last: report.published,
            group: Vec::new(),
            starts: Vec::new(),
            group_first: 0,
            random: RandomState::new(),
            _lock: lock,
        };
        if !options.frozen {
            // If this fails, the next segment tries again and tells.
            let _ = log.clear_remains();
        }
        Ok((log, report))
    }

    /// Adds a record to the group that the next [`sync`](Log::sync) publishes. `index` must exceed every earlier one
    /// and may jump. Costs no system call, unless the group would exceed 8 MiB or a segment: then what was appended
    /// before is synced first, and an error of that means the same as one of `sync`.
    pub fn append(&mut self, index: u64, payload: &[u8]) -> Result<(), Error> {
        if index <= self.last {
            return Err(Error::Order { index, after: self.last });
        }
        let too_large = Error::TooLarge { bytes: payload.len() as u64, limit: self.record_limit };
        let Ok(length) = u32::try_from(payload.len()) else { return Err(too_large) };
        if u64::from(length) > self.record_limit {
            return Err(too_large);
        }
        let room = GROUP_BYTES.min(self.options.segment_bytes - segment::HEADER as u64);
        let grown = self.group.len() as u64 + record::HEADER as u64 + u64::from(length);
        if !self.group.is_empty() && grown > room {
            self.sync()?;
        }
        if self.starts.is_empty() {
            self.group_first = index;
        }
        let header = record::Header::of(index, self.published(), payload, length);
        self.starts.push(self.group.len());
        self.group.extend_from_slice(&header.encode(0));
        self.group.extend_from_slice(payload);
        self.last = index;
        Ok(())
    }

    /// Writes the group and waits until it is durable; returns the last published index. Without a group it does nothing.
    ///
    /// After an error nothing of the group is published nor kept, and the file is never written again: append the
    /// records again (the same indexes are free) or go on with later ones, in a new segment.
    pub fn sync(&mut self) -> Result<u64, Error> {
        if !self.starts.is_empty() {
            let outcome = self.commit();
            self.starts.clear();
            self.group.clear();
            self.group.shrink_to(KEPT_BYTES);
            if outcome.is_ok() {
                self.bounds.publish(self.last);
            }
            self.last = self.published();
            outcome?;
        }
        Ok(self.published())
    }

    fn commit(&mut self) -> Result<(), Error> {
        let bytes = self.group.len() as u64;
        let fits = |segment: &Segment| segment.length() + bytes <= self.options.segment_bytes;
        let (segment, file) = match self.current.take() {
            Some((segment, file)) if fits(&segment) => (segment, file),
            // The full one is left for good, even if the next one cannot be made: what remains of that may void anything
            // written behind its back.
            _ => self.roll()?,
        };
        let at = segment.length();
        for &start in &self.starts {
            if let Some(record) = self.group.get_mut(start..) {
                record::seal(record, segment.mark, at + start as u64);
            }
        }
        let path = &segment.path;
        let written = self
            .medium
            .write(&file, path, at, &self.group)
            .map_err(Error::io(path, "write to"))
            .and_then(|()| self.medium.sync(&file, path).map_err(Error::io(path, "sync")));
        match written {
            Ok(()) => {
                segment.set_length(at + bytes);
                self.current = Some((segment, file));
            }
            Err(_) => {
                self.given_up = true;
                segment.set_size(file.metadata().map_or(at, |metadata| metadata.len()));
            }
        }
        written
    }

    /// Makes the next segment: durable with its name before anything is written to it.
    fn roll(&mut self) -> Result<(Arc<Segment>, File), Error> {
        self.clear_remains()?;
        // Used up even if the file cannot be made: its remains must not be taken for a later one.
        self.serial = self.serial.checked_add(1).ok_or_else(|| Error::Exhausted { dir: self.dir.clone() })?;
        let mark = segment::mark(self.serial, self.random.hash_one(self.serial), self.options.owner);
        let header = segment::Header {
            version: segment::VERSION,
            after_failure: self.given_up,
            tag: self.options.tag,
            first: self.group_first,
            prior: self.published(),
            mark,
            owner: self.options.owner,
        };
        let name = segment::file_name(header.first, mark);
        let path = self.dir.join(&name);
        let file = self.medium.create(&path).map_err(Error::io(&path, "create"))?;
        let durable = self
            .medium
            .write(&file, &path, 0, &header.encode())
            .and_then(|()| self.medium.sync(&file, &path))
            .map_err(Error::io(&path, "write the header of"))
            .and_then(|()| self.sync_directory());
        if let Err(refused) = durable {
            self.remains.push(path);
            // The first error is the one to tell; this one comes again if it lasts.
            let _ = self.clear_remains();
            return Err(refused);
        }
        let segment = Arc::new(Segment::new(path, name, header.prior, mark, false, segment::HEADER as u64));
        self.bounds.push(Arc::clone(&segment));
        if self.given_up {
            self.given_up = false;
            self.remove_void();
        }
        Ok((segment, file))
    }

    /// Removes what is left of files whose creation failed, before there is a younger one: they hold nothing, but when all
    /// older ones are trimmed they would look like the beginning of a log with a hole. The next segment's sync of the
    /// directory makes the removal durable.
    fn clear_remains(&mut self) -> Result<(), Error> {
        while let Some(path) = self.remains.last() {
            match self.medium.unlink(path) {
                Ok(()) => {}
                Err(refused) if refused.kind() == std::io::ErrorKind::NotFound => {}
                Err(refused) => return Err(Error::io(path, "remove")(refused)),
            }
            self.remains.pop();
        }
        Ok(())
    }

    fn sync_directory(&mut self) -> Result<(), Error> {
        self.medium.sync_directory(&self.dir).map_err(Error::io(&self.dir, "sync directory"))?;
        self.removal_unsynced = false;
        Ok(())
    }

    /// Removes the last but one segment if nothing in it was ever published, so that a disk that fails for hours does
    /// not gather files. If that fails it is trimmed later.
    fn remove_void(&self) {
        let mut segments = self.bounds.segments();
        let Some(place) = segments.len().checked_sub(2) else { return };
        let void = segments.get(place).filter(|segment| segment.limit() <= segment.prior && !segment.headless).cloned();
        if void.is_some_and(|segment| self.medium.unlink(&segment.path).is_ok()) {
            segments.remove(place);
        }
    }

    /// The last durable index; 0 = none.
    pub fn published(&self) -> u64 {
        self.bounds.published()
    }

    /// Lowest index that may still be held: everything below was trimmed.
    pub fn first(&self) -> u64 {
        self.bounds.first()
    }

    /// Removes the oldest segments, as long as all their records are at or below `up_to`; never the newest one.
    /// Returns the bytes freed. Readers inside a removed segment finish it undisturbed.
    pub fn trim(&mut self, up_to: u64) -> Result<u64, Error> {
        self.trim_keeping(up_to, 0)
    }

    /// As [`trim`](Log::trim), but stops before fewer than `bytes` would be left, all segments together.
    pub fn trim_keeping(&mut self, up_to: u64, bytes: u64) -> Result<u64, Error> {
        let mut freed = 0_u64;
        while let Some(size) = self.trim_oldest(up_to, bytes)? {
            freed = freed.saturating_add(size);
        }
        Ok(freed)
    }

    /// One step of [`trim_keeping`](Log::trim_keeping), for a caller who has something more urgent to do in between: removes the
    /// oldest segment at most. The bytes freed; `None` when nothing is left to remove.
    pub fn trim_oldest(&mut self, up_to: u64, bytes: u64) -> Result<Option<u64>, Error> {
        // One at a time: should a crash bring a removed segment back, its successor must still be there, or the log
        // would seem to have a hole.
        if self.removal_unsynced {
            self.sync_directory()?;
        }
        let held = self.bytes();
        let mut segments = self.bounds.segments();
        let Some(oldest) = segments.first().filter(|oldest| segments.len() > 1 && oldest.limit() <= up_to) else {
            return Ok(None);
        };
        let size = oldest.size();
        if held.saturating_sub(size) < bytes {
            return Ok(None);
        }
        // Under the lock of the list: a reader that misses the file finds it off the list as well.
        let freed = match self.medium.unlink(&oldest.path) {
            Ok(()) => size,
            Err(refused) if refused.kind() == std::io::ErrorKind::NotFound => 0,
            Err(refused) => return Err(Error::io(&oldest.path, "remove")(refused)),
        };
        self.removal_unsynced = true;
        self.bounds.remove_oldest(&mut segments);
        Ok(Some(freed))
    }

    /// Bytes on disk, all segments together.
    pub fn bytes(&self) -> u64 {
        self.bounds.segments().iter().fold(0, |sum, segment| sum.saturating_add(segment.size()))
    }

    /// The segments, oldest first.
    pub fn extents(&self) -> Vec<Extent> {
        let published = self.published();
        let segments = self.bounds.segments();
        let extent = |segment: &Arc<Segment>| {
            let last = segment.limit().min(published);
            Extent { after: segment.prior, last, bytes: segment.size() }
        };
        segments.iter().map(extent).collect()
    }

    /// Removes every segment, oldest first, the newest too: a crash in between leaves what a trim would. What is appended next goes on
    /// above the last published index.
    ///
    /// # Errors
    /// When the system refuses; what is left is a log.
    pub fn erase(&mut self) -> Result<(), Error> {
        self.trim(u64::MAX)?;
        self.clear_remains()?;
        self.current = None;
        let bounds = Arc::clone(&self.bounds);
        let mut segments = bounds.segments();
        if let Some(newest) = segments.first() {
            self.medium.unlink(&newest.path).map_err(Error::io(&newest.path, "remove"))?;
            bounds.remove_oldest(&mut segments);
        }
        self.given_up = false;
        drop(segments);
        self.sync_directory()
    }

    /// Number of segment files.
    pub fn segments(&self) -> usize {
        self.bounds.segments().len()
    }

    /// A reader that begins at `from`, as [`Reader::open`].
    pub fn read(&self, from: u64) -> Result<Reader, Error> {
        Reader::open(&self.bounds, from)
    }

    /// What readers in other threads need; see [`Bounds::reader`].
    pub fn bounds(&self) -> Arc<Bounds> {
        Arc::clone(&self.bounds)
    }
}

/// Makes `dir` and its missing parents, each durable in its own parent.
fn create_directory(dir: &Path, medium: &dyn Medium) -> Result<(), Error> {
    let missing: Vec<_> =
        dir.ancestors().take_while(|level| !level.as_os_str().is_empty() && !level.exists()).collect();
    for level in missing.into_iter().rev() {
        match fs::create_dir(level) {
            Ok(()) => {}
            Err(refused) if refused.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(refused) => return Err(Error::io(level, "create directory")(refused)),
        }
        let parent = level.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        medium.sync_directory(parent).map_err(Error::io(parent, "sync directory"))?;
    }
    Ok(())
}

/// The exclusive hold on a directory.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    /// Closing alone would not do: a child that is being spawned at this moment holds a copy until its exec.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

fn lock(dir: &Path) -> Result<Lock, Error> {
    let path = dir.join(LOCK);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(Error::io(&path, "open the lock file"))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(Error::Locked { dir: dir.to_path_buf() }),
        Err(TryLockError::Error(refused)) => Err(Error::io(&path, "lock")(refused)),
    }
}
