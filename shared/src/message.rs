//! What master and satellite say to each other on the control stream, and its bytes. Batches go on streams of their own
//! (`delivery`). Frames assume an ordered byte stream and nothing else of QUIC.
//!
//! ```text
//! frame   = length u32 | payload, at most FRAME_BYTES_MAX          control payload = format u8 | item list (see `item`)
//! ```
//!
//! An unknown kind of item is skipped, so that N and N−1 talk; fields are only ever added, with new numbers. Which items the other side
//! knows is settled by hello and welcome: both say the newest [`PROTOCOL`] they speak, and the lower one holds. The format of the frame
//! is another matter and has never changed, so that those two words are understood whatever follows.

use minicbor::{Decode, Encode};

use crate::assignment::AssignedCheck;
use crate::command::Commanded;
pub use crate::frame::FRAME_BYTES_MAX;
use crate::frame::Lane;
use crate::item::{self, Items};
use crate::name::{
    CheckId, Generation, Grant, InstallationId, InstanceId, RunCounter, RunId, Sequence, Term, Timeline,
};
use crate::snapshot::StateTold;
use crate::time::Timestamp;

/// Format of a control payload.
pub const FORMAT: u8 = 1;
/// Newest protocol this program speaks: which items it knows. 1 has hello, heartbeats, assignments, acknowledgements and fences; 2 all
/// others.
pub const PROTOCOL: u8 = 2;
/// Oldest protocol this program still speaks.
pub const PROTOCOL_OLDEST: u8 = 1;
/// A control frame is closed when it has reached this many bytes; leaves room for one more item of any kind.
pub const CONTROL_BYTES: usize = 128 * 1024;
/// Most items a control frame may hold; more is refused.
pub const CONTROL_ITEMS_MAX: usize = 4096;

/// A run that a satellite still holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct HeldRun {
    /// The run.
    #[n(0)]
    pub run: RunId,
    /// Its place among the runs of the slot.
    #[n(1)]
    pub counter: RunCounter,
    /// First sequence still on the volume.
    #[n(2)]
    pub first: Sequence,
    /// Last sequence on the volume; 0 if none yet.
    #[n(3)]
    pub last: Sequence,
    /// Whether this process still adds to it.
    #[n(4)]
    pub open: bool,
}

/// A satellite's first words on a connection.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// Newest protocol it speaks.
    #[n(0)]
    pub protocol: u8,
    /// Its version, for people.
    #[n(1)]
    pub software: String,
    /// This process.
    #[n(2)]
    pub instance: InstanceId,
    /// Whether this process was told that another took its slot.
    #[n(3)]
    pub fenced: bool,
    /// Timeline of its assignment; `None` if it never had one.
    #[n(4)]
    pub timeline: Option<Timeline>,
    /// Highest grant it has seen.
    #[n(5)]
    pub grant: Grant,
    /// Highest generation it has seen.
    #[n(6)]
    pub generation: Generation,
    /// Highest check id it has seen.
    #[n(7)]
    pub check: CheckId,
    /// Runs it holds, its own and earlier processes'.
    #[n(8)]
    pub runs: Vec<HeldRun>,
    /// Its wall clock.
    #[n(9)]
    pub clock: Timestamp,
    /// Whether it tells its newest states once it knows what it owns. One that does not is believed to have nothing newer.
    #[n(10)]
    #[cbor(default)]
    pub tells_states: bool,
    /// Whether it sends batches only within the credit it is given; one of before credits was made does not.
    #[n(11)]
    #[cbor(default)]
    pub credit: bool,
}

