//! The event stream: what is told, that nothing is told twice or never, and what happens to clients that do not read.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::http::StatusCode;
use serde_json::{Value, json};
use shared::check::State::{Critical, Down, Ok as Good, Up};
use shared::delivery::GapRecord;
use shared::name::{RunId, Sequence};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::rig::{LONG, Listener, Rig, ask_locally, get, slot};
use crate::api::stream::{STREAMS_MAX, WAITING_BYTES_MAX};
use crate::entry::{Entry, Gap, Outcomes, Presence};
use crate::store::Options;

const OBJECTS: [&str; 2] = ["eu-web", "eu-web!load"];

#[tokio::test]
async fn each_kind_of_row_says_what_happened_with_its_index() {
    let data = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(data.path(), &OBJECTS).await;
    let address = rig.serve(true).await;
    let mut all = Listener::connect(address, "/api/v1/stream?results=all", &[]).await;
    let mut listener = Listener::connect(address, "/api/v1/stream", &[]).await;
    let claim = rig.claim(slot("eu", 1)).await;
    let first = rig.results(&[("eu-web", Up, "up"), ("eu-web!load", Good, "load 1")]).await;
    let quiet = rig.results(&[("eu-web", Up, "still up")]).await;
    let record = GapRecord { first: Sequence(1), last: Sequence(4), reason: "spool-full".into(), from: None, to: None };
    let gap = Gap { slot: slot("eu", 1), run: RunId([1; 16]), record, explained: true };
    let both = rig.batch(&[("eu-web!load", Critical, "load 99 <b>")], vec![gap]).await;
    let presence = Presence { slot: slot("eu", 1), present: false, reason: "silent".into(), drain: None, author: None };
    let out = rig.add(Entry::Presence(presence), Outcomes::default()).await;

    // A link that came is told beside the rows, at no fixed place among them.
    let mut told = Vec::new();
    while told.last().is_none_or(|(_, id, _): &(String, _, _)| *id != Some(out.0)) {
        let sent = listener.next().await.unwrap();
        if sent.name == "link" {
            assert_eq!(sent.data, json!({ "region": "eu", "slot": 1, "connected": true, "stale": false }));
        } else {
            told.push((sent.name, sent.id, sent.data));
        }
    }
    let order: Vec<(&str, Option<u64>)> = told.iter().map(|(name, id, _)| (name.as_str(), *id)).collect();
    let expected = [
        ("slot", Some(claim.0)),
        ("change", Some(first.0)),
        ("gap", None),
        ("change", Some(both.0)),
        ("slot", Some(out.0)),
    ];
    assert_eq!(order, expected, "the last event of a row carries its id; a row without news says nothing");
    assert_eq!(told[0].2["what"], "claim");
    let change = &told[3].2["changes"][0];
    assert_eq!(
        (&change["host"], &change["service"], &change["output"]),
        (&json!("eu-web"), &json!("load"), &json!("load 99 <b>"))
    );
    assert_eq!(
        (&change["state"], &change["state_type"], &change["attempt"]),
        (&json!("CRITICAL"), &json!("SOFT"), &json!(1))
    );
    assert_eq!((&change["from"], &change["hard"]), (&json!({ "state": "OK", "state_type": "HARD" }), &json!(false)));
    assert_eq!((&change["version"], &change["region"]), (&json!(both), &json!("eu")));
    assert_eq!(told[2].2["gaps"][0]["lost"], 4);
    assert_eq!((&told[4].2["present"], &told[4].2["reason"]), (&json!(false), &json!("silent")));

    let results = loop {
        let sent = all.next().await.unwrap();
        if sent.name == "results" {
            break sent;
        }
    };
    assert_eq!((results.id, &results.data["results"][0]["output"]), (Some(quiet.0), &json!("still up")));
    rig.stop().await;
}

/// The indexes that a client was told, in order.
async fn indexes(listener: &mut Listener, until: u64) -> Vec<u64> {
    let mut told = Vec::new();
    while told.last() != Some(&until) {
        let sent = listener.next().await.expect("the stream goes on");
        assert_ne!(sent.name, "resync");
        told.extend(sent.id);
    }
    told
}

