//! At-least-once both ways, with one effect: runs, positions, keys, and the batch that is spool record, frame and journal row at
//! once. Decides what of a batch is new; knows neither what a result means nor where bytes are kept.
//!
//! ```text
//! batch = format u8 | header length u16 | header (CBOR array) | body (zstd of an item list)
//! item kinds: 1 result (one sequence), 2 gap record (its first..=last)
//! ```
//!
//! The header is never compressed: a position can be moved, and a foreign timeline told, without inflating anything.

pub mod reason;

use minicbor::{Decode, Encode};

use crate::item::{self, Items};
use crate::name::{CheckId, Generation, Grant, JournalIndex, RunCounter, RunId, Sequence, Timeline};
use crate::result::CheckResult;
use crate::time::Timestamp;

/// Version of the batch format. Every version ever shipped is decoded for ever.
pub const BATCH_FORMAT: u8 = 1;
/// A batch is closed at this many results.
pub const BATCH_RESULTS_MAX: usize = 512;
/// A batch is closed when its item list has reached this many bytes.
pub const BATCH_BYTES: usize = 64 * 1024;
/// A body that inflates to more is refused: one largest result beyond a full batch fits three times.
pub const BATCH_INFLATED_MAX: usize = 1024 * 1024;
/// Undelivered runs of one process; at this many it goes on in the last one instead of opening another.
pub const RUNS_UNDELIVERED_MAX: usize = 64;

const ITEM_RESULT: u16 = 1;
const ITEM_GAP: u16 = 2;
/// Number of the field of a result that names a command.
const COMMAND_FIELD: u64 = 13;
/// Fast enough not to matter beside a check, and a third of the bytes (measured; facts in docs/decisions).
const ZSTD_LEVEL: i32 = 1;

/// Orders all that is known about one check, greatest newest. No clock does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
pub struct Key {
    /// Under which grant.
    #[n(0)]
    pub grant: Grant,
    /// In which run of the slot; 0 for the master's own results.
    #[n(1)]
    pub counter: RunCounter,
    /// Where in the run; for the master's own results the journal index.
    #[n(2)]
    pub sequence: Sequence,
}

/// What a batch says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct BatchHeader {
    /// Timeline of the store whose grants the results carry.
    #[n(0)]
    pub timeline: Timeline,
    /// Generation the results were run under.
    #[n(1)]
    pub generation: Generation,
    /// The run.
    #[n(2)]
    pub run: RunId,
    /// Its place among the runs of the slot.
    #[n(3)]
    pub counter: RunCounter,
    /// First sequence covered.
    #[n(4)]
    pub first: Sequence,
    /// Last sequence covered, inclusive.
    #[n(5)]
    pub last: Sequence,
}

/// Results that are gone for good, and why: occupies their sequences.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct GapRecord {
    /// First lost sequence.
    #[n(0)]
    pub first: Sequence,
    /// Last lost sequence, inclusive.
    #[n(1)]
    pub last: Sequence,
    /// Stable name of the reason: one of [`reason`], or what a later version calls its own.
    #[n(2)]
    pub reason: String,
    /// Earliest time of a lost result, if known.
    #[n(3)]
    pub from: Option<Timestamp>,
    /// Latest time of a lost result, if known.
    #[n(4)]
    pub to: Option<Timestamp>,
}

impl GapRecord {
    /// How many results are gone; `None` where nobody knows.
    #[must_use]
    pub fn lost(&self) -> Option<u64> {
        (!reason::is_open_ended(&self.reason)).then(|| self.last.0.saturating_sub(self.first.0).saturating_add(1))
    }

    /// The part of it above `position`; `None` if there is none.
    #[must_use]
    pub fn above(&self, position: Sequence) -> Option<GapRecord> {
        let first = self.first.max(Sequence(position.0.saturating_add(1)));
        (first <= self.last).then(|| GapRecord { first, ..self.clone() })
    }
}

/// One item of a batch with the sequence it has.
#[derive(Debug, Clone, PartialEq)]
pub enum BatchItem {
    /// A result.
    Result(Sequence, Box<CheckResult>),
    /// Results that are gone.
    Gap(GapRecord),
    /// One item this program cannot read: it keeps its sequence and costs nobody else theirs.
    Unreadable(Sequence),
}

/// Why bytes are no batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than a batch has, or a header that does not decode.
    #[error("not a batch: {0}")]
    Malformed(String),
    /// Written by a later version.
    #[error("batch format {0} is newer than this program reads (up to {BATCH_FORMAT}); update this side")]
    Newer(u8),
    /// The body inflates to more than allowed, or not at all.
    #[error("batch body: {0}")]
    Body(String),
    /// Sequences and items do not agree.
    #[error("batch covers sequences {first}..={last} but its items end at {end}")]
    Sequences { first: Sequence, last: Sequence, end: u64 },
}