/// The master's answer to [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Welcome {
    /// Protocol spoken from here on.
    #[n(0)]
    pub protocol: u8,
    /// The master's version, for people.
    #[n(1)]
    pub software: String,
    /// Whose master this is.
    #[n(2)]
    pub installation: InstallationId,
    /// Which leader.
    #[n(3)]
    pub term: Term,
    /// Timeline of the master's store.
    #[n(4)]
    pub timeline: Timeline,
    /// First check id given since the store was made or restored.
    #[n(5)]
    pub first_check: CheckId,
    /// Whether this process holds the slot now. If not it is fenced: it schedules nothing and drains.
    #[n(6)]
    pub holder: bool,
    /// The master's position in each run of [`Hello`] it has an opinion on.
    #[n(7)]
    pub positions: Vec<RunPosition>,
    /// The master's wall clock.
    #[n(8)]
    pub clock: Timestamp,
    /// Bytes that may be sent on the live lane at once, before any [`ToSatellite::Credit`]; `None` from a master that gives no
    /// credit, to which the satellite's own windows are the only bound.
    #[n(9)]
    pub credit: Option<u64>,
}

/// Bytes of one lane of batches; those of frames count without their length field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct LaneBytes {
    /// Live or backlog; control has no credit.
    #[n(0)]
    pub lane: Lane,
    /// How many, counted as each message says.
    #[n(1)]
    pub bytes: u64,
}

/// How far a run is durable on the master.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct RunPosition {
    /// The run.
    #[n(0)]
    pub run: RunId,
    /// Everything up to and including this had its effect and is on the master's disk.
    #[n(1)]
    pub position: Sequence,
}

/// A satellite's sign of life and what its operator should know; also one half of a clock sample.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Heartbeat {
    /// Its wall clock when this was sent.
    #[n(0)]
    pub clock: Timestamp,
    /// Results on its volume that the master has not acknowledged.
    #[n(1)]
    pub undelivered: u64,
    /// Bytes of its spool.
    #[n(2)]
    pub spool_bytes: u64,
    /// Checks it owns.
    #[n(3)]
    pub checks: u64,
    /// Checks that started later than planned by more than a second, since start.
    #[n(4)]
    pub late: u64,
    /// Results made since start.
    #[n(5)]
    pub results: u64,
    /// Whether the spool could not be written and results are in memory only.
    #[n(6)]
    pub memory_only: bool,
    /// What its wall clock lacks to the master's, in milliseconds, as it measured it; `None` before the first sample.
    #[n(7)]
    pub offset_ms: Option<i64>,
    /// How far the axis of its due times still is from the master's time, in milliseconds; 0 or `None` when it has arrived.
    #[n(8)]
    pub slew_ms: Option<i64>,
    /// Whether the oldest results go because the spool holds all it may.
    #[n(9)]
    #[cbor(default)]
    pub spool_full: bool,
    /// Results given up since start: each is named by a gap.
    #[n(10)]
    #[cbor(default)]
    pub given_up: u64,
    /// Bytes of its spool that were delivered and stay for their grace; `None` from who does not say.
    #[n(11)]
    pub kept_bytes: Option<u64>,
}

/// A satellite's wall clock was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct ClockStep {
    /// Counts the steps of this process, from 1; one that was told before has no second effect.
    #[n(0)]
    pub number: u64,
    /// By how much, in milliseconds; forward is positive.
    #[n(1)]
    pub by_ms: i64,
    /// When it was noticed, in the master's time as well as the satellite knows it.
    #[n(2)]
    pub at: Timestamp,
}

/// The answer to a heartbeat: the other half of a clock sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct ClockReply {
    /// `clock` of the heartbeat answered.
    #[n(0)]
    pub sent: Timestamp,
    /// The master's wall clock when it arrived.
    #[n(1)]
    pub master: Timestamp,
}

/// Opens a series of assignment items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct AssignmentBegin {
    /// What it leads to.
    #[n(0)]
    pub generation: Generation,
    /// Whether it replaces all, rather than changing what is there.
    #[n(1)]
    pub whole: bool,
}

