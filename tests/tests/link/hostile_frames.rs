//! Peers with a good certificate and bad manners: what they send is bounded, refused and counted, and holds up nobody else.

use std::time::Duration;

use bytes::Bytes;
use master::link::{CONTROL_QUEUE_BYTES, CloseReason, ConnectionId, Lane, LinkEvent};
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream};
use shared::frame::frame_head;
use shared::message::{self, FRAME_BYTES_MAX, ToMaster};
use shared::refusal::Refusal;
use time::Duration as Days;

use crate::forge::{Forge, lives};
use crate::listen::{Log, Master, client, client_tls, counted_alone, dial, good_peer, in_time, until};

/// A raw peer, let in and greeted by the master's loop.
struct Peer {
    connection: Connection,
    control: SendStream,
    reading: RecvStream,
    id: ConnectionId,
    _client: Endpoint,
}

async fn frame(stream: &mut SendStream, payload: &[u8]) {
    stream.write_all(&frame_head(payload).unwrap()).await.unwrap();
    stream.write_all(payload).await.unwrap();
}

async fn let_in(forge: &Forge, master: &mut Master) -> Peer {
    let client = client();
    let connection = good_peer(&client, forge, master).await;
    let (mut control, reading) = connection.open_bi().await.unwrap();
    frame(&mut control, b"hello").await;
    let LinkEvent::Connected { connection: id, session, .. } = master.next().await else { panic!("not connected") };
    assert_eq!((session.region().as_str(), session.slot().get()), ("eu", 1));
    let LinkEvent::Frame { connection: from, lane: Lane::Control, bytes, .. } = master.next().await else { panic!() };
    assert_eq!((from, bytes.as_ref()), (id, &b"hello"[..]));
    Peer { connection, control, reading, id, _client: client }
}

/// The connection is closed with this kind, counted, logged, and the loop hears that it is over.
async fn thrown_out(mut master: Master, peer: Peer, log: &Log, expected: Refusal) {
    let ConnectionError::ApplicationClosed(close) = in_time("the end", peer.connection.closed()).await else {
        panic!()
    };
    assert_eq!(close.reason.as_ref(), expected.kind().as_bytes());
    let LinkEvent::Disconnected { connection, reason } = master.next().await else { panic!("another event") };
    assert_eq!((connection, reason), (peer.id, format!("refused: {expected}")));
    counted_alone(master.links.refusals(), expected).await;
    assert_eq!(log.lines_of(expected), 1);
}

#[tokio::test]
async fn a_frame_one_byte_too_long_closes_the_link() {
    let (log, forge) = (Log::start(), Forge::new());
    let mut master = Master::of(&forge).await;
    let mut peer = let_in(&forge, &mut master).await;
    peer.control.write_all(&u32::try_from(FRAME_BYTES_MAX + 1).unwrap().to_be_bytes()).await.unwrap();
    thrown_out(master, peer, &log, Refusal::FrameTooLong).await;
}

#[tokio::test]
async fn bytes_that_are_no_frames_close_the_link() {
    let (log, forge) = (Log::start(), Forge::new());
    let mut master = Master::of(&forge).await;
    let mut peer = let_in(&forge, &mut master).await;
    peer.control.write_all(b"GET / HTTP/1.1\r\nHost: master\r\n\r\n").await.unwrap();
    thrown_out(master, peer, &log, Refusal::FrameTooLong).await;
}

#[tokio::test]
async fn an_empty_frame_closes_the_link() {
    let (log, forge) = (Log::start(), Forge::new());
    let mut master = Master::of(&forge).await;
    let mut peer = let_in(&forge, &mut master).await;
    peer.control.write_all(&[0; 4]).await.unwrap();
    thrown_out(master, peer, &log, Refusal::FrameEmpty).await;
}

/// The link cuts frames and does not read them; whoever does gives the connection back with a reason.
#[tokio::test]
async fn a_frame_of_garbage_closes_the_link() {
    let (log, forge) = (Log::start(), Forge::new());
    let mut master = Master::of(&forge).await;
    let mut peer = let_in(&forge, &mut master).await;
    frame(&mut peer.control, &[0xa5; 777]).await;
    let LinkEvent::Frame { connection, bytes, .. } = master.next().await else { panic!("no frame") };
    message::decode::<ToMaster>(&bytes).unwrap_err();
    master.links.close(connection, CloseReason::Refused(Refusal::BadMessage));
    thrown_out(master, peer, &log, Refusal::BadMessage).await;
}