/// Gathers results into one batch.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    list: Vec<u8>,
    results: usize,
}

impl BatchBuilder {
    /// Adds a result; it takes the next sequence.
    pub fn push(&mut self, result: &CheckResult) {
        item::push(&mut self.list, ITEM_RESULT, result);
        self.results += 1;
    }

    /// Adds a gap record; it takes the sequences it names, which must be the next ones.
    pub fn push_gap(&mut self, gap: &GapRecord) {
        item::push(&mut self.list, ITEM_GAP, gap);
        self.results += 1;
    }

    /// Whether this batch has reached one of its bounds.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.results >= BATCH_RESULTS_MAX || self.list.len() >= BATCH_BYTES
    }

    /// Whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.results == 0
    }

    /// Results and gap records so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.results
    }

    /// The batch as bytes; the builder is empty again.
    pub fn finish(&mut self, header: &BatchHeader) -> Vec<u8> {
        self.results = 0;
        let list = std::mem::take(&mut self.list);
        let mut bytes = vec![BATCH_FORMAT, 0, 0];
        let _ = minicbor::encode(header, &mut bytes);
        let length = u16::try_from(bytes.len() - 3).unwrap_or(u16::MAX);
        if let Some(place) = bytes.get_mut(1..3) {
            place.copy_from_slice(&length.to_be_bytes());
        }
        // Compressing memory into memory has no way to fail but a bound we do not set; stored blocks are the fallback zstd itself has.
        let body = zstd::bulk::compress(&list, ZSTD_LEVEL).unwrap_or_default();
        bytes.extend_from_slice(&body);
        bytes
    }
}

/// Reads the header alone.
///
/// # Errors
/// When the bytes are no batch or one of a later format.
pub fn decode_header(bytes: &[u8]) -> Result<(BatchHeader, &[u8]), BatchError> {
    let short = || BatchError::Malformed("too short".to_owned());
    let (&format, rest) = bytes.split_first().ok_or_else(short)?;
    if format != BATCH_FORMAT {
        return Err(if format > BATCH_FORMAT {
            BatchError::Newer(format)
        } else {
            BatchError::Malformed(format!("format {format}"))
        });
    }
    let (length, rest) = rest.split_first_chunk::<2>().ok_or_else(short)?;
    let (header, body) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or_else(short)?;
    let header: BatchHeader = minicbor::decode(header).map_err(|error| BatchError::Malformed(error.to_string()))?;
    if header.first.0 == 0 || header.last < header.first {
        return Err(BatchError::Malformed(format!("sequences {}..={}", header.first, header.last)));
    }
    Ok((header, body))
}

/// Reads the items of a batch whose header is known, in order, each with its sequence.
///
/// # Errors
/// When the body does not inflate within [`BATCH_INFLATED_MAX`], holds more than [`BATCH_RESULTS_MAX`] items, or its items do not
/// cover exactly the sequences of the header.
pub fn decode_items(header: &BatchHeader, body: &[u8]) -> Result<Vec<BatchItem>, BatchError> {
    decode_chosen(header, body, |_, _| true)
}

/// The results of a batch that `wanted` asks for by check, key, and the command that they answer, in order; the others are passed over
/// without being decoded, which costs a fraction.
///
/// # Errors
/// As [`decode_items`], whether they concern a wanted result or not.
pub fn decode_wanted(
    header: &BatchHeader,
    body: &[u8],
    mut wanted: impl FnMut(CheckId, Key, Option<JournalIndex>) -> bool,
) -> Result<Vec<(Sequence, Box<CheckResult>)>, BatchError> {
    let items = decode_chosen(header, body, |sequence, bytes| {
        // What a result begins with; one that does not even tell so much does not decode at all.
        let mut decoder = minicbor::Decoder::new(bytes);
        let begins =
            decoder.array().and_then(|fields| Ok((fields, decoder.decode::<CheckId>()?, decoder.decode::<Grant>()?)));
        begins.is_ok_and(|(fields, check, grant)| {
            let command = command_behind(&mut decoder, fields.unwrap_or_default());
            wanted(check, Key { grant, counter: header.counter, sequence }, command)
        })
    })?;
    let results = items.into_iter().filter_map(|item| match item {
        BatchItem::Result(sequence, result) => Some((sequence, result)),
        BatchItem::Gap(_) | BatchItem::Unreadable(_) => None,
    });
    Ok(results.collect())
}