/// From satellite to master.
#[derive(Debug, Clone, PartialEq)]
pub enum ToMaster {
    /// First words.
    Hello(Box<Hello>),
    /// Sign of life.
    Heartbeat(Heartbeat),
    /// The assignment of this generation is on disk and running.
    Applied(Generation),
    /// About one run, what hello says of it; for runs that changed or were found since.
    Held(HeldRun),
    /// A newest state of its own; whole frames of them (see `snapshot`), after each series of assignment items.
    State(Box<StateTold>),
    /// Every state that the series with this generation asked for was told.
    StatesEnd(Generation),
    /// Its wall clock was set. Said when it happens, and again after each welcome.
    ClockStep(ClockStep),
    /// Batches are at hand that end at this byte of the lane, counted from the beginning of the connection: credit up to there is
    /// asked for. A later one counts instead of an earlier one, and only more.
    Wanted(LaneBytes),
    /// So many bytes of the credit given will not be used: they count as sent.
    Returned(LaneBytes),
}

/// From master to satellite.
#[derive(Debug, Clone, PartialEq)]
pub enum ToSatellite {
    /// Answer to hello.
    Welcome(Box<Welcome>),
    /// A series of assignment items begins.
    AssignmentBegin(AssignmentBegin),
    /// One new or changed check.
    AssignmentUpsert(Box<AssignedCheck>),
    /// One check less.
    AssignmentRemove(CheckId),
    /// The series is complete: apply it as one.
    AssignmentEnd(Generation),
    /// Durable up to here.
    Ack(RunPosition),
    /// Another process has the slot now.
    Fence,
    /// Clock sample.
    ClockReply(ClockReply),
    /// A drained run is closed: nothing of it need be kept.
    CloseRun(RunId),
    /// One more frame of states is dealt with, and durable as far as it had an effect.
    StatesHeard,
    /// Batches may be sent up to this byte of the lane, counted from the beginning of the connection. Being a place and not a
    /// number of bytes, a repeated one does no harm.
    Credit(LaneBytes),
    /// Somebody asks something of a check that it owns; told again until a result or a state names it.
    Command(Box<Commanded>),
}

/// Why a control frame cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// No format byte, or another one.
    #[error("control frame of format {0:?}; this program reads {FORMAT}")]
    Format(Option<u8>),
    /// The list breaks off.
    #[error("control frame: {0}")]
    Broken(#[from] item::Broken),
    /// More items than allowed.
    #[error("control frame with more than {CONTROL_ITEMS_MAX} items")]
    Items,
    /// An item of a known kind does not decode.
    #[error("control item of kind {kind}: {reason}")]
    Item { kind: u16, reason: String },
}

/// A message with bytes.
pub trait Message: Sized {
    /// Appends this message to an item list.
    fn push(&self, list: &mut Vec<u8>);
    /// Reads one item; `Ok(None)` for a kind this program does not know.
    ///
    /// # Errors
    /// When an item of a known kind does not decode.
    fn read(kind: u16, bytes: &[u8]) -> Result<Option<Self>, minicbor::decode::Error>;
}

impl Message for ToMaster {
    fn push(&self, list: &mut Vec<u8>) {
        match self {
            Self::Hello(hello) => item::push(list, 1, hello),
            Self::Heartbeat(heartbeat) => item::push(list, 2, heartbeat),
            Self::Applied(generation) => item::push(list, 3, generation),
            Self::Held(held) => item::push(list, 4, held),
            Self::State(told) => item::push(list, 5, told),
            Self::StatesEnd(generation) => item::push(list, 6, generation),
            Self::ClockStep(step) => item::push(list, 9, step),
            Self::Wanted(wanted) => item::push(list, 7, wanted),
            Self::Returned(returned) => item::push(list, 8, returned),
        }
    }