#[tokio::test]
async fn a_stream_of_no_lane_closes_the_link() {
    let (log, forge) = (Log::start(), Forge::new());
    let mut master = Master::of(&forge).await;
    let peer = let_in(&forge, &mut master).await;
    let mut stream = peer.connection.open_uni().await.unwrap();
    stream.write_all(&[Lane::Control.byte()]).await.unwrap();
    thrown_out(master, peer, &log, Refusal::BadStream).await;
}

#[tokio::test]
async fn two_streams_of_one_lane_close_the_link() {
    let (log, forge) = (Log::start(), Forge::new());
    let mut master = Master::of(&forge).await;
    let peer = let_in(&forge, &mut master).await;
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut stream = peer.connection.open_uni().await.unwrap();
        stream.write_all(&[Lane::Live.byte()]).await.unwrap();
        streams.push(stream);
    }
    thrown_out(master, peer, &log, Refusal::BadStream).await;
}

#[tokio::test]
async fn a_lane_that_ends_closes_the_link() {
    let (log, forge) = (Log::start(), Forge::new());
    let mut master = Master::of(&forge).await;
    let peer = let_in(&forge, &mut master).await;
    let mut stream = peer.connection.open_uni().await.unwrap();
    stream.write_all(&[Lane::Backlog.byte()]).await.unwrap();
    stream.finish().unwrap();
    thrown_out(master, peer, &log, Refusal::BadStream).await;
}

#[tokio::test]
async fn a_peer_cannot_open_more_streams_than_there_are_lanes() {
    let forge = Forge::new();
    let mut master = Master::of(&forge).await;
    let peer = let_in(&forge, &mut master).await;
    let _lanes = (peer.connection.open_uni().await.unwrap(), peer.connection.open_uni().await.unwrap());
    let more = tokio::time::timeout(Duration::from_millis(300), peer.connection.open_uni()).await;
    assert!(more.is_err(), "a third stream of one direction was allowed");
    let more = tokio::time::timeout(Duration::from_millis(300), peer.connection.open_bi()).await;
    assert!(more.is_err(), "a second stream of two directions was allowed");
}

#[tokio::test]
async fn a_peer_s_last_words_cannot_write_to_a_terminal() {
    let forge = Forge::new();
    let mut master = Master::of(&forge).await;
    let peer = let_in(&forge, &mut master).await;
    peer.connection.close(9u32.into(), b"\x1b[2Jall is well\r\n");
    let LinkEvent::Disconnected { reason, .. } = master.next().await else { panic!("another event") };
    assert!(reason.contains("all is well"), "{reason:?}");
    assert!(!reason.contains(char::is_control), "{reason:?}");
}

