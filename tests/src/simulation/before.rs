//! What a satellite of the version before says and understands. Modelled on the wire: items that protocol 1 does not have neither leave
//! it nor reach it, fields that it does not have are not there. The scheduler behind it is today's, which must get along without them.

use bytes::Bytes;
use shared::message::{self, Heartbeat, PROTOCOL_OLDEST, ToMaster, ToSatellite};

/// A control payload as the version before would have said it; `None` if it would have said nothing.
#[must_use]
pub(super) fn said(payload: &[u8]) -> Option<Bytes> {
    let messages: Vec<ToMaster> = message::decode(payload).unwrap_or_default().into_iter().filter_map(spoken).collect();
    message::encode(&messages).pop().map(Bytes::from)
}

fn spoken(message: ToMaster) -> Option<ToMaster> {
    match message {
        ToMaster::Hello(mut hello) => {
            hello.protocol = PROTOCOL_OLDEST;
            hello.tells_states = false;
            hello.credit = false;
            Some(ToMaster::Hello(hello))
        }
        ToMaster::Heartbeat(heartbeat) => {
            let Heartbeat { clock, undelivered, spool_bytes, checks, late, results, memory_only, .. } = heartbeat;
            let known = Heartbeat {
                clock,
                undelivered,
                spool_bytes,
                checks,
                late,
                results,
                memory_only,
                ..Heartbeat::default()
            };
            Some(ToMaster::Heartbeat(known))
        }
        ToMaster::Applied(_) | ToMaster::Held(_) => Some(message),
        _ => None,
    }
}

/// Whether the version before knows such an item.
#[must_use]
pub(super) fn understood(message: &ToSatellite) -> bool {
    matches!(
        message,
        ToSatellite::Welcome(_)
            | ToSatellite::AssignmentBegin(_)
            | ToSatellite::AssignmentUpsert(_)
            | ToSatellite::AssignmentRemove(_)
            | ToSatellite::AssignmentEnd(_)
            | ToSatellite::Ack(_)
            | ToSatellite::Fence
            | ToSatellite::ClockReply(_)
            | ToSatellite::CloseRun(_)
    )
}
