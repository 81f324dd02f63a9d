//! A segmented append-only log: the one durable primitive of Perigee. A satellite's spool is one log per run, the
//! master's journal is another. Synchronous, one writer and any number of readers; it starts no thread, reads no clock,
//! and does not know what its payloads mean. This page is the specification of the format.
//!
//! # On disk
//!
//! A log is a directory with a file `lock` (empty, held with `flock` by the writer) and segments. All numbers are
//! little-endian, all checksums CRC-32C (Castagnoli), reserved bytes are zero.
//!
//! ```text
//! 00000000000000000101-00000003deadbeef.seg        first index (20 decimal digits) - mark (16 hexadecimal digits)
//!
//! segment   0      8     10      11      12    16      24      32     40      48         60      64
//!           ├──────┼──────┼───────┼───────┼─────┼───────┼───────┼──────┼───────┼──────────┼───────┼────────┬──
//!           │magic │ver-  │after  │reser- │tag  │first  │prior  │mark  │owner  │reserved  │CRC of │record  │…
//!           │8     │sion 2│fail. 1│ved 1  │4    │index 8│8      │8     │8      │12        │0..60 4│        │
//!           └──────┴──────┴───────┴───────┴─────┴───────┴───────┴──────┴───────┴──────────┴───────┴────────┴──
//!
//! record    0      8       16        24      28        32      33        36      40
//!           ├──────┼───────┼─────────┼───────┼─────────┼───────┼─────────┼───────┼──────────────────┤
//!           │mark  │index  │published│length │CRC of   │version│reserved │CRC of │payload           │
//!           │8     │8      │8        │4      │payload 4│1      │3        │head 4 │`length` bytes    │
//!           └──────┴───────┴─────────┴───────┴─────────┴───────┴─────────┴───────┴──────────────────┘
//! ```
//!
//! - *magic* is `89 53 45 47 4c 4f 47 0a`. Segment *version* and record *version* are 1. The segment header keeps
//!   this shape in every version, so that any version can refuse any other by name.
//! - *tag* says what kind of log this is, *owner* which one of them: a segment of another log of the kind that came here by
//!   a copy is left alone and named. *first* is the index of the record the segment was made for.
//! - *prior* is the last index published before the segment was made. **What an older segment holds beyond it is void.**
//!   *after failure* is 1 if the predecessor was given up and may hold such records.
//! - *mark* names the segment: the high half counts the segments of this log, the low half is random (where the log has an owner,
//!   the upper half of that is the owner's). It orders the
//!   segments (names are for people: after a failure a younger segment may begin at an older index), and it stands in
//!   every record, so that a record is believed only in its own segment: not in a stale block of another file, and not in
//!   a payload that was made to look like one. It is also what resynchronisation looks for.
//! - *CRC of head* covers bytes 0..36 and then the record's offset in its file as 8 bytes, so that a record is believed
//!   only where it was written: not in a page that a disk repeated.
//! - *published* in a record is the last index that was durable when the record was appended.
//! - Records follow each other without padding. Indexes rise and may jump; 0 is no index.
//!
//! # Invariants
//!
//! 1. Published is durable: an index is published only after `fdatasync` of its bytes returned success, and a segment is
//!    written to only after its header and its name were synced.
//! 2. A group (the records between two syncs) is one write into one segment. A group over 8 MiB or over a segment is
//!    several.
//! 3. After a failed write or sync a file is never written again, and what it holds beyond the published index is void as
//!    soon as there is a successor, which is made by the next group. Void records are never returned.
//! 4. A reader returns published records only, in order, each at most once, and for every stretch it cannot read
//!    one [`Damage`] with the good records on both sides.
//! 5. Only files this crate made are removed, only when all they hold is at or below the index trimmed to (or void), and
//!    never the newest.
//! 6. No length from disk is trusted: it must lie within its file and below a valid checksum before memory is taken.
//!    Scanning a damaged segment costs time linear in its length.
//!
//! # Recovery
//!
//! Opening reads the headers of all segments and the body of the newest one. What is unfinished at the end of the newest
//! one is cut. The records behind the last *published* named in it may be in the page cache only (after a failed
//! write-back Linux marks the pages clean), so they are written over themselves and synced before they count, with the
//! header if it is in the same doubt. A newest
//! segment that is damaged, or cannot be cut or confirmed, is left as it is and followed by a new one. Without a successor
//! the group that failed last cannot be told from one that was never reported: it comes back if it is whole on disk.
//!
//! Nor can an unfinished write at the end be told from durable records that were damaged later: `Recovery::end_in_doubt` says
//! that something stood there. A log that is only read from here on (`Options::frozen`) is not cut, so that the next
//! opening finds the same doubt.
//!
//! A torn group leaves at most its beginning. Should a file system persist a later page of it and not an earlier one,
//! the records behind the hole are kept and the hole is reported as damage: a false gap is safe, a silent one is not.

mod bounds;
mod error;
#[cfg(test)]
mod failures;
#[cfg(test)]
mod faults;
mod log;
mod medium;
mod reader;
mod record;
mod recovery;
mod scan;
mod segment;

pub use bounds::Bounds;
pub use error::Error;
pub use log::{DEFAULT_RECORD_BYTES, Extent, Log, MAX_SEGMENT_BYTES, Options};
pub use medium::{Disk, Medium};
pub use reader::{Item, Reader};
pub use recovery::{Damage, Recovery};
