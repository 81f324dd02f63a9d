//! Both real ends together: frames on every lane, both ways, and the way back after a stop.

use std::time::Duration;

use bytes::Bytes;
use master::link::{CloseReason, LinkEvent as AtMaster};
use satellite::link::tls::Congestion;
use satellite::link::{LANE_QUEUE_FRAMES, Lane, LinkEvent as AtSatellite, LinkHandle, SendError, Settings, run};
use shared::frame::FrameError;
use shared::message::FRAME_BYTES_MAX;
use shared::refusal::{Refusal, Refusals};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::forge::Forge;
use crate::listen::{Master, in_time};

struct Satellite {
    told: mpsc::Receiver<AtSatellite>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Satellite {
    fn start(forge: &Forge, master: &Master) -> Satellite {
        let (events, told) = mpsc::channel(8);
        let stop = CancellationToken::new();
        let settings = Settings {
            masters: vec![master.address.to_string()],
            certificates: forge.slot_directory(),
            congestion: Congestion::default(),
            linked_before: false,
        };
        let task = tokio::spawn(run(settings, events, Refusals::default().into(), stop.clone()));
        Satellite { told, stop, task }
    }

    async fn next(&mut self) -> AtSatellite {
        in_time("an event of the satellite's link", self.told.recv()).await.unwrap()
    }

    async fn connected(&mut self) -> LinkHandle {
        loop {
            if let AtSatellite::Connected { link, .. } = self.next().await {
                return link;
            }
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        in_time("the satellite's stop", self.task).await.unwrap();
    }
}

#[tokio::test]
async fn frames_go_both_ways_on_every_lane() {
    let forge = Forge::new();
    let mut master = Master::of(&forge).await;
    let mut satellite = Satellite::start(&forge, &master);
    let link = satellite.connected().await;
    let largest = Bytes::from((0..FRAME_BYTES_MAX).map(|i| i.to_le_bytes()[0]).collect::<Vec<_>>());
    link.send(Lane::Control, Bytes::from_static(b"hello")).unwrap();
    link.send(Lane::Live, largest.clone()).unwrap();
    link.send(Lane::Backlog, Bytes::from_static(b"old")).unwrap();
    let AtMaster::Connected { connection, session, remote } = master.next().await else { panic!("not connected") };
    assert_eq!(session.leaf().identity.to_string(), forge.slot_uri());
    assert!(remote.ip().is_loopback());
    let mut frames = Vec::new();
    while frames.len() < 3 {
        let AtMaster::Frame { connection: from, lane, bytes, .. } = master.next().await else { panic!("no frame") };
        assert_eq!(from, connection);
        frames.push((lane, bytes));
    }
    frames.sort_by_key(|(lane, _)| *lane);
    assert_eq!(frames, [(Lane::Control, "hello".into()), (Lane::Live, largest.clone()), (Lane::Backlog, "old".into())]);
    for frame in [Bytes::from_static(b"welcome"), largest] {
        master.links.send(connection, frame.clone());
        let AtSatellite::Frame(bytes) = satellite.next().await else { panic!("no frame") };
        assert_eq!(bytes, frame);
    }
    satellite.stop().await;
    let AtMaster::Disconnected { connection: gone, reason } = master.next().await else { panic!("not disconnected") };
    assert_eq!(gone, connection);
    assert!(reason.contains("stopped"), "{reason}");
    assert_eq!(master.links.open(), 0);
    assert!(master.links.refusals().totals().values().all(|total| *total == 0), "a good peer was counted as refused");
}

#[tokio::test]
async fn a_full_lane_gives_the_frame_back_and_the_others_have_room() {
    let forge = Forge::new();
    let mut master = Master::of(&forge).await;
    let mut satellite = Satellite::start(&forge, &master);
    let link = satellite.connected().await;
    let frame = Bytes::from(vec![7; FRAME_BYTES_MAX]);
    // The control stream is not open yet, so nobody reads: windows fill, then the queue.
    let mut taken = 0u32;
    loop {
        match link.send(Lane::Backlog, frame.clone()) {
            Ok(()) => taken += 1,
            Err(error) => {
                assert_eq!(error, SendError::Full);
                if tokio::time::timeout(Duration::from_millis(300), link.room(Lane::Backlog)).await.is_err() {
                    break;
                }
            }
        }
    }
    assert!(taken >= u32::try_from(LANE_QUEUE_FRAMES).unwrap());
    assert_eq!(link.send(Lane::Live, Bytes::new()), Err(SendError::Frame(FrameError::Empty)));
    link.send(Lane::Live, Bytes::from_static(b"now")).unwrap();
    link.send(Lane::Control, Bytes::from_static(b"hello")).unwrap();
    let (mut backlog, mut live) = (0, 0);
    while backlog < taken || live < 1 {
        match master.next().await {
            AtMaster::Frame { lane: Lane::Backlog, .. } => backlog += 1,
            AtMaster::Frame { lane: Lane::Live, .. } => live += 1,
            AtMaster::Frame { lane: Lane::Control, .. } | AtMaster::Connected { .. } => {}
            AtMaster::Disconnected { reason, .. } => panic!("{reason}"),
        }
    }
    in_time("room", link.room(Lane::Backlog)).await.unwrap();
    satellite.stop().await;
    assert_eq!(link.send(Lane::Live, Bytes::from_static(b"late")), Err(SendError::Closed));
}

#[tokio::test]
async fn the_satellite_comes_back_when_the_master_does() {
    let forge = Forge::new();
    let mut master = Master::of(&forge).await;
    let mut satellite = Satellite::start(&forge, &master);
    let old = satellite.connected().await;
    old.send(Lane::Control, Bytes::from_static(b"hello")).unwrap();
    assert!(matches!(master.next().await, AtMaster::Connected { .. }));
    master.links.stop().await;
    let AtSatellite::Disconnected { reason, refusal, .. } = satellite.next().await else { panic!("not disconnected") };
    assert_eq!((reason.as_str(), refusal), ("the master stops", None));
    assert_eq!(old.send(Lane::Control, Bytes::from_static(b"lost?")), Err(SendError::Closed));
    let address = master.address;
    drop(master);
    let mut master = Master::at(&forge, address).await;
    let link = satellite.connected().await;
    link.send(Lane::Control, Bytes::from_static(b"again")).unwrap();
    assert!(matches!(master.next().await, AtMaster::Connected { .. }));
    assert!(matches!(master.next().await, AtMaster::Frame { bytes, .. } if bytes == "again"));
    satellite.stop().await;
}

#[tokio::test]
async fn the_satellite_is_told_why_it_is_closed() {
    let forge = Forge::new();
    let mut master = Master::of(&forge).await;
    let mut satellite = Satellite::start(&forge, &master);
    for (reason, expected, refused) in [
        (CloseReason::NotCommitted, "the master could not commit", None),
        (CloseReason::Fault, "the master reports a fault of its own", None),
        (CloseReason::Unanswered, "the master got no answer from this satellite", None),
        (CloseReason::Refused(Refusal::BadMessage), "the master refused this satellite", Some(Refusal::BadMessage)),
    ] {
        satellite.connected().await.send(Lane::Control, Bytes::from_static(b"hello")).unwrap();
        let connection = loop {
            if let AtMaster::Connected { connection, .. } = master.next().await {
                break connection;
            }
        };
        master.links.close(connection, reason);
        let AtSatellite::Disconnected { reason, refusal, .. } = satellite.next().await else { panic!() };
        assert!(reason.contains(expected), "{reason}");
        assert_eq!(refusal, refused);
    }
    satellite.stop().await;
}

/// CA rotation: both accepted for a while, no restart of the master, no new certificate for the satellite.
#[tokio::test]
async fn a_second_accepted_ca_is_trusted_by_the_master() {
    let (forge, other) = (Forge::new(), Forge::new());
    let place = forge.path("trust").join("ca");
    std::fs::create_dir(&place).unwrap();
    std::fs::copy(other.path("trust").join("ca.crt"), place.join("next.crt")).unwrap();
    std::fs::write(place.join("notes.crt"), "not a certificate").unwrap();
    let certificates = forge.slot_directory();
    std::fs::copy(certificates.join("slot.crt"), place.join("leaf.crt")).unwrap();
    assert_eq!(forge.trust.accepted(), [forge.trust.ca().clone(), other.trust.ca().clone()]);
    let mut master = Master::of(&forge).await;
    let mut params = other.slot();
    params.subject_alt_names = forge.slot().subject_alt_names;
    let (certificate, key) = other.sign_pem(&params);
    std::fs::write(certificates.join("slot.crt"), certificate).unwrap();
    std::fs::write(certificates.join("slot.key"), key).unwrap();
    let (events, mut told) = mpsc::channel(8);
    let stop = CancellationToken::new();
    let settings = Settings {
        masters: vec![master.address.to_string()],
        certificates,
        congestion: Congestion::default(),
        linked_before: false,
    };
    let task = tokio::spawn(run(settings, events, Refusals::default().into(), stop.clone()));
    let Some(AtSatellite::Connected { link, .. }) = in_time("a link", told.recv()).await else { panic!("no link") };
    link.send(Lane::Control, Bytes::from_static(b"hello")).unwrap();
    assert!(matches!(master.next().await, AtMaster::Connected { .. }));
    stop.cancel();
    in_time("the satellite's stop", task).await.unwrap();
}
