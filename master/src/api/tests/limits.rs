//! What a connection may cost: how many there are, and how long one may dawdle.
#![expect(clippy::disallowed_methods, reason = "measures how long a connection lived")]

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::rig::{LONG, Rig, ask_locally};
use crate::api::listener::{CONNECTIONS_MAX, HEADER_TIMEOUT};

#[tokio::test]
async fn a_connection_beyond_the_bound_is_closed_at_once_and_counted() {
    let data = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(data.path(), &["eu-web"]).await;
    let address = rig.serve(true).await;
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        held.push(TcpStream::connect(address).await.unwrap());
    }
    let mut surplus = TcpStream::connect(address).await.unwrap();
    let mut nothing = Vec::new();
    // A reset is a closed connection too.
    let _ = tokio::time::timeout(LONG, surplus.read_to_end(&mut nothing)).await.expect("it is closed");
    assert!(nothing.is_empty());
    held.truncate(CONNECTIONS_MAX - 8);
    let told = async {
        loop {
            // The local socket has its place out of the same bound.
            let socket = data.path().join(crate::api::SOCKET);
            let mut local = tokio::net::UnixStream::connect(socket).await.unwrap();
            let _ =
                local.write_all(b"GET /api/v1/metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
            let mut text = String::new();
            let _ = local.read_to_string(&mut text).await;
            if text.contains("perigee_api_turned_away_total ") {
                return text;
            }
        }
    };
    let text = tokio::time::timeout(LONG, told).await.expect("a place is free again");
    let counted = text.lines().find_map(|line| line.strip_prefix("perigee_api_turned_away_total ")).unwrap();
    assert!(counted.parse::<u64>().unwrap() >= 1, "{counted}");
    rig.stop().await;
}

#[tokio::test]
async fn who_does_not_finish_a_request_is_let_go() {
    let data = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(data.path(), &["eu-web"]).await;
    let address = rig.serve(true).await;
    let begun = Instant::now();
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET /api/v1/status HTTP/1.1\r\nhost: loc").await.unwrap();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(HEADER_TIMEOUT + Duration::from_secs(10), slow.read_to_end(&mut rest)).await;
    let _ = ended.expect("the connection is closed");
    assert!(begun.elapsed() >= HEADER_TIMEOUT - Duration::from_secs(1), "not before its time");
    assert_eq!(ask_locally(data.path(), "GET", "/api/v1/status").await.status, 200);
    rig.stop().await;
}
