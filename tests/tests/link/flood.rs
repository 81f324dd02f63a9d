//! Handshakes that are begun and never finished: from a bound on, a peer must first prove that it is where it says it is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use master::link::{HANDSHAKES_BEFORE_RETRY, LinkEvent};
use quinn::Endpoint;
use shared::frame::frame_head;
use shared::identity::master_dns_name;
use tokio::net::UdpSocket;

use crate::forge::Forge;
use crate::listen::{LOOPBACK, Master, client, client_config, client_tls, dial, until};

/// Carries datagrams of clients to the master, and the master's to the last client if told to; sees whether a retry was among
/// them (RFC 9000, section 17.2.5: long header, type 3).
struct Relay {
    address: SocketAddr,
    retried: Arc<AtomicBool>,
}

async fn relay(master: SocketAddr, answers: bool) -> Relay {
    let (near, far) = (UdpSocket::bind(LOOPBACK).await.unwrap(), UdpSocket::bind(LOOPBACK).await.unwrap());
    far.connect(master).await.unwrap();
    let (address, retried) = (near.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
    let seen = retried.clone();
    tokio::spawn(async move {
        let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
        let mut client = None;
        loop {
            tokio::select! {
                Ok((length, from)) = near.recv_from(&mut up) => {
                    client = Some(from);
                    far.send(&up[..length]).await.unwrap();
                }
                Ok(length) = far.recv(&mut down) => {
                    if down[0] & 0b1011_0000 == 0b1011_0000 {
                        seen.store(true, Ordering::SeqCst);
                    }
                    if let (Some(client), true) = (client, answers) {
                        near.send_to(&down[..length], client).await.unwrap();
                    }
                }
                else => break,
            }
        }
    });
    Relay { address, retried }
}

async fn let_in(master: &mut Master, forge: &Forge, client: &Endpoint, relay: &Relay) {
    let tls = client_tls(forge, Some(forge.sign(&forge.slot())));
    let connection = dial(client, forge, relay.address, tls).await.unwrap();
    let (mut control, _reading) = connection.open_bi().await.unwrap();
    control.write_all(&frame_head(b"hello").unwrap()).await.unwrap();
    control.write_all(b"hello").await.unwrap();
    assert!(matches!(master.next().await, LinkEvent::Connected { .. }));
    assert!(matches!(master.next().await, LinkEvent::Frame { .. }));
    connection.close(0u32.into(), b"");
    assert!(matches!(master.next().await, LinkEvent::Disconnected { .. }));
}

#[tokio::test]
async fn from_a_hundred_open_handshakes_on_a_peer_must_prove_its_address() {
    let forge = Forge::new();
    let mut master = Master::of(&forge).await;
    let good = client();
    let calm = relay(master.address, true).await;
    let_in(&mut master, &forge, &good, &calm).await;
    assert!(!calm.retried.load(Ordering::SeqCst), "no need to prove anything while it is calm");

    let deaf = relay(master.address, false).await;
    let name = master_dns_name(forge.trust.installation());
    // More than the bound: the system may drop some of so many datagrams at once.
    let halves: Vec<Endpoint> = (0..2 * HANDSHAKES_BEFORE_RETRY).map(|_| client()).collect();
    let begun: Vec<_> = halves
        .iter()
        .map(|half| half.connect_with(client_config(client_tls(&forge, None)), deaf.address, &name).unwrap())
        .collect();
    until("the flood", || master.links.handshakes() >= HANDSHAKES_BEFORE_RETRY).await;

    let stormy = relay(master.address, true).await;
    let_in(&mut master, &forge, &good, &stormy).await;
    assert!(stormy.retried.load(Ordering::SeqCst), "not asked to prove its address");
    drop(begun);
    until("the flood's deadlines", || master.links.handshakes() == 0).await;
}
