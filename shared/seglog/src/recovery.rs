//! What opening a directory finds: which segments there are and in which order, what is void, where the newest one
//! ends. Reads the headers of all segments, but the body of only the newest, of one that was given up after a failure,
//! and the beginning of one whose header is damaged.
//! The surprise: what may not be durable in the newest segment (the records after the last published index that a record
//! names) is written again before it counts as published, because after a failed write-back the page cache shows
//! bytes the disk never got.

use crate::medium::Medium;
use crate::record;
use crate::scan::{Scan, Step, Stretch};
use crate::segment::{self, Header, Segment};
use crate::{Error, Options};
use std::collections::VecDeque;
use std::fs::{self, File};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Name of the lock file in the directory of a log.
pub(crate) const LOCK: &str = "lock";

/// Part of a log that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// File name of the segment in which it begins.
    pub segment: String,
    /// Where in that file it begins.
    pub offset: u64,
    /// Unreadable bytes; 0 when the file is simply too short or missing.
    pub bytes: u64,
    /// Index of the last good record before it, or what the log is known to have held before its first segment; 0 = none.
    pub after: u64,
    /// Index of the next good record; `None` = there is none yet, the number of lost records is unknown.
    pub before: Option<u64>,
}

/// What opening a log found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Bytes of an unfinished write at the end of the newest segment, cut off (left and ignored if the file is damaged).
    pub torn_bytes: u64,
    /// Damage in the newest segment and in the headers of all. A reader that passes the place names it again, except for
    /// damage at the very end.
    pub damages: Vec<Damage>,
    /// Records found beyond what their successor names as published; never returned.
    pub void_records: u64,
    /// Lowest index that may still be held.
    pub first: u64,
    /// Last published index; 0 = none.
    pub published: u64,
    /// Highest index any readable record header names, void and damaged ones included. A caller that must never use an
    /// index twice goes on above it.
    pub highest_seen: u64,
    /// Files and directories that are not part of the log, by name; left alone. A second copy of a segment is one.
    pub ignored: Vec<String>,
    /// Why the newest segment will not be written again, if it could not be cut or confirmed durable.
    pub distrusted: Option<String>,
    /// Behind the last record something stood that is none: an unfinished write, or records that were damaged later.
    pub end_in_doubt: bool,
}

/// The recovered state from which a log goes on.
pub(crate) struct Recovered {
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) report: Recovery,
    /// The newest segment, open for writing, if it may be written.
    pub(crate) current: Option<(Arc<Segment>, File)>,
    /// Files whose creation was not finished, to be removed.
    pub(crate) remains: Vec<PathBuf>,
}

/// Number of the segment with which a log begins.
const FIRST_SERIAL: u64 = 1;

/// First index and mark.
type Identity = (u64, u64);

/// A segment file as found.
struct Found {
    path: PathBuf,
    name: String,
    header: Option<Header>,
    mark: u64,
    first: u64,
    length: u64,
}

/// Examines `dir`, which the caller has locked.
pub(crate) fn recover(dir: &Path, options: &Options, medium: &Arc<dyn Medium>) -> Result<Recovered, Error> {
    let mut report = Recovery::default();
    let mut found = list(dir, options, medium.as_ref(), &mut report)?;
    let remains = take_unfinished(&mut found, &mut report);
    let priors = order(&found, medium)?;
    let segments = assemble(&found, &priors);
    name_headless(&segments, medium, &mut report)?;
    count_void(&found, &segments, medium, &mut report)?;

    let current = match segments.last() {
        Some(newest) => recover_newest(newest, medium, options.frozen, &mut report)?,
        None => None,
    };
    report.first = segments.first().map_or(1, |oldest| oldest.prior.saturating_add(1));
    report.highest_seen = report.highest_seen.max(report.published);
    Ok(Recovered { segments, report, current, remains })
}

/// All segments in order of their marks.
fn list(dir: &Path, options: &Options, medium: &dyn Medium, report: &mut Recovery) -> Result<Vec<Found>, Error> {
    let mut found = Vec::new();
    let entries: Result<Vec<_>, _> = fs::read_dir(dir).and_then(Iterator::collect);
    let mut entries = entries.map_err(Error::io(dir, "list"))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        if name == LOCK {
            continue;
        }
        let metadata = entry.metadata().map_err(Error::io(&path, "examine"))?;
        if !name.ends_with(".seg") || !metadata.is_file() {
            report.ignored.push(name);
            continue;
        }
        let (header, identity) = identify(&path, &name, medium)?;
        if let Some(header) = header {
            refuse_foreign(&path, &header, options.tag)?;
            if header.owner != options.owner {
                report.ignored.push(name);
                continue;
            }
        }
        match identity.filter(|(_, mark)| segment::may_own(*mark, options.owner)) {
            Some((first, mark)) => found.push(Found { path, name, header, mark, first, length: metadata.len() }),
            None => report.ignored.push(name),
        }
    }
    // Of two files with one mark the better one stands first: header intact, then named as its header says.
    found.sort_by_key(|file| {
        (file.mark, file.header.is_none(), segment::file_name(file.first, file.mark) != file.name, file.name.clone())
    });
    found.dedup_by(|copy, kept| {
        let same = copy.mark == kept.mark;
        if same {
            report.ignored.push(copy.name.clone());
        }
        same
    });
    report.ignored.sort();
    Ok(found)
}