/// The command that a result of so many fields answers; the first two of them are read already.
fn command_behind(decoder: &mut minicbor::Decoder<'_>, fields: u64) -> Option<JournalIndex> {
    if fields <= COMMAND_FIELD {
        return None;
    }
    (2..COMMAND_FIELD).try_for_each(|_| decoder.skip()).ok()?;
    decoder.decode().ok()?
}

/// The items of a batch, of its results only those that are chosen by sequence and bytes.
fn decode_chosen(
    header: &BatchHeader,
    body: &[u8],
    mut chosen: impl FnMut(Sequence, &[u8]) -> bool,
) -> Result<Vec<BatchItem>, BatchError> {
    let list = zstd::bulk::decompress(body, BATCH_INFLATED_MAX).map_err(|error| BatchError::Body(error.to_string()))?;
    let mut items = Vec::new();
    let mut next = header.first.0;
    for (number, item) in Items::new(&list).enumerate() {
        let (kind, bytes) = item.map_err(|error| BatchError::Body(error.to_string()))?;
        if number >= BATCH_RESULTS_MAX {
            return Err(BatchError::Body(format!("more than {BATCH_RESULTS_MAX} items")));
        }
        let sequence = Sequence(next);
        let item = match kind {
            ITEM_RESULT if !chosen(sequence, bytes) => {
                next = next.saturating_add(1);
                continue;
            }
            ITEM_RESULT => minicbor::decode::<CheckResult>(bytes)
                .map_or(BatchItem::Unreadable(sequence), |r| BatchItem::Result(sequence, Box::new(r))),
            ITEM_GAP => match minicbor::decode::<GapRecord>(bytes) {
                Ok(gap) if gap.first == sequence && gap.last >= gap.first && gap.last <= header.last => {
                    BatchItem::Gap(gap)
                }
                Ok(_) => return Err(BatchError::Body("a gap record does not begin at its place".to_owned())),
                Err(error) => return Err(BatchError::Body(format!("a gap record does not decode: {error}"))),
            },
            _ => BatchItem::Unreadable(sequence),
        };
        next = match &item {
            BatchItem::Gap(gap) => gap.last.0.saturating_add(1),
            BatchItem::Result(..) | BatchItem::Unreadable(_) => next.saturating_add(1),
        };
        items.push(item);
    }
    if next != header.last.0.saturating_add(1) {
        return Err(BatchError::Sequences { first: header.first, last: header.last, end: next.saturating_sub(1) });
    }
    Ok(items)
}

/// What a cumulative position says to a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// All of it had its effect before: acknowledge, do nothing.
    Known,
    /// Sequences above `after` are new; `missing` names a hole before the batch, which becomes a gap, never a stall.
    New { after: Sequence, missing: Option<(Sequence, Sequence)> },
}