    fn read(kind: u16, bytes: &[u8]) -> Result<Option<Self>, minicbor::decode::Error> {
        Ok(Some(match kind {
            1 => Self::Hello(minicbor::decode(bytes)?),
            2 => Self::Heartbeat(minicbor::decode(bytes)?),
            3 => Self::Applied(minicbor::decode(bytes)?),
            4 => Self::Held(minicbor::decode(bytes)?),
            5 => Self::State(minicbor::decode(bytes)?),
            6 => Self::StatesEnd(minicbor::decode(bytes)?),
            9 => Self::ClockStep(minicbor::decode(bytes)?),
            7 => Self::Wanted(minicbor::decode(bytes)?),
            8 => Self::Returned(minicbor::decode(bytes)?),
            _ => return Ok(None),
        }))
    }
}

impl Message for ToSatellite {
    fn push(&self, list: &mut Vec<u8>) {
        match self {
            Self::Welcome(welcome) => item::push(list, 101, welcome),
            Self::AssignmentBegin(begin) => item::push(list, 102, begin),
            Self::AssignmentUpsert(check) => item::push(list, 103, check),
            Self::AssignmentRemove(id) => item::push(list, 104, id),
            Self::AssignmentEnd(generation) => item::push(list, 105, generation),
            Self::Ack(position) => item::push(list, 106, position),
            Self::Fence => item::push(list, 107, &()),
            Self::ClockReply(reply) => item::push(list, 108, reply),
            Self::CloseRun(run) => item::push(list, 109, run),
            Self::StatesHeard => item::push(list, 110, &()),
            Self::Credit(credit) => item::push(list, 111, credit),
            Self::Command(command) => item::push(list, 112, command),
        }
    }

    fn read(kind: u16, bytes: &[u8]) -> Result<Option<Self>, minicbor::decode::Error> {
        Ok(Some(match kind {
            101 => Self::Welcome(minicbor::decode(bytes)?),
            102 => Self::AssignmentBegin(minicbor::decode(bytes)?),
            103 => Self::AssignmentUpsert(minicbor::decode(bytes)?),
            104 => Self::AssignmentRemove(minicbor::decode(bytes)?),
            105 => Self::AssignmentEnd(minicbor::decode(bytes)?),
            106 => Self::Ack(minicbor::decode(bytes)?),
            107 => Self::Fence,
            108 => Self::ClockReply(minicbor::decode(bytes)?),
            109 => Self::CloseRun(minicbor::decode(bytes)?),
            110 => Self::StatesHeard,
            111 => Self::Credit(minicbor::decode(bytes)?),
            112 => Self::Command(minicbor::decode(bytes)?),
            _ => return Ok(None),
        }))
    }
}

/// The protocol two sides speak of which the other's newest is `theirs`; `None`: they have none in common.
#[must_use]
pub fn common(theirs: u8) -> Option<u8> {
    Some(theirs.min(PROTOCOL)).filter(|protocol| *protocol >= PROTOCOL_OLDEST)
}

/// Messages as control payloads, in order, each payload below [`FRAME_BYTES_MAX`].
#[must_use]
pub fn encode<M: Message>(messages: &[M]) -> Vec<Vec<u8>> {
    let mut payloads = Vec::new();
    let mut list = vec![FORMAT];
    let mut items = 0;
    for message in messages {
        message.push(&mut list);
        items += 1;
        if list.len() >= CONTROL_BYTES || items >= CONTROL_ITEMS_MAX {
            payloads.push(std::mem::replace(&mut list, vec![FORMAT]));
            items = 0;
        }
    }
    if items > 0 {
        payloads.push(list);
    }
    payloads
}

