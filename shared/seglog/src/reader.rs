//! Reads a log in order, in any thread, while it is written: sees what is published and nothing else.
//! Holds its own file handle, so that trimming never pulls a segment away under it. Does not wait: `None` means
//! caught up for the moment, and the caller decides when to ask again.
//! The surprise: all damage between two good records is one [`Damage`], even across segments.

use crate::bounds::Bounds;
use crate::scan::{Scan, Step, Stretch};
use crate::segment::{self, Segment};
use crate::{Damage, Error};
use std::io;
use std::sync::Arc;

/// What a reader comes upon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// An intact published record.
    Record {
        /// Its index.
        index: u64,
        /// Its payload, checksum verified.
        payload: Vec<u8>,
    },
    /// Something published here can no longer be read.
    Damage(Damage),
}

/// A position in a log.
#[derive(Debug)]
pub struct Reader {
    bounds: Arc<Bounds>,
    from: u64,
    /// Index of the last good record passed.
    last: u64,
    place: Option<Place>,
    damage: Option<Damage>,
    held: Option<Item>,
    patient: bool,
}

#[derive(Debug)]
struct Place {
    segment: Arc<Segment>,
    scan: Scan,
}

impl Reader {
    /// A reader whose first record is the first one with an index of at least `from`; 0 means from whatever is held.
    /// `from` may lie in the future. [`Error::Trimmed`] if records from there on are gone.
    pub fn open(bounds: &Arc<Bounds>, from: u64) -> Result<Reader, Error> {
        let mut reader =
            Reader { bounds: Arc::clone(bounds), from, last: 0, place: None, damage: None, held: None, patient: false };
        reader.begin()?;
        Ok(reader)
    }

    /// From now on a stretch of a file that the disk refuses to read is damage, passed over in pages of 4 KiB, instead
    /// of [`Error::Io`]. Meant for the caller whose repeated attempts failed.
    pub fn pass_over_unreadable(&mut self) {
        self.patient = true;
        if let Some(place) = &mut self.place {
            place.scan.be_patient();
        }
    }

    /// The next item; `None` when all that is published has been read. After an error the position is unchanged.
    /// Damage at the end of what is published is given once, with `before: None`, and reading goes on behind it.
    #[expect(
        clippy::should_implement_trait,
        reason = "not an iterator: None is not the end, and errors can be retried"
    )]
    pub fn next(&mut self) -> Result<Option<Item>, Error> {
        if let Some(item) = self.held.take() {
            return Ok(Some(item));
        }
        self.begin()?;
        while let Some(place) = &mut self.place {
            let successor = self.bounds.after(place.segment.mark);
            // Asked after the successor: once there is one, both are final.
            let limit = if successor.is_some() { place.segment.limit() } else { u64::MAX };
            let end = place.segment.length();
            while self.last < limit {
                match place.scan.next(end, limit, self.from)? {
                    Step::Passed { index } => {
                        self.last = index;
                        self.damage = None;
                    }
                    Step::Record { header, payload, lost } => {
                        note(&mut self.damage, &place.segment, lost, self.last);
                        self.last = header.index;
                        let record = Item::Record { index: header.index, payload };
                        // Damage wholly before the first index asked for is of no interest.
                        let damage = self.damage.take().filter(|_| header.index > self.from);
                        return Ok(Some(match damage {
                            Some(damage) => {
                                self.held = Some(record);
                                Item::Damage(Damage { before: Some(header.index), ..damage })
                            }
                            None => record,
                        }));
                    }
                    Step::End { lost } => {
                        note(&mut self.damage, &place.segment, lost, self.last);
                        break;
                    }
                }
            }
            match successor {
                Some(successor) => self.advance(successor, limit)?,
                None => return Ok(self.damage.take().map(Item::Damage)),
            }
        }
        Ok(None)
    }

    /// Finds the segment to begin with, as soon as there is one.
    fn begin(&mut self) -> Result<(), Error> {
        if self.place.is_some() {
            return Ok(());
        }
        let chosen = {
            let segments = self.bounds.segments();
            let first = segments.first().map_or(1, |oldest| oldest.prior.saturating_add(1));
            if self.from != 0 && self.from < first {
                return Err(Error::Trimmed { first });
            }
            segments.iter().rev().find(|segment| segment.prior < self.from).or(segments.first()).cloned()
        };
        if let Some(segment) = chosen {
            self.last = segment.prior;
            self.enter(segment)?;
        }
        Ok(())
    }

    /// Leaves the segment in which all up to `limit` was read, for the one behind it.
    fn advance(&mut self, successor: Arc<Segment>, limit: u64) -> Result<(), Error> {
        let Some(place) = &self.place else { return Ok(()) };
        if successor.prior > limit {
            // Segments between the two were trimmed while the older one was read.
            return Err(Error::Trimmed { first: self.bounds.first() });
        }
        if limit < self.from {
            self.damage = None;
        } else if self.last < limit {
            let end = Stretch { offset: place.scan.position(), bytes: 0 };
            merge(&mut self.damage, end.damage(&place.segment.name, self.last, None));
        }
        self.enter(successor)?;
        self.last = self.last.max(limit);
        Ok(())
    }

    fn enter(&mut self, segment: Arc<Segment>) -> Result<(), Error> {
        let begin = segment.length().min(segment::HEADER as u64);
        let file = match self.bounds.medium.open_to_read(&segment.path) {
            Ok(file) => file,
            Err(refused) => {
                let listed = self.bounds.segments().iter().any(|other| other.mark == segment.mark);
                return Err(if refused.kind() == io::ErrorKind::NotFound && !listed {
                    Error::Trimmed { first: self.bounds.first() }
                } else {
                    Error::io(&segment.path, "open")(refused)
                });
            }
        };
        let last = self.last.max(segment.prior);
        let medium = Arc::clone(&self.bounds.medium);
        let scan = Scan::new(medium, file, segment.path.clone(), segment.mark, begin, last, self.patient);
        if segment.headless && segment.limit() > last {
            note(&mut self.damage, &segment, Stretch { offset: 0, bytes: begin }, self.last);
        }
        self.place = Some(Place { segment, scan });
        Ok(())
    }
}

fn note(damage: &mut Option<Damage>, segment: &Segment, lost: Stretch, after: u64) {
    if !lost.is_empty() {
        merge(damage, lost.damage(&segment.name, after, None));
    }
}

/// The earlier damage keeps its place and its `after`; the bytes add up.
fn merge(damage: &mut Option<Damage>, more: Damage) {
    match damage {
        Some(damage) => damage.bytes = damage.bytes.saturating_add(more.bytes),
        None => *damage = Some(more),
    }
}