#[tokio::test]
async fn a_client_comes_back_across_a_restart_without_hole_or_repetition() {
    let data = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(data.path(), &OBJECTS).await;
    let address = rig.serve(true).await;
    let mut listener = Listener::connect(address, "/api/v1/stream", &[]).await;
    rig.claim(slot("eu", 1)).await;
    let toggle = |number: u64| if number.is_multiple_of(2) { Up } else { Down };
    let mut published = Vec::new();
    for number in 0..20 {
        published.push(rig.results(&[("eu-web", toggle(number), "x")]).await.0);
    }
    let mut told = indexes(&mut listener, published[7]).await;
    told.retain(|index| published.contains(index));
    let seen = listener.last_id.unwrap();
    drop(listener);
    rig.stop().await;

    let mut rig = Rig::open(data.path(), &OBJECTS).await;
    for number in 20..30 {
        published.push(rig.results(&[("eu-web", toggle(number), "x")]).await.0);
    }
    let address = rig.serve(true).await;
    // Rows go on coming while the client reads what it missed.
    let mut listener = Listener::connect(address, "/api/v1/stream", &[("last-event-id", &seen.to_string())]).await;
    for number in 30..60 {
        published.push(rig.results(&[("eu-web", toggle(number), "x")]).await.0);
    }
    told.extend(indexes(&mut listener, *published.last().unwrap()).await);
    assert_eq!(told, published);

    let since = format!("/api/v1/stream?since={}", published[58]);
    let mut other = Listener::connect(address, &since, &[]).await;
    assert_eq!(indexes(&mut other, published[59]).await, [published[59]]);
    rig.stop().await;
}

#[tokio::test]
async fn a_list_and_a_stream_since_its_index_are_the_whole_truth() {
    let data = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(data.path(), &OBJECTS).await;
    rig.claim(slot("eu", 1)).await;
    let address = rig.serve(true).await;
    let list = get(address, "/api/v1/services").await.json();
    let index = rig.results(&[("eu-web!load", Critical, "now")]).await;
    let mut listener = Listener::connect(address, &format!("/api/v1/stream?since={}", list["index"]), &[]).await;
    let sent = listener.next().await.unwrap();
    assert_eq!((sent.id, &sent.data["changes"][0]["output"]), (Some(index.0), &json!("now")));
    rig.stop().await;
}

#[tokio::test]
async fn an_index_that_was_never_given_is_answered_by_resync_and_the_stream_goes_on() {
    let data = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(data.path(), &OBJECTS).await;
    rig.claim(slot("eu", 1)).await;
    let address = rig.serve(true).await;
    let mut listener = Listener::connect(address, "/api/v1/stream?since=999", &[]).await;
    let resync = listener.next().await.unwrap();
    assert_eq!((resync.name.as_str(), resync.id), ("resync", Some(3)));
    let index = rig.results(&[("eu-web", Up, "x")]).await;
    assert_eq!(indexes(&mut listener, index.0).await, [index.0]);
    rig.stop().await;
}

#[tokio::test]
async fn an_index_that_was_trimmed_is_answered_by_resync_and_the_stream_goes_on() {
    let data = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 64 * 1024, ring_bytes: 0, ..Options::default() };
    let mut rig = Rig::open_with(data.path(), &OBJECTS, options).await;
    rig.claim(slot("eu", 1)).await;
    let address = rig.serve(true).await;
    let mut kept = rig.store.checkpoints();
    let mut chance = 1_u64;
    // Texts that do not compress, so that segments fill.
    let mut text = || {
        let mut letter = || {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b'a' + u8::try_from((chance >> 33) % 26).unwrap())
        };
        (0..4_000).map(|_| letter()).collect::<String>()
    };
    for round in 1..=2 {
        for number in 0_u64..40 {
            rig.results(&[("eu-web", if number.is_multiple_of(2) { Up } else { Down }, &text())]).await;
        }
        rig.store.checkpoint(Arc::clone(&rig.shown().status));
        let checkpointed = tokio::time::timeout(LONG, kept.wait_for(|kept| kept.len() >= round)).await;
        checkpointed.expect("a checkpoint").unwrap();
    }
    let mut pause = tokio::time::interval(std::time::Duration::from_millis(20));
    let trimmed = async {
        while rig.store.first().0 <= 3 {
            rig.store.trim(super::rig::clock());
            pause.tick().await;
        }
    };
    tokio::time::timeout(LONG, trimmed).await.expect("the journal is trimmed when history has followed");
    let mut listener = Listener::connect(address, "/api/v1/stream?since=3", &[]).await;
    let resync = listener.next().await.unwrap();
    assert_eq!((resync.name.as_str(), resync.id), ("resync", Some(rig.status().head.0)));
    let index = rig.results(&[("eu-web", Down, "x"), ("eu-web!load", Good, "y")]).await;
    assert_eq!(indexes(&mut listener, index.0).await, [index.0]);
    rig.stop().await;
}