/// The header, and first index and mark: by the header, or else by the first record, or else by the name. A header that
/// cannot be read is a damaged one: the body may still be good.
fn identify(path: &Path, name: &str, medium: &dyn Medium) -> Result<(Option<Header>, Option<Identity>), Error> {
    let file = medium.open_to_read(path).map_err(Error::io(path, "open"))?;
    let mut bytes = [0; segment::HEADER + record::HEADER];
    let got = medium.read(&file, path, 0, &mut bytes).unwrap_or(0);
    let read = bytes.get(..got).unwrap_or_default();
    if let Some(header) = Header::decode(read) {
        return Ok((Some(header), Some((header.first, header.mark))));
    }
    let record = read.get(segment::HEADER..).and_then(|bytes| record::Header::decode(bytes, segment::HEADER as u64));
    Ok((None, record.map(|record| (record.index, record.mark)).or_else(|| segment::parse_name(name))))
}

fn refuse_foreign(path: &Path, header: &Header, tag: [u8; 4]) -> Result<(), Error> {
    let foreign = |found, hint| Err(Error::Foreign { path: path.to_path_buf(), found, hint });
    if header.version != segment::VERSION {
        return foreign(
            format!("segment format version {}, this version knows {}", header.version, segment::VERSION),
            "start the newer version that wrote it, or move the directory away",
        );
    }
    if header.tag != tag {
        return foreign(
            format!("a log of kind \"{}\", not \"{}\"", header.tag.escape_ascii(), tag.escape_ascii()),
            "give each log a directory of its own",
        );
    }
    Ok(())
}

/// A newest file that got no further than its header holds nothing: its creation was not finished.
fn take_unfinished(found: &mut Vec<Found>, report: &mut Recovery) -> Vec<PathBuf> {
    let mut remains = Vec::new();
    while let Some(torn) = found.pop_if(|newest| newest.header.is_none() && newest.length <= segment::HEADER as u64) {
        report.torn_bytes = report.torn_bytes.saturating_add(torn.length);
        report.end_in_doubt = true;
        remains.push(torn.path);
    }
    remains
}

/// The last published index before each segment, never falling from one to the next.
fn order(found: &[Found], medium: &Arc<dyn Medium>) -> Result<Vec<u64>, Error> {
    let mut priors = Vec::with_capacity(found.len());
    let mut highest = 0;
    for file in found {
        let prior = match file.header {
            Some(header) if header.prior < highest => {
                return Err(Error::Foreign {
                    path: file.path.clone(),
                    found: format!("a segment after index {}, behind one after index {highest}", header.prior),
                    hint: "one of them was copied from another log; move it away",
                });
            }
            Some(header) => {
                highest = header.prior;
                header.prior
            }
            None => prior_of_headless(file, medium)?,
        };
        priors.push(prior);
    }
    // A guessed bound yields to a written one.
    for younger in (1..priors.len()).rev() {
        priors[younger - 1] = priors[younger - 1].min(priors[younger]);
    }
    Ok(priors)
}

/// The first record says what the damaged header did; failing that, the name bounds it. Before the first segment of all there was
/// nothing.
fn prior_of_headless(file: &Found, medium: &Arc<dyn Medium>) -> Result<u64, Error> {
    if file.mark >> 32 == FIRST_SERIAL {
        return Ok(0);
    }
    let mut scan = patient_scan(&file.path, file.mark, 0, medium)?;
    Ok(match scan.next(file.length, u64::MAX, 0)? {
        Step::Record { header, lost, .. } if lost.is_empty() => header.published,
        Step::Record { .. } | Step::Passed { .. } | Step::End { .. } => file.first.saturating_sub(1),
    })
}

/// Reports the damaged headers, unless nothing behind one counts.
fn name_headless(segments: &[Arc<Segment>], medium: &Arc<dyn Medium>, report: &mut Recovery) -> Result<(), Error> {
    for segment in segments.iter().filter(|segment| segment.headless && segment.limit() > segment.prior) {
        let mut scan = patient_scan(&segment.path, segment.mark, segment.prior, medium)?;
        let before = match scan.next(segment.length(), segment.limit(), 0)? {
            Step::Record { header, lost, .. } if lost.is_empty() => Some(header.index),
            Step::Record { .. } | Step::Passed { .. } | Step::End { .. } => None,
        };
        let header = Stretch { offset: 0, bytes: segment.length().min(segment::HEADER as u64) };
        report.damages.push(header.damage(&segment.name, segment.prior, before));
    }
    Ok(())
}