/// Log effect has one cumulative position per run: decides what of `first..=last` is new.
#[must_use]
pub fn admit(position: Sequence, first: Sequence, last: Sequence) -> Admission {
    if last <= position {
        return Admission::Known;
    }
    let next = Sequence(position.0.saturating_add(1));
    let missing = (first > next).then(|| (next, Sequence(first.0 - 1)));
    Admission::New { after: position, missing }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Exit, State};
    use crate::state::CheckState;

    pub(crate) fn result(check: u32, output: &str) -> CheckResult {
        CheckResult {
            check: CheckId(check),
            grant: Grant(7),
            scheduled: Timestamp::from_millis(1_790_000_000_000),
            started: Timestamp::from_millis(1_790_000_000_010),
            duration_us: 1500,
            exit: Some(Exit::Ran(0)),
            passive: false,
            output: output.to_owned(),
            long_output: String::new(),
            perfdata: String::new(),
            metrics: Vec::new(),
            authenticated: Some(false),
            after: CheckState { state: State::Ok, ..CheckState::pending(3) },
            command: None,
            offset_ms: Some(-3),
        }
    }

    fn header(first: u64, last: u64) -> BatchHeader {
        BatchHeader {
            timeline: Timeline(0x0102_0304_0506_0708),
            generation: Generation(3),
            run: RunId([9; 16]),
            counter: RunCounter(2),
            first: Sequence(first),
            last: Sequence(last),
        }
    }

    #[test]
    fn batches_read_back() {
        let mut builder = BatchBuilder::default();
        builder.push(&result(1, "OK - one"));
        builder.push_gap(&GapRecord {
            first: Sequence(11),
            last: Sequence(20),
            reason: "spool-full".into(),
            from: None,
            to: None,
        });
        builder.push(&result(2, "OK - two"));
        let bytes = builder.finish(&header(10, 21));
        let (read, body) = decode_header(&bytes).unwrap();
        assert_eq!(read, header(10, 21));
        let items = decode_items(&read, body).unwrap();
        assert_eq!(items[0], BatchItem::Result(Sequence(10), Box::new(result(1, "OK - one"))));
        assert!(matches!(&items[1], BatchItem::Gap(gap) if gap.last == Sequence(20)));
        assert_eq!(items[2], BatchItem::Result(Sequence(21), Box::new(result(2, "OK - two"))));
    }

    #[test]
    fn results_are_taken_by_check_and_key_and_the_others_keep_their_sequences() {
        let mut list = Vec::new();
        for check in [1, 2, 1] {
            item::push(&mut list, ITEM_RESULT, &result(check, "OK"));
        }
        item::push(&mut list, ITEM_RESULT, &"no result");
        item::push(&mut list, ITEM_RESULT, &CheckResult { command: Some(JournalIndex(70)), ..result(1, "OK") });
        let body = zstd::bulk::compress(&list, 1).unwrap();
        let mut asked = Vec::new();
        let wanted = decode_wanted(&header(10, 14), &body, |check, key, command| {
            asked.push((check.0, key.sequence.0, command.map(|index| index.0)));
            assert_eq!((key.grant, key.counter), (result(1, "").grant, header(10, 14).counter));
            check == CheckId(1) && key.sequence > Sequence(10)
        });
        let sequences: Vec<u64> = wanted.unwrap().iter().map(|(sequence, _)| sequence.0).collect();
        assert_eq!(sequences, [12, 14]);
        assert_eq!(asked, [(1, 10, None), (2, 11, None), (1, 12, None), (1, 14, Some(70))]);
        assert!(decode_wanted(&header(10, 15), &body, |_, _, _| false).is_err(), "a result is missing");
    }

    #[test]
    fn an_item_of_an_unknown_kind_keeps_its_sequence() {
        let mut list = Vec::new();
        item::push(&mut list, ITEM_RESULT, &result(1, "a"));
        item::push(&mut list, 77, &"from the future");
        item::push(&mut list, ITEM_RESULT, &result(2, "b"));
        let body = zstd::bulk::compress(&list, 1).unwrap();
        let items = decode_items(&header(1, 3), &body).unwrap();
        assert!(matches!(items[1], BatchItem::Unreadable(Sequence(2))));
        assert!(matches!(items[2], BatchItem::Result(Sequence(3), _)));
    }

    #[test]
    fn sequences_that_do_not_add_up_are_refused() {
        let mut builder = BatchBuilder::default();
        builder.push(&result(1, "a"));
        let bytes = builder.finish(&header(1, 2));
        let (read, body) = decode_header(&bytes).unwrap();
        assert!(matches!(decode_items(&read, body), Err(BatchError::Sequences { .. })));
    }

    #[test]
    fn a_body_that_inflates_beyond_its_bound_is_refused() {
        let body = zstd::bulk::compress(&vec![0; BATCH_INFLATED_MAX + 1], 1).unwrap();
        assert!(body.len() < 1000);
        assert!(matches!(decode_items(&header(1, 1), &body), Err(BatchError::Body(_))));
    }

    #[test]
    fn damaged_batches_never_panic() {
        let mut builder = BatchBuilder::default();
        builder.push(&result(1, "OK - one"));
        let bytes = builder.finish(&header(1, 1));
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                if let Ok((read, body)) = decode_header(&damaged) {
                    let _ = decode_items(&read, body);
                }
            }
            let _ = decode_header(&bytes[..at]);
        }
    }

    #[test]
    fn positions_admit_each_sequence_once() {
        let seq = Sequence;
        assert_eq!(admit(seq(10), seq(5), seq(10)), Admission::Known);
        assert_eq!(admit(seq(10), seq(11), seq(12)), Admission::New { after: seq(10), missing: None });
        assert_eq!(admit(seq(10), seq(8), seq(12)), Admission::New { after: seq(10), missing: None });
        assert_eq!(
            admit(seq(10), seq(15), seq(16)),
            Admission::New { after: seq(10), missing: Some((seq(11), seq(14))) }
        );
        assert_eq!(admit(seq(0), seq(1), seq(1)), Admission::New { after: seq(0), missing: None });
    }

    #[test]
    fn keys_order_by_grant_then_run_then_sequence() {
        let key = |grant, counter, sequence| Key {
            grant: Grant(grant),
            counter: RunCounter(counter),
            sequence: Sequence(sequence),
        };
        let mut keys = [key(2, 0, 0), key(1, 9, 9), key(1, 2, 1), key(1, 1, 7)];
        keys.sort();
        assert_eq!(keys, [key(1, 1, 7), key(1, 2, 1), key(1, 9, 9), key(2, 0, 0)]);
    }
}