#[tokio::test]
async fn rows_that_outran_the_ring_are_read_from_the_journal() {
    let data = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(data.path(), &OBJECTS).await;
    rig.claim(slot("eu", 1)).await;
    let address = rig.serve(true).await;
    // Catching up takes a moment for each row; meanwhile more rows come than the ring of 64 holds.
    let mut published = Vec::new();
    for number in 0_u64..100 {
        published.push(rig.results(&[("eu-web", if number.is_multiple_of(2) { Up } else { Down }, "x")]).await.0);
    }
    let mut listener = Listener::connect(address, "/api/v1/stream?since=3", &[]).await;
    for number in 0_u64..200 {
        published.push(rig.results(&[("eu-web", if number.is_multiple_of(2) { Up } else { Down }, "x")]).await.0);
    }
    assert_eq!(indexes(&mut listener, *published.last().unwrap()).await, published);
    rig.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_told_to_resync_and_cut_and_costs_a_bounded_piece_of_memory() {
    let data = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(data.path(), &OBJECTS).await;
    rig.claim(slot("eu", 1)).await;
    let address = rig.serve(true).await;
    let mut deaf = TcpStream::connect(address).await.unwrap();
    deaf.write_all(b"GET /api/v1/stream HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut byte = [0; 1];
    deaf.read_exact(&mut byte).await.unwrap();
    let text = "x".repeat(60_000);
    let mut sent = 0;
    let cut = async {
        let mut number = 0_u64;
        loop {
            number += 1;
            rig.results(&[("eu-web", if number.is_multiple_of(2) { Up } else { Down }, &text)]).await;
            sent += text.len();
            let metrics = ask_locally(data.path(), "GET", "/api/v1/metrics").await.text;
            if metrics.contains("perigee_api_streams_cut_total 1\n") {
                assert!(metrics.contains("perigee_api_streams 0\n"), "its place is free again");
                break;
            }
        }
    };
    tokio::time::timeout(LONG, cut).await.expect("a client that does not read is cut");
    // Beyond the bound only what the sockets themselves hold can have been taken.
    assert!(sent < WAITING_BYTES_MAX + 16 * 1024 * 1024, "{sent} bytes were kept for it");
    let mut rest = Vec::new();
    tokio::time::timeout(LONG, deaf.read_to_end(&mut rest)).await.expect("the connection is closed").unwrap();
    let rest = String::from_utf8(rest).unwrap();
    let resync = rest.rfind("event: resync").expect("its last word is resync");
    assert!(rest.get(resync..).unwrap().matches("event: ").count() == 1);
    // It comes back with the last id it has read, and misses nothing.
    let id: u64 = rest.get(..resync).unwrap().rsplit("id: ").next().unwrap().trim().parse().unwrap();
    let ids: Vec<u64> = rest.split("id: ").skip(1).filter_map(|part| part.lines().next()?.parse().ok()).collect();
    assert_eq!(ids.iter().rev().nth(1), Some(&id), "resync moves the place no further than what was sent");
    rig.stop().await;
}

#[tokio::test]
async fn streams_have_a_bound_and_a_place_is_free_again_when_one_ends() {
    let data = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(data.path(), &OBJECTS).await;
    let address = rig.serve(true).await;
    let mut listeners = Vec::new();
    for _ in 0..STREAMS_MAX {
        listeners.push(Listener::connect(address, "/api/v1/stream", &[]).await);
    }
    let refused = get(address, "/api/v1/stream").await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.json()["error"]["code"], Value::from("unavailable"));
    listeners.pop();
    let again = async {
        loop {
            let metrics = ask_locally(data.path(), "GET", "/api/v1/metrics").await.text;
            if metrics.contains(&format!("perigee_api_streams {}\n", STREAMS_MAX - 1)) {
                break;
            }
        }
    };
    tokio::time::timeout(LONG, again).await.expect("the place is free again");
    listeners.push(Listener::connect(address, "/api/v1/stream", &[]).await);
    // Every one of them hears the same.
    rig.claim(slot("eu", 1)).await;
    let index = rig.results(&[("eu-web", Up, "x")]).await;
    let mut heard = BTreeSet::new();
    for listener in &mut listeners {
        heard.insert(indexes(listener, index.0).await.last().copied());
    }
    assert_eq!(heard, BTreeSet::from([Some(index.0)]));
    rig.stop().await;
}