#[tokio::test]
async fn a_peer_without_control_stream_is_closed() {
    let (log, forge) = (Log::start(), Forge::new());
    let mut master = Master::of(&forge).await;
    let client = client();
    let connection = good_peer(&client, &forge, &master).await;
    let ConnectionError::ApplicationClosed(close) = in_time("the end", connection.closed()).await else { panic!() };
    assert_eq!(close.reason.as_ref(), Refusal::NoControlStream.kind().as_bytes());
    counted_alone(master.links.refusals(), Refusal::NoControlStream).await;
    assert_eq!(log.lines_of(Refusal::NoControlStream), 1);
    assert!(master.events.try_recv().is_err(), "the loop never heard of it and need not hear of its end");
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_closed_at_the_bound() {
    let (log, forge) = (Log::start(), Forge::new());
    let mut master = Master::of(&forge).await;
    let peer = let_in(&forge, &mut master).await;
    let frame = Bytes::from(vec![1; FRAME_BYTES_MAX]);
    let enough = 2 * CONTROL_QUEUE_BYTES / FRAME_BYTES_MAX;
    let mut sent = 0;
    while sent < enough && master.links.refusals().total(Refusal::SlowReader) == 0 {
        master.links.send(peer.id, frame.clone());
        sent += 1;
    }
    assert!(sent > CONTROL_QUEUE_BYTES / FRAME_BYTES_MAX, "closed before the bound, after {sent} frames");
    assert!(sent < enough, "never closed");
    thrown_out(master, peer, &log, Refusal::SlowReader).await;
}

#[tokio::test]
async fn a_certificate_that_ends_ends_its_connection() {
    let (log, forge) = (Log::start(), Forge::new());
    let mut master = Master::of(&forge).await;
    let mut params = forge.slot();
    lives(&mut params, Days::days(-1), Days::seconds(4));
    let client = client();
    let tls = client_tls(&forge, Some(forge.sign(&params)));
    let connection = dial(&client, &forge, master.address, tls).await.unwrap();
    let (mut control, reading) = connection.open_bi().await.unwrap();
    frame(&mut control, b"hello").await;
    let LinkEvent::Connected { connection: id, .. } = master.next().await else { panic!("not connected") };
    assert!(matches!(master.next().await, LinkEvent::Frame { .. }));
    assert_eq!(connection.close_reason(), None, "alive while its certificate is");
    let peer = Peer { connection, control, reading, id, _client: client };
    let in_time =
        tokio::time::timeout(Duration::from_secs(4 + 5), thrown_out(master, peer, &log, Refusal::CertificateEnded));
    assert!(in_time.await.is_ok(), "a connection may outlive its certificate by 5 s");
}

#[tokio::test]
async fn a_third_connection_of_one_identity_takes_the_place_of_the_most_silent() {
    let (log, forge) = (Log::start(), Forge::new());
    let mut master = Master::of(&forge).await;
    let mut first = let_in(&forge, &mut master).await;
    let second = let_in(&forge, &mut master).await;
    frame(&mut first.control, b"still here").await;
    assert!(matches!(master.next().await, LinkEvent::Frame { .. }));
    let client = client();
    let third = good_peer(&client, &forge, &master).await;
    until("the place taken", || master.links.refusals().total(Refusal::Superseded) == 1).await;
    assert_eq!(first.connection.close_reason(), None, "the first was heard last");
    assert_eq!(third.close_reason(), None);
    thrown_out(master, second, &log, Refusal::Superseded).await;
}

#[tokio::test]
async fn a_flood_waits_at_the_bound_and_loses_nothing() {
    let forge = Forge::new();
    let mut master = Master::of(&forge).await;
    let peer = let_in(&forge, &mut master).await;
    let mut backlog = peer.connection.open_uni().await.unwrap();
    backlog.write_all(&[Lane::Backlog.byte()]).await.unwrap();
    let pool = master::link::BACKLOG_BYTES / FRAME_BYTES_MAX;
    let mut payload = vec![0; FRAME_BYTES_MAX];
    let flood = tokio::spawn(async move {
        for number in 0..2 * u64::try_from(pool).unwrap() {
            payload[..8].copy_from_slice(&number.to_be_bytes());
            frame(&mut backlog, &payload).await;
        }
        backlog
    });
    // Nobody takes the frames: the flood must come to rest with the pool full, and the live lane still have room.
    let mut held = Vec::new();
    while held.len() < pool {
        let LinkEvent::Frame { bytes, lane: Lane::Backlog, .. } = master.next().await else { panic!("no frame") };
        held.push(bytes);
    }
    let more = tokio::time::timeout(Duration::from_millis(500), master.events.recv()).await;
    assert!(more.is_err(), "more bytes are alive than the pool has");
    assert!(!flood.is_finished());
    let mut other = let_in(&forge, &mut master).await;
    frame(&mut other.control, b"not held up").await;
    assert!(matches!(master.next().await, LinkEvent::Frame { bytes, .. } if bytes.as_ref() == b"not held up"));
    let mut seen = 0u64;
    for bytes in held.drain(..) {
        assert_eq!(bytes[..8], seen.to_be_bytes());
        seen += 1;
        drop(bytes);
    }
    while seen < 2 * u64::try_from(pool).unwrap() {
        let LinkEvent::Frame { bytes, .. } = master.next().await else { panic!("no frame") };
        assert_eq!(bytes[..8], seen.to_be_bytes());
        seen += 1;
    }
    in_time("the flood's end", flood).await.unwrap();
}

#[tokio::test]
async fn a_loop_that_is_slow_slows_the_peer_and_not_the_master() {
    let forge = Forge::new();
    let mut master = Master::of(&forge).await;
    let mut peer = let_in(&forge, &mut master).await;
    let total = 3 * u32::try_from(master::link::EVENTS_MAX).unwrap();
    let flood = tokio::spawn(async move {
        for number in 0..total {
            frame(&mut peer.control, &number.to_be_bytes()).await;
        }
        peer
    });
    until("a full queue", || master.events.len() == master::link::EVENTS_MAX).await;
    for number in 0..total {
        let LinkEvent::Frame { bytes, .. } = master.next().await else { panic!("no frame") };
        assert_eq!(bytes.as_ref(), number.to_be_bytes());
    }
    let mut peer = in_time("the flood's end", flood).await.unwrap();
    master.links.send(peer.id, Bytes::from_static(b"answer"));
    let mut answer = [0; 10];
    in_time("the answer", peer.reading.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"\0\0\0\x06answer");
}