/// The messages of one control payload. Unknown kinds are left out.
///
/// # Errors
/// When the payload is of another format, breaks off, holds too many items, or a known item does not decode.
pub fn decode<M: Message>(payload: &[u8]) -> Result<Vec<M>, MessageError> {
    let Some((&format, list)) = payload.split_first() else { return Err(MessageError::Format(None)) };
    if format != FORMAT {
        return Err(MessageError::Format(Some(format)));
    }
    let mut messages = Vec::new();
    for (count, item) in Items::new(list).enumerate() {
        if count >= CONTROL_ITEMS_MAX {
            return Err(MessageError::Items);
        }
        let (kind, bytes) = item?;
        match M::read(kind, bytes) {
            Ok(Some(message)) => messages.push(message),
            Ok(None) => {}
            Err(error) => return Err(MessageError::Item { kind, reason: error.to_string() }),
        }
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> ToMaster {
        ToMaster::Hello(Box::new(Hello {
            protocol: PROTOCOL,
            software: "0.1.0".into(),
            instance: InstanceId([1; 16]),
            fenced: false,
            timeline: Some(Timeline(5)),
            grant: Grant(9),
            generation: Generation(2),
            check: CheckId(40),
            runs: vec![HeldRun {
                run: RunId([2; 16]),
                counter: RunCounter(1),
                first: Sequence(1),
                last: Sequence(8),
                open: true,
            }],
            clock: Timestamp::from_millis(1_790_000_000_000),
            tells_states: true,
            credit: true,
        }))
    }

    /// As earlier programs write it: an array that ends sooner.
    #[test]
    fn a_hello_without_the_newest_fields_is_understood() {
        let ToMaster::Hello(mut expected) = hello() else { panic!("a hello") };
        let mut bytes = minicbor::to_vec(&*expected).unwrap();
        for (fields, without) in [(12, 1), (11, 2)] {
            assert_eq!((bytes[0], bytes.pop()), (0x80 + fields, Some(0xf5)), "so many fields, the last one true");
            bytes[0] -= 1;
            expected.credit = false;
            expected.tells_states = without < 2;
            assert_eq!(minicbor::decode::<Hello>(&bytes).unwrap(), *expected);
        }
    }

    #[test]
    fn messages_read_back() {
        let said = vec![
            hello(),
            ToMaster::Heartbeat(Heartbeat { undelivered: 3, ..Heartbeat::default() }),
            ToMaster::Applied(Generation(4)),
            ToMaster::Wanted(LaneBytes { lane: Lane::Backlog, bytes: 1 << 40 }),
            ToMaster::Returned(LaneBytes { lane: Lane::Live, bytes: 7 }),
        ];
        let payloads = encode(&said);
        assert_eq!(payloads.len(), 1);
        assert_eq!(decode::<ToMaster>(&payloads[0]).unwrap(), said);
    }

    #[test]
    fn long_series_are_cut_into_frames() {
        let said: Vec<ToSatellite> = (0..10_000).map(|id| ToSatellite::AssignmentRemove(CheckId(id))).collect();
        let payloads = encode(&said);
        assert!(payloads.len() > 1 && payloads.iter().all(|p| p.len() < FRAME_BYTES_MAX));
        let read: Vec<ToSatellite> = payloads.iter().flat_map(|p| decode(p).unwrap()).collect();
        assert_eq!(read, said);
    }

    #[test]
    fn the_lower_of_two_protocols_is_spoken() {
        let table = [
            (0, None),
            (1, Some(1)),
            (PROTOCOL, Some(PROTOCOL)),
            (PROTOCOL + 1, Some(PROTOCOL)),
            (255, Some(PROTOCOL)),
        ];
        for (theirs, spoken) in table {
            assert_eq!(common(theirs), spoken, "{theirs}");
        }
    }

    #[test]
    fn messages_of_the_other_direction_are_unknown() {
        let payloads = encode(&[ToSatellite::Fence]);
        assert_eq!(decode::<ToMaster>(&payloads[0]).unwrap(), []);
    }

    #[test]
    fn damaged_frames_never_panic() {
        let payload = encode(&[hello()]).remove(0);
        for at in 0..payload.len() {
            for bit in 0..8 {
                let mut damaged = payload.clone();
                damaged[at] ^= 1 << bit;
                let _ = decode::<ToMaster>(&damaged);
            }
            let _ = decode::<ToMaster>(&payload[..at]);
        }
        assert_eq!(decode::<ToMaster>(&[]), Err(MessageError::Format(None)));
        assert_eq!(decode::<ToMaster>(&[9]), Err(MessageError::Format(Some(9))));
    }
}