fn assemble(found: &[Found], priors: &[u64]) -> Vec<Arc<Segment>> {
    let segments: Vec<_> = found
        .iter()
        .zip(priors)
        .map(|(file, &prior)| {
            let headless = file.header.is_none();
            Arc::new(Segment::new(file.path.clone(), file.name.clone(), prior, file.mark, headless, file.length))
        })
        .collect();
    for (older, younger) in segments.iter().zip(segments.iter().skip(1)) {
        older.set_limit(younger.prior);
    }
    segments
}

/// Counts what given-up segments hold beyond the bound their successor names.
fn count_void(
    found: &[Found],
    segments: &[Arc<Segment>],
    medium: &Arc<dyn Medium>,
    report: &mut Recovery,
) -> Result<(), Error> {
    for (given_up, successor) in segments.iter().zip(found.iter().skip(1)) {
        if successor.header.is_some_and(|header| !header.after_failure) {
            continue;
        }
        let mut scan = patient_scan(&given_up.path, given_up.mark, given_up.prior, medium)?;
        loop {
            match scan.next(given_up.length(), u64::MAX, given_up.limit().saturating_add(1))? {
                Step::Passed { .. } => {}
                Step::Record { .. } => report.void_records = report.void_records.saturating_add(1),
                Step::End { .. } => break,
            }
        }
        report.highest_seen = report.highest_seen.max(scan.highest());
    }
    Ok(())
}

/// Reads the newest segment whole, cuts a torn tail and confirms what may not be durable.
fn recover_newest(
    newest: &Arc<Segment>,
    medium: &Arc<dyn Medium>,
    frozen: bool,
    report: &mut Recovery,
) -> Result<Option<(Arc<Segment>, File)>, Error> {
    let length = newest.length();
    let mut scan = patient_scan(&newest.path, newest.mark, newest.prior, medium)?;
    let mut last = newest.prior;
    let mut end = scan.position();
    let mut damaged = newest.headless;
    // Until a record tells otherwise, not even the header and the name are known to be durable.
    let mut confirmed = 0;
    let mut doubtful = VecDeque::new();
    let torn = loop {
        match scan.next(length, u64::MAX, 0)? {
            Step::Record { header, lost, .. } => {
                if !lost.is_empty() {
                    damaged = true;
                    report.damages.push(lost.damage(&newest.name, last, Some(header.index)));
                }
                last = header.index;
                end = scan.position();
                while let Some((_, end)) = doubtful.pop_front_if(|(index, _)| *index <= header.published) {
                    confirmed = end;
                }
                doubtful.push_back((header.index, end));
            }
            Step::Passed { .. } => {}
            Step::End { lost } => break lost,
        }
    };
    report.published = last;
    report.highest_seen = report.highest_seen.max(scan.highest());

    if newest.headless && doubtful.is_empty() {
        // Nothing shows whether records were here: the damage is all there is to tell, and readers tell it as well.
        if let Some(header) = report.damages.last_mut().filter(|damage| damage.segment == newest.name) {
            header.bytes = length;
        }
        report.end_in_doubt = true;
        return Ok(None);
    }
    report.torn_bytes = report.torn_bytes.saturating_add(torn.bytes);
    report.end_in_doubt |= torn.bytes > 0;
    newest.set_length(end);
    newest.set_size(length);
    if damaged || scan.met_unreadable() {
        return Ok(None);
    }
    let cut = (end < length && !frozen).then_some(end);
    match confirm(newest, confirmed..end, cut, medium.as_ref()) {
        Ok(_) if frozen => Ok(None),
        Ok(file) => {
            newest.set_size(end);
            Ok(Some((Arc::clone(newest), file)))
        }
        Err(refused) => {
            report.distrusted = Some(refused.to_string());
            Ok(None)
        }
    }
}

/// Writes the doubtful bytes over themselves, cuts what is behind them if told to, and waits for the disk. There is always some: the
/// last group has no successor that names it.
fn confirm(newest: &Segment, bytes: Range<u64>, cut: Option<u64>, medium: &dyn Medium) -> Result<File, Error> {
    let path = &newest.path;
    let file = medium.open(path).map_err(Error::io(path, "open for writing"))?;
    let mut doubtful = vec![0; (bytes.end - bytes.start) as usize];
    let got = medium.read(&file, path, bytes.start, &mut doubtful).map_err(Error::io(path, "read"))?;
    doubtful.truncate(got);
    if let Some(end) = cut {
        medium.truncate(&file, path, end).map_err(Error::io(path, "cut the torn tail of"))?;
    }
    medium.write(&file, path, bytes.start, &doubtful).map_err(Error::io(path, "confirm the end of"))?;
    medium.sync(&file, path).map_err(Error::io(path, "sync"))?;
    let dir = path.parent().unwrap_or(path);
    medium.sync_directory(dir).map_err(Error::io(dir, "sync directory"))?;
    Ok(file)
}

fn patient_scan(path: &Path, mark: u64, last: u64, medium: &Arc<dyn Medium>) -> Result<Scan, Error> {
    let file = medium.open_to_read(path).map_err(Error::io(path, "open"))?;
    let begin = segment::HEADER as u64;
    Ok(Scan::new(Arc::clone(medium), file, path.to_path_buf(), mark, begin, last, true))
}
